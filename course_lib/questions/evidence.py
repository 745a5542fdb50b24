"""What proves the bank's answers: one small function per claim, run by the tests.

A function for a question of kind compute returns the number, in the unit of the question; its arguments are what the
question gives. Every other function returns nothing and asserts. All of it is float64 and elementwise, so the numbers
hold on every processor; production means torch.optim throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from course_lib.questions.loader import get


def _run(optimizer: type[torch.optim.Optimizer], start: ArrayLike, grads: ArrayLike, **hyper: Any) -> np.ndarray:
    """Weights (T + 1, n) of an optimizer that is fed the gradients ``grads`` (T, n) from ``start`` (n,)."""
    weight = torch.nn.Parameter(torch.tensor(np.array(start, dtype=np.float64)))
    stepper = optimizer([weight], **hyper)
    path = [weight.detach().numpy().copy()]
    for grad in np.asarray(grads, dtype=np.float64):
        weight.grad = torch.tensor(grad)
        stepper.step()
        path.append(weight.detach().numpy().copy())
    return np.stack(path)


def _steps(optimizer: type[torch.optim.Optimizer], grads: ArrayLike, **hyper: Any) -> np.ndarray:
    """Signed updates (T,) of a single weight without decay, in units of lr."""
    path = _run(optimizer, [0.0], np.asarray(grads)[:, None], lr=1.0, **hyper)
    return np.diff(path[:, 0])


def _noise(steps: int, weights: int, seed: int = 0) -> np.ndarray:
    """Standard normal gradients (steps, weights)."""
    return np.random.default_rng(seed).standard_normal((steps, weights))


ADAM, ADAMW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


# Adam


def update_matches_torch() -> None:
    """The update as it is spoken is torch.optim.Adam, over 200 steps and with betas and eps far from the defaults."""
    grads, lr, (beta1, beta2), eps = _noise(200, 8), 0.01, (0.8, 0.97), 1e-2
    weight, m, v = np.ones(8), np.zeros(8), np.zeros(8)
    path = [weight]
    for t, grad in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        weight = weight - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        path.append(weight)
    np.testing.assert_allclose(
        _run(ADAM, np.ones(8), grads, lr=lr, betas=(beta1, beta2), eps=eps), path, rtol=0, atol=1e-12
    )


def first_step(gradient: float = 1e-6, eps: float = 1e-8) -> float:
    """Length of Adam's first step, in units of lr."""
    return float(abs(_steps(ADAM, [gradient], eps=eps)[0]))


def bias_is_a_geometric_sum() -> None:
    """With a constant mean, the average from zero holds 1 - beta^t of it: exactly the factor that is divided out."""
    for beta in (0.9, 0.95, 0.999):
        average = 0.0
        for t in range(1, 101):
            average = beta * average + (1 - beta) * 3.0
            weights = (1 - beta) * beta ** np.arange(t)
            assert np.isclose(weights.sum(), 1 - beta**t, rtol=1e-9)
            assert np.isclose(average / (1 - beta**t), 3.0, rtol=1e-9)


def _uncorrected(beta1: float, beta2: float, steps: int = 5000) -> np.ndarray:
    """Step lengths, in units of lr, of Adam without bias correction under a constant gradient."""
    m = v = 0.0
    lengths = []
    for _ in range(steps):
        m = beta1 * m + (1 - beta1)
        v = beta2 * v + (1 - beta2)
        lengths.append(m / np.sqrt(v))
    return np.array(lengths)


def uncorrected_peak(beta1: float = 0.9, beta2: float = 0.999) -> float:
    """Longest step of Adam without bias correction under a constant gradient, in units of lr."""
    return float(_uncorrected(beta1, beta2).max())


def uncorrected_start() -> None:
    """Without correction the first steps are too long with (0.9, 0.999) and too short with (0.9, 0.95)."""
    paper, recipe = _uncorrected(0.9, 0.999), _uncorrected(0.9, 0.95)
    assert np.isclose(paper[0], 0.1 / np.sqrt(0.001)) and round(paper[0], 2) == 3.16
    assert paper.argmax() + 1 == 12 and round(paper.max(), 2) == 6.57
    assert np.isclose(recipe[0], 0.1 / np.sqrt(0.05)) and round(recipe[0], 3) == 0.447
    assert recipe.argmax() + 1 == 20 and round(recipe.max(), 2) == 1.10


