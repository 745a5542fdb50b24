"""Master weights against a textbook in NumPy, torch on float32 weights, and a count of bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.optim import AdamW
from course_lib.precision import GradScaler, MasterWeights, round_to

SHAPES = ((5, 3), (3,))
CHOICES = ("native", "fp32", "both")
KEYS = {torch.bfloat16: "bf16", torch.float16: "fp16"}


def weights(dtype: torch.dtype = torch.bfloat16, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [torch.tensor(rng.standard_normal(shape), dtype=dtype, requires_grad=True) for shape in shapes]


def give(params: list[Tensor], gradients: list[np.ndarray | None]) -> None:
    """Have autograd deliver these gradients, as a backward pass does: added up, hooks and all."""
    for param, gradient in zip(params, gradients, strict=True):
        if gradient is not None:
            (param * torch.tensor(gradient, dtype=param.dtype)).sum().backward()


def adamw(masters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(masters, lr=1e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)


class Textbook:
    """AdamW of one tensor in NumPy float32, every operation rounded as the paper's line asks; no torch in it."""

    def __init__(self, weight: np.ndarray) -> None:
        self.master = weight.astype(np.float32)
        self.m, self.v = np.zeros_like(self.master), np.zeros_like(self.master)
        self.t = 0

    def step(self, gradient: np.ndarray) -> None:
        g, one = gradient.astype(np.float32), np.float32
        self.t += 1
        self.m = one(0.9) * self.m + one(0.1) * g
        self.v = one(0.95) * self.v + one(0.05) * g * g
        m_hat = self.m / one(1 - 0.9**self.t)
        v_hat = self.v / one(1 - 0.95**self.t)
        self.master = self.master * one(1 - 1e-2 * 0.1) - one(1e-2) * m_hat / (np.sqrt(v_hat) + one(1e-6))


@pytest.mark.parametrize("dtype", KEYS)
@pytest.mark.parametrize("choice", CHOICES)
def test_a_mixed_precision_adam_step_is_the_textbooks(choice, dtype):
    params = weights(dtype)
    books = [Textbook(round_to(param, KEYS[dtype])) for param in params]
    mixed = MasterWeights(params, adamw, gradients=choice)
    rng = np.random.default_rng(1)
    for step in range(80):
        gradients = [rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 1) for shape in SHAPES]
        give(params, gradients)
        mixed.step()
        mixed.zero_grad()
        for param, master, book, gradient in zip(params, mixed.masters, books, gradients, strict=True):
            book.step(round_to(gradient, KEYS[dtype]))
            # A few roundings of float32 apart: the order of operations within a line is the implementation's own.
            assert np.allclose(master.numpy(), book.master, rtol=0, atol=1e-6), step
            assert param.dtype is dtype
            # Bit for bit, this is the rounded master: there is no second path by which a weight could move.
            assert np.array_equal(param.detach().double().numpy(), round_to(master, KEYS[dtype])), step


