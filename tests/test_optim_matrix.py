"""Muon and QK-clip: against torch, against what singular values say, and by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_cases import give_gradients, leaf

from course_lib.memory.architecture import Weight
from course_lib.memory.states import state_bytes
from course_lib.optim import REGISTRY, AdamW, Muon, adjusted_lr, max_attention_logits, newton_schulz, qk_clip_
from course_lib.problems.lm import ByteLM, LMConfig

JORDAN = (3.4445, -4.7750, 2.0315)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def orthogonal(side: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(side, side)))[0]


# --- Newton-Schulz --------------------------------------------------------------------------------


def with_singular_values(values: list[float], rows: int, columns: int) -> np.ndarray:
    left, right = orthogonal(rows, 1), orthogonal(columns, 2)
    return left[:, : len(values)] * values @ right[: len(values)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12), st.integers(0, 5), st.booleans(), st.integers(0, 7))
def test_newton_schulz_maps_singular_values_by_the_polynomial_and_keeps_the_vectors(values, extra, tall, steps):
    rows, columns = len(values), len(values) + extra
    if tall:
        rows, columns = columns, rows
    matrix = with_singular_values(values, rows, columns)
    left, found, right = np.linalg.svd(matrix, full_matrices=False)
    a, b, c = JORDAN
    s = found / math.sqrt(np.sum(np.square(values)))
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    got = newton_schulz(torch.tensor(matrix), steps)
    np.testing.assert_allclose(got, left * s @ right, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=16), st.integers(0, 5))
def test_five_steps_bring_singular_values_from_a_hundredth_to_one_into_the_measured_interval(values, extra):
    """[0.01, 1] -> [0.6818, 1.1344]; 16 values within [0.05, 1] are at least 0.05 / 4 of their norm."""
    matrix = with_singular_values(values, len(values) + extra, len(values))
    singular = torch.linalg.svdvals(newton_schulz(torch.tensor(matrix)))
    assert 0.6818 <= singular.min() and singular.max() <= 1.1344


def test_the_interval_is_that_of_the_polynomial_and_small_values_grow_by_its_slope():
    s = np.geomspace(0.01, 1.0, 400_001)
    for _ in range(5):
        s = JORDAN[0] * s + JORDAN[1] * s**3 + JORDAN[2] * s**5
    assert s.min() == pytest.approx(0.68183, abs=1e-5) and s.max() == pytest.approx(1.13436, abs=1e-5)
    tiny = newton_schulz(torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64)))
    assert tiny[1, 1].item() == pytest.approx(1e-9 * JORDAN[0] ** 5, rel=1e-6)
    assert JORDAN[0] ** 5 == pytest.approx(485, abs=0.5)


def test_the_cubic_converges_to_the_polar_factor_and_jordans_does_not():
    matrix = draw(6, 4)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(newton_schulz(matrix, 40, (1.5, -0.5, 0.0)), left @ right, rtol=0, atol=1e-10)
    assert (newton_schulz(matrix, 40) - left @ right).abs().max() > 0.01
    assert torch.linalg.svdvals(newton_schulz(1e-4 * torch.eye(2) + torch.diag(torch.tensor([1.0, 0.0])), 5,
                                              (1.5, -0.5, 0.0))).min() < 1e-3  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (1, 7), (7, 1)], ids=str)
def test_newton_schulz_transposes_works_in_the_dtype_given_and_never_writes_to_its_argument(shape, dtype):
    matrix = draw(*shape).to(dtype)
    kept = matrix.clone()
    got = newton_schulz(matrix)
    assert torch.equal(matrix, kept) and got.dtype == dtype and got.shape == matrix.shape
    exact = newton_schulz(kept.double())
    # The steps amplify rounding: a small singular value ends anywhere in the interval.
    slack = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.3}[dtype]
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=slack)
    torch.testing.assert_close(newton_schulz(matrix.T), got.T, rtol=0, atol=slack)


@settings(deadline=None, max_examples=40)
@given(st.floats(-6.0, 6.0).map(lambda power: 10.0**power))
def test_newton_schulz_does_not_see_the_scale_so_that_averages_and_sums_of_gradients_are_one(scale):
    matrix = draw(5, 3)
    torch.testing.assert_close(newton_schulz(scale * matrix), newton_schulz(matrix), rtol=1e-9, atol=1e-12)


def test_newton_schulz_of_nothing_and_of_no_numbers():
    assert torch.equal(newton_schulz(torch.zeros(3, 4)), torch.zeros(3, 4))
    for shape in [(0, 4), (4, 0), (0, 0)]:
        assert newton_schulz(torch.zeros(shape)).shape == shape
    for bad in (math.nan, math.inf):
        matrix = draw(4, 3)
        matrix[0, 0] = bad
        assert newton_schulz(matrix).isnan().all()
    with pytest.raises(ValueError, match=r"Invalid matrix: shape \(3,\).*Allowed: two dimensions, a floating dtype"):
        newton_schulz(torch.ones(3))
    with pytest.raises(ValueError, match="Invalid matrix: shape .*int64"):
        newton_schulz(torch.ones(3, 3, dtype=torch.int64))
    for steps in (-1, 100, 2.0, True):
        with pytest.raises(ValueError, match="Invalid ns_steps.*from 0 to 99"):
            newton_schulz(torch.ones(3, 3), steps)
    with pytest.raises(ValueError, match="Invalid ns_coefficients"):
        newton_schulz(torch.ones(3, 3), 5, (1.5, -0.5))
    with pytest.raises(ValueError, match="Invalid eps"):
        newton_schulz(torch.ones(3, 3), eps=0.0)


# --- Muon -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nesterov", "dtype"), [
    (True, torch.float32), (True, torch.float64), (True, torch.bfloat16),
    (False, torch.float32), (False, torch.float64),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", [None, "original", "match_rms_adamw"])
def test_muon_is_torchs_bit_for_bit(mode, nesterov, dtype):
    """The same operations in the same order: what torch has wrong for bfloat16 without Nesterov is tested below."""
    hyper = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3, "nesterov": nesterov, "adjust_lr_fn": mode}
    shapes = [(24, 8), (8, 24), (16, 16), (1, 5), (5, 1), (0, 3)]
    mine, theirs = ([draw(*shape, dtype=dtype).requires_grad_() for shape in shapes] for _ in range(2))
    optimizers = Muon(mine, **hyper), torch.optim.Muon(theirs, **hyper)
    for number in range(60):
        give_gradients(np.random.default_rng(number), mine, theirs, missing=0.2)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.02 * (1 + number % 3)
            optimizer.step()
    for got, expected in zip(mine, theirs, strict=True):
        assert torch.equal(got, expected)
        buffers = [optimizer.state[param] for optimizer, param in zip(optimizers, (got, expected), strict=True)]
        assert torch.equal(buffers[0]["momentum_buffer"], buffers[1]["momentum_buffer"])


def test_a_state_dict_of_torchs_muon_goes_on_here():
    theirs, mine = draw(6, 4).requires_grad_(), draw(6, 4, seed=5).requires_grad_()
    production, ours = torch.optim.Muon([theirs], lr=0.05), Muon([mine], lr=3.0)
    give_gradients(np.random.default_rng(0), [theirs])
    production.step()
    with torch.no_grad():
        mine.copy_(theirs)
    # Loading shares the tensors: without a copy two optimizers would write to one buffer.
    ours.load_state_dict(copy.deepcopy(production.state_dict()))
    for number in range(1, 10):
        give_gradients(np.random.default_rng(number), [theirs], [mine])
        production.step()
        ours.step()
    assert torch.equal(mine, theirs)


def test_torch_spoils_the_momentum_of_bfloat16_weights_without_nesterov_and_muon_here_does_not():
    grad = draw(8, 5, dtype=torch.bfloat16)
    buffers = {}
    for name, make in (("torch", torch.optim.Muon), ("ours", Muon)):
        param = torch.zeros(8, 5, dtype=torch.bfloat16, requires_grad=True)
        optimizer = make([param], lr=0.02, nesterov=False)
        param.grad = grad.clone()
        optimizer.step()
        buffers[name] = optimizer.state[param]["momentum_buffer"]
    expected = torch.zeros_like(grad).lerp(grad, 1 - 0.95)
    assert torch.equal(buffers["ours"], expected)
    if torch.equal(buffers["torch"], expected):
        pytest.skip(f"torch {torch.__version__} no longer normalises the buffer in place")
    assert expected.norm() < 0.5
    assert buffers["torch"].norm().item() == pytest.approx(1.0, abs=0.02)


def test_bfloat16_weights_without_nesterov_go_where_float32_ones_go():
    """The reference is torch's float32 Muon, which has no such bug; the path is some 2% of its length away."""
    start = draw(8, 5, dtype=torch.bfloat16)
    low, high = start.clone().requires_grad_(), start.float().requires_grad_()
    hyper = {"lr": 0.05, "nesterov": False, "weight_decay": 0.0}
    optimizers = Muon([low], **hyper), torch.optim.Muon([high], **hyper)
    for number in range(30):
        low.grad = draw(8, 5, seed=number, dtype=torch.bfloat16) + 0.5
        high.grad = low.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    assert (low.float() - high).norm() < 0.1 * (high - start.float()).norm()


