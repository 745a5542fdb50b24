"""Evidence for ``bank/accumulation.yaml``."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.questions.evidence._feed import ADAM, ADAMW, SGD, both_versions
from course_lib.questions.runs import Curves, Panel, thinned


class _Scaled(nn.Module):
    """x times a weight, element by element: its gradients are the same on every processor."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _batches(count: int, size: int = 4, features: int = 3, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Pairs (inputs, targets), targets twice the inputs and some noise."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, size, features))
    targets = 2 * inputs + 0.1 * rng.standard_normal(inputs.shape)
    return [(torch.tensor(x), torch.tensor(y)) for x, y in zip(inputs, targets, strict=True)]


def _gradient(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Gradient of the mean squared error over all batches together, at the start."""
    model = _Scaled()
    F.mse_loss(model(torch.cat([x for x, _ in batches])), torch.cat([y for _, y in batches])).backward()
    return model.weight.grad


def divided_after_backward() -> None:
    """The logged loss is right and the gradient eight times too large: SGD diverges, Adam walks the same path."""
    pieces, ends = _batches(8), {}
    for name, step in both_versions("accumulation-bug-divide-late", "train_step").items():
        model = _Scaled()
        logged = step(model, SGD(model.parameters(), lr=0.0), F.mse_loss, pieces)
        ends[name] = {"loss": logged, "grad": model.weight.grad.clone()}
        for kind, optimizer, lr in (("sgd", SGD, 1.0), ("adam", ADAM, 0.01)):
            model = _Scaled()
            stepper = optimizer(model.parameters(), lr=lr)
            for _ in range(100):
                ends[name][kind] = step(model, stepper, F.mse_loss, pieces)
            ends[name][kind + " weight"] = model.weight.detach().clone()
    wrong, right = ends["code"], ends["fixed"]
    assert abs(wrong["loss"] - right["loss"]) < 1e-12
    torch.testing.assert_close(wrong["grad"], 8 * right["grad"])
    torch.testing.assert_close(right["grad"], _gradient(pieces))
    assert right["sgd"] < 0.02 and wrong["sgd"] > 1e6
    assert abs(wrong["adam"] - right["adam"]) < 1e-6


def zeroed_at_every_batch() -> None:
    """Of eight batches only the last counts, with an eighth of its gradient."""
    pieces, moved = _batches(8), {}
    for name, train in both_versions("accumulation-bug-zero-early", "train").items():
        model = _Scaled()
        start = model.weight.detach().clone()
        train(model, SGD(model.parameters(), lr=1.0), F.mse_loss, pieces, 8)
        moved[name] = start - model.weight.detach()
    torch.testing.assert_close(moved["fixed"], _gradient(pieces))
    torch.testing.assert_close(moved["code"], _gradient(pieces[-1:]) / 8)
    noise = np.random.default_rng(0).standard_normal((2000, 8))
    assert abs(noise[:, -1].std() / noise.mean(axis=1).std() - np.sqrt(8)) < 0.15


class _TwoRanks:
    """What DistributedDataParallel does with two ranks, as threads: after a backward that is not in ``no_sync``, what
    is in ``.grad`` becomes its mean over the ranks."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.grads: list[Tensor] = [torch.empty(0), torch.empty(0)]

    def wrap(self, module: nn.Module, rank: int) -> nn.Module:
        module.synchronises = True

        @contextmanager
        def no_sync():
            module.synchronises = False
            try:
                yield
            finally:
                module.synchronises = True

        def mean(param: Tensor) -> None:
            if module.synchronises:
                self.grads[rank] = param.grad.clone()
                self.barrier.wait(timeout=20)
                param.grad.copy_((self.grads[0] + self.grads[1]) / 2)
                self.barrier.wait(timeout=20)

        module.no_sync = no_sync
        module.weight.register_post_accumulate_grad_hook(mean)
        return module


def _on_two_ranks(train, batches: list[list[tuple[Tensor, Tensor]]], every: int) -> list[Tensor]:
    wire, ends, faults = _TwoRanks(), [None, None], []

    def work(rank: int) -> None:
        try:
            model = wire.wrap(_Scaled(), rank)
            train(model, SGD(model.parameters(), lr=0.3), F.mse_loss, batches[rank], every)
            ends[rank] = model.weight.detach()
        except Exception as error:  # noqa: BLE001 - what fails in a thread would be lost
            faults.append(error)
            wire.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults
    return ends


def synchronised_too_early() -> None:
    """The all-reduce after the first micro-batch of four: the other three stay local, and the ranks drift apart."""
    data = [_batches(8, seed=rank) for rank in range(2)]
    versions = both_versions("accumulation-bug-first-sync", "train")
    right = _on_two_ranks(versions["fixed"], data, 4)
    assert torch.equal(*right)
    single = _Scaled()
    stepper = SGD(single.parameters(), lr=0.3)
    for group in range(2):
        pieces = [piece for rank in data for piece in rank[4 * group : 4 * group + 4]]
        stepper.zero_grad()
        F.mse_loss(single(torch.cat([x for x, _ in pieces])), torch.cat([y for _, y in pieces])).backward()
        stepper.step()
    torch.testing.assert_close(right[0], single.weight.detach())
    wrong = _on_two_ranks(versions["code"], data, 4)
    assert float((wrong[0] - wrong[1]).abs().max()) > 0.01


def averaged_once_more() -> None:
    """Divided by the tokens of all ranks and then averaged by DDP: too small by the number of ranks."""
    sums, targets = [torch.tensor(6.0), torch.tensor(30.0)], [torch.tensor([1, -100, 2]), torch.tensor([3, 4, 5, 6])]
    counts = [int((target != -100).sum()) for target in targets]
    got = {}
    for name, rank_loss in both_versions("accumulation-bug-world-size", "rank_loss").items():
        losses = []
        for rank in range(2):
            other = counts[1 - rank]
            with (
                mock.patch("torch.distributed.all_reduce", lambda tensor, other=other: tensor.add_(other)),
                mock.patch("torch.distributed.get_world_size", lambda: 2),
            ):
                losses.append(float(rank_loss(sums[rank], targets[rank])))
        got[name] = sum(losses) / 2  # what DDP makes of it, in the loss as in the gradients
    assert got == {"code": 3.0, "fixed": 6.0} and 6.0 == sum(map(float, sums)) / sum(counts)


def clipped_in_the_loop() -> None:
    """Gradients (4, 0) and (0, 4), halved, threshold 1: once at the end they weigh alike, in the loop the last one
    twice as much; and after sixteen equal ones the first counts almost nothing."""
    step = {name: function for name, function in both_versions("accumulation-bug-clip-in-loop", "train_step").items()}

    def moved(train, grads: np.ndarray) -> np.ndarray:
        model = _Scaled(grads.shape[1])
        start = model.weight.detach().clone()
        pieces = [(torch.tensor(grad), torch.zeros(())) for grad in grads]
        train(model, SGD(model.parameters(), lr=1.0), lambda out, _: out.sum(), pieces, 1.0)
        return (start - model.weight.detach()).numpy()

    pair = np.array([[4.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(moved(step["fixed"], pair), [0.5**0.5, 0.5**0.5], atol=1e-5)
    np.testing.assert_allclose(moved(step["code"], pair), [0.2**0.5, 0.8**0.5], atol=1e-5)
    assert not np.allclose(moved(step["code"], pair[::-1]), moved(step["code"], pair))
    many = 32.0 * np.eye(16)
    right, wrong = (moved(step[name], many) for name in ("fixed", "code"))
    assert np.allclose(right, 0.25, atol=1e-5) and wrong[-1] > 0.85 and wrong[0] < 1e-4


def saved_by_no_sync(reduce: float = 240, backward: float = 150, micro: int = 8) -> float:
    """Milliseconds per step that no_sync saves where an all-reduce runs beside the backward pass as far as it can.

    Told from a timeline: a backward pass finishes one bucket of gradients after the other, a bucket is sent when it is
    finished and the one before is through, and the next micro-batch begins when all of them are.
    """
    buckets = 10_000

    def length_of_step(synchronised: list[bool]) -> float:
        now = 0.0
        for sends in synchronised:
            finished = now + backward * np.arange(1, buckets + 1) / buckets
            queue = np.arange(buckets, 0, -1) * reduce / buckets  # a bucket and all those behind it
            now = float(max(finished[-1], (finished + queue).max() if sends else 0.0))
        return now

    saved = length_of_step([True] * int(micro)) - length_of_step([False] * (int(micro) - 1) + [True])
    assert abs(saved / ((micro - 1) * (reduce - backward)) - 1) < 1e-3
    return float((micro - 1) * (reduce - backward))


def norm_after_accumulation(micro_norm: float = 8.0, micro: int = 16) -> float:
    """Norm of the mean gradient of micro-batches, if one of them has micro_norm and the expectation has norm 1."""
    expected = float(np.sqrt(1 + (micro_norm**2 - 1) / micro))
    rng, size = np.random.default_rng(0), 4000
    noise = rng.standard_normal((int(micro), size)) * np.sqrt((micro_norm**2 - 1) / size)
    drawn = np.sqrt(np.sum((np.full(size, size**-0.5) + noise.mean(axis=0)) ** 2))
    assert abs(drawn / expected - 1) < 0.06
    return expected


def same_as_one_batch() -> None:
    """Equal parts of a mean over examples give its gradient; batch norm and a contrastive loss do not."""
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.standard_normal((32, 3))), torch.tensor(rng.standard_normal((32, 3)))

    def gradient(loss, parts: int) -> Tensor:
        model = _Scaled()
        for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (loss(model(a), b) / parts).backward()
        return model.weight.grad

    def normalised(out: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(F.batch_norm(out, None, None, training=True), target)

    def contrastive(out: Tensor, target: Tensor) -> Tensor:
        scores = (out[:, None, :] * target[None, :, :]).sum(-1)
        return F.cross_entropy(scores, torch.arange(len(scores)))

    for loss, same in ((F.mse_loss, True), (normalised, False), (contrastive, False)):
        whole, parts = gradient(loss, 1), gradient(loss, 8)
        apart = float((whole - parts).norm() / whole.norm())
        assert apart < 1e-12 if same else apart > 0.1


def micro_batches_needed(tokens: int = 524_288, ranks: int = 8, micro: int = 4) -> float:
    """Micro-batches of sequences of 2,048 tokens that each rank reads until the step has its tokens."""
    read = rounds = 0
    while read < tokens:
        rounds += 1
        read += sum(len(range(2048)) * micro for _ in range(ranks))
    assert read == tokens
    return float(rounds)


def token_step_pitfalls() -> None:
    """Cut a batch as you like: with the token count the gradient stays, with means of the pieces it does not.

    And a step without a token is not nothing: AdamW decays the weights and moves on with its momentum.
    """
    rng = np.random.default_rng(0)
    losses = [torch.tensor(rng.standard_normal(length)) for length in (1, 2, 3, 4, 5, 6)]

    def gradient(cut: list[int], by_tokens: bool) -> float:
        weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
        pieces = [torch.cat(part) for part in _cut(losses, cut)]
        tokens = sum(len(piece) for piece in pieces)
        for piece in pieces:
            ((weight * piece).sum() / (tokens if by_tokens else len(piece) * len(pieces))).backward()
        return float(weight.grad)

    cuts = [[6], [3, 3], [1, 5], [1, 1, 1, 1, 1, 1]]
    right, wrong = ([gradient(cut, by_tokens) for cut in cuts] for by_tokens in (True, False))
    assert max(right) - min(right) < 1e-12 and max(wrong) - min(wrong) > 0.1
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    stepper = ADAMW([weight], lr=0.1, weight_decay=0.1)
    weight.grad = torch.ones_like(weight)
    stepper.step()
    before = weight.item()
    weight.grad = torch.zeros_like(weight)
    stepper.step()
    assert before - weight.item() > 0.05


def _cut(items: list[Tensor], sizes: list[int]) -> list[list[Tensor]]:
    ends = np.cumsum(sizes)
    return [items[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def what_a_mean_of_means_minimises() -> None:
    """E[n l] / E[n] less E[l] is Cov(n, l) / E[n], per sequence; with l independent of n nothing but noise remains."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 64, 200_000).astype(np.float64)
    for slope in (0.0, -0.02):
        loss = 3 + slope * (lengths - lengths.mean()) + 0.5 * rng.standard_normal(lengths.size)
        by_token = (lengths * loss).sum() / lengths.sum()
        by_sequence = loss.mean()
        covariance = np.mean(lengths * loss) - lengths.mean() * loss.mean()
        assert abs((by_token - by_sequence) - covariance / lengths.mean()) < 1e-9
        assert abs(by_token - by_sequence) < 0.005 if slope == 0 else by_sequence - by_token > 0.15
    small = lengths.reshape(-1, 4)
    ratio = ((small * (3 - 0.02 * (small - 32))).sum(1) / small.sum(1)).mean()
    exact = (lengths * (3 - 0.02 * (lengths - 32))).sum() / lengths.sum()
    large = lengths.reshape(-1, 40)
    nearer = ((large * (3 - 0.02 * (large - 32))).sum(1) / large.sum(1)).mean()
    assert ratio - exact > 5 * abs(nearer - exact)
    short, long = np.array([2.0, 62.0])
    assert (1 / (2 * short)) / (1 / (2 * long)) == 31 and F.mse_loss(torch.ones(1), torch.zeros(1)) == 1


def thresholds_on_trial() -> None:
    """Norms that fall from 10 to 0.02 over 5,000 steps, with a spread of 20%, and late a spike of 30 times the usual.

    A constant of 1.0 clips each of the first thousand steps and lets the spike pass whole; twice the median of the last
    200 norms clips under 1% of all steps and lets less than 3 times the usual pass. A 90th percentile of norms *after*
    clipping can never rise: when norms have tripled for good it clips every step, while one of the norms before
    clipping clips a tenth of them.
    """
    norms = 10 * 0.002 ** np.linspace(0, 1, 5000) * np.exp(0.2 * np.random.default_rng(0).standard_normal(5000))
    usual = float(np.median(norms[4650:4750]))
    spike = 30 * usual
    assert spike < 1.0 and (norms[:1000] > 1.0).all() and (norms[3000:] < 1.0).all() and 0.02 < usual < 0.04
    recent = np.array([2 * np.median(norms[max(0, t - 200) : t]) for t in range(50, 5000)])
    assert (norms[50:] > recent).mean() < 0.01 and min(spike, recent[4650]) / usual < 3
    tripled = np.exp(0.2 * np.random.default_rng(1).standard_normal(2000)) * np.where(np.arange(2000) < 500, 1, 3)
    history, clipped = {"before": list(tripled[:100]), "after": list(tripled[:100])}, {"before": 0, "after": 0}
    for t, norm in enumerate(tripled[100:], start=100):
        for name, seen in history.items():
            limit = float(np.quantile(seen[-100:], 0.9))
            seen.append(float(norm if name == "before" else min(norm, limit)))
            clipped[name] += int(t >= 1000 and norm > limit)
    assert clipped["after"] == 1000 and 70 < clipped["before"] < 140


def eight_in_a_step() -> Curves:
    """A noisy quadratic under Adam; from step 400 on eight gradients a step, added up."""
    rng, curvature, weight = np.random.default_rng(0), np.linspace(0.2, 1.0, 200), np.full(200, 3.0)
    m = v = np.zeros(200)
    losses, norms = [], []
    for t in range(1, 801):
        count = 8 if t > 400 else 1
        grad = sum(curvature * weight + 0.5 * rng.standard_normal(200) for _ in range(count))
        losses.append(float(0.5 * np.sum(curvature * weight**2)))
        norms.append(float(np.sqrt(np.sum(grad * grad))))
        m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad**2
        weight = weight - 0.02 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    steps = thinned(np.arange(1, 801))
    panels = [
        Panel("gradient norm before clipping", {"norm": thinned(norms)}),
        Panel("loss", {"loss": thinned(losses)}, log=True),
    ]
    return Curves("step", steps, panels)


def jump_of_the_norm() -> None:
    """The curves: the norm jumps by the root of 8 once and stays; a mean would have fallen by it; the loss goes on."""
    curves = eight_in_a_step()
    norm, loss = (next(iter(panel.series.values())) for panel in curves.panels)
    before, after = np.median(norm[80:100]), np.median(norm[105:])
    assert abs(after / before / np.sqrt(8) - 1) < 0.15 and np.std(norm[105:]) < 0.1 * after
    assert np.median(loss[150:]) < 0.7 * np.median(loss[90:100])
