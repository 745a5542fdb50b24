"""Every stored notebook is in step with its text and passes the guards; every guard catches what it is there for."""

import base64
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from notebook_guards import faults, faults_of_metadata
from tools.notebooks import ROOT, exercise_of, sources, target_of

from course_lib import blanks
from course_lib.sources import as_text, executed_form, exercise_form, is_solution

SOURCES = sources()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> nbformat.NotebookNode:
    assert path.exists(), f"run `make notebooks`: {name(path)} is missing"
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, list(cell.metadata.get("tags", []))) for cell in notebook.cells]


def without_markers(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION"))


every_source = pytest.mark.parametrize("source", SOURCES, ids=name)
every_solution = pytest.mark.parametrize("source", [source for source in SOURCES if is_solution(source)], ids=name)


@every_source
def test_notebook_is_in_step_with_its_text(source):
    written = [cell for cell in cells(jupytext.read(source, fmt="py:percent")) if cell[1].strip()]
    expected = [(kind, without_markers(text), tags) for kind, text, tags in written if "exercise-only" not in tags]
    assert cells(read(target_of(source))) == expected, f"run `make notebooks`: {name(target_of(source))} is out of step"


@every_solution
def test_exercise_is_in_step_with_its_solution(source):
    path = exercise_of(source)
    assert path.exists(), f"run `make notebooks`: {name(path)} is missing"
    if blanks.holds_work(path):
        pytest.skip(f"{name(path)} holds work and is left alone")
    generated = as_text(exercise_form(source))
    assert path.read_text(encoding="utf-8") == generated, f"run `make notebooks`: {name(path)} is out of step"


@every_solution
def test_exercise_gives_no_answer_away(source):
    exercise = exercise_form(source)
    assert all("solution-only" not in cell.metadata.get("tags", []) for cell in exercise.cells)
    lines = [line for cell in exercise.cells for line in cell.source.splitlines()]
    assert not [line for line in lines if re.search(r"(BEGIN|END)\s*_?SOLUTION", line)]
    assert not [cell for cell in exercise.cells if cell.get("outputs")]
    assert blanks.answers(exercise), "an exercise notebook needs cells tagged exercise:<id>"
    assert list(faults_of_metadata(exercise)) == []


def test_every_notebook_has_a_text():
    expected = {target_of(source) for source in SOURCES} | {exercise_of(s) for s in SOURCES if is_solution(s)}
    stored = {path for folder in ("notebooks", "solutions", "exercises") for path in (ROOT / folder).glob("*.ipynb")
              if re.fullmatch(r"\d\d_[a-z_]+\.ipynb", path.name)}
    assert stored == expected


@every_source
def test_notebook_passes_the_guards(source):
    assert faults(read(target_of(source))) == []


def sound() -> nbformat.NotebookNode:
    """A notebook without a fault: four code cells, one of them with a figure, one whose output is ignored."""
    v4 = nbformat.v4
    png = base64.b64encode(b"\x89PNG").decode()
    notebook = v4.new_notebook(metadata={"kernelspec": {"display_name": "Python 3", "name": "python3"}})
    notebook.cells = [
        v4.new_code_cell("1 + 1", execution_count=1,
                         outputs=[v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)]),
        v4.new_code_cell("show(figure)", execution_count=2, outputs=[v4.new_output(
            "display_data", {"image/png": png, "text/plain": "Two lines cross."},
            metadata={"image/png": {"alt": "Two lines cross."}})]),
        v4.new_code_cell("print('a; b')  # half; of it", execution_count=3, outputs=[
            v4.new_output("stream", name="stdout", text="see https://example.org/home/x and ratio 1/2\n")]),
        v4.new_code_cell("assert measure() > 0", execution_count=4, metadata={"tags": ["nbval-ignore-output"]},
                         outputs=[v4.new_output("stream", name="stderr", text="0.1 s\n")]),
    ]
    return notebook


def clear_all(notebook):
    for cell in notebook.cells[:3]:
        cell.outputs = []


BREAK = {
    "metadata.widgets": lambda n: n.metadata.update(widgets={}),
    "metadata.kernelspec": lambda n: n.metadata.pop("kernelspec"),
    "not all executed": lambda n: n.cells[1].update(execution_count=None),
    "once and in order": lambda n: n.cells[1].update(execution_count=7),
    "holds an error": lambda n: n.cells[0].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="")),
    "output of another run": lambda n: n.cells[0].outputs[0].update(execution_count=9),
    "wrote to stderr": lambda n: n.cells[2].outputs[0].update(name="stderr"),
    "no cell has an output": clear_all,
    "more than a quarter": lambda n: n.cells[0].metadata.update(tags=["nbval-ignore-output"]),
    "asserts nothing": lambda n: n.cells[3].update(source="measure()  # assert"),
    "weakens the comparison": lambda n: n.cells[0].metadata.update(tags=["nbval-skip"]),
    "trailing ';' in line 2": lambda n: n.cells[0].update(source="x = 1; y = 2\nx;  # silent"),
    "trailing ';' in line 1": lambda n: n.cells[0].update(source="1 + 1;"),
    "cell 1 holds an absolute path": lambda n: n.cells[0].update(source="open('/home/someone/data')"),
    "cell 3 holds an absolute path": lambda n: n.cells[2].outputs[0].update(text="in /tmp/x\n"),
    "holds an SVG": lambda n: n.cells[1].outputs[0].data.update({"image/svg+xml": "<svg/>"}),
    "holds the view of a widget": lambda n: n.cells[1].outputs[0].data.update(
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}),
    "figure of 100000 bytes": lambda n: n.cells[1].outputs[0].data.update(
        {"image/png": base64.b64encode(bytes(100_000)).decode()}),
    "without alternative text": lambda n: n.cells[1].outputs[0].metadata.clear(),
    "not a description": lambda n: n.cells[1].outputs[0].data.update({"text/plain": "<Figure size 640x480>"}),
}


def test_a_sound_notebook_has_no_faults():
    assert faults(sound()) == []


@pytest.mark.parametrize("fault", BREAK)
def test_each_guard_catches_its_fault(fault):
    notebook = sound()
    BREAK[fault](notebook)
    found = faults(notebook)
    assert len(found) >= 1 and any(fault in sentence for sentence in found), found


@pytest.mark.parametrize("source", [source for source in SOURCES if is_solution(source)], ids=name)
def test_what_a_solution_checks_is_not_the_learners_progress(source):
    solution, exercise = executed_form(source), exercise_form(source)
    code = [cell.source for cell in solution.cells if cell.cell_type == "code"]
    assert code.index(next(text for text in code if "progress.pause()" in text)) < code.index(
        next(text for text in code if re.match(r"check\(", text)))
    assert not any("pause" in cell.source for cell in exercise.cells)
