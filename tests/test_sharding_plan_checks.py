"""The references behind the exercises of notebook 15 that need no processes, held against torch and brute force."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.optim import ZeroRedundancyOptimizer

import catalogues
from candidates.functions.sharding_plans import FUNCTIONS
from course_lib.checks.functions import JUDGES, zero_plan
from course_lib.checks.functions.owners_by_bytes import OWNERS
from course_lib.checks.functions.ring_all_reduce import RING, simulated
from course_lib.checks.functions.ring_seconds import RING_SECONDS
from course_lib.checks.functions.zero_plan import NAMES, PHASES, RIGHT, STAGES
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.checks.report import REMARK
from course_lib.memory.predict import predict

READ = {"owners_by_bytes": OWNERS, "ring_all_reduce": RING}


def judged(exercise, function):
    return JUDGES[exercise](function, lambda _: None)


# ---------------------------------------------------------------------------------------------------- catalogues


@pytest.mark.parametrize("exercise", READ)
def test_mistakes_differ_from_the_answer_and_from_each_other(exercise):
    judge = READ[exercise]
    assert len(judge.known) >= 20
    assert not catalogues.not_told_apart(judge)


@pytest.mark.parametrize("exercise", READ)
def test_every_mistake_is_named_by_its_own_code(exercise):
    assert not catalogues.misnamed(READ[exercise])


@pytest.mark.parametrize("exercise", ["owners_by_bytes", "ring_all_reduce"])
def test_what_is_drawn_changes_no_verdict(exercise):
    for name, (candidate, expected) in FUNCTIONS[exercise].items():
        for _ in range(2):
            codes = [finding.code for finding in judged(exercise, candidate) if finding.kind != REMARK]
            assert codes[0] == expected if expected else not codes, name


@pytest.mark.parametrize("exercise", ["owners_by_bytes", "ring_all_reduce"])
def test_a_table_of_the_fixed_answers_does_not_pass(exercise):
    judge = READ[exercise]
    plain = {"owners_by_bytes": "a heap, tuples", "ring_all_reduce": "chunks in lists"}[exercise]
    right = FUNCTIONS[exercise][plain][0]
    cases = [*judge.cases, *(edge.case for edge in judge.edges)]
    table = {str(list(case.values())): right(**case) for case in cases}

    def looked_up(*case):
        zeros = [[np.zeros_like(case[0][0]) for _ in case[0]], 0] if len(case) == 1 else None
        every = [list(range(len(case[0]))), *[[]] * (case[1] - 1)] if len(case) == 2 else None
        return table.get(str(list(case)), zeros or every)

    codes = {finding.code for finding in judged(exercise, looked_up)}
    assert codes <= {"wrong-owner", "wrong-numbers"} and codes


# ----------------------------------------------------------------------------------------------------- zero_plan


def as_dict(plan):
    return dict(zip(PHASES, map(list, plan), strict=True))


@pytest.mark.parametrize("fault", zero_plan._FAULTS, ids=lambda fault: f"{fault.code} {fault.stages}")
def test_each_fault_is_named_in_each_of_its_stages(fault):
    for stage in fault.stages:
        plans = {**RIGHT, stage: fault.change(RIGHT[stage])}
        (finding,) = judged("zero_plan", lambda asked, plans=plans: as_dict(plans[asked]))
        assert (finding.code, finding.kind) == (fault.code, fault.kind)
        assert finding.what.startswith(f"In stage {stage}: ")


def test_faults_in_different_stages_are_each_named():
    plans = {**RIGHT, 0: ((), (), ("all_reduce",)), 3: (("all_gather",), ("reduce_scatter",), ("all_gather",))}
    findings = judged("zero_plan", lambda stage: as_dict(plans[stage]))
    assert [finding.code for finding in findings] == ["gradients-at-step", "no-second-gather", "gather-after-step"]


lists = st.lists(st.sampled_from(NAMES), max_size=3)


@given(st.fixed_dictionaries({stage: st.tuples(lists, lists, lists) for stage in STAGES}))
def test_any_plan_gets_a_verdict(plans):
    findings = judged("zero_plan", lambda stage: as_dict(plans[stage]))
    assert bool(findings) != all(tuple(map(tuple, plans[stage])) == RIGHT[stage] for stage in STAGES)
    assert all(finding.what and finding.hint for finding in findings)


RANKS, PART = 3, 2
OWN = [slice(PART * rank, PART * (rank + 1)) for rank in range(RANKS)]
START = np.arange(1.0, 1 + RANKS * PART)


def sliced(rows):
    """Each rank's own slice; what it does not hold is NaN."""
    kept = np.full_like(rows, np.nan)
    for rank, own in enumerate(OWN):
        kept[rank, own] = rows[rank, own]
    return kept


