"""Evidence for ``bank/small_state.yaml``."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch

from course_lib.optim import CAME, REGISTRY, AdamW8bit, Lion
from course_lib.precision.blockwise import dynamic_map, linear_map, relative_error
from course_lib.questions.evidence._feed import ADAMW, both_versions, normal, path_of, state_bytes, updates_of


def ways_and_their_bytes() -> None:
    """Bytes per parameter of a matrix of 1024 x 4096: 8, 4.00 with a shared v or none, 4.01, 2.03 and 0.005."""
    rows, columns = 1024, 4096
    count = rows * columns
    assert state_bytes(ADAMW) == 8
    held = {
        "adam_mini": 4 + 4 * rows / count,
        "lion": 4.0,
        "came": 4 + 8 * (rows + columns) / count,
        "adamw8bit": 2 + 8 * ceil(count / 256) / count,
        "adafactor": 4 * (rows + columns) / count,
    }
    for key, expected in held.items():
        assert np.isclose(REGISTRY[key].state_bytes_per_param, expected)
    assert [round(held[key], 2) for key in ("adam_mini", "came", "adamw8bit")] == [4.0, 4.01, 2.03]
    assert round(held["adafactor"], 4) == 0.0049


def factored_is_kl_optimal() -> None:
    """R C / mean(R): the point that alternating minimisation of the divergence reaches from anywhere.

    It is exact for rank one, has V's row and column means, and follows averages over time exactly.
    """
    rng = np.random.default_rng(0)
    V = rng.chisquare(1, (5, 7))
    R, C = V.mean(axis=1), V.mean(axis=0)
    factored = np.outer(R, C) / R.mean()
    r, s = rng.random(5), rng.random(7)
    for _ in range(3):
        r = V.sum(axis=1) / s.sum()
        s = V.sum(axis=0) / r.sum()
    np.testing.assert_allclose(np.outer(r, s), factored, rtol=1e-12)

    def divergence(A: np.ndarray) -> float:
        return (V * np.log(V / A) - V + A).sum()

    for _ in range(500):
        near = np.outer(r * np.exp(0.2 * rng.standard_normal(5)), s * np.exp(0.2 * rng.standard_normal(7)))
        assert divergence(near) > divergence(factored)
    np.testing.assert_allclose(factored.mean(axis=1), R)
    np.testing.assert_allclose(factored.mean(axis=0), C)
    one = np.outer(rng.random(5), rng.random(7))
    np.testing.assert_allclose(np.outer(one.mean(axis=1), one.mean(axis=0)) / one.mean(), one)
    squares, rows, average = rng.chisquare(1, (50, 5, 7)), np.zeros(5), np.zeros((5, 7))
    for square in squares:
        rows, average = 0.9 * rows + 0.1 * square.mean(axis=1), 0.9 * average + 0.1 * square
    np.testing.assert_allclose(rows, average.mean(axis=1))


def _matrix_step(gradient: np.ndarray, size: float, **hyper: float) -> np.ndarray:
    """What torch.optim.Adafactor subtracts in its first step from a float32 matrix of weights of that size."""
    weight = torch.nn.Parameter(torch.full(gradient.shape, size))
    weight.grad = torch.from_numpy(gradient).float()
    torch.optim.Adafactor([weight], **hyper).step()
    return size - weight.detach().double().numpy()


def relative_first_step(size: float = 0.02, lr: float = 0.01) -> float:
    """RMS of torch.optim.Adafactor's first step on a matrix whose RMS is ``size``; 50 times less than AdamW's."""
    step = np.sqrt(np.square(_matrix_step(normal(8, 8), size, lr=lr)).mean())
    assert np.isclose(step, lr * size, rtol=1e-3)
    assert np.isclose(np.sqrt(np.square(_matrix_step(normal(8, 8), 0.0, lr=lr)).mean()), lr * 1e-3, rtol=1e-3)
    return float(step)


def floor_of_torch_adafactor() -> None:
    """A row 100 times smaller moves as far as the others at 1e-4, 11 times less at 2e-5, 100 times less at 1e-6.

    With eps1 = 1e-30 they move alike.
    """
    for eps, at in ((None, {1e-4: 1, 2e-5: 11, 1e-6: 100}), (1e-30, {1e-4: 1, 1e-6: 1, 1e-8: 1})):
        for size, ratio in at.items():
            gradient = np.full((8, 8), size)
            gradient[0] /= 100
            step = _matrix_step(gradient, 1.0, lr=0.01, eps=(eps, 1e-3))
            assert np.isclose(step[1, 0] / step[0, 0], ratio, rtol=0.01)
    faded = _matrix_step(np.full((8, 8), 1e-8), 1.0, lr=0.01) / 0.01
    assert 0.05 < faded.mean() < 0.1
    assert np.isclose(torch.finfo(torch.float32).eps, 1.2e-7, rtol=0.01)


def came_first_step(beta1: float = 0.9, beta3: float = 0.9999) -> float:
    """RMS of CAME's first step on a matrix in units of lr, whatever the gradient's size; a vector's is 1 - beta1.

    With the defaults a steady gradient gets 48 lr after 60 steps, and noise 0.8 lr after 1,000.
    """
    m = spread = 0.0
    for _ in range(60):
        m = 0.9 * m + 0.1
        spread = 0.9999 * spread + 0.0001 * (1 - m) ** 2
    assert round(m / spread**0.5) == 48
    m_squared = 0.1 / 1.9  # of noise with variance 1; u - m is 0.9 (u - old m)
    assert round(np.sqrt(m_squared / (0.81 * (1 + m_squared) * (1 - 0.9999**1000))), 1) == 0.8
    steps = []
    for shape in ((8, 8), (8,)):
        weight = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        weight.grad = torch.full(shape, 3.7, dtype=torch.float64)
        CAME([weight], lr=1.0, betas=(beta1, 0.999, beta3)).step()
        steps.append(weight.detach().square().mean().sqrt().item())
    assert np.isclose(steps[1], 1 - beta1)
    assert np.isclose(steps[0], (1 - beta1) / (beta1 * np.sqrt(1 - beta3)), rtol=1e-6)
    return steps[0]


def softmax_blocks() -> None:
    """The Hessian of softmax regression at equal probabilities: a share 1 - 1/C of its squares lies within rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3))
    inputs = x.T @ x / 100
    for classes in (2, 10, 256):
        p = np.full(classes, 1 / classes)
        between = np.square(np.diag(p) - np.outer(p, p))
        # H is a Kronecker product, so that the squares of each block are those of `inputs` times an entry of `between`.
        share = np.trace(between) * np.square(inputs).sum() / (between.sum() * np.square(inputs).sum())
        assert np.isclose(share, 1 - 1 / classes)
    assert round(1 - 1 / 256, 3) == 0.996


