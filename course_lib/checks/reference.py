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


def rmsprop(p: np.ndarray, g: np.ndarray, state: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
    """Tieleman & Hinton 2012, with eps outside the root as in torch."""
    g = g + h["weight_decay"] * p
    state["v"] = h["alpha"] * state.get("v", 0.0) + (1 - h["alpha"]) * g**2
    return p - h["lr"] * g / (np.sqrt(state["v"]) + h["eps"])


RULES: dict[str, Rule] = {"adam": adam, "adamw": adamw, "momentum": momentum, "rmsprop": rmsprop}


def follow(problem: Problem, rule: Rule, sign: float = 1.0) -> list[Values]:
    """The values after each step. ``sign=-1`` ascends instead of descending."""
    values = [value.copy() for value in problem.values]
    states: list[dict[str, Any]] = [{} for _ in values]
    trajectory = []
    for gradients, factor in zip(problem.gradients, problem.lr_factors, strict=True):
        for index, (gradient, group) in enumerate(zip(gradients, problem.group_of, strict=True)):
            if gradient is not None:
                hyper = dict(problem.hypers[group])
                hyper["lr"] = hyper["lr"] * factor
                values[index] = rule(values[index], sign * gradient, states[index], hyper)
        trajectory.append([value.copy() for value in values])
    return trajectory
