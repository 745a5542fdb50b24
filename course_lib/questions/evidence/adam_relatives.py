"""Evidence for the questions of ``bank/adam.yaml`` on Adamax, NAdam and RAdam."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, normal, path_of, state_bytes, updates_of
from course_lib.questions.runs import Curves, Panel

ADAMAX, NADAM, RADAM = torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam


def relatives_in_one_line() -> None:
    """The three keep 8 bytes per parameter and end at lr under a steady gradient, as Adam does.

    Pure noise moves Adam 0.23 lr in RMS, Adamax 0.08 lr: it divides by the largest gradient and not by the usual one.
    """
    assert {state_bytes(rule) for rule in (ADAM, ADAMAX, NADAM)} == {8} and state_bytes(RADAM) == 8
    for rule, steps in ((ADAM, 50), (ADAMAX, 50), (NADAM, 200)):
        assert np.isclose(-updates_of(rule, np.full(steps, 3.0))[-1], 1, rtol=1e-3)
    paths = [path_of(rule, np.zeros(1000), normal(600, 1000), lr=1.0)[400:] for rule in (ADAM, ADAMAX)]
    rms = [np.sqrt(np.mean(np.diff(path, axis=0) ** 2)) for path in paths]
    assert abs(rms[0] - 0.23) < 0.01 and abs(rms[1] - 0.085) < 0.01


def adamax_is_a_limit() -> None:
    """The p-th root of the average of |g|^p with decay beta2^p tends to max(beta2 u, |g|).

    It needs no correction: the first step is lr, and no step is longer under gradients that do not shrink. torch's eps
    stands inside the maximum: after gradients of 3 and 1 with beta2 0.5 and eps 1 the divisor is 2 and not 2.5.
    """
    grads, beta2, u = abs(normal(60, 1)[:, 0]), 0.9, 0.0
    for grad in grads:
        u = max(beta2 * u, grad)
    age, distances = np.arange(60)[::-1], []
    for p in (2.0, 20.0, 200.0):
        terms = np.log(1 - beta2**p) + p * (age * np.log(beta2) + np.log(grads))
        distances.append(abs(np.exp((terms.max() + np.log(np.exp(terms - terms.max()).sum())) / p) / u - 1))
    assert distances[0] > distances[1] > distances[2] and distances[2] < 0.01
    growing = np.sort(abs(normal(500, 1)[:, 0]))
    assert np.isclose(-updates_of(ADAMAX, [3.0])[0], 1) and (-updates_of(ADAMAX, growing)).max() <= 1 + 1e-12
    assert np.isclose(-updates_of(ADAMAX, [3.0, 1.0], betas=(0.0, 0.5), eps=1.0)[1], 1 / 2)


def _after_a_spike(spike: float, beta2: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps of Adamax and of Adam, in units of lr, from a gradient of size ``spike`` on, after and before ones."""
    m, v, u, lengths = 1.0, 1.0, 1.0, []
    for t in range(steps):
        grad = spike if t == 0 else 1.0
        m, v, u = 0.9 * m + 0.1 * grad, beta2 * v + (1 - beta2) * grad**2, max(beta2 * u, grad)
        lengths.append((m / u, m / np.sqrt(v)))
    return tuple(np.array(lengths).T)


def adamax_forgets(spike: float = 1000.0, beta2: float = 0.999) -> float:
    """Steps after one gradient of size ``spike`` among ones until Adamax steps lr again.

    For a spike of 1,000 and 0.999 Adam is back at 90% of lr only after 8,354. A hundred steps after the spike Adamax is
    at 0.0011 lr and Adam at 0.033.
    """
    adamax, adam = _after_a_spike(1000.0, 0.999, 8500)
    assert round(adamax[100], 4) == 0.0011 and round(adam[100], 3) == 0.033
    assert np.argmax(adam[200:] > 0.9) + 200 == 8354
    assert np.ceil(np.log(1000) / -np.log(0.99)) == 688
    adamax, _ = _after_a_spike(spike, beta2, 30_000)
    torchs = -updates_of(ADAMAX, np.r_[np.ones(100), float(spike), np.ones(100)], betas=(0.9, beta2))
    np.testing.assert_allclose(torchs[100:], adamax[:101], rtol=1e-4)
    return float(np.argmax(adamax[100:] > 1 - 1e-9) + 100)


