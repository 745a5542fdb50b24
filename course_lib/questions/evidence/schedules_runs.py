"""Curves for the read-run questions of ``bank/schedules.yaml``, schedules as one writes them, a log that deceives."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.optim import lr_scheduler

from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.sharpness import sharpness
from course_lib.questions.evidence._feed import SGD, both_versions
from course_lib.questions.runs import Curves, Panel


def one_large_swing() -> Curves:
    """A tanh network under gradient descent on all data, warmed up over 400 updates to 3 times the start's limit.

    The loss jumps more than fourfold near update 190 and is below its old value at 250; sharpness falls from 50 to 20.
    """
    loss, point = tanh_fit()
    point = 1.5 * point
    peak = 3 * 2 / sharpness(loss, point)
    losses, sharp, rates = [], [], []
    for t in range(400):
        rates.append(peak * (t + 1) / 400)
        value = loss(point.requires_grad_())
        (gradient,) = torch.autograd.grad(value, point)
        point = point.detach()
        losses.append(value.item())
        sharp.append(sharpness(loss, point, iterations=30) if 100 <= t < 300 and t % 4 == 0 else math.nan)
        point = point - rates[-1] * gradient
    before, after = sharp[160], sharp[240]
    assert max(losses[150:250]) > 4 * losses[150] > 4 * losses[250] and before > 1.8 * after
    shown = slice(100, 300, 2)
    return Curves(
        "update",
        [float(t) for t in range(100, 300, 2)],
        [
            Panel("loss", {"run": losses[shown]}, log=True),
            Panel("largest eigenvalue of the Hessian", {"run": _filled(sharp[100:300])[::2]}),
            Panel("learning rate", {"run": rates[shown]}),
        ],
        exact=False,
    )


def _filled(values: list[float]) -> list[float]:
    """Straight lines through the values that are numbers."""
    known = [index for index, value in enumerate(values) if not math.isnan(value)]
    return np.interp(range(len(values)), known, [values[index] for index in known]).tolist()


def _noisy_run(rates: np.ndarray, curvature: np.ndarray, start: float) -> np.ndarray:
    """Weights (T + 1, n) of SGD on a quadratic with noise of 0.3 in each gradient."""
    rng = np.random.default_rng(0)
    path = [np.full(len(curvature), start)]
    for rate in rates:
        path.append(path[-1] - rate * (curvature * path[-1] + 0.3 * rng.standard_normal(len(curvature))))
    return np.array(path)


def late_drop() -> Curves:
    """SGD on a noisy quadratic at 0.1 for 1,800 updates, then to zero in 200; 20 copies, averaged.

    From update 1,200 to 1,800 the loss falls by less than 10%, in the last 200 by 20 to 40%. The mean of the last 200
    weights of the plateau is within 10% of where the run ends.
    """
    curvature, rates = np.repeat(np.logspace(0, -3, 60), 20), 0.1 * np.minimum(1, (2000 - np.arange(2000)) / 200)
    path = _noisy_run(rates, curvature, start=2.0)
    sums = np.cumsum(path, axis=0)
    last, means = ((curvature * rows**2).sum(axis=1) / 40 for rows in (path, (sums[200:] - sums[:-200]) / 200))
    plateau = last[1700:1800].mean()
    assert plateau > 0.9 * last[1150:1250].mean() and 0.6 < last[-1] / plateau < 0.8
    assert abs(means[1600] / last[-1] - 1) < 0.1  # of the updates 1,600 to 1,800
    return Curves(
        "update",
        [float(t) for t in range(1000, 2000, 5)],
        [
            Panel("loss", {"last weights": last[1000:2000:5].tolist(), "mean of 200": means[800:1800:5].tolist()}),
            Panel("learning rate", {"run": rates[1000::5].tolist()}),
        ],
    )


def extended_run() -> Curves:
    """SGD on a noisy quadratic with torch's CosineAnnealingLR(T_max=10,000), run on to 20,000 updates.

    Validation is a quadratic with another minimum. Both losses are lowest near 10,000 and rise from there.
    """
    optimizer = SGD([torch.zeros(1)], lr=0.2)
    scheduler, rates = lr_scheduler.CosineAnnealingLR(optimizer, T_max=10_000), []
    for _ in range(20_000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    curvature = np.repeat(np.logspace(0, -2, 60), 4)
    path = _noisy_run(np.array(rates), curvature, start=1.0)[::100]
    train, validation = ((curvature * rows**2).sum(axis=1) / 8 for rows in (path, path - 0.3))
    for losses in (train, validation):
        assert losses[40:60].mean() > 1.1 * losses[95:105].mean() < losses[-10:].mean() / 1.3
    return Curves(
        "update",
        [float(t) for t in range(2000, 20_001, 100)],
        [Panel("loss", {"training": train[20:].tolist(), "validation": validation[20:].tolist()})],
    )


def log_at_the_peak() -> None:
    """The bank's loop, 50 epochs of 20 batches, logged every 100 updates: the code's log shows the peak each time.

    In fact the rate swings between the peak and zero every 50 updates, and the last update is at the peak. The fix
    comes down once, from 1 to 0. Over 10,000 updates on a noisy quadratic the code ends more than three times higher.
    """
    ends = {}
    for name, fit in both_versions("schedules-bug-epochs-for-steps", "fit").items():
        weight, logged, rates = torch.zeros(1, requires_grad=True), {}, []
        stepper = SGD([weight], lr=1.0)

        def loss_of(batch: float, weight=weight, stepper=stepper, rates=rates) -> torch.Tensor:
            rates.append(stepper.param_groups[0]["lr"])
            return batch * weight.sum()

        fit(stepper, loss_of, [1.0] * 20, 50, logged.__setitem__)
        shown, period = np.array(list(logged.values())), 50 if name == "code" else 1000
        assert list(logged) == list(range(0, 1000, 100))
        assert np.allclose(shown, 1.0) if name == "code" else (np.diff(shown) < 0).all()
        np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(1000) / period)) / 2, atol=1e-6)
        curvature, updates = np.repeat(np.logspace(0, -2, 60), 4), np.arange(10_000)
        period = 50 if name == "code" else 10_000
        last = _noisy_run(0.05 * (1 + np.cos(np.pi * updates / period)), curvature, start=1.0)[-1]
        ends[name] = (curvature * last**2).sum()
    assert ends["code"] > 3 * ends["fixed"]


def _warmup_cosine(step: int, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1))) / 2


def edges_of_a_cosine() -> None:
    """Warmup 10, total 100, floor 0.1: 0.1 at step 0, 1 at steps 9 and 10, just above the floor at 99, then the floor.

    The descent is torch's; without the min it climbs again. A descent over total steps after the warmup ends at 0.12,
    max(floor, cosine) sits on the floor for the last 18 steps, and warmup 0 needs the test of step < warmup first.
    """
    values = [_warmup_cosine(step, 10, 100, 0.1) for step in range(150)]
    assert [values[step] for step in (0, 9, 10, 100, 149)] == [0.1, 1.0, 1.0, 0.1, 0.1]
    assert 0.1 < values[99] < 0.1003 and _warmup_cosine(0, 0, 50, 0.1) == 1.0
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    scheduler, theirs = lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1), []
    for _ in range(140):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(values[10:101], theirs[:91], rtol=1e-9)
    assert theirs[-1] > 0.6
    share = np.arange(91) / 100
    assert round(float((0.1 + 0.45 * (1 + np.cos(np.pi * share)))[-1]), 2) == 0.12
    assert int((np.maximum(0.1, (1 + np.cos(np.pi * np.arange(90) / 90)) / 2) == 0.1).sum()) == 18


def edges_of_a_plateau() -> None:
    """Total 1,000, warmup 50, a fall over the last 20%: 1 up to step 800, the first of the fall; 0.29 half way.

    1 - sqrt has a mean of one third, and is 0.0025 at the last update. A warmup of 900 is kept
    and the fall shortened. Python's round takes a half to the even number: 0.05 of 50 updates are 2.
    """

    def factor(step: int, warmup: int, total: int, share: float, floor: float = 0.0) -> float:
        start = max(total - round(share * total), warmup)
        if step < warmup:
            return (step + 1) / warmup
        return 1.0 if step < start else floor + (1 - floor) * (1 - math.sqrt(min((step - start) / (total - start), 1)))

    values = [factor(step, 50, 1000, 0.2) for step in range(1001)]
    assert values[49:801] == [1.0] * 752 and 0.92 < values[801] < 0.94 and round(values[900], 2) == 0.29
    assert round(values[999], 4) == 0.0025 and values[1000] == 0
    assert abs(np.mean(values[800:1000]) - 1 / 3) < 0.01
    assert [factor(step, 900, 1000, 0.2) for step in (899, 900, 1000)] == [1.0, 1.0, 0.0]
    assert factor(901, 900, 1000, 0.2) == 0.9 and round(0.05 * 50) == 2
