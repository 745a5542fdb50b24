"""SGD with momentum as a program, and the ways people get it wrong."""

from __future__ import annotations

import numpy as np

from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "momentum", "dampening", "weight_decay")

MOMENTUM: Program = {
    "h": lambda c: c.h,
    "active": lambda c: c.has,
    "t": lambda c: c.t + 1,
    "g": lambda c: c.g + c.h["weight_decay"] * c.p,
    "decayed": lambda c: c.p,
    "buf": lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + (1 - c.h["dampening"]) * c.g),
    "direction": lambda c: c.buf,
    "buf_kept": lambda c: c.buf,
    "p": lambda c: c.decayed - c.h["lr"] * c.direction,
}


def _raw(c):
    return c.g


_MISTAKES = (
    known("first-buffer-dampened", "a first buffer of (1 - dampening) * g", "torch takes the first gradient whole.",
          kind=OTHER_SPECIFICATION, buf=lambda c: c.h["momentum"] * c.buf_kept + (1 - c.h["dampening"]) * c.g),
    known("lr-inside-buffer", "a learning rate inside the buffer: `buf = momentum * buf + lr * g; p -= buf`, as in Sutskever et al.",
          "The two agree until the learning rate changes. Which one does torch use?", kind=OTHER_SPECIFICATION,
          buf=lambda c: np.where(c.t == 1, c.h["lr"] * c.g, c.h["momentum"] * c.buf_kept + c.h["lr"] * (1 - c.h["dampening"]) * c.g),
          p=lambda c: c.decayed - c.direction),
    known("nesterov-always", "Nesterov's step: g + momentum * buf", "Heavy ball steps along the buffer.", kind=OTHER_SPECIFICATION,
          direction=lambda c: c.g + c.h["momentum"] * c.buf),
    known("dampening-ignored", "a buffer without dampening", "What multiplies the new gradient?",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + c.g)),
    known("buffer-averages", "an average in place of a sum: `buf = momentum * buf + (1 - momentum) * g`",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: c.h["momentum"] * c.buf_kept + (1 - c.h["momentum"]) * c.g),
    known("buffer-averages-after-first", "an average in place of a sum, from the second step on",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + (1 - c.h["momentum"]) * c.g)),
    known("buffer-weights-swapped", "a buffer with its weights exchanged: `(1 - momentum) * buf + momentum * g`",
          "Does momentum weigh the past or the present?",
          buf=lambda c: np.where(c.t == 1, c.g, (1 - c.h["momentum"]) * c.buf_kept + c.h["momentum"] * c.g)),
    known("buffer-forgets", "a buffer that forgets its past at every step", "Is the buffer kept from one step to the next?",
          buf=lambda c: np.where(c.t == 1, c.g, (1 - c.h["dampening"]) * c.g)),
    known("buffer-never-decays", "a buffer that never decays: `buf += g`", "What multiplies the old buffer?",
          buf=lambda c: np.where(c.t == 1, c.g, c.buf_kept + (1 - c.h["dampening"]) * c.g)),
    known("no-momentum", "plain gradient descent: the buffer is never used", "Along what do you step?", direction=_raw),
    known("buffer-lags", "a step along the buffer from before this gradient", "In which order do you update the buffer and use it?",
          direction=lambda c: c.buf_kept),
    known("gradient-twice", "a step along g + buf", "The gradient is in the buffer already.", direction=lambda c: c.g + c.buf),
    known("momentum-after-sum", "a buffer that multiplies the new gradient by momentum too: `momentum * (buf + g)`",
          "What does momentum multiply?",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * (c.buf_kept + (1 - c.h["dampening"]) * c.g))),
    known("momentum-hard-coded", "a momentum of 0.9 whatever the argument says", "Is the argument read?",
          buf=lambda c: np.where(c.t == 1, c.g, 0.9 * c.buf_kept + (1 - c.h["dampening"]) * c.g)),
    known("decay-missing", "no weight decay", "Where does weight_decay enter?", g=_raw),
    known("decay-decoupled", "decoupled decay: the weight shrinks by lr * weight_decay and the buffer never sees it (SGDW)",
          "This exercise's weight_decay is the L2 term of the loss.", kind=OTHER_SPECIFICATION, g=_raw,
          decayed=lambda c: c.p * (1 - c.h["lr"] * c.h["weight_decay"])),
    known("decay-without-lr", "a decay of the weight by weight_decay, not scaled by lr", "What multiplies the penalty's gradient?", g=_raw,
          decayed=lambda c: c.p * (1 - c.h["weight_decay"])),
    known("decay-both-ways", "weight decay applied twice: in the gradient and on the weight", "Once is enough; which one?",
          decayed=lambda c: c.p * (1 - c.h["lr"] * c.h["weight_decay"])),
    known("decay-sign", "an L2 term with the wrong sign: the weights are pushed outwards", "What is the gradient of the penalty?",
          g=lambda c: c.g - c.h["weight_decay"] * c.p),
    known("decay-doubled", "an L2 term of 2 * weight_decay * p", "torch's penalty is weight_decay / 2 times the squared norm.",
          g=lambda c: c.g + 2 * c.h["weight_decay"] * c.p),
    known("decay-l1", "an L1 term: weight_decay times the sign of the weight", "What is the gradient of a squared norm?",
          g=lambda c: c.g + c.h["weight_decay"] * np.sign(c.p)),
    known("decay-with-lr", "an L2 term already multiplied by lr", "The learning rate comes in with the step.",
          g=lambda c: c.g + c.h["lr"] * c.h["weight_decay"] * c.p),
    known("ascends", "a step uphill: the update is added", "Which way is down?", p=lambda c: c.decayed + c.h["lr"] * c.direction),
    known("lr-twice", "a learning rate that is applied twice", "Count the factors lr.", p=lambda c: c.decayed - c.h["lr"] ** 2 * c.direction),
    known("lr-missing", "a step without the learning rate", "What scales the update?", p=lambda c: c.decayed - c.direction),
    known("sign-only", "a step of lr times the sign of the buffer", "The buffer's size matters.", direction=lambda c: np.sign(c.buf)),
)

FAMILY = Family(MOMENTUM, ("p", "buf_kept"), (*_MISTAKES, *walking(HYPERS, counts_steps=False)))
