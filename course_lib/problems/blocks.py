"""Quadratics whose curvatures stay the same while their arrangement in blocks changes.

A block stands for a layer: a matrix of a transformer has curvatures of its own size, while those of a convolutional
network are alike (Zhang et al. 2024, Why Transformers Need Adam: A Hessian Perspective, arXiv 2402.16788, section 4,
whose spectra these are).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Spectra = Sequence[Sequence[float]]

HETEROGENEOUS: Spectra = ((1.0, 2.0, 3.0), (99.0, 100.0, 101.0), (4998.0, 4999.0, 5000.0))
"""Each block has curvatures of one size."""
HOMOGENEOUS: Spectra = ((1.0, 99.0, 4998.0), (2.0, 100.0, 4999.0), (3.0, 101.0, 5000.0))
"""The same nine curvatures, each block with all sizes."""


@dataclass(frozen=True, eq=False)
class BlockQuadratic:
    """f(w) = sum over blocks of w_b^T H_b w_b / 2, several times at once: the runs differ in their axes.

    Attributes:
        hessians: one float64 tensor (runs, n_b, n_b) a block, symmetric positive definite.
        starts: one float64 tensor (runs, n_b) a block. Along every axis of its Hessian a start has coordinate 1: so
            methods that know no axes and no blocks, such as gradient descent, do the same for every arrangement.
    """

    hessians: tuple[Tensor, ...]
    starts: tuple[Tensor, ...]

    def loss(self, weights: Sequence[Tensor]) -> Tensor:
        """The values f of all runs, float64 (runs,)."""
        return sum(
            torch.einsum("ri,rij,rj->r", w, hessian, w) / 2 for w, hessian in zip(weights, self.hessians, strict=True)
        )


def block_quadratic(spectra: Spectra, runs: int = 20, seed: int = 0) -> BlockQuadratic:
    """Make quadratics with these curvatures, block by block, along random axes within each block.

    Args:
        spectra: the eigenvalues of each block, > 0.
        runs: how many draws of the axes.
        seed: of the axes, drawn with ``numpy.random.default_rng``.

    Raises:
        ValueError: no block, an empty one, a curvature that is not positive, or ``runs`` below 1.
    """
    if not spectra or not all(len(block) for block in spectra):
        raise ValueError("Invalid spectra: a block is missing. Allowed: a list of blocks, each with its eigenvalues.")
    for block in spectra:
        for value in block:
            if not 0 < value < math.inf:
                raise ValueError(f"Invalid eigenvalue: {value!r}. Allowed: numbers > 0 and finite.")
    if runs < 1:
        raise ValueError(f"Invalid runs: {runs!r}. Allowed: a whole number >= 1.")
    rng = np.random.default_rng(seed)
    hessians, starts = [], []
    for block in spectra:
        axes = np.linalg.qr(rng.standard_normal((runs, len(block), len(block))))[0]
        hessians.append(torch.from_numpy(axes * np.asarray(block) @ axes.swapaxes(1, 2)))
        starts.append(torch.from_numpy(axes.sum(axis=2)))
    return BlockQuadratic(tuple(hessians), tuple(starts))


def best_rate(curvatures: Sequence[float]) -> float:
    """The learning rate of gradient descent that shrinks the slowest error most: 2 / (largest + smallest)."""
    return 2 / (max(curvatures) + min(curvatures))


def descend(
    problem: BlockQuadratic, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], steps: int,
) -> np.ndarray:
    """Go down from the starts; every run has its own copy, so that element-wise optimizers treat them apart.

    Args:
        problem: what to descend.
        optimizer: ``optimizer(weights)`` makes it, for a list of one float64 tensor (runs, n_b) a block, which may
            become parameter groups with rates of their own.
        steps: updates, >= 0.

    Returns:
        float64 (runs,), the value at the end as a share of that at the start. A run that diverges ends in inf or NaN.
    """
    if steps < 0:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 0.")
    weights = [start.clone() for start in problem.starts]
    made = optimizer(weights)
    for _ in range(steps):
        for weight, hessian in zip(weights, problem.hessians, strict=True):
            weight.grad = torch.einsum("rij,rj->ri", hessian, weight)
        made.step()
    return (problem.loss(weights) / problem.loss(problem.starts)).numpy()
