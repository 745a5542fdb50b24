"""The references behind the exercises of notebook 11, held against torch, and how their judges deal with odd answers."""

from __future__ import annotations

import copy
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from candidates.functions.mixed_precision import FUNCTIONS
from course_lib.checks.functions import JUDGES
from course_lib.checks.functions.amp_step import _CALLS, _Setting
from course_lib.checks.functions.next_scale import _next_scale
from course_lib.checks.functions.resume_run import PARTS, Run
from course_lib.checks.functions.rounding import to_bfloat16
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.checks.report import REMARK
from course_lib.checks.sandbox import without_compiler

ROOT = Path(__file__).resolve().parent.parent
without_compiler(torch.optim.Optimizer)


def judged(exercise, function):
    return JUDGES[exercise](function, lambda _: None)


def codes(exercise, function):
    return [finding.code for finding in judged(exercise, function)]


@pytest.mark.parametrize("exercise", FUNCTIONS)
def test_enough_answers_are_known(exercise):
    wrong = [name for name, (_, expected) in FUNCTIONS[exercise].items() if expected]
    assert len(wrong) >= 30
    assert len(FUNCTIONS[exercise]) - len(wrong) >= 4


# ---------------------------------------------------------------------------------------------------- references


def cases(exercise):
    judge = JUDGES[exercise]
    return [(case, judge.evaluate(judge.right, case)) for case in (*judge.cases, *(edge.case for edge in judge.edges))]


def test_four_sums_are_torchs():
    for case, sums in cases("four_sums"):
        types = [(torch.float32, torch.float32), (torch.float16, torch.float16), *2 * [(torch.float32, torch.float16)]]
        for right, (kind, term_kind) in zip(sums, types, strict=True):
            total, term = torch.zeros((), dtype=kind), torch.tensor(case["value"], dtype=term_kind)
            for _ in range(case["count"]):
                total += term
            assert total.item() == right


def test_next_scale_is_torchs_kernel():
    for case, (scale, clean) in cases("next_scale"):
        kept, tracker = torch.tensor(case["scale"]), torch.tensor(case["clean_steps"], dtype=torch.int32)
        factors = case["growth_factor"], case["backoff_factor"], case["growth_interval"]
        torch._amp_update_scale_(kept, tracker, torch.tensor(float(case["found_inf"])), *factors)
        assert (kept.item(), tracker.item()) == (scale, clean)


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([0.5, 0.25]), st.integers(1, 6))
def test_next_scale_repeated_is_torchs_scaler(overflows, backoff, interval):
    scaler = torch.amp.GradScaler("cpu", 2.0**120, 4.0, backoff, interval)
    p = torch.zeros(1, requires_grad=True)
    optimizer = type("Still", (torch.optim.Optimizer,), {"step": lambda self: None})([p], {})
    scaler.scale(p)
    scale, clean = 2.0**120, 0
    for overflow in overflows:
        p.grad = torch.tensor([math.nan if overflow else 1.0])
        scaler.step(optimizer)
        scaler.update()
        scale, clean = _next_scale(
            scale=scale,
            clean_steps=clean,
            found_inf=overflow,
            growth_factor=4.0,
            backoff_factor=backoff,
            growth_interval=interval,
        )
        assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (scale, clean)


@pytest.mark.parametrize("x", [1.0 + 2**-7 / 3, -3.14159, 1e-30, -2e25, 65504.0, 0.0, 1.0])
def test_stochastic_round_is_one_of_the_neighbours_and_right_on_average(x):
    noise = np.arange(65536, dtype=np.int32)
    rounded = JUDGES["stochastic_round"].right(np.full(65536, x, dtype=np.float32), noise).astype(np.float64)
    exact = float(np.float32(x))
    assert len(set(rounded.tolist())) <= 2
    assert (rounded == torch.tensor(rounded).to(torch.bfloat16).double().numpy()).all()
    assert min(rounded) <= exact <= max(rounded)
    assert math.isclose(rounded.mean(), exact, rel_tol=1e-6)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_rounding_to_nearest_is_torchs(values):
    x = np.array(values, dtype=np.float32)
    assert np.array_equal(to_bfloat16(x), torch.tensor(x).to(torch.bfloat16).float().numpy())


def test_the_scale_the_step_and_the_row_are_what_they_are_said_to_be():
    scale = ANSWERS["smallest_scale"].value
    assert np.float16(scale * 1e-8) > 0 == np.float16(scale / 2 * 1e-8)
    step, one = ANSWERS["frozen_step"].value, torch.ones(1)
    assert (one - step).to(torch.bfloat16) == 1 > (one - 1.0001 * step).to(torch.bfloat16)
    statement = (ROOT / "solutions" / "source" / "11_mixed_precision.py").read_text(encoding="utf-8")
    rows = {int(step): int(zeros) for step, zeros in re.findall(r"# \| (\d+) \|.*\| (\d+)% \|", statement)}
    assert next(step for step, zeros in rows.items() if zeros > 3) == ANSWERS["underflow_step"].value
    for step in rows:
        findings = judge_number("underflow_step", step)
        assert not findings if step == 5000 else f"step {step}".lower() in findings[0].what.lower()


