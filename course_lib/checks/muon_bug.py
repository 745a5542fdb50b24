"""The judge of the exercise `muon_bug`: a Muon whose momentum buffer Newton-Schulz normalises in place.

The fault shows for bfloat16 weights alone, where few digits are kept. So a candidate's steps are held against the right
ones and against those of known repairs that miss, and the nearest are what it is told, if they are near at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.guards import Guards, production_class
from course_lib.checks.report import REMARK, Finding

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEAR = 0.2  # relative to a step's norm; bf16 costs up to 0.12 here, and what is wrong is off by 0.38 or more
STEPS = 4
SHAPES = ((4, 6), (8, 3), (5, 5))
SIZES = (30.0, 1.0, 4.0, 0.1)  # of the gradients, step by step: what an average with the wrong scale gets wrong

Direction = Callable[[np.ndarray, np.ndarray, float, bool], tuple[np.ndarray, np.ndarray]]


class Setting(NamedTuple):
    """Under which arguments a candidate makes its steps."""

    dtype: torch.dtype
    nesterov: bool
    momentum: float = 0.8
    lr: float = 0.1
    weight_decay: float = 2.0

    @property
    def said(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} weights, nesterov={self.nesterov}, momentum={self.momentum}"


@dataclass(frozen=True)
class Repair:
    """A rule: the true one, or what a repair that misses makes of it. ``step`` gives update and buffer."""

    code: str
    what: str
    hint: str
    step: Direction
    scaled: bool = True
    decayed: bool = True


def _average(buffer: np.ndarray, g: np.ndarray, momentum: float) -> np.ndarray:
    return momentum * buffer + (1 - momentum) * g


def _ahead(buffer: np.ndarray, g: np.ndarray, momentum: float) -> np.ndarray:
    return momentum * buffer + (1 - momentum) * g


def _true(buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    buffer = _average(buffer, g, momentum)
    return orthogonalised(_ahead(buffer, g, momentum) if nesterov else buffer), buffer


def _normalised(buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    update, new = _true(buffer, g, momentum, nesterov)
    return update, new if nesterov else new / np.linalg.norm(new)


def _iterated_into(buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    update, new = _true(buffer, g, momentum, nesterov)
    return update, new if nesterov else update


def _always_ahead(buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    return _true(buffer, g, momentum, True)


def _no_momentum(buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    return orthogonalised(g), buffer


def _not_orthogonalised(
    buffer: np.ndarray, g: np.ndarray, momentum: float, nesterov: bool
) -> tuple[np.ndarray, np.ndarray]:
    buffer = _average(buffer, g, momentum)
    u = _ahead(buffer, g, momentum) if nesterov else buffer
    return u / np.linalg.norm(u), buffer


def orthogonalised(u: np.ndarray) -> np.ndarray:
    """Five steps of Newton-Schulz on a matrix, in float64."""
    a, b, c = COEFFICIENTS
    x = u / max(np.linalg.norm(u), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


_RIGHT = Repair("", "", "", _true)
_REPAIRS = (
    Repair(
        "buffer-normalised",
        "the momentum buffer still is divided by its norm at every step",
        "For which dtype does `.bfloat16()` make a copy, and for which does it return the very tensor? Which line "
        "then writes into it?",
        _normalised,
    ),
    Repair(
        "buffer-orthogonalised",
        "the momentum buffer is replaced by what Newton-Schulz makes of it",
        "The buffer averages gradients: nothing that is made of it belongs back into it.",
        _iterated_into,
    ),
    Repair(
        "nesterov-always",
        "every step is Nesterov's, whatever `nesterov` says: the fault does not show any more, and is not gone",
        "The look-ahead is a new tensor. Without it, which tensor is handed on?",
        _always_ahead,
    ),
    Repair(
        "no-momentum",
        "each step is made of its gradient alone: the average is not used, or was updated in a copy and not kept",
        "A copy is to be normalised, and the buffer itself is to be updated: which of the two is in `self.state`?",
        _no_momentum,
    ),
    Repair(
        "not-orthogonalised",
        "the step is the direction over its norm, without Newton-Schulz",
        "Whose result is the step made of?",
        _not_orthogonalised,
    ),
    Repair(
        "scale-lost",
        "the factor sqrt(max(1, rows / columns)) is missing",
        "Change as little as you can.",
        _true,
        scaled=False,
    ),
    Repair("decay-lost", "the weight decay is missing", "Change as little as you can.", _true, decayed=False),
)


def _gradients() -> list[list[np.ndarray]]:
    """For each step a gradient of each matrix, none of them near a matrix of lower rank: bf16 keeps few digits."""
    rng = np.random.default_rng(5)
    rows = []
    for step in range(STEPS):
        row = []
        for n, m in SHAPES:
            u, _, v = np.linalg.svd(rng.normal(size=(n, m)), full_matrices=False)
            row.append(SIZES[step] * 3 * (u * rng.uniform(0.5, 1.5, min(n, m))) @ v)
        rows.append(row)
    return rows


def _followed(rule: Repair, setting: Setting, gradients: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The weights after each step of a rule, in float64; they start at zero."""
    weights = [np.zeros_like(g) for g in gradients[0]]
    buffers = [np.zeros_like(g) for g in gradients[0]]
    path = []
    for row in gradients:
        for k, g in enumerate(row):
            update, buffers[k] = rule.step(buffers[k], g, setting.momentum, setting.nesterov)
            factor = max(1, g.shape[0] / g.shape[1]) ** 0.5 if rule.scaled else 1.0
            shrunk = weights[k] * (1 - setting.lr * setting.weight_decay * rule.decayed)
            weights[k] = shrunk - setting.lr * factor * update
        path.append([w.copy() for w in weights])
    return path


