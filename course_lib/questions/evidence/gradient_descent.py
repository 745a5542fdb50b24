"""Evidence for ``bank/gradient_descent.yaml``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.questions.evidence._feed import SGD, both_versions, descent


def limit_is_two_over_curvature() -> None:
    """Curvatures 1 and 10: SGD shrinks at 1% below 2 / 10 and grows at 1% above.

    The descent lemma promises a decrease of g^2 / (2 L) at 1 / L, also away from quadratics (log cosh, L = 1).
    """
    curvature = np.array([1.0, 10.0])
    for share, converges in ((0.99, True), (1.01, False)):
        path = descent(SGD, lambda x: curvature * x, [1.0, 1.0], 1000, lr=share * 2 / 10)
        assert (np.abs(path[-1]).max() < 1e-6) == converges
    x = np.linspace(-3, 3, 61)
    assert (np.log(np.cosh(x - np.tanh(x))) <= np.log(np.cosh(x)) - np.tanh(x) ** 2 / 2 + 1e-15).all()


def steps_to_a_share(condition: float = 100, share: float = 1e-6) -> float:
    """Steps of SGD with the best constant lr until every component is below this share of its start."""
    path = descent(SGD, lambda x: np.array([1.0, condition]) * x, [1.0, 1.0], 8 * condition, lr=2 / (1 + condition))
    return float(np.argmax(np.abs(path).max(axis=1) < share))


def falls_before_it_diverges() -> None:
    """lr 1% above 2 / L: the loss falls 50-fold for 115 steps, then it grows; from step 233 on it is above its start.

    The gradient norm turns earlier; in the end successive updates are opposite.
    """
    curvature = np.array([0.1, 10.0])
    path = descent(SGD, lambda x: curvature * x, [1.0, 1e-3], 350, lr=1.01 * 2 / 10)
    loss = (curvature * path**2).sum(axis=1) / 2
    assert (np.diff(loss[:116]) < 0).all() and (np.diff(loss[115:]) > 0).all() and 50 < loss[0] / loss[115] < 55
    assert loss[232] < loss[0] < loss[233] and round(np.log(1000) / np.log(1.02)) == 349
    assert np.linalg.norm(curvature * path, axis=1).argmin() < 80
    last, before = np.diff(path[-3:], axis=0)
    assert last @ before / np.linalg.norm(last) / np.linalg.norm(before) < -0.999


def steep_directions_oscillate() -> None:
    """Curvatures 1 and 20, lr 0.095: the steep component changes sign at each step, the flat one never.

    Halving lr stops the oscillation and doubles the time of the flat direction.
    """
    curvature = np.array([1.0, 20.0])
    path, halved = (descent(SGD, lambda x: curvature * x, [1.0, 1.0], 200, lr=lr) for lr in (0.095, 0.0475))
    assert (path[1:, 1] * path[:-1, 1] < 0).all() and (path[:, 0] > 0).all()
    assert (halved[:20] > 0).all()
    to_a_tenth = [int(np.argmax(run[:, 0] < 0.1)) for run in (path, halved)]
    assert to_a_tenth == [24, 48]


def condition_of_an_uncentred_feature(mean: float = 10, std: float = 1) -> float:
    """Condition number of least squares with a bias and one feature of this mean and standard deviation."""
    feature = mean + std * np.array([-1.0, 1.0])

    def condition(column: np.ndarray) -> float:
        design = np.stack([np.ones(2), column], axis=1)
        small, large = np.linalg.eigvalsh(design.T @ design / 2)
        return float(large / small)

    assert np.isclose(condition(feature - feature.mean()), max(std**2, std**-2))
    trace, determinant = 1 + mean**2 + std**2, std**2
    large = (trace + (trace**2 - 4 * determinant) ** 0.5) / 2
    assert np.isclose(condition(feature), large**2 / determinant, rtol=1e-6)
    return condition(feature)


def growth_leads_to_lower_curvature() -> None:
    """(a b - 1)^2 / 2 from beside a minimum too sharp for lr 0.2.

    The loss rises, and the run settles at another minimum, where sharpness * lr / 2 is below 1.
    """
    path = descent(SGD, lambda w: (w[0] * w[1] - 1) * w[::-1], [4.0, 0.251], 2000, lr=0.2)
    loss, sharpness = (path.prod(axis=1) - 1) ** 2 / 2, (path**2).sum(axis=1)
    assert sharpness[0] * 0.2 / 2 > 1.5 and loss.max() > 1000 * loss[0]
    assert loss[-1] < 1e-12 and 0.2 < sharpness[-1] * 0.2 / 2 < 1


def examples_for_error(batch: int = 32, error: float = 0.5, wanted: float = 0.05) -> float:
    """The batch at which a mini-batch gradient has the relative error ``wanted``, if ``batch`` gives ``error``."""
    rng, answer = np.random.default_rng(0), batch * (error / wanted) ** 2
    rms = [np.sqrt(np.mean(rng.standard_normal((500, round(size))).mean(axis=1) ** 2)) for size in (batch, answer)]
    assert np.isclose(rms[0] / rms[1], error / wanted, rtol=0.1)
    return float(answer)


def shuffling_cancels_errors() -> None:
    """64 parabolas with different minima, lr 0.01, one at a time: a fresh shuffle per epoch has a 30 times lower floor.

    n draws with replacement miss 37% of n examples.
    """
    rng, n, lr = np.random.default_rng(0), 64, 0.01
    centres = rng.standard_normal(n)
    centres -= centres.mean()

    def floor(orders: list[np.ndarray]) -> float:
        x, ends = np.zeros(orders[0].shape[1]), []
        for order in orders:
            for picked in order:
                x = x - lr * (x - centres[picked])
            ends.append((x**2).mean())
        return float(np.mean(ends[5:]))

    replaced = floor([rng.integers(n, size=(n, 500)) for _ in range(20)])
    shuffled = floor([rng.permuted(np.tile(np.arange(n)[:, None], 500), axis=0) for _ in range(20)])
    assert 25 < replaced / shuffled < 40
    assert abs((1 - 1 / n) ** n - np.exp(-1)) < 0.003 and round(np.exp(-1), 2) == 0.37


def _mean_square(rates: np.ndarray, start: float = 10.0, curvature: float = 1.0, noise: float = 1.0) -> np.ndarray:
    """Exact mean squares of x after each step of x <- x - lr (curvature x + noise z), one lr per step."""
    square, squares = start**2, []
    for lr in rates:
        square = (1 - lr * curvature) ** 2 * square + lr**2 * noise**2
        squares.append(square)
    return np.array(squares)


def floor_formula() -> None:
    """4,000 runs of torch's SGD, curvature 2, noise 1: the variance is lr / (2 (2 - 2 lr)); at lr 1 it grows."""
    rng = np.random.default_rng(0)
    for lr, floor in ((0.2, 0.0625), (0.8, 1.0)):
        assert np.isclose(floor, lr / (2 * (2 - 2 * lr)))
        path = descent(SGD, lambda x: 2 * x + rng.standard_normal(4000), np.zeros(4000), 300, lr=lr)
        assert np.isclose((path[100:] ** 2).mean(), floor, rtol=0.03)
    assert np.isclose(_mean_square(np.ones(500), start=0.0, curvature=2.0)[-1], 500)


