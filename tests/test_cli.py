"""The `course` command: what it says, its exit codes, and that a learner's file stays as it is.

Most notebooks here import a stand-in for `check` that speaks to the command as the real one does, by COURSE_REPORTS,
so that a run costs no import of torch. The real check is used where a script's answers are found by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course_lib import blanks, cli, journal, run_answers
from course_lib.checks import check, hint
from course_lib.checks.exercises import EXERCISES
from typed_answers import EPS_INSIDE_ROOT, RIGHT

STAND_IN = '''
import json, os
def check(exercise, answer):
    passed = answer == "right"
    findings = [] if passed else [{"code": "wrong", "what": f"{answer!r} is [not] it", "hint": "Look again."}]
    with open(os.environ["COURSE_REPORTS"], "a") as file:
        file.write(json.dumps({"exercise": exercise, "passed": passed, "findings": findings}) + "\\n")
'''
BLANK = "### the blank\nraise NotImplementedError"
SETUP = "from stand_in import check"


def code(source: str, *tags: str, blank: bool = False) -> dict:
    metadata = {"tags": list(tags)} | ({"course": {"blank": blanks.blank_hash(BLANK)}} if blank else {})
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}


def exercise(name: str, answer: str = BLANK) -> list[dict]:
    """An answer cell and its check cell, as the generator makes them."""
    name_of_answer = EXERCISES[name].answer
    return [code(answer, f"exercise:{name}", blank=True), code(f"check('{name}', {name_of_answer})", f"check:{name}")]


def notebook(*cells: dict | list[dict]) -> str:
    flat = [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]
    return json.dumps({"cells": flat, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder of the learner's to work in; what is written there must not change."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def course(*arguments: str):
    """Run the command in this process: exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)


def statuses(*arguments: str) -> dict[str, str]:
    document = json.loads(course("check", "--json", *arguments).stdout)
    return {row["id"]: row["status"] for row in document["exercises"]}


# What runs.


def test_a_notebook_is_run_and_judged_and_left_as_it_is(here):
    text = notebook(
        code(f"%matplotlib inline\n{SETUP}"),
        exercise("adamw", "AdamW = 'right'"), exercise("decay_steps", "steps = 3"), exercise("decay_groups"),
    )
    (here / "mine.ipynb").write_text(text)
    before = sorted(path.name for path in here.iterdir())

    result = course("check", "mine.ipynb", "--json")

    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document == {
        "exercises": [
            {"id": "adamw", "notebook": "mine.ipynb", "status": "passed", "findings": []},
            {"id": "decay_steps", "notebook": "mine.ipynb", "status": "not yet",
             "findings": [{"code": "wrong", "what": "3 is [not] it", "hint": "Look again."}]},
            {"id": "decay_groups", "notebook": "mine.ipynb", "status": "untouched", "findings": []},
        ],
        "passed": 1, "total": 3, "problems": [],
    }
    assert (here / "mine.ipynb").read_text() == text
    assert sorted(path.name for path in here.iterdir()) == before


def test_ids_restrict_a_notebook_and_decide_the_exit_code(here):
    text = notebook(code(SETUP), exercise("adamw", "AdamW = 'right'"), exercise("decay_steps", "steps = 3"))
    (here / "mine.ipynb").write_text(text)
    assert course("check", "mine.ipynb", "adamw").exit_code == 0
    assert course("check", "mine.ipynb", "decay_steps").exit_code == 1
    assert statuses("mine.ipynb", "adamw") == {"adamw": "passed"}


def test_blanks_are_told_without_running_anything(here, monkeypatch):
    monkeypatch.setattr(run_answers, "_call", lambda *_: pytest.fail("a process was started"))
    (here / "mine.ipynb").write_text(notebook(code(SETUP), exercise("adamw"), exercise("decay_steps")))
    result = course("check", "mine.ipynb")
    assert result.exit_code == 1
    assert "0 of 2 passed; 0 not yet; 2 untouched." in result.stdout


