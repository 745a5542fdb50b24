"""explore_batch_size: the costs against the noisy quadratic and against search, and what it says."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import test_widgets
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import widgets
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.problems.noisy_quadratic import NoisyQuadratic, expected_losses
from course_lib.widgets import batch as batch_widget

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"batch": 256, "noise_scale": 1000.0, "gpus": 16, "pause": 10.0}


@pytest.mark.parametrize("batch", [1, 8, 64, 4096])
def test_a_step_is_worth_what_the_noisy_quadratic_says(batch):
    """Equal curvatures: one step at its best rate gains 1 / steps of what it gains without noise."""
    problem = NoisyQuadratic(np.ones(20), noise=3.0)
    scale = float(problem.noise_scale(problem.start))
    rates = np.linspace(1e-4, 1.0, 20_001)
    gains = 10.0 - expected_losses(problem, rates, batch, 1)[1]
    here = batch_widget.cost(batch, scale, 1, 0)
    assert gains.max() / 10.0 == pytest.approx(1 / here.steps, rel=1e-6)
    assert rates[gains.argmax()] == pytest.approx(here.rate, abs=1e-4)  # the largest useful rate is 1


@given(st.floats(1, 1e6), st.floats(10, 1e6), st.sampled_from(batch_widget.GPUS), st.floats(0.01, 1000))
def test_costs_hold_together(batch, scale, gpus, pause):
    here = batch_widget.cost(batch, scale, gpus, pause)
    assert (here.steps - 1) * (here.examples - 1) == pytest.approx(1)
    assert here.examples == pytest.approx(here.steps * batch / scale)
    best = batch_widget.fastest(scale, gpus, pause)
    least = batch_widget.cost(best, scale, gpus, pause).time
    assert all(batch_widget.cost(best * factor, scale, gpus, pause).time >= least for factor in (0.5, 0.9, 1.1, 2))
    assert batch_widget.fastest(scale, 4 * gpus, pause) == pytest.approx(2 * best)
    assert here.time >= least * (1 - 1e-12)


def test_without_a_pause_smaller_is_faster():
    times = [batch_widget.cost(2**power, 1000, 16, 0).time for power in range(12)]
    assert times == sorted(times) and batch_widget.fastest(1000, 16, 0) == 0
    assert "smaller is faster" in batch_widget.finding(DEFAULTS | {"pause": 0.0})


def test_the_numbers_of_the_first_picture_by_hand():
    """N = 1000, B = 250: steps 5 times, examples 1.25 times, rate a fifth; the fastest is sqrt(16 10 1000) = 400."""
    assert batch_widget.finding(DEFAULTS | {"batch": 250}) == (
        "Batch 250: 5x the fewest steps, 1.25x the fewest examples; fastest at 400."
    )
    assert batch_widget.cost(250, 1000, 16, 10) == (5.0, 1.25, 0.2, 5 * (250 / 16 + 10) / 1000)


@pytest.fixture(scope="module")
def picture() -> batch_widget._Picture:
    return batch_widget._Picture()


@settings(max_examples=12)
@given(power=st.sampled_from([0, 8, 20]), scale=st.sampled_from([10.0, 1000.0, 1e6]),
       gpus=st.sampled_from([1, 64, 1024]), pause=st.sampled_from([0.0, 1.0, 1000.0]))
def test_every_setting_fits_the_picture_and_the_sentence_says_what_it_shows(picture, power, scale, gpus, pause):
    values = {"batch": 2**power, "noise_scale": scale, "gpus": gpus, "pause": pause}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    steps, examples = re.search(r": ([\d.,e+]+)x the fewest steps, ([\d.,e+]+)x", said).groups()
    assert float(steps.replace(",", "")) == pytest.approx(1 + scale / 2**power, rel=0.006)
    assert float(examples.replace(",", "")) == pytest.approx(1 + 2**power / scale, rel=0.006)
    low, high = picture.right.get_ylim()
    assert low <= picture.now.get_ydata().min() and low <= picture.more.get_ydata().min() < high
    assert picture.marks[0].get_xdata() == picture.marks[1].get_xdata() == [2**power] * 2


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = batch_widget._Picture()
    picture.draw(DEFAULTS | {"noise_scale": 50.0})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_sliders_redraw_and_return(shown, boxes):
    widgets.explore_batch_size(noise_scale=777.0, pause=5.0)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"batch size", "noise scale", "GPUs", "pause per step (examples)"}
    before = image.value, sentence.value
    knobs["GPUs"].value = 64
    assert image.value != before[0] and "64 GPUs" in sentence.value
    knobs["GPUs"].value = 16
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith(sentence.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"batch": 100}, "Invalid batch: 100. Allowed: a power of two from 1 to 1048576"), ({"batch": 0}, "Invalid batch"),
    ({"gpus": 3}, "Invalid gpus: 3. Allowed: a power of two from 1 to 1024"),
    ({"noise_scale": 1.0}, "10 <= noise_scale <= 1e+06"), ({"noise_scale": math.nan}, "Invalid noise_scale: nan"),
    ({"pause": -1.0}, "0 <= pause <= 1000"), ({"pause": math.inf}, "Invalid pause: inf"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_batch_size(**values)
    assert said in str(error.value)
    assert not shown
