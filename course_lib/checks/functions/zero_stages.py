"""The exercise of notebook 10 that asks what the stages of ZeRO leave on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course_lib.checks.functions.common import Edge, Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION


def _zero(
    *sharded: str, weights: float = 2, gradients: float = 2, master: float = 4, state: float = 8
) -> Callable[..., float]:
    """``zero_bytes``; ``sharded`` are the parts divided in stages 0, 1, 2 and 3, by their first letters."""
    sizes = {"w": weights, "g": gradients, "m": master, "s": state}

    def run(parameters: int, gpus: int, stage: int) -> float:
        divided = sharded[stage]
        return sum(size * parameters / (gpus if part in divided else 1) for part, size in sizes.items())

    return run


_STAGES = ("", "ms", "gms", "wgms")
_right_zero = _zero(*_STAGES)


def _zero_of(change: Callable[[float, int, int, int], float]) -> Callable[..., float]:
    return lambda parameters, gpus, stage: change(_right_zero(parameters, gpus, stage), parameters, gpus, stage)


_ZERO_MISTAKES = tuple(
    Known(code, what, hint, wrong, *kind)
    for code, what, hint, wrong, *kind in (
        (
            "weights-first",
            "stages in the order weights, gradients, optimizer (or gradients, weights, optimizer: both take 2 bytes)",
            "Stage 1 divides what is largest, and is needed only once per step.",
            _zero("", "w", "wg", "wgms"),
        ),
        (
            "gradients-first",
            "stages in the order gradients, optimizer, weights (or weights, optimizer, gradients)",
            "Stage 1 divides what is largest, and is needed only once per step.",
            _zero("", "g", "gms", "wgms"),
        ),
        (
            "not-cumulative",
            "stages that divide one part each: the optimizer's, then the gradients alone, then the weights alone",
            "Each stage divides what the stage before it divides, and one part more.",
            _zero("", "ms", "g", "w"),
        ),
        (
            "stage-2-alone",
            "a stage 2 that divides the gradients alone",
            "Each stage divides what the stage before it divides, and one part more.",
            _zero("", "ms", "g", "wgms"),
        ),
        (
            "stage-3-alone",
            "a stage 3 that divides the weights alone",
            "Each stage divides what the stage before it divides, and one part more.",
            _zero("", "ms", "gms", "w"),
        ),
        (
            "stage-ahead",
            "stages one too far: the gradients are divided in stage 1, the weights in stage 2",
            "What does stage 1 divide, and only that?",
            _zero("", "gms", "wgms", "wgms"),
        ),
        (
            "counted-from-zero",
            "stages counted from 0: stage 0 divides the optimizer's part already",
            "Stage 0 is plain data parallelism.",
            _zero("ms", "gms", "wgms", "wgms"),
        ),
        (
            "stage-behind",
            "stages one too late: nothing is divided in stage 1",
            "Stage 1 divides the optimizer's part.",
            _zero("", "", "ms", "gms"),
        ),
        (
            "stage-1-with-gradients",
            "a stage 1 that divides the gradients too",
            "What does stage 2 add to stage 1?",
            _zero("", "gms", "gms", "wgms"),
        ),
        (
            "stage-2-without-gradients",
            "a stage 2 that does not divide the gradients",
            "What does stage 2 add to stage 1?",
            _zero("", "ms", "ms", "wgms"),
        ),
        (
            "stage-2-with-weights",
            "a stage 2 that divides the weights too",
            "What does stage 3 add to stage 2?",
            _zero("", "ms", "wgms", "wgms"),
        ),
        (
            "stage-3-without-weights",
            "a stage 3 that keeps the weights whole",
            "What does stage 3 add to stage 2?",
            _zero("", "ms", "gms", "gms"),
        ),
        (
            "stages-1-and-3-swapped",
            "stages 1 and 3 exchanged",
            "Does more of the model lie on each GPU in stage 3, or less?",
            _zero("", "wgms", "gms", "ms"),
        ),
        (
            "stage-1-all-divided",
            "a stage 1 that divides everything: (4 + 12) / gpus bytes per parameter instead of 4 + 12 / gpus",
            "What is still whole on each GPU in stage 1? Look at your brackets.",
            _zero("", "wgms", "gms", "wgms"),
        ),
        (
            "stage-0-divides",
            "a stage 0 that divides everything",
            "Stage 0 is plain data parallelism: what has each GPU of its own?",
            _zero("wgms", "ms", "gms", "wgms"),
        ),
        (
            "stage-0-like-1",
            "a stage 0 that divides the optimizer's part, as stage 1 does",
            "Stage 0 is plain data parallelism: what has each GPU of its own?",
            _zero("ms", "ms", "gms", "wgms"),
        ),
        (
            "stages-like-1",
            "stages 2 and 3 as stage 1",
            "What does each stage divide besides?",
            _zero("", "ms", "ms", "ms"),
        ),
        (
            "stages-like-2",
            "stages 1 and 3 as stage 2",
            "What does each stage divide besides?",
            _zero("", "gms", "gms", "gms"),
        ),
        (
            "everything-divided",
            "everything divided from stage 1 on",
            "What is still whole on each GPU in stages 1 and 2?",
            _zero("", "wgms", "wgms", "wgms"),
        ),
        (
            "always-divided",
            "everything divided in every stage",
            "Stage 0 is plain data parallelism: what has each GPU of its own?",
            _zero("wgms", "wgms", "wgms", "wgms"),
        ),
        (
            "never-divided",
            "16 bytes per parameter in every stage: nothing is divided",
            "What is divided by the number of GPUs?",
            _zero("", "", "", ""),
        ),
        (
            "master-not-divided",
            "a master copy that stays whole on every GPU",
            "The master copy is needed only where its part is updated: it belongs to the optimizer.",
            _zero("", "s", "gs", "wgs"),
        ),
        (
            "master-divided-with-weights",
            "a master copy that is divided with the weights, in stage 3",
            "The master copy is needed only where its part is updated: it belongs to the optimizer.",
            _zero("", "s", "gs", "wgms"),
        ),
        (
            "state-not-divided",
            "a master copy that is divided, and moments that are not",
            "m and v are needed only where their part is updated.",
            _zero("", "m", "gm", "wgm"),
        ),
        (
            "no-master",
            "2 + 2 + 8 bytes per parameter: the master copy is missing, or one moment, or m and v have 16 bits",
            "2 + 2 + 12: what are the 12 made of?",
            _zero(*_STAGES, master=0),
        ),
        (
            "no-gradients",
            "2 + 12 bytes per parameter: the gradients are missing",
            "What does backward() leave behind?",
            _zero(*_STAGES, gradients=0),
        ),
        (
            "no-weights",
            "2 + 12 bytes per parameter: the weights are missing",
            "The 16-bit weights stay beside the master copy.",
            _zero(*_STAGES, weights=0),
        ),
        (
            "optimizer-only",
            "the optimizer's 12 bytes alone",
            "Weights and gradients are on the GPU too.",
            _zero(*_STAGES, weights=0, gradients=0),
        ),
        (
            "gradients-in-fp32",
            "float32 gradients: 18 bytes per parameter, as Megatron-LM keeps them",
            "Here the gradients have two bytes.",
            _zero(*_STAGES, gradients=4),
            OTHER_SPECIFICATION,
        ),
        (
            "fp32-training",
            "float32 training: 4 + 4 + 8 bytes",
            "In mixed precision weights and gradients have two bytes, and the optimizer keeps a master copy.",
            _zero(*_STAGES, weights=4, gradients=4, master=0),
        ),
        (
            "fp32-weights",
            "float32 weights and gradients, and a master copy besides: 4 + 4 + 12 bytes",
            "In mixed precision weights and gradients have two bytes.",
            _zero(*_STAGES, weights=4, gradients=4),
        ),
        (
            "all-gpus-together",
            "what all GPUs hold together",
            "Asked for are the bytes on one GPU.",
            _zero_of(lambda right, parameters, gpus, stage: right * gpus),
        ),
        (
            "gathered-in-stage-3",
            "a stage 3 with the whole weights besides",
            "In stage 3 a layer's weights are gathered for as long as it runs, and then let go. What stays?",
            _zero_of(lambda right, parameters, gpus, stage: right + (2 * parameters if stage == 3 else 0)),
        ),
        (
            "other-gpus",
            "a division by the number of the other GPUs, gpus - 1",
            "Does a GPU keep a part of its own?",
            lambda parameters, gpus, stage: _right_zero(parameters, gpus - 1, stage),
        ),
        (
            "power-of-gpus",
            "16 bytes per parameter over gpus ** stage",
            "Each stage divides more, but never by more than the number of GPUs.",
            lambda parameters, gpus, stage: 16 * parameters / float(gpus) ** stage,
        ),
        (
            "whole-bytes",
            "bytes per parameter in whole numbers: 12 // gpus and the like",
            "`//` cuts off what is left over. Multiply by parameters first: they are divisible by gpus.",
            lambda parameters, gpus, stage: parameters * (16, 4 + 12 // gpus, 2 + 14 // gpus, 16 // gpus)[stage],
        ),
        (
            "limits-of-many-gpus",
            "a fourth in stage 1 and an eighth in stage 2, which are the limits for ever more GPUs",
            "How much do the divided parts still take on 8 GPUs?",
            lambda parameters, gpus, stage: 16 * parameters / (1, 4, 8, gpus)[stage],
        ),
        (
            "eight-gpus",
            "8 GPUs, whatever is given",
            "gpus is an argument.",
            lambda parameters, gpus, stage: _right_zero(parameters, 8, stage),
        ),
        (
            "gradients-whole-too",
            "a stage 2 with the whole gradients besides its share",
            "In stage 2 a gradient is let go as soon as it has been sent to the GPU whose share it is. What stays?",
            _zero_of(lambda right, parameters, gpus, stage: right + (2 * parameters if stage == 2 else 0)),
        ),
        (
            "saved",
            "the bytes saved, not those that are left",
            "What does each GPU hold?",
            _zero_of(lambda right, parameters, gpus, stage: 16 * parameters - right),
        ),
        (
            "share-only",
            "what is divided, without what is whole on each GPU",
            "What has each GPU besides its share?",
            _zero_of(lambda right, parameters, gpus, stage: right - parameters * (0, 4, 2, 0)[stage]),
        ),
        (
            "step-counts",
            "four bytes besides, as torch keeps a count of steps for each tensor",
            "Four bytes for a tensor, not for a parameter: here they are left out.",
            _zero_of(lambda right, parameters, gpus, stage: right + 4),
            OTHER_SPECIFICATION,
        ),
        (
            "divided-by-stage",
            "everything divided by the stage",
            "By what are the parts divided: the number of the stage, or of the GPUs?",
            lambda parameters, gpus, stage: 16 * parameters / max(stage, 1),
        ),
        (
            "multiplied",
            "parts multiplied by the number of GPUs",
            "Does a GPU hold less in stage 1 than in stage 0, or more?",
            lambda parameters, gpus, stage: _right_zero(parameters, 1 / gpus, stage),
        ),
        (
            "gigabytes",
            "GB instead of bytes: the sum is right",
            "1 GB is 1e9 bytes.",
            _zero_of(lambda right, parameters, gpus, stage: right / 1e9),
        ),
        (
            "gibibytes",
            "GiB instead of bytes: the sum is right",
            "1 GiB is 2^30 bytes.",
            _zero_of(lambda right, parameters, gpus, stage: right / 2**30),
        ),
        (
            "bits",
            "bits instead of bytes: the sum is right",
            "Eight bits make a byte.",
            _zero_of(lambda right, parameters, gpus, stage: 8 * right),
        ),
        (
            "per-parameter",
            "bytes per parameter: the sum is right",
            "Asked for are the bytes of all parameters.",
            _zero_of(lambda right, parameters, gpus, stage: right / parameters),
        ),
    )
)


def _zero_cases(gpus: int, share: int) -> list[dict[str, Any]]:
    return [{"parameters": gpus * share, "gpus": gpus, "stage": stage} for stage in range(4)]


ZERO = Numeric(
    _right_zero,
    # the last are few parameters: there a few bytes too many show
    [*_zero_cases(64, 10**8), *_zero_cases(8, 875_000_000), *_zero_cases(3, 41)],
    _ZERO_MISTAKES,
    "a number of bytes",
    edges=[Edge(case) for case in _zero_cases(1, 124_439_808)],
    cells=True,
    drawn=lambda rng: _zero_cases(int(rng.integers(2, 1025)), int(rng.integers(10**6, 10**8))),
)
