"""The exercise `ring_seconds`: how long a ring all-reduce takes, by the alpha-beta model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric


def _steps(ranks: int) -> int:
    return 2 * (ranks - 1)


def _time(
    messages: Callable[[int], float] = _steps,
    shares: Callable[[int], float] = lambda n: 2 * (n - 1) / n,
    change: Callable[[float], float] = lambda seconds: seconds,
) -> Callable[..., float]:
    """``messages`` is how many latencies are waited for, ``shares`` how many times the whole size passes a link."""

    def run(size: float, ranks: int, bandwidth: float, latency: float = 0.0) -> float:
        return change(messages(ranks) * latency + shares(ranks) * size / bandwidth)

    return run


RIGHT = _time()
_PHASES = "A reduce-scatter and an all-gather, one after the other: how many steps has each?"
_CHUNK = "How long is the message of one step? An array of `size` bytes is cut into as many chunks as there are ranks."
_LATENCY = "Each step sends a message, and each message waits once. How many steps are there?"
_UNITS = "`size` is in bytes, `bandwidth` in bytes per second, the result in seconds."
_BRACKETS = "Time of a message = latency + its bytes / bandwidth. Look at your brackets."

MISTAKES = (
    Known("one-phase", "N - 1 steps: one phase of the two", _PHASES, _time(lambda n: n - 1, lambda n: (n - 1) / n)),
    Known(
        "bandwidth-of-one-phase",
        "2 (N - 1) latencies, but the bytes of one phase",
        _PHASES,
        _time(shares=lambda n: (n - 1) / n),
    ),
    Known(
        "latency-of-one-phase",
        "the right bytes, but the latencies of one phase, N - 1 of them",
        _PHASES,
        _time(lambda n: n - 1),
    ),
    Known(
        "limit-of-many-ranks",
        "2 size / bandwidth and 2 (N - 1) latencies: (N - 1) / N is missing, which is near 1 for many ranks only",
        "A rank's own chunk is not sent to itself.",
        _time(shares=lambda n: 2),
    ),
    Known(
        "n-steps",
        "N steps in each phase",
        "Chunks have passed through all ranks when they have made how many hops?",
        _time(lambda n: 2 * n, lambda n: 2),
    ),
    Known(
        "one-step-more",
        "2 N - 1 steps",
        _PHASES,
        _time(lambda n: 2 * n - 1, lambda n: (2 * n - 1) / n),
    ),
    Known(
        "one-step-less",
        "2 N - 3 steps",
        _PHASES,
        _time(lambda n: 2 * n - 3, lambda n: (2 * n - 3) / n),
    ),
    Known(
        "whole-messages",
        "2 (N - 1) messages of the whole size: it is not divided by the ranks (or the ranks share one link)",
        _CHUNK,
        _time(shares=_steps),
    ),
    Known(
        "whole-arrays-around",
        "N - 1 messages of the whole size: each rank passes whole arrays around the ring",
        _CHUNK,
        _time(lambda n: n - 1, lambda n: n - 1),
    ),
    Known(
        "divided-twice",
        "a size that is divided by N twice",
        _CHUNK,
        _time(shares=lambda n: 2 * (n - 1) / n**2),
    ),
    Known(
        "tree-latency",
        "the bytes of a ring and the latency of a tree, 2 log2(N)",
        "In a ring each chunk visits every rank in turn.",
        _time(lambda n: 2 * math.log2(n)),
    ),
    Known(
        "tree-latency-rounded",
        "the bytes of a ring and the latency of a tree, 2 ceil(log2(N))",
        "In a ring each chunk visits every rank in turn.",
        _time(lambda n: 2 * math.ceil(math.log2(n))),
    ),
    Known(
        "tree-latency-once",
        "the bytes of a ring and the latency of a tree, log2(N)",
        "In a ring each chunk visits every rank in turn.",
        _time(lambda n: math.log2(n)),
    ),
    Known("latency-once", "the right bytes and a single latency", _LATENCY, _time(lambda n: 1)),
    Known("latency-twice", "the right bytes and two latencies, one for each phase", _LATENCY, _time(lambda n: 2)),
    Known("latency-per-rank", "the right bytes and N latencies", _LATENCY, _time(lambda n: n)),
    Known("latency-per-rank-twice", "the right bytes and 2 N latencies", _LATENCY, _time(lambda n: 2 * n)),
    Known(
        "latency-missing",
        "the right bytes without any latency (or with one that is divided by the bandwidth)",
        f"{_LATENCY} {_BRACKETS}",
        _time(lambda n: 0),
    ),
    Known(
        "size-over-bandwidth",
        "size / bandwidth: one message of the whole size, without latency",
        f"{_PHASES} {_CHUNK}",
        _time(lambda n: 0, lambda n: 1),
    ),
    Known(
        "two-sizes-over-bandwidth",
        "2 size / bandwidth: (N - 1) / N is missing, and so are the latencies",
        f"A rank's own chunk is not sent to itself. {_LATENCY}",
        _time(lambda n: 0, lambda n: 2),
    ),
    Known(
        "one-phase-without-latency",
        "the bytes of one phase, without latency",
        f"{_PHASES} {_LATENCY}",
        _time(lambda n: 0, lambda n: (n - 1) / n),
    ),
    Known(
        "latency-divided",
        "2 (N - 1) / N latencies: the latency is divided by the ranks too",
        f"{_BRACKETS} A message waits as long, however short it is.",
        _time(lambda n: 2 * (n - 1) / n),
    ),
    Known(
        "latency-alone",
        "2 (N - 1) latencies, and no bytes (or a bandwidth so large that they take no time)",
        f"A message waits, and then its bytes pass. {_UNITS} Nothing is to be converted.",
        _time(shares=lambda n: 0),
    ),
    Known(
        "latency-subtracted",
        "the right bytes less the latencies",
        "Does waiting make it faster?",
        _time(lambda n: -2 * (n - 1)),
    ),
    Known(
        "latency-outside",
        "2 (N - 1) latency + size / (N bandwidth): the steps multiply the latency alone",
        _BRACKETS,
        _time(shares=lambda n: 1 / n),
    ),
    Known(
        "both-directions",
        "twice the bytes: sent and received together, or two bytes for each of `size`",
        f"{_UNITS} A link carries both directions at once: while a rank sends, it receives.",
        _time(shares=lambda n: 4 * (n - 1) / n),
    ),
    Known(
        "all-ranks-added",
        "the times of all ranks, added up",
        "All ranks send at the same time.",
        lambda size, ranks, bandwidth, latency=0.0: ranks * RIGHT(size, ranks, bandwidth, latency),
    ),
    Known("bits", "a size in bits, or a bandwidth over 8", _UNITS, _time(shares=lambda n: 16 * (n - 1) / n)),
    Known(
        "size-in-bits",
        "a size over 8, as if it were given in bits",
        _UNITS,
        _time(shares=lambda n: (n - 1) / n / 4),
    ),
    Known(
        "gibibytes",
        "a size in GB and a bandwidth in GiB/s, or the other way round",
        _UNITS,
        _time(shares=lambda n: 2 * (n - 1) / n * 1e9 / 2**30),
    ),
    Known("milliseconds", "milliseconds instead of seconds", _UNITS, _time(change=lambda seconds: 1e3 * seconds)),
    Known("microseconds", "microseconds instead of seconds", _UNITS, _time(change=lambda seconds: 1e6 * seconds)),
    Known(
        "elements",
        "four times the bytes: `size` taken for elements of float32",
        _UNITS,
        _time(shares=lambda n: 8 * (n - 1) / n),
    ),
    Known(
        "upside-down",
        "bandwidth over size",
        _UNITS,
        lambda size, ranks, bandwidth, latency=0.0: 2 * (ranks - 1) * (latency + bandwidth / (ranks * size)),
    ),
    Known(
        "multiplied",
        "size times bandwidth",
        _UNITS,
        lambda size, ranks, bandwidth, latency=0.0: 2 * (ranks - 1) * (latency + size * bandwidth / ranks),
    ),
)


def _case(size: float, ranks: int, bandwidth: float, latency: float) -> dict[str, Any]:
    return {"size": size, "ranks": ranks, "bandwidth": bandwidth, "latency": latency}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    """The latencies take about as long as the bytes, so that a fault in either shows."""
    ranks, size = int(rng.integers(3, 200)), float(rng.integers(10**6, 10**9))
    bandwidth = float(rng.integers(10**9, 10**11))
    return [_case(size, ranks, bandwidth, float(rng.uniform(0.3, 3)) * size / bandwidth / ranks)]


RING_SECONDS = Numeric(
    RIGHT,
    [
        _case(4e6, 8, 5e10, 2e-5),
        _case(3.5e8, 6, 1.2e9, 0.07),
        _case(1e9, 50, 2.5e10, 1e-3),
        _case(14e9, 64, 5e10, 5e-6),
    ],
    MISTAKES,
    "a number of seconds",
    edges=[
        Edge({"size": 14e9, "ranks": 64, "bandwidth": 50e9}),
        Edge({"size": 14_000_000_000, "ranks": 2, "bandwidth": 50_000_000_000}),
        Edge(_case(1e9, 1, 5e10, 1e-5)),
    ],
    drawn=_drawn,
)
