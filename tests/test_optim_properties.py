"""Rules that hold for all hyper-parameters, shapes and gradients of every optimizer in the registry."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from optim_cases import DRAWN, KEYS, STEPS, VARIANTS, Closeness, arguments, give_gradients, gradient, hypers, twins

from course_lib.optim import REGISTRY, SGD, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop

DTYPES = st.sampled_from([torch.float32, torch.float64])
SEEDS = st.integers(0, 2**16)
SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4)

every_key = pytest.mark.parametrize("key", KEYS)


def moderately(examples: int) -> settings:
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


def drawn_params(shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.as_tensor(rng.normal(size=shape)).to(dtype).requires_grad_() for shape in shapes]


@every_key
def test_every_argument_is_varied(key):
    varied = set(DRAWN).union(*VARIANTS[key])
    assert set(arguments(REGISTRY[key])) <= varied


@every_key
@given(data=st.data(), dtype=DTYPES, shapes=SHAPES, seed=SEEDS, missing=st.sampled_from([0.0, 0.3]))
@moderately(15)
def test_equals_production(key, data, dtype, shapes, seed, missing):
    hyper = data.draw(hypers(key), label="hyper")
    (mine, ours), (theirs, production) = twins(REGISTRY[key], hyper, lambda: drawn_params(shapes, dtype, seed))
    rng = np.random.default_rng(seed + 1)
    closeness = Closeness(theirs)
    base = [group["lr"] for group in ours.param_groups]
    for _ in range(STEPS):
        scale = rng.uniform(0.0, 1.0)
        for optimizer in (ours, production):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * scale
        give_gradients(rng, mine, theirs, missing=missing)
        ours.step()
        production.step()
        assume(all(param.isfinite().all() for param in theirs))
        closeness.check(mine, theirs)


@every_key
@given(data=st.data(), dtype=DTYPES, shapes=SHAPES, seed=SEEDS, cut=st.integers(0, 20))
@moderately(8)
def test_stopping_and_resuming_changes_no_bit(key, data, dtype, shapes, seed, cut):
    hyper = data.draw(hypers(key), label="hyper")
    make = REGISTRY[key].make
    whole, parted = drawn_params(shapes, dtype, seed), drawn_params(shapes, dtype, seed)
    straight, stopped = make(whole, **hyper), make(parted, **hyper)
    rng = np.random.default_rng(seed)
    for step in range(20):
        if step == cut:
            state = stopped.state_dict()
            stopped = make(parted)
            stopped.load_state_dict(state)
        give_gradients(rng, whole, parted, missing=0.3)
        straight.step()
        stopped.step()
    assert all(map(torch.equal, whole, parted))


@every_key
@given(data=st.data(), dtype=DTYPES, shapes=SHAPES, seed=SEEDS)
@moderately(8)
def test_a_parameter_knows_only_the_steps_on_which_it_had_a_gradient(key, data, dtype, shapes, seed):
    """Together with gradients missing here and there, or each alone on its own steps: no bit differs."""
    hyper = data.draw(hypers(key), label="hyper")
    make = REGISTRY[key].make
    together, alone = drawn_params(shapes, dtype, seed), drawn_params(shapes, dtype, seed)
    optimizer, singles = make(together, **hyper), [make([param], **hyper) for param in alone]
    rng = np.random.default_rng(seed)
    counts = [0] * len(shapes)
    for _ in range(20):
        give_gradients(rng, together, missing=0.5)
        optimizer.step()
        for index, (param, single) in enumerate(zip(alone, singles, strict=True)):
            if together[index].grad is not None:
                param.grad = together[index].grad.clone()
                single.step()
                counts[index] += 1
    assert all(map(torch.equal, together, alone))
    assert [optimizer.state[param].get("step", 0) for param in together] == counts


@every_key
@given(data=st.data(), dtype=DTYPES, seed=SEEDS)
@moderately(8)
def test_maximizing_is_minimizing_along_the_negative_gradient(key, data, dtype, seed):
    hyper = data.draw(hypers(key), label="hyper")
    up, down = drawn_params([(5,)], dtype, seed), drawn_params([(5,)], dtype, seed)
    ascent = REGISTRY[key].make(up, **hyper | {"maximize": True})
    descent = REGISTRY[key].make(down, **hyper | {"maximize": False})
    rng = np.random.default_rng(seed)
    for _ in range(20):
        up[0].grad = gradient(rng, up[0])
        down[0].grad = -up[0].grad
        ascent.step()
        descent.step()
    assert torch.equal(up[0], down[0])


@every_key
@given(data=st.data(), seed=SEEDS)
@moderately(5)
def test_lr_zero_moves_nothing(key, data, seed):
    hyper = data.draw(hypers(key), label="hyper")
    (param,) = drawn_params([(4,)], torch.float64, seed)
    before = param.detach().clone()
    optimizer = REGISTRY[key].make([param], **hyper | {"lr": 0.0})
    for _ in range(5):
        param.grad = gradient(np.random.default_rng(seed), param)
        optimizer.step()
    assert torch.equal(param, before)


# --- Ranges ---------------------------------------------------------------------------------------


def accepted(factory: Any, hyper: dict[str, Any]) -> bool:
    try:
        factory([torch.zeros(1, dtype=torch.float64, requires_grad=True)], **hyper)
    except (ValueError, TypeError):
        return False
    return True


@every_key
@given(data=st.data())
@moderately(150)
def test_what_production_refuses_is_refused(key, data):
    """Betas are drawn as floats: production refuses the whole numbers 0 and 1 by their type, here 0 is in range."""
    entry = REGISTRY[key]
    name = data.draw(st.sampled_from(sorted(arguments(entry))), label="name")
    if name == "betas":
        strategy: st.SearchStrategy = st.tuples(st.floats(), st.floats())
    else:
        strategy = st.floats() | st.integers(-3, 3) | st.booleans() | st.text(max_size=2) | st.none()
    value = data.draw(strategy, label="value")
    if accepted(entry.make, {name: value}):
        assert accepted(entry.production, {name: value})


@every_key
@given(data=st.data())
@moderately(25)
def test_what_is_in_range_is_accepted(key, data):
    hyper = data.draw(hypers(key), label="hyper")
    assert accepted(REGISTRY[key].production, hyper)
    assert accepted(REGISTRY[key].make, hyper)


# --- Where the decay goes -------------------------------------------------------------------------


def with_zero_gradients(make: Any, steps: int, start: list[float], **hyper: Any) -> torch.Tensor:
    param = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = make([param], **hyper)
    for _ in range(steps):
        param.grad = torch.zeros_like(param)
        optimizer.step()
    return param.detach()


STARTS = st.lists(st.floats(0.5, 10.0) | st.floats(-10.0, -0.5), min_size=1, max_size=4)
LRS = st.floats(1e-4, 0.5)
DECAYS = st.floats(1e-3, 1.0)
COUNTS = st.integers(1, 50)


@pytest.mark.parametrize(
    "make",
    [AdamW, SGD, partial(NAdam, decoupled_weight_decay=True), partial(RAdam, decoupled_weight_decay=True)],
    ids=["adamw", "sgd", "nadam", "radam"],
)
@given(start=STARTS, lr=LRS, decay=DECAYS, steps=COUNTS)
@moderately(25)
def test_without_a_gradient_the_weights_shrink_geometrically(make, start, lr, decay, steps):
    """By exactly 1 - lr * weight_decay a step; for SGD without momentum the L2 penalty is the same thing."""
    param = with_zero_gradients(make, steps, start, lr=lr, weight_decay=decay)
    expected = np.array(start) * (1.0 - lr * decay) ** steps
    np.testing.assert_allclose(param.numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("make", [Adam, RMSprop, Adagrad, Adamax, NAdam])
@given(start=STARTS, lr=st.floats(1e-4, 1e-3), steps=COUNTS, decays=st.tuples(DECAYS, DECAYS))
@moderately(25)
def test_an_l2_penalty_is_normalised_away(make, start, lr, steps, decays):
    """Inside the gradient the decay's size cancels against sqrt(v): only that there is one matters, not how much."""
    first, second = (with_zero_gradients(make, steps, start, lr=lr, eps=0.0, weight_decay=decay) for decay in decays)
    np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=1e-10)
    assert (first.abs() < torch.tensor(start).abs()).all()


