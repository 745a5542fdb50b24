"""SGD with momentum as a program, and the ways people get it wrong."""

from __future__ import annotations

import numpy as np

from course_lib.checks.mistakes.common import DECAY, END, GRADIENT, LR_MISSING, START, STEP
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "momentum", "dampening", "weight_decay")

MOMENTUM: Program = {
    **START,
    "buf": lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + (1 - c.h["dampening"]) * c.g),
    "direction": lambda c: c.buf,
    "buf_kept": lambda c: c.buf,
    **END,
}

_MISTAKES = (
    known("first-buffer-dampened", "a first buffer of (1 - dampening) * g", "torch takes the first gradient whole.",
          kind=OTHER_SPECIFICATION, buf=lambda c: c.h["momentum"] * c.buf_kept + (1 - c.h["dampening"]) * c.g),
    known("lr-inside-buffer",
          "a learning rate inside the buffer: `buf = momentum * buf + lr * g; p -= buf`, as in Sutskever et al.",
          "The two agree until the learning rate changes. Which one does torch use?", kind=OTHER_SPECIFICATION,
          buf=lambda c: c.h["lr"] * c.g * np.where(c.t == 1, 1, 1 - c.h["dampening"]) + c.h["momentum"] * c.buf_kept,
          step=lambda c: c.direction),
    known("nesterov-always", "Nesterov's step: g + momentum * buf", "Heavy ball steps along the buffer.",
          kind=OTHER_SPECIFICATION, direction=lambda c: c.g + c.h["momentum"] * c.buf),
    known("dampening-ignored", "a buffer without dampening", "What multiplies the new gradient?",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + c.g)),
    known("dampening-on-buffer",
          "a dampening that multiplies the old buffer as well: `(1 - dampening) * (momentum * buf + g)`",
          "What multiplies the new gradient, and what the old buffer?",
          buf=lambda c: np.where(c.t == 1, c.g, (1 - c.h["dampening"]) * (c.h["momentum"] * c.buf_kept + c.g))),
    known("dampening-as-weight", "a new gradient multiplied by dampening instead of 1 - dampening",
          "What does no dampening look like?",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + c.h["dampening"] * c.g)),
    known("buffer-averages", "an average in place of a sum: `buf = momentum * buf + (1 - momentum) * g`",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: c.h["momentum"] * c.buf_kept + (1 - c.h["momentum"]) * c.g),
    known("buffer-averages-after-first", "an average in place of a sum, from the second step on",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * c.buf_kept + (1 - c.h["momentum"]) * c.g)),
    known("buffer-weights-swapped", "a buffer with its weights exchanged: `(1 - momentum) * buf + momentum * g`",
          "Does momentum weigh the past or the present?",
          buf=lambda c: np.where(c.t == 1, c.g, (1 - c.h["momentum"]) * c.buf_kept + c.h["momentum"] * c.g)),
    known("buffer-forgets", "a buffer that forgets its past at every step",
          "Is the buffer kept from one step to the next?",
          buf=lambda c: np.where(c.t == 1, c.g, (1 - c.h["dampening"]) * c.g)),
    known("buffer-never-decays", "a buffer that never decays: `buf += g`", "What multiplies the old buffer?",
          buf=lambda c: np.where(c.t == 1, c.g, c.buf_kept + (1 - c.h["dampening"]) * c.g)),
    known("first-buffer-zero", "a first buffer of zeros: the first gradient is lost",
          "What does the buffer hold after the very first step?",
          buf=lambda c: np.where(c.t == 1, 0.0, c.h["momentum"] * c.buf_kept + (1 - c.h["dampening"]) * c.g)),
    known("buffer-keeps-lr", "a buffer that is multiplied by lr where it is kept",
          "Which of your operations end in an underscore?", buf_kept=lambda c: c.h["lr"] * c.buf),
    known("no-momentum", "plain gradient descent: the buffer is never used", "Along what do you step?",
          direction=lambda c: c.g),
    known("buffer-lags", "a step along the buffer from before this gradient",
          "In which order do you update the buffer and use it?", direction=lambda c: c.buf_kept),
    known("gradient-twice", "a step along g + buf", "The gradient is in the buffer already.",
          direction=lambda c: c.g + c.buf),
    known("momentum-after-sum", "a buffer that multiplies the new gradient by momentum too: `momentum * (buf + g)`",
          "What does momentum multiply?",
          buf=lambda c: np.where(c.t == 1, c.g, c.h["momentum"] * (c.buf_kept + (1 - c.h["dampening"]) * c.g))),
    known("momentum-hard-coded", "a momentum of 0.9 whatever the argument says", "Is the argument read?",
          buf=lambda c: np.where(c.t == 1, c.g, 0.9 * c.buf_kept + (1 - c.h["dampening"]) * c.g)),
)

FAMILY = Family(
    MOMENTUM,
    ("p", "buf_kept"),
    (*_MISTAKES, *STEP, LR_MISSING, *DECAY, *GRADIENT, *walking(HYPERS, counts_steps=False)),
)
