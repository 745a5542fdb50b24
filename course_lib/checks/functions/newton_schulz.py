"""The exercise of notebook 14 on Muon's Newton-Schulz iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Coefficients = tuple[float, float, float]
Step = Callable[[np.ndarray, float, float, float], np.ndarray]
JORDAN: Coefficients = (3.4445, -4.7750, 2.0315)


def _quintic(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    gram = x @ x.T
    return a * x + (b * gram + c * gram @ gram) @ x


def _frobenius(g: np.ndarray) -> Any:
    return max(np.linalg.norm(g), 1e-7)


def _iterated(
    step: Step = _quintic, size: Callable[[np.ndarray], Any] = _frobenius, last: Step = lambda x, a, b, c: x
) -> Callable[..., np.ndarray]:
    """``newton_schulz`` with another step or norm, or with ``last`` done to its result."""

    def run(g: np.ndarray, steps: int, coefficients: Coefficients) -> np.ndarray:
        x = g / size(g)
        for _ in range(steps):
            x = step(x, *coefficients)
        return last(x, *coefficients)

    return run


def _with(
    change: Callable[[np.ndarray, int, Coefficients], tuple[np.ndarray, int, Coefficients]],
) -> Callable[..., np.ndarray]:
    """The right answer to another question."""
    return lambda g, steps, coefficients: _right(*change(g, steps, coefficients))


def _exact(g: np.ndarray, steps: int, coefficients: Coefficients) -> np.ndarray:
    u, _, v = np.linalg.svd(g, full_matrices=False)
    return u @ v


def _first_gram(g: np.ndarray, steps: int, coefficients: Coefficients) -> np.ndarray:
    a, b, c = coefficients
    x = g / _frobenius(g)
    gram = x @ x.T
    for _ in range(steps):
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _summed_in_place(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """x is multiplied by a before the polynomial's product with it."""
    gram = x @ x.T
    x = a * x
    return x + (b * gram + c * gram @ gram) @ x


