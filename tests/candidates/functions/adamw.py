"""Answers to the exercise of notebook 05."""

from __future__ import annotations

from torch import nn


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

FUNCTIONS = {"decay_groups": _GROUPS}