def _driven(
    candidate: Any, setting: Setting, gradients: list[list[np.ndarray]], findings: list[Finding]
) -> list[list[np.ndarray]]:
    """The weights after each step of the candidate. Adds to ``findings`` what it does to gradients and weights."""
    weights = [torch.zeros(shape, dtype=setting.dtype, requires_grad=True) for shape in SHAPES]
    with watched(f"it is constructed for {setting.said}"):
        made = candidate(
            weights,
            lr=setting.lr,
            momentum=setting.momentum,
            nesterov=setting.nesterov,
            weight_decay=setting.weight_decay,
        )
    path = []
    for number, row in enumerate(gradients, start=1):
        given = [torch.tensor(g, dtype=setting.dtype) for g in row]
        for w, g in zip(weights, given, strict=True):
            w.grad = g.clone()
        with watched(f"it makes step {number} with {setting.said}"):
            made.step()
        if any(w.grad is None or not torch.equal(w.grad, g) for w, g in zip(weights, given, strict=True)):
            findings.append(_WRITES)
        path.append([w.detach().double().numpy().copy() for w in weights])
    kept = [t for t in _states(made) if t.is_floating_point() and t.shape in SHAPES]
    if any(t.dtype.itemsize > setting.dtype.itemsize for t in kept):
        findings.append(_WIDE)
    return path


_WRITES = Finding(
    "gradient-written",
    "step() changes `p.grad`.",
    "Others may still read it. On which tensor do the operations that end in an underscore work now?",
)
_LITTLE = "Change as little as you can."
_DIVERGES = Finding(
    "not-normalised",
    "The weights are not finite: Newton-Schulz diverges for a large matrix that is not divided by its norm.",
    "The division is right, and its place is wrong: what should it work on?",
)
_WIDE = Finding(
    "state-wider",
    "For bfloat16 weights the buffer now is float32: twice the bytes. That cures the fault, too, since the cast to "
    "bfloat16 is a copy again.",
    "A copy for the time of one step does it.",
    REMARK,
)


def _states(made: Any) -> Iterator[Tensor]:
    for state in getattr(made, "state", {}).values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _off(got: list[list[np.ndarray]], want: list[list[np.ndarray]]) -> float:
    """The largest difference of a step of a matrix, relative to that step, both by their norms."""
    worst = 0.0
    zero = [np.zeros_like(w) for w in want[0]]
    for before, mine, theirs, old in zip([zero, *got], got, want, [zero, *want], strict=False):
        for a, b, c, d in zip(before, mine, theirs, old, strict=True):
            worst = max(worst, np.linalg.norm((b - a) - (c - d)) / np.linalg.norm(c - d))
    return worst


