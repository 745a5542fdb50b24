"""Evidence for bank/stability.yaml, second part: initialisation, norms, averages, NaN and what comes before it."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.questions.evidence._feed import ADAM, both_versions, normal, path_of, updates_of


def residual_std(layers: int = 12, base: float = 0.02) -> float:
    """Standard deviation of the residual projections of GPT-2's initialisation: base / sqrt(2 * layers)."""
    return base / math.sqrt(2 * layers)


def stream_by_scale() -> None:
    """96 branches of variance 1: 97 unscaled, 49 with sqrt(0.5), 2 with 1/sqrt(96); the constant halves the sum."""
    rng = np.random.default_rng(0)
    for scale, predicted in ((1.0, 97), (0.5**0.5, 49), (96**-0.5, 2)):
        stream = rng.standard_normal(20_000)
        for _ in range(96):
            stream = stream + scale * rng.standard_normal(20_000)
        assert np.isclose(stream.var(), predicted, rtol=0.05) and np.isclose(1 + 96 * scale**2, predicted)
    first, last = 1.0, math.sqrt(97)  # a normalised branch sees the stream over its RMS
    assert round(last / first) == 10


def batch_norm_in_two_modes() -> None:
    """In training an output depends on its neighbours; torch keeps the unbiased variance, 0.9 old + 0.1 new.

    After 10 batches 35% of the running mean is still its first value; at batch 2 the output is a sign.
    """
    norm = torch.nn.BatchNorm1d(1, dtype=torch.float64, eps=1e-12)
    two = [norm(torch.tensor([[a], [b], [2.0]], dtype=torch.float64))[2].item() for a, b in ((0.0, 4.0), (2.0, 8.0))]
    assert abs(two[0]) < 1e-12 and two[1] < -0.7
    fresh = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    fresh(torch.tensor([[1.0], [2], [3], [6]], dtype=torch.float64))
    assert np.isclose(fresh.running_var.item(), 0.9 + 0.1 * 14 / 3) and np.isclose(fresh.running_mean.item(), 0.3)
    assert round(0.9**10, 2) == 0.35 and round(0.99**100, 2) == 0.37
    pair = norm(torch.tensor([[0.1], [5.0]], dtype=torch.float64)).flatten()
    assert torch.allclose(pair, torch.tensor([-1.0, 1.0], dtype=torch.float64), atol=1e-9)
    alone = fresh.eval()(torch.tensor([[2.0]], dtype=torch.float64)).item()
    assert alone == fresh(torch.tensor([[2.0], [9.0]], dtype=torch.float64))[0].item()


def axes_of_the_norms() -> None:
    """(N, C, H, W): batch over N, H, W; layer over C, H, W; instance over H, W; group between. RMS does not centre."""
    x = normal(8 * 6, 25).reshape(8, 6, 5, 5) * 3 + 2
    tensor = torch.from_numpy(x)

    def over(*axes: int, centre: bool = True) -> Tensor:
        y = x - x.mean(axes, keepdims=True) * centre
        return torch.from_numpy(y / np.sqrt((y**2).mean(axes, keepdims=True) + 1e-5))

    assert torch.allclose(over(0, 2, 3), F.batch_norm(tensor, None, None, training=True))
    assert torch.allclose(over(1, 2, 3), F.layer_norm(tensor, (6, 5, 5)))
    assert torch.allclose(over(1, 2, 3), F.group_norm(tensor, 1))
    assert torch.allclose(over(2, 3), F.instance_norm(tensor))
    assert torch.allclose(over(2, 3), F.group_norm(tensor, 6))
    assert torch.allclose(over(3, centre=False), F.rms_norm(tensor, (5,), eps=1e-5))
    shifted = tensor + 10
    assert torch.allclose(F.layer_norm(shifted, (5,)), F.layer_norm(tensor, (5,)))
    assert not torch.allclose(F.rms_norm(shifted, (5,)), F.rms_norm(tensor, (5,)), atol=0.1)


def first_weights_left(decay: float = 0.999, steps: int = 300) -> float:
    """Percent of an uncorrected EMA that are still the weights it started from."""
    average = torch.ones(1, dtype=torch.float64)
    update = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    for step in range(steps):
        update([average], [torch.zeros(1, dtype=torch.float64)], step)
    assert np.isclose(average.item(), decay**steps, rtol=1e-12)
    return 100 * average.item()


