"""Build the notebooks from their text: `python -m tools.notebooks [--force] [TOPIC ...]`.

- notebooks/source/NN_topic.py becomes notebooks/NN_topic.ipynb, executed.
- solutions/source/NN_topic.py becomes solutions/NN_topic.ipynb, executed, and exercises/NN_topic.ipynb, the blank.

A notebook is executed only when its cells differ from the text or were not all run in order, because timings, and so
the stored outputs, change with every run. What someone wrote into an .ipynb is never overwritten.
"""

import argparse
import dataclasses
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from course_lib import blanks
from course_lib.sources import as_text, executed_form, exercise_form, finish, is_solution, replace_file

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SECONDS_PER_NOTEBOOK = 60
SECONDS_PER_CELL = 600  # only stops what hangs; how long a cell may take is for its author to judge


class BuildError(Exception):
    """A notebook could not be built; the message says which, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Built:
    """What became of one file: `done` is "written", "unchanged" or "kept"; `seconds` is None if it was not executed."""

    path: Path
    done: str
    seconds: float | None = None


class _ThisInterpreter(AsyncKernelManager):
    """Starts the interpreter that runs this, whatever kernels the user has registered under the same name."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def sources(root: Path = ROOT) -> list[Path]:
    """The texts of all notebooks and solutions, in the order of the course."""
    folders = (root / "notebooks" / "source", root / "solutions" / "source")
    return [path for folder in folders for path in sorted(folder.glob("[0-9]*.py"))]


def target_of(source: Path) -> Path:
    """The executed notebook that belongs to a source."""
    return source.parent.parent / f"{source.stem}.ipynb"


def exercise_of(source: Path) -> Path:
    """The blank that belongs to the source of a solution."""
    return source.parent.parent.parent / "exercises" / f"{source.stem}.ipynb"


def same_cells(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if both notebooks have the same cells in kind, text and tags."""
    return _cells(one) == _cells(other)


def build(source: Path, force: bool = False) -> list[Built]:
    """Bring the files of one source up to date.

    Raises BuildError if a marker is misplaced, a cell fails, or a file cannot be written; what was there before stays
    as it was. A file that holds someone's work is kept and reported as "kept".
    """
    try:
        new = executed_form(source)
        exercise = exercise_form(source) if is_solution(source) else None
    except (blanks.MarkerError, SyntaxError, UnicodeDecodeError) as error:
        raise BuildError(f"{_name(source)}: {error}") from None
    results = [_build_executed(source, new, force)]
    if exercise is not None:
        path = exercise_of(source)
        if _is_someones(path, exercise):
            results.append(Built(path, "kept"))
        else:
            results.append(Built(path, _write(path, as_text(exercise))))
    return results


def main(arguments: list[str] | None = None) -> int:
    """Build what was asked for, all of it by default; the exit code is 1 if something could not be built."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Build notebooks from their text.")
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="such as 04_adam; all of them by default")
    parser.add_argument("--force", action="store_true", help="execute even what is up to date")
    options = parser.parse_args(arguments)
    known = sources()
    names = sorted({source.stem for source in known})
    for topic in options.topics:
        if topic not in names:
            parser.error(f"there is no notebook called {topic!r}; choose from {', '.join(names)}")
    failed = False
    for source in known:
        if options.topics and source.stem not in options.topics:
            continue
        try:
            results = build(source, options.force)
        except BuildError as error:
            _say(str(error))
            failed = True
            continue
        for built in results:
            _say(_sentence(built))
            failed = failed or (built.done == "kept" and built.path == target_of(source))
    return int(failed)


