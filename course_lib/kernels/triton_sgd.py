"""SGD in one pass over memory, in Triton; with momentum and without."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from course_lib.kernels.triton_walk import TritonWalk, column, float32_zeros, kernel, rounded, tl
from course_lib.optim.sgd import SGD


@kernel
def sgd(row, offsets, inside, factor, hyper, P: tl.constexpr, G: tl.constexpr, ALIGNED: tl.constexpr):
    """The rule of :class:`~course_lib.optim.SGD` without momentum: 2 loads, 1 store, 12 bytes a float32 parameter."""
    lr, weight_decay = hyper
    p_at = column(row, 0, P, ALIGNED) + offsets
    g_at = column(row, 1, G, ALIGNED) + offsets
    p = tl.load(p_at, mask=inside).to(tl.float32)
    g = tl.load(g_at, mask=inside).to(tl.float32) * factor
    g = tl.where(weight_decay > 0, g + weight_decay * p, g)  # 0 times an infinite p would be NaN
    tl.store(p_at, rounded(p - lr * g, P), mask=inside)


@kernel
def momentum_sgd(row, offsets, inside, factor, hyper, P: tl.constexpr, G: tl.constexpr, ALIGNED: tl.constexpr):
    """The same with momentum: 3 loads, 2 stores, 20 bytes a float32 parameter."""
    lr, weight_decay, momentum, keep, gain, nesterov = hyper
    p_at = column(row, 0, P, ALIGNED) + offsets
    g_at = column(row, 1, G, ALIGNED) + offsets
    buf_at = column(row, 2, tl.float32, ALIGNED) + offsets
    p = tl.load(p_at, mask=inside).to(tl.float32)
    g = tl.load(g_at, mask=inside).to(tl.float32) * factor
    buf = tl.load(buf_at, mask=inside)
    g = tl.where(weight_decay > 0, g + weight_decay * p, g)
    buf = keep * buf + gain * g  # the first step: buf <- g
    d = tl.where(nesterov > 0, g + momentum * buf, buf)
    tl.store(p_at, rounded(p - lr * d, P), mask=inside)
    tl.store(buf_at, buf, mask=inside)


class TritonSGD(TritonWalk, SGD):
    """:class:`~course_lib.optim.SGD` as one kernel: arguments, rule and state are that class's.

    What differs: parameters are float32 or bfloat16, the buffer float32 whatever the parameter, and :meth:`step`
    takes a ``grad_factor``. Without momentum there is no buffer, and its bytes are not moved. The result is
    torch.optim.SGD's within 1e-6 in float32.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        TypeError, ModuleNotFoundError, RuntimeError: see :class:`~course_lib.kernels.triton_walk.TritonWalk`.
    """

    def remembered(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {}  # the buffer is made by the first step with momentum, which its absence marks

    def rule(self, group: dict[str, Any]) -> Callable:
        return momentum_sgd if group["momentum"] != 0 else sgd

    def phase(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> bool:
        """Whether this is the first step with momentum, whose buffer is made here."""
        first = group["momentum"] != 0 and state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = float32_zeros(param)
        return first

    def hyper(self, group: dict[str, Any], phase: Hashable) -> tuple[float, ...]:
        lr, weight_decay, momentum = float(group["lr"]), float(group["weight_decay"]), float(group["momentum"])
        if momentum == 0:
            return lr, weight_decay
        keep, gain = (0.0, 1.0) if phase else (momentum, 1.0 - group["dampening"])
        return lr, weight_decay, momentum, keep, gain, float(group["nesterov"])
