"""course_lib.plots.stacks: stacked areas and bars show what they were given, and nothing covers anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from test_plots import boxes, overlap, within

from course_lib import plots
from course_lib.plots import stacks
from course_lib.plots.display import png
from course_lib.plots.labels import spread
from course_lib.plots.style import PALETTE

pytestmark = pytest.mark.filterwarnings("error")

LONG = "A finding that takes more words than one line of the figure can hold, so that it has to be wrapped " * 2
AREAS = dict(title="The first step adds a plateau", xlabel="event")
BARS = dict(title="Sixteen bytes, in two ways", ylabel="bytes per parameter")
CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "temporaries")


def timeline(forward: int, steps: int = 2) -> tuple[dict[str, np.ndarray], list[tuple[int, str, int]]]:
    """Bytes of a run whose backward pass has twice the events of the forward pass, and steps and zeroing a few."""
    lengths = {"forward": forward, "backward": 2 * forward, "step": max(forward // 8, 1), "zero_grad": 1}
    phases, rows, event = [], [], 0
    for step, (name, length) in itertools.product(range(1, steps + 1), lengths.items()):
        phases.append((step, name, event))
        event += length
        state = 1e9 if step > 1 or name == "zero_grad" else 0
        rising = {"forward": np.linspace(0, 2e9, length), "backward": np.linspace(2e9, 0, length)}
        held = rising.get(name, np.zeros(length))
        rows.append(np.stack([np.full(length, value) for value in (5e8, 5e8 * (name != "forward"), state)]
                             + [held, 0.1 * held]))
    return dict(zip(CATEGORIES, np.concatenate(rows, axis=1))), phases


def polygons(fig) -> list[np.ndarray]:
    return [area.get_paths()[0].vertices for area in fig.axes[0].collections if isinstance(area, PolyCollection)]


# areas


def test_areas_are_stacked_and_hold_until_the_next_event():
    fig = plots.areas({"a": [1e9, 3e9, 2e9], "b": [2e9, 0, 4e9]}, **AREAS)
    lower, upper = polygons(fig)
    (ax,) = fig.axes
    assert ax.get_xlim() == (0, 3)
    assert ax.get_ylabel() == "memory (GB)"
    # After event 1: 3 and 0; after event 2, the last, up to the right edge: 2 and 4.
    assert {tuple(point) for point in lower} >= {(0, 1), (1, 1), (1, 3), (2, 3), (2, 2), (3, 2)}
    assert {tuple(point) for point in upper} >= {(0, 3), (1, 3), (2, 3), (2, 6), (3, 6), (3, 2)}
    assert "peak 6 GB" in [text.get_text() for text in ax.texts]
    assert [line.get_xydata().tolist() for line in ax.get_lines()] == [[[2, 6]]]


@pytest.mark.parametrize(("most", "unit"), [(0, "B"), (999, "B"), (1e3, "kB"), (2e6, "MB"), (3e9, "GB"), (4e12, "TB")])
def test_the_unit_is_decimal_and_suits_the_largest(most, unit):
    fig = plots.areas({"a": [most / 2, most]}, **AREAS)
    assert fig.axes[0].get_ylabel() == f"memory ({unit})"
    sizes = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    assert f"peak {most / sizes[unit]:.3g} {unit}" in [text.get_text() for text in fig.axes[0].texts]


def test_a_reference_line_is_in_bytes_too_and_shown():
    fig = plots.areas({"a": [1e9, 2e9]}, hlines={"H100": 80e9}, **AREAS)
    (ax,) = fig.axes
    assert [80.0, 80.0] in [list(line.get_ydata()) for line in ax.get_lines()]
    assert ax.get_ylim()[1] > 80 and "H100" in [text.get_text() for text in ax.texts]


@settings(max_examples=30)
@given(st.integers(1, 20_000), st.randoms(use_true_random=False))
def test_of_many_events_the_peak_is_drawn_and_their_order_kept(count, random):
    total = np.array([random.random() for _ in range(count)])
    kept = stacks._fullest(total)
    assert len(kept) == min(count, stacks.MOMENTS)
    assert total.argmax() in kept
    assert (np.diff(kept) > 0).all()
    assert np.diff([0, *kept, count]).max() <= 2 * -(-count // stacks.MOMENTS)


def test_a_long_timeline_is_drawn_small_with_its_peak():
    noise = np.random.default_rng(0).random((5, 30_000)) * 1e8
    series = dict(zip(CATEGORIES, noise))
    series["activations"][17_321] = 5e9
    fig = plots.areas(series, **AREAS)
    assert max(polygon[:, 1].max() for polygon in polygons(fig)) == pytest.approx(noise.sum(axis=0).max() / 1e9)
    assert len(png(fig)[0]) < 100_000


@pytest.mark.parametrize(("forward", "steps"), [(4, 1), (4, 2), (300, 2), (300, 3), (50, 6), (2, 12)])
@pytest.mark.parametrize("options", [dict(), dict(title=LONG, hlines={"a card": 4e9}), dict(size=(5.0, 3.6))])
def test_phases_are_named_above_the_axes_and_nothing_overlaps(forward, steps, options):
    series, phases = timeline(forward, steps)
    fig = plots.areas(series, phases=phases, **{**AREAS, **options})
    page, (axes,), legends, titles = boxes(fig)
    names = [text for text in fig.axes[0].texts if text.get_text() in ("forward", "backward", "step", "zero_grad")]
    assert len(names) >= min(steps, 3) or steps > 3
    everything = [*legends, *titles]
    assert all(within(box, page) and not overlap(box, axes) for box in everything)
    assert not any(overlap(a, b) for a, b in itertools.combinations(everything, 2))
    assert axes.height > 0.3 * page.height
    starts = {line.get_xdata()[0] for line in fig.axes[0].get_lines() if list(line.get_ydata()) == [0, 1]}
    assert starts == {start for _, _, start in phases}


def test_a_name_stands_over_its_phase_or_points_to_it():
    series, phases = timeline(300, 2)
    fig = plots.areas(series, phases=phases, **AREAS)
    fig.draw_without_rendering()
    (ax,) = fig.axes
    named = [text for text in ax.texts if text.get_text() in {name for _, name, _ in phases}]
    assert [text.get_text() for text in named] == [name for _, name, _ in phases]
    ends = [start for _, _, start in phases[1:]] + [len(series["gradients"])]
    for text, (_, _, start), end in zip(named, phases, ends):
        left, right = (ax.transData.transform((x, 0))[0] - 1 for x in (start, end))
        if text.arrow_patch is None:
            centre = (text.get_window_extent().x0 + text.get_window_extent().x1) / 2
            assert left <= centre <= right + 2
        else:
            assert left <= ax.transAxes.transform(text.xy)[0] <= right + 2


def test_where_there_is_no_room_the_narrowest_phases_stay_without_a_name():
    series, phases = timeline(300, 4)
    fig = plots.areas(series, phases=phases, **AREAS)
    names = [text.get_text() for text in fig.axes[0].texts]
    assert names.count("backward") == 4 and "zero_grad" not in names
    assert [name for name in names if name.startswith("step ")] == [f"step {step}" for step in range(1, 5)]


def test_a_phase_without_events_is_left_out():
    fig = plots.areas({"a": [1, 2, 3]}, phases=[(1, "forward", 0), (1, "step", 3), (1, "zero_grad", 3)], **AREAS)
    names = {text.get_text() for text in fig.axes[0].texts}
    assert "forward" in names and not names & {"step", "zero_grad"}


@pytest.mark.parametrize(("series", "phases", "message"), [
    ({}, (), "nothing to draw"),
    ({"a": []}, (), r"Invalid series 'a': shape \(0,\)"),
    ({"a": [1, 2], "b": [1]}, (), r"Invalid series 'b': shape \(1,\)"),
    ({"a": [[1, 2]]}, (), r"shape \(1, 2\)"),
    ({"a": [1, -1]}, (), "Invalid series 'a': a value is negative"),
    ({"a": [1, np.nan]}, (), "not finite"),
    ({"a": [1, 2]}, [(1, "forward", 1), (1, "backward", 0)], "Invalid phases: .* increasing"),
    ({"a": [1, 2]}, [(1, "forward", 5)], "from 0 to 2"),
    ({str(index): [1] for index in range(8)}, (), "8 parts .* at most 7"),
    ({"parameters": [1], "weights": [1]}, (), "one of parameters and weights"),
])
def test_what_cannot_be_stacked_is_refused_by_name(series, phases, message):
    with pytest.raises(ValueError, match=message):
        plots.areas(series, phases=phases, **AREAS)


# stacked_bars

RECIPES = {
    "mixed": {"weights": 2, "gradients": 2, "master": 4, "m": 4, "v": 4},
    "8-bit": {"weights": 2, "gradients": 2, "master": 4, "m": 1, "v": 1},
    "SGD": {"weights": 4, "gradients": 4},
}


def test_bars_are_stacked_with_gaps_left_out_and_totals_above():
    fig = plots.stacked_bars(RECIPES, **BARS)
    tops = {container.get_label(): [bar.get_y() + bar.get_height() for bar in container]
            for container in fig.axes[0].containers}
    assert tops == {
        "weights": [2, 2, 4], "gradients": [4, 4, 8], "master": [8, 8, 8], "m": [12, 9, 8], "v": [16, 10, 8],
    }
    totals = [text for text in fig.axes[0].texts if text.get_fontweight() == "bold"]
    assert [(text.get_text(), text.xy) for text in totals] == [("16", (0, 16)), ("10", (1, 10)), ("8", (2, 8))]


def test_a_height_is_written_in_its_part_where_there_is_room():
    fig = plots.stacked_bars({"a": {"large": 100.0, "small": 1.0, "none": 0.0}}, fmt=".1f", **BARS)
    assert {text.get_text() for text in fig.axes[0].texts} == {"101.0", "100.0"}
    page, axes, legends, _ = boxes(fig)
    (inside,) = [text.get_window_extent() for text in fig.axes[0].texts if text.get_text() == "100.0"]
    assert within(inside, fig.axes[0].containers[0][0].get_window_extent())
    assert within(legends[0], page) and not overlap(legends[0], axes[0])


@pytest.mark.parametrize("options", [dict(), dict(title=LONG), dict(hlines={"H100 (80 GB)": 15.9, "a T4": 3.0}),
                                     dict(size=(5.0, 3.2))])
def test_nothing_leaves_the_figure_of_bars(options):
    names = {f"{name}, with a name that is long": parts for name, parts in RECIPES.items()}
    fig = plots.stacked_bars(names, **{**BARS, **options})
    page, (axes,), legends, titles = boxes(fig)
    assert all(within(box, page) and not overlap(box, axes) for box in legends + titles)
    assert not any(overlap(legend, title) for legend in legends for title in titles)
    assert all(within(text.get_window_extent(), page) for text in fig.axes[0].texts)
    assert axes.height > 0.3 * page.height
    ticks = [tick.get_window_extent() for tick in fig.axes[0].get_xticklabels()]
    assert not any(overlap(a, b) for a, b in itertools.combinations(ticks, 2))


def test_a_reference_line_far_above_is_shown():
    assert plots.stacked_bars(RECIPES, hlines={"card": 80.0}, **BARS).axes[0].get_ylim()[1] > 80


@pytest.mark.parametrize(("values", "message"), [
    ({}, "nothing to draw"), ({"a": {}}, "nothing to draw"),
    ({"a": {"x": -1.0}}, "Invalid height of 'x' in 'a': -1.0"), ({"a": {"x": np.inf}}, "finite"),
    ({"a": {str(index): 1.0 for index in range(8)}}, "8 parts"),
])
def test_bars_that_cannot_be_drawn_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        plots.stacked_bars(values, **BARS)


# looks


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*stacks.PARTS, "master", "m", "v", "KV cache"]), max_size=7, unique=True))
def test_parts_look_the_same_in_any_company_and_differ_in_colour_and_hatch(names):
    if {"parameters", "weights"} <= set(names) or {"temporaries", "other"} <= set(names):
        return
    looks = stacks.looks(names)
    assert list(looks) == names
    for cue in range(2):
        assert len({look[cue] for look in looks.values()}) == len(names)
    assert all(looks[name] == stacks.PARTS[name] for name in names if name in stacks.PARTS)
    assert {colour for colour, _ in looks.values()} <= set(PALETTE.values())


def test_neighbours_in_a_stack_of_memory_differ_in_brightness_or_hatch_without_colour():
    def grey(colour: str) -> float:
        red, green, blue = (int(to_hex(colour)[index : index + 2], 16) for index in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    looks = [stacks.PARTS[name] for name in CATEGORIES]
    for (first, hatch), (second, other) in itertools.pairwise(looks):
        assert abs(grey(first) - grey(second)) > 20 or hatch != other


@settings(max_examples=60)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.data())
def test_names_stay_between_the_ends_of_their_row(centres, data):
    centres = np.sort(centres)
    gaps = np.array(data.draw(st.lists(st.floats(0.1, 1), min_size=len(centres) - 1, max_size=len(centres) - 1)))
    placed = spread(centres, gaps, 1.0, 9.0)
    assert placed[0] >= 1.0 - 1e-9 and placed[-1] <= 9.0 + 1e-9
    assert (np.diff(placed) >= gaps - 1e-9).all()
    if (np.diff(centres) >= gaps).all() and 1 <= centres[0] and centres[-1] <= 9:
        assert placed == pytest.approx(centres, abs=1e-9)
