"""How a model is trained: every choice that memory depends on, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.memory.architecture import Architecture
from course_lib.memory.arguments import choice, whole
from course_lib.memory.kept import ATTENTION, RECOMPUTE
from course_lib.memory.recipes import Recipe, find_recipe, gradient_bytes
from course_lib.memory.states import find_state

STEPS = ("fused", "foreach", "for-loop")


@dataclass(frozen=True)
class Setup:
    """The choices that memory depends on, beside the model.

    Attributes:
        optimizer: a key of ``states.STATES``.
        precision: a key of ``recipes.RECIPES``.
        grads: format of the gradients, "fp32", "bf16" or "fp16"; None for the recipe's usual one.
        accumulate: "fp32" for a second, float32 buffer of gradients; None for none.
        zero: stage of ZeRO, 0 to 3 (Rajbhandari et al. 2020, 1910.02054). 1 shards the optimizer's state and the
            master weights over the data-parallel ranks, 2 the gradients too, 3 the weights too.
        gpus: all GPUs together.
        tensor, pipeline: GPUs that share each layer, and groups of layers. gpus / (tensor * pipeline) are left for
            data parallelism.
        batch: sequences that one GPU works on at once (the micro-batch).
        sequence: tokens in each; None for the model's context.
        recompute: "none", "selective" (the attention core) or "full" (each block) is computed again in the backward
            pass (Korthikanti et al. 2022, 2205.05198).
        attention: "flash" (2205.14135: scores are never stored) or "eager".
        step: "fused" (one kernel, no temporaries), "foreach" or "for-loop".
        buckets: bytes of communication buffers beside the gradients (DDP's and ZeRO's are set in megabytes).

    Raises:
        ValueError: a value out of range or unknown, or two that do not go together; the message says what is allowed.
    """

    optimizer: str = "adamw"
    precision: str = "mixed-bf16"
    grads: str | None = None
    accumulate: str | None = None
    zero: int = 0
    gpus: int = 1
    tensor: int = 1
    pipeline: int = 1
    batch: int = 1
    sequence: int | None = None
    recompute: str = "none"
    attention: str = "flash"
    step: str = "fused"
    buckets: int = 0

    def __post_init__(self) -> None:
        def fix(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        fix("optimizer", find_state(self.optimizer).key)
        fix("precision", find_recipe(self.precision).key)
        gradient_bytes(self.recipe, self.grads, self.accumulate)
        if self.recipe.moments and self.optimizer not in ("adam", "adamw"):
            raise ValueError(f"{self.precision} is defined for Adam and AdamW: it says how many bytes each of the two "
                             f"moments has. For {self.optimizer} choose another precision.")
        for name, known in (("recompute", RECOMPUTE), ("attention", ATTENTION), ("step", STEPS)):
            fix(name, choice(name, getattr(self, name), known))
        fix("zero", whole("zero", self.zero, 0, 3))
        for name, high in (("gpus", 10**6), ("tensor", 1024), ("pipeline", 1024), ("batch", 10**6)):
            fix(name, whole(name, getattr(self, name), 1, high))
        if self.sequence is not None:
            fix("sequence", whole("sequence", self.sequence, 1, 10**8, "tokens"))
        fix("buckets", whole("buckets", self.buckets, 0, 10**12, "bytes"))
        self._check_ranks()

    def _check_ranks(self) -> None:
        needed = self.tensor * self.pipeline
        if self.gpus % needed:
            raise ValueError(f"tensor {self.tensor} x pipeline {self.pipeline} takes {needed} GPUs a replica: gpus "
                             f"must be a multiple of {needed}, and {self.gpus} is not.")
        if self.zero and self.ranks == 1:
            why = "gpus is 1" if self.gpus == 1 else f"all {self.gpus} GPUs hold parts of one replica"
            raise ValueError(f"ZeRO-{self.zero} shards over data-parallel ranks, and there is only one: {why}. Give "
                             f"more GPUs (gpus = {8 * needed}, say), or zero = 0.")

    @property
    def recipe(self) -> Recipe:
        """The recipe that ``precision`` names."""
        return find_recipe(self.precision)

    @property
    def ranks(self) -> int:
        """Data-parallel ranks: replicas of the model, which ZeRO shards over."""
        return self.gpus // (self.tensor * self.pipeline)

    @property
    def gradient(self) -> int:
        """Bytes of a gradient."""
        return gradient_bytes(self.recipe, self.grads, self.accumulate)[0]

    @property
    def buffer(self) -> int:
        """Bytes of a parameter's element in the second buffer of gradients; 0 where there is none."""
        return gradient_bytes(self.recipe, self.grads, self.accumulate)[1]

    def tokens(self, model: Architecture) -> int:
        """Length of a sequence, the model's context unless one was given.

        Raises:
            ValueError: the model cannot be trained so: more pipeline stages than layers, heads that the tensor-parallel
                GPUs cannot share, or more tokens than there are learned positions.
        """
        if self.pipeline > model.layers:
            raise ValueError(f"Invalid pipeline: {self.pipeline} stages, but {model.name} has {model.layers} layers.")
        if model.heads % self.tensor:
            raise ValueError(f"Invalid tensor: {model.name} has {model.heads} heads, which {self.tensor} GPUs cannot "
                             "share evenly.")
        sequence = self.sequence or model.context
        if model.positions == "learned" and sequence > model.context:
            raise ValueError(f"Invalid sequence: {sequence:,} tokens. {model.name} has learned positions for "
                             f"{model.context:,}.")
        return sequence
