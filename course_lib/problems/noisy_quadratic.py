"""A quadratic whose curvatures and gradient noise are known: batch sizes, schedules and averages in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoisyQuadratic:
    """L(w) = sum over i of h_i w_i^2 / 2, whose gradient is seen with noise: minimum 0 at the origin.

    The gradient of one example is h w + s z with z ~ N(0, 1) in every coordinate; that of a batch of B examples is
    their mean, h w + (s / sqrt(B)) z. So tr S = sum of s_i^2 and |G|^2 = sum of (h_i w_i)^2 are known exactly.

    Args:
        curvatures: h, (d,), each finite and > 0.
        noise: s, the standard deviation of one example's gradient: a number or (d,), each finite and >= 0.
        start: where runs begin, a number or (d,), each finite.

    Attributes:
        curvatures, noise, start: float64 (d,).

    Raises:
        ValueError: an argument is out of its range, or the shapes do not go together.

    Source: the noisy quadratic model of Schaul, Zhang & LeCun 2013 (arXiv 1206.1106) and of Zhang et al. 2019 (arXiv
    1907.04164), section 3.
    """

    curvatures: np.ndarray
    noise: np.ndarray | float = 1.0
    start: np.ndarray | float = 1.0

    def __post_init__(self) -> None:
        h = np.array(self.curvatures, dtype=np.float64)
        if h.ndim != 1 or not len(h) or not (np.isfinite(h).all() and (h > 0).all()):
            raise ValueError(
                f"Invalid curvatures: {_short(self.curvatures)}. "
                "Allowed: a one-dimensional array of at least one finite number > 0."
            )
        object.__setattr__(self, "curvatures", h)
        for name, lowest in (("noise", 0.0), ("start", -math.inf)):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.shape not in ((), h.shape) or not np.isfinite(value).all() or (value < lowest).any():
                bound = "finite and >= 0" if lowest == 0 else "finite"
                raise ValueError(
                    f"Invalid {name}: {_short(getattr(self, name))}. "
                    f"Allowed: a number or an array of shape {h.shape}, {bound}."
                )
            object.__setattr__(self, name, np.broadcast_to(value, h.shape).copy())

    def loss(self, weights: np.ndarray) -> np.ndarray:
        """The true loss, without noise: (..., d) -> (...)."""
        return (self.curvatures * np.square(weights)).sum(axis=-1) / 2

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """The true gradient: (..., d) -> (..., d)."""
        return self.curvatures * weights

    @property
    def noise_trace(self) -> float:
        """tr S, the summed variance of one example's gradient."""
        return float(np.square(self.noise).sum())

    def noise_scale(self, weights: np.ndarray) -> np.ndarray:
        """B_simple = tr S / |G|^2, in examples: (..., d) -> (...); McCandlish et al. 2018, 1812.06162, equation 2.9."""
        return self.noise_trace / np.square(self.gradient(weights)).sum(axis=-1)

    def parameter(self, runs: int = 1) -> Tensor:
        """A fresh parameter at the start, float64 (runs, d): a row a run, for optimizers that work element by element.

        Raises:
            ValueError: ``runs`` is not a whole number >= 1.
        """
        _whole("runs", runs)
        return torch.from_numpy(np.tile(self.start, (runs, 1))).requires_grad_()

    def backward(self, param: Tensor, batch: int, rng: np.random.Generator) -> None:
        """Set ``param.grad`` to the mean gradient of ``batch`` examples, drawn afresh for every row.

        Args:
            param: float64 (runs, d), as :meth:`parameter` makes it.
            batch: examples, >= 1.
            rng: where the noise comes from: runs x d normal numbers a call, whatever the batch size.
        """
        _whole("batch", batch)
        noise = rng.standard_normal(param.shape) * (self.noise / math.sqrt(batch))
        param.grad = torch.from_numpy(self.gradient(param.detach().numpy()) + noise)


@dataclass(frozen=True, eq=False)
class Descent:
    """What :func:`descend` saw.

    Attributes:
        losses: float64 (steps + 1, runs), the true loss before each step and after the last.
        weights: float64 (runs, d), where the runs ended.
    """

    losses: np.ndarray
    weights: np.ndarray


