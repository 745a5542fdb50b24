"""Five ways in which a training run fails, and a sound one: real runs of the small language model, with their logs.

And what one does then: go back to the last weights that were sound, replay the step, and ask four questions.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from course_lib.problems import text
from course_lib.problems.lm import ByteLM, LMConfig
from course_lib.problems.watched_lm import WatchedLM

CONFIG = LMConfig(layers=2, width=32, heads=4, context=32)
BATCH = 16
BAD_STEP = 40
"""The step, counted from 0, at which "bad batch", "overflow" and "division" get a batch that is not an ordinary one."""

SATURATED = 50.0
"""Attention logits from here on make softmax a hard choice: two that differ by 50 have weights 1 and 2e-22."""

JUMP = 5.0
"""How many times its own recent median a gradient norm must be to count as a jump."""

FAULTS: dict[str, str] = {
    "rate": "learning rate too high: SGD with momentum 0.9 at lr = 3",
    "overflow": "16-bit overflow: fp16 with a fixed loss scale, and a batch whose gradient is larger than ever before",
    "bad batch": "a bad batch: random bytes",
    "division": "0 / 0: a batch whose targets are all masked, and a mean that divides by their number",
    "attention": "exploding attention logits: the matrices of queries, keys and values train at lr = 0.1",
    "sound": "nothing",
}
"""What was done to each run, in words."""


@dataclass(eq=False)
class Run:
    """What the log of a run holds, and what is needed to replay its most suspicious step.

    Attributes:
        loss, grad_norm, update, logit: float64 (steps,): loss before the step; L2 norm of the whole gradient; L2 norm
            of what was taken from all weights; largest attention logit. NaN and infinities as they came.
        at: the step to replay, counted from 0: the first with anything non-finite; without one, that with the largest
            gradient norm over its own recent median.
        weights: the state dict before that step.
        batch: its inputs and targets, int64 (16, 32).
        counted: bool (16, 32), the targets that its loss counts.
    """

    loss: np.ndarray
    grad_norm: np.ndarray
    update: np.ndarray
    logit: np.ndarray
    at: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    batch: tuple[Tensor, Tensor] = field(default=(torch.empty(0), torch.empty(0)), repr=False)
    counted: Tensor = field(default=torch.empty(0), repr=False)

    def series(self) -> dict[str, np.ndarray]:
        """The four columns of the log by name, to be drawn."""
        return {"loss": self.loss, "gradient norm": self.grad_norm, "length of the step": self.update,
                "largest attention logit": self.logit}


def masked_mean(model: nn.Module, batch: tuple[Tensor, Tensor], counted: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the targets that count, as many training scripts write it: 0 / 0 without any."""
    inputs, targets = batch
    losses = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * counted.flatten()).sum() / counted.sum()


def run(fault: str, steps: int = 60) -> Run:
    """Train the language model on the CPU with one fault in it, and keep the log; it ends where the weights become NaN.

    Args:
        fault: a key of :data:`FAULTS`.
        steps: > BAD_STEP; the log has as many rows, NaN after the end.

    Raises:
        ValueError: the fault is unknown, or the run too short for it to show.
    """
    if fault not in FAULTS:
        near = difflib.get_close_matches(str(fault), FAULTS, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Invalid fault: {fault!r}. Allowed: {', '.join(map(repr, FAULTS))}.{guess}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps <= BAD_STEP:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number > {BAD_STEP}, where the fault has shown.")
    model = WatchedLM(CONFIG)
    optimizer = _optimizer(fault, model)
    scale = 2.0**15 if fault == "overflow" else 1.0
    rows, states = [], []
    training, _ = text.split(text.corpus())
    for step, ordinary in enumerate(text.batches(training, BATCH, CONFIG.context, steps, seed=0)):
        batch, counted = _batch(fault, step, ordinary)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.autocast("cpu", dtype=torch.float16, enabled=fault == "overflow"):
            loss = masked_mean(model, batch, counted)
        optimizer.zero_grad()
        (loss * scale).backward()
        for param in model.parameters():
            param.grad.div_(scale)
        norm = get_total_norm([param.grad for param in model.parameters()]).item()
        optimizer.step()
        moved = get_total_norm([param.detach() - before[name] for name, param in model.named_parameters()]).item()
        rows.append((loss.item(), norm, moved, model.largest_logit))
        states.append((before, batch, counted))
        if not math.isfinite(moved):
            break
    columns = np.full((steps, 4), np.nan)
    columns[: len(rows)] = rows
    found = Run(*columns.T.copy())
    found.at = _suspicious(columns[: len(rows)])
    found.weights, found.batch, found.counted = states[found.at]
    return found


def _optimizer(fault: str, model: nn.Module) -> torch.optim.Optimizer:
    if fault == "rate":
        return torch.optim.SGD(model.parameters(), lr=3.0, momentum=0.9)
    fast = [param for name, param in model.named_parameters() if name.endswith("attention_in.weight")]
    rest = [param for name, param in model.named_parameters() if not name.endswith("attention_in.weight")]
    groups = [{"params": fast, "lr": 0.1 if fault == "attention" else 3e-3}, {"params": rest}]
    return torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))


