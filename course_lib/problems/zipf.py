"""A language of one-token memory, whose token frequencies follow a power law that can be turned on and off.

The table model: logits W[i, j] for token j after token i, softmax, cross-entropy. Row i of the gradient is
frequency_i * (softmax(W_i) - P_i): what a rare token teaches is multiplied by how rare it is. Nothing else in the
problem knows the frequencies, so that one exponent switches their effect on and off.

The linear model (squared loss instead of softmax) has the same rows and closed forms for both methods.

Sources: Kunstner et al. 2024, Heavy-Tailed Class Imbalance and Why Adam Outperforms Gradient Descent on Language Models
(arXiv 2402.19449); Kunstner & Bach 2025, Scaling Laws for Gradient Descent and Sign Descent for Linear Bigram Models
under Zipf's Law (arXiv 2505.19227).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from course_lib.problems.tuning import Sweep, tune

MOST = 4096  # tokens of a table: 134 MB for one float64 matrix of that size


def power_law(tokens: int, exponent: float = 1.0) -> np.ndarray:
    """Frequencies proportional to 1 / rank**exponent: float64 (tokens,), descending, sum 1.

    Exponent 1 is Zipf's law, 0 makes all tokens equally frequent.

    Raises:
        ValueError: ``tokens`` is no whole number >= 2, or ``exponent`` is negative or not finite.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, (int, np.integer)) or tokens < 2:
        raise ValueError(f"Invalid tokens: {tokens!r}. Allowed: a whole number >= 2.")
    if not 0 <= exponent < math.inf:
        raise ValueError(f"Invalid exponent: {exponent!r}. Allowed: a number >= 0, such as 1 for Zipf's law.")
    weights = np.arange(1, tokens + 1, dtype=np.float64) ** -float(exponent)
    return weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Bigram:
    """A language in which the next token depends on the last one alone.

    Attributes:
        frequencies: float64 (d,), how often each token is the last one; descending.
        conditionals: float64 (d, d), row i: the distribution of the token after token i.
    """

    frequencies: Tensor
    conditionals: Tensor

    def excess(self, logits: Tensor) -> Tensor:
        """KL divergence of each row from the truth, float64 (d,), in nats; 0 is perfect.

        The mean loss is ``frequencies @ excess`` above the entropy of the language, which no model can go below.

        Args:
            logits: (d, d), row i: of the token after token i.
        """
        model = logits.double().log_softmax(dim=1)
        return (self.conditionals * (self.conditionals.log() - model)).sum(dim=1)

    def loss(self, logits: Tensor) -> float:
        """Mean excess loss in nats: cross-entropy less the entropy of the language."""
        return (self.frequencies @ self.excess(logits)).item()

    def pairs(self, batch: int | None, rng: np.random.Generator) -> Tensor:
        """Shares of the pairs (last, next) in a batch of that many fresh pairs, float64 (d, d), sum 1.

        With ``batch`` None they are the true probabilities: the full batch of a data set without end.
        """
        joint = self.frequencies[:, None] * self.conditionals
        if batch is None:
            return joint
        counts = rng.multinomial(batch, joint.flatten().numpy())
        return torch.from_numpy(counts.reshape(joint.shape) / batch)


def bigram(tokens: int = 128, exponent: float = 1.0, seed: int = 0) -> Bigram:
    """Make a language with power-law frequencies.

    The next token always follows Zipf's law, over an order of the tokens drawn anew for each row, whatever the
    exponent of the frequencies: the task within a row is the same, and all that changes is how often it is met.

    Args:
        tokens: size of the vocabulary d, 2 to 4096.
        exponent: of the frequencies, >= 0; 1 is Zipf's law, 0 makes all equal.
        seed: of the orders, drawn with ``numpy.random.default_rng``.

    Raises:
        ValueError: an argument is out of its range.
    """
    frequencies = power_law(tokens, exponent)
    if tokens > MOST:
        raise ValueError(f"Invalid tokens: {tokens!r}. Allowed: 2 to {MOST}; the table has tokens^2 entries.")
    rng = np.random.default_rng(seed)
    next_token = power_law(tokens)
    rows = np.stack([rng.permutation(next_token) for _ in range(tokens)])
    return Bigram(torch.from_numpy(frequencies), torch.from_numpy(rows))


