"""What a whole is made of: areas over time, and bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from course_lib.plots.charts import HATCHES, STEPS
from course_lib.plots.labels import label_ends, reference_lines, spread
from course_lib.plots.style import INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure, legend, text_width, wrap
from course_lib.plots.style import title as write_title

MOMENTS = 1500  # drawn at most: more than a picture has columns of pixels
ROW_PT = 1.35 * SMALL_PT  # the height of a row of names above the axes
LEADER_PT = 11.0  # the height of the lines that lead from a name to what it names
NAME_GAP = 0.14  # inches between two names in a row
# The parts of a machine's memory look the same in every figure, whichever of them it holds.
PARTS: dict[str, tuple[str, str]] = {
    "parameters": (PALETTE["blue"], ""),
    "weights": (PALETTE["blue"], ""),
    "gradients": (PALETTE["orange"], "//"),
    "optimizer": (PALETTE["green"], ".."),
    "activations": (PALETTE["purple"], "\\\\"),
    "temporaries": (PALETTE["sky blue"], "xx"),
    "other": (PALETTE["sky blue"], "xx"),
}


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A fill colour and a hatch for each part of a stack; no two alike.

    Raises:
        ValueError: more parts than can be told apart, or two that have one look, such as "parameters" and "weights".
    """
    names = list(dict.fromkeys(names))
    chosen = {name: PARTS[name] for name in names if name in PARTS}
    if len(set(chosen.values())) < len(chosen):
        raise ValueError(f"Invalid parts: {', '.join(chosen)}. Allowed: one of parameters and weights, one of "
                         "temporaries and other; each pair has one look.")
    colours = [PALETTE[key] for key in ("blue", "orange", "green", "purple", "sky blue", "vermillion", "black")]
    if len(names) > len(colours):
        raise ValueError(f"{len(names)} parts in one figure are too many to tell apart. Allowed: at most "
                         f"{len(colours)}.")
    free = [colour for colour in colours if colour not in {colour for colour, _ in chosen.values()}]
    hatches = [hatch for hatch in HATCHES if hatch not in {hatch for _, hatch in chosen.values()}]
    chosen |= {name: (free.pop(0), hatches.pop(0)) for name in names if name not in chosen}
    return {name: chosen[name] for name in names}


def byte_unit(most: float) -> tuple[float, str]:
    """The decimal unit in which up to ``most`` bytes are read best: its bytes, and its name."""
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if most >= size:
            return size, name
    return 1.0, "B"


