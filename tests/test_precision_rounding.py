"""Stochastic rounding and Kahan summation: exact where they can be, right on average where not."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from course_lib.precision import kahan_add_, neighbours, stochastic_round

ALL_NOISE = torch.arange(65536, dtype=torch.int32)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32).filter(lambda x: abs(x) < 3.38e38)


@settings(max_examples=60)
@given(finite)
def test_the_mean_over_all_noise_is_the_number_itself(x):
    rounded = stochastic_round(torch.full((65536,), x), noise=ALL_NOISE).double()
    # Every term is a multiple of float32's smallest number, and the sum fits float64: both means are exact.
    assert math.fsum(rounded.tolist()) == x * 65536
    assert len(rounded.unique()) <= 2


@settings(max_examples=60)
@given(finite)
def test_never_past_the_neighbours(x):
    rounded = set(stochastic_round(torch.full((65536,), x), noise=ALL_NOISE).tolist())
    below, above = neighbours(x, "bf16")
    exact = torch.tensor(x).bfloat16().item() == x
    assert rounded == ({x} if exact else {below, above})


@settings(max_examples=60)
@given(finite)
def test_noise_of_half_a_gap_less_a_bit_rounds_to_the_nearer(x):
    low_bits = torch.tensor(x).view(torch.int32).item() & 0xFFFF
    if low_bits != 0x8000:  # no tie
        noise = torch.tensor(0x8000, dtype=torch.int32)
        assert stochastic_round(torch.tensor(x), noise=noise).item() == torch.tensor(x).bfloat16().item()


@pytest.mark.parametrize("x", [1.001, -1.001, 0.3, -7e-5, 1e-40, 12345.678, 1.0 + 2**-9])
def test_drawn_noise_is_right_on_average(x):
    count = 200_000
    generator = torch.Generator().manual_seed(0)
    rounded = stochastic_round(torch.full((count,), x), generator).double()
    x = torch.tensor(x).item()  # as float32 has it
    below, above = neighbours(x, "bf16")
    deviation = math.sqrt((x - below) * (above - x) / count)  # of a mean of such draws
    assert abs(rounded.mean().item() - x) < 5 * deviation
    assert set(rounded.tolist()) == {below, above}


def test_a_thousand_small_steps_arrive_on_average():
    weights = torch.ones(20_000, dtype=torch.bfloat16)
    nearest = weights.clone()
    generator = torch.Generator().manual_seed(1)
    for _ in range(1000):
        weights = stochastic_round(weights.float() - 1e-3, generator)
        nearest = (nearest.float() - 1e-3).bfloat16()
    assert torch.equal(nearest, torch.ones_like(nearest))  # every step was less than half a gap
    assert abs(weights.double().mean().item()) < 5 * weights.double().std().item() / math.sqrt(20_000)


def test_every_bf16_number_inf_and_nan_stay():
    numbers = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    for noise in (0, 1, 32768, 65535):
        rounded = stochastic_round(numbers.float(), noise=torch.full((65536,), noise, dtype=torch.int32))
        assert torch.equal(rounded.isnan(), numbers.isnan())
        kept = ~numbers.isnan()
        assert torch.equal(rounded[kept].view(torch.int16), numbers[kept].view(torch.int16))


def test_nan_of_every_kind_stays_nan():
    # Patterns whose upper half alone reads as infinity, and those that a carry would make zero.
    patterns = torch.tensor([0x7F800001, 0x7FFFFFFF, 0x7F80FFFF, -1, -0x800000 + 1], dtype=torch.int32)
    for noise in (0, 65535):
        rounded = stochastic_round(patterns.view(torch.float32), noise=torch.full((5,), noise, dtype=torch.int32))
        assert rounded.isnan().all()


def test_past_the_largest_number_lies_infinity():
    largest = torch.tensor([torch.finfo(torch.float32).max, -torch.finfo(torch.float32).max])
    bound = torch.finfo(torch.bfloat16).max
    assert stochastic_round(largest, noise=torch.zeros(2, dtype=torch.int32)).tolist() == [bound, -bound]
    assert stochastic_round(largest, noise=torch.full((2,), 65535, dtype=torch.int32)).tolist() == [math.inf, -math.inf]


def test_shape_and_strides_and_the_argument_are_kept():
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    before = x.clone()
    noise = torch.arange(12, dtype=torch.int32).reshape(4, 3) * 5000
    rounded = stochastic_round(x.T, noise=noise)
    assert (rounded.shape, rounded.dtype) == ((4, 3), torch.bfloat16)
    assert torch.equal(rounded.flatten(), stochastic_round(x.T.contiguous().flatten(), noise=noise.flatten()))
    assert torch.equal(x, before)
    assert stochastic_round(torch.zeros(0, 2)).shape == (0, 2)
    assert stochastic_round(torch.tensor(1.0, requires_grad=True)).item() == 1.0


def test_a_generator_repeats_and_leaves_torchs_own_alone():
    x, state = torch.full((1000,), 0.3), torch.get_rng_state()
    first = stochastic_round(x, torch.Generator().manual_seed(5))
    assert torch.equal(first, stochastic_round(x, torch.Generator().manual_seed(5)))
    assert torch.equal(state, torch.get_rng_state())


def test_what_stochastic_round_refuses():
    x = torch.ones(3)
    for bad in (1.0, x.double(), x.bfloat16()):
        with pytest.raises(TypeError, match="a float32 tensor"):
            stochastic_round(bad)
    with pytest.raises(TypeError, match="an int32 tensor"):
        stochastic_round(x, noise=torch.zeros(3))
    with pytest.raises(ValueError, match="that of x"):
        stochastic_round(x, noise=torch.zeros(2, dtype=torch.int32))
    for bad in (-1, 65536):
        with pytest.raises(ValueError, match="0 to 65535"):
            stochastic_round(x, noise=torch.full((3,), bad, dtype=torch.int32))
    with pytest.raises(ValueError, match="one of them"):
        stochastic_round(x, torch.Generator(), noise=torch.zeros(3, dtype=torch.int32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("update_dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_small_steps_arrive_with_kahan(dtype, update_dtype):
    weight, compensation = torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype)
    update = torch.full((3,), -1e-3, dtype=update_dtype)
    for _ in range(1000):
        kahan_add_(weight, compensation, update)
    exact = 1.0 + 1000 * update[0].item()
    assert (weight.double() - exact).abs().max() < 4e-3


def test_kahan_equals_the_textbook_in_float32():
    # NumPy rounds float32 after every operation, as the steps of the docstring ask for.
    rng = np.random.default_rng(0)
    start = rng.standard_normal(50).astype(np.float32)
    updates = (rng.standard_normal((500, 50)) * 1e-6).astype(np.float32)
    weight, compensation = torch.from_numpy(start.copy()), torch.zeros(50)
    s, c = start.copy(), np.zeros(50, np.float32)
    for update in updates:
        kahan_add_(weight, compensation, torch.from_numpy(update))
        y = c + update
        t = s + y
        c = y - (t - s)
        s = t
    assert np.array_equal(weight.numpy(), s)
    assert np.array_equal(compensation.numpy(), c)
    exact = start.astype(np.float64) + updates.astype(np.float64).sum(axis=0)
    assert np.abs(s - exact).max() <= np.abs(np.spacing(s)).max()
    naive = start.copy()
    for update in updates:
        naive += update
    assert np.abs(naive - exact).max() > 5 * np.abs(s - exact).max()


@settings(max_examples=60)
@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40))
def test_weight_and_compensation_together_miss_little(updates):
    weight, compensation = torch.tensor(64.0, dtype=torch.bfloat16), torch.tensor(0.0, dtype=torch.bfloat16)
    for update in updates:
        kahan_add_(weight, compensation, torch.tensor(update, dtype=torch.float16))
    # Only the sum of compensation and update is rounded: |y| <= 1.5, so by 2^-8 * 1.5 / 2 at most each time.
    error = weight.item() + compensation.item() - 64.0 - math.fsum(updates)
    assert abs(error) <= len(updates) * 2.0**-8


def test_kahan_works_in_place_and_leaves_the_update_alone():
    weight, compensation = torch.ones(2, 3, dtype=torch.bfloat16).T, torch.zeros(3, 2, dtype=torch.bfloat16)
    update = torch.full((3, 2), 1e-3)
    view = weight.T
    for _ in range(10):
        kahan_add_(weight, compensation, update)
    assert view.flatten().tolist() == [1.0078125] * 6  # 1.01 lies between this and 1.015625
    assert torch.equal(update, torch.full((3, 2), 1e-3))
    leaf = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    kahan_add_(leaf, torch.zeros_like(leaf), torch.ones(2))
    assert leaf.tolist() == [2.0, 2.0]


def test_what_kahan_refuses():
    weight = torch.ones(2, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="dtype of weight"):
        kahan_add_(weight, torch.zeros(2), torch.ones(2))
    for arguments in ((weight, weight[:1], weight), (weight, weight, weight[:1])):
        with pytest.raises(ValueError, match="that of weight"):
            kahan_add_(*arguments)
    for arguments in (
        (1.0, weight, weight),
        (weight, weight, 1e-3),
        (weight, weight, torch.ones(2, dtype=torch.int32)),
    ):
        with pytest.raises(TypeError, match="a floating tensor"):
            kahan_add_(*arguments)
