"""Adafactor, CAME and Adam-mini against torch, pytorch_optimizer, and their papers written out in NumPy."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as draw
from optim_cases import Closeness, give_gradients, layouts, run, twins
from torch import Tensor

from course_lib.optim import CAME, REGISTRY, Adafactor, AdamMini, AdamW, factored_moment

STEPS = 60
MATRICES = {"row": (1, 7), "column": (7, 1), "stack of matrices": (2, 3, 4), "four dimensions": (2, 2, 3, 2)}


def leaves(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Parameters of every layout and some more matrices; those without elements are left out, as torch refuses them."""
    rng = np.random.default_rng(1)
    more = [torch.as_tensor(rng.normal(size=shape)).to(dtype).requires_grad_() for shape in MATRICES.values()]
    zeros = [torch.zeros(3, 4, dtype=dtype, requires_grad=True), torch.zeros(5, dtype=dtype, requires_grad=True)]
    return [*(param for param in layouts(dtype).values() if param.numel()), *more, *zeros]


def compare(
    key: str, hyper: dict, dtype: torch.dtype, factor: float = 8.0, missing: float = 0.1, scale: float = 1.0
) -> None:
    """Run the course's and the production one over 60 steps, with gradients missing and the rate halved on the way."""
    (mine, ours), (theirs, production) = twins(REGISTRY[key], hyper, lambda: leaves(dtype))
    closeness, rng = Closeness(mine, factor), np.random.default_rng(7)
    for number in range(STEPS):
        give_gradients(rng, mine, theirs, missing=missing)
        for param in (*mine, *theirs):
            if param.grad is not None:
                param.grad.mul_(scale)
        if number == 20:
            for group in (*ours.param_groups, *production.param_groups):
                group["lr"] /= 2
        ours.step()
        production.step()
        closeness.check(mine, theirs)


def gradients(shape: tuple[int, ...], seed: int = 3, steps: int = STEPS) -> list[np.ndarray]:
    """Of changing size, with zeros among them."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) * 10.0 ** rng.integers(-2, 3) * (rng.random(shape) > 0.1) for _ in range(steps)]


def start(shape: tuple[int, ...], seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def ran(make, shape: tuple[int, ...], **hyper) -> np.ndarray:
    """The path of the course's optimizer from ``start`` along ``gradients``, in float64."""
    param = torch.as_tensor(start(shape)).requires_grad_()
    return np.array(run(make([param], **hyper), param, gradients(shape)))


def size(x: np.ndarray) -> float:
    return math.sqrt((x**2).mean())


# --- The factored moment --------------------------------------------------------------------------

positive = draw.arrays(np.float64, draw.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=st.floats(1e-6, 1e3))


def divergence(v: np.ndarray, estimate: np.ndarray) -> float:
    return float((v * np.log(v / estimate) - v + estimate).sum())


@settings(max_examples=100, deadline=None)
@given(v=positive, seed=st.integers(0, 100))
def test_the_factored_moment_keeps_all_means_and_no_other_rank_one_matrix_is_nearer(v, seed):
    row, column = v.mean(axis=-1, keepdims=True), v.mean(axis=-2, keepdims=True)
    estimate = factored_moment(torch.as_tensor(row), torch.as_tensor(column)).numpy()
    assert estimate.shape == v.shape
    np.testing.assert_allclose(estimate.mean(axis=-1, keepdims=True), row, rtol=1e-12)
    np.testing.assert_allclose(estimate.mean(axis=-2, keepdims=True), column, rtol=1e-12)
    rng = np.random.default_rng(seed)
    other = estimate * np.exp(0.1 * rng.normal(size=row.shape)) * np.exp(0.1 * rng.normal(size=column.shape))
    assert divergence(v, estimate) <= divergence(v, other) + 1e-12 * v.sum()


def test_the_factored_moment_is_exact_for_rank_one_and_zero_for_zeros():
    r, c = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([3.0, 0.0])
    v = torch.outer(r, c)
    assert torch.allclose(factored_moment(v.mean(1, keepdim=True), v.mean(0, keepdim=True)), v, rtol=1e-6, atol=0)
    assert factored_moment(torch.zeros(3, 1), torch.zeros(1, 2)).tolist() == [[0.0, 0.0]] * 3
    # Tiny in float32: the product of row and column is below the smallest number, the estimate is not.
    tiny = torch.full((2, 1), 1e-30)
    np.testing.assert_allclose(factored_moment(tiny, tiny.T), 1e-30, rtol=1e-6)
    # By hand: mean(R) = 0.5 counts as 2.
    assert factored_moment(torch.full((2, 1), 0.5), torch.full((1, 2), 0.5), eps=2.0).tolist() == [[0.125] * 2] * 2


