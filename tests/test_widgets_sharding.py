"""explore_sharding: bars, table and sentence say what the paper's formulas say; every setting draws and fits."""

from __future__ import annotations

import itertools
import warnings

import pytest
import test_widgets
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import widgets
from course_lib.memory import cards, models
from course_lib.parallel.price import CLUSTERS
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import sharding

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"stage": 1, "ranks": 64, "model": "llama-3-8b", "card": "h100", "network": "hgx-h100"}
P = 8_030_261_248


@pytest.fixture(scope="module")
def picture() -> sharding._Picture:
    return sharding._Picture()


def test_bars_are_4p_12p_over_n_and_so_on(picture):
    """1910.02054, section 5, in mixed precision: weights, gradients and optimizer of each stage on 64 GPUs."""
    picture.draw(DEFAULTS)
    share = -(-P // 64)
    expected = [(2 * P, 2 * P, 12 * P), (2 * P, 2 * P, 12 * share), (2 * P, 2 * share, 12 * share),
                (2 * share, 2 * share, 12 * share)]
    for bars, sizes in zip(picture.bars, expected, strict=True):
        assert [1e9 * bar.get_height() for bar in bars] == pytest.approx(list(sizes))
        assert 1e9 * bars[2].get_y() == pytest.approx(sizes[0] + sizes[1])


def test_table_and_sentence_by_hand(picture):
    """16 P = 128.484 GB; 4 P + 12 P / 64 = 33.627 GB; 2 P numbers of 2 bytes times 63/64 = 31.619 GB.

    One way over 8 nodes of 8: 16.0605 GB * (7/8 / 450 + 7/8 / 8 / 50) = 0.0664 s.
    """
    _, said = picture.draw(DEFAULTS)
    assert said.startswith("ZeRO-1, 64 GPUs, Llama 3 8B: 33.6 GB each, 46.4 under an H100 (80 GB). "
                           "Each GPU sends 31.6 GB in a step, 133 ms: nodes of 8 H100")
    rows = [[text.get_text() for text in row] for row in picture.rows]
    assert rows == [["DP", "128.5", "31.6", "133 ms"], ["ZeRO-1", "33.6", "31.6", "133 ms"],
                    ["ZeRO-2", "17.8", "31.6", "133 ms"], ["ZeRO-3", "2.01", "47.4", "199 ms"]]
    _, said = picture.draw(DEFAULTS | {"stage": 3, "network": "network-400"})
    assert "Each GPU sends 47.4 GB in a step, 949 ms: one GPU a node, 50 GB/s" in said  # 47.43 / 50


def test_what_does_not_fit_says_by_how_much_and_a_bar_over_the_axis_is_cut(picture):
    _, said = picture.draw(DEFAULTS | {"stage": 0})
    assert "128.5 GB each, 48.5 over an H100 (80 GB)." in said
    assert picture.ax.get_ylim()[1] > 128.5 and not any("\N{BLACK UP-POINTING TRIANGLE}" in text.get_text()
                                                       for text in picture.totals)
    picture.draw(DEFAULTS | {"stage": 3})
    assert picture.totals[0].get_text() == "128.5 \N{BLACK UP-POINTING TRIANGLE}"
    assert picture.totals[0].get_position()[1] < picture.ax.get_ylim()[1] < 128.5


def test_one_gpu_holds_the_same_under_every_stage_and_sends_nothing(picture):
    _, said = picture.draw(DEFAULTS | {"ranks": 1, "stage": 3})
    assert "ZeRO-3, 1 GPU, Llama 3 8B: 128.5 GB each" in said and "sends 0.00 GB in a step, 0 s" in said
    assert len({text.get_text() for _, text, *_ in picture.rows}) == 1


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_chosen_stage_alone_is_emphasised(picture, stage):
    picture.draw(DEFAULTS | {"stage": stage})
    assert [index for index, bars in enumerate(picture.bars) if bars[0].get_alpha() == 1] == [stage]
    assert [index for index, row in enumerate(picture.rows) if row[0].get_fontweight() == "bold"] == [stage]
    assert picture.mark.get_y() < stage + 0.3 < picture.mark.get_y() + picture.mark.get_height()


@settings(max_examples=25)
@given(stage=st.integers(0, 3), ranks=st.sampled_from([1, 2, 64, 1024]), model=st.sampled_from(list(models.MODELS)),
       card=st.sampled_from(list(cards.CARDS)), network=st.sampled_from(list(CLUSTERS)))
def test_every_setting_of_the_controls_draws_and_fits(picture, **values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, _ = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.85
    assert text_width(picture.settings.get_text()) < 7.85
    page = picture.canvas.fig.bbox
    renderer = picture.canvas._agg.get_renderer()
    assert picture.ax.yaxis.get_tightbbox(renderer).x0 >= 0
    for row in picture.rows:
        places = [text.get_window_extent(renderer) for text in row]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places)) and places[-1].x1 < page.x1
    card = picture.card.get_window_extent(renderer)
    totals = [text.get_window_extent(renderer) for text in picture.totals]
    assert all(left.x1 < right.x0 + 1 for left, right in itertools.pairwise(totals)) and totals[-1].x1 < card.x0
    assert all(box.y1 < picture.ax.bbox.y1 + 5 for box in (card, *totals)) and card.x1 <= picture.ax.bbox.x1


