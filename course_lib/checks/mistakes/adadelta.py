"""Adadelta as a program, and the ways people get it wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import DECAY, END, GRADIENT, START, STEP, squares
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "rho", "eps", "weight_decay")


def _eps(c: SimpleNamespace) -> np.ndarray:
    return c.h["eps"]


def _average(c: SimpleNamespace, x: np.ndarray, old: np.ndarray | None = None) -> np.ndarray:
    return c.h["rho"] * (c.v_kept if old is None else old) + (1 - c.h["rho"]) * x


def _of_updates(c: SimpleNamespace, x: np.ndarray) -> np.ndarray:
    return c.h["rho"] * c.u_kept + (1 - c.h["rho"]) * x


ADADELTA: Program = {
    **START,
    "v": lambda c: _average(c, c.g**2),
    "v_used": lambda c: c.v,
    "u_used": lambda c: c.u_kept,
    "numerator": lambda c: np.sqrt(c.u_used + _eps(c)),
    "denominator": lambda c: np.sqrt(c.v_used + _eps(c)),
    "direction": lambda c: c.numerator / c.denominator * c.g,
    "u": lambda c: _of_updates(c, c.direction**2),
    "v_kept": lambda c: c.v,
    "u_kept": lambda c: c.u,
    "last_kept": lambda c: c.direction,
    **END,
}


def _step_after_update(c: SimpleNamespace) -> np.ndarray:
    return c.h["lr"] * np.sqrt(c.u + _eps(c)) / c.denominator * c.g


def _both(**values: float):
    rho = values["rho"]
    return {
        "v": lambda c: rho * c.v_kept + (1 - rho) * c.g**2,
        "u": lambda c: rho * c.u_kept + (1 - rho) * c.direction**2,
    }


_UNDERSCORE = "Which of your operations end in an underscore?"
_EPS = "Is eps added before or after the root, and to which of the two averages?"
_UNITS = "Which units does the step have: those of the parameter?"
_NUMERATOR = (
    known("lr-missing", "Adadelta as in Zeiler's paper, which has no learning rate: the same as lr = 1",
          "torch multiplies the update by lr.", kind=OTHER_SPECIFICATION, step=lambda c: c.direction),
    known("numerator-missing", "no average of updates in the numerator: RMSProp", _UNITS,
          numerator=lambda c: np.ones_like(c.p)),
    known("numerator-root-missing", "a numerator without its root: (u + eps) / sqrt(v + eps)", _UNITS,
          numerator=lambda c: c.u_used + _eps(c)),
    known("denominator-root-missing", "a denominator without its root: sqrt(u + eps) / (v + eps)", _UNITS,
          denominator=lambda c: c.v_used + _eps(c)),
    known("roots-missing", "a fraction without roots: (u + eps) / (v + eps)", _UNITS,
          numerator=lambda c: c.u_used + _eps(c), denominator=lambda c: c.v_used + _eps(c)),
    known("fraction-inverted", "a fraction upside down: the average of gradients above, that of updates below", _UNITS,
          direction=lambda c: c.denominator / c.numerator * c.g),
    known("multiplies", "a product of the two roots instead of their quotient",
          "Should a large v lengthen the step or shorten it?", direction=lambda c: c.numerator * c.denominator * c.g),
    known("denominator-missing", "a numerator that nothing divides", "What is v for?",
          denominator=lambda c: np.ones_like(c.p)),
    known("gradient-missing", "a step of the two roots' quotient without the gradient",
          "Where does the direction come from?", direction=lambda c: c.numerator / c.denominator),
    known("plain-descent", "plain gradient descent: either nothing divides the gradient, or both averages are always "
          "equal, because they are one tensor under two names, because the average of updates is fed with the squared "
          "gradient before it is used, or because the denominator is from before this gradient",
          "Print both averages after two steps.", direction=lambda c: c.g),
    known("eps-outside-roots", "an epsilon outside both roots: (sqrt(u) + eps) / (sqrt(v) + eps)", _EPS,
          numerator=lambda c: np.sqrt(c.u_used) + _eps(c), denominator=lambda c: np.sqrt(c.v_used) + _eps(c)),
    known("eps-outside-numerator-root", "an epsilon outside the root of the numerator", _EPS,
          numerator=lambda c: np.sqrt(c.u_used) + _eps(c)),
    known("eps-outside-denominator-root", "an epsilon outside the root of the denominator, as in torch's RMSprop", _EPS,
          denominator=lambda c: np.sqrt(c.v_used) + _eps(c)),
    known("eps-in-numerator-only", "an epsilon in the numerator only", _EPS, denominator=lambda c: np.sqrt(c.v_used)),
    known("eps-missing", "no epsilon", "How long is the very first step if nothing is added to the average of updates?",
          numerator=lambda c: np.sqrt(c.u_used), denominator=lambda c: np.sqrt(c.v_used)),
    known("eps-squared", "an epsilon squared inside the roots", _EPS,
          numerator=lambda c: np.sqrt(c.u_used + _eps(c) ** 2), denominator=lambda c: np.sqrt(c.v_used + _eps(c) ** 2)),
    known("eps-hard-coded", "an epsilon of 1e-6 whatever the argument says", "Is the argument read?",
          numerator=lambda c: np.sqrt(c.u_used + 1e-6), denominator=lambda c: np.sqrt(c.v_used + 1e-6)),
    known("eps-hard-coded-8", "an epsilon of 1e-8 whatever the argument says", "Is the argument read?",
          numerator=lambda c: np.sqrt(c.u_used + 1e-8), denominator=lambda c: np.sqrt(c.v_used + 1e-8)),
    known("eps-as-floor", "an epsilon used as a floor under both roots: max(u, eps) and max(v, eps)", "eps is added.",
          numerator=lambda c: np.sqrt(np.maximum(c.u_used, _eps(c))),
          denominator=lambda c: np.sqrt(np.maximum(c.v_used, _eps(c)))),
    known("eps-twice", "an epsilon inside the roots and outside them", "One eps is enough; which one?",
          numerator=lambda c: np.sqrt(c.u_used + _eps(c)) + _eps(c),
          denominator=lambda c: np.sqrt(c.v_used + _eps(c)) + _eps(c)),
    known("root-twice", "a fourth root of the quotient", "Count the roots.",
          direction=lambda c: np.sqrt(c.numerator / c.denominator) * c.g),
)
_UPDATES = (
    known("u-leads",
          "a numerator that has seen this step's update already: the average is brought up to date before it is used",
          "In which order do you use the average of updates and renew it?", step=_step_after_update),
    known("u-lags", "an average of updates that is one step late: it takes in the update before this one",
          "Which update goes into the average at the end of a step?", u=lambda c: _of_updates(c, c.last_kept**2)),
    known("u-of-scaled-update", "an average of (lr * update) squared: the learning rate is inside",
          "Is the update that is remembered the one before lr or after it?",
          u=lambda c: _of_updates(c, (c.h["lr"] * c.direction) ** 2)),
    known("u-of-gradient", "an average of squared gradients where that of squared updates should be",
          "Whose squares stand in the numerator?", u=lambda c: _of_updates(c, c.g**2)),
    known("u-of-product", "an average of gradient times update where that of squared updates should be",
          "Whose squares stand in the numerator?", u=lambda c: _of_updates(c, c.g * c.direction)),
    known("u-of-parameter", "an average of squared parameters where that of squared updates should be",
          "Whose squares stand in the numerator?", u=lambda c: _of_updates(c, c.p**2)),
    known("u-of-absolute", "an average of |update| instead of its square", "What is averaged in the numerator?",
          u=lambda c: _of_updates(c, np.abs(c.direction))),
    known("u-not-squared", "an average of the update instead of its square", "What is averaged in the numerator?",
          u=lambda c: _of_updates(c, c.direction)),
    known("u-never-renewed", "an average of updates that stays at zero: the numerator is sqrt(eps) for ever",
          "When does the average of updates change?", u=lambda c: c.u_kept),
    known("u-gain-missing", "an average of updates without (1 - rho)", "If every update were 1, where would it settle?",
          u=lambda c: c.h["rho"] * c.u_kept + c.direction**2),
    known("u-weights-swapped", "an average of updates with its weights exchanged",
          "Does rho weigh the past or the present?",
          u=lambda c: (1 - c.h["rho"]) * c.u_kept + c.h["rho"] * c.direction**2),
    known("u-forgets", "an average of updates that forgets its past at every step",
          "Is it kept from one step to the next?", u=lambda c: (1 - c.h["rho"]) * c.direction**2),
    known("u-never-decays", "an average of updates that never decays", "What multiplies the old average?",
          u=lambda c: c.u_kept + (1 - c.h["rho"]) * c.direction**2),
    known("u-is-sum", "a sum of squared updates in place of the average", "What multiplies the old average?",
          u=lambda c: c.u_kept + c.direction**2),
    known("u-starts-at-one", "an average of updates that starts at one", "Where do both averages start?",
          u_used=lambda c: np.where(c.t == 1, 1.0, c.u_kept),
          u=lambda c: c.h["rho"] * c.u_used + (1 - c.h["rho"]) * c.direction**2),
    known("u-starts-at-eps", "an average of updates that starts at eps", "Where do both averages start?",
          u_used=lambda c: np.where(c.t == 1, _eps(c), c.u_kept),
          u=lambda c: c.h["rho"] * c.u_used + (1 - c.h["rho"]) * c.direction**2),
    known("u-per-tensor", "one average of updates for a whole tensor", "Both averages have the parameter's shape.",
          u=lambda c: _of_updates(c, c.mean(c.direction**2))),
    known("u-holds-eps", "an average of updates that keeps the eps added to it for the numerator", _UNDERSCORE,
          u=lambda c: c.h["rho"] * (c.u_kept + _eps(c)) + (1 - c.h["rho"]) * c.direction**2),
    known("v-holds-eps", "an average of gradients that keeps the eps added to it for the denominator", _UNDERSCORE,
          v_kept=lambda c: c.v + _eps(c)),
    known("u-keeps-root", "a numerator that is stored back in place of the average of updates", _UNDERSCORE,
          u=lambda c: c.h["rho"] * c.numerator + (1 - c.h["rho"]) * c.direction**2),
    known("u-keeps-its-root", "a root that is stored back: the average of updates is replaced by its square root at every "
          "step", "Of what is the root taken, and what is kept?", u=lambda c: np.sqrt(_of_updates(c, c.direction**2))),
    known("u-is-update", "an update that is computed in the memory of the average of updates", _UNDERSCORE,
          u=lambda c: c.h["rho"] * c.direction + (1 - c.h["rho"]) * c.direction**2),
    known("v-keeps-denominator", "a denominator that is stored back in place of the average of gradients", _UNDERSCORE,
          v_kept=lambda c: c.denominator),
)
_GRADIENTS = (
    known("v-gain-missing", "an average of gradients without (1 - rho): `v = rho * v + g**2`",
          "If every gradient were 1, where would v settle?", v=lambda c: c.h["rho"] * c.v_kept + c.g**2),
    known("v-weights-swapped", "an average of gradients with its weights exchanged: `v = (1 - rho) * v + rho * g**2`",
          "Does rho weigh the past or the present?", v=lambda c: (1 - c.h["rho"]) * c.v_kept + c.h["rho"] * c.g**2),
    known("rho-swapped", "averages with their weights exchanged, both: `(1 - rho) * old + rho * new`",
          "Does rho weigh the past or the present?", v=lambda c: (1 - c.h["rho"]) * c.v_kept + c.h["rho"] * c.g**2,
          u=lambda c: (1 - c.h["rho"]) * c.u_kept + c.h["rho"] * c.direction**2),
    known("gains-missing", "averages without (1 - rho), both: `rho * old + new`",
          "If every gradient were 1, where would v settle?", v=lambda c: c.h["rho"] * c.v_kept + c.g**2,
          u=lambda c: c.h["rho"] * c.u_kept + c.direction**2),
    known("v-forgets", "an average of gradients that forgets its past at every step",
          "Is v kept from one step to the next?", v=lambda c: (1 - c.h["rho"]) * c.g**2),
    known("v-never-decays", "an average of gradients that never decays: `v += (1 - rho) * g**2`",
          "What multiplies the old v?", v=lambda c: c.v_kept + (1 - c.h["rho"]) * c.g**2),
    known("v-is-adagrad", "AdaGrad's sum of squares in place of the average",
          "A sum only grows. What does an average do with old squares?", v=lambda c: c.v_kept + c.g**2),
    known("v-starts-full", "an average of gradients that starts at the first square instead of zero",
          "Where do both averages start?", v=lambda c: np.where(c.t == 1, c.g**2, _average(c, c.g**2))),
    known("v-corrected", "Adam's bias correction: v / (1 - rho^t)", "Adadelta leaves the start uncorrected.",
          v_used=lambda c: c.v / (1 - c.h["rho"] ** c.t)),
    known("both-corrected", "Adam's bias correction of both averages: u / (1 - rho^t) and v / (1 - rho^t)",
          "Adadelta leaves the start uncorrected.", u_used=lambda c: c.u_kept / (1 - c.h["rho"] ** c.t),
          v_used=lambda c: c.v / (1 - c.h["rho"] ** c.t)),
    known("rho-hard-coded", "a rho of 0.9 whatever the argument says", "Is the argument read?", **_both(rho=0.9)),
    known("rho-hard-coded-95", "a rho of 0.95, Zeiler's and Keras's, whatever the argument says",
          "Is the argument read?", **_both(rho=0.95)),
    known("rho-hard-coded-99", "a rho of 0.99 whatever the argument says", "Is the argument read?", **_both(rho=0.99)),
)
# A denominator from before this gradient is plain descent here, and eps stands under the root.
_SQUARES = tuple(mistake for mistake in squares("average", _average) if mistake.code not in ("v-lags", "v-holds-eps"))

FAMILY = Family(
    ADADELTA,
    ("p", "v_kept", "u_kept", "last_kept"),
    (
        *_NUMERATOR, *_UPDATES, *_GRADIENTS, *_SQUARES, *STEP, *DECAY, *GRADIENT,
        *walking(HYPERS, counts_steps=False),
    ),
)
