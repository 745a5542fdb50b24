"""Adafactor: the second moment of a matrix kept as one number per row and one per column."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require


class Adafactor(ScratchOptimizer):
    """Adafactor (Shazeer & Stern 2018, arXiv 1804.04235, Algorithms 4 and 5) without momentum, as torch.optim has it.

    The rule for a matrix W of n x m with gradient G, t = 1, 2, ... the step and RMS(x) the root of the mean square::

        beta2 = 1 - t^beta2_decay                               0 at first, so that nothing needs a correction
        rho   = min(lr, 1 / sqrt(t))
        alpha = max(eps2, RMS(W)) * rho                         a step relative to the size of the weights
        W <- W - lr * weight_decay * W
        R <- beta2 * R + (1 - beta2) * (mean of G^2 over each row)        n numbers
        C <- beta2 * C + (1 - beta2) * (mean of G^2 over each column)     m numbers
        V = R C / max(mean(R), eps1)                            see :func:`factored_moment`
        U = G / max(sqrt(V), eps1)
        W <- W - alpha * U / max(1, RMS(U) / d)                 an update of RMS above d is scaled back to d

    A vector keeps V whole. Of a tensor with more dimensions the last two are factored, for each of the others anew; the
    RMS is that of the whole tensor.

    lr is no step size as Adam's is: by default a tensor moves by at most 1% of its own RMS a step. Hugging Face's
    ``Adafactor(scale_parameter=False)`` leaves RMS(W) out: for weights of RMS 0.1 its step is ten times as long at
    the same lr.

    In the paper eps1 = 1e-30 is added to G^2, rho is min(0.01, 1 / sqrt(t)), and nothing decays. torch.optim, and this
    class with it, has lr in the place of 0.01, decoupled decay, and eps1 below the averages: by default the dtype's
    distance from 1 to the next number, 1.2e-7 in float32. So in a matrix whose gradients are below sqrt(eps1) = 3.5e-4,
    V is too small throughout and U too long, as far as the clipping lets it. Below eps1^(3/4) = 6e-6 the other eps1
    takes over: U is G / eps1, and steps shrink with the gradient.

    State: ``row_var`` of shape (..., n, 1) and ``col_var`` of shape (..., 1, m), 4 (n + m) bytes for a float32 matrix;
    ``variance`` of a vector, 4 bytes an element.

    A NaN in the gradient turns all of a matrix to NaN. Of a vector it turns its own element, and the others are not
    clipped any more, as in torch.optim.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: the largest relative step, and the scale of the decay, >= 0.
        beta2_decay: exponent of 1 - beta2, <= 0.
        eps: (eps1, eps2), each >= 0: least mean(R) and least sqrt(V), None for the dtype's eps; least RMS that a weight
            tensor counts as, so that zeros can move.
        d: largest RMS of an update before alpha, >= 1.
        weight_decay: decoupled decay, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("beta2_decay", group["beta2_decay"], -math.inf, 0.0)
        eps = group["eps"]
        if not isinstance(eps, tuple | list) or len(eps) != 2:
            raise ValueError(f"Invalid eps: {eps!r}. Allowed: a pair (eps1, eps2), eps1 None or >= 0, eps2 >= 0.")
        if eps[0] is not None:
            require("eps[0]", eps[0], 0.0)
        require("eps[1]", eps[1], 0.0)
        require("d", group["d"], 1.0)
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        if param.dim() < 2:
            return {"variance": torch.zeros_like(param)}
        *others, rows, columns = param.shape
        return {"row_var": param.new_zeros(*others, rows, 1), "col_var": param.new_zeros(*others, 1, columns)}

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes of state of one parameter: of its rows and columns, or of all its elements where it is a vector."""
        return factored_size(shape) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not param.numel():
            return  # a mean of nothing is NaN
        lr, t = group["lr"], state["step"]
        eps1, eps2 = group["eps"]
        eps1 = torch.finfo(param.dtype).eps if eps1 is None else eps1
        fresh = t ** group["beta2_decay"]  # 1 - beta2
        alpha = at_least(rms(param), eps2) * min(lr, t**-0.5)
        param.mul_(1 - lr * group["weight_decay"])
        if param.dim() > 1:
            row, column = state["row_var"], state["col_var"]
            row.lerp_(grad.square().mean(dim=-1, keepdim=True), fresh)
            column.lerp_(grad.square().mean(dim=-2, keepdim=True), fresh)
            variance = factored_moment(row, column, eps1)
        else:
            variance = state["variance"].lerp_(grad.square(), fresh)
        update = grad / variance.sqrt().clamp(min=eps1)
        clipped = update / at_least(rms(update) / group["d"], 1.0)
        param.sub_(alpha * clipped)


def factored_moment(row: Tensor, column: Tensor, eps: float = 0.0) -> Tensor:
    """The matrix V = R C / mean(R) that row means R and column means C of a non-negative matrix tell of it.

    V has these row and column means again, and of all matrices of rank one it is nearest to the original in the
    generalised Kullback-Leibler divergence, the sum of v log(v / v') - v + v' (Shazeer & Stern 2018, arXiv 1804.04235,
    section 3). It is exact where the original has rank one. Zeros give zeros.

    Args:
        row: shape (..., n, 1), the mean of each row.
        column: shape (..., 1, m), the mean of each column. Averages over time may stand for both.
        eps: least divisor.

    Returns:
        shape (..., n, m).
    """
    mean = row.mean(dim=-2, keepdim=True).clamp(min=max(eps, torch.finfo(row.dtype).tiny))
    return row / mean * column  # in this order, since row * column of small numbers would be zero


def factored_size(shape: tuple[int, ...]) -> int:
    """Numbers in a row and a column vector over the last two dimensions, or in the tensor where it has fewer."""
    if len(shape) < 2:
        return math.prod(shape)
    *others, rows, columns = shape
    return math.prod(others) * (rows + columns)


def rms(tensor: Tensor) -> Tensor:
    """Root of the mean square, 0-d, float32 at least."""
    norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    return norm / tensor.numel() ** 0.5


def at_least(value: Tensor, low: float) -> Tensor:
    """``value``, or ``low`` where it is less or NaN: Python's max(low, value), by which torch.optim decides here."""
    return torch.fmax(value, torch.full_like(value, low))
