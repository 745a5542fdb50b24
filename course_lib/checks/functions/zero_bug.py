"""The exercise `zero_bug`: a ZeRO-2 step that clips by each rank's own norm, and whose state is not sharded.

Neither fault shows with one rank, and the first does not without clipping. Here the step runs on 2 to 4 ranks, and what
a rank holds is measured by storages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.clip_sharded import Clipped
from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, guarded
from course_lib.checks.functions.on_ranks import judged, one_number
from course_lib.checks.functions.sharded_adamw import (
    Array,
    Clip,
    Seen,
    Setting,
    about_state,
    about_traffic,
    case_of,
    drawn_case,
    drive,
    follow,
    mean,
    owned,
    place_of_difference,
)
from course_lib.checks.functions.zero1_step import sorted_out
from course_lib.checks.report import Finding

SHAPES = ((13, 9), (31,), (5, 4, 3), (2,))

Norms = Callable[[Array, Array, Setting], Any]


def _sizes(rows: Array) -> Array:
    """The length of each row."""
    return np.sqrt((rows**2).sum(axis=1))


def _global(g: Array, local: Array, s: Setting) -> Array:
    return _sizes(g)


def _own(g: Array, local: Array, s: Setting) -> Array:
    """The length of what each rank owns of the reduced gradient."""
    return _sizes(g * owned(s))


def _factor(norm: Any, s: Setting) -> Any:
    return np.minimum(1.0, s.max_norm / (np.asarray(norm, dtype=np.float64) + 1e-6))


def _clip(norm: Norms = _global, by: Norms | None = None, factor: Callable[[Any, Setting], Any] = _factor) -> Clip:
    """Return one norm, and clip by it or by another one."""

    def run(g: Array, local: Array, s: Setting) -> tuple[Any, Any]:
        return norm(g, local, s), factor((by or norm)(g, local, s), s)

    return run


def _walk(clip: Clip | None = None, says_norm: bool = True, **changed: Any) -> Callable[[Setting], Clipped]:
    """A walk; the norms of a mistake that leaves them right are not claimed."""

    def run(setting: Setting) -> Clipped:
        norms, path = follow(setting, each=True, clip=clip or _clip(), **changed)
        return (norms if says_norm else None), path

    return run


def _returns(norm: Norms) -> Callable[[Setting], Clipped]:
    """The right steps are not claimed: the returned number alone is another one."""
    return lambda setting: (follow(setting, each=True, clip=_clip(norm, _global))[0], None)


def _each_tensor(g: Array, local: Array, s: Setting) -> Array:
    """A factor for each element: that of its own tensor."""
    ends = np.cumsum(s.sizes)[:-1]
    return np.concatenate([np.broadcast_to(_sizes(x)[:, None], x.shape) for x in np.split(g, ends, axis=1)], axis=1)


def _clipped_first(local: Array, s: Setting) -> Array:
    return local * _factor(_sizes(local), s)[:, None]


def _before_the_reduce(setting: Setting) -> Clipped:
    """Each rank's whole gradient is clipped by its own norm, and then reduced."""
    clip = _clip(lambda g, local, s: _sizes(local), factor=lambda norm, s: 1.0)
    return follow(setting, each=True, clip=clip, reduce=lambda local: mean(_clipped_first(local, setting)))


