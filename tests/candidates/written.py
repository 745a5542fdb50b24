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


def nesterov_starting_twice(p, g, s, t, h):
    g = _l2(p, g, h)
    b = s.get("b", g.clone()).mul(h["momentum"]).add(g)
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


def nesterov_starting_dampened(p, g, s, t, h):
    g = _l2(p, g, h)
    b = h["momentum"] * s["b"] + g if "b" in s else (1 - h["momentum"]) * g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


def nesterov_forgetting_to_store(p, g, s, t, h):
    g = _l2(p, g, h)
    first = s.get("b", g)
    b = h["momentum"] * s["b"] + g if "b" in s else g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": first}


def nesterov_with_lr_twice(p, g, s, t, h):
    g = _l2(p, g, h)
    b = h["momentum"] * s.get("b", 0) + h["lr"] * g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


def nesterov_without_brackets(p, g, s, t, h):
    g = _l2(p, g, h)
    b = h["momentum"] * s.get("b", 0) + g
    return p - h["lr"] * g - h["momentum"] * b, {"b": b}


def nesterov_corrected(p, g, s, t, h):
    g, mu = _l2(p, g, h), h["momentum"]
    b = torch.lerp(_kept(s, "b", p), g, 1 - mu)
    return p - h["lr"] * (g + mu * b / (1 - mu**t)), {"b": b}


def nesterov_waiting(p, g, s, t, h):
    g = _l2(p, g, h)
    if "b" not in s:
        return p.clone(), {"b": g}
    b = h["momentum"] * s["b"] + g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


def nesterov_clipping(p, g, s, t, h):
    g = _l2(p, g, h)
    g = g / max(1.0, float(g.norm()))
    b = h["momentum"] * s.get("b", 0) + g
    return p - h["lr"] * (g + h["momentum"] * b), {"b": b}


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


def adagrad_forgetting(factor):
    def rule(p, g, s, t, h):
        g = _l2(p, g, h)
        v = _kept(s, "v", p).mul_(factor).addcmul_(g, g)
        return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v}

    return rule


def adagrad_without_brackets(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0) + g * g
    return p - (h["lr"] * g / v.sqrt() + h["eps"]), {"v": v}


def adagrad_starting_plain(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0) + g * g
    return p - h["lr"] * (g / (v.sqrt() + h["eps"]) if "v" in s else g), {"v": v}


def adagrad_waiting(p, g, s, t, h):
    g = _l2(p, g, h)
    if "v" not in s:
        return p.clone(), {"v": g * g}
    v = s["v"] + g * g
    return p - h["lr"] * g / (v.sqrt() + h["eps"]), {"v": v}


def adagrad_with_momentum(p, g, s, t, h):
    g = _l2(p, g, h)
    v = s.get("v", 0) + g * g
    m = 0.9 * s.get("m", 0) + g / (v.sqrt() + h["eps"])
    return p - h["lr"] * m, {"v": v, "m": m}


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


def adadelta_corrected(p, g, s, t, h):
    g, rho = _l2(p, g, h), h["rho"]
    v, u = rho * _kept(s, "v", p) + (1 - rho) * g * g, _kept(s, "u", p)
    d = _zeiler(u / (1 - rho**t), v / (1 - rho**t), g, h["eps"])
    return p - h["lr"] * d, {"v": v, "u": rho * u + (1 - rho) * d * d}


def adadelta_keeping_the_root(p, g, s, t, h):
    g, rho = _l2(p, g, h), h["rho"]
    v, u = rho * _kept(s, "v", p) + (1 - rho) * g * g, _kept(s, "u", p)
    d = _zeiler(u, v, g, h["eps"])
    return p - h["lr"] * d, {"v": v, "u": (rho * u + (1 - rho) * d * d).sqrt()}


def adadelta_starting_at_eps(p, g, s, t, h):
    return _adadelta(_zeiler)(p, g, {"u": torch.full_like(p, h["eps"]), **s}, t, h)