@pytest.mark.parametrize(
    ("exercise", "number", "code"),
    [
        ("smallest_scale", 16384, "reciprocal-of-the-smallest-normal"),
        ("smallest_scale", 4096, "nearly-normal"),
        ("smallest_scale", 2**20, "larger-than-needed"),
        ("smallest_scale", 2**50, "overflows"),
        ("smallest_scale", 2**-5, "smaller-still"),
        ("smallest_scale", 6, "no-power-of-two"),
        ("smallest_scale", 4.1, "no-power-of-two"),
        ("smallest_scale", -7, "no-scale-at-all"),
        ("frozen_step", 2**-9 - 2**-17, "tie-thought-to-move"),
        ("frozen_step", 0.00195, "tie-thought-to-move"),
        ("frozen_step", 2**-9 + 2**-17, "moves"),
        ("frozen_step", 0.002, "moves"),
        ("frozen_step", 2**-13, "larger-is-lost-too"),
        ("frozen_step", 3.0, "no-step"),
        ("underflow_step", 4500, "no-row"),
        ("underflow_step", 4999, "no-row"),
        ("underflow_step", 32, "another-column"),
        ("underflow_step", 0.23, "another-column"),
    ],
)
def test_numbers_that_no_slip_leads_to_are_told_in_the_exercises_own_words(exercise, number, code):
    (finding,) = judge_number(exercise, number)
    assert finding.code == code
    assert f"{ANSWERS[exercise].value:g}" not in re.findall(r"[\d.e-]+\d", finding.what)


@pytest.mark.parametrize("exercise", ["smallest_scale", "frozen_step", "underflow_step"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 0, -1e300, 1e300, 5e-324, 10**30])
def test_reading_and_counting_have_no_formula(exercise, number):
    (finding,) = judge_number(exercise, number)
    assert "formula" not in finding.hint


def test_frozen_steps_move_or_are_lost_as_they_are_told():
    for number in (0.002, 0.01, 0.3, 0.0019, 0.0005, 1e-5):
        (finding,) = judge_number("frozen_step", number)
        moved = torch.ones(1).sub(number).to(torch.bfloat16).item() != 1
        assert ("lost" not in finding.what) == moved


# ------------------------------------------------------------------------------------------------------- amp_step


