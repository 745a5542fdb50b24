"""Stochastic gradient descent with momentum, in torch.optim's convention."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_flag


class SGD(ScratchOptimizer):
    """Gradient descent, optionally with momentum, dampening, Nesterov's step and L2 decay.

    One rule for all of them, g being the gradient::

        g   <- g + weight_decay * param                      L2 penalty, inside the gradient
        buf <- momentum * buf + (1 - dampening) * g          (the first step: buf <- g, not dampened)
        d   <- g + momentum * buf   if nesterov else buf
        param <- param - lr * d

    The buffer is a *sum* of gradients with gain 1 / (1 - momentum), not an average, unless
    ``dampening == momentum``. State: ``momentum_buffer``, 4 bytes per float32 parameter; none without momentum.

    In Polyak 1964 and Sutskever et al. 2013 the velocity already holds the learning rate. Here, as in torch.optim,
    lr multiplies the buffer: the same path while lr is constant, but a change of lr acts at once on past gradients too.
    Sutskever et al. take Nesterov's gradient at a look-ahead point; here ``param`` *is* that point.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: learning rate, >= 0.
        momentum: >= 0; 0 keeps no state.
        dampening: damps what each gradient adds to the buffer; any finite number.
        weight_decay: L2 coefficient, >= 0.
        nesterov: use Nesterov's form; needs momentum > 0 and dampening == 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.

    Sources: Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013 (ICML), section 2, for Nesterov's form.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening,
            weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("momentum", group["momentum"], 0.0)
        require("dampening", group["dampening"], -math.inf)
        require("weight_decay", group["weight_decay"], 0.0)
        require_flag("nesterov", group["nesterov"])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                f"Invalid nesterov: True with momentum={group['momentum']!r} and dampening={group['dampening']!r}. "
                "Allowed: nesterov=True only with momentum > 0 and dampening == 0."
            )

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        if momentum != 0:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = grad.clone()
            else:
                state["momentum_buffer"].mul_(momentum).add_(grad, alpha=1 - group["dampening"])
            buf = state["momentum_buffer"]
            grad = grad.add(buf, alpha=momentum) if group["nesterov"] else buf
        param.add_(grad, alpha=-group["lr"])
