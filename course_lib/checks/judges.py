"""Which judge looks at which exercise. Runs in the child process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course_lib.checks import functions
from course_lib.checks.muon_bug import judge_muon_bug
from course_lib.checks.optimizers import judge_optimizer
from course_lib.checks.report import Finding
from course_lib.checks.specs import SPECS

_OPTIMIZERS = {  # exercise -> (optimizer, is it a blank page)
    "momentum": ("momentum", False),
    "momentum_bug": ("momentum", False),
    "nesterov": ("nesterov", False),
    "adagrad": ("adagrad", False),
    "rmsprop": ("rmsprop", False),
    "adadelta": ("adadelta", False),
    "adam": ("adam", False),
    "adam_blank": ("adam", True),
    "adamw": ("adamw", False),
    "adamw_blank": ("adamw", True),
    "adamw_bug": ("adamw", False),
    "lion": ("lion", False),
}


def judge(
    exercise: str, candidate: Any, progress: Callable[[str], None], allow_production: bool = False
) -> list[Finding]:
    """The findings about ``candidate``, an answer to ``exercise``; ``progress`` is told which probe begins."""
    if exercise in _OPTIMIZERS:
        key, blank_page = _OPTIMIZERS[exercise]
        return judge_optimizer(
            SPECS[key], candidate, progress, allow_production=allow_production, blank_page=blank_page
        )
    if exercise == "muon_bug":
        return judge_muon_bug(candidate, progress, allow_production=allow_production)
    return functions.JUDGES[exercise](candidate, progress)
