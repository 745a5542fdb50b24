"""The exercise of notebook 13 on 8-bit states: numbers as codes of a table, block by block, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Result = tuple[np.ndarray | None, ...]


def _blocks(x: np.ndarray, block: int) -> np.ndarray:
    """The block of each element."""
    return np.arange(len(x)) // block


def _largest(x: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The largest size in each block."""
    return np.array([np.abs(x[of == k]).max() for k in range(of.max(initial=-1) + 1)])


def _nearest(share: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.abs(share[:, None] - table).argmin(axis=1)  # of two that are equally near, the first


def _quantised(
    code: Callable[[np.ndarray, np.ndarray], np.ndarray] = _nearest,
    scale: Callable[[np.ndarray, np.ndarray], np.ndarray] = _largest,
    blocks: Callable[[np.ndarray, int], np.ndarray] = _blocks,
    back: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda value, scale: value * scale,
) -> Callable[..., Result]:
    """``quantise_blocks`` with another code, scale, division into blocks, or way back."""

    def run(x: np.ndarray, table: np.ndarray, block: int) -> Result:
        of = blocks(x, block)
        absmax = scale(x, of)
        codes = code(x / np.where(absmax == 0, 1.0, absmax)[of], table)
        return codes, absmax, back(table[codes], absmax[of])

    return run


def _clipped(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.clip(codes, 0, len(table) - 1)


def _of(change: Callable[..., Result]) -> Callable[..., Result]:
    """``change(codes, absmax, back, x, table, block)``; None for what stays right."""
    return lambda x, table, block: change(*_right(x, table, block), x, table, block)


def _whole_blocks_only(x: np.ndarray, table: np.ndarray, block: int) -> Result:
    return _right(x[: len(x) // block * block], table, block)


def _last_joined(x: np.ndarray, block: int) -> np.ndarray:
    return np.minimum(_blocks(x, block), max(len(x) // block - 1, 0))


def _spread(x: np.ndarray, block: int) -> np.ndarray:
    """Every k-th element into a block: what reshape(block, -1) makes of columns."""
    return np.arange(len(x)) % (-(-len(x) // block))


def _into_so_many(x: np.ndarray, block: int) -> np.ndarray:
    """As many blocks as ``block`` says."""
    return _blocks(x, max(-(-len(x) // block), 1))


def _padded(
    codes: np.ndarray, absmax: np.ndarray, back: np.ndarray, x: np.ndarray, table: np.ndarray, block: int
) -> Result:
    more = -len(x) % block
    return np.r_[codes, np.repeat(_nearest(np.zeros(1), table), more)], None, np.r_[back, np.zeros(more)]


def _uniform(share: np.ndarray, table: np.ndarray) -> np.ndarray:
    low, high = table[0], table[-1]
    return _clipped(np.rint((share - low) / (high - low) * (len(table) - 1)).astype(int), table)


def _ties_up(share: np.ndarray, table: np.ndarray) -> np.ndarray:
    return len(table) - 1 - np.abs(share[:, None] - table[::-1]).argmin(axis=1)


def _ties_to_zero(share: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.where(share < 0, _ties_up(share, table), _nearest(share, table))


def _ties_from_zero(share: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.where(share > 0, _ties_up(share, table), _nearest(share, table))


def _by(statistic: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda x, of: np.array([statistic(x[of == k]) for k in range(of.max() + 1)])


_right = _quantised()
_NEAREST = "Which two entries of the table lie on either side of a number, and which of them is nearer?"
_SCALE = "Of a block of (-4, 1, 2), what is the scale, and between which numbers do the shares lie?"
_BLOCK = "Block k holds the elements k * block to (k + 1) * block - 1 of x, the last as many as are left."
_BACK = "A code says which entry of the table, and the entry which share of the block's largest size."
_MISTAKES = (
    Known(
        "rounded-down",
        "the next entry below (the codes of searchsorted, less one)",
        _NEAREST,
        _quantised(lambda share, table: _clipped(np.searchsorted(table, share, side="right") - 1, table)),
    ),
    Known(
        "rounded-up",
        "the next entry above: searchsorted in the table itself",
        _NEAREST,
        _quantised(lambda share, table: _clipped(np.searchsorted(table, share), table)),
    ),
    Known(
        "rounded-towards-zero",
        "the next entry towards zero",
        _NEAREST,
        _quantised(
            lambda share, table: np.where(
                share > 0,
                _clipped(np.searchsorted(table, share, side="right") - 1, table),
                _clipped(np.searchsorted(table, share), table),
            )
        ),
    ),
    Known(
        "ties-up",
        "a tie that goes to the upper entry",
        "Half way between two entries: which one does the exercise ask for?",
        _quantised(_ties_up),
    ),
    Known(
        "ties-from-zero",
        "a tie that goes away from zero",
        "Half way between two entries: which one does the exercise ask for?",
        _quantised(_ties_from_zero),
    ),
    Known(
        "ties-to-zero",
        "a tie that goes towards zero, as it does when something is added to the scale",
        "Half way between two entries: which one does the exercise ask for? And is absmax as it was?",
        _quantised(_ties_to_zero),
    ),
    Known(
        "nearest-in-logarithm",
        "the entry that is nearest in ratio, not in difference",
        "Nearest in difference is asked for.",
        _quantised(
            lambda share, table: np.abs(
                np.log(np.abs(share[:, None]) + 1e-12)
                - np.log(np.abs(table) + 1e-12)
                + 99 * (np.sign(share[:, None]) * np.sign(table) < 0)
            ).argmin(axis=1)
        ),
    ),
    Known(
        "uniform-codes",
        "codes of a table with equal distances, whatever the table",
        "The table is given: look the number up in it.",
        _quantised(_uniform),
    ),
    Known(
        "one-code-off",
        "codes that are counted from 1",
        "Which code has the first entry of the table?",
        _of(lambda codes, absmax, back, x, table, block: (codes + 1, None, None)),
    ),
    Known(
        "codes-mirrored",
        "codes of the table read backwards",
        "Which code has the first entry of the table?",
        _of(lambda codes, absmax, back, x, table, block: (len(table) - 1 - codes, None, None)),
    ),
    Known(
        "values-for-codes",
        "the table's entries in the place of their codes",
        "A code is the entry's place in the table, a whole number.",
        _of(lambda codes, absmax, back, x, table, block: (table[codes], None, None)),
    ),
    Known(
        "not-scaled",
        "codes of x itself, which nothing divides",
        _SCALE,
        lambda x, table, block: (_nearest(x, table), _right(x, table, block)[1], table[_nearest(x, table)]),
    ),
    Known(
        "not-scaled-and-multiplied",
        "codes of x itself, and a way back that multiplies by absmax all the same",
        _SCALE,
        lambda x, table, block: (
            _nearest(x, table),
            None,
            table[_nearest(x, table)] * _right(x, table, block)[1][_blocks(x, block)],
        ),
    ),
    Known(
        "one-block",
        "one scale for the whole of x",
        "One outlier should spoil its own block alone.",
        _quantised(blocks=lambda x, block: np.zeros(len(x), dtype=int)),
    ),
    Known(
        "largest-not-size",
        "the largest number of a block in the place of the largest size: a block with a large negative number "
        "overflows",
        _SCALE,
        _quantised(scale=_by(np.max)),
    ),
    Known(
        "size-of-largest",
        "the size of the largest number of a block: a block with a large negative number overflows",
        _SCALE,
        _quantised(scale=_by(lambda part: abs(part.max()))),
    ),
    Known(
        "signed-scale",
        "a scale with the sign of the largest element",
        "absmax is a size: what sign has it?",
        _quantised(scale=_by(lambda part: part[np.abs(part).argmax()])),
        OTHER_SPECIFICATION,
    ),
    Known(
        "range",
        "the distance from a block's least to its largest number as scale",
        _SCALE,
        _quantised(scale=_by(np.ptp)),
    ),
    Known(
        "scaled-to-table",
        "a scale that is divided by the table's largest entry",
        "absmax is the largest size in the block, whatever the table. A table that ends below 1 clips it.",
        lambda x, table, block: _quantised(scale=_by(lambda part: np.abs(part).max() / np.abs(table).max()))(
            x, table, block
        ),
    ),
    Known(
        "root-mean-square",
        "a block's root mean square as scale",
        _SCALE,
        _quantised(scale=_by(lambda part: np.sqrt(np.mean(part**2)))),
    ),
    Known(
        "mean-size", "a block's mean size as scale", _SCALE, _quantised(scale=_by(lambda part: np.mean(np.abs(part))))
    ),
    Known("deviation", "a block's standard deviation as scale", _SCALE, _quantised(scale=_by(np.std))),
    Known("norm", "a block's norm as scale", _SCALE, _quantised(scale=_by(np.linalg.norm))),
    Known("last-block-dropped", "whole blocks only: the last elements are left out", _BLOCK, _whole_blocks_only),
    Known(
        "last-block-padded",
        "results for the zeros that fill the last block up",
        "As many codes as x has elements: cut off what was filled up.",
        _of(_padded),
    ),
    Known(
        "last-block-joined", "a last block that is joined to the one before", _BLOCK, _quantised(blocks=_last_joined)
    ),
    Known(
        "every-kth",
        "blocks of every k-th element: x was reshaped to (block, -1), or its columns were taken",
        _BLOCK,
        _quantised(blocks=_spread),
    ),
    Known("so-many-blocks", "`block` blocks, not blocks of `block` elements", _BLOCK, _quantised(blocks=_into_so_many)),
    Known(
        "blocks-one-too-long",
        "blocks of block + 1 elements",
        _BLOCK,
        _quantised(blocks=lambda x, block: _blocks(x, block + 1)),
    ),
    Known(
        "scale-per-element",
        "a scale for each element: absmax was repeated and returned so",
        "One scale is kept for a block.",
        _of(lambda codes, absmax, back, x, table, block: (None, absmax[_blocks(x, block)], None)),
    ),
    Known(
        "scale-inverted",
        "1 / absmax for absmax",
        "By what is the way back multiplied?",
        _of(lambda codes, absmax, back, x, table, block: (None, np.where(absmax == 0, 0, 1 / absmax), None)),
    ),
    Known(
        "back-not-scaled",
        "a way back that ends at the table's entries",
        _BACK,
        _quantised(back=lambda value, scale: value),
    ),
    Known(
        "back-divided",
        "a way back that divides by absmax",
        _BACK,
        _quantised(back=lambda value, scale: value / np.where(scale == 0, 1.0, scale)),
    ),
    Known(
        "back-of-codes",
        "a way back that multiplies absmax by the code, not by its entry",
        _BACK,
        _of(lambda codes, absmax, back, x, table, block: (None, None, codes * absmax[_blocks(x, block)])),
    ),
    Known(
        "back-by-127",
        "a way back of code / 127, as of an int8, not of a table's code",
        _BACK,
        _of(lambda codes, absmax, back, x, table, block: (None, None, codes / 127 * absmax[_blocks(x, block)])),
    ),
    Known(
        "back-of-first-scale",
        "a way back with the first block's scale for all",
        _BACK,
        _of(lambda codes, absmax, back, x, table, block: (None, None, table[codes] * absmax[0])),
    ),
    Known(
        "back-is-x",
        "x itself as what comes back",
        "What comes back is what codes, table and absmax still know of x.",
        _of(lambda codes, absmax, back, x, table, block: (None, None, x)),
    ),
    Known(
        "error",
        "the error in the place of what comes back",
        "Not the error is asked for, but what comes back.",
        _of(lambda codes, absmax, back, x, table, block: (None, None, x - back)),
    ),
    Known(
        "sign-lost",
        "codes of sizes: every number became positive",
        "The table has entries below zero.",
        _quantised(lambda share, table: _nearest(np.abs(share), table)),
    ),
)
_SIGNED = np.array([-0.875, -0.5, -0.25, -0.125, -0.03125, 0.0, 0.03125, 0.0625, 0.25, 0.625, 1.0])
_WITHOUT_ZERO = np.array([-1.0, -0.5, -0.0625, 0.125, 0.5, 1.0])
_BELOW_ONE = np.array([-0.75, -0.25, -0.0625, 0.0, 0.125, 0.5])
_OF_A_BYTE = np.r_[np.linspace(-1, 0, 129)[1:-1], 0.0, np.linspace(0, 1, 129)[1:]]  # all codes of 8 bits but one
_RNG = np.random.default_rng(31)


def _case(x: Any, table: np.ndarray, block: int) -> dict[str, Any]:
    return {"x": np.asarray(x, dtype=np.float64), "table": table, "block": block}


def _numbers(rng: np.random.Generator, size: int) -> np.ndarray:
    """Numbers of both signs and many sizes, as gradients have them."""
    return rng.normal(size=size) * 10.0 ** rng.uniform(-2, 1, size)


def _dynamic(rng: np.random.Generator) -> np.ndarray:
    """A table of both signs, with 0 and 1, whose entries lie closer together near zero."""
    sizes = 10.0 ** rng.uniform(-3, 0, int(rng.integers(6, 60)))
    return np.unique(np.r_[sizes, -sizes, 0.0, 1.0])


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    block = int(rng.integers(3, 9))
    return [_case(_numbers(rng, block * int(rng.integers(2, 6)) + int(rng.integers(1, block))), _dynamic(rng), block)]


def _of_zeros(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if not all(np.isfinite(part).all() for part in got):
        what = "In a block of zeros, something is not a number: 0 / 0."
    elif got[1].shape == want[1].shape and got[1][1] != 0:
        what = f"The scale of a block of zeros is {got[1][1]:g}: what saves the division must not be returned."
    elif got[0].shape == want[0].shape and not np.array_equal(got[0], want[0]):
        what = "The elements of a block of zeros do not have the code of the entry nearest to 0."
    else:
        return None
    return Finding(
        "zero-block", what, "As an unused row of an embedding has them. Divide by 1 where absmax is 0, and return 0."
    )


def _of_one_block(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[1].shape == want[1].shape:
        return None
    return Finding(
        "short-block",
        f"With fewer elements than a block has, there are {got[1].size} scales, not one.",
        "Round up: how many blocks have at least one element?",
    )


def _of_tiny(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if (
        got[1].shape != want[1].shape
        or np.allclose(got[1], want[1], rtol=1e-6, atol=0)
        and np.array_equal(got[0], want[0])
    ):
        return None
    return Finding(
        "floored",
        f"In a block whose numbers are all about {np.abs(case['x'][0]):.0e}, the scale or the codes are off.",
        "Second moments are as small as that. Only a scale of exactly 0 needs help: add nothing to the others, and "
        "stay in float64.",
    )


def _of_a_byte(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if (
        got[0].shape != want[0].shape
        or np.array_equal(got[0], want[0])
        or not np.array_equal(got[0], (want[0] + 128) % 256 - 128)
    ):
        return None
    return Finding(
        "codes-overflow",
        f"With a table of {len(case['table'])} entries, codes above 127 come out negative: they are kept in an int8.",
        "Codes count from 0 to 255. Which type of one byte holds them?",
    )


judge_quantise_blocks = Numeric(
    _right,
    [
        _case(_numbers(_RNG, 17), _SIGNED, 5),
        _case([4.0, 0.75, -2.75, 1.5, -0.625, 0.0, -8.0, 3.5, 7.0, -1.5, 0.1875, 0.5], _SIGNED, 6),  # with ties
        _case([2.0, -1.5, -0.25, 0.3, -3.0, 1.4, -5.0], _WITHOUT_ZERO, 3),
        _case(_numbers(_RNG, 50), _dynamic(_RNG), 8),
        _case([0.5, -3.0, 1.0, 2.5, -0.8, 0.9, 0.1], _BELOW_ONE, 3),
    ],
    _MISTAKES,
    "three arrays",
    ("codes", "absmax", "back"),
    edges=[
        Edge(_case([3.0, -1.0, 0.0, 0.0, 0.0, 0.5], _SIGNED, 2), _of_zeros),
        Edge(_case([3.0, -1.0, 0.0, 0.0, 0.0, 0.5], _WITHOUT_ZERO, 2), _of_zeros),
        Edge(_case([0.3, -2.0, 0.7], _SIGNED, 256), _of_one_block),
        Edge(_case([0.3, -2.0, 0.7], _SIGNED, 1)),
        Edge(_case([2e-20, -1e-20, 5e-21, 4.0], _SIGNED, 3), _of_tiny),
        Edge(_case([2e-60, -1e-60, 5e-61, 4.0], _SIGNED, 3), _of_tiny),
        Edge(_case([0.3, -2.0, 0.7, 1.1], _SIGNED, 2)),
        Edge(_case(np.linspace(-3, 3, 40), _OF_A_BYTE, 16), _of_a_byte),
    ],
    drawn=_drawn,
)
