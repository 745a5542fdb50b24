"""Evidence for ``bank/momentum.yaml``."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch

from course_lib.questions.evidence._feed import (
    ADAM,
    SGD,
    both_versions,
    descent,
    normal,
    path_of,
    state_bytes,
    updates_of,
)


def memory_and_gain() -> None:
    """Momentum 0.9: weights that sum to 10, 65% of them on the last 10 gradients, of mean age 9.

    On a steady slope lr 0.01 with it moves as lr 0.1 without, nine steps behind.
    """
    age = np.arange(300)[::-1]
    weights, grads = 0.9**age, normal(300, 1)[:, 0]
    assert np.isclose(-updates_of(SGD, grads, momentum=0.9)[-1], weights @ grads, rtol=1e-9)
    assert np.isclose(weights.sum(), 10) and round(weights[-10:].sum() / weights.sum(), 2) == 0.65
    assert np.isclose(weights @ age / weights.sum(), 9)
    plain, heavy = (path_of(SGD, [0.0], np.ones((200, 1)), **hyper)[-1, 0] for hyper in _SAME_EFFECTIVE_RATE)
    assert np.isclose(heavy - plain, 9 * 0.1, atol=1e-6)


_SAME_EFFECTIVE_RATE = ({"lr": 0.1}, {"lr": 0.01, "momentum": 0.9})


def effective_rate_raised(momentum: float = 0.9999, before: float = 0.9) -> float:
    """By which factor the settled step on a steady gradient grows when momentum is raised and lr kept."""
    settled = []
    for mu in (before, momentum):
        buffer = 0.0
        for _ in range(200_000):
            buffer = mu * buffer + 1.0
        settled.append(buffer)
    assert np.isclose(settled[0], -updates_of(SGD, np.ones(300), momentum=before)[-1])
    return settled[1] / settled[0]


def _inside(grads: np.ndarray, rates: np.ndarray, momentum: float) -> np.ndarray:
    """Steps (T,) of momentum with lr inside the buffer: v = momentum * v + lr * g, step v."""
    return np.array(list(accumulate(rates * grads, lambda v, scaled: momentum * v + scaled)))


def _outside(grads: np.ndarray, rates: np.ndarray, momentum: float) -> np.ndarray:
    """Steps (T,) of torch's SGD, whose lr is set before each step."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    stepper, steps = SGD([weight], lr=1.0, momentum=momentum), []
    for grad, rate in zip(grads, rates, strict=True):
        stepper.param_groups[0]["lr"] = rate
        before, weight.grad = weight.item(), torch.tensor([grad], dtype=torch.float64)
        stepper.step()
        steps.append(before - weight.item())
    return np.array(steps)


def conventions_part_at_a_change() -> None:
    """lr outside and inside: the same steps while lr is constant.

    After a drop by 10 torch's step drops by 10 at once, the other's by 9%. Scaling the buffer by the ratio of the rates
    (Goyal et al.) makes them equal again.
    """
    grads, constant = normal(200, 1)[:, 0], np.full(200, 0.1)
    np.testing.assert_allclose(_outside(grads, constant, 0.9), _inside(grads, constant, 0.9), rtol=0, atol=1e-12)
    drop = np.where(np.arange(200) < 100, 0.1, 0.01)
    outside, inside = _outside(np.ones(200), drop, 0.9), _inside(np.ones(200), drop, 0.9)
    assert np.isclose(outside[100] / outside[99], 0.1, rtol=1e-4)
    assert np.isclose(inside[100] / inside[99], 0.91, rtol=1e-4)
    rescaled = list(accumulate(range(1, 200), lambda v, t: 0.9 * v * drop[t] / drop[t - 1] + drop[t], initial=0.1))
    np.testing.assert_allclose(rescaled, outside, rtol=1e-9)


def extra_travel_after_a_drop(before: float = 0.1, after: float = 0.01, momentum: float = 0.9) -> float:
    """How much further lr inside carries a parameter than torch's form, gradient 1, once lr has dropped."""
    drop, grads = np.where(np.arange(800) < 400, before, after), np.ones(800)
    extra = _inside(grads, drop, momentum)[400:].sum() - _outside(grads, drop, momentum)[400:].sum()
    assert np.isclose(extra, (before - after) * momentum / (1 - momentum) ** 2, rtol=1e-6)
    return float(extra)


