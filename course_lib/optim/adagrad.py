"""AdaGrad: divide by the root of the sum of all squared gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require


class Adagrad(ScratchOptimizer):
    """AdaGrad (Duchi, Hazan & Singer 2011, JMLR 12), the diagonal version.

    The rule, t = 1, 2, ... being the step::

        G <- G + g^2
        param <- param - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(G) + eps)

    Each coordinate has its own 1 / sqrt of what it has seen: one that is rarely touched keeps a long step. Nothing is
    forgotten, so that steps only shrink: under a constant gradient they are lr / sqrt(t), under one that
    is seen every n-th step, sqrt(n) times that. The first step is lr * sign(g), without any correction for the start.

    State: ``sum`` (G), 4 bytes per float32 parameter. torch.optim allocates it in the constructor, for
    parameters that never get a gradient too; this class at a parameter's first step.

    The paper has no lr_decay. Its delta (Figure 1) stands where torch's eps does, outside the root. Keras starts the
    sum at 0.1, which is ``initial_accumulator_value`` here: a first step that is shorter for small gradients. The
    paper's full-matrix version takes the root of the sum of outer products instead, and nobody can store that.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: learning rate, >= 0.
        lr_decay: lowers lr further, as 1 / (1 + (t - 1) * lr_decay), >= 0.
        weight_decay: L2 coefficient inside the gradient, >= 0.
        initial_accumulator_value: where the sum starts, >= 0. A group may have its own; torch takes the constructor's.
        eps: added outside the root, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            require(name, group[name], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        start = group["initial_accumulator_value"]
        return {"sum": torch.full_like(param, start, memory_format=torch.preserve_format)}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        state["sum"].addcmul_(grad, grad)
        param.addcdiv_(grad, state["sum"].sqrt().add_(group["eps"]), value=-lr)
