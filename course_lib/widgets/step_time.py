"""What an AdamW step over many tensors waits for, launches or bytes, under one's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle

from course_lib.kernels.roofline import DATASHEETS, FLOPS, Work, bound
from course_lib.memory.arguments import choice, real, whole
from course_lib.plots.style import GRID, INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure, legend
from course_lib.plots.traces import duration
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

PASSES, LEAST = 80, 28
"""Bytes of a float32 parameter that a step moves: in eight kernels 20 numbers, in one kernel 7, each once."""
MOST_TENSORS, LEAST_ELEMENTS, MOST_ELEMENTS, MOST_MICROSECONDS = 10_000, 100, 10**8, 20
CHUNK, BLOCKS = 65_536, 320
"""A kernel of torch over a list of tensors takes chunks of so many elements, so many at most."""


@dataclass(frozen=True)
class Way:
    """How a step is run.

    Attributes:
        name: in a sentence.
        bytes: moved for each float32 parameter.
        packs: tensors that a launch takes at most, for each kernel that runs over the list; empty if none does.
        each: launches for each tensor.
        whole: launches for all tensors together.
        nodes: kernels for each tensor that a launched graph runs by itself.
    """

    name: str
    bytes: int
    packs: tuple[int, ...] = ()
    each: int = 0
    whole: int = 0
    nodes: int = 0


WAYS: dict[str, Way] = {
    "for-loop": Way("for-loop", PASSES, each=8),
    # mul, lerp, mul, addcmul, sqrt, div, add, addcdiv: the more lists a kernel takes, the fewer tensors fit a launch.
    "foreach": Way("foreach", PASSES, packs=(110, 64, 110, 48, 64, 96, 110, 48)),
    "fused": Way("fused", LEAST, packs=(36,)),
    "flat": Way("flat buffer", LEAST, whole=1),
    "graph": Way("CUDA graph", PASSES, whole=1, nodes=8),
}
"""Tensors to a launch: torch's aten/src/ATen/native/cuda/MultiTensorApply.cuh, for kernel arguments of 4 kB."""
REGIMES = {"launch": "Launch-bound", "bandwidth": "Bandwidth-bound", "compute": "Compute-bound"}
SEEN = (
    "Left, on two log axes, the time of a step against elements per tensor: a solid line for the launches, a dashed "
    "one for the bytes, a grey band along the longer of them with a dot where the step stands, and dotted the floor, "
    "28 bytes a parameter at full bandwidth. Right, a table of all five implementations: launches, the time they take, "
    "the time the bytes take."
)
ASSUMED = "Computed from a data sheet, not measured: the longer of launches and bytes, at the full bandwidth."


@dataclass(frozen=True)
class StepTime:
    """The limits of one step, in seconds.

    Attributes:
        launches: of kernels, or of a graph.
        launching: what they take; for a graph with what its kernels take to follow one another.
        moving: what the bytes take.
        seconds: of the step, the longest of its limits.
        regime: which of them it is, "launch", "bandwidth" or "compute".
        floor: what 28 bytes a parameter take.
    """

    launches: int
    launching: float
    moving: float
    seconds: float
    regime: str
    floor: float


def step_time(
    tensors: int, elements: int, way: str = "for-loop", machine: str = "h100", launch: float = 5.0, gap: float = 1.0,
) -> StepTime:
    """What a float32 AdamW step over ``tensors`` tensors of ``elements`` elements each takes at least.

    Launches overlap with the work of the kernels before, so the longer of both counts. Parameters lie in memory, in
    no cache; the step counter's own kernel is left out.

    Args:
        way: a key of ``WAYS``.
        machine: a key of ``course_lib.kernels.roofline.DATASHEETS``.
        launch: microseconds for each launch.
        gap: microseconds from one kernel to the next inside a CUDA graph; 1 is an assumption, like that for a launch.
    """
    kind, card = WAYS[way], DATASHEETS[machine]
    parameters = tensors * elements
    chunks = tensors * math.ceil(elements / CHUNK)
    launches = kind.whole + kind.each * tensors
    launches += sum(math.ceil(max(tensors / pack, chunks / BLOCKS)) for pack in kind.packs)
    moved, flops = kind.bytes * parameters, sum(FLOPS["adamw"].values()) * parameters
    launching = 1e-6 * (launches * launch + kind.nodes * tensors * gap)
    # One launch of all that time: a graph's kernels follow one another without the host.
    found = bound(Work(moved, flops, 1), card, launching)
    return StepTime(launches, launching, moved / card.bandwidth, found.seconds, found.regime,
                    LEAST * parameters / card.bandwidth)


