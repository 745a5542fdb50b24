"""The exercise `owners_by_bytes`: which rank keeps the optimizer's state of which tensor, largest tensors first.

Lists of indices are read into one rank for each tensor, which `Numeric` judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, first_difference, guarded, said
from course_lib.checks.report import Finding

Owners = list[int]  # the rank of each tensor


def _by_size(sizes: list[int]) -> list[int]:
    """Indices, largest first; among equals the first comes first."""
    return sorted(range(len(sizes)), key=lambda i: -sizes[i])


def _greedy(
    order: Callable[[list[int]], list[int]] = _by_size,
    choose: Callable[[list[float], int], int] = lambda loads, size: loads.index(min(loads)),
    load: Callable[[float, int], float] = lambda before, size: before + size,
) -> Callable[..., Owners]:
    """Tensor by tensor in an order, each to the rank that is chosen by the loads so far."""

    def run(sizes: list[int], ranks: int) -> Owners:
        loads, owners = [0.0] * ranks, [0] * len(sizes)
        for i in order(sizes):
            rank = choose(loads, sizes[i])
            owners[i] = rank
            loads[rank] = load(loads[rank], sizes[i])
        return owners

    return run


def _dealt(order: Callable[[list[int]], list[int]], back: bool = False) -> Callable[..., Owners]:
    """One tensor to each rank in turn; ``back``: there and back again."""

    def run(sizes: list[int], ranks: int) -> Owners:
        owners = [0] * len(sizes)
        for place, i in enumerate(order(sizes)):
            turn, rank = divmod(place, ranks)
            owners[i] = ranks - 1 - rank if back and turn % 2 else rank
        return owners

    return run


def _blocks(order: Callable[[list[int]], list[int]]) -> Callable[..., Owners]:
    """Runs of equally many tensors, the first ones longer by one where it does not come out even."""

    def run(sizes: list[int], ranks: int) -> Owners:
        owners = [0] * len(sizes)
        for rank, part in enumerate(np.array_split(np.array(order(sizes), dtype=int), ranks)):
            for i in part:
                owners[i] = rank
        return owners

    return run


def _cut(before: bool, order: Callable[[list[int]], list[int]]) -> Callable[..., Owners]:
    """Runs of nearly equal bytes: a tensor belongs where it begins, or to a new rank once the last one is full."""

    def run(sizes: list[int], ranks: int) -> Owners:
        total, begun, owners, rank, held = sum(sizes), 0, [0] * len(sizes), 0, 0
        for i in order(sizes):
            if before:
                owners[i] = begun * ranks // total
            else:
                if held and (held + sizes[i]) * ranks > total and rank < ranks - 1:
                    rank, held = rank + 1, 0
                owners[i] = rank
            begun, held = begun + sizes[i], held + sizes[i]
        return owners

    return run


def _sorted_places(sizes: list[int], ranks: int) -> Owners:
    """The places in the sorted list are taken for the tensors."""
    right = RIGHT(sizes, ranks)
    return [right[i] for i in _by_size(sizes)]


def _in_order(sizes: list[int]) -> list[int]:
    return list(range(len(sizes)))


def _last_least(loads: list[float], size: int) -> int:
    return max(range(len(loads)), key=lambda rank: (-loads[rank], rank))


def _smallest(sizes: list[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda i: sizes[i])


def _largest_last_first(sizes: list[int]) -> list[int]:
    return _smallest(sizes)[::-1]


RIGHT = _greedy()
_LARGEST = "In which order are the tensors given away? What happens if the largest comes last?"
_LOADS = "Keep the bytes that each rank has so far, and look for the smallest sum before each tensor."
_TIES = "`min` and `list.index` take the first of equals."
_EQUAL = "Among tensors of the same size the first is given away first: `sorted(..., reverse=True)` keeps their order."
MISTAKES = (
    Known("in-order", "tensors that are given away in the order of the list: they are not sorted", _LARGEST,
          _greedy(_in_order)),
    Known("smallest-first", "the smallest tensor first", _LARGEST, _greedy(_smallest)),
    Known("from-the-end", "tensors that are given away from the last of the list to the first", _LARGEST,
          _greedy(lambda sizes: _in_order(sizes)[::-1])),
    Known("equals-turned-round", "equal sizes in the opposite order, as sorting upwards and turning round leaves them",
          _EQUAL, _greedy(_largest_last_first)),
    Known("ties-to-highest", "ties that go to the highest rank", _TIES, _greedy(choose=_last_least)),
    Known("equals-and-ties-turned-round", "equal sizes in the opposite order, and ties that go to the highest rank",
          f"{_EQUAL} {_TIES}", _greedy(_largest_last_first, _last_least)),
    Known("ties-to-highest-in-order", "tensors in the order of the list, and ties that go to the highest rank",
          f"{_LARGEST} {_TIES}", _greedy(_in_order, _last_least)),
    Known("round-robin", "tensor i on rank i % ranks: one to each in turn", _LOADS, _dealt(_in_order)),
    Known("by-count", "equally many tensors for each rank, dealt in turn with the largest first", _LOADS,
          _dealt(_by_size)),
    Known("there-and-back", "tensors that are dealt there and back again, the largest first", _LOADS,
          _dealt(_by_size, back=True)),
    Known("there-and-back-in-order", "tensors that are dealt there and back again, in the order of the list", _LOADS,
          _dealt(_in_order, back=True)),
    Known("runs-by-count", "runs of equally many tensors in the order of the list", _LOADS, _blocks(_in_order)),
    Known("sorted-runs-by-count", "runs of equally many tensors, the largest ones all on rank 0", _LOADS,
          _blocks(_by_size)),
    Known("runs-by-bytes", "runs of the list, cut where a rank's share of the bytes ends", _LOADS,
          _cut(True, _in_order)),
    Known("runs-until-full", "runs of the list: the next rank begins when one has its share", _LOADS,
          _cut(False, _in_order)),
    Known("sorted-runs-until-full", "ranks that are filled one after the other, with the largest tensors first",
          _LOADS, _cut(False, _by_size)),
    Known("all-on-one", "everything on rank 0", "Is a rank's sum larger after it was given a tensor? And do you look "
          "for the smallest sum?", lambda sizes, ranks: [0] * len(sizes)),
    Known("load-replaced", "loads that hold the last tensor alone: `=` instead of `+=`", _LOADS,
          _greedy(load=lambda before, size: size)),
    Known("load-replaced-in-order", "loads that hold the last tensor alone, in the order of the list", _LOADS,
          _greedy(_in_order, load=lambda before, size: size)),
    Known("places-for-indices", "places in the sorted list instead of places in `sizes`",
          "Sort the indices by size, not the sizes.", _sorted_places),
    Known("closest-to-share", "tensors that go to the fullest rank with room in its share", _LOADS,
          lambda sizes, ranks: _fullest_with_room(sizes, ranks)),
)  # fmt: skip


def _fullest_with_room(sizes: list[int], ranks: int) -> Owners:
    share = sum(sizes) / ranks

    def choose(loads: list[float], size: int) -> int:
        room = [rank for rank, load in enumerate(loads) if load + size <= share]
        return max(room, key=lambda rank: (loads[rank], -rank)) if room else loads.index(min(loads))

    return _greedy(choose=choose)(sizes, ranks)


def _case(ranks: int, *sizes: int) -> dict[str, Any]:
    return {"sizes": list(sizes), "ranks": ranks}


def _gpt2(width: int, blocks: int, vocabulary: int) -> list[int]:
    """Bytes of float32 parameters in the order of a GPT-2."""
    block = [2 * width, 3 * width * (width + 1), width * (width + 1), 2 * width, 4 * width * (width + 1),
             width * (4 * width + 1)]  # fmt: skip
    return [4 * size for size in [vocabulary * width, 1024 * width, *block * blocks, 2 * width]]


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    sizes = [4 * int(size) for size in rng.integers(1, 12, int(rng.integers(7, 16)))]
    return [_case(int(rng.integers(2, 5)), *sizes)]


class _ByTensor(Numeric):
    """Says what is wrong of one tensor, with the sums that stood when it was given away."""

    def _unnamed(
        self, cases: Any, results: list[Parts], expected: list[Parts], i: int, rounding: float = 0.0
    ) -> Finding:
        case, got, want = first_difference(cases, results, expected, i)
        sizes, loads = case["sizes"], [0] * case["ranks"]
        for tensor in _by_size(sizes):
            owner = int(want[tensor])
            if got[tensor] != owner:
                break
            loads[owner] += sizes[tensor]
        what = (
            f"With {said(case)}, tensor {tensor} ({sizes[tensor]:,} bytes) lies on rank {int(got[tensor])}. Expected: "
            f"rank {owner}. When its turn comes, the ranks have {loads} bytes."
        )
        return Finding("wrong-owner", what, "Give the tensors of this case away by hand, the largest first.")


OWNERS = _ByTensor(
    RIGHT,
    [
        _case(3, 40, 8, 24, 40, 16, 4, 24, 12, 8, 40, 4),
        _case(2, 12, 12, 4, 20, 8, 12, 4, 4, 28),
        _case(4, 8, 8, 16, 4, 36, 20, 8, 16, 64, 4, 12, 28, 16, 4),
    ],
    MISTAKES,
    "a list of lists",
    edges=[
        Edge(_case(3, *_gpt2(64, 3, 512))),
        Edge(_case(5, 4, 400)),
        Edge(_case(1, 8, 4, 12)),
        Edge(_case(3, 8, 8, 8, 8, 8, 8, 8)),
        Edge(_case(3, 0, 8, 0, 4, 0, 4, 0)),
        Edge(_case(2)),
    ],
    drawn=_drawn,
)


def judge_owners_by_bytes(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: first whether each tensor has one owner, then whether it is the right one."""
    findings = guarded(candidate, lambda: OWNERS(_read(candidate), progress))
    return [replace(finding, what=finding.what.replace("Your numbers", "Your lists", 1)) for finding in findings]