def _batch(fault: str, step: int, ordinary: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    inputs, targets = ordinary
    counted = torch.ones_like(targets, dtype=torch.bool)
    if step == BAD_STEP and fault == "bad batch":
        rng = np.random.default_rng(1)
        inputs, targets = (torch.from_numpy(rng.integers(0, 256, tuple(inputs.shape))) for _ in range(2))
    elif step == BAD_STEP and fault == "overflow":
        # Sound data, but rare: the ruler above a table.
        inputs, targets = torch.full_like(inputs, ord("-")), torch.full_like(targets, ord("="))
    elif step == BAD_STEP and fault == "division":
        counted = torch.zeros_like(counted)
    return (inputs, targets), counted


def _suspicious(rows: np.ndarray) -> int:
    """The first step with anything non-finite, else that with the greatest jump of the gradient norm."""
    broken = ~np.isfinite(rows).all(axis=1)
    return int(broken.argmax()) if broken.any() else int(jumps(rows[:, 1]).argmax())


def jumps(grad_norm: np.ndarray) -> np.ndarray:
    """Each gradient norm over the median of up to 20 before it; 1 for the first five, which have too few."""
    ratios = np.ones(len(grad_norm))
    for step in range(5, len(grad_norm)):
        ratios[step] = grad_norm[step] / np.median(grad_norm[max(0, step - 20) : step])
    return ratios


@dataclass(frozen=True)
class Finding:
    """What the replay of a run's suspicious step answered.

    Attributes:
        first: which of "loss", "gradient", "update" was the first to be non-finite; None if nothing was.
        same_batch: whether loss and gradient are finite when the step is replayed in float32.
        other_batch: whether they are with the same weights and another batch.
        jump: the gradient norm there over its recent median.
        logit: the largest attention logit of all steps with a finite loss.
        verdict: a key of :data:`FAULTS`.
    """

    first: str | None
    same_batch: bool
    other_batch: bool
    jump: float
    logit: float
    verdict: str


def diagnose(found: Run) -> Finding:
    """Replay the suspicious step of ``found`` and name the fault.

    The questions, in order:

    1. Was anything non-finite? Replay the step in float32. If it is finite now, 16 bits overflowed.
    2. If it is not, take another batch. If that one is finite, the batch or an operation on it is at fault.
    3. If neither is finite, the weights are gone already: the rate.
    4. If nothing was non-finite: attention logits that have grown to :data:`SATURATED` and more are the attention; else
       a jump of the gradient norm from one step to the next is a batch.
    """
    at = found.at
    links = {"loss": found.loss, "gradient": found.grad_norm, "update": found.update}
    first = next((name for name, value in links.items() if not math.isfinite(value[at])), None)
    training, _ = text.split(text.corpus())
    other = next(text.batches(training, BATCH, CONFIG.context, 1, seed=1))
    same_batch = _is_finite(found.weights, found.batch, found.counted)
    other_batch = _is_finite(found.weights, other, torch.ones_like(found.counted))
    jump = float(jumps(found.grad_norm)[at]) if first is None else math.nan
    logit = float(found.logit[np.isfinite(found.loss)].max())
    if first is not None:
        verdict = "overflow" if same_batch else "division" if other_batch else "rate"
    else:
        verdict = "attention" if logit > SATURATED else "bad batch" if jump > JUMP else "sound"
    return Finding(first, same_batch, other_batch, jump, logit, verdict)


def _is_finite(weights: dict[str, Tensor], batch: tuple[Tensor, Tensor], counted: Tensor) -> bool:
    model = ByteLM(CONFIG)
    model.load_state_dict(weights)
    loss = masked_mean(model, batch, counted)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return math.isfinite(loss.item()) and math.isfinite(get_total_norm(grads).item())


def first_nonfinite(model: nn.Module, step: Callable[[], Tensor]) -> str | None:
    """Name of the first module whose output holds a NaN or an infinity while ``step()`` computes; None if none does.

    Args:
        model: with forward hooks on each module for the time of the call.
        step: runs the model, without arguments; what it returns is ignored.
    """
    seen: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                seen.append(name)

        return hook

    handles = [module.register_forward_hook(look(name or "the whole")) for name, module in model.named_modules()]
    try:
        step()
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None
