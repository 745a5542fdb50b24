"""LARS and LAMB: against NumPy float64 written from the papers, the package where it agrees, and arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_cases import Closeness, give_gradients, leaf, run

from course_lib.optim import LAMB, LARS, REGISTRY, SGD

SHAPES = ((4, 3), (5, 2), (2, 2, 3))


def start(*, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    rng = np.random.default_rng(3)
    return [torch.as_tensor(rng.normal(size=shape)).to(dtype).requires_grad_() for shape in SHAPES]


def against_the_package(key: str, dtype: torch.dtype, ours: dict, theirs: dict, lr: float) -> None:
    """Equal after every step, over three tensors, with a learning rate that changes and gradients that are missing."""
    pytest.importorskip(REGISTRY[key].package)
    mine, other = start(dtype=dtype), start(dtype=dtype)
    optimizers = REGISTRY[key].make(mine, **ours), REGISTRY[key].production(other, **theirs)
    closeness = Closeness(other)
    for number in range(120):
        give_gradients(np.random.default_rng(number), mine, other, missing=0.2)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = lr * (1 + number % 5)
            optimizer.step()
        closeness.check(mine, other)


# --- LARS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_is_algorithm_1_of_the_paper(momentum, decay):
    """lambda = eta ||w|| / (||g|| + beta ||w||), v <- m v + gamma lambda (g + beta w), w <- w - v, for 60 steps.

    The paper has the learning rate inside v, this class outside: one path, as long as gamma stays.
    """
    rng = np.random.default_rng(0)
    gamma, eta = 0.7, 0.02
    w, v = rng.normal(size=5), np.zeros(5)
    param = torch.tensor(w, requires_grad=True)
    optimizer = LARS([param], gamma, momentum, decay, eta, eps=0.0)
    for _ in range(60):
        g = rng.normal(size=5) * 10.0 ** rng.integers(-3, 4)
        (got,) = run(optimizer, param, [g])
        local = eta * math.sqrt(np.sum(w**2)) / (math.sqrt(np.sum(g**2)) + decay * math.sqrt(np.sum(w**2)))
        v = momentum * v + gamma * local * (g + decay * w)
        w = w - v
        np.testing.assert_allclose(got, w, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hyper", [{}, {"momentum": 0.0}, {"weight_decay": 0.3, "trust_coefficient": 0.05}], ids=str)
def test_lars_on_matrices_is_the_packages(dtype, hyper):
    against_the_package("lars", dtype, {"eps": 0.0} | hyper, hyper, lr=0.1)


def test_the_packages_lars_leaves_vectors_to_plain_momentum():
    """What the docstring says of it; ours scales a vector like any other tensor."""
    optimizer = pytest.importorskip("pytorch_optimizer").LARS
    hyper = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}
    vector, plain, scaled = leaf(1.0, 2.0, 3.0), leaf(1.0, 2.0, 3.0), leaf(1.0, 2.0, 3.0)
    for one, make in ((vector, optimizer), (plain, lambda p, **h: SGD(p, **h | {"weight_decay": 0.0})), (scaled, LARS)):
        run(make([one], **hyper), one, np.random.default_rng(0).normal(size=(20, 3)))
    torch.testing.assert_close(vector, plain, rtol=1e-14, atol=0.0)
    assert (vector - scaled).abs().min() > 0.1


def test_lars_by_hand():
    """||w|| = 5, ||g|| = 10, decay 1: the ratio is 0.3 * 5 / 15 = 0.1, of g + w = (9, 12); lr 2 doubles it."""
    param = leaf(3.0, 4.0)
    (got,) = run(LARS([param], lr=2.0, weight_decay=1.0, trust_coefficient=0.3, eps=0.0), param, [[6.0, 8.0]])
    np.testing.assert_allclose(got, [3.0 - 1.8, 4.0 - 2.4], rtol=1e-15)


def test_eps_of_lars_is_in_the_denominator():
    param = leaf(3.0, 4.0)
    (got,) = run(LARS([param], lr=1.0, trust_coefficient=0.3, eps=5.0), param, [[6.0, 8.0]])
    np.testing.assert_allclose(got, [3.0 - 0.6, 4.0 - 0.8], rtol=1e-15)


@settings(max_examples=40)
@given(st.floats(1e-6, 1e6), st.floats(1e-3, 10.0))
def test_lars_does_not_see_the_size_of_a_gradient(size, lr):
    """Its step, before momentum, is lr * trust_coefficient of the weights' norm, whatever the gradient's."""
    param = leaf(3.0, -4.0)
    (got,) = run(LARS([param], lr=lr, momentum=0.0, eps=0.0), param, [[size * 0.6, size * 0.8]])
    np.testing.assert_allclose(np.linalg.norm(got - [3.0, -4.0]), lr * 0.001 * 5.0, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_lars_takes_momentums_own_step_from_zero_weights(decay):
    """The paper's ratio is 0 there, and such a tensor would never move."""
    param = leaf(0.0, 0.0)
    (got,) = run(LARS([param], lr=0.1, weight_decay=decay), param, [[3.0, -4.0]])
    np.testing.assert_allclose(got, [-0.3, 0.4], rtol=1e-15)


