"""Mistakes as a learner would write them in torch, each with the code it must earn.

They share nothing with the catalogue's formulas, and so show that these say what they claim.
A rule is ``rule(p, g, s, t, h) -> (p, s)``, as in candidates.right.
"""

from __future__ import annotations

import torch

from candidates.right import LoopOverState


def _l2(p, g, h):
    return g + h["weight_decay"] * p


def _kept(s, name, p):
    return s.get(name, torch.zeros_like(p)).clone()


def nesterov_of_keras(p, g, s, t, h):
    g = _l2(p, g, h)
    v = h["momentum"] * s.get("v", 0) - h["lr"] * g
    return p + h["momentum"] * v - h["lr"] * g, {"v": v}


def nesterov_of_muon(p, g, s, t, h):
    g = _l2(p, g, h)
    b = _kept(s, "b", p).lerp_(g, 1 - h["momentum"])
    return p - h["lr"] * g.lerp(b, h["momentum"]), {"b": b}


def nesterov_with_growing_momentum(p, g, s, t, h):
    g, mu = _l2(p, g, h), (t - 1) / (t + 2)
    b = mu * s.get("b", 0) + g
    return p - h["lr"] * (g + mu * b), {"b": b}


def nesterov_with_the_old_buffer(p, g, s, t, h):
    g, old = _l2(p, g, h), _kept(s, "b", p)
    return p - h["lr"] * (g + h["momentum"] * old), {"b": h["momentum"] * old + g}


def nesterov_extrapolating(p, g, s, t, h):
    g = _l2(p, g, h)
    return p - h["lr"] * (g + h["momentum"] * (g - s.get("last", 0))), {"last": g}


def nesterov_extrapolating_beside_the_buffer(p, g, s, t, h):
    g = _l2(p, g, h)
    b = h["momentum"] * s.get("b", 0) + g
    return p - h["lr"] * (b + h["momentum"] * (g - s.get("last", 0))), {"last": g, "b": b}


def nesterov_with_one_tensor(p, g, s, t, h):
    g, b = _l2(p, g, h), _kept(s, "b", p)
    b.mul_(h["momentum"]).add_(g)
    b.mul_(h["momentum"]).add_(g)
    return p - h["lr"] * b, {"b": b}


def nesterov_adding_the_old_look_ahead(p, g, s, t, h):
    g, old = _l2(p, g, h), _kept(s, "b", p)
    new = h["momentum"] * old + g
    return p - h["lr"] * (h["momentum"] * old + (1 + h["momentum"]) * new), {"b": new}


def adagrad_of_keras(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0.1) + g * g
    return p - h["lr"] * g / (v + h["eps"]).sqrt(), {"v": v}


def adagrad_averaging_duals(p, g, s, t, h):
    g, start = _l2(p, g, h), s.get("start", p.clone())
    v, z = _kept(s, "v", p) + g * g, _kept(s, "z", p) + g
    return start - h["lr"] * z / (v.sqrt() + h["eps"]), {"v": v, "z": z, "start": start}


def adagrad_of_the_variance(p, g, s, t, h):
    seen = [*s.get("seen", []), _l2(p, g, h)]
    v = torch.stack(seen).var(0, correction=0) * t
    return p - h["lr"] * seen[-1] / (v.sqrt() + h["eps"]), {"seen": seen}


def adagrad_of_the_sum(p, g, s, t, h):
    g = _l2(p, g, h)
    z = _kept(s, "z", p) + g
    return p - h["lr"] * g / ((z**2).sqrt() + h["eps"]), {"z": z}


def adagrad_dividing_by_t(p, g, s, t, h):
    g = _l2(p, g, h)
    v = _kept(s, "v", p) + g * g
    return p - h["lr"] * g / ((v / t).sqrt() + h["eps"]), {"v": v}


def adagrad_by_rows(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0) + (g.square().mean(-1, keepdim=True) if g.dim() else g.square())
    return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v}


def adagrad_by_norms(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0) + g.norm() ** 2
    return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v}


def adagrad_rooting_in_place(p, g, s, t, h):
    g, v = _l2(p, g, h), _kept(s, "v", p)
    v.addcmul_(g, g)
    return p - h["lr"] * g / v.sqrt_().add_(h["eps"]), {"v": v}


def adagrad_using_before_adding(p, g, s, t, h):
    g, v = _l2(p, g, h), _kept(s, "v", p)
    return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v + g * g}


