"""Evidence for ``bank/communication.yaml``: ranks simulated in one process, times from a startup and a bandwidth."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import both_versions, normal
from course_lib.questions.runs import Curves, Panel


def _ring(vectors: np.ndarray) -> tuple[np.ndarray, int, int]:
    """All-reduce of ``vectors`` (ranks, n) on a ring; the sums, elements that a rank sent, and messages it sent."""
    ranks, length = vectors.shape
    chunks = vectors.reshape(ranks, ranks, length // ranks).copy()
    sent = messages = 0
    for step in range(ranks - 1):
        moving = [chunks[rank, (rank - step) % ranks].copy() for rank in range(ranks)]
        for rank in range(ranks):
            chunks[rank, (rank - 1 - step) % ranks] += moving[rank - 1]
        sent, messages = sent + moving[0].size, messages + 1
    for step in range(ranks - 1):
        moving = [chunks[rank, (rank + 1 - step) % ranks].copy() for rank in range(ranks)]
        for rank in range(ranks):
            chunks[rank, (rank - step) % ranks] = moving[rank - 1]
        sent, messages = sent + moving[0].size, messages + 1
    return chunks.reshape(ranks, length), sent, messages


def ring_seconds(gigabytes: float = 14, ranks: int = 64, bandwidth: int = 50) -> float:
    """Seconds that a ring all-reduce takes at ``bandwidth`` GB/s for each rank, without startup times."""
    sent = sum(gigabytes / ranks for _ in range(ranks - 1)) + sum(gigabytes / ranks for _ in range(ranks - 1))
    return float(sent / bandwidth)


def ring_is_two_halves() -> None:
    """A ring adds up right, each rank sends 2 (N - 1) / N of the buffer in 2 (N - 1) messages; 1 (N - 1) / N a half.

    A rank that collects everything gets (N - 1) buffers, and so does everybody in an all-to-all exchange.
    """
    for ranks in (2, 3, 8):
        vectors = normal(ranks, 24 * ranks)
        sums, sent, messages = _ring(vectors)
        np.testing.assert_allclose(sums, np.tile(vectors.sum(0), (ranks, 1)), rtol=0, atol=1e-12)
        assert sent * ranks == 2 * (ranks - 1) * 24 * ranks and messages == 2 * (ranks - 1)
    assert [round(2 * (ranks - 1) / ranks, 3) for ranks in (2, 8, 64, 1024)] == [1.0, 1.75, 1.969, 1.998]


def zero_three_traffic(parameters: float = 7e9, ranks: int = 64) -> float:
    """GB that a rank sends per step in stage 3, weights gathered in bf16 and gradients reduced in float32.

    In bytes per parameter DDP, ZeRO-1, ZeRO-2 and ZeRO-3 send 8, 6, 6, 8 with float32 gradients and 4, 4, 4, 6 with
    bf16 ones.
    """
    for gradient, expected in ((4, (8, 6, 6, 8)), (2, (4, 4, 4, 6))):
        whole, gather, reduce = 2 * gradient, 2, gradient
        assert (whole, reduce + gather, reduce + gather, gather + gather + reduce) == expected
    sent = 0.0
    for bytes_each in (2, 2, 4):  # gather for forward, gather for backward, reduce-scatter
        for _step in range(ranks - 1):
            sent += bytes_each * parameters / ranks
    return float(sent / 1e9)


def small_messages_wait() -> None:
    """64 ranks, 10 microseconds a message, 50 GB/s: the 126 messages of a ring take 1.26 ms before any byte counts.

    Bytes count as much as messages at 32 MB. 300 small tensors one by one take 0.38 s, in one bucket 1.4 ms.
    """
    ranks, startup, bandwidth = 64, 10e-6, 50e9

    def seconds(size: float) -> float:
        return 2 * (ranks - 1) * (startup + size / ranks / bandwidth)

    assert round(2 * (ranks - 1) * startup * 1e3, 2) == 1.26
    assert np.isclose(seconds(32e6), 2 * 2 * (ranks - 1) * startup)
    assert round(300 * seconds(8192), 2) == 0.38 and round(seconds(300 * 8192) * 1e3, 2) == 1.36
    assert round(8192 * 2 * 63 / 64 / bandwidth * 1e6, 1) == 0.3
    assert 2 * np.log2(ranks) == 12


def _timeline(order: list[int], buckets: int, backward: float, wire: float) -> tuple[np.ndarray, np.ndarray]:
    """When each bucket's transfer begins and ends, if they go one after another in ``order``."""
    ready = backward * (np.arange(buckets) + 1) / buckets
    begin, end, free = np.zeros(buckets), np.zeros(buckets), 0.0
    for place, bucket in enumerate(order):
        begin[place] = max(free, ready[bucket])
        end[place] = free = begin[place] + wire / buckets
    return begin, end


def buckets_in_forward_order() -> None:
    """40 buckets, 100 ms of backward, 60 ms of wire: in backward's order 1.5 ms are left over, in forward's all 60."""
    wait = {}
    for name, order in (("backward", range(40)), ("forward", reversed(range(40)))):
        begin, end = _timeline(list(order), 40, 100.0, 60.0)
        wait[name] = end[-1] - 100
        assert begin[0] == (2.5 if name == "backward" else 100.0)
    assert np.isclose(wait["backward"], 1.5) and np.isclose(wait["forward"], 60.0)


