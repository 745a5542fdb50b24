"""Every optimizer of the registry against its production counterpart, and against arithmetic done by hand."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch
from optim_cases import (
    KEYS, STEPS, Closeness, arguments, fixed_cases, give_gradients, layouts, leaf, run, tolerance, twins,
)
from torch.optim import lr_scheduler

from course_lib.optim import REGISTRY, SGD, Adam, AdamW, Nesterov, RMSprop, ScratchOptimizer

# One number a tensor, which is no state in the sense of bytes per parameter.
NUMBERS = {"step", "mu_product", "ahead"}
CASES = list(fixed_cases())
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

every_key = pytest.mark.parametrize("key", KEYS)
every_case = pytest.mark.parametrize(
    ("key", "hyper"), CASES, ids=[f"{key}-{index}" for index, (key, _) in enumerate(CASES)]
)


def tensors_of(optimizer: torch.optim.Optimizer) -> list[dict[str, torch.Tensor]]:
    """The tensors of every parameter's own shape in the state, in order."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [
        {name: value for name, value in optimizer.state[param].items() if name not in NUMBERS} for param in params
    ]


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


# --- The registry ---------------------------------------------------------------------------------


@every_key
def test_an_entry_says_what_it_is(key):
    entry = REGISTRY[key]
    ours, production = entry.make([leaf(1.0)]), entry.production([leaf(1.0)])
    assert entry.key == key
    assert isinstance(ours, ScratchOptimizer)
    assert isinstance(production, torch.optim.Optimizer)
    assert not isinstance(production, ScratchOptimizer)
    assert entry.paper.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", entry.paper.arxiv)


@every_key
def test_the_defaults_are_those_of_production(key):
    entry = REGISTRY[key]
    ours, production = entry.make([leaf(1.0)]).defaults, entry.production([leaf(1.0)]).defaults
    assert set(arguments(entry)) <= set(ours)
    assert ours == {name: production[name] for name in ours}


@every_key
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (2, 3, 4)], ids=str)
def test_state_bytes_are_the_bytes_held(key, dtype, shape):
    entry = REGISTRY[key]
    for factory in (entry.make, entry.production):
        param = torch.zeros(shape, dtype=dtype, requires_grad=True)
        optimizer = factory([param])
        for _ in range(2):
            param.grad = torch.ones_like(param)
            optimizer.step()
        (held,) = tensors_of(optimizer)
        assert sum(tensor.untyped_storage().nbytes() for tensor in held.values()) == entry.state_bytes(shape, dtype)


@every_key
def test_bytes_per_parameter_are_those_of_float32(key):
    entry = REGISTRY[key]
    assert entry.state_bytes((1000,)) == 1000 * entry.state_bytes_per_param


# --- Equal to production --------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_equals_production(key, hyper, dtype, device):
    """Two groups, every memory layout, missing gradients, a late starter, a parameter never used, a changing lr."""
    (mine, ours), (theirs, production) = twins(
        REGISTRY[key], hyper, lambda: list(layouts(dtype, device).values())
    )
    schedules = [
        lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(step / 20.0))
        for optimizer in (ours, production)
    ]
    rng = np.random.default_rng(7)
    closeness = Closeness(theirs)
    for step in range(STEPS):
        give_gradients(rng, mine, theirs, missing=0.2)
        if step < 5:
            mine[3].grad = theirs[3].grad = None
        mine[4].grad = theirs[4].grad = None
        for optimizer, schedule in zip((ours, production), schedules, strict=True):
            optimizer.step()
            schedule.step()
        closeness.check(mine, theirs)
    assert mine[4] not in ours.state
    for index, (held, expected) in enumerate(zip(tensors_of(ours), tensors_of(production), strict=True)):
        if index == 4:
            continue      # production's AdaGrad holds state for a parameter that is never used
        assert held.keys() == expected.keys()
        for name, tensor in held.items():
            assert (tensor.shape, tensor.dtype, tensor.device) == (
                expected[name].shape, expected[name].dtype, expected[name].device
            )
            size = expected[name].abs().amax().item() if tensor.numel() else 0.0
            torch.testing.assert_close(tensor, expected[name], rtol=0.0, atol=tolerance(dtype, STEPS) * size)


