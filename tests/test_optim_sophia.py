"""Sophia and its estimates of curvature: against NumPy from the paper, the package, and exact sums over all draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_cases import leaf, run

from course_lib.optim import REGISTRY, SOAP, Muon, Shampoo, Sophia, gauss_newton_bartlett, hutchinson, sample_labels
from course_lib.problems.lm import ByteLM, LMConfig, next_byte_loss


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape)).to(dtype)


# --- The rule -------------------------------------------------------------------------------------

HYPER = {"lr": 0.05, "betas": (0.9, 0.8), "rho": 0.3, "weight_decay": 0.2}


def sophia_of_the_paper(
    w: np.ndarray, grads: list[np.ndarray], estimates: list[np.ndarray], *, lr: float, betas: tuple[float, float],
    rho: float, weight_decay: float, reference_code: bool = False, every: int = 5,
) -> tuple[list[np.ndarray], float]:  # fmt: skip
    """2305.14342, Algorithm 3, and the share of elements that were clipped; or the authors' sophia.py."""
    m, h = np.zeros_like(w), np.zeros_like(w)
    path, clipped = [], []
    for t, g in enumerate(grads):
        if t % every == 0:
            h = betas[1] * h + (1 - betas[1]) * estimates[t // every]
        m = betas[0] * m + (1 - betas[0]) * g
        w = w - lr * weight_decay * w
        if reference_code:
            step = np.sign(m) * np.minimum(np.abs(m) / (rho * h + 1e-15), 1.0)
        else:
            step = np.clip(m / np.maximum(rho * h, 1e-12), -1.0, 1.0)
        w = w - lr * step
        path.append(w)
        clipped.append(np.abs(step) == 1.0)
    return path, float(np.mean(clipped))


def walk(param: torch.Tensor, optimizer: Sophia, grads: list, estimates: list, every: int = 5) -> list[np.ndarray]:
    path = []
    for t, grad in enumerate(grads):
        if t % every == 0:
            optimizer.update_hessian(estimate=[torch.tensor(estimates[t // every])])
        path += run(optimizer, param, [grad])
    return path


@pytest.mark.parametrize("signed", [False, True], ids=["positive", "signed"])
def test_sophia_is_the_papers_algorithm_and_the_reference_codes_where_curvature_is_positive(signed):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(4, 5)), [rng.normal(size=(4, 5)) for _ in range(60)]
    estimates = [rng.normal(size=(4, 5)) * 3 if signed else rng.normal(size=(4, 5)) ** 2 * 3 for _ in range(12)]
    param = torch.tensor(start, requires_grad=True)
    path = walk(param, Sophia([param], **HYPER), grads, estimates)
    expected, clipped = sophia_of_the_paper(start, grads, estimates, **HYPER)
    assert 0.1 < clipped < 0.9, "both branches of the clip are seen"
    np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-14)
    reference, _ = sophia_of_the_paper(start, grads, estimates, **HYPER, reference_code=True)
    same = np.allclose(path, reference, rtol=1e-9, atol=1e-12)
    assert same != signed


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=str)
def test_sophia_equals_the_package_given_the_same_estimates(dtype, slack):
    pytest.importorskip("pytorch_optimizer")
    entry = REGISTRY["sophia"]
    mine, theirs = ([draw(4, 5, dtype=dtype).requires_grad_(), draw(3, dtype=dtype).requires_grad_()] for _ in "ab")
    ours, production = entry.make(mine, **HYPER), entry.production(theirs, **HYPER)
    for t in range(60):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            one.grad = draw(*one.shape, seed=10 * t + index, dtype=dtype)
            other.grad = one.grad.clone()
        estimate = None
        if t % 10 == 0:
            estimate = [draw(*one.shape, seed=10 * t + 5, dtype=dtype).square() * 3 for one in mine]
            ours.update_hessian(estimate=estimate)
        ours.step()
        production.step(hessian=estimate)
    for got, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=slack)


def test_a_step_by_hand():
    """m = 0.1 g, h = 0.2 h_hat. The first element is clipped, the second takes a Newton step, the third has no h."""
    param = leaf(1.0, 1.0, 1.0)
    optimizer = Sophia([param], lr=0.5, betas=(0.9, 0.8), rho=0.5, weight_decay=0.0)
    optimizer.update_hessian(estimate=[torch.tensor([1.0, 50.0, 0.0])])
    (got,) = run(optimizer, param, [[10.0, 10.0, -1e-6]])
    np.testing.assert_allclose(got, [1 - 0.5, 1 - 0.5 * (1.0 / 5.0), 1 + 0.5], rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(-1e6, 1e6), st.floats(1e-3, 10.0))
def test_no_element_moves_by_more_than_the_rate(grads, curvature, rho):
    param = torch.zeros(len(grads), dtype=torch.float64, requires_grad=True)
    optimizer = Sophia([param], lr=0.1, rho=rho)
    optimizer.update_hessian(estimate=[torch.full_like(param, curvature)])
    (got,) = run(optimizer, param, [grads])
    assert (np.abs(got) <= 0.1 + 1e-12).all()
    assert (got * np.asarray(grads) <= 0).all()


# --- Estimates come first -------------------------------------------------------------------------


def test_a_step_without_an_estimate_is_refused_with_what_to_do():
    param = leaf(1.0, 2.0)
    optimizer = Sophia([param])
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="no estimate of the curvature yet.*update_hessian before the first step"):
        optimizer.step()
    assert param.tolist() == [1.0, 2.0]
    optimizer.update_hessian(2)
    optimizer.step()
    assert param.tolist() != [1.0, 2.0]


