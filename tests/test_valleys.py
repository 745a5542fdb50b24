"""course_lib.problems.valleys: the functions by hand arithmetic, and descents with a known course."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems.valleys import Valley, beale, descend, quadratic, rosenbrock, saddle

ALL = [quadratic(), quadratic(1.0), rosenbrock(), beale(), saddle()]
WITH_MINIMUM = [valley for valley in ALL if valley.minimum is not None]


def named(valley: Valley) -> str:
    return valley.name


def value_and_gradient(valley: Valley, point) -> tuple[float, list[float]]:
    point = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = valley.function(point)
    value.backward()
    return value.item(), point.grad.tolist()


@pytest.mark.parametrize(
    ("valley", "point", "value", "gradient"),
    [
        # (9 + 100 * 4) / 2; (3, 100 * 2)
        (quadratic(100.0), (3.0, 2.0), 204.5, [3.0, 200.0]),
        (quadratic(7.0), (-1.0, 1.0), 4.0, [-1.0, 7.0]),
        # At the start (-1.2, 1): 2.2^2 + 100 * 0.44^2; -2 * 2.2 + 400 * 1.2 * (1 - 1.44), 200 * (1 - 1.44)
        (rosenbrock(), (-1.2, 1.0), 24.2, [-215.6, -88.0]),
        (rosenbrock(), (0.0, 0.0), 1.0, [-2.0, 0.0]),
        # y = 1 leaves 1.5^2 + 2.25^2 + 2.625^2, and d/dy = 2 * (1.5 * 1 + 2.25 * 2 + 2.625 * 3) * x
        (beale(), (1.0, 1.0), 14.203125, [0.0, 27.75]),
        # At y = 0: 0.5^2 + 1.25^2 + 1.625^2; d/dx = -2 * 3.375, d/dy = 2 * 0.5 * 1
        (beale(), (1.0, 0.0), 4.453125, [-6.75, 1.0]),
        (saddle(), (3.0, 2.0), 5.0, [6.0, -4.0]),
    ],
)
def test_values_and_gradients_by_hand(valley, point, value, gradient):
    got_value, got_gradient = value_and_gradient(valley, point)
    assert got_value == pytest.approx(value, rel=1e-13)
    assert got_gradient == pytest.approx(gradient, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("valley", WITH_MINIMUM, ids=named)
def test_the_minimum_is_one(valley):
    value, gradient = value_and_gradient(valley, valley.minimum)
    assert value == 0 and gradient == [0, 0]
    hessian = torch.autograd.functional.hessian(valley.function, torch.tensor(valley.minimum, dtype=torch.float64))
    assert torch.linalg.eigvalsh(hessian).min() > 0


def test_curvatures_are_those_promised():
    def eigenvalues(valley, point):
        hessian = torch.autograd.functional.hessian(valley.function, torch.tensor(point, dtype=torch.float64))
        return torch.linalg.eigvalsh(hessian)

    assert eigenvalues(quadratic(50.0), (2.0, -1.0)).tolist() == pytest.approx([1, 50])
    assert eigenvalues(saddle(), (0.0, 0.0)).tolist() == pytest.approx([-2, 2])
    low, high = eigenvalues(rosenbrock(), (1.0, 1.0)).tolist()
    assert high / low == pytest.approx(2508, abs=1)


@pytest.mark.parametrize("valley", ALL, ids=named)
def test_the_picture_holds_start_and_minimum(valley):
    (x0, x1), (y0, y1) = valley.bounds
    for point in filter(None, (valley.start, valley.minimum)):
        assert x0 < point[0] < x1 and y0 < point[1] < y1


@pytest.mark.parametrize("valley", ALL, ids=named)
def test_functions_take_grids(valley):
    grid = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, 5, 2)))
    values = valley.function(grid)
    assert values.shape == (4, 5) and values.dtype == torch.float64
    assert values[2, 3] == valley.function(grid[2, 3])


@settings(max_examples=30)
@given(condition=st.floats(1, 1e4), share=st.floats(0.05, 0.95))
def test_gradient_descent_multiplies_each_axis_by_its_own_factor(condition, share):
    lr, steps = share * 2 / condition, 20
    path = descend(quadratic(condition), lambda params: torch.optim.SGD(params, lr=lr), steps, start=(2.0, -1.0))
    t = np.arange(steps + 1)
    assert path.shape == (steps + 1, 2) and path.dtype == np.float64
    np.testing.assert_allclose(path[:, 0], 2 * (1 - lr) ** t, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path[:, 1], -((1 - lr * condition) ** t), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("factor", "converges"), [(0.99, True), (1.01, False)])
def test_the_largest_stable_step_is_two_over_the_largest_curvature(factor, converges):
    valley = quadratic(100.0)
    path = descend(valley, lambda params: torch.optim.SGD(params, lr=factor * 2 / 100), 300)
    assert (abs(path[-1, 1]) < 0.01) if converges else (abs(path[-1, 1]) > 100)


def test_a_path_that_diverges_is_followed_to_the_end():
    path = descend(rosenbrock(), lambda params: torch.optim.SGD(params, lr=1.0), 30)
    assert path.shape == (31, 2)
    assert not np.isfinite(path[-1]).any()


def test_the_ridge_of_the_saddle_leads_to_the_saddle_and_one_beside_it_away():
    sgd = lambda params: torch.optim.SGD(params, lr=0.1)
    assert descend(saddle(), sgd, 100, start=(-1.5, 0.0))[-1] == pytest.approx([0, 0], abs=1e-9)
    assert abs(descend(saddle(), sgd, 100)[-1, 1]) > 1


def test_descents_start_where_they_are_told_and_leave_the_valley_as_it_was():
    valley = beale()
    adam = lambda params: torch.optim.Adam(params, lr=0.05)
    first, second = descend(valley, adam, 5), descend(valley, adam, 5)
    np.testing.assert_array_equal(first, second)
    assert first[0].tolist() == list(valley.start)
    assert descend(valley, adam, 0, start=np.array([0.5, 0.25])).tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("condition", [0.5, -1, float("nan"), float("inf")])
def test_a_condition_number_out_of_range_is_refused(condition):
    with pytest.raises(ValueError, match=r"Invalid condition: .* Allowed: condition >= 1"):
        quadratic(condition)


@pytest.mark.parametrize("bad", [dict(steps=-1), dict(steps=1, start=(1.0,)), dict(steps=1, start=(float("nan"), 0.0))])
def test_bad_descents_are_refused(bad):
    with pytest.raises(ValueError, match="Allowed"):
        descend(saddle(), lambda params: torch.optim.SGD(params, lr=0.1), **bad)
