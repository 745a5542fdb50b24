"""The file of a benchmark: JSON lines, one written whenever a run is finished, so that it survives an interruption.

The first line is the head: what all runs have in common. Then, in any order, ``session`` (where and with which versions
the runs that follow were made), ``run`` and ``time``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
RECORDED = Path(__file__).parent / "recorded" / "bytelm.jsonl"
"""What ``course compare`` wrote when it was run for the course."""

_START = b'{"kind": "'  # of every line
SESSION = ("course", "torch", "python", "device", "threads", "date", "command")


class BadFile(Exception):
    """The file cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        key: of the registry.
        lr: learning rate at the full height of the schedule.
        seed: of the weights and the batches.
        steps: updates asked for.
        setting: what :meth:`course_lib.benchmark.settings.Setting.describe` said when it was made.
        tuning: mean loss in nats per byte on the text that rates are chosen by; None where the run diverged.
        loss: the same on the text that results are from.
        stopped: why the run diverged, in a sentence; None where it did not.
        seconds: of the training, evaluation left out.
        state_bytes: what the optimizer held at the end, for this model.
        bytes_per_parameter: of state, in a float32 matrix of 1024 x 4096.
    """

    key: str
    lr: float
    seed: int
    steps: int
    setting: dict[str, Any]
    tuning: float | None
    loss: float | None
    stopped: str | None
    seconds: float
    state_bytes: int
    bytes_per_parameter: float

    def __post_init__(self) -> None:
        """Raises ValueError: a value has the wrong type or is out of its range."""
        for name, kinds, ok in _CHECKS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or (value is not None and not ok(value)):
                raise ValueError(f"{name} is {value!r}")
        if {self.tuning is None, self.loss is None, self.stopped is not None} == {True, False}:
            raise ValueError("a run has either two losses or a reason why it has none")


_CHECKS = (
    ("key", str, bool),
    ("lr", float, lambda x: 0 < x < math.inf),
    ("seed", int, lambda x: x >= 0),
    ("steps", int, lambda x: x >= 2),
    ("setting", dict, bool),
    ("tuning", float | None, math.isfinite),
    ("loss", float | None, math.isfinite),
    ("stopped", str | None, bool),
    ("seconds", float | int, lambda x: 0 <= x < math.inf),
    ("state_bytes", int, lambda x: x >= 0),
    ("bytes_per_parameter", float | int, lambda x: 0 <= x < math.inf),
)


@dataclass(frozen=True)
class Results:
    """What such a file holds.

    Attributes:
        head: what all runs have in common: ``problem``, ``steps``.
        sessions: where and with what the runs were made, one entry each time the command was started.
        runs: in the order in which they were finished.
        times: measurements of the time, the last one last: seconds of one training step by key.
    """

    head: dict[str, Any]
    sessions: tuple[dict[str, Any], ...]
    runs: tuple[Run, ...]
    times: tuple[dict[str, float], ...]


def load(path: str | Path) -> Results:
    """Read a file. A last line that was cut off when the machine stopped is left out.

    Raises:
        BadFile: it cannot be read, or holds something else.
    """
    return _parse(Path(path))[0]


def _parse(path: Path) -> tuple[Results, int]:
    """The results, and how many bytes of the file are whole lines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from None
    whole = data.rfind(b"\n") + 1
    lines, torn = data[:whole].splitlines(), data[whole:]
    if not (torn.startswith(_START) or _START.startswith(torn)):
        lines.append(torn)  # nothing of ours that was cut off: refused like a whole line
    head: dict[str, Any] = {}
    sessions, runs, times = [], [], []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            kind = entry.pop("kind")
            if number == 1 and (kind != "head" or entry.pop("format") != FORMAT or entry["steps"] < 2):
                raise ValueError("no head of a known format")
            if kind == "head" and number == 1:
                head = entry
            elif kind == "session":
                sessions.append({name: entry[name] for name in SESSION})
            elif kind == "run":
                runs.append(Run(**entry))
            elif kind == "time":
                times.append({key: float(value) for key, value in entry["seconds"].items()})
            else:
                raise ValueError(f"an unknown kind of line, {kind!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFile(
                f"{path}, line {number}, is none of the benchmark's ({error}). Name another file with --out, or begin "
                "anew with --fresh, which keeps this one under another name."
            ) from None
    return Results(head, tuple(sessions), tuple(runs), tuple(times)), whole


class Log:
    """A file that finished runs are added to, each in one write that is forced to the disk.

    Args:
        path: of the file; a new one is begun where there is none, or nothing whole in it.
        head: what all runs have in common, as plain JSON values: ``problem`` and ``steps``.

    Attributes:
        results: what the file holds now.
        notes: sentences about what was found when it was opened.

    Raises:
        BadFile: the file is of another kind, was made with another head, or cannot be written.
    """

    def __init__(self, path: str | Path, head: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        head = json.loads(json.dumps(head))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self.results, whole = _parse(self.path)
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)
                self.notes.append(
                    f"The last line of {self.path} was cut off by an interruption; that run is made again."
                )
        except OSError as error:
            raise BadFile(f"{self.path} cannot be written: {error.strerror}.") from None
        if not self.results.head:
            self._write({"kind": "head", "format": FORMAT, **head})
        elif self.results.head != head:
            raise BadFile(
                f"{self.path} was made with other settings: {'; '.join(_differences(self.results.head, head))}. Name "
                "another file with --out, or begin anew with --fresh, which keeps this one under another name."
            )
        self.results = _parse(self.path)[0]

    def session(self, provenance: Mapping[str, Any]) -> None:
        """Say where and with what the runs that follow are made: the keys of ``SESSION``."""
        entry = {name: provenance[name] for name in SESSION}
        self._write({"kind": "session", **entry})
        self._extend(sessions=entry)

    def add(self, run: Run) -> None:
        """Write down a finished run."""
        self._write({"kind": "run", **asdict(run)})
        self._extend(runs=run)

    def time(self, seconds: Mapping[str, float]) -> None:
        """Write down a measurement: seconds of one training step by key."""
        self._write({"kind": "time", "seconds": {key: float(f"{value:.4g}") for key, value in seconds.items()}})
        self._extend(times=dict(seconds))

    def _extend(self, **new: Any) -> None:
        now = {each.name: getattr(self.results, each.name) for each in fields(Results)}
        self.results = Results(**(now | {name: (*now[name], entry) for name, entry in new.items()}))

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False) + "\n"
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BadFile(f"{self.path} cannot be written: {error.strerror}.") from None


def set_aside(path: str | Path) -> Path | None:
    """Give a file another name, so that a new one can be begun; where it lies now, or None where there was none."""
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (other := path.with_name(f"{path.stem}.old-{number}{path.suffix}")).exists():
        number += 1
    path.rename(other)
    return other


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], of: str = "") -> list[str]:
    found = []
    for name in dict.fromkeys([*there, *here]):
        a, b = there.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{of}{name}.")
        elif a != b:
            found.append(f"{of}{name} is {a!r} there and {b!r} here")
    return found
