"""The exercise `stochastic_round`: float32 to bfloat16 with the noise given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import watched
from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.functions.rounding import bits_of, floats_of, to_bfloat16
from course_lib.checks.report import OTHER_SPECIFICATION, Finding


def _cut(
    added: Callable[[np.ndarray, np.ndarray], Any] = lambda bits, noise: noise, mask: int = 0xFFFF0000
) -> Callable[..., np.ndarray]:
    """Add ``added(bits, noise)`` to the bits of x, then keep those of ``mask``."""
    return lambda x, noise: floats_of((bits_of(x) + added(bits_of(x), noise.astype(np.int64))) & mask)


def _rounded(x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), x, _cut()(x, noise))


def _up_where(chance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The next number away from zero where ``chance(low bits, noise)`` says so, else the one towards zero."""
    return _cut(lambda bits, noise: np.where(chance(bits & 0xFFFF, noise), 0x10000, 0))


_ROUND_MISTAKES = (
    Known(
        "noise-ignored",
        "rounding to nearest: the noise does nothing",
        "`x.to(torch.bfloat16)` rounds to nearest. Where does the noise come in?",
        lambda x, noise: to_bfloat16(x),
    ),
    Known(
        "cut-only",
        "the low bits cut without noise",
        "Without noise every number goes towards zero.",
        _cut(lambda bits, noise: 0),
    ),
    Known(
        "rounded-after",
        "noise added to the bits, and then a rounding to nearest (or half a unit beside the noise, which is the same)",
        "After the noise the low 16 bits are cut, not rounded: set them to zero before `.to(torch.bfloat16)`.",
        lambda x, noise: to_bfloat16(_cut(mask=0xFFFFFFFF)(x, noise)),
    ),
    Known(
        "not-cut",
        "noise added to the bits, and nothing cut",
        "bf16 is the upper half of a float32: what becomes of the lower?",
        _cut(mask=0xFFFFFFFF),
    ),
    Known(
        "noise-subtracted",
        "noise subtracted from the bits",
        "What has low bits near 65535 lies just below the next number: which way should it mostly go?",
        _cut(lambda bits, noise: -noise),
    ),
    Known(
        "negative-subtracted",
        "noise subtracted where x is negative",
        "The sign is a bit of its own: adding to the low bits makes any number larger in size, positive or negative.",
        _cut(lambda bits, noise: np.where(bits >= 2**31, -noise, noise)),
    ),
    Known(
        "added-to-the-number",
        "noise added to the number, not to its bits",
        "`x.view(torch.int32)` has the bits of x; `x` has its value.",
        lambda x, noise: _cut(lambda bits, noise: 0)((x + noise).astype(np.float32), noise),
    ),
    Known(
        "added-to-the-number-rounded",
        "noise added to the number, not to its bits, and the sum rounded to nearest",
        "`x.view(torch.int32)` has the bits of x; `x` has its value.",
        lambda x, noise: to_bfloat16((x + noise).astype(np.float32)),
    ),
    Known(
        "fraction-added",
        "noise / 65536 added to the number, and the sum rounded to nearest",
        "The spacing of bf16 is different at each size: add to the bits, where the spacing is 65536 for all.",
        lambda x, noise: to_bfloat16((x + noise / np.float32(65536)).astype(np.float32)),
    ),
    Known(
        "fraction-added-cut",
        "noise / 65536 added to the number, and the low bits of the sum cut",
        "The spacing of bf16 is different at each size: add to the bits, where the spacing is 65536 for all.",
        lambda x, noise: _cut(lambda bits, noise: 0)((x + noise / np.float32(65536)).astype(np.float32), noise),
    ),
    Known(
        "bits-as-numbers",
        "the bits, read as a whole number",
        "The way back is a view, too: `.view(torch.float32)`.",
        lambda x, noise: to_bfloat16(((bits_of(x) + noise) & 0xFFFF0000).astype(np.uint32).view(np.int32)),
    ),
    Known(
        "upper-half-as-numbers",
        "the upper 16 bits, read as a whole number",
        "The way back is a view, too: `.to(torch.int16).view(torch.bfloat16)`.",
        lambda x, noise: to_bfloat16((((bits_of(x) + noise) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)) >> 16),
    ),
    Known(
        "lower-half-kept",
        "the lower 16 bits kept, and the upper cut",
        "Sign, exponent and 7 bits stand in the upper half.",
        _cut(mask=0xFFFF),
    ),
    Known(
        "thirteen-bits-cut",
        "13 bits cut, as from float32 to fp16's digits",
        "bf16 has 7 bits behind the point, float32 has 23.",
        _cut(mask=0xFFFFE000),
    ),
    Known(
        "fifteen-bits-cut",
        "15 bits cut",
        "bf16 has 7 bits behind the point, float32 has 23.",
        _cut(mask=0xFFFF8000),
    ),
    Known(
        "seventeen-bits-cut",
        "17 bits cut",
        "bf16 has 7 bits behind the point, float32 has 23.",
        _cut(mask=0xFFFE0000),
    ),
    Known(
        "noise-halved",
        "half of the noise",
        "The noise reaches up to 65535, the low bits do, too: together they carry as often as they should.",
        _cut(lambda bits, noise: noise >> 1),
    ),
    Known(
        "one-noise-for-all",
        "the first noise used for all elements",
        "Each element has its own.",
        _cut(lambda bits, noise: noise.ravel()[0]),
    ),
    Known(
        "one-too-many",
        "noise + 1",
        "With noise 65535 and low bits of 0, a bf16 number must stay as it is.",
        _cut(lambda bits, noise: noise + 1),
    ),
    Known(
        "compared",
        "an increase where the noise is less than the low bits",
        "As often as it should be, so it is a stochastic rounding; here the noise is added and the carry decides, so that "
        "both can be compared.",
        _up_where(lambda low, noise: noise < low),
        OTHER_SPECIFICATION,
    ),
    Known(
        "chance-reversed",
        "an increase where the noise is more than the low bits",
        "What has low bits near 65535 lies just below the next number: which way should it mostly go?",
        _up_where(lambda low, noise: noise > low),
    ),
    Known(
        "coin",
        "an increase wherever the noise is 32768 or more, however near the number lies",
        "How likely it is to go up depends on the low bits.",
        _up_where(lambda low, noise: (low > 0) & (noise >= 0x8000)),
    ),
    Known(
        "always-up",
        "an increase in size wherever there are low bits",
        "Where does the noise come in?",
        _up_where(lambda low, noise: low > 0),
    ),
    Known(
        "sign-lost",
        "numbers without their sign",
        "The sign is the uppermost bit: keep it.",
        lambda x, noise: np.abs(_cut()(x, noise)),
    ),
    Known(
        "float16",
        "float16: another format",
        "bfloat16 has the exponents of float32.",
        lambda x, noise: x.astype(np.float16).astype(np.float32),
    ),
    Known(
        "float16-after",
        "the right numbers, converted to float16",
        "bfloat16 has the exponents of float32.",
        lambda x, noise: _cut()(x, noise).astype(np.float16).astype(np.float32),
    ),
    Known("unchanged", "x as it came", "bf16 is the upper half of a float32.", lambda x, noise: x),
)
_RNG = np.random.default_rng(11)


