"""The `course` command: what it says, its exit codes, and that a learner's file stays as it is.

Most notebooks here import a stand-in for `check` that speaks to the command as the real one does, by COURSE_REPORTS,
so that a run costs no import of torch. The real check is used where a script's answers are found by name.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course_lib import blanks, cli, run_answers
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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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
