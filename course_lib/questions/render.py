"""A question as people read it: Markdown with folded parts in a notebook, plain text in a terminal."""

from __future__ import annotations

import re
import textwrap

from course_lib.questions.drawn import standard
from course_lib.questions.grading import causes
from course_lib.questions.loader import get
from course_lib.questions.runs import load as load_curves
from course_lib.questions.schema import LEVELS, Evidence, Question, Source


class Card:
    """A question on display.

    ``_repr_markdown_`` for notebooks, ``str`` for terminals. Both depend on the question alone.

    Args:
        question: the question.
        part: "head" for what is always visible, "folded" for what is opened on demand; None for both.
    """

    def __init__(self, question: Question, part: str | None = None) -> None:
        self.question = question
        self.part = part

    def _blocks(self) -> tuple[list[str], list]:
        head, *folded = _parts(self.question)
        return [] if self.part == "folded" else head, [] if self.part == "head" else folded

    def _repr_markdown_(self) -> str:
        head, folded = self._blocks()
        blocks = [f"**{_title(self.question)}**", *head] if head else []
        for summary, body in folded:
            blocks += [f"<details><summary>{summary}</summary>", *body, "</details>"]
        return "\n\n".join(blocks) + "\n"

    def __str__(self) -> str:
        head, folded = self._blocks()
        blocks = [_title(self.question), *head] if head else []
        for summary, body in folded:
            blocks += [f"--- {summary} ---", *body]
        return "\n\n".join(map(_wrap, blocks))

    __repr__ = __str__


def show(question_id: str) -> None:
    """Display a question of the course's bank: the prompt open; answer, grading, follow-ups and sources folded.

    In a terminal, which cannot fold, everything is printed, the prompt first. The curves of a read-run question are
    drawn where there is a notebook.

    Raises:
        ValueError: there is no such question; the nearest id is suggested.
    """
    question = get(question_id)
    try:
        from IPython.display import display
    except ImportError:
        print(Card(question))
        return
    if question.run is None:
        display(Card(question))
        return
    from course_lib import plots
    from course_lib.questions.picture import figure, in_words

    curves = load_curves(question_id)
    display(Card(question, "head"))
    plots.show(figure(curves), in_words(curves))
    display(Card(question, "folded"))


def _parts(question: Question) -> list:
    """What is always visible (blocks), then (summary, blocks) of each folded part."""
    head = [standard(question).prompt().strip()]
    if question.claim:
        head.append(f"> {' '.join(question.claim.en.split())}")
    if question.bug:
        lines = question.bug.code.splitlines()
        numbered = "\n".join(f"{number:2}  {line}".rstrip() for number, line in enumerate(lines, start=1))
        head.append(f"```text\n{numbered}\n```")
    if question.exercise:
        head.append(f"Exercise: `{question.exercise}`")

    offered = causes(question, 0) if question.run else []
    if offered:
        head.append(
            "What is the cause?\n\n"
            + "\n".join(f"- {letter}: {_flat(cause.en)}" for letter, cause in zip("abcde", offered))
        )

    answer = []
    if offered:
        answer.append(f"Cause {'abcde'[offered.index(question.run.causes[0])]}.")
    if question.verdict:
        answer.append(f"Verdict: {question.verdict}.")
    if question.number:
        number = question.number
        answer.append(f"{number.value:,.6g} {number.unit}, accepted within {100 * number.tolerance:g}%.")
    if question.bug:
        answer.append(f"Line {question.bug.line}: `{question.bug.faulty}` should be `{question.bug.fix}`.")
    answer.append(question.answer.en.strip())

    total = sum(point.weight for point in question.rubric)
    rubric = "\n".join(f"- {point.weight} of {total}: {_flat(point.point.en)}" for point in question.rubric)
    grading = [
        rubric,
        f"A weak answer: {_flat(question.weak.says.en)}",
        f"What it costs: {_flat(question.weak.costs.en)}",
    ]
    if question.number:
        slips = "\n".join(f"- {_flat(slip.says.en)}" for slip in question.number.slips)
        grading.append(f"What slips come to:\n\n{slips}")
    further = [
        "\n".join(f"- {_flat(text.en)}" for text in question.follow_ups),
        "Sources:\n\n" + "\n".join(f"- {cite(source)}" for source in question.sources),
        "Evidence: " + "; ".join(map(_place, question.evidence)) + ".",
    ]
    return [head, ("Answer", answer), ("How it is graded", grading), ("Follow-ups and sources", further)]


def _title(question: Question) -> str:
    return f"{question.id} · {question.kind} · level {question.level}, {LEVELS[question.level]}"


def _flat(text: str) -> str:
    return " ".join(text.split())


def cite(source: Source) -> str:
    """A source as Markdown: title, year, arXiv id, address, where in it."""
    parts = [source.title]
    if source.year:
        parts.append(str(source.year))
    if source.arxiv:
        parts.append(f"[arXiv {source.arxiv}](https://arxiv.org/abs/{source.arxiv})")
    if source.url:
        parts.append(f"<{source.url}>")
    if source.where:
        parts.append(source.where)
    return ", ".join(parts)


def _place(evidence: Evidence) -> str:
    if evidence.function:
        return f"`course_lib.questions.evidence.{evidence.function}`"
    return f"the cell tagged `{evidence.tag}` in notebook {evidence.notebook}"


def _wrap(block: str) -> str:
    """Wrap prose at 100 columns; lines of code blocks stay as they are."""
    if block.startswith("```"):
        return "\n".join(block.splitlines()[1:-1])
    lines = []
    for line in re.sub(r"\[(arXiv [^\]]+)\]\([^)]*\)", r"\1", block).splitlines():
        indent = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(line, 100, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(lines)