def first_gradient_is_not_dampened() -> None:
    """dampening = momentum = 0.9 is an average with weights 0.1 * 0.9^k, but the first gradient has weight 0.9^k."""
    first, second = (-updates_of(SGD, np.eye(6)[i], momentum=0.9, dampening=0.9) for i in (0, 1))
    assert np.allclose(first, 0.9 ** np.arange(6)) and np.allclose(second[1:], 0.1 * 0.9 ** np.arange(5))
    assert np.allclose(-updates_of(SGD, np.ones(20), momentum=0.9, dampening=0.9), 1.0)
    adam_m = np.array(list(accumulate(np.ones(20), lambda m, g: 0.9 * m + 0.1 * g, initial=0.0)))[1:]
    assert np.allclose(adam_m[:3], [0.1, 0.19, 0.271])


def _factor(a: float | np.ndarray, momentum: float) -> np.ndarray:
    """Modulus of heavy ball's larger root of z^2 - (1 + momentum - a) z + momentum, a = lr * curvature."""
    middle = (1 + momentum - np.asarray(a, dtype=complex)) / 2
    root = np.sqrt(middle**2 - momentum)
    return np.maximum(abs(middle + root), abs(middle - root))


def best_heavy_ball() -> None:
    """Curvatures 1 to 100: lr (2/11)^2 = 0.033 and momentum (9/11)^2 = 0.669 shrink each by 9/11 a step.

    No other pair on a fine grid does better; the best plain step has 99/101. To a thousandth: 58 and 346 steps.
    """
    curvature = np.geomspace(1, 100, 50)
    lr, momentum = (2 / 11) ** 2, (9 / 11) ** 2
    assert np.allclose(_factor(lr * curvature, momentum), 9 / 11, atol=1e-6)
    grid = [
        _factor(rate * curvature, mu).max() for rate in np.linspace(0.01, 0.06, 51) for mu in np.linspace(0, 0.95, 96)
    ]
    assert min(grid) > 9 / 11 - 1e-9
    runs = ({"lr": 2 / 101}, {"lr": lr, "momentum": momentum})
    paths = [descent(SGD, lambda x: curvature * x, np.ones(50), 400, **hyper) for hyper in runs]
    assert [int(np.argmax(abs(path).max(axis=1) < 1e-3)) for path in paths] == [346, 58]


def steps_of_a_digit(condition: float = 10_000, momentum: float = 0.9) -> float:
    """Steps in which heavy ball with this momentum, at the best of 20,001 rates, shrinks the slowest error tenfold.

    Where the momentum is too large for the condition number a step has the factor sqrt(momentum). Where it is too small,
    the best rate is 2 (1 + momentum) / (L + m). 0.9 suits a condition number of 1,442.
    """
    lr = 2 * (1 + momentum) * (1 - np.geomspace(1e-7, 0.9, 20_001))  # the largest curvature is 1
    worst = np.maximum(_factor(lr, momentum), _factor(lr / condition, momentum))
    widest = ((1 + momentum**0.5) / (1 - momentum**0.5)) ** 2
    if condition < widest:
        assert np.isclose(worst.min(), momentum**0.5, atol=1e-6)
    else:
        assert np.isclose(lr[worst.argmin()], 2 * (1 + momentum) / (1 + 1 / condition), rtol=1e-3)
    x, buffer, curvature, seen = np.ones(2), np.zeros(2), np.array([1 / 10_000, 1.0]), []
    for _ in range(4000):  # the standard numbers, step by step
        buffer = 0.9 * buffer + curvature * x
        x = x - 3.8 / (1 + 1 / 10_000) * buffer
        seen.append(x[0])
    assert round(1000 * np.log(10) / np.log(seen[-1001] / seen[-1])) == 583
    assert round(((1 + 0.9**0.5) / (1 - 0.9**0.5)) ** 2) == 1442
    return float(-np.log(10) / np.log(worst.min()))


