"""Answers to the exercises of notebook 14."""

from __future__ import annotations

import math

import numpy as np
import torch

# --------------------------------------------------------------------------------------------------- newton_schulz


def _small_side(g, steps, coefficients):
    a, b, c = coefficients
    x = g / max(1e-7, np.sqrt((g * g).sum()))
    if x.shape[0] > x.shape[1]:
        x = np.ascontiguousarray(x.T)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x if x.shape == g.shape and g.shape[0] <= g.shape[1] else x.T


def _from_the_right(g, steps, coefficients):
    """X^T X on the other side."""
    a, b, c = coefficients
    x = g / np.maximum(np.linalg.norm(g), 1e-7)
    for _ in range(steps):
        gram = x.T @ x
        x = x @ (a * np.eye(x.shape[1]) + b * gram + c * gram @ gram)
    return x


def _of_singular_values(g, steps, coefficients):
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    s = s / max(1e-7, math.sqrt((s**2).sum()))
    for _ in range(steps):
        s = sum(factor * s**power for factor, power in zip(coefficients, (1, 3, 5), strict=True))
    return u * s @ vt


def _in_torch(g, steps, coefficients):
    x = torch.tensor(g)
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = coefficients
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _powers(x, a, b, c):
    return a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x


def _iteration(step=_powers, norm=np.linalg.norm, floor=1e-7):
    @np.errstate(all="ignore")
    def newton_schulz(g, steps, coefficients):
        x = g / np.maximum(norm(g), floor)
        for _ in range(steps):
            x = step(x, *coefficients)
        return x

    return newton_schulz


def _jordans(g, steps, coefficients):
    """As in Jordan's code, in float64."""
    a, b, c = coefficients
    x = g / (np.linalg.norm(g) + 1e-7)
    if g.shape[0] > g.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def _bfloat16(g, steps, coefficients):
    a, b, c = coefficients
    x = torch.tensor(g).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _divides_in_place(g, steps, coefficients):
    g /= max(np.linalg.norm(g), 1e-7)
    return _iteration(norm=lambda g: 1.0)(g, steps, coefficients)


def _forgets_to_turn_back(g, steps, coefficients):
    x = _iteration()(g, steps, coefficients)
    return x.T if g.shape[0] > g.shape[1] else x


