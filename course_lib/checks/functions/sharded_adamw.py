"""AdamW on several ranks, in NumPy: as it should be and as people get it wrong; and a driver for a learner's step.

In NumPy all ranks stand in one array, a row each. What a rank computes for elements that another one owns is computed
as well, so a mistake is a choice of which row counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.functions.on_ranks import held, inside, on_ranks, sent
from course_lib.checks.report import REMARK, Finding
from course_lib.parallel.threads import ThreadComm

Array = np.ndarray
Walk = tuple[Array, Array]  # norms (steps, ranks), and parameters (steps, ranks, elements)


@dataclass(frozen=True, eq=False)
class Setting:
    """What a step is driven over.

    Attributes:
        starts: the parameters at first, the same on every rank.
        gradients: by step, rank and tensor.
        lrs: the learning rate of each step.
        max_norm: for a step that clips.
    """

    starts: tuple[Array, ...]
    gradients: tuple[tuple[tuple[Array, ...], ...], ...]
    lrs: tuple[float, ...]
    betas: tuple[float, float] = (0.8, 0.9)
    eps: float = 0.05
    weight_decay: float = 0.4
    max_norm: float = 1.0
    dtype: torch.dtype = torch.float64

    @property
    def ranks(self) -> int:
        return len(self.gradients[0])

    @property
    def sizes(self) -> list[int]:
        return [start.size for start in self.starts]

    def __str__(self) -> str:
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        kind = "" if self.dtype == torch.float64 else f" {str(self.dtype).removeprefix('torch.')}"
        shapes = ", ".join(str(start.shape) for start in self.starts)
        nan = any(np.isnan(g).any() for step in self.gradients for tensors in step for g in tensors)
        return f"{ranks} with{kind} parameters of shapes {shapes}{' and a NaN in one gradient' * nan}"


def drawn_setting(
    ranks: int, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator, *, steps: int = 4, **others: Any
) -> Setting:
    """A setting with random numbers. The ranks' gradients differ, in size too, and some cancel in the mean.

    The parameters stay away from zero, so that the rounding of a step never is much of what is left of one.
    """

    def gradients() -> tuple[Array, ...]:
        return tuple(rng.uniform(0.02, 0.4) * rng.normal(size=shape) for shape in shapes)

    return Setting(
        tuple(rng.uniform(3, 5, shape) * rng.choice([-1.0, 1.0], shape) for shape in shapes),
        tuple(tuple(gradients() for _ in range(ranks)) for _ in range(steps)),
        tuple(float(lr) for lr in rng.uniform(0.05, 0.3, steps)),
        **others,
    )


def case_of(ranks: int, shapes: Sequence[tuple[int, ...]], seed: int, **others: Any) -> dict[str, Setting]:
    """A case of a judge: a setting drawn with ``seed``."""
    return {"setting": drawn_setting(ranks, shapes, np.random.default_rng(seed), **others)}


def drawn_case(rng: np.random.Generator, **others: Any) -> list[dict[str, Setting]]:
    """A case whose shapes and number of ranks are drawn too, of two steps."""
    shapes = [tuple(map(int, rng.integers(2, 6, rng.integers(1, 4)))) for _ in range(rng.integers(2, 4))]
    return [{"setting": drawn_setting(int(rng.integers(2, 5)), shapes, rng, steps=2, **others)}]


# ---------------------------------------------------------------------------------------------------- the rule


@dataclass(frozen=True)
class Hyper:
    """What one step of the rule knows: the arguments, and which step it is, from 1."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    t: int
    step: int


def right_direction(m: Array, v: Array, h: Hyper) -> Array:
    """AdamW's step over lr, from the averages of g and g^2."""
    return (m / (1 - h.betas[0] ** h.t)) / (np.sqrt(v / (1 - h.betas[1] ** h.t)) + h.eps)


def mean(local: Array) -> Array:
    """The mean over the ranks, on every rank: (ranks, elements) to the same."""
    return np.broadcast_to(local.mean(axis=0), local.shape)


