"""What is written at the right edge of a chart: names of curves and of reference lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, ScaledTranslation, Transform

from course_lib.plots.style import MUTED, REFERENCE, SMALL_PT


class End(NamedTuple):
    """Where a curve ends, in data coordinates; x is infinite for a reference line, which ends at the axes."""

    label: str
    ink: str
    x: float
    y: float


def reference_lines(ax: Axes, hlines: Mapping[str, float] | None) -> list[End]:
    """Draw horizontal lines; return what names them."""
    for y in (hlines or {}).values():
        ax.axhline(y, **REFERENCE)
    return [End(label, MUTED, math.inf, y) for label, y in (hlines or {}).items()]


def label_ends(fig: Figure, ends: Mapping[Axes, Sequence[End]]) -> None:
    """Write each name right of its axes at the height of its curve's end, moved apart where names would overlap."""
    ends = {ax: some for ax, some in ends.items() if some}
    texts = {
        ax: [
            ax.annotate(
                end.label, (1, 0), xycoords="axes fraction", xytext=(9, 0), textcoords="offset points", va="center",
                fontsize=SMALL_PT, color=end.ink, annotation_clip=False,
            )
            for end in some
        ]
        for ax, some in ends.items()
    }
    # Heights in points are known only after the layout, which the width of the texts takes part in.
    fig.draw_without_rendering()
    for ax, some in ends.items():
        (x0, x1), (y0, y1) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
        seen = [(min(max(end.x, x0), x1), min(max(end.y, y0), y1)) for end in some]
        bottom = ax.bbox.y0
        heights = np.array([(ax.transData.transform(point)[1] - bottom) * 72 / fig.dpi for point in seen])
        placed = spread(heights, 1.35 * SMALL_PT)
        for end, text, point, height, at in zip(some, texts[ax], seen, heights, placed):
            text.set_position((9, at))
            if end.x != math.inf and (point[0] < x1 or abs(at - height) > 3):
                ax.annotate(
                    "", point, xycoords="data", xytext=(8, at), textcoords=_offset(ax), annotation_clip=False,
                    arrowprops=dict(arrowstyle="-", color=end.ink, linewidth=0.7, shrinkA=0, shrinkB=2),
                )


def _offset(ax: Axes) -> Transform:
    """Points, counted from the lower right corner of the axes."""
    return Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans + ScaledTranslation(1, 0, ax.transAxes)


def spread(
    centres: np.ndarray, gap: float | np.ndarray, low: float = -math.inf, high: float = math.inf,
) -> np.ndarray:
    """The positions closest to ``centres`` that keep their order and lie at least ``gap`` apart.

    Args:
        centres: where each should be, (n,).
        gap: between neighbours, the same for all or, in their order, (n - 1,).
        low, high: of the first and the last position; there must be room between.
    """
    order = np.argsort(centres, kind="stable")
    steps = np.concatenate([[0.0], np.cumsum(np.broadcast_to(gap, max(len(centres) - 1, 0)))])[: len(centres)]
    # Less their steps, the positions need only not decrease: merge neighbours that do into their mean.
    blocks: list[list[float]] = []
    for value in centres[order] - steps:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    placed = np.empty(len(centres))
    placed[order] = np.clip(level, low, high - steps[-1]) + steps
    return placed