def constant_rate_has_a_floor() -> None:
    """Halving lr halves the floor and doubles the way down; 1/t goes below any of them.

    Where every example is fitted exactly, a constant rate converges: there is no noise at the solution.
    """
    runs = {lr: _mean_square(np.full(3000, lr)) for lr in (0.1, 0.05, 0.025)}
    floors = [run[-1] for run in runs.values()]
    assert np.allclose(floors, [lr / (2 - lr) for lr in runs])
    assert 2.0 < floors[0] / floors[1] < 2.1 and 2.0 < floors[1] / floors[2] < 2.1
    arrival = [int(np.argmax(run < 2 * floors[0])) for run in runs.values()]
    assert 1.8 < arrival[1] / arrival[0] < 2.2
    assert _mean_square(1 / np.arange(1, 100_001))[-1] < 2e-5
    error = 1.0
    for feature in np.random.default_rng(0).uniform(0.5, 1.5, size=500):
        error -= 0.1 * feature**2 * error
    assert error < 1e-9


def decay_schedules() -> None:
    """RMS distances after 3,000 steps from 10, curvature and noise 1, for five schedules."""
    k = np.arange(1, 3001)
    schedules = {"1/t": 1 / k, "0.5/sqrt t": 0.5 / k**0.5, "0.2/t": 0.2 / k, "0.5/t^2": 0.5 / k**2, "0.5": 0.5 + 0 * k}
    rms = {name: round(float(_mean_square(rates)[-1] ** 0.5), 2) for name, rates in schedules.items()}
    assert rms == {"1/t": 0.02, "0.5/sqrt t": 0.07, "0.2/t": 1.73, "0.5/t^2": 3.6, "0.5": 0.58}


def linear_scaling_and_its_end() -> None:
    """k steps of lr and one of k lr, on a parabola with noise.

    Signal and noise agree within 2% while k lr h is 0.03; at k lr h = 3 the one step overshoots to -2 and grows.
    """
    lr, curvature = 1e-3, 1.0
    for k, agree in ((32, True), (3000, False)):
        many, one = (1 - lr * curvature) ** k, 1 - k * lr * curvature
        noise_of_many = lr**2 * sum((1 - lr * curvature) ** (2 * i) for i in range(k))
        noise_of_one = (k * lr) ** 2 / k
        assert (abs(many - one) < 1e-3) == agree
        assert not agree or abs(noise_of_one / noise_of_many - 1) < 0.04
    assert np.isclose(1 - 3000 * lr * curvature, -2) and 0.049 < (1 - lr) ** 3000 < 0.05