def averages_do_what_decay_does() -> None:
    """One coordinate, lr h = 0.1: the EMA's variance is the iterate's times (1-b)/(1+b) (1+rho b)/(1-rho b).

    With lr to zero the iterate is as good as an average of 1,000, and an EMA of 10 adds nothing.
    """
    rng, rho = np.random.default_rng(0), 0.9
    w, ema = np.zeros(4000), {beta: np.zeros(4000) for beta in (0.9, 0.99)}
    for _ in range(1500):
        w = rho * w + 0.1 * rng.standard_normal(4000)
        ema = {beta: beta * average + (1 - beta) * w for beta, average in ema.items()}
    variance = 0.01 / (1 - rho**2)
    assert np.isclose(w.var(), variance, rtol=0.1)
    for beta, average in ema.items():
        factor = (1 - beta) / (1 + beta) * (1 + rho * beta) / (1 - rho * beta)
        assert np.isclose(average.var(), variance * factor, rtol=0.1)
    decayed, tail = np.zeros(4000), np.zeros(4000)
    for step in range(1500):
        decayed = decayed - 0.1 * (1 - step / 1500) * (decayed + rng.standard_normal(4000))
        tail = 0.9 * tail + 0.1 * decayed
    assert decayed.var() < variance / 10 and tail.var() > 0.9 * decayed.var()


def where_does_not_guard() -> None:
    """log of 0 behind torch.where gives a NaN gradient; with a safe argument inside, none."""
    x = torch.tensor([0.0, 2.0], dtype=torch.float64)
    gradients = {}
    for name, function in both_versions("stab-where-trap", "entropy").items():
        leaf = x.clone().requires_grad_()
        function(leaf).backward()
        gradients[name] = leaf.grad
    assert gradients["code"][0].isnan() and gradients["fixed"].isfinite().all()
    assert torch.isclose(gradients["fixed"][1], torch.tensor(-math.log(2) - 1, dtype=torch.float64))


def all_masked() -> None:
    """cross_entropy with every target -100: NaN, and a gradient of zero; a hand-made sum / count: NaN in both."""
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = F.cross_entropy(logits, torch.tensor([-100]))
    loss.backward()
    assert loss.isnan() and (logits.grad == 0).all()
    logits.grad = None
    per_token, mask = F.cross_entropy(logits, torch.tensor([0]), reduction="none"), torch.zeros(1)
    own = (per_token * mask).sum() / mask.sum()
    own.backward()
    assert own.isnan() and logits.grad.isnan().all()
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    weight.grad = torch.full((2,), math.nan, dtype=torch.float64)
    ADAM([weight]).step()
    assert weight.isnan().all()


def replay_tells_the_cause() -> None:
    """Four tiny failures, replayed: float32 cures the overflow, another batch the division; nothing a lost weight."""
    sound, huge = torch.tensor(1.0), torch.tensor(math.inf)

    def finite(weight: Tensor, batch: float, dtype: torch.dtype = torch.float32, count: int = 1) -> bool:
        w = weight.to(dtype).requires_grad_()
        squares = (w * torch.tensor(batch, dtype=dtype)).square() * min(count, 1)
        loss = squares / torch.tensor(count, dtype=dtype)
        (gradient,) = torch.autograd.grad(loss, w)
        return bool(loss.isfinite() and gradient.isfinite())

    assert not finite(sound, 1e4, torch.float16) and finite(sound, 1e4)  # overflow: float32 is finite
    assert not finite(sound, 1.0, count=0) and finite(sound, 1.0)  # division: another batch is
    assert not finite(huge, 1.0) and not finite(huge, 2.0)  # the weights are gone: neither


def order_of_the_jumps() -> None:
    """A bad batch moves loss and gradient in its own step; a step too long, the loss of the next one.

    Gradient descent on w^2/2 from 1 at lr 0.1: once a target that is far away, once a step 100 times too long.
    """
    logs = {}
    for fault in ("batch", "step"):
        w, rows = 1.0, []
        for t in range(6):
            target = 50.0 if fault == "batch" and t == 3 else 0.0
            gradient = w - target
            length = 0.1 * gradient * (100 if fault == "step" and t == 3 else 1)
            rows.append((gradient**2 / 2, abs(gradient), abs(length)))
            w -= length
        logs[fault] = np.array(rows)
    first = {fault: (rows > 3 * rows[0]).argmax(axis=0).tolist() for fault, rows in logs.items()}
    assert first["batch"] == [3, 3, 3] and first["step"] == [4, 4, 3]


def lost_moments() -> None:
    """Resumed without its state, Adam moves every weight by lr: ten times its usual step where gradients are noise."""
    noise = normal(600, 200)
    steps = np.abs(np.diff(path_of(ADAM, np.zeros(200), noise, lr=1.0), axis=0))
    usual = np.sqrt((steps[500:] ** 2).mean())
    fresh = np.abs(updates_of(ADAM, [noise[0, 0]]))[0]
    assert np.isclose(fresh, 1.0, rtol=1e-4) and 0.2 < usual < 0.26
