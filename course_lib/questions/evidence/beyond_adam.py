"""Evidence for ``bank/beyond_adam.yaml``: norms, singular values and shapes."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_lib.optim import SOAP, Muon, Shampoo, adjusted_lr, max_attention_logits, newton_schulz, qk_clip_
from course_lib.questions.evidence._feed import both_versions

JORDAN, CUBIC = (3.4445, -4.7750, 2.0315), (1.5, -0.5, 0.0)


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _polynomial(s: np.ndarray | float, coefficients: tuple[float, float, float], steps: int = 5) -> np.ndarray | float:
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def _rms(matrix: np.ndarray | torch.Tensor) -> float:
    return float((matrix**2).mean()) ** 0.5


def without_memory_one_step() -> None:
    """Shampoo's, SOAP's and cubic Newton-Schulz's step for one gradient are all U V^T."""
    gradient = torch.from_numpy(_normal(5, 5))
    left, _, right = torch.linalg.svd(gradient)
    weight = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    weight.grad = gradient.clone()
    Shampoo([weight], lr=1.0, betas=(0.0, 1.0), eps=1e-14, grafting=None).step()
    torch.testing.assert_close(-weight.detach(), left @ right, rtol=0, atol=1e-9)
    torch.testing.assert_close(newton_schulz(gradient, 60, CUBIC), left @ right, rtol=0, atol=1e-9)
    # SOAP's first step takes the basis, the second is Adam's in it: with the same gradient, a sign in it.
    weight = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    optimizer = SOAP([weight], lr=1.0, betas=(0.0, 0.0), eps=1e-9, weight_decay=0.0)
    for _ in range(2):
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(-weight.detach(), left @ right, rtol=0, atol=1e-5)


def steepest_under_three_norms() -> None:
    """No direction of length 1 gains more than G / |G|, sign G and U V^T do, each under its own norm."""
    gradient = _normal(6, 4)
    left, values, right = np.linalg.svd(gradient, full_matrices=False)
    best = {
        "fro": (gradient, np.linalg.norm(gradient)), "max": (np.sign(gradient), np.abs(gradient).sum()),
        2: (left @ right, values.sum()),
    }  # fmt: skip
    for norm, (direction, gain) in best.items():
        for each in (direction, *_normal(500, 6, 4, seed=1), *(other for other, _ in best.values())):
            length = np.abs(each).max() if norm == "max" else np.linalg.norm(each, norm)
            assert (gradient * each).sum() / length <= gain * (1 + 1e-12)
        length = np.abs(direction).max() if norm == "max" else np.linalg.norm(direction, norm)
        assert np.isclose((gradient * direction).sum() / length, gain)


def rare_rows_under_muon() -> None:
    """With rows of size 1/k, row 512 moves 0.2% as far as the first under SGD, 6% under Muon, as far under a sign."""
    gradient = torch.from_numpy(_normal(512, 64) / np.arange(1, 513)[:, None])
    shares = []
    for update in (gradient, newton_schulz(gradient), gradient.sign()):
        row = update.square().mean(1).sqrt()
        shares.append((row[-1] / row[0]).item())
    assert shares[0] < 0.004 and round(shares[1], 2) == 0.06 and shares[2] == 1


def smallest_after_five(low: float = 0.01, steps: int = 5) -> float:
    """The least that ``steps`` steps with Jordan's coefficients make of a singular value from ``low`` to 1."""
    s = np.geomspace(low, 1.0, 20_001)
    assert 1.12 < _polynomial(s, JORDAN, steps).max() < 1.21
    assert round(_polynomial(0.0015, JORDAN), 2) == 0.68 and round(_polynomial(0.001, JORDAN), 2) == 0.47
    return float(_polynomial(s, JORDAN, steps).min())


def slope_against_convergence() -> None:
    """Jordan's p has its fixed point at 0.87 with slope -1.58; from 1 it goes to 0.70, 1.11, 0.72.

    0.001 takes 16 cubic steps of two products to pass a half, and 6 of Jordan's, of three.
    """
    a, b, c = JORDAN
    s2 = (-b - math.sqrt(b * b - 4 * c * (a - 1))) / (2 * c)
    assert round(s2**0.5, 2) == 0.87 and round(a + 3 * b * s2 + 5 * c * s2**2, 2) == -1.58
    assert [round(_polynomial(1.0, JORDAN, steps), 2) for steps in (1, 2, 3)] == [0.70, 1.11, 0.72]
    needed = {of: next(n for n in range(99) if _polynomial(1e-3, of, n) > 0.5) for of in (CUBIC, JORDAN)}
    assert needed == {CUBIC: 16, JORDAN: 6} and (2 * needed[CUBIC], 3 * needed[JORDAN]) == (32, 18)
    assert math.isclose(_polynomial(1.0, CUBIC), 1.0) and a + b + c < 0.71


