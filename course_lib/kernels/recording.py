"""Measuring every way of a step on lists of shapes, within the memory and the time there is, into a record."""

from __future__ import annotations

import gc
import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

import course_lib
from course_lib.kernels import bench, variants
from course_lib.kernels.records import COPY, GB, Measurement, Quartiles, Record, Timed
from course_lib.kernels.roofline import Machine
from course_lib.kernels.traffic import least_bytes
from course_lib.kernels.variants import Step
from course_lib.memory.architecture import Weight
from course_lib.memory.measure import step_extra
from course_lib.memory.states import state_bytes
from course_lib.optim import REGISTRY

BASES = ("fused", "foreach", "for-loop", "production", "naive")
"""What times are compared with: the first of these that is measured."""

FEWEST, MOST = 5, 50
"""Rounds, where no number is asked for: as many as fit in the time."""

STATE = {"bitsandbytes-8bit": "adamw8bit", "torchao-8bit": "adamw8bit", "torchao-fp8": "adamw8bit",
         "torchao-4bit": "adamw4bit"}  # fmt: skip
"""Whose state ways with small state keep, by keys of ``course_lib.memory.states.STATES``. The formats' blocks differ
a little, by less than 1% of what a step moves."""

CPU_MEMORY = 16 * 10**9
"""Bytes that ways measured together take at most on a CPU, whose memory all else needs too."""

MOST_COMPILED = 2
"""Sets where a way compiles a step anew for each of them."""

WORTH_A_SEARCH = 2**26
"""Bytes of one set of tensors from which on a search for garbage in cycles is made before the next ones are."""

SPARE = 0.85
"""The share of the free memory that is used."""

Say = Callable[[str, int, int], None]
"""Is told what is done now, how many rounds of it are done, and of how many; 0 of 0 where there is no number."""


def _quiet(what: str, done: int, total: int) -> None:
    pass


class TooLittle(Exception):
    """The device has too little memory; the message says how much is needed and what to do."""


