"""One line that says whether two results agree, and where they do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def compare(name: str, mine: Any, theirs: Any, tol: float = 1e-6) -> bool:
    """Print in one line whether ``mine`` equals ``theirs``, and return it.

    The rule is that of ``torch.allclose`` with rtol = atol = tol, evaluated in float64: every element
    must satisfy ``|mine - theirs| <= tol + tol * |theirs|``. Infinities match infinities of the same
    sign. NaN matches nothing, not even NaN. Shapes must be equal; nothing is broadcast. A difference
    of dtype between two arrays is told but is no mismatch.

    Args:
        name: what is compared; the first word of the line.
        mine: tensor on any device, array, nested list or number; real.
        theirs: likewise, the values to be met.
        tol: >= 0 and finite; 0 asks for equality.

    Raises:
        TypeError: one of the two is not made of real numbers.
        ValueError: ``tol`` is out of range, or both are empty, so that nothing would be compared.
    """
    if not (0 <= tol < math.inf):
        raise ValueError(f"Invalid tol: {tol!r}. Allowed: tol >= 0 and finite.")
    a, b = _float64(name, "mine", mine), _float64(name, "theirs", theirs)
    if a.shape == b.shape and a.size == 0:
        raise ValueError(f"{name}: both are empty (shape {a.shape}), so there is nothing to compare.")
    reason = _mismatch(a, b, tol)
    remark = reason or _dtype_remark(mine, theirs)
    print(f"{name:<16} matches within {tol:g}: {not reason}" + (f" ({remark})" if remark else ""))
    return not reason


def _mismatch(a: np.ndarray, b: np.ndarray, tol: float) -> str:
    """Why ``a`` does not match ``b``; empty if it does."""
    if a.shape != b.shape:
        return f"shapes differ: {a.shape} and {b.shape}"
    nan = np.isnan(a) | np.isnan(b)
    if nan.any():
        index = np.unravel_index(np.argmax(nan), nan.shape)
        whose = "both" if np.isnan(a[index]) and np.isnan(b[index]) else "mine" if np.isnan(a[index]) else "theirs"
        return f"NaN in {whose}{_at(index)}"
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b))
        allowed = np.where(np.isinf(b), 0.0, tol + tol * np.abs(b))
    wrong = difference > allowed
    if not wrong.any():
        return ""
    index = np.unravel_index(np.argmax(np.where(wrong, difference, -1.0)), wrong.shape)
    return f"largest difference {difference[index]:.3g}{_at(index)}"


def _at(index: tuple[np.intp, ...]) -> str:
    return f" at index {tuple(int(i) for i in index)}" if index else ""


def _dtype_remark(mine: Any, theirs: Any) -> str:
    # Python's own numbers and lists have no dtype; for them there is nothing to tell.
    if not (hasattr(mine, "dtype") and hasattr(theirs, "dtype")):
        return ""
    a, b = (str(value.dtype).removeprefix("torch.") for value in (mine, theirs))
    return f"dtypes differ: {a} and {b}" if a != b else ""


def _float64(name: str, which: str, value: Any) -> np.ndarray:
    # A tensor is converted by torch, since NumPy knows neither bfloat16 nor other devices.
    if hasattr(value, "detach"):
        if value.is_complex():
            raise TypeError(f"{name}: {which} is complex; compare the real and the imaginary part one by one.")
        return value.detach().cpu().double().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        message = f"{name}: {which} is no regular array ({error}); pass a tensor, an array or a number."
        raise TypeError(message) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: {which} is {type(value).__name__} with elements of type {array.dtype}; "
            "pass a tensor, an array or a number made of real numbers."
        )
    return array.astype(np.float64)
