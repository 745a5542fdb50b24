"""Mistakes that more than one optimizer invites, for programs that share the names of their formulas.

``raw`` is the gradient as it came, ``g`` the gradient with the L2 term, ``direction`` the update before the learning
rate, ``step`` the update with it, ``decayed`` the parameter from which it is taken. What an optimizer remembers of
squared gradients is ``v``; ``v_used`` is what the denominator takes of it and ``v_kept`` what the next step finds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.engine import Program, known
from course_lib.checks.report import OTHER_SPECIFICATION

Fold = Callable[..., np.ndarray]

START: Program = {
    "h": lambda c: c.h,
    "active": lambda c: c.has,
    "t": lambda c: c.t + 1,
    "raw": lambda c: c.g,
    "g": lambda c: c.raw + c.h["weight_decay"] * c.p,
    "decayed": lambda c: c.p,
}
END: Program = {
    "step": lambda c: c.h["lr"] * c.direction,
    "p": lambda c: c.decayed - c.step,
}


def norm(c: SimpleNamespace, x: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each element's tensor."""
    return np.sqrt(c.total(x**2))


def fixed(**values: float) -> Callable[[SimpleNamespace], dict[str, np.ndarray]]:
    """A formula for ``h``: these hyper-parameters have these values, whatever the argument says."""
    return lambda c: {**c.h, **{name: np.full_like(c.h[name], value) for name, value in values.items()}}


def _bare(c: SimpleNamespace) -> np.ndarray:
    return c.raw


def _shrunk(c: SimpleNamespace) -> np.ndarray:
    return c.p * (1 - c.h["lr"] * c.h["weight_decay"])


def _clipped_with_decay(c: SimpleNamespace) -> np.ndarray:
    whole = c.raw + c.h["weight_decay"] * c.p
    return whole * np.minimum(1, 1 / (norm(c, whole) + 1e-300))


_OUTSIDE = "Clipping is the training loop's business."
_PENALTY = "What is the gradient of the penalty?"
DECAY = (
    known("gradient-negated", "a gradient with its sign turned, the weight decay as it should be", "Which way is down?",
          raw=lambda c: -c.g),
    known("decay-missing", "no weight decay", "Where does weight_decay enter?", g=_bare),
    known("decay-decoupled", "decoupled decay, as in AdamW and SGDW: the weight shrinks by lr * weight_decay, and "
          "what is remembered never sees it", "This exercise's weight_decay is the L2 term of the loss.",
          kind=OTHER_SPECIFICATION, g=_bare, decayed=_shrunk),
    known("decay-decoupled-after", "decoupled decay, applied to the weight after the step",
          "This exercise's weight_decay is the L2 term of the loss.", g=_bare,
          p=lambda c: (c.decayed - c.step) * (1 - c.h["lr"] * c.h["weight_decay"])),
    known("decay-beside-step", "an L2 term that stays out of everything remembered and out of the learning rate: the "
          "weight shrinks by weight_decay", "What multiplies the penalty's gradient?", g=_bare,
          decayed=lambda c: c.p * (1 - c.h["weight_decay"])),
    known("decay-both-ways", "weight decay applied twice: in the gradient and on the weight",
          "Once is enough; which one?", decayed=_shrunk),
    known("decay-sign", "an L2 term with the wrong sign: the weights are pushed outwards", _PENALTY,
          g=lambda c: c.raw - c.h["weight_decay"] * c.p),
    known("decay-doubled", "an L2 term of 2 * weight_decay * p",
          "torch's penalty is weight_decay / 2 times the squared norm.",
          g=lambda c: c.raw + 2 * c.h["weight_decay"] * c.p),
    known("decay-l1", "an L1 term: weight_decay times the sign of the weight",
          "What is the gradient of a squared norm?", g=lambda c: c.raw + c.h["weight_decay"] * np.sign(c.p)),
    known("decay-squared", "an L2 term with weight_decay squared", "Count the factors weight_decay.",
          g=lambda c: c.raw + c.h["weight_decay"] ** 2 * c.p),
    known("decay-with-lr", "an L2 term already multiplied by lr", "The learning rate comes in with the step.",
          g=lambda c: c.raw + c.h["lr"] * c.h["weight_decay"] * c.p),
    known("decay-matrices-only", "an L2 term on matrices only", "The groups say what decays, not the shapes.",
          g=lambda c: c.raw + c.h["weight_decay"] * c.p * (c.dims >= 2)),
    known("decay-to-start", "a decay towards the starting values instead of zero", "Towards what do the weights decay?",
          g=lambda c: c.raw + c.h["weight_decay"] * (c.p - c.start)),
    known("decay-of-start", "an L2 term of the weight as it was at the start", "Which weight decays: that of now?",
          g=lambda c: c.raw + c.h["weight_decay"] * c.start),
    known("decay-scales-gradient", "a gradient multiplied by 1 + weight_decay", _PENALTY,
          g=lambda c: c.raw * (1 + c.h["weight_decay"])),
    known("clips-values-with-decay", "gradients, the L2 term with them, clipped to [-1, 1]", _OUTSIDE,
          g=lambda c: np.clip(c.raw + c.h["weight_decay"] * c.p, -1, 1)),
    known("clips-norm-with-decay", "each gradient, the L2 term with it, clipped to norm 1", _OUTSIDE,
          g=_clipped_with_decay),
)

