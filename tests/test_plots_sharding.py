"""Pictures of collectives, timelines and states: what is drawn is what is so, and nothing covers anything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from course_lib import plots
from course_lib.parallel.price import Link, timeline
from course_lib.parallel.threads import run_threads
from course_lib.plots import collectives, sharding
from course_lib.plots.display import png

pytestmark = pytest.mark.filterwarnings("error")

LINK = Link(0.0, 1.0)
STATES = {"DP": {"parameters": 2e6, "gradients": 2e6, "optimizer": 12e6},
          "ZeRO-1": {"parameters": 2e6, "gradients": 2e6, "optimizer": 3e6}}


def cells_of(name: str) -> list[list[list[frozenset[int]]]]:
    """What four ranks hold after a collective, from the collective itself: rank r's numbers are bit r of an integer."""
    import torch

    before, *_ = collectives.COLLECTIVES[name]

    def one(comm):
        bits = torch.tensor([sum(1 << term for term in cell) for cell in before[comm.rank]])
        if name == "all_gather":
            return comm.all_gather(bits[comm.rank : comm.rank + 1])
        if name == "reduce_scatter":
            part = comm.reduce_scatter(bits)
            return [part.item() if index == comm.rank else 0 for index in range(4)]
        return getattr(comm, name)(bits)

    return [[frozenset(term for term in range(4) if int(cell) >> term & 1) for cell in held]
            for held in run_threads(one, 4)]


@pytest.mark.parametrize("name", list(collectives.COLLECTIVES))
def test_the_cells_after_a_collective_are_those_that_it_leaves(name):
    assert cells_of(name) == collectives.COLLECTIVES[name][1]


def test_a_ring_ends_in_sums_and_has_each_ranks_own_share_half_way():
    states = collectives.ring_states()
    assert len(states) == 7
    assert states[-1] == collectives.COLLECTIVES["all_reduce"][1]
    half = collectives.COLLECTIVES["reduce_scatter"][1]
    assert all(states[3][rank][rank] == half[rank][rank] == frozenset(range(4)) for rank in range(4))
    for before, after in itertools.pairwise(states):  # each rank receives one part, from the rank before it
        changed = [(rank, part) for rank in range(4) for part in range(4) if before[rank][part] != after[rank][part]]
        assert sorted(rank for rank, _ in changed) == [0, 1, 2, 3] and len({part for _, part in changed}) == 4
        assert all(after[rank][part] >= before[(rank - 1) % 4][part] for rank, part in changed)


def test_a_cell_has_a_stripe_for_each_rank_in_its_sum():
    fig = plots.draw_collectives()
    assert len(fig.axes) == 8
    for ax, (name, column) in zip(fig.axes, [(name, 0) for name in collectives.COLLECTIVES]):
        cells = collectives.COLLECTIVES[name][column]
        stripes = [patch for patch in ax.patches if patch.get_edgecolor()[3] == 0]
        assert len(stripes) == sum(len(cell) for row in cells for cell in row)
        assert sorted(text.get_text() for text in ax.texts) == sorted(
            "".join("abcd"[term] for term in sorted(cell)) for row in cells for cell in row if cell)


def test_bars_stand_where_the_events_are_and_waiting_is_marked():
    """Two layers, 6 s of compute, 0.5 s for a gather: on demand, compute waits at 0, 1.5, 3, 5.5 and at the end."""
    events = timeline(3, 2, 6.0, 1.0, 2, LINK, prefetch=0)
    fig = plots.draw_timeline(events, title="Every gather is waited for")
    (ax,) = fig.axes
    bars = {(patch.get_label(), round(patch.get_x(), 6)): patch for patch in ax.patches if patch.get_label()}
    assert len(bars) == len(events)
    for stream, name, start, end in events:
        bar = bars[name, round(start, 6)]
        assert bar.get_width() == pytest.approx(end - start)
        middle = bar.get_y() + bar.get_height() / 2
        assert [label.get_text() for label in ax.get_yticklabels()][round(middle)] == stream
    gaps = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches if not patch.get_label()]
    assert np.allclose(gaps, sharding.waits(events, "compute"))
    assert np.allclose(gaps, [(0, 0.5), (1.5, 2), (3, 3.5), (5.5, 6), (8, 8.5)])
    assert ax.get_xlabel() == "time (s)" and ax.get_ylim()[0] > ax.get_ylim()[1]


