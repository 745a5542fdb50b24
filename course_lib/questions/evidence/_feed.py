"""What the evidence of several areas needs: torch.optim fed with given gradients, noise, the code of a bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from course_lib.questions.loader import get

ADAM, ADAMW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


def path_of(optimizer: type[torch.optim.Optimizer], start: ArrayLike, grads: ArrayLike, **hyper: Any) -> np.ndarray:
    """Weights (T + 1, n) of an optimizer that is fed the gradients ``grads`` (T, n) from ``start`` (n,)."""
    weight = torch.nn.Parameter(torch.tensor(np.array(start, dtype=np.float64)))
    stepper = optimizer([weight], **hyper)
    path = [weight.detach().numpy().copy()]
    for grad in np.asarray(grads, dtype=np.float64):
        weight.grad = torch.tensor(grad)
        stepper.step()
        path.append(weight.detach().numpy().copy())
    return np.stack(path)


def updates_of(optimizer: type[torch.optim.Optimizer], grads: ArrayLike, **hyper: Any) -> np.ndarray:
    """Signed updates (T,) of a single weight without decay, in units of lr."""
    path = path_of(optimizer, [0.0], np.asarray(grads)[:, None], lr=1.0, **hyper)
    return np.diff(path[:, 0])


def descent(
    optimizer: type[torch.optim.Optimizer],
    gradient: Callable[[np.ndarray], ArrayLike],
    start: ArrayLike,
    steps: int,
    **hyper: Any,
) -> np.ndarray:
    """Weights (steps + 1, n) of an optimizer that is given ``gradient(weights)`` at each step, from ``start`` (n,)."""
    weight = torch.nn.Parameter(torch.tensor(np.array(start, dtype=np.float64)))
    stepper = optimizer([weight], **hyper)
    path = [weight.detach().numpy().copy()]
    for _ in range(steps):
        weight.grad = torch.tensor(np.array(gradient(path[-1]), dtype=np.float64))
        stepper.step()
        path.append(weight.detach().numpy().copy())
    return np.stack(path)


def normal(steps: int, weights: int, seed: int = 0) -> np.ndarray:
    """Standard normal gradients (steps, weights)."""
    return np.random.default_rng(seed).standard_normal((steps, weights))


def state_bytes(optimizer: type[torch.optim.Optimizer], **hyper: Any) -> int:
    """Bytes of state that a torch optimizer keeps per float32 parameter, measured on one of 1,000 elements."""
    weight = torch.nn.Parameter(torch.zeros(1000))
    weight.grad = torch.ones(1000)
    stepper = optimizer([weight], lr=1e-3, **hyper)
    stepper.step()
    tensors = [
        value for value in stepper.state[weight].values() if torch.is_tensor(value) and value.shape == weight.shape
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) // 1000


def both_versions(question_id: str, function: str) -> dict[str, Callable[..., Any]]:
    """The function of a bug question as the bank has it, under "code", and with its line repaired, under "fixed"."""
    bug, versions = get(question_id).bug, {}
    for name, code in (("code", bug.code), ("fixed", bug.fixed)):
        scope: dict[str, Any] = {}
        exec(code, scope)
        versions[name] = scope[function]
    return versions
