"""Events as a JSON document, to keep a copy of or to carry to another machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from course_lib.journal.event import Event, now

FORMAT, VERSION = "course progress", 2
READABLE = (1, VERSION)  # 1 has no details


class BadFile(ValueError):
    """A file cannot be written to or read from; the message is a sentence for the learner."""


def to_json(events: Iterable[Event]) -> str:
    """``{"format": "course progress", "version": 2, "exported": time, "events": [...]}``, the oldest event first."""
    ordered = sorted(events, key=lambda event: (event.time, event.id))
    document = {"format": FORMAT, "version": VERSION, "exported": now(), "events": [asdict(event) for event in ordered]}
    return json.dumps(document, indent=1) + "\n"


def from_json(text: str) -> list[Event]:
    """The events that :func:`to_json` wrote.

    Raises BadFile, in words that follow the file's name: it is no export, is damaged, or comes from a newer version.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFile("is no export of progress, or was cut short: it is not JSON.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadFile("is no export of progress. Make one with: course progress --export FILE")
    version = document.get("version")
    if type(version) is int and version > VERSION:
        raise BadFile("comes from a newer version of the course. Update this one with: git pull")
    rows = document.get("events")
    if version not in READABLE or not isinstance(rows, list):
        raise BadFile("is a damaged export of progress: it has no version, or no list of events.")
    events = []
    for number, row in enumerate(rows, 1):
        try:
            events.append(Event(**row))
        except TypeError:
            reason = f"event {number} lacks a value or has an unknown one"
            raise BadFile(f"is a damaged export of progress: {reason}.") from None
        except ValueError as error:
            raise BadFile(f"is a damaged export of progress: in event {number}, {error}.") from None
    return events


def write_new(path: Path, text: str) -> None:
    """Write ``text`` to a file that does not exist yet. Raises BadFile if it does, or cannot be written."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise BadFile(f"{path} exists and was left as it is. Choose another name, or move it away first.") from None
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}.") from None
    try:
        with file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BadFile(f"{path} cannot be written: {error.strerror}.") from None


def read(path: Path) -> list[Event]:
    """The events in an exported file. Raises BadFile: no such file, or see :func:`from_json`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadFile(f"There is no file {path}.") from None
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadFile(f"{path} is no export of progress: it is not text in UTF-8.") from None
    try:
        return from_json(text)
    except BadFile as error:
        raise BadFile(f"{path} {error}") from None
