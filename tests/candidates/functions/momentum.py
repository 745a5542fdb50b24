"""Answers to the exercises of notebook 02."""

from __future__ import annotations

import math

import numpy as np
import torch

# ---------------------------------------------------------------------------------------------- nesterov_lookahead


def _plain(gradient, start, lr, momentum, steps):
    theta, v = start.copy(), np.zeros(len(start))
    points = [theta.copy()]
    for _ in range(steps):
        v = momentum * v - lr * gradient(theta + momentum * v)
        theta += v
        points.append(theta.copy())
    return np.array(points)


def _positive_velocity(gradient, start, lr, momentum, steps):
    points, b = [start], 0.0
    for _ in range(steps):
        b = momentum * b + lr * gradient(points[-1] - momentum * b)
        points.append(points[-1] - b)
    return points


def _two_sequences(gradient, start, lr, momentum, steps):
    """Nesterov's own form: y looks ahead, theta is the end of a gradient step from it."""
    points = np.empty((steps + 1, start.size))
    points[0] = y = start
    for t in range(1, steps + 1):
        points[t] = y - lr * gradient(y)
        y = points[t] + momentum * (points[t] - points[t - 1])
    return points


def _tensors(gradient, start, lr, momentum, steps):
    theta = torch.tensor(start)
    v = torch.zeros_like(theta)
    rows = [theta.clone()]
    for _ in range(steps):
        g = torch.as_tensor(gradient((theta + momentum * v).numpy()))
        v.mul_(momentum).sub_(g, alpha=lr)
        theta.add_(v)
        rows.append(theta.clone())
    return torch.stack(rows)


def _glide(velocity, move=lambda theta, v, old, mu: theta + v):
    def nesterov_lookahead(gradient, start, lr, momentum, steps):
        theta, v, points = start, np.zeros_like(start), [start]
        for _ in range(steps):
            old, v = v, velocity(theta, v, gradient, lr, momentum)
            theta = move(theta, v, old, momentum)
            points.append(theta)
        return np.stack(points)

    return nesterov_lookahead


def _like_torch(gradient, start, lr, momentum, steps):
    p, b, points = start, 0.0, [start]
    for _ in range(steps):
        g = gradient(p)
        b = momentum * b + g
        p = p - lr * (g + momentum * b)
        points.append(p)
    return np.array(points)


def _extrapolated(buffer, first):
    def nesterov_lookahead(gradient, start, lr, momentum, steps):
        x, last, m, points = start, None, 0.0, [start]
        for _ in range(steps):
            g = gradient(x)
            before = first(g) if last is None else last
            step = g + momentum * (g - before)
            m = momentum * m + step if buffer else step
            x, last = x - lr * m, g
            points.append(x)
        return np.array(points)

    return nesterov_lookahead


def _fista(gradient, start, lr, momentum, steps):
    x, before, points = start, start, [start]
    for k in range(1, steps + 1):
        y = x + (k - 1) / (k + 2) * (x - before)
        x, before = y - lr * gradient(y), x
        points.append(x)
    return np.array(points)


def _keras_like(gradient, start, lr, momentum, steps):
    """lr multiplies the velocity in the step alone, and is forgotten in the look-ahead."""
    theta, b, points = start, np.zeros_like(start), [start]
    for _ in range(steps):
        b = momentum * b + gradient(theta - momentum * b)
        theta = theta - lr * b
        points.append(theta)
    return np.array(points)


def _all_float32(gradient, start, lr, momentum, steps):
    theta, v, points = np.float32(start), np.float32(0), [np.float32(start)]
    for _ in range(steps):
        v = np.float32(momentum) * v - np.float32(lr) * np.float32(gradient(theta + np.float32(momentum) * v))
        theta = theta + v
        points.append(theta)
    return np.stack(points)


def _runs_up(gradient, start, lr, momentum, steps):
    theta, v = start, -lr * gradient(start)
    points = [theta]
    for _ in range(steps):
        v = momentum * v - lr * gradient(theta + momentum * v)
        theta = theta + v
        points.append(theta)
    return np.array(points)


def _until_flat(gradient, start, lr, momentum, steps):
    theta, v, points = start, 0.0 * start, [start]
    for _ in range(steps):
        g = gradient(theta + momentum * v)
        if np.abs(g).max() < 1e-4:
            break
        v = momentum * v - lr * g
        theta = theta + v
        points.append(theta)
    return np.array(points)