@dataclass(frozen=True)
class Unit:
    """A run of elements that is cut into one slice a rank: all parameters in a row, or one tensor.

    All arrays are (ranks, elements), padded with zeros; ``size`` elements are real.
    """

    old: Array
    shrink: float
    move: Array
    gradient: Array
    size: int

    @property
    def slices(self) -> Array:
        """(ranks, ranks, slice): what each rank computes for each slice."""
        return sliced(self.shrink * self.old - self.move)

    @property
    def own(self) -> Array:
        """(ranks, slice): what each rank computes for its own slice."""
        index = np.arange(len(self.old))
        return self.slices[index, index]


def sliced(rows: Array) -> Array:
    """(ranks, elements) as (ranks, ranks, slice)."""
    return rows.reshape(len(rows), len(rows), -1)


def gathered(unit: Unit) -> Array:
    """The slices of all ranks, in their order, on every rank."""
    return np.broadcast_to(unit.own.reshape(-1), unit.old.shape)


Clip = Callable[[Array, Array, Setting], tuple[Any, Any]]


def follow(
    setting: Setting,
    *,
    reduce: Callable[[Array], Array] = mean,
    squares: Callable[[Array, Array], Array] = lambda local, g: g**2,
    late: bool = False,
    keeps: bool = True,
    count: Callable[[int], int] = lambda step: step,
    direction: Callable[[Array, Array, Hyper], Array] = right_direction,
    decay: str = "decoupled",
    place: Callable[[Unit], Array] = gathered,
    each: bool = False,
    clip: Clip | None = None,
    clip_late: bool = False,
) -> Walk:
    """The walk of all ranks.

    Args:
        reduce: makes the ranks' gradients into what each takes for the gradient.
        squares: what v averages, from the ranks' gradients and the reduced one.
        late: the steps are averaged over the ranks.
        keeps: m and v live on to the next step.
        count: t of a step, from the step's number from 1.
        decay: "decoupled", "none", "gradient", "twice", "without lr" or "after".
        place: what each rank holds after a step.
        each: each tensor is cut by itself; else all are cut as one.
        clip: norm and factor on each rank, from the reduced gradient and the ranks' own ones.
        clip_late: the factor is that of the step's direction, not of the gradient.
    """
    n, sizes = setting.ranks, setting.sizes
    p = np.broadcast_to(_row(setting.starts), (n, sum(sizes)))
    m = v = np.zeros_like(p)
    norms, path = [], []
    for step, (gradients, lr) in enumerate(zip(setting.gradients, setting.lrs, strict=True), 1):
        h = Hyper(lr, setting.betas, setting.eps, setting.weight_decay, count(step), step)
        local = np.stack([_row(tensors) for tensors in gradients])
        g = reduce(local)
        norm, factor = clip(g, local, setting) if clip else (0.0, 1.0)
        norms.append(np.broadcast_to(norm, n))
        factor = np.asarray(factor, dtype=np.float64)
        factor = factor.reshape(-1, 1) if factor.ndim == 1 else factor
        seen = g if clip_late else g * factor
        if decay == "gradient":
            seen = seen + h.weight_decay * p
        m = h.betas[0] * m * keeps + (1 - h.betas[0]) * seen
        v = h.betas[1] * v * keeps + (1 - h.betas[1]) * squares(local, seen)
        move = lr * direction(m, v, h) * (factor if clip_late else 1)
        if late:
            move = mean(move)
        shrink = {"decoupled": 1 - lr * h.weight_decay, "without lr": 1 - h.weight_decay}.get(decay, 1.0)
        if decay == "twice":
            shrink = (1 - lr * h.weight_decay) ** 2
        if decay == "after":
            shrink, move = 1 - lr * h.weight_decay, move * (1 - lr * h.weight_decay)
        p = _placed(p, shrink, move, g, sizes if each else [sum(sizes)], place)
        path.append(p)
    return np.stack(norms), np.stack(path)


