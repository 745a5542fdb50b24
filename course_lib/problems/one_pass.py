"""One pass over a logistic regression in batches of any size, at many learning rates side by side."""

from __future__ import annotations

import numpy as np

from course_lib.problems.sparse import RareFeatures


def one_pass(
    problem: RareFeatures,
    examples: int,
    batch: int,
    rates: np.ndarray,
    *,
    beta1: float = 0.9,
    beta2: float | None = None,
    eps: float = 1e-8,
) -> np.ndarray:
    """Train on the first ``examples``, each seen once; return the loss on all the others for each rate.

    Weights start at 0; the rate falls linearly from ``rates`` towards 0. Adam (Kingma & Ba 2015, arXiv 1412.6980,
    Algorithm 1) if ``beta2`` is given, else plain SGD. Everything is float64, and nothing is drawn.

    Args:
        problem: whose examples are taken in order.
        examples: to train on, >= batch and fewer than there are.
        batch: examples of each step, >= 1; what is left over at the end is not used.
        rates: (n,), each > 0.
        beta1, beta2: of Adam, each 0 <= beta < 1.
        eps: of Adam, > 0.

    Returns:
        float64 (n,), mean logistic loss in nats on the examples not trained on.

    Raises:
        ValueError: a size is out of its range.
    """
    if not 1 <= batch <= examples < len(problem):
        raise ValueError(
            f"Invalid sizes: batch={batch!r}, examples={examples!r}. Allowed: 1 <= batch <= examples < {len(problem)}."
        )
    x, y = (part.numpy() for part in problem.batch(0, len(problem)))
    rates = np.asarray(rates, dtype=np.float64)
    weights = np.zeros((len(rates), x.shape[1]))
    m, v, steps = np.zeros_like(weights), np.zeros_like(weights), examples // batch
    for t in range(1, steps + 1):
        part = slice((t - 1) * batch, t * batch)
        # 1 / (1 + exp(-margin)), written with tanh so that it overflows nowhere.
        update = (0.5 + 0.5 * np.tanh(weights @ x[part].T / 2) - y[part]) @ x[part] / batch
        if beta2 is not None:
            m = beta1 * m + (1 - beta1) * update
            v = beta2 * v + (1 - beta2) * update**2
            update = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        weights -= rates[:, None] * (1 - (t - 1) / steps) * update
    margins = weights @ x[examples:].T
    return np.logaddexp(0.0, np.where(y[examples:] == 1, -margins, margins)).mean(axis=1)