@pytest.mark.parametrize(("shape", "mode", "factor"), [
    ((8, 32), None, 1.0),
    ((32, 8), "original", 2.0),
    ((16, 16), "original", 1.0),
    ((100, 25), "match_rms_adamw", 2.0),
    ((25, 100), "match_rms_adamw", 2.0),
    ((1, 4), "match_rms_adamw", 0.4),
])  # fmt: skip
def test_the_factor_for_the_shape_by_hand(shape, mode, factor):
    assert adjusted_lr(0.5, shape, mode) == pytest.approx(0.5 * factor, rel=1e-15)


@pytest.mark.parametrize("shape", [(64, 64), (64, 16), (16, 64)], ids=str)
def test_matched_updates_have_the_root_mean_square_of_adamws(shape):
    """0.2 with an exact U V^T; singular values between 0.4 and 1.2 leave it between 0.08 and 0.24."""
    param = torch.zeros(shape, requires_grad=True)
    param.grad = draw(*shape, dtype=torch.float32)
    Muon([param], lr=1.0, adjust_lr_fn="match_rms_adamw").step()
    assert 0.08 < param.detach().square().mean().sqrt() < 0.24
    left, _, right = torch.linalg.svd(param.grad, full_matrices=False)
    exact = 0.2 * math.sqrt(max(shape)) * left @ right
    assert exact.square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-5)


