"""Quizzes that come back when due, mock interviews that survive interruptions, and reports that are true."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import fsrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import journal, questions
from course_lib.checks.exercises import EXERCISES
from course_lib.practice import asking, choose, interview, report, schedule, words
from course_lib.questions.grading import Grade
from course_lib.questions.schema import AREAS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(journal, "_session", journal._Session())
    return tmp_path / "home"


def answered(name="adam-first-step", rating=3, when=NOW, passed=None, **more):
    details = {"rating": rating, "seed": 1, "score": 1.0, "seconds": 10.0} | more
    return journal.Event(name, journal.ANSWERED, passed=rating > 1 if passed is None else passed, time=when.isoformat(),
                         details=json.dumps(details))


# Choosing


def test_areas_are_found_by_alias_and_the_nearest_is_named():
    assert choose.areas_of("memory, AMP") == ("memory", "mixed_precision")
    assert choose.areas_of("mixed-precision") == ("mixed_precision",) and choose.areas_of("fine_tuning") == ("fine-tuning",)
    assert choose.areas_of(None) == choose.areas_of("") == tuple(a for a in AREAS if a in {q.area for q in questions.bank().values()})
    with pytest.raises(choose.BadChoice, match="no area 'memroy'. Did you mean memory. Allowed: gradient_descent, "):
        choose.areas_of("memroy")
    with pytest.raises(choose.BadChoice, match="no kind 'verdit'. Did you mean verdict"):
        choose.kinds_of("verdit")
    with pytest.raises(choose.BadChoice, match=r"no level 4. Allowed: 1 \(screen\), 2"):
        choose.choose(level=4)
    with pytest.raises(choose.BadChoice, match="no language 'fr'. Allowed: en, zh"):
        choose.language_of("fr")


def test_every_alias_stands_for_an_area_and_every_area_has_a_name():
    assert set(choose.ALIASES.values()) <= set(AREAS) and words.AREAS.keys() == set(AREAS) == report.NOTEBOOKS.keys()


@given(areas=st.sets(st.sampled_from(AREAS[:6])), level=st.sampled_from([None, 1, 2, 3]), kinds=st.sets(st.sampled_from(choose.KINDS[:4])))
def test_what_is_chosen_is_what_was_asked_for(areas, level, kinds):
    try:
        chosen = choose.choose(areas, level, kinds)
    except choose.BadChoice as error:
        assert "Leave one of these out" in str(error)
        chosen = []
    want = [one for one in questions.bank().values() if (not areas or one.area in areas)
            and level in (None, one.level) and (not kinds or one.kind in kinds)]
    assert {one.id for one in chosen} == {one.id for one in want}


# When to ask again


def test_the_schedule_is_that_of_fsrs():
    times = [NOW + timedelta(minutes=m) for m in (0, 15, 60 * 24, 60 * 24 * 5)]
    ratings = [3, 3, 1, 4]
    scheduler, card = fsrs.Scheduler(enable_fuzzing=False), fsrs.Card(card_id=1)
    for when, rating in zip(times, ratings, strict=True):
        card, _ = scheduler.review_card(card, fsrs.Rating(rating), when)
    later = NOW + timedelta(days=9)
    known = schedule.memories([answered(rating=r, when=t) for t, r in zip(times, ratings, strict=True)], later)
    memory = known["adam-first-step"]
    assert memory.due == card.due and memory.answers == 4 and memory.rating == 4
    assert math.isclose(memory.recall, scheduler.get_card_retrievability(card, later))


def test_what_was_not_known_comes_before_what_was():
    known = schedule.memories([answered("adam-first-step", 1), answered("adam-memory", 4)], NOW + timedelta(hours=1))
    assert known["adam-first-step"].due < NOW + timedelta(hours=1) < known["adam-memory"].due
    chosen = [questions.get(name) for name in ("adam-memory", "adam-first-step", "adam-in-words")]
    assert [one.id for one in schedule.next_questions(chosen, known, 9, 9, NOW + timedelta(hours=1))] == [
        "adam-first-step", "adam-in-words"]
    assert [one.id for one in schedule.next_questions(chosen, known, 9, 0, NOW + timedelta(hours=1))] == ["adam-first-step"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-400, 400), st.integers(1, 4)), max_size=8))
def test_a_clock_that_jumps_does_no_harm(jumps):
    events = [answered(rating=rating, when=NOW + timedelta(days=days)) for days, rating in jumps]
    known = schedule.memories(events, NOW)
    assert len(known) == bool(jumps)
    for memory in known.values():
        assert memory.last <= NOW and memory.due <= memory.last + timedelta(days=schedule.LONGEST_PAUSE)
        assert 0 <= memory.recall <= 1 and memory.answers == len(jumps)


def test_two_windows_and_an_import_need_no_merging():
    events = [answered(rating=r, when=NOW + timedelta(hours=h)) for h, r in enumerate((1, 3, 2, 4))]
    assert schedule.memories(events, NOW) == schedule.memories(events[::-1], NOW)


def test_new_questions_come_by_level_and_area_by_area():
    fresh = schedule.in_turn(choose.choose())
    assert [one.level for one in fresh] == sorted(one.level for one in fresh)
    areas = [one.area for one in fresh if one.level == 1]
    assert len(set(areas)) == len(set(areas[: len(set(areas))]))


def test_due_counts_by_day():
    memory = schedule.Memory(NOW, 0.9, NOW, 3, 1)
    known = {str(hours): schedule.Memory(NOW + timedelta(hours=hours), *list(vars(memory).values())[1:])
             for hours in (-30, 0, 1, 24, 25, 200)}
    assert schedule.due_by_day(known, 3, NOW) == [2, 2, 1, 0]


# Interviews


@settings(max_examples=25, deadline=None)
@given(minutes=st.integers(5, 180), level=st.sampled_from([1, 2, 3]), seed=st.integers(0, 2**31))
def test_a_plan_fills_its_minutes_and_is_the_seeds(minutes, level, seed):
    items = interview.plan(minutes, level, None, seed)
    assert items == interview.plan(minutes, level, None, seed)
    asked = [questions.get(name) for name, _ in items]
    used = sum(asking.SECONDS[one.kind] for one in asked)
    assert used <= 60 * minutes and len({one.id for one in asked}) == len(asked)
    assert 60 * minutes - used < min(asking.SECONDS.values())
    assert all(interview.NEAR[level].get(one.level) for one in asked)


def test_a_long_interview_has_the_blueprints_mix():
    asked = [questions.get(name) for seed in range(10) for name, _ in interview.plan(60, 2, None, seed)]
    kinds, levels = Counter(one.kind for one in asked), Counter(one.level for one in asked)
    for kind, share in interview.SHARES.items():
        assert abs(100 * kinds[kind] / len(asked) - share) < 8, (kind, kinds)
    assert levels[2] > 1.5 * max(levels[1], levels[3])
    assert len({one.area for one in asked}) == len(choose.areas_of(None))


@pytest.mark.parametrize("minutes", [0, 4, 181, True, 10.0])
def test_minutes_out_of_range(minutes):
    with pytest.raises(choose.BadChoice, match=f"minutes is {minutes}. Allowed: 5 to 180"):
        interview.plan(minutes)


def test_an_interview_goes_on_where_it_stopped(monkeypatch):
    one = interview.begin(30, 2, "memory,adam", "zh", seed=3)
    assert one.answer(0, Grade(0.5), 100, "first") and one.answer(1, Grade(1.0), 50)
    monkeypatch.setattr(journal, "_session", journal._Session())  # another kernel
    other = interview.unfinished()
    assert (other.id, other.items, other.language, other.place) == (one.id, one.items, "zh", 2)
    assert other.answers == one.answers and other.seconds_left == 30 * 60 - 150
    other.end()
    assert interview.unfinished() is None and interview.interviews(journal.recall())[0].ended


def test_of_two_windows_the_first_answer_stands():
    one = interview.begin(20, 1, None, "en", seed=1)
    other = interview.unfinished()
    assert one.answer(0, Grade(1.0), 10) and not other.answer(0, Grade(0.0), 20)
    assert other.answers[0].score == 1.0 == interview.unfinished().answers[0].score and other.place == 1


def test_a_clock_that_jumps_back_loses_no_answer(monkeypatch):
    one = interview.begin(20, 1, None, "en", seed=1)
    monkeypatch.setattr("course_lib.journal.event.now", lambda: "2020-01-01T00:00:00+00:00")
    details = {"seed": one.items[0][1], "score": 1.0, "seconds": 5.0, "rating": 3, "interview": one.id, "place": 0}
    journal.record(one.items[0][0], journal.ANSWERED, passed=True, details=details, time="2020-01-01T00:00:00+00:00")
    assert interview.unfinished().answers[0].score == 1.0


def test_without_a_seed_old_questions_come_last():
    first = interview.begin(45, 2, None, "en")
    first.end()
    second = interview.begin(45, 2, None, "en")
    assert not {name for name, _ in first.items} & {name for name, _ in second.items}


def test_a_foreign_or_damaged_interview_is_left_out():
    for details in ({}, {"minutes": 5}, {"minutes": 5, "level": 1, "areas": [], "language": "en", "items": [["gone", 1]]}):
        journal.record("x", journal.INTERVIEW, details=details)
    assert interview.unfinished() is None and interview.interviews(journal.recall()) == []


def test_an_answer_is_remembered_with_the_quiz_and_the_interview():
    asked = asking.Asked(questions.get("adam-memory"), 4, "zh")
    asking.remember(asked, Grade(0.7), 2, 12.34, "x" * 9000)
    (event,) = journal.recall()
    assert event.passed and event.said == {"seed": 4, "language": "zh", "score": 0.7, "rating": 2, "seconds": 12.3,
                                           "answer": "x" * asking.MOST_WRITTEN}
    assert schedule.memories(journal.recall())["adam-memory"].rating == 2


# The report


def an_interview(scores, seconds=60.0, language="en"):
    names = ["memory-gib", "memory-run-and-train", "adam-first-step", "adamw-vs-l2", "mixed-resume-skips"]
    items = tuple((name, 1) for name in names)
    answers = {place: interview.Answer(score, seconds) for place, score in enumerate(scores) if score is not None}
    return interview.Interview("x", 30, 2, ("memory", "adam"), language, items, answers)


def test_a_report_is_what_hand_arithmetic_says():
    passed = journal.Event("zero_bytes", journal.CHECKED, passed=True)
    one = report.report(an_interview([0.0, 1.0, 1.0, 0.5, None], 95), [passed])
    assert one.score == pytest.approx(2.5 / 4)
    assert one.areas == (report.Part("adam", 1.0, 1), report.Part("adamw", 0.5, 1), report.Part("memory", 0.5, 2))
    assert one.strengths == ("adam",) and set(one.revisit) == {"memory", "adamw"}
    assert one.sections["memory"] == ("10_memory_accounting", (3,))
    mine = [name for name, exercise in EXERCISES.items() if exercise.notebook == "10_memory_accounting"]
    assert one.exercises["memory"] == tuple(name for name in mine if name != "zero_bytes")
    assert one.slow == ("memory-run-and-train",)  # a verdict has 90 seconds
    text = one.markdown()
    assert "62% over 4 of 5 questions, in 6 of 30 minutes, level 2 (onsite)" in text
    assert "[10_memory_accounting · 3. The derivation](notebooks/10_memory_accounting.ipynb#3.-The-derivation)" in text


def test_a_report_in_chinese_and_one_without_answers():
    text = report.report(an_interview([1.0, 1.0, 1.0, 1.0, 1.0], language="zh"), []).markdown()
    assert "总分 100%" in text and "显存计算" in text and "没有领域低于 60%" in text and "--level 3" in text
    empty = report.report(an_interview([]), [])
    assert empty.score is None and "nothing to report" in empty.markdown()


def test_links_lead_to_sections_that_are_there():
    from pathlib import Path

    folder = Path(__file__).parents[1] / "notebooks" / "source"
    for notebook in set(report.NOTEBOOKS.values()):
        text = (folder / f"{notebook}.py").read_text(encoding="utf-8")
        for heading in report.SECTIONS.values():
            assert f"# ## {heading}\n" in text, (notebook, heading)


@pytest.mark.parametrize("key", words.WORDS)
def test_words_have_the_same_places_in_both_languages(key):
    import string

    def places(text):
        return {field for _, field, *_ in string.Formatter().parse(text) if field}

    english, chinese = words.WORDS[key]
    assert english.strip() and chinese.strip() and places(english) == places(chinese)