def rates_within_a_dense_block() -> None:
    """Scaling by the diagonal takes the condition 1,000 to 1 along the axes, and to about 650 along random ones."""
    rng, along = np.random.default_rng(0), np.diag(np.geomspace(1, 1000, 8))
    conditions = []
    for _ in range(200):
        axes = np.linalg.qr(rng.standard_normal((8, 8)))[0]
        H = axes @ along @ axes.T
        scale = np.sqrt(np.diag(H))
        conditions.append(np.linalg.cond(H / np.outer(scale, scale)))
    assert 500 < np.median(conditions) < 800
    scale = np.sqrt(np.diag(along))
    assert np.isclose(np.linalg.cond(along / np.outer(scale, scale)), 1)


def _lost_below(signed: bool, power: int, table: torch.Tensor | None = None) -> float:
    """Size of a gradient, in units of the largest of its block, below which its moment g^power becomes zero."""
    gradients = np.logspace(-7, 0, 7001)
    error = relative_error(torch.from_numpy(gradients**power), signed=signed, block=gradients.size, table=table)
    return float(gradients[(error == 1).numpy()].max())


def eight_bit_v_is_lost_first() -> None:
    """v becomes 0 below 1/2,500 of the block's largest gradient, m below 1/3.6 million; v in even marks below 1/23."""
    assert np.isclose(_lost_below(False, 2), 1 / 2481, rtol=5e-3)
    assert np.isclose(_lost_below(True, 1), 1 / 3.64e6, rtol=5e-3)
    assert np.isclose(_lost_below(False, 2, linear_map(signed=False)), 1 / 22.6, rtol=5e-3)


