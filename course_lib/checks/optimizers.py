"""The probes of a whole optimizer: each looks for one kind of trouble and returns what it found."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import Driver, Stopped, agrees, watched
from course_lib.checks.guards import Guards, production_class
from course_lib.checks.problem import Problem, Values, single
from course_lib.checks.reference import follow
from course_lib.checks.report import MISTAKE, REMARK, Finding
from course_lib.checks.specs import Spec

RIGHT = 1e-6  # float64: admits a step count in float32, as torch's own capturable form keeps it
SELF = 1e-9  # a candidate compared with itself
ROUNDED = 0.02  # what bfloat16's eight bits can do to a trajectory, roughly
LONG = 2000  # steps

Progress = Callable[[str], None]


def judge_optimizer(spec: Spec, candidate: Any, progress: Progress, *, allow_production: bool, blank_page: bool) -> list[Finding]:
    """All findings about a candidate for a whole optimizer, most important first."""
    if candidate is None or candidate is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Write the class.")]
    if not inspect.isclass(candidate):
        return [Finding("wrong-type", f"check needs your class itself, such as `AdamW`; this is {_kind(candidate)}.",
                        "Pass the class, without parentheses behind it.")]
    if not allow_production and (base := production_class(candidate)):
        return [Finding("production-optimizer", f"Your class is, or builds on, {base}: then there is nothing to check.",
                        "Subclass torch.optim.Optimizer or ScratchOptimizer, or nothing, and write the rule yourself.")]
    with Guards(watch_production=not allow_production) as guards:
        findings = _numbers(spec, candidate, progress, guards)
        if any(finding.code == "blank" for finding in findings):
            return findings
        for probe in _PROBES:
            progress(probe.__doc__ or probe.__name__)
            try:
                findings += probe(spec, candidate, bool(findings), blank_page)
            except Stopped as stop:
                findings.append(stop.finding)
            findings += guards.changes()
    return _in_order(findings)


def _kind(value: Any) -> str:
    if isinstance(value, torch.optim.Optimizer):
        return f"an instance of {type(value).__name__}"
    return f"a {type(value).__name__}"


def _in_order(findings: list[Finding]) -> list[Finding]:
    """In the order found, remarks last, each code once."""
    unique = {finding.code: finding for finding in reversed(findings)}
    kept = [finding for finding in findings if unique.get(finding.code) is finding]
    return sorted(kept, key=lambda finding: finding.kind == REMARK)


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
        findings.append(stop.finding)
        if stop.finding.code in ("blank", "exits", "memory", "endless"):
            return findings
        trajectory = None
    findings += guards.changes() + watch.findings
    if trajectory is not None:
        difference = agrees(spec.walk, trajectory, follow(spec.walk, spec.rule), RIGHT)
        if difference:
            findings[:0] = _named(spec, spec.walk, trajectory, difference) or _located(spec, candidate, trajectory, difference)
    else:
        findings += _located(spec, candidate, None, "")
    return findings


def _named(spec: Spec, problem: Problem, trajectory: list[Values], difference: str) -> list[Finding]:
    """The known mistake, or the pair of them, that these numbers are."""
    if all(np.array_equal(a, b) for values in trajectory for a, b in zip(values, problem.values, strict=True)):
        return [Finding("does-not-move", f"Your steps do not move the parameters at all. {difference}",
                        "Do you write into the tensors you were given, or into new ones?")]
    mistakes = spec.family.recognise(problem, trajectory)
    if len(mistakes) == 2:
        first, second = mistakes
        return [
            Finding(first.code, f"Your numbers are exactly those of two mistakes at once. The first: {first.what}. {difference}", first.hint, first.kind),
            Finding(second.code, f"The second: {second.what}.", second.hint, second.kind),
        ]
    return [Finding(m.code, f"Your numbers are exactly those of {m.what}. {difference}", m.hint, m.kind) for m in mistakes]


def _stages(walk: Problem) -> Iterator[tuple[str, str, str, Problem]]:
    """From the simplest part of the walk to the whole: code, what differs, hint, problem."""
    first_group = list(walk.groups[0])
    everything = list(range(len(walk.values)))

    def full_steps(tensors: list[int]) -> list[int]:
        return [step for step, row in enumerate(walk.gradients) if all(row[t] is not None for t in tensors)]

    yield ("rule", "One tensor, one group, a constant learning rate: the rule itself is off.",
           "Do two steps by hand, on one number, and compare what is remembered between them.", walk.only([0], full_steps([0])))
    yield ("state-shared", "Right with one tensor, wrong with several: your tensors share something that each should have for itself.",
           "For how many tensors is the state made, and by what is it looked up?", walk.only(first_group, full_steps(first_group)))
    yield ("groups", "Right with one group, wrong with two: a group's own hyper-parameters are not used.",
           "Read every hyper-parameter from the group at hand, at every step.", walk.only(everything, full_steps(everything)))
    yield ("schedule", "Right with a constant learning rate, wrong once it changes.",
           "A scheduler writes into `param_groups`; read the learning rate from there at every step.",
           walk.only(everything, full_steps(everything), constant_lr=False))


def _located(spec: Spec, candidate: Any, trajectory: list[Values] | None, difference: str) -> list[Finding]:
    """Where the trouble begins, when the whole walk's numbers are those of no known mistake."""
    for code, what, hint, problem in _stages(spec.walk):
        try:
            mine = Driver(candidate, problem).run()
        except Stopped as stop:
            return [stop.finding] if trajectory is not None else []
        there = agrees(problem, mine, follow(problem, spec.rule), RIGHT)
        if there:
            named = _named(spec, problem, mine, there)
            if not named and not agrees(problem, mine, follow(problem, spec.rule), ROUNDED):
                return [Finding("low-precision", f"Nearly right: the numbers are off by less than {ROUNDED:.0%}, as if the state or the arithmetic "
                                f"kept only a few digits. {there}", "In which dtype is the state kept? Is a small term left out?")]
            return named or [Finding(code, f"{what} {there} {_shape_of_error(problem, mine, follow(problem, spec.rule))}".strip(), hint)]
    if trajectory is None:
        return []
    return [Finding("missing-gradient", f"Right as long as every gradient is there, wrong when some are missing. {difference}",
                    "A parameter whose gradient is None is left as it is: its value, its moments, its step count.")]