def test_an_adamw_group_is_adamw():
    shapes = [(3, 4), (5,), (), (2, 3, 2)]
    mine, ours, theirs = ([draw(*shape).requires_grad_() for shape in shapes] for _ in range(3))
    hidden = draw(4, 4).requires_grad_()
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    both = Muon([{"params": [hidden]}, {"params": mine, "adamw": True, **options}], lr=0.1)
    alone, production = AdamW(ours, **options), torch.optim.AdamW(theirs, **options)
    for number in range(50):
        give_gradients(np.random.default_rng(number), mine, ours, theirs)
        hidden.grad = draw(4, 4, seed=number)
        for optimizer in (both, alone, production):
            optimizer.step()
    for got, same, near in zip(mine, ours, theirs, strict=True):
        assert torch.equal(got, same)
        torch.testing.assert_close(got, near, rtol=1e-12, atol=1e-14)
    assert set(both.state[mine[0]]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(both.state[hidden]) == {"step", "momentum_buffer"}


def test_an_adamw_group_has_adamws_defaults_where_it_says_nothing():
    optimizer = Muon([{"params": [leaf(1.0)], "adamw": True}], lr=0.1, eps=1e-3)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["lr"]) == ((0.9, 0.999), 1e-8, 0.1)
    for bad in ({"betas": (0.9, 1.0)}, {"eps": -1.0}, {"adamw": "yes"}):
        with pytest.raises((ValueError, TypeError), match=rf"Invalid {next(iter(bad))}"):
            Muon([{"params": [leaf(1.0)], "adamw": True} | bad])


