"""A learning rate that was tuned until its optimum lay inside the grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sweep:
    """Losses over learning rates.

    Attributes:
        losses: final loss by learning rate, in ascending order of the rate; inf where a run diverged.
    """

    losses: dict[float, float]

    @property
    def lr(self) -> float:
        """The learning rate of the lowest loss; of several equal ones the smallest."""
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def loss(self) -> float:
        """The lowest loss."""
        return self.losses[self.lr]

    @property
    def inside(self) -> bool:
        """Whether rates on both sides of the best one were tried, so that a wider grid need not find a better one."""
        rates = list(self.losses)
        return rates[0] < self.lr < rates[-1]


def tune(final_loss: Callable[[float], float], lr: float, *, factor: float = 2.0, most: int = 16) -> Sweep:
    """Try learning rates ``lr * factor**k`` around ``lr``, and go on where the best one lies on the edge.

    The search ends when a rate on each side of the best one was tried: it finds a local optimum, which is the global
    one where the loss first falls and then rises with the rate.

    Args:
        final_loss: ``final_loss(rate)`` trains anew and returns the loss; NaN counts as inf, a run that diverged.
        lr: where to begin, > 0 and finite.
        factor: between neighbouring rates, > 1.
        most: runs after which to stop; the optimum may then lie on the edge, which :attr:`Sweep.inside` tells. At
            least 3.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 < lr < math.inf:
        raise ValueError(f"Invalid lr: {lr!r}. Allowed: a learning rate > 0 to begin with, and finite.")
    if not 1 < factor < math.inf:
        raise ValueError(f"Invalid factor: {factor!r}. Allowed: a number > 1, such as 2.")
    if isinstance(most, bool) or not isinstance(most, int) or most < 3:
        raise ValueError(f"Invalid most: {most!r}. Allowed: a whole number >= 3, for a rate on each side.")
    tried: dict[int, float] = {}

    def run(power: int) -> None:
        loss = float(final_loss(lr * factor**power))
        tried[power] = math.inf if math.isnan(loss) else loss

    for power in (-1, 0, 1):
        run(power)
    while len(tried) < most:
        best = min(sorted(tried), key=tried.__getitem__)
        # Where everything diverges, the way out is down.
        if best == min(tried) or tried[best] == math.inf:
            run(min(tried) - 1)
        elif best == max(tried):
            run(best + 1)
        else:
            break
    return Sweep({lr * factor**power: tried[power] for power in sorted(tried)})