def _shape_of_error(problem: Problem, mine: list[Values], right: list[Values]) -> str:
    """What the first wrong step looks like, for a mistake that is in no catalogue."""
    moved = [[np.asarray(b) - a for a, b in zip(problem.values, values, strict=True)] for values in (mine[0], right[0])]
    if not all(np.isfinite(m).all() for m in moved[0]):
        return "Your parameters are not finite after the first step."
    if agrees(problem, mine[:1], right[:1], RIGHT) == "":
        return "Your first step is right; what is carried over to the next is not."
    with np.errstate(all="ignore"):
        ratios = np.concatenate([np.ravel(m / r) for m, r in zip(*moved, strict=True)])
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size and np.ptp(ratios) < 1e-6 * np.abs(ratios).max():
        return f"Your whole first step is {ratios[0]:.6g} times the right one."
    return ""


# ------------------------------------------------------------------------------------- the other probes


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
                self._add("grad-mode", f"After step {step + 1} gradients are switched off for the whole program.",
                          "Use torch.no_grad() as a context manager or a decorator, so that it ends.")
            trajectory.append(driver.values())
        return trajectory

    def _add(self, code: str, what: str, hint: str) -> None:
        if all(finding.code != code for finding in self.findings):
            self.findings.append(Finding(code, what, hint))

    def _look(self, step: int, parameters: list[Tensor], views: list[Tensor], before: list[tuple[Tensor | None, Tensor | None]]) -> None:
        for index, (p, view, (grad, copy_of)) in enumerate(zip(parameters, views, before, strict=True)):
            where = f"Step {step + 1}, parameter {index}:"
            if p.dtype != view.dtype:
                self._add("dtype-changed", f"{where} its dtype turns from {view.dtype} into {p.dtype}.", "Update in place, in the parameter's own dtype.")
            elif p.shape != view.shape:
                self._add("shape-changed", f"{where} its shape turns from {tuple(view.shape)} into {tuple(p.shape)}.", "Which of your tensors broadcasts?")
            elif p.numel() and p.data_ptr() != view.data_ptr():
                self._add("storage-replaced", f"{where} it lives in new memory after the step, so every view of it (a flat buffer, a tied weight) is left behind.",
                          "Write into the parameter (`p.sub_(...)`, `p.copy_(...)`) instead of giving it a new tensor.")
            if not p.is_leaf or not p.requires_grad:
                self._add("not-a-leaf", f"{where} it no longer is a leaf that requires gradients: the next backward pass misses it.",
                          "Update under torch.no_grad(), and leave requires_grad alone.")
            if grad is not None and p.grad is None:
                self._add("gradient-cleared", f"{where} its gradient is None after step().", "Clearing gradients is zero_grad's job: others may still read them.")
            elif (grad is None) != (p.grad is None) or (grad is not None and not torch.equal(p.grad, copy_of)):
                self._add("gradient-written", f"{where} step() changes `p.grad`.",
                          "Which of your operations end in an underscore, and on what do they work? Make a new tensor for the modified gradient.")