@pytest.mark.parametrize("shape", [(5,), (), (2, 3, 4)], ids=str)
def test_what_is_no_matrix_is_refused_when_the_optimizer_is_made_with_the_way_out(shape):
    matrix, other = draw(2, 2).requires_grad_(), draw(*shape).requires_grad_()
    with pytest.raises(ValueError, match="is for matrices") as caught:
        Muon([matrix, other])
    assert str(shape) in str(caught.value) and '"adamw": True' in str(caught.value)
    optimizer = Muon([matrix])
    with pytest.raises(ValueError, match="is for matrices"):
        optimizer.add_param_group({"params": [other]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [other], "adamw": True})
    assert len(optimizer.param_groups) == 2


def test_state_bytes_are_those_that_the_memory_notebook_counts_for_hidden_matrices_and_all_that_is_no_matrix():
    """They part at embeddings and heads: by role those go to AdamW, and a shape does not say that it is one."""
    for shape, role in [((64, 256), "mlp"), ((64,), "norm"), ((3, 4, 5), "embedding")]:
        assert REGISTRY["muon"].state_bytes(shape) == state_bytes("muon", [Weight("weight", shape, 1, role)])
    embedding = [Weight("weight", (256, 64), 1, "embedding")]
    assert 2 * REGISTRY["muon"].state_bytes((256, 64)) == state_bytes("muon", embedding)


# --- QK-clip --------------------------------------------------------------------------------------

HEADS, HEAD_DIM, WIDTH = 4, 6, 24


