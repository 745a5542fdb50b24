"""The exercise of notebook 13 on Adafactor's second moment: one row of averages and one column stand for the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Means = tuple[np.ndarray, np.ndarray]  # of rows (n, 1) and of columns (1, m)
Fold = Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]


def _average(old: np.ndarray, new: np.ndarray, beta2: float, t: int) -> np.ndarray:
    return beta2 * old + (1 - beta2) * new


def _rebuilt(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """R C / mean(R), in an order that small numbers survive; zeros for zeros."""
    mean = row.mean()
    return row / (mean if mean else 1.0) * column


def _means(square: np.ndarray) -> Means:
    return square.mean(axis=1, keepdims=True), square.mean(axis=0, keepdims=True)


def _factored(
    rebuilt: Callable[[np.ndarray, np.ndarray], np.ndarray] = _rebuilt,
    fold: Fold = _average,
    means: Callable[[np.ndarray], Means] = lambda g: _means(g**2),
    corrected: Callable[[np.ndarray, float, int], np.ndarray] = lambda x, beta2, t: x / (1 - beta2**t),
) -> Callable[..., np.ndarray]:
    """``factored_moment`` with another last line, average, statistic or correction."""

    def run(gradients: np.ndarray, beta2: float) -> np.ndarray:
        row, column = np.zeros((gradients.shape[1], 1)), np.zeros((1, gradients.shape[2]))
        for t, g in enumerate(gradients, start=1):
            r, c = means(g)
            row, column = fold(row, r, beta2, t), fold(column, c, beta2, t)
        t = len(gradients)
        return rebuilt(corrected(row, beta2, t), corrected(column, beta2, t))

    return run


def _whole(gradients: np.ndarray, beta2: float) -> np.ndarray:
    v = np.zeros(gradients.shape[1:])
    for g in gradients:
        v = beta2 * v + (1 - beta2) * g**2
    return v / (1 - beta2 ** len(gradients))


def _each_then_averaged(gradients: np.ndarray, beta2: float) -> np.ndarray:
    v = np.zeros(gradients.shape[1:])
    for g in gradients:
        v = beta2 * v + (1 - beta2) * _rebuilt(*_means(g**2))
    return v / (1 - beta2 ** len(gradients))


def _corrected_each_step(gradients: np.ndarray, beta2: float) -> np.ndarray:
    """The corrected averages are what the next step averages."""
    row, column = np.zeros((gradients.shape[1], 1)), np.zeros((1, gradients.shape[2]))
    for t, g in enumerate(gradients, start=1):
        r, c = _means(g**2)
        row = (beta2 * row + (1 - beta2) * r) / (1 - beta2**t)
        column = (beta2 * column + (1 - beta2) * c) / (1 - beta2**t)
    return _rebuilt(row, column)


def _after(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda gradients, beta2: change(_right(gradients, beta2))


def _rising(old: np.ndarray, new: np.ndarray, beta2: float, t: int) -> np.ndarray:
    return (1 - t**-0.8) * old + t**-0.8 * new


_right = _factored()
_AXES = "R has an entry for each row: over which axis is its mean taken?"
_SCALE = "If all squares were 4, what should every entry of the result be?"
_AVERAGE = "If every square were 1, what would R be after t steps, and what should it be?"
_MISTAKES = (
    Known("division-missing", "R C without the division by mean(R)", _SCALE, _factored(lambda r, c: r * c)),
    Known(
        "divided-by-sum", "a division by the sum of R, not by its mean", _SCALE, _factored(lambda r, c: r * c / r.sum())
    ),
    Known("divided-by-sum-of-columns", "a division by the sum of C", _SCALE, _factored(lambda r, c: r * c / c.sum())),
    Known(
        "divided-by-largest", "a division by the largest entry of R", _SCALE, _factored(lambda r, c: r * c / r.max())
    ),
    Known(
        "divided-by-product",
        "a division by mean(R) mean(C): both were normalised",
        "Once is enough: which of the two keeps its scale?",
        _factored(lambda r, c: r * c / (r.mean() * c.mean())),
    ),
    Known(
        "geometric-mean",
        "sqrt(R C): the root of the product in the place of the division",
        "That has the right units. Does it have the right row means?",
        _factored(lambda r, c: np.sqrt(r * c)),
    ),
    Known("arithmetic-mean", "(R + C) / 2", "A matrix of rank one is a product.", _factored(lambda r, c: (r + c) / 2)),
    Known(
        "rows-only",
        "R in every column: C is not used",
        "What does C know that R does not?",
        _factored(lambda r, c: r + 0 * c),
    ),
    Known(
        "columns-only",
        "C in every row: R is not used",
        "What does R know that C does not?",
        _factored(lambda r, c: 0 * r + c),
    ),
    Known(
        "one-number",
        "one number for all: mean(R)",
        "What do R and C know besides their mean?",
        _factored(lambda r, c: np.full((len(r), c.size), r.mean())),
    ),
    Known(
        "transposed", "the transpose: rows and columns are exchanged", _AXES, _factored(lambda r, c: _rebuilt(r, c).T)
    ),
    Known("root-taken", "the root of the second moment", "The second moment itself is asked for.", _after(np.sqrt)),
    Known(
        "inverse-root",
        "1 / sqrt of the second moment, by which an update is multiplied",
        "The second moment itself is asked for.",
        _after(lambda v: 1 / np.sqrt(v)),
    ),
    Known(
        "not-factored", "Adam's whole second moment, every element for itself", "Only n + m numbers are kept.", _whole
    ),
    Known(
        "factored-each-step",
        "an average of the matrices R C / mean(R) of single steps",
        "R and C are averaged over time, not what is made of them.",
        _each_then_averaged,
    ),
    Known(
        "last-only",
        "the last gradient alone",
        "R and C are averages over all steps.",
        lambda gradients, beta2: _right(gradients[-1:], beta2),
    ),
    Known(
        "plain-mean",
        "the mean over all steps, every gradient weighing the same",
        "What does beta2 do?",
        lambda gradients, beta2: _rebuilt(*_means((gradients**2).mean(axis=0))),
    ),
    Known("not-corrected", "averages without bias correction", _AVERAGE, _factored(corrected=lambda x, beta2, t: x)),
    Known(
        "corrected-twice",
        "a correction too many: R and C are corrected, and what they are divided by is not (or the result once more)",
        "R, C and mean(R): how many factors 1 - beta2^T are left in R C / mean(R)?",
        lambda gradients, beta2: _right(gradients, beta2) / (1 - beta2 ** len(gradients)),
    ),
    Known(
        "correction-one-late",
        "a correction by 1 - beta2^(T + 1)",
        "How many gradients have gone into R?",
        _factored(corrected=lambda x, beta2, t: x / (1 - beta2 ** (t + 1))),
    ),
    Known(
        "correction-power-outside",
        "a correction by (1 - beta2)^T",
        "To what does the power apply?",
        _factored(corrected=lambda x, beta2, t: x / (1 - beta2) ** t),
    ),
    Known(
        "correction-one-step",
        "a correction by 1 - beta2, whatever T",
        "How many gradients have gone into R?",
        _factored(corrected=lambda x, beta2, t: x / (1 - beta2)),
    ),
    Known(
        "correction-multiplies",
        "averages multiplied by 1 - beta2^T",
        _AVERAGE,
        _factored(corrected=lambda x, beta2, t: x * (1 - beta2**t)),
    ),
    Known(
        "correction-kept",
        "corrected averages that are averaged on",
        "What is averaged at the next step: R, or R corrected?",
        _corrected_each_step,
    ),
    Known(
        "gain-missing",
        "averages without (1 - beta2): `R = beta2 * R + ...`",
        _AVERAGE,
        _factored(fold=lambda old, new, beta2, t: beta2 * old + new),
    ),
    Known(
        "weights-swapped",
        "averages with their weights exchanged: `(1 - beta2) * R + beta2 * ...`",
        "Does beta2 weigh the past or the present?",
        _factored(fold=lambda old, new, beta2, t: (1 - beta2) * old + beta2 * new),
    ),
    Known(
        "forgets",
        "averages that forget their past at every step",
        "Are R and C kept from step to step?",
        _factored(fold=lambda old, new, beta2, t: (1 - beta2) * new),
    ),
    Known(
        "never-decays",
        "averages that never decay",
        "What multiplies the old R?",
        _factored(fold=lambda old, new, beta2, t: old + (1 - beta2) * new),
    ),
    Known(
        "starts-full",
        "averages that start at the first gradient's means, and are not corrected",
        "Where do R and C start here?",
        _factored(
            fold=lambda old, new, beta2, t: new if t == 1 else beta2 * old + (1 - beta2) * new,
            corrected=lambda x, beta2, t: x,
        ),
        OTHER_SPECIFICATION,
    ),
    Known(
        "starts-full-and-corrected",
        "averages that start at the first gradient's means, and are corrected all the same",
        "What is there to correct in an average that starts full?",
        _factored(fold=lambda old, new, beta2, t: new if t == 1 else beta2 * old + (1 - beta2) * new),
    ),
    Known(
        "adafactors-schedule",
        "Adafactor's own schedule, beta2 = 1 - t^-0.8, which needs no correction",
        "Here beta2 is given, and constant.",
        _factored(fold=_rising, corrected=lambda x, beta2, t: x),
        OTHER_SPECIFICATION,
    ),
    Known("not-squared", "means of g instead of g squared", "What is averaged?", _factored(means=_means)),
    Known(
        "absolute",
        "means of |g| instead of g squared",
        "What is averaged?",
        _factored(means=lambda g: _means(np.abs(g))),
    ),
    Known(
        "mean-then-square",
        "squares of the means instead of means of the squares",
        "Which comes first, the square or the mean?",
        _factored(means=lambda g: tuple(x**2 for x in _means(g))),
    ),
    Known(
        "sums",
        "sums over rows and columns where means are meant",
        "R C / mean(R) is made of means. With sums, by what must one divide?",
        _factored(means=lambda g: ((g**2).sum(axis=1, keepdims=True), (g**2).sum(axis=0, keepdims=True))),
    ),
    Known(
        "largest",
        "the largest square of each row and column (SM3's idea)",
        "What is averaged?",
        _factored(means=lambda g: ((g**2).max(axis=1, keepdims=True), (g**2).max(axis=0, keepdims=True))),
    ),
    Known(
        "centred",
        "variances of rows and columns: their means were taken off",
        "A second moment is not centred.",
        _factored(means=lambda g: (g.var(axis=1, keepdims=True), g.var(axis=0, keepdims=True))),
    ),
)
_RNG = np.random.default_rng(23)


def _drawn(rng: np.random.Generator, steps: int, rows: int, columns: int, beta2: float) -> dict[str, Any]:
    """Gradients whose rows and columns differ in size, and which grow or shrink from step to step."""
    sizes = (
        rng.uniform(0.2, 3.0, (steps, 1, 1))
        * rng.uniform(0.2, 3.0, (1, rows, 1))
        * rng.uniform(0.2, 3.0, (1, 1, columns))
    )
    return {"gradients": sizes * rng.normal(size=(steps, rows, columns)), "beta2": beta2}


def _zeros(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isfinite(got[0]).all():
        return None
    return Finding(
        "zeros",
        "Gradients of zeros give no zeros: 0 / 0 is not a number.",
        "As a frozen layer or an unused expert has them. Which divisor may be zero?",
    )


def _dead(gradients: np.ndarray, axis: int) -> dict[str, Any]:
    """The same gradients, with zeros in one row (axis 1) or column (axis 2)."""
    gradients = gradients.copy()
    np.moveaxis(gradients, axis, 0)[1] = 0
    return {"gradients": gradients, "beta2": 0.9}


def _partly(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    finite = np.isfinite(got[0]).all()
    if got[0].shape != want[0].shape or (finite and (got[0] != 0)[want[0] != 0].any()):
        return None
    what = f"With one row or column of zeros, {'all elements are zero' if finite else 'something is not finite'}."
    return Finding("dead-row", what, "As an unused token has them in an embedding. Which single divisor may be zero?")


def _small(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape != want[0].shape or (np.isfinite(got[0]).all() and got[0].all()):
        return None
    return Finding(
        "underflow",
        f"With gradients of about {np.abs(case['gradients']).max():.0e} the result is zero or not finite: something "
        f"on the way is too small "
        "for its type, such as the product R C of two second moments.",
        "In float32 that happens with gradients of 1e-12, which are ordinary. Divide before you multiply, and stay "
        "in float64.",
    )


def _size(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if finding := _small(case, got, want):
        return finding
    if got[0].shape != want[0].shape or np.allclose(got[0], want[0], rtol=1e-6, atol=0):
        return None
    return Finding(
        "floored",
        "With gradients of 1e-30 the result is off: something as large as an eps is added to it, or below it.",
        "Here nothing is added; only a divisor that is exactly 0 needs help.",
    )


FACTORED = Numeric(
    _right,
    [_drawn(_RNG, 5, 3, 4, 0.9), _drawn(_RNG, 3, 4, 2, 0.6), _drawn(_RNG, 4, 3, 3, 0.99), _drawn(_RNG, 1, 2, 5, 0.8)],
    _MISTAKES,
    "an array (n, m)",
    edges=[
        Edge(_drawn(_RNG, 3, 4, 1, 0.9)),
        Edge(_drawn(_RNG, 2, 1, 4, 0.9)),
        Edge({"gradients": np.zeros((3, 2, 3)), "beta2": 0.9}, _zeros),
        Edge(_dead(_drawn(_RNG, 3, 3, 4, 0.9)["gradients"], 1), _partly),
        Edge(_dead(_drawn(_RNG, 3, 4, 3, 0.9)["gradients"], 2), _partly),
        Edge(
            {name: value * (1e-30 if name == "gradients" else 1) for name, value in _drawn(_RNG, 3, 3, 2, 0.9).items()},
            _size,
        ),
        Edge(
            {name: value * (1e-90 if name == "gradients" else 1) for name, value in _drawn(_RNG, 3, 3, 2, 0.9).items()},
            _small,
        ),
    ],
    drawn=lambda rng: [
        _drawn(
            rng,
            int(rng.integers(2, 7)),
            int(rng.integers(2, 6)),
            int(rng.integers(2, 6)),
            float(rng.uniform(0.5, 0.99)),
        )
    ],
)
