"""explore_loss_scaling: the rule against torch's GradScaler, the losses against float16 itself, and what it says."""

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
from course_lib.widgets import loss_scaling

shown, boxes = test_widgets.shown, test_widgets.boxes
DEFAULTS = {"init_scale": 65536.0, "growth_interval": 100, "backoff": 0.5, "size": 1e-6}


def of_torch(init_scale: float, growth_interval: int, backoff: float, overflowed) -> tuple[np.ndarray, np.ndarray]:
    """Scales and skipped steps of torch's scaler on the CPU; ``overflowed(step, scale)`` says which overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=growth_interval, backoff_factor=backoff)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scales, skipped = [], []
    for step in range(loss_scaling.STEPS):
        scaler.scale(torch.zeros(()))  # the scaler makes its tensors at the first call
        scales.append(scaler.get_scale())
        weight.grad = torch.tensor([math.inf if overflowed(step, scales[-1]) else 1.0])
        weight.data.zero_()  # so that even a gradient of 1 / scale moves it
        scaler.step(optimizer)
        scaler.update()
        skipped.append(weight.item() == 0)
    return np.array(scales), np.array(skipped)


@pytest.mark.parametrize(("init_scale", "growth_interval", "backoff", "size"), [
    (65536.0, 100, 0.5, 1e-6), (1.0, 5, 0.25, 1e-8), (2.0**32, 2000, 0.5, 1e-2), (65536.0, 1, 0.5, 1e-6),
])
def test_scale_and_skipped_steps_are_those_of_torch(init_scale, growth_interval, backoff, size):
    run = loss_scaling.simulate(init_scale, growth_interval, backoff, size)
    _, largest = loss_scaling.magnitudes()

    def overflowed(step: int, scale: float) -> bool:
        # torch multiplies in float32 and casts: infinity in float16 is what its check sees.
        return bool(torch.tensor(scale * size * 2.0 ** largest[step], dtype=torch.float64).half().isinf())

    scales, skipped = of_torch(init_scale, growth_interval, backoff, overflowed)
    np.testing.assert_array_equal(run.scale, scales)
    np.testing.assert_array_equal(run.skipped, skipped)
    assert run.skipped.any() and not run.skipped.all()


@pytest.mark.parametrize("scale", [1.0, 256.0, 65536.0])
def test_the_share_lost_is_what_float16_rounds_to_zero(scale):
    rng = np.random.default_rng(0)
    median = np.array([-30.0, -25.0, -20.0])
    entries = 2.0 ** (median[:, None] + loss_scaling.SPREAD * rng.normal(size=(3, 200_000)))
    zeros = (torch.from_numpy(entries * scale).half() == 0).double().mean(dim=1).numpy()
    np.testing.assert_allclose(loss_scaling.share_lost(scale, median), zeros, atol=0.004)  # 3.5 standard errors


def test_the_largest_entry_is_distributed_as_the_largest_of_many():
    median, largest = loss_scaling.magnitudes()
    standard = (largest - median) / loss_scaling.SPREAD
    # P(largest <= x) = F(x)^n at every x: compare three quantiles with those of the 2,000 draws.
    for share in (0.1, 0.5, 0.9):
        x = np.quantile(standard, share)
        tail = 0.5 * math.erfc(x / math.sqrt(2))
        assert math.exp(-tail * loss_scaling.ENTRIES) == pytest.approx(share, abs=0.03)


def test_gradients_fall_a_hundredfold_and_have_ten_spikes():
    median, _ = loss_scaling.magnitudes()
    steps = np.arange(loss_scaling.STEPS)
    slope, start = np.polyfit(steps, median, 1)
    assert slope * loss_scaling.STEPS == pytest.approx(-math.log2(100), abs=1)
    assert (median - start - slope * steps > 4).sum() == 10
    assert median[0] == 0


def test_within_the_band_nothing_overflows_and_little_is_lost():
    picture = loss_scaling._Picture()
    picture.draw(DEFAULTS)
    band, _ = picture.laid
    edges = band.get_paths()[0].vertices
    median, largest = (power + math.log2(1e-6) for power in loss_scaling.magnitudes())
    for step in range(0, loss_scaling.STEPS, 97):
        here = edges[edges[:, 0] == step + 1][:, 1]
        assert 2.0 ** (here.max() + largest[step]) == pytest.approx(65520)
        assert loss_scaling.share_lost(2.0 ** here.min(), median[step]) == pytest.approx(1e-3, rel=1e-6)


@pytest.fixture(scope="module")
def picture() -> loss_scaling._Picture:
    return loss_scaling._Picture()


@settings(max_examples=15)
@given(power=st.sampled_from([0, 7, 16, 32]), interval=st.sampled_from([1, 5, 100, 2000]),
       backoff=st.sampled_from([0.05, 0.1, 0.5, 0.95]), size=st.sampled_from([1e-8, 1e-6, 1e-4, 1e-2]))
def test_every_setting_fits_the_picture_and_the_sentence_says_what_it_shows(picture, power, interval, backoff, size):
    values = {"init_scale": 2.0**power, "growth_interval": interval, "backoff": backoff, "size": size}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(picture.settings.get_text()) < 7.8
    run = loss_scaling.simulate(**values)
    assert int(said.split(" of 2,000")[0].replace(",", "")) == run.skipped.sum() == len(picture.skips.get_xdata())
    lost, unscaled = re.search(r"steps skipped; (.*) of the entries lost, unscaled (.*?)\. With", said).groups()
    without = loss_scaling.share_lost(1.0, loss_scaling.magnitudes()[0] + math.log2(size)).mean()
    for text, share in ((lost, run.lost[~run.skipped].mean()), (unscaled, without)):
        assert (share < 1e-4) == (text == "under 0.01%")
        if share >= 1e-4:
            assert float(text.rstrip("%")) == pytest.approx(100 * share, rel=0.06)
    low, high = picture.top.get_ylim()
    assert low <= np.log2(run.scale).min() and np.log2(run.scale).max() <= high


def test_a_picture_in_layers_is_the_one_drawn_in_one_go():
    picture = loss_scaling._Picture()
    picture.draw(DEFAULTS | {"size": 1e-3})
    quick, _ = picture.draw(DEFAULTS)
    assert (abs(test_widgets.pixels(quick) - test_widgets.whole(picture)).max(axis=2) > 8).mean() < 2e-3
    assert picture.draw(DEFAULTS)[0] == quick
    assert min(picture.top.bbox.height, 2 * picture.bottom.bbox.height) > 0.3 * picture.canvas.fig.bbox.height


def test_sliders_redraw_and_return(shown, boxes):
    widgets.explore_loss_scaling(size=3e-7)
    knobs, image, sentence = test_widgets.parts(boxes[0])
    assert set(knobs) == {"init_scale", "growth_interval", "backoff_factor", "median gradient"}
    assert knobs["init_scale"].options[16] == ("2^16", 65536.0)
    before = image.value, sentence.value
    knobs["growth_interval"].value = 5
    assert image.value != before[0] and "growth_interval 5," in sentence.value
    knobs["growth_interval"].value = 100
    assert (image.value, sentence.value) == before
    (data, metadata), _ = shown
    assert len(data["image/png"]) < 100_000 and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"].startswith(sentence.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"init_scale": 1000.0}, "Allowed: a power of two from 1 to 2^32"),
    ({"init_scale": 0.5}, "Invalid init_scale: 0.5"), ({"init_scale": math.nan}, "Invalid init_scale: nan"),
    ({"growth_interval": 0}, "1 <= growth_interval <= 2000"),
    ({"growth_interval": 2.5}, "a whole number of steps"), ({"backoff": 1.0}, "0.05 <= backoff <= 0.95"),
    ({"backoff": math.nan}, "Invalid backoff: nan"), ({"size": 0.0}, "1e-08 <= size <= 0.01"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, values, said):
    with pytest.raises(ValueError) as error:
        widgets.explore_loss_scaling(**values)
    assert said in str(error.value)
    assert not shown
