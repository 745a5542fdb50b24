"""Answers to the exercise `sharpness`."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch._dynamo
from torch.autograd import functional, grad

# torch.func loads this and torch._dynamo at its first call: here once, not in each process that a check starts.
with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    import torch._decomp.decompositions_for_jvp


def _gradient(loss, point):
    x = point.detach().clone().requires_grad_()
    (g,) = grad(loss(x), x, create_graph=True)
    return x, g


def _start(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=n))


def _power(
    start=_start,
    finish=lambda v, hv: v @ hv,
    normalise=True,
    at=lambda point: point,
    rounds=lambda iterations: iterations,
    keep=True,
):
    def sharpness(loss, point, iterations=200):
        x, g = _gradient(loss, at(point))
        v = start(len(point)).clone()
        v /= v.norm()
        for _ in range(rounds(iterations)):
            (hv,) = grad(g, x, v, retain_graph=True)
            value = finish(v, hv)
            if keep:
                v = hv / hv.norm() if normalise else hv
        return float(value)

    return sharpness


def _forward_over_reverse(loss, point, iterations=200):
    v = torch.linspace(1, 2, len(point), dtype=point.dtype)
    for _ in range(iterations):
        v = v / v.norm()
        value_of = torch.func.jvp(torch.func.grad(loss), (point,), (v,))[1]
        value, v = v.dot(value_of), value_of
    return value


def _library_product(loss, point, iterations=200):
    v = torch.ones_like(point) + 0.1 * torch.arange(len(point)) / len(point)
    for _ in range(iterations):
        v = torch.nn.functional.normalize(v, dim=0)
        hv = functional.vhp(loss, point, v)[1]
        value = (v * hv).sum()
        v = hv
    return value.reshape(1)


def _until_settled(loss, point, iterations=200):
    """The loss anew at every product, the quotient of an unnormalised pair, and an end when it no longer changes."""
    rng, v, last = np.random.default_rng(3), None, np.inf
    v = torch.tensor(rng.uniform(size=len(point)))
    for _ in range(iterations):
        x = point.clone().requires_grad_()
        g = grad(loss(x), x, create_graph=True)[0]
        hv = grad((g * v).sum(), x)[0]
        value = (v @ hv / (v @ v)).item()
        v = hv / hv.abs().max()
        if abs(value - last) < 1e-9 * abs(value):
            break
        last = value
    return np.float64(value)


def _from_ones(n):
    return torch.ones(n, dtype=torch.float64)


def _drawn(n):
    return torch.randn(n, dtype=torch.float64)


def _seeded(n):
    torch.manual_seed(0)
    return torch.randn(n, dtype=torch.float64)


def _whole(loss, point, iterations=200):
    values = torch.linalg.eigvalsh(functional.hessian(loss, point))
    return values[values.abs().argmax()]


def _whole_at_once(loss, point, iterations=200):
    values = torch.linalg.eigvalsh(torch.func.hessian(loss)(point))
    return values[values.abs().argmax()]


def _of_hessian(what):
    """Answers that no learner reaches by products, on losses small enough to write the Hessian down."""
    return lambda loss, point, iterations=200: what(functional.hessian(loss, point))


def _gradient_iterated(loss, point, iterations=200):
    x = point.clone().requires_grad_()
    v = _start(len(point))
    for _ in range(iterations):
        (v,) = grad(loss(x), x)
        value = v.norm()
        v = v / value
    return value


def _from_the_gradient(loss, point, iterations=200):
    x, g = _gradient(loss, point)
    v = g.detach() / g.detach().norm()
    for _ in range(iterations):
        (hv,) = grad(g, x, v, retain_graph=True)
        value = v @ hv
        v = hv / hv.norm()
    return value


def _marks_the_point(loss, point, iterations=200):
    point.requires_grad_()
    (g,) = grad(loss(point), point, create_graph=True)
    v = _start(len(point))
    for _ in range(iterations):
        v = v / v.norm()
        (hv,) = grad(g, point, v, retain_graph=True)
        value, v = v @ hv, hv
    return value.item()


def _moves_the_point(loss, point, iterations=200):
    value = _power()(loss, point, iterations)
    point += 1
    return value


def _drifts(loss, point, iterations=200):
    v = _start(len(point))
    for _ in range(iterations):
        x, g = _gradient(loss, point)
        (hv,) = grad(g, x, v / v.norm())
        value, v = hv @ v / v.norm(), hv
        point.add_(hv, alpha=1e-3 / hv.norm())
    return value


def _differences(step):
    """Products from two gradients, a distance of ``step`` apart."""

    def sharpness(loss, point, iterations=200):
        def gradient(x):
            x = x.clone().requires_grad_()
            return grad(loss(x), x)[0]

        v = _start(len(point), 1)
        for _ in range(iterations):
            v = v / v.norm()
            hv = (gradient(point + step * v) - gradient(point - step * v)) / (2 * step)
            value, v = v @ hv, hv
        return value

    return sharpness


def _axis(i):
    def start(n):
        v = torch.zeros(n, dtype=torch.float64)
        v[i] = 1.0
        return v

    return start


def _shortened(loss, point, iterations=200):
    """Each vector is made 0.1 long: the quotient lacks the square of that."""
    x, g = _gradient(loss, point)
    v = _start(len(point), 2)
    for _ in range(iterations):
        v = 0.1 * v / v.norm()
        (hv,) = grad(g, x, v, retain_graph=True)
        value, v = v @ hv, hv
    return value


def _graph_not_kept(loss, point, iterations=200):
    x = point.clone().requires_grad_()
    (g,) = grad(loss(x), x)
    v = torch.ones_like(x)
    return grad(g @ v, x)[0].norm()


def _settles_too_soon(loss, point, iterations=200):
    x, g = _gradient(loss, point)
    v, last = _from_ones(len(point)) / len(point) ** 0.5, 0.0
    for _ in range(iterations):
        (hv,) = grad(g, x, v, retain_graph=True)
        value = (v @ hv).item()
        v = hv / hv.norm()
        if abs(value - last) < 1.0:
            break
        last = value
    return value


_SHARPNESS = {
    "power iteration": (_power(), ""),
    "from ones": (_power(_from_ones), ""),
    "forward over reverse": (_forward_over_reverse, ""),
    "the library's product": (_library_product, ""),
    "until it settles": (_until_settled, ""),
    "drawn from the global generator": (_power(_drawn), ""),
    "seeded": (_power(_seeded), ""),
    "tensor": (lambda loss, point, iterations=200: torch.tensor(_power()(loss, point, iterations)), ""),
    "close differences": (_differences(1e-4), ""),
    "far differences": (_differences(0.5), "curvature-elsewhere"),
    "fifteen products": (_power(rounds=lambda iterations: 15), "iterations-ignored"),
    "thirty at most": (_power(rounds=lambda iterations: min(iterations, 30)), "iterations-ignored"),
    "from the first axis": (_power(_axis(0)), "start-blind"),
    "from the last axis": (_power(_axis(-1)), "start-blind"),
    "short vectors": (_shortened, "scaled"),
    "drifts": (_drifts, "input-written"),
    "norm": (_power(finish=lambda v, hv: hv.norm()), "sign-lost"),
    "square of the norm": (_power(finish=lambda v, hv: hv @ hv), "squared"),
    "minus": (_power(finish=lambda v, hv: -v @ hv), "negated"),
    "not normalised": (_power(normalise=False), "not-normalised"),
    "not normalised, quotient": (
        _power(normalise=False, finish=lambda v, hv: (v @ hv) / (v @ v)),
        "not-normalised",
    ),
    "one product": (_power(rounds=lambda iterations: 1), "not-converged"),
    "two products": (_power(rounds=lambda iterations: 2), "not-converged"),
    "one product from ones": (_power(_from_ones, rounds=lambda iterations: 1), "along-ones"),
    "v never replaced": (_power(_from_ones, keep=False), "along-ones"),
    "v never replaced, random": (_power(keep=False), "not-converged"),
    "stops too soon": (_settles_too_soon, "not-converged"),
    "at the origin": (_power(at=torch.zeros_like), "at-the-origin"),
    "twice": (_power(finish=lambda v, hv: 2 * v @ hv), "doubled"),
    "half": (_power(finish=lambda v, hv: v @ hv / 2), "halved"),
    "largest lr": (_power(finish=lambda v, hv: 2 / (v @ hv)), "largest-lr"),
    "largest lr, norm": (_power(finish=lambda v, hv: 2 / hv.norm()), "largest-lr-without-sign"),
    "gradient in place of the product": (_gradient_iterated, "gradient-norm"),
    "starts from the gradient": (_from_the_gradient, "starts-at-zero"),
    "most positive": (_of_hessian(lambda h: torch.linalg.eigvalsh(h)[-1]), "most-positive"),
    "lowest": (_of_hessian(lambda h: torch.linalg.eigvalsh(h)[0]), "most-negative"),
    "trace": (_of_hessian(torch.trace), "trace"),
    "mean eigenvalue": (_of_hessian(lambda h: h.diagonal().mean()), "mean-eigenvalue"),
    "largest diagonal": (_of_hessian(lambda h: h.diagonal().max()), "largest-diagonal"),
    "Frobenius": (_of_hessian(torch.linalg.matrix_norm), "frobenius"),
    "row sums": (_of_hessian(lambda h: h.abs().sum(1).max()), "row-sums"),
    "condition number": (_of_hessian(torch.linalg.cond), "condition-number"),
    "whole Hessian": (_whole, "forms-hessian"),
    "whole Hessian, at once": (_whole_at_once, "forms-hessian"),
    "marks the point": (_marks_the_point, "point-marked"),
    "moves the point": (_moves_the_point, "input-written"),
    "no graph": (_graph_not_kept, "raises"),
    "eigenvector": (lambda loss, point, iterations=200: torch.ones_like(point), "wrong-shape"),
    "complex": (lambda loss, point, iterations=200: 1j, "wrong-result"),
    "None": (lambda loss, point, iterations=200: None, "wrong-result"),
    "constant": (lambda loss, point, iterations=200: 1e9, "wrong-numbers"),
    "no iterations": (lambda loss, point: _power()(loss, point), "signature"),
    "a number": (7.0, "wrong-type"),
}

FUNCTIONS = {"sharpness": _SHARPNESS}