def explore_step_time(
    *, tensors: int = 1000, elements: int = 4096, way: str = "for-loop", machine: str = "h100", launch: float = 5.0,
    gap: float = 1.0,
) -> None:
    """Show what a step of AdamW over many tensors takes by its launches and by its bytes, with controls.

    Computed from data sheets, see :func:`step_time`; nothing is measured.

    Args:
        tensors: at first; 1 to 10,000.
        elements: of each tensor, at first; 100 to 1e8.
        way: at first; "for-loop", "foreach", "fused", "flat" (one flat buffer) or "graph" (the for-loop in a CUDA
            graph).
        machine: at first; a key of ``course_lib.kernels.roofline.DATASHEETS``.
        launch: microseconds for each launch, at first; 1 to 20.
        gap: microseconds from one kernel to the next inside a CUDA graph, at first; 0 to 20.

    Raises:
        ValueError: a value is unknown or out of range.
    """
    values = {"tensors": whole("tensors", tensors, 1, MOST_TENSORS),
              "elements": whole("elements", elements, LEAST_ELEMENTS, MOST_ELEMENTS),
              "way": choice("way", way, WAYS), "machine": choice("machine", machine, DATASHEETS),
              "launch": real("launch", launch), "gap": real("gap", gap)}
    for name, least in (("launch", 1), ("gap", 0)):
        if not least <= values[name] <= MOST_MICROSECONDS:
            raise ValueError(f"Invalid {name}: {values[name]:g}. "
                             f"Allowed: {least} to {MOST_MICROSECONDS} microseconds.")
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    def steps(least: int, most: int, heads: tuple[int, ...]) -> list[int]:
        return [head * 10**power for power in range(9) for head in heads if least <= head * 10**power <= most]

    made = {
        "tensors": make.slider("tensors", steps(1, MOST_TENSORS, (1, 2, 5)), values["tensors"], "{:,}".format),
        "elements": make.slider("elements of each", steps(LEAST_ELEMENTS, MOST_ELEMENTS, (1, 2, 3, 5)),
                                values["elements"], "{:,}".format),
        "way": make.choice("implementation", [(way.name, key) for key, way in WAYS.items()], values["way"]),
        "machine": make.choice("machine", [(one.name, key) for key, one in DATASHEETS.items()], values["machine"]),
        "launch": make.slider("µs per launch", (1, 2, 3, 4, 5, 6, 8, 10, 15, 20), values["launch"]),
        "gap": make.slider("µs in the graph", (0, 0.25, 0.5, 1, 1.5, 2, 3, 5), values["gap"]),
    }

    def follow(*_: Any) -> None:
        make.show_or_hide(made["gap"], WAYS[made["way"].value].nodes > 0)

    made["way"].observe(follow, "value")
    follow()
    return made


def times(value: float) -> str:
    """How many times, with two digits at least: 1, 2.9, 11, 1,168."""
    return f"{value:,.0f}" if value >= 9.95 else f"{float(f'{value:.2g}'):g}"


def finding(values: Mapping[str, Any]) -> str:
    """Which limit holds and how far the step is from the floor, in a sentence that fits above a picture."""
    found = step_time(**values)
    ratio = times(found.seconds / found.floor)
    far = (f"which {LEAST} bytes a parameter take at least" if ratio == "1" else
           f"{ratio} times the {duration(found.floor)} that {LEAST} bytes a parameter take")
    return f"{REGIMES[found.regime]}: {duration(found.seconds)} a step, {far}."


