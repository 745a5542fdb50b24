"""The Triton optimizers: against torch.optim through Triton's interpreter, and compiled for GPUs that are elsewhere.

Where there is a CUDA device the same cases run on it too (and on the CPU only with TRITON_INTERPRET=1).
"""

import copy
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.optim import SGD, AdamW, Lion

triton = pytest.importorskip("triton")

from course_lib.kernels import triton_walk  # noqa: E402
from course_lib.kernels.triton_adamw import TritonAdamW  # noqa: E402
from course_lib.kernels.triton_lion import TritonLion  # noqa: E402
from course_lib.kernels.triton_sgd import TritonSGD  # noqa: E402

tl = triton_walk.tl
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
version = tuple(int(part) for part in triton.__version__.split(".")[:2])
LEAKS = "" if version >= (3, 6) else "before 3.6 Triton's interpreter leaves triton.language changed"
puts_back = pytest.mark.skipif(bool(LEAKS), reason=LEAKS)
ADAMW = dict(lr=1e-2, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
HEAVY = dict(lr=1e-2, momentum=0.9, dampening=0.3, weight_decay=0.1)
# Name -> ours, the reference, its arguments. torch has no Lion; the course's is held to lion_pytorch's elsewhere.
CASES = {
    "adamw": (TritonAdamW, torch.optim.AdamW, ADAMW),
    "lion": (TritonLion, Lion, dict(lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)),
    "sgd": (TritonSGD, torch.optim.SGD, dict(lr=1e-2, weight_decay=0.1)),
    "momentum": (TritonSGD, torch.optim.SGD, HEAVY),
    "nesterov": (TritonSGD, torch.optim.SGD, dict(lr=1e-2, momentum=0.9, nesterov=True)),
}
# A block is 64 elements in the interpreter here and 1024 on a GPU: ends before, on and after the end of a block.
SHAPES = [(), (1,), (0,), (3, 0), (63,), (64,), (5, 13), (1024,), (1025,), (2, 3, 37)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(triton_walk, "INTERPRETED_BLOCK", 64)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request):
    reason = triton_walk.unavailable(request.param)
    if reason is not None:
        pytest.skip(reason)
    return torch.device(request.param)


def draw(seed, shape, device="cpu", dtype=torch.float32):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(np.asarray(values)).to(device, dtype)


def parameters(shapes, device, dtype=torch.float32):
    return [nn.Parameter(draw(seed, shape, device, dtype)) for seed, shape in enumerate(shapes)]


def twins(shapes, device):
    ours = parameters(shapes, device)
    return ours, [nn.Parameter(param.detach().clone()) for param in ours]


def feed(turn, *lists, missing=()):
    """The same new gradients for each list of parameters, none where the index is in ``missing``."""
    for params in lists:
        for index, param in enumerate(params):
            param.grad = None if index in missing else draw((turn, index), param.shape, param.device, param.dtype)


def assert_same(ours, theirs, tolerance=1e-6):
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_the_reference(case, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins(SHAPES, device)
    mine, other = make(ours, **hyper), reference(theirs, **hyper)
    for turn in range(4):
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    assert_same(ours, theirs)
    for param, twin in zip(ours, theirs, strict=True):
        for name, value in mine.state[param].items():
            if name != "step":
                torch.testing.assert_close(value, other.state[twin][name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_groups_missing_gradients_and_a_schedule(case, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(70,), (3, 5), (9,), (2,)], device)
    schedules = []
    for optimizer_class, params in [(make, ours), (reference, theirs)]:
        groups = [dict(params=params[:2]), dict(params=params[2:], lr=0.1, maximize=True)]
        optimizer = optimizer_class(groups, **hyper)
        schedules.append((optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)))
    # Counts of steps come to differ within a group, and one parameter has its first step last.
    for turn, missing in enumerate([(1, 3), (0, 3), (3,), (1, 3), ()]):
        feed(turn, ours, theirs, missing=missing)
        for optimizer, schedule in schedules:
            optimizer.step()
            schedule.step()
    assert_same(ours, theirs)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 200) | st.sampled_from([1, 63, 64, 65, 127, 128, 129]), min_size=1, max_size=5),
    case=st.sampled_from(sorted(CASES)),
    odd=st.integers(0, 3),
)
def test_any_list_of_sizes(sizes, case, odd, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(size,) for size in sizes], device)
    # Views into one buffer, that begin at any multiple of 4 bytes; what lies between them must stay as it is.
    buffer = torch.full((sum(sizes) + 8 * len(sizes) + odd,), 7.0, device=device)
    place, free = odd, torch.ones_like(buffer, dtype=torch.bool)
    for param in ours:
        view = buffer[place : place + param.numel()]
        free[place : place + param.numel()] = False
        param.data = view.copy_(param.detach())
        place += param.numel() + 1 + odd
    mine, other = make(ours, **hyper), reference(theirs, **hyper)
    for turn in range(2):
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    assert_same(ours, theirs)
    assert (buffer[free] == 7.0).all()


