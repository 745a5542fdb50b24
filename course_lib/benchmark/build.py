"""An optimizer of the registry over a model, with the benchmark's settings."""

from __future__ import annotations

import math

from torch import nn

from course_lib.benchmark.settings import STEPS, find
from course_lib.groups import muon_groups, parameter_groups
from course_lib.optim import REGISTRY, ScratchOptimizer


def make_optimizer(key: str, model: nn.Module, lr: float, steps: int = STEPS) -> ScratchOptimizer:
    """The course's own optimizer over all of ``model``, as the benchmark uses it.

    Weight decay spares embeddings, norms and biases. Muon gets the hidden matrices, and AdamW with the same rate the
    rest, which the factor of "match_rms_adamw" makes possible.

    Args:
        key: of the registry.
        model: any module with named parts (:mod:`course_lib.groups`).
        lr: learning rate at the full height of the schedule, > 0.
        steps: updates in the run, >= 1, for what is counted in steps: Schedule-Free's warmup, AdEMAMix's two.

    Raises:
        ValueError: the key is unknown, or the rate or the steps are out of range.
    """
    setting = find(key)
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"Invalid lr: {lr!r}. Allowed: a finite number > 0.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 1.")
    counts = {name: max(1, round(share * steps)) for name, share in setting.shares.items()}
    if key == "muon":
        groups = muon_groups(model, lr=lr, adamw_lr=lr, weight_decay=setting.decay)
        for group in groups:
            if group["adamw"]:
                group["betas"] = find("adamw").hyper["betas"]
    else:
        groups = parameter_groups(model, lr=lr, weight_decay=setting.decay)
    return REGISTRY[key].make(groups, lr=lr, **setting.hyper, **counts)
