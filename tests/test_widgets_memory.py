"""explore_memory: it says what predict says, every combination of controls draws, and two that clash say why."""

from __future__ import annotations

import html
import itertools
import re
import warnings

import pytest
import test_widgets
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import widgets
from course_lib.memory import cards, models, recipes, states
from course_lib.memory.predict import CUDA_CONTEXT, predict
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import memory

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"model": "llama-3-8b", "precision": "mixed-bf16", "optimizer": "adamw", "zero": 0, "gpus": 1, "batch": 1,
            "sequence": 8192, "recompute": "none", "card": "h100"}


@pytest.fixture(scope="module")
def picture() -> memory._Picture:
    return memory._Picture()


def test_bar_table_and_sentence_say_what_the_prediction_says(picture):
    values = DEFAULTS | {"zero": 1, "gpus": 64, "card": "h200"}
    _, said = picture.draw(values)
    expected = predict(models.find("llama-3-8b"), zero=1, gpus=64, sequence=8192)
    heights = [bar.get_height() for bar in picture.bars]
    assert heights == pytest.approx([getattr(expected, part) / 1e9 for part in memory.PARTS])
    assert [bar.get_y() for bar in picture.bars] == pytest.approx([sum(heights[:index]) for index in range(5)])
    left = 141e9 - expected.total - CUDA_CONTEXT
    assert left > 0
    assert said.startswith(f"Llama 3 8B needs {expected.total / 1e9:.1f} GB a GPU and leaves {left / 1e9:.1f} GB of an "
                           "H200 (141 GB). With mixed-bf16, AdamW, ZeRO-1, 64 GPUs, 1 x 8,192 tokens a GPU")
    written = {name: text.get_text() for name, text in picture.rows.items()}
    assert written["total"] == f"{expected.total / 1e9:.1f} GB" and written["card"] == "141.0 GB"
    assert written["optimizer"] == f"{expected.optimizer / 1e9:.2f} GB" and written["left"] == f"{left / 1e9:.1f} GB"


def test_what_does_not_fit_says_by_how_much(picture):
    _, said = picture.draw(DEFAULTS | {"card": "t4"})
    over = predict(models.find("llama-3-8b"), sequence=8192).total + CUDA_CONTEXT - 16e9
    assert f"{over / 1e9:.1f} GB more than a T4 (16 GB) has." in said
    assert picture.rows["left"].get_text() == f"\N{MINUS SIGN}{over / 1e9:.1f} GB"


def test_a_sequence_is_cut_to_learned_positions_and_to_no_others(picture):
    assert "1 x 1,024 tokens" in picture.draw(DEFAULTS | {"model": "gpt2-124m"})[1]
    assert "1 x 131,072 tokens" in picture.draw(DEFAULTS | {"sequence": 131072})[1]


@pytest.mark.parametrize(("clash", "reason"), [
    ({"zero": 2}, "ZeRO-2 shards over data-parallel ranks"),
    ({"precision": "fp8-lm", "optimizer": "lion"}, "fp8-lm is defined for Adam and AdamW"),
])
def test_controls_that_do_not_go_together_say_why_and_recover(picture, clash, reason):
    before = picture.draw(DEFAULTS)
    data, said = picture.draw(DEFAULTS | clash)
    assert said.startswith(reason) and data != before[0]
    assert picture.title.get_text() == "These settings do not go together."
    assert picture.settings.get_text().startswith(reason[:20]) and text_width(picture.settings.get_text()) <= 7.75
    assert not any(bar.get_height() for bar in picture.bars)
    assert not any(text.get_text() for text in [picture.total, *picture.rows.values()])
    assert picture.draw(DEFAULTS) == before


@settings(max_examples=20)
@given(model=st.sampled_from(list(models.MODELS)), precision=st.sampled_from(list(recipes.RECIPES)),
       optimizer=st.sampled_from(list(states.STATES)), zero=st.integers(0, 3), gpus=st.sampled_from([1, 8, 4096]),
       batch=st.sampled_from([1, 64]), sequence=st.sampled_from([1, 131072]),
       recompute=st.sampled_from(memory.RECOMPUTE), card=st.sampled_from(list(cards.CARDS)))
