"""More evidence for ``bank/momentum.yaml``: curves to read, the textbook's Nesterov, tuning."""

from __future__ import annotations

import numpy as np

from course_lib.questions.evidence._feed import SGD, descent
from course_lib.questions.runs import Curves, Panel, thinned


def ringing_curves() -> Curves:
    """Loss and gradient norm of a parabola of curvature 1 with lr 0.01 and momentum 0.98."""
    x = descent(SGD, lambda x: x, [1.0], 300, lr=0.01, momentum=0.98)[:, 0]
    panels = [
        Panel("training loss", {"loss": thinned(x**2 / 2, 301)}),
        Panel("gradient norm", {"gradient norm": thinned(abs(x), 301)}),
    ]
    return Curves("step", thinned(range(301), 301), panels)


def _slope(x: np.ndarray) -> np.ndarray:
    """Gradient of log cosh(3 x1) + log cosh(x2)."""
    return np.array([3.0, 1.0]) * np.tanh(np.array([3.0, 1.0]) * x)


def _walk(look: float, glide: float, steps: int = 50) -> np.ndarray:
    """Points theta (steps + 1, 2) of Nesterov, lr 0.02 and momentum 0.9, with its two places marked.

    ``look`` times momentum * v is where the gradient is taken; ``glide`` times it is added to where the step starts.
    """
    theta, v, points = np.array([0.2, 0.5]), np.zeros(2), [np.array([0.2, 0.5])]
    for _ in range(steps):
        coast = 0.9 * v
        v = coast - 0.02 * _slope(theta + look * coast)
        theta = theta + glide * coast + v
        points.append(theta)
    return np.stack(points)


def lookahead_pitfalls() -> None:
    """Three slips in the textbook's Nesterov agree with it at the first step and not at the second.

    The gradient at theta gives heavy ball; a step from the look-ahead point coasts twice. And torch's parameter is
    another point: theta + momentum * v, off by 0.9 of the last step.
    """
    right, ball, twice = _walk(1, 0), _walk(0, 0), _walk(1, 1)
    np.testing.assert_allclose(ball, descent(SGD, _slope, [0.2, 0.5], 50, lr=0.02, momentum=0.9), atol=1e-12)
    for slip in (ball, twice):
        assert (slip[:2] == right[:2]).all() and np.abs(slip[2] - right[2]).max() > 1e-3
    in_torch = descent(SGD, _slope, [0.2, 0.5], 50, lr=0.02, momentum=0.9, nesterov=True)
    ahead = right + 0.9 * np.diff(right, axis=0, prepend=right[:1])
    np.testing.assert_allclose(in_torch, ahead, atol=1e-12)
    assert np.isclose(in_torch[1, 0] - right[1, 0], 0.9 * (right[1, 0] - right[0, 0]))


def _best(momentum: float, batch: float) -> tuple[float, int]:
    """The learning rate of 60 that is first at a tenth of the loss, and the steps it takes: noisy quadratic model."""
    curvature = np.geomspace(1e-3, 1, 12)
    lr = 2 * (1 + momentum) * np.geomspace(1e-4, 0.98, 60)[:, None]
    xx, xb, bb = np.ones((60, 12)) / curvature, np.zeros((60, 12)), np.zeros((60, 12))
    for t in range(1, 5000):
        bb = momentum**2 * bb + 2 * momentum * curvature * xb + curvature**2 * xx + 4 * curvature / batch
        pushed = momentum * xb + curvature * xx
        xx, xb = xx - 2 * lr * pushed + lr**2 * bb, pushed - lr * bb
        arrived = (curvature * xx).mean(axis=1) <= 0.1
        if arrived.any():
            return float(lr[arrived][0, 0]), t
    raise AssertionError("no learning rate arrives")


def what_momentum_keeps() -> None:
    """Where noise limits, the best lr / (1 - momentum) stays, within 20%, from momentum 0 to 0.99, and so do the steps.

    Where curvature limits, the best lr itself stays, up to a factor of about 2, and the steps fall from 130 to 22 at 0.9.
    """
    noisy = {momentum: _best(momentum, 1.0) for momentum in (0.0, 0.9, 0.99)}
    effective = [lr / (1 - momentum) for momentum, (lr, _) in noisy.items()]
    assert max(effective) / min(effective) < 1.2
    counts = [steps for _, steps in noisy.values()]
    assert max(counts) / min(counts) < 1.07
    exact = {momentum: _best(momentum, 16384.0) for momentum in (0.0, 0.9, 0.99)}
    rates = [lr for lr, _ in exact.values()]
    assert max(rates) / min(rates) < 2.3
    assert abs(exact[0.0][1] - 130) <= 2 and abs(exact[0.9][1] - 22) <= 1 and exact[0.99][1] > 95
