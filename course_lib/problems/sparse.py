"""Logistic regression with rare features, seen one example at a time: what AdaGrad was made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_CHUNK = 500      # examples whose features are drawn at once: a few megabytes


@dataclass(frozen=True, eq=False)
class RareFeatures:
    """Examples with few active features, which are 1 where present and 0 elsewhere, and labels 0 and 1.

    Attributes:
        indices: int64 (active,), the active features of all examples, one example after the other, each ascending.
        offsets: int64 (examples + 1,); example i has ``indices[offsets[i]:offsets[i + 1]]``.
        labels: int64 (examples,), 0 or 1.
        weights: float64 (features,), the weights of the model that drew the labels.
        frequencies: float64 (features,), the probability of each feature, falling.
    """

    indices: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    frequencies: np.ndarray

    def __len__(self) -> int:
        """Examples."""
        return len(self.labels)

    @cached_property
    def classes(self) -> dict[str, np.ndarray]:
        """Features by how often they occur: in at least one example of ten, of a hundred, or more rarely.

        ``{"frequent": ..., "middle": ..., "rare": ...}``, int64 arrays of features; each may be empty.
        """
        frequent, middle = self.frequencies >= 0.1, self.frequencies >= 0.01
        members = {"frequent": frequent, "middle": middle & ~frequent, "rare": ~middle}
        return {name: np.flatnonzero(member) for name, member in members.items()}

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (features,): in how many of the examples each feature occurs."""
        return np.bincount(self.indices, minlength=len(self.weights))

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Examples ``start`` to ``stop - 1`` as dense float64 (stop - start, features), and float64 labels."""
        begins = self.offsets[start : stop + 1]
        x = np.zeros((stop - start, len(self.weights)))
        x[np.repeat(np.arange(stop - start), np.diff(begins)), self.indices[begins[0] : begins[-1]]] = 1.0
        return torch.from_numpy(x), torch.from_numpy(self.labels[start:stop].astype(np.float64))

    def loss_of(self, weights: np.ndarray) -> float:
        """Mean logistic loss of fixed weights (features,) over all examples, in nats; log 2 = 0.693 for zeros."""
        margins = np.add.reduceat(np.append(weights[self.indices], 0.0), self.offsets[:-1])
        margins[np.diff(self.offsets) == 0] = 0.0
        return float(_loss(margins, self.labels).mean())

    def sign_recovery(self, weights: np.ndarray) -> dict[str, float]:
        """Share of the features of each class whose weight has the true sign; a weight of 0 has none."""
        right = np.sign(weights) == np.sign(self.weights)
        return {name: float(right[members].mean()) for name, members in self.classes.items() if len(members)}


def rare_features(
    features: int = 2000, examples: int = 15_000, *, often: float = 2.0, size: float = 2.0, seed: int = 0
) -> RareFeatures:
    """Draw a logistic regression whose k-th feature is present with probability min(1/2, often / k), k = 1, 2, ...

    That is Zipf's law, which words follow: at the defaults an example has some 14 active features of 2,000, and half of
    all features occur in no more than some 30 of the 15,000 examples. A weight is ``size`` or ``-size``, with equal
    chances, so that a rare feature, where it occurs, says as much about the label as a frequent one. The label is 1
    with probability 1 / (1 + exp(-sum of the weights of the active features)).

    Everything is drawn with ``numpy.random.default_rng(seed)``.

    Args:
        features: >= 1.
        examples: >= 1.
        often: the frequency of the first feature, were it not cut at 1/2; > 0 and finite.
        size: of the true weights, > 0 and finite.
        seed: of the draw.

    Raises:
        ValueError: an argument is out of its range.

    Source: the setting of Duchi, Hazan & Singer 2011 (JMLR 12), sections 1 and 1.3, in which rare features are the
    informative ones.
    """
    for name, count in (("features", features), ("examples", examples)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"Invalid {name}: {count!r}. Allowed: a whole number >= 1.")
    for name, value in (("often", often), ("size", size)):
        if not 0 < value < np.inf:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: a finite number > 0.")
    rng = np.random.default_rng(seed)
    frequencies = np.minimum(0.5, often / np.arange(1, features + 1))
    weights = size * (2.0 * rng.integers(0, 2, features) - 1.0)
    rows, columns = [], []
    for first in range(0, examples, _CHUNK):
        present = rng.random((min(_CHUNK, examples - first), features)) < frequencies
        row, column = np.nonzero(present)
        rows.append(row + first)
        columns.append(column)
    row, indices = np.concatenate(rows), np.concatenate(columns)
    margins = np.bincount(row, weights[indices], minlength=examples)
    labels = (rng.random(examples) < _probability(margins)).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=examples))))
    return RareFeatures(indices, offsets, labels, weights, frequencies)


@dataclass(frozen=True, eq=False)
class OnlineRun:
    """One pass over the examples.

    Attributes:
        losses: float64 (examples,), the loss on each example before the step that used it, in nats.
        weights: float64 (features,), where the pass ended.
    """

    losses: np.ndarray
    weights: np.ndarray

    @property
    def mean_loss(self) -> float:
        """Mean online loss in nats: each example is a test before it is used, so that nothing need be held out."""
        return float(self.losses.mean())


def online(
    problem: RareFeatures,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    schedule: Callable[[int], float] | None = None,
) -> OnlineRun:
    """Go through the examples once, in order, with one optimizer step for each, from weights 0.

    The gradient of an example is (probability - label) at its active features and exactly 0 at the others. It is
    handed over dense, as ``.grad``, so that any optimizer can be used: one with momentum moves absent features too.

    Args:
        problem: what to learn.
        optimizer: ``optimizer([weights])`` makes it, for a float64 tensor (features,); for instance
            ``lambda params: torch.optim.Adagrad(params, lr=0.3)``.
        schedule: maps the step, 0 for the first, to a multiplier of the learning rate; ``lambda t: (t + 1) ** -0.5``
            is the rate of the theory of online gradient descent. None keeps lr constant.

    Returns:
        The losses and the weights. A run that diverges has losses that grow, and may end in inf or NaN.
    """
    param = torch.zeros(len(problem.weights), dtype=torch.float64)
    param.grad = torch.zeros_like(param)
    made = optimizer([param])
    base_lrs = [group["lr"] for group in made.param_groups]
    # Views of the same memory: NumPy is quicker than torch on a dozen numbers.
    weights, gradient = param.numpy(), param.grad.numpy()
    margins = np.empty(len(problem))
    starts, labels = problem.offsets.tolist(), problem.labels.tolist()
    for step, label in enumerate(labels):
        active = problem.indices[starts[step] : starts[step + 1]]
        margins[step] = margin = weights[active].sum()
        gradient[active] = _probability(margin) - label
        if schedule is not None:
            for group, base in zip(made.param_groups, base_lrs, strict=True):
                group["lr"] = base * schedule(step)
        made.step()
        gradient[active] = 0.0
    return OnlineRun(_loss(margins, problem.labels), weights.copy())


def _probability(margins: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-margin)); written with tanh it overflows nowhere."""
    return 0.5 + 0.5 * np.tanh(0.5 * margins)


def _loss(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log(1 + exp(-margin)) for label 1, log(1 + exp(margin)) for label 0, without overflow."""
    return np.logaddexp(0.0, np.where(labels == 1, -margins, margins))
