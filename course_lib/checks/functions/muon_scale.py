"""The exercise of notebook 14 that asks for the factor of Muon's learning rate for a matrix."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from course_lib.checks.functions.common import Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION

ORIGINAL, MATCHED = MODES = "original", "match_rms_adamw"
Factor = Callable[[int, int], float]


def _scale(
    original: Factor = lambda rows, columns: sqrt(max(1, rows / columns)),
    matched: Factor = lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
) -> Callable[..., float]:
    return lambda rows, columns, mode: (original if mode == ORIGINAL else matched)(rows, columns)


_right = _scale()
_FIRST = (
    "Linear weights are (outputs, inputs): more rows than columns means more outputs than inputs. Which of the two "
    "should take a longer step?"
)
_SECOND = "O has min(rows, columns) singular values of 1. What is its Frobenius norm, and so its root mean square?"
_MISTAKES = (
    Known(
        "modes-swapped",
        "the two modes exchanged",
        "What do the names say?",
        lambda rows, columns, mode: _right(rows, columns, MODES[mode == ORIGINAL]),
    ),
    Known(
        "always-original",
        "the mode `original`, whatever is asked for",
        "mode is an argument.",
        lambda rows, columns, mode: _right(rows, columns, ORIGINAL),
    ),
    Known(
        "always-matched",
        "the mode `match_rms_adamw`, whatever is asked for",
        "mode is an argument.",
        lambda rows, columns, mode: _right(rows, columns, MATCHED),
    ),
    Known(
        "no-scale",
        "a factor of 1",
        "What is the root mean square of O, for a small and for a large matrix?",
        lambda rows, columns, mode: 1,
    ),
    Known(
        "original-root-missing",
        "max(1, rows / columns) without its root",
        "How does the norm of O grow with its smaller side?",
        _scale(lambda rows, columns: max(1, rows / columns)),
    ),
    Known(
        "original-sides-swapped",
        "sqrt(max(1, columns / rows))",
        _FIRST,
        _scale(lambda rows, columns: sqrt(max(1, columns / rows))),
    ),
    Known(
        "original-without-floor",
        "sqrt(rows / columns) without the floor of 1: the factor of the spectral norm's theory",
        "What does the exercise say of wide matrices?",
        _scale(lambda rows, columns: sqrt(rows / columns)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "original-ceiling",
        "sqrt(min(1, rows / columns))",
        _FIRST,
        _scale(lambda rows, columns: sqrt(min(1, rows / columns))),
    ),
    Known(
        "original-of-sides",
        "sqrt(max(rows, columns) / min(rows, columns))",
        _FIRST,
        _scale(lambda rows, columns: sqrt(max(rows, columns) / min(rows, columns))),
    ),
    Known(
        "original-floor-outside",
        "max(1, rows // columns) under the root: whole numbers",
        "`//` cuts off what is left over.",
        _scale(lambda rows, columns: sqrt(max(1, rows // columns))),
    ),
    Known("original-of-rows", "sqrt(rows)", "A ratio of the sides.", _scale(lambda rows, columns: sqrt(rows))),
    Known(
        "original-divides",
        "1 / sqrt(max(1, rows / columns))",
        "Is the learning rate multiplied by the factor, or divided?",
        _scale(lambda rows, columns: 1 / sqrt(max(1, rows / columns))),
    ),
    Known(
        "matched-root-missing",
        "0.2 max(rows, columns) without its root",
        _SECOND,
        _scale(matched=lambda rows, columns: 0.2 * max(rows, columns)),
    ),
    Known(
        "matched-factor-missing",
        "sqrt(max(rows, columns)) without 0.2: a root mean square of 1, as Lion's",
        "To which root mean square is it to be brought?",
        _scale(matched=lambda rows, columns: sqrt(max(rows, columns))),
    ),
    Known(
        "matched-factor-inside",
        "0.2 under the root",
        "What is multiplied by 0.2: the root mean square, or its square?",
        _scale(matched=lambda rows, columns: sqrt(0.2 * max(rows, columns))),
    ),
    Known(
        "matched-smaller-side",
        "0.2 sqrt(min(rows, columns))",
        _SECOND,
        _scale(matched=lambda rows, columns: 0.2 * sqrt(min(rows, columns))),
    ),
    Known(
        "matched-elements",
        "0.2 sqrt(rows * columns): O taken for a matrix of Frobenius norm 1",
        _SECOND,
        _scale(matched=lambda rows, columns: 0.2 * sqrt(rows * columns)),
    ),
    Known("matched-rows", "0.2 sqrt(rows)", _SECOND, _scale(matched=lambda rows, columns: 0.2 * sqrt(rows))),
    Known("matched-columns", "0.2 sqrt(columns)", _SECOND, _scale(matched=lambda rows, columns: 0.2 * sqrt(columns))),
    Known(
        "matched-sum",
        "0.2 sqrt(rows + columns)",
        _SECOND,
        _scale(matched=lambda rows, columns: 0.2 * sqrt(rows + columns)),
    ),
    Known(
        "matched-ratio",
        "0.2 times the mode `original`",
        _SECOND,
        _scale(matched=lambda rows, columns: 0.2 * sqrt(max(1, rows / columns))),
    ),
    Known(
        "matched-divides",
        "0.2 / sqrt(max(rows, columns)): the root mean square itself",
        "By what must O be multiplied to have 0.2?",
        _scale(matched=lambda rows, columns: 0.2 / sqrt(max(rows, columns))),
    ),
    Known(
        "matched-squared",
        "0.04 sqrt(max(rows, columns))",
        "To which root mean square is it to be brought?",
        _scale(matched=lambda rows, columns: 0.04 * sqrt(max(rows, columns))),
    ),
)


def _cases(rows: int, columns: int) -> list[dict[str, Any]]:
    return [{"rows": rows, "columns": columns, "mode": mode} for mode in MODES]


judge_muon_scale = Numeric(
    _right,
    [
        *_cases(768, 768),
        *_cases(3072, 768),
        *_cases(768, 3072),
        *_cases(7, 3),
        *_cases(50, 49),
        *_cases(49, 50),
        *_cases(1, 9),
    ],
    _MISTAKES,
    "a number",
    cells=True,
    drawn=lambda rng: [case for _ in range(3) for case in _cases(*map(int, rng.integers(2, 20_000, 2)))],
)
