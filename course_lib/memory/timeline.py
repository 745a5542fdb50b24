"""Bytes of every live tensor over time, by what they are for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "temporaries")


@dataclass
class Holding:
    """One storage: who asked for it and how much it holds.

    Attributes:
        nbytes: bytes of the storage. Views share one.
        made_by: the operation (``aten.mm.default``), or "before" for what was there when the measurement began.
        shape, dtype: of the first tensor seen on it.
        category: one of ``CATEGORIES``.
    """

    nbytes: int
    made_by: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    category: str = "temporaries"


@dataclass
class Timeline:
    """Bytes of every live tensor, event by event; an event is a storage that appears or goes.

    Attributes:
        phases: ``(step, phase, event)`` in order: the number of the step, from 0; "forward", "backward", "step" or
            "zero_grad"; and the index in the series of the first event that belongs to it.
        cuda_allocated: ``torch.cuda.memory_allocated()`` at the end; None where the model is not on CUDA.
        cuda_peak: ``torch.cuda.max_memory_allocated()`` over the measurement; None likewise.
    """

    phases: list[tuple[int, str, int]] = field(default_factory=list)
    cuda_allocated: int | None = None
    cuda_peak: int | None = None
    _holdings: list[Holding] = field(default_factory=list, repr=False)
    _events: list[tuple[int, int]] = field(default_factory=list, repr=False)  # (index of the holding, +1 or -1)
    _before: int = 0  # events that only say what was there already

    def series(self) -> dict[str, np.ndarray]:
        """int64 (events + 1,) for each category: bytes before the first event, and after each."""
        index = np.array([holding for holding, _ in self._events], dtype=np.int64)
        sign = np.array([sign for _, sign in self._events], dtype=np.int64)
        sizes = np.array([holding.nbytes for holding in self._holdings], dtype=np.int64)
        kinds = np.array([CATEGORIES.index(holding.category) for holding in self._holdings], dtype=np.int64)
        change = sign * sizes[index]
        first = self._before - 1
        return {
            name: np.cumsum(np.where(kinds[index] == kind, change, 0))[first:] for kind, name in enumerate(CATEGORIES)
        }

    def total(self) -> np.ndarray:
        """int64 (events + 1,): bytes of all categories together."""
        return np.sum(list(self.series().values()), axis=0)

    @property
    def peak_event(self) -> int:
        """Index in the series of the highest total; the first of equals."""
        return int(self.total().argmax())

    @property
    def peak_total(self) -> int:
        """The highest total in bytes."""
        return int(self.total().max())

    @property
    def peak(self) -> dict[str, int]:
        """Bytes by category at the highest total."""
        event = self.peak_event
        return {name: int(values[event]) for name, values in self.series().items()}

    @property
    def peak_phase(self) -> tuple[int, str]:
        """Step and phase of the highest total."""
        event = max(self.peak_event, 1)  # what was there before belongs to the first phase
        return next((step, phase) for step, phase, first in reversed(self.phases) if first <= event)

    def after(self, step: int, phase: str) -> dict[str, int]:
        """Bytes by category at the end of a phase (of the last one, where a step has several micro-batches).

        Raises:
            ValueError: the measurement has no such step or phase.
        """
        found = [index for index, entry in enumerate(self.phases) if entry[:2] == (step, phase)]
        if not found:
            steps = sorted({entry[0] for entry in self.phases})
            names = list(dict.fromkeys(entry[1] for entry in self.phases))
            raise ValueError(
                f"There is no phase {phase!r} of step {step!r}. Steps are {steps[0]} to {steps[-1]}, phases {names}."
            )
        following = found[-1] + 1
        series = self.series()
        end = self.phases[following][2] - 1 if following < len(self.phases) else len(series["parameters"]) - 1
        return {name: int(values[end]) for name, values in series.items()}

    def live(self, event: int | None = None) -> list[Holding]:
        """What is alive after an event (an index in the series; by default the peak), the largest first."""
        event = self.peak_event if event is None else range(len(self._events) - self._before + 1)[event]
        alive: dict[int, None] = {}
        for holding, sign in self._events[: self._before + event]:
            if sign > 0:
                alive[holding] = None
            else:
                del alive[holding]
        return sorted((self._holdings[index] for index in alive), key=lambda holding: -holding.nbytes)
