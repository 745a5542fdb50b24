"""Which run comes next: the same budget for every optimizer, a grid that grows while its best rate is at an edge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from course_lib.benchmark.records import Log, Run
from course_lib.benchmark.settings import find

RATES = 7
"""Learning rates in the first grid, each twice the one before."""
FURTHER = 8
"""By how many rates a grid may grow on either side; beyond, the table says that the best lies at the edge."""
TUNING_SEED = 0
FEWEST_SEEDS, MOST_SEEDS = 2, 30


@dataclass(frozen=True)
class Request:
    """A run to be made."""

    key: str
    lr: float
    seed: int


@dataclass(frozen=True)
class Tuning:
    """The grid of one optimizer as far as it was tried.

    Attributes:
        rates: ascending.
        losses: of the tuning seed on the tuning text, infinite where the run diverged.
        best: the rate of the lowest loss.
        edge: "low", "high" or None: whether the best is at an end of what was tried.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float
    edge: str | None


def valid(runs: Iterable[Run], key: str) -> list[Run]:
    """The runs of an optimizer that were made with its present setting, none twice."""
    setting, found = find(key).describe(), {}
    for run in runs:
        if run.key == key and run.setting == setting:
            found.setdefault((run.lr, run.seed), run)
    return list(found.values())


def tuning(runs: Iterable[Run], key: str) -> Tuning | None:
    """What is known about an optimizer's rates; None where not one was tried."""
    tried = {
        run.lr: math.inf if run.tuning is None else run.tuning for run in valid(runs, key) if run.seed == TUNING_SEED
    }
    if not tried:
        return None
    rates = tuple(sorted(tried))
    best = min(rates, key=lambda rate: (tried[rate], rate))  # the lowest rate, where all of them diverged
    edge = "low" if best == rates[0] else "high" if best == rates[-1] else None
    return Tuning(rates, tuple(tried[rate] for rate in rates), best, edge)


def next_run(runs: Sequence[Run], key: str, seeds: int) -> Request | None:
    """The next run of an optimizer, or None where all are made.

    First the grid of ``RATES`` rates around the setting's own, each twice the one before, with the tuning seed; then,
    while the best rate is at an edge, the rate beyond it; then the best rate with the seeds 1 to ``seeds``.
    """
    middle, half = find(key).rate, RATES // 2
    known = tuning(runs, key)
    tried = known.rates if known else ()
    for power in range(-half, half + 1):
        if middle * 2.0**power not in tried:
            return Request(key, middle * 2.0**power, TUNING_SEED)
    low, high = middle * 2.0 ** -(half + FURTHER), middle * 2.0 ** (half + FURTHER)
    if known.edge == "low" and known.best > low:
        return Request(key, known.best / 2, TUNING_SEED)
    if known.edge == "high" and known.best < high:
        return Request(key, known.best * 2, TUNING_SEED)
    made = {run.seed for run in valid(runs, key) if run.lr == known.best}
    missing = [seed for seed in range(1, seeds + 1) if seed not in made]
    return Request(key, known.best, missing[0]) if missing else None


def count(runs: Sequence[Run], keys: Sequence[str], seeds: int) -> tuple[int, int]:
    """Runs that are made and runs in all, as far as can be known before the grids have stopped growing."""
    made = total = 0
    for key in keys:
        known = tuning(runs, key)
        tried = len(known.rates) if known else 0
        final = {run.seed for run in valid(runs, key) if known and run.lr == known.best} & set(range(1, seeds + 1))
        made += tried + len(final)
        total += max(tried, RATES) + seeds
    return made, total


def carry_on(log: Log, keys: Sequence[str], seeds: int, run: Callable[..., Run]) -> Iterator[Run]:
    """Make all runs that the file lacks, one optimizer after the other; each is written down, then yielded.

    Args:
        log: the file.
        keys: optimizers.
        seeds: runs at the best rate, 2 to 30.
        run: :func:`course_lib.benchmark.runner.run_one`.
    """
    check_seeds(seeds)
    steps = log.results.head["steps"]
    for key in keys:
        while (request := next_run(log.results.runs, key, seeds)) is not None:
            made = run(request.key, request.lr, request.seed, steps)
            log.add(made)
            yield made


def check_seeds(seeds: Any) -> None:
    """Raise ValueError unless an interval can be computed from this number of seeds."""
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not FEWEST_SEEDS <= seeds <= MOST_SEEDS:
        raise ValueError(f"Invalid seeds: {seeds!r}. Allowed: a whole number from {FEWEST_SEEDS} to {MOST_SEEDS}.")


def set_apart(runs: Iterable[Run], keys: Sequence[str]) -> dict[str, int]:
    """How many runs of each of these optimizers were made with another setting than its present one."""
    runs = list(runs)
    apart = {key: sum(run.key == key and run.setting != find(key).describe() for run in runs) for key in keys}
    return {key: number for key, number in apart.items() if number}
