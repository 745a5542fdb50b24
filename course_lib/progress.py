"""How far a learner has come, from what the journal remembers: ``progress.show()`` in a notebook, `course progress`."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from course_lib import journal
from course_lib.checks.exercises import EXERCISES
from course_lib.journal import pause

__all__ = ["Overview", "Standing", "overview", "pause", "show"]

PASSED, TRIED, HINTED, UNTOUCHED = "passed", "tried", "hints seen", "untouched"
HEADINGS = ("exercise", "state", "hints", "last")


@dataclass(frozen=True)
class Standing:
    """How one exercise stands.

    Attributes:
        exercise: its id.
        state: ``passed`` once a check has passed, whatever came later; ``tried`` if it was checked; ``hints seen`` if
            hints were asked for; else ``untouched``. A check of the blank is no try.
        checks: how often it was checked.
        hints: how many of its hints were shown.
        solution: whether the place of its solution was told.
        last: when anything of this happened last, UTC in ISO 8601; None if it is untouched.
    """

    exercise: str
    state: str = UNTOUCHED
    checks: int = 0
    hints: int = 0
    solution: bool = False
    last: str | None = None


def standing(exercise: str, events: Iterable[journal.Event]) -> Standing:
    """Sum up the events of one exercise, which may come in any order."""
    events = list(events)
    checks = [event for event in events if event.kind == journal.CHECKED]
    hints = max((event.tier or 0 for event in events), default=0)
    solution = any(event.kind == journal.SOLUTION for event in events)
    passed = any(event.passed for event in checks)
    state = PASSED if passed else TRIED if checks else HINTED if events else UNTOUCHED
    return Standing(exercise, state, len(checks), hints, solution, max((event.time for event in events), default=None))


class Overview:
    """How all exercises stand; prints as text and shows as HTML.

    Attributes:
        standings: one for each exercise, in the order of the course.
        retired: one for each id with events that the course does not have, any more or yet.
        answered: ids of the bank's questions that were answered, in quizzes and mock interviews.
    """

    def __init__(self, events: Iterable[journal.Event]) -> None:
        of: dict[str, list[journal.Event]] = {}
        self.answered: set[str] = set()
        for event in events:
            if event.kind in journal.EXERCISE_KINDS:
                of.setdefault(event.exercise, []).append(event)
            elif event.kind == journal.ANSWERED:
                self.answered.add(event.exercise)
        self.standings = [standing(name, of.get(name, [])) for name in EXERCISES]
        self.retired = [standing(name, of[name]) for name in sorted(of.keys() - EXERCISES.keys())]

    @property
    def passed(self) -> int:
        """How many of the course's exercises are passed."""
        return sum(one.state == PASSED for one in self.standings)

    @property
    def next(self) -> str | None:
        """The exercise to go on with: the one worked on last that is not passed, else the first that is not passed."""
        left = [one for one in self.standings if one.state != PASSED]
        return max(left, key=lambda one: one.last or "").exercise if left else None

    def tables(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """A table for each notebook: its name, and the rows with their cells as HEADINGS names them."""
        notebooks: dict[str, list[tuple[str, ...]]] = {}
        for one in self.standings:
            notebooks.setdefault(f"exercises/{EXERCISES[one.exercise].notebook}.ipynb", []).append(_row(one))
        if self.retired:
            notebooks["not in this version of the course"] = [_row(one) for one in self.retired]
        return list(notebooks.items())

    def summary(self) -> list[str]:
        """How many are passed, and what to do next, in sentences."""
        tried = sum(one.state == TRIED for one in self.standings)
        total = len(self.standings)
        lines = [f"{self.passed} of {total} passed; {tried} tried; {total - self.passed - tried} to begin."]
        if self.answered:
            lines.append(f"Questions answered: {len(self.answered)}. What is due, and something new: course quiz")
        if self.next is None:
            return [*lines, "You have passed every exercise."]
        exercise = EXERCISES[self.next]
        return [*lines, f"Next: {exercise.id} ({exercise.title}) in exercises/{exercise.notebook}.ipynb"]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        rows = [
            {"id": one.exercise, "title": EXERCISES[one.exercise].title, "notebook": EXERCISES[one.exercise].notebook}
            | _plain(one)
            for one in self.standings
        ]
        retired = [{"id": one.exercise} | _plain(one) for one in self.retired]
        return {"exercises": rows, "retired": retired, "passed": self.passed, "total": len(rows), "next": self.next,
                "answered": sorted(self.answered)}

    def __str__(self) -> str:
        tables = self.tables()
        rows = [HEADINGS, *(row for _, table in tables for row in table)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]

        def line(row: tuple[str, ...]) -> str:
            return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

        parts = ["\n".join([title, line(HEADINGS), *map(line, table)]) for title, table in tables]
        return "\n\n".join([*parts, "\n".join(self.summary())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        head = "".join(f'<th scope="col" {left}>{name}</th>' for name in HEADINGS)
        bodies = []
        for title, table in self.tables():
            rows = [f'<tr><th scope="rowgroup" colspan="{len(HEADINGS)}" {left}>{html.escape(title)}</th></tr>']
            rows += [f"<tr>{''.join(f'<td {left}>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table]
            bodies.append(f"<tbody>{''.join(rows)}</tbody>")
        sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self.summary())
        return f"<table><thead><tr>{head}</tr></thead>{''.join(bodies)}</table>{sentences}"


def overview() -> Overview:
    """How all exercises stand now. Raises journal.Trouble: the file cannot be read."""
    return Overview(journal.load())


def show() -> None:
    """Show your progress below the cell as a table; outside a notebook, print it."""
    try:
        now = overview()
    except journal.Trouble as trouble:
        print(f"Progress cannot be read: {trouble}", file=sys.stderr)
        return
    for sentence in journal.news():
        print(sentence, file=sys.stderr)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        sys.modules["IPython"].display.display(now)
    else:
        print(now)


def _row(one: Standing) -> tuple[str, ...]:
    known = EXERCISES.get(one.exercise)
    hints = "all, solution" if one.solution else f"{one.hints} of {len(known.hints)}" if known else str(one.hints)
    times = "once" if one.checks == 1 else f"{one.checks} times"
    state = f"tried {times}" if one.state == TRIED else one.state
    when = f"{datetime.fromisoformat(one.last).astimezone():%Y-%m-%d %H:%M}" if one.last else ""
    return one.exercise, state, hints if one.hints or one.solution else "", when


def _plain(one: Standing) -> dict[str, Any]:
    values = asdict(one)
    del values["exercise"]
    return values
