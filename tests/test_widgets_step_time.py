"""explore_step_time: its numbers by hand arithmetic, its sentence and table, and every setting draws and fits."""

from __future__ import annotations

import itertools
import warnings

import pytest
import test_widgets
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import widgets
from course_lib.kernels.roofline import DATASHEETS
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.questions.evidence import kernels as evidence
from course_lib.widgets import step_time
from course_lib.widgets.step_time import WAYS

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"tensors": 1000, "elements": 4096, "way": "for-loop", "machine": "h100", "launch": 5.0, "gap": 1.0}


@pytest.fixture(scope="module")
def picture() -> step_time._Picture:
    return step_time._Picture()


# The numbers


def test_a_thousand_small_tensors_by_hand():
    """Bank question kernels-many-tensors: 1000 * 8 * 5 us = 40 ms; 4.096e6 * 80 / 3.35e12 = 0.0978 ms."""
    found = step_time.step_time(1000, 4096)
    assert (found.launches, found.regime) == (8000, "launch")
    assert found.seconds == found.launching == pytest.approx(40e-3) and 40 == evidence.loop_milliseconds()
    assert found.moving == pytest.approx(0.09781e-3, rel=1e-3)
    assert found.floor == pytest.approx(found.moving * 28 / 80)


@pytest.mark.parametrize("tensors", [1, 300, 1000])
@pytest.mark.parametrize("elements", [4096, 65_536, 4_194_304])
@pytest.mark.parametrize("launch", [5, 8])
def test_the_for_loop_takes_what_the_bank_says(tensors, elements, launch):
    seconds = step_time.step_time(tensors, elements, launch=launch).seconds
    assert 1e3 * seconds == pytest.approx(evidence.loop_milliseconds(tensors, elements, launch))


@pytest.mark.parametrize(("way", "tensors", "elements", "launches"), [
    ("for-loop", 7, 10**6, 56),
    ("foreach", 30, 1000, 8),  # all fit into each of the eight kernels' launches
    ("foreach", 111, 1000, 2 + 2 + 2 + 3 + 2 + 2 + 2 + 3),  # 110, 64, 110, 48, 64, 96, 110 and 48 tensors a launch
    ("fused", 36, 1000, 1), ("fused", 37, 1000, 2), ("fused", 1000, 4096, 28),
    ("fused", 1, 320 * 65_536, 1), ("fused", 1, 320 * 65_536 + 1, 2),  # 320 chunks of 65,536 elements a launch
    ("flat", 1000, 10**8, 1), ("graph", 1000, 4096, 1),
])
def test_launches_by_hand(way, tensors, elements, launches):
    assert step_time.step_time(tensors, elements, way).launches == launches


def test_a_graph_is_launched_once_and_its_kernels_still_follow_one_another():
    """5 us for the launch and 8 * 1000 kernels at 1 us."""
    found = step_time.step_time(1000, 4096, "graph")
    assert found.launching == found.seconds == pytest.approx(8.005e-3)
    assert step_time.step_time(1000, 4096, "graph", gap=0.0).regime == "bandwidth"


def test_bytes_by_hand():
    """40 tensors of a million on an H200: 4e7 * 28 / 4.8e12 = 0.233 ms fused, 80 / 28 as much in eight passes."""
    fused, loop = (step_time.step_time(40, 10**6, way, "h200") for way in ("fused", "for-loop"))
    assert fused.seconds == fused.floor == fused.moving == pytest.approx(2.3333e-4, rel=1e-4)
    assert fused.regime == "bandwidth" and loop.moving / fused.moving == pytest.approx(80 / 28)


SETTINGS = st.fixed_dictionaries({
    "tensors": st.integers(1, 10_000), "elements": st.integers(100, 10**8), "way": st.sampled_from(list(WAYS)),
    "machine": st.sampled_from(list(DATASHEETS)), "launch": st.floats(1, 20), "gap": st.floats(0, 20),
})


@given(values=SETTINGS)
def test_a_step_takes_its_longer_limit_and_never_less_than_the_floor(values):
    found = step_time.step_time(**values)
    assert found.seconds == max(found.launching, found.moving) >= found.floor * (1 - 1e-12)
    assert found.regime == ("launch" if found.launching > found.moving else "bandwidth")
    more = step_time.step_time(**{**values, "tensors": values["tensors"] + 1})
    assert more.seconds >= found.seconds and more.launches >= found.launches


# The picture


