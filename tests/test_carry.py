"""What a learner wrote survives an update of the course: notebooks merged as data, and by git in real repositories."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import blanks, carry, sources

ROOT = Path(__file__).resolve().parent.parent
TEXT = """\
# %% [markdown]
# # Exercises: pairs

# %%
from course_lib.checks import check

# %% [markdown]
# ## 1. Both

# %% tags=["exercise:both"]
def both():
    ### BEGIN SOLUTION
    return 1, 2
    ### END SOLUTION

# %% tags=["check:both"]
check("both", both)

# %% [markdown]
# ## 2. One

# %% tags=["exercise:one"]
def one():
    ### BEGIN SOLUTION
    return 1
    ### END SOLUTION

# %% tags=["check:one"]
check("one", one)
"""
THIRD = """
# %% [markdown]
# ## 3. None

# %% tags=["exercise:none"]
def none():
    ### BEGIN SOLUTION
    return None
    ### END SOLUTION

# %% tags=["check:none"]
check("none", none)
"""
NEWER = {
    "prose": TEXT.replace("## 1. Both", "## 1. Both of them\n#\n# A tuple."),
    "inserted before": TEXT.replace("# %% [markdown]\n# ## 1. Both", THIRD.lstrip() + "\n# %% [markdown]\n# ## 1. Both"),
    "appended": TEXT + THIRD,
    "the very blank": TEXT.replace("def both():", 'def both():\n    """Two numbers."""'),
    "setup": TEXT.replace("import check", "import check, hint"),
    "moved": TEXT.replace("both", "zz").replace("one", "both").replace("zz", "one"),
}
ANSWER = "def both():\n    return (1, 2)"


def blank(text: str, tmp_path: Path) -> nbformat.NotebookNode:
    source = tmp_path / "solutions" / "source" / "01_pair.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text, encoding="utf-8")
    return sources.exercise_form(source)


def worked(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook after a learner's evening: one answer, one cell of their own behind its check, one changed cell."""
    mine = copy.deepcopy(notebook)
    answer = cell_of(mine, "both")
    answer.source, answer.execution_count = ANSWER, 3
    answer.outputs = [nbformat.v4.new_output("stream", text="mine\n")]
    after = next(i for i, cell in enumerate(mine.cells) if cell is answer) + 2
    mine.cells.insert(after, nbformat.v4.new_code_cell("print(both())", id="a-cell-of-mine"))
    mine.cells[1].source += "\nimport math"
    return mine


def cell_of(notebook: nbformat.NotebookNode, exercise: str) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if f"exercise:{exercise}" in blanks.cell_tags(cell))


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


@pytest.mark.parametrize("change", NEWER)
@pytest.mark.parametrize("order", ["one is mine", "other is mine"])
def test_answers_and_own_cells_come_along_whatever_the_course_changed(tmp_path, change, order):
    base, course = blank(TEXT, tmp_path), blank(NEWER[change], tmp_path)
    mine = worked(base)
    sides = (mine, course) if order == "one is mine" else (course, mine)
    merged, learner = carry.merge(base, *sides)
    merged = nbformat.from_dict(merged)
    nbformat.validate(merged)
    assert learner is mine
    assert cell_of(merged, "both").source == ANSWER and cell_of(merged, "both").outputs[0].text == "mine\n"
    assert "print(both())" in texts(merged)
    assert any(text.endswith("import math") for text in texts(merged))
    for text in texts(course):       # every cell of the new course is there, but for those the learner wrote over
        assert text in texts(merged) or "def both" in text or text == base.cells[1].source
    found = blanks.answers(merged)
    assert not found["both"][0].untouched and found["one"][0].untouched
    assert not blanks.is_as_generated(merged)


def test_the_own_cell_stays_behind_the_cell_it_followed(tmp_path):
    base, course = blank(TEXT, tmp_path), blank(NEWER["inserted before"], tmp_path)
    merged, _ = carry.merge(base, worked(base), course)
    lines = [blanks.cell_source(cell) for cell in merged["cells"]]
    assert lines.index("print(both())") == lines.index('check("both", both)') + 1


def test_an_exercise_that_is_gone_leaves_its_answer_as_a_cell(tmp_path):
    base = blank(TEXT, tmp_path)
    without = TEXT[:TEXT.index("# %% [markdown]\n# ## 1")] + TEXT[TEXT.index("# %% [markdown]\n# ## 2"):]
    merged, _ = carry.merge(base, worked(base), blank(without, tmp_path))
    assert "both" not in blanks.answers(merged)
    assert ANSWER in [blanks.cell_source(cell) for cell in merged["cells"]]


