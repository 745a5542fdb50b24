"""Evidence for ``bank/scaling.yaml``: what the width does to a step, and what the length of a run does to its rate."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import nn

from course_lib.questions.evidence._feed import ADAM, ADAMW, both_versions
from course_lib.questions.runs import Curves, Panel


def _first_change(width: int, lr: float, make: type[torch.optim.Optimizer] = ADAM) -> tuple[float, float, float]:
    """RMS change by one step, given one example: a hidden layer's outputs, an embedded row, relative to the weights."""
    rng = np.random.default_rng(width)
    x = torch.from_numpy(np.abs(rng.standard_normal(width)) * rng.choice([-1.0, 1.0], width))
    delta = torch.from_numpy(rng.standard_normal(width)) / width
    weight = torch.from_numpy(rng.standard_normal((width, width)) / width**0.5).requires_grad_()
    table = torch.zeros(10, width, dtype=torch.float64, requires_grad=True)
    before = weight.detach().clone()
    weight.grad, table.grad = delta[:, None] * x, torch.zeros_like(table)
    table.grad[3] = delta
    make([weight, table], lr=lr, eps=1e-30).step()
    change = weight.detach() - before
    outputs = (change * x).sum(1).square().mean().sqrt().item()
    relative = (change.square().mean() / before.square().mean()).sqrt().item()
    return outputs, table.detach()[3].square().mean().sqrt().item(), relative


def step_grows_with_width() -> None:
    """At one lr Adam moves a hidden layer's output by lr * n * mean|x|, an embedded row by lr; with lr / n, alike.

    The weights then change by less and less of their size, and the output by as much. Initial weights add up to
    sqrt(n) of them, a step to n.
    """
    rows = {n: _first_change(n, 1e-3) for n in (64, 256, 1024)}
    for n, (outputs, embedded, _) in rows.items():
        assert abs(outputs / (1e-3 * n * math.sqrt(2 / math.pi)) - 1) < 0.15 and math.isclose(embedded, 1e-3)
    scaled = {n: _first_change(n, 0.064 / n) for n in rows}
    assert 0.85 < scaled[1024][0] / scaled[64][0] < 1.15
    assert math.isclose(scaled[64][2] / scaled[1024][2], math.sqrt(1024 / 64), rel_tol=0.05)


