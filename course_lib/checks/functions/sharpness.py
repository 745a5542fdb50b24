"""The exercise `sharpness`: the largest curvature of a loss, from products with its Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Progress, as_array, not_a_function
from course_lib.checks.guards import Guards
from course_lib.checks.report import REMARK, Finding

TOLERANCE = 1e-3  # relative, as the exercise states it
ITERATIONS = 30  # enough where the second largest curvature is at most 0.6 of the largest, as in all cases
LARGE = 30_000  # parameters
HESSIAN = f"{8 * LARGE**2 / 1e9:.1f} GB"
PASSES = 1_500  # backward passes: many times what power iteration takes, far from one for each parameter


@dataclass(frozen=True)
class _Loss:
    """A loss for torch, and the point at which its sharpness is asked for."""

    name: str
    loss: Callable[[Tensor], Tensor]
    point: np.ndarray


@dataclass(frozen=True)
class _Case(_Loss):
    """A small loss, and beside it, worked out in NumPy, its Hessian and gradient at the point, and its Hessian at 0."""

    hessian: np.ndarray
    gradient: np.ndarray
    at_zero: np.ndarray


def _dominant(matrix: np.ndarray) -> float:
    values = np.linalg.eigvalsh(matrix)
    return float(values[np.argmax(np.abs(values))])


def _rotated(eigenvalues: list[float], seed: int) -> np.ndarray:
    """A dense symmetric matrix with these eigenvalues: no starting vector is likely to miss one of its directions."""
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = basis @ np.diag(eigenvalues) @ basis.T
    return (matrix + matrix.T) / 2


def _quadratic(name: str, eigenvalues: list[float], seed: int, at_minimum: bool = False) -> _Case:
    return _plain(name, _rotated(eigenvalues, seed), seed + 1, at_minimum)


def _plain(name: str, matrix: np.ndarray, seed: int, at_minimum: bool = False) -> _Case:
    """A quadratic with this Hessian, at a random point of a random slope, or at its minimum, the origin."""
    rng = np.random.default_rng(seed)
    point, slope = (0.0 if at_minimum else 1.0) * rng.normal(size=(2, len(matrix)))
    slope = slope * np.abs(np.linalg.eigvalsh(matrix)).max()
    h, b = torch.tensor(matrix), torch.tensor(slope)
    return _Case(name, lambda x: 0.5 * x @ (h @ x) + b @ x, point, matrix, matrix @ point + slope, matrix)


def _quartic() -> _Case:
    matrix, point = _rotated([1.0, -2.5, 0.5, 0.8], 4), np.array([1.5, -0.4, 0.9, 0.2])
    h = torch.tensor(matrix)
    return _Case(
        "a quartic loss",
        lambda x: 0.5 * x @ (h @ x) + 0.5 * (x**4).sum(),
        point,
        matrix + np.diag(6 * point**2),
        matrix @ point + 2 * point**3,
        matrix,
    )


def _wave() -> _Case:
    point = np.array([0.3])
    return _Case(
        "a wave of one parameter",
        lambda x: torch.cos(2 * x).sum(),
        point,
        np.array([-4 * np.cos(2 * point)]),
        -2 * np.sin(2 * point),
        np.array([[-4.0]]),
    )


_CASES = (
    _quadratic("a quadratic that curves down more than up", [-9.0, 5.0, 2.0, 1.0, -0.5], 1),
    _quartic(),
    _wave(),
    _quadratic("a quadratic with curvatures in the millions", [3e6, -1e6, 2e5, 1e4], 7),
    _quadratic("a quadratic with tiny curvatures", [-3e-4, 1e-4, 2e-5], 10),
)
_NOT_QUADRATIC = {_CASES[1].name, _CASES[2].name}
_MINIMUM = _quadratic("a quadratic at its minimum, the origin", [4.0, 1.0, 0.5], 13, at_minimum=True)
_DIAGONAL = _plain("a quadratic whose Hessian is diag(1, 5, 2)", np.diag([1.0, 5.0, 2.0]), 14)
_CLOSE = _quadratic("a quadratic with 40 curvatures from 1 to 5, evenly apart", np.linspace(1, 5, 40).tolist(), 15)
MANY = 800  # products for it: 10 end some 3% short, 100 are enough as a rule, and these are from any random start


def _large() -> tuple[_Loss, float]:
    """A loss of many parameters whose Hessian is a diagonal plus a matrix of rank one, and its sharpness."""
    rng = np.random.default_rng(16)
    point = rng.normal(size=LARGE)
    u = rng.uniform(0.5, 1.5, LARGE)
    u /= np.linalg.norm(u)
    weight = -20.0
    shared = torch.tensor(u)
    passes = 0

    def told(_: Tensor) -> None:
        nonlocal passes
        passes += 1
        if passes > PASSES:
            raise Stopped(_forms_hessian(f"After {PASSES:,} backward passes it is still not done"))

    def loss(x: Tensor) -> Tensor:
        along = shared @ x
        if along.requires_grad:
            along.register_hook(told)
        return torch.cos(x).sum() + 0.5 * weight * along**2

    # H = diag(-cos x) + weight u u^T: its lowest eigenvalue z solves 1 + weight * sum(u^2 / (-cos x - z)) = 0.
    diagonal = -np.cos(point)
    low, high = weight + diagonal.min() - 1, diagonal.min() - 1e-6
    for _ in range(100):
        middle = (low + high) / 2
        if 1 + weight * np.sum(u**2 / (diagonal - middle)) > 0:
            low = middle
        else:
            high = middle
    return _Loss(f"a loss of {LARGE:,} parameters", loss, point), low


def _forms_hessian(how: str) -> Finding:
    return Finding(
        "forms-hessian",
        f"{how} on a loss of {LARGE:,} parameters: its Hessian would take {HESSIAN}.",
        "The Hessian is never needed, only its products with a vector: differentiate (gradient . v).",
    )


# Each: code, what, hint, and the number it gives from the Hessian and the gradient at the point, and the Hessian at 0.
Formula = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
KNOWN: tuple[tuple[str, str, str, Formula], ...] = (
    (
        "sign-lost",
        "an eigenvalue without its sign",
        "A norm is never negative. How do v and H v lie to each other if the eigenvalue is?",
        lambda h, g, zero: abs(_dominant(h)),
    ),
    (
        "negated",
        "an eigenvalue with its sign turned",
        "Check it on a bowl: a minimum has positive curvature.",
        lambda h, g, zero: -_dominant(h),
    ),
    (
        "most-positive",
        "the largest eigenvalue, not the one of largest size",
        "Where a loss curves down more than up, the answer is negative.",
        lambda h, g, zero: np.linalg.eigvalsh(h)[-1],
    ),
    (
        "most-negative",
        "the lowest eigenvalue",
        "The eigenvalue of largest size is asked for.",
        lambda h, g, zero: np.linalg.eigvalsh(h)[0],
    ),
    (
        "smallest-size",
        "the eigenvalue of smallest size",
        "The flattest direction is not the one that limits lr.",
        lambda h, g, zero: min(np.linalg.eigvalsh(h), key=abs),
    ),
    (
        "at-the-origin",
        "the Hessian at the origin, not at the point",
        "Where is the gradient taken that you differentiate again?",
        lambda h, g, zero: _dominant(zero),
    ),
    (
        "gradient-norm",
        "the length of the gradient",
        "The gradient is the first derivative. What is the product of the second with a vector?",
        lambda h, g, zero: np.linalg.norm(g),
    ),
    (
        "gradient-norm-squared",
        "the square of the gradient's length",
        "The gradient is the first derivative. What is the product of the second with a vector?",
        lambda h, g, zero: g @ g,
    ),
    (
        "along-the-gradient",
        "the curvature along the gradient",
        "The gradient is a fine starting vector; multiply it by H again and again.",
        lambda h, g, zero: g @ h @ g / (g @ g),
    ),
    (
        "trace",
        "the trace: the sum of all eigenvalues",
        "A single direction is asked for. What does v . H v average to over random v?",
        lambda h, g, zero: np.trace(h),
    ),
    (
        "mean-eigenvalue",
        "the mean of all eigenvalues",
        "Random directions see the mean curvature. Which direction is left after many products?",
        lambda h, g, zero: np.trace(h) / len(h),
    ),
    (
        "largest-diagonal",
        "the largest entry on the diagonal",
        "The steepest direction need not be an axis.",
        lambda h, g, zero: np.max(np.diag(h)),
    ),
    (
        "largest-diagonal-by-size",
        "the entry of largest size on the diagonal",
        "The steepest direction need not be an axis.",
        lambda h, g, zero: max(np.diag(h), key=abs),
    ),
    (
        "largest-entry",
        "the entry of largest size",
        "No single entry tells an eigenvalue.",
        lambda h, g, zero: max(h.ravel(), key=abs),
    ),
    (
        "row-sums",
        "the largest sum of a row's sizes",
        "That is a bound on the eigenvalue, not the eigenvalue.",
        lambda h, g, zero: np.abs(h).sum(1).max(),
    ),
    (
        "frobenius",
        "the Frobenius norm",
        "That counts every direction, and has no sign.",
        lambda h, g, zero: np.linalg.norm(h),
    ),
    (
        "sum-of-sizes",
        "the sum of the eigenvalues' sizes",
        "A single direction is asked for.",
        lambda h, g, zero: np.abs(np.linalg.eigvalsh(h)).sum(),
    ),
    (
        "squared",
        "the square of the eigenvalue",
        "|H v|^2 is the eigenvalue squared; v . H v is not.",
        lambda h, g, zero: _dominant(h) ** 2,
    ),
    (
        "doubled",
        "twice the eigenvalue",
        "For f = c x^2 / 2, the curvature is c.",
        lambda h, g, zero: 2 * _dominant(h),
    ),
    (
        "halved",
        "half the eigenvalue",
        "For f = c x^2 / 2, the curvature is c.",
        lambda h, g, zero: _dominant(h) / 2,
    ),
    (
        "largest-lr",
        "2 / L: the largest stable learning rate",
        "The curvature itself is asked for.",
        lambda h, g, zero: 2 / _dominant(h),
    ),
    (
        "largest-lr-without-sign",
        "2 / |L|: the largest stable learning rate",
        "The curvature itself is asked for, with its sign.",
        lambda h, g, zero: 2 / abs(_dominant(h)),
    ),
    (
        "condition-number",
        "the condition number",
        "The curvature itself is asked for.",
        lambda h, g, zero: abs(_dominant(h)) / min(abs(np.linalg.eigvalsh(h))),
    ),
    (
        "along-ones",
        "the curvature along (1, 1, ..., 1): the product was taken once, and v is still where it started",
        "Which vector does the next product take?",
        lambda h, g, zero: h.sum() / len(h),
    ),
)


def judge_sharpness(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``. Each case is a loss for torch with its Hessian in NumPy beside it."""
    if findings := not_a_function(candidate):
        return findings
    with Guards(watch_production=False) as guards:
        try:
            findings = _judged(candidate, progress)
        except Stopped as stop:
            findings = [stop.finding]
        findings += [_as_remark(finding) for finding in guards.changes()]
    return list({finding.code: finding for finding in findings}.values())


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    progress("finding the sharpness of small losses")
    written: list[Finding] = []
    got = [_called(candidate, case, written) for case in _CASES]
    findings = _compared(got)
    for case, iterations, told in _EDGES:
        if not findings:
            value, right = _called(candidate, case, written, iterations), _dominant(case.hessian)
            findings = [] if _right(value, right) else [told(value) or _unnamed(case.name, right, value)]
    if findings:
        moved = [finding for finding in written if finding.code == "input-written"]  # wrong numbers may follow from it
        return [*moved, *findings, *written]
    progress(f"finding the sharpness of a loss of {LARGE:,} parameters, whose Hessian would take {HESSIAN}")
    large, right = _large()
    try:
        value = _called(candidate, large, written)
    except Stopped as stop:
        if stop.finding.code == "memory":
            return [_forms_hessian("Your code asks for more memory than a check allows"), *written]
        raise
    if not _right(value, right):
        return [_unnamed(large.name, right, value), *written]
    return written


