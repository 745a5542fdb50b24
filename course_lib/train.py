"""The one training loop of the course."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


class History:
    """What happened in a run: one entry a step that was taken.

    Attributes:
        stopped: None, or why the run ended before its batches did, in a sentence.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float]] = []
        self.stopped: str | None = None

    def __len__(self) -> int:
        """Steps taken."""
        return len(self._rows)

    @property
    def loss(self) -> np.ndarray:
        """float64 (steps,): mean loss of the step's batch, before the update."""
        return self._column(0)

    @property
    def grad_norm(self) -> np.ndarray:
        """float64 (steps,): L2 norm of the whole gradient, before clipping."""
        return self._column(1)

    @property
    def lr(self) -> np.ndarray:
        """float64 (steps,): learning rate of the first parameter group."""
        return self._column(2)

    def _column(self, index: int) -> np.ndarray:
        return np.array([row[index] for row in self._rows], dtype=np.float64)


def pick_device() -> torch.device:
    """A CUDA device where there is one, else the CPU.

    Apple's MPS is not picked by itself: it has no float64, on which the course's comparisons rest. Name it to use it.
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    *,
    loss_fn: Callable[[nn.Module, Any], Tensor | tuple[Tensor, float]],
    schedule: Callable[[int], float] | None = None,
    accumulate: int = 1,
    clip: float | None = None,
    device: torch.device | str | None = None,
    callback: Callable[[int, History], None] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place, one optimizer step for every ``accumulate`` batches.

    With accumulation the gradient is that of the mean over *everything* in the group of batches. Where batches hold
    unequal numbers of targets, ``loss_fn`` must return that number too: the mean of means weighs a target in a short
    batch more than one in a long batch.

    Args:
        model: moved to ``device`` and put in training mode.
        optimizer: over the model's parameters.
        batches: tensors, or tuples, lists or dicts of them, which are moved to ``device``; anything else is passed on
            as it is. Where their number is no multiple of ``accumulate``, the last step uses those that are left.
        loss_fn: ``loss_fn(model, batch)`` returns the mean loss, a tensor of one element, or ``(mean loss, count)``,
            count > 0 being what the mean was taken over.
        schedule: maps the step, 0 for the first update, to a multiplier of each group's learning rate, as torch's
            LambdaLR does. The groups have their own rates back when the run is over.
        accumulate: batches per optimizer step, >= 1.
        clip: scale the gradient down to this L2 norm where it is longer, > 0; None does not clip.
        device: where to train; None means :func:`pick_device`.
        callback: ``callback(step, history)`` after each update.
        progress: draw a bar on stderr (needs tqdm; without it there is none).

    Returns:
        The history. A loss or gradient that is not finite ends the run before the update that would have used it: the
        weights and the history hold the last good step, and ``history.stopped`` says what happened.

    Raises:
        ValueError: an argument is out of its range, there is no batch, or the loss is not one number.
    """
    if not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"Invalid accumulate: {accumulate!r}. Allowed: a whole number >= 1.")
    if clip is not None and not clip > 0:
        raise ValueError(f"Invalid clip: {clip!r}. Allowed: a norm > 0, or None for no clipping.")
    device = pick_device() if device is None else torch.device(device)
    model.to(device).train()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    history = History()
    bar = _bar(batches, accumulate) if progress else None
    try:
        for step, group_of_batches in enumerate(_groups(batches, accumulate)):
            multiplier = 1.0 if schedule is None else schedule(step)
            for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base * multiplier
            optimizer.zero_grad()
            loss = _backward(model, params, group_of_batches, loss_fn, device)
            norm = get_total_norm([param.grad for param in params if param.grad is not None])
            history.stopped = _why_stop(step, loss, float(norm))
            if history.stopped:
                optimizer.zero_grad()
                break
            if clip is not None:
                clip_grads_with_norm_(params, clip, norm)
            optimizer.step()
            history._rows.append((loss, float(norm), float(optimizer.param_groups[0]["lr"])))
            if bar is not None:
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                bar.update()
            if callback is not None:
                callback(step, history)
    finally:
        for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = base
        if bar is not None:
            bar.close()
    if not len(history) and not history.stopped:
        raise ValueError("Invalid batches: there is none. A generator can be read only once: make a new one for each run.")
    return history


def _backward(
    model: nn.Module, params: list[Tensor], batches: list[Any], loss_fn: Callable[..., Any], device: torch.device,
) -> float:
    """Leave the gradient of the mean loss over all ``batches`` in the parameters; return that mean."""
    total_loss, total_weight, first_count = 0.0, 0.0, None
    for batch in batches:
        result = loss_fn(model, _move(batch, device))
        loss, count = result if isinstance(result, tuple) else (result, 1)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"Invalid loss from loss_fn: {got}. Allowed: the mean loss, a tensor of one element.")
        if not count > 0:
            raise ValueError(f"Invalid count from loss_fn: {count!r}. Allowed: the number of targets in the mean, > 0.")
        first_count = float(count) if first_count is None else first_count
        # Relative to the first batch: a single batch is then weighed by exactly 1, and gradients keep their scale.
        weight = float(count) / first_count
        (loss * weight).backward()
        total_loss += weight * loss.item()
        total_weight += weight
    if len(batches) > 1:
        for param in params:
            if param.grad is not None:
                param.grad.div_(total_weight)
    return total_loss / total_weight


def _why_stop(step: int, loss: float, norm: float) -> str | None:
    for what, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            return (
                f"Stopped at step {step}: the {what} is {value}. The weights are those of the step before. "
                "Try a lower learning rate, a warmup or clipping."
            )
    return None


def _groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _move(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, (tuple, list)):
        parts = [_move(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, dict):
        return {key: _move(part, device) for key, part in batch.items()}
    return batch


def _bar(batches: Iterable[Any], accumulate: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    total = math.ceil(len(batches) / accumulate) if hasattr(batches, "__len__") else None
    return tqdm(total=total, unit="step", file=sys.stderr)