def areas(
    series: Mapping[str, ArrayLike],
    *,
    title: str,
    xlabel: str,
    ylabel: str = "memory",
    phases: Sequence[tuple[int, str, int]] = (),
    hlines: Mapping[str, float] | None = None,
    size: tuple[float, float] = (7.0, 3.9),
) -> Figure:
    """Bytes held by each of several owners, event by event, stacked, with the highest total marked.

    Of more than 1,500 events, neighbours are drawn as one, that of the highest total, so that no peak is lost.

    Args:
        series: name -> bytes (n,) after each event, the lowest area first.
        title: the finding, in a sentence; wrapped to the width.
        xlabel: what an event is.
        ylabel: what the bytes are; the unit (1 GB = 1e9 bytes) is chosen and added.
        phases: (step, name, index of its first event), in order, as in ``course_lib.memory.measure``: named above
            the axes. A name is left out where there is no room for all; the narrowest phases first.
        hlines: label -> bytes of a reference line.
        size: width and height in inches.

    Raises:
        ValueError: no series, more than can be told apart, series of other or different shapes, bytes that are
            negative or not finite, or phases out of order.
    """
    names, values = list(series), _stacked(series)
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    count = values.shape[1]
    starts = [start for _, _, start in phases]
    if sorted(starts) != starts or not all(0 <= start <= count for start in starts):
        raise ValueError(f"Invalid phases: they start at {starts}. Allowed: increasing indices from 0 to {count}.")
    unit, unit_name = byte_unit(max([values.sum(axis=0).max(), *(hlines or {}).values()]))
    values, chosen = values / unit, looks(names)
    kept = _fullest(values.sum(axis=0))
    # What an event leaves behind is held until the next one.
    x = np.concatenate([[0], kept[1:], [count]])
    tops = np.cumsum(values[:, kept], axis=0)
    below = np.zeros(len(kept))
    handles = []
    for name, top in zip(names, tops):
        colour, hatch = chosen[name]
        ax.fill_between(x, np.append(below, below[-1]), np.append(top, top[-1]), step="post", facecolor=colour,
                        edgecolor="white", hatch=hatch, linewidth=0)
        handles.append(Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=name))
        below = top
    total = values.sum(axis=0)
    _mark_peak(ax, int(total.argmax()), float(total.max()), unit_name, count)
    ends = reference_lines(ax, {label: y / unit for label, y in (hlines or {}).items()})
    ax.set_xlim(0, count)
    ax.set_ylim(0, 1.13 * max([total.max(), *(end.y for end in ends)]) or 1)
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(f"{ylabel} ({unit_name})", fontsize=TEXT_PT, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    ax.grid(False, axis="x")
    legend(ax, handles, size[0], lift=_header_points(phases))
    label_ends(fig, {ax: ends})
    _write_phases(fig, ax, phases, count)
    return fig


def stacked_bars(
    values: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    ylabel: str,
    xlabel: str = "",
    hlines: Mapping[str, float] | None = None,
    fmt: str = ".3g",
    size: tuple[float, float] = (7.0, 3.9),
) -> Figure:
    """Bars of several parts each, with the total above and each part's height in it where there is room.

    Args:
        values: bar -> (part -> height, at least 0); a part may be missing from a bar. The part named first is lowest.
        title: the finding, in a sentence; wrapped to the width.
        ylabel: with its unit.
        xlabel: what the bars are, where that is not evident.
        hlines: label -> height of a reference line, such as the memory of a card.
        fmt: format of the heights.
        size: width and height in inches.

    Raises:
        ValueError: no bars or no parts, more parts than can be told apart, or a height that is negative or not finite.
    """
    parts = list(dict.fromkeys(part for bar in values.values() for part in bar))
    if not parts:
        raise ValueError("There is nothing to draw: pass at least one bar, as {bar: {part: height}}.")
    for bar, heights in values.items():
        for part, height in heights.items():
            if not 0 <= height < math.inf:
                raise ValueError(f"Invalid height of {part!r} in {bar!r}: {height!r}. Allowed: a finite number >= 0.")
    chosen = looks(parts)
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    totals = np.array([sum(bar.values()) for bar in values.values()], dtype=np.float64)
    width = 0.62
    below = np.zeros(len(values))
    for part in parts:
        heights = np.array([bar.get(part, 0.0) for bar in values.values()], dtype=np.float64)
        colour, hatch = chosen[part]
        ax.bar(range(len(values)), heights, width, below, color=colour, edgecolor="white", linewidth=0.8, hatch=hatch,
               label=part)
        below = below + heights
    for index, total in enumerate(totals):
        ax.annotate(format(total, fmt), (index, total), (0, 2), textcoords="offset points", ha="center", va="bottom",
                    fontsize=SMALL_PT, fontweight="bold", color=INK, zorder=4,
                    bbox=dict(facecolor="white", edgecolor="none", pad=0.6))
    aside = max(map(text_width, hlines or [""]))
    room = 0.9 * (size[0] - 1 - aside) / len(values)
    ax.set_xticks(range(len(values)), [wrap(key, room) for key in values])
    ax.tick_params(axis="x", length=0)
    ax.grid(False, axis="x")
    ax.set_xlim(-0.6, len(values) - 0.4)
    ends = reference_lines(ax, hlines)
    ax.set_ylim(0, 1.12 * max([totals.max(), *(end.y for end in ends)]) or 1)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT_PT, color=INK)
    if len(parts) > 1:
        legend(ax, ax.containers, size[0])
    label_ends(fig, {ax: ends})
    if len(parts) > 1:
        _write_heights(fig, ax, fmt)
    return fig


def _stacked(series: Mapping[str, ArrayLike]) -> np.ndarray:
    """The bytes of each series, in float64 (series, n)."""
    if not series:
        raise ValueError("There is nothing to draw: pass at least one series, as {name: bytes}.")
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    count = next(iter(rows.values())).size
    for name, row in rows.items():
        if row.shape != (count,) or not count:
            raise ValueError(f"Invalid series {name!r}: shape {row.shape}. Allowed: (n,), the same for all, n >= 1.")
        if not (np.isfinite(row) & (row >= 0)).all():
            raise ValueError(f"Invalid series {name!r}: a value is negative or not finite. Allowed: bytes >= 0.")
    return np.stack(list(rows.values()))


def _fullest(total: np.ndarray) -> np.ndarray:
    """Which events to draw: all, or of each of 1,500 neighbourhoods the one with the highest total."""
    if len(total) <= MOMENTS:
        return np.arange(len(total))
    edges = np.linspace(0, len(total), MOMENTS + 1).astype(int)
    return np.array([low + total[low:high].argmax() for low, high in zip(edges, edges[1:])])