@cache
def _trained(width: int, lr: float, factor: float, head_std: float, embedding: float = 1.0, steps: int = 40) -> float:
    """Loss above the entropy after training a small residual network on 32 tokens with Adam.

    ``factor`` multiplies lr for the hidden matrices and the head, ``embedding`` that of the embedding.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int, std: float = 1.0) -> torch.Tensor:
        return torch.tensor(std * rng.standard_normal(shape), dtype=torch.float32).requires_grad_()

    table, hidden, head = (
        normal(32, width),
        [normal(width, width, std=width**-0.5) for _ in range(2)],
        normal(32, width, std=head_std),
    )
    target = torch.tensor(1.5 * np.random.default_rng(7).standard_normal((32, 32)), dtype=torch.float32).softmax(-1)
    floor = -(target * target.log()).sum(-1).mean()
    groups = [{"params": [table], "lr": lr * embedding}, {"params": [*hidden, head], "lr": lr * factor}]
    optimizer = ADAM(groups, betas=(0.9, 0.95))
    for _ in range(steps):
        h = table
        for weight in hidden:
            h = h + torch.relu(h) @ weight.T
            h = h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        loss = -(target * (h @ head.T).log_softmax(-1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (loss - floor).item()


_RATES = tuple(2.0**-k for k in range(12, 0, -1))


def _losses(width: int, rates: tuple[float, ...], mup: bool) -> list[float]:
    """Final losses of a sweep; with muP for Adam at base width 16, or with one rate for all tensors."""
    factor, std = (16 / width, 1 / width) if mup else (1.0, width**-0.5)
    return [_trained(width, rate, factor, std) for rate in rates]


def best_rate_stays_under_mup() -> None:
    """One rate for all: eight times as wide, the best is eight times smaller or less. muP: within a factor of two.

    With the embedding's rate divided too, the loss is somewhat higher and the best rate still within a factor of two.
    """
    rates = _RATES[3:-1]
    best = {
        (width, mup): rates[int(np.argmin(_losses(width, rates, mup)))] for width in (16, 128) for mup in (False, True)
    }
    assert best[128, False] <= best[16, False] / 8
    assert 0.5 <= best[128, True] / best[16, True] <= 2
    slow = [_trained(128, rate, 16 / 128, 1 / 128, embedding=16 / 128) for rate in rates]
    assert (
        0.5 <= rates[int(np.argmin(slow))] / best[16, True] <= 2 and 1 < min(slow) / min(_losses(128, rates, True)) < 2
    )


def three_widths() -> Curves:
    """Final losses over the learning rate at three widths, one rate for all tensors."""
    series = {f"width {width}": _losses(width, _RATES, mup=False) for width in (16, 64, 256)}
    return Curves(
        "log2 of the learning rate",
        [math.log2(rate) for rate in _RATES],
        [Panel("final loss above the entropy (nats)", series, log=True)],
        exact=False,
    )


def decay_for_the_run(
    decay: float = 0.1, batch: float = 1e6, tokens: float = 20e9, large: float = 4e6, factor: int = 8
) -> float:
    """The weight_decay with which a run of a trillion tokens forgets as much of its start as the proxy did.

    That is the same memory as a share of the run: of torch's AdamW, for any lr of the proxy.
    """

    def share_and_left(lr: float, wd: float, batch: float, tokens: float) -> tuple[float, float]:
        weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        optimizer = ADAMW([weight], lr=lr, weight_decay=wd)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        return batch / (lr * wd * tokens), weight.item() ** (tokens / batch)

    wanted = decay * factor * (large / batch) / (1e12 / tokens)
    for lr in (1e-4, 1e-3):
        share, left = share_and_left(lr, decay, batch, tokens)
        of_the_run, left_by_the_run = share_and_left(lr / factor, wanted, large, 1e12)
        assert math.isclose(share, of_the_run) and math.isclose(left, left_by_the_run, rel_tol=0.01)
        assert math.isclose(left, math.exp(-1 / share), rel_tol=0.01)
    return wanted


def longer_runs_want_smaller_rates() -> None:
    """A noisy quadratic, linear decay to zero: four times the steps, half of the best peak rate, again and again."""
    curvatures, grid = np.logspace(0, -3, 30), 1.9 / 2 ** np.arange(0, 8, 0.25)
    best = []
    for steps in (250, 1000, 4000):
        second = np.ones((len(grid), len(curvatures)))
        for t in range(steps):
            rates = (grid * (1 - t / steps))[:, None]
            second = (1 - rates * curvatures) ** 2 * second + (0.1 * rates) ** 2
        best.append(grid[int(np.argmin((curvatures * second).sum(1)))])
    assert np.allclose(best[:-1], 2 * np.array(best[1:])) and grid[-1] < best[-1] < best[0] < grid[0]


class _Net(nn.Module):
    """An embedding, two hidden matrices of different shape, a head; sizes in ``width``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 50, bias=False)


def embedding_has_no_fan_in() -> None:
    """Eight times as wide: hidden matrices and head get an eighth, gains and biases 1; the embedding too, but for the bug."""
    versions = both_versions("scaling-embedding-rate", "mup_groups")
    model, base = _Net(128), _Net(16)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {
        which: {names[id(group["params"][0])]: group["lr"] for group in make(model, base, 1e-2)}
        for which, make in versions.items()
    }
    for which, rate in rates.items():
        assert len(rate) == len(names)
        for name, lr in rate.items():
            matrix = name in ("up.weight", "down.weight", "head.weight")
            eighth = matrix or (name == "embed.weight" and which == "code")
            assert math.isclose(lr, 1e-2 / 8 if eighth else 1e-2)
