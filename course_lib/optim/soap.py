"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_count
from course_lib.optim.shampoo import eigh


class SOAP(ScratchOptimizer):
    """SOAP (Vyas et al. 2024, arXiv 2409.11321, Algorithm 3).

    For a matrix, G being the gradient. The first step, t = 0, only gathers L and R and takes their eigenvectors as
    Q_L and Q_R; the weights stay as they are. From t = 1 on::

        G' = Q_L^T G Q_R
        M <- beta1 * M + (1 - beta1) * G,   M' = Q_L^T M Q_R
        V <- beta2 * V + (1 - beta2) * G'^2                    the second moment lives in the rotated space
        N' = M' / (sqrt(V) + eps)
        param <- param - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * Q_L N' Q_R^T
        param <- param * (1 - lr * weight_decay)
        L <- beta2 * L + (1 - beta2) * G G^T,   R <- beta2 * R + (1 - beta2) * G^T G
        every precondition_frequency steps:
            Q_L <- QR(L Q_L),   Q_R <- QR(R Q_R)               one step of the power method (Algorithm 4)

    The columns of Q are put in the order of their eigenvalues before the QR, and V with them. Between two refreshes
    the basis is stale, but V goes on learning in it: that is the difference to Shampoo, of which the inverse
    roots themselves are stale.

    Choices that the algorithm box leaves open, as the authors' code and pytorch_optimizer have them: both moments are
    corrected for their start by t, which does not count the first step; eps stands before that correction; the decay
    comes after the step (AdamW's comes before).

    A tensor with more than two dimensions gets a basis for each. A vector or a scalar, and a side longer than
    ``max_precondition_dim``, gets none: a vector goes by Adam, with the first step left out for it too. By default only
    the narrow side of an embedding or output head is turned if the vocabulary has more than 10,000 entries.

    pytorch_optimizer counts steps by group, so that it agrees only while every parameter has a gradient from the
    first step on. Here each parameter has its own count, and its first gradient prepares its own basis.

    A product of so few gradients that it has not full rank has no basis of its own where it is zero: any will do, and
    rounding picks one. Two correct implementations, or one in two precisions, then walk apart.

    State: ``exp_avg`` (M), ``exp_avg_sq`` (V) and, for each side that gets a basis, a square in ``GG`` (L, R) and
    one in ``Q``: 24 bytes per float32 parameter of a square matrix, 42 for 1024 x 4096. Decompositions are computed
    in float32 at least; what is kept has the parameter's dtype.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of M, and of V, L and R, each 0 <= beta < 1.
        eps: added to sqrt(V), >= 0.
        weight_decay: decoupled decay, >= 0.
        precondition_frequency: steps between two refreshes of the basis, >= 1. More is cheaper and more stale.
        max_precondition_dim: longest side that gets a basis, >= 1.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            precondition_frequency=precondition_frequency, max_precondition_dim=max_precondition_dim, maximize=maximize,
        )  # fmt: skip

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require_count("precondition_frequency", group["precondition_frequency"])
        require_count("max_precondition_dim", group["max_precondition_dim"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        sides = _sides(param.shape, group["max_precondition_dim"])
        return {
            "exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
            "GG": [None if side is None else param.new_zeros(side, side) for side in sides],
            "Q": [None if side is None else torch.eye(side, dtype=param.dtype, device=param.device) for side in sides],
        }

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes kept for a parameter with the default ``max_precondition_dim``."""
        squares = sum(side**2 for side in _sides(shape, 10_000) if side is not None)
        return (2 * math.prod(shape) + 2 * squares) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"] - 1
        if t == 0:
            _gather(state["GG"], grad, beta2)
            state["Q"] = [None if factor is None else _basis(factor) for factor in state["GG"]]
            return
        turned_grad = _turn(grad, state["Q"])
        m.lerp_(grad, 1 - beta1)
        v.lerp_(turned_grad.square(), 1 - beta2)
        turned = _turn(m, state["Q"]) / (v.sqrt() + group["eps"])
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        param.sub_(_turn(turned, state["Q"], back=True), alpha=rate)
        param.mul_(1 - lr * group["weight_decay"])
        _gather(state["GG"], grad, beta2)
        if t % group["precondition_frequency"] == 0:
            _refresh(state)


def _sides(shape: tuple[int, ...], longest: int) -> list[int | None]:
    """For each dimension its length if it gets a basis, else None."""
    return [side if len(shape) > 1 and side <= longest else None for side in shape]


def _gather(factors: list[Tensor | None], grad: Tensor, beta: float) -> None:
    """Average the products of ``grad`` with itself over all dimensions but one, for each dimension."""
    for dim, factor in enumerate(factors):
        if factor is not None:
            others = [other for other in range(grad.ndim) if other != dim]
            factor.lerp_(torch.tensordot(grad, grad, dims=(others, others)), 1 - beta)


def _turn(tensor: Tensor, bases: list[Tensor | None], *, back: bool = False) -> Tensor:
    """``tensor`` in the bases, Q_L^T G Q_R for a matrix; ``back`` takes it out of them."""
    for basis in bases:
        # Each round turns the first dimension and makes it the last, so that after all of them the order is as it was.
        if basis is None:
            tensor = tensor.movedim(0, -1)
        else:
            tensor = torch.tensordot(tensor, basis, dims=([0], [1 if back else 0]))
    return tensor


def _basis(factor: Tensor) -> Tensor:
    """Eigenvectors as columns, that of the largest eigenvalue first."""
    return eigh(factor)[1].flip(1).to(factor.dtype)


def _refresh(state: dict[str, Any]) -> None:
    """One step of the power method for each basis, its columns and V's slices sorted by eigenvalue before."""
    for dim, (factor, basis) in enumerate(zip(state["GG"], state["Q"], strict=True)):
        if factor is None:
            continue
        product = factor @ basis
        order = torch.argsort((basis * product).sum(0), descending=True)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(dim, order)
        q, _ = torch.linalg.qr(product[:, order].to(torch.promote_types(factor.dtype, torch.float32)))
        state["Q"][dim] = q.to(factor.dtype)
