"""Schedule-Free AdamW: an average of the path in the place of a decaying learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import (
    ScratchOptimizer,
    require,
    require_betas,
    require_count,
    require_flag,
)


class ScheduleFreeAdamW(ScratchOptimizer):
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv 2405.15682, Algorithm 1), as its authors' code has it.

    Three points: z takes Adam's steps, x is the average of all z so far, and the gradient g is taken between them::

        y = (1 - beta1) * z + beta1 * x                        where the gradient is taken
        v <- beta2 * v + (1 - beta2) * g^2,  v_hat = v / (1 - beta2^t)
        lr_t = lr * min(1, t / warmup_steps)
        u = g / (sqrt(v_hat) + eps) + weight_decay * y
        z <- z - lr_t * u
        c = w_t / (w_1 + ... + w_t),  w_t = (largest lr so far)^2
        x <- (1 - c) * x + c * z                               an equal average of all z after the warmup

    A falling learning rate does two things: it lets the noise of single steps average out, and it fixes the end of the
    run in advance. Averaging does the first without the second: x is good at any time. beta1 stands in for
    momentum; the first moment is not kept, so that the state is no larger than Adam's.

    The parameters hold y while training and x while evaluating: call :meth:`eval` before validation, sampling and
    saving the model, and :meth:`train` before training again. Losses measured at y are worse, and wrong.

    State: ``z`` and ``exp_avg_sq`` (v), 8 bytes per float32 parameter; x is computed from y and z, which is why beta1
    must not be 0. Besides two numbers for each tensor: ``weight_sum`` and ``lr_max``. The mode is stored in each
    group as ``train_mode``, and comes back with a state dict; save the model's weights in the same mode.

    What differs elsewhere: Algorithm 1 of the paper puts the factor sqrt(1 - beta2^t) into lr_t, so that eps is larger
    at first and early z weigh less; the authors' code, and this class with it, corrects v and leaves the weights alone.
    Packages count steps and weights by group, this class by parameter: the same where every gradient is there.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0; 1 to 10 times what AdamW takes with a schedule.
        betas: share of x in y, 0 < beta1 < 1, and decay of the average of g^2, 0 <= beta2 < 1.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: applied at y, >= 0.
        warmup_steps: over which lr rises linearly, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, warmup_steps=warmup_steps,
            maximize=maximize, train_mode=True,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("betas[0]", group["betas"][0], 0.0, 1.0, low_open=True, high_open=True)
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require_count("warmup_steps", group["warmup_steps"], 0)
        require_flag("train_mode", group["train_mode"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "z": param.detach().clone(memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
            "weight_sum": 0.0,
            "lr_max": 0.0,
        }

    @torch.no_grad()
    def train(self) -> None:
        """Let the parameters hold y, the point to take gradients at; nothing happens where they do."""
        for param, z, beta1 in self._turn(train_mode=True):
            param.lerp_(z, 1 - beta1)

    @torch.no_grad()
    def eval(self) -> None:
        """Let the parameters hold x, the average to evaluate, sample from and save; nothing happens where they do."""
        for param, z, beta1 in self._turn(train_mode=False):
            param.lerp_(z, 1 - 1 / beta1)

    def _turn(self, *, train_mode: bool) -> list[tuple[Tensor, Tensor, float]]:
        """Note the mode in every group; return parameter, z and beta1 of those that must change."""
        turned = [group for group in self.param_groups if group["train_mode"] != train_mode]
        for group in turned:
            group["train_mode"] = train_mode
        return [
            (param, self.state[param]["z"], group["betas"][0])
            for group in turned for param in group["params"] if self.state.get(param)
        ]

    def require_ready(self) -> None:
        """Raise RuntimeError while the parameters hold the average, at which no step may be taken."""
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError(
                "ScheduleFreeAdamW is in evaluation mode: its parameters hold the average x, and gradients must be "
                "taken at y. Call optimizer.train() before the forward pass, and optimizer.eval() before evaluation."
            )

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        y, z, v, t = param, state["z"], state["exp_avg_sq"], state["step"]
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        v_hat = v / (1 - beta2**t)
        lr = group["lr"] * min(1.0, t / max(group["warmup_steps"], 1))
        u = grad / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * y
        state["lr_max"] = max(lr, state["lr_max"])
        weight = state["lr_max"] ** 2
        state["weight_sum"] += weight
        c = weight / state["weight_sum"] if weight else 0.0
        # x = (y - (1 - beta1) * z) / beta1, put into the rule for the new y, leaves this: x is never formed.
        y.lerp_(z, c).sub_(lr * (1 - beta1 * (1 - c)) * u)
        z.sub_(lr * u)
