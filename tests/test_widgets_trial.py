"""trial and scorecard: driven by clicking, in both languages; what is remembered, counted and shown without a kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import ipywidgets
import pytest

from course_lib import journal, widgets
from course_lib.practice import trial as practice
from course_lib.practice.schedule import memories
from course_lib.questions import bank, get
from course_lib.widgets import panel, trial_panel

WRONG, RIGHT, DEPENDS = "adam-v-is-curvature", "adamw-lr-coupling", "why-adam-only-sign"
IDS = [WRONG, RIGHT, DEPENDS]
ROUNDS = {"moments": [WRONG, DEPENDS], "decay": [RIGHT]}


@pytest.fixture
def shown(monkeypatch, home) -> list[dict]:
    """What is displayed."""
    outputs: list[dict] = []
    monkeypatch.setattr(panel, "display", lambda data, metadata=None, raw=False: outputs.append(data))
    return outputs


def below(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from below(child)


def buttons(widget: ipywidgets.Widget) -> list[ipywidgets.Button]:
    return [one for one in below(widget) if isinstance(one, ipywidgets.Button)]


def read(widget: ipywidgets.Widget) -> str:
    return " ".join(one.value for one in below(widget) if isinstance(one, ipywidgets.HTML))


def begun(language: str = "en", ids: list[str] = IDS) -> trial_panel.Trial:
    return trial_panel.Trial(practice.claims(ids, language))


def answered() -> list[tuple[str, bool, dict]]:
    return [(event.exercise, event.passed, event.said) for event in journal.recall()]


# Guessing


@pytest.mark.parametrize(
    ("language", "names", "right", "wrong", "verdict"),
    [
        (
            "en",
            ["right", "wrong", "it depends"],
            "✓ Right. You said: wrong. Verdict: wrong.",
            "✗ Not right.",
            "Verdict: depends.",
        ),
        ("zh", ["对", "错", "看情况"], "✓ 对。 你的判断：错。 判断：错。", "✗ 不对。", "判断：看情况。"),
    ],
)
def test_a_click_grades_shows_the_answer_and_is_remembered_once(home, language, names, right, wrong, verdict):
    made = begun(language)
    claims = made.frame.body.children
    assert len(claims) == 3 and [one.description for one in buttons(claims[0])] == names
    assert all(one.tooltip == one.description for one in buttons(made.frame.box))
    assert getattr(get(WRONG).claim, language).split()[0] in read(claims[0]) and "<details" not in read(made.frame.box)
    assert answered() == []

    first = buttons(claims[0])
    first[1].click()
    assert right in read(claims[0]) and not buttons(claims[0])
    assert "<details open" in read(claims[0]) and "<code>v</code>" in read(claims[0])
    assert [len(buttons(one)) for one in claims] == [0, 3, 3]
    ((name, passed, said),) = answered()
    assert (name, passed, said["answer"], said["language"], said["rating"]) == (WRONG, True, "wrong", language, 3)
    assert 0 <= said["seconds"] < 60 and said["seed"] is None

    before = read(claims[0])
    for button in first:
        button.click()  # a click that was on its way, or that a test sends: the guess stands
    assert len(answered()) == 1 and read(claims[0]) == before

    buttons(claims[2])[0].click()
    assert wrong in read(claims[2]) and verdict in read(claims[2])
    assert answered()[1][:2] == (DEPENDS, False)
    assert all(not one.disabled for one in buttons(claims[1]))


def test_a_guess_counts_for_the_quiz(home):
    made = begun()
    for claim in made.frame.body.children:
        buttons(claim)[1].click()
    known = memories(journal.recall())
    assert set(IDS) <= known.keys()
    assert known[WRONG].due > known[RIGHT].due  # known is asked later than not known


def test_the_time_of_a_guess_runs_from_the_last_and_has_an_end(home, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(trial_panel.time, "monotonic", lambda: now[0])
    made = begun()
    for later, claim in zip((12.0, 5.0, 90_000.0), made.frame.body.children):
        now[0] += later
        buttons(claim)[0].click()
    assert [said["seconds"] for _, _, said in answered()] == [12.0, 5.0, trial_panel.LONGEST]


def test_a_guess_that_cannot_be_saved_is_told(home):
    home.rmdir()
    home.write_text("in the way")
    made = begun()
    buttons(made.frame.body.children[0])[1].click()
    assert "not saved" in made.frame.sentence.value and "Verdict: wrong." in read(made.frame.box)


# The scorecard


def test_the_scorecard_counts_first_guesses_by_theme(home):
    card = trial_panel.Scorecard(ROUNDS, "en")
    (refresh,) = buttons(card.frame.box)
    assert refresh.description == "Refresh"
    assert read(card.frame.box).count("not guessed yet") == 3 and "Guessed wrongly" not in read(card.frame.box)

    made = begun()
    buttons(made.frame.body.children[0])[0].click()  # called right, is wrong
    buttons(made.frame.body.children[1])[0].click()
    assert read(card.frame.box).count("not guessed yet") == 3
    refresh.click()
    table = read(card.frame.box)
    cells = [part.split(">")[-1] for part in table.split("</td>")]
    assert cells[:12] == ["moments", "2", "1", "0", "decay", "1", "1", "1", "all", "3", "2", "1"]
    assert "approximate second-order method" in table and "You said: right. Verdict: wrong." in table
    assert get(RIGHT).claim.en not in table

    buttons(begun().frame.body.children[0])[1].click()  # now that one knows
    refresh.click()
    assert read(card.frame.box) == table


def test_answers_of_the_quiz_count_in_whatever_words(home):
    (asked,) = practice.claims([DEPENDS], "zh")
    practice.judge(asked, "It depends.")
    (asked,) = practice.claims([RIGHT], "zh")
    practice.remember(asked, asked.unknown(), 1, 5.0)
    known = practice.first_guesses(journal.recall())
    assert known == {DEPENDS: practice.Guess("depends", True), RIGHT: practice.Guess("", False)}
    text = practice.score_text(ROUNDS, known, "zh")
    assert text.splitlines()[:2] == ["moments  2 条猜了 1 条，对 1 条", "decay    1 条猜了 1 条，对 0 条"]
    assert "你的判断：不会。 判断：对。" in text


# Where nothing runs


def test_outputs_are_the_same_for_everyone(shown):
    for _ in range(2):
        widgets.trial(IDS)
        widgets.scorecard(ROUNDS)
    first, card, again, card_again = ({kind: text for kind, text in one.items() if kind != panel.VIEW} for one in shown)
    assert first == again and card == card_again and answered() == []
    assert all(one[panel.VIEW]["model_id"] for one in shown)
    lines = first["text/plain"].splitlines()
    numbered = [line for line in lines if line[:1].isdigit()]
    assert [line[:3] for line in numbered] == ["1. ", "2. ", "3. "] and max(map(len, lines[:-1])) <= practice.WIDTH
    assert all(f"[{name}]" in first["text/plain"] for name in IDS)
    assert "verdict" not in first["text/plain"].lower()
    assert card["text/plain"] == "moments  not guessed yet\ndecay    not guessed yet"


def test_without_ipywidgets_one_guesses_by_a_call(shown, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("trial_panel", "asking"):
        monkeypatch.delitem(sys.modules, f"course_lib.widgets.{name}", raising=False)
    widgets.trial(IDS, "zh")
    assert set(shown[0]) == {"text/plain"}
    assert f'widgets.guess("{DEPENDS}", "错", language="zh")' in shown[0]["text/plain"]
    widgets.guess(DEPENDS, "错", language="zh")
    printed = capsys.readouterr().out
    assert printed.startswith("✗ 不对。 你的判断：错。 判断：看情况。") and get(DEPENDS).answer.zh.split()[0] in printed
    widgets.scorecard(ROUNDS)
    assert shown[1]["text/plain"].startswith(
        "moments  1 of 2 guessed, 0 right\ndecay    not guessed yet\nGuessed wrongly:"
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: widgets.trial([]), "Allowed: a list of ids"),
        (lambda: widgets.trial(WRONG), "Allowed: a list of ids"),
        (lambda: widgets.trial(["adam-v-is-curvatur"]), f"Did you mean '{WRONG}'"),
        (lambda: widgets.trial(["adam-first-step"]), "adam-first-step is of kind compute. Allowed: verdict."),
        (lambda: widgets.trial(IDS, "de"), "no language 'de'"),
        (lambda: widgets.guess(WRONG, "maybe"), "Allowed: right, wrong, depends"),
        (lambda: widgets.guess(WRONG, "也许", "zh"), "请答：对、错、看情况"),
        (lambda: widgets.scorecard({}), "Allowed: a map of themes"),
        (lambda: widgets.scorecard([WRONG]), "Allowed: a map of themes"),
        (lambda: widgets.scorecard({"x": []}), "Allowed: a list of ids"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(shown, call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)
    assert not shown and answered() == []


def test_every_verdict_of_the_bank_can_be_put_on_trial():
    names = [name for name, question in bank().items() if question.kind == "verdict"]
    for language in ("en", "zh"):
        made = practice.claims(names, language)
        assert all(f"[{name}]" in practice.words_of(made) for name in names)