def _in_some_shapes(
    path: list[list[np.ndarray]], setting: Setting, gradients: list[list[np.ndarray]]
) -> Finding | None:
    """The fault itself, if it is left in the matrices of some shapes and the others are right."""
    right, fault = (_followed(rule, setting, gradients) for rule in (_RIGHT, _REPAIRS[0]))

    def off(k: int, want: list[list[np.ndarray]]) -> float:
        return _off([[row[k]] for row in path], [[row[k]] for row in want])

    left = [k for k in range(len(SHAPES)) if off(k, right) >= NEAR]
    if any(off(k, fault) >= NEAR for k in left):
        return None
    what = (
        f"With {setting.said}, {_REPAIRS[0].what}, for weights of shape {' and '.join(str(SHAPES[k]) for k in left)}."
    )
    return Finding(_REPAIRS[0].code, what, "The copy is needed whether a matrix is tall, wide or square.")


def _judged(candidate: Any, setting: Setting) -> list[Finding]:
    findings: list[Finding] = []
    gradients = _gradients()
    path = _driven(candidate, setting, gradients, findings)
    if not all(np.isfinite(w).all() for weights in path for w in weights):
        return [*findings, _DIVERGES]
    if _off(path, _followed(_RIGHT, setting, gradients)) < NEAR:
        return findings
    told = [(_off(path, _followed(repair, setting, gradients)), k) for k, repair in enumerate(_REPAIRS)]
    apart, k = min(told)
    if apart < NEAR:
        return [*findings, Finding(_REPAIRS[k].code, f"With {setting.said}, {_REPAIRS[k].what}.", _REPAIRS[k].hint)]
    if partly := _in_some_shapes(path, setting, gradients):
        return [*findings, partly]
    step = next(n for n in range(STEPS) if _off(path[: n + 1], _followed(_RIGHT, setting, gradients)[: n + 1]) >= NEAR)
    return [
        *findings,
        Finding(
            "wrong-steps",
            f"With {setting.said}, step {step + 1} is the first that is off by more than rounding to bfloat16 "
            f"explains.",
            "Put your class beside the suspicious one: the rule itself was right. Which lines changed?",
        ),
    ]


def judge_muon_bug(candidate: Any, progress: Callable[[str], None], *, allow_production: bool = False) -> list[Finding]:
    """All findings about a candidate for the repaired class."""
    if candidate is None or candidate is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Write the class.")]
    if not inspect.isclass(candidate):
        what = f"check needs your class itself, `RepairedMuon`; this is of type {type(candidate).__name__}."
        return [Finding("wrong-type", what, "Pass the class, without parentheses behind it.")]
    if not allow_production and (base := production_class(candidate)):
        what = f"Your class is, or builds on, {base}: then there is nothing to check."
        return [Finding("production-optimizer", what, "Mend the class of the exercise.")]
    findings: list[Finding] = []
    with Guards(watch_production=not allow_production) as guards:
        for dtype, nesterov in (
            (torch.float32, True),
            (torch.float32, False),
            (torch.bfloat16, True),
            (torch.bfloat16, False),
        ):
            setting = Setting(dtype, nesterov)
            progress(f"four steps with {setting.said}")
            try:
                findings += _judged(candidate, setting)
            except Stopped as stop:
                findings.append(stop.finding)
            findings += guards.changes()
        if all(finding.kind == REMARK for finding in findings):
            for probe in (_defaults, _own_groups, _without_gradient, _zero_gradient, _kept):
                progress(probe.__doc__ or probe.__name__)
                try:
                    findings += probe(candidate)
                except Stopped as stop:
                    findings.append(stop.finding)
                findings += guards.changes()
    return sorted(
        {finding.code: finding for finding in reversed(findings)}.values(),
        key=lambda f: (f.kind == REMARK, f.code == "wrong-steps"),
    )


_DEFAULTS = {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}


