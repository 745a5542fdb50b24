"""Drive a learner's optimizer class over a problem, and turn what it raises into a finding."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.problem import Problem, Values
from course_lib.checks.report import Finding


RIGHT = 1e-6  # float64: admits a step count in float32, as torch's own capturable form keeps it


class Stopped(Exception):
    """The candidate raised. Carries the finding that says so."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


@contextmanager
def watched(doing: str):
    """Turn whatever the candidate raises inside the block into :class:`Stopped`."""
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        raise Stopped(describe(error, doing)) from None


def describe(error: BaseException, doing: str) -> Finding:
    """A finding for an exception out of the candidate's code."""
    if isinstance(error, NotImplementedError):
        return Finding(
            "blank", "There is no answer here yet: it raises NotImplementedError.", "Replace the line that raises it."
        )
    message = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
    where = _line_of(error)
    what = f"Your code raises while {doing}: {type(error).__name__}{f': {message}' if message else ''}{where}."
    if isinstance(error, SystemExit):
        return Finding(
            "exits",
            f"Your code calls exit while {doing}{where}.",
            "Your code must come back from its call; it never exits.",
        )
    if isinstance(error, KeyboardInterrupt):
        return Finding(
            "exits",
            f"Your code raises KeyboardInterrupt while {doing}{where}.",
            "Your code must come back from its call.",
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Finding(
            "memory",
            f"Your code asks for more memory than a check allows, while {doing}{where}.",
            "State should take a fixed number of bytes per parameter.",
        )
    if isinstance(error, RecursionError):
        return Finding(
            "endless", f"Your code calls itself without end while {doing}{where}.", "Which call leads back to itself?"
        )
    if "leaf Variable" in message or "a view of a leaf" in message:
        return Finding(
            "needs-no-grad", what, "Parameters require gradients: update them in place under torch.no_grad()."
        )
    if "view size is not compatible" in message:
        return Finding(
            "needs-contiguous",
            what,
            "Not every parameter is contiguous: `view(-1)` fails where `reshape` copies. Work on the tensor as it is.",
        )
    if "unexpected keyword argument" in message or "positional argument" in message:
        if where:  # raised in the candidate's body, not by its call
            hint = "The call on that line does not fit what it calls: compare its arguments, their names and order."
            return Finding("raises", what, hint)
        return Finding(
            "signature",
            what,
            "See the exercise for the arguments, their names and their order.",
        )
    return Finding("raises", what, "Read the line it names, with the shapes and types it has there.")


def _line_of(error: BaseException) -> str:
    """`` (line 7: `code`)`` of the innermost frame outside course_lib and torch, if there is one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        inside = frame.filename.replace("\\", "/")
        if "/course_lib/" in inside or "/torch/" in inside or inside.startswith("<frozen"):
            continue
        code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
        return f" (line {frame.lineno}: `{code}`)" if code else f" (line {frame.lineno})"
    return ""


def leaves(problem: Problem, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The problem's starting values as leaf tensors that require gradients, some of them non-contiguous."""
    made = []
    for index, value in enumerate(problem.values):
        if index in problem.transposed:
            tensor = torch.tensor(np.ascontiguousarray(value.T), dtype=dtype).t()
        else:
            tensor = torch.tensor(value, dtype=dtype)
        made.append(tensor.detach().requires_grad_())
    return made


class Driver:
    """A candidate on a problem: ``step(i)`` makes the i-th step, ``values()`` reads where the parameters are."""

    def __init__(
        self,
        candidate: Callable[..., Any],
        problem: Problem,
        *,
        dtype: torch.dtype = torch.float64,
        wrap: Callable[[list[Tensor]], Iterable[Tensor]] | None = None,
        **extra: Any,
    ) -> None:
        self.problem = problem
        self.parameters = leaves(problem, dtype)
        *others, last = problem.hypers  # the last group takes the constructor's arguments, the others have their own
        kwargs = dict(last, **extra)
        with watched("it is constructed"):
            if wrap is not None:
                self.optimizer = candidate(wrap(self.parameters), **kwargs)
            elif others:
                groups = [
                    {"params": [self.parameters[i] for i in tensors], **hyper}
                    for tensors, hyper in zip(problem.groups, others, strict=False)
                ]
                self.optimizer = candidate(
                    [*groups, {"params": [self.parameters[i] for i in problem.groups[-1]]}], **kwargs
                )
            else:
                self.optimizer = candidate(list(self.parameters), **kwargs)

    def set_gradients(self, step: int) -> None:
        """Give every parameter its gradient of this step, None where it is missing."""
        for parameter, gradient in zip(self.parameters, self.problem.gradients[step], strict=True):
            parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=parameter.dtype)

    def set_lr(self, step: int) -> None:
        """Change the groups' learning rates as a scheduler does, if this problem has a schedule."""
        if len(set(self.problem.lr_factors)) == 1:
            return
        groups = getattr(self.optimizer, "param_groups", None)
        if (
            not isinstance(groups, list)
            or len(groups) != len(self.problem.groups)
            or not all(isinstance(g, dict) for g in groups)
        ):
            raise Stopped(
                Finding(
                    "no-param-groups",
                    "The optimizer has no `param_groups` with one dict for each group it was given: "
                    "a scheduler writes the learning rate there.",
                    "torch.optim.Optimizer makes it for you.",
                )
            )
        for group, hyper in zip(groups, self.problem.hypers, strict=True):
            group["lr"] = hyper["lr"] * self.problem.lr_factors[step]

    def step(self, step: int) -> Any:
        """Set this step's gradients and hyper-parameters, and let the candidate make its step."""
        self.set_gradients(step)
        self.set_lr(step)
        if self.problem.later and step == self.problem.middle:
            for group in self.optimizer.param_groups:
                group.update(self.problem.later)
        with watched(f"it makes step {step + 1}"):
            return self.optimizer.step()

    def values(self) -> Values:
        """Where the parameters are, as float64 arrays."""
        return [parameter.detach().to(torch.float64).numpy().copy() for parameter in self.parameters]

    def run(self, steps: Iterable[int] | None = None) -> list[Values]:
        """Make the steps (all of them by default) and return the values after each."""
        trajectory = []
        for step in range(len(self.problem.gradients)) if steps is None else steps:
            self.step(step)
            trajectory.append(self.values())
        return trajectory


