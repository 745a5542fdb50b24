"""Evidence for ``bank/kernels.yaml``: operations and bytes counted on the CPU, times derived from them, no GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from course_lib.kernels import traffic
from course_lib.questions.evidence._feed import ADAMW, both_versions, normal
from course_lib.questions.runs import Curves, Panel


def _adamw_traffic(tensors: int, **implementation: bool) -> tuple[int, float]:
    """Operations of an AdamW step over ``tensors`` tensors, and bytes it moves per float32 parameter."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(64, generator=generator)) for _ in range(tensors)]
    for weight in weights:
        weight.grad = torch.randn(64, generator=generator)
    stepper = ADAMW(weights, lr=0.1, weight_decay=0.1, **implementation)
    stepper.step()
    counted = traffic.count(stepper.step)
    return counted.calls, counted.moved / (64 * tensors)


def step_milliseconds(parameters: float = 7e9, bandwidth: float = 3.35) -> float:
    """Least ms for AdamW in mixed precision at ``bandwidth`` TB/s: every byte once."""
    read = {"gradient, bf16": 2, "master": 4, "m": 4, "v": 4}
    written = {"master": 4, "m": 4, "v": 4, "weight, bf16": 2}
    return float(parameters * (sum(read.values()) + sum(written.values())) / (bandwidth * 1e12) * 1e3)


def three_implementations() -> None:
    """Five tensors: the for-loop makes 40 calls and foreach 8, both with 80 bytes per parameter; fused 1, 28 bytes."""
    assert _adamw_traffic(5, foreach=False) == (40, 80.0)
    assert _adamw_traffic(5, foreach=True) == (8, 80.0)
    assert _adamw_traffic(5, fused=True) == (1, 28.0)
    assert round(80 / 28, 2) == 2.86


def loop_milliseconds(tensors: int = 1000, elements: int = 4096, launch: int = 5) -> float:
    """ms of a for-loop AdamW step: launches at ``launch`` microseconds, or bytes at 3.35 TB/s, whichever is longer."""
    calls, moved = _adamw_traffic(2, foreach=False)
    launches = tensors * calls / 2 * launch * 1e-6
    return float(max(launches, tensors * elements * moved / 3.35e12) * 1e3)


def flops_and_bytes() -> None:
    """AdamW does about half a FLOP a byte; an H100 does 295 in the time of a byte, 20 in float32 without tensor cores.

    A Newton-Schulz product of width m does m / 3 FLOPs a byte, so above 890 it waits for arithmetic.
    """
    flops = {"decay": 1, "m": 3, "v": 4, "root, correction, eps": 3, "weight": 3}
    assert sum(flops.values()) == 14 and sum(flops.values()) / 28 == 0.5
    peak, vector, bandwidth = 989e12, 67e12, 3.35e12
    assert round(peak / bandwidth) == 295 and round(vector / bandwidth) == 20

    def intensity(width: int) -> float:
        return 2 * width**3 / (3 * width**2 * 2)

    assert intensity(300) == 100 and intensity(880) < peak / bandwidth < intensity(890)
    seconds = {speed: max(30 * 4096**3 / (speed * peak), 15 * 6 * 4096**2 / bandwidth) for speed in (1, 2)}
    assert seconds[1] / seconds[2] == 2
    seconds = {speed: max(30 * 256**3 / (speed * peak), 15 * 6 * 256**2 / bandwidth) for speed in (1, 2)}
    assert seconds[1] == seconds[2]


def logged_norm_is_momentum() -> None:
    """Pure noise: after the bank's call ``.grad`` has the RMS of the look-ahead, 0.17 of the gradient's; then fixed."""
    grads = torch.tensor(normal(300, 2000))
    for name, direction in both_versions("kernels-quiet-gradients", "direction").items():
        buffer, updates, ratios = torch.zeros(2000, dtype=torch.float64), [], []
        for grad in grads:
            kept = grad.clone()
            updates.append(direction(kept, buffer))
            ratios.append((kept.norm() / grad.norm()).item())
        settled = np.mean(ratios[100:])
        assert 0.17 < settled < 0.18 if name == "code" else settled == 1
        assert np.isclose(updates[-1].norm() / grads[-1].norm(), 0.174, atol=0.01)


