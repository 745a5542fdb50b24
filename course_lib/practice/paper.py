"""A printable paper of questions and its key, as Markdown and HTML. One seed gives one paper, to the byte."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

from course_lib.practice import pages
from course_lib.practice.asking import Asked
from course_lib.practice.choose import BadChoice, language_of, level_of
from course_lib.practice.interview import plan
from course_lib.practice.words import word
from course_lib.questions import get
from course_lib.questions.schema import LEVELS


def paper(
    seed: int, minutes: int = 60, level: int = 2, areas: str | Iterable[str] | None = None, language: str = "en"
) -> dict[str, bytes]:
    """The files of a paper by name: paper and key as .md and .html, and the pictures that the .md files show.

    Raises:
        BadChoice: minutes, level, area or language is not there.
    """
    language = language_of(language)
    level = level_of(level) or 2
    asked = [Asked(get(name), number, language) for name, number in plan(minutes, level, areas, seed)]
    head = word("paper_head", language, count=len(asked), minutes=minutes, level=level,
                round=word(LEVELS[level], language))
    stem = f"{seed}-{language}"
    files: dict[str, bytes] = {}
    pictures = {}
    for one in asked:
        if one.curves:
            name = f"paper-{stem}-{one.question.id}.png"
            files[name] = pictures[name] = pages.picture(one.curves)
    for kind in ("paper", "key"):
        name = word(kind, language, seed=seed)
        markdown, sections = [f"# {name}", head], []
        if kind == "paper":
            markdown.append(word("paper_name", language))
        for number, one in enumerate(asked, start=1):
            figure = f"paper-{stem}-{one.question.id}.png" if one.curves else None
            heading = f"## {number}. {pages.title(one)}"
            text = pages.question_markdown(one, figure)
            end = word("paper_space", language) if kind == "paper" else pages.answer_markdown(one)
            markdown += [heading, text.rstrip(), end.rstrip()]
            inside = pages.to_html("\n\n".join([heading, text, end]))
            if figure:
                inside = inside.replace(f'src="{figure}"', f'src="{pages.embedded(pictures[figure])}"')
            space = '<div class="space"></div>' if kind == "paper" else ""
            sections.append(f"<section>{inside}{space}</section>")
        top = f"<h1>{html.escape(name)}</h1>\n<p>{html.escape(head)}</p>"
        if kind == "paper":
            top += f"\n<p>{html.escape(word('paper_name', language))} ____________________</p>"
        files[f"{kind}-{stem}.md"] = ("\n\n".join(markdown) + "\n").encode()
        files[f"{kind}-{stem}.html"] = pages.page(name, "\n".join([top, *sections]), language).encode()
    return files


def write(files: dict[str, bytes], folder: Path) -> list[Path]:
    """Write files into a folder, which is made; a file that holds the same already is left alone.

    Raises:
        BadChoice: a file is there and holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        changed = [name for name, data in files.items() if (folder / name).exists() and (folder / name).read_bytes() != data]
        if changed:
            raise BadChoice(f"{folder / changed[0]} exists and holds something else. It was left as it is; choose "
                            "another folder, or move it away first.")
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise BadChoice(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
    return [folder / name for name in files]
