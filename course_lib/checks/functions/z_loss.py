"""The exercise `z_loss`: the penalty on the level of the output logits, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Result = tuple[Any, np.ndarray | None]


def _log_z(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))[:, 0]


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - _log_z(logits)[:, None])


def _mean_of_squares(z: np.ndarray, c: float) -> Any:
    return c * (z**2).mean()


def _pull(z: np.ndarray, p: np.ndarray, c: float) -> np.ndarray:
    return 2 * c * z[:, None] * p / len(z)


def _penalty(
    loss: Callable[[np.ndarray, float], Any] | None = _mean_of_squares,
    gradient: Callable[[np.ndarray, np.ndarray, float], np.ndarray] | None = _pull,
    level: Callable[[np.ndarray], np.ndarray] = _log_z,
) -> Callable[..., Result]:
    """``loss(level, c)``, ``gradient(level, softmax, c)``; ``level`` is what stands for log Z. None: not spoken of."""

    def run(logits: np.ndarray, coefficient: float) -> Result:
        z = level(logits)
        return (
            None if loss is None else loss(z, coefficient),
            None if gradient is None else gradient(z, _softmax(logits), coefficient),
        )

    return run


def _loss(loss: Callable[[np.ndarray, float], Any]) -> Callable[..., Result]:
    return _penalty(loss, None)


def _gradient(gradient: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> Callable[..., Result]:
    return _penalty(None, gradient)


def _level(level: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Result]:
    return _penalty(level=level)


def _columns(logits: np.ndarray, coefficient: float) -> Result:
    loss, gradient = _right(logits.T, coefficient)
    return loss, gradient.T


def _with_cross_entropy(logits: np.ndarray, coefficient: float) -> Result:
    """The gradient of log Z itself, as in a cross-entropy, beside the penalty's."""
    return None, _right(logits, coefficient)[1] + _softmax(logits) / len(logits)


_right = _penalty()
_SQUARE = (
    "The loss of a row is coefficient * (log Z)^2, log Z = log sum exp of its logits. Then the mean over the rows."
)
_CHAIN = "The derivative of a square, times the derivative of log Z by a logit. Which well-known function is that one?"
_ROWS = "The loss is a mean over n rows. By how much does one row count?"
_STABLE = "Subtract the largest logit of a row before exp, and add it again to the logarithm."
_MISTAKES = (
    Known("summed", "a sum over the rows, loss and gradient", _ROWS, _penalty(lambda z, c: c * (z**2).sum(), lambda z, p, c: len(z) * _pull(z, p, c))),
    Known("loss-summed", "a sum over the rows", _ROWS, _loss(lambda z, c: c * (z**2).sum())),
    Known("gradient-not-averaged", "a gradient of the sum over the rows", _ROWS, _gradient(lambda z, p, c: len(z) * _pull(z, p, c))),
    Known("averaged-over-elements", "a gradient that is divided by rows times classes", _ROWS, _gradient(lambda z, p, c: _pull(z, p, c) / p.shape[1])),
    Known("divided-by-classes", "a gradient that is divided by the classes in the place of the rows", _ROWS,
          _gradient(lambda z, p, c: _pull(z, p, c) * len(z) / p.shape[1])),
    Known("not-squared", "log Z in the place of its square", _SQUARE, _penalty(lambda z, c: c * z.mean(), lambda z, p, c: c * p / len(z))),
    Known("loss-not-squared", "log Z in the place of its square, in the loss alone", _SQUARE, _loss(lambda z, c: c * z.mean())),
    Known("size", "|log Z| in the place of its square", _SQUARE, _loss(lambda z, c: c * np.abs(z).mean())),
    Known("square-of-mean", "the square of the mean of log Z", "Square first, then average.", _loss(lambda z, c: c * z.mean() ** 2)),
    Known("halved", "half of the square: the gradient has no factor 2", "The penalty here has no 1/2.", _penalty(lambda z, c: c * (z**2).mean() / 2, lambda z, p, c: _pull(z, p, c) / 2)),
    Known("loss-halved", "half of the square", "The penalty here has no 1/2.", _loss(lambda z, c: c * (z**2).mean() / 2)),
    Known("coefficient-missing", "a coefficient of 1, whatever is given", "Is the argument read?", lambda logits, coefficient: _right(logits, 1.0)),
    Known("coefficient-missing-in-loss", "a loss without its coefficient", _SQUARE, _loss(lambda z, c: (z**2).mean())),
    Known("coefficient-missing-in-gradient", "a gradient without its coefficient", _CHAIN, _gradient(lambda z, p, c: _pull(z, p, 1.0))),
    Known("coefficient-of-palm", "PaLM's coefficient of 1e-4, whatever is given", "Is the argument read?", lambda logits, coefficient: _right(logits, 1e-4)),
    Known("coefficient-squared", "a coefficient that is squared with log Z", "Which of the two is squared?", lambda logits, coefficient: _right(logits, coefficient**2)),
    Known("two-missing", "a gradient without the factor 2 of a square", _CHAIN, _gradient(lambda z, p, c: _pull(z, p, c) / 2)),
    Known("level-missing", "a gradient without log Z: 2 * coefficient * softmax", _CHAIN, _gradient(lambda z, p, c: 2 * c * p / len(z))),
    Known("softmax-missing", "the same gradient for every class of a row: softmax is missing", _CHAIN, _gradient(lambda z, p, c: 2 * c * np.tile(z[:, None], p.shape[1]) / len(z))),
    Known("spread-evenly", "a gradient that is spread evenly over the classes", _CHAIN,
          _gradient(lambda z, p, c: 2 * c * np.tile(z[:, None], p.shape[1]) / len(z) / p.shape[1])),
    Known("square-in-gradient", "a gradient with the square of log Z", _CHAIN, _gradient(lambda z, p, c: _pull(z**2, p, c))),
    Known("gradient-turned", "a gradient with its sign turned", "The gradient points to where the loss grows; the optimizer subtracts it.", _gradient(lambda z, p, c: -_pull(z, p, c))),
    Known("of-the-square-root", "a gradient with softmax^2", _CHAIN, _gradient(lambda z, p, c: _pull(z, p**2, c))),
    Known("softmax-derived", "a gradient with p (1 - p): softmax itself is derived once more", _CHAIN, _gradient(lambda z, p, c: _pull(z, p * (1 - p), c))),
    Known("cross-entropy-added", "a gradient that holds a cross-entropy's softmax as well", "Only the penalty's gradient is asked for.", _with_cross_entropy),
    Known("only-softmax", "softmax over n: the gradient of log Z", _CHAIN, _gradient(lambda z, p, c: p / len(z))),
    Known("largest-logit", "the largest logit in the place of log Z", "log sum exp lies above the largest logit.", _level(lambda x: x.max(axis=1))),
    Known("largest-not-added", "a log Z from which the largest logit was subtracted and never added again", _STABLE, _level(lambda x: _log_z(x) - x.max(axis=1))),
    Known("largest-subtracted-twice", "a log Z less the largest logit, where it was to be added", _STABLE, _level(lambda x: _log_z(x) - 2 * x.max(axis=1))),
    Known("mean-exp", "the logarithm of the mean of exp, not of the sum", "Z is a sum.", _level(lambda x: _log_z(x) - np.log(x.shape[1]))),
    Known("base-two", "a logarithm to base 2", "The natural one.", _level(lambda x: _log_z(x) / np.log(2))),
    Known("base-ten", "a logarithm to base 10", "The natural one.", _level(lambda x: _log_z(x) / np.log(10))),
    Known("mean-logit", "the mean logit in the place of log Z", _SQUARE, _level(lambda x: x.mean(axis=1))),
    Known("mean-squared-logit", "the mean square of all logits: a penalty on the logits, not on their level", _SQUARE,
          lambda logits, coefficient: (coefficient * (logits**2).mean(), 2 * coefficient * logits / logits.size), OTHER_SPECIFICATION),
    Known("columns", "columns that are taken for rows", "A row is one token's logits: over which axis does the sum run?", _columns),
    Known("z-of-all", "one Z over all rows", "Each row has a Z of its own.", _level(lambda x: np.full(len(x), np.log(np.exp(x).sum())))),
)  # fmt: skip
_RNG = np.random.default_rng(29)