def test_a_parameter_that_no_estimate_has_seen_takes_clipped_steps():
    seen, unseen = leaf(1.0), leaf(1.0)
    optimizer = Sophia([seen, unseen], lr=0.1, weight_decay=0.0)
    seen.grad = torch.ones_like(seen)
    optimizer.update_hessian(10**6)
    seen.grad, unseen.grad = torch.full_like(seen, 3.0), torch.full_like(unseen, 3.0)
    optimizer.step()
    assert unseen.item() == pytest.approx(0.9, rel=1e-12) and 0.9 < seen.item() < 1.0


def test_a_resumed_run_needs_no_new_estimate():
    param, twin = leaf(1.0, 2.0), leaf(1.0, 2.0)
    first, second = Sophia([param], lr=0.1), Sophia([twin], lr=0.1)
    param.grad = twin.grad = torch.ones(2, dtype=torch.float64)
    first.update_hessian(100)
    second.load_state_dict(first.state_dict())
    second.step()
    assert second.state[twin]["estimates"] == 1 and twin.tolist() != [1.0, 2.0]


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "either batch_size.*or estimate"),
    ({"batch_size": 4, "estimate": [torch.ones(2)]}, "either batch_size.*or estimate"),
    ({"estimate": [torch.ones(3)]}, r"Invalid estimate: shapes \[\(3,\)\].*\[\(2,\)\]"),
    ({"estimate": []}, "Invalid estimate"),
    ({"batch_size": 0}, "Invalid batch_size"),
])  # fmt: skip
def test_an_estimate_that_does_not_fit_is_refused(arguments, message):
    optimizer = Sophia([leaf(1.0, 2.0)])
    with pytest.raises(ValueError, match=message):
        optimizer.update_hessian(**arguments)
    assert not optimizer.state


def test_estimates_are_averaged_by_beta2_and_leave_weights_and_momentum_alone():
    param = leaf(1.0, 2.0)
    optimizer = Sophia([param], betas=(0.9, 0.75))
    for value in (4.0, 8.0):
        optimizer.update_hessian(estimate=[torch.full((2,), value)])
    state = optimizer.state[param]
    assert state["hessian"].tolist() == [0.75 * 1.0 + 0.25 * 8.0] * 2
    assert state["exp_avg"].tolist() == [0.0, 0.0] and param.tolist() == [1.0, 2.0]


# --- Curvature ------------------------------------------------------------------------------------


class Prepared:
    """A generator that hands out what it was given: every possible draw in turn makes an exact expectation."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values)

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> np.ndarray:
        taken, self.values = np.split(self.values, [math.prod(size)])
        assert (low, high) == (0, 2)
        return taken.reshape(size)

    def random(self, size: tuple[int, ...]) -> np.ndarray:
        return self.values.reshape(size)


def curved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A function of two tensors with mixed derivatives and negative curvature."""
    return (x[0] * x[1] ** 2).sin() + (x.sum() * y).pow(3).sum() / 3 - x[0] ** 2 * y[1]


