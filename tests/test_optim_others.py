"""What the optimizers beyond torch's elementwise ones have in common.

Each family's own numbers, against its paper and its package, are in the other test_optim files. An optimizer that joins
the registry is covered here at once; what it needs beside ``make(params)`` and ``step()`` goes into ``HOW``.
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from optim_cases import arguments, give_gradients, layouts, leaf
from torch import Tensor
from torch.utils._pytree import tree_leaves

from course_lib.optim import REGISTRY, TORCH_KEYS, ScratchOptimizer

OTHERS = [key for key in REGISTRY if key not in TORCH_KEYS]


@dataclass(frozen=True)
class How:
    """How an optimizer is made and driven where ``make(params)`` and ``step()`` are not enough.

    Attributes:
        groups: parameter groups from a list of parameters of any shape.
        prepare: what is called before each step, once the gradients are there.
        production_step: a step of the production counterpart.
        hyper: arguments of every run.
        rate: a learning rate at which ten steps are seen in 16-bit weights of size one.
        rescaled: arguments that the production counterpart turns into others of its package.
    """

    groups: Callable[[list[Tensor]], list[dict[str, Any]]] = lambda params: [{"params": params}]
    prepare: Callable[[Any], None] = lambda optimizer: None
    production_step: Callable[[Any], None] = lambda optimizer: optimizer.step()
    hyper: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.05
    rescaled: frozenset[str] = frozenset()


def matrices_and_the_rest(params: list[Tensor]) -> list[dict[str, Any]]:
    """Muon's groups: matrices, and what goes to AdamW."""
    return [
        {"params": [param for param in params if param.ndim == 2]},
        {"params": [param for param in params if param.ndim != 2], "adamw": True},
    ]


HOW: dict[str, How] = {
    "lars": How(rate=50.0),
    "muon": How(groups=matrices_and_the_rest),
    "sophia": How(
        prepare=lambda optimizer: optimizer.update_hessian(8),
        production_step=lambda optimizer: optimizer.step(
            hessian=[torch.ones_like(param) for group in optimizer.param_groups for param in group["params"]]
        ),
        rescaled=frozenset({"lr", "weight_decay", "eps"}),
    ),
}

every_key = pytest.mark.parametrize("key", OTHERS)


def how(key: str) -> How:
    return HOW.get(key, How())


def build(key: str, params: list[Tensor], **hyper: Any) -> ScratchOptimizer:
    return REGISTRY[key].make(how(key).groups(params), **how(key).hyper | hyper)


def step(key: str, optimizer: ScratchOptimizer) -> None:
    """One step along the gradients that the parameters hold."""
    how(key).prepare(optimizer)
    optimizer.step()


def advance(key: str, optimizer: ScratchOptimizer, params: list[Tensor], steps: range, missing: float = 0.0) -> None:
    """Steps along gradients that depend on the number of the step alone."""
    for number in steps:
        give_gradients(np.random.default_rng(number), params, missing=missing)
        step(key, optimizer)


def matrix(dtype: torch.dtype = torch.float64, rows: int = 4, columns: int = 3, seed: int = 0) -> Tensor:
    """A leaf matrix: what every optimizer takes without further ado."""
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    return torch.as_tensor(values).to(dtype).requires_grad_()


