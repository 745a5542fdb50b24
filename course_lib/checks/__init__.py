"""Exercises that check themselves: ``check("adamw", AdamW)`` tells what is wrong, ``hint("adamw")`` helps on."""

from __future__ import annotations

import difflib
import json
import os
import sys
from typing import Any

from course_lib import journal
from course_lib.checks.exercises import EXERCISES, Exercise
from course_lib.checks.hints import next_hint, seen_hints
from course_lib.checks.report import Finding, Report

__all__ = ["EXERCISES", "Exercise", "Finding", "Report", "check", "find", "hint"]


def find(exercise: str) -> Exercise:
    """The exercise of that id. Raises KeyError, with the nearest id suggested, if there is none."""
    if exercise in EXERCISES:
        return EXERCISES[exercise]
    near = difflib.get_close_matches(str(exercise), EXERCISES, n=1, cutoff=0.4)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownExercise(f"There is no exercise {exercise!r}.{suggestion} There are: {', '.join(EXERCISES)}.")


class UnknownExercise(KeyError):
    """No exercise has this id."""

    def __str__(self) -> str:
        return str(self.args[0])


def check(exercise: str, candidate: Any, *, allow_production: bool = False) -> Report:
    """Check ``candidate``, your answer to ``exercise``, and say what is wrong with it.

    Classes and functions run in a process of their own with a time limit, so that nothing they do can harm the
    kernel. The verdict is kept with your progress, unless the answer still is the blank. Where the environment variable
    COURSE_REPORTS names a file, the report is appended to it as a line of JSON.

    Args:
        exercise: an id from ``EXERCISES``, such as ``"adamw"``.
        candidate: the class, the function or the number that the exercise asks for.
        allow_production: accept a finished optimizer of torch's, to see that the checks accept it.

    Returns:
        A report: ``passed`` and ``findings``; it prints as text and shows as HTML.

    Raises:
        UnknownExercise: there is no such exercise; the nearest id is suggested.
    """
    kind = find(exercise).kind
    if kind == "number":
        from course_lib.checks.numbers import judge_number

        findings = judge_number(exercise, candidate)
    else:
        from course_lib.checks import sandbox

        findings = sandbox.run(exercise, candidate, allow_production=allow_production)
    report = Report(exercise, tuple(findings))
    if not any(finding.code == "blank" for finding in findings):
        code = findings[0].code if findings else ""
        journal.record(exercise, journal.CHECKED, passed=report.passed, code=code)
        if not report.passed:
            report = Report(exercise, report.findings, f'For a hint: `hint("{exercise}")`.')
    news = _tell_news()
    if path := os.environ.get("COURSE_REPORTS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(report.to_dict() | ({"news": news} if news else {})) + "\n")
    return report


def hint(exercise: str, again: bool = False) -> None:
    """Print the next hint for an exercise: first a question, then more, and after an honest try where the solution is.

    Hints go on where the last session stopped; an honest try is a check of anything but the blank.

    Args:
        exercise: an id from ``EXERCISES``, such as ``"adamw"``.
        again: print the hints that you have seen once more, and no new one.

    Raises:
        UnknownExercise: there is no such exercise; the nearest id is suggested.
    """
    print((seen_hints if again else next_hint)(find(exercise)))
    _tell_news()


def _tell_news() -> list[str]:
    news = journal.news()
    for sentence in news:
        print(sentence, file=sys.stderr)
    return news
