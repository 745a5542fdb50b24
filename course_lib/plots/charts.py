"""Line and bar charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from course_lib.plots.labels import End, label_ends, reference_lines
from course_lib.plots.style import (
    INK, LEGEND, MUTED, PALETTE, REFERENCE, SMALL_PT, TEXT_PT, TITLE_PT, Style, figure, legend, legend_columns,
    optimizer_style, styles, wrap,
)
from course_lib.plots.style import title as write_title

Limits = tuple[float | None, float | None]
Series = Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]]

FEW_POINTS = 25
STEPS = (1, 2, 5, 10)
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo")


def lines(
    series: Series,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    xlim: Limits | None = None,
    ylim: Limits | None = None,
    hlines: Mapping[str, float] | None = None,
    vlines: Mapping[str, float] | None = None,
    labels_at_end: bool = False,
    size: tuple[float, float] = (7.0, 3.6),
) -> Figure:
    """One or several curves.

    Args:
        series: name -> values, or name -> (x, y) as a tuple. Values alone are drawn over 0, 1, 2, ..., on a
            logarithmic x axis over 1, 2, 3, ... NaN and infinities leave gaps.
        title: the finding, in a sentence; wrapped to the width.
        xlabel, ylabel: with units.
        logx, logy: logarithmic axes.
        xlim, ylim: what is shown; None, or None in a pair, leaves the choice to the data.
        hlines, vlines: label -> position of a reference line.
        labels_at_end: names at the right ends of the curves instead of a legend.
        size: width and height in inches; 7 inches fill a notebook's column.

    Raises:
        ValueError: no series, more than can be told apart, x and y that do not fit together, or nothing positive
            on a logarithmic axis.
    """
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    spec = dict(
        xlabel=xlabel, ylabel=ylabel, logx=logx, logy=logy, xlim=xlim, ylim=ylim, hlines=hlines, vlines=vlines,
        labels_at_end=labels_at_end,
    )
    ends = _lines_on(ax, series, styles(series), **spec)
    if len(series) > 1 and not labels_at_end:
        drawn = [line for line in ax.get_lines() if line.get_label() in series]
        legend(ax, drawn, size[0], lift=14 if vlines else 0)
    label_ends(fig, {ax: ends})
    return fig


def lines_grid(
    panels: Sequence[Mapping[str, Any]], *, ncols: int = 2, size: tuple[float, float] | None = None,
) -> Figure:
    """Several charts side by side; a name has one style in all of them and one entry in the common legend.

    Args:
        panels: one mapping per chart, with the arguments of :func:`lines` but ``size``.
        ncols: charts per row.
        size: width and height in inches; by default 8 wide, 3.3 per row.

    Raises:
        ValueError: no panels, or what :func:`lines` refuses.
    """
    if not panels:
        raise ValueError("There is nothing to draw: pass at least one panel, as dict(series=..., title=..., ...).")
    ncols = min(ncols, len(panels))
    nrows = math.ceil(len(panels) / ncols)
    size = size or (8.0, 3.3 * nrows)
    fig, axes = figure(size, nrows, ncols)
    chosen = styles(name for panel in panels for name in panel["series"])
    in_legend: dict[str, Any] = {}
    ends: dict[Axes, list[End]] = {}
    for ax, panel in zip(axes, panels):
        spec = dict(panel)
        series = spec.pop("series")
        text = wrap(spec.pop("title"), size[0] / ncols - 0.75, TITLE_PT, "bold")
        pad = 18 if spec.get("vlines") else 8
        ax.set_title(text, loc="left", fontsize=TITLE_PT, fontweight="bold", color=INK, pad=pad)
        ends[ax] = _lines_on(ax, series, chosen, **spec)
        if not spec.get("labels_at_end"):
            in_legend |= {name: line for line in ax.get_lines() if (name := line.get_label()) in series}
    for ax in axes[len(panels):]:
        ax.remove()
    if len(in_legend) > 1:
        fig.legend(
            in_legend.values(), in_legend.keys(), loc="outside lower left",
            ncols=legend_columns(list(in_legend), size[0] - 0.2), **LEGEND,
        )
    label_ends(fig, ends)
    return fig


def bars(
    values: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    *,
    title: str,
    ylabel: str,
    xlabel: str = "",
    logy: bool = False,
    hlines: Mapping[str, float] | None = None,
    fmt: str = ".3g",
    size: tuple[float, float] = (7.0, 3.6),
) -> Figure:
    """Bars with their values above them; grouped where the values are mappings themselves.

    Args:
        values: name -> height, or group -> (name -> height); a name missing from a group leaves a gap.
        title: the finding, in a sentence; wrapped to the width.
        ylabel: with its unit.
        xlabel: what the names or groups are, where that is not evident.
        logy: logarithmic y axis; bars then have no meaningful length, so label what they mean.
        hlines: label -> height of a reference line.
        fmt: format of the values above the bars.
        size: width and height in inches.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("There is nothing to draw: pass at least one value, as {name: height}.")
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    grouped = all(isinstance(value, Mapping) for value in values.values())
    if grouped:
        names = list(dict.fromkeys(name for group in values.values() for name in group))
        chosen = styles(names)
    else:
        names = [""]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        heights = [value.get(name, math.nan) if grouped else value for value in values.values()]
        looks = [chosen[name] if grouped else optimizer_style(key) for key in values]
        fills = [look.color if look else PALETTE["blue"] for look in looks]
        positions = np.arange(len(heights)) + (index - (len(names) - 1) / 2) * width
        drawn = ax.bar(
            positions, heights, 0.92 * width, color=fills, edgecolor="white", linewidth=0.8,
            hatch=HATCHES[index] if grouped else None, label=name,
        )
        labels = [format(height, fmt) if math.isfinite(height) else "" for height in heights]
        ax.bar_label(drawn, labels, padding=2, fontsize=SMALL_PT, color=INK)
    room = 0.9 * (size[0] - 1) / len(values)
    ax.set_xticks(range(len(values)), [wrap(key, room) for key in values])
    ax.tick_params(axis="x", length=0)
    ax.grid(False, axis="x")
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT_PT, color=INK)
    ax.margins(y=0.12)
    if logy:
        ax.set_yscale("log")
        log_ticks(ax.yaxis, *ax.get_ylim())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        if ax.get_ylim()[0] < 0:
            ax.axhline(0, color=MUTED, linewidth=0.8)
    ends = reference_lines(ax, hlines)
    if grouped and len(names) > 1:
        legend(ax, ax.containers, size[0])
    label_ends(fig, {ax: ends})
    return fig


