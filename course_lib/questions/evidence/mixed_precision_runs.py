"""Curves for the read-run questions of ``bank/mixed_precision.yaml``, and how long sums round."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, SGD, normal
from course_lib.questions.runs import Curves, Panel, thinned

BF16, FP32 = torch.bfloat16, torch.float32
SCALER = torch.amp.GradScaler


def _decaying_rate(t: int, steps: int = 4000) -> float:
    """1.5e-3 for half of the steps, then down to a fiftieth of it."""
    return 1.5e-3 * 50 ** -max(0.0, 2 * t / steps - 1)


def _decaying_run(master: bool, steps: int = 4000, size: int = 256) -> tuple[list[float], list[float], float]:
    """Losses, gradient norms, and the largest |gain - 1| at the end, of Adam with bf16 weights.

    Every 32nd weight is a gain, which starts at 1, the others start with a spread of 0.02. The loss is quadratic, with
    curvatures from 1 down to 0.3, the gradients are noisy, the moments float32.
    """
    rng = np.random.default_rng(0)
    gain = np.arange(size) % 32 == 31
    start = np.where(gain, 1.0, 0.02 * rng.standard_normal(size))
    target = torch.from_numpy(start + np.where(gain, 0.003, 0.1) * rng.standard_normal(size))
    curvature = torch.from_numpy(np.logspace(0, -0.5, size))
    weight = torch.from_numpy(start).to(BF16)
    kept, m, v = weight.float(), torch.zeros(size), torch.zeros(size)
    losses, norms = [], []
    for t in range(1, steps + 1):
        slope = curvature * (weight.double() - target)
        losses.append(0.5 * (slope**2 / curvature).mean().item())
        norms.append(slope.square().sum().sqrt().item())
        gradient = (slope + 0.05 * torch.from_numpy(rng.standard_normal(size))).float()
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
        update = _decaying_rate(t) * m / (1 - 0.9**t) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        kept = (kept if master else weight.float()) - update
        weight = kept.to(BF16)
    return losses, norms, (weight[torch.from_numpy(gain)].float() - 1).abs().max().item()


def two_ends_of_a_schedule() -> Curves:
    """The same run with bf16 weights alone and with float32 masters; the gains of the first never move.

    The losses agree within 10% at half time; at the end the first is four times the second.
    """
    (plain, norms, moved), (mixed, others, _) = _decaying_run(master=False), _decaying_run(master=True)
    assert moved == 0.0 and 0.9 < plain[1999] / mixed[1999] < 1.1 and 3.5 < plain[-1] / mixed[-1] < 4.5
    steps = range(0, 4000, 20)
    return Curves(
        "step",
        [float(step) for step in steps],
        [
            Panel("loss", {"pure bf16": thinned(plain), "mixed precision": thinned(mixed)}, log=True),
            Panel(
                "gradient norm, all data", {"pure bf16": thinned(norms), "mixed precision": thinned(others)}, log=True
            ),
            Panel("learning rate", {"both": [_decaying_rate(step) for step in steps]}, log=True),
        ],
    )


def falling_scale() -> Curves:
    """A float16 run whose attention logit grows past 65,504 at step 800; SGD on a float32 weight, torch's scaler."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    stepper, scaler, batches = SGD([weight], lr=1e-3), SCALER("cpu"), normal(840, 1)
    scales, moved = [], []
    for batch in batches:
        scales.append(scaler.get_scale())
        moved.append(weight.item())
        stepper.zero_grad()
        query = weight.half() * 466.2
        row = torch.cat([query * query, query]).float()
        loss = 1e-6 * torch.nn.functional.cross_entropy(row[None], torch.tensor([0]))
        loss = loss + 0.5 * (weight - 1 - 0.1 * float(batch[0])).square().sum()
        scaler.scale(loss).backward()
        scaler.step(stepper)
        scaler.update()
    scales_from = scales.index(32768.0)
    assert scales_from == 801 and scales[800] == 65536 and scales[-1] < 1e-6 and len(set(moved[800:])) == 1
    shown = slice(700, 840)
    return Curves(
        "step",
        [float(step) for step in range(700, 840)],
        [
            Panel("loss scale", {"run": scales[shown]}, log=True),
            Panel("distance of the weights from their start", {"run": moved[shown]}),
        ],
    )


def scale_after_restarts() -> Curves:
    """Adam on a noisy bowl with float16 gradients, restarted at steps 130 and 260 from all but the scaler's state."""
    rng, target = np.random.default_rng(0), torch.from_numpy(normal(1, 64)[0])
    weight = torch.zeros(64, dtype=torch.float64, requires_grad=True)
    stepper, scaler = ADAM([weight], lr=0.01), SCALER("cpu")
    scales, skipped, losses, count = [], [], [], 0
    for step in range(390):
        if step in (130, 260):
            scaler = SCALER("cpu")
        stepper.zero_grad()
        noise = torch.from_numpy(rng.choice([-10.0, 10.0], 64))
        losses.append(0.5 * (weight.detach() - target).square().sum().item())
        scales.append(scaler.get_scale())
        scaler.scale((0.5 * (weight - target).square() + noise * weight).sum()).backward()
        weight.grad.copy_(weight.grad.half())
        scaler.step(stepper)
        scaler.update()
        count += scaler.get_scale() < scales[-1]
        skipped.append(count)
    assert scales[4:130] == [4096.0] * 126 and (skipped[129], skipped[259], skipped[389]) == (4, 8, 12)
    assert scales[130] == scales[260] == 65536.0 and max(losses[130:140]) < 1.1 * losses[129]
    return Curves(
        "step",
        [float(step) for step in range(390)],
        [
            Panel("loss scale", {"run": scales}, log=True),
            Panel("skipped steps, in all", {"run": [float(number) for number in skipped]}),
            Panel("loss", {"run": losses}),
        ],
    )


def _dot_error(length: int, kept: torch.dtype, positive: bool = False, rows: int = 200) -> float:
    """RMS error of dot products of ``length`` bf16 inputs whose sums are kept in a dtype, over the RMS of the truth."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((length, rows))) for _ in range(2))
    if positive:
        x, y = x.abs(), y.abs()
    total = torch.zeros(rows, dtype=kept)
    for product in x.to(BF16).float() * y.to(BF16).float():
        total = (total.float() + product).to(kept)
    truth = (x * y).sum(0)
    return ((total.double() - truth).square().mean() / truth.square().mean()).sqrt().item()


def sums_need_float32() -> None:
    """Dot products of bf16 inputs, terms of either sign: with float32 sums off by 0.2% at any length.

    With bf16 sums the error is about 0.17% * sqrt(K / 2): 1% at 64, 8% at 4,096. Positive terms: half is lost at 4,096.
    """
    single = [_dot_error(length, FP32) for length in (64, 512, 4096)]
    assert min(single) > 0.0018 and max(single) < 0.003
    for length in (64, 512, 4096):
        assert 0.8 < _dot_error(length, BF16) / (0.00166 * math.sqrt(length / 2)) < 1.25
    assert _dot_error(4096, FP32, positive=True) < 2e-4 and 0.5 < _dot_error(4096, BF16, positive=True) < 0.65
    x = torch.from_numpy(normal(100_000, 1)[:, 0])
    assert abs(((x.to(BF16).double() - x) / x).square().mean().sqrt().item() / 0.00166 - 1) < 0.02
