"""Lion in one pass over memory, in Triton."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from course_lib.kernels.triton_walk import TritonWalk, column, kernel, rounded, tl
from course_lib.optim.lion import Lion


@kernel
def lion(row, offsets, inside, factor, hyper, P: tl.constexpr, G: tl.constexpr, ALIGNED: tl.constexpr):
    """The rule of :class:`~course_lib.optim.Lion` for one block: 3 loads, 2 stores, 20 bytes a float32 parameter."""
    lr, decay, beta1, new1, beta2, new2 = hyper
    p_at = column(row, 0, P, ALIGNED) + offsets
    g_at = column(row, 1, G, ALIGNED) + offsets
    m_at = column(row, 2, tl.float32, ALIGNED) + offsets
    p = tl.load(p_at, mask=inside).to(tl.float32)
    g = tl.load(g_at, mask=inside).to(tl.float32) * factor
    m = tl.load(m_at, mask=inside)
    c = beta1 * m + new1 * g
    sign = (c > 0).to(tl.float32) - (c < 0).to(tl.float32)  # 0 where c is NaN, as torch.sign
    p = p * decay - lr * sign
    m = beta2 * m + new2 * g
    tl.store(p_at, rounded(p, P), mask=inside)
    tl.store(m_at, m, mask=inside)


class TritonLion(TritonWalk, Lion):
    """:class:`~course_lib.optim.Lion` as one kernel: arguments, rule and state are that class's.

    What differs: parameters are float32 or bfloat16, the momentum float32 whatever the parameter, and :meth:`step`
    takes a ``grad_factor``. One launch a group and dtype, as nothing in the rule depends on the step. The result is
    :class:`~course_lib.optim.Lion`'s but where c is so near to 0 that its last bit decides the sign.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError, ModuleNotFoundError, RuntimeError: see :class:`~course_lib.kernels.triton_walk.TritonWalk`.
    """

    def remembered(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg",)

    def rule(self, group: dict[str, Any]) -> Callable:
        return lion

    def hyper(self, group: dict[str, Any], phase: Hashable) -> tuple[float, ...]:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        return float(lr), 1.0 - lr * group["weight_decay"], float(beta1), 1.0 - beta1, float(beta2), 1.0 - beta2
