"""Exercises of notebook 01: the walk itself, the best step, the floor that noise leaves, uneven micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Judge, Known, Numeric
from course_lib.checks.functions.sharpness import judge_sharpness
from course_lib.checks.functions.walks import (
    BOWL,
    CENTRED,
    QUARTIC,
    ROUND,
    WAVE,
    Gradient,
    Walk,
    collecting,
    stops_early,
)
from course_lib.checks.report import OTHER_SPECIFICATION

# ------------------------------------------------------------------------------------------------ gradient_descent


def _walk(step: Callable[[np.ndarray, Gradient, float, int, np.ndarray], np.ndarray]) -> Walk:
    def run(gradient: Gradient, start: np.ndarray, lr: float, steps: int) -> np.ndarray:
        points = [start]
        for t in range(1, steps + 1):
            points.append(step(points[-1], gradient, lr, t, start))
        return np.stack(points)

    return run


def _one_by_one(x: np.ndarray, gradient: Gradient, lr: float, t: int, start: np.ndarray) -> np.ndarray:
    x = x.copy()
    for i in range(len(x)):
        x[i] -= lr * gradient(x)[i]
    return x


def _gradients(gradient: Gradient, start: np.ndarray, lr: float, steps: int) -> np.ndarray:
    return np.stack([gradient(x) for x in _descent(gradient, start, lr, steps)])


_descent = _walk(lambda x, gradient, lr, t, start: x - lr * gradient(x))
_DESCENT_MISTAKES = (
    Known(
        "ascends", "a walk uphill", "Which way is down?", _walk(lambda x, gradient, lr, t, start: x + lr * gradient(x))
    ),
    Known(
        "lr-missing",
        "steps without the learning rate",
        "By what is the gradient multiplied?",
        _walk(lambda x, gradient, lr, t, start: x - gradient(x)),
    ),
    Known(
        "lr-divided",
        "a division by the learning rate",
        "Does a larger lr make longer steps or shorter ones?",
        _walk(lambda x, gradient, lr, t, start: x - gradient(x) / lr),
    ),
    Known(
        "half-step",
        "steps of half the length",
        "The gradient is multiplied by lr, and by nothing else.",
        _walk(lambda x, gradient, lr, t, start: x - 0.5 * lr * gradient(x)),
    ),
    Known(
        "double-step",
        "steps of twice the length",
        "The gradient is multiplied by lr, and by nothing else.",
        _walk(lambda x, gradient, lr, t, start: x - 2 * lr * gradient(x)),
    ),
    Known(
        "gradient-of-the-start",
        "a gradient taken once, at the start",
        "Where is each step's gradient taken?",
        _walk(lambda x, gradient, lr, t, start: x - lr * gradient(start)),
    ),
    Known(
        "always-from-the-start",
        "steps that all begin at the start",
        "Where does the second step begin?",
        _walk(lambda x, gradient, lr, t, start: start - lr * gradient(x)),
    ),
    Known(
        "one-coordinate-at-a-time",
        "an update of one coordinate after the other, each with the gradient at the point changed so far",
        "The whole gradient is taken at one point, before any coordinate moves.",
        _walk(_one_by_one),
    ),
    Known(
        "normalised",
        "steps of length lr: the gradient is divided by its norm",
        "Near the minimum the gradient is short. What should become of the step?",
        _walk(lambda x, gradient, lr, t, start: x - lr * gradient(x) / np.linalg.norm(gradient(x))),
    ),
    Known(
        "sign",
        "steps along the sign of the gradient",
        "Near the minimum the gradient is short. What should become of the step?",
        _walk(lambda x, gradient, lr, t, start: x - lr * np.sign(gradient(x))),
    ),
    Known(
        "lr-decays",
        "a learning rate that falls like 1 / t",
        "lr is the same in every step.",
        _walk(lambda x, gradient, lr, t, start: x - lr / t * gradient(x)),
    ),
    Known(
        "lr-decays-like-root",
        "a learning rate that falls like 1 / sqrt(t)",
        "lr is the same in every step.",
        _walk(lambda x, gradient, lr, t, start: x - lr / np.sqrt(t) * gradient(x)),
    ),
    Known("gradients", "the gradients along the walk", "The points are asked for, not their gradients.", _gradients),
    *collecting(_descent),
)
_DESCENT_CASES = [
    {"gradient": gradient, "start": np.array(start), "lr": lr, "steps": steps}
    for gradient, start, lr, steps in (
        (BOWL, [4.0, 3.0], 0.1, 5),
        (QUARTIC, [1.0, -2.0, 0.5], 0.07, 8),
        (WAVE, [2.5], 0.4, 4),
        (BOWL, [-1e6, 0.25], 0.31, 30),  # above 2 / L: the walk diverges, and is to be returned all the same
        (QUARTIC, [0.1, 0.2, 0.3], 0.2, 1),
        (CENTRED, [4e-6, 3e-6], 0.1, 5),  # small gradients, and as much to gain by a step as anywhere
        (ROUND, [3.0, -5.0], 0.25, 4),  # arrives with its first step, to the last bit, and stays
    )
]
_NO_STEPS = {"gradient": BOWL, "start": np.array([-0.5, 2.0]), "lr": 0.1, "steps": 0}


# ------------------------------------------------------------------------------------------------------- best_step


def _best(lr: Callable[[float, float], float], factor: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The step ``lr(L, mu)`` and ``factor(L, mu)``: without one, the contraction that this step really has."""

    def run(curvatures: np.ndarray) -> tuple[Any, Any]:
        top, low = np.max(curvatures).astype(float), np.min(curvatures).astype(float)
        step = lr(top, low)
        return step, np.max(np.abs(1 - step * curvatures)) if factor is None else factor(top, low)

    return run


