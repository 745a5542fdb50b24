"""Block-wise dynamic 8-bit quantisation, in which 8-bit optimizers keep their state."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 256
"""Elements that share a scale: 256 in bitsandbytes' optimizers, 2048 in the paper."""


def dynamic_map(signed: bool) -> Tensor:
    """The 256 numbers in [-1, 1], or [0, 1], that 8-bit codes stand for, ascending: float32 of shape (256,).

    Dynamic quantisation (Dettmers et al. 2022, arXiv 2110.02861, sections 1.3 and 2.2): of the bits behind the sign,
    leading zeros count decades down from 0.1 to 1, a one ends them, and the bits left divide the decade evenly. So the
    decade below 1 has 64 values, the next 32, ... the seventh 1; each is the middle of its part. Zero and 1 come on
    top. Without a sign every decade has twice as many. Small values have range, large ones precision::

        signed     127 values on either side, from 5.5e-7 to 0.993, and 0 and 1
        unsigned   254 values, from 3.25e-7 to 0.996, and 0 and 1

    They are the values of bitsandbytes up to the last bit of float32.

    Raises:
        TypeError: ``signed`` is no bool.
    """
    _require_flag("signed", signed)
    return torch.tensor(_values(signed), dtype=torch.float32)


def linear_map(signed: bool) -> Tensor:
    """256 numbers at equal distances, ascending from -1 or 0 to 1, float32: what the dynamic map is to be compared with.

    With a sign there is no zero among them, the smallest are +-1/255.

    Raises:
        TypeError: ``signed`` is no bool.
    """
    _require_flag("signed", signed)
    return torch.linspace(-1.0 if signed else 0.0, 1.0, 256, dtype=torch.float64).float()


