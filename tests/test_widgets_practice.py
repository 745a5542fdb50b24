"""The quiz and the mock interview in a notebook, driven by clicks on their buttons."""

from __future__ import annotations

import asyncio
import html
import json
import re
import sys
from datetime import UTC, datetime, timedelta

import ipywidgets
import pytest

from course_lib import journal, questions, widgets
from course_lib.practice import asking as practice
from course_lib.practice import choose, schedule
from course_lib.practice import interview as mock
from course_lib.practice.asking import Asked
from course_lib.practice.choose import KINDS
from course_lib.practice.words import word
from course_lib.widgets import asking, interview_panel, panel, quiz_panel
from course_lib.widgets.interview_panel import Interviewing
from course_lib.widgets.quiz_panel import Quiz

VIEW = "application/vnd.jupyter.widget-view+json"
LANGUAGES = ("en", "zh")
FIRST = {kind: next(one.id for one in questions.bank().values() if one.kind == kind) for kind in KINDS}


@pytest.fixture(autouse=True)
def _home(home):
    """Progress of the test's own."""


# What a learner does


def below(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from below(child)


def of(one, kind):
    return [widget for widget in below(one.frame.box) if isinstance(widget, kind)]


def buttons(one) -> list[str]:
    return [button.description for button in of(one, ipywidgets.Button)]


def click(one, key: str, language="en", **values):
    """Click the button with these words; it must be there once and be on."""
    text = word(key, language, **values)
    found = [button for button in of(one, ipywidgets.Button) if button.description == text]
    assert len(found) == 1 and not found[0].disabled, (text, buttons(one))
    found[0].click()
    return found[0]


def text_of(one) -> str:
    """All that is read in the panel but for the style."""
    parts = [widget.value for widget in of(one, ipywidgets.HTML)[1:]]
    parts += [output["data"]["text/markdown"] for widget in of(one, ipywidgets.Output) for output in widget.outputs]
    return html.unescape(re.sub(r"<[^>]*>", " ", " ".join(parts)))


def said(one) -> str:
    """The sentence below the panel."""
    return html.unescape(re.sub(r"<[^>]*>", "", one.frame.sentence.value))


def field(one):
    (found,) = of(one, ipywidgets.Text)
    return found


def press_enter(control):
    control._handle_custom_msg({"event": "submit"}, [])


def one_question(monkeypatch, name, language="en", count=1) -> Quiz:
    """A quiz that asks this question."""
    monkeypatch.setattr(quiz_panel, "choose", lambda *_: [questions.get(name)])
    quiz = Quiz(None, None, None, language, count, None)
    click(quiz, "begin", language)
    assert quiz.put.asked.question.id == name
    return quiz


def other_line(bug) -> str:
    return str(next(line for line in range(1, 99) if line not in (bug.line, *bug.also)))


def answer(one, right: bool, language="en") -> str:
    """Answer the question that is put, right or wrong; what was written."""
    asked = one.put.asked
    question = asked.question
    if question.kind == "verdict":
        verdict = question.verdict if right else next(v for v in ("right", "wrong", "depends") if v != question.verdict)
        click(one, f"{verdict}_", language)
        return verdict
    if question.kind == "read-run":
        (radio,) = of(one, ipywidgets.RadioButtons)
        place = asked.causes.index(asked.say(question.run.causes[0]))
        radio.value = "abcdefgh"[place if right else (place + 1) % len(asked.causes)]
        click(one, "grade", language)
        return radio.value
    if question.kind in ("compute", "bug"):
        good, wrong = (str(question.bug.line), other_line(question.bug)) if question.bug else (
            repr(asked.drawn.answer()), "-12345")
        field(one).value = good if right else wrong
        press_enter(field(one))
        return good if right else wrong
    (area,) = of(one, ipywidgets.Textarea)
    area.value = "My answer, 我的回答."
    click(one, "show_rubric", language)
    boxes = of(one, ipywidgets.Checkbox)
    assert len(boxes) == len(asked.rubric) and not any(box.value for box in boxes)
    for box in boxes:
        box.value = right
    click(one, "grade", language)
    return area.value


def events(kind=journal.ANSWERED):
    return [event for event in journal.load() if event.kind == kind]


# What the cell shows


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(panel, "display", lambda data, metadata=None, raw=False: outputs.append((data, metadata)))
    return outputs


@pytest.mark.parametrize("call", [
    widgets.quiz, widgets.interview, lambda: widgets.quiz("memroy"), lambda: widgets.interview(500)])
def test_a_cell_shows_one_output_and_does_nothing_else(shown, call, home):
    call()
    call()
    (data, metadata), (again, _) = shown
    assert set(data) == {VIEW, "text/plain"} and metadata is None
    assert data["text/plain"] == again["text/plain"]
    assert "Run this cell" in data["text/plain"] and "course " in data["text/plain"]
    assert not list(home.iterdir())


def test_without_ipywidgets_there_is_a_sentence(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("asking", "quiz_panel", "interview_panel"):
        monkeypatch.delitem(sys.modules, f"course_lib.widgets.{name}")
    widgets.quiz()
    widgets.interview()
    for data, _ in shown:
        assert set(data) == {"text/plain"} and "pip install ipywidgets" in data["text/plain"]


def test_nothing_is_remembered_before_begin(home):
    for language in LANGUAGES:
        Quiz(None, None, None, language, 3, None)
        Interviewing(5, 1, None, language, 1)
    assert not list(home.iterdir())
    quiz = Quiz(None, None, None, "en", 3, None)
    click(quiz, "begin")
    answer(quiz, True)
    assert events() == []  # a quiz remembers what was rated


# Every kind of question, to its end


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_asked_graded_rated_and_remembered(monkeypatch, kind, right, language):
    quiz = one_question(monkeypatch, FIRST[kind], language)
    asked = quiz.put.asked
    seen = text_of(quiz)
    for key in ("answer", "weak", "follow_ups", "evidence"):  # nothing is given away
        assert word(key, language).strip(":：") not in seen
    written = answer(quiz, right, language)
    assert quiz.put.grade.enough == right and quiz.put.written == written
    seen = text_of(quiz)
    for key in ("answer", "weak", "follow_ups", "sources", "evidence"):
        assert word(key, language).strip(":：") in seen, key
    assert ("✓" if right else "✗") in seen
    assert not [name for name in buttons(quiz) if name in (word("grade", language), word("unknown", language))]
    rating = practice.rating_for(quiz.put.grade)
    main = [button.description for button in of(quiz, ipywidgets.Button) if button.button_style == "primary"]
    assert main == [word(practice.RATINGS[rating], language)]
    click(quiz, "easy", language)
    (event,) = events()
    assert event.exercise == asked.question.id and event.passed == right
    details = json.loads(event.details)
    assert details["rating"] == 4 and details["language"] == language and details["answer"] == written
    assert details["seed"] == asked.seed and 0 <= details["seconds"] < 60 and details["score"] == float(right)
    assert word("next_due", language, when="").strip() in text_of(quiz)
    click(quiz, "next", language)
    assert word("quiz_done", language, right=int(right), count=1, due=0) in text_of(quiz)
    click(quiz, "once_more", language)
    assert word("begin", language) in buttons(quiz)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_who_does_not_know_sees_the_answer_with_its_rubric(monkeypatch, kind, language):
    quiz = one_question(monkeypatch, FIRST[kind], language)
    click(quiz, "unknown", language)
    seen = text_of(quiz)
    assert word("given_up", language) in seen and word("rubric", language).strip(":：") in seen
    click(quiz, "again", language)
    (event,) = events()
    assert not event.passed and event.said["rating"] == 1 and event.said["score"] == 0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "typed"), [
    ("compute", "no idea"), ("compute", ""), ("bug", "4000"), ("bug", " "), ("read-run", None)])