def _read(candidate: Callable[..., Any]) -> Callable[..., Owners]:
    """``candidate`` as a function that returns the rank of each tensor."""

    def owners_by_bytes(sizes: list[int], ranks: int) -> Owners:
        given, case = list(sizes), said({"sizes": sizes, "ranks": ranks})
        result = candidate(given, ranks)
        if given != sizes:
            what = "The function changes its argument `sizes` in place."
            raise Stopped(Finding("input-written", what, "`sorted` makes a new list, `sort` does not."))
        lists = _lists(result, sizes, ranks, case)
        counted = Counter(i for indices in lists for i in indices)
        if outside := sorted(i for i in counted if not 0 <= i < len(sizes)):
            raise Stopped(_outside(lists, outside[0], sizes, case))
        if lost := [i for i in range(len(sizes)) if not counted[i]]:
            what = f"With {case}, nobody owns tensor {lost[0]}: its state would never be updated."
            hint = "Each tensor belongs to one rank. Which one does your loop leave out?"
            raise Stopped(Finding("index-lost", what, hint))
        if twice := [i for i in counted if counted[i] > 1]:
            what = f"With {case}, tensor {min(twice)} is owned {counted[min(twice)]} times."
            raise Stopped(Finding("index-twice", what, "Each tensor belongs to one rank."))
        owners = [0] * len(sizes)
        for rank, indices in enumerate(lists):
            for i in indices:
                owners[i] = rank
        return owners

    return owners_by_bytes


