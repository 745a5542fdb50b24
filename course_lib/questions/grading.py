"""Grading: numbers, verdicts, lines and causes by themselves; what is spoken by the points that the speaker ticks."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Collection
from dataclasses import dataclass

from course_lib.questions.drawn import Drawn
from course_lib.questions.numbers import COUNTS, BadAnswer, read, unit_of
from course_lib.questions.schema import Question, Text

AUTOMATIC = ("compute", "verdict", "bug", "read-run")
"""Kinds that are graded by themselves; the others by their rubric."""

ENOUGH = 0.6
"""The score from which an answer counts as good enough."""

VERDICTS = {
    "right": ("right", "r", "true", "t", "yes", "对", "正确", "是", "是对的"),
    "wrong": ("wrong", "w", "false", "f", "no", "错", "错误", "不对", "否", "错的"),
    "depends": ("depends", "d", "it depends", "depend", "看情况", "不一定", "视情况而定", "分情况", "取决于"),
}
"""How a verdict may be written."""

VERDICTS_ZH = {"right": "对", "wrong": "错", "depends": "看情况"}

GIB = 2**30 / 1e9


@dataclass(frozen=True)
class Grade:
    """What an answer is worth.

    Attributes:
        score: 0 to 1.
        remarks: what to say about it, the most telling first.
    """

    score: float
    remarks: tuple[Text, ...] = ()

    @property
    def enough(self) -> bool:
        """Whether the answer counts as good enough."""
        return self.score >= ENOUGH


def show(value: float) -> str:
    """A number with four digits, without an exponent where it is easily read."""
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.4g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    shown = f"{value:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def grade_number(drawn: Drawn, answer: str) -> Grade:
    """Grade the answer to a compute question.

    A unit of the same kind is converted (104 GiB for 112 GB); a bare number is taken in the question's unit, or in
    bytes, seconds or as a share where it fits only so. A wrong number that a usual slip gives is named.

    Raises:
        BadAnswer: there is no number in it, or its unit measures something else.
    """
    number = drawn.question.number
    asked = unit_of(number.unit)
    value, words = read(answer)
    right = drawn.answer()
    given = _unit_in(words, asked)
    if given and asked and given.measures != asked.measures:
        raise BadAnswer(Text(en=f"{answer.strip()!r} is in {words}, which measures something else. Asked for: "
                                f"{number.unit}.",
                             zh=f"“{answer.strip()}”的单位是 {words}，量纲不对。题目要的是 {_unit(number, 'zh')}。"))
    if given and asked:
        value *= given.factor / asked.factor
    value /= _counted_in(number.unit, answer)
    close = _within(number.tolerance)
    expected = Text(en=f"{show(right)} {number.unit}, accepted within {100 * number.tolerance:g}%.",
                    zh=f"答案：{show(right)} {_unit(number, 'zh')}，误差 {100 * number.tolerance:g}% 以内都算对。")
    if close(value, right):
        return Grade(1.0, (expected,))
    if asked and not given and close(value / asked.factor, right):
        return Grade(1.0, (Text(en=f"Right, taken in the base unit. Say the unit: {show(right)} {number.unit}.",
                                zh=f"数值对，但这是按基本单位给的。要说单位：{show(right)} {_unit(number, 'zh')}。"),))
    for slip, says in drawn.slips():
        if close(value, slip) and not close(slip, right):
            return Grade(0.0, (says, expected))
    return Grade(0.0, (*_usual(value, right, number.unit, close), expected))


def grade_verdict(question: Question, answer: str) -> Grade:
    """Grade "right", "wrong" or "it depends", in English or Chinese.

    Raises:
        BadAnswer: it is none of these.
    """
    word = " ".join(answer.lower().split()).strip(" .!。！")
    said = next((verdict for verdict, words in VERDICTS.items() if word in words), None)
    if said is None:
        raise BadAnswer(Text(en=f"{answer.strip()!r} is no verdict. Allowed: right, wrong, depends.",
                             zh=f"“{answer.strip()}”不是判断。请答：对、错、看情况。"))
    return Grade(float(said == question.verdict), (Text(en=f"Verdict: {question.verdict}.",
                                                        zh=f"判断：{VERDICTS_ZH[question.verdict]}。"),))


def grade_line(question: Question, answer: str) -> Grade:
    """Grade the number of the faulty line.

    Raises:
        BadAnswer: there is no such line.
    """
    bug = question.bug
    count = len(bug.code.splitlines())
    found = re.search(r"\d+", answer)
    if not found or not 1 <= int(found.group()) <= count:
        raise BadAnswer(Text(en=f"{answer.strip()!r} names no line of the code. Allowed: 1 to {count}.",
                             zh=f"“{answer.strip()}”不是代码的行号。请写 1 到 {count}。"))
    line = int(found.group())
    expected = Text(en=f"Line {bug.line}: `{bug.faulty}` should be `{bug.fix}`.",
                    zh=f"第 {bug.line} 行：`{bug.faulty}` 应为 `{bug.fix}`。")
    return Grade(float(line == bug.line or line in bug.also), (expected,))


def causes(question: Question, seed: int) -> list[Text]:
    """The causes of a read-run question in the order in which they are offered; one seed gives one order."""
    offered = list(question.run.causes)
    random.Random(f"{question.id} causes {seed}").shuffle(offered)
    return offered


def grade_cause(question: Question, offered: list[Text], answer: str) -> Grade:
    """Grade the letter or number of a cause, as :func:`causes` offered them.

    Raises:
        BadAnswer: there is no such cause.
    """
    word = answer.strip().strip("().。 ").lower()
    letters = "abcdefgh"[: len(offered)]
    index = letters.find(word) if len(word) == 1 and word in letters else int(word) - 1 if word.isdecimal() else -1
    if not 0 <= index < len(offered):
        raise BadAnswer(Text(en=f"{answer.strip()!r} is none of the causes. Allowed: a to {letters[-1]}.",
                             zh=f"“{answer.strip()}”不在选项里。请写 a 到 {letters[-1]}。"))
    right = question.run.causes[0]
    letter = letters[offered.index(right)]
    return Grade(float(offered[index] == right), (Text(en=f"{letter}: {right.en}", zh=f"{letter}：{right.zh or right.en}"),))


def grade_points(question: Question, made: Collection[int]) -> Grade:
    """Grade a spoken answer by the points it made, counted from 1: their weight out of the whole.

    Raises:
        BadAnswer: there is no such point.
    """
    count = len(question.rubric)
    if wrong := sorted(set(made) - set(range(1, count + 1))):
        raise BadAnswer(Text(en=f"There is no point {wrong[0]}. Allowed: 1 to {count}.",
                             zh=f"没有第 {wrong[0]} 点。请写 1 到 {count}。"))
    weights = [point.weight for point in question.rubric]
    return Grade(sum(weights[index - 1] for index in set(made)) / sum(weights))


def points(question: Question, answer: str) -> set[int]:
    """The points that "1 3", "1,3", "all" or "none" name (also "全部", "没有"; nothing is none).

    Raises:
        BadAnswer: it names something else.
    """
    word = answer.strip().lower()
    if word in ("all", "a", "全部", "全", "都说了"):
        return set(range(1, len(question.rubric) + 1))
    if word in ("", "none", "0", "没有", "无"):
        return set()
    parts = [part for part in re.split(r"[\s,;，、；]+", word) if part]
    if not all(part.isdecimal() for part in parts):
        raise BadAnswer(Text(en=f"{answer.strip()!r} names no points. Allowed: their numbers, as in 1 3, or all, or none.",
                             zh=f"“{answer.strip()}”读不出要点编号。请写编号，比如 1 3，或者“全部”“没有”。"))
    made = {int(part) for part in parts}
    grade_points(question, made)
    return made


def _within(tolerance: float):
    return lambda value, target: abs(value - target) <= tolerance * abs(target) * (1 + 1e-9)


def _unit(number, language: str) -> str:
    return number.unit_zh if language == "zh" and number.unit_zh else number.unit


def _unit_in(words: str, asked):
    """The unit that the words behind a number name; None where they name none, such as "lr" or "steps"."""
    word = words.strip(" .。()")
    if asked and asked.measures == "bytes" and word.lower() in tuple("kmgtp"):
        word += "B"
    return unit_of(word) or unit_of(word.split()[0] if word else "")


def _counted_in(unit: str, answer: str) -> float:
    """What to divide an answer by that writes out the power of ten of the unit ("million tokens", "1e-4")."""
    word = unit.split()[0]
    if word in COUNTS and word in answer:
        return COUNTS[word]
    return float(word) if word == "1e-4" and re.search(r"e-|\^-|0\.0", answer) else 1.0


def _usual(value: float, right: float, unit: str, close) -> list[Text]:
    """What a wrong number looks like, whatever the question."""
    measured = unit_of(unit)
    if measured and measured.measures == "bytes":
        if close(value, right / GIB) or close(value, right / 1.024) or close(value, right / 1.024**2):
            return [Text(en=f"That is the number in {unit[0]}iB, of 2^10 and its powers. Asked for: {unit}, powers of 1,000.",
                         zh=f"这是按 {unit[0]}iB（1024 进制）算的。题目要的是 {unit}（1000 进制）。")]
        if close(value, right * 8):
            return [Text(en="That is the number of bits. A byte has 8.", zh="这是比特数。1 字节是 8 比特。")]
        if close(value, right / 8):
            return [Text(en="That is an eighth: bytes were taken for bits.", zh="差 8 倍：把字节当成比特了。")]
    for factor, english, chinese in ((2, "twice the answer", "正好是答案的 2 倍"), (0.5, "half the answer", "正好是答案的一半")):
        if close(value, right * factor):
            return [Text(en=f"That is {english}. Which factor of two was missed?", zh=f"{chinese}，哪里差了一个 2？")]
    power = round(math.log10(value / right)) if value * right > 0 else 0
    if 0 < abs(power) <= 15 and close(value, right * 10.0**power):
        return [Text(en="The digits are right, the power of ten is not.", zh="有效数字对，数量级不对。")]
    return []

