"""Two ways to keep updates that are smaller than half a gap of a 16-bit weight."""

from __future__ import annotations

import torch
from torch import Tensor

_CUT = 16  # bits by which float32 is longer than bfloat16; sign and exponent are the same


def stochastic_round(x: Tensor, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
    """Round float32 to bfloat16, up or down at random, so that the result is right on average.

    A number that lies a share p of the way from its lower to its upper neighbour (in size, the sign aside) becomes the
    upper one with probability p (Gupta et al. 2015, arXiv 1502.02551, section 3). bfloat16 is the upper half of
    float32's bits, so p is the lower half divided by 2^16: add a random number below 2^16 to the bits and cut
    the lower half off; a carry is the step to the upper neighbour.

    Numbers of bfloat16, inf and NaN stay what they are. Beyond the largest finite one lies inf, as in any rounding.

    Args:
        x: float32, any shape and device; not changed.
        generator: draws the noise, on ``x``'s device; None for torch's own.
        noise: int32 in [0, 65536), of ``x``'s shape, in place of random draws.

    Returns:
        A bfloat16 tensor of ``x``'s shape.

    Raises:
        TypeError: ``x`` is no float32 tensor, or ``noise`` no int32 tensor.
        ValueError: ``noise`` has another shape or is out of range, or is given along with a generator.
    """
    if not isinstance(x, Tensor) or x.dtype is not torch.float32:
        raise TypeError(f"Invalid x: {_kind(x)}. Allowed: a float32 tensor.")
    x = x.detach()
    if noise is None:
        noise = torch.randint(0, 1 << _CUT, x.shape, dtype=torch.int32, device=x.device, generator=generator)
    else:
        _check_noise(noise, x, generator)
    carried = x.view(torch.int32) + noise
    cut = (carried >> _CUT << _CUT).view(torch.float32)
    # inf and NaN are patterns of bits as well: a carry would turn one into the other, or into a number.
    return torch.where(torch.isfinite(x), cut, x).to(torch.bfloat16)


@torch.no_grad()
def kahan_add_(weight: Tensor, compensation: Tensor, update: Tensor) -> None:
    """Add ``update`` to a 16-bit ``weight`` in place, and keep what the rounding loses for the next call.

    Kahan summation (Kahan 1965, Communications of the ACM 8(1), p. 40), on weights as in Zamirai et al. 2020
    (arXiv 2010.06192). Each operation is rounded to the weight's dtype::

        y            <- compensation + update        what should be added in all
        s            <- weight + y
        compensation <- y - (s - weight)             what of it did not arrive
        weight       <- s

    The compensation costs as many bytes as the weight: 4 per parameter together, against 6 with a float32 master.

    Args:
        weight: floating tensor, changed in place; 16-bit ones are what it is for.
        compensation: of the same shape and dtype, zeros at the start, changed in place.
        update: of the same shape, any floating dtype; the step with its sign, ``-lr * direction``. Not changed.

    Raises:
        TypeError: one of the three is no floating tensor, or ``compensation`` has another dtype than ``weight``.
        ValueError: the shapes differ.
    """
    for name, tensor in (("weight", weight), ("compensation", compensation), ("update", update)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"Invalid {name}: {_kind(tensor)}. Allowed: a floating tensor.")
        if tensor.shape != weight.shape:
            raise ValueError(
                f"Invalid {name}: shape {tuple(tensor.shape)}. Allowed: that of weight, {tuple(weight.shape)}."
            )
    if compensation.dtype is not weight.dtype:
        raise TypeError(f"Invalid compensation: {compensation.dtype}. Allowed: the dtype of weight, {weight.dtype}.")
    compensation.add_(update)
    total = weight + compensation
    compensation.sub_(total - weight)
    weight.copy_(total)


def _check_noise(noise: Tensor, x: Tensor, generator: torch.Generator | None) -> None:
    if generator is not None:
        raise ValueError("Both generator and noise were given. Allowed: one of them, or none.")
    if not isinstance(noise, Tensor) or noise.dtype is not torch.int32:
        raise TypeError(f"Invalid noise: {_kind(noise)}. Allowed: an int32 tensor.")
    if noise.shape != x.shape:
        raise ValueError(f"Invalid noise: shape {tuple(noise.shape)}. Allowed: that of x, {tuple(x.shape)}.")
    if noise.numel() and not (0 <= noise.min() and noise.max() < 1 << _CUT):
        raise ValueError(
            f"Invalid noise: {noise.min().item()} to {noise.max().item()}. Allowed: 0 to {(1 << _CUT) - 1}."
        )


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
