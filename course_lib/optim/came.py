"""CAME: Adafactor with momentum, and with less trust where an update disagrees with its momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.adafactor import factored_moment, factored_size, rms
from course_lib.optim.base import ScratchOptimizer, require, require_betas


class CAME(ScratchOptimizer):
    """CAME (Luo et al. 2023, arXiv 2307.02047, Algorithm 2).

    The rule for a matrix with gradient g; rows(x) and columns(x) are the means over each row and column::

        r <- beta2 * r + (1 - beta2) * rows(g^2 + eps1)
        c <- beta2 * c + (1 - beta2) * columns(g^2 + eps1)
        u = g / sqrt(r c / mean(r))                             Adafactor's update, clipped:
        u <- u / max(1, RMS(u) / clip_threshold)
        m <- beta1 * m + (1 - beta1) * u                        momentum of the update, not of the gradient
        R <- beta3 * R + (1 - beta3) * rows((u - m)^2 + eps2)   how far updates are from their momentum
        C <- beta3 * C + (1 - beta3) * columns((u - m)^2 + eps2)
        param <- param - lr * weight_decay * param - lr * m / sqrt(R C / mean(R))

    A vector keeps v whole and steps by lr * m: the paper writes the rule for matrices, and the authors' package
    (``came_pytorch``) leaves the second division out. Of a tensor with more dimensions the last two are factored.

    Nothing is corrected for starting at zero. That does not matter for u, which is clipped. It matters for R and C, which
    take 1 / (1 - beta3) = 10,000 steps to fill: the first step of a matrix has an RMS near
    (1 - beta1) / (beta1 sqrt(1 - beta3)) = 11 times lr, that of a vector 0.1 times. Warmup hides it.

    State: ``exp_avg`` (m), ``exp_avg_sq_row`` (r), ``exp_avg_sq_col`` (c), ``exp_avg_res_row`` (R) and
    ``exp_avg_res_col`` (C): 4 bytes per float32 parameter and 8 (n + m) more for a matrix of n x m. A vector keeps
    ``exp_avg`` and ``exp_avg_sq``, 8 bytes. State has the parameter's dtype, as in pytorch_optimizer; ``came_pytorch``
    keeps float32 for 16-bit weights. It needs that: in bf16 a factor of 0.999 or 0.9999 rounds to nothing.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0. The authors advise 0.5 to 0.9 times AdamW's.
        betas: decay of the averages of u, of g^2 and of (u - m)^2, each 0 <= beta < 1.
        eps: (eps1, eps2), added to g^2 and to (u - m)^2, each >= 0.
        clip_threshold: largest RMS of u, > 0.
        weight_decay: decoupled decay, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, clip_threshold=clip_threshold, weight_decay=weight_decay,
            maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"], 3)
        eps = group["eps"]
        if not isinstance(eps, tuple | list) or len(eps) != 2:
            raise ValueError(f"Invalid eps: {eps!r}. Allowed: a pair (eps1, eps2), each >= 0.")
        require("eps[0]", eps[0], 0.0)
        require("eps[1]", eps[1], 0.0)
        require("clip_threshold", group["clip_threshold"], 0.0, low_open=True)
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = {"exp_avg": torch.zeros_like(param)}
        if param.dim() < 2:
            return state | {"exp_avg_sq": torch.zeros_like(param)}
        for name in ("exp_avg_sq", "exp_avg_res"):
            state[f"{name}_row"] = param.new_zeros(param.shape[:-1])
            state[f"{name}_col"] = param.new_zeros(param.shape[:-2] + param.shape[-1:])
        return state

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes of state of one parameter: m, and two factored moments, or one whole moment of a vector."""
        moments = 2 if len(shape) > 1 else 1
        return (torch.Size(shape).numel() + moments * factored_size(shape)) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not param.numel():
            return  # a mean of nothing is NaN
        lr, (beta1, beta2, beta3), (eps1, eps2) = group["lr"], group["betas"], group["eps"]
        m, matrix = state["exp_avg"], param.dim() > 1
        param.mul_(1 - lr * group["weight_decay"])
        square = grad.square() + eps1
        if matrix:
            v = _follow(state["exp_avg_sq_row"], state["exp_avg_sq_col"], square, beta2)
        else:
            v = state["exp_avg_sq"].lerp_(square, 1 - beta2)
        u = grad * _inverse_root(v)
        u /= (rms(u) / group["clip_threshold"]).clamp(min=1.0)
        m.lerp_(u, 1 - beta1)
        if not matrix:
            param.sub_(lr * m)
            return
        residual = _follow(state["exp_avg_res_row"], state["exp_avg_res_col"], (u - m).square() + eps2, beta3)
        param.sub_(lr * m * _inverse_root(residual))


def _follow(row: Tensor, column: Tensor, square: Tensor, beta: float) -> Tensor:
    """Move both averages towards ``square`` and return the matrix that they stand for."""
    row.lerp_(square.mean(dim=-1), 1 - beta)
    column.lerp_(square.mean(dim=-2), 1 - beta)
    return factored_moment(row.unsqueeze(-1), column.unsqueeze(-2))


def _inverse_root(moment: Tensor) -> Tensor:
    """1 / sqrt, finite even where eps is nothing in the dtype (1e-30 in float16): a zero gradient then moves nothing."""
    return moment.clamp(min=torch.finfo(moment.dtype).tiny).rsqrt()
