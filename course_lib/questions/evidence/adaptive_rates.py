"""Evidence for ``bank/adaptive_rates.yaml``."""

from __future__ import annotations

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

ADAGRAD, RMSPROP, ADADELTA = torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adadelta


# AdaGrad


def adagrad_matches_torch() -> None:
    """The rule as it is spoken is torch.optim.Adagrad.

    Its first step is lr, a constant gradient gives lr / sqrt(t), and rescaled coordinates take the same path.
    """
    grads, weight, total, path = normal(200, 6), np.ones(6), np.zeros(6), [np.ones(6)]
    for grad in grads:
        total = total + grad**2
        weight = weight - 0.1 * grad / (np.sqrt(total) + 1e-3)
        path.append(weight)
    np.testing.assert_allclose(path_of(ADAGRAD, np.ones(6), grads, lr=0.1, eps=1e-3), path, rtol=0, atol=1e-12)
    np.testing.assert_allclose(-updates_of(ADAGRAD, np.full(400, 7.0)), np.arange(1, 401) ** -0.5, rtol=1e-9)
    scale = 10.0 ** np.arange(-2, 4)
    same = [path_of(ADAGRAD, np.ones(6), factor * grads, lr=0.1) for factor in (1.0, scale)]
    np.testing.assert_allclose(*same, rtol=0, atol=1e-6)
    assert (state_bytes(SGD), state_bytes(ADAGRAD), state_bytes(RMSPROP), state_bytes(ADADELTA)) == (0, 4, 4, 8)


def adagrad_sums_squares() -> None:
    """100 gradients of 1 have variance 0 and a sum of squares of 100, which is what torch keeps, and a step of 0.1."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    stepper = ADAGRAD([weight], lr=1.0)
    for _ in range(100):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        stepper.step()
    assert stepper.state[weight]["sum"].item() == 100 and np.var(np.ones(100)) == 0
    assert np.isclose(before - weight.item(), 0.1)


def _after_violence(size: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps of AdaGrad and RMSProp on gradients of 1, in units of lr, after ``count`` gradients of ``size``."""
    past = np.r_[np.full(count, float(size)), np.ones(1001)]
    return -updates_of(ADAGRAD, past)[count:], -updates_of(RMSPROP, past)[count:]


def adagrad_after_violence(size: float = 100.0, count: int = 100) -> float:
    """AdaGrad's step on a gradient of 1 after ``count`` gradients of ``size``, in units of lr."""
    adagrad, rmsprop = _after_violence(100.0, 100)
    assert np.all(np.diff(adagrad) < 0) and round(adagrad[1000], 4) == round(adagrad[0], 4)
    assert round(rmsprop[0], 4) == 0.0126 and round(rmsprop[1000], 2) == 0.89
    assert round(-updates_of(ADAGRAD, np.ones(101))[-1], 4) == 0.0995
    return float(-updates_of(ADAGRAD, np.r_[np.full(count, float(size)), 1.0])[-1])


def adagrad_hindsight() -> None:
    """The sum of g^2 / sqrt(S) is at most twice sqrt(S_T), whatever the gradients.

    And the regret of AdaGrad on [-D/2, D/2] keeps below 1.5 D sqrt(S_T) with lr D, 1.42 of it with lr D / sqrt(2).
    """
    rng = np.random.default_rng(0)
    width = 2.0
    for grads in (np.ones(5000), rng.standard_cauchy(5000), rng.choice([-1.0, 1.0], 5000), 1.01 ** np.arange(1000)):
        sums = np.cumsum(grads**2)
        assert np.sum(grads**2 / np.sqrt(sums)) <= 2 * np.sqrt(sums[-1])
        best_fixed = -width / 2 * abs(grads.sum())
        for lr, bound in ((width, 1.5), (width / np.sqrt(2), np.sqrt(2))):
            x, loss = 0.0, 0.0
            for grad, total in zip(grads, sums, strict=True):
                loss += grad * x
                x = min(max(x - lr * grad / np.sqrt(total), -width / 2), width / 2)
            assert loss - best_fixed <= bound * width * np.sqrt(sums[-1])


