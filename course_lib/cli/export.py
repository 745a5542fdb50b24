"""`course paper` and `course anki`: the question bank on paper and as flash cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from course_lib.cli.practice import Areas, Kinds, Language, Level, sentences
from course_lib.practice import anki as cards
from course_lib.practice import paper as papers
from course_lib.practice.choose import choose


def paper(
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same paper.")] = 1,
    level: Annotated[int, typer.Option(help="1 screen, 2 onsite, 3 research.")] = 2,
    minutes: Annotated[int, typer.Option(help="How long it takes, 5 to 180.")] = 60,
    areas: Areas = None,
    lang: Language = "en",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path(),
) -> None:
    """Write a paper for a study group and its key, as Markdown and as HTML to print.

    For example: course paper --seed 7 --level 2 --out papers

    Exit code: 0, or 2 if an argument is wrong or a file cannot be written.
    """
    with sentences():
        for file in papers.write(papers.paper(seed, minutes, level, areas, lang), out):
            print(file)


def anki(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The deck to write.")] = Path("course.apkg"),
    areas: Areas = None,
    level: Level = None,
    kinds: Kinds = None,
    lang: Language = "en",
) -> None:
    """Write the questions as a deck of flash cards for Anki. A later deck updates the cards and keeps your schedule.

    Exit code: 0, or 2 if an argument is wrong or the file cannot be written.
    """
    with sentences():
        chosen = choose(areas, level, kinds)
        with Console(stderr=True).status(f"Making {len(chosen)} cards ..."):
            count = cards.export(chosen, out, lang)
        print(f"Wrote {count} cards to {out}. In Anki: File > Import.")