def nadam_of_torch() -> None:
    """Under a constant gradient the paper's NAdam starts at 1.31 lr and stays above lr.

    torch's is at 0.73 lr at step 4: it averages with beta1 and corrects with the product of the mu. With mu in both
    places it is the paper's.
    """

    def nadam(average_with_mu: bool, steps: int = 60) -> np.ndarray:
        m, product, lengths = 0.0, 1.0, []
        for t in range(1, steps + 1):
            mu, mu_next = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * at)) for at in (t, t + 1))
            product *= mu
            decay = mu if average_with_mu else 0.9
            m = decay * m + (1 - decay)
            lengths.append(mu_next * m / (1 - product * mu_next) + (1 - mu) / (1 - product))
        return np.array(lengths)

    torchs, paper = nadam(average_with_mu=False), nadam(average_with_mu=True)
    np.testing.assert_allclose(-updates_of(NADAM, np.ones(60)), torchs, rtol=1e-5)
    assert torchs[:4].round(2).tolist() == [1.06, 0.78, 0.73, 0.73] and torchs.argmin() + 1 == 4
    assert round(paper[0], 2) == 1.31 and paper.min() >= 1 and torchs[36] > 0.99 > torchs[35]
    plain = -updates_of(NADAM, np.ones(60), momentum_decay=1e5)  # mu is beta1 from the start: nothing to disagree on
    np.testing.assert_allclose(
        plain,
        (0.9 * (1 - 0.9 ** np.arange(1, 61)) / (1 - 0.9 ** np.arange(2, 62)) + 0.1 / (1 - 0.9 ** np.arange(1, 61))),
        rtol=1e-5,
    )
    assert [round(0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)), 2) for t in (1, 4000, 28_000)] == [0.45, 0.67, 0.9]


def _rectifier(beta2: float, steps: int) -> np.ndarray:
    """RAdam's r at steps 1 to ``steps`` (Liu et al. 2020); 0 while rho is at most 5, as in torch."""
    t, rho_inf = np.arange(1, steps + 1), 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    inside = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    return np.where(rho > 5, np.sqrt(np.maximum(inside, 0)), 0.0)


def rectifier_at(t: int = 100, beta2: float = 0.999) -> float:
    """RAdam's step number ``t`` in units of lr, under a constant gradient."""
    steps = -updates_of(RADAM, np.full(t, 2.0), betas=(0.9, beta2))
    np.testing.assert_allclose(steps[5:], _rectifier(beta2, t)[5:], rtol=1e-6)  # none of the first five is adapted
    return float(steps[-1])


def radam_is_a_warmup() -> None:
    """The rectifier withholds as many steps as a linear warmup over 2 / (1 - beta2) steps, within a quarter.

    1,033 against 1,000 for beta2 = 0.999, 24 against 20 for 0.95. At the warmup's end r is 0.83 and 0.80.
    """
    withheld = {}
    for beta2, length in ((0.999, 2000), (0.95, 40)):
        r = _rectifier(beta2, 20 * length)
        assert 0.19 < abs(r[:length] - np.arange(1, length + 1) / length).max() < 0.24
        withheld[beta2] = (round((1 - r).sum()), round(r[length - 1], 2), length / 2)
    assert withheld[0.999] == (1033, 0.83, 1000) and withheld[0.95][:2] == (24, 0.8)
    assert np.allclose(_rectifier(0.999, 1000)[[9, 99, 999]], [0.049, 0.215, 0.645], atol=5e-4)


def radam_starts_as_sgd() -> None:
    """Five steps of lr times the averaged gradient, whatever its size; then 0.026 lr.

    A gradient of 100 gives five steps of 100 lr, one of 0.01 five of 0.01 lr. For beta2 = 2/3 no step is ever adapted.
    """
    for gradient in (100.0, 0.01):
        steps = -updates_of(RADAM, np.full(8, gradient))
        np.testing.assert_allclose(steps[:5], gradient, rtol=1e-9)
        assert round(steps[5], 3) == 0.026
    np.testing.assert_allclose(-updates_of(RADAM, np.full(60, 7.0), betas=(0.9, 2 / 3)), 7.0, rtol=1e-9)
    assert np.allclose(-updates_of(ADAM, np.full(8, 100.0)), 1, rtol=1e-6)


def radam_first_steps_curves() -> Curves:
    """A bowl of 60 weights with curvatures 1 to 1,000, lr 0.01: Adam, RAdam, and RAdam with a thousandth of the loss."""
    curvature, start = np.geomspace(1, 1000, 60), normal(1, 60)[0]
    noise = normal(300, 60, seed=1)
    losses, updates = {}, {}
    for name, rule, scale in (
        ("before the change", ADAM, 1.0),
        ("after it", RADAM, 1.0),
        ("after it, loss / 1,000 (drawn x 1,000)", RADAM, 1e-3),
    ):
        weight = torch.nn.Parameter(torch.tensor(start))
        stepper, losses[name], updates[name] = rule([weight], lr=0.01), [], []
        for draw in noise:
            x = weight.detach().numpy().copy()
            losses[name].append(float(np.sum(curvature * x**2) / 2))
            weight.grad = torch.tensor(scale * curvature * (x + 0.1 * draw))
            stepper.step()
            updates[name].append(float(np.sqrt(np.mean((weight.detach().numpy() - x) ** 2)) / 0.01))
    return Curves(
        "step",
        [float(step) for step in range(1, 301)],
        [Panel("training loss", losses, log=True), Panel("RMS of the update (units of lr)", updates, log=True)],
    )