def marks_and_blocks() -> None:
    """Half as many marks in each decade downwards, where even marks for v have half a step, 0.2%, above zero.

    64 outliers ruin a tensor as one block, and four of its blocks.
    """
    even = linear_map(signed=False).double().numpy()
    assert round(even[1] / 2, 3) == 0.002 and (even > 0.5).sum() == 128
    marks = dynamic_map(signed=True).double().numpy()
    counts = [((marks > 10.0 ** -(k + 1)) & (marks < 10.0**-k)).sum() for k in range(7)]
    assert counts == [64, 32, 16, 8, 4, 2, 1]
    v = np.square(normal(256, 256).ravel()) + 0.01
    v[: 4 * 256 : 16] *= 1e8
    tensor, blocks = torch.from_numpy(v), np.arange(v.size) // 256
    lost = (relative_error(tensor, signed=False, block=v.size) == 1).numpy()
    local = (relative_error(tensor, signed=False, block=256) == 1).numpy()
    assert lost.mean() > 0.9 and 0.01 < local.mean() < 4 / 256 and set(blocks[local]) == {0, 1, 2, 3}


def lost_v_step(beta2: float = 0.999) -> float:
    """Limit of the steps, in lr, of an element with a steady gradient whose v is forgotten after every step.

    In 8-bit AdamW an element 3,000 times below its block's largest follows it, as far as its m allows, within 15%.
    """
    small, steps = 3e-4, 400
    weight = torch.zeros(256, requires_grad=True)
    optimizer, lengths = AdamW8bit([weight], lr=1.0, betas=(0.9, beta2), eps=0.0, weight_decay=0.0, min_size=0), []
    for _ in range(steps):
        before, weight.grad = weight.detach().clone(), torch.full((256,), small)
        weight.grad[0] = 1.0
        optimizer.step()
        lengths.append((before - weight.detach())[1].item())
    exact = np.sqrt((1 - beta2 ** np.arange(1, steps + 1)) / (1 - beta2))
    np.testing.assert_allclose(lengths, exact, rtol=0.15)
    limit = 1 / np.sqrt(1 - beta2)
    assert lengths[-1] > limit / 2
    return float(limit)


def lion_moves_farther_in_noise() -> None:
    """RMS of a step on pure noise: AdamW 0.23 lr, Lion 1 lr, 4.4 times; on a steady gradient 1 and 1."""
    for mean, adamw in ((0.0, 0.23), (100.0, 1.0)):
        gradients = mean + normal(700, 500)
        rms = {}
        for make in (ADAMW, Lion):
            path = path_of(make, np.zeros(500), gradients, lr=1.0, weight_decay=0.0)
            rms[make] = np.sqrt(np.square(np.diff(path, axis=0)[200:]).mean())
        assert np.isclose(rms[ADAMW], adamw, atol=0.01) and np.isclose(rms[Lion], 1, atol=1e-6)
    assert round(1 / np.sqrt(0.1 / 1.9), 1) == 4.4


