"""Claims on trial: guessed before they are run, and how the guesses went by theme."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from course_lib import journal
from course_lib.practice.asking import Asked, rating_for, remember
from course_lib.practice.choose import language_of
from course_lib.practice.pages import flat
from course_lib.practice.words import word
from course_lib.questions import get
from course_lib.questions.grading import Grade, verdict_in

WIDTH = 100
"""Characters of a line of text at most."""


@dataclass(frozen=True)
class Guess:
    """The first answer that somebody gave to a claim: a verdict, "" where they did not know, and whether it was right."""

    said: str
    right: bool


@dataclass(frozen=True)
class Score:
    """How a theme went: its name, its claims, those guessed, and those guessed right."""

    theme: str
    count: int
    guessed: int
    right: int


def claims(ids: Iterable[str], language: str = "en") -> list[Asked]:
    """The verdict questions of these ids, put in a language.

    Raises:
        ValueError: there is no such question or language, it is no verdict, or there is none at all.
    """
    language = language_of(language)
    if isinstance(ids, str) or not (found := [get(name) for name in ids]):
        raise ValueError(f"ids is {ids!r}. Allowed: a list of ids of verdict questions, at least one.")
    for question in found:
        if question.kind != "verdict":
            raise ValueError(f"{question.id} is of kind {question.kind}. Allowed: verdict.")
    return [Asked(question, None, language) for question in found]


def judge(asked: Asked, said: str, seconds: float = 0.0) -> Grade:
    """Grade a guess and remember it.

    Raises:
        BadAnswer: it is none of right, wrong and depends; nothing is remembered then.
    """
    grade = asked.grade(said)
    remember(asked, grade, rating_for(grade), seconds, said)
    return grade


def first_guesses(events: Iterable[journal.Event]) -> dict[str, Guess]:
    """The first answer to each question that was answered, by its id: after it, one knows."""
    found: dict[str, Guess] = {}
    for event in events:
        if event.kind == journal.ANSWERED:
            found.setdefault(event.exercise, Guess(verdict_in(str(event.said.get("answer", ""))) or "", bool(event.passed)))
    return found


def scores(rounds: Mapping[str, Sequence[str]], known: Mapping[str, Guess]) -> list[Score]:
    """How each theme went, in the order of ``rounds``, which maps a theme to the ids of its claims."""
    return [
        Score(
            theme,
            len(ids),
            sum(name in known for name in ids),
            sum(name in known and known[name].right for name in ids),
        )
        for theme, ids in rounds.items()
    ]


def words_of(asked: Sequence[Asked]) -> str:
    """Claims as text: numbered, each with its id, and how to guess where there are no buttons."""
    language = asked[0].language
    lines = [f"{number}. {flat(one.claim)} [{one.question.id}]" for number, one in enumerate(asked, start=1)]
    if language == "en":  # Chinese has no spaces to break lines at
        lines = [textwrap.fill(line, WIDTH, subsequent_indent="   ", break_on_hyphens=False) for line in lines]
    return "\n".join([*lines, word("trial_without", language, name=asked[-1].question.id)])


def verdict_of(asked: Asked, grade: Grade, said: str) -> str:
    """What a guess was worth, in a line."""
    language = asked.language
    mark, key = ("✓", "right") if grade.enough else ("✗", "not_right")
    told = word("you_said", language, answer=word(f"{verdict}_", language)) if (verdict := verdict_in(said)) else ""
    return " ".join(part for part in (mark, word(key, language), told, asked.expected()) if part)


def score_text(rounds: Mapping[str, Sequence[str]], known: Mapping[str, Guess], language: str = "en") -> str:
    """The scores as text, a line for each theme, then the claims that were guessed wrongly."""
    rows = scores(rounds, known)
    width = max(len(row.theme) for row in rows)
    lines = [f"{row.theme:<{width}}  {_told(row, language)}" for row in rows]
    return "\n".join([*lines, *_believed(rounds, known, language)])


def score_markdown(rounds: Mapping[str, Sequence[str]], known: Mapping[str, Guess], language: str = "en") -> str:
    """The scores as a table, with their sum, then the claims that were guessed wrongly."""
    rows = scores(rounds, known)
    rows.append(
        Score(
            word("trial_all", language),
            *(sum(getattr(row, name) for row in rows) for name in ("count", "guessed", "right")),
        )
    )
    heads = [word(f"trial_{name}", language) for name in ("theme", "claims", "guessed", "right")]
    table = ["| " + " | ".join(heads) + " |", "|:---|---:|---:|---:|"]
    for row in rows:
        numbers = (row.guessed, row.right) if row.guessed else (word("trial_none", language), "")
        table.append("| " + " | ".join(map(str, (row.theme, row.count, *numbers))) + " |")
    believed = _believed(rounds, known, language)
    return "\n".join([*table, "", *([believed[0], "", *believed[1:]] if believed else [])]) + "\n"


def checked(rounds: Mapping[str, Sequence[str]], language: str = "en") -> dict[str, list[str]]:
    """Rounds with each theme's ids as a list. Raises ValueError where one is no map of themes to verdict questions."""
    if not isinstance(rounds, Mapping) or not rounds:
        raise ValueError(f"rounds is {rounds!r}. Allowed: a map of themes to lists of ids, at least one.")
    return {str(theme): [one.question.id for one in claims(ids, language)] for theme, ids in rounds.items()}


def _told(score: Score, language: str) -> str:
    if not score.guessed:
        return word("trial_none", language)
    return word("trial_told", language, count=score.count, guessed=score.guessed, right=score.right)


def _believed(rounds: Mapping[str, Sequence[str]], known: Mapping[str, Guess], language: str) -> list[str]:
    wrong = [name for ids in rounds.values() for name in ids if name in known and not known[name].right]
    lines = []
    for one in claims(wrong, language) if wrong else []:
        said = known[one.question.id].said
        answer = word(f"{said}_", language) if said else word("unknown", language)
        lines.append(f"- {flat(one.claim)} {word('you_said', language, answer=answer)} {one.expected()}")
    return [word("trial_believed", language), *lines] if lines else []
