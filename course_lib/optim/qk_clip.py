"""QK-clip: after the step, shrink the query and key weights of an attention head whose logits have grown too large."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.optim.base import require


@torch.no_grad()
def qk_clip_(
    query: Tensor | Sequence[Tensor],
    key: Tensor | Sequence[Tensor] | None,
    max_logits: Tensor | Sequence[float],
    tau: float = 100.0,
) -> Tensor:
    """Scale the weights of each head in place, so that its largest attention logit would have been ``tau`` at most.

    Kimi Team 2025, arXiv 2507.20534, section 2.1 (QK-Clip, and MuonClip when Muon takes the steps). For a head of which
    the largest logit in the batch is S::

        gamma = min(1, tau / S)
        W_q <- sqrt(gamma) * W_q,   W_k <- sqrt(gamma) * W_k

    so that every logit q . k / sqrt(d) of the head, being linear in both, is multiplied by gamma. Heads below ``tau``
    are untouched. The forward pass that measured S is not changed, the next one is.

    Where several heads share a key it cannot follow one of them: pass None for ``key``, and the query is multiplied
    by gamma. That is the paper's rule for the rotary part of multi-head latent attention (of which the other part gets
    a call with its key), and what is left to do in grouped-query attention.

    A clip belongs between the optimizer's step and the next forward pass. It changes no state: the momentum is that of
    the unclipped weights.

    Args:
        query: the weight of which the rows make the queries, (heads * head_dim, ...), or several such tensors: with a
            bias the logits are linear in weight and bias together, and both have to be given. Views will do:
            ``attention_in.weight[:width]``.
        key: the same for the keys; None if heads share them.
        max_logits: (heads,) the largest logit of each head, after the division by sqrt(d) and before the softmax,
            as :func:`max_attention_logits` computes it.
        tau: largest logit that is let alone, > 0; Kimi K2 takes 100.

    Returns:
        gamma, float64 (heads,), on the CPU.

    Raises:
        ValueError: ``max_logits`` is not finite or no vector, the rows are not divisible by the heads, or ``tau`` is
            out of its range.
    """
    require("tau", tau, 0.0, low_open=True)
    logits = torch.as_tensor(max_logits).detach().double().cpu()
    if logits.ndim != 1 or len(logits) == 0 or not logits.isfinite().all():
        raise ValueError(
            f"Invalid max_logits: {logits.tolist()}. Allowed: one finite number for each head. No scale brings logits "
            "back that are NaN or infinite: go back to a checkpoint from before."
        )
    queries, keys = _tensors("query", query, len(logits)), _tensors("key", key, len(logits))
    gamma = torch.where(logits > tau, tau / logits, 1.0)
    for tensors, factors in ((queries, gamma.sqrt() if keys else gamma), (keys, gamma.sqrt())):
        for tensor in tensors:
            by_head = tensor.unflatten(0, (len(gamma), -1))
            by_head.mul_(factors.to(tensor).view(-1, *[1] * (by_head.ndim - 1)))
    return gamma


@torch.no_grad()
def max_attention_logits(query: Tensor, key: Tensor, *, causal: bool = True) -> Tensor:
    """The largest attention logit of each head in a batch: max of q . k / sqrt(head_dim) over what attention sees.

    Args:
        query, key: (batch, heads, time, head_dim), as scaled_dot_product_attention takes them.
        causal: leave out the pairs in which the key comes after the query.

    Returns:
        (heads,) in the query's dtype. All (time, time) logits are held at once, which fused attention avoids.
    """
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -math.inf)
    return logits.amax((0, 2, 3))


def _tensors(name: str, given: Tensor | Sequence[Tensor] | None, heads: int) -> list[Tensor]:
    tensors = [] if given is None else [given] if isinstance(given, Tensor) else list(given)
    for tensor in tensors:
        if tensor.ndim == 0 or tensor.shape[0] % heads:
            raise ValueError(
                f"Invalid {name}: shape {tuple(tensor.shape)} with {heads} heads. "
                f"Allowed: (rows, ...) with rows divisible by {heads}, the rows of a head beside one another."
            )
    return tensors
