"""Reading the bank: YAML files in, validated questions out, one sentence per fault.

A question is written in English, with all that is no text, in ``bank/AREA.yaml``. Its Chinese is in
``bank/zh/AREA.yaml``, by the question's id and the field's name, and is put beside the English when it is read.
"""

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

_TRANSLATED = {
    "prompt": ("prompt",),
    "claim": ("claim",),
    "answer": ("answer",),
    "rubric": ("rubric",),
    "weak": ("weak",),
    "follow_ups": ("follow_ups",),
    "causes": ("run", "causes"),
    "slips": ("number", "slips"),
    "unit": ("number", "unit"),
}
"""Fields of a translation, and where their English is in a question."""
_INNER = {"rubric": "point", "slips": "says"}
"""The field of a list's entries that holds the text, where an entry is more than its text."""


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
            the area of its questions: ``adamw.yaml``. Where the folder ``zh`` beside it has a file of the same
            name, that holds the Chinese of all its questions.

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
        records = _records(file)
        faults += _translate(records, file)
        for number, record in enumerate(records, start=1):
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
    questions = bank()
    if question_id in questions:
        return questions[question_id]
    near = difflib.get_close_matches(str(question_id), questions, n=1, cutoff=0.4)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no question {question_id!r}.{guess} All ids: list(course_lib.questions.load()).")


@cache
def bank() -> dict[str, Question]:
    """The course's own bank, read once per process."""
    return load()


def _translate(records: list[Any], file: Path) -> list[str]:
    """Put the Chinese of ``file`` beside the English in ``records``; the faults as sentences."""
    other = file.parent / "zh" / file.name
    if not other.is_file():
        return []
    translations = _read(other)
    if not isinstance(translations, dict) or not all(isinstance(entry, dict) for entry in translations.values()):
        return [f"zh/{file.name}: is no map of question ids. Allowed: id, then field, then text."]
    known = {record["id"]: record for record in records if isinstance(record, dict) and isinstance(record.get("id"), str)}
    faults = [
        f"zh/{file.name}: question {name}: {'is only here' if name in translations else 'is missing'}. "
        f"Allowed: the questions of {file.name}."
        for name in known.keys() ^ translations.keys()
    ]
    for name in known.keys() & translations.keys():
        faults += [
            f"zh/{file.name}: question {name}, field {field}: {fault}"
            for field, fault in _merge(known[name], translations[name])
        ]
    return sorted(faults)


def _merge(record: dict[str, Any], translation: dict[str, Any]) -> list[tuple[str, str]]:
    """Put one question's Chinese into its record; (field, fault) of what is not in step with the English."""
    faults = []
    for field in [*_TRANSLATED, *(key for key in translation if key not in _TRANSLATED)]:
        *path, last = _TRANSLATED.get(field, (field,))
        place = record.get(path[0]) if path else record
        english = place.get(last) if isinstance(place, dict) and field in _TRANSLATED else None
        if field == "unit" and field not in translation:
            continue  # a unit such as GB is the same in both
        if (english is None) != (field not in translation):
            faults.append((field, "is only in one language. Allowed: the fields that the English has."))
        elif english is not None:
            if field == "unit":
                place["unit_zh"] = translation[field]
            elif not _beside(english, translation[field], _INNER.get(field)):
                faults.append((field, "is not built as in English. Allowed: as many entries, each of them text."))
    return faults


def _beside(english: Any, chinese: Any, inner: str | None) -> bool:
    """Put text beside text, through lists and maps; whether the two are built alike."""
    if isinstance(english, list):
        return (
            isinstance(chinese, list)
            and len(english) == len(chinese)
            and all(
                _beside(one.get(inner) if inner and isinstance(one, dict) else one, other, None)
                for one, other in zip(english, chinese, strict=True)
            )
        )
    if not isinstance(english, dict):
        return False
    if "en" in english:
        english["zh"] = chinese
        return isinstance(chinese, str)
    return isinstance(chinese, dict) and english.keys() == chinese.keys() and all(
        _beside(english[key], chinese[key], None) for key in english
    )


def _records(file: Path) -> list[Any]:
    data = _read(file)
    if not isinstance(data, list) or not data:
        raise BankError(
            f"{file.name}: holds {'nothing' if data is None else type(data).__name__}. Allowed: a list of questions."
        )
    return data


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise BankError(f"{file.name}: byte {error.start} is no UTF-8. Allowed: YAML text in UTF-8.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2025-13-01
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BankError(
            f"{file.name}{line}: {getattr(error, 'problem', None) or error}. Allowed: valid YAML."
        ) from None


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