def _of_ends(curvatures: np.ndarray) -> tuple[float, float]:
    first, last = curvatures[[0, -1]].astype(float)
    return 2 / (first + last), abs(last - first) / (first + last)


def _of_ends_signed(curvatures: np.ndarray, turn: int) -> tuple[float, float]:
    first, last = curvatures[[0, -1]].astype(float)
    return 2 / (first + last), turn * (last - first) / (first + last)


def _right_lr(top: float, low: float) -> float:
    return 2 / (top + low)


_best_step = _best(_right_lr)
_BEST_MISTAKES = (
    Known(
        "order",
        "factor and lr, exchanged",
        "The learning rate comes first.",
        lambda curvatures: _best_step(curvatures)[::-1],
    ),
    Known(
        "stability-limit",
        "the largest stable step, 2 / L",
        "At 2 / L the steepest direction does not shrink at all. Which step balances the two worst directions?",
        _best(lambda top, low: 2 / top),
    ),
    Known(
        "one-over-l",
        "the step 1 / L",
        "At 1 / L the steepest direction is done at once, and the flattest decides. Can it be made faster?",
        _best(lambda top, low: 1 / top),
    ),
    Known(
        "one-over-sum",
        "the step 1 / (L + mu)",
        "At the best step both ends shrink equally: lr * L - 1 = 1 - lr * mu.",
        _best(lambda top, low: 1 / (top + low)),
    ),
    Known(
        "one-over-mu",
        "the step 1 / mu",
        "With this lr, what happens along the steepest direction?",
        _best(lambda top, low: 1 / low),
    ),
    Known(
        "geometric-mean",
        "the step 1 / sqrt(L mu)",
        "At the best step both ends shrink equally: lr * L - 1 = 1 - lr * mu.",
        _best(lambda top, low: 1 / np.sqrt(top * low)),
    ),
    Known(
        "mean-of-all",
        "a step from the mean of all curvatures",
        "The worst case is asked for. Which curvatures can be the worst?",
        lambda curvatures: (1 / np.mean(curvatures), np.max(np.abs(1 - curvatures / np.mean(curvatures)))),
    ),
    Known(
        "median",
        "a step from the median curvature",
        "The worst case is asked for. Which curvatures can be the worst?",
        lambda curvatures: (1 / np.median(curvatures), np.max(np.abs(1 - curvatures / np.median(curvatures)))),
    ),
    Known(
        "two-over-sum-of-all",
        "a step of 2 over the sum of all curvatures",
        "The worst case is asked for. Which curvatures can be the worst?",
        lambda curvatures: (2 / np.sum(curvatures), np.max(np.abs(1 - 2 / np.sum(curvatures) * curvatures))),
    ),
    Known(
        "assumed-sorted",
        "the first and the last curvature, as if they came sorted",
        "They come in any order.",
        _of_ends,
    ),
    Known(
        "assumed-ascending",
        "the first and the last curvature, as if they came in ascending order",
        "They come in any order.",
        lambda curvatures: _of_ends_signed(curvatures, 1),
    ),
    Known(
        "assumed-descending",
        "the first and the last curvature, as if they came in descending order",
        "They come in any order.",
        lambda curvatures: _of_ends_signed(curvatures, -1),
    ),
    Known(
        "upside-down",
        "(L + mu) / 2, upside down",
        "Does a steeper bowl allow a larger lr or a smaller one?",
        _best(lambda top, low: (top + low) / 2, lambda top, low: None),
    ),
    Known(
        "momentum-step",
        "the heavy ball's step, (2 / (sqrt L + sqrt mu))^2",
        "There is no momentum here.",
        _best(lambda top, low: (2 / (np.sqrt(top) + np.sqrt(low))) ** 2, lambda top, low: None),
    ),
    Known(
        "factor-of-the-loss",
        "the contraction of the loss: the square of that of the distance",
        "The loss is quadratic in the distance. Asked for is by how much the distance shrinks.",
        _best(_right_lr, lambda top, low: ((top - low) / (top + low)) ** 2),
        OTHER_SPECIFICATION,
    ),
    Known(
        "factor-of-momentum",
        "the heavy ball's factor, with square roots",
        "There is no momentum here.",
        _best(_right_lr, lambda top, low: (np.sqrt(top) - np.sqrt(low)) / (np.sqrt(top) + np.sqrt(low))),
    ),
    Known(
        "factor-of-one-over-l",
        "the contraction at the step 1 / L: 1 - mu / L",
        "Put your lr into |1 - lr * c|.",
        _best(_right_lr, lambda top, low: 1 - low / top),
    ),
    Known(
        "factor-negative",
        "1 - lr * L, with its sign",
        "A contraction is a size: it is never negative.",
        _best(_right_lr, lambda top, low: (low - top) / (top + low)),
    ),
    Known(
        "factor-complement",
        "what is lost in a step, not what is left",
        "The factor is by what the error is multiplied.",
        _best(_right_lr, lambda top, low: 2 * low / (top + low)),
    ),
    Known(
        "factor-upside-down",
        "(L + mu) / (L - mu)",
        "A factor above 1 would diverge.",
        _best(_right_lr, lambda top, low: (top + low) / np.float64(top - low)),
    ),
    Known(
        "condition-number",
        "the condition number L / mu",
        "The factor is below 1 and depends on L / mu.",
        _best(_right_lr, lambda top, low: top / low),
    ),
    Known(
        "condition-reciprocal",
        "mu / L",
        "The factor is |1 - lr * c| for the worst c.",
        _best(_right_lr, lambda top, low: low / top),
    ),
)
_BEST_CASES = [
    {"curvatures": np.array(curvatures)}
    for curvatures in (
        [3.0, 0.5, 8.0, 1.0],
        [4.0],
        [20.0, 2.0, 7.0],
        [2.5, 2.5],
        [1e4, 1e-3, 3.0, 3.0],
        [7, 100, 1, 30],
    )
]