def rare_coordinates() -> None:
    """Coordinates that occur at every step, and at every 100th, with gradient 1, after 10,000 steps.

    AdaGrad's steps are 0.01 and 0.1, so the rare one has moved ten times as far per occurrence. RMSProp's are 1 and 8,
    and after 1,000 steps of silence 10, which is its very first step.
    """
    often, rare = np.ones(10_000), np.zeros(10_000)
    rare[99::100] = 1.0
    adagrad = [grads / np.sqrt(np.maximum(np.cumsum(grads**2), 1)) for grads in (often, rare)]
    torchs = [-updates_of(ADAGRAD, [1.0], initial_accumulator_value=seen - 1.0)[0] for seen in (10_000, 100)]
    assert np.allclose([steps[-1] for steps in adagrad], [0.01, 0.1]) and np.allclose(torchs, [0.01, 0.1])
    per_gradient = [steps.sum() / np.count_nonzero(steps) for steps in adagrad]
    assert 9 < per_gradient[1] / per_gradient[0] < 10
    rmsprop = -updates_of(RMSPROP, rare[-2000:])
    assert round(rmsprop[-1], 1) == 8.0 and np.isclose(-updates_of(RMSPROP, np.ones(2000))[-1], 1, atol=1e-6)
    assert round(-updates_of(RMSPROP, np.r_[np.ones(100), np.zeros(1000), 1.0])[-1], 2) == 9.99


def table_bytes() -> None:
    """A float32 table of 100 million rows by 128 with its state.

    51.2 GB bare, 51.6 with one sum per row, 102.4 with AdaGrad's sums, 153.6 with Adam's moments.
    """
    rows, width = 100e6, 128
    weights = 4 * rows * width / 1e9
    assert weights == 51.2 and weights + 4 * rows / 1e9 == 51.6
    assert (
        weights * (1 + state_bytes(ADAGRAD) / 4) == 102.4 and round(weights * (1 + state_bytes(ADAM) / 4), 1) == 153.6
    )


def row_wise_adagrad() -> None:
    """One sum per row, of the mean square: where a row's gradients have one size it is AdaGrad, at 1/128 of its state.

    One loud coordinate among 127 that are a hundred times quieter: it moves 11 times as far, they a ninth as far.
    """

    def row_wise(grads: np.ndarray) -> np.ndarray:
        weight, total = np.zeros(grads.shape[1]), 0.0
        for grad in grads:
            total += np.mean(grad**2)
            weight = weight - grad / np.sqrt(total)
        return weight

    even = np.sign(normal(50, 128))
    np.testing.assert_allclose(row_wise(even), path_of(ADAGRAD, np.zeros(128), even, lr=1.0)[-1], rtol=0, atol=1e-8)
    uneven = np.tile(np.r_[1.0, np.full(127, 0.01)], (50, 1))
    shares = row_wise(uneven) / path_of(ADAGRAD, np.zeros(128), uneven, lr=1.0)[-1]
    assert round(shares[0]) == 11 and round(1 / shares[1]) == 9 and np.allclose(shares[1:], shares[1])


def repeated_rows() -> None:
    """The bank's code squares occurrences before it adds them: a row k times in a batch steps sqrt(k) too far.

    With the fix it is torch.optim.Adagrad on a sparse embedding.
    """
    rows = torch.tensor([0, 1, 1, 1, 1])
    grads = torch.ones(5, 2, dtype=torch.float64)
    table = torch.nn.Embedding.from_pretrained(torch.zeros(3, 2, dtype=torch.float64), freeze=False, sparse=True)
    stepper = ADAGRAD(table.parameters(), lr=0.1)
    ends = {name: torch.zeros(3, 2, dtype=torch.float64) for name in ("code", "fixed")}
    sums = {name: torch.zeros(3, 2, dtype=torch.float64) for name in ends}
    for step in range(3):
        stepper.zero_grad()
        table(rows).sum().backward()
        with torch.sparse.check_sparse_tensor_invariants(True):
            stepper.step()
        for name, function in both_versions("adagrad-repeated-rows", "sparse_adagrad").items():
            function(ends[name], sums[name], rows, grads, 0.1)
        if step == 0:
            assert torch.allclose(ends["code"][:, 0], torch.tensor([-0.1, -0.2, 0.0], dtype=torch.float64))
    torch.testing.assert_close(ends["fixed"], table.weight.detach())
    assert torch.allclose(ends["code"][1], 2 * ends["fixed"][1]) and torch.equal(ends["code"][0], ends["fixed"][0])


# Diagonal scaling