def adadelta_feeding_gradients_first(p, g, s, t, h):
    g, rho = _l2(p, g, h), h["rho"]
    v, u = (rho * _kept(s, name, p) + (1 - rho) * g * g for name in "vu")
    return p - h["lr"] * _zeiler(u, v, g, h["eps"]), {"v": v, "u": u}


def adadelta_passing_over_the_first(p, g, s, t, h):
    if "v" not in s:
        return p.clone(), {"v": torch.zeros_like(p), "u": torch.zeros_like(p)}
    return _adadelta(_zeiler)(p, g, s, t, h)


def adadelta_of_one_tensor(p, g, s, t, h):
    g, both = _l2(p, g, h), _kept(s, "both", p)
    both.mul_(h["rho"]).addcmul_(g, g, value=1 - h["rho"])
    d = _zeiler(both, both, g, h["eps"])
    both.mul_(h["rho"]).addcmul_(d, d, value=1 - h["rho"])
    return p - h["lr"] * d, {"both": both}


def _lion(
    direction=lambda p, g, m, c, h: c.sign(), kept=lambda p, g, m, c, h: m.lerp(g, 1 - h["betas"][1]), decay=None
):
    def rule(p, g, s, t, h):
        m = _kept(s, "m", p)
        c = torch.lerp(m, g, 1 - h["betas"][0])
        shrunk = p * (1 - h["lr"] * h["weight_decay"]) if decay is None else decay(p, h)
        return shrunk - h["lr"] * direction(p, g, m, c, h), {"m": kept(p, g, m, c, h)}

    return rule


def lion_updating_first(p, g, s, t, h):
    m = _kept(s, "m", p)
    m.lerp_(g, 1 - h["betas"][1])
    c = m.lerp(g, 1 - h["betas"][0])
    return p - h["lr"] * (c.sign() + h["weight_decay"] * p), {"m": m}


def lion_in_place(p, g, s, t, h):
    m, (b1, b2) = _kept(s, "m", p), h["betas"]
    step = m.mul_(b1).add_(g, alpha=1 - b1).sign()
    return p - h["lr"] * (step + h["weight_decay"] * p), {"m": m.mul_(b2).add_(g, alpha=1 - b2)}


def lion_in_place_to_the_sign(p, g, s, t, h):
    m, (b1, b2) = _kept(s, "m", p), h["betas"]
    step = m.mul_(b1).add_(g, alpha=1 - b1).sign_()
    p = p - h["lr"] * (step + h["weight_decay"] * p)
    return p, {"m": m.mul_(b2).add_(g, alpha=1 - b2)}


def lion_with_one_average(p, g, s, t, h):
    m = _kept(s, "m", p).lerp_(g, 1 - h["betas"][0])
    return p - h["lr"] * (m.sign() + h["weight_decay"] * p), {"m": m}


def lion_with_l2(p, g, s, t, h):
    g = _l2(p, g, h)
    m = _kept(s, "m", p)
    c = m.lerp(g, 1 - h["betas"][0])
    return p - h["lr"] * c.sign(), {"m": m.lerp(g, 1 - h["betas"][1])}


def lion_starting_full(p, g, s, t, h):
    m = s.get("m", g)
    c = m.lerp(g, 1 - h["betas"][0])
    return p - h["lr"] * (c.sign() + h["weight_decay"] * p), {"m": m.lerp(g, 1 - h["betas"][1])}


