"""What tensors hold, for the evidence on memory: model states counted by hand, and what autograd keeps of a graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from course_lib.precision import MasterWeights

SIDE = 64
"""Side of the square matrix that stands for a model in these counts."""


def nbytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of tensors of at least one dimension; None and scalars such as step counts are left out."""
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dim())


def state_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors in an optimizer's state."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def held_by_torch(optimizer: Callable[..., torch.optim.Optimizer], dtype: torch.dtype) -> float:
    """Bytes per parameter of weight, gradient and state after a step of ``optimizer`` on parameters of ``dtype``."""
    weight = nn.Parameter(torch.ones(SIDE, SIDE, dtype=dtype))
    stepper = optimizer([weight])
    weight.sum().backward()
    stepper.step()
    return nbytes([weight, weight.grad, *state_of(stepper)]) / weight.numel()


def with_masters(make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW, **choices: Any) -> MasterWeights:
    """bf16 parameters (64, 64) with float32 masters, after a step. ``choices`` as for ``MasterWeights``."""
    weights = MasterWeights([nn.Parameter(torch.ones(SIDE, SIDE, dtype=torch.bfloat16))], make, **choices)
    weights.weights[0].sum().backward()
    weights.step()
    return weights


def held_with_masters(make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW, **choices: Any) -> float:
    """Bytes per parameter of weight, gradients, master and state after a step, as :func:`with_masters` trains."""
    held = with_masters(make, **choices)
    gradients = [weight.grad for weight in held.weights] + held.main_grads
    return nbytes([*held.weights, *gradients, *held.masters, *state_of(held.optimizer)]) / SIDE**2


class _Kept:
    """A tensor that a graph holds for its backward pass; it goes when the graph lets go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Graphs:
    """A context that sees every tensor which autograd keeps for a backward pass, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {param.untyped_storage().data_ptr() for param in model.parameters()}
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> _Kept:
        # Detached: an output that led back to its own graph would keep it alive in a cycle.
        kept = _Kept(tensor.detach())
        self._kept.add(kept)
        return kept

    def alive(self) -> int:
        """Bytes that graphs hold at this moment, each storage once."""
        storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage() for kept in self._kept}
        return sum(storage.nbytes() for key, storage in storages.items() if key not in self._parameters)


def mlp(width: int = 32, layers: int = 4, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Square linear layers without biases, each followed by a ReLU."""
    return nn.Sequential(
        *(part for _ in range(layers) for part in (nn.Linear(width, width, bias=False, dtype=dtype), nn.ReLU()))
    )