def _valley(condition: float, degrees: float) -> np.ndarray:
    """Hessian with eigenvalues 1 and ``condition``, turned by ``degrees``."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    return turn @ np.diag([1.0, condition]) @ turn.T


def turned_valley() -> None:
    """Condition number 100, 400 steps. Along the axes AdaGrad's path is the same for every condition number.

    Turned by 45 degrees it ends 10 times further off than SGD with its best rate, and SGD does not notice the turn.
    """
    start = {0: np.array([-7.0, 2.0]), 45: np.array([[1, -1], [1, 1]]) / np.sqrt(2) @ [-7.0, 2.0]}

    def end(rule: type[torch.optim.Optimizer], lr: float, condition: float, degrees: int) -> float:
        hessian = _valley(condition, degrees)
        return float(np.linalg.norm(descent(rule, lambda x: hessian @ x, start[degrees], 400, lr=lr)[-1]))

    along, turned = ({rule: end(rule, lr, 100, d) for rule, lr in ((ADAGRAD, 3.0), (SGD, 2 / 101))} for d in (0, 45))
    assert along[ADAGRAD] < 1e-12 and end(ADAGRAD, 3.0, 1000, 0) < 1e-12
    assert np.isclose(along[SGD], turned[SGD], rtol=1e-6) and 1e-3 < along[SGD] < 4e-3
    assert turned[ADAGRAD] > 10 * turned[SGD]


def _scaled_condition(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Condition numbers of a 2x2 Hessian for many scales of its second coordinate; of the first it stays 1."""
    scales = np.geomspace(1e-3, 1e1, 20_001)
    first, shared, second = hessian[0, 0], hessian[0, 1] * scales, hessian[1, 1] * scales**2
    half, root = (first + second) / 2, np.sqrt((first - second) ** 2 / 4 + shared**2)
    return scales, (half + root) / (half - root)


def best_diagonal(coupling: float = 6.0, curvature: float = 100.0) -> float:
    """Condition number of [[1, coupling], [coupling, curvature]] after the best diagonal scaling, searched for."""
    assert round(np.linalg.cond([[1.0, 6.0], [6.0, 100.0]])) == 157
    scales, conditions = _scaled_condition(np.array([[1.0, coupling], [coupling, curvature]]))
    assert np.isclose(scales[conditions.argmin()], curvature**-0.5, rtol=2e-3)  # the diagonal becomes 1
    assert np.isclose(_scaled_condition(_valley(100.0, 45.0))[1].min(), 100)
    return float(conditions.min())


# RMSProp


def rmsprop_long_start(alpha: float = 0.99, longer: float = 2.0) -> float:
    """How many of RMSProp's steps exceed ``longer`` times lr under a steady gradient."""
    steps = -updates_of(RMSPROP, np.full(1200, 3.0), alpha=alpha)
    np.testing.assert_allclose(steps, (1 - alpha ** np.arange(1, 1201)) ** -0.5, rtol=1e-6)
    return float((steps > longer).sum())


def rmsprop_forgets() -> None:
    """What forgetting costs, in units of lr: a first step of 10, and 10 again after 1,000 steps of silence.

    What it buys: after 10,000 gradients of 1, a gradient of 10 moves RMSProp by 7.1, AdaGrad by 0.0995.
    """
    assert np.isclose(-updates_of(RMSPROP, [5.0])[0], 10, rtol=1e-6)
    assert round(-updates_of(RMSPROP, np.r_[np.ones(100), np.zeros(1000), 1.0])[-1], 2) == 9.99
    assert round(-updates_of(RMSPROP, np.r_[np.ones(2000), 10.0])[-1], 1) == 7.1  # 2,000 steps fill its memory
    assert round(-updates_of(ADAGRAD, [10.0], initial_accumulator_value=10_000.0)[0], 4) == 0.0995


def rmsprop_momentum_peak(momentum: float = 0.9, alpha: float = 0.99) -> float:
    """Longest step of torch's RMSProp with momentum under a steady gradient, in units of lr."""
    standard = -updates_of(RMSPROP, np.ones(2000), momentum=0.9)
    assert np.isclose(standard[0], 10, rtol=1e-6) and standard.argmax() + 1 == 11
    assert np.isclose(standard[-1], 10, rtol=1e-3)
    steps = -updates_of(RMSPROP, np.ones(400), momentum=momentum, alpha=alpha)
    assert np.isclose(steps[0], (1 - alpha) ** -0.5, rtol=1e-6) and steps.argmax() < 200
    return float(steps.max())


def rmsprop_eps_port() -> None:
    """The bank's code has eps = 1e-3 outside the root.

    Inside, as the fix has it, eps acts like 0.0316 outside: a gradient of 1e-3 gets a first step of 0.032 lr, not 0.76.
    """
    first = {}
    for name, function in both_versions("rmsprop-eps-port", "rmsprop_tf_step").items():
        for gradient in (1e-3, 10.0):
            p, v, buf = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
            function(p, torch.full((1,), gradient, dtype=torch.float64), v, buf, 1.0)
            first[name, gradient] = -p.item()
    assert round(first["code", 1e-3], 3) == 0.760 and round(first["fixed", 1e-3], 3) == 0.032
    assert np.isclose(first["code", 10.0], first["fixed", 10.0], rtol=1e-3)
    torchs = [-updates_of(RMSPROP, [1e-3], alpha=0.9, eps=eps)[0] for eps in (1e-3, 1e-3**0.5)]
    assert np.isclose(torchs[0], first["code", 1e-3], rtol=1e-9) and abs(torchs[1] / first["fixed", 1e-3] - 1) < 0.05
    assert round(1e-3**0.5, 4) == 0.0316


