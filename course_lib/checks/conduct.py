"""The probes of a whole optimizer's conduct: each looks for one kind of trouble and returns what it found."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import RIGHT, Driver, Stopped, agrees, watched
from course_lib.checks.problem import Problem, Values
from course_lib.checks.reference import follow
from course_lib.checks.report import MISTAKE, REMARK, Finding
from course_lib.checks.specs import Spec

SELF = 1e-9  # a candidate compared with itself
LONG = 2000  # steps
DEFAULT_SCALES = (1.0, 1e-7)  # of the gradients: far above the default eps and near it


class Watch:
    """What must stay as it is during a step: gradients, storage, dtype, grad mode."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def run(self, driver: Driver) -> list[Values]:
        views = [parameter.detach() for parameter in driver.parameters]  # they share the storage
        trajectory = []
        for step in range(len(driver.problem.gradients)):
            driver.set_gradients(step)
            driver.set_lr(step)
            before = [(p.grad, None if p.grad is None else p.grad.clone()) for p in driver.parameters]
            with watched(f"it makes step {step + 1}"):
                driver.optimizer.step()
            if not self.findings:
                self._look(step, driver.parameters, views, before)
            if not torch.is_grad_enabled():
                torch.set_grad_enabled(True)
                self._add(
                    "grad-mode",
                    f"After step {step + 1} gradients are switched off for the whole program.",
                    "Use torch.no_grad() as a context manager or a decorator, so that it ends.",
                )
            trajectory.append(driver.values())
        return trajectory

    def _add(self, code: str, what: str, hint: str) -> None:
        if all(finding.code != code for finding in self.findings):
            self.findings.append(Finding(code, what, hint))

    def _look(
        self,
        step: int,
        parameters: list[Tensor],
        views: list[Tensor],
        before: list[tuple[Tensor | None, Tensor | None]],
    ) -> None:
        for index, (p, view, (grad, copy_of)) in enumerate(zip(parameters, views, before, strict=True)):
            where = f"Step {step + 1}, parameter {index}:"
            if p.dtype != view.dtype:
                self._add(
                    "dtype-changed",
                    f"{where} its dtype turns from {view.dtype} into {p.dtype}.",
                    "Update in place, in the parameter's own dtype.",
                )
            elif p.shape != view.shape:
                self._add(
                    "shape-changed",
                    f"{where} its shape turns from {tuple(view.shape)} into {tuple(p.shape)}.",
                    "Which of your tensors broadcasts?",
                )
            elif p.numel() and p.data_ptr() != view.data_ptr():
                self._add(
                    "storage-replaced",
                    f"{where} it lives in new memory after the step, so every view of it (a flat buffer, a tied weight) is left behind.",
                    "Write into the parameter (`p.sub_(...)`, `p.copy_(...)`) instead of giving it a new tensor.",
                )
            if not p.is_leaf or not p.requires_grad:
                self._add(
                    "not-a-leaf",
                    f"{where} it no longer is a leaf that requires gradients: the next backward pass misses it.",
                    "Update under torch.no_grad(), and leave requires_grad alone.",
                )
            if grad is not None and p.grad is None:
                self._add(
                    "gradient-cleared",
                    f"{where} its gradient is None after step().",
                    "Clearing gradients is zero_grad's job: others may still read them.",
                )
            elif (grad is None) != (p.grad is None) or (grad is not None and not torch.equal(p.grad, copy_of)):
                self._add(
                    "gradient-written",
                    f"{where} step() changes `p.grad`.",
                    "Which of your operations end in an underscore, and on what do they work? Make a new tensor for the modified gradient.",
                )


