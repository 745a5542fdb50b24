"""The exercise `resume_state`: what a checkpoint needs, so that the resumed run is the one that never stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.candidate import watched
from course_lib.checks.functions.common import Progress, guarded
from course_lib.checks.functions.resume_run import PARTS, Run
from course_lib.checks.functions.resume_states import changed, equal, otherwise, where
from course_lib.checks.report import Finding

BEFORE, AFTER = 7, 6  # steps before the checkpoint and after it
CLOSE = 1e-6

# What a run shows that resumes without the part.
_SYMPTOMS = {
    "model": "The loss starts again where it was before any training.",
    "optimizer": "The loss jumps in the first steps after the resume: Adam's moments start again at zero.",
    "scheduler": "The learning rate starts its schedule again from the first step.",
    "scaler": "The scale is 65536 again, or whatever it starts at: steps are skipped that would not have been.",
    "generator": "The batches of the first steps come again, in the same order.",
}
_HOW = {part: f"`{part}.state_dict()`" for part in PARTS} | {"generator": "`generator.get_state()`"}


def _right(model: Any, optimizer: Any, scheduler: Any, scaler: Any, generator: Any) -> dict[str, Any]:
    objects = (model, optimizer, scheduler, scaler)
    states = {part: copy.deepcopy(each.state_dict()) for part, each in zip(PARTS, objects, strict=False)}
    return states | {"generator": generator.get_state().clone()}


def judge_resume_state(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: a run is saved, goes on, and a fresh one resumes from what was saved."""
    findings = guarded(candidate, lambda: _judged(candidate, progress))
    return list({finding.code: finding for finding in findings}.values())


@dataclass
class _Saved:
    """What the candidate returned, as it was then and as it is after more steps; and how the runs went on.

    Attributes:
        now: the dict itself, whose tensors may have changed since.
        then: a deep copy, made at once.
        right: what it should have held.
        control: the log of a run that nobody saved.
        log: the log of the run that was saved.
    """

    now: dict[str, Any]
    then: dict[str, Any]
    right: dict[str, Any]
    control: list[dict[str, Any]]
    log: list[dict[str, Any]]


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    progress("saving a run")
    run, control = Run(), Run()
    run.steps(BEFORE), control.steps(BEFORE)
    right, noticeable = run.save(_right), (run.modes(), run.gradients())
    with watched("it is called with a run after some steps"):
        state = run.save(candidate)
    if not isinstance(state, dict):
        return [_no_dict(state)]
    try:
        then = copy.deepcopy(state)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        return [
            Finding(
                "not-a-state",
                f"What the function returns cannot be copied, so it cannot be saved either: {error}",
                "Tensors, numbers, lists and dicts of them.",
            )
        ]
    if noticed := run.noticed(*noticeable):
        return [_disturbed(noticed)]
    progress("going on with the run that was saved")
    try:
        log = run.steps(AFTER)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
    ) as error:  # the candidate has left the run in a state that does not train
        return [_disturbed(f"the run that was saved does not go on: {type(error).__name__}: {error}")]
    saved = _Saved(state, then, right, control.steps(AFTER), log)
    progress("resuming from what was saved")
    return list(_faults(saved)) or _again(candidate, run, saved)


def _again(candidate: Callable[..., Any], run: Run, saved: _Saved) -> list[Finding]:
    """A second call, after more steps: a run is saved more than once."""
    right, first = run.save(_right), saved.now
    with watched("it is called a second time, some steps later"):
        second = run.save(candidate)
    if not isinstance(second, dict):
        return [_no_dict(second)]
    for part in PARTS:
        told = otherwise(part, second[part], right[part]) if part in second else f"there is no {part!r}."
        if not told:
            continue
        if all(equal(second.get(each), saved.then[each]) for each in PARTS):
            what = f"A second call, {AFTER} steps after the first, returns the state of the first."
            return [Finding("cached", what, "Read the state anew at each call, and keep nothing between two calls.")]
        what = f"The first call is right, a second one {AFTER} steps later is not: {told}"
        return [Finding("second-call", what, "What does your function keep from one call to the next?")]
    shared = [part for part in PARTS if not equal(first.get(part), saved.then[part])]
    if not shared:
        return []
    return [
        Finding(
            "same-dict",
            f"A second call changes what the first returned: {', '.join(map(repr, shared))} in it. Two checkpoints that "
            "wait to be written, or the best and the last, would both be the last.",
            "Make a new dict at each call, with copies of its own.",
        )
    ]


def _no_dict(state: Any) -> Finding:
    kind = "None" if state is None else f"something of type {type(state).__name__}"
    hint = "Does every path through the function end in a return?" if state is None else "Return one dict."
    return Finding("wrong-result", f"The function returns {kind} instead of a dict.", hint)


def _faults(saved: _Saved) -> Iterator[Finding]:
    for number, (one, other) in enumerate(zip(saved.log, saved.control, strict=True), 1):
        if told := _apart(one, other):
            yield _disturbed(f"at step {number} after the call {told}; it is compared with a run that nobody saved")
            return
    missing = [part for part in PARTS if part not in saved.then]
    others = [repr(key) for key in saved.then if key not in PARTS]
    there = f" (The dict has {', '.join(others[:4])}, which nobody looks for.)" if others else ""
    for part in missing:
        yield _missing(part, saved, there)
        there = ""
    for part in PARTS:
        if part not in missing:
            yield from _part(part, saved)


