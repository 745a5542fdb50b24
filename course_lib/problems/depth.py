"""How large signals are at each depth of an untrained network, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 64


class Signal(NamedTuple):
    """Root mean squares by depth, float64 (depth + 1,): entry 0 is the input, the last the output.

    Attributes:
        forward: of the activations; those of the input are 1.
        backward: of the gradient of a loss with respect to those activations, where the gradient at the output is 1.
    """

    forward: np.ndarray
    backward: np.ndarray


def plain(gain: float, depth: int = 30, width: int = 128, seed: int = 0) -> Signal:
    """A chain of linear layers without biases, each followed by a ReLU: x <- relu(W x), W ~ N(0, gain / width).

    A ReLU halves the mean square, so that gain 2 keeps it (He et al. 2015, arXiv 1502.01852), and any other gain
    multiplies it by gain / 2 a layer, in both directions.

    Args:
        gain: variance of a weight times the width, > 0.
        depth: layers, >= 1.
        width: units of a layer, >= 1.
        seed: of weights and inputs, with ``numpy.random.default_rng``; all float64.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check("gain", gain, depth, width)
    rng = np.random.default_rng(seed)

    def layer(x: Tensor) -> Tensor:
        return (x @ _draw(rng, (width, width), math.sqrt(gain / width))).relu()

    return _through(layer, depth, width, rng)


def residual(scale: float, branches: int = 96, width: int = 128, seed: int = 0) -> Signal:
    """A pre-norm residual stream: x <- x + scale * f(norm(x)), each branch f two layers with a ReLU between.

    At scale 1 a branch writes with variance 1, whatever the depth, since its input is normalised. So after n branches
    the stream has variance 1 + n * scale^2: 2 at the end for 1 / sqrt(branches), which is what GPT-2 does with its two
    branches a block (Radford et al. 2019, section 2.3).

    Args:
        scale: of what a branch writes, >= 0.
        branches: >= 1; two a transformer block.
        width: of the stream, >= 1.
        seed: of weights and inputs, with ``numpy.random.default_rng``; all float64.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check("scale", scale, branches, width, zero=True)
    rng = np.random.default_rng(seed)

    def branch(x: Tensor) -> Tensor:
        inner = (F.layer_norm(x, (width,)) @ _draw(rng, (width, width), math.sqrt(2 / width))).relu()
        return x + scale * inner @ _draw(rng, (width, width), 1 / math.sqrt(width))

    return _through(branch, branches, width, rng)


def _through(layer: Callable[[Tensor], Tensor], depth: int, width: int, rng: np.random.Generator) -> Signal:
    x = _draw(rng, (SAMPLES, width), 1.0)
    stages = [(x / x.square().mean().sqrt()).requires_grad_()]
    for _ in range(depth):
        stages.append(layer(stages[-1]))
    direction = _draw(rng, (SAMPLES, width), 1.0)
    direction = direction / direction.square().mean().sqrt()
    gradients = torch.autograd.grad((stages[-1] * direction).sum(), stages)
    return Signal(*(np.array([_rms(tensor) for tensor in tensors]) for tensors in (stages, gradients)))


def _rms(tensor: Tensor) -> float:
    return tensor.detach().square().mean().sqrt().item()


def _draw(rng: np.random.Generator, shape: tuple[int, int], std: float) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape) * std)


def _check(name: str, factor: float, depth: int, width: int, *, zero: bool = False) -> None:
    if not (math.isfinite(factor) and (factor > 0 or (zero and factor == 0))):
        raise ValueError(f"Invalid {name}: {factor!r}. Allowed: a finite number {'>=' if zero else '>'} 0.")
    for what, value in (("depth", depth), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Invalid {what}: {value!r}. Allowed: a whole number >= 1.")
