"""Exercises of notebook 02: Nesterov's look-ahead, the best momentum, where the learning rate stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Judge, Known, Numeric
from course_lib.checks.functions.walks import BOWL, CENTRED, QUARTIC, WAVE, Gradient, Walk, collecting, stops_early
from course_lib.checks.report import OTHER_SPECIFICATION

# ---------------------------------------------------------------------------------------------- nesterov_lookahead

Rule = Callable[[np.ndarray, np.ndarray, Gradient, float, float], tuple[np.ndarray, np.ndarray]]


def _glide(rule: Rule) -> Walk:
    """``rule(theta, v, gradient, lr, mu)`` gives the next theta and v."""

    def run(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
        theta, v, points = start, np.zeros_like(start), [start]
        for _ in range(steps):
            theta, v = rule(theta, v, gradient, lr, momentum)
            points.append(theta)
        return np.stack(points)

    return run


def _velocity(velocity: Callable[..., np.ndarray]) -> Walk:
    """Rules that differ in the new velocity alone."""

    def rule(theta, v, gradient, lr, mu):
        v = velocity(theta, v, gradient, lr, mu)
        return theta + v, v

    return _glide(rule)


def _lookahead_points(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
    points = _lookahead(gradient, start, lr, momentum, steps)
    return points + momentum * np.diff(points, axis=0, prepend=points[:1])


def _gradient_difference(first: bool, buffer: bool) -> Walk:
    """Momentum, or none, on g_t + mu (g_t - g_{t-1}); ``first``: before the first gradient comes that same gradient."""

    def run(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
        theta, b, points = start, np.zeros_like(start), [start]
        before = gradient(start) if first else np.zeros_like(start)
        for _ in range(steps):
            g = gradient(theta)
            b = momentum * b * buffer + g + momentum * (g - before)
            theta, before = theta - lr * b, g
            points.append(theta)
        return np.stack(points)

    return run


def _convex(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
    theta, v, points = start, np.zeros_like(start), [start]
    for t in range(1, steps + 1):
        mu = (t - 1) / (t + 2)
        v = mu * v - lr * gradient(theta + mu * v)
        theta = theta + v
        points.append(theta)
    return np.stack(points)


def _velocities(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
    return np.diff(_lookahead(gradient, start, lr, momentum, steps), axis=0, prepend=start[None])


def _with_first_velocity(gradient: Gradient, start: np.ndarray, lr: float, momentum: float, steps: int) -> np.ndarray:
    theta, v, points = start, -lr * gradient(start), [start]
    for _ in range(steps):
        v = momentum * v - lr * gradient(theta + momentum * v)
        theta = theta + v
        points.append(theta)
    return np.stack(points)


def _unscaled(theta, v, gradient, lr, mu):
    v = mu * v - gradient(theta + mu * v)
    return theta + lr * v, v


_lookahead = _velocity(lambda theta, v, gradient, lr, mu: mu * v - lr * gradient(theta + mu * v))
_LOOKAHEAD_MISTAKES = (
    Known(
        "heavy-ball",
        "the heavy ball: the gradient is taken at theta",
        "Where will momentum alone carry theta? That is where the gradient is taken.",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - lr * gradient(theta)),
    ),
    Known(
        "looks-back",
        "a look-ahead against the velocity: theta - momentum * v",
        "Check the sign: with v pointing downhill, which point lies ahead?",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - lr * gradient(theta - mu * v)),
    ),
    Known(
        "looks-too-far",
        "a look-ahead by the whole velocity: theta + v",
        "How much of v is left after this step, before the gradient is added?",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - lr * gradient(theta + v)),
    ),
    Known(
        "looks-too-near",
        "a look-ahead by momentum^2 * v: v was multiplied before, and once more for the look-ahead",
        "momentum multiplies v once.",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - lr * gradient(theta + mu * mu * v)),
    ),
    Known(
        "steps-from-lookahead",
        "steps that start at the look-ahead point",
        "Only the gradient is taken there. From where does theta move?",
        _glide(
            lambda theta, v, gradient, lr, mu: (
                theta + mu * v + mu * v - lr * gradient(theta + mu * v),
                mu * v - lr * gradient(theta + mu * v),
            )
        ),
    ),
    Known(
        "lookahead-points",
        "the look-ahead points theta + momentum * v: what the parameters of torch's SGD(nesterov=True) hold",
        "The two differ by a change of variables. The exercise asks for theta.",
        _lookahead_points,
        OTHER_SPECIFICATION,
    ),
    Known(
        "gradient-difference",
        "a step along g_t + momentum * (g_t - g_{t-1}), without a velocity",
        "An extrapolated gradient is not a look-ahead: v remembers more than one gradient.",
        _gradient_difference(first=False, buffer=False),
    ),
    Known(
        "gradient-difference-from-first",
        "a step along g_t + momentum * (g_t - g_{t-1}), without a velocity, plain at the first step",
        "An extrapolated gradient is not a look-ahead: v remembers more than one gradient.",
        _gradient_difference(first=True, buffer=False),
    ),
    Known(
        "gradient-difference-with-momentum",
        "momentum on g_t + momentum * (g_t - g_{t-1}), with no difference at the first step",
        "With g_0 = 0 this would give the look-ahead points; the exercise asks for theta, from the look-ahead itself.",
        _gradient_difference(first=True, buffer=True),
    ),
    Known(
        "decreasing-momentum",
        "Nesterov's momentum for convex functions, (t - 1) / (t + 2)",
        "momentum is the same in every step here.",
        _convex,
        OTHER_SPECIFICATION,
    ),
    Known(
        "no-momentum",
        "plain gradient descent",
        "What does v carry from one step to the next?",
        _velocity(lambda theta, v, gradient, lr, mu: -lr * gradient(theta)),
    ),
    Known(
        "velocity-not-kept",
        "plain steps: v is not kept",
        "What does v carry from one step to the next?",
        _velocity(lambda theta, v, gradient, lr, mu: -lr * gradient(theta + mu * v)),
    ),
    Known(
        "ascends",
        "a walk uphill",
        "Which way is down?",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v + lr * gradient(theta + mu * v)),
    ),
    Known(
        "averaged",
        "a velocity that averages: lr times (1 - momentum)",
        "In this form the gradient enters with lr alone.",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - (1 - mu) * lr * gradient(theta + mu * v)),
    ),
    Known(
        "lr-missing",
        "a velocity without the learning rate",
        "By what is the gradient multiplied?",
        _velocity(lambda theta, v, gradient, lr, mu: mu * v - gradient(theta + mu * v)),
    ),
    Known(
        "lr-outside",
        "a look-ahead by momentum * v with a v that lacks lr",
        "If lr multiplies v only in the step, how far ahead does the look-ahead have to go?",
        _glide(_unscaled),
    ),
    Known(
        "old-velocity",
        "steps along the old velocity",
        "theta moves by the new v.",
        _glide(lambda theta, v, gradient, lr, mu: (theta + v, mu * v - lr * gradient(theta + mu * v))),
    ),
    Known(
        "momentum-on-the-gradient",
        "a velocity that multiplies the gradient by momentum too: momentum * (v - lr * gradient)",
        "momentum multiplies the old velocity alone.",
        _velocity(lambda theta, v, gradient, lr, mu: mu * (v - lr * gradient(theta + mu * v))),
    ),
    Known(
        "velocity-not-used",
        "steps by -lr * gradient alone, though v is kept",
        "The gradient is taken ahead. By what does theta move?",
        _glide(
            lambda theta, v, gradient, lr, mu: (
                theta - lr * gradient(theta + mu * v),
                mu * v - lr * gradient(theta + mu * v),
            )
        ),
    ),
    Known(
        "first-velocity",
        "a velocity that starts at -lr times the first gradient",
        "v starts at 0: the first step is a plain one.",
        _with_first_velocity,
    ),
    Known("velocities", "the velocities", "The points are asked for.", _velocities),
    *collecting(_lookahead),
)
_LOOKAHEAD_CASES = [
    {"gradient": gradient, "start": np.array(start), "lr": lr, "momentum": momentum, "steps": steps}
    for gradient, start, lr, momentum, steps in (
        (BOWL, [4.0, 3.0], 0.05, 0.9, 8),
        (QUARTIC, [1.0, -2.0, 0.5], 0.07, 0.6, 6),
        (WAVE, [2.5], 0.4, 0.95, 5),
        (BOWL, [-1e6, 0.25], 0.2, 0.99, 20),
        (QUARTIC, [0.5, 0.2, -0.3], 0.2, 0.0, 4),
        (BOWL, [-0.5, 2.0], 0.1, 0.5, 1),
        (CENTRED, [4e-6, 3e-6], 0.05, 0.9, 8),
    )
]
_NO_STEPS = {"gradient": BOWL, "start": np.array([-0.5, 2.0]), "lr": 0.1, "momentum": 0.9, "steps": 0}


# ------------------------------------------------------------------------------------------------ optimal_momentum


def _of_roots(
    formula: Callable[[float, float, float, float], tuple[Any, Any, Any]],
) -> Callable[..., tuple[Any, Any, Any]]:
    """``formula(a, b, L, mu)`` with the roots a = sqrt(L) and b = sqrt(mu)."""

    def run(curvatures: np.ndarray) -> tuple[Any, Any, Any]:
        top, low = np.max(curvatures).astype(float), np.min(curvatures).astype(float)
        return formula(np.sqrt(top), np.sqrt(low), top, low)

    return run


def _of_two(first: float, last: float) -> tuple[float, float, float]:
    a, b = np.sqrt(float(first)), np.sqrt(float(last))
    return (2 / (a + b)) ** 2, ((a - b) / (a + b)) ** 2, abs(a - b) / (a + b)


_optimal = _of_roots(lambda a, b, top, low: ((2 / (a + b)) ** 2, ((a - b) / (a + b)) ** 2, (a - b) / (a + b)))
_OPTIMAL_MISTAKES = (
    Known(
        "order",
        "momentum and lr, exchanged",
        "The order asked for is lr, momentum, factor.",
        lambda curvatures: tuple(_optimal(curvatures)[i] for i in (1, 0, 2)),
    ),
    Known(
        "order-of-the-last-two",
        "factor and momentum, exchanged",
        "The order asked for is lr, momentum, factor.",
        lambda curvatures: tuple(_optimal(curvatures)[i] for i in (0, 2, 1)),
    ),
    Known(
        "gradient-descent",
        "gradient descent's best step, without momentum",
        "What does the heavy ball gain? Its factor depends on the root of L / mu.",
        _of_roots(lambda a, b, top, low: (2 / (top + low), 0.0, (top - low) / (top + low))),
    ),
    Known(
        "roots-missing",
        "the right formulas with L and mu in the places of their roots",
        "The heavy ball's factor depends on the root of L / mu.",
        _of_roots(
            lambda a, b, top, low: (
                (2 / (top + low)) ** 2,
                ((top - low) / (top + low)) ** 2,
                (top - low) / (top + low),
            )
        ),
    ),
    Known(
        "nesterovs",
        "Nesterov's choice for strongly convex functions: 1 / L and (sqrt L - sqrt mu) / (sqrt L + sqrt mu)",
        "The exercise asks for Polyak's heavy ball, whose momentum is the square of that.",
        _of_roots(lambda a, b, top, low: (1 / top, (a - b) / (a + b), np.sqrt(1 - b / a))),
        OTHER_SPECIFICATION,
    ),
    Known(
        "lr-not-squared",
        "2 / (sqrt L + sqrt mu), without its square",
        "A learning rate is one over a curvature: which unit has yours?",
        _of_roots(lambda a, b, top, low: (2 / (a + b), None, None)),
    ),
    Known(
        "lr-half-squared",
        "4 / (sqrt L + sqrt mu): the square was taken above the line alone",
        "A learning rate is one over a curvature: which unit has yours?",
        _of_roots(lambda a, b, top, low: (4 / (a + b), None, None)),
    ),
    Known(
        "lr-half-squared-below",
        "2 / (sqrt L + sqrt mu)^2: the square was taken below the line alone",
        "With all curvatures equal to L the best lr is 1 / L. What does yours give?",
        _of_roots(lambda a, b, top, low: (2 / (a + b) ** 2, None, None)),
    ),
    Known(
        "lr-one-over-l",
        "1 / L",
        "Momentum allows a longer step than that.",
        _of_roots(lambda a, b, top, low: (1 / top, None, None)),
    ),
    Known(
        "lr-at-the-limit",
        "2 (1 + momentum) / L: the largest stable step",
        "The best step makes the two worst directions equally fast.",
        _of_roots(lambda a, b, top, low: (2 * (1 + ((a - b) / (a + b)) ** 2) / top, None, None)),
    ),
    Known(
        "lr-averaged",
        "an lr for a buffer that averages, divided by 1 - momentum, which comes to 1 / sqrt(L mu)",
        "Polyak's gradient enters with lr alone, not with (1 - momentum).",
        _of_roots(lambda a, b, top, low: ((2 / (a + b)) ** 2 / (1 - ((a - b) / (a + b)) ** 2), None, None)),
    ),
    Known(
        "momentum-not-squared",
        "(sqrt L - sqrt mu) / (sqrt L + sqrt mu), without its square: Nesterov's momentum",
        "The factor per step is the root of Polyak's momentum.",
        _of_roots(lambda a, b, top, low: (None, (a - b) / (a + b), None)),
    ),
    Known(
        "momentum-of-condition",
        "a momentum of 1 - sqrt(mu / L)",
        "That is the right size for large L / mu, and no more.",
        _of_roots(lambda a, b, top, low: (None, 1 - b / a, None)),
    ),
    Known(
        "factor-is-momentum",
        "the momentum itself",
        "The two roots of the recurrence multiply to momentum. What is the size of each?",
        _of_roots(lambda a, b, top, low: (None, None, ((a - b) / (a + b)) ** 2)),
    ),
    Known(
        "factor-of-gradient-descent",
        "gradient descent's factor, (L - mu) / (L + mu)",
        "What does the heavy ball gain? Its factor depends on the root of L / mu.",
        _of_roots(lambda a, b, top, low: (None, None, (top - low) / (top + low))),
    ),
    Known(
        "factor-rooted-twice",
        "the root of the right factor",
        "The factor is the root of the momentum, once.",
        _of_roots(lambda a, b, top, low: (None, None, np.sqrt((a - b) / (a + b)))),
    ),
    Known(
        "factor-complement",
        "what is lost in a step, not what is left",
        "The factor is by what the error is multiplied.",
        _of_roots(lambda a, b, top, low: (None, None, 2 * b / (a + b))),
    ),
    Known(
        "factor-negative",
        "the right factor with a minus",
        "A contraction is a size: it is never negative.",
        _of_roots(lambda a, b, top, low: (None, None, (b - a) / (a + b))),
    ),
    Known(
        "assumed-sorted",
        "the first and the last curvature, as if they came sorted",
        "They come in any order.",
        lambda curvatures: _of_two(curvatures[0], curvatures[-1]),
    ),
    Known(
        "mean-of-all",
        "formulas with the mean of the curvatures in the place of the smallest",
        "The worst case is asked for. Which curvatures can be the worst?",
        lambda curvatures: _of_two(np.max(curvatures), np.mean(curvatures)),
    ),
)
_OPTIMAL_CASES = [
    {"curvatures": np.array(curvatures)}
    for curvatures in (
        [3.0, 0.5, 8.0, 1.0],
        [4.0],
        [20.0, 2.0, 7.0],
        [2.5, 2.5],
        [1e4, 1e-3, 3.0, 3.0],
        [9, 100, 1, 30],
    )
]


# ------------------------------------------------------------------------------------------------- two_conventions


def _outside(
    step: Callable[..., np.ndarray] = lambda b, g, lr, mu: lr * b,
    update: Callable[..., np.ndarray] = lambda b, g, mu, t: mu * b + g,
    rate: Callable[[np.ndarray, int], float] = lambda lrs, t: lrs[t],
) -> Callable[..., np.ndarray]:
    def run(gradients: np.ndarray, lrs: np.ndarray, momentum: float) -> np.ndarray:
        b, rows = np.zeros(gradients.shape[1]), []
        for t, g in enumerate(gradients):
            b = update(b, g, momentum, t)
            rows.append(step(b, g, rate(lrs, t), momentum))
        return np.stack(rows)

    return run


def _inside(
    update: Callable[..., np.ndarray] = lambda v, g, lr, mu, t: mu * v + lr * g,
    rate: Callable[[np.ndarray, int], float] = lambda lrs, t: lrs[t],
    step: Callable[..., np.ndarray] = lambda v, g, lr, mu: v,
) -> Callable[..., np.ndarray]:
    def run(gradients: np.ndarray, lrs: np.ndarray, momentum: float) -> np.ndarray:
        v, rows = np.zeros(gradients.shape[1]), []
        for t, g in enumerate(gradients):
            v = update(v, g, rate(lrs, t), momentum, t)
            rows.append(step(v, g, rate(lrs, t), momentum))
        return np.stack(rows)

    return run


def _both(
    outside: Callable[..., np.ndarray] | None = None, inside: Callable[..., np.ndarray] | None = None
) -> Callable[..., Any]:
    """A mistake in one part or in both; None where it says nothing."""
    return lambda **case: tuple(None if part is None else part(**case) for part in (outside, inside))


def _of_both(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    return lambda **case: (change(_outside()(**case)), change(_inside()(**case)))


def _previous(lrs: np.ndarray, t: int) -> float:
    return lrs[max(t - 1, 0)]


_CONVENTIONS_MISTAKES = (
    Known(
        "order", "the two, exchanged", "The one with lr outside the buffer comes first.", _both(_inside(), _outside())
    ),
    Known(
        "inside-is-outside",
        "the other convention: all of the buffer times today's lr",
        "Inside, a gradient keeps the lr of its own day. What happens to it when lr changes?",
        _both(inside=_outside()),
    ),
    Known(
        "outside-is-inside",
        "the other convention: each gradient times the lr of its own day",
        "Outside, the buffer holds bare gradients.",
        _both(outside=_inside()),
    ),
    Known(
        "lr-of-the-first-step",
        "a learning rate that stays what it was at first",
        "`lrs` has one learning rate for each step.",
        _both(_outside(rate=lambda lrs, t: lrs[0]), _inside(rate=lambda lrs, t: lrs[0])),
    ),
    Known(
        "lr-of-the-last-step",
        "the last learning rate in every step",
        "`lrs` has one learning rate for each step.",
        _both(_outside(rate=lambda lrs, t: lrs[-1]), _inside(rate=lambda lrs, t: lrs[-1])),
    ),
    Known(
        "lr-of-the-step-before",
        "the learning rate of the step before",
        "Row t uses `lrs[t]`.",
        _both(_outside(rate=_previous), _inside(rate=_previous)),
    ),
    Known(
        "lr-missing",
        "the bare buffers",
        "What is subtracted at each step?",
        _both(_outside(rate=lambda lrs, t: 1.0), _inside(rate=lambda lrs, t: 1.0)),
    ),
    Known(
        "lr-squared",
        "a learning rate that is multiplied in twice",
        "lr stands inside the buffer, or outside it.",
        _both(
            _outside(step=lambda b, g, lr, mu: lr * lr * b),
            _inside(step=lambda v, g, lr, mu: lr * v),
        ),
    ),
    Known(
        "lr-compounds",
        "a learning rate that multiplies the old velocity too",
        "v = momentum * v + lr * g: what does lr multiply?",
        _both(inside=_inside(lambda v, g, lr, mu, t: lr * (mu * v + g))),
    ),
    Known(
        "averaged",
        "a buffer that averages: the gradient enters with 1 - momentum",
        "In both conventions the gradient enters with its full weight.",
        _both(
            _outside(update=lambda b, g, mu, t: mu * b + (1 - mu) * g),
            _inside(lambda v, g, lr, mu, t: mu * v + (1 - mu) * lr * g),
        ),
    ),
    Known(
        "averaged-after-the-first",
        "a buffer that averages from the second gradient on: torch's dampening",
        "In both conventions the gradient enters with its full weight.",
        _both(
            _outside(update=lambda b, g, mu, t: mu * b + (1 - mu) * g if t else g),
            _inside(lambda v, g, lr, mu, t: mu * v + (1 - mu) * lr * g if t else lr * g),
        ),
    ),
    Known(
        "gradient-damped",
        "a gradient that is multiplied by momentum too",
        "Which of the two terms does momentum multiply?",
        _both(
            _outside(update=lambda b, g, mu, t: mu * (b + g)),
            _inside(lambda v, g, lr, mu, t: mu * (v + lr * g)),
        ),
    ),
    Known(
        "no-momentum",
        "lr times the gradient: no momentum",
        "What is kept from one step to the next?",
        _both(_outside(step=lambda b, g, lr, mu: lr * g), _inside(step=lambda v, g, lr, mu: lr * g)),
    ),
    Known(
        "undamped",
        "a buffer from which nothing fades",
        "Where does momentum come in?",
        _both(
            _outside(update=lambda b, g, mu, t: b + g),
            _inside(lambda v, g, lr, mu, t: v + lr * g),
        ),
    ),
    Known(
        "nesterov",
        "Nesterov's step: the gradient once more on top of the buffer",
        "The heavy ball is asked for, in its two conventions.",
        _both(
            _outside(step=lambda b, g, lr, mu: lr * (g + mu * b)),
            _inside(step=lambda v, g, lr, mu: mu * v + lr * g),
        ),
    ),
    Known(
        "old-buffer",
        "the buffer as it was before this step's gradient",
        "Is the step taken before the buffer is updated, or after?",
        lambda gradients, lrs, momentum: (
            lrs[:, None] * np.concatenate([np.zeros_like(gradients[:1]), _buffers(gradients, momentum)[:-1]]),
            np.concatenate([np.zeros_like(gradients[:1]), _inside()(gradients, lrs, momentum)[:-1]]),
        ),
    ),
    Known(
        "negative",
        "the changes, with their minus",
        "What is subtracted is asked for.",
        _of_both(lambda steps: -steps),
    ),
    Known(
        "running-total",
        "the sum of all steps so far",
        "One row is one step.",
        _of_both(lambda steps: np.cumsum(steps, axis=0)),
    ),
    Known(
        "aliased",
        "one buffer, changed in place and kept in every row",
        "If one array is changed in place and appended each time, how many arrays are in the list?",
        _of_both(lambda steps: np.tile(steps[-1], (len(steps), 1))),
    ),
    Known("last-only", "the last step alone", "One row for each step.", _of_both(lambda steps: steps[-1])),
    Known(
        "transposed",
        "an array with rows and columns exchanged",
        "One row for each step.",
        _of_both(lambda steps: steps.T),
    ),
)


def _buffers(gradients: np.ndarray, momentum: float) -> np.ndarray:
    return _outside(rate=lambda lrs, t: 1.0)(gradients, np.ones(len(gradients)), momentum)


_RNG = np.random.default_rng(2)
_CONVENTIONS_CASES = [
    {"gradients": _RNG.normal(size=(len(lrs), size)), "lrs": np.array(lrs), "momentum": momentum}
    for lrs, size, momentum in (
        ([0.1, 0.1, 0.1, 0.1, 0.1], 3, 0.9),
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.2, 0.04], 2, 0.9),
        ([1.0, 1.0, 0.0, 0.0, 0.5], 4, 0.5),  # inside, the velocity coasts on with lr at 0
        ([1e-3, 10.0, 1e-3, 1e-3], 1, 0.99),
        ([0.3], 2, 0.9),
        ([0.5, 0.25, 2.0], 3, 0.0),
    )
]

JUDGES: dict[str, Judge] = {
    "nesterov_lookahead": Numeric(
        _lookahead,
        _LOOKAHEAD_CASES,
        _LOOKAHEAD_MISTAKES,
        "an array of shape (steps + 1, n)",
        edges=[Edge(_NO_STEPS)],
        pattern=stops_early,
    ),
    "optimal_momentum": Numeric(
        _optimal,
        _OPTIMAL_CASES,
        _OPTIMAL_MISTAKES,
        "three numbers, lr, momentum and factor",
        ("lr", "momentum", "factor"),
    ),
    "two_conventions": Numeric(
        lambda **case: (_outside()(**case), _inside()(**case)),
        _CONVENTIONS_CASES,
        _CONVENTIONS_MISTAKES,
        "two arrays of shape (T, n), outside and inside",
        ("outside", "inside"),
    ),
}