def test_several_timelines_share_an_axis_of_time_and_a_legend():
    several = {name: timeline(3, 4, 6e-3, 1e-3, 2, LINK, prefetch=ahead)
               for name, ahead in (("on demand", 0), ("ahead", 1))}
    fig = plots.draw_timeline(several, title="Prefetching hides gathers")
    assert len({ax.get_xlim() for ax in fig.axes}) == 1 and fig.axes[-1].get_xlabel() == "time (ms)"
    assert [ax.get_title(loc="left") for ax in fig.axes] == list(several)
    legends = [ax.get_legend() for ax in fig.axes]
    assert legends[1] is None
    assert [text.get_text() for text in legends[0].get_texts()] == ["forward", "backward", "gather", "reduce",
                                                                   "compute waits"]
    assert not legends[0].get_window_extent().overlaps(fig.axes[0].title.get_window_extent())
    assert not legends[0].get_window_extent().overlaps(fig.axes[0]._left_title.get_window_extent())


def filled(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if patch.get_facecolor()[3] > 0]


def test_measured_bars_are_filled_and_predicted_ones_are_outlines_around_them():
    measured = {"ZeRO-1": {"parameters": 2e6, "gradients": 2e6, "optimizer": 4e6}}
    fig = plots.draw_states(STATES, measured, title="ZeRO-1 holds a megabyte more than predicted")
    (ax,) = fig.axes
    bars, outlines = filled(ax), [patch for patch in ax.patches if patch.get_facecolor()[3] == 0]
    assert [patch.get_height() for patch in bars] == [2, 2, 4]
    assert [patch.get_height() for patch in outlines] == [2, 2, 12, 2, 2, 3]
    assert [patch.get_y() for patch in outlines] == [0, 2, 4, 0, 2, 4]
    assert all(outline.get_width() > bar.get_width() for bar, outline in itertools.product(bars, outlines))
    assert [text.get_text() for text in ax.texts][:2] == ["16", "8"] and ax.get_ylabel() == "bytes of a rank (MB)"
    assert "predicted" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_without_measurements_the_predictions_are_filled():
    fig = plots.draw_states(STATES, title="Predicted", hlines={"card": 20e6})
    (ax,) = fig.axes
    assert [patch.get_height() for patch in filled(ax)] == [2, 2, 12, 2, 2, 3] and ax.get_ylim()[1] > 20
    assert "predicted" not in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("draw", [
    plots.draw_collectives, plots.draw_ring, lambda: plots.draw_states(STATES, STATES, title="As predicted"),
    lambda: plots.draw_timeline(timeline(0, 3, 3.0, 1.0, 2, LINK), title="The last bucket cannot hide"),
])
def test_a_picture_is_small_and_always_the_same(draw):
    data, *_ = png(draw())
    assert len(data) < 100_000 and png(draw())[0] == data


@pytest.mark.parametrize(("call", "said"), [
    (lambda: plots.draw_timeline([], title="t"), "nothing to draw"),
    (lambda: plots.draw_timeline({}, title="t"), "nothing to draw"),
    (lambda: plots.draw_timeline([("compute", "forward 1", 2.0, 1.0)], title="t"), "0 <= start <= end"),
    (lambda: plots.draw_timeline([("compute", "forward 1", 0.0, math.nan)], title="t"), "Invalid event"),
    (lambda: plots.draw_timeline([("a", f"{name} 1", 0.0, 1.0) for name in "abcd"], title="t"), "too many kinds"),
    (lambda: plots.draw_states({}, title="t"), "nothing to draw"),
    (lambda: plots.draw_states({"a": {"x": -1.0}}, title="t"), "Invalid bar 'a'"),
    (lambda: plots.draw_states({"a": {"x": 1.0}}, {"b": {"x": 1.0}}, title="t"), "'b' was measured and not predicted"),
    (lambda: plots.draw_states({"a": {"x": 1.0}}, {"a": {"y": 1.0}}, title="t"), "'y' was measured"),
])
def test_what_cannot_be_drawn_is_told(call, said):
    with pytest.raises(ValueError, match=said):
        call()
