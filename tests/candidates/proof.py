"""Runs every known answer, right and wrong, through the checks, and sums up what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

from candidates.catalogued import candidate
from candidates.functions import FUNCTIONS
from candidates.right import variants
from candidates.wrong import conduct
from candidates.written import written
from course_lib.checks import EXERCISES, check
from course_lib.checks.judges import judge
from course_lib.checks.numbers import ANSWERS
from course_lib.checks.report import REMARK
from course_lib.checks.sandbox import without_compiler
from course_lib.checks.specs import SPECS


@dataclass(frozen=True)
class Outcome:
    """One answer and its verdict. ``expected`` is the code it must earn, empty for a correct answer."""

    exercise: str
    name: str
    expected: str
    codes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.codes

    @property
    def named(self) -> bool:
        return self.expected in self.codes


def outcomes(exercise: str) -> Iterator[Outcome]:
    """Every known answer to an exercise that stands for its kind: the guided one for a whole optimizer."""
    kind = EXERCISES[exercise].kind
    if exercise in FUNCTIONS:
        known = FUNCTIONS[exercise]
    elif kind == "optimizer":
        without_compiler(torch.optim.Optimizer)
        for mistake in SPECS[exercise].family.mistakes:
            findings = judge(exercise, candidate(exercise, mistake), lambda _: None)
            yield Outcome(exercise, mistake.code, mistake.code, tuple(f.code for f in findings if f.kind != REMARK))
        accepted = {name: (cls, "") for name, cls in variants(exercise).items()}
        known = {**accepted, **conduct(exercise), **written(exercise)}
    else:
        answer = ANSWERS[exercise]
        known = {"right": (answer.value, ""), **{slip.code: (slip.value, slip.code) for slip in answer.slips}}
    for name, (value, expected) in known.items():
        report = check(exercise, value, allow_production="'s own" in name)
        yield Outcome(exercise, name, expected, tuple(f.code for f in report.findings if f.kind != REMARK))


PROVED = tuple(key for key in EXERCISES if key in (*SPECS, *FUNCTIONS) or EXERCISES[key].kind != "optimizer")


@cache
def proof(exercise: str) -> tuple[Outcome, ...]:
    return tuple(outcomes(exercise))


def table() -> str:
    """The table of kills as Markdown."""
    rows = [
        "| exercise | wrong answers | rejected | named | correct answers | accepted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for exercise in PROVED:
        wrong = [outcome for outcome in proof(exercise) if outcome.expected]
        right = [outcome for outcome in proof(exercise) if not outcome.expected]
        rows.append(
            f"| `{exercise}` | {len(wrong)} | {sum(not o.passed for o in wrong)} | {sum(o.named for o in wrong)} "
            f"| {len(right)} | {sum(o.passed for o in right)} |"
        )
    return "\n".join(rows)
