"""The exercise `regime`: what a profile of kernels on one stream says about where the time goes.

The names of the regimes are read into numbers, which `Numeric` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, first_difference, guarded
from course_lib.checks.report import Finding

Rows = list[dict[str, float]]

NAMES = ("launch-bound", "memory-bound", "compute-bound", "inefficient")
LAUNCH, MEMORY, COMPUTE, NEITHER = range(len(NAMES))
_MICRO = 1e-6


def _span(rows: Rows) -> float:
    return rows[-1]["start_us"] + rows[-1]["duration_us"] - rows[0]["start_us"]


def _busy(rows: Rows) -> float:
    return sum(row["duration_us"] for row in rows)


def _gaps(rows: Rows) -> list[float]:
    ends = [row["start_us"] + row["duration_us"] for row in rows]
    return [row["start_us"] - end for row, end in zip(rows[1:], ends, strict=False)]


def _waits(rows: Rows) -> bool:
    return _span(rows) - _busy(rows) > _span(rows) / 2


def _limits(rows: Rows, bandwidth: float, flops: float) -> tuple[float, float]:
    """Seconds that the bytes take, and that the operations take."""
    return sum(row["bytes"] for row in rows) / bandwidth, sum(row["flops"] for row in rows) / flops


def _wider(memory: float, compute: float) -> int:
    return MEMORY if memory >= compute else COMPUTE


def _regime(
    waits: Callable[[Rows], bool] = _waits,
    limits: Callable[[Rows, float, float], tuple[float, float]] = _limits,
    explains: Callable[[float, float, Rows], bool] = lambda memory, compute, rows: (
        2 * max(memory, compute) >= _MICRO * _busy(rows)
    ),
    wider: Callable[[float, float], int] = _wider,
    launches_first: bool = True,
) -> Callable[..., int]:
    def run(rows: Rows, bandwidth: float, flops: float) -> int:
        if launches_first and waits(rows):
            return LAUNCH
        memory, compute = limits(rows, bandwidth, flops)
        if not explains(memory, compute, rows):
            return NEITHER
        if not launches_first and waits(rows):
            return LAUNCH
        return wider(memory, compute)

    return run


def _of_some(chosen: Callable[[Rows], Rows]) -> Callable[..., int]:
    """The right rules on some of the kernels, once it is clear that the device does not wait."""
    return lambda rows, bandwidth, flops: LAUNCH if _waits(rows) else _right(chosen(rows), bandwidth, flops)


def _by_vote(rows: Rows, bandwidth: float, flops: float) -> int:
    if (whole := _right(rows, bandwidth, flops)) in (LAUNCH, NEITHER):
        return whole
    votes = [_wider(*_limits([row], bandwidth, flops)) for row in rows]
    return MEMORY if 2 * votes.count(MEMORY) >= len(votes) else COMPUTE


def _by_mean_intensity(rows: Rows, bandwidth: float, flops: float) -> int:
    if (whole := _right(rows, bandwidth, flops)) in (LAUNCH, NEITHER):
        return whole
    mean = np.mean([row["flops"] / max(row["bytes"], 1) for row in rows])
    return COMPUTE if mean > flops / bandwidth else MEMORY


def _by_longest(rows: Rows) -> Rows:
    return [max(rows, key=lambda row: row["duration_us"])]


def _unit(seconds: float) -> Callable[[float, float, Rows], bool]:
    return lambda memory, compute, rows: 2 * max(memory, compute) >= seconds * _busy(rows)


def _each_limit(rows: Rows, bandwidth: float, flops: float) -> float:
    return sum(max(_limits([row], bandwidth, flops)) for row in rows)


def _explained_each(rows: Rows, bandwidth: float, flops: float) -> int:
    """The longer limit of each kernel, added up, is held against the busy time."""
    if _waits(rows):
        return LAUNCH
    if 2 * _each_limit(rows, bandwidth, flops) < _MICRO * _busy(rows):
        return NEITHER
    return _wider(*_limits(rows, bandwidth, flops))


def _whole(rows: Rows) -> bool:
    return int(_span(rows) - _busy(rows)) > _span(rows) / 2


_right = _regime()
_IDLE = "Span: from the first start to the last end. Idle: the span less the sum of the durations."
_UNITS = "Durations are in microseconds; bytes / bandwidth gives seconds."
_SUMS = "Sum the bytes of all kernels, and their operations; divide each sum by what the device can do."
_HALF = "The larger of the two times explains the busy time if it is at least half of it."
MISTAKES = (
    Known("no-launch-bound", "a reading that never asks whether the device waits", _IDLE,
          _regime(waits=lambda rows: False)),
    Known("any-gap", "a device that counts as launch-bound as soon as it waits at all", "More than half of the span.",
          _regime(waits=lambda rows: _span(rows) > _busy(rows))),
    Known("half-is-launch-bound", "a tie that counts as launch-bound: idle for exactly half of the span",
          "More than half.", _regime(waits=lambda rows: _span(rows) - _busy(rows) >= _span(rows) / 2)),
    Known("idle-against-busy", "idle time that is compared with half of the busy time", "Half of the span.",
          _regime(waits=lambda rows: 2 * (_span(rows) - _busy(rows)) > _busy(rows))),
    Known("idle-all", "a device that counts as launch-bound only if it waits longer than two spans' thirds", _IDLE,
          _regime(waits=lambda rows: _span(rows) - _busy(rows) > 2 * _busy(rows))),
    Known("half-cut", "half of the span in whole microseconds, as `//` gives it",
          "`/` keeps the half microsecond.",
          _regime(waits=lambda rows: _span(rows) - _busy(rows) > _span(rows) // 2)),
    Known("idle-cut", "idle time in whole microseconds", "Times may be fractions of a microsecond: no `int`.",
          _regime(waits=_whole)),
    Known("half-of-busy-cut", "half of the busy time in whole microseconds, as `//` gives it",
          "`/` keeps the half microsecond.", _regime(explains=lambda memory, compute, rows: (
              max(memory, compute) >= _MICRO * (_busy(rows) // 2)))),
    Known("start-to-start", "gaps from start to start, which hold the kernels as well",
          "A gap begins where a kernel ends: start + duration.", _regime(waits=lambda rows: (
              rows[-1]["start_us"] - rows[0]["start_us"] > _span(rows) / 2))),
    Known("longest-as-last", "a span to the last start plus the longest duration",
          "Which kernel ends last? Take its own duration.", _regime(waits=lambda rows: (
              2 * _busy(rows) < max(r["start_us"] for r in rows) + max(r["duration_us"] for r in rows)
              - rows[0]["start_us"]))),
    Known("bits", "bits in the place of bytes", "`bandwidth` is in bytes per second, and so are the rows' bytes.",
          _regime(limits=lambda rows, bandwidth, flops: _limits(rows, bandwidth / 8, flops))),
    Known("inefficient-inverted", "a comparison the wrong way round: inefficient where a limit does explain the time",
          _HALF, _regime(explains=lambda memory, compute, rows: 2 * max(memory, compute) <= _MICRO * _busy(rows))),
    Known("busy-for-idle", "busy time in the place of idle time, or a comparison the wrong way round", _IDLE,
          _regime(waits=lambda rows: _busy(rows) > _span(rows) / 2)),
    Known("span-from-zero", "a span that begins at 0 and not where the first kernel does", _IDLE,
          _regime(waits=lambda rows: 2 * _busy(rows) < rows[-1]["start_us"] + rows[-1]["duration_us"])),
    Known("span-to-last-start", "a span that ends where the last kernel begins", _IDLE,
          _regime(waits=lambda rows: (
              2 * _busy(rows) < rows[-1]["start_us"] - rows[0]["start_us"]))),
    Known("largest-gap", "the largest gap in the place of all of them", _IDLE,
          _regime(waits=lambda rows: 2 * max(_gaps(rows), default=0) > _span(rows))),
    Known("mean-gap", "the mean gap against the mean duration: there is one gap fewer than kernels", _IDLE,
          _regime(waits=lambda rows: (
              len(rows) > 1 and float(np.mean(_gaps(rows))) > _busy(rows) / len(rows)))),
    Known("short-kernels", "kernels shorter than 5 microseconds, whether the device waits or not",
          "A short kernel is no fault while the next one follows at once. How long is the device idle?",
          _regime(waits=lambda rows: _busy(rows) / len(rows) < 5)),
    Known("many-kernels", "a count of kernels in the place of the idle time", _IDLE,
          _regime(waits=lambda rows: len(rows) > 4)),
    Known("no-inefficient", "a reading that never asks whether the limits explain the time", _HALF,
          _regime(explains=lambda memory, compute, rows: True)),
    Known("inefficient-first", "the test for inefficiency before the one for launches",
          "First: does the device wait? The kernels themselves come second.", _regime(launches_first=False)),
    Known("against-the-span", "limits that are compared with the span: idle time is the launches' affair", _HALF,
          _regime(explains=lambda memory, compute, rows: 2 * max(memory, compute) >= _MICRO * _span(rows))),
    Known("without-half", "a device that counts as inefficient as soon as the larger limit is below the busy time",
          _HALF, _regime(explains=lambda memory, compute, rows: max(memory, compute) >= _MICRO * _busy(rows))),
    Known("sum-of-limits", "the two limits added up: memory and arithmetic work at the same time", _HALF,
          _regime(explains=lambda memory, compute, rows: 2 * (memory + compute) >= _MICRO * _busy(rows))),
    Known("smaller-limit", "the smaller limit against the busy time", _HALF,
          _regime(explains=lambda memory, compute, rows: 2 * min(memory, compute) >= _MICRO * _busy(rows))),
    Known("memory-limit-only", "the memory's limit alone against the busy time", _HALF,
          _regime(explains=lambda memory, compute, rows: 2 * memory >= _MICRO * _busy(rows))),
    Known("limit-of-each", "the longer limit of each kernel, added up, against the busy time", _SUMS,
          _explained_each),
    Known("seconds-against-microseconds", "seconds that are compared with microseconds, or with milliseconds",
          _UNITS, _regime(explains=_unit(1.0))),
    Known("half-is-inefficient", "a tie that counts as inefficient: a limit of exactly half of the busy time", _HALF,
          _regime(explains=lambda memory, compute, rows: 2 * max(memory, compute) > _MICRO * _busy(rows))),
    Known("nanoseconds", "durations that are read as nanoseconds", _UNITS, _regime(explains=_unit(1e-9))),
    Known("not-divided", "bytes and operations that are compared with each other", _SUMS,
          lambda rows, bandwidth, flops: whole if (whole := _right(rows, bandwidth, flops)) in (LAUNCH, NEITHER)
          else _wider(*_limits(rows, 1, 1))),
    Known("limits-exchanged", "the two names exchanged", "The longer time is the limit.",
          _regime(wider=lambda memory, compute: COMPUTE if memory >= compute else MEMORY)),
    Known("peaks-exchanged", "bytes over the peak of operations, and operations over the bandwidth", _SUMS,
          _regime(limits=lambda rows, bandwidth, flops: _limits(rows, flops, bandwidth))),
    Known("tie-to-compute", "a tie that goes to compute-bound", "The exercise says which of equals it is.",
          _regime(wider=lambda memory, compute: MEMORY if memory > compute else COMPUTE)),
    Known("by-vote", "the regime of most kernels, however short they are", _SUMS, _by_vote),
    Known("mean-intensity", "the mean of the kernels' intensities, in which a short one counts as much as a long one",
          _SUMS, _by_mean_intensity),
    Known("longest-kernel", "the longest kernel alone", _SUMS, _of_some(_by_longest)),
    Known("first-kernel", "the first kernel alone", _SUMS, _of_some(lambda rows: rows[:1])),
    Known("last-kernel", "the last kernel alone", _SUMS, _of_some(lambda rows: rows[-1:])),
    Known("always-memory-bound", "memory-bound, whatever the profile", "Read the rows.",
          lambda rows, bandwidth, flops: MEMORY),
)  # fmt: skip


def profile(*kernels: tuple[float, float, float, float], start: float = 0.0) -> Rows:
    """Rows of kernels: (gap before it, duration) in microseconds, bytes, operations."""
    rows: Rows = []
    for gap, duration, moved, operations in kernels:
        start += gap
        rows.append({"start_us": start, "duration_us": duration, "bytes": moved, "flops": operations})
        start += duration
    return rows


_BANDWIDTH, _PEAK = 2e12, 4e14  # 2 bytes and 400 operations in a picosecond


def _case(*kernels: tuple[float, float, float, float], start: float = 0.0, bandwidth: float = _BANDWIDTH,
          flops: float = _PEAK) -> dict[str, Any]:  # fmt: skip
    return {"rows": profile(*kernels, start=start), "bandwidth": bandwidth, "flops": flops}


def _full(duration: float, memory: float, compute: float, gap: float = 0.0) -> tuple[float, float, float, float]:
    """A kernel whose bytes and operations would take these shares of its duration."""
    return gap, duration, round(duration * memory * 2e6), round(duration * compute * 4e8)


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Profiles far from all borders."""

    def some(memory: float, compute: float, gap: float) -> dict[str, Any]:
        durations = rng.integers(2, 60, int(rng.integers(2, 6))).tolist()
        start = float(rng.integers(0, 9) * 1000)
        return _case(*(_full(d, memory, compute, gap * max(durations)) for d in durations), start=start)

    share = float(rng.uniform(0.65, 0.9))
    return [some(share, 0.3, 0.05), some(0.3, share, 0.05), some(0.2, 0.1, 0.05), some(share, 0.01, 9.0)]


