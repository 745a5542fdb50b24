"""`course quiz`, `interview`, `questions`, `paper` and `anki` at the command line."""

from __future__ import annotations

import json
import re
import sqlite3
import zipfile
from contextlib import closing
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from course_lib import journal, questions
from course_lib.cli import app
from course_lib.practice import interview, report
from course_lib.practice.asking import Asked

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(journal, "_session", journal._Session())


def course(*arguments, said="", code=0):
    done = RUNNER.invoke(app, [*map(str, arguments)], input=said)
    assert done.exit_code == code, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done


def right(question_id, seed=None, language="en"):
    """What to type for full marks."""
    asked = Asked(questions.get(question_id), seed, language)
    question = asked.question
    if question.kind == "compute":
        return repr(asked.drawn.answer())
    if question.kind == "read-run":
        return "abcde"[asked.causes.index(asked.say(question.run.causes[0]))]
    return {"verdict": question.verdict, "bug": question.bug and str(question.bug.line)}.get(question.kind) or "\nall"


# The bank


def test_the_list_as_json_counts_what_the_bank_holds():
    document = json.loads(course("questions", "--list", "--json").output)
    assert document["counts"]["total"] == {"questions": len(questions.bank())} == {"questions": len(document["questions"])}
    assert document["counts"]["kind"]["verdict"] == sum(one.kind == "verdict" for one in questions.bank().values())
    assert all("{" not in row["prompt"] or "`" in row["prompt"] for row in document["questions"])


def test_a_part_of_the_bank_and_one_question_proved():
    rows = json.loads(course("questions", "--areas", "memory", "--level", 1, "--kinds", "compute", "--json").output)["questions"]
    assert rows and all((row["area"], row["level"], row["kind"]) == ("memory", 1, "compute") for row in rows)
    shown = course("questions", "memory-zero-one", "--prove").output
    assert "29.31 GB" in shown and "def zero_one(" in shown and "zero_one holds" in shown
    assert "ZeRO" in course("questions", "memory-zero-one", "--lang", "zh").output
    assert "memory-gib" in course("questions", "--list", "--areas", "memory").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["questions", "memory-zero-on"], "no question 'memory-zero-on'. Did you mean 'memory-zero-one'"),
        (["questions", "--areas", "memroy"], "no area 'memroy'. Did you mean memory"),
        (["quiz", "--level", 4], "no level 4. Allowed: 1 (screen)"),
        (["quiz", "--kinds", "verdit"], "no kind 'verdit'. Did you mean verdict"),
        (["quiz", "--lang", "fr"], "no language 'fr'. Allowed: en, zh"),
        (["interview", "--minutes", 500], "minutes is 500. Allowed: 5 to 180"),
        (["interview", "--areas", "addam"], "no area 'addam'. Did you mean adam"),
        (["paper", "--level", 9], "no level 9"),
        (["anki", "--out", "deck.txt"], "does not end in .apkg"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments, said):
    assert said in " ".join(course(*arguments, code=2).output.split())


def test_a_fault_in_the_bank_is_a_sentence(monkeypatch):
    def broken():
        raise questions.BankError("adam.yaml: question adam-memory, field level: is 4. Allowed: 1, 2 or 3.")

    monkeypatch.setattr("course_lib.practice.choose.bank", broken)
    assert "adam.yaml: question adam-memory, field level" in course("questions", code=2).output


# Quizzes


def test_a_quiz_grades_remembers_and_says_when_again():
    done = course("quiz", "--areas", "memory", "--kinds", "verdict", "--count", 1, said="perhaps\nwrong\n\n").output
    (event,) = journal.recall()
    question = questions.get(event.exercise)
    assert "'perhaps' is no verdict. Allowed: right, wrong, depends" in done
    assert event.passed == (question.verdict == "wrong") and event.said["answer"] == "wrong"
    assert ("Right." in done) == event.passed and "Comes again: " in done
    assert f"{int(event.passed)} of 1 good enough" in done
    assert any(f"{proof.function} holds" in done for proof in question.evidence if proof.function)


def test_a_quiz_in_chinese_speaks_chinese():
    done = course("quiz", "--areas", "memory", "--kinds", "compute", "--count", 1, "--lang", "zh", said="约 1 GB\n\n").output
    for words in ("计算", "显存计算", "不对。", "参考回答", "得分点", "掌握得怎么样"):
        assert words in done
    assert journal.recall()[0].said["language"] == "zh"


def test_stopping_keeps_what_was_answered_and_the_rest_comes_next():
    done = course("quiz", "--kinds", "verdict", "--count", 3, said="right\n\n").output
    assert "Stopped. Everything so far is kept" in done and len(journal.recall()) == 1
    first = journal.recall()[0].exercise
    again = course("quiz", "--kinds", "verdict", "--count", 1, said="").output
    assert "0 due, 1 new" in again and first not in again


def test_a_quiz_with_nothing_due_says_when():
    course("quiz", "--areas", "memory", "--kinds", "verdict", "--count", 1, said="wrong\n4\n")
    done = course("quiz", "--areas", "memory", "--kinds", "verdict", "--new", 0)
    assert "Nothing is due" in done.output and len(journal.recall()) == 1


