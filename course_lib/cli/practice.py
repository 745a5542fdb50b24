"""`course quiz` and `course interview`: practising with the question bank in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from course_lib import journal
from course_lib.cli.ask import Stopped, ask, ask_rating, console
from course_lib.practice import anki, schedule
from course_lib.practice import interview as mock
from course_lib.practice.asking import OPEN_FOR, SECONDS, Asked, new_seed, remember
from course_lib.practice.choose import BadChoice, choose, language_of
from course_lib.practice.report import report
from course_lib.practice.words import when_due, word
from course_lib.questions import BankError

BAD_INPUT = 2  # exit code
Areas = Annotated[
    str | None,
    typer.Option(metavar="NAMES", show_default=False, help="Areas, with commas: memory,amp. Without it, all."),
]
Level = Annotated[int | None, typer.Option(help="1 screen, 2 onsite, 3 research.", show_default=False)]
Kinds = Annotated[
    str | None, typer.Option(metavar="NAMES", show_default=False, help="Kinds, with commas: compute,verdict.")
]
Language = Annotated[str, typer.Option("--lang", metavar="en|zh", help="Language of questions and answers.")]


def quiz(
    areas: Areas = None,
    level: Level = None,
    kinds: Kinds = None,
    lang: Language = "en",
    count: Annotated[int, typer.Option(min=1, help="Questions at most.")] = 10,
    new: Annotated[int | None, typer.Option(min=0, help="New ones at most. [default: as many as COUNT]",
                                            show_default=False)] = None,
) -> None:
    """Answer questions of the bank: those that are due, then new ones. Ctrl-C stops; nothing is lost.

    What you know well comes back later, what you did not know soon (FSRS).

    Exit code: 0, or 2 if an argument is wrong.
    """
    out = console()
    with sentences():
        language = language_of(lang)
        chosen = choose(areas, level, kinds)
        known = schedule.memories(journal.recall())
        asked = schedule.next_questions(chosen, known, count, count if new is None else new)
        if not asked:
            times = [known[one.id].due for one in chosen if one.id in known]
            when = when_due(min(times), language) if times else "-"
            out.print(Text(word("nothing_due", language, when=when)))
            raise typer.Exit
        due = sum(one.id in known for one in asked)
        out.print(Text(word("due_or_new", language, due=due, new=len(asked) - due)))
        right = done = 0
        try:
            for place, question in enumerate(asked, start=1):
                one = Asked(question, new_seed(), language)
                told = ask(one, out, word("of_quiz", language, place=place, count=len(asked)))
                rating = ask_rating(one, told.grade, out)
                remember(one, told.grade, rating, told.seconds, told.written)
                done, right = place, right + told.grade.enough
                memory = schedule.memories(journal.recall())[question.id]
                out.print(Text(word("next_due", language, when=when_due(memory.due, language)), style="dim"))
        except Stopped:
            out.print(Text(word("interrupted", language, command="course quiz")))
        soon = sum(schedule.due_by_day(schedule.memories(journal.recall()), 1))
        out.print(Text(word("quiz_done", language, right=right, count=done, due=soon), style="bold"))


def interview(
    minutes: Annotated[int, typer.Option(help="How long it takes, 5 to 180.")] = 45,
    level: Annotated[int, typer.Option(help="1 screen, 2 onsite, 3 research.")] = 2,
    areas: Areas = None,
    lang: Language = "en",
    seed: Annotated[int | None, typer.Option(help="The same seed asks the same.", show_default=False)] = None,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, where one was cut short.")] = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the report to a Markdown file too.",
                                  show_default=False)
    ] = None,
) -> None:
    """Go through a mock interview: asked, answered against the clock, graded, and a report at the end.

    For example: course interview --minutes 45 --level 2 --areas memory,amp --lang zh

    An interview that was cut short goes on where it stopped. Exit code: 0, or 2 if an argument is wrong.
    """
    out = console()
    with sentences():
        if out_file is not None and out_file.exists():
            raise BadChoice(f"{out_file} exists and was left as it is. Choose another name, or move it away first.")
        mock.plan(minutes, level, areas, 0)  # wrong arguments are told even where an interview goes on
        language_of(lang)
        one = None if new else mock.unfinished()
        if one is None:
            one = mock.begin(minutes, level, areas, lang, seed)
        else:
            out.print(Text(word("resumed", one.language, done=len(one.answers), count=len(one.items))))
        try:
            while (place := one.place) is not None and one.seconds_left > 0:
                asked = one.asked(place)
                told = ask(asked, out, head(one, place))
                seconds = min(told.seconds, OPEN_FOR * SECONDS[asked.question.kind])
                if not one.answer(place, told.grade, seconds, told.written):
                    out.print(Text(word("answered_elsewhere", one.language), style="yellow"))
        except Stopped:
            out.print(Text(word("interrupted", one.language, command="course interview")))
            raise typer.Exit from None
        one.end()
        text = report(one).markdown()
        out.print(Markdown(text, hyperlinks=False))
        if out_file is not None:
            try:
                out_file.write_text(text, encoding="utf-8")
            except OSError as error:
                raise BadChoice(f"{out_file} cannot be written: {error.strerror}.") from None


def head(one: mock.Interview, place: int) -> str:
    """Which question it is, and the time there is."""
    left = one.seconds_left / 60
    time = word("time_left" if left >= 0 else "time_over", one.language, minutes=f"{abs(left):.0f}")
    limit = word("limit", one.language, minutes=SECONDS[one.asked(place).question.kind] / 60)
    return f"{word('of_quiz', one.language, place=place + 1, count=len(one.items))} · {time} · {limit}"


@contextmanager
def sentences() -> Iterator[Console]:
    """Turn what a user can get wrong into a sentence and exit code 2, and pass on what the journal has to say."""
    try:
        yield
    except (BadChoice, BankError, anki.NoExport, schedule.NoScheduler) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    finally:
        for sentence in journal.news():
            print(sentence, file=sys.stderr)
