"""What the judges of steps on several ranks share: run them on threads, and measure what a rank keeps and sends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.common import Progress, as_array
from course_lib.checks.report import REMARK, Finding
from course_lib.parallel.threads import RanksDisagree, ThreadComm, run_threads

SECONDS = 5.0  # that a rank waits for the others in a collective: less than the sandbox gives to a whole check


def on_ranks(function: Callable[[ThreadComm], Any], ranks: int) -> list[Any]:
    """What ``function(comm)`` returns on each of ``ranks`` threads, in the order of ranks.

    Raises:
        Stopped: the ranks did not make the same calls, or gave a collective what it cannot cut, with a finding for it.
        Exception: what the function raised.
    """
    try:
        return run_threads(lambda comm: function(_noting(comm)), ranks, timeout=SECONDS)
    except RanksDisagree as error:
        raise Stopped(_disagreement(str(error), ranks)) from None
    except (ValueError, RuntimeError) as error:
        if "for reduce_scatter" in str(error):
            raise Stopped(_not_divisible(str(error), ranks)) from None
        if "process group has not been initialized" in str(error):
            raise Stopped(_GROUP) from None
        raise


_GROUP = Finding(
    "not-comm",
    "Your code calls `torch.distributed` itself, and here is no process group: the ranks are threads.",
    "Speak through `comm` alone: `comm.all_reduce`, `comm.reduce_scatter`, `comm.all_gather`. On processes it calls "
    "torch.distributed.",
)


def _noting(comm: ThreadComm) -> ThreadComm:
    """Let ``comm.calls`` hold what goes through ``gather_objects`` as well, with the bytes of the whole."""
    gather = comm.gather_objects

    def gather_objects(thing: Any) -> list[Any]:
        size = sum(held(thing).values()) + 8 * sum(isinstance(x, (int, float)) for x in inside(thing))
        comm.calls.append(("gather_objects", size * comm.ranks))
        return gather(thing)

    comm.gather_objects = gather_objects  # type: ignore[method-assign]
    return comm


def _disagreement(error: str, ranks: int) -> Finding:
    if "not joined by all" in error:
        return Finding(
            "not-joined",
            f"On {ranks} ranks your function hangs. {error}",
            "A collective needs every rank. Which `return`, `if` or loop makes one rank call it and another not?",
        )
    hint = "The order and the sizes of the calls must not depend on the rank, or on what only this rank holds."
    if len(set(re.findall(r"calls \w+ of \([^)]*\) (\w+)", error))) > 1:
        hint = (
            "The dtypes differ. What does your code make on a rank that holds nothing? Start from a tensor of the same "
            "dtype on every rank, such as `torch.zeros(())`: a sum of no tensors is the int 0."
        )
    elif error.count("all_gather") == ranks or error.count("reduce_scatter") == ranks:
        hint = (
            f"Every rank must give a piece of the same size: padded, {ranks} equal pieces cover any number of elements."
        )
    return Finding("ranks-disagree", f"On {ranks} ranks: {error}", hint)


def _not_divisible(error: str, ranks: int) -> Finding:
    return Finding(
        "padding",
        f"On {ranks} ranks: {error.split('. Allowed')[0]}. It is cut into {ranks} equal pieces, so it must be flat, "
        f"with a "
        f"number of elements that {ranks} divides.",
        "Flatten, and add zeros at the end up to the next multiple of `comm.ranks`; drop them again when you write "
        "back.",
    )


def one_number(value: Any, rank: int) -> float:
    """The norm that a rank returns, a number of any make.

    Raises:
        Stopped: it is no number.
    """
    try:
        (number,) = as_array(value).ravel()
    except (TypeError, ValueError, RuntimeError):
        kind = "None" if value is None else f"something of type {type(value).__name__}"
        hint = "Does every path through the function, on every rank, end in a return of the norm?"
        raise Stopped(
            Finding("wrong-result", f"Rank {rank} returns {kind} instead of the norm, one number.", hint)
        ) from None
    return float(number)


def sent(calls: Iterable[tuple[str, int]], ranks: int) -> float:
    """Bytes that one rank sends in these calls, by a ring: see :class:`course_lib.parallel.comm.Comm`."""
    share = (ranks - 1) / ranks
    factor = {"all_reduce": 2 * share, "broadcast": 1.0 if ranks > 1 else 0.0}
    return sum(factor.get(name, share) * size for name, size in calls)


def held(*things: Any) -> dict[int, int]:
    """Bytes of the storages behind all tensors and arrays in ``things``, each once, by where they lie.

    A slice of a tensor holds the storage of the whole.
    """
    found: dict[int, int] = {}
    for x in inside(things):
        if isinstance(x, Tensor):
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        elif isinstance(x, np.ndarray):
            base = x.base if isinstance(x.base, np.ndarray) else x
            found[base.__array_interface__["data"][0]] = base.nbytes
    return found


def inside(thing: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """All that a thing is made of: through dicts, lists, tuples, sets and the attributes of objects."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, (Tensor, np.ndarray, str, bytes, int, float, type)) or callable(thing):
        yield thing
    elif isinstance(thing, dict):
        for key, value in list(thing.items()):
            yield from inside(key, seen)
            yield from inside(value, seen)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for value in list(thing):
            yield from inside(value, seen)
    else:
        yield thing
        yield from inside(getattr(thing, "__dict__", {}), seen)


def judged(
    judge: Callable[..., list[Finding]], candidate: Callable[..., Any], through: Callable[..., Any], progress: Progress
) -> tuple[list[Finding], list[Finding]]:
    """What ``judge`` finds about ``through(candidate, notes)``, and the notes that this made beside the numbers."""
    notes: list[Finding] = []
    try:
        return judge(through(candidate, notes), progress), notes
    except Stopped as stop:
        return [stop.finding], notes


def first_of_each(findings: list[Finding]) -> list[Finding]:
    """The first finding of each code, in their order, remarks last."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    return sorted(first.values(), key=lambda finding: finding.kind == REMARK)
