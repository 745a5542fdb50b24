"""LAMB: Adam's direction, its length in each layer a fixed share of that layer's norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas
from course_lib.optim.lars import norm


class LAMB(ScratchOptimizer):
    """Layer-wise Adaptive Moments for Batch training (You et al. 2020, arXiv 1904.00962, Algorithm 2).

    The rule, each tensor by itself, ||.|| being its Euclidean norm::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        u = m_hat / (sqrt(v_hat) + eps) + weight_decay * param
        ratio = ||param|| / ||u||                              1 where either norm is zero
        param <- param - lr * ratio * u

    A tensor of which no norm is zero moves by exactly lr * ||param||: lr is the share of its weights that every layer
    changes in a step. The paper's phi, applied to ||param||, is the identity here.

    Bias correction multiplies m / sqrt(v) by one number, and the ratio divides it out again. So without decay, and but
    for eps, LAMB with and without correction takes the same steps. With decay the correction decides how much of
    the fixed length goes to the decay while t is small.

    State: ``exp_avg`` (m) and ``exp_avg_sq`` (v), 8 bytes per float32 parameter.

    What differs elsewhere (no two packages agree):

    - pytorch_optimizer has no bias correction, after an earlier version of the paper. It cuts ||param|| at 10 (a phi
      that the paper does not name) and adds eps to ||u||. By default it takes the decay out of u, as AdamW does, and
      divides the step by 1 - beta1^t, so that the first is ten times as long; the registry's counterpart undoes both.
    - NVIDIA's and timm's first clip all gradients together to a norm of 1.
    - bitsandbytes' LAMB is Adam whose update is shortened to ||param|| where it is longer; it is never lengthened.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: share of its norm that a tensor moves, >= 0.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: inside the normalised update, >= 0.
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
        eps: float = 1e-6,
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
        names = ["exp_avg", "exp_avg_sq"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = m_hat / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * param
        before, after = norm(param), norm(u)
        ratio = torch.where((before == 0) | (after == 0), torch.ones_like(before), before / after)
        param.sub_(group["lr"] * ratio * u)
