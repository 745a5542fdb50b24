"""The exercise of notebook 13 that asks for the bytes of state of seven optimizers on given shapes."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION

Shape = tuple[int, ...]
Bytes = Callable[[Shape], float]  # of state, for a tensor of a shape

OPTIMIZERS = ("adamw", "lion", "muon", "adafactor", "came", "adam_mini", "adamw8bit")


def _whole(states: float, size: float = 4) -> Bytes:
    return lambda shape: size * states * prod(shape)


def _by_shape(matrix: Callable[[int, int], float], vector: Callable[[int], float]) -> Bytes:
    """Float32 numbers kept of a matrix of n rows and m columns, and of a vector."""
    return lambda shape: 4.0 * (matrix(*shape) if len(shape) == 2 else vector(*shape))


def _eight(
    threshold: int = 4096,
    block: int = 256,
    blocks: Callable[[float], float] = ceil,
    constant: float = 4,
    inclusive: bool = True,
) -> Bytes:
    def of(shape: Shape) -> float:
        size = prod(shape)
        if size < threshold or (size == threshold and not inclusive):
            return 8.0 * size
        return 2 * (size + constant * blocks(size / block))

    return of


_STATE: dict[str, Bytes] = {
    "adamw": _whole(2),
    "lion": _whole(1),
    "muon": _by_shape(lambda n, m: n * m, lambda n: 2 * n),
    "adafactor": _by_shape(lambda n, m: n + m, lambda n: n),
    "came": _by_shape(lambda n, m: n * m + 2 * (n + m), lambda n: 2 * n),
    "adam_mini": _by_shape(lambda n, m: n * m + n, lambda n: n + 1),
    "adamw8bit": _eight(),
}


def _gb(unit: float = 1e9, **changed: Bytes) -> Callable[..., float]:
    """``small_state_gb`` with other bytes for some of the optimizers."""
    state = _STATE | changed
    return lambda shapes, optimizer: sum(state[optimizer](shape) for shape in shapes) / unit


def _of(change: Callable[[float, tuple[Shape, ...], str], float]) -> Callable[..., float]:
    return lambda shapes, optimizer: change(_right(shapes, optimizer), shapes, optimizer)


def _elements(shapes: tuple[Shape, ...]) -> int:
    return sum(map(prod, shapes))


def _all_in_one(shapes: tuple[Shape, ...], optimizer: str) -> float:
    return _right(((_elements(shapes),),), optimizer) if optimizer == "adamw8bit" else _right(shapes, optimizer)


def _pooled(shapes: tuple[Shape, ...], optimizer: str) -> float:
    """The blocks of all large tensors counted at once."""
    large = [prod(shape) for shape in shapes if prod(shape) >= 4096]
    if optimizer != "adamw8bit":
        return _right(shapes, optimizer)
    return _right(shapes, optimizer) + 8e-9 * (ceil(sum(large) / 256) - sum(ceil(size / 256) for size in large))


def _in_32_bits(shapes: tuple[Shape, ...], optimizer: str) -> float:
    """Elements that are counted in an int32 wrap around; a count below zero looks like that of a small tensor."""
    total = 0.0
    for shape in shapes:
        size, counted = prod(shape), (prod(shape) + 2**31) % 2**32 - 2**31
        if optimizer == "adamw8bit" and counted < 4096:
            total += 8e-9 * counted
        else:
            each = {"adamw": 8e-9, "adafactor": 0.0, "adamw8bit": 2e-9}.get(optimizer, 4e-9)
            total += _right((shape,), optimizer) - each * (size - counted)
    return total


_right = _gb()
_ROWS = "A matrix (n, m) has n rows. How many numbers does it keep besides m, the momentum?"
_VECTOR = "A vector has no second dimension to save along."
_EIGHT_HINT = (
    "Per tensor: is it large enough? Then two states, each with a byte for an element and a float32 for a block, "
    "also for a short one."
)
_MISTAKES = (
    Known("8bit-everywhere", "8-bit states for small tensors too", _EIGHT_HINT, _gb(adamw8bit=_eight(threshold=0))),
    Known(
        "8bit-above-4096",
        "8-bit states above 4096 elements, but not at 4096",
        _EIGHT_HINT,
        _gb(adamw8bit=_eight(inclusive=False)),
    ),
    Known(
        "8bit-threshold-of-all",
        "8-bit states for all tensors together: the 4096 elements and the blocks were counted over the whole list",
        "Each tensor has blocks of its own, and is small or large by itself.",
        _all_in_one,
    ),
    Known(
        "8bit-blocks-pooled",
        "8-bit states whose blocks run on from tensor to tensor: the elements were added up first",
        "Each tensor has blocks of its own, and a short last one.",
        _pooled,
    ),
    Known(
        "8bit-blocks-rounded",
        "blocks rounded to the nearest whole number: a short last block with less than half of its elements is lost",
        "A short block has a whole float32, however short.",
        _gb(adamw8bit=_eight(blocks=np.round)),
    ),
    Known(
        "8bit-constants-missing",
        "8-bit states without the float32 of each block",
        _EIGHT_HINT,
        _gb(adamw8bit=_eight(constant=0)),
    ),
    Known(
        "8bit-one-constant",
        "8-bit states with one float32 for a block, not one for each state",
        _EIGHT_HINT,
        _gb(adamw8bit=_eight(constant=2)),
    ),
    Known(
        "8bit-constants-of-a-byte",
        "8-bit states with constants of one byte",
        _EIGHT_HINT,
        _gb(adamw8bit=_eight(constant=1)),
    ),
    Known(
        "8bit-blocks-floored",
        "a last, short block without a constant",
        _EIGHT_HINT,
        _gb(adamw8bit=_eight(blocks=lambda n: n // 1)),
    ),
    Known(
        "8bit-blocks-in-part",
        "a part of a constant for a last, short block",
        "A short block has a whole float32.",
        _gb(adamw8bit=_eight(blocks=lambda n: n)),
    ),
    Known(
        "8bit-blocks-of-2048",
        "blocks of 2048, as in the paper",
        "Here a block has 256 elements.",
        _gb(adamw8bit=_eight(block=2048)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "8bit-one-state",
        "one state in 8 bits, not two",
        _EIGHT_HINT,
        _gb(adamw8bit=lambda shape: _eight()(shape) / (1 if prod(shape) < 4096 else 2)),
    ),
    Known("8bit-quarter", "a fourth of AdamW's bytes, whatever the tensor", _EIGHT_HINT, _gb(adamw8bit=_whole(2, 1))),
    Known(
        "8bit-small-in-one",
        "one float32 for each element of a small tensor, not two",
        "Small tensors keep AdamW's float32 state.",
        _gb(adamw8bit=lambda shape: _eight()(shape) / (2 if prod(shape) < 4096 else 1)),
    ),
    Known(
        "8bit-small-left-out",
        "no bytes for small tensors",
        "Small tensors keep AdamW's float32 state.",
        _gb(adamw8bit=lambda shape: _eight()(shape) * (prod(shape) >= 4096)),
    ),
    Known(
        "adafactor-with-momentum",
        "an Adafactor with a first moment",
        "Here it has none.",
        _gb(adafactor=_by_shape(lambda n, m: n * m + n + m, lambda n: 2 * n)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "adafactor-is-adamw",
        "an Adafactor that keeps the whole second moment",
        "R has an entry for each row, C one for each column.",
        _gb(adafactor=_whole(1)),
    ),
    Known(
        "adafactor-rows-only",
        "an Adafactor that keeps R alone",
        "R has an entry for each row, C one for each column.",
        _gb(adafactor=_by_shape(lambda n, m: n, lambda n: n)),
    ),
    Known(
        "adafactor-mean-kept",
        "a number too many: n + m + 1 for a matrix",
        "mean(R) is computed from R, not kept.",
        _gb(adafactor=_by_shape(lambda n, m: n + m + 1, lambda n: n)),
    ),
    Known(
        "adafactor-factors-vectors",
        "an Adafactor that factors vectors as well, n + 1 numbers",
        _VECTOR,
        _gb(adafactor=_by_shape(lambda n, m: n + m, lambda n: n + 1)),
    ),
    Known(
        "adafactor-vectors-left-out",
        "an Adafactor that keeps one number for a vector",
        _VECTOR,
        _gb(adafactor=_by_shape(lambda n, m: n + m, lambda n: 1)),
    ),
    Known(
        "adafactor-vectors-as-adamw",
        "an Adafactor with AdamW's two states for a vector",
        "Adafactor keeps no first moment, of nothing.",
        _gb(adafactor=_by_shape(lambda n, m: n + m, lambda n: 2 * n)),
    ),
    Known(
        "came-one-pair",
        "a CAME with one row and one column",
        "Its second moment is factored, and so is its confidence.",
        _gb(came=_by_shape(lambda n, m: n * m + n + m, lambda n: 2 * n)),
    ),
    Known(
        "came-without-momentum",
        "a CAME without its first moment",
        "CAME keeps m whole.",
        _gb(came=_by_shape(lambda n, m: 2 * (n + m), lambda n: 2 * n)),
    ),
    Known(
        "came-without-any-momentum",
        "a CAME without its first moment, of vectors too",
        "CAME keeps m whole.",
        _gb(came=_by_shape(lambda n, m: 2 * (n + m), lambda n: n)),
    ),
    Known(
        "came-is-adafactor",
        "a CAME that keeps what Adafactor keeps",
        "What does it keep besides?",
        _gb(came=_STATE["adafactor"]),
    ),
    Known(
        "came-vectors-thrice",
        "a CAME with three states for a vector",
        "The confidence of a vector is not kept.",
        _gb(came=_by_shape(lambda n, m: n * m + 2 * (n + m), lambda n: 3 * n)),
    ),
    Known(
        "came-vectors-once",
        "a CAME with one state for a vector",
        "A vector keeps m and v.",
        _gb(came=_by_shape(lambda n, m: n * m + 2 * (n + m), lambda n: n)),
    ),
    Known(
        "mini-per-tensor",
        "an Adam-mini with one second moment for a tensor",
        _ROWS,
        _gb(adam_mini=_by_shape(lambda n, m: n * m + 1, lambda n: n + 1)),
    ),
    Known(
        "mini-per-column",
        "an Adam-mini with one second moment for a column",
        _ROWS,
        _gb(adam_mini=_by_shape(lambda n, m: n * m + m, lambda n: n + 1)),
    ),
    Known(
        "mini-without-momentum",
        "an Adam-mini without its first moment",
        "Adam-mini keeps m whole.",
        _gb(adam_mini=_by_shape(lambda n, m: n, lambda n: 1)),
    ),
    Known(
        "mini-vectors-as-adamw",
        "an Adam-mini with AdamW's two states for a vector",
        "A vector is one block here.",
        _gb(adam_mini=_by_shape(lambda n, m: n * m + n, lambda n: 2 * n)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "mini-vectors-without-v",
        "an Adam-mini without a second moment for vectors",
        "A vector is one block here.",
        _gb(adam_mini=_by_shape(lambda n, m: n * m + n, lambda n: n)),
    ),
    Known(
        "mini-is-half",
        "an Adam-mini at exactly half of AdamW's bytes",
        "Nearly half: what remains of v?",
        _gb(adam_mini=_whole(1)),
    ),
    Known(
        "mini-is-adafactor",
        "an Adam-mini with a row and a column of second moments",
        _ROWS,
        _gb(adam_mini=_by_shape(lambda n, m: n * m + n + m, lambda n: n + 1)),
    ),
    Known(
        "muon-everything-once",
        "a Muon with one state for vectors, too",
        "Who updates the vectors?",
        _gb(muon=_whole(1)),
    ),
    Known(
        "muon-matrices-twice",
        "a Muon with two states for matrices",
        "Muon keeps a momentum, and nothing squared.",
        _gb(muon=_whole(2)),
    ),
    Known(
        "muon-vectors-left-out",
        "a Muon without state for vectors",
        "Who updates the vectors?",
        _gb(muon=_by_shape(lambda n, m: n * m, lambda n: 0)),
    ),
    Known(
        "muon-roles-swapped",
        "a Muon with two states for matrices and one for vectors",
        "Which of the two does AdamW update?",
        _gb(muon=_by_shape(lambda n, m: 2 * n * m, lambda n: n)),
    ),
    Known(
        "muon-square-kept",
        "a Muon that keeps the product of the matrix with its transpose",
        "Newton-Schulz works on this step's matrix alone and keeps nothing.",
        _gb(muon=_by_shape(lambda n, m: n * m + min(n, m) ** 2, lambda n: 2 * n)),
    ),
    Known(
        "lion-twice",
        "a Lion with two states",
        "Both of Lion's averages are of g. How many of them live on?",
        _gb(lion=_whole(2)),
    ),
    Known(
        "lion-signs",
        "a Lion that keeps one byte for an element",
        "The momentum is kept, not its sign.",
        _gb(lion=_whole(1, 1)),
    ),
    Known(
        "shapes-once",
        "each shape counted once, however often it comes",
        "A model has many tensors of one shape. Is the list made a set, or the key of a dict?",
        lambda shapes, optimizer: _right(tuple(dict.fromkeys(shapes)), optimizer),
    ),
    Known(
        "int32",
        "elements counted in 32 bits, where 2^31 of them wrap around",
        "Python's integers do not overflow, NumPy's do: what multiplies the shape?",
        _in_32_bits,
    ),
    Known("adamw-once", "an AdamW with one state", "m and v.", _gb(adamw=_whole(1))),
    Known(
        "with-master",
        "a float32 master copy, or the weights, besides",
        "State alone is asked for.",
        _of(lambda right, shapes, optimizer: right + 4e-9 * _elements(shapes)),
    ),
    Known(
        "with-weights-and-gradients",
        "weights and gradients besides",
        "State alone is asked for.",
        _of(lambda right, shapes, optimizer: right + 8e-9 * _elements(shapes)),
    ),
    Known(
        "in-16-bits",
        "state of two bytes where it has four",
        "Float32, the exercise says.",
        lambda shapes, optimizer: _right(shapes, optimizer) / (1 if optimizer == "adamw8bit" else 2),
    ),
    Known(
        "always-adamw",
        "AdamW, whatever the optimizer",
        "What does each optimizer keep?",
        lambda shapes, optimizer: _right(shapes, "adamw"),
    ),
    Known(
        "step-counts",
        "four bytes more for each tensor, as torch keeps a count of steps",
        "Here counts are left out.",
        _of(lambda right, shapes, optimizer: right + 4e-9 * len(shapes)),
        OTHER_SPECIFICATION,
    ),
    Known(
        "vectors-left-out",
        "matrices alone",
        "Norms and biases have state, too.",
        lambda shapes, optimizer: _right(tuple(shape for shape in shapes if len(shape) == 2), optimizer),
    ),
    Known(
        "first-tensor-only",
        "the first tensor alone",
        "How far is `return` indented?",
        lambda shapes, optimizer: _right(shapes[:1], optimizer),
    ),
    Known(
        "last-tensor-only",
        "the last tensor alone",
        "Is the total added to, or replaced?",
        lambda shapes, optimizer: _right(shapes[-1:], optimizer),
    ),
    Known(
        "numbers",
        "the count of numbers, in billions: their bytes are missing",
        "How many bytes has a float32?",
        lambda shapes, optimizer: _right(shapes, optimizer) / 4,
    ),
    Known("bytes", "bytes, not GB", "1 GB is 1e9 bytes.", _gb(unit=1)),
    Known("gibibytes", "GiB, not GB", "1 GB is 1e9 bytes.", _gb(unit=2**30)),
    Known("megabytes", "MB, not GB", "1 GB is 1e9 bytes.", _gb(unit=1e6)),
    Known("bits", "bits, not bytes", "Eight bits make a byte.", _gb(unit=1.25e8)),
)

_LISTS: tuple[tuple[Shape, ...], ...] = (
    ((50257, 768), (768, 2304), (2304,), (768,), (768, 3072), (5000,)),
    ((64, 64), (63, 65), (4096,), (4095,), (300, 17), (10,)),  # at the threshold, and with short blocks
    ((4096, 1024), (1024, 14336), (1024,)),
    ((1, 7), (5, 1), (3,)),
    ((64, 65), (4200,), (64, 65), (70, 9), (70, 9), (30,), (30,)),  # short blocks below 128, and shapes that repeat
    ((65_536, 40_000), (12,)),  # beyond 2^31 elements
)


def _cases(shapes: tuple[Shape, ...]) -> list[dict[str, Any]]:
    return [{"shapes": shapes, "optimizer": optimizer} for optimizer in OPTIMIZERS]


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Matrices and vectors, some of them below 4096 elements."""
    matrices = [tuple(map(int, rng.integers(8, high, 2))) for high in (60, 900, 5000)]
    vectors = [(int(rng.integers(2, high)),) for high in (4000, 20_000)]
    return _cases((*matrices, *vectors))


SMALL_STATE = Numeric(
    _right,
    [case for shapes in _LISTS for case in _cases(shapes)],
    _MISTAKES,
    "a number of GB",
    edges=[Edge(case) for case in _cases(())],
    cells=True,
    drawn=_drawn,
)
