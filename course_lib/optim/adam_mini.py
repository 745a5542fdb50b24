"""Adam-mini: one second moment for a block of weights instead of one for each."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_count


class AdamMini(ScratchOptimizer):
    """Adam-mini (Zhang et al. 2024, arXiv 2406.16793).

    AdamW, but with the mean of g^2 over a block b of weights in the place of g^2::

        param <- param * (1 - lr * weight_decay)
        m   <- beta1 * m + (1 - beta1) * g                      an element each
        v_b <- beta2 * v_b + (1 - beta2) * mean(g^2 over b)     one number a block
        m_hat = m / (1 - beta1^t),  v_hat = v_b / (1 - beta2^t)
        param <- param - lr * m_hat / (sqrt(v_hat) + eps)

    Within a block the step is that of momentum SGD; between blocks it has Adam's scale. The blocks are what matters: they
    should be those of the Hessian. The authors' package (``adam_mini`` 1.1) tells them from a parameter's name: a head of
    the query and of the key matrix is a block; a row of any other matrix (an output neuron, a token of the embedding
    or head); a norm's weights are one block; biases keep Adam's rule. Here a group says it, by ``blocks``::

        AdamMini([{"params": query_and_key_weights, "blocks": heads},
                  {"params": other_matrices_and_norms},          # a row each; a vector is one block
                  {"params": biases, "blocks": width}])          # an element each: AdamW

    pytorch_optimizer's AdamMini keeps Adam's rule for embedding and head, cuts queries and keys by heads, and takes any
    other tensor for one block.

    State: ``exp_avg`` (m), 4 bytes per float32 parameter, and ``vmean`` (v_b), of shape (blocks,), 4 bytes a block.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of the averages of g and of the blocks' mean of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: decoupled decay, >= 0.
        blocks: how many equal blocks of neighbours along dimension 0 each tensor has; None for as many as it has rows
            (all dimensions but the last), and one for a vector.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range, or ``blocks`` does not divide dimension 0 of a tensor.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        blocks: int | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, blocks=blocks, maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        if group["blocks"] is not None:
            require_count("blocks", group["blocks"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for param in group["params"]:
                count_blocks(tuple(param.shape), group["blocks"])
        except ValueError:
            self.param_groups.pop()
            raise

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        count = count_blocks(tuple(param.shape), group["blocks"])
        return {"exp_avg": torch.zeros_like(param), "vmean": param.new_zeros(count)}

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes of state of one parameter with a block a row."""
        return (prod(shape) + count_blocks(shape)) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not param.numel():
            return  # a mean of nothing is NaN
        lr, (beta1, beta2) = group["lr"], group["betas"]
        m, v, t = state["exp_avg"], state["vmean"], state["step"]
        param.mul_(1 - lr * group["weight_decay"])
        m.lerp_(grad, 1 - beta1)
        v.lerp_(grad.square().reshape(len(v), -1).mean(dim=1), 1 - beta2)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        block_rates = lr / (v_hat.sqrt() + group["eps"])
        param.sub_((m_hat.reshape(len(v), -1) * block_rates.unsqueeze(1)).reshape(param.shape))


def count_blocks(shape: tuple[int, ...], blocks: int | None = None) -> int:
    """How many second moments a tensor of this shape has: ``blocks``, or by default its rows, or one for a vector.

    Raises:
        ValueError: ``blocks`` does not divide dimension 0.
    """
    if blocks is None:
        return prod(shape[:-1])
    length = shape[0] if shape else 1
    if length % blocks:
        raise ValueError(
            f"Invalid blocks: {blocks} for a tensor of shape {shape}. Allowed: a divisor of its first dimension, "
            f"{length}. Tensors that are cut in different ways belong in groups of their own."
        )
    return blocks
