"""`course compare` as a user runs it: killed and resumed, changed and refused, and what it says to bad input."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import course_lib
from course_lib import cli
from course_lib.benchmark import records, runner
from course_lib.benchmark.records import Run, load
from course_lib.benchmark.settings import find
from course_lib.kernels import bench
from course_lib.optim import REGISTRY

BEST = {"adamw": 2.0, "lion": 2.1}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


class Fake:
    """In place of training: runs with a known best rate, which can be interrupted at one of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, int]] = []
        self.timed: list[list[str]] = []
        self.interrupt_at: int | None = None

    def run_one(self, key: str, lr: float, seed: int, steps: int) -> Run:
        self.asked.append((key, lr, seed))
        if len(self.asked) == self.interrupt_at:
            raise KeyboardInterrupt
        loss = BEST.get(key, 3.0) + 0.1 * abs(math.log2(lr / find(key).rate)) + 0.01 * seed * (1 + (key == "lion"))
        return Run(
            key, lr, seed, steps, find(key).describe(), loss, loss, None, 0.5, 8, REGISTRY[key].state_bytes_per_param
        )

    def step_times(self, variants, **_) -> dict[str, float]:
        self.timed.append(list(variants))
        return {key: 0.08 if key == "adamw" else 0.1 for key in variants}


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setattr(runner, "run_one", made.run_one)
    monkeypatch.setattr(bench, "step_times", made.step_times)
    return made


