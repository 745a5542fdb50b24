"""Runs a learner's notebooks and scripts, and collects what the checks say. Light: needs neither torch nor IPython.

The learner's code runs in a process of its own (`course_lib.run_answers_child`), in the folder of its file, which is
only ever read. ``course_lib.checks.check`` appends each verdict as a JSON line to the file that the environment
variable COURSE_REPORTS names: ``{"exercise": id, "passed": bool, "findings": [{"code", "what", "hint", ...}]}``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib import blanks, journal
from course_lib.checks.exercises import EXERCISES

PASSED, NOT_YET, UNTOUCHED = "passed", "not yet", "untouched"
CANNOT_WRITE = 74  # exit status of the child where it cannot write its events (EX_IOERR of sysexits.h)


class BadInput(ValueError):
    """What was given cannot be judged; the message is a sentence for the learner."""


@dataclass(frozen=True)
class Outcome:
    """How one exercise stands. ``findings`` are dicts with code, what and hint, most important first."""

    exercise: str
    path: Path
    status: str
    findings: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; the file's key is ``notebook`` or ``path``, by its kind."""
        key = "notebook" if self.path.suffix == ".ipynb" else "path"
        return {"id": self.exercise, key: str(self.path), "status": self.status, "findings": self.findings}


@dataclass(frozen=True)
class Source:
    """A learner's file, read. The other attributes are a notebook's.

    Attributes:
        path: as it was given.
        cells: the code cells, each with its number, source, and the ids of the exercises that it answers and checks.
        exercises: the ids of its exercises, in order; True where every answer cell still is the generated blank.
        elsewhere: those of them whose answer may stand in a cell of the learner's own, which binds the answer's name.
    """

    path: Path
    cells: list[dict[str, Any]] | None = None
    exercises: dict[str, bool] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()