def test_hutchinson_is_exact_on_average_over_all_sign_vectors():
    x, y = leaf(0.3, -1.2), leaf(0.7, 0.4, -0.2)
    hessian = torch.autograd.functional.hessian(curved, (x, y))
    found = [torch.zeros_like(x), torch.zeros_like(y)]
    single = []
    for bits in itertools.product((0, 1), repeat=5):
        estimate = hutchinson(curved(x, y), [x, y], Prepared(bits))
        single.append(estimate[0])
        for total, part in zip(found, estimate, strict=True):
            total += part / 32
    for got, expected in zip(found, (hessian[0][0].diagonal(), hessian[1][1].diagonal()), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert hessian[0][0].diagonal().min() < 0
    # Its variance, as the docstring says: the squares of the row's other elements.
    spread = torch.stack(single).var(0, unbiased=False)
    others = hessian[0][0].square().sum(1) - hessian[0][0].diagonal().square() + hessian[0][1].square().sum(1)
    torch.testing.assert_close(spread, others, rtol=1e-9, atol=1e-12)


def test_hutchinson_averages_its_samples_and_touches_no_gradient():
    x, y = leaf(0.3, -1.2), leaf(0.7, 0.4, -0.2)
    loss = curved(x, y)
    bits = np.random.default_rng(0).integers(0, 2, size=(3, 5))
    mean = hutchinson(loss, [x, y], Prepared(bits.ravel()), samples=3)
    singles = [hutchinson(loss, [x, y], Prepared(row)) for row in bits]
    for index in range(2):
        torch.testing.assert_close(mean[index], sum(single[index] for single in singles) / 3)
    assert x.grad is None and y.grad is None
    loss.backward()
    assert x.grad is not None, "the graph was kept"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_hutchinson_is_exact_at_once_where_the_hessian_is_diagonal(curvatures, seed):
    x = torch.ones(len(curvatures), dtype=torch.float64, requires_grad=True)
    h = torch.tensor(curvatures, dtype=torch.float64)
    (found,) = hutchinson((h * x**2).sum() / 2, [x], np.random.default_rng(seed))
    torch.testing.assert_close(found, h, rtol=1e-12, atol=1e-300)


def test_what_has_no_curvature_gets_zeros():
    x, unused = leaf(1.0, 2.0), leaf(3.0)
    rng = np.random.default_rng(0)
    assert [part.tolist() for part in hutchinson((3 * x).sum(), [x, unused], rng)] == [[0.0, 0.0], [0.0]]
    diagonal, nothing = hutchinson((x**2).sum(), [x, unused], rng)
    assert diagonal.tolist() == [2.0, 2.0] and nothing.tolist() == [0.0]
    with pytest.raises(ValueError, match=r"Invalid loss: shape \(2,\).*a scalar"):
        hutchinson(x**2, [x], rng)
    for samples in (0, 1.0, True):
        with pytest.raises(ValueError, match="Invalid samples"):
            hutchinson((x**2).sum(), [x], rng, samples=samples)


def softmax_regression(batch: int = 3, classes: int = 3) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Inputs, and a weight and a bias."""
    return draw(batch, 2, seed=1), [draw(classes, 2, seed=2).requires_grad_(), draw(classes, seed=3).requires_grad_()]


def test_gauss_newton_bartlett_is_exact_on_average_over_all_labels():
    """For softmax regression the Gauss-Newton matrix is the Hessian, whatever the labels of the data are.

    Every combination of labels is brought about by a draw in the middle of its interval of the distribution.
    """
    x, params = softmax_regression()
    labels_of_the_data = torch.tensor([2, 0, 1])
    hessian = torch.autograd.functional.hessian(
        lambda weight, bias: F.cross_entropy(x @ weight.T + bias, labels_of_the_data), tuple(params)
    )
    p = (x @ params[0].T + params[1]).detach().softmax(-1).numpy()
    edges = np.cumsum(p, axis=1)
    found, total = [torch.zeros_like(param) for param in params], 0.0
    for labels in itertools.product(range(3), repeat=3):
        rows = np.arange(3)
        probability = p[rows, labels].prod()
        middle = edges[rows, labels] - p[rows, labels] / 2
        estimate = gauss_newton_bartlett(x @ params[0].T + params[1], params, Prepared(middle))
        total += probability
        for sum_, part in zip(found, estimate, strict=True):
            assert (part >= 0).all()
            sum_ += probability * part
    assert total == pytest.approx(1.0, rel=1e-12)
    torch.testing.assert_close(found[0], torch.einsum("ijij->ij", hessian[0][0]), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found[1], hessian[1][1].diagonal(), rtol=1e-11, atol=1e-13)


def test_labels_of_the_data_and_a_forgotten_batch_size_are_biased():
    """The two usual slips: neither has the diagonal of the Gauss-Newton matrix as its expectation."""
    x, params = softmax_regression()
    rng = np.random.default_rng(0)
    mean = sum(gauss_newton_bartlett(x @ params[0].T + params[1], params, rng)[1] for _ in range(2000)) / 2000
    exact = torch.autograd.functional.hessian(
        lambda bias: F.cross_entropy(x @ params[0].T + bias, torch.tensor([2, 0, 1])), params[1]
    ).diagonal()
    torch.testing.assert_close(mean, exact, rtol=0.15, atol=0)
    (grad,) = torch.autograd.grad(F.cross_entropy(x @ params[0].T + params[1], torch.tensor([2, 0, 1])), [params[1]])
    assert ((3 * grad**2 - exact).abs() > 0.3 * exact).any()
    assert (mean / 3 < 0.5 * exact).all()


def test_gradients_with_sampled_labels_and_the_batch_size_are_the_same_estimate():
    x, params = softmax_regression(batch=6)
    optimizers = Sophia(params, betas=(0.9, 0.5)), Sophia(params, betas=(0.9, 0.5))
    logits = x @ params[0].T + params[1]
    labels = sample_labels(logits, np.random.default_rng(4))
    F.cross_entropy(logits, labels).backward()
    optimizers[0].update_hessian(batch_size=6)
    estimate = gauss_newton_bartlett(x @ params[0].T + params[1], params, np.random.default_rng(4))
    optimizers[1].update_hessian(estimate=estimate)
    for param, part in zip(params, estimate, strict=True):
        first, second = (optimizer.state[param]["hessian"] for optimizer in optimizers)
        torch.testing.assert_close(first, second, rtol=1e-12, atol=0)
        torch.testing.assert_close(first, part / 2, rtol=1e-12, atol=0)


def test_labels_are_drawn_as_often_as_their_probability_says():
    p = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    logits = p.log().expand(20_000, 4).reshape(100, 200, 4)
    labels = sample_labels(logits, np.random.default_rng(0))
    assert labels.shape == (100, 200) and labels.dtype == torch.int64
    shares = torch.bincount(labels.flatten(), minlength=4) / 20_000
    assert shares[1] == 0
    torch.testing.assert_close(shares.double(), p, rtol=0, atol=0.015)  # four standard deviations
    for first in (0.0, 1 - 2**-53):
        assert sample_labels(torch.tensor([-math.inf, 0.0, -math.inf]), Prepared(np.array(first))).item() == 1


@pytest.mark.parametrize("logits", [torch.tensor([[0.0, math.nan]]), torch.tensor([[math.inf, 0.0]]),
                                    torch.zeros(0, 3), torch.zeros(2, 0), torch.tensor(1.0)],
                         ids=["nan", "inf", "no prediction", "no class", "scalar"])  # fmt: skip
def test_logits_from_which_nothing_can_be_drawn_are_refused(logits):
    with pytest.raises(ValueError, match="Invalid logits.*Allowed"):
        sample_labels(logits, np.random.default_rng(0))


# --- On a language model --------------------------------------------------------------------------


def language_model() -> tuple[ByteLM, tuple[torch.Tensor, torch.Tensor]]:
    text = torch.as_tensor(np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 9, dtype=np.uint8).copy())
    tokens = text[: 8 * 33].view(8, 33).long()
    return ByteLM(LMConfig(layers=1, width=16, heads=2, context=32)), (tokens[:, :-1], tokens[:, 1:])


@pytest.mark.parametrize("key", ["muon", "shampoo", "soap", "sophia"])
def test_a_language_model_learns_with_each(key):
    """From log(256) = 5.5 nats to below 3.8 in 40 steps, which each of them clears by a wide margin."""
    model, batch = language_model()
    hidden = [param for name, param in model.named_parameters() if param.ndim == 2 and name.startswith("blocks")]
    others = [param for param in model.parameters() if all(param is not each for each in hidden)]
    optimizer = {
        "muon": lambda: Muon([{"params": hidden}, {"params": others, "adamw": True}], lr=0.02),
        "shampoo": lambda: Shampoo(model.parameters(), lr=0.02),
        "soap": lambda: SOAP(model.parameters(), lr=0.02),
        "sophia": lambda: Sophia(model.parameters(), lr=0.01),
    }[key]()
    rng = np.random.default_rng(0)
    for number in range(40):
        if key == "sophia" and number % 10 == 0:
            optimizer.update_hessian(estimate=gauss_newton_bartlett(model(batch[0]), list(model.parameters()), rng))
        optimizer.zero_grad()
        next_byte_loss(model, batch).backward()
        optimizer.step()
    assert next_byte_loss(model, batch) < 3.8


def test_hutchinson_on_a_transformer_needs_attention_that_can_be_differentiated_twice():
    model, batch = language_model()
    params = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        diagonal = hutchinson(next_byte_loss(model, batch), params, np.random.default_rng(0))
    assert all(part.shape == param.shape and part.isfinite().all()
               for part, param in zip(diagonal, params, strict=True))  # fmt: skip
    assert any((part < 0).any() for part in diagonal)
