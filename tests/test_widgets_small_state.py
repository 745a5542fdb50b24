"""explore_small_state: the bytes against real optimizers, the errors against a search by hand, and what it says."""

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
from course_lib.memory.architecture import ROLES, Weight
from course_lib.memory.models import MODELS, find
from course_lib.memory.states import state_bytes
from course_lib.optim import AdamW8bit
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.precision import dynamic_map
from course_lib.widgets import small_state

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"model": "llama-3-8b", "optimizer": "adamw8bit", "block": 256, "spread": 2.0}


def test_every_role_is_in_one_part():
    roles = [role for part in small_state.PARTS.values() for role in part]
    assert sorted(roles) == sorted(ROLES)


@pytest.mark.parametrize("optimizer", small_state.OPTIMIZERS)
def test_the_parts_add_up_to_the_state_of_the_model(optimizer):
    assert sum(small_state.by_part("gpt2-124m", optimizer, 256).values()) == state_bytes(
        optimizer, find("gpt2-124m").weights())


@pytest.mark.parametrize("block", [64, 256, 2048])
def test_the_bytes_of_blocks_are_those_that_the_optimizer_holds(block):
    shapes = [(64, 65), (3, 1700), (4095,), (5000,)]
    params = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    optimizer = AdamW8bit(params, block=block)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    held = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.dim())
    weights = [Weight("w", shape, 1, "mlp") for shape in shapes]
    assert small_state.bytes_of("adamw8bit", weights, block) == held


def test_the_errors_are_those_of_the_nearest_value_in_each_block():
    rng = np.random.default_rng(0)
    rows = 10.0 ** (-2.0 * rng.permutation(64) / 63)
    v = (rows[:, None] * np.exp(0.3 * rng.standard_normal((64, 256)))).astype(np.float64) ** 2
    blocks, levels = v.reshape(-1, 1024), dynamic_map(signed=False).double().numpy()
    largest = blocks.max(axis=1, keepdims=True)
    nearest = levels[abs(blocks / largest - levels[:, None, None]).argmin(axis=0)] * largest
    np.testing.assert_allclose(small_state.errors(1024, 2.0).v, (abs(nearest - blocks) / blocks).ravel(), atol=1e-5)


def test_what_ruins_v_is_a_spread_within_a_block_and_m_stands_twice_as_much_of_it():
    fits, mixed = small_state.errors(256, 4.0), small_state.errors(2048, 4.0)
    assert (fits.v == 1).mean() == 0 and (mixed.v == 1).mean() > 0.1 > 0.01 > (mixed.m == 1).mean()
    assert (mixed.v_linear == 1).mean() > 3 * (mixed.v == 1).mean()
    assert np.median(small_state.errors(2048, 0.0).v_linear) < np.median(small_state.errors(2048, 0.0).v)


@pytest.fixture(scope="module")
def picture() -> small_state._Picture:
    return small_state._Picture()


@settings(max_examples=15)
@given(model=st.sampled_from(sorted(MODELS)), optimizer=st.sampled_from(small_state.OPTIMIZERS),
       block=st.sampled_from(small_state.BLOCKS), spread=st.sampled_from(small_state.SPREADS))
def test_every_setting_fits_and_the_sentence_says_what_is_drawn(picture, model, optimizer, block, spread):
    values = {"model": model, "optimizer": optimizer, "block": block, "spread": spread}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    small, whole, median, zero = re.search(
        r"^([\d.,e+-]+) GB of state instead of ([\d.,]+?)\. .* off by ([\d.]+)% at the median, (none|[\d.]+%) of it",
        said).groups()
    tops = [bars[-1].get_y() + bars[-1].get_height() for bars in picture.bars]
    count = find(model).parameters
    for told, top in ((small, tops[1]), (whole, tops[0])):
        assert float(told.replace(",", "")) == pytest.approx(top * count / 1e9, rel=6e-3)
    assert tops[0] == pytest.approx(8) and picture.left.get_ylim()[1] > max(tops)
    right = np.asarray(picture.v.get_ydata())
    middle = float(median) / 100
    assert right[small_state.ERRORS <= 0.9 * middle][-1] >= 50 >= right[small_state.ERRORS >= 1.1 * middle][0]
    assert right[-1] == pytest.approx(0.0 if zero == "none" else float(zero[:-1]), rel=0.06)


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = small_state._Picture()
    picture.draw(DEFAULTS | {"spread": 4.0, "optimizer": "muon"})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_small_state()
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"model", "optimizer", "block", "spread (decades)"}
    before = image.value, sentence.value
    knobs["optimizer"].value = "adafactor"
    assert image.value != before[0] and "Adafactor" in sentence.value
    knobs["optimizer"].value = "adamw8bit"
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith(sentence.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"model": "llama-3-8"}, "llama-3-8b"), ({"optimizer": "adamw8bits"}, "adamw8bit"),
    ({"optimizer": "soap"}, "Allowed"), ({"block": 100}, "64, 128, 256"), ({"spread": -1}, "0 <= spread <= 4"),
    ({"spread": math.nan}, "Invalid spread: nan"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_small_state(**values)
    assert said in str(error.value)
    assert not shown
