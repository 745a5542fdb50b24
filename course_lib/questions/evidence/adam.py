"""Evidence for ``bank/adam.yaml``."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import (
    ADAM,
    ADAMW,
    SGD,
    both_versions,
    normal,
    path_of,
    state_bytes,
    updates_of,
)


def update_matches_torch() -> None:
    """The update as it is spoken is torch.optim.Adam, over 200 steps and with betas and eps far from the defaults."""
    grads, lr, (beta1, beta2), eps = normal(200, 8), 0.01, (0.8, 0.97), 1e-2
    weight, m, v = np.ones(8), np.zeros(8), np.zeros(8)
    path = [weight]
    for t, grad in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        weight = weight - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        path.append(weight)
    np.testing.assert_allclose(
        path_of(ADAM, np.ones(8), grads, lr=lr, betas=(beta1, beta2), eps=eps), path, rtol=0, atol=1e-12
    )


def first_step(gradient: float = 1e-6, eps: float = 1e-8) -> float:
    """Length of Adam's first step, in units of lr."""
    return float(abs(updates_of(ADAM, [gradient], eps=eps)[0]))


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
    """Longest step of Adam without bias correction under a constant gradient, in units of lr.

    For (0.9, 0.999) it is step 12; step 1,000 is still a quarter too long. A smaller gap of the memories lowers it.
    """
    standard = _uncorrected(0.9, 0.999)
    assert standard.argmax() + 1 == 12 and round(standard[999], 2) == 1.26
    assert np.flatnonzero(standard > 0.9 * standard.max())[[0, -1]].tolist() == [5, 23]
    return float(_uncorrected(beta1, beta2).max())


def uncorrected_start() -> None:
    """Without correction the first steps are too long with (0.9, 0.999) and too short with (0.9, 0.95).

    With (0.9, 0.99) the first is lr, and step 13 is 2.13 lr; with (0.95, 0.999) the peak is 4.60 lr, at step 25.
    """
    paper, recipe = _uncorrected(0.9, 0.999), _uncorrected(0.9, 0.95)
    equal, slower = _uncorrected(0.9, 0.99), _uncorrected(0.95, 0.999)
    assert np.isclose(equal[0], 1) and equal.argmax() + 1 == 13 and round(equal.max(), 2) == 2.13
    assert slower.argmax() + 1 == 25 and round(slower.max(), 2) == 4.6
    assert np.isclose(paper[0], 0.1 / np.sqrt(0.001)) and round(paper[0], 2) == 3.16
    assert paper.argmax() + 1 == 12 and round(paper.max(), 2) == 6.57
    assert np.isclose(recipe[0], 0.1 / np.sqrt(0.05)) and round(recipe[0], 3) == 0.447
    assert recipe.argmax() + 1 == 20 and round(recipe.max(), 2) == 1.10


