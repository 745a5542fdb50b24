"""`course questions`: what the bank holds, one question of it, and its proof."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from course_lib.cli.ask import console, show_answer, show_proof, show_question
from course_lib.cli.practice import Areas, Kinds, Language, Level, sentences
from course_lib.practice.asking import Asked
from course_lib.practice.choose import KINDS, BadChoice, choose, language_of
from course_lib.questions import Question, get, prove
from course_lib.questions.drawn import standard

NOT_PROVED = 1  # exit code


def questions(
    name: Annotated[str | None, typer.Argument(metavar="ID", show_default=False, help="Show this question.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all questions; without it, how many there are.")] = False,
    areas: Areas = None,
    level: Level = None,
    kinds: Kinds = None,
    lang: Language = "en",
    prove_: Annotated[bool, typer.Option("--prove", help="Run the evidence.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
) -> None:
    """Show what the question bank holds.

    For example: course questions --list --areas memory; course questions memory-zero-one --prove

    Exit code: 0, 1 if evidence does not bear an answer out, 2 if an argument is wrong.
    """
    with sentences():
        language = language_of(lang)
        if name is None:
            chosen = choose(areas, level, kinds)
        else:
            try:
                chosen = [get(name)]
            except ValueError as error:
                raise BadChoice(str(error)) from None
        failed = [one.id for one in chosen if not _proved(one)] if prove_ else []
        if as_json:
            rows = [_row(one, language) for one in chosen]
            print(json.dumps({"questions": rows, "counts": _counts(chosen), "not proved": failed}, indent=2,
                             ensure_ascii=False))
        elif name is not None:
            out, asked = console(), Asked(chosen[0], None, language)
            show_question(asked, out)
            out.print(Markdown(asked.expected()))
            show_answer(asked, out)
            if prove_:
                show_proof(asked, out)
        elif list_:
            _print_list(chosen)
        else:
            _print_counts(chosen)
        if prove_ and not as_json and name is None:
            print(f"{len(chosen) - len(failed)} of {len(chosen)} proved by their functions; evidence in notebooks is "
                  "proved by running these.")
    raise typer.Exit(NOT_PROVED if failed else 0)


def _proved(question: Question) -> bool:
    try:
        prove(question)
    except AssertionError as error:
        print(f"{question.id}: not proved: {error}", file=sys.stderr)
        return False
    return True


def _row(question: Question, language: str) -> dict:
    return {"id": question.id, "area": question.area, "level": question.level, "kind": question.kind,
            "prompt": standard(question).prompt(language).strip()}


def _counts(chosen: list[Question]) -> dict[str, dict[str, int]]:
    return {"total": {"questions": len(chosen)}} | {
        field: {str(key): count for key, count in Counter(getattr(one, field) for one in chosen).items()}
        for field in ("kind", "level", "area")
    }


def _print_list(chosen: list[Question]) -> None:
    table = Table()
    for column, justify in (("question", "left"), ("area", "left"), ("kind", "left"), ("level", "right")):
        table.add_column(column, justify=justify, overflow="fold")
    for one in chosen:
        table.add_row(*map(Text, (one.id, one.area, one.kind, str(one.level))))
    Console().print(table)


def _print_counts(chosen: list[Question]) -> None:
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in chosen)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("area", no_wrap=True)
    for kind in [*kinds, "all"]:
        table.add_column(kind, justify="right")
    count = Counter((one.area, one.kind) for one in chosen)
    for area in dict.fromkeys(one.area for one in chosen):
        row = [count[area, kind] for kind in kinds]
        table.add_row(area, *(str(number or "") for number in row), str(sum(row)))
    columns = [sum(one.kind == kind for one in chosen) for kind in kinds]
    table.add_row("all", *map(str, columns), str(len(chosen)), style="bold")
    Console().print(table)
