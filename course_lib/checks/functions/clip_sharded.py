"""The exercise `clip_sharded`: clip by the global norm of a gradient that lies in shards on several ranks.

The candidate runs on threads. The norm that each rank returns and the shards that it leaves are judged by `Numeric`,
and what went through the collectives is counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, guarded
from course_lib.checks.functions.on_ranks import first_of_each, judged, on_ranks, one_number
from course_lib.checks.report import REMARK, Finding
from course_lib.parallel.threads import ThreadComm

Array = np.ndarray
Clipped = tuple[Any, Any]  # the norm on each rank, and all shards in a row; None: a mistake says nothing of it
SIXTEEN_BITS = 1e-4  # relative: float16 and bfloat16 round a norm to 5e-4 and 4e-3
NUMBER = 8  # bytes of the one number that is sent


@dataclass(frozen=True)
class Shards:
    """The shards of each rank: vectors, of one dtype. Their numbers and lengths may differ between ranks."""

    ranks: tuple[tuple[Array, ...], ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        sizes = ", ".join(str([len(x) for x in shards]) for shards in self.ranks)
        odd = [x for x in _elements(self) if not math.isfinite(x)]
        kind = f", one element {'NaN' if math.isnan(odd[0]) else 'infinite'}," if odd else ""
        return f"{self.dtype} vectors, of lengths {sizes}{kind} on {len(self.ranks)} ranks"


def _own(shards: Shards) -> Array:
    """The norm of what each rank holds."""
    return np.array([math.sqrt(sum(float(x @ x) for x in rank)) for rank in shards.ranks])


def _row(tensors: list[Array]) -> Array:
    return np.concatenate([np.zeros(0), *tensors])


def _scaled(shards: Shards, factors: Any) -> Array:
    factors = np.broadcast_to(np.asarray(factors, dtype=np.float64), len(shards.ranks))
    return _row([f * x for f, rank in zip(factors, shards.ranks, strict=True) for x in rank])


def _factor(norm: Any, bound: float) -> Any:
    return np.minimum(1.0, bound / np.asarray(norm, dtype=np.float64))


def _clip(norm: Callable[[Shards], Any], factor: Callable[[Any, float], Any] = _factor) -> Callable[..., Clipped]:
    """A clip by this norm, which is also what is returned."""

    def run(shards: Shards, max_norm: float) -> Clipped:
        size = np.broadcast_to(norm(shards), len(shards.ranks))
        return size, _scaled(shards, factor(size, max_norm))

    return run


def _left(change: Callable[[Shards, float, float], Array]) -> Callable[..., Clipped]:
    """The right norm is not claimed: these shards, given the right norm, are left instead of the right ones."""
    return lambda shards, max_norm: (None, change(shards, _size(shards), max_norm))


def _returns(number: Callable[[Shards, float, float], Any]) -> Callable[..., Clipped]:
    """The right shards are not claimed: the returned number alone is another one."""
    return lambda shards, max_norm: (
        np.broadcast_to(number(shards, _size(shards), max_norm), len(shards.ranks)),
        None,
    )


def _size(shards: Shards) -> float:
    return math.sqrt(float((_own(shards) ** 2).sum()))


def _norms(shards: Shards) -> list[Array]:
    """For each rank the norms of its shards."""
    return [np.array([math.sqrt(float(x @ x)) for x in rank]) for rank in shards.ranks]


def _elements(shards: Shards) -> Array:
    return _row([x for rank in shards.ranks for x in rank])


def _on_some(chosen: Callable[[int, int], bool]) -> Callable[[Shards, float, float], Array]:
    """Only the ranks that are chosen, by rank and number of ranks, scale their shards."""

    def change(shards: Shards, norm: float, bound: float) -> Array:
        n = len(shards.ranks)
        return _scaled(shards, [_factor(norm, bound) if chosen(r, n) else 1.0 for r in range(n)])

    return change


def _on_shard(which: int) -> Callable[[Shards, float, float], Array]:
    def change(shards: Shards, norm: float, bound: float) -> Array:
        kept = [
            x * (_factor(norm, bound) if i == which % len(rank) else 1.0)
            for rank in shards.ranks
            for i, x in enumerate(rank)
        ]
        return _row(kept)

    return change


_right = _clip(_size)
_ADD = "Each rank adds the squares of all its elements; the ranks add these sums; one root, at the end."
_REDUCE = "How long is the gradient of the whole model? This rank holds a part of it."
_FACTOR = "The factor is max_norm / norm, never more than 1, and the same on every rank."
_ALL = "Every rank scales every one of its shards."
_RETURN = "The norm before clipping is asked for, on every rank: it is what one logs."
MISTAKES = (
    Known("own-norm", "each rank's own norm: it was not reduced, so every rank clips by another factor", _REDUCE,
          _clip(_own)),
    Known("clips-by-own-norm", "a clip by each rank's own norm, though the norm that is returned is right", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, _factor(_own(s), bound)))),
    Known("returns-own-norm", "each rank's own norm, though the shards are clipped rightly", _RETURN,
          _returns(lambda s, norm, bound: _own(s))),
    Known("sum-of-norms", "the sum of the ranks' norms: the root was taken before the reduce", _ADD,
          _clip(lambda s: _own(s).sum())),
    Known("sum-of-shard-norms", "the sum of the norms of all shards", _ADD,
          _clip(lambda s: sum(x.sum() for x in _norms(s)))),
    Known("squares-of-sums", "the root of the ranks' squared sums of norms", _ADD,
          _clip(lambda s: math.sqrt(sum(x.sum() ** 2 for x in _norms(s))))),
    Known("root-twice", "a root before the reduce and another one after it", _ADD,
          _clip(lambda s: math.sqrt(_own(s).sum()))),
    Known("root-missing", "a norm without its root: the sum of the squares", _ADD, _clip(lambda s: _size(s) ** 2)),
    Known("mean-of-norms", "the mean of the ranks' norms", _ADD, _clip(lambda s: _own(s).mean())),
    Known("mean-of-squares", "the root of the mean over the ranks of their squares: they are to be added", _ADD,
          _clip(lambda s: math.sqrt((_own(s) ** 2).mean()))),
    Known("divided-by-ranks", "the norm divided by the number of ranks", _ADD,
          _clip(lambda s: _size(s) / len(s.ranks))),
    Known("root-mean-square", "a root mean square over all elements", _ADD,
          _clip(lambda s: math.sqrt((_elements(s) ** 2).mean()))),
    Known("largest-norm", "the largest norm of a rank", _ADD, _clip(lambda s: _own(s).max())),
    Known("largest-element", "the size of the largest element", _ADD, _clip(lambda s: np.abs(_elements(s)).max())),
    Known("sum-of-sizes", "the sum of the elements' sizes", _ADD, _clip(lambda s: np.abs(_elements(s)).sum())),
    Known("sum-of-elements", "the size of the sum of all elements", "Square first, then add.",
          _clip(lambda s: abs(_elements(s).sum()))),
    Known("rank-zero-norm", "the norm of rank 0's shards", _REDUCE, _clip(lambda s: _own(s)[0])),
    Known("first-shards", "the norm of the first shard of every rank", _ADD,
          _clip(lambda s: math.sqrt(sum(x[0] ** 2 for x in _norms(s))))),
    Known("last-shards", "the norm of the last shard of every rank", "Is the sum carried from shard to shard?",
          _clip(lambda s: math.sqrt(sum(x[-1] ** 2 for x in _norms(s))))),
    Known("each-by-its-own", "shards of which each is clipped by its own norm", _FACTOR,
          _left(lambda s, norm, bound: _row([x * _factor(y, bound) for rank, ys in zip(s.ranks, _norms(s), strict=True)
                                             for x, y in zip(rank, ys, strict=True)]))),
    Known("by-value", "elements that are cut off at max_norm", "Only the length may change, not the direction.",
          _left(lambda s, norm, bound: np.clip(_elements(s), -bound, bound))),
    Known("not-clipped", "shards that are left as they are",
          "Multiply them in place: `shard.mul_(factor)`. `shard = shard * factor` makes new ones.",
          _left(lambda s, norm, bound: _elements(s))),
    Known("clipped-twice", "a factor that is applied twice", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, _factor(norm, bound) ** 2))),
    Known("always", "a norm of max_norm for short gradients as well", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, bound / norm))),
    Known("upside-down", "a factor of norm / max_norm", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, max(1.0, norm / bound)))),
    Known("to-one", "a norm of 1 in the place of max_norm", "Is the argument read?",
          _left(lambda s, norm, bound: _scaled(s, _factor(norm, 1.0)))),
    Known("bound-divided", "a bound of max_norm / ranks", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, _factor(norm, bound / len(s.ranks))))),
    Known("bound-divided-by-root", "a bound of max_norm / sqrt(ranks)", _FACTOR,
          _left(lambda s, norm, bound: _scaled(s, _factor(norm, bound / math.sqrt(len(s.ranks)))))),
    Known("zeroed", "shards of zero where the norm is too long", "A wild batch is shortened here, not thrown away.",
          _left(lambda s, norm, bound: _scaled(s, float(norm <= bound)))),
    Known("rank-zero-clips", "a clip of rank 0's shards alone", _ALL, _left(_on_some(lambda r, n: r == 0))),
    Known("rank-zero-does-not-clip", "a clip of all shards but rank 0's", _ALL, _left(_on_some(lambda r, n: r > 0))),
    Known("first-shard-clipped", "a clip of each rank's first shard alone", _ALL, _left(_on_shard(0))),
    Known("last-shard-clipped", "a clip of each rank's last shard alone", _ALL, _left(_on_shard(-1))),
    Known("returns-after", "the norm after clipping", _RETURN, _returns(lambda s, norm, bound: min(norm, bound))),
    Known("returns-factor", "the factor", _RETURN, _returns(lambda s, norm, bound: min(1.0, bound / norm))),
    Known("returns-square", "the squared norm, the shards themselves being right",
          "The root is missing in what you return.",
          _returns(lambda s, norm, bound: norm**2)),
)  # fmt: skip


def _case(lengths: list[list[int]], bound: float, rng: np.random.Generator, size: float = 3.0) -> dict[str, Any]:
    """Values that float32 holds; the ranks differ in size."""
    ranks = tuple(
        tuple((size * (1 + r) * rng.normal(size=n)).astype(np.float32).astype(np.float64) for n in rank)
        for r, rank in enumerate(lengths)
    )
    return {"shards": Shards(ranks), "max_norm": bound}


def _exactly(*ranks: list[list[float]], bound: float, dtype: str = "float32") -> dict[str, Any]:
    shards = tuple(tuple(np.array(x, dtype=np.float64) for x in rank) for rank in ranks)
    return {"shards": Shards(shards, dtype), "max_norm": bound}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    lengths = [list(map(int, rng.integers(1, 9, rng.integers(1, 4)))) for _ in range(rng.integers(2, 5))]
    return [_case([[*rank, 4] for rank in lengths], float(rng.uniform(3, 12)), rng, 6.0)]


def _zero(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isfinite(got[0]).all() and np.isfinite(got[1]).all():
        return None
    return Finding("zero-norm", "Shards of zero become NaN: 0 / 0.", "torch adds 1e-6 to the norm that it divides by.")


def _not_finite(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """The norm alone: what becomes of the shards is the caller's affair, who skips the step."""
    if np.array_equal(got[0], want[0], equal_nan=True):
        got[1][:] = want[1]
        return None
    said = ", ".join(f"{x:g}" for x in got[0].ravel())
    return Finding(
        "not-finite-unseen",
        f"One rank holds an element that is {'NaN' if np.isnan(want[0]).all() else 'infinite'}; the ranks return "
        f"{said}.",
        "Every rank must see it, or some skip the step and the others make it. A sum carries a NaN to all ranks.",
    )