def descend(
    problem: NoisyQuadratic,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    batch: int = 1,
    seed: int = 0,
    *,
    runs: int = 1,
    schedule: Callable[[int], float] | None = None,
) -> Descent:
    """Run an optimizer on noisy gradients; a run that diverges is followed through infinities and NaN.

    Args:
        problem: what to descend.
        optimizer: ``optimizer([param])`` makes it, for a float64 tensor (runs, d).
        steps: >= 0.
        batch: examples of each step, >= 1.
        seed: of the noise, drawn with ``numpy.random.default_rng``.
        runs: independent runs side by side, >= 1; more than one only for optimizers that work element by element.
        schedule: maps the step, 0 for the first, to a multiplier of lr; None keeps lr constant.

    Raises:
        ValueError: a count is out of its range.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 0.")
    _whole("batch", batch)
    param = problem.parameter(runs)
    made, rng = optimizer([param]), np.random.default_rng(seed)
    base_lrs = [group["lr"] for group in made.param_groups]
    losses = np.empty((steps + 1, runs))
    losses[0] = problem.loss(param.detach().numpy())
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps):
            if schedule is not None:
                for group, base in zip(made.param_groups, base_lrs, strict=True):
                    group["lr"] = base * schedule(step)
            problem.backward(param, batch, rng)
            made.step()
            losses[step + 1] = problem.loss(param.detach().numpy())
    return Descent(losses, param.detach().numpy().copy())


def expected_losses(
    problem: NoisyQuadratic,
    lr: float | np.ndarray,
    batch: float,
    steps: int,
    *,
    momentum: float = 0.0,
    schedule: Callable[[int], float] | None = None,
) -> np.ndarray:
    """The loss of SGD averaged over the noise, exactly, without drawing a number.

    With u the momentum buffer and torch's rule u <- mu u + g, w <- w - lr u, the second moments W = E[w^2],
    C = E[w u], U = E[u^2] of each coordinate follow from those before it:

        U <- mu^2 U + 2 mu h C + h^2 W + s^2 / B,    A = mu C + h W,    W <- W - 2 lr A + lr^2 U,    C <- A - lr U.

    Args:
        problem: what to descend.
        lr: a rate or an array of rates (n,), each >= 0.
        batch: examples of each step, > 0; infinity for the true gradient.
        steps: >= 0.
        momentum: mu, 0 <= mu < 1; without dampening, as torch's default.
        schedule: maps the step, 0 for the first, to a multiplier of lr; None keeps lr constant.

    Returns:
        float64 (steps + 1,) for one rate, (steps + 1, n) for several: expected loss before each step and after the
        last. A rate that diverges ends in infinity or NaN.

    Raises:
        ValueError: an argument is out of its range.

    Source: Zhang et al. 2019 (arXiv 1907.04164), theorem 1, here for torch's form of momentum.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 0.")
    if not batch > 0:
        raise ValueError(f"Invalid batch: {batch!r}. Allowed: a number of examples > 0, or math.inf.")
    if not 0 <= momentum < 1:
        raise ValueError(f"Invalid momentum: {momentum!r}. Allowed: 0 <= momentum < 1.")
    rates = np.asarray(lr, dtype=np.float64)
    if rates.ndim > 1 or not (rates >= 0).all():
        raise ValueError(f"Invalid lr: {_short(lr)}. Allowed: a rate >= 0, or a one-dimensional array of them.")
    rate, h = rates.reshape(-1, 1), problem.curvatures
    variance = np.square(problem.noise) / batch
    w = np.tile(np.square(problem.start), (len(rate), 1))
    c, u = np.zeros_like(w), np.zeros_like(w)
    losses = np.empty((steps + 1, len(rate)))
    losses[0] = w @ h / 2
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps):
            eta = rate if schedule is None else rate * schedule(step)
            u = momentum**2 * u + 2 * momentum * h * c + h**2 * w + variance
            a = momentum * c + h * w
            w = w - 2 * eta * a + eta**2 * u
            c = a - eta * u
            losses[step + 1] = w @ h / 2
    return losses[:, 0] if rates.ndim == 0 else losses


