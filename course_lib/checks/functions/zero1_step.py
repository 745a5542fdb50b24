"""The exercise `zero1_step`: one AdamW step whose state is divided over the ranks (ZeRO-1).

The candidate runs on threads. Where its parameters go is judged by `Numeric`, beside AdamW on the mean gradient in
NumPy; what it keeps is measured by storages, and what it sends is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, guarded
from course_lib.checks.functions.on_ranks import first_of_each, judged
from course_lib.checks.functions.sharded_adamw import (
    HALF_MORE,
    REDUCES_ALL,
    Array,
    Hyper,
    Seen,
    Setting,
    Unit,
    about_state,
    about_traffic,
    case_of,
    drawn_case,
    drive,
    follow,
    gathered,
    mean,
    place_of_difference,
    sliced,
)
from course_lib.checks.report import REMARK, Finding

SHAPES = ((13, 9), (31,), (5, 4, 3), ())


def _walk(**changed: Any) -> Callable[[Setting], Array]:
    def run(setting: Setting) -> Array:
        return follow(setting, **changed)[1]

    return run


def _of_rank(rank: int) -> Callable[[Array], Array]:
    return lambda local: np.broadcast_to(local[rank], local.shape)


def _own_only(unit: Unit) -> Array:
    new = sliced(unit.old).copy()
    index = np.arange(len(new))
    new[index, index] = unit.own
    return new.reshape(unit.old.shape)


def _in_order(order: Callable[[Array], Array]) -> Callable[[Unit], Array]:
    return lambda unit: np.broadcast_to(order(unit.own).reshape(-1), unit.old.shape)


def _first_slices(unit: Unit) -> Array:
    """Every rank moves the first slice of the parameters, by the gradient of its own slice."""
    index = np.arange(len(unit.old))
    parts = unit.shrink * sliced(unit.old)[:, 0] - sliced(unit.move)[index, index]
    return np.broadcast_to(parts.reshape(-1), unit.old.shape)


def _tail_left(unit: Unit) -> Array:
    end = unit.size // len(unit.old) * len(unit.old)
    new = (unit.shrink * unit.old - unit.move).copy()
    new[:, end:] = unit.old[:, end:]
    return new


def _rows(change: Callable[[Array, Unit], Array]) -> Callable[[Unit], Array]:
    return lambda unit: np.asarray(change(gathered(unit), unit))


def _direction(numerator: Callable[..., Array], root: Callable[..., Array]) -> Callable[[Array, Array, Hyper], Array]:
    return lambda m, v, h: numerator(m, h) / root(v, h)


def _m(m: Array, h: Hyper) -> Array:
    return m / (1 - h.betas[0] ** h.t)


def _v(v: Array, h: Hyper) -> Array:
    return v / (1 - h.betas[1] ** h.t)


def _root(v: Array, h: Hyper) -> Array:
    return np.sqrt(_v(v, h)) + h.eps


def _sum(local: Array) -> Array:
    return mean(local) * len(local)


_right = _walk()
_MEAN = "What does a reduce-scatter add up, and what is the gradient of the mean loss over all ranks?"
_GATHER = "After its update a rank holds new values of its slice alone. How do the others get them?"
_ORDER = "Slice r belongs to rank r: in the gradient, in the parameters and in the gather."
_FIRST = "Reduce first: m and v average the gradient that all ranks share, and v its square."
_T = "t counts the steps, from 1. Where is it kept, and how often is it counted up in a step?"
_STATE = "`state` is the same dict at every step of a rank. What does yours find there in the second one?"
_DECAY = "AdamW: p <- p (1 - lr weight_decay), once, beside the step and not in the gradient."
_EPS = "eps is added to the root of the corrected v."
_PADDED = "The last slice is the shorter one: pad the row, so that every rank has a whole slice."
MISTAKES = (
    Known("sum", "the sum of the gradients over the ranks, not the mean", _MEAN, _walk(reduce=_sum)),
    Known("mean-twice", "a mean that is divided by the number of ranks twice", _MEAN,
          _walk(reduce=lambda x: mean(x) / len(x))),
    Known("local", "each rank's own gradient: nothing is reduced, and the slices come from different batches", _FIRST,
          _walk(reduce=lambda x: x)),
    Known("local-divided", "each rank's own gradient, divided by the number of ranks", _FIRST,
          _walk(reduce=lambda x: x / len(x))),
    Known("rank-zero", "the gradient of rank 0 alone", "Every rank has a batch of its own.", _walk(reduce=_of_rank(0))),
    Known("last-rank", "the gradient of the last rank alone", "Every rank has a batch of its own.",
          _walk(reduce=_of_rank(-1))),
    Known("largest", "the largest gradient of a rank, element by element", _MEAN,
          _walk(reduce=lambda x: np.broadcast_to(x.max(axis=0), x.shape))),
    Known("reduces-late", "steps that are averaged over the ranks: each rank has moments of its own gradient", _FIRST,
          _walk(reduce=lambda x: x, late=True)),
    Known("mean-of-squares", "a v that averages the ranks' squared gradients, not the square of the mean", _FIRST,
          _walk(squares=lambda local, g: mean(local**2))),
    Known("not-gathered", "a rank that updates its own slice, and never gets the others'", _GATHER,
          _walk(place=_own_only)),
    Known("not-gathered-tensors", "a rank that updates its own slice of each tensor, and never gets the others'",
          _GATHER,
          _walk(place=_own_only, each=True)),
    Known("not-gathered-local", "a rank that updates its own slice by its own gradient, and never gets the others'",
          f"{_FIRST} {_GATHER}",
          _walk(place=_own_only, reduce=lambda x: x)),
    Known("does-not-move", "parameters that stay where they are",
          "Is the result written into the tensors of `params` themselves: `p.copy_(...)`? And "
          "is what is gathered the slice after its update?", _walk(place=lambda unit: unit.old)),
    Known("reversed", "slices that are put together in the reverse order", _ORDER,
          _walk(place=_in_order(lambda own: own[::-1]))),
    Known("rotated", "slices that are put together one place too far on", _ORDER,
          _walk(place=_in_order(lambda own: np.roll(own, 1, axis=0)))),
    Known("rotated-back", "slices that are put together one place too far back", _ORDER,
          _walk(place=_in_order(lambda own: np.roll(own, -1, axis=0)))),
    Known("reversed-tensors", "slices of each tensor that are put together in the reverse order", _ORDER,
          _walk(place=_in_order(lambda own: own[::-1]), each=True)),
    Known("interleaved", "slices whose elements are dealt out in turns", _ORDER,
          _walk(place=_in_order(lambda own: own.T))),
    Known("first-slice", "the first slice of the parameters, moved by every rank", _ORDER, _walk(place=_first_slices)),
    Known("first-slice-tensors", "the first slice of each tensor, moved by every rank", _ORDER,
          _walk(place=_first_slices, each=True)),
    Known("rank-zero-slice", "rank 0's slice in the place of every slice", _ORDER,
          _walk(place=lambda unit: np.broadcast_to(np.tile(unit.own[0], len(unit.old)), unit.old.shape))),
    Known("gathers-gradient", "the mean gradient itself: that is what was gathered",
          "What is to be gathered are new parameters.",
          _walk(place=lambda unit: unit.gradient)),
    Known("gathers-moves", "the steps themselves: lr times direction in the place of the parameters",
          "What is to be gathered are new parameters.",
          _walk(place=lambda unit: unit.move)),
    Known("tail-left", "parameters whose last elements stay behind: those after the last whole slice", _PADDED,
          _walk(place=_tail_left)),
    Known("tail-left-tensors", "tensors whose last elements stay behind: those after the last whole slice", _PADDED,
          _walk(place=_tail_left, each=True)),
    Known("added", "new parameters that are added to the old ones",
          "The gathered values take the place of the old: `copy_`.",
          _walk(place=_rows(lambda new, unit: unit.old + new))),
    Known("averaged", "parameters that are averaged over the ranks: each new slice counts as one among old ones",
          "A gather puts slices side by side; "
          "an average mixes what has moved with what has not.",
          _walk(place=_rows(lambda new, unit: unit.old + (new - unit.old) / len(new)))),
    Known("summed", "parameters that are added up over the ranks",
          "A sum puts slices side by side only if all else is zero.",
          _walk(place=_rows(lambda new, unit: (len(new) - 1) * unit.old + new))),
    Known("t-stays", "a t that is 1 in every step", _T, _walk(count=lambda step: 1)),
    Known("t-one-late", "a t that is one too large", _T, _walk(count=lambda step: step + 1)),
    Known("t-in-twos", "a t that is counted up twice in a step", _T, _walk(count=lambda step: 2 * step)),
    Known("t-forgotten", "a t of 1, and new moments, in every step: nothing is remembered", _STATE,
          _walk(count=lambda step: 1, keeps=False)),
    Known("moments-forgotten", "moments that start at zero in every step", _STATE, _walk(keeps=False)),
    Known("not-corrected", "moments without bias correction", "Divide by 1 - beta**t.",
          _walk(direction=_direction(lambda m, h: m, lambda v, h: np.sqrt(v) + h.eps))),
    Known("m-not-corrected", "an m without bias correction", "Divide by 1 - beta1**t.",
          _walk(direction=_direction(lambda m, h: m, _root))),
    Known("v-not-corrected", "a v without bias correction", "Divide by 1 - beta2**t.",
          _walk(direction=_direction(_m, lambda v, h: np.sqrt(v) + h.eps))),
    Known("eps-inside-root", "an epsilon inside the square root", _EPS,
          _walk(direction=_direction(_m, lambda v, h: np.sqrt(_v(v, h) + h.eps)))),
    Known("eps-before-correction", "an epsilon that is added before v is corrected", _EPS,
          _walk(direction=_direction(_m, lambda v, h: (np.sqrt(v) + h.eps) / np.sqrt(1 - h.betas[1] ** h.t)))),
    Known("eps-missing", "a division without epsilon", _EPS,
          _walk(direction=_direction(_m, lambda v, h: np.sqrt(_v(v, h))))),
    Known("root-missing", "a division by v, without its root", _EPS,
          _walk(direction=_direction(_m, lambda v, h: _v(v, h) + h.eps))),
    Known("betas-exchanged", "beta1 and beta2 exchanged", "betas = (beta1, beta2): beta1 is m's.",
          lambda setting: _right(replace(setting, betas=setting.betas[::-1]))),
    Known("rate-remembered", "a learning rate that stays what it was in the first step",
          "lr may change from call to call: it belongs to the call, and not into `state`.",
          lambda setting: _right(replace(setting, lrs=setting.lrs[:1] * len(setting.lrs)))),
    Known("gradients-reversed", "gradients laid end to end from the last tensor to the first",
          "That is the order in which a backward pass makes them; the parameters' row must have the same one.",
          lambda setting: _right(_gradients_reversed(setting))),
    Known("squares-missing", "a v that averages |g|, or its root", "v averages the square of the gradient.",
          _walk(squares=lambda local, g: np.abs(g))),
    Known("ascends", "steps uphill", "Which sign has the step?",
          _walk(direction=_direction(lambda m, h: -_m(m, h), _root))),
    Known("decay-in-gradient", "a decay in the gradient: Adam with an L2 penalty", _DECAY, _walk(decay="gradient")),
    Known("decay-twice", "a decay that is applied twice in a step: to the whole, and to the slice once more", _DECAY,
          _walk(decay="twice")),
    Known("decay-missing", "steps without weight decay", _DECAY, _walk(decay="none")),
    Known("decay-without-lr", "a decay without the learning rate", _DECAY, _walk(decay="without lr")),
    Known("decay-after", "a decay of what the step has moved already", _DECAY, _walk(decay="after")),
)  # fmt: skip


def _gradients_reversed(setting: Setting) -> Setting:
    return replace(setting, gradients=tuple(tuple(of[::-1] for of in step) for step in setting.gradients))


def _few_elements(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape == want[0].shape and np.allclose(got[0], want[0], rtol=1e-6):
        return None
    what = f"On {case['setting']}, some ranks have no real element, only padding, and the parameters come out wrong."
    return Finding(
        "fewer-elements-than-ranks", what, "Each rank's slice is one element then, and some hold nothing but padding."
    )


def _float32(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape == want[0].shape and np.allclose(got[0], want[0], rtol=1e-3, atol=1e-3):
        return None
    what = f"In float64 all was right; on {case['setting']} it is not."
    return Finding(
        "float32", what, "Do all tensors that you make have the parameters' dtype? `torch.zeros_like`, `new_zeros`."
    )


ZERO1 = Numeric(
    _right,
    [
        case_of(2, SHAPES, 1),
        case_of(3, SHAPES, 2),
        case_of(4, SHAPES, 3, betas=(0.6, 0.95), eps=0.02, weight_decay=0.3),
    ],
    MISTAKES,
    "parameters",
    edges=[
        Edge(case_of(4, [(2,), (1,)], 4), _few_elements),
        Edge(case_of(1, [(3, 2), (2,)], 5)),
        Edge(case_of(2, [(4,), (2, 2)], 6), rounding=1e-9),
        Edge(case_of(3, [(7, 5), (9,)], 7, dtype=torch.float32), _float32, 1e-4),
    ],
    drawn=drawn_case,
    pattern=place_of_difference,
)

_REBOUND = Finding(
    "not-in-place",
    "The tensors of `params` are replaced, or the memory behind them: `params[i] = ...` leaves the model its old "
    "tensors; after `p.data = ...` whoever holds a view of the old memory, such as a flat buffer, sees no new value.",
    "Write into them: `p.copy_(new)`.",
)
_WRITTEN = Finding(
    "gradient-written",
    "The step changes the tensors of `grads`.",
    "`comm.all_reduce` replaces what it is given, and so do `div_`, `mul_` and `add_`. Work on a copy: a flat row of "
    "all gradients is one.",
)
_GONE = Finding(
    "gradients-replaced",
    "The list `grads` does not hold the tensors that it held before: entries were removed, replaced or set to None.",
    "Leave it as it is: in stage 1 the gradients belong to the caller. Letting go of them is stage 2.",
)


def _elsewhere(setting: Setting, total: int, needed: int) -> Finding:
    return Finding(
        "state-elsewhere",
        f"On {setting}, all ranks together keep {total:,} bytes in `state`, and two moments of every element are "
        f"{needed:,}. "
        "The rest is not kept, lies in no tensor or array, or lives elsewhere: in a global, or an attribute of the "
        "function.",
        "Keep m and v as tensors or arrays in `state`, and t with them: a checkpoint saves what is there, and two "
        "models must not share them.",
    )


def _noted(setting: Setting, seen: list[Seen], notes: list[Finding]) -> None:
    """Add what the ranks did beside the numbers."""
    notes.extend([_REBOUND] * any(s.rebound for s in seen))
    notes.extend([_WRITTEN] * any(s.written for s in seen))
    notes.extend([_GONE] * any(s.replaced for s in seen))
    notes.extend(about_state(setting, seen))
    reduces_all = any(name == "all_reduce" for s in seen for name, _ in s.calls)
    notes.extend(about_traffic(setting, seen, REDUCES_ALL if reduces_all else HALF_MORE))
    total, needed = sum(s.kept[-1] for s in seen), 2 * sum(setting.sizes) * setting.dtype.itemsize
    if total < needed and not any(s.narrow or s.shared for s in seen):
        notes.append(_elsewhere(setting, total, needed))


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[[Setting], Array]:
    """``candidate`` as a function of arrays; ``notes`` gets what it did beside the numbers."""

    def zero1_step(setting: Setting) -> Array:
        def call(params: Any, grads: Any, state: Any, comm: Any, s: Setting, lr: float) -> Any:
            return candidate(params, grads, state, comm, lr, s.betas, s.eps, s.weight_decay)

        seen = drive(call, setting)
        _noted(setting, seen, notes)
        return np.stack([s.values for s in seen], axis=1)

    return zero1_step


def judge_zero1_step(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: steps on 1 to 4 ranks, what each keeps, and what it sends."""
    return guarded(candidate, lambda: sorted_out(*judged(ZERO1, candidate, _through, progress)))