def test_every_setting_of_the_controls_draws_and_fits(picture, **values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, _ = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.85
    assert text_width(picture.settings.get_text()) < 7.85
    page = picture.canvas.fig.bbox
    renderer = picture.canvas._agg.get_renderer()
    table = [text.get_window_extent(renderer) for text in picture.rows.values() if text.get_text()]
    assert all(box.x1 < page.x1 and box.x0 > page.width / 2 for box in table)
    assert picture.ax.yaxis.get_tightbbox(renderer).x0 >= 0
    names = [text.get_window_extent(renderer) for text in picture.names.values() if text.get_visible()]
    assert names and all(box.y1 < picture.ax.bbox.y1 + 5 for box in names)
    assert not any(min(a.y1, b.y1) - max(a.y0, b.y0) > 3 for a, b in itertools.combinations(names, 2))
    low, high = picture.ax.get_ylim()
    assert low == 0 and high >= cards.CARDS[values["card"]] / 1e9
    assert high >= sum(bar.get_height() for bar in picture.bars) > 0 or picture.total.get_text() == ""


@pytest.mark.parametrize(("card", "visible"), [
    ("h100", {"t4", "rtx-4090", "a100-40", "h100"}), ("a100-80", {"t4", "rtx-4090", "a100-40", "a100-80"}),
    ("t4", {"t4"}),
])
def test_the_chosen_card_is_drawn_and_others_that_stand_apart(picture, card, visible):
    picture.draw(DEFAULTS | {"model": "gpt2-124m", "card": card})
    assert {key for key, line in picture.lines.items() if line.get_visible()} == visible
    assert {key for key, text in picture.names.items() if text.get_visible()} == visible
    assert [key for key, text in picture.names.items() if text.get_fontweight() == "bold"] == [card]


def test_a_picture_drawn_in_layers_is_the_one_drawn_in_one_go(picture):
    picture.draw(DEFAULTS | {"model": "kimi-k2"})
    quick, _ = picture.draw(DEFAULTS | {"card": "b200"})
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3


@pytest.mark.parametrize(("size", "text"), [
    (498e6, "0.50"), (1.5e9, "1.50"), (29.3125e9, "29.3"), (112e9, "112.0"), (6.494e12, "6,494"),
])
def test_gigabytes_are_1e9_bytes(size, text):
    assert memory.gigabytes(size) == text


@given(st.floats(0.01, 1e6))
def test_the_axis_holds_the_most_and_not_twice_as_much(most):
    assert most <= memory.axis_top(most) <= 2 * most


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_memory(model="qwen3-8b", gpus=24, batch=3, sequence=5000)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"model", "precision", "optimizer", "ZeRO", "GPUs", "micro-batch", "sequence",
                          "recomputation", "card"}
    assert [key for _, key in knobs["model"].options] == list(models.MODELS)
    assert {key for _, key in knobs["optimizer"].options} == set(states.STATES)
    before = image.value, sentence.value
    assert "24 GPUs, 3 x 5,000 tokens" in before[1]

    def total() -> float:
        return float(re.search(r"needs ([\d.,]+) GB", html.unescape(sentence.value))[1].replace(",", ""))

    base = total()
    for name, value, compare in (
        ("ZeRO", 1, float.__lt__), ("recomputation", "full", float.__lt__), ("micro-batch", 64, float.__gt__),
        ("optimizer", "sgd", float.__lt__), ("model", "qwen3-32b", float.__gt__),
        ("sequence", 1, float.__lt__),
    ):
        was = knobs[name].value
        knobs[name].value = value
        assert compare(total(), base), name
        knobs[name].value = was
        assert (image.value, sentence.value) == before, name
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]


def test_names_in_other_letters_and_whole_floats_are_understood(shown, boxes):
    widgets.explore_memory(optimizer="AdamW", precision="BF16", gpus=8.0, card="H200")
    assert "With bf16, AdamW, no ZeRO, 8 GPUs" in shown[0][0]["text/plain"]


def test_without_a_sequence_the_models_context_is_taken(shown, boxes):
    widgets.explore_memory(model="gpt2-355m")
    assert "1 x 1,024 tokens" in shown[0][0]["text/plain"]


@pytest.mark.parametrize(("values", "said"), [
    ({"model": "llama-3-9b"}, "llama-3-8b"), ({"precision": "mixed-b16"}, "mixed-bf16"),
    ({"optimizer": "adamv"}, "adam"),
    ({"zero": 4}, "zero"), ({"zero": 1}, "only one"), ({"gpus": 0}, "gpus"), ({"batch": -1}, "batch"),
    ({"sequence": 0}, "sequence"), ({"recompute": "some"}, "recompute"), ({"card": "h10"}, "h100"),
    ({"batch": True}, "batch"), ({"sequence": float("nan")}, "sequence"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_memory(**values)
    assert said in str(error.value)
    assert not shown