def epsilon_damps() -> None:
    """A steady gradient g moves a weight by g / (g + eps) of lr.

    1/2 where g equals eps, SGD below, sign descent above.
    """
    for gradient, share in ((1e-10, 1 / 101), (1e-8, 1 / 2), (1e-6, 100 / 101), (1e-2, 1.0)):
        assert np.isclose(-_steps(ADAM, [gradient] * 50, eps=1e-8)[-1], share, rtol=1e-5)
    small = [-_steps(ADAM, [gradient] * 50, eps=1e-3)[-1] for gradient in (1e-7, 2e-7)]
    assert np.isclose(small[1] / small[0], 2.0, rtol=1e-3)


def epsilon_in_half_precision() -> None:
    """In fp16 the default eps is zero, so is the square of a gradient of 1e-4, and torch's Adam divides 0 by 0."""
    assert torch.tensor(1e-8, dtype=torch.float16) == 0
    assert torch.tensor(1e-4, dtype=torch.float16).square() == 0
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float16))
    weight.grad = torch.zeros_like(weight)
    ADAM([weight], lr=1e-3).step()
    assert weight.isnan().all()
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    weight.grad = torch.zeros_like(weight)
    ADAM([weight], lr=1e-3).step()
    assert weight == 1


def shock_response(beta2: float = 0.999, factor: float = 100.0) -> float:
    """Longest step, in units of lr, after a constant gradient has grown by ``factor`` for good."""
    return float(_settled_steps(np.full(2000, factor), beta2).max())


def _settled_steps(grads: np.ndarray, beta2: float) -> np.ndarray:
    """Adam's steps (T,) in units of lr, beta1 0.9, when gradients of 1 have come for ever before ``grads`` (T,)."""
    m = v = 1.0
    steps = []
    for grad in grads:
        m = 0.9 * m + 0.1 * grad
        v = beta2 * v + (1 - beta2) * grad**2
        steps.append(m / v**0.5)
    return np.array(steps)


def memory_of_beta2() -> None:
    """One gradient 100 times too large.

    With beta2 = 0.999 Adam steps 3.3 lr and still creeps 100 steps on; with 0.95 it steps 0.5 lr and recovers.
    """
    grads = np.r_[100.0, np.ones(1000)]
    slow, fast = (_settled_steps(grads, beta2) for beta2 in (0.999, 0.95))
    assert round(slow[0], 1) == 3.3 and round(fast[0], 1) == 0.5
    assert slow[100] < 0.33 and fast[100] > 0.5 and slow[200] < 0.4 and fast[200] > 0.98
    assert fast.min() < 0.14 < 0.31 < slow.min()
    assert round(shock_response(0.999), 2) == 6.57 and round(shock_response(0.95), 2) == 1.10


def sign_descent_and_noise() -> None:
    """betas of 0 give lr * sign(g).

    A constant gradient too; pure noise shrinks the step to sqrt((1 - b1) / (1 + b1)) in RMS.
    """
    grads = _noise(20, 1)[:, 0]
    np.testing.assert_allclose(_steps(ADAM, grads, betas=(0.0, 0.0), eps=0.0), -np.sign(grads), rtol=1e-12)
    np.testing.assert_allclose(_steps(ADAM, np.full(50, 7e-3), eps=0.0), -1.0, rtol=1e-9)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(1000, 400))
    steps = np.diff(_run(ADAM, np.zeros(400), signs, lr=1.0), axis=0)[100:]
    assert abs(np.sqrt(np.mean(steps**2)) - np.sqrt(0.1 / 1.9)) < 0.01


def training_bytes(parameters: float = 7e9) -> float:
    """GB of weights, gradients, master weights and moments: bf16 training with Adam in fp32."""
    return float(parameters * (2 + 2 + 4 + _state_bytes(ADAM)) / 1e9)


def _state_bytes(optimizer: type[torch.optim.Optimizer], **hyper: Any) -> int:
    """Bytes of state that a torch optimizer keeps per float32 parameter, measured on one of 1,000 elements."""
    weight = torch.nn.Parameter(torch.zeros(1000))
    weight.grad = torch.ones(1000)
    stepper = optimizer([weight], lr=1e-3, **hyper)
    stepper.step()
    tensors = [
        value for value in stepper.state[weight].values() if torch.is_tensor(value) and value.shape == weight.shape
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) // 1000