@dataclass(frozen=True)
class Job:
    """What one table is about.

    Attributes:
        optimizer: a key of ``course_lib.optim.REGISTRY``.
        name: of the list of shapes.
        shapes: of the parameters; what the optimizer does not take is left out.
        dtype: of parameters and gradients.
        ways: names, in the order of the table.
    """

    optimizer: str
    name: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    ways: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ValueError: the optimizer takes none of the shapes."""
        fit = tuple(variants.fitting(self.optimizer, list(self.shapes)))
        if not fit:
            raise ValueError(f"Invalid shapes for {self.optimizer}: {self.name!r}. Allowed: lists with matrices, as "
                             "large and gpt2.")
        object.__setattr__(self, "shapes", fit)

    @property
    def parameters(self) -> int:
        """How many elements."""
        return sum(map(math.prod, self.shapes))

    @property
    def set_bytes(self) -> int:
        """Bytes of one set: parameters, gradients and state."""
        state = sum(REGISTRY[self.optimizer].state_bytes(shape, self.dtype) for shape in self.shapes)
        return 2 * self.parameters * self.dtype.itemsize + state

    def __str__(self) -> str:
        return f"{self.optimizer} on {self.name} in {dtype_name(self.dtype)}"


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def measure_job(
    job: Job, device: torch.device, rounds: int | None = None, seconds: float = 30.0, say: Say = _quiet
) -> Measurement:
    """All ways of a job that are available on ``device``.

    In a round each way takes one step, so that drift hits all alike. Where not all fit into the memory together they
    are measured in groups, and the base and the copy take part in each: the two times of a ratio are of one round.

    A way that fails, for want of memory or otherwise, is left out and told like one that is not available.

    Args:
        rounds: to count; by default as many as fit in ``seconds``, 5 to 50.
        seconds: for the rounds of all groups together; first steps (allocation, compilation) come on top.
        say: is told what is done.

    Raises:
        TooLittle: not even one way beside the base and the copy fits.
        ValueError: no way is available; the message has the reasons.
    """
    unavailable = {}
    for name in job.ways:
        if reason := variants.unavailable(name, job.optimizer, device, job.dtype):
            unavailable[name] = reason
    ways = [name for name in job.ways if name not in unavailable]
    anchors = [name for name in (next((name for name in BASES if name in ways), None), COPY) if name in ways]
    sets = variants.sets_for(list(job.shapes), device)
    if any(variants.WAYS[name].compiles and name not in variants.DEFAULT for name in ways):
        torch._dynamo.reset()  # it gives up on a function that it had to compile 8 times, without a word
        sets = min(sets, MOST_COMPILED)
    groups = _groups(job, sets, [name for name in ways if name not in anchors], anchors, device)
    steps = _Steps(job, sets, device, unavailable, say)
    times: dict[str, tuple[float, ...]] = {}
    ratios: dict[str, tuple[float, ...]] = {}
    base = None
    for group in groups:
        steps.keep([*anchors, *group])
        base = base or next((name for name in anchors if name in steps.made and name != COPY), None)
        found = _rounds(steps.made, device, rounds, seconds / len(groups), job, say)
        _extend(times, found)
        if base is not None:
            _extend(ratios, bench.ratios(found, base))
    steps.keep([])
    if not times:
        raise ValueError("\n".join([f"Nothing could be measured for {job}.", *unavailable.values()]))
    return Measurement(
        job.optimizer, dtype_name(job.dtype), job.name, len(job.shapes), job.parameters,
        _bytes(job, None), sets, base,
        tuple(
            Timed(name, _spread(times[name]), len(times[name]), _bytes(job, name),
                  _spread(ratios[name]) if name in ratios else None, steps.extra[name])
            for name in job.ways if name in times
        ),
        unavailable,
    )  # fmt: skip


class _Steps:
    """The steps that are ready to be timed; each holds its own tensors until it is no longer kept."""

    def __init__(self, job: Job, sets: int, device: torch.device, failed: dict[str, str], say: Say) -> None:
        self.job, self.sets, self.device, self.failed, self.say = job, sets, device, failed, say
        self.made: dict[str, Step] = {}
        self.extra: dict[str, int | None] = {}

    def keep(self, names: Sequence[str]) -> None:
        """Let go of the steps that are not named, and make those that are missing."""
        self.made = {name: step for name, step in self.made.items() if name in names}
        _free(self.job, self.device)
        for name in names:
            if name in self.made or name in self.failed:
                continue
            self.say(f"{self.job}: making {name} ready", 0, 0)
            try:
                self.made[name] = self._ready(name)
            except Exception as error:  # a library that is there and does not work here must not end all others
                self.made.pop(name, None)
                self.failed[name] = _why(name, error)
                error.__traceback__ = None  # its frames hold tensors
                del error
                _free(self.job, self.device)

    def _ready(self, name: str) -> Step:
        job = self.job
        step, optimizer = variants.build(name, job.optimizer, list(job.shapes), self.device, job.dtype, self.sets)
        for _ in range(self.sets + 1):
            step()  # state is made, kernels are compiled
        extra = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            step()
            torch.cuda.synchronize(self.device)
            extra = max(0, torch.cuda.max_memory_allocated(self.device) - before)
        elif optimizer is not None and not variants.WAYS[name].compiles:
            extra = step_extra(optimizer)
        self.extra[name] = extra
        return step


def _why(name: str, error: Exception) -> str:
    if out_of_memory(error):
        return f"{name} ran out of memory. Choose smaller --shapes, or --ways {name} alone."
    said = str(error).strip().splitlines()
    return f"{name} failed here: {type(error).__name__}{f': {said[0]}' if said else ''}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device has no memory left: torch has no type of its own for it on a CPU."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def _rounds(
    steps: dict[str, Step], device: torch.device, rounds: int | None, seconds: float, job: Job, say: Say
) -> dict[str, bench.Spread]:
    """Seconds of each step, one a round."""
    if not steps:
        return {}
    what = f"{job}: timing {len(steps)} ways"
    if rounds is None:
        say(what, 0, 0)
        first = bench.measure(steps, 1, 0, device)
        once = sum(spread.median for spread in first.values())
        rounds = max(FEWEST, min(MOST, int(seconds / once)))
    return bench.measure(steps, rounds, 0, device, lambda done, total: say(what, done, total))


def _extend(known: dict[str, tuple[float, ...]], found: dict[str, bench.Spread]) -> None:
    for name, spread in found.items():
        known[name] = known.get(name, ()) + spread.values


def _spread(values: tuple[float, ...]) -> Quartiles:
    found = bench.Spread(values)
    return Quartiles(found.median, *found.quartiles)


def _bytes(job: Job, way: str | None) -> int:
    """What a step of such a way must move; for None what one with state of the parameters' dtype must."""
    size = job.dtype.itemsize
    if way == COPY:
        return 2 * size * job.parameters
    # The course's kernels in Triton keep float32 state whatever the parameters are.
    state = 4 if way == "triton" else size
    weights = [Weight("", shape, 1, "mlp") for shape in job.shapes]
    kept = state_bytes(STATE.get(way, job.optimizer), weights, state=state) / max(1, job.parameters)
    return round(least_bytes(job.optimizer, size, state=kept).total * job.parameters)