def epsilon_damps() -> None:
    """A steady gradient g moves a weight by g / (g + eps) of lr.

    1/2 where g equals eps, SGD below, sign descent above.
    """
    for gradient, share in ((1e-10, 1 / 101), (1e-8, 1 / 2), (1e-6, 100 / 101), (1e-2, 1.0)):
        assert np.isclose(-updates_of(ADAM, [gradient] * 50, eps=1e-8)[-1], share, rtol=1e-5)
    small = [-updates_of(ADAM, [gradient] * 50, eps=1e-3)[-1] for gradient in (1e-7, 2e-7)]
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
    """The ends of Adam's constants: betas of 0 give lr * sign(g), a huge eps SGD, beta1 = 0 corrected RMSProp.

    beta2 = 0 alone has no bound: 900 lr when the gradient falls to a thousandth. In between: a constant gradient gives
    lr, pure noise sqrt((1 - b1) / (1 + b1)) of it in RMS.
    """
    grads = normal(20, 1)[:, 0]
    np.testing.assert_allclose(updates_of(ADAM, grads, betas=(0.0, 0.0), eps=0.0), -np.sign(grads), rtol=1e-12)
    m, averaged = 0.0, []
    for t, grad in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * grad
        averaged.append(-m / (1 - 0.9**t))
    np.testing.assert_allclose(1e9 * updates_of(ADAM, grads, eps=1e9), averaged, rtol=1e-6)
    means = np.array(
        [np.sum(0.999 ** np.arange(t)[::-1] * grads[:t] ** 2) * 0.001 / (1 - 0.999**t) for t in range(1, 21)]
    )
    np.testing.assert_allclose(updates_of(ADAM, grads, betas=(0.0, 0.999), eps=0.0), -grads / np.sqrt(means), rtol=1e-9)
    assert round(-updates_of(ADAM, np.r_[np.ones(200), 1e-3], betas=(0.9, 0.0), eps=0.0)[-1]) == 900
    np.testing.assert_allclose(updates_of(ADAM, np.full(50, 7e-3), eps=0.0), -1.0, rtol=1e-9)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(1000, 400))
    steps = np.diff(path_of(ADAM, np.zeros(400), signs, lr=1.0), axis=0)[100:]
    assert abs(np.sqrt(np.mean(steps**2)) - np.sqrt(0.1 / 1.9)) < 0.01


def training_bytes(parameters: float = 7e9) -> float:
    """GB of weights, gradients, master weights and moments: bf16 training with Adam in fp32."""
    return float(parameters * (2 + 2 + 4 + state_bytes(ADAM)) / 1e9)


def state_is_half() -> None:
    """Adam's two moments are 8 bytes.

    Twice fp32 weights, four times bf16 weights, half of the 16 bytes of model state.
    """
    adam = state_bytes(ADAM)
    assert (adam, state_bytes(SGD), state_bytes(SGD, momentum=0.9)) == (8, 0, 4)
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
    """AMSGrad keeps 12 bytes; after one gradient 100 times too large it stays near 0.3 lr.

    Adam is back at 95% of lr after some 4,500 steps.
    """
    assert state_bytes(ADAM, amsgrad=True) == 12
    grads = np.ones(6000)
    grads[500] = 100.0
    adam, amsgrad = (-updates_of(ADAM, grads, betas=(0.9, 0.999), amsgrad=on)[500:] for on in (False, True))
    assert adam[4000:4400].max() < 0.95 < adam[4700] and 0.28 < amsgrad[-1] < 0.31


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
    per_gradient = [-updates_of(ADAM, grads)[4000:].sum() / grads[4000:].sum() for grads in (often, rare)]
    assert np.isclose(per_gradient[0], 1.0, rtol=1e-6) and 9 < per_gradient[1] < 11


def stuck_step() -> None:
    """The bank's code keeps t at 1: with betas (0.9, 0.95) the step settles at 2.236 lr; with the fix at lr."""
    lengths = {}
    for name, adam_step in both_versions("adam-step-stuck", "adam_step").items():
        for betas in ((0.9, 0.95), (0.9, 0.999)):
            weight, state = torch.zeros(1, dtype=torch.float64), {}
            for _ in range(8000):
                before = weight.item()
                adam_step(weight, torch.ones(1, dtype=torch.float64), state, 1.0, *betas, 1e-8)
            lengths[name, betas] = before - weight.item()
    assert round(lengths["code", (0.9, 0.95)], 3) == 2.236
    assert round(lengths["code", (0.9, 0.999)], 3) == 0.316
    assert np.allclose([lengths["fixed", (0.9, 0.95)], lengths["fixed", (0.9, 0.999)]], 1.0, rtol=1e-6)