def test_an_answer_in_a_cell_of_the_learners_own_counts(here):
    check_cell = code("check('adamw', AdamW)", "check:adamw")
    blank = code(BLANK, "exercise:adamw", blank=True)
    (here / "mine.ipynb").write_text(notebook(code(SETUP), code("AdamW = 'right'"), blank))
    assert statuses("mine.ipynb") == {"adamw": "untouched"}  # the blank after it fails, and nothing checks it
    free = notebook(code(SETUP), code("AdamW = 'right'\ncheck('adamw', AdamW)"))
    (here / "mine.ipynb").write_text(free)
    assert statuses("mine.ipynb") == {"adamw": "passed"}
    elsewhere = notebook(code(SETUP), code("1", "exercise:adamw", blank=True), code("AdamW = 'right'"), check_cell)
    (here / "mine.ipynb").write_text(elsewhere)
    assert statuses("mine.ipynb") == {"adamw": "passed"}


def test_a_failing_answer_is_not_judged_by_an_older_object_of_its_name(here):
    text = notebook(code(SETUP), exercise("adamw", "AdamW = 'right'"), exercise("adamw_blank", "AdamW = = 'right'"))
    (here / "mine.ipynb").write_text(text)
    result = course("check", "mine.ipynb", "--json")
    rows = json.loads(result.stdout)["exercises"]
    assert [row["status"] for row in rows] == ["passed", "not yet"]
    assert rows[1]["findings"][0]["code"] == "raised"
    assert "SyntaxError" in rows[1]["findings"][0]["what"]
    assert result.exit_code == 1


def test_the_last_verdict_counts(here):
    twice = code("check('adamw', 'wrong')\ncheck('adamw', 'right')")
    (here / "mine.ipynb").write_text(notebook(code(SETUP), twice))
    assert statuses("mine.ipynb") == {"adamw": "passed"}


def test_without_names_the_whole_course_is_run(here, monkeypatch):
    monkeypatch.setattr(cli, "course_folder", lambda: here)
    (here / "exercises").mkdir()
    (here / "exercises" / "stand_in.py").write_text(STAND_IN)
    for name in dict.fromkeys(exercise.notebook for exercise in EXERCISES.values()):
        ids = [exercise.id for exercise in EXERCISES.values() if exercise.notebook == name]
        cells = [exercise(one, f"{EXERCISES[one].answer} = 'right'") for one in ids]
        (here / "exercises" / f"{name}.ipynb").write_text(notebook(code(SETUP), cells[0], *cells[1:]))
    result = course("check")
    assert result.exit_code == 0
    assert f"{len(EXERCISES)} of {len(EXERCISES)} passed; 0 not yet; 0 untouched." in result.stdout
    assert statuses("momentum") == {"momentum": "passed"}
    assert str(Path("exercises", "02_momentum.ipynb")) in course("check", "momentum").stdout


# With the real check.


def test_the_real_check_judges_a_notebook_and_a_script_alike(here):
    real = "from course_lib.checks import check"
    text = notebook(code(real), exercise("adamw", RIGHT), exercise("adamw_blank", EPS_INSIDE_ROOT))
    (here / "mine.ipynb").write_text(text)
    document = json.loads(course("check", "--json", "mine.ipynb").stdout)
    assert [row["status"] for row in document["exercises"]] == ["passed", "not yet"]
    assert "eps-inside-root" in [finding["code"] for finding in document["exercises"][1]["findings"]]

    (here / "right.py").write_text(RIGHT)
    (here / "wrong.py").write_text(EPS_INSIDE_ROOT)
    result = course("check", "--json", "right.py", "wrong.py", "adamw")
    document = json.loads(result.stdout)
    assert [(row["path"], row["status"]) for row in document["exercises"]] == [
        ("right.py", "passed"), ("wrong.py", "not yet"),
    ]
    assert document["exercises"][1]["findings"][0]["code"] == "eps-inside-root"
    assert result.exit_code == 1



def test_the_answers_of_a_script_are_found_by_name(here):
    (here / "mine.py").write_text("from torch.optim import AdamW  # nobody's answer\nsteps = -1.0\n")
    result = course("check", "mine.py", "--json")
    rows = json.loads(result.stdout)["exercises"]
    assert [(row["id"], row["path"], row["status"]) for row in rows] == [("decay_steps", "mine.py", "not yet")]
    assert rows[0]["findings"][0]["what"]
    assert result.exit_code == 1


def test_an_id_decides_for_which_exercise_a_script_answers(here):
    (here / "mine.py").write_text("class AdamW:\n    pass\n")
    assert statuses("mine.py", "adamw_blank") == {"adamw_blank": "not yet"}
    assert statuses("mine.py") == {"adamw": "not yet"}


