"""The loss scaler beside torch.amp.GradScaler("cpu"), step for step over thousands of steps with random overflows."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor

from course_lib.precision import GradScaler, ScaleBottomedOut

SHAPES = ((3, 4), (4,), (2, 4))


class Run:
    """A scaler and two optimizers over fixed data, of which a step can be made to overflow at will.

    The forward pass is a float32 one; what float16 would do is done to the gradients of the scaled loss,
    by rounding them to float16 and back.
    """

    def __init__(self, scaler: Any, optimizers: Callable[[list[Tensor], list[Tensor]], list[Any]]) -> None:
        rng = np.random.default_rng(0)
        self.weights = [torch.tensor(rng.standard_normal(s) / 2, dtype=torch.float32).requires_grad_() for s in SHAPES]
        self.scaler = scaler
        self.optimizers = optimizers(self.weights[:2], self.weights[2:])

    def step(self, x: Tensor, poison: tuple[int, float] | None, early: int) -> list[Any]:
        """One iteration. ``poison``: a weight and a factor on its gradient; ``early``: bits of optimizers to unscale.

        Returns what is compared: scale, clean steps, weights, gradients, the optimizers' counts of steps.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        first, bias, second = self.weights
        loss = (torch.tanh(x @ first + bias) @ second.T).square().mean()
        self.scaler.scale(loss).backward()
        for index, weight in enumerate(self.weights):
            if poison and poison[0] == index:
                weight.grad.mul_(poison[1])
            weight.grad.copy_(weight.grad.half())
        for index, optimizer in enumerate(self.optimizers):
            if early >> index & 1:
                self.scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.05)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        counts = [int(state.get("step", 0)) for optimizer in self.optimizers for state in optimizer.state.values()]
        tensors = [tensor.clone() for weight in self.weights for tensor in (weight.detach(), weight.grad)]
        return [self.scaler.get_scale(), self.scaler.state_dict()["_growth_tracker"], counts, *tensors]


def adamw_and_sgd(first: list[Tensor], second: list[Tensor]) -> list[Any]:
    return [torch.optim.AdamW(first, lr=1e-2), torch.optim.SGD(second, lr=0.1, momentum=0.9)]


def plan(steps: int, seed: int, share: float) -> list[tuple[Tensor, tuple[int, float] | None, int]]:
    """Data, overflows (too large, inf, NaN, in one weight or another) and early unscaling for every step."""
    rng = np.random.default_rng(seed)
    factors = (1e9, math.inf, math.nan, -1e30)
    made = []
    for _ in range(steps):
        x = torch.tensor(rng.standard_normal((5, 3)), dtype=torch.float32)
        overflow = (int(rng.integers(3)), factors[rng.integers(4)]) if rng.random() < share else None
        made.append((x, overflow, int(rng.integers(4))))
    return made


def assert_same(mine: list[Any], theirs: list[Any], step: int) -> None:
    assert mine[:3] == theirs[:3], f"step {step}"
    for a, b in zip(mine[3:], theirs[3:], strict=True):
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), f"step {step}"
        assert torch.equal(a.isnan(), b.isnan()), f"step {step}"


@pytest.mark.parametrize(
    ("steps", "settings_of_both"),
    [
        (3200, {"growth_interval": 7}),
        (600, {"init_scale": 3.0, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2}),
        (600, {"init_scale": 2.0**127, "growth_factor": 3.0, "backoff_factor": 0.7, "growth_interval": 1}),
    ],
    ids=["powers of two", "other factors", "from the largest float32 down"],
)
def test_equals_torch_step_for_step(steps, settings_of_both):
    mine = Run(GradScaler(**settings_of_both), adamw_and_sgd)
    theirs = Run(torch.amp.GradScaler("cpu", **settings_of_both), adamw_and_sgd)
    skipped = 0
    for step, made in enumerate(plan(steps, 1, share=0.05)):
        before = mine.scaler.get_scale()
        result = mine.step(*made)
        assert_same(result, theirs.step(*made), step)
        skipped += result[0] < before
    assert skipped > 0.04 * steps
    for a, b in zip(mine.optimizers, theirs.optimizers, strict=True):
        for state_a, state_b in zip(a.state.values(), b.state.values(), strict=True):
            for name, value in state_a.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(state_b[name]))