def state_is_half() -> None:
    """Adam's two moments are 8 bytes.

    Twice fp32 weights, four times bf16 weights, half of the 16 bytes of model state.
    """
    adam = _state_bytes(ADAM)
    assert (adam, _state_bytes(SGD), _state_bytes(SGD, momentum=0.9)) == (8, 0, 4)
    assert adam / 4 == 2 and adam / 2 == 4
    assert adam / (2 + 2 + 4 + adam) == 0.5 and adam / (4 + 4 + adam) == 0.5


def adam_walks_to_the_worst_point() -> None:
    """Gradients 3, -1, -1 repeated on [-1, 1].

    The best point is -1. Adam with a short memory ends at +1, AMSGrad near -1.
    """

    def end(amsgrad: bool, beta2: float, steps: int = 3000) -> float:
        weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        stepper = ADAM([weight], lr=0.85, betas=(0.0, beta2), eps=1e-12, amsgrad=amsgrad)
        for t in range(1, steps + 1):
            stepper.param_groups[0]["lr"] = 0.85 / t**0.5
            weight.grad = torch.tensor([3.0 if t % 3 == 1 else -1.0], dtype=torch.float64)
            stepper.step()
            with torch.no_grad():
                weight.clamp_(-1.0, 1.0)
        return weight.item()

    assert end(amsgrad=False, beta2=0.1) > 0.9
    assert end(amsgrad=True, beta2=0.1) < -0.9
    assert end(amsgrad=False, beta2=0.999) < -0.9


def amsgrad_never_forgets() -> None:
    """AMSGrad keeps 12 bytes; after one gradient 100 times too large it stays near 0.3 lr, Adam comes back to lr."""
    assert _state_bytes(ADAM, amsgrad=True) == 12
    grads = np.ones(6000)
    grads[500] = 100.0
    adam, amsgrad = (-_steps(ADAM, grads, betas=(0.9, 0.999), amsgrad=on)[-1] for on in (False, True))
    assert adam > 0.95 and amsgrad < 0.31


def absent_row_drifts() -> None:
    """A row with one gradient and then zeros moves 6 times its first step under Adam, never again under SparseAdam."""

    def row(optimizer: type[torch.optim.Optimizer], sparse: bool) -> list[float]:
        table = torch.nn.Embedding.from_pretrained(torch.zeros(2, 1, dtype=torch.float64), freeze=False, sparse=sparse)
        stepper, seen = optimizer(table.parameters(), lr=1.0), []
        for batch in [[0, 1]] + 100 * [[0]]:
            stepper.zero_grad()
            table(torch.tensor(batch)).sum().backward()
            stepper.step()
            seen.append(-table.weight[1].item())
        return seen

    adam, lazy = row(ADAM, sparse=False), row(torch.optim.SparseAdam, sparse=True)
    assert np.isclose(adam[0], 1.0) and 5.9 < adam[-1] < 6.1
    assert np.isclose(lazy[0], 1.0) and len(set(lazy)) == 1
    try:
        row(ADAM, sparse=True)
    except RuntimeError as error:
        assert "sparse" in str(error)
    else:
        raise AssertionError("torch.optim.Adam took a sparse gradient")


def rare_rows_move_further() -> None:
    """Per gradient that it sees, a row seen every 100th step moves about ten times as far as one seen at every step."""
    often, rare = np.ones(6000), np.zeros(6000)
    rare[::100] = 1.0
    per_gradient = [-_steps(ADAM, grads)[4000:].sum() / grads[4000:].sum() for grads in (often, rare)]
    assert np.isclose(per_gradient[0], 1.0, rtol=1e-6) and 9 < per_gradient[1] < 11


def stuck_step() -> None:
    """The bank's code keeps t at 1: with betas (0.9, 0.95) the step settles at 2.236 lr; with the fix at lr."""
    lengths = {}
    for name in ("code", "fixed"):
        for betas in ((0.9, 0.95), (0.9, 0.999)):
            scope: dict[str, Any] = {}
            exec(getattr(get("adam-step-stuck").bug, "code" if name == "code" else "fixed"), scope)
            weight, state = torch.zeros(1, dtype=torch.float64), {}
            for _ in range(8000):
                before = weight.item()
                scope["adam_step"](weight, torch.ones(1, dtype=torch.float64), state, 1.0, *betas, 1e-8)
            lengths[name, betas] = before - weight.item()
    assert round(lengths["code", (0.9, 0.95)], 3) == 2.236
    assert round(lengths["code", (0.9, 0.999)], 3) == 0.316
    assert np.allclose([lengths["fixed", (0.9, 0.95)], lengths["fixed", (0.9, 0.999)]], 1.0, rtol=1e-6)


