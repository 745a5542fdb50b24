"""Every engine on one small language model: where its weights end, what a rank holds, what it sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.memory.predict import predict
from course_lib.optim import REGISTRY
from course_lib.parallel.comm import Comm
from course_lib.parallel.traffic import Traffic, sent_bytes
from course_lib.problems.lm import ByteLM, LMConfig, next_byte_loss
from course_lib.problems.text import batches, corpus

MODEL = LMConfig(layers=2, width=32, heads=2, context=32)
"""42,880 parameters, which 2 and 4 ranks divide evenly, unit by unit."""

BATCH = 12
"""Sequences in a batch, which 1, 2, 3 and 4 ranks share evenly."""

UNIT_BYTES = 64_000
"""So that the small model has several units."""


@dataclass(frozen=True)
class Row:
    """What one rank saw of one engine.

    Attributes:
        engine: a key of :data:`ENGINES`.
        rank, ranks: which of how many.
        held: bytes after the backward pass and before the step: ``parameters``, ``gradients``, ``optimizer``.
        predicted: the same by ZeRO's formulas for the engine's stage (:func:`course_lib.memory.predict.predict`).
        sent: bytes that this rank sent in the last step, if each collective goes around a ring.
        calls: what they were: name to (count, bytes of the whole tensors).
        apart: the largest difference of a weight from training in one process.
        losses: of this rank's part of each batch, in nats per byte.
    """

    engine: str
    rank: int
    ranks: int
    held: dict[str, int]
    predicted: dict[str, int]
    sent: float
    calls: dict[str, tuple[int, int]]
    apart: float
    losses: list[float] = field(repr=False)


@dataclass(frozen=True)
class _Kind:
    """How to make an engine: ``make(model, comm, key, precision, hyper)``, and whose stage it is."""

    stage: int
    make: Callable[..., Any]
    mixed: bool = True  # has it a mixed precision with float32 masters?


def _ours(name: str) -> Callable[..., Any]:
    def make(model: nn.Module, comm: Comm, key: str, precision: str, hyper: dict[str, Any]) -> Any:
        from course_lib.parallel.data_parallel import DataParallel
        from course_lib.parallel.zero1 import Zero1
        from course_lib.parallel.zero2 import Zero2
        from course_lib.parallel.zero3 import Zero3

        stage = {"data-parallel": DataParallel, "zero-1": Zero1, "zero-2": Zero2, "zero-3": Zero3}[name]
        return stage(model, comm, key, precision=precision, unit_bytes=UNIT_BYTES, **hyper)

    return make


def _theirs(name: str, **settings: Any) -> Callable[..., Any]:
    def make(model: nn.Module, comm: Comm, key: str, precision: str, hyper: dict[str, Any]) -> Any:
        from course_lib.parallel import production

        own = {"precision": precision} if name in ("FSDP2", "DeepSpeedEngine") else {}
        return getattr(production, name)(model, comm, REGISTRY[key].production, **settings, **own, **hyper)

    return make


ENGINES: dict[str, _Kind] = {
    "data-parallel": _Kind(0, _ours("data-parallel")),
    "zero-1": _Kind(1, _ours("zero-1")),
    "zero-2": _Kind(2, _ours("zero-2")),
    "zero-3": _Kind(3, _ours("zero-3")),
    "torch-ddp": _Kind(0, _theirs("TorchDDP"), mixed=False),
    "torch-zero": _Kind(1, _theirs("TorchZero"), mixed=False),
    "torch-fsdp2": _Kind(3, _theirs("FSDP2", reshard_after_forward=True)),
    "deepspeed-1": _Kind(1, _theirs("DeepSpeedEngine", stage=1)),
    "deepspeed-2": _Kind(2, _theirs("DeepSpeedEngine", stage=2)),
    "deepspeed-3": _Kind(3, _theirs("DeepSpeedEngine", stage=3)),
}
"""The engines by name: the course's four, then those of torch and of DeepSpeed (the extra ``deepspeed``)."""

OURS = tuple(ENGINES)[:4]
TORCH = tuple(ENGINES)[4:7]