def _adadelta(update, average=lambda d, g, last, h: d * d):
    """An Adadelta with its update, or what goes into the average of updates, changed."""

    def rule(p, g, s, t, h):
        g, u, last = _l2(p, g, h), _kept(s, "u", p), _kept(s, "last", p)
        v = _kept(s, "v", p).mul_(h["rho"]).addcmul_(g, g, value=1 - h["rho"])
        d = update(u, v, g, h["eps"])
        u = h["rho"] * u + (1 - h["rho"]) * average(d, g, last, h)
        return p - h["lr"] * d, {"u": u, "v": v, "last": d}

    return rule


def _zeiler(u, v, g, eps):
    return (u + eps).sqrt() / (v + eps).sqrt() * g


def adadelta_using_the_new_average(p, g, s, t, h):
    g, u, eps = _l2(p, g, h), _kept(s, "u", p), h["eps"]
    v = h["rho"] * s.get("v", 0) + (1 - h["rho"]) * g * g
    u = h["rho"] * u + (1 - h["rho"]) * _zeiler(u, v, g, eps) ** 2
    return p - h["lr"] * _zeiler(u, v, g, eps), {"u": u, "v": v}


def adadelta_of_one_tensor(p, g, s, t, h):
    g, both = _l2(p, g, h), _kept(s, "both", p)
    both.mul_(h["rho"]).addcmul_(g, g, value=1 - h["rho"])
    d = _zeiler(both, both, g, h["eps"])
    both.mul_(h["rho"]).addcmul_(d, d, value=1 - h["rho"])
    return p - h["lr"] * d, {"both": both}


WRITTEN = {
    "nesterov": {
        nesterov_of_keras: "lr-inside-buffer",
        nesterov_of_muon: "averages-both",
        nesterov_with_growing_momentum: "momentum-grows",
        nesterov_with_the_old_buffer: "heavy-ball",
        nesterov_extrapolating: "extrapolates-gradient",
        nesterov_extrapolating_beside_the_buffer: "extrapolates-beside-buffer",
        nesterov_with_one_tensor: "buffer-of-step",
        nesterov_adding_the_old_look_ahead: "look-ahead-added-back",
    },
    "adagrad": {
        adagrad_of_keras: "as-in-keras",
        adagrad_averaging_duals: "dual-averaging",
        adagrad_of_the_variance: "v-is-variance",
        adagrad_of_the_sum: "v-square-of-sum",
        adagrad_dividing_by_t: "v-is-mean",
        adagrad_by_rows: "row-wise",
        adagrad_by_norms: "one-norm",
        adagrad_rooting_in_place: "v-keeps-denominator",
        adagrad_using_before_adding: "v-lags",
    },
    "adadelta": {
        adadelta_using_the_new_average: "u-leads",
        adadelta_of_one_tensor: "plain-descent",
        _adadelta(_zeiler, lambda d, g, last, h: last * last): "u-lags",
        _adadelta(_zeiler, lambda d, g, last, h: (h["lr"] * d) ** 2): "u-of-scaled-update",
        _adadelta(_zeiler, lambda d, g, last, h: g * g): "u-of-gradient",
        _adadelta(_zeiler, lambda d, g, last, h: g * d): "u-of-product",
        _adadelta(lambda u, v, g, eps: u.add_(eps).sqrt_() / (v + eps).sqrt() * g): "u-keeps-root",
        _adadelta(lambda u, v, g, eps: u.add_(eps).sqrt_().div_((v + eps).sqrt()).mul_(g)): "u-is-update",
        _adadelta(lambda u, v, g, eps: u.add_(eps).sqrt() / (v + eps).sqrt() * g): "u-holds-eps",
        _adadelta(lambda u, v, g, eps: (u.sqrt() + eps) / (v.sqrt() + eps) * g): "eps-outside-roots",
        _adadelta(lambda u, v, g, eps: (u + eps) / (v + eps) * g): "roots-missing",
        _adadelta(lambda u, v, g, eps: u.sqrt() / (v + eps).sqrt() * g): "does-not-move",
    },
}


def written(key: str) -> dict[str, tuple[type, str]]:
    """Name -> (class, finding code) of the mistakes written for one optimizer."""
    made = {}
    for rule, code in WRITTEN.get(key, {}).items():
        name = f"written: {code}"
        made[name] = (type("Written", (LoopOverState,), {"KEY": key, "RULE": staticmethod(rule)}), code)
    return made