def test_a_notebook_that_was_only_run_gives_way(tmp_path):
    base, course = blank(TEXT, tmp_path), blank(NEWER["prose"], tmp_path)
    run = copy.deepcopy(base)
    run.cells[1].execution_count = 7
    assert carry.merge(base, run, course) == (course, None)
    assert carry.merge(base, course, run) == (course, None)


def test_two_versions_with_work_are_left_to_the_learner(tmp_path):
    base = blank(TEXT, tmp_path)
    other = worked(base)
    cell_of(other, "one").source = "def one():\n    return 1"
    with pytest.raises(carry.NotClear):
        carry.merge(base, worked(base), other)


def test_other_ids_are_recognised_by_their_text(tmp_path):
    """Colab and others write ids of their own."""
    base, course = blank(TEXT, tmp_path), blank(NEWER["prose"], tmp_path)
    mine = worked(base)
    for number, cell in enumerate(mine.cells):
        cell.id = f"other-{number}"
    merged, _ = carry.merge(base, mine, course)
    assert len(merged["cells"]) == len(course.cells) + 2      # the own cell, and the changed one, whose id is new
    assert cell_of(nbformat.from_dict(merged), "both").source == ANSWER


def notebook_of(cells: list[str]) -> dict:
    """A generated notebook whose cells say these words; a capital letter is an answer to the exercise of its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    for cell in notebook.cells:
        if cell.source.isupper():
            cell.metadata.tags = [f"exercise:{cell.source.lower()}"]
    notebook.metadata.course = {}
    return sources.finish(blanks.mark_generated(notebook))


CELLS = st.lists(st.sampled_from(["a", "b", "c", "A", "B", "d", "e"]), max_size=6, unique=True)


@given(CELLS, CELLS, st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["write", "add", "delete"]))))
def test_no_sequence_of_changes_loses_a_cell(before, after, work):
    base, course = notebook_of(before), notebook_of(after)
    mine = copy.deepcopy(base)
    for number, (index, what) in enumerate(work):
        index = min(index, len(mine.cells))
        if what == "add":
            mine.cells.insert(index, nbformat.v4.new_code_cell(f"mine {number}", id=f"mine-{number}"))
        elif index < len(mine.cells):
            if what == "write":
                mine.cells[index].source = f"written {number}"
            else:
                del mine.cells[index]
    merged = nbformat.from_dict(carry.merge(base, course, mine)[0])
    nbformat.validate(merged)
    own = [text for text in texts(mine) if text not in before]
    assert all(texts(merged).count(text) == 1 for text in own)
    kept = {blanks.cell_tags(cell)[0]: cell.source for cell in mine.cells
            if blanks.cell_tags(cell) and cell.source in own}
    for cell in course.cells if after != before else ():
        tag = (blanks.cell_tags(cell) or [None])[0]
        written_over = cell.id in [c.id for c in mine.cells if c.source in own]
        assert cell.source in texts(merged) or tag in kept or written_over
    for cell in merged.cells:
        if cell.metadata.get("tags") and blanks.cell_tags(cell)[0] in kept:
            assert cell.source == kept[blanks.cell_tags(cell)[0]]


def test_copies_never_replace_each_other(tmp_path):
    path = tmp_path / "01_pair.ipynb"
    copies = {carry.keep(path, str(number).encode()) for number in range(5)}
    assert len(copies) == 5 and {copy_of.read_text() for copy_of in copies} == set("01234")


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str, code: int = 0) -> str:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        clean |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_MERGE_AUTOEDIT": "no",
                  "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
        for who in ("AUTHOR", "COMMITTER"):
            clean |= {f"GIT_{who}_NAME": "Somebody", f"GIT_{who}_EMAIL": "somebody@example.org"}
        run = subprocess.run(["git", *arguments], cwd=self.path, env=clean, capture_output=True, text=True)
        assert run.returncode == code, run.stdout + run.stderr
        return run.stdout + run.stderr

    def write(self, name: str, notebook: nbformat.NotebookNode) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(sources.as_text(notebook), encoding="utf-8")

    def read(self, name: str) -> nbformat.NotebookNode:
        notebook = nbformat.read(self.path / name, as_version=4)
        nbformat.validate(notebook)
        return notebook

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)


EXERCISE = "exercises/01_pair.ipynb"


@pytest.fixture
def course(tmp_path: Path) -> Repository:
    """The course's repository, with one exercise."""
    (tmp_path / "course").mkdir()
    course = Repository(tmp_path / "course")
    course.git("init", "-q", "-b", "main")
    for name in (".gitattributes", ".gitignore"):
        shutil.copy(ROOT / name, course.path / name)
    course.write(EXERCISE, blank(TEXT, tmp_path))
    course.commit("Begin")
    return course


