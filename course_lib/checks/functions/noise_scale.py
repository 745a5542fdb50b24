"""The exercise `noise_scale`: signal, noise and their ratio from gradients at two batch sizes (McCandlish et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import Finding

Result = tuple[Any, Any, Any]


def _signal_of(b: float, B: float, s: Any, S: Any) -> Any:
    return (B * S - b * s) / (B - b)


def _noise_of(b: float, B: float, s: Any, S: Any) -> Any:
    return (s - S) / (1 / b - 1 / B)


def _ratio(signal: Any, noise: Any) -> Any:
    return noise / signal if signal > 0 else np.inf


def _estimate(
    signal: Callable[..., Any] = _signal_of,
    noise: Callable[..., Any] = _noise_of,
    mean: Callable[[np.ndarray], Any] = np.mean,
) -> Callable[..., Result]:
    """``signal`` and ``noise`` of (small, big, mean square of the small, of the big)."""

    def run(small: int, big: int, norm_small_squared: np.ndarray, norm_big_squared: np.ndarray) -> Result:
        given = small, big, mean(norm_small_squared), mean(norm_big_squared)
        found = signal(*given), noise(*given)
        return *found, _ratio(*found)

    return run


def _from_each_step(average: Callable[[np.ndarray], Any]) -> Callable[..., Result]:
    """The ratio of each step is averaged; signal and noise are right."""

    def run(small: int, big: int, norm_small_squared: np.ndarray, norm_big_squared: np.ndarray) -> Result:
        s = norm_small_squared.mean(axis=1)
        given = small, big, s, norm_big_squared
        return None, None, average(_noise_of(*given) / _signal_of(*given))

    return run


def _steps_changed(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[..., Result]:
    """Each step's own estimates, changed before they are averaged."""

    def run(small: int, big: int, norm_small_squared: np.ndarray, norm_big_squared: np.ndarray) -> Result:
        given = small, big, norm_small_squared.mean(axis=1), norm_big_squared
        signal, noise = (part.mean() for part in change(_signal_of(*given), _noise_of(*given)))
        return signal, noise, _ratio(signal, noise)

    return run


def _of(change: Callable[[Any, Any, Any], Result]) -> Callable[..., Result]:
    return lambda **case: change(*_right(**case))


def _of_two(small: int, big: int, s: Any, S: Any) -> Result:
    found = _signal_of(small, big, s, S), _noise_of(small, big, s, S)
    return *found, _ratio(*found)


def _workers_as_sizes(small: int, big: int, norm_small_squared: np.ndarray, norm_big_squared: np.ndarray) -> Result:
    """The workers' batches are taken for one batch of them all, whose lengths are added."""
    return _of_two(small, big, norm_small_squared.sum(axis=1).mean(), norm_big_squared.mean())


