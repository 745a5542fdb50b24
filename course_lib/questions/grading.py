"""Grading: numbers, verdicts, lines and causes by themselves; what is spoken by the points that the speaker ticks."""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from course_lib.questions.drawn import Drawn
from course_lib.questions.numbers import COUNTS, UNITS, BadAnswer, Unit, read, unit_of
from course_lib.questions.schema import Question, Text

AUTOMATIC = ("compute", "verdict", "bug", "read-run")
"""Kinds that are graded by themselves; the others by their rubric."""

ENOUGH = 0.6
"""The score from which an answer counts as good enough."""

VERDICTS = {
    "right": ("right", "r", "true", "t", "yes", "y", "correct", "agree", "holds", "对", "正确", "是", "是对的", "没错", "没有错",
              "成立", "同意", "没问题"),
    "wrong": ("wrong", "w", "false", "f", "no", "n", "incorrect", "not right", "not true", "not correct", "disagree",
              "does not hold", "错", "错误", "不对", "否", "错的", "不", "不是", "不正确", "不成立", "不同意", "有误"),
    "depends": ("depends", "d", "it depends", "depend", "看情况", "不一定", "视情况而定", "分情况", "取决于"),
}
"""How a verdict may be written."""

_FILLERS = re.compile(r"\b(?:i think|i|it'?s|that'?s|it|that|this|is|the|claim|statement|basically|definitely|completely)\b|"
                      r"这句话|这个?|说法|我|觉得|认为|说|得|的|是|它|完全|了")
_DEPENDS = re.compile(r"\bdepends|\b(?:not (?:always|necessarily)|sometimes|part(?:ly|ially)|yes and no|half (?:right|true)|"
                      r"(?:only )?under (?:some|certain)|only (?:sometimes|under|in|if|when|for))\b|"
                      r"看情况|看条件|要看|得看|不一定|视情况|取决于|分情况|有时|部分|半对|条件|只[在对有]")
_HEDGE = re.compile(r"\b(?:but|except|unless)\b|但|除非|如果")
_REASON = re.compile(r"[,.;:!，。；：！、—]|\b(?:because|since|as)\b|因为")

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")
_AND = r"(?:,|，|、|/|-|–|—|~|\bor\b|\band\b|\bto\b|到|至|或者?|和|与)"

VERDICTS_ZH = {"right": "对", "wrong": "错", "depends": "看情况"}


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
    given = _unit_in(words, number, answer)
    if given:
        value *= given.factor / (asked.factor if asked and asked.measures == given.measures else 1)
    scale = COUNTS.get(number.unit.split()[0], 1)
    if scale > 1 and abs(value) >= scale / 100:  # "4.97e9" where billions are asked for
        value /= scale
    close = _within(number.tolerance)
    expected = Text(en=f"{_with_unit(right, number, 'en')}, accepted within {100 * number.tolerance:g}%.",
                    zh=f"答案：{_with_unit(right, number, 'zh')}，误差 {100 * number.tolerance:g}% 以内都算对。")
    if close(value, right):
        return Grade(1.0, (expected,))
    if asked and not given and close(value / asked.factor, right):
        return Grade(1.0, (Text(en=f"Right, taken in the base unit. Say the unit: {_with_unit(right, number, 'en')}.",
                                zh=f"数值对，但这是按基本单位给的。要说单位：{_with_unit(right, number, 'zh')}。"),))
    for slip, says in drawn.slips():
        if close(value, slip) and not close(slip, right):
            return Grade(0.0, (says, expected))
    return Grade(0.0, (*_usual(value, right, number, close), expected))


def grade_verdict(question: Question, answer: str) -> Grade:
    """Grade "right", "wrong" or "it depends", in English or Chinese; a reason may follow behind a comma.

    Raises:
        BadAnswer: it is none of these, or more than one.
    """
    said = verdict_in(answer)
    if said is None:
        raise BadAnswer(Text(en=f"{answer.strip()!r} is no verdict. Allowed: right, wrong, depends; a reason after a comma.",
                             zh=f"“{answer.strip()}”不是判断。请答：对、错、看情况；理由写在逗号后面。"))
    return Grade(float(said == question.verdict), (Text(en=f"Verdict: {question.verdict}.",
                                                        zh=f"判断：{VERDICTS_ZH[question.verdict]}。"),))


