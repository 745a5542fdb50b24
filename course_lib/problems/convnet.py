"""A small convolutional network for the digits."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_lib.problems.digits import CLASSES, PIXELS


def convnet(seed: int = 0) -> nn.Sequential:
    """Two 3 x 3 convolutions, the second with stride 2, and a linear layer: 9,930 parameters, 32 bits each.

    Images (batch, 64) become (batch, 1, 8, 8), then (batch, 16, 8, 8) and (batch, 32, 4, 4), then logits (batch, 10).
    Weights are drawn with ``numpy.random.default_rng(seed)``, N(0, 2 / inputs) before a ReLU (He et al. 2015, arXiv
    1502.01852) and N(0, 1 / inputs) for the logits; biases start at 0. There is no normalisation layer, so that
    nothing but the optimizer looks after the scale of the gradients.

    Args:
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    side = int(PIXELS**0.5)
    # Made without drawing: torch's random state stays as it was.
    first = nn.utils.skip_init(nn.Conv2d, 1, 16, 3, padding=1)
    second = nn.utils.skip_init(nn.Conv2d, 16, 32, 3, padding=1, stride=2)
    head = nn.utils.skip_init(nn.Linear, 32 * (side // 2) ** 2, CLASSES)
    with torch.no_grad():
        for layer, gain in ((first, 2.0), (second, 2.0), (head, 1.0)):
            shape = tuple(layer.weight.shape)
            layer.weight.copy_(torch.from_numpy(rng.normal(0.0, (gain / np.prod(shape[1:])) ** 0.5, shape)))
            layer.bias.zero_()
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)), first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), head,
    )
