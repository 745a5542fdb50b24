"""course_lib.parallel.price: collectives message by message, traffic against hand counts, timelines by hand."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from course_lib.parallel import plan, price
from course_lib.parallel.price import CLUSTERS, Cluster, Link

ROOT = Path(__file__).resolve().parent.parent
FAST = Link(0.0, 50e9)
SLOW = Link(1e-5, 50e9)


def ring_by_messages(size: float, ranks: int, link: Link) -> tuple[float, list[set[int]]]:
    """A ring's reduce-scatter and all-gather, message by message: seconds, and which parts each rank holds summed."""
    holds = [{part: {rank} for part in range(ranks)} for rank in range(ranks)]
    clock = 0.0
    for step in range(ranks - 1):
        sent = [(rank, (rank - step) % ranks) for rank in range(ranks)]
        for rank, part, terms in [(rank, part, set(holds[rank][part])) for rank, part in sent]:
            holds[(rank + 1) % ranks][part] |= terms
        clock += link.latency_seconds + size / ranks / link.bytes_per_second
    for step in range(ranks - 1):
        sent = [(rank, (rank + 1 - step) % ranks) for rank in range(ranks)]
        for rank, part, terms in [(rank, part, set(holds[rank][part])) for rank, part in sent]:
            holds[(rank + 1) % ranks][part] = terms
        clock += link.latency_seconds + size / ranks / link.bytes_per_second
    return clock, [set.intersection(*held.values()) for held in holds]


def test_fourteen_gigabytes_over_64_ranks_take_055_seconds():
    cost = price.all_reduce(14e9, 64, FAST)
    assert cost.seconds == pytest.approx(0.55125) and cost.sent == pytest.approx(27.5625e9)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8, 13])
def test_a_ring_costs_what_its_messages_cost(ranks):
    seconds, held = ring_by_messages(1e6, ranks, SLOW)
    assert held == [set(range(ranks))] * ranks  # what was counted is an all-reduce
    assert price.all_reduce(1e6, ranks, SLOW).seconds == pytest.approx(seconds)
    assert price.reduce_scatter(1e6, ranks, SLOW) == price.all_gather(1e6, ranks, SLOW)
    assert 2 * price.reduce_scatter(1e6, ranks, SLOW).seconds == pytest.approx(seconds)


def test_recursive_halving_and_doubling_exchange_by_exchange():
    """8 ranks, 800 bytes, alpha 1 s, 100 bytes/s. Halving: 400 + 200 + 100 bytes, and back; doubling: 3 times 800."""
    link = Link(1.0, 100.0)
    assert price.all_reduce(800, 8, link, "halving") == pytest.approx((6 + 14, 1400))
    assert price.all_reduce(800, 8, link, "doubling") == pytest.approx((3 + 24, 2400))
    assert price.all_reduce(800, 8, link, "tree") == pytest.approx((6 + 48, 2400))
    assert price.all_reduce(800, 8, link) == pytest.approx((14 + 14, 1400))
    assert price.all_reduce(800, 6, link, "tree").seconds == pytest.approx(2 * 3 * 9)


@given(st.floats(1e3, 1e11), st.sampled_from([2, 4, 64, 4096]))
def test_no_algorithm_beats_both_bounds_and_each_wins_somewhere(size, ranks):
    costs = {name: price.all_reduce(size, ranks, SLOW, name) for name in price.ALGORITHMS}
    bytes_bound = 2 * size * (ranks - 1) / ranks
    assert min(cost.sent for cost in costs.values()) >= bytes_bound * (1 - 1e-12)
    for cost in costs.values():
        assert cost.seconds >= math.log2(ranks) * SLOW.latency_seconds + size * (ranks - 1) / ranks / 50e9
    assert costs["halving"].seconds <= costs["ring"].seconds * (1 + 1e-12)


def test_small_messages_want_few_startups_and_large_ones_few_bytes():
    small = {name: price.all_reduce(8_000, 64, SLOW, name).seconds for name in price.ALGORITHMS}
    large = {name: price.all_reduce(1e9, 64, SLOW, name).seconds for name in price.ALGORITHMS}
    assert min(small, key=small.get) == "doubling" and max(small, key=small.get) == "ring"
    assert 2.5 * large["ring"] < large["doubling"] == pytest.approx(large["tree"] / 2)
    assert small["ring"] == pytest.approx(126e-5 + 126 / 64 * 8_000 / 50e9)  # 1.26 ms of startups


