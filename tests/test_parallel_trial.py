"""Every engine on real processes: weights, bytes and calls against training in one process and against the formulas."""

import pytest
import torch

from course_lib.parallel.__main__ import table
from course_lib.parallel.launch import launch
from course_lib.parallel.price import traffic_per_step
from course_lib.parallel.threads import run_threads
from course_lib.parallel.trial import ENGINES, OURS, TORCH, run
from course_lib.problems.lm import ByteLM, LMConfig

SMALL = LMConfig(layers=2, width=16, heads=2, context=16)
ELEMENTS = sum(param.numel() for param in ByteLM(SMALL).parameters())


def both(comm):
    exact = run(comm, OURS + TORCH, steps=6, dtype=torch.float64, config=SMALL)
    return exact, run(comm, OURS, steps=2, precision="mixed-bf16", config=SMALL)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    """What each rank of 2, then of 4, has seen: rows in float64, rows in mixed precision."""
    return launch(both, request.param, timeout=300)


def test_all_engines_end_where_one_process_ends(ranks):
    for exact, _ in ranks:
        assert [row.engine for row in exact] == [*OURS, *TORCH]
        assert max(row.apart for row in exact) < 1e-10


def test_model_states_are_to_the_byte_those_predicted(ranks):
    for exact, mixed in ranks:
        for row in [*exact[:4], *mixed]:
            assert row.held == row.predicted, (row.engine, row.ranks)
    count = len(ranks)
    by_hand = [2 + 2 + 12, 2 + 2 + 12 / count, 2 + 2 / count + 12 / count, 16 / count]
    assert [sum(row.held.values()) / ELEMENTS for row in ranks[0][1]] == by_hand


def test_torchs_engines_hold_the_step_counts_besides(ranks):
    """4 bytes a tensor, 29 tensors; ZeroRedundancyOptimizer's shares are uneven, and their sum is not."""
    for index, engine in enumerate(TORCH, start=4):
        rows = [exact[index] for exact, _ in ranks]
        assert all(row.held[part] == row.predicted[part] for row in rows for part in ("parameters", "gradients"))
        copies = 1 if ENGINES[engine].stage else len(rows)
        counts = 4 * 29 * (len(rows) if engine == "torch-fsdp2" else copies)
        assert sum(row.held["optimizer"] for row in rows) == 16 * ELEMENTS * copies + counts


def test_what_is_sent_is_two_two_two_and_three_times_the_parameters(ranks):
    count = len(ranks)
    for exact, _ in ranks:
        for row in exact[:4]:
            norm = 16 * (count - 1) / count if row.engine != "data-parallel" else 0
            assert row.sent == traffic_per_step(ENGINES[row.engine].stage, ELEMENTS, 8, count).total + norm


def test_the_table_names_every_engine_and_the_largest_rank(ranks):
    text = table(list(zip(*(exact for exact, _ in ranks), strict=True)))
    assert [line.split()[0] for line in text.splitlines()[2:]] == [*OURS, *TORCH]
    fullest = max(sum(exact[5].held.values()) for exact, _ in ranks)
    assert f"{fullest:,}" in text.splitlines()[7]


@pytest.mark.parametrize(("settings", "message"), [
    ({"engines": ["zero-4"]}, "Unknown engine: 'zero-4'. Allowed: data-parallel, zero-1"),
    ({"engines": ["torch-ddp"], "precision": "mixed-bf16"}, "torch-ddp has no master weights"),
    ({"steps": 0}, "Invalid steps: 0"),
])
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        run_threads(lambda comm: run(comm, **settings), 1)


def test_ranks_that_cannot_share_the_batch_are_told():
    with pytest.raises(ValueError, match="5 ranks cannot share a batch of 12"):
        run_threads(run, 5)


def test_a_diverging_run_stops_on_every_rank():
    with pytest.raises(RuntimeError, match="the gradient norm is (nan|inf)"):
        run_threads(lambda comm: run(comm, ["zero-1"], optimizer="sgd", lr=1e30, config=SMALL), 1)
