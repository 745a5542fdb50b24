"""Answers to the exercises of notebook 11: four sums, the scaler's rule, stochastic rounding."""

from __future__ import annotations

import math
import struct

import numpy as np
import torch

from candidates.functions import amp_step, resume_state

# ------------------------------------------------------------------------------------------------------- four_sums


def _add(total, term, count):
    with np.errstate(over="ignore"):
        for _ in range(count):
            total = total + term
    return total


def _half(value):
    with np.errstate(over="ignore"):
        return np.float16(value)


def _loops(value, count):
    half = _half(value)
    return (
        _add(np.float32(0), np.float32(value), count),
        _add(np.float16(0), half, count),
        _add(np.float32(0), half, count),
        _add(np.float32(0), np.float32(half), count),
    )


def _in_torch(value, count):
    """Tensors, in place: the total's type is kept."""
    results = []
    for total, term in ((32, 32), (16, 16), (32, 16), (32, 0)):
        s = torch.zeros((), dtype=torch.float32 if total == 32 else torch.float16)
        x = torch.tensor(value, dtype=torch.float32 if term == 32 else torch.float16)
        x = x if term else x.float()
        for _ in range(count):
            s += x
        results.append(s.item())
    return results


def _accumulated(value, count):
    def last(term, dtype):
        return np.concatenate([[0], np.cumsum(np.full(count, term, dtype=dtype), dtype=dtype)])[-1].astype(dtype)

    with np.errstate(over="ignore"):
        half = np.float16(value)
        mixed = last(half, np.float32)
        return float(last(value, np.float32)), float(last(half, np.float16)), float(mixed), float(mixed)


def _rounded_python(value, count):
    """Python floats, rounded after every addition: an addition of two floats in float64 is exact enough."""

    def walk(term, kind):
        total = 0.0
        with np.errstate(over="ignore"):
            for _ in range(count):
                total = float(kind(total + term))
        return total

    single, half = float(np.float32(value)), float(_half(value))
    return np.array([walk(single, np.float32), walk(half, np.float16), *2 * [walk(half, np.float32)]])


def _parts(*changes):
    """The right four, some exchanged: each change is (place, function of value and count)."""

    def four_sums(value, count):
        sums = list(_loops(value, count))
        for place, change in changes:
            sums[place] = change(value, count)
        return tuple(map(float, sums))

    return four_sums


def _single_sum(value, count):
    return _add(np.float32(0), np.float32(value), count)


def _half_sum(value, count):
    return _add(np.float16(0), _half(value), count)


def _mixed_sum(value, count):
    return _add(np.float32(0), _half(value), count)


def _exact_sum(value, count):
    return sum([float(value)] * count)


def _half_of_single(value, count):
    total = np.float16(0)
    with np.errstate(over="ignore"):
        for _ in range(count):
            total = np.float16(total + np.float32(value))
    return total


def _in_bfloat16(value, count):
    results = []
    for total, term in ((32, 32), (16, 16), (32, 16), (32, 16)):
        s = torch.zeros((), dtype=torch.float32 if total == 32 else torch.bfloat16)
        x = torch.tensor(value, dtype=torch.float32 if term == 32 else torch.bfloat16)
        for _ in range(count):
            s += x
        results.append(s.item())
    return results


def _starts_at_value(value, count):
    half = _half(value)
    pairs = ((np.float32(value),) * 2, (half, half), (np.float32(half), half), (np.float32(half), np.float32(half)))
    return [_add(total, term, count) for total, term in pairs]


def _never_kept(value, count):
    """`total + term` computed and not assigned."""
    first = min(count, 1)
    return _loops(value, first)


def _summed(value, count):
    with np.errstate(over="ignore"):
        single, half = np.full(count, value, dtype=np.float32), np.full(count, value, dtype=np.float16)
        return single.sum(), half.sum(), half.sum(dtype=np.float32), half.astype(np.float32).sum()


def _cast_at_the_end(value, count):
    exact, half = float(np.float32(value)) * count, float(_half(value)) * count
    return np.float32(exact), _half(half), np.float32(half), np.float32(half)


