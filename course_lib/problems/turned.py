"""A quadratic in a matrix whose curvatures lie along the axes, or along turned rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TurnedQuadratic:
    """L(W) = sum over i, j of r_i c_j ((P^T W Q)_ij - T_ij)^2 / 2, with the minimum 0.

    Aligned, P = Q = I: every element has a curvature r_i c_j of its own. Turned, P and Q are random orthogonal
    matrices: the same function of other coordinates, W -> P W Q^T, so that a rule that treats rows and columns as a
    whole and does not look at single elements ends at the same loss.

    Args:
        rows, columns: the curvatures r, (m,), and c, (n,), > 0.
        turned: whether P and Q are drawn, or I.
        seed: of T, P and Q.
    """

    rows: np.ndarray
    columns: np.ndarray
    turned: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        target = rng.standard_normal((len(self.rows), len(self.columns)))
        sides = [np.linalg.qr(rng.standard_normal((len(side), len(side))))[0] for side in (self.rows, self.columns)]
        P, Q = sides if self.turned else map(np.eye, target.shape)
        parts = {"curvatures": np.outer(self.rows, self.columns), "target": target, "P": P, "Q": Q}
        for name, part in parts.items():
            object.__setattr__(self, name, torch.from_numpy(part))

    def loss(self, weight: Tensor) -> Tensor:
        """L at a float64 matrix (m, n), as a scalar."""
        return (self.curvatures * (self.P.T @ weight @ self.Q - self.target).square()).sum() / 2

    def final_loss(self, make: Callable[[list[Tensor]], torch.optim.Optimizer], steps: int = 300) -> float:
        """The loss after so many steps from zero, the learning rate falling linearly to zero.

        Args:
            make: ``make([weight])`` returns an optimizer at its first learning rate.
            steps: >= 1.
        """
        weight = torch.zeros_like(self.target, requires_grad=True)
        optimizer = make([weight])
        first = optimizer.param_groups[0]["lr"]
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = first * (1 - step / steps)
            optimizer.zero_grad()
            self.loss(weight).backward()
            optimizer.step()
        return float(self.loss(weight).detach())