def _in_place(gradient, start, lr, momentum, steps):
    points = _plain(gradient, start, lr, momentum, steps)
    start += 1.0
    return points


def _one_array(gradient, start, lr, momentum, steps):
    theta, v, points = start.copy(), 0.0, []
    points.append(theta)
    for _ in range(steps):
        v = momentum * v - lr * gradient(theta + momentum * v)
        theta += v
        points.append(theta)
    return np.array(points)


def _with(change):
    return lambda **arguments: change(_plain(**arguments))


_LOOKAHEAD = {
    "plain": (_plain, ""),
    "positive velocity": (_positive_velocity, ""),
    "two sequences": (_two_sequences, ""),
    "tensors": (_tensors, ""),
    "heavy ball": (_glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x)), "heavy-ball"),
    "back": (_glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x - mu * v)), "looks-back"),
    "whole velocity": (_glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x + v)), "looks-too-far"),
    "momentum squared": (_glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x + mu**2 * v)), "looks-too-near"),
    "from the look-ahead": (
        _glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x + mu * v), lambda x, v, old, mu: x + mu * old + v),
        "steps-from-lookahead",
    ),
    "torch's": (_like_torch, "lookahead-points"),
    "difference, a buffer, nothing before": (_extrapolated(True, lambda g: 0.0), "lookahead-points"),
    "difference": (_extrapolated(False, lambda g: 0.0), "gradient-difference"),
    "difference, none at first": (_extrapolated(False, lambda g: g), "gradient-difference-from-first"),
    "difference, a buffer": (_extrapolated(True, lambda g: g), "gradient-difference-with-momentum"),
    "FISTA": (_fista, "decreasing-momentum"),
    "descent": (_glide(lambda x, v, grad, lr, mu: -lr * grad(x)), "no-momentum"),
    "forgets": (_glide(lambda x, v, grad, lr, mu: -lr * grad(x + mu * v)), "velocity-not-kept"),
    "uphill": (_glide(lambda x, v, grad, lr, mu: mu * v + lr * grad(x + mu * v)), "ascends"),
    "averaged": (_glide(lambda x, v, grad, lr, mu: mu * v - lr * (1 - mu) * grad(x + mu * v)), "averaged"),
    "no lr": (_glide(lambda x, v, grad, lr, mu: mu * v - grad(x + mu * v)), "lr-missing"),
    "lr outside": (_keras_like, "lr-outside"),
    "old velocity": (
        _glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x + mu * v), lambda x, v, old, mu: x + old),
        "old-velocity",
    ),
    "momentum outside": (
        _glide(lambda x, v, grad, lr, mu: mu * (v - lr * grad(x + mu * v))),
        "momentum-on-the-gradient",
    ),
    "moves by the gradient": (
        _glide(lambda x, v, grad, lr, mu: mu * v - lr * grad(x + mu * v), lambda x, v, old, mu: x + v - mu * old),
        "velocity-not-used",
    ),
    "a run-up": (_runs_up, "first-velocity"),
    "until it is flat": (_until_flat, "stops-early"),
    "float32 in the end": (_with(np.float32), ""),
    "float32 throughout": (_all_float32, "single-precision"),
    "no start": (_with(lambda points: points[1:]), "start-missing"),
    "ends early": (_with(lambda points: points[:-1]), "last-missing"),
    "last": (_with(lambda points: points[-1]), "last-only"),
    "one array": (_one_array, "aliased"),
    "columns": (_with(np.transpose), "transposed"),
    "velocities": (_with(lambda points: np.vstack([0 * points[0], np.diff(points, axis=0)])), "velocities"),
    "moves": (_with(lambda points: points[1:] - points[:-1]), "moves"),
    "changes the start": (_in_place, "input-written"),
    "averaged with the start": (_with(lambda points: (points + points[0]) / 2), "wrong-numbers"),
    "overflows": (_with(lambda points: points * np.inf), "not-finite"),
    "a pair": (lambda **arguments: (_plain(**arguments), 0), "wrong-result"),
    "None": (_with(lambda points: None), "wrong-result"),
    "not written": (lambda gradient, start, lr, momentum, steps: _not_written(), "blank"),
}


