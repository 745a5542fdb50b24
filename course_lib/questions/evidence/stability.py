"""Evidence for bank/stability.yaml, first part: clipping, accumulation, spikes, logits."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.questions.evidence._feed import ADAM, both_versions, normal, path_of


def largest_excess(beta2: float = 0.95) -> float:
    """Largest ratio of a gradient to the root of Adam's second moment late in a run: 1/sqrt(1-beta2), after silence."""
    v = 0.0
    for gradient in [1e-12] * 2000 + [1.0]:
        v = beta2 * v + (1 - beta2) * gradient**2
    ratios = [abs(g) / math.sqrt((1 - beta2) * g**2 + beta2 * old) for g in (1.0, -3.0) for old in (0.0, 0.1, 7.0)]
    assert max(ratios) <= 1 / math.sqrt(v) + 1e-12
    return 1 / math.sqrt(v)


def _walk(gradients: np.ndarray, beta2: float, *, cap: bool = False, clip: float = math.inf) -> np.ndarray:
    """Steps of Adam in units of lr on gradients (T, n), float64 (T, n), in NumPy; with StableAdamW's cap or a clip."""
    m, v, steps = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[1]), []
    for t, g in enumerate(gradients, start=1):
        g = g * min(1.0, clip / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, beta2 * v + (1 - beta2) * g**2
        v_hat = v / (1 - beta2**t)
        rate = 1 / max(1.0, math.sqrt(np.mean(g**2 / v_hat))) if cap else 1.0
        steps.append(rate * m / (1 - 0.9**t) / np.sqrt(v_hat))
    return np.array(steps)


def cap_and_clip_against_shocks() -> None:
    """One gradient 100 times larger: the cap shortens that step and not the next; a clip shortens both.

    Gradients that stay larger: the cap holds every step below the clipped ones' longest.
    """
    once, stays = normal(1300, 50), normal(1300, 50)
    once[1000] *= 100
    stays[1000:] *= 100
    usual = math.sqrt(50)

    def rms(*, gradients: np.ndarray, **guard: object) -> np.ndarray:
        return np.sqrt((_walk(gradients, 0.999, **guard) ** 2).mean(axis=1))[1000:]

    bare, capped, clipped = (rms(gradients=once, **guard) for guard in ({}, {"cap": True}, {"clip": 2 * usual}))
    assert capped[0] < 0.3 and capped[1] > 1.5 and bare[0] > 1.5 and clipped[:2].max() < 0.5
    assert abs(capped[1] - bare[1]) < 0.05
    lasting, held = (rms(gradients=stays, **guard) for guard in ({}, {"cap": True}))
    assert lasting.max() > 1.5 and held.max() < 0.4


def way_lost_to_a_spike() -> None:
    """Mean 0.3, deviation 1, one gradient 1,000 times larger: of the next 1,000 steps' way nine tenths are lost.

    A clip at twice the usual norm keeps it; clips at 1 and at 0.001 of it give the same path.
    """
    gradients = 0.3 + normal(2000, 50)
    gradients[1000] *= 1000
    usual = float(np.median(np.linalg.norm(gradients, axis=1)))
    clips = (math.inf, 2, 0.1, 1e-4)
    way = {clip: _walk(gradients, 0.999, clip=clip * usual)[1000:].mean(axis=1).sum() for clip in clips}
    assert way[math.inf] < 0.2 * way[2] and abs(way[0.1] / way[2] - 1) < 0.05
    assert np.isclose(way[0.1], way[1e-4], rtol=1e-9)


def norm_keeps_the_direction() -> None:
    """(10, 1 | 0.1): the global norm keeps the direction, each tensor's norm turns it 5 degrees, each value 39."""
    wild = np.array([10.0, 1.0, 0.1])
    by_tensor = np.r_[wild[:2] / np.linalg.norm(wild[:2]), 0.1]

    def turn(g: np.ndarray) -> float:
        return math.degrees(math.acos(min(1.0, g @ wild / np.linalg.norm(g) / np.linalg.norm(wild))))

    assert turn(wild / np.linalg.norm(wild)) < 1e-5
    assert round(turn(by_tensor)) == 5 and round(turn(wild.clip(-1, 1))) == 39
    assert abs(np.linalg.norm(by_tensor) - math.sqrt(1.01)) < 1e-12
    params = [torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    params[0].grad, params[1].grad = torch.tensor(wild[:2]), torch.tensor(wild[2:])
    norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
    np.testing.assert_allclose(np.r_[params[0].grad, params[1].grad], wild / (np.linalg.norm(wild) + 1e-6), rtol=1e-12)
    assert norm.item() == np.linalg.norm(wild)


def shards_clipped_by_themselves() -> None:
    """Norms 3 and 4 on two ranks are 5 together; each rank's own clip at 1 turns the step, one factor does not."""
    shards = [torch.tensor([3.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 4.0], dtype=torch.float64)]
    whole = torch.cat(shards)
    fixed, faulty = (both_versions("stab-sharded-clip", "clip_shards")[name] for name in ("fixed", "code"))
    right = torch.cat(fixed(shards, 1.0))
    wrong = torch.cat(faulty(shards, 1.0))
    assert torch.allclose(right, whole / 5) and torch.allclose(wrong.norm(), torch.tensor(2.0).double().sqrt())
    assert F.cosine_similarity(wrong, whole, dim=0) < 0.99


def ranks_averaged_by_rank() -> None:
    """Two ranks with 2 and 62 tokens: the mean of their means gives a token of the first 31 times its share."""
    losses = [torch.full((2,), 3.0).double(), torch.full((62,), 1.0).double()]
    every = torch.cat(losses)
    means = torch.stack([part.mean() for part in losses]).mean().item()
    # DDP averages gradients over ranks, so that each rank has to use (its sum) * ranks / (tokens of all ranks).
    scaled = torch.stack([part.sum() * 2 / 64 for part in losses]).mean().item()
    assert means == 2.0 and scaled == every.mean().item() == 1.0625
    assert (1 / 2 / 2) / (1 / 2 / 62) == 31


def common_shift_is_free() -> None:
    """Cross-entropy's gradient sums to zero, z-loss's to 2 c log Z; SGD keeps the mean logit, Adam does not."""
    x = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(F.cross_entropy(x[None], torch.tensor([1])), x)
    log_z = x.logsumexp(0)
    (penalty,) = torch.autograd.grad(1e-4 * log_z**2, x)
    assert abs(plain.sum()) < 1e-15 and torch.allclose(penalty, 2e-4 * log_z * x.softmax(0), rtol=1e-12)
    means = {}
    for name, optimizer, hyper in (("SGD", torch.optim.SGD, {"lr": 0.5}), ("Adam", ADAM, {"lr": 0.05})):
        weight = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        run, rng = optimizer([weight], **hyper), np.random.default_rng(0)
        for _ in range(200):
            labels = torch.from_numpy(rng.choice(8, 4, p=np.arange(8, 0, -1) / 36))
            (weight.grad,) = torch.autograd.grad(F.cross_entropy(weight.expand(4, 8), labels), weight)
            run.step()
        means[name] = weight.mean().item()
    assert abs(means["SGD"]) < 1e-12 and abs(means["Adam"]) > 0.05


def qk_norm_bounds_logits() -> None:
    """RMS 1 on both sides: |q . k| / sqrt(d) <= sqrt(d), reached by parallel vectors; 50 apart is a hard choice."""
    rng = np.random.default_rng(0)
    query, key = (1e3 * rng.standard_normal((2, 100, 64)))
    query, key = (x / np.sqrt((x**2).mean(axis=1, keepdims=True)) for x in (query, key))
    assert (abs((query * key).sum(axis=1)) / 8 <= 8 + 1e-9).all()
    assert np.isclose((query * query).sum(axis=1) / 8, 8).all()
    assert torch.tensor([50.0, 0.0]).double().softmax(0)[1] < 1e-21
    weights = torch.tensor([50.0, 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(weights.softmax(0)[0], weights)[0].abs().max() < 1e-20


def clip_of_the_weights() -> None:
    """Kimi K2's QK-clip: both matrices times sqrt(tau / largest logit) brings that logit to tau, after the step."""
    rng = np.random.default_rng(0)
    x, wq, wk = rng.standard_normal((5, 16)), 4 * rng.standard_normal((16, 8)), 4 * rng.standard_normal((16, 8))
    logits = x @ wq @ (x @ wk).T / math.sqrt(8)
    largest, tau = logits.max(), 100.0
    assert largest > tau
    gamma = math.sqrt(tau / largest)
    assert np.isclose((x @ (gamma * wq) @ (x @ (gamma * wk)).T / math.sqrt(8)).max(), tau)


def median_and_threshold() -> None:
    """A clip below every norm gives Adam the same path whatever its size; SGD's path shrinks with it."""
    gradients = normal(200, 20)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    walks = [path_of(ADAM, np.zeros(20), c * gradients / norms, lr=0.1, eps=1e-30)[-1] for c in (1.0, 0.01)]
    np.testing.assert_allclose(walks[0], walks[1], rtol=1e-9)
    ends = [path_of(torch.optim.SGD, np.zeros(20), c * gradients / norms, lr=0.1)[-1] for c in (1.0, 0.01)]
    np.testing.assert_allclose(ends[0], 100 * ends[1], rtol=1e-9)
    assert not np.allclose(walks[0], path_of(ADAM, np.zeros(20), gradients, lr=0.1, eps=1e-30)[-1], rtol=1e-3)
