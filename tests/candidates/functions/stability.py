"""Answers to the exercises of notebook 08 that ask for a function."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

# --------------------------------------------------------------------------------------------- clip_by_global_norm


def _clip_plain(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = sum((g.float() if g.element_size() == 2 else g).square().sum().item() for g in grads) ** 0.5
    if norm > max_norm and math.isfinite(norm):
        for g in grads:
            g *= max_norm / norm
    return norm


@torch.no_grad()
def _clip_foreach(parameters, max_norm):
    """On the device, without a branch but one."""
    grads = [p.grad for p in list(parameters) if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.double()) for g in grads]))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if torch.isfinite(norm):
        for g in grads:
            g.mul_(factor.to(g.dtype))
    return norm


def _clip_numpy(parameters, max_norm):
    parameters = [p for p in parameters if p.grad is not None]
    flat = np.concatenate([np.zeros(1)] + [p.grad.double().numpy().ravel() for p in parameters])
    norm = np.sqrt(flat @ flat)
    if np.isfinite(norm) and norm > max_norm:
        for p in parameters:
            p.grad.copy_(p.grad.double() * (max_norm / norm))
    return norm


def _clip_by_parts(
    size=lambda grads: math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads)),
    factor=lambda norm, bound: bound / norm if norm > bound and math.isfinite(norm) else 1.0,
    apply=lambda p, factor: p.grad.mul_(factor),
    gives=lambda norm, factor: norm,
    some=lambda parameters: [p for p in parameters if p.grad is not None],
):
    def clip_by_global_norm(parameters, max_norm):
        some_of_them = some(parameters)
        norm = size([p.grad for p in some_of_them])
        by = factor(norm, max_norm)
        for p in some_of_them:
            apply(p, by)
        return gives(norm, by)

    return clip_by_global_norm


def _clip_own_norm(parameters, max_norm):
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            total += p.grad.double().norm() ** 2
            p.grad *= min(1.0, max_norm / (p.grad.double().norm().item() + 1e-12))
    return float(total) ** 0.5


def _clip_values(parameters, max_norm):
    parameters = list(parameters)
    norm = _clip_plain(parameters, math.inf)
    clip_grad_value_(parameters, max_norm)
    return norm


def _clip_running(parameters, max_norm):
    total = 0.0
    for p in parameters:
        total += float((p.grad.double() ** 2).sum())
        if math.sqrt(total) > max_norm:
            p.grad.mul_(max_norm / math.sqrt(total))
    return math.sqrt(total)


def _clip_generator_gone(parameters, max_norm):
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in parameters if p.grad is not None))
    for p in parameters:
        if norm > max_norm:
            p.grad.mul_(max_norm / norm)
    return norm


def _replaces(p, factor):
    p.grad = p.grad * factor


def _clips_data(p, factor):
    p.grad.data = p.grad.data * factor


def _fills_missing(parameters):
    parameters = list(parameters)
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return parameters


def _to_float(p, factor):
    p.grad = None if p.grad is None else (p.grad.double() * factor)


def _clip_last(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads))
    for g in grads:
        factor = max_norm / norm if norm > max_norm else 1.0
    g *= factor
    return norm


def _decays(parameters, max_norm):
    parameters = list(parameters)
    norm = _clip_plain(parameters, max_norm)
    with torch.no_grad():
        for p in parameters:
            p.mul_(0.99)
    return norm


def _zeroes_what_is_not_finite(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads))
    for g in grads:
        g.mul_(min(1.0, max_norm / max(norm, 1e-12))) if math.isfinite(norm) else g.zero_()
    return norm


_CLIP = {
    "in float32": (
        _clip_by_parts(
            size=lambda gs: math.hypot(*[torch.linalg.vector_norm(g, dtype=torch.float32).item() for g in gs])
        ),
        "",
    ),
    "zeroes what is not finite": (_zeroes_what_is_not_finite, "infinite-norm"),
    "NaN left out of the norm": (
        _clip_by_parts(size=lambda gs: math.sqrt(sum(float((g.double() ** 2).nansum()) for g in gs))),
        "clipped-beside-nan",
    ),
    "plain": (_clip_plain, ""),
    "on the device": (_clip_foreach, ""),
    "in NumPy": (_clip_numpy, ""),
    "by parts": (_clip_by_parts(), ""),
    "torch's function": (clip_grad_norm_, "infinite-norm"),
    "each by its own norm": (_clip_own_norm, "each-by-its-own"),
    "by value": (_clip_values, "by-value"),
    "in the loop that sums": (_clip_running, "as-it-goes"),
    "after the loop": (_clip_last, "last-only"),
    "nothing is clipped": (_clip_by_parts(apply=lambda p, by: None), "not-clipped"),
    "a new tensor that nobody keeps": (_clip_by_parts(apply=lambda p, by: p.grad.mul(by)), "not-clipped"),
    "the generator is empty": (_clip_generator_gone, "walked-twice"),
    "twice": (_clip_by_parts(apply=lambda p, by: p.grad.mul_(by).mul_(by)), "clipped-twice"),
    "always": (_clip_by_parts(factor=lambda norm, bound: bound / norm), "always"),
    "maximum": (_clip_by_parts(factor=lambda norm, bound: max(1.0, bound / norm)), "only-lengthens"),
    "upside down": (_clip_by_parts(factor=lambda norm, bound: norm / bound if norm > bound else 1.0), "upside-down"),
    "upside down, bounded": (_clip_by_parts(factor=lambda norm, bound: min(1.0, norm / bound)), "upside-down-bounded"),
    "to one": (_clip_by_parts(factor=lambda norm, bound: min(1.0, 1 / norm)), "to-one"),
    "to one if above": (
        _clip_by_parts(factor=lambda norm, bound: 1 / norm if norm > bound else 1.0),
        "divided-by-norm",
    ),
    "thrown away": (_clip_by_parts(factor=lambda norm, bound: float(norm <= bound)), "zeroed"),
    "no root": (_clip_by_parts(size=lambda gs: sum(float((g.double() ** 2).sum()) for g in gs)), "root-missing"),
    "norms added": (_clip_by_parts(size=lambda gs: sum(g.norm().item() for g in gs)), "sum-of-norms"),
    "largest norm": (_clip_by_parts(size=lambda gs: max(g.norm().item() for g in gs)), "largest-norm"),
    "mean of norms": (_clip_by_parts(size=lambda gs: np.mean([g.norm().item() for g in gs])), "mean-norm"),
    "mean square": (
        _clip_by_parts(size=lambda gs: torch.cat([g.flatten() for g in gs]).square().mean().sqrt().item()),
        "root-mean-square",
    ),
    "largest element": (_clip_by_parts(size=lambda gs: max(g.abs().max().item() for g in gs)), "largest-element"),
    "1-norm": (_clip_by_parts(size=lambda gs: sum(g.abs().sum().item() for g in gs)), "sum-of-sizes"),
    "squares after the sum": (_clip_by_parts(size=lambda gs: abs(sum(g.sum().item() for g in gs))), "sum-of-elements"),
    "the first only": (_clip_by_parts(size=lambda gs: gs[0].norm().item()), "first-only"),
    "assigned, not added": (_clip_by_parts(size=lambda gs: gs[-1].norm().item()), "last-norm"),
    "gives the clipped norm": (_clip_by_parts(gives=lambda norm, by: norm * by), "returns-after"),
    "gives the factor": (_clip_by_parts(gives=lambda norm, by: by), "returns-factor"),
    "gives the square": (_clip_by_parts(gives=lambda norm, by: norm**2), "returns-square"),
    "gives nothing": (_clip_by_parts(gives=lambda norm, by: None), "wrong-result"),
    "a new gradient": (_clip_by_parts(apply=_replaces), "gradient-replaced"),
    "new data": (_clip_by_parts(apply=_clips_data), "gradient-replaced"),
    "gradients for all": (_clip_by_parts(some=_fills_missing), "gradient-made"),
    "None is not expected": (_clip_by_parts(some=list), "raises"),
    "another dtype": (_clip_by_parts(apply=_to_float), "raises"),
    "decays besides": (_decays, "weights-changed"),
    "divides by zero": (_clip_by_parts(factor=lambda norm, bound: min(1.0, bound / norm)), "raises"),
    "a tensor's zero": (
        _clip_by_parts(factor=lambda norm, bound: 1.0 if norm == 0 else bound / norm if norm > bound else 1.0),
        "infinite-norm",
    ),
    "NaN everywhere": (
        _clip_by_parts(factor=lambda norm, bound: 1.0 if norm < bound or norm == math.inf else bound / norm),
        "nan-spreads",
    ),
    "squares in 16 bits": (
        _clip_by_parts(size=lambda gs: math.sqrt(sum(g.square().sum().item() for g in gs))),
        "norm-in-16-bits",
    ),
    "norms in 16 bits": (
        _clip_by_parts(size=lambda gs: math.sqrt(sum(g.norm().item() ** 2 for g in gs))),
        "norm-in-16-bits",
    ),
    "needs a list": (lambda parameters, max_norm: len(parameters), "raises"),
    "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ------------------------------------------------------------------------------------------------- token_mean_step


def _count(micro_batches):
    return sum(int((y != -100).sum()) for _, y in micro_batches)


def _tokens_plain(model, loss_sum, micro_batches, optimizer):
    tokens = _count(micro_batches)
    if not tokens:
        return 0.0
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for x, y in micro_batches:
        loss = loss_sum(model, x, y)
        (loss / tokens).backward()
        total += loss.detach() / tokens
    optimizer.step()
    return total


def _divides_gradients(model, loss_sum, micro_batches, optimizer):
    """Sums first, and one division at the end, when the count is known."""
    optimizer.zero_grad(set_to_none=False)
    total, tokens = 0.0, 0
    for x, y in micro_batches:
        n = int(y.ne(-100).sum())
        if n == 0:
            continue
        loss = loss_sum(model, x, y)
        loss.backward()
        total, tokens = total + loss.item(), tokens + n
    if tokens == 0:
        return 0.0
    for p in model.parameters():
        p.grad /= tokens
    optimizer.step()
    return total / tokens


def _weighted_means(model, loss_sum, micro_batches, optimizer):
    counts = [int((y != -100).sum()) for _, y in micro_batches]
    if sum(counts) == 0:
        return 0.0
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None
    means = []
    for (x, y), n in zip(micro_batches, counts, strict=True):
        mean = loss_sum(model, x, y) / max(n, 1)
        mean.backward(torch.tensor(n / sum(counts), dtype=mean.dtype))
        means.append(mean.item())
    optimizer.step()
    return np.average(means, weights=counts)


def _one_backward(model, loss_sum, micro_batches, optimizer):
    """Right, and keeps every graph."""
    tokens = _count(micro_batches)
    if tokens == 0:
        return 0.0
    optimizer.zero_grad()
    loss = sum(loss_sum(model, x, y) for x, y in micro_batches) / tokens
    loss.backward()
    optimizer.step()
    return loss


def _loop(
    weight=lambda n, y, counts, batches: 1 / sum(counts),
    start=lambda optimizer: optimizer.zero_grad(),
    each=lambda optimizer: None,
    end=lambda optimizer: optimizer.step(),
    gives=None,
    empty=lambda counts: sum(counts) == 0,
    sign=1,
    chosen=lambda batches: batches,
):
    def token_mean_step(model, loss_sum, micro_batches, optimizer):
        counts = [int((y != -100).sum()) for _, y in micro_batches]
        if empty(counts):
            return 0.0
        start(optimizer)
        sums = []
        for x, y in chosen(micro_batches):
            loss = loss_sum(model, x, y)
            (sign * loss * weight(int((y != -100).sum()), y, counts, micro_batches)).backward()
            sums.append(loss.item())
            each(optimizer)
        end(optimizer)
        return sum(sums) / sum(counts) if gives is None else gives(sums, counts, micro_batches)

    return token_mean_step


def _never(counts):
    return False


def _places(batches):
    return sum(y.numel() for _, y in batches)


def _stepless(optimizer):
    pass


def _steps_and_decays(optimizer):
    optimizer.step()
    with torch.no_grad():
        for p in optimizer.param_groups[0]["params"]:
            p.mul_(0.9)


def _drops(optimizer):
    optimizer.zero_grad()
    optimizer.step()


def _by_hand(model, loss_sum, micro_batches, optimizer):
    tokens = _count(micro_batches)
    model.zero_grad()
    for x, y in micro_batches:
        (loss_sum(model, x, y) / tokens).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.5 * p.grad
    return 0.0


def _count_while_going(model, loss_sum, micro_batches, optimizer):
    optimizer.zero_grad()
    total, tokens = 0.0, 0
    for x, y in micro_batches:
        tokens += int((y != -100).sum())
        loss = loss_sum(model, x, y)
        (loss / tokens).backward()
        total += loss.item()
    optimizer.step()
    return total / tokens


def _zeroes_inside(model, loss_sum, micro_batches, optimizer):
    tokens, total = _count(micro_batches), 0.0
    for x, y in micro_batches:
        optimizer.zero_grad()
        loss = loss_sum(model, x, y) / tokens
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _zeroes_with_the_first(model, loss_sum, micro_batches, optimizer):
    tokens, total = _count(micro_batches), 0.0
    for i, (x, y) in enumerate(micro_batches if tokens else []):
        if (y == -100).all():
            continue
        if i == 0:
            optimizer.zero_grad()
        loss = loss_sum(model, x, y) / tokens
        loss.backward()
        total += loss.item()
    if tokens:
        optimizer.step()
    return total


def _counts_by(counted):
    def token_mean_step(model, loss_sum, micro_batches, optimizer):
        tokens, total = sum(int(counted(y).sum()) for _, y in micro_batches), 0.0
        if tokens == 0:
            return 0.0
        optimizer.zero_grad()
        for x, y in micro_batches:
            loss = loss_sum(model, x, y) / tokens
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return token_mean_step


_TOKENS = {
    "zero_grad with the first": (_zeroes_with_the_first, "left-over-where-first-is-empty"),
    "targets from zero": (_counts_by(lambda y: y >= 0), "negative-not-counted"),
    "-1 is padding too": (_counts_by(lambda y: (y != -100) & (y != -1)), "negative-not-counted"),
    "plain": (_tokens_plain, ""),
    "divides gradients": (_divides_gradients, ""),
    "weighted means": (_weighted_means, ""),
    "one backward": (_one_backward, ""),
    "by parts": (_loop(), ""),
    "the bug of 2024": (_loop(lambda n, y, counts, b: 1 / n / len(b)), "mean-of-means"),
    "sum of means": (_loop(lambda n, y, counts, b: 1 / n), "sum-of-means"),
    "sum": (_loop(lambda n, y, counts, b: 1.0), "sum"),
    "over micro-batches": (_loop(lambda n, y, counts, b: 1 / len(b)), "over-micro-batches"),
    "divided twice": (_loop(lambda n, y, counts, b: 1 / sum(counts) / len(b)), "divided-twice"),
    "times the micro-batches": (_loop(lambda n, y, counts, b: len(b) / sum(counts)), "times-micro-batches"),
    "all places": (_loop(lambda n, y, counts, b: 1 / _places(b)), "padding-counted"),
    "means over all places": (_loop(lambda n, y, counts, b: 1 / y.numel() / len(b)), "padding-counted-in-means"),
    "targets above zero": (
        _loop(lambda n, y, counts, b: 1 / sum(int((t > 0).sum()) for _, t in b)),
        "class-zero-not-counted",
    ),
    "sequences": (_loop(lambda n, y, counts, b: 1 / sum(len(t) for _, t in b)), "over-sequences"),
    "means by sequences": (
        _loop(lambda n, y, counts, b: len(y) / sum(len(t) for _, t in b) / n),
        "weighted-by-sequences",
    ),
    "the last one's tokens": (_loop(lambda n, y, counts, b: 1 / counts[-1]), "over-the-last"),
    "the first one's tokens": (_loop(lambda n, y, counts, b: 1 / counts[0]), "over-the-first"),
    "counts while going": (_count_while_going, "over-tokens-so-far"),
    "zero_grad in the loop": (
        _zeroes_inside,
        "last-only",
    ),
    "the first only": (_loop(chosen=lambda batches: batches[:1], gives=lambda s, c, b: 1.0), "first-only"),
    "not the last": (_loop(chosen=lambda batches: batches[:-1], gives=lambda s, c, b: 1.0), "last-missing"),
    "no zero_grad": (_loop(start=_stepless), "left-over"),
    "no zero_grad, mean of means": (
        _loop(lambda n, y, counts, b: 1 / n / len(b), start=_stepless),
        "left-over-mean-of-means",
    ),
    "zero_grad before the step": (_loop(end=_drops), "gradient-dropped"),
    "uphill": (_loop(sign=-1), "ascends"),
    "a step each": (_loop(each=lambda optimizer: optimizer.step(), end=_stepless), "steps"),
    "a step each and one more": (_loop(each=lambda optimizer: optimizer.step()), "steps"),
    "no step": (_loop(end=_stepless), "no-step"),
    "weights by hand": (_by_hand, "no-step"),
    "decays besides": (_loop(end=_steps_and_decays), "weights-changed"),
    "gives the sum": (_loop(gives=lambda s, c, b: sum(s)), "returns-sum"),
    "gives the mean of means": (
        _loop(gives=lambda s, c, b: np.mean(np.divide(s, c))),
        "returns-mean-of-means",
    ),
    "gives the last": (_loop(gives=lambda s, c, b: s[-1] / sum(c)), "returns-last"),
    "gives the last mean": (_loop(gives=lambda s, c, b: s[-1] / c[-1]), "returns-last-mean"),
    "gives the mean over places": (_loop(gives=lambda s, c, b: sum(s) / _places(b)), "returns-with-padding"),
    "gives the mean of sums": (_loop(gives=lambda s, c, b: np.mean(s)), "returns-over-micro-batches"),
    "gives nothing": (_loop(gives=lambda s, c, b: None), "wrong-result"),
    "an empty micro-batch": (
        _loop(
            gives=lambda s, c, b: (
                float(torch.tensor(s, dtype=torch.float64) / torch.tensor(c) @ torch.tensor(c, dtype=torch.float64))
                / sum(c)
            )
        ),
        "empty-micro-batch",
    ),
    "moves without tokens": (
        _loop(
            lambda n, y, counts, b: 1 / max(sum(counts), 1), empty=_never, gives=lambda s, c, b: sum(s) / max(sum(c), 1)
        ),
        "moves-without-tokens",
    ),
    "divides by no tokens": (_loop(empty=_never), "raises"),
    "NaN without tokens": (
        lambda model, loss_sum, micro_batches, optimizer: (
            _tokens_plain(model, loss_sum, micro_batches, optimizer) if _count(micro_batches) else math.nan
        ),
        "loss-without-tokens",
    ),
    "other arguments": (lambda model, batches, optimizer: None, "signature"),
    "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# --------------------------------------------------------------------------------------------------- ema_corrected


def _ema_plain(values, decay):
    m, t, out = 0.0, 0, np.full(values.shape, np.nan)
    for i, row in enumerate(values):
        if not np.all(np.isfinite(row)):
            out[i] = out[i - 1] if i else np.nan
            continue
        t += 1
        m = decay * m + (1 - decay) * row
        out[i] = m / (1 - decay**t)
    return out


def _ema_by_weights(values, decay):
    """Weights and their sum, as pandas has it with ignore_na."""
    rows, total, weight = [], np.zeros(values.shape[1]), 0.0
    for row in values:
        if not np.isnan(row - row).any():
            total, weight = decay * total + row, decay * weight + 1
        rows.append(total / weight if weight else np.full(values.shape[1], np.nan))
    return np.array(rows)


def _ema_in_torch(values, decay):
    rows = torch.tensor(values)
    m, t, last = torch.zeros_like(rows[0]), 0, torch.full_like(rows[0], torch.nan)
    path = []
    for row in rows:
        if row.isfinite().all():
            t, m = t + 1, torch.lerp(m, row, 1 - decay)
            last = m / (1 - decay**t)
        path.append(last)
    return torch.stack(path)


def _ema_of_the_sound(values, decay):
    """The sound rows alone, and each row of the result from the last of them."""
    sound = np.isfinite(values).all(axis=1)
    kept, out = values[sound], np.full(values.shape, np.nan)
    n = np.cumsum(sound)
    for i, count in enumerate(n):
        if count:
            weights = decay ** np.arange(count - 1, -1, -1.0)
            out[i] = weights @ kept[:count] / weights.sum()
    return out


def _ema(
    keep=lambda row: np.isfinite(row).all(),
    clean=lambda row: row,
    update=lambda m, row, b: b * m + (1 - b) * row,
    divide=lambda b, t, i: 1 - b**t,
    bad=lambda last, row: last,
    skip=lambda m, b: m,
    first=0.0,
):
    def ema_corrected(values, decay):
        m, t, last = np.full(values.shape[1], first), 0, np.full(values.shape[1], np.nan)
        rows = []
        for i, row in enumerate(values):
            if keep(row):
                t += 1
                m = update(m, clean(row), decay)
                last = m / np.float64(divide(decay, t, i))
                rows.append(last)
            else:
                m = skip(m, decay)
                rows.append(bad(last, row))
        return np.array(rows)

    return ema_corrected


def _ema_from_first(values, decay):
    average, rows = None, []
    for row in values:
        if np.isfinite(row).all():
            average = row if average is None else decay * average + (1 - decay) * row
        rows.append(np.full(values.shape[1], np.nan) if average is None else average)
    return np.stack(rows)


def _ema_aliased(values, decay):
    m, t, out, rows = np.zeros(values.shape[1]), 0, np.full(values.shape[1], np.nan), []
    for row in values:
        if np.isfinite(row).all():
            t += 1
            m = decay * m + (1 - decay) * row
            out[:] = m / (1 - decay**t)
        rows.append(out)
    return np.stack(rows)


def _ema_cleans_in_place(values, decay):
    values[~np.isfinite(values)] = np.nan
    return _ema_plain(values, decay)


def _ema_kept(values, decay):
    m, t, rows = np.zeros(values.shape[1]), 0, []
    last = np.full(values.shape[1], np.nan)
    for row in values:
        if np.isfinite(row).all():
            t += 1
            m = (decay * m + (1 - decay) * row) / (1 - decay**t)
            last = m
        rows.append(last)
    return np.stack(rows)


def _ema_fast_start(values, decay):
    out = _ema_plain(values, decay)
    return out + 0 / np.sum(np.isfinite(values).all(axis=1)) if len(values) > 1 else out[0]


_EMA = {
    "plain": (_ema_plain, ""),
    "weights and their sum": (_ema_by_weights, ""),
    "in torch": (_ema_in_torch, ""),
    "the sound rows alone": (_ema_of_the_sound, ""),
    "by parts": (_ema(), ""),
    "not corrected": (_ema(divide=lambda b, t, i: 1.0), "not-corrected"),
    "from the first": (_ema_from_first, "starts-at-first"),
    "the row's number": (_ema(divide=lambda b, t, i: 1 - b ** (i + 1)), "counts-broken"),
    "decays on": (_ema(skip=lambda m, b: b * m), "decays-uncounted"),
    "decays on, and counts": (
        _ema(skip=lambda m, b: b * m, divide=lambda b, t, i: 1 - b ** (i + 1)),
        "decays-over-broken",
    ),
    "NaN spreads": (_ema(keep=lambda row: True), "spoiled"),
    "nan_to_num": (
        _ema(keep=lambda row: True, clean=lambda row: np.nan_to_num(row, posinf=0, neginf=0)),
        "elements-as-zero",
    ),
    "zeros for broken rows": (
        _ema(keep=lambda row: True, clean=lambda row: row if np.isfinite(row).all() else np.zeros_like(row)),
        "broken-as-zero",
    ),
    "isnan": (_ema(keep=lambda row: not np.isnan(row).any()), "nan-only"),
    "any": (_ema(keep=lambda row: np.isfinite(row).any()), "not-finite"),
    "NaN rows": (_ema(bad=lambda last, row: np.full_like(row, np.nan)), "nan-row"),
    "the row itself": (_ema(bad=lambda last, row: row), "broken-row-itself"),
    "rows of zeros": (_ema(bad=lambda last, row: 0 * last), "wrong-numbers"),
    "zeros at first": (lambda values, decay: np.nan_to_num(_ema_plain(values, decay)), "starts-at-zero"),
    "exchanged": (_ema(update=lambda m, row, b: (1 - b) * m + b * row), "weights-swapped"),
    "no gain": (_ema(update=lambda m, row, b: b * m + row), "gain-missing"),
    "1 - decay": (_ema(divide=lambda b, t, i: 1 - b), "gain-only"),
    "power outside": (_ema(divide=lambda b, t, i: (1 - b) ** t), "power-outside"),
    "multiplied": (_ema(divide=lambda b, t, i: 1 / (1 - b**t)), "multiplied"),
    "one ahead": (_ema(divide=lambda b, t, i: 1 - b ** (t + 1)), "count-ahead"),
    "carried on": (_ema_kept, "compounds"),
    "one array": (_ema_aliased, "last-alone"),
    "dropped": (
        lambda values, decay: _ema_plain(values[np.isfinite(values).all(axis=1)], decay),
        "wrong-shape",
    ),
    "one row": (_ema_fast_start, "wrong-shape"),
    "cleans in place": (_ema_cleans_in_place, "input-written"),
    "nothing": (lambda values, decay: None, "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ---------------------------------------------------------------------------------------------------------- z_loss


def _z_plain(logits, coefficient):
    top = np.max(logits, axis=-1, keepdims=True)
    e = np.exp(logits - top)
    log_z = np.log(e.sum(axis=-1)) + top[:, 0]
    return coefficient * (log_z**2).mean(), (2 * coefficient / len(logits) * log_z)[:, None] * e / e.sum(
        -1, keepdims=True
    )


def _z_autograd(logits, coefficient):
    x = torch.tensor(logits, requires_grad=True)
    loss = coefficient * torch.logsumexp(x, dim=-1).square().mean()
    loss.backward()
    return loss, x.grad


def _z_reduced(logits, coefficient):
    """logaddexp, and softmax from differences."""
    log_z = np.logaddexp.reduce(logits, axis=1)
    rows, loss = [], 0.0
    for x, z in zip(logits, log_z, strict=True):
        loss += coefficient * z * z / len(logits)
        rows.append(2 * coefficient * z / len(logits) * np.exp(x - z))
    return [loss, np.stack(rows)]


def _z_einsum(logits, coefficient):
    x = torch.from_numpy(logits.copy())
    z = torch.logsumexp(x, 1)
    return (coefficient * z @ z / len(z)).item(), torch.einsum(
        "i,ik->ik", 2 * coefficient * z / len(z), torch.softmax(x, 1)
    ).numpy()


def _z(
    log_z=lambda x: np.logaddexp.reduce(x, axis=1),
    share=lambda x: np.exp(x - np.logaddexp.reduce(x, axis=1)[:, None]),
    loss=lambda z, c: c * (z**2).mean(),
    gradient=lambda z, p, c: 2 * c * z[:, None] * p / len(z),
):
    def z_loss(logits, coefficient):
        z, p = log_z(logits), share(logits)
        return loss(z, coefficient), gradient(z, p, coefficient)

    return z_loss


def _naive_share(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def _z_masked(logits, coefficient):
    """The entropy's form: p times the logits."""
    loss, gradient = _z_plain(logits, coefficient)
    return loss + 0 * (np.exp(logits - logits.max()) * logits).sum(), gradient


