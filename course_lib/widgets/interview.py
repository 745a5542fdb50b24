"""A mock interview in a notebook: the twin of `course interview`."""

from __future__ import annotations

from collections.abc import Iterable

from course_lib.widgets import panel

WORDS = (
    "A mock interview: questions against the clock, graded, and a report at the end. Run this cell in JupyterLab, VS "
    "Code or Colab to choose and begin; in a terminal it is: course interview"
)


def interview(
    minutes: int = 45,
    level: int = 2,
    areas: str | Iterable[str] | None = None,
    language: str = "en",
    seed: int | None = None,
) -> None:
    """Show a mock interview below the cell. Nothing is drawn or remembered before a click on "Begin".

    One that was cut short, here or in a terminal, goes on where it stopped. A wrong argument is told in a sentence in
    the panel.

    Args:
        minutes: how long it takes, 5 to 180, at first.
        level: 1 screen, 2 onsite, 3 research, at first.
        areas: areas to ask about, at first, as a list or with commas; None for all.
        language: "en" or "zh", at first.
        seed: the same seed asks the same; None for something new.
    """

    def make():
        from course_lib.widgets.interview_panel import Interviewing

        return Interviewing(minutes, level, areas, language, seed).frame.box

    panel.present(make, WORDS)