GRADIENT = (
    known("clips-values", "gradients clipped to [-1, 1] before use", _OUTSIDE, raw=lambda c: np.clip(c.g, -1, 1)),
    known("clips-norm", "each gradient clipped to norm 1 before use", _OUTSIDE,
          raw=lambda c: c.g * np.minimum(1, 1 / (norm(c, c.g) + 1e-300))),
    known("normalises-gradient", "a gradient divided by its norm before use",
          "The rule takes the gradient as it comes.", raw=lambda c: c.g / (norm(c, c.g) + 1e-300)),
    known("gradient-centralised", "gradients of matrices with their row means taken off",
          "The rule takes the gradient as it comes.", raw=lambda c: np.where(c.dims >= 2, c.g - c.row_mean(c.g), c.g)),
)

STEP = (
    known("ascends", "a step uphill: the update is added", "Which way is down?", p=lambda c: c.decayed + c.step),
    known("lr-twice", "a learning rate that is applied twice", "Count the factors lr.",
          step=lambda c: c.h["lr"] ** 2 * c.direction),
    known("lr-hard-coded", "a learning rate of 1e-3 whatever the argument says", "Is the argument read?",
          step=lambda c: 1e-3 * c.direction),
    known("lr-over-root-t", "a learning rate divided by sqrt(t)", "Schedules live outside the optimizer.",
          step=lambda c: c.h["lr"] / np.sqrt(c.t) * c.direction),
    known("lr-over-t", "a learning rate divided by the step count", "Schedules live outside the optimizer.",
          step=lambda c: c.h["lr"] / c.t * c.direction),
    known("first-step-omitted", "a first step that fills what is remembered and does not move the parameter",
          "What does the rule do at the first step?", step=lambda c: np.where(c.t == 1, 0.0, c.h["lr"] * c.direction)),
    known("sign-only", "a step of lr times the sign of the update", "What decides how long the step is?",
          step=lambda c: c.h["lr"] * np.sign(c.direction)),
)
LR_MISSING = known(
    "lr-missing", "a step without the learning rate", "What scales the update?", step=lambda c: c.direction
)

