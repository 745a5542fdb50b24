"""RMSProp: divide by a forgetting root mean square of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_flag


class RMSprop(ScratchOptimizer):
    """RMSProp, with torch.optim's centred and momentum variants.

    The rule, with alpha torch's name for the decay of the average::

        v <- alpha * v + (1 - alpha) * g^2
        avg <- sqrt(v) + eps                      (centred: sqrt(v - mean(g)^2) + eps)
        param <- param - lr * g / avg             (momentum: buf <- momentum * buf + g / avg; param -= lr * buf)

    There is no bias correction: v starts at 0, so the first step is lr / sqrt(1 - alpha) long, ten
    times lr for alpha = 0.99. State: ``square_avg``, 4 bytes per float32 parameter;
    4 more each with momentum (``momentum_buffer``) and centred (``grad_avg``).

    The lecture has alpha = 0.9 and no eps. Graves (alpha = 0.95) adds 1e-4 *inside* the root and keeps lr inside the
    buffer.
    torch.optim, and this class with it, has eps outside, where it cannot help when rounding
    makes v - mean(g)^2 negative: a centred run whose gradient hardly varies can end in NaN.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: learning rate, >= 0.
        alpha: decay of the average of squares, 0 <= alpha < 1.
        eps: added outside the root, >= 0.
        weight_decay: L2 coefficient inside the gradient, >= 0.
        momentum: >= 0; 0 keeps no buffer.
        centered: subtract the square of the mean gradient, an estimate of the variance instead.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.

    Sources: Tieleman & Hinton 2012 (Coursera lecture 6e); Graves 2013 (arXiv 1308.0850, eq. 38-45), centred with
    momentum.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
            momentum=momentum, centered=centered, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("alpha", group["alpha"], 0.0, 1.0, high_open=True)
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require("momentum", group["momentum"], 0.0)
        require_flag("centered", group["centered"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = {"square_avg": torch.zeros_like(param, memory_format=torch.preserve_format)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        if group["centered"]:
            state["grad_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        alpha, v = group["alpha"], state["square_avg"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        v.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if group["centered"]:
            mean = state["grad_avg"]
            mean.lerp_(grad, 1 - alpha)
            avg = v.addcmul(mean, mean, value=-1).sqrt_().add_(group["eps"])
        else:
            avg = v.sqrt().add_(group["eps"])
        if group["momentum"] > 0:
            buf = state["momentum_buffer"]
            buf.mul_(group["momentum"]).addcdiv_(grad, avg)
            param.add_(buf, alpha=-group["lr"])
        else:
            param.addcdiv_(grad, avg, value=-group["lr"])