def bfloat16_distance(a, b):
    """How many bfloat16 numbers lie between two of one sign; bits of equal sign are ordered as the numbers are."""
    return (a.view(torch.int16).int() - b.view(torch.int16).int()).abs()


@pytest.mark.parametrize("grad_dtype", [torch.bfloat16, torch.float32])
def test_bfloat16_parameters_have_float32_moments(grad_dtype, device):
    beta1, beta2 = ADAMW["betas"]
    param = nn.Parameter(draw(0, (500,), device, torch.bfloat16))
    param.grad_dtype = grad_dtype
    optimizer = TritonAdamW([param], **ADAMW)
    m = v = np.zeros(500)
    for t in range(1, 5):
        param.grad = draw((1, t), (500,), device, grad_dtype)
        p, g = param.detach().double().cpu().numpy(), param.grad.double().cpu().numpy()
        optimizer.step()
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p * (1 - ADAMW["lr"] * ADAMW["weight_decay"])
        p -= ADAMW["lr"] * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + ADAMW["eps"])
        expected = torch.from_numpy(p).to(torch.bfloat16)
        apart = bfloat16_distance(param.detach().cpu(), expected)[param.detach().cpu().sign() == expected.sign()]
        assert apart.max() <= 1 and (apart == 0).float().mean() > 0.98
    for name, value in [("exp_avg", m), ("exp_avg_sq", v)]:
        state = optimizer.state[param][name]
        assert state.dtype == torch.float32
        np.testing.assert_allclose(state.cpu().numpy(), value, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_bfloat16_is_rounded_to_the_nearest_with_ties_to_even(device):
    # From 1 the steps are 2^-7: the first two lie halfway between, and the next round up across a power of two.
    start = [1.0, 1.0078125, 1.9921875, -1.9921875, 0.0, float("inf"), float("nan")]
    added = [0.00390625, 0.00390625, 0.0075, -0.0075, 3e-8, 1.0, 1.0]
    param = nn.Parameter(torch.tensor(start, dtype=torch.bfloat16, device=device))
    param.grad_dtype = torch.float32
    param.grad = torch.tensor(added, device=device)
    expected = (param.detach().float() + param.grad).bfloat16()
    TritonSGD([param], lr=1.0, maximize=True).step()
    torch.testing.assert_close(param.detach(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", ["lion", "sgd", "momentum"])
def test_bfloat16_parameters_of_the_others(case, device):
    make, reference, hyper = CASES[case]
    param = nn.Parameter(draw(0, (500,), device, torch.bfloat16))
    exact = nn.Parameter(param.detach().double())
    ours, theirs = make([param], **hyper), reference([exact], **hyper)
    for turn in range(3):
        exact.data.copy_(param.detach())
        feed(turn, [param])
        exact.grad = param.grad.double()
        ours.step()
        theirs.step()
        assert bfloat16_distance(param.detach(), exact.detach().to(torch.bfloat16)).max() <= 1
    assert all(value.dtype == torch.float32 for name, value in ours.state[param].items() if name != "step")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_checkpoint_goes_on_in_the_other(case, ours_first, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(70,), (), (3, 5)], device)
    mine, other = make(ours, **hyper), reference(theirs, **hyper)
    for turn in range(2):
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    if ours_first:
        other = reference(theirs, **hyper)
        other.load_state_dict(copy.deepcopy(mine.state_dict()))
    else:
        mine = make(ours, **hyper)
        mine.load_state_dict(other.state_dict())
    for turn in range(2, 4):
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    assert_same(ours, theirs)


def test_loading_keeps_float32_moments_of_bfloat16_parameters_and_owns_them(device):
    params = parameters([(70,), (5, 3)], device, torch.bfloat16)
    first = TritonAdamW(params)
    for turn in range(2):
        feed(turn, params)
        first.step()
    again = TritonAdamW([nn.Parameter(param.detach().clone()) for param in params])
    again.load_state_dict(first.state_dict())
    for mine, param in zip(again.param_groups[0]["params"], params, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            old, new = first.state[param][name], again.state[mine][name]
            assert new.dtype == torch.float32 and torch.equal(old, new)
            assert not torch.equal(old, old.bfloat16().float()), "nothing would be lost by rounding"
            assert old.data_ptr() != new.data_ptr()
    twin = copy.deepcopy(first)
    for optimizer in (first, again, twin):
        feed(9, optimizer.param_groups[0]["params"])
        optimizer.step()
    for a, b, c in zip(*(o.param_groups[0]["params"] for o in (first, again, twin)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_a_hook_may_replace_what_is_loaded_and_sees_the_result(device):
    params = parameters([(4,)], device, torch.bfloat16)
    optimizer = TritonAdamW(params)
    feed(0, params)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    other = copy.deepcopy(saved)
    other["state"][0]["exp_avg"] += 1 / 3
    seen = []
    optimizer.register_load_state_dict_pre_hook(lambda _, given: other)
    optimizer.register_load_state_dict_post_hook(lambda opt: seen.append(opt.state[params[0]]["exp_avg"].clone()))
    optimizer.load_state_dict(saved)
    assert torch.equal(seen[0], other["state"][0]["exp_avg"])


def test_loading_an_amsgrad_checkpoint_is_refused_before_anything_changes(device):
    params = parameters([(4,)], device)
    theirs = torch.optim.AdamW(params, lr=0.5, amsgrad=True)
    mine = TritonAdamW(params, lr=0.25)
    feed(0, params)
    theirs.step()
    with pytest.raises(ValueError, match="Invalid amsgrad: True. Allowed: False"):
        mine.load_state_dict(theirs.state_dict())
    assert mine.param_groups[0]["lr"] == 0.25 and not mine.state


def same(tensor):
    return tensor


# Name -> shapes of the buffers of a parameter and its gradient, and what each is of its buffer.
LAYOUTS = {
    "transposed": ((7, 11), (11, 7), torch.t, same),
    "both transposed": ((7, 11), (7, 11), torch.t, torch.t),
    "with gaps": ((9, 20), (4, 7), lambda buffer: buffer[1:8:2, 3:17:2], same),
    "expanded gradient": ((5, 13), (), same, lambda buffer: buffer.expand(5, 13)),
    "channels last": ((2, 4, 5, 3), (2, 3, 4, 5), lambda buffer: buffer.permute(0, 3, 1, 2), same),
    "unaligned": ((66,), (68,), lambda buffer: buffer[1:], lambda buffer: buffer[3:]),
}


@pytest.mark.parametrize("case", ["adamw", "momentum"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_any_layout_is_updated_in_place(case, name, device):
    make, reference, hyper = CASES[case]
    shape, grad_shape, view, grad_view = LAYOUTS[name]
    whole, whole_grad = draw(0, shape, device), draw(1, grad_shape, device)
    value, grad = view(whole), grad_view(whole_grad)
    before, address = whole.clone(), value.data_ptr()
    ours, theirs = nn.Parameter(value), nn.Parameter(value.clone())
    mine, other = make([ours], **hyper), reference([theirs], **hyper)
    for _ in range(3):
        ours.grad, theirs.grad = grad, grad.clone()
        mine.step()
        other.step()
        # Both change where they lie: a copy that the optimizer kept would not.
        whole_grad.mul_(-0.7)
        for param in (ours, theirs):
            param.data.mul_(0.9)
    assert_same([ours], [theirs])
    assert ours.data_ptr() == address
    touched = whole != before
    assert touched.sum() == ours.numel(), "an element beside the parameter was written, or one of it was not"


def test_state_in_another_layout_is_brought_to_the_parameters(device):
    ours, theirs = nn.Parameter(draw(0, (6, 9), device).t()), nn.Parameter(draw(0, (6, 9), device).t().contiguous())
    other = torch.optim.AdamW([theirs], **ADAMW)
    feed(0, [theirs])
    other.step()
    ours.data.copy_(theirs.detach())
    mine = TritonAdamW([ours], **ADAMW)
    feed(5, [ours])
    mine.step()
    ours.data.copy_(theirs.detach())
    for name in ("exp_avg", "exp_avg_sq"):
        mine.state[ours][name] = other.state[theirs][name].clone()
    for turn in range(1, 3):
        feed(turn, [ours], [theirs])
        mine.step()
        other.step()
    assert_same([ours], [theirs])


def test_a_parameter_that_changes_its_layout_where_it_lies(device):
    ours, theirs = twins([(8, 8)], device)
    mine, other = TritonSGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for turn in range(4):
        if turn == 2:
            for param in (ours[0], theirs[0]):
                param.grad = None
                param.data = param.data.t()
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    assert_same(ours, theirs)


@pytest.mark.filterwarnings("ignore:(invalid|overflow):RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_what_is_not_finite_spreads_as_in_the_reference(case, poison, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(70,)], device)
    mine, other = make(ours, **hyper), reference(theirs, **hyper)
    for turn in range(3):
        feed(turn, ours, theirs)
        for params in (ours, theirs):
            params[0].grad[5] = 0.0  # and never anything else: Lion's sign of it is 0
            if turn == 1:
                params[0].grad[3] = poison
        mine.step()
        other.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("maximize", [False, True])
def test_grad_factor_multiplies_every_gradient_and_leaves_it(case, maximize, device):
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(70,), (5,)], device)
    mine = make([dict(params=ours[:1]), dict(params=ours[1:])], **hyper, maximize=maximize)
    other = reference(theirs, **hyper, maximize=maximize)
    half = torch.tensor(0.5, device=device)
    for turn, factor in enumerate([0.25, half, half.double() * 4]):
        feed(turn, ours, theirs)
        kept = [param.grad.clone() for param in ours]
        for param in theirs:
            param.grad *= float(factor)
        mine.step(grad_factor=factor)
        other.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(ours, kept, strict=True))
    feed(7, ours, theirs)
    mine.step()  # the factor is that of one step
    other.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        ("0.5", TypeError, "'0.5' is a str. Allowed: a float"),
        (True, TypeError, "True is a bool"),
        (torch.ones(2), ValueError, "of no dimensions on cpu"),
        (torch.ones((), dtype=torch.int64), TypeError, "is a Tensor. Allowed: a float, or a floating-point tensor"),
        (torch.ones((), device="meta"), ValueError, "on meta. Allowed"),
        (10**400, ValueError, "Invalid grad_factor: a number too large for a float, .* Allowed: a float"),
    ],
)
def test_another_grad_factor_is_refused(factor, error, message, device):
    if device.type != "cpu":
        pytest.skip("the sentences name the CPU")
    params = parameters([(4,)], device)
    optimizer = TritonAdamW(params)
    feed(0, params)
    with pytest.raises(error, match=message):
        optimizer.step(grad_factor=factor)
    assert not optimizer.state


@pytest.mark.parametrize("make", [TritonAdamW, TritonLion, TritonSGD])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_are_refused_before_anything_changes(make, dtype, device):
    course = {TritonAdamW: AdamW, TritonLion: Lion, TritonSGD: SGD}[make].__name__
    sentence = f"Invalid parameter of {make.__name__}: {dtype}.*Allowed: torch.float32 or torch.bfloat16; .*{course}"
    with pytest.raises(TypeError, match=sentence):
        make(parameters([(4,)], device, dtype))
    params = parameters([(4,), (3,)], device)
    optimizer = make(params[:1])
    with pytest.raises(TypeError, match=sentence):
        optimizer.add_param_group(dict(params=parameters([(2,)], device, dtype)))
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group(dict(params=params[1:]))
    before = [param.detach().clone() for param in params]
    feed(0, params)
    params[1].grad_dtype = None
    params[1].grad = params[1].grad.to(dtype)
    with pytest.raises(TypeError, match=f"Invalid gradient of {make.__name__}: {dtype}"):
        optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))


def test_what_cannot_be_walked_is_refused_in_a_sentence(device):
    here, elsewhere = parameters([(4,)], device), [nn.Parameter(torch.ones(3, device="meta"))]
    with pytest.raises(ValueError, match="they are on .* and on meta. Allowed: one device"):
        TritonAdamW(here + elsewhere)
    with pytest.raises(RuntimeError, match="TritonAdamW: Triton runs on CUDA, or on the CPU.*; not on meta"):
        TritonAdamW(elsewhere)
    with pytest.raises(ValueError, match=r"share one place in memory \(strides \(0, 1\)\).*pass param.clone"):
        TritonAdamW([nn.Parameter(torch.ones(3, device=device).expand(2, 3))])
    with pytest.raises(ValueError, match="Invalid amsgrad: True. Allowed: False"):
        TritonAdamW(here, amsgrad=True)
    with pytest.raises(ValueError, match="Invalid lr: -1"):
        TritonLion(here, lr=-1)
    with pytest.raises(ValueError, match="empty parameter list"):
        TritonAdamW([])
    optimizer = TritonAdamW([dict(params=here), dict(params=(late := parameters([(3, 2)], device)))])
    feed(0, here)
    late[0].grad = torch.ones(3, 2, device=device).to_sparse()
    with pytest.raises(RuntimeError, match="TritonAdamW does not support sparse gradients"):
        optimizer.step()
    assert not optimizer.state
    late[0].grad = None
    optimizer.step()
    optimizer.state[here[0]]["exp_avg"] = torch.zeros(4, dtype=torch.float64, device=device)
    with pytest.raises(RuntimeError, match="Invalid state 'exp_avg': .*float64.*Allowed: torch.float32"):
        optimizer.step()


def test_an_empty_group_and_no_gradients_do_nothing(device):
    params = parameters([(4,)], device)
    optimizer = TritonAdamW([dict(params=[]), dict(params=params)])
    before = params[0].detach().clone()
    assert optimizer.step() is None
    assert optimizer.step(lambda: 5) == 5
    assert torch.equal(params[0], before) and not optimizer.state


def test_sgd_without_momentum_has_no_buffer_until_there_is_momentum(device):
    ours, theirs = twins([(70,)], device)
    mine, other = TritonSGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for turn in range(4):
        if turn == 2:
            assert set(mine.state[ours[0]]) == {"step"}
            for optimizer in (mine, other):
                optimizer.param_groups[0].update(momentum=0.9, dampening=0.5)
        feed(turn, ours, theirs)
        mine.step()
        other.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("shape", [(4, 4), (9, 9)])
@pytest.mark.parametrize("case", CASES)
def test_a_backward_pass_through_values_that_a_step_changed_is_an_error(case, shape, device):
    make, reference, hyper = CASES[case]
    for optimizer_class in (make, reference):
        param = nn.Parameter(draw(0, shape, device)[:4, :4])  # the second has gaps in memory, and is copied
        optimizer = optimizer_class([param], **hyper)
        for _ in range(2):  # with a table made anew, and with one that is kept
            first, second = param.square().sum(), param.square().sum()
            first.backward()
            optimizer.step()
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                second.backward()


def test_hooks_run_once_though_the_plain_class_was_used_before(device):
    plain = parameters([(2,)], device)
    AdamW(plain).step()
    params, calls = parameters([(2,)], device), []
    optimizer = TritonAdamW(params)
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    feed(0, params)
    optimizer.step()
    assert calls == ["after"]


class Recorder:
    """Stands before a launcher and notes what it is launched with."""

    def __init__(self, launcher):
        self.launcher, self.launches = launcher, []

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            self.launches.append((grid, args, kwargs))
            return self.launcher[grid](*args, **kwargs)

        return launch


@pytest.fixture
def recorder(monkeypatch):
    if triton_walk.unavailable("cpu") is not None:
        pytest.skip(triton_walk.unavailable("cpu"))
    recorder = Recorder(triton_walk.walk.interpreted)
    monkeypatch.setattr(triton_walk.walk, "interpreted", recorder)
    return recorder


def test_many_tensors_are_one_launch_and_their_table_is_kept(recorder):
    params = parameters([(3,)] * 20, "cpu")
    feed(0, params)
    optimizer = TritonAdamW(params)
    for _ in range(3):
        optimizer.step()
    assert len(recorder.launches) == 3
    tables = [args[0] for _, args, _ in recorder.launches]
    assert tables[0] is tables[1] is tables[2]
    # One parameter skips a step: from then on its bias corrections are its own, and so is its launch.
    params[7].grad = None
    optimizer.step()
    feed(1, params)
    del recorder.launches[:]
    optimizer.step()
    assert sorted(len(args[0]) for _, args, _ in recorder.launches) == [1, 19]


@pytest.mark.parametrize("what", ["gradient", "parameter", "state"])
def test_the_table_follows_a_tensor_that_moves(what, device):
    ours, theirs = twins([(70,), (5,)], device)
    mine, other = TritonAdamW(ours, **ADAMW), torch.optim.AdamW(theirs, **ADAMW)
    held = []
    for turn in range(4):
        feed(turn, ours, theirs)
        if turn:
            tensor = {"gradient": ours[0].grad, "parameter": ours[0], "state": mine.state[ours[0]]["exp_avg"]}[what]
            held.append(tensor.data)
            tensor.data = tensor.data.clone()
        mine.step()
        other.step()
    assert_same(ours, theirs)


def test_plans_are_few_however_often_gradients_move(device):
    params = parameters([(3,)], device)
    optimizer, held = TritonSGD(params), []
    for turn in range(triton_walk.PLANS_KEPT + 5):
        feed(turn, params)
        held.append(params[0].grad)
        optimizer.step()
    assert len(optimizer._plans) == triton_walk.PLANS_KEPT


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=8), block=st.sampled_from([1, 16, 64]))
def test_every_element_has_one_program(sizes, block):
    addresses = [(1000 * number, 7) for number in range(len(sizes))]
    table = triton_walk.tabulate(addresses, sizes, block, torch.device("cpu"))
    seen = Counter()
    for program, owner in enumerate(table.owner.tolist()):
        address, _, size, first = table.rows[owner].tolist()
        start = (program - first) * block
        seen.update((address, element) for element in range(start, min(start + block, size)))
    assert seen == Counter((1000 * number, element) for number, size in enumerate(sizes) for element in range(size))