# ----------------------------------------------------------------------------------------------------- noise_floor


def _floor(
    formula: Callable[[float, float, float], float], beyond: float = np.inf, limit: float = 2.0
) -> Callable[..., float]:
    def run(lr: float, curvature: float, noise: float) -> float:
        return formula(lr, curvature, noise) if lr * curvature < limit else beyond

    return run


def _stationary(lr: float, curvature: float, noise: float) -> float:
    return lr * noise**2 / (curvature * (2 - lr * curvature))


_noise_floor = _floor(_stationary)
_FLOOR_MISTAKES = (
    Known(
        "not-unstable",
        "the formula, also where it makes no sense: a variance below zero, or a division by zero",
        "For which lr does x not settle at all? Test for that first.",
        _stationary,
    ),
    Known(
        "nan-for-infinity",
        "a NaN where the variance grows without bound",
        "The exercise asks for math.inf there.",
        _floor(_stationary, beyond=np.nan),
    ),
    Known(
        "zero-for-infinity",
        "a variance of 0 where it grows without bound",
        "The exercise asks for math.inf there.",
        _floor(_stationary, beyond=0.0),
    ),
    Known(
        "limit-at-one",
        "a limit at lr * curvature = 1",
        "Between 1 and 2, x changes its sign at every step. Does it grow?",
        _floor(_stationary, limit=1.0),
    ),
    Known(
        "small-step-limit",
        "the approximation for small steps, lr noise^2 / (2 curvature)",
        "What becomes of the square of lr * curvature in (1 - lr * curvature)^2?",
        _floor(lambda lr, c, s: lr * s**2 / (2 * c)),
    ),
    Known(
        "small-step-everywhere",
        "the approximation for small steps, also where x never settles",
        "What becomes of the square of lr * curvature in (1 - lr * curvature)^2?",
        lambda lr, curvature, noise: lr * noise**2 / (2 * curvature),
    ),
    Known(
        "deviation",
        "a standard deviation",
        "The variance is asked for.",
        _floor(lambda lr, c, s: np.sqrt(_stationary(lr, c, s))),
    ),
    Known(
        "noise-not-squared",
        "a noise that is not squared",
        "How does the variance of noise * z depend on noise?",
        _floor(lambda lr, c, s: lr * s / (c * (2 - lr * c))),
    ),
    Known(
        "contraction-not-squared",
        "a variance multiplied by 1 - lr * curvature in each step",
        "If x is multiplied by a factor, by what is its variance multiplied?",
        _floor(lambda lr, c, s: lr * s**2 / c),
    ),
    Known(
        "contraction-not-squared-size",
        "a variance multiplied by |1 - lr * curvature| in each step",
        "If x is multiplied by a factor, by what is its variance multiplied?",
        _floor(lambda lr, c, s: (lr * s) ** 2 / (1 - np.abs(1 - lr * c))),
    ),
    Known(
        "noise-without-lr",
        "a noise that is added without lr",
        "Read the rule again: what multiplies the noise?",
        _floor(lambda lr, c, s: s**2 / (lr * c * (2 - lr * c))),
    ),
    Known(
        "lr-not-squared",
        "a noise whose variance is lr noise^2 per step",
        "How does the variance of lr * noise * z depend on lr?",
        _floor(lambda lr, c, s: s**2 / (c * (2 - lr * c))),
    ),
    Known(
        "one-step",
        "the variance that a single step adds",
        "Every step adds that much, and shrinks what is there. Where do the two balance?",
        _floor(lambda lr, c, s: (lr * s) ** 2),
    ),
    Known(
        "loss",
        "a mean loss: curvature / 2 times the variance",
        "The variance of x is asked for.",
        _floor(lambda lr, c, s: lr * s**2 / (2 * (2 - lr * c))),
    ),
    Known(
        "curvature-missing",
        "a denominator without its curvature",
        "Does a steeper bowl hold x more tightly, or less?",
        _floor(lambda lr, c, s: lr * s**2 / (2 - lr * c)),
    ),
    Known(
        "sign-in-the-denominator",
        "2 + lr * curvature in the denominator",
        "1 - (1 - u)^2 = u (2 - u).",
        _floor(lambda lr, c, s: lr * s**2 / (c * (2 + lr * c))),
    ),
    Known(
        "one-in-the-denominator",
        "1 - lr * curvature in the denominator",
        "1 - (1 - u)^2 = u (2 - u).",
        _floor(lambda lr, c, s: lr * s**2 / (c * (1 - lr * c))),
    ),
    Known(
        "half",
        "half of it",
        "Solve s = (1 - lr * curvature)^2 s + (lr * noise)^2 once more.",
        _floor(lambda lr, c, s: 0.5 * _stationary(lr, c, s)),
    ),
)
# Without noise and with lr * curvature >= 2 there is no case: x stays at 0 if it starts there, and else grows for ever.
_FLOOR_CASES = [
    {"lr": lr, "curvature": curvature, "noise": noise}
    for lr, curvature, noise in (
        (0.1, 1.0, 1.0),
        (0.5, 3.0, 2.0),  # lr * curvature between 1 and 2: x alternates and still settles
        (0.5, 4.0, 1.5),  # exactly 2, in binary too
        (0.75, 4.0, 0.3),
        (0.499875, 4.0, 0.2),
        (1e-5, 300.0, 40.0),
        (1e-3, 1e-3, 1e-4),
        (0.1, 2.0, 0.0),
    )
]


