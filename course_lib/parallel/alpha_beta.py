"""What a collective costs: the alpha-beta model, of one ring or tree, and of GPUs in nodes.

A message of S bytes takes ``alpha + S / B`` seconds: a startup time and a bandwidth (Thakur, Rabenseifner & Gropp 2005,
Optimization of Collective Communication Operations in MPICH, section 3). Everything here is predicted from that and
plain arithmetic; nothing is measured. Sizes are bytes (1 GB = 1e9), times are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from course_lib.memory.arguments import choice, real, whole

ALGORITHMS = ("ring", "tree", "doubling", "halving")
MOST_RANKS = 10**6


@dataclass(frozen=True)
class Link:
    """How fast one rank can send.

    Attributes:
        latency_seconds: alpha, from the start of a message until its first byte arrives, >= 0.
        bytes_per_second: B, in one direction, > 0.

    Raises:
        ValueError: a negative or infinite latency, or a bandwidth that is not positive and finite.
    """

    latency_seconds: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        real("latency_seconds", self.latency_seconds)
        real("bytes_per_second", self.bytes_per_second, above=True)


class Cost(NamedTuple):
    """What a collective costs.

    Attributes:
        seconds: until the last rank has finished.
        sent: bytes that the rank that sends most has sent.
    """

    seconds: float
    sent: float


def _message(size: float, link: Link) -> float:
    return link.latency_seconds + size / link.bytes_per_second


def reduce_scatter(size: float, ranks: int, link: Link) -> Cost:
    """A ring's reduce-scatter: N - 1 steps, in each of which every rank sends S / N bytes to its neighbour.

    Args:
        size: bytes of the whole tensor, S >= 0.
        ranks: N >= 1.
        link: of each rank.

    Raises:
        ValueError: a size or a number of ranks out of range.

    Source: Patarasuk & Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    real("size", size)
    steps = whole("ranks", ranks, 1, MOST_RANKS) - 1
    sent = steps * size / ranks
    return Cost(steps * link.latency_seconds + sent / link.bytes_per_second, sent)


def all_gather(size: float, ranks: int, link: Link) -> Cost:
    """A ring's all-gather of parts that make ``size`` bytes together: the same cost as :func:`reduce_scatter`."""
    return reduce_scatter(size, ranks, link)


def all_reduce(size: float, ranks: int, link: Link, algorithm: str = "ring") -> Cost:
    """The sum of ``size`` bytes on every rank.

    ::

        ring       2 (N - 1) startups, 2 S (N - 1) / N bytes    reduce-scatter, then all-gather
        halving    2 log2(N) startups, 2 S (N - 1) / N bytes    the same by recursive halving, then doubling
        doubling     log2(N) startups,   S log2(N) bytes        whole tensors exchanged with ever farther partners
        tree       2 log2(N) startups, 2 S log2(N) bytes in time  to the root of a binomial tree, and back, unpipelined

    No algorithm can send less than 2 S (N - 1) / N. The ring pays for it with startups, doubling the other way round.

    Args:
        size: bytes, S >= 0.
        ranks: N >= 1; a power of two for "halving" and "doubling".
        link: of each rank.
        algorithm: one of ``ALGORITHMS``.

    Raises:
        ValueError: a value out of range, or ranks that the algorithm is not defined for.

    Source: Thakur, Rabenseifner & Gropp 2005, section 4.5; Rabenseifner 2004, Optimization of Collective Reduction
    Operations; the ring: Patarasuk & Yuan 2009.
    """
    algorithm = choice("algorithm", algorithm, ALGORITHMS)
    half = reduce_scatter(size, ranks, link)
    if algorithm == "ring":
        return Cost(2 * half.seconds, 2 * half.sent)
    depth = math.ceil(math.log2(ranks))
    if algorithm == "tree":
        # The root sends the sum to one rank on each level; the others send less.
        return Cost(2 * depth * _message(size, link), depth * size)
    if ranks & (ranks - 1):
        raise ValueError(f"Invalid ranks for {algorithm}: {ranks}. Allowed: a power of two (for another number, some "
                         "ranks first give their data to others); or take ring or tree.")
    if algorithm == "doubling":
        return Cost(depth * _message(size, link), depth * size)
    return Cost(2 * depth * link.latency_seconds + 2 * half.sent / link.bytes_per_second, 2 * half.sent)


