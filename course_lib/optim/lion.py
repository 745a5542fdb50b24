"""Lion: the sign of momentum, so that every element moves equally far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas


class Lion(ScratchOptimizer):
    """Lion, "evolved sign momentum" (Chen et al. 2023, arXiv 2302.06675, Algorithm 2).

    The rule::

        c <- beta1 * m + (1 - beta1) * g                       what decides the direction
        param <- param - lr * (sign(c) + weight_decay * param)
        m <- beta2 * m + (1 - beta2) * g                       what is remembered, after the step

    The two averages differ: with the default betas a gradient weighs 0.1 in the step that it comes in, and 0.01 in
    the memory that lives on. With beta1 = beta2 Lion is signSGD with momentum (Bernstein et al. 2018, 1802.04434).

    Every element moves by lr, whatever its gradient's size, and by 0 where c is exactly 0: the update's RMS is 1, where
    AdamW's is usually 0.2 to 0.4 (Liu et al. 2025, 2502.16982). So lr is chosen 3 to 10 times smaller than AdamW's, and
    weight_decay as many times larger (section 5 of the paper): their product is what shrinks the weights. There is
    no eps and no bias correction; a sign needs neither.

    State: ``exp_avg`` (m), 4 bytes per float32 parameter, half of Adam's.

    A gradient that is NaN leaves no NaN in the weight, as torch.sign(NaN) is 0. But m stays NaN: that element only
    decays from then on, and no weight and no loss tells.

    pytorch_optimizer, lion_pytorch and bitsandbytes have the same rule.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: how far every element moves, >= 0.
        betas: of the step and of the memory, each 0 <= beta < 1. For language models the paper takes (0.95, 0.98).
        weight_decay: decoupled, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format)}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        m = state["exp_avg"]
        c = beta1 * m + (1 - beta1) * grad
        param.mul_(1 - lr * group["weight_decay"]).sub_(lr * c.sign())
        m.mul_(beta2).add_(grad, alpha=1 - beta2)
