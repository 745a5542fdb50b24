"""Grading: numbers as people write them, units told apart, slips named, verdicts, lines, causes and points."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.questions import bank
from course_lib.questions.drawn import Drawn, draw, every, standard
from course_lib.questions.grading import (
    BadAnswer,
    causes,
    grade_cause,
    grade_line,
    grade_number,
    grade_points,
    grade_verdict,
    points,
    show,
)
from course_lib.questions.numbers import read, unit_of
from course_lib.questions.schema import Question

BANK = bank()


def question(**changes) -> Question:
    """A compute question whose number is 112 GB for 7 billion parameters; its evidence is the bank's own."""
    fields = {
        "id": "a-question", "area": "adam", "level": 1, "kind": "compute",
        "prompt": {"en": "{parameters} billion?", "zh": "{parameters}B？"},
        "answer": {"en": "This."},
        "rubric": [{"point": {"en": "One."}, "weight": 1}, {"point": {"en": "Two."}, "weight": 3}],
        "weak": {"says": {"en": "That."}, "costs": {"en": "Much."}},
        "follow_ups": [{"en": "And then?"}],
        "sources": [{"title": "A Paper", "year": 2015}],
        "evidence": [{"function": "training_bytes"}],
        "number": {
            "value": 112.0, "unit": "GB", "tolerance": 0.01,
            "draw": {"parameters": {"choices": ["7", "13"], "times": 1e9}},
            "slips": [{"value": "12 * parameters / 1e9", "says": {"en": "Forgot the master copy.", "zh": "漏了 master。"}}],
        },
    }
    return Question.model_validate(fields | changes)


ASKED = standard(question())


@pytest.mark.parametrize(
    ("text", "value", "words"),
    [
        ("112GB", 112, "GB"), ("112 gb", 112, "gb"), ("1.12e11", 1.12e11, ""), ("104 GiB", 104, "GiB"),
        ("一百一十二 GB", 112, "GB"), ("八十GB", 80, "GB"), ("１１２ＧＢ", 112, "GB"), ("1.12×10^11", 1.12e11, ""),
        ("1.12 * 10 ^ 11 bytes", 1.12e11, "bytes"), ("10^-4", 1e-4, ""), ("3.05 * 10**-5 nats", 3.05e-5, "nats"),
        ("8,192", 8192, ""), ("28 + 84/64 GB", 29.3125, "GB"), ("(2+2+12)*7", 112, ""), ("1/8", 0.125, ""),
        ("about 7 billion", 7e9, ""), ("70亿", 7e9, ""), ("约 3 万步", 3e4, "步"), ("-0.5", -0.5, ""), ("−0.5", -0.5, ""),
        (".5", 0.5, ""), ("5 %", 5, "%"), ("= 112", 112, ""), ("2.5 million tokens", 2.5e6, "tokens"),
        ("112 000", 112000, ""), ("1'120 GB", 1120, "GB"), ("1.12×10¹¹", 1.12e11, ""), ("1.12 x 10^11 B", 1.12e11, "B"),
        ("2^-9/1e-5", 195.3125, ""), ("2⁻⁴", 0.0625, ""), ("(2/0.5)^2", 16, ""), ("3½", 3.5, ""), ("398²", 158404, ""),
        ("sqrt(10)", 10**0.5, ""), ("5√2 lr", 50**0.5, "lr"), ("1/√(1−0.9)", 10**0.5, ""), ("根号10", 10**0.5, ""),
        ("3 的平方根", 3**0.5, ""), ("0.75 的 7 次方", 0.75**7, ""), ("-ln(1000)/ln(0.99)", 687.3158648300828, ""),
        ("2000*log2(65536/64)", 20000, ""), ("10000 ln 100", 46051.70185988091, ""), ("e^-0.1", math.exp(-0.1), ""),
        ("4*7 + 12*7/64 = 29.3 GB", 29.3, "GB"), ("1/(lr*wd) = 1e4 steps", 1e4, "steps"), ("0.9^10 ≈ 35%", 35, "%"),
        ("16 bytes each, so 112 GB", 112, "GB"), ("每个参数 16 字节，共 112 GB", 112, "GB"), ("at most 5", 5, ""),
        ("7B × 16 bytes", 1.12e11, "bytes"), ("70 亿 × 16 字节", 1.12e11, "字节"), ("2/3 million tokens", 2e6 / 3, "tokens"),
        ("33.3k steps", 33300, "steps"), ("6.9 千步", 6900, "步"), ("66.7万token", 667000, "token"), ("第 688 步", 688, "步"),
        ("lr/11", 1 / 11, ""), ("lr", 1, ""), ("lr 的 1/11", 1 / 11, ""), ("lr 的一半", 0.5, ""), ("half of lr", 0.5, "of lr"),
        ("十一分之一 lr", 1 / 11, "lr"), ("百分之十二点五", 12.5, "%"), ("百分之 8.7", 8.7, "%"), ("一共 112 GB", 112, "GB"),
        ("500-fold", 500, "fold"), ("x500", 500, ""), ("4.1×", 4.1, "times"), ("两百八十三 GB", 283, "GB"), ("根号十", 10**0.5, ""),
    ],
)
def test_a_number_is_read_as_people_write_it(text, value, words):
    assert read(text) == (pytest.approx(value, rel=1e-12), words)