def collective(name, rows):
    """What the ranks hold after a collective; rows[rank] is what a rank held before."""
    if name == "all_reduce":
        return np.tile(rows.sum(axis=0), (RANKS, 1))
    if name == "reduce_scatter":
        return sliced(np.tile(rows.sum(axis=0), (RANKS, 1)))
    if name == "broadcast":
        return np.tile(rows[0], (RANKS, 1))
    return np.tile(np.concatenate([rows[rank, own] for rank, own in enumerate(OWN)]), (RANKS, 1))


def after(names, rows):
    for name in names:
        rows = collective(name, rows)
    return rows


def splits(names):
    return [(names[:k], names[k:]) for k in range(len(names) + 1)]


def plans_that_work(stage):
    """By brute force: all plans of at most two collectives a phase that train as the exercise says, on three ranks."""
    choices = [names for count in range(3) for names in product(NAMES, repeat=count)]
    whole = np.tile(START, (RANKS, 1))
    before = sliced(whole) if stage == 3 else whole
    local = np.arange(1.0, RANKS + 1)[:, None] * whole  # each rank's own gradient, for the weights it should have
    total = np.tile(local.sum(axis=0), (RANKS, 1))
    wanted = sliced(total) if stage else total
    done = np.tile(START - 0.1 * total[0], (RANKS, 1))

    def right(rows, want):
        return np.array_equal(rows[~np.isnan(want)], want[~np.isnan(want)])

    for forward in choices:
        weights = after(forward, before)
        if not right(weights, whole):
            continue
        weights = sliced(weights) if stage == 3 else weights
        for backward in choices:
            for first, rest in splits(backward):
                again, gradients = after(first, weights), after(rest, local)
                if not right(again, whole) or (rest if stage == 1 else not right(gradients, wanted)):
                    continue
                again = sliced(again) if stage == 3 else again
                for step in choices:
                    for reduces, gathers in splits(step):
                        summed = after(reduces, gradients)
                        if not right(summed, wanted):
                            continue
                        new = again - 0.1 * summed
                        if right(after(gathers, sliced(new) if stage else new), sliced(done) if stage == 3 else done):
                            yield forward, backward, step


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_plan_is_the_only_one_that_works_and_sends_no_more_than_it_must(stage):
    units = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "broadcast": 1}

    def cost(plan):
        names = [name for phase in plan for name in phase]
        return sum(units[name] for name in names), len(names)

    working = set(plans_that_work(stage))
    least = min(map(cost, working))
    assert [plan for plan in working if cost(plan) == least] == [RIGHT[stage]]
    assert least[0] == (2, 2, 2, 3)[stage]


# ------------------------------------------------------------------------------------------------ owners_by_bytes


def owners_of_torch(sizes, ranks):
    """By the partition of torch's ZeroRedundancyOptimizer, which counts elements: one for each byte here."""
    parameters = [torch.empty(size, dtype=torch.int8, device="meta") for size in sizes]
    optimizer = object.__new__(ZeroRedundancyOptimizer)
    optimizer.world_size, optimizer._partition_parameters_cache = ranks, []
    optimizer.param_groups = [{"params": parameters}]
    place = {id(parameter): i for i, parameter in enumerate(parameters)}
    return [[place[id(p)] for p in groups[0]["params"]] for groups in optimizer._partition_parameters()]


def test_owners_are_those_of_torchs_zero_redundancy_optimizer():
    rng = np.random.default_rng(0)
    many = [{"sizes": rng.integers(1, 6, 30).tolist(), "ranks": int(rng.integers(1, 9))} for _ in range(20)]
    drawn = [case for seed in range(20) for case in OWNERS.drawn(np.random.default_rng(seed))]
    for case in [*OWNERS.cases, *(edge.case for edge in OWNERS.edges), *drawn, *many]:
        owners = OWNERS.right(**case)
        for rank, owned in enumerate(owners_of_torch(**case)):
            assert sorted(owned) == [i for i, owner in enumerate(owners) if owner == rank]


