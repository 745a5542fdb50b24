"""course_lib.problems.sharpness against Hessians that are written out; course_lib.problems.chebyshev by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import hessian

from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.sharpness import hessian_products, sharpness


def quadratic(curvatures, seed=0):
    """x -> x^T H x / 2, H having these eigenvalues along random axes."""
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(curvatures), len(curvatures))))[0]
    matrix = torch.from_numpy(axes * np.asarray(curvatures, dtype=np.float64) @ axes.T)
    return lambda x: x @ matrix @ x / 2


def test_products_are_those_of_the_hessian_written_out():
    loss, start = tanh_fit(width=3)
    full = hessian(loss, start)
    product = hessian_products(loss, start)
    vectors = torch.from_numpy(np.random.default_rng(1).standard_normal((4, len(start))))
    for vector in vectors:  # the same graph serves for every product
        torch.testing.assert_close(product(vector), full @ vector, rtol=1e-9, atol=1e-12)


@settings(max_examples=25)
@given(
    largest=st.floats(1, 1e4), sign=st.sampled_from([-1, 1]),
    others=st.lists(st.floats(-0.8, 0.8), min_size=1, max_size=6), seed=st.integers(0, 99),
)
def test_sharpness_is_the_largest_eigenvalue_with_its_sign(largest, sign, others, seed):
    curvatures = [sign * largest, *(share * largest for share in others)]
    point = torch.ones(len(curvatures), dtype=torch.float64)
    assert sharpness(quadratic(curvatures, seed), point) == pytest.approx(sign * largest, rel=1e-6)


def test_sharpness_of_the_network_is_that_of_its_hessian():
    loss, start = tanh_fit(width=6)
    eigenvalues = torch.linalg.eigvalsh(hessian(loss, start))
    largest = eigenvalues[eigenvalues.abs().argmax()].item()
    assert sharpness(loss, start) == pytest.approx(largest, rel=1e-6)


def test_sharpness_depends_on_where_one_is():
    def quartic(x):
        return (x**4).sum()  # the Hessian is diag(12 x^2)

    assert sharpness(quartic, torch.tensor([1.0, 3.0], dtype=torch.float64)) == pytest.approx(108)
    assert sharpness(quartic, torch.tensor([-2.0, 0.5])) == pytest.approx(48, rel=1e-5)


@pytest.mark.parametrize("loss", [lambda x: 3 * x.sum(), lambda x: (x**4).sum()], ids=["linear", "flat here"])
def test_a_loss_without_curvature_has_sharpness_zero(loss):
    assert sharpness(loss, torch.zeros(3)) == 0


def test_a_hundred_thousand_parameters_fit():
    # The Hessian would take 80 GB.
    curvatures = torch.linspace(0, 1, 100_000, dtype=torch.float64)
    curvatures[7] = -5
    value = sharpness(lambda x: (curvatures * x**2).sum() / 2, torch.zeros(100_000, dtype=torch.float64))
    assert value == pytest.approx(-5, rel=1e-6)


def test_the_point_stays_as_it_was_and_gradients_may_be_switched_off_around_it():
    point = torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.no_grad():
        assert sharpness(lambda x: (x**2).sum(), point) == pytest.approx(2)
    assert point.grad is None and point.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("point", "message"),
    [(torch.zeros(2, 2), "shape"), (torch.zeros(2, dtype=torch.int64), "int64"), (torch.tensor([0.0]), "NaN")],
)
def test_points_without_a_hessian_are_refused(point, message):
    with pytest.raises(ValueError, match=rf"{message}.* Allowed"):
        sharpness(lambda x: x.sqrt().sum(), point)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="Invalid iterations: 0"):
        sharpness(lambda x: (x**2).sum(), torch.ones(2), iterations=0)


def test_the_loss_of_the_network_by_plain_arithmetic():
    loss, start = tanh_fit(width=2, seed=3)
    assert start.dtype == torch.float64 and len(start) == 2 * 2**2 + 5 * 2 + 1
    params, at = start.numpy() + 0.1, 0
    x = np.linspace(-1, 1, 20)[:, None]
    out = x
    for inputs, outputs in ((1, 2), (2, 2), (2, 2), (2, 1)):
        matrix = params[at : at + inputs * outputs].reshape(inputs, outputs)
        out = out @ matrix + params[at + inputs * outputs : at + (inputs + 1) * outputs]
        out = np.tanh(out) if outputs > 1 else out
        at += (inputs + 1) * outputs
    expected = np.mean((out - (8 * x**4 - 8 * x**2 + 1)) ** 2) / 2
    assert loss(start + 0.1).item() == pytest.approx(expected, rel=1e-12)


def test_the_network_starts_from_its_seed_with_biases_zero():
    (_, first), (_, again), (_, other) = (tanh_fit(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first == 0).sum() == 50 + 50 + 50 + 1
    assert first[100:2600].std().item() == pytest.approx(50**-0.5, rel=0.05)


def test_a_width_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Invalid width: 0"):
        tanh_fit(width=0)
