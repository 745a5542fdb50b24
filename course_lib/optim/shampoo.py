"""Shampoo: an inverse root of the gradients' second moments on each side of a matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_count

BLOCK_SIZE = 1024
GRAFTING_EPS = 1e-8  # Adam's


class Shampoo(ScratchOptimizer):
    """Shampoo (Gupta et al. 2018, arXiv 1802.09568, Algorithm 1), as large models use it (Shi et al. 2023, 2309.06497).

    For a matrix, G being the gradient::

        L <- beta2 * L + (1 - beta2) * G G^T,   R <- beta2 * R + (1 - beta2) * G^T G
        m <- beta1 * m + (1 - beta1) * G,       m_hat = m / (1 - beta1^t)
        at the first step and every precondition_frequency steps from there:
            P_L = (L / (1 - beta2^t) + eps * I)^(-1/4),   P_R likewise
        D = P_L m_hat P_R
        with grafting "adam":
            v <- beta2 * v + (1 - beta2) * G^2,   A = m_hat / (sqrt(v / (1 - beta2^t)) + 1e-8)
            D <- D * ||A|| / ||D||                             Shampoo's direction, the length of Adam's step
        param <- param * (1 - lr * weight_decay)
        param <- param - lr * D

    The paper's algorithm is this with ``betas=(0.0, 1.0)``, ``precondition_frequency=1`` and ``grafting=None``: with
    beta2 = 1 L and R are sums, without any correction, and eps * I is where they start. Its step needs no length of
    Adam's, and shrinks like AdaGrad's.

    A tensor with k dimensions has a factor for each, and the root is the 2k-th (Algorithm 2): a vector gets
    the full matrix of AdaGrad, L^(-1/2) m_hat; a scalar has no factor, so that D is m_hat and, grafted, Adam's
    step. A side longer than ``block_size`` is cut, and each block is treated like a parameter of its own.

    Choices where implementations differ: eps is absolute and added to the eigenvalues, of which negative ones
    (rounding) count as zero; roots come from an eigendecomposition (others use coupled Newton iterations) and are stale
    between two computations; the norm is grafted at each step and for each block.

    State: ``exp_avg`` (m), ``exp_avg_sq`` (v, with grafting only) and, for each side of each block, a square in
    ``factors`` (L, R) and one in ``roots``. With grafting that is 24 bytes per float32 parameter of a square matrix, or
    of one that blocks of 1024 divide; a vector of 1024 alone keeps 8 MB.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0; with grafting as for Adam.
        betas: decay of m, 0 <= beta1 < 1, and of v, L and R, 0 <= beta2 <= 1; 1 sums them.
        eps: added to the eigenvalues, > 0. It limits how much a direction is lengthened in which there was no
            gradient when the roots were computed.
        weight_decay: decoupled decay, >= 0.
        precondition_frequency: steps between two computations of the roots, >= 1.
        block_size: longest side of a block, >= 1.
        grafting: "adam" or None.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        precondition_frequency: int = 10,
        block_size: int = BLOCK_SIZE,
        grafting: str | None = "adam",
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            precondition_frequency=precondition_frequency, block_size=block_size, grafting=grafting, maximize=maximize,
        )  # fmt: skip

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        betas = group["betas"]
        sums = isinstance(betas, tuple | list) and len(betas) == 2 and betas[1] == 1
        require_betas((betas[0], 0.0) if sums else betas)
        require("eps", group["eps"], 0.0, low_open=True)
        require("weight_decay", group["weight_decay"], 0.0)
        require_count("precondition_frequency", group["precondition_frequency"])
        require_count("block_size", group["block_size"])
        if group["grafting"] not in (None, "adam"):
            raise ValueError(f"Invalid grafting: {group['grafting']!r}. Allowed: None or 'adam'.")

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        names = ["exp_avg"] + ["exp_avg_sq"] * (group["grafting"] is not None)
        state: dict[str, Any] = {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}
        for name in ("factors", "roots"):
            state[name] = [
                [param.new_zeros(side, side) for side in block.shape] for block in _blocks(param, group["block_size"])
            ]
        return state

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes kept for a parameter with the default ``block_size`` and ``grafting``."""
        blocks = _blocks(torch.empty(shape, device="meta"), BLOCK_SIZE)
        squares = sum(side**2 for block in blocks for side in block.shape)
        return (2 * math.prod(shape) + 2 * squares) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        m, v, t = state["exp_avg"], state.get("exp_avg_sq"), state["step"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        m_hat = m / (1 - beta1**t)
        adam = None
        if v is not None:
            _gather(v, grad.square(), beta2)
            adam = m_hat / ((v / _correction(beta2, t)).sqrt() + GRAFTING_EPS)
        param.mul_(1 - group["lr"] * group["weight_decay"])
        tensors = [param, grad, m_hat] + [adam] * (adam is not None)
        blocks = zip(*(_blocks(tensor, group["block_size"]) for tensor in tensors), strict=True)
        for index, (weights, g, direction, *length) in enumerate(blocks):
            factors, roots = state["factors"][index], state["roots"][index]
            for dim, factor in enumerate(factors):
                others = [other for other in range(g.ndim) if other != dim]
                _gather(factor, torch.tensordot(g, g, dims=(others, others)), beta2)
                if (t - 1) % group["precondition_frequency"] == 0:
                    roots[dim].copy_(inverse_root(factor / _correction(beta2, t), 2 * g.ndim, group["eps"]))
                # Each round multiplies the first dimension and makes it the last: in the end the order is as it was.
            for root in roots:
                direction = torch.tensordot(direction, root, dims=([0], [0]))
            if length:
                tiny = torch.finfo(direction.dtype).tiny
                direction = direction * (length[0].norm() / direction.norm().clamp(min=tiny))
            weights.sub_(direction, alpha=group["lr"])


def inverse_root(matrix: Tensor, order: int, eps: float) -> Tensor:
    """(matrix + eps * I)^(-1 / order) of a symmetric matrix without negative eigenvalues.

    Eigenvalues that rounding made negative count as zero. All NaN if the matrix is not finite.
    """
    values, vectors = eigh(matrix)
    powers = (values.clamp(min=0) + eps) ** (-1 / order)
    return ((vectors * powers) @ vectors.mT).to(matrix.dtype)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors as columns of a symmetric matrix, in float32 at least.

    All NaN if the matrix is not finite, where torch.linalg.eigh raises. LAPACK's float32 routine also gives NaN, or
    gives up, for some matrices of which many rows are zero, as an embedding's are: these are done again in float64.
    """
    if not matrix.isfinite().all():
        return matrix.new_full(matrix.shape[:1], math.nan), torch.full_like(matrix, math.nan)
    single = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    try:
        values, vectors = torch.linalg.eigh(single)
        if vectors.isfinite().all():
            return values, vectors
    except torch.linalg.LinAlgError:
        pass
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(single.dtype), vectors.to(single.dtype)


def _gather(average: Tensor, value: Tensor, beta: float) -> None:
    """Take ``value`` into the average, or into the sum if beta is one."""
    average.mul_(beta).add_(value, alpha=1.0 if beta == 1 else 1 - beta)


def _correction(beta: float, t: int) -> float:
    """What an average that started at zero falls short by; a sum does not."""
    return 1.0 if beta == 1 else 1 - beta**t


def _blocks(tensor: Tensor, size: int) -> Iterator[Tensor]:
    """Views that cover the tensor, no side longer than ``size``."""
    cuts = [[slice(start, start + size) for start in range(0, side, size)] for side in tensor.shape]
    return (tensor[place] for place in itertools.product(*cuts))