@every_key
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_agrees_with_production_in_16_bits(key, dtype):
    """The same square-root law, over 16 steps.

    One unit in the last place is 0.8% in bfloat16 and 0.1% in float16, so that two correct implementations part by
    percents of a parameter within tens of steps; optimizers written with the very same operations (SGD, RMSprop) stay
    equal bit for bit.
    """
    hyper = {"lr": 0.1}
    if "eps" in arguments(REGISTRY[key]):
        hyper["eps"] = 1e-3
    (mine, ours), (theirs, production) = twins(REGISTRY[key], hyper, lambda: list(layouts(dtype).values()))
    rng = np.random.default_rng(3)
    closeness = Closeness(theirs, factor=2.0)
    for _ in range(16):
        give_gradients(rng, mine, theirs)
        ours.step()
        production.step()
        closeness.check(mine, theirs)


@pytest.mark.parametrize("key", [key for key in KEYS if "eps" in arguments(REGISTRY[key]) and key != "adadelta"])
def test_the_default_eps_is_zero_in_float16(key):
    """1e-8 is below half the smallest float16, 6e-8: a zero gradient gives 0/0, here as in production.

    RAdam divides from its sixth step on. Adadelta's 1e-6 is no zero.
    """
    for factory in (REGISTRY[key].make, REGISTRY[key].production):
        param = leaf(1.0, 1.0, dtype=torch.float16)
        optimizer = factory([param])
        for _ in range(6):
            param.grad = torch.tensor([0.0, 1.0], dtype=torch.float16)
            optimizer.step()
        assert param.isnan().tolist() == [True, False]


SCHEDULERS = {
    "step": partial(lr_scheduler.StepLR, step_size=30, gamma=0.5),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS),
    "exponential": partial(lr_scheduler.ExponentialLR, gamma=0.98),
    # Cycles momentum, or beta1, too, where the optimizer has one.
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=[0.02, 0.05], total_steps=STEPS + 1),
}


@every_key
@pytest.mark.parametrize("name", SCHEDULERS)
def test_trains_as_production_does_under_a_schedule(key, name):
    """Least squares by autograd: here each gradient depends on all steps before."""
    entry = REGISTRY[key]
    rng = np.random.default_rng(5)
    inputs, targets = (torch.tensor(rng.normal(size=size)) for size in ((32, 4), (32,)))
    cycles = {"cycle_momentum": not {"betas", "momentum"}.isdisjoint(arguments(entry))} if name == "one cycle" else {}

    def start() -> list[torch.Tensor]:
        return [torch.tensor(np.linspace(-1.0, 1.0, 4), requires_grad=True), leaf(0.5)]

    (mine, ours), (theirs, production) = twins(entry, {"lr": 0.02}, start)
    schedules = [SCHEDULERS[name](optimizer, **cycles) for optimizer in (ours, production)]
    closeness = Closeness(theirs)
    for _ in range(STEPS):
        for params, optimizer, schedule in zip((mine, theirs), (ours, production), schedules, strict=True):
            optimizer.zero_grad()
            (inputs @ params[0] + params[1] - targets).square().mean().backward()
            optimizer.step()
            schedule.step()
        closeness.check(mine, theirs)
    assert [group["lr"] for group in ours.param_groups] == [group["lr"] for group in production.param_groups]


@every_key
def test_a_non_finite_gradient_spoils_what_it_spoils_in_production(key):
    (mine, ours), (theirs, production) = twins(REGISTRY[key], {"lr": 0.1}, lambda: [leaf(1.0, 1.0, 1.0, 1.0)])
    bad = torch.tensor([1.0, math.nan, math.inf, -math.inf], dtype=torch.float64)
    for grad in (bad, torch.ones(4, dtype=torch.float64)):
        mine[0].grad, theirs[0].grad = grad.clone(), grad.clone()
        ours.step()
        production.step()
    torch.testing.assert_close(mine[0], theirs[0], equal_nan=True)
    assert mine[0][0].isfinite()


