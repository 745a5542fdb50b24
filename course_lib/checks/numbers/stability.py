"""Numbers asked for in the exercises of notebook 08."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding

_BASE, _LAYERS = 0.02, 48

# The log of `first_symptom`: what each row shows that is not the beginning of the end.
_ROWS = (
    (
        1000,
        "start",
        (
            "Step 1000 is the end of the warmup: the gradient is large and often clipped, as it is in every young run, and the step is "
            "the longest because the rate has just reached its peak."
        ),
    ),
    (
        2000,
        "healthy",
        "At step 2000 all is well: loss and gradient norm fall, and the largest logit has grown from 7 to 9.",
    ),
    (
        3000,
        "slow-growth",
        "At step 3000 the logit has grown by 2 again, as it does every thousand steps: attention learns to choose. That is no trouble.",
    ),
    (
        4000,
        "bad-batch",
        (
            "Step 4000 met a bad batch: loss and gradient norm jump in the same step. The clip did its work, the step is no longer than "
            "before, and at 5000 every column is where it would have been. Another trouble, and over."
        ),
    ),
    (
        5000,
        "after-the-batch",
        "At step 5000 the bad batch has left no trace: every column goes on as it did before 4000.",
    ),
    (
        7000,
        "one-row-late",
        "At step 7000 the logit has doubled once more: 55, after 28. But from where to where had it gone in the row before?",
    ),
    (
        8000,
        "falling-norm",
        (
            "At step 8000 the gradient norm has halved while the loss hardly falls: softmax has become a hard choice, and its gradient "
            "vanishes. That is what large logits do; they began to grow before."
        ),
    ),
    (
        9000,
        "rule-of-thumb",
        (
            "Step 9000 is the first with a logit in the hundreds, the usual alarm. By then it had doubled four times: a rate of growth "
            "tells earlier than a threshold."
        ),
    ),
    (10_000, "plateau", "At step 10,000 the loss stands still and nothing else but the logits moves: the consequence."),
    (
        11_000,
        "loss-tells",
        "Step 11,000 is where the loss tells, and the length of the step: the last links of the chain. They are the last to know.",
    ),
    (12_000, "the-end", "Step 12,000 is the end itself. Which column left its course first?"),
)


def _no_row(number: float) -> Finding | None:
    if number in range(1, 13):
        return Finding(
            "row", f"{number:g} may be the number of a row.", "The step is asked for, as it stands in the first column."
        )
    return Finding(
        "not-in-the-log", f"{number:g} is no step of the log.", "Give a step as it stands in the first column."
    )


def _positive(number: float) -> Finding | None:
    if number > 0:
        return None
    return Finding(
        "no-deviation", f"{number:g}: a standard deviation lies above 0.", "It is 0.02, made smaller by the depth."
    )


ANSWERS: dict[str, Answer] = {
    "residual_std": Answer(
        _BASE / math.sqrt(2 * _LAYERS),
        1e-3,
        "",
        (
            Slip(
                _BASE / math.sqrt(_LAYERS),
                "one-branch-per-layer",
                "That counts one branch for each layer.",
                "How often does a block add to the residual stream?",
            ),
            Slip(
                _BASE,
                "not-scaled",
                "That is the standard deviation of all other matrices.",
                "What the branches add to the stream adds up over the depth: which matrices write into it?",
            ),
            Slip(
                _BASE / (2 * _LAYERS),
                "root-missing",
                "That divides by the number of branches, not by its root.",
                "Variances add up. What does that say about the deviation of each branch?",
            ),
            Slip(
                _BASE / _LAYERS,
                "root-missing-one-branch",
                "That divides by the number of layers.",
                "Variances add up, and a block has more than one branch.",
            ),
            Slip(
                _BASE * math.sqrt(0.5),
                "constant",
                "That multiplies by sqrt(0.5), the constant of convolutional sequence models (1705.03122).",
                "A constant cannot compensate depth: where do the 48 layers come in?",
            ),
            Slip(
                1 / math.sqrt(2 * _LAYERS),
                "factor-alone",
                "That is the factor alone, 1 / sqrt(96).",
                "By what is it multiplied?",
            ),
            Slip(
                _BASE**2 / (2 * _LAYERS),
                "variance",
                "That is the variance.",
                "The standard deviation is asked for: its root.",
            ),
            Slip(
                math.sqrt(_BASE / (2 * _LAYERS)),
                "base-as-variance",
                "That takes 0.02 for a variance.",
                "In GPT-2 it is the standard deviation.",
            ),
            Slip(
                _BASE * math.sqrt(2 * _LAYERS),
                "upside-down",
                "That makes the weights larger with depth.",
                "96 branches of equal variance make the stream's variance 97 times as large. Which way must they be scaled?",
            ),
            Slip(
                _BASE / math.sqrt(4 * _LAYERS),
                "all-matrices",
                "That counts four matrices in a block.",
                "Only those count that write into the stream: one in attention, one in the MLP.",
            ),
            Slip(
                _BASE / math.sqrt(6 * _LAYERS),
                "six-matrices",
                "That counts six matrices in a block: query, key, value, output and the two of the MLP.",
                "Only those count that write into the stream: one in attention, one in the MLP.",
            ),
            Slip(
                _BASE / math.sqrt(2 * _LAYERS + 1),
                "embedding-counted",
                "That counts the embedding among the branches.",
                "GPT-2 divides by the root of the number of branches.",
            ),
            Slip(
                _BASE / (2 * _LAYERS) ** 0.25,
                "fourth-root",
                "That is a fourth root of the number of branches.",
                "Each branch shall have 1 / 96 of the variance. And of the deviation?",
            ),
        ),
        _positive,
    ),
    "first_symptom": Answer(
        6000,
        1e-6,
        "",
        tuple(
            Slip(
                step,
                code,
                what,
                "Ask of each column how much it changes from row to row, and when that change itself changes.",
            )
            for step, code, what in _ROWS
        ),
        _no_row,
    ),
}
