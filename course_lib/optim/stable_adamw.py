"""StableAdamW: AdamW that slows a tensor down where its second moment has fallen behind its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas


class StableAdamW(ScratchOptimizer):
    """AdamW with Adafactor's update clipping (Wortsman et al. 2023, arXiv 2304.13013, Algorithm 2).

    The rule, each tensor by itself::

        beta_hat = beta * (1 - beta^(t-1)) / (1 - beta^t)      for both betas
        v <- beta1_hat * v + (1 - beta1_hat) * g
        u <- beta2_hat * u + (1 - beta2_hat) * g^2
        RMS = sqrt(mean(g^2 / max(u, eps^2)))                  1 while u tells how large g^2 is
        lr_t = lr / max(1, RMS)
        param <- param * (1 - lr_t * weight_decay)
        param <- param - lr_t * v / (sqrt(u) + eps)

    When gradients grow suddenly after a quiet time, u remembers the quiet, and AdamW's steps are much longer than lr.
    RMS says how much: it is large for a whole tensor just then, and the step is divided by it. Adafactor (Shazeer &
    Stern 2018, 1804.04235, section 6) clips the same way, by the update's own RMS.

    The letters are the paper's, v for the first moment and u for the second. An average with beta_hat is the usual one
    with its bias corrected: v here is AdamW's m_hat. So while RMS stays below 1 the path is AdamW's to rounding.

    State: ``exp_avg`` (v) and ``exp_avg_sq`` (u), 8 bytes per float32 parameter. Both hold corrected averages, so that
    AdamW's state dict does not fit.

    pytorch_optimizer has the same rule (and by default Kahan summation for 16-bit weights, another copy of them). The
    decay is slowed down with the step there too, as in the paper.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(u), >= 0; its square is the smallest u that RMS divides by.
        weight_decay: decoupled, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
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
        v, u, t, eps = state["exp_avg"], state["exp_avg_sq"], state["step"], group["eps"]
        beta1, beta2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in group["betas"])
        v.mul_(beta1).add_(grad, alpha=1 - beta1)
        u.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        lr = group["lr"] / excess(grad, u, eps).clamp(min=1)
        param.mul_(1 - lr * group["weight_decay"])
        param.sub_(lr * v / (u.sqrt() + eps))


def excess(grad: Tensor, second_moment: Tensor, eps: float) -> Tensor:
    """``RMS`` of the rule: how much larger ``grad`` is than the second moment expects, 0-d, in float32 at least."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    return (grad.to(wide).square() / second_moment.to(wide).clamp(min=eps**2)).mean().sqrt()
