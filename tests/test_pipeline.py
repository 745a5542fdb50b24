"""The tools behind `make notebooks` and the Makefile, on small notebooks of their own."""

import copy
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools import matrix, notebooks

from course_lib import blanks, sources

HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

"""
SOLUTION = HEADER + """\
# %% [markdown]
# # Exercises

# %%
import os

# %% tags=["exercise:pair"]
class Pair:
    def both(self):
        ### BEGIN SOLUTION
        return 1, 2
        ### END SOLUTION

    def size(self):
        return 2

# %% [markdown] tags=["solution-only"]
# Two numbers, since a pair has two.

# %% tags=["check:pair"]
Pair().both()

# %% tags=["exercise-only"]
print("Try it with three.")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source of a solution in an otherwise empty repository."""
    path = tmp_path / "solutions" / "source" / "04_pair.py"
    path.parent.mkdir(parents=True)
    path.write_text(SOLUTION)
    return path


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.reads(path.read_text(), as_version=4)


def write_in_first_answer(path: Path, text: str) -> str:
    """Do what a learner does in JupyterLab: replace the text of the answer cell; returns the file's new content."""
    notebook = read(path)
    index = blanks.answers(notebook)["pair"][0].index
    notebook.cells[index].source = text
    notebook.metadata.language_info.version = "3.11.0"
    nbformat.write(notebook, path)
    return path.read_text()


# Solutions become blanks


def test_the_answer_is_replaced_at_its_own_indentation():
    stripped = blanks.strip_solution(SOLUTION.split("# %% ")[2])
    assert "        # YOUR CODE HERE\n        raise NotImplementedError\n\n    def size" in stripped
    assert "1, 2" not in stripped and "SOLUTION" not in stripped
    compile(stripped.partition("\n")[2], "blank", "exec")


@pytest.mark.parametrize(("source", "message"), [
    ("x = 1\n### BEGIN SOLUTION\ny = 2", r"line 2: '### BEGIN SOLUTION' has no"),
    ("x = 1\n### END SOLUTION", r"line 2: '### END SOLUTION' without"),
    ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "line 2: .* inside the solution that begins"),
    ("## begin solution\ny = 2\n### END SOLUTION", "line 1: '## begin solution' is not a marker"),
    ("### BEGIN SOLUTION\ny = 2\n### END SOLUTIONS", "line 1: .* has no"),
    ("### BEGIN SOLUTION here\ny = 2\n### END SOLUTION", "line 1: .* is not a marker"),
])
def test_a_misplaced_marker_is_named(source, message):
    with pytest.raises(blanks.MarkerError, match=message):
        blanks.strip_solution(source)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 4)), max_size=8))
def test_no_line_of_an_answer_survives_and_no_other_line_is_lost(blocks):
    given_lines, expected = [], []
    for number, (is_answer, indent, length) in enumerate(blocks):
        pad = " " * indent
        body = [f"{pad}{'secret' if is_answer else 'shown'}_{number}_{line}" for line in range(length)]
        if is_answer:
            given_lines += [pad + blanks.BEGIN, *body, pad + blanks.END]
            expected += [pad + "# YOUR CODE HERE", pad + "raise NotImplementedError"]
        else:
            given_lines += body
            expected += body
    assert blanks.strip_solution("\n".join(given_lines)) == "\n".join(expected)


def test_cells_go_where_their_tags_say(source):
    solution, exercise = sources.executed_form(source), sources.exercise_form(source)
    assert "Try it" not in str(solution.cells) and "Two numbers" in str(solution.cells)
    assert "Try it" in str(exercise.cells) and "Two numbers" not in str(exercise.cells)
    assert [answer.untouched for answer in blanks.answers(exercise)["pair"]] == [True]
    assert [answer.untouched for answer in blanks.answers(solution)["pair"]] == [False]


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"check:pair"', '"check:pear"', "'check:pear', but no cell above"),
    ('"check:pair"', '"other"', "no cell tagged 'check:pair' follows"),
    ("### END SOLUTION", "pass", r"code cell 3 of the exercise \('class Pair:'\): line 3: .* has no"),
])
def test_a_fault_in_a_solution_is_told_and_nothing_is_written(source, old, new, message):
    source.write_text(SOLUTION.replace(old, new))
    with pytest.raises(notebooks.BuildError, match=message):
        notebooks.build(source)
    assert list(source.parent.parent.glob("*.ipynb")) == []