def _mark_peak(ax: Axes, at: int, peak: float, unit: str, count: int) -> None:
    """A dot at the highest total, and its value."""
    ax.plot(at, peak, "o", color=INK, markeredgecolor="white", markersize=6, zorder=4)
    side = "left" if at < 0.15 * count else "right" if at > 0.85 * count else "center"
    ax.annotate(f"peak {peak:.3g} {unit}", (at, peak), (0, 5), textcoords="offset points", ha=side, va="bottom",
                fontsize=SMALL_PT, color=INK, zorder=4, bbox=dict(facecolor="white", edgecolor="none", pad=0.6))


def _header_points(phases: Sequence[tuple[int, str, int]]) -> float:
    """The height of what is written above the axes."""
    if not phases:
        return 0.0
    return LEADER_PT + ROW_PT * (1 + (len({step for step, _, _ in phases}) > 1))


def _write_phases(fig: Figure, ax: Axes, phases: Sequence[tuple[int, str, int]], count: int) -> None:
    """Lines where phases begin, their names above the axes, and above those the steps where there are several."""
    spans: dict[int, list[tuple[str, int, int]]] = {}
    ends = [*(start for _, _, start in phases[1:]), count]
    for (step, name, start), end in zip(phases, ends):
        if end > start:
            spans.setdefault(step, []).append((name, start, end))
            ax.axvline(start, color=MUTED, linewidth=0.8, zorder=0.9)  # behind the areas: a peak may be as narrow
    inches = ax.bbox.width / fig.dpi
    high = ax.get_xaxis_transform() + ScaledTranslation(0, (LEADER_PT + ROW_PT) / 72, fig.dpi_scale_trans)
    for step, inside in spans.items():
        first, last = inside[0][1], inside[-1][2]
        _write_names(ax, [(name, *np.array([start, end]) / count * inches) for name, start, end in inside], inches)
        if len(spans) > 1:
            gap = 0.04 / inches * count
            ax.plot([first + gap, last - gap], [1, 1], transform=high, color=MUTED, linewidth=0.8, clip_on=False)
            room = (last - first) / count * inches - 0.04
            name = next((text for text in (f"step {step}", f"{step}") if text_width(text) <= room), "")
            ax.annotate(name, ((first + last) / 2, 1), xycoords=("data", "axes fraction"),
                        xytext=(0, LEADER_PT + ROW_PT + 1), textcoords="offset points", ha="center", va="bottom",
                        fontsize=SMALL_PT, color=MUTED, annotation_clip=False)


def _write_names(ax: Axes, spans: list[tuple[str, float, float]], inches: float) -> None:
    """The names of one step's phases above the axes, moved apart where they would overlap.

    Args:
        ax: axes ``inches`` wide.
        spans: name, start and end, in inches from the left edge of the axes.
    """
    low, high = spans[0][1], spans[-1][2]
    named = list(spans)
    while named and sum(text_width(name) + NAME_GAP for name, _, _ in named) > high - low:
        named.remove(min(named, key=lambda span: span[2] - span[1]))
    if not named:
        return
    starts, stops = (np.array([span[side] for span in named]) for side in (1, 2))
    widths = np.array([text_width(name) + NAME_GAP for name, _, _ in named])
    gaps = (widths[1:] + widths[:-1]) / 2
    placed = spread((starts + stops) / 2, gaps, low + widths[0] / 2, high - widths[-1] / 2)
    edge = np.minimum(0.05, (stops - starts) / 2)
    for (name, start, stop), at, toward in zip(named, placed, np.clip(placed, starts + edge, stops - edge)):
        leader = dict(arrowstyle="-", color=MUTED, linewidth=0.7, relpos=(0.5, 0), shrinkA=1, shrinkB=0)
        ax.annotate(name, (toward / inches, 1), xycoords="axes fraction", textcoords="offset points",
                    xytext=(72 * (at - toward), LEADER_PT - 2), ha="center", va="bottom", fontsize=SMALL_PT,
                    color=MUTED, annotation_clip=False, arrowprops=None if start <= at <= stop else leader)


def _write_heights(fig: Figure, ax: Axes, fmt: str) -> None:
    """The height of each part in its middle, where it is tall enough to hold it."""
    fig.draw_without_rendering()
    for container in ax.containers:
        for bar in container:
            box = bar.get_window_extent()
            if box.height * 72 / fig.dpi >= 1.25 * SMALL_PT:
                middle = bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2
                ax.annotate(
                    format(bar.get_height(), fmt), middle, ha="center", va="center", fontsize=SMALL_PT, color=INK,
                    bbox=dict(facecolor="white", edgecolor="none", boxstyle="round,pad=0.15"),
                )