def _memory(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """the state it keeps"""
    driver = Driver(candidate, spec.small)
    driver.run()
    shape, dtype = driver.parameters[0].shape, driver.parameters[0].dtype
    kept = [tensor for tensor in tensors_in(driver.optimizer) if tensor.shape == shape]
    findings = []
    if any(tensor.grad_fn is not None for tensor in kept):
        findings.append(
            Finding(
                "graph-kept",
                "What you remember between steps holds on to autograd's graph, which grows with every step.",
                "Compute the whole step under torch.no_grad(); parameters require gradients.",
            )
        )
    elif _follows_gradients_graph(spec, candidate):
        findings.append(
            Finding(
                "graph-kept-second-order",
                "When gradients carry a graph of their own, as after backward(create_graph=True), your state holds on to it.",
                "Compute the whole step under torch.no_grad().",
                REMARK,
            )
        )
    more = _beyond(spec, driver)
    if more:
        findings.append(
            Finding(
                "more-state",
                f"For each parameter you keep {more}: the exercise asks for {spec.keeps} tensor, and nothing else.",
                "Which of these does the next step read? What is needed in one step alone is a local variable.",
                REMARK,
            )
        )
    narrow = [tensor.dtype for tensor in kept if tensor.is_floating_point() and tensor.dtype.itemsize < dtype.itemsize]
    if narrow:
        findings.append(
            Finding(
                "precision",
                f"For a parameter of {dtype} you remember a tensor of {narrow[0]}.",
                "Make the state with zeros_like(p).",
            )
        )
    elif few_digits(driver):  # in a rule that steps by signs the numbers hardly show it
        findings.append(
            Finding(
                "low-precision",
                "What is kept from step to step has only the digits of a narrower type.",
                "In which dtype is the state kept, and in which is it computed?",
            )
        )
    return findings


def _beyond(spec: Spec, driver: Driver) -> str:
    """The names in the first parameter's state where they are more than the exercise's; else empty."""
    state = getattr(driver.optimizer, "state", None)
    kept = state.get(driver.parameters[0], {}) if isinstance(state, dict) else {}
    if not spec.keeps or not isinstance(kept, dict) or len(kept) <= spec.keeps:
        return ""
    return ", ".join(f"`{name}`" for name in kept)


def _follows_gradients_graph(spec: Spec, candidate: Any) -> bool:
    driver = Driver(candidate, spec.small)
    for p in driver.parameters:
        p.grad = torch.ones_like(p, requires_grad=True) * 2
    try:
        with watched("gradients carry a graph"):
            driver.optimizer.step()
    except Stopped:
        return False
    return any(
        tensor.grad_fn is not None for tensor in tensors_in(driver.optimizer) if tensor is not driver.parameters[0].grad
    )


def tensors_in(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """The tensors in what an object holds: its attributes, and what its lists and dicts hold."""
    if isinstance(value, Tensor):
        yield value
    elif depth:
        inside = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list | tuple | set)
            else vars(value).values()
            if hasattr(value, "__dict__") and not callable(value)
            else ()
        )
        for inner in list(inside):
            yield from tensors_in(inner, depth - 1)


def few_digits(driver: Driver) -> bool:
    """True if a tensor that the candidate keeps holds nothing but numbers of a type narrower than the parameter's."""
    kept = [tensor.detach() for tensor in tensors_in(driver.optimizer) if tensor.is_floating_point()]
    telling = [tensor for tensor in kept if tensor.unique().numel() > 3]  # not a step count, not zeros and ones
    return any(torch.equal(tensor.float().double(), tensor.double()) for tensor in telling)


