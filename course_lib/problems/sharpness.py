"""Curvature of a loss too large for its Hessian to be written down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def hessian_products(loss: Callable[[Tensor], Tensor], point: Tensor) -> Callable[[Tensor], Tensor]:
    """The function ``v -> H v``, H being the Hessian of ``loss`` at ``point``, which is never formed.

    The gradient is differentiated once more, along ``v``. A product costs about as much as two gradients, and memory
    for a few vectors, where H itself would take n^2 numbers.

    Args:
        loss: maps a tensor of shape (n,) to a scalar tensor, twice differentiable by autograd.
        point: floating-point tensor of shape (n,); it is not changed and need not require a gradient.

    Returns:
        A function from and to tensors of shape (n,), of the point's dtype and on its device.

    Raises:
        ValueError: ``point`` is no vector of real numbers, or the gradient there is not finite.

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian, Neural Computation 6(1).
    """
    if point.ndim != 1 or not point.is_floating_point():
        raise ValueError(
            f"Invalid point: shape {tuple(point.shape)}, {point.dtype}. Allowed: a floating-point tensor of shape (n,); "
            "join several parameters with torch.cat."
        )
    point = point.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    if not gradient.isfinite().all():
        raise ValueError("The gradient at this point holds infinities or NaN. Allowed: a point where it is finite.")

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a linear loss: its gradient does not depend on the point
            return torch.zeros_like(point)
        return torch.autograd.grad(gradient, point, vector, retain_graph=True, materialize_grads=True)[0]

    return product


def sharpness(loss: Callable[[Tensor], Tensor], point: Tensor, iterations: int = 100, seed: int = 0) -> float:
    """The Hessian's eigenvalue of largest absolute value, with its sign, by power iteration.

    Gradient descent on a quadratic is stable while lr < 2 / sharpness. The error falls by the square of the ratio
    of the two largest absolute eigenvalues per iteration; where they are equal with opposite signs, it does not fall.

    Args:
        loss, point: as in :func:`hessian_products`.
        iterations: products with the Hessian, >= 1.
        seed: of the direction to start from, drawn with ``numpy.random.default_rng``.

    Raises:
        ValueError: ``iterations`` is below 1, or what :func:`hessian_products` refuses.

    Source: Cohen et al. 2021 (arXiv 2103.00065) call the largest eigenvalue of the training loss sharpness.
    """
    if iterations < 1:
        raise ValueError(f"Invalid iterations: {iterations!r}. Allowed: a whole number >= 1.")
    product = hessian_products(loss, point)
    direction = torch.from_numpy(np.random.default_rng(seed).standard_normal(point.numel())).to(point)
    for _ in range(iterations):
        direction = direction / direction.norm()
        image = product(direction)
        value = (direction @ image).item()
        if not image.any():
            break
        direction = image
    return value
