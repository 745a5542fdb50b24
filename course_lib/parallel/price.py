"""What a training step communicates and computes: bytes and seconds, under each stage of ZeRO and beside it.

Everything here is predicted, from the alpha-beta model of collectives (``alpha_beta``), a simulated timeline
(``overlap``), whose names are all here too, and plain arithmetic; nothing is measured. Sizes are bytes (1 GB = 1e9),
times are seconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from course_lib.memory.arguments import real, whole
from course_lib.parallel.alpha_beta import (
    ALGORITHMS,
    CLUSTERS,
    MOST_RANKS,
    Cluster,
    Cost,
    Levels,
    Link,
    all_gather,
    all_reduce,
    broadcast,
    reduce_scatter,
)
from course_lib.parallel.overlap import Event, Step, summary, timeline

__all__ = [
    "ALGORITHMS", "CLUSTERS", "STAGES", "Cluster", "Cost", "Event", "Levels", "Link", "Step", "Traffic", "all_gather",
    "all_reduce", "broadcast", "bubble", "communication_seconds", "compute_seconds", "predict_step", "reduce_scatter",
    "summary", "tensor_parallel_bytes", "timeline", "tokens_to_hide", "traffic_per_step",
]

STAGES = ("DP", "ZeRO-1", "ZeRO-2", "ZeRO-3")
"""What the stages 0 to 3 are called."""
MOST_ELEMENTS = 10**15


class Traffic(NamedTuple):
    """Bytes that each rank sends in one optimizer step.

    Attributes:
        weights: in all-gathers of parameters.
        gradients: in all-reduces or reduce-scatters.
    """

    weights: float
    gradients: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.weights + self.gradients


def traffic_per_step(
    stage: int, elements: int, width: int, ranks: int, micro_batches: int = 1, *, gradient_width: int | None = None,
    reduce_each: bool | None = None, reshard: bool = True,
) -> Traffic:
    """Bytes that each rank of a ring sends in a step: for one micro-batch 2P, 2P, 2P and 3P numbers times (N - 1) / N.

    A reduce-scatter or an all-gather of P numbers sends P (N - 1) / N of them. DP: an all-reduce is one of each, both
    of gradients. ZeRO-1 and 2: gradients reduce-scattered, new weights gathered. ZeRO-3: weights gathered for the
    forward pass and again for the backward pass, gradients reduce-scattered.

    With m micro-batches, DP and ZeRO-1 hold whole gradients and reduce their sum once. ZeRO-2 keeps only its share, so
    it reduces after each micro-batch. ZeRO-3 does, and gathers twice in each.

    Args:
        stage: 0 (data parallel) to 3.
        elements: P, parameters.
        width: bytes of a weight, and of a gradient unless ``gradient_width`` says otherwise.
        ranks: N >= 1.
        micro_batches: m >= 1 in a step.
        gradient_width: bytes of a gradient as it is sent.
        reduce_each: reduce after each micro-batch (DDP without ``no_sync``; ZeRO-2) or once (whole gradients are held
            until then); None for the stage's own way.
        reshard: ZeRO-3 frees the weights after the forward pass and gathers them again; False: it keeps them.

    Raises:
        ValueError: a value out of range.

    Source: Rajbhandari et al. 2020, ZeRO, 1910.02054, section 7; for accumulation, the course's own count.
    """
    stage = whole("stage", stage, 0, 3, "(0 is data parallel)")
    elements = whole("elements", elements, 1, MOST_ELEMENTS, "parameters")
    width = whole("width", width, 1, 16, "bytes")
    gradient_width = width if gradient_width is None else whole("gradient_width", gradient_width, 1, 16, "bytes")
    micro_batches = whole("micro_batches", micro_batches, 1, 10**6)
    ranks = whole("ranks", ranks, 1, MOST_RANKS)
    reductions = micro_batches if (stage >= 2 if reduce_each is None else reduce_each) else 1
    gathers = (0, 1, 1, micro_batches * (1 + reshard))[stage]
    part = elements * (ranks - 1) / ranks
    return Traffic(gathers * width * part, (2 if stage == 0 else 1) * reductions * gradient_width * part)


def compute_seconds(elements: float, tokens: float, *, peak: float = 989e12, mfu: float = 0.4) -> float:
    """Forward and backward of ``tokens`` tokens on one GPU: 6 P T / (peak * MFU); the forward pass is a third of it.

    Args:
        elements: P, parameters that work on a token, > 0. Attention's products of queries and keys are left out.
        tokens: T, on this GPU, >= 0.
        peak: FLOP/s; by default an H100 SXM's dense bf16.
        mfu: model FLOPs utilization, the share of the peak that is reached, 0 < mfu <= 1.

    Raises:
        ValueError: a value out of range.

    Source: Kaplan et al. 2020, 2001.08361, section 2.1 (6 P a token); Chowdhery et al. 2022, 2204.02311 (MFU).
    """
    real("elements", elements, above=True)
    real("tokens", tokens)
    real("peak", peak, above=True)
    if not 0 < real("mfu", mfu) <= 1:
        raise ValueError(f"Invalid mfu: {mfu!r}. Allowed: 0 < mfu <= 1, the share of the peak that is reached.")
    return 6 * elements * tokens / (peak * mfu)


def communication_seconds(
    stage: int, elements: int, ranks: int, cluster: Cluster, *, width: int = 2, collectives: int = 1,
) -> float:
    """What a step with one micro-batch communicates, without overlap: two passes over P numbers, or three (ZeRO-3).

    Args:
        stage, elements, ranks, width: as in :func:`traffic_per_step`.
        cluster: the links; see :meth:`Cluster.one_way`.
        collectives: into which each pass is divided: units, layers or buckets.

    Raises:
        ValueError: a value out of range.
    """
    passes = (2, 2, 2, 3)[whole("stage", stage, 0, 3, "(0 is data parallel)")]
    size = whole("width", width, 1, 16, "bytes") * whole("elements", elements, 1, MOST_ELEMENTS, "parameters")
    return passes * cluster.one_way(size, ranks, collectives).seconds


def predict_step(
    stage: int, elements: int, layers: int, tokens: int, ranks: int, link: Link, *, width: int = 2, bucket: int = 1,
    prefetch: int = 1, peak: float = 989e12, mfu: float = 0.4,
) -> Step:
    """The time of a step of a model whose parameters are spread evenly over its layers.

    Args:
        elements: parameters.
        tokens: on each rank.
        width: bytes of a weight and of a gradient.
        stage, layers, ranks, link, bucket, prefetch: as in :func:`course_lib.parallel.overlap.timeline`.
        peak, mfu: as in :func:`compute_seconds`.

    Raises:
        ValueError: a value out of range.
    """
    seconds = compute_seconds(elements, tokens, peak=peak, mfu=mfu)
    size = whole("width", width, 1, 16, "bytes") * elements / whole("layers", layers, 1, 10**5)
    return summary(timeline(stage, layers, seconds, size, ranks, link, bucket=bucket, prefetch=prefetch))


def tokens_to_hide(
    stage: int, elements: int, ranks: int, cluster: Cluster, *, width: int = 2, peak: float = 989e12, mfu: float = 0.4,
) -> float:
    """Tokens on each GPU from which a step computes for longer than it communicates; fewer, and no overlap can hide it.

    The number of parameters cancels out where startups do not count: both times are proportional to it. It is a lower
    bound, since not all of the communication may begin or end within the compute.

    Args:
        stage, elements, ranks, cluster, width: as in :func:`communication_seconds`.
        peak, mfu: as in :func:`compute_seconds`.
    """
    seconds = communication_seconds(stage, elements, ranks, cluster, width=width)
    return seconds / compute_seconds(elements, 1, peak=peak, mfu=mfu)


def tensor_parallel_bytes(layers: int, batch: int, sequence: int, width: int, ranks: int, element: int = 2) -> float:
    """Bytes that each rank sends in a step for tensor parallelism: 4 ring all-reduces of b s h numbers in each layer.

    Two in the forward pass (after attention and after the MLP), two in the backward pass.

    Args:
        layers: transformer layers.
        batch, sequence, width: b, s and h: sequences that the group works on in a step, their tokens, and the width of
            the residual stream.
        ranks: t, that share a layer.
        element: bytes of an activation.

    Source: Shoeybi et al. 2019, Megatron-LM, 1909.08053, section 3 and figure 4.
    """
    given = {"layers": layers, "batch": batch, "sequence": sequence, "width": width, "element": element}
    size = math.prod(whole(name, value, 1, 10**9) for name, value in given.items())
    return 4 * 2 * size * (whole("ranks", ranks, 1, MOST_RANKS) - 1) / ranks


def bubble(stages: int, micro_batches: int) -> float:
    """The share of a step in which a stage of a pipeline waits: (p - 1) / (m + p - 1).

    Args:
        stages: p >= 1.
        micro_batches: m >= 1 in a step.

    Source: Huang et al. 2019, GPipe, 1811.06965, section 2.3. Narayanan et al. 2021, 2104.04473, divide by the time
    without a bubble instead: (p - 1) / m.
    """
    waiting = whole("stages", stages, 1, MOST_RANKS) - 1
    return waiting / (whole("micro_batches", micro_batches, 1, 10**9) + waiting)
