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


def _then_nearest(cut: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """What is left of ``cut`` when its numbers, which bf16 does not have, are converted to bf16."""
    return lambda x, noise: to_bfloat16(cut(x, noise))


def _up_where(chance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The next number away from zero where ``chance(low bits, noise)`` says so, else the one towards zero."""
    return _cut(lambda bits, noise: np.where(chance(bits & 0xFFFF, noise), 0x10000, 0))


def _within_exponent(x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Cut without noise wherever the noise carries into the exponent."""
    low, carried = _cut(lambda bits, noise: 0)(x, noise), _cut()(x, noise)
    return np.where((bits_of(low) ^ bits_of(carried)) & 0x7F800000, low, carried)


_ROUND_MISTAKES = (
    Known(
        "noise-ignored",
        "rounding to nearest: the noise does nothing",
        "`x.to(torch.bfloat16)` rounds to nearest. Where does the noise come in?",
        lambda x, noise: to_bfloat16(x),
    ),
    Known(
        "cut-only",
        "the low bits cut without noise (or with `bits | noise`, which never carries)",
        "Without noise every number goes towards zero. Addition is what carries into the upper half: `+`.",
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
        "negative-cut",
        "noise added where x is positive, and negative numbers cut",
        "The sign is a bit of its own: adding to the low bits makes any number larger in size, positive or negative.",
        _cut(lambda bits, noise: np.where(bits >= 2**31, 0, noise)),
    ),
    Known(
        "negative-mirrored",
        "negative numbers that go up where the noise is less than the low bits, not where the sum carries",
        "The sign is a bit of its own: the same sum, and the same carry, for positive and negative numbers.",
        _cut(lambda bits, noise: np.where(bits < 2**31, noise, np.where((bits & 0xFFFF) > noise, 0x10000, 0))),
    ),
    Known(
        "noise-centred",
        "noise - 32768 added, and the low bits cut",
        "Cut after the noise, and the noise is to run from 0: centred noise belongs to rounding to nearest.",
        _cut(lambda bits, noise: noise - 0x8000),
    ),
    Known(
        "noise-centred-rounded",
        "noise - 32768 added, and a rounding to nearest",
        "Just as often up as it should be, but for ties; here the noise is added as it is, and the low bits are cut.",
        _then_nearest(_cut(lambda bits, noise: noise - 0x8000, 0xFFFFFFFF)),
    ),
    Known(
        "noise-as-int16",
        "noise as int16, where 32768 and above are negative",
        "The noise reaches up to 65535: int16 ends at 32767.",
        _cut(lambda bits, noise: np.where(noise >= 0x8000, noise - 0x10000, noise)),
    ),
    Known(
        "noise-of-15-bits",
        "noise without its last bit",
        "All 16 bits of the noise count.",
        _cut(lambda bits, noise: noise & 0xFFFE),
    ),
    Known(
        "noise-of-8-bits",
        "noise, or x, without its lower 8 bits",
        "All 16 bits of the noise count, and all 16 low bits of x: a carry is as likely as x is near the next number.",
        _cut(lambda bits, noise: noise & 0xFF00),
    ),
    Known(
        "cut-then-noise-then-rounded",
        "the low bits cut before the noise is added, and the sum rounded to nearest",
        "Add the noise to all bits of x, and cut then.",
        _then_nearest(_cut(lambda bits, noise: noise - (bits & 0xFFFF), 0xFFFFFFFF)),
    ),
    Known(
        "carry-kept-out-of-the-exponent",
        "a carry that does not reach the exponent",
        "The number after 1.9921875 is 2: a carry out of the last 7 bits raises the exponent, and that is right.",
        _within_exponent,
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
    *(
        Known(
            f"{code}-rounded",
            f"{what}, and the rest converted to bf16 to nearest",
            "bf16 has 7 bits behind the point, float32 has 23: 16 bits are cut.",
            _then_nearest(_cut(mask=mask)),
        )
        for code, what, mask in (
            ("thirteen-bits-cut", "13 bits cut", 0xFFFFE000),
            ("fifteen-bits-cut", "15 bits cut", 0xFFFF8000),
            ("lower-half-kept", "the lower 16 bits kept", 0xFFFF),
        )
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
        "one-too-few",
        "an increase where low bits and noise together are more than 65536",
        "65536 is 2^16: a sum of exactly that carries, too.",
        _up_where(lambda low, noise: low + noise > 0x10000),
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
    upper = np.array([0x3F80, 0xBF80, 0x3F81, 0xC000, 0x4049, 0xC049, 0x3FFF, 0xBFFE, 0x3F90, 0x4090])
    return _with_noise(floats_of((upper << 16) | low), noise)


def _near_powers_of_two() -> dict[str, Any]:
    """Numbers whose carry reaches the exponent, and one of the kind that has no noise and stays below."""
    return _with_noise(_float32([1.9999, -3.9999, 0.99999, 1.99999988, -7.9999]), [65000, 60000, 65535, 1, 0])


_ROUND_CASES = [
    _with_noise(_float32(_RNG.normal(size=24), 4, 6)),
    _with_noise(_float32(_RNG.normal(size=40) * 10.0 ** _RNG.uniform(-3, 3, 40))),
    _with_noise(_float32(10.0 ** _RNG.uniform(-30, -25, 12)), None),
    _with_noise(_float32(-(10.0 ** _RNG.uniform(25, 30, 12))), None),
    _with_noise(_float32([1.0, -2.0, 0.0, 0.5, 3.140625]), 65535),
    _ties(),
    _near_powers_of_two(),
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


def _subnormal(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape != want[0].shape or got[0].any() or not want[0].any():
        return None
    return Finding(
        "subnormals-lost",
        f"Numbers below 2^-126, such as {case['x'][0]:g}, become 0.",
        "bf16 has subnormal numbers as float32 has. Their bits are treated as all others are.",
    )


def _overflow(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].shape != want[0].shape or np.isinf(got[0]).all() or np.isnan(got[0]).any():
        return None
    return Finding(
        "overflow-kept-out",
        f"{case['x'][0]:g} with noise {case['noise'][0]} becomes {got[0][0]:g} instead of {want[0][0]:g}.",
        "A carry out of the largest number leads to the bits of infinity, and that is right: it lies nearer to the next "
        "power of two than to the largest number.",
    )


def _beside_nan(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    finite = ~np.isnan(case["x"])
    if got[0].shape != want[0].shape or np.array_equal(got[0][finite], want[0][finite]):
        return _not_a_number(case, got, want)
    return Finding(
        "nan-changes-others",
        "Beside a NaN in x other numbers are rounded in another way than without it.",
        "NaN is a matter of single elements: `torch.where(x.isnan(), ...)`.",
    )


_ROUND_EDGES = [
    Edge(_with_noise(_float32(0.1), 40_000)),  # a tensor without dimensions
    Edge(_with_noise(_float32([0.0, -0.0]), 65535)),
    Edge({name: value.T for name, value in _with_noise(_float32(_RNG.normal(size=15), 3, 5)).items()}),
    Edge(_with_noise(_float32([1e-39, -3e-40, 1e-40, 9.2e-41]), [40_000, 3000, 65_000, 0]), _subnormal),
    Edge(_with_noise(_float32([3.4e38, -3.4e38]), [65_000, 65_535]), _overflow),
    Edge(_with_noise(_float32([np.inf, -np.inf, 1.0]), [65535, 65535, 0]), _infinite),
    Edge(  # numbers that the noise rounds to the number that is not the nearest
        _with_noise(floats_of(np.array([0x3F80C000, 0x7FC00000, 0xC0490400])), [0x1000, 9, 0xFFFF]),
        _beside_nan,
    ),
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
    """Looks at the type of the result as well, once its numbers are right. Keeps the strides of what it hands out."""

    def _given(self, value: np.ndarray) -> Tensor:
        return torch.from_numpy(value.copy(order="K"))

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