def epsilon_inside_the_root() -> None:
    """The bank's code floors the denominator at sqrt(eps) = 1e-4.

    A gradient of 1e-6 gets 1% of its step; the fix is torch's Adam.
    """
    bug = get("adam-eps-inside-root").bug
    ends = {}
    for name, code in (("code", bug.code), ("fixed", bug.fixed)):
        scope: dict[str, Any] = {}
        exec(code, scope)
        weight, m, v = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
        for t in range(1, 21):
            scope["adam_step"](weight, torch.full((1,), 1e-6, dtype=torch.float64), m, v, t)
        ends[name] = weight.item()
    assert np.isclose(ends["fixed"], _run(ADAM, [0.0], np.full((20, 1), 1e-6), lr=1e-3)[-1, 0], rtol=1e-9)
    assert 0.009 < ends["code"] / ends["fixed"] < 0.011


def warmup_reason() -> None:
    """Corrected first steps are never longer than lr, and v_hat is right on average.

    It is its spread that is large early.
    """
    for beta2 in (0.9, 0.95, 0.999):
        for gradient in (1e-3, 1e3):
            assert abs(_steps(ADAM, [gradient], betas=(0.9, beta2))[0]) <= 1 + 1e-9
    v, spread = np.zeros(20000), {}
    for t, grads in enumerate(_noise(500, 20000), start=1):
        v = 0.999 * v + 0.001 * grads**2
        if t in (1, 5, 500):
            corrected = v / (1 - 0.999**t)
            assert abs(corrected.mean() - 1) < 0.05
            low, high = np.quantile(1 / np.sqrt(corrected), [0.05, 0.95])
            spread[t] = high / low
    assert spread[1] > 20 and 2 < spread[5] < 5 and spread[500] < 1.2


def constant_clipping() -> None:
    """Every gradient scaled by a tenth: Adam's path is the same up to eps, SGD's is ten times shorter."""
    grads = _noise(200, 8)
    whole, clipped = (_run(ADAMW, np.ones(8), scale * grads, lr=1e-2, eps=1e-30) for scale in (1.0, 0.1))
    np.testing.assert_allclose(clipped, whole, rtol=0, atol=1e-12)
    whole, clipped = (_run(SGD, np.zeros(8), scale * grads, lr=1e-2)[-1] for scale in (1.0, 0.1))
    np.testing.assert_allclose(clipped, 0.1 * whole, rtol=1e-9)


def rmsprop_with_momentum() -> None:
    """Constant gradient: RMSProp with momentum (alpha 0.999) starts at 31.6 lr and settles at 10 lr; Adam is at lr.

    When the gradient then grows 100 times for good, the longest step is 9.3 times the settled one, Adam's 6.6 times.
    """
    rmsprop, adam = -_steps(torch.optim.RMSprop, np.ones(3000), momentum=0.9, alpha=0.999), -_steps(ADAM, np.ones(100))
    assert round(rmsprop[0], 1) == 31.6 and 10 < rmsprop[-1] < 10.5
    assert np.allclose(adam, 1.0, rtol=1e-6)
    v, buffer, longest = 1.0, 10.0, 0.0
    for _ in range(200):
        v = 0.999 * v + 0.001 * 100.0**2
        buffer = 0.9 * buffer + 100.0 / v**0.5
        longest = max(longest, buffer / 10.0)
    assert longest > 9 and round(shock_response(0.999), 1) == 6.6


def recipes() -> None:
    """What published settings mean in steps.

    Memories of 20 and 1,000 gradients, decay times of 33,333 and 66,667 steps.
    """
    assert round(1 / (1 - 0.95)) == 20 and round(1 / (1 - 0.999)) == 1000
    decay_times = {name: round(1 / (lr * 0.1)) for name, lr in {"Llama 2 7B": 3e-4, "Llama 2 70B": 1.5e-4}.items()}
    assert decay_times == {"Llama 2 7B": 33333, "Llama 2 70B": 66667}
    step = {eps: -_steps(ADAM, [1e-6] * 20, eps=eps)[-1] for eps in (1e-8, 1e-5)}
    assert step[1e-8] > 0.98 and 0.08 < step[1e-5] < 0.1