def test_what_cannot_be_read_is_asked_again(monkeypatch, kind, typed, language):
    quiz = one_question(monkeypatch, FIRST[kind], language)
    if typed is not None:
        field(quiz).value = typed
    click(quiz, "grade", language)
    assert quiz.put.grade is None and said(quiz)
    assert ("Allowed" in said(quiz)) == (language == "en")
    answer(quiz, True, language)
    assert quiz.put.grade.enough and not said(quiz)


def test_the_words_of_a_run_are_offered_as_radio_buttons_and_its_curves_as_a_picture(monkeypatch):
    quiz = one_question(monkeypatch, FIRST["read-run"])
    (radio,) = of(quiz, ipywidgets.RadioButtons)
    assert radio.value is None and len(radio.options) == len(quiz.put.asked.causes)
    pictures = [widget.value for widget in of(quiz, ipywidgets.HTML) if "data:image/png;base64," in widget.value]
    assert len(pictures) == 1 and re.search(r'alt="[^"]{5,}"', pictures[0])


def test_the_points_that_are_ticked_make_the_score(monkeypatch):
    quiz = one_question(monkeypatch, "adam-in-words")
    click(quiz, "show_rubric")
    boxes = of(quiz, ipywidgets.Checkbox)
    boxes[0].value = True
    click(quiz, "grade")
    weights = [weight for weight, _ in quiz.put.asked.rubric]
    assert quiz.put.grade.score == weights[0] / sum(weights)
    assert all(box.disabled for box in boxes)


