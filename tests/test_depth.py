"""Signals by depth: the laws that the docstrings state, and gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from course_lib.problems import depth


@pytest.mark.parametrize("gain", [1 / 3, 1.0, 2.0, 3.0])
def test_a_chain_multiplies_by_half_the_gain_a_layer_both_ways(gain):
    runs = [depth.plain(gain, depth=20, width=256, seed=seed) for seed in range(3)]
    for signals in zip(*((run.forward, run.backward[::-1]) for run in runs)):
        rate = np.mean([np.log(signal[-1] / signal[0]) for signal in signals]) / 20
        assert rate == pytest.approx(math.log(gain / 2) / 2, abs=0.02)


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5**0.5, 1.0])
def test_a_stream_adds_variances(scale):
    forward = depth.residual(scale, branches=40, width=256).forward
    np.testing.assert_allclose(forward**2, 1 + scale**2 * np.arange(41), rtol=0.08)


def test_gradients_fall_as_the_stream_grows():
    signal = depth.residual(1.0, branches=96)
    assert len(signal.forward) == len(signal.backward) == 97
    assert signal.backward[0] == pytest.approx(signal.forward[-1] / signal.forward[0], rel=0.15)
    assert signal.forward[0] == pytest.approx(1) and signal.backward[-1] == pytest.approx(1)
    assert (depth.residual(0.0, branches=5).backward == 1).all()


def test_the_scale_of_gpt2_keeps_every_depth_at_two():
    for branches in (4, 24, 96):
        assert depth.residual(branches**-0.5, branches, width=256).forward[-1] ** 2 == pytest.approx(2, rel=0.06)


def test_a_seed_means_the_same_and_another_not():
    assert np.array_equal(depth.plain(2.0, 5).forward, depth.plain(2.0, 5).forward)
    assert not np.array_equal(depth.plain(2.0, 5).forward, depth.plain(2.0, 5, seed=1).forward)


@pytest.mark.parametrize(("function", "arguments", "said"), [
    (depth.plain, (0.0,), "Invalid gain: 0.0"), (depth.plain, (math.nan,), "Invalid gain: nan"),
    (depth.plain, (2.0, 0), "Invalid depth: 0"), (depth.plain, (2.0, True), "Invalid depth: True"),
    (depth.residual, (-1.0,), "Invalid scale: -1.0. Allowed: a finite number >= 0"),
    (depth.residual, (1.0, 4, 0), "Invalid width: 0"), (depth.residual, (math.inf,), "Invalid scale: inf"),
])
def test_a_wrong_argument_is_named_with_what_is_allowed(function, arguments, said):
    with pytest.raises(ValueError) as error:
        function(*arguments)
    assert said in str(error.value)
