"""Catalogues of known mistakes, one family per optimizer key."""

from course_lib.checks.mistakes import adadelta, adagrad, lion, momentum, nesterov, rmsprop
from course_lib.checks.mistakes.adam_family import FAMILIES as _ADAM_FAMILIES
from course_lib.checks.mistakes.engine import Family, Mistake

FAMILIES: dict[str, Family] = {
    **_ADAM_FAMILIES,
    "momentum": momentum.FAMILY,
    "nesterov": nesterov.FAMILY,
    "adagrad": adagrad.FAMILY,
    "rmsprop": rmsprop.FAMILY,
    "adadelta": adadelta.FAMILY,
    "lion": lion.FAMILY,
}

__all__ = ["FAMILIES", "Family", "Mistake"]
