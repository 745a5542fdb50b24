"""Evidence for ``bank/large_batch.yaml``: noise scale, scaling rules, trust ratios, critical batch, small batches."""

from __future__ import annotations

import math

import numpy as np

from course_lib.questions.evidence._feed import ADAM, both_versions, normal, path_of


def _losses(lr: float, batch: float, steps: int, h: float = 1.0, noise: float = 30.0, start: float = 3.0) -> np.ndarray:
    """Expected loss (steps + 1,) of SGD on h w^2 / 2 with gradient noise of variance noise^2 / batch."""
    a, t = (1 - lr * h) ** 2, np.arange(steps + 1)
    return h / 2 * (a**t * start**2 + (1 - a**t) / (1 - a) * lr**2 * noise**2 / batch)


def linear_for_sgd_root_for_adam() -> None:
    """The rate that restores SGD's loss at batch x 16, and the one that restores Adam's wandering at x 4."""
    whole = _losses(0.004, 1, 4096)[::512][1:]
    for factor, same in ((1, False), (4, False), (16, True)):
        scaled = _losses(0.004 * factor, 16, 256)[::32][1:]
        assert (np.abs(np.log(scaled / whole)).max() < 0.031) == same
    # Adam on pure noise: it walks 1 sqrt(steps) long steps, whatever the gradients' size.
    spread = {}
    for batch, betas in ((1, (0.9, 0.99)), (4, (0.6, 0.96))):
        noise = normal(1024 // batch, 2000) / math.sqrt(batch)
        spread[batch] = path_of(ADAM, np.zeros(2000), noise, lr=1.0, betas=betas, eps=0.0)[-1].std()
    assert abs(2 * spread[4] / spread[1] - 1) < 0.1, "the root of 4 restores the spread"


def drift_and_diffusion() -> None:
    """n steps of lr at batch B against n / k of k lr at k B: same drift, same noise, to first order."""
    lr, k, n, noise = 1e-4, 8, 800, 2.0
    for h in (0.0, 1.0):
        drift = [(1 - rate * h) ** steps for rate, steps in ((lr, n), (k * lr, n // k))]
        scatter = [
            sum((1 - rate * h) ** (2 * t) for t in range(steps)) * rate**2 * noise**2 / batch
            for rate, steps, batch in ((lr, n, 1), (k * lr, n // k, k))
        ]
        assert abs(drift[0] / drift[1] - 1) < 1e-3 and abs(scatter[0] / scatter[1] - 1) < 1e-3
    root = (n // k) * (math.sqrt(k) * lr) / (n * lr)
    assert abs(root - 1 / math.sqrt(k)) < 1e-12, "with the root, SGD covers only a part of the way"


def adam_sees_a_smaller_root_of_v() -> None:
    """Under noise sqrt(v) falls by the root of k, and the step on a weak signal grows by it; else neither does."""
    for signal, grows in ((0.05, 2.0), (10.0, 1.0)):
        steps = []
        for batch, betas in ((1, (0.9, 0.99)), (4, (0.6, 0.96))):
            gradients = signal + normal(1000 // batch, 1000) / math.sqrt(batch)
            path = path_of(ADAM, np.zeros(1000), gradients, lr=1.0, betas=betas)
            steps.append(np.mean(path[0] - path[-1]) / len(gradients))
        assert abs(steps[1] / steps[0] / grows - 1) < 0.1
    assert [round(1 - 16 * (1 - beta), 2) for beta in (0.9, 0.95)] == [-0.6, 0.2]


def noise_scale_of_two_norms(
    workers: int = 16, small: int = 32, mean_small: float = 5.0, mean_big: float = 1.25
) -> float:
    """tr S / |G|^2 from E|g_B|^2 = |G|^2 + tr S / B at two batch sizes, as a 2 x 2 system."""
    signal, scatter = np.linalg.solve([[1, 1 / small], [1, 1 / (small * workers)]], [mean_small, mean_big])
    assert signal > 0
    return float(scatter / signal)


def critical_batch_of_two_runs(
    small: float = 0.5, steps_small: int = 60_000, big: float = 2, steps_big: int = 22_500
) -> float:
    """E_min / S_min in millions of tokens, from S = S_min + E_min / B at two batch sizes."""
    fewest, tokens = np.linalg.solve([[1, 1 / small], [1, 1 / big]], [steps_small, steps_big])
    assert fewest > 0 and tokens > 0
    if (small, steps_small, big, steps_big) == (0.5, 60_000, 2, 22_500):
        assert abs(fewest - 10_000) < 1e-6 and abs(tokens - 25_000) < 1e-6
    return float(tokens / fewest)


def _hours(gpus: float, batch: np.ndarray | float, critical: float = 4e6) -> np.ndarray | float:
    """Hours of 10,000 (1 + critical / B) steps of B / (n 10,000) + 0.4 seconds."""
    return 10_000 * (1 + critical / batch) * (batch / (gpus * 1e4) + 0.4) / 3600


def four_times_the_gpus() -> None:
    """The plan of the notebook: 27.3 h become 11.0, 9.8 and 10.9 h with the batch kept, doubled and quadrupled."""
    hours = [_hours(64, 1e6), *(_hours(256, batch) for batch in (1e6, 2e6, 4e6))]
    assert np.allclose(hours, [27.3, 11.0, 9.8, 10.9], atol=0.06)
    tokens = [1e4 * (1 + 4e6 / batch) * batch / 1e9 for batch in (1e6, 2e6, 4e6)]
    assert np.allclose(tokens, [50, 60, 80])


def fastest_batch_ratio(growth: int = 4) -> float:
    """By how much the fastest batch grows when the GPUs become ``growth`` times as many, found by search."""
    sizes = np.geomspace(1e4, 1e8, 200_001)
    best = [sizes[_hours(gpus, sizes).argmin()] for gpus in (64, 64 * growth)]
    assert np.allclose(best, [math.sqrt(gpus * 1e4 * 0.4 * 4e6) for gpus in (64, 64 * growth)], rtol=1e-3)
    return float(best[1] / best[0])


def preconditioning_pays_at_large_batches() -> None:
    """Curvatures 1 to 0.003 with and without division by them: the gain in steps grows with the batch."""
    h, gain = np.logspace(0, -2.5, 30), {}
    rates = np.geomspace(1e-4, 1.99, 120)[:, None]
    t = np.unique(np.geomspace(1, 20_000, 250).astype(int))[:, None, None]
    for batch in (4, 64, 1024):
        steps = []
        plain, divided = (h, 4 * np.sqrt(h), 1 / np.sqrt(h)), (np.ones(30), np.full(30, 4.0), np.ones(30))
        for curvature, noise, start in (plain, divided):
            a = (1 - rates * curvature) ** 2
            w = a**t * start**2 + (1 - a**t) / (1 - a) * rates**2 * noise**2 / batch
            below = (w * curvature).sum(axis=2) / 2 <= 1.5
            steps.append(t[below.any(axis=1).argmax()].item())
        gain[batch] = steps[0] / steps[1]
    assert gain[4] < gain[64] < gain[1024] and gain[1024] > 1.5 * gain[4]


def trust_ratios_set_shares_equal() -> None:
    """Layers of sizes 0.01, 1, 100: one rate moves them by shares 10^8 apart, a trust ratio by equal ones."""
    draw = np.random.default_rng(0).standard_normal
    weights = [size * draw((5, 4)) for size in (0.01, 1.0, 100.0)]
    gradients = [draw((5, 4)) / size for size in (0.01, 1.0, 100.0)]  # <w, g> is of one size, as in a deep network
    share = [np.linalg.norm(g) / np.linalg.norm(w) for w, g in zip(weights, gradients)]
    assert 3e7 < share[0] / share[2] < 3e8
    for direction in (gradients, [np.sign(g) for g in gradients]):
        steps = [np.linalg.norm(w) / np.linalg.norm(u) * u for w, u in zip(weights, direction)]
        assert np.allclose([np.linalg.norm(s) / np.linalg.norm(w) for w, s in zip(weights, steps)], 1)


def lamb_frozen_at_zero() -> None:
    """The code leaves a zero bias where it is; repaired, it moves, and a matrix moves by lr of its norm in both."""
    for name, step in both_versions("batch-lamb-zero-bias", "lamb_step").items():
        bias, matrix = np.zeros(3), np.ones((2, 2))
        moved = step(bias, np.ones(3), 0.1)
        assert np.any(moved != 0) == (name == "fixed")
        assert np.isclose(np.linalg.norm(step(matrix, 5 * matrix, 0.1) - matrix), 0.1 * np.linalg.norm(matrix))


def memory_at_batch_one(beta2: float = 0.95, batch: int = 512) -> float:
    """Steps 1 / (1 - beta2') that beta2' = beta2^(1 / batch) remembers; its half-life in examples is unchanged."""
    scaled = beta2 ** (1 / batch)
    half_lives = math.log(0.5) / math.log(beta2) * batch, math.log(0.5) / math.log(scaled)
    assert math.isclose(*half_lives, rel_tol=1e-9)
    return 1 / (1 - scaled)


def accumulation_gives_steps_away() -> None:
    """SGD after 4,096 examples, best constant rate: a larger batch leaves no less loss, and in the end much more."""
    rates, left = np.geomspace(1e-3, 0.999, 300), []
    for batch in (1, 16, 256, 2048):
        left.append(
            min(
                _losses(lr, batch, 4096 // batch, noise=6.0, start=1.0)[-1]
                + _losses(lr, batch, 4096 // batch, h=0.02, noise=0.85, start=7.0)[-1]
                for lr in rates
            )
        )
    assert left[1] > 0.98 * left[0] and left[2] > 1.5 * left[0] and left[3] > 2 * left[0]


def ratio_of_means_not_mean_of_ratios() -> None:
    """4,000 single-step estimates of a noise scale of 16: the code's mean of ratios is off, the repaired one is not."""
    rng, errors = np.random.default_rng(0), {}
    gradient = np.ones(30) / math.sqrt(30)
    small, big = ((gradient + rng.standard_normal((4000, 30)) * math.sqrt(16 / 30 / b)) for b in (4, 64))
    norms = [(g**2).sum(axis=1) for g in (small, big)]
    for name, estimate in both_versions("batch-ratio-of-means", "noise_scale").items():
        errors[name] = abs(estimate(4, 64, *norms) / 16 - 1)
    assert errors["fixed"] < 0.1 < errors["code"]