_ROOT = "Is eps added before or after the root?"
DENOMINATOR = (  # of a rule that divides by sqrt(v) + eps
    known("eps-missing", "no epsilon", "What is the step where the gradient has always been zero?",
          denominator=lambda c: np.sqrt(c.v_used)),
    known("eps-hard-coded", "an epsilon so small that it does nothing (1e-8 or 1e-10, say), whatever the argument says",
          "Is the argument read?", denominator=lambda c: np.sqrt(c.v_used) + 1e-8),
    known("eps-as-floor", "an epsilon used as a floor: max(sqrt(v), eps)", "eps is added.",
          denominator=lambda c: np.maximum(np.sqrt(c.v_used), c.h["eps"])),
    known("eps-squared-inside-root", "an epsilon squared inside the root", _ROOT,
          denominator=lambda c: np.sqrt(c.v_used + c.h["eps"] ** 2)),
    known("eps-rooted", "the square root of eps in place of eps", _ROOT,
          denominator=lambda c: np.sqrt(c.v_used) + np.sqrt(c.h["eps"])),
    known("eps-subtracted", "an epsilon that is subtracted", "Which sign does eps have?",
          denominator=lambda c: np.sqrt(c.v_used) - c.h["eps"]),
    known("eps-twice", "an epsilon inside the root and outside it", "One eps is enough; which one?",
          denominator=lambda c: np.sqrt(c.v_used + c.h["eps"]) + c.h["eps"]),
    known("eps-outside-fraction", "an epsilon added to the fraction instead of the denominator: g / sqrt(v) + eps",
          "Where do the brackets stand?", direction=lambda c: c.g / np.sqrt(c.v_used) + c.h["eps"]),
    known("eps-outside-step", "an epsilon added to the whole step instead of the denominator: lr * g / sqrt(v) + eps",
          "Where do the brackets stand?", step=lambda c: c.h["lr"] * c.g / np.sqrt(c.v_used) + c.h["eps"]),
    known("root-missing", "a division by v + eps: the root is missing", "Which units does the step have?",
          denominator=lambda c: c.v_used + c.h["eps"]),
    known("root-twice", "a fourth root of v", "Count the roots.", denominator=lambda c: c.v_used**0.25 + c.h["eps"]),
    known("multiplies", "a multiplication by the denominator", "Should a large v lengthen the step or shorten it?",
          direction=lambda c: c.g * c.denominator),
    known("gradient-squared-above", "a squared gradient in the numerator", "Whose square is needed where?",
          direction=lambda c: c.g**2 / c.denominator),
    known("v-keeps-denominator", "a denominator that is stored back as v",
          "Which of your operations end in an underscore?", v_kept=lambda c: c.denominator),
)


def squares(what: str, fold: Fold) -> tuple:
    """Mistakes in what is remembered of the squared gradients.

    Args:
        what: the word for it, ``average`` or ``sum``.
        fold: ``fold(c, x, old)`` is the new v if x takes the place of the squared gradient and old that of the old v.
    """
    an = f"an {what}" if what == "average" else f"a {what}"

    return (
        known("v-not-squared", f"{an} of g instead of g squared", "What goes into v?", v=lambda c: fold(c, c.g)),
        known("v-of-absolute", f"{an} of |g| instead of g squared", "What goes into v?",
              v=lambda c: fold(c, np.abs(c.g))),
        known("v-per-tensor", f"one {what} for a whole tensor: of the mean of its squares",
              "v has the parameter's shape.", v=lambda c: fold(c, c.mean(c.g**2))),
        known("v-of-scaled-gradient", f"{an} of (lr * g) squared", "Where does the learning rate come in?",
              v=lambda c: fold(c, (c.h["lr"] * c.g) ** 2)),
        known("v-lags", "a denominator from before this gradient", "In which order do you update v and use it?",
              v_used=lambda c: c.v_kept),
        known("v-holds-eps", f"{an} into which eps is added at every step",
              "eps belongs to the denominator, not to what is remembered.", v=lambda c: fold(c, c.g**2) + c.h["eps"]),
        known("v-keeps-root", "a root that is stored back: v is replaced by its square root at every step",
              "Which of your operations end in an underscore?", v_kept=lambda c: np.sqrt(c.v)),
        known("v-starts-at-one", f"{an} that starts at one", "Where does torch's v start?",
              v=lambda c: fold(c, c.g**2, np.where(c.t == 1, 1.0, c.v_kept))),
        known("decay-not-in-v", f"an L2 term in the numerator that the {what} does not see",
              "Which gradient is squared?", v=lambda c: fold(c, c.raw**2)),
        known("decay-in-v-only", f"an L2 term that the {what} sees and the numerator does not",
              "Along which gradient do you step?", g=_bare,
              v=lambda c: fold(c, (c.raw + c.h["weight_decay"] * c.p) ** 2)),
    )