@every_key
def test_a_group_added_later(key):
    (mine, ours), (theirs, production) = twins(REGISTRY[key], {"lr": 0.1}, lambda: [leaf(1.0, 2.0)])
    rng = np.random.default_rng(0)
    closeness = Closeness(theirs)
    for step in range(30):
        if step == 10:
            for params, optimizer in ((mine, ours), (theirs, production)):
                params.append(leaf(3.0))
                optimizer.add_param_group({"params": params[-1], "lr": 0.3})
            closeness.largest.append(3.0)
        give_gradients(rng, mine, theirs)
        ours.step()
        production.step()
        closeness.check(mine, theirs)
    assert ours.param_groups[1]["lr"] == 0.3
    assert ours.state[mine[1]]["step"] == 20


@every_key
def test_names_of_parameters_are_kept(key):
    model = torch.nn.Linear(3, 2)
    ours, production = (make(model.named_parameters()) for make in (REGISTRY[key].make, REGISTRY[key].production))
    assert ours.param_groups[0]["param_names"] == production.param_groups[0]["param_names"] == ["weight", "bias"]


# --- Against arithmetic done by hand --------------------------------------------------------------


def test_adam_by_hand():
    """Gradients 1, then -2, from 0.5, with lr 0.1, beta1 = beta2 = 0.5 and eps = 1.

    m = 0.5, v = 0.5 and corrected 1 and 1: the step is 0.1 * 1 / (1 + 1) = 0.05.
    m = 0.25 - 1 = -0.75, corrected by 0.75 to -1; v = 0.25 + 2 = 2.25, corrected to 3: 0.1 / (sqrt(3) + 1) back.
    """
    param = leaf(0.5)
    path = run(Adam([param], lr=0.1, betas=(0.5, 0.5), eps=1.0), param, [1.0, -2.0])
    np.testing.assert_allclose(path, [[0.45], [0.45 + 0.1 / (math.sqrt(3.0) + 1.0)]], rtol=1e-15)


