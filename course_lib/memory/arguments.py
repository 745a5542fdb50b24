"""What a person asks for, checked: each refusal is a sentence that says what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """``value`` if it is one of ``allowed``, whatever the case of its letters.

    Raises:
        ValueError: it is not; the message has the nearest of them, or all.
    """
    known = list(allowed)
    key = str(value).strip().lower()
    if isinstance(value, str) and key in known:
        return key
    near = difflib.get_close_matches(key, known, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else f"Allowed: {', '.join(known)}."
    raise ValueError(f"Invalid {name}: {value!r}. {advice}")


def whole(name: str, value: Any, low: int, high: int, unit: str = "") -> int:
    """``value`` as an int, if it is a whole number from ``low`` to ``high``; 7e9 is one.

    Raises:
        ValueError: it is no number, NaN, not whole, or outside; the message says what is allowed.
    """
    words = f"Allowed: a whole number from {short(low)} to {short(high)}{unit and ' ' + unit}."
    if not _is_number(value) or value != int(value):
        raise ValueError(f"Invalid {name}: {value!r}. {words}")
    if not low <= value <= high:
        raise ValueError(f"Invalid {name}: {short(int(value))}. {words}")
    return int(value)


def real(name: str, value: Any, above: bool = False) -> float:
    """``value`` if it is a finite number >= 0, or with ``above`` > 0.

    Raises:
        ValueError: it is not; the message says what is allowed.
    """
    if not _is_number(value) or value < 0 or (above and value == 0):
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a finite number {'>' if above else '>='} 0.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def short(number: int) -> str:
    """``number`` as one writes it: 8,192, and 1e15 where the digits would not be read."""
    return f"{number:,}" if abs(number) < 10**9 else f"{number:g}".replace("e+0", "e").replace("e+", "e")
