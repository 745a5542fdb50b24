"""Bytes of the storages behind tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def count_storages(parts: Mapping[str, Iterable[Any]]) -> dict[str, int]:
    """Bytes of the storages behind each part's tensors, each once and whole; what is no tensor counts nothing.

    A view of a large tensor holds the large tensor. A storage that several parts share counts in the first. Of a
    DTensor what lies on this rank counts.
    """
    seen: set[int] = set()
    found = dict.fromkeys(parts, 0)
    for name, things in parts.items():
        for thing in things:
            if not isinstance(thing, Tensor):
                continue
            storage = (thing.to_local() if hasattr(thing, "to_local") else thing).untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                found[name] += storage.nbytes()
    return found
