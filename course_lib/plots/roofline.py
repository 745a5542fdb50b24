"""What bounds a program: the roofline of machines, and the two limits of a step over many tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from course_lib.plots.charts import log_ticks
from course_lib.plots.labels import End, label_ends
from course_lib.plots.style import INK, MUTED, TEXT_PT, Style, figure, legend, styles
from course_lib.plots.style import title as write_title

MEASURED = "measured"
DASHES = ((0, (6, 2)), (0, (2, 1.5)), (0, (8, 2, 2, 2)), (0, (1, 1.5)), (0, (4, 1, 1, 1, 1, 1)), (0, (10, 3)))
RING = dict(marker="o", markersize=10, markerfacecolor="none", markeredgewidth=1.8, linestyle="none")


class Roof(NamedTuple):
    """What a machine can do at most.

    Attributes:
        name: of the machine, with the number format if several are drawn.
        bandwidth: bytes per second to and from memory.
        flops: floating-point operations per second.
        kind: where the numbers come from: "measured" (drawn solid), or "data sheet", "recorded", ... (dashed).
    """

    name: str
    bandwidth: float
    flops: float
    kind: str = MEASURED


class Point(NamedTuple):
    """A program.

    Attributes:
        name: one name, one colour and marker; an optimizer's name gets the optimizer's own.
        intensity: floating-point operations per byte moved to or from memory.
        achieved: operations per second; None draws what each machine allows instead, as hollow markers on the roofs.
        kind: "measured", or another word such as "recorded" or "simulated", which the legend then says.
        note: a short text above the marker, such as the width of a matrix.
    """

    name: str
    intensity: float
    achieved: float | None = None
    kind: str = MEASURED
    note: str = ""


class Limits(NamedTuple):
    """The two limits of a step over tensors of n elements each: ``launches`` and ``per_element`` * n, in seconds.

    Attributes:
        launches: seconds that the host needs to launch all kernels of the step.
        per_element: seconds by which the step's bytes take longer for each further element in every tensor: tensors
            times bytes per element over bytes per second.
    """

    launches: float
    per_element: float

    @property
    def crossing(self) -> float:
        """Elements per tensor at which both limits are equal."""
        return self.launches / self.per_element


def roofline(
    machines: Sequence[Roof | tuple], points: Sequence[Point | tuple] = (), *, title: str,
    size: tuple[float, float] = (8.0, 4.6),
) -> Figure:
    """Operations per second against operations per byte, both logarithmic (Williams, Waterman, Patterson 2009).

    A program cannot be above a machine's roof: left of its knee memory is what it waits for, right of it arithmetic.
    A filled marker is what a program reached, half filled if it was not measured here (recorded, simulated); a hollow
    one is what a machine would allow it.

    Args:
        machines: roofs, solid where measured; where not, dashed, with what they are in parentheses after the name.
        points: programs.
        title: the finding, in a sentence.
        size: width and height in inches.

    Raises:
        ValueError: no machines, more than can be told apart, or a number that is not finite and positive.
    """
    roofs, points = [Roof(*one) for one in machines], [Point(*one) for one in points]
    if not roofs:
        raise ValueError("There is nothing to draw: pass at least one machine, as (name, bytes/s, FLOP/s, kind).")
    dashed = [roof for roof in roofs if roof.kind != MEASURED]
    if len(dashed) > len(DASHES):
        raise ValueError(f"{len(dashed)} roofs that were not measured are too many to tell apart. Allowed: "
                         f"{len(DASHES)}.")
    for roof in roofs:
        _check("machine", roof, roof[1:3])
    for point in points:
        _check("point", point, (point.intensity, *(() if point.achieved is None else (point.achieved,))))
    chosen = styles(point.name for point in points)
    knees = [roof.flops / roof.bandwidth for roof in roofs]
    low = min(knees + [point.intensity for point in points]) / 3
    high = max(knees + [point.intensity for point in points]) * 4
    best = max(roof.flops for roof in roofs)
    unit, unit_name = next(pair for pair in ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1.0, "FLOP/s"))
                           if best >= pair[0] or pair[0] == 1)
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    ax.set(xscale="log", yscale="log")
    ends, dashes = [], iter(DASHES)
    for roof, knee in zip(roofs, knees):
        measured = roof.kind == MEASURED
        ax.plot([low, knee, high], [low * roof.bandwidth / unit, roof.flops / unit, roof.flops / unit],
                color=INK if measured else MUTED, linewidth=2.2 if measured else 1.5, zorder=2,
                linestyle="solid" if measured else next(dashes), label=f"_{roof.name}")
        ends.append(End(f"{roof.name} ({roof.kind})", INK if measured else MUTED, high, roof.flops / unit))
    handles: dict[str, Line2D] = {}
    for point in points:
        reached = point.achieved is not None
        heights = [point.achieved] if reached else [_allowed(roof, point.intensity) for roof in roofs]
        heights = sorted(height / unit for height in heights)
        look = _marker(chosen[point.name], "none" if not reached else "full" if point.kind == MEASURED else "left")
        said = f"{point.name}, {point.kind}" if reached else point.name
        ax.plot([point.intensity] * len(heights), heights, linestyle="none", zorder=4 if reached else 3,
                clip_on=False, label=f"_{said}", **look)
        handles.setdefault(said, Line2D([], [], linestyle="none", label=said, **look))
        if point.note:
            ax.annotate(point.note, (point.intensity, heights[-1]), xytext=(0, 6), textcoords="offset points",
                        ha="center", va="bottom", fontsize=9.0, color=chosen[point.name].text_color, zorder=5)
    bottom = min([low * roof.bandwidth for roof in roofs] + [p.achieved for p in points if p.achieved is not None])
    ax.set_xlim(low, high)
    ax.set_ylim(bottom / unit / 1.5, best / unit * 2.5)
    ax.set_xlabel("FLOP per byte of memory traffic", fontsize=TEXT_PT, color=INK)
    ax.set_ylabel(unit_name, fontsize=TEXT_PT, color=INK)
    log_ticks(ax.xaxis, *ax.get_xlim())
    log_ticks(ax.yaxis, *ax.get_ylim())
    if any(point.achieved is None for point in points):
        handles["hollow"] = Line2D([], [], linestyle="none", marker="o", markersize=7, markerfacecolor="white",
                                   markeredgecolor=MUTED, markeredgewidth=1.6, label="hollow: what the roof allows")
    if handles:
        legend(ax, list(handles.values()), size[0])
    label_ends(fig, {ax: ends})
    return fig


def regimes(
    ways: Mapping[str, Limits | tuple[float, float]],
    points: Mapping[str, Sequence[tuple[float, float, str]]] | None = None,
    *,
    title: str,
    elements: tuple[float, float] = (1e2, 1e8),
    size: tuple[float, float] = (8.0, 4.4),
) -> Figure:
    """Time of a step against elements per tensor: flat while launches take longer than bytes, then rising.

    The line of each way is the longer of its limits; each limit goes on, dotted, where the other one is longer. A
    ring marks where they cross; the legend has its number of elements.

    Args:
        ways: name -> its limits.
        points: name of a way -> (elements per tensor, seconds, kind): "measured" ones are filled, others, such as
            "simulated", hollow and named so in the legend.
        title: the finding, in a sentence.
        elements: the first and the last number of elements per tensor.
        size: width and height in inches.

    Raises:
        ValueError: no ways, more than can be told apart, points of a way that is not among them, or a number that is
            not finite and positive.
    """
    limits = {name: Limits(*pair) for name, pair in ways.items()}
    if not limits:
        raise ValueError("There is nothing to draw: pass at least one way, as {name: (launches, per_element)}.")
    for name, pair in limits.items():
        _check(f"way {name!r}:", tuple(pair), pair)
    for name, some in (points or {}).items():
        if name not in limits:
            raise ValueError(f"Invalid points of {name!r}. Allowed: {', '.join(map(repr, limits))}.")
        for point in some:
            _check(f"point of {name!r}:", point, point[:2])
    _check("elements:", elements, elements)
    low, high = sorted(elements)
    chosen = styles(limits)
    fig, (ax,) = figure(size)
    write_title(ax, title, size[0])
    ax.set(xscale="log", yscale="log")
    handles: list[Line2D] = []
    seen: list[float] = []
    for name, pair in limits.items():
        look = chosen[name]
        at = np.array(sorted({low, high, min(max(pair.crossing, low), high)}))
        times = np.maximum(pair.launches, pair.per_element * at)
        crosses = low < pair.crossing < high
        label = f"{name}: equal at {_count(pair.crossing)}" if crosses else name
        line, = ax.plot(at, 1e3 * times, color=look.color, linewidth=2.0, linestyle=look.linestyle, zorder=3,
                        label=label)
        handles.append(line)
        seen += times.tolist()
        if crosses:
            _hidden(ax, pair, low, high, look)
    kinds: dict[str, Line2D] = {}
    for name, some in (points or {}).items():
        for n, seconds, kind in some:
            fill = "full" if kind == MEASURED else "none"
            ax.plot([n], [1e3 * seconds], linestyle="none", zorder=5, label=f"_{name}, {kind}",
                    **_marker(chosen[name], fill))
            look = _marker(Style(MUTED, "solid", "o"), fill)
            kinds.setdefault(kind, Line2D([], [], linestyle="none", label=kind, **look))
            seen.append(seconds)
    ax.set_xlim(low, high)
    ax.set_ylim(1e3 * min(seen) / 2.5, 1e3 * max(seen) * 1.6)
    ax.set_xlabel("elements per tensor", fontsize=TEXT_PT, color=INK)
    ax.set_ylabel("time of a step (ms)", fontsize=TEXT_PT, color=INK)
    log_ticks(ax.xaxis, *ax.get_xlim())
    log_ticks(ax.yaxis, *ax.get_ylim())
    handles.append(Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (1, 1.5)), label="the limit that hides"))
    handles.append(Line2D([], [], **RING, markeredgecolor=INK, label="both limits equal"))
    legend(ax, [*handles, *kinds.values()], size[0])
    return fig


def _hidden(ax: Axes, pair: Limits, low: float, high: float, look: Style) -> None:
    """Each limit where the other one is longer, and a ring where they cross."""
    dotted = dict(color=look.color, linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=2)
    ax.plot([low, pair.crossing], [1e3 * pair.per_element * low, 1e3 * pair.launches], **dotted)
    ax.plot([pair.crossing, high], [1e3 * pair.launches] * 2, **dotted)
    ax.plot([pair.crossing], [1e3 * pair.launches], **RING, markeredgecolor=INK, zorder=4, label="_crossing")


def _count(value: float) -> str:
    """Two digits: 420, 1,700, 52,000, 1.7 million."""
    rounded = float(f"{value:.2g}")
    return f"{rounded / 1e6:g} million" if rounded >= 1e6 else f"{rounded:,g}"


def _allowed(roof: Roof, intensity: float) -> float:
    """FLOP/s under a roof."""
    return min(roof.flops, roof.bandwidth * intensity)


def _marker(look: Style, fill: str) -> dict:
    """``fill``: "full", "left" (half filled) or "none"."""
    full = fill == "full"
    return dict(marker=look.marker, markersize=8.0 if full else 7.0, markeredgewidth=0.8 if full else 1.6,
                markeredgecolor="white" if full else look.color, color=look.color, fillstyle="left" if fill == "left"
                else "full", markerfacecolor="white" if fill == "none" else look.color, markerfacecoloralt="white")


def _check(what: str, value: object, numbers: Sequence[float]) -> None:
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        shown = tuple(value) if isinstance(value, tuple) else value
        raise ValueError(f"Invalid {what} {shown}. Allowed: finite numbers > 0.")
