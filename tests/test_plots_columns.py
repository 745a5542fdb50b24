"""course_lib.plots.columns: every point stands where it should, its name beside it, and nothing covers anything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from test_plots import boxes, overlap, within

from course_lib import plots
from course_lib.optim import REGISTRY
from course_lib.plots.display import png

pytestmark = pytest.mark.filterwarnings("error")

TEXT = {"title": "Four bytes can be as good as eight", "xlabel": "bytes", "ylabel": "loss"}
SOME = {"sgd": (0, 2.6, 0.02), "adamw": (8, 2.0, 0.01), "muon": (4, 1.7, 0.03), "lion": (4, 1.71, 0.0)}


def registry_points(seed: int = 0) -> dict[str, tuple[float, float, float]]:
    rng = np.random.default_rng(seed)
    return {key: (round(entry.state_bytes_per_param), 2 + rng.random(), 0.1 * rng.random())
            for key, entry in REGISTRY.items()}


def test_points_and_intervals_are_those_given_and_equal_x_shares_a_column():
    fig = plots.columns(SOME, **TEXT)
    (ax,) = fig.axes
    drawn = {}
    for name, bar in zip(SOME, (each for each in ax.containers if isinstance(each, ErrorbarContainer)), strict=True):
        line, _, (interval,) = bar
        (low, high) = interval.get_segments()[0][:, 1]
        drawn[name] = line.get_xdata()[0]
        assert line.get_ydata()[0] == SOME[name][1]
        assert (low, high) == pytest.approx((SOME[name][1] - SOME[name][2], SOME[name][1] + SOME[name][2]))
    assert drawn["sgd"] < drawn["muon"] == drawn["lion"] < drawn["adamw"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "4", "8"]
    assert list(ax.get_xticks()) == [drawn["sgd"], drawn["muon"], drawn["adamw"]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_name_of_the_whole_registry_covers_another_or_leaves_the_figure(seed):
    points = registry_points(seed)
    fig = plots.columns(points, hlines={"AdamW": 2.5}, **TEXT)
    whole, (axes,), *_ = boxes(fig)
    # Of the text alone: an annotation's own extent takes in the line to its point.
    names = {text.get_text(): Text.get_window_extent(text) for text in fig.axes[0].texts if text.get_text() in points}
    assert names.keys() == points.keys()
    for box in names.values():
        assert within(box, whole) and box.x1 <= axes.x1 + 1
    assert not [pair for pair in itertools.combinations(names, 2) if overlap(names[pair[0]], names[pair[1]])]
    # Names in a column stand in the order of their points.
    for x in {x for x, _, _ in points.values()}:
        column = sorted((name for name in points if points[name][0] == x), key=lambda name: points[name][1])
        heights = [names[name].y0 for name in column]
        assert heights == sorted(heights)


def test_it_is_small_and_always_the_same():
    data, width, height = png(plots.columns(registry_points(), **TEXT))
    assert len(data) < 100_000 and (width, height) == (880, 605)
    assert png(plots.columns(registry_points(), **TEXT))[0] == data


@pytest.mark.parametrize(("points", "said"), [
    ({}, "nothing to draw"), ({"a": (0, math.nan, 0)}, "Invalid point 'a'"),
    ({"a": (0, 1, -0.1)}, "half an interval >= 0"),
    ({f"an optimizer of a long name {x}": (x, 0, 0) for x in range(9)}, "9 columns need"),
])
def test_what_cannot_be_drawn_is_told(points, said):
    with pytest.raises(ValueError, match=said):
        plots.columns(points, **TEXT)
