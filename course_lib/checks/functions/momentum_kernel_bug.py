"""The exercise `momentum_kernel_bug`: a momentum step with an overlapping block, whose buffer is the gradient.

The step runs on several tensors, whose gradients stay in the same arrays from step to step. Where the parameters go
is judged by `Walked`; the stub's record tells what two programs share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.common import Edge, Known, Parts, Progress, guarded
from course_lib.checks.functions.on_ranks import inside, judged
from course_lib.checks.functions.on_stub import Walked, outside, race, sorted_out
from course_lib.checks.report import Finding
from course_lib.kernels import stub

Array = np.ndarray
LRS = (0.25, 0.125, 0.5, 0.1875)  # few bits, so that the stub's float32 holds them
_IN_FLOAT32 = 1e-5
_NOWHERE = "buffer-not-in-state"


@dataclass(frozen=True, eq=False)
class Setting:
    """Steps on tensors of these shapes, side by side; ``turned`` names those whose gradients are transposed."""

    shapes: tuple[tuple[int, ...], ...]
    block: int
    seed: int
    turned: tuple[int, ...] = ()
    beta: float = 0.75
    dtype: type = np.float64

    def __str__(self) -> str:
        shapes = ", ".join(map(str, self.shapes))
        return f"{'tensors' if len(self.shapes) > 1 else 'a tensor'} of shape {shapes} and blocks of {self.block}"

    def draw(self) -> tuple[list[Array], list[list[Array]]]:
        """The parameters, and the gradients of each step."""
        rng = np.random.default_rng(self.seed)
        params = [rng.normal(size=shape) for shape in self.shapes]
        return params, [[rng.normal(size=shape) for shape in self.shapes] for _ in LRS]

    def holders(self) -> list[Array]:
        """The arrays that the gradients lie in at every step."""
        return [
            np.zeros(shape[::-1], self.dtype).T if i in self.turned else np.zeros(shape, self.dtype)
            for i, shape in enumerate(self.shapes)
        ]


# ------------------------------------------------------------------------------------------------------- the walk

Rule = Callable[[Any, Any, float], Any]  # the new buffer, from the old one, the gradient and beta


def _reach(size: int, block: int) -> list[Array]:
    """All elements, once."""
    return [np.arange(size)]


def _overlap(size: int, block: int) -> list[Array]:
    """Each program's elements, the last one's shifted back."""
    starts = np.minimum(np.arange(-(-size // block)) * block, size - block)
    return [start + np.arange(block) for start in starts]


def _walk(
    reach: Callable[[int, int], list[Array]] = _reach,
    flat: Callable[[Array], Array] = np.ravel,
    begin: Callable[[Array, float], Array] = lambda g, beta: np.zeros_like(g),
    first: Rule | None = None,
    rule: Rule = lambda b, g, beta: beta * b + g,
    move: Callable[[Any, Any, Any, float], Any] = lambda new, old, g, beta: new,
    rate: Callable[[int], float] = lambda step: LRS[step],
    key: Callable[[int], int] = lambda tensor: tensor,
    keeps: bool = True,
    skips_first: bool = False,
    places: bool = True,
    first_move: Callable[[Any, Any, Any, float], Any] | None = None,
    stores: bool = True,
) -> Callable[[Setting], Array]:
    """Momentum with something changed, on real arrays: what shares memory here shares it in the candidate, too."""

    def run(setting: Setting) -> Array:
        params, gradients = setting.draw()
        holders, buffers, path = setting.holders(), {}, []
        for step, rows in enumerate(gradients):
            for i, (p, holder, g) in enumerate(zip(params, holders, rows, strict=True)):
                holder[...] = g
                row, new_here = flat(holder), key(i) not in buffers
                if new_here or not keeps:
                    buffers[key(i)] = begin(row, setting.beta)
                buffer, target = buffers[key(i)], p.reshape(-1)
                for places_ in reach(p.size, setting.block):
                    old = buffer[places_].copy()
                    new = (first if first and new_here else rule)(old, row[places_], setting.beta)
                    if stores or new_here:
                        buffer[places_] = new
                    shift = (first_move if first_move and new_here else move)(new, old, row[places_], setting.beta)
                    if places and not (skips_first and step == 0):
                        target[places_] -= rate(step) * shift
            path.append(np.concatenate([p.reshape(-1) for p in params]))
        return np.stack(path)

    return run


_right = _walk()
_BUFFER = "buffer = beta * buffer + gradient, and p goes lr * buffer down; the first buffer is the gradient."
_LITTLE = "That line was right. Change as little as you can."
_ONCE = "In place, an element that two programs work on is updated twice. Which lanes of the last block are its own?"
_OWN = "What does `ravel` return for a contiguous array, and for a transposed one?"
MISTAKES = (
    Known("updated-twice", "the exercise's kernel: where the last block is shifted back, elements are updated twice",
          _ONCE, _walk(_overlap)),
    Known("view-kept", "the exercise's host code: the buffer is the gradient's own memory, and the next gradient "
          "overwrites it", _OWN, _walk(begin=lambda g, beta: g, first=lambda b, g, beta: g)),
    Known("tail-left", "a kernel that leaves out the elements that do not fill a block",
          "The last block is shorter: mask its lanes, and run `tl.cdiv(n, block)` programs.",
          _walk(lambda size, block: [np.arange(size // block * block)])),
    Known("first-block-only", "a kernel that works on the first block alone",
          "`tl.program_id(0) * BLOCK`, and one program for each block.",
          _walk(lambda size, block: [np.arange(min(size, block))])),
    Known("last-element-missed", "a kernel that leaves out the last element", "`offsets < n` includes it.",
          _walk(lambda size, block: [np.arange(size - 1)])),
    Known("buffer-forgotten", "a buffer that begins anew at every step: gradient descent",
          "What is kept in `state` from one call to the next?", _walk(keeps=False)),
    Known("does-not-move", "parameters that stay where they are",
          "`p` itself is to change: `p.reshape(-1)` of a contiguous array is a view, `p.flatten()` a copy.",
          _walk(places=False)),
    Known("first-gradient-twice", "a first buffer of (1 + beta) times the gradient: it was copied, and then updated",
          "If the buffer begins as the gradient, the first update must not count it again.",
          _walk(begin=lambda g, beta: g.copy())),
    Known("first-step-missing", "a first step that fills the buffer and moves nothing", _BUFFER,
          _walk(skips_first=True)),
    Known("first-gradient-lost", "a first gradient that reaches neither the buffer nor the parameters", _BUFFER,
          _walk(first=lambda b, g, beta: 0 * g)),
    Known("first-dampened", "a first buffer of (1 - beta) times the gradient", _BUFFER,
          _walk(first=lambda b, g, beta: (1 - beta) * g)),
    Known("dampened", "a gradient that is weighted by 1 - beta", _BUFFER,
          _walk(rule=lambda b, g, beta: beta * b + (1 - beta) * g)),
    Known("dampened-later", "a gradient that is weighted by 1 - beta, but for the first one", _BUFFER,
          _walk(first=lambda b, g, beta: g, rule=lambda b, g, beta: beta * b + (1 - beta) * g)),
    Known("beta-missing", "a buffer that is not multiplied by beta", _BUFFER, _walk(rule=lambda b, g, beta: b + g)),
    Known("beta-on-both", "a gradient that is multiplied by beta as well", _BUFFER,
          _walk(rule=lambda b, g, beta: beta * (b + g))),
    Known("beta-twice", "a buffer that is multiplied by beta twice", _BUFFER,
          _walk(rule=lambda b, g, beta: beta * beta * b + g)),
    Known("old-buffer", "a step by the buffer of before", _LITTLE, _walk(move=lambda new, old, g, beta: old)),
    Known("gradient-alone", "a step by the gradient alone, then the buffer again", _LITTLE,
          _walk(move=lambda new, old, g, beta: g + new)),
    Known("nesterov", "Nesterov's step: gradient plus beta times the buffer", _LITTLE,
          _walk(move=lambda new, old, g, beta: g + beta * new)),
    Known("nesterov-later", "Nesterov's step from the second on: gradient plus beta times the buffer", _LITTLE,
          _walk(move=lambda new, old, g, beta: g + beta * new, first_move=lambda new, old, g, beta: g)),
    Known("not-stored-back", "a buffer that stays what it was after the first step: what is updated is a copy",
          "What the kernel writes must be in `state` when the next step begins.", _walk(stores=False)),
    Known("ascent", "steps up the buffer, or a buffer of negative gradients", "p goes down the gradient.",
          _walk(move=lambda new, old, g, beta: -new)),
    Known("lr-missing", "steps without the learning rate", _LITTLE, _walk(rate=lambda step: 1.0)),
    Known("first-lr", "the first call's learning rate at every step", "`lr` may change between calls.",
          _walk(rate=lambda step: LRS[0])),
    Known("memory-order", "gradients that are read in the order of memory, which a transposed one has another of",
          "Element (i, j) of the gradient belongs to element (i, j) of p: `ravel()` puts them into p's order.",
          _walk(flat=lambda g: np.ravel(g, order="K"))),
    Known("column-order", "gradients that are read column by column", "p is flattened row by row, as `ravel()` does.",
          _walk(flat=lambda g: np.ravel(g, order="F"))),
    Known("one-buffer", "one buffer for all tensors", "Each tensor comes with a `state` of its own: keep it there.",
          _walk(key=lambda tensor: 0)),
)  # fmt: skip


def _case(*shapes: tuple[int, ...], block: int, seed: int, **others: Any) -> dict[str, Any]:
    return {"setting": Setting(shapes, block, seed, **others)}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    block = int(2 ** rng.integers(2, 5))
    rows, columns = map(int, rng.integers(5, 12, 2))
    shape = (rows, columns + (rows * columns % block == 0))
    return [_case(shape, shape, block=block, seed=int(rng.integers(10**6)), turned=(1,))]


def _rounded(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """With float32 arrays only what is further off than float32 rounds is told."""
    apart = np.abs(got[0] - want[0]).max() / np.abs(want[0]).max()
    if not apart < _IN_FLOAT32:
        what = f"In float32 the parameters are off by {apart:.1g} of their size; with float64 they are right."
        return Finding("half-precision", what, "Give the buffer the type of the gradient.")
    got[0][:] = want[0]
    return None


class _Steps(Walked):
    def place(self, case: dict[str, Any], element: int) -> str:
        """The element of its own tensor; tensors lie one behind the other."""
        sizes = [int(np.prod(shape)) for shape in case["setting"].shapes]
        ends = np.cumsum(sizes)
        tensor = int(np.searchsorted(ends, element, side="right"))
        which = f" of tensor {tensor + 1}" if len(sizes) > 1 else ""
        return f"element {element - int(ends[tensor]) + sizes[tensor]}{which}"


STEP = _Steps(
    _right,
    [
        _case((43,), (43,), block=16, seed=1),
        _case((5, 7), (5, 7), block=8, seed=2, turned=(0,)),
        _case((9, 5), (9, 5), block=4, seed=3, turned=(0, 1), beta=0.5),
        _case((8, 4), (8, 4), block=8, seed=4),
    ],
    MISTAKES,
    "nothing",
    edges=[
        Edge(_case((5,), block=8, seed=5)),
        Edge(_case((1,), (3, 1), block=16, seed=6, turned=(1,))),
        Edge(_case((6, 6), block=1, seed=7, turned=(0,))),
        Edge(_case((100, 11), block=256, seed=8, turned=(0,), dtype=np.float32), _rounded),
    ],
    drawn=_drawn,
)


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[[Setting], Array]:
    """``candidate`` as a function that walks; ``notes`` gets what it did beside the numbers."""

    def repaired_momentum_step(setting: Setting) -> Array:
        params, gradients = setting.draw()
        params = [p.astype(setting.dtype) for p in params]
        holders, states, path, programs = setting.holders(), [{} for _ in params], [], 0
        for step, rows in enumerate(gradients):
            for p, holder, g, state in zip(params, holders, rows, states, strict=True):
                holder[...] = g
                programs += _one(candidate, setting, (p, holder, state, LRS[step]), notes)
                _about_state(setting, p, state, [other for other in states if other is not state], notes)
            path.append(np.concatenate([p.astype(np.float64).reshape(-1) for p in params]))
        if not programs:
            what = f"With {setting}: the step runs no kernel."
            raise Stopped(Finding("no-kernel", what, "Mend the kernel, and let the step run it with `tl.run`."))
        return np.stack(path)

    return repaired_momentum_step


def _one(candidate: Callable[..., Any], setting: Setting, arguments: tuple[Any, ...], notes: list[Finding]) -> int:
    """One step on one tensor, and what it did beside the numbers. Returns how many programs ran."""
    where, (p, gradient, state, lr) = f"With {setting}", arguments
    before = gradient.copy()
    try:
        with stub.watch() as records:
            candidate(p, gradient, state, lr, setting.beta, setting.block)
    except stub.OutOfBounds as error:
        raise Stopped(outside(error, where, setting.block)) from None
    if (given := _block(records, setting.block)) is not None:
        what = f"{where}: the kernel runs with BLOCK={given}."
        hint = "The caller chooses: `BLOCK=block`, whatever the number of elements. Mend the kernel."
        notes.append(Finding("other-block", what, hint))
    for found in (found for record in records for found in record.races):
        if found.programs[0] == found.programs[1]:
            notes.append(race(found, where))
            continue
        what = f"{where}: {found} The element is updated twice."
        notes.append(Finding("updated-twice", what, _ONCE))
    if any(isinstance(x, np.ndarray) and np.shares_memory(x, gradient) for x in inside(state)):
        what = f"{where}: `state` keeps the gradient's own memory, into which the caller writes the next gradient."
        notes.append(Finding("view-kept", what, _OWN))
    elif not np.array_equal(before, gradient):
        what = f"{where}: the step writes into the gradient."
        notes.append(Finding("gradient-written", what, "The gradient belongs to the caller: leave it as it is."))
    return sum(record.programs for record in records)


def _block(records: list[stub.Record], block: int) -> Any:
    """What a kernel was given in the place of ``block``; None if it was given that."""
    for constants in (record.constants for record in records):
        named = [value for name, value in constants.items() if "block" in name.lower()]
        given = named or [*constants.values()]
        if given and block not in given:
            return given[-1]
    return None


def _about_state(
    setting: Setting, p: Array, state: dict[str, Any], others: list[dict[str, Any]], notes: list[Finding]
) -> None:
    """Adds to ``notes`` what is wrong with the arrays that a step keeps."""
    kept = [x for x in inside(state) if isinstance(x, np.ndarray) and x.size == p.size]
    if not kept:
        what = f"With {setting}: after a step there is no buffer in `state`."
        notes.append(Finding(_NOWHERE, what, "Each tensor comes with a `state` of its own: keep its buffer there."))
    for x in kept:
        if x.dtype.kind == "f" and x.dtype != p.dtype:
            what = f"With {setting}: the buffer is {x.dtype}, and the parameters are {p.dtype}."
            notes.append(Finding("buffer-dtype", what, "Give the buffer the type of p."))
        if any(np.shares_memory(x, y) for y in inside(others) if isinstance(y, np.ndarray)):
            what = f"With {setting}: the states of two tensors hold the same memory."
            notes.append(Finding("one-buffer", what, "Make a buffer of its own for each tensor."))


def judge_momentum_kernel_bug(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: where its steps lead, what its programs share, and what its state keeps."""

    def found() -> list[Finding]:
        findings, notes = judged(STEP, candidate, _through, progress)
        if not findings:  # what is kept beside the buffer, or elsewhere, does no harm
            notes = [note for note in notes if note.code not in ("view-kept", _NOWHERE)]
        codes = {note.code for note in notes}
        if codes & {_NOWHERE, "one-buffer"}:  # another tensor's buffer may be too short
            findings = [finding for finding in findings if not finding.code.endswith("-unmasked")]
        if findings and not {finding.code for finding in findings} & {"wrong-numbers", "not-finite"}:
            notes = [note for note in notes if note.code != _NOWHERE]
        findings = sorted_out(findings, notes)
        return [replace(finding, what=finding.what.replace("ith setting=", "ith ")) for finding in findings]

    return guarded(candidate, found)
