"""What the tests of the optimizers vary, and how close is close enough, each in one place.

The tests iterate over ``KEYS``. An optimizer that joins them is covered once its arguments beyond the
shared ones appear in ``DRAWN`` or in its row of ``VARIANTS``; a test fails until they do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from torch import Tensor

from course_lib.optim import REGISTRY, TORCH_KEYS, Entry

STEPS = 200

# The tests that iterate over these hold them to torch.optim in every memory layout and dtype; the other optimizers of
# the registry have tests of their own, beside the numbers of the papers.
KEYS = list(TORCH_KEYS)

# Fixed hyper-parameters far from the defaults, per key. Each runs over every layout, in float32 and float64.
_ADAM_VARIANTS = (
    {"lr": 0.3, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.1},
    {"lr": 1.0, "betas": (0.0, 0.0), "maximize": True},
    {"lr": 10.0, "betas": (0.999, 0.9999), "eps": 1e-12, "weight_decay": 0.0},
    {"lr": 0.5, "betas": (0.99, 0.9), "eps": 1.0, "weight_decay": 1.0, "maximize": True},
)
_MOMENTUM_VARIANTS = (
    {"lr": 0.5, "weight_decay": 0.3, "maximize": True},
    {"lr": 0.1, "momentum": 0.99, "weight_decay": 0.01},
)
_DECOUPLED = {"lr": 0.1, "weight_decay": 0.5, "decoupled_weight_decay": True}
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "sgd": ({"lr": 1.0, "weight_decay": 0.5}, {"lr": 1e-6, "maximize": True}, {"momentum": 0.5, "dampening": 0.5}),
    "momentum": (
        *_MOMENTUM_VARIANTS,
        {"lr": 0.3, "momentum": 0.8, "dampening": 0.8},
        {"lr": 0.1, "momentum": 0.5, "dampening": -1.0, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1},
    ),
    "nesterov": _MOMENTUM_VARIANTS,
    "adagrad": (
        {"lr": 1.0, "lr_decay": 0.1, "eps": 1.0, "weight_decay": 0.3},
        {"lr": 0.3, "initial_accumulator_value": 0.1, "maximize": True},
    ),
    "rmsprop": (
        {"lr": 0.3, "alpha": 0.0, "eps": 1.0, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.9, "alpha": 0.9, "maximize": True},
        {"lr": 0.1, "centered": True, "eps": 1e-3},
        {"lr": 1.0, "centered": True, "momentum": 0.5, "alpha": 0.5, "eps": 0.1, "weight_decay": 0.1},
    ),
    "adadelta": (
        {"lr": 0.5, "rho": 0.99, "eps": 1e-2, "weight_decay": 0.1},
        {"lr": 10.0, "rho": 0.0, "eps": 1e-9, "maximize": True},
    ),
    "adam": (*_ADAM_VARIANTS, {"amsgrad": True}),
    "amsgrad": _ADAM_VARIANTS,
    "adamw": (*_ADAM_VARIANTS, {"amsgrad": True, "lr": 0.1}),
    "adamax": _ADAM_VARIANTS,
    "nadam": (*_ADAM_VARIANTS, _DECOUPLED, {"lr": 0.3, "betas": (0.5, 0.9), "momentum_decay": 1.0},
              {"momentum_decay": 0.0}),
    # 0.6 and 0.0 for beta2 never adapt; 0.7 adapts at the very end of its short memory only.
    "radam": (*_ADAM_VARIANTS, _DECOUPLED, {"lr": 0.3, "betas": (0.9, 0.7)}),
}

# What hypothesis draws for an argument of this name, whichever optimizer has it. An average of squares that forgets at
# once (decay 0, in VARIANTS) is left out: where a gradient is nearly zero it divides rounding errors by nearly zero.
_decay = st.just(0.0) | st.floats(0.1, 0.999) | st.sampled_from([0.9, 0.95, 0.99])
_decay_of_squares = st.floats(0.5, 0.9999) | st.sampled_from([0.95, 0.99, 0.999])
DRAWN: dict[str, st.SearchStrategy] = {
    "lr": st.floats(-6.0, 1.0).map(lambda power: 10.0**power),
    "betas": st.tuples(_decay, _decay_of_squares),
    "alpha": _decay_of_squares,
    "rho": _decay_of_squares,
    "momentum": _decay,
    "dampening": st.floats(-1.0, 1.0),
    "eps": st.floats(-12.0, 0.0).map(lambda power: 10.0**power),
    "weight_decay": st.just(0.0) | st.floats(1e-4, 1.0),
    "lr_decay": st.just(0.0) | st.floats(1e-4, 1.0),
    "initial_accumulator_value": st.just(0.0) | st.floats(1e-6, 10.0),
    "momentum_decay": st.just(0.0) | st.floats(1e-4, 1.0),
    "decoupled_weight_decay": st.booleans(),
    "amsgrad": st.booleans(),
    "centered": st.booleans(),
    "maximize": st.booleans(),
    "nesterov": st.booleans(),
}


def fixed_cases() -> Iterable[tuple[str, dict[str, Any]]]:
    """Every key with its defaults, then with each of its variants."""
    for key in KEYS:
        for hyper in ({}, *VARIANTS.get(key, ())):
            yield key, hyper


def arguments(entry: Entry) -> dict[str, inspect.Parameter]:
    """The hyper-parameters that the course's implementation takes, by name, with the registry's defaults."""
    parameters = dict(inspect.signature(entry.make).parameters)
    parameters.pop("params")
    return parameters


@st.composite
def hypers(draw: st.DrawFn, key: str) -> dict[str, Any]:
    """Hyper-parameters of the optimizer ``key`` that its production counterpart accepts."""
    drawn = {name: draw(DRAWN[name], label=name) for name in arguments(REGISTRY[key]) if name in DRAWN}
    if drawn.get("nesterov"):
        drawn["dampening"] = 0.0
    if drawn.get("nesterov") or key == "nesterov":
        drawn["momentum"] = max(drawn["momentum"], 0.1)
    if "weight_decay" in drawn:
        # Decay inside the gradient feeds a parameter back through a division by sqrt(v). Strong feedback is chaotic:
        # rounding errors grow exponentially. VARIANTS hold strong decay where it is stable.
        drawn["weight_decay"] = min(drawn["weight_decay"], 0.01 / drawn["lr"])
    if drawn.get("centered"):
        # v - mean(g)^2 is a difference of nearly equal numbers; a tiny eps would divide by its rounding error.
        drawn["eps"] = max(drawn["eps"], 1e-3)
    return drawn


def tolerance(dtype: torch.dtype, step: int, factor: float = 8.0) -> float:
    """How far two implementations may be apart after ``step`` steps, relative to the tensor's largest value so far.

    Both compute the same real numbers, with the operations in another order (torch folds the bias
    corrections into the step size and averages with ``lerp``; the course writes the paper's lines). So one step
    rounds differently by a few units in the last place, of the update or of the parameter, whichever is larger.
    The differences of many steps add up like a random walk: with the square root of their number.
    8 * eps * sqrt(step) is 2.5e-14 in float64 and 1.3e-5 in float32 after 200 steps. The largest difference seen in
    900 drawn runs of Adam, AMSGrad and AdamW is about a quarter of that. A misplaced epsilon, the smallest of the usual
    mistakes, is off by 1e-8 at the defaults in float64.
    """
    return factor * torch.finfo(dtype).eps * math.sqrt(step)


def leaf(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def layouts(dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> dict[str, Tensor]:
    """Leaf parameters of every shape and memory layout that a rule must not care about."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Tensor:
        return torch.as_tensor(rng.normal(size=shape)).to(device, dtype)

    tensors = {
        "0-d": draw(),
        "empty": draw(0),
        "empty matrix": draw(3, 0),
        "vector": draw(5),
        "matrix": draw(4, 3),
        "transposed": draw(4, 3).t(),
        "every other": draw(10)[::2],
        "block": draw(4, 6)[1:3, 2:5],
        "channels last": draw(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def twins(entry: Entry, hyper: Mapping[str, Any], make: Callable[[], list[Tensor]]) -> tuple:
    """``((params, ours), (params, production))`` over equal parameters, in two groups that differ in lr."""

    def build(factory: Callable) -> tuple[list[Tensor], torch.optim.Optimizer]:
        params = make()
        lr = arguments(entry)["lr"].default if "lr" not in hyper else hyper["lr"]
        half = (len(params) + 1) // 2
        groups = [{"params": params[:half]}, {"params": params[half:], "lr": lr / 2}]
        return params, factory([group for group in groups if group["params"]], **hyper)

    return build(entry.make), build(entry.production)


def gradient(rng: np.random.Generator, param: Tensor) -> Tensor:
    """A gradient whose size varies over five decades from step to step, with exact zeros among its entries."""
    values = rng.normal(size=tuple(param.shape)) * 10.0 ** rng.integers(-2, 3)
    return torch.as_tensor(values * (rng.random(tuple(param.shape)) > 0.1)).to(param.device, param.dtype)


def give_gradients(rng: np.random.Generator, *param_lists: list[Tensor], missing: float = 0.0) -> None:
    """Give the parameters of every list the same gradients, each absent with probability ``missing``."""
    for same in zip(*param_lists, strict=True):
        absent = rng.random() < missing
        grad = gradient(rng, same[0])
        for param in same:
            param.grad = None if absent else grad.clone()


def run(optimizer: torch.optim.Optimizer, param: Tensor, grads) -> list[np.ndarray]:
    """The parameter after each step, given the gradient of each step or a function of the parameter."""
    path = []
    for grad in grads:
        value = grad(param.detach().numpy()) if callable(grad) else grad
        param.grad = torch.as_tensor(np.asarray(value, dtype=np.float64)).reshape(param.shape)
        optimizer.step()
        path.append(param.detach().numpy().copy())
    return path


class Closeness:
    """Compares two runs step by step, and remembers how large each parameter has been."""

    def __init__(self, params: list[Tensor], factor: float = 8.0) -> None:
        self.factor = factor
        self.step = 0
        self.largest = [0.0] * len(params)
        self.note_size(params)

    def note_size(self, params: list[Tensor]) -> None:
        for index, param in enumerate(params):
            if param.numel():
                self.largest[index] = max(self.largest[index], param.detach().abs().max().item())

    def check(self, mine: list[Tensor], theirs: list[Tensor]) -> None:
        """Assert that every parameter is within the tolerance of its twin, after one more step."""
        self.step += 1
        self.note_size(theirs)
        for index, (got, expected) in enumerate(zip(mine, theirs, strict=True)):
            if not got.numel():
                continue
            allowed = tolerance(got.dtype, self.step, self.factor) * self.largest[index]
            difference = (got.detach().double() - expected.detach().double()).abs().max().item()
            assert difference <= allowed, (
                f"parameter {index} of shape {tuple(got.shape)}, {got.dtype}, differs by {difference:.3g} "
                f"after step {self.step}; allowed {allowed:.3g}"
            )
