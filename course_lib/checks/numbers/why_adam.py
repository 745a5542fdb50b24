"""Numbers asked for in the exercises of notebook 06."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding

# The runs of `edge_of_the_grid`, in the order in which they were made: batch, optimizer, learning rate, loss.
RUNS = (
    (16384, "Adam", 0.1, 0.0062),
    (16384, "SGD", 40.0, 0.0411),
    (1024, "Adam", 0.2, 0.1297),
    (1024, "SGD", 10.0, 0.1751),
    (16384, "SGD", 80.0, 0.0178),
    (1024, "Adam", 0.1, 0.0817),
    (16384, "Adam", 0.4, 0.0144),
    (1024, "SGD", 20.0, 0.1032),
    (16384, "SGD", 160.0, 0.0539),
    (1024, "Adam", 0.05, 0.1343),
    (16384, "Adam", 0.05, 0.0337),
    (1024, "SGD", 5.0, 0.2735),
    (16384, "SGD", 20.0, 0.0888),
    (1024, "Adam", 0.4, 0.1729),
    (16384, "Adam", 0.2, 0.0099),
    (1024, "SGD", 2.5, 0.3859),
)


def _no_rate(number: float) -> Finding:
    """About a number that no slip leads to, as the answer to ``edge_of_the_grid``."""
    batches, _, rates, losses = map(set, zip(*RUNS, strict=True))
    for numbers, what in ((batches, "batch size"), (losses, "loss")):
        if number in numbers:
            return Finding(
                "another-column", f"{number:g} is a {what} of the list.", "Asked for is the learning rate of a run."
            )
    if number in rates:
        return Finding(
            "not-the-best",
            f"{number:g} lies inside its row and is not the best of it.",
            "Sort the runs into four rows, one for each batch and optimizer, by rate. Where is each row's best?",
        )
    return Finding(
        "not-in-the-list",
        f"No run of the list has the learning rate {number:g}.",
        "Sort the runs into four rows, one for each batch and optimizer, by rate. Where is each row's best?",
    )


def _no_whole_step(number: float) -> Finding | None:
    """About a number that no slip leads to, as the answer to ``zipf_half``."""
    if number == int(number):
        return None
    return Finding(
        "not-whole",
        f"{number:g}: nobody makes a part of a step.",
        "After how many whole steps is at most half of the error left for the first time?",
    )


ANSWERS: dict[str, Answer] = {
    "zipf_half": Answer(
        693,
        1e-9,
        "steps",
        (
            Slip(
                math.log(0.5) / math.log1p(-1e-3),
                "between-two-steps",
                "That is where the curve crosses one half, between two steps.",
                "Steps are whole: after how many is at most half of the error left for the first time?",
            ),
            Slip(
                1000 * math.log(2),
                "limit-of-small-rates",
                "That is 1000 ln 2, from (1 - 1/1000)^t = exp(-t / 1000), which is nearly true.",
                "Solve with ln(1 - 1/1000) itself, and mind that steps are whole.",
            ),
            Slip(
                692,
                "one-too-few",
                "After 692 steps a little more than half is left.",
                "Round up: the error is to be halved.",
            ),
            Slip(
                694,
                "one-too-many",
                "After 694 steps it is halved, but it was so before. (Counted from 0, token 1000 would have frequency "
                "1/1001; here the first token is number 1.)",
                "Which is the first step after which at most half is left?",
            ),
            Slip(
                347,
                "loss-halved",
                "That is when the loss is halved, which is the error squared; or it is the error with lr = 2 / "
                "(largest curvature), at which the first token no longer learns.",
                "The error is multiplied by 1 - lr * curvature at each step; lr is 1 / (largest curvature).",
            ),
            Slip(
                500,
                "straight-line",
                "That would be an error that falls by a thousandth of its first value at each step.",
                "Each step takes a thousandth of what is left.",
            ),
            Slip(
                1000,
                "to-one-in-e",
                "That is when 1/e of the error is left.",
                "(1 - 1/1000)^t = 1/2: take logarithms on both sides.",
            ),
            Slip(
                301,
                "other-logarithm",
                "That is 1000 times the decimal logarithm of 2.",
                "`math.log` is the natural one. The same logarithm belongs on both sides.",
            ),
            Slip(
                1,
                "own-rate",
                "That would be a rate of the token's own, 1 / (its curvature), or the most frequent token.",
                "There is one rate for all tokens, and the most frequent one sets it.",
            ),
            Slip(
                7900,
                "rate-of-one",
                "That is with lr = 1: the frequency of token 1000 is 1 / (1000 * 11.4), where 11.4 is the sum of 1/k.",
                "With lr = 1 / (largest curvature) that sum falls out.",
            ),
        ),
        _no_whole_step,
    ),
    "edge_of_the_grid": Answer(
        20,
        1e-9,
        "",
        (
            Slip(
                80,
                "inside-sgd",
                "80 is SGD's best rate at batch 16,384, and both neighbours were tried: 40 and 160 are worse.",
                "A best rate is safe if a smaller and a larger one were tried and are worse. For which is that not so?",
            ),
            Slip(
                160,
                "end-but-not-best",
                "160 is the end of a row, but the best of that row is 80.",
                "Find the best of each row first; then ask whether it is an end.",
            ),
            Slip(
                0.1,
                "inside-adam",
                "0.1 is Adam's best rate at both batches, with 0.05 and 0.2 tried beside it.",
                "A best rate is safe if a smaller and a larger one were tried and are worse. For which is that not so?",
            ),
            Slip(
                0.4,
                "end-but-not-best-adam",
                "0.4 is the largest rate of Adam's rows, but no best one.",
                "Find the best of each row first; then ask whether it is an end.",
            ),
            Slip(
                0.05,
                "smallest-rate",
                "0.05 is the smallest rate of Adam's rows, but no best one.",
                "Find the best of each row first; then ask whether it is an end.",
            ),
            Slip(
                2.5,
                "worst-run",
                "2.5 gives the worst loss of the list. A bad run is nothing unfair, if better ones are beside it.",
                "Which *best* result could have been better, had the next rate been tried?",
            ),
        ),
        _no_rate,
    ),
}
