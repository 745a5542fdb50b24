"""The fair benchmark: its grids, files and tables from results made by hand, and its runs with a tiny budget."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course_lib.benchmark import plan, records, runner, summary
from course_lib.benchmark.build import make_optimizer
from course_lib.benchmark.records import BadFile, Log, Run, load, set_aside
from course_lib.benchmark.settings import SETTINGS, STEPS, find
from course_lib.optim import REGISTRY, AdamW
from course_lib.problems.lm import ByteLM, next_byte_loss

HEAD = {"problem": {"batch": 16, "model": {"width": 32}}, "steps": 10}
PLACE = dict.fromkeys(records.SESSION, "x")


def run(key="adamw", lr=None, seed=0, tuning=2.0, loss=None, **more) -> Run:
    """A run made by hand; ``tuning=None`` for one that diverged."""
    diverged = tuning is None
    values = {
        "key": key,
        "lr": find(key).rate if lr is None else lr,
        "seed": seed,
        "steps": 10,
        "setting": find(key).describe(),
        "tuning": tuning,
        "loss": None if diverged else tuning if loss is None else loss,
        "stopped": "It diverged." if diverged else None,
        "seconds": 1.0,
        "state_bytes": 8,
        "bytes_per_parameter": 8.0,
    }
    return Run(**(values | more))


def study(key="adamw", best=None, losses=(2.0, 2.1)) -> list[Run]:
    """All runs of an optimizer: a grid with its lowest loss at ``best``, and the results of the seeds 1, 2, ..."""
    best = find(key).rate if best is None else best
    grid = runs_of(lambda lr: 2.0 + abs(math.log2(lr / best)), key)
    return grid + [run(key, best, seed, loss) for seed, loss in enumerate(losses, 1)]


def runs_of(loss, key="adamw", seeds=0, limit=100) -> list[Run]:
    """What the plan asks for, answered by ``loss(rate)``, which is None where a run diverges."""
    made: list[Run] = []
    while (request := plan.next_run(made, key, seeds)) is not None:
        made.append(run(request.key, request.lr, request.seed, loss(request.lr)))
        assert len(made) < limit
    return made


def results(*runs, times=()) -> records.Results:
    return records.Results(HEAD, (), tuple(runs), tuple(times))


# The settings.


def test_every_optimizer_of_the_registry_has_a_setting():
    assert set(SETTINGS) == set(REGISTRY)
    for key, setting in SETTINGS.items():
        assert setting.rate > 0, key
        assert json.loads(json.dumps(setting.describe())) == setting.describe(), key


def test_an_unknown_optimizer_gets_the_nearest_names():
    with pytest.raises(ValueError, match=r"no optimizer 'adamv' in the benchmark. Did you mean .*adamw"):
        find("adamv")
    with pytest.raises(ValueError, match="Did you mean muon"):
        find("Muon")
    with pytest.raises(ValueError, match=r"There are: sgd, .*sophia"):
        find("zzz")


# The grid.


def grid(key="adamw") -> list[float]:
    return [find(key).rate * 2.0**power for power in range(-3, 4)]


def test_the_grid_is_the_same_size_for_all():
    for key in SETTINGS:
        asked = runs_of(lambda lr, key=key: abs(math.log2(lr / find(key).rate)) + 1, key)
        assert [made.lr for made in asked] == grid(key)
        assert {made.seed for made in asked} == {plan.TUNING_SEED}


def test_the_seeds_come_after_the_grid_and_at_its_best_rate():
    best = grid()[4]
    made = runs_of(lambda lr: 1 + abs(math.log2(lr / best)), seeds=3)
    assert [(m.lr, m.seed) for m in made[7:]] == [(best, 1), (best, 2), (best, 3)]
    assert plan.TUNING_SEED not in (1, 2, 3)
    more = plan.next_run(made, "adamw", 5)
    assert (more.lr, more.seed) == (best, 4)  # asking for more seeds keeps those that are there


@pytest.mark.parametrize("doublings", [-6, -4, -3, 3, 5, 7])
def test_the_grid_grows_until_the_best_is_inside(doublings):
    best = find("adamw").rate * 2.0**doublings
    made = runs_of(lambda lr: 1 + abs(math.log2(lr / best)))
    assert len(made) == 7 + abs(doublings) - 2  # one beyond the best
    found = plan.tuning(made, "adamw")
    assert (found.best, found.edge) == (best, None)
    assert list(found.rates) == sorted(found.rates)
    ratios = np.array(found.rates[1:]) / np.array(found.rates[:-1])
    assert (ratios == 2).all()


def test_a_grid_does_not_grow_for_ever():
    for sign, edge in ((1, "low"), (-1, "high")):
        made = runs_of(lambda lr, sign=sign: 10 + sign * math.log2(lr))
        assert len(made) == 7 + plan.FURTHER
        found = plan.tuning(made, "adamw")
        assert found.edge == edge and found.best == (found.rates[0] if edge == "low" else found.rates[-1])


def test_rates_that_diverge():
    rates = grid()
    made = runs_of(lambda lr: None if lr > rates[3] else 5 - math.log2(lr))
    found = plan.tuning(made, "adamw")
    assert (found.best, found.edge) == (rates[3], None)
    assert [math.isinf(loss) for loss in found.losses] == [False] * 4 + [True] * 3
    lower = runs_of(lambda lr: None if lr > rates[0] / 3 else 1 + abs(math.log2(lr / rates[0]) + 3))
    assert plan.tuning(lower, "adamw").best == rates[0] / 8  # where all diverge, the grid goes down
    assert plan.tuning(runs_of(lambda lr: None), "adamw").edge == "low"


def test_runs_with_another_setting_are_kept_apart():
    other = find("adamw").describe() | {"decay": 0.7}
    old = [dataclasses.replace(each, setting=other) for each in runs_of(lambda lr: 1.0)]
    assert plan.next_run(old, "adamw", 2) == plan.next_run([], "adamw", 2)
    assert plan.tuning(old, "adamw") is None
    assert plan.set_apart(old, ["adamw", "lion"]) == {"adamw": len(old)}
    assert summary.rows(results(*old)) == []


def test_a_run_that_is_there_twice_counts_once():
    made = study(losses=(2.0, 2.5))
    assert summary.rows(results(*made, made[-1], made[0])) == summary.rows(results(*made))


@given(st.permutations(range(9)), st.integers(0, 9))
def test_the_order_of_the_lines_does_not_matter(order, cut):
    """Two sessions may have worked on the same file."""
    made = study(losses=(2.0, 2.1))
    there = [made[index] for index in order][:cut]
    while (request := plan.next_run(there, "adamw", 2)) is not None:
        there.append(next(each for each in made if (each.lr, each.seed) == (request.lr, request.seed)))
    assert summary.rows(results(*there)) == summary.rows(results(*made))


def test_what_is_left_to_do():
    made = study(losses=(2.0, 2.1))
    assert plan.count([], ["adamw", "lion"], 5) == (0, 24)
    assert plan.count(made[:3], ["adamw", "lion"], 5) == (3, 24)
    assert plan.count(made, ["adamw"], 2) == (9, 9)
    assert plan.count(made, ["adamw"], 5) == (9, 12)


@pytest.mark.parametrize("bad", [1, 0, -1, 31, True, 2.0, None])
def test_a_number_of_seeds_without_an_interval(bad):
    with pytest.raises(ValueError, match="Allowed: a whole number from 2 to 30"):
        plan.check_seeds(bad)


# The table.


def test_the_interval_by_hand():
    # Mean 3; deviations -2, -1, 0, 1, 2: variance 10 / 4, standard error sqrt(2.5 / 5); t for 4 degrees is 2.776.
    found = summary.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0 and found.half == pytest.approx(2.776 * math.sqrt(0.5))
    assert str(found) == "3.000 ± 1.963"


@pytest.mark.parametrize("size", range(2, 31))
def test_the_interval_is_students(size):
    values = np.random.default_rng(size).standard_normal(size)
    low, high = stats.t.interval(0.95, size - 1, loc=values.mean(), scale=stats.sem(values))
    found = summary.interval(list(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.half == pytest.approx((high - low) / 2, rel=5e-4)  # the quantiles have three decimals


@pytest.mark.parametrize("size", [0, 1, 31])
def test_an_interval_of_too_few_or_too_many(size):
    with pytest.raises(ValueError, match=f"{size} of them. Allowed: 2 to 30"):
        summary.interval([1.0] * size)


def test_the_table_of_results_made_by_hand():
    lion = find("lion").rate
    runs = [
        *study("adamw", losses=(2.0, 2.2, 2.4)),
        *study("lion", lion * 2, (2.1, 2.35, 2.45)),
        *study("sgd", losses=(3.0, None, 3.1)),
        *study("adam", losses=()),
    ]
    times = [{"adamw": 0.5, "lion": 9.0}, {"adamw": 0.01, "lion": 0.009, "sgd": 0.008}]
    adamw, also_lion, sgd, adam = summary.rows(results(*runs, times=times))
    assert [row.key for row in (adamw, also_lion, sgd, adam)] == ["adamw", "lion", "sgd", "adam"]
    assert adamw.losses == {1: 2.0, 2: 2.2, 3: 2.4} and adamw.difference is None and adamw.time == 1.0
    assert adamw.loss.mean == pytest.approx(2.2) and adamw.loss.half == pytest.approx(4.303 * 0.2 / math.sqrt(3))
    # 0.1, 0.15, 0.05: mean 0.1, standard deviation 0.05; the seeds' own spread of 0.2 has gone.
    assert also_lion.difference.mean == pytest.approx(0.1)
    assert also_lion.difference.half == pytest.approx(4.303 * 0.05 / math.sqrt(3))
    assert also_lion.time == pytest.approx(0.9)  # of the last measurement, not of the first
    assert sgd.loss is None and sgd.difference is None
    lines = summary.table(results(*runs, times=times)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["optimizer", "rate", "held-out loss", "minus AdamW's", "bytes", "time"]
    assert cells[2] == ["AdamW", f"{find('adamw').rate:.2g}", "2.200 ± 0.497", "", "8", "1.00"]
    assert cells[3] == ["Lion", f"{2 * lion:.2g}", "2.300 ± 0.448", "+0.100 ± 0.124", "8", "0.90"]
    assert cells[4][2:4] == ["1 of 3 diverged", ""]
    assert cells[5][0] == "Adam" and cells[5][2] == "not finished" and cells[5][5] == ""
    assert len({len(line) for line in lines}) == 1


def test_only_seeds_that_both_have_are_paired():
    runs = [*study("adamw", losses=(2.0, 2.2)), *study("lion", losses=(2.5, 2.6, 9.0))]
    row = next(row for row in summary.rows(results(*runs)) if row.key == "lion")
    assert row.difference.mean == pytest.approx((0.5 + 0.4) / 2)
    alone = summary.rows(results(*study("lion", losses=(2.5, 2.6))))
    assert alone[0].difference is None and alone[0].loss is not None


def test_a_best_rate_at_the_edge_is_told():
    runs = runs_of(lambda lr: 10 - math.log2(lr), seeds=2)
    text = summary.table(results(*runs))
    assert "(edge)" in text and text.endswith("AdamW: the best rate is the highest tried.")
    assert "(edge)" not in summary.table(results(*study()))


def test_a_table_of_nothing():
    assert summary.table(results()).splitlines()[0].startswith("| optimizer | rate |")


# The file.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "compare.jsonl"


def test_what_is_written_is_what_is_read(path):
    log = Log(path, HEAD)
    log.session(PLACE)
    for each in (run(), run(seed=1), run("sgd", tuning=None)):
        log.add(each)
    log.time({"adamw": 0.0123456})
    assert load(path) == Log(path, HEAD).results
    assert load(path).runs == (run(), run(seed=1), run("sgd", tuning=None))
    assert load(path).head == HEAD and load(path).sessions == (PLACE,) and load(path).times == ({"adamw": 0.01235},)
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "head",
        "session",
        *["run"] * 3,
        "time",
    ]


def test_every_cut_of_the_last_line_is_survived(path):
    """Wherever a kill or a full disk cuts the file, whole lines are kept and the torn one is made again."""
    log = Log(path, HEAD)
    log.add(run())
    before = path.read_bytes()
    log.add(run(seed=1))
    whole = path.read_bytes()
    for cut in [0, 5, *range(len(before), len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        expected = () if cut < len(before) else (run(),)
        again = Log(path, HEAD)
        assert again.results.runs == expected == load(path).runs
        torn = cut not in (0, len(before))
        assert len(again.notes) == torn
        if torn:
            assert "cut off by an interruption" in again.notes[0]
        again.add(run(seed=2))
        assert load(path).runs == (*expected, run(seed=2))


def test_other_settings_are_refused(path):
    Log(path, HEAD).add(run())
    before = path.read_bytes()
    other = {"problem": {"batch": 32, "model": {"width": 32}}, "steps": 20}
    with pytest.raises(
        BadFile, match=r"other settings: problem\.batch is 16 there and 32 here; steps is 10 there and 20"
    ):
        Log(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"kind": "run"}',
        b'{"kind": "walk"}',
        b"\xff\xfe",
        b"null",
        b'{"kind": "time", "seconds": {"adamw": "fast"}}',
        b'{"kind": "head", "format": 1, "problem": {}, "steps": 10}',
    ],
)
def test_a_file_of_another_kind(path, line):
    Log(path, HEAD).add(run())
    whole = path.read_bytes()
    path.write_bytes(whole + line + b"\n" + whole.splitlines()[-1] + b"\n")
    for read in (lambda: load(path), lambda: Log(path, HEAD)):
        with pytest.raises(BadFile, match=r"line 3, is none of the benchmark's .* --fresh"):
            read()
    path.write_bytes(line + b"\n")
    if b"head" not in line:
        with pytest.raises(BadFile, match="line 1"):
            load(path)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("key", 3),
        ("key", ""),
        ("lr", -0.1),
        ("lr", math.inf),
        ("lr", math.nan),
        ("lr", "1"),
        ("seed", -1),
        ("seed", 1.5),
        ("steps", 0),
        ("steps", True),
        ("setting", None),
        ("tuning", math.nan),
        ("tuning", None),
        ("loss", None),
        ("loss", math.inf),
        ("stopped", "why"),
        ("seconds", -1.0),
        ("state_bytes", -1),
        ("state_bytes", 0.5),
        ("bytes_per_parameter", math.nan),
    ],
)
def test_a_run_that_cannot_be(name, bad):
    with pytest.raises(
        ValueError,
        match=name
        if name not in ("tuning", "loss", "stopped") or bad not in (None, "why")
        else "either two losses or a reason",
    ):
        dataclasses.replace(run(), **{name: bad})


def test_a_folder_or_nothing_in_place_of_the_file(tmp_path):
    with pytest.raises(BadFile, match="cannot be read"):
        load(tmp_path / "nothing.jsonl")
    with pytest.raises(BadFile, match="cannot be"):
        Log(tmp_path, HEAD)


def test_setting_aside_loses_nothing(path):
    assert set_aside(path) is None
    for number in (1, 2, 3):
        Log(path, HEAD).add(run(seed=number))
        kept = set_aside(path)
        assert kept.name == f"compare.old-{number}.jsonl" and not path.exists()
        assert load(kept).runs == (run(seed=number),)


def test_carrying_on_makes_what_is_missing_and_no_more(path):
    asked = []

    def answer(key, lr, seed, steps):
        asked.append((key, lr, seed))
        if len(asked) == 10:
            raise KeyboardInterrupt
        return run(key, lr, seed, 2.0 + abs(math.log2(lr / find(key).rate)) + 0.01 * seed, steps=steps)

    with pytest.raises(KeyboardInterrupt):
        list(plan.carry_on(Log(path, HEAD), ["adamw", "lion"], 2, answer))
    assert len(load(path).runs) == 9
    made = list(plan.carry_on(Log(path, HEAD), ["adamw", "lion"], 2, answer))
    assert len(made) == 9 and len(asked) == 19
    assert asked.pop(9) == asked[9] and len(set(asked)) == 18  # the run that was interrupted is the one made again
    assert list(plan.carry_on(Log(path, HEAD), ["adamw", "lion"], 2, answer)) == []
    assert {made.steps for made in load(path).runs} == {10}


# Real runs, with a tiny budget.


@pytest.fixture
def tiny(monkeypatch):
    """A smaller model on less text, so that a run takes a moment."""
    monkeypatch.setattr(runner, "MODEL", runner.LMConfig(layers=1, width=8, heads=2, context=8))
    monkeypatch.setattr(runner, "BATCH", 4)
    texts = tuple(part[:2000] for part in runner.parts())
    monkeypatch.setattr(runner, "parts", lambda: texts)


@pytest.mark.parametrize("key", REGISTRY)
def test_every_optimizer_runs_and_its_bytes_are_the_registrys(tiny, key):
    first, again = (runner.run_one(key, find(key).rate / 8, 3, 12) for _ in range(2))
    assert (first.tuning, first.loss) == (again.tuning, again.loss)
    assert first.stopped is None and 2 < first.loss < 6
    assert (first.key, first.lr, first.seed, first.steps) == (key, find(key).rate / 8, 3, 12)
    assert first.bytes_per_parameter == pytest.approx(REGISTRY[key].state_bytes_per_param, abs=1e-4)
    model = ByteLM(runner.MODEL)
    embeddings_and_head = ("byte_embedding.weight", "position_embedding.weight", "head.weight")
    expected = sum(
        8 * param.numel()
        if key == "muon" and name in embeddings_and_head  # these are AdamW's there
        else REGISTRY[key].state_bytes(tuple(param.shape))
        for name, param in model.named_parameters()
    )
    assert first.state_bytes == expected


def test_the_seed_is_the_weights_and_the_batches(tiny):
    losses = {runner.run_one("adamw", 0.004, seed, 4).loss for seed in range(3)}
    assert len(losses) == 3


def test_a_run_is_plain_training(tiny):
    """The same numbers from a loop written out with torch's own optimizer and schedules."""
    mine = runner.run_one("adamw", 0.004, 5, 20)
    model = ByteLM(runner.MODEL, seed=5)
    decayed = [p for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "embedding" not in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.004, betas=(0.9, 0.95)
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 2, total_iters=1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 18, eta_min=0.0004)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [2])
    for batch in runner.text.batches(runner.parts()[0], 4, 8, 20, 5):
        optimizer.zero_grad()
        next_byte_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert mine.tuning == pytest.approx(runner.mean_loss(model, runner.parts()[1]), rel=1e-5)
    assert mine.loss == pytest.approx(runner.mean_loss(model, runner.parts()[2]), rel=1e-5)


