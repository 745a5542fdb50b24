"""Evidence for the questions of ``bank/adam.yaml`` on writing, testing and repairing an Adam, and on equal betas."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, both_versions, normal, updates_of


def epsilon_before_correction() -> None:
    """The bank's code adds eps before the correction of v: in effect eps / sqrt(1 - beta2^t), 32 times as large at t = 1.

    A gradient equal to eps gets 0.031 lr at step 1, 0.24 at step 100, 0.44 at step 1,000; it should be 0.5 throughout,
    as the fix has it. On gradients of 1 the two agree to six digits.
    """
    for gradient in (1e-8, 1.0):
        steps = {}
        for name, adam_step in both_versions("adam-eps-before-correction", "adam_step").items():
            weight, m, v = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
            ends = [0.0]
            for t in range(1, 1001):
                adam_step(weight, torch.full((1,), gradient, dtype=torch.float64), m, v, t)
                ends.append(weight.item())
            steps[name] = -np.diff(ends) / 1e-3
        np.testing.assert_allclose(steps["fixed"], -updates_of(ADAM, np.full(1000, gradient)), rtol=1e-7)
        if gradient == 1.0:
            np.testing.assert_allclose(steps["code"], steps["fixed"], rtol=1e-6)
        else:
            assert np.allclose(steps["fixed"], 0.5)
            assert steps["code"][[0, 9, 99, 999]].round(3).tolist() == [0.031, 0.091, 0.236, 0.443]
    factors = 1 / np.sqrt(1 - 0.999 ** np.array([1, 10, 1000]))
    assert factors.round(2).tolist() == [31.62, 10.02, 1.26]


def equal_betas() -> None:
    """With equal betas v_hat - m_hat^2 is the weighted variance s^2, so the step is sign(m) / sqrt(1 + (s / m)^2).

    So no step is longer than lr; 0.71 lr where the scatter equals the mean, 0.0995 where it is ten times the mean. Pure
    noise moves a weight by 0.16 lr in RMS at 0.95, 0.23 at 0.9.
    """
    for beta in (0.9, 0.95):
        grads = 0.3 + normal(300, 1)[:, 0]
        steps = -updates_of(ADAM, grads, betas=(beta, beta), eps=0.0)
        for t in (1, 7, 60, 300):
            weights = (1 - beta) * beta ** np.arange(t)[::-1] / (1 - beta**t)
            mean = np.sum(weights * grads[:t])
            variance = np.sum(weights * (grads[:t] - mean) ** 2)
            assert np.isclose(weights.sum(), 1) and np.isclose(steps[t - 1], mean / np.sqrt(mean**2 + variance))
        assert abs(steps).max() <= 1 + 1e-12
        m = v = 0.0
        squares = []
        for noise in normal(600, 500):
            m, v = beta * m + (1 - beta) * noise, beta * v + (1 - beta) * noise**2
            squares.append(np.mean(m**2 / v))
        assert abs(np.sqrt(np.mean(squares[200:])) - np.sqrt((1 - beta) / (1 + beta))) < 0.005
    assert [round((1 + ratio**2) ** -0.5, 4) for ratio in (1, 10)] == [0.7071, 0.0995]
    m = v = 0.0
    for grad in 1.11 ** np.arange(100):  # with other memories the bound is another
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
    assert m / np.sqrt(v) > 7


class _EmptyPage(torch.optim.Optimizer):
    """Adam as one would write it in ten minutes; ``one_count`` has a single step count for the whole optimizer."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, maximize=False, one_count=False):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        self.one_count, self.count = one_count, 0

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.count += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g, state = -p.grad if group["maximize"] else p.grad, self.state[p]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                state["step"] += 1
                t, m, v = self.count if self.one_count else state["step"], state["exp_avg"], state["exp_avg_sq"]
                m.mul_(beta1).add_(g, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                p.sub_(group["lr"] * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + group["eps"]))
        return loss


