"""Averages against torch.optim.swa_utils, and against the weighted sums that define them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_lib.averaging import EMA, SWA, TailAverage

MAKERS = {
    "ema": lambda params: EMA(params, 0.9),
    "ema without correction": lambda params: EMA(params, 0.9, bias_correction=False),
    "swa": SWA,
    "tail": lambda params: TailAverage(params, 3),
}


def walk(steps: int = 12, seed: int = 0, dtype=torch.float64):
    """Parameters of several shapes, one not contiguous, and the values that they take one after the other."""
    rng = np.random.default_rng(seed)
    params = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in ((), (0,), (3,), (2, 5))]
    params.append(nn.Parameter(torch.zeros(4, 3, dtype=dtype).t()))
    path = [[rng.standard_normal(tuple(param.shape)) for param in params] for _ in range(steps)]
    return params, path


@torch.no_grad()
def put(params, values) -> None:
    for param, value in zip(params, values, strict=True):
        param.copy_(torch.as_tensor(value))


def follow(average, params, path) -> None:
    for values in path:
        put(params, values)
        average.update()


def weighted(path, weights) -> list[np.ndarray]:
    return [
        sum(weight * np.asarray(step[i]) for weight, step in zip(weights, path, strict=True))
        for i in range(len(path[0]))
    ]


def assert_equal(got, expected, rtol=1e-13) -> None:
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), np.asarray(other), rtol=rtol, atol=1e-14)


def test_ema_is_the_weighted_mean_of_what_it_saw():
    params, path = walk()
    average = EMA(params, 0.8)
    for t in range(1, len(path) + 1):
        follow(average, params, path[t - 1 : t])
        weights = np.array([0.8 ** (t - i) for i in range(1, t + 1)])
        assert_equal(average.averaged(), weighted(path[:t], weights / weights.sum()))


def test_ema_without_correction_keeps_the_first_value():
    params, path = walk()
    average = EMA(params, 0.8, bias_correction=False)
    follow(average, params, path)
    weights = [0.8**11] + [0.2 * 0.8 ** (12 - i) for i in range(2, 13)]
    assert sum(weights) == pytest.approx(1.0)
    assert_equal(average.averaged(), weighted(path, weights))


def test_swa_and_the_tail_are_plain_means():
    params, path = walk()
    swa, tail = SWA(params), TailAverage(params, 9)
    for values in path:
        put(params, values)
        swa.update()
        tail.update()
    assert_equal(swa.averaged(), [np.mean([step[i] for step in path], axis=0) for i in range(5)])
    assert_equal(tail.averaged(), [np.mean([step[i] for step in path[9:]], axis=0) for i in range(5)])


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_equal_to_torch(kind):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    decay = 0.95
    other = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if kind == "ema" else AveragedModel(model)
    params = list(model.parameters())
    mine = EMA(params, decay, bias_correction=False) if kind == "ema" else SWA(params)
    rng = np.random.default_rng(1)
    for _ in range(60):
        put(params, [rng.standard_normal(tuple(param.shape)) for param in params])
        mine.update()
        other.update_parameters(model)
    assert_equal(mine.averaged(), [param.detach() for param in other.module.parameters()], rtol=1e-12)


@given(decay=st.floats(0, 0.9999), count=st.integers(1, 30), value=st.floats(-1e3, 1e3))
def test_the_average_of_one_value_is_that_value(decay, count, value):
    param = nn.Parameter(torch.full((2,), value, dtype=torch.float64))
    averages = [EMA([param], decay), EMA([param], decay, bias_correction=False), SWA([param]), TailAverage([param], 0)]
    for average in averages:
        for _ in range(count):
            average.update()
        np.testing.assert_allclose(average.averaged()[0].numpy(), value, rtol=1e-9, atol=1e-12)


def test_without_correction_the_start_is_remembered_for_long():
    """The reason for the correction: after 1 / (1 - decay) steps the first value still has more than a third."""
    param = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    corrected, plain = EMA([param], 0.99), EMA([param], 0.99, bias_correction=False)
    for average in (corrected, plain):
        average.update()
    put([param], [[0.0]])
    for _ in range(99):
        corrected.update()
        plain.update()
    assert plain.averaged()[0].item() == pytest.approx(0.99**99) and 0.99**99 > 0.36
    assert corrected.averaged()[0].item() == pytest.approx(0.01 * 0.99**99 / (1 - 0.99**100)) and 0.99**99 < 0.38


@pytest.mark.parametrize("name", MAKERS)
def test_applied_swaps_the_weights_and_puts_them_back(name):
    params, path = walk(6)
    average = MAKERS[name](params)
    follow(average, params, path)
    addresses = [param.data_ptr() for param in params]
    expected = average.averaged()
    with average.applied():
        assert all(torch.equal(param, value) for param, value in zip(params, expected, strict=True))
        put(params, path[0])  # lost, as it should be
    assert_equal(params, path[-1], rtol=0)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert_equal(params, path[-1], rtol=0)
    assert [param.data_ptr() for param in params] == addresses
    assert average.updates == 6


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_average_is_the_same_to_the_bit(name, tmp_path):
    params, path = walk(11, dtype=torch.float32)
    straight = MAKERS[name](params)
    follow(straight, params, path)
    first = MAKERS[name](params)
    follow(first, params, path[:5])
    torch.save(first.state_dict(), tmp_path / "average.pt")
    follow(first, params, path[5:])  # must not change what was saved
    second = MAKERS[name](params)
    second.load_state_dict(torch.load(tmp_path / "average.pt"))
    follow(second, params, path[5:])
    assert all(torch.equal(a, b) for a, b in zip(second.averaged(), straight.averaged(), strict=True))


def test_sixteen_bit_weights_are_averaged_in_float32():
    param = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    average = EMA([param], 0.999)
    put([param], [torch.full((3,), 1.0)])
    for _ in range(3000):
        average.update()
    put([param], [torch.full((3,), 2.0)])
    for _ in range(1000):
        average.update()
    kept = 0.999**1000 * (1 - 0.999**3000) / (1 - 0.999**4000)  # the weight of the ones
    got = average.averaged()[0]
    assert got.dtype == torch.bfloat16
    assert got.float().sub(2 - kept).abs().max() < 0.005  # half of bfloat16's spacing there, 2^-7, and some rounding
    # In bfloat16 the steps of at most 0.001 would all be lost beside a value near 1.
    lost = torch.ones(1, dtype=torch.bfloat16)
    assert torch.equal(lost * 0.999 + torch.tensor([2.0], dtype=torch.bfloat16) * 0.001, lost)


def test_nothing_is_tracked_by_autograd_and_nothing_is_changed():
    params, path = walk(4)
    average = EMA(params, 0.5)
    follow(average, params, path)
    assert all(not value.requires_grad for value in average.averaged())
    assert all(param.requires_grad and param.grad is None for param in params)
    average.averaged()[2].fill_(math.nan)
    assert all(torch.isfinite(value).all() for value in average.averaged())
    assert_equal(params, path[-1], rtol=0)


def test_an_average_before_there_is_one():
    params, _ = walk(1)
    for name, make in MAKERS.items():
        average = make(params)
        for ask in (average.averaged, lambda average=average: average.applied().__enter__()):
            with pytest.raises(RuntimeError, match="There is no average yet"):
                ask()
        assert average.updates == 0, name
    tail = TailAverage(params, 2)
    tail.update()
    tail.update()
    with pytest.raises(RuntimeError, match="2 updates, of which the first 2 are left out"):
        tail.averaged()
    tail.update()
    assert len(tail.averaged()) == len(params)


@pytest.mark.parametrize("bad", [1.0, -0.1, math.nan, math.inf, True, "0.9", None])
def test_a_decay_out_of_range(bad):
    with pytest.raises((TypeError, ValueError), match=r"Invalid decay: .*Allowed: .*0 <= decay < 1"):
        EMA([torch.zeros(1)], bad)


@pytest.mark.parametrize("bad", [-1, 1.5, True, "2", None])
def test_a_start_out_of_range(bad):
    with pytest.raises((TypeError, ValueError), match="Allowed: a whole number of updates >= 0"):
        TailAverage([torch.zeros(1)], bad)


def test_parameters_that_cannot_be_averaged():
    with pytest.raises(TypeError, match="a single tensor"):
        SWA(torch.zeros(3))
    with pytest.raises(ValueError, match="there is none"):
        SWA([])
    with pytest.raises(TypeError, match=r"torch\.int64"):
        SWA([torch.zeros(3, dtype=torch.int64)])
    with pytest.raises(TypeError, match="list"):
        SWA([[1.0]])
    with pytest.raises(TypeError, match="True or False"):
        EMA([torch.zeros(1)], 0.9, bias_correction=1)
    average = SWA([torch.zeros(3)])
    with pytest.raises(ValueError, match=r"shapes \[\(2,\)\]; the parameters have \[\(3,\)\]"):
        average.load_state_dict({"updates": 1, "averages": [torch.zeros(2)]})