def _not_written():
    raise NotImplementedError


# ------------------------------------------------------------------------------------------------ optimal_momentum


def _by_condition(curvatures):
    root = np.sqrt(curvatures.max() / curvatures.min())
    factor = (root - 1) / (root + 1)
    return (1 + factor) ** 2 / curvatures.max(), factor**2, factor


def _from_momentum(curvatures):
    low, high = math.sqrt(min(curvatures)), math.sqrt(max(curvatures))
    momentum = ((high - low) / (high + low)) ** 2
    return [(1 - math.sqrt(momentum)) ** 2 / min(curvatures), momentum, math.sqrt(momentum)]


def _as_tensor(curvatures):
    a, b = torch.tensor(curvatures).double().sqrt().aminmax()
    ratio = (b - a) / (a + b)
    return torch.stack([4 / (a + b) ** 2, ratio**2, ratio])


def _answer(lr=None, momentum=None, factor=None):
    def optimal_momentum(curvatures):
        top, low = float(max(curvatures)), float(min(curvatures))
        right = _by_condition(curvatures)
        return tuple(
            ours if formula is None else formula(top, low)
            for formula, ours in zip((lr, momentum, factor), right, strict=True)
        )

    return optimal_momentum


def _roots(top, low):
    return top**0.5, low**0.5


def _ratio(top, low):
    a, b = _roots(top, low)
    return (a - b) / (a + b)


def _ends(curvatures):
    a, b = curvatures[-1] ** 0.5, curvatures[0] ** 0.5
    return 4 / (a + b) ** 2, ((a - b) / (a + b)) ** 2, np.abs(a - b) / (a + b)


def _sorting(curvatures):
    curvatures.sort()
    return _ends(curvatures)


def _averaging(curvatures):
    a, b = max(curvatures) ** 0.5, np.mean(curvatures) ** 0.5
    return 4 / (a + b) ** 2, ((a - b) / (a + b)) ** 2, (a - b) / (a + b)


_OPTIMAL = {
    "condition number": (_by_condition, ""),
    "from the momentum": (_from_momentum, ""),
    "tensor": (_as_tensor, ""),
    "lr and momentum exchanged": (lambda curvatures: [_by_condition(curvatures)[i] for i in (1, 0, 2)], "order"),
    "factor second": (lambda curvatures: [_by_condition(curvatures)[i] for i in (0, 2, 1)], "order-of-the-last-two"),
    "descent": (
        _answer(lambda L, m: 2 / (L + m), lambda L, m: 0, lambda L, m: (L - m) / (L + m)),
        "gradient-descent",
    ),
    "no roots": (
        _answer(lambda L, m: (2 / (L + m)) ** 2, lambda L, m: ((L - m) / (L + m)) ** 2, lambda L, m: (L - m) / (L + m)),
        "roots-missing",
    ),
    "Nesterov's": (_answer(lambda L, m: 1 / L, _ratio, lambda L, m: (1 - (m / L) ** 0.5) ** 0.5), "nesterovs"),
    "lr without square": (_answer(lr=lambda L, m: 2 / sum(_roots(L, m))), "lr-not-squared"),
    "4 over the sum": (_answer(lr=lambda L, m: 4 / sum(_roots(L, m))), "lr-half-squared"),
    "2 over the square": (_answer(lr=lambda L, m: 2 / sum(_roots(L, m)) ** 2), "lr-half-squared-below"),
    "1 / L": (_answer(lr=lambda L, m: 1 / L), "lr-one-over-l"),
    "limit": (_answer(lr=lambda L, m: 2 * (1 + _ratio(L, m) ** 2) / L), "lr-at-the-limit"),
    "geometric mean": (_answer(lr=lambda L, m: (L * m) ** -0.5), "lr-averaged"),
    "momentum without square": (_answer(momentum=_ratio), "momentum-not-squared"),
    "1 - 1 / sqrt(kappa)": (_answer(momentum=lambda L, m: 1 - (m / L) ** 0.5), "momentum-of-condition"),
    "factor is momentum": (_answer(factor=lambda L, m: _ratio(L, m) ** 2), "factor-is-momentum"),
    "factor of descent": (_answer(factor=lambda L, m: (L - m) / (L + m)), "factor-of-gradient-descent"),
    "root of the factor": (_answer(factor=lambda L, m: _ratio(L, m) ** 0.5), "factor-rooted-twice"),
    "what is lost": (_answer(factor=lambda L, m: 1 - _ratio(L, m)), "factor-complement"),
    "minus": (_answer(factor=lambda L, m: -_ratio(L, m)), "factor-negative"),
    "ends": (_ends, "assumed-sorted"),
    "mean": (_averaging, "mean-of-all"),
    "two mistakes": (_answer(lr=lambda L, m: 1 / L, factor=lambda L, m: _ratio(L, m) ** 2), "lr-one-over-l"),
    "sorts in place": (_sorting, "input-written"),
    "two things": (lambda curvatures: _by_condition(curvatures)[:2], "wrong-result"),
    "None": (lambda curvatures: None, "wrong-result"),
    "lr of each": (lambda curvatures: (1 / curvatures, 0.5, 0.5), "wrong-shape"),
    "guessed": (lambda curvatures: (0.1, 0.9, 0.9), "wrong-numbers"),
    "NaN": (lambda curvatures: (math.nan,) * 3, "not-finite"),
}


