"""What one optimizer step runs, and when: a profile as plain rows."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler_util import EventList

KINDS: tuple[tuple[str, str], ...] = (
    ("whole rule", r"fused|compiled|triton|adam|lion|sgd"),
    ("matmul", r"gemm|matmul|cutlass|nvjet|(?<![a-z])(add|b|badd)?mm(?![a-z])"),
    ("multiply-add", r"addcmul|addcdiv|lerp|pointwiseop"),
    ("root", r"sqrt|pow"),
    ("divide", r"div|reciprocal"),
    ("sum", r"reduce|norm(?!al)|sum|mean"),
    ("multiply", r"mul(?!ti_)"),  # every kernel of foreach is a multi_tensor_apply
    ("copy", r"copy|memcpy|clone|fill|zero|memset"),
    ("add", r"add|sub|plus|minus"),
)
"""What an operation or kernel does, by its name in lower case; the first pattern found counts, else "other"."""

COMPILED = "CompiledFxGraph"
GRAPH = "compiled graph"
# A line of Kineto's log, such as "USDT:2026-01-31 12:00:00 7:7 SyncActivityProfilerHandler.cpp:52] profiler_start".
_LOG = re.compile(rb"[A-Z]+:\d{4}-\d\d-\d\d ")


class Row(NamedTuple):
    """One operation on the CPU, or one kernel on a GPU.

    Attributes:
        name: of the operation without its namespace ("mul_"), or of the kernel as CUDA has it.
        start_us: microseconds after the first row's start.
        duration_us: microseconds.
        kind: what it does, one of :data:`KINDS` or "other".
    """

    name: str
    start_us: float
    duration_us: float
    kind: str


@dataclass(frozen=True)
class Profile:
    """One step.

    Attributes:
        rows: in the order in which they start; empty if the step worked on nothing.
        device: "cpu" (rows are operations) or "cuda" (rows are kernels, copies and fills on the device).
    """

    rows: tuple[Row, ...]
    device: str

    @property
    def span_us(self) -> float:
        """Microseconds from the start of the first row to the end of the last; 0.0 without rows."""
        return max((row.start_us + row.duration_us for row in self.rows), default=0.0)

    @property
    def busy_us(self) -> float:
        """Microseconds in which at least one row runs."""
        total = end = 0.0
        for row in self.rows:
            total += max(0.0, row.start_us + row.duration_us - max(end, row.start_us))
            end = max(end, row.start_us + row.duration_us)
        return total

    @property
    def idle_share(self) -> float:
        """The part of the span in which no row runs, 0.0 to 1.0; 0.0 without rows."""
        return 1 - self.busy_us / self.span_us if self.span_us else 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each name, the most frequent first."""
        return dict(Counter(row.name for row in self.rows).most_common())


def profile_step(step: Callable[[], object], device: torch.device | str | None = None, warmup: int = 3) -> Profile:
    """Run ``step`` a few times, the last time under torch.profiler, and return what it ran.

    On the CPU a row is the innermost operation that works on a tensor of more than one element. So ``clone`` counts
    as the ``copy_`` in it; views, allocations, the step counter and scalars that are turned into tensors do not
    count; torch's foreach on the CPU shows as one operation per tensor, which is what it runs. A call of a compiled
    graph is one row, named "compiled graph", whatever is in it. On CUDA a row is a kernel, copy or fill on the
    device, and each kernel of a compiled step is a row.

    Profiling makes every operation slower, short ones most: read counts and order from it, and times from
    :mod:`course_lib.kernels.bench`. Nothing that the profiler logs reaches stderr; what the step writes there does.

    Args:
        step: a function of no arguments; it is called ``warmup`` + 1 times, so an optimizer makes that many steps.
        device: where the work runs, "cpu" or "cuda"; by default CUDA if there is one.
        warmup: calls before the one that counts, >= 1; the last of them is profiled too, for a process's first
            profile has gaps of its own.

    Raises:
        ValueError: ``device`` is another, or ``warmup`` is below 1.
        RuntimeError: this torch was built without its profiler (Kineto).
    """
    device = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"Invalid device: {str(device)!r}. Allowed: 'cpu', 'cuda'.")
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1:
        raise ValueError(f"Invalid warmup: {warmup!r}. Allowed: a whole number >= 1.")
    if not torch.autograd.kineto_available():
        raise RuntimeError("This torch was built without its profiler (Kineto), so there is no profile to show. "
                           "Install a build from pytorch.org: pip install torch")
    for _ in range(warmup - 1):
        step()
    _profiled(step, device)
    events = _profiled(step, device)
    return Profile(rows_of(events, device.type), device.type)


