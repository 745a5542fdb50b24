"""A step of each of several programs as a trace: what runs when, and when nothing does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from course_lib.plots.charts import STEPS
from course_lib.plots.sharding import waits
from course_lib.plots.style import INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure, legend, text_width, wrap
from course_lib.plots.style import title as write_title

Row = tuple[str, float, float, str]
"""Name, start and duration in microseconds, and kind."""

KINDS: dict[str, str] = {
    "multiply": PALETTE["blue"],
    "add": PALETTE["sky blue"],
    "multiply-add": PALETTE["green"],
    "divide": PALETTE["orange"],
    "root": PALETTE["yellow"],
    "sum": PALETTE["purple"],
    "copy": MUTED,
    "matmul": PALETTE["black"],
    "whole rule": PALETTE["vermillion"],
}
"""The kinds that :mod:`course_lib.kernels.trace` tells apart, each in its colour; any other is hatched grey."""
OTHER = "other"
IDLE = "#D2D2D2"
HIGH = 0.62  # of a lane, in lanes
EDGED = 8.0  # pixels; narrower bars get no white edge, which would look like a gap


def trace(
    rows_by_way: Mapping[str, Sequence[Row]],
    *,
    title: str,
    scaled: bool = False,
    noun: str = "operations",
    size: tuple[float, float] | None = None,
) -> Figure:
    """One lane for each way to make a step: a bar for each operation or kernel, grey where nothing runs.

    Beside each lane stand how many bars it has, how long it takes, and the share of that in which nothing runs.

    Args:
        rows_by_way: name of a lane -> its rows, (name, start, duration, kind), times in microseconds from its first
            row, as ``course_lib.kernels.trace.profile_step(step).rows``. A lane without rows stays empty.
        title: the finding, in a sentence.
        scaled: every lane over its full width, in percent of its own time; else all over one axis of time.
        noun: what a bar is, in the plural: "operations" or "kernels".
        size: width and height in inches; by default 8 wide, with room for each lane.

    Raises:
        ValueError: no lanes, or a row whose times are not finite and >= 0.
    """
    if not rows_by_way:
        raise ValueError("There is nothing to draw: pass at least one lane, as {name: rows}.")
    for way, rows in rows_by_way.items():
        for row in rows:
            if not (np.isfinite(row[1:3]).all() and min(row[1:3]) >= 0):
                raise ValueError(f"Invalid row of {way!r}: {tuple(row)}. Allowed: finite microseconds >= 0.")
    ends = {way: max((row[1] + row[2] for row in rows), default=0.0) for way, rows in rows_by_way.items()}
    last = max(ends.values()) or 1.0
    unit, unit_name = (1.0, "µs") if last < 1e3 else (1e3, "ms") if last < 1e6 else (1e6, "s")
    size = size or (8.0, 1.5 + 0.55 * len(rows_by_way))
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    ax.set_xlim(0, 100 if scaled else 1.01 * last / unit)
    ax.set_ylim(len(rows_by_way) - 0.5, -0.5)
    ax.set_yticks(range(len(rows_by_way)), [wrap(way, 0.22 * size[0]) for way in rows_by_way])
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis = "share of each one's own time (%)" if scaled else f"time ({unit_name})"
    ax.set_xlabel(axis, fontsize=TEXT_PT, color=INK)
    for lane, (way, rows) in enumerate(rows_by_way.items()):
        ax.annotate(_told(rows, ends[way], noun), (1, lane), xycoords=("axes fraction", "data"), xytext=(8, 0),
                    textcoords="offset points", va="center", fontsize=SMALL_PT, color=INK, annotation_clip=False,
                    linespacing=1.25)
    found = {row[3] if row[3] in KINDS else OTHER for rows in rows_by_way.values() for row in rows}
    handles = [_patch(kind) for kind in (*KINDS, OTHER) if kind in found]
    legend(ax, [*handles, Patch(facecolor=IDLE, label="nothing runs")], size[0])
    # Widths in pixels are known only after the layout.
    fig.draw_without_rendering()
    for lane, (way, rows) in enumerate(rows_by_way.items()):
        if rows:
            scale = 100 / (ends[way] or 1.0) if scaled else 1 / unit
            ax.add_patch(Rectangle((0, lane - HIGH / 2), ends[way] * scale, HIGH, facecolor=IDLE, edgecolor="none"))
            _draw_rows(ax, lane, rows, scale)
    return fig


def _told(rows: Sequence[Row], end: float, noun: str) -> str:
    """The two lines beside a lane."""
    if not rows:
        return f"no {noun}"
    idle = sum(stop - start for start, stop in waits([("", row[0], row[1], row[1] + row[2]) for row in rows], ""))
    one = noun.removesuffix("s") if len(rows) == 1 else noun
    return f"{len(rows):,} {one}, {duration(1e-6 * end)}\nidle {100 * idle / end if end else 0:.0f}%"


def duration(seconds: float) -> str:
    """Three digits: 0.83 ns, 13.5 µs, 250 ms, 1,280 s."""
    # Rounded first, or 999.9 µs would be 1,000 µs.
    rounded = float(f"{seconds:.3g}")
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    size, unit = next((pair for pair in units if rounded >= pair[0]), (1e-9, "ns"))
    return f"{float(f'{rounded / size:.3g}'):,.10g} {unit}"


def _patch(kind: str) -> Patch:
    return Patch(facecolor=KINDS.get(kind, "white"), edgecolor="white" if kind in KINDS else MUTED,
                 hatch=None if kind in KINDS else "////", label=kind)


def _draw_rows(ax: Axes, lane: int, rows: Sequence[Row], scale: float) -> None:
    """The bars of a lane, each at least a pixel wide, with its name on it where there is room."""
    low, high = ax.get_xlim()
    pixel = (high - low) / ax.bbox.width
    bottom, top = lane - HIGH / 2, lane + HIGH / 2
    for kind in dict.fromkeys(row[3] for row in rows):
        spans = np.array([(row[1] * scale, row[2] * scale) for row in rows if row[3] == kind])
        left, right = spans[:, 0], spans[:, 0] + np.maximum(spans[:, 1], pixel)
        corners = np.stack([np.stack([left, right, right, left], axis=1),
                            np.broadcast_to([bottom, bottom, top, top], (len(left), 4))], axis=2)
        wide = np.median(right - left) > EDGED * pixel
        known = kind in KINDS
        ax.add_collection(PolyCollection(
            corners, facecolors=KINDS.get(kind, "white"),
            edgecolors=MUTED if not known else "white" if wide else "none", linewidths=0.5 if wide else 0.0,
            hatch=None if known else "////", zorder=2, label=f"{lane} {kind}",
        ), autolim=False)
    inches = ax.bbox.width / ax.figure.dpi
    for name, start, length, _ in rows:
        text = _short(name)
        if text_width(text) + 0.14 < length * scale / (high - low) * inches:
            ax.text((start + length / 2) * scale, lane, text, ha="center", va="center_baseline", fontsize=SMALL_PT,
                    color=INK, zorder=4, bbox=dict(facecolor="white", edgecolor="none", boxstyle="round,pad=0.12"))


def _short(name: str) -> str:
    """A kernel's name without its return type, namespaces and template arguments; another name as it is."""
    return name.removeprefix("void ").replace("(anonymous namespace)::", "").partition("<")[0].split("::")[-1]
