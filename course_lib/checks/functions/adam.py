"""Exercises of notebook 04: a corrected moment, Adam's efficient step, RAdam's rectifier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.checks.functions.common import Edge, Judge, Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION


def _moments(
    corrected: Callable[[np.ndarray, float, int], np.ndarray],
    update: Callable[..., np.ndarray] = lambda m, g, b: b * m + (1 - b) * g,
) -> Callable[..., np.ndarray]:
    def run(grads: np.ndarray, beta: float) -> np.ndarray:
        m, rows = np.zeros(grads.shape[1]), []
        for t, g in enumerate(grads, 1):
            m = update(m, g, beta)
            rows.append(corrected(m, beta, t))
        return np.stack(rows)

    return run


def _kept(grads: np.ndarray, beta: float) -> np.ndarray:
    m, rows = np.zeros(grads.shape[1]), []
    for t, g in enumerate(grads, 1):
        m = (beta * m + (1 - beta) * g) / (1 - beta**t)
        rows.append(m)
    return np.stack(rows)


_right_moment = _moments(lambda m, b, t: m / (1 - b**t))
_MOMENT_MISTAKES = (
    Known(
        "not-corrected",
        "an average without bias correction",
        "The average starts at zero. How much of the weight is missing after t steps?",
        _moments(lambda m, b, t: m),
    ),
    Known(
        "power-outside",
        "a correction by (1 - beta)^t",
        "To what does the power apply?",
        _moments(lambda m, b, t: m / (1 - b) ** t),
    ),
    Known(
        "count-behind",
        "a step count that starts at 0",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t - 1)) if t > 1 else m / np.float64(0)),
    ),
    Known(
        "count-behind-guarded",
        "a step count one behind, the first step left alone",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t - 1)) if t > 1 else m),
    ),
    Known(
        "count-ahead",
        "a step count that starts at 2",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t + 1))),
    ),
    Known(
        "multiplied",
        "a multiplication by 1 - beta^t",
        "Should the first estimate grow or shrink?",
        _moments(lambda m, b, t: m * (1 - b**t)),
    ),
    Known(
        "weights-swapped",
        "an average with its weights exchanged",
        "Does beta weigh the past or the present?",
        _moments(lambda m, b, t: m / (1 - b**t), lambda m, g, b: (1 - b) * m + b * g),
    ),
    Known(
        "gain-missing",
        "a sum: (1 - beta) is missing",
        "If every gradient were 1, what should come out?",
        _moments(lambda m, b, t: m / (1 - b**t), lambda m, g, b: b * m + g),
    ),
    Known(
        "gain-only",
        "a division by 1 - beta instead of 1 - beta^t",
        "What changes from step to step?",
        _moments(lambda m, b, t: m / (1 - b)),
    ),
    Known(
        "product",
        "a correction by 1 - beta * t",
        "t is an exponent.",
        _moments(lambda m, b, t: m / np.float64(1 - b * t)),
    ),
    Known(
        "correction-kept",
        "corrected values carried on, so that the correction compounds",
        "What is averaged at the next step: m, or m_hat?",
        _kept,
    ),
    Known(
        "plain-mean",
        "the plain mean of all gradients so far",
        "Older gradients should count for less.",
        lambda grads, beta: np.cumsum(grads, 0) / np.arange(1, len(grads) + 1)[:, None],
    ),
    Known(
        "gradient-itself",
        "the gradient itself: nothing is averaged",
        "Where does beta come in?",
        lambda grads, beta: grads,
    ),
)
_RNG = np.random.default_rng(5)
_MOMENT_CASES = [
    {"grads": _RNG.normal(size=(steps, 3)), "beta": beta}
    for steps, beta in ((1, 0.9), (6, 0.9), (5, 0.5), (4, 0.0), (3, 0.999))
]


def _step(change: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def run(p, m, v, t, lr, betas, eps):
        c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        return change(p, m, v, t, lr, betas, eps, c1, c2)

    return run


_right_step = _step(lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * (m / c1) / (np.sqrt(v / c2) + eps))
_STEP_MISTAKES = tuple(
    Known(code, what, hint, _step(change))
    for code, what, hint, change in (
        (
            "eps-not-scaled",
            "an eps that is not turned into eps-hat: TensorFlow's form",
            "Multiply the fraction out: what happens to eps?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * np.sqrt(c2) / c1 * m / (np.sqrt(v) + eps),
        ),
        (
            "eps-divided",
            "an eps divided by sqrt(1 - beta2^t)",
            "Does eps-hat grow or shrink with t?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * np.sqrt(c2) / c1 * m / (np.sqrt(v) + eps / np.sqrt(c2)),
        ),
        (
            "upside-down",
            "a factor upside down: (1 - beta1^t) / sqrt(1 - beta2^t)",
            "At t = 1, should the factor enlarge m or shrink it?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * c1 / np.sqrt(c2) * m / (np.sqrt(v) + eps * np.sqrt(c2)),
        ),
        (
            "upside-down-plain",
            "a factor upside down, and an eps that is not scaled",
            "At t = 1, should the factor enlarge m or shrink it?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * c1 / np.sqrt(c2) * m / (np.sqrt(v) + eps),
        ),
        (
            "root-missing",
            "a factor without the root: (1 - beta2^t) / (1 - beta1^t)",
            "The correction of v stands under the root.",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * c2 / c1 * m / (np.sqrt(v) + eps * np.sqrt(c2)),
        ),
        (
            "root-missing-plain",
            "a factor without the root, and an eps that is not scaled",
            "The correction of v stands under the root.",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * c2 / c1 * m / (np.sqrt(v) + eps),
        ),
        (
            "eps-scaled-without-root",
            "an eps multiplied by 1 - beta2^t",
            "By what is the denominator multiplied?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * np.sqrt(c2) / c1 * m / (np.sqrt(v) + eps * c2),
        ),
        (
            "not-corrected",
            "a step without any correction",
            "m and v here are the raw averages.",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * m / (np.sqrt(v) + eps),
        ),
        (
            "corrected-twice",
            "a correction applied twice: to the moments and to the step size",
            "Once is enough.",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * np.sqrt(c2) / c1 * (m / c1) / (np.sqrt(v / c2) + eps),
        ),
        (
            "power-outside",
            "powers outside: (1 - beta)^t",
            "To what does the power apply?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: (
                p - lr * (m / (1 - betas[0]) ** t) / (np.sqrt(v / (1 - betas[1]) ** t) + eps)
            ),
        ),
        (
            "eps-inside-root",
            "an epsilon inside the root",
            "Is eps added before or after the root?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * (m / c1) / np.sqrt(v / c2 + eps),
        ),
        (
            "ascends",
            "a step uphill",
            "Which way is down?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p + lr * (m / c1) / (np.sqrt(v / c2) + eps),
        ),
        (
            "step-only",
            "the step alone, without the parameter it starts from",
            "What does the exercise ask to return?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: lr * (m / c1) / (np.sqrt(v / c2) + eps),
        ),
        (
            "lr-missing",
            "a step without the learning rate",
            "What is alpha_t made of?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - (m / c1) / (np.sqrt(v / c2) + eps),
        ),
        (
            "betas-swapped",
            "corrections with the betas exchanged",
            "Which beta belongs to m?",
            lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * (m / c2) / (np.sqrt(v / c1) + eps),
        ),
    )
)
_STEP_CASES = [
    {
        "p": _RNG.normal(size=4),
        "m": 0.3 * _RNG.normal(size=4),
        "v": _RNG.uniform(0, 0.5, 4),
        "t": t,
        "lr": lr,
        "betas": betas,
        "eps": eps,
    }
    for t, lr, betas, eps in ((1, 0.1, (0.9, 0.999), 0.02), (3, 0.05, (0.8, 0.95), 0.1), (40, 1.0, (0.5, 0.99), 1e-3))
]


def _rectifier(
    limit: Callable[..., float] = lambda b: 2 / (1 - b) - 1,
    length: Callable[..., float] = lambda r, t, b: r - 2 * t * b**t / (1 - b**t),
    factor: Callable[..., float] = lambda n, r: np.sqrt((n - 4) * (n - 2) * r / ((r - 4) * (r - 2) * n)),
    above: float = 5.0,
    otherwise: float = 0.0,
    first: int = 1,
) -> Callable[..., float]:
    """Liu et al. 2020 (arXiv 1908.03265), Algorithm 2; torch's threshold. n is rho_t, r its limit."""

    def run(t: int, beta2: float) -> float:
        r = limit(beta2)
        n = length(r, np.float64(t - 1 + first), beta2)
        return factor(n, r) if n > above else otherwise

    return run


