"""The exercise `warmup_cosine`: the multiplier of a linear warmup and half a cosine down to a floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, said
from course_lib.checks.report import OTHER_SPECIFICATION, Finding


def half_cosine(p: float) -> float:
    """From 1 at p = 0 down to 0 at p = 1."""
    return (1 + np.cos(np.pi * p)) / 2


def mixed(left: float, floor: float) -> float:
    """What is left of the rate above the floor, and the floor."""
    return floor + (1 - floor) * left


def _rule(
    rise: Callable[[int, int, float], float] = lambda t, w, floor: (t + 1) / w,
    rises: Callable[[int, int], bool] = lambda t, w: t < w,
    progress: Callable[[int, int, int], float] = lambda t, w, total: (t - w) / (total - w),
    last: float = 1.0,
    left: Callable[[float], float] = half_cosine,
    mix: Callable[[float, float], float] = mixed,
    after: Callable[[float], float] | None = None,
) -> Callable[..., float]:
    """Each argument is one line of the rule; ``after(floor)`` is the value from step ``total`` on, if it is another."""

    def run(step: int, warmup: int, total: int, floor: float) -> float:
        if rises(step, warmup):
            return rise(step, warmup, floor)
        if after is not None and step >= total:
            return after(floor)
        return mix(left(min(progress(step, warmup, total), last)), floor)

    return run


def _product(step: int, warmup: int, total: int, floor: float) -> float:
    """A warmup that multiplies a cosine that began with it."""
    return min(1.0, (step + 1) / warmup) * mixed(half_cosine(min(step / total, 1.0)), floor)


def no_warmup(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """What an answer has missed that takes a floor of 1 for a rate of 1 throughout."""
    if case["step"] >= case["warmup"] or not np.all(got[0] == 1):
        return None
    return Finding(
        "warmup-missing",
        f"With {said(case)}, the result is 1: a floor of 1 has no warmup there.",
        "The floor is where the descent ends. The warmup comes first, whatever the floor.",
    )


_right = _rule()
_FIRST = "The first update is step 0. Which rate has it, and which step is the first at the full rate?"
_LENGTH = (
    "At the first step after the warmup the cosine is at 1, at step `total` at the floor. How many steps lie between?"
)
_FLOOR = "What is the value where the cosine is at its top, and where it is at its bottom?"
_SHAPE = "Half a cosine: put in the share of the descent that is over, 0, 1/2 and 1."
_MISTAKES = (
    Known(
        "warmup-from-zero",
        "a warmup that begins at 0: step / warmup, as Hugging Face has it",
        _FIRST,
        _rule(lambda t, w, floor: t / w),
        OTHER_SPECIFICATION,
    ),
    Known(
        "warmup-one-longer",
        "a warmup of warmup + 1 steps: (step + 1) / (warmup + 1)",
        _FIRST,
        _rule(lambda t, w, floor: (t + 1) / (w + 1)),
    ),
    Known(
        "warmup-above-one",
        "a warmup that goes on at step = warmup, and exceeds 1 there",
        _FIRST,
        _rule(rises=lambda t, w: t <= w),
    ),
    Known(
        "warmup-from-floor",
        "a warmup that begins at the floor",
        "The floor is where the cosine ends. The warmup rises from 1 / warmup.",
        _rule(lambda t, w, floor: mixed((t + 1) / w, floor)),
    ),
    Known(
        "warmup-missing",
        "the full rate during the warmup",
        "What do the steps below `warmup` get?",
        _rule(lambda t, w, floor: 1.0),
    ),
    Known(
        "warmup-times-cosine",
        "a warmup that multiplies a cosine which runs from step 0 on",
        "Here the two follow each other: the cosine begins where the warmup ends.",
        _product,
    ),
    Known(
        "no-warmup",
        "a cosine over the whole run, without a warmup",
        "What do the first `warmup` updates get?",
        _rule(rises=lambda t, w: False, progress=lambda t, w, total: t / total),
    ),
    Known(
        "progress-from-zero",
        "a cosine that runs from step 0 on, so that it begins below 1",
        _LENGTH,
        _rule(progress=lambda t, w, total: t / total),
    ),
    Known(
        "total-without-warmup",
        "a descent of `total` steps after the warmup",
        "`total` counts all updates, the warmup too. " + _LENGTH,
        _rule(progress=lambda t, w, total: (t - w) / total),
    ),
    Known(
        "floor-at-the-last",
        "a descent that is at the floor one step early, at the last update",
        _LENGTH,
        _rule(progress=lambda t, w, total: (t - w) / (total - w - 1)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "one-ahead",
        "a cosine one step ahead: (step + 1 - warmup)",
        _LENGTH,
        _rule(progress=lambda t, w, total: (t + 1 - w) / (total - w)),
    ),
    Known(
        "one-behind",
        "a cosine one step behind: (step - 1 - warmup)",
        _LENGTH,
        _rule(progress=lambda t, w, total: max(t - 1 - w, 0) / (total - w)),
    ),
    Known(
        "whole-division",
        "a share in whole numbers, which is 0 until the end",
        "`//` cuts off what is behind the point.",
        _rule(progress=lambda t, w, total: (t - w) // (total - w)),
    ),
    Known(
        "rises-again",
        "a cosine that goes on beyond `total` and climbs again",
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
    Known("floor-missing", "a descent to 0", _FLOOR, _rule(mix=lambda left, floor: left)),
    Known(
        "floor-as-minimum",
        "a cosine to 0 that is cut off at the floor: max(floor, ...)",
        "Then the last stretch is flat. Here the cosine itself comes down to the floor.",
        _rule(mix=lambda left, floor: max(left, floor)),
    ),
    Known(
        "floor-added",
        "a floor on top of a cosine from 1 to 0, which begins above 1",
        _FLOOR,
        _rule(mix=lambda left, floor: floor + left),
    ),
    Known(
        "floor-not-added",
        "a cosine that begins at 1 - floor and ends at 0",
        _FLOOR,
        _rule(mix=lambda left, floor: (1 - floor) * left),
    ),
    Known(
        "amplitude-halved-twice",
        "an amplitude of (1 - floor) / 2 from a half cosine that is halved already",
        _FLOOR,
        _rule(mix=lambda left, floor: floor + (1 - floor) / 2 * left),
    ),
    Known(
        "cosine-not-lifted",
        "a cosine from 1 to -1 where half of (1 + cosine) is meant",
        _SHAPE,
        _rule(left=lambda p: np.cos(np.pi * p)),
    ),
    Known("quarter", "a quarter of a cosine: cos(pi * p / 2)", _SHAPE, _rule(left=lambda p: np.cos(np.pi * p / 2))),
    Known(
        "whole-period",
        "a whole period, down and up again: cos(2 * pi * p)",
        _SHAPE,
        _rule(left=lambda p: half_cosine(2 * p)),
    ),
    Known("upside-down", "half a cosine that rises: 1 - cos", _SHAPE, _rule(left=lambda p: 1 - half_cosine(p))),
    Known(
        "linear",
        "a straight line from 1 to the floor",
        "The descent is half a cosine.",
        _rule(left=lambda p: 1 - p),
        OTHER_SPECIFICATION,
    ),
    Known(
        "degrees",
        "a cosine of degrees: cos(180 * p)",
        "Which unit does the cosine function of Python take?",
        _rule(left=lambda p: (1 + np.cos(180 * p)) / 2),
    ),
)


def _case(step: int, warmup: int, total: int, floor: float) -> dict[str, Any]:
    return {"step": step, "warmup": warmup, "total": total, "floor": floor}


def _along(warmup: int, total: int, floor: float) -> list[dict[str, Any]]:
    """Every bend of the line, and some places between."""
    rest = total - warmup
    steps = {0, warmup // 2, warmup - 1, warmup, warmup + 1, warmup + rest // 3, total - rest // 4, total - 1}
    return [_case(step, warmup, total, floor) for step in sorted(steps | {total, total + 1, total + rest // 2})]


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    warmup = int(rng.integers(5, 200))
    return _along(warmup, warmup + int(rng.integers(20, 2000)), float(np.round(rng.uniform(0.02, 0.4), 3)))


WARMUP_COSINE = Numeric(
    _right,
    [*_along(10, 100, 0.1), *_along(2, 9, 0.25), *_along(40, 60, 0.03)],
    _MISTAKES,
    "a number",
    cells=True,
    edges=[
        Edge(_case(0, 0, 50, 0.1)),
        Edge(_case(17, 0, 50, 0.1)),
        Edge(_case(0, 1, 20, 0.0)),
        Edge(_case(20, 1, 20, 0.0)),
        Edge(_case(9, 9, 10, 0.2)),
        Edge(_case(30, 10, 100, 1.0)),
        Edge(_case(4, 10, 100, 1.0), no_warmup),
    ],
    drawn=_drawn,
)
