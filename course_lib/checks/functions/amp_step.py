"""The exercise `amp_step`: one optimizer step under loss scaling, over micro-batches, with clipping.

Every call of the candidate is judged by what it leaves behind (weights, scale, count of clean steps), beside a step made
here without a scaler. Scaler, optimizer and loss take notes meanwhile; where something is wrong, they say why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.amp_faults import faults
from course_lib.checks.functions.amp_gradients import Call, times
from course_lib.checks.functions.amp_notes import BARE_STEP, Notes, NotingScaler, NotingSGD, finite
from course_lib.checks.functions.common import Progress, guarded
from course_lib.checks.report import REMARK, Finding

CLOSE = 1e-4  # of the way gone: admits any order of float32 sums, and torch's 1e-6 beside the norm
ROUNDING = 1e-6  # of a weight, a few roundings of float32
LR, MOMENTUM = 0.05, 0.9
SCALE, GROWTH_INTERVAL = 256.0, 2
DEFAULT_SCALE = 65536.0  # torch's, and more than float16 holds
NEVER = 1e6  # a max_norm that no gradient reaches
HUGE = 1e37  # a weight of the loss whose gradient is finite, and infinite when it is scaled

Batch = tuple[Tensor, Tensor, float]


class _Model(nn.Module):
    """Two layers that are trained, in two groups, and between them one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(5)
        with torch.random.fork_rng(devices=[]):
            self.first, self.frozen, self.last = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        for parameter in self.parameters():
            parameter.data.copy_(torch.tensor(rng.normal(size=parameter.shape)))
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(x)))))


def _mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y, weight = batch
    return weight * ((model(x) - y) ** 2).mean()


def _micro_batches(sizes: Sequence[int], seed: int, weights: Mapping[int, float] = MappingProxyType({})) -> list[Batch]:
    """Micro-batches of these numbers of examples; ``weights`` of the loss, by number, where they are not 1."""
    rng = np.random.default_rng(seed)
    made = []
    for i, size in enumerate(sizes):
        x, y = (torch.tensor(rng.normal(size=(size, n)), dtype=torch.float32) for n in (3, 2))
        made.append((x, (1 + i) * y, weights.get(i, 1.0)))
    return made


# Each call: its micro-batches, max_norm, and what is special about it, in words. A bound of 0.7 is no bound times a
# number of micro-batches, and three of them are not two: so mistakes that meet elsewhere are told apart.
_Step = tuple[list[Batch], float, str]
_CALLS: tuple[_Step, ...] = (
    (_micro_batches((5, 2, 6), 1), NEVER, "3 micro-batches, nothing to clip"),
    (_micro_batches((4, 4, 2), 2), 0.7, "3 micro-batches, a gradient to be clipped"),
    (_micro_batches((4, 4, 4), 3, {2: HUGE}), 0.7, "3 micro-batches, of which the last overflows"),
    (_micro_batches((4, 4, 4, 4), 4), 0.7, "4 micro-batches, a gradient to be clipped, after the overflow"),
    (_micro_batches((4,), 5), NEVER, "1 micro-batch, nothing to clip"),
    (_micro_batches((4,), 6), 0.7, "1 micro-batch, a gradient to be clipped"),
    (_micro_batches((4, 4, 4), 7, {1: math.inf}), 0.7, "3 micro-batches, of which the second has an infinite loss"),
)


