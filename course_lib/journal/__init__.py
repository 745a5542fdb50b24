"""What a learner has done, remembered beyond the kernel: ``record`` adds an event, ``recall`` gives them all.

Nothing here fails where the file cannot be used: the events then live as long as the session, are written with the
next one that can be, and ``news`` has a sentence for the learner, once a session.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from course_lib.journal.event import (
    ANSWERED,
    CHECKED,
    ENDED,
    EXERCISE_KINDS,
    HINT,
    INTERVIEW,
    LONGEST,
    SOLUTION,
    Event,
    Trouble,
)

if TYPE_CHECKING:
    from course_lib.journal.store import Store

__all__ = [
    "ANSWERED", "CHECKED", "ENDED", "EXERCISE_KINDS", "HINT", "INTERVIEW", "SOLUTION", "Event", "Trouble",
    "load", "news", "note", "open_store", "pause", "recall", "record",
]


class _Session:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.paused = False
        self.unsaved: list[Event] = []
        self.told: set[str] = set()
        self.news: list[str] = []


_session = _Session()


def pause() -> None:
    """Let nothing that happens from here to the end of this kernel count as progress.

    For notebooks whose answers are not the learner's own: solutions and demonstrations. Hints begin at the first one,
    go on from one to the next within the kernel, and nothing of it is kept. Prints nothing.
    """
    _session.paused = True


def record(exercise: str, kind: str, **details: Any) -> None:
    """Remember an event; it is on the disk when this returns, if it can be. See :class:`Event` for the arguments.

    ``details`` may be a dict of plain JSON values. A fork of the session keeps what it records to itself: there, the code that is being checked is running.
    """
    details["code"] = "".join(filter(str.isprintable, details.get("code", "")))[:LONGEST]
    if isinstance(details.get("details"), dict):
        details["details"] = json.dumps(details["details"], ensure_ascii=False)
    _session.unsaved.append(Event(exercise, kind, **details))
    if _session.paused or os.getpid() != _session.process:
        return
    try:
        open_store().append(_session.unsaved)
        _session.unsaved.clear()
    except Trouble as trouble:
        note(f"Progress is not saved: {trouble}")


def load() -> list[Event]:
    """The events of all sessions, the oldest first; after :func:`pause` those of this session.

    Raises Trouble: the file cannot be read.
    """
    stored = [] if _session.paused else open_store().read()
    return list({event.id: event for event in [*stored, *_session.unsaved]}.values())


def recall() -> list[Event]:
    """As :func:`load`; where the file cannot be read, what is left of this session, and a sentence in the news."""
    try:
        return load()
    except Trouble as trouble:
        note(f"Progress is not saved: {trouble}")
        return list(_session.unsaved)


def open_store() -> Store:
    """The store in the place that COURSE_HOME or the system says. Raises Trouble where there can be none."""
    try:
        from course_lib.journal import store
    except ImportError as error:  # an environment older than the course, or a Python built without SQLite
        advice = "Bring the environment up to date, in a checkout with: make lab"
        raise Trouble(f"the package {error.name} is missing. {advice}") from None
    return store.Store(store.place(), note)


def note(sentence: str) -> None:
    """Keep a sentence for :func:`news`, unless it was noted in this session before."""
    if sentence not in _session.told:
        _session.told.add(sentence)
        _session.news.append(sentence)


def news() -> list[str]:
    """What the learner has to be told now: sentences noted since the last call."""
    sentences, _session.news = _session.news, []
    return sentences