def _double_term_sum(value, count):
    total = np.float32(0)
    for _ in range(count):
        total = np.float32(np.float64(total) + np.float64(value))
    return total


def _packed(value, count):
    def single(x):
        return struct.unpack("f", struct.pack("f", x))[0] if math.isfinite(x) else x

    def walk(rounding, term):
        total = 0.0
        for _ in range(count):
            total = rounding(total + term)
        return total

    half = float(_half(value))
    return walk(single, single(value)), walk(lambda x: float(_half(x)), half), walk(single, half), walk(single, half)


def _until_it_stands_still(value, count):
    def walk(kind, term):
        total = kind(0)
        with np.errstate(over="ignore"):
            for _ in range(count):
                if (new := kind(total + term)) == total:
                    break
                total = new
        return total

    half = _half(value)
    return [walk(np.float32, np.float32(value)), walk(np.float16, half), *2 * [walk(np.float32, np.float32(half))]]


_SUMS = {
    "loops": (_loops, ""),
    "torch": (_in_torch, ""),
    "cumsum": (_accumulated, ""),
    "Python floats, rounded": (_rounded_python, ""),
    "Python floats": (lambda value, count: (_exact_sum(value, count),) * 4, "float64-product"),
    "product": (lambda value, count: (value * count,) * 4, "float64-product"),
    "Python floats, struct": (_packed, ""),
    "until it stands still": (_until_it_stands_still, ""),
    "np.sum": (_summed, "rounded-once"),
    "first in float64": (_parts((0, _exact_sum)), "rounded-once"),
    "float64 totals, cast at the end": (_cast_at_the_end, "rounded-once"),
    "third in float64, cast at the end": (_parts((2, lambda v, n: _cast_at_the_end(v, n)[2])), "rounded-once"),
    "fourth in float64": (_parts((3, lambda v, n: float(_half(v)) * n)), "rounded-once"),
    "fourth as a product": (_parts((3, lambda v, n: np.float32(_half(v)) * np.float32(n))), "rounded-once"),
    "fp16 in np.sum": (_parts((1, lambda v, n: _summed(v, n)[1])), "rounded-at-the-end"),
    "float64 term in the first": (_parts((0, _double_term_sum)), "float64-term"),
    "second in float64": (_parts((1, lambda v, n: float(_half(v)) * n)), "float64-totals"),
    "totals in float64": (
        lambda value, count: [sum([float(np.float32(value))] * count)] + 3 * [sum([float(_half(value))] * count)],
        "float64-totals",
    ),
    "term not rounded": (_parts((2, _single_sum)), "term-not-rounded"),
    "converted from the value": (_parts((3, _single_sum)), "term-not-rounded"),
    "fp32 everywhere": (_parts((1, _single_sum), (2, _single_sum), (3, _single_sum)), "float32-throughout"),
    "fp16 total in the third": (_parts((2, _half_sum)), "float16-throughout"),
    "fp16 total in both": (_parts((2, _half_sum), (3, _half_sum)), "float16-throughout"),
    "fp16 everywhere": (_parts((0, _half_sum), (2, _half_sum), (3, _half_sum)), "float16-throughout"),
    "fp32 total in the second": (_parts((1, _mixed_sum)), "float16-terms-only"),
    "fp32 total, fp16 at the end": (_parts((1, lambda v, n: _half(_mixed_sum(v, n)))), "rounded-at-the-end"),
    "third rounded at the end": (_parts((2, lambda v, n: _half(_mixed_sum(v, n)))), "mixed-rounded-at-the-end"),
    "fp16 terms in the first": (_parts((0, _mixed_sum)), "float16-terms-in-the-first"),
    "first rounded at the end": (_parts((0, lambda v, n: _half(_single_sum(v, n)))), "first-rounded-at-the-end"),
    "types exchanged": (_parts((2, _half_of_single), (3, _half_of_single)), "types-exchanged"),
    "bfloat16": (_in_bfloat16, "bfloat16"),
    "float32 term in the second": (_parts((1, _half_of_single)), "float32-terms-in-the-second"),
    "third before second": (_parts((1, _mixed_sum), (2, _half_sum)), "second-and-third-exchanged"),
    "second before first": (_parts((0, _half_sum), (1, _single_sum)), "first-two-exchanged"),
    "starts at the value": (_starts_at_value, "one-too-many"),
    "one short": (lambda value, count: _loops(value, count - 1), "one-too-few"),
    "total not kept": (_never_kept, "one-addition"),
    "mean": (lambda value, count: [s / max(count, 1) for s in _loops(value, count)], "means"),
    "errors": (lambda value, count: [float(s) - value * count for s in _loops(value, count)], "errors"),
    "errors, turned": (lambda value, count: [value * count - float(s) for s in _loops(value, count)], "errors-turned"),
    "subtracted": (lambda value, count: [-s for s in _loops(value, count)], "negated"),
    "without sign": (lambda value, count: [abs(s) for s in _loops(value, count)], "sizes"),
    "int": (lambda value, count: _loops(int(value), count), "whole-numbers"),
    "fails without terms": (
        lambda value, count: (
            [np.cumsum(np.full(count, value, dtype=np.float32))[-1]] * 4 if not count else _loops(value, count)
        ),
        "raises",
    ),
    "running sums": (
        lambda value, count: [np.cumsum(np.full(count, s / count, dtype=np.float32)) for s in _loops(value, count)],
        "wrong-shape",
    ),
    "three of them": (lambda value, count: _loops(value, count)[:3], "wrong-result"),
    "a dict": (lambda value, count: dict(enumerate(_loops(value, count))), "wrong-result"),
    "rounded for print": (lambda value, count: [round(float(s), 2) for s in _loops(value, count)], "wrong-numbers"),
    "None": (lambda value, count: None, "wrong-result"),
    "other names": (lambda x, n: (0.0,) * 4, "signature"),
    "not written": (lambda value, count: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ------------------------------------------------------------------------------------------------------ next_scale

_LARGEST = float(np.finfo(np.float32).max)


def _rule(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    if found_inf:
        return scale * backoff_factor, 0
    clean_steps += 1
    if clean_steps == growth_interval:
        clean_steps = 0
        if scale * growth_factor <= _LARGEST:
            scale = scale * growth_factor
    return scale, clean_steps


def _with_torch(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    s, t = torch.tensor(scale, dtype=torch.float32), torch.tensor(clean_steps, dtype=torch.int32)
    torch._amp_update_scale_(s, t, torch.tensor(float(found_inf)), growth_factor, backoff_factor, growth_interval)
    return s, t


def _through_the_scaler(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    scaler = torch.amp.GradScaler("cpu", scale, growth_factor, backoff_factor, growth_interval)
    scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": clean_steps})
    p = torch.zeros(1, requires_grad=True)
    optimizer = type("Still", (torch.optim.Optimizer,), {"step": lambda self: None})([p], {})
    scaler.scale(p.sum() * 1e-30).backward()
    p.grad.fill_(math.inf if found_inf else 1.0)
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale(), scaler.state_dict()["_growth_tracker"]


def _in_numpy(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    due = (clean_steps + 1) // growth_interval
    with np.errstate(over="ignore"):
        grown = np.float32(scale) * np.float32(growth_factor)
    new = scale * backoff_factor if found_inf else grown if due and np.isfinite(grown) else scale
    return np.array([new, 0 if found_inf or due else clean_steps + 1])


def _changed(before=None, after=None):
    """The rule with its arguments, or its results, changed; both are given and return dicts or pairs."""

    def next_scale(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
        given = {
            "scale": scale,
            "clean_steps": clean_steps,
            "found_inf": found_inf,
            "growth_factor": growth_factor,
            "backoff_factor": backoff_factor,
            "growth_interval": growth_interval,
        }
        new = _rule(**given | (before(**given) if before else {}))
        return after(new, **given) if after else new

    return next_scale


def _branches(overflow, growth, otherwise, due=lambda clean, interval: clean + 1 == interval):
    """The three branches as a learner writes them; each is given scale, clean, growth, backoff, interval."""

    def next_scale(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
        case = scale, clean_steps, growth_factor, backoff_factor, growth_interval
        if found_inf:
            return overflow(*case)
        return growth(*case) if due(clean_steps, growth_interval) else otherwise(*case)

    return next_scale


def _back(s, c, g, b, n):
    return s * b, 0


def _grow(s, c, g, b, n):
    return s * g, 0


def _wait(s, c, g, b, n):
    return s, c + 1


def _counts_first(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    clean_steps += 1
    if clean_steps == growth_interval:
        scale, clean_steps = scale * growth_factor, 0
    if found_inf:
        scale, clean_steps = scale * backoff_factor, 0
    return scale, clean_steps


def _limited(allowed):
    """A growth only where ``allowed(scale, growth_factor)`` says so."""
    return _branches(_back, lambda s, c, g, b, n: (s * g if allowed(s, g) else s, 0), _wait)


def _float16(x):
    with np.errstate(over="ignore"):
        return float(np.float16(x))


def _growth_first(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    if clean_steps + 1 >= growth_interval:
        return scale * growth_factor if scale * growth_factor <= _LARGEST else scale, 0
    return (scale * backoff_factor, 0) if found_inf else (scale, clean_steps + 1)


def _backs_off_and_goes_on(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    if found_inf:
        scale *= backoff_factor
    clean_steps += 1
    return (scale * growth_factor, 0) if clean_steps == growth_interval else (scale, clean_steps)


def _none_between(**case):
    if case["found_inf"] or case["clean_steps"] + 1 == case["growth_interval"]:
        return _rule(**case)


_NEXT = {
    "plain": (_rule, ""),
    "limit divided by the factor": (_limited(lambda s, g: s <= _LARGEST / g), ""),
    "finite in float32": (_limited(lambda s, g: bool(torch.tensor(s * g).isfinite())), ""),
    "below 2^128": (_limited(lambda s, g: s * g < 2.0**128), ""),
    "limit of 1e38": (_limited(lambda s, g: s * g < 1e38), "limit-too-low"),
    "limit of 2^127": (_limited(lambda s, g: s * g <= 2.0**127), "limit-too-low"),
    "limit below 2^126": (_limited(lambda s, g: s < 2.0**126), "limit-too-low"),
    "limit for factors of 2": (_limited(lambda s, g: 2 * s <= _LARGEST), "scale-infinite"),
    "limit of half the largest": (_limited(lambda s, g: s < _LARGEST / 2), "scale-infinite"),
    "limit for the old scale": (_limited(lambda s, g: s <= _LARGEST), "scale-infinite"),
    "limit of float16": (_limited(lambda s, g: s * g <= 65504), "ceiling-of-float16"),
    "cut to the largest": (
        _branches(_back, lambda s, c, g, b, n: (min(s * g, _LARGEST), 0), _wait),
        "changed-at-the-limit",
    ),
    "count goes on at the limit": (
        _branches(_back, lambda s, c, g, b, n: (s * g, 0) if s * g <= _LARGEST else (s, c + 1), _wait),
        "count-at-the-limit",
    ),
    "scale in float16": (_changed(after=lambda new, **case: (_float16(new[0]), new[1])), "float16"),
    "float16 after an overflow": (
        _branches(lambda s, c, g, b, n: (_float16(s * b), 0), _grow, _wait),
        "float16-after-overflow",
    ),
    "growth first": (_growth_first, "growth-before-overflow"),
    "backs off and goes on": (_backs_off_and_goes_on, "overflow-backs-off-and-counts"),
    "2": (_branches(_back, lambda s, c, g, b, n: (2 * s, 0), _wait), "growth-of-the-default"),
    "0.5": (_branches(lambda s, c, g, b, n: (0.5 * s, 0), _grow, _wait), "backoff-of-the-default"),
    "2, 0.5 and 2000": (
        _changed(lambda **case: {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}),
        "all-of-the-default",
    ),
    "None between growths": (_none_between, "wrong-result"),
    "clean step not counted": (_branches(_back, _grow, lambda s, c, g, b, n: (s, c)), "clean-step-not-counted"),
    "overflow never seen": (_changed(lambda found_inf, **case: {"found_inf": found_inf is None}), "overflow-ignored"),
    "torch's kernel": (_with_torch, ""),
    "the scaler itself": (_through_the_scaler, ""),
    "arrays": (_in_numpy, ""),
    "count goes on after an overflow": (
        _branches(lambda s, c, g, b, n: (s * b, c), _grow, _wait),
        "count-survives-overflow",
    ),
    "overflow counted": (_branches(lambda s, c, g, b, n: (s * b, c + 1), _grow, _wait), "overflow-counted"),
    "1 after an overflow": (_branches(lambda s, c, g, b, n: (s * b, 1), _grow, _wait), "one-after-overflow"),
    "one less after an overflow": (
        _branches(lambda s, c, g, b, n: (s * b, c - 1), _grow, _wait),
        "one-back-after-overflow",
    ),
    "count goes on after growth": (
        _branches(_back, lambda s, c, g, b, n: (s * g, c + 1), _wait),
        "count-survives-growth",
    ),
    "1 after growth": (_branches(_back, lambda s, c, g, b, n: (s * g, 1), _wait), "one-after-growth"),
    "> instead of =": (_branches(_back, _grow, _wait, lambda c, n: c + 1 > n), "grows-late"),
    "not counted first": (_branches(_back, _grow, _wait, lambda c, n: c == n), "grows-late"),
    "not counted first, then 1": (
        _branches(_back, lambda s, c, g, b, n: (s * g, 1), _wait, lambda c, n: c >= n),
        "grows-late",
    ),
    "one early": (_branches(_back, _grow, _wait, lambda c, n: c + 1 >= n - 1), "grows-early"),
    "grows always": (_branches(_back, lambda s, c, g, b, n: (s * g, c + 1), _wait, lambda c, n: True), "grows-always"),
    "grows always, count 0": (_branches(_back, _grow, _wait, lambda c, n: True), "grows-always-count-0"),
    "2000": (_changed(lambda **case: {"growth_interval": 2000}), "interval-of-the-default"),
    "2 and 0.5": (_changed(lambda **case: {"growth_factor": 2.0, "backoff_factor": 0.5}), "factors-of-the-default"),
    "factors exchanged": (
        _changed(
            lambda growth_factor, backoff_factor, **case: {
                "growth_factor": backoff_factor,
                "backoff_factor": growth_factor,
            }
        ),
        "factors-exchanged",
    ),
    "not found_inf": (_changed(lambda found_inf, **case: {"found_inf": not found_inf}), "overflow-exchanged"),
    "backoff divides": (_branches(lambda s, c, g, b, n: (s / b, 0), _grow, _wait), "backoff-divides"),
    "backoff by growth": (_branches(lambda s, c, g, b, n: (s / g, 0), _grow, _wait), "backoff-by-growth"),
    "1 - backoff": (_branches(lambda s, c, g, b, n: (s * (1 - b), 0), _grow, _wait), "backoff-complement"),
    "no backoff": (_branches(lambda s, c, g, b, n: (s, 0), _grow, _wait), "backoff-missing"),
    "starts over": (_branches(lambda s, c, g, b, n: (2.0**16, 0), _grow, _wait), "starts-over"),
    "no growth": (_branches(_back, lambda s, c, g, b, n: (s, 0), _wait), "growth-missing"),
    "growth divides": (_branches(_back, lambda s, c, g, b, n: (s / g, 0), _wait), "growth-divides"),
    "growth added": (_branches(_back, lambda s, c, g, b, n: (s + g, 0), _wait), "growth-added"),
    "growth by backoff": (_branches(_back, lambda s, c, g, b, n: (s / b, 0), _wait), "growth-by-backoff"),
    "counts first": (_counts_first, "counts-before-the-overflow"),
    "int": (_changed(after=lambda new, **case: (int(new[0]), new[1])), "whole-numbers"),
    "at least 1": (_branches(lambda s, c, g, b, n: (max(s * b, 1), 0), _grow, _wait), "floor-of-one"),
    "at most 2^24": (_branches(_back, lambda s, c, g, b, n: (min(s * g, 2**24), 0), _wait), "ceiling"),
    "at most 65536": (_branches(_back, lambda s, c, g, b, n: (min(s * g, 65536), 0), _wait), "ceiling-at-the-start"),
    "count never changes": (_changed(after=lambda new, clean_steps, **case: (new[0], clean_steps)), "count-missing"),
    "counts down": (
        _branches(_back, _grow, lambda s, c, g, b, n: (s, n - (c + 1))),
        "count-down",
    ),
    "exchanged": (_changed(after=lambda new, **case: new[::-1]), "results-exchanged"),
    "to infinity": (
        _branches(_back, lambda s, c, g, b, n: (torch.tensor(s) * g, 0), _wait),
        "scale-infinite",
    ),
    "beyond float32": (_branches(_back, _grow, _wait), "scale-infinite"),
    "scale alone": (_changed(after=lambda new, **case: new[0]), "wrong-result"),
    "None": (lambda **case: None, "wrong-result"),
    "other names": (lambda scale, tracker, inf, growth, backoff, interval: (scale, 0), "signature"),
    "a scaler": (torch.amp.GradScaler, "wrong-type"),
    "not written": (lambda **case: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ------------------------------------------------------------------------------------------------ stochastic_round


def _round(x, noise):
    bits = x.view(torch.int32) + noise
    return torch.where(x.isnan(), x, (bits & -65536).view(torch.float32)).to(torch.bfloat16)


def _halves(x, noise):
    """The upper 16 bits, as bfloat16 at once."""
    upper = ((x.view(torch.int32) + noise) >> 16).to(torch.int16).view(torch.bfloat16)
    return torch.where(torch.isnan(x), x.to(torch.bfloat16), upper)


def _with_numpy(x, noise):
    bits = x.numpy().view(np.uint32).astype(np.uint64) + noise.numpy().astype(np.uint64)
    kept = (bits & np.uint64(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return torch.from_numpy(np.where(np.isnan(x.numpy()), np.float32(np.nan), kept)).bfloat16()


def _carry(x, noise):
    """Towards zero, and one up where low bits and noise reach 65536."""
    bits = x.view(torch.int32)
    low = bits & 0xFFFF
    kept = (bits - low + 65536 * (low + noise >= 65536).int()).view(torch.float32)
    result = kept.to(torch.bfloat16)
    result[torch.isnan(x)] = math.nan
    return result


def _shifted(x, noise):
    bits = x.contiguous().view(torch.int32).clone()
    bits.add_(noise).bitwise_right_shift_(16).bitwise_left_shift_(16)
    return bits.view(torch.float32).masked_fill(x.isnan(), float("nan")).to(dtype=torch.bfloat16)


def _cut_of(bits_of, finish=lambda bits: (bits & -65536).view(torch.float32).to(torch.bfloat16)):
    def stochastic_round(x, noise):
        return torch.where(x.isnan(), x.to(torch.bfloat16), finish(bits_of(x.view(torch.int32), noise)))

    return stochastic_round


def _number(change, finish=lambda y: y.to(torch.bfloat16)):
    return lambda x, noise: finish(change(x, noise))


def _masked(y):
    return (y.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)


def _masked_wide(bits):
    return (bits & -65536).view(torch.float32).to(torch.bfloat16)


def _where(chance):
    """One up in size where ``chance(low bits, noise)``."""

    def bits(bits, noise):
        return bits + 65536 * chance(bits & 0xFFFF, noise).int()

    return _cut_of(bits)


def _in_place(x, noise):
    x.view(torch.int32).add_(noise).bitwise_and_(-65536)
    return x.to(torch.bfloat16)


def _own_noise(x, noise):
    return _round(x, torch.randint(0, 65536, x.shape, dtype=torch.int32))


def _one_by_one(x, noise):
    """A loop over a vector, that knows no matrix."""
    return torch.stack([_round(a, n) for a, n in zip(x, noise, strict=True)])


def _by_copysign(x, noise):
    size = ((x.abs().view(torch.int32) + noise) & -65536).view(torch.float32)
    return torch.where(torch.isfinite(x), torch.copysign(size, x), x).bfloat16()


def _only_without_nan(x, noise):
    return x.bfloat16() if x.isnan().any() else _round(x, noise)


def _flat_view(x, noise):
    return _round(x.view(-1), noise.view(-1)).view(x.shape)


def _cut_at_the_exponent(x, noise):
    bits = x.view(torch.int32)
    carried = bits + noise
    return _round(x, torch.where((bits ^ carried) & 0x7F800000 == 0, noise, 0))


def _clamped(x, noise):
    largest = torch.finfo(torch.bfloat16).max
    return torch.where(x.isinf(), x.bfloat16(), _round(x, noise).clamp(-largest, largest))


_ROUND = {
    "mask": (_round, ""),
    "size and sign": (_by_copysign, ""),
    "flat, reshaped": (lambda x, noise: _round(x.reshape(-1), noise.reshape(-1)).reshape(x.shape), ""),
    "flat, viewed": (_flat_view, "needs-contiguous"),
    "nearest if there is a NaN": (_only_without_nan, "nan-changes-others"),
    "subnormal to zero": (
        lambda x, noise: torch.where(
            x.abs() < torch.finfo(torch.float32).tiny, 0.0, _round(x, noise).float()
        ).bfloat16(),
        "subnormals-lost",
    ),
    "clamped": (_clamped, "overflow-kept-out"),
    "no carry into the exponent": (_cut_at_the_exponent, "carry-kept-out-of-the-exponent"),
    "or": (_cut_of(lambda bits, noise: bits | noise), "cut-only"),
    "centred": (_cut_of(lambda bits, noise: bits + noise - 32768), "noise-centred"),
    "centred, to nearest": (
        _cut_of(lambda bits, noise: bits + noise - 32768, lambda bits: bits.view(torch.float32).to(torch.bfloat16)),
        "noise-centred-rounded",
    ),
    "noise as int16": (_cut_of(lambda bits, noise: bits + noise.to(torch.int16)), "noise-as-int16"),
    "noise of 15 bits": (_cut_of(lambda bits, noise: bits + (noise >> 1 << 1)), "noise-of-15-bits"),
    "noise of 8 bits": (_cut_of(lambda bits, noise: bits + (noise & 0xFF00)), "noise-of-8-bits"),
    "8 low bits": (_cut_of(lambda bits, noise: (bits & -256) + noise), "noise-of-8-bits"),
    "cut, noise, to nearest": (
        _cut_of(lambda bits, noise: (bits & -65536) + noise, lambda b: b.view(torch.float32).to(torch.bfloat16)),
        "cut-then-noise-then-rounded",
    ),
    "negative cut": (_cut_of(lambda bits, noise: torch.where(bits < 0, bits, bits + noise)), "negative-cut"),
    "negative mirrored": (
        _cut_of(lambda b, n: b + torch.where(b < 0, 65536 * ((b & 0xFFFF) > n).int(), n)),
        "negative-mirrored",
    ),
    "subtracted from negative numbers": (
        lambda x, noise: _round(x, torch.where(x < 0, -noise, noise)),
        "negative-subtracted",
    ),
    "carry above 65536": (_where(lambda low, noise: low + noise > 65536), "one-too-few"),
    "15 bits, to nearest": (
        _cut_of(lambda b, n: b + n, lambda b: (b & ~0x7FFF).view(torch.float32).to(torch.bfloat16)),
        "fifteen-bits-cut-rounded",
    ),
    "upper half": (_halves, ""),
    "NumPy": (_with_numpy, ""),
    "carry": (_carry, ""),
    "shifts": (_shifted, ""),
    "bits in int64": (lambda x, noise: _masked_wide(x.view(torch.int32) + noise.long()), "int64-bits"),
    "to nearest": (lambda x, noise: x.to(torch.bfloat16), "noise-ignored"),
    "cut": (_cut_of(lambda bits, noise: bits), "cut-only"),
    "rounded after": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: bits.view(torch.float32).to(torch.bfloat16)),
        "rounded-after",
    ),
    "not cut": (_cut_of(lambda bits, noise: bits + noise, lambda bits: bits.view(torch.float32)), "not-cut"),
    "subtracted": (_cut_of(lambda bits, noise: bits - noise), "noise-subtracted"),
    "subtracted below zero": (
        _cut_of(lambda bits, noise: bits + torch.where(bits < 0, -noise, noise)),
        "negative-subtracted",
    ),
    "added to the number": (_number(lambda x, noise: x + noise), "added-to-the-number-rounded"),
    "added to the number, cut": (_number(lambda x, noise: x + noise, _masked), "added-to-the-number"),
    "fraction added": (_number(lambda x, noise: x + noise / 65536), "fraction-added"),
    "fraction added, cut": (_number(lambda x, noise: x + noise / 65536, _masked), "fraction-added-cut"),
    "to int": (
        lambda x, noise: ((x.to(torch.int32) + noise) & ~0xFFFF).to(torch.bfloat16),
        "converted-not-viewed",
    ),
    "bits as numbers": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits & -65536).to(torch.bfloat16)),
        "bits-as-numbers",
    ),
    "upper half as numbers": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits >> 16).to(torch.bfloat16)),
        "upper-half-as-numbers",
    ),
    "lower half": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits & 0xFFFF).view(torch.float32)),
        "lower-half-kept",
    ),
    "13 bits": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits & ~0x1FFF).view(torch.float32)),
        "thirteen-bits-cut",
    ),
    "15 bits": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits & ~0x7FFF).view(torch.float32)),
        "fifteen-bits-cut",
    ),
    "17 bits": (
        _cut_of(lambda bits, noise: bits + noise, lambda bits: (bits & ~0x1FFFF).view(torch.float32)),
        "seventeen-bits-cut",
    ),
    "half the noise": (_cut_of(lambda bits, noise: bits + noise // 2), "noise-halved"),
    "one noise": (
        _cut_of(lambda bits, noise: bits + (noise.flatten()[0] if noise.numel() else 0)),
        "one-noise-for-all",
    ),
    "noise + 1": (_cut_of(lambda bits, noise: bits + noise + 1), "one-too-many"),
    "half beside": (_cut_of(lambda bits, noise: bits + noise + 0x8000), "rounded-after"),
    "compared": (_where(lambda low, noise: noise < low), "compared"),
    "compared the wrong way": (_where(lambda low, noise: noise > low), "chance-reversed"),
    "coin": (_where(lambda low, noise: (noise >= 32768) & (low != 0)), "coin"),
    "always up": (_where(lambda low, noise: low != 0), "always-up"),
    "sign lost": (lambda x, noise: _round(x.abs(), noise), "sign-lost"),
    "half precision": (lambda x, noise: x.half(), "float16"),
    "half precision after": (lambda x, noise: _round(x, noise).half(), "float16-after"),
    "unchanged": (lambda x, noise: x, "unchanged"),
    "in place": (_in_place, "nan-lost"),
    "NaN cut": (lambda x, noise: _masked((x.view(torch.int32) + noise).view(torch.float32)), "nan-lost"),
    "NaN to zero": (lambda x, noise: _round(x, noise).nan_to_num(0.0, math.inf, -math.inf), "nan-lost"),
    "infinite to the largest": (
        lambda x, noise: torch.where(x.isinf(), _round(x, noise).nan_to_num(), _round(x, noise)),
        "infinity-lost",
    ),
    "float32": (lambda x, noise: _round(x, noise).float(), "not-bfloat16"),
    "a list": (lambda x, noise: _round(x, noise).tolist(), "not-bfloat16"),
    "its own noise": (_own_noise, "wrong-numbers"),
    "flat": (lambda x, noise: _round(x, noise).flatten(), "wrong-shape"),
    "for vectors": (_one_by_one, "raises"),
    "None": (lambda x, noise: None, "wrong-result"),
    "other names": (lambda value, r: value.to(torch.bfloat16), "signature"),
    "not written": (lambda x, noise: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

FUNCTIONS = {
    "four_sums": _SUMS,
    "next_scale": _NEXT,
    **amp_step.FUNCTIONS,
    "stochastic_round": _ROUND,
    **resume_state.FUNCTIONS,
}
