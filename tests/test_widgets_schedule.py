"""explore_schedule: the curves against torch's schedulers and its AdamW, what it says, and which controls it shows."""

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
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import schedule

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"kind": "cosine", "peak": 3e-4, "total": 1000, "warmup": 0.01, "floor": 0.1, "decay": 0.2,
            "weight_decay": 0.1}
SHARES = {"kind": st.sampled_from(list(schedule.KINDS)), "total": st.sampled_from([100, 101, 1000]),
          "warmup": st.sampled_from([0.0, 0.013, 0.3]), "floor": st.sampled_from([0.0, 0.1, 1.0]),
          "decay": st.sampled_from([0.01, 0.2, 0.7])}


def of_torch(scheduler, total: int, **arguments) -> np.ndarray:
    """Rates of a torch scheduler on a base rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    made, rates = scheduler(optimizer, **arguments), []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return np.array(rates)


def test_without_warmup_the_curves_are_those_of_torch():
    from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, PolynomialLR

    for kind, expected in {
        "constant": np.ones(200),
        "cosine": of_torch(CosineAnnealingLR, 200, T_max=200, eta_min=0.1),
        "linear": of_torch(PolynomialLR, 200, total_iters=200),
        "restarts": of_torch(CosineAnnealingWarmRestarts, 200, T_0=50, eta_min=0.1),
        "wsd": np.minimum(1, 0.1 + 0.9 * (200 - np.arange(200)) / 40),
        "inverse_sqrt": 1 / np.sqrt(1 + np.arange(200)),
    }.items():
        np.testing.assert_allclose(schedule.composed(kind, 200, 0.0, 0.1, 0.2), expected, rtol=1e-9, atol=1e-12)


def test_what_is_left_is_what_torch_adamw_leaves():
    rates = 0.02 * schedule.composed("wsd", 150, 0.1, 0.0, 0.2)
    weight = torch.ones(1, dtype=torch.float64)
    adamw = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.5)
    path = [1.0]
    for rate in rates:
        adamw.param_groups[0]["lr"] = rate
        weight.grad = torch.zeros_like(weight)
        adamw.step()
        path.append(weight.item())
    np.testing.assert_allclose(schedule.weight_left(rates, 0.5), path, rtol=1e-12)


@given(**SHARES)
def test_any_shares_fit_into_the_run(kind, total, warmup, floor, decay):
    multipliers = schedule.composed(kind, total, warmup, floor, decay)
    assert multipliers.shape == (total,) and (multipliers > 0).all() and (multipliers <= 1).all()
    updates = round(warmup * total)
    assert multipliers[max(updates - 1, 0)] == 1
    assert (np.diff(multipliers[:updates]) > 0).all()
    if kind in ("cosine", "linear", "wsd"):
        assert (np.diff(multipliers[updates:]) <= 1e-15).all()
    if "floor" in schedule.KINDS[kind].knobs:
        assert multipliers[updates:].min() >= floor


@pytest.fixture(scope="module")
def picture() -> schedule._Picture:
    return schedule._Picture()


@settings(max_examples=25)
@given(**SHARES, peak=st.sampled_from([1e-6, 3.33e-4, 1.0]), weight_decay=st.sampled_from([0.0, 0.123, 1.0]))
def test_every_setting_fits_the_picture_and_the_sentence_says_what_it_shows(picture, **values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    pattern = r"The rates add up to (\S+), (\d+)% of a constant peak; (\S+)% of a weight"
    total, share, left = re.match(pattern, said).groups()
    shares = (values[name] for name in ("kind", "total", "warmup", "floor", "decay"))
    rates = values["peak"] * schedule.composed(*shares)
    assert float(total) == pytest.approx(rates.sum(), rel=0.006)
    assert float(share) == pytest.approx(100 * rates.mean() / values["peak"], abs=0.51)
    assert float(left) == pytest.approx(100 * math.exp(np.log1p(-values["weight_decay"] * rates).sum())
                                        if values["weight_decay"] * values["peak"] < 1 else 0.0, rel=0.006)
    assert ("floor" in said) == ("floor" in schedule.KINDS[values["kind"]].knobs)
    for line in (picture.rate, picture.left, picture.constant):
        x, y = line.get_data()
        assert 0 <= x.min() and x.max() <= 100 and y.min() >= 0 and y.max() <= 1


def test_a_picture_in_layers_is_the_one_drawn_in_one_go(picture):
    picture.draw(DEFAULTS | {"kind": "restarts"})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_each_kind_shows_its_own(shown, boxes):
    widgets.explore_schedule(total=1000)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    before = image.value, sentence.value

    def visible() -> set[str]:
        return {name for name, knob in knobs.items() if knob.layout.display != "none"}

    always = {"kind", "peak rate", "updates", "warmup", "weight_decay"}
    assert visible() == always | {"floor"}
    knobs["kind"].value = "wsd"
    assert visible() == always | {"floor", "last phase"} and "WSD" in sentence.value
    knobs["kind"].value = "linear"
    assert visible() == always
    knobs["kind"].value = "cosine"
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith(sentence.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"kind": "cosin"}, "Did you mean 'cosine'?"), ({"peak": 0.0}, "1e-06 <= peak <= 1"),
    ({"peak": math.nan}, "Invalid peak: nan"), ({"total": 99}, "100 <= total <= 100000"),
    ({"total": 100.5}, "a whole number of updates"), ({"total": True}, "Invalid total: True"),
    ({"warmup": 0.5}, "0 <= warmup <= 0.3"), ({"floor": -0.1}, "0 <= floor <= 1"),
    ({"decay": 0.0}, "0.01 <= decay <= 0.7"), ({"weight_decay": math.inf}, "0 <= weight_decay <= 1"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_schedule(**values)
    assert said in str(error.value)
    assert not shown
