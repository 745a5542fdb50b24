"""Ranks that were to build the same thing: whether they did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from course_lib.parallel.comm import Comm


def described(model: nn.Module) -> dict[str, Any]:
    """What must be alike in a model on every rank: shapes, dtypes and order of its parameters, and its buffers."""
    found: dict[str, Any] = {}
    for name, param in model.named_parameters():
        found[f"parameter {name}"] = f"{_kind(param)}{'' if param.requires_grad else ', frozen'}"
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = _kind(buffer)
    found["order of parameters"] = [name for name, _ in model.named_parameters()]
    return found


def _kind(tensor: Any) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def require_agreement(comm: Comm, mine: Mapping[str, Any]) -> None:
    """Compare by name what each rank says of itself. Without it collectives hang, or mix up parameters in silence.

    Args:
        comm: the ranks; all of them call it.
        mine: values that can be sent and compared, such as text.

    Raises:
        RuntimeError: a rank has something else than rank 0; the message has the first that differs, and both values.
    """
    first, *others = comm.gather_objects(mine)
    for rank, other in enumerate(others, start=1):
        for what in first | other:
            ours, theirs = first.get(what, "none"), other.get(what, "none")
            if ours != theirs:
                raise RuntimeError(f"The ranks disagree: {what} is {ours} on rank 0 and {theirs} on rank {rank}. "
                                   "Build the same model, with the same settings, on every rank.")
