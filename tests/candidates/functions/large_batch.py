"""Answers to the exercises of notebook 09 that ask for a function."""

from __future__ import annotations

import math

import numpy as np
import torch

# ----------------------------------------------------------------------------------------------------- noise_scale


def _noise_plain(small, big, norm_small_squared, norm_big_squared):
    a, b = np.mean(norm_small_squared), np.mean(norm_big_squared)
    noise = (a - b) * small * big / (big - small)
    signal = b - noise / big
    return signal, noise, (noise / signal if signal > 0 else math.inf)


def _noise_solved(small, big, norm_small_squared, norm_big_squared):
    """Two equations, two unknowns."""
    lengths = torch.tensor([norm_small_squared.mean(), norm_big_squared.mean()])
    signal, noise = torch.linalg.solve(torch.tensor([[1.0, 1 / small], [1.0, 1 / big]], dtype=torch.float64), lengths)
    return [signal, noise, noise / signal if signal > 1e-12 else float("inf")]


def _noise_each_step(small, big, norm_small_squared, norm_big_squared):
    """Estimates of each step, averaged before they are divided."""
    signals, noises = [], []
    for s, b in zip(norm_small_squared, norm_big_squared, strict=True):
        signals.append((big * b - small * s.mean()) / (big - small))
        noises.append((s.mean() - b) / (1 / small - 1 / big))
    signal, noise = sum(signals) / len(signals), sum(noises) / len(noises)
    return np.array([signal, noise, noise / signal if signal > 0 else np.inf])


def _noise(
    signal=lambda b, B, s, S: (B * S - b * s) / (B - b),
    noise=lambda b, B, s, S: (s - S) / (1 / b - 1 / B),
    mean=np.mean,
    mean_big=None,
    last=lambda signal, noise, s, S: noise / signal if signal > 0 else math.inf,
    order=lambda signal, noise, ratio: (signal, noise, ratio),
):
    def noise_scale(small, big, norm_small_squared, norm_big_squared):
        s, S = mean(norm_small_squared), (mean_big or mean)(norm_big_squared)
        g, n = signal(small, big, s, S), noise(small, big, s, S)
        return order(g, n, last(g, n, s, S))

    return noise_scale


def _ratio_of_each_step(average):
    def noise_scale(small, big, norm_small_squared, norm_big_squared):
        s, S = norm_small_squared.mean(axis=1), norm_big_squared
        signal, noise = (big * S - small * s) / (big - small), (s - S) / (1 / small - 1 / big)
        return signal.mean(), noise.mean(), average(noise / signal)

    return noise_scale


def _no_mean(small, big, norm_small_squared, norm_big_squared):
    s = norm_small_squared.mean(axis=1)
    signal = (big * norm_big_squared - small * s) / (big - small)
    noise = (s - norm_big_squared) / (1 / small - 1 / big)
    return signal, noise, noise / signal


def _changed_steps(change):
    def noise_scale(small, big, norm_small_squared, norm_big_squared):
        s, S = norm_small_squared.mean(axis=1), norm_big_squared
        signal, noise = change((big * S - small * s) / (big - small), (s - S) / (1 / small - 1 / big))
        if len(signal) == 0:
            return _noise_plain(small, big, norm_small_squared, norm_big_squared)
        return signal.mean(), noise.mean(), noise.mean() / signal.mean() if signal.mean() > 0 else math.inf

    return noise_scale


