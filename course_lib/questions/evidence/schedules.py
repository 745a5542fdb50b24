"""Evidence for ``bank/schedules.yaml``."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim import lr_scheduler

from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.sharpness import sharpness
from course_lib.questions.evidence._feed import ADAMW, SGD, both_versions

CURVATURES = np.logspace(0, -2, 60)


def _cosine(total: int, floor: float = 0.0) -> np.ndarray:
    return floor + (1 - floor) * (1 + np.cos(np.pi * np.arange(total) / total)) / 2


def _linear(total: int, floor: float = 0.0) -> np.ndarray:
    return 1 - (1 - floor) * np.arange(total) / total


def _wsd(total: int, decay: int) -> np.ndarray:
    return np.minimum(1, (total - np.arange(total)) / decay)


def _expected(rates: np.ndarray, peaks: np.ndarray | float, noise: float = 0.3) -> np.ndarray:
    """Loss after each update, (T + 1,) or (T + 1, peaks), of SGD on a noisy quadratic, averaged over the noise."""
    peaks = np.atleast_1d(peaks)[:, None]
    second = np.ones((len(peaks), 60))
    losses = [second @ CURVATURES / 2]
    for rate in rates:
        second = (1 - peaks * rate * CURVATURES) ** 2 * second + (peaks * rate * noise) ** 2
        losses.append(second @ CURVATURES / 2)
    return np.squeeze(losses, axis=1) if len(peaks) == 1 else np.array(losses)


def _best_peak(rates: np.ndarray) -> tuple[float, float]:
    """The best peak of a grid, inside it, and the last loss there."""
    peaks = 2.0 ** np.arange(-7.5, 0.6, 0.5)
    last = _expected(rates, peaks)[-1]
    best = int(np.nanargmin(last))
    assert 0 < best < len(last) - 1
    return float(peaks[best]), float(last[best])


def _tuned(rates: np.ndarray) -> float:
    """The last loss at the best peak."""
    return _best_peak(rates)[1]


def _two_layers(lr: float, steps: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Losses and curvatures of gradient descent on (u v / 10)^2 / 2 with u, v of 100 numbers; curvature 2 at first."""
    u, v = (np.random.default_rng(seed).standard_normal(100) for seed in (0, 1))
    u, v = (10 * part / np.linalg.norm(part) for part in (u, v))
    losses, curvatures = [], []
    for _ in range(steps):
        out = u @ v / 10
        losses.append(out**2 / 2)
        curvatures.append((u @ u + v @ v) / 100)
        u, v = u - lr * out * v / 10, v - lr * out * u / 10
    return np.array(losses), np.array(curvatures)


