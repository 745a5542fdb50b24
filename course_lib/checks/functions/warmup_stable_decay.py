"""The exercise `warmup_stable_decay`: a warmup, a plateau, and a fall over the last share of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric
from course_lib.checks.functions.warmup_cosine import half_cosine, mixed, no_warmup
from course_lib.checks.report import OTHER_SPECIFICATION


def _nearest(warmup: int, total: int, share: float) -> int:
    return min(round(share * total), total - warmup)


def _rule(
    rise: Callable[[int, int], float] = lambda t, w: (t + 1) / w,
    rises: Callable[[int, int, int], bool] = lambda t, w, start: t < w,
    length: Callable[[int, int, float], int] = _nearest,
    start: Callable[[int, int, int], int] = lambda w, total, n: total - n,
    progress: Callable[[int, int, int, int], float] = lambda t, start, n, total: (t - start) / n,
    last: float = 1.0,
    left: Callable[[float], float] = lambda p: 1 - np.sqrt(p),
    mix: Callable[[float, float], float] = mixed,
    after: Callable[[float], float] | None = None,
    plateau: Callable[[float], float] = lambda floor: 1.0,
) -> Callable[..., float]:
    """Each argument is one line of the rule; n is the number of updates of the fall, which begins at ``start``."""

    def run(step: int, warmup: int, total: int, share: float, floor: float) -> float:
        n = length(warmup, total, share)
        begin = start(warmup, total, n)
        if rises(step, warmup, begin):
            return rise(step, warmup)
        if after is not None and step >= total:
            return after(floor)
        if step < begin:
            return plateau(floor)
        return mix(left(min(progress(step, begin, n, total), last)), floor)

    return run


_right = _rule()
_FIRST = "The first update is step 0. Which rate has it, and which step is the first at the full rate?"
_FALL = (
    "At the first step of the fall the rate still is 1, at step `total` it is at the floor. How many steps lie between?"
)
_SHARE = "How many updates has the fall? `share` is of all `total` updates, and the number is rounded to the nearest."
_FLOOR = "What is the value at the beginning of the fall, and what is it at the end?"
_ROOT = "Put in the share of the fall that is over: 0, 1/4 and 1. Where does 1 - sqrt(p) fall fastest?"
_MISTAKES = (
    Known(
        "warmup-from-zero",
        "a warmup that begins at 0: step / warmup, as Hugging Face has it",
        _FIRST,
        _rule(lambda t, w: t / w),
        OTHER_SPECIFICATION,
    ),
    Known(
        "warmup-one-longer",
        "a warmup of warmup + 1 steps: (step + 1) / (warmup + 1)",
        _FIRST,
        _rule(lambda t, w: (t + 1) / (w + 1)),
    ),
    Known(
        "warmup-above-one",
        "a warmup that goes on at step = warmup, and exceeds 1 there",
        _FIRST,
        _rule(rises=lambda t, w, start: t <= w),
    ),
    Known(
        "warmup-missing",
        "the full rate during the warmup",
        "What do the steps below `warmup` get?",
        _rule(lambda t, w: 1.0),
    ),
    Known(
        "cut-off",
        "a fall whose number of updates is cut off: int(share * total)",
        _SHARE,
        _rule(length=lambda w, total, share: min(int(share * total), total - w)),
    ),
    Known(
        "rounded-up",
        "a fall whose number of updates is rounded up",
        _SHARE,
        _rule(length=lambda w, total, share: min(int(np.ceil(share * total)), total - w)),
    ),
    Known(
        "half-up",
        "a fall whose number of updates is rounded half up: int(share * total + 0.5)",
        "What does Python's `round` make of 2.5, and what of 3.5?",
        _rule(length=lambda w, total, share: min(int(share * total + 0.5), total - w)),
    ),
    Known(
        "start-rounded",
        "a fall whose beginning is rounded, not its number of updates: round((1 - share) * total)",
        "The two differ where share * total lies half-way between whole numbers: round that, and count back.",
        _rule(length=lambda w, total, share: min(total - round((1 - share) * total), total - w)),
    ),
    Known(
        "not-rounded",
        "a fall that begins between two updates: share * total is not rounded",
        _SHARE,
        _rule(length=lambda w, total, share: min(share * total, total - w)),
    ),
    Known(
        "share-of-the-rest",
        "a share of the updates after the warmup",
        _SHARE,
        _rule(length=lambda w, total, share: round(share * (total - w))),
    ),
    Known(
        "share-of-the-plateau",
        "a plateau of share * total updates, and a fall over the rest",
        "`share` is that of the fall, not that of the plateau.",
        _rule(length=lambda w, total, share: max(total - w - round(share * total), 1)),
    ),
    Known(
        "not-shortened",
        "a fall that began during the warmup, so that it jumps down when the warmup ends",
        "If both do not fit into `total`, the fall begins at the first step after the warmup and is shorter.",
        _rule(length=lambda w, total, share: round(share * total)),
    ),
    Known(
        "share-of-the-whole-fall",
        "a shortened fall whose p is a share of the unshortened one, so that it ends with a jump",
        "p is 1 at step `total`: how many updates lie between the beginning of the shortened fall and there?",
        _rule(
            length=lambda w, total, share: round(share * total),
            start=lambda w, total, n: max(total - n, w),
            after=lambda floor: floor,
        ),
    ),
    Known(
        "fall-cuts-the-warmup",
        "a fall that takes over before the warmup is over",
        "If both do not fit into `total`, the fall begins at the first step after the warmup and is shorter.",
        _rule(length=lambda w, total, share: round(share * total), rises=lambda t, w, start: t < min(w, start)),
    ),
    Known(
        "no-plateau",
        "a fall that begins right after the warmup",
        "Between warmup and fall the rate stays at 1.",
        _rule(length=lambda w, total, share: total - w),
    ),
    Known(
        "no-fall",
        "a plateau that ends at the floor, without a fall",
        "How does the rate come down over the last updates?",
        _rule(left=lambda p: float(p < 1)),
    ),
    Known(
        "fall-after-the-plateau",
        "a fall that begins `share * total` updates after the warmup",
        "The fall takes the *last* updates: count back from `total`.",
        _rule(start=lambda w, total, n: w + n),
    ),
    Known(
        "floor-at-the-last",
        "a fall that is at the floor one step early, at the last update",
        _FALL,
        _rule(progress=lambda t, start, n, total: (t - start) / (n - 1)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "one-ahead",
        "a fall one step ahead: (step + 1 - start)",
        _FALL,
        _rule(progress=lambda t, start, n, total: (t + 1 - start) / n),
    ),
    Known(
        "late",
        "a fall that begins one step late",
        _FALL,
        _rule(progress=lambda t, start, n, total: max(t - 1 - start, 0) / n),
    ),
    Known(
        "share-of-the-run",
        "the share of the whole run that is over, not that of the fall",
        _FALL,
        _rule(progress=lambda t, start, n, total: t / total),
    ),
    Known(
        "total-for-fall",
        "a fall that is as slow as if it had `total` updates",
        _FALL,
        _rule(progress=lambda t, start, n, total: (t - start) / total),
    ),
    Known(
        "below-the-floor",
        "a fall that goes on beyond `total`, below the floor",
        "From step `total` on the rate stays at the floor.",
        _rule(last=np.inf),
    ),
    Known("zero-after", "a rate of 0 from step `total` on", "It stays at the floor.", _rule(after=lambda floor: 0.0)),
    Known(
        "full-rate-after",
        "the full rate from step `total` on",
        "It stays at the floor.",
        _rule(after=lambda floor: 1.0),
    ),
    Known("floor-missing", "a fall to 0", _FLOOR, _rule(mix=lambda left, floor: left)),
    Known(
        "floor-as-minimum",
        "a fall to 0 that is cut off at the floor: max(floor, ...)",
        "Here the fall itself ends at the floor.",
        _rule(mix=lambda left, floor: max(left, floor)),
    ),
    Known(
        "floor-added",
        "a floor on top of a fall from 1 to 0, which begins above 1",
        _FLOOR,
        _rule(mix=lambda left, floor: floor + left),
    ),
    Known(
        "floor-not-added",
        "a fall that begins at 1 - floor and ends at 0",
        _FLOOR,
        _rule(mix=lambda left, floor: (1 - floor) * left),
    ),
    Known("linear", "a linear fall, 1 - p", _ROOT, _rule(left=lambda p: 1 - p), OTHER_SPECIFICATION),
    Known("cosine", "half a cosine", _ROOT, _rule(left=half_cosine), OTHER_SPECIFICATION),
    Known("root-of-the-rest", "sqrt(1 - p), which falls slowly at first", _ROOT, _rule(left=lambda p: np.sqrt(1 - p))),
    Known("square", "1 - p squared, which falls slowly at first", _ROOT, _rule(left=lambda p: 1 - p * p)),
    Known(
        "square-of-the-rest", "(1 - p) squared, which falls fast at first", _ROOT, _rule(left=lambda p: (1 - p) ** 2)
    ),
    Known("root-rises", "sqrt(p), which rises", _ROOT, _rule(left=np.sqrt)),
    Known(
        "power-of-the-floor",
        "an exponential fall, floor ** p",
        _ROOT,
        _rule(left=lambda p: p, mix=lambda p, floor: floor**p),
        OTHER_SPECIFICATION,
    ),
)


def _case(step: int, warmup: int, total: int, share: float, floor: float) -> dict[str, Any]:
    return {"step": step, "warmup": warmup, "total": total, "share": share, "floor": floor}


def _along(warmup: int, total: int, share: float, floor: float) -> list[dict[str, Any]]:
    """Every bend of the line, and some places between."""
    n = _nearest(warmup, total, share)
    start = total - n
    steps = {0, warmup // 2, warmup - 1, warmup, (warmup + start) // 2, start - 1, start, start + 1, start + n // 4}
    steps |= {start + n // 2, total - 1, total, total + 1, total + n}
    return [_case(step, warmup, total, share, floor) for step in sorted(steps) if step >= 0]


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    """A share whose number of updates is no tie between two whole numbers."""
    total = int(rng.integers(200, 2000))
    updates = int(rng.integers(total // 10, total // 3)) + float(rng.choice([-0.3, 0.2, 0.4]))
    return _along(int(rng.integers(5, total // 3)), total, updates / total, float(np.round(rng.uniform(0.02, 0.4), 3)))


WARMUP_STABLE_DECAY = Numeric(
    _right,
    [
        *_along(10, 100, 0.2, 0.1),
        *_along(7, 61, 0.31, 0.05),  # 18.91 updates
        *_along(6, 31, 0.17, 0.2),  # 5.27
        *_along(30, 50, 0.6, 0.1),  # 30, of which 20 are left
        *_along(5, 25, 0.1, 0.2),  # 2.5, which round makes 2
        *_along(5, 35, 0.1, 0.2),  # 3.5, which round makes 4
    ],
    _MISTAKES,
    "a number",
    cells=True,
    edges=[
        Edge(_case(0, 0, 40, 0.25, 0.1)),
        Edge(_case(33, 0, 40, 0.25, 0.1)),
        Edge(_case(0, 0, 40, 1.0, 0.0)),
        Edge(_case(10, 0, 40, 1.0, 0.0)),
        Edge(_case(12, 10, 100, 1.0, 0.1)),
        Edge(_case(99, 10, 100, 0.01, 0.1)),
        Edge(_case(95, 10, 100, 0.2, 1.0)),
        Edge(_case(4, 10, 100, 0.2, 1.0), no_warmup),
    ],
    drawn=_drawn,
)