def test_a_broadcast_passes_pieces_on():
    """4 ranks, 400 bytes, alpha 1 s, 100 bytes/s: in k pieces, (2 + k) (1 + 4 / k) s; least at k = sqrt(8)."""
    link = Link(1.0, 100.0)
    for pieces in (1, 2, 3, 4, 8):
        clock = {(rank, piece): 0.0 for rank in range(4) for piece in range(pieces)}
        busy = [0.0] * 4
        for piece in range(pieces):
            for rank in range(3):
                busy[rank] = max(busy[rank], clock[rank, piece]) + 1 + 4 / pieces
                clock[rank + 1, piece] = busy[rank]
        cost = price.broadcast(400, 4, link, pieces=pieces)
        assert cost == pytest.approx((clock[3, pieces - 1], 400))
    assert price.broadcast(400, 4, link) == price.broadcast(400, 4, link, pieces=2)
    assert price.broadcast(400, 4, link, "tree") == pytest.approx((10, 800))
    assert price.broadcast(400, 1, link) == (0, 0)


def test_an_all_reduce_over_nodes_sends_an_eighth_between_them():
    """14 GB, 8 nodes of 8: inside 2 * 7/8 * 14 / 450 s; between 2 * 7/8 * (14 / 8) / 50 s."""
    cost = CLUSTERS["hgx-h100"].all_reduce(14e9, 64)
    assert cost.inside == pytest.approx((24.5 / 450, 24.5e9)) and cost.between == pytest.approx((3.0625 / 50, 3.0625e9))
    assert cost.seconds == pytest.approx(0.1156944) and cost.sent == pytest.approx(27.5625e9)  # as many as one ring


@given(st.integers(0, 5), st.integers(1, 100), st.floats(1.0, 1e12))
def test_nodes_and_one_ring_send_the_same_number_of_bytes(power, nodes, size):
    cluster = Cluster("any", 2**power, Link(1e-6, 1e11), Link(1e-5, 1e10))
    cost = cluster.all_reduce(size, nodes * 2**power)
    assert cost.sent == pytest.approx(price.all_reduce(size, nodes * 2**power, FAST).sent)
    whole = cluster.one_way(size, nodes * 2**power)
    parts = cluster.one_way(size, nodes * 2**power, 10)
    startups = (2**power - 1) * 1e-6 + (nodes - 1) * 1e-5
    assert parts.seconds - whole.seconds == pytest.approx(9 * startups, abs=1e-9 * whole.seconds)


@pytest.mark.parametrize(("stage", "once", "four"), [(0, (0, 8), (0, 8)), (1, (4, 4), (4, 4)), (2, (4, 4), (4, 16)),
                                                     (3, (8, 4), (32, 16))])
def test_traffic_is_2p_2p_2p_3p_and_what_accumulation_makes_of_it(stage, once, four):
    """1,000 parameters of 4 bytes on 4 ranks: a pass sends 3,000 bytes. Above: bytes of weights and gradients."""
    assert price.traffic_per_step(stage, 1000, 4, 4) == tuple(750 * part for part in once)
    assert price.traffic_per_step(stage, 1000, 4, 4, 4) == tuple(750 * part for part in four)
    assert price.traffic_per_step(stage, 1000, 4, 4).total == (2, 2, 2, 3)[stage] * 3000
    assert price.traffic_per_step(stage, 1000, 4, 1).total == 0


def test_formats_of_gradients_and_the_ways_out_of_reducing_and_gathering_again():
    """7e9 parameters on 64: bf16 weights and float32 gradients, 8, 6, 6 and 8 bytes each; 55.125 GB under ZeRO-3."""
    sent = [price.traffic_per_step(stage, 7 * 10**9, 2, 64, gradient_width=4).total for stage in range(4)]
    assert sent == pytest.approx([55.125e9, 41.34375e9, 41.34375e9, 55.125e9])
    assert price.traffic_per_step(2, 1000, 4, 4, 4, reduce_each=False).total == 6000
    assert price.traffic_per_step(0, 1000, 4, 4, 4, reduce_each=True).total == 24000  # DDP without no_sync
    assert price.traffic_per_step(3, 1000, 4, 4, reshard=False).total == 6000


