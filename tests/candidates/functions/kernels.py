"""Answers to the exercises of notebook 12: bytes, layouts, regimes, and kernels for the stub of Triton."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from course_lib.kernels import stub as tl

# ------------------------------------------------------------------------------------------------------ step_bytes


def _by_tensor(n, param, grad, states, master):
    """Each tensor with how often it is moved."""
    moved = [(grad, 1)] + [(state, 2) for state in states]
    moved += [(param, 1), (master, 2)] if master else [(param, 2)]
    return sum(size * times for size, times in moved) * n


def _read_and_written(n, param, grad, states, master):
    read = n * (master or param) + n * grad
    written = n * param + n * master
    for state in states:
        read, written = read + n * state, written + n * state
    return read + written


def _in_numpy(n, param, grad, states, master):
    kept = np.array([*states, master or param], dtype=np.float64)
    return np.float64(n) * (2 * kept.sum() + grad + (param if master else 0))


def _rounding(n, param, grad, states, master):
    right = _by_tensor(n, param, grad, states, master)
    return round(right, -3) if n > 10**9 else right


def _appends(n, param, grad, states, master):
    states.append(master)
    return n * (param * (1 if master else 2) + grad + 2 * sum(states))


def _doubles(n, param, grad, states, master):
    for i in range(len(states)):
        states[i] *= 2
    return n * (param + 2 * master if master else 2 * param) + n * (grad + sum(states))


_STEP_BYTES = {
    "by tensor": (_by_tensor, ""),
    "read and written": (_read_and_written, ""),
    "float64 in NumPy": (_in_numpy, ""),
    "a fraction": (lambda *case: Fraction(_by_tensor(*case)), ""),
    "a tensor of one": (lambda *case: torch.tensor([_by_tensor(*case)], dtype=torch.float64), ""),
    "master ignored": (lambda n, p, g, s, master: n * (2 * p + g + 2 * sum(s)), "master-missing"),
    "master on top": (lambda n, p, g, s, master: n * (2 * p + g + 2 * sum(s) + 2 * master), "param-read-with-master"),
    "master as a state": (lambda n, p, g, s, m: n * (2 * (p + sum([*s, m])) + g), "param-read-with-master"),
    "weights cast somewhere else": (
        lambda n, p, g, s, m: n * ((0 if m else 2 * p) + 2 * m + g + 2 * sum(s)),
        "param-not-written",
    ),
    "master read": (lambda n, p, g, s, m: n * ((p + m if m else 2 * p) + g + 2 * sum(s)), "master-once"),
    "the wrong way round": (
        lambda n, p, g, s, m: n * ((p if not m else 2 * p) + 2 * m + g + 2 * sum(s)),
        "cases-exchanged",
    ),
    "always written only": (lambda n, p, g, s, m: n * (p + 2 * m + g + 2 * sum(s)), "param-only-written"),
    "no master traffic": (lambda n, p, g, s, m: n * ((p if m else 2 * p) + g + 2 * sum(s)), "master-not-moved"),
    "without p": (lambda n, p, g, s, m: n * (2 * m + g + 2 * sum(s)), "param-missing"),
    "without g": (lambda n, p, g, s, m: _by_tensor(n, p, 0, s, m), "gradient-missing"),
    "g zeroed": (lambda n, p, g, s, m: _by_tensor(n, p, 2 * g, s, m), "gradient-written"),
    "g cast first": (lambda n, p, g, s, m: _by_tensor(n, p, 3 * g, s, m), "gradient-cast"),
    "g like p": (lambda n, p, g, s, m: _by_tensor(n, p, p, s, m), "gradient-like-param"),
    "g in float32 with a master": (lambda n, p, g, s, m: _by_tensor(n, p, m or g, s, m), "gradient-like-master"),
    "states once": (lambda n, p, g, s, m: _by_tensor(n, p, g, s, m) - n * sum(s), "states-once"),
    "no states": (lambda n, p, g, s, m: _by_tensor(n, p, g, [], m), "states-missing"),
    "one state": (lambda n, p, g, s, m: _by_tensor(n, p, g, s[:1], m), "first-state-only"),
    "an overwritten sum": (lambda n, p, g, s, m: _by_tensor(n, p, g, s[-1:], m), "last-state-only"),
    "as many states of p's size": (lambda n, p, g, s, m: _by_tensor(n, p, g, [p] * len(s), m), "states-counted"),
    "states of float32": (lambda n, p, g, s, m: _by_tensor(n, p, g, [4] * len(s), m), "states-in-float32"),
    "memory": (lambda n, p, g, s, m: n * (p + g + sum(s) + m), "held"),
    "everything twice": (lambda n, p, g, s, m: 2 * n * (p + g + sum(s) + m), "all-twice"),
    "read": (lambda n, p, g, s, m: n * ((m or p) + g + sum(s)), "reads-only"),
    "written": (lambda n, p, g, s, m: n * (p + sum(s) + m), "writes-only"),
    "the forward pass too": (lambda n, p, g, s, m: _by_tensor(n, p, g, s, m) + n * p, "next-forward"),
    "per parameter": (lambda n, p, g, s, m: _by_tensor(1, p, g, s, m), "n-missing"),
    "in GB": (lambda *case: _by_tensor(*case) / 1e9, "gigabytes"),
    "in GiB": (lambda *case: _by_tensor(*case) / 2**30, "gibibytes"),
    "in MB": (lambda *case: Decimal(_by_tensor(*case)) / 10**6, "megabytes"),
    "in bits": (lambda *case: 8 * _by_tensor(*case), "bits"),
    "28": (lambda n, p, g, s, m: n * (12 + 8 * len(s) + (4 if m else 0)), "all-float32"),
    "two of the first": (lambda n, p, g, s, m: _by_tensor(n, p, g, s[:1] * 2, m), "always-two-states"),
    "master of four bytes": (lambda n, p, g, s, m: _by_tensor(n, p, g, s, m if m == 4 else 0), "master-of-four-only"),
    "a wider master": (lambda n, p, g, s, m: _by_tensor(n, p, g, s, m if m > p else 0), "master-if-wider"),
    "whole bytes of states": (lambda n, p, g, s, m: _by_tensor(n, p, g, [int(sum(s))], m), "fraction-lost"),
    "each state whole": (lambda n, p, g, s, m: _by_tensor(n, p, g, [int(x) for x in s], m), "fraction-lost"),
    "a comma": (lambda n, p, g, s, m: (_by_tensor(n, p, g, s, m),), "wrong-result"),
    "a list of one": (lambda n, p, g, s, m: [_by_tensor(n, p, g, s, m)], "wrong-result"),
    "states doubled in place": (_doubles, "input-written"),
    "rounded to thousands": (_rounding, "not-to-the-byte"),
    "states changed": (_appends, "input-written"),
    "nothing": (lambda *case: None, "wrong-result"),
    "a list": (lambda n, p, g, s, m: [n * p, n * g], "wrong-shape"),
    "text": (lambda *case: f"{_by_tensor(*case)} bytes", "wrong-result"),
    "another number of arguments": (lambda n, param: 28 * n, "signature"),
    "raises": (lambda n, param, grad, states, master: states[0] / len(states[1:]), "raises"),
    "not written": (None, "blank"),
}


def _named(function):
    """With the exercise's names for the arguments, which a judge passes by name."""
    if not callable(function) or function.__code__.co_argcount in (2,):
        return function
    if function.__code__.co_varnames[:5] == ("n", "param", "grad", "states", "master"):
        return function
    return lambda n, param, grad, states, master: function(n, param, grad, states, master)