def _build_executed(source: Path, new: nbformat.NotebookNode, force: bool) -> Built:
    path = target_of(source)
    if _is_someones(path, new):
        return Built(path, "kept")
    old = _read(path)
    if old is not None and not force and same_cells(old, new) and _was_run(old):
        for cell, run in zip(new.cells, old["cells"], strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = run["outputs"], run["execution_count"]
        _drop_views(new)
        return Built(path, _write(path, as_text(new)))
    run, seconds = _execute(new, path)
    return Built(path, _write(path, as_text(run)), seconds)


def _execute(notebook: nbformat.NotebookNode, path: Path) -> tuple[nbformat.NotebookNode, float]:
    """Run all cells with this interpreter in the notebook's own folder; returns the result and the seconds it took.

    Nothing that is run there counts as anybody's progress, and nobody's progress shows in what is stored.
    """
    client = NotebookClient(notebook, kernel_name="python3", kernel_manager_class=_ThisInterpreter,
                            extra_arguments=["--log-level=ERROR"], timeout=SECONDS_PER_CELL, store_widget_state=False,
                            record_timing=False, coalesce_streams=True,
                            resources={"metadata": {"path": str(path.parent)}})
    start = time.perf_counter()
    index = 0
    try:
        with tempfile.TemporaryDirectory() as home, client.setup_kernel(env=os.environ | {"COURSE_HOME": home}):
            for index, cell in enumerate(notebook.cells):
                _progress(f"{_name(path)}: cell {index + 1} of {len(notebook.cells)}")
                client.execute_cell(cell, index)
    except CellExecutionError as error:
        line = next((line for line in _plain(error.traceback).splitlines() if re.match("-+> [0-9]", line)), "")
        reason = f"{line}\n{_plain(error.ename)}: {_plain(error.evalue)}".strip()
        raise _failure(notebook, index, path, reason) from None
    except CellTimeoutError:
        raise _failure(notebook, index, path, f"did not end within {SECONDS_PER_CELL} seconds") from None
    except DeadKernelError:
        raise _failure(notebook, index, path, "ended the kernel; the machine may be short of memory") from None
    finally:
        _progress("")
    seconds = time.perf_counter() - start
    _drop_views(notebook)
    return finish(notebook), seconds


def _drop_views(notebook: nbformat.NotebookNode) -> None:
    """Take away the views of controls, which name models of a kernel that is gone; the pictures beside them stay."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def _failure(notebook: nbformat.NotebookNode, index: int, path: Path, reason: str) -> BuildError:
    first = notebook.cells[index].source.splitlines()[0]
    left = f"{_name(path)} was left as it was." if path.exists() else f"{_name(path)} was not written."
    indented = "\n".join(f"  {line}" for line in reason.splitlines())
    return BuildError(f"{_name(path)}: cell {index + 1} failed, which begins with {first!r}:\n{indented}\n{left}")


def _is_someones(path: Path, new: Mapping[str, Any]) -> bool:
    """True if writing `new` to `path` would lose text that was not generated."""
    if not blanks.holds_work(path):
        return False
    old = _read(path)
    return old is None or not same_cells(old, new)


def _was_run(notebook: Mapping[str, Any]) -> bool:
    """True if the code cells were run in order in a fresh kernel, without an error."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    errors = [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    return counts == list(range(1, len(code) + 1)) and not errors


def _cells(notebook: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [(cell["cell_type"], blanks.cell_source(cell), blanks.cell_tags(cell)) for cell in notebook["cells"]]


def _read(path: Path) -> nbformat.NotebookNode | None:
    """The notebook, or None if there is none or it cannot be read as one."""
    if not path.exists():
        return None
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        _cells(notebook)
    except (nbformat.ValidationError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return notebook


def _write(path: Path, text: str) -> str:
    """Replace the file as a whole or not at all; returns "written" or "unchanged"."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return "unchanged"
    try:
        replace_file(path, data)
    except OSError as error:
        left = "the old file was left as it was" if path.exists() else "nothing was written"
        raise BuildError(f"{_name(path)} could not be written ({error.strerror}); {left}.") from None
    return "written"


def _sentence(built: Built) -> str:
    name = _name(built.path)
    if built.done == "kept" and built.path.parent.name == "exercises":
        return f"{name} holds your work and was left as it was. For a fresh blank, rename it and build again."
    if built.done == "kept":
        return (f"{name} was edited in place and was left as it was; what is built comes from "
                f"{built.path.parent.name}/source/{built.path.stem}.py. Rename or delete {name} and build again.")
    if built.seconds is None:
        return f"{name}: {built.done}"
    sentence = f"{name}: executed in {built.seconds:.1f} s"
    if built.seconds > SECONDS_PER_NOTEBOOK:
        sentence += f", more than the {SECONDS_PER_NOTEBOOK} s a notebook may take"
    return sentence


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped; what is finished stays, the rest is as it was.")
