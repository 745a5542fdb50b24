"""Dynamic loss scaling over a run of 2,000 steps, under one's hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from course_lib.plots.style import INK, MUTED, PALETTE, TEXT_PT, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

STEPS = 2000
ENTRIES = 124_000_000  # of the gradient: GPT-2's smallest model
SPREAD = 3.0  # standard deviation of log2 |g|; 2.5 to 3.2 in the course's language model (problems.lm) of 4 layers
FALL = 100.0  # how many times smaller gradients become over the run
SPIKES = 10  # single steps whose gradients are 2^6 to 2^12 times larger
OVERFLOW = np.log2(65520.0)  # from here on, float16 rounds to infinity
UNDERFLOW = -25.0  # 2^-25, half the smallest subnormal, and all below it rounds to zero
LOST = 1e-3  # the share of entries lost at the lower edge of the band
GROWTH = 2.0  # torch's default growth_factor
LOW, HIGH = -12, 36  # of the axis, in powers of two
FLOOR = 1e-5  # of the axis of shares

INIT_POWERS = range(33)
INTERVALS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
BACKOFFS = (0.1, 0.25, 0.5, 0.75, 0.9)
SEEN = (
    "Above, the scale over 2,000 steps on an axis of powers of two, within or outside a band in which no entry "
    "overflows and fewer than one in 1,000 are lost, that is, become zero; a cross marks each skipped step. Below, the "
    "share of gradient entries that are lost, with scaling and without, on a log axis. Gradients become 100 times "
    "smaller over the run, and ten steps have a spike."
)


def explore_loss_scaling(
    *, init_scale: float = 65536.0, growth_interval: int = 100, backoff: float = 0.5, size: float = 1e-6,
) -> None:
    """Show how the scale of torch.amp.GradScaler follows gradients through a simulated run, with controls.

    The magnitudes of a step's 124 million gradient entries are log-normal. Their median falls to a hundredth over the
    run and wanders; ten steps have a spike. The scale doubles after ``growth_interval`` steps without overflow.

    Args:
        init_scale: at first; a power of two from 1 to 2^32.
        growth_interval: at first; 1 to 2000.
        backoff: the factor of the scale after an overflow, at first; 0.05 to 0.95.
        size: the median magnitude of an entry at the start of the run, at first; 1e-8 to 1e-2.

    Raises:
        ValueError: a value is out of range.
    """
    values = {"init_scale": init_scale, "growth_interval": growth_interval, "backoff": backoff, "size": size}
    if init_scale not in [2.0**power for power in INIT_POWERS]:
        raise ValueError(f"Invalid init_scale: {init_scale!r}. Allowed: a power of two from 1 to 2^32, such as 65536.")
    for name, low, high in (("growth_interval", 1, STEPS), ("backoff", 0.05, 0.95), ("size", 1e-8, 1e-2)):
        if not low <= values[name] <= high:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: {low:g} <= {name} <= {high:g}.")
    if growth_interval != int(growth_interval):
        raise ValueError(f"Invalid growth_interval: {growth_interval!r}. Allowed: a whole number of steps.")
    values["growth_interval"] = int(growth_interval)
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    powers = [2.0**power for power in INIT_POWERS]
    return {
        "init_scale": make.slider("init_scale", powers, values["init_scale"], lambda scale: f"2^{np.log2(scale):.0f}"),
        "growth_interval": make.slider("growth_interval", INTERVALS, values["growth_interval"], str),
        "backoff": make.slider("backoff_factor", BACKOFFS, values["backoff"]),
        "size": make.log_slider("median gradient", [values["size"]], -8, -2),
    }


class Run(NamedTuple):
    """What came of a run; each array has an entry a step, (2000,).

    Attributes:
        scale: by which the loss of the step was multiplied.
        skipped: whether an entry overflowed, so that the step was not taken.
        lost: the share of the entries that became zero, in [0, 1].
    """

    scale: np.ndarray
    skipped: np.ndarray
    lost: np.ndarray


@lru_cache(maxsize=1)
def magnitudes() -> tuple[np.ndarray, np.ndarray]:
    """log2 of the median and of the largest magnitude among a step's entries, (2000,), for a median of 1 at step 1."""
    rng = np.random.default_rng(0)
    wander = np.zeros(STEPS)
    for step, push in enumerate(rng.normal(scale=0.12, size=STEPS - 1), start=1):
        wander[step] = 0.97 * wander[step - 1] + push
    median = wander - np.log2(FALL) * np.arange(STEPS) / (STEPS - 1)
    spikes = rng.choice(np.arange(50, STEPS), SPIKES, replace=False)
    median[spikes] += rng.uniform(6, 12, SPIKES)
    # The largest of n draws lies above x with probability 1 - F(x)^n: draw that, and solve for x.
    tail = -np.expm1(np.log(rng.uniform(size=STEPS)) / ENTRIES)
    return median, median - SPREAD * torch.special.ndtri(torch.from_numpy(tail)).numpy()


def share_lost(scale: np.ndarray | float, median: np.ndarray) -> np.ndarray:
    """The share of entries that float16 rounds to zero, for log-normal magnitudes with this log2 of the median."""
    below = (UNDERFLOW - np.log2(scale) - median) / SPREAD
    return torch.special.ndtr(torch.from_numpy(np.asarray(below))).numpy()