def _z_in_place(logits, coefficient):
    top = logits.max(axis=1, keepdims=True)
    logits -= top
    rest = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_z = top + rest
    return coefficient * (log_z**2).mean(), 2 * coefficient * log_z * np.exp(logits - rest) / len(logits)


_Z = {
    "-inf as -1e4": (
        lambda logits, coefficient: _z_plain(np.where(np.isneginf(logits), -1e4, logits), coefficient),
        "mask-replaced",
    ),
    "-inf as -1e30": (
        lambda logits, coefficient: _z_plain(np.where(np.isneginf(logits), -1e30, logits), coefficient),
        "",
    ),
    "plain": (_z_plain, ""),
    "autograd": (_z_autograd, ""),
    "row by row": (_z_reduced, ""),
    "in torch": (_z_einsum, ""),
    "by parts": (_z(), ""),
    "summed": (_z(loss=lambda z, c: c * (z**2).sum(), gradient=lambda z, p, c: 2 * c * z[:, None] * p), "summed"),
    "loss summed": (_z(loss=lambda z, c: c * (z**2).sum()), "loss-summed"),
    "gradient of the sum": (_z(gradient=lambda z, p, c: 2 * c * z[:, None] * p), "gradient-not-averaged"),
    "over all elements": (_z(gradient=lambda z, p, c: 2 * c * z[:, None] * p / p.size), "averaged-over-elements"),
    "not squared": (_z(loss=lambda z, c: c * z.mean(), gradient=lambda z, p, c: c * p / len(z)), "not-squared"),
    "loss not squared": (_z(loss=lambda z, c: c * z.mean()), "loss-not-squared"),
    "square of the mean": (_z(loss=lambda z, c: c * z.mean() ** 2), "square-of-mean"),
    "halved": (
        _z(loss=lambda z, c: c / 2 * (z**2).mean(), gradient=lambda z, p, c: c * z[:, None] * p / len(z)),
        "halved",
    ),
    "a constant": (lambda logits, coefficient: _z_plain(logits, 1e-4), "coefficient-of-palm"),
    "no coefficient": (lambda logits, coefficient: _z_plain(logits, 1.0), "coefficient-missing"),
    "no coefficient below": (
        _z(gradient=lambda z, p, c: 2 * z[:, None] * p / len(z)),
        "coefficient-missing-in-gradient",
    ),
    "coefficient squared": (_z(loss=lambda z, c: ((c * z) ** 2).mean()), "coefficient-squared"),
    "no 2": (_z(gradient=lambda z, p, c: c * z[:, None] * p / len(z)), "two-missing"),
    "no log Z": (_z(gradient=lambda z, p, c: 2 * c * p / len(z)), "level-missing"),
    "no softmax": (_z(gradient=lambda z, p, c: 2 * c * z[:, None] * np.ones_like(p) / len(z)), "softmax-missing"),
    "evenly": (_z(gradient=lambda z, p, c: 2 * c * z[:, None] * np.ones_like(p) / p.size), "spread-evenly"),
    "uphill": (_z(gradient=lambda z, p, c: -2 * c * z[:, None] * p / len(z)), "gradient-turned"),
    "softmax derived": (_z(gradient=lambda z, p, c: 2 * c * z[:, None] * p * (1 - p) / len(z)), "softmax-derived"),
    "only softmax": (_z(gradient=lambda z, p, c: p / len(z)), "only-softmax"),
    "max": (_z(log_z=lambda x: x.max(axis=1)), "largest-logit"),
    "max forgotten": (
        _z(log_z=lambda x: np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1))),
        "largest-not-added",
    ),
    "mean exp": (_z(log_z=lambda x: np.log(np.exp(x).mean(axis=1))), "mean-exp"),
    "base 2": (_z(log_z=lambda x: np.log2(np.exp(x).sum(axis=1))), "base-two"),
    "mean logit": (_z(log_z=lambda x: x.mean(axis=1)), "mean-logit"),
    "logits squared": (
        lambda logits, coefficient: (coefficient * np.mean(logits**2), 2 * coefficient * logits / logits.size),
        "mean-squared-logit",
    ),
    "columns": (
        lambda logits, coefficient: (_z_plain(logits.T, coefficient)[0], _z_plain(logits.T, coefficient)[1].T),
        "columns",
    ),
    "one Z": (_z(log_z=lambda x: np.full(len(x), np.log(np.exp(x).sum()))), "z-of-all"),
    "overflows": (_z(log_z=lambda x: np.log(np.exp(x).sum(axis=1))), "overflows"),
    "softmax overflows": (_z(share=_naive_share), "gradient-overflows"),
    "p times logits": (_z_masked, "masked-class"),
    "one maximum": (
        _z(log_z=lambda x: x.max() + np.log(np.exp(x - x.max()).sum(axis=1))),
        "overflows",
    ),
    "subtracts in place": (_z_in_place, "input-written"),
    "the loss alone": (lambda logits, coefficient: _z_plain(logits, coefficient)[0], "wrong-result"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

FUNCTIONS = {
    "clip_by_global_norm": _CLIP,
    "token_mean_step": _TOKENS,
    "ema_corrected": _EMA,
    "z_loss": _Z,
}
