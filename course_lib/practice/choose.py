"""Choosing questions by area, level and kind, with the nearest name where one is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import get_args

from course_lib.questions import Question, bank
from course_lib.questions.schema import AREAS, LEVELS, Kind

KINDS: tuple[str, ...] = get_args(Kind)

ALIASES = {
    "amp": "mixed_precision", "fp16": "mixed_precision", "bf16": "mixed_precision", "precision": "mixed_precision",
    "zero": "sharding", "fsdp": "sharding", "mem": "memory", "gd": "gradient_descent", "sgd": "gradient_descent",
    "adagrad": "adaptive_rates", "rmsprop": "adaptive_rates", "muon": "beyond_adam", "warmup": "schedules",
    "spikes": "stability", "batch": "large_batch", "8bit": "small_state", "triton": "kernels", "fused": "kernels",
    "ema": "averaging", "mup": "scaling", "lora": "fine-tuning", "allreduce": "communication",
    "clipping": "accumulation", "resume": "fine-tuning",
}
"""Other names of areas."""

LANGUAGES = ("en", "zh")


class BadChoice(ValueError):
    """A name or number that is not there; the message is a sentence that says what is."""


def areas_of(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """The areas that names, or one text with commas, stand for; without any, all that the bank has.

    Raises:
        BadChoice: an area is unknown; the nearest is named.
    """
    there = tuple(area for area in AREAS if any(question.area == area for question in bank().values()))
    wanted = _split(names)
    if not wanted:
        return there
    return tuple(dict.fromkeys(_known(ALIASES.get(_plain(name), name), there, "area", ALIASES) for name in wanted))


def kinds_of(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """The kinds that names stand for; without any, all. Raises BadChoice."""
    wanted = _split(names)
    return tuple(dict.fromkeys(_known(name, KINDS, "kind") for name in wanted)) if wanted else KINDS


def level_of(level: int | None) -> int | None:
    """The level itself. Raises BadChoice unless it is None or one of 1, 2, 3."""
    if level is not None and (isinstance(level, bool) or level not in LEVELS):
        allowed = ", ".join(f"{number} ({name})" for number, name in LEVELS.items())
        raise BadChoice(f"There is no level {level}. Allowed: {allowed}.")
    return level


def language_of(name: str) -> str:
    """The language itself. Raises BadChoice unless it is "en" or "zh"."""
    if name not in LANGUAGES:
        raise BadChoice(f"There is no language {name!r}. Allowed: {', '.join(LANGUAGES)}.")
    return name


def choose(
    areas: str | Iterable[str] | None = None, level: int | None = None, kinds: str | Iterable[str] | None = None
) -> list[Question]:
    """The questions of the bank in these areas, at this level, of these kinds; without any, all of them.

    Raises:
        BadChoice: an area, level or kind is unknown, or no question is all of this.
    """
    areas, level, kinds = areas_of(areas), level_of(level), kinds_of(kinds)
    chosen = [
        question
        for area in AREAS
        for question in bank().values()
        if question.area == area in areas and question.kind in kinds and level in (None, question.level)
    ]
    if not chosen:
        raise BadChoice(f"No question is of kind {' or '.join(kinds)}, of level {level or '1, 2 or 3'} and in the area "
                        f"{' or '.join(areas)}. Leave one of these out.")
    return chosen


def _split(names: str | Iterable[str] | None) -> list[str]:
    parts = names.replace("，", ",").split(",") if isinstance(names, str) else list(names or ())
    return [part.strip() for part in parts if part.strip()]


def _plain(name: str) -> str:
    return name.strip().lower()


def _known(name: str, there: Sequence[str], what: str, others: Iterable[str] = ()) -> str:
    for form in (name, _plain(name), _plain(name).replace("-", "_"), _plain(name).replace("_", "-")):
        if form in there:
            return form
    near = difflib.get_close_matches(_plain(name), [*there, *others], n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    raise BadChoice(f"There is no {what} {name!r}.{guess} Allowed: {', '.join(there)}.")
