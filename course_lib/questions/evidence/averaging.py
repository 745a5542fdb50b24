"""Evidence for ``bank/averaging.yaml``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.averaging import EMA
from course_lib.questions.evidence._feed import (
    ADAM,
    SGD,
    both_versions,
    descent,
    normal,
    path_of,
)


def an_average_is_a_decay() -> None:
    """The mean of the last k weights is the weight before them less their updates, weighted k/k, (k-1)/k, ..., 1/k.

    For Adam as for any optimizer; an EMA gives an update of age a the weight 1 - decay^(a + 1).
    """
    k, decay = 40, 0.95
    path = path_of(ADAM, np.ones(5), normal(100, 5), lr=0.01)
    updates = np.diff(path, axis=0)[-k:]
    fall = np.arange(k, 0, -1) / k
    np.testing.assert_allclose(path[-k:].mean(axis=0), path[-k - 1] + fall @ updates, atol=1e-12)
    weights = np.r_[decay**100, (1 - decay) * decay ** np.arange(99, -1, -1)]
    ages = np.arange(99, -1, -1)
    np.testing.assert_allclose(weights @ path, path[0] + (1 - decay ** (ages + 1)) @ np.diff(path, axis=0), atol=1e-12)


def tail_mean_and_linear_decay() -> None:
    """Exact variances on a parabola of curvature h with noise 1, k updates long, started from the noise floor.

    Steep (lr h k = 100): both remove nine tenths and more, the mean the most, 1 / (h^2 k). Flat (lr h k = 0.1): neither
    removes much.
    """
    rate, k = 0.1, 1000
    for curvature, mean_left, decay_left in ((1.0, (0.015, 0.025), (0.07, 0.1)), (1e-3, (0.85, 1.0), (0.85, 1.0))):
        floor = rate / (curvature * (2 - rate * curvature))
        rho = 1 - rate * curvature
        lags = np.arange(1, k)
        mean = floor / k * (1 + 2 * np.sum((1 - lags / k) * rho**lags))
        decayed = floor
        for t in range(k):
            lr = rate * (1 - t / k)
            decayed = (1 - lr * curvature) ** 2 * decayed + lr**2
        assert mean_left[0] < mean / floor < mean_left[1] and decay_left[0] < decayed / floor < decay_left[1]
        if curvature == 1.0:
            assert abs(mean * k * curvature**2 - 1) < 0.02


def variance_gained(decay: float = 0.999, correlation: float = 0.99) -> float:
    """By which factor an EMA's variance is below that of weights of variance 1 whose neighbours are correlated."""
    average = mixed = 0.0  # variance of the average, and its covariance with the weight
    for _ in range(round(25 / (1 - max(decay, correlation)))):
        mixed = decay * correlation * mixed + (1 - decay)
        average = decay**2 * average + 2 * decay * (1 - decay) * (mixed - (1 - decay)) / decay + (1 - decay) ** 2
    gained = 1 / average
    closed = (1 + decay) / (1 - decay) * (1 - correlation * decay) / (1 + correlation * decay)
    assert abs(gained / closed - 1) < 1e-3
    return gained


def frozen_average() -> None:
    """A bf16 average with decay 0.999 does not leave its start for weights that double; in float32 it follows."""
    for name, average in both_versions("averaging-bug-bf16-ema", "Average").items():
        weight = torch.nn.Parameter(torch.linspace(0.5, 1.0, 8).bfloat16())
        start, ema = weight.detach().float(), average([weight], 0.999)
        with torch.no_grad():
            weight.mul_(2)
        for _ in range(5000):
            ema.update()
        ended = ema.averages[0].float()
        assert torch.equal(ended, start) if name == "code" else torch.allclose(ended, 2 * start, rtol=0.01)
    for dtype, decay in ((torch.bfloat16, 0.999), (torch.float16, 0.9999)):
        marks = (1 + torch.arange(128) / 128).to(dtype)
        assert torch.equal(marks * decay, marks)


def corrected_average() -> None:
    """The corrected EMA is the weighted mean of what it saw; one NaN taken in stays for ever.

    After 10 values of 5 the plain average from zero is 0.05 with decay 0.999, the corrected one 5; and batch norm's
    running statistics are no parameters.
    """
    weight = torch.nn.Parameter(torch.full((1,), 5.0, dtype=torch.float64))
    corrected, plain = EMA([weight], 0.999), 0.0
    for _ in range(10):
        corrected.update()
        plain = 0.999 * plain + 0.001 * 5
    assert abs(corrected.averaged()[0].item() - 5) < 1e-12 and round(plain, 2) == 0.05
    values = normal(30, 1)[:, 0]
    m = 0.0
    for value in values:
        m = 0.9 * m + 0.1 * value
    shares = 0.9 ** np.arange(29, -1, -1)
    np.testing.assert_allclose(m / (1 - 0.9**30), shares @ values / shares.sum(), rtol=1e-12)
    m = 0.0
    for value in (1.0, float("nan"), *[1.0] * 1000):
        m = 0.9 * m + 0.1 * value
    assert np.isnan(m)
    norm = torch.nn.BatchNorm1d(2)
    assert {name for name, _ in norm.named_parameters()}.isdisjoint({"running_mean", "running_var"})
    x = torch.tensor(normal(64, 2)).float() * 3 + 1
    F.batch_norm(x, norm.running_mean, norm.running_var, training=True, momentum=1.0)
    assert abs(float(norm.running_mean[0])) > 0.5


def _schedule_free(lr: float, beta: float, curvature: np.ndarray, steps: int, noise: float) -> dict[str, np.ndarray]:
    """Schedule-Free SGD on 0.5 * h * w^2 from 1; x, y and z at the end, and all z."""
    rng = np.random.default_rng(0)
    z = x = np.ones_like(curvature)
    path = []
    for t in range(1, steps + 1):
        y = (1 - beta) * z + beta * x
        z = z - lr * (curvature * y + noise * rng.standard_normal(len(curvature)))
        x = x + (z - x) / t
        path.append(z)
    return {"x": x, "y": y, "z": z, "path": np.stack(path)}


def schedule_free_is_more_than_a_mean() -> None:
    """beta 0 is SGD and the mean of its path. beta 0.9 is stable up to lr h = 20 where SGD stops at 2.

    At a rate that both survive, plain averaging ends lower on a noisy quadratic.
    """
    bowl = np.array([1.0, 0.3])
    none = _schedule_free(0.5, 0.0, bowl, 50, 0.0)
    sgd = descent(SGD, lambda weight: bowl * weight, np.ones(2), 50, lr=0.5)
    np.testing.assert_allclose(none["path"], sgd[1:], atol=1e-12)
    np.testing.assert_allclose(none["x"], sgd[1:].mean(axis=0), atol=1e-12)
    one = np.array([1.0])
    for rate, bounded in ((1.9, True), (2.5, False)):
        assert bool(abs(_schedule_free(rate, 0.0, one, 500, 0.0)["z"][0]) < 1) == bounded
    for rate, bounded in ((2.5, True), (15.0, True), (21.0, False)):
        assert bool(abs(_schedule_free(rate, 0.9, one, 3000, 0.0)["x"][0]) < 1) == bounded
    plain, free = (_schedule_free(1.0, beta, np.ones(1000), 1000, 1.0) for beta in (0.0, 0.9))
    loss = {name: float(np.mean(free[name] ** 2)) / 2 for name in "xyz"}
    assert np.mean(plain["x"] ** 2) / 2 < 0.3 * loss["x"] and 10 * loss["x"] < 2 * loss["y"] < 0.1 * loss["z"]
