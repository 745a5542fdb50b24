"""AdamW in one pass over memory, in Triton."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from course_lib.kernels.triton_walk import TritonWalk, column, kernel, rounded, tl
from course_lib.optim.adamw import AdamW


@kernel
def adamw(row, offsets, inside, factor, hyper, P: tl.constexpr, G: tl.constexpr, ALIGNED: tl.constexpr):
    """The rule of :class:`~course_lib.optim.AdamW` for one block: 4 loads, 3 stores, 28 bytes a float32 parameter."""
    decay, new1, beta2, new2, step_size, correction, eps = hyper
    p_at = column(row, 0, P, ALIGNED) + offsets
    g_at = column(row, 1, G, ALIGNED) + offsets
    m_at = column(row, 2, tl.float32, ALIGNED) + offsets
    v_at = column(row, 3, tl.float32, ALIGNED) + offsets
    p = tl.load(p_at, mask=inside).to(tl.float32)
    g = tl.load(g_at, mask=inside).to(tl.float32) * factor
    m = tl.load(m_at, mask=inside)
    v = tl.load(v_at, mask=inside)
    p = p * decay
    m = m + new1 * (g - m)  # beta1 * m + (1 - beta1) * g
    v = beta2 * v + new2 * g * g
    p = p - step_size * tl.div_rn(m, tl.sqrt_rn(v) * correction + eps)
    tl.store(p_at, rounded(p, P), mask=inside)
    tl.store(m_at, m, mask=inside)
    tl.store(v_at, v, mask=inside)


class TritonAdamW(TritonWalk, AdamW):
    """:class:`~course_lib.optim.AdamW` as one kernel: arguments, rule and state are that class's.

    What differs: parameters are float32 or bfloat16, the moments float32 whatever the parameter, ``amsgrad=True`` is
    refused, and :meth:`step` takes a ``grad_factor``. Parameters of one step count share a launch. The result is
    torch.optim.AdamW's within 1e-6 in float32; the last bits differ because the sums round elsewhere.

    Raises:
        ValueError: a hyper-parameter is out of its range, or ``amsgrad`` is True.
        TypeError, ModuleNotFoundError, RuntimeError: see :class:`~course_lib.kernels.triton_walk.TritonWalk`.
    """

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        if group["amsgrad"]:
            raise ValueError(
                "Invalid amsgrad: True. Allowed: False, as the kernel keeps no maximum; use "
                "course_lib.optim.AdamW(amsgrad=True)."
            )

    def remembered(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def rule(self, group: dict[str, Any]) -> Callable:
        return adamw

    def phase(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> int:
        return state["step"]

    def hyper(self, group: dict[str, Any], phase: int) -> tuple[float, ...]:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        return (
            1.0 - lr * group["weight_decay"],
            # 1 - beta is taken here, in float64: in float32 1 - 0.999 is off by 5e-5 of itself.
            1.0 - beta1,
            float(beta2),
            1.0 - beta2,
            lr / (1.0 - beta1**phase),
            1.0 / math.sqrt(1.0 - beta2**phase),
            float(group["eps"]),
        )
