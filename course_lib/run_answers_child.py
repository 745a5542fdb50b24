"""Runs a learner's cells or script in a process of its own. Started by `course_lib.run_answers`, never imported by it.

``python -m course_lib.run_answers_child PLAN``, PLAN being a JSON file with

- ``folder``: where to run, ``events``: a file that takes one JSON line per thing that happens,
- ``cells``: ``[{"number", "source", "answers", "checks"}]``, the last two being lists of exercises' ids;
  or ``script``: a path,
- ``ids``: the exercises to judge; null for all that a script holds.

Events: ``{"begin": cell number}``, ``{"error": text, "cell": number}`` (``"line"`` for a script), ``{"end": true}``.
Verdicts go another way: ``course_lib.checks.check`` appends them to the file that COURSE_REPORTS names.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

from course_lib.run_answers import CANNOT_WRITE, read_json_lines


class Events:
    """The file that tells the parent how far the run came."""

    def __init__(self, path: str) -> None:
        self.path = path

    def send(self, **event: Any) -> None:
        """Append one event, on the disk before the next line of the learner's runs."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError:
            os._exit(CANNOT_WRITE)


def describe(error: BaseException) -> str:
    """Type and first line of an error, as one reads it at the end of a traceback."""
    text = str(error).strip().splitlines()
    line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
    message = error.msg if isinstance(error, SyntaxError) else text[0] if text else ""
    return f"{type(error).__name__}: {message}{line}" if message else type(error).__name__ + line


def run_cells(cells: list[dict[str, Any]], events: Events) -> dict[str, Any]:
    """Run the cells in IPython, each as far as it comes, and return what the answer cells bound, by exercise.

    The check of an exercise is left out where its answer's cell failed: it would judge an older object of that name.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from course_lib.checks.exercises import EXERCISES

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            """Nothing to do for ``%matplotlib``: there is no window here."""

    config = Config()
    config.HistoryManager.enabled = False
    shell = Shell.instance(config=config)
    answers: dict[str, Any] = {}
    failed: set[str] = set()
    for cell in cells:
        if failed & set(cell["checks"]):
            continue
        events.send(begin=cell["number"])
        result = shell.run_cell(cell["source"], store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and not isinstance(error, SystemExit):
            events.send(error=describe(error), cell=cell["number"])
            failed.update(cell["answers"])
            continue
        for exercise in cell["answers"]:
            if EXERCISES[exercise].answer in shell.user_ns:
                answers[exercise] = shell.user_ns[EXERCISES[exercise].answer]
    return {exercise: answer for exercise, answer in answers.items() if exercise not in failed}


def run_script(path: str, events: Events) -> dict[str, Any]:
    """Run a Python file as ``python path`` does, as far as it comes, and return what it bound."""
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv = [path]
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)
    except SystemExit:
        pass
    except BaseException as error:
        frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == path), None)
        events.send(error=describe(error), line=line)
    return module.__dict__


def by_name(bound: dict[str, Any], ids: list[str] | None) -> dict[str, Any]:
    """The answers among what a script bound: of the exercises named, else the first exercise for each answer's name.

    Unasked, only what the script itself defines counts: an imported ``torch.optim.AdamW`` is no answer.
    """
    from course_lib.checks.exercises import EXERCISES

    if ids is not None:
        return {name: bound[EXERCISES[name].answer] for name in ids if EXERCISES[name].answer in bound}
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for exercise in EXERCISES.values():
        if exercise.answer not in bound or exercise.answer in taken:
            continue
        value = bound[exercise.answer]
        if (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__ != "__main__":
            continue
        found[exercise.id] = value
        taken.add(exercise.answer)
    return found


def reported() -> set[str]:
    """The exercises on which a verdict has been written."""
    return {report["exercise"] for report in read_json_lines(Path(os.environ["COURSE_REPORTS"]))}


def main(plan_path: str) -> None:
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    events = Events(plan["events"])
    os.chdir(plan["folder"])
    sys.path[0] = plan["folder"]
    if "cells" in plan:
        answers = run_cells(plan["cells"], events)
    else:
        bound = run_script(plan["script"], events)
        answers = {} if plan["ids"] is None and reported() else by_name(bound, plan["ids"])
    # What a notebook or script defines without checking it is checked here.
    wanted = answers if plan["ids"] is None else [name for name in plan["ids"] if name in answers]
    for exercise in [name for name in wanted if name not in reported()]:
        from course_lib.checks import check

        check(exercise, answers[exercise])
    events.send(end=True)
    os._exit(0)  # threads and atexit handlers of the learner's do not hold up the verdict


if __name__ == "__main__":
    main(sys.argv[1])