def _float32(x: Any, *shape: int) -> np.ndarray:
    return np.asarray(x, dtype=np.float32).reshape(shape or np.shape(x))


def _with_noise(x: np.ndarray, noise: Any = None) -> dict[str, Any]:
    noise = _RNG.integers(0, 65536, x.shape) if noise is None else np.broadcast_to(noise, x.shape)
    return {"x": x, "noise": np.asarray(noise, dtype=np.int32)}


def _ties() -> dict[str, Any]:
    """Low bits and noise that together just carry, or just do not; and numbers that bf16 has."""
    low = np.array([0, 0, 1, 1, 0x8000, 0x8000, 0xFFFF, 0xFFFF, 0x1234, 0x1234])
    noise = np.array([0, 0xFFFF, 0xFFFE, 0xFFFF, 0x7FFF, 0x8000, 0, 1, 0xEDCB, 0xEDCC])
    upper = np.array([0x3F80, 0xBF80, 0x3F81, 0xC000, 0x4049, 0xC049, 0x3FFF, 0xBFFF, 0x0001, 0x7F00])
    return _with_noise(floats_of((upper << 16) | low), noise)


_ROUND_CASES = [
    _with_noise(_float32(_RNG.normal(size=24), 4, 6)),
    _with_noise(_float32(_RNG.normal(size=40) * 10.0 ** _RNG.uniform(-3, 3, 40))),
    _with_noise(_float32(10.0 ** _RNG.uniform(-30, -25, 12)), None),
    _with_noise(_float32(-(10.0 ** _RNG.uniform(25, 30, 12))), None),
    _with_noise(_float32([1.0, -2.0, 0.0, 0.5, -0.0, 3.140625]), 65535),
    _ties(),
]


