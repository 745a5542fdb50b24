"""course_lib.problems.noisy_quadratic: the recursion against sampling, against matrices and against hand arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems.noisy_quadratic import NoisyQuadratic, descend, expected_losses, fewest_steps, steps_to_target

PROBLEM = NoisyQuadratic(np.logspace(0, -2, 5), noise=[0.5, 0.1, 0.3, 0.2, 0.4], start=[1.0, -2.0, 3.0, 0.0, 5.0])


def test_loss_gradient_and_noise_scale_by_hand():
    problem = NoisyQuadratic([2.0, 0.5], noise=[3.0, 1.0], start=2.0)
    w = np.array([[1.0, 4.0], [0.5, 0.0]])
    assert problem.loss(w).tolist() == [5.0, 0.25]
    assert problem.gradient(w).tolist() == [[2.0, 2.0], [1.0, 0.0]]
    assert problem.noise_trace == 10.0 and problem.noise_scale(w).tolist() == [10 / 8, 10.0]
    assert problem.parameter(3).tolist() == [[2.0, 2.0]] * 3


def test_a_batch_has_the_gradients_mean_and_its_share_of_the_variance():
    param, rng, seen = PROBLEM.parameter(20_000), np.random.default_rng(0), {}
    for batch in (1, 25):
        PROBLEM.backward(param, batch, rng)
        seen[batch] = param.grad.numpy()
        error = seen[batch].mean(axis=0) - PROBLEM.gradient(PROBLEM.start)
        assert (abs(error) < 4.5 * PROBLEM.noise / math.sqrt(batch * 20_000)).all()
        np.testing.assert_allclose(seen[batch].std(axis=0), PROBLEM.noise / math.sqrt(batch), rtol=0.03)
    assert abs(np.corrcoef(seen[1].T) - np.eye(5)).max() < 0.04, "coordinates are independent"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", [None, lambda step: 1 - step / 60], ids=["constant", "linear"])
def test_the_expected_loss_is_the_mean_over_runs(momentum, schedule):
    run = descend(PROBLEM, lambda p: torch.optim.SGD(p, lr=0.2, momentum=momentum), 60, batch=2, seed=1, runs=4000,
                  schedule=schedule)
    expected = expected_losses(PROBLEM, 0.2, 2, 60, momentum=momentum, schedule=schedule)
    standard_error = run.losses.std(axis=1) / math.sqrt(4000)
    assert (abs(run.losses.mean(axis=1) - expected) <= 5 * standard_error + 1e-12).all()
    np.testing.assert_allclose(PROBLEM.loss(run.weights), run.losses[-1], rtol=1e-12)


@given(st.floats(0.01, 1.5), st.floats(0.0, 0.95), st.floats(0.5, 100.0), st.floats(0.05, 2.0))
@settings(max_examples=40)
def test_the_recursion_is_that_of_the_joint_covariance(lr, momentum, batch, h):
    """One coordinate by 2 x 2 matrices: (w, u) <- M (w, u) + noise (-lr, 1)."""
    problem = NoisyQuadratic([h], noise=0.7, start=1.3)
    matrix = np.array([[1 - lr * h, -lr * momentum], [h, momentum]])
    kick = np.outer([-lr, 1.0], [-lr, 1.0]) * 0.49 / batch
    moments, losses = np.array([[1.69, 0.0], [0.0, 0.0]]), []
    for _ in range(30):
        losses.append(h * moments[0, 0] / 2)
        moments = matrix @ moments @ matrix.T + kick
    np.testing.assert_allclose(expected_losses(problem, lr, batch, 29, momentum=momentum), losses, rtol=1e-8)


def test_without_momentum_it_is_the_closed_form():
    """E w_t^2 = a^2t w_0^2 + (1 - a^2t) / (1 - a^2) lr^2 s^2 / B with a = 1 - lr h."""
    lr, batch, t = 0.7, 8, np.arange(101)[:, None]
    a = (1 - lr * PROBLEM.curvatures) ** 2
    w = a**t * PROBLEM.start**2 + (1 - a**t) / (1 - a) * lr**2 * PROBLEM.noise**2 / batch
    np.testing.assert_allclose(expected_losses(PROBLEM, lr, batch, 100), w @ PROBLEM.curvatures / 2, rtol=1e-12)


def test_rates_side_by_side_are_the_rates_one_by_one():
    rates = np.array([0.0, 0.1, 1.9, 2.5])
    together = expected_losses(PROBLEM, rates, 4, 3000, momentum=0.0)
    assert together.shape == (3001, 4)
    for column, rate in enumerate(rates):
        np.testing.assert_allclose(together[:, column], expected_losses(PROBLEM, float(rate), 4, 3000), rtol=1e-13)
    assert (together[:, 0] == together[0, 0]).all() and together[-1, 2] < 1 and not together[-1, 3] < 1e6


@pytest.mark.parametrize("batch", [1, 30, math.inf])
def test_the_target_is_reached_when_the_recursion_says_so(batch):
    rates = np.array([1e-3, 0.03, 0.3, 1.5, 40.0])
    start = float(PROBLEM.loss(PROBLEM.start))
    for share in (0.9, 0.3, 0.1):
        steps = steps_to_target(PROBLEM, share * start, rates, batch)
        hit = expected_losses(PROBLEM, rates, batch, 4000) <= share * start
        by_recursion = np.where(hit.any(axis=0), hit.argmax(axis=0), math.inf)
        known = steps < 4000
        np.testing.assert_array_equal(np.ceil(steps[known]), by_recursion[known])
        assert np.isinf(by_recursion[~known]).all() and steps[4] == math.inf
        assert steps_to_target(PROBLEM, share * start, 0.3, batch) == steps[2]
    assert (steps_to_target(PROBLEM, start, rates[:4], batch) == 0).all()


def test_steps_on_one_coordinate_by_hand():
    """Noise-free, h = 1, lr = 1/2: the loss falls to a quarter each step, to 1/64 in 3."""
    assert steps_to_target(NoisyQuadratic([1.0], 0.0), 0.5 / 64, 0.5, 1) == pytest.approx(3, rel=1e-9)
    # With noise s^2 = 1 the loss settles at lr s^2 / (2 (2 - lr)) = 1/6: below that no number of steps leads.
    assert steps_to_target(NoisyQuadratic([1.0], 1.0), 0.166, 0.5, 1) == math.inf
    assert steps_to_target(NoisyQuadratic([1.0], 1.0), 0.167, 0.5, 1) < 10


def test_no_other_rate_is_much_faster():
    start = float(PROBLEM.loss(PROBLEM.start))
    for batch in (2, 64, math.inf):
        steps, rate = fewest_steps(PROBLEM, 0.1 * start, batch)
        assert steps == steps_to_target(PROBLEM, 0.1 * start, rate, batch)
        fine = steps_to_target(PROBLEM, 0.1 * start, np.linspace(0.002, 1.999, 1500), batch).min()
        assert 0.99 * steps < fine < 1.03 * steps
    with pytest.raises(ValueError, match="^Invalid target: 1e-12.*within 10.7 steps"):
        fewest_steps(PROBLEM, 1e-12, 1)


def test_an_infinite_batch_is_gradient_descent():
    run = descend(NoisyQuadratic(PROBLEM.curvatures, 0.0, PROBLEM.start), lambda p: torch.optim.SGD(p, lr=0.5), 50)
    np.testing.assert_allclose(expected_losses(PROBLEM, 0.5, math.inf, 50), run.losses[:, 0], rtol=1e-12)


def test_a_seed_is_one_run_and_any_optimizer_runs():
    def end(seed):
        return descend(PROBLEM, lambda p: torch.optim.Adam(p, lr=0.1), 40, batch=4, seed=seed, runs=2).weights

    assert np.array_equal(end(3), end(3)) and not np.array_equal(end(3), end(4))
    assert not np.array_equal(end(3)[0], end(3)[1]), "runs have noise of their own"


def test_a_run_that_diverges_is_followed_quietly():
    with np.errstate(all="raise", under="ignore"):
        run = descend(PROBLEM, lambda p: torch.optim.SGD(p, lr=1e9), 60)
    assert run.losses.shape == (61, 1) and not np.isfinite(run.losses[-1, 0])


def test_arguments_are_copied():
    h = np.ones(3)
    problem = NoisyQuadratic(h)
    h[0] = 7
    assert problem.curvatures.tolist() == [1, 1, 1] and problem.noise.shape == problem.start.shape == (3,)
    param = problem.parameter()
    with torch.no_grad():
        param.fill_(9)
    assert problem.start.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("name", "arguments"), [
    ("curvatures", dict(curvatures=[])), ("curvatures", dict(curvatures=[1.0, 0.0])),
    ("curvatures", dict(curvatures=[math.nan])), ("curvatures", dict(curvatures=[[1.0]])),
    ("noise", dict(noise=-1.0)), ("noise", dict(noise=[1.0, 2.0, 3.0])), ("noise", dict(noise=math.inf)),
    ("start", dict(start=math.nan)), ("start", dict(start=[[1.0, 2.0]])),
])
def test_a_problem_out_of_range_is_named(name, arguments):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*Allowed: "):
        NoisyQuadratic(**{"curvatures": [1.0, 2.0]} | arguments)


@pytest.mark.parametrize(("name", "arguments"), [
    ("lr", dict(lr=-0.1)), ("lr", dict(lr=math.nan)), ("lr", dict(lr=np.ones((2, 2)))), ("batch", dict(batch=0)),
    ("batch", dict(batch=math.nan)), ("steps", dict(steps=-1)), ("steps", dict(steps=True)),
    ("steps", dict(steps=2.0)), ("momentum", dict(momentum=1.0)),
])
def test_a_recursion_out_of_range_is_named(name, arguments):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*Allowed: "):
        expected_losses(PROBLEM, **dict(lr=0.1, batch=1, steps=3) | arguments)


@pytest.mark.parametrize(("name", "arguments"), [
    ("lr", dict(lr=0.0)), ("lr", dict(lr=math.inf)), ("target", dict(target=0.0)), ("target", dict(target=math.nan)),
    ("batch", dict(batch=-1)),
])
def test_a_target_out_of_range_is_named(name, arguments):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*Allowed: "):
        steps_to_target(PROBLEM, **dict(lr=0.1, batch=1, target=1.0) | arguments)


@pytest.mark.parametrize(("name", "arguments"), [
    ("steps", dict(steps=-1)), ("batch", dict(batch=0)), ("batch", dict(batch=1.5)), ("runs", dict(runs=0)),
])
def test_a_run_out_of_range_is_named(name, arguments):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*Allowed: "):
        descend(PROBLEM, lambda p: torch.optim.SGD(p, lr=0.1), **dict(steps=3) | arguments)