def _rates_of(make, total: int) -> np.ndarray:
    """Rates that a torch scheduler gives to a base rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def warmup_buys_a_peak() -> None:
    """A tanh network, all data in each step, gradient descent: at 3 times what the start allows only warmup survives.

    The sharpness at the end is less than two thirds of that at the start.
    """
    loss, start = tanh_fit()
    start = 1.5 * start
    sharp = sharpness(loss, start)
    ends = {}
    for warmup in (1, 400):
        point = start.clone()
        for t in range(600):
            value = loss(point.requires_grad_())
            if not value.item() < 1e6:
                break
            (gradient,) = torch.autograd.grad(value, point)
            point = point.detach() - 3 * 2 / sharp * min(1.0, (t + 1) / warmup) * gradient
        ends[warmup] = loss(point.detach()).item(), t
    assert not ends[1][0] < 1e6 and ends[1][1] < 50
    assert ends[400][0] < 0.5 and sharpness(loss, point.detach()) < 2 / 3 * sharp


def catapult() -> None:
    """Two linear layers at 1.5 times the limit of 1: the loss rises more than tenfold, then falls a thousandfold.

    The curvature was 2 and ends below 2 / lr.
    """
    losses, curvature = _two_layers(1.5)
    assert losses.max() > 10 * losses[0] and losses[-1] < 1e-3 * losses[0]
    assert np.isclose(curvature[0], 2) and curvature[0] > 2 / 1.5 > curvature[-1]


def start_and_noise() -> None:
    """E[w^2] is the start's part plus the noise's, exactly; at a constant rate noise settles near lr * s^2 / (2h)."""
    h, s, rates = 0.5, 0.3, 0.1 * _linear(200)
    after = np.append(np.cumprod((1 - rates[::-1] * h) ** 2)[::-1], 1.0)
    start, noise = after[0], s**2 * (rates**2 * after[1:]).sum()
    weights, rng = np.ones(100_000), np.random.default_rng(0)
    for rate in rates:
        weights = weights - rate * (h * weights + s * rng.standard_normal(len(weights)))
    assert abs((weights**2).mean() / (start + noise) - 1) < 0.02
    settled = 0.0
    for _ in range(500):
        settled = (1 - 0.1 * h) ** 2 * settled + (0.1 * s) ** 2
    assert abs(settled / (0.1 * s**2 / (2 * h)) - 1) < 0.03
    assert noise < settled / 2


def stopped_cosine() -> None:
    """At peak 0.25, a cosine for 1,000 updates has at 500 1.8 times the loss of one that was planned for 500.

    A fall over 100 more closes more than 70% of the gap.
    """
    stopped, planned = _expected(_cosine(1000), 0.25)[500], _expected(_cosine(500), 0.25)[-1]
    assert 1.7 < stopped / planned < 1.85
    half = _cosine(1000)[:500]
    rescued = _expected(np.append(half, half[-1] * _linear(100)), 0.25)[-1]
    assert stopped - rescued > 0.7 * (stopped - planned)


def wsd_drop() -> None:
    """Peak 0.1, plateaus of 500, 1,000 and 3,000 updates, each with a fall over 200.

    Against the plateau at the same update the loss drops by 35 to 45% each time, by the same amount within 10%; the
    later, the lower the end.
    """
    plateau, drops, ends = _expected(np.ones(3200), 0.1), [], []
    for length in (500, 1000, 3000):
        ends.append(_expected(_wsd(length + 200, 200), 0.1)[-1])
        drops.append(plateau[length + 200] - ends[-1])
        assert 0.35 < drops[-1] / plateau[length + 200] < 0.45
    assert max(drops) < 1.1 * min(drops) and ends[0] > ends[1] > ends[2]


def tuned_schedules() -> None:
    """Peaks tuned, 1,000 updates: WSD with a last fifth is within 20% of linear to zero, a constant rate 40% above.

    WSD's best peak is lower than the cosine's.
    """
    linear = _tuned(_linear(1000))
    assert _tuned(_wsd(1000, 200)) < 1.2 * linear and _tuned(np.ones(1000)) > 1.4 * linear
    assert _best_peak(_wsd(1000, 200))[0] < _best_peak(_cosine(1000))[0]


def floor_crossing() -> None:
    """Peaks tuned: a floor of 10% helps a run of 100 updates by 2 to 4% and costs one of 6,000 updates 5 to 10%."""
    short, long = (_tuned(_linear(total, 0.1)) / _tuned(_linear(total)) for total in (100, 6000))
    assert 0.96 < short < 0.98 and 1.05 < long < 1.10


def first_update_is_lost() -> None:
    """The bank's warmup starts at a rate of 0: Adam's first step moves nothing; the fix starts at a hundredth."""
    for name, warmup_factor in both_versions("schedules-bug-first-update", "warmup_factor").items():
        param = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.Adam([param], lr=0.1)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step, f=warmup_factor: f(step, 100))
        path = []
        for _ in range(101):
            param.grad = torch.ones_like(param)
            optimizer.step()
            scheduler.step()
            path.append(param.item())
        moved = -np.diff([1.0, *path])
        assert (moved[0] == 0) == (name == "code")
        assert np.isclose(moved[99], 0.099 if name == "code" else 0.1) and np.isclose(moved[100], 0.1)


def cosine_climbs() -> None:
    """torch's CosineAnnealingLR(T_max=100): 1 at update 0, 0 at 100, 0.5 at 150, 1 again at 200.

    A T_max that is raised to 200 at update 100 leaves the rate at 0: torch computes each rate from the last one.
    """
    rates = _rates_of(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=100), 201)
    np.testing.assert_allclose(rates[[0, 100, 150, 200]], [1, 0, 0.5, 1], atol=1e-9)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    for step in range(150):
        scheduler.T_max = 100 if step < 100 else 200
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 1e-9


def micro_batch_ticks(total: int = 10_000, accumulate: int = 8) -> float:
    """Optimizer steps after which a linear schedule is at zero, if it is stepped once per micro-batch."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=total)
    for step in range(1, total + 1):
        for _ in range(accumulate):
            optimizer.step()
            scheduler.step()
        if optimizer.param_groups[0]["lr"] < 1e-9:
            return float(step)
    raise AssertionError("the schedule never reached zero")