def grade_line(question: Question, answer: str) -> Grade:
    """Grade the number of the faulty line.

    Raises:
        BadAnswer: there is no such line.
    """
    bug = question.bug
    count = len(bug.code.splitlines())
    line = _line(answer)
    if line is None or not 1 <= line <= count:
        raise BadAnswer(Text(en=f"{answer.strip()!r} does not name one line of the code. Allowed: 1 to {count}.",
                             zh=f"“{answer.strip()}”没有指明代码里的哪一行。请写 1 到 {count} 里的一个行号。"))
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
    letters = "abcdefgh"[: len(offered)]
    index = _cause(answer, offered, letters)
    if not 0 <= index < len(offered):
        raise BadAnswer(Text(en=f"{answer.strip()!r} names none of the causes, or several. Allowed: a to {letters[-1]}.",
                             zh=f"“{answer.strip()}”没有指明哪一个选项。请写 a 到 {letters[-1]} 里的一个。"))
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


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().replace("n't", " not").split())


def verdict_in(answer: str) -> str | None:
    """The verdict that an answer says; None where it says none, or more than one."""
    parts = [part.strip() for part in _REASON.split(_plain(answer)) if part.strip()]
    said = [_word_of_verdict(part) for part in parts]
    if not said or not said[0]:
        return None
    doubt = said[0] != "depends" and (set(said[1:]) - {None, said[0]} or any(map(_HEDGE.search, parts)))
    return None if doubt else said[0]


def _word_of_verdict(part: str) -> str | None:
    bare = " ".join(_FILLERS.sub(" ", part).split())
    said = next((verdict for verdict, words in VERDICTS.items() if part in words or bare in words), None)
    return said or ("depends" if _DEPENDS.search(part) else None)


def _numbered(text: str) -> str:
    """A text with its ordinals ("the second", 第五) in digits, where there are no digits."""
    if re.search(r"\d", text):
        return text
    text = re.sub(rf"\b({'|'.join(ORDINALS)})\b", lambda found: str(ORDINALS.index(found[1]) + 1), text)
    return re.sub("第([一二三四五六七八九十]+)", lambda found: f"第{read(found[1])[0]:.0f}", text)


def _line(answer: str) -> int | None:
    """The one line that an answer names; None where it names none or several."""
    text = _numbered(_plain(answer))
    named = set(re.findall(r"(?:\b(?:lines?|ln|l|row)\s*|#|第|行)\s*(\d+)(?![.\d])", text)) | set(re.findall(r"(\d+)\s*行", text))
    if not named:  # "7: ..." or the only number there is
        first = re.match(r"(\d+)\s*(?:[:)]|\.(?!\d))", text)
        named = {first[1]} if first else set(re.findall(r"(?<![\w.-])\d+(?:\.\d+)?", text))
    several = re.search(rf"\d\s*{_AND}+\s*(?:{_AND}|maybe|perhaps|lines?|第|\s)*\d", text)
    return int(*named) if len(named) == 1 and not several and "".join(named).isdecimal() else None


def _cause(answer: str, offered: list[Text], letters: str) -> int:
    """The place of the one cause that an answer names, from 0; -1 where it names none or several."""
    text = _numbered(_plain(answer))
    for place, cause in enumerate(offered):
        if len(text) > 9 and any(_plain(said or "").startswith(text.rstrip(" .")) for said in (cause.en, cause.zh)):
            return place
    found = re.match(r"(?:(?:the|my|i|think|choose|it'?s|it|is|option|cause|answer|choice|number)[\s:]+|我?选项?|答案|原因|是|第|[\s:(\[#])*"
                     r"([a-h]|\d)\s*(?:one|cause|option|个|号|项)?(?=$|[)\].:;,、。]|\s*(?:because|since|因为))", text)
    if not found or re.match(rf"[)\]]*\s*{_AND}\s*(?:[a-h]|\d)(?![a-z\d])", text[found.end() :]):
        return -1
    return letters.find(found[1]) if found[1].isalpha() else int(found[1]) - 1


