"""The exercise `layer_rates`: learning rates that fall from the head down to the embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION, Finding


def _by(exponents: Callable[[int], Sequence[float]]) -> Callable[..., np.ndarray]:
    """Rates lr * decay**e for these exponents, from the embedding to the head."""

    def run(lr: float, decay: float, layers: int) -> np.ndarray:
        return lr * decay ** np.asarray(exponents(layers), dtype=np.float64)

    return run


def _falling(layers: int) -> np.ndarray:
    return np.arange(layers + 1, -1, -1)


_right = _by(_falling)
_STEPS = "The head has lr. One step down is the last block, and so on: how many steps down is the embedding?"
_COUNT = "Which things get a rate? With two blocks there are four."
_EACH = "By what is the rate multiplied from one layer to the next below it?"
_MISTAKES = (
    Known(
        "reversed",
        "rates that fall from the embedding to the head, or the right ones in reverse order",
        "Which end is to keep what it has learned? The list begins with the embedding.",
        _by(lambda n: np.arange(n + 2)),
    ),
    Known(
        "last-block-at-lr",
        "a last block with the head's own rate, and everything below one step too high",
        _STEPS,
        _by(lambda n: [n, *range(n - 1, -1, -1), 0]),
    ),
    Known(
        "embedding-at-the-first-blocks",
        "an embedding with the first block's rate",
        _STEPS,
        _by(lambda n: [n, *range(n, 0, -1), 0]),
    ),
    Known(
        "embedding-at-the-first-blocks-one-up",
        "an embedding with the first block's rate, and a last block with the head's",
        _STEPS,
        _by(lambda n: [n - 1, *range(n - 1, -1, -1), 0]),
    ),
    Known("embedding-too-low", "an embedding one step too low", _STEPS, _by(lambda n: [n + 2, *range(n, 0, -1), 0])),
    Known("embedding-at-lr", "an embedding with the head's rate", _STEPS, _by(lambda n: [0, *range(n, 0, -1), 0])),
    Known(
        "head-decayed",
        "a head that is decayed as well, and everything below with it",
        _STEPS,
        _by(lambda n: _falling(n) + 1),
    ),
    Known("head-missing", "the rates without the head", _COUNT, _by(lambda n: _falling(n)[:-1])),
    Known("embedding-missing", "the rates without the embedding", _COUNT, _by(lambda n: _falling(n)[1:])),
    Known("blocks-only", "the blocks' rates alone", _COUNT, _by(lambda n: _falling(n)[1:-1])),
    Known(
        "blocks-only-from-lr", "the blocks' rates alone, the last of them lr", _COUNT, _by(lambda n: _falling(n)[2:])
    ),
    Known("one-block-more", "the rates of a model with one block more", _COUNT, _by(lambda n: _falling(n + 1))),
    Known(
        "divided",
        "rates that are divided by `decay`, and rise towards the embedding",
        "ULMFiT divides by 2.6. Here decay lies below 1 and multiplies.",
        _by(lambda n: -_falling(n)),
    ),
    Known(
        "from-the-embedding",
        "an embedding with lr, and rates that rise from there",
        "The head has lr, and it has the largest rate.",
        _by(lambda n: -np.arange(n + 2)),
    ),
    Known(
        "one-step-for-all",
        "one and the same smaller rate for everything below the head",
        _EACH,
        _by(lambda n: [1] * (n + 1) + [0]),
    ),
    Known(
        "whole-depth",
        "a fall by `decay` over the whole depth, not per layer",
        _EACH,
        _by(lambda n: _falling(n) / (n + 1)),
    ),
    Known(
        "linear",
        "rates that fall by the same amount from layer to layer: lr * (1 - k * (1 - decay))",
        _EACH,
        lambda lr, decay, layers: lr * (1 - _falling(layers) * (1 - decay)),
    ),
    Known(
        "evenly-spaced",
        "rates evenly spaced between decay * lr and lr",
        _EACH,
        lambda lr, decay, layers: lr * np.linspace(decay, 1, layers + 2),
    ),
    Known(
        "compounding",
        "a decay that is itself squared from layer to layer",
        _EACH,
        _by(lambda n: 2.0 ** _falling(n) - 1),
    ),
    Known(
        "multipliers",
        "multipliers: lr is missing",
        "Rates are asked for.",
        lambda lr, decay, layers: _right(1.0, decay, layers),
        OTHER_SPECIFICATION,
    ),
    Known("all-lr", "lr for all", _EACH, _by(lambda n: [0] * (n + 2))),
)


def _case(lr: float, decay: float, layers: int) -> dict[str, Any]:
    return {"lr": lr, "decay": decay, "layers": layers}


def _count(got: np.ndarray, want: np.ndarray) -> Finding | None:
    if got.ndim == 1 and got.shape != want.shape:
        return Finding("wrong-count", f"{len(got)} rate{'s' * (len(got) != 1)} instead of {len(want)}.", _COUNT)
    return None


LAYER_RATES = Numeric(
    _right,
    [_case(1e-3, 0.75, 12), _case(0.02, 0.5, 3), _case(5.0, 0.9, 2), _case(3e-4, 0.65, 1)],
    _MISTAKES,
    "a list of layers + 2 numbers",
    edges=[Edge(_case(1e-3, 0.75, 0)), Edge(_case(1e-3, 1.0, 4))],
    drawn=lambda rng: [
        _case(float(10 ** rng.uniform(-5, -1)), float(rng.uniform(0.3, 0.95)), int(rng.integers(2, 40)))
    ],
    pattern=_count,
)