def _groups(job: Job, sets: int, others: list[str], anchors: list[str], device: torch.device) -> list[list[str]]:
    """``others`` in as few groups as fit into the memory, each beside the anchors, about equally many in each."""
    each, free = job.set_bytes * sets, free_memory(device)
    headroom = 2 * job.parameters * job.dtype.itemsize  # what foreach or making a way ready takes for a moment
    limit = math.inf if free is None else SPARE * free
    if device.type == "cpu":
        limit = min(limit, CPU_MEMORY)
    room = max(0, int(min((limit - headroom) // max(1, each), len(anchors) + len(others) + 1)))
    if room < len(anchors) + bool(others):
        needed = (len(anchors) + bool(others)) * each + headroom
        there = "" if free is None else f", and {free / GB:.1f} GB are free"
        at_most = f" (at most {CPU_MEMORY / GB:.0f} GB are taken)" if device.type == "cpu" else ""
        raise TooLittle(
            f"Too little memory for {job}: {each / GB:.1f} GB for each way, {needed / GB:.1f} GB for the fewest that "
            f"can be compared{there}{at_most}. Choose smaller --shapes, as tiny or 4x1000000, or one of the --ways."
        )
    if not others:
        return [[]]
    count = math.ceil(len(others) / (room - len(anchors)))
    size = math.ceil(len(others) / count)
    return [others[start : start + size] for start in range(0, len(others), size)]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated now; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    info, limits = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if info.exists():
        lines = (line.split() for line in info.read_text().splitlines())
        found += [1024 * int(line[1]) for line in lines if line[0] == "MemAvailable:"]
    try:  # a container may have less than the machine
        found.append(int((limits / "memory.max").read_text()) - int((limits / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(0, min(found)) if found else None


def _free(job: Job, device: torch.device) -> None:
    """Give back what nothing holds any more; for small jobs that is not worth the search for cycles."""
    if job.set_bytes > WORTH_A_SEARCH:
        gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure_jobs(
    jobs: Iterable[Job],
    device: torch.device,
    rounds: int | None = None,
    seconds: float = 30.0,
    deadline: float = math.inf,
    say: Say = _quiet,
) -> Iterator[Measurement | str]:
    """The measurements of the jobs in turn; a sentence in place of each that could not be made.

    Args:
        rounds, seconds, say: of each job, see :func:`measure_job`.
        deadline: of ``time.monotonic()``, after which no further job is begun.
    """
    for job in jobs:
        if time.monotonic() > deadline:
            yield f"Not measured: {job}, as the time for a recording was used up. Measure it by itself."
            continue
        try:
            yield measure_job(job, device, rounds, seconds, say)
        except (TooLittle, ValueError) as error:
            yield str(error)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            yield f"The memory was used up while {job} was timed. Choose smaller --shapes, or fewer --ways."


def record(
    measurements: Sequence[Measurement], device: torch.device, command: str, machine: Machine | None = None
) -> Record:
    """The measurements with the machine, the versions, the date and the command beside them."""
    cuda = device.type == "cuda"
    return Record(
        device=bench.describe_device(device).partition(",")[0], kind=device.type,
        memory=torch.cuda.get_device_properties(device).total_memory if cuda else _physical_memory(),
        driver=_driver(device) if cuda else None, cuda=torch.version.cuda if cuda else None,
        torch=torch.__version__, triton=_version("triton"), python=platform.python_version(),
        course=course_lib.__version__, threads=torch.get_num_threads(), date=date.today().isoformat(),
        command=command, machine=machine, measurements=tuple(measurements),
    )  # fmt: skip


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None  # not on Windows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver(device: torch.device) -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
