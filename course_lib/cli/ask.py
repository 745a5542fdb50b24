"""Putting a question to somebody in a terminal."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from course_lib.practice.asking import RATINGS, Asked, rating_for
from course_lib.practice.pages import flat, place, title
from course_lib.practice.proving import demonstrate
from course_lib.practice.words import word
from course_lib.questions.drawn import standard
from course_lib.questions.grading import BadAnswer, Grade, points
from course_lib.questions.render import cite
from course_lib.questions.runs import Curves

WIDEST = 100
HIGH = 16  # rows of a panel of curves
LOOKS = (("blue+", "braille"), ("orange+", "dot"), ("green+", "x"), ("magenta+", "o"), ("cyan+", "+"))
"""Colour and marker of each line: told apart without colours too."""


class Stopped(Exception):
    """The learner ended the session with Ctrl-C or Ctrl-D."""


@dataclass(frozen=True)
class Told:
    """What was answered: the grade, the seconds up to it, and what was written."""

    grade: Grade
    seconds: float
    written: str


def console() -> Console:
    """A console no wider than prose is read easily."""
    made = Console(highlight=False)
    made.width = min(made.width, WIDEST)
    return made


def ask(asked: Asked, out: Console, head: str = "", clock: Callable[[], float] = time.monotonic) -> Told:
    """Show a question, take an answer, grade it, show the answer.

    Raises:
        Stopped: the learner ended the session.
    """
    begun = clock()
    show_question(asked, out, head)
    written = ""
    if asked.automatic:
        key = {"compute": "ask_number", "verdict": "ask_verdict", "bug": "ask_line", "read-run": "ask_cause"}
        while True:
            written = read_line(out, word(key[asked.question.kind], asked.language))
            try:
                grade = asked.grade(written) if written else asked.unknown()
                break
            except BadAnswer as error:
                out.print(Text(asked.say(error.text), style="yellow"))
    else:
        out.print(Text(word("ask_spoken", asked.language), style="cyan"))
        written = read_lines(out)
        show_rubric(asked, out)
        while True:
            try:
                said = points(asked.question, read_line(out, word("ask_points", asked.language)))
                break
            except BadAnswer as error:
                out.print(Text(asked.say(error.text), style="yellow"))
        grade = asked.grade(said)
    seconds = clock() - begun
    show_grade(asked, grade, out)
    show_answer(asked, out)
    if asked.question.kind == "verdict":
        show_proof(asked, out)
    return Told(grade, seconds, written)


def ask_rating(asked: Asked, grade: Grade, out: Console) -> int:
    """Ask how well the answer was known; Enter takes what the grade proposes. Raises Stopped."""
    proposed = rating_for(grade)
    choices = "  ".join(f"{number} {word(name, asked.language)}" for number, name in RATINGS.items())
    while True:
        said = read_line(out, f"{word('ask_rating', asked.language)}  {choices}  [{proposed}]")
        if not said:
            return proposed
        if said in ("1", "2", "3", "4"):
            return int(said)


def show_question(asked: Asked, out: Console, head: str = "") -> None:
    """Show what the learner sees before answering."""
    question, language = asked.question, asked.language
    out.rule(Text(head), style="dim")
    out.print(Text(title(asked), style="dim"))
    out.print(Markdown(asked.prompt))
    if asked.claim:
        out.print(Markdown(f"> {' '.join(asked.claim.split())}"))
    if asked.code:
        out.print(Padding(Text(asked.code), (1, 0, 1, 2)))
    if asked.curves:
        out.print(Text.from_ansi(draw(asked.curves, out.width)))
        out.print(Text(word("causes", language), style="bold"))
        for letter, cause in zip("abcdefgh", asked.causes, strict=False):
            out.print(Padding(Text(f"{letter}  {cause}"), (0, 0, 0, 2)))
    if question.exercise:
        out.print(Text(word("exercise", language, name=question.exercise)))


def show_rubric(asked: Asked, out: Console) -> None:
    """Show the points that a good answer makes, numbered."""
    out.print(Text(word("rubric", asked.language), style="bold"))
    total = sum(weight for weight, _ in asked.rubric)
    for number, (weight, point) in enumerate(asked.rubric, start=1):
        worth = word("points", asked.language, weight=weight, total=total)
        out.print(Padding(Text(f"{number}  [{worth}] {point}"), (0, 0, 0, 2)))


def show_grade(asked: Asked, grade: Grade, out: Console) -> None:
    """Show what an answer was worth, and why."""
    if asked.automatic:
        key, style = ("right", "green") if grade.enough else ("not_right", "yellow")
        out.print(Text(word(key, asked.language), style=style))
    else:
        out.print(Text(word("score", asked.language, score=grade.score), style="green" if grade.enough else "yellow"))
    for remark in grade.remarks:
        out.print(Markdown(asked.say(remark)))


def show_answer(asked: Asked, out: Console) -> None:
    """Show the spoken answer and what belongs to it."""
    question, language = asked.question, asked.language
    out.print(Text(word("answer", language), style="bold"))
    if not asked.drawn.standard:
        out.print(Padding(Markdown(word("standard", language, prompt=standard(question).prompt(language))), (0, 0, 0, 2)))
    out.print(Padding(Markdown(asked.say(question.answer)), (0, 0, 0, 2)))
    if asked.automatic:
        show_rubric(asked, out)
    out.print(Markdown(f"**{word('weak', language)}** {flat(asked.say(question.weak.says))} "
                       f"**{word('costs', language)}** {flat(asked.say(question.weak.costs))}"))
    for key, lines in (
        ("follow_ups", [asked.say(text) for text in question.follow_ups]),
        ("sources", [cite(source) for source in question.sources]),
        ("evidence", [place(proof, language) for proof in question.evidence]),
    ):
        out.print(Markdown(f"**{word(key, language)}** " + " ".join(f"{flat(line)}{'' if key == 'follow_ups' else ';'}"
                                                                      for line in lines).rstrip(";")))
    if question.bug and question.bug.report:
        out.print(Text(word("report_at", language, address=question.bug.report)))


def show_proof(asked: Asked, out: Console) -> None:
    """Run what proves the answer, and show what was run."""
    for proof in demonstrate(asked.question):
        out.print(Padding(Syntax(proof.source, "python", background_color="default", word_wrap=True), (1, 0, 0, 2)))
        key, style = ("holds", "green") if proof.holds else ("does_not_hold", "red")
        out.print(Text(word(key, asked.language, name=proof.name), style=style))


def draw(curves: Curves, width: int) -> str:
    """The curves as text with ANSI colours, a panel below the other."""
    import plotext

    parts = []
    for panel in curves.panels:
        plotext.clear_figure()
        plotext.plotsize(width, HIGH)
        plotext.theme("clear")
        for (name, values), (colour, marker) in zip(panel.series.items(), itertools.cycle(LOOKS)):
            there = [(x, math.log10(y) if panel.log else y) for x, y in zip(curves.x, values, strict=True)
                     if math.isfinite(y) and (y > 0 or not panel.log)]
            if there:
                plotext.plot([x for x, _ in there], [y for _, y in there], marker=marker, color=colour,
                             label=name if len(panel.series) > 1 else None)
        plotext.title(f"log10 {panel.y}" if panel.log else panel.y)
        plotext.xlabel(curves.x_label)
        parts.append(plotext.build())
    return "\n".join(parts)


def read_line(out: Console, prompt: str) -> str:
    """A line from the learner. Raises Stopped at Ctrl-C and Ctrl-D."""
    try:
        return out.input(Text(f"{prompt} > ", style="cyan")).strip()
    except (EOFError, KeyboardInterrupt):
        out.print()
        raise Stopped from None


def read_lines(out: Console) -> str:
    """Lines up to an empty one. Raises Stopped."""
    lines: list[str] = []
    while True:
        line = read_line(out, "")
        if not line:
            return "\n".join(lines)
        lines.append(line)
