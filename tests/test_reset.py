"""`course reset`: the blank is back, the copy is there, and nothing else has changed."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from course_lib import blanks, cli, sources
from course_lib.checks import EXERCISES
from course_lib.reset import CannotReset, reset

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "05_adamw"
OURS = [exercise.id for exercise in EXERCISES.values() if exercise.notebook == TOPIC]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course's folder with one exercise notebook, every answer of it written in."""
    (tmp_path / "solutions" / "source").mkdir(parents=True)
    (tmp_path / "exercises").mkdir()
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "solutions" / "source" / f"{TOPIC}.py", tmp_path / "solutions" / "source")
    notebook = fresh(tmp_path)
    for cell in notebook.cells:
        if any(tag.startswith("exercise:") for tag in blanks.cell_tags(cell)):
            cell.source += "\n# mine"
            cell.execution_count = 3
    notebook.cells.append(nbformat.v4.new_code_cell("print('mine')"))
    path_of(tmp_path).write_text(sources.as_text(notebook), encoding="utf-8")
    return tmp_path


def fresh(course: Path) -> nbformat.NotebookNode:
    return sources.exercise_form(course / "solutions" / "source" / f"{TOPIC}.py")


def path_of(course: Path) -> Path:
    return course / "exercises" / f"{TOPIC}.ipynb"


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("exercise", OURS)
def test_only_the_answer_becomes_blank_and_a_copy_is_kept(course, exercise):
    before = path_of(course).read_bytes()
    outcome = reset(exercise, course)
    assert outcome.copy.read_bytes() == before
    assert outcome.copy.parent == path_of(course).parent / "kept"
    old, new = nbformat.reads(before.decode(), 4), read(path_of(course))
    assert all(answer.untouched for answer in blanks.answers(new)[exercise])
    blank = {cell.id: cell for cell in fresh(course).cells}
    for was, now in zip(old.cells, new.cells, strict=True):
        if {f"exercise:{exercise}", f"check:{exercise}"} & set(blanks.cell_tags(was)):
            assert now == blank[was.id]
        else:
            assert now == was


@pytest.mark.parametrize("exercise", OURS)
def test_a_blank_is_left_alone(course, exercise):
    reset(exercise, course)
    before, copies = path_of(course).read_bytes(), list(path_of(course).parent.joinpath("kept").iterdir())
    outcome = reset(exercise, course)
    assert outcome.copy is None and "already" in outcome.done
    assert path_of(course).read_bytes() == before
    assert list(path_of(course).parent.joinpath("kept").iterdir()) == copies


@pytest.mark.parametrize("exercise", OURS)
@pytest.mark.parametrize("lost", ["answer", "check", "both", "everything before"])
def test_a_deleted_cell_is_put_back_where_it_was(course, exercise, lost):
    notebook = read(path_of(course))
    mine = [index for index, cell in enumerate(notebook.cells)
            if {f"exercise:{exercise}", f"check:{exercise}"} & set(blanks.cell_tags(cell))]
    gone = {"answer": mine[:1], "check": mine[1:], "both": mine, "everything before": range(mine[-1] + 1)}[lost]
    notebook.cells = [cell for index, cell in enumerate(notebook.cells) if index not in gone]
    path_of(course).write_text(sources.as_text(notebook), encoding="utf-8")
    reset(exercise, course)
    new = read(path_of(course))
    ids = [cell.id for cell in new.cells]
    wanted = [cell.id for cell in fresh(course).cells
              if {f"exercise:{exercise}", f"check:{exercise}"} & set(blanks.cell_tags(cell))]
    assert [name for name in ids if name in wanted] == wanted
    if lost != "everything before":
        assert [ids.index(name) for name in wanted] == mine
    assert new.cells[-1].source == "print('mine')" or lost == "everything before"


def test_a_split_answer_becomes_one_blank(course):
    notebook = read(path_of(course))
    index = next(i for i, cell in enumerate(notebook.cells) if "exercise:adamw" in blanks.cell_tags(cell))
    second = copy.deepcopy(notebook.cells[index])
    second.id, second.source = "second-half", "# the rest"
    notebook.cells.insert(index + 1, second)
    path_of(course).write_text(sources.as_text(notebook), encoding="utf-8")
    reset("adamw", course)
    assert [answer.untouched for answer in blanks.answers(read(path_of(course)))["adamw"]] == [True]


def test_a_missing_notebook_is_written_anew(course):
    path_of(course).unlink()
    outcome = reset("adamw", course)
    assert outcome.copy is None and read(path_of(course)) == fresh(course)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{}]}', "\xff"])
def test_a_damaged_notebook_is_kept_and_written_anew(course, text):
    path_of(course).write_bytes(text.encode("latin-1"))
    outcome = reset("adamw", course)
    assert outcome.copy.read_bytes() == text.encode("latin-1")
    assert read(path_of(course)) == fresh(course)


def test_without_the_source_nothing_changes(course):
    (course / "solutions" / "source" / f"{TOPIC}.py").unlink()
    before = path_of(course).read_bytes()
    with pytest.raises(CannotReset, match="git checkout"):
        reset("adamw", course)
    assert path_of(course).read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_where_nothing_can_be_written_it_says_so(course, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = path_of(course).read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CannotReset, match="No space left on device"):
        reset("adamw", course)
    assert path_of(course).read_bytes() == before
    assert [path.name for path in path_of(course).parent.iterdir() if path.suffix == ".part"] == []


def test_the_command_names_the_copy(course, monkeypatch):
    monkeypatch.setattr(cli, "course_folder", lambda: course)
    monkeypatch.chdir(course)
    run = CliRunner().invoke(cli.app, ["reset", "adamw"])
    assert run.exit_code == 0, run.output
    (kept,) = path_of(course).parent.joinpath("kept").iterdir()
    assert f"exercises/kept/{kept.name}" in run.stdout and "Reload" in run.stdout
    assert all(answer.untouched for answer in blanks.answers(read(path_of(course)))["adamw"])


def test_the_command_knows_no_other_exercise(course, monkeypatch):
    monkeypatch.setattr(cli, "course_folder", lambda: course)
    run = CliRunner().invoke(cli.app, ["reset", "adamv"])
    assert run.exit_code == 2 and "Did you mean" in run.stderr


def test_the_command_tells_what_is_in_the_way(course, monkeypatch):
    monkeypatch.setattr(cli, "course_folder", lambda: course)
    (course / "solutions" / "source" / f"{TOPIC}.py").unlink()
    run = CliRunner().invoke(cli.app, ["reset", "adamw"])
    assert run.exit_code == 2 and "git checkout" in run.stderr
