"""Answers to the exercises of notebook 15 that need no collectives of their own."""

from __future__ import annotations

import heapq
import math
from collections import UserList
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import torch

# ------------------------------------------------------------------------------------------------------ zero_plan

AR, RS, AG, BC = "all_reduce", "reduce_scatter", "all_gather", "broadcast"


def _table(changed=None):
    plans = {
        0: {"forward": [], "backward": [AR], "step": []},
        1: {"forward": [], "backward": [], "step": [RS, AG]},
        2: {"forward": [], "backward": [RS], "step": [AG]},
        3: {"forward": [AG], "backward": [AG, RS], "step": []},
    }
    for stage, phases in (changed or {}).items():
        plans[stage] = {**plans[stage], **phases}
    return lambda stage: plans[stage]


def _by_questions(stage):
    """What is whole, and when gradients go, asked one after the other."""
    weights_sharded, updates_sharded = stage == 3, stage > 0
    reduce = RS if updates_sharded else AR
    early = [reduce] * (stage != 1)
    return dict(
        forward=tuple([AG] * weights_sharded),
        backward=(*[AG] * weights_sharded, *early),
        step=(*[reduce] * (stage == 1), *[AG] * (updates_sharded and not weights_sharded)),
    )


def _without_state(stage):
    """The dict is made once and filled anew."""
    plan = {}
    for phase in ("step", "backward", "forward"):
        plan[phase] = np.array(_table()(stage)[phase], dtype=str)
    return MappingProxyType(plan)


def _same(plan):
    return lambda stage: plan


def _order(*stages):
    return lambda stage: _table()(stages[stage])


def _keys(**names):
    return lambda stage: {names.get(phase, phase): value for phase, value in _table()(stage).items()}


def _swapped(one, other):
    return lambda stage: {
        phase: [{one: other, other: one}.get(name, name) for name in names] for phase, names in _table()(stage).items()
    }


