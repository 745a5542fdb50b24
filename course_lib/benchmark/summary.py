"""What the runs say: means with intervals, differences to AdamW, bytes and time, as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.benchmark.plan import TUNING_SEED, Tuning, tuning, valid
from course_lib.benchmark.records import Results, Run
from course_lib.optim import REGISTRY

BASE = "adamw"

# Student's t, 97.5% quantile, for 1 to 29 degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
      2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95% interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}"


@dataclass(frozen=True)
class Row:
    """One optimizer's results.

    Attributes:
        key, name: of the registry.
        tuning: the rates that were tried.
        losses: nats per byte on the held-out text by seed; None where the run diverged.
        loss: their mean; None where a run diverged or there are fewer than two.
        difference: the mean of loss - AdamW's loss over the seeds of both, paired; None where that cannot be computed.
            The seed draws the weights and the batches, so that most of the spread between seeds cancels.
        bytes_per_parameter: of state, in a float32 matrix of 1024 x 4096.
        time: of one training step, AdamW's in the same measurement being 1; None where it was not measured.
    """

    key: str
    name: str
    tuning: Tuning
    losses: dict[int, float | None]
    loss: Interval | None
    difference: Interval | None
    bytes_per_parameter: float
    time: float | None


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% interval by Student's t, which takes the values to be independent and about normal.

    Args:
        values: 2 to 30.

    Raises:
        ValueError: they are fewer or more.
    """
    if not 2 <= len(values) <= len(_T) + 1:
        raise ValueError(f"Invalid values: {len(values)} of them. Allowed: 2 to {len(_T) + 1}.")
    return Interval(statistics.fmean(values), _T[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values)))


def rows(results: Results) -> list[Row]:
    """One row for each optimizer that has a run, the lowest loss first, those without a mean last."""
    keys = [key for key in REGISTRY if any(run.key == key for run in results.runs)]
    final = {key: _final(results.runs, key) for key in keys}
    base = final.get(BASE, {})
    found = []
    for key in keys:
        grid = tuning(results.runs, key)
        if grid is None:
            continue
        losses = {seed: run.loss for seed, run in final[key].items()}
        shared = [seed for seed in losses if seed in base]
        pairs = [(losses[seed], base[seed].loss) for seed in shared]
        found.append(
            Row(
                key,
                REGISTRY[key].name,
                grid,
                losses,
                _mean(list(losses.values())),
                _mean([None if None in pair else pair[0] - pair[1] for pair in pairs]) if key != BASE else None,
                valid(results.runs, key)[-1].bytes_per_parameter,
                _ratio(results.times, key),
            )
        )
    return sorted(found, key=lambda row: math.inf if row.loss is None else row.loss.mean)


def table(results: Results) -> str:
    """The rows as a Markdown table that also reads well printed."""
    lines = [("optimizer", "rate", "held-out loss", "minus AdamW's", "bytes", "time")]
    notes: list[str] = []
    for row in rows(results):
        mark = "" if row.tuning.edge is None else " (edge)"
        time = "" if row.time is None else f"{row.time:.2f}"
        difference = "" if row.difference is None else f"{row.difference.mean:+.3f} ± {row.difference.half:.3f}"
        lines.append(
            (row.name, f"{row.tuning.best:.2g}{mark}", _loss(row), difference, f"{row.bytes_per_parameter:.3g}", time)
        )
        if mark:
            end = "lowest" if row.tuning.edge == "low" else "highest"
            notes.append(f"{row.name}: the best rate is the {end} tried.")
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    first, *others = widths
    lines.insert(1, ("-" * first, *("-" * (width - 1) + ":" for width in others)))
    text = [f"| {name:<{first}} | " + " | ".join(map(str.rjust, cells, others)) + " |" for name, *cells in lines]
    return "\n".join(text + [""] * bool(notes) + notes)


def _loss(row: Row) -> str:
    diverged = sum(loss is None for loss in row.losses.values())
    if diverged:
        return f"{diverged} of {len(row.losses)} diverged"
    return "not finished" if row.loss is None else str(row.loss)


def _final(runs: Sequence[Run], key: str) -> dict[int, Run]:
    """By seed, the runs at the best rate that results are from."""
    grid = tuning(runs, key)
    found = {run.seed: run for run in valid(runs, key) if grid and run.lr == grid.best and run.seed != TUNING_SEED}
    return dict(sorted(found.items()))


def _mean(values: Sequence[float | None]) -> Interval | None:
    return None if len(values) < 2 or None in values else interval(values)


def _ratio(times: Sequence[dict[str, float]], key: str) -> float | None:
    for seconds in reversed(times):
        if key in seconds and BASE in seconds:
            return seconds[key] / seconds[BASE]
    return None
