"""The closed form beside what is measured: the rows of the table that says how far they are apart.

All of it runs under fake tensors, so nothing is allocated and a row takes a second or two. What is measured is a real
training step of a real module: its operations, their order and the tensors between them are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.memory.activations import saved
from course_lib.memory.architecture import Architecture
from course_lib.memory.build import build, next_token_loss
from course_lib.memory.measure import fake, measure, model_state
from course_lib.memory.models import find
from course_lib.memory.predict import predict
from course_lib.memory.recipes import find_recipe
from course_lib.memory.states import state_bytes
from course_lib.optim import REGISTRY, TORCH_KEYS
from course_lib.precision.master import MasterWeights

GPT2 = find("gpt2-124m")
LLAMA = replace(find("llama-3-8b"), name="Llama 3 8B, 4 of 32 layers", layers=4)
LLAMA_2 = replace(find("llama-2-7b"), name="Llama 2 7B, 4 of 32 layers", layers=4)


@dataclass(frozen=True)
class Row:
    """One line of the table: what, and bytes predicted and measured."""

    what: str
    predicted: int
    measured: int

    @property
    def difference(self) -> float:
        """predicted / measured - 1; 0 where both are 0."""
        return self.predicted / self.measured - 1 if self.measured else float(self.predicted != 0)


@dataclass(frozen=True)
class Case:
    """A training step to predict and to measure, with AdamW.

    Attributes:
        architecture: dense, with ordinary attention.
        batch, sequence: sequences and tokens of each.
        precision: "fp32", "bf16", "mixed-bf16" (float32 master weights) or "autocast-bf16".
        attention: "flash" or "eager".
        recompute: "none", "selective" or "full".
    """

    architecture: Architecture
    batch: int
    sequence: int
    precision: str = "mixed-bf16"
    attention: str = "flash"
    recompute: str = "none"

    def __str__(self) -> str:
        again = {"none": "", "selective": ", core again", "full": ", blocks again"}[self.recompute]
        return f"{self.architecture.name}, {self.batch} x {self.sequence}, {self.precision}, {self.attention}{again}"


CASES: tuple[Case, ...] = (
    Case(GPT2, 1, 128, "mixed-bf16"),
    Case(GPT2, 1, 1024, "fp32"),
    Case(GPT2, 8, 1024, "fp32"),
    Case(GPT2, 4, 512, "fp32", "eager"),
    Case(GPT2, 8, 1024, "mixed-bf16"),
    Case(GPT2, 8, 1024, "mixed-bf16", "eager"),
    Case(GPT2, 8, 1024, "mixed-bf16", "eager", "selective"),
    Case(GPT2, 8, 1024, "mixed-bf16", "flash", "full"),
    Case(GPT2, 16, 256, "bf16", "eager", "full"),
    Case(GPT2, 8, 1024, "autocast-bf16"),
    Case(LLAMA, 1, 2048, "fp32"),
    Case(LLAMA, 1, 8192, "mixed-bf16"),
    Case(LLAMA, 4, 2048, "mixed-bf16", "eager"),
    Case(LLAMA, 4, 2048, "mixed-bf16", "eager", "selective"),
    Case(LLAMA, 4, 4096, "mixed-bf16", "flash", "full"),
    Case(LLAMA, 1, 4096, "bf16", "eager", "full"),
    Case(LLAMA_2, 2, 4096, "bf16", "eager"),
    Case(LLAMA, 2, 4096, "autocast-bf16"),
    Case(LLAMA, 2, 4096, "autocast-bf16", "flash", "full"),
)
"""Cases over batch, sequence, precision, attention and recomputation, for the notebook and the tests."""


def optimizer_row(key: str, architecture: Architecture = GPT2) -> Row:
    """State that torch.optim's counterpart of a registry optimizer keeps after a step, float32, everything counted.

    Raises:
        KeyError: the registry has no such optimizer.
    """
    with fake():
        model = build(architecture)
        optimizer = REGISTRY[key].production(model.parameters())
        _first_step(model, optimizer)
        found = model_state(model, optimizer)["optimizer"]
    return Row(f"state of {REGISTRY[key].name}", state_bytes(key, architecture.weights(), production=True), found)


RECIPES: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "mixed-bf16": {"precision": "mixed-bf16"},
    "mixed-bf16, float32 gradients": {"precision": "mixed-bf16", "grads": "fp32"},
    "mixed-bf16, float32 sums beside them": {"precision": "mixed-bf16", "accumulate": "fp32"},
    "bf16-moments": {"precision": "bf16-moments"},
    "mixed-fp16": {"precision": "mixed-fp16"},
}
"""Recipes that can be run on any machine, as arguments of ``predict``; those in 8 bits cannot."""


def recipe_row(name: str, architecture: Architecture = GPT2) -> Row:
    """Weights, gradients, master weights and AdamW's state after a step under one of ``RECIPES``.

    AdamW also keeps a count of steps for each tensor, 4 bytes, which is in both columns.

    Raises:
        KeyError: there is no such recipe.
    """
    arguments = RECIPES[name]
    counts = 4 * sum(weight.copies for weight in architecture.weights())
    predicted = predict(architecture, batch=1, sequence=1, **arguments)
    with fake():
        model = build(architecture, dtype=_weights(arguments["precision"]))
        optimizer = _adamw(model, **arguments)
        tokens = torch.zeros(1, 1, dtype=torch.long)
        next_token_loss(model, (tokens, tokens)).backward()
        optimizer.step()
        found = model_state(model, optimizer)
    states = predicted.parameters + predicted.gradients + predicted.optimizer
    return Row(f"model states, {name}", states + counts, sum(found.values()))


def step_rows(case: Case) -> tuple[Row, Row]:
    """What is kept between forward and backward pass, and the highest total of the whole step.

    The second step of a run is measured, with gradients that are kept between steps and a for-loop AdamW.
    """
    predicted = predict(
        case.architecture,
        precision=case.precision,
        batch=case.batch,
        sequence=case.sequence,
        recompute=case.recompute,
        attention=case.attention,
        step="for-loop",
    )
    recipe = find_recipe(case.precision)
    activations = saved(
        case.architecture,
        case.batch,
        case.sequence,
        compute=recipe.compute,
        attention=case.attention,
        recompute=case.recompute,
        autocast=recipe.autocast,
    )

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if recipe.autocast else nullcontext():
            return next_token_loss(model, batch)

    with fake():
        model = build(
            case.architecture, attention=case.attention, recompute=case.recompute, dtype=_weights(case.precision)
        )
        optimizer = _adamw(model, precision=case.precision)
        _first_step(model, optimizer)
        batch = tuple(torch.zeros(case.batch, case.sequence, dtype=torch.long) for _ in range(2))
        timeline = measure(model, optimizer, loss_fn, [batch], keep_gradients=True)
    return (
        Row(f"activations: {case}", sum(activations.values()), timeline.after(0, "forward")["activations"]),
        Row(f"peak: {case}", predicted.total, timeline.peak_total),
    )


def rows() -> Iterator[Row]:
    """The whole table, row by row as each is computed: about half a minute."""
    for key in TORCH_KEYS:
        yield optimizer_row(key)
    for name in RECIPES:
        yield recipe_row(name)
    for case in CASES:
        yield from step_rows(case)


def _weights(precision: str) -> torch.dtype:
    if find_recipe(precision).weights == 4:
        return torch.float32
    return torch.float16 if precision.endswith("fp16") else torch.bfloat16


def _adamw(model: nn.Module, precision: str, grads: str | None = None, accumulate: str | None = None) -> Any:
    recipe = find_recipe(precision)
    if not recipe.master:
        return torch.optim.AdamW(model.parameters(), foreach=False)
    wide = (grads or recipe.grads[0]) == "fp32"
    return MasterWeights(
        model.parameters(),
        lambda masters: torch.optim.AdamW(masters, foreach=False),
        gradients="both" if accumulate else "fp32" if wide else "native",
        state_dtype=torch.bfloat16 if recipe.state == 2 else None,
    )


def _first_step(model: nn.Module, optimizer: Any) -> None:
    """A step from gradients of no meaning, after which there is optimizer state."""
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
