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
APART = 5e-4  # known mistakes are at least this far from the answer and from each other


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


class Simulation:
    """A program, step by step, on flat float64 vectors that hold all tensors at once.

    Names in ``kept`` (``p`` among them) live on from step to step. Where the formula ``active`` is false,
    by default where the gradient is missing, they stay as they are. Formulas read these names:

        p, g, t      parameters, gradients (zero where missing), steps taken; flat vectors
        has          where there is a gradient
        h            hyper-parameters by torch's names, each a flat vector; pairs as betas0, betas1
        h0           the same as they were at the start, before any change of the learning rate
        step         number of the call, from 1
        tensor       index of the tensor of each element; ``group`` likewise; ``dims`` its number of dimensions
        start        the starting values
        mean, total  functions: mean and sum over each element's tensor; ``row_mean`` over its row, the last axis

    A formula ``afterwards`` is evaluated last, on what has been kept, and gives the parameters.
    """

    def __init__(self, layout: Layout, program: Program, kept: Sequence[str]) -> None:
        self._program = program
        self._kept = (*kept, "t")
        self.values = c = SimpleNamespace(**vars(layout), step=0, p=layout.start)
        for name in self._kept:
            if name != "p":
                setattr(c, name, layout.zeros)

    def step(self, has: np.ndarray, gradient: np.ndarray, hyper: dict[str, np.ndarray]) -> np.ndarray:
        """Make one step and return the flat parameters."""
        c = self.values
        c.step += 1
        c.has, c.g, c.h, c.active = has, gradient, hyper, has
        old = [(name, getattr(c, name)) for name in self._kept]
        with np.errstate(all="ignore"):
            for name, formula in self._program.items():
                if name != "afterwards":
                    setattr(c, name, formula(c))
            for name, value in old:
                setattr(c, name, np.where(c.active, getattr(c, name), value))
            if "afterwards" in self._program:
                c.p = self._program["afterwards"](c)
        return c.p


class Layout:
    """What does not change from step to step: which element belongs to which tensor and group."""

    def __init__(self, values: Values, group_of: Sequence[int], hypers: Sequence[Mapping[str, Any]]) -> None:
        sizes = np.asarray([value.size for value in values])
        self.tensor = np.repeat(np.arange(len(sizes)), sizes)
        self.group = np.asarray(group_of, dtype=int)[self.tensor]
        self.dims = np.asarray([value.ndim for value in values], dtype=int)[self.tensor]
        self.start = np.concatenate([value.ravel() for value in values])
        self.zeros = np.zeros(len(self.tensor))
        self.h0 = self.flat(hypers)
        self.total = lambda x: np.bincount(self.tensor, np.broadcast_to(x, self.tensor.shape), len(sizes))[self.tensor]
        self.mean = lambda x: self.total(x) / sizes[self.tensor]
        widths = np.asarray([value.shape[-1] if value.ndim else 1 for value in values])
        rows = np.concatenate([np.arange(value.size) // width for value, width in zip(values, widths, strict=True)]).astype(int)
        _, self.row = np.unique(np.stack([self.tensor, rows]), axis=1, return_inverse=True)
        self.row_mean = lambda x: np.bincount(self.row, np.broadcast_to(x, self.row.shape))[self.row] / widths[self.tensor]

    def flat(self, hypers: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Each hyper-parameter as a vector over the elements; a pair becomes two, name0 and name1."""
        vectors = {}
        for name, value in hypers[0].items():
            column = np.asarray([hyper[name] for hyper in hypers], dtype=float)
            if isinstance(value, tuple | list):
                vectors.update({f"{name}{index}": column[self.group, index] for index in range(len(value))})
            else:
                vectors[name] = column[self.group]
        return vectors


class Feed:
    """A problem in flat form, prepared once for the many simulations that recognising takes."""

    def __init__(self, problem: Problem) -> None:
        self.layout = layout = Layout(problem.values, problem.group_of, problem.hypers)
        self.rows = []
        for gradients, factor in zip(problem.gradients, problem.lr_factors, strict=True):
            has = np.asarray([gradient is not None for gradient in gradients])[layout.tensor]
            flat = np.concatenate([
                np.zeros(value.size) if gradient is None else gradient.ravel()
                for gradient, value in zip(gradients, problem.values, strict=True)
            ])
            self.rows.append((has, flat, dict(layout.h0, lr=layout.h0["lr"] * factor)))


@dataclass(frozen=True)
class Family:
    """An optimizer's program, what it keeps, and the known ways to get it wrong."""

    program: Program
    kept: tuple[str, ...]
    mistakes: tuple[Mistake, ...]

    def trajectory(self, feed: Feed, *mistakes: Mistake) -> Iterator[np.ndarray]:
        """The flat parameters after each step, with the given mistakes made."""
        simulation = self.simulation(feed.layout, *mistakes)
        for row in feed.rows:
            yield simulation.step(*row)

    def simulation(self, layout: Layout, *mistakes: Mistake) -> Simulation:
        """The optimizer at its start, with the given mistakes made."""
        program = dict(self.program)
        for mistake in mistakes:
            program.update(mistake.formulas)
        return Simulation(layout, program, self.kept)

    def recognise(self, problem: Problem, trajectory: Sequence[Values], pairs: bool = True) -> tuple[Mistake, ...]:
        """The known mistake, or (with ``pairs``) two of them, whose numbers these are; empty if there is none."""
        feed = Feed(problem)
        flat = [np.concatenate([np.ravel(value) for value in values]) for values in trajectory]
        if same(flat, self.trajectory(feed), feed.layout.start):
            return ()  # all but right: here it would be any mistake that this problem does not show
        for mistake in self.mistakes:
            if same(flat, self.trajectory(feed, mistake), feed.layout.start):
                return (mistake,)
        if not pairs or not all(np.isfinite(values).all() for values in flat):
            return ()  # too many pairs end in not-a-number to tell them apart
        for first, second in combinations(self.mistakes, 2):
            if not first.formulas.keys() & second.formulas.keys() and same(
                flat, self.trajectory(feed, first, second), feed.layout.start
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
