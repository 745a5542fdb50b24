"""One question in a notebook: what is seen, how it is answered, what is shown then; and the frame around it.

Of classes that ipywidgets 7.7.1 has too: Colab has no later one.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import ipywidgets

from course_lib import journal
from course_lib.practice import pages
from course_lib.practice.asking import Asked
from course_lib.practice.choose import KINDS, LANGUAGES, BadChoice, areas_of, kinds_of, language_of, level_of
from course_lib.practice.proving import demonstrate
from course_lib.practice.schedule import NoScheduler
from course_lib.practice.words import area, word
from course_lib.questions import BankError
from course_lib.questions.grading import VERDICTS, BadAnswer, Grade
from course_lib.questions.schema import LEVELS

ALL = "all"
SENTENCES = (BadChoice, BankError, NoScheduler, journal.Trouble)
"""Errors whose message is a sentence for the learner."""
TICK, MOST_A_TICK = 1.0, 5.0
"""Seconds between two looks at the clock, and the most that one of them may add: a closed laptop answers nothing."""

CLASS = "course-ask"
STYLE = """<style>
.course-ask .widget-html-content, .course-ask .jupyter-widget-html-content { line-height: 1.45; height: auto }
.course-ask .course-text { max-width: 52em; overflow-wrap: anywhere }
.course-ask .course-text pre { background: rgba(128, 128, 128, .14); color: inherit; padding: .5em .8em; margin: .6em 0;
  overflow-x: auto; white-space: pre; line-height: 1.35 }
.course-ask .course-wide { max-width: 78em }
.course-ask input:disabled, .course-ask textarea:disabled { opacity: .85 }
.course-ask .course-text code { background: rgba(128, 128, 128, .14); color: inherit; font-size: 92% }
.course-ask .course-text pre code { background: none; font-size: 100%; white-space: pre; overflow-wrap: normal }
.course-ask .course-text blockquote { border-left: 4px solid rgba(128, 128, 128, .6); margin: .6em 0;
  padding: .1em 1em }