def test_sentence_and_table_by_hand(picture):
    _, said = picture.draw(DEFAULTS)
    assert said == ("Launch-bound: 40 ms a step, 1,168 times the 34.2 µs that 28 bytes a parameter take. for-loop, "
                    "1,000 x 4,096, H100 SXM (data sheet: 3.35 TB/s), 5 µs a launch. 8,000 launches: 40 ms; 80 "
                    f"bytes a parameter: 97.8 µs. {step_time.ASSUMED}")
    assert [[text.get_text() for text in row] for row in picture.rows] == [
        ["for-loop", "8,000", "40 ms", "97.8 µs"], ["foreach", "115", "575 µs", "97.8 µs"],
        ["fused", "28", "140 µs", "34.2 µs"], ["flat buffer", "1", "5 µs", "34.2 µs"],
        ["CUDA graph", "1", "8 ms", "97.8 µs"],
    ]
    _, said = picture.draw(DEFAULTS | {"way": "flat"})
    assert said.startswith("Bandwidth-bound: 34.2 µs a step, which 28 bytes") and "1 launch: 5 µs;" in said
    _, said = picture.draw(DEFAULTS | {"elements": 4_194_304})
    assert said.startswith("Bandwidth-bound: 100 ms a step, 2.9 times the 35.1 ms")


def test_lines_and_dot_stand_where_the_numbers_are(picture):
    picture.draw(DEFAULTS)
    x = picture.longest.get_xdata()
    assert picture.launching.get_ydata() == pytest.approx([0.04] * len(x))
    assert picture.moving.get_ydata() == pytest.approx(x * 1000 * 80 / 3.35e12)
    assert picture.floor.get_ydata() == pytest.approx(x * 1000 * 28 / 3.35e12)
    assert [*picture.dot.get_xdata(), *picture.dot.get_ydata()] == pytest.approx([4096, 0.04])


@pytest.mark.parametrize("way", list(WAYS))
def test_the_chosen_way_alone_is_emphasised(picture, way):
    picture.draw(DEFAULTS | {"way": way})
    assert [row[0].get_fontweight() == "bold" for row in picture.rows] == [key == way for key in WAYS]
    place = picture.rows[list(WAYS).index(way)][0].get_position()[1]
    assert picture.mark.get_y() < place < picture.mark.get_y() + picture.mark.get_height()


@settings(max_examples=20, deadline=None)
@given(values=SETTINGS)
def test_every_setting_of_the_controls_draws_and_fits(picture, values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, _ = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    renderer, page = picture.canvas._agg.get_renderer(), picture.canvas.fig.bbox
    assert picture.ax.get_ylim()[0] <= picture.dot.get_ydata()[0] < picture.ax.get_ylim()[1]
    for row in picture.rows:
        places = [text.get_window_extent(renderer) for text in row]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places)) and places[-1].x1 < page.x1


def test_the_longest_sentences_fit():
    for machine, way, elements, tensors in itertools.product(DATASHEETS, WAYS, (100, 12_345_678, 10**8), (1, 9_999)):
        values = {"machine": machine, "way": way, "elements": elements, "tensors": tensors, "launch": 12.5,
                  "gap": 0.25}
        assert text_width(step_time.finding(values), TITLE_PT, "bold") < 7.85, step_time.finding(values)
        assert text_width(step_time.conditions(values)) < 7.85, step_time.conditions(values)


def test_a_picture_in_layers_is_the_one_drawn_in_one_go(picture):
    picture.draw(DEFAULTS | {"way": "graph", "elements": 10**8})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_step_time(tensors=148, elements=840_000, way="fused", machine="H200", launch=4)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"tensors", "elements of each", "implementation", "machine", "µs per launch",
                          "µs in the graph"}
    assert [key for _, key in knobs["machine"].options] == list(DATASHEETS)
    before = image.value, sentence.value
    assert knobs["µs in the graph"].layout.display == "none"
    for name, value, words in (("tensors", 10_000, "10,000 x"), ("elements of each", 100, "x 100,"),
                               ("implementation", "for-loop", "80 bytes a parameter"), ("machine", "t4", "T4 (data"),
                               ("µs per launch", 20, "20 µs a launch")):
        was = knobs[name].value
        knobs[name].value = value
        assert image.value != before[0] and words in sentence.value
        knobs[name].value = was
        assert (image.value, sentence.value) == before, name
    knobs["implementation"].value = "graph"
    assert knobs["µs in the graph"].layout.display is None
    knobs["µs in the graph"].value = 5
    assert "5 a kernel" in sentence.value
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert "not measured" in data["text/plain"] and step_time.SEEN in data["text/plain"]


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (2.857, "2.9"), (9.96, "10"), (1168.4, "1,168")])
def test_ratios_are_read_easily(value, text):
    assert step_time.times(value) == text


@pytest.mark.parametrize(("values", "said"), [
    ({"tensors": 0}, "Invalid tensors: 0. Allowed: a whole number from 1 to 10,000"),
    ({"tensors": 1.5}, "Invalid tensors"),
    ({"elements": 99}, "Invalid elements: 99. Allowed"), ({"elements": 10**9}, "Invalid elements"),
    ({"way": "fuse"}, "Did you mean fused?"), ({"machine": "h10"}, "h100"), ({"launch": 0}, "Invalid launch: 0"),
    ({"launch": 21}, "Invalid launch: 21. Allowed: 1 to 20 microseconds"), ({"gap": -1}, "Invalid gap: -1"),
    ({"gap": float("nan")}, "Invalid gap: nan"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_step_time(**values)
    assert said in str(error.value)
    assert not shown