def test_the_table_holds_sizes_beyond_32_bits_and_the_map_stays_small():
    sizes = [2**33 + 1, 5, 2**32]
    table = triton_walk.tabulate([(1,), (2,), (3,)], sizes, 2**20, torch.device("cpu"))
    assert table.rows.tolist() == [[1, 2**33 + 1, 0], [2, 5, 2**13 + 1], [3, 2**32, 2**13 + 2]]
    assert table.programs == 2**13 + 1 + 1 + 2**12
    assert table.rows.dtype == torch.int64
    assert table.owner.element_size() / triton_walk.BLOCK < 0.005  # bytes a parameter


@pytest.mark.parametrize("case", ["adamw", "sgd"])
def test_elements_beyond_two_to_the_31_are_reached(case, device):
    """A table that says: the tensors began 2**33 elements before the ones that are here, which are their end."""
    make, reference, hyper = CASES[case]
    ours, theirs = twins([(150,)], device)
    mine, other = make(ours, **hyper), reference(theirs, **hyper)
    feed(0, ours, theirs)
    other.step()
    genuine = triton_walk.tabulate

    def pretend(addresses, sizes, block, where):
        far = 2**33
        addresses = [tuple(address - 4 * far for address in row) for row in addresses]
        table = genuine(addresses, sizes, block, where)
        table.rows[:, -2] += far
        table.rows[:, -1] -= far // block
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_walk, "tabulate", pretend)
        mine.step()
    assert_same(ours, theirs)


