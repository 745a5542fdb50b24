"""explore_rare_tokens: the numbers against the linear model written out, and what it says about them."""

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
from course_lib.widgets import rare_tokens

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"exponent": 1.0, "tokens": 1000, "steps": 100}


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7])
def test_what_is_drawn_is_the_linear_model(exponent):
    tokens, steps = 30, 20
    frequencies = np.arange(1, tokens + 1.0) ** -exponent
    frequencies /= frequencies.sum()
    target = (1 / np.arange(1, tokens + 1)) / (1 / np.arange(1, tokens + 1)).sum()
    error = np.ones(tokens)
    for _ in range(steps):
        error -= frequencies / frequencies[0] * error
    result = rare_tokens.run(exponent, tokens, steps)
    np.testing.assert_allclose(result.gd_error, error, atol=1e-12)
    at = rare_tokens.STEPS.index(steps)
    np.testing.assert_allclose(result.gd_loss[at], frequencies @ error**2, atol=1e-15)
    best = math.inf
    for lr in np.geomspace(target[0] / 2000, target[0], 60):
        w = np.zeros(tokens)
        for _ in range(steps):
            w -= lr * np.sign(w - target)
        best = min(best, ((w - target) ** 2).sum() / (target**2).sum())
    assert result.sign_loss[at] == pytest.approx(best)
    assert result.sign_error == pytest.approx(best**0.5)


@pytest.fixture(scope="module")
def picture() -> rare_tokens._Picture:
    return rare_tokens._Picture()


@settings(max_examples=15)
@given(exponent=st.sampled_from(rare_tokens.EXPONENTS), tokens=st.sampled_from(rare_tokens.TOKENS[:-1]),
       steps=st.sampled_from(rare_tokens.STEPS))
def test_every_setting_fits_and_the_sentence_counts_what_is_drawn(picture, exponent, tokens, steps):
    values = {"exponent": exponent, "tokens": tokens, "steps": steps}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    learned, of, sign = re.search(r"learned ([\d,]+) of ([\d,]+) tokens .* sign descent (all|none)", said).groups()
    result = rare_tokens.run(**values)
    assert int(of.replace(",", "")) == tokens
    assert int(learned.replace(",", "")) == (result.gd_error <= 0.1).sum()
    assert (sign == "all") == (picture.sign_error.get_ydata()[0] <= 0.1)
    assert (np.diff(picture.gd_error.get_ydata()) >= 0).all()  # the rarer, the more is left


def test_the_exponent_switches_which_method_is_slower(picture):
    zipf, uniform = (rare_tokens.run(exponent, 1000, 10) for exponent in (1.0, 0.0))
    assert zipf.gd_loss[4] > 4 * zipf.sign_loss[4]
    assert uniform.gd_loss[0] < 1e-12 < uniform.sign_loss[0]
    np.testing.assert_array_equal(zipf.sign_loss, uniform.sign_loss)


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = rare_tokens._Picture()
    picture.draw(DEFAULTS | {"exponent": 0.3})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_sliders_redraw_and_return(shown, boxes):
    widgets.explore_rare_tokens()
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"exponent", "tokens", "steps"}
    before = image.value, sentence.value
    knobs["exponent"].value = 0.0
    assert image.value != before[0] and "learned 1,000 of 1,000" in sentence.value
    knobs["exponent"].value = 1.0
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith(sentence.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"exponent": -0.1}, "0 <= exponent <= 2"), ({"exponent": math.nan}, "Invalid exponent: nan"),
    ({"tokens": 1}, "2 <= tokens <= 10000"), ({"tokens": 2.5}, "a whole number"),
    ({"steps": 0}, "2 <= steps <= 10000"), ({"steps": 3}, "an even number"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_rare_tokens(**values)
    assert said in str(error.value)
    assert not shown
