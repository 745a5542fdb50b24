"""A question, its answer and its curves as Markdown, HTML and PNG: what papers, cards and widgets are made of."""

from __future__ import annotations

import base64
import html
from functools import cache

from course_lib.practice.asking import Asked
from course_lib.practice.words import area, word
from course_lib.questions.drawn import standard
from course_lib.questions.render import cite
from course_lib.questions.runs import Curves
from course_lib.questions.schema import Evidence


def title(asked: Asked) -> str:
    """Id, kind, area and level on one line."""
    question, language = asked.question, asked.language
    return " · ".join([question.id, word(question.kind, language), area(question.area, language),
                       word("level", language, level=question.level)])


def question_markdown(asked: Asked, figure: str | None = None) -> str:
    """What is seen before the answer; ``figure`` is the address of the picture of the curves, if there are any."""
    blocks = [asked.prompt]
    if asked.claim:
        blocks.append(f"> {flat(asked.claim)}")
    if asked.code:
        blocks.append(f"```text\n{asked.code}\n```")
    if asked.curves and figure:
        blocks.append(f"![{word('curves', asked.language)}]({figure})")
    if asked.causes:
        blocks.append(f"**{word('causes', asked.language)}**")
        blocks.append("\n".join(f"- {letter}: {flat(cause)}" for letter, cause in zip("abcdefgh", asked.causes, strict=False)))
    if asked.question.exercise:
        blocks.append(word("exercise", asked.language, name=f"`{asked.question.exercise}`"))
    return "\n\n".join(blocks) + "\n"


def rubric_markdown(asked: Asked) -> str:
    """The points that a good answer makes, with what they weigh."""
    total = sum(weight for weight, _ in asked.rubric)
    rows = [f"{number}. [{word('points', asked.language, weight=weight, total=total)}] {point}"
            for number, (weight, point) in enumerate(asked.rubric, start=1)]
    return "\n".join(rows) + "\n"


def answer_markdown(asked: Asked, rubric: bool = True) -> str:
    """The right answer, the spoken answer, the rubric unless it was shown before, the weak answer, and what comes next."""
    question, language = asked.question, asked.language
    blocks = [f"**{asked.expected()}**" if question.kind == "verdict" else asked.expected()]
    if not asked.drawn.standard:
        blocks.append(f"*{word('standard', language, prompt=standard(question).prompt(language))}*")
    blocks.append(asked.say(question.answer).strip())
    if rubric:
        blocks += [f"**{word('rubric', language)}**", rubric_markdown(asked).rstrip()]
    blocks += [
        f"**{word('weak', language)}** {flat(asked.say(question.weak.says))}",
        f"**{word('costs', language)}** {flat(asked.say(question.weak.costs))}",
        f"**{word('follow_ups', language)}**",
        "\n".join(f"- {flat(asked.say(text))}" for text in question.follow_ups),
        f"**{word('sources', language)}**",
        "\n".join(f"- {cite(source)}" for source in question.sources),
    ]
    if question.bug and question.bug.report:
        blocks.append(word("report_at", language, address=f"<{question.bug.report}>"))
    blocks.append(f"**{word('evidence', language)}** " + "; ".join(place(proof, language) for proof in question.evidence))
    return "\n\n".join(block for block in blocks if block) + "\n"


def place(proof: Evidence, language: str) -> str:
    """Where a piece of evidence is, as Markdown."""
    if proof.function:
        return f"`course_lib.questions.evidence.{proof.function}`"
    return word("in_cell", language, tag=f"`{proof.tag}`", notebook=proof.notebook)


def picture(curves: Curves) -> bytes:
    """The curves as a PNG; the same curves give the same bytes. Imports matplotlib."""
    from course_lib.plots.display import png
    from course_lib.questions.picture import figure

    return png(figure(curves))[0]


def embedded(data: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def to_html(markdown: str) -> str:
    """Markdown as HTML. HTML inside it is shown as text, addresses become links, pictures may be embedded."""
    return _renderer().render(markdown)


def page(name: str, body: str, language: str) -> str:
    """A whole HTML page that needs nothing else, and prints well."""
    return _PAGE.format(language="zh-CN" if language == "zh" else "en", name=html.escape(name), body=body)


def flat(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


@cache
def _renderer():
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.validateLink = lambda address: address.startswith(("https://", "data:image/png;base64,", "#")) or (
        ":" not in address)
    return renderer


_PAGE = """\
<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
body {{ font: 16px/1.5 "Source Sans 3", "Segoe UI", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  max-width: 44em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }}
pre, code {{ font: 14px/1.4 "DejaVu Sans Mono", Menlo, Consolas, monospace; background: #f5f5f5 }}
pre {{ padding: .6em 1em; white-space: pre-wrap }}
blockquote {{ border-left: 4px solid #999; margin: 1em 0; padding: .1em 1em }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #999; padding: .2em .6em; text-align: left }}
section {{ break-inside: avoid; border-top: 1px solid #ccc; padding: .5em 0 }}
.space {{ height: 7em }}
@media print {{ body {{ margin: 0; max-width: none; font-size: 11pt }} pre, code {{ font-size: 9pt }} }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