def bucket_timeline() -> Curves:
    """Gradients finished and sent over a step whose buckets wait for the one that is finished last."""
    forward, backward, wire, buckets, total = 50.0, 100.0, 60.0, 40, 1.0
    begin, end = _timeline(list(reversed(range(buckets))), buckets, backward, wire)
    x = np.linspace(0.0, 220.0, 221)
    done = total * np.floor(np.clip((x - forward) / backward, 0, 1) * buckets) / buckets
    sent = np.array([np.sum(np.clip((t - forward - begin) / (end - begin), 0, 1)) for t in x]) * total / buckets
    rate = np.r_[0.0, np.diff(sent) / np.diff(x) * 1e3]
    panels = [
        Panel("GB of gradients", {"computed": done.tolist(), "sent": sent.tolist()}),
        Panel("GB/s on the network", {"network": rate.tolist()}),
    ]
    return Curves("ms since the step began", x.tolist(), panels)


def _relative_error(total: torch.Tensor, exact: torch.Tensor) -> float:
    return ((total.double() - exact).norm() / exact.norm()).item()


def reduced_in_bf16() -> None:
    """bf16 gradients of 512 ranks with a common part of 1 and noise of 1, added up along a ring.

    The sum is 0.3, 0.8 and 2.1% off on 8, 64 and 512 ranks; added in float32 and rounded once, 0.18%. And 512 equal
    terms come to half of their sum.
    """
    terms = torch.tensor(1 + normal(512, 2000)).bfloat16()
    errors = {}
    for ranks in (8, 64, 512):
        exact = terms[:ranks].double().sum(0)
        ring, single = terms[0].clone(), terms[0].float()
        for term in terms[1:ranks]:
            ring += term
            single += term.float()
        errors[ranks] = (_relative_error(ring, exact), _relative_error(single.bfloat16(), exact))
    assert [round(100 * errors[ranks][0], 1) for ranks in (8, 64, 512)] == [0.3, 0.8, 2.1]
    assert all(0.0015 < once < 0.002 for _, once in errors.values())
    equal = torch.ones((), dtype=torch.bfloat16)
    total = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(512):
        total += equal
    assert total == 256


def outer_steps() -> None:
    """Four workers on quadratics of different curvature. One inner step is data-parallel SGD; 500 end elsewhere.

    With 14 GB over 1 GB/s among four sites, every step would wait 21 s; every 500th step of 2 s, 2% of the time.
    """
    curvature = np.array([0.5, 1.0, 2.0, 4.0])
    target = np.array([-1.0, 0.0, 1.0, 2.0])
    best = np.sum(curvature * target) / np.sum(curvature)

    def end(inner: int, rounds: int, outer_lr: float = 1.0, momentum: float = 0.0, lr: float = 0.02) -> float:
        weight, buffer = 5.0, 0.0
        for _ in range(rounds):
            local = np.full(4, weight)
            for _ in range(inner):
                local -= lr * curvature * (local - target)
            difference = weight - local.mean()
            buffer = momentum * buffer + difference
            weight -= outer_lr * (difference + momentum * buffer)
        return weight

    weight = 5.0
    for _ in range(100):
        weight -= 0.02 * np.mean(curvature * (weight - target))
    assert np.isclose(end(1, 100), weight, rtol=1e-12)
    assert abs(end(1, 2000) - best) < 1e-6
    drift = {inner: end(inner, 20000 // inner) - best for inner in (1, 10, 500)}
    assert abs(drift[10]) < 0.2 * abs(drift[500]) and np.isclose(drift[500], target.mean() - best, atol=0.01)
    assert round(2 * 3 / 4 * 14 / 1) == 21 and round(21 / (500 * 2), 3) == 0.021


def chunk_that_was_not_finished() -> None:
    """The bank's ring is right for two ranks and wrong from three on, where partial sums are passed on."""
    for ranks in (2, 3, 8):
        vectors = [row for row in normal(ranks, 4 * ranks)]
        for name, all_reduce in both_versions("comm-ring-index", "all_reduce").items():
            worst = max(np.abs(result - sum(vectors)).max() for result in all_reduce(vectors))
            assert (worst < 1e-12) == (name == "fixed" or ranks == 2)
    vectors = [np.ones(8) for _ in range(8)]
    results = both_versions("comm-ring-index", "all_reduce")["code"](vectors)
    assert np.mean([np.mean(result == 8) for result in results]) < 0.5


def buckets_matched_by_count() -> None:
    """Two buckets sent in another order by rank 1: of equal sizes they are mixed up in silence, and the ranks part."""
    from course_lib.parallel.threads import RanksDisagree, run_threads

    def reduce(comm, sizes: tuple[int, int], same: bool) -> list[float]:
        buckets = [torch.full((sizes[0],), 1.0 + comm.rank), torch.full((sizes[1],), 10.0 * (1 + comm.rank))]
        for bucket in buckets if same or comm.rank == 0 else buckets[::-1]:
            comm.all_reduce(bucket)
        return [bucket[0].item() for bucket in buckets]

    assert run_threads(reduce, 2, (4, 4), True) == [[3, 30], [3, 30]]
    assert run_threads(reduce, 2, (4, 4), False) == [[21, 12], [12, 21]]
    try:
        run_threads(reduce, 2, (4, 6), False)
        raise AssertionError("different sizes are noticed")
    except RanksDisagree as error:
        assert "(4,)" in str(error) and "(6,)" in str(error)