def test_lars_with_a_zero_gradient_only_decays():
    """Then the ratio is trust_coefficient / weight_decay, and the weights shrink by lr * trust_coefficient of them."""
    param, still = leaf(3.0, 4.0), leaf(3.0, 4.0)
    (got,) = run(LARS([param], lr=1.0, weight_decay=0.5, trust_coefficient=0.01, eps=0.0), param, [[0.0, 0.0]])
    np.testing.assert_allclose(got, [2.97, 3.96], rtol=1e-15)
    (got,) = run(LARS([still], lr=1.0, eps=0.0), still, [[0.0, 0.0]])
    assert got.tolist() == [3.0, 4.0], "neither decay nor gradient: 0 / 0 in the ratio"


def test_a_new_learning_rate_of_lars_acts_on_past_gradients_at_once():
    """As in torch's momentum; in the paper the buffer would go on at the old rate."""
    param = leaf(3.0, 4.0)
    optimizer = LARS([param], lr=1.0)
    run(optimizer, param, [[6.0, 8.0]])
    optimizer.param_groups[0]["lr"] = 0.0
    before = param.detach().clone()
    run(optimizer, param, [[6.0, 8.0]])
    assert torch.equal(param, before)


def test_lars_keeps_a_buffer_only_with_momentum():
    param = leaf(3.0, 4.0)
    optimizer = LARS([param], momentum=0.0)
    run(optimizer, param, [[1.0, 1.0]])
    assert set(optimizer.state[param]) == {"step"}
    optimizer.param_groups[0]["momentum"] = 0.9
    run(optimizer, param, [[1.0, 1.0]])
    assert set(optimizer.state[param]) == {"step", "momentum_buffer"}


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_norms_beyond_the_range_of_float16_are_finite(make):
    """600 weights of 4000 have the norm 98,000, and float16 ends at 65,504."""
    param = torch.full((600,), 4000.0, dtype=torch.float16, requires_grad=True)
    optimizer = make([param], lr=1.0 if make is LARS else 0.001, eps=1e-4)
    param.grad = torch.full_like(param, 1.0)
    optimizer.step()
    assert param.isfinite().all() and (param == 3996.0).all()


# --- LAMB -----------------------------------------------------------------------------------------