def lion_corrected_as_adam(p, g, s, t, h):
    (b1, b2), m = h["betas"], _kept(s, "m", p)
    m_hat = m / (1 - b2 ** (t - 1)) if t > 1 else m
    c = b1 * m_hat + (1 - b1) * g
    return p - h["lr"] * (c.sign() + h["weight_decay"] * p), {"m": b2 * m + (1 - b2) * g}


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
        nesterov_starting_twice: "first-buffer-twice",
        nesterov_starting_dampened: "first-buffer-dampened",
        nesterov_forgetting_to_store: "buffer-stays-at-first",
        nesterov_with_lr_twice: "lr-inside-buffer-and-step",
        nesterov_without_brackets: "lr-on-gradient-only",
        nesterov_corrected: "averages-corrected",
        nesterov_waiting: "first-step-omitted",
        nesterov_clipping: "clips-norm-with-decay",
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
        adagrad_forgetting(0.9): "v-leaks",
        adagrad_forgetting(0.99): "v-leaks-99",
        adagrad_forgetting(0.999): "v-leaks-999",
        adagrad_without_brackets: "eps-outside-step",
        adagrad_starting_plain: "first-step-plain",
        adagrad_waiting: "first-step-omitted",
        adagrad_with_momentum: "momentum-added",
    },
    "adadelta": {
        adadelta_using_the_new_average: "u-leads",
        adadelta_of_one_tensor: "plain-descent",
        adadelta_feeding_gradients_first: "plain-descent",
        adadelta_corrected: "both-corrected",
        adadelta_keeping_the_root: "u-keeps-its-root",
        adadelta_starting_at_eps: "u-starts-at-eps",
        adadelta_passing_over_the_first: "first-gradient-dropped",
        _adadelta(lambda u, v, g, eps: (u.clamp(min=eps) / v.clamp(min=eps)).sqrt() * g): "eps-as-floor",
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
    "lion": {
        lion_updating_first: "m-before-sign",
        lion_in_place: "m-from-mix",
        lion_in_place_to_the_sign: "m-from-sign",
        lion_with_one_average: "m-uses-beta1",
        lion_with_l2: "decay-in-gradient",
        lion_starting_full: "m-starts-at-gradient",
        lion_corrected_as_adam: "m-corrected",
        _lion(lambda p, g, m, c, h: g.sign()): "sign-of-gradient",
        _lion(lambda p, g, m, c, h: m.sign()): "sign-of-old-m",
        _lion(lambda p, g, m, c, h: m.lerp(g, 1 - h["betas"][1]).sign()): "sign-of-new-m",
        _lion(lambda p, g, m, c, h: c): "sign-missing",
        _lion(lambda p, g, m, c, h: c / (c.abs() + 1e-8)): "rule",
        _lion(lambda p, g, m, c, h: c / c.norm().clamp(min=1e-30)): "normalised",
        _lion(lambda p, g, m, c, h: torch.where(c < 0, -1.0, 1.0)): "zero-goes-up",
        _lion(lambda p, g, m, c, h: 2.0 * (c > 0) - 1): "zero-goes-down",
        _lion(lambda p, g, m, c, h: m.lerp(g, h["betas"][0]).sign()): "mix-weights-swapped",
        _lion(lambda p, g, m, c, h: (c + h["weight_decay"] * p).sign(), decay=lambda p, h: p): "decay-inside-sign",
        _lion(lambda p, g, m, c, h: c.sign() * (c * g > 0)): "masked",
        _lion(lambda p, g, m, c, h: (1 - h["betas"][0]) * c.sign()): "step-times-gain",
        _lion(kept=lambda p, g, m, c, h: m.lerp(c.sign(), 1 - h["betas"][1])): "m-of-step",
        _lion(kept=lambda p, g, m, c, h: g.clone()): "m-is-last-gradient",
        _lion(decay=lambda p, h: p * (1 - h["weight_decay"])): "decay-without-lr",
    },
}


def written(key: str) -> dict[str, tuple[type, str]]:
    """Name -> (class, finding code) of the mistakes written for one optimizer."""
    made = {}
    for number, (rule, code) in enumerate(WRITTEN.get(key, {}).items(), 1):
        name = f"written {number}: {code}"
        made[name] = (type("Written", (LoopOverState,), {"KEY": key, "RULE": staticmethod(rule)}), code)
    return made
