"""Numbers asked for in the exercises of notebook 11."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding

# The log of `underflow_step`: what each row shows that is not the first underflow.
_ROWS = (
    (1000, "healthy", "At step 1000 all is well: 3% of zeros are the embedding rows that the batch did not use."),
    (2000, "healthy-still", "At step 2000 loss and scale have moved on; there are no more zeros than at the start."),
    (
        3000,
        "one-overflow",
        (
            "Step 3000 comes after one overflow: one step skipped, the scale halved. That is how the scaler finds its place. "
            "There are no more zeros than before."
        ),
    ),
    (
        4000,
        "overflows",
        (
            "Step 4000 comes after a spike: twelve more steps skipped, the scale cut to 64. But the gradients are a hundred "
            "times larger, so even this scale loses hardly any: the zeros are still 3%."
        ),
    ),
    (6000, "one-row-late", "At step 6000 29% are zero, but 23% were already one row before."),
    (
        7000,
        "worst",
        "Step 7000 is where most are zero, and where the loss has stalled: the consequence. They began to vanish before.",
    ),
    (
        8000,
        "recovers",
        "At step 8000 the scale has grown and fewer are zero: it is getting better.",
    ),
)

# What else stands in the log: scales, shares in per cent.
_SCALES, _SHARES = (131_072, 262_144, 64, 32, 128, 256), (3, 23, 29, 34, 27)


def _no_scale(number: float) -> Finding:
    """About a number that no slip leads to, as the answer to ``smallest_scale``."""
    if number <= 0:
        return Finding("no-scale-at-all", f"{number:g}: a scale lies above 0.", "By what may a loss be multiplied?")
    if math.frexp(number)[0] != 0.5:
        return Finding(
            "no-power-of-two",
            f"{number:g} is no power of two.",
            "Which numbers does 1e-8 have to pass so that it is not rounded to 0? Then take a power of two.",
        )
    if number < 1:
        return Finding(
            "smaller-still",
            f"{number:g} makes the gradient smaller still.",
            "The loss is multiplied by the scale before backward.",
        )
    if number > 2**42:
        return Finding(
            "overflows",
            f"With {number:g} the gradient is beyond 65504, fp16's largest number.",
            "The smallest scale is asked for: look at the other end of the format.",
        )
    return Finding(
        "larger-than-needed",
        f"With {number:g} the gradient is {number * 1e-8:.2g}: it survives, but a smaller scale does it.",
        "Which is the smallest number that fp16 does not round to 0?",
    )


def _no_frozen_step(number: float) -> Finding | None:
    """About a number that no slip leads to, as the answer to ``frozen_step``."""
    if not 0 < number < 1:
        return Finding(
            "no-step", f"{number:g}: the step lies between 0 and 1.", "Which step away from 1 is rounded away?"
        )
    if number > 2**-9:
        return Finding(
            "moves",
            f"With a step of {number:g} the weight moves: 1 - {number:g} is rounded to a number below 1.",
            "Round to nearest: how far may a number lie from 1 and still round to it?",
        )
    if number > 0.99 * 2**-9:
        return Finding(
            "tie-thought-to-move",
            f"A step of {number:.6g} is lost, but a slightly larger one is, too: the one that ends in the very middle.",
            "A tie goes to the even number: of the two beside the middle, which has a last bit of 0?",
        )
    return Finding(
        "larger-is-lost-too",
        f"A step of {number:g} is lost, but a larger one is, too.",
        "Which is the next number below 1, and from which point on does a number round to it?",
    )


def _no_row(number: float) -> Finding:
    """About a number that is no row's step."""
    for numbers, what in ((_SCALES, "a scale"), (_SHARES, "a share of zeros"), ([x / 100 for x in _SHARES], "a share")):
        if number in numbers:
            return Finding(
                "another-column",
                f"{number:g} is {what} of the log.",
                "The step is asked for, as it stands in the first column.",
            )
    return Finding(
        "no-row",
        f"The log has no row for step {number:g}.",
        "It has one every thousand steps. In which does the column of zero gradients leave its 3%?",
    )


