"""Lists of tensors that a step is timed on: real models, and the two extremes."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable
from math import prod

from course_lib.memory.models import find

Shapes = list[tuple[int, ...]]


def _gpt2() -> Shapes:
    return [weight.shape for weight in find("gpt2-124m").weights() for _ in range(weight.copies)]


def _llama_layer() -> Shapes:
    model = find("llama-3-8b")
    return [weight.shape for weight in model.weights() for _ in range(weight.copies // model.layers)
            if weight.name.startswith("layers.")]


SHAPES: dict[str, tuple[str, Callable[[], Shapes]]] = {
    "large": ("one tensor of 8192 x 8192", lambda: [(8192, 8192)]),
    "forty": ("40 tensors of 1000 x 1000", lambda: [(1000, 1000)] * 40),
    "gpt2": ("GPT-2 124M", _gpt2),
    "llama3-layer": ("one layer of Llama 3 8B", _llama_layer),
    "tiny": ("1000 tensors of 256", lambda: [(256,)] * 1000),
}
"""Name -> what it is, and the function that lists it."""

MOST = 10**10  # elements of a list that one may ask for


def shapes(name: str) -> Shapes:
    """The shapes of the list ``name``; "1000x256" is 1000 tensors of 256 elements.

    Raises:
        ValueError: there is no such list; the message has the nearest name, or all.
    """
    key = str(name).strip().lower()
    if key in SHAPES:
        return SHAPES[key][1]()
    if match := re.fullmatch(r"(\d{1,11})x(\d{1,11})", key):
        tensors, elements = map(int, match.groups())
        if 1 <= tensors * elements <= MOST and tensors <= 10**5:
            return [(elements,)] * tensors
    near = difflib.get_close_matches(key, SHAPES, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else (
        f"Allowed: {', '.join(SHAPES)}, or TENSORSxELEMENTS such as 1000x256, at most 100,000 tensors and "
        f"{MOST:.0e} elements together."
    )
    raise ValueError(f"Invalid shapes: {reprlib.repr(name)}. {advice}")


def elements(shapes: Shapes) -> int:
    """Elements of all tensors together."""
    return sum(prod(shape) for shape in shapes)
