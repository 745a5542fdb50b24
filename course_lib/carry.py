"""A learner's work carried over into the notebooks of an update: what git asks when both have changed a notebook.

``course lab`` tells git to merge notebooks with this (:func:`prepare`), so that a plain ``git pull`` brings the
course's changes and leaves the answers. Needs the standard library only.
"""

from __future__ import annotations

import copy
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from course_lib import blanks

Notebook = dict[str, Any]
KEPT = "kept"  # the folder, beside a notebook, for copies of what was merged or reset
DRIVER = "course"  # what .gitattributes calls the merging


class NotClear(ValueError):
    """It cannot be told which of two notebooks is the course's and which the learner's."""


def merge(base: Notebook, one: Notebook, other: Notebook) -> tuple[Notebook, Notebook | None]:
    """Two versions of a notebook that both come from ``base``, made into one; and the learner's, if it holds work.

    Git hands over the sides in either order, so they are told apart: the course's has the text that was generated.
    A side whose text did not change gives way to the other. Else the outcome is the course's new notebook with

    - each answer cell in which the learner wrote, in place of the blank, whatever became of the blank,
    - each other cell that the learner changed, in its place if the course left it alone,
    - all other cells of the learner's, behind the cell that they followed.

    Raises NotClear where both sides hold somebody's work.
    """
    before = blanks.notebook_hash(base)
    if blanks.notebook_hash(one) == before:
        return other, None if blanks.is_as_generated(other) else other
    if blanks.notebook_hash(other) == before:
        return one, None if blanks.is_as_generated(one) else one
    if blanks.is_as_generated(one):
        course, learner = one, other
    elif blanks.is_as_generated(other):
        course, learner = other, one
    else:
        raise NotClear("Both versions of the notebook hold somebody's work.")
    return _carry_over(base, course, learner), learner


def keep(path: Path, data: bytes) -> Path:
    """Write ``data`` into the folder ``kept`` beside ``path``, under its name and the time; returns where.

    An existing file is never overwritten. Raises OSError.
    """
    folder = path.parent / KEPT
    folder.mkdir(exist_ok=True)
    name = f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        copy_of = folder / (f"{name}{path.suffix}" if number == 1 else f"{name}-{number}{path.suffix}")
        try:
            with copy_of.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        return copy_of
    raise FileExistsError(f"{folder} holds too many copies of {path.name}")


def prepare(root: Path) -> None:
    """Tell the clone at ``root`` to merge notebooks with this module, and to set work aside while it pulls.

    Writes ``merge.course.*`` and ``merge.autoStash`` into the clone's own configuration, where they differ; a
    value of ``merge.autoStash`` that is there already stays. Does nothing without git or outside a clone.
    """
    if shutil.which("git") is None or not (root / ".git").exists():
        return
    driver = f"{shlex.quote(Path(sys.executable).as_posix())} -m course_lib.carry %O %A %B %P"
    for key, value, keep_other in (
        (f"merge.{DRIVER}.name", "the course's text with the learner's answers", False),
        (f"merge.{DRIVER}.driver", driver, False),
        ("merge.autoStash", "true", True),
    ):
        there = _git(root, "config", "--get", key)
        if there != value and not (there and keep_other):
            _git(root, "config", "--local", key, value)


def main(arguments: list[str]) -> int:
    """The merge driver: ``BASE ONE OTHER PATH``. Writes the outcome over ONE; 1 leaves it alone, as a conflict."""
    paths, path = [Path(name) for name in arguments[:3]], Path(arguments[3])
    try:
        base, one, other = (json.loads(file.read_text(encoding="utf-8")) for file in paths)
        merged, learner = merge(base, one, other)
        text = json.dumps(merged, indent=1, ensure_ascii=False) + "\n"
        if learner is not None and merged is not learner:
            copy_of = keep(path, (json.dumps(learner, indent=1, ensure_ascii=False) + "\n").encode())
            print(f"{path}: your work is in the new version; as it was before: {copy_of}", file=sys.stderr)
        paths[1].write_text(text, encoding="utf-8", newline="\n")
    except NotClear as reason:
        print(f"{path}: {reason} git keeps both.", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path}: could not be merged ({error}); git keeps both.", file=sys.stderr)
        return 1
    return 0


def _carry_over(base: Notebook, course: Notebook, learner: Notebook) -> Notebook:
    merged = copy.deepcopy(course)
    old, new = _by_key(base), _by_key(merged)
    place = -1  # the index of the cell in the merged notebook behind which the learner's next one goes
    for key, cell in _by_key(learner, old).items():
        text = blanks.cell_source(cell)
        changed = key not in old or blanks.cell_source(old[key]) != text
        target = new.get(key) if key in old else None
        if target is not None:
            place = _index(merged, target)
        if not changed or not text.strip():
            continue
        answer = isinstance(key, tuple) and key[0] == "answer"
        if target is not None and (answer or blanks.cell_source(target) == blanks.cell_source(old[key])):
            target["source"] = cell["source"]
            if cell["cell_type"] == "code":
                target["outputs"], target["execution_count"] = cell["outputs"], cell.get("execution_count")
        else:
            place += 1
            merged["cells"].insert(place, _own(cell, {c.get("id") for c in merged["cells"]}))
    return merged


def _by_key(notebook: Notebook, known: Mapping[Any, Any] | None = None) -> dict[Any, dict[str, Any]]:
    """The cells by what makes them the same cell in another version: the exercise they answer, else id, else text.

    ``known`` are the keys of the version from which the notebook comes: an id that is not among them is looked up by
    the cell's text, since some programs write new ids.
    """
    texts = {} if known is None else {_text(cell): key for key, cell in known.items()}
    found: dict[Any, dict[str, Any]] = {}
    for index, cell in enumerate(notebook["cells"]):
        ids = [tag for tag in blanks.cell_tags(cell) if tag.startswith("exercise:")]
        key: Any = ("answer", *ids) if ids else cell.get("id") or cell.get("metadata", {}).get("id")
        if known is not None and key not in known:
            key = texts.get(_text(cell), key)
        if key is None or key in found:
            key = ("again", key, index)
        found[key] = cell
    return found


def _text(cell: Mapping[str, Any]) -> tuple[str, str]:
    return cell["cell_type"], blanks.cell_source(cell)


def _index(notebook: Notebook, cell: Mapping[str, Any]) -> int:
    return next(index for index, here in enumerate(notebook["cells"]) if here is cell)


def _own(cell: Mapping[str, Any], taken: set[str | None]) -> dict[str, Any]:
    """A copy of a learner's cell for another notebook: without the course's tags, and with an id that is free there."""
    own = copy.deepcopy(dict(cell))
    own["metadata"] = {key: value for key, value in own["metadata"].items() if key not in ("course", "tags")}
    name, number = str(own.get("id") or "own"), 1
    own["id"] = name
    while own["id"] in taken:
        number += 1
        own["id"] = f"{name[:56]}-{number}"
    return own


def _git(root: Path, *arguments: str) -> str:
    """What git prints, empty where it fails."""
    outcome = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return outcome.stdout.strip() if outcome.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
