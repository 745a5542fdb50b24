"""When to ask a question again: FSRS over the answers that the journal remembers.

Nothing is stored but the answers. What FSRS knows about a question follows from them, so two windows that answer at
the same time, or an import from another machine, need no merging.

FSRS (Ye, Su, Cao, "A Stochastic Shortest Path Algorithm for Optimizing Spaced Repetition Scheduling", 2022) as the
package ``fsrs`` has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from course_lib import journal
from course_lib.questions import Question

if TYPE_CHECKING:
    import fsrs

LONGEST_PAUSE = 30
"""Days after which a question comes again at the latest: an interview is near."""


class NoScheduler(RuntimeError):
    """The package fsrs is missing; the message says how to get it."""


@dataclass(frozen=True)
class Memory:
    """What is known about one question.

    Attributes:
        due: when to ask it again, UTC.
        recall: the probability with which the answer is known now, as FSRS sees it.
        last: when it was answered last, UTC.
        rating: of the last answer, 1 (again) to 4 (easy).
        answers: how often it was answered.
    """

    due: datetime
    recall: float
    last: datetime
    rating: int
    answers: int


def memories(events: Iterable[journal.Event], now: datetime | None = None) -> dict[str, Memory]:
    """What the answers among ``events`` say about each question, by its id.

    A time that lies ahead of ``now``, or before an answer already seen, comes from a clock that was wrong. It is taken
    as now, or as the time of that answer.

    Raises:
        NoScheduler: the package fsrs is missing.
    """
    fsrs = _package()
    now = now or datetime.now(UTC)
    scheduler = fsrs.Scheduler(enable_fuzzing=False, maximum_interval=LONGEST_PAUSE)
    cards: dict[str, fsrs.Card] = {}
    last: dict[str, tuple[datetime, int, int]] = {}
    answers = (event for event in events if event.kind == journal.ANSWERED)
    for event in sorted(answers, key=lambda event: (event.time, event.id)):
        rating = event.said.get("rating")
        if type(rating) is not int or not 1 <= rating <= 4:
            rating = 3 if event.passed else 1
        before, _, count = last.get(event.exercise, (datetime.min.replace(tzinfo=UTC), 0, 0))
        when = max(before, min(now, datetime.fromisoformat(event.time)))
        card = cards.get(event.exercise) or fsrs.Card(card_id=len(cards) + 1, due=when)
        cards[event.exercise], _ = scheduler.review_card(card, fsrs.Rating(rating), when)
        last[event.exercise] = when, rating, count + 1
    return {
        name: Memory(min(card.due, last[name][0] + timedelta(days=LONGEST_PAUSE)),
                     scheduler.get_card_retrievability(card, max(now, last[name][0])), *last[name])
        for name, card in cards.items()
    }


def next_questions(
    chosen: Iterable[Question], known: dict[str, Memory], count: int, new: int, now: datetime | None = None
) -> list[Question]:
    """What to ask now: due questions, the longest overdue first, then at most ``new`` that were never asked.

    New ones come by level, and area by area in turn, as the course has them.
    """
    now = now or datetime.now(UTC)
    chosen = list(chosen)
    due = sorted((known[one.id].due, place, one) for place, one in enumerate(chosen)
                 if one.id in known and known[one.id].due <= now)
    fresh = in_turn([one for one in chosen if one.id not in known])
    return [*(one for _, _, one in due), *fresh[: max(0, new)]][: max(0, count)]


def in_turn(questions: Iterable[Question]) -> list[Question]:
    """The questions by level, and within a level one of each area before the second of any."""
    turn: dict[tuple[int, str], int] = {}
    keys = []
    for place, question in enumerate(questions):
        round_ = turn[question.level, question.area] = turn.get((question.level, question.area), -1) + 1
        keys.append((question.level, round_, place, question))
    return [question for *_, question in sorted(keys, key=lambda key: key[:3])]


def due_by_day(known: dict[str, Memory], days: int, now: datetime | None = None) -> list[int]:
    """How many questions fall due up to now, within a day, within two days, ...: ``days + 1`` numbers, not summed."""
    now = now or datetime.now(UTC)
    counts = [0] * (days + 1)
    for memory in known.values():
        ahead = max(0, -((now - memory.due) // timedelta(days=1))) if memory.due > now else 0
        if ahead <= days:
            counts[ahead] += 1
    return counts


def _package():
    try:
        import fsrs
    except ImportError:
        raise NoScheduler("Repetition needs the package fsrs. Install it with: pip install fsrs") from None
    return fsrs
