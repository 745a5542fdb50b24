"""explore_gradient_shock: the steps against torch's Adam and StableAdamW from the paper, and what it says."""

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
from course_lib.optim import StableAdamW
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import gradient_shock

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"shock": 100.0, "kind": "one step", "beta2": 0.999, "eps": 1e-8, "clip": math.inf, "cap": False}


def of_an_optimizer(shock: float, kind: str, beta2: float, eps: float, clip: float, cap: bool) -> np.ndarray:
    """The same steps by torch's own clipping and an optimizer's class."""
    param = torch.zeros(gradient_shock.WEIGHTS, dtype=torch.float64)
    if cap:
        run = StableAdamW([param], lr=1.0, betas=(0.9, beta2), eps=eps, weight_decay=0.0)
    else:
        run = torch.optim.Adam([param], lr=1.0, betas=(0.9, beta2), eps=eps)
    seen = []
    for t, gradient in enumerate(torch.from_numpy(gradient_shock._noise().copy())):
        hit = t == gradient_shock.QUIET if kind == "one step" else t >= gradient_shock.QUIET
        param.grad = gradient * (shock if hit else 1.0)
        torch.nn.utils.clip_grad_norm_([param], clip * 10)
        before = param.clone()
        run.step()
        seen.append((param - before).square().mean().sqrt().item())
    return np.array(seen)[gradient_shock.QUIET - gradient_shock.SHOWN_BEFORE :]


@pytest.mark.parametrize("changed", [
    {}, {"kind": "for good", "cap": True}, {"clip": 1.0, "beta2": 0.95}, {"eps": 1.0, "cap": True, "shock": 7.0},
    {"kind": "for good", "clip": 3.0, "shock": 1000.0},
])
def test_the_steps_are_those_of_the_optimizers(changed):
    values = DEFAULTS | changed
    # torch's clip divides by norm + 1e-6, which shows where it acts at every step.
    np.testing.assert_allclose(gradient_shock.adam_steps(**values), of_an_optimizer(**values), rtol=1e-6)


def test_without_a_shock_nothing_happens():
    steps = gradient_shock.adam_steps(**DEFAULTS | {"shock": 1.0})
    assert 0.15 < steps.min() and steps.max() < 0.3
    assert np.mean(steps) == pytest.approx(math.sqrt(0.1 / 1.9), rel=0.05)  # pure noise, notebook 04


def test_the_cap_holds_a_lasting_shock_and_not_a_lone_one():
    at = gradient_shock.SHOWN_BEFORE
    capped = [DEFAULTS | {"cap": True, "kind": kind} for kind in ("one step", "for good")]
    lone, lasting = (gradient_shock.adam_steps(**values) for values in capped)
    assert lone[at] < 0.2 and lone[at + 1] > 2 and lasting[at:].max() < 0.4
    bare = gradient_shock.adam_steps(**DEFAULTS)
    assert lone[at + 1] == pytest.approx(bare[at + 1], rel=1e-3)


@pytest.fixture(scope="module")
def picture() -> gradient_shock._Picture:
    return gradient_shock._Picture()


@settings(max_examples=12)
@given(shock=st.sampled_from([1.0, 30.0, 1000.0]), kind=st.sampled_from(["one step", "for good"]),
       beta2=st.sampled_from(gradient_shock.RATES), eps=st.sampled_from([1e-8, 0.1, 10.0]),
       clip=st.sampled_from(gradient_shock.CLIPS), cap=st.booleans())
def test_every_setting_fits_and_the_sentence_says_what_it_shows(picture, shock, kind, beta2, eps, clip, cap):
    values = {"shock": shock, "kind": kind, "beta2": beta2, "eps": eps, "clip": clip, "cap": cap}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    steps = picture.guarded.get_ydata()
    low, high = picture.ax.get_ylim()
    for line in (steps, picture.bare.get_ydata()):
        assert low <= line.min() and line.max() <= high
    most, least = map(float, re.search(r"at most (\S+), at least (\S+), and", said).groups())
    after = steps[gradient_shock.SHOWN_BEFORE :]
    assert most == pytest.approx(after.max(), rel=0.006) and least == pytest.approx(after.min(), rel=0.006)


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = gradient_shock._Picture()
    picture.draw(DEFAULTS | {"cap": True})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_gradient_shock(shock=33.0)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"size of the shock", "it lasts", "beta2", "epsilon", "clip at", "StableAdamW's cap"}
    before = image.value, sentence.value
    knobs["StableAdamW's cap"].value = True
    knobs["clip at"].value = 3.0
    assert image.value != before[0] and "cap on" in sentence.value and "clip: 3 times" in sentence.value
    knobs["StableAdamW's cap"].value = False
    knobs["clip at"].value = math.inf
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]


@pytest.mark.parametrize(("values", "said"), [
    ({"shock": 0.5}, "Invalid shock: 0.5. Allowed: 1 <= shock <= 1000."), ({"shock": math.nan}, "Invalid shock: nan"),
    ({"beta2": 1.0}, "0.8 <= beta2 <= 0.9999"), ({"eps": 0.0}, "1e-08 <= eps <= 10"),
    ({"kind": "twice"}, "'one step' or 'for good'"), ({"clip": 2.0}, "math.inf, 10, 3 or 1"),
    ({"cap": 1}, "Allowed: True or False"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_gradient_shock(**values)
    assert said in str(error.value)
    assert not shown
