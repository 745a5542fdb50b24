"""course_lib.problems.sparse: the draw against its own laws, and the online pass against plain loops and autograd."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems.sparse import RareFeatures, online, rare_features

SMALL = rare_features(features=30, examples=400, seed=3)


def dense(problem: RareFeatures) -> np.ndarray:
    x = np.zeros((len(problem), len(problem.weights)))
    for example in range(len(problem)):
        for feature in problem.indices[problem.offsets[example] : problem.offsets[example + 1]]:
            x[example, feature] += 1
    return x


@given(st.integers(1, 40), st.integers(1, 1100), st.floats(0.01, 50.0), st.integers(0, 99))
@settings(max_examples=30)
def test_a_draw_is_well_formed_whatever_its_size(features, examples, often, seed):
    problem = rare_features(features, examples, often=often, seed=seed)
    assert len(problem) == examples and problem.offsets[0] == 0 and problem.offsets[-1] == len(problem.indices)
    x = dense(problem)
    assert set(np.unique(x)) <= {0.0, 1.0}, "no feature twice in one example"
    assert problem.counts.tolist() == x.sum(axis=0).tolist()
    assert set(np.unique(problem.labels)) <= {0, 1} and set(abs(problem.weights)) == {2.0}
    assert sorted(np.concatenate(list(problem.classes.values()))) == list(range(features))
    for dtype, array in ((np.int64, problem.indices), (np.int64, problem.offsets), (np.int64, problem.labels),
                         (np.float64, problem.weights), (np.float64, problem.frequencies)):
        assert array.dtype == dtype


def test_features_are_as_frequent_as_promised():
    problem = rare_features(features=300, examples=20_000, often=3.0, seed=1)
    expected = np.array([min(0.5, 3.0 / k) for k in range(1, 301)])
    deviations = (problem.counts / 20_000 - expected) / np.sqrt(expected * (1 - expected) / 20_000)
    assert abs(deviations).max() < 4.5 and 0.9 < deviations.std() < 1.1
    together = (dense(problem)[:, 0] * dense(problem)[:, 1]).mean()
    assert together == pytest.approx(0.25, abs=0.02), "features are drawn independently"


def test_labels_follow_the_logistic_model():
    problem = rare_features(features=50, examples=20_000, size=1.5, seed=2)
    margins = dense(problem) @ problem.weights
    for low, high in ((-4, -2), (-2, 0), (0, 2), (2, 4)):
        inside = (low <= margins) & (margins < high)
        expected = (1 / (1 + np.exp(-margins[inside]))).mean()
        assert problem.labels[inside].mean() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(inside.sum()))


def test_the_default_is_the_problem_that_the_docstring_describes():
    problem = rare_features()
    assert len(problem) == 15_000 and len(problem.weights) == 2000
    assert 13 < len(problem.indices) / len(problem) < 15
    assert np.median(problem.counts) < 35
    assert {name: len(members) for name, members in problem.classes.items()} == {
        "frequent": 20, "middle": 180, "rare": 1800
    }
    assert np.mean(problem.weights) == pytest.approx(0, abs=0.2)


def test_a_seed_is_one_problem():
    first, second, other = (rare_features(20, 50, seed=seed) for seed in (5, 5, 6))
    for name in ("indices", "offsets", "labels", "weights"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.labels, other.labels)


def test_batches_are_dense():
    x, y = SMALL.batch(100, 150)
    assert x.dtype == y.dtype == torch.float64
    assert np.array_equal(x.numpy(), dense(SMALL)[100:150]) and y.tolist() == SMALL.labels[100:150].tolist()
    assert SMALL.batch(7, 7)[0].shape == (0, 30)


def test_the_loss_is_torchs():
    weights = np.random.default_rng(0).normal(size=30)
    x, y = SMALL.batch(0, len(SMALL))
    expected = F.binary_cross_entropy_with_logits(x @ torch.from_numpy(weights), y).item()
    assert SMALL.loss_of(weights) == pytest.approx(expected, rel=1e-12)
    assert SMALL.loss_of(np.zeros(30)) == pytest.approx(math.log(2), rel=1e-15)
    assert SMALL.loss_of(1e6 * weights) < math.inf


def test_an_example_without_features_has_margin_zero():
    """First, in the middle, twice in a row, and last."""
    problem = RareFeatures(
        np.array([0, 1, 1]), np.array([0, 0, 2, 2, 2, 3, 3]), np.array([1, 1, 0, 1, 0, 0]), np.ones(2), np.ones(2)
    )
    margins = [0.0, 5.0, 0.0, 0.0, 3.0, 0.0]
    expected = np.mean([math.log1p(math.exp(m if label == 0 else -m)) for m, label in zip(margins, problem.labels)])
    assert problem.loss_of(np.array([2.0, 3.0])) == pytest.approx(expected, rel=1e-14)


def test_signs_are_counted_by_class():
    classes = SMALL.classes
    weights = SMALL.weights.copy()
    weights[classes["frequent"][:5]] *= -1.0
    weights[classes["middle"][:2]] = 0.0
    assert (len(classes["frequent"]), len(classes["middle"]), len(classes["rare"])) == (20, 10, 0)
    assert SMALL.sign_recovery(weights) == pytest.approx({"frequent": 0.75, "middle": 0.8}), "0 is no sign"


def by_autograd(problem: RareFeatures, make, schedule=None) -> tuple[np.ndarray, np.ndarray]:
    """The same pass with the dense data, torch's own loss and its gradient."""
    param = torch.zeros(len(problem.weights), dtype=torch.float64, requires_grad=True)
    optimizer = make([param])
    base = [group["lr"] for group in optimizer.param_groups]
    losses = []
    for step in range(len(problem)):
        x, y = problem.batch(step, step + 1)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ param, y)
        loss.backward()
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * (1.0 if schedule is None else schedule(step))
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), param.detach().numpy()


