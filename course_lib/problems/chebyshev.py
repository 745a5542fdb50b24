"""A small network whose full-batch training shows what happens where curvature is not fixed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

POINTS = 20
DEGREE = 4


def tanh_fit(width: int = 50, seed: int = 0) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Fit the Chebyshev polynomial T_4 at 20 points of [-1, 1] with a tanh network of three hidden layers.

    The loss is half the mean squared error over all points, so that it has no noise. The parameters are one float64
    vector of 2 width^2 + 5 width + 1 numbers: matrices (inputs, outputs), each followed by its biases.

    Args:
        width: units of each hidden layer, >= 1.
        seed: of the initial weights, N(0, 1 / inputs) drawn with ``numpy.random.default_rng``; biases start at 0.

    Returns:
        ``(loss, start)``: a function of the parameter vector that returns a scalar tensor, and the initial vector.

    Raises:
        ValueError: ``width`` is below 1.

    Source: polynomials of this kind are among the tasks in the code of Cohen et al. 2021 (arXiv 2103.00065).
    """
    if width < 1:
        raise ValueError(f"Invalid width: {width!r}. Allowed: a whole number >= 1.")
    x = torch.linspace(-1, 1, POINTS, dtype=torch.float64)[:, None]
    y = torch.cos(DEGREE * torch.acos(x))
    sizes = (1, width, width, width, 1)
    layers = list(pairwise(sizes))
    rng = np.random.default_rng(seed)
    drawn = [np.append(rng.normal(0, inputs**-0.5, inputs * outputs), np.zeros(outputs)) for inputs, outputs in layers]

    def loss(params: Tensor) -> Tensor:
        out, at = x, 0
        for index, (inputs, outputs) in enumerate(layers):
            matrix, biases = params[at : at + (inputs + 1) * outputs].split([inputs * outputs, outputs])
            out = out @ matrix.view(inputs, outputs) + biases
            if index < len(layers) - 1:
                out = out.tanh()
            at += (inputs + 1) * outputs
        return (out - y).square().mean() / 2

    return loss, torch.from_numpy(np.concatenate(drawn))