def _lines_on(
    ax: Axes,
    series: Series,
    chosen: Mapping[str, Style],
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    xlim: Limits | None = None,
    ylim: Limits | None = None,
    hlines: Mapping[str, float] | None = None,
    vlines: Mapping[str, float] | None = None,
    labels_at_end: bool = False,
) -> list[End]:
    """Draw on ``ax``; return what is to be written at its right edge."""
    if not series:
        raise ValueError("There is nothing to draw: pass at least one series, as {name: values}.")
    ends: list[End] = []
    for index, (name, value) in enumerate(series.items()):
        x, y = _xy(name, value, logx, logy)
        look = chosen[name]
        rough, alone = _rough(y), len(series) == 1
        ax.plot(
            x, y, label=name, color=look.color, linewidth=1.2 if rough else 1.9,
            linestyle="solid" if rough or alone else look.linestyle,
            marker=None if alone and len(x) > FEW_POINTS else look.marker,
            markevery=_marked(x, logx, (index + 0.5) / len(series)),
            markersize=6, markeredgecolor="white", markeredgewidth=0.7,
        )
        if labels_at_end and np.isfinite(y).any():
            last = np.flatnonzero(np.isfinite(y))[-1]
            ends.append(End(name, look.text_color, float(x[last]), float(y[last])))
    if logx:
        ax.set_xscale("log")
    if logy:
        ax.set_yscale("log")
    ends += reference_lines(ax, hlines)
    for label, x in (vlines or {}).items():
        ax.axvline(x, **REFERENCE)
        ax.annotate(
            label, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=SMALL_PT, color=MUTED, annotation_clip=False,
        )
    ax.margins(x=0 if labels_at_end else 0.02)
    if xlim:
        ax.set_xlim(*xlim)
    if ylim:
        ax.set_ylim(*ylim)
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT_PT, color=INK)
    for axis, log, limits in ((ax.xaxis, logx, ax.get_xlim()), (ax.yaxis, logy, ax.get_ylim())):
        if log:
            log_ticks(axis, *limits)
        else:
            axis.set_major_locator(MaxNLocator(8 if axis is ax.xaxis else 6, steps=STEPS))
            axis.get_major_formatter().set_useOffset(False)
            axis.get_major_formatter().set_powerlimits((-4, 6))
    return ends


def _xy(
    name: str, value: ArrayLike | tuple[ArrayLike, ArrayLike], logx: bool, logy: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The points of a series as float64, infinities replaced by NaN."""
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"Invalid series {name!r}: a tuple of {len(value)}. Allowed: values, or a tuple (x, y).")
        x, y = (np.asarray(part, dtype=np.float64) for part in value)
    else:
        y = np.asarray(value, dtype=np.float64)
        x = np.arange(y.size, dtype=np.float64) + logx
    if x.ndim != 1 or x.shape != y.shape or not y.size:
        raise ValueError(
            f"Invalid series {name!r}: x of shape {x.shape} and y of shape {y.shape}. "
            "Allowed: equal shapes (n,) with n >= 1."
        )
    for log, label, values in ((logx, "x", x), (logy, "y", y)):
        if log and not (values[np.isfinite(values)] > 0).any():
            raise ValueError(f"Invalid series {name!r}: no positive {label} to draw on a logarithmic axis.")
    return x, np.where(np.isfinite(y), y, np.nan)


def _rough(y: np.ndarray) -> bool:
    """Whether a curve goes up and down so much that dashes would tear it."""
    y = y[np.isfinite(y)]
    turns = np.abs(np.diff(np.sign(np.diff(y)))) == 2
    return len(y) > FEW_POINTS and turns.mean() > 0.2


def _marked(x: np.ndarray, logx: bool, shift: float) -> list[int]:
    """Where a curve gets its markers, which tell it from its neighbours without colour.

    Every point where there are few; else eight, evenly over the width, staggered from curve to curve by ``shift``
    in (0, 1).
    """
    if len(x) <= FEW_POINTS:
        return list(range(len(x)))
    across = np.log(np.where(x > 0, x, np.nan)) if logx else x
    low, high = np.nanmin(across), np.nanmax(across)
    return sorted({int(np.nanargmin(np.abs(across - low - (high - low) * (k + shift) / 8))) for k in range(8)})


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Whole decades where there are at least two of them, 1-2-5 steps where there are fewer; plain numbers near 1."""
    decades = math.log10(high) - math.log10(low)
    plain = FuncFormatter(lambda value, _: f"{value:.10g}")
    near_one = low >= 5e-4 and high <= 2e4
    if decades < 2:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 1 else range(1, 10), numticks=20))
        axis.set_major_formatter(plain if near_one else FuncFormatter(lambda value, _: f"{value:.0e}"))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_major_formatter(plain if near_one else LogFormatterMathtext())
        axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=20) if decades < 6 else NullLocator())
    axis.set_minor_formatter(NullFormatter())
