"""Learning-rate schedules: functions from the step to a multiplier of the base rate.

Each function here returns ``schedule(t)``, where t = 0, 1, ... counts the updates: t = 0 is the first. That is what
torch's ``LambdaLR`` and the ``schedule`` of :func:`course_lib.train.train` take. Libraries differ on two conventions:

- **Warmup** of w updates: (t + 1) / w for t < w. The first update already moves, and update t = w - 1 is the first at
  the full rate. Hugging Face's schedules use t / w: their first update has the rate 0 and does nothing.
- **The end.** A schedule of ``total`` updates would reach its floor at t = total, one after the last update, as torch's
  ``CosineAnnealingLR(T_max=total)`` and ``PolynomialLR(total_iters=total)`` do; so no update is wasted on a rate of 0.
  From there on it stays at the floor. (Torch's cosine, stepped on, climbs again.)

Every builder raises ValueError or TypeError, in a sentence, where a count is no whole number or out of its range, or a
share is not in [0, 1]; the schedules themselves where t is negative or no whole number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import index
from typing import Any

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """1 for ever."""
    return _checked(lambda t: 1.0)


def linear_warmup(warmup: int, then: Schedule | None = None) -> Schedule:
    """Rise linearly to 1 over ``warmup`` updates, then follow ``then`` from its own beginning.

    Torch: ``SequentialLR([LinearLR(start_factor=1 / warmup, total_iters=warmup - 1), then], milestones=[warmup])``.

    Args:
        warmup: updates, >= 0; 0 leaves ``then`` alone.
        then: gets t - warmup; without it the rate stays at 1.
    """
    _count("warmup", warmup, 0)
    later = constant() if then is None else then
    return _checked(lambda t: (t + 1) / warmup if t < warmup else later(t - warmup))


def cosine(total: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Warm up, then follow half a cosine from 1 down to ``floor`` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5).

    With p = (t - warmup) / (total - warmup): floor + (1 - floor) * (1 + cos(pi * p)) / 2. Without warmup it is torch's
    ``CosineAnnealingLR(T_max=total, eta_min=floor * lr)``.

    Args:
        total: updates in all, warmup included, > warmup.
        warmup: updates, >= 0.
        floor: share of the rate that is left at the end; 0.1 is usual for language models.
    """
    _share("floor", floor)
    length = _rest(total, warmup)
    return linear_warmup(warmup, lambda t: _mix(_half_cosine(min(t / length, 1.0)), floor))


