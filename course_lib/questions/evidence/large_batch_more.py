"""Evidence for ``bank/large_batch.yaml``: two runs to read, steps against tokens, the code of two exercises."""

from __future__ import annotations

import functools
import math

import numpy as np

from course_lib.questions.evidence._feed import ADAM, normal, path_of
from course_lib.questions.runs import Curves, Panel, thinned


@functools.cache
def _noise_over_a_run(steps: int = 451, batch: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, |G|^2 and tr S at each step of SGD on least squares with 4,096 examples and 8 weights."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 8))
    y = (x * 3 * rng.standard_normal(8)).sum(axis=1) + rng.standard_normal(4096)
    w, seen = np.zeros(8), []
    for _ in range(steps):
        error = (x * w).sum(axis=1) - y
        each = x * error[:, None]
        mean = each.mean(axis=0)
        seen.append((np.square(error).mean() / 2, np.square(mean).sum(), np.square(each - mean).sum(axis=1).mean()))
        w = w - 0.01 * each[rng.integers(0, 4096, batch)].mean(axis=0)
    return tuple(np.array(seen).T)


def noise_scale_over_a_run() -> Curves:
    """The noise scale of a run, what it is made of, and the loss."""
    loss, signal, scatter = _noise_over_a_run()
    panels = [
        Panel("noise scale (examples)", {"tr S / |G|^2": thinned(scatter / signal)}, log=True),
        Panel("squared size", {"|G|^2, mean gradient": thinned(signal), "tr S, scatter": thinned(scatter)}, log=True),
        Panel("loss", {"all examples": thinned(loss)}),
    ]
    return Curves("step", thinned(np.arange(len(loss))), panels)


def noise_scale_grows_as_the_loss_falls() -> None:
    """From a batch at 11 times the noise scale to one at a fifth: |G|^2 falls 5,700-fold, tr S a hundredfold."""
    loss, signal, scatter = _noise_over_a_run()
    scale = scatter / signal
    assert (round(scale[0]), round(scale[-1], -1)) == (9, 550) and 10 < 100 / scale[0] < 11.5
    assert 0.17 < 100 / scale[-1] < 0.2 and 345 < np.argmax(scale > 100) < 365
    assert 5_600 < signal[0] / signal[-1] < 5_800 and 90 < scatter[0] / scatter[-1] < 100
    assert 8 < scatter[300:].min() and scatter[300:].max() < 11, "the scatter is level from step 300 on"
    assert (np.diff(thinned(loss, 40)) < 0).all()


@functools.cache
def _steps_by_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches, fewest steps to a twentieth of the loss, and the rate that needs them: curvatures from 1 to 0.001."""
    h = np.logspace(0, -3, 20)
    rates = np.geomspace(1e-3, 1.98, 150)
    t = np.unique(np.geomspace(1, 60_000, 500).astype(int))
    a = (1 - rates[:, None] * h) ** 2
    # Loss a coordinate h w^2 / 2 starts at 1/2; the noise of an example's gradient has the variance 16 h.
    left = (a ** t[:, None, None]).sum(axis=2) / 2
    noise = ((1 - a ** t[:, None, None]) / (1 - a) * rates[:, None] ** 2 * 16 * h * h).sum(axis=2) / 2
    batches, steps, best = 2.0 ** np.arange(0, 13), [], []
    for batch in batches:
        below = left + noise / batch <= 0.05 * 10
        first = np.where(below.any(axis=0), t[below.argmax(axis=0)], t[-1] + 1)
        steps.append(int(first.min()))
        best.append(rates[first.argmin()])
    return batches, np.array(steps), np.array(best)


def steps_against_batch() -> Curves:
    """Steps to a target, the best rate, and the measured noise of a batch's gradient, by batch size."""
    batches, steps, best = _steps_by_batch()
    h = np.logspace(0, -3, 20)
    spread = [
        float(np.square(normal(400, 20, seed=k) * np.sqrt(16 * h / batch)).sum(axis=1).mean())
        for k, batch in enumerate(batches)
    ]
    panels = [
        Panel("steps to the target loss", {"best of 150 rates": [float(s) for s in steps]}, log=True),
        Panel("learning rate", {"the best of 150": [float(rate) for rate in best]}, log=True),
        Panel("variance of the batch gradient", {"400 gradients": spread}, log=True),
    ]
    return Curves("batch size (log2 of examples)", [float(x) for x in np.log2(batches)], panels)


def doubling_saves_nothing() -> None:
    """Steps halve from batch 1 to 2 and fall by 6% from 2,048 to 4,096; the best rate runs into the limit of 2.

    The steps follow `S_min * (1 + b / B)` with a critical batch of about 140.
    """
    batches, steps, best = _steps_by_batch()
    assert abs(steps[1] / steps[0] - 0.5) < 0.02 and (steps[11], steps[12]) == (258, 242)
    assert (steps[0], steps[6], steps[7], steps[10]) == (33_083, 762, 512, 282)
    assert best[1] / best[0] > 1.9 and 1.6 < best[9] <= best[12] < 2
    fewest, critical = steps[-1], steps[0] / steps[-1]
    assert 130 < critical < 145
    assert np.abs(np.log(steps / (fewest * (1 + critical / batches)))).max() < 0.45
    spread = steps_against_batch().panels[2].series["400 gradients"]
    assert np.allclose(np.array(spread) * batches, spread[0], rtol=0.1)


def steps_at_batch(fewest: int = 10_000, extra: int = 25) -> float:
    """Steps at the batch that costs ``extra`` % more tokens than the fewest, found by bisection over the batch.

    Steps are ``S_min * (1 + b / B)`` with b = 2 million tokens, tokens are steps times batch.
    """
    critical = 2e6
    tokens = (1 + extra / 100) * critical * fewest  # the fewest tokens are those of ever smaller batches
    low, high = 1.0, 1e9
    for _ in range(200):
        batch = (low + high) / 2
        steps = fewest * (1 + critical / batch)
        low, high = (batch, high) if steps * batch < tokens else (low, batch)
    assert math.isclose(batch / critical, extra / 100, rel_tol=1e-9)
    assert math.isclose((steps / fewest - 1) * (tokens / (critical * fewest) - 1), 1, rel_tol=1e-9)
    return steps


def _lengths(steps: int = 2000, workers: int = 8, small: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Squared lengths of workers' gradients (steps, workers) and of their mean (steps,); the noise scale is 64."""
    draw = np.random.default_rng(0).standard_normal((steps, workers, 30)) * math.sqrt(64 / 30 / small)
    gradients = draw + 1 / math.sqrt(30)
    return np.square(gradients).sum(axis=2), np.square(gradients.mean(axis=1)).sum(axis=1)


def noise_scale_by_hand() -> None:
    """Averages first: 64 within 5%. One step in twelve has a signal below 0, and each slip shows.

    The mean of ratios is far off, dropping negative steps 12% low, the big batch's own length for the signal a third
    of it, and lengths summed over the workers leave no signal.
    """
    each, whole = _lengths()
    small, big = 4, 32

    def estimate(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (big * b - small * a) / (big - small), (a - b) / (1 / small - 1 / big)

    signal, scatter = estimate(each.mean(), whole.mean())
    assert abs(scatter / signal / 64 - 1) < 0.05
    ones, scatters = estimate(each.mean(axis=1), whole)
    assert 0.07 < (ones < 0).mean() < 0.1 and (scatters / ones).mean() > 300
    assert 55 < scatters[ones > 0].mean() / ones[ones > 0].mean() < 57
    assert 20 < scatter / whole.mean() < 22 and estimate(each.sum(axis=1).mean(), whole.mean())[0] < 0


def _lamb(w, m, v, g, t, lr, betas, eps, decay, corrected: bool = True):
    """One step on a row a layer."""
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    scale = (1 - betas[0] ** t, 1 - betas[1] ** t) if corrected else (1, 1)
    u = m / scale[0] / (np.sqrt(v / scale[1]) + eps) + decay * w
    size, length = (np.sqrt(np.square(x).sum(axis=1, keepdims=True)) for x in (w, u))
    ratio = np.where((size > 0) & (length > 0), size / np.where(length > 0, length, 1), 1.0)
    return w - lr * ratio * u, m, v


def lamb_by_hand() -> None:
    """A layer moves by lr of its length, decay included; a zero layer takes Adam's step.

    Without decay and eps the bias correction cancels in the ratio; with decay it does not.
    """
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 5)) * np.array([[0.01], [1.0], [100.0]])
    g, zero = rng.standard_normal((3, 5)), np.zeros((3, 5))

    def run(decay: float, corrected: bool = True, eps: float = 0.0, w: np.ndarray = w) -> np.ndarray:
        return _lamb(w, zero, zero, g, 1, 0.1, (0.9, 0.999), eps, decay, corrected)[0]

    for decay in (0.0, 0.1):
        moved = np.sqrt(np.square(run(decay) - w).sum(axis=1) / np.square(w).sum(axis=1))
        assert np.allclose(moved, 0.1, rtol=1e-12)
    assert np.allclose(run(0.0, corrected=False), run(0.0), rtol=1e-12)
    assert not np.allclose(run(0.1, corrected=False)[2], run(0.1)[2], rtol=1e-3)
    adam = path_of(ADAM, np.zeros(15), g.reshape(1, 15), lr=0.1, betas=(0.9, 0.999), eps=1e-8)[-1]
    assert np.allclose(run(0.0, eps=1e-8, w=zero).ravel(), adam, rtol=1e-9)
    size, length = math.sqrt(np.square(w).sum()), math.sqrt(15)
    shares = [0.1 * size / length * math.sqrt(5) / math.sqrt(np.square(row).sum()) for row in w]
    assert shares[0] > 100 and shares[2] < 0.2, "one ratio for all layers throws the smallest far away"
