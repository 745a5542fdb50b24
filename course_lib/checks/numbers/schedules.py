"""The number asked for in the exercises of notebook 07."""

from __future__ import annotations

import math
from collections.abc import Callable

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding

_PEAK, _WD, _TOTAL, _WARMUP, _STOP = 6e-4, 0.1, 20_000, 2000, 12_000
_REST = _TOTAL - _WARMUP


def _line(t: int) -> float:
    """The multiplier after the warmup: down from 1, and 0 at ``total``."""
    return (_TOTAL - t) / _REST


def _left(fall: Callable[[int], float] = _line, warmup: int = _WARMUP, stop: int = _STOP, begin: int = 0) -> float:
    """What is left after ``stop`` updates: warmup (t + 1) / warmup, then ``fall``."""
    rates = [(t + 1) / warmup if t < warmup else fall(t) for t in range(begin, stop)]
    return math.prod(1 - _PEAK * _WD * rate for rate in rates)


def _no_share(number: float) -> Finding | None:
    if 0 <= number <= 1:
        return None
    return Finding(
        "no-share", f"{number:g} is no share of a weight.", "It lies between 0 (nothing left) and 1 (no decay)."
    )


_AREA = -math.log(_left())

ANSWERS: dict[str, Answer] = {
    "decay_left": Answer(
        _left(),
        1e-3,
        "",
        (
            Slip(
                math.exp(-_PEAK * _WD * _STOP),
                "constant-rate",
                "That is what the peak rate leaves if it stays from the first update on.",
                "AdamW multiplies by 1 - lr * weight_decay with the lr of that update. How large is lr on average?",
            ),
            Slip(
                _left(stop=_TOTAL),
                "not-stopped",
                "That is what the whole schedule leaves, all 20,000 updates.",
                "The run is stopped after 12,000. What is the area under the line up to there?",
            ),
            Slip(
                _left(lambda t: (_STOP - t) / (_STOP - _WARMUP)),
                "shorter-schedule",
                "That is a schedule which comes down to zero at step 12,000.",
                "The schedule was made for 20,000 updates; nobody told it that the run would be stopped.",
            ),
            Slip(
                _left(lambda t: (_TOTAL - t) / _TOTAL, warmup=0),
                "no-warmup",
                "That is a line from the peak at step 0 to zero at step 20,000, without a warmup.",
                "In the first 2000 updates the rate rises to the peak.",
            ),
            Slip(
                _left(lambda t: 1 - t / _TOTAL),
                "jump-after-warmup",
                "That has the rate 1 - step / 20,000 after the warmup: it jumps from 1 to 0.9.",
                "The fall begins at the peak, at step 2000. How many steps are there from there to zero?",
            ),
            Slip(
                _left(lambda t: 1 - (t - _WARMUP) / _TOTAL),
                "fall-too-long",
                "That has a fall over 20,000 steps after the warmup, so that the rate is zero at step 22,000.",
                "The rate would be zero at step 20,000, counted from the first update.",
            ),
            Slip(
                _left(lambda t: (1 + math.cos(math.pi * (t - _WARMUP) / _REST)) / 2),
                "cosine",
                "That has half a cosine after the warmup.",
                "The rate falls along a straight line.",
            ),
            Slip(
                _left(lambda t: 1.0),
                "no-fall",
                "That has the peak rate after the warmup.",
                "From step 2000 on the rate falls.",
            ),
            Slip(
                1 - _left(),
                "share-removed",
                "That is the share that the decay takes away.",
                "What is left of the weight is asked for.",
            ),
            Slip(
                _AREA,
                "exponent",
                "That is weight_decay times the sum of the rates.",
                "It is the exponent: what do that many small factors 1 - lr * weight_decay come to?",
            ),
            Slip(
                1 - _AREA,
                "subtracted",
                "That subtracts the decay of each update from the weight as it was at the start.",
                "Each update takes its share of what is left: the factors multiply.",
            ),
            Slip(
                math.exp(-_AREA / _WD),
                "decay-forgotten",
                "That leaves weight_decay out: exp(- sum of the rates).",
                "The factor of one update is 1 - lr * weight_decay.",
            ),
            Slip(
                math.exp(-_AREA / 2),
                "half-the-sum",
                "That is with half the sum of the rates.",
                "The area under the line counts once.",
            ),
            Slip(
                _left(begin=_WARMUP),
                "warmup-left-out",
                "That leaves the updates of the warmup out.",
                "Weights decay during warmup as well: what is the area under the whole line?",
            ),
            Slip(
                _left(lambda t: min(_line(t), 1.0), warmup=0),
                "warmup-at-the-peak",
                "That has the peak rate during the whole warmup.",
                "Over the warmup the rate rises to the peak.",
            ),
            Slip(
                math.exp(-_WD),
                "decay-alone",
                "That is exp(-weight_decay), whatever the rate.",
                "How often is the weight multiplied, and by what?",
            ),
            Slip(
                1 - _PEAK * _WD,
                "one-update",
                "That is one update at the peak rate.",
                "There are 12,000, at many rates.",
            ),
            Slip(
                0.0,
                "nothing",
                "That would be nothing: the rate falls to zero, not the weight; or the decay lacks its lr.",
                "torch's AdamW multiplies the weight by 1 - lr * weight_decay.",
            ),
            Slip(
                1.0,
                "everything",
                "That would be a weight that does not decay without gradient.",
                "AdamW's decay needs no gradient.",
            ),
        ),
        _no_share,
    ),
}
