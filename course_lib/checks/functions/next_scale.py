"""The exercise `next_scale`: how a loss scaler's scale and its count of clean steps change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding


def _next(
    grown: Callable[..., float] = lambda scale, growth, backoff: scale * growth,
    backed: Callable[..., float] = lambda scale, growth, backoff: scale * backoff,
    after_growth: Callable[[int], int] = lambda clean: 0,
    after_overflow: Callable[[int], int] = lambda clean: 0,
    due: Callable[[int, int], bool] = lambda clean, interval: clean + 1 >= interval,
    otherwise: Callable[[int, int], int] = lambda clean, interval: clean + 1,
    found: Callable[[bool], bool] = lambda inf: inf,
    final: Callable[[float], float] = lambda scale: scale,
) -> Callable[..., tuple[float, int]]:
    """Each argument is one line of the rule; ``clean`` is the number of clean steps before this one."""

    def rule(
        scale: float,
        clean_steps: int,
        found_inf: bool,
        growth_factor: float,
        backoff_factor: float,
        growth_interval: int,
    ) -> tuple[float, int]:
        if found(found_inf):
            return final(backed(scale, growth_factor, backoff_factor)), after_overflow(clean_steps)
        if due(clean_steps, growth_interval):
            return final(grown(scale, growth_factor, backoff_factor)), after_growth(clean_steps)
        return final(scale), otherwise(clean_steps, growth_interval)

    return rule


_right_next = _next()


def _half(scale: float) -> float:
    return float(np.float16(scale))


def _count_first(**case: Any) -> tuple[float, int]:
    """The clean step is counted, and the growth made, before anyone asks for an overflow."""
    scale, clean = _right_next(**case | {"found_inf": False})
    return (scale * case["backoff_factor"], 0) if case["found_inf"] else (scale, clean)


def _growth_first(**case: Any) -> tuple[float, int]:
    """A growth that is due is made, and nobody asks for an overflow any more."""
    due = case["clean_steps"] + 1 >= case["growth_interval"]
    return _right_next(**case | {"found_inf": case["found_inf"] and not due})


def _both_in_turn(**case: Any) -> tuple[float, int]:
    """The scale backs off after an overflow, and the step is then counted as any other."""
    scale = case["scale"] * (case["backoff_factor"] if case["found_inf"] else 1)
    return _right_next(**case | {"scale": scale, "found_inf": False})


_NEXT_MISTAKES = (
    Known(
        "count-survives-overflow",
        "a count of clean steps that goes on after an overflow",
        "The interval counts steps in a row. What does an overflow do to the row?",
        _next(after_overflow=lambda clean: clean),
    ),
    Known(
        "overflow-counted",
        "an overflow that counts as a clean step",
        "Which steps are clean?",
        _next(after_overflow=lambda clean: clean + 1),
    ),
    Known(
        "one-after-overflow",
        "a count that is 1 after an overflow",
        "Is the step that overflowed a clean one?",
        _next(after_overflow=lambda clean: 1),
    ),
    Known(
        "one-back-after-overflow",
        "a count that goes one back at an overflow",
        "The row of clean steps starts anew.",
        _next(after_overflow=lambda clean: clean - 1),
    ),
    Known(
        "count-survives-growth",
        "a count that goes on after the scale has grown",
        "After the growth the next interval begins. With this count, when does the scale grow again?",
        _next(after_growth=lambda clean: clean + 1),
    ),
    Known(
        "one-after-growth",
        "a count that is 1 after the scale has grown",
        "The step that brought the growth belongs to the interval that is over.",
        _next(after_growth=lambda clean: 1),
    ),
    Known(
        "grows-late",
        "a scale that grows one step late",
        "The step just made is a clean one, too: is it counted before you compare?",
        _next(due=lambda clean, interval: clean + 1 > interval),
    ),
    Known(
        "grows-early",
        "a scale that grows one step early",
        "How many clean steps are there with the one just made?",
        _next(due=lambda clean, interval: clean + 2 >= interval),
    ),
    Known(
        "grows-always",
        "a scale that grows at every clean step",
        "What is growth_interval for?",
        _next(due=lambda clean, interval: True, after_growth=lambda clean: clean + 1),
    ),
    Known(
        "grows-always-count-0",
        "a scale that grows at every clean step, with a count that never leaves 0",
        "What is growth_interval for?",
        _next(due=lambda clean, interval: True),
    ),
    Known(
        "clean-step-not-counted",
        "a clean step that leaves the count as it is",
        "With which clean_steps is the function called after this step?",
        _next(otherwise=lambda clean, interval: clean),
    ),
    Known(
        "overflow-ignored",
        "an overflow taken for a clean step: found_inf changes nothing",
        "found_inf is a bool. What does your code compare it with?",
        _next(found=lambda inf: False),
    ),
    Known(
        "growth-before-overflow",
        "a growth that is made when it is due, overflow or not",
        "A step that overflowed is no clean step: ask for found_inf first.",
        _growth_first,
    ),
    Known(
        "overflow-backs-off-and-counts",
        "an overflow that makes the scale smaller and is then counted as a clean step",
        "After an overflow, what is left to do but to return?",
        _both_in_turn,
    ),
    Known(
        "interval-of-the-default",
        "an interval of 2000, whatever is given",
        "growth_interval is an argument.",
        _next(due=lambda clean, interval: clean + 1 >= 2000),
    ),
    Known(
        "factors-of-the-default",
        "factors of 2 and 0.5, whatever is given",
        "growth_factor and backoff_factor are arguments.",
        _next(lambda s, g, b: 2 * s, lambda s, g, b: s / 2),
    ),
    Known(
        "growth-of-the-default",
        "a growth by 2, whatever is given",
        "growth_factor is an argument.",
        _next(lambda s, g, b: 2 * s),
    ),
    Known(
        "backoff-of-the-default",
        "a backoff by 0.5, whatever is given",
        "backoff_factor is an argument.",
        _next(backed=lambda s, g, b: s / 2),
    ),
    Known(
        "all-of-the-default",
        "an interval of 2000 and factors of 2 and 0.5, whatever is given",
        "They are arguments.",
        _next(lambda s, g, b: 2 * s, lambda s, g, b: s / 2, due=lambda clean, interval: clean + 1 >= 2000),
    ),
    Known(
        "factors-exchanged",
        "factors that are exchanged: an overflow raises the scale",
        "After an overflow, should the loss be multiplied by more or by less?",
        _next(lambda s, g, b: s * b, lambda s, g, b: s * g),
    ),
    Known(
        "overflow-exchanged",
        "found_inf the wrong way round",
        "found_inf is True where a gradient was infinite or NaN.",
        _next(found=lambda inf: not inf),
    ),
    Known(
        "backoff-divides",
        "a scale divided by backoff_factor at an overflow",
        "backoff_factor lies below 1. Is the scale smaller afterwards?",
        _next(backed=lambda s, g, b: s / b),
    ),
    Known(
        "backoff-by-growth",
        "a scale divided by growth_factor at an overflow",
        "backoff_factor is an argument of its own.",
        _next(backed=lambda s, g, b: s / g),
    ),
    Known(
        "backoff-complement",
        "a scale multiplied by 1 - backoff_factor at an overflow",
        "backoff_factor is what the scale is multiplied by.",
        _next(backed=lambda s, g, b: s * (1 - b)),
    ),
    Known(
        "backoff-missing",
        "a scale that an overflow leaves as it is",
        "If the next step has gradients of the same size, does it overflow again?",
        _next(backed=lambda s, g, b: s),
    ),
    Known(
        "starts-over",
        "a scale of 65536 after an overflow",
        "That is where GradScaler starts. What becomes of its scale at an overflow?",
        _next(backed=lambda s, g, b: 65536.0),
    ),
    Known(
        "growth-missing",
        "a scale that never grows",
        "What happens when growth_interval clean steps in a row are complete?",
        _next(lambda s, g, b: s),
    ),
    Known(
        "growth-divides",
        "a scale divided by growth_factor when the interval is complete",
        "growth_factor lies above 1. Is the scale larger afterwards?",
        _next(lambda s, g, b: s / g),
    ),
    Known(
        "growth-added",
        "growth_factor added to the scale",
        "A factor multiplies.",
        _next(lambda s, g, b: s + g),
    ),
    Known(
        "growth-by-backoff",
        "a scale divided by backoff_factor when the interval is complete",
        "growth_factor is an argument of its own.",
        _next(lambda s, g, b: s / b),
    ),
    Known(
        "counts-before-the-overflow",
        "a step that is counted, and may raise the scale, before the overflow is looked at",
        "A step that overflowed is no clean step: ask for found_inf first.",
        _count_first,
    ),
    Known(
        "whole-numbers",
        "a scale cut to a whole number",
        "A scale may fall below 1: keep it a float.",
        _next(final=lambda s: int(s)),
    ),
    Known(
        "floor-of-one",
        "a scale that never falls below 1, as in DeepSpeed by default",
        "torch.amp.GradScaler has no such floor.",
        _next(backed=lambda s, g, b: max(s * b, 1.0)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "ceiling",
        "a scale that does not grow beyond 2^24, as in Apex",
        "torch.amp.GradScaler has no such ceiling.",
        _next(lambda s, g, b: min(s * g, 2.0**24)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "ceiling-at-the-start",
        "a scale that does not grow beyond 65536",
        "65536 is where GradScaler starts; it may grow beyond.",
        _next(lambda s, g, b: min(s * g, 65536.0)),
    ),
    Known(
        "ceiling-of-float16",
        "a scale that does not grow beyond 65504, the largest number of float16",
        "Only the gradients are float16: the scale is a float32. Which is the largest number there?",
        _next(lambda s, g, b: s * g if s * g <= 65504 else s),
    ),
    Known(
        "float16",
        "a scale kept in float16",
        "65504 is the largest number of float16, and GradScaler starts at 65536. In which format is the scale?",
        _next(final=_half),
    ),
    Known(
        "float16-after-overflow",
        "a scale rounded to float16 after an overflow",
        "The scale is a float32: 2^19, say, is no number of float16.",
        _next(backed=lambda s, g, b: _half(s * b)),
    ),
    Known(
        "count-missing",
        "a count of clean steps that never changes",
        "Return the count that the next call is to be given.",
        _next(after_growth=lambda c: c, after_overflow=lambda c: c, otherwise=lambda c, interval: c),
    ),
    Known(
        "count-down",
        "a count of the steps that are left until the growth",
        "clean_steps counts up, from 0.",
        _next(otherwise=lambda clean, interval: interval - clean - 1),
    ),
    Known(
        "results-exchanged",
        "the two results exchanged",
        "First the scale, then the count.",
        lambda **case: _right_next(**case)[::-1],
    ),
)


def _scaler_case(scale: float, clean: int, inf: bool, growth: float, backoff: float, interval: int) -> dict[str, Any]:
    names = ("scale", "clean_steps", "found_inf", "growth_factor", "backoff_factor", "growth_interval")
    return dict(zip(names, (scale, clean, inf, growth, backoff, interval), strict=True))


_NEXT_CASES = [
    _scaler_case(*case)
    for case in (
        (65536.0, 0, False, 2.0, 0.5, 2000),
        (65536.0, 1998, False, 2.0, 0.5, 2000),
        (65536.0, 1999, False, 2.0, 0.5, 2000),
        (65536.0, 1999, True, 2.0, 0.5, 2000),
        (1024.0, 7, True, 3.0, 0.75, 10),
        (1024.0, 9, False, 3.0, 0.75, 10),
        (1024.0, 9, True, 3.0, 0.75, 10),
        (1024.0, 5, False, 3.0, 0.75, 10),
        (0.75, 2, True, 1.5, 0.25, 4),
        (0.75, 3, False, 1.5, 0.25, 4),
        (2.0**30, 3, False, 2.0, 0.5, 5),
        (2.0**30, 4, False, 2.0, 0.5, 5),
        (8.0, 0, False, 4.0, 0.125, 1),
        (8.0, 0, True, 4.0, 0.125, 1),
        (2.0**20, 3, True, 2.0, 0.5, 5),
    )
]


_LARGEST = float(np.finfo(np.float32).max)


def _grows_beyond(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    scale, clean = (float(part.reshape(())) if part.size == 1 else np.nan for part in got)
    start = f"A scale of 2^{int(np.log2(case['scale']))} that is to grow by {case['growth_factor']:g}"
    if not scale <= _LARGEST:
        return Finding(
            "scale-infinite",
            f"{start} leaves the range of float32, and every gradient with it: got {scale:.9g}.",
            "Where the new scale would not be finite in float32, keep the old one; the count starts anew all the same.",
        )
    if scale != case["scale"]:
        return Finding(
            "changed-at-the-limit",
            f"{start} would leave the range of float32; it becomes {scale:.9g} instead of staying as it is.",
            "A growth that cannot be made is not made in part either.",
        )
    if clean:
        return Finding(
            "count-at-the-limit",
            f"{start} would leave the range of float32 and stays as it is, but the count goes on: {clean:g} instead of 0.",
            "The interval is over, whether the scale could grow or not.",
        )
    return None


def _stays_below(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].size != 1 or got[0] != case["scale"]:
        return None
    return Finding(
        "limit-too-low",
        f"A scale of 2^{int(np.log2(case['scale']))} that is to grow by {case['growth_factor']:g} stays as it is, though "
        f"{want[0]:.3g} is in the range of float32.",
        "`np.finfo(np.float32).max` is almost 2^128. Is it the scale times growth_factor that you compare with it?",
    )


_NEXT_EDGES = [
    Edge(_scaler_case(2.0**127, 4, False, 2.0, 0.5, 5), _grows_beyond),
    Edge(_scaler_case(2.0**126, 4, False, 4.0, 0.5, 5), _grows_beyond),
    Edge(_scaler_case(2.0**126, 4, False, 2.0, 0.5, 5), _stays_below),
    Edge(_scaler_case(2.0**127, 4, False, 1.5, 0.5, 5), _stays_below),
]


def _next_scale(**case: Any) -> tuple[float, int]:
    scale, clean = _right_next(**case)
    return (scale if scale <= _LARGEST else case["scale"]), clean


judge_next_scale = Numeric(
    _next_scale,
    _NEXT_CASES,
    _NEXT_MISTAKES,
    "two numbers, the scale and the count of clean steps",
    ("scale", "clean_steps"),
    edges=_NEXT_EDGES,
)
