"""The exercise `ring_all_reduce`: a ring of ranks that adds up their arrays, chunk by chunk, and counts what it sends.

What the ranks hold and the count are judged by `Numeric`; then whether the arrays are the ranks' own, and whether the
order of additions is a ring's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Edge, Known, Numeric, Progress, as_array, guarded, said
from course_lib.checks.report import REMARK, Finding

Held = np.ndarray  # (ranks, length): what each rank holds
Result = tuple[Held | None, float | None]


def simulated(
    values: list[np.ndarray],
    reduce_steps: Callable[[int], int] = lambda n: n - 1,
    gather_steps: Callable[[int], int] = lambda n: n - 1,
    reduced: Callable[[int, int], int] = lambda rank, step: rank - step,
    gathered: Callable[[int, int], int] = lambda rank, step: rank + 1 - step,
    adds: tuple[bool, bool] = (True, False),
) -> Held:
    """A ring in which, in a step, each rank sends one chunk to its right; ``reduced`` and ``gathered`` say which.

    ``adds``: whether what arrives is added to what is there, in each of the two phases, or takes its place.
    """
    ranks = len(values)
    held = np.stack(values).reshape(ranks, ranks, -1)
    for steps, chunk, add in ((reduce_steps, reduced, adds[0]), (gather_steps, gathered, adds[1])):
        for step in range(steps(ranks)):
            sent = [(rank, chunk(rank, step) % ranks) for rank in range(ranks)]
            messages = [held[rank, part].copy() for rank, part in sent]
            for (rank, part), message in zip(sent, messages, strict=True):
                right = held[(rank + 1) % ranks]
                right[part] = right[part] + message if add else message
    return held.reshape(ranks, -1)


def _right(values: list[np.ndarray]) -> Result:
    ranks, length = len(values), len(values[0])
    return np.stack([np.sum(values, axis=0)] * ranks), 2 * (ranks - 1) * length // ranks


def _holds(held: Callable[..., Held]) -> Callable[..., Result]:
    """Of the count nothing is claimed."""
    return lambda values: (held(values), None)


def _ring(**changed: Any) -> Callable[..., Result]:
    return _holds(lambda values: simulated(values, **changed))


def _sends(count: Callable[[int, int], float]) -> Callable[..., Result]:
    """The number as a function of the ranks and of the length."""
    return lambda values: (None, count(len(values), len(values[0])))


def _only(rank: int) -> Callable[[list[np.ndarray]], Held]:
    """The sum on one rank; the others hold what they had."""

    def held(values: list[np.ndarray]) -> Held:
        rows = np.stack(values)
        rows[rank] = rows.sum(axis=0)
        return rows

    return held


def _every(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Result]:
    """The same array on each rank, made of the stacked ones."""
    return _holds(lambda values: np.stack([change(np.stack(values))] * len(values)))


_WALK = "Take three ranks and a letter for each chunk, and write down what each rank holds after each step."
_OWN = "After N - 1 steps of the first phase, which chunk is complete on rank r? That one it sends first in the second."
_ADDS = "What arrives is added in the first phase; in the second it is complete, and takes the place of what is there."
_STEPS = "A chunk has to pass through N ranks: how many hops are that?"
_COUNT = "One rank, in one step, sends one chunk of length / N elements. How many steps are there in both phases?"
MISTAKES = (
    Known("mean", "the mean over the ranks instead of the sum", "Nothing is divided here.",
          _every(lambda rows: rows.mean(axis=0))),
    Known("maximum", "the largest value instead of the sum", "What arrives is added.",
          _every(lambda rows: rows.max(axis=0))),
    Known("one-ranks-values", "the values of rank 0 on every rank: a broadcast", _ADDS, _every(lambda rows: rows[0])),
    Known("last-ranks-values", "the values of the last rank on every rank: a broadcast", _ADDS,
          _every(lambda rows: rows[-1])),
    Known("sum-on-rank-0", "a sum that only rank 0 has", "Every rank holds the whole sum at the end.",
          _holds(_only(0))),
    Known("sum-on-last-rank", "a sum that only the last rank has", "Every rank holds the whole sum at the end.",
          _holds(_only(-1))),
    Known("others-only", "the sum over the other ranks: a rank's own values are missing",
          "A rank starts with its own values, and adds.",
          _holds(lambda values: np.sum(values, axis=0) - np.stack(values))),
    Known("own-twice", "a sum in which a rank's own values count twice", "Each value enters a sum once.",
          _holds(lambda values: np.sum(values, axis=0) + np.stack(values))),
    Known("unchanged", "no reduction: each rank holds what it had", "What does a rank do with what arrives?",
          _holds(np.stack)),
    Known("no-gather", "the first phase alone: each rank has one complete chunk", "Who tells the others?",
          _ring(gather_steps=lambda n: 0)),
    Known("reduce-one-short", "chunks c of rank c - 1 on every rank, to which nothing was added: N - 2 steps of "
          "reduce-scatter, or the same chunk sent in every step", f"{_STEPS} {_OWN}",
          _ring(reduce_steps=lambda n: n - 2)),
    Known("gather-one-short", "N - 2 steps of all-gather: one chunk on each rank is not complete", _STEPS,
          _ring(gather_steps=lambda n: n - 2)),
    Known("both-one-short", "N - 2 steps in both phases", _STEPS,
          _ring(reduce_steps=lambda n: n - 2, gather_steps=lambda n: n - 2)),
    Known("gather-adds", "an all-gather that adds what arrives to what is there", _ADDS, _ring(adds=(True, True))),
    Known("gather-starts-at-r", "chunks c of rank c on every rank, to which nothing was added: an all-gather in which "
          "rank r sends chunk r first, or a reduce-scatter that replaces instead of adding", f"{_OWN} {_ADDS}",
          _ring(gathered=lambda rank, step: rank - step)),
    Known("gather-starts-below-r", "an all-gather in which rank r sends chunk r - 1 first: two too low", _OWN,
          _ring(gathered=lambda rank, step: rank - 1 - step)),
    Known("gather-starts-above", "an all-gather in which rank r sends chunk r + 2 first: one too high", _OWN,
          _ring(gathered=lambda rank, step: rank + 2 - step)),
    Known("gather-counts-up", "an all-gather in which rank r sends chunk r + 1 + s in step s", _WALK,
          _ring(gathered=lambda rank, step: rank + 1 + step)),
    Known("reduce-counts-up", "a reduce-scatter in which rank r sends chunk r + s in step s", _WALK,
          _ring(reduced=lambda rank, step: rank + step)),
    Known("both-count-up", "chunks r + s in the first phase and r + 1 + s in the second", _WALK,
          _ring(reduced=lambda rank, step: rank + step, gathered=lambda rank, step: rank + 1 + step)),
    Known("one-chunk-for-all", "a ring in which all ranks send chunk s in step s of both phases", _WALK,
          _ring(reduced=lambda rank, step: step, gathered=lambda rank, step: step)),
    Known("gathers-the-same", "an all-gather in which rank r sends chunk r + 1 in every step", _WALK,
          _ring(gathered=lambda rank, step: rank + 1)),
    Known("shifted-down", "a reduce-scatter that begins with chunk r - 1, and an all-gather that does not follow it",
          _OWN, _ring(reduced=lambda rank, step: rank - 1 - step)),
    Known("counts-whole-arrays", "whole arrays sent around the ring, (N - 1) times the length (or one phase of all "
          "ranks)", _COUNT, _sends(lambda n, size: (n - 1) * size)),
    Known("counts-all-ranks", "what all ranks send together (or whole arrays in both phases)", "One rank is asked for.",
          _sends(lambda n, size: 2 * (n - 1) * size)),
    Known("counts-both-directions", "what a rank sends and what it receives", "What a rank receives, another has sent.",
          _sends(lambda n, size: 4 * (n - 1) * size / n)),
    Known("counts-one-phase", "one phase alone", _COUNT, _sends(lambda n, size: (n - 1) * size / n)),
    Known("counts-n-steps", "N steps in each phase, twice the length: the last step of each changes nothing in "
          "the end", _STEPS, _sends(lambda n, size: 2 * size)),
    Known("counts-length", "the length of an array (or one phase of N steps)", _COUNT, _sends(lambda n, size: size)),
    Known("counts-one-message", "one message", _COUNT, _sends(lambda n, size: size / n)),
    Known("counts-messages", "the number of messages", "How many elements has a message?",
          _sends(lambda n, size: 2 * (n - 1))),
    Known("counts-one-short", "N - 2 steps in each phase", _STEPS, _sends(lambda n, size: 2 * (n - 2) * size / n)),
    Known("counts-one-step-more", "2 N - 1 steps: one phase has a step that changes nothing in the end", _STEPS,
          _sends(lambda n, size: (2 * n - 1) * size / n)),
    Known("counts-one-step-less", "2 N - 3 steps", _STEPS, _sends(lambda n, size: (2 * n - 3) * size / n)),
    Known("counts-bytes", "bytes of float64 instead of elements", "Elements are asked for.",
          _sends(lambda n, size: 16 * (n - 1) * size / n)),
    Known("counts-bytes-of-float32", "bytes of float32 instead of elements", "Elements are asked for.",
          _sends(lambda n, size: 8 * (n - 1) * size / n)),
    Known("counts-nothing", "0", "Add the length of each message that one rank sends.", _sends(lambda n, size: 0)),
    Known("counts-all-whole-arrays", "whole arrays, sent around by all ranks and counted together", _COUNT,
          _sends(lambda n, size: n * (n - 1) * size)),
)  # fmt: skip


def _case(ranks: int, chunk: int, rng: np.random.Generator) -> dict[str, Any]:
    return {"values": list(rng.normal(size=(ranks, ranks * chunk)))}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [_case(int(rng.integers(3, 7)), int(rng.integers(1, 4)), rng)]


_RNG = np.random.default_rng(15)
RING = Numeric(
    _right,
    # whole numbers first: they are easy to follow by hand
    [{"values": [10.0 ** r * np.arange(1, 7) for r in range(3)]}, _case(4, 3, _RNG), _case(5, 1, _RNG)],
    MISTAKES,
    "what each rank holds, and a number",
    ("what each rank holds", "the number of elements sent"),
    edges=[Edge(_case(2, 3, _RNG)), Edge(_case(1, 4, _RNG)), Edge(_case(7, 2, _RNG))],
    drawn=_drawn,
)  # fmt: skip


def judge_ring_all_reduce(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: numbers and count, whose memory the arrays are, in which order it adds."""
    return guarded(candidate, lambda: _judged(candidate, progress))


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    notes: list[Finding] = []
    findings = RING(_through(candidate, notes), progress)
    if any(finding.kind != REMARK for finding in findings):
        return findings
    findings = list(dict.fromkeys([*findings, *notes]))
    return findings or _added_at_once(candidate)


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[..., Result]:
    """``candidate`` with its arrays stacked; ``notes`` gets what is wrong with their memory."""

    def ring_all_reduce(values: list[np.ndarray]) -> Result:
        case = said({"values": values})
        result = candidate(values)
        held, sent = _pair(result, case)
        rows = _rows(held, len(values), len(values[0]), case)
        if any(isinstance(row, np.ndarray) for row in rows):
            notes.extend(_memory(rows, values))
        return np.stack([as_array(row) for row in rows]), sent

    return ring_all_reduce


