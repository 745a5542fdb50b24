"""More evidence for ``bank/gradient_descent.yaml``: curves to read, Newton's step, a path of points."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.full_batch import descend
from course_lib.questions.evidence._feed import SGD, descent
from course_lib.questions.runs import Curves, Panel, thinned


def edge_curves() -> Curves:
    """Loss and sharpness * lr / 2 of the course's tanh network, full batch, at two learning rates."""
    loss, start = tanh_fit()
    seen = {f"lr {lr:g}": (lr, descend(loss, start, lr, 3000, look=50)) for lr in (0.1, 0.05)}
    x = next(iter(seen.values()))[1].seen_at
    largest = {name: (run.sharpness * lr / 2).tolist() for name, (lr, run) in seen.items()}
    losses = {name: run.losses[x].tolist() for name, (_, run) in seen.items()}
    panels = [Panel("largest eigenvalue of the Hessian x lr / 2", largest), Panel("training loss", losses, log=True)]
    return Curves("step", thinned(x, len(x)), panels, exact=False)


def _uncleared(lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss before each step and norm of ``.grad`` at each step, SGD on a parabola without zero_grad."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    stepper, losses, norms = SGD([weight], lr=lr), [], []
    for _ in range(steps):
        loss = (weight**2 / 2).sum()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
        norms.append(abs(weight.grad.item()))
    return np.array(losses), np.array(norms)


def slow_wave_curves() -> Curves:
    """What a training loop logs that does not clear its gradients, at two learning rates."""
    runs = {f"lr {lr:g}": _uncleared(lr, 400) for lr in (0.01, 0.0025)}
    panels = [
        Panel("training loss", {name: run[0].tolist() for name, run in runs.items()}),
        Panel("gradient norm in the log", {name: run[1].tolist() for name, run in runs.items()}),
    ]
    return Curves("step", thinned(range(400), 400), panels)


def newton_in_one_step() -> None:
    """Newton's step: exact on a quadratic of any condition number, blind to units, drawn to saddles, not safe.

    On log cosh it converges from 1.0 and runs away from 1.2, where descent with lr 1 arrives from both.
    """
    curvature, start = np.geomspace(1, 1e6, 7), np.full(7, 3.0)
    assert np.abs(start - curvature * start / curvature).max() == 0
    slow = descent(SGD, lambda x: curvature * x, start, 1000, lr=2 / (1 + 1e6))[-1]
    assert slow.max() > 2.9
    for unit in (1e-3, 1e3):  # the same weight in another unit: x = unit * y
        y = 3.0 / unit
        assert np.isclose(-unit * (unit * 2.0 * unit * y) / (unit**2 * 2.0), -3.0)
    x, y = 0.5, 0.5  # x^2 - y^2: both coordinates go to the saddle at 0, though y should leave it
    assert (x - 2 * x / 2, y - (-2 * y) / -2) == (0.0, 0.0)

    def newton(x: float, steps: int) -> list[float]:
        path = [x]
        for _ in range(steps):
            path.append(path[-1] - np.tanh(path[-1]) * np.cosh(path[-1]) ** 2)
        return path

    near, far = newton(1.0, 5), newton(1.2, 3)
    assert abs(near[-1]) < 1e-3 and abs(far[-1]) > 10
    assert np.abs(descent(SGD, np.tanh, [1.0, 1.2], 100, lr=1.0)[-1]).max() < 1e-6
    assert 7e9**2 * 4 / 1e18 > 190  # bytes of a float32 Hessian, in exabytes


def path_in_place() -> None:
    """Subtracting in place ends at the right point, but its path is one array, and it is the caller's start.

    The right path is (1 - lr * h)^t times the start; a start of whole numbers cannot be changed in place.
    """
    curvature, start, lr = np.array([1.0, 20.0]), np.array([3.0, 2.0]), 0.095
    right, wrong = [start.copy()], [start]
    for _ in range(50):
        right.append(right[-1] - lr * curvature * right[-1])
    x = start
    for _ in range(50):
        x -= lr * curvature * x
        wrong.append(x)
    t = np.arange(51)[:, None]
    np.testing.assert_allclose(np.stack(right), (1 - lr * curvature) ** t * right[0], atol=1e-12)
    np.testing.assert_allclose(wrong[-1], right[-1], atol=1e-12)
    assert (np.stack(wrong) == wrong[-1]).all() and (start == wrong[-1]).all()
    whole = np.array([3, 2])
    try:
        whole -= lr * curvature * whole
    except TypeError:
        pass
    else:
        raise AssertionError("NumPy put floats into integers")
    assert abs(1 - 1.01 * (2 / 20) * 20) > 1