# Building


def test_building_twice_changes_no_byte_and_force_executes_again(source):
    first = {built.path: (built.done, built.path.read_bytes()) for built in notebooks.build(source)}
    assert [done for done, _ in first.values()] == ["written", "written"]
    again = notebooks.build(source)
    assert [(built.done, built.seconds) for built in again] == [("unchanged", None)] * 2
    forced = notebooks.build(source, force=True)
    assert forced[0].seconds is not None
    assert all(path.read_bytes() == content for path, (_, content) in first.items())

    solution = read(notebooks.target_of(source))
    assert solution.cells[-1].outputs[0].data == {"text/plain": "(1, 2)"}
    assert set(solution.metadata) == {"course", "kernelspec", "language_info"}


def test_equal_cells_have_ids_of_their_own_that_are_the_same_in_every_build(source):
    source.write_text(HEADER + "# %%\n1\n\n# %%\n1\n\n# %% [markdown]\n# 1\n")
    ids = [cell.id for cell in sources.executed_form(source).cells]
    assert len(set(ids)) == 3
    assert ids == [cell.id for cell in sources.executed_form(source).cells]


def test_a_change_of_the_text_is_executed_and_what_jupyter_added_is_cleaned_away(source):
    notebooks.build(source)
    path = notebooks.target_of(source)
    clean = path.read_bytes()
    touched = read(path)
    touched.metadata.widgets = {}
    touched.cells[1].metadata["execution"] = {"iopub.execute_input": "2001-01-01T00:00:00Z"}
    nbformat.write(touched, path)
    assert notebooks.build(source)[0] == notebooks.Built(path, "written", None)
    assert path.read_bytes() == clean

    source.write_text(SOLUTION.replace("return 1, 2", "return 3, 4"))
    assert notebooks.build(source)[0].seconds is not None
    assert read(path).cells[-1].outputs[0].data == {"text/plain": "(3, 4)"}


def test_a_cell_run_out_of_order_is_executed_again(source):
    notebooks.build(source)
    path = notebooks.target_of(source)
    notebook = read(path)
    notebook.cells[1].execution_count = 9
    nbformat.write(notebook, path)
    assert notebooks.build(source)[0].seconds is not None


def test_cells_run_in_the_folder_of_the_notebook_with_this_interpreter(source, tmp_path, monkeypatch):
    """A kernel that the user once registered under the same name, for another interpreter, is not taken."""
    other = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["another-python"], "display_name": "Other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(other.parent.parent.parent))
    source.write_text(HEADER + "# %%\nimport os, sys\nprint(os.getcwd(), sys.prefix, sep='\\n')\n")
    notebooks.build(source)
    output = read(notebooks.target_of(source)).cells[0].outputs[0].text.splitlines()
    assert output == [str(source.parent.parent.resolve()), sys.prefix]


CONTROLS = """\
# %%
import ipywidgets
from IPython.display import display

slider = ipywidgets.IntSlider(description="dots")
view = {"version_major": 2, "version_minor": 0, "model_id": slider.model_id}
data = {"application/vnd.jupyter.widget-view+json": view, "image/png": b"One dot.", "text/plain": "One dot."}
display(data, raw=True)
"""