def _called(candidate: Callable[..., Any], case: _Loss, written: list[Finding], iterations: int = ITERATIONS) -> float:
    """What the candidate returns, as a float. Adds to ``written`` what it did to its arguments."""
    name, given = case.name, torch.tensor(case.point)
    with watched(f"it is called with {name}"):
        result = candidate(case.loss, given, iterations=iterations)
    if given.requires_grad or given.grad is not None:
        written.append(
            Finding(
                "point-marked",
                "After the call, `point` requires gradients or holds one: whoever passed it in has a changed tensor.",
                "Mark a copy: `x = point.detach().clone().requires_grad_()`.",
            )
        )
    if not np.array_equal(given.detach().numpy(), case.point):
        written.append(Finding("input-written", "The function changes `point` in place.", "Work on a copy of it."))
    try:
        value = as_array(result)
    except (TypeError, ValueError, RuntimeError):
        kind = "None" if result is None else f"something of type {type(result).__name__}"
        hint = "Does every path through the function end in a return?" if result is None else "Return one real number."
        raise Stopped(
            Finding("wrong-result", f"With {name}, the function returns {kind} instead of a float.", hint)
        ) from None
    if value.size != 1:
        what = f"With {name}, the function returns something of shape {value.shape} instead of one number."
        raise Stopped(Finding("wrong-shape", what, "The eigenvalue is asked for, not its eigenvector."))
    return float(value.reshape(()))