_right = _estimate()
_TWO = "The mean squared length at batch size B is |G|^2 + tr S / B. Two sizes are two equations for two unknowns."
_DIVIDE_LAST = (
    "Each step's estimates are unbiased and noisy; a ratio of noisy numbers is neither. Average both, divide last."
)
_KEEP = "A step's estimate may well be negative. It is unbiased only together with those: leave every step in."
_ORDER = "Return |G|^2, tr S and tr S / |G|^2, in this order."
_MISTAKES = (
    Known("sizes-swapped", "the two batch sizes exchanged, in both", _TWO,
          _estimate(lambda b, B, s, S: _signal_of(B, b, s, S), lambda b, B, s, S: _noise_of(B, b, s, S))),
    Known("weights-swapped", "a signal in which each length is weighed with the other batch size", _TWO, _estimate(lambda b, B, s, S: (b * S - B * s) / (B - b))),
    Known("signal-summed", "a signal with a plus: (B_big |G_big|^2 + B_small |G_small|^2) / (B_big + B_small)", _TWO,
          _estimate(lambda b, B, s, S: (B * S + b * s) / (B + b))),
    Known("signal-is-the-big", "the big batch's mean square as the signal: its noise is in it", _TWO, _estimate(lambda b, B, s, S: S)),
    Known("signal-is-the-small", "the small batch's mean square as the signal", _TWO, _estimate(lambda b, B, s, S: s)),
    Known("signal-negated", "a signal with its sign turned", _TWO, _estimate(lambda b, B, s, S: -_signal_of(b, B, s, S))),
    Known("signal-not-divided", "a signal that is not divided by B_big - B_small", _TWO, _estimate(lambda b, B, s, S: B * S - b * s)),
    Known("signal-over-big", "a signal that is divided by B_big", _TWO, _estimate(lambda b, B, s, S: (B * S - b * s) / B)),
    Known("noise-negated", "a noise with its sign turned", "Which of the two batches has the longer gradients, and which of 1 / B_small and 1 / B_big is larger?",
          _estimate(noise=lambda b, B, s, S: -_noise_of(b, B, s, S))),
    Known("noise-over-sizes", "a noise that is divided by B_big - B_small", _TWO, _estimate(noise=lambda b, B, s, S: (s - S) / (B - b))),
    Known("noise-times-sizes", "a noise of (|G_small|^2 - |G_big|^2) (1 / B_small - 1 / B_big)", _TWO, _estimate(noise=lambda b, B, s, S: (s - S) * (1 / b - 1 / B))),
    Known("noise-times-small", "a noise of B_small (|G_small|^2 - |G_big|^2): as if the big batch had none", _TWO, _estimate(noise=lambda b, B, s, S: b * (s - S))),
    Known("noise-times-difference", "a noise of (B_big - B_small) (|G_small|^2 - |G_big|^2)", _TWO, _estimate(noise=lambda b, B, s, S: (B - b) * (s - S))),
    Known("noise-not-divided", "a noise that is divided by nothing: |G_small|^2 - |G_big|^2", _TWO, _estimate(noise=lambda b, B, s, S: s - S)),
    Known("noise-of-one-batch", "the noise of a small batch, tr S / B_small", "tr S is the noise of a single example.", _estimate(noise=lambda b, B, s, S: _noise_of(b, B, s, S) / b)),
    Known("squared-again", "lengths that are squared once more", "They come squared.", _estimate(mean=lambda x: np.mean(x**2))),
    Known("rooted", "lengths whose root is taken", "Squared lengths are what adds up.", _estimate(mean=lambda x: np.mean(np.sqrt(x)))),
    Known("square-of-mean-length", "squares of mean lengths", "Average the squares: the mean of squares is what the two equations speak of.", _estimate(mean=lambda x: np.mean(np.sqrt(x)) ** 2)),
    Known("median", "medians in the place of means", "The expectation is a mean.", _estimate(mean=np.median)),
    Known("summed-over-steps", "sums over the steps in the place of means", "The two equations speak of expectations.",
          lambda small, big, norm_small_squared, norm_big_squared: _of_two(small, big, norm_small_squared.mean(axis=1).sum(), norm_big_squared.sum())),
    Known("mean-of-ratios", "the mean of each step's ratio", _DIVIDE_LAST, _from_each_step(np.mean)),
    Known("median-of-ratios", "the median of each step's ratio", _DIVIDE_LAST, _from_each_step(np.median)),
    Known("steps-dropped", "an average without the steps whose own estimate of |G|^2 is not above 0", _KEEP,
          _steps_changed(lambda signal, noise: (signal[signal > 0], noise[signal > 0]))),
    Known("signals-dropped", "a signal averaged without the steps whose own estimate of |G|^2 is not above 0", _KEEP,
          _steps_changed(lambda signal, noise: (signal[signal > 0], noise))),
    Known("signals-cut-at-zero", "a signal in which a step's estimate below 0 counts as 0", _KEEP,
          _steps_changed(lambda signal, noise: (np.maximum(signal, 0.0), noise))),
    Known("ratio-upside-down", "|G|^2 / tr S", "A large noise scale means much noise.", _of(lambda g, n, ratio: (None, None, g / n))),
    Known("ratio-of-roots", "the root of the ratio", "B_simple is tr S / |G|^2 itself.", _of(lambda g, n, ratio: (None, None, np.sqrt(ratio)))),
    Known("ratio-over-big", "a ratio to the big batch's mean square, which has noise in it", "Which estimate of |G|^2 is free of noise?",
          lambda **case: (None, None, _right(**case)[1] / case["norm_big_squared"].mean())),
    Known("ratio-over-small", "a ratio to the small batch's mean square, which has noise in it", "Which estimate of |G|^2 is free of noise?",
          lambda **case: (None, None, _right(**case)[1] / case["norm_small_squared"].mean())),
    Known("ratio-of-lengths", "|G_small|^2 / |G_big|^2", "B_simple is a batch size.",
          lambda **case: (None, None, case["norm_small_squared"].mean() / case["norm_big_squared"].mean())),
    Known("workers-summed", "squared lengths that are added over the workers in the place of averaged", "Each worker's gradient is one draw of a small batch.", _workers_as_sizes),
    Known("signal-and-noise-swapped", "tr S and |G|^2, in this order", _ORDER, _of(lambda g, n, ratio: (n, g, None))),
    Known("ratio-first", "the ratio first", _ORDER, _of(lambda g, n, ratio: (ratio, g, n))),
    Known("last-step", "the last step alone", "One step's estimate is mostly chance: average all of them.",
          lambda small, big, norm_small_squared, norm_big_squared: _right(small, big, norm_small_squared[-1:], norm_big_squared[-1:])),
    Known("first-worker", "the first worker alone", "Every worker's gradient is a draw of a small batch.",
          lambda small, big, norm_small_squared, norm_big_squared: _right(small, big, norm_small_squared[:, :1], norm_big_squared)),
)  # fmt: skip