def test_controls_are_stored_as_their_picture_which_passes_the_strict_comparison(source):
    source.write_text(HEADER + CONTROLS)
    notebooks.build(source)
    path = notebooks.target_of(source)
    stored, built = path.read_bytes(), read(path)
    assert "widgets" not in built.metadata
    assert [set(output.data) for output in built.cells[0].outputs] == [{"image/png", "text/plain"}]

    # JupyterLab saves the view too; the next build, which has no reason to execute the notebook, drops it.
    built.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"] = {"model_id": "gone"}
    nbformat.write(built, path)
    assert notebooks.build(source)[0] == notebooks.Built(path, "written", None)
    assert path.read_bytes() == stored

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_a_failing_cell_is_named_and_the_old_file_stays(source):
    notebooks.build(source)
    path, old = notebooks.target_of(source), notebooks.target_of(source).read_bytes()
    source.write_text(SOLUTION.replace("return 1, 2", "return 1 / 0"))
    with pytest.raises(notebooks.BuildError) as failure:
        notebooks.build(source)
    message = str(failure.value)
    assert "04_pair.ipynb: cell 5 failed, which begins with 'Pair().both()'" in message
    assert "ZeroDivisionError: division by zero" in message and "was left as it was" in message
    assert len(message.splitlines()) <= 5
    assert path.read_bytes() == old


@pytest.mark.parametrize("failing", ["_write_bytes", "os.replace"])
def test_a_full_disk_is_one_sentence_and_loses_nothing(source, monkeypatch, failing):
    notebooks.build(source)
    folder = source.parent.parent
    before = {path.name: path.read_bytes() for path in folder.glob("*.ipynb*")}
    source.write_text(SOLUTION.replace("return 1, 2", "return 3, 4"))

    def full(path, *_):
        Path(path).write_bytes(b"{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources if failing == "_write_bytes" else os, failing.removeprefix("os."), full)
    with pytest.raises(notebooks.BuildError, match=r"not be written \(No space left on device\); the old file was"):
        notebooks.build(source)
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb*")} == before


# A learner's work


def test_work_in_an_exercise_is_kept_and_told(source, monkeypatch, capsys):
    notebooks.build(source)
    path = notebooks.exercise_of(source)
    assert not blanks.holds_work(path)
    work = write_in_first_answer(path, "class Pair:\n    def both(self):\n        return 5, 6")
    assert blanks.holds_work(path)
    assert not blanks.answers(json.loads(work))["pair"][0].untouched

    source.write_text(SOLUTION.replace("# # Exercises", "# # Exercises, revised"))
    monkeypatch.setattr(notebooks, "sources", lambda: [source])
    assert notebooks.main(["--force"]) == 0
    assert path.read_text() == work
    assert "04_pair.ipynb holds your work and was left as it was." in capsys.readouterr().err


def test_a_note_or_a_new_cell_is_work_but_running_the_blank_is_not(source):
    notebooks.build(source)
    path = notebooks.exercise_of(source)
    blank = read(path)
    blank.cells[1].outputs = [nbformat.v4.new_output("stream", text="3\n")]
    blank.cells.append(nbformat.v4.new_code_cell(""))
    assert blanks.is_as_generated(blank)
    blank.cells[-1].source = "1 + 1"
    assert not blanks.is_as_generated(blank)
    del blank.cells[-1]
    blank.cells[0].source += "\nMy note."
    assert not blanks.is_as_generated(blank)


def test_the_hash_does_not_depend_on_how_json_holds_the_text():
    """On disk a cell's text is a list of lines, in memory a string."""
    notebook = blanks.mark_generated({"cells": [{"cell_type": "code", "metadata": {}, "source": "a\nb"}]})
    split = copy.deepcopy(notebook)
    split["cells"][0]["source"] = ["a\n", "b"]
    assert blanks.is_as_generated(json.loads(json.dumps(split)))


@pytest.mark.parametrize("content", [
    "", "not JSON", "[]", "{}", '{"cells": 3}', '{"cells": [{}], "nbformat": 4, "nbformat_minor": 5}',
    '{"cells": [], "metadata": {}, "nbformat": 99, "nbformat_minor": 0}'])
def test_what_cannot_be_read_may_be_work(source, content):
    path = notebooks.exercise_of(source)
    path.parent.mkdir()
    path.write_text(content)
    assert notebooks.build(source)[1] == notebooks.Built(path, "kept")
    assert path.read_text() == content


def test_a_notebook_edited_in_place_is_kept_and_fails_the_build(source, monkeypatch, capsys):
    notebooks.build(source)
    path = notebooks.target_of(source)
    work = write_in_first_answer(path, "class Pair: ...")
    monkeypatch.setattr(notebooks, "sources", lambda: [source])
    assert notebooks.main([]) == 1
    assert path.read_text() == work
    assert "comes from solutions/source/04_pair.py" in capsys.readouterr().err


def test_an_unknown_topic_is_answered_with_the_known_ones(source, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "sources", lambda: [source])
    with pytest.raises(SystemExit) as stop:
        notebooks.main(["04_pear"])
    assert stop.value.code == 2
    assert "there is no notebook called '04_pear'; choose from 04_pair" in capsys.readouterr().err


# The matrix


@pytest.mark.parametrize(("best", "expected"), [
    ("DEFAULT", ("default",)), ("AVX2", ("default", "avx2")), ("AVX512", ("default", "avx2", "avx512")),
    ("SVE256", ("default",))])
def test_only_instruction_sets_of_this_processor_are_run(monkeypatch, best, expected):
    """Torch would obey ATEN_CPU_CAPABILITY=avx512 on a processor without it, and be killed."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=best + "\n"))
    assert matrix.supported() == expected


# The Makefile

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
FAKE_PYTHON = """\
#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/course ;;
  *"$FAILS"*) exit 1 ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Run make in a folder with a space in its name, with a Python that only writes down how it was called."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(notebooks.ROOT / name, folder)
    python = tmp_path / "fake python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)

    def run(*arguments: str, fails: str = "nothing") -> tuple[subprocess.CompletedProcess, list[str]]:
        log = tmp_path / "log"
        log.write_text("")
        inherited = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        result = subprocess.run(["make", f"PYTHON={python}", *arguments], cwd=folder, capture_output=True, text=True,
                                env=inherited | {"LOG": str(log), "FAILS": fails})
        return result, log.read_text().splitlines()

    return run


