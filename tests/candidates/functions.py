"""Answers to the exercises that ask for a function, right and wrong, with the code that the wrong ones must earn."""

from __future__ import annotations

import math

import torch
from torch import nn


def _moment(correct, update=lambda m, g, b: b * m + (1 - b) * g):
    def bias_corrected_moment(grads, beta):
        m, rows = torch.zeros_like(grads[0]), []
        for t, g in enumerate(grads, 1):
            m = update(m, g, beta)
            rows.append(correct(m, beta, t))
        return torch.stack(rows)

    return bias_corrected_moment


def _moment_by_weights(grads, beta):
    n = len(grads)
    weights = torch.tensor(
        [[beta ** (t - i) if i <= t else 0.0 for i in range(n)] for t in range(n)], dtype=grads.dtype
    )
    return weights @ grads / weights.sum(1, keepdim=True)


def _moment_kept(grads, beta):
    m, rows = 0, []
    for t, g in enumerate(grads, 1):
        m = (beta * m + (1 - beta) * g) / (1 - beta**t)
        rows.append(m)
    return torch.stack(rows)


def _moment_in_place(grads, beta):
    right = _moment(lambda m, b, t: m / (1 - b**t))(grads, beta)
    grads.mul_(0)
    return right


_MOMENT = {
    "loop": (_moment(lambda m, b, t: m / (1 - b**t)), ""),
    "matrix of weights": (_moment_by_weights, ""),
    "lerp": (_moment(lambda m, b, t: m / (1 - b**t), lambda m, g, b: m.lerp(g, 1 - b)), ""),
    "not corrected": (_moment(lambda m, b, t: m), "not-corrected"),
    "power outside": (_moment(lambda m, b, t: m / (1 - b) ** t), "power-outside"),
    "count from 0": (_moment(lambda m, b, t: m / (1 - torch.tensor(b, dtype=m.dtype) ** (t - 1))), "count-behind"),
    "count from 0, guarded": (_moment(lambda m, b, t: m / (1 - b ** (t - 1)) if t > 1 else m), "count-behind-guarded"),
    "count from 2": (_moment(lambda m, b, t: m / (1 - b ** (t + 1))), "count-ahead"),
    "multiplied": (_moment(lambda m, b, t: m * (1 - b**t)), "multiplied"),
    "weights swapped": (
        _moment(lambda m, b, t: m / (1 - b**t), lambda m, g, b: (1 - b) * m + b * g),
        "weights-swapped",
    ),
    "gain missing": (_moment(lambda m, b, t: m / (1 - b**t), lambda m, g, b: b * m + g), "gain-missing"),
    "divided by 1 - beta": (_moment(lambda m, b, t: m / (1 - b)), "gain-only"),
    "product": (_moment(lambda m, b, t: m / (1 - b * t + torch.zeros(()))), "product"),
    "correction kept": (_moment_kept, "correction-kept"),
    "plain mean": (lambda grads, beta: grads.cumsum(0) / torch.arange(1, len(grads) + 1)[:, None], "plain-mean"),
    "gradient": (lambda grads, beta: grads.clone(), "gradient-itself"),
    "only the last row": (lambda grads, beta: grads[-1], "wrong-shape"),
    "changes its input": (_moment_in_place, "input-written"),
    "returns None": (lambda grads, beta: None, "wrong-result"),
    "not written": (lambda grads, beta: (_ for _ in ()).throw(NotImplementedError), "blank"),
}


def _step(change):
    def efficient_step(p, m, v, t, lr, betas, eps):
        return change(p, m, v, lr, eps, 1 - betas[0] ** t, 1 - betas[1] ** t)

    return efficient_step


