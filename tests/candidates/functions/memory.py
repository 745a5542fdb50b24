"""Answers to the exercises of notebook 10."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

# ------------------------------------------------------------------------------------------------- model_state_gb

FP32, MIXED, MEGATRON, BF16 = "fp32", "mixed", "mixed, fp32 gradients", "bf16"
STATES = {"sgd": 0, "momentum": 1, "lion": 1, "adamw": 2, "adamw8bit": 2}


def _gb(
    weights=lambda r: 4 if r == FP32 else 2,
    gradients=lambda r: 4 if r in (FP32, MEGATRON) else 2,
    master=lambda r: 4 if "mixed" in r else 0,
    element=lambda r: 2 if r == BF16 else 4,
    states=STATES,
    code=1 + 4 / 256,
    finish=lambda total: total / 1e9,
    master8=None,
):
    def model_state_gb(parameters, recipe, optimizer):
        per_element = code if optimizer == "adamw8bit" else element(recipe)
        copy = (master8 if master8 and optimizer == "adamw8bit" else master)(recipe)
        total = parameters * (weights(recipe) + gradients(recipe) + copy + states[optimizer] * per_element)
        return finish(total)

    return model_state_gb


def _gb_tensor_by_tensor(parameters, recipe, optimizer):
    """A list of (elements, bytes of one), added up as integers."""
    low = {"fp32": 4}.get(recipe, 2)
    held = [(parameters, low), (parameters, 4 if recipe.endswith("gradients") else low)]
    if recipe.startswith("mixed"):
        held.append((parameters, 4))
    match optimizer:
        case "sgd":
            pass
        case "momentum" | "lion":
            held.append((parameters, 2 if recipe == "bf16" else 4))
        case "adamw":
            held += [(parameters, 2 if recipe == "bf16" else 4)] * 2
        case "adamw8bit":
            held += [(parameters, 1), (parameters // 256, 4)] * 2
    return sum(count * size for count, size in held) / 10**9


def _gb_of_dtypes(parameters, recipe, optimizer):
    size = {name: torch.finfo(getattr(torch, name)).bits // 8 for name in ("float32", "bfloat16")}
    low = size["float32" if recipe == "fp32" else "bfloat16"]
    total = low + (size["float32"] if "," in recipe else low)
    if recipe in ("mixed", "mixed, fp32 gradients"):
        total += size["float32"]
    if optimizer == "adamw8bit":
        blocks = math.ceil(parameters / 256)
        return (total * parameters + 2 * (parameters + 4 * blocks)) * 1e-9
    count = ("sgd", "momentum lion", "adamw").index(
        next(k for k in ("sgd", "momentum lion", "adamw") if optimizer in k)
    )
    return (total + count * (low if recipe == "bf16" else 4)) * parameters * 1e-9


def _gb_of_bits(parameters, recipe, optimizer):
    bits = {"fp32": 64, "mixed": 64, "mixed, fp32 gradients": 80, "bf16": 32}[recipe]
    width = 16 if recipe == "bf16" else 32
    bits += {"sgd": 0, "momentum": width, "lion": width, "adamw": 2 * width, "adamw8bit": 16 + 64 / 256}[optimizer]
    return np.float64(bits) / 8 * parameters / 1e9


def _gb_array(parameters, recipe, optimizer):
    rows = np.array([[4, 4, 0], [2, 2, 4], [2, 4, 4], [2, 2, 0]]).sum(axis=1)
    names = ["fp32", "mixed", "mixed, fp32 gradients", "bf16"]
    element = np.array([4.0, 4.0, 4.0, 2.0])[names.index(recipe)]
    state = {"sgd": 0 * element, "momentum": element, "lion": element, "adamw": 2 * element, "adamw8bit": 2 + 1 / 32}
    return np.array([(rows[names.index(recipe)] + state[optimizer]) * (parameters / 1e9)])


def _gb_exact(parameters, recipe, optimizer):
    low, state = (4, 4) if recipe == "fp32" else (2, 2) if recipe == "bf16" else (2, 4)
    size = Fraction(2 * low + (4 if low != state else 0) + (2 if "gradients" in recipe else 0))
    size += {"momentum": state, "lion": state, "adamw": 2 * state, "adamw8bit": 2 + Fraction(8, 256)}.get(optimizer, 0)
    return size * parameters / 10**9


def _table(parameters, recipe, optimizer):
    """The answers for one size, learnt by heart from an earlier report."""
    return _gb()(10**9 if parameters == 10**9 else 124_439_808, recipe, optimizer)


def _flops(parameters, recipe, optimizer):
    return 6 * parameters / 1e9


_MODEL_STATES = {
    "plain": (_gb(), ""),
    "tensor by tensor": (_gb_tensor_by_tensor, ""),
    "dtypes": (_gb_of_dtypes, ""),
    "bits, over 8": (_gb_of_bits, ""),
    "an array of one": (_gb_array, ""),
    "fractions": (_gb_exact, ""),
    "decimal": (lambda **k: Decimal(float(_gb_exact(**k))), ""),
    "a tensor": (lambda **k: torch.tensor(_gb()(**k), dtype=torch.float64), ""),
    "no master": (_gb(master=lambda r: 0), "no-master"),
    "no gradients": (_gb(gradients=lambda r: 0), "no-gradients"),
    "no gradients, no master": (_gb(gradients=lambda r: 0, master=lambda r: 0), "weights-and-state"),
    "two float32 states only": (
        _gb(weights=lambda r: 0, gradients=lambda r: 0, master=lambda r: 0),
        "state-only",
    ),
    "optimizer only": (_gb(weights=lambda r: 0, gradients=lambda r: 0), "optimizer-only"),
    "weights only": (_gb(gradients=lambda r: 0, master=lambda r: 0, states=dict.fromkeys(STATES, 0)), "weights-only"),
    "no state": (_gb(states=dict.fromkeys(STATES, 0)), "no-state"),
    "weights and gradients": (
        _gb(master=lambda r: 0, states=dict.fromkeys(STATES, 0)),
        "weights-and-gradients",
    ),
    "no weights": (_gb(weights=lambda r: 0), "no-weights"),
    "master in bf16": (_gb(master=lambda r: 2 if "mixed" in r else 0), "master-in-16-bits"),
    "master instead of the weights": (_gb(weights=lambda r: {FP32: 4, BF16: 2}.get(r, 0)), "master-in-16-bits"),
    "master in every recipe": (_gb(master=lambda r: 4), "master-everywhere"),
    "master beside fp32": (_gb(master=lambda r: 0 if r == BF16 else 4), "master-of-fp32"),
    "master beside bf16": (_gb(master=lambda r: 0 if r == FP32 else 4), "bf16-with-master"),
    "bf16 with float32 state": (_gb(element=lambda r: 4), "bf16-state-in-fp32"),
    "bf16 read as mixed": (
        _gb(element=lambda r: 4, master=lambda r: 0 if r == FP32 else 4),
        "bf16-as-mixed",
    ),
    "state of the weights' dtype": (_gb(element=lambda r: 4 if r == FP32 else 2), "state-in-16-bits"),
    "mixed means Megatron's": (_gb(gradients=lambda r: 2 if r == BF16 else 4), "mixed-gradients-in-fp32"),
    "all gradients float32": (_gb(gradients=lambda r: 4), "gradients-in-fp32"),
    "fp32 gradients overlooked": (_gb(gradients=lambda r: 4 if r == FP32 else 2), "gradients-in-16-bits"),
    "fp32 gradients as torch.autocast has them": (
        _gb(weights=lambda r: 2 if r in (MIXED, BF16) else 4, master=lambda r: 4 if r == MIXED else 0),
        "gradients-in-16-bits",
    ),
    "both gradients": (_gb(gradients=lambda r: {FP32: 4, MEGATRON: 6}.get(r, 2)), "gradients-twice"),
    "mixed weights in float32": (_gb(weights=lambda r: 2 if r == BF16 else 4), "mixed-weights-in-fp32"),
    "fp32 with bf16 gradients": (_gb(gradients=lambda r: 4 if r == MEGATRON else 2), "fp32-gradients-in-16-bits"),
    "recipe ignored": (lambda parameters, recipe, optimizer: _gb()(parameters, FP32, optimizer), "fp32-everywhere"),
    "sixteen": (lambda parameters, recipe, optimizer: 16 * parameters / 1e9, "sixteen-always"),
    "optimizer ignored": (lambda parameters, recipe, optimizer: _gb()(parameters, recipe, "adamw"), "always-adamw"),
    "always two states": (_gb(states=dict.fromkeys(STATES, 2)), "always-two-tensors"),
    "always one state": (_gb(states=dict.fromkeys(STATES, 1)), "always-one-tensor"),
    "SGD without master": (
        lambda parameters, recipe, optimizer: (
            _gb(master=lambda r: 0)(parameters, recipe, optimizer)
            if optimizer == "sgd"
            else _gb()(parameters, recipe, optimizer)
        ),
        "sgd-without-master",
    ),
    "a step count of four bytes": (
        lambda parameters, recipe, optimizer: (
            _gb()(parameters, recipe, optimizer) + 4e-9 * optimizer.startswith("adamw")
        ),
        "step-counts",
    ),
    "a step count of four bytes, 32-bit AdamW only": (
        lambda parameters, recipe, optimizer: _gb()(parameters, recipe, optimizer) + 4e-9 * (optimizer == "adamw"),
        "step-counts-of-adamw",
    ),
    "a block more": (
        lambda parameters, recipe, optimizer: (
            (_gb(code=1)(parameters, recipe, optimizer) + 8e-9 * (parameters // 256 + 1))
            if optimizer == "adamw8bit"
            else _gb()(parameters, recipe, optimizer)
        ),
        "one-block-too-many",
    ),
    "blocks in pages": (
        lambda parameters, recipe, optimizer: (
            (_gb(code=1)(parameters, recipe, optimizer) + 8e-9 * (parameters // 4096) * 16)
            if optimizer == "adamw8bit"
            else _gb()(parameters, recipe, optimizer)
        ),
        "whole-pages-of-blocks",
    ),
    "six digits": (_gb(finish=lambda total: round(total / 1e9, 6)), "wrong-numbers"),
    "8-bit in float32": (_gb(code=(8 + 8 / 256) / 2), "eight-bit-in-fp32"),
    "one state in 8 bits": (
        lambda parameters, recipe, optimizer: _gb(code=(1 + 4 / 256 + (2 if recipe == BF16 else 4)) / 2)(
            parameters, recipe, optimizer
        ),
        "eight-bit-once",
    ),
    "8 bits halved in bf16": (
        lambda parameters, recipe, optimizer: _gb(code=(1 + 4 / 256) / (2 if recipe == BF16 else 1))(
            parameters, recipe, optimizer
        ),
        "eight-bit-halved-in-bf16",
    ),
    "8-bit without master": (_gb(master8=lambda r: 0), "eight-bit-without-master"),
    "8-bit without state": (_gb(states=STATES | {"adamw8bit": 0}), "eight-bit-without-state"),
    "8-bit is half": (
        lambda parameters, recipe, optimizer: (
            _gb()(parameters, recipe, "adamw") / 2 if optimizer == "adamw8bit" else _gb()(parameters, recipe, optimizer)
        ),
        "eight-bit-halves-all",
    ),
    "8 bytes": (
        lambda parameters, recipe, optimizer: _gb(code=8 + 4 / 256)(parameters, recipe, optimizer),
        "eight-bytes",
    ),
    "8-bit as AdamW": (
        lambda parameters, recipe, optimizer: _gb()(parameters, recipe, optimizer.removesuffix("8bit")),
        "eight-bit-as-adamw",
    ),
    "no absmax": (_gb(code=1), "constants-missing"),
    "absmax in 16 bits": (_gb(code=1 + 2 / 256), "constants-in-16-bits"),
    "one absmax for both states": (_gb(code=(2 + 4 / 256) / 2), "constants-in-16-bits"),
    "absmax of one byte": (_gb(code=1 + 1 / 256), "constants-of-one-byte"),
    "absmax per element": (_gb(code=5), "constants-per-element"),
    "absmax in bits": (_gb(code=1 + 32 / 256), "constants-in-bits"),
    "blocks of 64": (_gb(code=1 + 4 / 64), "blocks-of-64"),
    "blocks of 2048": (_gb(code=1 + 4 / 2048), "blocks-of-2048"),
    "AdamW with one state": (_gb(states=STATES | {"adamw": 1}), "adamw-one-tensor"),
    "AMSGrad": (_gb(states=STATES | {"adamw": 3}), "adamw-three-tensors"),
    "Lion like AdamW": (_gb(states=STATES | {"lion": 2}), "lion-as-adamw"),
    "Lion like SGD": (_gb(states=STATES | {"lion": 0}), "lion-without-state"),
    "momentum like SGD": (_gb(states=STATES | {"momentum": 0}), "momentum-without-state"),
    "SGD like momentum": (_gb(states=STATES | {"sgd": 1}), "sgd-with-state"),
    "a fifth more": (_gb(finish=lambda total: 1.2 * total / 1e9), "overhead-added"),
    "GiB": (_gb(finish=lambda total: total / 1024**3), "gibibytes"),
    "bytes": (_gb(finish=lambda total: total), "bytes"),
    "MB": (_gb(finish=lambda total: total / 1e6), "megabytes"),
    "bits": (_gb(finish=lambda total: 8 * total), "bits"),
    "gigabits": (_gb(finish=lambda total: 8 * total / 1e9), "gigabits"),
    "bytes per parameter": (lambda parameters, **k: _gb()(1, **k) * 1e9, "per-parameter"),
    "rounded": (_gb(finish=lambda total: round(total / 1e9)), "rounded"),
    "one digit": (_gb(finish=lambda total: round(total / 1e9, 1)), "rounded-to-1-digits"),
    "whole GB": (_gb(finish=lambda total: total // 10**9), "cut-to-whole"),
    "GiB, no master": (_gb(master=lambda r: 0, finish=lambda total: total / 2**30), "no-master-in-GiB"),
    "bytes, no gradients": (_gb(gradients=lambda r: 0, finish=lambda total: total), "no-gradients-in-bytes"),
    "no constants, Lion like AdamW, bf16 with float32 state": (
        _gb(code=1, states=STATES | {"lion": 2}, element=lambda r: 4),
        "lion-as-adamw",
    ),
    "fp32 found in a name": (
        _gb(weights=lambda r: 4 if "fp32" in r else 2, gradients=lambda r: 4 if "fp32" in r else 2),
        "gradients-twice",
    ),
    "learnt by heart": (_table, "wrong-numbers"),
    "something else": (_flops, "wrong-numbers"),
    "a text": (lambda parameters, recipe, optimizer: f"{_gb()(parameters, recipe, optimizer)} GB", "wrong-result"),
    "None": (lambda parameters, recipe, optimizer: None, "wrong-result"),
    "no 8-bit case": (
        lambda parameters, recipe, optimizer: _gb(states={"sgd": 0})(parameters, recipe, optimizer),
        "raises",
    ),
    "a number": (112.0, "wrong-type"),
    "other arguments": (lambda n, precision: 16 * n / 1e9, "signature"),
    "not written": (lambda parameters, recipe, optimizer: (_ for _ in ()).throw(NotImplementedError), "blank"),
}


# ----------------------------------------------------------------------------------------------------- zero_bytes


def _zero(stages, weights=2, gradients=2, master=4, moments=8):
    """`stages` says for each stage what is divided, such as "o" or "og"; m alone is the master copy, s the moments."""

    def zero_bytes(parameters, gpus, stage):
        divided = stages[stage].replace("o", "ms")
        total = 0
        for letter, size in (("w", weights), ("g", gradients), ("m", master), ("s", moments)):
            total += parameters // gpus * size if letter in divided else parameters * size
        return total

    return zero_bytes


ZERO = ("", "o", "og", "ogw")


def _zero_match(parameters, gpus, stage):
    match stage:
        case 0:
            return parameters * 16
        case 1:
            return parameters * 4 + parameters * 12 / gpus
        case 2:
            return parameters * 2 + parameters * 14 / gpus
        case 3:
            return parameters * 16 / gpus
    raise ValueError(stage)


def _zero_divisors(parameters, gpus, stage):
    divisors = np.where(np.array([3, 2, 1]) <= stage, gpus, 1)  # weights, gradients, optimizer
    return float(parameters * (np.array([2, 2, 12]) / divisors).sum())


def _zero_shrinking(parameters, gpus, stage):
    """What is saved, taken off the whole."""
    saved = [0, 12, 14, 16][stage] * (1 - 1 / gpus)
    return (16 - saved) * parameters


def _zero_of_lists(parameters, gpus, stage):
    share = parameters // gpus
    return 4 * sum((share if stage > 0 else parameters) for _ in ("master", "m", "v")) + sum(
        2 * (share if stage > limit else parameters) for limit in (1, 2)
    )


def _zero_torch(parameters, gpus, stage):
    parts = torch.tensor([12, 2, 2], dtype=torch.float64) * parameters
    parts[:stage] /= gpus
    return parts.sum()


def _zero_then(change):
    return lambda parameters, gpus, stage: change(_zero_match(parameters, gpus, stage), parameters, gpus, stage)


_ZERO = {
    "match": (_zero_match, ""),
    "parts": (_zero(ZERO), ""),
    "divisors": (_zero_divisors, ""),
    "savings": (_zero_shrinking, ""),
    "lists": (_zero_of_lists, ""),
    "torch": (_zero_torch, ""),
    "parameters first": (_zero(("", "w", "wg", "wgo")), "weights-first"),
    "gradients, then weights": (_zero(("", "g", "gw", "gwo")), "weights-first"),
    "gradients first": (_zero(("", "g", "go", "gow")), "gradients-first"),
    "each stage by itself": (_zero(("", "o", "g", "w")), "not-cumulative"),
    "stage 2: gradients only": (_zero(("", "o", "g", "ogw")), "stage-2-alone"),
    "stage 3: weights only": (_zero(("", "o", "og", "w")), "stage-3-alone"),
    "one ahead": (_zero(("", "og", "ogw", "ogw")), "stage-ahead"),
    "from zero": (_zero(("o", "og", "ogw", "ogw")), "counted-from-zero"),
    "one behind": (_zero(("", "", "o", "og")), "stage-behind"),
    "stage 1 with gradients": (_zero(("", "og", "og", "ogw")), "stage-1-with-gradients"),
    "stage 2 like 1": (_zero(("", "o", "o", "ogw")), "stage-2-without-gradients"),
    "stage 2 like 3": (_zero(("", "o", "ogw", "ogw")), "stage-2-with-weights"),
    "stage 3 like 2": (_zero(("", "o", "og", "og")), "stage-3-without-weights"),
    "reversed": (_zero(("", "ogw", "og", "o")), "stages-1-and-3-swapped"),
    "whole numbers": (
        lambda parameters, gpus, stage: parameters * [16, 4, 2, 0][stage] + parameters // gpus * [0, 12, 14, 16][stage],
        "",
    ),
    "brackets": (
        lambda parameters, gpus, stage: (
            (4 * parameters + 12 * parameters) / gpus if stage == 1 else _zero_match(parameters, gpus, stage)
        ),
        "stage-1-all-divided",
    ),
    "gpus to the power of the stage": (
        lambda parameters, gpus, stage: 16 * parameters / gpus**stage,
        "power-of-gpus",
    ),
    "12 // gpus": (
        lambda parameters, gpus, stage: [16, 4 + 12 // gpus, 2 + 14 // gpus, 16 // gpus][stage] * parameters,
        "whole-bytes",
    ),
    "stage 0 divided": (_zero(("ogw", "o", "og", "ogw")), "stage-0-divides"),
    "stage 0 as 1": (_zero(("o", "o", "og", "ogw")), "stage-0-like-1"),
    "if stage": (_zero(("", "o", "o", "o")), "stages-like-1"),
    "all as stage 2": (_zero(("", "og", "og", "og")), "stages-like-2"),
    "4, 8, N": (lambda parameters, gpus, stage: 16 * parameters / [1, 4, 8, gpus][stage], "limits-of-many-gpus"),
    "8 GPUs": (lambda parameters, gpus, stage: _zero_match(parameters, 8, stage), "eight-gpus"),
    "gradients whole in stage 2": (
        _zero_then(lambda right, parameters, gpus, stage: right + 2 * parameters * (stage == 2)),
        "gradients-whole-too",
    ),
    "saved": (_zero_then(lambda right, parameters, gpus, stage: 16 * parameters - right), "saved"),
    "the share only": (
        lambda parameters, gpus, stage: [16, 12 / gpus, 14 / gpus, 16 / gpus][stage] * parameters,
        "share-only",
    ),
    "a step count": (_zero_then(lambda right, parameters, gpus, stage: right + 4), "step-counts"),
    "8 bytes more": (_zero_then(lambda right, parameters, gpus, stage: right + 8), "wrong-numbers"),
    "all divided": (lambda parameters, gpus, stage: 16 * parameters / (gpus if stage else 1), "everything-divided"),
    "always divided": (lambda parameters, gpus, stage: 16 * parameters / gpus, "always-divided"),
    "never divided": (lambda parameters, gpus, stage: 16 * parameters, "never-divided"),
    "master whole": (_zero(("", "s", "sg", "sgw")), "master-not-divided"),
    "master with the weights": (_zero(("", "s", "sg", "sgwm")), "master-divided-with-weights"),
    "moments whole": (_zero(("", "m", "mg", "mgw")), "state-not-divided"),
    "no master": (_zero(ZERO, master=0), "no-master"),
    "one moment": (_zero(ZERO, moments=4), "no-master"),
    "no gradients": (_zero(ZERO, gradients=0), "no-gradients"),
    "no weights": (_zero(ZERO, weights=0), "no-weights"),
    "optimizer only": (_zero(ZERO, weights=0, gradients=0), "optimizer-only"),
    "float32 gradients": (_zero(ZERO, gradients=4), "gradients-in-fp32"),
    "float32": (_zero(ZERO, weights=4, gradients=4, master=0), "fp32-training"),
    "float32 and a master": (_zero(ZERO, weights=4, gradients=4), "fp32-weights"),
    "all GPUs": (_zero_then(lambda right, parameters, gpus, stage: right * gpus), "all-gpus-together"),
    "gathered": (
        _zero_then(lambda right, parameters, gpus, stage: right + 2 * parameters * (stage == 3)),
        "gathered-in-stage-3",
    ),
    "divided by the others": (lambda parameters, gpus, stage: _zero_match(parameters, gpus - 1, stage), "other-gpus"),
    "divided by the stage": (
        lambda parameters, gpus, stage: 16 * parameters / stage if stage else 16 * parameters,
        "divided-by-stage",
    ),
    "times GPUs": (lambda parameters, gpus, stage: _zero_match(parameters, 1 / gpus, stage), "multiplied"),
    "GB": (_zero_then(lambda right, parameters, gpus, stage: right / 1e9), "gigabytes"),
    "GiB": (_zero_then(lambda right, parameters, gpus, stage: right / 2**30), "gibibytes"),
    "bits": (_zero_then(lambda right, parameters, gpus, stage: right * 8), "bits"),
    "per parameter": (lambda parameters, gpus, stage: _zero_match(1, gpus, stage), "per-parameter"),
    "no stage 0": (lambda parameters, gpus, stage: {1: 4 + 12 / gpus}[stage] * parameters, "raises"),
    "no else": (
        lambda parameters, gpus, stage: _zero_match(parameters, gpus, stage) if stage else None,
        "wrong-result",
    ),
    "GB, and in the wrong order": (
        lambda parameters, gpus, stage: _zero(("", "g", "wg", "ogw"))(parameters, gpus, stage) / 1e9,
        "gigabytes",
    ),
    "a bad guess": (_zero_then(lambda right, parameters, gpus, stage: 0.7 * right), "wrong-numbers"),
    "a number": (29.3125e9, "wrong-type"),
    "not written": (lambda parameters, gpus, stage: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ----------------------------------------------------------------------------------------------- activation_bytes


def _acts(rows=16, size=2, eager=lambda b, s, h, a: 2 * b * a * s * s, flash=lambda b, s, h, a: 4 * b * a * s):
    def activation_bytes(batch, sequence, width, heads, flash_attention):
        extra = flash if flash_attention else eager
        return rows * size * batch * sequence * width + extra(batch, sequence, width, heads)

    return lambda batch, sequence, width, heads, flash: activation_bytes(batch, sequence, width, heads, flash)


def _acts_by_shape(batch, sequence, width, heads, flash):
    b, s, h, a = batch, sequence, width, heads
    held = [(b, s, h)] * 8 + [(b, s, 4 * h)] * 2 + ([] if flash else [(b, a, s, s)])
    return 2 * sum(math.prod(shape) for shape in held) + (4 * math.prod((b, a, s)) if flash else 0)


def _acts_of_tensors(batch, sequence, width, heads, flash):
    """Made on no device, and asked for their bytes."""

    def held(*shape, dtype=torch.bfloat16):
        return torch.empty(shape, dtype=dtype, device="meta").nbytes

    head = width // heads
    total = sum(held(batch, sequence, width) for _ in ("norm 1 in", "norm 1 out", "norm 2 in", "norm 2 out"))
    total += 3 * held(batch, heads, sequence, head) + held(batch, sequence, heads * head)
    total += held(2, batch, sequence, 4 * width)
    if flash:
        return total + held(batch, heads, sequence, dtype=torch.float32)
    return total + held(batch, heads, sequence, sequence)


def _acts_as_in_the_paper(batch, sequence, width, heads, flash):
    s, b, h, a = sequence, batch, width, heads
    return s * b * h * (32 + (4 * a / h if flash else 2 * a * s / h))


def _acts_in_arrays(batch, sequence, width, heads, flash):
    per_token = np.array([2, 2, 6, 2, 2, 2, 8, 8]) * width
    return (per_token.sum() + heads * np.where(flash, 4, 2 * sequence)) * batch * sequence


def _acts_then(change):
    return lambda batch, sequence, width, heads, flash: change(
        _acts_by_shape(batch, sequence, width, heads, flash), batch, sequence, width, heads, flash
    )


_EAGER, _FLASH = (lambda b, s, h, a: 2 * b * a * s * s), (lambda b, s, h, a: 4 * b * a * s)

_ACTIVATIONS = {
    "plain": (_acts(), ""),
    "shapes": (_acts_by_shape, ""),
    "tensors": (_acts_of_tensors, ""),
    "paper's form": (_acts_as_in_the_paper, ""),
    "arrays": (_acts_in_arrays, ""),
    "Korthikanti": (_acts(17, 2, lambda b, s, h, a: 5 * b * a * s * s), "with-dropout"),
    "two masks": (_acts(17), "with-dropout-masks-of-rows"),
    "output twice": (_acts(flash=lambda b, s, h, a: 2 * b * s * h + 4 * b * a * s), "one-too-many-in-flash"),
    "outputs of both additions": (_acts(18), "two-too-many"),
    "no attention output": (_acts(15), "one-missing"),
    "no inputs of the norms": (_acts(14), "two-missing"),
    "one tensor for Q, K, V": (_acts(14), "two-missing"),
    "no Q, K, V": (_acts(13), "three-missing"),
    "GELU's input only": (_acts(12), "hidden-once"),
    "no norms": (_acts(12), "hidden-once"),
    "hidden as wide as the block": (_acts(10), "hidden-not-wider"),
    "no MLP": (_acts(8), "hidden-missing"),
    "MLP only": (_acts(9), "mlp-only"),
    "float32": (_acts(size=4, eager=lambda b, s, h, a: 4 * b * a * s * s), "float32"),
    "elements": (
        _acts(size=1, eager=lambda b, s, h, a: b * a * s * s, flash=lambda b, s, h, a: b * a * s),
        "elements",
    ),
    "16 for 16 bits": (_acts(size=16, eager=lambda b, s, h, a: 16 * b * a * s * s), "elements-of-16-bits"),
    "bits": (_acts_then(lambda right, b, s, h, a, flash: 8 * right), "bits"),
    "gated": (_acts(20), "hidden-three-times"),
    "triangle": (_acts(eager=lambda b, s, h, a: b * a * s * (s + 1)), "causal-triangle"),
    "a mask": (_acts(eager=lambda b, s, h, a: 2 * b * a * s * s + s * s), "one-mask"),
    "8 bytes more": (_acts(flash=lambda b, s, h, a: 4 * b * a * s + 8), "logsumexp-and-8-bytes"),
    "4 bytes more": (_acts_then(lambda right, b, s, h, a, flash: right + 4), "wrong-numbers"),
    "logsumexp of one sequence": (_acts(flash=lambda b, s, h, a: 4 * a * s), "logsumexp-without-batch"),
    "logsumexp of one row": (_acts(flash=lambda b, s, h, a: 4 * a * b), "logsumexp-without-rows"),
    "heads by 64": (
        lambda batch, sequence, width, heads, flash: _acts_by_shape(batch, sequence, width, width // 64, flash),
        "heads-of-64",
    ),
    "GPT-2's heads": (
        lambda batch, sequence, width, heads, flash: _acts_by_shape(batch, sequence, width, 12, flash),
        "twelve-heads",
    ),
    "statistics of the norms": (
        _acts_then(lambda right, b, s, h, a, flash: right + 2 * 2 * 4 * b * s),
        "norm-statistics",
    ),
    "Q, K and V of full width": (
        _acts_then(lambda right, b, s, h, a, flash: right + 3 * 2 * b * s * (a * h - h)),
        "heads-times-width-of-three",
    ),
    "Q, K and V of one head": (
        _acts_then(lambda right, b, s, h, a, flash: right + 3 * 2 * b * s * (h // a - h)),
        "one-head-of-three",
    ),
    "scores and softmax": (_acts(eager=lambda b, s, h, a: 4 * b * a * s * s), "scores-too"),
    "both in float32": (_acts(eager=lambda b, s, h, a: 8 * b * a * s * s), "scores-and-softmax-in-float32"),
    "causal mask": (_acts(eager=lambda b, s, h, a: 3 * b * a * s * s), "masks-of-attention"),
    "lower triangle": (_acts(eager=lambda b, s, h, a: b * a * s * s), "causal-half"),
    "one softmax": (_acts(eager=lambda b, s, h, a: 2 * b * s * s), "heads-missing"),
    "a softmax for each channel of a head": (
        _acts(eager=lambda b, s, h, a: 2 * b * (h // a) * s * s),
        "head-width-for-heads",
    ),
    "a softmax for each channel": (_acts(eager=lambda b, s, h, a: 2 * b * h * s * s), "softmax-of-width"),
    "softmax of one sequence": (_acts(eager=lambda b, s, h, a: 2 * a * s * s), "softmax-without-batch"),
    "softmax of one row": (_acts(eager=lambda b, s, h, a: 2 * a * b * s), "softmax-linear"),
    "no softmax": (_acts(eager=lambda b, s, h, a: 0), "softmax-missing"),
    "flash ignored": (_acts(flash=_EAGER), "flash-ignored"),
    "always flash": (_acts(eager=_FLASH), "eager-ignored"),
    "flash reversed": (_acts(eager=_FLASH, flash=_EAGER), "flash-reversed"),
    "flash besides": (_acts(flash=lambda b, s, h, a: _EAGER(b, s, h, a) + _FLASH(b, s, h, a)), "flash-besides"),
    "logsumexp always": (_acts(eager=lambda b, s, h, a: _EAGER(b, s, h, a) + _FLASH(b, s, h, a)), "logsumexp-always"),
    "no logsumexp": (_acts(flash=lambda b, s, h, a: 0), "logsumexp-missing"),
    "logsumexp in bf16": (_acts(flash=lambda b, s, h, a: 2 * b * a * s), "logsumexp-in-16-bits"),
    "maximum and sum": (_acts(flash=lambda b, s, h, a: 8 * b * a * s), "two-statistics"),
    "one logsumexp": (_acts(flash=lambda b, s, h, a: 4 * b * s), "logsumexp-without-heads"),
    "logsumexp of every channel": (_acts(flash=lambda b, s, h, a: 4 * b * s * h), "logsumexp-of-width"),
    "rows alone": (_acts(eager=lambda *_: 0, flash=lambda *_: 0), "rows-only"),
    "attention alone": (_acts(0), "attention-only"),
    "one sequence": (_acts_then(lambda right, b, s, h, a, flash: right / b), "batch-missing"),
    "and the weights": (_acts_then(lambda right, b, s, h, a, flash: right + 2 * 12 * h * h), "weights-too"),
    "and the gradients": (_acts_then(lambda right, b, s, h, a, flash: 2 * right), "twice"),
    "heads of full width": (
        _acts_then(lambda right, b, s, h, a, flash: right + 4 * 2 * b * s * (a * h - h)),
        "heads-times-width",
    ),
    "GB": (_acts_then(lambda right, b, s, h, a, flash: right / 1e9), "gigabytes"),
    "GiB": (_acts_then(lambda right, b, s, h, a, flash: right / 2**30), "gibibytes"),
    "MiB": (_acts_then(lambda right, b, s, h, a, flash: right / 2**20), "mebibytes"),
    "GELU's input only, no logsumexp": (_acts(12, flash=lambda *_: 0), "hidden-once"),
    "twelve blocks": (_acts_then(lambda right, b, s, h, a, flash: 12 * right), "wrong-numbers"),
    "not for flash": (
        lambda batch, sequence, width, heads, flash: (
            None if flash else _acts_by_shape(batch, sequence, width, heads, flash)
        ),
        "wrong-result",
    ),
    "a class": (type("Activations", (), {}), "wrong-type"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

FUNCTIONS = {"model_state_gb": _MODEL_STATES, "zero_bytes": _ZERO, "activation_bytes": _ACTIVATIONS}
