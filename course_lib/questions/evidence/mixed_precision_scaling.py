"""Evidence for ``bank/mixed_precision.yaml``: the loss scaler, the order of its calls, resuming, masks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from course_lib.questions.evidence._feed import ADAM, SGD, both_versions, normal, updates_of

SCALER = torch.amp.GradScaler


def _scales(scaler: torch.amp.GradScaler, overflows: list[bool]) -> list[float]:
    """The scale after each step, of which some overflow."""
    weight = torch.zeros(1, requires_grad=True)
    stepper, scales = SGD([weight], lr=1.0), []
    for overflow in overflows:
        weight.grad = None
        scaler.scale(weight.sum() * (math.inf if overflow else 1.0)).backward()
        scaler.step(stepper)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


def steps_to_climb(start: float = 1.0, end: float = 65536.0) -> float:
    """Clean steps that torch's scaler takes from one scale to the other at its default interval of 2,000.

    Run with an interval of 20, a hundredth; the way back takes one overflow for each factor of two.
    """
    up = _scales(SCALER("cpu", init_scale=start, growth_interval=20), [False] * 400)
    down = _scales(SCALER("cpu", init_scale=end), [True] * 20)
    assert down.index(start) + 1 == math.log2(end / start)
    return float(100 * (up.index(end) + 1))


def _losses_in_fp16(loss_of: Callable[[torch.Tensor], torch.Tensor], steps: int) -> tuple[float, float, bool]:
    """Scale and last loss after some steps of SGD on a weight of 1.0 in float32, and whether the weight has moved."""
    weight = torch.ones(1, requires_grad=True)
    stepper, scaler = SGD([weight], lr=1e-3), SCALER("cpu")
    for _ in range(steps):
        stepper.zero_grad()
        loss = loss_of(weight.half())
        scaler.scale(loss).backward()
        scaler.step(stepper)
        scaler.update()
    return scaler.get_scale(), loss.item(), bool(weight != 1.0)


def scale_falls_without_end() -> None:
    """Infinite logits: NaN at every scale, past 2^-24 after 41 steps and at 0 in the end, and no weight moves.

    A sum of 2,000 losses of 50 is infinite in fp16 too, but its gradient is not: the scale settles, the weight moves.
    """

    def logits(weight: torch.Tensor) -> torch.Tensor:
        row = torch.cat([weight * 400 * 400, weight]).float()[None]
        return torch.nn.functional.cross_entropy(row, torch.tensor([1]))

    def total(weight: torch.Tensor) -> torch.Tensor:
        return (50 + 1e-3 * weight).expand(2000).sum()

    assert _losses_in_fp16(logits, 40)[0] == 2.0**-24
    scale, loss, moved = _losses_in_fp16(logits, 200)
    assert scale == 0.0 and math.isnan(loss) and not moved
    scale, loss, moved = _losses_in_fp16(total, 20)
    assert scale >= 2.0**4 and math.isinf(loss) and moved
    assert torch.full((2000,), 50.0).half().mean() == 50


def one_unscale_for_all_micro_batches() -> None:
    """Four micro-batches, scaled, unscaled once, clipped: the step of one batch. unscale_ for each is refused."""
    inputs, targets = (torch.from_numpy(normal(16, 4, seed)) for seed in (0, 1))

    def losses(weight: torch.Tensor, parts: int) -> list[torch.Tensor]:
        pairs = zip(inputs.chunk(parts), targets.chunk(parts), strict=True)
        return [((x @ weight) - y).square().mean() / parts for x, y in pairs]

    whole = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    losses(whole, 1)[0].backward()
    assert whole.grad.norm() > 0.1
    clip_grad_norm_([whole], 0.1)
    parts = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    stepper, scaler = SGD([parts], lr=1.0), SCALER("cpu")
    for loss in losses(parts, 4):
        scaler.scale(loss).backward()
    scaler.unscale_(stepper)
    clip_grad_norm_([parts], 0.1)
    scaler.step(stepper)
    torch.testing.assert_close(parts.detach(), -whole.grad, rtol=1e-12, atol=0)
    scaler.update()
    scaler.scale(losses(parts, 4)[0]).backward()
    scaler.unscale_(stepper)
    try:
        scaler.unscale_(stepper)
    except RuntimeError as error:
        assert "already been called" in str(error)
    else:
        raise AssertionError("a second unscale_ went through")


def one_decision_for_all_ranks() -> None:
    """Two ranks, of which the second overflows once. Reduced before the check, both skip and stay equal.

    Checked before the reduction, the first steps with an infinite mean and is NaN, the second skips with half of the
    scale. With a shard each, and no reduction of the flag, one steps and the other does not.
    """
    for order, steps, scales in (
        ("reduce first", [0, 0], [32768, 32768]),
        ("check first", [math.nan, 0], [65536, 32768]),
        ("a shard each", [1, 0], [65536, 32768]),
    ):
        weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
        steppers, scalers = [ADAM([weight], lr=1.0) for weight in weights], [SCALER("cpu") for _ in range(2)]
        for rank, weight in enumerate(weights):
            scalers[rank].scale(weight.sum() * (math.inf if rank else -1.0)).backward()
        if order == "check first":
            for scaler, stepper in zip(scalers, steppers, strict=True):
                scaler.unscale_(stepper)
        if order != "a shard each":
            mean = (weights[0].grad + weights[1].grad) / 2
            for weight in weights:
                weight.grad.copy_(mean)
        for scaler, stepper in zip(scalers, steppers, strict=True):
            scaler.step(stepper)
            scaler.update()
        assert [scaler.get_scale() for scaler in scalers] == scales
        np.testing.assert_allclose([weight.item() for weight in weights], steps, rtol=1e-5)
    assert (torch.tensor(10_000.0).half() * 8).isinf() and (torch.tensor(10_000.0).half() / 8 * 8).isfinite()


def clipped_while_scaled() -> None:
    """The bank's code: SGD keeps 1 - 1e-3 of its distance, Adam does as well as with the fix. The norm is 65,536 x."""
    ends = {}
    for name, train_step in both_versions("mixed-clip-before-unscale", "train_step").items():
        for make in (lambda params: SGD(params, lr=0.1), lambda params: ADAM(params, lr=0.03)):
            weight = torch.zeros(20, dtype=torch.float64, requires_grad=True)
            target, stepper, scaler = torch.from_numpy(normal(1, 20)[0]), make([weight]), SCALER("cpu")
            norms = [
                train_step((weight - target).square().sum() / 2, [weight], stepper, scaler).item() for _ in range(200)
            ]
            ends[name, type(stepper)] = ((weight - target).norm() / target.norm()).item(), norms[0]
    distance = {key: value[0] for key, value in ends.items()}
    assert distance["code", SGD] > 0.999 and distance["fixed", SGD] < 0.01
    assert abs(distance["code", ADAM] - distance["fixed", ADAM]) < 0.05 and distance["code", ADAM] < 0.1
    assert np.isclose(ends["code", SGD][1], 65536 * ends["fixed", SGD][1])


