"""A compute question with numbers drawn anew: the prompt that shows them, the number it asks for, the usual slips."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from course_lib.questions.proof import evidence_function
from course_lib.questions.schema import Question, Text


@dataclass(frozen=True)
class Drawn:
    """A question as it is asked once.

    Attributes:
        question: the question of the bank.
        choices: the choice of each number drawn, as the prompt shows it; empty for kinds other than compute.
    """

    question: Question
    choices: dict[str, str]

    def prompt(self, language: str = "en") -> str:
        """The prompt in a language ("en" or "zh"), with the numbers in it."""
        text = getattr(self.question.prompt, language) or self.question.prompt.en
        return text.format_map(self.choices) if self.choices else text

    @property
    def standard(self) -> bool:
        """Whether these are the numbers with which the bank's spoken answer is given."""
        return self.choices == standard(self.question).choices

    def values(self) -> dict[str, int | float]:
        """The arguments of the evidence function."""
        draw = self.question.number.draw if self.question.number else {}
        return {name: draw[name].value(choice) for name, choice in self.choices.items()}

    def answer(self) -> float:
        """The number asked for, computed once by the question's evidence function. Imports torch.

        Raises:
            ValueError: the question asks for no number.
        """
        return self._answer

    def slips(self) -> list[tuple[float, Text]]:
        """What usual slips come to with these numbers, and what is behind each."""
        return self._slips

    @cached_property
    def _answer(self) -> float:
        if self.question.number is None:
            raise ValueError(f"{self.question.id} is of kind {self.question.kind}. Allowed: compute.")
        (function,) = (proof.function for proof in self.question.evidence if proof.function)
        return float(evidence_function(function)(**self.values()))

    @cached_property
    def _slips(self) -> list[tuple[float, Text]]:
        import sympy  # torch brings it

        names = self.values() | {"answer": self.answer()}
        return [(float(sympy.sympify(slip.value, locals=names)), slip.says) for slip in self.question.number.slips]


def standard(question: Question) -> Drawn:
    """The question with the numbers of the bank's answer."""
    draw = question.number.draw if question.number else {}
    return Drawn(question, {name: given.choices[0] for name, given in draw.items()})


def draw(question: Question, seed: int) -> Drawn:
    """The question with numbers drawn from its ranges; one seed gives one draw, on every machine."""
    numbers = random.Random(f"{question.id} {seed}")
    ranges = question.number.draw if question.number else {}
    return Drawn(question, {name: numbers.choice(given.choices) for name, given in ranges.items()})


def every(question: Question) -> Iterator[Drawn]:
    """The question with each combination of numbers."""
    ranges = question.number.draw if question.number else {}
    for choices in itertools.product(*(given.choices for given in ranges.values())):
        yield Drawn(question, dict(zip(ranges, choices, strict=True)))
