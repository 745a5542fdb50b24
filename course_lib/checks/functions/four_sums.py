"""The exercise `four_sums`: one sum, added up in four ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric
from course_lib.checks.functions.rounding import to_bfloat16


def _sum(term: float, count: int, dtype: type) -> float:
    """The last of ``count`` running sums of ``term``, each of them rounded to ``dtype``."""
    return float(np.add.accumulate(np.full(count, term, dtype), dtype=dtype)[-1]) if count else 0.0


def _once(term: float, count: int) -> float:
    return float(term) * count


def _single(value: float, count: int) -> float:
    return _sum(np.float32(value), count, np.float32)


def _half(value: float, count: int) -> float:
    return _sum(np.float16(value), count, np.float16)


def _mixed(value: float, count: int) -> float:
    return _sum(np.float16(value), count, np.float32)


def _added(add: Callable[[np.floating], np.floating], count: int) -> float:
    """The total after ``count`` times ``add``. A total that stands still does so for good."""
    total = np.float32(0)
    for _ in range(count):
        before, total = total, add(total)
        if total == before:
            break
    return float(total)


def _halved_each_time(value: float, count: int) -> float:
    """A float16 total to which a float32 term is added, in float32, before the total is rounded again."""
    term = np.float32(value)
    return _added(lambda total: np.float32(np.float16(total + term)), count)


def _double_term(value: float, count: int) -> float:
    """A float32 total to which the value is added in float64, before the total is rounded again."""
    return _added(lambda total: np.float32(np.float64(total) + value), count)


def _brain(value: float, count: int) -> float:
    term = to_bfloat16(value)
    return _added(lambda total: to_bfloat16(total + term), count)


def _four_sums(value: float, count: int) -> tuple[float, ...]:
    return _single(value, count), _half(value, count), _mixed(value, count), _mixed(value, count)


def _each(change: Callable[[float, float, int], float]) -> Callable[..., tuple[float, ...]]:
    """The right sums, each changed: ``change(sum, value, count)``."""
    return lambda value, count: tuple(change(right, value, count) for right in _four_sums(value, count))


_SUMS_MISTAKES = (
    Known(
        "rounded-at-the-end",
        "a total in float32 that is rounded to float16 at the end",
        "A float16 total is rounded at every addition. Of which type is it inside your loop?",
        lambda value, count: (None, np.float16(_mixed(value, count)), None, None),
    ),
    Known(
        "mixed-rounded-at-the-end",
        "a float32 total that is rounded to float16 at the end",
        "In the third and the fourth the total is float32, also when you return it.",
        lambda value, count: (None, None, *2 * (np.float16(_mixed(value, count)),)),
    ),
    Known(
        "rounded-once",
        "totals that are rounded only once, at the end: totals in float64 that are cast, products, or np.sum, which adds "
        "in pairs",
        "Add one term after the other, and round the total after every addition. Of which type is it inside your loop?",
        lambda value, count: (
            np.float32(_once(np.float32(value), count)),
            np.float16(_once(np.float16(value), count)),
            *2 * (np.float32(_once(np.float16(value), count)),),
        ),
    ),
    Known(
        "float64-product",
        "a product in float64: nothing is rounded anywhere",
        "Add one term after the other, in the types that are named.",
        lambda value, count: 4 * (_once(value, count),),
    ),
    Known(
        "float64-totals",
        "totals in float64: the terms are rounded, the totals are not",
        "Of which type is the total after an addition? Print `total.dtype`.",
        lambda value, count: (_once(np.float32(value), count), *3 * (_once(np.float16(value), count),)),
    ),
    Known(
        "term-not-rounded",
        "a term that never was a float16",
        "The term is rounded to float16 first; converting it back does not undo that. (In NumPy a float16 total plus a "
        "float32 term is a float32, too.)",
        lambda value, count: (None, None, *2 * (_single(value, count),)),
    ),
    Known(
        "float32-throughout",
        "float32 totals of float32 terms",
        "Which of total and term is float16 in the second, and which in the third?",
        lambda value, count: (None, *3 * (_single(value, count),)),
    ),
    Known(
        "float16-throughout",
        "float16 totals",
        "Only the second total is float16. Of which type is yours after an addition? Print `total.dtype`.",
        lambda value, count: (_half(value, count), None, *2 * (_half(value, count),)),
    ),
    Known(
        "float16-terms-in-the-first",
        "a float32 total of float16 terms",
        "In the first sum, total and term are float32.",
        lambda value, count: (_mixed(value, count), None, None, None),
    ),
    Known(
        "float16-terms-only",
        "a total of float16 terms that is not itself a float16",
        "In the second sum the total is float16, too, after every addition.",
        lambda value, count: (None, _mixed(value, count), None, None),
    ),
    Known(
        "float32-terms-in-the-second",
        "a float16 total of float32 terms",
        "In the second sum the term is float16, too: round the value before the loop.",
        lambda value, count: (None, _halved_each_time(value, count), None, None),
    ),
    Known(
        "types-exchanged",
        "a float16 total of float32 terms",
        "(total, term): in the third and the fourth, the total is float32.",
        lambda value, count: (None, None, *2 * (_halved_each_time(value, count),)),
    ),
    Known(
        "float64-term",
        "a float32 total of float64 terms",
        "In the first sum the term is float32, too: round the value before the loop.",
        lambda value, count: (_double_term(value, count), None, None, None),
    ),
    Known(
        "first-rounded-at-the-end",
        "the sum in float32, rounded to float16",
        "Nothing in the first is float16.",
        lambda value, count: (np.float16(_single(value, count)), None, None, None),
    ),
    Known(
        "bfloat16",
        "bfloat16, not float16",
        "fp16 is `np.float16` (`torch.float16`): 10 bits behind the point, and the fewer exponents.",
        lambda value, count: (None, _brain(value, count), *2 * (_sum(to_bfloat16(value), count, np.float32),)),
    ),
    Known(
        "first-two-exchanged",
        "the two exchanged: float16 in the first, float32 in the second",
        "(fp32, fp32) comes first.",
        lambda value, count: (_half(value, count), _single(value, count), None, None),
    ),
    Known(
        "second-and-third-exchanged",
        "the two exchanged: the float32 total of float16 terms in the second place, the float16 total in the third",
        "(fp16, fp16) comes second, (fp32, fp16) third.",
        lambda value, count: (None, _mixed(value, count), _half(value, count), None),
    ),
    Known(
        "one-too-many",
        "count + 1 additions",
        "Does your total start at 0, or at the value?",
        lambda value, count: _four_sums(value, count + 1),
    ),
    Known(
        "one-too-few",
        "count - 1 additions",
        "How often does your loop run?",
        lambda value, count: _four_sums(value, max(count - 1, 0)),
    ),
    Known(
        "one-addition",
        "a single addition",
        "Does the next addition start from the last total?",
        lambda value, count: _four_sums(value, min(count, 1)),
    ),
    Known("means", "the mean of the terms", "The sum is asked for.", _each(lambda s, v, n: s / n if n else np.nan)),
    Known(
        "errors",
        "the errors: total less value times count",
        "The totals themselves are asked for.",
        _each(lambda s, v, n: s - v * n),
    ),
    Known(
        "errors-turned",
        "the errors: value times count less total",
        "The totals themselves are asked for.",
        _each(lambda s, v, n: v * n - s),
    ),
    Known("negated", "sums with the sign turned", "Add; do not subtract.", _each(lambda s, v, n: -s)),
    Known("sizes", "sums without their sign", "A negative value is allowed.", _each(lambda s, v, n: abs(s))),
    Known(
        "whole-numbers",
        "a value cut to a whole number",
        "Is your value an int? Give the dtype where you make it.",
        lambda value, count: _four_sums(int(value), count),
    ),
)
# fp16 stalls at 256 and at 2048; whether the term of 0.009 is rounded shows in the total; 1e-8 is zero in fp16, 3e-5
# subnormal, 7e4 beyond its largest number. The last value is a float16 but for 2^-28, which float32 rounds away: from
# 2^24 / 1229 additions on, every sum of it and a float32 total is a tie, which a product or a float64 does not see.
_SUMS_CASES = [
    {"value": value, "count": count}
    for value, count in (
        *((0.01, 1000), (0.1, 4000), (0.009, 33), (1e-8, 300), (1.0, 3000), (-0.3, 700)),
        *((3e-5, 900), (7e4, 3), (0.7, 1), (-2.7, 50), (1229 * 2.0**-12 + 2.0**-28, 30_000)),
    )
]
_SUMS_EDGES = [Edge({"value": 0.1, "count": 0})]

judge_four_sums = Numeric(
    _four_sums,
    _SUMS_CASES,
    _SUMS_MISTAKES,
    "four floats",
    ("fp32", "fp16", "fp32 with fp16 terms", "fp32 with converted terms"),
    edges=_SUMS_EDGES,
    few_bits=True,
)
