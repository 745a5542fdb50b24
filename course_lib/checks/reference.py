"""The answers, in NumPy float64. Shares no code with course_lib.optim or torch.optim.

Each rule moves one parameter by one step: ``rule(p, g, state, h)`` returns the new value, given the gradient, the
state of that parameter (a dict, empty before its first gradient) and its hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.problem import Problem, Values

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], dict[str, Any]], np.ndarray]


def adam(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Kingma & Ba 2015 (arXiv 1412.6980), Algorithm 1, with torch's L2 term; AMSGrad as torch has it."""
    return p - _adam_update(g + h["weight_decay"] * p, state, h)


def adamw(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Loshchilov & Hutter 2019 (arXiv 1711.05101), Algorithm 2, the decay scaled by lr as in torch."""
    return p - h["lr"] * h["weight_decay"] * p - _adam_update(g, state, h)


def _adam_update(g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    beta1, beta2 = h["betas"]
    state["t"] = state.get("t", 0) + 1
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g**2
    state["top"] = np.maximum(state.get("top", 0.0), state["v"])
    v = state["top"] if h.get("amsgrad") else state["v"]
    m_hat = state["m"] / (1 - beta1 ** state["t"])
    v_hat = v / (1 - beta2 ** state["t"])
    return h["lr"] * m_hat / (np.sqrt(v_hat) + h["eps"])


def momentum(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """torch.optim.SGD's rule, heavy ball (Polyak 1964) or Nesterov's form (Sutskever et al. 2013)."""
    g = g + h["weight_decay"] * p
    if h["momentum"] == 0:
        return p - h["lr"] * g
    state["b"] = g if "b" not in state else h["momentum"] * state["b"] + (1 - h["dampening"]) * g
    return p - h["lr"] * (g + h["momentum"] * state["b"] if h.get("nesterov") else state["b"])


def nesterov(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Nesterov's velocity (Sutskever et al. 2013, eq. 3 and 4) without its lr, p being the look-ahead point."""
    g = g + h["weight_decay"] * p
    before = state.get("velocity", 0.0)
    state["velocity"] = h["momentum"] * before - g
    return p + h["lr"] * (state["velocity"] + h["momentum"] * (state["velocity"] - before))


def adagrad(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Duchi, Hazan & Singer 2011 (JMLR 12), the diagonal form; lr_decay and the sum's first value as torch has them."""
    g = g + h["weight_decay"] * p
    state["t"] = state.get("t", 0) + 1
    state["sum"] = state.get("sum", h.get("initial_accumulator_value", 0.0)) + g**2
    lr = h["lr"] / (1 + (state["t"] - 1) * h.get("lr_decay", 0.0))
    return p - lr * g / (np.sqrt(state["sum"]) + h["eps"])


def adadelta(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Zeiler 2012 (arXiv 1212.5701), Algorithm 1, the update multiplied by lr as in torch."""
    g = g + h["weight_decay"] * p
    state["g2"] = h["rho"] * state.get("g2", 0.0) + (1 - h["rho"]) * g**2
    update = np.sqrt((state.get("d2", 0.0) + h["eps"]) / (state["g2"] + h["eps"])) * g
    state["d2"] = h["rho"] * state.get("d2", 0.0) + (1 - h["rho"]) * update**2
    return p - h["lr"] * update


def rmsprop(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Tieleman & Hinton 2012, with eps outside the root as in torch."""
    g = g + h["weight_decay"] * p
    state["v"] = h["alpha"] * state.get("v", 0.0) + (1 - h["alpha"]) * g**2
    return p - h["lr"] * g / (np.sqrt(state["v"]) + h["eps"])


def lion(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Chen et al. 2023 (arXiv 2302.06675), Algorithm 2."""
    beta1, beta2 = h["betas"]
    m = state.get("m", np.zeros_like(p))
    state["m"] = beta2 * m + (1 - beta2) * g
    return p - h["lr"] * (np.sign(beta1 * m + (1 - beta1) * g) + h["weight_decay"] * p)


RULES: dict[str, Rule] = {
    "adam": adam,
    "adamw": adamw,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "lion": lion,
}


def follow(problem: Problem, rule: Rule, sign: float = 1.0) -> list[Values]:
    """The values after each step. ``sign=-1`` ascends instead of descending."""
    values = [value.copy() for value in problem.values]
    states: list[dict[str, Any]] = [{} for _ in values]
    trajectory = []
    for step, (gradients, factor) in enumerate(zip(problem.gradients, problem.lr_factors, strict=True)):
        later = problem.later if step >= problem.middle else {}
        for index, (gradient, group) in enumerate(zip(gradients, problem.group_of, strict=True)):
            if gradient is not None:
                hyper = {**problem.hypers[group], **later}
                hyper["lr"] = hyper["lr"] * factor
                values[index] = rule(values[index], sign * gradient, states[index], hyper)
        trajectory.append([value.copy() for value in values])
    return trajectory