# --- Adafactor ------------------------------------------------------------------------------------

ADAFACTOR = (
    {},
    {"lr": 0.3, "weight_decay": 0.1, "d": 2.0},
    {"lr": 1.0, "beta2_decay": -0.5, "eps": (1e-3, 0.1), "maximize": True},
    {"beta2_decay": 0.0, "eps": (1e-8, 0.0)},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hyper", ADAFACTOR, ids=str)
def test_adafactor_is_torchs(hyper, dtype):
    compare("adafactor", hyper, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_adafactor_is_torchs_in_16_bits_within_its_rounding(dtype):
    # torch rounds the norms of gradients to 16 bits before it squares them, the course rounds the squares. The squares of
    # gradients of 300 would be infinite in float16.
    compare("adafactor", {"lr": 0.05}, dtype, scale=0.1)


def numpy_adafactor(w, grads, lr=1e-2, beta2_decay=-0.8, eps1=2.0**-52, eps2=1e-3, d=1.0, weight_decay=0.0):
    """Algorithms 4 and 5 with sums, as the paper has them, and torch's eps1, lr and decay."""
    path, cells = [], w.size
    v, r, c = 0.0, 0.0, 0.0
    for t, g in enumerate(grads, 1):
        beta2 = 1 - t**beta2_decay
        alpha = max(eps2, size(w)) * min(lr, 1 / math.sqrt(t))
        if w.ndim == 2:
            r = beta2 * r + (1 - beta2) * (g**2) @ np.ones(w.shape[1])
            c = beta2 * c + (1 - beta2) * np.ones(w.shape[0]) @ (g**2)
            v = np.outer(r, c) / max(r.sum(), eps1 * cells)
        else:
            v = beta2 * v + (1 - beta2) * g**2
        u = g / np.maximum(np.sqrt(v), eps1)
        w = w - lr * weight_decay * w - alpha * u / max(1.0, size(u) / d)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("shape", [(5,), (), (4, 6), (1, 5)], ids=str)
@pytest.mark.parametrize("hyper", [{}, {"lr": 0.2, "weight_decay": 0.3, "d": 1.5, "beta2_decay": -0.6}], ids=str)
def test_adafactor_is_the_papers(shape, hyper):
    expected = numpy_adafactor(start(shape), gradients(shape), **hyper)
    np.testing.assert_allclose(ran(Adafactor, shape, **hyper), expected, rtol=1e-11, atol=1e-13)


def test_adafactors_matrices_of_a_stack_have_moments_of_their_own_and_one_clipping():
    param = torch.as_tensor(start((2, 3, 4))).requires_grad_()
    optimizer = Adafactor([param])
    grads = gradients((2, 3, 4))
    run(optimizer, param, grads)
    state = optimizer.state[param]
    assert (state["row_var"].shape, state["col_var"].shape) == ((2, 3, 1), (2, 1, 4))
    apart = torch.as_tensor(start((2, 3, 4))[1]).requires_grad_()
    alone = Adafactor([apart])
    run(alone, apart, [grad[1] for grad in grads])
    assert torch.equal(state["row_var"][1], alone.state[apart]["row_var"])
    assert not torch.allclose(param[1], apart), "the RMS is that of the stack"


def test_adafactors_first_step_by_hand():
    # R = [(9 + 16) / 2, 0] = [12.5, 0], C = [4.5, 8], mean(R) = 6.25: V's first row is [9, 16], U = [[1, -1], [0, 0]].
    # RMS(U) = sqrt(1/2) is not clipped; RMS(W) = 2, so alpha = 2 * 0.01.
    param = torch.full((2, 2), 2.0, dtype=torch.float64, requires_grad=True)
    path = run(Adafactor([param]), param, [np.array([[3.0, -4.0], [0.0, 0.0]])])
    np.testing.assert_allclose(path[0], [[1.98, 2.02], [2.0, 2.0]], rtol=1e-14)
    # d = 1 holds a vector's RMS at 1 where the moment lags: V = 1/2 + 9/2 at t = 2 with beta2_decay = -1, U = 3 / sqrt 5.
    param = torch.full((3,), 1.0, dtype=torch.float64, requires_grad=True)
    path = run(Adafactor([param], beta2_decay=-1.0), param, [np.full(3, 1.0), np.full(3, 3.0)])
    assert path[1][0] == pytest.approx(0.99 - 0.0099)


def test_adafactor_moves_zeros_by_eps2_and_takes_a_zero_gradient():
    for shape in ((3, 4), (5,), ()):
        param = torch.zeros(shape, requires_grad=True)
        optimizer = Adafactor([param])
        param.grad = torch.zeros(shape)
        optimizer.step()
        assert torch.equal(param, torch.zeros(shape))
        assert all(torch.equal(value, torch.zeros_like(value)) for name, value in optimizer.state[param].items()
                   if name != "step")
        param.grad = torch.ones(shape)
        optimizer.step()
        assert torch.allclose(param, torch.full(shape, -1e-3 * 1e-2), rtol=1e-5)


def test_adafactor_below_eps1_steps_as_far_as_d_allows_and_far_below_fades():
    """Of a matrix in float32 whose gradient falls to a tenth after one step: its second step, in units of rho RMS(W)."""
    moved = {}
    for scale in (1.0, 1e-5, 1e-8):
        param = torch.ones(4, 5, requires_grad=True)
        optimizer = Adafactor([param])
        for factor in (1.0, 0.1):
            before = param.detach().clone()
            param.grad = torch.full((4, 5), scale * factor)
            optimizer.step()
        moved[scale] = (before - param.detach()).mean().item() / (0.01 * before.mean().item())
    beta2, eps1 = 1 - 2**-0.8, 2.0**-23
    assert moved == pytest.approx({
        1.0: 0.1 / math.sqrt(beta2 + (1 - beta2) * 0.01),  # g / sqrt(V)
        1e-5: 1.0,  # mean(R) is below eps1, so that V comes out too small: clipped to d
        1e-8: 1e-9 / eps1,
    }, rel=1e-3)  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 4), (5,)], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_adafactor_spreads_nan_and_infinity_as_torch_does(shape, bad):
    params = [torch.as_tensor(start(shape)).requires_grad_() for _ in range(2)]
    optimizers = [Adafactor([params[0]]), torch.optim.Adafactor([params[1]])]
    for number in range(3):
        grad = torch.as_tensor(gradients(shape, steps=3)[number])
        grad.view(-1)[1] = bad if number == 1 else grad.view(-1)[1]
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(params[0], params[1], equal_nan=True)
    assert params[0].isnan().any()


