"""LARS: momentum whose step is a fixed share of each layer's own norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require


def norm(tensor: Tensor) -> Tensor:
    """The Euclidean norm of all elements, 0-d, in float32 at least: that of a float16 tensor may exceed 65504."""
    return torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))


class LARS(ScratchOptimizer):
    """Layer-wise Adaptive Rate Scaling (You et al. 2017, arXiv 1708.03888, eq. 6 and Algorithm 1).

    The rule, each tensor by itself, ||.|| being its Euclidean norm::

        ratio = trust_coefficient * ||param|| / (||g|| + weight_decay * ||param|| + eps)
        buf <- momentum * buf + ratio * (g + weight_decay * param)
        param <- param - lr * buf

    The step before momentum is at most lr * trust_coefficient * ||param|| long, whatever the gradient's length: the
    same share of every layer's weights. Multiplying a gradient by a constant changes nothing (up to eps).

    Where ``param`` is all zeros, or the denominator is zero, the ratio is 1. The paper's formula gives 0 for the
    first, so that a bias that starts at zero would stay there. With a ratio of 1 it takes momentum's own step.

    State: ``momentum_buffer``, 4 bytes per float32 parameter; none without momentum.

    What differs elsewhere:

    - In Algorithm 1 the buffer already holds the learning rate. Here, as in pytorch_optimizer, torchlars and timm, lr
      multiplies the buffer: the same path while lr is constant, but a change of lr acts at once on past gradients too.
      (:class:`course_lib.optim.SGD` has the same choice to make.)
    - pytorch_optimizer has no eps, and leaves vectors and scalars to plain momentum, without ratio and without decay.
      So do most recipes: biases and the gains of norms are short, and their ratio says little. To follow them, give
      those to another optimizer.
    - bitsandbytes' LARS clips the update's norm in proportion to the weights' norm; shorter ones it leaves alone.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: global rate, >= 0; multiplies the ratio.
        momentum: >= 0; 0 keeps no state.
        weight_decay: L2 coefficient, inside the ratio and the step, >= 0.
        trust_coefficient: eta of the paper, the share of its weights that a layer moves at lr 1, >= 0.
        eps: in the denominator, >= 0; not in the paper.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient, eps=eps,
            maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        for name in ("lr", "momentum", "weight_decay", "trust_coefficient", "eps"):
            require(name, group[name], 0.0)

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        size = norm(param)
        denominator = norm(grad) + decay * size + group["eps"]
        ratio = group["trust_coefficient"] * size / denominator
        # A comparison on the device: reading a number back would make the host wait for the GPU at every tensor.
        ratio = torch.where((size == 0) | (denominator == 0), torch.ones_like(ratio), ratio)
        step = ratio * (grad + decay * param)
        if group["momentum"] != 0:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            step = state["momentum_buffer"].mul_(group["momentum"]).add_(step)
        param.sub_(group["lr"] * step)