@pytest.mark.parametrize("mine_first", [True, False], ids=["from mine to torch's", "from torch's to mine"])
def test_a_run_begun_with_one_goes_on_with_the_other(mine_first):
    def scaler(mine: bool) -> Any:
        return GradScaler(growth_interval=11) if mine else torch.amp.GradScaler("cpu", growth_interval=11)

    made = plan(300, 2, 0.1)
    whole = Run(torch.amp.GradScaler("cpu", growth_interval=11), adamw_and_sgd)
    resumed = Run(scaler(mine_first), adamw_and_sgd)
    for step, one in enumerate(made):
        if step % 77 == 76:
            other = scaler(mine_first := not mine_first)
            other.load_state_dict(copy.deepcopy(resumed.scaler.state_dict()))
            assert other.state_dict() == resumed.scaler.state_dict()
            resumed.scaler = other
        assert_same(resumed.step(*one), whole.step(*one), step)


@settings(max_examples=40)
@given(
    scale=st.floats(2.0**-20, 2.0**100),
    growth=st.floats(1.01, 16),
    backoff=st.floats(0.01, 0.99),
    interval=st.integers(1, 4),
    found=st.lists(st.booleans(), max_size=30),
)
@example(scale=2.0**100, growth=16.0, backoff=0.5, interval=1, found=[False] * 9)  # up to where float32 ends
def test_the_scale_moves_as_torchs_kernel_moves_it(scale, growth, backoff, interval, found):
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    mine = GradScaler(scale, growth, backoff, interval, min_scale=1e-45)
    value = torch.tensor(scale, dtype=torch.float32)
    tracker = torch.zeros((), dtype=torch.int32)
    mine.scale(weight)
    for overflow in found:
        weight.grad = torch.tensor([math.inf if overflow else 1.0])
        mine.step(optimizer)
        torch._amp_update_scale_(value, tracker, torch.tensor(float(overflow)), growth, backoff, interval)
        if value < 1e-45:
            with pytest.raises(ScaleBottomedOut):
                mine.update()
            return
        mine.update()
        assert (mine.get_scale(), mine.state_dict()["_growth_tracker"]) == (value.item(), tracker.item())


def test_fused_and_sparse_optimizers_take_the_same_steps_as_torch():
    def sparse_and_fused(scaler: Any) -> list[Tensor]:
        rng = np.random.default_rng(3)
        rows = torch.nn.Embedding(6, 2, sparse=True)
        matrix = torch.tensor(rng.standard_normal((2, 3)), dtype=torch.float32, requires_grad=True)
        with torch.no_grad():
            rows.weight.copy_(torch.tensor(rng.standard_normal((6, 2))))
        optimizers = [torch.optim.SGD(rows.parameters(), lr=0.1), torch.optim.AdamW([matrix], lr=0.1, fused=True)]
        for step in range(60):
            for optimizer in optimizers:
                optimizer.zero_grad()
            words = torch.tensor(rng.integers(0, 6, 8))  # words occur twice: the gradient is not coalesced
            scaler.scale((rows(words) @ matrix).square().mean()).backward()
            if step % 5 == 2:
                rows.weight.grad._values()[0, 0] = math.inf
            if step % 7 == 3:
                matrix.grad[0, 0] = math.nan
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
        return [torch.tensor(scaler.get_scale()), rows.weight.detach(), matrix.detach()]

    mine = sparse_and_fused(GradScaler(growth_interval=4))
    theirs = sparse_and_fused(torch.amp.GradScaler("cpu", growth_interval=4))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a, b)