def read(path: Path) -> Source:
    """Read a notebook or a Python file.

    Raises BadInput: no such file, a folder, another kind of file, empty, damaged, no exercise in it.
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder. Name a notebook or a Python file in it.")
    if path.suffix not in (".ipynb", ".py"):
        raise BadInput(f"{path} is neither a notebook (.ipynb) nor a Python file (.py).")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"There is no file {path}.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    if not data.strip():
        raise BadInput(f"{path} is empty.")
    return _read_script(path, data) if path.suffix == ".py" else _read_notebook(path, data)


def _read_script(path: Path, data: bytes) -> Source:
    try:
        ast.parse(data, filename=str(path))
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        raise BadInput(f"{path} is not valid Python: {error.msg}{where}.") from None
    except ValueError as error:
        raise BadInput(f"{path} is not valid Python: {error}.") from None
    return Source(path)


def _read_notebook(path: Path, data: bytes) -> Source:
    try:
        notebook = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a notebook: it is not text in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not a notebook: it is not JSON ({error.msg} in line {error.lineno}).") from None
    try:
        return _read_cells(path, notebook)
    except (AttributeError, KeyError, TypeError):
        raise BadInput(
            f"{path} is JSON, but not a notebook of format 4: it has no list of cells, or a damaged one."
        ) from None


def _read_cells(path: Path, notebook: Mapping[str, Any]) -> Source:
    code = [
        {
            "number": number,
            "source": blanks.cell_source(cell),
            "answers": _ids(cell, "exercise"),
            "checks": _ids(cell, "check"),
        }
        for number, cell in enumerate((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), 1)
    ]
    found = blanks.answers(notebook)
    exercises: dict[str, bool] = {}
    for cell in code:
        called = re.findall(r"\bcheck\(\s*[\"'](\w+)[\"']", cell["source"])
        for name in [*cell["answers"], *cell["checks"], *(name for name in called if name in EXERCISES)]:
            exercises[name] = name in found and all(answer.untouched for answer in found[name])
    if not exercises:
        raise BadInput(f'{path} holds no exercise: no cell is tagged exercise:<id>, and none calls check("<id>", ...).')
    own = "\n".join(cell["source"] for cell in code if not cell["answers"] and not cell["checks"])
    elsewhere = {name for name, blank in exercises.items() if blank and re.search(_binds(EXERCISES[name].answer), own)}
    return Source(path, code, exercises, frozenset(elsewhere))


def _ids(cell: Mapping[str, Any], kind: str) -> list[str]:
    tags = blanks.cell_tags(cell)
    return [name for name in EXERCISES if f"{kind}:{name}" in tags]


def _binds(name: str) -> str:
    return rf"(?m)^(?:(?:class|def)\s+{name}\b|{name}\s*(?::.*)?=[^=])"


def judge(source: Source, ids: list[str] | None, timeout: float) -> tuple[list[Outcome], list[str]]:
    """Run a learner's file and return how its exercises stand, and a sentence for each thing that kept one unjudged.

    Args:
        source: from :func:`read`.
        ids: restrict to these exercises; None means all that are in the file.
        timeout: seconds for the whole file; then it is stopped.

    Raises:
        BadInput: the temp folder cannot be written.
    """
    if source.cells is not None:
        ids = [name for name in source.exercises if ids is None or name in ids]
        if not any(_to_run(source, name) for name in ids):
            return [Outcome(name, source.path, UNTOUCHED) for name in ids], []
    try:
        with tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True) as folder:
            run = _run(source, ids, timeout, Path(folder))
    except OSError as error:
        raise BadInput(
            f"The folder for temporary files cannot be used: {error.strerror or error}. "
            "Free some space, or name another folder in the environment variable TMPDIR."
        ) from None
    return (_of_script if source.cells is None else _of_notebook)(source, ids, run)


def _to_run(source: Source, name: str) -> bool:
    return not source.exercises[name] or name in source.elsewhere


@dataclass(frozen=True)
class _Run:
    reports: dict[str, dict[str, Any]]  # the last verdict on each exercise
    errors: list[dict[str, Any]]
    halted: dict[str, str] | None  # a finding, where the run did not come to its end


def _run(source: Source, ids: list[str] | None, timeout: float, folder: Path) -> _Run:
    events, reports, plan = folder / "events", folder / "reports", folder / "plan.json"
    path = source.path.resolve()
    todo: dict[str, Any] = {"folder": str(path.parent), "events": str(events), "ids": ids}
    if source.cells is None:
        todo["script"] = str(path)
    else:
        wanted = {name for name in ids or [] if _to_run(source, name)}
        todo["cells"] = [cell for cell in source.cells if not cell["checks"] or wanted & set(cell["checks"])]
    plan.write_text(json.dumps(todo), encoding="utf-8")
    events.write_bytes(b"")
    reports.write_bytes(b" " * 65536)  # a full disk shows here, before the learner's code runs
    reports.write_bytes(b"")
    environment = os.environ | {
        "COURSE_REPORTS": str(reports),
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": "agg",  # no window may wait for somebody to close it
    }
    status = _call([sys.executable, "-m", "course_lib.run_answers_child", str(plan)], environment, timeout)
    if status == CANNOT_WRITE:
        raise OSError("no space left, or no right to write")
    happened = read_json_lines(events)
    halted = None
    if not any("end" in event for event in happened):
        cell = next((event["begin"] for event in reversed(happened) if "begin" in event), None)
        where = "" if cell is None else f" in {_cell_name(source, cell)}"
        if status is None:
            halted = _finding("timeout", f"Stopped after {timeout:g} s{where}.",
                              "Look for a loop that does not end, or allow more time with --timeout.")
        else:
            halted = _finding("ended-process", f"The process ended by itself{where} (exit status {status}).",
                              "Look for a call of exit or os._exit, or for more memory than the machine has.")
    told = read_json_lines(reports)
    for sentence in (sentence for report in told for sentence in report.get("news", [])):
        journal.note(sentence)  # what the child said of the file with the learner's progress, nobody saw
    verdicts = {report["exercise"]: report for report in told}
    return _Run(verdicts, [event for event in happened if "error" in event], halted)


def _call(command: list[str], environment: Mapping[str, str], timeout: float) -> int | None:
    """Run a command in a process group of its own; return its exit status, None if it was stopped for the time it took.

    Whatever the group still holds afterwards is killed, on the way out of an interrupt as well.
    """
    quiet = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if os.name == "posix":
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # nothing is left of it
        elif process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], check=False, **quiet)
        process.wait()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file, one a line; a line that was cut short is left out."""
    objects = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return objects


