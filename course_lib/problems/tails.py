"""A quadratic whose gradient is noisy, the tail of the noise being the knob.

Zhang et al. 2020, Why are Adaptive Methods Good for Attention Models? (arXiv 1912.03194), find gradient noise without
finite variance in attention models and show that SGD cannot cope with it while clipping can.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SIZE = 200
START = 10.0


def descend(
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    freedom: float,
    *,
    steps: int = 300,
    clip: float | None = None,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
) -> float:
    """Go down f(x) = |x|^2 / 2 in 200 dimensions from 10 in each, seeing x plus Student's t noise.

    Args:
        optimizer: ``optimizer([x])`` makes it, for a float64 tensor (200,).
        freedom: degrees of freedom of the noise, > 1. ``math.inf`` is the normal distribution; the variance is
            infinite from 2 down.
        steps: updates, >= 1.
        clip: gradient entries beyond +-clip are cut off there, > 0; None leaves them.
        schedule: maps the step, 0 for the first, to a multiplier of the learning rate; None keeps it constant.
        seed: of the noise, drawn with ``numpy.random.default_rng``.

    Returns:
        The mean of x^2 / 2 over the dimensions at the end, without noise.

    Raises:
        ValueError: an argument is out of its range.

    Source: the noise model is that of section 3 of the paper; that clipping is by entry follows its ACClip.
    """
    if not freedom > 1:
        raise ValueError(f"Invalid freedom: {freedom!r}. Allowed: degrees of freedom > 1; below, noise has no mean.")
    if steps < 1:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 1.")
    if clip is not None and not clip > 0:
        raise ValueError(f"Invalid clip: {clip!r}. Allowed: a number > 0, or None for no clipping.")
    rng = np.random.default_rng(seed)
    x = torch.full((SIZE,), START, dtype=torch.float64)
    made = optimizer([x])
    base_lrs = [group["lr"] for group in made.param_groups]
    for step in range(steps):
        noise = rng.standard_normal(SIZE) if freedom == math.inf else rng.standard_t(freedom, SIZE)
        gradient = x + torch.from_numpy(noise)
        x.grad = gradient if clip is None else gradient.clamp(-clip, clip)
        if schedule is not None:
            for group, base in zip(made.param_groups, base_lrs, strict=True):
                group["lr"] = base * schedule(step)
        made.step()
    return (x.square().mean() / 2).item()