.course-ask .course-text img { max-width: 100%; background: #fff }
.course-ask .course-text p { margin: .45em 0 }
.course-ask .course-note { border-left: 4px solid #d08700; padding: .1em .7em }
.course-ask .course-small { opacity: .8; font-variant-numeric: tabular-nums }
.course-ask .widget-radio, .course-ask .widget-checkbox { width: auto; max-width: 52em; height: auto }
.course-ask .widget-radio-box { width: auto; max-width: 100% }
.course-ask .widget-radio-box label, .course-ask .widget-checkbox label,
.course-ask .widget-checkbox .widget-label-basic { height: auto; width: auto; max-width: 100%; white-space: normal;
  overflow: visible; line-height: 1.4; text-align: left; margin-bottom: .35em }
.course-ask .widget-checkbox input { flex-shrink: 0 }
.course-ask button:focus-visible, .course-ask input:focus-visible, .course-ask textarea:focus-visible {
  outline: 2px solid #1f77b4; outline-offset: 1px }
</style>"""


def markdown(text: str, look: str = "") -> ipywidgets.HTML:
    """A piece of Markdown as it is read in a notebook; its look is "small", "note", "wide" or as usual."""
    return ipywidgets.HTML(_wrapped(pages.to_html(text), look))


def _wrapped(inner: str, look: str = "") -> str:
    # The class of JupyterLab's own texts brings its look of tables and code, in light and dark.
    extra = f" course-{look}" if look else ""
    return f'<div class="course-text jp-RenderedHTMLCommon{extra}">{inner}</div>'


class Frame:
    """A panel in a notebook: a line at its head, a body that is replaced as one goes on, and room for a sentence.

    Attributes:
        box: what is displayed.
        language: in which the panel speaks.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.head = ipywidgets.HTML("")
        self.body = ipywidgets.VBox([])
        self.sentence = ipywidgets.HTML("")
        self.box = ipywidgets.VBox([ipywidgets.HTML(STYLE), self.head, self.body, self.sentence])
        self.box.add_class(CLASS)
        self._gone: list[ipywidgets.Widget] = []
        self._old: list[ipywidgets.Widget] = []

    def word(self, key: str, **values: object) -> str:
        """The words for a key in the panel's language."""
        return word(key, self.language, **values)

    def say(self, text: str = "") -> None:
        """Show a sentence below the body; without one, what stood there goes."""
        sentences = [text, *journal.news()] if text else journal.news()
        inner = "".join(f"<p>{html.escape(part)}</p>" for sentence in sentences for part in sentence.split("\n"))
        self.sentence.value = f'<div role="status">{_wrapped(inner, "note")}</div>' if inner else ""

    def heading(self, text: str) -> None:
        """Show a line above the body."""
        self.head.value = _wrapped(f"<p><b>{html.escape(text)}</b></p>" if text else "", "small")

    def swap(self, box: ipywidgets.Box, *children: ipywidgets.Widget) -> None:
        """Show these in a box of the panel, in place of what it holds."""
        self._gone += [one for one in box.children if one not in children]
        box.children = children

    def replace(self, *children: ipywidgets.Widget) -> None:
        """Show these in the body, and forget for good what was gone before the last such change.

        A notebook would fill up otherwise. What has just gone is kept, since a second click may still be on its way.
        """
        self.swap(self.body, *children)
        old, self._old, self._gone = self._old, self._gone, []
        keep = set(_below(self.box))
        for widget in {one for top in old for one in _below(top)} - keep:
            for part in (widget, widget.layout, getattr(widget, "style", None)):
                if isinstance(part, ipywidgets.Widget):
                    part.close()

    def button(self, text: str, action: Callable[[], None], main: bool = False) -> ipywidgets.Button:
        """A button. While its action runs, all buttons of the panel are off; what goes wrong is told in a sentence."""
        made = ipywidgets.Button(description=text, tooltip=text, button_style="primary" if main else "",
                                 layout=ipywidgets.Layout(width="auto"))
        made.on_click(lambda _: self.do(action))
        return made

    def do(self, action: Callable[[], None]) -> None:
        """Carry an action out, with all buttons off."""
        off = [widget for widget in _below(self.box) if isinstance(widget, ipywidgets.Button) and not widget.disabled]
        for widget in off:
            widget.disabled = True
        self.say()
        try:
            action()
            if news := journal.news():
                self.say("\n".join(news))
        except SENTENCES as error:
            self.say(str(error))
        except Exception as error:  # noqa: BLE001 whatever it is, a learner is told, and can go on
            self.say(self.word("failed", error=f"{type(error).__name__}: {error}"))
        finally:
            for widget in off:
                if widget.comm is not None:  # else it was closed meanwhile
                    widget.disabled = False


def _below(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """A widget and all that it holds."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _below(child)


def row(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Widgets side by side, on further lines where there is no room."""
    return ipywidgets.Box(list(children), layout=ipywidgets.Layout(flex_flow="row wrap"))


def focus(widget: ipywidgets.Widget) -> None:
    """Bring the keyboard to a control that is about to be shown, where ipywidgets (from 8 on) can."""
    with suppress(RuntimeError, AttributeError):
        asyncio.get_running_loop().call_later(0.4, partial(_focus, widget))


def _focus(widget: ipywidgets.Widget) -> None:
    if widget.comm is not None:
        widget.focus()


class Stopwatch:
    """Counts seconds while it runs, by a clock that nobody sets.

    Whoever lets it run looks at it once a second; a gap between two looks counts as MOST_A_TICK at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._seconds = 0.0

    @property
    def running(self) -> bool:
        """Whether it counts."""
        return self._last is not None

    def start(self) -> None:
        """Count from here."""
        self._last = self._clock()

    def look(self) -> float:
        """The seconds so far."""
        if self._last is not None:
            now = self._clock()
            self._seconds += min(max(0.0, now - self._last), MOST_A_TICK)
            self._last = now
        return self._seconds

    def stop(self) -> float:
        """Count no further; the seconds so far."""
        seconds = self.look()
        self._last = None
        return seconds


class Ticker:
    """Calls something once a second from the kernel's own loop, which so stays free between two calls."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; where there is no loop, nothing happens."""
        self.stop()
        with suppress(RuntimeError):
            self._handle = asyncio.get_running_loop().call_later(TICK, self._tick)

    def stop(self) -> None:
        """No further call comes."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self.start()
        self._action()


class Put:
    """A question put to somebody, from the prompt to the evidence.

    Attributes:
        box: what is displayed.
        foot: what stands below everything once it is graded; whoever puts the question fills it.
        grade: what the answer was worth; None before there is one.
        written: what was written or chosen.

    Args:
        asked: the question.
        frame: the panel that it stands in.
        graded: called once, as soon as there is a grade and before the answer is shown.
    """

    def __init__(self, asked: Asked, frame: Frame, graded: Callable[[], None]) -> None:
        self.asked, self.frame, self.graded = asked, frame, graded
        self.grade: Grade | None = None
        self.written = ""
        self.proved = False
        self._points: list[ipywidgets.Checkbox] = []
        self._input: ipywidgets.ValueWidget | None = None
        self.place = ipywidgets.VBox([])
        self.result = ipywidgets.VBox([])
        self.proof = ipywidgets.VBox([])
        self.foot = ipywidgets.VBox([])
        figure = pages.embedded(pages.picture(asked.curves)) if asked.curves else None
        self.box = ipywidgets.VBox([
            markdown(pages.title(asked), "small"), markdown(_seen(asked, figure)),
            self.place, self.result, self.proof, self.foot,
        ])
        self.place.children = self._controls()

    def word(self, key: str, **values: object) -> str:
        """The words for a key in the language of the question."""
        return word(key, self.asked.language, **values)

    def focus(self) -> None:
        """Bring the keyboard to the place of the answer."""
        if self._input is not None:
            focus(self._input)

    def _button(self, key: str, action: Callable[[], None], main: bool = False) -> ipywidgets.Button:
        return self.frame.button(self.word(key), action, main)

    def _controls(self) -> list[ipywidgets.Widget]:
        kind = self.asked.question.kind
        unknown = self._button("unknown", self.give_up)
        if kind == "verdict":
            return [row(*(self._button(f"{verdict}_", partial(self.answer, verdict)) for verdict in VERDICTS), unknown)]
        if kind == "read-run":
            options = [(f"{letter}: {_plain(cause)}", letter) for letter, cause in zip("abcdefgh", self.asked.causes)]
            self._input = ipywidgets.RadioButtons(options=options, value=None)
            return [markdown(f"**{self.word('causes')}**"), self._input,
                    row(self._button("grade", self._take, main=True), unknown)]
        if self.asked.automatic:
            label = self.word("number" if kind == "compute" else "line")
            self._input = ipywidgets.Text(placeholder=label, layout=ipywidgets.Layout(width="26em", max_width="100%"))
            self._input.tooltip = label
            self._input.on_msg(self._on_enter)
            return [row(self._input, self._button("grade", self._take, main=True), unknown)]
        self._input = ipywidgets.Textarea(placeholder=self.word("written"), rows=6,
                                          layout=ipywidgets.Layout(width="100%", max_width="52em"))
        self._input.tooltip = self.word("written")
        return [markdown(self.word("ask_spoken")), self._input,
                row(self._button("show_rubric", self.reveal_rubric, main=True), unknown)]

    def _on_enter(self, _: object, content: dict, __: object) -> None:
        if content.get("event") == "submit":
            self.frame.do(self._take)

    def _take(self) -> None:
        self.answer(self._input.value or "")

    def answer(self, text: str) -> None:
        """Grade the answer to a question of an automatic kind; one that cannot be read is asked for again."""
        if self.grade is not None:
            return
        try:
            grade = self.asked.grade(text)
        except BadAnswer as error:
            self.frame.say(self.asked.say(error.text))
            self.focus()
            return
        self.written = text
        self._finish(grade)

    def give_up(self) -> None:
        """Grade somebody who does not know."""
        if self.grade is None:
            if isinstance(self._input, ipywidgets.Textarea):
                self.written = self._input.value
            self._finish(self.asked.unknown(), self.word("given_up"))

    def reveal_rubric(self) -> None:
        """Show the points of a spoken answer, to be ticked."""
        if self._points or self.grade is not None:
            return
        self._input.disabled = True
        total = sum(weight for weight, _ in self.asked.rubric)
        self._points = [
            ipywidgets.Checkbox(value=False, indent=False, description=(
                f"[{self.word('points', weight=weight, total=total)}] {_plain(point)}"))
            for weight, point in self.asked.rubric
        ]
        for box in self._points:
            box.tooltip = box.description
        heading = markdown(f"**{self.word('rubric')}.** {self.word('tick_points')}")
        self.frame.swap(self.place, *self.place.children[:2], heading, *self._points,
                        row(self._button("grade", self.tick, main=True)))
        focus(self._points[0])

    def tick(self) -> None:
        """Grade a spoken answer by the points that are ticked."""
        if self.grade is None:
            self.written = self._input.value
            self._finish(self.asked.grade({number for number, box in enumerate(self._points, 1) if box.value}))

    def _finish(self, grade: Grade, said: str = "") -> None:
        self.grade = grade
        self.graded()
        for widget in (self._input, *self._points):
            if widget is not None:
                widget.disabled = True
        kept = [one for one in self.place.children if not isinstance(one, ipywidgets.Box)]
        if isinstance(self._input, ipywidgets.Text) and not isinstance(self._input, ipywidgets.Textarea):
            kept = [self._input]
        self.frame.swap(self.place, *kept)
        score = self.word("right" if grade.enough else "not_right") if self.asked.automatic else (
            self.word("score", score=grade.score))
        expected = self.asked.expected()
        remarks = [text for text in map(self.asked.say, grade.remarks) if text != expected]
        if self.asked.question.kind == "verdict" and self.written:
            remarks.insert(0, self.word("you_said", answer=self.word(f"{self.written}_")))
        mark = "✓" if grade.enough else "✗"
        self.result.children = [
            markdown("\n\n".join([f"**{mark} {said or score}**", *remarks])),
            markdown(f"**{self.word('answer')}**\n\n{pages.answer_markdown(self.asked, rubric=not self._points)}"),
        ]
        if any(proof.function for proof in self.asked.question.evidence):
            if self.asked.question.kind == "verdict":
                self.prove()
            else:
                self.frame.swap(self.proof, row(self._button("run_evidence", self.prove)))

    def prove(self) -> None:
        """Run the evidence, and show what was run and whether it holds."""
        if self.proved:
            return
        self.frame.swap(self.proof, markdown(self.word("running")))
        try:
            proofs = demonstrate(self.asked.question)
        except Exception:
            self.frame.swap(self.proof, row(self._button("run_evidence", self.prove)))
            raise
        self.proved = True
        self.frame.swap(self.proof, *(
            markdown(f"```python\n{proof.source}\n```\n\n"
                     f"**{self.word('holds' if proof.holds else 'does_not_hold', name=f'`{proof.name}`')}**",
                     "wide")
            for proof in proofs))


def _seen(asked: Asked, figure: str | None) -> str:
    """What is read before the answer; the causes of a run are left to the controls."""
    blocks = [asked.prompt]
    if asked.claim:
        blocks.append(f"> {pages.flat(asked.claim)}")
    if asked.code:
        blocks.append(f"```text\n{asked.code}\n```")
    if figure:
        axes = ", ".join(panel.y for panel in asked.curves.panels)
        blocks.append(f"![{word('curves', asked.language)}: {axes}]({figure})")
    if asked.question.exercise:
        blocks.append(word("exercise", asked.language, name=f"`{asked.question.exercise}`"))
    return "\n\n".join(blocks) + "\n"


def _plain(text: str) -> str:
    """Text for a label, which shows no Markdown."""
    return pages.flat(text).replace("`", "")


class Choices:
    """Controls to choose questions by: areas, level, kinds and language, as far as a panel wants them.

    Args:
        frame: the panel.
        changed: called when another language was chosen, so that the panel is written anew.
        kinds: whether kinds are among them, and a level may be left open.
        number: what a whole number is called that is asked for too, a key of the words; and
        low, high: its range.
    """

    def __init__(
        self, frame: Frame, changed: Callable[[], None], kinds: bool, number: str, low: int, high: int
    ) -> None:
        self.frame, self._changed, self._kinds, self._number = frame, changed, kinds, number
        self._low, self._high = low, high
        self._areas = self._kind = self._level = self._language = self._count = None

    def widgets(self, chosen: dict[str, object]) -> list[ipywidgets.Widget]:
        """New controls that show what is chosen: areas, kinds, level, language and number."""
        say, language = self.frame.word, self.frame.language
        levels = [(say("of_level", level=level, round=say(name)), level) for level, name in LEVELS.items()]
        self._count = _named(say(self._number), ipywidgets.BoundedIntText(
            value=chosen["number"], min=self._low, max=self._high))
        self._level = _named(say("choose_level"), ipywidgets.Dropdown(
            options=[(say("any_level"), 0), *levels] if self._kinds else levels, value=chosen["level"] or 0))
        self._language = _named(say("language"), ipywidgets.Dropdown(
            options=[("English", "en"), ("中文", "zh")], value=language))
        self._language.observe(self._speak, "value")
        areas = [(area(name, language), name) for name in areas_of(None)]
        self._areas = _several(say("areas"), [(say("all"), ALL), *areas], chosen["areas"])
        found = [self._areas]
        if self._kinds:
            kinds = [(say(name), name) for name in KINDS]
            self._kind = _several(say("kinds"), [(say("all"), ALL), *kinds], chosen["kinds"])
            found.append(self._kind)
        return [row(self._count, self._level, self._language), row(*found), markdown(say("several"), "small")]

    def chosen(self) -> dict[str, object]:
        """What the controls say; areas and kinds are None where all are meant."""
        return {"number": self._count.value, "level": self._level.value or None, "areas": _meant(self._areas),
                "kinds": _meant(self._kind) if self._kinds else None}

    def _speak(self, change: dict) -> None:
        self.frame.language = change["new"]
        self.frame.do(self._changed)


def checked(areas: object, level: int | None, kinds: object, language: str) -> dict[str, object]:
    """What a panel is called with, as its controls take it. Raises BadChoice."""
    language_of(language)
    return {"areas": areas_of(areas) if areas else None, "level": level_of(level),
            "kinds": kinds_of(kinds) if kinds else None}


def spoken(language: str) -> str:
    """The language to tell in that there is none of that name."""
    return language if language in LANGUAGES else "en"


def _named(name: str, control: ipywidgets.ValueWidget) -> ipywidgets.ValueWidget:
    control.description = name
    control.style.description_width = "6em"
    control.layout.width, control.layout.max_width = "20em", "100%"
    control.tooltip = name
    return control


def _several(name: str, options: list[tuple[str, str]], chosen: object) -> ipywidgets.SelectMultiple:
    """A list of which several can be chosen; its first entry means all of them, and is chosen where no other is."""
    made = _named(name, ipywidgets.SelectMultiple(options=options, value=tuple(chosen or (ALL,)), rows=9))

    def settle(change: dict) -> None:
        new, old = change["new"], change["old"]
        if not new:
            made.value = (ALL,)
        elif ALL in new and len(new) > 1:
            made.value = (ALL,) if ALL not in old else tuple(one for one in new if one != ALL)

    made.observe(settle, "value")
    return made


def _meant(control: ipywidgets.SelectMultiple) -> tuple[str, ...] | None:
    return None if ALL in control.value or not control.value else tuple(control.value)
