"""What the probes need to know about each whole optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from course_lib.checks.mistakes import FAMILIES, Family
from course_lib.checks.problem import Hyper, Problem, single, walk
from course_lib.checks.reference import RULES, Rule


@dataclass(frozen=True)
class Spec:
    """One whole optimizer as its exercise states it.

    Attributes:
        key: registry key.
        groups: hyper-parameters of the two groups of the walk, far from the defaults.
        defaults: the exercise's default arguments.
        exact: hyper-parameters under which nothing but the state's own dtype rounds.
        edge: hyper-parameters at the edges of their ranges.
        options: arguments beyond the contract; used, they must work: name -> the reference's arguments with it.
        torch_order: torch's arguments by position, where their order is another than the exercise's.
        still: what else, beside writing into tensors of its own, keeps this optimizer where it started.
        size: rows of the walk's matrices, and elements of the vectors of the other problems. A rule that steps by signs
            alone needs many, since most mistakes change few signs.
        in_torch: torch.optim has this optimizer.
        keeps: how many things the exercise lets a parameter's state hold; 0 where it leaves that open.
        nearly: what to say where all numbers are nearly right.
        shows_nan: a gradient that is not a number must show in the parameter.
    """

    key: str
    groups: tuple[Hyper, Hyper]
    defaults: Mapping[str, Any]
    exact: Hyper
    edge: Hyper
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    torch_order: tuple[str, ...] = ()
    still: str = ""
    size: int = 3
    in_torch: bool = True
    keeps: int = 0
    nearly: str = ""
    shows_nan: bool = True

    @property
    def whose(self) -> str:
        """Whose numbers are the right ones."""
        return "torch's" if self.in_torch else "the exercise's"

    @property
    def rule(self) -> Rule:
        return RULES[self.key]

    @property
    def family(self) -> Family:
        return FAMILIES[self.key]

    @cached_property
    def walk(self) -> Problem:
        return walk(*self.groups, size=self.size)

    @cached_property
    def complete_walk(self) -> Problem:
        """The walk with every gradient there."""
        return walk(*self.groups, complete=True, size=self.size)

    @cached_property
    def small(self) -> Problem:
        """Six steps of one vector: for probes that compare a candidate with itself."""
        return self.single(self.groups[0], steps=6)

    def single(self, hyper: Hyper, steps: int, **options: Any) -> Problem:
        """One vector under these hyper-parameters: :func:`course_lib.checks.problem.single`."""
        return single(hyper, steps, self.size, **options)


_ADAM_GROUPS = (
    {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.03, "weight_decay": 0.3},
    {"lr": 0.02, "betas": (0.5, 0.9), "eps": 0.004, "weight_decay": 0.8},
)
_ADAM_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
_ADAM_EXACT = {"lr": 0.125, "betas": (0.0, 0.0), "eps": 0.25, "weight_decay": 0.5}
_ADAM_EDGE = {"lr": 3.0, "betas": (0.0, 0.5), "eps": 0.0, "weight_decay": 0.0}

SPECS: dict[str, Spec] = {
    spec.key: spec
    for spec in (
        Spec(
            "adam",
            _ADAM_GROUPS,
            {**_ADAM_DEFAULTS, "weight_decay": 0.0},
            _ADAM_EXACT,
            _ADAM_EDGE,
            {"amsgrad": {"amsgrad": True}},
        ),
        Spec(
            "adamw",
            _ADAM_GROUPS,
            {**_ADAM_DEFAULTS, "weight_decay": 1e-2},
            _ADAM_EXACT,
            _ADAM_EDGE,
            {"amsgrad": {"amsgrad": True}},
        ),
        Spec(
            "momentum",
            (
                {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.3},
                {"lr": 0.02, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.8},
            ),
            {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0},
            {"lr": 0.125, "momentum": 0.5, "dampening": 0.0, "weight_decay": 0.5},
            {"lr": 3.0, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0},
            {"nesterov": {"nesterov": True, "dampening": 0.0}},
        ),
        Spec(
            "nesterov",
            (
                {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.3},
                {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.8},
            ),
            {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0},
            {"lr": 0.125, "momentum": 0.5, "weight_decay": 0.5},
            {"lr": 3.0, "momentum": 0.99, "weight_decay": 0.0},
        ),
        Spec(
            "adagrad",
            (
                {"lr": 0.2, "eps": 0.03, "weight_decay": 0.3},
                {"lr": 0.08, "eps": 0.004, "weight_decay": 0.8},
            ),
            {"lr": 1e-2, "eps": 1e-10, "weight_decay": 0.0},
            {"lr": 0.125, "eps": 0.25, "weight_decay": 0.5},
            {"lr": 3.0, "eps": 0.0, "weight_decay": 0.0},
            {"lr_decay": {"lr_decay": 0.3}, "initial_accumulator_value": {"initial_accumulator_value": 0.1}},
            torch_order=("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
        ),
        Spec(
            "adadelta",
            (
                {"lr": 0.6, "rho": 0.8, "eps": 0.03, "weight_decay": 0.3},
                {"lr": 0.3, "rho": 0.6, "eps": 0.004, "weight_decay": 0.8},
            ),
            {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
            {"lr": 0.125, "rho": 0.5, "eps": 0.25, "weight_decay": 0.5},
            {"lr": 3.0, "rho": 0.5, "eps": 1e-4, "weight_decay": 0.0},
            still="And how long is the very first update, when the average of past updates is still zero?",
        ),
        Spec(
            "rmsprop",
            (
                {"lr": 0.05, "alpha": 0.8, "eps": 0.03, "weight_decay": 0.3},
                {"lr": 0.02, "alpha": 0.6, "eps": 0.004, "weight_decay": 0.8},
            ),
            {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0},
            {"lr": 0.125, "alpha": 0.0, "eps": 0.25, "weight_decay": 0.5},
            {"lr": 3.0, "alpha": 0.5, "eps": 0.0, "weight_decay": 0.0},
        ),
        Spec(
            "lion",
            (
                {"lr": 0.05, "betas": (0.85, 0.75), "weight_decay": 0.3},
                {"lr": 0.02, "betas": (0.6, 0.9), "weight_decay": 0.8},
            ),
            {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0},
            {"lr": 0.125, "betas": (0.5, 0.5), "weight_decay": 0.5},
            {"lr": 3.0, "betas": (0.5, 0.0), "weight_decay": 0.0},
            size=12,
            in_torch=False,
            keeps=1,
            nearly=" A sign is -1, 0 or 1 exactly: a soft sign, such as c / (|c| + eps), is between.",
            shows_nan=False,  # torch.sign of a NaN is 0, NumPy's is a NaN
        ),
    )
}
