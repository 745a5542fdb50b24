"""RMSProp as a program, and the ways people get it wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import DECAY, DENOMINATOR, END, GRADIENT, LR_MISSING, START, STEP, squares
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "alpha", "eps", "weight_decay")


def _average(c: SimpleNamespace, x: np.ndarray, old: np.ndarray | None = None) -> np.ndarray:
    return c.h["alpha"] * (c.v_kept if old is None else old) + (1 - c.h["alpha"]) * x


RMSPROP: Program = {
    **START,
    "v": lambda c: _average(c, c.g**2),
    "v_used": lambda c: c.v,
    "denominator": lambda c: np.sqrt(c.v_used) + c.h["eps"],
    "direction": lambda c: c.g / c.denominator,
    "v_kept": lambda c: c.v,
    **END,
}

_MISTAKES = (
    known("eps-inside-root", "an epsilon inside the square root, as TensorFlow's RMSProp has it",
          "Is eps added before or after the root?", kind=OTHER_SPECIFICATION,
          denominator=lambda c: np.sqrt(c.v_used + c.h["eps"])),
    known("v-gain-missing", "an average without (1 - alpha): `v = alpha * v + g**2`",
          "If every gradient were 1, where would v settle?", v=lambda c: c.h["alpha"] * c.v_kept + c.g**2),
    known("v-weights-swapped", "an average with its weights exchanged: `v = (1 - alpha) * v + alpha * g**2`",
          "Does alpha weigh the past or the present?",
          v=lambda c: (1 - c.h["alpha"]) * c.v_kept + c.h["alpha"] * c.g**2),
    known("v-forgets", "an average that forgets its past at every step", "Is v kept from one step to the next?",
          v=lambda c: (1 - c.h["alpha"]) * c.g**2),
    known("v-never-decays", "an average that never decays: `v += (1 - alpha) * g**2`", "What multiplies the old v?",
          v=lambda c: c.v_kept + (1 - c.h["alpha"]) * c.g**2),
    known("v-is-adagrad", "AdaGrad's sum of squares in place of the average",
          "A sum only grows. What does an average do with old squares?", v=lambda c: c.v_kept + c.g**2),
    known("v-starts-full", "an average that starts at the first square instead of zero", "Where does torch's v start?",
          kind=OTHER_SPECIFICATION, v=lambda c: np.where(c.t == 1, c.g**2, _average(c, c.g**2))),
    known("v-corrected", "Adam's bias correction: v / (1 - alpha^t)", "RMSProp leaves the start uncorrected.",
          kind=OTHER_SPECIFICATION, v_used=lambda c: c.v / (1 - c.h["alpha"] ** c.t)),
    known("alpha-hard-coded", "an alpha of 0.99 whatever the argument says", "Is the argument read?",
          v=lambda c: 0.99 * c.v_kept + 0.01 * c.g**2),
    known("alpha-hard-coded-90", "an alpha of 0.9 whatever the argument says", "Is the argument read?",
          v=lambda c: 0.9 * c.v_kept + 0.1 * c.g**2),
    known("plain-descent", "plain gradient descent: lr times the gradient, which nothing divides", "What is v for?",
          direction=lambda c: c.g),
)

FAMILY = Family(
    RMSPROP,
    ("p", "v", "v_kept"),
    (
        *_MISTAKES, *DENOMINATOR, *squares("average", _average), *STEP, LR_MISSING, *DECAY, *GRADIENT,
        *walking(HYPERS, counts_steps=False),
    ),
)
