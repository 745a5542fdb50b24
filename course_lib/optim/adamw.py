"""AdamW: Adam with weight decay taken out of the gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.adam import Adam


class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, Algorithm 2).

    Arguments, state and errors are :class:`Adam`'s; only the decay is applied elsewhere::

        param <- param * (1 - lr * weight_decay)               decoupled: m and v never see it
        param <- param - lr * m_hat / (sqrt(v_hat) + eps)      Adam's step on the bare gradient

    In the paper the decay is scaled by the schedule's multiplier alone, not by the base learning
    rate. torch.optim, and this class with it, multiplies it by lr: a weight whose gradient is always zero
    shrinks by 1 - lr * weight_decay per step, e-fold in about 1 / (lr * weight_decay) steps. One whose
    gradient is missing (None) is left alone, decay included.

    The default weight_decay is torch.optim.AdamW's 0.01; recipes for language models mostly use 0.1.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        param.mul_(1 - group["lr"] * group["weight_decay"])
        self.adapt(param, grad, state, group)
