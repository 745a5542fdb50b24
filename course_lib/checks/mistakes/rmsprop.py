"""RMSProp as a program, and the ways people get it wrong."""

from __future__ import annotations

import numpy as np

from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "alpha", "eps", "weight_decay")

RMSPROP: Program = {
    "h": lambda c: c.h,
    "active": lambda c: c.has,
    "t": lambda c: c.t + 1,
    "g": lambda c: c.g + c.h["weight_decay"] * c.p,
    "decayed": lambda c: c.p,
    "v": lambda c: c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * c.g**2,
    "v_used": lambda c: c.v,
    "denominator": lambda c: np.sqrt(c.v_used) + c.h["eps"],
    "update": lambda c: c.h["lr"] * c.g / c.denominator,
    "v_kept": lambda c: c.v,
    "p": lambda c: c.decayed - c.update,
}


def _raw(c):
    return c.g


_MISTAKES = (
    known("eps-inside-root", "an epsilon inside the square root, as TensorFlow's RMSProp has it", "Is eps added before or after the root?",
          kind=OTHER_SPECIFICATION, denominator=lambda c: np.sqrt(c.v_used + c.h["eps"])),
    known("eps-missing", "no epsilon", "What is the step where the gradient has always been zero?", denominator=lambda c: np.sqrt(c.v_used)),
    known("eps-hard-coded", "an epsilon of 1e-8 whatever the argument says", "Is the argument read?",
          denominator=lambda c: np.sqrt(c.v_used) + 1e-8),
    known("eps-as-floor", "an epsilon used as a floor: max(sqrt(v), eps)", "eps is added.",
          denominator=lambda c: np.maximum(np.sqrt(c.v_used), c.h["eps"])),
    known("eps-squared-inside-root", "an epsilon squared inside the root", "Is eps added before or after the root?",
          denominator=lambda c: np.sqrt(c.v_used + c.h["eps"] ** 2)),
    known("root-missing", "a division by v + eps: the root is missing", "Which units does the step have?",
          denominator=lambda c: c.v_used + c.h["eps"]),
    known("root-twice", "a fourth root of v", "Count the roots.", denominator=lambda c: c.v_used**0.25 + c.h["eps"]),
    known("v-gain-missing", "an average without (1 - alpha): `v = alpha * v + g**2`", "If every gradient were 1, where would v settle?",
          v=lambda c: c.h["alpha"] * c.v_kept + c.g**2),
    known("v-weights-swapped", "an average with its weights exchanged: `v = (1 - alpha) * v + alpha * g**2`",
          "Does alpha weigh the past or the present?", v=lambda c: (1 - c.h["alpha"]) * c.v_kept + c.h["alpha"] * c.g**2),
    known("v-forgets", "an average that forgets its past at every step", "Is v kept from one step to the next?",
          v=lambda c: (1 - c.h["alpha"]) * c.g**2),
    known("v-never-decays", "an average that never decays: `v += (1 - alpha) * g**2`", "What multiplies the old v?",
          v=lambda c: c.v_kept + (1 - c.h["alpha"]) * c.g**2),
    known("v-is-adagrad", "AdaGrad's sum of squares in place of the average", "A sum only grows. What does an average do with old squares?",
          v=lambda c: c.v_kept + c.g**2),
    known("v-not-squared", "an average of g instead of g squared", "What is averaged in v?",
          v=lambda c: c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * c.g),
    known("v-of-absolute", "an average of |g| instead of g squared", "What is averaged in v?",
          v=lambda c: c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * np.abs(c.g)),
    known("v-starts-full", "an average that starts at the first square instead of zero", "Where does torch's v start?", kind=OTHER_SPECIFICATION,
          v=lambda c: np.where(c.t == 1, c.g**2, c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * c.g**2)),
    known("v-corrected", "Adam's bias correction: v / (1 - alpha^t)", "RMSProp leaves the start uncorrected.", kind=OTHER_SPECIFICATION,
          v_used=lambda c: c.v / (1 - c.h["alpha"] ** c.t)),
    known("v-lags", "a denominator from before this gradient", "In which order do you update v and use it?", v_used=lambda c: c.v_kept),
    known("v-per-tensor", "one average for a whole tensor", "v has the parameter's shape.",
          v=lambda c: c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * c.mean(c.g**2)),
    known("alpha-hard-coded", "an alpha of 0.99 whatever the argument says", "Is the argument read?",
          v=lambda c: 0.99 * c.v_kept + 0.01 * c.g**2),
    known("alpha-hard-coded-90", "an alpha of 0.9 whatever the argument says", "Is the argument read?",
          v=lambda c: 0.9 * c.v_kept + 0.1 * c.g**2),
    known("multiplies", "a multiplication by the denominator", "Should a large v lengthen the step or shorten it?",
          update=lambda c: c.h["lr"] * c.g * c.denominator),
    known("sign-only", "a step of lr times the sign of the gradient", "Where did the denominator go?", update=lambda c: c.h["lr"] * np.sign(c.g)),
    known("lr-missing", "a step without the learning rate", "What scales the update?", update=lambda c: c.g / c.denominator),
    known("lr-twice", "a learning rate that is applied twice", "Count the factors lr.", update=lambda c: c.h["lr"] ** 2 * c.g / c.denominator),
    known("ascends", "a step uphill: the update is added", "Which way is down?", p=lambda c: c.decayed + c.update),
    known("decay-missing", "no weight decay", "Where does weight_decay enter?", g=_raw),
    known("decay-decoupled", "decoupled decay, as in AdamW", "This exercise's weight_decay is the L2 term of the loss.", g=_raw,
          kind=OTHER_SPECIFICATION, decayed=lambda c: c.p * (1 - c.h["lr"] * c.h["weight_decay"])),
    known("decay-not-in-v", "an L2 term in the numerator that the average does not see", "Which gradient is squared?",
          v=lambda c: c.h["alpha"] * c.v_kept + (1 - c.h["alpha"]) * (c.g - c.h["weight_decay"] * c.p) ** 2),
    known("decay-sign", "an L2 term with the wrong sign", "What is the gradient of the penalty?", g=lambda c: c.g - c.h["weight_decay"] * c.p),
    known("decay-doubled", "an L2 term of 2 * weight_decay * p", "torch's penalty is weight_decay / 2 times the squared norm.",
          g=lambda c: c.g + 2 * c.h["weight_decay"] * c.p),
    known("clips-values", "gradients clipped to [-1, 1] before use", "Clipping is the training loop's business.", g=lambda c: np.clip(c.g, -1, 1)),
)

FAMILY = Family(RMSPROP, ("p", "v", "v_kept"), (*_MISTAKES, *walking(HYPERS, counts_steps=False)))
