"""What Newton-Schulz makes of a matrix's singular values, under one's hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.plots.style import INK, PALETTE, REFERENCE, TEXT_PT, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

VALUES = 64  # singular values of the matrix
FLOOR = 1e-7  # of the axis; what lies below is drawn there
MOST_STEPS = 15
COEFFICIENTS: dict[str, tuple[float, float, float]] = {
    "Jordan's": (3.4445, -4.7750, 2.0315),
    "cubic": (1.5, -0.5, 0.0),
    "quintic": (1.875, -1.25, 0.375),
}
"""a, b, c. Jordan et al. 2024 gave up convergence for the slope a. The others converge: they map 1 to 1, with one and
with two derivatives of zero there."""
SEEN = (
    "Singular values of a 64 x 64 matrix on a log axis, the largest first: before, divided by the matrix's norm, a "
    "straight line downwards; after the steps, pushed towards the dashed line at 1."
)


def explore_newton_schulz(*, coefficients: str = "Jordan's", steps: int = 5, condition: float = 1000.0) -> None:
    """Show the singular values of a matrix before and after Newton-Schulz, with controls that redraw them.

    The matrix is 64 x 64, its singular values fall by one factor from each to the next.

    Args:
        coefficients: at first; "Jordan's", "cubic" or "quintic".
        steps: at first; 0 to 15.
        condition: the largest singular value over the smallest, at first; 1 to 1e6.

    Raises:
        ValueError: a value is out of range.
    """
    if coefficients not in COEFFICIENTS:
        raise ValueError(f"Invalid coefficients: {coefficients!r}. Allowed: {', '.join(map(repr, COEFFICIENTS))}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= MOST_STEPS:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number from 0 to {MOST_STEPS}.")
    if not 1 <= condition <= 1e6:
        raise ValueError(f"Invalid condition: {condition!r}. Allowed: 1 <= condition <= 1e6.")
    values = {"coefficients": coefficients, "steps": steps, "condition": condition}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "coefficients": make.choice("coefficients", [(name, name) for name in COEFFICIENTS], values["coefficients"]),
        "steps": make.step_slider("steps", values["steps"], 0, MOST_STEPS),
        "condition": make.log_slider("condition", [values["condition"]], 0, 6),
    }


def singular_values(coefficients: str, steps: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Before and after, float64 (64,) each, in the order of the values before, the largest first.

    An odd polynomial of a matrix is that polynomial of its singular values: each becomes a s + b s^3 + c s^5 at every
    step, from s over the Frobenius norm.
    """
    a, b, c = COEFFICIENTS[coefficients]
    before = np.geomspace(1.0, 1 / condition, VALUES)
    before /= np.sqrt(np.square(before).sum())
    after = before
    for _ in range(steps):
        after = a * after + b * after**3 + c * after**5
    return before, after


def finding(after: np.ndarray) -> str:
    """What happened, in a sentence that fits above a picture."""
    low, high, small = after.min(), after.max(), int((after < 0.5).sum())
    return f"Singular values from {panel.number(low)} to {panel.number(high)}; {small} of {VALUES} are below a half."


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.ax,) = figure((8.0, 3.9))
        self.title, self.settings = head(fig)
        index = np.arange(1, VALUES + 1)
        self.before, = self.ax.plot(index, np.ones(VALUES), color=PALETTE["blue"], linewidth=1.9,
                                    linestyle=(0, (5, 1.5)), label="before")
        self.after, = self.ax.plot(index, np.ones(VALUES), color=PALETTE["vermillion"], linewidth=1.6, marker="o",
                                   markersize=3.5, label="after")
        self.ax.axhline(1, **REFERENCE)
        self.ax.set(yscale="log", xlim=(0, VALUES + 1), ylim=(FLOOR / 1.5, 3))
        self.ax.set_xlabel("singular value, the largest first", fontsize=TEXT_PT, color=INK)
        self.ax.set_ylabel("size", fontsize=TEXT_PT, color=INK)
        legend(self.ax, [self.before, self.after], 8.0)
        self.canvas = Canvas(fig, (self.title, self.settings, self.before, self.after))

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        before, after = singular_values(**values)
        found = finding(after)
        a, b, c = COEFFICIENTS[values["coefficients"]]
        settings = (f"{values['coefficients']} coefficients ({a:g}, {b:g}, {c:g}), {values['steps']} "
                    f"step{'s' * (values['steps'] != 1)}, condition {panel.number(values['condition'])}")
        self.title.set_text(found)
        self.settings.set_text(settings)
        self.before.set_ydata(before)
        self.after.set_ydata(np.maximum(after, FLOOR))
        return self.canvas.picture(), f"{found} With {settings}."
