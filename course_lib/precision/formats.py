"""Number formats taken apart: what their bits mean, and how a value rounds in each."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: one sign bit, ``exponent_bits``, ``mantissa_bits``.

    A pattern with exponent field E and mantissa field M, m being ``mantissa_bits``, stands for::

        E > 0:   (-1)^sign * (1 + M / 2^m) * 2^(E - bias)          normal
        E = 0:   (-1)^sign *      M / 2^m  * 2^(1 - bias)          zero or subnormal

    With ``has_inf``, as in IEEE 754, the largest E is set aside: M = 0 is infinity, the rest is NaN. Without, as in
    e4m3 (Micikevicius et al. 2022, arXiv 2209.05433, Table 1), only the pattern of all ones is NaN: the room of the
    others goes to numbers, which is why its largest is 448 and not 240.

    Attributes:
        key: its key in :data:`FORMATS`.
        name: as written in prose.
        exponent_bits, mantissa_bits: widths of the two fields.
        has_inf: whether there is an infinity.
        dtype: torch's dtype; None where torch stores no such numbers.
    """

    key: str
    name: str
    exponent_bits: int
    mantissa_bits: int
    has_inf: bool
    dtype: torch.dtype | None

    @property
    def bits(self) -> int:
        """Bits of one number. A tf32 number has 19 and is kept in 32."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def max(self) -> float:
        """The largest finite number."""
        if self.has_inf:
            return (2 - self.epsilon) * 2.0**self.bias
        return (2 - 2 * self.epsilon) * 2.0 ** (self.bias + 1)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all its digits."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number; half of it, and all below, rounds to zero."""
        return self.smallest_normal * self.epsilon

    @property
    def epsilon(self) -> float:
        """The gap between 1 and the next larger number, as in ``torch.finfo``; below 1 the gap is half of it."""
        return 2.0**-self.mantissa_bits


FORMATS: dict[str, Format] = {
    spec.key: spec
    for spec in (
        Format("fp32", "float32", 8, 23, True, torch.float32),
        Format("tf32", "TensorFloat-32", 8, 10, True, None),
        Format("bf16", "bfloat16", 8, 7, True, torch.bfloat16),
        Format("fp16", "float16", 5, 10, True, torch.float16),
        Format("fp8_e4m3", "float8 e4m3", 4, 3, False, torch.float8_e4m3fn),
        Format("fp8_e5m2", "float8 e5m2", 5, 2, True, torch.float8_e5m2),
    )
}
"""The formats of training, widest first. tf32 is what tensor cores read of a float32, not a way of keeping numbers."""


@dataclass(frozen=True)
class Parts:
    """A number as a format stores it.

    Attributes:
        sign: 0 or 1.
        exponent_field, mantissa_field: the fields read as whole numbers.
        bits: all bits, the three fields set apart by spaces: ``"0 01111 0000000000"`` is 1.0 in fp16.
        kind: ``"zero"``, ``"subnormal"``, ``"normal"``, ``"inf"`` or ``"nan"``.
        value: what is stored, after rounding.
    """

    sign: int
    exponent_field: int
    mantissa_field: int
    bits: str
    kind: str
    value: float


def find(key: str) -> Format:
    """The format of that key; ValueError naming the nearest keys if there is none."""
    if isinstance(key, str) and key in FORMATS:
        return FORMATS[key]
    near = difflib.get_close_matches(str(key), FORMATS, n=2, cutoff=0.4)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"Unknown format: {key!r}.{meant} Known: {', '.join(FORMATS)}.")


def round_to(x: Any, key: str) -> np.ndarray:
    """Round every element of ``x`` to the nearest number of a format, ties to the even mantissa, as IEEE 754 does.

    What rounds past the largest number becomes infinity. e4m3 has none: there it becomes the largest number, and so
    does infinity itself, as in torch 2.13 and in NVIDIA's conversions (PTX ``cvt.rn.satfinite.e4m3x2``); torch up to
    2.11 made it NaN. The sign of zero is kept, and subnormals are not flushed to it.

    The rounding is done once, from float64. torch goes from float64 through float32 to the narrower formats, and
    rounding twice can differ in the last bit; from float32 the two are equal. For tf32 NVIDIA's conversion breaks ties
    away from zero (PTX ``cvt.rna.tf32``); here they go to the even mantissa as in the other formats.

    Args:
        x: real numbers, any shape: a number, nested lists, an array or a tensor on any device.
        key: of :data:`FORMATS`.

    Returns:
        A float64 array of ``x``'s shape: every number of every format here is one of float64.

    Raises:
        TypeError: ``x`` is not made of real numbers.
        ValueError: the format is unknown.
    """
    spec = find(key)
    exact = _float64(x)
    finite = np.isfinite(exact)
    number = np.where(finite, exact, 0.0)
    exponent = np.frexp(number)[1] - 1  # number = f * 2^exponent with 1 <= |f| < 2
    # The gap between numbers halves with each power of two, down to the smallest normal one; from there on it stays.
    gap = np.maximum(exponent, 1 - spec.bias) - spec.mantissa_bits
    with np.errstate(over="ignore"):  # past float64's own largest
        rounded = np.ldexp(np.rint(np.ldexp(number, -gap)), gap)
    beyond = np.copysign(np.inf if spec.has_inf else spec.max, exact)
    rounded = np.where(np.isinf(exact) | (np.abs(rounded) > spec.max), beyond, rounded)
    return np.asarray(np.where(np.isnan(exact), exact, rounded))