def ringing_has_a_period() -> None:
    """lr 0.01, momentum 0.98, curvature 1: the weight swings in 63 steps, the loss in 31, and both die out.

    Half the lr: a period longer by sqrt 2. Momentum 0.81: no swing at all, within 0.01 in under 90 steps.
    """
    periods = []
    for lr in (0.01, 0.005):
        x = descent(SGD, lambda x: x, [1.0], 600, lr=lr, momentum=0.98)[:, 0]
        periods.append(2 * np.diff(np.flatnonzero(x[1:] * x[:-1] < 0)).mean())
        assert abs(x[-100:]).max() < 0.02
    assert abs(periods[0] - 63) < 1 and abs(periods[1] / periods[0] - 2**0.5) < 0.03
    critical = descent(SGD, lambda x: x, [1.0], 600, lr=0.01, momentum=0.81)[:, 0]
    assert critical.min() >= 0 and abs(critical[90:]).max() < 0.01


def momentum_raises_the_floor() -> None:
    """Curvature 1, noise 1: the loss settles at 0.0025 for lr 0.01, ten times higher with momentum 0.9.

    lr 0.1 without momentum has that floor too. Measured on 2,000 runs of torch's SGD.
    """
    rng = np.random.default_rng(0)
    for lr, momentum, floor in ((0.01, 0.0, 0.0025), (0.01, 0.9, 0.0251), (0.1, 0.0, 0.0263)):
        formula = lr * (1 + momentum) / (1 - momentum) / (2 * (1 + momentum) - lr) / 2
        assert abs(formula - floor) < 1e-4
        path = descent(SGD, lambda x: x + rng.standard_normal(2000), np.zeros(2000), 900, lr=lr, momentum=momentum)
        assert abs((path[400:] ** 2).mean() / 2 / formula - 1) < 0.1


def gain_grows_with_the_batch() -> None:
    """Noisy quadratic model, curvatures 0.001 to 1: steps to a tenth of the loss, best of 30 learning rates.

    Momentum 0.9 saves 5% at batch 1 and a factor of 5.9 at batch 16,384; there 0.99 needs about as many as none.
    """
    curvature, batch = np.geomspace(1e-3, 1, 12), np.array([1.0, 16384.0])[:, None, None]

    def steps(momentum: float) -> np.ndarray:
        lr = 2 * (1 + momentum) * np.geomspace(1e-4, 0.98, 30)[:, None]
        xx, xb, bb = np.ones((2, 30, 12)) / curvature, np.zeros((2, 30, 12)), np.zeros((2, 30, 12))
        needed = np.full(2, np.inf)
        for t in range(1, 4000):
            bb = momentum**2 * bb + 2 * momentum * curvature * xb + curvature**2 * xx + 4 * curvature / batch
            pushed = momentum * xb + curvature * xx
            xx, xb = xx - 2 * lr * pushed + lr**2 * bb, pushed - lr * bb
            arrived = ((curvature * xx).mean(axis=2) <= 0.1).any(axis=1)
            needed = np.where(arrived & np.isinf(needed), t, needed)
            if np.isfinite(needed).all():
                break
        return needed

    plain = steps(0.0)
    gain, heavy = plain / steps(0.9), plain / steps(0.99)
    assert abs(gain[0] - 1.05) < 0.02 and abs(gain[1] - 5.9) < 0.1 and 0.8 < heavy[1] < 1.2


def _bent(x: np.ndarray) -> np.ndarray:
    """Gradient of log cosh(3 x1) + log cosh(x2), a function that is not quadratic."""
    return np.array([3.0, 1.0]) * np.tanh(np.array([3.0, 1.0]) * x)


_HYPER = {"lr": 0.02, "momentum": 0.9}


def torch_stores_the_look_ahead() -> None:
    """torch's parameter under nesterov=True is theta + mu v of the original, at every step, off quadratics too."""
    theta, v, ahead = np.array([1.0, 2.0]), np.zeros(2), [np.array([1.0, 2.0])]
    for _ in range(100):
        v = 0.9 * v - 0.02 * _bent(theta + 0.9 * v)
        theta = theta + v
        ahead.append(theta + 0.9 * v)
    np.testing.assert_allclose(descent(SGD, _bent, [1.0, 2.0], 100, nesterov=True, **_HYPER), ahead, atol=1e-12)


