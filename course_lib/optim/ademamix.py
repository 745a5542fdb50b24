"""AdEMAMix: Adam with a second, very slow memory of old gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import (
    ScratchOptimizer,
    require,
    require_betas,
    require_count,
)


class AdEMAMix(ScratchOptimizer):
    """AdEMAMix (Pagliardini et al. 2024, arXiv 2409.03137, Algorithm 1).

    The rule::

        m1 <- beta1 * m1 + (1 - beta1) * g                     fast: about 10 steps
        m2 <- beta3_t * m2 + (1 - beta3_t) * g                 slow: about 10,000 steps
        v  <- beta2 * v + (1 - beta2) * g^2
        m1_hat = m1 / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        param <- param - lr * ((m1_hat + alpha_t * m2) / (sqrt(v_hat) + eps) + weight_decay * param)

    One average cannot do both: with a large beta1 it is slow to follow the valley, with a small one it has forgotten
    gradients that still tell something. m2 is not corrected for its start at zero, so that it gains weight slowly;
    under a constant gradient the step grows from lr to (1 + alpha) * lr.

    Both new settings may be warmed up, over as many steps as the run has, in the paper (:func:`alpha_at` and
    :func:`beta3_at`): an early, noisy m2 with full weight can make a run diverge.

    State: ``exp_avg`` (m1), ``exp_avg_sq`` (v) and ``exp_avg_slow`` (m2), 12 bytes per float32 parameter. Kept in
    bfloat16, m2 never forgets: a number times 0.9999 rounds to itself.

    The authors' code, bitsandbytes and pytorch_optimizer have the same rule; pytorch_optimizer's default decay is an L2
    penalty inside the gradient, and it has one warmup for alpha and beta3.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: beta1, beta2 and beta3, each 0 <= beta < 1.
        alpha: weight of the slow average, >= 0; the paper takes 4 to 10.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: decoupled, >= 0.
        alpha_warmup: steps until alpha is reached, >= 1; None for at once.
        beta3_warmup: steps until beta3 is reached, >= 1; None for at once.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        alpha_warmup: int | None = None,
        beta3_warmup: int | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, alpha=alpha, eps=eps, weight_decay=weight_decay, alpha_warmup=alpha_warmup,
            beta3_warmup=beta3_warmup, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require_betas(group["betas"], 3)
        for name in ("lr", "alpha", "eps", "weight_decay"):
            require(name, group[name], 0.0)
        for name in ("alpha_warmup", "beta3_warmup"):
            if group[name] is not None:
                require_count(name, group[name])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq", "exp_avg_slow"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2, _), t = group["lr"], group["betas"], state["step"]
        m1, m2, v = state["exp_avg"], state["exp_avg_slow"], state["exp_avg_sq"]
        alpha, beta3 = alpha_at(t, group), beta3_at(t, group)
        m1.mul_(beta1).add_(grad, alpha=1 - beta1)
        m2.mul_(beta3).add_(grad, alpha=1 - beta3)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m1_hat = m1 / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        param.mul_(1 - lr * group["weight_decay"])
        param.sub_(lr * (m1_hat + alpha * m2) / (v_hat.sqrt() + group["eps"]))


def alpha_at(step: int, group: dict[str, Any]) -> float:
    """The weight of the slow average at step 1, 2, ...: linear up to ``group["alpha"]`` (the paper's f_alpha)."""
    return group["alpha"] * _progress(step, group["alpha_warmup"])


def beta3_at(step: int, group: dict[str, Any]) -> float:
    """beta3 at step 1, 2, ...: from beta1 up, as the paper's f_beta3: its half-life log(1/2) / log(beta) grows linearly.

    Linear in beta itself, the memory would stay short for nearly all of the warmup: from 0.9 to 0.9999 half of the way
    is 0.95, a half-life of 14 steps of 6931.
    """
    (beta1, _, beta3), progress = group["betas"], _progress(step, group["beta3_warmup"])
    if progress == 1:
        return beta3
    half_life = (1 - progress) * _half_life(beta1) + progress * _half_life(beta3)
    return 0.5 ** (1 / half_life) if half_life else 0.0


def _progress(step: int, warmup: int | None) -> float:
    return 1.0 if warmup is None else min(step / warmup, 1.0)


def _half_life(beta: float) -> float:
    return math.log(0.5) / math.log(beta) if beta else 0.0