def test_a_script_that_checks_itself_decides_what_is_checked(here):
    last = "if __name__ == '__main__':\n    check('decay_steps', 'right')\n    raise SystemExit(1)\n"
    (here / "mine.py").write_text(f"{SETUP}\nAdamW = 3\n{last}")
    result = course("check", "mine.py")
    assert "1 of 1 passed" in result.stdout
    assert result.exit_code == 0


# What goes wrong.

NO_NOTEBOOK = "is JSON, but not a notebook of format 4: it has no list of cells, or a damaged one."


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("none.ipynb", None, "There is no file none.ipynb."),
    ("none.py", None, "There is no file none.py."),
    ("text.ipynb", "print(1)\n", "text.ipynb is not a notebook: it is not JSON (Expecting value in line 1)."),
    ("bytes.ipynb", b"\xff\xfe\x00", "bytes.ipynb is not a notebook: it is not text in UTF-8."),
    ("list.ipynb", "[1]", "list.ipynb " + NO_NOTEBOOK),
    ("cells.ipynb", '{"cells": [3]}', "cells.ipynb " + NO_NOTEBOOK),
    ("tags.ipynb", '{"cells": [{"cell_type": "code", "source": "", "metadata": {"tags": null}}]}',
     "tags.ipynb " + NO_NOTEBOOK),
    ("old.ipynb", '{"worksheets": []}', "old.ipynb " + NO_NOTEBOOK),
    ("empty.ipynb", "", "empty.ipynb is empty."),
    ("empty.py", " \n", "empty.py is empty."),
    ("plain.ipynb", '{"cells": []}', "plain.ipynb holds no exercise:"),
    ("broken.py", "a = 1\nclass AdamW(:\n", "broken.py is not valid Python: invalid syntax in line 2."),
    ("notes.txt", "AdamW", "notes.txt is neither a notebook (.ipynb) nor a Python file (.py)."),
    ("folder.py", "a folder", "folder.py is a folder. Name a notebook or a Python file in it."),
])
def test_input_that_cannot_be_judged_gets_one_sentence(here, name, content, sentence):
    path = here / name
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = course("check", name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    as_json = json.loads(course("check", "--json", name).stdout)
    assert as_json == {"exercises": [], "passed": 0, "total": 0, "problems": [result.stderr.rstrip("\n")]}


@pytest.mark.parametrize(("typo", "meant"), [("adamww", "adamw"), ("AdamW", "adamw"), ("rmsporp", "rmsprop")])
def test_the_nearest_exercise_is_suggested(here, typo, meant):
    result = course("check", typo)
    assert result.exit_code == 2
    assert re.match(rf"There is no exercise {typo}\. Did you mean {meant}\b", result.stderr)


def test_a_name_like_no_other_gets_the_list(here):
    result = course("check", "xyzzy")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in EXERCISES)


def test_a_cell_that_fails_before_the_answer_is_named(here):
    text = notebook(code("import no_such_module"), code(SETUP), exercise("adamw", "AdamW = no_such_module.AdamW"))
    (here / "mine.ipynb").write_text(text)
    result = course("check", "mine.ipynb")
    assert result.exit_code == 2
    assert result.stderr == (
        "mine.ipynb: The code cell 1 (import no_such_module) fails with ModuleNotFoundError: "
        "No module named 'no_such_module'. So adamw could not be checked.\n"
    )
    assert "1 not yet" in result.stdout


def test_a_script_that_fails_before_its_answer_is_told_with_the_line(here):
    (here / "mine.py").write_text("a = 1\n1 / 0\nAdamW = 3\n")
    for arguments, end in ((["mine.py"], " before anything was checked."),
                           (["mine.py", "adamw"], ", so adamw could not be checked.")):
        result = course("check", *arguments)
        assert result.exit_code == 2
        assert result.stderr == "mine.py fails in line 2 with ZeroDivisionError: division by zero" + end + "\n"


def test_a_script_without_the_answer_asked_for(here):
    (here / "mine.py").write_text("a = 1\n")
    result = course("check", "mine.py", "adamw")
    assert result.exit_code == 2
    assert result.stderr == "mine.py defines no AdamW, which is what exercise adamw asks for.\n"
    assert "neither calls check(...) nor defines an answer" in course("check", "mine.py").stderr