def _case(logits: Any, coefficient: float) -> dict[str, Any]:
    return {"logits": np.asarray(logits, dtype=np.float64), "coefficient": coefficient}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows, classes = map(int, rng.integers(2, 6, 2))
    return [_case(rng.normal(rng.uniform(-3, 3), 1.5, size=(rows, classes)), float(rng.uniform(0.001, 0.1)))]


def _large(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].size == 1 and np.isfinite(got[0]).all() and np.isfinite(got[1]).all():
        return None
    size = np.abs(case["logits"][np.isfinite(case["logits"])]).max()
    return Finding(
        "overflows" if not np.isfinite(got[0]).all() else "gradient-overflows",
        f"With logits of size {size:g}, the loss is {float(got[0].ravel()[0]):g}, and the gradient {'finite' if np.isfinite(got[1]).all() else 'not finite'}. "
        "exp(710) is beyond float64, and exp(-746) is 0, whose logarithm is -inf.",
        f"{_STABLE} And softmax is exp(logits - log Z).",
    )


def _masked(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isfinite(got[0]).all() and np.isfinite(got[1]).all():
        return None
    return Finding(
        "masked-class",
        "A logit of -inf, a class that is masked, makes NaN: 0 * inf, or inf - inf.",
        "Its share is exp(-inf) = 0, and its gradient 0. Which product has -inf in it?",
    )


def _masked_beside_small(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[1].shape == want[1].shape and (got[1][np.isneginf(case["logits"])] != 0).any():
        return Finding(
            "mask-replaced",
            "A logit of -inf has a share beside logits of -1e4: it was replaced by a number that is not small enough.",
            "Logits may be as low as -1e4 themselves, and exp(-inf) is 0 without any help. Leave -inf as it is.",
        )
    return _masked(case, got, want)


Z_LOSS = Numeric(
    _right,
    [
        _case(_RNG.normal(1.0, 1.0, size=(3, 5)), 0.01),
        _case(_RNG.normal(-4.0, 2.0, size=(4, 2)), 0.3),  # log Z of either sign
        _case(_RNG.normal(6.0, 1.0, size=(2, 3)), 1e-3),
    ],
    _MISTAKES,
    "a number and an array of the shape of `logits`",
    ("loss", "gradient"),
    edges=[
        Edge(_case([[0.3, -1.2, 2.0]], 0.1)),
        Edge(_case([[2.0], [-3.0]], 0.1)),
        Edge(_case(np.array([[0.0, -1.0, 1.5], [2.0, 1.0, 0.0]]) + 1e4, 1e-4), _large),
        Edge(_case(np.array([[0.0, -1.0, 1.5], [2.0, 1.0, 0.0]]) - 1e4, 1e-4), _large),
        Edge(_case([[1e4, -1e4, 0.0], [-1e4, -1e4, -9999.0]], 1e-4), _large),
        Edge(_case([[1.0, -np.inf, 0.5], [0.0, 1.0, -np.inf]], 0.1), _masked),
        Edge(_case([[-1e4, -np.inf, -9999.0], [0.5, -1e4, -np.inf]], 1e-4), _masked_beside_small),
    ],
    drawn=_drawn,
)
