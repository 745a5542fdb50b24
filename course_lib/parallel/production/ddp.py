"""PyTorch's data parallelism, and the same with the optimizer's state sharded by whole tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.parallel.base import BUCKET
from course_lib.parallel.comm import Comm
from course_lib.parallel.production.engine import MakeOptimizer, Production, trainable


class TorchDDP(Production):
    """``DistributedDataParallel`` (Li et al. 2020, arXiv 2006.15704): everything on every rank, gradients all-reduced.

    Gradients are views of the buckets (``gradient_as_bucket_view=True``), so ``held_bytes`` has the buckets as
    "gradients"; without it torch would hold both. Buckets outlive a step, and ``zero_grad`` fills them with zeros
    rather than hide them. Sent by each rank in a step: 2 (N - 1) / N elements per parameter. Every parameter that
    requires a gradient must get one in every backward pass, on every rank; otherwise the next forward pass raises.

    Args:
        model: the same on every rank but for the weights, which rank 0 gives to all. On the rank's device.
        comm: the ranks.
        optimizer: called as ``optimizer(params, **hyper)``.
        unit_bytes: size of a bucket.
        hyper: of the optimizer: ``lr=1e-3``.

    Raises:
        ValueError: no parameter requires a gradient.
        RuntimeError: the ranks disagree about the model.
    """

    def __init__(
        self,
        model: nn.Module,
        comm: Comm,
        optimizer: MakeOptimizer = torch.optim.AdamW,
        *,
        unit_bytes: float = BUCKET,
        **hyper: Any,
    ) -> None:
        super().__init__(model, comm)
        self.model = DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=unit_bytes / 2**20)
        self.optimizer = self._optimizer(optimizer, hyper)

    def _optimizer(self, optimizer: MakeOptimizer, hyper: dict[str, Any]) -> torch.optim.Optimizer:
        return optimizer(trainable(self._module), **hyper)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)


class TorchZero(TorchDDP):
    """``ZeroRedundancyOptimizer`` over ``DistributedDataParallel``: each rank keeps the state of some of the tensors.

    Whole tensors go to the rank that has least so far, the largest first: the ranks' shares differ, and the largest
    tensor is a lower bound for one of them. The gradient is all-reduced as ever, and after the update each owner
    broadcasts its tensors, one by one. Sent by each rank in a step: 2 (N - 1) / N elements per parameter, and in a ring
    all tensors but those of the rank after it: together 3 (N - 1) / N where the shares are equal, against 2 (N - 1) / N
    for ZeRO-1 by reduce-scatter and all-gather (Rajbhandari et al. 2020, arXiv 1910.02054, section 7).

    Args: as for :class:`TorchDDP`.

    Raises:
        ValueError: fewer trainable tensors than ranks; no parameter requires a gradient.
        RuntimeError: the ranks disagree about the model.
    """

    def __init__(self, model: nn.Module, comm: Comm, *args: Any, **settings: Any) -> None:
        tensors = len(trainable(model))
        if 0 < tensors < comm.ranks:
            raise ValueError(f"ZeroRedundancyOptimizer shards by whole tensors: {comm.ranks} ranks cannot share "
                             f"{tensors}. Use fewer ranks, or FSDP2, which cuts tensors.")
        super().__init__(model, comm, *args, **settings)

    def _optimizer(self, optimizer: MakeOptimizer, hyper: dict[str, Any]) -> torch.optim.Optimizer:
        from torch.distributed.optim import ZeroRedundancyOptimizer  # compiles much that nothing else here needs

        return ZeroRedundancyOptimizer(trainable(self._module), optimizer_class=optimizer, **hyper)

    def _state(self) -> list[Any]:
        # The outer optimizer's own table of state is for checkpoints; the inner one has what this rank updates.
        return [value for state in self.optimizer.optim.state.values() for value in state.values()]
