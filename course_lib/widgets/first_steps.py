"""Adam's first hundred steps on one parameter, under one's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.plots.style import INK, MUTED, PALETTE, REFERENCE, TEXT_PT, color, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

STEPS = 100
SEEN = (
    "Two curves over 100 steps on a log axis, in units of lr: Adam's steps and those of the same rule without "
    "bias correction, for a gradient that is 1 at every step but that of the shock."
)


def explore_first_steps(
    *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, shock: float = 1.0, shock_at: int = 50,
) -> None:
    """Show Adam's first hundred steps on a parameter whose gradient is 1, with controls that redraw them.

    Args:
        betas: at first; each in [0, 1).
        eps: at first; 1e-12 to 10.
        shock: how many times larger one gradient is, at first; 1 (no shock) to 1000.
        shock_at: the step of that gradient at first, 1 to 100.

    Raises:
        ValueError: a value is out of range.
    """
    values = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "shock": shock, "shock_at": shock_at}
    for name, low, high in (("eps", 1e-12, 10), ("shock", 1, 1000), ("shock_at", 1, STEPS)):
        if not low <= values[name] <= high:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: {low:g} <= {name} <= {high:g}.")
    for name in ("beta1", "beta2"):
        if not 0 <= values[name] < 1:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: 0 <= {name} < 1.")
    picture = _Picture(values)
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "beta1": make.rate_slider("beta1", values["beta1"]),
        "beta2": make.rate_slider("beta2", values["beta2"]),
        "eps": make.log_slider("epsilon", [values["eps"]], -12, 1),
        "shock": make.log_slider("size of the shock", [values["shock"]], 0, 3),
        "shock_at": make.step_slider("step of the shock", values["shock_at"], 1, STEPS),
    }


def adam_steps(
    beta1: float, beta2: float, eps: float, shock: float, shock_at: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (100,) of Adam's steps in units of lr, and of those without bias correction.

    The gradient is 1, and ``shock`` at step ``shock_at``, counted from 1. Source: Kingma & Ba 2015 (1412.6980),
    Algorithm 1.
    """
    m = v = 0.0
    corrected, raw = np.empty(STEPS), np.empty(STEPS)
    for t in range(1, STEPS + 1):
        g = shock if t == shock_at else 1.0
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        corrected[t - 1] = m / (1 - beta1**t) / (math.sqrt(v / (1 - beta2**t)) + eps)
        raw[t - 1] = m / (math.sqrt(v) + eps)
    return corrected, raw


def finding(corrected: np.ndarray, raw: np.ndarray, shock: float, shock_at: int) -> str:
    """What happened, in a sentence that fits above a picture."""
    if shock == 1:
        return f"Adam's steps are {_span(corrected)} lr; without bias correction {_span(raw)} lr."
    return (f"After a gradient {panel.number(shock)} times larger at step {shock_at}, "
            f"Adam's steps are {_span(corrected[shock_at - 1 :])} lr.")


def _span(lengths: np.ndarray) -> str:
    low, high = f"{lengths.min():.2g}", f"{lengths.max():.2g}"
    return low if low == high else f"{low} to {high}"


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        fig, (self.ax,) = figure((8.0, 3.9))
        self.title, self.settings = head(fig)
        t = np.arange(1, STEPS + 1)
        self.raw, = self.ax.plot(t, t, color=PALETTE["blue"], linewidth=1.9, linestyle=(0, (5, 1.5)),
                                 label="without bias correction")
        self.corrected, = self.ax.plot(t, t, color=color("adam"), linewidth=2.2, label="Adam")
        self.ax.axhline(1, **REFERENCE)
        self.shock = self.ax.axvline(1, color=MUTED, linewidth=1.1)
        self.shock.set_label("shock")
        self.ax.set(yscale="log", xlim=(0, STEPS + 1), ylim=(1e-3, 1e3))
        self.ax.set_xlabel("step t", fontsize=TEXT_PT, color=INK)
        self.ax.set_ylabel("step length (units of lr)", fontsize=TEXT_PT, color=INK)
        legend(self.ax, [self.corrected, self.raw, self.shock], 8.0)
        self.canvas = Canvas(fig, (self.title, self.settings, self.shock, self.raw, self.corrected))

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        corrected, raw = adam_steps(**values)
        found = finding(corrected, raw, values["shock"], values["shock_at"])
        settings = ", ".join(f"{name} {panel.number(values[name])}" for name in ("beta1", "beta2", "eps"))
        self.title.set_text(found)
        self.settings.set_text(settings)
        self.corrected.set_ydata(corrected)
        self.raw.set_ydata(raw)
        self.shock.set(xdata=[values["shock_at"]] * 2, visible=values["shock"] != 1)
        return self.canvas.picture(), f"{found} With {settings}."
