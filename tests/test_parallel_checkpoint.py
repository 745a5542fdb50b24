"""Sharded checkpoints: training goes on as if nothing had happened, in another stage and on another number of ranks."""

import json

import pytest
import torch
from test_parallel_engines import STAGES, Odd, alone, batches, farthest, part_of, squared
from torch import nn

from course_lib.optim import REGISTRY
from course_lib.parallel import checkpoint
from course_lib.parallel.data_parallel import DataParallel
from course_lib.parallel.threads import run_threads
from course_lib.parallel.zero1 import Zero1
from course_lib.parallel.zero2 import Zero2
from course_lib.parallel.zero3 import Zero3

HALF = 5


def run(comm, stage, folder, *, key="adamw", first=0, last=2 * HALF, load=False, save=False, **settings):
    engine = stage(Odd(settings.pop("dtype", torch.float64)), comm, key, unit_bytes=400, **{"lr": 1e-2} | settings)
    if load:
        checkpoint.load(engine, folder)
    for batch in batches(2 * HALF, next(engine.model.parameters()).dtype)[first:last]:
        engine.zero_grad()
        squared(engine.model, part_of(batch, comm)).backward()
        engine.step()
    if save:
        checkpoint.save(engine, folder)
    return engine.full_weights(), engine.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(("before", "after"), [
    ((Zero1, 2), (Zero1, 2)), ((Zero3, 4), (Zero3, 3)), ((Zero3, 2), (DataParallel, 1)),
    ((DataParallel, 3), (Zero2, 4)), ((Zero2, 1), (Zero3, 4)), ((Zero1, 4), (Zero2, 2)),
], ids=lambda pair: f"{pair[0].__name__} on {pair[1]}")
def test_training_goes_on_elsewhere(tmp_path, before, after):
    wanted = alone(REGISTRY["adamw"].make, 2 * HALF, lr=1e-2)
    run_threads(lambda comm: run(comm, before[0], tmp_path, last=HALF, save=True), before[1])
    for weights, _ in run_threads(lambda comm: run(comm, after[0], tmp_path, first=HALF, load=True), after[1]):
        assert farthest(weights, wanted) < 1e-12


@pytest.mark.parametrize("key", ["momentum", "nadam", "adadelta", "schedule_free"])
def test_scalars_of_the_state_go_on_too(tmp_path, key):
    wanted = alone(REGISTRY[key].make, 2 * HALF, lr=1e-2)
    run_threads(lambda comm: run(comm, Zero1, tmp_path, key=key, last=HALF, save=True), 3)
    for weights, _ in run_threads(lambda comm: run(comm, Zero3, tmp_path, key=key, first=HALF, load=True), 2):
        assert farthest(weights, wanted) < 1e-12


def test_masters_are_saved_and_not_their_rounded_copies(tmp_path):
    settings = {"dtype": torch.float32, "precision": "mixed-bf16"}
    whole = run_threads(lambda comm: run(comm, Zero2, tmp_path, **settings), 2)[0][0]
    run_threads(lambda comm: run(comm, Zero2, tmp_path, last=HALF, save=True, **settings), 2)
    for weights, _ in run_threads(lambda comm: run(comm, Zero3, tmp_path, first=HALF, load=True, **settings), 2):
        assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_a_schedule_goes_on_where_it_was(tmp_path):
    run_threads(lambda comm: run(comm, Zero1, tmp_path, last=HALF, save=True, lr=0.003), 2)
    assert [lr for _, lr in run_threads(lambda comm: run(comm, Zero1, tmp_path, first=HALF, load=True), 2)] == [0.003] * 2


def test_each_element_is_written_once(tmp_path):
    trained = 2 * (7 * 11 + 11 + 11 * 7 + 7) + 35 + 35 + 1
    for stage in STAGES:
        folder = tmp_path / stage.__name__
        run_threads(lambda comm, stage=stage, folder=folder: run(comm, stage, folder, last=1, save=True), 3)
        pieces = [piece for file in folder.glob("*.pt") for piece in torch.load(file, weights_only=True)["pieces"]]
        assert sum(stop - start for _, start, stop, _ in pieces) == trained