def cosine_restarts(period: int, factor: int = 1, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Half a cosine again and again, each ``factor`` times as long as the one before (SGDR, arXiv 1608.03983).

    After the warmup it is torch's ``CosineAnnealingWarmRestarts(T_0=period, T_mult=factor, eta_min=floor * lr)``. Warm
    are the weights, which are kept: each restart jumps back to the full rate.

    Args:
        period: updates in the first descent, >= 1.
        factor: >= 1, whole.
        warmup: updates before the first descent, >= 0.
        floor: share of the rate that each descent aims at.
    """
    _count("period", period, 1)
    _count("factor", factor, 1)
    _share("floor", floor)

    def descents(t: int) -> float:
        if factor == 1:
            start, length = t - t % period, period
        else:  # the descents before number n take period * (factor**n - 1) / (factor - 1) updates
            start, length = 0, period
            while t >= start + length:
                start, length = start + length, length * factor
        return _mix(_half_cosine((t - start) / length), floor)

    return linear_warmup(warmup, descents)


def warmup_stable_decay(total: int, warmup: int, decay: int, floor: float = 0.0, shape: str = "linear") -> Schedule:
    """Warm up, stay at 1, and fall to ``floor`` over the last ``decay`` updates (WSD; MiniCPM, arXiv 2404.06395).

    Up to the decay nothing depends on ``total``: one long run can be continued, or finished from any of its
    checkpoints. With p = the share of the decay that is over, what is left of the rate above the floor is 1 - p
    (``"linear"``), 1 - sqrt(p) (``"sqrt"``, found best by Hägele et al. 2024, arXiv 2405.18392) or
    (1 + cos(pi * p)) / 2 (``"cosine"``).

    Args:
        total: updates in all, >= warmup + decay.
        warmup: updates, >= 0.
        decay: updates, >= 1; 10 to 20% of the run is usual.
        floor: share of the rate that is left at the end.
        shape: of the decay: ``"linear"``, ``"sqrt"`` or ``"cosine"``.
    """
    _count("total", total, 1)
    _count("warmup", warmup, 0)
    _count("decay", decay, 1)
    _share("floor", floor)
    if shape not in _SHAPES:
        raise ValueError(f"Invalid shape: {shape!r}. Allowed: {', '.join(map(repr, _SHAPES))}.")
    if warmup + decay > total:
        raise ValueError(
            f"Invalid total: {total} updates do not hold {warmup} of warmup and {decay} of decay. "
            f"Allowed: total >= {warmup + decay}."
        )
    start, left = total - warmup - decay, _SHAPES[shape]
    return linear_warmup(warmup, lambda t: 1.0 if t < start else _mix(left(min((t - start) / decay, 1.0)), floor))


def inverse_sqrt(warmup: int) -> Schedule:
    """Warm up, then fall as the inverse root of the step: sqrt(warmup / (t + 1)).

    The Transformer's schedule (Vaswani et al. 2017, arXiv 1706.03762, eq. 3) with step_num = t + 1, divided by its
    highest value, which it has at t = warmup - 1. It needs no ``total`` and never ends.

    Args:
        warmup: updates, >= 1.
    """
    _count("warmup", warmup, 1)
    return linear_warmup(warmup, lambda t: math.sqrt(warmup / (t + warmup + 1)))


def linear_to_zero(total: int, warmup: int = 0) -> Schedule:
    """Warm up, then fall linearly to 0 at t = total. Without warmup torch's ``PolynomialLR(total_iters=total)``.

    Args:
        total: updates in all, warmup included, > warmup. The last update has the rate 1 / (total - warmup).
        warmup: updates, >= 0.
    """
    length = _rest(total, warmup)
    return linear_warmup(warmup, lambda t: 1.0 - min(t / length, 1.0))


def step_decay(every: int, gamma: float) -> Schedule:
    """Multiply by ``gamma`` after every ``every`` updates: torch's ``StepLR(step_size=every, gamma=gamma)``.

    Args:
        every: updates, >= 1.
        gamma: 0 < gamma <= 1.
    """
    _count("every", every, 1)
    _share("gamma", gamma)
    if gamma == 0:
        raise ValueError("Invalid gamma: 0. Allowed: 0 < gamma <= 1; with 0 nothing is trained after the first cut.")
    return _checked(lambda t: float(gamma) ** (t // every))


def _half_cosine(progress: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return (1.0 + math.cos(math.pi * progress)) / 2.0


_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "sqrt": lambda progress: 1.0 - math.sqrt(progress),
    "cosine": _half_cosine,
}


def _mix(left: float, floor: float) -> float:
    return floor + (1.0 - floor) * left


def _rest(total: int, warmup: int) -> int:
    """How many updates come after the warmup."""
    _count("total", total, 1)
    _count("warmup", warmup, 0)
    if warmup >= total:
        raise ValueError(
            f"Invalid warmup: {warmup} of {total} updates leave none to decay in. Allowed: 0 <= warmup < total."
        )
    return total - warmup


def _checked(schedule: Schedule) -> Schedule:
    def at(t: int) -> float:
        try:
            step = index(t)
        except TypeError:
            raise TypeError(f"Invalid step: {t!r}. Allowed: a whole number >= 0, the update's number.") from None
        if step < 0:
            raise ValueError(f"Invalid step: {t!r}. Allowed: a whole number >= 0; 0 is the first update.")
        return schedule(step)

    return at


def _count(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Invalid {name}: {value!r}. Allowed: a whole number of updates >= {low}.")
    if value < low:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number of updates >= {low}.")


def _share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Invalid {name}: {value!r}. Allowed: a number from 0 to 1.")
    if not 0 <= value <= 1:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a number from 0 to 1.")