def lamb_in_numpy(w, grads, lr, betas, eps, decay):
    """Algorithm 2 of the paper, phi the identity; moments written as sums, so that no recursion is shared."""
    (beta1, beta2), path = betas, []
    for t in range(1, len(grads) + 1):
        ages = np.arange(t)[::-1, None]
        m = (1 - beta1) * np.sum(beta1**ages * grads[:t], axis=0) / (1 - beta1**t)
        v = (1 - beta2) * np.sum(beta2**ages * grads[:t] ** 2, axis=0) / (1 - beta2**t)
        r = m / (np.sqrt(v) + eps)
        update = r + decay * w
        norms = math.sqrt(np.sum(w**2)), math.sqrt(np.sum(update**2))
        w = w - lr * (norms[0] / norms[1] if min(norms) > 0 else 1.0) * update
        path.append(w)
    return path


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("size", [0.01, 1.0, 1000.0], ids="weights of {}".format)
def test_lamb_is_algorithm_2_of_the_paper(decay, size):
    """Weight norms above 10 too, which packages cut."""
    rng = np.random.default_rng(1)
    w, grads = size * rng.normal(size=4), rng.normal(size=(60, 4)) * np.linspace(3.0, 0.01, 60)[:, None]
    param = torch.tensor(w, requires_grad=True)
    path = run(LAMB([param], 0.05, (0.8, 0.95), 1e-3, decay), param, grads)
    np.testing.assert_allclose(path, lamb_in_numpy(w, grads, 0.05, (0.8, 0.95), 1e-3, decay), rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lamb_without_decay_and_eps_is_the_packages_though_that_corrects_no_bias(dtype):
    """The correction is one factor for the whole update, and the ratio divides it out. (Weight norms stay below 10.)"""
    hyper = {"eps": 1e-30, "betas": (0.8, 0.95)}
    against_the_package("lamb", dtype, hyper, hyper, lr=0.004)


def test_with_decay_the_missing_bias_correction_shows():
    """At the first step m / sqrt(v) is 0.1 / sqrt(0.001) = 3.2 times too large, and the decay's share too small."""
    pytest.importorskip("pytorch_optimizer")
    w, sign = np.array([3.0, 4.0]), np.array([1.0, -1.0])
    for factory, factor in ((REGISTRY["lamb"].make, 1.0), (REGISTRY["lamb"].production, 0.1 / math.sqrt(0.001))):
        param = leaf(*w)
        (got,) = run(factory([param], lr=0.1, weight_decay=1.0, eps=1e-12), param, [2.0 * sign])
        update = factor * sign + w
        np.testing.assert_allclose(got, w - 0.5 * update / np.linalg.norm(update), rtol=1e-9)


def test_the_package_cuts_weight_norms_at_10():
    pytest.importorskip("pytorch_optimizer")
    for factory, length in ((REGISTRY["lamb"].make, 50.0), (REGISTRY["lamb"].production, 10.0)):
        param = leaf(30.0, 40.0)
        (got,) = run(factory([param], lr=0.1), param, [[1.0, 1.0]])
        np.testing.assert_allclose(np.linalg.norm(got - [30.0, 40.0]), 0.1 * length, rtol=1e-5)


def test_lamb_by_hand():
    """The first update is the sign of g, (1, -1), of norm sqrt(2); ||w|| = 5 and lr 0.1: the step is 0.5 long."""
    param = leaf(3.0, 4.0)
    (got,) = run(LAMB([param], lr=0.1, eps=0.0), param, [[7.0, -0.01]])
    np.testing.assert_allclose(got, [3.0 - 0.5 / math.sqrt(2), 4.0 + 0.5 / math.sqrt(2)], rtol=1e-14)


@settings(max_examples=40)
@given(st.lists(st.floats(-5.0, 5.0), min_size=3, max_size=3), st.floats(0.0, 1.0), st.integers(1, 12))
def test_lamb_moves_a_tensor_by_lr_of_its_norm(grad, decay, steps):
    param = leaf(1.0, -2.0, 2.0)
    optimizer = LAMB([param], lr=0.05, weight_decay=decay)
    for number in range(steps):
        before = param.detach().clone()
        run(optimizer, param, [np.array(grad) + number])
        moved = (param - before).norm().item()
        assert moved == 0.0 or math.isclose(moved, 0.05 * before.norm().item(), rel_tol=1e-9)


def test_lamb_takes_adams_step_from_zero_weights():
    param = leaf(0.0, 0.0)
    (got,) = run(LAMB([param], lr=0.1, eps=0.0), param, [[3.0, -4.0]])
    np.testing.assert_allclose(got, [-0.1, 0.1], rtol=1e-14)


def test_lamb_with_no_gradient_at_all_stands_still_or_decays():
    for decay, expected in ((0.0, [3.0, 4.0]), (0.5, [2.7, 3.6])):
        param = leaf(3.0, 4.0)
        (got,) = run(LAMB([param], lr=0.1, weight_decay=decay), param, [[0.0, 0.0]])
        np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_each_tensor_has_its_own_ratio():
    """In one tensor a small layer would share the length of a large one."""
    small, large, both = leaf(0.03, 0.04), leaf(30.0, 40.0), leaf(0.03, 0.04, 30.0, 40.0)
    apart, together = LAMB([small, large], lr=0.1), LAMB([both], lr=0.1)
    small.grad, large.grad, both.grad = (torch.ones_like(param) for param in (small, large, both))
    apart.step()
    together.step()
    np.testing.assert_allclose((small - leaf(0.03, 0.04)).norm().item(), 0.005, rtol=1e-6)
    np.testing.assert_allclose((both[:2] - leaf(0.03, 0.04)).norm().item(), 5.0 / math.sqrt(2), rtol=1e-5)
