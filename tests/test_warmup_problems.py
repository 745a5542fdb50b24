"""What notebook 07 shows warmup on: descent without noise against closed forms, the encoder against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import schedules
from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.full_batch import descend
from course_lib.problems.norm_order import encoder, increment_loss, last_gradient


def bowl(point):
    return (torch.tensor([1.0, 10.0], dtype=torch.float64) * point.square()).sum() / 2


ONES = torch.ones(2, dtype=torch.float64)


def test_descent_on_a_bowl_is_the_closed_form():
    run = descend(bowl, ONES, 0.15, 8, schedule=schedules.linear_warmup(4), look=4)
    factors = np.cumprod([1 - 0.15 * min(1, (t + 1) / 4) * np.array([1.0, 10.0]) for t in range(8)], axis=0)
    expected = (np.array([1.0, 10.0]) * np.vstack([[1, 1], factors]) ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(run.losses, expected, rtol=1e-12)
    assert run.seen_at.tolist() == [0, 4] and run.survived
    np.testing.assert_allclose(run.sharpness, 10.0, rtol=1e-6)
    assert (ONES == 1).all()


@pytest.mark.parametrize(("lr", "survived"), [(0.199, True), (0.201, False)])
def test_descent_blows_up_beyond_two_over_the_curvature(lr, survived):
    run = descend(bowl, ONES, lr, 1000, bound=100.0)
    assert run.survived == survived and (len(run.losses) == 1001) == survived
    assert survived or run.losses[-2] < 100 <= run.losses[-1]


def test_nan_ends_a_descent():
    run = descend(lambda p: (p.sqrt()).sum(), ONES, 10.0, 5)
    assert not run.survived and math.isnan(run.losses[-1]) and len(run.losses) == 2


@pytest.mark.parametrize(("values", "said"), [
    ({"steps": 0}, "Invalid steps: 0"), ({"steps": True}, "Invalid steps: True"), ({"look": -1}, "Invalid look: -1"),
    ({"lr": math.nan}, "Invalid lr: nan"), ({"lr": -1.0}, "Invalid lr: -1.0"),
])  # fmt: skip
def test_a_wrong_argument_of_descent_is_named(values, said):
    with pytest.raises(ValueError) as error:
        descend(bowl, ONES, **({"lr": 0.1, "steps": 5} | values))
    assert said in str(error.value) and "Allowed" in str(error.value)


@pytest.mark.parametrize("seed", [0, 1])
def test_warmup_lets_descent_survive_a_peak_that_blows_up_without(seed):
    loss, start = tanh_fit(seed=seed)
    start = 1.5 * start
    peak = 3 * 2 / descend(loss, start, 0.0, 1, look=1).sharpness[0]
    assert not descend(loss, start, peak, 500).survived
    warm = descend(loss, start, peak, 500, schedule=schedules.linear_warmup(400), look=50)
    assert warm.survived and warm.losses[-1] < 0.5 and warm.sharpness[-1] < 0.8 * warm.sharpness[0]


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_encoder_is_torchs_own(norm_first):
    net = encoder(norm_first, 3, width=8, vocabulary=5)
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 4, 32, dropout=0.0, batch_first=True, norm_first=norm_first), 3,
        norm=nn.LayerNorm(8) if norm_first else None, enable_nested_tensor=False,
    )
    for index in range(3):
        theirs.layers[index].load_state_dict(net[index + 1].state_dict())
    tokens = torch.tensor([[0, 1, 2], [4, 3, 3]])
    torch.testing.assert_close(net(tokens), net[-1](theirs(net[0](tokens))))
    assert net(tokens).shape == (2, 3, 5)


def test_a_seed_means_the_same_weights_whatever_torch_has_drawn():
    first = encoder(True, 2, seed=3).state_dict()
    torch.manual_seed(99)
    for name, value in encoder(True, 2, seed=3).state_dict().items():
        assert torch.equal(value, first[name]), name
    assert not torch.equal(encoder(True, 2, seed=4)[0].weight, first["0.weight"])


@pytest.mark.parametrize(("values", "said"), [
    ((True, 0, 32), "Invalid layers: 0"), ((True, True, 32), "Invalid layers: True"),
    ((False, 1, 30), "a multiple of 4"),
])  # fmt: skip
def test_a_wrong_size_is_named(values, said):
    with pytest.raises(ValueError, match=said):
        encoder(*values)


def test_gradients_at_the_output_fall_with_depth_only_if_the_norm_comes_first():
    before, after = (np.mean([[last_gradient(first, n, seed) for n in (2, 12)] for seed in range(4)], axis=0)
                     for first in (True, False))
    assert before[1] < 0.6 * before[0] and after[1] > 0.8 * after[0]


def test_post_norm_needs_the_warmup_that_pre_norm_can_do_without():
    cold, warm = increment_loss(False, 1e-2, 0), increment_loss(False, 1e-2, 30)
    assert cold > 3 and warm < 0.5  # chance is 3.47
