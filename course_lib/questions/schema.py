"""What a question of the bank is: its fields, their types and ranges.

Everything is strict: a field that is not named here is refused, and no value is converted. Text that learners read is a
map by language, so a language is added to a question by adding its key.
"""

from __future__ import annotations

import ast
import difflib
import re
import reprlib
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Area = Literal[
    "gradient_descent",
    "momentum",
    "adaptive_rates",
    "adam",
    "adamw",
    "why_adam",
    "schedules",
    "stability",
    "large_batch",
    "memory",
    "mixed_precision",
    "numerics",
    "accumulation",
    "sharding",
    "communication",
    "kernels",
    "small_state",
    "beyond_adam",
    "scaling",
    "averaging",
    "fine-tuning",
    "benchmarking",
]
Kind = Literal["explain", "derive", "compute", "verdict", "bug", "read-run", "design", "implement"]
Verdict = Literal["right", "wrong", "depends"]

LEVELS = {1: "screen", 2: "onsite", 3: "research"}
"""Level of a question and the round of an interview it belongs to."""

SPOKEN_MINUTE = {"en": 170, "zh": 320}
"""The longest answer by language.

English words, Chinese characters (a Latin word or formula among them counts as one).
"""

NEEDS: dict[str, tuple[str, ...]] = {
    "compute": ("number",),
    "verdict": ("claim", "verdict"),
    "bug": ("bug",),
    "read-run": ("run",),
    "implement": ("exercise",),
}
"""The fields that a kind must have and that no other kind may have."""


def _like(pattern: str, words: str) -> AfterValidator:
    """A check that text matches ``pattern`` from end to end; ``words`` says in plain language what that is."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"is {value!r}. Allowed: {words}.")
        return value

    return AfterValidator(check)


_Line = Annotated[str, _like(r"\S(.*\S)?", "one line of text without spaces at its ends")]
_Kebab = Annotated[str, _like(r"[a-z0-9]+(-[a-z0-9]+)*", "lower-case words joined by hyphens, as in adam-first-step")]
_Snake = Annotated[str, _like(r"[a-z][a-z0-9_]*", "lower-case words joined by underscores, as in first_step")]
_Arxiv = Annotated[str, _like(r"\d{4}\.\d{4,5}", "an arXiv id in quotes, as in '1412.6980'")]
_Url = Annotated[str, _like(r"https://\S+", "an address that begins with https://")]
_Notebook = Annotated[str, _like(r"\d\d_[a-z0-9_]+", "a notebook's name without suffix, as in 04_adam")]
_Tag = Annotated[str, _like(r"evidence-[a-z0-9-]+", "evidence- followed by the question's id")]


class Strict(BaseModel):
    """A record of the bank: frozen, no conversions, no unknown fields."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        allowed = list(cls.model_fields)
        if isinstance(data, dict):
            for name in data:
                if name not in cls.model_fields:
                    near = difflib.get_close_matches(str(name), allowed, n=1)
                    guess = f"; did you mean '{near[0]}'?" if near else "."
                    raise ValueError(f"unknown field '{name}'{guess} Allowed: {', '.join(allowed)}.")
        elif not isinstance(data, cls):
            raise ValueError(f"is {reprlib.repr(data)}. Allowed: a mapping with the fields {', '.join(allowed)}.")
        return data


class Text(Strict):
    """Text by language. It may hold `code` in backticks and code blocks; formulas are written as code."""

    en: str
    zh: str | None = None

    @field_validator("en", "zh")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is blank. Allowed: at least one word.")
        return value


def spoken_length(text: str, language: str) -> int:
    """Length of ``text`` in the unit of :data:`SPOKEN_MINUTE` for ``language`` ("en" or "zh")."""
    if language == "zh":
        return len(re.findall(r"[\u4e00-\u9fff]|[^\s\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+", text))
    return len(text.split())


class Point(Strict):
    """One point that a good answer makes, and what it weighs among the others."""

    point: Text
    weight: int = Field(ge=1, le=5)


class Weak(Strict):
    """What a weak answer says, and why that costs."""

    says: Text
    costs: Text


