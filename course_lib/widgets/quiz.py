"""A quiz over the question bank in a notebook: the twin of `course quiz`."""

from __future__ import annotations

from collections.abc import Iterable

from course_lib.widgets import panel

WORDS = (
    "A quiz over the question bank: what is due comes first, then something new. Run this cell in JupyterLab, VS Code "
    "or Colab to choose and begin; in a terminal it is: course quiz"
)


def quiz(
    areas: str | Iterable[str] | None = None,
    level: int | None = None,
    kinds: str | Iterable[str] | None = None,
    language: str = "en",
    count: int = 10,
    new: int | None = None,
) -> None:
    """Show a quiz below the cell. Nothing is asked or remembered before a click on "Begin".

    What was answered is remembered beside what `course quiz` asks, and comes again when it is due. A wrong argument is
    told in a sentence in the panel.

    Args:
        areas: areas to ask about, at first, as a list or with commas; None for all.
        level: 1 screen, 2 onsite, 3 research; None for all, at first.
        kinds: kinds of questions, at first, such as "compute,verdict"; None for all.
        language: "en" or "zh", at first.
        count: questions at most, at first.
        new: new ones at most; None for as many as ``count``.
    """

    def make():
        from course_lib.widgets.quiz_panel import Quiz

        return Quiz(areas, level, kinds, language, count, new).frame.box

    panel.present(make, WORDS)
