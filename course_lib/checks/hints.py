"""Which hint comes next. What was seen and tried is remembered beyond the session."""

from __future__ import annotations

from course_lib import journal
from course_lib.checks.exercises import Exercise


def next_hint(exercise: Exercise) -> str:
    """The first hint that was not shown yet; after all of them and an honest try, where the solution is.

    What is shown here is recorded.
    """
    events = _events(exercise)
    tier = _last_tier(events) + 1
    if tier <= len(exercise.hints):
        journal.record(exercise.id, journal.HINT, tier=tier)
        return _hint(exercise, tier)
    kinds = {event.kind for event in events}
    if journal.CHECKED not in kinds:
        return "There are no more hints. Try it once, check it, and the solution is offered next."
    if journal.SOLUTION not in kinds:
        journal.record(exercise.id, journal.SOLUTION)
    return f"You have tried, and there are no more hints. The solution, explained: solutions/{exercise.notebook}.ipynb"


def seen_hints(exercise: Exercise) -> str:
    """The hints that were shown so far, one a line. Nothing is recorded."""
    tiers = range(1, min(_last_tier(_events(exercise)), len(exercise.hints)) + 1)
    return "\n".join(_hint(exercise, tier) for tier in tiers) or "You have not asked for a hint on this exercise yet."


def _events(exercise: Exercise) -> list[journal.Event]:
    return [event for event in journal.recall() if event.exercise == exercise.id]


def _last_tier(events: list[journal.Event]) -> int:
    return max((event.tier or 0 for event in events), default=0)


def _hint(exercise: Exercise, tier: int) -> str:
    return f"Hint {tier} of {len(exercise.hints)}: {exercise.hints[tier - 1]}"