def step_bound() -> None:
    """No gradients make |m| / sqrt(v) exceed 7.27 for (0.9, 0.999), 1.165 for (0.9, 0.95).

    Growing ones come within 1%.
    """
    for beta1, beta2, bound in ((0.9, 0.999, 7.270), (0.9, 0.95, 1.165)):
        formula = (1 - beta1) / np.sqrt(1 - beta2) / np.sqrt(1 - beta1**2 / beta2)
        assert round(formula, 3) == bound

        def ratio(grads: np.ndarray) -> float:
            age = np.arange(len(grads))[::-1]
            m = (1 - beta1) * np.sum(beta1**age * grads)
            return m / np.sqrt((1 - beta2) * np.sum(beta2**age * grads**2))

        age = np.arange(200)[::-1]
        assert 0.99 * formula < ratio((beta1 / beta2) ** age) <= formula * (1 + 1e-9)
        assert max(abs(ratio(grads)) for grads in _noise(200, 200).T) < formula


def v_is_not_curvature() -> None:
    """Two losses with curvatures 1 and 100 and equal gradients have equal v.

    A linear loss has v > 0 and no curvature.
    """
    curvature = torch.tensor([1.0, 100.0, 0.0], dtype=torch.float64)
    slope = torch.tensor([0.0, -99.0, 1.0], dtype=torch.float64)
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    stepper = ADAM([weight], lr=0.0)
    for _ in range(50):
        stepper.zero_grad()
        (0.5 * curvature * weight**2 + slope * weight).sum().backward()
        stepper.step()
    v = stepper.state[weight]["exp_avg_sq"]
    assert v[0] == v[1] == v[2] > 0


# AdamW


def noise_coordinate(lr: float = 1e-3, weight_decay: float = 0.1, steps: int = 2000) -> float:
    """What AdamW leaves of a weight of 1 whose gradients are noise, whatever its size (mean of 2,000 weights)."""
    noise = _noise(steps, 2000)
    left = [
        _run(ADAMW, np.ones(2000), std * noise, lr=lr, weight_decay=weight_decay)[-1].mean() for std in (1e-3, 10.0)
    ]
    assert abs(left[0] - left[1]) < 1e-3
    return float(left[1])


def l2_follows_gradient_size() -> None:
    """Adam with L2 decays a weight by its gradient's size: 0.02 left where the noise is 1e-3, 0.98 where it is 10."""
    noise = _noise(2000, 1000)
    left = {std: _run(ADAM, np.ones(1000), std * noise, lr=1e-3, weight_decay=0.1)[-1].mean() for std in (1e-3, 10.0)}
    assert abs(left[1e-3]) < 0.05 and left[10.0] > 0.95