def _gram_after(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """x is multiplied by a before everything else."""
    return a * x + _quintic(a * x, 0, b, c)


def _transposed_where_tall(g: np.ndarray, steps: int, coefficients: Coefficients) -> np.ndarray:
    x = _right(g, steps, coefficients)
    return x.T if len(x) > x.shape[1] else x


_right = _iterated()
_POLYNOMIAL = "A is X X^T. Which power of A belongs to b, which to c, and what stands behind them both?"
_NORM = (
    "A singular value above 1 runs away. Which norm of G is at least as large as its largest singular value, and cheap?"
)
_COUNT = "How often is X replaced?"
_EPS = "What is ||G|| of a frozen layer, and what is 1e-7 there for?"
_MISTAKES = (
    Known("not-normalised", "a G that is not divided by its norm", _NORM, _iterated(size=lambda g: 1.0)),
    Known(
        "largest-element",
        "a division by the largest element's size",
        _NORM,
        _iterated(size=lambda g: max(np.abs(g).max(), 1e-7)),
    ),
    Known(
        "root-mean-square",
        "a division by the root mean square",
        _NORM,
        _iterated(size=lambda g: max(np.sqrt(np.mean(g**2)), 1e-7)),
    ),
    Known("squared-norm", "a division by the squared norm", _NORM, _iterated(size=lambda g: max(np.sum(g**2), 1e-7))),
    Known(
        "spectral-norm",
        "a division by the spectral norm, the largest singular value: fine to start from, and as dear as what it is "
        "to save",
        "The Frobenius norm is asked for.",
        _iterated(size=lambda g: max(np.linalg.norm(g, 2), 1e-7)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "norm-of-rows",
        "a division of each row by its own norm",
        "One number for the whole matrix: else its singular vectors change.",
        _iterated(size=lambda g: np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-7)),
    ),
    Known(
        "norm-of-columns",
        "a division of each column by its own norm",
        "One number for the whole matrix: else its singular vectors change.",
        _iterated(size=lambda g: np.maximum(np.linalg.norm(g, axis=0, keepdims=True), 1e-7)),
    ),
    Known(
        "largest-column-sum",
        "a division by the largest sum of a column: np.linalg.norm(g, 1)",
        "The Frobenius norm is asked for.",
        _iterated(size=lambda g: max(np.linalg.norm(g, 1), 1e-7)),
    ),
    Known(
        "normalised-each-step",
        "a division by the norm in every step",
        "The norm is divided by once, at the start. What should it be at the end?",
        _iterated(lambda x, a, b, c: _quintic(x / _frobenius(x), a, b, c), size=lambda g: 1.0),
    ),
    Known(
        "eps-added",
        "||G|| + 1e-7 in the place of max(||G||, 1e-7), as in Jordan's code",
        "Here 1e-7 is a floor.",
        _iterated(size=lambda g: np.linalg.norm(g) + 1e-7),
        OTHER_SPECIFICATION,
    ),
    Known("eps-missing", "a division by ||G||, however small it is", _EPS, _iterated(size=np.linalg.norm)),
    Known(
        "eps-of-1e-8", "a floor (or a summand) of 1e-8", _EPS, _iterated(size=lambda g: max(np.linalg.norm(g), 1e-8))
    ),
    Known(
        "hard-coded",
        "Jordan's coefficients, whatever is given",
        "Are the arguments read?",
        _with(lambda g, steps, coefficients: (g, steps, JORDAN)),
    ),
    Known(
        "five-steps",
        "5 steps, whatever is given",
        "Are the arguments read?",
        _with(lambda g, steps, coefficients: (g, 5, coefficients)),
    ),
    Known(
        "one-step-more", "a step too many", _COUNT, _with(lambda g, steps, coefficients: (g, steps + 1, coefficients))
    ),
    Known(
        "one-step-less", "a step too few", _COUNT, _with(lambda g, steps, coefficients: (g, steps - 1, coefficients))
    ),
    Known(
        "coefficients-reversed",
        "a, b and c in reverse order",
        _POLYNOMIAL,
        _with(lambda g, steps, coefficients: (g, steps, coefficients[::-1])),
    ),
    Known("b-and-c-swapped", "b and c exchanged", _POLYNOMIAL, _iterated(lambda x, a, b, c: _quintic(x, a, c, b))),
    Known(
        "b-negated",
        "b with its sign turned: the coefficients have signs already",
        "Which sign has b, as it is given?",
        _iterated(lambda x, a, b, c: _quintic(x, a, -b, c)),
    ),
    Known(
        "c-missing",
        "a X + b A X: the quintic term is missing",
        _POLYNOMIAL,
        _iterated(lambda x, a, b, c: _quintic(x, a, b, 0)),
    ),
    Known(
        "b-missing",
        "a X + c A A X: the cubic term is missing",
        _POLYNOMIAL,
        _iterated(lambda x, a, b, c: _quintic(x, a, 0, c)),
    ),
    Known(
        "a-missing",
        "(b A + c A A) X: the linear term is missing",
        _POLYNOMIAL,
        _iterated(lambda x, a, b, c: _quintic(x, 0, b, c)),
    ),
    Known(
        "a-is-one",
        "X + (b A + c A A) X: nothing multiplies the first X",
        _POLYNOMIAL,
        _iterated(lambda x, a, b, c: _quintic(x, 1, b, c)),
    ),
    Known(
        "gram-not-squared",
        "(b A + c A) X: A is not squared",
        _POLYNOMIAL,
        _iterated(lambda x, a, b, c: a * x + (b + c) * x @ x.T @ x),
    ),
    Known(
        "gram-squared-by-element",
        "A * A, element by element, in the place of A @ A",
        "`*` and `**` work on elements, `@` on matrices.",
        _iterated(lambda x, a, b, c: a * x + (b * (x @ x.T) + c * (x @ x.T) ** 2) @ x),
    ),
    Known(
        "powers-by-element",
        "a X + b X^3 + c X^5, element by element",
        "The singular values are to be changed, not the elements.",
        _iterated(lambda x, a, b, c: a * x + b * x**3 + c * x**5),
    ),
    Known("gram-once", "an A that is made once, before the loop", "X changes in every step. And A?", _first_gram),
    Known(
        "multiplied-in-place",
        "an X that is multiplied by a before the polynomial meets it",
        "Which X stands behind b A + c A A: the old one, or a X?",
        _iterated(_summed_in_place),
    ),
    Known(
        "gram-of-multiplied",
        "an X that is multiplied by a before A is made of it",
        "Which X stands in A: the old one, or a X?",
        _iterated(_gram_after),
    ),
    Known(
        "not-transposed-back",
        "the transpose where G has more rows than columns",
        "What was turned at the start must be turned back at the end.",
        _transposed_where_tall,
    ),
    Known(
        "transposed",
        "the transpose",
        "The result has G's shape.",
        lambda g, steps, coefficients: _right(g, steps, coefficients).T,
    ),
    Known(
        "scaled-back",
        "the result times ||G||",
        "The size of G is to be forgotten.",
        lambda g, steps, coefficients: _right(g, steps, coefficients) * np.linalg.norm(g),
    ),
    Known(
        "exact",
        "U V^T, from the singular value decomposition: what the iteration only comes near",
        "Newton-Schulz leaves the singular values where it brings them.",
        _exact,
    ),
    Known(
        "normalised-at-the-end",
        "a result divided by its norm",
        "What are the singular values to be, and so the norm?",
        _iterated(last=lambda x, a, b, c: x / _frobenius(x)),
    ),
    Known(
        "only-normalised",
        "G over its norm, without any step",
        _COUNT,
        _with(lambda g, steps, coefficients: (g, 0, coefficients)),
    ),
    Known(
        "scaled-for-muon",
        "the result times Muon's sqrt(max(1, rows / columns))",
        "That factor belongs to the learning rate: see the next exercise.",
        lambda g, steps, coefficients: _right(g, steps, coefficients) * max(1, len(g) / g.shape[1]) ** 0.5,
    ),
    Known(
        "signs",
        "the signs of G's elements",
        "The singular values are to be changed, not the elements.",
        lambda g, steps, coefficients: np.sign(g),
    ),
)
_CUBIC, _OTHER = (1.5, -0.5, 0.0), (2.0, -1.5, 0.5)
_RNG = np.random.default_rng(41)


def _case(g: np.ndarray, steps: int = 5, coefficients: Coefficients = JORDAN) -> dict[str, Any]:
    return {"g": g, "steps": steps, "coefficients": coefficients}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows, columns = map(int, rng.integers(2, 7, 2))
    return [
        _case(
            rng.normal(size=(rows, columns)),
            int(rng.integers(1, 5)),
            (float(rng.uniform(1.5, 3.5)), float(rng.uniform(-1.5, -0.5)), float(rng.uniform(0.2, 0.6))),
        )
    ]


def _zero(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isfinite(got[0]).all():
        return None
    return Finding("zero-matrix", "A matrix of zeros becomes NaN: 0 / 0.", "Divide by max(||G||, 1e-7).")


def _large(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape != want[0].shape or np.allclose(got[0], want[0], rtol=1e-6, atol=1e-12):
        return None
    return Finding(
        "depends-on-size",
        "Multiplied by a million, G gives another result.",
        "The size of G is to be forgotten. Is anything computed before the division?",
    )


judge_newton_schulz = Numeric(
    _right,
    [
        _case(_RNG.normal(size=(3, 5))),
        _case(3 * _RNG.normal(size=(5, 3)), 3),
        _case(_RNG.normal(size=(4, 4)), 4, _CUBIC),
        _case(0.01 * _RNG.normal(size=(4, 2)), 2, _OTHER),
        _case(1e-7 * _RNG.normal(size=(2, 3))),  # a norm of the floor's size
        _case(1e-9 * _RNG.normal(size=(3, 3)), 3),  # and below it
    ],
    _MISTAKES,
    "an array of the shape of `g`",
    edges=[
        Edge(_case(_RNG.normal(size=(3, 4)), 0)),
        Edge(_case(np.zeros((2, 3))), _zero),
        Edge(_case(1e6 * _RNG.normal(size=(6, 4))), _large),
        Edge(_case(_RNG.normal(size=(1, 5)))),
        Edge(_case(_RNG.normal(size=(5, 1)))),
        Edge(_case(_RNG.normal(size=(30, 20)) @ np.diag(np.r_[np.ones(10), np.zeros(10)]))),  # of rank ten
    ],
    drawn=_drawn,
)