def test_schedule_free_is_evaluated_at_its_average_and_has_no_other_schedule(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "mean_loss", lambda model, data: seen.append(model.head.weight.detach().clone()) or 3.0)
    held = []
    make = runner.make_optimizer
    monkeypatch.setattr(runner, "make_optimizer", lambda *args: held.append(make(*args)) or held[0])
    runner.run_one("schedule_free", 0.01, 0, 20)
    optimizer = held[0]
    assert not any(group["train_mode"] for group in optimizer.param_groups)
    assert {group["warmup_steps"] for group in optimizer.param_groups} == {2}
    optimizer.train()
    head = next(
        p
        for group in optimizer.param_groups
        for p, name in zip(group["params"], group["param_names"], strict=True)
        if name == "head.weight"
    )
    assert not torch.equal(seen[0], head)
    assert {runner.schedule("schedule_free", 20)(t) for t in range(20)} == {1.0}
    assert runner.schedule("adamw", 20)(0) == 0.5 and runner.schedule("adamw", 20)(19) < 0.12


def test_sophia_estimates_before_the_first_step_and_every_ten(tiny, monkeypatch):
    calls = []
    optimizers = []
    make = runner.make_optimizer

    def counted(*args):
        optimizer = make(*args)
        update = optimizer.update_hessian
        first = optimizer.param_groups[0]["params"][0]
        optimizer.update_hessian = lambda **more: (
            calls.append(optimizer.state[first].get("step", 0) if optimizer.state[first] else 0),
            update(**more),
        )
        optimizers.append(optimizer)
        return optimizer

    monkeypatch.setattr(runner, "make_optimizer", counted)
    runner.run_one("sophia", 1e-3, 0, 25)
    assert calls == [0, 10, 20]
    assert all((state["hessian"] >= 0).all() for state in optimizers[0].state.values())
    assert any((state["hessian"] > 0).any() for state in optimizers[0].state.values())


