"""Correct optimizers in many styles: a fair check accepts every one.

A rule is a pure function ``rule(p, g, s, t, h) -> (p, s)`` in torch; a style is a class built around a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib import optim
from course_lib.checks.specs import SPECS

Rule = Callable[..., tuple[Tensor, dict[str, Tensor]]]

# ------------------------------------------------------------------------------- rules, in several forms


def adam_textbook(p, g, s, t, h):
    g = g + h["weight_decay"] * p
    return _adam(p, g, s, t, h)


def adamw_textbook(p, g, s, t, h):
    return _adam(p * (1 - h["lr"] * h["weight_decay"]), g, s, t, h)


def _adam(p, g, s, t, h):
    b1, b2 = h["betas"]
    m = b1 * s.get("m", 0) + (1 - b1) * g
    v = b2 * s.get("v", 0) + (1 - b2) * g**2
    return p - h["lr"] * (m / (1 - b1**t)) / (torch.sqrt(v / (1 - b2**t)) + h["eps"]), {"m": m, "v": v}


def adamw_as_in_the_paper(p, g, s, t, h):
    b1, b2 = h["betas"]
    m = b1 * s.get("m", 0) + (1 - b1) * g
    v = b2 * s.get("v", 0) + (1 - b2) * g * g
    step = (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + h["eps"])
    return p - h["lr"] * (step + h["weight_decay"] * p), {"m": m, "v": v}


def _efficient(p, g, s, t, h):
    b1, b2 = h["betas"]
    m = torch.lerp(s.get("m", torch.zeros_like(p)), g, 1 - b1)
    v = torch.lerp(s.get("v", torch.zeros_like(p)), g.square(), 1 - b2)
    root = math.sqrt(1 - b2**t)
    return torch.addcdiv(p, m, v.sqrt() + h["eps"] * root, value=-h["lr"] * root / (1 - b1**t)), {"m": m, "v": v}


def adam_efficient(p, g, s, t, h):
    return _efficient(p, g.add(p, alpha=h["weight_decay"]), s, t, h)


def adamw_efficient(p, g, s, t, h):
    return _efficient(p - h["lr"] * h["weight_decay"] * p, g, s, t, h)


def _running_products(p, g, s, t, h):
    b1, b2 = h["betas"]
    c1, c2 = s.get("c1", 1.0) * b1, s.get("c2", 1.0) * b2
    m, v = s.get("m", 0) + (1 - b1) * (g - s.get("m", 0)), s.get("v", 0) + (1 - b2) * (g * g - s.get("v", 0))
    return p - h["lr"] * m / (1 - c1) / ((v / (1 - c2)).sqrt() + h["eps"]), {"m": m, "v": v, "c1": c1, "c2": c2}


def adam_running_products(p, g, s, t, h):
    return _running_products(p, g + h["weight_decay"] * p, s, t, h)


def adamw_running_products(p, g, s, t, h):
    return _running_products(p * (1 - h["lr"] * h["weight_decay"]), g, s, t, h)


def momentum_textbook(p, g, s, t, h):
    g = g + h["weight_decay"] * p
    b = g if t == 1 else h["momentum"] * s["b"] + (1 - h["dampening"]) * g
    return p - h["lr"] * b, {"b": b}


def momentum_negated(p, g, s, t, h):
    """A velocity that points downhill."""
    g = torch.add(g, p, alpha=h["weight_decay"])
    velocity = -g if t == 1 else h["momentum"] * s["velocity"] - (1 - h["dampening"]) * g
    return torch.add(p, velocity, alpha=h["lr"]), {"velocity": velocity}


def nesterov_textbook(p, g, s, t, h):
    g = g + h["weight_decay"] * p
    b = g if t == 1 else h["momentum"] * s["b"] + g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


def nesterov_look_ahead(p, g, s, t, h):
    """To the iterate of Sutskever's rule, and from there to the next look-ahead point."""
    g = torch.add(g, p, alpha=h["weight_decay"])
    velocity = h["momentum"] * s.get("velocity", torch.zeros_like(p)) - g
    iterate = p - h["lr"] * g
    return iterate + h["lr"] * h["momentum"] * velocity, {"velocity": velocity}