def course(*arguments: str):
    """Run ``course compare`` in this process: exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli.app, ["compare", *arguments], catch_exceptions=False)


BOTH = ("--optimizers", "adamw,lion", "--steps", "10", "--seeds", "3")


def table_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_the_table_and_the_file(fake):
    result = course(*BOTH)
    assert result.exit_code == 0
    rows = table_of(result.stdout)
    # Losses 2.01 2.02 2.03 and 2.12 2.14 2.16, differences 0.11 0.12 0.13; t for 2 degrees is 4.303.
    assert rows[2] == ["AdamW", f"{find('adamw').rate:.2g}", "2.020 ± 0.025", "", "8", "1.00"]
    assert rows[3] == ["Lion", f"{find('lion').rate:.2g}", "2.140 ± 0.050", "+0.120 ± 0.025", "4", "1.25"]
    assert result.stdout.endswith("All runs are in compare.jsonl.\n")
    assert len(load("compare.jsonl").runs) == len(fake.asked) == 2 * (7 + 3)
    assert fake.timed == [["adamw", "lion"]]
    assert load("compare.jsonl").times == ({"adamw": 0.008, "lion": 0.01},)


def test_provenance_is_complete(fake):
    course(*BOTH, "--out", "somewhere/runs.jsonl")
    (session,) = load("somewhere/runs.jsonl").sessions
    assert set(session) == set(records.SESSION)
    assert session["course"] == course_lib.__version__
    assert session["command"] == "course compare --optimizers adamw,lion --steps 10 --seeds 3 --out runs.jsonl"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", session["date"])
    assert re.match(r"\d+\.\d+", session["torch"]) and re.match(r"3\.\d+\.\d+", session["python"])
    assert session["device"] and session["threads"] == 1
    head = load("somewhere/runs.jsonl").head
    assert head["steps"] == 10 and head["problem"]["text"]["sha256"] and head["problem"]["parameters"] == 42880
    assert os.getcwd() not in Path("somewhere/runs.jsonl").read_text()


def test_ctrl_c_leaves_a_file_that_resumes(fake):
    straight = course(*BOTH, "--out", "straight.jsonl").stdout.partition("\n\n")[0]
    for stop in (1, 5, 9, 14):
        fake.asked.clear()
        fake.interrupt_at = stop
        result = course(*BOTH, "--fresh")
        assert result.exit_code == 130
        assert (
            f"Stopped. {stop - 1} of about 20 runs are in compare.jsonl; the same command goes on from there."
            in result.stderr
        )
        assert "Traceback" not in result.output
        interrupted = fake.asked[-1]
        fake.asked.clear()
        fake.interrupt_at = None
        again = course(*BOTH)
        assert again.exit_code == 0 and again.stdout.partition("\n\n")[0] == straight
        assert len(fake.asked) == 20 - (stop - 1) and fake.asked[0] == interrupted
        assert len(load("compare.jsonl").sessions) == 2


def test_a_finished_file_is_only_shown(fake):
    first = course(*BOTH).stdout
    before = Path("compare.jsonl").read_bytes()
    fake.asked.clear()
    assert course(*BOTH).stdout == first
    assert Path("compare.jsonl").read_bytes() == before and not fake.asked


def test_a_torn_last_line(fake):
    course(*BOTH)
    whole = Path("compare.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    Path("compare.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:40])
    fake.asked.clear()
    result = course(*BOTH)
    assert result.exit_code == 0
    assert "The last line of compare.jsonl was cut off by an interruption; that run is made again." in result.stdout
    assert len(fake.asked) == 20 - 6  # the head and the session are lines as well
    assert table_of(result.stdout)[2:] == table_of(course(*BOTH).stdout)[2:]


def test_more_optimizers_and_more_seeds_are_added(fake):
    course(*BOTH)
    fake.asked.clear()
    result = course("--optimizers", "sgd", "--steps", "10", "--seeds", "3")
    assert {key for key, _, _ in fake.asked} == {"sgd"}
    assert fake.timed[-1] == ["sgd", "adamw"]  # AdamW is timed beside whatever is timed
    assert [row[0] for row in table_of(result.stdout)[2:]] == ["AdamW", "Lion", "SGD"]
    fake.asked.clear()
    course("--optimizers", "lion", "--steps", "10", "--seeds", "5")
    assert fake.asked == [("lion", find("lion").rate, 4), ("lion", find("lion").rate, 5)]


def test_changed_settings_are_refused(fake, monkeypatch):
    course(*BOTH)
    before = Path("compare.jsonl").read_bytes()
    result = course("--optimizers", "adamw", "--steps", "20", "--seeds", "3")
    assert result.exit_code == 2
    assert "compare.jsonl was made with other settings: steps is 10 there and 20 here." in result.stderr
    assert "--out" in result.stderr and "--fresh" in result.stderr
    monkeypatch.setattr(runner, "BATCH", 32)
    assert "problem.batch is 16 there and 32 here" in course(*BOTH).stderr
    assert Path("compare.jsonl").read_bytes() == before


def test_an_optimizers_changed_setting_keeps_its_runs_apart(fake, monkeypatch):
    course(*BOTH)
    fake.asked.clear()
    changed = find("lion").__class__(rate=find("lion").rate, hyper={"betas": (0.95, 0.98)}, decay=find("lion").decay)
    monkeypatch.setitem(find.__globals__["SETTINGS"], "lion", changed)
    result = course(*BOTH)
    assert result.exit_code == 0
    assert (
        "Runs of lion that were made with other settings than its present ones: 10. They are kept apart"
        in result.stdout
    )
    assert len(fake.asked) == 10 and {key for key, _, _ in fake.asked} == {"lion"}
    assert len(load("compare.jsonl").runs) == 30


def test_fresh_keeps_what_was_there(fake):
    course(*BOTH)
    before = Path("compare.jsonl").read_bytes()
    result = course("--optimizers", "adamw", "--steps", "12", "--seeds", "2", "--fresh")
    assert result.exit_code == 0
    assert "What was in compare.jsonl is kept in compare.old-1.jsonl." in result.stdout
    assert Path("compare.old-1.jsonl").read_bytes() == before
    assert load("compare.jsonl").head["steps"] == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--optimizers", "adamv"], r"There is no optimizer 'adamv' in the benchmark. Did you mean .*adamw"),
        (["--optimizers", "adamw,lions"], "Did you mean lion"),
        (["--optimizers", " , "], "none is named"),
        (["--optimizers", ""], "none is named"),
        (["--steps", "1"], "Invalid steps: 1. Allowed: a whole number from 2 to 100000"),
        (["--steps", "-5"], "Invalid steps: -5"),
        (["--steps", "1000000000"], "Invalid steps: 1000000000"),
        (["--seeds", "1"], "Invalid seeds: 1. Allowed: a whole number from 2 to 30"),
        (["--seeds", "31"], "Invalid seeds: 31"),
        (["--out", "."], r"is a folder. Allowed: a file, as compare\.jsonl"),
    ],
)
def test_bad_arguments(fake, arguments, said):
    result = course(*arguments)
    assert result.exit_code == 2 and re.search(said, result.stderr)
    assert "Traceback" not in result.output and not fake.asked
    assert not os.listdir(".")


def test_a_file_that_is_none_of_ours_is_not_touched(fake):
    Path("notes.txt").write_text("my notes\n")
    result = course(*BOTH, "--out", "notes.txt")
    assert result.exit_code == 2 and "notes.txt, line 1, is none of the benchmark's" in result.stderr
    assert Path("notes.txt").read_text() == "my notes\n"


def test_notes_without_a_line_break_are_not_touched_either(fake):
    for notes in ("my notes", "{", '{"kind'):
        Path("notes.txt").write_text(notes)
        result = course(*BOTH, "--out", "notes.txt")
        ours = '{"kind": "'.startswith(notes)  # a head that was cut off so early holds nothing to lose
        assert result.exit_code == (0 if ours else 2)
        assert ours or Path("notes.txt").read_text() == notes


def test_the_names_may_be_in_any_order(fake):
    assert course("--optimizers", "lion, adamw", "--steps", "10", "--seeds", "2").exit_code == 0
    assert fake.asked[0][0] == "adamw"


def test_the_number_of_threads_is_put_back(fake, monkeypatch):
    import torch

    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(runner, "run_one", lambda *args: seen.append(torch.get_num_threads()) or fake.run_one(*args))
    course(*BOTH)
    assert set(seen) == {1} and torch.get_num_threads() == before


def test_it_is_named_in_the_help():
    listed = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert "compare" in listed
    told = re.sub(r"[│\s]+", " ", CliRunner().invoke(cli.app, ["compare", "--help"]).stdout)
    for option in ("--optimizers", "--steps", "--seeds", "--out", "--fresh"):
        assert option in told


def test_a_killed_process_resumes():
    """For real: training in a process that gets SIGKILL, then the same command."""
    command = [
        sys.executable,
        "-m",
        "course_lib.cli",
        "compare",
        "--optimizers",
        "adamw",
        "--steps",
        "2",
        "--seeds",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if os.path.exists("compare.jsonl") and Path("compare.jsonl").read_text().count('"kind": "run"') >= 2:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = load("compare.jsonl").runs
    assert len(there) >= 2
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    after = load("compare.jsonl")
    assert after.runs[: len(there)] == there and len(after.runs) >= 9
    assert len({(run.lr, run.seed) for run in after.runs}) == len(after.runs)
    (row,) = table_of(done.stdout)[2:]
    assert row[0] == "AdamW" and row[5] == "1.00"
    assert all(json.loads(line) for line in Path("compare.jsonl").read_text().splitlines())
