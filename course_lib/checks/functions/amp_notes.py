"""A loss scaler and an optimizer that take notes of what is done with them, for the exercise `amp_step`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from course_lib.optim import SGD

# What happens, in words: the events of a call.
BACKWARD, SCALE, UNSCALE, STEP, UPDATE = "backward", "scaler.scale", "scaler.unscale_", "scaler.step", "scaler.update"
BARE_STEP = "optimizer.step"  # one that the scaler did not make


@dataclass
class Notes:
    """What happens during one call of the candidate.

    Attributes:
        events: the calls, in order.
        losses: the micro-batches whose loss was computed, by number.
        factors: what reaches each of these losses in backward; 1 if a loss itself is what backward starts from.
        backwards: how many backward passes reached the weights.
        stepped: the gradients, each time the weights are updated.
        stale: gradients were left at the first backward.
        wiped: gradients were gone at a later one (finite ones: inf and NaN are set to zero for another reason).
        changed: gradients had changed from one backward to the next.
        altered: gradients had changed when they were unscaled, or the step was made on them without that.
        empty: gradients were gone by then (finite ones, too).
        autocast: a loss was computed under autocast.
    """

    events: list[str] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    backwards: int = 0
    stepped: list[list[Tensor]] = field(default_factory=list)
    stale: bool = False
    wiped: bool = False
    changed: bool = False
    altered: bool = False
    empty: bool = False
    autocast: bool = False
    _last: list[Tensor] = field(default_factory=list)
    _arrived: int = 0

    def count(self, event: str) -> int:
        """How often it happened."""
        return self.events.count(event)

    def first(self, event: str) -> int:
        """Where in the events it first happened; -1 if it did not."""
        return self.events.index(event) if event in self.events else -1

    def last(self, event: str) -> int:
        """Where in the events it last happened; -1 if it did not."""
        return max((i for i, each in enumerate(self.events) if each == event), default=-1)

    def backward(self, parameters: Sequence[Tensor], factor: float) -> None:
        """Backward has come to a loss; no gradient of this pass has arrived yet."""
        now = gradients(parameters)
        if not self.factors:
            self.stale = not _zero(now)
        elif self.backwards and _zero(now):
            self.wiped |= not _zero(self._last) and finite(self._last)
        elif self.backwards:
            self.changed |= not _equal(now, self._last)
        self.events.append(BACKWARD)
        self.factors.append(factor)

    def accumulated(self, parameters: Sequence[Tensor]) -> None:
        """A parameter has got its gradient of this pass."""
        self._arrived += 1
        if self._arrived % len(parameters) == 0:
            self.backwards += 1
            self._last = gradients(parameters)

    def looked_at(self, parameters: Sequence[Tensor]) -> None:
        """The scaler is about to unscale these, or to step on them."""
        now = gradients(parameters)
        if self.backwards:
            self.empty |= _zero(now) and not _zero(self._last) and finite(self._last)
            self.altered |= UNSCALE not in self.events and not _equal(now, self._last)


def gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the gradients that are there."""
    return [p.grad.detach().clone() for p in parameters if p.grad is not None]


def finite(now: Sequence[Tensor]) -> bool:
    """Whether these hold neither inf nor NaN."""
    return all(bool(torch.isfinite(g).all()) for g in now)


def _zero(now: list[Tensor]) -> bool:
    return not any(g.any() for g in now)


def _equal(now: list[Tensor], before: list[Tensor]) -> bool:
    return len(now) == len(before) and all(
        torch.allclose(a, b, rtol=1e-6, atol=0.0, equal_nan=True) for a, b in zip(now, before, strict=True)
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


class NotingScaler(torch.amp.GradScaler):
    """torch's scaler. What it calls itself, within ``step``, is not noted."""

    notes = Notes()
    inside = False

    def scale(self, outputs: Any) -> Any:
        self.notes.events.append(SCALE)
        return super().scale(outputs)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.inside:
            self.notes.looked_at(_parameters(optimizer))
            self.notes.events.append(UNSCALE)
        super().unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        self.notes.looked_at(_parameters(optimizer))
        self.notes.events.append(STEP)
        self.inside = True
        try:
            return super().step(optimizer, *args, **kwargs)
        finally:
            self.inside = False

    def update(self, new_scale: Any = None) -> None:
        self.notes.events.append(UPDATE)
        super().update(new_scale)


class NotingSGD(SGD):
    """An SGD whose ``scaler`` keeps the notes. (torch's own loads torch's compiler at its first step, for seconds.)"""

    scaler: NotingScaler

    def step(self, closure: Any = None) -> Any:
        if not self.scaler.inside:
            self.scaler.notes.looked_at(_parameters(self))
            self.scaler.notes.events.append(BARE_STEP)
        self.scaler.notes.stepped.append(gradients(_parameters(self)))
        return super().step(closure)