def test_an_id_that_a_notebook_does_not_hold(here):
    (here / "mine.ipynb").write_text(notebook(code(SETUP), exercise("adamw", "AdamW = 'right'")))
    result = course("check", "mine.ipynb", "rmsprop")
    assert result.exit_code == 2
    assert result.stderr == "No cell for exercise rmsprop was found.\n"


def test_code_that_does_not_end_is_stopped_with_all_it_started(here):
    stray = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)  # stray'])"
    cells = [exercise("adamw", "AdamW = 'right'"), code(stray), exercise("adam", "while True: pass")]
    (here / "mine.ipynb").write_text(notebook(code(SETUP), *cells))
    document = json.loads(course("check", "--json", "--timeout", "5", "mine.ipynb").stdout)
    first, second = document["exercises"]
    assert first["status"] == "passed"
    assert second["status"] == "not yet"
    assert second["findings"][0]["code"] == "timeout"
    assert second["findings"][0]["what"] == "Stopped after 5 s in code cell 5 (while True: pass)."
    if sys.platform == "linux":
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not any(b"# stray" in command for command in commands)


@pytest.mark.skipif(os.name != "posix", reason="signals as Unix has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_what_was_started(here, number):
    tell = "import os, pathlib\npathlib.Path('part').write_text(str(os.getpid()))\nos.rename('part', 'pid')\n"
    cell = tell + "while True: pass"
    (here / "mine.ipynb").write_text(notebook(code(SETUP), exercise("adamw", cell)))
    command = [sys.executable, "-m", "course_lib.cli", "check", "mine.ipynb"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job hands on an ignored Ctrl-C
    )
    while process.poll() is None and not (here / "pid").exists():
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((here / "pid").read_text()), 0)


def test_code_that_ends_the_process_is_told(here):
    (here / "mine.ipynb").write_text(notebook(code(SETUP), exercise("adamw", "import os\nos._exit(7)")))
    row = json.loads(course("check", "--json", "mine.ipynb").stdout)["exercises"][0]
    assert row["status"] == "not yet"
    assert row["findings"][0]["what"] == "The process ended by itself in code cell 2 (import os) (exit status 7)."


def test_a_temp_folder_that_cannot_be_written(here, monkeypatch):
    monkeypatch.setattr(run_answers.tempfile, "tempdir", str(here / "missing"))
    (here / "mine.ipynb").write_text(notebook(code(SETUP), exercise("adamw", "AdamW = 'right'")))
    result = course("check", "mine.ipynb")
    assert result.exit_code == 2
    assert result.stderr.startswith("The folder for temporary files cannot be used: No such file or directory.")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_fills_up_while_the_answers_run(here):
    filling = ("import os\nfolder = os.path.dirname(os.environ['COURSE_REPORTS'])\nos.remove(folder + '/events')\n"
               "os.symlink('/dev/full', folder + '/events')")
    (here / "mine.ipynb").write_text(notebook(code(filling), code(SETUP), exercise("adamw", "AdamW = 'right'")))
    result = course("check", "mine.ipynb")
    assert result.exit_code == 2
    assert "no space left" in result.stderr


# How it looks.


def test_the_table_fits_80_columns_and_has_no_colour_in_a_pipe(here):
    long = "a very long sentence that goes on " * 20
    text = notebook(code(SETUP), exercise("bias_corrected_moment", f"bias_corrected_moment = {long!r}"),
                    exercise("efficient_step", "efficient_step = 'right'"))
    (here / "mine.ipynb").write_text(text)
    command = [sys.executable, "-m", "course_lib.cli", "check", "mine.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "bias_corrected_moment" in done.stdout
    assert "a very long sentence" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 of 2 passed; 1 not yet; 0 untouched."
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=ascii_only, check=False)
    assert done.returncode == 1
    assert done.stdout.isascii()


def test_starting_the_command_imports_nothing_heavy():
    probe = "import sys, course_lib.cli; print(sorted({'torch', 'numpy', 'IPython', 'jupyterlab'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_typer_is_told_in_a_sentence():
    probe = "import sys; sys.modules['typer'] = None; from course_lib.cli import main"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("The course command needs the package typer. Install it with: ")
    assert done.stderr.count("\n") == 1


# course progress, course hint


