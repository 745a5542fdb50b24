"""The bank as a deck of Anki flash cards (.apkg), made with genanki.

Ids follow from the question's id and the language alone, so importing a newer deck updates the cards and keeps the
learner's schedule. A question that asks for a number has its standard numbers; the quiz draws them anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from course_lib.practice import pages
from course_lib.practice.asking import Asked
from course_lib.practice.choose import BadChoice, language_of
from course_lib.practice.words import area, word
from course_lib.questions import Question

DECKS = {"en": "Training with Adam: interview questions", "zh": "用 Adam 训练大模型：面试题"}
"""What the decks are called."""
_MODEL = "course_lib question"
_STYLE = """\
.card { font: 18px/1.5 sans-serif; text-align: left; max-width: 42em; margin: 0 auto; padding: 0 .5em }
pre, code { font: 15px/1.4 monospace; background: rgba(128, 128, 128, .15) }
pre { padding: .5em; white-space: pre-wrap }
blockquote { border-left: 4px solid #999; margin: 1em 0; padding: .1em 1em }
.what { font-size: 14px; opacity: .7 }"""


class NoExport(RuntimeError):
    """The package genanki is missing; the message says how to get it."""


def export(questions: Iterable[Question], file: Path, language: str = "en") -> int:
    """Write a deck of the questions to a new file, and return how many cards it has.

    Raises:
        BadChoice: the language is not there, the file exists, does not end in .apkg or cannot be written.
        NoExport: the package genanki is missing.
    """
    try:
        import genanki
    except ImportError:
        raise NoExport("Flash cards need the package genanki. Install it with: pip install genanki") from None
    language = language_of(language)
    if file.suffix != ".apkg":
        raise BadChoice(f"{file} does not end in .apkg, so Anki would not open it. Allowed: a name such as course.apkg.")
    if file.exists():
        raise BadChoice(f"{file} exists and was left as it is. Choose another name, or move it away first.")
    model = genanki.Model(
        _number(_MODEL), _MODEL, css=_STYLE,
        fields=[{"name": name} for name in ("Id", "What", "Front", "Back")],
        templates=[{"name": "Card", "qfmt": '<div class="what">{{What}}</div>{{Front}}',
                    "afmt": "{{FrontSide}}<hr id=answer>{{Back}}"}],
    )
    deck = genanki.Deck(_number(f"{_MODEL} {language}"), DECKS[language])
    with tempfile.TemporaryDirectory() as folder:
        media = []
        for question in questions:
            asked = Asked(question, None, language)
            figure = None
            if asked.curves:
                figure = f"course_lib-{question.id}.png"
                Path(folder, figure).write_bytes(pages.picture(asked.curves))
                media.append(str(Path(folder, figure)))
            what = " · ".join([word(question.kind, language), area(question.area, language)])
            deck.add_note(genanki.Note(
                model, guid=genanki.guid_for(_MODEL, question.id, language),
                tags=[question.area, question.kind, f"level{question.level}"],
                fields=[question.id, what, pages.to_html(pages.question_markdown(asked, figure)),
                        pages.to_html(pages.answer_markdown(asked))],
            ))
        package = genanki.Package(deck)
        package.media_files = media
        try:
            package.write_to_file(str(file))
        except OSError as error:
            raise BadChoice(f"{file} cannot be written: {error.strerror}.") from None
    return len(deck.notes)


def _number(name: str) -> int:
    """An id for Anki that is the same for one name for ever, above the small numbers that Anki uses itself."""
    return (1 << 30) + crc32(name.encode()) % (1 << 30)
