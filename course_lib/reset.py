"""An exercise made blank again: the learner's notebook is copied aside first, and only the answer is replaced."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import blanks, carry, sources
from course_lib.checks.exercises import EXERCISES


class CannotReset(ValueError):
    """The exercise could not be reset; the message says why, and that nothing was changed."""


@dataclass(frozen=True)
class Reset:
    """What became of an exercise: the notebook it stands in, what was done (a sentence), the copy if one was made."""

    notebook: Path
    done: str
    copy: Path | None = None


def reset(exercise: str, root: Path) -> Reset:
    """Put the blank of ``exercise`` back into its notebook in the course's folder ``root``.

    Every other cell stays as it is. A cell that is missing is put back where the course has it; a notebook that is
    missing or cannot be read is written anew. What was there before is copied into the folder ``kept`` beside it.

    Raises:
        CannotReset: the solution's source is missing, or a file cannot be read or written.
    """
    topic = EXERCISES[exercise].notebook
    path, source = root / "exercises" / f"{topic}.ipynb", root / "solutions" / "source" / f"{topic}.py"
    try:
        fresh = sources.exercise_form(source)
    except FileNotFoundError:
        raise CannotReset(f"{source} is missing, from which the blank is made. In a clone, get it back with: "
                          f"git checkout -- solutions/source/{topic}.py") from None
    try:
        data = path.read_bytes() if path.exists() else None
        notebook = _read(data)
        if notebook is None:
            done = "was missing and is back, with all its blanks." if data is None else \
                "could not be read as a notebook and is new, with all its blanks."
            notebook = fresh
        elif not _make_blank(exercise, notebook, fresh):
            return Reset(path, f"holds the blank of {exercise} already; nothing was changed.")
        else:
            done = f"holds the blank of {exercise} again; the rest is as it was."
        copy = carry.keep(path, data) if data is not None else None
        sources.replace_file(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise CannotReset(f"{path} could not be reset ({error.strerror}); it is as it was.") from None
    return Reset(path, done, copy)


def _read(data: bytes | None) -> dict[str, Any] | None:
    """The notebook, or None where there is none or it cannot be read as one."""
    try:
        notebook = json.loads((data or b"").decode("utf-8"))
        for cell in notebook["cells"]:
            blanks.cell_source(cell).strip(), blanks.cell_tags(cell), cell["cell_type"], cell["metadata"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return notebook


def _make_blank(exercise: str, notebook: dict[str, Any], fresh: dict[str, Any]) -> bool:
    """Put the fresh cells of an exercise, answer and check, in place of the notebook's; False if they are there."""
    tags = {f"exercise:{exercise}", f"check:{exercise}"}
    cells = notebook["cells"]
    wanted = [cell for cell in fresh["cells"] if tags & set(blanks.cell_tags(cell))]
    there = [cell for cell in cells if tags & set(blanks.cell_tags(cell))]
    if [_said(cell) for cell in there] == [_said(cell) for cell in wanted]:
        return False
    place = _index(cells, there[0]) if there else _end_of(fresh["cells"][: fresh["cells"].index(wanted[0])], cells)
    for cell in wanted:
        old = next((old for old in there if blanks.cell_tags(old) == blanks.cell_tags(cell)), None)
        if old is None:
            cells.insert(place, cell)
        else:
            there.remove(old)
            place = _index(cells, old)
            cells[place] = cell
        place += 1
    notebook["cells"] = [cell for cell in cells if not any(cell is left for left in there)]
    return True


def _end_of(before: list[dict[str, Any]], cells: list[dict[str, Any]]) -> int:
    """The place in ``cells`` behind the last one of ``before`` that is among them; the end where none is."""
    ids = {cell["id"] for cell in before}
    known = [index for index, cell in enumerate(cells) if cell.get("id") in ids]
    return known[-1] + 1 if known else len(cells)


def _index(cells: list[dict[str, Any]], cell: dict[str, Any]) -> int:
    return next(index for index, here in enumerate(cells) if here is cell)


def _said(cell: dict[str, Any]) -> tuple[list[str], str]:
    return blanks.cell_tags(cell), blanks.blank_hash(blanks.cell_source(cell))