def _disturbed(what: str) -> Finding:
    return Finding(
        "changes-the-run",
        f"Saving changes the run: {what}.",
        "Read, and copy what you read: no step, no draw from the generator, nothing converted in place.",
    )


def _apart(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Where two logs of one step differ, in words; empty if they do not."""
    if not torch.equal(one["batch"], other["batch"]):
        return "the batch is another one"
    for what in ("learning rate", "loss", "scale"):
        if not np.isclose(one[what], other[what], rtol=CLOSE, atol=0.0):
            return f"the {what} is {one[what]:.6g} instead of {other[what]:.6g}"
    return ""


def _resumed(saved: _Saved, part: str, *state: Any) -> str:
    """Resume with the right state in every other part, and in this one with what is given, or with nothing.

    In words, where the resumed run first differs from the one that went on; empty if nowhere.
    """
    run = Run(seed=2)
    for each in PARTS:
        if each != part:
            run.load(each, copy.deepcopy(saved.right[each]))
        elif state:
            run.load(each, copy.deepcopy(state[0]))
    for number, other in enumerate(saved.control, 1):
        if told := _apart(run.step(), other):
            return f"at step {number} after the resume {told}"
    return ""


def _missing(part: str, saved: _Saved, there: str) -> Finding:
    return Finding(
        f"no-{part}",
        f"There is no {part!r} in the dict. {_SYMPTOMS[part]} Here, {_resumed(saved, part)}.{there}",
        f"{_HOW[part]}, under the key {part!r}.",
    )


def _part(part: str, saved: _Saved) -> Iterator[Finding]:
    now, then, right = saved.now[part], saved.then[part], saved.right[part]
    exactly = f"What {_HOW[part]} returns, with nothing rounded and nothing left out."
    if (other := _instead(part, now, then, saved)) is not None:
        yield other
        return
    try:
        told = _resumed(saved, part, then)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        message = " ".join(str(error).split())[:200]
        yield Finding(
            f"{part}-does-not-load",
            f"{part!r} does not load into a fresh run: {type(error).__name__}: {message}",
            f"What loads is what {_HOW[part]} returns.",
        )
        return
    if told:
        yield Finding(
            f"{part}-differs",
            f"With your {part!r}, {told}. {where(part, then, right)}",
            exactly,
        )
    elif told := otherwise(part, then, right):
        yield Finding(
            f"{part}-differs",
            f"With your {part!r}, the resumed run stays close to the one that went on, but it is another one. {told}",
            exactly,
        )
    elif not equal(now, then):
        yield _aliased(part, now, then)


def _aliased(part: str, now: Any, then: Any) -> Finding:
    paths, count = changed(now, then, part)
    which = f"{len(paths)} of its {count} entries have changed, {paths[0]} first"
    return Finding(
        f"{part}-aliased",
        f"{part!r} goes on changing with the run: {AFTER} steps after the call {which}. The dict holds the live tensors, so "
        "whatever is saved or loaded later is not the state of this step.",
        "`state_dict()` hands out the tensors themselves, and a copy of the dict copies no tensor. `copy.deepcopy` does.",
    )


def _instead(part: str, now: Any, then: Any, saved: _Saved) -> Finding | None:
    """What people put in the place of a state, by what it is."""
    if isinstance(now, (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)):
        return Finding(
            f"{part}-object",
            f"{part!r} is the object itself, or a copy of it, not its state.",
            f"{_HOW[part]}: what is in it survives a new version of its class.",
        )
    if callable(now):
        return Finding(f"{part}-not-called", f"{part!r} is a method, not what it returns.", f"{_HOW[part]}, with ().")
    if part == "generator":
        return _generator_instead(now, saved)
    if isinstance(now, (int, float)) and not isinstance(now, bool):
        return Finding(
            f"{part}-number",
            f"{part!r} is a number, {now:g}. The rest of its state is lost.",
            f"{_HOW[part]} is a dict: what else is in it?",
        )
    for other in PARTS[:4]:
        if other != part and equal(then, saved.right[other]):
            return Finding(
                "parts-exchanged", f"{part!r} holds the state of the {other}.", "Look at the keys and what they hold."
            )
    return None


def _generator_instead(now: Any, saved: _Saved) -> Finding | None:
    if isinstance(now, torch.Generator):
        return Finding(
            "generator-object",
            "'generator' is the generator itself: it goes on drawing, and `torch.save` refuses it.",
            _HOW["generator"],
        )
    if isinstance(now, int):
        return Finding(
            "generator-seed",
            f"'generator' is the seed, {now}: with it the draws begin again from the first. {_SYMPTOMS['generator']}",
            f"{_HOW['generator']} knows how far it has come.",
        )
    if isinstance(now, Tensor) and equal(now, torch.get_rng_state()):
        return Finding(
            "generator-global",
            "'generator' is the state of torch's global generator; this run draws from the one that was passed in. "
            f"{_SYMPTOMS['generator']}",
            _HOW["generator"],
        )
    if isinstance(now, Tensor) and equal(now, torch.Generator().manual_seed(7).get_state()):
        return Finding(
            "generator-start",
            f"'generator' is the state that the generator started from. {_SYMPTOMS['generator']}",
            f"{_HOW['generator']}, as it is at this moment.",
        )
    return None
