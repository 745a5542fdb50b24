"""Exercises of notebook 03: AdaGrad for an embedding table, the divisor of centred RMSProp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Judge, Known, Numeric, Parts, close
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

# -------------------------------------------------------------------------------------------------- sparse_adagrad


def _total(rows: np.ndarray, grads: np.ndarray, like: np.ndarray) -> np.ndarray:
    total = np.zeros_like(like)
    for row, grad in zip(rows, grads, strict=True):
        total[row] += grad
    return total


def _last(rows: np.ndarray, grads: np.ndarray, like: np.ndarray) -> np.ndarray:
    total = np.zeros_like(like)
    for row, grad in zip(rows, grads, strict=True):
        total[row] = grad
    return total


def _first(rows: np.ndarray, grads: np.ndarray, like: np.ndarray) -> np.ndarray:
    return _last(rows[::-1], grads[::-1], like)


def _mean(rows: np.ndarray, grads: np.ndarray, like: np.ndarray) -> np.ndarray:
    return _total(rows, grads, like) / np.maximum(np.bincount(rows, minlength=len(like)), 1)[:, None]


def _separately(rows: np.ndarray, grads: np.ndarray, like: np.ndarray) -> np.ndarray:
    return _total(rows, grads**2, like)


def _sparse(
    gathered: Callable[..., np.ndarray] = _total,
    squares: Callable[..., np.ndarray] | None = None,
    gather: Callable[..., np.ndarray] = lambda sums, square, hit: sums + square,
    move: Callable[..., np.ndarray] = lambda g, sums, old, lr, eps: -lr * g / (np.sqrt(sums) + eps),
) -> Callable[..., Any]:
    """``gathered`` is the gradient of each row, ``squares`` what is added to its sum; ``move`` changes the table."""

    def run(
        table: np.ndarray, sums: np.ndarray, rows: np.ndarray, grads: np.ndarray, lr: float, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        g = gathered(rows, grads, table)
        square = g**2 if squares is None else squares(rows, grads, table)
        hit = np.isin(np.arange(len(table)), rows)[:, None]
        new = gather(sums, square, hit)
        return table + np.where(hit, move(g, new, sums, lr, eps), 0.0), new

    return run


def _one_by_one(
    table: np.ndarray, sums: np.ndarray, rows: np.ndarray, grads: np.ndarray, lr: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    table, sums = table.copy(), sums.copy()
    for row, g in zip(rows, grads, strict=True):
        sums[row] += g**2
        table[row] -= lr * g / (np.sqrt(sums[row]) + eps)
    return table, sums


def _half_last(
    table: np.ndarray, sums: np.ndarray, rows: np.ndarray, grads: np.ndarray, lr: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """The sums are right, and the step is written with `table[rows] -= ...` for each occurrence."""
    new = sums + _total(rows, grads, table) ** 2
    return table - lr * _last(rows, grads, table) / (np.sqrt(new) + eps), new


def _per_row(
    table: np.ndarray, sums: np.ndarray, rows: np.ndarray, grads: np.ndarray, lr: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    return _sparse(squares=lambda r, g, like: np.mean(_total(r, g, like) ** 2, 1, keepdims=True) + np.zeros_like(like))(
        table, sums, rows, grads, lr, eps
    )


def _counted(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.bincount(rows, minlength=len(like))[:, None]


def _repeated_step(
    table: np.ndarray, sums: np.ndarray, rows: np.ndarray, grads: np.ndarray, lr: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    new_table, new_sums = _sparse_adagrad(table, sums, rows, grads, lr, eps)
    return table + _counted(rows, table) * (new_table - table), new_sums


def _swapped(**case: Any) -> tuple[np.ndarray, np.ndarray]:
    return _sparse_adagrad(**case)[::-1]


def _sums_returned_old(**case: Any) -> tuple[np.ndarray, np.ndarray]:
    return _sparse_adagrad(**case)[0], case["sums"]


def _table_returned_old(**case: Any) -> tuple[np.ndarray, np.ndarray]:
    return case["table"], _sparse_adagrad(**case)[1]


def _rows_only(**case: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = np.unique(case["rows"])
    table, sums = _sparse_adagrad(**case)
    return table[rows], sums[rows]


def _occurrences_only(**case: Any) -> tuple[np.ndarray, np.ndarray]:
    table, sums = _sparse_adagrad(**case)
    return table[case["rows"]], sums[case["rows"]]


def _changes(**case: Any) -> tuple[np.ndarray, None]:
    return _sparse_adagrad(**case)[0] - case["table"], None


_sparse_adagrad = _sparse()
_SPARSE_MISTAKES = (
    Known("order", "the sums and the table, exchanged", "The table comes first.", _swapped),
    Known(
        "squared-separately",
        "squares taken of each occurrence, not of their sum",
        "A row that occurs twice has one gradient: the sum. What is its square?",
        _sparse(squares=_separately),
    ),
    Known(
        "one-by-one",
        "an AdaGrad step for each occurrence, one after the other",
        "One batch is one step. What is the gradient of a row that occurs twice?",
        _one_by_one,
    ),
    Known(
        "last-wins",
        "the last occurrence of each row: the others are lost",
        "NumPy's `a[rows] += ...` writes a repeated row once. What adds at repeated indices?",
        _sparse(_last),
    ),
    Known(
        "last-step-wins",
        "right sums, and a step by the last occurrence of each row alone",
        "NumPy's `a[rows] -= ...` writes a repeated row once. What adds at repeated indices?",
        _half_last,
    ),
    Known(
        "last-step-wins-separately",
        "squares of each occurrence, and a step by the last occurrence alone",
        "NumPy's `a[rows] -= ...` writes a repeated row once. Add a row's gradients up before anything else.",
        _sparse(_last, squares=_separately),
    ),
    Known(
        "last-square-wins",
        "right gradients, and sums to which only the last occurrence's square was added",
        "NumPy's `a[rows] += ...` writes a repeated row once. Square what you have added up.",
        _sparse(squares=lambda rows, grads, like: _last(rows, grads, like) ** 2),
    ),
    Known(
        "square-repeated",
        "sums to which the square of a row's gradient is added once for each occurrence",
        "`np.add.at` adds at every occurrence. How often does one step add a row's square?",
        _sparse(squares=lambda rows, grads, like: _counted(rows, like) * _total(rows, grads, like) ** 2),
    ),
    Known(
        "step-repeated",
        "right sums, and a row's whole step made once for each occurrence",
        "`np.add.at` adds at every occurrence. How often does a row move in one step?",
        _repeated_step,
    ),
    Known(
        "first-wins",
        "the first occurrence of each row: the others are lost",
        "`np.unique(..., return_index=True)` finds one occurrence of each. Where do the others go?",
        _sparse(_first),
    ),
    Known(
        "mean-of-occurrences",
        "the mean of a row's gradients",
        "The gradient of a row is the sum over the places where it is used.",
        _sparse(_mean),
    ),
    Known(
        "eps-inside-root",
        "an epsilon inside the root",
        "Is eps added before or after the root?",
        _sparse(move=lambda g, sums, old, lr, eps: -lr * g / np.sqrt(sums + eps)),
    ),
    Known(
        "eps-missing",
        "a step without eps",
        "What is added to the root?",
        _sparse(move=lambda g, sums, old, lr, eps: -lr * g / np.sqrt(sums)),
    ),
    Known(
        "old-sums",
        "a step with the sums as they were before this batch",
        "Does this batch's gradient count in its own divisor?",
        _sparse(move=lambda g, sums, old, lr, eps: -lr * g / (np.sqrt(old) + eps)),
    ),
    Known(
        "root-missing",
        "a division by the sum itself, without its root",
        "The step should not change when all gradients are scaled.",
        _sparse(move=lambda g, sums, old, lr, eps: -lr * g / (sums + eps)),
    ),
    Known(
        "lr-missing",
        "a step without the learning rate",
        "By what is the gradient multiplied?",
        _sparse(move=lambda g, sums, old, lr, eps: -g / (np.sqrt(sums) + eps)),
    ),
    Known(
        "ascends",
        "a step uphill",
        "Which way is down?",
        _sparse(move=lambda g, sums, old, lr, eps: lr * g / (np.sqrt(sums) + eps)),
    ),
    Known(
        "not-adapted",
        "a plain gradient step",
        "What divides the gradient?",
        _sparse(move=lambda g, sums, old, lr, eps: -lr * g),
    ),
    Known(
        "square-missing",
        "sums of gradients instead of their squares",
        "Sums of gradients would cancel.",
        _sparse(squares=_total),
    ),
    Known(
        "sums-replaced",
        "sums that hold this batch's squares alone",
        "AdaGrad forgets nothing.",
        _sparse(gather=lambda sums, square, hit: np.where(hit, square, sums)),
    ),
    Known(
        "sums-cleared",
        "sums that hold this batch's squares alone, and nothing for rows that do not occur",
        "Rows that do not occur stay as they are.",
        _sparse(gather=lambda sums, square, hit: square),
    ),
    Known(
        "dense-decay",
        "sums of all rows multiplied by 0.9, as if they were an average: that is RMSProp",
        "AdaGrad forgets nothing, and rows that do not occur stay as they are.",
        _sparse(gather=lambda sums, square, hit: 0.9 * sums + 0.1 * square),
    ),
    Known(
        "one-sum-a-row",
        "one sum for each row, from the mean of its squares: row-wise AdaGrad",
        "It saves memory in large tables; here each number of the table has its own sum.",
        _per_row,
        OTHER_SPECIFICATION,
    ),
    Known("sums-not-updated", "the sums as they came", "The new sums are asked for too.", _sums_returned_old),
    Known("table-not-updated", "the table as it came", "The new table is asked for.", _table_returned_old),
    Known("rows-only", "the rows that occur, without the others", "The whole table is asked for.", _rows_only),
    Known(
        "occurrences-only",
        "one row for each occurrence",
        "The whole table is asked for.",
        _occurrences_only,
    ),
    Known("changes", "the change of the table", "The new table is asked for.", _changes),
)
_RNG = np.random.default_rng(3)


def _batch(rows: list[int], size: int, width: int, scale: float, lr: float, eps: float) -> dict[str, Any]:
    sums = _RNG.uniform(0.1, 2.0, (size, width)) * scale**2
    return {
        "table": _RNG.normal(size=(size, width)),
        "sums": sums,
        "rows": np.array(rows, dtype=np.int64),
        "grads": _RNG.normal(size=(len(rows), width)) * scale,
        "lr": lr,
        "eps": eps,
    }


def _never_seen() -> dict[str, Any]:
    """No eps, and rows 1 and 3 have never had a gradient: row 3 still has none."""
    case = _batch([4, 1, 4], 5, 2, 1.0, 0.1, 0.0)
    case["sums"][[1, 3]] = 0.0
    return case


def _untouched(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    table, away = got[0], ~np.isin(np.arange(len(case["table"])), case["rows"])
    if table.shape != case["table"].shape or close(table[away], case["table"][away]):
        return None
    index = np.argmax(~np.isclose(table, case["table"]) & away[:, None])
    return Finding(
        "untouched-rows",
        "With eps=0, a row that does not occur, and whose sum is still 0, does not stay as it is: "
        f"expected {case['table'].flat[index]:.6g}, got {table.flat[index]:.6g}.",
        "What is 0 / 0? Only the rows that occur are to be touched.",
    )


def _cancelling() -> dict[str, Any]:
    """Row 1 occurs twice with opposite gradients, and row 2 has never had any: its sums are still 0."""
    case = _batch([1, 2, 1, 2], 4, 2, 1.0, 0.5, 0.1)
    case["grads"][2] = -case["grads"][0]
    case["sums"][2] = 0.0
    return case


_SPARSE_CASES = [
    _batch([4, 1, 4, 0, 4, 1], 6, 3, 1.0, 0.1, 0.2),
    _batch([2, 2, 2], 3, 1, 30.0, 1.0, 1e-3),
    _cancelling(),
    _batch([7, 0, 3], 8, 5, 1e-3, 0.05, 1e-4),
    _batch([0, 0], 1, 4, 1.0, 0.3, 0.5),
    _batch([], 3, 2, 1.0, 0.1, 0.1),
]
_SPARSE_EDGES = [Edge(_never_seen(), _untouched)]


# ------------------------------------------------------------------------------------------------ centered_divisor


def _divisor(
    formula: Callable[..., np.ndarray] = lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps,
    mean: Callable[..., np.ndarray] = lambda m, g, a: a * m + (1 - a) * g,
    square: Callable[..., np.ndarray] = lambda v, g, a, m: a * v + (1 - a) * g**2,
    corrected: bool = False,
    first: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda g: (np.zeros_like(g), np.zeros_like(g)),
) -> Callable[..., np.ndarray]:
    """``m`` and ``v`` are the averages of g and of its square."""

    def run(gradients: np.ndarray, alpha: float, eps: float) -> np.ndarray:
        (m, v), rows = first(gradients[0]), []
        for t, g in enumerate(gradients, 1):
            m = mean(m, g, alpha)
            v = square(v, g, alpha, m)
            gain = 1 - alpha**t if corrected else 1.0
            rows.append(formula(v / gain, m / gain, eps))
        return np.stack(rows)

    return run


def _behind(clipped: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    def run(gradients: np.ndarray, alpha: float, eps: float) -> np.ndarray:
        m, v, rows = np.zeros_like(gradients[0]), np.zeros_like(gradients[0]), []
        for g in gradients:
            v = alpha * v + (1 - alpha) * g**2
            rows.append(np.sqrt(clipped(v - m**2)) + eps)
            m = alpha * m + (1 - alpha) * g
        return np.stack(rows)

    return run


def _deviations(gradients: np.ndarray, alpha: float, eps: float) -> np.ndarray:
    return np.stack([gradients[: t + 1].std(0) + eps for t in range(len(gradients))])


def _divisor_row(index: int) -> Callable[..., np.ndarray]:
    return lambda **case: _divisor()(**case)[index]


_centered = _divisor()
_CENTERED_MISTAKES = (
    Known(
        "not-centred",
        "the plain divisor, sqrt(EMA(g^2)) + eps",
        "What is subtracted under the root?",
        _divisor(lambda v, m, eps: np.sqrt(v) + eps),
    ),
    Known(
        "eps-inside-root",
        "an epsilon inside the root, as in Graves 2013 and in Keras",
        "torch adds eps after the root.",
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0) + eps)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "eps-missing",
        "a divisor without eps",
        "What is added to the root?",
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0))),
    ),
    Known(
        "eps-in-both",
        "an epsilon inside the root and one outside",
        "Once is enough.",
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0) + eps) + eps),
    ),
    Known(
        "eps-as-floor",
        "an epsilon used as a floor: max(root, eps)",
        "torch adds eps.",
        _divisor(lambda v, m, eps: np.maximum(np.sqrt(np.maximum(v - m**2, 0)), eps)),
    ),
    Known(
        "eps-as-floor-inside",
        "an epsilon used as a floor inside the root: sqrt(max(v - m^2, eps))",
        "torch adds eps, after the root. What is negative inside becomes 0.",
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, eps))),
    ),
    Known(
        "mean-not-squared",
        "a mean that is not squared",
        "Gradients have a unit: which has v, and which has m?",
        _divisor(lambda v, m, eps: np.sqrt(v - m) + eps),
    ),
    Known(
        "mean-clipped-not-squared",
        "a mean that is not squared, with what is negative clipped",
        "Gradients have a unit: which has v, and which has m?",
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m, 0)) + eps),
    ),
    Known(
        "mean-added",
        "the square of the mean added instead of subtracted",
        "For a constant gradient the variance is 0 in the long run.",
        _divisor(lambda v, m, eps: np.sqrt(v + m**2) + eps),
    ),
    Known(
        "root-missing",
        "a variance without its root",
        "Gradients have a unit: which has the divisor?",
        _divisor(lambda v, m, eps: np.maximum(v - m**2, 0) + eps),
    ),
    Known(
        "root-before-mean",
        "sqrt(EMA(g^2)) - |EMA(g)|",
        "The difference is taken under the root.",
        _divisor(lambda v, m, eps: np.sqrt(v) - np.abs(m) + eps),
    ),
    Known(
        "reciprocal",
        "one over the divisor",
        "The divisor itself is asked for.",
        _divisor(lambda v, m, eps: 1 / (np.sqrt(np.maximum(v - m**2, 0)) + eps)),
    ),
    Known(
        "bias-corrected",
        "averages corrected for their start at zero, as Adam corrects them",
        "torch's RMSprop corrects nothing.",
        _divisor(corrected=True),
    ),
    Known(
        "weights-swapped",
        "averages with their weights exchanged",
        "Does alpha weigh the past or the present?",
        _divisor(
            mean=lambda m, g, a: (1 - a) * m + a * g,
            square=lambda v, g, a, m: (1 - a) * v + a * g**2,
        ),
    ),
    Known(
        "gain-missing",
        "sums: (1 - alpha) is missing in both",
        "If every gradient were 1, what should the averages tend to?",
        _divisor(mean=lambda m, g, a: a * m + g, square=lambda v, g, a, m: a * v + g**2),
    ),
    Known(
        "gain-missing-in-the-mean",
        "a mean that sums: its (1 - alpha) is missing",
        "If every gradient were 1, what should the averages tend to?",
        _divisor(mean=lambda m, g, a: a * m + g),
    ),
    Known(
        "gain-missing-in-the-squares",
        "squares that are summed: their (1 - alpha) is missing",
        "If every gradient were 1, what should the averages tend to?",
        _divisor(square=lambda v, g, a, m: a * v + g**2),
    ),
    Known(
        "mean-behind",
        "the mean as it was before this step's gradient",
        "Are both averages updated before the divisor is made?",
        _behind(lambda x: x),
    ),
    Known(
        "mean-behind-clipped",
        "the mean as it was before this step's gradient, with what is negative clipped",
        "Are both averages updated before the divisor is made?",
        _behind(lambda x: np.maximum(x, 0)),
    ),
    Known(
        "divisor-behind",
        "a divisor made before the averages take this step's gradient in",
        "What does the first step divide by?",
        lambda gradients, alpha, eps: np.concatenate(
            [np.full_like(gradients[:1], eps), _centered(gradients, alpha, eps)[:-1]]
        ),
    ),
    Known(
        "step",
        "the gradient over the divisor",
        "The divisor itself is asked for.",
        lambda **case: case["gradients"] / _centered(**case),
    ),
    Known(
        "deviations-averaged",
        "an average of (g - m)^2",
        "Close, but torch averages g^2 and subtracts the square of the mean.",
        _divisor(lambda v, m, eps: np.sqrt(v) + eps, square=lambda v, g, a, m: a * v + (1 - a) * (g - m) ** 2),
    ),
    Known(
        "centred-twice",
        "an average of (g - m)^2 from which the square of the mean is subtracted as well",
        "The mean is taken off once.",
        _divisor(square=lambda v, g, a, m: a * v + (1 - a) * (g - m) ** 2),
    ),
    Known(
        "starts-at-the-first-gradient",
        "averages that start at the first gradient",
        "Both averages start at 0.",
        _divisor(first=lambda g: (g, g**2)),
    ),
    Known(
        "nothing-averaged",
        "a difference of g^2 and g^2: nothing is averaged",
        "Where does alpha come in?",
        lambda gradients, alpha, eps: np.zeros_like(gradients) + eps,
    ),
    Known(
        "magnitude",
        "|g| + eps: nothing is averaged and nothing subtracted",
        "Where does alpha come in?",
        lambda gradients, alpha, eps: np.abs(gradients) + eps,
    ),
    Known(
        "plain-deviation",
        "the standard deviation of all gradients so far, all weighing the same",
        "Older gradients should count for less.",
        _deviations,
    ),
    Known("last-only", "the divisor of the last step alone", "One row for each step.", _divisor_row(-1)),
    Known(
        "aliased",
        "one array, changed in place and kept in every row",
        "If one array is changed in place and appended each time, how many arrays are in the list?",
        lambda **case: np.tile(_centered(**case)[-1], (len(case["gradients"]), 1)),
    ),
    Known(
        "transposed",
        "a divisor with its rows and columns exchanged",
        "One row for each step.",
        lambda **case: _centered(**case).T,
    ),
)
_CENTERED_CASES = [
    {"gradients": _RNG.normal(shift, 1.0, (steps, size)) * scale, "alpha": alpha, "eps": eps}
    for steps, size, shift, scale, alpha, eps in (
        (6, 3, 1.0, 1.0, 0.9, 0.3),
        (5, 2, -0.5, 40.0, 0.99, 1e-2),
        (1, 4, 0.0, 1.0, 0.9, 0.1),
        (7, 1, 3.0, 1e-3, 0.5, 1e-4),
        (4, 2, 0.0, 1.0, 0.1, 1e-8),
    )
]
# A constant gradient, whose variance comes near 0, and one that is always 0.
_CENTERED_CASES.append({"gradients": np.tile([2.0, 0.0], (9, 1)), "alpha": 0.8, "eps": 0.05})


def _single_precision(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """Of gradients that are nearly constant, float32 cannot tell the variance from rounding."""
    if got[0].shape != want[0].shape or close(got[0], want[0], _DIGITS) or (np.abs(got[0] - want[0]) > 0.01).any():
        return None
    return Finding(
        "single-precision",
        "Right where gradients vary, wrong where they hardly do (1, give or take 0.0001): "
        f"expected {want[0][-1, 0]:.4g} in the end, got {got[0][-1, 0]:.4g}. "
        "v and m^2 agree to eight digits, and float32 has seven.",
        "The arguments are float64. Which of your arrays has another dtype?",
    )


def _rounded_below_zero(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """What becomes of v - m^2 where rounding makes it negative.

    With alpha = 0.5 the multiplications are exact and every order of an average's update rounds alike. A result that
    is |v - m^2| to the last bit wherever the reference clips was therefore not clipped.
    """
    divisor, eps = got[0], case["eps"]
    if divisor.shape != want[0].shape:
        return None
    given = f"With gradients that do not change (alpha={case['alpha']}, {len(divisor)} steps)"
    if np.isnan(divisor).any():
        return Finding(
            "not-clipped",
            f"{given}, {np.isnan(divisor).sum()} of {divisor.size} divisors are NaN: rounding made v - m^2 negative.",
            "The exercise asks for 0 there, before the root is taken.",
        )
    if (divisor < eps / 2).any():
        return Finding(
            "eps-lost",
            f"{given}, the divisor gets down to {divisor.min():.3g}; it is never below eps={eps}.",
            "Where rounding makes v - m^2 negative, take 0 for it, then the root, and add eps there too.",
        )
    below = _divisor(lambda v, m, eps: v - m**2 < 0)(**case)
    unsigned = _divisor(lambda v, m, eps: np.sqrt(np.abs(v - m**2)) + eps)(**case)
    if below.any() and np.allclose(divisor[below], unsigned[below], rtol=1e-3, atol=0):
        return Finding(
            "abs-not-clip",
            f"{given}, your divisor is sqrt(|v - m^2|) + eps where rounding makes v - m^2 negative.",
            "The exercise asks for 0 there: a variance below zero says that there is none.",
        )
    return None


_DIGITS = 1e-9  # float64 leaves about eight digits of a deviation of 1e-4 from 1, float32 none
_NOISE = 1e-6  # the root of some hundred roundings of 1: what v - m^2 leaves where it should vanish
_CENTERED_EDGES = [
    Edge({"gradients": 1 + 1e-4 * _RNG.normal(size=(60, 3)), "alpha": 0.5, "eps": 1e-9}, _single_precision, _DIGITS),
    # Of each of these numbers, m reaches the number itself, and v stops one rounding below its square.
    Edge(
        {"gradients": np.tile([0.7, 1.1, 1.4, 1.9, 2.2, 2.8], (100, 1)), "alpha": 0.5, "eps": 1e-8},
        _rounded_below_zero,
        _NOISE,
    ),
    Edge(
        {"gradients": np.tile(_RNG.uniform(0.5, 3.0, 200), (400, 1)), "alpha": 0.9, "eps": 1e-8},
        _rounded_below_zero,
        _NOISE,
    ),
]

JUDGES: dict[str, Judge] = {
    "sparse_adagrad": Numeric(
        _sparse_adagrad,
        _SPARSE_CASES,
        _SPARSE_MISTAKES,
        "two arrays, the new table and the new sums",
        ("new_table", "new_sums"),
        edges=_SPARSE_EDGES,
    ),
    "centered_divisor": Numeric(
        _centered,
        _CENTERED_CASES,
        _CENTERED_MISTAKES,
        "an array of the shape of `gradients`",
        edges=_CENTERED_EDGES,
    ),
}