def test_compute_by_hand():
    assert price.compute_seconds(7e9, 8192) == pytest.approx(6 * 7e9 * 8192 / 395.6e12)
    assert price.compute_seconds(1e9, 1e6, peak=1e15, mfu=0.6) == pytest.approx(10.0)


def test_from_how_many_tokens_communication_can_hide_whatever_the_model():
    """One GPU a node, many ranks, 2-byte numbers: 6 P bytes / 50 GB/s = 6 P T / 395.6 TFLOP/s under ZeRO-3."""
    flat = CLUSTERS["network-400"]
    tokens = [price.tokens_to_hide(3, elements, 1024, flat) for elements in (10**9, 405 * 10**9)]
    assert tokens == pytest.approx([395.6e12 / 50e9 * 1023 / 1024] * 2)
    assert price.tokens_to_hide(0, 10**9, 1024, flat) == pytest.approx(tokens[0] * 2 / 3)
    needed = int(tokens[0])
    slower = price.communication_seconds(3, 10**9, 1024, flat)
    assert price.compute_seconds(1e9, needed) < slower < price.compute_seconds(1e9, needed + 1)


def test_tensor_and_pipeline_parallel_by_hand():
    assert price.tensor_parallel_bytes(2, 1, 10, 100, 4) == 2 * 4 * 2 * (3 / 4) * 1000 * 2
    assert price.bubble(4, 64) == 3 / 67 and price.bubble(1, 5) == 0


LINK = Link(0.0, 1.0)  # of 2 ranks: a reduce-scatter of 2 bytes takes 1 s, an all-reduce 2 s


def spans(events: list[price.Event]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(event.stream, event.name): (pytest.approx(event.start), pytest.approx(event.end)) for event in events}


def test_the_last_bucket_of_data_parallel_cannot_hide():
    """Two layers, 6 s: forward 1 s each, backward 2 s each; each all-reduce 2 s. It ends at 8 and not 6 or 10."""
    events = price.timeline(0, 2, 6.0, 2.0, 2, LINK)
    assert spans(events) == {
        ("compute", "forward 1"): (0, 1), ("compute", "forward 2"): (1, 2), ("compute", "backward 2"): (2, 4),
        ("network", "reduce 2"): (4, 6), ("compute", "backward 1"): (4, 6), ("network", "reduce 1"): (6, 8),
    }
    step = price.summary(events)
    assert step == pytest.approx((8, 6, 4)) and step.exposed == pytest.approx(2) and step.hidden == pytest.approx(0.5)
    one = price.summary(price.timeline(0, 2, 6.0, 2.0, 2, LINK, bucket=2))
    assert one.exposed == pytest.approx(4) and one.hidden == pytest.approx(0)


def test_zero_1_and_2_gather_new_weights_at_the_end():
    first, second = (price.timeline(stage, 3, 9.0, 2.0, 2, LINK, bucket=2) for stage in (1, 2))
    assert first == second
    network = [(event.name, pytest.approx(event.start), pytest.approx(event.end)) for event in first
               if event.stream == "network"]
    assert network == [("reduce 3-2", 7, 9), ("reduce 1", 9, 10), ("gather 1", 10, 11), ("gather 2-3", 11, 13)]


def test_zero_3_without_prefetch_waits_for_every_gather_and_with_it_for_the_first():
    """Two layers, 6 s of compute; a gather and a reduce-scatter take 0.5 s each."""
    late = price.timeline(3, 2, 6.0, 1.0, 2, LINK, prefetch=0)
    early = price.timeline(3, 2, 6.0, 1.0, 2, LINK, prefetch=1)
    assert [event.name for event in late if event.stream == "network"] == [
        "gather 1", "gather 2", "gather 2", "gather 1", "reduce 2", "reduce 1"]
    assert [pytest.approx(event.start) for event in late if event.stream == "compute"] == [0.5, 2, 3.5, 6]
    assert [pytest.approx(event.start) for event in early if event.stream == "compute"] == [0.5, 1.5, 2.5, 4.5]
    assert price.summary(late) == pytest.approx((8.5, 6, 3)) and price.summary(early) == pytest.approx((7, 6, 3))