def _row(tensors: Sequence[Array]) -> Array:
    return np.concatenate([np.ravel(x) for x in tensors])


def _placed(p: Array, shrink: float, move: Array, g: Array, sizes: list[int], place: Callable[[Unit], Array]) -> Array:
    n, start, new = len(p), 0, []
    for size in sizes:
        here, padding = slice(start, start + size), ((0, 0), (0, -size % n))
        rows = [np.pad(x[:, here], padding) for x in (p, move, g)]
        new.append(place(Unit(rows[0], shrink, rows[1], rows[2], size))[:, :size])
        start += size
    return np.concatenate(new, axis=1)


def owned(setting: Setting, each: bool = True) -> Array:
    """(ranks, elements): which elements a rank owns."""
    n, rows = setting.ranks, []
    for size in setting.sizes if each else [sum(setting.sizes)]:
        owner = np.arange(size) // -(-size // n)
        rows.append(owner == np.arange(n)[:, None])
    return np.concatenate(rows, axis=1)


# -------------------------------------------------------------------------------------------------- the driver


@dataclass
class Seen:
    """What a rank did.

    Attributes:
        values: its parameters after each step, all in a row.
        returned: what each step returned.
        kept: bytes that its state holds after each step, by storages.
        shown: bytes of the tensors in its state after the last step, by their sizes.
        narrow: tensors in its state of fewer bits than the parameters.
        shared: whether one tensor stands in its state under two names.
        sent: bytes sent in the last step.
        calls: the collectives of the last step, with their bytes.
        most: bytes of gradients and of what it gave to a reduce_scatter, at the call where they were most.
        left: its list of gradients after the last step.
        rebound: whether ``params``, or the memory behind them, are others than at first.
        written: whether a gradient was written into.
        replaced: whether its list of gradients holds other things than before.
    """

    values: list[Array] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    shown: int = 0
    narrow: list[str] = field(default_factory=list)
    shared: bool = False
    sent: float = 0.0
    calls: list[tuple[str, int]] = field(default_factory=list)
    most: int = 0
    left: list[Any] = field(default_factory=list)
    rebound: bool = False
    written: bool = False
    replaced: bool = False


Call = Callable[[list[Tensor], list[Tensor], dict[str, Any], ThreadComm, Setting, float], Any]


def drive(call: Call, setting: Setting) -> list[Seen]:
    """Make all steps of a setting on threads. ``call(params, grads, state, comm, setting, lr)`` makes one on a rank."""

    def rank(comm: ThreadComm) -> Seen:
        seen, state = Seen(), {}
        params = [torch.tensor(x, dtype=setting.dtype).requires_grad_() for x in setting.starts]
        handed, places = list(params), [p.data_ptr() for p in params]
        grads: list[Any] = []
        reduce_scatter = comm.reduce_scatter

        def measured(flat: Tensor) -> Tensor:
            seen.most = max(seen.most, flat.nbytes + sum(g.nbytes for g in grads if isinstance(g, Tensor)))
            return reduce_scatter(flat)

        comm.reduce_scatter = measured  # type: ignore[method-assign]
        for gradients, lr in zip(setting.gradients, setting.lrs, strict=True):
            grads = [torch.tensor(g, dtype=setting.dtype) for g in gradients[comm.rank]]
            tensors, before = list(grads), [g.clone() for g in grads]
            comm.calls.clear()
            seen.returned.append(call(handed, grads, state, comm, setting, lr))
            seen.sent, seen.calls, seen.left = sent(comm.calls, comm.ranks), list(comm.calls), list(grads)
            seen.values.append(np.concatenate([p.detach().double().numpy().ravel() for p in params]))
            seen.kept.append(sum(size for place, size in held(state).items() if place not in places))
            seen.rebound |= [p.data_ptr() for p in params] != places
            seen.rebound |= any(a is not b for a, b in zip(handed, params, strict=False))
            seen.written |= not all(map(_equal, tensors, before))
            seen.replaced |= len(grads) != len(tensors) or any(a is not b for a, b in zip(grads, tensors, strict=True))
        kept = [x for x in inside(state) if isinstance(x, (Tensor, np.ndarray))]
        seen.shown = sum(x.nbytes for x in kept)
        large = [x.data_ptr() for x in _values(state) if isinstance(x, Tensor) and x.numel() > 1]
        seen.shared = len(set(large)) < len(large)
        seen.narrow = [str(x.dtype) for x in kept if np.prod(x.shape) > 1 and x.dtype.itemsize < setting.dtype.itemsize]
        return seen

    return on_ranks(rank, setting.ranks)


