"""Evidence for ``bank/adamw.yaml``."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, ADAMW, SGD, both_versions, normal, path_of


def noise_coordinate(noise: float = 10, steps: int = 2000, lr: float = 1e-3, weight_decay: float = 0.1) -> float:
    """What AdamW leaves on average of a weight of 1 whose gradients are noise of this standard deviation.

    Each of 20 weights has a twin with the opposite noise, so that the noise drops out of the mean exactly.
    """
    draws = noise * normal(steps, 20)
    path = path_of(ADAMW, np.ones(40), np.hstack([draws, -draws]), lr=lr, weight_decay=weight_decay)
    assert path[-1].std() > lr
    return float(path[-1].mean())


def l2_follows_gradient_size() -> None:
    """Adam with L2 decays a weight by its gradient's size: 0.02 left where the noise is 1e-3, 0.98 where it is 10.

    AdamW leaves 0.82 of both.
    """
    noise = normal(2000, 200)
    pairs = np.hstack([noise, -noise])  # the noise drops out of the mean
    grads, left = np.hstack([1e-3 * pairs, 10.0 * pairs]), {}
    for rule in (ADAM, ADAMW):
        ends = path_of(rule, np.ones(800), grads, lr=1e-3, weight_decay=0.1)[-1]
        left[rule] = [round(part.mean(), 2) for part in (ends[:400], ends[400:])]
    assert left == {ADAM: [0.02, 0.98], ADAMW: [0.82, 0.82]}


def l2_strength_is_ignored() -> None:
    """No loss gradient, 50 steps, lr 0.01.

    Adam with L2 ends at 0.537 for wd 1e-4 and wd 1; AdamW at 0.99995 and 0.605.
    """
    zeros = np.zeros((50, 1))
    end = {
        (rule, wd): path_of(rule, [1.0], zeros, lr=1e-2, weight_decay=wd)[-1, 0]
        for rule in (ADAM, ADAMW)
        for wd in (1e-4, 1.0)
    }
    assert round(end[ADAM, 1e-4], 3) == round(end[ADAM, 1.0], 3) == 0.537
    assert round(end[ADAMW, 1e-4], 5) == 0.99995 and round(end[ADAMW, 1.0], 3) == 0.605


def sgd_l2_and_decay() -> None:
    """Decay by 1 - lr * wd equals torch's L2 for plain SGD.

    With momentum it does not, and ten steps of zeros show by how much.
    """

    def decoupled(grads: np.ndarray, momentum: float) -> np.ndarray:
        weight, buffer = np.ones(grads.shape[1]), np.zeros(grads.shape[1])
        for grad in grads:
            buffer = momentum * buffer + grad
            weight = weight * (1 - 0.1 * 0.1) - 0.1 * buffer
        return weight

    grads, zeros = normal(100, 8), np.zeros((10, 1))
    coupled = {mu: path_of(SGD, np.ones(8), grads, lr=0.1, weight_decay=0.1, momentum=mu)[-1] for mu in (0.0, 0.9)}
    np.testing.assert_allclose(coupled[0.0], decoupled(grads, 0.0), rtol=0, atol=1e-12)
    assert np.abs(coupled[0.9] - decoupled(grads, 0.9)).max() > 0.1
    assert round(path_of(SGD, [1.0], zeros, lr=0.1, weight_decay=0.1, momentum=0.9)[-1, 0], 3) == 0.621
    assert round(decoupled(zeros, 0.9)[0], 3) == 0.904
    assert path_of(SGD, [1.0], np.zeros((60, 1)), lr=0.1, weight_decay=0.1, momentum=0.9).min() < 0


def decay_steps(lr: float = 3e-4, weight_decay: float = 0.1) -> float:
    """Steps after which AdamW has shrunk a weight without gradient to 1/e, extrapolated from the first 100."""
    left = path_of(ADAMW, [1.0], np.zeros((100, 1)), lr=lr, weight_decay=weight_decay)[-1, 0]
    return float(-100 / np.log(left))


def decay_groups() -> None:
    """Split by ndim.

    Matrices (embedding included) decay, norms and biases do not; only the first group shrinks at zero gradient.
    """
    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(10, 4), "norm": torch.nn.LayerNorm(4), "head": torch.nn.Linear(4, 2)}
    )
    named = dict(model.named_parameters())
    decayed = {name for name, weight in named.items() if weight.ndim >= 2}
    assert decayed == {"embed.weight", "head.weight"}
    groups = [
        {"params": [named[name] for name in named if name in decayed], "weight_decay": 0.1},
        {"params": [named[name] for name in named if name not in decayed], "weight_decay": 0.0},
    ]
    before = {name: weight.detach().clone() for name, weight in named.items()}
    for weight in named.values():
        weight.grad = torch.zeros_like(weight)
    ADAMW(groups, lr=0.5).step()
    for name, weight in named.items():
        torch.testing.assert_close(weight.detach(), before[name] * (0.95 if name in decayed else 1.0))


def lr_scales_decay() -> None:
    """Halving lr halves the decay per step.

    A cosine to zero leaves half the decay of a constant lr over the same steps.
    """
    shrink = {lr: 1 - path_of(ADAMW, [1.0], np.zeros((1, 1)), lr=lr, weight_decay=0.1)[-1, 0] for lr in (1e-2, 5e-3)}
    assert np.isclose(shrink[1e-2], 2 * shrink[5e-3], rtol=1e-9)
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    stepper = ADAMW([weight], lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=1000)
    for _ in range(1000):
        weight.grad = torch.zeros_like(weight)
        stepper.step()
        schedule.step()
    assert np.isclose(np.log(weight.item()) / (1000 * np.log(1 - 1e-3)), 0.5, rtol=2e-3)


def scale_freeness() -> None:
    """Each gradient coordinate rescaled by 1e-3 to 1e3.

    AdamW's path stays the same at eps = 0, not with an eps that matters, not with L2.
    """
    grads, scale = normal(200, 7), 10.0 ** np.arange(-3, 4)

    def change(rule: type[torch.optim.Optimizer], eps: float) -> float:
        hyper = {"lr": 1e-2, "weight_decay": 0.1, "eps": eps}
        return float(
            np.abs(path_of(rule, np.ones(7), grads, **hyper) - path_of(rule, np.ones(7), scale * grads, **hyper)).max()
        )

    assert change(ADAMW, 0.0) < 1e-12
    assert change(ADAMW, 1e-3) > 1e-2
    assert change(ADAM, 0.0) > 0.1


def paper_decay_in_torch_units() -> None:
    """The paper's decay 1e-4 at base lr 1e-3 is torch's weight_decay 0.1.

    Torch's decay then moves with lr, the paper's does not.
    """

    def paper(lr: float, decay: float, grads: np.ndarray) -> float:
        weight, m, v = 1.0, 0.0, 0.0
        for t, grad in enumerate(grads[:, 0], start=1):
            m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
            weight -= lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * weight
        return weight

    grads, zeros = normal(100, 1), np.zeros((100, 1))
    assert np.isclose(
        paper(1e-3, 1e-4, grads), path_of(ADAMW, [1.0], grads, lr=1e-3, weight_decay=1e-4 / 1e-3)[-1, 0], rtol=1e-9
    )
    assert np.isclose(paper(1e-3, 1e-4, zeros), paper(1e-1, 1e-4, zeros), rtol=1e-12)
    torch_small, torch_large = (path_of(ADAMW, [1.0], zeros, lr=lr, weight_decay=0.1)[-1, 0] for lr in (1e-3, 1e-1))
    assert round(torch_small, 2) == 0.99 and round(torch_large, 2) == 0.37


def zero_is_not_none() -> None:
    """A gradient of zeros still decays a weight and lets old momentum move it; a gradient of None leaves it alone."""
    end = {}
    for name in ("zero", "none"):
        weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        stepper = ADAMW([weight], lr=1e-2, weight_decay=1.0)
        weight.grad = torch.tensor([0.0, 1.0], dtype=torch.float64)
        stepper.step()
        start = weight.detach().clone()
        for _ in range(50):
            weight.grad = torch.zeros_like(weight) if name == "zero" else None
            stepper.step()
        end[name] = weight.detach() / start
    assert (end["none"] == 1).all()
    assert round(end["zero"][0].item(), 3) == 0.605 and end["zero"][1] < end["zero"][0] - 0.02


def lr_still_matters() -> None:
    """AdamW on a noisy quadratic, 300 steps.

    Lr 1e-4 has hardly moved, 0.02 is close, 10 ends further off than it started.
    """

    def loss(lr: float) -> float:
        weight = torch.nn.Parameter(torch.ones(200, dtype=torch.float64))
        stepper = ADAMW([weight], lr=lr, weight_decay=0.0)
        for noise in normal(300, 200):
            weight.grad = weight.detach() + torch.tensor(noise)
            stepper.step()
        return float(weight.detach().square().mean())

    assert loss(1e-4) > 0.9 and loss(0.02) < 0.05 and loss(10.0) > 2.0


def equilibrium_norm() -> None:
    """Under noise the weights settle at RMS sqrt(lr / (2 wd)) whatever the gradient's scale.

    Ten times the decay, 3.16 times smaller.
    """

    def rms(weight_decay: float, std: float) -> float:
        path = path_of(ADAMW, np.zeros(500), std * normal(3000, 500), lr=1e-2, weight_decay=weight_decay)
        return float(np.sqrt(np.mean(path[2000:] ** 2)))

    strong, weak = rms(1.0, 1.0), rms(0.1, 1.0)
    assert abs(strong / np.sqrt(0.01 / 2) - 1) < 0.05 and abs(weak / np.sqrt(0.01 / 0.2) - 1) < 0.1
    assert abs(rms(1.0, 1e-3) / strong - 1) < 0.01


def decay_without_lr() -> None:
    """The bank's code multiplies by 1 - wd: at wd 0.1 half of the norm is gone in 7 steps; the fix is torch's AdamW."""
    grads, end = normal(7, 4), {}
    for name, adamw_step in both_versions("adamw-bug-decay-without-lr", "adamw_step").items():
        weight, m, v = torch.ones(4, dtype=torch.float64), *(torch.zeros(4, dtype=torch.float64) for _ in range(2))
        for t, grad in enumerate(grads, start=1):
            adamw_step(weight, torch.tensor(grad), m, v, t, 1e-3, 0.1)
        end[name] = weight.numpy()
    np.testing.assert_allclose(
        end["fixed"], path_of(ADAMW, np.ones(4), grads, lr=1e-3, weight_decay=0.1)[-1], rtol=1e-12
    )
    assert np.allclose(end["code"], 0.9**7, atol=0.02) and 0.9**7 < 0.5 and end["fixed"].min() > 0.98


def fifteen_lines_match_torch() -> None:
    """AdamW as an interviewer expects it equals torch.optim.AdamW to 1e-12 over 100 steps, decay before the step."""
    weight, m, v = np.ones(6), np.zeros(6), np.zeros(6)
    grads, lr, (beta1, beta2), eps, decay = normal(100, 6), 1e-2, (0.9, 0.95), 1e-8, 0.1
    for t, grad in enumerate(grads, start=1):
        weight = weight * (1 - lr * decay)
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad * grad
        step_size = lr / (1 - beta1**t)
        denominator = np.sqrt(v) / (1 - beta2**t) ** 0.5 + eps
        weight = weight - step_size * m / denominator
    expected = path_of(ADAMW, np.ones(6), grads, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)[-1]
    np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-12)