_RECTIFIER_MISTAKES = (
    Known(
        "threshold-of-the-paper",
        "the paper's threshold, rho_t > 4",
        "The exercise follows torch and the authors' code, which rectify only above 5.",
        _rectifier(above=4.0),
        OTHER_SPECIFICATION,
    ),
    Known(
        "one-below",
        "a factor of 1 where rho_t <= 5",
        "Where the variance cannot be told, the exercise asks for 0.0.",
        _rectifier(otherwise=1.0),
    ),
    Known(
        "nan-below",
        "a NaN where rho_t <= 5",
        "Where the variance cannot be told, the exercise asks for 0.0.",
        _rectifier(otherwise=np.nan),
    ),
    Known(
        "no-threshold",
        "a formula applied at every step",
        "What does the formula give where rho_t is below 4? From where on is it to be used?",
        _rectifier(above=-np.inf),
    ),
    Known(
        "threshold-on-t",
        "a threshold on t instead of rho_t",
        "Which number says on how many gradients v rests?",
        lambda t, beta2: _rectifier(above=-np.inf if t > 5 else np.inf)(t, beta2),
    ),
    Known(
        "root-missing",
        "a factor without its root",
        "r_t is a ratio of standard deviations.",
        _rectifier(factor=lambda n, r: (n - 4) * (n - 2) * r / ((r - 4) * (r - 2) * n)),
    ),
    Known(
        "upside-down",
        "a factor upside down",
        "Should early steps be larger or smaller?",
        _rectifier(factor=lambda n, r: np.sqrt((r - 4) * (r - 2) * n / ((n - 4) * (n - 2) * r))),
    ),
    Known(
        "last-factors-swapped",
        "a factor with rho_t / rho_inf in place of rho_inf / rho_t",
        "Which of the two stands above at the end?",
        _rectifier(factor=lambda n, r: np.sqrt((n - 4) * (n - 2) * n / ((r - 4) * (r - 2) * r))),
    ),
    Known(
        "last-factors-missing",
        "a factor without rho_inf / rho_t",
        "Three factors stand above the line, three below.",
        _rectifier(factor=lambda n, r: np.sqrt((n - 4) * (n - 2) / ((r - 4) * (r - 2)))),
    ),
    Known("length-itself", "rho_t itself", "rho_t is put into the formula for r_t.", _rectifier(factor=lambda n, r: n)),
    Known(
        "ratio-of-lengths",
        "rho_t / rho_inf",
        "r_t is a root of a product of ratios.",
        _rectifier(factor=lambda n, r: n / r),
    ),
    Known(
        "count-behind",
        "a step count that starts at 0",
        "How many gradients has v seen at the first step?",
        _rectifier(first=0),
    ),
    Known(
        "count-ahead",
        "a step count that starts at 2",
        "How many gradients has v seen at the first step?",
        _rectifier(first=2),
    ),
    Known(
        "limit-without-one",
        "rho_inf = 2 / (1 - beta2)",
        "Something is subtracted in rho_inf.",
        _rectifier(limit=lambda b: 2 / (1 - b)),
    ),
    Known(
        "limit-plus-one",
        "rho_inf = 2 / (1 - beta2) + 1",
        "Is 1 added in rho_inf, or subtracted?",
        _rectifier(limit=lambda b: 2 / (1 - b) + 1),
    ),
    Known(
        "limit-without-two",
        "rho_inf = 1 / (1 - beta2)",
        "Look rho_inf up again.",
        _rectifier(limit=lambda b: 1 / (1 - b)),
    ),
    Known(
        "limit-without-two-less-one",
        "rho_inf = 1 / (1 - beta2) - 1",
        "Look rho_inf up again.",
        _rectifier(limit=lambda b: 1 / (1 - b) - 1),
    ),
    Known(
        "length-without-two",
        "rho_t = rho_inf - t beta2^t / (1 - beta2^t)",
        "A factor is missing in rho_t.",
        _rectifier(length=lambda r, t, b: r - t * b**t / (1 - b**t)),
    ),
    Known(
        "length-uncorrected",
        "rho_t = rho_inf - 2 t beta2^t",
        "By what is the last term of rho_t divided?",
        _rectifier(length=lambda r, t, b: r - 2 * t * b**t),
    ),
    Known(
        "always-zero",
        "0 at every step: rho_t never exceeds 5",
        "Print rho_t at t = 40 with beta2 = 0.99. Is beta2^t above the line, and 1 - beta2^t below it? With beta2 "
        "alone above, or with (1 - beta2)^t below, rho_t stays at 1 or below.",
        lambda t, beta2: 0.0,
    ),
    Known(
        "clipped-root",
        "a factor of 0 only where there is no root to take, and the formula's number everywhere else",
        "At t = 1 rho_t is 1, and the formula has a root. From where on is it to be used?",
        _rectifier(
            above=-np.inf, factor=lambda n, r: np.sqrt(np.maximum((n - 4) * (n - 2) * r / ((r - 4) * (r - 2) * n), 0))
        ),
    ),
    Known(
        "limit-forever",
        "rho_inf in the place of rho_t",
        "What changes from step to step?",
        _rectifier(length=lambda r, t, b: r),
    ),
    Known(
        "bias-correction-folded",
        "r_t times sqrt(1 - beta2^t)",
        "The correction of v is a factor of its own: leave it to the step.",
        lambda t, beta2: _rectifier()(t, beta2) * np.sqrt(1 - beta2**t),
    ),
)
_RECTIFIER_CASES = [
    {"t": t, "beta2": beta2}
    for t, beta2 in (
        *((1, 0.999), (4, 0.999), (5, 0.999), (6, 0.999), (7, 0.99), (8, 0.9)),
        *((50, 0.999), (40, 0.99), (50, 0.9), (9, 0.5)),
    )
]
# Late steps, where a power is so small that a mistaken formula may divide by zero instead of giving its number.
_RECTIFIER_EDGES = [
    Edge({"t": t, "beta2": beta2}) for t, beta2 in ((100, 0.999), (2_000, 0.999), (3_000, 0.9999), (1_000_000, 0.999))
]

JUDGES: dict[str, Judge] = {
    "bias_corrected_moment": Numeric(
        _right_moment, _MOMENT_CASES, _MOMENT_MISTAKES, "a tensor of the shape of `grads`", tensors=True
    ),
    "efficient_step": Numeric(_right_step, _STEP_CASES, _STEP_MISTAKES, "a tensor of the shape of `p`", tensors=True),
    "rectifier": Numeric(_rectifier(), _RECTIFIER_CASES, _RECTIFIER_MISTAKES, "a float", edges=_RECTIFIER_EDGES),
}
