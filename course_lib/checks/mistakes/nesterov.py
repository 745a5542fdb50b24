"""Nesterov's momentum in torch's form as a program, and the ways people get it wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import DECAY, END, GRADIENT, LR_MISSING, START, STEP
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "momentum", "weight_decay")


def _mu(c: SimpleNamespace) -> np.ndarray:
    return c.h["momentum"]


def _ahead(c: SimpleNamespace) -> np.ndarray:
    return c.g + _mu(c) * c.buf


NESTEROV: Program = {
    **START,
    "buf": lambda c: _mu(c) * c.buf_kept + c.g,
    "direction": _ahead,
    "buf_kept": lambda c: c.buf,
    "last_kept": lambda c: c.g,
    **END,
}


def _momentum_of_step(c: SimpleNamespace) -> dict[str, np.ndarray]:
    return {**c.h, "momentum": c.t / (c.t + 3)}  # t counts the steps before this one


_LOOK = "How far ahead does the step look, and along what?"
_BUFFER = (
    known("lr-inside-buffer", "a learning rate inside the buffer: `v = momentum * v - lr * g; p += momentum * v - lr "
          "* g`, as Sutskever et al. and Keras have it",
          "The two agree until the learning rate changes. Which one does torch use?", kind=OTHER_SPECIFICATION,
          buf=lambda c: _mu(c) * c.buf_kept + c.h["lr"] * c.g, step=lambda c: c.h["lr"] * c.g + _mu(c) * c.buf),
    known("averages-both", "an average in place of a sum, and the look-ahead weighed to match, as torch.optim.Muon "
          "has it: `buf = momentum * buf + (1 - momentum) * g; d = (1 - momentum) * g + momentum * buf`",
          "torch.optim.SGD's buffer has gain 1 / (1 - momentum).", kind=OTHER_SPECIFICATION,
          buf=lambda c: _mu(c) * c.buf_kept + (1 - _mu(c)) * c.g,
          direction=lambda c: (1 - _mu(c)) * c.g + _mu(c) * c.buf),
    known("momentum-grows",
          "a momentum of (t - 1) / (t + 2) instead of the argument, as in Su, Boyd & Candès (2014) after Nesterov 1983",
          "Here momentum is a number, the same at every step.", kind=OTHER_SPECIFICATION, h=_momentum_of_step),
    known("buffer-averages", "an average in place of a sum: `buf = momentum * buf + (1 - momentum) * g`",
          "torch's buffer has gain 1 / (1 - momentum).", buf=lambda c: _mu(c) * c.buf_kept + (1 - _mu(c)) * c.g),
    known("buffer-averages-after-first", "an average in place of a sum, from the second step on",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: np.where(c.t == 1, c.g, _mu(c) * c.buf_kept + (1 - _mu(c)) * c.g)),
    known("buffer-weights-swapped", "a buffer with its weights exchanged: `(1 - momentum) * buf + momentum * g`",
          "Does momentum weigh the past or the present?", buf=lambda c: (1 - _mu(c)) * c.buf_kept + _mu(c) * c.g),
    known("buffer-forgets", "a buffer that forgets its past at every step",
          "Is the buffer kept from one step to the next?", buf=lambda c: c.g),
    known("buffer-never-decays", "a buffer that never decays: `buf += g`", "What multiplies the old buffer?",
          buf=lambda c: c.buf_kept + c.g),
    known("first-buffer-zero", "a first buffer of zeros: the first gradient is not remembered (or, in the form with "
          "differences of gradients, a first difference of zero)",
          "What does the buffer hold after the very first step?",
          buf=lambda c: np.where(c.t == 1, 0.0, _mu(c) * c.buf_kept + c.g)),
    known("first-buffer-twice", "a first buffer of (1 + momentum) * g: the buffer starts at the first gradient, which is "
          "then added once more", "How often does the first gradient go into the buffer?",
          buf=lambda c: np.where(c.t == 1, (1 + _mu(c)) * c.g, _mu(c) * c.buf_kept + c.g)),
    known("first-buffer-dampened", "a first buffer of (1 - momentum) * g, from which the sum goes on",
          "torch takes the first gradient whole.",
          buf=lambda c: np.where(c.t == 1, (1 - _mu(c)) * c.g, _mu(c) * c.buf_kept + c.g)),
    known("buffer-stays-at-first", "a buffer that stays at the first gradient: later ones are computed and not kept",
          "Which name does the next step read the buffer from?",
          buf_kept=lambda c: np.where(c.t == 1, c.buf, c.buf_kept)),
    known("buffer-per-tensor", "one buffer for a whole tensor: of the mean of its gradients",
          "The buffer has the parameter's shape.", buf=lambda c: _mu(c) * c.buf_kept + c.mean(c.g)),
    known("buffer-corrected", "Adam's bias correction: buf / (1 - momentum^t)", "torch's buffer is a sum, not an average.",
          direction=lambda c: c.g + _mu(c) * c.buf / (1 - _mu(c) ** c.t)),
    known("averages-corrected", "an average in place of a sum, with Adam's bias correction: "
          "`buf = momentum * buf + (1 - momentum) * g`, divided by 1 - momentum^t",
          "torch's buffer has gain 1 / (1 - momentum).",
          buf=lambda c: _mu(c) * c.buf_kept + (1 - _mu(c)) * c.g,
          direction=lambda c: c.g + _mu(c) * c.buf / (1 - _mu(c) ** c.t)),
    known("lr-inside-buffer-and-step", "a learning rate inside the buffer and in front of the whole step as well",
          "Count the factors lr in front of the buffer.", buf=lambda c: _mu(c) * c.buf_kept + c.h["lr"] * c.g),
    known("lr-on-gradient-only", "a learning rate that multiplies the gradient and not the buffer: "
          "`lr * g + momentum * buf`", "Where do the brackets stand?", step=lambda c: c.h["lr"] * c.g + _mu(c) * c.buf),
    known("buffer-starts-at-parameter", "a buffer that starts as a copy of the parameter",
          "Where does the buffer start?", buf=lambda c: _mu(c) * np.where(c.t == 1, c.p, c.buf_kept) + c.g),
    known("buffer-of-step", "a buffer that takes up the look-ahead: what is kept is g + momentum * buf",
          "Which of your operations end in an underscore?", buf_kept=_ahead),
    known("buffer-scaled-in-place", "a look-ahead that multiplies the buffer by momentum where it is kept",
          "Which of your operations end in an underscore?", buf_kept=lambda c: _mu(c) * c.buf),
    known("buffer-keeps-lr", "a buffer that is multiplied by lr where it is kept",
          "Which of your operations end in an underscore?", buf_kept=lambda c: c.h["lr"] * c.buf),
    known("momentum-hard-coded", "a momentum of 0.9 whatever the argument says", "Is the argument read?",
          buf=lambda c: 0.9 * c.buf_kept + c.g, direction=lambda c: c.g + 0.9 * c.buf),
    known("momentum-hard-coded-99", "a momentum of 0.99 whatever the argument says", "Is the argument read?",
          buf=lambda c: 0.99 * c.buf_kept + c.g, direction=lambda c: c.g + 0.99 * c.buf),
    known("momentum-hard-coded-in-buffer", "a momentum of 0.9 in the buffer whatever the argument says",
          "Is the argument read in every line?", buf=lambda c: 0.9 * c.buf_kept + c.g),
    known("momentum-hard-coded-in-look-ahead", "a momentum of 0.9 in the look-ahead whatever the argument says",
          "Is the argument read in every line?", direction=lambda c: c.g + 0.9 * c.buf),
)
_LOOK_AHEAD = (
    known("heavy-ball",
          "the plain heavy ball: a step along the buffer (which is also what `g + momentum * old buffer` is)",
          "What does Nesterov's step add to the buffer's? Which buffer stands in it, the old one or the new one?",
          direction=lambda c: c.buf),
    known("no-momentum", "plain gradient descent: the buffer is never used", "Along what do you step?",
          direction=lambda c: c.g),
    known("look-ahead-on-gradient", "momentum on the gradient instead of the buffer: buf + momentum * g",
          "Which of the two is scaled, and which is whole?", direction=lambda c: c.buf + _mu(c) * c.g),
    known("look-ahead-twice", "a look-ahead applied twice: g + momentum * (g + momentum * buf)", _LOOK,
          direction=lambda c: c.g + _mu(c) * _ahead(c)),
    known("look-ahead-squared", "a look-ahead with momentum squared, g + momentum**2 * buf (which a buffer of "
          "`momentum * (buf + g)` gives as well)", _LOOK, direction=lambda c: c.g + _mu(c) ** 2 * c.buf),
    known("look-ahead-whole", "a look-ahead without momentum: g + buf", "What multiplies the buffer in the step?",
          direction=lambda c: c.g + c.buf),
    known("look-ahead-only", "a step along momentum * buf without the gradient itself",
          "Where does the present gradient enter the step?", direction=lambda c: _mu(c) * c.buf),
    known("look-ahead-beyond",
          "a step along buf + momentum * buf: the whole new velocity, and momentum times it once more", _LOOK,
          direction=lambda c: (1 + _mu(c)) * c.buf),
    known("look-ahead-old-velocity", "a step along buf + momentum * old buffer",
          "Which velocity has been walked already when the gradient arrives?",
          direction=lambda c: c.buf + _mu(c) * c.buf_kept),
    known("look-ahead-added-back", "a step of (1 + momentum) * buf + momentum * old buffer",
          "The old look-ahead: is it added, or taken back?",
          direction=lambda c: (1 + _mu(c)) * c.buf + _mu(c) * c.buf_kept),
    known("look-ahead-taken-back-whole", "a step of (1 + momentum) * buf - old buffer",
          "How far had the last step looked ahead?", direction=lambda c: (1 + _mu(c)) * c.buf - c.buf_kept),
    known("look-ahead-averages", "a step between gradient and buffer: (1 - momentum) * g + momentum * buf",
          "Which of the two is scaled, and which is whole?", direction=lambda c: (1 - _mu(c)) * c.g + _mu(c) * c.buf),
    known("look-ahead-not-at-first", "a first step along the bare gradient, without a look-ahead",
          "Is there a buffer at the first step already?", direction=lambda c: np.where(c.t == 1, c.g, _ahead(c))),
    known("look-ahead-subtracted", "a look-ahead with the wrong sign: g - momentum * buf", _LOOK,
          direction=lambda c: c.g - _mu(c) * c.buf),
    known("extrapolates-gradient", "an extrapolated gradient and no velocity: g + momentum * (g - last g)",
          "What is remembered of the gradients before the last one?",
          direction=lambda c: c.g + _mu(c) * (c.g - c.last_kept)),
    known("extrapolates-beside-buffer", "the heavy ball's buffer plus momentum * (g - last g)",
          "Does the buffer remember the difference as well? Work out two steps by hand.",
          direction=lambda c: c.buf + _mu(c) * (c.g - c.last_kept)),
    known("decay-in-buffer-only", "an L2 term that the buffer sees and the bare gradient of the step does not",
          "How often does the gradient stand in the rule?", direction=lambda c: c.raw + _mu(c) * c.buf),
)

FAMILY = Family(
    NESTEROV,
    ("p", "buf_kept", "last_kept"),
    (*_BUFFER, *_LOOK_AHEAD, *STEP, LR_MISSING, *DECAY, *GRADIENT, *walking(HYPERS, counts_steps=False)),
)