_right = _walk()
_NORM = "The ranks hold different slices: add up the squares of each, `comm.all_reduce`, and take the root after it."
_CLIP = "One factor for all: min(1, max_norm / (norm + 1e-6)), with the norm of the whole mean gradient."
_LITTLE = "That line was right. Change as little as you can."
MISTAKES = (
    Known("own-norm", "the step of the exercise: each rank clips by the norm of its own slices, which was not reduced",
          "On 2 ranks, print the norm that each returns. How long is the whole gradient?", _walk(_clip(_own))),
    Known("clips-by-own-norm", "a clip by each rank's own norm, though the norm that is returned is right", _CLIP,
          _walk(_clip(_global, _own), says_norm=False)),
    Known("returns-own-norm", "each rank's own norm, though all clip by the right one",
          "The norm of the whole gradient is asked for.", _returns(_own)),
    Known("sum-of-norms", "a norm that adds the ranks' norms up: a sum of roots is not the root of a sum", _NORM,
          _walk(_clip(lambda g, local, s: _own(g, local, s).sum()))),
    Known("largest-norm", "the largest norm of a rank in the place of the norm of all", _NORM,
          _walk(_clip(lambda g, local, s: _own(g, local, s).max()))),
    Known("mean-of-norms", "the mean of the ranks' norms", _NORM,
          _walk(_clip(lambda g, local, s: _own(g, local, s).mean()))),
    Known("mean-of-squares", "the root of the ranks' mean square: their squares are to be added", _NORM,
          _walk(_clip(lambda g, local, s: np.sqrt((_own(g, local, s) ** 2).mean())))),
    Known("divided-by-ranks", "a norm that is divided by the number of ranks", _NORM,
          _walk(_clip(lambda g, local, s: _sizes(g) / s.ranks))),
    Known("root-missing", "the sum of the squares, without a root", _NORM,
          _walk(_clip(lambda g, local, s: _sizes(g) ** 2))),
    Known("root-twice", "a root before the reduce and another one after it", _NORM,
          _walk(_clip(lambda g, local, s: np.sqrt(_own(g, local, s).sum())))),
    Known("norm-of-sum",
          "the norm of the sum of the gradients: it was taken before the division by the number of ranks",
          "The clip is for the mean gradient: which comes first, the division or the norm?",
          _walk(_clip(lambda g, local, s: _sizes(g) * s.ranks))),
    Known("norm-of-local", "the norm of each rank's own gradient, before the reduce",
          "The mean of gradients is shorter than they are, and each rank has another one.",
          _walk(_clip(lambda g, local, s: _sizes(local)))),
    Known("norm-of-all-local", "the norm of all ranks' gradients side by side, before they are averaged",
          "Gradients cancel in the mean: reduce "
          "first, then take the norm.", _walk(_clip(lambda g, local, s: np.sqrt((local**2).sum())))),
    Known("clip-before-reduce", "a clip of each rank's whole gradient by its own norm, before the reduce",
          "Clipped gradients do not "
          "average to the clipped average. Reduce first.", _before_the_reduce),
    Known("each-by-its-own", "tensors of which each is clipped by its own norm", _CLIP,
          _walk(_clip(_global, _each_tensor), says_norm=False)),
    Known("not-clipped", "steps that are not clipped", _CLIP,
          _walk(_clip(factor=lambda norm, s: 1.0), says_norm=False)),
    Known("always-clipped", "a gradient that always has the length max_norm", _CLIP,
          _walk(_clip(factor=lambda norm, s: s.max_norm / norm), says_norm=False)),
    Known("clipped-twice", "a factor that is applied twice", _CLIP,
          _walk(_clip(factor=lambda norm, s: _factor(norm, s) ** 2), says_norm=False)),
    Known("clips-the-step", "a factor that shortens the step of AdamW in the place of the gradient",
          "Before or after m and v? AdamW divides "
          "by the gradient's size, so it makes a difference.", _walk(clip_late=True, says_norm=False)),
    Known("returns-after", "the norm after clipping", "The norm before clipping is asked for: it is what one logs.",
          _returns(lambda g, local, s: np.minimum(_sizes(g), s.max_norm))),
    Known("returns-square", "the squared norm, though all clip rightly", "The norm is asked for.",
          _returns(lambda g, local, s: _sizes(g) ** 2)),
    Known("returns-factor", "the factor", "The norm before clipping is asked for.",
          _returns(lambda g, local, s: _factor(_sizes(g), s))),
    Known("sum", "the sum of the gradients over the ranks, not the mean", _LITTLE,
          _walk(reduce=lambda local: mean(local) * len(local))),
    Known("moments-forgotten", "moments that start at zero in every step", _LITTLE,
          _walk(keeps=False, says_norm=False)),
    Known("t-stays", "a t that is 1 in every step", _LITTLE, _walk(count=lambda step: 1, says_norm=False)),
    Known("decay-missing", "steps without weight decay", _LITTLE, _walk(decay="none", says_norm=False)),
    Known("does-not-move", "parameters that stay where they are", _LITTLE,
          _walk(place=lambda unit: unit.old, says_norm=False)),
)  # fmt: skip


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    return drawn_case(rng, max_norm=float(rng.uniform(0.2, 0.6)))