def fullest(sizes, owners, ranks):
    return max(sum(size for size, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in range(ranks))


@pytest.mark.parametrize("ranks", [2, 3])
def test_no_rank_has_more_than_grahams_bound(ranks):
    """Graham 1969: 4/3 - 1/(3 N) of the best partition's fullest rank. 5 5 4 4 3 3 3 on 3 ranks reaches it."""
    rng = np.random.default_rng(1)
    for sizes in ([5, 5, 4, 4, 3, 3, 3], [3, 3, 2, 2, 2], *rng.integers(1, 20, (4, 7)).tolist()):
        best = min(fullest(sizes, owners, ranks) for owners in product(range(ranks), repeat=len(sizes)))
        got = fullest(sizes, OWNERS.right(sizes, ranks), ranks)
        assert got <= best * (4 / 3 - 1 / (3 * ranks)) + 1e-9
    assert fullest([5, 5, 4, 4, 3, 3, 3], OWNERS.right([5, 5, 4, 4, 3, 3, 3], 3), 3) == 11


def test_a_wrong_owner_is_told_with_the_sums_that_stood():
    (finding,) = judged("owners_by_bytes", FUNCTIONS["owners_by_bytes"]["squares"][0])
    assert "tensor 1 (8 bytes) lies on rank 2. Expected: rank 0" in finding.what
    assert "[64, 64, 68] bytes" in finding.what


# ------------------------------------------------------------------------------------------------ ring_all_reduce


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_the_ring_without_mistakes_is_the_sum(ranks):
    values = list(np.random.default_rng(ranks).integers(-50, 50, (ranks, 3 * ranks)).astype(float))
    held, sent = RING.right(values)
    assert np.array_equal(held, simulated(values))
    assert sent == 2 * (ranks - 1) * 3  # 2 (N - 1) messages of a chunk of 3


@pytest.mark.parametrize("name", [name for name, (_, code) in FUNCTIONS["ring_all_reduce"].items() if not code])
def test_only_what_is_no_ring_is_remarked_upon(name):
    findings = judged("ring_all_reduce", FUNCTIONS["ring_all_reduce"][name][0])
    assert [(f.code, f.kind) for f in findings] == ([("added-at-once", REMARK)] if name == "a plain sum" else [])


def test_a_step_too_many_leaves_the_sums_right_and_is_found_by_its_count():
    (finding,) = judged("ring_all_reduce", FUNCTIONS["ring_all_reduce"]["N steps in the first"][0])
    assert finding.code == "counts-one-step-more"
    assert "`the number of elements sent`" in finding.what


# --------------------------------------------------------------------------------------------------- ring_seconds


def test_ring_seconds_are_those_of_the_messages_that_the_ring_sends():
    for ranks in (1, 2, 5, 8):
        values = [np.zeros(40 * ranks) for _ in range(ranks)]
        sent = RING.right(values)[1]
        assert math.isclose(RING_SECONDS.right(8 * 40 * ranks, ranks, 1e9), 8 * sent / 1e9, abs_tol=1e-18)
        assert math.isclose(RING_SECONDS.right(0, ranks, 1e9, 1e-5), 1e-5 * 2 * (ranks - 1), abs_tol=1e-18)


def test_14_gb_over_64_ranks_take_0_55_seconds():
    assert round(RING_SECONDS.right(14e9, 64, 50e9), 2) == 0.55


# ---------------------------------------------------------------------------------------------------- gpus_needed


def held(gpus, stage=2, gradients="fp32"):
    return predict(32e9, optimizer="adamw", precision="mixed-bf16", grads=gradients, zero=stage, gpus=gpus).total


def first(fits, step=8):
    return next((gpus for gpus in range(8, 2000, step) if fits(gpus)), math.inf)


def test_gpus_needed_are_those_of_the_memory_accounting():
    slips = {slip.code: slip.value for slip in ANSWERS["gpus_needed"].slips}
    assert ANSWERS["gpus_needed"].value == first(lambda gpus: held(gpus) <= 67e9) == 176
    assert slips["gradients-in-16-bits"] == first(lambda gpus: held(gpus, gradients="bf16") <= 67e9)
    assert slips["stage-1"] == first(lambda gpus: held(gpus, stage=1) <= 67e9)
    assert slips["stage-3"] == first(lambda gpus: held(gpus, stage=3) <= 67e9)
    assert slips["weights-forgotten"] == first(lambda gpus: held(gpus, stage=3, gradients="bf16") <= 67e9)
    assert slips["nothing-kept-free"] == first(lambda gpus: held(gpus) <= 80e9)
    assert slips["gibibytes"] == first(lambda gpus: held(gpus) <= 67 * 2**30)
    assert slips["not-a-multiple-of-8"] == first(lambda gpus: held(gpus) <= 67e9, step=1)


def test_slips_lead_to_different_numbers_and_other_numbers_are_told_apart():
    values = [slip.value for slip in ANSWERS["gpus_needed"].slips]
    assert len({*values, ANSWERS["gpus_needed"].value}) == len(values) + 1
    codes = {number: judge_number("gpus_needed", number)[0].code for number in (-31, 0, 100, 173.5, 400, 170.667)}
    assert codes == {-31: "nothing-left", 0: "nothing-left", 100: "not-a-multiple", 173.5: "not-a-multiple",
                     400: "wrong-number", 170.667: "not-a-multiple"}  # fmt: skip
