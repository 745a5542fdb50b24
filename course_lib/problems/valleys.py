"""Functions of two variables on which an optimizer's path can be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Valley:
    """A function to descend, and what one needs to draw it.

    Attributes:
        name: as one writes it in a title.
        function: Tensor of shape (..., 2) -> Tensor of shape (...), differentiable by autograd.
        start: where the literature, or the course, starts.
        minimum: the point of the smallest value, or None where there is none.
        bounds: ((x0, x1), (y0, y1)), the part worth a picture.
        source: where the function is from.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    minimum: tuple[float, float] | None
    bounds: tuple[tuple[float, float], tuple[float, float]]
    source: str


def quadratic(condition: float = 100.0) -> Valley:
    """f(x, y) = (x^2 + condition * y^2) / 2: eigenvalues 1 and ``condition``, minimum 0 at the origin.

    The gradient is (x, condition * y). Gradient descent multiplies x by 1 - lr and y by
    1 - lr * condition at each step, so it converges only for lr < 2 / condition (condition >= 1), while x
    then shrinks by no more than a factor 1 - 2 / condition: the steep axis sets the step, the flat one the time.

    Args:
        condition: the condition number of the Hessian, >= 1 and finite.

    Raises:
        ValueError: ``condition`` is out of range.

    Source: Boyd & Vandenberghe 2004, Convex Optimization, section 9.3.2.
    """
    if not (1 <= condition < math.inf):
        raise ValueError(f"Invalid condition: {condition!r}. Allowed: condition >= 1 and finite.")

    def function(point: Tensor) -> Tensor:
        x, y = point[..., 0], point[..., 1]
        return (x**2 + condition * y**2) / 2

    return Valley(
        f"Quadratic with condition number {condition:g}", function, (-10.0, 1.0), (0.0, 0.0),
        ((-12.0, 8.0), (-3.0, 3.0)), "Boyd & Vandenberghe 2004, Convex Optimization, section 9.3.2",
    )


def rosenbrock() -> Valley:
    """f(x, y) = (1 - x)^2 + 100 (y - x^2)^2: a narrow bent valley, minimum 0 at (1, 1), start (-1.2, 1).

    The Hessian at the minimum has condition number 2508. Source: Rosenbrock 1960.
    """

    def function(point: Tensor) -> Tensor:
        x, y = point[..., 0], point[..., 1]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return Valley(
        "Rosenbrock", function, (-1.2, 1.0), (1.0, 1.0), ((-2.0, 2.0), (-1.0, 3.0)),
        "Rosenbrock 1960, An automatic method for finding the greatest or least value of a function, "
        "The Computer Journal 3(3)",
    )


def beale() -> Valley:
    """f(x, y) = sum over i = 1, 2, 3 of (c_i - x (1 - y^i))^2, c = (1.5, 2.25, 2.625): minimum 0 at (3, 0.5).

    Flat near the start (1, 1) and very steep towards the corners. Source: Beale 1958; start from Moré, Garbow &
    Hillstrom 1981, problem 5.
    """

    def function(point: Tensor) -> Tensor:
        x, y = point[..., 0], point[..., 1]
        return sum((c - x * (1 - y**i)) ** 2 for i, c in ((1, 1.5), (2, 2.25), (3, 2.625)))

    return Valley(
        "Beale", function, (1.0, 1.0), (3.0, 0.5), ((-1.0, 4.5), (-1.5, 1.5)),
        "Beale 1958, Princeton technical report 25; Moré, Garbow & Hillstrom 1981, ACM TOMS 7(1), problem 5",
    )


def saddle() -> Valley:
    """f(x, y) = x^2 - y^2: stationary at the origin, unbounded below along y; no minimum.

    The start lies close to the ridge y = 0, where the gradient leads to the saddle point first. On the ridge
    itself gradient descent never leaves it. Why saddles matter: Dauphin et al. 2014 (arXiv 1406.2572).
    """

    def function(point: Tensor) -> Tensor:
        x, y = point[..., 0], point[..., 1]
        return x**2 - y**2

    return Valley(
        "Saddle", function, (-1.5, 0.01), None, ((-2.0, 1.0), (-1.5, 1.5)),
        "textbook; on saddles in high dimension: Dauphin et al. 2014, arXiv 1406.2572",
    )


def descend(
    valley: Valley,
    make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    start: Iterable[float] | None = None,
) -> np.ndarray:
    """The points that an optimizer visits, as float64 array of shape (steps + 1, 2), the start included.

    Runs on the processor in float64. A path that diverges is followed to the end, through infinities and NaN.

    Args:
        valley: what to descend.
        make_optimizer: called once with a list of one parameter of shape (2,), such as
            ``lambda params: SGD(params, lr=0.01)``.
        steps: how many, >= 0.
        start: two finite numbers; the valley's own start by default.

    Raises:
        ValueError: ``steps`` or ``start`` is out of range.
    """
    if steps < 0:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: steps >= 0.")
    values = tuple(float(value) for value in (valley.start if start is None else start))
    if len(values) != 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"Invalid start: {start!r}. Allowed: two finite numbers, such as {valley.start}.")
    point = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer([point])
    path = np.empty((steps + 1, 2))
    path[0] = values
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        valley.function(point).backward()
        optimizer.step()
        path[step] = point.detach().numpy()
    return path
