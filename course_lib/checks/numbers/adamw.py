"""The number asked for in the exercises of notebook 05."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip

_LR, _WD = 3e-4, 0.1

ANSWERS: dict[str, Answer] = {
    "decay_steps": Answer(
        -1 / math.log1p(-_LR * _WD),
        1e-3,
        "steps",
        (
            Slip(
                1 / _WD,
                "lr-forgotten",
                "That is 1 / weight_decay: the learning rate is missing.",
                "torch multiplies the decay by lr.",
            ),
            Slip(
                1 / _LR,
                "decay-forgotten",
                "That is 1 / lr: the weight decay is missing.",
                "What multiplies lr in the shrinking factor?",
            ),
            Slip(
                math.log(2) / (_LR * _WD),
                "half-life",
                "That is the half-life: the steps to shrink to one half.",
                "Here the weight shrinks to 1/e.",
            ),
            Slip(_LR * _WD, "rate", "That is the rate per step, not the number of steps.", "Take its reciprocal."),
            Slip(math.e / (_LR * _WD), "times-e", "That is e times too many.", "(1 - x)^n is about exp(-n x)."),
        ),
    ),
}
