"""A learning-rate schedule under one's hands, and what it does to a weight that only decays."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.ticker import PercentFormatter

from course_lib import schedules
from course_lib.plots.style import INK, MUTED, PALETTE, TEXT_PT, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

CYCLES = 4  # of the schedule with restarts
DRAWN = 2000  # points of a curve at most
TOTALS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
WARMUPS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
FLOORS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DECAYS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7)
DECAY_WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
SEEN = (
    "Above, the rate as a share of its peak over the run; below, the share of a weight of zero gradient that AdamW's "
    "decay has left so far, with the schedule and at a constant peak."
)


class Kind(NamedTuple):
    """A family of schedules.

    Attributes:
        name: as it is read.
        knobs: which of the shares ``floor`` and ``decay`` it has, besides the warmup.
        make: (total, warmup, floor, decay) to a schedule; warmup and decay in updates.
    """

    name: str
    knobs: tuple[str, ...]
    make: Callable[[int, int, float, int], schedules.Schedule]


KINDS = {
    "constant": Kind("constant", (), lambda total, warmup, floor, decay: schedules.linear_warmup(warmup)),
    "cosine": Kind("cosine", ("floor",), lambda total, warmup, floor, decay: schedules.cosine(total, warmup, floor)),
    "linear": Kind("linear to zero", (),
                   lambda total, warmup, floor, decay: schedules.linear_to_zero(total, warmup)),
    "wsd": Kind("WSD", ("floor", "decay"),
                lambda total, warmup, floor, decay: schedules.warmup_stable_decay(total, warmup, decay, floor)),
    "inverse_sqrt": Kind("inverse square root", (),
                         lambda total, warmup, floor, decay: schedules.inverse_sqrt(max(1, warmup))),
    "restarts": Kind("cosine with restarts", ("floor",),
                     lambda total, warmup, floor, decay: schedules.cosine_restarts(
                         -(-(total - warmup) // CYCLES), 1, warmup, floor)),
}  # fmt: skip


def explore_schedule(
    *, kind: str = "cosine", peak: float = 3e-4, total: int = 100_000, warmup: float = 0.01, floor: float = 0.1,
    decay: float = 0.2, weight_decay: float = 0.1,
) -> None:
    """Show a learning-rate schedule, the sum of its rates, and what decay leaves of a weight, with controls.

    A weight whose gradient is zero is multiplied by 1 - lr_t * weight_decay at every update (torch.optim.AdamW), so
    that the product over the run, about exp(-weight_decay * sum of lr_t), is left at the end.

    Args:
        kind: at first; a key of :data:`KINDS`.
        peak: the highest learning rate at first, 1e-6 to 1.
        total: updates of the run at first, warmup included, 100 to 100,000.
        warmup: share of the run at first, 0 to 0.3.
        floor: share of the peak that is left at the end, at first, 0 to 1.
        decay: share of the run that the last phase of WSD (warmup, stable, decay) takes, at first, 0.01 to 0.7.
        weight_decay: at first, 0 to 1.

    Raises:
        ValueError: a value is out of range; for an unknown kind the nearest is named.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.3)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"Invalid kind: {kind!r}. {guess}Allowed: {', '.join(KINDS)}.")
    values = {"kind": kind, "peak": peak, "total": total, "warmup": warmup, "floor": floor, "decay": decay,
              "weight_decay": weight_decay}
    ranges = (("peak", 1e-6, 1), ("total", TOTALS[0], TOTALS[-1]), ("warmup", 0, 0.3), ("floor", 0, 1),
              ("decay", 0.01, 0.7), ("weight_decay", 0, 1))
    for name, low, high in ranges:
        if isinstance(values[name], bool) or not low <= values[name] <= high:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: {low:g} <= {name} <= {high:g}.")
    if total != int(total):
        raise ValueError(f"Invalid total: {total!r}. Allowed: a whole number of updates.")
    values["total"] = int(total)
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    def percent(share: float) -> str:
        return f"{panel.number(100 * share)}%"

    controls = {
        "kind": make.choice("kind", [(kind.name, key) for key, kind in KINDS.items()], values["kind"]),
        "peak": make.log_slider("peak rate", [values["peak"]], -6, 0),
        "total": make.slider("updates", TOTALS, values["total"], "{:,}".format),
        "warmup": make.slider("warmup", WARMUPS, values["warmup"], percent),
        "floor": make.slider("floor", FLOORS, values["floor"], percent),
        "decay": make.slider("last phase", DECAYS, values["decay"], percent),
        "weight_decay": make.slider("weight_decay", DECAY_WEIGHTS, values["weight_decay"]),
    }

    def choose(change: Mapping[str, Any]) -> None:
        for knob in ("floor", "decay"):
            make.show_or_hide(controls[knob], knob in KINDS[controls["kind"].value].knobs)

    controls["kind"].observe(choose, "value")
    choose({})
    return controls