def decay_left_by_cosine(
    peak: float = 3e-4,
    weight_decay: float = 0.1,
    total: int = 50_000,
    warmup: int = 1000,
    floor: float = 0.1,
) -> float:
    """Percent of a weight without gradient that the schedule leaves: the product of 1 - lr_t * wd over all updates."""
    rates = np.append((np.arange(warmup) + 1) / warmup, _cosine(total - warmup, floor))
    return float(100 * np.prod(1 - peak * rates * weight_decay))


def averaging_replaces_decay() -> None:
    """Constant rate, 1,000 updates, peaks tuned: the mean of the last half is within 10% of linear to zero.

    The last weights are more than 25% above it.
    """
    peaks, rng = 2.0 ** np.arange(-7.5, 0.6, 0.5)[:, None, None], np.random.default_rng(0)
    weights, mean = np.ones((17, 16, 60)), 0.0
    for t in range(1000):
        weights = weights - peaks * (CURVATURES * weights + 0.3 * rng.standard_normal(weights.shape))
        if t >= 500:
            mean = mean + weights / 500
    last, averaged = (((w**2) @ CURVATURES / 2).mean(axis=1).min() for w in (weights, mean))
    linear = _tuned(_linear(1000))
    assert averaged < 1.1 * linear and last > 1.25 * linear


def update_coefficients() -> None:
    """AdamW's weight is the sum of -c_t u_t: torch agrees.

    At lr * wd = 1e-3 and 10,000 updates a constant rate counts 2,000 of them, linear to zero 7,000.
    """

    def coefficients(rates: np.ndarray, decay: float) -> np.ndarray:
        return rates * np.append(np.cumprod((1 - decay * rates)[::-1])[::-1][1:], 1.0)

    rates, weight = 0.01 * _linear(200), torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    stepper = ADAMW([weight], lr=1.0, weight_decay=0.5)
    for rate in rates:
        stepper.param_groups[0]["lr"], weight.grad = rate, torch.ones_like(weight)  # the update is 1 at every step
        stepper.step()
    assert np.isclose(weight.item(), -coefficients(rates, 0.5).sum(), rtol=1e-6)
    counted = {}
    for name, shape in {"constant": np.ones(10_000), "linear": _linear(10_000)}.items():
        for lr, decay in ((1e-2, 0.1), (5e-3, 0.2)):
            c = coefficients(lr * shape, decay)
            counted[name, lr] = c.sum() ** 2 / (c**2).sum()
        assert np.isclose(counted[name, 1e-2], counted[name, 5e-3], rtol=1e-9)
    assert abs(counted["constant", 1e-2] / 2000 - 1) < 0.01 and abs(counted["linear", 1e-2] / 7000 - 1) < 0.02


def one_cosine_beats_restarts() -> None:
    """On a bowl without local minima four cycles jump up after each restart, and end 1.4 times above one cosine."""
    cycles = _expected(np.tile(_cosine(250), 4), 0.25)
    assert cycles[251:300].max() > 1.5 * cycles[250]
    assert _tuned(np.tile(_cosine(250), 4)) > 1.3 * _tuned(_cosine(1000))


def embedding_rate(layers: int = 12, decay: float = 0.75) -> float:
    """Percent of the head's rate that the embedding gets: one factor per block and one more."""
    share = 100.0
    for _ in range(layers + 1):
        share *= decay
    return share


def flattened_groups() -> None:
    """The bank's code gives every group the peak; the fix keeps their ratios."""
    for name, set_rates in both_versions("schedules-bug-flattened-groups", "set_rates").items():
        optimizer = SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in (1e-5, 1e-3)])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        set_rates(optimizer, 1e-3, step=550, warmup=100, total=1000)  # half way down
        rates = [group["lr"] for group in optimizer.param_groups]
        np.testing.assert_allclose(rates, [5e-4, 5e-4] if name == "code" else [5e-6, 5e-4])


def transformer_peak(width: int = 512, warmup: int = 4000) -> float:
    """The highest rate of width^-0.5 * min(step^-0.5, step * warmup^-1.5)."""
    step = np.arange(1, 20 * warmup)
    rates = width**-0.5 * np.minimum(step**-0.5, step * warmup**-1.5)
    assert rates.argmax() + 1 == warmup
    return float(rates.max())