@pytest.fixture
def clone(course: Repository, tmp_path: Path) -> Repository:
    """A learner's clone, on which `course lab` was called once."""
    course.git("clone", "-q", str(course.path), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone")
    carry.prepare(clone.path)
    return clone


def answers_of(repository: Repository) -> str:
    return cell_of(repository.read(EXERCISE), "both").source


@needs_git
@pytest.mark.parametrize("change", NEWER)
def test_git_pull_keeps_uncommitted_work(course, clone, tmp_path, change):
    clone.write(EXERCISE, worked(clone.read(EXERCISE)))
    before = (clone.path / EXERCISE).read_text()
    course.write(EXERCISE, blank(NEWER[change], tmp_path))
    course.commit("Move on")
    clone.git("pull", "-q")
    assert answers_of(clone) == ANSWER
    assert clone.git("diff", "--name-only", "--diff-filter=U") == ""
    assert clone.git("stash", "list") == ""
    assert clone.git("log", "-1", "--format=%s").strip() == "Move on"
    kept = list((clone.path / "exercises" / "kept").iterdir())
    assert [nbformat.reads(path.read_text(), 4) for path in kept] == [nbformat.reads(before, 4)]
    assert clone.git("status", "--porcelain").split() == ["M", EXERCISE]


@needs_git
def test_a_second_update_keeps_it_too(course, clone, tmp_path):
    clone.write(EXERCISE, worked(clone.read(EXERCISE)))
    for change, text in NEWER.items():
        course.write(EXERCISE, blank(text, tmp_path))
        course.commit(change)
        clone.git("pull", "-q")
        assert answers_of(clone) == ANSWER and "print(both())" in texts(clone.read(EXERCISE)), change


@needs_git
@pytest.mark.parametrize("how", ["--no-rebase", "--rebase"])
@pytest.mark.parametrize("change", NEWER)
def test_git_pull_keeps_committed_work(course, clone, tmp_path, how, change):
    clone.write(EXERCISE, worked(clone.read(EXERCISE)))
    clone.commit("My answers")
    course.write(EXERCISE, blank(NEWER[change], tmp_path))
    course.commit("Move on")
    clone.git("pull", "-q", how)
    assert answers_of(clone) == ANSWER and clone.git("status", "--porcelain") == ""
    assert "Move on" in clone.git("log", "--format=%s")


@needs_git
def test_a_notebook_that_was_only_run_does_not_stop_an_update(course, clone, tmp_path):
    run = clone.read(EXERCISE)
    run.cells[1].execution_count = 1
    clone.write(EXERCISE, run)
    new = blank(NEWER["prose"], tmp_path)
    course.write(EXERCISE, new)
    course.commit("Move on")
    clone.git("pull", "-q")
    assert clone.read(EXERCISE) == new


@needs_git
@pytest.mark.parametrize("trouble", ["never prepared", "interpreter gone", "damaged file"])
def test_where_the_merge_cannot_run_git_loses_nothing(course, clone, tmp_path, trouble):
    work = sources.as_text(worked(clone.read(EXERCISE)))
    if trouble == "damaged file":
        work = work[: len(work) // 2]
    if trouble == "never prepared":
        for key in ("merge.course.driver", "merge.course.name", "merge.autoStash"):
            clone.git("config", "--unset", key)
    if trouble == "interpreter gone":
        clone.git("config", "merge.course.driver", "no-such-python -m course_lib.carry %O %A %B %P")
    (clone.path / EXERCISE).write_text(work, encoding="utf-8")
    course.write(EXERCISE, blank(NEWER["the very blank"], tmp_path))
    course.commit("Move on")
    clone.git("pull", "-q", code=1 if trouble == "never prepared" else 0)
    if trouble == "never prepared":
        assert (clone.path / EXERCISE).read_text(encoding="utf-8") == work
    else:
        assert clone.git("show", f"stash@{{0}}:{EXERCISE}") == work


@needs_git
def test_preparing_twice_writes_once_and_respects_a_setting_of_the_learner(clone):
    clone.git("config", "merge.autoStash", "false")
    before = (clone.path / ".git" / "config").read_text()
    carry.prepare(clone.path)
    assert (clone.path / ".git" / "config").read_text() == before
    assert f"{sys.executable} -m course_lib.carry" in before


def test_outside_a_clone_nothing_is_prepared(tmp_path):
    carry.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
