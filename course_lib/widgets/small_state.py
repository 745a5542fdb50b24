"""What an optimizer remembers about a model, and what 8-bit blocks lose of it, under one's hands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from course_lib.memory.architecture import Weight
from course_lib.memory.arguments import choice
from course_lib.memory.models import MODELS, find
from course_lib.memory.states import STATES, state_bytes
from course_lib.plots.stacks import looks
from course_lib.plots.style import INK, PALETTE, REFERENCE, SMALL_PT, TEXT_PT, figure, legend
from course_lib.precision.blockwise import linear_map, relative_error
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

OPTIMIZERS = ("adamw8bit", "adafactor", "came", "adam_mini", "lion", "muon", "adamw")
PARTS = {
    "embedding, head": ("embedding", "position", "head"),
    "attention": ("attention",),
    "MLP": ("mlp", "expert", "router"),
    "norms, biases": ("norm", "bias"),
}
BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096, 16_384)
SPREADS = tuple(quarter / 4 for quarter in range(17))  # decades
LEAST_SIZE = 4096  # elements from which on bitsandbytes quantises a tensor's state
ROWS, ROW = 64, 256  # of the matrix whose moments are quantised
WITHIN = 0.3  # standard deviation of ln(gradient size) among the elements of a row
ERRORS = np.geomspace(1e-4, 1, 121)
SEEN = (
    "Left, stacked bars of the optimizer's state in bytes per parameter, of AdamW and of the chosen optimizer: "
    "embedding and head, attention, MLP, norms and biases. Right, for the moments of a made-up matrix in 8-bit blocks, "
    "the share of the elements whose stored value is off by at least 0.01% to 100%: v and m with the dynamic map, v "
    "with a linear one. What is off by 100% has become zero."
)


def explore_small_state(
    *, model: str = "llama-3-8b", optimizer: str = "adamw8bit", block: int = 256, spread: float = 2.0,
) -> None:
    """Show an optimizer's bytes of state beside AdamW's, and the error of moments in 8-bit blocks, with controls.

    The quantised moments are those of a matrix of 64 x 256. Each row's gradients have a size of their own, spread
    evenly over ``spread`` decades; those of a row differ a little. v is the square of that size, m a normal draw of it.

    Args:
        model: a key of ``course_lib.memory.models.MODELS``, at first.
        optimizer: one of ``OPTIMIZERS``, at first.
        block: elements that share a scale, one of ``BLOCKS``, at first. It changes the bytes of 8-bit AdamW alone.
        spread: decades between the rows' smallest and largest gradients, at first; 0 to 4.

    Raises:
        ValueError: a value is unknown or out of range.
    """
    find(model)
    if block not in BLOCKS:
        raise ValueError(f"Invalid block: {block!r}. Allowed: {', '.join(map(str, BLOCKS))}.")
    if not 0 <= spread <= SPREADS[-1]:
        raise ValueError(f"Invalid spread: {spread!r}. Allowed: 0 <= spread <= {SPREADS[-1]:g} decades.")
    values = {"model": model.strip().lower(), "optimizer": choice("optimizer", optimizer, OPTIMIZERS),
              "block": int(block), "spread": spread}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "model": make.choice("model", [(find(key).name, key) for key in MODELS], values["model"]),
        "optimizer": make.choice("optimizer", [(STATES[key].name, key) for key in OPTIMIZERS], values["optimizer"]),
        "block": make.slider("block", BLOCKS, values["block"], "{:,}".format),
        "spread": make.slider("spread (decades)", SPREADS, values["spread"]),
    }


def bytes_of(optimizer: str, weights: Iterable[Weight], block: int = 256) -> int:
    """Bytes of state: those of ``memory.states``, but 8-bit AdamW's with blocks of that size."""
    if optimizer != "adamw8bit":
        return state_bytes(optimizer, weights)
    return sum(weight.copies * (8 * weight.size if weight.size < LEAST_SIZE
                                else 2 * (weight.size + 4 * ceil(weight.size / block))) for weight in weights)


@lru_cache(maxsize=256)
def by_part(model: str, optimizer: str, block: int) -> dict[str, int]:
    """Bytes of state in each part of a model."""
    weights = find(model).weights()
    return {part: bytes_of(optimizer, [weight for weight in weights if weight.role in roles], block)
            for part, roles in PARTS.items()}


class Errors(NamedTuple):
    """|stored - true| / |true| of each element, (16384,); 1 where a number has become zero.

    Attributes:
        v, m: with the dynamic map.
        v_linear: of v with 256 values at equal distances.
    """

    v: np.ndarray
    m: np.ndarray
    v_linear: np.ndarray