def agrees(problem: Problem, got: list[Values], expected: list[Values], tolerance: float) -> str:
    """Empty if two trajectories agree; else where they first do not, in words.

    ``tolerance`` is relative to how far the tensor has gone (and, once, to its value: rounding to the dtype).
    Not-a-number agrees with itself, and infinity with itself: a candidate that diverges still repeats itself.
    """
    for step, (mine, theirs) in enumerate(zip(got, expected, strict=True), 1):
        for tensor, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            start = problem.values[tensor]
            if a.shape != b.shape:
                return f"After step {step}, parameter {tensor} has shape {a.shape} instead of {b.shape}."
            finite = np.isfinite(b)
            gone = np.max(np.abs(b - start), initial=0.0, where=finite)
            with np.errstate(invalid="ignore"):
                close = np.where(finite, np.abs(a - b) <= tolerance * (gone + np.abs(b)), a == b)
            bad = ~(close | (np.isnan(a) & np.isnan(b)))
            if bad.any():
                index = tuple(int(i) for i in np.argwhere(bad)[0])
                at = f", element {index}" if index else ""
                return (
                    f"First at step {step}, parameter {tensor} (shape {tuple(a.shape)}){at}: "
                    f"expected {_apart(b[index], a[index])}, from {start[index]:.6g} at the start."
                )
    return ""


def _apart(expected: float, got: float) -> str:
    """Both numbers, with as many digits as it takes to tell them apart."""
    for digits in (6, 9, 12, 17):
        if f"{expected:.{digits}g}" != f"{got:.{digits}g}":
            break
    return f"{expected:.{digits}g}, got {got:.{digits}g}"