def adam_sees_a_moving_scale() -> None:
    """Gradients never unscaled, betas (0.9, 0.999).

    When the scale doubles the steps grow to 1.9 lr; when it halves they fall to half, and 1,000 steps on are at 0.7.
    """
    k = np.arange(1, 3001)
    doubled = (2 - 0.9**k) / np.sqrt(4 - 3 * 0.999**k)  # of steady gradients of 1, after k of 2
    halved = (1 + 0.9**k) / 2 / np.sqrt((1 + 3 * 0.999**k) / 4)
    assert round(doubled.max(), 1) == 1.9 and doubled[:100].min() > 1
    assert 0.5 < halved.min() < 0.53 and 0.68 < halved[1000] < 0.73
    assert np.allclose(updates_of(ADAM, np.full(100, 65536.0)), -1, rtol=1e-6)


def schedule_without_the_optimizer() -> None:
    """Ten overflows in a warmup of 20 steps: the code's lr is at its peak after 10 updates, with the fix after 20."""
    peaks = {}
    for name, train_step in both_versions("mixed-scheduler-on-skips", "train_step").items():
        weight = torch.ones(1, requires_grad=True)
        stepper, scaler = SGD([weight], lr=1.0), SCALER("cpu")
        schedule = torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: min(1.0, (step + 1) / 20))
        stepper.step()  # without a gradient: tells the schedule that updates have begun
        rates = []
        for step in range(60):
            loss, before = weight.sum() * (math.inf if step < 10 else 1.0), weight.item()
            train_step(loss, stepper, scaler, schedule)
            rates += [before - weight.item()] if weight.item() != before else []
        peaks[name] = int(np.argmax(np.isclose(rates, 1.0)))
    assert peaks == {"code": 9, "fixed": 19}