def test_a_second_save_replaces_the_first_only_when_it_is_whole(tmp_path, monkeypatch):
    run_threads(lambda comm: run(comm, Zero1, tmp_path, last=2, save=True), 2)
    first = run_threads(lambda comm: run(comm, Zero1, tmp_path, first=2, last=2, load=True), 2)[0][0]
    write = torch.save

    def full_disk(thing, path):
        write(thing, path)
        if "rank1" in str(path):
            raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, last=4, save=True), 2)
    monkeypatch.undo()
    again = run_threads(lambda comm: run(comm, Zero1, tmp_path, first=2, last=2, load=True), 2)[0][0]
    assert farthest(again, first) == 0
    run_threads(lambda comm: run(comm, Zero1, tmp_path, last=4, save=True), 3)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["index.json", *(f"save2-rank{rank}.pt" for rank in range(3))]


class Wider(Odd):
    def __init__(self, dtype=torch.float64):
        super().__init__(dtype)
        self.blocks[1][0] = nn.Linear(7, 12, dtype=dtype)
        self.blocks[1][2] = nn.Linear(12, 7, dtype=dtype)


def test_what_does_not_fit_is_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*index.json is missing"):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, load=True), 1)
    run_threads(lambda comm: run(comm, Zero1, tmp_path, last=1, save=True), 2)
    with pytest.raises(ValueError, match="is of adamw, and this run uses lion"):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, key="lion", load=True), 2)
    monkeypatch.setitem(globals(), "Odd", Wider)
    with pytest.raises(ValueError, match=r"blocks.1.2.weight has shape \(7, 11\) there and has shape \(7, 12\) here"):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, load=True), 2)
    monkeypatch.undo()
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / index["files"][1]).unlink()
    with pytest.raises(FileNotFoundError):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, load=True), 2)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json cannot be read"):
        run_threads(lambda comm: run(comm, Zero1, tmp_path, load=True), 1)


def test_going_back_to_the_start_forgets_moments_and_gradients(tmp_path):
    def back(comm):
        engine = Zero2(Odd(), comm, "adamw", lr=1e-2)
        checkpoint.save(engine, tmp_path)
        for batch in batches(2):
            squared(engine.model, part_of(batch, comm)).backward()
            engine.step()
        checkpoint.load(engine, tmp_path)
        for batch in batches(3):
            engine.zero_grad()
            squared(engine.model, part_of(batch, comm)).backward()
            engine.step()
        return engine.full_weights()

    wanted = alone(REGISTRY["adamw"].make, 3, lr=1e-2)
    for weights in run_threads(back, 2):
        assert farthest(weights, wanted) < 1e-12


def test_buffers_are_rank_zeros(tmp_path):
    class Normed(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(5, 4), nn.BatchNorm1d(4))

    def means(comm, load):
        engine = Zero1(Normed(), comm, "sgd", lr=0.1)
        if load:
            checkpoint.load(engine, tmp_path)
        else:
            engine.model(torch.full((3, 5), float(comm.rank + 1)))
            checkpoint.save(engine, tmp_path)
        return engine.model[1].running_mean.clone()

    first, second = run_threads(means, 2, False)
    assert not torch.equal(first, second)
    assert all(torch.equal(mean, first) for mean in run_threads(means, 2, True))


def test_groups_with_other_members_are_refused(tmp_path):
    def grouped(comm, biases_first):
        model = nn.Linear(3, 3)
        groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
        engine = Zero1(model, comm, "adamw", groups=groups[::-1] if biases_first else groups, lr=0.1)
        (checkpoint.load if biases_first else checkpoint.save)(engine, tmp_path)

    run_threads(grouped, 2, False)
    with pytest.raises(ValueError, match=r"group 0 has other members: \['weight'\] there and \['bias'\] here"):
        run_threads(grouped, 2, True)


def test_a_load_that_fails_on_one_rank_fails_on_all(tmp_path):
    run_threads(lambda comm: run(comm, Zero1, tmp_path, last=1, save=True), 2)

    def half(comm):
        engine = Zero1(Odd(), comm, "adamw", unit_bytes=400, lr=1e-2)
        with pytest.raises(FileNotFoundError if comm.rank else RuntimeError) as raised:
            checkpoint.load(engine, tmp_path if comm.rank == 0 else tmp_path / "elsewhere")
        return str(raised.value)

    first, _ = run_threads(half, 2)
    assert first.startswith("Rank 1 could not load the checkpoint") and "FileNotFoundError: There is no checkpoint" in first