def lion_keeps_a_real_momentum() -> None:
    """Lion's m is the plain average; one gradient in ten of +11, nine of -1: the signs go wrong, Lion does not."""
    rng = np.random.default_rng(0)
    gradients = np.where(rng.random((900, 300)) < 0.1, 11.0, -1.0)
    assert gradients.mean() > 0.1 and np.sign(gradients).mean() < -0.7
    path = path_of(Lion, np.zeros(300), gradients, lr=1.0)
    assert 0.25 < (path[300] - path[-1]).mean() / 600 < 0.4
    weight = torch.zeros(300, dtype=torch.float64)
    optimizer, m = Lion([weight]), np.zeros(300)
    for gradient in gradients[:50]:
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        m = 0.99 * m + 0.01 * gradient
    np.testing.assert_allclose(optimizer.state[weight]["exp_avg"].numpy(), m, rtol=1e-12)
    assert len(np.unique(m)) > 100


def lion_memory_fed_with_c() -> None:
    """The bug shortens the memory from 100 steps to 9: an old gradient weighs (beta1 beta2)^k instead of beta2^k."""
    versions, gradients = both_versions("small-lion-bug", "lion_step"), np.r_[1.0, np.zeros(60)]
    left = {}
    for name, step in versions.items():
        w, m = np.zeros(1), np.zeros(1)
        for gradient in gradients:
            w, m = step(w, m, np.array([gradient]), 1.0, 0.9, 0.99, 0.0)
        left[name] = m[0]
    assert np.isclose(left["fixed"], 0.01 * 0.99**60)
    assert np.isclose(left["code"] / (1 - 0.99 * 0.9), (0.9 * 0.99) ** 60)
    assert round(1 / (1 - 0.99)) == 100 and round(1 / (1 - 0.9 * 0.99)) == 9
    grads = normal(400, 1)[:, 0] + 0.1
    w = m = np.zeros(1)
    path = [w]
    for gradient in grads:
        w, m = versions["fixed"](w, m, np.array([gradient]), 1.0, 0.9, 0.99, 0.0)
        path.append(w)
    np.testing.assert_allclose(np.diff(np.concatenate(path)), updates_of(Lion, grads))


def lion_hides_a_nan() -> None:
    """After one NaN gradient Lion's weight is finite and only decays, its m is NaN; AdamW's weight is NaN."""
    gradients = np.ones((200, 1))
    gradients[0] = np.nan
    path = path_of(Lion, [1.0], gradients, lr=1e-3, weight_decay=1.0)
    np.testing.assert_allclose(path[:, 0], (1 - 1e-3) ** np.arange(201), rtol=1e-12)
    weight = torch.ones(1, dtype=torch.float64)
    weight.grad = torch.full_like(weight, torch.nan)
    optimizer = Lion([weight])
    optimizer.step()
    assert optimizer.state[weight]["exp_avg"].isnan().all() and torch.isnan(torch.tensor(torch.nan).sign()) == 0
    assert np.isnan(path_of(ADAMW, [1.0], gradients)[-1, 0])


def saved_by_eight_bits(parameters: float = 7e9, gpus: int = 64) -> float:
    """GB that a GPU holds less with 8-bit AdamW under ZeRO-1 over ``gpus``: 8 bytes become 2 + 8/256."""
    saved = 8 - 2 - 8 / 256
    assert round(7 * saved, 1) == 41.8 and round(4 * 7 + 12 * 7 / 64, 1) == 29.3
    return parameters * saved / 1e9 / gpus


def came_is_not_quantised() -> None:
    """What CAME keeps of a float32 matrix: float32 momentum and two pairs of float32 vectors, half of AdamW's bytes."""
    weight = torch.zeros(64, 96)
    weight.grad = torch.ones_like(weight)
    optimizer = CAME([weight])
    optimizer.step()
    tensors = [t for t in optimizer.state[weight].values() if torch.is_tensor(t) and t.dim()]
    assert {t.dtype for t in tensors} == {torch.float32}
    assert sum(t.numel() for t in tensors) == 64 * 96 + 2 * (64 + 96)
    large = 4096 * 14_336
    assert round(4 * (large + 2 * (4096 + 14_336)) / (8 * large), 2) == 0.5
