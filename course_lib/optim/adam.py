"""Adam, and AMSGrad as an option of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_flag


class Adam(ScratchOptimizer):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980, Algorithm 1); with ``amsgrad=True`` AMSGrad.

    The rule, g being the gradient and t = 1, 2, ... the step::

        g <- g + weight_decay * param                          L2 penalty, inside the gradient
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        param <- param - lr * m_hat / (sqrt(v_hat) + eps)

    State: ``exp_avg`` (m) and ``exp_avg_sq`` (v), 8 bytes per float32 parameter;
    AMSGrad keeps ``max_exp_avg_sq`` too, 12 bytes.

    AMSGrad as Reddi et al. 2018 (arXiv 1904.09237, Algorithm 2) write it has no bias correction.
    torch.optim, and this class with it, takes the maximum of v *before* correction and corrects the maximum.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0. With bias correction the first step is lr * sign(g), up to eps.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v_hat), outside the root and after the correction, >= 0.
        weight_decay: L2 coefficient inside the gradient, >= 0; for decoupled decay use AdamW.
        amsgrad: divide by the largest v so far.
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
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require_flag("amsgrad", group["amsgrad"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * group["amsgrad"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        self.adapt(param, grad, state, group)

    @staticmethod
    def adapt(param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """What Algorithm 1 does with a gradient: both moments, both corrections, the step."""
        beta1, beta2 = group["betas"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        if group["amsgrad"]:
            v = torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        param.sub_(group["lr"] * m_hat / (v_hat.sqrt() + group["eps"]))
