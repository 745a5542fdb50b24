"""8-bit AdamW against AdamW, bitsandbytes on the CPU, and the errors that its map allows."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
import torch
from optim_cases import Closeness
from torch import Tensor

from course_lib.optim import REGISTRY, AdamW, AdamW8bit
from course_lib.precision import dequantise, dynamic_map

SIZES = [(4096,), (4097,), (64, 65), (3, 1700), (5000,)]
MOMENTS = (("1", "exp_avg", True), ("2", "exp_avg_sq", False))

# What storing a number may change, in units of the largest of its block: half of the widest gap of the map, and
# for m from -1 to the map's least value, -0.993.
ERROR = {"exp_avg": 0.9 / 128, "exp_avg_sq": 0.9 / 256}
# bitsandbytes' CPU kernel (0.50) rounds a number to a grid before it looks up its code: that much farther off.
GRID = 2.0**-15


@pytest.fixture(scope="module")
def bitsandbytes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("bitsandbytes")


def weights(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape)).to(dtype).requires_grad_()


def gradient(number: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal, of a size that changes from step to step."""
    rng = np.random.default_rng(100 + number)
    return torch.as_tensor(rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2)).to(dtype)


def stored(state: dict, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Both moments as they come back, by AdamW's names."""
    return {name: dequantise(state[f"state{at}"], state[f"absmax{at}"], signed=signed, shape=shape)
            for at, name, signed in MOMENTS}


def scales(state: dict, at: str, block: int = 256) -> Tensor:
    """The largest size of its block, for each element."""
    codes = state[f"state{at}"]
    return state[f"absmax{at}"].repeat_interleave(block)[: codes.numel()].reshape(codes.shape)


# --- Against AdamW --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("hyper", [{"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5}], ids=str)
def test_a_step_is_adamws_from_the_stored_moments_and_only_storing_them_loses(shape, hyper):
    param, twin = weights(shape), weights(shape)
    optimizer, exact = AdamW8bit([param], **hyper), AdamW([twin], **hyper)
    closeness = Closeness([param])
    for number in range(50):
        if number:
            exact.state[twin].update(stored(optimizer.state[param], shape))
            twin.data.copy_(param)
        param.grad = twin.grad = gradient(number, shape)
        optimizer.step()
        exact.step()
        closeness.check([param], [twin])
        state = optimizer.state[param]
        assert {name: state[name].dtype for name in state if name != "step"} == {
            "state1": torch.uint8, "absmax1": torch.float32, "state2": torch.uint8, "absmax2": torch.float32
        }
        back = stored(state, shape)
        for at, name, _ in MOMENTS:
            off = (back[name] - exact.state[twin][name]).abs() / scales(state, at)
            assert off.max() <= ERROR[name] * 1.001


def test_weights_stay_within_a_few_percent_of_adamws_where_gradients_are_of_one_size():
    param, twin, before = weights((5000,)), weights((5000,)), weights((5000,)).detach()
    optimizer, exact = AdamW8bit([param], lr=0.01), AdamW([twin], lr=0.01)
    for number in range(60):
        param.grad = twin.grad = gradient(number, (5000,))
        optimizer.step()
        exact.step()
    off = (param - twin).norm() / (twin - before).norm()
    assert 0.002 < off < 0.05  # 0.02


def test_an_element_whose_v_rounds_to_zero_takes_steps_that_grow_to_32_rates():
    """One gradient of each 256 is 1, the others 3e-4: v is 9e-8 of the largest and forgotten after every step."""
    small, steps, lr = 3e-4, 200, 1e-3
    param = torch.zeros(4096, requires_grad=True)
    optimizer = AdamW8bit([param], lr=lr, weight_decay=0.0, eps=0.0)
    for number in range(1, steps + 1):
        before = param.detach().clone()
        param.grad = torch.full((4096,), small)
        param.grad[::256] = 1.0
        optimizer.step()
        step = (before - param.detach()) / lr
        # v is (1 - beta2) g^2, the newest alone, in the place of (1 - beta2^t) g^2; m, 3e-4 of the largest, is rough.
        assert step[1] == pytest.approx(math.sqrt((1 - 0.999**number) / 0.001), rel=0.25)
        assert step[0] == pytest.approx(1.0, rel=1e-4)
    assert step[1] > 10
    # In blocks of its own kind it keeps to AdamW's one rate.
    param = torch.zeros(4096, requires_grad=True)
    optimizer = AdamW8bit([param], lr=lr, weight_decay=0.0, eps=0.0)
    for _ in range(steps):
        param.grad = torch.full((4096,), small)
        param.grad[:256] = 1.0
        optimizer.step()
    assert torch.allclose(param, torch.full((4096,), -lr * steps), rtol=1e-4)


def test_constant_and_zero_gradients_are_stored_exactly():
    param, twin = torch.ones(4500, requires_grad=True), torch.ones(4500, requires_grad=True)
    optimizer, exact = AdamW8bit([param], lr=0.01), AdamW([twin], lr=0.01)
    for value in (0.0, 0.5, 0.5, 0.0, 2.0):
        param.grad, twin.grad = torch.full_like(param, value), torch.full_like(param, value)
        optimizer.step()
        exact.step()
        for name, moment in stored(optimizer.state[param], (4500,)).items():
            assert torch.allclose(moment, exact.state[twin][name], rtol=1e-6, atol=0)
        assert torch.allclose(param, twin, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_tensors_below_the_least_size_are_adamws_with_float32_state(dtype):
    param, twin = weights((4095,), dtype), weights((4095,), torch.float32)
    twin.data.copy_(param)
    optimizer, exact = AdamW8bit([param], lr=0.01), AdamW([twin], lr=0.01)
    for number in range(50):
        grad = gradient(number, (4095,), dtype)
        param.grad, twin.grad = grad, grad.float()
        twin.data.copy_(param)
        optimizer.step()
        exact.step()
        # Computed in float32, then rounded once.
        torch.testing.assert_close(param, twin.detach().to(dtype), rtol=torch.finfo(dtype).eps + 1e-6, atol=1e-7)
    assert set(optimizer.state[param]) == {"step", "state1", "state2"}
    for at, name, _ in MOMENTS:
        assert optimizer.state[param][f"state{at}"].dtype == torch.float32
        torch.testing.assert_close(optimizer.state[param][f"state{at}"], exact.state[twin][name], rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize(("size", "hyper", "expected"), [
    (300, {"min_size": 300, "block": 100}, (torch.uint8, 3)),
    (301, {"min_size": 0, "block": 100}, (torch.uint8, 4)),
    (299, {"min_size": 300}, (torch.float32, 0)),
    (1, {"min_size": 0}, (torch.uint8, 1)),
])  # fmt: skip
def test_block_and_least_size_are_the_groups_own(size, hyper, expected):
    param = torch.ones(size, requires_grad=True)
    optimizer = AdamW8bit([{"params": [param], **hyper}])
    param.grad = torch.linspace(-1, 1, size) if size > 1 else torch.ones(1)
    optimizer.step()
    state = optimizer.state[param]
    assert (state["state1"].dtype, state.get("absmax1", torch.empty(0)).numel()) == expected


def test_nan_spoils_its_block_and_no_other():
    param = torch.zeros(5000, requires_grad=True)
    optimizer = AdamW8bit([param], lr=0.1)
    for number in range(3):
        param.grad = torch.ones(5000)
        param.grad[300] = math.nan if number == 0 else 1.0
        optimizer.step()
    bad = param.isnan()
    assert bad[256:512].all() and not bad[:256].any() and not bad[512:].any()


# --- A checkpoint ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_keeps_codes_and_scales_and_the_run_goes_on_bit_for_bit(dtype):
    shapes = [(4500,), (30,)]
    params = [weights(shape, dtype) for shape in shapes]
    optimizer = AdamW8bit(params, lr=0.01)

    def advance(optimizer, params, numbers):
        for number in numbers:
            for param in params:
                param.grad = gradient(number, tuple(param.shape), dtype)
            optimizer.step()

    advance(optimizer, params, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copies = [param.detach().clone().requires_grad_() for param in params]
    resumed = AdamW8bit(copies, lr=1.0)
    resumed.load_state_dict(torch.load(file))
    advance(optimizer, params, range(3, 8))
    advance(resumed, copies, range(3, 8))
    for param, copy in zip(params, copies, strict=True):
        assert torch.equal(param, copy)
        assert resumed.state[copy].keys() == optimizer.state[param].keys()
        for name, value in optimizer.state[param].items():
            other = resumed.state[copy][name]
            assert other == value if name == "step" else torch.equal(other, value) and other.dtype == value.dtype


def test_another_block_after_the_first_step_is_refused_with_the_reason():
    param = torch.ones(5000, requires_grad=True)
    optimizer = AdamW8bit([param])
    param.grad = torch.ones(5000)
    optimizer.step()
    optimizer.param_groups[0]["block"] = 128
    with pytest.raises(ValueError, match="was another block size used to quantise"):
        optimizer.step()


@pytest.mark.parametrize(("hyper", "error", "says"), [
    ({"block": 0}, ValueError, "Invalid block: 0. Allowed: a whole number, block >= 1"),
    ({"block": 256.0}, TypeError, "Invalid block"),
    ({"block": True}, TypeError, "Invalid block"),
    ({"min_size": -1}, ValueError, "Invalid min_size"),
    ({"min_size": None}, TypeError, "Invalid min_size"),
    ({"lr": -1.0}, ValueError, "Invalid lr"),
    ({"betas": (0.9, 1.0)}, ValueError, "betas"),
    ({"eps": math.nan}, ValueError, "Invalid eps"),
    ({"weight_decay": "0.1"}, TypeError, "Invalid weight_decay"),
])  # fmt: skip
def test_what_is_refused(hyper, error, says):
    with pytest.raises(error, match=says):
        AdamW8bit([torch.ones(2, requires_grad=True)], **hyper)


# --- Against bitsandbytes -------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_bitsandbytes_up_to_the_grid_of_its_cpu_kernel(bitsandbytes, signed):
    """Its map is ours; the value that it chooses is at most 2^-15 of the largest farther away than the nearest."""
    levels = dynamic_map(signed)
    table = bitsandbytes.functional.create_dynamic_map(signed=signed)
    assert torch.allclose(table, levels, rtol=0, atol=2.0**-23)
    rng = np.random.default_rng(0)
    x = torch.as_tensor(10.0 ** rng.uniform(-8, 0, size=51_200)).float()
    if signed:
        x *= torch.as_tensor(rng.choice([-1.0, 1.0], size=x.numel())).float()
    codes, absmax = torch.ops.bitsandbytes.quantize_blockwise(x, table, 256)
    shares = (x.reshape(-1, 256) / absmax.unsqueeze(1)).flatten()
    off = (levels[codes.int()] - shares).abs()
    nearest = (levels - shares.unsqueeze(1)).abs().amin(dim=1)
    assert (off <= nearest + GRID * 1.001).all()


@pytest.mark.parametrize(("shape", "dtype"), [
    *((shape, torch.float32) for shape in SIZES), ((5000,), torch.bfloat16), ((30,), torch.float32),
    ((4095,), torch.bfloat16),
], ids=str)  # fmt: skip
def test_each_step_is_bitsandbytes_from_equal_state(bitsandbytes, shape, dtype):
    """State is taken over before each step; then weights agree to rounding, scales too, and numbers up to its grid."""
    param, twin = weights(shape, dtype), weights(shape, dtype)
    ours, theirs = AdamW8bit([param], lr=0.01), REGISTRY["adamw8bit"].production([twin], lr=0.01)
    for number in range(50):
        if number:
            state = ours.state[param]
            for name in state.keys() - {"step"}:
                state[name].copy_(theirs.state[twin][name])
            param.data.copy_(twin)
        for leaf in (param, twin):
            leaf.grad = gradient(number, shape, dtype)
        ours.step()
        theirs.step()
        # Of the weight's bits the last may differ.
        torch.testing.assert_close(param, twin, rtol=1.01 * torch.finfo(dtype).eps, atol=1e-7)
        mine, other = ours.state[param], theirs.state[twin]
        assert mine["state1"].dtype == other["state1"].dtype and mine["step"] == other["step"]
        if "absmax1" not in mine:
            for at, _, _ in MOMENTS:
                torch.testing.assert_close(mine[f"state{at}"], other[f"state{at}"], rtol=1e-6, atol=1e-12)
            continue
        for at, _, signed in MOMENTS:
            torch.testing.assert_close(mine[f"absmax{at}"], other[f"absmax{at}"], rtol=1e-6, atol=0)
            levels = dynamic_map(signed)
            apart = (levels[mine[f"state{at}"].int()] - levels[other[f"state{at}"].int()]).abs()
            assert apart.max() <= 0.9 / (64 if signed else 128) + 1e-6  # neighbours at most, where the gap is widest
            assert (apart > GRID).float().mean() < 0.02


def test_running_apart_from_bitsandbytes_weights_part_by_less_than_either_from_adamw(bitsandbytes):
    params = [weights((5000,)) for _ in range(3)]
    before = params[0].detach().clone()
    entry = REGISTRY["adamw8bit"]
    optimizers = [make([param], lr=0.01) for make, param in zip((entry.make, entry.production, AdamW), params, strict=True)]
    for number in range(60):
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = gradient(number, (5000,))
            optimizer.step()
    ours, theirs, exact = params
    moved = (exact - before).norm()
    assert (ours - theirs).norm() / moved < 0.01  # 0.004
    assert 0.01 < (theirs - exact).norm() / moved < 0.05  # 0.02


def test_bitsandbytes_cpu_kernel_moves_weights_whose_gradients_are_zero(bitsandbytes):
    """Its grid has no zero: a zero in m comes back as 2e-5 of the block's largest. Ours is exact."""
    moved = {}
    for name in ("make", "production"):
        param = torch.ones(4096, requires_grad=True)
        optimizer = getattr(REGISTRY["adamw8bit"], name)([param], lr=0.01, weight_decay=0.0)
        for _ in range(20):
            param.grad = torch.zeros(4096)
            param.grad[::256] = 1.0
            optimizer.step()
        moved[name] = (1.0 - param.detach()).abs()[1::256].max().item()
    assert moved["make"] == 0.0 and moved["production"] > 1e-4


def test_a_block_that_bitsandbytes_has_not_is_refused():
    with pytest.raises(ValueError, match="Allowed: 256"):
        REGISTRY["adamw8bit"].production([torch.ones(2, requires_grad=True)], block=2048)