def test_muon_has_the_hidden_matrices_and_adamws_betas_for_the_rest():
    optimizer = make_optimizer("muon", ByteLM(runner.MODEL), 0.01)
    hidden, *rest = optimizer.param_groups
    assert hidden["name"] == "hidden matrices" and hidden["adjust_lr_fn"] == "match_rms_adamw"
    assert all(group["adamw"] and group["betas"] == find("adamw").hyper["betas"] for group in rest)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_counts_of_steps_follow_the_length_of_the_run():
    model = ByteLM(runner.MODEL)
    assert make_optimizer("schedule_free", model, 0.01, 200).param_groups[0]["warmup_steps"] == 20
    assert make_optimizer("ademamix", model, 0.01, 200).param_groups[0]["alpha_warmup"] == 200
    optimizer = make_optimizer("adamw", model, 0.01)
    assert isinstance(optimizer, AdamW)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "embedding": 0.0,
        "attention": 0.1,
        "mlp": 0.1,
        "norm_and_bias": 0.0,
        "head": 0.1,
    }


@pytest.mark.parametrize("key", REGISTRY)
def test_an_absurd_rate_ends_a_run_and_not_the_benchmark(tiny, key):
    for lr in (1e4, 1e30):
        made = runner.run_one(key, lr, 0, 12)
        assert made.loss is None or made.loss > 3
        assert (made.loss is None) == (made.tuning is None) == bool(made.stopped)


