"""Evidence for ``bank/small_state.yaml``, second part: the curves of its runs, and the exercises written from memory."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_lib.optim import Lion
from course_lib.questions.evidence._feed import normal, updates_of
from course_lib.questions.runs import Curves, Panel


def adafactor_rows_curves() -> Curves:
    """First step of torch.optim.Adafactor on a zero matrix, one row of which has gradients 100 times smaller."""
    exponents = np.linspace(-9, -2, 57)
    signs = np.sign(normal(8, 8))
    steps: dict[str, list[float]] = {"ordinary rows": [], "the small row": []}
    for exponent in exponents:
        weight = torch.nn.Parameter(torch.zeros(8, 8))
        gradient = 10**exponent * signs
        gradient[0] /= 100
        weight.grad = torch.from_numpy(gradient).float()
        torch.optim.Adafactor([weight], lr=1.0, eps=(None, 1.0)).step()
        moved = weight.detach().double().abs()
        steps["ordinary rows"].append(moved[1:].mean().item())
        steps["the small row"].append(moved[0].mean().item())
    return Curves(
        "log10 of the gradients of ordinary rows",
        exponents.tolist(),
        [Panel("length of the step per element / lr", steps, log=True)],
    )


def lion_nan_curves() -> Curves:
    """Lion with decay on two noisy bowls that move together; at step 100 the gradient of layer B is NaN once."""
    steps, logs = 280, {}
    noise, start = normal(steps, 200), np.r_[np.full(100, 5.0), np.full(100, 1.0)]
    for run in ("run", "twin"):
        weight = torch.from_numpy(start.copy())
        optimizer = Lion([weight], lr=0.008, weight_decay=0.5)
        rows = []
        for step in range(steps):
            w = weight.numpy().copy()
            away = w - np.r_[np.zeros(100), np.full(100, 1.3)]
            gradient = away + 0.5 * noise[step]
            if run == "run" and step == 100:
                gradient[100:] = np.nan
            rms = [math.sqrt(np.square(part).mean()) for part in (w[:100], w[100:])]
            rows.append((2 + np.square(away).mean() / 2, math.sqrt(np.square(gradient).sum()), *rms))
            weight.grad = torch.from_numpy(gradient)
            optimizer.step()
        logs[run] = np.array(rows).T
    shown = np.r_[0:steps:2]

    def panel(y: str, index: int, log: bool = False) -> Panel:
        return Panel(y, {run: rows[index][shown].tolist() for run, rows in logs.items()}, log)

    return Curves(
        "step",
        shown.astype(float).tolist(),
        [
            panel("loss", 0),
            panel("gradient norm", 1),
            panel("RMS of the weights, layer A", 2),
            panel("RMS of the weights, layer B", 3, log=True),
        ],
    )


def _lion(gradients: np.ndarray, slip: str = "") -> np.ndarray:
    """Weights after each step of Lion at lr 0.1, decay 0.5, betas (0.9, 0.99), from 1, or with a usual slip."""
    w, m, path = np.ones_like(gradients[0]), np.zeros_like(gradients[0]), []
    beta1, beta2 = (0.99, 0.9) if slip == "betas swapped" else (0.9, 0.99)
    for g in gradients:
        if slip == "memory first":
            m = beta2 * m + (1 - beta2) * g
        c = beta1 * m + (1 - beta1) * g
        if slip == "decay under the sign":
            w = w - 0.1 * np.sign(c + 0.5 * w)
        else:
            w = w - 0.1 * (np.sign(c) + 0.5 * w)
        if slip != "memory first":
            m = beta2 * m + (1 - beta2) * g
        path.append(w)
    return np.array(path)


def lion_from_memory() -> None:
    """The four lines are course_lib's Lion. All slips but the decay's agree with it at the first step, and not later."""
    gradients = normal(50, 20) + 0.1
    weight, path = torch.ones(20, dtype=torch.float64), []
    optimizer = Lion([weight], lr=0.1, weight_decay=0.5)
    for g in gradients:
        weight.grad = torch.from_numpy(g)
        optimizer.step()
        path.append(weight.numpy().copy())
    np.testing.assert_allclose(_lion(gradients), path, rtol=1e-10)
    for slip in ("memory first", "betas swapped", "decay under the sign"):
        wrong = _lion(gradients, slip)
        assert not np.allclose(wrong, path)
        if slip != "decay under the sign":
            np.testing.assert_allclose(wrong[0], path[0])
    assert len(np.unique(abs(updates_of(Lion, gradients[:, 0])).round(12))) == 1


def factored_from_memory() -> None:
    """R C / mean(R), with 1 - beta2^T divided out of both means, leaves one such factor, as v_hat has.

    Correcting the product as if it were one average is T-dependent and wrong; R C without the mean has v's square.
    """
    rng, beta2, steps = np.random.default_rng(0), 0.9, 7
    size = np.outer(rng.uniform(0.1, 10, 5), rng.uniform(0.1, 10, 7))
    R, C, v = np.zeros(5), np.zeros(7), np.zeros((5, 7))
    for _ in range(steps):
        square = size * rng.uniform(0.5, 2)
        R = beta2 * R + (1 - beta2) * square.mean(axis=1)
        C = beta2 * C + (1 - beta2) * square.mean(axis=0)
        v = beta2 * v + (1 - beta2) * square
    bias = 1 - beta2**steps
    r, c = R / bias, C / bias
    np.testing.assert_allclose(np.outer(r / r.mean(), c), v / bias, rtol=1e-12)
    np.testing.assert_allclose(np.outer(R, C) / R.mean() / bias, v / bias, rtol=1e-12)
    assert np.allclose(np.outer(R, C) / R.mean() / bias**2, v / bias**2) and bias < 0.53
    assert np.allclose(np.outer(r, c) / (v / bias), r.mean())
    tiny = np.float32(1e-30)
    assert (tiny * tiny) / tiny == 0 and (tiny / tiny) * tiny == tiny