def descend(
    problem: Bigram,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    *,
    batch: int | None = None,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
) -> Tensor:
    """Train a table of logits from zeros with fresh pairs at each step.

    Args:
        problem: the language.
        optimizer: ``optimizer([logits])`` makes it, for a float64 tensor (d, d).
        steps: updates, >= 1.
        batch: pairs per step, >= 1; None takes the exact gradient of the mean loss.
        schedule: maps the step, 0 for the first, to a multiplier of the learning rate; None keeps it constant.
        seed: of the pairs.

    Returns:
        The logits (d, d). A run that diverges ends in large numbers, inf or NaN.

    Raises:
        ValueError: ``steps`` or ``batch`` is out of range.
    """
    if steps < 1:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 1.")
    if batch is not None and batch < 1:
        raise ValueError(f"Invalid batch: {batch!r}. Allowed: a number of pairs >= 1, or None for the exact gradient.")
    rng = np.random.default_rng(seed)
    logits = torch.zeros_like(problem.conditionals)
    made = optimizer([logits])
    base_lrs = [group["lr"] for group in made.param_groups]
    for step in range(steps):
        pairs = problem.pairs(batch, rng)
        logits.grad = logits.softmax(dim=1) * pairs.sum(dim=1, keepdim=True) - pairs
        if schedule is not None:
            for group, base in zip(made.param_groups, base_lrs, strict=True):
                group["lr"] = base * schedule(step)
        made.step()
    return logits.detach()


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a method reaches with its best learning rate.

    Attributes:
        sweep: the rates tried, and the mean excess loss in nats at each.
        excess: that of the best rate row by row, float64 (d,).
    """

    sweep: Sweep
    excess: np.ndarray

    @property
    def loss(self) -> float:
        """Mean excess loss in nats at the best rate."""
        return self.sweep.loss


def tuned(
    problem: Bigram, optimizer: Callable[..., torch.optim.Optimizer], lr: float, *, steps: int = 100,
    batch: int | None = None,
) -> Tuned:
    """Train with learning rates around ``lr`` that decay linearly to zero, until the best one is inside.

    Args:
        problem: the language.
        optimizer: ``optimizer([logits], lr=rate)`` makes it.
        lr: where to begin.
        steps, batch: as in :func:`descend`.
    """

    def logits(rate: float) -> Tensor:
        return descend(
            problem, lambda params: optimizer(params, lr=rate), steps, batch=batch, schedule=lambda t: 1 - t / steps,
        )

    sweep = tune(lambda rate: problem.loss(logits(rate)), lr)
    return Tuned(sweep, problem.excess(logits(sweep.lr)).numpy())


def linear_gd(frequencies: np.ndarray, steps: ArrayLike) -> np.ndarray:
    """Gradient descent on the linear model: the share of the first loss that is left after each number of steps.

    With lr = 1 / largest frequency, the error of row i shrinks by 1 - frequency_i / largest at each step, and its
    share of the loss is its frequency times the error squared (Kunstner & Bach 2025, section 2).

    Args:
        frequencies: (d,), as :func:`power_law` returns them.
        steps: numbers of steps, >= 0, any shape.

    Returns:
        float64, of the shape of ``steps``.
    """
    slowness = np.log1p(-np.minimum(frequencies / frequencies.max(), 1 - 1e-16))
    return np.vectorize(lambda t: float(frequencies @ np.exp(2 * t * slowness)), otypes=[float])(steps)


def linear_sign(target: np.ndarray, steps: ArrayLike, lr: float) -> np.ndarray:
    """Sign descent on the linear model: the share of the first loss that is left after each number of steps.

    Each entry moves from 0 towards its target by lr per step, then swings about it: |error| is first ``target - k lr``
    and later ``r`` and ``lr - r`` in turn, where r is what is left of the target when it is divided by lr. No
    frequency enters: all rows are alike.

    Args:
        target: (d,), one row of conditional probabilities, >= 0.
        steps: numbers of steps, >= 0, any shape.
        lr: length of a step, > 0.

    Returns:
        float64, of the shape of ``steps``.
    """
    reached = np.floor(target / lr)
    rest = target - reached * lr

    def left(t: int) -> float:
        swung = np.where((t - reached) % 2 == 1, np.abs(rest - lr), rest)
        error = np.where(t <= reached, target - t * lr, swung)
        return float((error**2).sum() / (target**2).sum())

    return np.vectorize(left, otypes=[float])(steps)


def steps_to(left: Callable[[int], float], share: float, most: int = 10**9) -> int:
    """The fewest steps after which a loss that only falls is at most ``share`` of the first, by bisection.

    Args:
        left: ``left(steps)``, the share of the loss that is left; must not rise.
        share: > 0.
        most: where to give up.

    Raises:
        ValueError: ``most`` steps are not enough.
    """
    if left(most) > share:
        raise ValueError(f"{most} steps leave {left(most):.3g} of the loss, more than {share:g}. Allow more steps.")
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if left(middle) <= share:
            high = middle
        else:
            low = middle + 1
    return low


def best_sign(target: np.ndarray, steps: int) -> tuple[float, float]:
    """Sign descent with the best constant learning rate for that many steps, of 60 rates.

    The grid runs from a hundredth of the rate that just takes the largest entry to its target in ``steps``, up to the
    largest entry. After an odd number of steps an entry much smaller than lr is one step off, after an even number it
    is back: compare even numbers with even ones.

    Returns:
        ``(left, lr)``: the share of the first loss that is left, and the rate.
    """
    largest = float(target.max())
    rates = np.geomspace(largest / (100 * max(steps, 1)), largest, 60)
    shares = [float(linear_sign(target, steps, lr)) for lr in rates]
    best = int(np.argmin(shares))
    return shares[best], float(rates[best])