def sorted_out(findings: list[Finding], notes: list[Finding]) -> list[Finding]:
    """Numbers and notes, one finding a code, without what follows from another one."""
    codes = {finding.code for finding in findings}
    if any(note.code == "not-in-place" for note in notes):
        findings = [finding for finding in findings if finding.code != "does-not-move"]
    wrong = any(finding.kind != REMARK for finding in findings)
    if wrong or any(note.kind != REMARK for note in notes):
        notes = [note for note in notes if note.kind != REMARK]
    if {"t-forgotten", "moments-forgotten"} & codes:
        notes = [note for note in notes if note.code != "state-grows"]
    elsewhere = [note for note in notes if note.code == "state-elsewhere"]
    notes = [note for note in notes if note.code != "state-elsewhere"]
    if any(note.code == "state-narrow" for note in notes):
        elsewhere = []
    if not wrong or "raises" in codes:  # steps of another model may have found there what they cannot use
        findings = [*elsewhere, *findings]
    if shared := [note for note in notes if note.code == "moments-shared"]:  # a root of a negative m is NaN
        findings = [*shared, *(finding for finding in findings if finding.code not in ("not-finite", "wrong-numbers"))]
    return [_in_words(finding) for finding in first_of_each([*findings, *notes])]


def _in_words(finding: Finding) -> Finding:
    """Without the name that a setting has as an argument here."""
    return replace(finding, what=finding.what.replace("With setting=", "On ").replace("with setting=", "on "))