@pytest.mark.parametrize("make", [
    lambda params: torch.optim.SGD(params, lr=0.5, momentum=0.9),
    lambda params: torch.optim.Adagrad(params, lr=0.3),
    lambda params: torch.optim.Adam(params, lr=0.01),
], ids=["momentum", "adagrad", "adam"])
@pytest.mark.parametrize("schedule", [None, lambda step: (step + 1) ** -0.5], ids=["constant", "root"])
def test_the_online_pass_is_that_of_autograd(make, schedule):
    run = online(SMALL, make, schedule)
    losses, weights = by_autograd(SMALL, make, schedule)
    np.testing.assert_allclose(run.losses, losses, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(run.weights, weights, rtol=1e-8, atol=1e-10)
    assert run.mean_loss == pytest.approx(losses.mean(), rel=1e-8)


def test_the_first_step_of_sgd_by_hand():
    """At weights 0 the probability is 1/2: an example of label 1 adds lr / 2 to each of its features."""
    problem = RareFeatures(np.array([0, 2]), np.array([0, 2]), np.array([1]), np.ones(3), np.full(3, 0.5))
    run = online(problem, lambda params: torch.optim.SGD(params, lr=0.4))
    assert run.weights.tolist() == [0.2, 0.0, 0.2]
    assert run.losses.tolist() == [pytest.approx(math.log(2))]


def test_a_pass_that_diverges_stays_quiet():
    with np.errstate(all="raise", under="ignore"):
        run = online(SMALL, lambda params: torch.optim.SGD(params, lr=1e6))
    assert run.mean_loss > 1e4


def test_rare_signs_are_learned_later_by_a_falling_rate():
    """Duchi et al. 2011: at its best lr (of a grid, by mean loss) AdaGrad has the lower loss of the two."""
    problem = rare_features(features=500, examples=4000, seed=0)
    falling = min((online(problem, lambda params, lr=lr: torch.optim.SGD(params, lr=lr), lambda t: (t + 1) ** -0.5)
                   for lr in (1.0, 3.0, 10.0)), key=lambda run: run.mean_loss)
    adagrad = min((online(problem, lambda params, lr=lr: torch.optim.Adagrad(params, lr=lr))
                   for lr in (0.1, 0.3, 1.0)), key=lambda run: run.mean_loss)
    assert problem.loss_of(problem.weights) < adagrad.mean_loss < falling.mean_loss - 0.02
    recovered = {name: problem.sign_recovery(run.weights) for name, run in (("a", adagrad), ("s", falling))}
    assert recovered["a"]["rare"] > recovered["s"]["rare"] > 0.5 and recovered["a"]["frequent"] == 1.0


@pytest.mark.parametrize(("name", "value"), [
    ("features", 0), ("features", 2.0), ("examples", 0), ("examples", -1), ("often", 0.0), ("often", math.inf),
    ("often", math.nan), ("size", -1.0), ("size", math.nan),
])
def test_arguments_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*\. Allowed: "):
        rare_features(**{name: value})
