"""One step as a timeline: what of the communication runs beside the compute, and what has to be waited for.

A simulation with two streams, each of which does one thing at a time in the order in which things were given to it.
Nothing is measured.
"""

from __future__ import annotations

from typing import NamedTuple

from course_lib.memory.arguments import real, whole
from course_lib.parallel.alpha_beta import Cost, Link, all_gather, all_reduce, reduce_scatter

COMPUTE, NETWORK = "compute", "network"


class Event(NamedTuple):
    """Something that a stream does.

    Attributes:
        stream: "compute" or "network".
        name: such as "forward 1", "backward 1", "gather 1", "reduce 2-1": layers count from 1.
        start, end: seconds from the start of the step.
    """

    stream: str
    name: str
    start: float
    end: float


class Step(NamedTuple):
    """A step in seconds.

    Attributes:
        seconds: from the first event to the last.
        compute: in which it computes.
        communication: in which it communicates, whether hidden or not.
    """

    seconds: float
    compute: float
    communication: float

    @property
    def exposed(self) -> float:
        """Seconds by which communication makes the step longer."""
        return self.seconds - self.compute

    @property
    def hidden(self) -> float:
        """The share of the communication that runs beside compute; 1 where there is none."""
        return 1 - self.exposed / self.communication if self.communication else 1.0


def timeline(
    stage: int, layers: int, compute: float, layer_bytes: float, ranks: int, link: Link, *, bucket: int = 1,
    prefetch: int = 1,
) -> list[Event]:
    """The events of one step of equal layers; the optimizer's own time is left out.

    - Stage 0: when the backward pass has done the layers of a bucket, it is all-reduced. The last one, of the first
      layers, is complete only when there is nothing left to hide behind.
    - Stages 1 and 2: the same with a reduce-scatter, and after the last one all new weights are gathered. (Hiding these
      gathers behind the next forward pass is possible and not drawn.)
    - Stage 3: a layer's weights are gathered before its forward pass and again before its backward pass, and its
      gradients reduce-scattered after it. With ``prefetch`` p >= 1 the gather of a layer may begin with the compute of
      the p-th layer before it, and p + 1 layers are held at once; with 0 it begins when the layer before has ended.

    Args:
        stage: 0 (data parallel) to 3.
        layers: how many, >= 1.
        compute: seconds of forward (a third) and backward together, >= 0.
        layer_bytes: bytes of one layer's weights, and of its gradients, >= 0.
        ranks: in one ring.
        link: of each rank.
        bucket: layers in a bucket, for stages 0 to 2; the last bucket may have fewer.
        prefetch: for stage 3.

    Returns:
        Events in the order in which they were given to their streams.

    Raises:
        ValueError: a value out of range.

    Source: the course's own, after Li et al. 2020, PyTorch Distributed, 2006.15704, section 3.2.3 (buckets) and Zhao
    et al. 2023, PyTorch FSDP, 2304.11277, section 3.3 (prefetching).
    """
    stage = whole("stage", stage, 0, 3, "(0 is data parallel)")
    layers = whole("layers", layers, 1, 10**5)
    bucket, prefetch = whole("bucket", bucket, 1, 10**5), whole("prefetch", prefetch, 0, 10**5)
    real("compute", compute)
    real("layer_bytes", layer_bytes)
    forward, backward = compute / 3 / layers, 2 * compute / 3 / layers
    units = [(f"forward {layer}", layer, forward) for layer in range(1, layers + 1)]
    units += [(f"backward {layer}", layer, backward) for layer in range(layers, 0, -1)]
    streams = _Streams()
    if stage == 3:
        gather, reduce = (cost(layer_bytes, ranks, link) for cost in (all_gather, reduce_scatter))
        _gathering(streams, units, layers, gather, reduce, prefetch)
        return streams.events
    for name, _, seconds in units[:layers]:
        streams.add(COMPUTE, name, seconds)
    buckets = [list(range(last, max(last - bucket, 0), -1)) for last in range(layers, 0, -bucket)]
    for inside in buckets:
        for layer in inside:
            streams.add(COMPUTE, f"backward {layer}", backward)
        reduce = (reduce_scatter if stage else all_reduce)(len(inside) * layer_bytes, ranks, link)
        streams.add(NETWORK, f"reduce {_span(inside)}", reduce.seconds, streams.free[COMPUTE])
    for inside in reversed(buckets) if stage else ():
        gather = all_gather(len(inside) * layer_bytes, ranks, link)
        streams.add(NETWORK, f"gather {_span(inside[::-1])}", gather.seconds)
    return streams.events


def summary(events: list[Event]) -> Step:
    """How long a timeline takes, and how long each stream is busy.

    Raises:
        ValueError: there are no events.
    """
    if not events:
        raise ValueError("Invalid events: there are none. Pass what timeline returns.")
    busy = {stream: sum(event.end - event.start for event in events if event.stream == stream)
            for stream in (COMPUTE, NETWORK)}
    return Step(max(event.end for event in events), busy[COMPUTE], busy[NETWORK])


class _Streams:
    """Two queues: an event begins when its stream is free, and not before it may."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.free = {COMPUTE: 0.0, NETWORK: 0.0}

    def add(self, stream: str, name: str, seconds: float, earliest: float = 0.0) -> Event:
        start = max(self.free[stream], earliest)
        event = Event(stream, name, start, start + seconds)
        self.free[stream] = event.end
        self.events.append(event)
        return event


def _gathering(
    streams: _Streams, units: list[tuple[str, int, float]], layers: int, gather: Cost, reduce: Cost, prefetch: int,
) -> None:
    """Stage 3: ``units`` are name, layer and seconds of each layer's forward, then of each layer's backward pass."""
    ready: list[float] = []

    def fetch(earliest: float) -> None:
        layer = units[len(ready)][1]
        ready.append(streams.add(NETWORK, f"gather {layer}", gather.seconds, earliest).end)

    for _ in range(min(prefetch, len(units))):
        fetch(0.0)
    waiting: list[tuple[int, float]] = []

    def send() -> None:
        for layer, since in waiting:
            streams.add(NETWORK, f"reduce {layer}", reduce.seconds, since)
        waiting.clear()

    for index, (name, layer, seconds) in enumerate(units):
        if prefetch == 0:
            fetch(streams.free[COMPUTE])
            send()  # after the gather, which somebody waits for
        done = streams.add(COMPUTE, name, seconds, ready[index])
        if prefetch and len(ready) < len(units):
            fetch(done.start)
        if index >= layers:
            waiting.append((layer, done.end))
            if prefetch:
                send()
    send()


def _span(layers: list[int]) -> str:
    return f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