@pytest.fixture
def kept(here, home):
    """The file with the learner's progress, where the command keeps it."""
    return home / "progress.sqlite3"


def recorded() -> list[tuple]:
    return [(event.exercise, event.kind, event.passed) for event in journal.load()]


def test_course_check_records_each_verdict_once(kept, here):
    answered = exercise("decay_steps", "steps = 10.0"), exercise("adam_state_bytes", "state_bytes = 56e9")
    text = notebook(code("from course_lib.checks import check"), *answered, exercise("adamw"))
    (here / "mine.ipynb").write_text(text)
    (here / "mine.py").write_text("steps = -1.0\n")
    assert course("check", "mine.ipynb").stderr == ""
    verdicts = [("decay_steps", "checked", False), ("adam_state_bytes", "checked", True)]
    assert recorded() == verdicts
    course("check", "mine.py")
    assert recorded() == [*verdicts, ("decay_steps", "checked", False)]


def test_course_check_says_once_where_progress_could_not_be_saved(here, home, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", "relative")
    for name in ("one.py", "two.py"):
        (here / name).write_text("steps = 10.0\nstate_bytes = 56e9\n")
    result = course("check", "--json", "one.py", "two.py")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == []
    assert result.stderr.startswith("Progress is not saved: COURSE_HOME is relative, a relative path")
    assert result.stderr.count("\n") == 1


def test_hints_in_the_terminal_and_in_the_notebook_are_the_same_row(kept, capsys):
    first, second, third = EXERCISES["decay_steps"].hints
    assert first in course("hint", "decay_steps").stdout
    hint("decay_steps")
    assert second in capsys.readouterr().out
    assert third in course("hint", "decay_steps").stdout
    assert "Try it once" in course("hint", "decay_steps").stdout
    check("decay_steps", 10.0)
    result = course("hint", "decay_steps")
    assert "solutions/05_adamw.ipynb" in result.stdout
    assert result.exit_code == 0
    again = course("hint", "decay_steps", "--again").stdout
    assert [line.split(": ", 1)[1] for line in again.splitlines()] == [first, second, third]


def test_a_hint_for_no_exercise_suggests_one(kept):
    result = course("hint", "adamww")
    assert result.exit_code == 2
    assert result.stderr.startswith("There is no exercise adamww. Did you mean adamw")
    assert result.stderr.count("\n") == 1
    assert not kept.exists()


def test_progress_is_shown_in_80_columns_and_as_json(kept, here):
    journal.record("bias_corrected_moment", journal.SOLUTION)
    journal.record("an_exercise_that_is_long_gone", journal.HINT, tier=2)
    for _ in range(120):
        journal.record("adamw", journal.CHECKED, passed=False, code="eps-inside-root")
    command = [sys.executable, "-m", "course_lib.cli", "progress"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "tried 120 times" in done.stdout
    assert "all, solution" in done.stdout
    assert "not in this version of the course" in done.stdout
    assert "Next: adamw (" in done.stdout
    document = json.loads(course("progress", "--json").stdout)
    rows = {row["id"]: row for row in document["exercises"]}
    assert list(rows) == list(EXERCISES)
    assert (rows["adamw"]["state"], rows["adamw"]["checks"]) == ("tried", 120)
    assert document["retired"][0]["id"] == "an_exercise_that_is_long_gone"
    assert (document["passed"], document["total"], document["next"]) == (0, len(EXERCISES), "adamw")


def test_progress_is_carried_to_another_machine(kept, here, home, monkeypatch):
    journal.record("adamw", journal.CHECKED, passed=True)
    journal.record("adam", journal.HINT, tier=1)
    result = course("progress", "--export", "mine.json")
    assert result.exit_code == 0
    assert result.stdout == "Wrote 2 events to mine.json. On another machine: course progress --import mine.json\n"
    document = json.loads((here / "mine.json").read_text())
    assert (document["format"], document["version"]) == ("course progress", 2)
    assert json.loads(course("progress", "--export", "-").stdout)["events"] == document["events"]

    monkeypatch.setenv("COURSE_HOME", str(home / "another machine"))
    journal.record("momentum", journal.HINT, tier=1)
    assert course("progress", "--import", "mine.json").stdout == "mine.json holds 2 events, of which 2 were new.\n"
    assert course("progress", "--import", "mine.json").stdout == "mine.json holds 2 events, of which 0 were new.\n"
    assert {row[0] for row in recorded()} == {"adamw", "adam", "momentum"}
    assert "Hint 2 of 3" in course("hint", "adam").stdout


def test_an_export_overwrites_nothing_and_says_where_it_cannot_write(kept, here):
    (here / "mine.json").write_text("mine")
    result = course("progress", "--export", "mine.json")
    assert result.exit_code == 2
    assert result.stderr == "mine.json exists and was left as it is. Choose another name, or move it away first.\n"
    assert (here / "mine.json").read_text() == "mine"
    result = course("progress", "--export", "nowhere/mine.json")
    assert (result.exit_code, result.stderr) == (2, "nowhere/mine.json cannot be written: No such file or directory.\n")


EVENT = {"exercise": "adam", "kind": "hint", "passed": None, "tier": 1, "code": "", "time": "2026-01-02T03:04:05Z",
         "id": "f20b8d2b-68ae-42cc-a787-8746e9bcf3da"}


NOT_JSON = "mine.json is no export of progress, or was cut short: it is not JSON."
NO_EXPORT = "mine.json is no export of progress. Make one with: course progress --export FILE"
DAMAGED = "mine.json is a damaged export of progress: "


def export_with(*events: object, **changes: object) -> str:
    return json.dumps({"format": "course progress", "version": 1, "exported": "", "events": list(events)} | changes)


@pytest.mark.parametrize(("content", "sentence"), [
    (None, "There is no file mine.json."),
    (b"\xff\xfe\x00", "mine.json is no export of progress: it is not text in UTF-8."),
    (b"SQLite format 3\x00 and so on", NOT_JSON),
    ("[" * 100_000, NOT_JSON),
    ("[" + "1" * 5000 + "]", NOT_JSON),
    (export_with(EVENT)[:-30], NOT_JSON),
    ("[1]", NO_EXPORT),
    ('{"cells": []}', NO_EXPORT),
    (export_with(version=3), "mine.json comes from a newer version of the course. Update this one with: git pull"),
    (export_with(version="1"), DAMAGED + "it has no version, or no list of events."),
    (export_with(events={}), DAMAGED + "it has no version, or no list of events."),
    (export_with(EVENT, 3), DAMAGED + "event 2 lacks a value or has an unknown one."),
    (export_with(EVENT | {"score": 3}),
     DAMAGED + "event 1 lacks a value or has an unknown one."),
    (export_with({"kind": "hint"}),
     DAMAGED + "event 1 lacks a value or has an unknown one."),
    (export_with(EVENT | {"time": "yesterday"}),
     DAMAGED + "in event 1, time is 'yesterday', not an ISO 8601 time with an offset from UTC."),
    (export_with(EVENT | {"time": "2026-01-02T03:04:05"}), DAMAGED + "in event 1, time is "),
    (export_with(EVENT | {"time": "0001-01-01T00:00:00+14:00"}), DAMAGED + "in event 1, ti"),
    (export_with(EVENT | {"kind": "won"}), DAMAGED + "in event 1, kind is 'won', not one "),
    (export_with(EVENT | {"tier": True}), DAMAGED + "in event 1, tier is True in an event "),
    (export_with(EVENT | {"tier": 10**30}), DAMAGED + "in event 1, tier is 1000000"),
    (export_with(EVENT | {"passed": True}), DAMAGED + "in event 1, passed is True in an "),
    (export_with(EVENT | {"id": "1"}), DAMAGED + "in event 1, id is '1', not a UUID."),
    (export_with(EVENT | {"exercise": "\x1b[2J"}), DAMAGED + "in event 1, exercise is '\\x"),
    (export_with(EVENT | {"exercise": "\ud800"}), DAMAGED + "in event 1, exercise is '\\u"),
    (export_with(EVENT | {"exercise": ["adam"]}), DAMAGED + "in event 1, exercise is ["),
])
def test_what_is_no_export_is_refused_in_a_sentence_and_changes_nothing(kept, here, content, sentence):
    journal.record("adamw", journal.SOLUTION)
    if content is not None:
        (here / "mine.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = course("progress", "--import", "mine.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert recorded() == [("adamw", "solution", None)]


def test_one_thing_at_a_time(kept):
    result = course("progress", "--json", "--export", "-")
    assert (result.exit_code, result.stderr) == (2, "Use one of --json, --export and --import at a time.\n")


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--export", "-"], ["--import", "mine.json"]])
def test_a_file_from_a_newer_version_is_neither_shown_nor_changed(kept, here, arguments):
    journal.record("adamw", journal.SOLUTION)
    (here / "mine.json").write_text(export_with(EVENT))
    with contextlib.closing(sqlite3.connect(kept)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = kept.read_bytes()
    result = course("progress", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Progress cannot be read or written: {kept} comes from a newer version")
    assert result.stderr.count("\n") == 1
    assert kept.read_bytes() == before


def test_a_damaged_file_is_told_beside_the_table(kept):
    kept.write_text("damage")
    result = course("progress")
    assert result.exit_code == 0
    assert "set aside as" in result.stderr
    assert "0 of " in result.stdout


@pytest.mark.parametrize("arguments", [["progress"], ["progress", "--json"], ["hint", "adam"]])
def test_progress_and_hints_wait_for_nothing_heavy(kept, arguments):
    probe = (
        "import sys\nfrom course_lib import cli\n"
        "try:\n    cli.app(sys.argv[1:])\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'IPython'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# course lab


@pytest.fixture
def launched(here, monkeypatch):
    """A course folder, and the command line with which JupyterLab would have been started there."""
    (here / "exercises").mkdir()
    (here / "notebooks").mkdir()
    (here / cli.START).write_text(notebook(code("1")))
    monkeypatch.setattr(cli, "course_folder", lambda: here)
    found: list = []

    def execv(program, command):
        found.extend(command)
        raise SystemExit(7)

    monkeypatch.setattr(cli.os, "execv", execv)
    return found


def test_lab_opens_the_first_notebook_and_passes_options_on(launched, here, monkeypatch):
    assert course("lab", "--port", "9999", "--ServerApp.token=x").exit_code == 7
    assert launched[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={here}" in launched
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in launched
    assert launched[-3:] == ["--port", "9999", "--ServerApp.token=x"]


def test_lab_without_a_browser_asks_for_none(launched, monkeypatch):
    def none_found():
        raise cli.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(cli.webbrowser, "get", none_found)
    course("lab")
    assert "--no-browser" in launched


def test_lab_prepares_the_clone_for_updates(launched, here, monkeypatch):
    prepared: list[Path] = []
    monkeypatch.setattr(cli.carry, "prepare", prepared.append)
    course("lab")
    assert prepared == [here]


def test_lab_says_what_is_missing(launched, here, monkeypatch):
    find_spec = cli.importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find_spec(name))
        result = course("lab")
    assert result.exit_code == 1
    assert result.stderr.startswith("JupyterLab is not installed. Install it with: ")
    (here / cli.START).unlink()
    result = course("lab")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{here / cli.START} is missing.")
    assert launched == []


def test_the_course_folder_is_found_from_below_it_and_else_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.course_lib, "__file__", str(tmp_path / "site-packages" / "course_lib" / "__init__.py"))
    below = tmp_path / "clone" / "exercises" / "deeper"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    result = course("lab")
    assert result.exit_code == 1
    assert result.stderr.startswith("The course's folder was not found: neither ")
    (tmp_path / "clone" / "notebooks").mkdir()
    assert cli.course_folder() == tmp_path / "clone"


def test_lab_really_starts_prints_its_address_and_stops_at_ctrl_c(tmp_path):
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    process = subprocess.Popen(
        [sys.executable, "-m", "course_lib.cli", "lab", "--no-browser", "--port-retries=50"],
        env=os.environ | {name: str(tmp_path / name) for name in names} | {"GIT_DIR": str(tmp_path)},  # not this clone's
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell's background job hands on an ignored Ctrl-C, and JupyterLab would never end.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if address := re.search(r"http://localhost:\d+/lab/tree/notebooks/00_start_here\.ipynb\?token=\w+", line):
                break
        else:
            pytest.fail("JupyterLab printed no address:\n" + "".join(lines))
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while process.poll() is None:
            try:
                assert directly.open(address[0], timeout=60).status == 200
                break
            except OSError:  # the address is printed a moment before it is served
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0
        assert "Traceback" not in rest
        assert not any(line.startswith("[W") for line in lines)
    finally:
        process.kill()
        process.wait()