def _pair(result: Any, case: str) -> tuple[Any, Any]:
    if isinstance(result, (tuple, list)) and len(result) == 2 and np.ndim(result[1]) == 0:
        return result[0], result[1]
    hint = "Return two things: a list of arrays, one for each rank, and the number of elements that one rank has sent."
    if result is None:
        kind, hint = "None", "Does every path through the function end in a return?"
    elif isinstance(result, (tuple, list)):
        kind = f"{len(result)} thing{'s' * (len(result) != 1)}"
        if len(result) == 2:
            kind = "two things, of which the second is no single number"
    else:
        kind = f"something of type {type(result).__name__}"
    raise Stopped(Finding("wrong-result", f"With {case}, the function returns {kind}.", hint))


def _rows(held: Any, ranks: int, length: int, case: str) -> list[Any]:
    if isinstance(held, (str, Mapping)) or not hasattr(held, "__iter__"):
        kind = "None" if held is None else f"of type {type(held).__name__}"
        raise Stopped(Finding("wrong-result", f"With {case}, what the ranks hold is {kind}.", "A list of arrays."))
    with watched(f"what it returns is read, with {case}"):
        rows = list(held)
    if rows and all(np.ndim(row) == 0 for row in rows):
        what = f"With {case}, there is one array instead of one for each rank."
        hint = "Each rank holds the sum at the end: return a list with the array of each."
        raise Stopped(Finding("one-array", what, hint))
    if len(rows) != ranks:
        what = f"With {case}, the number of arrays is {len(rows)}, and there are {ranks} ranks."
        raise Stopped(Finding("arrays-for-ranks", what, "Return what each rank holds, in the order of the ranks."))
    for rank, row in enumerate(rows):
        shape = _shape(row)
        if shape == (length,):
            continue
        if shape == (length // ranks,):
            what = f"With {case}, rank {rank} returns one chunk instead of the whole array."
            raise Stopped(Finding("one-chunk", what, "That is where reduce-scatter ends. What comes after it?"))
        if len(shape) == 2 and shape[0] * shape[1] == length:
            what = f"With {case}, what rank {rank} holds is still cut into chunks: its shape is {shape}."
            raise Stopped(Finding("still-in-chunks", what, "Put the chunks together: `np.concatenate`."))
        what = f"With {case}, what rank {rank} holds has shape {shape} instead of {(length,)}."
        raise Stopped(Finding("wrong-shape", what, "Each rank's array is as long at the end as it was."))
    return rows


def _shape(row: Any) -> tuple[int, ...] | str:
    try:
        return as_array(row).shape
    except (TypeError, ValueError, RuntimeError):
        return "of other things than numbers"


def _memory(rows: list[Any], values: list[np.ndarray]) -> list[Finding]:
    arrays = [row for row in rows if isinstance(row, np.ndarray)]
    if any(np.shares_memory(one, other) for one, other in combinations(arrays, 2)):
        what = "Ranks share one array: what one of them writes into it, the others have too."
        hint = "Each rank has memory of its own: `array.copy()` for each."
        return [Finding("shared-array", what, hint)]
    if any(np.shares_memory(one, other) for one in arrays for other in values):
        what = "A rank's result is its argument itself, or a view of it."
        return [Finding("returns-its-argument", what, "Copy the arguments first; also where there is one rank alone.")]
    return []


def _added_at_once(candidate: Callable[..., Any]) -> list[Finding]:
    """A remark if every chunk is added up in the same order of ranks, which no ring does.

    2^53 + 1 is 2^53 in float64: of 2^53, 1 and -2^53 the sum is 0 or 1, and which of them depends on the order.
    """
    large = 2.0**53
    values = [np.full(6, each) for each in (large, 1.0, -large)]
    with watched("it adds up numbers of very different sizes"):
        held, _ = candidate([each.copy() for each in values])
        sums = np.stack([as_array(row) for row in held])
    if np.ptp(sums) > 0:
        return []
    what = (
        "The numbers are right, but no ring has made them: all chunks are added up in one and the same order of the "
        "ranks. In a ring each chunk begins at another rank."
    )
    return [Finding("added-at-once", what, "Send chunk after chunk, from rank r to rank r + 1.", REMARK)]