def _with_unit(value: float, number, language: str) -> str:
    unit = _unit(number, language)
    return show(value) if unit.startswith(("(", "（")) else f"{show(value)} {unit}"


def _unit(number, language: str) -> str:
    return number.unit_zh if language == "zh" and number.unit_zh else number.unit


def _unit_in(words: str, number, answer: str) -> Unit | None:
    """The unit that the words behind a number name, if any: BadAnswer where it measures something else."""
    asked = unit_of(number.unit)
    kind = asked.measures if asked else ""
    start = words.lstrip(" *(")
    name = (re.match(r"[a-zμη]+(?![\w])|[%‰]", start, flags=re.IGNORECASE) or re.match("|".join(
        sorted((unit for unit in UNITS if unit > "一"), key=len, reverse=True)), start) or [""])[0]
    if name.lower() == "b" and kind != "bytes":
        return Unit("count", 1e9)
    unit = unit_of(name + "B" if kind == "bytes" and name.lower() in tuple("kmgt") else name)
    if kind == "bytes" and re.fullmatch("[KMGT]b", name):
        raise BadAnswer(Text(en=f"{answer.strip()!r}: bits or bytes? Write {name[0]}bit or {name[0]}B.",
                             zh=f"“{answer.strip()}”里的 {name} 是比特还是字节？请写 {name[0]}bit 或 {name[0]}B。"))
    fits = not unit or unit.measures in (kind, "share" if kind in ("", "lr") else kind)
    if not fits and (kind or unit.measures in ("bytes", "time")):
        raise BadAnswer(Text(en=f"{answer.strip()!r} is in {name}, which measures something else. Asked for: "
                                f"{number.unit}.",
                             zh=f"“{answer.strip()}”的单位是 {name}，量纲不对。题目要的是 {_unit(number, 'zh')}。"))
    return unit


def _usual(value: float, right: float, number, close) -> list[Text]:
    """What a wrong number looks like, whatever the question."""
    measured = unit_of(number.unit)
    if measured and measured.measures == "bytes":
        if measured.factor > 1 and any(abs(value / right - 1.024**power) < 0.004 for power in (-4, -3, -2, 2, 3, 4)):
            unit, binary = number.unit, f"{number.unit[0]}iB"
            return [Text(en=f"That looks like {binary} (powers of 1,024) mixed up with {unit}. Asked for: {unit}, powers of 1,000.",
                         zh=f"看起来是把 {binary}（1024 进制）和 {unit} 弄混了。题目要的是 {unit}（1000 进制）。")]
        if close(value, right * 8) or close(value, right / 8):
            times, chinese = ("eight times", "8 倍") if value > right else ("an eighth of", "八分之一")
            return [Text(en=f"That is {times} the answer. Were bits and bytes mixed up?",
                         zh=f"正好是答案的{chinese}，是不是把比特和字节弄混了？")]
    for factor, english, chinese in ((2, "twice the answer", "正好是答案的 2 倍"), (0.5, "half the answer", "正好是答案的一半")):
        if close(value, right * factor):
            return [Text(en=f"That is {english}. Where does the factor of two come from?", zh=f"{chinese}，这个 2 差在哪里？")]
    power = round(math.log10(abs(value)) - math.log10(abs(right))) if value * right > 0 else 0
    if 0 < abs(power) < 100 and close(value, right * 10.0**power):
        return [Text(en="The digits are right, the power of ten is not.", zh="有效数字对，数量级不对。")]
    if _within(3 * number.tolerance)(value, right):
        return [Text(en="Close, but not close enough: give three digits.", zh="接近了，但不够准：请给三位有效数字。")]
    return []
