"""Bring the count of questions in the README up to date: ``python -m tools.counted``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from course_lib.practice.words import word
from course_lib.questions import bank

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(?<=<!-- questions -->\n).*?(?=<!-- /questions -->)", re.DOTALL)


def table() -> str:
    """How many questions there are of each kind and level, as Markdown."""
    questions = bank().values()
    kinds = dict.fromkeys(question.kind for question in sorted(questions, key=lambda question: question.kind))
    count = Counter((question.kind, question.level) for question in questions)
    rows = [(word(kind), *(count[kind, level] for level in (1, 2, 3))) for kind in kinds]
    rows.append(("all", *(sum(row[level] for row in rows) for level in (1, 2, 3))))
    lines = ["| | level 1, screen | level 2, onsite | level 3, research | all |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {one} | {two} | {three} | {one + two + three} |" for name, one, two, three in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the README."""
    README.write_text(BLOCK.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