class Source(Strict):
    """A paper (title and year, arXiv id if it has one) or documentation (title and url)."""

    title: _Line
    year: int | None = Field(default=None, ge=1900, le=2100)
    arxiv: _Arxiv | None = None
    url: _Url | None = None
    where: _Line | None = None

    @model_validator(mode="after")
    def _can_be_found(self) -> Source:
        if self.year is None and self.url is None:
            raise ValueError("has neither year nor url. Allowed: a paper with its year, or documentation with its url.")
        return self


class Evidence(Strict):
    """What proves the answer: a function of ``evidence/``, or the cells of a notebook that carry a tag."""

    function: _Snake | None = None
    notebook: _Notebook | None = None
    tag: _Tag | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Evidence:
        given = (self.function is not None, self.notebook is not None, self.tag is not None)
        if given not in {(True, False, False), (False, True, True)}:
            raise ValueError("names no single place. Allowed: function alone, or notebook together with tag.")
        return self


class Range(Strict):
    """What a number in the prompt of a compute question is drawn from.

    ``choices`` are written as the prompt shows them ("8,192", "3e-4"); the first one is the standard value, with which
    the bank's answer and value are given. The evidence function's argument of the same name gets the choice ``times``
    a unit, so that "{parameters} billion" can stand in the prompt.
    """

    choices: list[_Line] = Field(min_length=2)
    times: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @field_validator("times", mode="before")
    @classmethod
    def _as_written(cls, times: Any) -> Any:
        """YAML 1.1 takes 1.0e9, without a sign in the exponent, for text."""
        return float(times) if isinstance(times, str) and re.fullmatch(r"\d+(\.\d+)?e-?\d+", times) else times

    @field_validator("choices")
    @classmethod
    def _numbers(cls, choices: list[str]) -> list[str]:
        for choice in choices:
            if not re.fullmatch(r"-?\d[\d,]*(\.\d+)?(e-?\d+)?", choice):
                raise ValueError(f"holds {choice!r}. Allowed: numbers in quotes, as in '8,192', '0.95' or '3e-4'.")
        if len(set(choices)) < len(choices):
            raise ValueError("holds a choice twice. Allowed: each once.")
        return choices

    def value(self, choice: str) -> int | float:
        """The argument that stands for a choice: an int where the choice is written as one, else a float."""
        number = float(choice.replace(",", "")) * self.times
        return int(number) if number.is_integer() and not re.search(r"[.e]", choice) else number


class Slip(Strict):
    """A usual wrong number and what is behind it.

    ``value`` is a formula in the numbers drawn and in ``answer``, the right number, as in "answer * 8". It may use
    sqrt, log, exp and floor.
    """

    value: _Line
    says: Text


class Number(Strict):
    """The number a compute question asks for.

    ``tolerance`` is relative: an answer x is accepted if abs(x - value) <= tolerance * abs(value).
    The question's one evidence function returns the number, in the same unit, for any numbers drawn.
    """

    value: float = Field(allow_inf_nan=False)
    unit: _Line
    unit_zh: _Line | None = None
    tolerance: float = Field(gt=0, le=0.1)
    draw: dict[_Snake, Range] = Field(min_length=1)
    slips: list[Slip] = Field(min_length=1)


class Bug(Strict):
    """Python with one faulty line: ``line`` counts from 1, ``fix`` is what that line should say.

    ``also`` are lines that name the same fault as well; ``report`` is the public report, where production had it.
    """

    code: str
    line: int = Field(ge=1)
    fix: _Line
    also: list[int] = []
    report: _Url | None = None

    @property
    def faulty(self) -> str:
        """The faulty line, without its indentation."""
        return self.code.splitlines()[self.line - 1].strip()

    @property
    def fixed(self) -> str:
        """The code with the faulty line replaced, at the same indentation."""
        lines = self.code.splitlines()
        old = lines[self.line - 1]
        lines[self.line - 1] = old[: len(old) - len(old.lstrip())] + self.fix
        return "\n".join(lines) + "\n"

    @model_validator(mode="after")
    def _line_is_there(self) -> Bug:
        count = len(self.code.splitlines())
        if self.line > count or not self.faulty:
            raise ValueError(f"line is {self.line}. Allowed: a line with code on it, 1 to {count}.")
        if any(not 1 <= line <= count or line == self.line for line in self.also):
            raise ValueError(f"also is {self.also}. Allowed: lines other than {self.line}, 1 to {count}.")
        if self.faulty == self.fix:
            raise ValueError("fix is the faulty line itself. Allowed: what the line should say instead.")
        for name, code in (("code", self.code), ("code with the fix in it", self.fixed)):
            try:
                ast.parse(code)
            except SyntaxError as error:
                raise ValueError(
                    f"{name} is no valid Python ({error.msg}, line {error.lineno}). Allowed: code that parses."
                ) from None
        return self