def test_the_step_that_is_expected_is_torchs_without_a_scaler():
    """The model, its loss and its micro-batches under torch's own SGD and clipping; the overflow is left out by hand."""
    setting, expected = _Setting(), []
    usual = FUNCTIONS["amp_step"]["the usual"][0]
    for batches, max_norm, said in _CALLS:
        assert not setting.call(usual, batches, max_norm, said)
        expected.append([p.detach().clone() for p in setting.trained])
    plain = _Setting()
    sgd = torch.optim.SGD(plain.trained, lr=0.05, momentum=0.9)
    for (batches, max_norm, said), weights in zip(_CALLS, expected, strict=True):
        sgd.zero_grad()
        for x, y, weight in batches:
            (weight * ((plain.model(x) - y) ** 2).mean() / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(plain.trained, max_norm)
        if "overflows" not in said and "infinite" not in said:
            sgd.step()
        assert all(torch.allclose(p, w, rtol=1e-4, atol=1e-6) for p, w in zip(plain.trained, weights, strict=True))


def test_the_overflow_comes_from_the_scale_alone():
    batches = next(batches for batches, _, said in _CALLS if "overflows" in said)
    setting = _Setting()
    gradients = torch.autograd.grad(
        sum(weight * ((setting.model(x) - y) ** 2).mean() for x, y, weight in batches), setting.trained
    )
    assert all(torch.isfinite(g).all() for g in gradients)
    assert not all(torch.isfinite(g * setting.scale / len(batches)).all() for g in gradients)


def steps(*calls):
    """An amp_step of these calls, in this order, after the backward passes."""

    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        optimizer.zero_grad()
        for batch in batches:
            scaler.scale(loss_fn(model, batch) / len(batches)).backward()
        for call in calls:
            if call == "clip":
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            elif call == "update":
                scaler.update()
            else:
                getattr(scaler, call)(optimizer)

    return amp_step


@pytest.mark.parametrize("order", sorted(set(product(("unscale_", "clip", "step", "update"), repeat=4))))
def test_of_all_orders_of_the_four_calls_one_is_right_and_every_other_is_told(order):
    findings = judged("amp_step", steps(*order))
    if order == ("unscale_", "clip", "step", "update"):
        assert not findings
    else:
        assert findings[0].code not in ("wrong-step", "wrong-gradient", "wrong-weights", "check-failed")


def test_two_mistakes_are_both_told():
    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        for batch in batches:
            optimizer.zero_grad()
            scaler.scale(loss_fn(model, batch) / len(batches)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()

    assert codes("amp_step", amp_step) == ["zero-grad-per-micro-batch", "optimizer-step", "update-missing"]


@pytest.mark.parametrize(
    "name", ["unscale_, clip, optimizer.step, update", "inf to zero after unscale_, optimizer.step"]
)
def test_a_step_past_the_scaler_is_not_first_called_right(name):
    assert "own-check" not in codes("amp_step", FUNCTIONS["amp_step"][name][0])


def test_a_single_backward_is_remarked_upon():
    findings = judged("amp_step", FUNCTIONS["amp_step"]["one backward"][0])
    assert [(finding.code, finding.kind) for finding in findings] == [("graphs-kept", REMARK)]


def test_the_scale_may_be_read_and_the_loss_logged():
    usual = FUNCTIONS["amp_step"]["the usual"][0]

    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        before = scaler.get_scale()
        with torch.no_grad():
            loss = sum(loss_fn(model, batch).item() for batch in batches) / len(batches)
        usual(model, loss_fn, batches, optimizer, scaler, max_norm)
        return {"loss": loss, "skipped": scaler.get_scale() < before}

    assert not judged("amp_step", amp_step)


# --------------------------------------------------------------------------------------------------- resume_state


def test_a_run_that_resumes_from_everything_is_the_run_that_never_stopped():
    one, other = Run(), Run(seed=2)
    one.steps(5)
    for part, state in one.save(FUNCTIONS["resume_state"]["deep"][0]).items():
        other.load(part, state)
    for mine, theirs in zip(one.steps(10), other.steps(10), strict=True):
        assert torch.equal(mine.pop("batch"), theirs.pop("batch"))
        assert mine == theirs


@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_is_missing_shows_in_the_run_that_resumes(part):
    def resume_state(*objects):
        state = FUNCTIONS["resume_state"]["deep"][0](*objects)
        del state[part]
        return state

    (finding,) = judged("resume_state", resume_state)
    assert finding.code == f"no-{part}"
    assert re.search(r"Here, at step [12] after the resume the \w+", finding.what)


def test_a_state_that_shares_one_tensor_only_is_told_which():
    def resume_state(model, optimizer, scheduler, scaler, generator):
        state = FUNCTIONS["resume_state"]["deep"][0](model, optimizer, scheduler, scaler, generator)
        state["model"]["3.bias"] = model.state_dict()["3.bias"]
        return state

    (finding,) = judged("resume_state", resume_state)
    assert finding.code == "model-aliased"
    assert "model['3.bias']" in finding.what


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no step counts", "There is no optimizer['state'][0]['step']."),
        ("one step more", "optimizer['state'][0]['step'] is 8 instead of 7."),
        ("lr of the beginning", "optimizer['param_groups'][0]['lr'] is 0.05 instead of 0.0294117647."),
        ("step counts live", "6 of its 32 entries have changed, optimizer['state'][0]['step'] first"),
        ("weights rounded", "model['0.weight'] holds other numbers."),
        ("eval, then train", "the module '4' was in eval mode and is in train mode"),
    ],
)
def test_what_differs_is_told_by_its_key(name, told):
    (finding,) = judged("resume_state", FUNCTIONS["resume_state"][name][0])
    assert told in finding.what


def test_the_step_counts_of_the_run_are_tensors_that_are_counted_in_place_as_torchs_are():
    run = Run()
    run.steps(1)
    parameter = next(run.model.parameters())
    count = run.optimizer.state[parameter]["step"]
    run.steps(2)
    assert count is run.optimizer.state[parameter]["step"]
    theirs = torch.optim.AdamW([torch.ones(1, requires_grad=True)], foreach=False)
    theirs.param_groups[0]["params"][0].grad = torch.ones(1)
    theirs.step()
    (state,) = theirs.state.values()
    assert (count.item(), count.dtype, count.shape) == (3, state["step"].dtype, state["step"].shape)


def test_the_judges_of_steps_leave_the_random_state_and_torch_as_they_were():
    before = torch.random.get_rng_state(), torch.amp.GradScaler.step, torch.optim.Optimizer.step
    judged("amp_step", FUNCTIONS["amp_step"]["the usual"][0])
    judged("resume_state", lambda *objects: copy.deepcopy({"model": objects[0].state_dict()}))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1:] == (torch.amp.GradScaler.step, torch.optim.Optimizer.step)
