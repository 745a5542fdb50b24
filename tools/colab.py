"""Write notebooks for Colab that carry the library in themselves: `python -m tools.colab [--out FOLDER]`.

dist/colab/{notebooks,solutions,exercises}/NN_topic.ipynb: upload one to Colab, run its first cell, and go on. A copy in
which someone has worked is never overwritten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from course_lib import blanks, colab
from course_lib.sources import as_text, executed_form, exercise_form, finish, is_solution
from tools.notebooks import ROOT, exercise_of, same_cells, sources, target_of

OUT = ROOT / "dist" / "colab"
IN_THE_WHEEL = ("course_lib", "pyproject.toml", "README.md", "LICENSE", "LICENSE-text")


class ColabError(Exception):
    """The notebooks could not be written; the message says why and what to do."""


def wheel(folder: Path) -> Path:
    """Build the library's wheel into ``folder``, from a copy, so that nothing of an earlier build gets into it.

    Raises:
        ColabError: pip cannot build it, for instance without a network.
    """
    copy = folder / "source"
    copy.mkdir()
    for name in IN_THE_WHEEL:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--wheel-dir", str(folder), str(copy)]
    # The same library gives the same bytes; a zip file knows no time before 1980.
    run = subprocess.run(command, env=os.environ | {"SOURCE_DATE_EPOCH": "315619200"}, capture_output=True, text=True,
                         check=False)
    if run.returncode:
        raise ColabError(f"pip could not build the library:\n{run.stderr.strip()}\nIt needs setuptools from the package "
                         "index; try again with a network.")
    return next(folder.glob("*.whl"))


def for_colab(notebook: nbformat.NotebookNode, first_cell: str) -> nbformat.NotebookNode:
    """The notebook with the library in its first cell, in place of the one that a repository's address gives it."""
    own = nbformat.from_dict(notebook)
    own.cells = [cell for cell in own.cells if colab.TAG not in blanks.cell_tags(cell)]
    return finish(blanks.mark_generated(colab.with_first_cell(own, first_cell)))


def write_all(out: Path) -> list[str]:
    """Write all notebooks into ``out`` and return a sentence for each that was not written.

    Raises:
        ColabError: the wheel cannot be built, or a notebook is not up to date with its source; nothing was written.
    """
    made: dict[Path, nbformat.NotebookNode] = {}
    for source in sources():
        stored = target_of(source)
        built = nbformat.read(stored, as_version=4) if stored.exists() else None
        if built is None or not same_cells(built, executed_form(source)):
            raise ColabError(f"{stored.relative_to(ROOT)} is not up to date with its source. Run: make notebooks")
        made[out / stored.relative_to(ROOT)] = built
        if is_solution(source):
            made[out / exercise_of(source).relative_to(ROOT)] = exercise_form(source)
    with tempfile.TemporaryDirectory() as folder:
        first_cell = colab.cell_for_wheel(wheel(Path(folder)))
    kept = []
    for path, notebook in made.items():
        if blanks.holds_work(path):
            kept.append(f"{path} holds your work and was left as it was. For a new one, rename it.")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(for_colab(notebook, first_cell)), encoding="utf-8", newline="\n")
    return kept


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks; the exit code is 1 where that is impossible."""
    parser = argparse.ArgumentParser(prog="python -m tools.colab", description="Write self-contained notebooks.")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write into; dist/colab by default")
    options = parser.parse_args(arguments)
    try:
        kept = write_all(options.out)
    except (ColabError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for sentence in kept:
        print(sentence, file=sys.stderr)
    print(f"Upload a notebook from {options.out} to colab.research.google.com and run its first cell.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
