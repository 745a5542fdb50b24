"""AdamW with both moments stored in 8 bits."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_count
from course_lib.precision.blockwise import BLOCK, dequantise, quantise

MIN_SIZE = 4096
"""Elements from which on a tensor's moments are quantised, as in bitsandbytes."""


class AdamW8bit(ScratchOptimizer):
    """8-bit AdamW (Dettmers et al. 2022, arXiv 2110.02861, section 2), as bitsandbytes has it.

    AdamW in float32 between a dequantisation and a quantisation (:mod:`course_lib.precision.blockwise`)::

        m, v = dequantise(codes and largest size of each block), m with a sign and v without
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        param <- param * (1 - lr * weight_decay) - lr * m_hat / (sqrt(v_hat) + eps)
        store quantise(m), quantise(v)

    A step is AdamW's from the stored moments, without further loss; all loss is in storing them. Of what a block's
    largest number is, m is off by 0.7% at most and v by 0.35%. Of the number itself v is off by 3.3% at most in the
    first decade below the largest, by nearly twice that in the next, and so on, and below 1.6e-7 of the largest it
    becomes zero: an element whose gradients are under 1/2500 of its block's largest forgets its v, and after many steps moves
    by up to 1 / sqrt(1 - beta2) = 32 lr instead of lr. Hence the small blocks.

    The paper has blocks of 2048 and keeps embeddings in 32 bits; bitsandbytes, and this class with it, has
    blocks of 256 and keeps tensors under 4096 elements in float32, whatever the weight's dtype. 16-bit weights are
    computed with in float32 and rounded once.

    bitsandbytes' kernel for the CPU (0.50) looks a code up in a grid of 2^-15 of the block's largest number. So what it
    stores is up to that much farther off than the nearest value, and a zero in m comes back as 2e-5 of the largest: a
    weight without any gradient moves. Here zeros are exact.

    State: ``state1`` (m) and ``state2`` (v), codes in uint8 of the parameter's shape, and the scales ``absmax1`` and
    ``absmax2`` in float32, one for each block of the elements in row-major order: 2 + 8 / 256 = 2.03 bytes a
    parameter. Under ``min_size`` ``state1`` and ``state2`` are float32, 8 bytes, and there are no scales.

    Args:
        params: tensors or parameter groups, as in torch.optim.
        lr: step size, >= 0.
        betas: decay of the averages of g and of g^2, each 0 <= beta < 1.
        eps: added to sqrt(v_hat), >= 0.
        weight_decay: decoupled decay, >= 0.
        block: elements that share a scale, >= 1.
        min_size: elements from which on a tensor's state is quantised, >= 0.
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range, or ``block`` was changed after the first step.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        block: int = BLOCK,
        min_size: int = MIN_SIZE,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, block=block, min_size=min_size,
            maximize=maximize,
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require_betas(group["betas"])
        require("eps", group["eps"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require_count("block", group["block"])
        require_count("min_size", group["min_size"], 0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim's, except that codes and scales keep their dtypes.

        torch.optim gives all state the dtype of its parameter, which would make float32 numbers of the codes, and
        bf16 ones of the scales.
        """
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                if name != "step":
                    self.state[param][name] = value.to(param.device)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        if param.numel() < group["min_size"]:
            return {name: torch.zeros_like(param, dtype=torch.float32) for name in ("state1", "state2")}
        state = {}
        for name, signed in (("1", True), ("2", False)):
            codes, absmax = quantise(torch.zeros_like(param), signed=signed, block=group["block"])
            state |= {f"state{name}": codes.reshape(param.shape), f"absmax{name}": absmax}
        return state

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes of state of one parameter by default settings, which its dtype does not change."""
        size = prod(shape)
        return 8 * size if size < MIN_SIZE else 2 * (size + 4 * ceil(size / BLOCK))

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2), t, block = group["lr"], group["betas"], state["step"], group["block"]
        in_8_bits = "absmax1" in state
        m, v = state["state1"], state["state2"]
        if in_8_bits:
            m = dequantise(m, state["absmax1"], signed=True, block=block, shape=param.shape)
            v = dequantise(v, state["absmax2"], signed=False, block=block, shape=param.shape)
        g = grad.float()
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        wide = param.to(torch.promote_types(param.dtype, torch.float32))
        param.copy_(wide * (1 - lr * group["weight_decay"]) - lr * m_hat / (v_hat.sqrt() + group["eps"]))
        if in_8_bits:
            for name, moment, signed in (("1", m, True), ("2", v, False)):
                codes, absmax = quantise(moment, signed=signed, block=block)
                state[f"state{name}"].copy_(codes.reshape(param.shape))
                state[f"absmax{name}"].copy_(absmax)