@puts_back
def test_the_rest_of_the_process_is_not_interpreted(device):
    params = parameters([(4,)], device)
    feed(0, params)
    before = {name: getattr(tl, name) for name in dir(tl)}
    TritonAdamW(params).step()
    assert {name: getattr(tl, name) for name in dir(tl)} == before
    assert triton.knobs.runtime.interpret == (os.environ.get("TRITON_INTERPRET") == "1")


@pytest.mark.parametrize(
    ("cuda", "interpret", "where", "sentence"),
    [
        (False, False, "cpu", None),
        (False, False, None, None),
        (False, False, "cuda", "There is no CUDA device here"),
        (True, False, "cuda", None),
        (True, False, None, None),
        (True, False, "cpu", "move the parameters to the GPU, or set TRITON_INTERPRET=1"),
        (True, True, "cpu", None),
        (True, True, "cuda", "unset it to use the GPU"),
        (False, False, "mps", "not on mps"),
    ],
)
def test_where_it_runs_is_said_in_a_sentence(cuda, interpret, where, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", interpret)
    reason = triton_walk.unavailable(where)
    assert reason is None if sentence is None else sentence in reason
    if where == "cpu" and sentence:
        with pytest.raises(RuntimeError, match="TritonAdamW: Triton runs on CUDA"):
            TritonAdamW(parameters([(2,)], "cpu"))


def test_without_triton_the_modules_import_and_constructing_says_how_to_get_it():
    code = """
import sys
sys.modules["triton"] = None
import torch
from course_lib.kernels.triton_adamw import TritonAdamW
from course_lib.kernels.triton_lion import TritonLion
from course_lib.kernels.triton_sgd import TritonSGD
from course_lib.kernels.triton_walk import unavailable
print(unavailable("cuda"))
for make in (TritonAdamW, TritonLion, TritonSGD):
    try:
        make([torch.ones(2, requires_grad=True)])
    except ModuleNotFoundError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence = "Triton is not installed. On Linux: pip install 'course_lib[kernels]'."
    names = ["TritonAdamW", "TritonLion", "TritonSGD"]
    assert run.stdout.splitlines() == [sentence] + [f"{name}: {sentence}" for name in names]


# What follows compiles for GPUs that need not be here: Triton's wheel brings all that it takes.

POINTERS = {"adamw": 4, "lion": 3, "momentum": 3, "nesterov": 3, "sgd": 2}
STORES = {"adamw": 3, "lion": 2, "momentum": 2, "nesterov": 2, "sgd": 1}


def compiled(recorder, case, capability, dtype=torch.float32, odd=0, factor=None):
    """The kernel as the optimizer's own launch would have it compiled for a GPU of that compute capability."""
    if LEAKS:
        pytest.skip(LEAKS)
    make, _, hyper = CASES[case]
    param = nn.Parameter(torch.zeros(64, dtype=dtype)[odd:])
    param.grad = torch.zeros(64, dtype=dtype)[odd:]
    make([param], **hyper).step(grad_factor=factor)
    _, args, kwargs = recorder.launches[-1]
    assert kwargs["ALIGNED"] == (odd == 0)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    backend = triton.compiler.make_backend(target)
    kernel = triton_walk.walk
    kwargs = kwargs | dict(BLOCK=triton_walk.BLOCK, debug=False, instrumentation_mode="")
    binder = triton.runtime.jit.create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = binder(*args, **kwargs)
    options, signature, constants, attributes = kernel._pack_args(backend, kwargs, bound, specialization, options)
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)