@needs_make
def test_an_interrupted_install_is_begun_again_and_a_finished_one_is_not(make):
    result, calls = make("lab", fails="-m pip install")
    assert result.returncode != 0 and calls[-1].startswith("-m pip install")
    result, calls = make("lab", "LAB_ARGS=--no-browser", "PIP_ARGS=--retries 9")
    assert result.returncode == 0
    assert [call for call in calls if "-m pip install" in call] == [
        "-m pip install --disable-pip-version-check --retries 9 -c constraints.txt -e .[lab]"]
    assert calls[-1] == "lab --no-browser"
    result, calls = make("lab")
    assert calls == ["lab"]


@needs_make
def test_the_test_environment_serves_the_lab_too(make):
    make("test")
    _, calls = make("lab")
    assert calls == ["lab"]


@needs_make
@pytest.mark.parametrize(("fails", "sentence"), [
    ("version_info", "This course needs Python 3.11 or newer"), ("ensurepip", "comes without venv or ensurepip")])
def test_an_unfit_python_is_answered_with_a_sentence(make, fails, sentence):
    result, calls = make("lab", fails=fails)
    assert result.returncode != 0 and sentence in result.stderr
    assert not [call for call in calls if "-m venv" in call]


@needs_make
def test_make_test_validates_notebooks_and_solutions_strictly_and_no_exercise():
    command = subprocess.run(["make", "-n", "test"], cwd=notebooks.ROOT, capture_output=True, text=True).stdout
    line = next(line for line in command.splitlines() if "-m pytest" in line)
    assert "--nbval " in line and "lax" not in line and "exercises/" not in line
    assert {word for word in line.split() if word.endswith(".ipynb")} == {
        notebooks.target_of(source).relative_to(notebooks.ROOT).as_posix() for source in notebooks.sources()}
