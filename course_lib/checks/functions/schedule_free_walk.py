"""The exercise of notebook 14 on schedule-free SGD: three points, of which one is an average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, close
from course_lib.checks.functions.walks import BOWL, CENTRED, QUARTIC, WAVE, Gradient, gradient_of
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Points = tuple[np.ndarray | None, ...]  # y (steps, n); z and x (steps + 1, n)


def _between(z: np.ndarray, x: np.ndarray, beta: float) -> np.ndarray:
    return (1 - beta) * z + beta * x


def _walk(
    y_of: Callable[[np.ndarray, np.ndarray, float], np.ndarray] = _between,
    at: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = lambda y, z, x: y,
    z_of: Callable[..., np.ndarray] = lambda y, z, x, g, lr, beta: z - lr * g,
    weight: Callable[[int, float], float] = lambda t, beta: 1 / t,
    averaged: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = lambda y, old, new: new,
) -> Callable[..., Points]:
    """``schedule_free_walk`` with a line changed; x averages ``averaged(y, z, new z)`` with ``weight(t, beta)``."""

    def run(gradient: Gradient, start: np.ndarray, lr: float, beta: float, steps: int) -> Points:
        z = x = start
        ys, zs, xs = [], [z], [x]
        for t in range(1, steps + 1):
            y = y_of(z, x, beta)
            old, z = z, z_of(y, z, x, gradient(at(y, z, x)), lr, beta)
            c = weight(t, beta)
            x = (1 - c) * x + c * averaged(y, old, z)
            ys.append(y)
            zs.append(z)
            xs.append(x)
        return np.array(ys).reshape(steps, len(start)), np.stack(zs), np.stack(xs)

    return run


def _other(**changed: Any) -> Callable[..., Points]:
    """The right answer to other arguments."""
    return lambda **case: _right(**(case | changed))


def _of(change: Callable[..., Points]) -> Callable[..., Points]:
    return lambda **case: change(*_right(**case))


def _y_after(gradient: Gradient, start: np.ndarray, lr: float, beta: float, steps: int) -> Points:
    y, z, x = _right(gradient, start, lr, beta, steps + 1)
    return y[1:], None, None


def _momentum_into_z(gradient: Gradient, start: np.ndarray, lr: float, beta: float, steps: int) -> Points:
    """The heavy ball, and an average of its points beside it."""
    z = x = start
    v = np.zeros_like(start)
    ys, zs, xs = [], [z], [x]
    for t in range(1, steps + 1):
        ys.append(z)
        v = beta * v + gradient(z)
        z = z - lr * v
        x = x + (z - x) / t
        zs.append(z)
        xs.append(x)
    return np.array(ys).reshape(steps, len(start)), np.stack(zs), np.stack(xs)


_right = _walk()
_GRADIENT = "Three points, and the gradient is taken at one of them: which?"
_BASE = "Which of the three points takes the step?"
_MEAN = "x_t is the plain mean of z_1, ..., z_t. What is it after the first step?"
_WHICH = "Return y, z and x, in this order."
_MISTAKES = (
    Known(
        "gradient-at-z",
        "gradients taken at z: Polyak's average beside plain SGD, y itself being right",
        _GRADIENT,
        _walk(at=lambda y, z, x: z),
    ),
    Known(
        "gradient-at-x",
        "gradients taken at x, the average: primal averaging, y itself being right",
        _GRADIENT,
        _walk(at=lambda y, z, x: x),
    ),
    Known(
        "y-weights-swapped",
        "a y with its weights exchanged: beta z + (1 - beta) x",
        "With beta = 0.9, is y near the average or near z?",
        _walk(lambda z, x, beta: beta * z + (1 - beta) * x),
    ),
    Known(
        "y-is-z",
        "a y that is z: Polyak's average beside plain SGD",
        "y lies between z and x.",
        _walk(lambda z, x, beta: z),
    ),
    Known("y-is-x", "a y that is x: primal averaging", "y lies between z and x.", _walk(lambda z, x, beta: x)),
    Known(
        "y-half-way",
        "a y half way between z and x, whatever beta",
        "Is the argument read?",
        _walk(lambda z, x, beta: (z + x) / 2),
    ),
    Known(
        "y-extrapolated",
        "a y beyond z: z + beta (z - x), as Nesterov's look-ahead",
        "y lies between z and x.",
        _walk(lambda z, x, beta: z + beta * (z - x)),
    ),
    Known("beta-hard-coded", "a beta of 0.9 whatever is given", "Is the argument read?", _other(beta=0.9)),
    Known(
        "y-after-the-step",
        "the y of after each step: the last is not needed, the first is missing",
        "Where was the gradient of step 1 taken?",
        _y_after,
    ),
    Known("z-from-y", "a step of z that starts at y", _BASE, _walk(z_of=lambda y, z, x, g, lr, beta: y - lr * g)),
    Known("z-from-x", "a step of z that starts at x", _BASE, _walk(z_of=lambda y, z, x, g, lr, beta: x - lr * g)),
    Known("ascends", "a step uphill", "Which way is down?", _walk(z_of=lambda y, z, x, g, lr, beta: z + lr * g)),
    Known("lr-missing", "a step without the learning rate", "What scales the gradient?", _other(lr=1.0)),
    Known(
        "lr-times-gain",
        "a step of lr * (1 - beta)",
        "z takes the whole step.",
        _walk(z_of=lambda y, z, x, g, lr, beta: z - lr * (1 - beta) * g),
    ),
    Known(
        "heavy-ball",
        "the heavy ball, with an average beside it",
        "beta is no momentum here: no buffer is kept.",
        _momentum_into_z,
    ),
    Known(
        "start-counts",
        "an average in which the start counts: weights 1 / (t + 1), as in equation 5 of the paper",
        "Here x_1 = z_1, as in Algorithm 1 and the authors' code.",
        _walk(weight=lambda t, beta: 1 / (t + 1)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "weights-one-behind",
        "weights 1 / (t - 1): the count is one behind, and the first two are whole",
        _MEAN,
        _walk(weight=lambda t, beta: 1 / max(t - 1, 1)),
    ),
    Known(
        "moving-average",
        "an exponential moving average: weights 1 - beta",
        _MEAN,
        _walk(weight=lambda t, beta: 1 - beta),
    ),
    Known(
        "moving-average-reversed",
        "an exponential moving average with weights beta",
        _MEAN,
        _walk(weight=lambda t, beta: beta),
    ),
    Known(
        "weights-swapped",
        "x = x / t + (1 - 1 / t) z: the weights are exchanged",
        _MEAN,
        _walk(weight=lambda t, beta: 1 - 1 / t),
    ),
    Known("weights-half", "weights of 1/2", _MEAN, _walk(weight=lambda t, beta: 0.5)),
    Known(
        "linear-weights",
        "weights 2 / (t + 1): later z count more",
        _MEAN,
        _walk(weight=lambda t, beta: 2 / (t + 1)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "averages-old-z",
        "an average of the z before the step: x lags by one",
        "x_t is the mean of z_1, ..., z_t, the newest with it.",
        _walk(averaged=lambda y, old, new: old),
    ),
    Known("averages-y", "an average of the y", "Of which points is x the mean?", _walk(averaged=lambda y, old, new: y)),
    Known(
        "x-never-moves",
        "an x that stays at the start",
        "x_t is the mean of z_1, ..., z_t.",
        _walk(weight=lambda t, beta: 0.0),
    ),
    Known("x-is-z", "an x that is z", _MEAN, _walk(weight=lambda t, beta: 1.0)),
    Known(
        "sum",
        "a sum in the place of the mean for x, in the result alone",
        _MEAN,
        _of(lambda y, z, x: (None, None, np.concatenate([x[:1], x[1:] * np.arange(1, len(x))[:, None]]))),
    ),
    Known("y-and-x-swapped", "x, z and y in the place of y, z and x", _WHICH, _of(lambda y, z, x: (x, None, y))),
    Known("z-and-x-swapped", "y, x and z in the place of y, z and x", _WHICH, _of(lambda y, z, x: (None, x, z))),
    Known("turned", "z, x and y in the place of y, z and x", _WHICH, _of(lambda y, z, x: (z, x, y))),
    Known("turned-back", "x, y and z in the place of y, z and x", _WHICH, _of(lambda y, z, x: (x, y, z))),
    Known(
        "starts-missing",
        "a z and an x without the start",
        "z_0 = x_0 = start is their first row.",
        _of(lambda y, z, x: (None, z[1:], x[1:])),
    ),
    Known(
        "z-aliased",
        "the last z over and over",
        "If one array is changed in place and appended each time, how many arrays are in the list?",
        _of(lambda y, z, x: (None, np.tile(z[-1], (len(z), 1)), None)),
    ),
    Known(
        "x-aliased",
        "the last x over and over",
        "If one array is changed in place and appended each time, how many arrays are in the list?",
        _of(lambda y, z, x: (None, None, np.tile(x[-1], (len(x), 1)))),
    ),
    Known(
        "one-step-more",
        "a walk of one step too many",
        "`steps` gradients are taken.",
        lambda **case: _right(**(case | {"steps": case["steps"] + 1})),
    ),
    Known(
        "one-step-less",
        "a walk of one step too few",
        "`steps` gradients are taken.",
        lambda **case: _right(**(case | {"steps": case["steps"] - 1})),
    ),
    Known(
        "last-points",
        "the last points alone",
        "All points are asked for, one in a row.",
        _of(lambda y, z, x: (y[-1], z[-1], x[-1])),
    ),
)


def _case(gradient: Gradient, start: Any, lr: float, beta: float, steps: int) -> dict[str, Any]:
    return {"gradient": gradient, "start": np.asarray(start, dtype=np.float64), "lr": lr, "beta": beta, "steps": steps}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        _case(
            QUARTIC,
            rng.uniform(-1, 1, 3),
            float(rng.uniform(0.1, 0.3)),
            float(rng.uniform(0.3, 0.8)),
            int(rng.integers(3, 12)),
        )
    ]


_ITSELF = gradient_of("|x|^2 / 2, which returns the very array that it is given", 2, lambda x: x)


def _spoilt(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if all(map(close, got, want)) or got[0].shape != want[0].shape:
        return None
    return Finding(
        "gradient-written",
        "Where the gradient is the very array that it was taken at, as for |x|^2 / 2, points come out wrong: the "
        "gradient is changed in place, and y with it.",
        "Which operation works on what `gradient` returned? Make a new array.",
    )


def _of_one_number(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if all(mine.shape == right.shape for mine, right in zip(got, want, strict=True)):
        return None
    shapes = f"{', '.join(str(part.shape) for part in got)} instead of {', '.join(str(part.shape) for part in want)}"
    return Finding(
        "axis-lost", f"With points of one number, y, z and x have shapes {shapes}.", "A squeeze drops every axis of 1."
    )


judge_schedule_free_walk = Numeric(
    _right,
    [
        _case(BOWL, [3.0, -1.0], 0.1, 0.7, 8),
        _case(QUARTIC, [1.0, -0.8, 0.5], 0.2, 0.4, 11),
        _case(CENTRED, [1.0, 1.0], 0.05, 0.95, 4),
    ],
    _MISTAKES,
    "y, z and x, one point in a row",
    ("y", "z", "x"),
    edges=[
        Edge(_case(BOWL, [2.0, 1.0], 0.1, 0.9, 1)),
        Edge(_case(BOWL, [2.0, 1.0], 0.1, 0.0, 5)),
        Edge(_case(BOWL, [2.0, 1.0], 0.1, 1.0, 5)),
        Edge(_case(WAVE, [2.0], 0.3, 0.6, 6), _of_one_number),
        Edge(_case(_ITSELF, [2.0, -1.0], 0.3, 0.6, 6), _spoilt),
        Edge(_case(QUARTIC, [1.0, 2.0, 3.0], 0.1, 0.9, 200)),
    ],
    drawn=_drawn,
)