def _two_instances(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """two instances side by side"""
    hint = "What is shared by all instances of your class: a class attribute, a mutable default, a global?"
    problems = [spec.small, spec.single(spec.groups[1], steps=6, scale=0.2, seed=23)]
    try:
        alone = [Driver(candidate, problem).run() for problem in problems]
    except Stopped as stop:
        if trouble:
            raise
        return [
            Finding(
                "instances-share-state",
                f"The first optimizer of the program works, a later one does not. {stop.finding.what}",
                hint,
            )
        ]
    together = [Driver(candidate, problem) for problem in problems]
    mine: list[list[Values]] = [[], []]
    for step in range(6):
        for driver, values in zip(together, mine, strict=True):
            driver.step(step)
            values.append(driver.values())
    for problem, a, b in zip(problems, mine, alone, strict=True):
        difference = agrees(problem, a, b, SELF)
        if difference:
            return [
                Finding(
                    "instances-share-state",
                    f"Two optimizers side by side disturb each other, or one does not repeat. {difference}",
                    hint,
                )
            ]
    return []


def _generator(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """parameters that come from model.parameters()"""
    listed = Driver(candidate, spec.small).run()
    try:
        drawn = Driver(candidate, spec.small, wrap=iter).run()
    except Stopped as stop:
        return [
            Finding(
                "generator",
                f"It fails when the parameters come as a generator, as model.parameters() does. {stop.finding.what}",
                "Make a list of the parameters before anything walks over them.",
            )
        ]
    difference = agrees(spec.small, drawn, listed, SELF)
    return (
        [
            Finding(
                "generator",
                f"`model.parameters()` is a generator: it can be walked over once, and yours is used up. {difference}",
                "Make a list of the parameters in the constructor.",
            )
        ]
        if difference
        else []
    )


def _gradient_in_place(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """gradients that are zeroed in place"""
    # Without weight decay, so that what is worked on may be the gradient itself and not a sum made from it.
    problem = spec.single({**spec.groups[0], "weight_decay": 0.0}, steps=4)
    watch = Watch()
    fresh, again = (watch.run(Driver(candidate, problem)) for _ in range(2))
    if watch.findings or agrees(problem, again, fresh, SELF):
        return watch.findings  # where it does not repeat, that is another probe's finding
    driver, refilled = Driver(candidate, problem), []
    for step, row in enumerate(problem.gradients):
        for p, gradient in zip(driver.parameters, row, strict=True):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.zero_()
            p.grad.add_(torch.tensor(gradient))
        with watched(f"it makes step {step + 1}"):
            driver.optimizer.step()
        refilled.append(driver.values())
    difference = agrees(problem, refilled, fresh, SELF)
    return (
        [
            Finding(
                "gradient-kept",
                "What you remember between steps is the gradient's own memory. When gradients are zeroed in place, as "
                "zero_grad(set_to_none=False) does, or accumulated, the next backward() writes into it. "
                f"{difference}",
                "Which of the tensors you remember is `p.grad` under another name? Does an assignment make a copy?",
            )
        ]
        if difference
        else []
    )


def _zero_grad(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """zero_grad"""
    driver, without = Driver(candidate, spec.walk), Driver(candidate, spec.walk)
    if not callable(getattr(driver.optimizer, "zero_grad", None)):
        return [Finding("no-zero-grad", "The optimizer has no zero_grad().", "torch.optim.Optimizer gives you one.")]
    for step in range(2):
        driver.step(step)
        without.step(step)
        with watched("zero_grad() is called"):
            driver.optimizer.zero_grad()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in driver.parameters):
            return [
                Finding(
                    "zero-grad",
                    "zero_grad() leaves gradients behind.",
                    "Set every parameter's grad, in every group, to None or to zero.",
                )
            ]
    difference = agrees(spec.walk, [driver.values()], [without.values()], SELF)
    return (
        [
            Finding(
                "zero-grad-state",
                f"zero_grad() changes what is remembered between steps. {difference}",
                "It clears gradients and nothing else.",
            )
        ]
        if difference
        else []
    )


def _outside(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """parameters that others change between steps"""
    if trouble:
        return []

    def halve(p: Tensor) -> None:
        with torch.no_grad():
            p.mul_(0.5)

    def rebind(p: Tensor) -> None:
        p.data = p.data.clone()

    def freeze_first(params: list[Tensor], **kwargs: Any) -> Any:
        made = candidate([p.requires_grad_(False) for p in params], **kwargs)
        for p in params:
            p.requires_grad_()
        return made

    in_place = "was changed in place, as loading a checkpoint or clipping weights does"
    rebound = "got new memory through `p.data = ...`, as `model.to(...)` does"
    cases = [
        (freeze_first, lambda p: None, "is unfrozen after the optimizer was made", REMARK),
        (candidate, halve, in_place, MISTAKE),
        (candidate, rebind, rebound, MISTAKE),
    ]
    findings = []
    for make, change, what, kind in cases:
        values: Values = [v.copy() for v in spec.small.values]
        states: list[dict[str, Any]] = [{} for _ in values]
        try:
            driver = Driver(make, spec.small)
            for step, row in enumerate(spec.small.gradients):
                driver.step(step)
                values = [
                    spec.rule(v, g, state, dict(spec.small.hypers[0]))
                    for v, g, state in zip(values, row, states, strict=True)
                ]
                if step == 2:
                    for p in driver.parameters:
                        change(p)
                    values = [v * (0.5 if change is halve else 1.0) for v in values]
            difference = agrees(spec.small, [driver.values()], [values], RIGHT)
        except Stopped as stop:
            difference = stop.finding.what
        if difference:
            code = "outside-change" if kind == MISTAKE else "unfrozen"
            hint = "Ask the parameter itself at every step, not a copy, an address or a list made earlier."
            findings.append(Finding(code, f"Wrong once a parameter {what}.", hint, kind))
    return findings


def _not_a_number(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """a gradient that is not a number"""
    if trouble or not spec.shows_nan:
        return []
    rows = [[row[0].copy()] for row in spec.small.gradients]
    rows[1][0][0] = np.nan
    problem = Problem(spec.small.values, spec.small.groups, spec.small.hypers, rows, spec.small.lr_factors)
    got, right = Driver(candidate, problem).run(), follow(problem, spec.rule)
    if np.array_equal(np.isnan(got[-1][0]), np.isnan(right[-1][0])):
        return []
    return [
        Finding(
            "hides-nan",
            "A NaN in a gradient does not show in that element of the parameter, and there alone: a run that has diverged goes on unnoticed.",
            "torch's rule lets it through; skipping bad steps is the training loop's business.",
        )
    ]


def _positional(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """arguments by position"""
    if trouble:
        return []
    hyper = {name: spec.groups[0][name] for name in spec.defaults}
    if spec.torch_order and spec.torch_order == tuple(_arguments(candidate))[1 : len(spec.torch_order) + 1]:
        return []  # torch's own order is a choice, too
    try:
        got = Driver(lambda params, **_: candidate(params, *hyper.values()), spec.small).run()
    except Stopped:
        return []  # keyword-only arguments are a choice
    difference = agrees(spec.small, got, Driver(candidate, spec.small).run(), SELF)
    return (
        [
            Finding(
                "argument-order",
                f"Called with arguments by position it is another optimizer. {difference}",
                f"The order is params, {', '.join(hyper)}.",
            )
        ]
        if difference
        else []
    )


def _odd_shapes(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """a scalar and an empty parameter"""
    problem = Problem(
        [np.asarray(1.5), np.zeros((0, 3))],
        [[0, 1]],
        [spec.groups[0]],
        [[np.asarray(0.5), np.zeros((0, 3))]] * 3,
        [1.0] * 3,
    )
    Driver(candidate, problem).run()
    return []


def _closure(spec: Spec, candidate: Any, _trouble: bool, blank_page: bool) -> list[Finding]:
    """step(closure)"""
    plain = Driver(candidate, spec.walk)
    if not _accepts_argument(plain.optimizer.step):
        return [
            Finding(
                "no-closure",
                "step() takes no closure; torch's does.",
                "`def step(self, closure=None)`.",
                MISTAKE if blank_page else REMARK,
            )
        ]
    plain.step(0)
    driver, calls = Driver(candidate, spec.walk), []
    loss = torch.tensor(1.25)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        driver.set_gradients(0)
        return loss

    with watched("step(closure) is called"):
        returned = driver.optimizer.step(closure)
    hint = "Evaluate the closure once, first thing, with gradients enabled, and return its loss."
    if not calls:
        return [Finding("closure-ignored", "step(closure) never calls the closure.", hint)]
    if len(calls) > 1:
        return [Finding("closure-repeated", f"step(closure) calls the closure {len(calls)} times.", hint)]
    if not calls[0]:
        return [
            Finding(
                "closure-no-grad", "The closure is called with gradients switched off: its backward() would fail.", hint
            )
        ]
    if agrees(spec.walk, [driver.values()], [plain.values()], SELF):
        return [
            Finding("closure-late", "The step does not use the gradients that the closure has just computed.", hint)
        ]
    if returned is None or float(returned) != 1.25:
        return [Finding("closure-loss", f"step(closure) returns {returned!r} instead of the closure's loss.", hint)]
    return []


def _accepts_argument(step: Callable[..., Any]) -> bool:
    try:
        inspect.signature(step).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _resume(spec: Spec, candidate: Any, _trouble: bool, blank_page: bool) -> list[Finding]:
    """a checkpoint and a resume"""
    kind = MISTAKE if blank_page else REMARK
    driver = Driver(candidate, spec.small)
    driver.run(range(3))
    for name in ("state_dict", "load_state_dict"):
        if not callable(getattr(driver.optimizer, name, None)):
            return [
                Finding(
                    f"no-{name.replace('_', '-')}",
                    f"The optimizer has no {name}(): training cannot resume from a checkpoint.",
                    "torch.optim.Optimizer gives you both, if your state lives in self.state and self.param_groups.",
                    kind,
                )
            ]
    with watched("state_dict() is called"):
        saved = copy.deepcopy(driver.optimizer.state_dict())
    here = Problem(
        [value.copy() for value in driver.values()],
        spec.small.groups,
        spec.small.hypers,
        spec.small.gradients,
        spec.small.lr_factors,
    )
    onwards = driver.run(range(3, 6))
    resumed = []
    for hyper in (dict(here.hypers[0], lr=here.hypers[0]["lr"] * 7), here.hypers[0]):
        again = Driver(candidate, Problem(here.values, here.groups, [hyper], here.gradients, here.lr_factors))
        with watched("load_state_dict() is called"):
            again.optimizer.load_state_dict(copy.deepcopy(saved))
        resumed.append(agrees(here, again.run(range(3, 6)), onwards, SELF))
        if not resumed[-1]:
            break
    if not resumed[0]:
        return []
    if len(resumed) == 2 and not resumed[1]:
        return [
            Finding(
                "resume-hyper-parameters",
                f"After load_state_dict the saved learning rate is not back. {resumed[0]}",
                "state_dict holds the groups' hyper-parameters too.",
            )
        ]
    return [
        Finding(
            "resume",
            f"A run that stops, saves, loads and goes on is not the run that never stopped. {resumed[-1]}",
            "Which of the things you remember is missing in state_dict(): the moments, the step count?",
        )
    ]


def _maximize(spec: Spec, candidate: Any, trouble: bool, blank_page: bool) -> list[Finding]:
    """maximize"""
    if "maximize" not in _arguments(candidate):
        if not spec.in_torch and not blank_page:
            return []  # the signature in its statement has none
        return [
            Finding(
                "no-maximize",
                "There is no `maximize` argument; torch's optimizer has one.",
                "With maximize=True the gradient changes its sign.",
                MISTAKE if blank_page else REMARK,
            )
        ]
    if trouble:
        return []
    got = Driver(candidate, spec.small, maximize=True).run()
    difference = agrees(spec.small, got, follow(spec.small, spec.rule, sign=-1.0), RIGHT)
    return (
        [
            Finding(
                "maximize",
                f"maximize=True does not follow the negated gradient. {difference}",
                "Negate a copy of the gradient before anything else; the weight decay keeps its sign.",
            )
        ]
        if difference
        else []
    )


def _arguments(candidate: Any) -> list[str]:
    try:
        return list(inspect.signature(candidate).parameters)
    except (TypeError, ValueError):
        return []


def _defaults(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """its default arguments"""
    if trouble:
        return []
    signature = inspect.signature(candidate).parameters
    given = {name: parameter.default for name, parameter in signature.items() if name in spec.defaults}
    needed = [name for name, default in given.items() if default is inspect.Parameter.empty]
    wrong = [
        f"{name}={given[name]!r} instead of {value!r}"
        for name, value in spec.defaults.items()
        if name in given
        and name not in needed
        and given[name] not in (None, value, list(value) if isinstance(value, tuple) else value)
    ]
    for scale in DEFAULT_SCALES:
        problem = spec.single(spec.defaults, steps=6, scale=scale, from_zero=scale < 1)
        got = Driver(
            lambda params, **_: candidate(params, **{name: spec.defaults[name] for name in needed}), problem
        ).run()
        if wrong or agrees(problem, got, follow(problem, spec.rule), RIGHT):
            return [
                Finding(
                    "defaults",
                    f"Made with no arguments but the parameters, it is not {spec.whose}: {', '.join(wrong) or 'some default differs'}.",
                    f"The defaults are {', '.join(f'{name}={value!r}' for name, value in spec.defaults.items())}.",
                )
            ]
    return []


def _at_defaults(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """the hyper-parameters that are the defaults"""
    if trouble:
        return []
    for scale in DEFAULT_SCALES:
        problem = spec.single(spec.defaults, steps=6, scale=scale, from_zero=scale < 1)
        difference = agrees(problem, Driver(candidate, problem).run(), follow(problem, spec.rule), RIGHT)
        if difference:
            settings = ", ".join(f"{name}={value!r}" for name, value in spec.defaults.items())
            return [
                Finding(
                    "at-defaults",
                    f"Right with other hyper-parameters, wrong with {settings} and gradients of about {scale:g}. "
                    f"{difference}",
                    "Has a hyper-parameter of zero, or a small number, a branch of its own?",
                )
            ]
    return []


def _without_decay(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """no weight decay"""
    if trouble:
        return []
    problem = spec.single({**spec.groups[0], "weight_decay": 0.0}, steps=6)
    got = Driver(candidate, problem).run()
    difference = agrees(problem, got, follow(problem, spec.rule), RIGHT)
    if not difference:
        return []
    named = spec.family.recognise(problem, got, pairs=False)
    whose = f" Then your numbers are exactly those of {named[0].what}." if named else ""
    return [
        Finding(
            "without-decay",
            f"Right with weight decay, wrong with weight_decay=0, which is ordinary.{whose} {difference}",
            "What else happens only where weight_decay is not zero?",
        )
    ]


def _schedules(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """hyper-parameters other than lr that change during the run"""
    if trouble:
        return []
    findings = []
    unchanged = follow(spec.small, spec.rule)
    for name, value in _other_values(spec):
        problem = replace(spec.small, later={name: value})
        got = Driver(candidate, problem).run()
        difference = agrees(problem, got, follow(problem, spec.rule), RIGHT)
        code = name.replace("_", "-")
        if difference and not agrees(problem, got, unchanged, RIGHT):
            findings.append(
                Finding(
                    f"{code}-frozen",
                    f"`{name}` is read once: when it changes during the run, nothing happens. {difference}",
                    "OneCycleLR moves momentum and betas too, and weight decay has schedules of its own. "
                    "Read every hyper-parameter from the group at hand, at every step.",
                )
            )
        elif difference:
            findings.append(
                Finding(
                    f"{code}-schedule",
                    f"Right as long as `{name}` stays what it is; when it changes during the run, as OneCycleLR changes "
                    f"momentum and betas, your numbers are not {spec.whose}. {difference}",
                    "What do you remember that was made with the old value?",
                    MISTAKE if name == "weight_decay" else REMARK,  # the others may be folded into what is remembered
                )
            )
    return findings


def _other_values(spec: Spec) -> Iterator[tuple[str, Any]]:
    """The second group's values of all hyper-parameters but lr, one at a time; of a pair, one number at a time."""
    first, second = spec.groups
    for name in first:
        if isinstance(first[name], tuple):
            for index in range(len(first[name])):
                yield name, (*first[name][:index], second[name][index], *first[name][index + 1 :])
        elif name != "lr":
            yield name, second[name]


def _options(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """arguments beyond the exercise"""
    if trouble:
        return []
    findings = []
    for name, changes in spec.options.items():
        if name not in _arguments(candidate):
            continue
        hyper = {**spec.groups[0], **changes}
        problem = spec.single(hyper, steps=6)
        passed = {key: value for key, value in hyper.items() if key in spec.groups[0]}
        try:
            got = Driver(
                candidate,
                Problem(problem.values, problem.groups, [passed], problem.gradients, problem.lr_factors),
                **{name: changes[name]},
            ).run()
            difference = agrees(problem, got, follow(problem, spec.rule), RIGHT)
        except Stopped as stop:
            difference = stop.finding.what
        if difference:
            findings.append(
                Finding(
                    name,
                    f"You offer `{name}`, which is not asked for here, and it is not torch's. {difference}",
                    "",
                    REMARK,
                )
            )
    return findings


def _long(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """thousands of steps"""
    if trouble:
        return []
    problem = spec.single(
        {**spec.groups[0], **{k: v for k, v in spec.defaults.items() if k in ("betas", "alpha", "rho")}}, steps=LONG
    )
    difference = agrees(problem, Driver(candidate, problem).run(), follow(problem, spec.rule), RIGHT)
    return (
        [
            Finding(
                "long-run",
                f"Right at first, wrong in the long run. {difference}",
                "What changes with the number of steps: the step count, a power of beta, a threshold?",
            )
        ]
        if difference
        else []
    )


def _edge(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """hyper-parameters at the edge of their range, gradients far from 1"""
    if trouble:
        return []
    for scale, hyper, from_zero in (
        (1e5, spec.edge, False),
        (1e-9, spec.edge, True),
        (1.0, dict(spec.edge, lr=1.234567e-7), True),
    ):
        problem = spec.single(hyper, steps=5, scale=scale, from_zero=from_zero)
        difference = agrees(problem, Driver(candidate, problem).run(), follow(problem, spec.rule), RIGHT)
        if difference:
            settings = ", ".join(f"{name}={value}" for name, value in hyper.items())
            return [
                Finding(
                    "edge",
                    f"Wrong with {settings} and gradients of about {scale:g}. {difference}",
                    "Is something clipped, floored, rounded or guarded that the rule leaves alone?",
                )
            ]
    return []


def _precision(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """float64 parameters"""
    if trouble:
        return []
    problem = spec.single(spec.exact, steps=4)
    got, right = Driver(candidate, problem).run(), follow(problem, spec.rule)
    if not agrees(problem, got, right, 1e-12):
        return []
    error = max(np.abs(a[0] - b[0]).max() for a, b in zip(got, right, strict=True))
    return [
        Finding(
            "precision",
            f"float64 parameters are not updated in float64: the error is {error:.0e}, which is that of a narrower type.",
            "Make the state with zeros_like(p), and never cast to float.",
        )
    ]


def _dtypes(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """float32 and bfloat16 parameters"""
    if trouble:
        return []
    problem = spec.small
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.2)):
        driver = Driver(candidate, problem, dtype=dtype)
        got = driver.run()
        if driver.parameters[0].dtype != dtype:
            return [
                Finding(
                    "dtype-changed",
                    f"A parameter of {dtype} comes back as {driver.parameters[0].dtype}.",
                    "Update in place.",
                )
            ]
        difference = agrees(problem, got, follow(problem, spec.rule), tolerance)
        if difference:
            return [
                Finding(
                    "dtype",
                    f"Right in float64, wrong in {str(dtype).removeprefix('torch.')}. {difference}",
                    "Where does a number lose more digits than the parameter's dtype does?",
                )
            ]
    return []


# In order of weight. A probe is called as probe(spec, candidate, is more than a remark found, blank page); those that
# compare with the reference are silent once something was found, those that compare a candidate with itself are not.
PROBES = (
    _two_instances,
    _gradient_in_place,
    _generator,
    _memory,
    _odd_shapes,
    _precision,
    _without_decay,
    _at_defaults,
    _schedules,
    _long,
    _edge,
    _dtypes,
    _outside,
    _not_a_number,
    _defaults,
    _positional,
    _resume,
    _closure,
    _zero_grad,
    _maximize,
    _options,
)