def nesterov_taken_back(p, g, s, t, h):
    """The whole new velocity and its look-ahead, less the look-ahead that was taken before."""
    g = g.add(p, alpha=h["weight_decay"])
    old = s.get("v", torch.zeros_like(p))
    new = old.mul(h["momentum"]).sub(g)
    return p + h["lr"] * ((1 + h["momentum"]) * new - h["momentum"] * old), {"v": new}


def nesterov_differences(p, g, s, t, h):
    """What is kept is the step itself: momentum on it, and on the difference of two gradients, the first being zero."""
    g = g + h["weight_decay"] * p
    d = h["momentum"] * s.get("d", 0) + g + h["momentum"] * (g - s.get("g", 0))
    return p - h["lr"] * d, {"d": d, "g": g.clone()}


def nesterov_averaged(p, g, s, t, h):
    """The buffer as an average; its gain is put back in the step."""
    g = g + h["weight_decay"] * p
    mu = h["momentum"]
    mean = torch.lerp(s.get("mean", torch.zeros_like(p)), g, 1 - mu)
    return p - h["lr"] * torch.lerp(g, mean, mu) / (1 - mu), {"mean": mean}


def nesterov_buffer_multiplied(p, g, s, t, h):
    """What is kept is momentum times the buffer; torch's numbers as long as momentum stays what it is."""
    g = g + h["weight_decay"] * p
    c = h["momentum"] * (s.get("c", 0) + g)
    return p - h["lr"] * (g + c), {"c": c}


def adagrad_textbook(p, g, s, t, h):
    g = g + h["weight_decay"] * p
    total = s.get("total", 0) + g**2
    return p - h["lr"] * g / (total.sqrt() + h["eps"]), {"total": total}


def adagrad_addcmul(p, g, s, t, h):
    g = g.add(p, alpha=h["weight_decay"])
    total = torch.addcmul(s.get("total", torch.zeros_like(p)), g, g)
    return torch.addcdiv(p, g, total.sqrt().add_(h["eps"]), value=-h["lr"]), {"total": total}


def adagrad_root_kept(p, g, s, t, h):
    """What is kept is the root: the length of the vector of all gradients, which grows by one entry."""
    g = g + h["weight_decay"] * p
    length = torch.hypot(s.get("length", torch.zeros_like(p)), g)
    return p - h["lr"] * g / (length + h["eps"]), {"length": length}


def adagrad_mean_kept(p, g, s, t, h):
    """A mean of squares under a learning rate that falls with the root of t."""
    g = g + h["weight_decay"] * p
    mean = s.get("mean", 0) + (g * g - s.get("mean", 0)) / t
    root = math.sqrt(t)
    return p - h["lr"] / root * g / (mean.sqrt() + h["eps"] / root), {"mean": mean}


def adadelta_textbook(p, g, s, t, h):
    rho, eps = h["rho"], h["eps"]
    g = g + h["weight_decay"] * p
    v = rho * s.get("v", 0) + (1 - rho) * g**2
    u = s.get("u", torch.zeros_like(p))
    update = (u + eps).sqrt() / (v + eps).sqrt() * g
    return p - h["lr"] * update, {"v": v, "u": rho * u + (1 - rho) * update**2}


def adadelta_one_root(p, g, s, t, h):
    """One root of the quotient, and an update that points downhill."""
    g = g.add(p, alpha=h["weight_decay"])
    v = s.get("v", torch.zeros_like(p)).lerp(g.square(), 1 - h["rho"])
    u = s.get("u", torch.zeros_like(p))
    update = -g * torch.sqrt((u + h["eps"]) / (v + h["eps"]))
    return p.add(update, alpha=h["lr"]), {"v": v, "u": u.lerp(update.square(), 1 - h["rho"])}


