"""Every catalogued mistake as a class that a learner could hand in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from course_lib.checks.mistakes import Mistake
from course_lib.checks.mistakes.engine import Layout
from course_lib.checks.specs import SPECS


def candidate(key: str, *mistakes: Mistake) -> type[torch.optim.Optimizer]:
    """An optimizer of the family ``key`` that makes these mistakes, computed by the catalogue's own formulas."""
    spec = SPECS[key]

    class Catalogued(torch.optim.Optimizer):
        def __init__(self, params: Any, **hyper: Any) -> None:
            super().__init__(params, {**spec.defaults, **hyper})
            self.simulation = None

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            parameters = [p for group in self.param_groups for p in group["params"]]
            hypers = [{name: group[name] for name in spec.defaults} for group in self.param_groups]
            if self.simulation is None:
                owner = [index for index, group in enumerate(self.param_groups) for _ in group["params"]]
                self.layout = Layout([p.double().numpy() for p in parameters], owner, hypers)
                self.simulation = spec.family.simulation(self.layout, *mistakes)
            has = np.asarray([p.grad is not None for p in parameters])[self.layout.tensor]
            flat = np.concatenate(
                [np.zeros(p.numel()) if p.grad is None else p.grad.double().numpy().ravel() for p in parameters]
            )
            moved = torch.from_numpy(self.simulation.step(has, flat, self.layout.flat(hypers)))
            for p, values in zip(parameters, moved.split([p.numel() for p in parameters]), strict=True):
                p.copy_(values.view(p.shape))
            return loss

    return Catalogued