def update_lost_in_a_copy() -> None:
    """The bank's step moves a contiguous weight; a transposed one stays where it was, to the last bit."""
    for name, step in both_versions("kernels-lost-update", "step").items():
        for transposed in (False, True):
            weight = torch.ones(4, 3, dtype=torch.float64)
            weight = weight.t() if transposed else weight
            grad = torch.full_like(weight, 2.0)
            step(weight, grad, torch.zeros(12, dtype=torch.float64), 0.1, 0.9)
            moved = not torch.equal(weight, torch.ones_like(weight))
            assert moved == (name == "fixed" or not transposed)


def replayed_with_the_old_count() -> None:
    """A recorded AdamW step, replayed: with a Python count it corrects for step 1 for ever, 2.236 lr at (0.9, 0.95).

    With the count in a tensor the recording counts on, and the steps stay at lr.
    """

    def adam(weight, grad, m, v, count):
        m = m + 0.1 * (grad - m)
        v = v + 0.05 * (grad * grad - v)
        return weight - (m / (1 - 0.9**count)) / (v / (1 - 0.95**count)).sqrt(), m, v

    def number(weight, grad, m, v):
        return adam(weight, grad, m, v, 1)

    def tensor(weight, grad, m, v, count):
        count = count + 1
        return *adam(weight, grad, m, v, count), count

    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for body, extra, expected in ((number, [], 2.236), (tensor, [torch.zeros((), dtype=torch.float64)], 1.0)):
        state = [zero, zero.clone(), *extra]
        replay, weight = make_fx(body)(one, one.clone(), *state), one
        for _ in range(200):
            before = weight
            weight, *state = replay(weight, one, *state)
        assert np.isclose((before - weight)[0].item(), expected, atol=1e-3)
    stepper = ADAMW([torch.nn.Parameter(torch.ones(2))])
    stepper.param_groups[0]["params"][0].grad = torch.ones(2)
    stepper.step()
    assert torch.is_tensor(next(iter(stepper.state.values()))["step"])


def step_against_its_floor() -> None:
    """1.3 billion float32 parameters in 400 tensors at 3.35 TB/s: 10.9 ms fused, 31 ms in separate passes.

    Launches of the loop at 5 microseconds: 16 ms, hidden behind 31 ms of bytes. Over 8 ranks fused: 1.4 ms.
    """
    assert round(1.3e9 * 28 / 3.35e12 * 1e3, 1) == 10.9 and round(1.3e9 * 80 / 3.35e12 * 1e3) == 31
    assert round(400 * 8 * 5e-6 * 1e3) == 16 and round(1.3e9 * 28 / 8 / 3.35e12 * 1e3, 1) == 1.4
    assert round(10.9 / 400, 3) == 0.027 and round(1.3e9 * 4 / 3.35e12 * 1e3, 1) == 1.6


def _simulated_step(tensors: int, calls: int, moved: float, parameters: float = 1e8) -> float:
    """ms of a step: a processor that launches a kernel every 5 microseconds, a device that works them off in turn."""
    kernels = calls * tensors
    work = parameters * moved / kernels / 3.35e12 + 2e-6
    launch = 5e-6
    return (launch + max(launch, work) * (kernels - 1) + work) * 1e3


def more_and_smaller_tensors() -> Curves:
    """Time of a step over 1e8 parameters against the number of tensors that they are cut into; two implementations."""
    x = np.linspace(0.0, 5.0, 101)
    loop = [_simulated_step(max(1, round(10**exponent)), 8, 80) for exponent in x]
    fused = [_simulated_step(max(1, round(10**exponent / 300)), 1, 28) for exponent in x]
    panel = Panel("ms per optimizer step", {"run A": loop, "run B": fused}, log=True)
    return Curves("log10 of the number of tensors", x.tolist(), [panel])


def time_follows_the_count() -> None:
    """In the model A's time is flat up to 60 tensors and then 40 microseconds each; B's is flat to 30,000."""
    flat, knee = _simulated_step(1, 8, 80), 1e8 * 80 / 3.35e12 / (8 * 3e-6)
    assert 90 < knee < 110 and round(flat, 1) == 2.4
    assert np.isclose(_simulated_step(10_000, 8, 80) / 10_000, 0.04, rtol=1e-3)
    assert np.isclose(_simulated_step(2000, 8, 80), 2 * _simulated_step(1000, 8, 80), rtol=1e-3)
    assert round(_simulated_step(1, 1, 28), 2) == 0.84 and _simulated_step(100, 1, 28) < 1.1
    assert 2.8 < flat / _simulated_step(1, 1, 28) < 2.9