def test_the_longest_sentences_fit():
    """Every model's sentence, on the card of the longest name."""
    for model, card in itertools.product(models.MODELS, ("a100-40", "rtx-a6000")):
        for stage, ranks in itertools.product(range(4), (1, 1024)):
            values = DEFAULTS | {"model": model, "card": card, "stage": stage, "ranks": ranks}
            assert text_width(sharding.finding(values), TITLE_PT, "bold") < 7.85, sharding.finding(values)


def test_a_picture_in_layers_is_the_one_drawn_in_one_go(picture):
    picture.draw(DEFAULTS | {"model": "llama-3-405b", "stage": 3})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick


def test_controls_redraw_and_return(shown, boxes):
    widgets.explore_sharding(model="Qwen3-8B", card="H200", stage=2, ranks=8)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"stage", "GPUs", "model", "card", "network"}
    assert [key for _, key in knobs["model"].options] == list(models.MODELS)
    assert [name for name, _ in knobs["stage"].options] == ["DP", "ZeRO-1", "ZeRO-2", "ZeRO-3"]
    before = image.value, sentence.value
    for name, value, words in (("stage", 3, "ZeRO-3"), ("GPUs", 1024, "1,024 GPUs"), ("card", "t4", "a T4 (16 GB)"),
                               ("network", "network-10", "1.25 GB/s"), ("model", "llama-3-70b", "Llama 3 70B")):
        was = knobs[name].value
        knobs[name].value = value
        assert image.value != before[0] and words in sentence.value
        knobs[name].value = was
        assert (image.value, sentence.value) == before, name
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith("ZeRO-2, 8 GPUs, Qwen3 8B:") and sharding.SEEN in data["text/plain"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (0.00123, "1.2 ms"), (0.133, "133 ms"), (4.725, "4.7 s"),
                                               (1278, "1,278 s")])
def test_durations_are_read_easily(seconds, text):
    assert sharding.duration(seconds) == text


@pytest.mark.parametrize(("values", "said"), [
    ({"stage": 4}, "Invalid stage: 4. Allowed: a whole number from 0 to 3"), ({"stage": "DP"}, "Invalid stage: 'DP'"),
    ({"ranks": 3}, "Invalid ranks: 3. Allowed: a power of two from 1 to 1024"), ({"ranks": 2048}, "Invalid ranks"),
    ({"ranks": True}, "Invalid ranks: True"), ({"model": "llama-3-9b"}, "llama-3-8b"), ({"card": "h10"}, "h100"),
    ({"network": "hgx"}, "hgx-h100"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_sharding(**values)
    assert said in str(error.value)
    assert not shown