@pytest.mark.parametrize("text", ["", "GB", "ten", "1/0", "9e999", "9**9**9**9", "34*", "n*(4-1)", "1/(lr*wd)", "floor(5)", "beta2",
                                  "__import__('os')", "(", "1+", "--", "十二万三四五个"])
def test_what_is_no_number_is_told_in_both_languages(text):
    try:
        value, _ = read(text)
    except BadAnswer as error:
        assert "Allowed:" in error.text.en and error.text.zh
    else:
        assert text == "十二万三四五个" and math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("100-110 GB", "more than one"), ("16 or 32", "more than one"), ("9.5 lr, step 24", "more than one"),
     ("500 to 600", "more than one"), ("23,7 GB", "decimal point"), ("0,08", "decimal point")],
)
def test_what_may_be_read_in_two_ways_is_asked_again(text, said):
    with pytest.raises(BadAnswer, match=said) as error:
        read(text)
    assert error.value.text.zh


@settings(max_examples=200)
@given(st.text(max_size=30) | st.text(alphabet="0123456789.,+-*/^()eE %=x×√²⁻½lrnsqtkMB万亿一二十百分之半的步 ", max_size=20))
def test_any_text_is_a_number_or_a_sentence(text):
    try:
        value, words = read(text)
    except BadAnswer as error:
        assert str(error) and error.text.zh
    else:
        assert math.isfinite(value) and isinstance(words, str)


@settings(max_examples=100)
@given(st.floats(min_value=1e-12, max_value=1e15))
def test_a_number_that_is_shown_is_read_back(value):
    assert read(show(value))[0] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("text", ["112", "112GB", "112 GB", "1.12e11", "1.12e11 bytes", "104.3 GiB", "0.112 TB", "112,000 MB",
                                  "896 Gbit", "112 G", "一百一十二 GB", "16 * 7", "111", "112 GB per GPU", "每张卡 112 GB",
                                  "0.112 terabytes", "112 gigabytes", "112 吉字节", "112 千兆字节", "1120 亿字节", "7e9 * 16 bytes",
                                  "7 billion × 16 bytes", "896 gigabits", "112 GB（不算 activation）", "It's 112 GB."])
def test_the_right_number_passes_in_any_unit_of_its_kind(text):
    assert grade_number(ASKED, text).score == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("84", "Forgot the master copy."), ("104.3", "GiB"), ("896", "bits"), ("14", "eighth"), ("224 GB", "twice"),
        ("56", "half"), ("112 GiB", "1,024"), ("114.5", "Close"), ("1.12", "power of ten"), ("1120", "power of ten"),
        ("77", "112 GB, accepted within 1%"),
    ],
)
def test_a_wrong_number_is_rejected_and_its_slip_named(text, said):
    grade = grade_number(ASKED, text)
    assert grade.score == 0 and said in grade.remarks[0].en
    assert "112 GB" in grade.remarks[-1].en and all(remark.zh for remark in grade.remarks)


def test_a_unit_of_another_kind_is_told():
    with pytest.raises(BadAnswer, match="is in ms, which measures something else. Asked for: GB"):
        grade_number(ASKED, "112 ms")


