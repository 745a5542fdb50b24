"""The bytes of one optimizer step: how many it must move, and how many it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.optim import REGISTRY


@dataclass(frozen=True)
class Traffic:
    """Bytes per parameter that a step reads from memory and writes to it."""

    read: float
    written: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.read + self.written


def least_bytes(
    key: str, param: int = 4, grad: int | None = None, state: float | None = None, master: int = 0
) -> Traffic:
    """What a step must move if everything is read once and written once: nothing is faster where memory is the limit.

    The gradient is read, the state is read and written. So is the parameter; with a master copy the master is, and the
    parameter is only written. AdamW in float32: reads p, g, m and v, writes p, m and v, 7 tensors of 4 bytes, 28.

    It is a bound on elementwise work alone. Muon, SOAP and Shampoo multiply matrices besides; a norm over the whole
    tensor (LAMB, Adafactor) costs a second pass over what does not fit into the chip.

    Args:
        key: of the registry.
        param, grad: bytes of an element; a gradient is as wide as its parameter if nothing else is said.
        state: bytes of state per parameter; by default what the registry says for parameters of such a width, 4 or 2.
        master: bytes of an element of the master copy, 0 for none.

    Raises:
        ValueError: the key is not in the registry.
    """
    if key not in REGISTRY:
        raise ValueError(f"Invalid optimizer: {key!r}. Allowed: {', '.join(REGISTRY)}.")
    if state is None:
        wide = torch.float32 if max(param, master) == 4 else torch.bfloat16
        shape = (1024, 4096)
        state = REGISTRY[key].state_bytes(shape, wide) / (shape[0] * shape[1])
    grad = param if grad is None else grad
    return Traffic(read=(master or param) + grad + state, written=param + master + state)


@dataclass(frozen=True)
class Counted:
    """What a step did, counted.

    Attributes:
        calls: operations on tensors of more than one element.
        read, written: bytes of their arguments, and of what they changed or made.
    """

    calls: int
    read: int
    written: int

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = self.read = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def tensors(values: Any) -> list[torch.Tensor]:
            found = {id(t): t for t in tree_leaves(values) if torch.is_tensor(t) and t.numel() > 1}
            return list(found.values())

        given = tensors((args, kwargs))
        before = [t.clone() for t in given]
        out = func(*args, **(kwargs or {}))
        if given and not func.is_view:
            known = {id(t) for t in given}
            changed = [t for t, old in zip(given, before, strict=True) if not _equal(t, old)]
            made = [t for t in tensors(out) if id(t) not in known]
            self.calls += 1
            self.read += sum(t.nbytes for t in given)
            self.written += sum(t.nbytes for t in changed + made)
        return out


def count(step: Callable[[], object]) -> Counted:
    """Call ``step`` once and count what its operations read and write, as if nothing stayed in a cache in between.

    An operation reads all tensors that it is given and writes those that it changed or made; views cost nothing.
    Tensors of one element are left out. Each argument is copied to see whether it changed, so keep the tensors small.
    What runs inside a kernel of one's own or a compiled one is not seen.
    """
    with _Counting() as counting:
        step()
    return Counted(counting.calls, counting.read, counting.written)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit by bit: NaN equals itself."""
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
