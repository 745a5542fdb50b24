"""Real text that needs no download, and the batches drawn from it.

The text is the part of the Python language reference that every interpreter carries as ``pydoc_data.topics`` (what
``help("while")`` shows): about half a megabyte of English, tables and code, under the Python Software Foundation's
license. It changes a little with each version of Python, so nothing that depends on its exact bytes is the same
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor


@cache
def corpus() -> bytes:
    """The running interpreter's language reference: all topics in alphabetical order of their names, as UTF-8."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)).encode()


def split(data: bytes, held_out: float = 0.1) -> tuple[bytes, bytes]:
    """Cut ``data`` into what is trained on and the last part, which is held out.

    Args:
        data: the text.
        held_out: share of the bytes that is held out, 0 < held_out < 1.

    Returns:
        The training text and the held-out text; together they are ``data``.

    Raises:
        ValueError: ``held_out`` is out of its range.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"Invalid held_out: {held_out!r}. Allowed: a share of the text, 0 < held_out < 1.")
    cut = len(data) - round(len(data) * held_out)
    return data[:cut], data[cut:]


def batches(data: bytes, batch: int, length: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw ``steps`` batches of windows of ``data``; each target is the byte after its input.

    The windows start at places drawn uniformly, with replacement, with ``numpy.random.default_rng(seed)``: the same
    arguments give the same batches on every machine.

    Args:
        data: the text, at least ``length + 1`` bytes.
        batch: windows per batch.
        length: bytes per window.
        steps: how many batches.
        seed: of the draw.

    Yields:
        ``(inputs, targets)``, two int64 tensors of shape (batch, length) with values 0 to 255.

    Raises:
        ValueError: a size is below 1, or the text is too short for one window.
    """
    for name, value in (("batch", batch), ("length", length), ("steps", steps)):
        if value < 1:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number >= 1.")
    text = _as_array(data, length)
    rng = np.random.default_rng(seed)
    return (
        _windows(text, rng.integers(0, len(text) - length, size=batch), length) for _ in range(steps)
    )


def pages(data: bytes, batch: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through ``data`` once, in order, in batches of windows that do not overlap.

    What is left over at the end, fewer than ``length + 1`` bytes, is dropped. The last batch may be smaller.

    Yields:
        ``(inputs, targets)`` as :func:`batches` does.

    Raises:
        ValueError: a size is below 1, or the text is too short for one window.
    """
    for name, value in (("batch", batch), ("length", length)):
        if value < 1:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number >= 1.")
    text = _as_array(data, length)
    starts = np.arange(0, len(text) - length, length)
    return (_windows(text, starts[i : i + batch], length) for i in range(0, len(starts), batch))


def frequency_groups(data: bytes, frequent: float = 0.5, rare: float = 0.05) -> dict[str, list[int]]:
    """Sort the byte values of ``data`` into frequent, middle and rare ones by how often they occur.

    Byte values are ranked by their count. The frequent ones are the fewest that make up the share ``frequent`` of
    the text; the rare ones are the most that make up no more than the share ``rare`` of it. Byte values that do not
    occur are in no group. Grouping classes by the share of samples that they cover, not by the number of classes,
    follows Kunstner et al. 2024 (arXiv 2402.19449).

    Returns:
        ``{"frequent": [...], "middle": [...], "rare": [...]}``, byte values in descending order of their count.

    Raises:
        ValueError: the text is empty, a share is not in (0, 1), or the two add up to 1 or more.
    """
    if not data:
        raise ValueError("Invalid data: it is empty. Allowed: at least one byte of text.")
    if not (0 < frequent < 1 and 0 < rare < 1 and frequent + rare < 1):
        raise ValueError(
            f"Invalid shares: frequent={frequent!r}, rare={rare!r}. Allowed: each between 0 and 1, together below 1."
        )
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    ranked = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    before = np.cumsum(counts[ranked]) - counts[ranked]
    is_frequent = before < frequent * len(data)
    is_rare = (len(data) - before <= rare * len(data)) & ~is_frequent
    groups = {"frequent": is_frequent, "middle": ~(is_frequent | is_rare), "rare": is_rare}
    return {name: ranked[member].tolist() for name, member in groups.items()}


def _as_array(data: bytes, length: int) -> np.ndarray:
    if len(data) < length + 1:
        raise ValueError(
            f"Invalid data: {len(data)} bytes are too few for a window of {length} and the byte after it. "
            f"Allowed: at least {length + 1} bytes; or choose a shorter length."
        )
    return np.frombuffer(data, dtype=np.uint8)


def _windows(text: np.ndarray, starts: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    window = torch.from_numpy(text[starts[:, None] + np.arange(length + 1)].astype(np.int64))
    return window[:, :-1], window[:, 1:]