def rows_of(events: Iterable[Any], device: str = "cpu") -> tuple[Row, ...]:
    """The rows of torch.profiler's events (``profile.events()``); see :func:`profile_step` for what becomes a row.

    Args:
        events: recorded with ``record_shapes=True``, or operations on a list of tensors alone count.
        device: "cpu" or "cuda", whose rows are wanted.
    """
    if device == "cuda":
        chosen = [event for event in events
                  if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation]
    else:
        chosen = _innermost(event for event in events if event.device_type == torch.autograd.DeviceType.CPU)
    chosen.sort(key=lambda event: event.time_range.start)
    first = chosen[0].time_range.start if chosen else 0.0
    rows = []
    for event in chosen:
        name = GRAPH if COMPILED in event.name else event.name
        name = name.partition("::")[2] if device == "cpu" and "::" in name else name
        rows.append(Row(name, event.time_range.start - first, event.time_range.elapsed_us(), kind_of(name)))
    return tuple(rows)


@functools.lru_cache(maxsize=4096)
def kind_of(name: str) -> str:
    """What an operation or kernel of this name does: one of :data:`KINDS`, or "other"."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name.lower())), "other")


def _innermost(events: Iterable[Any]) -> list[Any]:
    """Events that work and hold no event that works; a compiled graph stands for all that it holds."""
    working = [event for event in events if COMPILED in event.name or _works(event)]
    outer = set()
    for event in working:
        above = list(_above(event))
        if COMPILED not in event.name and any(COMPILED in parent.name for parent in above):
            outer.add(id(event))
        else:
            outer |= {id(parent) for parent in above}
    return [event for event in working if id(event) not in outer]


def _above(event: Any) -> Iterator[Any]:
    while (event := event.cpu_parent) is not None:
        yield event


def _works(event: Any) -> bool:
    """Whether an operation computes on a tensor of more than one element."""
    namespace, found, name = event.name.partition("::")
    if not found or not _computes(namespace, name):
        return False
    shapes = getattr(event, "structured_input_shapes", None)
    if not shapes:  # a torch that does not record the shapes in lists of tensors
        return any(prod(shape) > 1 for shape in event.input_shapes or () if shape) or name.startswith("_fused")
    return any(elements > 1 for elements in _elements(shapes))


def _elements(shapes: Sequence[Any]) -> Iterator[int]:
    """Of each tensor among the arguments, those in lists included; a scalar is an empty shape."""
    for shape in shapes:
        if shape and isinstance(shape[0], list | tuple):
            yield from _elements(shape)
        elif shape:
            yield prod(shape)


@functools.lru_cache(maxsize=4096)
def _computes(namespace: str, name: str) -> bool:
    """Whether an operation makes numbers: it returns a tensor, and no view or memory that holds nothing yet."""
    if name.startswith(("empty", "new_empty")):
        return False
    packet = getattr(getattr(torch.ops, namespace, None), name, None)
    if packet is None or not hasattr(packet, "overloads"):
        return True  # an extension that registers no schema
    operations = [getattr(packet, overload) for overload in packet.overloads()]
    # TorchScript keeps operations on its lists and strings under the same names.
    operations = [one for one in operations if any("Tensor" in str(value.type) for value in one._schema.arguments)]
    if all(one.is_view or torch.Tag.inplace_view in one.tags for one in operations):
        return False
    # What works in place on a list of tensors returns nothing.
    return any(not one._schema.returns or "Tensor" in str(one._schema.returns[0].type) for one in operations)


def _profiled(step: Callable[[], object], device: torch.device) -> EventList:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        torch.cuda.synchronize(device)
    profiler = torch.profiler.profile(activities=activities, record_shapes=True)
    with _quiet():
        profiler.start()
    try:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    finally:
        with _quiet():
            profiler.stop()
    with _quiet():
        return profiler.events() or EventList([])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the profiler logs off stderr, from C++ too, which sys.stderr cannot stop; pass on the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (AttributeError, OSError, ValueError):  # no stderr, or a closed one: there is nothing to keep clean
            yield
            return
        with tempfile.TemporaryFile() as held:
            try:
                os.dup2(held.fileno(), 2)
                yield
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(kept, 2)
                held.seek(0)
                for line in held:
                    if not _LOG.match(line):
                        os.write(kept, line)
                os.close(kept)
