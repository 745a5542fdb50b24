"""The number asked for in the exercises of notebook 01."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip

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
}
