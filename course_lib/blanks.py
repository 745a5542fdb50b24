"""Exercise notebooks as data: how a blank is cut from its solution, and whether a learner has written in it.

Works on notebooks as plain dictionaries in nbformat 4.5 (a `nbformat.NotebookNode` is one) and needs the standard
library only. Three tags carry the meaning of a cell:

- `exercise:<id>`: an answer cell of exercise `<id>`; `check:<id>`: a cell that checks it.
- `solution-only`: left out of the exercise (explanations, reference outputs).
- `exercise-only`: left out of the solution (a bug to find, a hint for the learner).

In a code cell, the lines from `### BEGIN SOLUTION` to `### END SOLUTION` (the markers of nbgrader) are the answer.

What is generated carries hashes of itself: `metadata.course.generated` of a notebook covers all its cells,
`metadata.course.blank` of an answer cell covers this cell. Where a hash no longer fits, someone has been at work.
"""

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"
REPLACEMENT = ("# YOUR CODE HERE", "raise NotImplementedError")

_LOOKS_LIKE_MARKER = re.compile(r"^\s*#.*\b(BEGIN|END)\s*_?SOLUTION\b", re.IGNORECASE)


class MarkerError(ValueError):
    """A solution marker or an exercise tag is misplaced; the message says which and what to do."""


@dataclass(frozen=True)
class Answer:
    """One answer cell of an exercise notebook.

    index: position of the cell in `notebook["cells"]`. source: its text. untouched: it still is the generated blank.
    """

    index: int
    source: str
    untouched: bool


def cell_source(cell: Mapping[str, Any]) -> str:
    """The text of a cell; on disk nbformat allows a list of lines where a string is meant."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def cell_tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell, in order."""
    return list(cell.get("metadata", {}).get("tags", []))


def strip_solution(source: str) -> str:
    """Replace each solution in the text of a code cell by `raise NotImplementedError` at the marker's indentation.

    Raises MarkerError for a marker without its partner, nested markers, or a line that is nearly a marker (an answer
    must not reach the learner because of a typo).
    """
    kept: list[str] = []
    opened_at: int | None = None
    for number, line in enumerate(source.splitlines(), start=1):
        marker = line.strip()
        if marker == BEGIN:
            if opened_at is not None:
                raise MarkerError(f"line {number}: '{BEGIN}' inside the solution that begins in line {opened_at}; "
                                  f"end that one first with '{END}'")
            opened_at = number
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + text for text in REPLACEMENT]
        elif marker == END:
            if opened_at is None:
                raise MarkerError(f"line {number}: '{END}' without a '{BEGIN}' above it")
            opened_at = None
        elif _LOOKS_LIKE_MARKER.match(line):
            raise MarkerError(f"line {number}: {marker!r} is not a marker; write exactly '{BEGIN}' or '{END}'")
        elif opened_at is None:
            kept.append(line)
    if opened_at is not None:
        raise MarkerError(f"line {opened_at}: '{BEGIN}' has no '{END}' below it")
    return "\n".join(kept)


def blank_hash(source: str) -> str:
    """Hash of a cell's text that spaces at line ends and empty lines around it do not change."""
    text = "\n".join(line.rstrip() for line in source.strip("\n").splitlines())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def notebook_hash(notebook: Mapping[str, Any]) -> str:
    """Hash over kind and text of all cells but empty ones: JupyterLab appends one when the last cell is run."""
    parts = [f"{cell['cell_type']}:{blank_hash(cell_source(cell))}"
             for cell in notebook["cells"] if cell_source(cell).strip()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def solution_notebook(written: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook with answers: a copy of what was written without its `exercise-only` cells and without markers."""
    notebook = copy.deepcopy(dict(written))
    notebook["cells"] = [cell for cell in notebook["cells"] if "exercise-only" not in cell_tags(cell)]
    for cell in notebook["cells"]:
        lines = cell_source(cell).splitlines()
        cell["source"] = "\n".join(line for line in lines if line.strip() not in (BEGIN, END))
    _require_pairs(notebook)
    return notebook


def mark_generated(notebook: dict[str, Any]) -> dict[str, Any]:
    """Write the hash of the notebook's cells into its metadata, and return it."""
    notebook.setdefault("metadata", {}).setdefault("course", {})["generated"] = notebook_hash(notebook)
    return notebook


def exercise_notebook(written: Mapping[str, Any]) -> dict[str, Any]:
    """The blank: a copy without `solution-only` cells, answers and outputs, and with the hashes of itself.

    Raises MarkerError, naming the cell, where the markers or the tags of the exercises do not fit together.
    """
    notebook = copy.deepcopy(dict(written))
    notebook["cells"] = [cell for cell in notebook["cells"] if "solution-only" not in cell_tags(cell)]
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] != "code":
            continue
        cell["outputs"], cell["execution_count"] = [], None
        source = cell_source(cell)
        try:
            cell["source"] = strip_solution(source)
        except MarkerError as error:
            first = source.splitlines()[0]
            raise MarkerError(f"code cell {number} of the exercise ({first!r}): {error}") from None
        if _ids(cell, "exercise"):
            cell["metadata"].setdefault("course", {})["blank"] = blank_hash(cell["source"])
    _require_pairs(notebook)
    return mark_generated(notebook)


def answers(notebook: Mapping[str, Any]) -> dict[str, list[Answer]]:
    """The answer cells by exercise id, in the notebook's order; an id with no cell left is not in it.

    An answer cell without a hash (a solution's, or one that lost its metadata) counts as touched.
    """
    found: dict[str, list[Answer]] = {}
    for index, cell in enumerate(notebook["cells"]):
        for exercise in _ids(cell, "exercise"):
            source = cell_source(cell)
            blank = cell["metadata"].get("course", {}).get("blank")
            found.setdefault(exercise, []).append(Answer(index, source, blank == blank_hash(source)))
    return found


def is_as_generated(notebook: Mapping[str, Any]) -> bool:
    """True if every cell still has the text that was generated; outputs do not count, for they can be had again."""
    return notebook.get("metadata", {}).get("course", {}).get("generated") == notebook_hash(notebook)


def holds_work(path: str | Path) -> bool:
    """True unless the file is missing or certainly has the text that was generated.

    When in doubt (no hash, damaged JSON, not a notebook) the answer is True: what may be work is never overwritten.
    """
    path = Path(path)
    if not path.exists():
        return False
    try:
        return not is_as_generated(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def _ids(cell: Mapping[str, Any], kind: str) -> list[str]:
    return [tag.removeprefix(f"{kind}:") for tag in cell_tags(cell) if tag.startswith(f"{kind}:")]


def _require_pairs(notebook: Mapping[str, Any]) -> None:
    """Every answer cell is followed by a check of its exercise, and no check stands before its answer."""
    unchecked: dict[str, bool] = {}
    for cell in notebook["cells"]:
        for exercise in _ids(cell, "exercise"):
            unchecked[exercise] = True
        for exercise in _ids(cell, "check"):
            if exercise not in unchecked:
                raise MarkerError(f"a cell is tagged 'check:{exercise}', but no cell above it is tagged "
                                  f"'exercise:{exercise}'")
            unchecked[exercise] = False
    missing = [exercise for exercise, alone in unchecked.items() if alone]
    if missing:
        raise MarkerError(f"no cell tagged 'check:{missing[0]}' follows the one tagged 'exercise:{missing[0]}'")
