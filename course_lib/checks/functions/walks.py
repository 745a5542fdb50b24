"""What the exercises share that walk down a gradient: gradients to walk down, and mistakes in writing the walk down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Known, close
from course_lib.checks.report import Finding

Gradient = Callable[[np.ndarray], np.ndarray]
Walk = Callable[..., np.ndarray]  # returns the points visited, the start included, one in a row


def gradient_of(what: str, size: int, formula: Gradient) -> Gradient:
    """``formula`` as a gradient that says so if it is not given a point; ``what`` is told in reports."""

    def gradient(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if x.shape != (size,):
            raise TypeError(f"this gradient takes a point of shape ({size},); it was given an array of shape {x.shape}")
        return formula(x)

    gradient.__doc__ = f"the gradient of {what}"
    return gradient


_TILTED = np.array([[3.0, 2.0], [2.0, 6.0]])
_COUPLED = np.array([[2.0, -0.7, 0.3], [-0.7, 1.0, 0.4], [0.3, 0.4, 0.5]])

BOWL = gradient_of("a tilted bowl", 2, lambda x: _TILTED @ x - np.array([1.0, -2.0]))
QUARTIC = gradient_of("a coupled quartic", 3, lambda x: _COUPLED @ x + 0.4 * x**3)
CENTRED = gradient_of("a tilted bowl around the origin", 2, lambda x: _TILTED @ x)
ROUND = gradient_of("a round bowl around (1, -2)", 2, lambda x: 4 * (x - np.array([1.0, -2.0])))
WAVE = gradient_of("a wave", 1, lambda x: np.sin(x) + 0.1 * x)


def collecting(right: Walk) -> tuple[Known, ...]:
    """The mistakes in which points are returned, and how."""

    def of(change: Callable[[np.ndarray], Any]) -> Walk:
        return lambda **case: change(right(**case))

    return (
        Known(
            "start-missing",
            "a walk without its start",
            "The start is the first of the points visited.",
            of(lambda points: points[1:]),
        ),
        Known(
            "last-missing",
            "a walk that ends one step early",
            "How many steps are there between steps + 1 points?",
            of(lambda points: points[:-1]),
        ),
        Known(
            "start-twice",
            "a walk that writes each point down before it moves: the start comes twice, the end is missing",
            "When is a point written down: before the step, or after it?",
            of(lambda points: np.concatenate([points[:1], points[:-1]])),
        ),
        Known(
            "one-too-many",
            "a walk of one step too many",
            "How many steps are there between steps + 1 points?",
            lambda **case: right(**{**case, "steps": case["steps"] + 1}),
        ),
        Known(
            "last-only",
            "the last point alone",
            "All points are asked for, one in a row.",
            of(lambda points: points[-1]),
        ),
        Known(
            "aliased",
            "a list that holds the last point over and over",
            "If one array is changed in place and appended each time, how many arrays are in the list?",
            of(lambda points: np.tile(points[-1], (len(points), 1))),
        ),
        Known(
            "first-row-empty",
            "a walk whose first row was never filled",
            "Which point belongs into the first row?",
            of(lambda points: np.concatenate([np.zeros_like(points[:1]), points[1:]])),
        ),
        Known(
            "transposed",
            "a walk with its rows and columns exchanged",
            "One point in a row.",
            of(lambda points: points.T),
        ),
        Known(
            "moves",
            "the moves from point to point",
            "The points are asked for, not the moves between them.",
            of(lambda points: np.diff(points, axis=0)),
        ),
    )


def stops_early(got: np.ndarray, want: np.ndarray) -> Finding | None:
    """A finding if the walk is right up to some point and then ends, or stays there."""
    if got.ndim != 2 or got.shape[1:] != want.shape[1:] or not 0 < len(got) <= len(want):
        return None
    same = [close(mine, theirs) for mine, theirs in zip(got, want, strict=False)]
    right = same.index(False) if False in same else len(same)
    if not right or right == len(want) or not (got[right:] == got[right - 1]).all():
        return None
    how = f"ends there, after {len(got)} of {len(want)} rows" if right == len(got) else "stays where it is"
    what = f"Your walk is right for {right - 1} of {len(want) - 1} steps, and then {how}."
    hint = "`steps` steps are asked for. Is a gradient small because the minimum is near, or because f is flat?"
    return Finding("stops-early", what, hint)
