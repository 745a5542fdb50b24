"""Evidence for what notebook 18 puts on trial beside the claims of other notebooks; of several files of the bank."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, SGD, descent, path_of

ADAGRAD = torch.optim.Adagrad


def memories_of_the_moments() -> None:
    """Of the weights in m and v the last 10 and 1,000 gradients hold 65% and 63%, and with beta 0.95 the last 20, 64%.

    The mean age of what is in an average is beta / (1 - beta), and its noise that of (1 + beta) / (1 - beta) draws.
    """
    for beta, steps, share in ((0.9, 10, 0.65), (0.999, 1000, 0.63), (0.95, 20, 0.64)):
        age = np.arange(30_000)
        weight = (1 - beta) * beta**age
        assert round(weight[:steps].sum(), 2) == share
        assert math.isclose((age * weight).sum(), beta / (1 - beta), rel_tol=1e-6)
        assert math.isclose(1 / (weight**2).sum(), (1 + beta) / (1 - beta), rel_tol=1e-6)
    assert round(math.log(0.5) / math.log(0.9), 1) == 6.6 and round(math.log(0.5) / math.log(0.999)) == 693


def adagrad_only_shrinks() -> None:
    """Steps at lr 1: 1, 0.1 and 0.01 after 1, 100 and 10,000 gradients of 1, and 0.2 in all later ones after a rest.

    A weight still travels as far as it must: 10,000 of these steps add up to 198.5.
    """
    path = path_of(ADAGRAD, [0.0], np.ones((10_000, 1)), lr=1.0)[:, 0]
    steps = -np.diff(path)
    assert np.allclose(steps[[0, 99, 9999]], [1, 0.1, 0.01], rtol=1e-6) and (np.diff(steps) < 0).all()
    assert round(-path[-1], 1) == 198.5
    rested = -np.diff(path_of(ADAGRAD, [0.0], np.r_[np.ones(24), np.zeros(1000), np.ones(1)][:, None], lr=1.0)[:, 0])
    assert math.isclose(rested[-1], 0.2, rel_tol=1e-6)


def stage_one_of_many() -> None:
    """Stage 1, 7 billion parameters: 84 GB of optimizer state become 1.3 on 64 GPUs, and 28 GB stay on every GPU."""
    total = {ranks: 7 * (4 + 12 / ranks) for ranks in (1, 8, 64, 1024)}
    assert total[1] == 112 and round(7 * 12 / 64, 1) == 1.3
    assert [round(total[ranks], 1) for ranks in (8, 64, 1024)] == [38.5, 29.3, 28.1]


def squares_in_half_precision() -> None:
    """The square of 1e-4 is 0 in fp16, so v stays 0 and the step is m / eps; in bf16 it is there, to 8 bits.

    Of a gradient of 1e-3 the share in v at beta2 0.999 is lost, too: 1e-9.
    """
    gradient = torch.tensor([1e-4, 2e-4, 1e-3])
    half, brain, full = ((gradient.to(kind) ** 2).double() for kind in (torch.float16, torch.bfloat16, torch.float32))
    assert half[:2].tolist() == [0.0, 5.9604644775390625e-08] and (brain / full - 1).abs().max() < 2**-6
    assert (torch.tensor([1e-3], dtype=torch.float16) ** 2 * 0.001).item() == 0.0
    assert torch.tensor(6e4, dtype=torch.float16).square().isinf() and torch.tensor(300.0).half().square().isinf()


def one_rate_for_two_blocks() -> None:
    """Curvatures 1 to 3 in one block, 1,000 to 3,000 in another, 200 steps from 1, every rate tuned.

    A single rate leaves a loss above 0.1; a rate per block or Adam goes below 1e-6.
    """
    h = np.array([1.0, 2.0, 3.0, 1000.0, 2000.0, 3000.0])

    def best(optimizer: type[torch.optim.Optimizer], rates: np.ndarray, scale: np.ndarray) -> float:
        ends = [descent(optimizer, lambda x: scale * h * x, np.ones(6), 200, lr=lr)[-1] for lr in rates]
        losses = [(h * end**2).sum() / 2 for end in ends]
        assert 0 < int(np.nanargmin(losses)) < len(rates) - 1  # inside the grid
        return float(np.nanmin(losses))

    rates = np.geomspace(1e-5, 1e-3, 41)
    block = np.array([1.0, 1, 1, 1e-3, 1e-3, 1e-3])
    assert best(SGD, rates, np.ones(6)) > 0.1
    assert best(SGD, np.geomspace(0.05, 1.0, 21), block) < 1e-30
    assert best(ADAM, np.geomspace(1e-3, 1.0, 31), np.ones(6)) < 1e-6


def chinchilla_recipe() -> None:
    """70 billion parameters on 1.4 trillion tokens: 20 a parameter, 5.9e23 FLOPs, and a rate that falls tenfold.

    At 80% of the cosine the rate is at 19% of its peak.
    """
    parameters, tokens = 70e9, 1.4e12
    assert tokens / parameters == 20 and float(f"{6 * parameters * tokens:.2g}") == 5.9e23
    rate = {share: 1e-4 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2) for share in (0.0, 0.8, 1.0)}
    assert rate[0.0] == 1e-4 and math.isclose(rate[1.0], 1e-5) and round(rate[0.8] / 1e-4, 2) == 0.19
    assert round(tokens / 1.5e6) == 933_333 and round(tokens / 3e6) == 466_667


def forgotten_parameter() -> None:
    """A bias outside all groups keeps its first value, and its gradient, which nobody zeroes, grows step by step.

    After 100 steps it is a hundred times that of one, fills the global norm, and clipping starves the rest.
    """
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    bias = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer, norms = SGD([weight], lr=1e-3), []
    for _ in range(100):
        optimizer.zero_grad()
        (weight + bias).sum().backward()
        norms.append(torch.nn.utils.get_total_norm([weight.grad, bias.grad]).item())
        optimizer.step()
    assert (bias == 1).all() and (weight < 1).all() and (bias.grad == 100).all()
    assert math.isclose(norms[-1] / norms[0], math.sqrt((1 + 100**2) / 2))
    try:
        SGD([{"params": [weight]}, {"params": [weight, bias]}])
    except ValueError as refusal:
        assert "more than one parameter group" in str(refusal)
    else:
        raise AssertionError("a parameter in two groups was accepted")


def schedule_of_gpt3() -> None:
    """GPT-3 175B: a peak of 0.6e-4, a fifth of 3e-4; over its 300 billion tokens the mean rate is 0.29e-4."""
    tokens = np.arange(0.5, 300_000) / 1000  # billions, in steps of a million
    falling = 0.1 + 0.9 * (1 + np.cos(np.pi * np.minimum((tokens - 0.375) / (260 - 0.375), 1))) / 2
    rate = 0.6e-4 * np.minimum(tokens / 0.375, falling)
    assert math.isclose(3e-4 / rate.max(), 5, rel_tol=1e-3) and math.isclose(rate[-1], 0.6e-5)
    assert round(rate.mean() / 1e-4, 2) == 0.29 and round(3e-4 / rate.mean()) == 10
    assert 0.375 / 300 == 0.00125


def schedule_of_palm() -> None:
    """PaLM: 1e-2 for 10,000 steps, then 1/sqrt(k), which fits on; at step 255,000 it has fallen fivefold to 0.002.

    beta2 is 1 - k^-0.8: a memory of 1,585 steps at 10,000 and of over 21,000 at the end.
    """
    steps = np.arange(1, 255_001)
    rate = np.minimum(1e-2, 1 / np.sqrt(steps))
    assert rate[9_999] == 1e-2 and math.isclose(rate[10_000], 1e-2, rel_tol=1e-3)
    assert round(rate[-1], 5) == 0.00198 and round(1e-2 / rate[-1], 1) == 5.0
    memory = steps**0.8
    assert round(memory[9_999]) == 1585 and 21_000 < memory[-1] < 21_300


def a_rate_nobody_reads() -> None:
    """A local variable changes no step; the rate that the optimizer reads is in its groups."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, seen = ADAM([weight], lr=1e-3), []
    for step in range(1, 11):
        lr = 1e-3 * step / 10
        weight.grad = torch.ones_like(weight)
        before = weight.item()
        optimizer.step()
        seen.append((lr, before - weight.item()))
    assert seen[0][0] == 1e-4 and all(math.isclose(moved, 1e-3, rel_tol=1e-6) for _, moved in seen)
    optimizer.param_groups[0]["lr"] = 1e-4
    before = weight.item()
    optimizer.step()
    assert math.isclose(before - weight.item(), 1e-4, rel_tol=1e-6)