class _InWords(Numeric):
    """Says which regime was expected, with the sums that decide."""

    def _unnamed(
        self, cases: Any, results: list[Parts], expected: list[Parts], i: int, rounding: float = 0.0
    ) -> Finding:
        case, got, want = first_difference(cases, results, expected, i)
        rows = case["rows"]
        memory, compute = (1e6 * x for x in _limits(**case))
        what = (
            f"Called with {_said(case)}: {NAMES[int(want)]!r} is expected, and you return {NAMES[int(got)]!r}. "
            f"The span is {_span(rows):g} us, of which {_busy(rows):g} are busy; the bytes would take {memory:.4g} "
            f"us, the operations {compute:.4g} us."
        )
        return Finding("wrong-regime", what, "Work this profile by hand: first the idle time, then the two limits.")


REGIME = _InWords(
    _right,
    [
        _case(*(_full(2, 0.5, 0.01, gap=8) for _ in range(6))),  # tiny tensors, a launch each
        _case(*(_full(2, 0.05, 0.01, gap=8) for _ in range(3))),  # the same, and slow kernels
        _case(_full(200, 0.9, 0.02)),
        _case(_full(30, 0.3, 0.8), _full(50, 0.2, 0.9, gap=2), _full(10, 0.9, 0.1)),
        _case(_full(100, 0.2, 0.1), _full(80, 0.3, 0.02, gap=1)),  # strided
        _case(_full(40, 0.8, 0.1), _full(20, 0.8, 0.1, gap=40), start=900),
        _case(_full(10, 0.9, 0.1), _full(10, 0.9, 0.1, gap=20)),  # idle for exactly half
        _case(_full(10, 0.9, 0.1), _full(10, 0.9, 0.1, gap=11), _full(40, 0.9, 0.1, gap=7)),
        _case(_full(10, 0.9, 0.1), _full(10, 0.9, 0.1, gap=14), _full(10, 0.9, 0.1, gap=14), start=5),
        _case(_full(3, 0.9, 0.1), _full(3, 0.9, 0.1, gap=4), _full(60, 0.9, 0.1, gap=80)),
        _case(_full(3, 0.9, 0.1), _full(3, 0.9, 0.1, gap=50), _full(3, 0.9, 0.1, gap=5)),
        _case(*(_full(4, 0.9, 0.05, gap=1) for _ in range(8))),  # short kernels, one after the other
        _case(_full(60, 0.55, 0.1), _full(20, 0.55, 0.1, gap=30)),
        _case(_full(50, 0.3, 0.25), _full(50, 0.25, 0.3)),  # inefficient, though the two add up to more than half
        _case(_full(50, 0.8, 0.0), _full(50, 0.0, 0.7)),
        _case(_full(40, 0.7, 0.05), _full(40, 0.05, 0.7)),
        _case(_full(9, 0.1, 0.9), _full(9, 0.1, 0.9), _full(100, 0.8, 0.1)),
        _case(_full(9, 0.9, 0.01), _full(9, 0.9, 0.01), _full(100, 0.1, 0.8), _full(8, 0.9, 0.01)),
        _case(_full(50, 0.1, 0.95), _full(60, 0.9, 0.1), _full(50, 0.1, 0.95)),
        _case(_full(60, 0.02, 0.02), _full(50, 0.9, 0.1), _full(50, 0.9, 0.1)),
        _case(_full(50, 0.9, 0.1), _full(50, 0.9, 0.1), _full(49, 0.02, 0.02)),
        _case((0, 1, 10**6, 10**6), bandwidth=1e12, flops=1e12),  # both limits are the whole duration
        _case((0, 1000, 10**9, 0), bandwidth=2e12),  # at exactly half it is not inefficient
        _case(_full(10, 0.01, 0.9), bandwidth=2e12),
        _case(*(_full(20, 0.9, 0.01, gap=10) for _ in range(3)), _full(1, 0, 0, gap=75)),
        _case(_full(10, 0.9, 0.1), _full(10, 0.9, 0.1, gap=8), _full(10, 0.9, 0.1, gap=9)),
        _case(_full(50, 0.8, 0.7)),
        _case((0, 5, 0, 0), (0, 5, 0, 0)),  # it moves nothing and computes nothing
        _case(_full(10, 0.9, 0.1), _full(10, 0.9, 0.1, gap=13), _full(10, 0.9, 0.1, gap=13)),
        _case(_full(20, 0.9, 0.1), _full(20, 0.9, 0.1, gap=60)),
        _case(_full(1, 0.9, 0.1), _full(1, 0.9, 0.1, gap=5), start=3),
        _case(_full(10**6, 0.9, 0.1)),
        _case(_full(100, 0.9, 0.1), _full(1, 0.9, 0.1, gap=68)),  # the longest is not the last
        _case(_full(5, 0.9, 0.1), _full(5.5, 0.9, 0.1, gap=10.5)),  # idle for exactly half, of an odd span
        _case(_full(5, 0.9, 0.1), _full(5.25, 0.9, 0.1, gap=10.75)),
        _case(_full(5, 0.9, 0.1), _full(5.75, 0.9, 0.1, gap=10.75)),
        _case(_full(5, 0.9, 0.1), _full(6, 0.9, 0.1, gap=10.75)),
        _case(_full(11, 5.25 / 11, 0.01)),
        _case(_full(11, 5.75 / 11, 0.01)),
        _case(_full(11.75, 5.75 / 11.75, 0.01)),
        _case(_full(8, 5.25 / 8, 5.75 / 8)),
    ],
    MISTAKES,
    "the name of a regime",
    edges=[
        Edge(_case(_full(2, 0.9, 0.1))),
        Edge(_case(_full(2, 0.9, 0.1), start=1e6)),
        Edge(_case(_full(3, 0.9, 0.1), _full(3, 0.9, 0.1, gap=7), start=2.5)),
    ],
    drawn=_drawn,
)


