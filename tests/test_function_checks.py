"""The references behind the exercises on functions and numbers, held against torch and against brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import catalogues
from candidates.functions import FUNCTIONS
from course_lib.checks import EXERCISES
from course_lib.checks.functions import JUDGES
from course_lib.checks.functions.common import Numeric, as_array, close
from course_lib.checks.functions.sharpness import _large
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.checks.report import REMARK
from course_lib.precision.blockwise import quantise

NUMERIC = {name: judge for name, judge in JUDGES.items() if isinstance(judge, Numeric)}


def judged(exercise, function):
    return JUDGES[exercise](function, lambda _: None)


# ---------------------------------------------------------------------------------------------------- catalogues


def test_every_exercise_has_its_judge():
    kinds = {kind: {e.id for e in EXERCISES.values() if e.kind == kind} for kind in ("function", "number")}
    assert set(JUDGES) == kinds["function"]
    assert set(ANSWERS) == kinds["number"]


@pytest.mark.parametrize("exercise", NUMERIC)
def test_mistakes_differ_from_the_answer_and_from_each_other(exercise):
    judge = NUMERIC[exercise]
    assert len(judge.known) >= 10
    assert not catalogues.not_told_apart(judge)


@pytest.mark.parametrize("exercise", NUMERIC)
def test_every_mistake_is_named_by_its_own_code(exercise):
    assert not catalogues.misnamed(NUMERIC[exercise])


DRAWING = {name: judge for name, judge in NUMERIC.items() if judge.drawn(np.random.default_rng(0))}


@pytest.mark.parametrize("exercise", DRAWING)
def test_what_is_drawn_changes_no_verdict(exercise):
    judge = DRAWING[exercise]
    for name, (candidate, expected) in FUNCTIONS[exercise].items():
        codes = set()
        for seed in range(2):
            drawn = replace(judge, drawn=lambda rng, seed=seed: judge.drawn(np.random.default_rng(seed)))
            codes.add(tuple(finding.code for finding in drawn(candidate, lambda _: None)))
        assert len(codes) == 1, name
        (found,) = codes
        assert (not found) if not expected else expected in found, name


@pytest.mark.parametrize("exercise", DRAWING)
def test_a_table_of_the_fixed_answers_does_not_pass(exercise):
    judge = DRAWING[exercise]
    table = {str(case): judge.evaluate(judge.right, case) for case in judge.cases}

    def looked_up(**case):
        case = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in case.items()}
        parts = table.get(str(case)) or [np.zeros_like(part) for part in judge.evaluate(judge.right, case)]
        return parts if judge.parts else parts[0]

    findings = judged(exercise, looked_up)
    assert {finding.code for finding in findings} == {"wrong-numbers"}
    assert all("expected" in finding.what for finding in findings)


def test_mistakes_in_different_cells_of_a_table_are_each_named():
    slips, expected = FUNCTIONS["model_state_gb"]["no constants, Lion like AdamW, bf16 with float32 state"]
    findings = judged("model_state_gb", slips)
    assert [finding.code for finding in findings] == ["constants-missing", expected, "bf16-state-in-fp32"]
    assert findings[0].what.startswith("In 16 of 80 calls, your numbers are exactly those of")


PROMISED = {
    "model_state_gb": lambda case: case["parameters"] % 256 == 0,
    "zero_bytes": lambda case: case["parameters"] % case["gpus"] == 0,
    "activation_bytes": lambda case: case["width"] % case["heads"] == 0,
    "block_rates": lambda case: all((b == b.T).all() and np.linalg.eigvalsh(b)[0] > 0 for b in case["blocks"]),
    "warmup_cosine": lambda case: 0 <= case["warmup"] < case["total"] and 0 <= case["floor"] <= 1,
    "warmup_stable_decay": lambda case: (
        case["warmup"] < case["total"] and 1 <= round(case["share"] * case["total"]) <= case["total"]
    ),
    "layer_rates": lambda case: 0 < case["decay"] <= 1,
    "ema_corrected": lambda case: 0 <= case["decay"] < 1,
    "z_loss": lambda case: np.isfinite(case["logits"]).all(),
    "noise_scale": lambda case: (
        case["norm_small_squared"].shape == (len(case["norm_big_squared"]), case["big"] // case["small"])
    ),
    "lamb_step": lambda case: case["t"] >= 1 and (case["v"] >= 0).all(),
    "scale_rule": lambda case: case["optimizer"] == "sgd" or min(1 - case["k"] * (1 - b) for b in case["betas"]) >= 0,
}


@pytest.mark.parametrize("exercise", PROMISED)
def test_what_is_drawn_differs_and_is_as_the_exercise_promises(exercise):
    judge = DRAWING[exercise]
    drawn = [judge.drawn(np.random.default_rng(seed)) for seed in range(50)]
    assert len({str(cases) for cases in drawn}) == len(drawn)
    for case in (case for cases in (judge.cases, *drawn) for case in cases):
        assert PROMISED[exercise](case)
        assert not any(isinstance(value, np.generic) for value in case.values())


def test_a_mistake_in_each_part_is_told_for_each():
    def two_conventions(gradients, lrs, momentum):
        return -gradients, lrs[:, None] * gradients

    findings = judged("two_conventions", two_conventions)
    assert [(finding.code, finding.what.split("`")[1]) for finding in findings] == [
        ("no-momentum", "inside"),
        ("wrong-numbers", "outside"),
    ]


def test_parts_that_nobody_knows_are_each_located():
    def best_step(curvatures):
        return 0.123, 0.456

    assert [finding.what.split("`")[1] for finding in judged("best_step", best_step)] == ["lr", "factor"]


def test_a_random_start_is_fine_and_remarked_upon():
    def sharpness(loss, point, iterations=200):
        v = torch.randn(len(point), dtype=torch.float64)
        for _ in range(iterations):
            hv = torch.autograd.functional.vhp(loss, point, v / v.norm())[1]
            value, v = v @ hv / v.norm(), hv
        return value

    before = torch.random.get_rng_state()
    assert [(finding.code, finding.kind) for finding in judged("sharpness", sharpness)] == [("random-state", REMARK)]
    assert torch.equal(before, torch.random.get_rng_state())


def test_calls_at_the_edge_are_judged_after_the_cases_and_only_if_they_are_right():
    def one_row_short(gradient, start, lr, steps):
        points = np.zeros((steps, len(start)))
        points[0] = start  # fails where no steps are asked for
        for t in range(1, steps):
            points[t] = points[t - 1] - lr * gradient(points[t - 1])
        return points

    def without_room(gradient, start, lr, steps):
        points = [start]
        for _ in range(steps):
            points.append(points[-1] - lr * gradient(points[-1]))
        return np.stack(points[1:] and points)

    assert judged("gradient_descent", one_row_short)[0].code == "last-missing"
    (finding,) = judged("gradient_descent", without_room)
    assert finding.code == "raises"
    assert "steps=0" in finding.what


@pytest.mark.parametrize(
    "average",
    [
        lambda a, x, new: a * x + (1 - a) * new,
        lambda a, x, new: x + (1 - a) * (new - x),
        lambda a, x, new: new - a * (new - x),
        lambda a, x, new: torch.lerp(torch.tensor(x), torch.tensor(new), 1 - a).numpy(),
    ],
)
def test_rounding_makes_the_variance_of_constant_gradients_negative_in_every_order(average):
    case = NUMERIC["centered_divisor"].edges[1].case
    v = m = np.zeros(case["gradients"].shape[1])
    for g in case["gradients"]:
        v, m = average(case["alpha"], v, g**2), average(case["alpha"], m, g)
    assert (v - m**2 < 0).all()


def test_a_negative_variance_counts_as_none_in_every_order_of_operations():
    rng = np.random.default_rng(0)

    def centered_divisor(gradients, alpha, eps):
        v = m = np.zeros(gradients.shape[1])
        rows = []
        for g in gradients:
            one, two = rng.integers(2, size=2)
            v = alpha * v + (1 - alpha) * g**2 if one else v + (1 - alpha) * (g * g - v)
            m = alpha * m + (1 - alpha) * g if two else g - alpha * (g - m)
            v = v * (1 + 2**-52 * rng.integers(-1, 2, size=len(v)))  # one rounding more, either way
            rows.append(np.sqrt(np.maximum(v - m**2, 0)) + eps)
        return np.stack(rows)

    for _ in range(5):
        assert not judged("centered_divisor", centered_divisor)


@pytest.mark.parametrize("seed", range(20))
def test_sharpness_finds_no_fault_in_any_random_start(seed):
    def sharpness(loss, point, iterations=200):
        x = point.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(x), x, create_graph=True)
        v = torch.tensor(np.random.default_rng(seed).uniform(-1, 1, len(point)))
        for _ in range(iterations):
            v = v / v.norm()
            (hv,) = torch.autograd.grad(g, x, v, retain_graph=True)
            value, v = v @ hv, hv
        return value.item()

    assert not judged("sharpness", sharpness)


@pytest.mark.parametrize("answer", [0.0, math.inf])
def test_without_noise_and_beyond_the_limit_either_answer_will_do(answer):
    def noise_floor(lr, curvature, noise):
        if lr * curvature >= 2:
            return answer if noise == 0 else math.inf
        return lr * noise**2 / (curvature * (2 - lr * curvature))

    assert not judged("noise_floor", noise_floor)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (3, ()),
        (Fraction(1, 3), ()),
        (Decimal("0.1"), ()),
        (np.float32(2), ()),
        (torch.tensor([1.0], requires_grad=True), (1,)),
        ([torch.zeros(2), [1, 2]], (2, 2)),
    ],
)
def test_numbers_of_any_make_are_read(value, shape):
    assert as_array(value).shape == shape


@pytest.mark.parametrize("value", [None, "3", True, 1j, [[1.0], [1.0, 2.0]], object(), (x for x in (1.0,))])
def test_what_is_no_number_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        as_array(value)


# ---------------------------------------------------------------------------------------------------- references


def cases(exercise):
    judge = NUMERIC[exercise]
    return [(case, judge.evaluate(judge.right, case)) for case in judge.cases]


def torch_walk(optimizer, gradient, start, steps):
    p = torch.tensor(start, requires_grad=True)
    stepper, points = optimizer([p]), [p.detach().clone()]
    for _ in range(steps):
        p.grad = torch.tensor(gradient(p.detach().numpy()))
        stepper.step()
        points.append(p.detach().clone())
    return torch.stack(points).numpy()


def test_gradient_descent_is_torchs_sgd():
    for case, (right,) in cases("gradient_descent"):
        walk = torch_walk(
            lambda p, lr=case["lr"]: torch.optim.SGD(p, lr=lr), case["gradient"], case["start"], case["steps"]
        )
        assert close(right, walk)


def test_lookahead_is_torchs_nesterov_seen_from_behind_the_lookahead():
    for case, (right,) in cases("nesterov_lookahead"):
        if not case["momentum"]:
            continue
        walk = torch_walk(
            lambda p, case=case: torch.optim.SGD(p, lr=case["lr"], momentum=case["momentum"], nesterov=True),
            case["gradient"],
            case["start"],
            case["steps"],
        )
        ahead = right + case["momentum"] * np.diff(right, axis=0, prepend=right[:1])
        assert close(ahead, walk)


def test_best_step_beats_all_steps_around_it():
    for case, (lr, factor) in cases("best_step"):
        worst = [np.max(np.abs(1 - lr * scale * case["curvatures"])) for scale in (1, 0.999, 1.001)]
        assert math.isclose(worst[0], factor, abs_tol=1e-12)
        assert worst[0] < min(worst[1:])


def test_optimal_momentum_is_the_best_spectral_radius():
    def radius(lr, momentum, curvatures):
        step = [[[1 + momentum - lr * c, -momentum], [1, 0]] for c in curvatures]
        return np.abs(np.linalg.eigvals(step)).max()

    for case, (lr, momentum, factor) in cases("optimal_momentum"):
        assert math.isclose(radius(lr, momentum, case["curvatures"]), factor, rel_tol=1e-5, abs_tol=1e-7)
        for r, m in ((0.98, 1), (1.02, 1), (1, 0.98), (1, 1.02)):
            assert radius(r * lr, m * momentum, case["curvatures"]) > factor - 1e-12


def test_noise_floor_is_where_the_recurrence_of_the_variance_ends():
    for case, (right,) in cases("noise_floor"):
        lr, curvature, noise = case.values()
        s = 0.0
        for _ in range(200_000):
            s = (1 - lr * curvature) ** 2 * s + (lr * noise) ** 2
            if s > 1e6:
                break
        if math.isinf(right):
            assert s > 1e3
        elif lr * curvature > 1e-4:  # below, the recurrence takes longer than anyone waits
            assert math.isclose(s, right, rel_tol=1e-9)


def test_accumulated_gradient_is_autograds():
    rng = np.random.default_rng(0)
    inputs, targets, counts = rng.normal(size=(6, 3)), rng.normal(size=6), np.array([3, 1, 2])
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def gradient(rows):
        loss = ((torch.tensor(inputs[rows]) @ w - torch.tensor(targets[rows])) ** 2).mean()
        return torch.autograd.grad(loss, w)[0].numpy()

    means = np.stack([gradient(rows) for rows in np.split(np.arange(6), np.cumsum(counts)[:-1])])
    judge = NUMERIC["accumulated_gradient"]
    assert close(judge.evaluate(judge.right, {"means": means, "counts": counts})[0], gradient(np.arange(6)))


def test_two_conventions_outside_is_torchs_and_they_agree_while_lr_is_constant():
    constant = []
    for case, (outside, inside) in cases("two_conventions"):
        p = torch.zeros(case["gradients"].shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([p], lr=1.0, momentum=case["momentum"])
        moves = []
        for g, lr in zip(case["gradients"], case["lrs"], strict=True):
            before = p.detach().clone()
            optimizer.param_groups[0]["lr"], p.grad = float(lr), torch.tensor(g)
            optimizer.step()
            moves.append((before - p.detach()).numpy())
        assert np.allclose(outside, moves, rtol=1e-9, atol=1e-12)
        if case["momentum"] and len(case["lrs"]) > 1:
            constant.append(len(set(case["lrs"])) == 1)
            assert close(outside, inside) == constant[-1]
    assert {True, False} == set(constant)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_adagrad_is_torchs_on_the_gradient_of_an_embedding():
    for case, (table, sums) in cases("sparse_adagrad"):
        embedding = nn.Embedding.from_pretrained(torch.tensor(case["table"]), freeze=False, sparse=True)
        optimizer = torch.optim.Adagrad(embedding.parameters(), lr=case["lr"], eps=case["eps"])
        optimizer.state[embedding.weight]["sum"] = torch.tensor(case["sums"])
        (embedding(torch.tensor(case["rows"])) * torch.tensor(case["grads"])).sum().backward()
        optimizer.step()
        assert close(table, embedding.weight.detach().numpy())
        assert close(sums, optimizer.state[embedding.weight]["sum"].numpy())


def test_centered_divisor_is_what_torch_divides_by():
    for case, (right,) in cases("centered_divisor"):
        p = torch.zeros(case["gradients"].shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.RMSprop([p], lr=1.0, alpha=case["alpha"], eps=case["eps"], centered=True)
        for g, divisor in zip(case["gradients"], right, strict=True):
            before, p.grad = p.detach().clone(), torch.tensor(g)
            optimizer.step()
            assert np.allclose((before - p.detach()).numpy() * divisor, g, rtol=1e-6, atol=1e-12)


def test_rectifier_is_torchs():
    for case, (right,) in cases("rectifier"):
        if case["t"] > 10_000:
            continue
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.RAdam([p], lr=1.0, betas=(0.0, case["beta2"]), eps=1e-12)
        for _ in range(case["t"]):
            before, p.grad = p.item(), torch.ones(1, dtype=torch.float64)
            optimizer.step()
        assert math.isclose(
            before - p.item(), right or 1.0, rel_tol=1e-6
        )  # with g = 1 throughout, m_hat / sqrt(v_hat) is 1


def test_sharpness_of_the_large_loss_by_a_product_with_its_own_eigenvector():
    case, right = _large()
    x, v = torch.tensor(case.point, requires_grad=True), torch.ones(len(case.point), dtype=torch.float64)
    (g,) = torch.autograd.grad(case.loss(x), x, create_graph=True)
    for _ in range(40):
        v = v / v.norm()
        (hv,) = torch.autograd.grad(g, x, v, retain_graph=True)
        value, v = v @ hv, hv
    assert math.isclose(value, right, rel_tol=1e-9)


def stored_bytes(*tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor.dim())


def trained(weights, gradients, master, optimizer):
    """Bytes that a step of torch's optimizer leaves behind, for a matrix of these dtypes."""
    p = torch.zeros(64, 64, dtype=weights, requires_grad=True)
    gradient = torch.ones(64, 64, dtype=gradients)
    updated = p if master is None else p.detach().to(master).requires_grad_()
    updated.grad = gradient.to(updated.dtype) if updated is not p else gradient
    held = [p, gradient] + ([updated] if updated is not p else [])
    if optimizer == "adamw8bit":
        for signed in (True, False):
            held += quantise(torch.ones(64, 64), signed=signed)
        return stored_bytes(*held)
    stepper = {
        "sgd": lambda: torch.optim.SGD([updated], lr=0.1),
        "momentum": lambda: torch.optim.SGD([updated], lr=0.1, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW([updated]),
    }[optimizer]()
    stepper.step()
    state = [value for value in stepper.state[updated].values() if isinstance(value, torch.Tensor)]
    return stored_bytes(*held, *state)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "adamw8bit"])
