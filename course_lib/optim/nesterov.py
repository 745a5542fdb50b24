"""Nesterov's momentum: the gradient at a point ahead, and the change of variables that hides it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require


class Nesterov(ScratchOptimizer):
    """Nesterov's accelerated gradient as Sutskever et al. 2013 write it, kept at the look-ahead point.

    Look ahead along the velocity, take the gradient *there*, and go on from where you were::

        v     <- mu * v - lr * grad(theta + mu * v)
        theta <- theta + v

    A training loop takes the gradient where the parameters are. So let the parameters hold the look-ahead point
    y = theta + mu * v. With v = -lr * b the first line becomes b <- mu * b + g, where g is the gradient at y, and

        theta_t = y_{t-1} - lr * g_t                    since theta_{t-1} = y_{t-1} + lr * mu * b_{t-1}
        y_t     = theta_t - lr * mu * b_t               look ahead again

    Together y_t = y_{t-1} - lr * (g_t + mu * b_t), which is torch.optim.SGD(nesterov=True): a change of variables
    (Bengio et al. 2012), not another method. The two lines are how :meth:`update` is written, and :meth:`iterate`
    gives theta back.

    When lr changes, theta is still the end of a plain gradient step of the day's lr from the look-ahead point, and
    the look-ahead is as long as that lr makes it: torch's convention, in which lr multiplies the buffer. Written with a
    velocity, v_t = -lr_{t-1} * mu * b_{t-1} - lr_t * g_t. Sutskever's velocity carries the lr of each gradient's own
    step instead, so that the two part as soon as lr changes within the memory of the buffer.

    State: ``momentum_buffer`` (b), 4 bytes per float32 parameter, and the number ``ahead`` = lr * mu of the last step.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: learning rate, >= 0.
        momentum: mu, > 0; for none use SGD. Below 1, or old gradients never fade.
        weight_decay: L2 coefficient, >= 0; like the gradient it acts at the look-ahead point.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.

    Sources: Nesterov 1983; Sutskever et al. 2013 (ICML), eq. 3 and 4; Bengio, Boulanger-Lewandowski & Pascanu 2012
    (arXiv 1212.0901), section 3.5, for the change of variables.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        # The last two say to torch.optim.SGD, should it load the state dict, which of its rules this is.
        super().__init__(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay, maximize=maximize,
            nesterov=True, dampening=0.0,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("momentum", group["momentum"], 0.0, low_open=True)
        require("weight_decay", group["weight_decay"], 0.0)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(param, memory_format=torch.preserve_format)}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, mu, b = group["lr"], group["momentum"], state["momentum_buffer"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        b.mul_(mu).add_(grad)
        param.add_(grad, alpha=-lr)              # now it is theta
        param.add_(b, alpha=-lr * mu)            # and now the next look-ahead point
        state["ahead"] = lr * mu

    @torch.no_grad()
    def iterate(self, param: Tensor) -> Tensor:
        """Return theta, the iterate of the look-ahead rule, of which ``param`` is the look-ahead point.

        Theta is what Nesterov's theorems are about, and what to evaluate or keep at the end. Before the first step it
        is ``param`` itself. Right after loading a state dict of torch.optim.SGD, which does not tell the lr of its
        last step, the group's present lr stands in for it.

        Returns:
            A new tensor of the parameter's shape, dtype and device.

        Raises:
            ValueError: ``param`` is none of this optimizer's parameters.
        """
        group = next((group for group in self.param_groups if any(param is one for one in group["params"])), None)
        if group is None:
            raise ValueError(
                f"Invalid param: this tensor of shape {tuple(param.shape)} is none of the optimizer's parameters. "
                "Allowed: the very tensor that the optimizer was given."
            )
        state = self.state.get(param)
        if not state:
            return param.detach().clone()
        return param.add(state["momentum_buffer"], alpha=state.get("ahead", group["lr"] * group["momentum"]))