def epsilon_inside_the_root() -> None:
    """The bank's code floors the denominator at sqrt(eps) = 1e-4.

    A gradient of 1e-6 gets 1% of its step; the fix is torch's Adam.
    """
    ends = {}
    for name, adam_step in both_versions("adam-eps-inside-root", "adam_step").items():
        weight, m, v = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
        for t in range(1, 21):
            adam_step(weight, torch.full((1,), 1e-6, dtype=torch.float64), m, v, t)
        ends[name] = weight.item()
    assert np.isclose(ends["fixed"], path_of(ADAM, [0.0], np.full((20, 1), 1e-6), lr=1e-3)[-1, 0], rtol=1e-9)
    assert 0.009 < ends["code"] / ends["fixed"] < 0.011


def warmup_reason() -> None:
    """Corrected first steps are never longer than lr, and v_hat is right on average.

    It is its spread that is large early.
    """
    for beta2 in (0.9, 0.95, 0.999):
        for gradient in (1e-3, 1e3):
            assert abs(updates_of(ADAM, [gradient], betas=(0.9, beta2))[0]) <= 1 + 1e-9
    v, spread = np.zeros(20000), {}
    for t, grads in enumerate(normal(500, 20000), start=1):
        v = 0.999 * v + 0.001 * grads**2
        if t in (1, 5, 500):
            corrected = v / (1 - 0.999**t)
            assert abs(corrected.mean() - 1) < 0.05
            low, high = np.quantile(1 / np.sqrt(corrected), [0.05, 0.95])
            spread[t] = high / low
    assert spread[1] > 20 and 2 < spread[5] < 5 and spread[500] < 1.2


def constant_clipping() -> None:
    """Every gradient scaled by a tenth: Adam's path is the same up to eps, SGD's is ten times shorter."""
    grads = normal(200, 8)
    whole, clipped = (path_of(ADAMW, np.ones(8), scale * grads, lr=1e-2, eps=1e-30) for scale in (1.0, 0.1))
    np.testing.assert_allclose(clipped, whole, rtol=0, atol=1e-12)
    whole, clipped = (path_of(SGD, np.zeros(8), scale * grads, lr=1e-2)[-1] for scale in (1.0, 0.1))
    np.testing.assert_allclose(clipped, 0.1 * whole, rtol=1e-9)


def rmsprop_with_momentum() -> None:
    """Constant gradient: RMSProp with momentum (alpha 0.999) starts at 31.6 lr and settles at 10 lr; Adam is at lr.

    When the gradient then grows 100 times for good, the longest step is 9.5 times the settled one, Adam's 6.6 times.
    """
    rmsprop, adam = (
        -updates_of(torch.optim.RMSprop, np.ones(3000), momentum=0.9, alpha=0.999),
        -updates_of(ADAM, np.ones(100)),
    )
    assert round(rmsprop[0], 1) == 31.6 and 10 < rmsprop[-1] < 10.5
    assert np.allclose(adam, 1.0, rtol=1e-6)
    v, buffer, longest = 1.0, 10.0, 0.0
    for _ in range(200):
        v = 0.999 * v + 0.001 * 100.0**2
        buffer = 0.9 * buffer + 100.0 / v**0.5
        longest = max(longest, buffer / 10.0)
    assert round(longest, 1) == 9.5 and round(shock_response(0.999), 1) == 6.6


def recipes() -> None:
    """What published settings mean in steps.

    Memories of 20 and 1,000 gradients, decay times of 33,333 and 66,667 steps.
    """
    assert round(1 / (1 - 0.95)) == 20 and round(1 / (1 - 0.999)) == 1000
    decay_times = {name: round(1 / (lr * 0.1)) for name, lr in {"Llama 2 7B": 3e-4, "Llama 2 70B": 1.5e-4}.items()}
    assert decay_times == {"Llama 2 7B": 33333, "Llama 2 70B": 66667}
    step = {eps: -updates_of(ADAM, [1e-6] * 20, eps=eps)[-1] for eps in (1e-8, 1e-5)}
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
        assert max(abs(ratio(grads)) for grads in normal(200, 200).T) < formula


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