def test_evidence_runs_at_once_for_a_verdict_and_else_on_a_click(monkeypatch):
    quiz = one_question(monkeypatch, "adam-two-percent")
    answer(quiz, True)
    assert "Just run" in text_of(quiz) and "def " in text_of(quiz) and word("run_evidence") not in buttons(quiz)
    quiz = one_question(monkeypatch, "adam-in-words")
    answer(quiz, True)
    assert "Just run" not in text_of(quiz)
    click(quiz, "run_evidence")
    assert "Just run: update_matches_torch holds." in " ".join(text_of(quiz).split())
    assert word("run_evidence") not in buttons(quiz)


def test_evidence_that_fails_says_so_and_can_be_run_again(monkeypatch):
    quiz = one_question(monkeypatch, "adam-in-words")
    answer(quiz, True)

    def broken(_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(asking, "demonstrate", broken)
    click(quiz, "run_evidence")
    assert "RuntimeError: no memory" in said(quiz) and "Traceback" not in said(quiz)
    monkeypatch.undo()
    click(quiz, "run_evidence")
    assert "holds" in text_of(quiz) and not said(quiz)


# The quiz


def test_a_double_click_does_no_harm(monkeypatch):
    quiz = one_question(monkeypatch, FIRST["compute"])
    field(quiz).value = repr(quiz.put.asked.drawn.answer())
    button = click(quiz, "grade")
    button.click()
    button = click(quiz, "good")
    button.click()
    assert len(events()) == 1
    button = click(quiz, "next")
    button.click()
    assert word("once_more") in buttons(quiz) and len(events()) == 1


def test_buttons_are_off_while_something_runs(monkeypatch):
    quiz = one_question(monkeypatch, "adam-in-words")
    answer(quiz, True)
    states = []

    def demonstrate(_):
        states.append([button.disabled for button in of(quiz, ipywidgets.Button)])
        return []

    monkeypatch.setattr(asking, "demonstrate", demonstrate)
    click(quiz, "run_evidence")
    assert len(states) == 1 and all(states[0]) and len(states[0]) >= 5
    assert not any(button.disabled for button in of(quiz, ipywidgets.Button))


def test_a_quiz_asks_what_was_chosen_and_what_is_due_first(monkeypatch):
    when = (datetime.now(UTC) - timedelta(days=20)).isoformat()
    due = choose.choose("memory", 2, "verdict")[1].id
    event = journal.Event(due, journal.ANSWERED, passed=False, time=when, details='{"rating": 1}')
    journal.open_store().append([event])
    quiz = Quiz("memory", 2, "verdict", "en", 3, None)
    click(quiz, "begin")
    assert quiz.put.asked.question.id == due
    assert word("of_quiz", place=1, count=3) in text_of(quiz) and word("due_or_new", due=1, new=2) in text_of(quiz)
    asked = []
    for _ in range(3):
        asked.append(quiz.put.asked.question)
        click(quiz, "unknown")
        click(quiz, "again")
        click(quiz, "next")
    assert {(one.area, one.level, one.kind) for one in asked} == {("memory", 2, "verdict")}
    assert len({one.id for one in asked}) == 3


def test_what_is_chosen_by_hand_counts_and_all_gives_way_to_it():
    quiz = Quiz(None, None, None, "en", 10, None)
    areas, kinds = of(quiz, ipywidgets.SelectMultiple)
    assert areas.value == kinds.value == ("all",)
    kinds.value = ("all", "verdict")
    assert kinds.value == ("verdict",)
    kinds.value = ("all", "verdict")
    assert kinds.value == ("all",)
    kinds.value = ()
    assert kinds.value == ("all",)
    areas.value = ("memory", "adam")
    of(quiz, ipywidgets.BoundedIntText)[0].value = 4
    kinds.value = ("compute",)
    click(quiz, "begin")
    assert {(one.kind) for one in quiz._questions} == {"compute"} and len(quiz._questions) == 4
    assert {one.area for one in quiz._questions} == {"memory", "adam"}


def test_the_language_can_be_changed_and_the_choices_stay():
    quiz = Quiz("memory", 2, "compute", "en", 7, None)
    of(quiz, ipywidgets.Dropdown)[1].value = "zh"
    assert word("begin", "zh") in buttons(quiz) and word("quiz", "zh") in text_of(quiz)
    areas, kinds = of(quiz, ipywidgets.SelectMultiple)
    assert (areas.value, kinds.value) == (("memory",), ("compute",))
    assert of(quiz, ipywidgets.BoundedIntText)[0].value == 7 and of(quiz, ipywidgets.Dropdown)[0].value == 2
    click(quiz, "begin", "zh")
    assert re.search("[\u4e00-\u9fff]", quiz.put.asked.prompt)


def test_a_quiz_with_nothing_to_ask_says_when(monkeypatch):
    quiz = one_question(monkeypatch, "adam-in-words")
    answer(quiz, True)
    click(quiz, "easy")
    click(quiz, "next")
    click(quiz, "once_more")
    click(quiz, "begin")
    assert quiz.put is None and "Next due: in " in said(quiz)


def test_a_quiz_that_is_stopped_sums_up():
    quiz = Quiz(None, None, "verdict", "en", 5, None)
    click(quiz, "begin")
    answer(quiz, True)
    click(quiz, "good")
    click(quiz, "next")
    click(quiz, "stop")
    assert "1 of 1 good enough" in text_of(quiz)


def test_a_long_session_does_not_pile_up_controls():
    quiz = Quiz(None, None, "verdict", "en", 8, None)
    click(quiz, "begin")
    made = []
    for _ in range(8):
        made.append(list(below(quiz.put.box)))
        click(quiz, "unknown")
        click(quiz, "again")
        click(quiz, "next")
    assert all(widget.comm is None for question in made[:5] for widget in question)


# Errors are sentences


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Quiz("memroy", None, None, "en", 10, None), "There is no area 'memroy'. Did you mean memory"),
    (lambda: Quiz(None, 4, None, "en", 10, None), "There is no level 4"),
    (lambda: Quiz(None, None, "verdit", "en", 10, None), "Did you mean verdict"),
    (lambda: Quiz(None, None, None, "fr", 10, None), "There is no language 'fr'"),
    (lambda: Quiz(None, None, None, "en", 0, None), "count is 0. Allowed: 1 to"),
    (lambda: Interviewing(500, 2, None, "en", None), "minutes is 500. Allowed: 5 to 180"),
    (lambda: Interviewing(45, 2, "addam", "en", None), "Did you mean adam"),
])
def test_a_wrong_argument_is_a_sentence_and_one_can_still_begin(make, sentence):
    one = make()
    assert sentence in said(one) and "Traceback" not in said(one)
    click(one, "begin")
    assert one.put is not None and not said(one)