def test_eigenvectors_that_cannot_be_found_end_a_run(tiny, monkeypatch):
    def failing(*_, **__):
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(runner, "train", failing)
    made = runner.run_one("shampoo", 0.01, 0, 10)
    assert made.loss is None and made.stopped.startswith("Stopped: linalg.eigh")


def test_no_labels_are_drawn_from_a_model_that_has_diverged(tiny, monkeypatch):
    always = dataclasses.replace(find("sophia"), estimate_every=1)
    monkeypatch.setitem(SETTINGS, "sophia", always)
    assert "Stopped at step 1" in runner.run_one("sophia", 1e30, 0, 10).stopped


def test_a_run_that_diverges_says_so(tiny):
    made = runner.run_one("sgd", 1e20, 0, 10)
    assert made.loss is None and made.tuning is None and "Stopped at step" in made.stopped
    assert json.loads(json.dumps(dataclasses.asdict(made), allow_nan=False))["stopped"] == made.stopped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adamv", 0.1, 0, 4), "no optimizer 'adamv'"),
        (("adamw", 0.0, 0, 4), "Invalid lr"),
        (("adamw", math.nan, 0, 4), "Invalid lr"),
        (("adamw", True, 0, 4), "Invalid lr"),
        (("adamw", "1", 0, 4), "Invalid lr"),
        (("adamw", 0.1, -1, 4), "Invalid seed"),
        (("adamw", 0.1, True, 4), "Invalid seed"),
        (("adamw", 0.1, 0.5, 4), "Invalid seed"),
        (("adamw", 0.1, 0, 1), "Invalid steps"),
        (("adamw", 0.1, 0, 0), "Invalid steps"),
        (("adamw", 0.1, 0, 2.0), "Invalid steps"),
    ],
)
def test_bad_arguments_of_a_run(arguments, message):
    with pytest.raises(ValueError, match=message):
        runner.run_one(*arguments)