def quantise(x: Tensor, *, signed: bool, block: int = BLOCK, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Store each element in 8 bits: the place in :func:`dynamic_map` of the value nearest to x / max |x of its block|.

    Blocks are of ``block`` elements in the order of ``x.flatten()``, the last one shorter if need be. A zero comes back
    exactly, and so does the largest of a block if it is positive: -1 is no value of the map, the nearest is -0.993. A
    block with inf or NaN, or without a sign a negative number, comes back as NaN and inf alone. Nothing
    is read from the device to raise an error.

    Args:
        x: floating tensor of any shape; computed with in float32.
        signed: whether there are negative numbers. A second moment has none, and gains a bit.
        block: elements per block, >= 1.
        table: 256 ascending numbers in [-1, 1] for the codes to stand for; None for the dynamic map.

    Returns:
        codes, uint8 of shape (x.numel(),), and absmax, float32 of shape (ceil(x.numel() / block),):
        ``numel + 4 * ceil(numel / block)`` bytes.

    Raises:
        TypeError: ``x`` is no floating tensor, ``signed`` no bool, ``block`` no int, ``table`` no float32 tensor.
        ValueError: ``block`` < 1, or ``table`` has not 256 numbers.
    """
    _require_block(block)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"Invalid x: {kind}. Allowed: a floating tensor.")
    levels = _levels(signed, table).to(x.device)
    flat = x.detach().flatten().float()
    if not signed:
        flat = torch.where(flat < 0, torch.nan, flat)
    blocks = _in_blocks(flat, block)
    absmax = blocks.abs().amax(dim=1)
    shares = blocks / torch.where(absmax == 0, 1.0, absmax).unsqueeze(1)
    # The nearest value is found by the middles between values; a middle itself goes to the lower one.
    codes = torch.bucketize(shares, (levels[:-1] + levels[1:]) / 2).to(torch.uint8)
    return codes.flatten()[: flat.numel()].clone(), absmax


def dequantise(
    codes: Tensor,
    absmax: Tensor,
    *,
    signed: bool,
    block: int = BLOCK,
    shape: Sequence[int] | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """The float32 numbers that :func:`quantise` stored: value of the code times the scale of its block.

    Args:
        codes: uint8, as returned by :func:`quantise`.
        absmax: float32, likewise.
        signed, block, table: as given to :func:`quantise`.
        shape: of the result; None for one dimension.

    Raises:
        TypeError: ``codes`` is not uint8, ``absmax`` or ``table`` not float32, ``signed`` no bool, ``block`` no int.
        ValueError: ``block`` < 1, or the number of scales, the shape or the table does not fit the codes.
    """
    _require_block(block)
    for name, tensor, dtype in (("codes", codes, torch.uint8), ("absmax", absmax, torch.float32)):
        if not isinstance(tensor, Tensor) or tensor.dtype is not dtype:
            kind = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise TypeError(f"Invalid {name}: {kind}. Allowed: a tensor of {dtype}.")
    size = codes.numel()
    if absmax.numel() != -(-size // block):
        raise ValueError(
            f"Invalid absmax: {absmax.numel()} scales for {size} codes in blocks of {block}. "
            f"Allowed: {-(-size // block)}; was another block size used to quantise?"
        )
    if shape is not None and int(np.prod(shape)) != size:
        raise ValueError(f"Invalid shape: {tuple(shape)} for {size} codes. Allowed: a shape of that many elements.")
    values = _levels(signed, table).to(codes.device)[codes.flatten().int()]
    numbers = (_in_blocks(values, block) * absmax.reshape(-1, 1)).flatten()[:size]
    return numbers.clone() if shape is None else numbers.reshape(tuple(shape)).clone()


def relative_error(x: Tensor, *, signed: bool, block: int = BLOCK, table: Tensor | None = None) -> Tensor:
    """|what comes back - x| / |x| of each element after :func:`quantise` and :func:`dequantise`: float32, of x's shape.

    A zero that comes back as zero has error 0, and any other number that does has error 1. With the dynamic map an
    element between 0.1 and 1 times the largest of its block has an error of 3.3% at most without a sign and 6.2%
    with one; each decade below nearly doubles that, as it has half as many values.

    Arguments and errors are those of :func:`quantise`.
    """
    codes, absmax = quantise(x, signed=signed, block=block, table=table)
    back = dequantise(codes, absmax, signed=signed, block=block, shape=x.shape, table=table)
    exact = x.detach().float()
    off = (back - exact).abs()
    return torch.where(off == 0, 0.0, off / exact.abs())


@functools.cache
def _values(signed: bool) -> tuple[float, ...]:
    values = [0.0, 1.0]
    for decade in range(7):
        parts = 2**decade if signed else 2 ** (decade + 1)
        edges = np.linspace(0.1, 1.0, parts + 1) * 10.0 ** (decade - 6)
        middles = ((edges[:-1] + edges[1:]) / 2).tolist()
        values += middles + ([-middle for middle in middles] if signed else [])
    return tuple(sorted(values))


def _levels(signed: bool, table: Tensor | None) -> Tensor:
    if table is None:
        return dynamic_map(signed)
    _require_flag("signed", signed)
    if not isinstance(table, Tensor) or table.dtype is not torch.float32:
        kind = f"a tensor of {table.dtype}" if isinstance(table, Tensor) else f"a {type(table).__name__}"
        raise TypeError(f"Invalid table: {kind}. Allowed: a tensor of torch.float32.")
    if table.shape != (256,):
        raise ValueError(f"Invalid table: shape {tuple(table.shape)}. Allowed: (256,), a number for each code.")
    return table


def _in_blocks(flat: Tensor, block: int) -> Tensor:
    """Rows of ``block`` elements; the last is filled up with zeros, which no largest size minds."""
    return torch.nn.functional.pad(flat, (0, -flat.numel() % block)).reshape(-1, block)


def _require_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: True or False.")


def _require_block(block: Any) -> None:
    if isinstance(block, bool) or not isinstance(block, int):
        raise TypeError(f"Invalid block: {block!r} is a {type(block).__name__}. Allowed: an int.")
    if block < 1:
        raise ValueError(f"Invalid block: {block!r}. Allowed: at least 1.")