def attention(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights and biases of queries and keys of which two heads have large logits, and inputs."""
    rows = HEADS * HEAD_DIM
    parts = {
        "x": draw(3, 10, WIDTH, seed=seed), "wq": draw(rows, WIDTH, seed=seed + 1), "bq": draw(rows, seed=seed + 2),
        "wk": draw(rows, WIDTH, seed=seed + 3), "bk": draw(rows, seed=seed + 4),
    }  # fmt: skip
    for head, size in ((1, 5.0), (3, 3.0)):
        parts["wq"][head * HEAD_DIM : (head + 1) * HEAD_DIM] *= size
    return parts


def heads_of(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (x @ weight.T + bias).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)


def logits_of(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    query, key = (heads_of(parts["x"], parts["w" + each], parts["b" + each]) for each in "qk")
    return query @ key.mT / math.sqrt(HEAD_DIM)


def test_after_the_clip_no_head_exceeds_tau_and_the_others_are_untouched():
    parts = attention()
    before = {name: tensor.clone() for name, tensor in parts.items()}
    logits = logits_of(parts)
    largest = logits.amax((0, 2, 3))
    tau = float(largest.sort().values[1:3].mean())  # two heads above, two below
    gamma = qk_clip_([parts["wq"], parts["bq"]], [parts["wk"], parts["bk"]], largest, tau)
    clipped = largest > tau
    assert clipped.sum() == 2 and (gamma[~clipped] == 1).all()
    torch.testing.assert_close(gamma[clipped], tau / largest[clipped])
    after = logits_of(parts)
    torch.testing.assert_close(after.amax((0, 2, 3)), largest.clamp(max=tau), rtol=1e-12, atol=0)
    torch.testing.assert_close(after, logits * gamma.view(-1, 1, 1), rtol=1e-11, atol=1e-12)
    for name in ("wq", "bq", "wk", "bk"):
        was, now = (each[name].unflatten(0, (HEADS, HEAD_DIM)) for each in (before, parts))
        assert torch.equal(now[~clipped], was[~clipped])
        ratio = (now[clipped] / was[clipped]).flatten(1)
        torch.testing.assert_close(ratio, gamma[clipped].sqrt().unsqueeze(1).expand_as(ratio))


def test_a_key_that_heads_share_is_left_alone_and_the_query_takes_it_all():
    parts = attention()
    key = parts["wk"].clone()
    largest = logits_of(parts).amax((0, 2, 3))
    gamma = qk_clip_([parts["wq"], parts["bq"]], None, largest, 10.0)
    assert (gamma < 1).any() and torch.equal(parts["wk"], key)
    torch.testing.assert_close(logits_of(parts).amax((0, 2, 3)), largest.clamp(max=10.0), rtol=1e-12, atol=0)


def test_largest_logits_are_those_that_attention_sees():
    query, key = draw(2, 3, 5, 4, seed=1), draw(2, 3, 5, 4, seed=2)
    for causal in (True, False):
        expected = [
            max(float(query[b, h, i] @ key[b, h, j]) / 2.0
                for b in range(2) for i in range(5) for j in range(5) if j <= i or not causal)
            for h in range(3)
        ]  # fmt: skip
        np.testing.assert_allclose(max_attention_logits(query, key, causal=causal), expected, rtol=1e-12)
    assert not torch.equal(max_attention_logits(query, key), max_attention_logits(query, key, causal=False))


def test_the_clip_works_through_views_of_a_models_joint_weight():
    """As in the course's language model, where queries, keys and values come out of one matrix."""
    model = ByteLM(LMConfig(layers=1, width=16, heads=4, context=8))
    block = model.blocks[0]
    with torch.no_grad():
        block.attention_in.weight.mul_(50.0)
    weight, bias = block.attention_in.weight, block.attention_in.bias
    values = weight[32:].clone()
    x = block.attention_norm(draw(2, 8, 16, dtype=torch.float32))

    def measure() -> torch.Tensor:
        query, key, _ = block.attention_in(x).view(2, 8, 3, 4, 4).permute(2, 0, 3, 1, 4)
        return max_attention_logits(query, key)

    assert (measure() > 2.0).all()
    qk_clip_([weight[:16], bias[:16]], [weight[16:32], bias[16:32]], measure(), tau=2.0)
    torch.testing.assert_close(measure(), torch.full((4,), 2.0), rtol=1e-5, atol=0)
    assert torch.equal(weight[32:], values) and weight.requires_grad and weight.grad_fn is None


def test_logits_below_tau_or_below_zero_change_nothing():
    query, key = draw(4, 3), draw(4, 3)
    kept = query.clone(), key.clone()
    assert (qk_clip_(query, key, [99.9, -500.0]) == 1).all()
    assert torch.equal(query, kept[0]) and torch.equal(key, kept[1])


@pytest.mark.parametrize(("arguments", "message"), [
    (([math.nan, 1.0],), "Invalid max_logits.*one finite number for each head.*checkpoint"),
    (([math.inf, 1.0],), "Invalid max_logits"),
    (([[1.0, 1.0]],), "Invalid max_logits"),
    (([],), "Invalid max_logits"),
    (([1.0, 2.0, 3.0],), r"Invalid query: shape \(4, 3\) with 3 heads.*divisible by 3"),
    (([1.0, 2.0], 0.0), "Invalid tau"),
    (([1.0, 2.0], math.nan), "Invalid tau"),
])  # fmt: skip
def test_what_cannot_be_clipped_is_said_and_nothing_is_scaled(arguments, message):
    query, key = draw(4, 3), draw(4, 3)
    kept = query.clone()
    with pytest.raises(ValueError, match=message):
        qk_clip_(query, key, *arguments)
    assert torch.equal(query, kept)
    with pytest.raises(ValueError, match="Invalid key"):
        qk_clip_(query, draw(3, 3), [500.0, 500.0])
    assert torch.equal(query, kept)
