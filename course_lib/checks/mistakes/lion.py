"""Lion as a program, and the ways people get it wrong.

Only signs are seen of what Lion remembers. So mistakes that leave every sign as it is are none: a bias correction of c,
say, or a c without its gain and a buffer without its gain at once.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import END, GRADIENT, LR_MISSING, START, STEP, fixed, norm
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "betas0", "betas1", "weight_decay")


def _b1(c: SimpleNamespace) -> np.ndarray:
    return c.h["betas0"]


def _b2(c: SimpleNamespace) -> np.ndarray:
    return c.h["betas1"]


def _mixed(c: SimpleNamespace, m: np.ndarray) -> np.ndarray:
    return _b1(c) * m + (1 - _b1(c)) * c.g


def _followed(c: SimpleNamespace, m: np.ndarray) -> np.ndarray:
    return _b2(c) * m + (1 - _b2(c)) * c.g


def _wd(c: SimpleNamespace) -> np.ndarray:
    return c.h["lr"] * c.h["weight_decay"]


def _penalised(c: SimpleNamespace) -> np.ndarray:
    return c.raw + c.h["weight_decay"] * c.p


LION: Program = {
    **START,
    "g": lambda c: c.raw,
    "decayed": lambda c: c.p * (1 - _wd(c)),
    "mix": lambda c: _mixed(c, c.m_kept),
    "direction": lambda c: np.sign(c.mix),
    "m": lambda c: _followed(c, c.m_kept),
    "m_kept": lambda c: c.m,
    **END,
}

_ROLES = "beta1 belongs to the step, beta2 to what is remembered. Which of the two is nearer to 1?"
_ORDER = "In which order are c and m computed, and from which m?"
_GAIN = "Both are averages: if every gradient were 1, where would they settle?"
_STORED = "Which of your operations end in an underscore, and on what do they work?"
_SIGN = "Every element moves by lr, whatever the size of its gradient."
_DIRECTION = (
    known("betas-swapped", "beta1 and beta2 exchanged", _ROLES,
          h=lambda c: {**c.h, "betas0": _b2(c), "betas1": _b1(c)}),
    known("m-before-sign", "an m that is updated before the step looks at it: c is made of the new m", _ORDER,
          mix=lambda c: _mixed(c, _followed(c, c.m_kept))),
    known("sign-of-gradient", "signSGD: the sign of the gradient alone", "Of which mixture is the sign taken?",
          direction=lambda c: np.sign(c.g)),
    known("sign-of-new-m", "Signum: the sign of the new m, where beta2 stands in both averages",
          "The step weighs the gradient with 1 - beta1, the memory with 1 - beta2.", kind=OTHER_SPECIFICATION,
          direction=lambda c: np.sign(_followed(c, c.m_kept))),
    known("sign-of-old-m", "the sign of the old m: the gradient moves nothing in the step that it comes in",
          "Of which mixture is the sign taken?", direction=lambda c: np.sign(c.m_kept)),
    known("mix-weights-swapped", "a c with its weights exchanged: `(1 - beta1) * m + beta1 * g`",
          "Does beta1 weigh the past or the present?", mix=lambda c: (1 - _b1(c)) * c.m_kept + _b1(c) * c.g),
    known("mix-gain-missing", "a c without (1 - beta1): `beta1 * m + g`", _GAIN, mix=lambda c: _b1(c) * c.m_kept + c.g),
    known("mix-sum", "a c of m + g, whatever beta1", "What weighs the two?", mix=lambda c: c.m_kept + c.g),
    known("mix-of-sign", "a c that mixes m with the sign of the gradient", "Where is the sign taken, and only there?",
          mix=lambda c: _b1(c) * c.m_kept + (1 - _b1(c)) * np.sign(c.g)),
    known("sign-missing", "a step along c itself: the sign is missing", _SIGN, direction=lambda c: c.mix),
    known("normalised", "c divided by its norm in the place of its sign", _SIGN,
          direction=lambda c: c.mix / (norm(c, c.mix) + 1e-300)),
    known("normalised-by-rms", "c divided by its root mean square in the place of its sign", _SIGN,
          direction=lambda c: c.mix / (np.sqrt(c.mean(c.mix**2)) + 1e-300)),
    known("soft-sign", "tanh(c) in the place of the sign", _SIGN, direction=lambda c: np.tanh(c.mix)),
    known("zero-goes-up", "a sign of zero that counts as plus: an element without any gradient moves",
          "Which way does an element move whose gradient was always 0?",
          direction=lambda c: np.where(c.mix >= 0, 1.0, -1.0)),
    known("zero-goes-down", "a sign of zero that counts as minus: an element without any gradient moves",
          "Which way does an element move whose gradient was always 0?",
          direction=lambda c: np.where(c.mix > 0, 1.0, -1.0)),
    known("step-times-gain", "a step of lr * (1 - beta1)", _SIGN, direction=lambda c: (1 - _b1(c)) * np.sign(c.mix)),
    known("step-times-gain-of-beta2", "a step of lr * (1 - beta2)", _SIGN,
          direction=lambda c: (1 - _b2(c)) * np.sign(c.mix)),
    known("plain-descent", "plain gradient descent: lr times the gradient", _SIGN, direction=lambda c: c.g),
    known("cautious", "Cautious Lion: no step where c and the gradient disagree, the others longer",
          "Lion moves every element.", kind=OTHER_SPECIFICATION,
          direction=lambda c: np.sign(c.mix) * (c.mix * c.g > 0) / np.maximum(c.mean(c.mix * c.g > 0), 1e-3)),
    known("masked", "no step where c and the gradient disagree", "Lion moves every element.",
          direction=lambda c: np.sign(c.mix) * (c.mix * c.g > 0)),
    known("trust-ratio", "LAMB's trust ratio: the update scaled by the norm of the weights over its own",
          "Lion's step does not look at the weights' size.", kind=OTHER_SPECIFICATION,
          direction=lambda c: np.sign(c.mix) * norm(c, c.p) / (norm(c, np.sign(c.mix)) + 1e-300)),
)
_MEMORY = (
    known("m-uses-beta1", "an m that decays with beta1 (or c kept as m, which is the same)", _ROLES,
          m=lambda c: _mixed(c, c.m_kept)),
    known("m-from-mix", "an m that is made of c: c was written into m's memory, and beta2 works on that", _STORED,
          m=lambda c: _followed(c, c.mix)),
    known("m-from-sign", "an m that is made of c's sign: the sign was written into m's memory", _STORED,
          m=lambda c: _followed(c, np.sign(c.mix))),
    known("m-of-sign", "an m of the gradients' signs", "What does m average?",
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * np.sign(c.g)),
    known("m-of-step", "an m of the steps' signs", "What does m average?",
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * np.sign(c.mix)),
    known("m-of-mix", "an m that averages c: `m = beta2 * m + (1 - beta2) * c`", "What does m average?",
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * c.mix),
    known("m-weights-swapped", "an m with its weights exchanged: `(1 - beta2) * m + beta2 * g`",
          "Does beta2 weigh the past or the present?", m=lambda c: (1 - _b2(c)) * c.m_kept + _b2(c) * c.g),
    known("m-gain-missing", "an m without (1 - beta2): `beta2 * m + g`, a sum, not an average", _GAIN,
          m=lambda c: _b2(c) * c.m_kept + c.g),
    known("m-gain-of-beta1", "an m with beta1's gain: `beta2 * m + (1 - beta1) * g`", _GAIN,
          m=lambda c: _b2(c) * c.m_kept + (1 - _b1(c)) * c.g),
    known("m-forgets", "an m that forgets its past at every step: `(1 - beta2) * g`",
          "Is m kept from one step to the next?", m=lambda c: (1 - _b2(c)) * c.g),
    known("m-is-last-gradient", "an m that is the last gradient", "Is m kept from one step to the next?",
          m=lambda c: c.g),
    known("m-never-decays", "an m that never decays: `m += (1 - beta2) * g`", "What multiplies the old m?",
          m=lambda c: c.m_kept + (1 - _b2(c)) * c.g),
    known("m-of-absolute", "an m of |g|: the direction is lost", "Which sign does m need?",
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * np.abs(c.g)),
    known("m-starts-at-gradient", "an m that starts at the first gradient instead of zero", "Where does m start?",
          m=lambda c: np.where(c.t == 1, c.g, _followed(c, c.m_kept))),
    known("m-starts-at-parameter", "an m that starts as a copy of the parameter", "Where does m start?",
          m_kept=lambda c: _followed(c, np.where(c.t == 1, c.start, c.m_kept)),
          mix=lambda c: _mixed(c, np.where(c.t == 1, c.start, c.m_kept))),
    known("m-corrected", "Adam's bias correction of m: m / (1 - beta2^t) in c", "Lion corrects nothing.",
          mix=lambda c: _mixed(c, np.where(c.t > 1, c.m_kept / (1 - _b2(c) ** np.maximum(c.t - 1, 1)), 0.0))),
    known("m-correction-kept", "Adam's bias correction of m, stored back", "Lion corrects nothing.",
          m_kept=lambda c: c.m / (1 - _b2(c) ** c.t)),
    known("m-keeps-lr", "an m that is multiplied by lr where it is kept", _STORED, m_kept=lambda c: c.h["lr"] * c.m),
)
_FIXED = (
    known("betas-hard-coded", "betas of (0.9, 0.99) whatever the argument says", "Is the argument read?",
          h=fixed(betas0=0.9, betas1=0.99)),
    known("betas-of-adam", "betas of (0.9, 0.999) whatever the argument says", "Is the argument read?",
          h=fixed(betas0=0.9, betas1=0.999)),
    known("betas-for-language-models", "betas of (0.95, 0.98) whatever the argument says", "Is the argument read?",
          h=fixed(betas0=0.95, betas1=0.98)),
    known("beta1-hard-coded", "a beta1 of 0.9 whatever the argument says", "Is the argument read?",
          h=fixed(betas0=0.9)),
    known("beta2-hard-coded", "a beta2 of 0.99 whatever the argument says", "Is the argument read?",
          h=fixed(betas1=0.99)),
)
_DECOUPLED = "c and m see the bare gradient. What does the weight see?"
_FACTORS = "By which factor does a weight shrink that has no gradient?"
_DECAY = (
    known("decay-missing", "no weight decay", "Where does weight_decay enter?", decayed=lambda c: c.p),
    known("decay-in-gradient", "an L2 term in the gradient: c and m see the decay, and the sign takes its size away",
          _DECOUPLED, g=_penalised, decayed=lambda c: c.p),
    known("decay-inside-sign", "a decay term inside the sign: sign(c + weight_decay * p)",
          "Does the decay stand inside the sign or beside it?",
          direction=lambda c: np.sign(c.mix + c.h["weight_decay"] * c.p), decayed=lambda c: c.p),
    known("decay-also-in-gradient", "weight decay applied twice: in the gradient and on the weight",
          _DECOUPLED, g=_penalised),
    known("decay-in-m-only", "a decay term that enters m and nothing else", _DECOUPLED, decayed=lambda c: c.p,
          m=lambda c: _b2(c) * c.m_kept + (1 - _b2(c)) * _penalised(c)),
    known("decay-without-lr", "a decay by 1 - weight_decay per step, not scaled by the learning rate", _FACTORS,
          decayed=lambda c: c.p * (1 - c.h["weight_decay"])),
    known("decay-after-step", "a decay of the weight after the step instead of before it",
          "Which weight is decayed: the old one or the new one?", decayed=lambda c: c.p,
          p=lambda c: (c.decayed - c.step) * (1 - _wd(c))),
    known("decay-sign", "a decay with the wrong sign: the weights grow", _FACTORS,
          decayed=lambda c: c.p * (1 + _wd(c))),
    known("decay-lr-twice", "a decay scaled by the learning rate twice", "Count the factors lr.",
          decayed=lambda c: c.p * (1 - c.h["lr"] * _wd(c))),
    known("decay-squared", "a decay with weight_decay squared", "Count the factors weight_decay.",
          decayed=lambda c: c.p * (1 - _wd(c) * c.h["weight_decay"])),
    known("decay-doubled", "a decay by 2 * lr * weight_decay", _FACTORS, decayed=lambda c: c.p * (1 - 2 * _wd(c))),
    known("decay-halved", "a decay by half of lr * weight_decay", _FACTORS, decayed=lambda c: c.p * (1 - _wd(c) / 2)),
    known("decay-hard-coded", "a weight_decay of 0.01 whatever the argument says", "Is the argument read?",
          decayed=lambda c: c.p * (1 - c.h["lr"] * 0.01)),
    known("decay-l1", "a decay by lr * weight_decay towards zero whatever the weight's size", _FACTORS,
          decayed=lambda c: c.p - _wd(c) * np.sign(c.p)),
    known("decay-exponential", "a decay by exp(-lr * weight_decay)",
          "Close: the rule has the first term of that series.",
          kind=OTHER_SPECIFICATION, decayed=lambda c: c.p * np.exp(-_wd(c))),
    known("decay-times-gain", "a decay scaled by 1 - beta1", _FACTORS,
          decayed=lambda c: c.p * (1 - (1 - _b1(c)) * _wd(c))),
    known("decay-lr-frozen", "a decay that keeps the first learning rate when a schedule changes it",
          "Which learning rate does the decay see?", decayed=lambda c: c.p * (1 - c.h0["lr"] * c.h["weight_decay"])),
    known("decay-first-step-only", "a decay at the first step only", "How often does a weight decay?",
          decayed=lambda c: np.where(c.t == 1, c.p * (1 - _wd(c)), c.p)),
    known("decay-where-missing", "a decay of parameters whose gradient is missing",
          "What should happen to a parameter that took no part in this backward pass?",
          afterwards=lambda c: np.where(c.has, c.p, c.p * (1 - _wd(c)))),
    known("decay-needs-gradient", "a decay only where the gradient is not zero", "What is decoupled from what?",
          decayed=lambda c: np.where(c.g != 0, c.p * (1 - _wd(c)), c.p)),
    known("decay-where-agreed", "a decay only where the step goes towards zero, too", "What is decoupled from what?",
          kind=OTHER_SPECIFICATION, p=lambda c: np.where(c.direction * c.p > 0, c.p * (1 - _wd(c)), c.p) - c.step),
    known("decay-to-start", "a decay towards the starting values instead of zero", "Towards what do the weights decay?",
          decayed=lambda c: c.p - _wd(c) * (c.p - c.start)),
    known("decay-matrices-only", "a decay of matrices only", "The groups say what decays, not the shapes.",
          decayed=lambda c: np.where(c.dims >= 2, c.p * (1 - _wd(c)), c.p)),
)

FAMILY = Family(
    LION,
    ("p", "m_kept"),
    (
        *_DIRECTION, *_MEMORY, *_FIXED, *_DECAY, *(m for m in STEP if m.code != "sign-only"), LR_MISSING, *GRADIENT,
        *walking(HYPERS, counts_steps=False),
    ),
)
