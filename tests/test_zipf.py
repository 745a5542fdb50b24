"""course_lib.problems.zipf, tuning, tails, convnet against torch's autograd, loops written out and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems import digits, tails, zipf
from course_lib.problems.convnet import convnet
from course_lib.problems.tuning import tune
from course_lib.train import train


def test_power_law_by_hand():
    np.testing.assert_allclose(zipf.power_law(3), np.array([6, 3, 2]) / 11)
    np.testing.assert_allclose(zipf.power_law(4, 0.0), 0.25)
    np.testing.assert_allclose(zipf.power_law(2, 2.0), [0.8, 0.2])


@settings(max_examples=20)
@given(tokens=st.integers(2, 30), exponent=st.floats(0, 3), seed=st.integers(0, 99))
def test_a_language_is_made_of_distributions(tokens, exponent, seed):
    problem = zipf.bigram(tokens, exponent, seed)
    assert problem.conditionals.shape == (tokens, tokens) and problem.conditionals.dtype == torch.float64
    torch.testing.assert_close(problem.conditionals.sum(1), torch.ones(tokens, dtype=torch.float64))
    # Only the order differs from row to row and from exponent to exponent.
    torch.testing.assert_close(
        problem.conditionals.sort(1, descending=True).values,
        torch.from_numpy(zipf.power_law(tokens)).expand(tokens, -1),
    )
    assert torch.equal(problem.conditionals, zipf.bigram(tokens, 0.5, seed).conditionals)
    assert (problem.frequencies.diff() <= 0).all() and problem.frequencies.sum().item() == pytest.approx(1)
    true = problem.conditionals.log() + torch.arange(tokens, dtype=torch.float64)[:, None]  # any constant a row
    assert problem.loss(true) == pytest.approx(0, abs=1e-12)


def test_the_gradient_is_that_of_cross_entropy():
    problem = zipf.bigram(7, 1.0, seed=3)
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append((self.param_groups[0]["params"][0].clone(), self.param_groups[0]["params"][0].grad.clone()))
            super().step()

    zipf.descend(problem, lambda params: Spy(params, lr=0.5), 3)
    for logits, gradient in seen:
        table = logits.clone().requires_grad_()
        soft = F.cross_entropy(table, problem.conditionals, reduction="none")  # soft targets, row by row
        (problem.frequencies @ soft).backward()
        torch.testing.assert_close(gradient, table.grad)
    # excess is cross-entropy less entropy
    entropy = -(problem.conditionals * problem.conditionals.log()).sum(1)
    torch.testing.assert_close(
        problem.excess(logits), F.cross_entropy(logits, problem.conditionals, reduction="none") - entropy
    )


def test_the_gradient_of_a_batch_is_that_of_its_pairs():
    problem = zipf.bigram(5, seed=1)
    pairs = problem.pairs(40, np.random.default_rng(2))
    counts = (40 * pairs).round().long()
    assert counts.sum() == 40
    last, following = (
        torch.from_numpy(np.repeat(index, counts.flatten().numpy())) for index in np.indices((5, 5)).reshape(2, 25)
    )
    table = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(table[last], following).backward()
    taken = zipf.descend(problem, lambda params: torch.optim.SGD(params, lr=1.0), 1, batch=40, seed=2)
    torch.testing.assert_close(taken, -table.grad)


def test_pairs_are_fresh_and_unbiased():
    problem, rng = zipf.bigram(4), np.random.default_rng(0)
    draws = torch.stack([problem.pairs(64, rng) for _ in range(2000)])
    assert not torch.equal(draws[0], draws[1])
    true = problem.pairs(None, rng)
    error = (draws.mean(0) - true).abs() / (true / (64 * 2000)).sqrt()
    assert error.max() < 5


def test_a_schedule_multiplies_the_rate():
    problem, rates = zipf.bigram(3), []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])

    zipf.descend(problem, lambda params: Spy(params, lr=2.0), 4, schedule=lambda t: 1 - t / 4)
    assert rates == [2.0, 1.5, 1.0, 0.5]


def linear_run(frequencies, conditionals, steps, lr, sign):
    """The linear model written out: loss sum_i f_i |W_i - P_i|^2 / 2 after each step, as a share of the first."""
    w, left = np.zeros_like(conditionals), []
    for _ in range(steps + 1):
        left.append((frequencies[:, None] * (w - conditionals) ** 2).sum())
        gradient = frequencies[:, None] * (w - conditionals)
        w = w - lr * (np.sign(gradient) if sign else gradient)
    return np.array(left) / left[0]


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.0])
def test_closed_forms_are_the_linear_model_run(exponent):
    problem = zipf.bigram(12, exponent, seed=5)
    frequencies, conditionals = problem.frequencies.numpy(), problem.conditionals.numpy()
    steps = np.arange(31)
    ran = linear_run(frequencies, conditionals, 30, 1 / frequencies.max(), sign=False)
    np.testing.assert_allclose(zipf.linear_gd(frequencies, steps), ran, rtol=1e-9, atol=1e-25)
    for lr in (0.003, 0.02, 0.11, 0.5):
        ran = linear_run(frequencies, conditionals, 30, lr, sign=True)
        np.testing.assert_allclose(zipf.linear_sign(zipf.power_law(12), steps, lr), ran, rtol=1e-9)


def test_gradient_descent_needs_nearly_as_many_steps_as_there_are_tokens_and_sign_descent_eight():
    steps = [
        zipf.steps_to(lambda t, d=d: float(zipf.linear_gd(zipf.power_law(d), t)), 0.1) for d in (100, 1000, 10_000)
    ]
    assert steps == [27, 187, 1361]
    for d in (100, 1000, 10_000):
        assert zipf.best_sign(zipf.power_law(d), 8)[0] <= 0.1


def test_half_of_the_error_of_a_token_takes_0_69_times_its_rank():
    left = (1 - 1 / 1000) ** np.arange(2000)
    assert zipf.steps_to(lambda t: float(left[t]), 0.5, most=1999) == 693


@settings(max_examples=15)
@given(steps=st.integers(1, 300), tokens=st.integers(2, 200))
def test_the_best_rate_of_sign_descent_is_no_worse_than_others(steps, tokens):
    target = zipf.power_law(tokens)
    left, lr = zipf.best_sign(target, steps)
    assert left == pytest.approx(float(zipf.linear_sign(target, steps, lr)))
    # A loose bound: rates in between the grid's may be a little better.
    assert (
        left
        <= 1.5 * min(float(zipf.linear_sign(target, steps, rate)) for rate in (target[0] / steps, target[0])) + 0.01
    )


def test_steps_to_is_the_first_step_that_suffices():
    assert zipf.steps_to(lambda t: 0.5**t, 0.125) == 3
    assert zipf.steps_to(lambda t: 0.5**t, 2.0) == 0
    with pytest.raises(ValueError, match="Allow more steps"):
        zipf.steps_to(lambda t: 0.5**t, 0.1, most=3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: zipf.power_law(1), "Invalid tokens: 1"),
        (lambda: zipf.power_law(True), "Invalid tokens: True"),
        (lambda: zipf.power_law(2.5), "a whole number >= 2"),
        (lambda: zipf.power_law(5, -1), "Invalid exponent: -1"),
        (lambda: zipf.power_law(5, math.nan), "Invalid exponent: nan"),
        (lambda: zipf.bigram(5000), "2 to 4096"),
        (lambda: zipf.descend(zipf.bigram(3), torch.optim.SGD, 0), "Invalid steps: 0"),
        (lambda: zipf.descend(zipf.bigram(3), torch.optim.SGD, 1, batch=0), "Invalid batch: 0"),
        (lambda: tails.descend(torch.optim.SGD, 1.0), "Invalid freedom: 1.0"),
        (lambda: tails.descend(torch.optim.SGD, math.nan), "Invalid freedom: nan"),
        (lambda: tails.descend(torch.optim.SGD, 2.0, steps=0), "Invalid steps: 0"),
        (lambda: tails.descend(torch.optim.SGD, 2.0, clip=0.0), "Invalid clip: 0.0"),
        (lambda: tune(lambda lr: lr, 0.0), "Invalid lr: 0.0"),
        (lambda: tune(lambda lr: lr, math.nan), "Invalid lr: nan"),
        (lambda: tune(lambda lr: lr, 1.0, factor=1.0), "Invalid factor: 1.0"),
        (lambda: tune(lambda lr: lr, 1.0, most=2), "Invalid most: 2"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)


def test_tuned_is_the_best_of_its_runs():
    problem = zipf.bigram(6)
    best = zipf.tuned(problem, torch.optim.SGD, 5.0, steps=20, batch=16)
    assert best.sweep.inside and best.loss == min(best.sweep.losses.values())
    for lr in best.sweep.losses:
        logits = zipf.descend(
            problem, lambda p, lr=lr: torch.optim.SGD(p, lr=lr), 20, batch=16, schedule=lambda t: 1 - t / 20
        )
        assert problem.loss(logits) == best.sweep.losses[lr]
    assert float(problem.frequencies.numpy() @ best.excess) == pytest.approx(best.loss)


# Tuning


@settings(max_examples=50)
@given(start=st.integers(-5, 5), optimum=st.integers(-5, 5))
def test_tuning_goes_on_until_the_optimum_is_inside(start, optimum):
    runs = []

    def final_loss(lr: float) -> float:
        runs.append(lr)
        return math.nan if math.log2(lr) > optimum + 2 else (math.log2(lr) - optimum) ** 2

    sweep = tune(final_loss, 2.0**start, most=20)
    assert sweep.lr == pytest.approx(2.0**optimum) and sweep.loss == 0 and sweep.inside
    assert len(runs) == len(set(runs)) == len(sweep.losses) and list(sweep.losses) == sorted(sweep.losses)


def test_tuning_says_when_the_optimum_stays_on_the_edge():
    sweep = tune(lambda lr: 1 / lr, 1.0, most=5)
    assert not sweep.inside and sweep.lr == 8.0 and len(sweep.losses) == 5
    nowhere = tune(lambda lr: math.inf, 1.0, most=6)
    assert not nowhere.inside and nowhere.loss == math.inf and min(nowhere.losses) == 2.0**-4


# Heavy tails


def test_without_noise_it_would_be_the_closed_form():
    """Over many dimensions normal noise leaves what theory says: mean^2 and variance of a recursion."""
    lr, steps = 0.1, 80
    ended = [tails.descend(lambda p: torch.optim.SGD(p, lr=lr), math.inf, steps=steps, seed=seed) for seed in range(60)]
    variance = lr**2 * (1 - (1 - lr) ** (2 * steps)) / (1 - (1 - lr) ** 2)
    expected = ((tails.START * (1 - lr) ** steps) ** 2 + variance) / 2
    assert np.mean(ended) == pytest.approx(expected, rel=0.05)  # 60 x 200 squares: a standard error of 1.3%


def test_clipping_helps_where_the_variance_is_infinite_and_costs_little_elsewhere():
    def end(freedom, clip):
        sgd = lambda params: torch.optim.SGD(params, lr=0.05)
        return tails.descend(sgd, freedom, clip=clip, schedule=lambda t: 1 - t / 300)

    assert end(1.5, 3.0) < end(1.5, None) / 5
    assert end(math.inf, 3.0) < 1.3 * end(math.inf, None)
    assert end(1.5, 3.0) == end(1.5, 3.0) != tails.descend(lambda p: torch.optim.SGD(p, lr=0.05), 1.5, clip=3.0, seed=1)


def test_clipping_cuts_entries_of_the_gradient():
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["params"][0].grad.clone())

    for clip in (None, 2.0):
        tails.descend(lambda params: Spy(params, lr=1.0), 1.2, steps=1, clip=clip)
    free, cut = seen
    assert free.max() > 12 and free.min() < 8
    torch.testing.assert_close(cut, free.clamp(-2, 2))


# The convolutional network


def test_the_convolutional_network_learns_the_digits_and_is_the_same_everywhere():
    data, before = digits.load(), torch.get_rng_state()
    model = convnet()
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(p.numel() for p in model.parameters()) == 9930
    assert model(data.images[:5]).shape == (5, 10)
    for mine, other in zip(model.parameters(), convnet(0).parameters(), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(model[1].weight, convnet(1)[1].weight)
    # He's scale: the second convolution has 16 * 9 inputs
    assert model[3].weight.std().item() == pytest.approx((2 / 144) ** 0.5, rel=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(
        model,
        optimizer,
        digits.batches(data.images, data.labels, 64, 60, 0),
        loss_fn=digits.loss,
        device="cpu",
        progress=False,
    )
    assert digits.accuracy(model, data.test_images, data.test_labels) > 0.85