def adadelta_eps_kept(p, g, s, t, h):
    """Both averages start at eps and take it in with every square, so that it stands under the roots already."""
    rho, eps = h["rho"], h["eps"]
    g = g + h["weight_decay"] * p
    v = rho * s.get("v", eps) + (1 - rho) * (g * g + eps)
    u = s.get("u", torch.full_like(p, eps))
    update = torch.rsqrt(v) * u.sqrt() * g
    return p - h["lr"] * update, {"v": v, "u": rho * u + (1 - rho) * (update * update + eps)}


def adadelta_sums_kept(p, g, s, t, h):
    """Both averages without their gain, which stands under the roots; torch's numbers as long as rho stays what it is."""
    rho, eps = h["rho"], h["eps"] / (1 - h["rho"])
    g = g + h["weight_decay"] * p
    v = rho * s.get("v", 0) + g * g
    u = s.get("u", torch.zeros_like(p))
    update = ((u + eps) / (v + eps)).sqrt() * g
    return p - h["lr"] * update, {"v": v, "u": rho * u + update * update}


def rmsprop_textbook(p, g, s, t, h):
    g = g + h["weight_decay"] * p
    v = h["alpha"] * s.get("v", 0) + (1 - h["alpha"]) * g**2
    return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v}


def rmsprop_lerp(p, g, s, t, h):
    g = g.add(p, alpha=h["weight_decay"])
    v = s.get("v", torch.zeros_like(p)).lerp(g * g, 1 - h["alpha"])
    return p.addcdiv(g, v.sqrt() + h["eps"], value=-h["lr"]), {"v": v}


def lion_textbook(p, g, s, t, h):
    b1, b2 = h["betas"]
    m = s.get("m", torch.zeros_like(p))
    p = p * (1 - h["lr"] * h["weight_decay"])
    return p - h["lr"] * torch.sign(b1 * m + (1 - b1) * g), {"m": b2 * m + (1 - b2) * g}


def lion_as_in_the_paper(p, g, s, t, h):
    """Sign and decay in one update, as Algorithm 2 has them."""
    b1, b2 = h["betas"]
    m = s.get("m", torch.zeros_like(p))
    update = m.lerp(g, 1 - b1).sign().add(p, alpha=h["weight_decay"])
    return p.sub(update, alpha=h["lr"]), {"m": m.lerp(g, 1 - b2)}


def lion_sum_kept(p, g, s, t, h):
    """What is kept is the sum without its gain, which c puts back."""
    b1, b2 = h["betas"]
    total = s.get("total", 0 * p)
    c = b1 * (1 - b2) * total + (1 - b1) * g
    return p - h["lr"] * (c.sign() + h["weight_decay"] * p), {"total": b2 * total + g}


def lion_corrected(p, g, s, t, h):
    """A bias correction of c, which leaves its sign as it is."""
    b1, b2 = h["betas"]
    m = s.get("m", torch.zeros_like(p))
    c = (b1 * m + (1 - b1) * g) / (1 - b1**t)
    return (1 - h["lr"] * h["weight_decay"]) * p - h["lr"] * c.sign(), {"m": m + (1 - b2) * (g - m)}


def lion_by_comparison(p, g, s, t, h):
    """A difference of two comparisons is a sign."""
    b1, b2 = h["betas"]
    m = s.get("m", torch.zeros_like(p))
    up, down = (b1 * m < (b1 - 1) * g).to(p.dtype), (b1 * m > (b1 - 1) * g).to(p.dtype)
    return p + h["lr"] * (up - down - h["weight_decay"] * p), {"m": b2 * m - (b2 - 1) * g}


