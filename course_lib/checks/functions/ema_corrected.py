"""The exercise `ema_corrected`: a bias-corrected average of what a run logs, in which broken steps do not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Value = np.ndarray


def _sound(row: Value) -> bool:
    return bool(np.isfinite(row).all())


def _path(
    update: Callable[[Value, Value, float, int], Value] = lambda m, x, b, t: b * m + (1 - b) * x,
    corrected: Callable[[Value, float, int, int], Value] = lambda m, b, t, row: m / (1 - b**t),
    counts: Callable[[Value], bool] = _sound,
    cleaned: Callable[[Value, Value], Value] = lambda x, m: x,
    broken: Callable[[Value, Value], Value] = lambda last, x: last,
    skipped: Callable[[Value, float], Value] = lambda m, b: m,
    each_step_counts: bool = False,
) -> Callable[[Value, float], Value]:
    """Each argument is one line of the loop.

    ``t`` counts the steps that count, ``row`` all of them. ``cleaned(x, m)`` is what is averaged, ``broken(last, x)`` the
    row of a step that does not count, ``skipped`` what becomes of m in it.
    """

    def run(values: Value, decay: float) -> Value:
        m, t, last, rows = np.zeros(values.shape[1]), 0, np.full(values.shape[1], np.nan), []
        for row, x in enumerate(values, 1):
            if counts(x):
                t += 1
                m = update(m, cleaned(x, m), decay, t)
                last = corrected(m, decay, t, row)
                rows.append(last)
            else:
                m = skipped(m, decay)
                t += each_step_counts
                rows.append(broken(last, x))
        return np.stack(rows)

    return run


def _by_element(values: Value, decay: float) -> Value:
    columns = [_right(column[:, None], decay) for column in values.T]
    return np.concatenate(columns, axis=1)


def _compounds(values: Value, decay: float) -> Value:
    m, t, last, rows = np.zeros(values.shape[1]), 0, np.full(values.shape[1], np.nan), []
    for x in values:
        if _sound(x):
            t += 1
            last = m = (decay * m + (1 - decay) * x) / (1 - decay**t)
        rows.append(last)
    return np.stack(rows)


def _from_first(m: Value, x: Value, b: float, t: int) -> Value:
    return x if t == 1 else b * m + (1 - b) * x


_right = _path()
_WEIGHTS = "The average starts at zero. Which sum do the weights of the rows in it have after t of them?"
_BROKEN = "A row that is not finite is left out altogether: as if the step had not been made."
_ROW = "The row of a broken step repeats the one before."
_RAW: dict[str, Any] = {"corrected": lambda m, b, t, row: m}
_MISTAKES = (
    Known("not-corrected", "an average without bias correction", _WEIGHTS, _path(**_RAW)),
    Known("starts-at-first", "an average that starts at the first row, as most trackers do: it needs no correction, and weighs that row 1 / (1 - decay) times as much as it should",
          _WEIGHTS, _path(_from_first, **_RAW), OTHER_SPECIFICATION),
    Known("starts-at-first-and-corrected", "an average that starts at the first row and is corrected all the same", _WEIGHTS, _path(_from_first)),
    Known("ramped-decay", "a decay of min(decay, (1 + t) / (10 + t)), as TensorFlow's and timm's averages of weights have it", "Here the decay is constant, and the start is divided out.",
          _path(lambda m, x, b, t: _from_first(m, x, min(b, t / (9 + t)), t), **_RAW), OTHER_SPECIFICATION),
    Known("counts-broken", "a correction in which broken steps count: t is the number of the row", _BROKEN, _path(corrected=lambda m, b, t, row: m / (1 - b**row))),
    Known("decays-over-broken", "an average that decays over broken steps as well, as pandas' ewm does with ignore_na=False", _BROKEN,
          _path(skipped=lambda m, b: b * m, each_step_counts=True, corrected=lambda m, b, t, row: m / (1 - b**row)), OTHER_SPECIFICATION),
    Known("decays-uncounted", "an average that decays over broken steps, which are not counted", _BROKEN, _path(skipped=lambda m, b: b * m)),
    Known("spoiled", "an average that is NaN or inf from the first broken step on", "NaN times any decay is NaN. What has to be asked of a row first?",
          _path(counts=lambda x: True)),
    Known("broken-as-zero", "an average in which a row that is not finite counts as zeros", _BROKEN,
          _path(counts=lambda x: True, cleaned=lambda x, m: x if _sound(x) else 0 * m)),
    Known("elements-as-zero", "an average in which elements that are not finite count as zero", _BROKEN,
          _path(counts=lambda x: True, cleaned=lambda x, m: np.where(np.isfinite(x), x, 0.0))),
    Known("by-element", "an average that leaves out single elements: the rest of a broken row counts", "A broken step is broken as a whole.", _by_element),
    Known("nan-only", "an average that leaves NaN out and takes infinity in", "`np.isfinite` knows both.", _path(counts=lambda x: not np.isnan(x).any())),
    Known("nan-row", "NaN as the row of a broken step", _ROW, _path(broken=lambda last, x: np.full_like(last, np.nan))),
    Known("broken-row-itself", "the broken row itself as the row of a broken step", _ROW, _path(broken=lambda last, x: x)),
    Known("zero-row", "zeros as the row of a broken step", _ROW, _path(broken=lambda last, x: np.zeros_like(last))),
    Known("starts-at-zero", "zeros before the first sound row", "Nothing is known there yet: NaN.", lambda values, decay: np.nan_to_num(_right(values, decay))),
    Known("weights-swapped", "an average with its weights exchanged", "Does decay weigh the past or the present?", _path(lambda m, x, b, t: (1 - b) * m + b * x)),
    Known("gain-missing", "a sum: (1 - decay) is missing", "If every row were 1, what should come out?", _path(lambda m, x, b, t: b * m + x)),
    Known("gain-only", "a division by 1 - decay in the place of 1 - decay^t", "What changes from row to row?", _path(corrected=lambda m, b, t, row: m / (1 - b))),
    Known("power-outside", "a division by (1 - decay)^t", "To what does the power apply?", _path(corrected=lambda m, b, t, row: m / (1 - b) ** t)),
    Known("multiplied", "a multiplication by 1 - decay^t", "Should the first average grow or shrink?", _path(corrected=lambda m, b, t, row: m * (1 - b**t))),
    Known("product", "a division by 1 - decay * t", "t is an exponent.", _path(corrected=lambda m, b, t, row: m / np.float64(1 - b * t))),
    Known("count-ahead", "a count that is one ahead", "How many rows are in m when you correct it?", _path(corrected=lambda m, b, t, row: m / (1 - b ** (t + 1)))),
    Known("count-behind", "a count that is one behind", "How many rows are in m when you correct it?",
          _path(corrected=lambda m, b, t, row: m / np.float64(1 - b ** (t - 1)))),
    Known("compounds", "corrected averages that are carried on, so that the correction compounds", "What is averaged at the next row: m, or the corrected one?", _compounds),
    Known("plain-mean", "the plain mean of all rows so far", "Older rows should count for less.", _path(lambda m, x, b, t: m + (x - m) / t, **_RAW)),
    Known("row-itself", "the row itself: nothing is averaged", "Where does decay come in?", _path(lambda m, x, b, t: x, **_RAW)),
    Known("last-alone", "the last row of the path over and over", "If one array is changed in place and appended each time, how many arrays are in the list?",
          lambda values, decay: np.tile(_right(values, decay)[-1], (len(values), 1))),
    Known("broken-dropped", "a path without rows for broken steps, cut off or filled up at its end", _ROW,
          lambda values, decay: _filled(_right(values[np.isfinite(values).all(axis=1)], decay), len(values))),
)  # fmt: skip


def _filled(rows: Value, count: int) -> Value:
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


_RNG = np.random.default_rng(17)
_NAN, _INF = np.nan, np.inf


def _case(
    steps: int, decay: float, broken: dict[int, list[float]], rng: np.random.Generator = _RNG, width: int = 2
) -> dict[str, Any]:
    values = rng.normal(1.0, 0.7, size=(steps, width))
    for row, bad in broken.items():
        values[row, : len(bad)] = bad
    return {"values": values, "decay": decay}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    steps = int(rng.integers(5, 12))
    row = int(rng.integers(1, steps - 1))
    return [_case(steps, float(rng.uniform(0.5, 0.95)), {row: [_NAN]}, rng, int(rng.integers(1, 4)))]


def _digits(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """A decay near 1, or many rows: right, but for digits that were lost on the way."""
    near = got[0].shape == want[0].shape and np.allclose(got[0], want[0], rtol=1e-2, equal_nan=True)
    if not near or np.allclose(got[0], want[0], rtol=1e-6, equal_nan=True):
        return None
    return Finding(
        "few-digits",
        f"With a decay of {case['decay']} over {len(case['values'])} rows, the averages are right to a few digits only.",
        "`1 - decay**t` in float64 is exact enough. Is anything kept in float32 or float16, or an epsilon added below?",
    )


EMA_CORRECTED = Numeric(
    _right,
    [
        _case(9, 0.9, {3: [_NAN], 6: [2.0, _INF]}),
        _case(8, 0.6, {0: [_INF, _NAN], 4: [-_INF], 5: [_NAN, _NAN]}),
        _case(6, 0.99, {}, width=3),
    ],
    _MISTAKES,
    "an array of the shape of `values`",
    edges=[
        Edge(_case(4, 0.0, {1: [_NAN]})),
        Edge(_case(1, 0.999, {})),
        Edge(_case(3, 0.5, {0: [_NAN], 1: [_INF], 2: [_NAN]})),
        Edge(_case(5, 0.99999, {2: [_NAN]}), _digits),
        Edge(_case(3000, 0.99, {1500: [_NAN]}, width=1), _digits),
    ],
    drawn=_drawn,
)
