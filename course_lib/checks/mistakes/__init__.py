"""Catalogues of known mistakes, one family per optimizer key."""

from course_lib.checks.mistakes import momentum, rmsprop
from course_lib.checks.mistakes.adam_family import FAMILIES as _ADAM_FAMILIES
from course_lib.checks.mistakes.engine import Family, Mistake

FAMILIES: dict[str, Family] = {**_ADAM_FAMILIES, "momentum": momentum.FAMILY, "rmsprop": rmsprop.FAMILY}

__all__ = ["FAMILIES", "Family", "Mistake"]
