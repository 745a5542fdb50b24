"""The number asked for in the exercises of notebook 02."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip

ANSWERS: dict[str, Answer] = {
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
}
