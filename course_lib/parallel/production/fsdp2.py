"""PyTorch's fully sharded data parallelism: ZeRO-3, and what lies between it and ZeRO-2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from course_lib.parallel.base import PRECISIONS
from course_lib.parallel.clip import require_norm
from course_lib.parallel.comm import Comm
from course_lib.parallel.layout import blocks_of
from course_lib.parallel.production.engine import MakeOptimizer, Production, trainable


class FSDP2(Production):
    """``fully_shard`` on every block and on the root: weights, gradients and optimizer state sharded, 16P/N bytes.

    Every tensor is cut along its first dimension, padded to a multiple of the ranks: a rank may hold one row more than
    its even share, and the last rank's optimizer state may be smaller than the others'. In mixed precision the sharded
    weights stay in float32 and are rounded to bf16 to be gathered; gradients are reduced in bf16 (or ``reduce_dtype``)
    and kept in float32: again 4P/N + 4P/N + 8P/N.

    Sent by each rank in a step, in elements per parameter, R being the share of the parameters that are in no block:

    ==========================  ===========================  =======================================================
    reshard_after_forward       sent                         why
    ==========================  ===========================  =======================================================
    True                        3 (N - 1) / N                gathered for the forward and for the backward, scattered
    None, torch's default       (3 - R) (N - 1) / N          the root stays gathered from its forward to its backward
    False                       2 (N - 1) / N                all stays gathered, as in ZeRO-2; freed after the backward
    ==========================  ===========================  =======================================================

    A paper on it: Zhao et al. 2023 (arXiv 2304.11277), of its first version; the second shards tensor by tensor.

    Args:
        model: the same on every rank but for the weights, which rank 0 gives to all. On the rank's device. Changed in
            place: its parameters become DTensors.
        comm: the ranks; all of the process group.
        optimizer: called as ``optimizer(params, **hyper)``.
        precision: ``"fp32"`` (the model's own dtype) or ``"mixed-bf16"``.
        reduce_dtype: in which gradients are summed over ranks; None for that of the computation.
        reshard_after_forward: as in the table.
        hyper: of the optimizer: ``lr=1e-3``.

    Raises:
        ValueError: an unknown precision; no parameter requires a gradient.
        RuntimeError: the ranks disagree about the model.
    """

    def __init__(
        self,
        model: nn.Module,
        comm: Comm,
        optimizer: MakeOptimizer = torch.optim.AdamW,
        *,
        precision: str = "fp32",
        reduce_dtype: torch.dtype | None = None,
        reshard_after_forward: bool | None = None,
        **hyper: Any,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"Invalid precision: {precision!r}. Allowed: {', '.join(PRECISIONS)}.")
        super().__init__(model, comm)
        for tensor in [*model.parameters(), *model.buffers()]:
            comm.broadcast(tensor.data)  # fully_shard would cut whatever each rank has
        policy = MixedPrecisionPolicy(torch.bfloat16 if precision == "mixed-bf16" else None, reduce_dtype)
        mesh = init_device_mesh(comm.device.type, (comm.ranks,))
        for module in [*blocks_of(model), model]:
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward)
        self.model = model
        self._params = dict(model.named_parameters())  # the shards; while weights are gathered, the model has others
        self.optimizer = optimizer(trainable(model), **hyper)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        require_norm(max_norm)
        norm = torch.nn.utils.clip_grad_norm_(self._params.values(), max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def full_weights(self) -> dict[str, Tensor]:
        return {name: param.full_tensor().clone() for name, param in self._params.items()}

    def _weights(self) -> list[Tensor]:
        return [*self._params.values(), *self._module.parameters()]
