"""RAdam: no adaptive step until its scale can be trusted, then one shortened by how little it can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_flag


class RAdam(ScratchOptimizer):
    """Rectified Adam (Liu et al. 2020, arXiv 1908.03265, Algorithm 2), as torch.optim has it.

    The rule::

        rho_inf = 2 / (1 - beta2) - 1                           how many gradients v averages over, in the end
        rho_t   = rho_inf - 2 * t * beta2^t / (1 - beta2^t)     how many after t steps
        m <- beta1 * m + (1 - beta1) * g,   m_hat = m / (1 - beta1^t)
        v <- beta2 * v + (1 - beta2) * g^2
        if rho_t > 5:
            r = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))
            param <- param - lr * r * m_hat * sqrt(1 - beta2^t) / (sqrt(v) + eps)
        else:
            param <- param - lr * m_hat                         not adaptive: SGD with an averaged gradient

    v_hat is right on average from the first step (see :class:`course_lib.optim.Adam`), but 1 / sqrt(v_hat) of few
    gradients scatters widely, and for rho_t <= 4 its variance is infinite. r is the ratio of the standard
    deviation in the end to the one now, to first order. It acts like a linear warmup over some 2 / (1 - beta2) steps
    (Ma & Yarats 2021, arXiv 1910.04209).

    There are three versions of the start. Algorithm 2 takes un-adapted steps while rho_t <= 4. torch.optim, and this
    class with it, does so while rho_t <= 5. The authors' own package adapts from rho_t >= 5 on and by default takes *no*
    step before. For the default beta2 that means 4, 5 and 5 steps. An un-adapted step is lr times the averaged gradient:
    its length has the gradient's scale, as SGD's has. For beta2 <= 2/3 rho_inf is at most 5, and no step ever adapts.

    eps stands before the correction here, as in torch.optim and the authors' package: where it matters, it is
    1 / sqrt(1 - beta2^t) times Adam's. The paper has none.

    State: ``exp_avg`` (m) and ``exp_avg_sq`` (v), 8 bytes per float32 parameter.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v), >= 0.
        weight_decay: L2 coefficient inside the gradient, or decoupled decay, >= 0.
        decoupled_weight_decay: decay as AdamW does.
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
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require_flag("decoupled_weight_decay", group["decoupled_weight_decay"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        if decay != 0 and group["decoupled_weight_decay"]:
            param.mul_(1 - lr * decay)
        elif decay != 0:
            grad = grad.add(param, alpha=decay)
        m.lerp_(grad, 1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m_hat = m / (1 - beta1**t)
        r = rectifier(t, beta2)
        if r > 0:
            adapted = (1 - beta2**t) ** 0.5 / (v.sqrt() + group["eps"])
            param.sub_(lr * r * m_hat * adapted)
        else:
            param.sub_(lr * m_hat)


def rectifier(t: int, beta2: float) -> float:
    """RAdam's r at step ``t`` = 1, 2, ...: between 0 and 1, and 0 where rho_t <= 5, so that the step is not adapted.

    rho_t is a small difference of two numbers near 2 / (1 - beta2), so that r is right to about 1e-10 only.
    """
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return 0.0
    return ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
