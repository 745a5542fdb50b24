"""The problems on which a candidate's numbers are taken: starting values, groups and gradients, all in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Values = list[np.ndarray]
Hyper = Mapping[str, float | tuple[float, float]]


@dataclass(frozen=True)
class Problem:
    """What is fed to an optimizer.

    Attributes:
        values: starting values, one float64 array per tensor.
        groups: for each parameter group, the indices of its tensors.
        hypers: for each group, its hyper-parameters by torch's names.
        gradients: for each step, for each tensor, its gradient or None where it is missing.
        lr_factors: for each step, what the groups' learning rates are multiplied by.
        transposed: indices of the tensors that a candidate gets as a non-contiguous view.
        later: hyper-parameters that every group has from the middle of the run on.
    """

    values: Values
    groups: Sequence[Sequence[int]]
    hypers: Sequence[Hyper]
    gradients: Sequence[Sequence[np.ndarray | None]]
    lr_factors: Sequence[float]
    transposed: frozenset[int] = frozenset()
    later: Hyper = field(default_factory=dict)

    @property
    def middle(self) -> int:
        """The first step, counted from 0, at which the groups have ``later``'s hyper-parameters."""
        return len(self.gradients) // 2

    @property
    def group_of(self) -> list[int]:
        """For each tensor, the index of its group."""
        owner = {tensor: index for index, group in enumerate(self.groups) for tensor in group}
        return [owner[tensor] for tensor in range(len(self.values))]

    def only(self, tensors: Sequence[int], *, constant_lr: bool = True, contiguous: bool = True) -> Problem:
        """The same problem with some of its tensors, by default without the schedule and the odd memory layouts."""
        group_of = self.group_of
        kept = sorted({group_of[tensor] for tensor in tensors})
        return Problem(
            [self.values[tensor] for tensor in tensors],
            [[new for new, tensor in enumerate(tensors) if group_of[tensor] == group] for group in kept],
            [self.hypers[group] for group in kept],
            [[row[tensor] for tensor in tensors] for row in self.gradients],
            [1.0] * len(self.lr_factors) if constant_lr else self.lr_factors,
            frozenset() if contiguous else frozenset(tensors.index(tensor) for tensor in self.transposed),
        )


GROUPS = ((0, 1, 2, 3), (4, 5))
SCALES = (1.0, 0.05, 0.4, 0.01, 2.5, 0.7)  # of the gradients: from far above eps to well below it
STEPS = 12
MISSING = {(0, 1), (1, 1), (3, 5), (4, 5), (6, 3), (7, 0), (8, 4), (8, 5)}  # (step, tensor)
ALL_ZERO = {(5, 0), (2, 3)}
LR_FACTORS = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.7, 1.7, 1.7, 0.3, 0.3)


def walk(first: Hyper, second: Hyper, seed: int = 7, complete: bool = False, size: int = 3) -> Problem:
    """Two groups, six tensors, twelve steps: everything that tells one trajectory from another.

    Square tensors of equal shape within a group and across groups, one of them not contiguous; a vector, a scalar;
    gradients from far above eps to far below it; one element that stays at zero with a gradient of zero, one with a
    gradient at every other step; whole gradients of zeros, missing gradients (none if ``complete``), a learning rate
    that moves. Matrices have ``size`` rows.
    """
    rng = np.random.default_rng(seed)
    square = (size, size)
    shapes = (square, square, (), (size + 1,), square, square)
    values = [rng.uniform(0.5, 3.0, shape) * rng.choice((-1.0, 1.0), shape) for shape in shapes]
    values[0][0, 0] = 0.0
    values[3] *= 0.02
    gradients: list[list[np.ndarray | None]] = []
    drift = [rng.normal(size=shape) for shape in shapes]
    for step in range(STEPS):
        row: list[np.ndarray | None] = []
        for tensor, shape in enumerate(shapes):
            gradient = SCALES[tensor] * (0.7 * drift[tensor] + rng.normal(size=shape)) * (1.0 + step % 3)
            if tensor == 0:
                gradient[0, 0] = 0.0
                gradient[1, 1] *= step % 2
            if (step, tensor) in ALL_ZERO:
                gradient = np.zeros(shape)
            row.append(None if (step, tensor) in MISSING and not complete else np.asarray(gradient))
        gradients.append(row)
    return Problem(values, GROUPS, [first, second], gradients, LR_FACTORS, frozenset({4}))


def single(
    hyper: Hyper, steps: int, size: int = 3, scale: float = 1.0, seed: int = 11, from_zero: bool = False
) -> Problem:
    """One vector, one group, a constant learning rate and a gradient at every step; it starts around 1, or at zero."""
    rng = np.random.default_rng(seed)
    values = [rng.uniform(0.5, 2.0, size) * (not from_zero)]
    gradients = [[scale * (0.3 + rng.normal(size=size))] for _ in range(steps)]
    return Problem(values, [[0]], [hyper], gradients, [1.0] * steps)
