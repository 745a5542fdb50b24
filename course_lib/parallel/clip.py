"""The norm of a gradient that no rank holds whole."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from course_lib.parallel.comm import Comm


@torch.no_grad()
def clip_shares_(shares: Iterable[Tensor], max_norm: float, comm: Comm | None) -> Tensor:
    """Scale a sharded gradient so that its global L2 norm is at most ``max_norm``, with one all-reduce of one number.

    Squares add over ranks, norms do not: each rank sums the squares of its own elements, the sums are added up, then
    comes the root. As in ``torch.nn.utils.clip_grad_norm_``, the factor is min(1, max_norm / (norm + 1e-6)).

    Args:
        shares: this rank's elements, disjoint from the other ranks'; scaled in place. None at all is allowed.
        max_norm: > 0; ``inf`` only measures.
        comm: the ranks that share the gradient; None where this rank has all of it.

    Returns:
        The norm before clipping, one element, the same on every rank; float64 for float64 shares, else float32. Not
        finite if any rank's share is not: then every rank sees it, and can skip the step with the others.

    Raises:
        ValueError: ``max_norm`` is not > 0.
    """
    require_norm(max_norm)
    shares = list(shares)
    wide = torch.float64 if any(share.dtype == torch.float64 for share in shares) else torch.float32
    total = torch.zeros((), dtype=torch.float64, device=shares[0].device if comm is None else comm.device)
    for share in shares:
        total += share.to(wide).square().sum()
    norm = (total if comm is None else comm.all_reduce(total)).sqrt().to(wide)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for share in shares:
        share.mul_(factor.to(share.dtype))
    return norm


def require_norm(max_norm: float) -> None:
    """Raise ValueError unless ``max_norm`` is a norm that one can clip to."""
    if not max_norm > 0:
        raise ValueError(f"Invalid max_norm: {max_norm!r}. Allowed: a norm > 0; infinity only measures.")