# ------------------------------------------------------------------------------------------------- two_conventions


def _loop(gradients, lrs, momentum):
    b = v = np.zeros(gradients.shape[1])
    outside, inside = [], []
    for g, lr in zip(gradients, lrs, strict=True):
        b = momentum * b + g
        v = momentum * v + lr * g
        outside.append(lr * b)
        inside.append(v)
    return np.array(outside), np.array(inside)


def _weights(gradients, lrs, momentum):
    age = np.subtract.outer(np.arange(len(lrs)), np.arange(len(lrs)))
    fading = np.where(age >= 0, np.power(momentum, np.maximum(age, 0)), 0.0)
    return lrs[:, None] * (fading @ gradients), fading * lrs @ gradients


def _one_array(gradients, lrs, momentum):
    both = np.zeros((2, *gradients.shape))
    b, v = 0, 0
    for t in range(len(lrs)):
        b, v = momentum * b + gradients[t], momentum * v + lrs[t] * gradients[t]
        both[:, t] = lrs[t] * b, v
    return both


def _torch_lists(gradients, lrs, momentum):
    b, v, pairs = torch.zeros(gradients.shape[1]).double(), torch.zeros(gradients.shape[1]).double(), []
    for g, lr in zip(torch.tensor(gradients), lrs, strict=True):
        b.mul_(momentum).add_(g)
        v.mul_(momentum).add_(g, alpha=lr)
        pairs.append((b * lr, v.clone()))
    return tuple(map(list, zip(*pairs, strict=True)))


def _both(outside=None, inside=None, rate=lambda lrs, t: lrs[t]):
    """``outside`` and ``inside`` are pairs: the buffer's update, and the step made of it."""
    b_next, b_step = outside or (lambda b, g, mu, t: mu * b + g, lambda b, g, lr, mu: lr * b)
    v_next, v_step = inside or (lambda v, g, lr, mu, t: mu * v + lr * g, lambda v, g, lr, mu: v)

    def two_conventions(gradients, lrs, momentum):
        b, v, first, second = np.zeros_like(gradients[0]), np.zeros_like(gradients[0]), [], []
        for t, g in enumerate(gradients):
            lr = rate(lrs, t)
            b, v = b_next(b, g, momentum, t), v_next(v, g, lr, momentum, t)
            first.append(b_step(b, g, lr, momentum))
            second.append(v_step(v, g, lr, momentum))
        return np.stack(first), np.stack(second)

    return two_conventions


def _rescaled(gradients, lrs, momentum):
    """A velocity that is rescaled whenever lr changes: torch's convention by another way."""
    outside, _ = _loop(gradients, lrs, momentum)
    return outside, outside.copy()


def _velocity_aliased(gradients, lrs, momentum):
    v, rows = np.zeros(gradients.shape[1]), []
    for g, lr in zip(gradients, lrs, strict=True):
        v *= momentum
        v += lr * g
        rows.append(v)
    return _loop(gradients, lrs, momentum)[0], np.array(rows)


