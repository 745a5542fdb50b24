"""One question being asked: what the learner sees, how the answer is graded, what is shown then, what is remembered."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property

from course_lib import journal
from course_lib.questions import Question
from course_lib.questions.drawn import Drawn, draw, standard
from course_lib.questions.grading import (
    AUTOMATIC,
    Grade,
    causes,
    grade_cause,
    grade_line,
    grade_number,
    grade_points,
    grade_verdict,
)
from course_lib.questions.runs import Curves
from course_lib.questions.runs import load as load_curves
from course_lib.questions.schema import Text

AGAIN, HARD, GOOD, EASY = 1, 2, 3, 4
RATINGS = {AGAIN: "again", HARD: "hard", GOOD: "good", EASY: "easy"}
"""How well an answer was known, as FSRS has it."""
MOST_WRITTEN = 4000
"""Characters of an answer that are remembered."""

SECONDS = {"explain": 180, "derive": 300, "design": 300, "compute": 180, "verdict": 90, "bug": 180, "read-run": 180,
           "implement": 600}
"""The time for a question of each kind in a mock interview, grading included, in seconds."""

OPEN_FOR = 3
"""A question that is open for so many times the time of its kind is not being answered: nobody is there."""


def new_seed() -> int:
    """A seed that nobody has had."""
    return secrets.randbelow(2**31)


@dataclass(frozen=True)
class Asked:
    """A question as it is put to somebody once.

    Attributes:
        question: the question.
        seed: what its numbers and the order of its causes are drawn with; None for the numbers of the bank's answer.
        language: "en" or "zh".
    """

    question: Question
    seed: int | None
    language: str = "en"

    @cached_property
    def drawn(self) -> Drawn:
        """The question with its numbers."""
        return standard(self.question) if self.seed is None else draw(self.question, self.seed)

    @property
    def automatic(self) -> bool:
        """Whether the answer is graded by itself; else by the points of the rubric that it made."""
        return self.question.kind in AUTOMATIC

    @property
    def prompt(self) -> str:
        """What the interviewer says."""
        return self.drawn.prompt(self.language).strip()

    @property
    def claim(self) -> str | None:
        """The claim on trial, of a verdict."""
        return self.say(self.question.claim) if self.question.claim else None

    @property
    def code(self) -> str | None:
        """The code with its lines numbered, of a bug."""
        if self.question.bug is None:
            return None
        lines = self.question.bug.code.rstrip().splitlines()
        return "\n".join(f"{number:2}  {line}".rstrip() for number, line in enumerate(lines, start=1))

    @cached_property
    def causes(self) -> list[str]:
        """The causes to choose from, of a read-run question."""
        return [self.say(cause) for cause in causes(self.question, self.seed or 0)] if self.question.run else []

    @cached_property
    def curves(self) -> Curves | None:
        """The curves to read, of a read-run question."""
        return load_curves(self.question.id) if self.question.run else None

    @property
    def rubric(self) -> list[tuple[int, str]]:
        """Weight and text of each point that a good answer makes."""
        return [(point.weight, " ".join(self.say(point.point).split())) for point in self.question.rubric]

    def grade(self, answer: str | set[int]) -> Grade:
        """Grade an answer: text of an automatic kind, else the points made, counted from 1.

        Raises:
            BadAnswer: the answer cannot be read; ask again.
        """
        kind = self.question.kind
        if kind == "compute":
            return grade_number(self.drawn, answer)
        if kind == "verdict":
            return grade_verdict(self.question, answer)
        if kind == "bug":
            return grade_line(self.question, answer)
        if kind == "read-run":
            return grade_cause(self.question, causes(self.question, self.seed or 0), answer)
        return grade_points(self.question, answer)

    def unknown(self) -> Grade:
        """The grade of somebody who gives the question up."""
        return Grade(0.0, (Text(en=self.expected(), zh=self.expected()),) if self.expected() else ())

    def expected(self) -> str:
        """The right answer in a few words, of an automatic kind; else empty."""
        question = self.question
        if question.kind == "verdict":
            return self.say(grade_verdict(question, question.verdict).remarks[0])
        if question.kind == "compute":
            return self.say(grade_number(self.drawn, repr(self.drawn.answer())).remarks[0])
        if question.kind == "bug":
            return self.say(grade_line(question, str(question.bug.line)).remarks[0])
        return self.say(question.run.causes[0]) if question.run else ""

    def say(self, text: Text) -> str:
        """A text in the language of the asking, in English where there is no other."""
        return getattr(text, self.language) or text.en


def rating_for(grade: Grade) -> int:
    """The rating to propose for a grade; whoever answered may say otherwise."""
    return GOOD if grade.score >= 0.85 else HARD if grade.enough else AGAIN


def remember(
    asked: Asked, grade: Grade, rating: int, seconds: float, answer: str = "", interview: str = "", place: int | None = None
) -> None:
    """Keep an answer in the journal.

    Args:
        asked: the question as it was put.
        grade: what the answer was worth.
        rating: 1 (again) to 4 (easy).
        seconds: how long it took.
        answer: what was written; its first MOST_WRITTEN characters are kept.
        interview: id of the mock interview it belongs to, if any, and ``place``, its place there.
    """
    details = {"seed": asked.seed, "language": asked.language, "score": round(grade.score, 4), "rating": rating,
               "seconds": round(max(0.0, seconds), 1)}
    if answer.strip():
        details["answer"] = answer.strip()[:MOST_WRITTEN]
    if interview:
        details |= {"interview": interview, "place": place}
    journal.record(asked.question.id, journal.ANSWERED, passed=grade.enough, details=details)

