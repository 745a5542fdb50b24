"""Sophia: momentum divided by an estimate of the curvature, and clipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_count


class Sophia(ScratchOptimizer):
    """Sophia (Liu et al. 2023, arXiv 2305.14342, Algorithm 3).

    The rule, h_hat being an estimate of the diagonal of the Hessian or of the Gauss-Newton matrix::

        every k-th step or so:  h <- beta2 * h + (1 - beta2) * h_hat             update_hessian
        m <- beta1 * m + (1 - beta1) * g
        param <- param * (1 - lr * weight_decay)
        param <- param - lr * clip(m / max(rho * h, eps), -1, 1)

    Where rho * h is small or negative, the clip makes it sign descent on the momentum with steps of lr; where it is
    large, a damped Newton step. The paper writes gamma for rho. (Other code has clip(m / max(h, eps), -rho, rho), as
    pytorch_optimizer's SophiaH: the same with lr / rho, rho * weight_decay and eps / rho.) Neither average is corrected
    for its start: h takes about 1 / (1 - beta2) estimates to grow to its size, and more is clipped until then.

    The authors' code has no maximum: it adds 1e-15 to rho * B * h, takes |m| and a minimum with 1, and keeps h
    without the batch size B, which its step multiplies in. With B the same at every estimate, and h >= 0, that is the
    same but for the eps.

    Every k = 10 steps, *before* the step, one of ::

        loss_with_labels_of_the_model.backward()                                 labels: curvature.sample_labels
        optimizer.update_hessian(batch_size=tokens)
        optimizer.zero_grad()

        optimizer.update_hessian(estimate=gauss_newton_bartlett(logits, params, rng))
        optimizer.update_hessian(estimate=hutchinson(loss, params, rng))

    State: ``exp_avg`` (m) and ``hessian`` (h), 8 bytes per float32 parameter: as much as AdamW.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0, and the most by which an element moves in a step, decay apart.
        betas: decay of m and of h, each 0 <= beta < 1.
        rho: divides the Newton step, > 0: a larger rho means that fewer elements are clipped.
        weight_decay: decoupled decay, >= 0.
        eps: least curvature that is divided by, > 0.
        maximize: ascend instead. An estimate is used as given: for Hutchinson's take that of the negated loss.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float = 0.1,
        eps: float = 1e-12,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, rho=rho, weight_decay=weight_decay, eps=eps, maximize=maximize)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("rho", group["rho"], 0.0, low_open=True)
        require("weight_decay", group["weight_decay"], 0.0)
        require("eps", group["eps"], 0.0, low_open=True)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        names = ["exp_avg", "hessian"]
        state = {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}
        return state | {"estimates": 0}

    @torch.no_grad()
    def update_hessian(self, batch_size: int | None = None, *, estimate: Sequence[Tensor] | None = None) -> None:
        """Take one estimate of the curvature into the average h.

        Args:
            batch_size: the estimate is ``batch_size * grad**2`` of every parameter that has a gradient now. The
                gradients must be of a *mean* loss over ``batch_size`` predictions (tokens of a language model, not
                sequences) with labels drawn from the model; those of the data would give the empirical Fisher.
            estimate: the estimate itself, one tensor for each parameter in the order of the groups.

        Raises:
            ValueError: both arguments are given or neither, or the estimate does not fit the parameters.
            RuntimeError: a gradient is sparse.
        """
        if (batch_size is None) == (estimate is None):
            raise ValueError(
                "Invalid arguments: update_hessian takes either batch_size, to use the gradients that the parameters "
                "hold now, or estimate, one tensor for each parameter."
            )
        pairs = [(param, group) for group in self.param_groups for param in group["params"]]
        if estimate is None:
            require_count("batch_size", batch_size)
            found = [None if param.grad is None else batch_size * _dense(param.grad).square() for param, _ in pairs]
        else:
            found = list(estimate)
            shapes, wanted = [tuple(each.shape) for each in found], [tuple(param.shape) for param, _ in pairs]
            if shapes != wanted:
                raise ValueError(f"Invalid estimate: shapes {shapes}. Allowed: a tensor for each parameter, {wanted}.")
        for (param, group), each in zip(pairs, found, strict=True):
            if each is None:
                continue
            state = self.state[param]
            if not state:
                state.update(self.init_state(param, group))
            beta2 = group["betas"][1]
            state["hessian"].mul_(beta2).add_(each, alpha=1 - beta2)
            state["estimates"] += 1

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        # One parameter may lack what the others have (its layer was not used): its h is zero, its steps are clipped.
        if not state["estimates"] and not any(held.get("estimates") for held in self.state.values()):
            raise RuntimeError(
                "Sophia has no estimate of the curvature yet, and without one it would be sign descent. Call "
                "update_hessian before the first step and then about every tenth: see Sophia's documentation."
            )
        lr, beta1 = group["lr"], group["betas"][0]
        m, h = state["exp_avg"], state["hessian"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        param.mul_(1 - lr * group["weight_decay"])
        param.sub_(lr * (m / (group["rho"] * h).clamp(min=group["eps"])).clamp(-1, 1))


def _dense(grad: Tensor) -> Tensor:
    if grad.layout is not torch.strided:
        raise RuntimeError(
            f"Sophia does not support sparse gradients (shape {tuple(grad.shape)}); use a dense real gradient."
        )
    return grad
