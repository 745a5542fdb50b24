"""Paths of optimizers over the contours of a 2-D valley."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from course_lib.plots.style import INK, PALETTE, TEXT_PT, figure, legend, styles
from course_lib.plots.style import title as write_title

if TYPE_CHECKING:
    from course_lib.problems.valleys import Valley

GRID_POINTS = 400
LEVELS = 11
FEW_STEPS = 60


def paths(
    valley: Valley,
    trajectories: Mapping[str, ArrayLike],
    *,
    title: str,
    size: tuple[float, float] = (7.0, 4.2),
) -> Figure:
    """The points that optimizers visit, over grey contours that enclose ever larger shares of the area.

    A path is cut at the edge of the picture; one that does not end inside says so in the legend and has
    an arrow where it leaves for good. The scales of the axes differ, so paths need not look orthogonal to contours.

    Args:
        valley: what was descended; its bounds are those of the picture.
        trajectories: name -> array of shape (T, 2), as from ``valleys.descend``; it may diverge to infinity and NaN.
        title: the finding, in a sentence.
        size: width and height in inches.

    Raises:
        ValueError: no trajectories, one of another shape, or one that does not start inside the picture.
    """
    if not trajectories:
        raise ValueError("There is nothing to draw: pass at least one trajectory, as {name: array of shape (T, 2)}.")
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    draw_contours(ax, valley)
    low, high = np.array(valley.bounds, dtype=np.float64).T
    handles = []
    for name, look in styles(trajectories).items():
        path = np.asarray(trajectories[name], dtype=np.float64)
        if path.ndim != 2 or path.shape[1] != 2 or not len(path) or not np.isfinite(path[0]).all():
            raise ValueError(
                f"Invalid trajectory {name!r}: shape {path.shape}. Allowed: (T, 2) with T >= 1 and a finite start."
            )
        if not ((path[0] >= low) & (path[0] <= high)).all():
            raise ValueError(f"Invalid trajectory {name!r}: it starts at {path[0]}. Allowed: inside {valley.bounds}.")
        shown, edge = visible(path, low, high)
        leaves = len(shown) < len(path)
        line = dict(
            color=look.color, linewidth=1.7, linestyle=look.linestyle, marker=look.marker, markeredgecolor="white",
        )
        every = 1 if len(path) <= FEW_STEPS else len(path) // 20
        ax.plot(*shown.T, **line, markersize=5, markeredgewidth=0.6, markevery=every, zorder=3)
        if edge is not None:
            arrow = dict(arrowstyle="-|>", color=look.color, linewidth=1.7, shrinkA=0, shrinkB=0, mutation_scale=16)
            ax.annotate("", edge, shown[-1], arrowprops=arrow, zorder=4)
        handles.append(Line2D([], [], **line, markersize=6, label=name + " (leaves the picture)" * leaves))
    starts = np.unique([np.asarray(path, dtype=np.float64)[0] for path in trajectories.values()], axis=0)
    ax.plot(*starts.T, "o", color="white", markeredgecolor="black", markeredgewidth=1.6, markersize=9, zorder=5)
    handles.append(
        Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor="black", markersize=8, label="start")
    )
    if valley.minimum is not None:
        star = dict(linestyle="", marker="*", color=PALETTE["yellow"], markeredgecolor="black")
        ax.plot(*valley.minimum, **star, markersize=15, zorder=5)
        handles.append(Line2D([], [], **star, markersize=11, label="minimum"))
    legend(ax, handles, size[0])
    return fig


def draw_contours(ax: Axes, valley: Valley, points: int = GRID_POINTS) -> None:
    """Grey contours over ``valley.bounds``, from ``points`` times ``points`` values, and the names of the axes."""
    import torch  # the valley's function takes tensors, so whoever has a valley has paid for torch

    (x0, x1), (y0, y1) = valley.bounds
    x, y = np.meshgrid(np.linspace(x0, x1, points), np.linspace(y0, y1, points))
    with torch.no_grad():
        z = valley.function(torch.from_numpy(np.stack([x, y], axis=-1))).numpy()
    # Quantiles suit any function: equal steps of height would show a steep wall and nothing of the floor.
    shares = np.linspace(0.08, 1, LEVELS)
    levels = np.unique(np.quantile(z, np.append(0, shares if valley.minimum is None else shares**2)))
    ax.contourf(x, y, z, levels=levels, colors=[str(grey) for grey in np.linspace(0.83, 0.99, len(levels) - 1)])
    ax.contour(x, y, z, levels=levels[1:-1], colors="#A6A6A6", linewidths=0.7, linestyles="solid")
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    ax.grid(False)
    ax.set_xlabel("x", fontsize=TEXT_PT, color=INK)
    ax.set_ylabel("y", fontsize=TEXT_PT, color=INK)


def visible(path: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The path (T, 2) up to its last point within ``low`` and ``high``, and where the next segment meets the edge.

    The edge is None if there is no such segment. The first point must lie inside.
    """
    last = np.flatnonzero(((path >= low) & (path <= high)).all(axis=1))[-1]
    inside = path[: last + 1]
    if last == len(path) - 1 or not np.isfinite(path[last + 1]).all():
        return inside, None
    point, step = path[last], path[last + 1] - path[last]
    edge = np.where(step > 0, high, low)
    share = min((edge[axis] - point[axis]) / step[axis] for axis in range(2) if step[axis] != 0)
    return inside, point + share * step
