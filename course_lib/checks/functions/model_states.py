"""The exercise of notebook 10 that asks for the bytes of a model's states, by recipe and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION

_RECIPES = {  # bytes of a weight, a gradient, a master weight, an element of state
    "fp32": (4, 4, 0, 4),
    "mixed": (2, 2, 4, 4),
    "mixed, fp32 gradients": (2, 4, 4, 4),
    "bf16": (2, 2, 0, 2),
}
_TENSORS = {"sgd": 0, "momentum": 1, "adamw": 2, "lion": 1, "adamw8bit": 2}
_EIGHT = "adamw8bit"


def _state(element: float, optimizer: str, tensors: dict[str, int] | None = None, constants: float = 4 / 256) -> float:
    """Bytes of state per parameter."""
    return (tensors or _TENSORS)[optimizer] * (1 + constants if optimizer == _EIGHT else element)


def _gb(
    change: Callable[..., float] = lambda w, g, m, s, recipe, optimizer: w + g + m + s, unit: float = 1e9
) -> Callable[..., float]:
    """``model_state_gb`` with ``change`` in its sum: w, g, m and s are bytes per parameter."""

    def run(parameters: int, recipe: str, optimizer: str) -> float:
        w, g, m, element = _RECIPES[recipe]
        return parameters * change(w, g, m, _state(element, optimizer), recipe, optimizer) / unit

    return run


def _counted(constants: float = 4 / 256, **tensors: int) -> Callable[..., float]:
    """``model_state_gb`` with another number of state tensors, or other bytes of constants per 8-bit element."""

    def run(parameters: int, recipe: str, optimizer: str) -> float:
        w, g, m, element = _RECIPES[recipe]
        return parameters * (w + g + m + _state(element, optimizer, _TENSORS | tensors, constants)) / 1e9

    return run


def _mixed(recipe: str) -> bool:
    return recipe.startswith("mixed")


_STATE_SLIPS = (
    (
        "no-master",
        "weights, gradients and state without the float32 master copy: 84 GB for 7e9 parameters, mixed, AdamW",
        "An update far smaller than a 16-bit weight is lost in it. Where does mixed precision add it up?",
        lambda w, g, m, s, recipe, optimizer: w + g + s,
    ),
    (
        "no-gradients",
        "everything but the gradients",
        "What does backward() leave behind, and for how long?",
        lambda w, g, m, s, recipe, optimizer: w + m + s,
    ),
    (
        "weights-and-state",
        "weights and state alone: 70 GB for 7e9 parameters, mixed, AdamW",
        "What does backward() leave behind? And what does mixed precision keep beside 16-bit weights?",
        lambda w, g, m, s, recipe, optimizer: w + s,
    ),
    (
        "state-only",
        "the state alone: 56 GB for 7e9 parameters, mixed, AdamW",
        "Weights, gradients and master copy are asked for too.",
        lambda w, g, m, s, recipe, optimizer: s,
    ),
    (
        "optimizer-only",
        "what the optimizer keeps, without weights and gradients",
        "Asked for are weights, gradients and everything the optimizer keeps.",
        lambda w, g, m, s, recipe, optimizer: m + s,
    ),
    (
        "weights-only",
        "the weights alone, which is what serving the model takes",
        "What else does training keep?",
        lambda w, g, m, s, recipe, optimizer: w,
    ),
    (
        "no-state",
        "weights, gradients and master copy: the state is missing",
        "What does each optimizer remember about a parameter?",
        lambda w, g, m, s, recipe, optimizer: w + g + m,
    ),
    (
        "weights-and-gradients",
        "weights and gradients alone",
        "What does the optimizer keep?",
        lambda w, g, m, s, recipe, optimizer: w + g,
    ),
    (
        "no-weights",
        "everything but the weights themselves",
        "The model is in memory too.",
        lambda w, g, m, s, recipe, optimizer: g + m + s,
    ),
    (
        "master-in-16-bits",
        "2 + 2 bytes for weights and master copy (or a master copy alone, without the 16-bit weights beside it)",
        "The master copy is float32, and the 16-bit weights stay beside it.",
        lambda w, g, m, s, recipe, optimizer: w + g + m / 2 + s,
    ),
    (
        "master-everywhere",
        "a float32 master copy in every recipe",
        "Which recipes have weights that are too coarse, and which say that there is no copy?",
        lambda w, g, m, s, recipe, optimizer: w + g + 4 + s,
    ),
    (
        "master-of-fp32",
        "a float32 master copy beside float32 weights",
        "What would a copy of the weights in the same format be good for?",
        lambda w, g, m, s, recipe, optimizer: w + g + (4 if recipe == "fp32" else m) + s,
    ),
    (
        "bf16-with-master",
        "a float32 master copy in the recipe `bf16`",
        "In that recipe everything is bf16, and there is no other copy.",
        lambda w, g, m, s, recipe, optimizer: w + g + (4 if recipe == "bf16" else m) + s,
    ),
    (
        "bf16-state-in-fp32",
        "float32 state in the recipe `bf16`",
        "In that recipe the state is bf16 too, as torch makes it for bf16 weights.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (2 * s if recipe == "bf16" and optimizer != _EIGHT else s),
    ),
    (
        "bf16-as-mixed",
        "`mixed` in the place of `bf16` (or four bytes for everything there, which comes to the same)",
        "In the recipe `bf16` everything is bf16, the state too, and there is no other copy.",
        lambda w, g, m, s, recipe, optimizer: (
            w + g + m + s if recipe != "bf16" else w + g + 4 + (s if optimizer == _EIGHT else 2 * s)
        ),
    ),
    (
        "state-in-16-bits",
        "16-bit state in the mixed recipes",
        "In which precision does the optimizer work there? Look at the master copy.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (s / 2 if _mixed(recipe) and optimizer != _EIGHT else s),
    ),
    (
        "mixed-gradients-in-fp32",
        "float32 gradients in the recipe `mixed`: 18 bytes with AdamW, as Megatron-LM keeps them",
        "That is the recipe `mixed, fp32 gradients`. In `mixed` the gradients are 16-bit.",
        lambda w, g, m, s, recipe, optimizer: w + (4 if recipe == "mixed" else g) + m + s,
        OTHER_SPECIFICATION,
    ),
    (
        "gradients-in-fp32",
        "float32 gradients in every recipe",
        "A gradient has the dtype of its weight, unless the recipe says otherwise.",
        lambda w, g, m, s, recipe, optimizer: w + 4 + m + s,
    ),
    (
        "gradients-in-16-bits",
        "16-bit gradients in the recipe `mixed, fp32 gradients` (or float32 weights there without a master copy)",
        "There weights, gradients and master copy take 2 + 4 + 4 bytes.",
        lambda w, g, m, s, recipe, optimizer: w + (2 if _mixed(recipe) else g) + m + s,
    ),
    (
        "gradients-twice",
        "20 bytes with AdamW in `mixed, fp32 gradients`: 16-bit gradients beside the float32 ones, as with a float32 buffer "
        "for accumulation (or float32 weights beside the master copy)",
        "The float32 gradients stand in the place of the 16-bit ones, and the weights are 16-bit. Does your code look for "
        "`fp32` in the recipe's name?",
        lambda w, g, m, s, recipe, optimizer: w + g + m + s + (2 if recipe == "mixed, fp32 gradients" else 0),
        OTHER_SPECIFICATION,
    ),
    (
        "mixed-weights-in-fp32",
        "float32 weights and a float32 master copy besides in the mixed recipes",
        "What is 16-bit in mixed precision?",
        lambda w, g, m, s, recipe, optimizer: (4 if _mixed(recipe) else w) + g + m + s,
    ),
    (
        "fp32-gradients-in-16-bits",
        "16-bit gradients in the recipe `fp32`",
        "A gradient has the dtype of its weight.",
        lambda w, g, m, s, recipe, optimizer: w + (2 if recipe == "fp32" else g) + m + s,
    ),
    (
        "fp32-everywhere",
        "the recipe `fp32` (or `mixed`, which takes the same), whatever the recipe",
        "How many bytes has each part in the other recipes?",
        lambda w, g, m, s, recipe, optimizer: 8 + (s if optimizer == _EIGHT or recipe != "bf16" else 2 * s),
    ),
    (
        "sixteen-always",
        "16 bytes per parameter, always",
        "That is AdamW in the recipes `fp32` and `mixed`. What do the others keep?",
        lambda w, g, m, s, recipe, optimizer: 16,
    ),
    (
        "always-adamw",
        "AdamW, whatever the optimizer",
        "What does each optimizer remember about a parameter, and in how many bytes?",
        lambda w, g, m, s, recipe, optimizer: w + g + m + 2 * _RECIPES[recipe][3],
    ),
    (
        "sgd-without-master",
        "plain SGD without the master copy of the mixed recipes",
        "The master copy belongs to the recipe: to what does plain SGD add a step that a 16-bit weight would lose?",
        lambda w, g, m, s, recipe, optimizer: w + g + (0 if optimizer == "sgd" else m) + s,
    ),
    (
        "eight-bit-without-master",
        "8-bit AdamW without the master copy of the mixed recipes",
        "Only the state has 8 bits. To what is the update added?",
        lambda w, g, m, s, recipe, optimizer: w + g + s + (0 if optimizer == _EIGHT else m),
    ),
    (
        "eight-bit-without-state",
        "8-bit AdamW without any state: 8 bytes per parameter in `mixed`",
        "How many numbers of one byte does it keep beside each parameter?",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (0 if optimizer == _EIGHT else s),
    ),
    (
        "eight-bit-halves-all",
        "8-bit AdamW at half of everything: 8 bytes per parameter in `mixed`",
        "What becomes smaller with 8-bit states, and what stays as it is?",
        lambda w, g, m, s, recipe, optimizer: (
            w + g + m + s if optimizer != _EIGHT else (w + g + m + 2 * _RECIPES[recipe][3]) / 2
        ),
    ),
    (
        "eight-bit-everything",
        "8-bit AdamW with weights and gradients of one byte too",
        "Only the state has 8 bits.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + s if optimizer != _EIGHT else 2 + m + s,
    ),
    (
        "eight-bytes",
        "8 bytes, not 8 bits, for each element of 8-bit state",
        "Eight bits make a byte.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (8 * 2 + 8 / 256 if optimizer == _EIGHT else s),
    ),
    (
        "eight-bit-in-fp32",
        "8-bit AdamW with float32 state (8 bytes for both averages), and constants besides",
        "Eight bits make a byte, and there are two averages.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (8 + 8 / 256 if optimizer == _EIGHT else s),
    ),
    (
        "eight-bit-once",
        "8-bit AdamW with one average in 8 bits, and the other as in AdamW",
        "Both averages have 8 bits.",
        lambda w, g, m, s, recipe, optimizer: (
            w + g + m + (1 + 4 / 256 + _RECIPES[recipe][3] if optimizer == _EIGHT else s)
        ),
    ),
    (
        "eight-bit-halved-in-bf16",
        "8-bit AdamW with half of its state in the recipe `bf16`",
        "A byte is a byte in every recipe, and the constants are float32.",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (s / 2 if optimizer == _EIGHT and recipe == "bf16" else s),
    ),
    (
        "eight-bit-as-adamw",
        "8-bit AdamW with the state of AdamW",
        "How many bytes has an element of its state?",
        lambda w, g, m, s, recipe, optimizer: w + g + m + (2 * _RECIPES[recipe][3] if optimizer == _EIGHT else s),
    ),
    (
        "constants-scaled-by-recipe",
        "constants in bf16 in the recipe `bf16`",
        "The constant of a block is a float32 in every recipe.",
        lambda w, g, m, s, recipe, optimizer: (
            w + g + m + s - (4 / 256 if optimizer == _EIGHT and recipe == "bf16" else 0)
        ),
    ),
    (
        "overhead-added",
        "a fifth added to everything",
        "Asked for are the model states alone: no activations, no reserve.",
        lambda w, g, m, s, recipe, optimizer: 1.2 * (w + g + m + s),
    ),
)
_TENSOR_SLIPS = (
    ("adamw-one-tensor", "AdamW with one state tensor", "Which two averages does it keep?", {"adamw": 1}),
    ("adamw-three-tensors", "AdamW with three state tensors", "Which two averages does it keep?", {"adamw": 3}),
    (
        "eight-bit-one-tensor",
        "8-bit AdamW with one state tensor",
        "Which two averages does AdamW keep?",
        {"adamw8bit": 1},
    ),
    (
        "all-adamw-one-tensor",
        "AdamW, 8-bit or not, with one state tensor",
        "Which two averages does it keep?",
        {"adamw": 1, "adamw8bit": 1},
    ),
    (
        "lion-as-adamw",
        "Lion with two state tensors",
        "Lion interpolates twice, with two betas. How many buffers does that take?",
        {"lion": 2},
    ),
    ("lion-without-state", "Lion without state", "Of what does Lion take the sign?", {"lion": 0}),
    (
        "momentum-without-state",
        "momentum without a buffer",
        "What does momentum remember from step to step?",
        {"momentum": 0},
    ),
    (
        "momentum-two-tensors",
        "momentum with two state tensors",
        "What does momentum remember from step to step?",
        {"momentum": 2},
    ),
    ("sgd-with-state", "plain SGD with one state tensor", "What does plain SGD remember?", {"sgd": 1}),
    (
        "always-two-tensors",
        "two state tensors, whatever the optimizer",
        "What does each optimizer remember about a parameter?",
        {"sgd": 2, "momentum": 2, "lion": 2},
    ),
    (
        "always-one-tensor",
        "one state tensor, whatever the optimizer",
        "What does each optimizer remember about a parameter?",
        dict.fromkeys(_TENSORS, 1),
    ),
)
_CONSTANT_SLIPS = (
    ("constants-missing", "no constants for the blocks", "What turns codes of one byte back into numbers?", 0),
    (
        "constants-in-16-bits",
        "two bytes a block and state: constants in 16 bits, or one for both states",
        "Each of the two states has a float32 for each of its blocks.",
        2 / 256,
    ),
    ("constants-of-one-byte", "one byte a block and state", "How many bytes has a float32?", 1 / 256),
    ("constants-of-8-bytes", "eight bytes a block and state", "How many bytes has a float32?", 8 / 256),
    ("constants-in-bits", "32 bytes a block and state", "A float32 has 32 bits. How many bytes?", 32 / 256),
    ("constants-per-element", "a constant for every element", "One float32 serves 256 elements.", 4),
    (
        "blocks-of-64",
        "blocks of 64",
        "Here a block has 256 elements, as in the 8-bit optimizers of bitsandbytes.",
        4 / 64,
        OTHER_SPECIFICATION,
    ),
    (
        "blocks-of-2048",
        "blocks of 2048, as in the paper (Dettmers et al. 2022, arXiv 2110.02861)",
        "Here a block has 256 elements, as in the 8-bit optimizers of bitsandbytes.",
        4 / 2048,
        OTHER_SPECIFICATION,
    ),
)
_UNITS = (
    ("bytes", "bytes instead of GB", "1 GB is 1e9 bytes.", 1.0),
    ("kilobytes", "kB instead of GB", "1 GB is 1e9 bytes.", 1e3),
    ("megabytes", "MB instead of GB", "1 GB is 1e9 bytes.", 1e6),
    ("mebibytes", "MiB instead of GB", "1 GB is 1e9 bytes, 1 MiB is 2^20.", 2.0**20),
    ("bits", "bits instead of GB", "Eight bits make a byte, 1e9 bytes a GB.", 1 / 8),
    ("gigabits", "gigabits instead of GB", "Eight bits make a byte.", 1e9 / 8),
)


def _bytes_more(more: Callable[[int, str], float]) -> Callable[..., float]:
    """``model_state_gb`` and some bytes besides, given parameters and optimizer."""
    return lambda parameters, recipe, optimizer: (
        _gb()(parameters, recipe, optimizer) + more(parameters, optimizer) / 1e9
    )


_BYTES = (
    Known(
        "step-counts",
        "four bytes besides with AdamW, 8-bit or not, as torch keeps a count of steps for each tensor",
        "Four bytes for a tensor, not for a parameter: here they are left out.",
        _bytes_more(lambda parameters, optimizer: 4 if "adamw" in optimizer else 0),
        OTHER_SPECIFICATION,
    ),
    Known(
        "step-counts-of-adamw",
        "four bytes besides with AdamW, as torch keeps a count of steps for each tensor",
        "Four bytes for a tensor, not for a parameter: here they are left out.",
        _bytes_more(lambda parameters, optimizer: 4 if optimizer == "adamw" else 0),
        OTHER_SPECIFICATION,
    ),
    Known(
        "one-block-too-many",
        "one block too many in each 8-bit state",
        "256 elements are one block: `parameters // 256` of them.",
        _bytes_more(lambda parameters, optimizer: 8 if optimizer == _EIGHT else 0),
    ),
    Known(
        "whole-pages-of-blocks",
        "8-bit AdamW without the constants of blocks that fill no 4096 elements",
        "Every block of 256 elements has its constant.",
        _bytes_more(lambda parameters, optimizer: -8 * (parameters % 4096 // 256) if optimizer == _EIGHT else 0),
    ),
)


def _known() -> tuple[Known, ...]:
    """Each mistake alone; units and rounding; each mistake again in the two other units that come out most often."""
    alone = [Known(code, what, hint, _gb(change), *kind) for code, what, hint, change, *kind in _STATE_SLIPS]
    alone += [Known(code, what, hint, _counted(**tensors)) for code, what, hint, tensors in _TENSOR_SLIPS]
    alone += [Known(code, what, hint, _counted(c), *kind) for code, what, hint, c, *kind in _CONSTANT_SLIPS]
    units = [Known(code, f"{what}: the sum is right", hint, _gb(unit=unit)) for code, what, hint, unit in _UNITS]
    units += [
        Known(
            "gibibytes",
            "GiB (2^30 bytes) instead of GB (1e9 bytes): the sum is right",
            "Memory is often shown in GiB and sold in GB. The exercise asks for GB.",
            _gb(unit=2.0**30),
            OTHER_SPECIFICATION,
        ),
        Known(
            "per-parameter",
            "bytes per parameter: the sum is right",
            "Asked for are GB of the whole model.",
            lambda parameters, recipe, optimizer: _gb()(1, recipe, optimizer) * 1e9,
        ),
    ]
    both = [
        Known(
            f"{known.code}-in-{name}",
            f"{known.what}; and that in {name} instead of GB",
            f"1 GB is 1e9 bytes. {known.hint}",
            lambda parameters, recipe, optimizer, known=known, unit=unit: (
                known.wrong(parameters, recipe, optimizer) * 1e9 / unit
            ),
        )
        for name, unit in (("GiB", 2**30), ("bytes", 1))
        for known in alone
    ]
    rounded = [
        Known(
            f"rounded-to-{digits}-digits" if digits else "rounded",
            f"a result rounded to {digits} digits after the point" if digits else "a result rounded to whole GB",
            "Return the number as it is, and round where you print it.",
            lambda parameters, recipe, optimizer, digits=digits: np.round(_gb()(parameters, recipe, optimizer), digits),
        )
        for digits in range(4)
    ]
    cut = Known(
        "cut-to-whole",
        "a result cut to whole GB",
        "`//` and `int` cut off what is left over. Which division keeps it?",
        lambda parameters, recipe, optimizer: np.floor(_gb()(parameters, recipe, optimizer)),
    )
    return (*alone, *_BYTES, *units, *rounded, cut, *both)


def _all_cells(parameters: Callable[[], int]) -> list[dict[str, Any]]:
    return [
        {"parameters": parameters(), "recipe": recipe, "optimizer": optimizer}
        for recipe in _RECIPES
        for optimizer in _TENSORS
    ]


MODEL_STATES = Numeric(
    _gb(),
    # 256 parameters, one block: there a few bytes too many show
    [case for size in (10**9, 124_439_808, 256) for case in _all_cells(lambda size=size: size)],
    _known(),
    "a number of GB",
    cells=True,
    drawn=lambda rng: _all_cells(lambda: 256 * int(rng.integers(10**5, 10**9))),
)
