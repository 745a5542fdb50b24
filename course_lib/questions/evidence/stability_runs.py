"""The curves that the read-run questions of bank/stability.yaml show: small runs in float64, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from course_lib.questions.evidence._feed import normal
from course_lib.questions.runs import Curves, Panel


@np.errstate(over="ignore", invalid="ignore")
def fp16_overflow_curves() -> Curves:
    """A regression whose backward pass is fp16 with a fixed loss scale; step 46 brings a batch of larger inputs.

    Beside the log of the run, each step is replayed from the run's weights in float64.
    """
    rng, steps, scale = np.random.default_rng(0), 60, 2.0**11
    truth = rng.standard_normal(64)
    w = truth + 0.2 * rng.standard_normal(64)
    loss, norm, largest = ([[], []] for _ in range(3))
    for step in range(steps):
        x, far = rng.standard_normal((32, 64)), 8.0 if step == 46 else 1.0
        residual = ((w - truth) * x).sum(axis=1) + rng.standard_normal(32)
        wide = scale * residual[:, None] * (far * x)
        narrow = wide.astype(np.float16).astype(np.float64)
        for log, scaled in enumerate((narrow, wide)):
            loss[log].append(np.square(residual).mean() / 2)
            norm[log].append(math.sqrt(np.square(scaled.mean(axis=0) / scale).sum()))
            largest[log].append(abs(scaled).max())
        w = w - 0.02 * narrow.mean(axis=0) / scale
    names = ("log of the run", "each step replayed in float32")

    def panel(y: str, logs: list[list[float]]) -> Panel:
        series = {
            name: [v if math.isfinite(v) else math.nan for v in log] for name, log in zip(names, logs, strict=True)
        }
        return Panel(y, series, log=True)

    return Curves(
        "step",
        [float(step) for step in range(steps)],
        [
            panel("loss", loss),
            panel("gradient norm, unscaled", norm),
            panel("largest element of a scaled gradient", largest),
        ],
    )


def _adam(
    at: Callable[[int, np.ndarray], tuple[float, np.ndarray]],
    w: np.ndarray,
    steps: int,
    lr: float,
    betas: tuple[float, float],
    lost_at: int = -1,
) -> np.ndarray:
    """Adam in NumPy, its moments lost before step ``lost_at``: loss, gradient norm, RMS of the update / lr (3, steps)."""
    rows = []
    m = v = np.zeros_like(w)
    t = 0
    for step in range(steps):
        if step == lost_at:
            m = v = np.zeros_like(w)
            t = 0
        loss, g = at(step, w)
        t += 1
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        update = lr * m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + 1e-12)
        rows.append((loss, math.sqrt(np.square(g).sum()), math.sqrt(np.square(update).mean()) / lr))
        w = w - update
    return np.array(rows).T


def way_lost_curves() -> Curves:
    """Adam on steep and shallow directions with noise; the gradient of step 1,000 is 1,000 times as large."""
    steep, shallow, steps = 100.0, 0.01, 3000
    curvature = np.r_[np.full(50, steep), np.full(50, shallow)]
    noise = normal(steps, 100)

    def at(step: int, w: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = curvature * w + noise[step]
        return 0.5 * (curvature * w**2).sum(), gradient * (1000 if step == 1000 else 1)

    start = np.r_[np.zeros(50), np.full(50, 40.0)]
    loss, norm, update = _adam(at, start, steps, 0.02, (0.9, 0.999))
    shown = np.r_[600:980:2, 980:1040, 1040:steps:14]
    panels = [
        Panel("loss", {"run": loss[shown].tolist()}),
        Panel("gradient norm", {"run": norm[shown].tolist()}, log=True),
        Panel("RMS of the update / lr", {"run": update[shown].tolist()}, log=True),
    ]
    return Curves("step", shown.astype(float).tolist(), panels)


def lost_moments_curves() -> Curves:
    """Adam on a noisy bowl at a constant lr, resumed at step 100 with fresh moments."""
    steps, curvature = 220, np.geomspace(0.05, 1.0, 400)
    noise = normal(steps + 400, 400)

    def at(step: int, w: np.ndarray) -> tuple[float, np.ndarray]:
        return 2 + 0.5 * (curvature * w**2).mean(), curvature * w + noise[step]

    rows = _adam(at, np.zeros(400), steps + 400, 0.3, (0.9, 0.999), lost_at=500)[:, 400:]
    y = ("loss", "gradient norm", "RMS of the update / lr")
    panels = [Panel(name, {"run": row.tolist()}) for name, row in zip(y, rows, strict=True)]
    return Curves("step", [float(step) for step in range(steps)], panels)


def batch_norm_curves() -> Curves:
    """Logistic regression behind a batch norm with torch's momentum 0.01: accuracy in both modes, and repaired."""
    rng = np.random.default_rng(0)
    shift, size, truth = rng.normal(0, 6, 8), rng.uniform(1, 3, 8), rng.standard_normal(8)
    clean = rng.standard_normal((1000, 8))
    labels, images = (clean * truth).sum(axis=1) > 0, shift + size * clean
    mean, variance, weight = np.zeros(8), np.ones(8), np.zeros(8)

    def accuracy(mean: np.ndarray, variance: np.ndarray) -> float:
        scores = ((images - mean) / np.sqrt(variance + 1e-5) * weight).sum(axis=1)
        return float(((scores > 0) == labels).mean())

    x, rows = [], []
    for step in range(301):
        chosen = rng.integers(0, 1000, 64)
        batch = images[chosen]
        now = batch.mean(axis=0), batch.var(axis=0)
        if step % 3 == 0:
            x.append(float(step))
            rows.append((accuracy(*now), accuracy(mean, variance), accuracy(images.mean(axis=0), images.var(axis=0))))
        normed = (batch - now[0]) / np.sqrt(now[1] + 1e-5)
        wrong = 1 / (1 + np.exp(-(normed * weight).sum(axis=1))) - labels[chosen]
        weight = weight - 0.5 * (wrong[:, None] * normed).mean(axis=0)
        mean, variance = 0.99 * mean + 0.01 * now[0], 0.99 * variance + 0.01 * batch.var(axis=0, ddof=1)
    names = ("train()", "eval()", "eval(), statistics recomputed over 1,000 images")
    columns = zip(*rows, strict=True)
    return Curves(
        "step", x, [Panel("accuracy", {name: list(column) for name, column in zip(names, columns, strict=True)})]
    )


def three_spikes_curves() -> Curves:
    """Gradient descent on a noisy bowl, three times: a far batch, one step 40 times too long, a curvature that grows."""
    steps, logs = 60, {}
    for seed, fault in enumerate(("step", "curvature", "batch"), start=1):
        rng, w, rows = np.random.default_rng(seed), np.zeros(100), []
        for step in range(steps):
            curvature = np.ones(100)
            if fault == "curvature":
                curvature[:5] = 1.049**step
            target = rng.standard_normal(100) * (12 if fault == "batch" and step == 44 else 1)
            gradient = curvature * (w - 0.3 * target)
            length = 0.15 * gradient * (40 if fault == "step" and step == 44 else 1)
            loss = 2 + 0.5 * (curvature * (w - 0.3 * target) ** 2).mean()
            rows.append((loss, math.sqrt(np.square(gradient).sum()), math.sqrt(np.square(length).sum())))
            w = w - length
        logs[f"run {seed}"] = np.array(rows).T
    panels = [
        Panel(y, {run: rows[index].tolist() for run, rows in logs.items()}, log=True)
        for index, y in enumerate(("loss", "gradient norm", "length of the update"))
    ]
    return Curves("step", [float(step) for step in range(steps)], panels)