def test_a_parameter_without_a_gradient_is_passed_over():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([unused, used], lr=0.5)
    scaler = GradScaler(8.0)
    scaler.scale(used.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert unused.grad is None
    assert used.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_of_every_dtype_are_unscaled_as_torch_does(dtype):
    rng = np.random.default_rng(4)
    gradient = torch.tensor(rng.standard_normal(1000) * 100, dtype=dtype)
    results = []
    for scaler in (GradScaler(3.0), torch.amp.GradScaler("cpu", 3.0)):
        weight = torch.zeros(1000, dtype=dtype, requires_grad=True)
        scaler.scale(torch.zeros(()))
        weight.grad = gradient.clone()
        scaler.unscale_(torch.optim.SGD([weight], lr=1.0))
        results.append(weight.grad)
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_scaled_loss_has_the_dtype_that_torch_gives_it(dtype):
    for loss in (torch.tensor(2.5, dtype=dtype), torch.tensor([2.5], dtype=dtype)):
        mine, theirs = GradScaler().scale(loss), torch.amp.GradScaler("cpu").scale(loss)
        assert mine.dtype is theirs.dtype
        assert torch.equal(mine, theirs)


def test_overflow_at_every_step_bottoms_out():
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = GradScaler()
    for _ in range(40):  # from 2^16 to 2^-24
        scaler.scale(weight.sum() * math.inf).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**-24
    for steps in (41, 42):
        scaler.scale(weight.sum() * math.inf).backward()
        scaler.step(optimizer)
        with pytest.raises(ScaleBottomedOut, match=f"{steps} steps in a row overflowed.* not finite"):
            scaler.update()
        assert scaler.get_scale() == 2.0**-24
    # Whoever mends the cause can go on, and the count starts anew.
    for loss in (weight.sum(), weight.sum() * math.nan):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        if loss.isfinite():
            scaler.update()
    assert weight.item() == pytest.approx(0.9)
    with pytest.raises(ScaleBottomedOut, match="this step overflowed"):
        scaler.update()


def scaled() -> tuple[GradScaler, torch.optim.Optimizer]:
    """A scaler after scale() and backward()."""
    weight = torch.ones(2, requires_grad=True)
    scaler = GradScaler()
    scaler.scale(weight.sum()).backward()
    return scaler, torch.optim.SGD([weight], lr=0.1)


def test_calls_in_a_wrong_order_are_refused_in_torchs_words():
    scaler, optimizer = scaled()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called on this optimizer since the last"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step\(\)"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update\(\)"):
        scaler.step(optimizer)
    scaler.update()
    with pytest.raises(RuntimeError, match="No inf checks were recorded prior to update"):
        scaler.update()
    optimizer.zero_grad()
    for call in (scaler.step, scaler.unscale_):
        with pytest.raises(RuntimeError, match="No inf checks were recorded for this optimizer"):
            call(optimizer)


def test_nothing_works_before_the_first_scale():
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    scaler, optimizer = GradScaler(), torch.optim.SGD([weight], lr=0.1)
    for call in (lambda: scaler.step(optimizer), lambda: scaler.unscale_(optimizer), scaler.update):
        with pytest.raises(RuntimeError, match=r"before scale\(\)"):
            call()


def test_float16_gradients_are_refused_and_left_as_they_are():
    weights = [torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.float16, requires_grad=True)]
    scaler = GradScaler(4.0)
    scaler.scale(torch.ones(()))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for call in (scaler.unscale_, scaler.step):
        with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
            call(optimizer)
    assert weights[0].grad.tolist() == [1.0, 1.0]
    assert weights[0].tolist() == [1.0, 1.0]


def test_a_failing_optimizer_step_can_be_repeated():
    scaler, optimizer = scaled()
    plain, calls = optimizer.step, []

    def failing() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no space")
        plain()

    optimizer.step = failing
    with pytest.raises(OSError, match="no space"):
        scaler.step(optimizer)
    scaler.step(optimizer)
    assert optimizer.param_groups[0]["params"][0].tolist() == pytest.approx([0.9, 0.9])


def test_step_returns_what_the_optimizer_returned():
    scaler, optimizer = scaled()
    optimizer.step = lambda: 3.5
    assert scaler.step(optimizer) == 3.5


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [(name, value, ValueError) for name in ("growth_factor", "backoff_factor") for value in (1.0, 0.0, -2.0, math.nan)]
    + [(name, value, ValueError) for name in ("init_scale", "min_scale") for value in (0.0, -1.0, math.inf, math.nan)]
    + [("init_scale", 1e39, ValueError), ("init_scale", 1e-50, ValueError), ("init_scale", 2.0**-25, ValueError)]
    + [("growth_factor", math.inf, ValueError), ("growth_interval", 0, ValueError), ("growth_interval", -1, ValueError)]
    + [("growth_interval", 2000.0, TypeError), ("growth_interval", True, TypeError), ("init_scale", "1", TypeError)]
    + [("growth_factor", None, TypeError), ("backoff_factor", True, TypeError)],
)
def test_settings_out_of_range_are_refused(name, value, error):
    with pytest.raises(error, match=f"Invalid (scale|{name}): .* Allowed: "):
        GradScaler(**{name: value})


def test_state_dicts_that_cannot_be_continued_are_refused():
    good = GradScaler().state_dict()
    assert good == torch.amp.GradScaler("cpu").state_dict()
    scaler = GradScaler(8.0)
    with pytest.raises(RuntimeError, match="empty"):
        scaler.load_state_dict({})
    with pytest.raises(ValueError, match="lacks _growth_tracker, scale"):
        scaler.load_state_dict({key: good[key] for key in good if key not in ("scale", "_growth_tracker")})
    for change in ({"scale": 0.0}, {"scale": math.nan}, {"growth_factor": 0.5}, {"_growth_tracker": -1}):
        with pytest.raises(ValueError, match="Allowed"):
            scaler.load_state_dict(good | change)
    assert scaler.get_scale() == 8.0


def test_survives_pickling_between_steps():
    scaler, optimizer = scaled()
    scaler.step(optimizer)
    scaler.update()
    assert pickle.loads(pickle.dumps(scaler)).state_dict() == scaler.state_dict()


def test_a_loss_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="a tensor"):
        GradScaler().scale(2.5)
