"""course_lib.problems.blocks against eigenvalues, closed forms and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems import blocks

SPECTRA = st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=25)
@given(spectra=SPECTRA, seed=st.integers(0, 99))
def test_blocks_have_the_curvatures_asked_for(spectra, seed):
    problem = blocks.block_quadratic(spectra, runs=2, seed=seed)
    for hessian, spectrum in zip(problem.hessians, spectra, strict=True):
        assert hessian.dtype == torch.float64 and hessian.shape == (2, len(spectrum), len(spectrum))
        found = torch.linalg.eigvalsh(hessian)
        np.testing.assert_allclose(found, np.broadcast_to(sorted(spectrum), found.shape), rtol=1e-8, atol=1e-9)
    # Every eigenvector has coordinate 1 in the start, so that the value there is half the sum of the curvatures.
    np.testing.assert_allclose(problem.loss(problem.starts), sum(map(sum, spectra)) / 2, rtol=1e-9)


@pytest.mark.parametrize("spectra", [blocks.HETEROGENEOUS, blocks.HOMOGENEOUS])
def test_gradient_descent_is_its_closed_form_and_blind_to_blocks(spectra):
    problem = blocks.block_quadratic(spectra, runs=3)
    curvatures = np.sort(np.concatenate(spectra))
    np.testing.assert_array_equal(curvatures, [1, 2, 3, 99, 100, 101, 4998, 4999, 5000])
    lr = blocks.best_rate(curvatures)
    assert lr == 2 / 5001
    ended = blocks.descend(problem, lambda weights: torch.optim.SGD(weights, lr=lr), 500)
    closed = (curvatures * (1 - lr * curvatures) ** 1000).sum() / curvatures.sum()
    np.testing.assert_allclose(ended, closed, rtol=1e-6)


def test_one_rate_a_block_cures_one_arrangement_only():
    def run(spectra):
        problem = blocks.block_quadratic(spectra, runs=3)
        rates = [blocks.best_rate(spectrum) for spectrum in spectra]
        groups = lambda weights: [dict(params=[w], lr=lr) for w, lr in zip(weights, rates, strict=True)]
        return blocks.descend(problem, lambda weights: torch.optim.SGD(groups(weights)), 500)

    assert run(blocks.HETEROGENEOUS).max() < 1e-100
    assert run(blocks.HOMOGENEOUS).min() > 0.4
    assert blocks.best_rate([1, 2, 3]) == 0.5


def test_runs_do_not_touch_each_other():
    both = blocks.block_quadratic([[1.0, 30.0], [5.0]], runs=2, seed=4)
    adam = lambda weights: torch.optim.Adam(weights, lr=0.05)
    together = blocks.descend(both, adam, 40)
    for run in range(2):
        parts = ([part[run : run + 1] for part in of] for of in (both.hessians, both.starts))
        alone = blocks.BlockQuadratic(*map(tuple, parts))
        np.testing.assert_allclose(blocks.descend(alone, adam, 40), together[run : run + 1], rtol=1e-9)
    assert together[0] != together[1]
    np.testing.assert_array_equal(blocks.descend(both, adam, 0), 1.0)


def test_gradients_are_those_of_the_loss():
    problem = blocks.block_quadratic([[1.0, 7.0], [2.0, 3.0, 400.0]], runs=2)
    weights = [start.clone().requires_grad_() for start in problem.starts]
    problem.loss(weights).sum().backward()
    moved = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            moved.extend(param.grad.clone() for param in self.param_groups[0]["params"])

    blocks.descend(problem, lambda params: Spy(params, lr=1.0), 1)
    for mine, weight in zip(moved, weights, strict=True):
        torch.testing.assert_close(mine, weight.grad)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: blocks.block_quadratic([]), "a block is missing"),
        (lambda: blocks.block_quadratic([[1.0], []]), "a block is missing"),
        (lambda: blocks.block_quadratic([[0.0]]), "Invalid eigenvalue: 0.0"),
        (lambda: blocks.block_quadratic([[math.nan]]), "Invalid eigenvalue: nan"),
        (lambda: blocks.block_quadratic([[1.0]], runs=0), "Invalid runs: 0"),
        (lambda: blocks.descend(blocks.block_quadratic([[1.0]]), torch.optim.SGD, -1), "Invalid steps: -1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)