def _case(
    small: int, workers: int, steps: int, signal: float, noise: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Squared lengths that scatter, as those of gradients do, around what the two equations expect."""
    s = (signal + noise / small) * rng.uniform(0.6, 1.4, (steps, workers))
    S = (signal + noise / small / workers) * rng.uniform(0.8, 1.2, steps)
    return {"small": small, "big": small * workers, "norm_small_squared": s, "norm_big_squared": S}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    small, workers, steps = (int(rng.integers(*ends)) for ends in ((2, 9), (3, 9), (3, 9)))
    return [_case(small, workers, steps, float(rng.uniform(1, 3)), float(rng.uniform(10, 50)), rng)]


_RNG = np.random.default_rng(37)


def _negative(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[2].size == 1 and np.isposinf(got[2]).all():
        return None
    return Finding(
        "negative-signal",
        f"The estimate of |G|^2 is {float(want[0]):.3g}, lost in the noise, and your ratio is {float(got[2].ravel()[0]):.3g}.",
        "A ratio to a negative number is no batch size: the exercise asks for infinity where |G|^2 is not above 0.",
    )


NOISE_SCALE = Numeric(
    _right,
    [
        _case(4, 8, 6, 1.5, 40.0, _RNG),
        _case(32, 4, 5, 0.2, 30.0, _RNG),
        _case(2, 3, 9, 3.0, 7.0, _RNG),
        {"small": 2, "big": 8, "norm_small_squared": np.array([[5.0, 3.0, 7.0, 6.0], [4.0, 2.5, 6.0, 5.0], [3.0, 4.0, 6.5, 5.5]]),
         "norm_big_squared": np.array([2.5, 0.8, 3.1])},  # the second step's own estimate of |G|^2 is negative
    ],
    _MISTAKES,
    "|G|^2, tr S and their ratio",
    ("signal", "noise", "ratio"),
    edges=[
        Edge({"small": 8, "big": 64, "norm_small_squared": np.array([[5.0] * 8]), "norm_big_squared": np.array([1.5])}),
        Edge({"small": 1, "big": 2, "norm_small_squared": np.array([[4.0, 2.0]]), "norm_big_squared": np.array([1.0])}, _negative),
        Edge({"small": 2, "big": 4, "norm_small_squared": np.array([[2.0, 2.0]]), "norm_big_squared": np.array([1.0])}, _negative),
        Edge({"small": 2, "big": 4, "norm_small_squared": np.array([[1.0, 2.0]]), "norm_big_squared": np.array([1.75])}),
    ],
    drawn=_drawn,
)  # fmt: skip