def take_apart(value: float, key: str) -> Parts:
    """Round ``value`` to a format and return the fields of its bit pattern.

    NaN is the quiet one, the first bit of the mantissa set and the rest clear, or the only one that e4m3 has.

    Raises:
        TypeError: ``value`` is no plain real number.
        ValueError: the format is unknown.
    """
    spec = find(key)
    number = _number(value)
    stored = float(round_to(number, key))
    size, top = abs(stored), 2**spec.exponent_bits - 1
    if math.isnan(stored):
        kind, exponent = "nan", top
        mantissa = 2 ** (spec.mantissa_bits - 1) if spec.has_inf else 2**spec.mantissa_bits - 1
    elif math.isinf(stored):
        kind, exponent, mantissa = "inf", top, 0
    elif size < spec.smallest_normal:
        kind, exponent = "subnormal" if size else "zero", 0
        mantissa = int(size / spec.smallest_subnormal)
    else:
        fraction, power = math.frexp(size)  # fraction in [0.5, 1)
        kind, exponent = "normal", power - 1 + spec.bias
        mantissa = int((2 * fraction - 1) * 2**spec.mantissa_bits)
    sign = int(math.copysign(1.0, number) < 0)
    bits = f"{sign} {exponent:0{spec.exponent_bits}b} {mantissa:0{spec.mantissa_bits}b}"
    return Parts(sign, exponent, mantissa, bits, kind, stored)


def neighbours(value: float, key: str) -> tuple[float, float]:
    """The largest number of a format below ``value`` and the smallest above it, ``value`` itself being neither.

    For 1.0 in bf16 these are 1 - 2^-8 and 1 + 2^-7: the gap doubles at a power of two. Beyond the largest number lies
    infinity; in e4m3 there is nothing, and NaN is returned.

    Raises:
        TypeError: ``value`` is no plain real number.
        ValueError: it is infinite or NaN, or the format is unknown.
    """
    spec = find(key)
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError(f"Invalid value: {value!r}. Allowed: a finite number, as only such have neighbours.")
    beyond = math.inf if spec.has_inf else math.nan
    if abs(number) > spec.max:
        return (spec.max, beyond) if number > 0 else (-beyond, -spec.max)
    parts = take_apart(number, key)
    # Bit patterns without their sign are in the order of the numbers, so that a neighbour is a pattern next to it.
    place = (parts.exponent_field << spec.mantissa_bits) + parts.mantissa_field
    place = -place if parts.sign else place
    below = parts.value if parts.value < number else _at(place - 1, spec)
    above = parts.value if parts.value > number else _at(place + 1, spec)
    return below, above


def _at(place: int, spec: Format) -> float:
    """The number whose bits without the sign are ``|place|``, with the sign of ``place``."""
    exponent, mantissa = divmod(abs(place), 2**spec.mantissa_bits)
    size = math.ldexp(mantissa, 1 - spec.bias - spec.mantissa_bits)
    if exponent:
        size = math.ldexp(2**spec.mantissa_bits + mantissa, exponent - spec.bias - spec.mantissa_bits)
    if size > spec.max:
        size = math.inf if spec.has_inf else math.nan
    return math.copysign(size, place)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Invalid value: {value!r} is a {type(value).__name__}. Allowed: a plain real number.")
    return float(value)


def _float64(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        if x.is_complex() or x.dtype is torch.bool:
            raise TypeError(f"Invalid x: a tensor of {x.dtype}. Allowed: real numbers.")
        return x.detach().to("cpu", torch.float64).numpy()
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"Invalid x: {type(x).__name__} of {array.dtype}. Allowed: real numbers.")
    with np.errstate(invalid="ignore"):  # NaN of the signalling kind
        return array.astype(np.float64)
