"""How a mistake becomes a trajectory, so that a learner's numbers can be recognised among those of known mistakes.

An optimizer is a program: named formulas, evaluated in order on flat float64 vectors that hold all tensors at once.
A mistake replaces one formula or a few. Two mistakes that replace different formulas can be made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np

from course_lib.checks.problem import Problem, Values
from course_lib.checks.report import MISTAKE

Formula = Callable[[SimpleNamespace], Any]
Program = Mapping[str, Formula]

TOLERANCE = 1e-5  # of a tensor's whole movement: below it two trajectories count as the same
APART = 1e-3  # known mistakes are at least this far from the answer and from each other


@dataclass(frozen=True)
class Mistake:
    """A known way to get an optimizer wrong.

    Attributes:
        code: its stable name.
        what: completes the sentence "Your numbers are exactly those of ...".
        hint: a question or a pointer, not the answer.
        kind: ``mistake``, or ``other specification`` for what is right elsewhere.
        formulas: the formulas it replaces.
    """

    code: str
    what: str
    hint: str
    formulas: Program = field(repr=False)
    kind: str = MISTAKE


def known(code: str, what: str, hint: str, *, kind: str = MISTAKE, **formulas: Formula) -> Mistake:
    """A :class:`Mistake` with its formulas as keyword arguments."""
    return Mistake(code, what, hint, formulas, kind)


def simulate(problem: Problem, program: Program, kept: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the flat parameters after each step of ``program``.

    Names in ``kept`` (``p`` among them) live on from step to step. Where the formula ``active`` is false,
    by default where the gradient is missing, they stay as they are. Formulas read these names:

        p, g, t      parameters, gradients (zero where missing), steps taken; flat vectors
        has          where there is a gradient
        h            hyper-parameters by torch's names, each a flat vector; ``h["lr"]`` follows the schedule
        h0           the same before any change of the learning rate
        step         number of the call, from 1
        tensor       index of the tensor of each element; ``group`` likewise; ``dims`` its number of dimensions
        start        the starting values
        mean, total  functions: mean and sum over each element's tensor

    A formula ``afterwards`` is evaluated last, on what has been kept, and gives the parameters.
    """
    sizes = [value.size for value in problem.values]
    tensor = np.repeat(np.arange(len(sizes)), sizes)
    group = np.asarray(problem.group_of)[tensor]
    hyper = {}
    for name, value in problem.hypers[0].items():
        per_group = np.asarray([hyper_of[name] for hyper_of in problem.hypers], dtype=float)
        if isinstance(value, tuple):
            hyper.update({f"{name}{index}": per_group[group, index] for index in range(len(value))})
        else:
            hyper[name] = per_group[group]
    counts = np.asarray(sizes)[tensor]

    def total(x: np.ndarray) -> np.ndarray:
        return np.bincount(tensor, np.broadcast_to(x, tensor.shape), len(sizes))[tensor]

    c = SimpleNamespace(
        p=np.concatenate([value.ravel() for value in problem.values]), t=np.zeros(len(tensor)), h0=hyper,
        tensor=tensor, group=group, dims=np.asarray([value.ndim for value in problem.values])[tensor],
        total=total, mean=lambda x: total(x) / counts,
    )
    c.start = c.p
    for name in kept:
        if name not in ("p", "t"):
            setattr(c, name, np.zeros(len(tensor)))
    with np.errstate(all="ignore"):
        for number, (gradients, factor) in enumerate(zip(problem.gradients, problem.lr_factors, strict=True), 1):
            c.step = number
            c.has = np.asarray([gradient is not None for gradient in gradients])[tensor]
            c.g = np.concatenate([
                np.zeros(size) if gradient is None else gradient.ravel()
                for gradient, size in zip(gradients, sizes, strict=True)
            ])
            c.h = dict(hyper, lr=hyper["lr"] * factor)
            c.active = c.has
            old = {name: getattr(c, name) for name in (*kept, "t")}
            for name, formula in program.items():
                if name != "afterwards":
                    setattr(c, name, formula(c))
            for name, value in old.items():
                setattr(c, name, np.where(c.active, getattr(c, name), value))
            if "afterwards" in program:
                c.p = program["afterwards"](c)
            yield c.p


@dataclass(frozen=True)
class Family:
    """An optimizer's program, what it keeps, and the known ways to get it wrong."""

    program: Program
    kept: tuple[str, ...]
    mistakes: tuple[Mistake, ...]

    def trajectory(self, problem: Problem, *mistakes: Mistake) -> Iterator[np.ndarray]:
        """The flat parameters after each step, with the given mistakes made."""
        program = dict(self.program)
        for mistake in mistakes:
            program.update(mistake.formulas)
        return simulate(problem, program, self.kept)

    def recognise(self, problem: Problem, trajectory: Sequence[Values], pairs: bool = True) -> tuple[Mistake, ...]:
        """The known mistake, or pair of mistakes, whose numbers these are; empty if there is none."""
        flat = [np.concatenate([np.ravel(value) for value in values]) for values in trajectory]
        start = np.concatenate([value.ravel() for value in problem.values])
        for mistake in self.mistakes:
            if same(flat, self.trajectory(problem, mistake), start):
                return (mistake,)
        for first, second in combinations(self.mistakes, 2) if pairs else ():
            if not first.formulas.keys() & second.formulas.keys() and same(
                flat, self.trajectory(problem, first, second), start
            ):
                return (first, second)
        return ()


def same(flat: Sequence[np.ndarray], other: Iterator[np.ndarray], start: np.ndarray) -> bool:
    """True if two trajectories agree at every step within TOLERANCE of the way gone; not-a-number agrees with itself."""
    for mine, theirs in zip(flat, other, strict=True):
        finite = np.isfinite(theirs)
        gone = np.max(np.abs(theirs - start), initial=0.0, where=finite)
        with np.errstate(invalid="ignore"):
            close = np.where(finite, np.abs(mine - theirs) <= TOLERANCE * gone + 1e-12, mine == theirs)
        if not np.all(close | (np.isnan(mine) & np.isnan(theirs))):
            return False
    return True