def _values(thing: Any) -> list[Any]:
    """What stands in a state, in dicts, lists and tuples: a thing under two names comes twice."""
    if isinstance(thing, dict):
        thing = list(thing.values())
    if not isinstance(thing, (list, tuple)):
        return [thing]
    return [value for each in thing for value in _values(each)]


def _equal(now: Tensor, before: Tensor) -> bool:
    return np.array_equal(now.numpy(), before.numpy(), equal_nan=True)


def share(setting: Setting) -> int:
    """Bytes of state that a rank may keep: its share of two moments, each tensor padded by itself, and a few counts."""
    elements = sum(-(-size // setting.ranks) for size in setting.sizes)
    return 2 * elements * setting.dtype.itemsize + 16 * (len(setting.sizes) + 1)


def whole(setting: Setting) -> int:
    """Bytes of the two moments of all parameters."""
    return 2 * sum(setting.sizes) * setting.dtype.itemsize


def about_state(setting: Setting, seen: list[Seen]) -> list[Finding]:
    """Findings about what the ranks keep from step to step."""
    fullest = max(range(len(seen)), key=lambda r: seen[r].kept[-1])
    most, allowed, all_of_it = seen[fullest].kept[-1], share(setting), whole(setting)
    here = f"On {setting}, the state of rank {fullest} holds {most:,} bytes"
    if len(seen[0].kept) > 1 and any(s.kept[-1] > s.kept[0] for s in seen):
        first, steps = seen[fullest].kept[0], len(seen[fullest].kept)
        what = f"The state grows: {first:,} bytes after the first step, {most:,} after step {steps}."
        return [
            Finding("state-grows", what, "Two moments and a count are kept. What is added to `state` at every step?")
        ]
    if any(s.shared for s in seen) and sum(s.kept[-1] for s in seen) < all_of_it:
        what = "m and v are one tensor under two names: what is written to one of them, the other has too."
        return [Finding("moments-shared", what, "Make two: `m=torch.zeros_like(g), v=torch.zeros_like(g)`.")]
    if any(s.narrow for s in seen):
        dtypes = f"{next(s.narrow[0] for s in seen if s.narrow)} for parameters of {setting.dtype}"
        return [Finding("state-narrow", f"The state holds tensors of {dtypes}.", "Make them with `torch.zeros_like`.")]
    if most > allowed and seen[fullest].shown <= allowed:
        return [
            Finding(
                "state-sliced",
                f"{here}; its tensors look like {seen[fullest].shown:,}, a share of {all_of_it:,}. They are slices of "
                "buffers for all elements, and a slice keeps the whole storage alive: no memory is saved.",
                "How many elements does the allocation itself have? `x.untyped_storage().nbytes()` tells what a tensor "
                "really holds.",
            )
        ]
    if setting.ranks == 2:  # a whole copy of anything, beside two halves, is as large as two whole moments
        return []
    if most > allowed and most >= all_of_it and setting.ranks > 1:
        return [
            Finding(
                "state-whole",
                f"{here}: the moments of all elements are {all_of_it:,}, and one of {setting.ranks} ranks may hold "
                f"{allowed:,}. The numbers do not show it: what is kept is not sharded.",
                "Which elements does this rank update? It needs the moments of those alone.",
            )
        ]
    if most > allowed and sum(s.kept[-1] for s in seen) <= 1.1 * all_of_it:
        return [
            Finding(
                "state-uneven",
                f"{here}, more than its share of {allowed:,}: the tensors are dealt out whole, and one is larger than "
                f"a share.",
                "The largest rank decides what fits. Cut all parameters as one flat row, wherever a tensor ends.",
            )
        ]
    if most > allowed:
        what = f"{here}; two moments of its share, and a few counts, are {allowed:,}."
        return [
            Finding(
                "state-over-share", what, "What beside m and v of its own elements, in the parameters' dtype, lives on?"
            )
        ]
    return []


def about_traffic(setting: Setting, seen: list[Seen], half_more: Finding) -> list[Finding]:
    """Findings about the bytes sent: ``half_more`` up to what an all-reduce and a gather send; beyond, a mistake."""
    size = sum(setting.sizes) * setting.dtype.itemsize
    if setting.ranks < 4 or size < 1000:  # on few ranks, the ways lie too close to each other
        return []
    unit = size * (setting.ranks - 1) / setting.ranks
    times = max(s.sent for s in seen) / unit
    if times <= 2.6:
        return []
    if times <= 3.6:
        return [half_more]
    return [
        Finding(
            "sends-too-much",
            f"On {setting.ranks} ranks, each sends {times:.1f} S (N - 1) / N bytes in a step, S being the bytes of all "
            f"parameters. "
            "Two would do: one for a reduce-scatter, one for an all-gather.",
            "Does each rank send whole tensors where its own slice is enough?",
        )
    ]


REDUCES_ALL = Finding(
    "all-reduce",
    "Right. But each rank sends 3 S (N - 1) / N bytes in a step instead of 2, S being the bytes of all parameters: an "
    "all_reduce is a reduce-scatter and an all-gather, and one of them would do where you call it.",
    "Of the gradient a rank needs its slice only, and of the new parameters it can give its slice only.",
    REMARK,
)
HALF_MORE = Finding(
    "half-more",
    "Right. But each rank sends 3 S (N - 1) / N bytes in a step instead of 2, S being the bytes of all parameters: one "
    "reduce-scatter of the gradients and one all-gather of the new parameters would do.",
    "Which of your collectives brings the ranks what they have, or do not need?",
    REMARK,
)


def place_of_difference(got: Array, want: Array) -> Finding | None:
    """Where parameters (steps, ranks, elements) or norms (steps, ranks) first are wrong, in words.

    None for arrays of another shape.
    """
    if want.ndim not in (2, 3) or got.shape != want.shape:
        return None
    size = np.abs(want).max()
    wrong = ~np.isclose(got, want, rtol=1e-6, atol=1e-7 * size)
    if not wrong.any():  # less than that is rounding, whose place says nothing
        return None
    step, rank, *element = (int(i) for i in np.argwhere(wrong)[0])
    if not element:
        what = f"First in step {step + 1}, on rank {rank}: `norm` expected {want[step, rank]:.9g}, got "
        return Finding("wrong-numbers", f"{what}{got[step, rank]:.9g}.", "Work this number by hand on 2 ranks.")
    if not np.isfinite(got[step, rank]).all():
        what = f"After step {step + 1}, parameters of rank {rank} are not finite."
        return Finding(
            "not-finite", what, "Which line divides by zero? What is t in the first step, and what does padding hold?"
        )
    place = (step, rank, element[0])
    numbers = f"expected {want[place]:.9g}, got {got[place]:.9g}"
    where = f"First after step {step + 1}, rank {rank}, element {element[0]} of all parameters in a row: {numbers}."
    if not np.isclose(got[step], got[step, :1], rtol=1e-9, atol=1e-9 * size).all():
        hint = "What do the ranks tell each other after the update?"
        return Finding("ranks-differ", f"The ranks no longer hold the same parameters. {where}", hint)
    return Finding(
        "wrong-numbers",
        where,
        "Set 1 rank, 1 tensor and 1 element, and work 2 steps by hand. Then 2 tensors; then 2 ranks.",
    )