def _wrong_side(g, steps, coefficients):
    a, b, c = coefficients
    x = g / max(np.linalg.norm(g), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + x @ (b * gram + c * gram @ gram)
    return x


@np.errstate(all="ignore")
def _two_in_place(g, steps, coefficients):
    a, b, c = coefficients
    x = g / max(np.linalg.norm(g), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x *= a
        x += (b * gram + c * gram @ gram) @ x
    return x


def _reads(**fixed):
    return lambda g, steps, coefficients: _iteration()(
        **({"g": g, "steps": steps, "coefficients": coefficients} | fixed)
    )


def _polar(g, steps, coefficients):
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    return u @ vt


def _iterated_by_name(g, steps, coefficients):
    x = g / max(np.linalg.norm(g), 1e-7)
    for _ in range(steps):
        x = _iteration(norm=lambda _: 1.0)(x, 1, coefficients)
    return x


_NEWTON = {
    "small side": (_small_side, ""),
    "from the right": (_from_the_right, ""),
    "of singular values": (_of_singular_values, ""),
    "in torch": (_in_torch, ""),
    "powers written out": (_iteration(), ""),
    "step by step": (_iterated_by_name, ""),
    "Jordan's eps": (_jordans, "eps-added"),
    "no floor": (_iteration(floor=0), "eps-missing"),
    "not normalised": (_iteration(norm=lambda g: 1.0), "not-normalised"),
    "spectral norm": (_iteration(norm=lambda g: np.linalg.svd(g)[1].max()), "spectral-norm"),
    "largest element": (_iteration(norm=lambda g: np.abs(g).max()), "largest-element"),
    "rows": (_iteration(norm=lambda g: np.sqrt((g**2).sum(axis=1, keepdims=True))), "norm-of-rows"),
    "by element": (_iteration(lambda x, a, b, c: a * x + b * x**3 + c * x**5), "powers-by-element"),
    "A * A": (
        _iteration(lambda x, a, b, c: a * x + (b * (x @ x.T) + c * (x @ x.T) * (x @ x.T)) @ x),
        "gram-squared-by-element",
    ),
    "cubic": (_iteration(lambda x, a, b, c: a * x + b * x @ x.T @ x), "c-missing"),
    "in place": (_two_in_place, "multiplied-in-place"),
    "five steps": (_reads(steps=5), "five-steps"),
    "Jordan's coefficients": (_reads(coefficients=(3.4445, -4.775, 2.0315)), "hard-coded"),
    "not turned back": (_forgets_to_turn_back, "not-transposed-back"),
    "other side": (_wrong_side, "raises"),
    "bfloat16": (_bfloat16, "wrong-numbers"),
    "float32": (lambda g, steps, coefficients: _iteration()(np.float32(g), steps, coefficients), "single-precision"),
    "polar factor": (_polar, "exact"),
    "writes": (_divides_in_place, "input-written"),
    "one step less": (lambda g, steps, coefficients: _iteration()(g, steps - 1, coefficients), "one-step-less"),
    "nothing": (lambda g, steps, coefficients: None, "wrong-result"),
    "blank": (None, "blank"),
}

# ------------------------------------------------------------------------------------------------------ muon_scale


def _scale(first=lambda r, c: max(1, r / c) ** 0.5, second=lambda r, c: 0.2 * max(r, c) ** 0.5):
    return lambda rows, columns, mode: first(rows, columns) if mode == "original" else second(rows, columns)


def _measured(rows, columns, mode):
    if mode == "match_rms_adamw":
        return 0.2 / math.sqrt(min(rows, columns) / (rows * columns))
    return math.sqrt(rows / columns) if rows > columns else 1


_SCALE = {
    "powers": (_scale(), ""),
    "measured": (_measured, ""),
    "an array": (lambda **case: np.array([_measured(**case)]), ""),
    "a tensor": (lambda **case: torch.tensor(_measured(**case), dtype=torch.float64), ""),
    "no root": (_scale(first=lambda r, c: max(1, r / c)), "original-root-missing"),
    "columns over rows": (_scale(first=lambda r, c: max(1, c / r) ** 0.5), "original-sides-swapped"),
    "spectral": (_scale(first=lambda r, c: (r / c) ** 0.5), "original-without-floor"),
    "whole numbers": (_scale(first=lambda r, c: max(1, r // c) ** 0.5), "original-floor-outside"),
    "no 0.2": (_scale(second=lambda r, c: max(r, c) ** 0.5), "matched-factor-missing"),
    "smaller side": (_scale(second=lambda r, c: 0.2 * min(r, c) ** 0.5), "matched-smaller-side"),
    "all elements": (_scale(second=lambda r, c: 0.2 * (r * c) ** 0.5), "matched-elements"),
    "rows": (_scale(second=lambda r, c: 0.2 * r**0.5), "matched-rows"),
    "both matched": (lambda rows, columns, mode: _measured(rows, columns, "match_rms_adamw"), "always-matched"),
    "exchanged": (
        lambda rows, columns, mode: _measured(rows, columns, {"original": "match_rms_adamw"}.get(mode, "original")),
        "modes-swapped",
    ),
    "no root in either": (
        _scale(first=lambda r, c: max(1, r / c), second=lambda r, c: 0.2 * max(r, c)),
        "original-root-missing",
    ),
    "a mode forgotten": (
        lambda rows, columns, mode: _measured(rows, columns, mode) if mode == "original" else None,
        "wrong-result",
    ),
    "blank": (None, "blank"),
}

# ----------------------------------------------------------------------------------------------- schedule_free_walk


def _plain(gradient, start, lr, beta, steps):
    z, x = start.copy(), start.copy()
    ys, zs, xs = [], [z.copy()], [x.copy()]
    for t in range(steps):
        y = beta * x + (1 - beta) * z
        z -= lr * gradient(y)
        x *= t / (t + 1)
        x += z / (t + 1)
        ys.append(y)
        zs.append(z.copy())
        xs.append(x.copy())
    return np.array(ys).reshape(-1, len(start)), np.array(zs), np.array(xs)


def _mean_at_the_end(gradient, start, lr, beta, steps):
    """x as the mean of all z, worked out anew."""
    ys, zs, xs = np.empty((steps, len(start))), [start], [start]
    for t in range(steps):
        ys[t] = zs[-1] + beta * (xs[-1] - zs[-1])
        zs.append(zs[-1] - lr * gradient(ys[t]))
        xs.append(np.mean(zs[1:], axis=0))
    return ys, zs, xs


def _as_tensors(gradient, start, lr, beta, steps):
    z = x = torch.tensor(start)
    ys, zs, xs = torch.empty(steps, len(start), dtype=torch.float64), [z], [x]
    for t in range(steps):
        ys[t] = z.lerp(x, beta)
        z = z - lr * torch.tensor(gradient(ys[t].numpy()))
        x = x.lerp(z, 1 / (t + 1))
        zs.append(z)
        xs.append(x)
    return ys, torch.stack(zs), torch.stack(xs)


def _without_x(gradient, start, lr, beta, steps):
    """From y to y, as the authors' optimizer has it; x from y and z, or from the mean where beta is 0."""
    total, z, x = np.zeros_like(start), start, start
    ys, zs, xs = [], [z], [x]
    for t in range(1, steps + 1):
        ys.append((1 - beta) * z + beta * x)
        z = z - lr * gradient(ys[-1])
        total = total + z
        x = total / t
        zs.append(z)
        xs.append(x)
    return np.reshape(ys, (steps, len(start))), np.stack(zs), np.stack(xs)


def _free(
    y_of=lambda z, x, b: (1 - b) * z + b * x,
    base=lambda y, z, x: z,
    at=lambda y, z, x: y,
    c=lambda t, b: 1 / t,
    what=None,
):
    def schedule_free_walk(gradient, start, lr, beta, steps):
        z, x = start, start
        ys, zs, xs = [], [start], [start]
        for t in range(1, steps + 1):
            y = y_of(z, x, beta)
            ys.append(y)
            before = z
            z = base(y, z, x) - lr * gradient(at(y, z, x))
            x = (1 - c(t, beta)) * x + c(t, beta) * (z if what is None else what(y, before))
            zs.append(z)
            xs.append(x)
        return np.array(ys).reshape(steps, -1), np.array(zs), np.array(xs)

    return schedule_free_walk


def _aliased(gradient, start, lr, beta, steps):
    z, x = start.copy(), start.copy()
    ys, zs, xs = [], [z], [x]
    for t in range(1, steps + 1):
        y = (1 - beta) * z + beta * x
        z -= lr * gradient(y)
        x += (z - x) / t
        ys.append(y)
        zs.append(z)
        xs.append(x)
    return np.array(ys).reshape(steps, -1), np.array(zs), np.array(xs)


def _from_start(gradient, start, lr, beta, steps):
    z = x = start
    ys, zs, xs = [], [z], [x]
    for t in range(1, steps + 1):
        ys.append((1 - beta) * z + beta * x)
        z -= lr * gradient(ys[-1])
        x = x + (z - x) / t
        zs.append(z.copy())
        xs.append(x.copy())
    return np.array(ys).reshape(steps, -1), np.array(zs), np.array(xs)


def _gradient_in_place(gradient, start, lr, beta, steps):
    def scaled(y):
        d = gradient(y)
        d *= lr
        return d

    return _free()(scaled, start, 1.0, beta, steps)


def _changed(change):
    return lambda **case: change(*_plain(**case))


_WALK = {
    "in place": (_plain, ""),
    "mean at the end": (_mean_at_the_end, ""),
    "tensors": (_as_tensors, ""),
    "a sum": (_without_x, ""),
    "lists": (lambda **case: [part.tolist() if part.size else part for part in _plain(**case)], ""),
    "gradient at z": (_free(at=lambda y, z, x: z), "gradient-at-z"),
    "gradient at x": (_free(at=lambda y, z, x: x), "gradient-at-x"),
    "beta on z": (_free(lambda z, x, b: b * z + (1 - b) * x), "y-weights-swapped"),
    "step from y": (_free(base=lambda y, z, x: y), "z-from-y"),
    "step from x": (_free(base=lambda y, z, x: x), "z-from-x"),
    "start counts": (_free(c=lambda t, b: 1 / (t + 1)), "start-counts"),
    "EMA": (_free(c=lambda t, b: 1 - b), "moving-average"),
    "mean of y": (_free(what=lambda y, z: y), "averages-y"),
    "mean of old z": (_free(what=lambda y, z: z), "averages-old-z"),
    "aliased": (_aliased, "z-aliased"),
    "writes": (_from_start, "input-written"),
    "gradient in place": (_gradient_in_place, "gradient-written"),
    "squeezed": (_changed(lambda y, z, x: (y, np.squeeze(z), np.squeeze(x))), "axis-lost"),
    "x first": (_changed(lambda y, z, x: (x, y, z)), "turned-back"),
    "z first": (_changed(lambda y, z, x: (z, x, y)), "turned"),
    "without start": (_changed(lambda y, z, x: (y, z[1:], x[1:])), "starts-missing"),
    "x alone": (_changed(lambda y, z, x: x), "wrong-result"),
    "y with a row more": (_changed(lambda y, z, x: (np.vstack([y, x[-1:]]), z, x)), "wrong-shape"),
    "no steps, no shape": (
        lambda gradient, start, lr, beta, steps: [
            part / bool(steps) for part in _plain(gradient, start, lr, beta, steps)
        ],
        "",
    ),
    "float32": (lambda **case: _plain(**(case | {"start": np.float32(case["start"])})), "single-precision"),
    "blank": (None, "blank"),
}

# -------------------------------------------------------------------------------------------------------- muon_bug


def _division_in_place(x):
    return x.div_(x.norm().clamp(min=1e-7))


def _division(x):
    return x / x.norm().clamp(min=1e-7)


class _Muon(torch.optim.Optimizer):
    """The class of the exercise; what differs between answers is how Newton-Schulz begins, and what it is given."""

    BEGIN = staticmethod(_division)
    TAKE = staticmethod(lambda update: update.bfloat16())
    DTYPE = None

    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p, dtype=self.DTYPE)
                update = self.direction(p.grad, state, group).to(p.dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * self.factor(p))

    def factor(self, p):
        return max(1, p.shape[0] / p.shape[1]) ** 0.5

    def direction(self, grad, state, group):
        grad = grad.to(state["buffer"].dtype)
        buffer = state["buffer"].lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
        return self.orthogonal(self.TAKE(update))

    def orthogonal(self, x, steps=5):
        tall = x.shape[0] > x.shape[1]
        x = self.BEGIN(x.T if tall else x)
        for _ in range(steps):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.T if tall else x


def _variant(name, **changed):
    return type(
        name, (_Muon,), {key: staticmethod(value) if callable(value) else value for key, value in changed.items()}
    )


def _with_direction(name, direction):
    return type(name, (_Muon,), {"direction": direction})


def _buffer_of(self, grad, state, group, **changed):
    return _Muon.direction(self, grad, state, group | changed)


class _WritesGradient(_Muon):
    def direction(self, grad, state, group):
        buffer = state["buffer"].lerp_(grad, 1 - group["momentum"])
        update = grad.lerp_(buffer, group["momentum"]) if group["nesterov"] else buffer
        return self.orthogonal(update.bfloat16())


class _CopiesBuffer(_Muon):
    """A copy is updated, and the buffer in the state stays at zero."""

    def direction(self, grad, state, group):
        return super().direction(grad, {"buffer": state["buffer"].clone()}, group)


class _KeepsResult(_Muon):
    def direction(self, grad, state, group):
        update = super().direction(grad, state, group)
        if not group["nesterov"]:
            state["buffer"].copy_(update)
        return update


class _KeepsCopy(_Muon):
    def direction(self, grad, state, group):
        update = super().direction(grad, state, group)
        state["copy"] = state["buffer"].clone()
        return update


class _WithoutScale(_Muon):
    def factor(self, p):
        return 1.0


class _WithoutDecay(_Muon):
    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True):
        super().__init__(params, lr, 0.0, momentum, nesterov)


class _HalfSteps(_Muon):
    def factor(self, p):
        return 0.5 * super().factor(p)


class _ReadsDefaults(_Muon):
    """A hyper-parameter is read from the constructor's arguments, whatever the group says."""

    NAME = "lr"

    def step(self):
        own = [group[self.NAME] for group in self.param_groups]
        for group in self.param_groups:
            group[self.NAME] = self.defaults[self.NAME]
        super().step()
        for group, value in zip(self.param_groups, own, strict=True):
            group[self.NAME] = value


class _ZerosForNone(_Muon):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        super().step()


class _KeepsUpdate(_Muon):
    """What Newton-Schulz makes is kept in its bfloat16, beside a buffer that is as it should be."""

    def direction(self, grad, state, group):
        state["update"] = super().direction(grad, state, group)
        return state["update"]


class _OtherDefaults(_Muon):
    def __init__(self, params, lr=2e-2, weight_decay=0.1, momentum=0.95, nesterov=True):
        super().__init__(params, lr, weight_decay, momentum, nesterov)


class _CopiesTall(_Muon):
    BEGIN = staticmethod(_division_in_place)

    def orthogonal(self, x, steps=5):
        return super().orthogonal(x.clone() if x.shape[0] > x.shape[1] else x, steps)


class _Renamed(_Muon):
    def __init__(self, params, lr=1e-3, weight_decay=0.1, beta=0.95, nesterov=True):
        super().__init__(params, lr, weight_decay, beta, nesterov)


_MUON = {
    "a new tensor": (_variant("Divides"), ""),
    "a copy for Newton-Schulz": (
        _variant("Copies", TAKE=lambda u: u.to(torch.bfloat16, copy=True), BEGIN=_division_in_place),
        "",
    ),
    "clone": (_variant("Clones", TAKE=lambda u: u.clone().bfloat16(), BEGIN=_division_in_place), ""),
    "torch.div": (_variant("Div", BEGIN=lambda x: torch.div(x, x.norm().clamp(min=1e-7))), ""),
    "in float32": (_variant("Float32", TAKE=lambda u: u.to(torch.float32, copy=True), BEGIN=_division_in_place), ""),
    "buffer in float32": (_variant("Wide", DTYPE=torch.float32, BEGIN=_division_in_place), ""),
    "copy kept": (_KeepsCopy, ""),
    "update kept": (_KeepsUpdate, ""),
    "clone of tall ones": (_CopiesTall, "buffer-normalised"),
    "lr of the defaults": (_ReadsDefaults, "groups"),
    "momentum of the defaults": (type("ReadsMomentum", (_ReadsDefaults,), {"NAME": "momentum"}), "groups"),
    "zeros for None": (_ZerosForNone, "missing-gradient"),
    "no clamp": (_variant("Unclamped", BEGIN=lambda x: x / x.norm()), "zero-gradient"),
    "other defaults": (_OtherDefaults, "defaults"),
    "unrepaired": (_variant("Unrepaired", BEGIN=_division_in_place), "buffer-normalised"),
    "contiguous() is no copy": (
        _variant("Contiguous", TAKE=lambda u: u.bfloat16().contiguous(), BEGIN=_division_in_place),
        "buffer-normalised",
    ),
    "detach() is no copy": (
        _variant("Detached", TAKE=lambda u: u.bfloat16().detach(), BEGIN=_division_in_place),
        "buffer-normalised",
    ),
    "always Nesterov": (
        _with_direction("Ahead", lambda self, g, s, group: _buffer_of(self, g, s, group, nesterov=True)),
        "nesterov-always",
    ),
    "no momentum": (
        _with_direction("Plain", lambda self, g, s, group: _buffer_of(self, g, s, group, momentum=0.0)),
        "no-momentum",
    ),
    "buffer not kept": (_CopiesBuffer, "no-momentum"),
    "not normalised": (_variant("Raw", BEGIN=lambda x: x), "not-normalised"),
    "result kept": (_KeepsResult, "buffer-orthogonalised"),
    "no Newton-Schulz": (
        type("Unit", (_Muon,), {"orthogonal": lambda self, x: _division(x)}),
        "not-orthogonalised",
    ),
    "gradient written": (_WritesGradient, "gradient-written"),
    "no scale": (_WithoutScale, "scale-lost"),
    "no decay": (_WithoutDecay, "decay-lost"),
    "half steps": (_HalfSteps, "wrong-steps"),
    "other arguments": (_Renamed, "signature"),
    "an instance": (_Muon([torch.zeros(2, 2, requires_grad=True)]), "wrong-type"),
    "torch's": (torch.optim.Muon, "production-optimizer"),
    "blank": (None, "blank"),
}

FUNCTIONS = {
    "newton_schulz": _NEWTON,
    "muon_scale": _SCALE,
    "muon_bug": _MUON,
    "schedule_free_walk": _WALK,
}
