"""A mock interview: a plan drawn from a seed, answered against the clock, remembered answer by answer.

All of it is in the journal. An interview that was cut short goes on where it stopped, in this window or another;
a place that two windows answer keeps the first answer. Time counts while a question is open, by the window's own
stopwatch, so a pause costs nothing and a clock that jumps does no harm.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from course_lib import journal
from course_lib.practice.asking import SECONDS, Asked, rating_for, remember
from course_lib.practice.choose import BadChoice, areas_of, choose, language_of, level_of
from course_lib.questions import Question, bank
from course_lib.questions.grading import Grade

SHORTEST, LONGEST = 5, 180
"""Minutes that a mock interview may take."""

SHARES = {"explain": 20, "derive": 12, "compute": 18, "bug": 14, "read-run": 10, "design": 8, "verdict": 14, "implement": 4}
"""Of 100 questions, how many of each kind: the blueprint's mix, with verdicts beside it."""
NEAR = {1: {1: 8, 2: 2}, 2: {1: 2, 2: 6, 3: 2}, 3: {2: 4, 3: 6}}
"""Of 10 questions, how many of each level, for an interview at a level."""
IMPLEMENT_FROM = 40
"""Minutes from which an interview has room for ten minutes of code."""


@dataclass(frozen=True)
class Answer:
    """What was answered at one place: the score from 0 to 1, the seconds it took, and what was written."""

    score: float
    seconds: float
    written: str = ""


@dataclass
class Interview:
    """A mock interview, under way or over.

    Attributes:
        id: a UUID.
        minutes, level, areas, language: as it was asked for.
        items: (question id, seed) in order.
        answers: by place in items, from 0.
        ended: whether it is over.
    """

    id: str
    minutes: int
    level: int
    areas: tuple[str, ...]
    language: str
    items: tuple[tuple[str, int], ...]
    answers: dict[int, Answer] = field(default_factory=dict)
    ended: bool = False

    @property
    def place(self) -> int | None:
        """The place of the question that is next; None where nothing is left."""
        open_ = (place for place in range(len(self.items)) if place not in self.answers)
        return None if self.ended else next(open_, None)

    @property
    def seconds_used(self) -> float:
        """The time that the answers so far took."""
        return sum(answer.seconds for answer in self.answers.values())

    @property
    def seconds_left(self) -> float:
        """The time left of the whole; below zero where it was overrun."""
        return 60.0 * self.minutes - self.seconds_used

    def asked(self, place: int) -> Asked:
        """The question at a place."""
        name, seed = self.items[place]
        return Asked(bank()[name], seed, self.language)

    def answer(self, place: int, grade: Grade, seconds: float, written: str = "") -> bool:
        """Keep an answer; False where another window was first, whose answer then stands."""
        self.refresh()
        if place in self.answers or self.ended:
            return False
        remember(self.asked(place), grade, rating_for(grade), seconds, written, self.id, place)
        self.answers[place] = Answer(grade.score, seconds, written)
        return True

    def end(self) -> None:
        """Close it; what was not asked does not count."""
        if not self.ended:
            self.ended = True
            journal.record(self.id, journal.ENDED)

    def refresh(self) -> None:
        """Take over what another window has answered."""
        for other in interviews(journal.recall()):
            if other.id == self.id:
                self.answers, self.ended = other.answers | self.answers, other.ended or self.ended