def steps_to_target(problem: NoisyQuadratic, target: float, lr: float | np.ndarray, batch: float) -> float | np.ndarray:
    """How many steps of plain SGD bring the expected loss down to ``target``, from the closed form.

    Between the steps the closed form is followed as if time were continuous, so that the count has fractions: 12.3
    means that step 12 is still above the target and step 13 is not. With a = (1 - lr h)^2,

        E[w_t^2] = a^t w_0^2 + (1 - a^t) / (1 - a) lr^2 s^2 / B .

    Args:
        problem: what to descend.
        target: a loss > 0.
        lr: a rate or an array of rates (n,), each > 0.
        batch: examples of each step, > 0; infinity for the true gradient.

    Returns:
        float64, a number for one rate, (n,) for several: 0 where the start is good enough, infinity for a rate that
        diverges or whose noise keeps it above the target, or that needs more than 10^7 steps.

    Raises:
        ValueError: an argument is out of its range.
    """
    rates = np.asarray(lr, dtype=np.float64)
    if rates.ndim > 1 or not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError(f"Invalid lr: {_short(lr)}. Allowed: a finite rate > 0, or a one-dimensional array of them.")
    if not 0 < target < math.inf:
        raise ValueError(f"Invalid target: {target!r}. Allowed: a finite loss > 0.")
    if not batch > 0:
        raise ValueError(f"Invalid batch: {batch!r}. Allowed: a number of examples > 0, or math.inf.")
    rate, h = rates.reshape(-1, 1), problem.curvatures
    a = np.square(1 - rate * h)
    stable = (a < 1).all(axis=1)
    # 1 - a = lr h (2 - lr h): of two numbers near 1 the difference would lose its digits.
    settled = rate * np.square(problem.noise) / batch / (h * np.where(stable[:, None], 2 - rate * h, 1.0))
    decay = np.where(stable[:, None], np.log(np.maximum(a, 1e-300)), 0.0)
    start = np.square(problem.start)

    def above(t: np.ndarray) -> np.ndarray:
        """Whether the loss is above the target at the times (n, k)."""
        left = np.exp(t[..., None] * decay[:, None, :])
        return (settled[:, None, :] + left * (start - settled[:, None, :])) @ h / 2 > target

    times = np.broadcast_to(np.append(0.0, np.geomspace(0.01, 1e7, 200)), (len(rate), 201))
    reached = ~above(times)
    first = reached.argmax(axis=1)
    rows = np.arange(len(rate))
    high, low = times[rows, first], times[rows, np.maximum(first - 1, 0)]
    for _ in range(40):
        middle = (low + high) / 2
        still = above(middle[:, None])[:, 0]
        low, high = np.where(still, middle, low), np.where(still, high, middle)
    steps = np.where(reached.any(axis=1) & stable, high, math.inf)
    return float(steps[0]) if rates.ndim == 0 else steps


def fewest_steps(problem: NoisyQuadratic, target: float, batch: float) -> tuple[float, float]:
    """The fewest steps of plain SGD to ``target`` with a constant rate, and that rate.

    Of 600 rates, evenly spaced in their logarithm from 10^-6 times to just below the largest stable one, 2 / (largest
    curvature): neighbours differ by 2.4 percent, and the steps of the best by much less from those of the true best.

    Args:
        problem: what to descend.
        target: a loss > 0, below that of the start.
        batch: examples of each step, > 0; infinity for the true gradient.

    Returns:
        Steps, with fractions as :func:`steps_to_target` counts them, and the rate.

    Raises:
        ValueError: an argument is out of its range, or no rate reaches the target within 10^7 steps.
    """
    rates = 2 / problem.curvatures.max() * np.geomspace(1e-6, 1 - 1e-6, 600)
    steps = steps_to_target(problem, target, rates, batch)
    best = int(steps.argmin())
    if not np.isfinite(steps[best]):
        raise ValueError(
            f"Invalid target: {target!r}. Allowed: a loss that some rate reaches within 10^7 steps at batch {batch!r}. "
            "Choose a higher loss or a larger batch."
        )
    return float(steps[best]), float(rates[best])


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number >= 1.")


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