def broadcast(size: float, ranks: int, link: Link, algorithm: str = "ring", pieces: int | None = None) -> Cost:
    """One rank's ``size`` bytes on every rank.

    ``ring``: around the ring in k pieces, each passed on as soon as it is there: (N - 2 + k) (alpha + S / (k B)).
    ``tree``: a binomial tree: ceil(log2 N) (alpha + S / B).

    Args:
        size, ranks, link: as in :func:`all_reduce`.
        algorithm: "ring" or "tree".
        pieces: k >= 1 for the ring; None for the best, sqrt((N - 2) S / (alpha B)), at most one piece a byte.

    Raises:
        ValueError: a value out of range.

    Source: Thakur, Rabenseifner & Gropp 2005, section 4.2 (the tree); a pipelined chain is textbook material.
    """
    real("size", size)
    whole("ranks", ranks, 1, MOST_RANKS)
    algorithm = choice("algorithm", algorithm, ("ring", "tree"))
    if ranks == 1:
        return Cost(0.0, 0.0)
    if algorithm == "tree":
        depth = math.ceil(math.log2(ranks))
        return Cost(depth * _message(size, link), depth * size)
    if pieces is None:
        startup = link.latency_seconds * link.bytes_per_second
        best = math.sqrt((ranks - 2) * size / startup) if startup else math.inf
        pieces = int(max(1, min(best, size)))
    whole("pieces", pieces, 1, 10**15)
    return Cost((ranks - 2 + pieces) * _message(size / pieces, link), size)


@dataclass(frozen=True)
class Cluster:
    """GPUs in nodes: a fast link inside, a slower one between, one for each GPU.

    Attributes:
        name: as one writes it.
        per_node: GPUs of a node, >= 1; 1 for ranks that are all alike.
        inside, between: links of each GPU to the others of its node, and to those of other nodes.
    """

    name: str
    per_node: int
    inside: Link
    between: Link

    def one_way(self, size: float, ranks: int, collectives: int = 1) -> Levels:
        """A reduce-scatter or an all-gather of ``size`` bytes over the nodes: half an all-reduce.

        Reduce-scatter: first inside each node, S bytes over g GPUs; then each GPU with its peers in the other nodes,
        the S / g bytes that it owns now. All-gather: the same backwards. The two are counted one after the other;
        a library that pipelines them comes near the longer of the two.

        Args:
            size: bytes of the whole tensor, of all collectives together.
            ranks: at most ``per_node``, or a multiple of it.
            collectives: in how many equal parts it is sent; each pays its startups.

        Raises:
            ValueError: a value out of range, or nodes that would not be full.
        """
        whole("ranks", ranks, 1, MOST_RANKS)
        whole("collectives", collectives, 1, 10**9)
        local = min(ranks, self.per_node)
        if ranks % local:
            raise ValueError(f"Invalid ranks: {ranks}. Allowed: up to {self.per_node}, or a multiple of "
                             f"{self.per_node}: the nodes of {self.name} are used whole.")
        inside = reduce_scatter(size / collectives, local, self.inside)
        between = reduce_scatter(size / collectives / local, ranks // local, self.between)
        return Levels(*(Cost(collectives * cost.seconds, collectives * cost.sent) for cost in (inside, between)))

    def all_reduce(self, size: float, ranks: int, collectives: int = 1) -> Levels:
        """A hierarchical all-reduce: :meth:`one_way` there and back."""
        return Levels(*(Cost(2 * cost.seconds, 2 * cost.sent) for cost in self.one_way(size, ranks, collectives)))


class Levels(NamedTuple):
    """What a collective costs inside the nodes and between them."""

    inside: Cost
    between: Cost

    @property
    def seconds(self) -> float:
        """Both, one after the other."""
        return self.inside.seconds + self.between.seconds

    @property
    def sent(self) -> float:
        """Bytes that a rank sends on both links together."""
        return self.inside.sent + self.between.sent


def _flat(name: str, bandwidth: float) -> Cluster:
    return Cluster(name, 1, Link(0.0, bandwidth), Link(0.0, bandwidth))


# Startup times are zero: they depend on the machine, and those that are known are for one machine each.
CLUSTERS: dict[str, Cluster] = {
    "hgx-h100": Cluster("nodes of 8 H100, NVLink 450 GB/s, between nodes 50 GB/s a GPU", 8,
                        Link(0.0, 450e9), Link(0.0, 50e9)),
    "network-400": _flat("one GPU a node, 50 GB/s (400 Gb/s)", 50e9),
    "network-100": _flat("one GPU a node, 12.5 GB/s (100 Gb/s)", 12.5e9),
    "network-10": _flat("one GPU a node, 1.25 GB/s (10 Gb/s)", 1.25e9),
}
"""Nominal bandwidths in one direction, as they are sold, without startup times; what a program reaches is less.
NVIDIA H100: NVLink 900 GB/s both directions together; ConnectX-7: 400 Gb/s for each GPU of a DGX H100."""