@pytest.mark.parametrize(
    ("recipe", "dtypes"),
    [
        ("fp32", (torch.float32, torch.float32, None)),
        ("mixed", (torch.bfloat16, torch.bfloat16, torch.float32)),
        ("mixed, fp32 gradients", (torch.bfloat16, torch.float32, torch.float32)),
        ("bf16", (torch.bfloat16, torch.bfloat16, None)),
    ],
)
def test_model_states_are_what_torchs_tensors_hold(recipe, dtypes, optimizer):
    right = NUMERIC["model_state_gb"].right(64 * 64, recipe, optimizer)
    assert trained(*dtypes, optimizer) == right * 1e9


def test_zero_bytes_are_those_of_the_paper_and_of_the_most_quoted_model():
    """Rajbhandari et al. 2020 (arXiv 1910.02054), Figure 1: 7.5e9 parameters on 64 GPUs, in GB."""
    right = NUMERIC["zero_bytes"].right
    assert [round(right(7_500_000_000, 64, stage) / 1e9, 1) for stage in range(4)] == [120.0, 31.4, 16.6, 1.9]
    assert [right(7_000_000_000, 64, stage) for stage in range(4)] == [112e9, 29.3125e9, 15.53125e9, 1.75e9]


def block_of_gpt2(x, heads, flash, weights):
    """One block without dropout in torch's own functions, and nothing else."""
    b, s, h = x.shape
    qkv = functional.linear(functional.layer_norm(x, (h,)), weights["qkv"])
    q, k, v = (part.view(b, s, heads, h // heads).transpose(1, 2) for part in qkv.split(h, dim=2))
    if flash:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        future = torch.ones(s, s, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(2, 3) * (h // heads) ** -0.5).masked_fill(future, float("-inf"))
        attended = scores.softmax(dim=-1) @ v
    x = x + functional.linear(attended.transpose(1, 2).reshape(b, s, h), weights["projection"])
    hidden = functional.gelu(functional.linear(functional.layer_norm(x, (h,)), weights["up"]), approximate="tanh")
    return x + functional.linear(hidden, weights["down"])


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize(("batch", "sequence", "heads", "width"), [(2, 48, 2, 64), (3, 16, 4, 128)])
def test_activations_are_what_autograd_keeps_of_a_block(batch, sequence, heads, width, flash):
    shapes = {"qkv": (3, 1), "projection": (1, 1), "up": (4, 1), "down": (1, 4)}
    weights = {
        name: torch.ones(rows * width, columns * width, dtype=torch.bfloat16, requires_grad=True)
        for name, (rows, columns) in shapes.items()
    }
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.ones(batch, sequence, width, dtype=torch.bfloat16, requires_grad=True)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        block_of_gpt2(x, heads, flash, weights)
    for weight in weights.values():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    statistics = [t for t in kept.values() if t.numel() == batch * sequence or t.dtype == torch.bool or not t.dim()]
    bytes_kept = sum(t.untyped_storage().nbytes() for t in kept.values()) - sum(
        t.untyped_storage().nbytes() for t in statistics
    )
    assert bytes_kept == NUMERIC["activation_bytes"].right(batch, sequence, width, heads, flash)


# ------------------------------------------------------------------------------------------------------- numbers


def test_largest_lr_is_where_descent_ceases_to_converge():
    hessian = np.array([[3.0, 2.0], [2.0, 6.0]])

    def converges(lr):
        return np.abs(np.linalg.eigvalsh(np.eye(2) - lr * hessian)).max() < 1

    lr = ANSWERS["largest_lr"].value
    assert converges(0.9999 * lr)
    assert not converges(1.0001 * lr)


def test_coasting_distance_adagrad_step_and_adadeltas_first_step_are_torchs():
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([p], lr=0.01, momentum=0.9)
    for t in range(1000):
        if t == 500:
            start = p.item()
        p.grad = torch.full((1,), float(t < 500), dtype=torch.float64)
        sgd.step()
    assert math.isclose(start - p.item(), ANSWERS["coasting_distance"].value, rel_tol=1e-9)

    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adadelta = torch.optim.Adadelta([p])
    p.grad = torch.ones(1, dtype=torch.float64)
    adadelta.step()
    assert math.isclose(-p.item(), ANSWERS["adadelta_first_step"].value, rel_tol=1e-9)

    steps = 0.37 / np.sqrt(np.cumsum(np.full(10_100, 0.37**2)))
    first = 1 + int(np.argmax(steps <= 0.01 * steps[0] * (1 + 1e-9)))
    assert first == ANSWERS["adagrad_step"].value


def test_memory_numbers_are_those_of_tensors():
    assert math.isclose(NUMERIC["zero_bytes"].right(ANSWERS["largest_model"].value, 8, 2), 80e9)
    logits = torch.empty(4, 8192, 128_256, dtype=torch.float32, device="meta")
    assert logits.nbytes / 1e9 == ANSWERS["logits_gb"].value
    m, v = (quantise(torch.zeros(1024, 4096), signed=signed) for signed in (True, False))
    assert stored_bytes(*m, *v) == ANSWERS["eight_bit_bytes"].value


@pytest.mark.parametrize("exercise", ANSWERS)
def test_slips_are_told_apart_and_the_answer_passes_in_any_type(exercise):
    answer = ANSWERS[exercise]
    for value in (answer.value, np.float64(answer.value), torch.tensor(answer.value, dtype=torch.float64)):
        assert not judge_number(exercise, value)
    for slip in answer.slips:
        assert [(f.code, f.kind) for f in judge_number(exercise, slip.value)] == [(slip.code, slip.kind)]
    assert judge_number(exercise, None)[0].code == "blank"
    assert judge_number(exercise, str(answer.value))[0].code == "wrong-type"
    assert judge_number(exercise, -answer.value)[0].code in ("sign", "signed")


def test_a_rounded_answer_is_told_from_a_wrong_one():
    assert not judge_number("largest_lr", 0.2857)
    assert not judge_number("largest_model", 21.3e9)
    assert not judge_number("logits_gb", 16.8)
    assert judge_number("logits_gb", 17)[0].code == "not-exact"
    assert judge_number("largest_lr", 0.29)[0].code == "not-exact"
    assert judge_number("adagrad_step", 10_050)[0].code == "not-exact"
    assert [judge_number("adagrad_step", n)[0].code for n in (9_999, 10_001)] == ["counted-from-zero", "one-too-many"]


@pytest.mark.parametrize("ratio", [256.0, 1.7, 0.3, 1e-6, -3.0])
def test_a_number_far_off_does_not_give_the_answer_away(ratio):
    for exercise in ("largest_model", "eight_bit_bytes", "logits_gb"):
        (finding,) = judge_number(exercise, ratio * ANSWERS[exercise].value)
        if finding.code == "wrong-number":
            assert f"{ratio:g}" not in finding.what.removeprefix(
                ANSWERS[exercise].said(ratio * ANSWERS[exercise].value)
            )
            assert "times" not in finding.what
    assert "far too large" in judge_number("largest_model", 1e15)[0].what
    assert "too small" in judge_number("largest_model", 1.234e10)[0].what


@pytest.mark.parametrize("more", [1, 4, 8])
def test_a_byte_more_is_no_longer_right(more):
    assert judge_number("eight_bit_bytes", ANSWERS["eight_bit_bytes"].value + more)


@given(st.sampled_from(sorted(ANSWERS)), st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_any_number_gets_a_verdict(exercise, value):
    findings = judge_number(exercise, value)
    answer = ANSWERS[exercise]
    assert bool(findings) != math.isclose(value, answer.value, rel_tol=answer.tolerance)
    assert all(finding.what and finding.hint for finding in findings)
