"""Two states of the same part, in the exercise `resume_state`: whether they hold the same, and where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts and lists that is neither, with where it stands."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from leaves(each, f"{path}[{index}]")
    else:
        yield path, value


def changed(now: Any, then: Any, path: str) -> tuple[list[str], int]:
    """Where a state has changed, and of how many tensors and other entries it was made."""
    before, after = dict(leaves(then, path)), dict(leaves(now, path))
    paths = [at for at in before if at not in after or not same(after[at], before[at])]
    return paths + [at for at in after if at not in before], len(before)


def same(one: Any, other: Any) -> bool:
    """Whether two leaves are of one kind and equal to the last bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(np.all(one == other))


def equal(one: Any, other: Any) -> bool:
    """Whether two states have the same entries, and all of them are the same."""
    first, second = dict(leaves(one, "")), dict(leaves(other, ""))
    return first.keys() == second.keys() and all(same(first[at], second[at]) for at in first)


def where(part: str, got: Any, want: Any) -> str:
    """Which entry of a state is missing or holds something else, in words; empty if there is none."""
    theirs = dict(leaves(got, part))
    missing = next((f"There is no {at}." for at, _ in leaves(want, part) if at not in theirs), "")
    return missing or otherwise(part, got, want)


def otherwise(part: str, got: Any, want: Any) -> str:
    """Which of the entries that both states have holds something else, in words; empty if none does.

    A number is the same in every type that holds it exactly.
    """
    theirs = dict(leaves(got, part))
    for at, right in leaves(want, part):
        if at not in theirs or _alike(theirs[at], right):
            continue
        mine = theirs[at]
        if not isinstance(right, Tensor) or right.numel() == 1:
            return f"{at} is {_said(mine)} instead of {_said(right)}."
        if isinstance(mine, Tensor) and mine.dtype != right.dtype:
            return f"{at} is {mine.dtype} instead of {right.dtype}."
        return f"{at} holds other numbers."
    return ""


def _alike(mine: Any, right: Any) -> bool:
    if isinstance(mine, Tensor) or isinstance(right, Tensor):
        try:
            mine, right = torch.as_tensor(mine).cpu(), torch.as_tensor(right)
        except (TypeError, ValueError, RuntimeError):
            return False
        return mine.shape == right.shape and bool((mine.double() == right.double()).all())
    return bool(np.all(mine == right))


def _said(value: Any) -> str:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    text = f"{value:.9g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"something of type {type(value).__name__}"
