"""What the counter of collectives sees, on three real ranks, and what a ring makes of it."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch
import torch.distributed as dist

from course_lib.parallel.launch import launch
from course_lib.parallel.traffic import Collective, Traffic, sent_bytes

RANKS = 3


def talk(comm):
    """One of each; what was recorded, by a word for each, as plain tuples."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

    seen = {}

    def record(word, function):
        with Traffic() as traffic:
            function()
        seen[word] = [astuple(call) for call in traffic.calls]

    flat = torch.arange(6.0)
    record("all_reduce", lambda: comm.all_reduce(flat.clone()))
    record("reduce_scatter", lambda: comm.reduce_scatter(flat.bfloat16()))
    record("all_gather", lambda: comm.all_gather(flat[:2]))
    record("broadcast", lambda: comm.broadcast(flat.clone(), source=1))
    record("gather_objects", lambda: comm.gather_objects("rank"))
    record("barrier", dist.barrier)
    record("reduce", lambda: dist.reduce(flat.clone(), 1))
    record("list of parts", lambda: dist.all_gather([torch.zeros(5) for _ in range(RANKS)], torch.zeros(5)))
    record("all_to_all", lambda: dist.all_to_all_single(torch.zeros(6), torch.zeros(6)))

    mesh = init_device_mesh("cpu", (RANKS,))
    sharded = distribute_tensor(torch.arange(12.0).view(6, 2), mesh, [Shard(0)])
    record("DTensor, gathered", sharded.full_tensor)
    record("DTensor, summed", lambda: sharded.sum().redistribute(mesh, [Replicate()]).to_local())
    partial = torch.distributed.tensor.DTensor.from_local(torch.ones(6), mesh, [Partial()])
    record("DTensor, scattered", lambda: partial.redistribute(mesh, [Shard(0)]).to_local())

    weight = torch.ones(4, requires_grad=True)
    weight.register_hook(comm.all_reduce)
    record("backward", lambda: weight.sum().backward())
    record("nothing", lambda: torch.ones(3) + 1)
    pair = dist.new_group([0, 2])
    record("subgroup", lambda: dist.all_reduce(torch.ones(3), group=pair) if comm.rank != 1 else None)
    return seen


@pytest.fixture(scope="module")
def seen():
    return launch(talk, RANKS, timeout=120.0)


@pytest.mark.parametrize("word, expected", [
    ("all_reduce", ("all_reduce", 24, "float32", 3)),
    ("reduce_scatter", ("reduce_scatter", 12, "bfloat16", 3)),
    ("all_gather", ("all_gather", 24, "float32", 3)),
    ("list of parts", ("all_gather", 60, "float32", 3)),
    ("DTensor, gathered", ("all_gather", 48, "float32", 3)),
    ("DTensor, summed", ("all_reduce", 4, "float32", 3)),
    ("DTensor, scattered", ("reduce_scatter", 24, "float32", 3)),
    ("backward", ("all_reduce", 16, "float32", 3)),
])
def test_a_collective_is_recorded_once_with_its_whole_tensor(seen, word, expected):
    for mine in seen:
        assert mine[word] == [(*expected, False, False)]


def test_the_end_of_a_chain_sends_nothing(seen):
    # From rank 1 over rank 2 to rank 0; a reduce to rank 1 ends there.
    for rank, mine in enumerate(seen):
        assert mine["broadcast"] == [("broadcast", 24, "float32", 3, False, rank == 0)]
        assert mine["reduce"] == [("reduce", 24, "float32", 3, False, rank == 1)]


def test_what_is_no_data_is_marked(seen):
    for mine in seen:
        assert mine["nothing"] == []
        assert [call[0] for call in mine["gather_objects"]] == ["all_gather", "all_gather"]  # the sizes, the pickles
        assert mine["barrier"][0][0] == "barrier"
        assert all(call[4] for word in ("gather_objects", "barrier") for call in mine[word])


def test_a_subgroup_has_its_own_number_of_ranks(seen):
    assert [mine["subgroup"] for mine in seen] == [
        [("all_reduce", 12, "float32", 2, False, False)], [], [("all_reduce", 12, "float32", 2, False, False)],
    ]


def test_an_operation_without_a_formula_is_recorded_and_not_priced(seen):
    [(name, *rest)] = seen[0]["all_to_all"]
    assert "alltoall" in name and not rest[3]
    with pytest.raises(ValueError, match="not known for 'alltoall_base'"):
        sent_bytes([Collective(name, *rest)])


@pytest.mark.parametrize("name, ranks, last, expected", [
    # Baidu's ring: N - 1 rounds to reduce and N - 1 to gather, S / N bytes in each.
    ("all_reduce", 4, False, 6 * 300),
    ("reduce_scatter", 4, False, 3 * 300),
    ("all_gather", 4, False, 3 * 300),
    ("broadcast", 4, False, 1200),
    ("broadcast", 4, True, 0),
    ("reduce", 4, True, 0),
    ("barrier", 4, False, 0),
    ("all_reduce", 1, False, 0),
    ("all_gather", 1, False, 0),
])
def test_bytes_that_a_rank_sends_in_a_ring(name, ranks, last, expected):
    assert sent_bytes([Collective(name, 1200, "float32", ranks, last=last)]) == expected


def test_a_summary_leaves_control_out():
    traffic = Traffic()
    traffic.calls += [
        Collective("all_gather", 24, "int64", 3, control=True),
        Collective("all_gather", 30, "float32", 3),
        Collective("all_gather", 12, "float32", 3),
        Collective("barrier", 1, "uint8", 3, control=True),
    ]
    assert traffic.summary() == {"all_gather": (2, 42)}
    assert sent_bytes(traffic.data) == 28
