"""Gradient descent on the whole loss, without noise, and the curvature it meets on its way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.problems.sharpness import sharpness


class Descent(NamedTuple):
    """What :func:`descend` saw.

    Attributes:
        losses: float64 (updates taken + 1,), the loss before each update and after the last; shorter than asked where
            the run blew up, whose last loss is then above the bound, infinite or NaN.
        seen_at: int64 (n,), before which updates the sharpness was measured.
        sharpness: float64 (n,), the Hessian's eigenvalue of largest absolute value there.
        survived: whether the run came to its end.
    """

    losses: np.ndarray
    seen_at: np.ndarray
    sharpness: np.ndarray
    survived: bool


def descend(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    lr: float,
    steps: int,
    *,
    schedule: Callable[[int], float] | None = None,
    look: int = 0,
    bound: float = 1e6,
) -> Descent:
    """Run ``point -= lr * schedule(t) * gradient`` until ``steps`` updates are done or the loss passes ``bound``.

    Args:
        loss: maps a tensor (n,) to a scalar tensor, such as :func:`course_lib.problems.chebyshev.tanh_fit` returns.
        start: floating-point tensor (n,); not changed.
        lr: base rate, >= 0.
        steps: updates, >= 1.
        schedule: maps the update, 0 for the first, to a multiplier of lr; None keeps lr constant.
        look: measure the sharpness before every so many updates (20 products with the Hessian); 0 never does.
        bound: a loss that is not below it ends the run.

    Raises:
        ValueError: an argument is out of its range.
    """
    for name, value, low in (("steps", steps, 1), ("look", look, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number >= {low}.")
    if not (lr >= 0 and math.isfinite(lr)):
        raise ValueError(f"Invalid lr: {lr!r}. Allowed: a finite number >= 0.")
    point, losses, seen_at, seen = start.detach().clone(), [], [], []
    for t in range(steps + 1):
        point.requires_grad_()
        value = loss(point)
        losses.append(value.item())
        if t == steps or not losses[-1] < bound:
            break
        if look and t % look == 0:
            seen_at.append(t)
            seen.append(sharpness(loss, point, iterations=20))
        (gradient,) = torch.autograd.grad(value, point)
        point = point.detach() - lr * (1.0 if schedule is None else schedule(t)) * gradient
    return Descent(np.array(losses), np.array(seen_at, dtype=np.int64), np.array(seen, dtype=np.float64),
                   losses[-1] < bound)
