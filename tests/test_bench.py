"""course_lib.kernels.bench: order and statistics with a clock of our own, never a wall clock."""

import subprocess
import sys
from collections import Counter

import pytest
import torch

from course_lib.kernels import bench
from course_lib.optim import AdamW, RMSprop


class Clock:
    """A clock that only the variants move, and the record of who moved it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(bench.time, "perf_counter", lambda: self.now)

    def variant(self, name, seconds):
        """A variant that takes the given times, one a call; the last one from then on."""
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_times_are_medians_of_the_rounds_after_warmup(clock):
    variants = {
        "steady": clock.variant("steady", [4.0]),
        # Two rounds of warm-up, then 1, 3, 50 (an interruption), 1, 2: median 2; with the warm-up it would be 3.
        "uneven": clock.variant("uneven", [100.0, 100.0, 1.0, 3.0, 50.0, 1.0, 2.0]),
    }
    assert bench.step_times(variants, repeats=5, warmup=2, device="cpu") == {"steady": 4.0, "uneven": 2.0}


def test_rounds_are_interleaved_and_rotate(clock):
    names = ["a", "b", "c"]
    bench.step_times({name: clock.variant(name, [1.0]) for name in names}, repeats=5, warmup=1, device="cpu")
    rounds = [clock.calls[start : start + 3] for start in range(0, len(clock.calls), 3)]
    assert len(rounds) == 6
    assert all(sorted(calls) == names for calls in rounds)
    assert Counter(calls[0] for calls in rounds) == {"a": 2, "b": 2, "c": 2}


def test_a_machine_that_slows_down_slows_all_variants_alike(clock):
    def slower_with_every_call(name):
        def run() -> None:
            clock.calls.append(name)
            clock.now += len(clock.calls)

        return run

    times = bench.step_times({name: slower_with_every_call(name) for name in "ab"}, repeats=20, warmup=0, device="cpu")
    # One after the other they would get 10.5 and 30.5.
    assert times["a"] == times["b"] == 20.5


def test_on_cuda_a_call_is_timed_by_events_on_an_idle_device(clock, monkeypatch):
    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            clock.calls.append("record")
            self.at = clock.now

        def synchronize(self):
            clock.calls.append("wait for end")

        def elapsed_time(self, end):
            return 1e3 * (end.at - self.at)  # milliseconds, as torch's

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: clock.calls.append("wait for all"))
    assert bench.step_times({"a": clock.variant("a", [0.25])}, repeats=1, warmup=0, device="cuda") == {"a": 0.25}
    assert clock.calls == ["wait for all", "record", "a", "record", "wait for end"]


@pytest.mark.parametrize("bad", [dict(repeats=0), dict(warmup=-1)])
def test_counts_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="Allowed: repeats >= 1 and warmup >= 0"):
        bench.step_times({"a": lambda: None}, **bad)


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="nothing to time"):
        bench.step_times({})


@pytest.mark.parametrize(("production", "own"), [(torch.optim.AdamW, AdamW), (torch.optim.RMSprop, RMSprop)])
def test_variants_are_the_same_optimizer_on_the_same_numbers(production, own):
    shapes = [(3, 4), (7,), ()]
    variants = bench.step_variants(shapes, "cpu", production, own=own, lr=0.01, weight_decay=0.1)
    ways = {name: variant.__self__ for name, variant in variants.items()}
    for _ in range(3):
        for variant in variants.values():
            variant()
    base = ways["for-loop"].param_groups[0]["params"]
    assert [tuple(parameter.shape) for parameter in base] == shapes
    storages = {parameter.data_ptr() for way in ways.values() for parameter in way.param_groups[0]["params"]}
    assert len(storages) == len(ways) * len(shapes)
    for way in ways.values():
        assert way.param_groups[0]["lr"] == 0.01
        for mine, theirs in zip(way.param_groups[0]["params"], base, strict=True):
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_each_way_is_the_one_it_says():
    groups = {
        name: variant.__self__.param_groups[0]
        for name, variant in bench.step_variants([(2, 2)], "cpu", own=AdamW).items()
    }
    flags = {name: (group.get("foreach"), group.get("fused")) for name, group in groups.items()}
    # None and False both mean no here: with foreach set, torch does not fuse.
    assert {name: tuple(map(bool, both)) for name, both in flags.items()} == {
        "for-loop": (False, False), "foreach": (True, False), "fused": (False, True), "from scratch": (False, False),
    }
    assert flags["for-loop"][0] is False, "None would let torch choose foreach on a GPU"


def test_a_way_the_class_lacks_is_left_out():
    assert set(bench.step_variants([(2,)], "cpu", torch.optim.RMSprop)) == {"for-loop", "foreach"}


def test_the_table_is_markdown_with_equal_columns():
    table = bench.ratio_table({"for-loop": 3e-3, "fused": 1e-3}, base="for-loop")
    assert table.splitlines() == [
        "| variant  | ms per step | times faster than for-loop |",
        "| -------- | ----------: | -------------------------: |",
        "| for-loop |       3.000 |                       1.00 |",
        "| fused    |       1.000 |                       3.00 |",
    ]


def test_an_unknown_base_is_refused_with_the_names():
    with pytest.raises(ValueError, match="Invalid base: 'loop'. Allowed: 'for-loop', 'fused'"):
        bench.ratio_table({"for-loop": 1.0, "fused": 1.0}, base="loop")


def test_the_device_is_described_in_one_line(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    line = bench.describe_device("cpu")
    assert line.endswith(f", 1 thread, torch {torch.__version__}")
    assert line.index(",") > 0 and "\n" not in line


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_kernels_are_timed_and_not_only_their_launch():
    x = torch.ones(64 * 2**20, device="cuda")
    # 256 MiB read and written: no device moves that in 20 microseconds, which is what a launch takes.
    assert bench.step_times({"scale": lambda: x.mul_(1.0)}, repeats=5)["scale"] > 2e-5
    assert torch.cuda.get_device_name() in bench.describe_device()


def test_importing_what_lies_below_the_notebooks_does_not_load_matplotlib():
    code = "import sys, course_lib.kernels.bench, course_lib.problems.valleys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