def original_rate_of_a_matched_one(lr: float = 3e-4, rows: int = 4096, columns: int = 1024) -> float:
    """The lr in mode "original" whose steps are those of ``lr`` in mode "match_rms_adamw"."""
    left, _, right = np.linalg.svd(_normal(16, 4), full_matrices=False)
    assert math.isclose(_rms(left @ right), 1 / math.sqrt(16))  # 1 / sqrt(max(rows, columns))
    matched = adjusted_lr(lr, (rows, columns), "match_rms_adamw")
    assert math.isclose(matched / math.sqrt(max(rows, columns)), 0.2 * lr)
    return matched / adjusted_lr(1.0, (rows, columns), "original")


def newton_schulz_share(side: int = 768, tokens: int = 524_288) -> float:
    """Percent of the FLOPs of forward and backward that five steps cost for square matrices."""
    products = 5 * (2 * side**3 + 2 * side**3 + 2 * side**3)
    return 100 * products / (6 * side**2 * tokens)


def gain_at_seven_billion() -> None:
    """A line through 1.4 at 0.1 and 1.1 at 1.2 billion, over the log of the size, is at 1 by 2.7 billion.

    Newton-Schulz at width 4,096 and 4.2 million tokens costs 0.5%, and 125% if each of 256 ranks does all matrices.
    """
    slope = (1.1 - 1.4) / math.log(1.2 / 0.1)
    assert round(1.2 * math.exp((1 - 1.1) / slope), 1) == 2.7
    share = newton_schulz_share(4096, 4 * 2**20)
    assert round(share, 1) == 0.5 and round(256 * share) == 125


def one_clip_of_a_head() -> None:
    """After QK-clip the largest logit is tau, other heads keep every bit; where keys are shared the query takes all."""
    x, weights = torch.from_numpy(_normal(2, 12, 16)), [torch.from_numpy(_normal(16, 16, seed=seed)) for seed in (1, 2)]
    weights[0][:8] *= 20

    def logits() -> torch.Tensor:
        return max_attention_logits(*((x @ w.T).unflatten(-1, (2, 8)).transpose(1, 2) for w in weights))

    before, kept = logits(), [w[8:].clone() for w in weights]
    assert before[0] > 100 > before[1]
    gamma = qk_clip_(*weights, before, tau=100.0)
    assert torch.allclose(logits(), before.clamp(max=100.0)) and math.isclose(gamma[0], 100 / before[0])
    assert all(torch.equal(w[8:], old) for w, old in zip(weights, kept, strict=True))
    weights[0][:8] *= 20
    shared = weights[1].clone()
    qk_clip_(weights[0], None, logits(), tau=100.0)
    assert logits()[0] <= 100.0001 and torch.equal(weights[1], shared)


def orthogonaliser_in_place() -> None:
    """The faulty code leaves a bf16 argument with norm 1, the repaired one leaves it alone; float32 hides the fault."""
    versions = both_versions("beyond-spoiled-momentum", "orthogonalise")
    for dtype, spoiled in ((torch.bfloat16, True), (torch.float32, False)):
        for name, function in versions.items():
            buffer = torch.from_numpy(_normal(8, 5)).to(dtype)
            before = buffer.clone()
            function(buffer)
            assert torch.equal(buffer, before) == (not spoiled or name == "fixed")
            if spoiled and name == "code":
                assert abs(buffer.float().norm().item() - 1) < 0.02
    # With Nesterov the argument is a new tensor, and torch's own buffer is right.
    weight = torch.zeros(8, 5, dtype=torch.bfloat16, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    for make in (Muon, torch.optim.Muon):
        optimizer = make([weight], lr=0.02)
        optimizer.step()
        norm = optimizer.state[weight]["momentum_buffer"].float().norm().item()
        assert math.isclose(norm, 0.05 * math.sqrt(40), rel_tol=0.01)


def fused_projections() -> None:
    """q, k, v gradients of sizes 0.1, 0.1 and 10 in one tall matrix: v moves about ten times farther; apart, alike."""
    parts = [size * torch.from_numpy(_normal(48, 48, seed=seed)) for seed, size in enumerate((0.1, 0.1, 10.0))]
    fused = [_rms(part) for part in newton_schulz(torch.cat(parts)).chunk(3)]
    apart = [_rms(newton_schulz(part)) for part in parts]
    assert 6 < fused[2] / max(fused[:2]) < 15 and max(apart) / min(apart) < 1.1
