"""The references behind the exercises of notebooks 08 and 09, held against torch, the library and the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import catalogues
from course_lib.averaging import EMA
from course_lib.checks.functions.clip_by_global_norm import CLIP
from course_lib.checks.functions.ema_corrected import EMA_CORRECTED
from course_lib.checks.functions.lamb_step import LAMB_STEP
from course_lib.checks.functions.noise_scale import NOISE_SCALE
from course_lib.checks.functions.scale_rule import SCALE_RULE
from course_lib.checks.functions.stability import JUDGES
from course_lib.checks.functions.token_mean_step import IGNORED, TOKEN_MEAN
from course_lib.checks.functions.z_loss import Z_LOSS
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.optim.lamb import LAMB
from course_lib.problems import depth

THROUGH_TORCH = {"clip_by_global_norm": CLIP, "token_mean_step": TOKEN_MEAN}


@pytest.mark.parametrize("exercise", THROUGH_TORCH)
def test_mistakes_differ_from_the_answer_and_from_each_other(exercise):
    judge = THROUGH_TORCH[exercise]
    assert len(judge.known) >= 30
    assert not catalogues.not_told_apart(judge)


@pytest.mark.parametrize("exercise", THROUGH_TORCH)
def test_every_mistake_is_named_by_its_own_code(exercise):
    assert not catalogues.misnamed(THROUGH_TORCH[exercise])


def test_clip_is_torchs_where_gradients_are_finite_and_float64():
    for case in [*CLIP.cases, *catalogues.drawn(CLIP, 20)]:
        params = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in case["gradients"]]
        for p, g in zip(params, case["gradients"], strict=True):
            p.grad = torch.tensor(g)
        norm = torch.nn.utils.clip_grad_norm_(params, case["max_norm"])
        want = CLIP.evaluate(CLIP.right, case)
        assert math.isclose(norm.item(), want[0], rel_tol=1e-12)
        assert np.allclose(torch.cat([p.grad.flatten() for p in params]).numpy(), want[1], rtol=1e-6)


def test_token_mean_is_one_cross_entropy_over_all_tokens():
    for case in [*TOKEN_MEAN.cases, *catalogues.drawn(TOKEN_MEAN, 20)]:
        weight = torch.tensor(case["weights"], requires_grad=True)
        x, y = (torch.cat([torch.tensor(part).flatten(0, 1) for part in case[name]]) for name in ("inputs", "targets"))
        loss = torch.nn.functional.cross_entropy(x @ weight.T, y, ignore_index=IGNORED)
        loss.backward()
        gradient, mean = TOKEN_MEAN.evaluate(TOKEN_MEAN.right, case)
        assert np.allclose(gradient, weight.grad.numpy(), rtol=1e-9, atol=1e-12)
        assert math.isclose(mean, loss.item(), rel_tol=1e-9)


def test_a_step_that_keeps_all_graphs_is_right_and_remarked_upon():
    def token_mean_step(model, loss_sum, micro_batches, optimizer):
        tokens = sum(int((y != IGNORED).sum()) for _, y in micro_batches)
        if tokens == 0:
            return 0.0
        optimizer.zero_grad()
        loss = sum(loss_sum(model, x, y) for x, y in micro_batches) / tokens
        loss.backward()
        optimizer.step()
        return loss.item()

    (finding,) = JUDGES["token_mean_step"](token_mean_step, lambda _: None)
    assert (finding.code, finding.kind) == ("graphs-kept", "remark")


def test_a_graph_that_retain_graph_keeps_is_remarked_upon():
    def token_mean_step(model, loss_sum, micro_batches, optimizer):
        tokens, losses = sum(int((y != IGNORED).sum()) for _, y in micro_batches), []
        if tokens == 0:
            return 0.0
        optimizer.zero_grad()
        for x, y in micro_batches:
            losses.append(loss_sum(model, x, y) / tokens)
            losses[-1].backward(retain_graph=kept)
        optimizer.step()
        return sum(loss.item() for loss in losses)

    kept = True
    (finding,) = JUDGES["token_mean_step"](token_mean_step, lambda _: None)
    assert (finding.code, finding.kind) == ("graphs-kept", "remark")
    kept = False
    assert not JUDGES["token_mean_step"](token_mean_step, lambda _: None)


def test_ema_is_the_librarys_over_sound_rows():
    for case in [*EMA_CORRECTED.cases, *catalogues.drawn(EMA_CORRECTED, 20)]:
        values, param = case["values"], torch.zeros(case["values"].shape[1], dtype=torch.float64)
        average = EMA([param], case["decay"])
        for row, want in zip(values, EMA_CORRECTED.right(values, case["decay"]), strict=True):
            if np.isfinite(row).all():
                param.copy_(torch.tensor(row))
                average.update()
            got = average.averaged()[0].numpy() if average.updates else np.full(len(row), np.nan)
            assert np.allclose(got, want, rtol=1e-12, equal_nan=True)


def test_z_loss_is_autograds():
    edges = [edge.case for edge in Z_LOSS.edges]
    for case in [*Z_LOSS.cases, *edges, *catalogues.drawn(Z_LOSS, 20)]:
        logits = torch.tensor(case["logits"], requires_grad=True)
        loss = case["coefficient"] * torch.logsumexp(logits, 1).square().mean()
        loss.backward()
        value, gradient = Z_LOSS.right(**case)
        assert math.isclose(value, loss.item(), rel_tol=1e-9)
        assert np.allclose(gradient, logits.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_noise_scale_is_unbiased():
    rng = np.random.default_rng(0)
    true, spread, small, workers = np.array([1.0, -0.5, 0.2]), np.array([2.0, 1.0, 3.0]), 4, 6
    seen = true + spread / math.sqrt(small) * rng.standard_normal((200_000, workers, 3))
    signal, noise, ratio = NOISE_SCALE.right(
        small, small * workers, (seen**2).sum(axis=2), (seen.mean(axis=1) ** 2).sum(axis=1)
    )
    assert math.isclose(signal, true @ true, rel_tol=0.01)
    assert math.isclose(noise, spread @ spread, rel_tol=0.01)
    assert ratio == noise / signal


def test_lamb_step_is_the_librarys():
    rng = np.random.default_rng(1)
    w, gradients = rng.normal(size=(3, 4)) * [[1.0], [20.0], [0.0]], rng.normal(size=(30, 3, 4))
    layers = [torch.tensor(row, requires_grad=True) for row in w]
    optimizer = LAMB(layers, lr=0.03, betas=(0.8, 0.95), eps=0.01, weight_decay=0.1)
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        for layer, row in zip(layers, g, strict=True):
            layer.grad = torch.tensor(row)
        optimizer.step()
        w, m, v = LAMB_STEP.right(w, m, v, g, t, 0.03, (0.8, 0.95), 0.01, 0.1)
    assert np.allclose(w, torch.stack([layer.detach() for layer in layers]).numpy(), rtol=1e-9)


def test_scale_rule_makes_two_steps_of_four():
    """What Malladi et al. (2205.10287) keep: lr^2 / B for Adam, lr / B for SGD, (1 - beta) / B and eps sqrt(B)."""
    for case in catalogues.drawn(SCALE_RULE, 20):
        lr, betas, eps = SCALE_RULE.right(**case)
        k = case["k"]
        if case["optimizer"] == "sgd":
            assert math.isclose(lr / k, case["lr"]) and (betas, eps) == (case["betas"], case["eps"])
        else:
            assert math.isclose(lr**2 / k, case["lr"] ** 2) and math.isclose(eps * math.sqrt(k), case["eps"])
            assert np.allclose((1 - np.array(betas)) / k, 1 - np.array(case["betas"]))


def test_residual_std_keeps_the_stream_at_twice_its_variance():
    scale = ANSWERS["residual_std"].value / 0.02
    assert math.isclose(depth.residual(scale).forward[-1] ** 2, 2, rel_tol=0.1)


def test_steps_needed_lies_on_the_hyperbola():
    steps = ANSWERS["steps_needed"].value
    assert math.isclose((steps / 20_000 - 1) * (steps * 1e6 / 50e9 - 1), 1)
    assert [judge_number("steps_needed", steps)[0].code for steps in (20_000, 20_050)] == [
        "the-least",
        "too-few-tokens",
    ]


def test_each_row_of_the_log_says_what_it_shows():
    for step in range(1000, 13_000, 1000):
        findings = judge_number("first_symptom", step)
        assert bool(findings) == (step != 6000)
        assert all(f"{step:,}".removesuffix(",000") in finding.what for finding in findings)
    assert judge_number("first_symptom", 6)[0].code == "row"
    assert judge_number("first_symptom", 6500)[0].code == "not-in-the-log"