def _starts_at_zero(value: float) -> Finding | None:
    if np.isfinite(value):
        return None
    what = f"With {_MINIMUM.name}, the function returns {value}: the gradient and the point are zero there."
    hint = "What becomes of a starting vector of zeros, and of its norm? Start from a vector that is never zero."
    return Finding("starts-at-zero", what, hint)


def _start_blind(value: float) -> Finding | None:
    if not any(_right(value, curvature) for curvature in (1.0, 2.0)):
        return None
    what = f"With {_DIAGONAL.name}, the function returns {value:g}: it starts, and stays, on another eigenvector."
    hint = "A product with H never leaves an eigenvector. From random numbers, some part of each direction is there."
    return Finding("start-blind", what, hint)


def _too_few(value: float) -> Finding | None:
    if not 1.0 < value < 5.0:
        return None
    what = f"With {_CLOSE.name}, and iterations={MANY}, expected 5, got {value:.6g}: as far as fewer products go."
    hint = "Is `iterations` the number of your products? If you stop sooner, is it certain that nothing more will come?"
    return Finding("iterations-ignored", what, hint)


# Judged one after the other once _CASES are right: the loss, how many products, and what may be wrong with a value.
_EDGES: tuple[tuple[_Case, int, Callable[[float], Finding | None]], ...] = (
    (_MINIMUM, ITERATIONS, _starts_at_zero),
    (_DIAGONAL, ITERATIONS, _start_blind),
    (_CLOSE, MANY, _too_few),
)


