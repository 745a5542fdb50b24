"""The references behind the exercises of notebook 12, held against torch, brute force and Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import catalogues
from candidates.functions.kernels import FUNCTIONS
from course_lib import blanks
from course_lib.checks.functions import JUDGES, adamw_kernel, momentum_kernel_bug, regime
from course_lib.checks.functions.pack import PACK
from course_lib.checks.functions.step_bytes import STEP_BYTES
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.checks.report import REMARK
from course_lib.kernels import stub
from course_lib.kernels.traffic import least_bytes
from course_lib.sources import executed_form

ROOT = Path(__file__).resolve().parent.parent
READ = {
    "adamw_kernel": adamw_kernel.KERNEL,
    "momentum_kernel_bug": momentum_kernel_bug.STEP,
    "regime": regime.REGIME,
}


def judged(exercise, function):
    return JUDGES[exercise](function, lambda _: None)


def codes(exercise, name):
    return [finding.code for finding in judged(exercise, FUNCTIONS[exercise][name][0]) if finding.kind != REMARK]


# ---------------------------------------------------------------------------------------------------- catalogues


@pytest.mark.parametrize("judge", [*READ.values(), STEP_BYTES, PACK], ids=[*READ, "step_bytes", "pack"])
def test_mistakes_differ_from_the_answer_and_from_each_other_and_are_named(judge):
    assert len(judge.known) >= 20
    assert not catalogues.not_told_apart(judge)
    assert not catalogues.misnamed(judge)


@pytest.mark.parametrize("exercise", READ)
def test_what_is_drawn_changes_no_verdict(exercise):
    for name, (candidate, expected) in FUNCTIONS[exercise].items():
        if expected in ("", "wrong-regime", "wrong-numbers", "half-precision", "race"):
            found = codes(exercise, name)
            assert found[:1] == [expected] if expected else not found, name


# -------------------------------------------------------------------------------------------------- step_bytes, pack


def test_step_bytes_are_those_of_the_least_traffic():
    for key, states in (("adamw", [4, 4]), ("sgd", []), ("momentum", [4]), ("lion", [4])):
        for param, grad, master in ((4, 4, 0), (2, 2, 4), (2, 4, 4)):
            traffic = least_bytes(key, param, grad, state=sum(states), master=master)
            assert STEP_BYTES.right(1000, param, grad, states, master) == 1000 * (traffic.read + traffic.written)
    assert STEP_BYTES.right(1, 4, 4, [4, 4], 0) == STEP_BYTES.right(1, 2, 2, [4, 4], 4) == 28
    assert STEP_BYTES.right(1, 4, 4, [], 0) == 12 and STEP_BYTES.right(1, 4, 4, [4], 0) == 20


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 20))
def test_a_layout_is_the_tightest_in_which_every_tensor_begins_on_a_boundary(sizes, align):
    offsets, total = PACK.right(sizes, align)
    end = 0
    for offset, size in zip(offsets, sizes, strict=True):
        assert offset % align == 0 and end <= offset < end + align
        end = offset + size
    assert total % align == 0 and end <= total < end + align


# ----------------------------------------------------------------------------------------------------- adamw_kernel


@pytest.mark.parametrize("n", [1, 16, 43])
def test_the_walk_is_torchs_adamw(n):
    setting = adamw_kernel.Setting(n, 16, seed=n, steps=6)
    p, gradients = setting.draw()
    weight = torch.tensor(p).requires_grad_()
    hyper = dict(betas=(setting.beta1, setting.beta2), eps=setting.eps, weight_decay=setting.weight_decay)
    optimizer = torch.optim.AdamW([weight], setting.lr, **hyper)
    for step, g in enumerate(gradients):
        weight.grad = torch.tensor(g)
        optimizer.step()
        state = optimizer.state[weight]
        theirs = (weight.detach(), state["exp_avg"], state["exp_avg_sq"])
        for mine, right in zip(adamw_kernel.KERNEL.right(setting), theirs, strict=True):
            np.testing.assert_allclose(mine[step], right.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("order", stub.ORDERS)
def test_right_kernels_touch_every_element_once_in_any_order(order):
    for name, (kernel, expected) in FUNCTIONS["adamw_kernel"].items():
        if expected:
            continue
        arrays = [np.ones(43) for _ in range(4)]
        scalars = (43, 0.1, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.01)
        record = stub.run(kernel, 3, *arrays, *scalars, order=order, BLOCK=16)
        assert not record.races, name
        clamped = 8 * (3 * 16 - 43) if name == "g clamped" else 0  # lanes that read the last element again
        assert (record.bytes_read, record.bytes_written) == (4 * 8 * 43 + clamped, 3 * 8 * 43), name


def test_two_faults_of_a_kernel_are_both_told():
    def both(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, b1, b2, eps, decay, c1, c2, BLOCK: stub.constexpr):
        o = stub.program_id(0) * BLOCK + stub.arange(0, BLOCK)
        g = stub.load(g_ptr + o, mask=o < n)
        m = b1 * stub.load(m_ptr + o, mask=o < n) + (1 - b1) * g
        stub.store(m_ptr + o, m, mask=o < n)
        v = b2 * stub.load(v_ptr + o, mask=o < n) + (1 - b2) * g * g
        stub.store(v_ptr + o, v, mask=o < n)
        m = stub.load(m_ptr + o, mask=o < n)
        p = stub.load(p_ptr + o, mask=o < n)
        p = p - lr * decay * p - lr * (m / c1) / stub.sqrt(v / c2 + eps)
        stub.store(p_ptr + o, p, mask=o < n)

    findings = judged("adamw_kernel", both)
    assert [finding.code for finding in findings] == ["eps-inside-root", "loaded-twice"]
    assert "`m` is loaded more than once" in findings[1].what


def test_an_access_outside_is_told_with_its_case():
    (finding,) = judged("adamw_kernel", FUNCTIONS["adamw_kernel"]["no mask at all"][0])
    assert finding.what.startswith("With 43 elements in blocks of 16: Program ")
    assert "loads element 43 of `p_ptr`, which has 43" in finding.what


@pytest.mark.parametrize(
    "name",
    ["the last block shifted back", "shifted, but from 0 on", "offsets clamped", "lanes from 1", "n - 1",
     "whole blocks only", "pid times n", "pid + lanes", "no pid", "blocks with gaps", "all in one program"],
)  # fmt: skip
def test_elements_that_are_shared_out_wrongly_are_told_once(name):
    kernel, expected = FUNCTIONS["adamw_kernel"][name]
    assert codes("adamw_kernel", name) == [expected]


def test_an_error_in_the_body_is_told_of_its_line_and_not_of_the_exercises_arguments():
    for name in ("a word misspelt", "arange of one"):
        (finding,) = judged("adamw_kernel", FUNCTIONS["adamw_kernel"][name][0])
        assert "exercise" not in finding.hint and "on that line" in finding.hint
    (finding,) = judged("adamw_kernel", FUNCTIONS["adamw_kernel"]["an index"][0])
    assert "`p_ptr` is a pointer" in finding.what


def test_wrong_numbers_are_told_with_step_and_element():
    (finding,) = judged("momentum_kernel_bug", FUNCTIONS["momentum_kernel_bug"]["second tensor's step 3"][0])
    assert "the result, step 3, element 5 of tensor 2: expected" in finding.what


# ---------------------------------------------------------------------------------------------- momentum_kernel_bug


def test_the_walk_is_torchs_sgd_with_momentum():
    for case in momentum_kernel_bug.STEP.cases:
        setting = case["setting"]
        params, gradients = setting.draw()
        weights = [torch.tensor(p).requires_grad_() for p in params]
        optimizer = torch.optim.SGD(weights, 1.0, momentum=setting.beta)
        for step, rows in enumerate(gradients):
            optimizer.param_groups[0]["lr"] = momentum_kernel_bug.LRS[step]
            for weight, g in zip(weights, rows, strict=True):
                weight.grad = torch.tensor(g)
            optimizer.step()
            theirs = np.concatenate([weight.detach().numpy().reshape(-1) for weight in weights])
            np.testing.assert_allclose(momentum_kernel_bug.STEP.right(setting)[step], theirs, rtol=1e-12)


def test_the_exercise_is_wrong_in_two_ways_and_each_repair_alone_leaves_the_other():
    assert codes("momentum_kernel_bug", "as it was") == ["updated-twice", "view-kept"]
    assert codes("momentum_kernel_bug", "the kernel alone") == ["view-kept"]
    assert codes("momentum_kernel_bug", "the buffer alone") == ["updated-twice"]
    findings = judged("momentum_kernel_bug", FUNCTIONS["momentum_kernel_bug"]["as it was"][0])
    assert "Program 1 stores element 27 of `b_ptr`, and program 2" in findings[0].what
    assert "gradient's own memory" in findings[1].what


def test_the_exercise_seems_right_where_blocks_come_out_even_and_gradients_are_new_or_transposed():
    setting = replace(momentum_kernel_bug.STEP.cases[3]["setting"], turned=(0, 1))
    step = FUNCTIONS["momentum_kernel_bug"]["as it was"][0]
    walk = momentum_kernel_bug._through(step, [])(setting)
    np.testing.assert_allclose(walk, momentum_kernel_bug.STEP.right(setting), rtol=1e-12)


# ---------------------------------------------------------------------------------------------------------- regime


def by_hand(rows, bandwidth, flops):
    """With a clock: for each quarter of a microsecond, is a kernel running?"""
    ticks = np.arange(rows[0]["start_us"], rows[-1]["start_us"] + rows[-1]["duration_us"], 0.25)
    busy = sum((row["start_us"] <= ticks) & (ticks < row["start_us"] + row["duration_us"]) for row in rows) > 0
    if np.sum(~busy) > np.sum(busy):
        return "launch-bound"
    least = {"memory-bound": sum(row["bytes"] for row in rows) / bandwidth}
    least["compute-bound"] = sum(row["flops"] for row in rows) / flops
    name = max(least, key=least.get)
    return name if least[name] >= np.sum(busy) * 0.25e-6 / 2 else "inefficient"


def test_regimes_are_those_of_a_clock():
    drawn = catalogues.drawn(regime.REGIME, 25)
    cases = [*regime.REGIME.cases, *(edge.case for edge in regime.REGIME.edges), *drawn]
    for case in cases:
        if case["rows"][-1]["start_us"] + case["rows"][-1]["duration_us"] < 1e4:
            assert regime.NAMES[regime.REGIME.right(**case)] == by_hand(**case)
    assert {regime.REGIME.right(**case) for case in drawn} == {0, 1, 2, 3}


def test_an_unknown_regime_is_told_with_the_sums():
    (finding,) = judged("regime", lambda rows, bandwidth, flops: "launch-bound")
    assert "'memory-bound' is expected, and you return 'launch-bound'" in finding.what
    assert "The span is 200 us, of which 200 are busy; the bytes would take 180 us" in finding.what


# ------------------------------------------------------------------------------------------------ crossing_elements


def test_the_crossing_is_where_both_take_five_microseconds():
    elements = ANSWERS["crossing_elements"].value
    moved = least_bytes("adamw")
    assert math.isclose(elements * (moved.read + moved.written) / 3.35e12, 5e-6)
    assert round(elements) == 598_214


def test_slips_lead_to_different_numbers():
    answer = ANSWERS["crossing_elements"]
    values = sorted([slip.value for slip in answer.slips] + [answer.value])
    assert all(b / a > 1.03 for a, b in zip(values, values[1:], strict=False))
    assert not judge_number("crossing_elements", 598_000)
    assert judge_number("crossing_elements", 610_000)[0].code == "not-exact"


# ----------------------------------------------------------------------------------------- the solution, on Triton


def test_the_kernel_of_the_solution_is_an_adamw_in_tritons_interpreter(tmp_path):
    pytest.importorskip("triton")
    notebook = executed_form(ROOT / "solutions" / "source" / "12_production_kernels.py")
    (cell,) = blanks.answers(notebook)["adamw_kernel"]
    source = cell.source.replace("def adamw_kernel", "@triton.jit\ndef adamw_kernel")
    script = f"""
import torch, triton
import triton.language as tl

{source}

torch.manual_seed(0)
for n in (1, 64, 65, 187):
    weight = torch.randn(n).requires_grad_()
    p, m, v = weight.detach().clone(), torch.zeros(n), torch.zeros(n)
    optimizer = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for t in range(1, 5):
        weight.grad = torch.randn(n)
        optimizer.step()
        scalars = (n, 1e-2, 0.9, 0.99, 1e-8, 0.1, 1 - 0.9**t, 1 - 0.99**t)
        adamw_kernel[(triton.cdiv(n, 64),)](p, weight.grad, m, v, *scalars, BLOCK=64)
    torch.testing.assert_close(p, weight.detach(), rtol=1e-6, atol=1e-6)
"""
    path = tmp_path / "kernel.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stderr