@pytest.mark.parametrize("text", ["112 steps", "112 s", "112 步", "112%", "112 Gb"])
def test_other_units_and_gb_for_bits_are_asked_again(text):
    with pytest.raises(BadAnswer, match="measures something else|bits or bytes"):
        grade_number(ASKED, text)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("sharding-largest-model", ["{v} B", "{v}e9 parameters", "{v} billion", "{v}", "{v} 十亿"], ["{v} 亿", "{v}e6", "{v}e10"]),
        ("batch-critical-from-two-runs", ["{v}M tokens", "{v}e6 tokens", "{v} 百万", "{v}"], ["{v}e5 tokens", "{v} 万", "{v}e8"]),
        ("small-lost-v", ["{v} lr", "{v}x", "{v} times lr", "{v}*lr", "{v}e2%", "lr 的 {v} 倍"], ["{v}%", "{v}e1 lr"]),
        ("stab-largest-excess", ["{v}", "{v} times", "{v}x", "{v} 倍"], ["{v}%"]),
        ("why-adam-blocks", ["{v} steps", "{v} 步左右", "after {v} iterations"], ["{v}k"]),
    ],
)
def test_units_that_are_no_units_of_measure(name, right, wrong):
    asked = standard(BANK[name])
    for score, texts in ((1, right), (0, wrong)):
        for text in texts:
            assert grade_number(asked, text.format(v=f"{asked.answer():.4f}")).score == score, text
    with pytest.raises(BadAnswer, match="measures something else"):
        grade_number(asked, "5 ms")


def test_numbers_drawn_move_prompt_answer_and_slips():
    other = Drawn(ASKED.question, {"parameters": "13"})
    assert other.prompt() == "13 billion?" and other.prompt("zh") == "13B？" and not other.standard
    assert other.answer() == pytest.approx(13 * 16) and other.slips()[0][0] == pytest.approx(13 * 12)
    assert grade_number(other, "208").score == 1 and grade_number(other, "112").score == 0
    assert {one.choices["parameters"] for one in every(ASKED.question)} == {"7", "13"}
    draws = [draw(ASKED.question, seed).choices["parameters"] for seed in range(20)]
    assert set(draws) == {"7", "13"} and draws == [draw(ASKED.question, seed).choices["parameters"] for seed in range(20)]


@pytest.mark.parametrize("language", ["right", "wrong", "depends"])
def test_verdicts_in_both_languages(language):
    words = {"right": ["right", "Right.", "对", "r", "正确", "Yes, that is right", "It's true", "这句话是对的", "没错", "对，因为 v 也缩小"],
             "wrong": ["wrong", "错", "W", "No, wrong", "That isn't right.", "不正确", "这是错的", "No, because m decays too",
                       "wrong, it does not depend on lr"],
             "depends": ["it depends", "看情况", "d", "It depends on the optimizer", "Not always", "看情况，BatchNorm 会破坏它",
                         "only for SGD", "有条件地成立", "depends: right for SGD, wrong for Adam"]}
    one = question(kind="verdict", claim={"en": "x"}, verdict=language, number=None, prompt={"en": "?"})
    for verdict, answers in words.items():
        for answer in answers:
            assert grade_verdict(one, answer).enough == (verdict == language)
    for answer in ("perhaps", "", "true for SGD, false for Adam", "yes, but only for SGD", "对 SGD 对", "no, not always",
                   "对，但只在 SGD 下成立"):
        with pytest.raises(BadAnswer, match="is no verdict. Allowed: right, wrong, depends"):
            grade_verdict(one, answer)


def test_the_faulty_line_and_its_neighbours():
    bug = {"code": "a = 1\nb = 2\nc = a - b\n", "line": 3, "fix": "c = a + b", "also": [2]}
    one = question(kind="bug", bug=bug, number=None, prompt={"en": "?"})
    assert [grade_line(one, answer).score for answer in ("3", "line 3", "第3行", "2", "1")] == [1, 1, 1, 1, 0]
    for answer in ("L3", "#3", "第三行", "the third line", "3: b is 2", "line 3, off by a factor of 2", "line 3; a is 1", "３"):
        assert grade_line(one, answer).score == 1, answer
    for answer in ("4", "0", "the last", "", "1-2", "2 or 3", "lines 1 and 2", "第 1、2 行", "第1到2行", "-3",
                   "2.5", "line 1 or maybe 2"):
        with pytest.raises(BadAnswer, match="does not name one line of the code. Allowed: 1 to 3"):
            grade_line(one, answer)


