"""What an exercise that asks for a number knows: its answer, and the slips that people make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from course_lib.checks.report import MISTAKE, Finding


@dataclass(frozen=True)
class Slip:
    """A number that a known slip leads to; ``kind`` as in a finding.

    It is recognised within ``tolerance`` (relative): by default, though it was rounded to three digits.
    """

    value: float
    code: str
    what: str
    hint: str
    kind: str = MISTAKE
    tolerance: float = 5e-3


@dataclass(frozen=True)
class Answer:
    """The right number, how close counts (relative), its unit in words (if it has one), and the usual slips.

    ``told`` says what is wrong with a finite number that is no slip, where "too large" or "too small" says too little;
    or returns None.
    """

    value: float
    tolerance: float
    unit: str
    slips: tuple[Slip, ...]
    told: Callable[[float], Finding | None] = lambda number: None

    @property
    def asked(self) -> str:
        """What is asked for, in words."""
        return f"a number of {self.unit}" if self.unit else "a bare number"

    def said(self, number: float) -> str:
        """``number`` with its unit."""
        return f"{number:g} {self.unit}".rstrip()