# -------------------------------------------------------------------------------------------- accumulated_gradient


def _weighted(weights: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The sum of the means, each multiplied by its weight."""
    return lambda means, counts: weights(counts.astype(np.float64)) @ means


def _halved(means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    kept = means[0]
    for mean in means[1:]:
        kept = (kept + mean) / 2
    return kept


_accumulated = _weighted(lambda n: n / n.sum())
_ACCUMULATED_MISTAKES = (
    Known(
        "mean-of-means",
        "the mean of the means",
        "An example in a small micro-batch would count for more than one in a large one.",
        _weighted(lambda n: np.ones_like(n) / len(n)),
    ),
    Known(
        "sum-of-means",
        "the sum of the means",
        "Four micro-batches would make the gradient four times as long.",
        _weighted(np.ones_like),
    ),
    Known(
        "not-divided",
        "the gradient of the summed loss",
        "The mean loss is asked for: by what is the sum divided?",
        _weighted(lambda n: n),
    ),
    Known(
        "divided-by-micro-batches",
        "a sum over examples, divided by the number of micro-batches",
        "How many terms does the sum over examples have?",
        _weighted(lambda n: n / len(n)),
    ),
    Known(
        "divided-by-largest",
        "counts relative to the largest, divided by the number of micro-batches",
        "Do your weights add up to 1?",
        _weighted(lambda n: n / n.max() / len(n)),
    ),
    Known(
        "relative-to-largest",
        "counts relative to the largest as weights",
        "Do your weights add up to 1?",
        _weighted(lambda n: n / n.max()),
    ),
    Known(
        "relative-to-first",
        "counts relative to the first, divided by the number of micro-batches",
        "Do your weights add up to 1?",
        _weighted(lambda n: n / n[0] / len(n)),
    ),
    Known(
        "weights-inverted",
        "weights that fall with the count",
        "Which micro-batch says more: one of ten examples, or one of two?",
        _weighted(lambda n: (1 / n) / (1 / n).sum()),
    ),
    Known(
        "divided-again",
        "means divided by their counts and added",
        "They are means already.",
        _weighted(lambda n: 1 / n),
    ),
    Known(
        "divided-by-total",
        "means added and divided by the number of examples",
        "Turn each mean back into a sum over its examples first.",
        _weighted(lambda n: np.ones_like(n) / n.sum()),
    ),
    Known(
        "divided-twice",
        "a weighted mean divided once more by the number of micro-batches",
        "Do your weights add up to 1?",
        _weighted(lambda n: n / n.sum() / len(n)),
    ),
    Known(
        "roots",
        "weights that grow like the root of the count",
        "Each example counts the same.",
        _weighted(lambda n: np.sqrt(n) / np.sqrt(n).sum()),
    ),
    Known(
        "squares",
        "weights that grow like the square of the count",
        "Each example counts the same.",
        _weighted(lambda n: n**2 / (n**2).sum()),
    ),
    Known(
        "last-only",
        "the last micro-batch alone, as if gradients were zeroed inside the loop",
        "When are gradients zeroed?",
        lambda means, counts: means[-1],
    ),
    Known("first-only", "the first micro-batch alone", "All of them count.", lambda means, counts: means[0]),
    Known(
        "halved-each-time",
        "a running mean that halves what it has at each micro-batch",
        "How much weight is left of the first micro-batch in the end?",
        _halved,
    ),
    Known(
        "wrong-axis",
        "a mean over the coordinates, one number for each micro-batch",
        "Along which axis do the micro-batches lie?",
        lambda means, counts: means.mean(1),
    ),
)
_RNG = np.random.default_rng(1)
_ACCUMULATED_CASES = [
    {"means": _RNG.normal(size=(len(counts), size)) * scale, "counts": np.array(counts)}
    for counts, size, scale in (
        ([8, 8, 3], 4, 1.0),
        ([5], 3, 1.0),
        ([1, 1000], 1, 1e3),
        ([2, 7, 1, 4, 4], 5, 1e-6),
        ([4, 4], 2, 1.0),
        ([3, 1, 2], 3, 1.0),
    )
]

JUDGES: dict[str, Judge] = {
    "gradient_descent": Numeric(
        _descent,
        _DESCENT_CASES,
        _DESCENT_MISTAKES,
        "an array of shape (steps + 1, n)",
        edges=[Edge(_NO_STEPS)],
        pattern=stops_early,
    ),
    "best_step": Numeric(_best_step, _BEST_CASES, _BEST_MISTAKES, "two numbers, lr and factor", ("lr", "factor")),
    "sharpness": judge_sharpness,
    "noise_floor": Numeric(_noise_floor, _FLOOR_CASES, _FLOOR_MISTAKES, "a float"),
    "accumulated_gradient": Numeric(_accumulated, _ACCUMULATED_CASES, _ACCUMULATED_MISTAKES, "an array of shape (n,)"),
}