def rmsprop_centred() -> None:
    """Centred steps under gradients of 1: their spread sets the length.

    A spread of 1% ends near 100 lr, no spread grows without end, and rounding turns some runs of torch into NaN.
    """
    wobble = 1 + 0.01 * normal(4000, 1)[:, 0]
    assert 95 < -updates_of(RMSPROP, wobble, centered=True)[3000:].mean() < 110
    steady, t = -updates_of(RMSPROP, np.ones(600), centered=True), np.arange(1, 601)
    np.testing.assert_allclose(steady, (0.99**t * (1 - 0.99**t)) ** -0.5, rtol=1e-4)
    assert round(steady[0], 2) == 10.05 and steady[-1] > 20
    gradients = torch.tensor(np.random.default_rng(0).uniform(0.1, 10, 1000), dtype=torch.float32)
    weight = torch.nn.Parameter(torch.zeros(1000))
    stepper = RMSPROP([weight], lr=1e-3, alpha=0.9, centered=True)
    for _ in range(300):
        weight.grad = gradients.clone()
        stepper.step()
    assert weight.isnan().any()


# Adadelta


def _halving_steps(rule: type[torch.optim.Optimizer], loss: float, unit: float, **hyper: float) -> int:
    """Steps until the distance in loss * (x / unit)^2 / 2 has halved, from x = unit."""
    path = descent(rule, lambda x: loss * x / unit**2, [unit], 1000, **hyper)
    return int(np.argmax(path[:, 0] <= unit / 2))


def adadelta_units() -> None:
    """A tenth of the loss changes nothing; numbers ten times larger take six times the steps, since eps has a unit."""
    counts = [_halving_steps(ADADELTA, *change, lr=1.0, eps=1e-6) for change in ((1, 1), (0.1, 1), (1, 10))]
    assert counts[0] == counts[1] and 5 < counts[2] / counts[0] < 7
    tenth = _halving_steps(SGD, 0.1, 1, lr=0.1)
    assert tenth > 9 * _halving_steps(SGD, 1, 1, lr=0.1)


def _adadelta_steps(steps: int, eps: float) -> np.ndarray:
    """Adadelta's steps with lr 1 and rho 0.9 under a gradient of 1, as the paper has it."""
    u, v, lengths = 0.0, 0.0, []
    for _ in range(steps):
        v = 0.9 * v + 0.1
        lengths.append(((u + eps) / (v + eps)) ** 0.5)
        u = 0.9 * u + 0.1 * lengths[-1] ** 2
    return np.array(lengths)


def adadelta_growth(steps: int = 10_000, eps: float = 1e-6) -> float:
    """Adadelta's step number ``steps`` with lr 1, rho 0.9 and a gradient of 1."""
    lengths = _adadelta_steps(steps, eps)
    torchs = -updates_of(ADADELTA, np.ones(200), rho=0.9, eps=eps)
    np.testing.assert_allclose(torchs, lengths[:200], rtol=1e-9)
    assert np.isclose(lengths[0], np.sqrt(eps / 0.1), rtol=1e-3)
    assert np.isclose(lengths[-1], np.sqrt(0.1 * eps * steps), rtol=0.03)
    assert 9.9 < _adadelta_steps(100, 1e-4)[0] / _adadelta_steps(100, 1e-6)[0] < 10.1
    assert np.allclose(-updates_of(ADADELTA, np.full(100, 1e-5), eps=1e-6), 1e-5, rtol=1e-2)  # SGD with rate 1
    return float(lengths[-1])


def adadelta_with_constant_numerator() -> None:
    """Adadelta's step divided by its numerator is RMSProp's step: they share v and nothing else."""
    grads = normal(100, 1)[:, 0]
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    stepper, bare = ADADELTA([weight], lr=1.0, rho=0.99, eps=1e-12), []
    for grad in grads:
        before = weight.item()
        steps_so_far = stepper.state[weight]["acc_delta"].item() if stepper.state[weight] else 0.0
        weight.grad = torch.full_like(weight, grad)
        stepper.step()
        bare.append((weight.item() - before) / np.sqrt(steps_so_far + 1e-12))
    np.testing.assert_allclose(bare, updates_of(RMSPROP, grads, alpha=0.99), rtol=1e-3)