class Run(Strict):
    """The curves of a run and what may have caused them.

    ``curves`` names the evidence function that makes the curves (:func:`course_lib.questions.runs.Curves`); what it
    gave when it was last run is in ``recorded/``. ``causes`` are what a reader might name, the right one first.
    """

    curves: _Snake
    causes: list[Text] = Field(min_length=3, max_length=5)


class Question(Strict):
    """One question of the bank.

    Attributes:
        id: kebab-case, unique in the bank and stable: notebooks and learners' records refer to it.
        area: slug of the blueprint's area, and the name of the file it is written in.
        level: 1 screen, 2 onsite, 3 research.
        kind: how it is asked and graded; some kinds have fields of their own (:data:`NEEDS`).
        prompt: what the interviewer says; of a compute question with a place in braces for each number drawn.
        answer: what one would say in a minute (:data:`SPOKEN_MINUTE`).
        rubric: the points that a good answer makes, weighted.
        weak: what a weak answer says, and why that costs.
        follow_ups: what the interviewer asks next.
        sources: where it is published.
        evidence: what proves it; at least one.
        number: compute: value, unit, tolerance.
        claim, verdict: verdict: the claim on trial, and what it is.
        bug: bug: the code, the faulty line and its fix.
        run: read-run: the curves to read, and the causes to choose from.
        exercise: implement: id of the exercise to open.
    """

    id: _Kebab
    area: Area
    level: Literal[1, 2, 3]
    kind: Kind
    prompt: Text
    claim: Text | None = None
    verdict: Verdict | None = None
    number: Number | None = None
    bug: Bug | None = None
    run: Run | None = None
    exercise: _Snake | None = None
    answer: Text
    rubric: list[Point] = Field(min_length=2)
    weak: Weak
    follow_ups: list[Text] = Field(min_length=1)
    sources: list[Source] = Field(min_length=1)
    evidence: list[Evidence] = Field(min_length=1)

    @field_validator("answer")
    @classmethod
    def _a_spoken_minute(cls, answer: Text) -> Text:
        for language, limit in SPOKEN_MINUTE.items():
            text = getattr(answer, language)
            if text is not None and (length := spoken_length(text, language)) > limit:
                unit = "characters" if language == "zh" else "words"
                raise ValueError(f"{language} has {length} {unit}. Allowed: {limit}, a spoken minute.")
        return answer

    @model_validator(mode="after")
    def _fields_of_its_kind(self) -> Question:
        needed = NEEDS.get(self.kind, ())
        for kind, names in NEEDS.items():
            for name in names:
                given = getattr(self, name) is not None
                if name in needed and not given:
                    raise ValueError(
                        f"field '{name}' is missing. Allowed: a question of kind {self.kind} has {', '.join(needed)}."
                    )
                if given and name not in needed:
                    raise ValueError(
                        f"field '{name}' is given, but the kind is {self.kind}. Allowed: only with kind {kind}."
                    )
        functions = [proof for proof in self.evidence if proof.function]
        if self.number:
            for language in ("en", "zh"):
                text = getattr(self.prompt, language)
                if text is not None and (holes := set(re.findall(r"\{(\w*)\}", text))) != self.number.draw.keys():
                    raise ValueError(
                        f"prompt > {language} has the places {sorted(holes)}. Allowed: one in braces for each number "
                        f"drawn, {sorted(self.number.draw)}."
                    )
        if self.kind == "compute" and len(functions) != 1:
            raise ValueError(
                f"has {len(functions)} evidence functions. "
                "Allowed: exactly one for kind compute, the one that returns the number."
            )
        return self


AREAS: tuple[str, ...] = get_args(Area)
"""The areas of the bank, in the order of the course."""
