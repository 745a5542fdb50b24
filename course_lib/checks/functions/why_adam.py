"""The exercise of notebook 06 that asks for a function: what one learning rate costs where each block wants its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Judge, Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION

Blocks = list[np.ndarray]
Ends = Callable[[float, float], float]


def _factor(top: float, low: float) -> float:
    """The worst factor at the best rate 2 / (top + low), for curvatures from low to top."""
    return (top - low) / (top + low)


def _own(top: float, low: float) -> float:
    return 2 / (top + low)


def _curvatures(blocks: Blocks) -> list[np.ndarray]:
    return [np.linalg.eigvalsh(block) for block in blocks]


def _all(blocks: Blocks) -> np.ndarray:
    return np.concatenate(_curvatures(blocks))


def _ends(
    of: Ends = _factor,
    curvatures: Callable[[Blocks], list[np.ndarray]] = _curvatures,
    together: Callable[[Sequence[float]], float] = max,
) -> Callable[[Blocks], tuple[float, float]]:
    """``of(largest, smallest)`` of all curvatures, and of each block's, put together by ``together``."""

    def run(blocks: Blocks) -> tuple[float, float]:
        each = curvatures(blocks)
        one = of(max(c.max() for c in each), min(c.min() for c in each))
        return one, together([of(c.max(), c.min()) for c in each])

    return run


def _one(of: Callable[[Blocks], float]) -> Callable[[Blocks], tuple[float, None]]:
    return lambda blocks: (of(blocks), None)


def _per_block(of: Callable[[list[float]], float]) -> Callable[[Blocks], tuple[None, float]]:
    """From the blocks' own factors, in their order."""
    return lambda blocks: (None, of([_factor(c.max(), c.min()) for c in _curvatures(blocks)]))


def _at(choose: Callable[[Blocks], float]) -> Callable[[Blocks], tuple[float, None]]:
    """The worst factor with one rate that is chosen otherwise."""
    return _one(lambda blocks: np.abs(1 - choose(blocks) * _all(blocks)).max())


def _rates(blocks: Blocks) -> list[float]:
    return [_own(c.max(), c.min()) for c in _curvatures(blocks)]


def _fastest(blocks: Blocks) -> tuple[float, float]:
    """The direction that shrinks most, where the one that shrinks least is meant."""
    everything, rates = _all(blocks), _rates(blocks)
    each = [np.abs(1 - rate * c).min() for rate, c in zip(rates, _curvatures(blocks), strict=True)]
    return np.abs(1 - _own(everything.max(), everything.min()) * everything).min(), max(each)


