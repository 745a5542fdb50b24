"""The references behind the exercises of notebooks 06 and 07, held against torch and brute force."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from candidates.functions.schedules import FUNCTIONS as SCHEDULES
from candidates.functions.schedules import _groups_by_ids, _groups_walking
from candidates.functions.why_adam import FUNCTIONS as WHY_ADAM
from course_lib import groups, schedules
from course_lib.checks.functions import grouped_models
from course_lib.checks.functions.layer_rates import LAYER_RATES
from course_lib.checks.functions.parameter_groups import judge_parameter_groups
from course_lib.checks.functions.warmup_cosine import WARMUP_COSINE
from course_lib.checks.functions.warmup_stable_decay import WARMUP_STABLE_DECAY
from course_lib.checks.functions.why_adam import BLOCK_RATES
from course_lib.checks.numbers import judge_number
from course_lib.checks.numbers.schedules import ANSWERS as SCHEDULE_ANSWERS
from course_lib.checks.numbers.why_adam import ANSWERS as WHY_ADAM_ANSWERS
from course_lib.checks.numbers.why_adam import RUNS
from course_lib.problems import blocks, lm, zipf
from course_lib.problems.tuning import tune

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = WHY_ADAM | SCHEDULES


def cases(judge):
    drawn = judge.drawn(np.random.default_rng(1))
    every = [*judge.cases, *(edge.case for edge in judge.edges), *drawn]
    return [
        (case, [float(part) if part.ndim == 0 else part for part in judge.evaluate(judge.right, case)])
        for case in every
    ]


@pytest.mark.parametrize("exercise", FUNCTIONS)
def test_enough_answers_are_known(exercise):
    wrong = [name for name, (_, expected) in FUNCTIONS[exercise].items() if expected]
    assert len(wrong) >= 25
    assert len(FUNCTIONS[exercise]) - len(wrong) >= 5


# ---------------------------------------------------------------------------------------------------- references


def test_block_rates_are_what_descent_from_the_worst_start_leaves_and_no_other_rate_leaves_less():
    def worst(matrices, rate):
        return max(np.linalg.norm(np.eye(len(m)) - rate * m, 2) for m in matrices)

    for case, (one, per_block) in cases(BLOCK_RATES):
        matrices = case["blocks"]
        best = blocks.best_rate(np.concatenate([np.linalg.eigvalsh(m) for m in matrices]))
        assert math.isclose(worst(matrices, best), one, abs_tol=1e-9)
        assert all(worst(matrices, best * scale) >= one - 1e-9 for scale in np.geomspace(0.1, 1.9, 41))
        own = [blocks.best_rate(np.linalg.eigvalsh(m)) for m in matrices]
        assert math.isclose(
            max(worst([m], rate) for m, rate in zip(matrices, own, strict=True)), per_block, abs_tol=1e-9
        )
        assert one >= per_block - 1e-12


def test_warmup_cosine_is_the_courses_and_torchs():
    for case, (right,) in cases(WARMUP_COSINE):
        step, warmup, total, floor = case.values()
        assert math.isclose(right, schedules.cosine(total, warmup, floor)(step), abs_tol=1e-12)
        if warmup <= step <= total:
            sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
            scheduler = lr_scheduler.CosineAnnealingLR(sgd, T_max=total - warmup, eta_min=floor)
            sgd.step()
            for _ in range(step - warmup):
                scheduler.step()
            assert math.isclose(right, scheduler.get_last_lr()[0], abs_tol=1e-9)


def test_warmup_stable_decay_is_the_courses_with_its_fall_in_updates():
    for case, (right,) in cases(WARMUP_STABLE_DECAY):
        step, warmup, total, share, floor = case.values()
        fall = min(round(share * total), total - warmup)
        schedule = schedules.warmup_stable_decay(total, warmup, fall, floor, shape="sqrt")
        assert math.isclose(right, schedule(step), abs_tol=1e-12)


@given(st.integers(2, 500), st.data())
def test_nothing_before_the_fall_depends_on_the_length_of_the_run(total, data):
    share = data.draw(st.floats(0.05, 0.5).filter(lambda x: round(x * total) >= 1))
    warmup = data.draw(st.integers(0, total - 1))
    before = max(total - round(share * total), warmup)
    for step in {0, before // 2, max(before - 1, 0)}:
        if step < before:
            assert WARMUP_STABLE_DECAY.right(step, warmup, total, share, 0.1) == WARMUP_STABLE_DECAY.right(
                step, warmup, 10 * total, share, 0.1
            )


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_layer_rates_are_those_of_the_courses_groups(layers):
    model = lm.ByteLM(lm.LMConfig(layers=layers, width=16, heads=2, context=8))
    made = groups.parameter_groups(model, lr=3e-3, weight_decay=0.1, layer_decay=0.7)
    rates = sorted({round(group["lr"], 12) for group in made})
    assert np.allclose(sorted(LAYER_RATES.right(3e-3, 0.7, layers)), rates, rtol=1e-8)


def test_decay_left_is_what_torchs_adamw_leaves():
    weight = torch.ones(1, dtype=torch.float64)
    weight.grad = torch.zeros_like(weight)
    adamw = torch.optim.AdamW([weight], lr=6e-4, weight_decay=0.1, foreach=False)
    schedule = schedules.linear_to_zero(20_000, 2000)
    for step in range(12_000):
        if step >= 2000:
            assert math.isclose(schedule(step), (20_000 - step) / 18_000)
        adamw.param_groups[0]["lr"] = 6e-4 * schedule(step)
        adamw.step()
    answer = SCHEDULE_ANSWERS["decay_left"]
    assert math.isclose(weight.item(), answer.value, rel_tol=1e-9)
    assert not judge_number("decay_left", math.exp(-6e-5 * (1000 + 10_000 * (1 + 8 / 18) / 2)))


@pytest.mark.parametrize(
    ("rate", "code"),
    [
        (lambda t: 1 - t / 20_000, "no-warmup"),
        (lambda t: (t + 1) / 2000 if t < 2000 else 1 - t / 20_000, "jump-after-warmup"),
        (lambda t: min((t + 1) / 2000, 1 - (t - 2000) / 20_000), "fall-too-long"),
        (lambda t: (t + 1) / 2000 if t < 2000 else math.cos(math.pi * (t - 2000) / 36_000) ** 2, "cosine"),
        (lambda t: min((t + 1) / 2000, (12_000 - t) / 10_000), "shorter-schedule"),
        (lambda t: 1.0, "constant-rate"),
    ],
)
def test_other_schedules_leave_another_share_and_are_named(rate, code):
    rates = np.array([rate(t) for t in range(12_000)])
    for left in (np.prod(1 - 6e-5 * rates), math.exp(-6e-5 * rates.sum())):
        assert judge_number("decay_left", left)[0].code == code


def test_no_slip_of_decay_left_is_taken_for_another_or_for_the_answer():
    answer = SCHEDULE_ANSWERS["decay_left"]
    numbers = sorted([answer.value, *(slip.value for slip in answer.slips)])
    assert all(b - a > 2e-3 for a, b in pairwise(numbers) if b < 0.99)
    for slip in answer.slips:
        assert judge_number("decay_left", slip.value)[0].code == slip.code


@pytest.mark.filterwarnings("error")
def test_a_number_in_an_array_or_a_tensor_is_that_number():
    for number in (np.array([693]), torch.tensor([693]), torch.tensor(693.0, requires_grad=True), np.float32(693)):
        assert not judge_number("zipf_half", number)
    assert judge_number("zipf_half", np.array([693, 693]))[0].code == "wrong-type"
    assert judge_number("zipf_half", 10**400)[0].code == "wrong-number"


def test_zipf_half_is_when_gradient_descent_has_halved_the_error():
    frequencies = torch.from_numpy(zipf.power_law(50_000))
    error, steps = torch.ones_like(frequencies), 0
    run = torch.optim.SGD([error], lr=1 / frequencies.max().item())
    while error[999] > 0.5:
        error.grad = frequencies * error
        run.step()
        steps += 1
    assert steps == WHY_ADAM_ANSWERS["zipf_half"].value
    assert judge_number("zipf_half", 692.8)[0].code == "not-whole"
    assert judge_number("zipf_half", 650)[0].code == "wrong-number"


def test_the_runs_of_the_grid_are_runs_and_one_best_stands_on_the_edge():
    language = zipf.bigram(128, 1.0)
    make = {
        "SGD": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        "Adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    }
    for batch, name, rate, loss in RUNS:
        logits = zipf.descend(
            language,
            lambda p, name=name, rate=rate: make[name](p, rate),
            100,
            batch=batch,
            schedule=lambda t: 1 - t / 100,
        )
        assert abs(language.loss(logits) - loss) < 1e-4
    rows = {}
    for batch, name, rate, loss in RUNS:
        rows.setdefault((batch, name), {})[rate] = loss
    best = {row: min(losses, key=losses.get) for row, losses in rows.items()}
    edges = [rate for row, rate in best.items() if rate in (min(rows[row]), max(rows[row]))]
    assert edges == [WHY_ADAM_ANSWERS["edge_of_the_grid"].value]
    sweep = tune(
        lambda lr: language.loss(
            zipf.descend(language, lambda p: make["SGD"](p, lr), 100, batch=1024, schedule=lambda t: 1 - t / 100)
        ),
        20.0,
    )
    assert sweep.inside and sweep.loss < min(rows[1024, "Adam"].values())


def test_the_statement_shows_the_runs_that_the_check_knows():
    text = (ROOT / "solutions" / "source" / "06_why_adam.py").read_text(encoding="utf-8")
    one = r"\| (\d+) \| (SGD|Adam) \| ([\d.]+) \| ([\d.]+) \|"
    rows = re.findall(rf"# {one} {one}\n", text)
    shown = [row[:4] for row in rows] + [row[4:] for row in rows]
    assert [(int(batch), name, float(rate), float(loss)) for batch, name, rate, loss in shown] == list(RUNS)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (40, "not-the-best"),
        (1024, "another-column"),
        (0.0817, "another-column"),
        (30, "not-in-the-list"),
        (160, "end-but-not-best"),
    ],
)
def test_other_numbers_of_the_runs_are_recognised(number, code):
    assert judge_number("edge_of_the_grid", number)[0].code == code


# ----------------------------------------------------------------------------------------------- parameter groups


def test_torch_takes_the_groups_of_every_model_and_trains_what_they_hold():
    for case in grouped_models.cases():
        made = _groups_by_ids(case.model, case.weight_decay)
        before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
        for p in case.model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        torch.optim.AdamW(made, lr=0.5).step()
        known = grouped_models.parameters(case.model)
        for name, p in case.model.named_parameters():
            shrinks = p.requires_grad and id(p) not in known.why_not
            expected = before[name] * (1 - 0.5 * case.weight_decay) if shrinks else before[name]
            assert torch.allclose(p, expected, rtol=1e-6), name


def test_the_courses_helper_spares_the_same_tensors_of_its_language_model():
    model = lm.ByteLM(lm.LMConfig(width=16, context=8))
    theirs = groups.parameter_groups(model, lr=1e-3, weight_decay=0.1)
    decayed = {id(p) for group in theirs if group["weight_decay"] for p in group["params"]}
    assert {id(p) for p in _groups_by_ids(model, 0.1)[0]["params"]} == decayed


def test_a_shared_tensor_is_named_by_both_its_names():
    def by_first_name(model, weight_decay):
        spared = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
        made = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
        for name, p in model.named_parameters():
            owner = model.get_submodule(name.rpartition(".")[0])
            if p.requires_grad:
                made[p.dim() < 2 or isinstance(owner, spared)]["params"].append(p)
        return made

    (finding,) = judge_parameter_groups(by_first_name, lambda _: None)
    assert finding.code == "tied-decayed"
    assert "head.weight = table.weight" in finding.what


def test_a_slip_that_shows_in_the_last_model_alone_is_found():
    """Right for the models that are always the same, by their names."""

    def learned_by_heart(model, weight_decay):
        made = _groups_walking(model, weight_decay)
        if hasattr(model, "gain") and hasattr(model, "scale"):
            made[0]["params"], made[1]["params"] = list(model.parameters()), []
        return made

    assert judge_parameter_groups(learned_by_heart, lambda _: None)


def test_drawn_models_differ_and_leave_torchs_generator_alone():
    before = torch.random.get_rng_state()
    drawn = [list(grouped_models.cases())[-1].model for _ in range(5)]
    assert len({str([(name, p.shape) for name, p in model.named_parameters()]) for model in drawn}) > 1
    assert torch.equal(before, torch.random.get_rng_state())