def composed(kind: str, total: int, warmup: float, floor: float, decay: float) -> np.ndarray:
    """The multiplier of the peak at each update, float64 (total,); warmup and decay are shares of the run."""
    updates = min(round(warmup * total), total - 1)
    last = min(max(1, round(decay * total)), total - updates)
    schedule = KINDS[kind].make(total, updates, floor, last)
    return np.fromiter(map(schedule, range(total)), dtype=np.float64, count=total)


def weight_left(rates: np.ndarray, weight_decay: float) -> np.ndarray:
    """What AdamW leaves of a weight of 1 and zero gradient: before the first update and after each, (T + 1,)."""
    return np.concatenate([[1.0], np.cumprod(1 - np.asarray(rates) * weight_decay)])


def finding(multipliers: np.ndarray, left: np.ndarray, peak: float) -> str:
    """What comes of the schedule, in a sentence that fits above a picture."""
    return (f"The rates add up to {panel.number(peak * multipliers.sum())}, {100 * multipliers.mean():.0f}% of a "
            f"constant peak; {100 * left[-1]:.3g}% of a weight is left.")


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.top, self.bottom) = figure((8.0, 5.0), 2, 1)
        self.title, self.settings = head(fig)
        self.rate, = self.top.plot([], [], color=PALETTE["blue"], linewidth=2.2, label="rate")
        self.left, = self.bottom.plot([], [], color=PALETTE["blue"], linewidth=2.2, label="with the schedule",
                                      zorder=3)
        self.constant, = self.bottom.plot([], [], color=MUTED, linewidth=1.5, linestyle=(0, (5, 1.5)),
                                          label="at a constant peak")
        for ax, name in ((self.top, "rate / peak"), (self.bottom, "weight left")):
            ax.set(xlim=(0, 100), ylim=(0, 1.03))
            ax.set_ylabel(name, fontsize=TEXT_PT, color=INK)
            ax.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        self.top.tick_params(labelbottom=False)
        self.bottom.set_xlabel("updates done (percent of the run)", fontsize=TEXT_PT, color=INK)
        legend(self.bottom, [self.left, self.constant], 8.0)
        self.canvas = Canvas(fig, (self.title, self.settings, self.rate, self.constant, self.left))

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        kind, total, peak, weight_decay = (values[name] for name in ("kind", "total", "peak", "weight_decay"))
        multipliers = composed(kind, total, values["warmup"], values["floor"], values["decay"])
        left, constant = (weight_left(peak * rates, weight_decay) for rates in (multipliers, np.ones(total)))
        found = finding(multipliers, left, peak)
        words = [KINDS[kind].name, f"peak {panel.number(peak)}", f"{total:,} updates"]
        words += [f"{panel.number(100 * values[knob])}% {word}" for knob, word in
                  (("warmup", "warmup"), ("floor", "floor"), ("decay", "last phase"))
                  if knob in ("warmup", *KINDS[kind].knobs)]
        settings = ", ".join([*words, f"weight_decay {panel.number(weight_decay)}"])
        self.title.set_text(found)
        self.settings.set_text(settings)
        shown = np.unique(np.linspace(0, total - 1, DRAWN).round().astype(int))
        self.rate.set_data(100 * shown / total, multipliers[shown])
        for line, curve in ((self.left, left), (self.constant, constant)):
            line.set_data(100 * (shown + 1) / total, curve[shown + 1])
        return self.canvas.picture(), f"{found} With {settings}."
