"""Reading the bank: YAML files in, validated questions out, one sentence per fault."""

from __future__ import annotations

import difflib
import re
import reprlib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from course_lib.questions.schema import Question

BANK = Path(__file__).parent / "bank"
"""The folder of the course's own bank."""


class BankError(ValueError):
    """A fault in a bank file. Each line of the message names file, question, field, fault and what is allowed."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML's safe loader, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key_node.value}' is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load(path: str | Path | None = None) -> dict[str, Question]:
    """Return the questions of a bank by id, in the order of the files' names and of the questions in them.

    Args:
        path: a YAML file, or a folder of ``*.yaml`` files; None is the course's own bank. A file is named after
            the area of its questions: ``adamw.yaml``.

    Raises:
        FileNotFoundError: nothing is there, or the folder holds no YAML file.
        BankError: a file is no YAML, a question breaks the schema, is in the wrong file, or an id is there twice.
    """
    place = BANK if path is None else Path(path)
    files = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise FileNotFoundError(
            f"No question bank at {place}. Allowed: a YAML file, or a folder with *.yaml files in it."
        )
    questions: dict[str, Question] = {}
    origin: dict[str, str] = {}
    faults: list[str] = []
    for file in files:
        for number, record in enumerate(_records(file), start=1):
            name = record.get("id") if isinstance(record, dict) else None
            where = f"{file.name}: question {name if isinstance(name, str) else f'number {number}'}"
            try:
                question = Question.model_validate(record)
            except ValidationError as error:
                faults += [f"{where}{_sentence(fault)}" for fault in error.errors()]
                continue
            if question.area != file.stem:
                faults.append(
                    f"{where}, field area: is {question.area!r}. Allowed: {file.stem!r}, the name of the file."
                )
            if question.id in questions:
                faults.append(
                    f"{where}, field id: is also in {origin[question.id]}. Allowed: an id that no other question has."
                )
            questions[question.id] = question
            origin[question.id] = file.name
    if faults:
        raise BankError("\n".join(faults))
    return questions


def get(question_id: str) -> Question:
    """Return one question of the course's own bank.

    Raises:
        ValueError: there is no such question; the nearest id is suggested.
    """
    bank = _own_bank()
    if question_id in bank:
        return bank[question_id]
    near = difflib.get_close_matches(str(question_id), bank, n=1, cutoff=0.4)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no question {question_id!r}.{guess} All ids: list(course_lib.questions.load()).")


@cache
def _own_bank() -> dict[str, Question]:
    """The course's own bank, read once per process."""
    return load()


def _records(file: Path) -> list[Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise BankError(f"{file.name}: byte {error.start} is no UTF-8. Allowed: YAML text in UTF-8.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2025-13-01
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BankError(
            f"{file.name}{line}: {getattr(error, 'problem', None) or error}. Allowed: valid YAML."
        ) from None
    if not isinstance(data, list) or not data:
        raise BankError(
            f"{file.name}: holds {'nothing' if data is None else type(data).__name__}. Allowed: a list of questions."
        )
    return data


def _sentence(fault: dict[str, Any]) -> str:
    """One pydantic error as the rest of a sentence that begins with file and question."""
    path = "".join(f", item {part + 1}" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    field = f", field {path.replace(', item', ' item').replace('.', ' > ')}" if path else ""
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    shown = reprlib.repr(value)
    if kind == "value_error":
        return f"{field}: {context['error']}"
    if kind == "missing":
        return f"{field}: is missing. Allowed: every question has it."
    if kind == "literal_error":
        near = difflib.get_close_matches(str(value), re.findall(r"'([^']+)'", context["expected"]), n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        return f"{field}: is {shown}.{guess} Allowed: {context['expected']}."
    if kind == "string_type":
        return f"{field}: is {shown}, a {type(value).__name__}. Allowed: text; put it in quotes."
    if kind == "too_short":
        return f"{field}: has {context['actual_length']} entries. Allowed: at least {context['min_length']}."
    return f"{field}: is {shown}. Allowed: {fault['msg'][0].lower()}{fault['msg'][1:]}."
