"""What `course bench` measured, as a file: one JSON document for each recording, checked when it is read.

A document says where, when, with which versions and by which command it was made, and for each list of shapes what
every way of taking a step took. Times are in seconds, sizes in bytes, a GB is 1e9 bytes.
"""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

from course_lib.journal.exchange import BadFile, write_new
from course_lib.kernels.roofline import Machine

FORMAT = 1
RECORDED = Path(__file__).parent / "recorded"
"""The folder of what was recorded for the course."""

KINDS = ("cpu", "cuda")
DTYPES = ("float32", "bfloat16")
COPY = "copy"
"""The way that only copies the parameters; its bandwidth is what the others are compared with."""

GB = 1e9


class _Wrong(ValueError):
    """A field of a document has a value that it cannot have."""


Check = tuple[type | tuple[type, ...], Callable[[Any], bool], str]

_NUMBER = (int, float)
_NAME: Check = (str, lambda text: bool(text.strip()), "some text")
_VERSION: Check = ((str, type(None)), lambda text: text is None or bool(text.strip()), "some text, or null")
_LARGEST = sys.float_info.max  # an int may be larger, and then cannot be divided
_SECONDS: Check = (_NUMBER, lambda x: 0 < x <= _LARGEST, "a finite number > 0")
_COUNT: Check = (int, lambda x: 1 <= x <= _LARGEST, "a whole number >= 1")
_SIZE: Check = ((int, type(None)), lambda x: x is None or 0 <= x <= _LARGEST, "a whole number of bytes >= 0, or null")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def _one_of(allowed: tuple[Any, ...]) -> Check:
    return (object, lambda value: value in allowed, " or ".join(map(str, allowed)))


def _check(what: object, checks: Mapping[str, Check], where: str = "") -> None:
    for name, (kinds, ok, allowed) in checks.items():
        value = getattr(what, name)
        if isinstance(value, bool) is not (kinds is bool) or not isinstance(value, kinds) or not ok(value):
            raise _Wrong(f"{where}{name} is {_SHORT.repr(value)}. Allowed: {allowed}.")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text  # fromisoformat reads 20260131 too
    except ValueError:
        return False


@dataclass(frozen=True)
class Quartiles:
    """A median and the two quartiles."""

    median: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _check(self, dict.fromkeys(("median", "low", "high"), _SECONDS))
        if not self.low <= self.median <= self.high:
            found = f"{self.low!r}, {self.median!r}, {self.high!r}"
            raise _Wrong(f"low, median, high are {found}. Allowed: in this order.")


@dataclass(frozen=True)
class Timed:
    """One way of taking a step, as it was measured.

    Attributes:
        way: its name, a key of ``course_lib.kernels.variants.WAYS``.
        seconds: of one step, over the rounds.
        rounds: that were counted.
        bytes: that a step of this kind must move, whatever it really moves; for "copy" what it moves.
        times_base: its time over that of :attr:`Measurement.base` in the same round, over the rounds; None where
            there was none to compare with.
        extra_bytes: the most memory that a step took beside what it keeps; None where that was not measured.
    """

    way: str
    seconds: Quartiles
    rounds: int
    bytes: int
    times_base: Quartiles | None = None
    extra_bytes: int | None = None

    def __post_init__(self) -> None:
        _check(self, {"way": _NAME, "rounds": _COUNT, "bytes": _COUNT, "extra_bytes": _SIZE})

    @property
    def gb_per_second(self) -> float:
        """The bytes that must move, over the median time."""
        return self.bytes / self.seconds.median / GB


