"""The checks of notebook 15's steps on several ranks: their references against torch, and what they measure by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import catalogues
from candidates.functions.zero_steps import FUNCTIONS
from course_lib.checks import check
from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.clip_sharded import CLIP
from course_lib.checks.functions.on_ranks import held, on_ranks, sent
from course_lib.checks.functions.zero1_step import ZERO1
from course_lib.checks.functions.zero_bug import ZERO2
from course_lib.checks.sandbox import without_compiler

JUDGED = {"clip_sharded": CLIP, "zero1_step": ZERO1, "zero_bug": ZERO2}
SOURCE = Path(__file__).resolve().parent.parent / "solutions" / "source" / "15_sharding.py"


# ---------------------------------------------------------------------------------------------------- catalogues


@pytest.mark.parametrize("exercise", JUDGED)
def test_mistakes_differ_from_the_answer_and_from_each_other(exercise):
    judge = JUDGED[exercise]
    assert len(judge.known) >= 25
    assert not catalogues.not_told_apart(judge)


@pytest.mark.parametrize("exercise", JUDGED)
def test_every_mistake_is_named_by_its_own_code(exercise):
    assert not catalogues.misnamed(JUDGED[exercise])


# ---------------------------------------------------------------------------------------------------- references


def torch_walk(setting, max_norm):
    """torch's clip and AdamW on the mean gradient, in one process: norms (steps,) and parameters (steps, elements)."""
    without_compiler(torch.optim.Optimizer)
    params = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in setting.starts]
    adamw = torch.optim.AdamW(params, betas=setting.betas, eps=setting.eps, weight_decay=setting.weight_decay)
    norms, path = [], []
    for lr, ranks in zip(setting.lrs, setting.gradients, strict=True):
        adamw.param_groups[0]["lr"] = lr
        for p, *of_ranks in zip(params, *ranks, strict=True):
            p.grad = torch.tensor(sum(of_ranks) / len(ranks))
        norms.append(torch.nn.utils.clip_grad_norm_(params, max_norm).item())
        adamw.step()
        path.append(torch.cat([p.detach().flatten() for p in params]).numpy())
    return np.stack(norms), np.stack(path)


def test_zero1_is_torchs_adamw_on_the_mean_gradient():
    for case in [*ZERO1.cases, *(edge.case for edge in ZERO1.edges), *catalogues.drawn(ZERO1, 5)]:
        setting = case["setting"]
        _, path = torch_walk(setting, math.inf)
        for rank in range(setting.ranks):
            assert np.allclose(ZERO1.right(setting)[:, rank], path, rtol=1e-10, atol=0)


def test_zero2_is_torchs_clip_and_adamw_on_the_mean_gradient():
    clipped = []
    for case in [*ZERO2.cases, *(edge.case for edge in ZERO2.edges[:2]), *catalogues.drawn(ZERO2, 5)]:
        setting = case["setting"]
        norms, path = torch_walk(setting, setting.max_norm)
        got_norms, got_path = ZERO2.right(setting)
        clipped += list(norms > setting.max_norm)
        for rank in range(setting.ranks):
            assert np.allclose(got_norms[:, rank], norms, rtol=1e-10)
            assert np.allclose(got_path[:, rank], path, rtol=1e-10, atol=0)
    assert {True, False} == {bool(x) for x in clipped}


