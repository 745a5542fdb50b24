"""What ranks say to each other: the five collectives that data parallelism and ZeRO are made of."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

STORE = "COURSE_STORE"
"""The environment variable that names a file by which ranks on one machine find each other, without a port."""

BACKEND = "COURSE_BACKEND"
"""The environment variable by which ``course launch --backend`` chooses for scripts that name none."""

TIMEOUT = 60.0
"""Seconds that a rank waits in a collective for the others."""


class Comm:
    """One rank's end of a process group of ``torch.distributed``.

    Sums are plain sums: whoever wants a mean divides. Each method is a collective: every rank calls it, in the same
    order, with a tensor of the same size and dtype, or the group hangs until its time limit.

    Bytes that a rank sends in each, for a whole tensor of S bytes on N ranks in a ring::

        all_reduce       2 S (N - 1) / N      = reduce_scatter, then all_gather
        reduce_scatter     S (N - 1) / N
        all_gather         S (N - 1) / N
        broadcast          S                  (once around, but for the last)

    Attributes:
        rank: this process, 0 to ranks - 1.
        ranks: how many there are.
        device: where this rank computes.
    """

    def __init__(self, rank: int, ranks: int, device: torch.device | str = "cpu") -> None:
        self.rank, self.ranks, self.device = rank, ranks, torch.device(device)

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        """Replace ``tensor`` on every rank by the sum (or ``op="max"``, the maximum) over the ranks; return it."""
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM)
        return tensor

    def reduce_scatter(self, tensor: Tensor) -> Tensor:
        """Sum a flat tensor over the ranks and return this rank's slice of the sum.

        Args:
            tensor: (S,) with S a multiple of the number of ranks; not changed.

        Returns:
            (S / ranks,), a new tensor: elements rank * S / ranks and on.
        """
        part = tensor.new_empty(tensor.numel() // self.ranks)
        _reduce_scatter(part, tensor)
        return part

    def all_gather(self, part: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the ranks' equal parts (n,), one after the other in the order of ranks: (n * ranks,), or fill ``out``.

        ``part`` may be this rank's slice of ``out``.
        """
        out = part.new_empty(part.numel() * self.ranks) if out is None else out
        # gloo reads the part while it writes the whole: the slice itself must not be both.
        same = part.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
        _all_gather(out, part.clone() if same else part)
        return out

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Replace ``tensor`` on every rank by that of rank ``source``; return it."""
        dist.broadcast(tensor, source)
        return tensor

    def gather_objects(self, thing: Any) -> list[Any]:
        """What each rank gave, in the order of ranks, on every rank: for names and checks, not for tensors."""
        things: list[Any] = [None] * self.ranks
        dist.all_gather_object(things, thing)
        return things

    def leave(self) -> None:
        """Leave the group; nothing more can be said."""
        if dist.is_initialized():
            dist.destroy_process_group()


def join(backend: str | None = None, *, timeout: float = TIMEOUT) -> Comm:
    """Join the group that ``torchrun``, ``course launch`` or :func:`~course_lib.parallel.launch.launch` has started.

    Reads ``RANK`` and ``WORLD_SIZE``, and ``MASTER_ADDR`` and ``MASTER_PORT``, as torchrun sets them. Without any of
    them this process is the only rank.

    Args:
        backend: "gloo" (CPUs), "nccl" (GPUs), or None: what ``course launch --backend`` says, else nccl where this
            machine has a GPU for each of its ranks.
        timeout: seconds to wait for the others, here and in each collective, > 0.

    Raises:
        ValueError: CUDA is asked for where there is none, or the environment's numbers make no sense.
        ConnectionError: the ranks cannot meet: the port is in use, or some rank never came.
    """
    rank, ranks, local = _places(os.environ)
    backend = _backend(backend or os.environ.get(BACKEND), local, int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout), **_meeting(rank, ranks))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise ConnectionError(_why_no_meeting(str(error), ranks, timeout)) from error
    return Comm(rank, ranks, device)


def _places(env: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, ranks and the rank on this machine, as the environment has them."""
    found = {}
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", env.get("RANK", "0"))):
        value = env.get(name, default)
        if not value.isdigit():
            raise ValueError(f"Invalid {name} in the environment: {value!r}. Allowed: a whole number, as torchrun sets "
                             "it.")
        found[name] = int(value)
    if not found["RANK"] < found["WORLD_SIZE"]:
        raise ValueError(f"Invalid RANK in the environment: {found['RANK']}. Allowed: 0 to {found['WORLD_SIZE'] - 1}, "
                         f"as WORLD_SIZE is {found['WORLD_SIZE']}.")
    return found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]


def _backend(backend: str | None, local: int, here: int) -> str:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if backend is None:
        return "nccl" if gpus >= here else "gloo"
    if backend not in ("gloo", "nccl"):
        raise ValueError(f"Invalid backend: {backend!r}. Allowed: 'gloo' for CPUs, 'nccl' for GPUs.")
    if backend == "nccl" and local >= gpus:
        raise ValueError(f"Backend 'nccl' needs a GPU for each rank, and there is none for rank {local} of this "
                         f"machine: torch finds {gpus}. Use 'gloo', or fewer ranks.")
    return backend


def _meeting(rank: int, ranks: int) -> dict[str, Any]:
    """How the ranks find each other."""
    if "MASTER_ADDR" in os.environ and STORE not in os.environ:
        return {"init_method": "env://"}
    if sys.platform == "linux":
        # A machine's own name need not resolve; ranks on one machine need no more than the loopback.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if STORE in os.environ:
        return {"store": dist.FileStore(os.environ[STORE], ranks), "rank": rank, "world_size": ranks}
    if ranks > 1:
        raise ValueError(f"WORLD_SIZE is {ranks}, but MASTER_ADDR is not set. Start the script with "
                         f"`course launch --ranks {ranks}` or torchrun, which set both.")
    return {"store": dist.HashStore(), "rank": 0, "world_size": 1}


def _why_no_meeting(error: str, ranks: int, timeout: float) -> str:
    where = f"{os.environ.get('MASTER_ADDR', 'this machine')}:{os.environ.get('MASTER_PORT', '?')}"
    if "EADDRINUSE" in error or "address already in use" in error.lower():
        return (f"The port of {where} is in use by another program. Choose another one: `--port`, or `--master-port` "
                "of torchrun.")
    return (f"The {ranks} ranks did not meet at {where} within {timeout:g} s. Are all of them running, with the same "
            f"MASTER_ADDR, MASTER_PORT and WORLD_SIZE? The first one to say no: {error.splitlines()[0]}")


# The names of torch 2.13; before it, the same functions bear the older ones.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