def _scaled_run() -> dict[str, torch.nn.Module | torch.optim.Optimizer | torch.amp.GradScaler]:
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    return {"model": model, "optimizer": ADAM(model.parameters(), lr=0.1), "scaler": SCALER("cpu")}


def _skips(run: dict, steps: int) -> int:
    """Steps skipped of so many, with gradients of about 8 that pass through float16."""
    skipped = 0
    for _ in range(steps):
        before = run["model"].weight.detach().clone()
        run["optimizer"].zero_grad()
        run["scaler"].scale(run["model"](torch.full((1, 4), 8.0)).sum()).backward()
        run["model"].weight.grad.copy_(run["model"].weight.grad.half())
        run["scaler"].step(run["optimizer"])
        run["scaler"].update()
        skipped += bool(torch.equal(before, run["model"].weight))
    return skipped


def restart_without_the_scaler() -> None:
    """A run at scale 4,096 resumes there; without the scaler's state it skips until it is back."""
    run = _scaled_run()
    assert _skips(run, 50) == 4 and run["scaler"].get_scale() == 4096.0
    saved = copy.deepcopy({name: part.state_dict() for name, part in run.items()})
    for missing, skips in (("nothing", 0), ("scaler", 4)):
        resumed = _scaled_run()
        for name in saved:
            if name != missing:
                resumed[name].load_state_dict(copy.deepcopy(saved[name]))
        assert _skips(resumed, 50) == skips


def padded_row() -> None:
    """The bank's mask: in fp16 a row that is all padding is NaN, in bf16 and fp32 it is not; with the fix nowhere."""
    query, keep = torch.from_numpy(normal(3, 8)), torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    bad: dict[tuple[str, torch.dtype], bool] = {}
    results: dict[str, Callable[..., torch.Tensor]] = both_versions("mixed-mask-in-fp16", "attention_weights")
    for name, attention_weights in results.items():
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            weights = attention_weights(query.to(dtype), query.to(dtype), keep)
            bad[name, dtype] = bool(weights[2].isnan().any())
            assert (weights[:2].double()[keep[:2] == 0] == 0).all()
    assert [key for key, is_nan in bad.items() if is_nan] == [("code", torch.float16)]


