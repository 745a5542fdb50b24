"""The bits of float32 numbers, and bfloat16 out of them, in NumPy."""

from __future__ import annotations

import numpy as np


def bits_of(x: np.ndarray) -> np.ndarray:
    """The 32 bits of each float32, as int64 numbers from 0."""
    return x.view(np.uint32).astype(np.int64)


def floats_of(bits: np.ndarray) -> np.ndarray:
    """The float32 of these bits; what is above 32 bits is cut."""
    return (bits & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


def to_bfloat16(value: np.ndarray | float) -> np.ndarray:
    """The nearest bfloat16, a tie to the even one, as float32. Not for NaN."""
    bits = bits_of(np.asarray(value, dtype=np.float32))
    return floats_of((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000)
