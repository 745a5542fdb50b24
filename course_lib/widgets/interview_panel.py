"""The controls of the mock interview in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from weakref import WeakSet

import ipywidgets

from course_lib.practice import interview as mock
from course_lib.practice.asking import OPEN_FOR, SECONDS
from course_lib.practice.choose import BadChoice
from course_lib.practice.report import report
from course_lib.widgets.asking import SENTENCES, Choices, Frame, Put, Stopwatch, Ticker, checked, markdown, row, spoken

_panels: WeakSet[Interviewing] = WeakSet()


class Interviewing:
    """A mock interview in a notebook; its arguments are those of :func:`course_lib.widgets.interview`.

    Attributes:
        frame: the panel.
        one: the interview under way, if one is.
        put: the question that is being asked, if one is.
        watch: the time of that question.
    """

    def __init__(
        self, minutes: int, level: int, areas: str | Iterable[str] | None, language: str, seed: int | None
    ) -> None:
        for other in list(_panels):  # this cell was run again, or another shows an interview too
            other.rest("elsewhere")
        _panels.add(self)
        self.frame = Frame(spoken(language))
        self.one: mock.Interview | None = None
        self.put: Put | None = None
        self.watch = Stopwatch()
        self._place = 0
        self._limit = 0.0
        self._seed = seed
        self._ticker = Ticker(self.tick)
        self._choices = Choices(self.frame, self._rewrite, False, "length", mock.SHORTEST, mock.LONGEST)
        self._chosen: dict[str, object] = {"areas": None, "level": 2, "number": 45}
        wrong = ""
        try:
            if type(minutes) is not int or not mock.SHORTEST <= minutes <= mock.LONGEST:
                raise BadChoice(f"minutes is {minutes!r}. Allowed: {mock.SHORTEST} to {mock.LONGEST}.")
            chosen = checked(areas, level, None, language)
            self._chosen = chosen | {"number": minutes, "level": chosen["level"] or 2}
        except SENTENCES as error:
            wrong = str(error)
        self.frame.do(self.choose)
        if wrong:
            self.frame.say(wrong)

    # Before it begins

    def choose(self) -> None:
        """Show what can be chosen, and the interview that was cut short, if there is one."""
        self.one = self.put = None
        say = self.frame.word
        self.frame.heading(say("interview"))
        open_ = mock.unfinished()
        buttons = [self.frame.button(say("begin_new" if open_ else "begin"), self.begin, not open_)]
        if open_:
            words = say("go_on_with", done=len(open_.answers), count=len(open_.items))
            buttons.insert(0, self.frame.button(words, self.go_on_with, True))
        self.frame.replace(*self._choices.widgets(self._chosen), row(*buttons))

    def _rewrite(self) -> None:
        self._chosen = self._choices.chosen()
        self.choose()

    def begin(self) -> None:
        """Draw an interview, remember its plan, and put the first question."""
        if self.one is None:
            self._chosen = now = self._choices.chosen()
            self.one = mock.begin(now["number"], now["level"], now["areas"], self.frame.language, self._seed)
            self._next()

    def go_on_with(self) -> None:
        """Go on with the interview that was cut short last; its own language is taken."""
        if self.one is not None:
            return
        self._chosen = self._choices.chosen()
        one = mock.unfinished()
        if one is None:  # another window has ended it
            self.choose()
            self.frame.say(self.frame.word("over"))
            return
        self.one, self.frame.language = one, one.language
        self._next()
        self.frame.say(self.frame.word("resumed", done=len(one.answers), count=len(one.items)))

    # Under way

    def _next(self, put: Put | None = None) -> None:
        """Put the next question, or show the report where none is left or the time is up."""
        if put is not self.put:
            return
        self.one.refresh()
        place = self.one.place
        if place is None or self.one.seconds_left <= 0:
            self.end()
            return
        self.put = made = Put(self.one.asked(place), self.frame, self._graded)
        self._place = place
        self._limit = OPEN_FOR * SECONDS[made.asked.question.kind]
        self.watch = Stopwatch()
        self._open()
        made.focus()

    def _open(self) -> None:
        """Show the question that is asked, and let its time run."""
        say = self.frame.word
        self.frame.replace(self.put.box, row(self.frame.button(say("pause"), partial(self.rest, "paused")),
                                             self.frame.button(say("end"), self.ask_to_end)))
        if self.put.grade is None:
            self.watch.start()
            self._ticker.start()
        self.tick()

    def tick(self) -> None:
        """Show the time; pause by itself where a question has been open for too long."""
        if self.put is None:
            self._ticker.stop()
            return
        seconds = self.watch.look()
        say, left = self.frame.word, self.one.seconds_left
        if self._place not in self.one.answers:
            left -= seconds
        whole = say("clock_left" if left >= 0 else "clock_over", time=_clock(abs(left)))
        here = say("clock_here", time=_clock(seconds), limit=_clock(SECONDS[self.put.asked.question.kind]))
        self.frame.heading(f"{say('of_quiz', place=self._place + 1, count=len(self.one.items))} · {whole} · {here}")
        if self.watch.running and seconds >= self._limit:
            self._limit = seconds + OPEN_FOR * SECONDS[self.put.asked.question.kind]
            self.rest("left_open")

    def _stop(self) -> float:
        self._ticker.stop()
        return self.watch.stop()

    def _graded(self) -> None:
        seconds = self._stop()
        put, one, say = self.put, self.one, self.frame.word
        kept = one.answer(self._place, put.grade, seconds, put.written)
        self.tick()
        last = one.place is None or one.seconds_left <= 0
        go_on = self.frame.button(say("to_report" if last else "next"), partial(self._next, put), True)
        told = [] if kept else [markdown(f"**{say('over' if one.ended else 'answered_elsewhere')}**")]
        self.frame.swap(put.foot, *told, row(go_on))

    def rest(self, why: str) -> None:
        """Stop the clock, and take the question out of sight until one goes on."""
        if self.put is None or self.put.grade is not None and why != "paused":
            return
        if self.put.box not in self.frame.body.children:  # it rests already
            return
        seconds, say = self._stop(), self.frame.word
        self._hide(markdown(say(why, minutes=seconds / 60) if why == "left_open" else say(why)))

    def ask_to_end(self) -> None:
        """Ask whether it is really to end."""
        if self.put is not None:
            self._stop()
            self._hide(markdown(self.frame.word("really_end", done=len(self.one.answers), count=len(self.one.items))))

    def _hide(self, *words: ipywidgets.Widget) -> None:
        say = self.frame.word
        buttons = row(self.frame.button(say("go_on"), partial(self._go_on, self.put), True),
                      self.frame.button(say("end_now"), self.end))
        self.frame.swap(self.frame.body, *words, buttons)

    def _go_on(self, put: Put) -> None:
        if put is not self.put or put.box in self.frame.body.children:
            return
        for other in list(_panels):
            if other is not self:
                other.rest("elsewhere")
        self._open()

    # Over

    def end(self) -> None:
        """Close the interview and show the report."""
        if self.one is None:
            return
        self._stop()
        one, self.one, self.put = self.one, None, None
        one.refresh()
        one.end()
        self.frame.heading(self.frame.word("interview"))
        self.frame.replace(_document(report(one).markdown(folder="")),
                           row(self.frame.button(self.frame.word("another"), self.choose, True)))


def _clock(seconds: float) -> str:
    """Minutes and seconds: 4:07."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def _document(text: str) -> ipywidgets.Output:
    """Markdown as the notebook itself shows it, so that links lead to other notebooks and their sections."""
    shown = ipywidgets.Output()
    data = {"text/markdown": text, "text/plain": text}
    shown.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
    return shown