@dataclass(frozen=True)
class Measurement:
    """All ways of one optimizer on one list of shapes.

    Attributes:
        optimizer: a key of ``course_lib.optim.REGISTRY``.
        dtype: of parameters and gradients.
        shapes: the name of the list, as ``--shapes`` takes it.
        tensors, parameters: of the list: how many tensors, how many elements together.
        least_bytes: that a step must move with state of the parameters' dtype.
        sets: equal sets of tensors that the steps went through in turn, so that no cache held them.
        base: the way that times are compared with; None where it was not measured.
        ways: what was measured, in the order of the table.
        unavailable: why others were not, way -> sentence.
    """

    optimizer: str
    dtype: str
    shapes: str
    tensors: int
    parameters: int
    least_bytes: int
    sets: int
    base: str | None
    ways: tuple[Timed, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, {
            "optimizer": _NAME, "dtype": _one_of(DTYPES), "shapes": _NAME, "tensors": _COUNT, "parameters": _COUNT,
            "least_bytes": _COUNT, "sets": _COUNT, "base": _VERSION,
            "unavailable": (Mapping, lambda x: all(isinstance(y, str) and y for y in x.values()), "way: a sentence"),
        })  # fmt: skip
        names = [timed.way for timed in self.ways]
        twice = {name for name in names if names.count(name) > 1 or name in self.unavailable}
        if twice:
            raise _Wrong(f"ways has {', '.join(sorted(twice))} twice, or among those not available too.")
        if self.base is not None and self.base not in names:
            raise _Wrong(f"base is {self.base!r}. Allowed: null, or one of the ways: {', '.join(names)}.")

    def find(self, way: str) -> Timed:
        """One of the ways. Raises ValueError if it was not measured; the message says why, if that is known."""
        for timed in self.ways:
            if timed.way == way:
                return timed
        why = self.unavailable.get(way, f"Measured: {', '.join(timed.way for timed in self.ways)}.")
        raise ValueError(f"There is no time of {way!r} for {self.optimizer} on {self.shapes}. {why}")

    def share_of_copy(self, way: str) -> float | None:
        """The bandwidth of a way over that of the copy in the same run; None where no copy was measured."""
        copy = next((timed for timed in self.ways if timed.way == COPY), None)
        return None if copy is None else self.find(way).gb_per_second / copy.gb_per_second


@dataclass(frozen=True)
class Record:
    """One recording: where and how, and what was measured.

    Attributes:
        device: the processor's or GPU's name.
        kind: "cpu" or "cuda".
        memory: of the device, bytes.
        driver, cuda: versions; None on a CPU.
        torch, triton, python, course: versions; triton is None where it is not installed.
        threads: that torch used on the processor.
        date: as 2026-01-31.
        command: that made it.
        machine: bandwidth of a copy and peaks of matrix products, measured in the same run; or None.
        measurements: one for each optimizer, dtype and list of shapes.
    """

    device: str
    kind: str
    memory: int | None
    driver: str | None
    cuda: str | None
    torch: str
    triton: str | None
    python: str
    course: str
    threads: int
    date: str
    command: str
    machine: Machine | None
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        _check(self, dict.fromkeys(("device", "torch", "python", "course"), _NAME)
               | dict.fromkeys(("driver", "cuda", "triton"), _VERSION)
               | {"kind": _one_of(KINDS), "memory": _SIZE, "threads": _COUNT, "date": _DATE, "command": _COMMAND})
        if self.kind == "cuda" and self.cuda is None:
            raise _Wrong("cuda is None. Allowed where kind is cuda: a version.")

    def find(self, optimizer: str, shapes: str, dtype: str = "float32") -> Measurement:
        """One of the measurements. Raises ValueError, with what there is, if it was not made."""
        for found in self.measurements:
            if (found.optimizer, found.shapes, found.dtype) == (optimizer, shapes, dtype):
                return found
        there = ", ".join(f"{one.optimizer} on {one.shapes} in {one.dtype}" for one in self.measurements)
        raise ValueError(f"{self.device}, {self.date}: nothing was measured for {optimizer} on {shapes} in {dtype}. "
                         f"There is: {there or 'nothing'}.")

    def to_dict(self) -> dict[str, Any]:
        """The document: plain JSON values, and beside what was measured GB/s and shares of the copy."""
        document = {"format": FORMAT} | {each.name: getattr(self, each.name) for each in fields(self)}
        if self.machine is not None:
            document["machine"] = {name: getattr(self.machine, name) for name in _MACHINE}
            document["machine"]["flops"] = dict(self.machine.flops)
        document["measurements"] = [_measurement_to_dict(one) for one in self.measurements]
        return document


_DATE: Check = (str, _is_date, "a date as 2026-01-31")
_COMMAND: Check = (str, lambda text: text.split()[:2] == ["course", "bench"], "what begins with course bench")
_MACHINE = ("name", "bandwidth", "flops", "source", "measured")
_DERIVED = ("gb_per_second", "share_of_copy")


def _measurement_to_dict(one: Measurement) -> dict[str, Any]:
    document = asdict(one) | {"unavailable": dict(one.unavailable)}
    document["ways"] = [
        asdict(timed) | {"gb_per_second": timed.gb_per_second, "share_of_copy": one.share_of_copy(timed.way)}
        for timed in one.ways
    ]
    return document


