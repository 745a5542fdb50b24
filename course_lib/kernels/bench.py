"""How long one optimizer step takes, measured so that the numbers can be compared."""

from __future__ import annotations

import inspect
import math
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """Numbers measured one a round: seconds, or ratios of them.

    Attributes:
        values: in the order of the rounds.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: it leaves out the rare call that was interrupted."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lies the middle half of the values; with one value both are it."""
        low, high = np.quantile(self.values, (0.25, 0.75))
        return float(low), float(high)


def measure(
    variants: Mapping[str, Callable[[], object]],
    repeats: int = 30,
    warmup: int = 5,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Spread]:
    """Time of one call of each variant, in seconds, one value a round.

    First ``warmup`` rounds that are not counted (allocation of state, kernel compilation, caches), then
    ``repeats`` rounds. A round calls every variant once, so that a processor that heats up or is shared
    slows all of them alike; the order rotates from round to round, so that none always runs
    after the same neighbour.

    On CUDA each call is timed between two events on an idle device, which counts the launches as well
    as the kernels; elsewhere by the wall clock, after the device has finished.

    Args:
        variants: name -> function of no arguments that does one step.
        repeats: rounds counted, >= 1.
        warmup: rounds not counted, >= 0.
        device: where the work runs; by default CUDA if there is one, which is right for work on the processor too.
        progress: called after each round with the rounds done, and all rounds.

    Raises:
        ValueError: no variants, or a count out of range.
    """
    if not variants:
        raise ValueError("There is nothing to time: pass at least one variant, as {name: function}.")
    if repeats < 1 or warmup < 0:
        raise ValueError(f"Invalid repeats={repeats!r}, warmup={warmup!r}. Allowed: repeats >= 1 and warmup >= 0.")
    device = _device(device)
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warmup + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            elapsed = _time_once(variants[name], device)
            if turn >= warmup:
                seconds[name].append(elapsed)
        if progress is not None:
            progress(turn + 1, warmup + repeats)
    return {name: Spread(tuple(values)) for name, values in seconds.items()}


def step_times(
    variants: Mapping[str, Callable[[], object]],
    repeats: int = 30,
    warmup: int = 5,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Median time of one call of each variant, in seconds; arguments and errors are :func:`measure`'s."""
    return {name: spread.median for name, spread in measure(variants, repeats, warmup, device).items()}


def ratios(measured: Mapping[str, Spread], base: str) -> dict[str, Spread]:
    """How many times ``base``'s time each variant took, round by round: what slowed both of a pair cancels.

    Raises:
        ValueError: ``base`` is not among the names.
    """
    if base not in measured:
        raise ValueError(f"Invalid base: {base!r}. Allowed: {', '.join(map(repr, measured))}.")
    return {
        name: Spread(tuple(a / b for a, b in zip(spread.values, measured[base].values, strict=True)))
        for name, spread in measured.items()
    }


def step_variants(
    shapes: Iterable[tuple[int, ...]],
    device: torch.device | str | None = None,
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
    own: type[torch.optim.Optimizer] | None = None,
    **hyper: object,
) -> dict[str, Callable[[], object]]:
    """The ways torch runs one step of ``optimizer_class``, ready for :func:`step_times`.

    ``"for-loop"`` handles one parameter after another, a kernel per arithmetic operation; ``"foreach"`` an
    operation at a time over all parameters; ``"fused"`` the whole rule in one pass. A way that the class does not
    offer is left out. ``own`` adds ``"from scratch"``, the same step by a class of ours.

    Every variant has its own float32 parameters and gradients, equal for all, drawn with NumPy so that they
    are the same everywhere. Each value is an optimizer's bound ``step``, so ``variant.__self__`` is the optimizer.

    Args:
        shapes: one parameter per shape.
        device: where they live; by default CUDA if there is one.
        optimizer_class: torch.optim's, such as Adam or AdamW.
        own: a class that takes the same arguments, ``foreach`` and ``fused`` excepted.
        hyper: passed on to both, such as ``lr=1e-3``.
    """
    shapes, device = list(shapes), _device(device)
    accepted = inspect.signature(optimizer_class).parameters
    ways: dict[str, Callable] = {}
    if "foreach" in accepted:
        # Both flags are set: torch picks a way by itself where they are left open.
        ways["for-loop"] = lambda params: optimizer_class(params, **hyper, foreach=False)
        ways["foreach"] = lambda params: optimizer_class(params, **hyper, foreach=True)
    if "fused" in accepted:
        ways["fused"] = lambda params: optimizer_class(params, **hyper, fused=True)
    if own is not None:
        ways["from scratch"] = lambda params: own(params, **hyper)
    return {name: make(parameters(shapes, device)).step for name, make in ways.items()}


def parameters(
    shapes: Iterable[tuple[int, ...]], device: torch.device | str, dtype: torch.dtype = torch.float32
) -> list[torch.nn.Parameter]:
    """Parameters with gradients, one per shape, standard normal: drawn with NumPy, so the same everywhere.

    Of numbers there are 2^20, over and over, from another place on for each tensor: to draw billions takes minutes.
    """
    rng = np.random.default_rng(0)
    pools = [torch.from_numpy(rng.standard_normal(2**20, dtype=np.float32)).to(device, dtype) for _ in range(2)]
    made = []
    for shape in shapes:
        count = math.prod(shape)
        start = len(made) * 7919 % max(1, 2**20 - count)  # a prime, so that places come back late
        value, grad = (
            (pool if count < 2**20 else pool.repeat(-(-count // 2**20)))[start : start + count].reshape(shape).clone()
            for pool in pools
        )
        made.append(torch.nn.Parameter(value))
        made[-1].grad = grad
    return made


def cache_bytes(device: torch.device | str) -> int:
    """Bytes of the device's last cache; where it cannot be read, 64 MiB, as much as most have."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    found = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        number, unit = re.fullmatch(r"(\d+)([KMG]?)", size.read_text().strip()).groups()
        found.append(int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit])
    return max(found, default=64 * 2**20)


def ratio_table(times: Mapping[str, float], base: str) -> str:
    """The times as a Markdown table that also reads well printed: milliseconds, and how often faster than ``base``.

    Args:
        times: name -> seconds, as from :func:`step_times`.
        base: the name that the others are compared with.

    Raises:
        ValueError: ``base`` is not among the names.
    """
    if base not in times:
        raise ValueError(f"Invalid base: {base!r}. Allowed: {', '.join(map(repr, times))}.")
    rows = [("variant", "ms per step", f"times faster than {base}")]
    rows += [(name, f"{1e3 * value:.3f}", f"{times[base] / value:.2f}") for name, value in times.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"| {a:<{widths[0]}} | {b:>{widths[1]}} | {c:>{widths[2]}} |" for a, b, c in rows]
    lines.insert(1, f"| {'-' * widths[0]} | {'-' * (widths[1] - 1)}: | {'-' * (widths[2] - 1)}: |")
    return "\n".join(lines)


def describe_device(device: torch.device | str | None = None) -> str:
    """One line on what is measured: processor or GPU, its threads or memory (GiB), and torch's version.

    Args:
        device: by default CUDA if there is one.
    """
    device = _device(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{_processor()}, {threads} thread{'s' * (threads != 1)}, torch {torch.__version__}"
    return f"{device.type} on {_processor()}, torch {torch.__version__}"


def _device(device: torch.device | str | None) -> torch.device:
    return torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")


def _time_once(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    synchronize = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    # platform.processor() is empty or a bare architecture on Linux.
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
