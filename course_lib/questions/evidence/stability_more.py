"""Evidence for bank/stability.yaml, fourth part: what is written from memory, norms before and after, going back."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from course_lib.questions.evidence._feed import normal


def _clip(gradients: list[Tensor | None], max_norm: float) -> float:
    """Clip in place by the global norm, the sum in float64; a norm that is not finite leaves all as it is."""
    there = [g for g in gradients if g is not None]
    norm = math.sqrt(sum(g.double().square().sum().item() for g in there))
    if max_norm < norm < math.inf:
        for g in there:
            g.mul_(max_norm / norm)
    return norm


def clip_from_memory() -> None:
    """The loop is clip_grad_norm_ up to its 1e-6. Per tensor, two tensors may still have a norm of sqrt(2) together.

    Where the norm is below the limit, a missing min(1, .) makes gradients longer; squares in fp16 overflow above 256; a
    norm that is infinite turns torch's gradients into zeros and NaN.
    """
    drawn = [torch.from_numpy(row) for row in 5 * normal(3, 50)]
    params = [torch.zeros(50, dtype=torch.float64) for _ in drawn]
    for param, g in zip(params, drawn, strict=True):
        param.grad = g.clone()
    own = [g.clone() for g in drawn]
    norm = _clip([*own, None], 1.0)
    assert math.isclose(torch.nn.utils.clip_grad_norm_(params, 1.0).item(), norm)
    for param, g in zip(params, own, strict=True):
        assert torch.allclose(param.grad, g, rtol=1e-6)
    assert math.isclose(math.sqrt(sum(g.square().sum().item() for g in own)), 1.0)
    per_tensor = [g / g.norm() for g in drawn[:2]]
    assert math.isclose(torch.cat(per_tensor).norm().item(), math.sqrt(2))
    small = torch.tensor([0.3, 0.4], dtype=torch.float64)
    assert _clip([small], 1.0) == 0.5 and small.norm() == 0.5 and (small * (1 / small.norm())).norm() > 0.99
    assert torch.tensor(300.0).half().square().isinf() and not torch.tensor(255.0).half().square().isinf()
    params = [torch.zeros(2) for _ in range(2)]
    params[0].grad, params[1].grad = torch.tensor([math.inf, 1.0]), torch.ones(2)
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    assert params[0].grad[0].isnan() and (params[1].grad == 0).all()
    broken = [torch.tensor([math.inf, 1.0]), torch.ones(2)]
    assert math.isinf(_clip(broken, 1.0)) and (broken[1] == 1).all()


def z_loss_from_memory() -> None:
    """c * mean of (log Z)^2 and 2 c log Z softmax / n are what autograd says; exp of 10,000 needs the largest taken out.

    The gradient of a row sums to 2 c log Z / n: it moves the level, and does not vanish with confidence alone.
    """
    x = 3 * normal(4, 6) + 5
    top = x.max(axis=1, keepdims=True)
    log_z = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))
    gradient = 2 * 1e-4 * log_z * np.exp(x - log_z) / len(x)
    leaf = torch.from_numpy(x).requires_grad_()
    loss = 1e-4 * leaf.logsumexp(1).square().mean()
    (right,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(gradient, right.numpy(), rtol=1e-12)
    assert math.isclose(1e-4 * (log_z**2).mean(), loss.item())
    np.testing.assert_allclose(gradient.sum(axis=1), 2e-4 * log_z[:, 0] / 4)
    with np.errstate(over="ignore"):
        assert np.isinf(np.log(np.exp(np.array([1e4, 0.0])).sum()))
    far = np.array([1e4, 0.0])
    assert far.max() + np.log(np.exp(far - far.max()).sum()) == 1e4
    confident = torch.tensor([0.0, -30.0, -30.0], dtype=torch.float64)
    assert confident.logsumexp(0) < 1e-12 and confident.softmax(0)[0] > 1 - 1e-12


def norm_before_and_after() -> None:
    """Gradients at the outputs of L random linear branches, each of gain 1, over that at the end of the network.

    Before: 1/sqrt(L + 1) at the last branch, sqrt(1/2) at the first. After: sqrt(1/2) at both. Along the skip path
    alone the first gets 1/sqrt(L + 1) and 2^(-L/2).
    """
    width, rng = 256, np.random.default_rng(0)

    def normed(x: Tensor) -> Tensor:
        return x / x.square().mean(-1, keepdim=True).sqrt()

    for depth in (4, 16, 48):
        matrices = torch.from_numpy(rng.standard_normal((depth, width, width)) / math.sqrt(width)).requires_grad_()
        start, read = torch.from_numpy(rng.standard_normal((2, 16, width)))
        for after in (False, True):
            for skip_only in (False, True):
                stream, branches = start.clone().requires_grad_(), []
                x = normed(stream) if after else stream
                for matrix in matrices:
                    seen = x if after else normed(x)
                    branches.append((seen.detach() if skip_only else seen) @ matrix)
                    x = normed(x + branches[-1]) if after else x + branches[-1]
                out = ((x if after else normed(x)) * read).sum()
                first, last = (
                    (g.norm() / read.norm()).item() for g in torch.autograd.grad(out, (branches[0], branches[-1]))
                )
                assert math.isclose(last, math.sqrt(0.5) if after else 1 / math.sqrt(depth + 1), rel_tol=0.1)
                if skip_only and after:
                    assert math.isclose(math.log2(first), -depth / 2, rel_tol=0.1)
                else:
                    assert math.isclose(first, last if skip_only else math.sqrt(0.5), rel_tol=0.1)


def back_and_around() -> None:
    """Noisy bowl, Adam: one batch of gradients 1,000 times as large. Going back 100 steps and leaving it out is exact.

    From a checkpoint with its moments the run without that batch comes out bit-equal; going on from the last weights
    keeps a v that shortens the steps for hundreds of steps, and the checkpoint after the batch has it too.
    """
    noise = normal(1200, 50)

    def run(order: list[int], state: tuple[np.ndarray, ...], count: int) -> tuple[np.ndarray, ...]:
        w, m, v = state
        for t, batch in enumerate(order, start=count + 1):
            g = (0.3 + noise[batch]) * (1000 if batch == 600 else 1)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t))
        return w, m, v

    fresh = tuple(np.zeros((3, 50)))
    saved = run(list(range(500)), fresh, 0)
    without = [batch for batch in range(1100) if batch != 600]
    around, whole = run(without[500:], saved, 500), run(without, fresh, 0)
    assert all((a == b).all() for a, b in zip(around, whole, strict=True))
    through = run(list(range(500, 1100)), saved, 500)
    way = [abs((state[0] - saved[0]).mean()) for state in (around, through)]
    late = run(list(range(601, 1100)), run(list(range(601)), fresh, 0), 601)
    assert way[1] < 0.5 * way[0] and np.sqrt(late[2]).mean() > 10 * np.sqrt(around[2]).mean()