def steps_saved(noise_scale: float = 1000.0, small: float = 1000.0, large: float = 4000.0) -> float:
    """How many times fewer steps the larger batch needs, each with its best lr: the ratio of the best decreases.

    The expected decrease of a step on a quadratic with gradient 1 and curvature 1 is
    lr - lr^2 (1 + noise_scale / batch) / 2.
    """
    lr = np.linspace(1e-4, 1.0, 10_000)
    decrease = [float((lr - lr**2 * (1 + noise_scale / batch) / 2).max()) for batch in (small, large)]
    return decrease[1] / decrease[0]


def mean_of_means() -> None:
    """The bank's code weighs pieces of 2 and 64 examples alike; repaired, it gives the gradient of the whole batch."""
    rng = np.random.default_rng(0)
    pieces = [
        (torch.tensor(rng.standard_normal((size, 5))), torch.tensor(rng.integers(3, size=size))) for size in (2, 64)
    ]
    grads = {}
    for name, accumulate in both_versions("gd-mean-of-means", "accumulate").items():
        model = torch.nn.Linear(5, 3, bias=False, dtype=torch.float64)
        torch.nn.init.zeros_(model.weight)
        assert accumulate(model, SGD(model.parameters(), lr=0.1), pieces) == 66
        grads[name] = model.weight.grad
    weight = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(torch.cat([piece[0] for piece in pieces]) @ weight.T, torch.cat([p[1] for p in pieces])).backward()
    torch.testing.assert_close(grads["fixed"], weight.grad, rtol=1e-12, atol=1e-12)
    assert (grads["code"] - weight.grad).norm() > 0.5 * weight.grad.norm()


def summed_gradients_swing() -> None:
    """Without zero_grad each step follows the sum of all gradients.

    At lr h = 0.01 a wave of 63 steps does not die out in 2,000; at a quarter of the lr it is twice as long. The norm of
    the sum is largest where the loss is lowest.
    """
    for lr, period in ((0.01, 62.8), (0.0025, 125.7)):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        stepper, path, sums = SGD([weight], lr=lr), [], []
        for _ in range(2000):
            (weight**2 / 2).sum().backward()
            stepper.step()
            path.append(weight.item())
            sums.append(weight.grad.item())
        path = np.array(path)
        turns = np.flatnonzero(path[1:] * path[:-1] < 0)
        assert abs(2 * np.diff(turns).mean() - period) < 0.5
        assert abs(path[-200:]).max() > 0.99 and abs(path).max() < 1.01
        assert np.corrcoef(path**2, np.square(sums))[0, 1] < -0.99


def noise_is_not_needed() -> None:
    """Full batch: 20 of 20 small tanh networks learn XOR.

    In a double well, noise takes most runs out of the worse well, and some out of the better one.
    """
    rng = np.random.default_rng(0)
    inputs, wanted = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]) - 0.5, np.array([-1, 1, 1, -1.0])
    first, bias, second = (torch.tensor(rng.standard_normal(shape)) for shape in ((20, 2, 8), (20, 1, 8), (20, 8, 1)))
    weights = [weight.requires_grad_() for weight in (first, bias, second)]
    stepper, start = SGD(weights, lr=0.1), torch.tensor(inputs)
    for _ in range(600):
        stepper.zero_grad()
        out = (torch.tanh(start @ first + bias) @ second)[..., 0]
        losses = ((out - torch.tensor(wanted)) ** 2).mean(axis=1)
        losses.sum().backward()
        stepper.step()
    assert losses.max() < 0.01

    x = np.repeat([-1.05, 0.95], 500)  # the minima of (x^2 - 1)^2 / 4 + x / 10; the left one is deeper
    for _ in range(2000):
        x = x - 0.05 * (x**3 - x + 0.1 + 2.0 * rng.standard_normal(1000))
    assert (x[:500] > 0).sum() > 40 and (x[500:] < 0).sum() > 375


def sharpness_without_a_hessian() -> None:
    """Power iteration on Hessian-vector products finds the eigenvalue of largest modulus, with its sign."""
    rng = np.random.default_rng(0)
    inputs, wanted = torch.tensor(rng.standard_normal((20, 3))), torch.tensor(rng.standard_normal(20))

    def loss(point: torch.Tensor) -> torch.Tensor:
        return ((torch.tanh(inputs @ point[:12].view(3, 4)) @ point[12:] - wanted) ** 2).mean()

    point = torch.tensor(rng.standard_normal(16), requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    vector = torch.tensor(rng.standard_normal(16))
    for _ in range(300):
        vector = vector / vector.norm()
        (product,) = torch.autograd.grad(gradient, point, vector, retain_graph=True)
        value, vector = vector @ product, product
    spectrum = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, point.detach()))
    largest = spectrum[spectrum.abs().argmax()]
    torch.testing.assert_close(value, largest, rtol=1e-6, atol=0)
