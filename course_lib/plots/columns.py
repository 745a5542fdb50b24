"""Named points with intervals, in columns: what each of many choices reaches, by what it costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

from course_lib.plots.labels import reference_lines, spread
from course_lib.plots.style import INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure, optimizer_style, text_width
from course_lib.plots.style import title as write_title

NAME_PT = 9.0
BESIDE, BETWEEN = 0.17, 0.2  # inches: from a column to its names, from a column's longest name to the next column
ASIDE = 0.06  # inches: between neighbours of a crowded column, so that their intervals do not cover each other
CROWD = 4  # points


def columns(
    points: Mapping[str, tuple[float, float, float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    hlines: Mapping[str, float] | None = None,
    size: tuple[float, float] = (8.0, 5.5),
) -> Figure:
    """Points with vertical intervals, each with its name beside it, one column for each value of x.

    The columns stand in the order of x, as far apart as their names need: distances mean nothing. In a crowded column
    points stand a little to the left and right, in turn.

    Args:
        points: name -> (x, y, half the interval). Points of equal x share a column.
        title: the finding, in a sentence; wrapped to the width.
        xlabel, ylabel: with units.
        hlines: label -> height of a reference line.
        size: width and height in inches; 7 inches fill a notebook's column.

    Raises:
        ValueError: no points, one that is not finite, an interval below zero, or more columns than the width holds.
    """
    if not points:
        raise ValueError("There is nothing to draw: pass at least one point, as {name: (x, y, half)}.")
    for name, (x, y, half) in points.items():
        if not np.isfinite([x, y, half]).all() or half < 0:
            raise ValueError(f"Invalid point {name!r}: {(x, y, half)}. Allowed: finite numbers, half an interval >= 0.")
    groups = {x: [name for name in points if points[name][0] == x] for x in sorted({x for x, _, _ in points.values()})}
    widths = [BESIDE + BETWEEN + max(text_width(name, NAME_PT) for name in names) for names in groups.values()]
    if sum(widths) > size[0] - 0.9:
        needed = sum(widths) + 0.9
        raise ValueError(f"The names of {len(groups)} columns need {needed:.1f} inches; size has {size[0]:g}.")
    at = dict(zip(groups, np.cumsum([BETWEEN, *widths[:-1]]), strict=True))
    place = {name: at[x] + ASIDE * (index % 3 - 1 if len(names) >= CROWD else 0) for x, names in groups.items()
             for index, name in enumerate(sorted(names, key=lambda name: points[name][1]))}

    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    looks = {name: optimizer_style(name) for name in points}
    for name, (_, y, half) in points.items():
        look = looks[name]
        ax.errorbar(place[name], y, half, color=look.color if look else PALETTE["blue"],
                    marker=look.marker if look else "o", markersize=6, markeredgecolor="white", markeredgewidth=0.7,
                    elinewidth=1.4, capsize=3)
    ax.set_xlim(0, sum(widths) + BETWEEN)
    ax.margins(y=0.06)
    ax.xaxis.set_major_locator(FixedLocator(list(at.values())))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{x:g}" for x in groups]))
    ax.grid(False, axis="x")
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT_PT, color=INK)
    for end in reference_lines(ax, hlines):
        ax.annotate(end.label, (1, end.y), xycoords=("axes fraction", "data"), xytext=(-2, 3), ha="right",
                    textcoords="offset points", fontsize=SMALL_PT, color=MUTED)
    # Heights in points are known only after the layout.
    fig.draw_without_rendering()
    low, high = ax.get_ylim()
    points_high = ax.bbox.height * 72 / fig.dpi
    for x, names in groups.items():
        heights = np.array([(points[name][1] - low) / (high - low) * points_high for name in names])
        for name, height, placed in zip(names, heights, spread(heights, 1.3 * NAME_PT, 0, points_high), strict=True):
            look = looks[name]
            # A line leads from the point to a name that had to move away from it.
            arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            aside = 72 * (BESIDE + at[x] - place[name])
            ax.annotate(name, (place[name], points[name][1]), xytext=(aside, placed - height), va="center",
                        textcoords="offset points", fontsize=NAME_PT, color=look.text_color if look else INK,
                        annotation_clip=False, arrowprops=arrow if abs(placed - height) > 3 else None)
    return fig
