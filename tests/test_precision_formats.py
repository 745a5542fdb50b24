"""Number formats against torch's casts and NumPy's, over every pattern of bits where there are few enough."""

from __future__ import annotations

import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from course_lib.precision import FORMATS, neighbours, round_to, take_apart

pytestmark = pytest.mark.filterwarnings("error")  # a warning would end in a notebook's output
STORED = [key for key, spec in FORMATS.items() if spec.dtype is not None]
NARROW = [key for key in STORED if FORMATS[key].bits <= 16]


def patterns(key: str) -> tuple[list[str], np.ndarray]:
    """Every pattern of bits of a narrow format in ascending order, and torch's reading of it in float64."""
    spec = FORMATS[key]
    codes = np.arange(2**spec.bits, dtype=np.uint16 if spec.bits == 16 else np.uint8)
    numbers = torch.from_numpy(codes).view(spec.dtype).to(torch.float64).numpy()
    return [f"{code:0{spec.bits}b}" for code in codes.tolist()], numbers


def torch_cast(x: np.ndarray, key: str) -> np.ndarray:
    """float32 values through torch's own conversion and back."""
    return torch.from_numpy(x).to(FORMATS[key].dtype).to(torch.float64).numpy()


def same(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal everywhere, NaN and the sign of zero included."""
    nan = np.isnan(mine) & np.isnan(theirs)
    return bool(np.all(nan | ((mine == theirs) & (np.signbit(mine) == np.signbit(theirs)))))


def in_range(x: np.ndarray, key: str) -> np.ndarray:
    """``x`` without what e4m3 cannot hold: there torch's answer depends on its version."""
    if FORMATS[key].has_inf:
        return x
    return x[~(np.abs(x) > 464)]  # 464 is the middle of 448 and what would come next, and goes to the even 448


@pytest.mark.parametrize("key", STORED)
def test_a_format_has_the_numbers_of_torch_finfo(key):
    spec, theirs = FORMATS[key], torch.finfo(FORMATS[key].dtype)
    mine = (spec.bits, spec.max, spec.smallest_normal, spec.epsilon)
    assert mine == (theirs.bits, theirs.max, theirs.smallest_normal, theirs.eps)
    smallest = torch.zeros(1, dtype=torch.float32).to(spec.dtype)
    size = {32: torch.int32, 16: torch.int16, 8: torch.uint8}[spec.bits]
    smallest.view(size).fill_(1)  # the pattern next to zero
    assert spec.smallest_subnormal == smallest.to(torch.float64).item()


def test_tf32_has_the_range_of_float32_and_the_digits_of_float16():
    tf32, fp32, fp16 = FORMATS["tf32"], FORMATS["fp32"], FORMATS["fp16"]
    assert (tf32.bits, tf32.bias, tf32.dtype) == (19, 127, None)
    assert (tf32.smallest_normal, tf32.epsilon) == (fp32.smallest_normal, fp16.epsilon)
    assert tf32.max == float.fromhex("0x1.ffcp127")


@pytest.mark.parametrize("key", NARROW)
def test_every_pattern_comes_back_from_its_number(key):
    spec = FORMATS[key]
    bits, numbers = patterns(key)
    assert same(round_to(numbers, key), numbers)
    kinds = Counter()
    for pattern, number in zip(bits, numbers.tolist(), strict=True):
        parts = take_apart(number, key)
        kinds[parts.kind] += 1
        if parts.kind == "nan":
            assert math.isnan(number)
            continue
        assert parts.bits.replace(" ", "") == pattern
        assert parts.value == number
        fields = tuple(int(field, 2) for field in parts.bits.split(" "))
        assert fields == (parts.sign, parts.exponent_field, parts.mantissa_field)
    fractions = 2**spec.mantissa_bits
    assert kinds["zero"] == 2
    assert kinds["subnormal"] == 2 * (fractions - 1)
    assert kinds["inf"] == 2 * spec.has_inf
    assert kinds["nan"] == (2 * (fractions - 1) if spec.has_inf else 2)
    assert kinds.total() == 2**spec.bits


@pytest.mark.parametrize("key", NARROW)
def test_every_middle_between_two_numbers_goes_to_the_even_one(key):
    # The middles and their float32 neighbours are where a rounding can go wrong; torch rounds them from float32.
    numbers = patterns(key)[1]
    finite = np.sort(numbers[np.isfinite(numbers)])
    middle = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    around = np.concatenate(
        [middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))]
    )
    assert same(round_to(around, key), torch_cast(around, key))


@pytest.mark.parametrize("key", STORED)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=64, max_size=64))
def test_rounds_float32_as_torch_casts(key, bits):
    x = in_range(np.array(bits, dtype=np.uint32).view(np.float32), key)
    assert same(round_to(x, key), torch_cast(x, key))


@pytest.mark.parametrize("key", STORED)
@given(x=st.lists(st.floats(-70000, 70000, width=32), min_size=1, max_size=64))
def test_rounds_sizes_of_training_as_torch_casts(key, x):
    x = in_range(np.array(x, dtype=np.float32), key)
    assert same(round_to(x, key), torch_cast(x, key))


