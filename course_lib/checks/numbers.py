"""The judge of exercises that ask for a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from course_lib.checks.report import Finding


@dataclass(frozen=True)
class Slip:
    """A number that a known slip leads to."""

    value: float
    code: str
    what: str
    hint: str


@dataclass(frozen=True)
class Answer:
    """The right number, how close counts (relative), its unit in words, and the usual slips."""

    value: float
    tolerance: float
    unit: str
    slips: tuple[Slip, ...]


_LR, _WD, _P = 3e-4, 0.1, 7e9

ANSWERS: dict[str, Answer] = {
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
    if isinstance(value, bool) or isinstance(value, str):
        return [
            Finding(
                "wrong-type",
                f"The answer is a number of {answer.unit}; this is of type {type(value).__name__}: {value!r}.",
                "Give a plain number, without its unit.",
            )
        ]
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return [
            Finding(
                "wrong-type",
                f"The answer is a number of {answer.unit}; this is of type {type(value).__name__}.",
                "Give a plain number.",
            )
        ]
    if math.isclose(number, answer.value, rel_tol=answer.tolerance):
        return []
    for slip in answer.slips:
        if math.isclose(number, slip.value, rel_tol=5e-3):
            return [Finding(slip.code, f"{number:g}: {slip.what}", slip.hint)]
    if math.isfinite(number) and number:
        return [
            Finding(
                "wrong-number",
                f"{number:g} {answer.unit} is {number / answer.value:.3g} times the right answer.",
                "Write the formula first, then the numbers.",
            )
        ]
    return [
        Finding("wrong-number", f"{number:g} {answer.unit} is not it.", "Write the formula first, then the numbers.")
    ]
