"""How long a token waits for its gradient, under one's hands: the linear bigram model, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from course_lib.plots.style import INK, MUTED, PALETTE, TEXT_PT, figure, legend
from course_lib.problems import zipf
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

TOKENS = (10, 30, 100, 300, 1000, 3000, 10_000)
# Even: after an odd number of steps sign descent has its smallest entries one step off, where they began at home.
STEPS = (2, 4, 6, 8, 10, 14, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10_000)
EXPONENTS = tuple(tenth / 10 for tenth in range(21))
FLOOR = 1e-4  # of both axes
LEARNED = 0.1  # a token whose error is at most this share of the first one counts as learned
SEEN = (
    "Two charts on logarithmic axes. Left, the share of the loss that is left after 2 to 10,000 steps of gradient "
    "descent and of sign descent. Right, the share of the error that is left at the chosen step for each token, from "
    "the most frequent to the rarest."
)


def explore_rare_tokens(*, exponent: float = 1.0, tokens: int = 1000, steps: int = 100) -> None:
    """Show gradient descent and sign descent on the linear bigram model, with controls that redraw them.

    Token frequencies are proportional to 1 / rank^exponent; what follows a token is distributed by Zipf's law
    whatever the exponent. Gradient descent has the learning rate 1 / largest frequency, sign descent for each number
    of steps the constant one that is best for it.

    Args:
        exponent: at first; 0, all tokens equally frequent, to 2.
        tokens: size of the vocabulary at first, 2 to 10,000.
        steps: of the right chart at first, an even number from 2 to 10,000.

    Raises:
        ValueError: a value is out of range.
    """
    values = {"exponent": exponent, "tokens": tokens, "steps": steps}
    for name, low, high in (("exponent", 0, 2), ("tokens", 2, 10_000), ("steps", 2, 10_000)):
        if not low <= values[name] <= high:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: {low:g} <= {name} <= {high:g}.")
        if name != "exponent" and values[name] != int(values[name]):
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: a whole number.")
    if steps % 2:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: an even number of steps.")
    values |= {"tokens": int(tokens), "steps": int(steps)}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "exponent": make.slider("exponent", EXPONENTS, values["exponent"]),
        "tokens": make.slider("tokens", TOKENS, values["tokens"], "{:,}".format),
        "steps": make.slider("steps", STEPS, values["steps"], "{:,}".format),
    }


class Run(NamedTuple):
    """What is left, as shares of what there was at first.

    Attributes:
        gd_loss, sign_loss: the loss after each number of :data:`STEPS`, (23,).
        gd_error: the error of each token's row after the chosen steps of gradient descent, (tokens,).
        sign_error: that of every row after as many steps of sign descent; the rows are alike.
    """

    gd_loss: np.ndarray
    sign_loss: np.ndarray
    gd_error: np.ndarray
    sign_error: float


@lru_cache(maxsize=512)
def _sign(tokens: int, steps: int) -> float:
    return zipf.best_sign(zipf.power_law(tokens), steps)[0]


def run(exponent: float, tokens: int, steps: int) -> Run:
    """Both methods on a vocabulary of that many tokens."""
    frequencies = zipf.power_law(tokens, exponent)
    return Run(
        zipf.linear_gd(frequencies, STEPS), np.array([_sign(tokens, count) for count in STEPS]),
        (1 - frequencies / frequencies.max()) ** steps, _sign(tokens, steps) ** 0.5,
    )


def finding(result: Run, tokens: int, steps: int) -> str:
    """What came out, in a sentence that fits above a picture."""
    learned = int((result.gd_error <= LEARNED).sum())
    sign = "none" if result.sign_error > LEARNED else "all"
    return f"After {steps:,} steps GD has learned {learned:,} of {tokens:,} tokens to within 10%, sign descent {sign}."


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.left, self.right) = figure((8.0, 4.0), 1, 2)
        self.title, self.settings = head(fig)
        gd = dict(color=PALETTE["vermillion"], linewidth=2.2)
        sign = dict(color=PALETTE["blue"], linewidth=2.2, linestyle=(0, (5, 1.5)))
        self.gd_loss, = self.left.plot(STEPS, STEPS, label="gradient descent", **gd)
        self.sign_loss, = self.left.plot(STEPS, STEPS, label="sign descent", **sign)
        self.at = self.left.axvline(1, color=MUTED, linewidth=1.1)
        self.gd_error, = self.right.plot([], [], **gd)
        self.sign_error, = self.right.plot([], [], **sign)
        for ax in (self.left, self.right):
            ax.set(xscale="log", yscale="log", xlim=(1, 1e4), ylim=(FLOOR, 1.5))
        self.left.set_xlabel("steps", fontsize=TEXT_PT, color=INK)
        self.left.set_ylabel("share of the loss left", fontsize=TEXT_PT, color=INK)
        self.right.set_xlabel("rank of the token, 1 the most frequent", fontsize=TEXT_PT, color=INK)
        self.right.set_ylabel("share of its error left", fontsize=TEXT_PT, color=INK)
        legend(self.left, [self.gd_loss, self.sign_loss], 8.0)
        moving = (self.title, self.settings, self.at, self.gd_loss, self.sign_loss, self.gd_error, self.sign_error)
        self.canvas = Canvas(fig, moving)

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        result = run(**values)
        found = finding(result, values["tokens"], values["steps"])
        settings = (f"frequencies 1 / rank^{panel.number(values['exponent'])}, {values['tokens']:,} tokens, "
                    f"{values['steps']:,} steps")
        self.title.set_text(found)
        self.settings.set_text(settings)
        self.gd_loss.set_ydata(np.maximum(result.gd_loss, FLOOR))
        self.sign_loss.set_ydata(np.maximum(result.sign_loss, FLOOR))
        self.at.set_xdata([values["steps"]] * 2)
        ranks = np.unique(np.geomspace(1, values["tokens"], 200).astype(int))
        self.gd_error.set_data(ranks, np.maximum(result.gd_error[ranks - 1], FLOOR))
        self.sign_error.set_data([1, values["tokens"]], [max(result.sign_error, FLOOR)] * 2)
        return self.canvas.picture(), f"{found} With {settings}."