def tensors_in(state: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def same_bits(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


# --- The registry ---------------------------------------------------------------------------------


@every_key
def test_an_entry_says_what_it_is(key):
    entry = REGISTRY[key]
    assert entry.key == key
    assert isinstance(build(key, [matrix()]), ScratchOptimizer)
    assert entry.paper.year > 1950 and (entry.paper.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", entry.paper.arxiv))
    assert entry.scope in ("element", "block", "tensor")
    assert entry.package in ("torch", "pytorch_optimizer", "bitsandbytes")
    assert entry.agreement != "up to rounding", "the sentence says how near, and why no nearer"


@every_key
def test_both_go_down_along_a_constant_gradient(key):
    """The production counterpart too: five steps, as some only prepare themselves in the first."""
    pytest.importorskip(REGISTRY[key].package)
    for ours in (True, False):
        param, grad = matrix(torch.float32), matrix(torch.float32, seed=1).detach()
        optimizer = build(key, [param]) if ours else REGISTRY[key].production([param])
        assert isinstance(optimizer, torch.optim.Optimizer) and isinstance(optimizer, ScratchOptimizer) == ours
        for _ in range(5):
            param.grad = grad.clone()
            if ours:
                step(key, optimizer)
            else:
                how(key).production_step(optimizer)
        assert ((param - matrix(torch.float32)) * grad).sum() < 0


@every_key
def test_defaults_that_both_know_by_one_name_are_equal(key):
    entry = REGISTRY[key]
    pytest.importorskip(entry.package)
    ours, production = build(key, [matrix()]).defaults, entry.production([matrix()]).defaults
    assert set(arguments(entry)) <= set(ours)
    shared = (set(arguments(entry)) & set(production)) - {"maximize"}
    assert "lr" in shared
    shared -= how(key).rescaled
    assert {name: ours[name] for name in shared} == {name: production[name] for name in shared}


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    from course_lib.optim import counterparts

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(counterparts, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"Lion needs the package pytorch_optimizer: pip install 'course_lib"):
        REGISTRY["lion"].production([leaf(1.0)])


def test_a_package_that_is_there_and_broken_speaks_for_itself(monkeypatch):
    from course_lib.optim import counterparts

    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'halfway'", name="halfway")

    monkeypatch.setattr(counterparts, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="halfway"):
        REGISTRY["lion"].production([leaf(1.0)])


@every_key
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (0, 4), (2, 3, 4), (64, 65)], ids=str)
def test_state_bytes_are_the_bytes_held(key, dtype, shape):
    param = torch.ones(shape, dtype=dtype, requires_grad=True)
    optimizer = build(key, [param])
    advance(key, optimizer, [param], range(2))
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors_in(optimizer.state[param]))
    assert held == REGISTRY[key].state_bytes(shape, dtype)


@every_key
def test_what_an_element_depends_on(key):
    """A sudden spike in the last of 5120 elements: who notices, its neighbour, or all the way to the first?"""
    paths = []
    for factor in (1.0, 100.0):
        param = matrix(rows=80, columns=64)
        optimizer = build(key, [param])
        for number in range(3):
            param.grad = matrix(rows=80, columns=64, seed=1).detach()
            param.grad[-1, -1] = factor if number == 1 else 1.0
            step(key, optimizer)
        paths.append(param.detach())
    moved = paths[0] != paths[1]
    first, neighbour = moved[0, 0].item(), moved[-1, -2].item()
    assert (first, neighbour) == {
        "element": (False, False), "block": (False, True), "tensor": (True, True)
    }[REGISTRY[key].scope]


# --- Steps ----------------------------------------------------------------------------------------


