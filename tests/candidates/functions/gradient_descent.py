"""Answers to the exercises of notebook 01, but for the sharpness."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import torch

# ------------------------------------------------------------------------------------------------ gradient_descent


def _filled(gradient, start, lr, steps):
    points = np.empty((steps + 1, len(start)))
    points[0] = start
    for t in range(steps):
        points[t + 1] = points[t] - lr * gradient(points[t])
    return points


def _listed(gradient, start, lr, steps):
    x = start.copy()
    points = [x.tolist()]
    for _ in range(steps):
        x -= lr * gradient(x)
        points.append(x.tolist())
    return points


def _accumulated_points(gradient, start, lr, steps):
    return np.array(list(accumulate(range(steps), lambda x, _: x - lr * gradient(x), initial=start)))


def _in_tensors(gradient, start, lr, steps):
    x = torch.from_numpy(start)
    rows = [x]
    for _ in range(steps):
        x = torch.sub(x, torch.from_numpy(gradient(x.numpy())), alpha=lr)
        rows.append(x)
    return torch.stack(rows)


def _recursive(gradient, start, lr, steps):
    if steps == 0:
        return start[None].copy()
    return np.vstack([start, _recursive(gradient, start - lr * gradient(start), lr, steps - 1)])


def _descent(step, first=lambda x: [x], after=np.array, extra=0):
    """``step(x, g, lr, t, start, gradient)`` gives the next point."""

    def gradient_descent(gradient, start, lr, steps):
        x, points = start, first(start)
        for t in range(steps + extra):
            x = step(x, gradient(x), lr, t, start, gradient)
            points.append(x)
        return after(points)

    return gradient_descent


def _down(x, g, lr, t, start, gradient):
    return x - lr * g


def _same_array(gradient, start, lr, steps):
    x = start.copy()
    points = [x]
    for _ in range(steps):
        x -= lr * gradient(x)
        points.append(x)
    return np.stack(points)


def _in_the_start(gradient, start, lr, steps):
    points = [start.copy()]
    for _ in range(steps):
        start -= lr * gradient(start)
        points.append(start.copy())
    return np.stack(points)


def _before_it_moves(gradient, start, lr, steps):
    x, points = start, [start]
    for _ in range(steps):
        points.append(x)
        x = x - lr * gradient(x)
    return np.stack(points)


def _zeros_first(gradient, start, lr, steps):
    points, x = np.zeros((steps + 1, len(start))), start
    for t in range(1, steps + 1):
        points[t] = x = x - lr * gradient(x)
    return points


def _coordinatewise(gradient, start, lr, steps):
    x, points = start.copy(), [start.copy()]
    for _ in range(steps):
        for i in range(len(x)):
            x[i] -= lr * gradient(x)[i]
        points.append(x.copy())
    return np.array(points)


def _one_coordinate(gradient, start, lr, steps):
    return np.array([start - lr * np.array([gradient(x) for x in start])])


def _in_float32(gradient, start, lr, steps):
    points = np.empty((steps + 1, len(start)), dtype=np.float32)
    points[0] = start
    for t in range(steps):
        points[t + 1] = points[t] - lr * gradient(points[t])
    return points


def _all_float32(gradient, start, lr, steps):
    points = [np.float32(start)]
    for _ in range(steps):
        points.append(points[-1] - np.float32(lr) * np.float32(gradient(points[-1])))
    return np.array(points)


def _until(small, rest):
    """Ends where the gradient is ``small``; ``rest`` makes a result of the points and the number of rows asked for."""

    def gradient_descent(gradient, start, lr, steps):
        points = [start]
        while len(points) <= steps:
            g = gradient(points[-1])
            if np.linalg.norm(g) < small:
                break
            points.append(points[-1] - lr * g)
        return rest(points, steps + 1)

    return gradient_descent


def _shorter(points, rows):
    return np.array(points)


def _filled_up(points, rows):
    return np.array(points + [points[-1]] * (rows - len(points)))


def _one_row_short(gradient, start, lr, steps):
    points = np.zeros((steps, len(start)))
    points[0] = start
    for t in range(1, steps):
        points[t] = points[t - 1] - lr * gradient(points[t - 1])
    return points


def _step_before_all(gradient, start, lr, steps):
    points = np.empty((steps + 1, len(start)))
    points[0], points[1] = start, start - lr * gradient(start)
    for t in range(1, steps):
        points[t + 1] = points[t] - lr * gradient(points[t])
    return points


def _along(gradient, start, lr, steps):
    return np.array([gradient(x) for x in _filled(gradient, start, lr, steps)])


_DESCENT = {
    "filled": (_filled, ""),
    "lists": (_listed, ""),
    "accumulate": (_accumulated_points, ""),
    "tensors": (_in_tensors, ""),
    "recursive": (_recursive, ""),
    "float32": (_in_float32, ""),
    "float32 throughout": (_all_float32, "single-precision"),
    "list of tensors": (lambda **arguments: list(_in_tensors(**arguments)), ""),
    "stays where nothing pulls": (_until(1e-300, _filled_up), ""),
    "ends where the gradient is small": (_until(1e-3, _shorter), "stops-early"),
    "ends where the gradient is tiny": (_until(1e-8, _shorter), "stops-early"),
    "ends where the gradient is zero": (_until(1e-300, _shorter), "stops-early"),
    "stays where the gradient is small": (_until(1e-5, _filled_up), "stops-early"),
    "stays where the gradient is below 0.5": (_until(0.5, _filled_up), "stops-early"),
    "one row short": (_one_row_short, "last-missing"),
    "a first step, wanted or not": (_step_before_all, "raises"),
    "uphill": (_descent(lambda x, g, lr, *_: x + lr * g), "ascends"),
    "no lr": (_descent(lambda x, g, lr, *_: x - g), "lr-missing"),
    "divided by lr": (_descent(lambda x, g, lr, *_: x - g / lr), "lr-divided"),
    "half": (_descent(lambda x, g, lr, *_: x - lr * g / 2), "half-step"),
    "twice": (_descent(lambda x, g, lr, *_: x - lr * (g + g)), "double-step"),
    "gradient of the start": (
        _descent(lambda x, g, lr, t, start, gradient: x - lr * gradient(start)),
        "gradient-of-the-start",
    ),
    "from the start": (_descent(lambda x, g, lr, t, start, gradient: start - lr * g), "always-from-the-start"),
    "coordinate by coordinate": (_coordinatewise, "one-coordinate-at-a-time"),
    "unit steps": (_descent(lambda x, g, lr, *_: x - lr * g / np.sqrt(g @ g)), "normalised"),
    "signs": (_descent(lambda x, g, lr, *_: x - lr * np.sign(g)), "sign"),
    "lr / t": (_descent(lambda x, g, lr, t, *_: x - lr * g / (t + 1)), "lr-decays"),
    "lr / sqrt(t)": (_descent(lambda x, g, lr, t, *_: x - lr * g / math.sqrt(t + 1)), "lr-decays-like-root"),
    "without the start": (
        _descent(_down, first=lambda x: [], after=lambda p: np.array(p) if p else np.empty((0, 2))),
        "start-missing",
    ),
    "ends early": (_descent(_down, after=lambda points: np.array(points)[:-1]), "last-missing"),
    "one more": (_descent(_down, extra=1), "one-too-many"),
    "last point": (_descent(_down, after=lambda points: points[-1]), "last-only"),
    "same array": (_same_array, "aliased"),
    "start twice": (_before_it_moves, "start-twice"),
    "first row zero": (_zeros_first, "first-row-empty"),
    "columns": (_descent(_down, after=np.column_stack), "transposed"),
    "moves": (_descent(_down, after=lambda points: np.diff(points, axis=0)), "moves"),
    "gradients": (_along, "gradients"),
    "in the start itself": (_in_the_start, "input-written"),
    "an extra axis": (_descent(_down, after=lambda points: np.array(points)[:, None]), "wrong-shape"),
    "numbers to gradient": (_one_coordinate, "raises"),
    "None": (_descent(_down, after=lambda points: None), "wrong-result"),
    "NaN": (_descent(lambda x, g, lr, *_: x * np.nan), "not-finite"),
    "other names": (lambda grad, x0, eta, n: None, "signature"),
    "called": (_filled(np.asarray, np.ones(2), 0.1, 1), "wrong-type"),
}


# ------------------------------------------------------------------------------------------------------- best_step


def _searched(curvatures):
    """The two worst lines cross where the best step is."""
    high, low = max(curvatures), min(curvatures)
    slope = np.linalg.solve([[high, 1.0], [low, -1.0]], [1.0, 1.0])
    return slope[0], abs(slope[1]) if high != low else 0.0


def _as_array(curvatures):
    c = np.sort(curvatures)
    return np.array([2 / (c[0] + c[-1]), (c[-1] - c[0]) / (c[-1] + c[0])])


def _as_tensors(curvatures):
    low, high = torch.as_tensor(curvatures, dtype=torch.float64).aminmax()
    lr = 2 / (low + high)
    return lr, (1 - lr * low).abs()


def _by_condition(curvatures):
    kappa = curvatures.max() / curvatures.min()
    return [2 / (curvatures.max() * (1 + 1 / kappa)), float((kappa - 1) / (kappa + 1))]


def _step(lr, factor=None):
    def best_step(curvatures):
        high, low = float(max(curvatures)), float(min(curvatures))
        rate = lr(high, low, curvatures)
        return rate, max(abs(1 - rate * c) for c in curvatures) if factor is None else factor(high, low)

    return best_step


def _balanced(high, low, _):
    return 2 / (high + low)


def _sorts(curvatures):
    curvatures.sort()
    return _as_array(curvatures)


def _first_and_last(curvatures):
    mu, top = float(curvatures[0]), float(curvatures[-1])
    return 2 / (mu + top), (top - mu) / (top + mu)


def _last_and_first(curvatures):
    top, mu = float(curvatures[0]), float(curvatures[-1])
    return 2 / (mu + top), (top - mu) / (top + mu)


def _either_end(curvatures):
    lr, factor = _first_and_last(curvatures)
    return lr, abs(factor)


_BEST = {
    "two lines": (_searched, ""),
    "array": (_as_array, ""),
    "tensors": (_as_tensors, ""),
    "condition number": (_by_condition, ""),
    "consistent": (_step(_balanced), ""),
    "exchanged": (lambda curvatures: _as_array(curvatures)[::-1], "order"),
    "2 / L": (_step(lambda high, low, c: 2 / high), "stability-limit"),
    "1 / L": (_step(lambda high, low, c: 1 / high), "one-over-l"),
    "1 / L, its formula": (_step(lambda high, low, c: 1 / high, lambda high, low: 1 - low / high), "one-over-l"),
    "1 / (L + mu)": (_step(lambda high, low, c: 1 / (high + low)), "one-over-sum"),
    "1 / mu": (_step(lambda high, low, c: 1 / low), "one-over-mu"),
    "geometric mean": (_step(lambda high, low, c: (high * low) ** -0.5), "geometric-mean"),
    "mean": (_step(lambda high, low, c: len(c) / sum(c)), "mean-of-all"),
    "median": (_step(lambda high, low, c: 1 / np.median(c)), "median"),
    "sum": (_step(lambda high, low, c: 2 / sum(c)), "two-over-sum-of-all"),
    "ascending": (_first_and_last, "assumed-ascending"),
    "descending": (_last_and_first, "assumed-descending"),
    "first and last": (_either_end, "assumed-sorted"),
    "upside down": (_step(lambda high, low, c: (high + low) / 2, lambda h, m: (h - m) / (h + m)), "upside-down"),
    "heavy ball's": (
        _step(lambda h, m, c: 4 / (h**0.5 + m**0.5) ** 2, lambda h, m: (h**0.5 - m**0.5) / (h**0.5 + m**0.5)),
        "momentum-step",
    ),
    "of the loss": (_step(_balanced, lambda h, m: ((h - m) / (h + m)) ** 2), "factor-of-the-loss"),
    "of momentum": (
        _step(_balanced, lambda h, m: (h**0.5 - m**0.5) / (h**0.5 + m**0.5)),
        "factor-of-momentum",
    ),
    "1 - mu / L": (_step(_balanced, lambda h, m: 1 - m / h), "factor-of-one-over-l"),
    "negative": (_step(_balanced, lambda h, m: 1 - 2 * h / (h + m)), "factor-negative"),
    "what is lost": (_step(_balanced, lambda h, m: 1 - (h - m) / (h + m)), "factor-complement"),
    "kappa": (_step(_balanced, lambda h, m: h / m), "condition-number"),
    "1 / kappa": (_step(_balanced, lambda h, m: m / h), "condition-reciprocal"),
    "factor upside down": (
        _step(_balanced, lambda h, m: (h + m) / (h - m) if h > m else math.inf),
        "factor-upside-down",
    ),
    "sorts in place": (_sorts, "input-written"),
    "lr alone": (lambda curvatures: 2 / (max(curvatures) + min(curvatures)), "wrong-result"),
    "three things": (lambda curvatures: (*_as_array(curvatures), 0), "wrong-result"),
    "a dict": (lambda curvatures: {"lr": 1.0, "factor": 0.0}, "wrong-result"),
    "None inside": (lambda curvatures: (0.1, None), "wrong-result"),
    "whole eigenvalues": (lambda curvatures: (1 / curvatures, 1 - curvatures), "wrong-shape"),
    "something else": (lambda curvatures: (0.1, 0.2), "wrong-numbers"),
    "divides by zero": (lambda curvatures: 1 // 0, "raises"),
}


# ----------------------------------------------------------------------------------------------------- noise_floor


def _solved(lr, curvature, noise):
    shrink = (1 - lr * curvature) ** 2
    return math.inf if shrink >= 1 else (lr * noise) ** 2 / (1 - shrink)


def _numpy_floor(lr, curvature, noise):
    u = np.multiply(lr, curvature)
    with np.errstate(divide="ignore"):
        return np.where(u < 2, lr**2 * noise**2 / np.maximum(u * (2 - u), 0), np.inf)


def _tensor_floor(lr, curvature, noise):
    u = torch.tensor(lr * curvature, dtype=torch.float64)
    return (lr * noise) ** 2 / (u * (2 - u)) if u < 2 else torch.tensor(float("inf"))


def _floor(formula, unstable=math.inf, limit=2.0):
    return lambda lr, curvature, noise: unstable if lr * curvature >= limit else formula(lr, curvature, noise)


def _right_floor(lr, c, s):
    return lr * s * s / (c * (2 - lr * c))


def _without_test(lr, curvature, noise):
    return np.float64(lr * noise**2) / (curvature * (2 - lr * curvature))


def _zero_division(lr, curvature, noise):
    return lr * noise**2 / (curvature * (2 - lr * curvature))


_FLOOR = {
    "solved": (_solved, ""),
    "numpy": (_numpy_floor, ""),
    "tensor": (_tensor_floor, ""),
    "formula": (_floor(_right_floor), ""),
    "no test": (_without_test, "not-unstable"),
    "no test, floats": (_zero_division, "raises"),
    "NaN": (_floor(_right_floor, math.nan), "nan-for-infinity"),
    "zero": (_floor(_right_floor, 0.0), "zero-for-infinity"),
    "limit 1": (_floor(_right_floor, limit=1.0), "limit-at-one"),
    "small steps": (_floor(lambda lr, c, s: lr * s**2 / 2 / c), "small-step-limit"),
    "small steps everywhere": (lambda lr, curvature, noise: lr * noise**2 / 2 / curvature, "small-step-everywhere"),
    "deviation": (_floor(lambda lr, c, s: math.sqrt(_right_floor(lr, c, s))), "deviation"),
    "noise": (_floor(lambda lr, c, s: lr * s / (c * (2 - lr * c))), "noise-not-squared"),
    "shrink not squared": (_floor(lambda lr, c, s: (lr * s) ** 2 / (1 - (1 - lr * c))), "contraction-not-squared"),
    "size of the shrink": (
        _floor(lambda lr, c, s: (lr * s) ** 2 / (1 - abs(1 - lr * c))),
        "contraction-not-squared-size",
    ),
    "nothing without noise": (lambda lr, curvature, noise: 0 if noise == 0 else _solved(lr, curvature, noise), ""),
    "one number in a list": (lambda **arguments: [_solved(**arguments)], ""),
    "noise outside": (_floor(lambda lr, c, s: s**2 / (1 - (1 - lr * c) ** 2)), "noise-without-lr"),
    "lr once": (_floor(lambda lr, c, s: lr * s**2 / (1 - (1 - lr * c) ** 2)), "lr-not-squared"),
    "one step": (_floor(lambda lr, c, s: lr**2 * s**2), "one-step"),
    "loss": (_floor(lambda lr, c, s: 0.5 * c * _right_floor(lr, c, s)), "loss"),
    "no curvature": (_floor(lambda lr, c, s: lr * s**2 / (2 - lr * c)), "curvature-missing"),
    "plus": (_floor(lambda lr, c, s: lr * s**2 / (2 * c + lr * c**2)), "sign-in-the-denominator"),
    "one": (_floor(lambda lr, c, s: lr * s**2 / (c * (1 - lr * c))), "one-in-the-denominator"),
    "half": (_floor(lambda lr, c, s: _right_floor(lr, c, s) / 2), "half"),
    "thrice": (_floor(lambda lr, c, s: _right_floor(lr, c, s) * 3), "wrong-numbers"),
    "None": (lambda lr, curvature, noise: None, "wrong-result"),
    "None if unstable": (_floor(_right_floor, None), "wrong-result"),
    "a pair": (lambda lr, curvature, noise: (0.0, 1.0), "wrong-shape"),
    "a class": (type("Floor", (), {}), "wrong-type"),
}


# -------------------------------------------------------------------------------------------- accumulated_gradient


def _loop(means, counts):
    total = 0
    for mean, count in zip(means, counts, strict=True):
        total = total + mean * count
    return total / sum(counts)


def _running(means, counts):
    seen, mean = 0, np.zeros(means.shape[1])
    for m, n in zip(means, counts, strict=True):
        seen += n
        mean = mean + (m - mean) * (n / seen)
    return mean


def _tensors(means, counts):
    w = torch.from_numpy(counts).double()
    return (w / w.sum()) @ torch.from_numpy(means)


def _repeated(means, counts):
    return np.repeat(means, counts, axis=0).mean(0)


def _writes_counts(means, counts):
    means *= counts[:, None]
    return means.sum(0) / counts.sum()


def _halving(means, counts):
    g = means[0]
    for mean in means[1:]:
        g = 0.5 * (g + mean)
    return g


_ACCUMULATED = {
    "loop": (_loop, ""),
    "running mean": (_running, ""),
    "tensors": (_tensors, ""),
    "average": (lambda means, counts: np.average(means, axis=0, weights=counts), ""),
    "one by one": (_repeated, ""),
    "mean of means": (lambda means, counts: means.mean(0), "mean-of-means"),
    "sum of means": (lambda means, counts: sum(means), "sum-of-means"),
    "sum of all": (lambda means, counts: counts @ means, "not-divided"),
    "divided by k": (lambda means, counts: counts @ means / len(counts), "divided-by-micro-batches"),
    "largest": (lambda means, counts: counts @ means / (max(counts) * len(counts)), "divided-by-largest"),
    "relative": (lambda means, counts: (counts / counts.max()) @ means, "relative-to-largest"),
    "first": (lambda means, counts: counts @ means / (counts[0] * len(counts)), "relative-to-first"),
    "inverse": (lambda means, counts: np.average(means, axis=0, weights=1 / counts), "weights-inverted"),
    "divided": (lambda means, counts: (means / counts[:, None]).sum(0), "divided-again"),
    "by the total": (lambda means, counts: means.sum(0) / counts.sum(), "divided-by-total"),
    "twice": (lambda means, counts: (counts[:, None] * means).mean(0) / counts.sum(), "divided-twice"),
    "roots": (lambda means, counts: np.average(means, axis=0, weights=counts**0.5), "roots"),
    "squares": (lambda means, counts: np.average(means, axis=0, weights=counts**2), "squares"),
    "last": (lambda means, counts: means[-1].copy(), "last-only"),
    "first only": (lambda means, counts: means[0].copy(), "first-only"),
    "halving": (_halving, "halved-each-time"),
    "axis": (lambda means, counts: means.mean(axis=1), "wrong-axis"),
    "writes": (_writes_counts, "input-written"),
    "kept dimension": (lambda means, counts: counts[None] @ means / counts.sum(), "wrong-shape"),
    "a number": (lambda means, counts: float((counts @ means).sum()), "wrong-shape"),
    "drops the last": (lambda means, counts: _loop(means[:2], counts[:2]), "wrong-numbers"),
    "float32": (lambda means, counts: _loop(means.astype("f4"), counts.astype("f4")), "single-precision"),
    "broadcast": (lambda means, counts: (means * counts).sum(0), "raises"),
    "None": (lambda means, counts: None, "wrong-result"),
}

FUNCTIONS = {
    "gradient_descent": _DESCENT,
    "best_step": _BEST,
    "noise_floor": _FLOOR,
    "accumulated_gradient": _ACCUMULATED,
}
