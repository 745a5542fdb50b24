"""The controls of the trial of claims and of its scorecard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

import ipywidgets

from course_lib import journal
from course_lib.practice import pages
from course_lib.practice import trial as practice
from course_lib.practice.asking import Asked
from course_lib.widgets.asking import Frame, markdown, row

LONGEST = 3600.0
"""Seconds that a guess takes at most: an open notebook is not a long thought."""
GUESSES = {"right": "right_", "wrong": "wrong_", "depends": "depends_"}
"""The verdicts, and what their buttons are called, as keys of the words."""


class Trial:
    """Claims with three buttons each.

    Attributes:
        frame: the panel.
        guessed: id -> the verdict that was guessed.
    """

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.frame = Frame(asked[0].language)
        self.guessed: dict[str, str] = {}
        self._since = time.monotonic()
        self.frame.heading(self.frame.word("trial_how"))
        self.frame.replace(*(self._claim(number, one) for number, one in enumerate(asked, start=1)))

    def _claim(self, number: int, asked: Asked) -> ipywidgets.VBox:
        place = ipywidgets.VBox([])
        buttons = [
            self.frame.button(self.frame.word(key), partial(self.guess, asked, verdict, place))
            for verdict, key in GUESSES.items()
        ]
        place.children = [row(*buttons)]
        return ipywidgets.VBox([markdown(f"> **{number}.** {pages.flat(asked.claim)}"), place])

    def guess(self, asked: Asked, verdict: str, place: ipywidgets.VBox) -> None:
        """Grade a guess, remember it, and show the answer in its place; a second guess changes nothing."""
        if asked.question.id in self.guessed:
            return
        now = time.monotonic()
        grade = practice.judge(asked, verdict, min(now - self._since, LONGEST))
        self.guessed[asked.question.id], self._since = verdict, now
        answer = pages.to_html(asked.say(asked.question.answer))
        place.children = [
            markdown(f"**{practice.verdict_of(asked, grade, verdict)}**"),
            ipywidgets.HTML(
                f'<details open class="course-text jp-RenderedHTMLCommon"><summary>'
                f"{self.frame.word('answer')}</summary>{answer}</details>"
            ),
        ]


class Scorecard:
    """How the guesses went, by theme; a button looks again.

    Attributes:
        frame: the panel.
    """

    def __init__(self, rounds: Mapping[str, Sequence[str]], language: str) -> None:
        self.frame = Frame(language)
        self._rounds = rounds
        self._table = markdown("")
        self.frame.replace(self._table, row(self.frame.button(self.frame.word("trial_refresh"), self.refresh)))
        self.refresh()

    def refresh(self) -> None:
        """Show what the journal holds now."""
        known = practice.first_guesses(journal.recall())
        self._table.value = markdown(practice.score_markdown(self._rounds, known, self.frame.language)).value
