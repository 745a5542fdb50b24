"""The file that keeps a learner's events: SQLite, only ever added to.

A connection lives for one read or one write, so that a kernel that is killed or forks leaves nothing behind: what was
committed is on the disk, what was not is rolled back by whoever opens the file next.

SQLite's rollback journal is kept, not WAL: WAL needs memory shared between the processes, which a home folder on the
network cannot give (sqlite.org/wal.html), and readers do not have to go on during writes of a millisecond.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs

from course_lib.journal.event import Event, Trouble

NAME = "progress.sqlite3"
VERSION = 2  # PRAGMA user_version; 1 has no details
SMALLEST_PAGE = 512  # bytes
BUSY_SECONDS = 5.0  # how long to wait for another process

_CREATE = """CREATE TABLE events (
    id TEXT PRIMARY KEY NOT NULL, exercise TEXT NOT NULL, kind TEXT NOT NULL,
    passed INTEGER, tier INTEGER, code TEXT NOT NULL, time TEXT NOT NULL, details TEXT NOT NULL DEFAULT '')"""
_WIDEN = "ALTER TABLE events ADD COLUMN details TEXT NOT NULL DEFAULT ''"  # from version 1
_COLUMNS = "exercise, kind, passed, tier, code, time, id, details"
_INSERT = f"INSERT OR IGNORE INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FROM = "FROM events NOT INDEXED"  # the table itself, whatever state its index is in
_SELECTS = {1: f"SELECT {_COLUMNS.replace('details', repr(''))} {_FROM}", 2: f"SELECT {_COLUMNS} {_FROM}"}

# Primary result codes: https://sqlite.org/rescode.html. SQLITE_ERROR is a table that is missing or has other columns.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it may not be written",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "it may not be written",
    sqlite3.SQLITE_BUSY: "another program holds it",
    sqlite3.SQLITE_LOCKED: "another program holds it",
}
_WAY_OUT = "To keep progress elsewhere, name a folder in the environment variable COURSE_HOME."


class _Damaged(Exception):
    """The file is a database, but does not hold what a progress file holds."""


def place() -> Path:
    """Where progress is kept: in the folder that COURSE_HOME names, else in the user's data folder.

    Raises Trouble where COURSE_HOME is relative, or nothing says which folder is the user's.
    """
    named = os.environ.get("COURSE_HOME")
    folder = Path(os.path.expanduser(named or platformdirs.user_data_dir("course_lib", appauthor=False)))
    if folder.is_absolute():
        return folder / NAME
    if named:
        raise Trouble(
            f"COURSE_HOME is {named}, a relative path, which is another folder in every notebook. Give an absolute one."
        )
    raise Trouble(f"the system names no home folder. {_WAY_OUT}")


class Store:
    """The events in one file.

    Args:
        path: the file; it and its folder are made when the first event is added.
        tell: takes a sentence for the learner when a damaged file was set aside.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path = Path(os.path.realpath(path))  # SQLite keeps its journal beside the file that a link points to
        self.tell = tell

    def append(self, events: Iterable[Event]) -> int:
        """Add the events, all or none, and return how many were new. They are on the disk when this returns.

        Raises Trouble: the file cannot be written, or comes from a newer version of the course.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Trouble(f"the folder {self.path.parent} cannot be made ({error.strerror}). {_WAY_OUT}") from None
        return self._use(partial(_add, list(events)))

    def read(self) -> list[Event]:
        """All events, the oldest first; none where there is no file.

        Raises Trouble: the file cannot be read, or comes from a newer version of the course.
        """
        try:
            if not self.path.exists():
                return []
        except OSError as error:
            raise Trouble(f"{self.path} cannot be read ({error.strerror}). {_WAY_OUT}") from None
        return sorted(self._use(_all), key=lambda event: (event.time, event.id))

    def _use(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        judged = _identity(self.path)
        try:
            return self._once(work)
        except _Damaged:
            self._set_aside(judged)
        try:
            return self._once(work)
        except _Damaged:
            raise Trouble(f"{self.path} is damaged. {_WAY_OUT}") from None

    def _once(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            if 0 < _size(self.path) < SMALLEST_PAGE:  # SQLite would take it for a new database and overwrite it
                raise _Damaged
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                # EXTRA also syncs the folder, so that a commit survives a power cut that follows at once.
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.text_factory = _decode
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > VERSION:
                    raise Trouble(
                        f"{self.path} comes from a newer version of the course, and was left as it is. "
                        "Update the course with: git pull"
                    )
                return work(connection)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in _DAMAGE:
                raise _Damaged from error
            raise Trouble(f"{self.path}: {_REASONS.get(code, error)}. {_WAY_OUT}") from None

    def _set_aside(self, judged: tuple[int, int] | None) -> None:
        """Give the damaged file another name, begin a fresh one with what can still be read, and tell.

        Of several processes that find the damage, one does it: the lock goes with its process, however that ends.
        """
        try:
            with closing(sqlite3.connect(f"{self.path}.lock", timeout=BUSY_SECONDS, isolation_level=None)) as lock:
                lock.execute("BEGIN EXCLUSIVE")
                if _identity(self.path) == judged:
                    self._begin_afresh()
        except (_Damaged, OSError, sqlite3.Error) as error:
            raise Trouble(f"{self.path} is damaged and cannot be renamed ({error}). {_WAY_OUT}") from None

    def _begin_afresh(self) -> None:
        aside = _free_name(self.path)
        journal = Path(f"{self.path}-journal")
        if journal.exists():  # left in place, SQLite would roll it back into the fresh file
            os.replace(journal, f"{aside}-journal")
        os.replace(self.path, aside)
        events = _salvage(aside)
        self.tell(
            f"The file with your progress was damaged. It was set aside as {aside}, and a fresh one begun; "
            f"events that could still be read and were taken over: {len(events)}."
        )
        self._once(partial(_add, events))


def _add(events: list[Event], connection: sqlite3.Connection) -> int:
    connection.execute("BEGIN IMMEDIATE")
    # Asked again under the lock: another process may just have made the table.
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < VERSION:
        connection.execute(_WIDEN if version else _CREATE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    rows = [(e.exercise, e.kind, e.passed, e.tier, e.code, e.time, e.id, e.details) for e in events]
    new = sum(connection.execute(_INSERT, row).rowcount for row in rows)
    connection.execute("COMMIT")
    return new


def _all(connection: sqlite3.Connection) -> list[Event]:
    connection.execute("BEGIN")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        return []
    try:
        return [_event(row) for row in connection.execute(_SELECTS[version])]
    except ValueError as error:
        raise _Damaged from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _free_name(path: Path) -> Path:
    """A name for the damaged file that nothing has; taken at once, so that no other process gets it."""
    stem = f"{path}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    number = 1
    while True:
        name = Path(stem if number == 1 else f"{stem}-{number}")
        try:
            name.touch(exist_ok=False)
            return name
        except FileExistsError:
            number += 1


def _salvage(path: Path) -> list[Event]:
    """The events that can still be read, from both ends up to the damage. The file is not changed."""
    found: dict[str, Event] = {}
    for select, order in itertools.product((_SELECTS[2], _SELECTS[1]), ("ASC", "DESC")):
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
                connection.text_factory = _decode
                for row in connection.execute(f"{select} ORDER BY rowid {order}"):
                    try:
                        event = _event(row)
                        found.setdefault(event.id, event)
                    except ValueError:
                        pass
        except sqlite3.Error:
            pass
    return list(found.values())


def _event(row: tuple[Any, ...]) -> Event:
    exercise, kind, passed, tier, code, time, name, details = row
    return Event(exercise, kind, {0: False, 1: True}.get(passed, passed), tier, code, time, name, details)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