@pytest.mark.parametrize("decoupled", [False, True], ids=["adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [False, True], ids=["plain", "amsgrad"])
def test_adam_against_numpy(decoupled, amsgrad):
    """The paper's lines in NumPy float64, moments written as sums so that no recursion is shared."""
    rng = np.random.default_rng(11)
    lr, beta1, beta2, eps, decay = 0.03, 0.8, 0.95, 1e-3, 0.2
    grads = rng.normal(size=(50, 3)) * np.linspace(2.0, 0.1, 50)[:, None]
    param = leaf(1.0, -2.0, 0.5)
    make = AdamW if decoupled else Adam
    path = run(make([param], lr, (beta1, beta2), eps, decay, amsgrad), param, grads)

    theta, seen, v_max = np.array([1.0, -2.0, 0.5]), [], np.zeros(3)
    for step, grad in enumerate(grads, start=1):
        seen.append(grad if decoupled else grad + decay * theta)
        ages = np.arange(step)[::-1, None]
        m = (1 - beta1) * np.sum(beta1**ages * np.array(seen), axis=0)
        v = (1 - beta2) * np.sum(beta2**ages * np.array(seen) ** 2, axis=0)
        v_max = np.maximum(v_max, v)
        v = v_max if amsgrad else v
        update = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
        theta = theta - lr * update - (lr * decay * theta if decoupled else 0.0)
        np.testing.assert_allclose(path[step - 1], theta, rtol=1e-13)


@pytest.mark.parametrize("make", [Adam, AdamW])
def test_the_first_step_of_adam_is_lr_times_the_sign(make):
    param = leaf(0.0, 0.0, 0.0)
    (first,) = run(make([param], lr=0.1, eps=0.0), param, [[1e-6, -3.0, 1e6]])
    np.testing.assert_allclose(first, [-0.1, 0.1, -0.1], rtol=1e-14)


def test_momentum_is_the_heavy_ball():
    """Polyak 1964: x <- x - lr * g + mu * (x - x_before), at a constant lr."""
    curvature = np.array([1.0, 10.0])
    param = leaf(1.0, -1.0)
    path = run(SGD([param], lr=0.02, momentum=0.9), param, [lambda x: curvature * x] * 60)
    before = now = np.array([1.0, -1.0])
    for got in path:
        before, now = now, now - 0.02 * curvature * now + 0.9 * (now - before)
        np.testing.assert_allclose(got, now, rtol=0.0, atol=1e-13)


def test_nesterov_walks_along_the_look_ahead_points():
    """Sutskever et al. 2013: v <- mu * v - lr * grad(x + mu * v); x <- x + v. Our parameter is x + mu * v."""
    curvature = np.array([1.0, 10.0])
    param = leaf(1.0, -1.0)
    path = run(SGD([param], lr=0.02, momentum=0.9, nesterov=True), param, [lambda x: curvature * x] * 60)
    x, v = np.array([1.0, -1.0]), np.zeros(2)
    for got in path:
        v = 0.9 * v - 0.02 * curvature * (x + 0.9 * v)
        x = x + v
        np.testing.assert_allclose(got, x + 0.9 * v, rtol=0.0, atol=1e-13)


def test_dampening_spares_the_first_gradient():
    param = leaf(0.0)
    path = run(SGD([param], lr=1.0, momentum=0.5, dampening=0.75), param, [8.0, 8.0])
    np.testing.assert_allclose(path, [[-8.0], [-8.0 - (0.5 * 8.0 + 0.25 * 8.0)]], rtol=1e-15)


def test_rmsprop_by_hand():
    """No correction: the first step is lr / sqrt(1 - alpha). Centred, v - mean^2 is alpha * (1 - alpha) * g^2 then."""
    param = leaf(0.0)
    path = run(RMSprop([param], lr=0.1, alpha=0.75, eps=0.0), param, [3.0, 4.0])
    second = 4.0 / math.sqrt(0.75 * 0.25 * 9.0 + 0.25 * 16.0)
    np.testing.assert_allclose(path, [[-0.2], [-0.2 - 0.1 * second]], rtol=1e-14)
    param = leaf(0.0)
    (centred,) = run(RMSprop([param], lr=0.1, alpha=0.75, eps=0.5, centered=True), param, [3.0])
    np.testing.assert_allclose(centred, [-0.1 * 3.0 / (3.0 * math.sqrt(0.75 * 0.25) + 0.5)], rtol=1e-14)


def test_rmsprop_momentum_adds_up_ratios_without_lr():
    """The buffer holds g / avg; the lr of the day multiplies all of it."""
    param = leaf(0.0)
    optimizer = RMSprop([param], lr=1.0, alpha=0.0, eps=0.0, momentum=0.5)
    run(optimizer, param, [2.0])
    optimizer.param_groups[0]["lr"] = 0.1
    run(optimizer, param, [2.0])
    np.testing.assert_allclose(param.detach().numpy(), [-1.0 - 0.1 * 1.5], rtol=1e-15)


# --- What a step leaves alone ---------------------------------------------------------------------


@every_case
def test_gradients_are_not_written_to(key, hyper):
    params = list(layouts(torch.float64).values())
    optimizer = REGISTRY[key].make(params, **hyper)
    rng = np.random.default_rng(0)
    for _ in range(3):
        give_gradients(rng, params)
        grads = [param.grad for param in params]
        copies = [grad.clone() for grad in grads]
        optimizer.step()
        for param, grad, kept in zip(params, grads, copies, strict=True):
            assert param.grad is grad
            assert same_bits(grad, kept)


@every_case
def test_no_state_shares_memory_with_a_gradient_or_a_parameter(key, hyper):
    """Someone who zeroes gradients in place, or writes weights, must not write into the optimizer."""
    param = leaf(1.0, 2.0, 3.0)
    optimizer = REGISTRY[key].make([param], **hyper)
    param.grad = torch.ones_like(param)
    optimizer.step()
    (held,) = tensors_of(optimizer)
    pointers = [tensor.data_ptr() for tensor in held.values()]
    assert len({*pointers, param.data_ptr(), param.grad.data_ptr()}) == len(pointers) + 2


@every_key
def test_storage_is_kept_so_that_views_see_the_step(key):
    storage = torch.zeros(6, dtype=torch.float64)
    param = storage[1:6:2].requires_grad_()
    pointer, flat = param.data_ptr(), param.detach().view(-1)
    optimizer = REGISTRY[key].make([param], lr=0.1)
    for _ in range(3):
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert param.data_ptr() == pointer
    assert param.is_leaf and param.requires_grad and param.grad_fn is None
    assert (flat < 0).all()
    assert storage[1::2].equal(flat) and (storage[0::2] == 0).all()


@every_key
def test_two_instances_share_nothing(key):
    entry = REGISTRY[key]
    rng = np.random.default_rng(2)
    alone, first, second = leaf(1.0, -1.0), leaf(1.0, -1.0), leaf(1.0, -1.0)
    optimizers = [entry.make([param], lr=0.1) for param in (alone, first, second)]
    grads = rng.normal(size=(20, 2))
    expected = run(optimizers[0], alone, grads)
    got = []
    for grad in grads:
        got += run(optimizers[1], first, [grad])
        run(optimizers[2], second, [-5.0 * grad])
    optimizers[2].param_groups[0]["lr"] = 9.0
    np.testing.assert_array_equal(got, expected)
    assert optimizers[1].param_groups[0]["lr"] == optimizers[1].defaults["lr"] == 0.1
    assert entry.make([leaf(1.0)]).state == {}


@every_key
def test_equal_gradients_in_one_tensor_object(key):
    """Two parameters may hold the very same gradient tensor."""
    entry = REGISTRY[key]
    params = [leaf(1.0, 2.0), leaf(1.0, 2.0)]
    optimizer = entry.make(params, lr=0.1)
    for _ in range(3):
        shared = torch.tensor([0.3, -0.7], dtype=torch.float64)
        for param in params:
            param.grad = shared
        optimizer.step()
    assert same_bits(params[0], params[1])


# --- Closures -------------------------------------------------------------------------------------


@every_key
@pytest.mark.parametrize("outer", [torch.enable_grad, torch.no_grad])
def test_a_closure_runs_once_with_gradients_on_and_its_value_comes_back(key, outer):
    param = leaf(2.0)
    optimizer = REGISTRY[key].make([param], lr=0.1)
    calls, token = [], object()

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        param.square().sum().backward()
        return token

    with outer():
        mode = torch.is_grad_enabled()
        assert optimizer.step(closure) is token
        assert torch.is_grad_enabled() == mode
    assert calls == [True]
    assert param.grad.item() == 4.0 and param.item() < 2.0
    assert optimizer.step() is None


@every_key
def test_a_closure_that_raises_leaves_everything_as_it_was(key):
    param = leaf(2.0)
    optimizer = REGISTRY[key].make([param], lr=0.1)
    param.grad = torch.ones_like(param)

    def closure():
        raise KeyError("no batch left")

    with pytest.raises(KeyError, match="no batch left"):
        optimizer.step(closure)
    assert param.item() == 2.0 and not optimizer.state and torch.is_grad_enabled()


# --- Checkpoints ----------------------------------------------------------------------------------


def saved_and_loaded(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_case
def test_a_run_resumed_from_a_file_equals_one_that_never_stopped(key, hyper):
    def start() -> list[torch.Tensor]:
        return list(layouts(torch.float32).values())

    def advance(params, optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            give_gradients(np.random.default_rng(step), params, missing=0.3)
            optimizer.step()

    whole = start()
    optimizer = REGISTRY[key].make(whole, **hyper)
    advance(whole, optimizer, 0, 7)
    weights = saved_and_loaded([param.detach() for param in whole])
    state = saved_and_loaded(optimizer.state_dict())
    resumed = [param.requires_grad_() for param in weights]
    # Its own hyper-parameters are overruled by the loaded ones.
    other = REGISTRY[key].make(resumed, lr=123.0)
    other.load_state_dict(state)
    advance(whole, optimizer, 7, 30)
    advance(resumed, other, 7, 30)
    for expected, got in zip(whole, resumed, strict=True):
        assert same_bits(got, expected)


@every_key
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
                         ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_by_itself(key, duplicate):
    param = leaf(1.0, -2.0)
    optimizer = REGISTRY[key].make([param], lr=0.1)
    rng = np.random.default_rng(4)
    run(optimizer, param, rng.normal(size=(5, 2)))
    # Copied together, so that the copied optimizer holds the copied parameter.
    twin, twin_param = duplicate((optimizer, param))
    assert twin.param_groups[0]["params"][0] is twin_param and twin_param is not param
    later = rng.normal(size=(10, 2))
    path = run(twin, twin_param, later)
    np.testing.assert_array_equal(run(optimizer, param, later), path)


@every_case
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours to production", "production to ours"])
def test_a_run_changes_hands(key, hyper, ours_first):
    """A checkpoint of the one is continued by the other: same state names, same hyper-parameter names."""
    entry = REGISTRY[key]
    first, second = (entry.make, entry.production) if ours_first else (entry.production, entry.make)
    (mixed, before), (theirs, production) = (
        (params, factory(params, **hyper))
        for params, factory in ((list(layouts(torch.float64).values()), first),
                                (list(layouts(torch.float64).values()), entry.production))
    )
    rng = np.random.default_rng(6)
    closeness = Closeness(theirs)
    for step in range(40):
        if step == 20:
            after = second(mixed)
            after.load_state_dict(copy.deepcopy(before.state_dict()))
            before = after
        give_gradients(rng, mixed, theirs)
        before.step()
        production.step()
        closeness.check(mixed, theirs)


@every_key
def test_a_checkpoint_without_maximize_descends(key):
    """Production optimizers that lack the option write none."""
    param = leaf(1.0)
    optimizer = REGISTRY[key].make([param], lr=0.1)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["maximize"]
    optimizer.load_state_dict(state)
    (after,) = run(optimizer, param, [1.0])
    assert after < 1.0


# --- Bad input ------------------------------------------------------------------------------------


def values_out_of_range(default) -> list:
    if isinstance(default, bool):
        return ["false", None, 0.5]
    if isinstance(default, tuple):
        inside = default[:-1]
        outside = [(*inside, bad) for bad in (-0.1, 1.0, 1.5, math.nan, math.inf, "0.9", None)]
        return [*outside, inside, (*default, 0.9), 0.9, None, "ab", ()]
    return [math.nan, math.inf, -math.inf, "0.1", None, 1j, torch.tensor(0.1), [0.1]]


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key in KEYS for name in arguments(REGISTRY[key])],
)
def test_a_hyper_parameter_out_of_range_is_named_with_its_range(key, name):
    make = REGISTRY[key].make
    optimizer = make([leaf(1.0)])
    default = arguments(REGISTRY[key])[name].default
    bad = values_out_of_range(default)
    if name != "dampening":
        bad.append(-1e-9)
    places = {
        "constructor": lambda value: make([leaf(1.0)], **{name: value}),
        "constructor, though no group uses it": lambda value: make(
            [{"params": [leaf(1.0)], name: default}], **{name: value}
        ),
        "group": lambda value: make([{"params": [leaf(1.0)], name: value}]),
        "add_param_group": lambda value: optimizer.add_param_group({"params": [leaf(1.0)], name: value}),
    }
    for place, value in itertools.product(places, bad):
        with pytest.raises((ValueError, TypeError)) as caught:
            places[place](value)
            pytest.fail(f"{name}={value!r} was accepted by the {place}")
        message, _, allowed = str(caught.value).partition("Allowed: ")
        assert message.startswith(f"Invalid {name}") and allowed and "-inf" not in allowed
        wrong = value[-1] if message.startswith(f"Invalid {name}[") else value
        assert repr(wrong) in message
    assert len(optimizer.param_groups) == 1


def test_messages_read_well():
    def message(make, **hyper) -> str:
        with pytest.raises((ValueError, TypeError)) as caught:
            make([leaf(1.0)], **hyper)
        return str(caught.value)

    assert message(Adam, lr=-1.0) == "Invalid lr: -1.0. Allowed: a finite number, lr >= 0."
    assert message(Nesterov, momentum=0) == "Invalid momentum: 0. Allowed: a finite number, momentum > 0."
    assert message(Adam, lr="1") == "Invalid lr: '1' is a str. Allowed: a finite number, lr >= 0."
    assert message(Adam, betas=(0.9, 1.0)) == "Invalid betas[1]: 1.0. Allowed: 0 <= betas[1] < 1."
    assert message(Adam, betas=0.9) == "Invalid betas: 0.9. Allowed: a tuple of 2 numbers, each 0 <= beta < 1."
    assert message(SGD, dampening=math.nan) == "Invalid dampening: nan. Allowed: any finite number."
    assert message(Adam, amsgrad="no") == "Invalid amsgrad: 'no' is a str. Allowed: True or False."


@pytest.mark.parametrize("hyper", [{}, {"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}], ids=str)
def test_nesterov_needs_momentum_without_dampening(hyper):
    for make in (SGD, torch.optim.SGD):
        with pytest.raises(ValueError, match="(?i)nesterov"):
            make([leaf(1.0)], nesterov=True, **hyper)


def non_leaf() -> torch.Tensor:
    return leaf(1.0) * 2


def twice_in_two_groups() -> list[dict]:
    param = leaf(1.0)
    return [{"params": [param]}, {"params": [param]}]


@every_key
@pytest.mark.parametrize(
    ("params", "error"),
    [
        (list, ValueError),
        (lambda: leaf(1.0), TypeError),
        (lambda: [1.0], TypeError),
        (lambda: [non_leaf()], ValueError),
        (lambda: [{"params": {leaf(1.0)}}], TypeError),
        (lambda: [{"params": [leaf(1.0)]}, leaf(1.0)], TypeError),
        (twice_in_two_groups, ValueError),
    ],
    ids=["empty", "bare tensor", "float", "non-leaf", "set", "group and tensor", "in two groups"],
)
def test_parameters_that_torch_refuses_are_refused(key, params, error):
    for factory in (REGISTRY[key].make, REGISTRY[key].production):
        with pytest.raises(error):
            factory(params())


@every_key
def test_a_duplicate_in_one_group_warns_as_in_torch(key):
    param = leaf(1.0)
    for factory in (REGISTRY[key].make, REGISTRY[key].production):
        with pytest.warns(UserWarning, match="duplicate parameters"):
            factory([param, param])


@every_key
@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_sparse_and_complex_gradients_are_refused(key, kind):
    param = torch.ones(2, 2, dtype=torch.complex64 if kind == "complex" else torch.float32, requires_grad=True)
    param.grad = torch.ones(2, 2, dtype=param.dtype)
    if kind == "sparse":
        param.grad = param.grad.to_sparse()
    optimizer = REGISTRY[key].make([param])
    with pytest.raises(RuntimeError, match=rf"does not support {kind} gradients \(parameter of shape \(2, 2\)\)"):
        optimizer.step()
    assert (param == 1).all() and not optimizer.state


@every_key
def test_integer_parameters_fail_as_in_torch(key):
    for factory in (REGISTRY[key].make, REGISTRY[key].production):
        param = torch.ones(2, dtype=torch.int64)
        param.grad = torch.ones_like(param)
        with pytest.raises(RuntimeError):
            factory([param], lr=0.5).step()
        assert param.tolist() == [1, 1]


# --- The base class -------------------------------------------------------------------------------


def test_a_subclass_writes_only_what_is_its_own():
    class Signs(ScratchOptimizer):
        def __init__(self, params, lr: float, maximize: bool = False) -> None:
            super().__init__(params, lr=lr, maximize=maximize)

        def init_state(self, param, group):
            return {"total": torch.zeros_like(param)}

        def update(self, param, grad, state, group):
            state["total"].add_(grad)
            param.sub_(group["lr"] * state["step"] * grad.sign())

    param = leaf(0.0, 0.0)
    optimizer = Signs([param], lr=1.0)
    run(optimizer, param, [[3.0, -5.0]])
    param.grad = None
    optimizer.step()
    run(optimizer, param, [[3.0, -5.0]])
    assert param.tolist() == [-3.0, 3.0]
    assert optimizer.state[param]["total"].tolist() == [6.0, -10.0]


def test_a_subclass_without_a_rule_says_so():
    param = leaf(1.0)
    param.grad = torch.ones_like(param)
    with pytest.raises(NotImplementedError, match="ScratchOptimizer does not define its update rule"):
        ScratchOptimizer([param], maximize=False).step()