def simulate(init_scale: float, growth_interval: int, backoff: float, size: float) -> Run:
    """Run the rule of torch.amp.GradScaler over 2,000 steps.

    The rule: after an overflow the scale is multiplied by ``backoff`` and the count of clean steps starts anew; after
    ``growth_interval`` clean steps in a row the scale is doubled and the count starts anew.
    """
    median, largest = magnitudes()
    most = 2.0 ** (OVERFLOW - largest) / size  # from this scale on, the step's largest entry overflows
    scale, skipped = np.empty(STEPS), np.empty(STEPS, dtype=bool)
    now, clean = init_scale, 0
    for step, limit in enumerate(most.tolist()):
        overflows = now >= limit
        scale[step], skipped[step] = now, overflows
        clean = 0 if overflows else clean + 1
        if overflows:
            now *= backoff
        elif clean == growth_interval:
            now, clean = GROWTH * now, 0
    return Run(scale, skipped, share_lost(scale, median + np.log2(size)))


def finding(run: Run, size: float) -> str:
    """What came of the run, in a sentence that fits above a picture."""
    count = int(run.skipped.sum())
    unscaled = share_lost(1.0, magnitudes()[0] + np.log2(size)).mean()
    return (f"{count:,} of {STEPS:,} steps skipped; {_percent(run.lost[~run.skipped].mean())} of the entries lost, "
            f"unscaled {_percent(unscaled)}.")


def _percent(share: float) -> str:
    if share < 1e-4:
        return "under 0.01%"
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 else f"{float(f'{percent:.2g}'):g}%"


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.top, self.bottom) = figure((8.0, 5.0), 2, 1)
        self.top.get_gridspec().set_height_ratios((2, 1))
        self.title, self.settings = head(fig)
        self.steps = np.arange(1, STEPS + 1)
        self.scale, = self.top.plot([], [], color=PALETTE["blue"], linewidth=1.9, drawstyle="steps-mid", label="scale")
        self.skips, = self.top.plot([], [], linestyle="", marker="x", color=PALETTE["vermillion"], markersize=7,
                                    markeredgewidth=1.8, label="step skipped", clip_on=False, in_layout=False)
        self.lost, = self.bottom.plot([], [], color=PALETTE["blue"], linewidth=1.9, label="with scaling", zorder=3)
        self.top.set(xlim=(0, STEPS + 1), ylim=(LOW, HIGH))
        self.top.yaxis.set_major_locator(FixedLocator(range(-8, HIGH, 8)))
        self.top.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$2^{{{power:.0f}}}$"))
        self.top.tick_params(labelbottom=False)
        self.bottom.set(xlim=(0, STEPS + 1), yscale="log", ylim=(FLOOR, 1))
        self.bottom.yaxis.set_major_locator(FixedLocator([FLOOR, 1e-3, 0.1, 1]))
        self.bottom.yaxis.set_major_formatter(
            FuncFormatter(lambda share, _: f"{'under ' if share <= FLOOR else ''}{100 * share:g}%"))
        self.bottom.yaxis.set_minor_locator(NullLocator())
        self.top.set_ylabel("scale", fontsize=TEXT_PT, color=INK)
        self.bottom.set_ylabel("entries lost", fontsize=TEXT_PT, color=INK)
        self.bottom.set_xlabel("step", fontsize=TEXT_PT, color=INK)
        band = Patch(facecolor=PALETTE["green"], alpha=0.3, label="no overflow, under 0.1% of the entries lost")
        legend(self.top, [self.scale, self.skips, band], 8.0)
        unscaled, = self.bottom.plot([], [], **self._unscaled)
        legend(self.bottom, [self.lost, unscaled], 8.0)
        unscaled.remove()
        self.laid: list[Artist] = []
        self.canvas = Canvas(fig, (self.title, self.settings, self.scale, self.skips, self.lost))

    _unscaled = dict(color=MUTED, linewidth=1.1, label="without")

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        run = simulate(**values)
        found = finding(run, values["size"])
        settings = (f"init_scale 2^{np.log2(values['init_scale']):.0f}, growth_interval {values['growth_interval']}, "
                    f"backoff_factor {panel.number(values['backoff'])}, median of |g| {panel.number(values['size'])} "
                    f"at the start")
        self.title.set_text(found)
        self.settings.set_text(settings)
        powers = np.log2(run.scale)
        self.scale.set_data(self.steps, powers)
        self.skips.set_data(self.steps[run.skipped], powers[run.skipped])
        self.lost.set_data(self.steps, np.where(run.skipped, np.nan, np.maximum(run.lost, FLOOR)))
        return self.canvas.picture(values["size"], lambda: self._lay(values["size"])), f"{found} With {settings}."

    def _lay(self, size: float) -> Sequence[Artist]:
        """Draw what the size of the gradients alone decides: the band, and what would be lost without scaling."""
        for old in self.laid:
            old.remove()
        median, largest = (power + np.log2(size) for power in magnitudes())
        edge = torch.special.ndtri(torch.tensor(LOST, dtype=torch.float64)).item()
        lower = np.clip(UNDERFLOW - median - SPREAD * edge, LOW, HIGH)
        upper = np.clip(OVERFLOW - largest, LOW, HIGH)
        band = self.top.fill_between(self.steps, lower, upper, where=upper > lower, color=PALETTE["green"], alpha=0.3,
                                     linewidth=0)
        unscaled, = self.bottom.plot(self.steps, np.maximum(share_lost(1.0, median), FLOOR), **self._unscaled)
        self.laid = [band, unscaled]
        return self.laid
