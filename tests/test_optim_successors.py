"""Lion, StableAdamW, AdEMAMix and Schedule-Free AdamW: against NumPy from the papers, the package, and by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_cases import Closeness, give_gradients, leaf, run

from course_lib.optim import REGISTRY, AdamW, AdEMAMix, Lion, ScheduleFreeAdamW, StableAdamW
from course_lib.optim.ademamix import alpha_at, beta3_at

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
START = np.array([1.0, -2.0, 0.5])


def parameters(dtype: torch.dtype) -> list[torch.Tensor]:
    rng, shapes = np.random.default_rng(5), ((), (5,), (4, 3), (2, 3, 2))
    return [torch.as_tensor(rng.normal(size=shape)).to(dtype).requires_grad_() for shape in shapes]


def against_the_package(key: str, dtype: torch.dtype, hyper: dict, *, missing: float = 0.0, size: float = 1.0) -> None:
    """Equal after each of 120 steps along gradients of size 0.01 to 100, times ``size``; the learning rate changes."""
    pytest.importorskip(REGISTRY[key].package)
    mine, other = parameters(dtype), parameters(dtype)
    optimizers = REGISTRY[key].make(mine, **hyper), REGISTRY[key].production(other, **hyper)
    closeness = Closeness(other)
    for number in range(120):
        give_gradients(np.random.default_rng(number), mine, other, missing=missing)
        for param in [*mine, *other]:
            if param.grad is not None:
                param.grad.mul_(size)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.003 * (1 + number % 5)
            optimizer.step()
        closeness.check(mine, other)
    for ours, theirs in zip(mine, other, strict=True):
        for name, held in optimizers[0].state[ours].items():
            if isinstance(held, torch.Tensor):
                expected = optimizers[1].state[theirs][name]
                allowed = 100 * torch.finfo(dtype).eps * expected.abs().max().item()
                torch.testing.assert_close(held, expected, rtol=0.0, atol=allowed)


def gradients(steps: int = 60, seed: int = 2) -> np.ndarray:
    """Steps of three elements, whose size goes up and down."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, 3)) * np.exp(np.sin(np.arange(steps)))[:, None]


def average(grads: np.ndarray, beta: float) -> np.ndarray:
    """The exponential average of all rows, as a sum."""
    ages = np.arange(len(grads))[::-1, None]
    return (1 - beta) * np.sum(beta**ages * grads, axis=0)


# --- Lion -----------------------------------------------------------------------------------------


def test_lion_is_algorithm_2_of_the_paper():
    grads, lr, beta1, beta2, decay = gradients(), 0.01, 0.7, 0.95, 0.5
    param, w = leaf(*START), START
    path = run(Lion([param], lr, (beta1, beta2), decay), param, grads)
    for t, got in enumerate(path):
        m = average(grads[:t], beta2) if t else np.zeros(3)
        w = w - lr * (np.sign(beta1 * m + (1 - beta1) * grads[t]) + decay * w)
        np.testing.assert_allclose(got, w, rtol=1e-13)


@BOTH
@pytest.mark.parametrize("hyper", [{}, {"betas": (0.95, 0.98), "weight_decay": 1.0}], ids=str)
def test_lion_is_the_packages(dtype, hyper):
    against_the_package("lion", dtype, hyper, missing=0.2)


def test_lion_by_hand():
    """Gradients 1, then -0.05: c = 0.1 and then 0.9 * 0.01 - 0.005 = 0.004, so that both steps go the same way.

    The memory is 0.01 after the first step and 0.0094 after the second: it outweighs a gradient five times as large.
    """
    param = leaf(0.0)
    optimizer = Lion([param], lr=0.5)
    path = run(optimizer, param, [1.0, -0.05])
    np.testing.assert_allclose(path, [[-0.5], [-1.0]], rtol=1e-15)
    np.testing.assert_allclose(optimizer.state[param]["exp_avg"], [0.99 * 0.01 - 0.01 * 0.05], rtol=1e-13)


@settings(max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6).filter(lambda g: abs(g) > 1e-6), min_size=3, max_size=3), st.floats(1e-4, 1.0))
def test_every_element_moves_by_lr_whatever_its_gradient(grad, lr):
    param = leaf(*START)
    (got,) = run(Lion([param], lr=lr), param, [grad])
    np.testing.assert_allclose(np.abs(got - START), lr, rtol=1e-9)


def test_an_element_without_any_gradient_stays_but_for_decay():
    param = leaf(1.0, 1.0)
    (got,) = run(Lion([param], lr=0.1, weight_decay=0.5), param, [[0.0, 3.0]])
    np.testing.assert_allclose(got, [0.95, 0.85], rtol=1e-15)


