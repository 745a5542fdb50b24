"""Networks whose layers differ in size by known factors: what the trust ratios of LARS and LAMB were made for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledLayers(nn.Module):
    """Matrices one after the other, without biases; each is orthogonal (of its rows or columns, whichever are
    fewer) at the start, times its scale.

    Args:
        scales: a factor for each layer, finite and > 0; their number is the depth.
        sizes: units of the input, of each hidden layer and of the output: one more than there are scales.
        normalise: whether each hidden layer ends in ``relu(layer_norm(.))``, without gain and eps. The function, and
            so the loss, then does not depend on the scales of hidden layers. Otherwise the network is linear.
        seed: of the weights, orthogonal matrices made from draws of ``numpy.random.default_rng``: the same for all
            scales.
        dtype: of the parameters.

    Attributes:
        layers: the matrices, (outputs, inputs) each.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        scales: Sequence[float],
        sizes: Sequence[int],
        *,
        normalise: bool,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"Invalid scales: {tuple(scales)!r}. Allowed: at least one, each finite and > 0.")
        if len(sizes) != len(scales) + 1 or min(sizes) < 1:
            raise ValueError(
                f"Invalid sizes: {tuple(sizes)!r}. Allowed: {len(scales) + 1} whole numbers >= 1, "
                "for the input and for what each layer returns."
            )
        rng = np.random.default_rng(seed)
        drawn = [_orthogonal(rng.standard_normal((rows, columns))) for columns, rows in zip(sizes, sizes[1:])]
        self.layers = nn.ParameterList(
            nn.Parameter(torch.tensor(scale * weight, dtype=dtype)) for scale, weight in zip(scales, drawn, strict=True)
        )
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        """(batch, sizes[0]) -> (batch, sizes[-1])."""
        *hidden, last = self.layers
        for weight in hidden:
            x = x @ weight.T
            if self.normalise:
                x = F.relu(F.layer_norm(x, x.shape[-1:], eps=0.0))
        return x @ last.T


def _orthogonal(draw: np.ndarray) -> np.ndarray:
    """Orthonormal rows, or columns where those are fewer: singular values of 1, so that depth mixes no scales."""
    rows, columns = draw.shape
    q, _ = np.linalg.qr(draw.T if rows < columns else draw)
    return q.T if rows < columns else q


def relative_sizes(model: ScaledLayers) -> list[float]:
    """|w| / |g| of each layer, from the gradients that ``backward()`` left."""
    return [(weight.norm() / weight.grad.norm()).item() for weight in model.layers]
