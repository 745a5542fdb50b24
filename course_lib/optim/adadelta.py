"""Adadelta: steps in the parameter's own units, without a learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require


class Adadelta(ScratchOptimizer):
    """Adadelta (Zeiler 2012, arXiv 1212.5701, Algorithm 1).

    The rule::

        v <- rho * v + (1 - rho) * g^2                        mean square of gradients
        delta <- sqrt(u + eps) / sqrt(v + eps) * g
        u <- rho * u + (1 - rho) * delta^2                    mean square of steps, used from the next step on
        param <- param - lr * delta

    Section 3.2's argument is one of units. g / sqrt(v) has none, so that lr in RMSProp must carry the
    parameter's. Here the root mean square of past steps does: without eps, a parameter measured in other units moves by
    the same step in those units, and the scale of the loss cancels.

    But eps has no unit, and u starts at 0: the first step is sqrt(eps / ((1 - rho) * g^2 + eps)) * g, about
    sqrt(eps / (1 - rho)), or 0.003 at the defaults, whatever the parameter's scale. Later steps grow from there.
    So eps, which sits inside both roots, is in truth the learning rate of the start.

    The paper has no lr. torch.optim, and this class with it, multiplies the step by one: after u has taken its
    share, so that u holds the steps as they would be with lr = 1. The paper's MNIST run has rho = 0.95, eps = 1e-6.

    State: ``square_avg`` (v) and ``acc_delta`` (u), 8 bytes per float32 parameter.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: multiplies the step, >= 0; 1 is the paper's rule.
        rho: decay of both averages, 0 <= rho < 1.
        eps: added inside both roots, >= 0; with 0 nothing ever moves, since u stays 0.
        weight_decay: L2 coefficient inside the gradient, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("rho", group["rho"], 0.0, 1.0, high_open=True)
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["square_avg", "acc_delta"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rho, eps, v, u = group["rho"], group["eps"], state["square_avg"], state["acc_delta"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        v.mul_(rho).addcmul_(grad, grad, value=1 - rho)
        delta = (u + eps).sqrt_().div_((v + eps).sqrt_()).mul_(grad)
        u.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        param.add_(delta, alpha=-group["lr"])