def test_the_three_texts_are_apart():
    training, tuning, held_out = runner.parts()
    whole = runner.text.corpus()
    assert training + tuning + held_out == whole
    assert len(held_out) == pytest.approx(0.1 * len(whole), rel=1e-3)
    assert len(tuning) == pytest.approx(0.045 * len(whole), rel=1e-3)


def test_the_problem_names_its_text(monkeypatch):
    before = runner.problem()
    assert json.loads(json.dumps(before)) == before
    assert before["parameters"] == 42880
    monkeypatch.setattr(runner.text, "corpus", lambda: b"another text")
    assert runner.problem()["text"] != before["text"]


def test_the_timer_gets_ten_steps_of_each(tiny, monkeypatch):
    steps = []
    make = runner.make_optimizer

    def counted(*args):
        optimizer = make(*args)
        optimizer.register_step_post_hook(lambda *_: steps.append(args[0]))
        return optimizer

    monkeypatch.setattr(runner, "make_optimizer", counted)
    variants = runner.step_variants(["adamw", "sophia", "schedule_free"])
    assert list(variants) == ["adamw", "sophia", "schedule_free"]
    for call in [*variants.values(), *variants.values()]:
        call()
    assert steps == [key for key in variants for _ in range(10)] * 2


def test_a_time_that_cannot_be_measured_is_no_short_time(tiny, monkeypatch):
    make = runner.make_optimizer
    monkeypatch.setattr(runner, "make_optimizer", lambda key, model, lr: make(key, model, 1e20))
    call = runner.step_variants(["sgd"])["sgd"]
    with pytest.raises(RuntimeError, match="The time of sgd cannot be measured. Stopped at step"):
        call()


def test_the_recorded_run_is_whole():
    """What the notebook shows: every optimizer of the registry, tuned inside its grid, with five seeds."""
    found = load(records.RECORDED)
    assert found.head["steps"] == STEPS
    assert found.head["problem"].keys() == runner.problem().keys()
    assert all(session[name] for session in found.sessions for name in records.SESSION)
    rows = {row.key: row for row in summary.rows(found)}
    assert set(rows) == set(REGISTRY)
    for key, row in rows.items():
        assert row.tuning.edge is None and len(row.tuning.rates) >= plan.RATES, key
        assert list(row.losses) == [1, 2, 3, 4, 5] and row.loss is not None, key
        assert row.bytes_per_parameter == pytest.approx(REGISTRY[key].state_bytes_per_param, abs=1e-4), key
        assert row.time > 0, key


def test_the_readme_shows_the_recorded_run():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert summary.table(load(records.RECORDED)) in readme, "run `python -m tools.compared` to bring the README up to date"
