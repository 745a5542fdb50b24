"""What an engine really sends: every collective of this process, seen below ``torch.distributed``, and its bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves

NAMESPACES = ("c10d", "_c10d_functional")
"""Where torch registers its collectives: those of ``torch.distributed``, and those of DTensor and compiled code."""

# For each operation: our name, the argument that is the whole tensor, and what to multiply it with to have the whole.
_OPS: dict[str, tuple[str, str, str]] = {
    "allreduce_": ("all_reduce", "tensors", "once"),
    "allreduce_coalesced_": ("all_reduce", "tensors", "once"),
    "all_reduce": ("all_reduce", "input", "once"),
    "all_reduce_": ("all_reduce", "input", "once"),
    "all_reduce_coalesced": ("all_reduce", "inputs", "once"),
    "all_reduce_coalesced_": ("all_reduce", "inputs", "once"),
    "_reduce_scatter_base_": ("reduce_scatter", "input_tensor", "once"),
    "reduce_scatter_": ("reduce_scatter", "input_tensors", "once"),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", "inputs", "once"),
    "reduce_scatter_tensor": ("reduce_scatter", "input", "once"),
    "reduce_scatter_tensor_out": ("reduce_scatter", "input", "once"),
    "reduce_scatter_tensor_coalesced": ("reduce_scatter", "inputs", "once"),
    "_allgather_base_": ("all_gather", "output_tensor", "once"),
    "allgather_": ("all_gather", "output_tensors", "once"),
    "allgather_coalesced_": ("all_gather", "output_lists", "once"),
    "allgather_into_tensor_coalesced_": ("all_gather", "outputs", "once"),
    "all_gather_into_tensor": ("all_gather", "input", "ranks"),
    "all_gather_into_tensor_out": ("all_gather", "input", "ranks"),
    "all_gather_into_tensor_coalesced": ("all_gather", "inputs", "ranks"),
    "broadcast_": ("broadcast", "tensors", "once"),
    "broadcast": ("broadcast", "input", "once"),
    "reduce_": ("reduce", "tensors", "once"),
    "barrier": ("barrier", "", "once"),
    "monitored_barrier_": ("barrier", "", "once"),
}
# Nothing is sent in these: waiting for a collective, and what autograd and checks put around one.
_SILENT = {"wait_tensor", "_wrap_tensor_autograd", "check_for_nan"}


@dataclass(frozen=True)
class Collective:
    """One collective, as one rank called it.

    Attributes:
        name: ``all_reduce``, ``reduce_scatter``, ``all_gather``, ``broadcast``, ``reduce``, ``barrier``, or torch's own
            for an operation that is none of these.
        bytes: of the whole tensor: what is reduced, what a gather returns; of several tensors in one call, all of them.
        dtype: of the (first) tensor: ``"float32"``; empty for a barrier.
        ranks: how many take part.
        control: it carries no floating-point number: a barrier, the sizes of tensors, pickled objects. Tables of what
            an engine sends leave such calls out.
        last: this rank is the end of a broadcast's chain from the source around the ring, and sends nothing on.
    """

    name: str
    bytes: int
    dtype: str
    ranks: int
    control: bool = False
    last: bool = False


class Traffic(TorchDispatchMode):
    """Within it, every collective of this process is written down.

    ::

        with Traffic() as traffic:
            loss_of(engine.model, batch).backward()
            engine.step()
        print(traffic.summary(), sent_bytes(traffic.data))

    It needs no word from the engine: a dispatch mode stands below ``torch.distributed``, where the C++ reducer of
    DistributedDataParallel, ZeroRedundancyOptimizer, FSDP2, DTensor and DeepSpeed all pass by. It sees the thread that
    entered it and the backward passes begun there. It does not see kernels that go around torch's operations (NVSHMEM,
    shared memory), nor how a backend carries a collective out. On the wire, gloo in torch 2.13 sends what the ring
    formulas say for all_reduce, all_gather and broadcast, and twice that for reduce_scatter: it all-reduces, and keeps
    a slice.

    Attributes:
        calls: all that was called, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Collective] = []

    @property
    def data(self) -> list[Collective]:
        """The calls that carry weights, gradients or norms: all but those marked ``control``."""
        return [call for call in self.calls if not call.control]

    def summary(self) -> dict[str, tuple[int, int]]:
        """For each name, without control: how many calls, and bytes of their whole tensors."""
        found: dict[str, tuple[int, int]] = {}
        for call in self.data:
            count, size = found.get(call.name, (0, 0))
            found[call.name] = (count + 1, size + call.bytes)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if any(is_traceable_wrapper_subclass_type(kind) for kind in types):
            # A DTensor: its own operation calls the collectives, in the mode's sight only if the mode stands aside.
            return NotImplemented
        kwargs = kwargs or {}
        if func.namespace in NAMESPACES and func._opname not in _SILENT:
            names = [argument.name for argument in func._schema.arguments]
            self.calls.append(_collective(func._opname, dict(zip(names, args, strict=False)) | kwargs))
        return func(*args, **kwargs)


def sent_bytes(calls: Iterable[Collective]) -> float:
    """Bytes that this rank sends in the calls if each goes around a ring.

    For a whole tensor of S bytes on N ranks: all_reduce 2 S (N - 1) / N; reduce_scatter and all_gather S (N - 1) / N
    (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002); broadcast and reduce S, but for the rank at the chain's
    end, which sends none; a barrier none. On one rank nothing is sent.

    Raises:
        ValueError: an operation for which there is no formula here.
    """
    total = 0.0
    for call in calls:
        share = (call.ranks - 1) / call.ranks
        if call.name == "all_reduce":
            total += 2 * call.bytes * share
        elif call.name in ("reduce_scatter", "all_gather"):
            total += call.bytes * share
        elif call.name in ("broadcast", "reduce"):
            total += 0 if call.last else call.bytes
        elif call.name != "barrier":
            raise ValueError(f"Bytes sent are not known for {call.name!r} ({call.bytes} bytes, {call.ranks} ranks). "
                             "Known: all_reduce, reduce_scatter, all_gather, broadcast, reduce, barrier. Leave it out.")
    return total


def _collective(operation: str, arguments: dict[str, Any]) -> Collective:
    group = _group(arguments)
    ranks, rank = group.size(), group.rank()
    name, whole, times = _OPS.get(operation, (operation.strip("_"), "", "once"))
    given = arguments.get(whole) if whole else None if name == "barrier" else list(arguments.values())
    tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    # A broadcast runs from its source around the ring, a reduce towards its destination.
    root = int(arguments.get("root_rank", arguments.get("src", 0)))
    ends = {"broadcast": (root - 1) % ranks, "reduce": root}
    return Collective(
        name,
        size * (ranks if times == "ranks" else 1),
        str(tensors[0].dtype).removeprefix("torch.") if tensors else "",
        ranks,
        control=not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors),
        last=ends.get(name) == rank,
    )


def _group(arguments: dict[str, Any]) -> dist.ProcessGroup:
    """The process group of a call: boxed for ``c10d``, by its name for ``_c10d_functional``."""
    if "process_group" in arguments:
        group = arguments["process_group"]
        return dist.ProcessGroup.unbox(group) if isinstance(group, torch.ScriptObject) else group
    name = arguments.get("group_name")
    return dist.distributed_c10d._resolve_process_group(name) if isinstance(name, str) else name or dist.group.WORLD