def l2_strength_is_ignored() -> None:
    """No loss gradient, 50 steps, lr 0.01.

    Adam with L2 ends at 0.537 for wd 1e-4 and wd 1; AdamW at 0.99995 and 0.605.
    """
    zeros = np.zeros((50, 1))
    end = {
        (rule, wd): _run(rule, [1.0], zeros, lr=1e-2, weight_decay=wd)[-1, 0]
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

    grads, zeros = _noise(100, 8), np.zeros((10, 1))
    coupled = {mu: _run(SGD, np.ones(8), grads, lr=0.1, weight_decay=0.1, momentum=mu)[-1] for mu in (0.0, 0.9)}
    np.testing.assert_allclose(coupled[0.0], decoupled(grads, 0.0), rtol=0, atol=1e-12)
    assert np.abs(coupled[0.9] - decoupled(grads, 0.9)).max() > 0.1
    assert round(_run(SGD, [1.0], zeros, lr=0.1, weight_decay=0.1, momentum=0.9)[-1, 0], 3) == 0.621
    assert round(decoupled(zeros, 0.9)[0], 3) == 0.904
    assert _run(SGD, [1.0], np.zeros((60, 1)), lr=0.1, weight_decay=0.1, momentum=0.9).min() < 0


def decay_steps(lr: float = 3e-4, weight_decay: float = 0.1) -> float:
    """Steps after which AdamW has shrunk a weight without gradient to 1/e, extrapolated from the first 100."""
    left = _run(ADAMW, [1.0], np.zeros((100, 1)), lr=lr, weight_decay=weight_decay)[-1, 0]
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
    shrink = {lr: 1 - _run(ADAMW, [1.0], np.zeros((1, 1)), lr=lr, weight_decay=0.1)[-1, 0] for lr in (1e-2, 5e-3)}
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
    grads, scale = _noise(200, 7), 10.0 ** np.arange(-3, 4)

    def change(rule: type[torch.optim.Optimizer], eps: float) -> float:
        hyper = {"lr": 1e-2, "weight_decay": 0.1, "eps": eps}
        return float(
            np.abs(_run(rule, np.ones(7), grads, **hyper) - _run(rule, np.ones(7), scale * grads, **hyper)).max()
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

    grads, zeros = _noise(100, 1), np.zeros((100, 1))
    assert np.isclose(
        paper(1e-3, 1e-4, grads), _run(ADAMW, [1.0], grads, lr=1e-3, weight_decay=1e-4 / 1e-3)[-1, 0], rtol=1e-9
    )
    assert np.isclose(paper(1e-3, 1e-4, zeros), paper(1e-1, 1e-4, zeros), rtol=1e-12)
    torch_small, torch_large = (_run(ADAMW, [1.0], zeros, lr=lr, weight_decay=0.1)[-1, 0] for lr in (1e-3, 1e-1))
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
        for noise in _noise(300, 200):
            weight.grad = weight.detach() + torch.tensor(noise)
            stepper.step()
        return float(weight.detach().square().mean())

    assert loss(1e-4) > 0.9 and loss(0.02) < 0.05 and loss(10.0) > 2.0


def equilibrium_norm() -> None:
    """Under noise the weights settle at RMS sqrt(lr / (2 wd)) whatever the gradient's scale.

    Ten times the decay, 3.16 times smaller.
    """

    def rms(weight_decay: float, std: float) -> float:
        path = _run(ADAMW, np.zeros(500), std * _noise(3000, 500), lr=1e-2, weight_decay=weight_decay)
        return float(np.sqrt(np.mean(path[2000:] ** 2)))

    strong, weak = rms(1.0, 1.0), rms(0.1, 1.0)
    assert abs(strong / np.sqrt(0.01 / 2) - 1) < 0.05 and abs(weak / np.sqrt(0.01 / 0.2) - 1) < 0.1
    assert abs(rms(1.0, 1e-3) / strong - 1) < 0.01


def decay_without_lr() -> None:
    """The bank's code multiplies by 1 - wd: at wd 0.1 half of the norm is gone in 7 steps; the fix is torch's AdamW."""
    bug = get("adamw-bug-decay-without-lr").bug
    grads, end = _noise(7, 4), {}
    for name, code in (("code", bug.code), ("fixed", bug.fixed)):
        scope: dict[str, Any] = {}
        exec(code, scope)
        weight, m, v = torch.ones(4, dtype=torch.float64), *(torch.zeros(4, dtype=torch.float64) for _ in range(2))
        for t, grad in enumerate(grads, start=1):
            scope["adamw_step"](weight, torch.tensor(grad), m, v, t, 1e-3, 0.1)
        end[name] = weight.numpy()
    np.testing.assert_allclose(end["fixed"], _run(ADAMW, np.ones(4), grads, lr=1e-3, weight_decay=0.1)[-1], rtol=1e-12)
    assert np.allclose(end["code"], 0.9**7, atol=0.02) and 0.9**7 < 0.5 and end["fixed"].min() > 0.98


def fifteen_lines_match_torch() -> None:
    """AdamW as an interviewer expects it equals torch.optim.AdamW to 1e-12 over 100 steps, decay before the step."""
    weight, m, v = np.ones(6), np.zeros(6), np.zeros(6)
    grads, lr, (beta1, beta2), eps, decay = _noise(100, 6), 1e-2, (0.9, 0.95), 1e-8, 0.1
    for t, grad in enumerate(grads, start=1):
        weight = weight * (1 - lr * decay)
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad * grad
        step_size = lr / (1 - beta1**t)
        denominator = np.sqrt(v) / (1 - beta2**t) ** 0.5 + eps
        weight = weight - step_size * m / denominator
    expected = _run(ADAMW, np.ones(6), grads, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)[-1]
    np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-12)
