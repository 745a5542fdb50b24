"""AdaGrad as a program, and the ways people get it wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.common import DECAY, DENOMINATOR, END, GRADIENT, LR_MISSING, START, STEP, norm, squares
from course_lib.checks.mistakes.engine import Family, Program, known
from course_lib.checks.mistakes.walking import walking
from course_lib.checks.report import OTHER_SPECIFICATION

HYPERS = ("lr", "eps", "weight_decay")


def _sum(c: SimpleNamespace, x: np.ndarray, old: np.ndarray | None = None) -> np.ndarray:
    return (c.v_kept if old is None else old) + x


ADAGRAD: Program = {
    **START,
    "total_g": lambda c: c.total_g + c.g,
    "v": lambda c: _sum(c, c.g**2),
    "v_used": lambda c: c.v,
    "denominator": lambda c: np.sqrt(c.v_used) + c.h["eps"],
    "direction": lambda c: c.g / c.denominator,
    "v_kept": lambda c: c.v,
    "last_kept": lambda c: c.direction,
    **END,
}


def _started(first: float):
    return lambda c: _sum(c, c.g**2, np.where(c.t == 1, first, c.v_kept))


def _leaking(factor: float):
    return lambda c: factor * c.v_kept + c.g**2


def _inside(c: SimpleNamespace) -> np.ndarray:
    return np.sqrt(c.v_used + c.h["eps"])


_FORGETS = "What happens to old squares in AdaGrad, and what in RMSProp?"
_MISTAKES = (
    known("eps-inside-root",
          "an epsilon inside the square root (or a sum that starts at eps), as Ruder's survey (2016) writes it",
          "Is eps added before or after the root?", kind=OTHER_SPECIFICATION, denominator=_inside),
    known("as-in-keras", "Keras's and TensorFlow's AdaGrad: a sum that starts at 0.1, and eps inside the root",
          "Where does torch's sum start, and where is eps added?", kind=OTHER_SPECIFICATION, v=_started(0.1),
          denominator=_inside),
    known("v-starts-at-tenth", "a sum that starts at 0.1, Keras's and TensorFlow's initial accumulator",
          "Where does torch's sum start?", kind=OTHER_SPECIFICATION, v=_started(0.1)),
    known("dual-averaging", "AdaGrad's other form in Duchi et al. (2011), dual averaging: from the start, lr times "
          "the sum of all gradients over the root", "From where does each step set out?", kind=OTHER_SPECIFICATION,
          p=lambda c: c.start - c.h["lr"] * c.total_g / c.denominator),
    known("one-norm", "AdaGrad-Norm (Ward et al. 2019): one sum for a whole tensor, of its squared norms",
          "v has the parameter's shape.", kind=OTHER_SPECIFICATION, v=lambda c: _sum(c, norm(c, c.g) ** 2)),
    known("row-wise", "row-wise AdaGrad, as recommender systems keep it: one sum for a row, of the mean of its squares",
          "v has the parameter's shape.", kind=OTHER_SPECIFICATION,
          v=lambda c: _sum(c, np.where(c.dims > 0, c.row_mean(c.g**2), c.g**2))),
    known("v-forgets", "a sum that forgets its past at every step: v is the last square alone",
          "Is v kept from one step to the next?", v=lambda c: c.g**2),
    known("v-averages-90", "RMSProp's average with 0.9 in place of the sum", _FORGETS,
          v=lambda c: 0.9 * c.v_kept + 0.1 * c.g**2),
    known("v-averages-99", "RMSProp's average with 0.99 in place of the sum", _FORGETS,
          v=lambda c: 0.99 * c.v_kept + 0.01 * c.g**2),
    known("v-averages-999", "an average with 0.999 in place of the sum", _FORGETS,
          v=lambda c: 0.999 * c.v_kept + 0.001 * c.g**2),
    known("v-leaks", "a sum that leaks: `v = 0.9 * v + g**2`", _FORGETS, v=_leaking(0.9)),
    known("v-leaks-99", "a sum that leaks: `v = 0.99 * v + g**2`", _FORGETS, v=_leaking(0.99)),
    known("v-leaks-999", "a sum that leaks: `v = 0.999 * v + g**2`", _FORGETS, v=_leaking(0.999)),
    known("v-is-mean", "a mean of all squares: the sum divided by t", "Does AdaGrad divide by the number of gradients?",
          v_used=lambda c: c.v / c.t),
    known("v-is-variance", "a variance: squares of the gradients' distances from their mean, added up",
          "AdaGrad's sum is not centred.", v_used=lambda c: c.v - c.total_g**2 / c.t),
    known("v-square-of-sum",
          "the square of the sum in place of the sum of the squares: the gradients are added up, then squared",
          "What comes first, the square or the sum?", v_used=lambda c: c.total_g**2),
    known("v-sum-of-roots", "a sum of |g| that no root is taken of: the root of each square, added up",
          "What comes first, the root or the sum?", v=lambda c: _sum(c, np.abs(c.g)),
          denominator=lambda c: c.v_used + c.h["eps"]),
    known("v-is-maximum", "the largest square so far in place of the sum",
          "What is the denominator after n equal gradients?", v=lambda c: np.maximum(c.v_kept, c.g**2)),
    known("v-counts-first-twice", "a sum that starts at the first square, to which the first square is added once more",
          "What is v before the first gradient?", v=lambda c: _sum(c, c.g**2, np.where(c.t == 1, c.g**2, c.v_kept))),
    known("v-counts-twice", "a sum to which each square is added twice", "How often is the square added in one step?",
          v=lambda c: _sum(c, 2 * c.g**2)),
    known("v-misses-first", "a sum that is made at the first step and does not take the first square in",
          "What is v after the first gradient?", v=lambda c: np.where(c.t == 1, 0.0, _sum(c, c.g**2))),
    known("v-corrected", "Adam's bias correction with 0.999: v / (1 - 0.999^t)", "Is a sum too small at its start?",
          v_used=lambda c: c.v / (1 - 0.999**c.t)),
    known("plain-descent", "plain gradient descent: lr times the gradient, which nothing divides", "What is v for?",
          direction=lambda c: c.g),
    known("first-step-plain", "a first step along the bare gradient, which nothing divides",
          "Is there a sum at the first step already?", direction=lambda c: np.where(c.t == 1, c.g, c.g / c.denominator)),
    known("momentum-added", "a momentum of 0.9 on top of AdaGrad's update", "AdaGrad keeps one thing: the sum of squares.",
          direction=lambda c: 0.9 * c.last_kept + c.g / c.denominator),
    known("sign-above", "the gradient's sign in the numerator", "Which gradient stands above the fraction?",
          direction=lambda c: np.sign(c.g) / c.denominator),
    known("lr-decays", "a learning rate that decays by torch's lr_decay of 1e-3", "torch's lr_decay is 0 unless it is asked for.",
          step=lambda c: c.h["lr"] / (1 + 1e-3 * (c.t - 1)) * c.direction),
    known("sum-above", "the sum of all gradients in the numerator", "Which gradient stands above the fraction?",
          direction=lambda c: c.total_g / c.denominator),
)

FAMILY = Family(
    ADAGRAD,
    ("p", "v", "v_kept", "last_kept", "total_g"),
    (
        *_MISTAKES, *DENOMINATOR, *squares("sum", _sum), *STEP, LR_MISSING, *DECAY, *GRADIENT,
        *walking(HYPERS, counts_steps=False),
    ),
)