def test_a_nan_in_lions_memory_does_not_show_in_the_weight():
    """torch.sign(NaN) is 0: the element never moves again, and no weight tells."""
    param = leaf(1.0, 1.0)
    optimizer = Lion([param], lr=0.1)
    path = run(optimizer, param, [[math.nan, 1.0], [1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(path[-1], [1.0, 0.7], rtol=1e-15)
    assert optimizer.state[param]["exp_avg"].isnan().tolist() == [True, False]


# --- StableAdamW ----------------------------------------------------------------------------------


def test_stable_adamw_is_algorithm_2_of_the_paper():
    """With the averages corrected after the fact, and as sums: no recursion is shared. It clips some steps, not all."""
    grads, lr, beta1, beta2, eps, decay = gradients(), 0.05, 0.8, 0.9, 1e-3, 0.3
    param, w, clipped = leaf(*START), START, 0
    path = run(StableAdamW([param], lr, (beta1, beta2), eps, decay), param, grads)
    for t, got in enumerate(path, start=1):
        v = average(grads[:t], beta1) / (1 - beta1**t)
        u = average(grads[:t] ** 2, beta2) / (1 - beta2**t)
        rms = math.sqrt(np.mean(grads[t - 1] ** 2 / np.maximum(u, eps**2)))
        clipped += rms > 1
        rate = lr / max(1.0, rms)
        w = w - rate * decay * w - rate * v / (np.sqrt(u) + eps)
        np.testing.assert_allclose(got, w, rtol=1e-12)
    assert 10 < clipped < 50


@BOTH
@pytest.mark.parametrize("hyper", [{}, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}], ids=str)
def test_stable_adamw_is_the_packages(dtype, hyper):
    against_the_package("stable_adamw", dtype, hyper)


def test_stable_adamw_is_adamw_while_the_second_moment_keeps_up():
    """Gradients of one size and any sign: RMS is 1."""
    grads = np.sign(np.random.default_rng(0).normal(size=(60, 3))) * [0.1, 2.0, 30.0]
    paths = []
    for make in (StableAdamW, AdamW):
        param = leaf(*START)
        paths.append(run(make([param], 0.01, (0.9, 0.99), 0.0, 0.1), param, grads))
    np.testing.assert_allclose(*paths, rtol=1e-12)


def test_a_sudden_gradient_after_a_quiet_time_is_divided_by_its_surprise():
    """1000 steps of 0.001, then 1: sqrt(u) and v are 0.1, and AdamW moves by lr. RMS is 10: this one by lr / 10."""
    grads = [[1e-3]] * 1000 + [[1.0]]
    moved = {}
    for make in (AdamW, StableAdamW):
        param = leaf(0.0)
        path = run(make([param], 0.1, (0.9, 0.99), 1e-8, 0.0), param, grads)
        moved[make] = (path[-2] - path[-1]).item()
    np.testing.assert_allclose(moved[AdamW], 0.1, rtol=0.02)
    np.testing.assert_allclose(moved[StableAdamW], 0.01, rtol=0.02)


def test_the_decay_is_slowed_down_with_the_step():
    """The second gradient is three times the first: u = (0.99 + 9) / 1.99, RMS = 3 / sqrt(u), and no step but decay."""
    param = leaf(1.0)
    path = run(StableAdamW([param], 0.1, (0.0, 0.99), 1e9, 0.5), param, [1.0, 3.0])
    np.testing.assert_allclose(path, [[0.95], [0.95**2]], rtol=1e-6)  # an eps of 1e9: RMS is 0
    param = leaf(1.0)
    optimizer = StableAdamW([param], 0.1, (0.0, 0.99), 0.0, 0.5)
    first, second = run(optimizer, param, [1.0, 3.0])
    rms = 3.0 / math.sqrt((0.99 + 9.0) / 1.99)
    np.testing.assert_allclose(second, first * (1 - 0.1 / rms * 0.5) - 0.1 / rms * rms, rtol=1e-13)


# --- AdEMAMix -------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [None, 40], ids="warmup {}".format)
def test_ademamix_is_algorithm_1_of_the_paper(warmup):
    grads, lr, (beta1, beta2, beta3), alpha, eps, decay = gradients(), 0.01, (0.8, 0.95, 0.999), 6.0, 1e-3, 0.3
    param, w, m2 = leaf(*START), START, np.zeros(3)
    path = run(AdEMAMix([param], lr, (beta1, beta2, beta3), alpha, eps, decay, warmup, warmup), param, grads)
    for t, got in enumerate(path, start=1):
        part = 1.0 if warmup is None else min(1.0, t / warmup)
        logs = math.log(beta1), math.log(beta3)
        slow = min(math.exp(logs[0] * logs[1] / ((1 - part) * logs[1] + part * logs[0])), beta3)
        m2 = slow * m2 + (1 - slow) * grads[t - 1]
        v = average(grads[:t] ** 2, beta2) / (1 - beta2**t)
        m1 = average(grads[:t], beta1) / (1 - beta1**t)
        w = w - lr * ((m1 + alpha * part * m2) / (np.sqrt(v) + eps) + decay * w)
        np.testing.assert_allclose(got, w, rtol=1e-11)


@BOTH
@pytest.mark.parametrize("hyper", [
    {},
    {"alpha": 8.0, "betas": (0.8, 0.95, 0.999), "weight_decay": 0.3},
    {"alpha_warmup": 80, "beta3_warmup": 80, "betas": (0.8, 0.95, 0.999)},
], ids=str)  # fmt: skip
def test_ademamix_is_the_packages(dtype, hyper):
    against_the_package("ademamix", dtype, hyper)


def test_without_the_slow_average_it_is_adamw():
    paths = []
    for make, hyper in ((AdEMAMix, {"betas": (0.9, 0.99, 0.5), "alpha": 0.0}), (AdamW, {"betas": (0.9, 0.99)})):
        param = leaf(*START)
        paths.append(run(make([param], lr=0.01, weight_decay=0.1, **hyper), param, gradients()))
    np.testing.assert_allclose(*paths, rtol=1e-13)


def test_under_a_constant_gradient_the_step_grows_from_lr_to_one_plus_alpha_times_it():
    param = leaf(0.0)
    path = [0.0, *np.ravel(run(AdEMAMix([param], 0.1, (0.9, 0.99, 0.9), 4.0, 0.0), param, [[3.0]] * 200))]
    moved = -np.diff(path)
    np.testing.assert_allclose(moved[[0, -1]], [0.1 * (1 + 4 * 0.1), 0.1 * 5], rtol=1e-7)
    assert (np.diff(moved) > -1e-9).all()


def test_the_warmups_by_hand():
    group = {"betas": (0.5, 0.9, 0.5**0.1), "alpha": 6.0, "alpha_warmup": 10, "beta3_warmup": 4}
    assert [alpha_at(step, group) for step in (1, 5, 10, 11)] == pytest.approx([0.6, 3.0, 6.0, 6.0], rel=1e-15)
    # Half-lives of 1 and 10 steps: 3.25, 5.5 and 7.75 on the way.
    expected = [0.5 ** (1 / 3.25), 0.5 ** (1 / 5.5), 0.5 ** (1 / 7.75), 0.5**0.1, 0.5**0.1]
    assert [beta3_at(step, group) for step in (1, 2, 3, 4, 5)] == pytest.approx(expected, rel=1e-14)
    group["beta3_warmup"] = None
    assert beta3_at(1, group) == 0.5**0.1
    assert beta3_at(1, group | {"betas": (0.0, 0.9, 0.0), "beta3_warmup": 2}) == 0.0, "no memory has no half-life"


def test_each_warmup_has_its_own_length_here_and_one_in_the_package():
    param = leaf(1.0)
    AdEMAMix([param], alpha_warmup=10, beta3_warmup=None)
    with pytest.raises(ValueError, match="Invalid alpha_warmup: 10 beside beta3_warmup=None. Allowed: the same"):
        REGISTRY["ademamix"].production([param], alpha_warmup=10)


def test_the_slow_average_never_forgets_in_bfloat16():
    for dtype, forgets in ((torch.float32, True), (torch.bfloat16, False)):
        param = torch.ones(3, dtype=dtype, requires_grad=True)
        optimizer = AdEMAMix([param])
        for grad in [1e4] + [0.0] * 50:
            param.grad = torch.full_like(param, grad)
            optimizer.step()
        assert (optimizer.state[param]["exp_avg_slow"] < 0.999).all() == forgets


# --- Schedule-Free AdamW --------------------------------------------------------------------------


def schedule_free_in_numpy(w, grads, rates, betas, eps, decay):
    """x, y and z by themselves, each as its definition says; returns (y, x) after every step."""
    (beta1, beta2), x, z, path, weights = betas, w, w, [], []
    for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        y = (1 - beta1) * z + beta1 * x
        v = average(grads[:t] ** 2, beta2) / (1 - beta2**t)
        z = z - rate * (grad / (np.sqrt(v) + eps) + decay * y)
        weights.append(max(rates[:t]) ** 2)
        c = weights[-1] / sum(weights) if weights[-1] else 0.0
        x = (1 - c) * x + c * z
        path.append(((1 - beta1) * z + beta1 * x, x))
    return path


@pytest.mark.parametrize("warmup", [0, 20], ids="warmup {}".format)
def test_schedule_free_is_three_sequences(warmup):
    """Over 60 steps, with a rate that also falls in the end: a z counts by the largest rate so far."""
    grads, betas, eps, decay = gradients(), (0.8, 0.95), 1e-3, 0.3
    lrs = np.where(np.arange(60) < 40, 0.05, 0.01)
    param = leaf(*START)
    optimizer = ScheduleFreeAdamW([param], 0.05, betas, eps, decay, warmup)
    expected = schedule_free_in_numpy(
        START, grads, [lr * min(1.0, t / max(warmup, 1)) for t, lr in enumerate(lrs, start=1)], betas, eps, decay
    )
    for grad, lr, (y, x) in zip(grads, lrs, expected, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, param, [grad])
        np.testing.assert_allclose(param.detach(), y, rtol=1e-11)
        optimizer.eval()
        np.testing.assert_allclose(param.detach(), x, rtol=1e-11)
        optimizer.train()


@BOTH
@pytest.mark.parametrize("hyper", [{}, {"betas": (0.95, 0.9), "weight_decay": 0.3, "warmup_steps": 30}], ids=str)
def test_schedule_free_is_the_packages(dtype, hyper):
    """The package adds 1e-15 to v under the root. Beside gradients of 100 and more that is nothing, in float64 too."""
    against_the_package("schedule_free", dtype, hyper, size=1e4)


def test_the_average_of_schedule_free_is_the_packages_too():
    pytest.importorskip("pytorch_optimizer")
    ends = []
    for factory in (REGISTRY["schedule_free"].make, REGISTRY["schedule_free"].production):
        param = leaf(*START)
        optimizer = factory([param], lr=0.05, warmup_steps=7)
        run(optimizer, param, gradients())
        optimizer.eval()
        ends.append(param.detach().numpy())
    np.testing.assert_allclose(*ends, rtol=1e-12)


def test_at_a_constant_rate_x_is_the_plain_mean_of_all_z():
    param, zs = leaf(*START), []
    optimizer = ScheduleFreeAdamW([param], lr=0.05)
    for grad in gradients():
        run(optimizer, param, [grad])
        zs.append(optimizer.state[param]["z"].numpy().copy())
    optimizer.eval()
    np.testing.assert_allclose(param.detach(), np.mean(zs, axis=0), rtol=1e-12)


def test_eval_and_train_switch_once_and_back():
    param, idle = leaf(*START), leaf(7.0)
    optimizer = ScheduleFreeAdamW([{"params": [param]}, {"params": [idle], "betas": (0.5, 0.9)}], lr=0.05)
    optimizer.eval()  # before any step x, y and z are one
    optimizer.train()
    assert param.tolist() == START.tolist()
    run(optimizer, param, gradients(10))
    y = param.detach().clone()
    optimizer.train()
    assert torch.equal(param, y)
    optimizer.eval()
    x = param.detach().clone()
    optimizer.eval()
    assert torch.equal(param, x) and not torch.equal(x, y)
    optimizer.train()
    torch.testing.assert_close(param, y, rtol=1e-14, atol=0.0)
    assert idle.item() == 7.0


def test_a_step_in_evaluation_mode_says_what_to_do():
    param = leaf(1.0)
    optimizer = ScheduleFreeAdamW([param])
    run(optimizer, param, [1.0])
    optimizer.eval()
    before, calls = param.item(), []
    with pytest.raises(RuntimeError, match=r"evaluation mode.*Call optimizer.train\(\) before the forward pass"):
        optimizer.step(lambda: calls.append(1))
    assert param.item() == before and not calls, "the closure would have taken its gradient at the wrong point"


def test_the_mode_comes_back_with_a_state_dict():
    param, resumed = leaf(1.0), leaf(1.0)
    optimizer, other = ScheduleFreeAdamW([param]), ScheduleFreeAdamW([resumed])
    run(optimizer, param, [1.0, 2.0])
    optimizer.eval()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.data.copy_(param.data)
    with pytest.raises(RuntimeError, match="evaluation mode"):
        other.step()
    for one, its in ((optimizer, param), (other, resumed)):
        one.train()
        run(one, its, [3.0])
    assert torch.equal(param, resumed)


@pytest.mark.parametrize("beta1", [0.0, 1.0])
def test_beta1_must_lie_between_its_ends(beta1):
    """x is recovered from y and z by a division by it."""
    with pytest.raises(ValueError, match=r"Invalid betas\[0\]"):
        ScheduleFreeAdamW([leaf(1.0)], betas=(beta1, 0.9))


def test_the_average_settles_where_the_last_step_still_jumps():
    """|w| with noisy slopes: at a constant rate y and z go on jumping about zero, x comes nearer all the time."""
    rng = np.random.default_rng(0)
    param = leaf(1.0)
    optimizer = ScheduleFreeAdamW([param], lr=0.1)
    run(optimizer, param, [lambda w: np.sign(w) + rng.normal(size=1)] * 2000)
    z = optimizer.state[param]["z"].item()
    optimizer.eval()
    assert abs(param.item()) < 0.05
    assert abs(z) > 2 * abs(param.item())
