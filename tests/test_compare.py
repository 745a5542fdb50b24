"""course_lib.compare: the one line it prints, and the rule it judges by."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_lib.compare import compare


def told(capsys, *args, **kwargs) -> tuple[bool, str]:
    result = compare(*args, **kwargs)
    line, end = capsys.readouterr().out.split("\n", 1)
    assert not end, "exactly one line"
    return result, line


def test_a_match_is_one_exact_line(capsys):
    ones = torch.ones(2, 3)
    assert told(capsys, "m", ones, ones) == (True, "m                matches within 1e-06: True")
    assert told(capsys, "m", 1, 1.0, tol=0) == (True, "m                matches within 0: True")


def test_a_mismatch_names_the_largest_difference_and_where(capsys):
    theirs = np.zeros((2, 4))
    mine = theirs.copy()
    mine[0, 3], mine[1, 1] = 0.0123, -0.01
    assert told(capsys, "v", mine, theirs) == (
        False, "v                matches within 1e-06: False (largest difference 0.0123 at index (0, 3))"
    )
    assert told(capsys, "loss", 1.5, 1.0)[1].endswith("False (largest difference 0.5)")


def test_the_element_named_is_one_that_fails(capsys):
    # 100 against 1e12 is within a relative 1e-6; 0.001 against 1 is not.
    _, line = told(capsys, "w", [1e12 + 100, 1.001], [1e12, 1.0])
    assert line.endswith("(largest difference 0.001 at index (1,))")


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        (np.nan, np.nan, "NaN in both"),
        ([0.0, np.nan], [0.0, 1.0], "NaN in mine at index (1,)"),
        (torch.tensor([0.0, 1.0]), torch.tensor([torch.nan, 1.0]), "NaN in theirs at index (0,)"),
        (np.inf, -np.inf, "largest difference inf"),
        (1.0, np.inf, "largest difference inf"),
        (np.ones(3), np.ones((1, 3)), "shapes differ: (3,) and (1, 3)"),
        (np.empty((0, 2)), np.ones(2), "shapes differ: (0, 2) and (2,)"),
    ],
)
def test_what_never_matches_is_told(capsys, mine, theirs, reason):
    result, line = told(capsys, "x", mine, theirs, tol=1e3)
    assert not result
    assert line.endswith(f"False ({reason})")


def test_equal_infinities_match(capsys):
    assert told(capsys, "x", [np.inf, -np.inf], [np.inf, -np.inf], tol=0)[0]


def test_other_dtypes_are_told_and_compared_in_float64(capsys):
    third = torch.tensor([1 / 3])
    result, line = told(capsys, "w", third.bfloat16(), third, tol=1e-2)
    assert result and line.endswith("True (dtypes differ: bfloat16 and float32)")
    assert not told(capsys, "w", third.bfloat16(), third)[0]
    assert told(capsys, "n", torch.tensor([1, 2]), [1, 2]) == (True, "n                matches within 1e-06: True")


def test_tensors_that_require_grad_are_welcome(capsys):
    parameter = torch.nn.Parameter(torch.ones(2))
    assert told(capsys, "p", parameter, np.ones(2, dtype=np.float32))[0]
    assert parameter.grad is None


numbers = st.floats(-1e6, 1e6) | st.just(np.inf)
floats = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=numbers)


@settings(max_examples=100)
@given(floats, st.floats(-1e-2, 1e-2), st.sampled_from([0.0, 1e-8, 1e-4, 1e-2]))
def test_the_rule_is_torch_allclose(theirs, shift, tol):
    mine = theirs + shift * np.abs(np.where(np.isinf(theirs), 1, theirs))
    expected = torch.allclose(torch.tensor(mine), torch.tensor(theirs), rtol=tol, atol=tol)
    assert compare("x", mine, theirs, tol) == expected


@pytest.mark.parametrize("tol", [-1e-6, float("nan"), float("inf")])
def test_a_tolerance_out_of_range_is_refused(tol):
    with pytest.raises(ValueError, match=r"Invalid tol: .* Allowed: tol >= 0 and finite"):
        compare("x", 1, 1, tol)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="nothing to compare"):
        compare("x", [], torch.empty(0))


@pytest.mark.parametrize("value", ["text", None, [[1, 2], [3]], torch.tensor([1j]), np.array([1j])])
def test_what_is_no_real_number_is_refused_by_name(value):
    with pytest.raises(TypeError, match="w: mine is"):
        compare("w", value, 1.0)


def test_importing_it_loads_neither_torch_nor_matplotlib():
    code = "import sys, course_lib.compare; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