@pytest.mark.parametrize("make", [adamw, lambda p: AdamW(p, 1e-2), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_the_masters_move_as_float32_weights_would(make):
    params = weights()
    plain = [param.detach().float().requires_grad_() for param in params]
    mixed, optimizer = MasterWeights(params, make), make(plain)
    rng = np.random.default_rng(2)
    for _ in range(50):
        mixed.zero_grad()
        give(params, [rng.standard_normal(shape) for shape in SHAPES])
        for weight, param in zip(plain, params, strict=True):
            weight.grad = param.grad.float()
        mixed.step()
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(mixed.masters, plain, strict=True))


def test_updates_too_small_for_a_bf16_weight_arrive():
    def sgd(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=1.0)

    param, pure = (torch.ones(1, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    mixed, optimizer = MasterWeights([param], sgd), sgd([pure])
    for _ in range(1000):
        param.grad = pure.grad = torch.full((1,), 1e-3, dtype=torch.bfloat16)
        mixed.step()
        optimizer.step()
    assert pure.item() == 1.0
    assert abs(param.item()) < 2e-3  # 1e-3 itself is 0.99945e-3 or so in bf16


@pytest.mark.parametrize(("choice", "arrives"), [("native", 256.0), ("fp32", 266.0), ("both", 266.0)])
def test_micro_batches_add_up_in_32_bits_only_with_a_buffer(choice, arrives):
    # From 256 on the gap of bf16 is 2: adding 1 is a tie that goes back to 256.
    param = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    mixed = MasterWeights([param], lambda masters: torch.optim.SGD(masters, lr=1.0), gradients=choice)
    give([param], [np.array([256.0])])
    for _ in range(10):
        give([param], [np.array([1.0])])
    mixed.step()
    assert mixed.masters[0].item() == -arrives


def kept(tensors: Any) -> int:
    """Bytes of the storages behind the tensors, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize(
    ("choice", "state_dtype", "gradient", "total"),
    [
        ("native", None, 2, 16),
        ("fp32", None, 4, 18),
        ("both", None, 6, 20),
        ("fp32", torch.bfloat16, 4, 14),
        ("native", torch.bfloat16, 2, 12),
    ],
)
def test_bytes_per_parameter_between_backward_and_step(choice, state_dtype, gradient, total):
    params = weights(shapes=((64, 32), (32,)))
    count = sum(param.numel() for param in params)
    mixed = MasterWeights(params, adamw, gradients=choice, state_dtype=state_dtype)
    for _ in range(2):
        mixed.zero_grad()
        give(params, [np.ones((64, 32)), np.ones(32)])
        gradients = [param.grad for param in params if param.grad is not None] + mixed.main_grads
        state = [value for entry in mixed.optimizer.state.values() for key, value in entry.items() if key != "step"]
        sizes = kept(params), kept(gradients), kept(mixed.masters), kept(state)
        mixed.step()
    assert sizes[0] + sizes[2] == 6 * count
    assert sizes[1] == gradient * count
    assert sum(sizes) == total * count
    assert all(master.grad is None for master in mixed.masters)


def test_moments_in_bf16_are_rounded_once_a_step():
    params = weights()
    mixed = MasterWeights(params, adamw, state_dtype=torch.bfloat16)
    books = [Textbook(round_to(param, "bf16")) for param in params]
    rng = np.random.default_rng(3)
    for _ in range(60):
        mixed.zero_grad()
        give(params, [rng.standard_normal(shape) for shape in SHAPES])
        gradients = [round_to(param.grad, "bf16") for param in params]
        mixed.step()
        for master, book, gradient in zip(mixed.masters, books, gradients, strict=True):
            book.step(gradient)
            state = mixed.optimizer.state[master]
            assert {state[name].dtype for name in ("exp_avg", "exp_avg_sq")} == {torch.bfloat16}
            assert state["step"].dtype is torch.float32
            # A last bit of float32 can decide a rounding to bf16, so the book goes on from the moments themselves.
            for name, mine in (("exp_avg", book.m), ("exp_avg_sq", book.v)):
                assert np.allclose(state[name].double().numpy(), mine, rtol=2.0**-8, atol=1e-9)
            assert np.allclose(master.numpy(), book.master, rtol=0, atol=1e-6)
            book.m = state["exp_avg"].float().numpy()
            book.v = state["exp_avg_sq"].float().numpy()


@pytest.mark.parametrize(("beta2", "shrinks"), [(0.95, True), (0.999, False)])
def test_a_second_moment_in_bf16_can_shrink_only_with_a_short_memory(beta2, shrinks):
    params = weights(shapes=((1,),))
    mixed = MasterWeights(params, lambda p: torch.optim.AdamW(p, betas=(0.9, beta2)), state_dtype=torch.bfloat16)
    second = []
    for gradient in [1.0] + [0.0] * 100:
        mixed.zero_grad()
        give(params, [np.array([gradient])])
        mixed.step()
        second.append(mixed.optimizer.state[mixed.masters[0]]["exp_avg_sq"].item())
    assert second[0] == pytest.approx(1 - beta2, rel=2.0**-8)
    assert (second[-1] < 0.01 * second[0]) if shrinks else (second[-1] == second[0])


@pytest.mark.parametrize("choice", CHOICES)
def test_a_parameter_without_a_gradient_is_left_alone(choice):
    params = weights()
    mixed = MasterWeights(params, adamw, gradients=choice)
    before = params[1].detach().clone()
    for _ in range(3):
        mixed.zero_grad()
        give(params, [np.ones(SHAPES[0]), None])
        mixed.step()
    assert torch.equal(params[1], before)
    assert mixed.masters[1] not in mixed.optimizer.state
    assert not torch.equal(params[0], weights()[0])


def test_groups_keep_their_settings_and_schedules_act():
    params = weights()
    groups = [{"params": params[0], "lr": 0.5}, {"params": [params[1]], "lr": 0.25, "name": "bias"}]
    mixed = MasterWeights(groups, lambda given: torch.optim.SGD(given, lr=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(mixed.optimizer, lambda step: 1.0 / (step + 1))
    before = [master.clone() for master in mixed.masters]
    for lrs in ((0.5, 0.25), (0.25, 0.125)):
        mixed.zero_grad()
        give(params, [np.ones(shape) for shape in SHAPES])
        mixed.step()
        schedule.step()
        for index, lr in enumerate(lrs):
            assert torch.equal(mixed.masters[index], before[index] - lr)
            before[index] -= lr
    assert mixed.optimizer.param_groups[1]["name"] == "bias"
    assert groups[0]["params"] is params[0]


@pytest.mark.parametrize("choice", CHOICES)
def test_loss_scaling_on_the_masters(choice):
    # Gradients of 2e-8 are zero in float16; those of 3.0 are too large once the scale is on them.
    def run(scaler: GradScaler | None) -> tuple[MasterWeights, list[float]]:
        params = weights(torch.float16)
        mixed = MasterWeights(params, lambda p: torch.optim.SGD(p, lr=1e6), gradients=choice)
        norms = []
        for step in range(30):
            mixed.zero_grad()
            size = 3.0 if scaler and step % 10 == 4 else 2e-8
            loss = sum((param.float() * size).sum() for param in params)
            if scaler is None:
                loss.backward()
                mixed.step()
                continue
            scaler.scale(loss).backward()
            mixed.gradients_to_masters()
            scaler.unscale_(mixed.optimizer)
            norms.append(torch.nn.utils.clip_grad_norm_(mixed.masters, 10.0).item())
            scaler.step(mixed.optimizer)
            mixed.masters_to_weights()
            scaler.update()
        return mixed, norms

    scaler = GradScaler(2.0**16, growth_interval=6)
    mixed, norms = run(scaler)
    count = sum(math.prod(shape) for shape in SHAPES)
    assert [step for step, norm in enumerate(norms) if not math.isfinite(norm)] == [4, 14, 24]
    assert norms[0] == pytest.approx(2e-8 * math.sqrt(count), rel=1e-3)
    for start, master in zip(weights(torch.float16), mixed.masters, strict=True):
        assert (start.float() - master).detach().numpy() == pytest.approx(27 * 0.02, rel=1e-3)
    unscaled, _ = run(None)
    for start, master in zip(weights(torch.float16), unscaled.masters, strict=True):
        assert torch.equal(start.float(), master)


@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_resumed_run_goes_on_bit_for_bit(choice, state_dtype):
    def begin() -> MasterWeights:
        return MasterWeights(weights(), adamw, gradients=choice, state_dtype=state_dtype)

    rng = np.random.default_rng(4)
    data = [[rng.standard_normal(shape) * 1e-2 for shape in SHAPES] for _ in range(30)]

    def go(mixed: MasterWeights, steps: list[list[np.ndarray]]) -> MasterWeights:
        for gradients in steps:
            mixed.zero_grad()
            give(mixed.weights, gradients)
            mixed.step()
        return mixed

    whole, first, resumed = go(begin(), data), go(begin(), data[:13]), begin()
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(resumed.weights, first.weights, strict=True))
    go(resumed, data[13:])
    for a, b in zip(whole.masters + whole.weights, resumed.masters + resumed.weights, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.optimizer.state.values(), resumed.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[name], b[name]) and a[name].dtype is b[name].dtype for name in a)


def test_resuming_from_the_weights_alone_loses_what_the_masters_held():
    params = [torch.ones(1, dtype=torch.bfloat16, requires_grad=True)]
    mixed = MasterWeights(params, lambda p: torch.optim.SGD(p, lr=1e-3))
    give(params, [np.ones(1)])
    mixed.step()
    assert params[0].item() == 1.0
    assert mixed.masters[0].item() == pytest.approx(0.999)
    assert MasterWeights(params, adamw).masters[0].item() == 1.0


@pytest.mark.parametrize("choice", CHOICES)
def test_zero_grad_forgets_everything(choice):
    params = weights()
    mixed = MasterWeights(params, adamw, gradients=choice)
    give(params, [np.ones(shape) for shape in SHAPES])
    buffers = list(mixed.main_grads)
    mixed.zero_grad()
    before = [master.clone() for master in mixed.masters]
    mixed.step()
    assert all(torch.equal(a, b) for a, b in zip(before, mixed.masters, strict=True))
    assert all(not buffer.any() for buffer in buffers)
    assert all(a is b for a, b in zip(buffers, mixed.main_grads, strict=True))
    assert all(param.grad is None or not param.grad.any() for param in params)
    assert [param.grad is None for param in params] == [choice != "both"] * 2


def refused(
    error: type[Exception], match: str, params: Any, make: Callable[[Any], Any] = adamw, **options: Any
) -> None:
    with pytest.raises(error, match=match):
        MasterWeights(params, make, **options)


def test_what_is_refused():
    params = weights()
    refused(
        TypeError, "parameter 1, of shape .* is torch.float32.* an optimizer of its own", [params[0], torch.ones(2)]
    )
    refused(TypeError, "parameter 0 is a float", [1.0])
    refused(ValueError, "no parameters", [])
    refused(ValueError, "no leaf", [params[0] * 2])
    refused(ValueError, "parameter 2, .* given twice", [*params, params[0]])
    refused(ValueError, "native, fp32, both", params, gradients="bf16")
    refused(ValueError, "None or torch.bfloat16", params, state_dtype=torch.float16)
    refused(TypeError, "make returned a NoneType", params, lambda masters: None)
    refused(ValueError, "not the 2 masters", params, lambda masters: torch.optim.SGD(params, lr=1.0))
    frozen = [torch.ones(2, dtype=torch.bfloat16)]
    refused(ValueError, "Leave frozen parameters out", frozen, gradients="fp32")


def test_state_dicts_of_others_are_refused():
    mixed = MasterWeights(weights(), adamw)
    good = mixed.state_dict()
    with pytest.raises(ValueError, match="lacks masters and optimizer"):
        mixed.load_state_dict({})
    for masters in (good["masters"][:1], good["masters"][::-1], [m.bfloat16() for m in good["masters"]]):
        with pytest.raises(ValueError, match="holds masters of"):
            mixed.load_state_dict(good | {"masters": masters})