def difference_is_bookkeeping() -> None:
    """torch's Nesterov step is a heavy ball fed with g + mu (g - g_before), for any gradients, noise included.

    Added after the buffer, or without a buffer, the difference makes other steps. In noise the gradient's next change
    opposes its last one (correlation -1/2), so there is nothing that keeps growing. At theta, the extrapolated
    gradient is the look-ahead gradient on a quadratic and is not on log cosh.
    """
    grads = normal(5000, 1)[:, 0]
    change = np.diff(grads, prepend=0.0)
    torch_steps = -updates_of(SGD, grads, momentum=0.9, nesterov=True)
    fed = -updates_of(SGD, grads + 0.9 * change, momentum=0.9)
    after = -updates_of(SGD, grads, momentum=0.9) + 0.9 * change
    np.testing.assert_allclose(fed, torch_steps, atol=1e-10)
    assert np.abs(after - torch_steps).max() > 1 and np.abs(grads + 0.9 * change - torch_steps).max() > 1
    assert abs(np.corrcoef(change[2:], change[1:-1])[0, 1] + 0.5) < 0.03

    def straight(x: np.ndarray) -> np.ndarray:
        return np.array([9.0, 1.0]) * x

    for gradient, forecast_is_right in ((straight, True), (_bent, False)):
        y = descent(SGD, gradient, [1.0, 2.0], 60, nesterov=True, **_HYPER)
        theta = np.vstack([y[:1], y[:-1] - 0.02 * gradient(y[:-1])])
        forecast = gradient(theta[1:]) + 0.9 * np.diff(gradient(theta), axis=0)
        assert (np.abs(forecast - gradient(y[1:])).max() < 1e-12) == forecast_is_right


def nesterov_limit(momentum: float = 0.9) -> float:
    """Largest stable lr times curvature of torch's nesterov=True, by bisection on runs of 400 steps."""

    def stable(a: float, nesterov: bool) -> bool:
        path = descent(SGD, lambda x: x, [1.0], 400, lr=a, momentum=momentum, nesterov=nesterov)
        return bool(abs(path[-1, 0]) < 1)

    assert stable(3.0, nesterov=False) and not stable(3.0, nesterov=True)
    assert not stable(2.1 + 2 * momentum, nesterov=False)
    low, high = 1.0, 2.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle, nesterov=True) else (low, middle)
    assert abs(low - (2 + 2 * momentum) / (1 + 2 * momentum)) < 0.01
    return low


def nesterov_rates() -> None:
    """Strongly convex: the loss falls by at least 1 - 1 / sqrt(kappa) a step, a linear rate, not O(1/T^2).

    Merely convex: with momentum (t-1)/(t+2) the loss stays below 2 L |x0|^2 / (t+1)^2, where plain descent is above it.
    """
    kappa = 400
    curvature = np.geomspace(1, kappa, 30)
    path = descent(SGD, lambda x: curvature * x, np.ones(30), 400, lr=1 / kappa, momentum=19 / 21, nesterov=True)
    theta = np.vstack([path[:1], path[:-1] - curvature * path[:-1] / kappa])
    loss = (curvature * theta**2).sum(axis=1) / 2
    bound = (loss[0] + 30 / 2) * (1 - 1 / kappa**0.5) ** np.arange(401)
    assert (loss <= bound).all() and loss[400] < 1e-6

    flat, x, y, plain = 1 / 4000, 1.0, 1.0, 1.0
    for t in range(1, 2001):
        new = y - flat * y
        y, x, plain = new + (t - 1) / (t + 2) * (new - x), new, plain - flat * plain
        assert flat * x**2 / 2 <= 2 / (t + 1) ** 2
    assert flat * plain**2 / 2 > 50 * 2 / 2001**2