@pytest.fixture(autouse=True)
def compile_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def accesses(kernel):
    """How often each kind of access to global memory stands in the PTX, such as ``{"ld.v4.b32": 8}``."""
    found = re.findall(r"\b(ld|st)\.global((?:\.[a-z0-9]+)+)", kernel.asm["ptx"])
    return Counter(kind + suffix for kind, suffix in found)


def resources(kernel, tmp_path):
    """Registers, stack, shared and local memory of the machine code, in the assembler's own words."""
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = triton.knobs.nvidia.cuobjdump.path
    run = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", run.stdout)}


@pytest.mark.parametrize("case", ["adamw", "lion", "sgd", "momentum"])
def test_on_hopper_full_blocks_move_16_bytes_at_once_and_nothing_twice(case, recorder, tmp_path):
    kernel = compiled(recorder, case, 90)
    per_thread = triton_walk.BLOCK // (32 * triton_walk.WARPS)
    vectors = per_thread // 4
    count = accesses(kernel)
    assert count["ld.v4.b32"] == POINTERS[case] * vectors
    assert count["st.v4.b32"] == STORES[case] * vectors
    # The other path, of a tensor's last block, has a mask and goes element by element; one load is the block's owner.
    assert count["ld.b32"] == POINTERS[case] * per_thread + 1
    assert count["st.b32"] == STORES[case] * per_thread
    assert {"ld.v4.b32", "ld.b32", "ld.b64", "st.v4.b32", "st.b32"} == set(count)
    moved = 16 * (count["ld.v4.b32"] + count["st.v4.b32"]) / per_thread
    assert moved == {"adamw": 28, "lion": 20, "momentum": 20, "sgd": 12}[case]
    used = resources(kernel, tmp_path)
    assert used["LOCAL"] == used["STACK"] == used["SHARED"] == 0
    assert used["REG"] <= 64, "fewer than 1024 threads would fit on a multiprocessor"