def _outside(lists: list[list[int]], index: int, sizes: list[int], case: str) -> Finding:
    if sorted(i for indices in lists for i in indices) == sorted(sizes):
        what = f"With {case}, the lists hold the sizes of the tensors."
        return Finding("sizes-for-indices", what, "Their places in `sizes` are asked for: sort the indices by size.")
    if sorted(i for indices in lists for i in indices) == list(range(1, len(sizes) + 1)):
        return Finding("counted-from-one", f"With {case}, the tensors are counted from 1.", "Python counts from 0.")
    what = f"With {case}, the result holds {index}, and there are {len(sizes)} tensors."
    return Finding("no-such-index", what, "The first tensor is 0. The places in `sizes` are asked for.")


def _lists(result: Any, sizes: list[int], ranks: int, case: str) -> list[list[int]]:
    """The result as one list of indices for each rank, or Stopped with what it is instead."""
    if isinstance(result, (str, Mapping)) or not hasattr(result, "__iter__"):
        kind = "None" if result is None else f"something of type {type(result).__name__}"
        hint = "Does every path through the function end in a return?" if result is None else "One list for each rank."
        what = f"With {case}, the function returns {kind} instead of a list of lists."
        raise Stopped(Finding("wrong-result", what, hint))
    with watched(f"what it returns is read, with {case}"):
        rows = list(result)
    if rows and all(isinstance(row, Number) for row in rows):
        raise Stopped(_flat(rows, sizes, ranks, case))
    if len(rows) != ranks:
        what = f"With {case}, the number of lists is {len(rows)}, and there are {ranks} ranks."
        hint = "One list for each rank, an empty one for a rank that owns nothing."
        raise Stopped(Finding("lists-for-ranks", what, hint))
    return [list(_indices(row, case)) for row in rows]


def _flat(numbers: list[Any], sizes: list[int], ranks: int, case: str) -> Finding:
    """About a result that is one list of numbers."""
    right = RIGHT(sizes, ranks)
    loads = [sum(size for size, owner in zip(sizes, right, strict=True) if owner == rank) for rank in range(ranks)]
    if sorted(numbers) == sorted(loads):
        what = f"With {case}, the function returns the bytes of each rank: {numbers}."
        return Finding("returns-loads", what, "The indices of the tensors are asked for, a list for each rank.")
    if len(numbers) == len(sizes) and all(0 <= number < ranks for number in numbers):
        what = f"With {case}, the function returns a rank for each tensor: {numbers}."
        return Finding("rank-of-each", what, "The other way round: for each rank the list of its tensors.")
    what = f"With {case}, the function returns one list of numbers instead of a list for each rank."
    return Finding("one-list", what, "A list of lists: result[r] holds the indices that rank r owns.")


def _indices(row: Any, case: str) -> Iterator[int]:
    if isinstance(row, (str, Mapping)) or not hasattr(row, "__iter__"):
        what = f"With {case}, what a rank owns is of type {type(row).__name__} instead of a list."
        raise Stopped(Finding("wrong-result", what, "A list of indices, also for one tensor."))
    for value in row:
        try:
            index = int(value)
            whole = index == value
        except (TypeError, ValueError, OverflowError, RuntimeError):
            whole = False
        if not whole:
            what = f"With {case}, a rank's list holds something of type {type(value).__name__} that is no index."
            raise Stopped(Finding("not-an-index", what, "Append the index of the tensor alone."))
        yield index