def _step_first(gradients, lrs, momentum):
    b = v = np.zeros(gradients.shape[1])
    outside, inside = [], []
    for g, lr in zip(gradients, lrs, strict=True):
        outside.append(lr * b)
        inside.append(v)
        b, v = momentum * b + g, momentum * v + lr * g
    return np.array(outside), np.array(inside)


def _in_the_gradients(gradients, lrs, momentum):
    right = _loop(gradients, lrs, momentum)
    for t in range(1, len(lrs)):
        gradients[t] += momentum * gradients[t - 1]
    return right


def _mapped(change):
    return lambda gradients, lrs, momentum: tuple(change(part) for part in _loop(gradients, lrs, momentum))


def _lr_times(b, g, lr, mu):
    return lr * b


def _itself(v, g, lr, mu):
    return v


_CONVENTIONS = {
    "loop": (_loop, ""),
    "weights": (_weights, ""),
    "one array": (_one_array, ""),
    "lists of tensors": (_torch_lists, ""),
    "exchanged": (lambda **arguments: _loop(**arguments)[::-1], "order"),
    "both outside": (_rescaled, "inside-is-outside"),
    "both inside": (lambda **arguments: (_loop(**arguments)[1],) * 2, "outside-is-inside"),
    "first lr": (_both(rate=lambda lrs, t: lrs[0]), "lr-of-the-first-step"),
    "last lr": (_both(rate=lambda lrs, t: lrs[-1]), "lr-of-the-last-step"),
    "lr of yesterday": (_both(rate=lambda lrs, t: lrs[t - 1] if t else lrs[0]), "lr-of-the-step-before"),
    "no lr": (_both(rate=lambda lrs, t: 1.0), "lr-missing"),
    "lr twice": (
        _both(
            (lambda b, g, mu, t: mu * b + g, lambda b, g, lr, mu: lr**2 * b),
            (lambda v, g, lr, mu, t: mu * v + lr * g, lambda v, g, lr, mu: lr * v),
        ),
        "lr-squared",
    ),
    "lr compounds": (_both(inside=(lambda v, g, lr, mu, t: lr * (mu * v + g), _itself)), "lr-compounds"),
    "average outside": (_both((lambda b, g, mu, t: mu * b + (1 - mu) * g, _lr_times)), "averaged"),
    "average inside": (
        _both(inside=(lambda v, g, lr, mu, t: mu * v + (1 - mu) * lr * g, _itself)),
        "averaged",
    ),
    "dampening": (
        _both((lambda b, g, mu, t: g if t == 0 else mu * b + (1 - mu) * g, _lr_times)),
        "averaged-after-the-first",
    ),
    "momentum on the gradient": (_both((lambda b, g, mu, t: mu * (b + g), _lr_times)), "gradient-damped"),
    "no momentum": (
        _both((lambda b, g, mu, t: g, _lr_times), (lambda v, g, lr, mu, t: lr * g, _itself)),
        "no-momentum",
    ),
    "sum": (_both((lambda b, g, mu, t: b + g, _lr_times)), "undamped"),
    "Nesterov": (
        _both((lambda b, g, mu, t: mu * b + g, lambda b, g, lr, mu: lr * (g + mu * b))),
        "nesterov",
    ),
    "minus": (_mapped(np.negative), "negative"),
    "positions": (_mapped(lambda part: part.cumsum(0)), "running-total"),
    "aliased velocity": (_velocity_aliased, "aliased"),
    "last": (_mapped(lambda part: part[-1]), "last-only"),
    "columns": (_mapped(np.transpose), "transposed"),
    "step before the update": (_step_first, "old-buffer"),
    "writes": (_in_the_gradients, "input-written"),
    "one of them": (lambda gradients, lrs, momentum: _loop(gradients, lrs, momentum)[0], "wrong-result"),
    "three": (lambda **arguments: (*_loop(**arguments), 0), "wrong-result"),
    "None and one": (lambda **arguments: (_loop(**arguments)[0], None), "wrong-result"),
    "single precision": (_mapped(lambda part: part.astype(np.float32) * np.float32(1 + 1e-5)), "single-precision"),
    "twice": (_mapped(lambda part: 2 * part), "wrong-numbers"),
}

FUNCTIONS = {"nesterov_lookahead": _LOOKAHEAD, "optimal_momentum": _OPTIMAL, "two_conventions": _CONVENTIONS}
