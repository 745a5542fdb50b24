"""How much memory a GPU has, and reading such a size from what a person types."""

from __future__ import annotations

import difflib
import re

UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
SMALLEST, LARGEST = 10**9, 10**13  # bytes; no GPU that trains has less, none has more

_SOLD_GB = {
    "t4": 16, "v100-16": 16, "v100-32": 32, "a10": 24, "l4": 24, "l40s": 48, "a100-40": 40, "a100-80": 80, "h100": 80,
    "h20": 96, "h200": 141, "b200": 180, "rtx-3090": 24, "rtx-4090": 24, "rtx-5090": 32, "rtx-a6000": 48,
    "mi300x": 192, "mi325x": 256, "mi355x": 288,
}
# In bytes: the label times 1e9. What the driver then offers differs by some per cent: torch reports 79.25 GiB = 85.1e9
# bytes for an A100 sold as 80 GB, 14.75 GiB = 15.8e9 for a T4 sold as 16 GB. Most have more, which is left as a margin.
CARDS: dict[str, int] = {name: gb * UNITS["GB"] for name, gb in _SOLD_GB.items()}


def card_bytes(text: str) -> int:
    """The bytes that "80GB" (1e9 bytes a GB), "80GiB" (2^30) or the name of a card in ``CARDS`` stands for.

    Raises:
        ValueError: a number without a unit (GB and GiB differ by 7%), a size that no GPU has, or an unknown card.
    """
    given = text.strip()
    size = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)", given)
    if size is None:
        return CARDS[_known(given)]
    number, unit = float(size[1]), {name.lower(): name for name in UNITS}.get(size[2].lower())
    if unit is None:
        raise ValueError(f"{given!r} has no unit that is clear. Write {size[1]}GB (1e9 bytes each) or "
                         f"{size[1]}GiB (2^30 bytes each, 7% more).")
    found = number * UNITS[unit]
    if not SMALLEST <= found <= LARGEST:
        raise ValueError(f"No GPU has {given} of memory. Allowed: 1GB to 10,000GB.")
    return int(found)


def _known(given: str) -> str:
    name = re.sub(r"^((nvidia|geforce|tesla|amd|instinct)[\s_-]+)+", "", given.lower()).strip(" -_")
    name = re.sub(r"[\s_-]+", "-", name).removesuffix("gb").rstrip("-")
    name = re.sub(r"^rtx(?=\w)", "rtx-", name)
    for key, size in _SOLD_GB.items():
        if name in (key, f"{key}-{size}"):
            return key
    near = [key for key in CARDS if key.startswith(f"{name}-")] or difflib.get_close_matches(name, CARDS, cutoff=0.6)
    advice = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(CARDS)}."
    raise ValueError(f"There is no card {given!r}. {advice} A size works too: 80GB.")