_ALL_REDUCED = {1: {"step": [AR, AG]}, 2: {"backward": [AR]}, 3: {"backward": [AG, AR]}}
_PLANS = {
    "a table": (_table(), ""),
    "by questions, tuples": (_by_questions, ""),
    "arrays of names, keys in another order": (_without_state, ""),
    "other sequences": (lambda stage: {phase: UserList(names) for phase, names in _table()(stage).items()}, ""),
    "the order of the paper's title": (_order(0, 3, 2, 1), "stages-reversed"),
    "from one": (_order(1, 2, 3, 3), "stage-ahead"),
    "one behind": (_order(0, 0, 1, 2), "stage-behind"),
    "gradients first": (_order(0, 2, 1, 3), "stages-1-and-2-exchanged"),
    "weights second": (_order(0, 1, 3, 2), "stages-2-and-3-exchanged"),
    "always DDP": (_same({"forward": [], "backward": [AR], "step": []}), "stage-ignored"),
    "always FSDP": (_order(3, 3, 3, 3), "stage-ignored"),
    "forward and backward exchanged": (_keys(forward="backward", backward="forward"), "phases-exchanged"),
    "shifted phases": (_keys(forward="backward", backward="step", step="forward"), "phases-exchanged"),
    "names exchanged": (_swapped(RS, AG), "scatter-and-gather-exchanged"),
    "last first": (
        lambda stage: {phase: names[::-1] for phase, names in _table()(stage).items()},
        "order-turned-round",
    ),
    "all_reduce everywhere": (_table(_ALL_REDUCED), "all-reduce-for-scatter"),
    "all_reduce in stage 1": (_table({1: {"backward": [AR], "step": [AG]}}), "all-reduce-for-scatter"),
    "all_reduce in stage 2": (_table({2: {"backward": [AR]}}), "all-reduce-for-scatter"),
    "torch's ZeRO-1": (_table({1: {"backward": [AR], "step": [BC]}}), "zero-redundancy-optimizer"),
    "an all_reduce in two": (_table({0: {"backward": [RS, AG]}}), "all-reduce-in-two"),
    "stage 0 scatters": (_table({0: {"backward": [RS]}}), "scatter-in-stage-0"),
    "stage 0 gathers gradients": (_table({0: {"backward": [AG]}}), "gather-for-reduce"),
    "stage 2 gathers gradients": (_table({2: {"backward": [AG]}}), "gather-for-reduce"),
    "rank 0's gradients": (_table({0: {"backward": [BC]}}), "broadcast-for-reduce"),
    "no communication in stage 0": (_table({0: {"backward": []}}), "gradients-not-reduced"),
    "gradients forgotten in stage 1": (_table({1: {"step": [AG]}}), "gradients-not-reduced"),
    "gradients forgotten in stage 3": (_table({3: {"backward": [AG]}}), "gradients-not-reduced"),
    "all at the step in stage 0": (_table({0: {"backward": [], "step": [AR]}}), "gradients-at-step"),
    "all at the step in stage 2": (_table({2: {"backward": [], "step": [RS, AG]}}), "gradients-at-step"),
    "scatter at the step in stage 3": (_table({3: {"backward": [AG], "step": [RS]}}), "gradients-at-step"),
    "stage 1 like 2": (_table({1: {"backward": [RS], "step": [AG]}}), "scatter-in-backward"),
    "no gather in stage 1": (_table({1: {"step": [RS]}}), "gather-missing"),
    "no gather in stages 1 and 2": (_table({1: {"step": [RS]}, 2: {"step": []}}), "gather-missing"),
    "gathered when needed": (_table({2: {"forward": [AG], "step": []}}), "gather-in-next-forward"),
    "gather first": (_table({1: {"step": [AG, RS]}}), "gather-before-scatter"),
    "stage 0 gathers weights": (_table({0: {"step": [AG]}}), "gather-in-stage-0"),
    "stage 2 gathers weights twice": (_table({2: {"forward": [AG]}}), "weights-gathered"),
    "stage 1 gathers in backward": (_table({1: {"backward": [AG]}}), "weights-gathered"),
    "gradients made whole": (_table({2: {"backward": [RS, AG]}}), "gradients-gathered"),
    "weights sent each time": (_table({0: {"forward": [BC]}, 1: {"forward": [BC]}}), "weights-broadcast"),
    "weights sent after the step": (_table({0: {"step": [BC]}}), "broadcast-at-step"),
    "weights averaged": (_table({0: {"step": [AR]}}), "weights-averaged"),
    "broadcast for gather": (
        _table({1: {"step": [RS, BC]}, 2: {"step": [BC]}, 3: {"forward": [BC], "backward": [BC, RS]}}),
        "broadcast-for-gather",
    ),
    "broadcast in stage 3's forward": (_table({3: {"forward": [BC]}}), "broadcast-for-gather"),
    "slices added up": (_table({2: {"step": [AR]}}), "reduce-for-gather"),
    "reshard_after_forward=False": (_table({3: {"backward": [RS]}}), "no-second-gather"),
    "not gathered in forward": (_table({3: {"forward": []}}), "forward-not-gathered"),
    "gathered after the step": (_table({3: {"step": [AG]}}), "gather-after-step"),
    "scattered before gathered": (_table({3: {"backward": [RS, AG]}}), "scatter-before-gather"),
    "two faults in one stage": (_table({3: {"backward": [AR], "step": [AG]}}), "gather-after-step"),
    "stage 1 like 0": (_table({1: {"backward": [AR], "step": []}}), "another-stage"),
    "stage 3 like 2": (_table({3: {"forward": [], "backward": [RS], "step": [AG]}}), "another-stage"),
    "stage 0 like 3": (_table({0: {"forward": [AG], "backward": [AG, RS]}}), "another-stage"),
    "everything, everywhere": (_table({2: {"forward": [AR, RS, BC], "backward": [AG, AG]}}), "wrong-plan"),
    "no step": (lambda stage: {"forward": [], "backward": [AR]}, "phase-missing"),
    "a phase more": (lambda stage: {**_table()(stage), "init": [BC]}, "unknown-phase"),
    "a name for a list": (_table({0: {"backward": AR}}), "not-a-list"),
    "None for nothing": (_table({0: {"step": None}}), "not-a-list"),
    "sets": (lambda stage: {phase: set(names) for phase, names in _table()(stage).items()}, "not-a-list"),
    "torch's names": (_table({3: {"forward": ["all_gather_into_tensor"]}}), "unknown-collective"),
    "lists": (lambda stage: list(_table()(stage).values()), "wrong-result"),
    "nothing": (lambda stage: None, "wrong-result"),
    "stage 3 forgotten": (lambda stage: {s: _table()(s) for s in range(3)}[stage], "raises"),
    "not written": (lambda stage: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ------------------------------------------------------------------------------------------------- owners_by_bytes


def _largest_first(sizes):
    return sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)


def _owned(
    order=_largest_first,
    choose=lambda loads, counts: loads.index(min(loads)),
    add=lambda load, size: load + size,
):
    def owners_by_bytes(sizes, ranks):
        lists, loads = [[] for _ in range(ranks)], [0] * ranks
        for i in order(sizes):
            rank = choose(loads, [len(indices) for indices in lists])
            lists[rank].append(i)
            loads[rank] = add(loads[rank], sizes[i])
        return lists

    return owners_by_bytes


def _heap(sizes, ranks):
    heap, owned = [(0, rank) for rank in range(ranks)], {rank: () for rank in range(ranks)}
    for size, i in sorted((-size, i) for i, size in enumerate(sizes)):
        load, rank = heapq.heappop(heap)
        owned[rank] += (i,)
        heapq.heappush(heap, (load - size, rank))
    return tuple(owned[rank] for rank in range(ranks))


def _numpy(sizes, ranks):
    loads, owner = np.zeros(ranks, dtype=np.int64), np.empty(len(sizes), dtype=np.int64)
    for i in np.argsort(-np.asarray(sizes, dtype=np.int64), kind="stable"):
        owner[i] = loads.argmin()
        loads[owner[i]] += sizes[i]
    return [np.flatnonzero(owner == rank) for rank in range(ranks)]


def _sets(sizes, ranks):
    return [set(indices) for indices in _owned()(sizes, ranks)]


def _dealt(order):
    def owners_by_bytes(sizes, ranks):
        indices = order(sizes)
        return [indices[rank::ranks] for rank in range(ranks)]

    return owners_by_bytes


def _in_order(sizes):
    return list(range(len(sizes)))


def _there_and_back(order):
    def owners_by_bytes(sizes, ranks):
        lists, rank, by = [[] for _ in range(ranks)], 0, 1
        for i in order(sizes):
            lists[rank].append(i)
            if 0 <= rank + by < ranks:
                rank += by
            else:
                by = -by
        return lists

    return owners_by_bytes


def _runs(order):
    def owners_by_bytes(sizes, ranks):
        return [part.tolist() for part in np.array_split(np.array(order(sizes), dtype=int), ranks)]

    return owners_by_bytes


def _runs_by_bytes(sizes, ranks):
    lists, done, total = [[] for _ in range(ranks)], 0, sum(sizes)
    for i, size in enumerate(sizes):
        lists[done * ranks // total].append(i)
        done += size
    return lists


def _until_full(order):
    def owners_by_bytes(sizes, ranks):
        lists, full = [[]], sum(sizes) / ranks
        for i in order(sizes):
            if lists[-1] and sum(sizes[j] for j in lists[-1]) + sizes[i] > full and len(lists) < ranks:
                lists.append([])
            lists[-1].append(i)
        return lists + [[] for _ in range(ranks - len(lists))]

    return owners_by_bytes


def _room(sizes, ranks):
    lists, loads, full = [[] for _ in range(ranks)], [0] * ranks, sum(sizes) / ranks
    for i in _largest_first(sizes):
        fits = [r for r in range(ranks) if loads[r] + sizes[i] <= full]
        rank = max(fits, key=lambda r: loads[r]) if fits else loads.index(min(loads))
        lists[rank].append(i)
        loads[rank] += sizes[i]
    return lists


def _last_of_least(loads, counts):
    return len(loads) - 1 - loads[::-1].index(min(loads))


def _places(sizes, ranks):
    return _owned(order=_in_order)(sorted(sizes, reverse=True), ranks)


def _sorts_in_place(sizes, ranks):
    lists = _owned()(sizes, ranks)
    sizes.sort(reverse=True)
    return lists


def _finds_by_value(sizes, ranks):
    """`index` finds the first of equal sizes each time."""
    return [[sizes.index(sizes[i]) for i in indices] for indices in _owned()(sizes, ranks)]


def _upside_down(sizes):
    return sorted(range(len(sizes)), key=lambda i: sizes[i])[::-1]


_OWNERS = {
    "plain": (_owned(), ""),
    "a heap, tuples": (_heap, ""),
    "NumPy": (_numpy, ""),
    "sets": (_sets, ""),
    "tensors": (lambda sizes, ranks: [torch.tensor(x, dtype=torch.int64) for x in _owned()(sizes, ranks)], ""),
    "sorted lists": (lambda sizes, ranks: list(map(sorted, _owned()(sizes, ranks))), ""),
    "not sorted": (_owned(_in_order), "in-order"),
    "smallest first": (_owned(lambda s: sorted(range(len(s)), key=s.__getitem__)), "smallest-first"),
    "from the end": (_owned(lambda s: _in_order(s)[::-1]), "from-the-end"),
    "turned round": (_owned(_upside_down), "equals-turned-round"),
    "the last of the least": (_owned(choose=_last_of_least), "ties-to-highest"),
    "both": (_owned(_upside_down, _last_of_least), "equals-and-ties-turned-round"),
    "the last of the least, not sorted": (_owned(_in_order, _last_of_least), "ties-to-highest-in-order"),
    "in turn": (_dealt(_in_order), "round-robin"),
    "in turn, sorted": (_dealt(_largest_first), "by-count"),
    "fewest tensors": (_owned(choose=lambda loads, counts: counts.index(min(counts))), "by-count"),
    "fewest tensors, not sorted": (_owned(_in_order, lambda loads, counts: counts.index(min(counts))), "round-robin"),
    "there and back": (_there_and_back(_largest_first), "there-and-back"),
    "there and back, not sorted": (_there_and_back(_in_order), "there-and-back-in-order"),
    "runs": (_runs(_in_order), "runs-by-count"),
    "sorted runs": (_runs(_largest_first), "sorted-runs-by-count"),
    "runs by bytes": (_runs_by_bytes, "runs-by-bytes"),
    "until full": (_until_full(_in_order), "runs-until-full"),
    "sorted, until full": (_until_full(_largest_first), "sorted-runs-until-full"),
    "best fit": (_room, "closest-to-share"),
    "the fullest": (_owned(choose=lambda loads, counts: loads.index(max(loads))), "all-on-one"),
    "sums forgotten": (_owned(add=lambda load, size: load), "all-on-one"),
    "= for +=": (_owned(add=lambda load, size: size), "load-replaced"),
    "= for +=, not sorted": (_owned(_in_order, add=lambda load, size: size), "load-replaced-in-order"),
    "counts added": (_owned(add=lambda load, size: load + 1), "by-count"),
    "places": (_places, "places-for-indices"),
    "squares": (_owned(add=lambda load, size: load + size * size), "wrong-owner"),
    "found by value": (_finds_by_value, "index-lost"),
    "the smallest left out": (
        lambda sizes, ranks: _owned(lambda s: _largest_first(s)[:-1])(sizes, ranks),
        "index-lost",
    ),
    "one twice": (lambda sizes, ranks: [[0, *x] for x in _owned()(sizes, ranks)], "index-twice"),
    "from one": (lambda sizes, ranks: [[i + 1 for i in x] for x in _owned()(sizes, ranks)], "counted-from-one"),
    "sizes": (lambda sizes, ranks: [[sizes[i] for i in x] for x in _owned()(sizes, ranks)], "sizes-for-indices"),
    "beyond the end": (lambda sizes, ranks: [[i + 9 for i in x] for x in _owned()(sizes, ranks)], "no-such-index"),
    "sums": (lambda sizes, ranks: [sum(sizes[i] for i in x) for x in _owned()(sizes, ranks)], "returns-loads"),
    "owner of each": (
        lambda sizes, ranks: [r for i in range(len(sizes)) for r, x in enumerate(_owned()(sizes, ranks)) if i in x],
        "rank-of-each",
    ),
    "the order": (lambda sizes, ranks: _largest_first(sizes), "one-list"),
    "only ranks with tensors": (lambda sizes, ranks: [x for x in _owned()(sizes, ranks) if x], "lists-for-ranks"),
    "a list too many": (lambda sizes, ranks: [*_owned()(sizes, ranks), []], "lists-for-ranks"),
    "a dict": (lambda sizes, ranks: dict(enumerate(_owned()(sizes, ranks))), "wrong-result"),
    "pairs": (
        lambda sizes, ranks: [[(i, sizes[i]) for i in x] for x in _owned()(sizes, ranks)],
        "not-an-index",
    ),
    "None among them": (lambda sizes, ranks: [None, *_owned()(sizes, ranks)[1:]], "wrong-result"),
    "nothing": (lambda sizes, ranks: None, "wrong-result"),
    "sorts in place": (_sorts_in_place, "input-written"),
    "largest asked of none": (lambda sizes, ranks: (max(sizes), _owned()(sizes, ranks))[1], "raises"),
    "no bytes, no owner": (
        lambda sizes, ranks: [[i for i in x if sizes[i]] for x in _owned()(sizes, ranks)],
        "index-lost",
    ),
    "empties it": (lambda sizes, ranks: (_owned()(sizes, ranks), sizes.clear())[0], "input-written"),
    "not written": (lambda sizes, ranks: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ------------------------------------------------------------------------------------------------- ring_all_reduce


def _chunked(
    reduce_steps=0,
    gather_steps=0,
    reduced=lambda r, s: r - s,
    gathered=lambda r, s: r + 1 - s,
    add=lambda mine, message: mine + message,
    replace=lambda mine, message: message,
    finish=lambda held, sent: (held, sent),
    moved=lambda message: len(message),
):
    def ring_all_reduce(values):
        n, sent = len(values), 0
        held = [np.split(v.copy(), n) for v in values]
        for more, chunk, take in ((reduce_steps, reduced, add), (gather_steps, gathered, replace)):
            for s in range(n - 1 + more):
                messages = [(r, chunk(r, s) % n, held[r][chunk(r, s) % n].copy()) for r in range(n)]
                sent += moved(messages[0][2])
                for r, c, message in messages:
                    held[(r + 1) % n][c] = take(held[(r + 1) % n][c], message)
        return finish([np.concatenate(chunks) for chunks in held], sent)

    return ring_all_reduce


def _in_place(values):
    """Slices of whole arrays, rank after rank in a step; the ring runs the other way round."""
    n, size = len(values), len(values[0]) // len(values)
    held, sent = np.array(values), 0

    def part(rank, c):
        return held[rank, c % n * size : (c % n + 1) * size]

    for s in range(n - 1):
        for r in range(n):
            part(r - 1, r + s)[...] += part(r, r + s)
        sent += size
    for s in range(n - 1):
        for r in range(n):
            part(r - 1, r - 1 + s)[...] = part(r, r - 1 + s)
        sent += size
    return held, np.int64(sent)


def _with_tensors(values):
    held = torch.tensor(np.array(values)).reshape(len(values), len(values), -1)
    n, per_step = len(values), held.shape[2]
    ranks = torch.arange(n)
    for s in range(n - 1):
        c = (ranks - s) % n
        held[(ranks + 1) % n, c] += held[ranks, c]
    for s in range(n - 1):
        c = (ranks + 1 - s) % n
        held[(ranks + 1) % n, c] = held[ranks, c]
    return list(held.flatten(1)), 2 * (n - 1) * per_step


def _queues(values):
    """Each rank keeps a dict of chunks; messages lie in mailboxes. Reduce-scatter begins one chunk lower."""
    n = len(values)
    memory = [dict(enumerate(v.reshape(n, -1).copy())) for v in values]
    sent = [0] * n
    for step in range(2 * n - 2):
        mail = {}
        for rank in range(n):
            c = (rank - 1 - step) % n if step < n - 1 else (rank - (step - n + 1)) % n
            mail[(rank + 1) % n] = (c, memory[rank][c].copy())
            sent[rank] += memory[rank][c].size
        for rank, (c, message) in mail.items():
            memory[rank][c] = message + memory[rank][c] if step < n - 1 else message
    return tuple(np.hstack([chunks[c] for c in range(n)]) for chunks in memory), sent[0]


def _whole(values):
    """Whole arrays go round, and each rank adds what it sees."""
    n = len(values)
    held, passing = [v.copy() for v in values], list(values)
    sent = 0
    for _ in range(n - 1):
        passing = [passing[r - 1] for r in range(n)]
        held = [h + p for h, p in zip(held, passing, strict=True)]
        sent += len(values[0])
    return held, sent


def _right_count(values):
    return 2 * (len(values) - 1) * len(values[0]) // len(values)


def _holding(held):
    return lambda values: (held(values), _right_count(values))


def _counting(count):
    return lambda values: (_in_place(values)[0], count(len(values), len(values[0])))


def _shared(values):
    return [sum(values[1:], values[0].copy())] * len(values), _right_count(values)


def _writes_inputs(values):
    """Chunks are views of the arguments."""
    n, chunks = len(values), [np.split(v, len(values)) for v in values]
    for s in range(n - 1):
        for r in range(n):
            chunks[(r + 1) % n][(r - s) % n] += chunks[r][(r - s) % n]
    for s in range(n - 1):
        for r in range(n):
            chunks[(r + 1) % n][(r + 1 - s) % n][...] = chunks[r][(r + 1 - s) % n]
    return [v.copy() for v in values], _right_count(values)


def _one_rank_as_it_is(values):
    return (values, 0) if len(values) == 1 else _in_place(values)


def _pieces(values):
    return [np.split(row, len(values)) for row in _in_place(values)[0]], _right_count(values)


def _scattered(values):
    rows, count = _in_place(values)
    return [np.split(row, len(values))[r] for r, row in enumerate(rows)], count


_RING = {
    "chunks in lists": (_chunked(), ""),
    "slices, the other way round, a matrix": (_in_place, ""),
    "tensors, all ranks at once": (_with_tensors, ""),
    "mailboxes": (_queues, ""),
    "lists of floats": (_chunked(finish=lambda held, sent: [[h.tolist() for h in held], float(sent)]), ""),
    "a plain sum": (lambda values: ([np.sum(values, axis=0) for _ in values], _right_count(values)), ""),
    "mean": (_chunked(finish=lambda held, sent: ([h / len(held) for h in held], sent)), "mean"),
    "largest": (_chunked(add=np.maximum), "maximum"),
    "rank 0's": (_holding(lambda values: [values[0].copy() for _ in values]), "one-ranks-values"),
    "the last one's": (_holding(lambda values: [values[-1].copy() for _ in values]), "last-ranks-values"),
    "reduce to rank 0": (
        _holding(lambda values: [sum(values), *[v.copy() for v in values[1:]]]),
        "sum-on-rank-0",
    ),
    "reduce to the last": (
        _holding(lambda values: [*[v.copy() for v in values[:-1]], sum(values)]),
        "sum-on-last-rank",
    ),
    "only the others": (_holding(lambda values: [sum(values) - v for v in values]), "others-only"),
    "its own twice": (_holding(lambda values: [sum(values) + v for v in values]), "own-twice"),
    "nothing adds": (_chunked(add=lambda mine, message: mine, replace=lambda mine, message: mine), "unchanged"),
    "no second phase": (_chunked(replace=lambda mine, message: mine), "no-gather"),
    "one reduction short": (_chunked(reduce_steps=-1), "reduce-one-short"),
    "the same chunk in every step": (_chunked(reduced=lambda r, s: r), "reduce-one-short"),
    "one gather short": (_chunked(gather_steps=-1), "gather-one-short"),
    "both short": (_chunked(-1, -1), "both-one-short"),
    "adds in both": (_chunked(replace=np.add), "gather-adds"),
    "replaces in both": (_chunked(add=lambda mine, message: message), "gather-starts-at-r"),
    "starts at r": (_chunked(gathered=lambda r, s: r - s), "gather-starts-at-r"),
    "starts below r": (_chunked(gathered=lambda r, s: r - 1 - s), "gather-starts-below-r"),
    "starts at r + 2": (_chunked(gathered=lambda r, s: r + 2 - s), "gather-starts-above"),
    "gather counts up": (_chunked(gathered=lambda r, s: r + 1 + s), "gather-counts-up"),
    "reduce counts up": (_chunked(reduced=lambda r, s: r + s), "reduce-counts-up"),
    "both count up": (_chunked(reduced=lambda r, s: r + s, gathered=lambda r, s: r + 1 + s), "both-count-up"),
    "chunk s for all": (_chunked(reduced=lambda r, s: s, gathered=lambda r, s: s), "one-chunk-for-all"),
    "the same gathered": (_chunked(gathered=lambda r, s: r + 1), "gathers-the-same"),
    "reduce one lower": (_chunked(reduced=lambda r, s: r - 1 - s), "shifted-down"),
    "whole arrays": (_whole, "counts-whole-arrays"),
    "all ranks counted": (_chunked(finish=lambda held, sent: (held, sent * len(held))), "counts-all-ranks"),
    "received counted": (_chunked(moved=lambda m: 2 * len(m)), "counts-both-directions"),
    "one phase counted": (_chunked(finish=lambda held, sent: (held, sent / 2)), "counts-one-phase"),
    "N steps in both": (_chunked(1, 1), "counts-n-steps"),
    "N steps in the first": (_chunked(1, 0), "counts-one-step-more"),
    "N steps in the second": (_chunked(0, 1), "counts-one-step-more"),
    "2 N - 3": (_counting(lambda n, size: (2 * n - 3) * size // n), "counts-one-step-less"),
    "2 (N - 2)": (_counting(lambda n, size: 2 * (n - 2) * size // n), "counts-one-short"),
    "the length": (_counting(lambda n, size: size), "counts-length"),
    "one chunk": (_counting(lambda n, size: size // n), "counts-one-message"),
    "messages": (_chunked(moved=lambda m: 1), "counts-messages"),
    "bytes": (_chunked(moved=lambda m: m.nbytes), "counts-bytes"),
    "bytes of float32": (_chunked(moved=lambda m: 4 * m.size), "counts-bytes-of-float32"),
    "never counted": (_chunked(moved=lambda m: 0), "counts-nothing"),
    "whole arrays of all": (_counting(lambda n, size: n * (n - 1) * size), "counts-all-whole-arrays"),
    "whole arrays, mean": (
        lambda values: ([h / len(values) for h in _whole(values)[0]], _whole(values)[1]),
        "mean",
    ),
    "float32": (lambda values: ([h.astype(np.float32) for h in _in_place(values)[0]], _right_count(values)), ""),
    "one shared array": (_shared, "shared-array"),
    "writes its arguments": (_writes_inputs, "input-written"),
    "one rank as it is": (_one_rank_as_it_is, "returns-its-argument"),
    "one array": (lambda values: (sum(values), _right_count(values)), "one-array"),
    "in pieces": (_pieces, "still-in-chunks"),
    "a chunk each": (_scattered, "one-chunk"),
    "a rank short": (lambda values: (_in_place(values)[0][1:], _right_count(values)), "arrays-for-ranks"),
    "twice as long": (
        lambda values: ([np.tile(h, 2) for h in _in_place(values)[0]], _right_count(values)),
        "wrong-shape",
    ),
    "a count for each": (_chunked(finish=lambda held, sent: (held, [sent] * len(held))), "wrong-result"),
    "no count": (_chunked(finish=lambda held, sent: held), "wrong-result"),
    "nothing": (lambda values: None, "wrong-result"),
    "zeros": (_holding(lambda values: [np.zeros(len(v)) for v in values]), "wrong-numbers"),
    "not for one rank": (
        lambda values: (_ for _ in ()).throw(ValueError("no ring")) if len(values) == 1 else _in_place(values),
        "raises",
    ),
    "not written": (lambda values: (_ for _ in ()).throw(NotImplementedError), "blank"),
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------- ring_seconds


def _seconds(latencies=lambda n: 2 * (n - 1), sizes=lambda n: 2 * (n - 1) / n, finish=lambda seconds: seconds):
    def ring_seconds(size, ranks, bandwidth, latency=0.0):
        return finish(latencies(ranks) * latency + sizes(ranks) * size / bandwidth)

    return ring_seconds


def _step_by_step(size, ranks, bandwidth, latency=0.0):
    clock = 0.0
    for _phase in ("reduce-scatter", "all-gather"):
        for _ in range(1, ranks):
            clock += latency + (size / ranks) / bandwidth
    return clock


def _two_phases(size, ranks, bandwidth, latency=0):
    phase = (ranks - 1) * latency + (ranks - 1) / ranks * size / bandwidth
    return np.float64(phase) + phase


def _exact(size, ranks, bandwidth, latency=0):
    chunk = Fraction(size) / ranks / Fraction(bandwidth)
    return 2 * (ranks - 1) * (Fraction(latency) + chunk)


def _log(n):
    return math.log2(n)


_SECONDS = {
    "step by step": (_step_by_step, ""),
    "two phases": (_two_phases, ""),
    "fractions": (_exact, ""),
    "decimal": (lambda *a, **k: Decimal(float(_exact(*a, **k))), ""),
    "a tensor": (lambda *a, **k: torch.tensor([_step_by_step(*a, **k)], dtype=torch.float64), ""),
    "latency first": (_seconds(), ""),
    "one phase": (_seconds(lambda n: n - 1, lambda n: (n - 1) / n), "one-phase"),
    "bytes of one": (_seconds(sizes=lambda n: (n - 1) / n), "bandwidth-of-one-phase"),
    "latency of one": (_seconds(lambda n: n - 1), "latency-of-one-phase"),
    "2 size over bandwidth": (_seconds(sizes=lambda n: 2), "limit-of-many-ranks"),
    "N steps": (_seconds(lambda n: 2 * n, lambda n: 2), "n-steps"),
    "2 N - 1": (_seconds(lambda n: 2 * n - 1, lambda n: (2 * n - 1) / n), "one-step-more"),
    "2 N - 3": (_seconds(lambda n: 2 * n - 3, lambda n: (2 * n - 3) / n), "one-step-less"),
    "whole messages": (_seconds(sizes=lambda n: 2 * (n - 1)), "whole-messages"),
    "whole arrays": (_seconds(lambda n: n - 1, lambda n: n - 1), "whole-arrays-around"),
    "divided twice": (_seconds(sizes=lambda n: 2 * (n - 1) / n / n), "divided-twice"),
    "a tree's latency": (_seconds(lambda n: 2 * _log(n)), "tree-latency"),
    "a tree's latency, whole": (_seconds(lambda n: 2 * math.ceil(_log(n))), "tree-latency-rounded"),
    "a tree's latency, once": (_seconds(_log), "tree-latency-once"),
    "one latency": (_seconds(lambda n: 1), "latency-once"),
    "two latencies": (_seconds(lambda n: 2), "latency-twice"),
    "N latencies": (_seconds(lambda n: n), "latency-per-rank"),
    "2 N latencies": (_seconds(lambda n: 2 * n), "latency-per-rank-twice"),
    "no latency": (_seconds(lambda n: 0), "latency-missing"),
    "latency over bandwidth": (
        lambda size, ranks, bandwidth, latency=0: 2 * (ranks - 1) * (latency + size / ranks) / bandwidth,
        "latency-missing",
    ),
    "size over bandwidth": (_seconds(lambda n: 0, lambda n: 1), "size-over-bandwidth"),
    "2 size over bandwidth, no latency": (_seconds(lambda n: 0, lambda n: 2), "two-sizes-over-bandwidth"),
    "one phase, no latency": (_seconds(lambda n: 0, lambda n: 1 - 1 / n), "one-phase-without-latency"),
    "latency divided": (_seconds(lambda n: 2 * (n - 1) / n), "latency-divided"),
    "latency alone": (_seconds(sizes=lambda n: 0), "latency-alone"),
    "bandwidth in GB/s": (_seconds(sizes=lambda n: 2 * (n - 1) / n / 1e9), "latency-alone"),
    "floor division": (_seconds(sizes=lambda n: 2 * ((n - 1) // n)), "latency-alone"),
    "latency taken away": (_seconds(lambda n: -2 * (n - 1)), "latency-subtracted"),
    "brackets": (
        lambda size, ranks, bandwidth, latency=0: 2 * (ranks - 1) * latency + size / ranks / bandwidth,
        "latency-outside",
    ),
    "both directions": (_seconds(sizes=lambda n: 4 * (n - 1) / n), "both-directions"),
    "all ranks": (lambda **k: k["ranks"] * _step_by_step(**k), "all-ranks-added"),
    "bits": (_seconds(sizes=lambda n: 16 * (n - 1) / n), "bits"),
    "from bits": (_seconds(sizes=lambda n: (n - 1) / n / 4), "size-in-bits"),
    "GiB": (_seconds(sizes=lambda n: 2 * (n - 1) / n * 1e9 / 2**30), "gibibytes"),
    "ms": (_seconds(finish=lambda seconds: 1000 * seconds), "milliseconds"),
    "us": (_seconds(finish=lambda seconds: 1e6 * seconds), "microseconds"),
    "floats": (_seconds(sizes=lambda n: 8 * (n - 1) / n), "elements"),
    "upside down": (
        lambda size, ranks, bandwidth, latency=0: 2 * (ranks - 1) * (latency + bandwidth / ranks / size),
        "upside-down",
    ),
    "times": (
        lambda size, ranks, bandwidth, latency=0: 2 * (ranks - 1) * (latency + bandwidth * size / ranks),
        "multiplied",
    ),
    "bandwidth": (_seconds(finish=lambda seconds: 1 / seconds if seconds else 0.0), "wrong-numbers"),
    "latency has no default": (
        lambda size, ranks, bandwidth, latency: _step_by_step(size, ranks, bandwidth, latency),
        "signature",
    ),
    "a default latency": (
        lambda size, ranks, bandwidth, latency=1e-5: _step_by_step(size, ranks, bandwidth, latency),
        "wrong-numbers",
    ),
    "one rank never": (
        lambda size, ranks, bandwidth, latency=0: (
            1 / (ranks - 1) and _step_by_step(size, ranks, bandwidth, latency)
        ),
        "raises",
    ),
    "a text": (lambda **k: f"{_step_by_step(**k)} s", "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}  # fmt: skip

FUNCTIONS = {"zero_plan": _PLANS, "owners_by_bytes": _OWNERS, "ring_all_reduce": _RING, "ring_seconds": _SECONDS}