TEXTBOOK = {
    "adam": adam_textbook,
    "adamw": adamw_textbook,
    "momentum": momentum_textbook,
    "nesterov": nesterov_textbook,
    "adagrad": adagrad_textbook,
    "rmsprop": rmsprop_textbook,
    "adadelta": adadelta_textbook,
    "lion": lion_textbook,
}
OTHER_FORMS = {
    "adam": (adam_efficient, adam_running_products),
    "adamw": (adamw_as_in_the_paper, adamw_efficient, adamw_running_products),
    "momentum": (momentum_negated,),
    "nesterov": (
        nesterov_look_ahead,
        nesterov_taken_back,
        nesterov_differences,
        nesterov_averaged,
        nesterov_buffer_multiplied,
    ),
    "adagrad": (adagrad_addcmul, adagrad_root_kept, adagrad_mean_kept),
    "adadelta": (adadelta_one_root, adadelta_eps_kept, adadelta_sums_kept),
    "rmsprop": (rmsprop_lerp,),
    "lion": (lion_as_in_the_paper, lion_sum_kept, lion_corrected, lion_by_comparison),
}

# ----------------------------------------------------------------------------------------------- styles


def _signature(key: str) -> dict[str, Any]:
    return dict(SPECS[key].defaults)


class _Subclass(torch.optim.Optimizer):
    """Common constructor of the styles that build on torch.optim.Optimizer."""

    KEY: str
    RULE: Rule

    def __init__(self, params, **hyper):
        super().__init__(params, {**_signature(self.KEY), **hyper})

    def each(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    yield group, p, self.state[p]


def _evaluate(closure):
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class LoopOverState(_Subclass):
    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group, p, s in self.each():
            t = s["t"] = s.get("t", 0) + 1
            new, kept = type(self).RULE(p, p.grad, s, t, group)
            s.update(kept)
            p.copy_(new)
        return loss


class TensorStep(_Subclass):
    """The step count is a float32 tensor, as in torch."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group, p, s in self.each():
            if "step" not in s:
                s["step"] = torch.tensor(0.0)
            s["step"] += 1
            new, kept = type(self).RULE(p, p.grad, s, s["step"].item(), group)
            s.update(kept)
            p.sub_(p - new)
        return loss


class DataStyle(_Subclass):
    """The old way: no no_grad, everything through .data."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        for group, p, s in self.each():
            s["t"] = s.get("t", 0) + 1
            new, kept = type(self).RULE(p.data, p.grad.data, s, s["t"], group)
            s.update(kept)
            p.data.copy_(new)
        return loss


class EagerState(_Subclass):
    """State is made in the constructor, and in add_param_group, before any gradient."""

    def add_param_group(self, group):
        super().add_param_group(group)
        for p in self.param_groups[-1]["params"]:
            self.state[p]["t"] = 0

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group, p, s in self.each():
            s["t"] += 1
            new, kept = type(self).RULE(p, p.grad, s, s["t"], group)
            s.update(kept)
            p.add_(new - p)
        return loss


class GatheredThenApplied(_Subclass):
    """First all new values, then all writes, as multi-tensor code does it."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        work = list(self.each())
        for _, _, s in work:
            s["t"] = s.get("t", 0) + 1
        results = [type(self).RULE(p, p.grad, s, s["t"], group) for group, p, s in work]
        if work:
            torch._foreach_copy_([p for _, p, _ in work], [new for new, _ in results])
        for (_, _, s), (_, kept) in zip(work, results, strict=True):
            s.update(kept)
        return loss


class Flattened(_Subclass):
    """Parameters are updated as flat vectors and written back."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group, p, s in self.each():
            t = s["t"] = s.get("t", 0) + 1
            new, kept = type(self).RULE(p.reshape(-1), p.grad.reshape(-1), s, t, group)
            s.update(kept)
            p.copy_(new.reshape(p.shape))
        return loss


class WithMaximize(_Subclass):
    def __init__(self, params, lr=None, *, maximize=False, **hyper):
        super().__init__(params, **({} if lr is None else {"lr": lr}), maximize=maximize, **hyper)

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group, p, s in self.each():
            t = s["t"] = s.get("t", 0) + 1
            new, kept = type(self).RULE(p, -p.grad if group["maximize"] else p.grad, s, t, group)
            s.update(kept)
            p.copy_(new)
        return loss


class InScratch(optim.ScratchOptimizer):
    KEY: str
    RULE: Rule

    def __init__(self, params, *, maximize=False, **hyper):
        super().__init__(params, maximize=maximize, **{**_signature(self.KEY), **hyper})

    def update(self, param, grad, state, group):
        new, kept = type(self).RULE(param, grad, state, state["step"], group)
        state.update(kept)
        param.copy_(new)


class _Plain:
    """Common part of the styles that owe nothing to torch.optim."""

    KEY: str
    RULE: Rule

    def __init__(self, params, **hyper):
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [
            {**_signature(self.KEY), **hyper, **group, "params": list(group["params"])} for group in groups
        ]

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


class PlainDict(_Plain):
    """A plain class; state in a dict by parameter; no load_state_dict, which the guided exercise does not ask for."""

    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        self.memory = {}

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    t, kept = self.memory.get(p, (0, {}))
                    new, kept = type(self).RULE(p, p.grad, kept, t + 1, group)
                    self.memory[p] = (t + 1, kept)
                    p.copy_(new)
        return loss

    def state_dict(self):
        return {"memory": list(self.memory.values())}


class PlainLists(_Plain):
    """A plain class; state in lists by position; checkpoints written by hand; gradients zeroed, not dropped."""

    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        self.memory = [[{"t": 0} for _ in group["params"]] for group in self.param_groups]

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = torch.zeros_like(p)

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group, memory in zip(self.param_groups, self.memory, strict=True):
            for p, s in zip(group["params"], memory, strict=True):
                if p.grad is not None:
                    s["t"] += 1
                    with torch.no_grad():
                        new, kept = type(self).RULE(p, p.grad, s, s["t"], group)
                        s.update(kept)
                        p[...] = new
        return loss

    def state_dict(self):
        hypers = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
        return {"memory": self.memory, "hypers": hypers}

    def load_state_dict(self, saved):
        self.memory = saved["memory"]
        for group, hyper in zip(self.param_groups, saved["hypers"], strict=True):
            group.update(hyper)


class InNumPy(_Plain):
    """A plain class that computes in NumPy float64 and writes back."""

    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        self.memory = {}

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group in self.param_groups:
            for index, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                s = self.memory.setdefault((id(group), index), {"t": 0})
                s["t"] += 1
                values, gradient = (torch.from_numpy(np.array(x.double().numpy())) for x in (p, p.grad))
                new, kept = type(self).RULE(values, gradient, s, s["t"], group)
                s.update(kept)
                p.copy_(new)
        return loss

    def state_dict(self):
        return {"memory": list(self.memory.values())}


STYLES = (
    LoopOverState,
    TensorStep,
    DataStyle,
    EagerState,
    GatheredThenApplied,
    Flattened,
    WithMaximize,
    InScratch,
    PlainDict,
    PlainLists,
    InNumPy,
)


class TorchNesterov(torch.optim.SGD):
    """torch's Nesterov under the exercise's arguments."""

    def __init__(self, params, lr=1e-3, momentum=0.9, weight_decay=0.0, *, maximize=False):
        super().__init__(params, lr, momentum, weight_decay=weight_decay, nesterov=True, maximize=maximize)


OWN = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "momentum": optim.SGD,
    "nesterov": optim.Nesterov,
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adadelta": optim.Adadelta,
    "lion": optim.Lion,
}
PRODUCTION = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "momentum": torch.optim.SGD,
    "nesterov": TorchNesterov,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
}


def variants(key: str) -> dict[str, type]:
    """All correct variants of one optimizer by name; torch's own, where it has one, among them as the control."""
    made = {}
    for style in STYLES:
        made[style.__name__] = type(style.__name__, (style,), {"KEY": key, "RULE": staticmethod(TEXTBOOK[key])})
    for rule in OTHER_FORMS[key]:
        made[rule.__name__] = type(rule.__name__, (LoopOverState,), {"KEY": key, "RULE": staticmethod(rule)})
    torchs = {"torch's own": PRODUCTION[key]} if key in PRODUCTION else {}
    return {**made, "course_lib's own": OWN[key], **torchs}
