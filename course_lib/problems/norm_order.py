"""A transformer encoder whose norms stand before or after the residual sums, and a task that it learns at once."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.schedules import linear_warmup

HEADS = 4
VOCABULARY = 32


def encoder(
    norm_first: bool, layers: int, width: int = 32, vocabulary: int = VOCABULARY, seed: int = 0
) -> nn.Sequential:
    """Embedding, ``layers`` of torch's encoder layers, a linear head; no positions, no mask, no dropout; float32.

    Matrices are drawn as Xavier-normal with ``numpy.random.default_rng(seed)``, biases are zero.

    Args:
        norm_first: True for a norm before each sublayer and one at the end (pre-norm), False for one after each
            residual sum (post-norm, the original Transformer).
        layers: >= 1.
        width: features, a multiple of 4, the number of heads; the MLP is four times as wide.
        vocabulary: tokens in and out.
        seed: of the weights.

    Returns:
        A module from int64 (batch, time) to logits (batch, time, vocabulary).

    Raises:
        ValueError: ``layers`` is below 1 or ``width`` is no multiple of the heads.
    """
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise ValueError(f"Invalid layers: {layers!r}. Allowed: a whole number >= 1.")
    if width < HEADS or width % HEADS:
        raise ValueError(f"Invalid width: {width!r}. Allowed: a multiple of {HEADS}, the number of heads.")
    blocks = [
        nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True, norm_first=norm_first)
        for _ in range(layers)
    ]
    last = nn.LayerNorm(width) if norm_first else nn.Identity()
    net = nn.Sequential(nn.Embedding(vocabulary, width), *blocks, last, nn.Linear(width, vocabulary))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, param in net.named_parameters():
            if param.ndim == 2:
                param.copy_(torch.from_numpy(rng.normal(0, (2 / sum(param.shape)) ** 0.5, param.shape)))
            elif "bias" in name:
                param.zero_()
    return net


def last_gradient(norm_first: bool, layers: int, seed: int = 0) -> float:
    """Norm of the gradient of the last layer's second MLP matrix at initialisation, in float64.

    On 16 sequences of 16 random tokens out of 64 with random targets, width 64.

    Source: Xiong et al. 2020 (arXiv 2002.04745), theorem 1: with the norm after the sum it does not depend on the
    depth L, with the norm before it falls as 1 / sqrt(L).
    """
    net, rng = encoder(norm_first, layers, 64, 64, seed).double(), np.random.default_rng(seed + 1)
    tokens, targets = torch.from_numpy(rng.integers(0, 64, (2, 16, 16)))
    F.cross_entropy(net(tokens).flatten(0, 1), targets.flatten()).backward()
    return net[layers].linear2.weight.grad.norm().item()


def increment_loss(
    norm_first: bool, peak: float, warmup: int, *, layers: int = 8, steps: int = 60, seed: int = 0
) -> float:
    """Train :func:`encoder` to answer each token x with x + 1 (mod 32); mean loss of the last ten updates, in nats.

    Adam with betas (0.9, 0.98), batches of 16 sequences of 8 tokens, a linear warmup and then the rate ``peak``.
    Chance is ln 32 = 3.47.

    Args:
        norm_first, layers, seed: as in :func:`encoder`.
        peak: learning rate.
        warmup: updates, >= 0.
        steps: updates in all, >= 10.
    """
    net, rng, losses = encoder(norm_first, layers, seed=seed), np.random.default_rng(seed + 1), []
    adam = torch.optim.Adam(net.parameters(), lr=peak, betas=(0.9, 0.98))
    schedule = linear_warmup(warmup)
    for step in range(steps):
        adam.param_groups[0]["lr"] = peak * schedule(step)
        tokens = torch.from_numpy(rng.integers(0, VOCABULARY, (16, 8)))
        loss = F.cross_entropy(net(tokens).flatten(0, 1), ((tokens + 1) % VOCABULARY).flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return float(np.mean(losses[-10:]))