@given(st.integers(0, 3), st.integers(1, 12), st.floats(0.01, 10), st.floats(0.01, 10), st.integers(1, 5),
       st.integers(0, 4))
def test_a_timeline_keeps_its_order_and_its_sums(stage, layers, compute, size, bucket, prefetch):
    events = price.timeline(stage, layers, compute, size, 4, LINK, bucket=bucket, prefetch=prefetch)
    for stream in ("compute", "network"):
        inside = [event for event in events if event.stream == stream]
        assert all(b.start >= a.end - 1e-9 for a, b in itertools.pairwise(inside))
    step = price.summary(events)
    assert step.compute == pytest.approx(compute)
    sent = price.traffic_per_step(stage, 1, 1, 4).total * layers * size
    assert step.communication == pytest.approx(sent)  # one byte a second
    assert max(compute, sent) * (1 - 1e-9) <= step.seconds <= (compute + sent) * (1 + 1e-9)
    backward = {event.name.split()[1]: event.end for event in events if event.name.startswith("backward")}
    for event in events:
        if event.name.startswith("reduce"):
            assert event.start >= backward[event.name.split()[1].split("-")[-1]] - 1e-9


def test_more_prefetch_never_makes_a_step_longer_and_few_tokens_make_overlap_fail():
    def step(tokens, prefetch):
        return price.predict_step(3, 7 * 10**9, 32, tokens, 64, FAST, prefetch=prefetch)

    assert step(32768, 0).seconds > step(32768, 1).seconds >= step(32768, 2).seconds
    assert step(32768, 1).hidden > 0.95 and step(256, 1).hidden < 0.1
    assert step(256, 1).compute == pytest.approx(price.compute_seconds(7e9, 256))