def conditions(values: Mapping[str, Any]) -> str:
    """What led to the finding, in a line that fits above a picture."""
    way, card = WAYS[values["way"]], DATASHEETS[values["machine"]]
    each = f", {panel.number(values['gap'])} a kernel" if way.nodes else ""
    return (f"{way.name}, {values['tensors']:,} x {values['elements']:,}, {card.name} (data sheet: "
            f"{panel.number(card.bandwidth / 1e12)} TB/s), {panel.number(values['launch'])} µs a launch{each}")


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.ax, right) = figure((8.0, 4.4), 1, 2)
        self.ax.get_gridspec().set_width_ratios((1.1, 1))
        self.title, self.settings = head(fig)
        self.at = np.unique(np.geomspace(LEAST_ELEMENTS, MOST_ELEMENTS, 121).round().astype(int))
        self.ax.set(xscale="log", yscale="log", xlim=(LEAST_ELEMENTS, MOST_ELEMENTS), ylim=(1e-6, 1e3))
        self.ax.set_xlabel("elements per tensor", fontsize=TEXT_PT, color=INK)
        self.ax.set_ylabel("time of a step", fontsize=TEXT_PT, color=INK)
        self.ax.set_xticks([10.0**power for power in range(2, 9)])
        seconds = [10.0**power for power in range(-6, 4)]
        self.ax.set_yticks(seconds, [duration(one) for one in seconds])
        self.ax.minorticks_off()
        ones = np.ones(len(self.at))
        self.longest, = self.ax.plot(self.at, ones, color="#BDBDBD", linewidth=7, solid_capstyle="butt",
                                     label="the longer one")
        self.launching, = self.ax.plot(self.at, ones, color=PALETTE["vermillion"], linewidth=1.8, label="launches")
        self.moving, = self.ax.plot(self.at, ones, color=PALETTE["blue"], linewidth=1.8, linestyle=(0, (5, 1.5)),
                                    label="bytes")
        self.floor, = self.ax.plot(self.at, ones, color=INK, linewidth=1.3, linestyle=(0, (1, 1.5)),
                                   label="the floor")
        self.dot, = self.ax.plot([1], [1], "o", markersize=10, color=INK, markeredgecolor="white", clip_on=False,
                                 zorder=5)
        legend(self.ax, [self.launching, self.moving, self.longest, self.floor], 4.6)
        self.rows, self.mark = self._table(right)
        self.canvas = Canvas(fig, (
            self.title, self.settings, self.longest, self.launching, self.moving, self.floor, self.dot, self.mark,
            *(text for row in self.rows for text in row),
        ))

    @staticmethod
    def _table(ax: Any) -> tuple[list[tuple[Any, ...]], Rectangle]:
        """Draw the heads; return the texts of each row, and what marks the chosen one."""
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(9.0, -1.4))
        at = (0.03, 0.50, 0.74, 0.99)
        for x, name in zip(at[1:], ("launches", "they\ntake", "bytes\ntake")):
            ax.text(x, -0.35, name, ha="right", va="bottom", fontsize=SMALL_PT, color=MUTED)
        ax.plot([0.03, 0.99], [-0.25, -0.25], color=MUTED, linewidth=0.8)
        mark = Rectangle((0, 0), 1.02, 0.9, facecolor=GRID, edgecolor="none", zorder=0, clip_on=False)
        ax.add_patch(mark)
        rows = []
        for height, way in enumerate(WAYS.values()):
            line = dict(va="center", fontsize=SMALL_PT, color=INK)
            name = ax.text(at[0], height + 0.3, way.name, ha="left", **line)
            rows.append((name, *(ax.text(x, height + 0.3, "", ha="right", **line) for x in at[1:])))
        ax.text(0.03, 5.6, "Computed from a data sheet, not measured:\nfloat32 AdamW at the full bandwidth, with\n"
                           f"{PASSES} bytes a parameter where eight kernels\ndo the step, {LEAST} where one does.\n"
                           "Graph: one launch of the for-loop's kernels,\n"
                           "which then follow one another by themselves.",
                va="top", fontsize=9.0, color=MUTED, linespacing=1.3)
        return rows, mark

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        curve = [step_time(**{**values, "elements": int(elements)}) for elements in self.at]
        for line, name in ((self.longest, "seconds"), (self.launching, "launching"), (self.moving, "moving"),
                           (self.floor, "floor")):
            line.set_ydata([getattr(one, name) for one in curve])
        now = step_time(**values)
        self.dot.set_data([values["elements"]], [now.seconds])
        for row, (key, way) in zip(self.rows, WAYS.items()):
            one = step_time(**{**values, "way": key})
            told = (way.name, f"{one.launches:,}", duration(one.launching), duration(one.moving))
            for text, word in zip(row, told):
                text.set(text=word, fontweight="bold" if key == values["way"] else "normal")
        self.mark.set_y(list(WAYS).index(values["way"]) - 0.15)
        found, settings, way = finding(values), conditions(values), WAYS[values["way"]]
        self.title.set_text(found)
        self.settings.set_text(settings)
        said = (f"{found} {settings}. {now.launches:,} launch{'es' * (now.launches != 1)}: "
                f"{duration(now.launching)}; {way.bytes} bytes a parameter: {duration(now.moving)}. {ASSUMED}")
        return self.canvas.picture(), said
