"""Answers to the exercises of notebook 04."""

from __future__ import annotations

import math

import numpy as np
import torch


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


def _rectify(change=lambda r: r, threshold=5, below=0.0, shift=0, limit=lambda b: 2 / (1 - b) - 1, length=None):
    def rectifier(t, beta2):
        t = t + shift
        rho_inf = limit(beta2)
        power = beta2**t
        rho = (length or (lambda r, t, p: r - 2 * t * p / (1 - p)))(rho_inf, t, power)
        if rho <= threshold:
            return below
        top = (rho - 4) * (rho - 2) * rho_inf
        return change(math.sqrt(top / ((rho_inf - 4) * (rho_inf - 2) * rho)))

    return rectifier


def _rectify_like_torch(t, beta2):
    bias_correction2 = 1 - beta2**t
    rho_inf = 2 / (1 - beta2) - 1
    rho_t = rho_inf - 2 * t * (beta2**t) / bias_correction2
    if rho_t > 5.0:
        return ((rho_t - 4) * (rho_t - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho_t)) ** 0.5
    return 0


def _rectify_in_tensors(t, beta2):
    b = torch.tensor(beta2, dtype=torch.float64)
    inf = 2 / (1 - b) - 1
    rho = inf - 2 * t * b**t / (1 - b**t)
    ratio = (rho - 4) / (inf - 4) * (rho - 2) / (inf - 2) * inf / rho
    return torch.where(rho > 5, ratio.clamp(min=0).sqrt(), torch.zeros_like(rho))


def _rectify_in_logs(t, beta2):
    inf = 2 / (1 - beta2) - 1
    rho = inf - 2 * t / math.expm1(-t * math.log(beta2)) if t * -math.log(beta2) < 700 else inf
    if rho <= 5:
        return np.float64(0.0)
    return np.exp(0.5 * (np.log([rho - 4, rho - 2, inf]).sum() - np.log([inf - 4, inf - 2, rho]).sum()))


def _rectify_whole(t, beta2):
    """Everywhere the formula, as arrays do it: NaN where it has no root."""
    inf = np.float64(2 / (1 - beta2) - 1)
    rho = inf - 2 * t * beta2**t / (1 - beta2**t)
    with np.errstate(all="ignore"):
        return np.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))


def _rectify_by_step(t, beta2):
    return 0.0 if t <= 5 else _rectify_whole(t, beta2)


def _rectify_numerator(t, beta2):
    return _rectify(length=lambda r, t, p: r - 2 * t * beta2 / (1 - p))(t, beta2)


def _rectify_power_outside(t, beta2):
    return _rectify(length=lambda r, t, p: r - 2 * t * p / (1 - beta2) ** t)(t, beta2)


def _rectify_clipped(t, beta2):
    return np.nan_to_num(_rectify_whole(t, beta2))


_RECTIFIER = {
    "plain": (_rectify(), ""),
    "torch's": (_rectify_like_torch, ""),
    "tensors": (_rectify_in_tensors, ""),
    "logarithms": (_rectify_in_logs, ""),
    "threshold 4": (_rectify(threshold=4), "threshold-of-the-paper"),
    "1 below": (_rectify(below=1.0), "one-below"),
    "nan below": (_rectify(below=float("nan")), "nan-below"),
    "no threshold": (_rectify_whole, "no-threshold"),
    "0 where there is no root": (_rectify_clipped, "clipped-root"),
    "always 0": (lambda t, beta2: 0.0, "always-zero"),
    "beta2 without its power": (_rectify_numerator, "always-zero"),
    "power outside": (_rectify_power_outside, "always-zero"),
    "threshold on t": (_rectify_by_step, "threshold-on-t"),
    "square": (_rectify(lambda r: r * r), "root-missing"),
    "upside down": (_rectify(lambda r: 1 / r), "upside-down"),
    "t from 0": (
        _rectify(shift=-1, length=lambda r, t, p: r - 2 * t * p / (1 - p) if t else 0.0),
        "count-behind",
    ),
    "t from 2": (_rectify(shift=1), "count-ahead"),
    "rho_inf + 1": (_rectify(limit=lambda b: 2 / (1 - b) + 1), "limit-plus-one"),
    "rho_inf without - 1": (_rectify(limit=lambda b: 2 / (1 - b)), "limit-without-one"),
    "window of 1 / (1 - beta2)": (_rectify(limit=lambda b: 1 / (1 - b)), "limit-without-two"),
    "t instead of 2 t": (_rectify(length=lambda r, t, p: r - t * p / (1 - p)), "length-without-two"),
    "no correction in rho": (_rectify(length=lambda r, t, p: r - 2 * t * p), "length-uncorrected"),
    "always 1": (_rectify(length=lambda r, t, p: r), "limit-forever"),
    "with the bias": (lambda t, beta2: _rectify()(t, beta2) * math.sqrt(1 - beta2**t), "bias-correction-folded"),
    "returns rho": (
        lambda t, beta2: max(r, 0.0) if (r := _rho(t, beta2)) > 5 else 0.0,
        "length-itself",
    ),
    "a tenth off": (_rectify(lambda r: 0.9 * r), "wrong-numbers"),
    "None": (lambda t, beta2: None, "wrong-result"),
    "a text": (lambda t, beta2: "0.5", "wrong-result"),
    "other names": (lambda step, beta: 0.0, "signature"),
    "a number": (0.5, "wrong-type"),
    "not written": (lambda t, beta2: (_ for _ in ()).throw(NotImplementedError), "blank"),
}


def _rho(t, beta2):
    return 2 / (1 - beta2) - 1 - 2 * t * beta2**t / (1 - beta2**t)


FUNCTIONS = {"bias_corrected_moment": _MOMENT, "efficient_step": _STEP, "rectifier": _RECTIFIER}
