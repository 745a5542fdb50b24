"""Evidence for ``bank/beyond_adam.yaml``: Newton-Schulz as it is written by hand, a mask, and a curve to read."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.optim import AdamW, newton_schulz
from course_lib.questions.evidence._feed import both_versions
from course_lib.questions.runs import Curves, Panel

_JORDAN = (3.4445, -4.7750, 2.0315)


def _by_hand(gradient: np.ndarray, steps: int = 5, turn: bool = True, norm: bool = True) -> np.ndarray:
    """Newton-Schulz in eight lines; without ``turn`` a tall matrix stays tall, without ``norm`` it is not divided."""
    a, b, c = _JORDAN
    tall = turn and gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    if norm:
        x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def newton_schulz_by_hand() -> None:
    """Eight lines agree with the course's iteration; each of four usual mistakes is seen at once.

    A tall matrix gives the same without the transpose, for 38 times the FLOPs where it is 32 x 4.
    """
    rng = np.random.default_rng(0)
    for shape in ((6, 6), (4, 9), (32, 4)):
        gradient = rng.standard_normal(shape)
        ours = _by_hand(gradient)
        np.testing.assert_allclose(ours, newton_schulz(torch.from_numpy(gradient)).numpy(), rtol=0, atol=1e-9)
        values = np.linalg.svd(ours, compute_uv=False)
        assert 0.6 < values.min() and values.max() < 1.21 and np.allclose(_by_hand(1e3 * gradient), ours)
        np.testing.assert_allclose(_by_hand(gradient, turn=False), ours, rtol=0, atol=1e-9)
    tall, turned = (4 * m**2 * n + 2 * m**3 for m, n in ((32, 4), (4, 32)))
    assert round(tall / turned) == 38
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(_by_hand(gradient, norm=False)).all()  # nothing holds the fifth power
    unit = gradient / np.linalg.norm(gradient)
    for wrong in (unit * unit, np.sign(unit)):  # element by element, or a sign: no singular value is meant
        values = np.linalg.svd(wrong, compute_uv=False)
        assert values.min() < 0.2 or values.max() > 1.5
    once = gradient / np.linalg.norm(gradient)
    gram = once @ once.T  # made once, outside of the loop
    for _ in range(5):
        once = _JORDAN[0] * once + (_JORDAN[1] * gram + _JORDAN[2] * gram @ gram) @ once
    assert np.linalg.svd(once, compute_uv=False).max() > 2
    assert np.isfinite(_by_hand(np.zeros((3, 3)))).all()


def mask_of_squares() -> None:
    """With m * m the mask is 1 everywhere and the step is AdamW's; with m * g about half of noise's elements stand."""
    versions, rng = both_versions("beyond-cautious-mask", "cautious"), np.random.default_rng(0)
    m, g = torch.zeros(4000, dtype=torch.float64), None
    for _ in range(50):
        g = torch.from_numpy(rng.standard_normal(4000))
        m = 0.9 * m + 0.1 * g
    update = m / (0.05**0.5)
    assert torch.equal(versions["code"](update, m, g), update)
    kept = versions["fixed"](update, m, g)
    share = (kept != 0).double().mean().item()
    assert 0.5 < share < 0.8 and bool(((kept == 0) | (m * g > 0)).all())
    assert (kept[kept != 0] / update[kept != 0] - 1 / share).abs().max() < 1e-12  # made longer by what was left out
    steady = torch.ones_like(m)
    assert torch.equal(versions["fixed"](steady, steady, steady), versions["code"](steady, steady, steady))


def fused_switch() -> Curves:
    """A fused projection, 100 steps of AdamW and then Muon: how far each third of the rows moves, and its gradient."""
    rng, width, steps = np.random.default_rng(0), 32, 200
    sizes = np.repeat([0.1, 0.1, 10.0], width)[:, None]
    trend = rng.standard_normal((3 * width, width))
    weight = torch.zeros(3 * width, width, dtype=torch.float64, requires_grad=True)
    adamw, momentum = AdamW([weight], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0), torch.zeros_like(weight)
    moved, slopes = [], []
    for step in range(steps):
        gradient = torch.from_numpy(sizes * (trend + rng.standard_normal(trend.shape)))
        momentum = 0.95 * momentum + 0.05 * gradient
        before = weight.detach().clone()
        if step < steps // 2:
            weight.grad = gradient
            adamw.step()
        else:
            scale = 1e-3 * 0.2 * (3 * width) ** 0.5
            weight.data -= scale * newton_schulz(0.95 * momentum + 0.05 * gradient)
        for rows, of in ((moved, weight.detach() - before), (slopes, gradient)):
            rows.append([part.square().mean().sqrt().item() for part in of.chunk(3)])
    names = ("query rows", "key rows", "value rows")
    return Curves(
        "step",
        [float(step) for step in range(steps)],
        [
            Panel("RMS change per step", {name: [row[i] for row in moved] for i, name in enumerate(names)}, log=True),
            Panel("gradient RMS", {name: [row[i] for row in slopes] for i, name in enumerate(names)}, log=True),
        ],
        exact=False,
    )
