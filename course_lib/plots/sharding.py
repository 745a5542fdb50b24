"""Pictures of sharded training: the timeline of a step, and the bytes of each rank, predicted and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from course_lib.plots.charts import STEPS
from course_lib.plots.labels import label_ends, reference_lines
from course_lib.plots.stacks import byte_unit, looks
from course_lib.plots.style import INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure, legend, text_width
from course_lib.plots.style import title as write_title

Event = tuple[str, str, float, float]
"""A stream, what it does ("backward 3": the first word says what, the rest where), its start and its end in seconds."""

KINDS: dict[str, tuple[str, str]] = {
    "forward": (PALETTE["sky blue"], ""),
    "backward": (PALETTE["blue"], ""),
    "gather": (PALETTE["green"], "//"),
    "reduce": (PALETTE["orange"], ".."),
}
_FREE = ((PALETTE["purple"], "\\\\"), (PALETTE["vermillion"], "xx"), (PALETTE["yellow"], "--"))


def draw_timeline(
    events: Sequence[Event] | Mapping[str, Sequence[Event]], *, title: str, size: tuple[float, float] | None = None,
) -> Figure:
    """What each stream does when; where the first stream waits for another one, it is marked.

    Args:
        events: (stream, name, start, end), as :func:`course_lib.parallel.overlap.timeline` returns them, or several
            timelines as {name: events}, one below the other over one axis of time. Streams are drawn in the order in
            which the first events name them, "compute" first.
        title: the finding, in a sentence.
        size: width and height in inches; by default 8 wide, with a row for each stream.

    Raises:
        ValueError: no events, an event that ends before it starts or is not finite, or more kinds than can be told
            apart.
    """
    several = events if isinstance(events, Mapping) else {"": events}
    for some in several.values():
        _check(some)
    if not several:
        raise ValueError("There is nothing to draw: pass at least one timeline.")
    every = [event for some in several.values() for event in some]
    streams = sorted(dict.fromkeys(event[0] for event in every), key=lambda stream: stream != "compute")
    kinds = _kinds(every)
    rows = len(streams) * len(several)
    size = size or (8.0, 1.25 + 0.42 * rows + 0.45 * len(several))
    fig, axes = figure(size, len(several), 1)
    write_title(axes[0], title, size[0])
    last = max(event[3] for event in every)
    unit, name = next((pair for pair in ((1.0, "s"), (1e-3, "ms")) if last >= pair[0]), (1e-6, "µs"))
    for ax, (label, some) in zip(axes, several.items()):
        scaled = [(stream, what, start / unit, end / unit) for stream, what, start, end in some]
        _draw_streams(ax, scaled, streams, kinds)
        ax.set_xlim(0, 1.02 * last / unit or 1)
        if label:
            ax.set_title(label, loc="left", fontsize=SMALL_PT, color=INK, pad=4 if ax is not axes[0] else 24)
        if ax is not axes[-1]:
            ax.tick_params(axis="x", labelbottom=False)
    axes[-1].set_xlabel(f"time ({name})", fontsize=TEXT_PT, color=INK)
    handles = [Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=kind)
               for kind, (colour, hatch) in kinds.items()]
    handles.append(Patch(facecolor="none", edgecolor=MUTED, linestyle="--", label=f"{streams[0]} waits"))
    legend(axes[0], handles, size[0])
    # Widths in inches are known only after the layout.
    fig.draw_without_rendering()
    for ax in axes:
        _write_names(ax, ax.bbox.width / fig.dpi)
    return fig


def draw_states(
    predicted: Mapping[str, Mapping[str, float]],
    measured: Mapping[str, Mapping[str, float]] | None = None,
    *,
    title: str,
    xlabel: str = "stage",
    ylabel: str = "bytes of a rank",
    hlines: Mapping[str, float] | None = None,
    size: tuple[float, float] = (7.0, 3.9),
) -> Figure:
    """Stacked bars: what was measured is filled, what was predicted is an outline around it.

    Args:
        predicted: name of a bar -> part -> bytes, the lowest part first; parts have the colours that they have in
            every figure of memory ("parameters", "gradients", "optimizer").
        measured: the same for as many of the bars and parts as were measured; None: the predictions are filled.
        title: the finding, in a sentence.
        xlabel, ylabel: the unit (1 GB = 1e9 bytes) is chosen and added.
        hlines: label -> bytes of a reference line.
        size: width and height in inches.

    Raises:
        ValueError: no bars, bytes that are negative or not finite, or a measured bar or part that was not predicted.
    """
    if not predicted:
        raise ValueError("There is nothing to draw: pass at least one bar, as {name: {part: bytes}}.")
    filled = predicted if measured is None else measured
    parts = list(dict.fromkeys(part for bar in predicted.values() for part in bar))
    for some in (predicted, filled):
        for name, bar in some.items():
            values = np.array(list(bar.values()), dtype=np.float64)
            if not (np.isfinite(values) & (values >= 0)).all():
                raise ValueError(f"Invalid bar {name!r}: {dict(bar)}. Allowed: finite numbers of bytes >= 0.")
            unknown = [name] if name not in predicted else [part for part in bar if part not in predicted[name]]
            if unknown:
                raise ValueError(f"{unknown[0]!r} was measured and not predicted. Predicted: {', '.join(predicted)}, "
                                 f"each with {', '.join(parts)}.")
    totals = {name: sum(bar.values()) for some in (predicted, filled) for name, bar in some.items()}
    most = max([*totals.values(), *(sum(bar.values()) for bar in predicted.values()), *(hlines or {}).values()])
    unit, unit_name = byte_unit(most)
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    chosen = looks(parts)
    for index, name in enumerate(predicted):
        _stack(ax, index, filled.get(name, {}), parts, unit, lambda part: dict(
            facecolor=chosen[part][0], hatch=chosen[part][1], edgecolor="white", linewidth=0.8, zorder=2), 0.27)
        if measured is not None:
            _stack(ax, index, predicted[name], parts, unit, lambda _: dict(
                facecolor="none", edgecolor=INK, linewidth=1.4, zorder=3), 0.34)
        top = max(totals[name], sum(predicted[name].values())) / unit
        ax.annotate(f"{totals[name] / unit:,.3g}", (index, top), (0, 2), textcoords="offset points", ha="center",
                    va="bottom", fontsize=SMALL_PT, fontweight="bold", color=INK, zorder=4)
    ax.set_xticks(range(len(predicted)), list(predicted))
    ax.tick_params(axis="x", length=0)
    ax.grid(False, axis="x")
    ax.set_xlim(-0.6, len(predicted) - 0.4)
    ends = reference_lines(ax, {label: value / unit for label, value in (hlines or {}).items()})
    ax.set_ylim(0, 1.12 * most / unit or 1)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(f"{ylabel} ({unit_name})", fontsize=TEXT_PT, color=INK)
    handles = [Patch(facecolor=chosen[part][0], hatch=chosen[part][1], edgecolor="white", label=part) for part in parts]
    if measured is not None:
        handles.append(Patch(facecolor="none", edgecolor=INK, linewidth=1.4, label="predicted"))
    legend(ax, handles, size[0])
    label_ends(fig, {ax: ends})
    return fig


def _check(events: Sequence[Event]) -> None:
    if not events:
        raise ValueError("There is nothing to draw: pass at least one event, as (stream, name, start, end).")
    for event in events:
        if not np.isfinite(event[2:]).all() or not 0 <= event[2] <= event[3]:
            raise ValueError(f"Invalid event: {tuple(event)}. Allowed: seconds with 0 <= start <= end.")


def _kinds(events: Sequence[Event]) -> dict[str, tuple[str, str]]:
    """A colour and a hatch for each first word of a name."""
    found = list(dict.fromkeys(event[1].split()[0] for event in events))
    others = [kind for kind in found if kind not in KINDS]
    if len(others) > len(_FREE):
        raise ValueError(f"{', '.join(others)}: too many kinds of events to tell apart. Allowed: {', '.join(KINDS)} "
                         f"and {len(_FREE)} others.")
    chosen = KINDS | dict(zip(others, _FREE))
    return {kind: chosen[kind] for kind in [*(kind for kind in KINDS if kind in found), *others]}


def _draw_streams(
    ax: Axes, events: Sequence[Event], streams: Sequence[str], kinds: Mapping[str, tuple[str, str]],
) -> None:
    for stream, name, start, end in events:
        colour, hatch = kinds[name.split()[0]]
        bar = Rectangle((start, streams.index(stream) - 0.38), end - start, 0.76, facecolor=colour, edgecolor="white",
                        hatch=hatch, linewidth=0.8, zorder=2, label=name)
        ax.add_patch(bar)
    for start, end in waits(events, streams[0]):
        ax.add_patch(Rectangle((start, -0.38), end - start, 0.76, facecolor="none", edgecolor=MUTED, linestyle="--",
                               linewidth=1.0, zorder=2))
    ax.set_ylim(len(streams) - 0.5, -0.5)
    ax.set_yticks(range(len(streams)), streams)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")


def waits(events: Sequence[Event], stream: str) -> list[tuple[float, float]]:
    """When a stream does nothing, from the start of the timeline to its end: (start, end), in order."""
    last = max(event[3] for event in events)
    found, free = [], 0.0
    for start, end in [*sorted(event[2:] for event in events if event[0] == stream), (last, last)]:
        if start - free > 1e-9 * last:
            found.append((free, start))
        free = max(free, end)
    return found


def _write_names(ax: Axes, inches: float) -> None:
    """On each bar what follows the first word of its name, where it has room."""
    span = ax.get_xlim()[1]
    for bar in ax.patches:
        text = bar.get_label().partition(" ")[2]
        if text and text_width(text) + 0.1 < bar.get_width() / span * inches:
            ax.text(bar.get_x() + bar.get_width() / 2, bar.get_y() + 0.4, text, ha="center", va="center",
                    fontsize=SMALL_PT, color=INK, zorder=4,
                    bbox=dict(facecolor="white", edgecolor="none", boxstyle="round,pad=0.12"))


def _stack(
    ax: Axes, index: int, bar: Mapping[str, float], parts: Sequence[str], unit: float,
    look: Callable[[str], dict[str, Any]], half: float,
) -> None:
    """Rectangles one above the other, centred on ``index``."""
    below = 0.0
    for part in parts:
        height = bar.get(part, 0.0) / unit
        if height:
            ax.add_patch(Rectangle((index - half, below), 2 * half, height, **look(part)))
        below += height