def test_causes_are_shuffled_by_the_seed_and_graded_by_letter():
    run = {"curves": "x", "causes": [{"en": "right"}, {"en": "b"}, {"en": "c"}, {"en": "A batch is missing."}]}
    one = question(kind="read-run", run=run, number=None, prompt={"en": "?"})
    orders = {tuple(cause.en for cause in causes(one, seed)) for seed in range(30)}
    assert len(orders) > 10 and {order.index("right") for order in orders} == {0, 1, 2, 3}
    offered = causes(one, 5)
    for index, cause in enumerate(offered):
        letter, place = "abcd"[index], ["first", "second", "third", "fourth"][index]
        for answer in (letter, letter.upper(), f"({letter})", str(index + 1), f"option {letter}", f"the {place} one",
                       f"第{index + 1}个", f"第{'一二三四'[index]}个", f"选{letter}", f"{letter}）", f"{letter}: the norm jumps",
                       f"Answer: {letter}"):
            assert grade_cause(one, offered, answer).enough == (cause.en == "right"), answer
    assert not grade_cause(one, offered, "a batch is missing").enough
    for answer in ("e", "5", "", "0", "right", "a or b", "a-c", "ab", "a batch", "b和c"):
        with pytest.raises(BadAnswer, match="none of the causes, or several. Allowed: a to d"):
            grade_cause(one, offered, answer)


def test_points_weigh_what_the_rubric_says():
    one = question()
    assert [grade_points(one, made).score for made in (set(), {1}, {2}, {1, 2})] == [0, 0.25, 0.75, 1]
    assert points(one, "1 2") == points(one, "1，2") == points(one, "all") == points(one, "全部") == {1, 2}
    assert points(one, "") == points(one, "none") == points(one, "没有") == set()
    for answer in ("3", "0 1", "first"):
        with pytest.raises(BadAnswer):
            points(one, answer)


# What the bank says itself


@pytest.mark.parametrize("name", [name for name, one in BANK.items() if one.kind == "compute"])
def test_a_compute_question_can_be_drawn_anew(name):
    import inspect

    from course_lib.questions.proof import evidence_function

    one = BANK[name]
    (function,) = (proof.function for proof in one.evidence if proof.function)
    arguments = inspect.signature(evidence_function(function)).parameters
    for argument, value in standard(one).values().items():
        assert arguments[argument].default == value, f"{argument}: the first choice is not the standard"
    drawn = list(every(one))
    assert len(drawn) >= 6
    told = [0] * len(one.number.slips)
    for case in drawn[:: max(1, len(drawn) // 6)]:
        right = case.answer()
        assert math.isfinite(right) and right
        assert grade_number(case, repr(right)).score == 1
        assert unit_of(one.number.unit) is None or grade_number(case, f"{right!r} {one.number.unit}").score == 1
        assert "{" not in case.prompt("en") + case.prompt("zh")
        for place, (value, says) in enumerate(case.slips()):
            if abs(value - right) > one.number.tolerance * abs(right):
                grade = grade_number(case, repr(value))
                told[place] += grade.remarks[0] == says
    assert all(told), f"slips that are never named: {[place for place, count in enumerate(told) if not count]}"


@pytest.mark.parametrize("name", [name for name, one in BANK.items() if one.kind == "verdict"])
def test_only_its_verdict_is_accepted(name):
    assert [grade_verdict(BANK[name], word).enough for word in ("right", "wrong", "depends")].count(True) == 1


@pytest.mark.parametrize("name", [name for name, one in BANK.items() if one.kind == "bug"])
def test_only_the_faulty_lines_are_accepted(name):
    bug = BANK[name].bug
    lines = range(1, len(bug.code.splitlines()) + 1)
    assert {line for line in lines if grade_line(BANK[name], str(line)).enough} == {bug.line, *bug.also}


def test_digits_are_read_without_the_package_for_characters(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cn2an", None)
    assert grade_number(ASKED, "约 112 GB").score == 1
    with pytest.raises(BadAnswer, match="is in characters. Allowed here: digits"):
        read("一百一十二 GB")
