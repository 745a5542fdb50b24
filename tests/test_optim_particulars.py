"""What is particular to each of the older optimizers, against the papers' own arithmetic in NumPy."""

from __future__ import annotations

import copy
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from optim_cases import leaf, run
from torch.optim import lr_scheduler

from course_lib.optim import REGISTRY, SGD, Adadelta, Adagrad, Adamax, NAdam, Nesterov, RAdam
from course_lib.optim.radam import rectifier

CURVATURE = np.array([1.0, 10.0])
START = np.array([1.0, -1.0])


def iterates(optimizer: Nesterov, param: torch.Tensor, gradient, steps: int, after=lambda: None) -> np.ndarray:
    """Theta after each step; ``after`` is called in between, as a scheduler is."""
    path = []
    for _ in range(steps):
        run(optimizer, param, [gradient])
        after()
        path.append(optimizer.iterate(param).numpy())
    return np.array(path)


# --- Nesterov -------------------------------------------------------------------------------------


@given(lr=st.floats(1e-3, 0.1), momentum=st.floats(0.01, 0.99), decay=st.just(0.0) | st.floats(0.01, 1.0))
def test_the_iterates_are_those_of_the_look_ahead_rule(lr, momentum, decay):
    param = leaf(*START)
    optimizer = Nesterov([param], lr=lr, momentum=momentum, weight_decay=decay)
    path = iterates(optimizer, param, lambda x: CURVATURE * x, 60)
    theta, v = START, np.zeros(2)
    for got in path:
        ahead = theta + momentum * v
        v = momentum * v - lr * (CURVATURE * ahead + decay * ahead)
        theta = theta + v
        np.testing.assert_allclose(got, theta, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(param.detach().numpy(), theta + momentum * v, rtol=0.0, atol=1e-12)


def look_ahead(lrs: list[float], momentum: float, *, sutskever: bool) -> np.ndarray:
    """Theta on the quadratic: with the velocity's past in the lr of the step before, or each gradient in its own."""
    theta, y, b, v, before, path = START, START, np.zeros(2), np.zeros(2), 0.0, []
    for lr in lrs:
        if sutskever:
            v = momentum * v - lr * CURVATURE * (theta + momentum * v)
        else:
            g = CURVATURE * y
            v = -before * momentum * b - lr * g
            b = momentum * b + g
        theta = theta + v
        y = theta - lr * momentum * b
        before = lr
        path.append(theta)
    return np.array(path)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_iterates_under_a_schedule(factor):
    """Read after the scheduler has set the next lr, theta is still the end of the last gradient step."""
    param = leaf(*START)
    optimizer = Nesterov([param], lr=0.02, momentum=0.9)
    schedule = lr_scheduler.ExponentialLR(optimizer, gamma=factor)
    path = iterates(optimizer, param, lambda x: CURVATURE * x, 15, after=schedule.step)
    lrs = [0.02 * factor**step for step in range(15)]
    np.testing.assert_allclose(path, look_ahead(lrs, 0.9, sutskever=False), rtol=0.0, atol=1e-12)
    assert abs(path - look_ahead(lrs, 0.9, sutskever=True)).max() > 1e-2


def test_without_a_change_of_lr_both_velocities_are_one():
    """The reference above, so that what it shows is the change of lr and nothing else."""
    lrs = [0.02] * 15
    np.testing.assert_allclose(
        look_ahead(lrs, 0.9, sutskever=True), look_ahead(lrs, 0.9, sutskever=False), rtol=0.0, atol=1e-13
    )


def test_the_first_iterate_is_a_plain_gradient_step_and_before_it_the_start():
    param = leaf(1.0, 2.0)
    optimizer = Nesterov([param], lr=0.5, momentum=0.8)
    start = optimizer.iterate(param)
    assert start.tolist() == [1.0, 2.0] and start.data_ptr() != param.data_ptr() and not start.requires_grad
    run(optimizer, param, [[2.0, -2.0]])
    np.testing.assert_allclose(optimizer.iterate(param).numpy(), [0.0, 3.0], rtol=0.0, atol=1e-15)
    np.testing.assert_allclose(param.detach().numpy(), [-0.8, 3.8], rtol=1e-15)


def test_the_iterate_climbs_with_maximize():
    param = leaf(0.0)
    optimizer = Nesterov([param], lr=0.5, momentum=0.8, maximize=True)
    run(optimizer, param, [[2.0]])
    np.testing.assert_allclose(optimizer.iterate(param).numpy(), [1.0], rtol=1e-15)


def test_the_iterate_survives_a_checkpoint_though_lr_changed():
    param = leaf(*START)
    optimizer = Nesterov([param], lr=0.02, momentum=0.9)
    run(optimizer, param, [lambda x: CURVATURE * x] * 5)
    expected = optimizer.iterate(param)
    optimizer.param_groups[0]["lr"] = 0.5
    other = Nesterov([param], lr=7.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(other.iterate(param), expected)


def test_the_iterate_of_a_run_begun_with_production():
    """Its checkpoint does not tell the last lr: the present one stands in, and is right while lr is constant."""
    param = leaf(*START)
    production = REGISTRY["nesterov"].production([param], lr=0.02)
    run(production, param, [lambda x: CURVATURE * x] * 5)
    ours = Nesterov([param])
    ours.load_state_dict(copy.deepcopy(production.state_dict()))
    np.testing.assert_allclose(
        ours.iterate(param).numpy(), look_ahead([0.02] * 5, 0.9, sutskever=True)[-1], rtol=0.0, atol=1e-13
    )


def test_the_iterate_of_a_stranger_is_refused():
    optimizer = Nesterov([leaf(1.0, 2.0)])
    with pytest.raises(ValueError, match=r"shape \(2,\) is none of the optimizer's parameters"):
        optimizer.iterate(leaf(1.0, 2.0))


def test_torch_in_sgd_is_the_same_rule_in_one_line():
    first, second = leaf(*START), leaf(*START)
    gradients = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_allclose(
        run(Nesterov([first], lr=0.1, momentum=0.95), first, gradients),
        run(SGD([second], lr=0.1, momentum=0.95, nesterov=True), second, gradients), rtol=0.0, atol=1e-13,
    )


# --- AdaGrad --------------------------------------------------------------------------------------


@given(size=st.floats(1e-3, 1e3), every=st.integers(1, 7))
def test_adagrad_steps_fall_with_the_root_of_how_often_the_coordinate_was_seen(size, every):
    param = leaf(0.0)
    gradients = [[size if step % every == 0 else 0.0] for step in range(1, 61)]
    path = np.array(run(Adagrad([param], lr=0.5, eps=0.0, initial_accumulator_value=1e-30), param, gradients)).ravel()
    steps = -np.diff(path, prepend=0.0)
    t = np.arange(1, 61)
    expected = np.where(t % every == 0, 0.5 / np.sqrt(np.maximum(t // every, 1)), 0.0)
    np.testing.assert_allclose(steps, expected, rtol=1e-9, atol=1e-12)


def test_adagrad_by_hand():
    """Start 16: after gradient 3 the sum is 25, after -12 it is 169. lr 1, then 1 / (1 + 0.25)."""
    param = leaf(0.0)
    path = run(Adagrad([param], lr=1.0, lr_decay=0.25, initial_accumulator_value=16.0, eps=1.0), param, [3.0, -12.0])
    np.testing.assert_allclose(path, [[-3.0 / 6.0], [-3.0 / 6.0 + 0.8 * 12.0 / 14.0]], rtol=1e-15)


def test_a_group_has_its_own_initial_accumulator_value():
    first, second = leaf(0.0), leaf(0.0)
    optimizer = Adagrad([{"params": [first]}, {"params": [second], "initial_accumulator_value": 8.0}], lr=1.0, eps=0.0)
    first.grad, second.grad = torch.ones_like(first), torch.ones_like(second)
    optimizer.step()
    assert (first.item(), second.item()) == (-1.0, pytest.approx(-1.0 / 3.0))


# --- Adadelta -------------------------------------------------------------------------------------


def adadelta_path(gradients: np.ndarray, root_of_u: float) -> np.ndarray:
    """Adadelta's path without eps, begun with the root mean square of its past steps at ``root_of_u``."""
    param = leaf(0.0)
    optimizer = Adadelta([param], eps=0.0)
    optimizer.state[param] = {
        "step": 1, "square_avg": torch.zeros_like(param), "acc_delta": torch.full_like(param, root_of_u**2)
    }
    return np.array(run(optimizer, param, gradients[:, None])).ravel()


@given(loss=st.floats(1e-3, 1e3), units=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_adadelta_steps_have_the_units_of_the_parameter(loss, units, seed):
    """Loss in other units: the same path. Parameter x = units * x': gradients / units, and the path times units."""
    gradients = np.random.default_rng(seed).normal(size=30)
    path = adadelta_path(gradients, 0.1)
    np.testing.assert_allclose(adadelta_path(loss * gradients, 0.1), path, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        adadelta_path(gradients / units, 0.1 * units), units * path, rtol=1e-9, atol=1e-12 * units
    )


@given(size=st.floats(1e-2, 1e4), eps=st.sampled_from([1e-6, 1e-4, 1.0]), rho=st.sampled_from([0.0, 0.9, 0.95]))
def test_the_first_step_of_adadelta_is_set_by_eps(size, eps, rho):
    param = leaf(0.0)
    (first,) = run(Adadelta([param], rho=rho, eps=eps), param, [[size]])
    np.testing.assert_allclose(first, [-size * math.sqrt(eps / ((1 - rho) * size**2 + eps))], rtol=1e-12)


def test_adadelta_remembers_steps_as_they_were_before_lr():
    gradients = np.random.default_rng(1).normal(size=(20, 2))
    ends, remembered = [], []
    for lr in (1.0, 0.25):
        param = leaf(0.0, 0.0)
        optimizer = Adadelta([param], lr=lr)
        ends.append(run(optimizer, param, gradients)[-1])
        remembered.append(optimizer.state[param]["acc_delta"])
    assert torch.equal(*remembered)
    np.testing.assert_allclose(ends[1], 0.25 * ends[0], rtol=1e-13)


# --- Adamax ---------------------------------------------------------------------------------------


def test_adamax_is_the_limit_of_the_p_th_root_of_the_average_of_p_th_powers():
    """Kingma & Ba 2015, section 7.1: v = sum of (1 - beta2^p) beta2^(p (t-i)) |g_i|^p, here for p = 2, 20, 2000."""
    rng = np.random.default_rng(0)
    gradients, beta2 = rng.normal(size=(40, 3)), 0.95
    param = leaf(0.0, 0.0, 0.0)
    optimizer = Adamax([param], betas=(0.9, beta2), eps=0.0)
    run(optimizer, param, gradients)
    u = optimizer.state[param]["exp_inf"].numpy()
    sizes = abs(gradients) * beta2 ** np.arange(40)[::-1, None]
    gaps = []
    for p in (2, 20, 2000):
        power_mean = sizes.max(axis=0) * ((1 - beta2**p) * ((sizes / sizes.max(axis=0)) ** p).sum(axis=0)) ** (1 / p)
        gaps.append(abs(power_mean / u - 1).max())
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-3


def test_adamax_by_hand():
    """beta1 = beta2 = 0.5: m is 1, then -2.5; u is 2 + 1, then max(1.5, 6 + 1)."""
    param = leaf(0.0)
    path = run(Adamax([param], lr=0.3, betas=(0.5, 0.5), eps=1.0), param, [2.0, -6.0])
    second = 0.3 / 0.75 * -2.5 / 7.0
    np.testing.assert_allclose(path, [[-0.3 * 2.0 / 3.0], [-0.3 * 2.0 / 3.0 - second]], rtol=1e-14)


@given(growth=st.lists(st.floats(1.0, 3.0), min_size=5, max_size=30), signs=st.integers(0, 2**30))
def test_no_step_of_adamax_exceeds_lr_while_gradients_do_not_shrink(growth, signs):
    sizes = np.cumprod(growth)
    gradients = sizes * [1 if signs >> bit & 1 else -1 for bit in range(len(sizes))]
    param = leaf(0.0)
    path = np.array(run(Adamax([param], lr=1.0), param, gradients[:, None])).ravel()
    assert abs(np.diff(path, prepend=0.0)).max() <= 1 + 1e-9


def test_adamax_stands_still_where_there_was_no_gradient_but_zero():
    param = leaf(1.0)
    assert run(Adamax([param], lr=0.1), param, [[0.0]] * 3)[-1] == [1.0]


# --- NAdam ----------------------------------------------------------------------------------------


@pytest.fixture
def float64_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def nadam(gradients: np.ndarray, paper: bool, beta1=0.9, beta2=0.99, psi=0.02) -> np.ndarray:
    """NAdam's steps with lr = 1 and eps = 0, in NumPy, averages as sums; m decays with mu_t, or beta1 as in torch."""
    count = len(gradients)
    mu = beta1 * (1 - 0.5 * 0.96 ** (psi * np.arange(1, count + 2)))
    decays = mu[:count] if paper else np.full(count, beta1)
    steps = []
    for t in range(1, count + 1):
        weights = [(1 - decays[i]) * np.prod(decays[i + 1 : t]) for i in range(t)]
        m = np.dot(weights, gradients[:t])
        v = (1 - beta2) * np.dot(beta2 ** np.arange(t)[::-1], gradients[:t] ** 2) / (1 - beta2**t)
        m_hat = mu[t] * m / (1 - np.prod(mu[: t + 1])) + (1 - mu[t - 1]) * gradients[t - 1] / (1 - np.prod(mu[:t]))
        steps.append(m_hat / math.sqrt(v))
    return np.array(steps)


def nadam_steps(gradients: np.ndarray, **hyper) -> np.ndarray:
    param = leaf(0.0)
    path = run(NAdam([param], lr=1.0, betas=(0.9, 0.99), eps=0.0, **hyper), param, gradients[:, None])
    return -np.diff(np.ravel(path), prepend=0.0)


def test_nadam_against_numpy():
    """The product of mu is float32: what is left of it in a step is below 1e-6."""
    gradients = np.random.default_rng(2).normal(size=60)
    np.testing.assert_allclose(
        nadam_steps(gradients, momentum_decay=0.02), nadam(gradients, paper=False), rtol=0.0, atol=1e-6
    )


def test_nadam_is_exact_where_float64_is_the_default(float64_by_default):
    gradients = np.random.default_rng(2).normal(size=60)
    np.testing.assert_allclose(
        nadam_steps(gradients, momentum_decay=0.02), nadam(gradients, paper=False), rtol=0.0, atol=1e-13
    )
    param = leaf(0.0)
    production = torch.optim.NAdam([param], lr=1.0, betas=(0.9, 0.99), eps=0.0, momentum_decay=0.02)
    path = run(production, param, gradients[:, None])
    np.testing.assert_allclose(
        -np.diff(np.ravel(path), prepend=0.0), nadam(gradients, paper=False), rtol=0.0, atol=1e-13
    )


def test_nadam_under_a_constant_gradient_in_torch_and_in_the_paper():
    """What the docstring says of the two, with the defaults."""
    constant = np.ones(2000)
    torchs, papers = (nadam(constant, paper, psi=0.004) for paper in (False, True))
    np.testing.assert_allclose(nadam_steps(constant), torchs, rtol=0.0, atol=1e-6)
    assert torchs[[0, 3]] == pytest.approx([1.056, 0.731], abs=1e-3) and torchs.argmin() == 3
    assert papers[0] == pytest.approx(1.310, abs=1e-3) and papers.min() >= 1
    assert torchs[-1] == pytest.approx(1, abs=1e-3) and papers[-1] == pytest.approx(1, abs=1e-3)


# --- RAdam ----------------------------------------------------------------------------------------


def rho(t: int, beta2: float) -> float:
    """Liu et al. 2020, section 4.2: the length of the plain average whose centre of mass is that of v."""
    ages = np.arange(t)
    return 2 * np.dot(beta2**ages, ages) / np.sum(beta2**ages) + 1


def scatter(length: float) -> float:
    """Liu et al. 2020, section 4.3: the variance of 1 / sqrt(v_hat), up to a factor, to first order."""
    return length / ((length - 2) * (length - 4))


@pytest.mark.parametrize(("beta2", "unadapted"), [(0.9, 5), (0.95, 5), (0.99, 5), (0.999, 5), (0.8, 6)])
def test_radam_begins_to_adapt_when_rho_exceeds_5(beta2, unadapted):
    assert rho(unadapted, beta2) <= 5 < rho(unadapted + 1, beta2)
    gradients = np.random.default_rng(3).normal(size=30)
    param = leaf(0.0)
    path = run(RAdam([param], lr=1.0, betas=(0.9, beta2), eps=0.0), param, gradients[:, None])
    steps = -np.diff(np.ravel(path), prepend=0.0)
    for t in range(1, 31):
        seen, ages = gradients[:t], np.arange(t)[::-1]
        m_hat = np.dot(0.9**ages, seen) / np.sum(0.9**ages)
        v_hat = np.dot(beta2**ages, seen**2) / np.sum(beta2**ages)
        r = math.sqrt(scatter(2 / (1 - beta2) - 1) / scatter(rho(t, beta2))) if t > unadapted else None
        expected = m_hat if r is None else r * m_hat / math.sqrt(v_hat)
        np.testing.assert_allclose(steps[t - 1], expected, rtol=1e-9)


def test_the_paper_and_torch_part_at_one_step():
    """rho_5 lies between the paper's 4 and torch's 5 for beta2 = 0.999."""
    assert rho(4, 0.999) < 4 < rho(5, 0.999) < 5 < rho(6, 0.999)
    assert rectifier(5, 0.999) == 0 < rectifier(6, 0.999)


def test_the_rectifier_is_a_slow_warmup():
    assert [rectifier(t, 0.999) for t in (10, 100, 1000, 2000)] == pytest.approx([0.05, 0.22, 0.65, 0.83], abs=0.01)
    assert rectifier(200_000, 0.999) == pytest.approx(1, abs=1e-9)


@given(beta2=st.floats(0.7, 0.9999), t=st.integers(1, 20_000))
def test_the_rectifier_rises_towards_1(beta2, t):
    now, later = rectifier(t, beta2), rectifier(t + 1, beta2)
    assert 0 <= now <= later + 1e-9 and later <= 1 + 1e-9


@given(beta2=st.floats(0.0, 2 / 3), t=st.integers(1, 10_000))
def test_with_a_short_memory_radam_never_adapts(beta2, t):
    assert rectifier(t, beta2) == 0