_right = _ends()
_WORST = "After a step, which direction of which block has the largest share of its error left?"
_ONE_RATE = "One rate for all blocks: of all curvatures, which two decide?"
_MISTAKES = (
    Known(
        "order", "`per_block` and `one`, exchanged", "The single rate comes first.", lambda blocks: _right(blocks)[::-1]
    ),
    Known(
        "diagonal",
        "the diagonals of the blocks, taken for their curvatures",
        "Along its own axes a block is a set of single curvatures. What are they called in linear algebra?",
        _ends(curvatures=lambda blocks: [np.diag(block) for block in blocks]),
    ),
    Known(
        "row-sums",
        "the largest and the smallest sum of |entries| in a row, taken for the curvatures",
        "Row sums bound the eigenvalues from above. Here the eigenvalues themselves are meant.",
        _ends(curvatures=lambda blocks: [np.abs(block).sum(axis=1) for block in blocks]),
    ),
    Known(
        "squared-curvatures",
        "the squares of the curvatures, as H^T H has them",
        "The blocks are symmetric: no product with the transpose is needed.",
        _ends(lambda top, low: _factor(top**2, low**2)),
    ),
    Known(
        "one-over-l",
        "the rate 1 / L",
        "It is safe. Could a longer step serve the flattest direction better, at the price of the steepest?",
        _ends(lambda top, low: 1 - low / top),
    ),
    Known(
        "at-the-limit",
        "the rate 2 / L, at which the steepest direction only changes its sign",
        "That is where gradient descent ceases to converge, not where it is best.",
        _ends(lambda top, low: 1.0),
    ),
    Known(
        "condition-number",
        "the condition numbers L / mu",
        "The factor by which the error shrinks is asked for: it lies between 0 and 1.",
        _ends(lambda top, low: top / low),
    ),
    Known(
        "momentums-factor",
        "the heavy ball's factor, with roots of L and mu",
        "Here is no momentum.",
        _ends(lambda top, low: _factor(np.sqrt(top), np.sqrt(low))),
    ),
    Known(
        "factor-of-the-loss",
        "the squares: the factors of the loss",
        "The loss shrinks by the square. Asked for is what is left of the error.",
        _ends(lambda top, low: _factor(top, low) ** 2),
        OTHER_SPECIFICATION,
    ),
    Known(
        "share-removed",
        "what a step takes away, not what it leaves",
        "The factor multiplies the error: 0 is perfect, 1 is standstill.",
        _ends(lambda top, low: 1 - _factor(top, low)),
    ),
    Known(
        "rates",
        "learning rates: 2 / (L + mu), of all and the largest of the blocks' own",
        "What does the worst error become with that rate?",
        _ends(_own),
    ),
    Known("fastest-direction", "the direction that shrinks most", _WORST, _fastest),
    Known(
        "one-of-the-worst-block",
        "the worst block's own factor, for the single rate too",
        _ONE_RATE,
        _one(lambda blocks: _right(blocks)[1]),
    ),
    Known(
        "one-curvature-a-block",
        "one curvature for each block, its mean",
        _ONE_RATE,
        _one(
            lambda blocks: _factor(max(np.trace(b) / len(b) for b in blocks), min(np.trace(b) / len(b) for b in blocks))
        ),
    ),
    Known(
        "mean-of-the-rates",
        "the mean of the blocks' best rates, as the single one",
        "With it some block may even grow. " + _ONE_RATE,
        _at(lambda blocks: np.mean(_rates(blocks))),
    ),
    Known(
        "smallest-of-the-rates",
        "the smallest of the blocks' best rates, as the single one",
        "It suits the steepest block. How much of the flattest direction's error does it leave?",
        _at(lambda blocks: min(_rates(blocks))),
    ),
    Known(
        "largest-of-the-rates",
        "the largest of the blocks' best rates, as the single one",
        "A factor above 1: the steep blocks grow. " + _ONE_RATE,
        _at(lambda blocks: max(_rates(blocks))),
    ),
    Known(
        "rate-of-the-mean-curvature",
        "1 over the mean of all curvatures, as the single rate",
        _ONE_RATE,
        _at(lambda blocks: 1 / _all(blocks).mean()),
    ),
    Known(
        "per-block-is-one",
        "the single rate's factor, for the rates of each block too",
        "With a rate of its own, what does a block know of the others' curvatures?",
        lambda blocks: (None, _right(blocks)[0]),
    ),
    Known("mean-over-blocks", "the mean of the blocks' factors", _WORST, _per_block(np.mean)),
    Known("best-block", "the best block's factor", _WORST, _per_block(min)),
    Known("first-block", "the first block's factor", _WORST, _per_block(lambda factors: factors[0])),
    Known("last-block", "the last block's factor", _WORST, _per_block(lambda factors: factors[-1])),
    Known(
        "product",
        "the product of the blocks' factors",
        "A step goes through all blocks side by side, not one after the other.",
        _per_block(np.prod),
    ),
)


def _turned(curvatures: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A matrix with these eigenvalues along random axes, symmetric to the last bit."""
    axes = np.linalg.qr(rng.normal(size=(len(curvatures), len(curvatures))))[0]
    block = axes * np.asarray(curvatures, dtype=np.float64) @ axes.T
    return (block + block.T) / 2


def _case(rng: np.random.Generator, *curvatures: Sequence[float]) -> dict[str, Any]:
    return {"blocks": [_turned(block, rng) for block in curvatures]}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    sizes = rng.permutation([1, 2, 3, 4])
    return [_case(rng, *(10.0 ** (rng.uniform(-2, 3) + rng.uniform(0, 1, n)) for n in sizes))]


_RNG = np.random.default_rng(6)
BLOCK_RATES = Numeric(
    _right,
    [
        _case(_RNG, [1, 2, 3], [99, 100, 101], [4998, 4999, 5000]),
        _case(_RNG, [4.0, 7.0], [0.5, 0.9, 2.0, 3.0], [11.0, 12.0], [3.0]),
        _case(_RNG, [0.2, 1.0, 30.0], [0.02, 0.05]),
        _case(_RNG, [50.0, 60.0, 70.0], [5.0, 40.0, 900.0], [2.0, 3.0]),
    ],
    _MISTAKES,
    "two numbers",
    parts=("one", "per_block"),
    edges=[
        Edge(_case(_RNG, [0.3, 8.0, 1.5])),
        Edge({"blocks": [np.array([[4.0]]), np.array([[0.25]])]}),
        Edge({"blocks": [3.0 * np.eye(2), 3.0 * np.eye(3)]}),
        Edge(_case(_RNG, [1e-6, 2e-6], [3e5, 4e5])),
    ],
    drawn=_drawn,
)

JUDGES: dict[str, Judge] = {"block_rates": BLOCK_RATES}
