"""The judge of exercises that ask for a number; one module of answers for each notebook."""

from __future__ import annotations

import math
import sys
from typing import Any

from course_lib.checks.numbers import (
    adam,
    adamw,
    adaptive_rates,
    beyond_adam,
    gradient_descent,
    kernels,
    large_batch,
    memory,
    mixed_precision,
    momentum,
    schedules,
    sharding,
    stability,
    why_adam,
)
from course_lib.checks.numbers.common import Answer
from course_lib.checks.report import Finding

_NEAR = 5e-2  # relative: right, but for rounding
_FORMULA = "Write the formula first, then the numbers."

ANSWERS: dict[str, Answer] = {
    **gradient_descent.ANSWERS,
    **momentum.ANSWERS,
    **adaptive_rates.ANSWERS,
    **adam.ANSWERS,
    **adamw.ANSWERS,
    **why_adam.ANSWERS,
    **schedules.ANSWERS,
    **stability.ANSWERS,
    **large_batch.ANSWERS,
    **memory.ANSWERS,
    **mixed_precision.ANSWERS,
    **kernels.ANSWERS,
    **beyond_adam.ANSWERS,
    **sharding.ANSWERS,
}


def judge_number(exercise: str, value: Any) -> list[Finding]:
    """The findings about ``value``, an answer to ``exercise``."""
    answer = ANSWERS[exercise]
    if value is None or value is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Put a number in its place.")]
    value = _plain(value)
    if isinstance(value, (bool, str)):
        return [
            Finding(
                "wrong-type",
                f"The answer is {answer.asked}; this is of type {type(value).__name__}: {value!r}.",
                "Give a plain number, without its unit.",
            )
        ]
    try:
        number = float(value)
    except OverflowError:
        return [Finding("wrong-number", f"A number beyond {sys.float_info.max:.0e} is far too large.", _FORMULA)]
    except (TypeError, ValueError, RuntimeError):
        return [
            Finding(
                "wrong-type",
                f"The answer is {answer.asked}; this is of type {type(value).__name__}.",
                "Give a plain number.",
            )
        ]
    if math.isclose(number, answer.value, rel_tol=answer.tolerance):
        return []
    slip = min(answer.slips, key=lambda slip: 0.0 if number == slip.value else abs(number - slip.value))
    apart = not math.isclose(slip.value, answer.value, rel_tol=_NEAR)
    if math.isclose(number, slip.value, rel_tol=slip.tolerance if apart else answer.tolerance):
        return [Finding(slip.code, f"{number:g}: {slip.what}", slip.hint, slip.kind)]
    if math.isclose(number, -answer.value, rel_tol=answer.tolerance):
        return [
            Finding("sign", f"{number:g}: the size is right, the sign is not.", "Which way is counted as positive?")
        ]
    if not math.isfinite(number):
        return [Finding("wrong-number", f"{number} is not it.", "Where does your code divide by zero, or overflow?")]
    if finding := answer.told(number):
        return [finding]
    if math.isclose(number, answer.value, rel_tol=_NEAR):
        return [
            Finding(
                "not-exact",
                f"{answer.said(number)} is close, but off by {100 * abs(number / answer.value - 1):.2g}%.",
                "Let Python work the formula out instead of typing a rounded number.",
            )
        ]
    return [Finding("wrong-number", f"{answer.said(number)} is {_far(number / answer.value)}.", _FORMULA)]


def _plain(value: Any) -> Any:
    """The number in a tensor or an array of one element; anything else as it is."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def _far(ratio: float) -> str:
    """How far off, in words that do not give the answer away."""
    if ratio < 0:
        return "of the wrong sign, and not of the right size either"
    return f"{'far ' * (not 0.1 < ratio < 10)}too {'large' if ratio > 1 else 'small'}"