def _few_bits(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.allclose(got[0], want[0], rtol=SIXTEEN_BITS, atol=0):
        return None
    return Finding(
        "norm-in-16-bits",
        f"Shards in {case['shards'].dtype}: the norm is {float(want[0][0]):.6g}, and you return "
        f"{float(got[0].ravel()[0]):.6g}. Squares "
        "above 65504 are infinite in float16, and bfloat16 has three digits.",
        "Convert each shard to float32 before it is squared, and reduce a number in float32.",
    )


def _sixteen_bits(dtype: str, *ranks: list[Array], bound: float) -> dict[str, Any]:
    """A case of values that the dtype holds."""
    kept = [[torch.tensor(x).to(getattr(torch, dtype)).double().tolist() for x in rank] for rank in ranks]
    return _exactly(*kept, bound=bound, dtype=dtype)


_RNG = np.random.default_rng(81)
CLIP = Numeric(
    _right,
    [
        _case([[4, 6], [4, 6]], 2.5, _RNG),
        _case([[3, 2, 5], [4, 3], [6, 2, 2, 4]], 4.0, _RNG),
        _case([[5, 3], [6, 4], [3, 3], [7, 2]], 500.0, _RNG),  # nothing to clip
        _case([[8, 2], [3, 4], [2, 5, 3], [6, 6]], 9.0, _RNG, 5.0),
    ],
    MISTAKES,
    "the norm",
    ("norm", "shards"),
    edges=[
        Edge(_case([[5, 4], [], [3]], 2.0, _RNG)),
        Edge(_case([[7, 2]], 2.0, _RNG)),
        Edge(_exactly([[0.0, 0.0]], [[0.0]], bound=1.0), _zero),
        Edge(_exactly([[3.0, 4.0]], [[12.0], [1.0, math.nan]], [[2.0]], bound=1.0), _not_finite),
        Edge(_exactly([[math.inf, 4.0]], [[12.0]], bound=1.0), _not_finite),
        Edge(_sixteen_bits("bfloat16", [np.linspace(1, 2, 77)], [np.array([5.0, 3.0])], bound=1.0), _few_bits, 4e-3),
        Edge(_sixteen_bits("float16", [np.array([300.0, -512.0])], [np.array([3.0])], bound=1.0), _few_bits, 4e-3),
    ],
    drawn=_drawn,
    few_bits=True,
)  # fmt: skip

_REPLACED = Finding(
    "shard-replaced",
    "The list `shards` holds other tensors than before: the shards are to be changed in place.",
    "`shard.mul_(factor)`: the optimizer holds these tensors, and not your list.",
)


def _about_calls(calls: list[tuple[str, int]], shards: Shards) -> list[Finding]:
    """A finding for another use of the collectives than one all_reduce of one number."""
    ranks, total = len(shards.ranks), sum(size for _, size in calls)
    if not calls or (len(calls) == 1 and calls[0][0] == "all_reduce" and total <= NUMBER):
        return []
    names = ", ".join(f"{name} of {size:,} bytes" for name, size in calls)
    here = f"On {ranks} rank{'s' * (ranks > 1)} each calls {names}"
    if any(name == "gather_objects" for name, _ in calls):
        what = f"{here}. One collective is asked for: an all-reduce of one number."
        hint = "`gather_objects` pickles, and brings what all ranks hold to each. `comm.all_reduce` adds on the way."
        return [Finding("gathers-objects", what, hint)]
    reduced = max((size for name, size in calls if name == "all_reduce"), default=0)
    if total > NUMBER * max(ranks, len(calls)) or reduced > NUMBER:
        return [
            Finding(
                "sends-shards",
                f"{here}: more than one number, which has at most {NUMBER} bytes. ZeRO shards gradients because they "
                "are large: what is sent for the norm must not grow with them.",
                "What is the one number that a rank has to tell the others?",
            )
        ]
    if len(calls) > 1:
        return [
            Finding(
                "several-reduces",
                f"{here}. One would do: the latency of each is paid by the whole step.",
                "Add the squares of all shards first, then reduce once.",
            )
        ]
    return [
        Finding(
            "gathers-numbers",
            f"Right. But {calls[0][0]} brings {ranks} numbers to every rank, of which only the sum is wanted.",
            "`comm.all_reduce` adds them on the way.",
            REMARK,
        )
    ]


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[..., Clipped]:
    """``candidate`` as a function of arrays; ``notes`` gets what it did beside the numbers."""

    def clip_sharded(shards: Shards, max_norm: float) -> Clipped:
        def rank(comm: ThreadComm) -> tuple[Any, list[Tensor], bool]:
            mine = [torch.tensor(x, dtype=getattr(torch, shards.dtype)) for x in shards.ranks[comm.rank]]
            handed = list(mine)
            norm = candidate(handed, max_norm, comm)
            same = len(handed) == len(mine) and all(a is b for a, b in zip(handed, mine, strict=True))
            if comm.rank == 0:
                notes.extend(_about_calls(comm.calls, shards))
            return norm, mine, same

        results = on_ranks(rank, len(shards.ranks))
        notes.extend([_REPLACED] * (not all(same for *_, same in results)))
        left = [x.double().numpy() for _, tensors, _ in results for x in tensors]
        return np.array([one_number(norm, r) for r, (norm, *_) in enumerate(results)]), _row(left)

    return clip_sharded


def judge_clip_sharded(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: the norm and the shards on 1 to 4 ranks, and what was sent for them."""
    return guarded(candidate, lambda: _judged(candidate, progress))


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    findings, notes = judged(CLIP, candidate, _through, progress)
    findings = [
        replace(finding, what=re.sub(r"`norm`, element \((\d+),\)", r"`norm` on rank \1", finding.what))
        for finding in findings
    ]
    if any(note is _REPLACED for note in notes):
        findings = [finding for finding in findings if finding.code != "not-clipped"]
    if any(finding.kind != REMARK for finding in findings):
        notes = [note for note in notes if note.kind != REMARK]
    several = any(note.code == "several-reduces" for note in notes)
    if several and any(finding.code in ("ranks-disagree", "not-joined") for finding in findings):
        # The cause before what follows from it, where ranks hold unequally many shards.
        findings, notes = notes, findings
    return first_of_each([*findings, *notes])
