"""The training run that is saved and resumed in the exercise `resume_state`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.functions.resume_states import equal
from course_lib.optim import (
    AdamW,  # torch's own loads torch's compiler at its first step, for seconds
)

PARTS = ("model", "optimizer", "scheduler", "scaler", "generator")


class CountingAdamW(AdamW):
    """AdamW whose ``step`` is a tensor that is counted up in place, one per parameter, as torch's is."""

    def step(self, closure: Any = None) -> Any:
        counts = {p: state["step"] for p, state in self.state.items() if isinstance(state.get("step"), Tensor)}
        loss = super().step(closure)
        for p, state in self.state.items():
            count = counts.get(p, torch.zeros(()))
            state["step"] = count.fill_(state["step"])
        return loss


class Run:
    """A small training run: batch norm, AdamW, a schedule, a loss scaler, and batches drawn from a generator.

    A dropout is switched off, as the layers are that a fine-tuning freezes: not all modules are in training mode.
    """

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1), nn.Dropout(0.1))
        for parameter in self.model.parameters():
            parameter.data.copy_(torch.tensor(rng.normal(size=parameter.shape)))
        self.model[4].eval()
        self.optimizer = CountingAdamW(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + 0.1 * step))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=3)
        self.generator = torch.Generator().manual_seed(7)

    def step(self) -> dict[str, Any]:
        """One step; what a training log would say of it."""
        x = torch.randn(8, 4, generator=self.generator)
        target = (x[:, :1] - 2 * x[:, 1:2]).detach()
        lr = self.scheduler.get_last_lr()[0]
        loss = ((self.model(x) - target) ** 2).mean()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return {"batch": x, "loss": loss.item(), "learning rate": lr, "scale": self.scaler.get_scale()}

    def steps(self, count: int) -> list[dict[str, Any]]:
        return [self.step() for _ in range(count)]

    def save(self, function: Callable[..., Any]) -> Any:
        return function(self.model, self.optimizer, self.scheduler, self.scaler, self.generator)

    def modes(self) -> dict[str, str]:
        """Of each module, whether it is in training mode."""
        return {name: "train" if module.training else "eval" for name, module in self.model.named_modules()}

    def gradients(self) -> list[Tensor | None]:
        """Copies of the gradients that are there."""
        return [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]

    def noticed(self, modes: dict[str, str], gradients: list[Tensor | None]) -> str:
        """What of the run has changed since, beside what state dicts hold, in words; empty if nothing."""
        for name, mode in self.modes().items():
            if mode != modes[name]:
                which = f"the module {name!r}" if name else "the model"
                return f"{which} was in {modes[name]} mode and is in {mode} mode (`train()` switches every module)"
        if not equal(self.gradients(), gradients):
            return "its gradients are not what they were: what micro-batches have added up so far is lost"
        return ""

    def load(self, part: str, state: Any) -> None:
        """Load one part, as a resume does."""
        if part == "generator":
            self.generator.set_state(state)
        else:
            getattr(self, part).load_state_dict(state)