def judge_regime(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: the name that it gives to each of the profiles."""
    findings = guarded(candidate, lambda: REGIME(_read(candidate), progress))
    return [_in_words(finding) for finding in findings]


def _in_words(finding: Finding) -> Finding:
    what = finding.what.replace("Your numbers", "Your answers", 1)
    return replace(finding, what=what)


def _said(case: dict[str, Any]) -> str:
    rows: Sequence[dict[str, float]] = case["rows"]
    first = ", ".join(f"{key}={value:g}" for key, value in rows[0].items())
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"rows [{{{first}}}{more}], bandwidth={case['bandwidth']:g}, flops={case['flops']:g}"


def _read(candidate: Callable[..., Any]) -> Callable[..., int]:
    """``candidate`` as a function that returns the place of a name in :data:`NAMES`."""

    def regime(rows: Rows, bandwidth: float, flops: float) -> int:
        given = [dict(row) for row in rows]
        result = candidate(given, bandwidth, flops)
        case = _said({"rows": rows, "bandwidth": bandwidth, "flops": flops})
        if given != rows:
            what = "The function changes its argument `rows` in place."
            raise Stopped(Finding("input-written", what, "Make new numbers; leave the rows as they are."))
        if isinstance(result, str):
            if result in NAMES:
                return NAMES.index(result)
            what = f"Called with {case}, the function returns {result[:40]!r}, which is no regime."
            raise Stopped(Finding("unknown-name", what, f"One of {', '.join(map(repr, NAMES))}, to the letter."))
        kind = "None" if result is None else f"something of type {type(result).__name__}"
        what = f"Called with {case}, the function returns {kind} instead of the name of a regime."
        hint = "Does every path through the function end in a return?" if result is None else "Return the name alone."
        raise Stopped(Finding("wrong-result", what, hint))

    return regime
