"""One run of the benchmark: train a small language model, and look at text that it never saw."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.benchmark.build import make_optimizer
from course_lib.benchmark.records import Run
from course_lib.benchmark.settings import find
from course_lib.optim import REGISTRY, ScratchOptimizer
from course_lib.optim.curvature import gauss_newton_bartlett
from course_lib.problems import text
from course_lib.problems.lm import ByteLM, LMConfig, loss_by_byte, next_byte_loss
from course_lib.schedules import Schedule, constant, cosine
from course_lib.train import train

MODEL = LMConfig(layers=2, width=32, heads=4, context=32)
BATCH = 16
WARMUP, FLOOR, CLIP = 0.1, 0.1, 1.0
CHUNK = 10  # training steps in one measurement of the time, so that what happens every tenth step is in each
_PAGE = 64  # windows at once when a loss is evaluated


def problem() -> dict[str, Any]:
    """All that every run has in common, as plain JSON values: two files with other values cannot be compared.

    The text is that of the running interpreter (:func:`course_lib.problems.text.corpus`), so its digest is among them.
    """
    return {
        "model": {"layers": MODEL.layers, "width": MODEL.width, "heads": MODEL.heads, "context": MODEL.context},
        "parameters": sum(param.numel() for param in ByteLM(MODEL).parameters()),
        "batch": BATCH,
        "schedule": f"linear warmup over {WARMUP:.0%} of the steps, then a cosine to {FLOOR:.0%}",
        "clip": CLIP,
        "text": {"bytes": len(text.corpus()), "sha256": hashlib.sha256(text.corpus()).hexdigest()[:16]},
    }


def run_one(key: str, lr: float, seed: int, steps: int) -> Run:
    """Train from scratch on the processor, and evaluate.

    The seed draws the initial weights and the batches: runs with one seed differ in the optimizer alone. The rate
    follows a linear warmup and a cosine (Schedule-Free its own warmup), and gradients are clipped to a norm of 1.

    Args:
        key: of the registry.
        lr: learning rate at the full height of the schedule, > 0.
        seed: >= 0.
        steps: updates, >= 2.

    Returns:
        The run, with two losses in nats per byte: ``tuning`` on text that rates are chosen by, and ``loss`` on text
        that nothing is chosen by. Both are None where the run diverged.

    Raises:
        ValueError: the key is unknown, or a number is out of its range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"Invalid seed: {seed!r}. Allowed: a whole number >= 0.")
    training, tuning, held_out = parts()
    model = ByteLM(MODEL, seed)
    optimizer = make_optimizer(key, model, lr, steps)
    began = time.perf_counter()
    try:
        stopped = train(
            model,
            optimizer,
            text.batches(training, BATCH, MODEL.context, steps, seed),
            loss_fn=next_byte_loss,
            schedule=schedule(key, steps),
            clip=CLIP,
            device="cpu",
            callback=_estimator(key, model, optimizer, seed),
            progress=False,
        ).stopped
    except torch.linalg.LinAlgError as error:  # the eigenvectors of a matrix that has overflowed
        stopped = f"Stopped: {error}"
    seconds = time.perf_counter() - began
    _evaluating(optimizer)
    losses = (None, None) if stopped else (mean_loss(model, tuning), mean_loss(model, held_out))
    finite = all(loss is not None and np.isfinite(loss) for loss in losses)
    stopped = stopped or (None if finite else "The loss on text that was not trained on is not finite.")
    return Run(
        key=key,
        lr=float(lr),
        seed=seed,
        steps=steps,
        setting=find(key).describe(),
        stopped=stopped,
        tuning=losses[0] if finite else None,
        loss=losses[1] if finite else None,
        seconds=round(seconds, 3),
        state_bytes=state_bytes(optimizer),
        bytes_per_parameter=round(REGISTRY[key].state_bytes_per_param, 4),
    )


def schedule(key: str, steps: int) -> Schedule:
    """The multiplier of the rate that the optimizer is run with."""
    if steps < 2:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 2, one of warmup and one after it.")
    if not find(key).scheduled:
        return constant()
    return cosine(steps, max(1, round(WARMUP * steps)), FLOOR)


@cache
def parts() -> tuple[bytes, bytes, bytes]:
    """The text that is trained on, that which rates are chosen by (about 5%), and that which results are from (10%)."""
    rest, held_out = text.split(text.corpus(), 0.1)
    training, tuning = text.split(rest, 0.05)
    return training, tuning, held_out


def mean_loss(model: ByteLM, data: bytes) -> float:
    """Mean loss in nats over all of ``data`` in windows of the model's context."""
    total, count = loss_by_byte(model, text.pages(data, _PAGE, model.config.context))
    return float(total.sum() / count.sum())


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors with at least one dimension that the optimizer holds: counters are left out."""
    found: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            if value.ndim:
                storage = value.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list | tuple):
            for each in value.values() if isinstance(value, dict) else value:
                visit(each)

    visit(list(optimizer.state.values()))
    return sum(found.values())


def step_variants(keys: Iterable[str], seed: int = 0) -> dict[str, Callable[[], object]]:
    """For each optimizer a function that makes ``CHUNK`` training steps, ready for a timer that calls them in turn.

    Each has a model of its own and goes on from where it was, at a low rate, so that nothing diverges. What an
    optimizer does every tenth step is in each call.
    """
    return {key: _chunks(key, find(key).rate / 32, seed).__next__ for key in keys}


def _chunks(key: str, lr: float, seed: int) -> Iterator[None]:
    model = ByteLM(MODEL, seed)
    optimizer = make_optimizer(key, model, lr)
    estimate = _estimator(key, model, optimizer, seed)
    batches = list(text.batches(parts()[0], BATCH, MODEL.context, CHUNK, seed))
    while True:
        history = train(
            model,
            optimizer,
            batches,
            loss_fn=next_byte_loss,
            clip=CLIP,
            device="cpu",
            callback=estimate,
            progress=False,
        )
        if history.stopped:
            raise RuntimeError(f"The time of {key} cannot be measured. {history.stopped}")
        yield


def _estimator(key: str, model: ByteLM, optimizer: ScratchOptimizer, seed: int) -> Callable[[int, object], None] | None:
    """Sophia's estimates of the curvature, as a callback after each step; the first is made at once.

    Labels come from the model, so that an estimate learns nothing from the text but its inputs, batches of their own.
    """
    every = find(key).estimate_every
    if every is None:
        return None
    rng = np.random.default_rng([seed, every])
    params = [param for group in optimizer.param_groups for param in group["params"]]

    def after(step: int, history: object = None) -> None:
        if (step + 1) % every == 0:
            batch = text.batches(parts()[0], BATCH, MODEL.context, 1, int(rng.integers(2**63)))
            logits = model(next(batch)[0])
            if logits.isfinite().all():  # else there is no distribution to draw from, and training stops by itself
                optimizer.update_hessian(estimate=gauss_newton_bartlett(logits, params, rng))

    after(-1)
    return after


def _evaluating(optimizer: ScratchOptimizer) -> None:
    """Let the model hold the weights that are to be evaluated: Schedule-Free's average."""
    if hasattr(optimizer, "eval"):
        optimizer.eval()