def swapped_terms() -> None:
    """The bank's code takes b + mu g for g + mu b: torch's first step, and then 10.9 for 10 on a steady slope.

    On a parabola with lr times curvature 0.5 both settle within 40 steps, where heavy ball still swings.
    """
    grads = np.r_[normal(20, 1)[:, 0], np.ones(300)]
    wanted, steps = updates_of(SGD, grads, momentum=0.9, nesterov=True), {}
    for name, nesterov_step in both_versions("momentum-nesterov-swapped", "nesterov_step").items():
        weight, buffer = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        path = [0.0]
        for grad in grads:
            nesterov_step(weight, torch.tensor([grad]), buffer, lr=1.0)
            path.append(weight.item())
        steps[name] = np.diff(path)
    np.testing.assert_allclose(steps["fixed"], wanted, rtol=0, atol=1e-10)
    assert np.isclose(steps["code"][0], wanted[0], rtol=1e-12)
    assert np.isclose(steps["code"][-1], -10.9) and np.isclose(wanted[-1], -10.0)
    left = [abs(descent(SGD, lambda x: x, [1.0], 40, lr=0.5, momentum=0.9, nesterov=on)[-1, 0]) for on in (True, False)]
    weight, buffer = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for _ in range(40):
        both_versions("momentum-nesterov-swapped", "nesterov_step")["code"](weight, weight.clone(), buffer, lr=0.5)
    assert left[0] < 1e-4 and abs(weight.item()) < 1e-4 and left[1] > 0.01


def barriers_are_crossed_both_ways() -> None:
    """Two wells, the left one deeper, 401 starts: momentum 0.9 turns 25 ends from better to worse, 47 the other way."""
    start = np.linspace(-2, 2, 401)
    plain, heavy = (
        descent(SGD, lambda x: x**3 - x + 0.1, start, 600, lr=0.05, momentum=mu)[-1] < 0 for mu in (0.0, 0.9)
    )
    assert (plain & ~heavy).sum() == 25 and (~plain & heavy).sum() == 47


def _kinked(x: np.ndarray) -> np.ndarray:
    """Gradient of the function of Lessard et al. (2016), strongly convex with curvature between 1 and 25."""
    return np.where(x < 1, 25 * x, np.where(x < 2, x + 24, 25 * x - 24))


def heavy_ball_may_circle() -> None:
    """With the best parameters for curvatures 1 and 25 heavy ball repeats three points; descent and Nesterov arrive."""
    heavy, plain, ahead = (
        descent(SGD, _kinked, [3.3], 300, **hyper)[:, 0]
        for hyper in (
            {"lr": 1 / 9, "momentum": 4 / 9},
            {"lr": 1 / 25},
            {"lr": 1 / 25, "momentum": 4 / 6, "nesterov": True},
        )
    )
    assert np.allclose(sorted(heavy[-3:]), [-1.802, 0.647, 2.116], atol=1e-3)
    assert np.allclose(heavy[-3:], heavy[-6:-3]) and abs(plain[-1]) + abs(ahead[-1]) < 1e-5


def state_counted_alike() -> None:
    """fp32 state: momentum 4 bytes per parameter, Nesterov too, Adam 8; with a master copy 8 and 12."""
    momentum, nesterov = state_bytes(SGD, momentum=0.9), state_bytes(SGD, momentum=0.9, nesterov=True)
    assert (state_bytes(SGD), momentum, nesterov, state_bytes(ADAM)) == (0, 4, 4, 8)
    assert (momentum + 4, state_bytes(ADAM) + 4) == (8, 12)
    assert (2 + 2 + momentum + 4, 2 + 2 + state_bytes(ADAM) + 4) == (12, 16)


def sgd_from_memory() -> None:
    """Penalty, buffer, Nesterov, step, in that order, is torch's SGD to 1e-12 over 100 steps, for all its flags."""
    grads = normal(100, 6)

    def ours(momentum: float, dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> np.ndarray:
        weight, buffer = np.ones(6), None
        for grad in grads:
            g = grad + weight_decay * weight
            buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
            weight = weight - 0.1 * (g + momentum * buffer if nesterov else buffer)
        return weight

    for hyper in (
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    ):
        np.testing.assert_allclose(ours(**hyper), path_of(SGD, np.ones(6), grads, lr=0.1, **hyper)[-1], atol=1e-12)