def updated_before_the_division() -> None:
    """The bank's code, growth every 5 steps, gradients of 1: each 5th step of SGD is half as long; with the fix none.

    Clipping at 0.1 hides it. For Adam one halved gradient makes a step 5% shorter, and ten steps later 2%.
    """
    steps: dict[str, list[float]] = {}
    for name, scaled_step in both_versions("mixed-updated-scale", "scaled_step").items():
        weight, state = torch.zeros(1, dtype=torch.float64, requires_grad=True), {"scale": 1024.0, "clean": 0}
        stepper, path = SGD([weight], lr=1.0), [0.0]
        for t in range(20):
            weight.grad = torch.full_like(weight, math.inf if t == 12 else state["scale"])
            scaled_step([weight], stepper, state, interval=5)
            path.append(weight.item())
        steps[name] = (-np.diff(path)).tolist()
    halved = [0.5 if t in (4, 9, 17) else 0.0 if t == 12 else 1.0 for t in range(20)]
    assert steps["code"] == halved and steps["fixed"] == [float(t != 12) for t in range(20)]
    gradients = np.ones(3000)
    gradients[2000] = 0.5
    adam = -updates_of(ADAM, gradients)[2000:]
    assert round(adam[0], 2) == 0.95 == round(adam.min(), 2) and round(adam[10], 2) == 0.98
    for norm in (1.0, 0.5):
        clipped = torch.nn.Parameter(torch.zeros(1))
        clipped.grad = torch.full((1,), norm)
        clip_grad_norm_([clipped], 0.1)
        assert abs(clipped.grad.item() - 0.1) < 1e-5


def _rule(scale: float, clean: int, overflow: bool, interval: int) -> tuple[float, int]:
    """Next scale and count of clean steps, growth 2, backoff 0.5."""
    if overflow:
        return scale / 2, 0
    if clean + 1 < interval:
        return scale, clean + 1
    return (scale * 2 if scale * 2 <= torch.finfo(torch.float32).max else scale), 0


def scaler_rule() -> None:
    """The rule is torch's, over 400 steps with overflows at random; at float32's largest number it stops growing.

    With an interval of 3 the third clean step grows; growth and overflow start the count anew.
    """
    overflows = (np.random.default_rng(0).random(400) < 0.15).tolist()
    for start, pattern in ((65536.0, overflows), (2.0**126, [False] * 12)):
        scale, clean, mine = start, 0, []
        for overflow in pattern:
            scale, clean = _rule(scale, clean, overflow, interval=3)
            mine.append(scale)
        assert mine == _scales(SCALER("cpu", init_scale=start, growth_interval=3), pattern)
    assert mine[-1] == 2.0**127
    assert _scales(SCALER("cpu", init_scale=1.0, growth_interval=3), [False] * 6) == [1, 1, 2, 2, 2, 4]
    after = _scales(SCALER("cpu", init_scale=2.0, growth_interval=3), [False, True, False, False, False])
    assert after == [2, 1, 1, 1, 2]


def calls_of_a_step() -> None:
    """Without zero_grad one overflow stays in .grad, and each later step is skipped; with it, the next one is made.

    Without the division by the number of micro-batches the gradient is four times as long, which clipping hides.
    """
    for zeroes, made in ((True, 9), (False, 0)):
        weight = torch.zeros(1, requires_grad=True)
        stepper, scaler, steps = SGD([weight], lr=1.0), SCALER("cpu"), 0
        for t in range(10):
            if zeroes:
                stepper.zero_grad()
            scaler.scale(weight.sum() * (math.inf if t == 0 else 1.0)).backward()
            before = weight.item()
            scaler.step(stepper)
            scaler.update()
            steps += weight.item() != before
        assert steps == made
    lengths = {}
    for divide in (1, 4):
        for most in (0.5, math.inf):
            weight = torch.zeros(1, requires_grad=True)
            stepper, scaler = SGD([weight], lr=1.0), SCALER("cpu")
            for _ in range(4):
                scaler.scale(weight.sum() / divide).backward()
            scaler.unscale_(stepper)
            clip_grad_norm_([weight], most)
            scaler.step(stepper)
            lengths[divide, most] = -weight.item()
    assert np.allclose([lengths[1, math.inf], lengths[4, math.inf]], [4, 1])
    assert np.isclose(lengths[1, 0.5], lengths[4, 0.5], rtol=1e-5) and np.isclose(lengths[4, 0.5], 0.5, rtol=1e-5)
