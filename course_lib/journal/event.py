"""One thing that a learner did, as it is remembered."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

CHECKED, HINT, SOLUTION = "checked", "hint", "solution"  # of an exercise
ANSWERED = "answered"  # of a question
INTERVIEW, ENDED = "interview", "ended"  # of a mock interview: begun, and over
EXERCISE_KINDS = (CHECKED, HINT, SOLUTION)
KINDS = (*EXERCISE_KINDS, ANSWERED, INTERVIEW, ENDED)
LONGEST = 200  # characters in a name
MOST_TIERS = 100
MOST_DETAILS = 20_000  # characters


class Trouble(Exception):
    """Progress cannot be kept or read; the message says why and what to do, and follows "Progress is not saved: "."""


def now() -> str:
    """The time in UTC as ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Event:
    """What was done with an exercise, a question or a mock interview. Events are added and read, never changed.

    Attributes:
        exercise: id of the exercise, the question or the interview; the course may have dropped it since.
        kind: of an exercise ``checked``, ``hint`` or ``solution`` (the place of the solution was told); of a question
            ``answered``; of an interview ``interview`` (it began) or ``ended``.
        passed: of a check, whether it passed, of an answer, whether it was good enough; else None.
        tier: of a hint, which one, counted from 1; else None.
        code: of a check, the code of its first finding; else empty.
        time: UTC, ISO 8601 with microseconds. Any ISO time with an offset is taken and brought into this form.
        id: a UUID, by which copies of one event are known.
        details: of an answer or an interview, what else is to be remembered, as the JSON text of an object; else empty.

    Raises:
        ValueError: a value is not of this form, in a clause that names it.
    """

    exercise: str
    kind: str
    passed: bool | None = None
    tier: int | None = None
    code: str = ""
    time: str = field(default_factory=now)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    details: str = ""

    @property
    def said(self) -> dict[str, Any]:
        """The details as a dict."""
        return json.loads(self.details) if self.details else {}

    def __post_init__(self) -> None:
        if not _printable(self.exercise) or not self.exercise:
            raise ValueError(f"exercise is {self.exercise!r}, not a name")
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, not one of {', '.join(KINDS)}")
        if (type(self.passed) is bool) != (self.kind in (CHECKED, ANSWERED)) or type(self.passed) not in (bool, type(None)):
            raise ValueError(f"passed is {self.passed!r} in an event of the kind {self.kind}")
        is_tier = type(self.tier) is int and 1 <= self.tier <= MOST_TIERS
        if not (is_tier if self.kind == HINT else self.tier is None):
            raise ValueError(f"tier is {self.tier!r} in an event of the kind {self.kind}")
        if not _printable(self.code):
            raise ValueError(f"code is {self.code!r}, not a name")
        if not _is_details(self.details) or (self.details and self.kind in EXERCISE_KINDS):
            raise ValueError(f"details is {self.details!r:.80} in an event of the kind {self.kind}")
        object.__setattr__(self, "time", _in_utc(self.time))
        object.__setattr__(self, "id", _canonical(self.id))


def _printable(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and len(name) <= LONGEST


def _is_details(text: object) -> bool:
    if not isinstance(text, str) or len(text) > MOST_DETAILS:
        return False
    try:
        return not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _in_utc(time: object) -> str:
    try:
        moment = datetime.fromisoformat(time)  # type: ignore[arg-type]
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"time is {time!r}, not an ISO 8601 time with an offset from UTC") from None


def _canonical(name: object) -> str:
    try:
        return str(uuid.UUID(name))  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"id is {name!r}, not a UUID") from None
