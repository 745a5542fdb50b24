"""The exercise of notebook 05 that asks for a function: parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Judge, Progress, not_a_function
from course_lib.checks.guards import Guards
from course_lib.checks.report import Finding


class _Tied(nn.Module):
    """Everything a rule for weight decay has to cope with: tied, frozen and bare parameters, norms, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.weights = nn.Parameter(torch.ones(4))  # a gain, whatever its name
        self.bias_table = nn.Parameter(torch.zeros(3, 4))  # a matrix, whatever its name
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight


def _decay_groups(candidate: Any, progress: Progress) -> list[Finding]:
    if findings := not_a_function(candidate):
        return findings
    progress("splitting a model's parameters")
    with torch.random.fork_rng(devices=[]):
        model = _Tied()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with Guards(watch_production=False) as guards:
        try:
            with watched("it is called with a model"):
                groups = candidate(model, 0.1)
                groups = [dict(group, params=list(group["params"])) for group in groups]
        except Stopped as stop:
            return [stop.finding]
        findings = guards.changes()
    tensors = [parameter for group in groups for parameter in group["params"]]
    if any(not isinstance(parameter, Tensor) for parameter in tensors):
        return [
            Finding(
                "not-tensors",
                "The groups hold something other than parameters.",
                "torch wants the tensors, not their names.",
            )
        ]
    counted = [id(parameter) for parameter in tensors]
    twice = sorted({names[i] for i in counted if counted.count(i) > 1 and i in names})
    if twice:
        findings.append(
            Finding(
                "twice",
                f"{', '.join(twice)}: in the groups more than once, which torch refuses.",
                "One tensor can have two names in a model: tied weights.",
            )
        )
    frozen = sorted(
        {names[i] for i in counted if i in names and not dict(model.named_parameters())[names[i]].requires_grad}
    )
    if frozen:
        findings.append(
            Finding(
                "frozen",
                f"{', '.join(frozen)}: frozen, and yet in a group.",
                "Leave out what does not require gradients.",
            )
        )
    lost = sorted({names[id(parameter)] for parameter in trainable if id(parameter) not in counted})
    if lost:
        findings.append(
            Finding(
                "lost",
                f"{', '.join(lost)}: in no group, so never trained.",
                "Does every parameter pass one of your tests?",
            )
        )
    decay = {id(parameter): group.get("weight_decay") for group in groups for parameter in group["params"]}
    for parameter in trainable:
        want = 0.1 if parameter.dim() >= 2 else 0.0
        got = decay.get(id(parameter), want)
        if got is None:
            findings.append(
                Finding(
                    "decay-unset",
                    "A group has no weight_decay of its own: it takes the optimizer's default, 0.01 in AdamW.",
                    "Say 0.0 where you mean it.",
                )
            )
        elif got != want:
            kind = "a vector (a gain or a bias)" if parameter.dim() < 2 else "a matrix or more"
            findings.append(
                Finding(
                    "wrong-decay",
                    f"{names[id(parameter)]}, {kind} of shape {tuple(parameter.shape)}, gets weight_decay={got} "
                    f"instead of {want}.",
                    "Names mislead; which property of the tensor tells a matrix from a gain?",
                )
            )
    return list({finding.code: finding for finding in findings}.values())


JUDGES: dict[str, Judge] = {"decay_groups": _decay_groups}