def from_dict(document: Any) -> Record:
    """The record that such a document holds.

    Raises:
        ValueError: it is none; the message names the field and its value.
    """
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found != FORMAT:  # True == 1
        raise _Wrong(f"format is {_SHORT.repr(found)}. Allowed: {FORMAT}.")
    values = _fields(Record, document, "", extra=("format",))
    if (machine := values["machine"]) is not None:
        machine = _made(Machine, machine, "machine: ")
        _check(machine, {"name": _NAME, "source": _NAME, "measured": (bool, lambda x: True, "true or false")},
               "machine: ")
    measurements = tuple(
        _measurement(one, f"measurements[{index}]: ") for index, one in enumerate(_list(values, "measurements", ""))
    )
    return _new(Record, values | {"machine": machine, "measurements": measurements}, "")


def _measurement(document: Any, where: str) -> Measurement:
    values = _fields(Measurement, document, where)
    ways = []
    for index, entry in enumerate(_list(values, "ways", where)):
        inside = f"{where}ways[{index}]: "
        timed = _fields(Timed, entry, inside, extra=_DERIVED)
        timed["seconds"] = _made(Quartiles, timed["seconds"], f"{inside}seconds: ")
        if timed["times_base"] is not None:
            timed["times_base"] = _made(Quartiles, timed["times_base"], f"{inside}times_base: ")
        ways.append(_new(Timed, timed, inside))
    made = _new(Measurement, values | {"ways": tuple(ways)}, where)
    for index, (timed, entry) in enumerate(zip(made.ways, values["ways"], strict=True)):
        derived = {"gb_per_second": timed.gb_per_second, "share_of_copy": made.share_of_copy(timed.way)}
        for name, expected in derived.items():
            found = entry[name]
            alike = found is expected if None in (found, expected) else (
                type(found) in _NUMBER and abs(found) <= _LARGEST and math.isclose(found, expected, rel_tol=1e-6)
            )
            if not alike:
                raise _Wrong(f"{where}ways[{index}]: {name} is {_SHORT.repr(found)}. Allowed: {expected!r}, which "
                             "follows from the bytes and the seconds.")
    return made


def _fields(kind: type, document: Any, where: str, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise _Wrong(f"{where}this is {_SHORT.repr(document)}. Allowed: an object with the fields of a "
                     f"{kind.__name__}.")
    names = [each.name for each in fields(kind)]
    for name in (*names, *extra):
        if name not in document:
            raise _Wrong(f"{where}{name} is missing.")
    unknown = set(document) - {*names, *extra}
    if unknown:
        raise _Wrong(f"{where}{', '.join(sorted(unknown))}: no such field. Allowed: {', '.join((*names, *extra))}.")
    return {name: document[name] for name in names}


def _list(values: Mapping[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(values[name], list) or not values[name]:
        raise _Wrong(f"{where}{name} is {_SHORT.repr(values[name])}. Allowed: a list with at least one entry.")
    return values[name]


def _made(kind: type, document: Any, where: str) -> Any:
    return _new(kind, _fields(kind, document, where), where)


def _new(kind: type, values: dict[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _Wrong(f"{where}{error}") from None


def to_json(record: Record) -> str:
    """The document as text, with a line break at its end."""
    return json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n"


def save(record: Record, path: str | Path) -> None:
    """Write a new file.

    Raises:
        BadFile: there is one already, which is left as it is, or it cannot be written.
    """
    write_new(Path(path), to_json(record))


def require_writable(path: str | Path) -> None:
    """Raise what :func:`save` would if it could not write this file; leaves none.

    Raises:
        BadFile: there is such a file, or it cannot be written.
    """
    path = Path(path)
    write_new(path, "")
    try:
        path.unlink()
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}.") from None


def load(path: str | Path) -> Record:
    """Read a file.

    Raises:
        BadFile: it cannot be read, or is not what ``course bench`` writes; the message names the field and its value.
    """
    try:
        return from_dict(json.loads(Path(path).read_text(encoding="utf-8"), parse_int=_whole))
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} is not JSON: {error}.") from None
    except RecursionError:
        raise BadFile(f"{path} is no record: its lists and objects are nested too deeply.") from None
    except ValueError as error:
        raise BadFile(f"{path}: {error} A file like it is made with: course bench --record") from None


def _whole(digits: str) -> int | float:
    """A whole number of a file; infinite where no float is as large, as 1e999 is, so that it is refused like that."""
    number = float(digits)
    return int(digits) if math.isfinite(number) else number


def all_recorded() -> list[Record]:
    """What was recorded for the course: the files of ``RECORDED`` by their names; none is an empty list.

    Raises:
        BadFile: one of them is no such file.
    """
    return [load(path) for path in sorted(RECORDED.glob("*.json"))]
