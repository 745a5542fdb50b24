"""Evidence for ``bank/why_adam.yaml``.

Written without ``course_lib.problems``, so that notebook 06 and the bank do not share their code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from course_lib.questions.evidence._feed import ADAM, SGD, both_versions, state_bytes


def _table(tokens: int, exponent: float) -> tuple[Tensor, Tensor]:
    """Frequencies (d,) and distributions of the next token (d, d), Zipf's in an order of its own for each row."""
    weights = 1 / np.arange(1, tokens + 1)
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(weights / weights.sum()) for _ in range(tokens)])
    frequencies = weights**exponent
    return torch.from_numpy(frequencies / frequencies.sum()), torch.from_numpy(rows)


def _excess(
    frequencies: Tensor,
    rows: Tensor,
    make: Callable[..., torch.optim.Optimizer],
    steps: int = 100,
    batch: int = 0,
    divide: bool = False,
) -> Tensor:
    """KL divergence of each row after training a softmax table; rates decay to zero; batch 0 is the exact gradient."""
    rng, joint = np.random.default_rng(1), frequencies[:, None] * rows
    logits = torch.zeros_like(rows)
    optimizer = make([logits])
    base = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        pairs = joint
        if batch:
            pairs = torch.from_numpy(rng.multinomial(batch, joint.flatten().numpy()).reshape(rows.shape) / batch)
        logits.grad = logits.softmax(1) * pairs.sum(1, keepdim=True) - pairs
        if divide:
            logits.grad /= frequencies[:, None]
        optimizer.param_groups[0]["lr"] = base * (1 - step / steps)
        optimizer.step()
    return (rows * (rows.log() - logits.log_softmax(1))).sum(1)


_RATES = {
    SGD: {64: (1.2, 5.0, 20.0, 80.0), 0: (20.0, 80.0, 320.0, 1280.0)},
    ADAM: {64: (0.02, 0.08, 0.32), 0: (0.32, 1.28, 5.12)},
}


@cache
def _best(make: type, exponent: float, batch: int) -> float:
    """Lowest mean excess loss over the rates for 64 tokens; the best one must not lie on the edge."""
    frequencies, rows = _table(64, exponent)
    rates = _RATES[make][batch]
    hyper = {"momentum": 0.9} if make is SGD else {}
    losses = [
        (frequencies @ _excess(frequencies, rows, lambda p, lr=lr: make(p, lr=lr, **hyper), batch=batch)).item()
        for lr in rates
    ]
    at = int(np.nanargmin(losses))
    assert 0 < at < len(rates) - 1, f"the best rate is on the edge: {dict(zip(rates, losses, strict=True))}"
    return losses[at]


def gap_needs_imbalance_and_quiet() -> None:
    """SGD's excess loss is over 20 times Adam's for Zipf's law and the exact gradient; no worse at a batch of 64."""
    ratio = {
        (exponent, batch): (_best(SGD, exponent, batch) + 1e-5) / (_best(ADAM, exponent, batch) + 1e-5)
        for exponent in (0.0, 1.0)
        for batch in (64, 0)
    }
    assert ratio[1.0, 0] > 20
    assert max(ratio[0.0, 0], ratio[0.0, 64], ratio[1.0, 64]) < 1.5


def reweighting_closes_the_gap() -> None:
    """With each row's gradient divided by its frequency, SGD on Zipf's law is SGD on equal frequencies, to rounding."""
    frequencies, rows = _table(64, 1.0)
    equal, _ = _table(64, 0.0)
    divided = _excess(frequencies, rows, lambda p: SGD(p, lr=1.0, momentum=0.9), divide=True)
    plain = _excess(equal, rows, lambda p: SGD(p, lr=64.0, momentum=0.9))
    np.testing.assert_allclose(divided, plain, rtol=1e-6)


def token_wait(rank: int = 10_000, left: float = 0.1) -> float:
    """Steps of gradient descent at 1 / largest curvature until this share of the error of the token is left."""
    steps = math.log(left) / math.log1p(-1 / rank)
    whole = math.ceil(steps)
    assert (1 - 1 / rank) ** whole <= left < (1 - 1 / rank) ** (whole - 1)
    return float(whole)


def softmax_gradient_is_dense() -> None:
    """Every row of the head gets a gradient from one token; the embedding of an absent token gets exactly none."""
    rng = np.random.default_rng(0)
    embedding, head = (torch.from_numpy(rng.normal(size=(50, 8))).requires_grad_() for _ in range(2))
    logits = embedding[torch.tensor([3])] @ head.T
    torch.nn.functional.cross_entropy(logits, torch.tensor([7])).backward()
    assert (head.grad != 0).all()
    assert (embedding.grad != 0).any(1).sum() == 1


