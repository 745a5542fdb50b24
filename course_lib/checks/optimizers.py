"""The judge of a whole optimizer: its numbers first, and whose they are if they are wrong; then its conduct."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from course_lib.checks.candidate import RIGHT, Driver, Stopped, agrees
from course_lib.checks.conduct import PROBES, Watch, few_digits
from course_lib.checks.guards import Guards, production_class
from course_lib.checks.problem import Problem, Values
from course_lib.checks.reference import follow
from course_lib.checks.report import REMARK, Finding
from course_lib.checks.specs import Spec

CAUSES = ("gradient-written", "low-precision")  # told before the wrong numbers that follow from them
ROUNDED = 0.02  # what bfloat16's eight bits can do to a trajectory, roughly

Progress = Callable[[str], None]


def judge_optimizer(
    spec: Spec, candidate: Any, progress: Progress, *, allow_production: bool, blank_page: bool
) -> list[Finding]:
    """All findings about a candidate for a whole optimizer, most important first."""
    if candidate is None or candidate is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Write the class.")]
    if not inspect.isclass(candidate):
        return [
            Finding(
                "wrong-type",
                f"check needs your class itself, such as `AdamW`; this is {_kind(candidate)}.",
                "Pass the class, without parentheses behind it.",
            )
        ]
    if not allow_production and (base := production_class(candidate)):
        return [
            Finding(
                "production-optimizer",
                f"Your class is, or builds on, {base}: then there is nothing to check.",
                "Subclass torch.optim.Optimizer or ScratchOptimizer, or nothing, and write the rule yourself.",
            )
        ]
    with Guards(watch_production=not allow_production) as guards:
        findings = _numbers(spec, candidate, progress, guards)
        if any(finding.code == "blank" for finding in findings):
            return findings
        for probe in PROBES:
            progress(probe.__doc__ or probe.__name__)
            try:
                trouble = any(finding.kind != REMARK for finding in findings)
                findings += probe(spec, candidate, trouble, blank_page)
            except Stopped as stop:
                findings.append(stop.finding)
            findings += guards.changes()
    return _in_order(findings)


def _kind(value: Any) -> str:
    if isinstance(value, torch.optim.Optimizer):
        return f"an instance of {type(value).__name__}"
    return f"of type {type(value).__name__}"


def _in_order(findings: list[Finding]) -> list[Finding]:
    """In the order found, causes first, remarks last, each code once, and nothing that a mistake told beside it quotes."""
    unique = {finding.code: finding for finding in reversed(findings)}
    mistakes = [finding.what for finding in unique.values() if finding.kind != REMARK]
    kept = [
        finding
        for finding in findings
        if unique.get(finding.code) is finding
        and not any(finding.what in what for what in mistakes if what != finding.what)
    ]
    return sorted(kept, key=lambda finding: (finding.kind == REMARK, finding.code not in CAUSES))


# ------------------------------------------------------------------------------------------ the numbers


def _numbers(spec: Spec, candidate: Any, progress: Progress, guards: Guards) -> list[Finding]:
    """Whether the numbers are right on the walk, and if not, which known mistake they are."""
    progress("the walk over groups, schedules and missing gradients")
    findings: list[Finding] = []
    watch = Watch()
    try:
        driver = Driver(candidate, spec.walk)
        trajectory = watch.run(driver)
    except Stopped as stop:
        findings.append(_explained(spec, candidate, stop.finding))
        if stop.finding.code in ("blank", "exits", "memory", "endless"):
            return findings
        trajectory = None
    findings += guards.changes() + watch.findings
    if trajectory is not None:
        difference = agrees(spec.walk, trajectory, follow(spec.walk, spec.rule), RIGHT)
        if difference:
            findings[:0] = _named(spec, spec.walk, trajectory, difference) or _located(
                spec, candidate, trajectory, difference
            )
    else:
        findings += _located(spec, candidate, None, "")
    return findings


def _explained(spec: Spec, candidate: Any, finding: Finding) -> Finding:
    """The finding, or a plainer one if it fails only because the parameters come in groups, or are several."""
    if finding.code in ("blank", "exits", "memory", "endless"):
        return finding
    try:
        Driver(candidate, spec.walk)
        return _shared(spec, candidate) or finding
    except Stopped:
        pass
    try:
        Driver(candidate, spec.small)
    except Stopped:
        return finding
    return Finding(
        "no-groups",
        f"It works on a list of parameters but not on parameter groups, a list of dicts each with `params` and its own "
        f"hyper-parameters. {finding.what}",
        "torch.optim.Optimizer turns either into `self.param_groups` for you.",
    )


def _shared(spec: Spec, candidate: Any) -> Finding | None:
    """What to say if a tensor of each shape works alone and the group of them raises."""
    group = list(spec.complete_walk.groups[0])
    try:
        for tensor in group:
            Driver(candidate, spec.complete_walk.only([tensor])).run()
    except Stopped:
        return None
    try:
        Driver(candidate, spec.complete_walk.only(group)).run()
    except Stopped as stop:
        return Finding(
            "state-shared",
            "It works on each parameter alone and fails on several of different shapes: is there one tensor that all "
            f"parameters share? {stop.finding.what}",
            "Each parameter remembers something of its own, with its own shape, as `self.state[p]` does.",
        )
    return None


def _named(
    spec: Spec, problem: Problem, trajectory: list[Values], difference: str, pairs: bool = True
) -> list[Finding]:
    """The known mistake, or the pair of them, that these numbers are."""
    if all(np.array_equal(a, b) for values in trajectory for a, b in zip(values, problem.values, strict=True)):
        return [
            Finding(
                "does-not-move",
                f"Your steps do not move the parameters at all. {difference}",
                f"Do you write into the tensors you were given, or into new ones? {spec.still}".strip(),
            )
        ]
    mistakes = spec.family.recognise(problem, trajectory, pairs)
    if len(mistakes) == 2:
        first, second = mistakes
        return [
            Finding(
                first.code,
                "Your numbers are exactly those of two differences from the exercise at once. "
                f"The first: {first.what}. {difference}",
                first.hint,
                first.kind,
            ),
            Finding(second.code, f"The second: {second.what}.", second.hint, second.kind),
        ]
    return [
        Finding(m.code, f"Your numbers are exactly those of {m.what}. {difference}", m.hint, m.kind) for m in mistakes
    ]


def _stages(complete: Problem) -> Iterator[tuple[str, str, str, Problem]]:
    """From one tensor of the walk to all of it but the missing gradients: code, what differs, hint, problem."""
    everything = list(range(len(complete.values)))
    yield (
        "rule",
        "One tensor, one group, a constant learning rate: the rule itself is off.",
        "Do two steps by hand, on one number, and compare what is remembered between them.",
        complete.only([0]),
    )
    yield (
        "state-shared",
        "Right with one tensor, wrong with several: your tensors share something that each should have for itself.",
        "For how many tensors is the state made, and by what is it looked up?",
        complete.only(list(complete.groups[0])),
    )
    yield (
        "groups",
        "Right with one group, wrong with two: a group's own hyper-parameters or state are not used.",
        "Read every hyper-parameter from the group at hand, at every step; and by what is the state looked up?",
        complete.only(everything),
    )
    yield (
        "schedule",
        "Right with a constant learning rate, wrong once it changes.",
        "A scheduler writes into `param_groups`; read the learning rate from there at every step.",
        complete.only(everything, constant_lr=False),
    )
    yield (
        "needs-contiguous",
        "Right for contiguous parameters, wrong for one that is a transposed view.",
        "Work on the parameter as it is: `reshape` makes a copy of it, and raw memory has another order.",
        complete.only(everything, constant_lr=False, contiguous=False),
    )


def _located(spec: Spec, candidate: Any, trajectory: list[Values] | None, difference: str) -> list[Finding]:
    """Where the trouble begins, when the whole walk's numbers are those of no known mistake."""
    for code, what, hint, problem in _stages(spec.complete_walk):
        try:
            driver = Driver(candidate, problem)
            mine = driver.run()
        except Stopped as stop:
            return [stop.finding] if trajectory is not None else []
        right = follow(problem, spec.rule)
        there = agrees(problem, mine, right, RIGHT)
        if there:
            named = _named(spec, problem, mine, there, pairs=trajectory is None)
            near = not agrees(problem, mine, right, ROUNDED)
            if not named and near and few_digits(driver):
                return [
                    Finding(
                        "low-precision",
                        f"Nearly right: the numbers are off by less than {ROUNDED:.0%}, and what is kept from step to step "
                        f"has only the digits of a narrower type. {there}",
                        "In which dtype is the state kept, and in which is it computed?",
                    )
                ]
            return named or [
                Finding(
                    code,
                    f"{what} {there} {_shape_of_error(problem, mine, right)}".strip()
                    + f" All numbers stay within {ROUNDED:.0%} of the right ones.{spec.nearly}" * near,
                    hint,
                )
            ]
    if trajectory is None:
        return []
    return [
        Finding(
            "missing-gradient",
            f"Right as long as every gradient is there, wrong when some are missing. {difference}",
            "A parameter whose gradient is None is left as it is: its value, its moments, its step count.",
        )
    ]


def _shape_of_error(problem: Problem, mine: list[Values], right: list[Values]) -> str:
    """What the first wrong step looks like, for a mistake that is in no catalogue."""
    moved = [[np.asarray(b) - a for a, b in zip(problem.values, values, strict=True)] for values in (mine[0], right[0])]
    if not all(np.isfinite(m).all() for m in moved[0]):
        return "Your parameters are not finite after the first step."
    steps = next(n for n in range(len(mine)) if agrees(problem, mine[: n + 1], right[: n + 1], RIGHT))
    if steps:
        which = "first step is" if steps == 1 else f"first {steps} steps are"
        return f"Your {which} right; what is carried over to the next is not."
    with np.errstate(all="ignore"):
        ratios = np.concatenate([np.ravel(m / r) for m, r in zip(*moved, strict=True)])
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size and np.ptp(ratios) < 1e-6 * np.abs(ratios).max():
        return f"Your whole first step is {ratios[0]:.6g} times the right one."
    return ""
