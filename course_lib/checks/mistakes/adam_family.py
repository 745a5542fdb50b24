"""Adam and AdamW as programs, and the ways people get them wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import GRADIENT, START, fixed, norm
from course_lib.checks.mistakes.engine import Family, Mistake, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "betas0", "betas1", "eps", "weight_decay")
KEPT = ("p", "m", "v", "m_kept", "v_kept", "top")


def _b1(c: SimpleNamespace) -> np.ndarray:
    return c.h["betas0"]


def _b2(c: SimpleNamespace) -> np.ndarray:
    return c.h["betas1"]


def _wd(c: SimpleNamespace) -> np.ndarray:
    return c.h["lr"] * c.h["weight_decay"]


_MOMENTS: Program = {
    "m": lambda c: _b1(c) * c.m_kept + (1 - _b1(c)) * c.g,
    "v": lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * c.g**2,
    "m_hat": lambda c: c.m / (1 - _b1(c) ** c.t),
    "v_hat": lambda c: c.v / (1 - _b2(c) ** c.t),
    "denominator": lambda c: np.sqrt(c.v_hat) + c.h["eps"],
    "update": lambda c: c.h["lr"] * c.m_hat / c.denominator,
    "m_kept": lambda c: c.m,
    "v_kept": lambda c: c.v,
    "p": lambda c: c.decayed - c.update,
}
ADAM: Program = {**START, **_MOMENTS}
ADAMW: Program = {**ADAM, "g": lambda c: c.raw, "decayed": lambda c: c.p * (1 - _wd(c))}


def _top(c: SimpleNamespace) -> np.ndarray:
    c.top = np.maximum(c.top, c.v)
    return c.top / (1 - _b2(c) ** c.t)


def _aliased_v(c: SimpleNamespace) -> np.ndarray:
    return _b2(c) * c.m + (1 - _b2(c)) * c.g**2


_ALIASED: Program = {"v": _aliased_v, "m_hat": lambda c: c.v / (1 - _b1(c) ** c.t), "m_kept": lambda c: c.v}

_FIRST_MOMENT = (
    known("m-starts-at-parameter", "a first moment that starts as a copy of the parameter", "Where do m and v start?",
          m=lambda c: _b1(c) * np.where(c.t == 1, c.p, c.m_kept) + (1 - _b1(c)) * c.g),
    known("m-keeps-lr", "a first moment that is multiplied by lr where it is kept", "Which of your operations end in an underscore?",
          m_kept=lambda c: c.h["lr"] * c.m),
    known("m-is-v", "one tensor under two names: m and v are the same memory", "`m = v = zeros_like(p)` makes one tensor.", **_ALIASED),
    known("m-gain-missing", "a first moment without (1 - beta1): `m = beta1 * m + g`, a sum, not an average",
          "If every gradient were 1, where would m settle?", m=lambda c: _b1(c) * c.m_kept + c.g),
    known("m-weights-swapped", "a first moment with its weights exchanged: `m = (1 - beta1) * m + beta1 * g`",
          "Does beta1 weigh the past or the present?", m=lambda c: (1 - _b1(c)) * c.m_kept + _b1(c) * c.g),
    known("m-uses-beta2", "a first moment that decays with beta2", "Which beta belongs to which moment?",
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * c.g),
    known("m-forgets", "a first moment that forgets its past at every step: `m = (1 - beta1) * g`",
          "Is m kept from one step to the next?", m=lambda c: (1 - _b1(c)) * c.g),
    known("m-never-decays", "a first moment that never decays: `m += (1 - beta1) * g`",
          "What multiplies the old m?", m=lambda c: c.m_kept + (1 - _b1(c)) * c.g),
    known("m-of-absolute", "a first moment of |g|: the direction is lost", "Which sign does m need?",
          m=lambda c: _b1(c) * c.m_kept + (1 - _b1(c)) * np.abs(c.g)),
    known("m-lags", "a step that uses the first moment from before this gradient",
          "In which order do you update m and use it?", m_hat=lambda c: c.m_kept / (1 - _b1(c) ** c.t)),
    known("no-momentum", "a step along the gradient itself instead of m_hat: RMSProp with bias correction",
          "Which of your two moments stands in the numerator?", m_hat=lambda c: c.g),
    known("nesterov-momentum", "NAdam's look-ahead: `beta1 * m_hat` plus a share of the present gradient",
          "Adam steps along m_hat alone.", kind=OTHER_SPECIFICATION,
          m_hat=lambda c: (_b1(c) * c.m + (1 - _b1(c)) * c.g) / (1 - _b1(c) ** c.t)),
)
_SECOND_MOMENT = (
    known("v-gain-of-beta1", "a second moment with beta1's gain: `v = beta2 * v + (1 - beta1) * g**2`", "Which beta stands where in the line for v?",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b1(c)) * c.g**2),
    known("v-starts-at-one", "a second moment that starts at one", "Where do m and v start?",
          v=lambda c: _b2(c) * np.where(c.t == 1, 1.0, c.v_kept) + (1 - _b2(c)) * c.g**2),
    known("v-of-scaled-gradient", "a second moment of (1 - beta1) * g: the gradient was scaled for m before v saw it",
          "Does the line for m change the gradient?", v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * ((1 - _b1(c)) * c.g) ** 2),
    known("v-per-row", "one second moment for a whole row: the mean over the last axis", "v has the parameter's shape.",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * np.where(c.dims > 0, c.row_mean(c.g**2), c.g**2)),
    known("v-keeps-root", "a root that is stored back: v is replaced by its square root at every step",
          "Which of your operations end in an underscore?", v_kept=lambda c: np.sqrt(c.v)),
    known("v-keeps-denominator", "a denominator that is stored back as v", "Which of your operations end in an underscore?",
          v_kept=lambda c: c.denominator),
    known("v-starts-at-square", "a second moment that starts at the first square and is corrected all the same", "Where do m and v start?",
          v=lambda c: np.where(c.t == 1, c.g**2, _b2(c) * c.v_kept + (1 - _b2(c)) * c.g**2)),
    known("moments-start-at-gradient", "moments that start at the first gradient and its square, and are corrected all the same",
          "Where do m and v start?", m=lambda c: np.where(c.t == 1, c.g, _b1(c) * c.m_kept + (1 - _b1(c)) * c.g),
          v=lambda c: np.where(c.t == 1, c.g**2, _b2(c) * c.v_kept + (1 - _b2(c)) * c.g**2)),
    known("v-is-maximum", "AdaMax's infinity norm in place of v", "Adam's v is an average of squares.", kind=OTHER_SPECIFICATION,
          v=lambda c: np.maximum(_b2(c) * c.v_kept, np.abs(c.g)), v_hat=lambda c: c.v, denominator=lambda c: c.v + c.h["eps"]),
    known("v-gain-missing", "a second moment without (1 - beta2): `v = beta2 * v + g**2`",
          "If every gradient were 1, where would v settle?", v=lambda c: _b2(c) * c.v_kept + c.g**2),
    known("v-weights-swapped", "a second moment with its weights exchanged: `v = (1 - beta2) * v + beta2 * g**2`",
          "Does beta2 weigh the past or the present?", v=lambda c: (1 - _b2(c)) * c.v_kept + _b2(c) * c.g**2),
    known("v-uses-beta1", "a second moment that decays with beta1", "Which beta belongs to which moment?",
          v=lambda c: _b1(c) * c.v_kept + (1 - _b1(c)) * c.g**2),
    known("v-forgets", "a second moment that forgets its past at every step: `v = (1 - beta2) * g**2`",
          "Is v kept from one step to the next?", v=lambda c: (1 - _b2(c)) * c.g**2),
    known("v-never-decays", "a second moment that never decays: `v += (1 - beta2) * g**2`",
          "What multiplies the old v?", v=lambda c: c.v_kept + (1 - _b2(c)) * c.g**2),
    known("v-is-adagrad", "AdaGrad's sum of squares in place of the average: `v += g**2`",
          "A sum only grows. What does an average do with old squares?", v=lambda c: c.v_kept + c.g**2),
    known("v-not-squared", "a second moment of g instead of g squared", "What is averaged in v?",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * c.g),
    known("v-of-absolute", "a second moment of |g| instead of g squared", "What is averaged in v?",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * np.abs(c.g)),
    known("v-of-m", "a second moment that squares m instead of the gradient", "Whose square is averaged in v?",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * c.m**2),
    known("v-centred", "a second moment of g - m: AdaBelief's, a variance", "Adam's v is not centred.",
          kind=OTHER_SPECIFICATION, v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * (c.g - c.m) ** 2),
    known("v-per-tensor", "one second moment for a whole tensor: the mean of its squares", "v has the parameter's shape.",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * c.mean(c.g**2)),
    known("v-of-norm", "one second moment for a whole tensor: its squared norm", "v has the parameter's shape.",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * norm(c, c.g) ** 2),
    known("v-lags", "a denominator that uses the second moment from before this gradient",
          "In which order do you update v and use it?", v_hat=lambda c: c.v_kept / (1 - _b2(c) ** c.t)),
    known("v-holds-eps", "a second moment into which eps is added at every step: `v` itself grows by eps",
          "eps belongs to the denominator, not to what is remembered.",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * c.g**2 + c.h["eps"]),
    known("amsgrad-always", "AMSGrad: the largest v so far in the denominator", "Adam divides by the present v_hat.",
          kind=OTHER_SPECIFICATION, v_hat=_top),
)
_CORRECTION = (
    known("step-count-behind-floored", "a step count one behind, kept at 1 or more", "How many gradients have gone into m when you correct it?",
          m_hat=lambda c: c.m / (1 - _b1(c) ** np.maximum(c.t - 1, 1)), v_hat=lambda c: c.v / (1 - _b2(c) ** np.maximum(c.t - 1, 1))),
    known("no-bias-correction", "no bias correction at all", "m and v start at zero. What does that do to the first steps?",
          m_hat=lambda c: c.m, v_hat=lambda c: c.v),
    known("m-not-corrected", "a first moment without bias correction", "Both averages start at zero.", m_hat=lambda c: c.m),
    known("v-not-corrected", "a second moment without bias correction", "Both averages start at zero.", v_hat=lambda c: c.v),
    known("correction-power-outside", "a correction by (1 - beta)^t instead of 1 - beta^t", "To what does the power apply?",
          m_hat=lambda c: c.m / (1 - _b1(c)) ** c.t, v_hat=lambda c: c.v / (1 - _b2(c)) ** c.t),
    known("m-power-outside", "a first moment corrected by (1 - beta1)^t instead of 1 - beta1^t", "To what does the power apply?",
          m_hat=lambda c: c.m / (1 - _b1(c)) ** c.t),
    known("v-power-outside", "a second moment corrected by (1 - beta2)^t instead of 1 - beta2^t", "To what does the power apply?",
          v_hat=lambda c: c.v / (1 - _b2(c)) ** c.t),
    known("correction-product", "a correction by 1 - beta * t instead of 1 - beta^t", "t is an exponent.",
          m_hat=lambda c: c.m / (1 - _b1(c) * c.t), v_hat=lambda c: c.v / (1 - _b2(c) * c.t)),
    known("correction-multiplies", "moments multiplied by 1 - beta^t instead of divided", "Should the first m grow or shrink?",
          m_hat=lambda c: c.m * (1 - _b1(c) ** c.t), v_hat=lambda c: c.v * (1 - _b2(c) ** c.t)),
    known("correction-betas-swapped", "corrections with the betas exchanged: m by beta2, v by beta1",
          "Which beta made which moment too small?",
          m_hat=lambda c: c.m / (1 - _b2(c) ** c.t), v_hat=lambda c: c.v / (1 - _b1(c) ** c.t)),
    known("correction-all-beta1", "both moments corrected with beta1", "Which beta made v too small?",
          v_hat=lambda c: c.v / (1 - _b1(c) ** c.t)),
    known("correction-all-beta2", "both moments corrected with beta2", "Which beta made m too small?",
          m_hat=lambda c: c.m / (1 - _b2(c) ** c.t)),
    known("correction-kept", "corrected moments stored back as the state, so that the correction compounds",
          "What is averaged at the next step: m, or m_hat?", m_kept=lambda c: c.m_hat, v_kept=lambda c: c.v_hat),
    known("m-correction-kept", "a corrected first moment stored back as the state", "What is averaged at the next step: m, or m_hat?",
          m_kept=lambda c: c.m_hat),
    known("v-correction-kept", "a corrected second moment stored back as the state", "What is averaged at the next step: v, or v_hat?",
          v_kept=lambda c: c.v_hat),
    known("correction-inverted", "the efficient form with its factor upside down: (1 - beta1^t) / sqrt(1 - beta2^t)",
          "At t = 1, should the factor enlarge m or shrink it?",
          m_hat=lambda c: c.m * (1 - _b1(c) ** c.t), v_hat=lambda c: c.v * (1 - _b2(c) ** c.t),
          denominator=lambda c: np.sqrt(c.v_hat) + c.h["eps"] * (1 - _b2(c) ** c.t)),
    known("correction-inverted-plain", "the efficient form with its factor upside down, and eps not scaled with it",
          "At t = 1, should the factor enlarge m or shrink it?",
          m_hat=lambda c: c.m * (1 - _b1(c) ** c.t), v_hat=lambda c: c.v,
          denominator=lambda c: (np.sqrt(c.v) + c.h["eps"]) * np.sqrt(1 - _b2(c) ** c.t)),
    known("correction-without-root", "the efficient form with 1 - beta2^t outside a root: the correction of v enters squared",
          "v_hat stands under the root, and so does its correction.", v_hat=lambda c: c.v / (1 - _b2(c) ** c.t) ** 2),
    known("v-correction-rooted-twice", "a second moment corrected by sqrt(1 - beta2^t) instead of 1 - beta2^t",
          "The root comes after the correction.", v_hat=lambda c: c.v / np.sqrt(1 - _b2(c) ** c.t)),
    known("step-count-stuck", "a step count that stays at 1", "What is t at the second step?", t=lambda c: np.ones_like(c.t)),
    known("step-count-behind", "a step count that starts at 0 instead of 1: the first correction divides by zero",
          "How many gradients have gone into m when you correct it?",
          m_hat=lambda c: c.m / (1 - _b1(c) ** (c.t - 1)), v_hat=lambda c: c.v / (1 - _b2(c) ** (c.t - 1))),
    known("step-count-behind-guarded", "a step count one behind, the very first step left uncorrected",
          "How many gradients have gone into m when you correct it?",
          m_hat=lambda c: np.where(c.t > 1, c.m / (1 - _b1(c) ** (c.t - 1)), c.m),
          v_hat=lambda c: np.where(c.t > 1, c.v / (1 - _b2(c) ** (c.t - 1)), c.v)),
    known("step-count-ahead", "a step count one ahead: the first correction uses t = 2",
          "How many gradients have gone into m when you correct it?",
          m_hat=lambda c: c.m / (1 - _b1(c) ** (c.t + 1)), v_hat=lambda c: c.v / (1 - _b2(c) ** (c.t + 1))),
    known("step-count-double", "a step count that advances by two per step", "How often is t increased in one step?",
          m_hat=lambda c: c.m / (1 - _b1(c) ** (2 * c.t)), v_hat=lambda c: c.v / (1 - _b2(c) ** (2 * c.t))),
    known("corrected-first-step-only", "a bias correction at the first step only", "When is 1 - beta^t close enough to 1?",
          m_hat=lambda c: np.where(c.t == 1, c.m / (1 - _b1(c)), c.m), v_hat=lambda c: np.where(c.t == 1, c.v / (1 - _b2(c)), c.v)),
)
_DENOMINATOR = (
    known("eps-outside-fraction", "an epsilon added to the fraction instead of the denominator: m_hat / sqrt(v_hat) + eps", "Where do the brackets stand?",
          update=lambda c: c.h["lr"] * (c.m_hat / np.sqrt(c.v_hat) + c.h["eps"])),
    known("denominator-centred", "a denominator of sqrt(v_hat - m_hat**2): a standard deviation", "Adam's v is not centred.",
          denominator=lambda c: np.sqrt(np.maximum(c.v_hat - c.m_hat**2, 0)) + c.h["eps"]),
    known("eps-inside-root", "an epsilon inside the square root: sqrt(v_hat + eps)", "Is eps added before or after the root?",
          denominator=lambda c: np.sqrt(c.v_hat + c.h["eps"])),
    known("eps-squared-inside-root", "an epsilon squared inside the root: sqrt(v_hat + eps**2)", "Is eps added before or after the root?",
          denominator=lambda c: np.sqrt(c.v_hat + c.h["eps"] ** 2)),
    known("eps-before-correction", "an epsilon added before the correction of v, to sqrt(v): the paper's efficient form with eps for "
          "eps-hat, as TensorFlow has it", "Here eps is added to sqrt(v_hat). By which factor do the two differ?", kind=OTHER_SPECIFICATION,
          denominator=lambda c: (np.sqrt(c.v) + c.h["eps"]) / np.sqrt(1 - _b2(c) ** c.t)),
    known("eps-before-correction-inside-root", "an epsilon added to v before the correction, inside the root",
          "eps is the last thing added to the denominator.",
          denominator=lambda c: np.sqrt((c.v + c.h["eps"]) / (1 - _b2(c) ** c.t))),
    known("eps-missing", "no epsilon", "What is the step where the gradient has always been zero?",
          denominator=lambda c: np.sqrt(c.v_hat)),
    known("eps-hard-coded", "an epsilon so small that it does nothing: hard-coded (1e-8, say) whatever the argument says, or left out and the division by zero caught", "Is the argument read?", denominator=lambda c: np.sqrt(c.v_hat) + 1e-8),
    known("eps-as-floor", "an epsilon used as a floor: max(sqrt(v_hat), eps)", "eps is added.",
          denominator=lambda c: np.maximum(np.sqrt(c.v_hat), c.h["eps"])),
    known("eps-subtracted", "an epsilon that is subtracted", "Which sign does eps have?", denominator=lambda c: np.sqrt(c.v_hat) - c.h["eps"]),
    known("eps-twice", "an epsilon inside the root and outside it", "One eps is enough; which one?",
          denominator=lambda c: np.sqrt(c.v_hat + c.h["eps"]) + c.h["eps"]),
    known("root-missing", "a division by v_hat + eps: the root is missing", "Which units does the step have?",
          denominator=lambda c: c.v_hat + c.h["eps"]),
    known("root-twice", "a fourth root of v_hat", "Count the roots.", denominator=lambda c: c.v_hat**0.25 + c.h["eps"]),
    known("multiplies", "a multiplication by the denominator", "Should a large v lengthen the step or shorten it?",
          update=lambda c: c.h["lr"] * c.m_hat * c.denominator),
)
def _ratio(weights: np.ndarray, update: np.ndarray, c: SimpleNamespace) -> np.ndarray:
    return np.sqrt(c.total(weights**2)) / np.sqrt(c.total(update**2))


def _last_handled(c: SimpleNamespace) -> np.ndarray:
    last = [np.max(c.tensor[c.has & (c.group == group)], initial=-1) for group in range(c.group.max() + 1)]
    return c.tensor == np.asarray(last)[c.group]


_UPDATE = (
    known("last-parameter-only", "moments for all parameters, but a step for the last of each group only", "Which lines stand inside the inner loop?",
          p=lambda c: np.where(_last_handled(c), c.decayed - c.update, c.p)),
    known("trust-ratio", "LAMB's trust ratio: the update scaled by the norm of the weights over its own", "Adam's step does not look at the weights' size.",
          kind=OTHER_SPECIFICATION, update=lambda c: c.h["lr"] * _ratio(c.p, c.m_hat / c.denominator, c) * c.m_hat / c.denominator),
    known("lr-of-weight-size", "a learning rate scaled by the weights' root mean square, as in Adafactor", "Adam's step does not look at the weights' size.",
          kind=OTHER_SPECIFICATION, update=lambda c: c.h["lr"] * np.maximum(1e-3, np.sqrt(c.mean(c.p**2))) * c.m_hat / c.denominator),
    known("cautious", "Cautious AdamW: no update where it disagrees with the gradient", "Adam updates every element.", kind=OTHER_SPECIFICATION,
          update=lambda c: c.h["lr"] * c.m_hat / c.denominator * (c.m_hat * c.g > 0) / np.maximum(c.mean(c.m_hat * c.g > 0), 1e-3)),
    known("plain-descent", "plain gradient descent: lr times the gradient, no moments", "Where do m and v come in?", update=lambda c: c.h["lr"] * c.g),
    known("no-denominator", "a step of lr times m_hat that nothing divides: momentum alone", "What is v for?", update=lambda c: c.h["lr"] * c.m_hat),
    known("ascends", "a step uphill: the update is added", "Which way is down?", p=lambda c: c.decayed + c.update),
    known("lr-missing", "a step without the learning rate", "What scales the update?", update=lambda c: c.m_hat / c.denominator),
    known("lr-twice", "a learning rate that is applied twice", "Count the factors lr.", update=lambda c: c.h["lr"] ** 2 * c.m_hat / c.denominator),
    known("lr-hard-coded", "a learning rate of 1e-3 whatever the argument says", "Is the argument read?", h=fixed(lr=1e-3)),
    known("lr-over-root-t", "a learning rate divided by sqrt(t), as in the paper's regret bound", "Schedules live outside the optimizer.",
          update=lambda c: c.h["lr"] / np.sqrt(c.t) * c.m_hat / c.denominator),
    known("first-step-omitted", "a first step that fills m and v and does not move the parameter", "What does torch do at the first step?",
          update=lambda c: np.where(c.t == 1, 0.0, c.h["lr"] * c.m_hat / c.denominator)),
    known("sign-only", "a step of lr times the sign of m", "Where did the denominator go?", update=lambda c: c.h["lr"] * np.sign(c.m)),
    known("betas-swapped", "beta1 and beta2 exchanged", "Which element of `betas` is which?",
          h=lambda c: {**c.h, "betas0": _b2(c), "betas1": _b1(c)}),
    known("betas-hard-coded", "betas of (0.9, 0.999) whatever the argument says", "Is the argument read?", h=fixed(betas0=0.9, betas1=0.999)),
    known("beta1-hard-coded", "a beta1 of 0.9 whatever the argument says", "Is the argument read?", h=fixed(betas0=0.9)),
    known("beta2-hard-coded", "a beta2 of 0.999 whatever the argument says", "Is the argument read?", h=fixed(betas1=0.999)),
    known("beta2-hard-coded-99", "a beta2 of 0.99 whatever the argument says", "Is the argument read?", h=fixed(betas1=0.99)),
    known("beta2-hard-coded-95", "a beta2 of 0.95 whatever the argument says", "Is the argument read?", h=fixed(betas1=0.95)),
    known("clips-update", "an update clipped to lr in size", "Nothing bounds Adam's update but the moments.",
          update=lambda c: np.clip(c.h["lr"] * c.m_hat / c.denominator, -c.h["lr"], c.h["lr"])),
)
_DECAY_COMMON = (
    known("decay-missing", "no weight decay", "Where does weight_decay enter?", g=lambda c: c.raw, decayed=lambda c: c.p),
    known("decay-without-lr", "a decay by 1 - weight_decay per step, not scaled by the learning rate: the paper's convention at a "
          "schedule multiplier of 1", "torch multiplies the decay by lr.", kind=OTHER_SPECIFICATION,
          g=lambda c: c.raw, decayed=lambda c: c.p * (1 - c.h["weight_decay"])),
    known("decay-after-division", "a decay term added to m_hat and divided by the denominator with it",
          "Is the decay scaled by 1 / sqrt(v_hat)?", g=lambda c: c.raw, decayed=lambda c: c.p,
          update=lambda c: c.h["lr"] * (c.m_hat + c.h["weight_decay"] * c.p) / c.denominator),
    known("decay-in-m-only", "a decay term that enters m but not v", "Which moments may see the decay?", decayed=lambda c: c.p,
          g=lambda c: c.raw, m=lambda c: _b1(c) * c.m_kept + (1 - _b1(c)) * (c.g + c.h["weight_decay"] * c.p)),
    known("decay-in-v-only", "a decay term that enters v but not m", "Which moments may see the decay?", decayed=lambda c: c.p,
          g=lambda c: c.raw, v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * (c.g + c.h["weight_decay"] * c.p) ** 2),
    known("decay-both-ways", "weight decay applied twice: in the gradient and on the weight", "Once is enough; which one?",
          g=lambda c: c.raw + c.h["weight_decay"] * c.p, decayed=lambda c: c.p * (1 - _wd(c))),
)
_DECAY_ADAM = (
    known("decay-decoupled", "AdamW: the decay applied to the weight instead of the gradient",
          "This exercise's weight_decay is the L2 term of the loss.", g=lambda c: c.raw, decayed=lambda c: c.p * (1 - _wd(c)),
          kind=OTHER_SPECIFICATION),
    known("decay-sign", "an L2 term with the wrong sign: the weights are pushed outwards", "What is the gradient of the penalty?",
          g=lambda c: c.raw - c.h["weight_decay"] * c.p),
    known("decay-doubled", "an L2 term of 2 * weight_decay * p", "torch's penalty is weight_decay / 2 times the squared norm.",
          g=lambda c: c.raw + 2 * c.h["weight_decay"] * c.p),
    known("decay-with-lr", "an L2 term already multiplied by lr", "The learning rate comes in with the step.",
          g=lambda c: c.raw + _wd(c) * c.p),
    known("decay-l1", "an L1 term: weight_decay times the sign of the weight", "What is the gradient of a squared norm?",
          g=lambda c: c.raw + c.h["weight_decay"] * np.sign(c.p)),
    known("decay-matrices-only", "an L2 term on matrices only", "The groups say what decays, not the shapes.",
          g=lambda c: c.raw + c.h["weight_decay"] * c.p * (c.dims >= 2)),
)
_DECAY_ADAMW = (
    known("decay-halved", "a decay by half of lr * weight_decay", "Decoupled decay is not the gradient of a square.",
          decayed=lambda c: c.p * (1 - _wd(c) / 2)),
    known("decay-where-agreed", "a decay only where gradient and weight have the same sign", "What is decoupled from what?",
          decayed=lambda c: np.where(c.g * c.p > 0, c.p * (1 - _wd(c)), c.p)),
    known("decay-also-in-v", "a decay of the weight that v sees as well", "Which moments may see the decay?",
          v=lambda c: _b2(c) * c.v_kept + (1 - _b2(c)) * (c.g + c.h["weight_decay"] * c.p) ** 2),
    known("decay-also-in-m", "a decay of the weight that m sees as well", "Which moments may see the decay?",
          m=lambda c: _b1(c) * c.m_kept + (1 - _b1(c)) * (c.g + c.h["weight_decay"] * c.p)),
    known("decay-in-gradient", "Adam with an L2 penalty: the decay goes through m and v", "Which moments may see the decay?",
          g=lambda c: c.raw + c.h["weight_decay"] * c.p, decayed=lambda c: c.p),
    known("decay-after-step", "a decay of the weight after the step instead of before it", "Which weight is decayed: the old one or the new one?",
          decayed=lambda c: c.p, p=lambda c: (c.decayed - c.update) * (1 - _wd(c))),
    known("decay-sign", "a decay with the wrong sign: the weights grow", "Which way should the weights go without a gradient?",
          decayed=lambda c: c.p * (1 + _wd(c))),
    known("decay-lr-twice", "a decay scaled by the learning rate twice", "Count the factors lr.", decayed=lambda c: c.p * (1 - c.h["lr"] * _wd(c))),
    known("decay-squared", "a decay with weight_decay squared", "Count the factors weight_decay.",
          decayed=lambda c: c.p * (1 - _wd(c) * c.h["weight_decay"])),
    known("decay-hard-coded", "a weight_decay of 0.01 whatever the argument says", "Is the argument read?",
          decayed=lambda c: c.p * (1 - c.h["lr"] * 0.01)),
    known("decay-doubled", "a decay by 2 * lr * weight_decay", "Decoupled decay is not the gradient of a square.",
          decayed=lambda c: c.p * (1 - 2 * _wd(c))),
    known("decay-l1", "a decay by lr * weight_decay towards zero whatever the weight's size: an L1 decay", "By which *factor* does a weight shrink?",
          decayed=lambda c: c.p - _wd(c) * np.sign(c.p)),
    known("decay-exponential", "a decay by exp(-lr * weight_decay)", "Close, but torch takes the first term of that series.",
          decayed=lambda c: c.p * np.exp(-_wd(c)), kind=OTHER_SPECIFICATION),
    known("decay-corrected-lr", "a decay scaled by the efficient form's alpha_t instead of lr", "Which learning rate does the decay see?",
          decayed=lambda c: c.p * (1 - _wd(c) * np.sqrt(1 - _b2(c) ** (c.t)) / (1 - _b1(c) ** (c.t)))),
    known("decay-step-size", "a decay scaled by lr / (1 - beta1^t) instead of lr", "Which learning rate does the decay see?",
          decayed=lambda c: c.p * (1 - _wd(c) / (1 - _b1(c) ** (c.t)))),
    known("decay-lr-frozen", "a decay that keeps the first learning rate when a schedule changes it", "Which learning rate does the decay see?",
          decayed=lambda c: c.p * (1 - c.h0["lr"] * c.h["weight_decay"])),
    known("decay-first-step-only", "a decay at the first step only", "How often does a weight decay?",
          decayed=lambda c: np.where(c.t == 1, c.p * (1 - _wd(c)), c.p)),
    known("decay-where-missing", "a decay of parameters whose gradient is missing", "What should happen to a parameter that took no part in this backward pass?",
          afterwards=lambda c: np.where(c.has, c.p, c.p * (1 - _wd(c)))),
    known("decay-needs-gradient", "a decay only where the gradient is not zero", "What is decoupled from what?",
          decayed=lambda c: np.where(c.g != 0, c.p * (1 - _wd(c)), c.p)),
    known("decay-to-start", "a decay towards the starting values instead of zero", "Towards what do the weights decay?",
          decayed=lambda c: c.p - _wd(c) * (c.p - c.start)),
    known("decay-matrices-only", "a decay of matrices only", "The groups say what decays, not the shapes.",
          decayed=lambda c: np.where(c.dims >= 2, c.p * (1 - _wd(c)), c.p)),
)

_SHARED: tuple[Mistake, ...] = (
    *walking(HYPERS, counts_steps=True), *_DENOMINATOR, *_CORRECTION, *_FIRST_MOMENT, *_SECOND_MOMENT, *_UPDATE, *GRADIENT, *_DECAY_COMMON,
)
FAMILIES: dict[str, Family] = {
    "adam": Family(ADAM, KEPT, (*_DECAY_ADAM, *_SHARED)),
    "adamw": Family(ADAMW, KEPT, (*_DECAY_ADAMW, *_SHARED)),
}