ANSWERS: dict[str, Answer] = {
    "smallest_scale": Answer(
        4,
        1e-9,
        "",
        (
            Slip(
                8,
                "to-the-smallest-subnormal",
                "That lifts 1e-8 above the smallest fp16 number, 2^-24 = 5.96e-8.",
                "What does a number between half of 2^-24 and 2^-24 round to?",
            ),
            Slip(
                2,
                "one-power-short",
                "That gives 2e-8, less than half of the smallest fp16 number: it rounds to zero. (Or 2 is the exponent: "
                "the scale itself is asked for.)",
                "Halfway between 0 and 2^-24 lies 2^-25 = 2.98e-8.",
            ),
            Slip(
                1,
                "no-scale",
                "A scale of 1 changes nothing, and fp16(1e-8) is 0. (In bf16 it is not: bf16 has the exponents of fp32.)",
                "What is the smallest number above zero in fp16?",
            ),
            Slip(
                2**-25 / 1e-8,
                "not-a-power-of-two",
                "That is 2^-25 / 1e-8, the bound itself.",
                "Which power of two is the first above it?",
            ),
            Slip(
                2**-24 / 1e-8,
                "ratio-to-the-smallest-subnormal",
                "That is 2^-24 / 1e-8: no power of two, and made for 2^-24 itself.",
                "What does a number between half of 2^-24 and 2^-24 round to? Then take the next power of two.",
            ),
            Slip(3, "exponent", "That is the exponent of 8.", "The scale itself is asked for; and is 8 the smallest?"),
            Slip(
                16,
                "one-power-too-many",
                "With 16 the gradient is 1.6e-7: it survives, but a smaller scale does it.",
                "Which is the smallest number that does not round to zero?",
            ),
            Slip(
                2**-14 / 1e-8,
                "ratio-to-the-smallest-normal",
                "That is 2^-14 / 1e-8: no power of two, and made for the smallest normal number.",
                "fp16 has numbers below 2^-14, with fewer digits: the subnormal ones.",
            ),
            Slip(
                8192,
                "to-the-smallest-normal",
                "That lifts 1e-8 above 2^-14, the smallest normal number: there it has all its digits.",
                "Asked for is only that it is not zero. fp16 has subnormal numbers below 2^-14.",
            ),
            Slip(
                16_384,
                "reciprocal-of-the-smallest-normal",
                "That is 1 / 2^-14, or one power above what makes 1e-8 a normal number.",
                "fp16 has numbers below 2^-14, with fewer digits: the subnormal ones.",
            ),
            Slip(
                4096,
                "nearly-normal",
                "That gives 4.1e-5, nearly the smallest normal number, 2^-14 = 6.1e-5: it has all digits but one.",
                "Asked for is only that it is not zero. fp16 has subnormal numbers below 2^-14.",
            ),
            Slip(
                1024,
                "reciprocal-of-epsilon",
                "That is 1 over fp16's epsilon, 2^-10.",
                "Epsilon is the spacing at 1. Which is the spacing at 0?",
            ),
            Slip(
                131_072,
                "to-epsilon",
                "That lifts 1e-8 above 2^-10, which is fp16's epsilon.",
                "Epsilon is the spacing at 1. Which is the spacing at 0?",
            ),
            Slip(
                65_536,
                "the-default",
                "That is where GradScaler starts.",
                "It leaves room below. Which is the smallest that does?",
            ),
            Slip(
                2**24,
                "to-one-from-the-smallest",
                "That is 1 / 2^-24: what lifts the smallest fp16 number to 1.",
                "The gradient is 1e-8, and it need only not be zero.",
            ),
            Slip(
                2**27,
                "to-one",
                "That lifts 1e-8 above 1.",
                "fp16 has numbers far below 1: which is the smallest?",
            ),
            Slip(1e8, "reciprocal", "That is 1 / 1e-8.", "fp16 has numbers far below 1: which is the smallest?"),
            Slip(
                2**42,
                "the-largest",
                "That is the largest power of two with which 1e-8 does not overflow.",
                "The smallest is asked for: look at the other end of the format.",
            ),
            Slip(
                0.25,
                "upside-down",
                "That makes the gradient smaller still.",
                "The loss is multiplied by the scale before backward.",
            ),
        ),
        _no_scale,
    ),
    "frozen_step": Answer(
        2**-9,
        1e-3,
        "",
        (
            Slip(
                2**-8,
                "spacing-below",
                "That is the spacing of bf16 just below 1 (and half of that above): such a step arrives at the next "
                "number.",
                "Round to nearest: how far may a number lie from 1 and still round to it?",
            ),
            Slip(
                2**-7,
                "epsilon",
                "That is bf16's epsilon, the spacing just above 1.",
                "This step goes downwards. Which is the spacing there, and which part of it is rounded away?",
            ),
            Slip(
                2**-10,
                "half-too-small",
                "A step of 2^-10 is lost, but a larger one is, too.",
                "Which spacing is there just below 1, and what becomes of a tie?",
            ),
            Slip(
                2**-12,
                "of-fp16",
                "That is the answer for fp16.",
                "bf16 has 7 bits behind the point, fp16 has 10.",
            ),
            Slip(
                2**-11,
                "of-fp16-upwards",
                "That is the answer for fp16 and a step upwards (or fp16's spacing below 1).",
                "bf16 has 7 bits behind the point, and just below 1 its numbers lie closer than above.",
            ),
            Slip(
                2**-25,
                "of-fp32",
                "That is the answer for fp32.",
                "bf16 has 7 bits behind the point, fp32 has 23.",
            ),
            Slip(
                2**-24,
                "of-fp32-upwards",
                "That is the answer for fp32 and a step upwards.",
                "bf16 has 7 bits behind the point, fp32 has 23.",
            ),
            Slip(
                1 - 2**-9,
                "the-weight",
                "That is the point halfway to the next number, not the step that leads there.",
                "How far is it from 1?",
            ),
            Slip(
                1 - 2**-8,
                "the-next-number",
                "That is the largest bf16 number below 1.",
                "How far is it from 1, and from which point on does a number round to 1?",
            ),
            Slip(
                2**-6,
                "twice-epsilon",
                "That is twice bf16's epsilon.",
                "Of the 8 bits of a bf16 significand, 7 stand behind the point.",
            ),
            Slip(
                2**-16,
                "bits-cut",
                "That counts the 16 bits that bf16 cuts from fp32.",
                "Count the bits that are left: 7 behind the point.",
            ),
            Slip(
                -9,
                "exponent",
                "That is the exponent.",
                "The step itself is asked for: two to that power.",
            ),
            Slip(512, "upside-down", "That is 1 over the step.", "The step itself is asked for; the weight is 1."),
            Slip(9, "exponent-unsigned", "That is the exponent, without its sign.", "The step itself is asked for."),
            Slip(
                0.0,
                "none",
                "That would be a format without rounding.",
                "Try it: `torch.tensor(1.0, dtype=torch.bfloat16) - 1e-3`.",
            ),
        ),
        _no_frozen_step,
    ),
    "underflow_step": Answer(
        5000,
        1e-9,
        "steps",
        (
            *(
                Slip(step, code, what, "Which column counts gradients that are zero, and when does it leave its 3%?")
                for step, code, what in _ROWS
            ),
            Slip(
                5, "row", "That is the number of the row.", "The step is asked for, as it stands in the first column."
            ),
            Slip(
                4,
                "row-from-zero",
                "That is the number of a row, counted from 0.",
                "The step is asked for, as it stands in the first column.",
            ),
            Slip(
                0,
                "never",
                "They do underflow.",
                "Which column counts gradients that are zero, and when does it leave its 3%?",
            ),
        ),
        _no_row,
    ),
}