def test_adafactor_goes_on_from_torchs_state_dict():
    params = [torch.as_tensor(start((4, 5))).requires_grad_(), torch.as_tensor(start((6,))).requires_grad_()]
    twins_ = [param.detach().clone().requires_grad_() for param in params]
    theirs = torch.optim.Adafactor(twins_)
    rng = np.random.default_rng(0)
    give_gradients(rng, params, twins_)
    theirs.step()
    ours = Adafactor(params)
    ours.load_state_dict(theirs.state_dict())
    for param, twin in zip(params, twins_, strict=True):
        param.data.copy_(twin)
    theirs.load_state_dict({**theirs.state_dict(), "state": {
        index: {name: value.clone() for name, value in state.items()}
        for index, state in theirs.state_dict()["state"].items()
    }})
    closeness = Closeness(params)
    for _ in range(10):
        give_gradients(rng, params, twins_)
        ours.step()
        theirs.step()
        closeness.check(params, twins_)


# --- CAME -----------------------------------------------------------------------------------------

CAME_HYPERS = (
    {"lr": 0.01},
    {"lr": 0.1, "betas": (0.5, 0.9, 0.95), "weight_decay": 0.3, "clip_threshold": 2.0},
    {"lr": 0.01, "betas": (0.0, 0.0, 0.0), "eps": (1e-3, 1e-2)},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hyper", CAME_HYPERS, ids=str)
def test_came_is_pytorch_optimizers(hyper, dtype):
    pytest.importorskip("pytorch_optimizer")
    compare("came", hyper, dtype)


def numpy_came(w, grads, lr=2e-4, betas=(0.9, 0.999, 0.9999), eps=(1e-30, 1e-16), clip_threshold=1.0, weight_decay=0.0):
    """Algorithm 2 with sums over rows and columns, as the paper has them; vectors as the authors' package has them."""
    path, (beta1, beta2, beta3) = [], betas
    r, c, v, m, big_r, big_c = 0.0, 0.0, 0.0, np.zeros_like(w), 0.0, 0.0
    for g in grads:
        square = g**2 + eps[0]
        if w.ndim == 2:
            r = beta2 * r + (1 - beta2) * square.sum(axis=1)
            c = beta2 * c + (1 - beta2) * square.sum(axis=0)
            u = g / np.sqrt(np.outer(r, c) / r.sum())
        else:
            v = beta2 * v + (1 - beta2) * square
            u = g / np.sqrt(v)
        u = u / max(1.0, size(u) / clip_threshold)
        m = beta1 * m + (1 - beta1) * u
        trust = 1.0
        if w.ndim == 2:
            instability = (u - m) ** 2 + eps[1]
            big_r = beta3 * big_r + (1 - beta3) * instability.sum(axis=1)
            big_c = beta3 * big_c + (1 - beta3) * instability.sum(axis=0)
            trust = 1 / np.sqrt(np.outer(big_r, big_c) / big_r.sum())
        w = w - lr * weight_decay * w - lr * trust * m
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("shape", [(5,), (), (4, 6), (1, 5)], ids=str)
@pytest.mark.parametrize("hyper", CAME_HYPERS[:2], ids=str)
def test_came_is_the_papers(shape, hyper):
    np.testing.assert_allclose(
        ran(CAME, shape, **hyper), numpy_came(start(shape), gradients(shape), **hyper), rtol=1e-10, atol=1e-12
    )


def test_cames_first_step_is_eleven_rates_for_a_matrix_and_a_tenth_for_a_vector():
    signs = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    for shape, factor in (((2, 3), 0.1 / (0.9 * 0.01)), ((6,), 0.1)):
        param = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        grad = 7.0 * signs.reshape(shape)
        path = run(CAME([param], lr=0.01), param, [grad])
        np.testing.assert_allclose(path[0], -0.01 * factor * np.sign(grad), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_came_takes_gradients_and_rows_of_zeros(dtype):
    for shape in ((3, 4), (5,), ()):
        param = torch.ones(shape, dtype=dtype, requires_grad=True)
        optimizer = CAME([param], lr=0.01)
        param.grad = torch.zeros_like(param)
        optimizer.step()
        assert torch.equal(param, torch.ones_like(param))
    param = torch.ones(3, 4, dtype=dtype, requires_grad=True)
    optimizer = CAME([param], lr=0.01)
    param.grad = torch.ones_like(param)
    param.grad[1] = 0.0
    for _ in range(5):
        optimizer.step()
    assert torch.equal(param[1], torch.ones(4, dtype=dtype))
    assert param.isfinite().all() and (param[0] < 1).all()


# --- Adam-mini ------------------------------------------------------------------------------------


def numpy_adam_mini(w, grads, cells, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    """The paper's rule, block by block; ``cells`` are the flat indices of each."""
    path, (beta1, beta2) = [], betas
    m, v = np.zeros(w.size), np.zeros(len(cells))
    for t, g in enumerate(grads, 1):
        w, g = w.ravel() * (1 - lr * weight_decay), g.ravel()
        for b, inside in enumerate(cells):
            m[inside] = beta1 * m[inside] + (1 - beta1) * g[inside]
            v[b] = beta2 * v[b] + (1 - beta2) * np.mean(g[inside] * g[inside])
            w[inside] -= lr * m[inside] / (1 - beta1**t) / (math.sqrt(v[b] / (1 - beta2**t)) + eps)
        w = w.reshape(g.shape)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize(("shape", "blocks", "cells"), [
    ((2, 3), None, [[0, 1, 2], [3, 4, 5]]),
    ((4, 2), 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ((4, 2), 1, [list(range(8))]),
    ((2, 2, 2), None, [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ((2, 2, 2), 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ((4,), None, [[0, 1, 2, 3]]),
    ((4,), 2, [[0, 1], [2, 3]]),
    ((), None, [[0]]),
])  # fmt: skip
def test_adam_mini_is_the_papers(shape, blocks, cells):
    for hyper in ({"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5}):
        expected = numpy_adam_mini(start(shape), gradients(shape), cells, **hyper).reshape(-1, *shape)
        np.testing.assert_allclose(ran(AdamMini, shape, blocks=blocks, **hyper), expected, rtol=1e-11, atol=1e-13)


def test_adam_mini_with_a_block_for_each_element_is_adamw():
    hyper = {"lr": 0.05, "weight_decay": 0.1}
    np.testing.assert_allclose(ran(AdamMini, (6,), blocks=6, **hyper), ran(AdamW, (6,), **hyper), rtol=1e-12)
    np.testing.assert_allclose(ran(AdamMini, (6, 1), **hyper), ran(AdamW, (6, 1), **hyper), rtol=1e-12)


@pytest.mark.parametrize("hyper", [{"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5}], ids=str)
def test_adam_mini_is_pytorch_optimizers_given_the_same_blocks(hyper):
    pytest.importorskip("pytorch_optimizer")

    def build(make):
        mine = [torch.as_tensor(start(shape)).float().requires_grad_() for shape in ((4, 6), (4, 6), (5,), (6, 3))]
        groups = [{"params": mine[:1], "blocks": 2}, {"params": mine[1:3], "lr": 0.02}, {"params": mine[3], "blocks": 1}]
        return mine, make(groups, **hyper)

    (mine, ours), (theirs, production) = build(AdamMini), build(REGISTRY["adam_mini"].production)
    closeness, rng = Closeness(mine), np.random.default_rng(2)
    for number in range(STEPS):
        give_gradients(rng, mine, theirs)
        if number == 20:
            for group in (*ours.param_groups, *production.param_groups):
                group["lr"] /= 2
        ours.step()
        production.step()
        closeness.check(mine, theirs)


def test_adam_mini_refuses_blocks_that_do_not_fit_and_keeps_no_trace_of_the_group():
    square, vector = torch.ones(6, 4, requires_grad=True), torch.ones(5, requires_grad=True)
    optimizer = AdamMini([vector])
    with pytest.raises(ValueError, match=r"Invalid blocks: 4 for a tensor of shape \(6, 4\)\. Allowed: a divisor .* 6"):
        optimizer.add_param_group({"params": [square], "blocks": 4})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [square], "blocks": 3})
    with pytest.raises(ValueError, match=r"shape \(\)"):
        AdamMini([torch.tensor(1.0, requires_grad=True)], blocks=2)
    with pytest.raises(ValueError, match="matrices, or one block"):
        REGISTRY["adam_mini"].production([torch.ones(2, 3, 4, requires_grad=True)])


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "hyper", "error", "says"), [
    (Adafactor, {"lr": -1e-3}, ValueError, "Invalid lr"),
    (Adafactor, {"lr": math.nan}, ValueError, "Invalid lr"),
    (Adafactor, {"beta2_decay": 0.8}, ValueError, "beta2_decay <= 0"),
    (Adafactor, {"beta2_decay": None}, TypeError, "Invalid beta2_decay"),
    (Adafactor, {"d": 0.5}, ValueError, "Invalid d"),
    (Adafactor, {"eps": 1e-8}, ValueError, "a pair"),
    (Adafactor, {"eps": (1e-8, -1.0)}, ValueError, r"Invalid eps\[1\]"),
    (Adafactor, {"eps": (1e-8, None)}, TypeError, r"Invalid eps\[1\]"),
    (CAME, {"betas": (0.9, 0.999)}, ValueError, "a tuple of 3"),
    (CAME, {"betas": (0.9, 0.999, 1.0)}, ValueError, r"betas\[2\]"),
    (CAME, {"eps": (1e-30,)}, ValueError, "a pair"),
    (CAME, {"clip_threshold": 0.0}, ValueError, "clip_threshold > 0"),
    (CAME, {"weight_decay": math.inf}, ValueError, "Invalid weight_decay"),
    (AdamMini, {"blocks": 0}, ValueError, "Invalid blocks"),
    (AdamMini, {"blocks": True}, TypeError, "Invalid blocks"),
    (AdamMini, {"blocks": 2.0}, TypeError, "Invalid blocks"),
    (AdamMini, {"eps": -1.0}, ValueError, "Invalid eps"),
])  # fmt: skip
def test_what_is_out_of_range_is_refused_in_the_constructor_and_in_a_group(make, hyper, error, says):
    with pytest.raises(error, match=says):
        make([torch.ones(2, requires_grad=True)], **hyper)
    with pytest.raises(error, match=says):
        make([{"params": [torch.ones(2, requires_grad=True)], **hyper}])
