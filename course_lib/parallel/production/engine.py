"""What the production engines share here: the optimizer's step, and counting what a rank holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.memory.storages import count_storages
from course_lib.parallel.agreement import described, require_agreement
from course_lib.parallel.clip import require_norm
from course_lib.parallel.comm import Comm

MakeOptimizer = Callable[..., torch.optim.Optimizer]
"""A class of ``torch.optim`` or anything else that is called as ``optimizer(params, **hyper)``."""


class Production:
    """An engine of torch's or DeepSpeed's, used like those of :mod:`course_lib.parallel`.

    Attributes:
        model: call it for the forward pass; it may wrap the given one.
        optimizer: of the parameters that require a gradient. Schedules act on its groups.
        comm: the ranks.

    Raises:
        ValueError: no parameter requires a gradient.
        RuntimeError: the ranks disagree about the model.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, model: nn.Module, comm: Comm) -> None:
        if not any(param.requires_grad for param in model.parameters()):
            raise ValueError("There is nothing to train: no parameter of the model requires a gradient.")
        require_agreement(comm, described(model))
        self.comm = comm
        self._module = model
        self._params = dict(model.named_parameters())

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale the mean gradient down to the global L2 norm ``max_norm`` where it is longer; return its norm before.

        The norm is a tensor of one element, the same on every rank.

        Raises:
            ValueError: ``max_norm`` is not > 0.
        """
        require_norm(max_norm)
        return torch.nn.utils.clip_grad_norm_(self._module.parameters(), max_norm)

    def step(self) -> None:
        """Update the weights by the mean gradient."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def held_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds now: ``parameters``, ``gradients`` and ``optimizer``.

        Storages are counted, each once and whole, padding included. Of the optimizer's state all tensors count, also
        the step counts: torch.optim's AdamW has one of 4 bytes for each tensor.
        """
        parts = {"parameters": self._weights(), "gradients": self._gradients(), "optimizer": self._state()}
        return count_storages(parts)

    @torch.no_grad()
    def full_weights(self) -> dict[str, Tensor]:
        """Every parameter whole, by name, copied, on every rank. All ranks call it."""
        return {name: param.detach().clone() for name, param in self._module.named_parameters()}

    # --- What this rank has in its memory --------------------------------------------------------------------------

    def _weights(self) -> list[Tensor]:
        return [*self._params.values()]

    def _gradients(self) -> list[Tensor | None]:
        return [param.grad for param in self._params.values()]

    def _state(self) -> list[Any]:
        return [value for state in self.optimizer.state.values() for value in state.values()]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [param for param in model.parameters() if param.requires_grad]