def _memory(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """the state it keeps"""
    driver = Driver(candidate, spec.small)
    driver.run()
    shape, dtype = driver.parameters[0].shape, driver.parameters[0].dtype
    kept = [tensor for tensor in _tensors_in(driver.optimizer) if tensor.shape == shape]
    findings = []
    if any(tensor.grad_fn is not None for tensor in kept):
        findings.append(Finding("graph-kept", "What you remember between steps holds on to autograd's graph, which grows with every step.",
                                "Compute the whole step under torch.no_grad(); parameters require gradients."))
    narrow = [tensor.dtype for tensor in kept if tensor.is_floating_point() and tensor.dtype.itemsize < dtype.itemsize]
    if narrow:
        findings.append(Finding("precision", f"For a parameter of {dtype} you remember a tensor of {narrow[0]}.", "Make the state with zeros_like(p)."))
    return findings


def _tensors_in(value: Any, depth: int = 6) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif depth:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else vars(value).values() if hasattr(value, "__dict__") and not callable(value) else ()
        for inner in list(inside):
            yield from _tensors_in(inner, depth - 1)


def _two_instances(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """two instances side by side"""
    hint = "What is shared by all instances of your class: a class attribute, a mutable default, a global?"
    problems = [spec.small, single(spec.groups[1], steps=6, scale=0.2, seed=23)]
    try:
        alone = [Driver(candidate, problem).run() for problem in problems]
    except Stopped as stop:
        if trouble:
            raise
        return [Finding("instances-share-state", f"The first optimizer of the program works, a later one does not. {stop.finding.what}", hint)]
    together = [Driver(candidate, problem) for problem in problems]
    mine: list[list[Values]] = [[], []]
    for step in range(6):
        for driver, values in zip(together, mine, strict=True):
            driver.step(step)
            values.append(driver.values())
    for problem, a, b in zip(problems, mine, alone, strict=True):
        difference = agrees(problem, a, b, SELF)
        if difference:
            return [Finding("instances-share-state", f"Two optimizers side by side disturb each other, or one does not repeat. {difference}", hint)]
    return []


def _generator(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """parameters that come from model.parameters()"""
    listed = Driver(candidate, spec.small).run()
    try:
        drawn = Driver(candidate, spec.small, wrap=iter).run()
    except Stopped as stop:
        return [Finding("generator", f"It fails when the parameters come as a generator, as model.parameters() does. {stop.finding.what}",
                        "Make a list of the parameters before anything walks over them.")]
    difference = agrees(spec.small, drawn, listed, SELF)
    return [Finding("generator", f"`model.parameters()` is a generator: it can be walked over once, and yours is used up. {difference}",
                    "Make a list of the parameters in the constructor.")] if difference else []


def _zero_grad(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """zero_grad"""
    driver = Driver(candidate, spec.small)
    driver.step(0)
    if not callable(getattr(driver.optimizer, "zero_grad", None)):
        return [Finding("no-zero-grad", "The optimizer has no zero_grad().", "torch.optim.Optimizer gives you one.")]
    with watched("zero_grad() is called"):
        driver.optimizer.zero_grad()
    if any(p.grad is not None and p.grad.abs().max() > 0 for p in driver.parameters):
        return [Finding("zero-grad", "zero_grad() leaves gradients behind.", "Set every parameter's grad to None, or to zero.")]
    return []


def _odd_shapes(spec: Spec, candidate: Any, _trouble: bool, _blank: bool) -> list[Finding]:
    """a scalar and an empty parameter"""
    problem = Problem([np.asarray(1.5), np.zeros((0, 3))], [[0, 1]], [spec.groups[0]],
                      [[np.asarray(0.5), np.zeros((0, 3))]] * 3, [1.0] * 3)
    Driver(candidate, problem).run()
    return []


def _closure(spec: Spec, candidate: Any, _trouble: bool, blank_page: bool) -> list[Finding]:
    """step(closure)"""
    plain = Driver(candidate, spec.small)
    if not _accepts_argument(plain.optimizer.step):
        return [Finding("no-closure", "step() takes no closure; torch's does.", "`def step(self, closure=None)`.", MISTAKE if blank_page else REMARK)]
    plain.step(0)
    driver, calls = Driver(candidate, spec.small), []
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
        return [Finding("closure-no-grad", "The closure is called with gradients switched off: its backward() would fail.", hint)]
    if agrees(spec.small, [driver.values()], [plain.values()], SELF):
        return [Finding("closure-late", "The step does not use the gradients that the closure has just computed.", hint)]
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
            return [Finding(f"no-{name.replace('_', '-')}", f"The optimizer has no {name}(): training cannot resume from a checkpoint.",
                            "torch.optim.Optimizer gives you both, if your state lives in self.state and self.param_groups.", kind)]
    with watched("state_dict() is called"):
        saved = copy.deepcopy(driver.optimizer.state_dict())
    here = Problem([value.copy() for value in driver.values()], spec.small.groups, spec.small.hypers, spec.small.gradients, spec.small.lr_factors)
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
        return [Finding("resume-hyper-parameters", f"After load_state_dict the saved learning rate is not back. {resumed[0]}",
                        "state_dict holds the groups' hyper-parameters too.")]
    return [Finding("resume", f"A run that stops, saves, loads and goes on is not the run that never stopped. {resumed[-1]}",
                    "Which of the things you remember is missing in state_dict(): the moments, the step count?")]


def _maximize(spec: Spec, candidate: Any, trouble: bool, blank_page: bool) -> list[Finding]:
    """maximize"""
    if "maximize" not in _arguments(candidate):
        return [Finding("no-maximize", "There is no `maximize` argument; torch's optimizer has one.", "With maximize=True the gradient changes its sign.",
                        MISTAKE if blank_page else REMARK)]
    if trouble:
        return []
    got = Driver(candidate, spec.small, maximize=True).run()
    difference = agrees(spec.small, got, follow(spec.small, spec.rule, sign=-1.0), RIGHT)
    return [Finding("maximize", f"maximize=True does not follow the negated gradient. {difference}",
                    "Negate a copy of the gradient before anything else; the weight decay keeps its sign.")] if difference else []


def _arguments(candidate: Any) -> set[str]:
    try:
        return set(inspect.signature(candidate).parameters)
    except (TypeError, ValueError):
        return set()


def _defaults(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """its default arguments"""
    if trouble:
        return []
    problem = single(spec.defaults, steps=6)
    signature = inspect.signature(candidate).parameters
    needed = {name for name in spec.defaults if name in signature and signature[name].default is inspect.Parameter.empty}
    got = Driver(lambda params, **_: candidate(params, **{name: spec.defaults[name] for name in needed}), problem).run()
    if not agrees(problem, got, follow(problem, spec.rule), RIGHT):
        return []
    wrong = [f"{name}={signature[name].default!r} instead of {value!r}" for name, value in spec.defaults.items()
             if name in signature and name not in needed and signature[name].default not in (value, list(value) if isinstance(value, tuple) else value)]
    return [Finding("defaults", f"Made with no arguments but the parameters, it is not torch's: {', '.join(wrong) or 'some default differs'}.",
                    f"The defaults are {', '.join(f'{name}={value!r}' for name, value in spec.defaults.items())}.")]


def _options(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """arguments beyond the exercise"""
    if trouble:
        return []
    findings = []
    for name, changes in spec.options.items():
        if name not in _arguments(candidate):
            continue
        hyper = {**spec.groups[0], **changes}
        problem = single(hyper, steps=6)
        passed = {key: value for key, value in hyper.items() if key in spec.groups[0]}
        try:
            got = Driver(candidate, Problem(problem.values, problem.groups, [passed], problem.gradients, problem.lr_factors), **{name: True}).run()
            difference = agrees(problem, got, follow(problem, spec.rule), RIGHT)
        except Stopped as stop:
            difference = stop.finding.what
        if difference:
            findings.append(Finding(name, f"You offer `{name}`, which is not asked for here, and it is not torch's. {difference}", "", REMARK))
    return findings


def _long(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """thousands of steps"""
    if trouble:
        return []
    problem = single({**spec.groups[0], **{k: v for k, v in spec.defaults.items() if k in ("betas", "alpha")}}, steps=LONG)
    difference = agrees(problem, Driver(candidate, problem).run(), follow(problem, spec.rule), RIGHT)
    return [Finding("long-run", f"Right at first, wrong in the long run. {difference}",
                    "What changes with the number of steps: the step count, a power of beta, a threshold?")] if difference else []


def _edge(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """hyper-parameters at the edge of their range, gradients far from 1"""
    if trouble:
        return []
    for scale in (1e5, 1e-9):
        problem = single(spec.edge, steps=5, scale=scale)
        difference = agrees(problem, Driver(candidate, problem).run(), follow(problem, spec.rule), RIGHT)
        if difference:
            settings = ", ".join(f"{name}={value}" for name, value in spec.edge.items())
            return [Finding("edge", f"Wrong with {settings} and gradients of about {scale:g}. {difference}",
                            "Is something clipped, floored or guarded that the rule leaves alone?")]
    return []


def _precision(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """float64 parameters"""
    if trouble:
        return []
    problem = single(spec.exact, steps=4)
    got, right = Driver(candidate, problem).run(), follow(problem, spec.rule)
    if not agrees(problem, got, right, 1e-12):
        return []
    error = max(np.abs(a[0] - b[0]).max() for a, b in zip(got, right, strict=True))
    return [Finding("precision", f"float64 parameters are not updated in float64: the error is {error:.0e}, which is that of a narrower type.",
                    "Make the state with zeros_like(p), and never cast to float.")]


def _dtypes(spec: Spec, candidate: Any, trouble: bool, _blank: bool) -> list[Finding]:
    """float32 and bfloat16 parameters"""
    if trouble:
        return []
    problem = spec.small
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.2)):
        driver = Driver(candidate, problem, dtype=dtype)
        got = driver.run()
        if driver.parameters[0].dtype != dtype:
            return [Finding("dtype-changed", f"A parameter of {dtype} comes back as {driver.parameters[0].dtype}.", "Update in place.")]
        difference = agrees(problem, got, follow(problem, spec.rule), tolerance)
        if difference:
            return [Finding("dtype", f"Right in float64, wrong in {str(dtype).removeprefix('torch.')}. {difference}",
                            "Where does a number lose more digits than the parameter's dtype does?")]
    return []


# In order of weight. A probe is called as probe(spec, candidate, something was found already, blank page); those that
# compare with the reference are silent once something was found, those that compare a candidate with itself are not.
_PROBES = (
    _two_instances, _generator, _memory, _odd_shapes, _precision, _long, _edge, _dtypes, _defaults,
    _resume, _closure, _zero_grad, _maximize, _options,
)
