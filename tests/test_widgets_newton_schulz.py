"""explore_newton_schulz: the values against Newton-Schulz on real matrices, and what it says about them."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import test_widgets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import widgets
from course_lib.optim import newton_schulz as of_the_library
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import newton_schulz

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"coefficients": "Jordan's", "steps": 5, "condition": 1000.0}


@pytest.mark.parametrize("name", newton_schulz.COEFFICIENTS)
@pytest.mark.parametrize(("steps", "condition"), [(0, 50.0), (1, 1.0), (5, 1000.0), (15, 1e6)])
def test_the_values_are_those_of_a_matrix(name, steps, condition):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(64, 64)))[0] for _ in range(2))
    matrix = torch.tensor(left * np.geomspace(7.0, 7.0 / condition, 64) @ right)
    before, after = newton_schulz.singular_values(name, steps, condition)
    np.testing.assert_allclose(before, torch.linalg.svdvals(matrix / matrix.norm()), rtol=1e-8)
    found = torch.linalg.svdvals(of_the_library(matrix, steps, newton_schulz.COEFFICIENTS[name]))
    np.testing.assert_allclose(np.sort(after)[::-1], found, rtol=1e-6, atol=1e-9)


def test_the_coefficients_are_what_their_names_say():
    for name, flat in (("cubic", 1), ("quintic", 2)):
        a, b, c = newton_schulz.COEFFICIENTS[name]
        p = np.polynomial.Polynomial([0, a, 0, b, 0, c])
        assert p(1) == 1 and all(p.deriv(order)(1) == 0 for order in range(1, flat + 1))
    assert newton_schulz.COEFFICIENTS["Jordan's"] == (3.4445, -4.775, 2.0315)
    converged = newton_schulz.singular_values("quintic", 15, 100.0)[1]
    np.testing.assert_allclose(converged, 1, atol=1e-9)
    assert np.ptp(newton_schulz.singular_values("Jordan's", 15, 100.0)[1]) > 0.3


@pytest.fixture(scope="module")
def picture() -> newton_schulz._Picture:
    return newton_schulz._Picture()


@settings(max_examples=15)
@given(coefficients=st.sampled_from(sorted(newton_schulz.COEFFICIENTS)), steps=st.integers(0, 15),
       condition=st.floats(1, 1e6))
def test_every_setting_fits_and_the_sentence_says_what_is_drawn(picture, coefficients, steps, condition):
    values = {"coefficients": coefficients, "steps": steps, "condition": condition}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    low, high, small = re.search(r"from ([\d.e-]+) to ([\d.e-]+); (\d+) of 64", said).groups()
    drawn = picture.after.get_ydata()
    assert float(high) == pytest.approx(drawn.max(), rel=0.006)
    assert max(float(low), newton_schulz.FLOOR) == pytest.approx(drawn.min(), rel=0.006)
    assert int(small) == (drawn < 0.5).sum()
    bottom, top = picture.ax.get_ylim()
    assert bottom < drawn.min() and drawn.max() < top and bottom < picture.before.get_ydata().min()


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = newton_schulz._Picture()
    picture.draw(DEFAULTS | {"steps": 2})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_newton_schulz()
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"coefficients", "steps", "condition"}
    before = image.value, sentence.value
    knobs["coefficients"].value = "cubic"
    assert image.value != before[0] and "cubic coefficients (1.5, -0.5, 0)" in sentence.value
    knobs["coefficients"].value = "Jordan's"
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith("Singular values from")


@pytest.mark.parametrize(("values", "said"), [
    ({"coefficients": "jordan"}, "\"Jordan's\", 'cubic', 'quintic'"), ({"steps": 16}, "from 0 to 15"),
    ({"steps": 2.5}, "a whole number"), ({"steps": True}, "Invalid steps: True"),
    ({"condition": 0.5}, "1 <= condition <= 1e6"), ({"condition": math.nan}, "Invalid condition: nan"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_newton_schulz(**values)
    assert said in str(error.value)
    assert not shown
