"""The changes that save memory, in order of what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from course_lib.memory.setup import Setup
from course_lib.memory.states import find_state


@dataclass(frozen=True)
class Rung:
    """One change.

    Attributes:
        change: ``change(before, after)``, what is changed, in words.
        cost: what it costs, in words.
        apply: the choices after it, or None where it does not apply.
        free: it costs nothing, so it is worth making even where dearer changes alone would do.
        repeats: it makes micro-batches smaller, so that a step has more of them.
    """

    change: Callable[[Setup, Setup], str]
    cost: str
    apply: Callable[[Setup], Setup | None]
    free: bool = False
    repeats: bool = False


def _named(words: str) -> Callable[[Setup, Setup], str]:
    return lambda before, after: words


def _with(test: Callable[[Setup], bool], **changes: object) -> Callable[[Setup], Setup | None]:
    """Make ``changes`` where ``test`` holds."""
    return lambda setup: replace(setup, **changes) if test(setup) else None


def micro_batches(size: int) -> Rung:
    """Micro-batches of this size, with more of them accumulated to a step."""

    def change(before: Setup, after: Setup) -> str:
        return f"micro-batches of {after.batch}, {before.batch // after.batch} of them accumulated"

    return Rung(change, "the same mean gradient; smaller matrix products, so fewer tokens a second",
                _with(lambda setup: setup.batch > size, batch=size), repeats=True)


def _zero(stage: int) -> Callable[[Setup], Setup | None]:
    return _with(lambda setup: setup.ranks > 1 and setup.zero < stage, zero=stage)


def _adam(setup: Setup) -> bool:
    two_moments = ("adam", "adamw", "amsgrad", "nadam", "radam", "stable_adamw")
    return setup.optimizer in two_moments and not setup.recipe.moments


def _fewer_moment_bytes(setup: Setup) -> Setup | None:
    if setup.precision != "mixed-bf16":
        return None
    return replace(setup, precision="bf16-moments", grads="fp32" if setup.gradient == 4 else "bf16")


def _without_masters(setup: Setup) -> Setup | None:
    if setup.precision in ("bf16", "fp8-lm") or setup.recipe.weights + setup.recipe.master <= 2:
        return None
    return replace(setup, precision="bf16", grads="bf16" if setup.gradient == 2 else "fp32")


EXACT = (
    Rung(_named("flash attention"), "nothing: the same function without stored scores, and faster (2205.14135)",
         _with(lambda setup: setup.attention == "eager", attention="flash"), free=True),
    Rung(_named("a fused optimizer step"), "nothing: the same update in one kernel",
         _with(lambda setup: setup.step != "fused" and find_state(setup.optimizer).fused, step="fused"), free=True),
    Rung(_named("mixed precision in bf16 in place of float32"),
         "16-bit rounding in the model, float32 in the update; faster on tensor cores",
         _with(lambda setup: setup.precision == "fp32", precision="mixed-bf16")),
    Rung(_named("ZeRO-1"), "no more traffic than the all-reduce it replaces (1910.02054, section 7)", _zero(1)),
    Rung(_named("ZeRO-2"), "as much traffic again for each further micro-batch of a step", _zero(2)),
    micro_batches(1),
    Rung(_named("selective recomputation"), "the attention core is computed twice: a few per cent (2205.05198)",
         _with(lambda setup: setup.recompute == "none", recompute="selective")),
    Rung(_named("ZeRO-3"), "half as much traffic again: weights are gathered for each pass (1910.02054, section 7)",
         _zero(3)),
    Rung(_named("full recomputation"), "one more forward pass: up to a third more compute (1604.06174)",
         _with(lambda setup: setup.recompute != "full", recompute="full")),
)
"""Changes that leave the optimizer, its state and its result as they are, up to rounding; the dearest last."""

ROUNDED = (
    Rung(_named("moments in bf16"),
         "coarser moments; DeepSeek-V3 trained so, with beta2 = 0.95 (2412.19437). At 0.999 they hardly shrink",
         _fewer_moment_bytes),
    Rung(_named("8-bit AdamW"),
         "moments in blocks of 8-bit codes; as good as 32 bits in the paper (2110.02861). From bitsandbytes or torchao",
         _with(_adam, optimizer="adamw8bit")),
    Rung(_named("bf16 weights without master copy"),
         "small updates vanish unless they are rounded stochastically or summed after Kahan (2010.06192)",
         _without_masters),
    Rung(_named("Adafactor"),
         "no momentum, a factored second moment (1804.04235): other learning rates, to be found anew",
         _with(lambda setup: _adam(setup) or setup.optimizer == "adamw8bit", optimizer="adafactor")),
)
"""Changes of the numbers that training computes, in order of how far they go."""