class _Setting:
    """A model, its optimizer and a scaler, and beside them the weights and the scale as they should be."""

    def __init__(self, scale: float = SCALE, enabled: bool = True) -> None:
        self.model = _Model()
        groups = [list(self.model.first.parameters()), list(self.model.last.parameters())]
        self.groups = tuple(len(group) for group in groups)
        self.trained = [p for group in groups for p in group]
        self.scaler = NotingScaler("cpu", init_scale=scale, growth_interval=GROWTH_INTERVAL, enabled=enabled)
        self.optimizer = NotingSGD([{"params": group} for group in groups], lr=LR, momentum=MOMENTUM)
        self.optimizer.scaler = self.scaler
        for p in self.trained:
            p.register_post_accumulate_grad_hook(lambda _: self.scaler.notes.accumulated(self.trained))
        self.enabled = enabled
        self.scale, self.clean = (scale if enabled else 1.0), 0
        self.buffers = [torch.zeros_like(p) for p in self.trained]

    def call(self, candidate: Callable[..., Any], batches: list[Batch], max_norm: float, said: str) -> list[Finding]:
        """Let the candidate make one step, and say what is wrong with it."""
        notes = self.scaler.notes = Notes()
        made = Call(
            notes=notes,
            said=said,
            micro=[list(torch.autograd.grad(_mean_loss(self.model, batch), self.trained)) for batch in batches],
            scale=self.scale,
            max_norm=max_norm,
            groups=self.groups,
            sizes=[len(x) for x, _, _ in batches],
        )
        before, weights = [p.detach().clone() for p in self.trained], self._expected(made)
        loss_fn = self._loss_fn(notes, batches)
        try:
            with watched(f"it makes a step of {said}"):
                candidate(self.model, loss_fn, list(batches), self.optimizer, self.scaler, max_norm)
        except Stopped as stop:
            if stop.finding.code in ("blank", "exits", "memory", "endless", "signature"):
                raise
            return faults(made, stop.finding)
        made.left = [p.grad for p in self.trained if p.grad is not None]
        made.rates = (LR, [group["lr"] for group in self.optimizer.param_groups])
        if set(made.rates[1]) != {LR} or not _arrived(self.trained, weights, before):
            return faults(made)
        if self.enabled and (self.scaler.get_scale(), self.scaler._get_growth_tracker()) != (self.scale, self.clean):
            return faults(made)
        return list(_remarks(notes))

    def _loss_fn(self, notes: Notes, batches: list[Batch]) -> Callable[[nn.Module, Batch], Tensor]:
        def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
            """The mean loss of a micro-batch, a tensor of one element."""
            notes.autocast |= torch.is_autocast_enabled("cpu")
            notes.losses += [i for i, each in enumerate(batches) if each is batch]
            loss = _mean_loss(model, batch)
            if loss.requires_grad:
                loss.register_hook(lambda factor: notes.backward(self.trained, float(factor)))
            return loss

        loss_fn.__qualname__ = "loss_fn"  # as an exception calls it
        return loss_fn

    def _expected(self, made: Call) -> list[Tensor]:
        """The weights after the step; scale, count and buffers are brought up to date."""
        gradients = made.mean
        if not finite(times(gradients, self.scale)):
            made.overflows = True
            self.scale, self.clean = self.scale / 2, 0
            return [p.detach().clone() for p in self.trained]
        self.buffers = [MOMENTUM * b + g for b, g in zip(self.buffers, made.right, strict=True)]
        self.clean += 1
        if self.clean == GROWTH_INTERVAL and self.enabled:
            self.scale, self.clean = 2 * self.scale, 0
        return [p.detach() - LR * b for p, b in zip(self.trained, self.buffers, strict=True)]


def _remarks(notes: Notes) -> Iterator[Finding]:
    """What is right, and could be better."""
    if notes.backwards == 1 < len(notes.factors):
        yield Finding(
            "graphs-kept",
            "One backward runs through the sum of all losses: the activations of every micro-batch are kept until then.",
            "Micro-batches are there to save memory: a backward each frees the activations of each.",
            REMARK,
        )
    if notes.count(BARE_STEP):
        yield Finding(
            "own-check",
            "`optimizer.step` is called after a check of your own: right, but the gradients are gone over twice.",
            "`scaler.step(optimizer)` knows from `unscale_` whether anything was infinite.",
            REMARK,
        )


def _arrived(got: list[Tensor], want: list[Tensor], before: list[Tensor]) -> bool:
    """Whether the weights are where they should be; how near counts is measured by how far they had to go."""
    way = max(float((w - b).abs().max()) for w, b in zip(want, before, strict=True))
    return all(bool(((g - w).abs() <= ROUNDING * w.abs() + CLOSE * way).all()) for g, w in zip(got, want, strict=True))


def judge_amp_step(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: steps with a scaler, two of which overflow, and two with one switched off."""
    findings = guarded(candidate, lambda: _judged(candidate, progress))
    return list({finding.code: finding for finding in findings}.values())


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    setting, remarks = _Setting(), []
    for number, (batches, max_norm, said) in enumerate(_CALLS, 1):
        progress(f"making step {number}: {said}")
        found = setting.call(candidate, batches, max_norm, said)
        if _wrong(found):
            return _with(found, remarks)
        remarks += found
    batches, max_norm, said = _CALLS[0]
    found = _Setting(DEFAULT_SCALE).call(candidate, batches, max_norm, f"{said}, at the scale that torch begins with")
    if _wrong(found):
        return _with(found, remarks)
    progress("making a step with a scaler that is switched off")
    setting = _Setting(enabled=False)
    for batches, max_norm, said in _CALLS[:2]:
        found = setting.call(candidate, batches, max_norm, f"{said}, with a scaler that is switched off")
        if _wrong(found):
            return _with([_needs_enabled(found[0])], remarks)
    return remarks


def _wrong(findings: list[Finding]) -> bool:
    return any(finding.kind != REMARK for finding in findings)


def _with(wrong: list[Finding], remarks: list[Finding]) -> list[Finding]:
    """What is wrong, then what was remarked before; that a check of its own is right is not said of what is wrong."""
    return [*wrong, *(remark for remark in remarks if remark.code != "own-check")]


def _needs_enabled(finding: Finding) -> Finding:
    return Finding(
        "needs-enabled",
        "Right with a scaler, but not with `GradScaler(enabled=False)`, which bf16 runs use with the same loop: "
        f"{finding.what[0].lower()}{finding.what[1:]}",
        "Let the scaler's own methods do everything; switched off, each of them does the plain thing.",
    )