def plan(
    minutes: int = 45, level: int = 2, areas: str | Iterable[str] | None = None, seed: int = 0, without: Iterable[str] = ()
) -> list[tuple[str, int]]:
    """Questions for an interview, as (id, seed), that fill its minutes; one seed gives one plan.

    The mix of kinds is SHARES, that of levels NEAR, and areas take turns. Questions of ``without`` come last.

    Raises:
        BadChoice: minutes, level or an area is not there, or the bank has nothing of it.
    """
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not SHORTEST <= minutes <= LONGEST:
        raise BadChoice(f"minutes is {minutes}. Allowed: {SHORTEST} to {LONGEST}.")
    level = level_of(level) or 2
    numbers = random.Random(seed)
    later = set(without)
    pool = choose(areas)
    numbers.shuffle(pool)
    pool.sort(key=lambda question: question.id in later)
    items: list[tuple[str, int]] = []
    left = 60.0 * minutes
    count = {"kind": {}, "level": {}, "area": {}}

    def want(question: Question) -> float:
        """How much the mix asks for this question now; the more, the sooner."""
        near, total = NEAR[level], len(items) + 1
        kind = SHARES[question.kind] / 100 * total - count["kind"].get(question.kind, 0)
        right = near.get(question.level, 0) / 10 * total - count["level"].get(question.level, 0)
        return kind + right - 2 * count["area"].get(question.area, 0)

    while pool:
        fits = [one for one in pool if SECONDS[one.kind] <= left and NEAR[level].get(one.level)
                and not (one.kind == "implement" and (minutes < IMPLEMENT_FROM or count["kind"].get("implement")))]
        fits = [one for one in fits if one.id not in later] or fits
        if not fits:
            break
        best = max(fits, key=want)
        pool.remove(best)
        items.append((best.id, numbers.randrange(2**31)))
        left -= SECONDS[best.kind]
        for what, value in (("kind", best.kind), ("level", best.level), ("area", best.area)):
            count[what][value] = count[what].get(value, 0) + 1
    if not items:
        raise BadChoice(f"The bank has nothing of level {level} in {', '.join(areas_of(areas))} that {minutes} minutes "
                        "have room for. Choose more areas or another level.")
    return items


def begin(
    minutes: int = 45, level: int = 2, areas: str | Iterable[str] | None = None, language: str = "en", seed: int | None = None
) -> Interview:
    """Begin an interview and remember its plan. Without a seed, questions of earlier interviews come last.

    Raises:
        BadChoice: see :func:`plan`; or the language is not there.
    """
    language = language_of(language)
    earlier = [name for one in interviews(journal.recall()) for name, _ in one.items] if seed is None else []
    chosen = plan(minutes, level, areas, random.SystemRandom().randrange(2**31) if seed is None else seed, earlier)
    one = Interview(str(uuid.uuid4()), minutes, level, areas_of(areas), language, tuple(chosen))
    details = {"minutes": minutes, "level": level, "areas": one.areas, "language": language, "items": one.items}
    journal.record(one.id, journal.INTERVIEW, details=details)
    return one


def interviews(events: Iterable[journal.Event]) -> list[Interview]:
    """All interviews that the journal remembers, the oldest first. One of which the bank no longer has a question is left out."""
    events = list(events)
    found: dict[str, Interview] = {}
    for event in events:  # by themselves first: a clock that jumped back puts answers before the beginning
        if event.kind == journal.INTERVIEW and (one := _begun(event)):
            found[one.id] = one
    for event in events:
        if event.kind == journal.ENDED and event.exercise in found:
            found[event.exercise].ended = True
        elif event.kind == journal.ANSWERED and (one := found.get(event.said.get("interview", ""))):
            said = event.said
            place, item = said.get("place"), (event.exercise, said.get("seed"))
            if type(place) is int and 0 <= place < len(one.items) and one.items[place] == item:
                answer = Answer(said["score"], said["seconds"], said.get("answer", ""))
                one.answers.setdefault(place, answer)
    return list(found.values())


def _begun(event: journal.Event) -> Interview | None:
    said = event.said
    try:
        items = tuple((name, seed) for name, seed in said["items"])
        one = Interview(event.exercise, said["minutes"], said["level"], tuple(said["areas"]), said["language"], items)
    except (KeyError, TypeError, ValueError):
        return None
    return one if all(name in bank() for name, _ in items) else None


def unfinished() -> Interview | None:
    """The latest interview that is neither over nor answered to its end; None where there is none."""
    for one in reversed(interviews(journal.recall())):
        if one.place is not None:
            return one
    return None
