"""Ranks as threads of one process: for exercises and tests, where real processes would only cost time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.parallel.comm import Comm


class RanksDisagree(RuntimeError):
    """Ranks called different collectives, with tensors of different sizes, or not all of them called."""


class _Room:
    """Where the threads meet: each puts a thing on the table, and all see the table once it is full."""

    def __init__(self, ranks: int, timeout: float) -> None:
        self.ranks, self.timeout = ranks, timeout
        self.doing = ["has called nothing yet"] * ranks
        self._changed = threading.Condition()
        self._table: dict[int, tuple[str, Any]] = {}
        self._seen: list[tuple[str, Any]] = []
        self._round = 0
        self._somebody_left = False

    def meet(self, rank: int, what: str, thing: Any) -> list[Any]:
        """Give ``thing``, wait for the others, and return what each gave, in the order of ranks."""
        with self._changed:
            here = self._round
            self.doing[rank], self._table[rank] = f"waits in {what}", (what, thing)
            if len(self._table) == self.ranks:
                self._seen, self._table = [self._table[index] for index in range(self.ranks)], {}
                self._round += 1
                self._changed.notify_all()
            else:
                self._changed.wait_for(lambda: self._round != here or self._somebody_left, self.timeout)
            if self._round == here:
                doing = "; ".join(f"rank {index} {does}" for index, does in enumerate(self.doing))
                raise RanksDisagree(f"A collective was not joined by all ranks: {doing}.")
            self.doing[rank], seen = "computes", self._seen
        if any(other != what for other, _ in seen):
            calls = "; ".join(f"rank {index} calls {other}" for index, (other, _) in enumerate(seen))
            raise RanksDisagree(f"The ranks disagree: {calls}. Every rank must make the same calls in the same order.")
        return [thing for _, thing in seen]

    def leave(self, rank: int, how: str) -> None:
        """Nothing more comes from this rank."""
        with self._changed:
            self.doing[rank], self._somebody_left = how, True
            self._changed.notify_all()


class ThreadComm(Comm):
    """The collectives of :class:`~course_lib.parallel.comm.Comm` among threads.

    Attributes:
        calls: what this rank has called: ``(name, bytes)``, bytes being those of the whole tensor (for ``all_gather``,
            of what it returns).
    """

    def __init__(self, rank: int, ranks: int, room: _Room) -> None:
        super().__init__(rank, ranks)
        self.calls: list[tuple[str, int]] = []
        self._room = room

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        parts = self._exchange("all_reduce", tensor, tensor.nbytes)
        tensor.copy_(torch.stack(parts).amax(0) if op == "max" else _sum(parts))
        return tensor

    def reduce_scatter(self, tensor: Tensor) -> Tensor:
        if tensor.dim() != 1 or tensor.numel() % self.ranks:
            raise ValueError(f"Invalid tensor for reduce_scatter: shape {tuple(tensor.shape)}. Allowed: flat, with a "
                             f"number of elements that {self.ranks} ranks divide; pad it.")
        parts = self._exchange("reduce_scatter", tensor, tensor.nbytes)
        size = tensor.numel() // self.ranks
        return _sum([part[self.rank * size : (self.rank + 1) * size] for part in parts])

    def all_gather(self, part: Tensor, out: Tensor | None = None) -> Tensor:
        whole = torch.cat(self._exchange("all_gather", part, part.nbytes * self.ranks))
        return whole if out is None else out.copy_(whole)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        return tensor.copy_(self._exchange("broadcast", tensor, tensor.nbytes)[source])

    def gather_objects(self, thing: Any) -> list[Any]:
        return self._room.meet(self.rank, "gather_objects", thing)

    def leave(self) -> None:
        """Nothing to leave: the thread ends."""

    def _exchange(self, name: str, tensor: Tensor, size: int) -> list[Tensor]:
        """Every rank's tensor, copied: the others may write to theirs as soon as they have seen it."""
        self.calls.append((name, size))
        what = f"{name} of {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        return self._room.meet(self.rank, what, tensor.detach().clone())


def run_threads(function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 30.0) -> list[Any]:
    """Call ``function(comm, *args)`` on ``ranks`` threads; return what each returned, in the order of ranks.

    Args:
        function: gets a :class:`ThreadComm` first.
        ranks: how many, >= 1.
        args: the same objects for every rank: whoever writes to one copies it first.
        timeout: seconds that a rank waits for the others in a collective.

    Raises:
        RanksDisagree: they did not make the same calls.
        Exception: what the function raised, on the rank that raised first.
    """
    room = _Room(ranks, timeout)
    results: list[Any] = [None] * ranks
    errors: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            results[rank] = function(ThreadComm(rank, ranks, room), *args)
            room.leave(rank, "has returned")
        except BaseException as error:  # noqa: BLE001  it is raised again in the caller's thread
            errors.append(error)
            room.leave(rank, f"has raised {type(error).__name__}")

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, RanksDisagree)), errors[0])
    return results


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
