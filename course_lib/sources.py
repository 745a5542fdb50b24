"""The notebooks' text: from a py:percent file to the notebook that it says, without outputs. Needs jupytext."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from course_lib import blanks, colab

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def is_solution(source: Path) -> bool:
    """True for the source of a solution, from which an exercise is cut."""
    return source.parent.parent.name == "solutions"


def read_source(source: Path) -> nbformat.NotebookNode:
    """The cells of a py:percent file, as a notebook without outputs; of the cells' metadata only the tags are kept."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {}
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    for cell in notebook.cells:
        cell.metadata = {"tags": list(cell.metadata.tags)} if cell.metadata.get("tags") else {}
    return notebook


def executed_form(source: Path) -> nbformat.NotebookNode:
    """The notebook or solution of a source, before it is executed. Raises blanks.MarkerError."""
    written = read_source(source)
    cells = blanks.solution_notebook(written) if is_solution(source) else written
    return _finish_for(source, cells, "solutions" if is_solution(source) else "notebooks")


def exercise_form(source: Path) -> nbformat.NotebookNode:
    """The blank that belongs to the source of a solution. Raises blanks.MarkerError."""
    return _finish_for(source, blanks.exercise_notebook(read_source(source)), "exercises")


def as_text(notebook: nbformat.NotebookNode) -> str:
    """The notebook as it stands on disk; raises nbformat.ValidationError if it is no valid notebook."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def _finish_for(source: Path, notebook: Mapping[str, Any], folder: str) -> nbformat.NotebookNode:
    """The notebook as it stands in its folder: where the course has an address, it can be opened in Colab."""
    if address := colab.repository(source.parents[2]):
        badge = colab.badge(address, f"{folder}/{source.stem}.ipynb")
        notebook = colab.with_first_cell(notebook, colab.cell_for_address(address), badge)
    return finish(blanks.mark_generated(dict(notebook)))


def replace_file(path: Path, data: bytes) -> None:
    """Write the file as a whole or not at all, and make its folder if there is none. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_bytes(part, data)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def finish(notebook: Mapping[str, Any]) -> nbformat.NotebookNode:
    """Make every build give the same bytes: ids that follow from the content, and no metadata but what is needed."""
    finished = nbformat.from_dict(notebook)
    finished.nbformat, finished.nbformat_minor = 4, 5
    finished.metadata = nbformat.from_dict({
        "course": finished.metadata.course, "kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    seen: dict[str, int] = {}
    for cell in finished.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        seen[content] = seen.get(content, 0) + 1
        cell.id = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:8]
        kept = {key: cell.metadata[key] for key in ("cellView", "course", "jupyter", "tags") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
    return finished
