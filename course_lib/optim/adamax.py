"""Adamax: Adam with the largest recent gradient in place of the root mean square."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas


class Adamax(ScratchOptimizer):
    """Adamax (Kingma & Ba 2015, arXiv 1412.6980, section 7.1, Algorithm 2).

    The rule::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, |g| + eps)
        param <- param - lr / (1 - beta1^t) * m / u

    Adam divides by an average of |g|^2 and takes the square root. Average |g|^p instead, with decay beta2^p, and take
    the p-th root: for p to infinity the sum is dominated by its largest term and becomes the maximum (eq. 12). So
    beta2 decays the size itself, not its square, and u needs no correction for its start, as a maximum with 0 is not
    biased. |m| <= (1 - beta1^t) * max |g|, so that under gradients that do not shrink no step exceeds lr.

    The paper has no eps, and 0 / 0 for a parameter that has had no gradient but zero. torch.optim, and this class
    with it, adds eps to |g| inside the maximum; Keras adds it to u in the division.

    State: ``exp_avg`` (m) and ``exp_inf`` (u), 8 bytes per float32 parameter.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0; the paper suggests 0.002.
        betas: decay of m and of the maximum, each 0 <= beta < 1.
        eps: added to |g|, >= 0.
        weight_decay: L2 coefficient inside the gradient, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_inf"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        m, u, t = state["exp_avg"], state["exp_inf"], state["step"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        torch.maximum(u.mul_(beta2), grad.abs().add_(group["eps"]), out=u)
        param.addcdiv_(m, u, value=-group["lr"] / (1 - beta1**t))