def units_of_the_rate() -> None:
    """The loss times c: SGD's path needs lr / c, Adam's needs the same lr."""

    def path(make: type, lr: float, scale: float) -> np.ndarray:
        x = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        hyper = {"eps": 1e-30} if make is ADAM else {}
        optimizer, points = make([x], lr=lr, **hyper), []
        for _ in range(50):
            x.grad = scale * x * torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
            optimizer.step()
            points.append(x.clone())
        return torch.stack(points).numpy()

    for scale in (1e-3, 1e3):
        np.testing.assert_allclose(path(SGD, 0.1 / scale, scale), path(SGD, 0.1, 1.0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(path(ADAM, 0.1, scale), path(ADAM, 0.1, 1.0), rtol=1e-9, atol=1e-12)


def gap_opens_with_the_batch() -> None:
    """On Zipf's law SGD is ahead at 64 pairs a step and far behind at the exact gradient, each tuned inside its grid."""
    assert _best(SGD, 1.0, 64) < _best(ADAM, 1.0, 64)
    assert _best(SGD, 1.0, 0) > 20 * _best(ADAM, 1.0, 0)


def heavy_tails_want_clipping() -> None:
    """A mean of noise without variance: averaging fails, clipping first works, and with normal noise the two tie."""
    rng = np.random.default_rng(0)
    error = {}
    for name, noise in (("normal", rng.standard_normal((400, 500))), ("heavy", rng.standard_t(1.2, (400, 500)))):
        gradient = 0.5 + noise
        error[name] = [np.mean((estimate.mean(0) - 0.5) ** 2) for estimate in (gradient, np.clip(gradient, -5, 5))]
    assert error["normal"][0] < 1.05 * error["normal"][1]
    assert error["heavy"][0] > 10 * error["heavy"][1]


def steps_with_one_rate(largest: int = 5000, left: float = 0.1) -> float:
    """Steps of gradient descent at its best single rate until this share of the slowest error is left."""
    contraction = (largest - 1) / (largest + 1)
    lr, curvatures = 2 / (largest + 1), np.array([1.0, largest])
    assert np.allclose(abs(1 - lr * curvatures), contraction)
    per_block = max(
        (max(block) - min(block)) / (max(block) + min(block))
        for block in ((1, 2, 3), (99, 100, 101), (largest - 2, largest - 1, largest))
    )
    assert per_block == 0.5 and math.ceil(math.log(0.1) / math.log(per_block)) == 4
    return float(math.ceil(math.log(left) / math.log(contraction)))


def gd_and_sign_by_frequency() -> None:
    """One margin: gradient descent leaves a loss of 1 / (pi t), sign descent exp(-lr t) whatever pi is."""

    def losses(frequency: float, sign: bool, steps: int, lr: float) -> float:
        w = 0.0
        for _ in range(steps):
            gradient = -frequency / (1 + math.exp(w))
            w -= lr * (math.copysign(1, gradient) if sign else gradient)
        return math.log1p(math.exp(-w))

    for frequency in (0.1, 0.01):
        assert 0.7 < losses(frequency, False, 20_000, 1.0) * frequency * 20_000 < 1.3
        assert losses(frequency, True, 200, 0.05) == losses(0.5, True, 200, 0.05) < 1.1 * math.exp(-0.05 * 200)
    assert losses(0.01, False, 20_000, 1.0) > 8 * losses(0.1, False, 20_000, 1.0)


def toy_without_a_floor() -> None:
    """The synthetic set of 2402.19449, section 3, shrunk to 31 classes: separable, and SGD reaches zero like Adam."""
    rng, level = np.random.default_rng(0), 5
    labels = torch.tensor([c for c in range(2**level - 1) for _ in range(2 ** (level - int(math.log2(c + 1))))])
    features = torch.from_numpy(rng.random((len(labels), 192)))
    assert (len(labels), labels.bincount().max(), labels.bincount().min()) == (160, 32, 2)
    targets = torch.nn.functional.one_hot(labels).double()
    for make, hyper in ((SGD, {"lr": 5.0, "momentum": 0.9}), (ADAM, {"lr": 1.0})):
        weights = torch.zeros(192, 31, dtype=torch.float64)
        optimizer = make([weights], **hyper)
        for _ in range(150):
            weights.grad = features.T @ ((features @ weights).softmax(1) - targets) / len(labels)
            optimizer.step()
        assert torch.nn.functional.cross_entropy(features @ weights, labels) < 1e-2


def state_that_sgd_saves(parameters: float = 7e9) -> None:
    """Momentum keeps one float32 tensor per parameter, Adam two, plain SGD none: 28, 56 and 0 GB for 7 billion."""
    kept = [state_bytes(SGD), state_bytes(SGD, momentum=0.9), state_bytes(ADAM)]
    assert [size * parameters / 1e9 for size in kept] == [0, 28, 56]


def sign_is_not_all_of_adam() -> None:
    """Steps on a gradient of pure noise: the sign's are always lr, Adam's have RMS sqrt(0.1 / 1.9) lr."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((3000, 200)))
    x = torch.zeros(200, dtype=torch.float64)
    optimizer, steps = ADAM([x], lr=1.0), []
    for gradient in noise:
        before = x.clone()
        x.grad = gradient
        optimizer.step()
        steps.append(x - before)
    rms = torch.stack(steps[-1000:]).square().mean().sqrt().item()
    assert abs(rms - math.sqrt(0.1 / 1.9)) < 0.02


def warm_model_between_rates() -> None:
    """The faulty sweep says that the last rate is best, in whatever order the rates come; the repaired one does not."""
    for rates in ([0.1, 0.2, 0.4], [0.4, 0.2, 0.1], [0.2, 0.4, 0.1]):

        def make_model() -> torch.nn.Linear:
            layer = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
            with torch.no_grad():
                layer.weight.copy_(torch.tensor([[1.0, 1.0]]))
            return layer

        def train(model: torch.nn.Linear, lr: float) -> float:
            curvature = torch.tensor([[1.0, 5.5]], dtype=torch.float64)
            with torch.no_grad():
                for _ in range(5):
                    model.weight -= lr * curvature * model.weight
                return float((curvature * model.weight.square()).sum())

        chosen = {
            name: sweep(rates, make_model, train)
            for name, sweep in both_versions("why-adam-warm-sweep", "sweep").items()
        }
        assert chosen == {"code": rates[-1], "fixed": 0.2}
