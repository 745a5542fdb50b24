"""Numbers asked for in the exercises of notebook 03."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import OTHER_SPECIFICATION

ANSWERS: dict[str, Answer] = {
    "adagrad_step": Answer(
        1e4,
        1e-6,
        "steps",
        (
            Slip(
                100,
                "like-one-over-t",
                "At step 100 the step is 10% of the first: this takes it to fall like 1 / t.",
                "The sum of squares grows like t. What is done to it before the division?",
            ),
            Slip(9_999, "counted-from-zero", "That is one short: steps are counted from 1.", "At step 1, t is 1."),
            Slip(10_001, "one-too-many", "That is one too many: the first step is step 1.", "At step 1, t is 1."),
            Slip(
                99,
                "like-one-over-t-from-zero",
                "That takes the step to fall like 1 / t, and counts from 0.",
                "The sum of squares grows like t. What is done to it before the division?",
            ),
            Slip(
                10,
                "root-instead-of-square",
                "That is the root of 100, not its square.",
                "1 / sqrt(t) = 1 / 100: solve for t.",
            ),
            Slip(
                1e8,
                "fourth-root",
                "That takes the step to fall like the fourth root of t.",
                "There is one root, over the sum of squares.",
            ),
            Slip(1e6, "tenth-of-a-percent", "That is where the step is 0.1% of the first.", "1% is one hundredth."),
            Slip(1, "constant", "The first step is 100% of itself.", "What is the sum of squares after t steps?"),
            Slip(
                math.inf,
                "never",
                "A step that falls like 1 / sqrt(t) gets below any bound.",
                "Solve 1 / sqrt(t) = 0.01.",
            ),
        ),
    ),
    "adadelta_first_step": Answer(
        math.sqrt(1e-6) / math.sqrt(0.1 + 1e-6),
        1e-3,
        "units of the parameter",
        (
            Slip(
                1e-3,
                "average-corrected",
                "That divides by sqrt(1): the average of squares is taken to be g^2 at once.",
                "The average starts at 0 and Adadelta corrects no bias: how much of g^2 is in it after one step?",
            ),
            Slip(
                1e-6 / math.sqrt(0.1),
                "eps-outside-root",
                "That has an epsilon outside the roots (or lr = 0.001, the default of old Keras, with it inside).",
                "eps is added before each root is taken; lr is 1.",
            ),
            Slip(
                1 / math.sqrt(0.1),
                "rmsprop",
                "That is 1 / sqrt(0.1), RMSProp's step: the upper root is missing.",
                "What stands in the place of the learning rate?",
            ),
            Slip(
                1e-3 / math.sqrt(0.9),
                "weights-swapped",
                "That puts 0.9 of the first square into the average.",
                "rho weighs the past: what is left for the new square?",
            ),
            Slip(
                1e-3 / math.sqrt(0.05),
                "paper-rho",
                "That is the first step with rho = 0.95, as in the paper's experiments.",
                "torch's default is rho = 0.9.",
                OTHER_SPECIFICATION,
            ),
            Slip(
                1e-5, "roots-missing", "That is eps / 0.1: the roots are missing.", "Adadelta divides a root by a root."
            ),
            Slip(
                1e-2,
                "lower-root-missing",
                "That is sqrt(eps) / 0.1: the lower root is missing.",
                "Adadelta divides a root by a root.",
            ),
            Slip(
                1.0,
                "lr",
                "That is lr: the first step of Adam, not of Adadelta.",
                "What stands above the fraction line before anything has moved?",
            ),
            Slip(0.1, "average", "That is the average of squares itself.", "The step is a ratio of two roots."),
            Slip(1e-6, "eps-alone", "That is eps.", "The step is a ratio of two roots."),
            Slip(
                math.sqrt(0.1) * 1e-3,
                "multiplied",
                "That multiplies by the lower root instead of dividing by it.",
                "The larger the gradients, the smaller the factor.",
            ),
            Slip(
                math.sqrt(1e-6 / (0.1 + 1e-6)) * 0.1,
                "gradient-averaged",
                "That applies 0.1 a second time, to the gradient.",
                "Adadelta has no momentum: only squares are averaged.",
            ),
            Slip(
                math.sqrt(0.1 + 1e-6) / math.sqrt(1e-6),
                "upside-down",
                "That is the lower root over the upper one, upside down.",
                "Larger gradients in the past make the step smaller: which average stands below?",
            ),
            Slip(
                0.0,
                "never-starts",
                "That leaves eps out of the upper root: nothing would ever move.",
                "What is eps for, above?",
            ),
            Slip(
                -math.sqrt(1e-6) / math.sqrt(0.1 + 1e-6),
                "signed",
                "That is the change of the parameter, with its sign.",
                "A length is positive.",
            ),
        ),
    ),
}