def test_a_bank_with_a_fault_and_a_missing_package_are_sentences(monkeypatch):
    def broken():
        raise questions.BankError("adam.yaml: question x: is wrong.\nadam.yaml: question y: is wrong.")

    with monkeypatch.context() as patch:
        patch.setattr(choose, "bank", broken)
        for one in (Quiz(None, None, None, "en", 10, None), Interviewing(45, 2, None, "en", None)):
            assert "question x: is wrong." in said(one) and "question y" in said(one)
    quiz = Quiz(None, None, None, "en", 10, None)
    monkeypatch.setitem(sys.modules, "fsrs", None)
    click(quiz, "begin")
    assert "pip install fsrs" in said(quiz) and quiz.put is None


def test_nothing_of_a_kind_is_a_sentence():
    quiz = Quiz("averaging", 3, "implement", "en", 10, None)
    click(quiz, "begin")
    assert "Leave one of these out" in said(quiz) and word("begin") in buttons(quiz)


def test_a_journal_that_cannot_be_written_is_told_and_the_quiz_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", "relative")
    quiz = Quiz(None, None, "verdict", "en", 2, None)
    click(quiz, "begin")
    assert "Progress is not saved" in said(quiz)
    click(quiz, "unknown")
    click(quiz, "again")
    click(quiz, "next")
    assert quiz.put is not None
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "found"))
    click(quiz, "unknown")
    click(quiz, "again")
    assert len(events()) == 2  # what could not be written went along with the next