@every_key
def test_a_rule_does_not_care_how_a_tensor_lies_in_memory(key):
    params = list(layouts(torch.float64).values())
    plain = [param.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for param in params]
    optimizers = [(build(key, some, lr=0.01), some) for some in (params, plain)]
    for number in range(12):
        give_gradients(np.random.default_rng(number), params, plain)
        for optimizer, _ in optimizers:
            step(key, optimizer)
    for (name, before), after, expected in zip(layouts(torch.float64).items(), params, plain, strict=True):
        # Newton-Schulz runs in bfloat16, where another order of summation is another third digit.
        rtol, atol = (0.0, 2e-3) if key == "muon" and after.ndim == 2 else (1e-9, 1e-12)
        torch.testing.assert_close(
            after, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert after.stride() == before.stride()
        assert not after.numel() or not torch.equal(after, before), name


@every_key
def test_storage_is_kept_so_that_views_see_the_step(key):
    storage = torch.ones(8, 6, dtype=torch.float64)
    param = storage[1:7:2, ::2].requires_grad_()
    pointer = param.data_ptr()
    optimizer = build(key, [param], lr=0.1)
    advance(key, optimizer, [param], range(3))
    assert param.data_ptr() == pointer and param.is_leaf and param.grad_fn is None
    assert storage[1:7:2, ::2].equal(param) and not param.equal(torch.ones(3, 3))
    storage[1:7:2, ::2] = 1.0
    assert (storage == 1.0).all()


@every_key
def test_gradients_are_not_written_to_and_share_no_memory_with_the_state(key):
    params = list(layouts(torch.float64).values())
    optimizer = build(key, params)
    for number in range(3):
        give_gradients(np.random.default_rng(number), params)
        grads = [param.grad for param in params]
        copies = [grad.clone() for grad in grads]
        step(key, optimizer)
        for param, grad, kept in zip(params, grads, copies, strict=True):
            assert param.grad is grad and same_bits(grad, kept)
    for param in (param for param in params if param.numel()):
        all_of_it = [*tensors_in(optimizer.state[param]), param, param.grad]
        assert len({tensor.untyped_storage().data_ptr() for tensor in all_of_it}) == len(all_of_it)


@every_key
def test_maximize_is_descent_along_the_negated_gradient(key):
    up, down = matrix(), matrix()
    ascent, descent = build(key, [up], maximize=True), build(key, [down])
    for number in range(5):
        give_gradients(np.random.default_rng(number), [up])
        down.grad = -up.grad
        step(key, ascent)
        step(key, descent)
        assert same_bits(up, down)
    assert not same_bits(up, matrix())


@every_key
def test_a_parameter_without_a_gradient_is_left_alone_and_may_start_late(key):
    idle, late, busy, alone = (matrix(seed=seed) for seed in (1, 2, 3, 2))
    before = idle.detach().clone()
    together, by_itself = build(key, [idle, late, busy], lr=0.01), build(key, [alone], lr=0.01)
    for number in range(8):
        give_gradients(np.random.default_rng(number), [late, busy])
        alone.grad = late.grad
        if number < 3:
            late.grad = None
        else:
            step(key, by_itself)
        step(key, together)
    assert same_bits(idle, before) and idle not in together.state
    assert together.state[late]["step"] == 5 and together.state[busy]["step"] == 8
    assert same_bits(late, alone), "a late start is a start"


@every_key
def test_a_learning_rate_of_zero_moves_nothing_and_the_rate_may_change_on_the_way(key):
    param, other = matrix(), matrix()
    optimizer, steady = build(key, [param], lr=0.0), build(key, [other], lr=0.01)
    advance(key, optimizer, [param], range(3))
    assert same_bits(param, matrix())
    optimizer.param_groups[0]["lr"] = 0.01
    advance(key, optimizer, [param], range(3, 6))
    advance(key, steady, [other], range(6))
    assert not same_bits(param, matrix())
    assert not same_bits(param, other)


@every_key
def test_two_groups_and_two_instances_share_nothing(key):
    slow, fast, alone_slow, alone_fast = matrix(), matrix(seed=1), matrix(), matrix(seed=1)
    groups = [{"params": [slow], "lr": 1e-3}, {"params": [fast], "lr": 1e-2}, {"params": []}]
    both = REGISTRY[key].make(groups, **how(key).hyper)
    singles = [build(key, [alone_slow], lr=1e-3), build(key, [alone_fast], lr=1e-2)]
    for number in range(6):
        give_gradients(np.random.default_rng(number), [slow, fast], [alone_slow, alone_fast])
        for optimizer in (both, *singles):
            step(key, optimizer)
    assert same_bits(slow, alone_slow) and same_bits(fast, alone_fast)
    assert build(key, [matrix()]).state == {}


@every_key
def test_names_of_parameters_are_kept(key):
    model = torch.nn.Linear(3, 2, bias=False)
    assert REGISTRY[key].make(model.named_parameters()).param_groups[0]["param_names"] == ["weight"]


@every_key
def test_a_closure_runs_once_with_gradients_on_and_its_value_comes_back(key):
    param = matrix()
    optimizer = build(key, [param], lr=0.01)
    advance(key, optimizer, [param], range(1))
    calls, token = [], object()

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        param.square().sum().backward()
        return token

    with torch.no_grad():
        assert optimizer.step(closure) is token
    assert calls == [True] and optimizer.step() is None


@every_key
def test_bfloat16_weights_move_and_stay_finite(key):
    param = matrix(torch.bfloat16, rows=8, columns=6)
    optimizer = build(key, [param], lr=how(key).rate)
    for number in range(10):
        param.grad = torch.as_tensor(np.random.default_rng(number).normal(size=(8, 6))).to(torch.bfloat16)
        step(key, optimizer)
    assert param.dtype == torch.bfloat16 and param.isfinite().all()
    assert (param != matrix(torch.bfloat16, rows=8, columns=6)).float().mean() > 0.5
    assert all(tensor.isfinite().all() for tensor in tensors_in(optimizer.state[param]) if tensor.is_floating_point())


# --- Checkpoints ----------------------------------------------------------------------------------


def saved_and_loaded(value: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_key
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_run_resumed_from_a_file_equals_one_that_never_stopped(key, dtype):
    whole = [*layouts(dtype).values(), matrix(dtype, rows=80, columns=64)]
    optimizer = build(key, whole, lr=0.01)
    advance(key, optimizer, whole, range(7), missing=0.3)
    weights = saved_and_loaded([param.detach() for param in whole])
    state = saved_and_loaded(optimizer.state_dict())
    resumed = [param.requires_grad_() for param in weights]
    # Its own hyper-parameters are overruled by the loaded ones.
    other = build(key, resumed, lr=123.0)
    other.load_state_dict(state)
    for param, twin in zip(whole, resumed, strict=True):
        for name, held in optimizer.state.get(param, {}).items():
            if isinstance(held, Tensor):
                assert same_bits(other.state[twin][name], held), name
    advance(key, optimizer, whole, range(7, 20), missing=0.3)
    advance(key, other, resumed, range(7, 20), missing=0.3)
    for expected, got in zip(whole, resumed, strict=True):
        assert same_bits(got, expected)


@every_key
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
                         ids=["deepcopy", "pickle"])  # fmt: skip
def test_a_copy_goes_on_by_itself(key, duplicate):
    param = matrix()
    optimizer = build(key, [param], lr=0.01)
    advance(key, optimizer, [param], range(5))
    twin, twin_param = duplicate((optimizer, param))
    advance(key, twin, [twin_param], range(5, 12))
    assert not same_bits(twin_param, param)
    advance(key, optimizer, [param], range(5, 12))
    assert same_bits(twin_param, param)


@every_key
def test_a_checkpoint_without_maximize_descends(key):
    param, ascending = matrix(), matrix()
    optimizer, other = build(key, [param], lr=0.01), build(key, [ascending], lr=0.01, maximize=True)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["maximize"]
    other.load_state_dict(state)
    advance(key, optimizer, [param], range(3))
    advance(key, other, [ascending], range(3))
    assert same_bits(param, ascending)


# --- Bad input ------------------------------------------------------------------------------------


@every_key
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_a_gradient_that_is_no_number_stays_where_it_belongs(key, bad):
    """It spoils its own element, or block, or tensor, as the rule's scope says, and never another tensor."""
    params, clean = ([matrix(rows=80, columns=64), matrix(seed=1)] for _ in range(2))
    optimizers = [build(key, some, lr=0.01) for some in (params, clean)]
    for number in range(3):
        give_gradients(np.random.default_rng(number), params, clean)
        if number == 1:
            params[0].grad[-1, -1] = bad
        for optimizer in optimizers:
            try:
                step(key, optimizer)
            except torch.linalg.LinAlgError:
                assert REGISTRY[key].scope == "tensor", "no eigenvectors of NaN: as loud as one can be"
                return
    assert same_bits(params[1], clean[1])
    spoiled = tensors_in([params[0].detach(), optimizers[0].state[params[0]]])
    assert not all(tensor.isfinite().all() for tensor in spoiled if tensor.is_floating_point())
    if REGISTRY[key].scope == "element":
        assert same_bits(params[0].view(-1)[:-1], clean[0].view(-1)[:-1])
    elif REGISTRY[key].scope == "block":
        assert same_bits(params[0][0], clean[0][0])


@every_key
@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_sparse_and_complex_gradients_are_refused(key, kind):
    param = torch.ones(2, 2, dtype=torch.complex64 if kind == "complex" else torch.float32, requires_grad=True)
    param.grad = torch.ones(2, 2, dtype=param.dtype)
    if kind == "sparse":
        param.grad = param.grad.to_sparse()
    optimizer = build(key, [param])
    with pytest.raises(RuntimeError, match=rf"does not support {kind} gradients \(.*shape \(2, 2\)\)"):
        step(key, optimizer)
    assert (param == 1).all()


@every_key
def test_parameters_that_torch_refuses_are_refused(key):
    shared = matrix()
    for params, error in [
        ([], ValueError),
        (matrix(), TypeError),
        ([1.0], TypeError),
        ([matrix() * 2], ValueError),
        ([{"params": [shared]}, {"params": [shared]}], ValueError),
    ]:
        with pytest.raises(error):
            REGISTRY[key].make(params)


@every_key
def test_a_zero_gradient_is_no_division_by_zero(key):
    """Nor is a zero parameter, or both."""
    params = [torch.full((4, 3), value, requires_grad=True) for value in (0.0, 1.0, 0.0)]
    optimizer = build(key, params, lr=0.01)
    for number in range(3):
        for param in params[:2]:
            param.grad = torch.zeros_like(param)
        params[2].grad = torch.as_tensor(np.random.default_rng(number).normal(size=(4, 3))).float()
        step(key, optimizer)
    assert all(param.isfinite().all() for param in params)
    assert (params[0] == 0).all() and params[2].abs().max() > 0


# Arguments whose range reaches below zero, or that take more than their default's type: what else is wrong for them.
SPECIAL: dict[tuple[str, str], list[Any]] = {
    ("adafactor", "beta2_decay"): [0.5, math.nan, -math.inf, "0.8", None],
    ("shampoo", "grafting"): ["sgd", True, 0.5],
}


def values_out_of_range(key: str, name: str, default: Any) -> list[Any]:
    if (key, name) in SPECIAL:
        return SPECIAL[key, name]
    if isinstance(default, bool):
        return ["false", None, 0.5]
    if isinstance(default, tuple):
        inside = default[:-1]
        return [*((*inside, bad) for bad in (math.nan, math.inf, "0.9", None)), inside, (*default, 0.9), 0.9, None, ()]
    if isinstance(default, int):
        return [-1, 1.5, math.nan, "1", True, None, [1]]
    wrong = [math.nan, -1e-9, "0.1", 1j, torch.tensor(0.1), [0.1]]
    return wrong if default is None else [*wrong, math.inf, None]


@pytest.mark.parametrize(("key", "name"), [(key, name) for key in OTHERS for name in arguments(REGISTRY[key])])
def test_a_hyper_parameter_out_of_range_is_named_with_what_is_allowed(key, name):
    make = REGISTRY[key].make
    optimizer = make([matrix()])
    bad = values_out_of_range(key, name, arguments(REGISTRY[key])[name].default)
    places = {
        "constructor": lambda value: make([matrix()], **{name: value}),
        "group": lambda value: make([{"params": [matrix()], name: value}]),
        "add_param_group": lambda value: optimizer.add_param_group({"params": [matrix()], name: value}),
    }
    for place, value in itertools.product(places, bad):
        with pytest.raises((ValueError, TypeError)) as caught:
            places[place](value)
            pytest.fail(f"{name}={value!r} was accepted by the {place}")
        message, _, allowed = str(caught.value).partition("Allowed: ")
        assert message.startswith(f"Invalid {name}") and allowed, message
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("key", REGISTRY)
def test_a_hook_runs_once_a_step_whatever_was_made_before(key):
    """torch wraps the step of a class when its first instance is made: a step that calls its base's would be wrapped twice."""
    ScratchOptimizer([matrix()], maximize=False)
    params = [matrix()]
    optimizer, calls = build(key, params), []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    params[0].grad = torch.ones_like(params[0])
    step(key, optimizer)
    assert calls == [1]