@pytest.mark.parametrize(("key", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
@given(x=st.lists(st.floats(), min_size=1, max_size=64))
def test_rounds_float64_once_as_numpy_does(key, dtype, x):
    with np.errstate(over="ignore"):
        theirs = np.array(x).astype(dtype).astype(np.float64)
    assert same(round_to(x, key), theirs)


def test_float64_is_rounded_once_where_torch_rounds_twice():
    x = 1 + 2.0**-11 + 2.0**-30  # just above a middle of float16; in float32 it is the middle
    assert round_to(x, "fp16") == 1 + 2.0**-10
    assert np.float16(x) == 1 + 2.0**-10
    assert round_to(np.float32(x), "fp16") == 1.0


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=64, max_size=64))
def test_tf32_is_float32_with_13_bits_rounded_away(bits):
    words = np.array(bits, dtype=np.uint32)
    x = words.view(np.float32)
    words, x = words[np.isfinite(x)], x[np.isfinite(x)]
    odd = (words >> 13) & 1
    theirs = ((words + 0xFFF + odd) & ~np.uint32(0x1FFF)).view(np.float32).astype(np.float64)
    assert same(round_to(x, "tf32"), theirs)


@pytest.mark.parametrize("key", FORMATS)
def test_past_the_largest_number(key):
    spec = FORMATS[key]
    step = spec.max - neighbours(spec.max, key)[0]
    middle = spec.max + step / 2
    beyond = math.inf if spec.has_inf else spec.max
    assert round_to(np.nextafter(middle, 0), key) == spec.max
    assert round_to([middle, 1e300, math.inf, -1e300, -math.inf], key).tolist() == [beyond] * 3 + [-beyond] * 2
    assert math.isnan(round_to(math.nan, key))


def test_torch_saturates_e4m3_or_makes_it_nan():
    # Which of the two depends on torch's version; nothing else may happen.
    for size in (465.0, 1e9, math.inf):
        for x in (size, -size):
            theirs = torch.tensor(x).to(torch.float8_e4m3fn).item()
            assert math.isnan(theirs) or theirs == round_to(x, "fp8_e4m3")


def test_numbers_known_by_heart():
    assert FORMATS["fp16"].max == 65504
    assert FORMATS["fp8_e4m3"].max == 448
    assert FORMATS["fp8_e5m2"].max == 57344
    assert FORMATS["fp16"].smallest_subnormal == 2.0**-24
    assert round_to([0.999, 1e-8], "bf16").tolist() == [1.0, 1.0011717677116394e-08]
    assert round_to(1e-8, "fp16") == 0
    assert take_apart(-6.5, "bf16").bits == "1 10000001 1010000"
    assert take_apart(65504.0, "fp16").bits == "0 11110 1111111111"
    assert take_apart(2.0**-24, "fp16").kind == "subnormal"
    assert take_apart(-0.0, "fp16").bits == "1 00000 0000000000"


@pytest.mark.parametrize("key", NARROW)
def test_neighbours_are_the_next_patterns(key):
    numbers = patterns(key)[1]
    finite = np.unique(numbers[np.isfinite(numbers)])
    stride = 1 if len(finite) < 1000 else 5  # no power of two, so that every place within a binade comes up
    for index in range(1, len(finite) - 1, stride):
        assert neighbours(float(finite[index]), key) == (finite[index - 1], finite[index + 1])


@pytest.mark.parametrize("key", FORMATS)
@given(x=st.floats(-440, 440))
def test_a_number_lies_between_its_neighbours_and_rounds_to_the_nearer(key, x):
    below, above = neighbours(x, key)
    rounded = float(round_to(x, key))
    assert below < x < above
    assert round_to([below, above], key).tolist() == [below, above]
    if rounded != x:
        assert rounded in (below, above)
        assert abs(rounded - x) == min(x - below, above - x)


def test_neighbours_at_the_edges():
    assert neighbours(1.0, "bf16") == (1 - 2.0**-8, 1 + 2.0**-7)
    assert neighbours(0.0, "fp16") == (-(2.0**-24), 2.0**-24)
    assert neighbours(2.0**-24, "fp16") == (0.0, 2.0**-23)
    assert neighbours(1e-30, "fp16") == (0.0, 2.0**-24)
    assert neighbours(65504.0, "fp16") == (65472.0, math.inf)
    assert neighbours(1e6, "fp16") == (65504.0, math.inf)
    assert neighbours(-1e6, "fp16") == (-math.inf, -65504.0)
    below, above = neighbours(500.0, "fp8_e4m3")
    assert below == 448 and math.isnan(above)
    below, above = neighbours(-448.0, "fp8_e4m3")
    assert math.isnan(below) and above == -416


def test_takes_numbers_lists_arrays_and_tensors_of_any_shape():
    assert round_to(0.1, "bf16").shape == ()
    assert round_to([[0.1, 2], [3, 4]], "bf16").shape == (2, 2)
    assert round_to(np.zeros((0, 3)), "bf16").shape == (0, 3)
    for dtype in (torch.bfloat16, torch.float8_e5m2, torch.float64, torch.int32):
        tensor = torch.ones(2, 3).to(dtype)
        assert round_to(tensor, "fp16").tolist() == [[1.0] * 3] * 2
    assert round_to(torch.ones(2, requires_grad=True), "fp16").dtype == np.float64


def test_what_is_refused():
    with pytest.raises(ValueError, match="Did you mean bf16"):
        round_to(1.0, "bfloat16")
    with pytest.raises(ValueError, match="Known: fp32, tf32, bf16"):
        take_apart(1.0, None)
    for bad in ("1.0", True, None, 1j):
        with pytest.raises(TypeError, match="plain real number"):
            take_apart(bad, "fp16")
        with pytest.raises(TypeError, match="real numbers"):
            round_to(bad, "fp16")
    with pytest.raises(TypeError, match="torch.bool"):
        round_to(torch.tensor(True), "fp16")
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="a finite number"):
            neighbours(bad, "fp16")
