"""The judges of exercises that ask for a function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.candidate import RIGHT, Stopped, watched
from course_lib.checks.guards import Guards
from course_lib.checks.report import Finding

Progress = Callable[[str], None]
Known = tuple[str, str, str, Callable[..., np.ndarray]]  # code, what, hint, the mistake itself


def _numeric(right: Callable[..., np.ndarray], cases: Sequence[dict[str, Any]], known: Sequence[Known]):
    """A judge for a function of tensors and numbers that returns one tensor."""

    def judge(candidate: Any, progress: Progress) -> list[Finding]:
        if findings := _not_a_function(candidate):
            return findings
        progress("calling the function")
        results = []
        with Guards(watch_production=False) as guards:
            for case in cases:
                arguments = {
                    name: torch.tensor(value) if isinstance(value, np.ndarray) else value
                    for name, value in case.items()
                }
                before = copy.deepcopy(arguments)
                try:
                    with watched(f"it is called with {_said(case)}"):
                        result = candidate(**arguments)
                except Stopped as stop:
                    return [stop.finding]
                if any(
                    isinstance(value, Tensor) and not torch.equal(value, before[name])
                    for name, value in arguments.items()
                ):
                    findings.append(
                        Finding("input-written", "The function changes its arguments in place.", "Return a new tensor.")
                    )
                try:
                    results.append(np.asarray(torch.as_tensor(result, dtype=torch.float64).detach().numpy()))
                except (TypeError, ValueError, RuntimeError):
                    return [
                        Finding(
                            "wrong-result",
                            f"The function returns {type(result).__name__} instead of a tensor.",
                            "What does the exercise ask to return?",
                        )
                    ]
            findings += guards.changes()
        expected = [right(**case) for case in cases]
        for case, got, want in zip(cases, results, expected, strict=True):
            if got.shape != want.shape:
                return [
                    Finding(
                        "wrong-shape",
                        f"With {_said(case)} the result has shape {got.shape} instead of {want.shape}.",
                        "One row per step?",
                    ),
                    *findings,
                ]
            if not _close(got, want):
                return [*(_name(known, cases, results) or [_unnamed(case, got, want)]), *findings]
        return list({finding.code: finding for finding in findings}.values())

    return judge


def _not_a_function(candidate: Any) -> list[Finding]:
    """A finding if the candidate is no function; the empty list, to which more is added, if it is one."""
    if callable(candidate) and not isinstance(candidate, type):
        return []
    what = f"check needs your function itself; this is of type {type(candidate).__name__}."
    return [Finding("wrong-type", what, "Pass the function, without parentheses.")]


def _said(case: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} of shape {value.shape}" if isinstance(value, np.ndarray) else f"{name}={value}"
        for name, value in case.items()
    )


def _close(got: np.ndarray, want: np.ndarray) -> bool:
    return got.shape == want.shape and np.allclose(got, want, rtol=RIGHT, atol=1e-9, equal_nan=True)


def _name(known: Sequence[Known], cases: Sequence[dict[str, Any]], results: list[np.ndarray]) -> list[Finding]:
    for code, what, hint, wrong in known:
        with np.errstate(all="ignore"):
            if all(_close(got, np.asarray(wrong(**case))) for case, got in zip(cases, results, strict=True)):
                return [Finding(code, f"Your numbers are exactly those of {what}.", hint)]
    return []


def _unnamed(case: dict[str, Any], got: np.ndarray, want: np.ndarray) -> Finding:
    index = tuple(int(i) for i in np.argwhere(~np.isclose(got, want, rtol=RIGHT, atol=1e-9))[0])
    return Finding(
        "wrong-numbers",
        f"With {_said(case)}, element {index}: expected {want[index]:.6g}, got {got[index]:.6g}.",
        "Work this case by hand for one number.",
    )


def _moments(corrected: Callable[[np.ndarray, float, int], np.ndarray], update=lambda m, g, b: b * m + (1 - b) * g):
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
_MOMENT_MISTAKES: tuple[Known, ...] = (
    (
        "not-corrected",
        "an average without bias correction",
        "The average starts at zero. How much of the weight is missing after t steps?",
        _moments(lambda m, b, t: m),
    ),
    (
        "power-outside",
        "a correction by (1 - beta)^t",
        "To what does the power apply?",
        _moments(lambda m, b, t: m / (1 - b) ** t),
    ),
    (
        "count-behind",
        "a step count that starts at 0",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t - 1)) if t > 1 else m / np.float64(0)),
    ),
    (
        "count-behind-guarded",
        "a step count one behind, the first step left alone",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t - 1)) if t > 1 else m),
    ),
    (
        "count-ahead",
        "a step count that starts at 2",
        "How many gradients are in m when you correct it?",
        _moments(lambda m, b, t: m / (1 - b ** (t + 1))),
    ),
    (
        "multiplied",
        "a multiplication by 1 - beta^t",
        "Should the first estimate grow or shrink?",
        _moments(lambda m, b, t: m * (1 - b**t)),
    ),
    (
        "weights-swapped",
        "an average with its weights exchanged",
        "Does beta weigh the past or the present?",
        _moments(lambda m, b, t: m / (1 - b**t), lambda m, g, b: (1 - b) * m + b * g),
    ),
    (
        "gain-missing",
        "a sum: (1 - beta) is missing",
        "If every gradient were 1, what should come out?",
        _moments(lambda m, b, t: m / (1 - b**t), lambda m, g, b: b * m + g),
    ),
    (
        "gain-only",
        "a division by 1 - beta instead of 1 - beta^t",
        "What changes from step to step?",
        _moments(lambda m, b, t: m / (1 - b)),
    ),
    (
        "product",
        "a correction by 1 - beta * t",
        "t is an exponent.",
        _moments(lambda m, b, t: m / np.float64(1 - b * t)),
    ),
    (
        "correction-kept",
        "corrected values carried on, so that the correction compounds",
        "What is averaged at the next step: m, or m_hat?",
        _kept,
    ),
    (
        "plain-mean",
        "the plain mean of all gradients so far",
        "Older gradients should count for less.",
        lambda grads, beta: np.cumsum(grads, 0) / np.arange(1, len(grads) + 1)[:, None],
    ),
    (
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


def _step(change: Callable[..., np.ndarray]):
    def run(p, m, v, t, lr, betas, eps):
        c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        return change(p, m, v, t, lr, betas, eps, c1, c2)

    return run


_right_step = _step(lambda p, m, v, t, lr, betas, eps, c1, c2: p - lr * (m / c1) / (np.sqrt(v / c2) + eps))
_STEP_MISTAKES: tuple[Known, ...] = tuple(
    (code, what, hint, _step(change))
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


class _Tied(nn.Module):
    """Everything a rule for weight decay has to cope with: tied, frozen and bare parameters, norms, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.weights = nn.Parameter(torch.ones(4))  # a gain, whatever its name
        self.bias_table = nn.Parameter(torch.zeros(3, 4))  # a matrix, whatever its name
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight


def _decay_groups(candidate: Any, progress: Progress) -> list[Finding]:
    if findings := _not_a_function(candidate):
        return findings
    progress("splitting a model's parameters")
    with torch.random.fork_rng(devices=[]):
        model = _Tied()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with Guards(watch_production=False) as guards:
        try:
            with watched("it is called with a model"):
                groups = candidate(model, 0.1)
                groups = [dict(group, params=list(group["params"])) for group in groups]
        except Stopped as stop:
            return [stop.finding]
        findings = guards.changes()
    tensors = [parameter for group in groups for parameter in group["params"]]
    if any(not isinstance(parameter, Tensor) for parameter in tensors):
        return [
            Finding(
                "not-tensors",
                "The groups hold something other than parameters.",
                "torch wants the tensors, not their names.",
            )
        ]
    counted = [id(parameter) for parameter in tensors]
    twice = sorted({names[i] for i in counted if counted.count(i) > 1 and i in names})
    if twice:
        findings.append(
            Finding(
                "twice",
                f"{', '.join(twice)}: in the groups more than once, which torch refuses.",
                "One tensor can have two names in a model: tied weights.",
            )
        )
    frozen = sorted(
        {names[i] for i in counted if i in names and not dict(model.named_parameters())[names[i]].requires_grad}
    )
    if frozen:
        findings.append(
            Finding(
                "frozen",
                f"{', '.join(frozen)}: frozen, and yet in a group.",
                "Leave out what does not require gradients.",
            )
        )
    lost = sorted({names[id(parameter)] for parameter in trainable if id(parameter) not in counted})
    if lost:
        findings.append(
            Finding(
                "lost",
                f"{', '.join(lost)}: in no group, so never trained.",
                "Does every parameter pass one of your tests?",
            )
        )
    decay = {id(parameter): group.get("weight_decay") for group in groups for parameter in group["params"]}
    for parameter in trainable:
        want = 0.1 if parameter.dim() >= 2 else 0.0
        got = decay.get(id(parameter), want)
        if got is None:
            findings.append(
                Finding(
                    "decay-unset",
                    "A group has no weight_decay of its own: it takes the optimizer's default, 0.01 in AdamW.",
                    "Say 0.0 where you mean it.",
                )
            )
        elif got != want:
            kind = "a vector (a gain or a bias)" if parameter.dim() < 2 else "a matrix or more"
            findings.append(
                Finding(
                    "wrong-decay",
                    f"{names[id(parameter)]}, {kind} of shape {tuple(parameter.shape)}, gets weight_decay={got} instead of {want}.",
                    "Names mislead; which property of the tensor tells a matrix from a gain?",
                )
            )
    return list({finding.code: finding for finding in findings}.values())


JUDGES: dict[str, Callable[[Any, Progress], list[Finding]]] = {
    "bias_corrected_moment": _numeric(_right_moment, _MOMENT_CASES, _MOMENT_MISTAKES),
    "efficient_step": _numeric(_right_step, _STEP_CASES, _STEP_MISTAKES),
    "decay_groups": _decay_groups,
}
