"""The bank in Chinese: complete, with the English's numbers and code, set as Chinese is set."""

from __future__ import annotations

import re

import pytest

from course_lib.questions import Question, bank
from course_lib.questions.schema import Text

CODE = re.compile(r"`[^`]*`")


def texts(question: Question) -> list[tuple[str, Text]]:
    """Every text of a question, with the name of its field."""
    found = [("prompt", question.prompt), ("answer", question.answer), ("says", question.weak.says),
             ("costs", question.weak.costs)]
    found += [("rubric", point.point) for point in question.rubric]
    found += [("follow_ups", text) for text in question.follow_ups]
    found += [("claim", question.claim)] if question.claim else []
    found += [("slips", slip.says) for slip in question.number.slips] if question.number else []
    return found + ([("causes", cause) for cause in question.run.causes] if question.run else [])


@pytest.mark.parametrize("name", bank())
def test_chinese_says_what_the_english_says(name):
    for field, text in texts(bank()[name]):
        assert text.zh, f"{field} has no Chinese"
        missing = [span for span in CODE.findall(text.en) if span not in text.zh]
        assert not missing, f"{field}: code that is not in the Chinese: {missing}"
        numbers = set(re.findall(r"\d+\.\d+", CODE.sub("", text.en)))
        missing = {number for number in numbers if number not in text.zh}
        assert not missing, f"{field}: numbers that are not in the Chinese: {missing}"


@pytest.mark.parametrize("name", bank())
def test_chinese_is_set_as_chinese(name):
    han = r"[\u4e00-\u9fff]"
    for field, text in texts(bank()[name]):
        prose = CODE.sub("`", text.zh)
        for pattern, what in (
            (rf"{han} +{han}", "a space between Chinese characters"),
            (rf"{han}[,;:?!]", "half-width punctuation after Chinese"),
            (rf"{han}[A-Za-z0-9]|[A-Za-z0-9]{han}", "no space between Chinese and Latin"),
            (r"[$<>\\]", "markup"),
        ):
            found = re.search(rf".{{0,8}}(?:{pattern}).{{0,8}}", prose)
            assert not found, f"{field}: {what}: {found.group()!r}"
        assert re.search(han, text.zh) or field not in ("prompt", "answer", "claim"), f"{field}: {text.zh!r}"