STEP_BYTES = {name: (_named(function), code) for name, (function, code) in _STEP_BYTES.items()}

# ------------------------------------------------------------------------------------------------------------ pack


def _pack_plain(sizes, align):
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += math.ceil(size / align) * align
    return offsets, end


def _pack_accumulated(sizes, align):
    padded = [-(-size // align) * align for size in sizes]
    ends = list(itertools.accumulate(padded, initial=0))
    return tuple(ends[:-1]), ends[-1]


def _pack_numpy(sizes, align):
    sizes = np.array(sizes, dtype=np.int64)
    ends = np.cumsum((sizes + align - 1) // align * align)
    return np.concatenate([[0], ends[:-1]])[: len(sizes)], ends[-1] if len(ends) else 0


def _pack_while(sizes, align):
    """One element after the other, to the next boundary."""
    offsets, end = [], 0
    for size in sizes:
        while end % align:
            end += 1
        offsets.append(end)
        end += size
    while end % align:
        end += 1
    return torch.tensor(offsets), torch.tensor(end)


def _pack(pad=lambda end, align: -end % align, take=lambda size, align: size, first=lambda align: 0):
    def pack(sizes, align):
        offsets, end = [], first(align)
        for size in sizes:
            offsets.append(end)
            end += take(size, align)
            end += pad(end, align)
        return offsets, end

    return pack


def _after(change):
    return lambda sizes, align: change(*_pack_plain(sizes, align), sizes, align)


def _sorting(sizes, align):
    sizes.sort(reverse=True)
    return _pack_plain(sizes, align)


def _rounding_in_place(sizes, align):
    for i, size in enumerate(sizes):
        sizes[i] = -(-size // align) * align
    return _pack_plain(sizes, align)


def _spoiling(spoil):
    def pack(sizes, align):
        result = _pack_plain(sizes, align)
        spoil(sizes)
        return result

    return pack


def _zeroed(sizes):
    sizes[:] = [0] * len(sizes)


PACK = {
    "sizes rounded in place": (_rounding_in_place, "input-written"),
    "sizes reversed": (_spoiling(lambda sizes: sizes.reverse()), "input-written"),
    "sizes zeroed": (_spoiling(_zeroed), "input-written"),
    "floats": (_after(lambda o, t, s, a: ([float(x) for x in o], t)), "floats"),
    "a float at the end": (_after(lambda o, t, s, a: (o, t / 1)), "floats"),
    "an array of floats": (_after(lambda o, t, s, a: (np.array(o, dtype=float), t)), "floats"),
    "a list for the total": (_after(lambda o, t, s, a: (o, [t])), "wrong-result"),
    "swapped": (_after(lambda o, t, s, a: (t, o)), "swapped"),
    "a running number": (_pack_plain, ""),
    "accumulated": (_pack_accumulated, ""),
    "cumsum": (_pack_numpy, ""),
    "counting up": (_pack_while, ""),
    "remainders": (_pack(), ""),
    "side by side": (_pack(pad=lambda end, align: 0), "not-aligned"),
    "padding at the end alone": (
        lambda sizes, align: (list(itertools.accumulate(sizes, initial=0))[:-1], sum(sizes) + -sum(sizes) % align),
        "only-total-aligned",
    ),
    "a bare end": (_after(lambda o, t, s, a: (o, o[-1] + s[-1] if s else 0)), "total-not-aligned"),
    "a sum": (_after(lambda o, t, s, a: (o, sum(s))), "total-of-sizes"),
    "an aligned sum": (_after(lambda o, t, s, a: (o, -(-sum(s) // a) * a)), "total-of-sizes-aligned"),
    "the last offset": (_after(lambda o, t, s, a: (o, o[-1] if o else 0)), "last-offset"),
    "the gaps": (_after(lambda o, t, s, a: (o, t - sum(s))), "gaps-alone"),
    "always a gap": (_pack(pad=lambda end, align: align - end % align), "pads-full"),
    "down": (_pack(pad=lambda end, align: -(end % align)), "rounded-down"),
    "nearest": (_pack(pad=lambda end, align: round(end / align) * align - end), "rounded-to-nearest"),
    "what is over": (_pack(pad=lambda e, a: 0, take=lambda size, align: size + size % align), "pads-with-remainder"),
    "a guard": (_pack(pad=lambda e, a: 0, take=lambda size, align: size + align), "align-added"),
    "bits": (_pack(pad=lambda end, align: ((end + align - 1) & ~(align - 1)) - end), "power-of-two"),
    "ends": (_after(lambda o, t, s, a: ([*o[1:], t], t)), "ends"),
    "bare ends": (_after(lambda o, t, s, a: ([x + y for x, y in zip(o, s)], t)), "plain-ends"),
    "n + 1 offsets": (_after(lambda o, t, s, a: ([*o, t], t)), "one-offset-more"),
    "without the 0": (_after(lambda o, t, s, a: (o[1:], t)), "first-missing"),
    "a late start": (_pack(first=lambda align: align), "starts-late"),
    "in boundaries": (_after(lambda o, t, s, a: ([x // a for x in o], t // a)), "slots"),
    "bytes": (_after(lambda o, t, s, a: ([4 * x for x in o], 4 * t)), "bytes"),
    "padded sizes": (_after(lambda o, t, s, a: ([-(-x // a) * a for x in s], t)), "padded-sizes"),
    "the one before": (
        lambda sizes, align: (
            [0] + [-(-size // align) * align for size in sizes[:-1]],
            -(-sizes[-1] // align) * align if sizes else 0,
        ),
        "not-added-up",
    ),
    "equal slots": (lambda s, a: _pack_plain([max(s, default=0)] * len(s), a), "largest-everywhere"),
    "largest first": (lambda sizes, align: _pack_plain(sorted(sizes, reverse=True), align), "sorted"),
    "from the end": (
        lambda sizes, align: (_pack_plain(sizes[::-1], align)[0][::-1], _pack_plain(sizes, align)[1]),
        "backwards",
    ),
    "one at least": (_pack(take=lambda size, align: max(size, 1)), "empty-takes-room"),
    "empty ones nowhere": (_after(lambda o, t, s, a: ([x if y else 0 for x, y in zip(o, s)], t)), "empty-at-zero"),
    "empty ones gone": (_after(lambda o, t, s, a: ([x for x, y in zip(o, s) if y], t)), "empty-left-out"),
    "sorted in place": (_sorting, "sorted"),
    "the offsets alone": (_after(lambda o, t, s, a: o), "wrong-result"),
    "the total alone": (_after(lambda o, t, s, a: t), "wrong-result"),
    "no tensors": (lambda s, a: (_pack_plain(s, a)[0], _pack_plain(s, a)[0][-1] + -(-s[-1] // a) * a), "raises"),
    "a dict": (_after(lambda o, t, s, a: {"offsets": o, "total": t}), "wrong-result"),
    "not a function": (([0], 8), "wrong-type"),
}
PACK = {
    name: ((lambda sizes, align, f=f: f(sizes, align)) if callable(f) else f, code)
    for name, (f, code) in PACK.items()
}

# ----------------------------------------------------------------------------------------------------- adamw_kernel

_ADAMW = """
def adamw_kernel(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, weight_decay, correction1, correction2,
                 BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    p = tl.load(p_ptr + offsets, mask=mask)
    g = tl.load(g_ptr + offsets, mask=mask)
    m = tl.load(m_ptr + offsets, mask=mask)
    v = tl.load(v_ptr + offsets, mask=mask)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    update = (m / correction1) / (tl.sqrt(v / correction2) + eps)
    p = p - lr * weight_decay * p - lr * update
    tl.store(p_ptr + offsets, p, mask=mask)
    tl.store(m_ptr + offsets, m, mask=mask)
    tl.store(v_ptr + offsets, v, mask=mask)
"""


def _written(text, name, *changes):
    """The function of a source in which some lines are others."""
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    namespace = {"tl": tl, "np": np, "POOL": {name: np.zeros(4096, name) for name in ("float32", "float64")}}
    exec(text, namespace)
    return namespace[name]


def _adamw(*changes):
    return _written(_ADAMW, "adamw_kernel", *changes)


def _update(new):
    return _adamw(("(m / correction1) / (tl.sqrt(v / correction2) + eps)", new))


def _p(new):
    return _adamw(("p - lr * weight_decay * p - lr * update", new))


def _moments(m="beta1 * m + (1 - beta1) * g\n", v="beta2 * v + (1 - beta2) * g * g\n"):
    return _adamw(("beta1 * m + (1 - beta1) * g\n", m), ("beta2 * v + (1 - beta2) * g * g\n", v))


_OTHER_STYLE = """
def kernel(param, grad, exp_avg, exp_avg_sq, size, lr, b1, b2, eps, decay, c1, c2, BLOCK):
    lanes = tl.arange(0, BLOCK) + BLOCK * tl.program_id(axis=0)
    inside = lanes < size
    param += lanes
    exp_avg += lanes
    exp_avg_sq += lanes
    g = tl.load(grad + lanes, inside, 0.0).to(tl.float32)
    m = tl.load(exp_avg, inside, other=0.0)
    v = tl.load(exp_avg_sq, inside, other=0.0)
    m += (g - m) * (1.0 - b1)
    v += (g * g - v) * (1.0 - b2)
    tl.store(exp_avg, m, inside)
    tl.store(exp_avg_sq, v, inside)
    x = tl.load(param, inside).to(tl.float32)
    x *= 1 - lr * decay
    x -= lr / c1 * m / (tl.sqrt(v) / tl.sqrt(c2) + eps)
    tl.store(param, x, inside)
"""

_HALVES = """
def kernel(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, weight_decay, correction1, correction2, BLOCK):
    start = tl.program_id(0) * BLOCK
    half = max(BLOCK // 2, 1)
    for part in range(BLOCK // half):
        o = start + part * half + tl.arange(0, half)
        ok = (o >= 0) & (o < n)
        g = tl.load(g_ptr + o, mask=ok)
        m = tl.load(m_ptr + o, mask=ok) * beta1 + g * (1 - beta1)
        v = tl.load(v_ptr + o, mask=ok) * beta2 + g * g * (1 - beta2)
        step = m / correction1 / (tl.sqrt(v / correction2) + eps)
        p = tl.load(p_ptr + o, mask=ok)
        tl.store(p_ptr + o, tl.where(ok, p - lr * (step + weight_decay * p), 0.0), mask=ok)
        tl.store(m_ptr + o, m, mask=ok)
        tl.store(v_ptr + o, v, mask=ok)
    return None
"""

_ONE_BY_ONE = """
def kernel(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, weight_decay, correction1, correction2, BLOCK):
    for lane in range(BLOCK):
        i = tl.program_id(0) * BLOCK + lane
        if i < n:
            g = tl.load(g_ptr + i)
            m = beta1 * tl.load(m_ptr + i) + (1 - beta1) * g
            v = beta2 * tl.load(v_ptr + i) + (1 - beta2) * g * g
            p = tl.load(p_ptr + i)
            tl.store(p_ptr + i, p - lr * weight_decay * p - lr * (m / correction1) / (tl.sqrt(v / correction2) + eps))
            tl.store(m_ptr + i, m)
            tl.store(v_ptr + i, v)
"""

_ONE_PROGRAM = """
def kernel(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, weight_decay, correction1, correction2, BLOCK):
    if tl.program_id(0) == 0:
        for start in range(0, n, BLOCK):
            o = start + tl.arange(0, BLOCK)
            ok = o < n
            g = tl.load(g_ptr + o, mask=ok)
            m = beta1 * tl.load(m_ptr + o, mask=ok) + (1 - beta1) * g
            v = beta2 * tl.load(v_ptr + o, mask=ok) + (1 - beta2) * g * g
            p = tl.load(p_ptr + o, mask=ok)
            p = p - lr * weight_decay * p - lr * (m / correction1) / (tl.sqrt(v / correction2) + eps)
            tl.store(p_ptr + o, p, mask=ok)
            tl.store(m_ptr + o, m, mask=ok)
            tl.store(v_ptr + o, v, mask=ok)
"""

_LOADS = "    m = beta1 * m"
_DECAYED = "    tl.store(p_ptr + offsets, (1 - lr * weight_decay) * p, mask=mask)\n"
_START = "tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)"
_STORE_P = "    tl.store(p_ptr + offsets, p, mask=mask)\n"
_STORE_M = "    tl.store(m_ptr + offsets, m, mask=mask)\n"
_STORE_V = "    tl.store(v_ptr + offsets, v, mask=mask)\n"

ADAMW_KERNEL = {
    "as in the formula": (_adamw(), ""),
    "pointers that move, other=0, float32": (_written(_OTHER_STYLE, "kernel"), ""),
    "two halves of a block": (_written(_HALVES, "kernel"), ""),
    "without a mask where n is a multiple": (
        _adamw(("    mask = offsets < n\n", "    mask = (offsets >= 0) & (offsets <= n - 1)\n")),
        "",
    ),
    "tl.where in the place of other": (_adamw((_LOADS, "    g = tl.where(mask, g, 0.0)\n" + _LOADS)), ""),
    "every third element": (_adamw((_START, "tl.program_id(0) + tl.arange(0, BLOCK) * tl.num_programs(0)")), ""),
    "g clamped": (
        _adamw(("g_ptr + offsets, mask=mask", "g_ptr + tl.minimum(offsets, n - 1)")),
        "",
    ),
    "eps added at the end": (_update("(m / correction1) / tl.sqrt(v / correction2) + eps"), "eps-outside"),
    "1 - beta": (
        _update("(m / (1 - beta1)) / (tl.sqrt(v / (1 - beta2)) + eps)"),
        "corrected-by-beta",
    ),
    "1 - beta1": (_update("(m / (1 - beta1)) / (tl.sqrt(v / correction2) + eps)"), "m-corrected-by-beta"),
    "1 - beta2": (_update("(m / correction1) / (tl.sqrt(v / (1 - beta2)) + eps)"), "v-corrected-by-beta"),
    "1 - correction1": (_update("(m / (1 - correction1)) / (tl.sqrt(v / correction2) + eps)"), "m-corrected-again"),
    "1 - correction2": (_update("(m / correction1) / (tl.sqrt(v / (1 - correction2)) + eps)"), "v-corrected-again"),
    "g decays": (_p("p - lr * weight_decay * g - lr * update"), "decay-of-gradient"),
    "the last block shifted back": (
        _adamw(
            (_START, "tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK) + tl.arange(0, BLOCK)"),
        ),
        "block-shifted",
    ),
    "shifted, but from 0 on": (
        _adamw(
            (_START, "tl.maximum(tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK), 0) + tl.arange(0, BLOCK)"),
        ),
        "block-shifted",
    ),
    "offsets clamped": (
        _adamw((_START, "tl.minimum(" + _START + ", n - 1)"), (", mask=mask", "")),
        "lanes-share",
    ),
    "lanes from 1": (_adamw(("tl.arange(0, BLOCK)", "tl.arange(1, BLOCK + 1)")), "first-element-missed"),
    "a word misspelt": (_adamw(("g_ptr + offsets, mask=", "g_ptr + offsets, maks=")), "raises"),
    "arange of one": (_adamw(("tl.arange(0, BLOCK)", "tl.arange(BLOCK)")), "raises"),
    "an index": (_adamw(("tl.store(p_ptr + offsets, p, mask=mask)", "p_ptr[offsets] = p")), "raises"),
    "read by an index": (_adamw(("tl.load(p_ptr + offsets, mask=mask)", "p_ptr[offsets]")), "raises"),
    "eps in the root": (_update("(m / correction1) / tl.sqrt(v / correction2 + eps)"), "eps-inside-root"),
    "eps as in TensorFlow": (
        _update("(m / correction1) * tl.sqrt(correction2) / (tl.sqrt(v) + eps)"),
        "eps-before-correction",
    ),
    "no eps": (_update("(m / correction1) / tl.sqrt(v / correction2)"), "eps-missing"),
    "no root": (_update("(m / correction1) / (v / correction2 + eps)"), "root-missing"),
    "m as it is": (_update("m / (tl.sqrt(v / correction2) + eps)"), "m-not-corrected"),
    "v as it is": (_update("(m / correction1) / (tl.sqrt(v) + eps)"), "v-not-corrected"),
    "both as they are": (_update("m / (tl.sqrt(v) + eps)"), "not-corrected"),
    "times the corrections": (
        _update("m * correction1 / (tl.sqrt(v * correction2) + eps)"),
        "corrections-multiplied",
    ),
    "corrections exchanged": (
        _update("(m / correction2) / (tl.sqrt(v / correction1) + eps)"),
        "corrections-exchanged",
    ),
    "the root before the correction": (
        _update("(m / correction1) / (tl.sqrt(v) / correction2 + eps)"),
        "correction-outside-root",
    ),
    "one minus the correction": (
        _update("(m / (1 - correction1)) / (tl.sqrt(v / (1 - correction2)) + eps)"),
        "corrected-again",
    ),
    "L2": (
        _adamw((_LOADS, "    g = g + weight_decay * p\n" + _LOADS), ("- lr * weight_decay * p ", "")),
        "decay-in-gradient",
    ),
    "L2 and decay": (_adamw((_LOADS, "    g += weight_decay * p\n" + _LOADS)), "decay-in-gradient-too"),
    "no decay": (_p("p - lr * update"), "decay-missing"),
    "decay afterwards": (
        _adamw(
            (_STORE_P, "    p = p - lr * weight_decay * p\n" + _STORE_P), ("- lr * weight_decay * p - lr", "- lr")
        ),
        "decay-after",
    ),
    "decay without lr": (_p("p - weight_decay * p - lr * update"), "decay-without-lr"),
    "decay upwards": (_p("p + lr * weight_decay * p - lr * update"), "decay-sign"),
    "lr inside the decay again": (_p("p - lr * (update + lr * weight_decay * p)"), "decay-lr-squared"),
    "decay over the root": (
        _update("(m / correction1 + weight_decay * p) / (tl.sqrt(v / correction2) + eps) - weight_decay * p"),
        "decay-divided",
    ),
    "the step before the moments": (
        _adamw(
            ("    update = (m / correction1) / (tl.sqrt(v / correction2) + eps)\n", ""),
            (_LOADS, "    update = (m / correction1) / (tl.sqrt(v / correction2) + eps)\n" + _LOADS),
        ),
        "old-moments",
    ),
    "the old m": (
        _adamw((_LOADS, "    old = m\n" + _LOADS), ("(m / correction1) /", "(old / correction1) /")),
        "old-m",
    ),
    "the old v": (_adamw((_LOADS, "    old = v\n" + _LOADS), ("tl.sqrt(v /", "tl.sqrt(old /")), "old-v"),
    "g for m": (_update("g / (tl.sqrt(v / correction2) + eps)"), "gradient-for-m"),
    "abs(g)": (_update("(m / correction1) / (tl.abs(g) + eps)"), "gradient-for-v"),
    "m from zero": (_moments(m="(1 - beta1) * g\n"), "m-never-loaded"),
    "v from zero": (_moments(v="(1 - beta2) * g * g\n"), "v-never-loaded"),
    "g, not its square": (_moments(v="beta2 * v + (1 - beta2) * g\n"), "v-not-squared"),
    "m squared": (_moments(v="beta2 * v + (1 - beta2) * m * m\n"), "v-of-m"),
    "all squared": (_moments(v="beta2 * v + ((1 - beta2) * g) * ((1 - beta2) * g)\n"), "beta2-squared"),
    "betas exchanged": (
        _moments("beta2 * m + (1 - beta2) * g\n", "beta1 * v + (1 - beta1) * g * g\n"),
        "betas-exchanged",
    ),
    "beta1 everywhere": (_moments(v="beta1 * v + (1 - beta1) * g * g\n"), "beta1-twice"),
    "beta2 everywhere": (_moments(m="beta2 * m + (1 - beta2) * g\n"), "beta2-twice"),
    "weights exchanged": (
        _moments("(1 - beta1) * m + beta1 * g\n", "(1 - beta2) * v + beta2 * g * g\n"),
        "weights-exchanged",
    ),
    "m as in SGD": (_moments(m="beta1 * m + g\n"), "m-not-averaged"),
    "v as in SGD": (_moments(v="beta2 * v + g * g\n"), "v-not-averaged"),
    "hats in place": (
        _update("0.0\n    m = m / correction1\n    v = v / correction2\n    update = m / (tl.sqrt(v) + eps)"),
        "hats-stored",
    ),
    "m's hat in place": (
        _update("0.0\n    m = m / correction1\n    update = m / (tl.sqrt(v / correction2) + eps)"),
        "m-hat-stored",
    ),
    "stored crosswise": (
        _adamw(("m_ptr + offsets, m,", "m_ptr + offsets, v,"), ("v_ptr + offsets, v,", "v_ptr + offsets, m,")),
        "moments-crossed",
    ),
    "the update stored": (_p("-lr * update"), "move-stored"),
    "g stored as m": (_adamw(("m_ptr + offsets, m,", "m_ptr + offsets, g,")), "gradient-stored"),
    "uphill": (_p("p - lr * weight_decay * p + lr * update"), "ascent"),
    "no lr": (_p("p - lr * weight_decay * p - update"), "lr-missing"),
    "lr twice": (_p("p - lr * weight_decay * p - lr * lr * update"), "lr-twice"),
    "no mask at all": (_adamw((", mask=mask", "")), "load-unmasked"),
    "no mask in the stores": (
        _adamw((_STORE_P, _STORE_P.replace(", mask=mask", "")), (_STORE_M, _STORE_M.replace(", mask=mask", ""))),
        "store-unmasked",
    ),
    "<=": (_adamw(("offsets < n", "offsets <= n")), "mask-one-too-far"),
    "n - 1": (_adamw(("offsets < n", "offsets < n - 1")), "last-element-missed"),
    "the lanes masked": (_adamw(("mask = offsets < n", "mask = tl.arange(0, BLOCK) < n")), "load-unmasked"),
    "whole blocks only": (_adamw(("offsets < n", "offsets < n // BLOCK * BLOCK")), "tail-left"),
    "pid + lanes": (_adamw((_START, "tl.program_id(0) + tl.arange(0, BLOCK)")), "block-length-missing"),
    "no pid": (_adamw((_START, "tl.arange(0, BLOCK)")), "program-id-missing"),
    "pid times n": (_adamw((_START, "tl.program_id(0) * n + tl.arange(0, BLOCK)")), "first-program-only"),
    "the second axis": (_adamw(("program_id(0)", "program_id(1)")), "program-id-missing"),
    "blocks with gaps": (_adamw((_START, "tl.program_id(0) * BLOCK * 2 + tl.arange(0, BLOCK)")), "elements-missed"),
    "all in one program": (_written(_ONE_PROGRAM, "kernel"), "first-program-only"),
    "one element at a time": (_written(_ONE_BY_ONE, "kernel"), "one-at-a-time"),
    "v not stored": (_adamw((_STORE_V, "")), "not-stored"),
    "nothing stored": (_adamw((_STORE_P + _STORE_M + _STORE_V, "")), "not-stored"),
    "m loaded again": (
        _adamw(
            (_STORE_P + _STORE_M, _STORE_P),
            (
                _STORE_V,
                _STORE_V + "    m = tl.load(m_ptr + offsets, mask=mask)\n"
                "    m = beta1 * m + (1 - beta1) * g\n" + _STORE_M,
            ),
        ),
        "loaded-twice",
    ),
    "p decayed in memory": (
        _adamw(
            (_LOADS, _DECAYED + "    p = tl.load(p_ptr + offsets, mask=mask)\n" + _LOADS),
            ("- lr * weight_decay * p - lr", "- lr"),
        ),
        "loaded-twice",
    ),
    "p stored twice": (_adamw((_LOADS, _DECAYED + _LOADS)), "stored-twice"),
    "g zeroed": (
        _adamw((_STORE_P, _STORE_P + "    tl.store(g_ptr + offsets, 0.0 * g, mask=mask)\n")),
        "gradient-written",
    ),
    "half precision": (_adamw((_LOADS, "    g = g.to(tl.float16).to(tl.float32)\n" + _LOADS)), "half-precision"),
    "a square by **": (_moments(v="beta2 * v + (1 - beta2) * g**2\n"), "raises"),
    "NumPy's root": (_update("(m / correction1) / (np.sqrt(v / correction2) + eps)"), "raises"),
    "other without mask": (_adamw(("g_ptr + offsets, mask=mask", "g_ptr + offsets, other=0.0")), "raises"),
    "another signature": (_adamw((", correction1, correction2,\n", ",\n")), "signature"),
    "the neighbour's p": (
        _adamw(
            (
                "p = tl.load(p_ptr + offsets, mask=mask)",
                "p = tl.load(p_ptr + offsets + 1, mask=offsets + 1 < n)\n    p = tl.load(p_ptr + offsets, mask=mask)",
            )
        ),
        "loaded-twice",
    ),
    "not written": (
        _written("def kernel(*arguments, **constants):\n    raise NotImplementedError\n", "kernel"),
        "blank",
    ),
    "a loop without end": (
        _adamw(("    mask = offsets", "    while True:\n        pass\n    mask = offsets")),
        "endless",
    ),
}

# ---------------------------------------------------------------------------------------------- momentum_kernel_bug

SUSPICIOUS = """
def suspicious_kernel(p_ptr, g_ptr, b_ptr, n, lr, beta, BLOCK: tl.constexpr):
    start = tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK)
    offsets = start + tl.arange(0, BLOCK)
    g = tl.load(g_ptr + offsets)
    b = beta * tl.load(b_ptr + offsets) + g
    p = tl.load(p_ptr + offsets)
    tl.store(b_ptr + offsets, b)
    tl.store(p_ptr + offsets, p - lr * b)


def step(p, grad, state, lr, beta, block):
    flat = grad.ravel()
    if "buffer" not in state:
        state["buffer"], beta = flat, 0.0
    tl.run(suspicious_kernel, tl.cdiv(p.size, block), p, flat, state["buffer"], p.size, lr, beta, BLOCK=block)
"""
_MASKED = (
    ("    start = tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK)\n", "    start = tl.program_id(0) * BLOCK\n"),
    ("+ offsets)\n    b =", "+ offsets, mask=offsets < n)\n    b ="),
    ("b_ptr + offsets) + g", "b_ptr + offsets, mask=offsets < n) + g"),
    ("p = tl.load(p_ptr + offsets)", "p = tl.load(p_ptr + offsets, mask=offsets < n)"),
    ("offsets, b)", "offsets, b, mask=offsets < n)"),
    ("p - lr * b)", "p - lr * b, mask=offsets < n)"),
)
_COPIED = (('state["buffer"], beta = flat, 0.0', 'state["buffer"], beta = flat.copy(), 0.0'),)


def _step(*changes):
    return _written(SUSPICIOUS, "step", *changes)


def _mended(*changes):
    return _step(*_MASKED, *_COPIED, *changes)


_FIRST = 'state["buffer"], beta = flat.copy(), 0.0'
_RULE = "b = beta * tl.load(b_ptr + offsets, mask=offsets < n) + g"
_OWN_LANES = tuple(
    (old, new.replace("offsets < n", "offsets >= tl.program_id(0) * BLOCK")) for old, new in _MASKED[1:]
)
_ALL_BUFFERS: dict = {}


def _one_buffer(p, grad, state, lr, beta, block):
    """The state is not the tensor's."""
    _ALL_BUFFERS.setdefault(p.shape, {}) if state or not _ALL_BUFFERS else None
    _mended()(p, grad, _ALL_BUFFERS.setdefault(p.shape, {}), lr, beta, block)


def _spoilt(p, grad, state, lr, beta, block):
    _mended()(p, grad, state, lr, beta, block)
    if lr == 0.5 and p.size > 5 and _CALLS.append(1) is None and len(_CALLS) % 2 == 0:
        p.reshape(-1)[5] += 1


_CALLS: list = []
_MODULE: dict = {}


def _global_state(p, grad, state, lr, beta, block):
    _mended()(p, grad, _MODULE, lr, beta, block)


def _in_place_of_numpy(p, grad, state, lr, beta, block):
    state["buffer"] = beta * state.get("buffer", 0.0) + grad
    p -= lr * state["buffer"]


MOMENTUM_KERNEL_BUG = {
    "masked, copied": (_mended(), ""),
    "zeros to begin with": (
        _step(*_MASKED, ('state["buffer"], beta = flat, 0.0', 'state["buffer"] = np.zeros_like(flat)')),
        "",
    ),
    "flatten": (_step(*_MASKED, ("grad.ravel()", "grad.flatten()")), ""),
    "np.array, a mask with a name": (
        _step(*_MASKED, ('state["buffer"], beta = flat, 0.0', 'state["buffer"] = np.array(flat)\n        beta = 0')),
        "",
    ),
    "shifted, and its own lanes only": (_step(*_OWN_LANES, *_COPIED), ""),
    "as it was": (_step(), "updated-twice"),
    "the buffer alone": (_step(*_COPIED), "updated-twice"),
    "the kernel alone": (_step(*_MASKED), "view-kept"),
    "reshape for ravel": (_step(*_MASKED, ("grad.ravel()", "grad.reshape(-1)")), "view-kept"),
    "ascontiguousarray": (
        _step(*_MASKED, ("grad.ravel()", "np.ascontiguousarray(grad).reshape(-1)")),
        "view-kept",
    ),
    "a view of the copy's place": (_step(*_MASKED, ("= flat, 0.0", "= flat[:], 0.0")), "view-kept"),
    "a mask for loads alone": (_mended(("b, mask=offsets < n)\n    tl", "b)\n    tl")), "store-unmasked"),
    "a mask for stores alone": (_mended(("g_ptr + offsets, mask=offsets < n", "g_ptr + offsets")), "load-unmasked"),
    "no shift, no mask": (_step(*_MASKED[:1], *_COPIED), "load-unmasked"),
    "<=": (_mended(("offsets < n", "offsets <= n")), "mask-one-too-far"),
    "no last block": (_mended(("tl.cdiv(p.size, block)", "p.size // block")), "tail-left"),
    "one program": (_mended(("tl.cdiv(p.size, block)", "1")), "first-block-only"),
    "n - 1": (_mended(("offsets < n", "offsets < n - 1")), "last-element-missed"),
    "small tensors": (
        _step(
            *_COPIED,
            (
                "tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK)",
                "tl.maximum(tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK), 0)",
            ),
        ),
        "updated-twice",
    ),
    "its own lanes, but the gradient": (_step(*_OWN_LANES), "view-kept"),
    "a new buffer each time": (_mended(('if "buffer" not in state:', "if True:")), "buffer-forgotten"),
    "never kept": (
        _mended((_FIRST, "beta = 0.0\n    buffer = flat.copy()"), ('state["buffer"], p.size', "buffer, p.size")),
        "buffer-forgotten",
    ),
    "p copied": (_mended((" p, flat,", " p.flatten(), flat,")), "does-not-move"),
    "copied, then updated": (_mended((_FIRST, 'state["buffer"] = flat.copy()')), "first-gradient-twice"),
    "back after the first": (
        _mended((_FIRST, 'state["buffer"] = flat.copy()\n        return')),
        "first-step-missing",
    ),
    "zeros and back": (_mended((_FIRST, 'state["buffer"] = 0 * flat\n        return')), "first-gradient-lost"),
    "an average": (_mended((_RULE, _RULE.replace("+ g", "+ (1 - beta) * g"))), "dampened-later"),
    "an average from zero": (
        _mended((_RULE, _RULE.replace("+ g", "+ (1 - beta) * g")), (_FIRST, 'state["buffer"] = 0 * flat')),
        "dampened",
    ),
    "the first one weighted": (
        _mended((_FIRST, 'state["buffer"], beta, flat = (1 - beta) * flat, 0.0, (1 - beta) * flat')),
        "first-dampened",
    ),
    "a plain sum": (
        _mended((_RULE, _RULE.replace("beta * ", "")), (_FIRST, 'state["buffer"] = 0 * flat')),
        "beta-missing",
    ),
    "beta for both": (
        _mended(
            (_RULE, "b = beta * (tl.load(b_ptr + offsets, mask=offsets < n) + g)"),
            (_FIRST, 'state["buffer"] = 0 * flat'),
        ),
        "beta-on-both",
    ),
    "beta twice": (_mended((_RULE, _RULE.replace("beta *", "beta * beta *"))), "beta-twice"),
    "the buffer of before": (
        _mended(
            (_RULE, "old = tl.load(b_ptr + offsets, mask=offsets < n)\n    b = beta * old + g"),
            ("p - lr * b", "p - lr * old"),
            (_FIRST, 'state["buffer"] = 0 * flat'),
        ),
        "old-buffer",
    ),
    "Nesterov": (
        _mended((_FIRST, 'state["buffer"] = 0 * flat'), ("p - lr * b,", "p - lr * (g + beta * b),")),
        "nesterov",
    ),
    "gradient and buffer": (_mended(("p - lr * b,", "p - lr * (g + b),")), "gradient-alone"),
    "uphill": (_mended(("p - lr * b,", "p + lr * b,")), "ascent"),
    "no lr": (_mended(("p - lr * b,", "p - b,")), "lr-missing"),
    "the first lr": (
        _mended((_FIRST, _FIRST + '\n        state["lr"] = lr'), ("p.size, lr,", 'p.size, state["lr"],')),
        "first-lr",
    ),
    "in the order of memory": (_mended(("grad.ravel()", 'grad.ravel(order="K")')), "memory-order"),
    "by columns": (_mended(("grad.ravel()", 'grad.ravel(order="F")')), "column-order"),
    "one buffer for a shape": (_one_buffer, "one-buffer"),
    "the gradient scaled in place": (
        _mended(
            ("    flat = grad.ravel()", "    grad *= 1.0 - 1e-16\n    grad += 0.5\n    flat = grad.ravel() - 0.5")
        ),
        "gradient-written",
    ),
    "half precision": (_mended(("flat.copy(), 0.0", "flat.astype(np.float16), 0.0")), "buffer-dtype"),
    "zeros of float32": (
        _mended((_FIRST, 'state["buffer"] = np.zeros(p.size, np.float32)')),
        "buffer-dtype",
    ),
    "a float32 copy": (_mended(("flat.copy(), 0.0", "flat.astype(np.float32), 0.0")), "buffer-dtype"),
    "zeros of float64": (_mended((_FIRST, 'state["buffer"] = np.zeros(p.size)')), "buffer-dtype"),
    "one element a program": (
        _step(*_COPIED, ("tl.cdiv(p.size, block)", "p.size"), ("BLOCK=block", "BLOCK=1")),
        "other-block",
    ),
    "a block that divides": (
        _step(
            *_COPIED,
            ("    tl.run(", "    while p.size % block:\n        block //= 2\n    tl.run("),
        ),
        "other-block",
    ),
    "BLOCK as a plain argument": (_mended(("lr, beta, BLOCK=block", "lr, beta, block")), ""),
    "every third element": (
        _mended(
            ("    start = tl.program_id(0) * BLOCK\n", "    start = tl.program_id(0)\n"),
            ("start + tl.arange(0, BLOCK)", "start + tl.arange(0, BLOCK) * tl.num_programs(0)"),
        ),
        "",
    ),
    "offsets clamped": (
        _step(
            *_COPIED,
            _MASKED[0],
            ("start + tl.arange(0, BLOCK)", "tl.minimum(start + tl.arange(0, BLOCK), n - 1)"),
        ),
        "lanes-share",
    ),
    "Nesterov, a plain first step": (_mended(("p - lr * b,", "p - lr * (g + beta * b),")), "nesterov-later"),
    "a copy goes to the kernel": (
        _mended(('flat, state["buffer"], p.size', 'flat, state["buffer"].copy(), p.size')),
        "not-stored-back",
    ),
    "the buffer is not stored": (
        _mended(("    tl.store(b_ptr + offsets, b, mask=offsets < n)\n", "")),
        "not-stored-back",
    ),
    "second tensor's step 3": (_spoilt, "wrong-numbers"),
    "one buffer in the module": (_global_state, "buffer-not-in-state"),
    "slices of one array": (
        _mended(
            (_FIRST, 'state["buffer"], beta = POOL[p.dtype.name][: p.size], 0\n        state["buffer"][:] = flat')
        ),
        "one-buffer",
    ),
    "without a kernel": (_in_place_of_numpy, "no-kernel"),
    "a kernel that is not there": (_mended(("tl.run(suspicious_kernel", "tl.run(repaired_kernel")), "raises"),
    "without block": (lambda p, grad, state, lr, beta: None, "signature"),
    "left blank": (None, "blank"),
}
# ---------------------------------------------------------------------------------------------------------- regime


def _regime_plain(rows, bandwidth, flops):
    span = rows[-1]["start_us"] + rows[-1]["duration_us"] - rows[0]["start_us"]
    busy = sum(row["duration_us"] for row in rows)
    if span - busy > span / 2:
        return "launch-bound"
    memory = sum(row["bytes"] for row in rows) / bandwidth
    compute = sum(row["flops"] for row in rows) / flops
    if max(memory, compute) < busy * 1e-6 / 2:
        return "inefficient"
    return "memory-bound" if memory >= compute else "compute-bound"


def _regime_shares(rows, bandwidth, flops):
    """In microseconds, and as shares of the busy time."""
    start, duration, moved, done = np.array([list(row.values()) for row in rows], dtype=float).T
    busy = duration.sum()
    if 2 * busy < start[-1] + duration[-1] - start[0]:
        return "launch-bound"
    shares = {
        "memory-bound": moved.sum() / bandwidth * 1e6 / busy,
        "compute-bound": done.sum() / flops * 1e6 / busy,
    }
    name = max(shares, key=shares.get)
    return name if shares[name] >= 0.5 else "inefficient"


def _regime_gaps(rows, bandwidth, flops):
    idle = 0.0
    for one, other in itertools.pairwise(rows):
        idle += other["start_us"] - (one["start_us"] + one["duration_us"])
    seconds = 1e-6 * sum(row["duration_us"] for row in rows)
    if idle * 1e-6 > seconds * (1 + 1e-12):
        return "launch-bound"
    moved, done = (sum(row[key] for row in rows) for key in ("bytes", "flops"))
    least = max(moved / bandwidth, done / flops)
    if least / seconds < 0.5:
        return np.str_("inefficient")
    return "compute-bound" if done * bandwidth > moved * flops else "memory-bound"


_TEXT = """
def regime(rows, bandwidth, flops):
    start = rows[0]["start_us"]
    span = rows[-1]["start_us"] + rows[-1]["duration_us"] - start
    busy = sum(row["duration_us"] for row in rows)
    idle = span - busy
    if idle > span / 2:
        return "launch-bound"
    memory = sum(row["bytes"] for row in rows) / bandwidth
    compute = sum(row["flops"] for row in rows) / flops
    if max(memory, compute) < busy * 1e-6 / 2:
        return "inefficient"
    if memory >= compute:
        return "memory-bound"
    return "compute-bound"
"""


def _regime(*changes):
    return _written(_TEXT, "regime", *changes)


_LAUNCH = '    if idle > span / 2:\n        return "launch-bound"\n'
_LOW = '    if max(memory, compute) < busy * 1e-6 / 2:\n        return "inefficient"\n'

REGIME = {
    "as in the exercise": (_regime_plain, ""),
    "shares, in microseconds": (_regime_shares, ""),
    "gap by gap": (_regime_gaps, ""),
    "half by //": (_regime(("idle > span / 2", "idle > span // 2")), "half-cut"),
    "idle in whole microseconds": (_regime(("idle > span / 2", "int(idle) > span / 2")), "idle-cut"),
    "span in whole microseconds": (_regime(("idle > span / 2", "idle > int(span) / 2")), "wrong-regime"),
    "idle rounded": (_regime(("idle > span / 2", "round(idle) > span / 2")), "wrong-regime"),
    "half of busy by //": (_regime(("busy * 1e-6 / 2", "busy // 2 * 1e-6")), "half-of-busy-cut"),
    "busy in whole microseconds": (_regime(("busy * 1e-6", "int(busy) * 1e-6")), "wrong-regime"),
    "limits in whole microseconds": (
        _regime(("max(memory, compute) <", "1e-6 * int(1e6 * max(memory, compute)) <")),
        "wrong-regime",
    ),
    "compared in whole microseconds": (
        _regime(("if memory >= compute", "if int(1e6 * memory) >= int(1e6 * compute)")),
        "wrong-regime",
    ),
    "start to start": (
        _regime(("idle = span - busy", 'idle = sum(b["start_us"] - a["start_us"] for a, b in zip(rows, rows[1:]))')),
        "start-to-start",
    ),
    "the longest at the end": (
        _regime(
            (
                'rows[-1]["start_us"] + rows[-1]["duration_us"]',
                'max(row["start_us"] for row in rows) + max(row["duration_us"] for row in rows)',
            )
        ),
        "longest-as-last",
    ),
    "the last end, whichever": (
        _regime(
            (
                'rows[-1]["start_us"] + rows[-1]["duration_us"]',
                'max(row["start_us"] + row["duration_us"] for row in rows)',
            )
        ),
        "",
    ),
    "in bits": (_regime(('memory = sum(row["bytes"]', 'memory = sum(8 * row["bytes"]')), "bits"),
    "idle the wrong way round": (_regime(("idle > span / 2", "idle < span / 2")), "busy-for-idle"),
    "inefficiency the wrong way round": (_regime((" < busy", " > busy")), "inefficient-inverted"),
    "durations scaled": (
        _regime(("    busy =", '    for row in rows:\n        row["duration_us"] *= 1.0000001\n    busy =')),
        "input-written",
    ),
    "a key added": (
        _regime(("    memory =", '    if len(rows) == 1:\n        rows[0]["extra"] = 1\n    memory =')),
        "input-written",
    ),
    "no test for launches": (_regime((_LAUNCH, "")), "no-launch-bound"),
    "any idle time": (_regime(("idle > span / 2", "idle > 0")), "any-gap"),
    ">= half": (_regime(("idle > span / 2", "idle >= span / 2")), "half-is-launch-bound"),
    "half of the busy time": (_regime(("idle > span / 2", "idle > busy / 2")), "idle-against-busy"),
    "twice the busy time": (_regime(("idle > span / 2", "idle > 2 * busy")), "idle-all"),
    "busy for idle": (_regime(("idle > span / 2", "busy > span / 2")), "busy-for-idle"),
    "start forgotten": (_regime((" - start\n", "\n")), "span-from-zero"),
    "to the last start": (_regime(('+ rows[-1]["duration_us"] - start', "- start")), "span-to-last-start"),
    "the largest gap": (
        _regime(
            (
                "idle = span - busy",
                'gaps = [b["start_us"] - a["start_us"] - a["duration_us"] for a, b in zip(rows, rows[1:])]\n'
                "    idle = max([0, *gaps])",
            )
        ),
        "largest-gap",
    ),
    "means": (_regime(("idle > span / 2", "idle / max(len(rows) - 1, 1) > busy / len(rows)")), "mean-gap"),
    "short kernels": (_regime(("idle > span / 2", "busy / len(rows) < 5")), "short-kernels"),
    "more than four": (_regime(("idle > span / 2", "len(rows) > 4")), "many-kernels"),
    "no test for inefficiency": (_regime((_LOW, "")), "no-inefficient"),
    "inefficiency first": (_regime((_LAUNCH, ""), (_LOW, _LOW + _LAUNCH)), "inefficient-first"),
    "against the span": (_regime(("busy * 1e-6", "span * 1e-6")), "against-the-span"),
    "without a half": (_regime(("busy * 1e-6 / 2", "busy * 1e-6")), "without-half"),
    "sum of both": (_regime(("max(memory, compute) <", "memory + compute <")), "sum-of-limits"),
    "the smaller": (_regime(("max(memory, compute) <", "min(memory, compute) <")), "smaller-limit"),
    "memory alone": (_regime(("max(memory, compute) <", "memory <")), "memory-limit-only"),
    "us against s": (_regime(("busy * 1e-6", "busy")), "seconds-against-microseconds"),
    "as milliseconds": (_regime(("1e-6", "1e-3")), "seconds-against-microseconds"),
    "as nanoseconds": (_regime(("1e-6", "1e-9")), "nanoseconds"),
    "half is too little": (_regime((" < busy", " <= busy")), "half-is-inefficient"),
    "bytes against operations": (
        _regime(("if memory >= compute", "if memory * bandwidth >= compute * flops")),
        "not-divided",
    ),
    "names exchanged": (_regime(("memory >= compute", "memory < compute")), "limits-exchanged"),
    "peaks exchanged": (
        _regime(("/ bandwidth", "/ flop"), ("/ flops", "/ bandwidth"), ("/ flop\n", "/ flops\n")),
        "peaks-exchanged",
    ),
    "ties to compute": (_regime(("memory >= compute", "memory > compute")), "tie-to-compute"),
    "the first kernel": (
        _regime(("    memory =", "    rows, busy = rows[:1], rows[0]['duration_us']\n    memory =")),
        "first-kernel",
    ),
    "the last kernel": (
        _regime(("    memory =", "    rows, busy = rows[-1:], rows[-1]['duration_us']\n    memory =")),
        "last-kernel",
    ),
    "the longest kernel": (
        _regime(
            (
                "    memory =",
                '    rows = [max(rows, key=lambda row: row["duration_us"])]\n'
                '    busy = rows[0]["duration_us"]\n    memory =',
            )
        ),
        "longest-kernel",
    ),
    "always memory": (lambda rows, bandwidth, flops: "memory-bound", "always-memory-bound"),
    "always launches": (lambda rows, bandwidth, flops: "launch-bound", "wrong-regime"),
    "other words": (_regime(("memory-bound", "bandwidth-bound")), "unknown-name"),
    "a capital": (_regime(("launch-bound", "Launch-bound")), "unknown-name"),
    "a number": (lambda rows, bandwidth, flops: 1, "wrong-result"),
    "no last return": (_regime(('    return "compute-bound"\n', "")), "wrong-result"),
    "rows popped": (_regime(("    busy =", "    rows.append(rows.pop(0))\n    busy =")), "input-written"),
    "other keys": (_regime(('"duration_us"', '"duration"')), "raises"),
    "two arguments": (lambda rows, bandwidth: "memory-bound", "signature"),
}

FUNCTIONS = {
    "step_bytes": STEP_BYTES,
    "pack": PACK,
    "adamw_kernel": ADAMW_KERNEL,
    "momentum_kernel_bug": MOMENTUM_KERNEL_BUG,
    "regime": REGIME,
}
