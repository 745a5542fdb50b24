"""The number asked for in the exercises of notebook 04."""

from __future__ import annotations

from course_lib.checks.numbers.common import Answer, Slip

_P = 7e9

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
}