def _not_a_number(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isnan(got[0]).all():
        got[1][:] = want[1]  # what becomes of the parameters then is the caller's affair
        return None
    what = f"One rank's gradient holds a NaN, and the ranks return {', '.join(f'{x:g}' for x in got[0].ravel())}."
    return Finding(
        "not-finite-unseen", what, "Every rank must see it. A sum carries a NaN to all ranks; a comparison does not."
    )


def _with_nan() -> dict[str, Any]:
    case = case_of(3, [(4,), (2, 2)], 15, steps=1)
    case["setting"].gradients[0][1][0][0] = np.nan
    return case


ZERO2 = Numeric(
    _right,
    [
        case_of(2, SHAPES, 11, max_norm=1.3),
        case_of(3, SHAPES, 12, max_norm=0.9),
        case_of(4, SHAPES, 13, max_norm=1.9, eps=0.02),
    ],
    MISTAKES,
    "the norm",
    ("norm", "parameters"),
    edges=[
        Edge(case_of(1, [(3, 2), (2,)], 14, max_norm=0.2)),
        Edge(case_of(4, [(2,), (3,)], 16, max_norm=0.1)),
        Edge(_with_nan(), _not_a_number),
    ],
    drawn=_drawn,
    pattern=place_of_difference,
)  # fmt: skip

_MORE = Finding(
    "sends-more",
    "Each rank now sends 3 S (N - 1) / N bytes in a step instead of 2, S being the bytes of all parameters: more than "
    "a reduce-scatter of the gradients, an all-gather of the new parameters, and a number for the norm.",
    "For the norm, one number from each rank is enough.",
)
_TWICE = Finding(
    "gradients-twice",
    "When `comm.reduce_scatter` is called, what it is given and what is left in `grads` are more than all gradients "
    "and one padded copy of the largest: they are held twice, before a byte of them is saved.",
    "The exercise's step pads, reduces and lets go of one gradient at a time. That loop was right.",
)
_KEPT = Finding(
    "gradients-kept",
    "After the step, `grads` still holds whole gradients. ZeRO-2 lets go of each as soon as it is reduced; a step that "
    "keeps "
    "them to the end is ZeRO-1.",
    "The exercise's step sets `grads[i] = None` after each reduce. That line was right.",
)
_REPLACED = Finding(
    "not-in-place",
    "The tensors of `params` are replaced.",
    "Write into them, as the exercise's step does: `p.copy_(...)`.",
)
_WRITTEN = Finding(
    "gradient-written",
    "The step writes into the tensors of `grads`.",
    "Let go of them, as the exercise's step does; autograd or another bucket may still read them.",
)


def _noted(setting: Setting, seen: list[Seen], notes: list[Finding]) -> None:
    """Add what the ranks did beside the numbers."""
    notes.extend(about_state(setting, seen))
    notes.extend(about_traffic(setting, seen, _MORE))
    notes.extend([_KEPT] * any(x is not None for s in seen for x in s.left))
    padded = max(-(-size // setting.ranks) * setting.ranks for size in setting.sizes)
    notes.extend([_TWICE] * any(s.most > (sum(setting.sizes) + padded) * setting.dtype.itemsize for s in seen))
    notes.extend([_REPLACED] * any(s.rebound for s in seen))
    notes.extend([_WRITTEN] * any(s.written for s in seen))


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[[Setting], Clipped]:
    """``candidate`` as a function of arrays; ``notes`` gets what it did beside the numbers."""

    def zero2_step(setting: Setting) -> Clipped:
        def call(params: Any, grads: Any, state: Any, comm: Any, s: Setting, lr: float) -> Any:
            return candidate(params, grads, state, comm, lr, s.betas, s.eps, s.weight_decay, s.max_norm)

        seen = drive(call, setting)
        _noted(setting, seen, notes)
        norms = [[one_number(x, r) for x in s.returned] for r, s in enumerate(seen)]
        return np.array(norms).T, np.stack([s.values for s in seen], axis=1)

    return zero2_step


def judge_zero_bug(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: clipped steps on 1 to 4 ranks, what each keeps, and what it sends."""
    return guarded(candidate, lambda: sorted_out(*judged(ZERO2, candidate, _through, progress)))