def _not_a_number(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    lost = np.isnan(want[0]) & ~np.isnan(got[0]) if got[0].shape == want[0].shape else np.zeros(0, dtype=bool)
    if not lost.any():
        return None
    index = int(np.argmax(lost))
    return Finding(
        "nan-lost",
        f"NaN with the bits {bits_of(case['x'])[index]:08x} and noise {case['noise'][index]} becomes {got[0][index]:g}.",
        "NaN is an exponent of ones and any other bits: cut them, or carry over them, and it may be something else. "
        "`torch.where(x.isnan(), ...)`.",
    )


def _infinite(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    lost = np.isinf(want[0]) & (got[0] != want[0]) if got[0].shape == want[0].shape else np.zeros(0, dtype=bool)
    if not lost.any():
        return None
    index = int(np.argmax(lost))
    return Finding(
        "infinity-lost",
        f"{case['x'][index]:g} with noise {case['noise'][index]} becomes {got[0][index]:g} instead of {want[0][index]:g}.",
        "Its low bits are zero: no noise carries.",
    )


_ROUND_EDGES = [
    Edge(_with_noise(_float32(0.1), 40_000)),  # a tensor without dimensions
    Edge(_with_noise(_float32([np.inf, -np.inf, 1.0]), [65535, 65535, 0]), _infinite),
    Edge(
        _with_noise(
            floats_of(np.array([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF80FFFF])),
            [65535, 65535, 1, 65535, 3, 0],
        ),
        _not_a_number,
    ),
]


def _misread(got: np.ndarray, want: np.ndarray) -> Finding | None:
    """What comes of bits that are taken for numbers, or of numbers that are taken for bits."""
    if got.shape == want.shape and np.isfinite(got).all() and not (got % 1).any() and (want % 1).any():
        return Finding(
            "converted-not-viewed",
            "Your numbers are whole numbers: x is converted to an integer, not its bits viewed as one.",
            "`x.to(torch.int32)` cuts the fraction off; `x.view(torch.int32)` leaves the bits as they are.",
        )
    if want.ndim and got.ndim == want.ndim and got.shape[-1] == 2 * want.shape[-1]:
        return Finding(
            "int64-bits",
            f"The result has shape {got.shape} instead of {want.shape}: an int64 viewed as float32 is two numbers.",
            "Print the dtype of the bits before the view: a tensor of int64 among the terms makes the sum int64.",
        )
    return None


class _Rounding(Numeric):
    """Looks at the type of the result as well, once its numbers are right."""

    def _judged(self, candidate: Callable[..., Any]) -> list[Finding]:
        if findings := super()._judged(candidate):
            return findings
        arguments = {name: torch.tensor(value) for name, value in self.cases[0].items()}
        with watched("it is called once more"):
            result = candidate(**arguments)
        if isinstance(result, Tensor) and result.dtype == torch.bfloat16:
            return []
        kind = str(result.dtype) if isinstance(result, Tensor) else type(result).__name__
        return [
            Finding(
                "not-bfloat16",
                f"The numbers are right, but they come as {kind}, which takes more bytes.",
                "A tensor of torch.bfloat16 is asked for. Once the low bits are zero, `.to(torch.bfloat16)` is exact.",
            )
        ]


judge_stochastic_round = _Rounding(
    _rounded,
    _ROUND_CASES,
    _ROUND_MISTAKES,
    "a bfloat16 tensor of the shape of `x`",
    tensors=True,
    edges=_ROUND_EDGES,
    pattern=_misread,
    few_bits=True,
)
