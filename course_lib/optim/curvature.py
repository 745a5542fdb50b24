"""Estimates of the diagonal of a curvature matrix, for the price of a backward pass or two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def hutchinson(loss: Tensor, params: Sequence[Tensor], rng: np.random.Generator, samples: int = 1) -> list[Tensor]:
    """Estimate the diagonal of the Hessian of ``loss``: the mean of u * (H u) over vectors u of random signs.

    (u * H u)_i is H_ii plus the sum over j != i of u_i u_j H_ij, of which the mean is zero. The variance is the sum
    of H_ij^2 over j != i: none for a diagonal Hessian. (Liu et al. 2023, arXiv 2305.14342, Algorithm 1, draw u from a
    normal distribution, which adds 2 H_ii^2 to the variance.) Elements come out negative where the curvature is, and
    by chance.

    The loss has to be twice differentiable. PyTorch's fused attention is not; on a transformer compute the loss
    under ``torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)``.

    Args:
        loss: a scalar that depends on ``params``; its graph is kept.
        params: tensors that require gradients; the diagonal has zeros for one that the loss does not depend on.
        rng: draws the signs.
        samples: vectors to average over, >= 1; each costs about one backward pass through the backward pass.

    Returns:
        For each parameter a tensor of its shape, dtype and device. Gradients (``.grad``) are not touched.

    Raises:
        ValueError: the loss is no scalar, or ``samples`` no whole number >= 1.
    """
    if loss.ndim != 0:
        raise ValueError(f"Invalid loss: shape {tuple(loss.shape)}. Allowed: a scalar; take the mean over the batch.")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"Invalid samples: {samples!r}. Allowed: a whole number >= 1.")
    params = list(params)
    grads = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    diagonal = [torch.zeros_like(param) for param in params]
    for _ in range(samples):
        signs = [_random_signs(param, rng) for param in params]
        # A gradient that does not depend on any parameter (of a linear loss, say) has no graph, and no curvature.
        curved = [(grad, sign) for grad, sign in zip(grads, signs, strict=True) if grad.requires_grad]
        if not curved:
            break
        products = torch.autograd.grad(
            [grad for grad, _ in curved], params, [sign for _, sign in curved], retain_graph=True,
            materialize_grads=True,
        )  # fmt: skip
        for total, sign, product in zip(diagonal, signs, products, strict=True):
            total.add_(sign * product, alpha=1 / samples)
    return diagonal


def gauss_newton_bartlett(logits: Tensor, params: Sequence[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """Estimate the diagonal of the Gauss-Newton matrix of a mean cross-entropy by B g^2, with sampled labels.

    Liu et al. 2023, arXiv 2305.14342, Algorithm 2. Each of the B predictions gets a label drawn from the model's own
    distribution, and g is the gradient of the mean cross-entropy with these. The gradients of single predictions are
    then independent and have the mean zero (Bartlett's first identity), so that in E[g^2] only their squares
    survive: B E[g^2] is the mean over the predictions of the diagonal of J^T S J, J being the Jacobian of the logits
    and S the Hessian of the cross-entropy in the logits.

    With the labels of the data it would be the empirical Fisher, and biased. The estimate is never negative. Adam
    averages g^2 without the factor B, and with the data's labels.

    Args:
        logits: (..., classes), computed from ``params``; its graph is freed.
        params: tensors that require gradients; zeros come out for one that the logits do not depend on.
        rng: draws the labels.

    Returns:
        For each parameter a tensor of its shape, dtype and device. Gradients (``.grad``) are not touched.
    """
    labels = sample_labels(logits, rng)
    flat = logits.reshape(-1, logits.shape[-1])
    loss = torch.nn.functional.cross_entropy(flat, labels.reshape(-1))
    grads = torch.autograd.grad(loss, list(params), materialize_grads=True)
    return [len(flat) * grad.square() for grad in grads]


@torch.no_grad()
def sample_labels(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a class for each prediction from softmax(logits).

    Args:
        logits: (..., classes), at least one prediction and one class.
        rng: one number for each prediction is drawn from it.

    Returns:
        int64 (...), on the logits' device.

    Raises:
        ValueError: there is no prediction or no class, or softmax(logits) is NaN.
    """
    if logits.ndim == 0 or logits.numel() == 0:
        raise ValueError(
            f"Invalid logits: shape {tuple(logits.shape)}. Allowed: (..., classes), with at least one element."
        )
    edges = logits.double().softmax(-1).cumsum(-1)
    if edges.isnan().any():
        raise ValueError(
            "Invalid logits: softmax gives NaN. Allowed: numbers, with -inf for a class that is never drawn. Look for "
            "the step at which the model's output became NaN or infinite."
        )
    # The last edge can fall short of 1 by rounding; scaling by it keeps the index below the number of classes.
    draws = torch.as_tensor(rng.random(tuple(logits.shape[:-1])), dtype=torch.float64, device=logits.device)
    return torch.searchsorted(edges, draws.unsqueeze(-1) * edges[..., -1:], right=True).squeeze(-1)


def _random_signs(param: Tensor, rng: np.random.Generator) -> Tensor:
    signs = rng.integers(0, 2, size=tuple(param.shape)) * 2.0 - 1.0
    return torch.as_tensor(signs, dtype=param.dtype, device=param.device)