@pytest.mark.parametrize(("call", "said"), [
    (lambda: Link(-1e-6, 1e9), "Invalid latency_seconds: -1e-06. Allowed: a finite number >= 0."),
    (lambda: Link(0, 0), "Invalid bytes_per_second: 0. Allowed: a finite number > 0."),
    (lambda: Link(0, math.inf), "Invalid bytes_per_second: inf"),
    (lambda: price.all_reduce(math.nan, 4, FAST), "Invalid size: nan"),
    (lambda: price.all_reduce(1, 0, FAST), "Invalid ranks: 0"),
    (lambda: price.all_reduce(1, 2.5, FAST), "Invalid ranks: 2.5"),
    (lambda: price.all_reduce(1, 6, FAST, "halving"), "Invalid ranks for halving: 6. Allowed: a power of two"),
    (lambda: price.all_reduce(1, 6, FAST, "rings"), "Did you mean ring"),
    (lambda: price.broadcast(1, 4, FAST, pieces=0), "Invalid pieces: 0"),
    (lambda: CLUSTERS["hgx-h100"].all_reduce(1, 12), "Invalid ranks: 12. Allowed: up to 8, or a multiple of 8"),
    (lambda: price.traffic_per_step(4, 1, 2, 2), "Invalid stage: 4. Allowed: a whole number from 0 to 3"),
    (lambda: price.traffic_per_step(True, 1, 2, 2), "Invalid stage: True"),
    (lambda: price.traffic_per_step(1, 1, 2, 2, 0), "Invalid micro_batches: 0"),
    (lambda: price.compute_seconds(1, 1, mfu=40), "Invalid mfu: 40. Allowed: 0 < mfu <= 1"),
    (lambda: price.timeline(0, 0, 1, 1, 2, FAST), "Invalid layers: 0"),
    (lambda: price.timeline(3, 1, 1, 1, 2, FAST, prefetch=-1), "Invalid prefetch: -1"),
    (lambda: price.summary([]), "Invalid events"),
    (lambda: price.bubble(0, 1), "Invalid stages: 0"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)


def test_prices_need_no_torch():
    script = "import sys, course_lib.parallel.price; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_page_of_predictions_is_the_code_s():
    page = (ROOT / "docs" / "past_one_machine.md").read_text(encoding="utf-8")
    written = re.search(r"<!-- plan -->\n(.*?)<!-- /plan -->", page, re.DOTALL)[1]
    assert written == plan.table(), "run `python -m tools.planned` to bring the page up to date"


def test_the_page_s_manifests_can_be_read():
    page = (ROOT / "docs" / "past_one_machine.md").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"] == "sharding"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    command = pod["containers"][0]["command"][2].split()
    assert command[command.index("--master-addr") + 1] == "sharding-0.sharding"
    assert int(command[command.index("--nnodes") + 1]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(command[command.index("--nproc-per-node") + 1]) == pod["containers"][0]["resources"]["limits"][
        "nvidia.com/gpu"]


def test_a_row_of_the_plan_by_hand():
    """70e9 on 64: 4 P + 12 P / 64, 2 P + 14 P / 64, 16 P / 64; 4 and 6 bytes a parameter times 63/64."""
    one = plan.plan("70B", 64)
    assert one.states == (293_125_000_000, 155_312_500_000, 17_500_000_000) and one.fits == (False, False, True)
    assert one.sent == pytest.approx((275.625e9, 413.4375e9))
    way = 140e9 * 7 / 8 / 450e9 + 140e9 / 8 * 7 / 8 / 50e9
    assert one.seconds == pytest.approx((2 * way, 3 * way))
    assert one.compute == pytest.approx(6 * 70e9 * 8192 / 395.6e12)
    assert one.batch_compute == pytest.approx(one.compute * 32)  # 2,048 sequences over 64 GPUs


def test_what_the_page_says_in_words():
    plans = {(one.model, one.gpus): one for one in plan.plans()}
    assert [gpus for gpus in plan.GPUS if plans["405B", gpus].fits[2]] == [512, 2048, 16384]
    assert [plan.plan("405B", gpus).fits[2] for gpus in (80, 88)] == [False, True]
    assert not any(plans["70B", gpus].fits[stage] for gpus in plan.GPUS for stage in (0, 1))
    assert 16384 * plan.SEQUENCE == pytest.approx(134e6, rel=0.01) and plan.BATCH == 2048 * plan.SEQUENCE
    for model in plan.SIZES:
        few, many = plans[model, 2048], plans[model, 16384]
        assert few.batch_compute / few.seconds[1] == pytest.approx(4.7, abs=0.05)
        assert many.batch_compute < many.seconds[1]
    tokens = [price.tokens_to_hide(stage, 10**9, 16384, CLUSTERS[plan.CLUSTER]) for stage in (3, 0)]
    assert tokens == pytest.approx([1760, 1170], abs=5)
    assert 2047 * 10e-6 == pytest.approx(20e-3, rel=0.03)
    sent = price.tensor_parallel_bytes(126, 1, 8192, 16384, 8)
    assert (sent, sent / 450e9) == pytest.approx((237e9, 0.53), rel=0.01)
    assert price.compute_seconds(405e9 / 8, 8192) == pytest.approx(6.3, rel=0.01)
    assert [round(100 * price.bubble(16, count)) for count in (16, 64)] == [48, 19]


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_engines_send_what_is_predicted(stage, micro_batches):
    """Four threads, 768 parameters that they divide evenly; each collective counted with its ring's factor."""
    import torch
    from torch import nn

    from course_lib.parallel.data_parallel import DataParallel
    from course_lib.parallel.threads import run_threads
    from course_lib.parallel.zero1 import Zero1
    from course_lib.parallel.zero2 import Zero2
    from course_lib.parallel.zero3 import Zero3

    passes = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}

    def sent(comm):
        model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.Tanh(), nn.Linear(32, 8, bias=False))
        engine = (DataParallel, Zero1, Zero2, Zero3)[stage](model, comm, "adamw", lr=1e-3)
        comm.calls.clear()  # agreeing on the model at the start is no part of a step
        for index in range(micro_batches):
            last = index == micro_batches - 1
            with engine.no_sync() if stage == 0 and not last else contextlib.nullcontext():
                engine.model(torch.ones(4, 16)).square().mean().backward()
        engine.step()
        return sum(passes[name] * size * 3 / 4 for name, size in comm.calls)

    expected = price.traffic_per_step(stage, 768, 4, 4, micro_batches).total
    assert run_threads(sent, 4) == [expected] * 4