def _defaults(candidate: Any) -> list[Finding]:
    """its default arguments"""
    taken = inspect.signature(candidate).parameters
    wrong = [
        f"{name}={taken[name].default!r} instead of {value!r}"
        for name, value in _DEFAULTS.items()
        if name in taken and taken[name].default not in (value, inspect.Parameter.empty)
    ]
    if not wrong:
        return []
    return [Finding("defaults", f"Other defaults than the suspicious class's: {', '.join(wrong)}.", _LITTLE)]


def _own_groups(candidate: Any) -> list[Finding]:
    """two groups, each with its own hyper-parameters"""
    gradients = [[row[0], row[0]] for row in _gradients()]
    setting = Setting(torch.float32, False)
    for name, value in {"lr": 0.02, "momentum": 0.2, "weight_decay": 0.0, "nesterov": True}.items():
        other = setting._replace(**{name: value})
        weights = [torch.zeros(SHAPES[0], requires_grad=True) for _ in range(2)]
        given = {key: getattr(setting, key) for key in _DEFAULTS}
        path = []
        with watched(f"its second group has {name}={value} of its own"):
            made = candidate([{"params": weights[:1]}, {"params": weights[1:], name: value}], **given)
            for row in gradients:
                for w, g in zip(weights, row, strict=True):
                    w.grad = torch.tensor(g, dtype=torch.float32)
                made.step()
                path.append([w.detach().double().numpy().copy() for w in weights])
        both = [_followed(_RIGHT, s, gradients) for s in (setting, other)]
        if _off(path, [[first[0], second[1]] for first, second in zip(*both, strict=True)]) >= NEAR:
            what = (
                f"A group's own `{name}` is not used: with {name}={value} in the second of two groups, steps are wrong."
            )
            return [Finding("groups", what, f"Schedulers write into the groups. Does your class read group[{name!r}]?")]
    return []


def _one_step(candidate: Any, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """A weight of ones after a step with this gradient, beside another one that has a gradient."""
    weight, beside = (torch.ones(SHAPES[0], requires_grad=True) for _ in range(2))
    made = candidate([weight, beside], lr=0.1, momentum=0.8, nesterov=False, weight_decay=2.0)
    weight.grad, beside.grad = gradient, torch.tensor(_gradients()[0][0], dtype=torch.float32)
    made.step()
    return weight, beside


def _without_gradient(candidate: Any) -> list[Finding]:
    """a weight without a gradient"""
    with watched("one of two weights has no gradient"):
        weight, _ = _one_step(candidate, None)
    if weight.grad is None and (weight == 1).all():
        return []
    what = "A weight whose gradient is None " + ("is given one." if (weight == 1).all() else "is changed.")
    return [Finding("missing-gradient", what, f"It took no part in the step: it does not even decay. {_LITTLE}")]


def _zero_gradient(candidate: Any) -> list[Finding]:
    """a gradient of zeros"""
    with watched("a gradient is zero everywhere"):
        weight, _ = _one_step(candidate, torch.zeros(SHAPES[0]))
    if torch.allclose(weight, torch.tensor(0.8), rtol=1e-4):
        return []
    what = f"A first gradient of zeros makes a weight of 1 into {weight.detach()[0, 0]:.4g} instead of 0.8, its decay."
    return [Finding("zero-gradient", what, "By what is a matrix of zeros divided? The clamp was right.")]


def _kept(candidate: Any) -> list[Finding]:
    """what lives on from step to step: a remark if the copy that cures the fault does"""
    weight = torch.zeros(SHAPES[0], dtype=torch.bfloat16, requires_grad=True)
    with watched("its state is looked at after one step"):
        made = candidate([weight], lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
        weight.grad = torch.tensor(_gradients()[0][0], dtype=torch.bfloat16)
        made.step()
    kept = [tensor for tensor in _states(made) if tensor.shape == weight.shape]
    if len(kept) < 2:
        return []
    what = f"For each weight {len(kept)} tensors of its shape are kept now: the copy lives on."
    return [
        Finding(
            "more-state", what, "One momentum buffer is all that Muon remembers. How long is the copy needed?", REMARK
        )
    ]