def test_clip_sharded_is_torchs_clip_of_the_whole():
    for case in [*CLIP.cases, *(edge.case for edge in CLIP.edges[:3]), *catalogues.drawn(CLIP, 5)]:
        params = [torch.zeros(len(x), dtype=torch.float64) for rank in case["shards"].ranks for x in rank]
        for p, x in zip(params, (x for rank in case["shards"].ranks for x in rank), strict=True):
            p.grad = torch.tensor(x)
        norm = torch.nn.utils.clip_grad_norm_(params, case["max_norm"]).item()
        with np.errstate(all="ignore"):
            norms, shards = CLIP.right(**case)
        assert np.allclose(norms, norm, rtol=1e-12)
        if norm:
            assert np.allclose(shards, torch.cat([p.grad for p in params]).numpy(), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ measures


def test_a_slice_holds_the_storage_of_the_whole_and_each_counts_once():
    row = torch.zeros(100)
    assert sum(held([row[10:20]]).values()) == 400
    assert sum(held({"a": row[:10], "b": (row[20:], {3: row})}).values()) == 400
    assert sum(held(row[:10].clone(), row[:10].contiguous()).values()) == 440
    assert sum(held(np.zeros(100)[10:20]).values()) == 800


def test_bytes_sent_are_those_of_a_ring():
    assert sent([("all_reduce", 400)], 4) == sent([("reduce_scatter", 400), ("all_gather", 400)], 4) == 600
    assert sent([("broadcast", 400)], 4) == 400
    assert sent([("all_reduce", 400), ("broadcast", 400)], 1) == 0


def test_ranks_that_part_are_told_so_and_do_not_hang():
    def leaves(comm):
        if comm.rank == 1:
            return
        comm.all_reduce(torch.zeros(1))

    def differ(comm):
        comm.all_gather(torch.zeros(3 - comm.rank))

    def odd(comm):
        comm.reduce_scatter(torch.zeros(5))

    def own_error(comm):
        if comm.rank == 1:
            raise ZeroDivisionError("mine")
        comm.all_reduce(torch.zeros(1))

    for function, code, said in (
        (leaves, "not-joined", "rank 1 has returned"),
        (lambda comm: comm.rank == 0 or comm.all_reduce(torch.zeros(1)), "not-joined", "rank 0 has returned"),
        (differ, "ranks-disagree", "rank 1 calls all_gather of (2,) float32"),
        (odd, "padding", "shape (5,)"),
    ):
        with pytest.raises(Stopped) as stop:
            on_ranks(function, 2)
        assert stop.value.finding.code == code
        assert said in stop.value.finding.what
    with pytest.raises(ZeroDivisionError, match="mine"):
        on_ranks(own_error, 2)


# ---------------------------------------------------------------------------------------------------- the checks


@pytest.mark.parametrize("name", ["all_reduce", "zeros and a sum"])
def test_an_all_reduce_too_many_is_right_and_remarked_upon(name):
    report = check("zero1_step", FUNCTIONS["zero1_step"][name][0])
    assert report.passed
    assert [finding.code for finding in report.findings] == ["all-reduce"]
    assert "3 S (N - 1) / N bytes in a step instead of 2" in report.findings[0].what


def test_a_broadcast_too_many_is_remarked_upon_without_a_word_of_an_all_reduce():
    report = check("zero1_step", FUNCTIONS["zero1_step"]["broadcasts too"][0])
    assert report.passed
    assert [finding.code for finding in report.findings] == ["half-more"]
    assert "all_reduce" not in report.findings[0].what


def test_ranks_whose_dtypes_differ_are_told_so():
    finding = check("clip_sharded", FUNCTIONS["clip_sharded"]["an int of nothing"][0]).findings[0]
    assert "all_reduce of () int64" in finding.what
    assert finding.hint.startswith("The dtypes differ.")


def test_one_tensor_for_both_moments_is_the_only_finding():
    report = check("zero1_step", FUNCTIONS["zero1_step"]["one tensor for m and v"][0])
    assert [finding.code for finding in report.findings] == ["moments-shared"]


@pytest.mark.parametrize("exercise", ["clip_sharded", "zero_bug"])
def test_what_raises_on_a_nan_is_told_that_there_was_one(exercise):
    def raises(*arguments):
        norm = FUNCTIONS[exercise]["plain" if exercise == "clip_sharded" else "repaired"][0](*arguments)
        int(norm)
        return norm

    finding = check(exercise, raises).findings[0]
    assert finding.code == "raises"
    assert "NaN" in finding.what.split("ValueError")[0]
    assert "setting=" not in finding.what


def test_state_that_is_a_view_is_measured_by_its_storage():
    finding = check("zero1_step", FUNCTIONS["zero1_step"]["whole, then a slice"][0]).findings[0]
    # 2 ranks, 209 elements of float64 padded to 210: two moments hold 3,360 bytes and show half of them.
    assert finding.code == "state-sliced"
    assert "holds 3,360 bytes; its tensors look like 1,680" in finding.what


def suspicious_step():
    """The step that stands in the exercise."""
    text = SOURCE.read_text(encoding="utf-8")
    begin = text.index("@torch.no_grad()\ndef suspicious_zero2_step")
    space = {"torch": torch, "math": math}
    exec(text[begin : text.index("# %%", begin)], space)
    return space["suspicious_zero2_step"]


def test_both_faults_of_the_exercises_step_are_found():
    report = check("zero_bug", suspicious_step())
    assert [finding.code for finding in report.findings] == ["own-norm", "state-sliced"]


@pytest.mark.parametrize(("ranks", "max_norm"), [(1, 0.1), (2, math.inf), (4, math.inf)])
def test_neither_fault_shows_in_the_weights_on_one_rank_or_without_clipping(ranks, max_norm):
    def walk(comm):
        params, state = [torch.linspace(-1, 1, 12).view(3, 4), torch.ones(5)], {}
        for number in range(5):
            grads = [torch.sin((1 + number + comm.rank) * p) for p in params]
            suspicious_step()(params, grads, state, comm, 0.1, (0.9, 0.99), 1e-8, 0.1, max_norm)
        return params

    expected = [torch.linspace(-1, 1, 12).view(3, 4), torch.ones(5)]
    without_compiler(torch.optim.Optimizer)
    adamw = torch.optim.AdamW(expected, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for number in range(5):
        for p in expected:
            p.grad = sum(torch.sin((1 + number + rank) * p) for rank in range(ranks)) / ranks
        torch.nn.utils.clip_grad_norm_(expected, max_norm)
        adamw.step()
    for params in on_ranks(walk, ranks):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(params, expected, strict=True))
