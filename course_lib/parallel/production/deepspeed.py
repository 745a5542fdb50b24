"""DeepSpeed's ZeRO, where it is installed: the engine of those who wrote the paper."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.memory.storages import count_storages
from course_lib.parallel.base import BUCKET, PRECISIONS
from course_lib.parallel.clip import require_norm
from course_lib.parallel.comm import Comm
from course_lib.parallel.production.engine import MakeOptimizer, Production, trainable


class DeepSpeedEngine(Production):
    """DeepSpeed's ZeRO stages 1, 2 and 3 (Rajbhandari et al. 2020, arXiv 1910.02054) with an optimizer of torch's.

    Its optimizer always has weights of its own to update: in mixed precision the masters, 12P/N bytes with the moments;
    in fp32 a second copy, 4P/N more than the other engines hold. Stages 1 and 2 free the gradients in the step: count
    before it. ``held_bytes`` has one name more: "buckets", all else that DeepSpeed's optimizer refers to.

    Sent by each rank in a step, in elements per parameter: 3 (N - 1) / N in every stage. Stage 3 gathers twice and
    reduce-scatters, as in the paper. Stages 1 and 2 all-reduce the gradient and let each rank keep its slice
    (``use_multi_rank_bucket_allreduce``, on by default); the paper's reduce-scatter would make it 2 (N - 1) / N.

    Stage 3 is set to keep no small parameter whole and to free weights after each use; DeepSpeed's own defaults keep
    tensors of up to 1e5 elements, and up to 1e9 elements that are soon used again.

    Args:
        model: the same on every rank but for the weights, which rank 0 gives to all. On the rank's device.
        comm: the ranks; all of the process group.
        optimizer: called as ``optimizer(params, **hyper)``. One that works element by element: DeepSpeed does not ask.
        stage: 1, 2 or 3.
        precision: ``"fp32"`` or ``"mixed-bf16"``. The model then computes in bf16, and is given no float32 inputs.
        unit_bytes: size of a bucket of gradients.
        hyper: of the optimizer: ``lr=1e-3``.

    Raises:
        ImportError: DeepSpeed is not installed.
        ValueError: an unknown stage or precision; no parameter requires a gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        comm: Comm,
        optimizer: MakeOptimizer = torch.optim.AdamW,
        *,
        stage: int,
        precision: str = "fp32",
        unit_bytes: float = BUCKET,
        **hyper: Any,
    ) -> None:
        if stage not in (1, 2, 3):
            raise ValueError(f"Invalid stage: {stage!r}. Allowed: 1, 2 or 3.")
        if precision not in PRECISIONS:
            raise ValueError(f"Invalid precision: {precision!r}. Allowed: {', '.join(PRECISIONS)}.")
        super().__init__(model, comm)
        deepspeed = _import(comm)
        self.stage = stage
        self._gathered = deepspeed.zero.GatheredParameters if stage == 3 else lambda params: nullcontext()
        elements = sum(param.numel() for param in model.parameters())
        config = {
            "train_micro_batch_size_per_gpu": 1,  # asked for, and used for its reports alone
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": precision == "mixed-bf16"},
            "zero_optimization": {
                "stage": stage,
                # In elements, and taken whole at once: 5e8 by default.
                "reduce_bucket_size": min(int(unit_bytes // 4), elements),
                "allgather_bucket_size": max(int(unit_bytes // 4), 1),
                "stage3_prefetch_bucket_size": 0,
                "stage3_param_persistence_threshold": 0,
                "stage3_max_live_parameters": 0,
                "stage3_max_reuse_distance": 0,
            },
        }
        own = optimizer(trainable(model), **hyper)
        self.model, self.optimizer, _, _ = deepspeed.initialize(model=model, optimizer=own, config=config)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """As the others', but DeepSpeed scales the gradients in the step that follows, and takes the norm once more."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        require_norm(max_norm)
        self.optimizer.clip_grad = max_norm
        if self.stage == 3:
            return combine_grad_norm_groups(self.optimizer._get_norm_groups())
        return self.optimizer.scaled_global_norm()

    def step(self) -> None:
        self.model.step()
        self.optimizer.clip_grad = 0.0

    def zero_grad(self) -> None:
        self.model.zero_grad()

    def held_bytes(self) -> dict[str, int]:
        outer, inner = self.optimizer, self.optimizer.optimizer
        params = list(self._params.values())
        updated = [param for group in inner.param_groups for param in group["params"]]
        # Stage 3 shows its optimizer one group of tensors at a time, and keeps one buffer for all gradients.
        updated += getattr(outer, "fp32_partitioned_groups_flat", [])
        reduced = [outer.averaged_gradients, getattr(outer, "grad_partitions_flat_buffer", None)]
        return count_storages({
            "parameters": [*params, *(getattr(param, "ds_tensor", None) for param in params)],
            "optimizer": [*updated, *_tensors(dict(inner.state))],
            "gradients": [*(param.grad for param in [*params, *updated]), *_tensors(reduced)],
            "buckets": _tensors(vars(outer)),
        })

    @torch.no_grad()
    def full_weights(self) -> dict[str, Tensor]:
        with self._gathered(list(self._params.values())):
            return super().full_weights()


def _import(comm: Comm) -> Any:
    """DeepSpeed, told where to compute before it looks for itself, and quiet."""
    os.environ.setdefault("DS_ACCELERATOR", comm.device.type)
    try:
        import deepspeed
    except ImportError as error:
        raise ImportError("DeepSpeed is not installed. To compare with it, on Linux: "
                          "pip install -c constraints.txt -e '.[deepspeed]'") from error
    deepspeed.utils.logger.setLevel("ERROR")
    warnings.filterwarnings("ignore", r"`torch.distributed.* is deprecated", FutureWarning)
    # A C++ extension for inference, compiled for a minute or two on first use; training never calls it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _tensors(thing: Any) -> Iterator[Tensor]:
    """Every tensor that can be reached through containers and DeepSpeed's own objects, modules left out."""
    waiting, seen = [thing], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, Mapping):
            waiting += thing.values()
        elif isinstance(thing, list | tuple | set | deque):
            waiting += thing
        elif type(thing).__module__.startswith("deepspeed") and not isinstance(thing, nn.Module):
            waiting += getattr(thing, "__dict__", {}).values()