def run(
    comm: Comm,
    engines: Sequence[str] = OURS,
    *,
    optimizer: str = "adamw",
    precision: str = "fp32",
    steps: int = 4,
    dtype: torch.dtype = torch.float32,
    config: LMConfig = MODEL,
    **hyper: Any,
) -> list[Row]:
    """Train the model with each engine on the ranks of ``comm``, and say what this rank saw.

    The batches are the same for all: rank r takes the r-th part of each. The gradient is clipped to norm 1.

    Args:
        comm: the ranks; 1, 2, 3, 4, 6 or 12 of them.
        engines: keys of :data:`ENGINES`.
        optimizer: a key of the registry.
        precision: "fp32", or "mixed-bf16" for those engines that have it.
        steps: >= 1.
        dtype: of the model, before a mixed precision rounds it.
        config: size of the model.
        hyper: of the optimizer; lr is 1e-3 if it is not given.

    Raises:
        ValueError: an unknown name, one without this precision, or ranks that cannot share the batch.
        RuntimeError: a gradient is not finite; the same on every rank.
    """
    _check(comm, engines, precision, steps)
    hyper = {"lr": 1e-3} | hyper
    data = [(x.to(comm.device), y.to(comm.device)) for x, y in batches(corpus(), BATCH, config.context, steps, seed=0)]
    wanted = _alone(optimizer, hyper, data, _model(config, dtype, comm.device))
    rows = []
    for name in engines:
        model = _model(config, dtype, comm.device)
        engine = ENGINES[name].make(model, comm, optimizer, precision, hyper)
        rows.append(_row(name, engine, data, wanted, _predicted(name, comm, optimizer, precision, wanted)))
    return rows


def _check(comm: Comm, engines: Sequence[str], precision: str, steps: int) -> None:
    for name in engines:
        if name not in ENGINES:
            raise ValueError(f"Unknown engine: {name!r}. Allowed: {', '.join(ENGINES)}.")
        if precision != "fp32" and not ENGINES[name].mixed:
            raise ValueError(f"{name} has no master weights of its own. Run it with precision fp32.")
    if BATCH % comm.ranks:
        raise ValueError(f"{comm.ranks} ranks cannot share a batch of {BATCH} evenly. Use 1, 2, 3, 4, 6 or 12.")
    if steps < 1:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 1.")


def _model(config: LMConfig, dtype: torch.dtype, device: torch.device) -> ByteLM:
    return ByteLM(config).to(device, dtype)


def _alone(key: str, hyper: dict[str, Any], data: list[Any], model: nn.Module) -> dict[str, Tensor]:
    """Weights after training in one process, in the model's own dtype whatever the precision of the engines."""
    optimizer = REGISTRY[key].make(model.parameters(), **hyper)
    for batch in data:
        optimizer.zero_grad()
        next_byte_loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {name: param.detach() for name, param in model.named_parameters()}


def _row(name: str, engine: Any, data: list[Any], wanted: dict[str, Tensor], predicted: dict[str, int]) -> Row:
    comm = engine.comm
    losses: list[float] = []
    mine = slice(comm.rank * BATCH // comm.ranks, (comm.rank + 1) * BATCH // comm.ranks)
    for inputs, targets in data:
        engine.zero_grad()
        with Traffic() as traffic:
            loss = next_byte_loss(engine.model, (inputs[mine], targets[mine]))
            loss.backward()
            held = engine.held_bytes()
            norm = engine.clip_grad_norm_(1.0)
            if not norm.isfinite():
                raise RuntimeError(f"Stopped at step {len(losses)}: the gradient norm is {norm.item()}, with a loss of "
                                   f"{loss.item():.3f} on rank {comm.rank}. Try a lower learning rate.")
            engine.step()
        losses.append(loss.item())
    found = engine.full_weights()
    return Row(
        engine=name,
        rank=comm.rank,
        ranks=comm.ranks,
        held=held,
        predicted=predicted,
        sent=sent_bytes(traffic.data),
        calls=traffic.summary(),
        apart=max(float((found[one] - wanted[one]).abs().max()) for one in wanted),
        losses=losses,
    )


def _predicted(name: str, comm: Comm, key: str, precision: str, weights: dict[str, Tensor]) -> dict[str, int]:
    elements = sum(weight.numel() for weight in weights.values())
    width = next(iter(weights.values())).element_size()
    sharded = {"zero": ENGINES[name].stage, "gpus": comm.ranks} if comm.ranks > 1 else {}
    wanted = predict(elements, optimizer=key, precision=precision, **sharded)
    times = width // 4 if precision == "fp32" else 1  # what is predicted is float32
    return {part: times * getattr(wanted, part) for part in ("parameters", "gradients", "optimizer")}
