"""8-bit blocks against a search for the nearest value, and the published shape of the map."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from course_lib.precision import dequantise, dynamic_map, linear_map, quantise, relative_error

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


def test_the_linear_map_has_equal_gaps_between_its_ends():
    for signed, gap in ((True, 2 / 255), (False, 1 / 255)):
        levels = linear_map(signed)
        assert (levels.shape, levels.dtype) == ((256,), torch.float32)
        assert levels.diff().tolist() == pytest.approx([gap] * 255, rel=1e-4)
        assert (levels[0].item(), levels[-1].item()) == (-1.0 if signed else 0.0, 1.0)
    assert 0.0 not in linear_map(True)


@settings(max_examples=100)
@given(x=values, signed=st.booleans(), block=st.integers(1, 9))
def test_another_table_is_searched_as_well(x, signed, block):
    x = torch.tensor(x, dtype=torch.float32)
    x = x if signed else x.abs()
    table = linear_map(signed)
    codes, absmax = quantise(x, signed=signed, block=block, table=table)
    back = dequantise(codes, absmax, signed=signed, block=block, table=table)
    scale = absmax.repeat_interleave(block)[: len(x)]
    half = (1 if signed else 0.5) / 255
    assert ((back - x).abs() <= scale * half * 1.001).all()
    same = quantise(x, signed=signed, block=block, table=dynamic_map(signed))
    assert all(torch.equal(one, other) for one, other in zip(same, quantise(x, signed=signed, block=block), strict=True))


def test_relative_errors_nearly_double_with_every_decade_below_the_largest():
    shares = torch.logspace(-8, 0, 40_001, dtype=torch.float64).float()
    for signed, first in ((False, 128), (True, 64)):
        error = relative_error(shares, signed=signed, block=shares.numel())
        worst = [error[(shares >= 1.001 * 10.0 ** -(k + 1)) & (shares <= 10.0**-k)].max().item() for k in range(4)]
        # A decade of n values is off most at the edge between its first two: half a gap of 0.9 / n at 0.1 + 0.9 / n.
        assert worst == pytest.approx([4.5 / (first / 2**k + 9) for k in range(4)], rel=0.05)
    linear = relative_error(shares, signed=False, block=shares.numel(), table=linear_map(False))
    assert linear[shares < 0.5 / 255].unique().tolist() == [1.0], "all below is lost"
    assert (relative_error(shares, signed=False, block=shares.numel())[shares > 2e-7] < 0.9).all()


def test_relative_errors_keep_the_shape_and_count_an_exact_zero_as_none():
    x = torch.tensor([[0.0, 1.0, -1.0], [0.5, 2.0, 1e-9]], dtype=torch.float64)
    error = relative_error(x, signed=True, block=3)
    assert (error.shape, error.dtype) == ((2, 3), torch.float32)
    # -1 comes back as -0.993, and half of a scale of 2 as the value next to 1/4 in gaps of 0.9 / 64.
    assert error[0].tolist() == pytest.approx([0.0, 0.0, 0.9 / 128], rel=1e-4)
    step = 0.9 / 64
    nearest = 0.1 + step * (round((0.25 - 0.1) / step - 0.5) + 0.5)
    assert error[1].tolist() == pytest.approx([abs(nearest - 0.25) / 0.25, 0.0, 1.0], rel=1e-3)
    assert relative_error(torch.zeros(2, 0), signed=False).shape == (2, 0)
    assert relative_error(torch.tensor([math.nan, 1.0]), signed=False).isnan().all()


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
    with pytest.raises(TypeError, match="True or False"):
        linear_map(1)
    for table, error in ((dynamic_map(True).double(), TypeError), ([0.0] * 256, TypeError), (torch.ones(255), ValueError)):
        for function in (quantise, relative_error):
            with pytest.raises(error, match="Invalid table"):
                function(torch.ones(3), signed=True, table=table)
        with pytest.raises(error, match="Invalid table"):
            dequantise(codes, absmax, signed=True, table=table)
