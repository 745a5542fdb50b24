"""8-bit blocks against a search for the nearest value, and the published shape of the map."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from course_lib.precision import dequantise, dynamic_map, quantise

values = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=40)


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_the_published_one(signed):
    levels = dynamic_map(signed)
    assert (levels.shape, levels.dtype) == ((256,), torch.float32)
    assert (levels.diff() > 0).all()
    assert 0.0 in levels
    assert levels[-1] == 1.0
    positive = levels[(levels > 0) & (levels < 1)].double().numpy()
    # Decade by decade, twice as many values in each: 1 to 64 with a sign, 2 to 128 without.
    first = 1 if signed else 2
    decade = np.floor(np.log10(positive)).astype(int)
    assert np.unique(decade, return_counts=True)[1].tolist() == [first * 2**k for k in range(7)]
    for exponent in range(-7, 0):
        inside = positive[decade == exponent]
        gap = 0.9 * 10.0 ** (exponent + 1) / len(inside)
        assert inside == pytest.approx(10.0**exponent + gap * (np.arange(len(inside)) + 0.5), rel=1e-6)
    if signed:
        assert torch.equal(levels[levels < 0], -levels[(levels > 0) & (levels < 1)].flip(0))
    else:
        assert levels[0] == 0.0


def test_ends_of_the_map_by_hand():
    signed, unsigned = dynamic_map(True), dynamic_map(False)
    # The smallest decade, 1e-7 to 1e-6, is halved once without a sign: middles at 3.25e-7 and 7.75e-7.
    assert unsigned[1:3].tolist() == pytest.approx([3.25e-7, 7.75e-7])
    assert signed[signed > 0][0].item() == pytest.approx(5.5e-7)
    assert signed[0].item() == pytest.approx(-(1 - 0.9 / 128))
    assert unsigned[-2].item() == pytest.approx(1 - 0.9 / 256)


@settings(max_examples=150)
@given(x=values, signed=st.booleans(), block=st.integers(1, 9))
def test_every_code_is_the_nearest_value_of_its_block(x, signed, block):
    x = np.abs(np.array(x, dtype=np.float32)) if not signed else np.array(x, dtype=np.float32)
    codes, absmax = quantise(torch.from_numpy(x), signed=signed, block=block)
    levels = dynamic_map(signed).numpy()
    assert codes.shape == x.shape
    assert absmax.shape == (-(-len(x) // block),)
    for index, number in enumerate(x):
        largest = np.abs(x[index // block * block : (index // block + 1) * block]).max()
        assert absmax[index // block] == largest
        share = number / largest if largest else np.float32(0)
        distance = np.abs(levels.astype(np.float64) - float(share))
        # A middle between two values is itself rounded to float32, so a share next to it may go either way.
        assert distance[codes[index]] <= distance.min() + 1e-7 * abs(share)


@settings(max_examples=100)
@given(x=values, signed=st.booleans(), block=st.integers(1, 9))
def test_what_comes_back_is_near(x, signed, block):
    x = torch.tensor(x, dtype=torch.float32)
    x = x if signed else x.abs()
    codes, absmax = quantise(x, signed=signed, block=block)
    back = dequantise(codes, absmax, signed=signed, block=block, shape=x.shape)
    scale = absmax.repeat_interleave(block)[: len(x)]
    share = 0.9 / 128 if signed else 0.9 / 256  # half of the widest gap, and from -1 to the nearest value
    assert ((back - x).abs() <= scale * share * 1.0001).all()
    assert torch.equal(back[x == scale], x[x == scale])  # the largest of a block comes back exactly
    assert torch.equal(back[x == 0], x[x == 0])


@pytest.mark.parametrize("signed", [True, False])
def test_values_of_the_map_come_back_exactly(signed):
    levels = dynamic_map(signed)
    for scale in (1.0, 2.0**-40, 2.0**30):
        codes, absmax = quantise(levels * scale, signed=signed)
        assert codes.tolist() == list(range(256))
        assert torch.equal(dequantise(codes, absmax, signed=signed), levels * scale)


def test_bytes_of_a_matrix():
    x = torch.zeros(33, 70)
    codes, absmax = quantise(x, signed=True)
    assert codes.untyped_storage().nbytes() == 33 * 70
    assert absmax.untyped_storage().nbytes() == 4 * 10  # 2310 elements in blocks of 256
    assert torch.equal(dequantise(codes, absmax, signed=True, shape=(33, 70)), x)


def test_a_block_of_its_own_keeps_an_outlier_from_the_others():
    x = torch.full((512,), 1e-3)
    x[0] = 1e6
    apart = dequantise(*quantise(x, signed=False), signed=False)
    together = dequantise(*quantise(x, signed=False, block=512), signed=False, block=512)
    assert torch.equal(apart[256:], x[256:])
    assert together[256:].unique().tolist() == [0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_what_cannot_be_stored_turns_its_block_to_nan_and_no_other(bad):
    x = torch.ones(6)
    x[4] = bad
    back = dequantise(*quantise(x, signed=False, block=3), signed=False, block=3)
    assert back[:3].tolist() == [1.0] * 3
    assert back[3:].isnan().any()
    assert not back[3:].isfinite().any()


def test_other_dtypes_are_computed_in_float32_and_strides_do_not_matter():
    x = torch.linspace(-3, 3, 24).reshape(4, 6)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        rounded = x.to(dtype)
        for mine, theirs in zip(quantise(rounded, signed=True), quantise(rounded.float(), signed=True), strict=True):
            assert torch.equal(mine, theirs)
    for mine, theirs in zip(quantise(x.T, signed=True), quantise(x.T.contiguous(), signed=True), strict=True):
        assert torch.equal(mine, theirs)


def test_nothing_that_comes_back_shares_memory():
    codes, absmax = quantise(torch.ones(256), signed=True)
    dequantise(codes, absmax, signed=True).zero_()
    dynamic_map(True).zero_()
    assert dequantise(codes, absmax, signed=True).tolist() == [1.0] * 256


def test_what_is_refused():
    codes, absmax = quantise(torch.ones(300), signed=True)
    with pytest.raises(TypeError, match="a floating tensor"):
        quantise(torch.ones(3, dtype=torch.int32), signed=True)
    with pytest.raises(TypeError, match="True or False"):
        quantise(torch.ones(3), signed=1)
    for block, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="Invalid block"):
            quantise(torch.ones(3), signed=True, block=block)
        with pytest.raises(error, match="Invalid block"):
            dequantise(codes, absmax, signed=True, block=block)
    with pytest.raises(ValueError, match="another block size"):
        dequantise(codes, absmax, signed=True, block=128)
    with pytest.raises(ValueError, match="Invalid shape"):
        dequantise(codes, absmax, signed=True, shape=(3, 99))
    with pytest.raises(TypeError, match="torch.uint8"):
        dequantise(codes.int(), absmax, signed=True)
    with pytest.raises(TypeError, match="torch.float32"):
        dequantise(codes, absmax.double(), signed=True)