# The interview


class Clock:
    """A clock that goes when it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_by(self, one, seconds):
        """Let seconds go by, with a look at the clock at each."""
        for _ in range(seconds):
            self.now += 1
            one.tick()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(interview_panel, "Stopwatch", lambda: asking.Stopwatch(made))
    return made


def head(one):
    return html.unescape(re.sub(r"<[^>]*>", "", one.frame.head.value))


def finish(one, language="en", right=False):
    """Answer what is left of the question and go on, up to the report."""
    while one.put is not None:
        answer(one, right, language)
        click(one, "to_report" if word("to_report", language) in buttons(one) else "next", language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("right", [True, False])
def test_an_interview_is_gone_through_to_a_report_that_is_true(clock, right, language):
    one = Interviewing(12, 2, None, language, 5)
    click(one, "begin", language)
    plan = mock.plan(12, 2, None, 5)
    assert [(item.exercise, len(item.said["items"])) for item in events(journal.INTERVIEW)] == [(one.one.id, len(plan))]
    for place, (name, seed) in enumerate(plan):
        assert (one.put.asked.question.id, one.put.asked.seed) == (name, seed)
        assert head(one).startswith(word("of_quiz", language, place=place + 1, count=len(plan)))
        clock.pass_by(one, 20)
        answer(one, right, language)
        said_last = events()[-1].said
        assert (said_last["interview"], said_last["place"], said_last["seconds"]) == (one.one.id, place, 20)
        clock.pass_by(one, 50)  # reading costs nothing
        click(one, "next" if place < len(plan) - 1 else "to_report", language)
    assert one.put is None and len(events(journal.ENDED)) == 1
    (kept,) = mock.interviews(journal.load())
    assert kept.ended and kept.seconds_used == 20 * len(plan)
    assert {one.score for one in kept.answers.values()} == {float(right)}
    seen = text_of(one)
    assert word("report", language) in seen and f"{float(right):.0%}" in seen
    assert ("ipynb#" in seen) == (not right) and "notebooks/" not in seen
    click(one, "another", language)
    assert word("begin", language) in buttons(one)


def test_the_clocks_say_what_is_left_and_what_this_question_took(clock):
    one = Interviewing(5, 2, "memory", "en", 1)
    click(one, "begin")
    limit = practice.SECONDS[one.put.asked.question.kind]
    clock.pass_by(one, 65)
    assert head(one).endswith(f"· 3:55 left · this question 1:05 of {limit // 60}:{limit % 60:02}")


def test_a_closed_laptop_adds_no_hours(clock):
    one = Interviewing(45, 2, None, "en", 1)
    click(one, "begin")
    clock.now += 8 * 3600
    one.tick()
    assert one.watch.look() == asking.MOST_A_TICK
    clock.now -= 100  # nor does a clock that jumps back take any away
    assert one.watch.look() == asking.MOST_A_TICK


def test_a_question_that_nobody_answers_pauses_the_interview(clock):
    one = Interviewing(45, 2, None, "en", 1)
    click(one, "begin")
    limit = interview_panel.OPEN_FOR * practice.SECONDS[one.put.asked.question.kind]
    clock.pass_by(one, limit + 3600)
    assert one.watch.look() == limit and "Paused by itself" in text_of(one)
    click(one, "go_on")
    clock.pass_by(one, 10)
    assert one.watch.look() == limit + 10 and one.put.box in one.frame.body.children


def test_a_pause_hides_the_question_and_stops_the_clock_and_keeps_what_was_written(clock):
    one = Interviewing(30, 1, "adam", "en", 3)
    click(one, "begin")
    while not of(one, ipywidgets.Textarea):
        click(one, "unknown")
        click(one, "next")
    of(one, ipywidgets.Textarea)[0].value = "half an answer"
    clock.pass_by(one, 7)
    button = click(one, "pause")
    button.click()
    prompt = one.put.asked.prompt.split(".")[0]
    assert prompt not in text_of(one) and word("paused") in text_of(one)
    clock.pass_by(one, 500)
    click(one, "go_on")
    assert of(one, ipywidgets.Textarea)[0].value == "half an answer" and prompt.split()[0] in text_of(one)
    assert one.watch.look() == 7
    click(one, "pause")
    click(one, "go_on")
    click(one, "pause")
    click(one, "go_on")
    click(one, "show_rubric")
    click(one, "grade")
    assert events()[-1].said["answer"] == "half an answer" and events()[-1].said["seconds"] == 7


def test_to_end_takes_two_clicks_and_shows_what_was_answered():
    one = Interviewing(30, 2, None, "en", 2)
    click(one, "begin")
    answer(one, True)
    click(one, "next")
    click(one, "end")
    assert "1 of" in text_of(one) and events(journal.ENDED) == []
    click(one, "go_on")
    click(one, "end")
    button = click(one, "end_now")
    button.click()
    assert len(events(journal.ENDED)) == 1 and "100% over 1 of" in text_of(one)


def test_an_interview_goes_on_after_a_restart_in_its_own_language(clock, new_session):
    one = Interviewing(20, 2, None, "zh", 4)
    click(one, "begin", "zh")
    clock.pass_by(one, 30)
    answer(one, True, "zh")
    click(one, "next", "zh")
    second = one.put.asked
    new_session()  # the kernel is gone
    one = Interviewing(45, 1, None, "en", None)
    click(one, "go_on_with", done=1, count=len(mock.plan(20, 2, None, 4)))
    assert one.put.asked == second and second.language == "zh"
    assert one.one.seconds_used == 30 and "第 2 题" in head(one) and "接着上次" in said(one)
    finish(one, "zh")
    assert word("report", "zh") in text_of(one) and len(events(journal.INTERVIEW)) == 1


def test_one_that_was_cut_short_can_be_left_for_a_new_one():
    one = Interviewing(20, 2, None, "en", 4)
    click(one, "begin")
    one = Interviewing(20, 2, None, "en", 5)
    click(one, "begin_new")
    assert len(events(journal.INTERVIEW)) == 2 and [one.one.items[0][0]] == [mock.plan(20, 2, None, 5)[0][0]]


def test_of_two_windows_the_first_answer_stands(clock):
    first = Interviewing(20, 2, None, "en", 4)
    click(first, "begin")
    second = Interviewing(20, 2, None, "en", 4)
    assert word("elsewhere") in text_of(first)  # its clock stands still
    clock.pass_by(first, 30)
    assert first.watch.look() == 0
    click(second, "go_on_with", done=0, count=len(mock.plan(20, 2, None, 4)))
    click(first, "go_on")
    assert word("elsewhere") in text_of(second)
    answer(first, True)
    click(second, "go_on")
    answer(second, False)
    assert word("answered_elsewhere") in text_of(second)
    assert [event.passed for event in events()] == [True]
    click(second, "next")
    answer(second, False)
    click(first, "next")
    assert first._place == 2  # what the other window answered is not asked again


def test_an_interview_that_another_window_ended_shows_its_report():
    first = Interviewing(20, 2, None, "en", 4)
    click(first, "begin")
    answer(first, True)
    mock.unfinished().end()
    click(first, "next")
    assert word("report") in text_of(first) and len(events(journal.ENDED)) == 1
    second = Interviewing(20, 2, None, "en", 4)
    assert word("begin") in buttons(second)


def test_a_double_click_in_an_interview_answers_one_question():
    one = Interviewing(20, 2, None, "en", 4)
    button = click(one, "begin")
    button.click()
    assert len(events(journal.INTERVIEW)) == 1
    for _ in range(3):
        button = click(one, "unknown")
        button.click()
        button = click(one, "next")
        button.click()
    assert [event.said["place"] for event in events()] == [0, 1, 2] and one._place == 3


def test_time_that_is_up_ends_the_interview(clock, monkeypatch):
    monkeypatch.setattr(interview_panel, "OPEN_FOR", 100)
    one = Interviewing(5, 1, None, "en", 4)
    click(one, "begin")
    clock.pass_by(one, 400)
    assert "1:40 over" in head(one)
    answer(one, True)
    click(one, "to_report")
    assert f"of {len(mock.plan(5, 1, None, 4))} questions" in text_of(one)


def test_the_clock_ticks_in_the_loop_of_the_kernel_and_stops():
    async def session():
        one = Interviewing(45, 2, None, "en", 1)
        click(one, "begin")
        await asyncio.sleep(2.3)
        ticked = head(one)
        Interviewing(45, 2, None, "en", 1)  # the cell is run again
        stopped = one.frame.head.value
        await asyncio.sleep(1.2)
        return ticked, stopped, one.frame.head.value, one._ticker._handle

    ticked, stopped, later, handle = asyncio.run(session())
    assert "this question 0:02" in ticked and stopped == later and handle is None


def test_a_journal_keeps_what_both_widgets_and_the_terminal_answer(monkeypatch):
    quiz = one_question(monkeypatch, "adam-two-percent")
    answer(quiz, True)
    click(quiz, "good")
    one = Interviewing(20, 2, None, "en", 4)
    click(one, "begin")
    answer(one, True)
    practice.remember(Asked(questions.get("adam-in-words"), 1), practice.Grade(1.0), 3, 10.0)
    known = schedule.memories(journal.load())
    assert {"adam-two-percent", "adam-in-words", one.put.asked.question.id} == set(known)
