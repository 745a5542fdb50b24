"""NAdam: Nesterov's look-ahead in Adam's first moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_flag


class NAdam(ScratchOptimizer):
    """NAdam (Dozat 2016, *Incorporating Nesterov Momentum into Adam*, ICLR workshop), as torch.optim has it.

    The rule, psi being momentum_decay::

        mu_t <- beta1 * (1 - 0.96^(t * psi) / 2)                          rises from beta1 / 2 to beta1
        M_t  <- mu_t * M_{t-1},  M_0 = 1                                  the product of all mu so far
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        m_hat <- mu_{t+1} * m / (1 - M_t * mu_{t+1}) + (1 - mu_t) * g / (1 - M_t)
        v_hat <- v / (1 - beta2^t)
        param <- param - lr * m_hat / (sqrt(v_hat) + eps)

    Adam steps along beta1 * m_{t-1} + (1 - beta1) * g: the momentum of the step before, and the gradient. NAdam puts
    the momentum of the *next* step, m_t, in the place of m_{t-1}, which is torch's form of Nesterov's rule
    (see :class:`course_lib.optim.Nesterov`) with averages for sums.

    In the paper m decays with mu_t too: m <- mu_t * m + (1 - mu_t) * g. The products of mu_i in the corrections belong
    to that average. torch.optim, Keras, and this class with them, decay m with beta1 and keep the products, which then
    do not fit: under a constant gradient the first step is 1.06 lr and the fourth 0.73 lr, before they near lr. The
    paper's own rule begins at 1.31 lr and never falls below lr.

    State: ``exp_avg`` (m) and ``exp_avg_sq`` (v), 8 bytes per float32 parameter; and ``mu_product``, one number per
    tensor, a float here. It is rounded to float32 at every step, as in torch.optim, even for float64 parameters:
    exact arithmetic would part from torch by 1e-7 of a step.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: L2 coefficient inside the gradient, or decoupled decay, >= 0.
        momentum_decay: psi, how fast mu rises, >= 0; with 0 it stays at beta1 / 2. The paper's 1/250 is the default.
        decoupled_weight_decay: decay as AdamW does.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require("momentum_decay", group["momentum_decay"], 0.0)
        require_flag("decoupled_weight_decay", group["decoupled_weight_decay"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        names = ["exp_avg", "exp_avg_sq"]
        zeros = {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}
        return zeros | {"mu_product": 1.0}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        if decay != 0 and group["decoupled_weight_decay"]:
            param.mul_(1 - lr * decay)
        elif decay != 0:
            grad = grad.add(param, alpha=decay)
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"])) for step in (t, t + 1))
        product = state["mu_product"] = _times_in_float32(state["mu_product"], mu)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m_hat = m * (mu_next / (1 - product * mu_next)) + grad * ((1 - mu) / (1 - product))
        v_hat = v / (1 - beta2**t)
        param.sub_(lr * m_hat / (v_hat.sqrt() + group["eps"]))


def _times_in_float32(product: Any, factor: float) -> float:
    """``product * factor`` as torch.optim rounds it: in float32, or float64 where that is torch's default dtype."""
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
    # A state dict of torch.optim brings the product as a tensor.
    return torch.tensor(float(product), dtype=dtype).mul_(factor).item()