@given(lr=LRS, decays=st.tuples(DECAYS, DECAYS), seed=SEEDS)
@moderately(25)
def test_adamw_keeps_the_decay_out_of_its_moments_and_adam_does_not(lr, decays, seed):
    assume(not math.isclose(*decays, rel_tol=1e-3))
    moments = {}
    for make in (Adam, AdamW):
        for decay in decays:
            (param,) = drawn_params([(3,)], torch.float64, seed)
            optimizer = make([param], lr=lr, weight_decay=decay)
            rng = np.random.default_rng(seed)
            for _ in range(5):
                param.grad = gradient(rng, param)
                optimizer.step()
            moments[make, decay] = torch.cat([optimizer.state[param][name] for name in ("exp_avg", "exp_avg_sq")])
    assert torch.equal(moments[AdamW, decays[0]], moments[AdamW, decays[1]])
    assert not torch.equal(moments[Adam, decays[0]], moments[Adam, decays[1]])


@given(lr=LRS, decay=DECAYS, scale=st.integers(-20, 20), seed=SEEDS)
@moderately(25)
def test_adamw_without_eps_does_not_see_the_scale_of_the_loss(lr, decay, scale, seed):
    """Gradients times 2^k: the same path, decay included."""
    paths = []
    for factor in (1.0, 2.0**scale):
        (param,) = drawn_params([(3,)], torch.float64, seed)
        optimizer = AdamW([param], lr=lr, eps=0.0, weight_decay=decay)
        rng = np.random.default_rng(seed)
        for _ in range(10):
            param.grad = torch.as_tensor(rng.normal(size=3)) * factor
            optimizer.step()
        paths.append(param.detach().numpy())
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-12, atol=1e-14)