def _of_script(source: Source, ids: list[str] | None, run: _Run) -> tuple[list[Outcome], list[str]]:
    outcomes = [_verdict(name, source.path, run.reports[name]) for name in ids or run.reports if name in run.reports]
    missing = [name for name in ids or [] if name not in run.reports]
    if run.halted and missing:
        return outcomes + [Outcome(name, source.path, NOT_YET, [run.halted]) for name in missing], []
    if not missing and outcomes:
        return outcomes, []
    unjudged = f", so {', '.join(missing)} could not be checked" if missing else " before anything was checked"
    if run.halted:
        return outcomes, [f"{source.path}: {run.halted['what']} {run.halted['hint']}"]
    if run.errors:
        where = f" in line {run.errors[0]['line']}" if run.errors[0].get("line") else ""
        return outcomes, [f"{source.path} fails{where} with {run.errors[0]['error']}{unjudged}."]
    if missing:
        return outcomes, [
            f"{source.path} defines no {EXERCISES[name].answer}, which is what exercise {name} asks for."
            for name in missing
        ]
    names = ", ".join(dict.fromkeys(exercise.answer for exercise in EXERCISES.values()))
    return [], [f"{source.path} neither calls check(...) nor defines an answer. Answers are named {names}."]


def _of_notebook(source: Source, ids: list[str] | None, run: _Run) -> tuple[list[Outcome], list[str]]:
    outcomes, problems = [], []
    for name in ids or []:
        report = run.reports.get(name)
        if source.exercises[name] and not (report and report["passed"]):
            outcomes.append(Outcome(name, source.path, UNTOUCHED))
        elif report:
            outcomes.append(_verdict(name, source.path, report))
        else:
            finding, fault_of_answer = _unjudged(source, name, run)
            outcomes.append(Outcome(name, source.path, NOT_YET, [finding]))
            if not fault_of_answer:
                problems.append(f"{source.path}: {finding['what']} So {name} could not be checked.")
    return outcomes, problems


def _unjudged(source: Source, name: str, run: _Run) -> tuple[dict[str, str], bool]:
    """Why there is no verdict on an exercise of a notebook: a finding, and whether the answer is at fault."""
    cells = source.cells or []
    own = {cell["number"] for cell in cells if name in cell["answers"]}
    free = {cell["number"] for cell in cells if not cell["answers"] and not cell["checks"]}
    first = min(own, default=len(cells) + 1)
    before = [error for error in run.errors if error["cell"] in free and error["cell"] < first]
    inside = [error for error in run.errors if error["cell"] in own]
    if before:
        what = f"The {_cell_name(source, before[0]['cell'])} fails with {before[0]['error']}."
        return _finding("cell-failed", what, "Restart the kernel in JupyterLab and run the cells from the top."), False
    if inside:
        what = f"The answer's cell fails with {inside[0]['error']}."
        return _finding("raised", what, "Run the cell in JupyterLab: the traceback shows where."), True
    if run.halted:
        return run.halted, True
    answer = EXERCISES[name].answer
    return _finding("no-answer", f"No cell defines {answer}.", f"Give your answer the name {answer}."), True


def _cell_name(source: Source, number: int) -> str:
    """How to tell a learner which code cell is meant: its number and its first line."""
    lines = (source.cells or [])[number - 1]["source"].strip().splitlines() or [""]
    return f"code cell {number} ({lines[0][:40]})"


def _finding(code: str, what: str, hint: str) -> dict[str, str]:
    return {"code": code, "what": what, "hint": hint}


def _verdict(name: str, path: Path, report: Mapping[str, Any]) -> Outcome:
    return Outcome(name, path, PASSED if report["passed"] else NOT_YET, list(report["findings"]))
