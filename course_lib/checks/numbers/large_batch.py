"""The number asked for in the exercises of notebook 09."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding

_S_MIN, _E_MIN, _BATCH = 20_000, 50e9, 1e6
_CRITICAL = _E_MIN / _S_MIN


def _below_both(number: float) -> Finding | None:
    if number <= 0:
        return Finding(
            "no-steps", f"{number:g}: a number of steps lies above 0.", "At least 20,000, whatever the batch."
        )
    if number < _S_MIN:
        what = f"{number:g} steps are fewer than 20,000, which no batch goes below."
        return Finding("below-the-least", what, "S = S_min (1 + B_crit / B).")
    if number < _E_MIN / _BATCH:
        what = f"{number:g} steps of 1 million tokens are fewer than the 50 billion tokens which every batch needs."
        return Finding("too-few-tokens", what, "S = S_min (1 + B_crit / B).")
    return None


ANSWERS: dict[str, Answer] = {
    "steps_needed": Answer(
        _S_MIN * (1 + _CRITICAL / _BATCH),
        1e-6,
        "steps",
        (
            Slip(
                _E_MIN / _BATCH,
                "tokens-only",
                "That is what the tokens alone ask for, E_min / B: as if a batch of 1 million tokens wasted none.",
                "E_min is reached by a very small batch only. How many more tokens does this one need?",
            ),
            Slip(
                _S_MIN,
                "the-least",
                "That is S_min, which is reached by a very large batch only.",
                "Is 1 million tokens large, beside the critical batch size?",
                tolerance=1e-6,  # it stands in the statement: nobody rounds it
            ),
            Slip(
                _S_MIN * (1 + _BATCH / _CRITICAL),
                "upside-down",
                "That is S_min (1 + B / B_crit): more steps for a larger batch.",
                "To what must S tend for a large B?",
            ),
            Slip(
                _CRITICAL,
                "critical-batch",
                "That is the critical batch size, in tokens.",
                "The steps at a batch of 1 million tokens are asked for.",
            ),
            Slip(
                2 * _S_MIN,
                "at-the-critical",
                "That is S at the critical batch: twice the least.",
                "The batch here is smaller than the critical one.",
            ),
            Slip(
                (_S_MIN + _E_MIN / _BATCH) * _BATCH,
                "tokens",
                "That is E, the tokens of the whole run.",
                "Divide by the tokens of a step.",
            ),
            Slip(
                math.sqrt(_S_MIN * _E_MIN / _BATCH),
                "geometric-mean",
                "That is the geometric mean of S_min and E_min / B.",
                "The law is (S / S_min - 1)(E / E_min - 1) = 1, with E = S B. Solve it for S.",
            ),
            Slip(
                math.hypot(_S_MIN, _E_MIN / _BATCH),
                "hypotenuse",
                "That is the root of the sum of squares of S_min and E_min / B.",
                "The law is (S / S_min - 1)(E / E_min - 1) = 1, with E = S B. Solve it for S.",
            ),
            Slip(
                (_S_MIN + _E_MIN / _BATCH) / 2,
                "mean",
                "That is the mean of S_min and E_min / B.",
                "They add up.",
            ),
            Slip(
                _S_MIN * _CRITICAL / _BATCH - _S_MIN,
                "minus",
                "That is S_min (B_crit / B - 1).",
                "Which sign has the 1 in S_min (1 + B_crit / B)?",
            ),
            Slip(
                1 + _CRITICAL / _BATCH,
                "factor-alone",
                "That is 1 + B_crit / B, by how many times S exceeds the least.",
                "By what is it multiplied?",
            ),
            Slip(
                _S_MIN * (1 + math.sqrt(_CRITICAL / _BATCH)),
                "root",
                "That has the root of B_crit / B.",
                "Below the critical batch, twice the batch needs half the steps.",
            ),
            Slip(
                _S_MIN / (1 + _BATCH / _CRITICAL),
                "divided",
                "That is S_min / (1 + B / B_crit): fewer steps than the least.",
                "1 / (1 + B_crit / B) is what a step gains. How many steps does that take?",
            ),
            Slip(
                _S_MIN / (1 + _CRITICAL / _BATCH),
                "gain-for-steps",
                "That is S_min / (1 + B_crit / B): fewer steps than the least.",
                "1 / (1 + B_crit / B) is what a step gains. How many steps does that take?",
            ),
        ),
        _below_both,
    ),
}