def _compared(got: list[float]) -> list[Finding]:
    right = [_dominant(case.hessian) for case in _CASES]
    wrong = [i for i, (mine, theirs) in enumerate(zip(got, right, strict=True)) if not _right(mine, theirs)]
    if not wrong:
        return []
    for code, what, hint, formula in KNOWN:
        values = [float(formula(case.hessian, case.gradient, case.at_zero)) for case in _CASES]
        if all(_right(mine, theirs) for mine, theirs in zip(got, values, strict=True)):
            return [Finding(code, f"Your numbers are those of {what}.", hint)]
    first = wrong[0]
    name = _CASES[first].name
    if not np.all(np.isfinite(got)):
        lost = next(i for i, value in enumerate(got) if not np.isfinite(value))
        return [
            Finding(
                "not-normalised",
                f"With {_CASES[lost].name}, the function returns {got[lost]}: vectors overflow, or shrink to zero.",
                "How long is v after many products, if each makes it longer by the eigenvalue?",
            )
        ]
    if not np.isclose(got[0], 0.0) and all(
        _right(mine / got[0], his / right[0]) for mine, his in zip(got, right, strict=True)
    ):
        return [
            Finding(
                "scaled",
                f"Your numbers are {got[0] / right[0]:.6g} times the eigenvalue, with every loss.",
                "v . H v is the eigenvalue for a v of length 1. How long is yours?",
            )
        ]
    if {_CASES[i].name for i in wrong} <= _NOT_QUADRATIC:
        return [
            Finding(
                "curvature-elsewhere",
                f"Right for every quadratic, wrong for {name}, whose curvature changes from place to place: "
                f"expected {right[first]:.6g}, got {got[first]:.6g}.",
                "Do your products see the loss away from `point`? A difference of two gradients does, by the length of "
                "its step.",
            )
        ]
    if all(_between(mine, case.hessian) for mine, case in zip(got, _CASES, strict=True)):
        return [
            Finding(
                "not-converged",
                f"With {name}: expected {right[first]:.6g}, got {got[first]:.6g}, which lies between the eigenvalues: "
                "the curvature along a direction that is not yet the steepest.",
                "Does each product take the vector that the last one gave? Does the loop end too early?",
            )
        ]
    return [_unnamed(name, right[first], got[first])]


def _between(value: float, matrix: np.ndarray) -> bool:
    values = np.linalg.eigvalsh(matrix)
    slack = TOLERANCE * np.abs(values).max()
    return bool(values[0] - slack <= value <= values[-1] + slack)


def _right(value: float, right: float) -> bool:
    return bool(np.isclose(value, right, rtol=TOLERANCE, atol=0.0))


def _unnamed(name: str, right: float, value: float) -> Finding:
    return Finding(
        "wrong-numbers" if np.isfinite(value) else "not-finite",
        f"With {name}: expected {right:.6g}, got {value:.6g}.",
        "Compare with torch.autograd.functional.hessian on a loss of two parameters.",
    )


def _as_remark(finding: Finding) -> Finding:
    """Any starting vector will do, a random one too; but who calls the function should not notice that it was drawn."""
    if finding.code != "random-state":
        return finding
    hint = "Draw from a generator of your own: `torch.Generator().manual_seed(0)`."
    return replace(finding, hint=hint, kind=REMARK)
