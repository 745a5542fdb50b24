"""What the benchmark holds fixed for each optimizer, and where the search for its learning rate begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

STEPS, SEEDS = 700, 5
"""Updates in a run, and runs at the best rate, where nothing else is asked for."""

BETA2 = 0.95
"""Decay of the average of squared gradients, in everything that has Adam's. The usual value for language models; of
0.95, 0.99 and 0.999 it gave AdamW the lowest loss here, each at its best of five rates (one seed, 300 steps)."""

DECAY = 0.1
"""Decoupled weight decay of the matrices, embeddings excepted, in everything whose rule has a decoupled decay."""


@dataclass(frozen=True)
class Setting:
    """How one optimizer enters the benchmark.

    Attributes:
        rate: the middle of the first grid of learning rates.
        hyper: arguments of its constructor, besides the learning rate, that are not left at their defaults.
        decay: weight decay of the decayed groups (:func:`course_lib.groups.parameter_groups`).
        shares: arguments that are counts of steps, as shares of the run.
        scheduled: whether the common schedule, warmup and cosine, multiplies its rate.
        estimate_every: steps from one estimate of the curvature to the next; None where the rule needs none.
    """

    rate: float
    hyper: Mapping[str, Any] = field(default_factory=dict)
    decay: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    scheduled: bool = True
    estimate_every: int | None = None

    def describe(self) -> dict[str, Any]:
        """All that a run depends on besides its rate, seed and length, as plain JSON values."""
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in self.hyper.items()}
        return {
            "hyper": lists,
            "decay": self.decay,
            "shares": dict(self.shares),
            "scheduled": self.scheduled,
            "estimate_every": self.estimate_every,
        }


_ADAM = {"betas": (0.9, BETA2)}

SETTINGS: dict[str, Setting] = {
    "sgd": Setting(1.0),
    "momentum": Setting(0.25),
    "nesterov": Setting(0.5),
    "adagrad": Setting(0.016),
    "rmsprop": Setting(0.004, {"alpha": BETA2}),
    "adadelta": Setting(4.0),
    "adam": Setting(0.008, _ADAM),
    "amsgrad": Setting(0.008, _ADAM),
    "adamw": Setting(0.008, _ADAM, DECAY),
    "adamax": Setting(0.016, _ADAM),
    "nadam": Setting(0.008, _ADAM),
    "radam": Setting(0.008, _ADAM),
    "lars": Setting(8.0),
    "lamb": Setting(0.03, _ADAM, DECAY),
    "lion": Setting(0.002, {}, DECAY),
    "stable_adamw": Setting(0.008, _ADAM, DECAY),
    "ademamix": Setting(0.004, {"betas": (0.9, BETA2, 0.9999)}, DECAY, {"alpha_warmup": 1.0, "beta3_warmup": 1.0}),
    "schedule_free": Setting(0.008, _ADAM, DECAY, {"warmup_steps": 0.1}, scheduled=False),
    "adafactor": Setting(0.125, {}, DECAY),
    "came": Setting(0.0005, {"betas": (0.9, BETA2, 0.9999)}, DECAY),
    "adam_mini": Setting(0.008, _ADAM, DECAY),
    "adamw8bit": Setting(0.008, _ADAM, DECAY),
    "muon": Setting(0.032, {"adjust_lr_fn": "match_rms_adamw"}, DECAY),
    "shampoo": Setting(0.016, _ADAM, DECAY),
    "soap": Setting(0.032, {"betas": (0.95, BETA2)}, DECAY),
    "sophia": Setting(0.004, {}, DECAY, estimate_every=10),
}


def find(key: str) -> Setting:
    """The setting of an optimizer.

    Raises:
        ValueError: there is none of that name; the message names those nearest to it.
    """
    if key not in SETTINGS:
        near = get_close_matches(str(key).lower(), SETTINGS, n=4)
        advice = f"Did you mean {', '.join(near)}?" if near else f"There are: {', '.join(SETTINGS)}."
        raise ValueError(f"There is no optimizer {key!r} in the benchmark. {advice}")
    return SETTINGS[key]
