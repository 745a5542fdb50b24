"""The judge of exercises that ask for a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from course_lib.checks.report import MISTAKE, OTHER_SPECIFICATION, Finding


@dataclass(frozen=True)
class Slip:
    """A number that a known slip leads to; ``kind`` as in a finding."""

    value: float
    code: str
    what: str
    hint: str
    kind: str = MISTAKE


@dataclass(frozen=True)
class Answer:
    """The right number, how close counts (relative), its unit in words (if it has one), and the usual slips."""

    value: float
    tolerance: float
    unit: str
    slips: tuple[Slip, ...]

    @property
    def asked(self) -> str:
        """What is asked for, in words."""
        return f"a number of {self.unit}" if self.unit else "a bare number"

    def said(self, number: float) -> str:
        """``number`` with its unit."""
        return f"{number:g} {self.unit}".rstrip()


_SAME = 5e-3  # relative: a slip is recognised though it was rounded to three digits
_NEAR = 5e-2  # relative: right, but for rounding

_LR, _WD, _P = 3e-4, 0.1, 7e9

ANSWERS: dict[str, Answer] = {
    "largest_lr": Answer(
        2 / 7,
        1e-3,
        "",
        (
            Slip(
                2 / 6,
                "largest-diagonal",
                "That is 2 over the larger diagonal entry: the curvature along the axis of b.",
                "The steepest direction of this bowl lies between the axes.",
            ),
            Slip(
                2 / 3,
                "smallest-diagonal",
                "That is 2 over the smaller diagonal entry: the curvature along the axis of a.",
                "Every start must converge, so the steepest direction decides.",
            ),
            Slip(
                1 / 7,
                "half-the-bound",
                "That is 1 / L, half of the bound: there the error along the steepest direction vanishes in one step. "
                "(It also comes out with the factor 1/2 of f forgotten, or with 2 over the determinant.)",
                "|1 - lr * L| < 1 holds further than to 1 / L.",
            ),
            Slip(
                2 / 9,
                "trace",
                "That is 2 / (L + mu), 2 over the trace: the step that converges fastest.",
                "Asked for is where convergence ends.",
            ),
            Slip(
                1.0,
                "smallest-eigenvalue",
                "That is 2 over the smaller eigenvalue.",
                "With this lr, what happens along the steepest direction?",
            ),
            Slip(
                1 / 2,
                "reciprocal-smallest",
                "That is 1 over the smaller eigenvalue.",
                "With this lr, what happens along the steepest direction?",
            ),
            Slip(7.0, "curvature", "That is L, the largest curvature itself.", "An lr times a curvature has no unit."),
            Slip(
                7 / 2,
                "upside-down",
                "That is L / 2, upside down (and the condition number besides).",
                "Does a steeper bowl allow a larger lr or a smaller one?",
            ),
            Slip(
                4 / (9 + math.sqrt(73)),
                "cross-term-doubled",
                "That comes from 4 in both off-diagonal places of H.",
                "x^T H x has the product ab twice: what is left for each place?",
            ),
            Slip(
                4 / (9 + math.sqrt(13)),
                "cross-term-halved",
                "That comes from 1 in both off-diagonal places of H.",
                "Second derivatives of f, not coefficients: what is d/da of df/db?",
            ),
        ),
    ),
    "coasting_distance": Answer(
        0.9,
        1e-3,
        "units of the parameter",
        (
            Slip(
                1.0,
                "last-step-counted",
                "That counts the last step that still had its gradient: lr * 10 / (1 - 0.9).",
                "At the first step without gradient the buffer is multiplied by 0.9 before it moves anything.",
            ),
            Slip(
                0.09,
                "first-step-only",
                "That is the first step without gradient alone, or a buffer that averages and so never exceeds 1.",
                "torch's buffer is a sum, and it takes many steps to fade.",
            ),
            Slip(
                0.1,
                "step-before",
                "That is one step while the gradient was still 1, or what a buffer that averages would coast, that "
                "step counted too.",
                "torch's buffer is a sum, and it takes many steps to fade.",
            ),
            Slip(
                0.01,
                "lr-alone",
                "That is lr: one step of plain gradient descent.",
                "What has the buffer grown to by then?",
            ),
            Slip(
                9.0,
                "lr-per-step",
                "That comes from lr 0.1, or is the first buffer without gradient.",
                "Each step is lr times the buffer.",
            ),
            Slip(
                90.0,
                "lr-forgotten",
                "That is the sum of the buffers: lr is missing.",
                "Each step is lr times the buffer.",
            ),
            Slip(
                100.0,
                "lr-forgotten-last-step-counted",
                "That is 10 / (1 - 0.9): lr is missing, and the last step with its gradient is counted.",
                "Each step is lr times the buffer as it is after its update.",
            ),
            Slip(
                10.0,
                "buffer",
                "That is the buffer itself, 1 / (1 - 0.9).",
                "How far do lr times it, and what follows, carry?",
            ),
            Slip(
                0.81,
                "first-step-missed",
                "That leaves out the first step without gradient.",
                "The sum 0.9 + 0.9^2 + ... starts at 0.9.",
            ),
            Slip(
                0.009,
                "buffer-of-one",
                "That is lr times 0.9: one step of a buffer that holds 1.",
                "torch's buffer is a sum; what does it come to when every gradient is 1?",
            ),
            Slip(
                0.0, "stops", "That would be a parameter that stops with its gradient.", "What is left in the buffer?"
            ),
            Slip(math.inf, "never-stops", "That would be a buffer that never fades.", "Sum 0.9 + 0.9^2 + 0.9^3 + ..."),
            Slip(
                -0.9,
                "signed",
                "That is the displacement, with its sign: the parameter moves against the gradient.",
                "A distance is positive.",
            ),
        ),
    ),
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
    "adam_state_bytes": Answer(
        8 * _P,
        1e-6,
        "bytes",
        (
            Slip(
                4 * _P,
                "one-moment",
                "That is one moment only, or both at two bytes each.",
                "How many numbers does Adam keep beside each parameter?",
            ),
            Slip(
                12 * _P,
                "with-master-copy",
                "That counts a float32 master copy of the weights too.",
                "Only m and v are asked for.",
            ),
            Slip(
                16 * _P,
                "whole-model-state",
                "That is the whole model state of mixed precision: weights, gradients, master copy, m and v.",
                "Only m and v are asked for.",
            ),
            Slip(2 * _P, "bytes-per-number", "That is two bytes per parameter.", "How many bytes is a float32?"),
            Slip(64 * _P, "bits", "That is the number of bits.", "Eight bits make a byte."),
            Slip(
                8 * _P / 1e9, "gigabytes", "That is right in GB; the answer is asked for in bytes.", "1 GB = 1e9 bytes."
            ),
            Slip(
                8 * _P / 2**30,
                "gibibytes",
                "That is right in GiB; the answer is asked for in bytes.",
                "1 GiB = 2^30 bytes.",
            ),
        ),
    ),
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


def judge_number(exercise: str, value: Any) -> list[Finding]:
    """The findings about ``value``, an answer to ``exercise``."""
    answer = ANSWERS[exercise]
    if value is None or value is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Put a number in its place.")]
    if isinstance(value, (bool, str)):
        return [
            Finding(
                "wrong-type",
                f"The answer is {answer.asked}; this is of type {type(value).__name__}: {value!r}.",
                "Give a plain number, without its unit.",
            )
        ]
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return [
            Finding(
                "wrong-type",
                f"The answer is {answer.asked}; this is of type {type(value).__name__}.",
                "Give a plain number.",
            )
        ]
    if math.isclose(number, answer.value, rel_tol=answer.tolerance):
        return []
    slip = min(answer.slips, key=lambda slip: 0.0 if number == slip.value else abs(number - slip.value))
    apart = not math.isclose(slip.value, answer.value, rel_tol=_NEAR)
    if math.isclose(number, slip.value, rel_tol=_SAME if apart else answer.tolerance):
        return [Finding(slip.code, f"{number:g}: {slip.what}", slip.hint, slip.kind)]
    if math.isclose(number, -answer.value, rel_tol=answer.tolerance):
        return [
            Finding("sign", f"{number:g}: the size is right, the sign is not.", "Which way is counted as positive?")
        ]
    if math.isclose(number, answer.value, rel_tol=_NEAR):
        return [
            Finding(
                "not-exact",
                f"{answer.said(number)} is close, but off by {100 * abs(number / answer.value - 1):.2g}%.",
                "Let Python work the formula out instead of typing a rounded number.",
            )
        ]
    if math.isfinite(number) and number:
        return [
            Finding(
                "wrong-number",
                f"{answer.said(number)} is {number / answer.value:.3g} times the right answer.",
                "Write the formula first, then the numbers.",
            )
        ]
    return [Finding("wrong-number", f"{answer.said(number)} is not it.", "Write the formula first, then the numbers.")]