_NOISE = {
    "without negative steps": (_changed_steps(lambda signal, noise: (signal[signal > 0], noise[signal > 0])), "steps-dropped"),
    "without negative signals": (_changed_steps(lambda signal, noise: (signal[signal > 0], noise)), "signals-dropped"),
    "signals from zero": (_changed_steps(lambda signal, noise: (signal.clip(0), noise)), "signals-cut-at-zero"),
    "plain": (_noise_plain, ""),
    "solved": (_noise_solved, ""),
    "each step": (_noise_each_step, ""),
    "by parts": (_noise(), ""),
    "a ratio of each step": (_ratio_of_each_step(np.mean), "mean-of-ratios"),
    "the median ratio": (_ratio_of_each_step(np.median), "median-of-ratios"),
    "sizes exchanged": (
        _noise(lambda b, B, s, S: (b * S - B * s) / (b - B), lambda b, B, s, S: (s - S) / (1 / B - 1 / b)),
        "sizes-swapped",
    ),
    "weights exchanged": (_noise(lambda b, B, s, S: (b * S - B * s) / (B - b)), "weights-swapped"),
    "the big one is the signal": (_noise(lambda b, B, s, S: S), "signal-is-the-big"),
    "the small one is the signal": (_noise(lambda b, B, s, S: s), "signal-is-the-small"),
    "a plus": (_noise(lambda b, B, s, S: (B * S + b * s) / (B + b)), "signal-summed"),
    "signal negated": (_noise(lambda b, B, s, S: (b * s - B * S) / (B - b)), "signal-negated"),
    "signal not divided": (_noise(lambda b, B, s, S: B * S - b * s), "signal-not-divided"),
    "signal over big": (_noise(lambda b, B, s, S: (B * S - b * s) / B), "signal-over-big"),
    "noise negated": (_noise(noise=lambda b, B, s, S: (S - s) / (1 / b - 1 / B)), "noise-negated"),
    "noise over sizes": (_noise(noise=lambda b, B, s, S: (s - S) / (B - b)), "noise-over-sizes"),
    "noise not divided": (_noise(noise=lambda b, B, s, S: s - S), "noise-not-divided"),
    "noise of a batch": (_noise(noise=lambda b, B, s, S: (s - S) * B / (B - b)), "noise-of-one-batch"),
    "noise times small": (_noise(noise=lambda b, B, s, S: (s - S) * b), "noise-times-small"),
    "noise times sizes": (_noise(noise=lambda b, B, s, S: (s - S) * (B - b)), "noise-times-difference"),
    "squared again": (_noise(mean=lambda x: np.mean(x**2)), "squared-again"),
    "roots": (_noise(mean=lambda x: np.mean(x**0.5)), "rooted"),
    "mean lengths squared": (_noise(mean=lambda x: np.mean(x**0.5) ** 2), "square-of-mean-length"),
    "median": (_noise(mean=np.median), "median"),
    "sums": (_noise(mean=lambda x: x.mean(axis=1).sum(), mean_big=np.sum), "summed-over-steps"),
    "workers added": (_noise(mean=lambda x: x.sum(axis=1).mean(), mean_big=np.mean), "workers-summed"),
    "the first worker": (_noise(mean=lambda x: x[:, 0].mean(), mean_big=np.mean), "first-worker"),
    "the last step": (_noise(mean=lambda x: x[-1].mean()), "last-step"),
    "upside down": (_noise(last=lambda g, n, s, S: g / n), "ratio-upside-down"),
    "over the big one": (_noise(last=lambda g, n, s, S: n / S), "ratio-over-big"),
    "a root of it": (_noise(last=lambda g, n, s, S: math.sqrt(n / g)), "ratio-of-roots"),
    "lengths": (_noise(last=lambda g, n, s, S: s / S), "ratio-of-lengths"),
    "exchanged": (_noise(order=lambda g, n, r: (n, g, r)), "signal-and-noise-swapped"),
    "the ratio first": (_noise(order=lambda g, n, r: (r, g, n)), "ratio-first"),
    "negative": (_noise(last=lambda g, n, s, S: n / g if g else math.inf), "negative-signal"),
    "absolute": (_noise(last=lambda g, n, s, S: n / max(g, 1e-12)), "negative-signal"),
    "divides by zero": (_noise(last=lambda g, n, s, S: float(n) / float(g) if g >= 0 else math.inf), "raises"),
    "no mean": (_no_mean, "wrong-shape"),
    "the ratio alone": (_noise(order=lambda g, n, r: r), "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------- lamb_step


def _lamb_plain(w, m, v, g, t, lr, betas, eps, weight_decay):
    b1, b2 = betas
    m, v, w = m * b1 + g * (1 - b1), v * b2 + g * g * (1 - b2), w.copy()
    for layer in range(len(w)):
        u = m[layer] / (1 - b1**t) / (np.sqrt(v[layer] / (1 - b2**t)) + eps) + weight_decay * w[layer]
        size, length = np.linalg.norm(w[layer]), np.linalg.norm(u)
        w[layer] -= lr * (size / length if size > 0 and length > 0 else 1.0) * u
    return w, m, v


def _lamb_torch(w, m, v, g, t, lr, betas, eps, weight_decay):
    w, m, v, g = map(torch.tensor, (w, m, v, g))
    m = torch.lerp(m, g, 1 - betas[0])
    v = v.mul(betas[1]).addcmul(g, g, value=1 - betas[1])
    root = math.sqrt(1 - betas[1] ** t)
    u = m * (root / (1 - betas[0] ** t)) / (v.sqrt() + eps * root) + weight_decay * w
    ratio = w.norm(dim=1) / u.norm(dim=1)
    ratio = torch.where((ratio > 0) & ratio.isfinite(), ratio, 1.0)
    return w - lr * ratio[:, None] * u, m, v


def _lamb_library(w, m, v, g, t, lr, betas, eps, weight_decay):
    """The library's own optimizer, a parameter for each layer."""
    from course_lib.optim.lamb import LAMB

    layers = [torch.tensor(row, requires_grad=True) for row in w]
    optimizer = LAMB(layers, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    for layer, old_m, old_v, grad in zip(layers, m, v, g, strict=True):
        layer.grad = torch.zeros_like(layer)
    optimizer.step()
    for i, (layer, grad) in enumerate(zip(layers, g, strict=True)):
        layer.data.copy_(torch.tensor(w[i]))
        layer.grad = torch.tensor(grad)
        state = optimizer.state[layer]
        state["exp_avg"].copy_(torch.tensor(m[i]))
        state["exp_avg_sq"].copy_(torch.tensor(v[i]))
        state["step"] = torch.full_like(state["step"], t - 1.0) if torch.is_tensor(state["step"]) else t - 1
    optimizer.step()
    states = [optimizer.state[layer] for layer in layers]
    return (
        torch.stack([layer.detach() for layer in layers]),
        torch.stack([state["exp_avg"] for state in states]),
        torch.stack([state["exp_avg_sq"] for state in states]),
    )


def _norm(x):
    return np.linalg.norm(x, axis=1, keepdims=True)


def _guarded(size, length):
    both = (size > 0) & (length > 0)
    return np.where(both, size / np.where(both, length, 1), 1)


def _lamb(
    correct=lambda b, t: 1 - b**t,
    adam=lambda m, v, eps: m / (np.sqrt(v) + eps),
    decay=lambda u, w, wd: u + wd * w,
    ratio=lambda w, u, g: _guarded(_norm(w), _norm(u)),
    move=lambda w, u, r, lr, wd: w - lr * r * u,
    grad=lambda g, w, wd: g,
    keep=lambda m, v, m_hat, v_hat, old: (m, v),
    averages=lambda m, v, g, b1, b2: (b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2),
):
    def lamb_step(w, m, v, g, t, lr, betas, eps, weight_decay):
        old = m, v
        g = grad(g, w, weight_decay)
        m, v = averages(m, v, g, *betas)
        m_hat, v_hat = m / correct(betas[0], t), v / correct(betas[1], t)
        u = decay(adam(m_hat, v_hat, eps), w, weight_decay)
        return move(w, u, ratio(w, u, g), lr, weight_decay), *keep(m, v, m_hat, v_hat, old)

    return lamb_step


def _lamb_in_place(w, m, v, g, t, lr, betas, eps, weight_decay):
    new = _lamb_plain(w, m, v, g, t, lr, betas, eps, weight_decay)
    m *= betas[0]
    m += (1 - betas[0]) * g
    return new


_LAMB = {
    "plain": (_lamb_plain, ""),
    "in torch": (_lamb_torch, ""),
    "the library": (_lamb_library, ""),
    "by parts": (_lamb(), ""),
    "AdamW": (_lamb(ratio=lambda w, u, g: 1.0), "ratio-missing"),
    "upside down": (_lamb(ratio=lambda w, u, g: _guarded(_norm(u), _norm(w))), "ratio-upside-down"),
    "one for all": (_lamb(ratio=lambda w, u, g: _guarded(np.linalg.norm(w), np.linalg.norm(u))), "one-ratio"),
    "LARS": (_lamb(ratio=lambda w, u, g: _guarded(_norm(w), _norm(g))), "ratio-of-gradient"),
    "squares": (_lamb(ratio=lambda w, u, g: _guarded((w**2).sum(1, keepdims=True), (u**2).sum(1, keepdims=True))), "ratio-without-root"),
    "1-norm": (_lamb(ratio=lambda w, u, g: _guarded(np.abs(w).sum(1, keepdims=True), np.abs(u).sum(1, keepdims=True))), "ratio-of-sums"),
    "unit length": (_lamb(ratio=lambda w, u, g: 1 / _norm(u)), "length-one"),
    "times weights": (_lamb(ratio=lambda w, u, g: _norm(w)), "times-weights"),
    "at most 10": (_lamb(ratio=lambda w, u, g: np.clip(_guarded(_norm(w), _norm(u)), 0, 10)), "ratio-capped-at-ten"),
    "at most 1": (_lamb(ratio=lambda w, u, g: np.clip(_guarded(_norm(w), _norm(u)), 0, 1)), "ratio-capped-at-one"),
    "length at most 10": (_lamb(ratio=lambda w, u, g: _guarded(np.clip(_norm(w), 0, 10), _norm(u))), "weights-cut-at-ten"),
    "NVIDIA": (_lamb(grad=lambda g, w, wd: g / max(1, np.linalg.norm(g))), "gradient-normalised"),
    "decay beside": (_lamb(decay=lambda u, w, wd: u, move=lambda w, u, r, lr, wd: w * (1 - lr * wd) - lr * r * u), "decay-after"),
    "decay not measured": (_lamb(decay=lambda u, w, wd: u, move=lambda w, u, r, lr, wd: w - lr * r * (u + wd * w)), "decay-not-measured"),
    "L2": (_lamb(decay=lambda u, w, wd: u, grad=lambda g, w, wd: g + wd * w), "decay-in-gradient"),
    "no decay": (_lamb(decay=lambda u, w, wd: u), "decay-missing"),
    "grows": (_lamb(decay=lambda u, w, wd: u - wd * w), "decay-subtracted"),
    "no correction": (_lamb(correct=lambda b, t: 1), "not-corrected"),
    "t + 1": (_lamb(correct=lambda b, t: 1 - b ** (t + 1)), "count-ahead"),
    "t - 1": (_lamb(correct=lambda b, t: 1 - b ** (t - 1)), "count-behind"),
    "eps inside": (_lamb(adam=lambda m, v, eps: m / np.sqrt(v + eps)), "eps-inside"),
    "no eps": (_lamb(adam=lambda m, v, eps: m / np.sqrt(v)), "eps-missing"),
    "no root": (_lamb(adam=lambda m, v, eps: m / (v + eps)), "root-missing"),
    "uphill": (_lamb(move=lambda w, u, r, lr, wd: w + lr * r * u), "ascends"),
    "no lr": (_lamb(move=lambda w, u, r, lr, wd: w - r * u), "lr-missing"),
    "betas exchanged": (lambda w, m, v, g, t, lr, betas, eps, weight_decay: _lamb_plain(w, m, v, g, t, lr, betas[::-1], eps, weight_decay), "betas-swapped"),
    "weights exchanged": (_lamb(averages=lambda m, v, g, a, b: ((1 - a) * m + a * g, (1 - b) * v + b * g * g)), "weights-swapped"),
    "sums": (_lamb(averages=lambda m, v, g, a, b: (a * m + g, b * v + g * g)), "gain-missing"),
    "keeps m_hat": (_lamb(keep=lambda m, v, mh, vh, old: (mh, v)), "m-corrected-kept"),
    "keeps both": (_lamb(keep=lambda m, v, mh, vh, old: (mh, vh)), "m-corrected-kept"),
    "keeps v_hat": (_lamb(keep=lambda m, v, mh, vh, old: (m, vh)), "v-corrected-kept"),
    "returns the old": (_lamb(keep=lambda m, v, mh, vh, old: old), "m-unchanged"),
    "w, v, m": (lambda **case: [_lamb_plain(**case)[i] for i in (0, 2, 1)], "m-and-v-swapped"),
    "v of g": (_lamb(averages=lambda m, v, g, a, b: (a * m + (1 - a) * g, b * v + (1 - b) * np.abs(g))), "wrong-numbers"),
    "zero layers stay": (_lamb(ratio=lambda w, u, g: _norm(w) / np.where(_norm(u) > 0, _norm(u), 1)), "zero-weights"),
    "0 / 0": (_lamb(ratio=lambda w, u, g: np.where(_norm(w) > 0, _norm(w) / _norm(u), 1)), "zero-update"),
    "in place": (_lamb_in_place, "input-written"),
    "w alone": (lambda **case: _lamb_plain(**case)[0], "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------ scale_rule


def _scale_plain(optimizer, lr, betas, eps, k):
    if optimizer == "sgd":
        return lr * k, betas, eps
    b1, b2 = (1 - k + k * b for b in betas)
    if b1 < 0 or b2 < 0:
        raise ValueError(f"k = {k} leaves no average for betas {betas}")
    return lr * k**0.5, (b1, b2), eps * k**-0.5


def _scale_numpy(optimizer, lr, betas, eps, k):
    root = np.sqrt(k)
    match optimizer:
        case "sgd":
            return np.float64(k * lr), np.array(betas), np.float64(eps)
        case "adam":
            new = 1 - k * (1 - np.array(betas))
            if (new < 0).any():
                raise ValueError("too large a batch")
            return [root * lr, new, eps / root]


def _scale(sgd=lambda lr, k: k * lr, adam=lambda lr, k: math.sqrt(k) * lr, beta=lambda b, k: 1 - k * (1 - b), eps_of=lambda eps, k: eps / math.sqrt(k), sgd_beta=lambda b, k: b, sgd_eps=lambda eps, k: eps, refuses=True):  # fmt: skip
    def scale_rule(optimizer, lr, betas, eps, k):
        if optimizer == "sgd":
            return sgd(lr, k), tuple(sgd_beta(b, k) for b in betas), sgd_eps(eps, k)
        new = tuple(beta(b, k) for b in betas)
        if refuses and min(1 - k * (1 - b) for b in betas) < 0:
            raise ValueError("no rule")
        return adam(lr, k), new, eps_of(eps, k)

    return scale_rule


def _asserts(optimizer, lr, betas, eps, k):
    assert optimizer == "sgd" or k * (1 - betas[0]) <= 1
    return _scale()(optimizer, lr, betas, eps, k)


def _refuses_always(optimizer, lr, betas, eps, k):
    if min(1 - k * (1 - b) for b in betas) < 0:
        raise ValueError("no rule")
    return _scale()(optimizer, lr, betas, eps, k)


def _refuses_zero(optimizer, lr, betas, eps, k):
    if optimizer == "adam" and min(1 - k * (1 - b) for b in betas) <= 0:
        raise ValueError("no rule")
    return _scale(refuses=False)(optimizer, lr, betas, eps, k)


def _returns_the_error(**case):
    try:
        return _scale_plain(**case)
    except ValueError as error:
        return error


def _beta1_only(optimizer, lr, betas, eps, k):
    if optimizer == "adam" and k * (1 - betas[0]) > 1:
        raise ValueError("no rule")
    return _scale(refuses=False)(optimizer, lr, betas, eps, k)


_SCALE = {
    "refuses 0": (_refuses_zero, "refuses-zero"),
    "gives the error back": (_returns_the_error, "error-returned"),
    "asks about beta1 only": (_beta1_only, "no-rule"),
    "plain": (_scale_plain, ""),
    "in NumPy": (_scale_numpy, ""),
    "by parts": (_scale(), ""),
    "linear for Adam": (_scale(adam=lambda lr, k: k * lr), "linear-for-adam"),
    "root for SGD": (_scale(sgd=lambda lr, k: math.sqrt(k) * lr), "root-for-sgd"),
    "exchanged": (_scale(sgd=lambda lr, k: math.sqrt(k) * lr, adam=lambda lr, k: k * lr), "rules-swapped"),
    "kept": (_scale(sgd=lambda lr, k: lr, adam=lambda lr, k: lr), "rates-kept"),
    "Adam's kept": (_scale(adam=lambda lr, k: lr), "adam-kept"),
    "SGD's kept": (_scale(sgd=lambda lr, k: lr), "sgd-kept"),
    "divided": (_scale(sgd=lambda lr, k: lr / k, adam=lambda lr, k: lr / math.sqrt(k)), "rates-divided"),
    "betas kept": (_scale(beta=lambda b, k: b), "betas-kept"),
    "half-lives": (_scale(beta=lambda b, k: b**k), "half-life"),
    "longer half-lives": (_scale(beta=lambda b, k: b ** (1 / k)), "half-life-turned"),
    "longer": (_scale(beta=lambda b, k: 1 - (1 - b) / k), "longer-memory"),
    "a root in the betas": (_scale(beta=lambda b, k: 1 - math.sqrt(k) * (1 - b)), "root-in-betas"),
    "k * beta": (_scale(beta=lambda b, k: k * b), "betas-multiplied"),
    "what is left": (_scale(beta=lambda b, k: k * (1 - b)), "complement"),
    "eps kept": (_scale(eps_of=lambda eps, k: eps), "eps-kept"),
    "eps times": (_scale(eps_of=lambda eps, k: eps * math.sqrt(k)), "eps-multiplied"),
    "eps over k": (_scale(eps_of=lambda eps, k: eps / k), "eps-over-k"),
    "SGD's betas too": (_scale(sgd_beta=lambda b, k: 1 - k * (1 - b)), "betas-of-sgd"),
    "SGD's eps too": (_scale(sgd_eps=lambda eps, k: eps / math.sqrt(k)), "eps-of-sgd"),
    "one rule": (lambda optimizer, lr, betas, eps, k: _scale(refuses=False)("adam", lr, betas, eps, k), "sgd-like-adam"),
    "SGD's rule": (lambda optimizer, lr, betas, eps, k: _scale()("sgd", lr, betas, eps, k), "adam-like-sgd"),
    "cut off at 0": (_scale(beta=lambda b, k: max(0.0, 1 - k * (1 - b)), refuses=False), "no-rule"),
    "negative": (_scale(refuses=False), "no-rule"),
    "an assertion": (_asserts, "another-error"),
    "refuses SGD too": (_refuses_always, "raises"),
    "the rate alone": (lambda **case: _scale_plain(**case)[0], "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}  # fmt: skip

FUNCTIONS = {"noise_scale": _NOISE, "lamb_step": _LAMB, "scale_rule": _SCALE}