_STEP = {
    "efficient": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * math.sqrt(c2) / c1 * m / (v.sqrt() + eps * math.sqrt(c2))),
        "",
    ),
    "textbook": (_step(lambda p, m, v, lr, eps, c1, c2: p - lr * (m / c1) / ((v / c2).sqrt() + eps)), ""),
    "torch's": (_step(lambda p, m, v, lr, eps, c1, c2: p.addcdiv(m, v.sqrt() / c2**0.5 + eps, value=-lr / c1)), ""),
    "eps not scaled": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2**0.5 / c1 * m / (v.sqrt() + eps)),
        "eps-not-scaled",
    ),
    "eps divided": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2**0.5 / c1 * m / (v.sqrt() + eps / c2**0.5)),
        "eps-divided",
    ),
    "upside down": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c1 / c2**0.5 * m / (v.sqrt() + eps * c2**0.5)),
        "upside-down",
    ),
    "upside down, plain": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c1 / c2**0.5 * m / (v.sqrt() + eps)),
        "upside-down-plain",
    ),
    "root missing": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2 / c1 * m / (v.sqrt() + eps * c2**0.5)),
        "root-missing",
    ),
    "root missing, plain": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2 / c1 * m / (v.sqrt() + eps)),
        "root-missing-plain",
    ),
    "eps times c2": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2**0.5 / c1 * m / (v.sqrt() + eps * c2)),
        "eps-scaled-without-root",
    ),
    "not corrected": (_step(lambda p, m, v, lr, eps, c1, c2: p - lr * m / (v.sqrt() + eps)), "not-corrected"),
    "corrected twice": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * c2**0.5 / c1 * (m / c1) / ((v / c2).sqrt() + eps)),
        "corrected-twice",
    ),
    "eps in root": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - lr * (m / c1) / (v / c2 + eps).sqrt()),
        "eps-inside-root",
    ),
    "uphill": (_step(lambda p, m, v, lr, eps, c1, c2: p + lr * (m / c1) / ((v / c2).sqrt() + eps)), "ascends"),
    "step alone": (_step(lambda p, m, v, lr, eps, c1, c2: lr * (m / c1) / ((v / c2).sqrt() + eps)), "step-only"),
    "no lr": (_step(lambda p, m, v, lr, eps, c1, c2: p - (m / c1) / ((v / c2).sqrt() + eps)), "lr-missing"),
    "in place": (
        _step(lambda p, m, v, lr, eps, c1, c2: p.addcdiv_(m, v.sqrt() / c2**0.5 + eps, value=-lr / c1)),
        "input-written",
    ),
    "half the step": (
        _step(lambda p, m, v, lr, eps, c1, c2: p - 0.5 * lr * (m / c1) / ((v / c2).sqrt() + eps)),
        "wrong-numbers",
    ),
    "a class": (type("Step", (), {}), "wrong-type"),
}


def _by(test, unique=True):
    def decay_groups(model, weight_decay):
        named = list(model.named_parameters(remove_duplicate=unique))
        yes = [p for name, p in named if p.requires_grad and test(name, p)]
        no = [p for name, p in named if p.requires_grad and not test(name, p)]
        return [{"params": yes, "weight_decay": weight_decay}, {"params": no, "weight_decay": 0.0}]

    return decay_groups


def _linear_only(model, weight_decay):
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return [
        {"params": [m.weight for m in linear if m.weight.requires_grad], "weight_decay": weight_decay},
        {"params": [m.bias for m in linear if m.bias.requires_grad], "weight_decay": 0.0},
    ]


def _frozen_too(model, weight_decay):
    return [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]


def _generators(model, weight_decay):
    return [
        {"params": (p for p in model.parameters() if p.requires_grad and p.dim() < 2), "weight_decay": 0},
        {"params": (p for p in model.parameters() if p.requires_grad and p.dim() > 1), "weight_decay": weight_decay},
    ]


def _unset(model, weight_decay):
    first, second = _by(lambda name, p: p.dim() >= 2)(model, weight_decay)
    del second["weight_decay"]
    return [first, second]


def _names(model, weight_decay):
    return [{"params": [name for name, p in model.named_parameters()], "weight_decay": weight_decay}]


_GROUPS = {
    "by dimensions": (_by(lambda name, p: p.dim() >= 2), ""),
    "by shape": (_by(lambda name, p: len(p.shape) > 1), ""),
    "generators, other order": (_generators, ""),
    "by the name bias": (_by(lambda name, p: "bias" not in name), "wrong-decay"),
    "by the name weight": (_by(lambda name, p: "weight" in name), "wrong-decay"),
    "all decay": (_by(lambda name, p: True), "wrong-decay"),
    "none decays": (_by(lambda name, p: False), "wrong-decay"),
    "other way round": (_by(lambda name, p: p.dim() < 2), "wrong-decay"),
    "tied twice": (_by(lambda name, p: p.dim() >= 2, unique=False), "twice"),
    "linear layers only": (_linear_only, "lost"),
    "frozen too": (_frozen_too, "frozen"),
    "decay unset": (_unset, "decay-unset"),
    "names": (_names, "not-tensors"),
}

FUNCTIONS = {"bias_corrected_moment": _MOMENT, "efficient_step": _STEP, "decay_groups": _GROUPS}