def empty_page_matches_torch() -> None:
    """Groups, closure, maximize and a resume in the middle: the subclass ends where torch's Adam does.

    A parameter whose first gradient comes at step 2 moves by lr; with one count for all parameters by 0.744 lr.
    """
    ends = []
    for rule in (ADAM, _EmptyPage):
        weights = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]

        def build(rule=rule, weights=weights):
            groups = [
                {"params": weights[:1]},
                {"params": weights[1:], "lr": 0.3, "betas": (0.5, 0.8), "maximize": True},
            ]
            return rule(groups, lr=0.1, eps=1e-3)

        stepper = build()
        for t in range(20):
            if t == 10:
                saved, stepper = stepper.state_dict(), build()
                stepper.load_state_dict(saved)

            def closure(stepper=stepper, weights=weights, t=t):
                stepper.zero_grad()
                loss = sum((weight * np.cos(t)).sin().sum() for weight in weights)
                loss.backward()
                return loss

            assert stepper.step(closure) is not None
        ends.append(torch.cat([weight.detach() for weight in weights]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)

    moved = {}
    for name, rule, flags in (("torch", ADAM, {}), ("own", _EmptyPage, {}), ("one", _EmptyPage, {"one_count": True})):
        early, late = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
        stepper = rule([early, late], lr=1.0, eps=0.0, **flags)
        for t in (1, 2):
            early.grad, late.grad = torch.ones_like(early), torch.ones_like(late) if t == 2 else None
            stepper.step()
        moved[name] = -late.item()
    assert np.isclose(moved["torch"], 1) and np.isclose(moved["own"], 1) and round(moved["one"], 3) == 0.744


_FAULTS = (
    "eps inside the root",
    "eps before the correction",
    "step count stuck at 1",
    "beta2 hard-coded",
    "decay not in the gradient",
    "lr read once",
    "moments in bf16",
    "step count lost on resume",
)


def _faulty(fault: str | None, start: np.ndarray, grads: np.ndarray, lrs: np.ndarray, **hyper: float) -> np.ndarray:
    """Weights (T, n) of a hand-written Adam with one of ``_FAULTS``, which resumes half-way if it is run for long."""
    beta1, beta2, eps, decay = (hyper[name] for name in ("beta1", "beta2", "eps", "decay"))
    beta2 = 0.999 if fault == "beta2 hard-coded" else beta2
    weight, m, v, t, path = start.copy(), np.zeros_like(start), np.zeros_like(start), 0, []
    for at, (grad, lr) in enumerate(zip(grads, lrs, strict=True)):
        t = 1 if fault == "step count stuck at 1" or (fault == "step count lost on resume" and at == 50) else t + 1
        lr = lrs[0] if fault == "lr read once" else lr
        g = grad if fault == "decay not in the gradient" else grad + decay * weight
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        if fault == "moments in bf16":
            m, v = (torch.tensor(moment).bfloat16().double().numpy() for moment in (m, v))
        root, correction = np.sqrt(v), np.sqrt(1 - beta2**t)
        divisor = root / correction + eps
        if fault == "eps inside the root":
            divisor = np.sqrt(v / correction**2 + eps)
        elif fault == "eps before the correction":
            divisor = (root + eps) / correction
        decoupled = lr * decay * weight if fault == "decay not in the gradient" else 0.0
        weight = weight - decoupled - lr * m / (1 - beta1**t) / divisor
        path.append(weight)
    return np.stack(path)


def _passes(
    fault: str | None, start: np.ndarray, grads: np.ndarray, lrs: np.ndarray, rtol: float, **hyper: float
) -> bool:
    """Whether a faulty Adam's weights are torch's at every step, within ``rtol`` of each."""
    weight = torch.nn.Parameter(torch.tensor(start))
    stepper = ADAM([weight], betas=(hyper["beta1"], hyper["beta2"]), eps=hyper["eps"], weight_decay=hyper["decay"])
    path = []
    for grad, lr in zip(grads, lrs, strict=True):
        stepper.param_groups[0]["lr"], weight.grad = float(lr), torch.tensor(grad)
        stepper.step()
        path.append(weight.detach().numpy().copy())
    return np.allclose(_faulty(fault, start, grads, lrs, **hyper), path, rtol=rtol, atol=0)


def tests_of_a_kernel() -> None:
    """One step at the defaults, gradients of order one, weights compared to 1e-5: all eight faulty Adams pass.

    Ten such steps catch two of them. A hundred with other betas, decay, a schedule, a resume and gradients from 1e-10 to
    1e3 catch all, and the right one passes.
    """
    defaults = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0}
    grads = np.sign(normal(10, 32)) * (0.5 + abs(normal(10, 32, seed=1)))
    naive = {
        steps: [
            fault
            for fault in _FAULTS
            if not _passes(fault, np.ones(32), grads[:steps], np.full(steps, 1e-3), 1e-5, **defaults)
        ]
        for steps in (1, 10)
    }
    assert naive == {1: [], 10: ["step count stuck at 1", "moments in bf16"]}
    hard = {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6, "decay": 0.01}
    sizes = 10.0 ** np.linspace(-10, 3, 32)
    strict = (sizes, sizes * normal(100, 32), 1e-3 * np.linspace(1, 0.1, 100), 1e-9)
    assert _passes(None, *strict, **hard)
    assert [fault for fault in _FAULTS if _passes(fault, *strict, **hard)] == []
