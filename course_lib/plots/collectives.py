"""What each rank holds before and after a collective, as coloured cells."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.plots.style import INK, MUTED, PALETTE, SMALL_PT, TEXT_PT, figure
from course_lib.plots.style import title as write_title

RANKS = 4
LETTERS = "abcd"
COLOURS = tuple(PALETTE[name] for name in ("blue", "orange", "green", "purple"))
CELL_PT = 9.0

Cells = list[list[frozenset[int]]]
"""Rank by rank and part by part: whose numbers are summed there; an empty set where the rank holds nothing."""

_NONE: frozenset[int] = frozenset()
_ALL = frozenset(range(RANKS))
_OWN: Cells = [[frozenset({rank})] * RANKS for rank in range(RANKS)]
_SUMS: Cells = [[_ALL] * RANKS for _ in range(RANKS)]
_SHARE_OF_SUM: Cells = [[_ALL if part == rank else _NONE for part in range(RANKS)] for rank in range(RANKS)]
_SHARES: Cells = [[frozenset({rank}) if part == rank else _NONE for part in range(RANKS)] for rank in range(RANKS)]
_GATHERED: Cells = [[frozenset({part}) for part in range(RANKS)] for _ in range(RANKS)]
_FIRST: Cells = [[frozenset({0}) if rank == 0 else _NONE] * RANKS for rank in range(RANKS)]
_FIRSTS: Cells = [[frozenset({0})] * RANKS for _ in range(RANKS)]
COLLECTIVES: dict[str, tuple[Cells, Cells, str]] = {
    "reduce_scatter": (_OWN, _SHARE_OF_SUM, "S (N-1) / N"),
    "all_gather": (_SHARES, _GATHERED, "S (N-1) / N"),
    "all_reduce": (_OWN, _SUMS, "2 S (N-1) / N"),
    "broadcast": (_FIRST, _FIRSTS, "S"),
}
"""What four ranks hold before and after each collective, and the bytes that a rank sends in a ring."""


def draw_collectives(*, size: tuple[float, float] = (8.0, 4.9)) -> Figure:
    """Four ranks before and after reduce_scatter, all_gather, all_reduce and broadcast of a tensor in four parts.

    Args:
        size: width and height in inches.
    """
    fig, axes = figure(size, 2, len(COLLECTIVES))
    write_title(axes[0], "An all_reduce is a reduce_scatter and then an all_gather: it sends as much as both", size[0])
    for column, (name, (before, after, sent)) in enumerate(COLLECTIVES.items()):
        top, bottom = axes[column], axes[column + len(COLLECTIVES)]
        _draw_cells(top, before)
        _draw_cells(bottom, after)
        top.set_title(f"{name}\nsends {sent}", fontsize=TEXT_PT, color=INK)
    _name_rows(axes, len(COLLECTIVES), ("before", "after"))
    return fig


def draw_ring(*, size: tuple[float, float] = (8.0, 4.9)) -> Figure:
    """A ring all-reduce of four ranks, step by step: in each step a rank sends one part to the next rank.

    Args:
        size: width and height in inches.
    """
    fig, axes = figure(size, 2, RANKS)
    write_title(axes[0], "A ring adds the parts up in three steps and hands the sums out in three more", size[0])
    states = ring_states()
    places = [*range(RANKS), *range(RANKS + 1, 2 * RANKS)]
    for step, (place, state) in enumerate(zip(places, states)):
        ax = axes[place]
        _draw_cells(ax, state)
        ax.set_title("start" if step == 0 else f"step {step}", fontsize=TEXT_PT, color=INK)
    axes[RANKS].set_axis_off()
    beside = dict(ha="right", va="center", color=INK, transform=axes[RANKS].transAxes)
    axes[RANKS].text(1, 0.85, "all_gather", fontsize=TEXT_PT, fontweight="bold", **beside)
    axes[RANKS].text(1, 0.4, "Each step sends a quarter\nof the tensor to the next rank.\nLetters: whose numbers\n"
                             "are summed; bold: all.", fontsize=SMALL_PT, **beside)
    _name_rows(axes, 1, ("reduce_scatter",))
    return fig


def ring_states() -> list[Cells]:
    """What the four ranks hold at the start and after each of the six steps of a ring all-reduce.

    Source: Patarasuk & Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    states = [_OWN]
    for step in range(2 * (RANKS - 1)):
        before = states[-1]
        after = [list(row) for row in before]
        for rank in range(RANKS):
            neighbour = (rank + 1) % RANKS
            if step < RANKS - 1:  # the neighbour adds its own
                part = (rank - 1 - step) % RANKS
                after[neighbour][part] = before[neighbour][part] | before[rank][part]
            else:
                part = (rank - (step - RANKS + 1)) % RANKS
                after[neighbour][part] = before[rank][part]
        states.append(after)
    return states


def _draw_cells(ax: Axes, cells: Cells) -> None:
    """Ranks as rows, the parts of the tensor as columns; a cell has a stripe for each rank that is in its sum."""
    ax.set_aspect("equal")
    ax.set(xlim=(-0.05, RANKS + 0.05), ylim=(RANKS + 0.05, -0.05))
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([part + 0.5 for part in range(RANKS)], [str(part) for part in range(RANKS)])
    ax.set_yticks([rank + 0.5 for rank in range(RANKS)], [""] * RANKS)
    ax.tick_params(length=0, pad=1)
    for rank, row in enumerate(cells):
        for part, terms in enumerate(row):
            ax.add_patch(Rectangle((part, rank), 1, 1, facecolor="none", edgecolor=MUTED, linewidth=0.8, zorder=3))
            if not terms:
                continue
            for index, term in enumerate(sorted(terms)):
                stripe = Rectangle((part + index / len(terms), rank), 1 / len(terms), 1, facecolor=_tint(COLOURS[term]),
                                   edgecolor="none", zorder=2)
                ax.add_patch(stripe)
            ax.text(part + 0.5, rank + 0.53, "".join(LETTERS[term] for term in sorted(terms)), ha="center",
                    va="center", fontsize=CELL_PT - (len(terms) == RANKS), color=INK, zorder=4,
                    fontweight="bold" if terms == _ALL else "normal")


def _name_rows(axes: Sequence[Axes], columns: int, names: Sequence[str]) -> None:
    """Left of each row of panels its name, and the names of the ranks."""
    for row, name in enumerate(names):
        ax = axes[row * columns]
        ax.set_yticklabels([f"rank {rank}" for rank in range(RANKS)])
        ax.set_ylabel(name, fontsize=TEXT_PT, fontweight="bold", color=INK)


def _tint(colour: str) -> tuple[float, ...]:
    """The colour, light enough for dark text on it."""
    return tuple(0.5 + 0.5 * channel for channel in to_rgb(colour))