def test_on_hopper_bfloat16_is_split_among_threads_as_its_float32_state(recorder, tmp_path):
    kernel = compiled(recorder, "adamw", 90, torch.bfloat16)
    count = accesses(kernel)
    # Per thread two vectors of four elements: 8 bytes of p and g, 16 of m and v.
    assert (count["ld.v2.b32"], count["ld.v4.b32"]) == (4, 4)
    assert (count["st.v2.b32"], count["st.v4.b32"]) == (2, 4)
    used = resources(kernel, tmp_path)
    assert used["LOCAL"] == used["STACK"] == used["SHARED"] == 0, "no element changes hands between threads"


def test_tensors_at_odd_addresses_and_a_factor_on_the_device_compile_too(recorder, tmp_path):
    kernel = compiled(recorder, "adamw", 90, odd=1)
    assert not any(".v" in access for access in accesses(kernel))
    assert resources(kernel, tmp_path)["LOCAL"] == 0
    kernel = compiled(recorder, "adamw", 90, factor=torch.tensor(0.5))
    assert accesses(kernel)["ld.v4.b32"] == 8
    assert resources(kernel, tmp_path)["LOCAL"] == 0


@pytest.mark.parametrize("case", ["adamw", "lion", "sgd", "nesterov"])
@pytest.mark.parametrize(("capability", "dtype"), [(75, torch.float32), (80, torch.bfloat16)])
def test_it_compiles_for_a_t4_and_an_a100(case, capability, dtype, recorder, tmp_path):
    kernel = compiled(recorder, case, capability, dtype)
    assert f".target sm_{capability}" in kernel.asm["ptx"]
    assert resources(kernel, tmp_path)["LOCAL"] == 0


