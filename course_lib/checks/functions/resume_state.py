"""The exercise `resume_state`: what a checkpoint needs, so that the resumed run is the one that never stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Progress, not_a_function
from course_lib.checks.guards import Guards
from course_lib.checks.report import Finding
from course_lib.optim import AdamW  # torch's own loads torch's compiler at its first step, for seconds

PARTS = ("model", "optimizer", "scheduler", "scaler", "generator")
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


class _Run:
    """A small training run: batch norm, AdamW, a schedule, a loss scaler, and batches drawn from a generator."""

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
        for parameter in self.model.parameters():
            parameter.data.copy_(torch.tensor(rng.normal(size=parameter.shape)))
        self.optimizer = AdamW(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + 0.1 * step))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=3)
        self.generator = torch.Generator().manual_seed(7)

    def step(self) -> dict[str, Any]:
        """One step; what a training log would say of it."""
        x = torch.randn(8, 4, generator=self.generator)
        target = (x[:, :1] - 2 * x[:, 1:2]).detach()
        lr = self.scheduler.get_last_lr()[0]
        loss = ((self.model(x) - target) ** 2).mean()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return {"batch": x, "loss": loss.item(), "learning rate": lr, "scale": self.scaler.get_scale()}

    def steps(self, count: int) -> list[dict[str, Any]]:
        return [self.step() for _ in range(count)]

    def save(self, function: Callable[..., Any]) -> Any:
        return function(self.model, self.optimizer, self.scheduler, self.scaler, self.generator)

    def load(self, part: str, state: Any) -> None:
        """Load one part, as a resume does."""
        if part == "generator":
            self.generator.set_state(state)
        else:
            getattr(self, part).load_state_dict(state)


def _right(model: Any, optimizer: Any, scheduler: Any, scaler: Any, generator: Any) -> dict[str, Any]:
    objects = (model, optimizer, scheduler, scaler)
    states = {part: copy.deepcopy(each.state_dict()) for part, each in zip(PARTS, objects, strict=False)}
    return states | {"generator": generator.get_state().clone()}


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts and lists, with where it stands."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _tensors(each, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _tensors(each, f"{path}[{index}]")


def _equal(one: Any, other: Any) -> bool:
    """Whether two states hold the same."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor)
            and isinstance(other, Tensor)
            and one.shape == other.shape
            and one.dtype == other.dtype
            and torch.equal(one, other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def judge_resume_state(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: a run is saved, goes on, and a fresh one resumes from what was saved."""
    if findings := not_a_function(candidate):
        return findings
    with Guards(watch_production=False) as guards:
        try:
            findings = _judged(candidate, progress)
        except Stopped as stop:
            findings = [stop.finding]
        findings += guards.changes()
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
    run, control = _Run(), _Run()
    run.steps(BEFORE), control.steps(BEFORE)
    right = control.save(_right)
    with watched("it is called with a run after some steps"):
        state = run.save(candidate)
    if not isinstance(state, dict):
        kind = "None" if state is None else f"something of type {type(state).__name__}"
        hint = "Does every path through the function end in a return?" if state is None else "Return one dict."
        return [Finding("wrong-result", f"The function returns {kind} instead of a dict.", hint)]
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
    return list(_faults(saved))


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
    run = _Run(seed=2)
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
            f"With your {part!r}, {told}. {_where(part, then, right)}",
            f"What {_HOW[part]} returns, with nothing rounded and nothing left out.",
        )
    elif not _equal(now, then):
        yield _aliased(part, now, then)


def _where(part: str, got: Any, want: Any) -> str:
    """Which tensor, or which entry, of a state is not what it should be."""
    theirs = dict(_tensors(got, part))
    for path, tensor in _tensors(want, part):
        if path not in theirs:
            return f"There is no {path}."
        if theirs[path].dtype != tensor.dtype:
            return f"{path} is {theirs[path].dtype} instead of {tensor.dtype}."
        if not _equal(theirs[path], tensor):
            return f"{path} holds other numbers."
    if isinstance(got, dict) and isinstance(want, dict):
        for key, value in want.items():
            if key not in got or not _equal(got[key], value):
                return f"{part}[{key!r}] is {got.get(key, 'missing')!r} instead of {value!r}."[:200]
    return ""


def _aliased(part: str, now: Any, then: Any) -> Finding:
    before = dict(_tensors(then, part))
    paths = [path for path, tensor in _tensors(now, part) if not _equal(tensor, before.get(path))]
    which = f"{len(paths)} of {len(before)} tensors have changed, {paths[0]} first" if paths else "it has changed"
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
        if other != part and _equal(then, saved.right[other]):
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
    if isinstance(now, Tensor) and _equal(now, torch.get_rng_state()):
        return Finding(
            "generator-global",
            "'generator' is the state of torch's global generator; this run draws from the one that was passed in. "
            f"{_SYMPTOMS['generator']}",
            _HOW["generator"],
        )
    if isinstance(now, Tensor) and _equal(now, torch.Generator().manual_seed(7).get_state()):
        return Finding(
            "generator-start",
            f"'generator' is the state that the generator started from. {_SYMPTOMS['generator']}",
            f"{_HOW['generator']}, as it is at this moment.",
        )
    return None
