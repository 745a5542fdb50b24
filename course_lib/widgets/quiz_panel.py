"""The controls of the quiz in a notebook."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from course_lib import journal
from course_lib.practice import schedule
from course_lib.practice.asking import RATINGS, Asked, new_seed, rating_for, remember
from course_lib.practice.choose import BadChoice, choose
from course_lib.practice.words import when_due
from course_lib.questions import Question
from course_lib.widgets.asking import SENTENCES, Choices, Frame, Put, checked, markdown, row, spoken

MOST = 200
"""Questions of a quiz at most."""
LONGEST = 3600.0
"""Seconds that an answer takes at most: an open notebook is not a long answer."""


class Quiz:
    """A quiz in a notebook; its arguments are those of :func:`course_lib.widgets.quiz`.

    Attributes:
        frame: the panel.
        put: the question that is being asked, if one is.
    """

    def __init__(
        self, areas: str | Iterable[str] | None, level: int | None, kinds: str | Iterable[str] | None, language: str,
        count: int, new: int | None,
    ) -> None:
        self.frame = Frame(spoken(language))
        self.put: Put | None = None
        self._new = new
        self._choices = Choices(self.frame, self._rewrite, True, "count", 1, MOST)
        self._chosen: dict[str, object] = {"areas": None, "kinds": None, "level": None, "number": 10}
        self._questions: list[Question] = []
        self._place = self._right = self._done = self._due = 0
        self._rated = False
        self._begun = 0.0
        wrong = ""
        try:
            if type(count) is not int or not 1 <= count <= MOST:
                raise BadChoice(f"count is {count!r}. Allowed: 1 to {MOST}.")
            self._chosen = checked(areas, level, kinds, language) | {"number": count}
        except SENTENCES as error:
            wrong = str(error)
        self.frame.do(self.choose)
        if wrong:
            self.frame.say(wrong)

    def choose(self) -> None:
        """Show what can be chosen."""
        self.put = None
        self.frame.heading(self.frame.word("quiz"))
        begin = self.frame.button(self.frame.word("begin"), self.begin, True)
        self.frame.replace(*self._choices.widgets(self._chosen), row(begin))

    def _rewrite(self) -> None:
        self._chosen = self._choices.chosen()
        self.choose()

    def begin(self) -> None:
        """Draw the questions that are due, then new ones, and put the first."""
        if self.put is not None:
            return
        self._chosen = now = self._choices.chosen()
        chosen = choose(now["areas"], now["level"], now["kinds"])
        known = schedule.memories(journal.recall())
        count = now["number"]
        self._questions = schedule.next_questions(chosen, known, count, count if self._new is None else self._new)
        if not self._questions:
            times = [known[one.id].due for one in chosen if one.id in known]
            when = when_due(min(times), self.frame.language) if times else "-"
            self.frame.say(self.frame.word("none_due", when=when))
            return
        self._due = sum(one.id in known for one in self._questions)
        self._place = self._right = self._done = 0
        self._ask()

    def _ask(self) -> None:
        question = self._questions[self._place]
        put = Put(Asked(question, new_seed(), self.frame.language), self.frame, self._graded)
        say, count = self.frame.word, len(self._questions)
        head = say("of_quiz", place=self._place + 1, count=count)
        if self._place == 0:
            head += f" · {say('due_or_new', due=self._due, new=count - self._due)}"
        self.put, self._rated, self._begun = put, False, time.monotonic()
        self.frame.heading(head)
        self.frame.replace(put.box, row(self.frame.button(say("stop"), self._end)))
        put.focus()

    def _graded(self) -> None:
        put, say = self.put, self.frame.word
        seconds = min(time.monotonic() - self._begun, LONGEST)
        proposed = rating_for(put.grade)
        self.frame.swap(put.foot, markdown(f"**{say('ask_rating')}**"), row(*(
            self.frame.button(say(name), partial(self._rate, put, rating, seconds), rating == proposed)
            for rating, name in RATINGS.items())))

    def _rate(self, put: Put, rating: int, seconds: float) -> None:
        if put is not self.put or self._rated:
            return
        self._rated = True
        remember(put.asked, put.grade, rating, seconds, put.written)
        self._done, self._right = self._done + 1, self._right + put.grade.enough
        memory = schedule.memories(journal.recall())[put.asked.question.id]
        say = self.frame.word
        when = say("next_due", when=when_due(memory.due, self.frame.language))
        self.frame.swap(put.foot, markdown(f"{say(RATINGS[rating])}. {when}"),
                        row(self.frame.button(say("next"), partial(self._next, put), True)))

    def _next(self, put: Put) -> None:
        if put is not self.put:
            return
        self._place += 1
        if self._place < len(self._questions):
            self._ask()
        else:
            self._end()

    def _end(self) -> None:
        if self.put is None:
            return
        self.put = None
        soon = sum(schedule.due_by_day(schedule.memories(journal.recall()), 1))
        say = self.frame.word
        self.frame.heading(say("quiz"))
        self.frame.replace(markdown(f"**{say('quiz_done', right=self._right, count=self._done, due=soon)}**"),
                           row(self.frame.button(say("once_more"), self.choose, True)))