def test_offsets_are_64_bits_wide_and_a_profile_names_the_rule(recorder):
    kernel = compiled(recorder, "adamw", 90)
    pointers = re.findall(r"tt\.addptr .* : tensor<\d+x!tt\.ptr<f32>>, tensor<\d+x(i\d+)>", kernel.asm["ttir"])
    assert pointers and set(pointers) == {"i64"}
    assert kernel.metadata.name == "walk_adamw"


# And this needs the device itself.


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_it_is_torchs_fused(dtype):
    shapes = [(1024, 1024), (50257, 16), (768,), (), (1025,)]
    params = parameters(shapes, "cuda", dtype)
    others = [nn.Parameter(param.detach().float()) for param in params]
    mine, fused = TritonAdamW(params, **ADAMW), torch.optim.AdamW(others, **ADAMW, fused=True)
    for turn in range(5):
        feed(turn, params)
        for param, other in zip(params, others, strict=True):
            other.data.copy_(param.detach())
            other.grad = param.grad.float()
        mine.step()
        fused.step()
        if dtype == torch.float32:
            assert_same(params, others)
        else:
            for param, other in zip(params, others, strict=True):
                same_sign = param.detach().sign() == other.detach().sign()
                apart = bfloat16_distance(param.detach(), other.detach().to(dtype))[same_sign]
                assert apart.numel() == 0 or apart.max() <= 1


@needs_cuda
def test_on_cuda_a_step_waits_for_nothing():
    params = parameters([(1000,), (3, 5)], "cuda")
    optimizer = TritonAdamW(params)
    feed(0, params)
    optimizer.step()
    factor = torch.tensor(0.5, device="cuda")
    grads = [torch.ones_like(param) for param in params]
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step(grad_factor=factor)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step(grad_factor=factor)  # with a table made anew
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_on_cuda_capture_in_a_graph_is_refused():
    params = parameters([(1000,)], "cuda")
    optimizer = TritonAdamW(params)
    feed(0, params)
    optimizer.step()
    before = params[0].detach().clone()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="cannot be captured in a CUDA graph"), torch.cuda.graph(graph):
        optimizer.step()
    assert torch.equal(params[0], before) and optimizer.state[params[0]]["step"] == 1
