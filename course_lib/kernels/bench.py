"""How long one optimizer step takes, measured so that the numbers can be compared."""

from __future__ import annotations

import inspect
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch


def step_times(
    variants: Mapping[str, Callable[[], object]],
    repeats: int = 30,
    warmup: int = 5,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Median time of one call of each variant, in seconds.

    First ``warmup`` rounds that are not counted (allocation of state, kernel compilation, caches), then
    ``repeats`` rounds. A round calls every variant once, so that a processor that heats up or is shared
    slows all of them alike; the order rotates from round to round, so that none always runs
    after the same neighbour. The median leaves out the rare call that was interrupted.

    On CUDA each call is timed between two events on an idle device, which counts the launches as well
    as the kernels; elsewhere by the wall clock, after the device has finished.

    Args:
        variants: name -> function of no arguments that does one step.
        repeats: rounds counted, >= 1.
        warmup: rounds not counted, >= 0.
        device: where the work runs; by default CUDA if there is one, which is right for work on the processor too.

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
    return {name: statistics.median(values) for name, values in seconds.items()}


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
    return {name: make(_parameters(shapes, device)).step for name, make in ways.items()}


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


def _parameters(shapes: list[tuple[int, ...]], device: torch.device) -> list[torch.nn.Parameter]:
    rng = np.random.default_rng(0)
    parameters = []
    for shape in shapes:
        value, grad = (torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(device) for _ in range(2))
        parameters.append(torch.nn.Parameter(value))
        parameters[-1].grad = grad
    return parameters


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    # platform.processor() is empty or a bare architecture on Linux.
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