# Interviews


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_interview_goes_through_stops_and_ends_in_a_true_report(tmp_path, language):
    arguments = ["interview", "--minutes", 20, "--level", 1, "--areas", "memory,adam", "--lang", language, "--seed", 5]
    items = interview.plan(20, 1, "memory,adam", 5)
    assert len(items) >= 4
    first, rest = items[:2], items[2:]
    course(*arguments, said="".join(right(*item, language) + "\n" for item in first))
    assert len(interview.unfinished().answers) == 2
    lines = "".join("\n" if "\n" not in right(*item, language) else "\nnone\n" for item in rest)  # all given up
    file = tmp_path / "report.md"
    done = course("interview", "--out", file, said=lines)
    (one,) = interview.interviews(journal.recall())
    assert one.ended and [answer.score for _, answer in sorted(one.answers.items())] == [1.0] * 2 + [0.0] * len(rest)
    assert report.report(one).score == pytest.approx(2 / len(items))
    assert f"{2 / len(items):.0%}" in file.read_text(encoding="utf-8") and f"{2 / len(items):.0%}" in done.output
    assert ("面试报告" if language == "zh" else "Report") in done.output
    assert "was left as it is" in course("interview", "--out", file, code=2).output


def test_new_leaves_the_one_that_was_cut_short():
    course("interview", "--minutes", 10, "--seed", 1, said="")
    course("interview", "--minutes", 10, "--seed", 2, "--new", said="")
    assert len(interview.interviews(journal.recall())) == 2


# Papers and cards


class Visible(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text, self.addresses = "", []

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_paper_is_the_seeds_to_the_byte_and_shows_no_answer(tmp_path, language):
    for folder in ("a", "b"):
        course("paper", "--seed", 7, "--minutes", 180, "--lang", language, "--out", tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {f"paper-7-{language}.md", f"paper-7-{language}.html", f"key-7-{language}.md", f"key-7-{language}.html"} <= set(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    paper, key = (Visible(), Visible())
    paper.feed((tmp_path / "a" / f"paper-7-{language}.html").read_text(encoding="utf-8"))
    key.feed((tmp_path / "a" / f"key-7-{language}.html").read_text(encoding="utf-8"))
    items = interview.plan(180, 2, None, 7)
    assert any(questions.get(name).run for name, _ in items), "take a seed with curves in it"
    for name, seed in items:
        asked = Asked(questions.get(name), seed, language)
        sentence = max(re.split(r"[.。`\n]", asked.say(asked.question.answer)), key=len).strip()
        assert sentence in key.text and sentence not in paper.text
        assert name in paper.text
    assert all(address.startswith(("https://", "data:image/png;base64,")) for address in paper.addresses + key.addresses)
    assert any(address.startswith("data:") for address in paper.addresses)


def test_a_paper_overwrites_nothing_else(tmp_path):
    (tmp_path / "paper-3-en.md").write_text("mine")
    done = course("paper", "--seed", 3, "--minutes", 10, "--out", tmp_path, code=2)
    assert "was left as it is" in done.output and (tmp_path / "paper-3-en.md").read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert "cannot be written" in course("paper", "--out", tmp_path / "file", code=2).output


def notes(file, folder):
    """guid and fields of the notes of an Anki package, and its media by name, read without genanki."""
    with zipfile.ZipFile(file) as package:
        media = {name: package.read(number) for number, name in json.loads(package.read("media")).items()}
        package.extract("collection.anki2", folder)
    with closing(sqlite3.connect(folder / "collection.anki2")) as database:
        rows = database.execute("SELECT guid, flds, tags FROM notes").fetchall()
        cards = database.execute("SELECT count(*) FROM cards").fetchone()[0]
        decks = json.loads(database.execute("SELECT decks FROM col").fetchone()[0])
    return {fields.split("\x1f")[0]: (guid, fields.split("\x1f"), tags) for guid, fields, tags in rows}, cards, decks, media


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_deck_has_a_card_for_each_question_and_keeps_its_ids(tmp_path, language):
    for name in ("one.apkg", "two.apkg"):
        course("anki", "--areas", "adaptive_rates,memory", "--lang", language, "--out", tmp_path / name)
    (first, cards, decks, media), (second, _, other, _) = (notes(tmp_path / name, tmp_path) for name in ("one.apkg", "two.apkg"))
    expected = [one for one in questions.bank().values() if one.area in ("adaptive_rates", "memory")]
    assert first.keys() == {one.id for one in expected} and cards == len(expected)
    assert {name: note[0] for name, note in first.items()} == {name: note[0] for name, note in second.items()}
    assert decks.keys() == other.keys() and len({note[0] for note in first.values()}) == len(expected)
    for one in expected:
        _, (_, _, front, back), tags = first[one.id]
        assert f" {one.kind} " in tags and "{" not in re.sub(r"<code>.*?</code>|<pre>.*?</pre>", "", front, flags=re.S)
        for name in re.findall(r'src="([^"]+)"', front):
            assert media[name].startswith(b"\x89PNG")
        assert back.count("<li>") >= len(one.rubric)
        assert bool(one.run) == ("<img" in front)
    assert "was left as it is" in course("anki", "--out", tmp_path / "one.apkg", code=2).output


def test_english_and_chinese_cards_do_not_replace_each_other(tmp_path):
    for language in ("en", "zh"):
        course("anki", "--areas", "adamw", "--lang", language, "--out", tmp_path / f"{language}.apkg")
    english, chinese = (notes(tmp_path / f"{language}.apkg", tmp_path)[0] for language in ("en", "zh"))
    assert not {note[0] for note in english.values()} & {note[0] for note in chinese.values()}


def test_a_question_left_open_over_night_does_not_eat_the_interview(monkeypatch):
    from course_lib.cli import practice
    from course_lib.cli.ask import Told
    from course_lib.practice.asking import OPEN_FOR, SECONDS
    from course_lib.questions.grading import Grade

    monkeypatch.setattr(practice, "ask", lambda *_: Told(Grade(1.0), 30_000.0, ""))
    course("interview", "--minutes", 180, "--seed", 1)
    (one,) = interview.interviews(journal.recall())
    assert len(one.answers) > 1
    for place, answer in one.answers.items():
        assert answer.seconds == OPEN_FOR * SECONDS[one.asked(place).question.kind]