@lru_cache(maxsize=256)
def errors(block: int, spread: float) -> Errors:
    """What storing the moments in blocks of that size does where rows' gradients spread over so many decades."""
    rng = np.random.default_rng(0)
    rows = 10.0 ** (-spread * rng.permutation(ROWS) / (ROWS - 1))
    size = rows[:, None] * np.exp(WITHIN * rng.standard_normal((ROWS, ROW)))
    v, m = (torch.from_numpy(moment.ravel()) for moment in (size**2, size * rng.standard_normal((ROWS, ROW))))

    def off(moment: torch.Tensor, **how: Any) -> np.ndarray:
        return relative_error(moment, block=block, **how).double().numpy()

    return Errors(off(v, signed=False), off(m, signed=True), off(v, signed=False, table=linear_map(signed=False)))


def finding(model: str, optimizer: str, block: int, spread: float) -> str:
    """What came out, in a sentence that fits above a picture."""
    whole, small = (sum(by_part(model, key, block).values()) for key in ("adamw", optimizer))
    v = errors(block, spread).v
    lost = (v == 1).mean()
    zero = "none of it" if not lost else f"{_percent(lost)} of it"
    return (f"{_gb(small)} GB of state instead of {_gb(whole)}. 8-bit v: off by {_percent(float(np.median(v)))} at the "
            f"median, {zero} zero.")


def _gb(size: float) -> str:
    return panel.number(size / 1e9) if size < 1e12 else f"{size / 1e9:,.0f}"


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.2g}'):g}%"


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.left, self.right) = figure((8.0, 4.2), 1, 2)
        self.title, self.settings = head(fig)
        self.left.set(xlim=(-0.6, 1.6), ylim=(0, 9.4))
        self.left.set_xticks([0, 1], ["AdamW", "chosen"])
        self.left.tick_params(axis="x", length=0)
        self.left.grid(False, axis="x")
        self.left.yaxis.set_major_locator(FixedLocator(range(0, 9, 2)))
        self.left.set_ylabel("state (bytes per parameter)", fontsize=TEXT_PT, color=INK)
        self.bars: list[list[Rectangle]] = []
        self.totals = []
        for place in (0, 1):
            self.bars.append([self.left.add_patch(Rectangle(
                (place - 0.4, 0), 0.8, 0, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0.8, zorder=2,
            )) for colour, hatch in looks(PARTS).values()])
            self.totals.append(self.left.text(place, 0, "", ha="center", va="bottom", fontsize=SMALL_PT, color=INK))
        keys = [Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=part)
                for part, (colour, hatch) in looks(PARTS).items()]
        legend(self.left, keys, 4.6)
        self.v, = self.right.plot([], [], color=PALETTE["blue"], linewidth=2.2, label="v")
        self.m, = self.right.plot([], [], color=PALETTE["orange"], linewidth=2.2, linestyle=(0, (5, 1.5)), label="m")
        self.v_linear, = self.right.plot([], [], color=PALETTE["vermillion"], linewidth=1.8, linestyle=(0, (1.5, 1)),
                                         label="v, linear map")
        self.right.axvline(1, **REFERENCE)
        self.right.set(xscale="log", xlim=(ERRORS[0], 1.15), ylim=(-2, 102))
        self.right.xaxis.set_major_locator(FixedLocator([1e-4, 1e-3, 1e-2, 0.1, 1]))
        self.right.xaxis.set_minor_locator(NullLocator())
        self.right.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        self.right.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}%"))
        self.right.set_xlabel("relative error of what is stored", fontsize=TEXT_PT, color=INK)
        self.right.set_ylabel("elements with at least that error", fontsize=TEXT_PT, color=INK)
        legend(self.right, [self.v, self.m, self.v_linear], 5.0)
        self.canvas = Canvas(fig, (
            self.title, self.settings, *self.bars[0], *self.bars[1], *self.totals, self.v_linear, self.m, self.v,
        ))

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        model, optimizer, block = values["model"], values["optimizer"], values["block"]
        found = finding(**values)
        settings = (f"{find(model).name}, {STATES[optimizer].name}; 8-bit blocks of {block:,}, gradients of rows over "
                    f"{values['spread']:g} decades")
        self.title.set_text(found)
        self.settings.set_text(settings)
        for bars, total, key in zip(self.bars, self.totals, ("adamw", optimizer), strict=True):
            below = 0.0
            for bar, size in zip(bars, by_part(model, key, block).values(), strict=True):
                bar.set(y=below, height=size / find(model).parameters)
                below += bar.get_height()
            total.set(y=below + 0.08, text=panel.number(below))
        for line, off in zip((self.v, self.m, self.v_linear), errors(block, values["spread"]), strict=True):
            line.set_data(ERRORS, 100 * (1 - np.searchsorted(np.sort(off), ERRORS) / off.size))
        return self.canvas.picture(), f"{found} With {settings}."
