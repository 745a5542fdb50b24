"""Answers to the exercises of notebook 07."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import torch
from torch import nn

# -------------------------------------------------------------------------------------------------- warmup_cosine


def _plain(step, warmup, total, floor):
    if step < warmup:
        return (step + 1) / warmup
    if step >= total:
        return floor
    progress = (step - warmup) / (total - warmup)
    return floor + 0.5 * (1 - floor) * (1 + math.cos(math.pi * progress))


def _clipped(step, warmup, total, floor):
    share = np.clip((step - warmup) / (total - warmup), 0, 1)
    return min((step + 1) / max(warmup, 1), 1) * ((1 + floor) / 2 + (1 - floor) / 2 * np.cos(np.pi * share))


def _cosine_squared(step, warmup, total, floor):
    if step + 1 <= warmup:
        return torch.tensor((step + 1) / warmup, dtype=torch.float64)
    p = torch.tensor(min((step - warmup) / (total - warmup), 1.0), dtype=torch.float64)
    return torch.lerp(
        torch.tensor(floor, dtype=torch.float64), torch.ones((), dtype=torch.float64), torch.cos(p * math.pi / 2) ** 2
    )


def _torchs(step, warmup, total, floor):
    """torch's own schedulers, stepped as often."""
    from torch.optim import lr_scheduler

    if step < warmup:
        return (step + 1) / warmup
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler = lr_scheduler.CosineAnnealingLR(sgd, T_max=total - warmup, eta_min=floor)
        for _ in range(min(step, total) - warmup):
            scheduler.step()
    return scheduler.get_last_lr()[0]


def _cos(
    rise=lambda t, w, f: (t + 1) / w,
    below=lambda t, w: t < w,
    p=lambda t, w, n: (t - w) / (n - w),
    stop=lambda p: min(p, 1),
    shape=lambda p: (1 + math.cos(math.pi * p)) / 2,
    ends=lambda x, f: f + (1 - f) * x,
    late=lambda f: None,
):
    def warmup_cosine(step, warmup, total, floor):
        if below(step, warmup):
            return rise(step, warmup, floor)
        if step >= total and late(floor) is not None:
            return late(floor)
        return ends(shape(stop(p(step, warmup, total))), floor)

    return warmup_cosine


def _fails_without_warmup(step, warmup, total, floor):
    return min((step + 1) / warmup, _plain(step, warmup, total, floor) if step >= warmup else 1)


_COSINE = {
    "plain": (_plain, ""),
    "clipped": (_clipped, ""),
    "a squared cosine, in torch": (_cosine_squared, ""),
    "torch's schedulers": (_torchs, ""),
    "by parts": (_cos(), ""),
    "Hugging Face": (_cos(rise=lambda t, w, f: t / w), "warmup-from-zero"),
    "Hugging Face, guarded": (_cos(rise=lambda t, w, f: float(t) / float(max(1, w))), "warmup-from-zero"),
    "one more": (_cos(rise=lambda t, w, f: (t + 1) / (w + 1)), "warmup-one-longer"),
    "less or equal": (_cos(below=lambda t, w: t <= w), "warmup-above-one"),
    "rises from the floor": (_cos(rise=lambda t, w, f: f + (1 - f) * (t + 1) / w), "warmup-from-floor"),
    "no warmup": (_cos(rise=lambda t, w, f: 1.0), "warmup-missing"),
    "no warmup at all": (_cos(below=lambda t, w: False, p=lambda t, w, n: t / n), "no-warmup"),
    "a product": (
        lambda step, warmup, total, floor: min(1, (step + 1) / warmup) * _plain(step, 0, total, floor),
        "warmup-times-cosine",
    ),
    "from step 0": (_cos(p=lambda t, w, n: t / n), "progress-from-zero"),
    "total after the warmup": (_cos(p=lambda t, w, n: (t - w) / n), "total-without-warmup"),
    "ends at the last": (_cos(p=lambda t, w, n: (t - w) / (n - 1 - w)), "floor-at-the-last"),
    "one ahead": (_cos(p=lambda t, w, n: (t - w + 1) / (n - w)), "one-ahead"),
    "one behind": (_cos(p=lambda t, w, n: max(0, t - w - 1) / (n - w)), "one-behind"),
    "whole numbers": (_cos(p=lambda t, w, n: (t - w) // (n - w)), "whole-division"),
    "climbs again": (_cos(stop=lambda p: p), "rises-again"),
    "zero at the end": (_cos(late=lambda f: 0.0), "zero-after"),
    "one at the end": (_cos(late=lambda f: 1.0), "full-rate-after"),
    "no floor": (_cos(ends=lambda x, f: x), "floor-missing"),
    "maximum": (_cos(ends=lambda x, f: max(x, f)), "floor-as-minimum"),
    "floor on top": (_cos(ends=lambda x, f: f + x), "floor-added"),
    "floor off": (_cos(ends=lambda x, f: (1 - f) * x), "floor-not-added"),
    "halved twice": (_cos(ends=lambda x, f: f + 0.5 * (1 - f) * x), "amplitude-halved-twice"),
    "no one plus": (_cos(shape=lambda p: math.cos(math.pi * p)), "cosine-not-lifted"),
    "quarter": (_cos(shape=lambda p: math.cos(math.pi / 2 * p)), "quarter"),
    "full period": (_cos(shape=lambda p: (1 + math.cos(2 * math.pi * p)) / 2), "whole-period"),
    "minus": (_cos(shape=lambda p: (1 - math.cos(math.pi * p)) / 2), "upside-down"),
    "linear": (_cos(shape=lambda p: 1 - p), "linear"),
    "degrees": (_cos(shape=lambda p: (1 + math.cos(180 * p)) / 2), "degrees"),
    "Hugging Face, no floor": (_cos(rise=lambda t, w, f: t / w, ends=lambda x, f: x), "warmup-from-zero"),
    "climbs again, one ahead": (
        _cos(p=lambda t, w, n: (t - w + 1) / (n - w), stop=lambda p: p, rise=lambda t, w, f: t / w),
        "warmup-from-zero",
    ),
    "a floor of 1 is no schedule": (
        lambda step, warmup, total, floor: 1.0 if floor == 1 else _plain(step, warmup, total, floor),
        "warmup-missing",
    ),
    "divides by the warmup": (_fails_without_warmup, "raises"),
    "nothing after the end": (
        lambda step, warmup, total, floor: _plain(step, warmup, total, floor) if step < total else None,
        "wrong-result",
    ),
    "other arguments": (lambda t, w, n, f: _plain(t, w, n, f), "signature"),
    "a number": (0.5, "wrong-type"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# -------------------------------------------------------------------------------------------- warmup_stable_decay


def _wsd_plain(step, warmup, total, share, floor):
    fall = min(round(share * total), total - warmup)
    start = total - fall
    if step < warmup:
        return (step + 1) / warmup
    if step < start:
        return 1.0
    if step >= total:
        return floor
    return floor + (1 - floor) * (1 - math.sqrt((step - start) / fall))


def _wsd_from_the_end(step, warmup, total, share, floor):
    """Counts the updates that are left."""
    fall = min(round(share * total), total - warmup)
    left = max(total - step, 0)
    root = (1 - min(left / fall, 1)) ** 0.5
    return (step + 1) / warmup if step < warmup else 1 - (1 - floor) * root


def _wsd_interpolated(step, warmup, total, share, floor):
    start = max(total - int(np.rint(share * total)), warmup)
    p = np.interp(step, [start, total], [0.0, 1.0])
    return np.where(step < warmup, (step + 1) / max(warmup, 1), 1 + (floor - 1) * np.sqrt(p))


def _wsd_table(step, warmup, total, share, floor):
    start = max(warmup, total - round(share * total))
    rates = [(t + 1) / warmup for t in range(warmup)] + [1.0] * (start - warmup)
    rates += [1 - (1 - floor) * ((t - start) / (total - start)) ** 0.5 for t in range(start, total)]
    return rates[step] if step < total else floor


def _wsd(
    rise=lambda t, w: (t + 1) / w,
    below=lambda t, w, s: t < w,
    n=lambda w, T, c: min(round(c * T), T - w),
    start=lambda w, T, n: T - n,
    p=lambda t, s, n, T: (t - s) / n,
    stop=lambda p: min(p, 1.0),
    shape=lambda p: 1 - math.sqrt(p),
    ends=lambda x, f: f + (1 - f) * x,
    late=lambda f: None,
):
    def warmup_stable_decay(step, warmup, total, share, floor):
        fall = n(warmup, total, share)
        s = start(warmup, total, fall)
        if below(step, warmup, s):
            return rise(step, warmup)
        if step >= total and late(floor) is not None:
            return late(floor)
        return 1.0 if step < s else ends(shape(stop(p(step, s, fall, total))), floor)

    return warmup_stable_decay


def _wsd_no_fall_of_one(step, warmup, total, share, floor):
    fall = min(round(share * total), total - warmup)
    return _wsd_plain(step, warmup, total, share, floor) + 0 / (fall - 1)


_WSD = {
    "plain": (_wsd_plain, ""),
    "from the end": (_wsd_from_the_end, ""),
    "interpolated": (_wsd_interpolated, ""),
    "a table of all rates": (_wsd_table, ""),
    "by parts": (_wsd(), ""),
    "Hugging Face": (_wsd(rise=lambda t, w: t / w), "warmup-from-zero"),
    "one more": (_wsd(rise=lambda t, w: (t + 1) / (w + 1)), "warmup-one-longer"),
    "less or equal": (_wsd(below=lambda t, w, s: t <= w), "warmup-above-one"),
    "no warmup": (_wsd(rise=lambda t, w: 1.0), "warmup-missing"),
    "int": (_wsd(n=lambda w, T, c: min(int(c * T), T - w)), "cut-off"),
    "ceil": (_wsd(n=lambda w, T, c: min(math.ceil(c * T), T - w)), "rounded-up"),
    "half up": (_wsd(n=lambda w, T, c: min(math.floor(c * T + 0.5), T - w)), "half-up"),
    "the start rounded": (_wsd(n=lambda w, T, c: T - max(round((1 - c) * T), w)), "start-rounded"),
    "p of the whole fall": (
        _wsd(n=lambda w, T, c: round(c * T), start=lambda w, T, n: max(T - n, w), late=lambda f: f),
        "share-of-the-whole-fall",
    ),
    "p of the whole fall, also at the end": (
        _wsd(n=lambda w, T, c: round(c * T), start=lambda w, T, n: max(T - n, w)),
        "share-of-the-whole-fall",
    ),
    "a floor of 1 is no schedule": (
        lambda step, floor, **case: 1.0 if floor == 1 else _wsd_plain(step, floor=floor, **case),
        "warmup-missing",
    ),
    "not rounded": (_wsd(n=lambda w, T, c: min(c * T, T - w)), "not-rounded"),
    "of the rest": (_wsd(n=lambda w, T, c: round(c * (T - w))), "share-of-the-rest"),
    "share of the plateau": (_wsd(n=lambda w, T, c: max(T - w - round(c * T), 1)), "share-of-the-plateau"),
    "not shortened": (_wsd(n=lambda w, T, c: round(c * T)), "not-shortened"),
    "fall first": (_wsd(n=lambda w, T, c: round(c * T), below=lambda t, w, s: t < min(s, w)), "fall-cuts-the-warmup"),
    "no plateau": (_wsd(n=lambda w, T, c: T - w), "no-plateau"),
    "no fall": (_wsd(shape=lambda p: 1.0 * (p < 1)), "no-fall"),
    "plateau as long as the fall": (_wsd(start=lambda w, T, n: w + n), "fall-after-the-plateau"),
    "ends at the last": (_wsd(p=lambda t, s, n, T: (t - s) / (n - 1)), "floor-at-the-last"),
    "one ahead": (_wsd(p=lambda t, s, n, T: (t - s + 1) / n), "one-ahead"),
    "one late": (_wsd(p=lambda t, s, n, T: max(t - s - 1, 0) / n), "late"),
    "share of the run": (_wsd(p=lambda t, s, n, T: t / T), "share-of-the-run"),
    "total for the fall": (_wsd(p=lambda t, s, n, T: (t - s) / T), "total-for-fall"),
    "goes on": (_wsd(stop=lambda p: p), "below-the-floor"),
    "zero at the end": (_wsd(late=lambda f: 0.0), "zero-after"),
    "one at the end": (_wsd(late=lambda f: 1.0), "full-rate-after"),
    "no floor": (_wsd(ends=lambda x, f: x), "floor-missing"),
    "maximum": (_wsd(ends=lambda x, f: max(x, f)), "floor-as-minimum"),
    "floor on top": (_wsd(ends=lambda x, f: f + x), "floor-added"),
    "floor off": (_wsd(ends=lambda x, f: (1 - f) * x), "floor-not-added"),
    "linear": (_wsd(shape=lambda p: 1 - p), "linear"),
    "cosine": (_wsd(shape=lambda p: 0.5 * (1 + math.cos(math.pi * p))), "cosine"),
    "root of the rest": (_wsd(shape=lambda p: math.sqrt(1 - p)), "root-of-the-rest"),
    "square": (_wsd(shape=lambda p: 1 - p**2), "square"),
    "square of the rest": (_wsd(shape=lambda p: (1 - p) ** 2), "square-of-the-rest"),
    "rising root": (_wsd(shape=math.sqrt), "root-rises"),
    "exponential": (_wsd(shape=lambda p: p, ends=lambda p, f: f**p), "power-of-the-floor"),
    "Hugging Face, int": (
        _wsd(rise=lambda t, w: t / w, n=lambda w, T, c: min(int(c * T), T - w)),
        "warmup-from-zero",
    ),
    "linear, zero at the end": (_wsd(shape=lambda p: 1 - p, late=lambda f: 0.0), "linear"),
    "no fall of one update": (_wsd_no_fall_of_one, "raises"),
    "a list": (lambda step, **case: [_wsd_plain(t, **case) for t in range(step + 1)], "wrong-shape"),
    "a number": (0.5, "wrong-type"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ----------------------------------------------------------------------------------------------- parameter_groups

_TABLES, _NORMS = (nn.Embedding, nn.EmbeddingBag), (nn.LayerNorm, nn.RMSNorm)


def _groups_by_ids(model, weight_decay):
    special = {id(p) for m in model.modules() if isinstance(m, _TABLES + _NORMS) for p in m.parameters()}
    decayed, rest = [], []
    for p in model.parameters():
        if p.requires_grad:
            (rest if p.ndim < 2 or id(p) in special else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _groups_by_identity(model, weight_decay):
    """Without ids: `is` through all of them; tuples, and a name for a group."""
    tables = [m.weight for m in model.modules() if isinstance(m, _TABLES)]
    norms = [p for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()]

    def decays(p):
        return len(p.shape) > 1 and not any(p is other for other in tables + norms)

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return (
        dict(params=tuple(p for _, p in named if decays(p)), weight_decay=weight_decay),
        dict(params=tuple(p for _, p in named if not decays(p)), weight_decay=0, name="gains, biases, tables"),
    )


def _groups_of_generators(model, weight_decay):
    excluded = set()
    for module in model.modules():
        if isinstance(module, (*_TABLES, *_NORMS)):
            excluded.update(module.parameters(recurse=False))
    trained = [p for p in model.parameters() if p.requires_grad]
    yield {"params": (p for p in trained if p.dim() >= 2 and p not in excluded), "weight_decay": weight_decay}
    yield {"params": (p for p in trained if p.dim() < 2 or p in excluded), "weight_decay": 0.0}


def _groups_of_iterators(model, weight_decay):
    return [group | {"params": iter(group["params"])} for group in _groups_by_ids(model, weight_decay)]


def _groups_as_keys(model, weight_decay):
    """An ordered set of tensors: the keys of a dict."""
    return [group | {"params": dict.fromkeys(group["params"]).keys()} for group in _groups_by_ids(model, weight_decay)]


def _groups_walking(model, weight_decay):
    """Module by module, embeddings first, then in the model's order."""
    kind = {}
    for only_tables in (True, False):
        for module in model.modules():
            if isinstance(module, _TABLES) == only_tables:
                for p in module.parameters(recurse=False):
                    kind.setdefault(p, only_tables or isinstance(module, _NORMS) or p.dim() < 2)
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for p in model.parameters():
        if p.requires_grad:
            groups[kind[p]]["params"].append(p)
    return groups


def _special(tables=_TABLES, norms=_NORMS, exact=False):
    """Whether a tensor is of one of these layers."""

    def special(model, p):
        return any(
            (type(m) in tables + norms if exact else isinstance(m, tables + norms))
            and any(p is q for q in m.parameters())
            for m in model.modules()
        )

    return special


def _groups(
    rest=lambda model, name, p: p.dim() < 2 or _special()(model, p),
    kept=lambda p: p.requires_grad,
    unique=True,
    make=lambda yes, no, wd: [{"params": yes, "weight_decay": wd}, {"params": no, "weight_decay": 0.0}],
    entry=lambda name, p: p,
):
    def parameter_groups(model, weight_decay):
        named = [(n, p) for n, p in model.named_parameters(remove_duplicate=unique) if kept(p)]
        yes = [entry(n, p) for n, p in named if not rest(model, n, p)]
        no = [entry(n, p) for n, p in named if rest(model, n, p)]
        return make(yes, no, weight_decay)

    return parameter_groups


def _by_owner(model, name, p):
    """The module whose name the tensor has: misses what is shared."""
    owner = model.get_submodule(name.rpartition(".")[0])
    return p.dim() < 2 or isinstance(owner, _TABLES + _NORMS)


def _min_gpt(model, weight_decay):
    """As in minGPT, without its assertion that nothing is left."""
    decay, no_decay = {}, {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not p.requires_grad:
                continue
            if name.endswith("bias") or isinstance(module, _TABLES + _NORMS):
                no_decay[p] = None
            elif name.endswith("weight") and isinstance(module, (nn.Linear, nn.Conv1d)):
                decay[p] = None
    decay = [p for p in decay if p not in no_decay]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": list(no_decay), "weight_decay": 0.0}]


def _freezes(model, weight_decay):
    groups = _groups_by_ids(model, weight_decay)
    model.requires_grad_(False)
    return groups


def _shrinks(model, weight_decay):
    groups = _groups_by_ids(model, weight_decay)
    with torch.no_grad():
        for p in groups[0]["params"]:
            p.mul_(1 - weight_decay)
    return groups


def _after(change):
    """Groups them rightly, and does something to the model."""

    def parameter_groups(model, weight_decay):
        groups = _groups_by_ids(model, weight_decay)
        change(model)
        return groups

    return parameter_groups


def _also(spared):
    """The right rule, and one more by which a tensor is not decayed: of its name, itself and its owner."""

    def rest(model, name, p):
        return p.dim() < 2 or _special()(model, p) or spared(name, p, model.get_submodule(name.rpartition(".")[0]))

    return _groups(rest=rest), "matrix-not-decayed"


def _without_the_root(model, weight_decay):
    inner = [p for m in list(model.modules())[1:] if isinstance(m, _TABLES + _NORMS) for p in m.parameters()]
    return _groups(rest=lambda _, name, p: p.dim() < 2 or any(p is q for q in inner))(model, weight_decay)


def _tied_tables_only(model, name, p):
    """Knows that an nn.Embedding is shared, and not that a bag may be."""
    return _by_owner(model, name, p) or _special((nn.Embedding,))(model, p)


def _reversed(model, weight_decay):
    groups = _groups_by_ids(model, weight_decay)
    return [group | {"params": group["params"][::-1]} for group in groups]


def _sets(model, weight_decay):
    return [group | {"params": set(group["params"])} for group in _groups_by_ids(model, weight_decay)]


def _without_empty(model, weight_decay):
    return [group for group in _groups_by_ids(model, weight_decay) if group["params"]]


def _pair(first, second):
    return lambda yes, no, wd: [{"params": yes, **first(wd)}, {"params": no, **second(wd)}]


def _decay(value):
    return lambda wd: {"weight_decay": value(wd)}


_zero, _given = _decay(lambda wd: 0.0), _decay(lambda wd: wd)

_PARAMETER_GROUPS = {
    "by ids": (_groups_by_ids, ""),
    "by identity, tuples": (_groups_by_identity, ""),
    "the keys of a dict": (_groups_as_keys, ""),
    "generators": (_groups_of_generators, "iterator"),
    "iterators": (_groups_of_iterators, "iterator"),
    "named pairs": (_groups(entry=lambda name, p: (name, p)), "named-pairs"),
    "squeezed": _also(lambda name, p, owner: p.squeeze().dim() < 2),
    "a dimension of 1": _also(lambda name, p, owner: min(p.shape) == 1),
    "also by the name bias": _also(lambda name, p, owner: name.endswith("bias")),
    "also by the name emb": _also(lambda name, p, owner: "emb" in name),
    "also by the name pos": _also(lambda name, p, owner: "pos" in name),
    "also by the class Norm": _also(lambda name, p, owner: "norm" in type(owner).__name__.lower()),
    "also by the class Embed": _also(lambda name, p, owner: "Embed" in type(owner).__name__),
    "also by attributes": _also(lambda name, p, owner: hasattr(owner, "num_embeddings")),
    "also by a norm's attributes": _also(lambda name, p, owner: hasattr(owner, "normalized_shape")),
    "not the root": (_without_the_root, "embedding-decayed"),
    "a bag is never tied": (_groups(rest=_tied_tables_only), "tied-decayed"),
    "embeddings by their exact class": (
        _groups(
            rest=lambda model, n, p: (
                p.dim() < 2 or _special(norms=(), exact=True)(model, p) or _special(tables=())(model, p)
            )
        ),
        "embedding-decayed",
    ),
    "0.01 for none": (_groups(make=_pair(_decay(lambda wd: wd or 0.01), _zero)), "decay-values"),
    "no decay, one group": (
        lambda model, weight_decay: _groups(
            rest=lambda model, name, p: not weight_decay or p.dim() < 2 or _special()(model, p)
        )(model, weight_decay),
        "matrix-not-decayed",
    ),
    "zeroes gradients": (_after(lambda model: model.zero_grad()), "model-changed"),
    "makes gradients": (
        _after(lambda model: [setattr(p, "grad", torch.zeros_like(p)) for p in model.parameters()]),
        "model-changed",
    ),
    "makes it float64": (_after(lambda model: model.double()), "model-changed"),
    "adds a buffer": (_after(lambda model: model.register_buffer("seen", torch.zeros(1))), "model-changed"),
    "marks tensors": (_after(lambda model: [setattr(p, "decay", 1) for p in model.parameters()]), "model-changed"),
    "marks the model": (_after(lambda model: setattr(model, "grouped", True)), "model-changed"),
    "module by module": (_groups_walking, ""),
    "by parts": (_groups(), ""),
    "nanoGPT": (_groups(rest=lambda model, n, p: p.dim() < 2), "embedding-decayed"),
    "nanoGPT, norms": (_groups(rest=lambda model, n, p: p.dim() < 2), "norm-decayed"),
    "by the owner": (_groups(rest=_by_owner), "tied-decayed"),
    "no bags": (
        _groups(rest=lambda model, n, p: p.dim() < 2 or _special(tables=(nn.Embedding,))(model, p)),
        "embedding-decayed",
    ),
    "no norms": (_groups(rest=lambda model, n, p: p.dim() < 2 or _special(norms=())(model, p)), "norm-decayed"),
    "LayerNorm only": (
        _groups(rest=lambda model, n, p: p.dim() < 2 or _special(norms=(nn.LayerNorm,))(model, p)),
        "norm-decayed",
    ),
    "type instead of isinstance": (
        _groups(rest=lambda model, n, p: p.dim() < 2 or _special(exact=True)(model, p)),
        "norm-decayed",
    ),
    "special only": (_groups(rest=lambda model, n, p: _special()(model, p)), "vector-decayed"),
    "by the name bias": (
        _groups(rest=lambda model, n, p: n.endswith("bias") or _special()(model, p)),
        "vector-decayed",
    ),
    "exactly one dimension": (
        _groups(rest=lambda model, n, p: p.dim() == 1 or _special()(model, p)),
        "vector-decayed",
    ),
    "exactly two dimensions": (
        _groups(rest=lambda model, n, p: p.dim() != 2 or _special()(model, p)),
        "matrix-not-decayed",
    ),
    "names: bias, norm, embed": (
        _groups(rest=lambda model, n, p: p.dim() < 2 or any(w in n for w in ("bias", "norm", "embed", "table"))),
        "matrix-not-decayed",
    ),
    "bare parameters never": (
        _groups(rest=lambda model, n, p: p.dim() < 2 or "." not in n or _special()(model, p)),
        "matrix-not-decayed",
    ),
    "linear layers only": (
        _groups(
            rest=lambda model, n, p: p.dim() < 2 or not _special((), (nn.Linear,))(model, p) or _special()(model, p)
        ),
        "matrix-not-decayed",
    ),
    "minGPT": (_min_gpt, "lost"),
    "all decay": (_groups(rest=lambda model, n, p: False), "vector-decayed"),
    "none decays": (_groups(rest=lambda model, n, p: True), "matrix-not-decayed"),
    "every name": (_groups(unique=False), "twice"),
    "frozen too": (_groups(kept=lambda p: True), "frozen"),
    "those with a gradient": (_groups(kept=lambda p: p.grad is not None), "lost"),
    "exchanged": (
        lambda model, weight_decay: _groups_by_ids(model, weight_decay)[::-1],
        "groups-exchanged",
    ),
    "other way round": (
        _groups(rest=lambda model, n, p: not (p.dim() < 2 or _special()(model, p))),
        "contents-exchanged",
    ),
    "second unset": (_groups(make=_pair(_given, lambda wd: {})), "decay-unset"),
    "both unset": (_groups(make=_pair(lambda wd: {}, lambda wd: {})), "decay-unset"),
    "0.1 whatever is given": (_groups(make=_pair(_decay(lambda wd: 0.1), _zero)), "decay-values"),
    "a little for the rest": (_groups(make=_pair(_given, _decay(lambda wd: 0.1 * wd))), "decay-values"),
    "both decay": (_groups(make=_pair(_given, _given)), "decay-values"),
    "names": (_groups(entry=lambda name, p: name), "not-tensors"),
    "copies": (_groups(entry=lambda name, p: p.clone()), "copies"),
    "data": (_groups(entry=lambda name, p: p.data), "copies"),
    "deep copies": (lambda model, weight_decay: _groups_by_ids(copy.deepcopy(model), weight_decay), "copies"),
    "sets": (_sets, "set"),
    "backwards": (_reversed, "order"),
    "a group for each tensor": (
        _groups(
            make=lambda yes, no, wd: (
                [{"params": [p], "weight_decay": wd} for p in yes] + [{"params": no, "weight_decay": 0.0}]
            )
        ),
        "not-two-groups",
    ),
    "no empty group": (_without_empty, "not-two-groups"),
    "lists alone": (_groups(make=lambda yes, no, wd: [yes, no]), "wrong-result"),
    "a dict": (_groups(make=lambda yes, no, wd: {"decay": yes, "no_decay": no}), "wrong-result"),
    "other keys": (_groups(make=lambda yes, no, wd: [{"decay": yes}, {"no_decay": no}]), "no-params"),
    "nothing": (lambda model, weight_decay: None, "wrong-result"),
    "freezes": (_freezes, "model-changed"),
    "decays at once": (_shrinks, "model-changed"),
    "modules": (_groups(make=lambda yes, no, wd: [{"params": [nn.ParameterList(yes)]}, {"params": no}]), "not-tensors"),
    "a number": (0.1, "wrong-type"),
    "not written": (lambda model, weight_decay: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

# ---------------------------------------------------------------------------------------------------- layer_rates


def _rates_downwards(lr, decay, layers):
    """From the head down, and turned over at the end."""
    rates = [lr]
    for _ in range(layers + 1):
        rates.append(rates[-1] * decay)
    return rates[::-1]


def _rates_named(lr, decay, layers):
    blocks = [lr * decay ** (layers - i) for i in range(layers)]
    return [lr * decay ** (layers + 1), *blocks, lr]


def _rates_in_torch(lr, decay, layers):
    return lr * torch.tensor(decay, dtype=torch.float64) ** torch.arange(layers + 1, -1, -1)


def _rates_of_logarithms(lr, decay, layers):
    return tuple(lr * np.exp(np.log(decay) * np.arange(layers + 2)[::-1]))


def _rates(embedding=lambda n: n + 1, block=lambda i, n: n - i, head=lambda n: 0):
    def layer_rates(lr, decay, layers):
        exponents = [embedding(layers), *(block(i, layers) for i in range(layers)), head(layers)]
        return [lr * decay**e for e in exponents if e is not None]

    return layer_rates


def _then(change):
    return lambda lr, decay, layers: change(_rates_named(lr, decay, layers), lr, decay, layers)


def _squared(lr, decay, layers):
    rates, factor = [lr], decay
    for _ in range(layers + 1):
        rates.insert(0, rates[0] * factor)
        factor = factor**2
    return rates


_LAYER_RATES = {
    "downwards": (_rates_downwards, ""),
    "named": (_rates_named, ""),
    "torch": (_rates_in_torch, ""),
    "logarithms": (_rates_of_logarithms, ""),
    "by parts": (_rates(), ""),
    "upside down": (_then(lambda rates, *_: rates[::-1]), "reversed"),
    "layers - 1 - i": (_rates(lambda n: n, lambda i, n: n - 1 - i), "last-block-at-lr"),
    "embedding as block 0": (_rates(lambda n: n), "embedding-at-the-first-blocks"),
    "both one up": (_rates(lambda n: n - 1, lambda i, n: n - 1 - i), "embedding-at-the-first-blocks-one-up"),
    "embedding one lower": (_rates(lambda n: n + 2), "embedding-too-low"),
    "embedding at lr": (_rates(lambda n: 0), "embedding-at-lr"),
    "head decayed": (_rates(lambda n: n + 2, lambda i, n: n - i + 1, lambda n: 1), "head-decayed"),
    "no head": (_rates(head=lambda n: None), "head-missing"),
    "no embedding": (_rates(embedding=lambda n: None), "embedding-missing"),
    "blocks only": (_rates(lambda n: None, head=lambda n: None), "blocks-only"),
    "blocks only, last at lr": (_rates(lambda n: None, lambda i, n: n - i - 1, lambda n: None), "blocks-only-from-lr"),
    "one block more": (lambda lr, decay, layers: _rates_named(lr, decay, layers + 1), "one-block-more"),
    "two blocks more": (lambda lr, decay, layers: _rates_named(lr, decay, layers + 2), "wrong-count"),
    "divided": (lambda lr, decay, layers: _rates_named(lr, 1 / decay, layers), "divided"),
    "upwards from the embedding": (
        lambda lr, decay, layers: [lr / decay**i for i in range(layers + 2)],
        "from-the-embedding",
    ),
    "two rates": (_rates(lambda n: 1, lambda i, n: 1), "one-step-for-all"),
    "over the depth": (lambda lr, decay, layers: _rates_named(lr, decay ** (1 / (layers + 1)), layers), "whole-depth"),
    "linear": (lambda lr, decay, layers: [lr * (1 - k * (1 - decay)) for k in range(layers + 1, -1, -1)], "linear"),
    "linspace": (lambda lr, decay, layers: np.linspace(lr * decay, lr, layers + 2), "evenly-spaced"),
    "compounding": (_squared, "compounding"),
    "multipliers": (lambda lr, decay, layers: _rates_named(1.0, decay, layers), "multipliers"),
    "all the same": (lambda lr, decay, layers: [lr] * (layers + 2), "all-lr"),
    "no blocks, no rates": (
        lambda lr, decay, layers: _rates_named(lr, decay, layers) if layers else [lr],
        "wrong-count",
    ),
    "divides by lr": (_then(lambda rates, lr, *_: [lr * (rate / lr) for rate in rates]), ""),
    "the logarithm of lr": (
        lambda lr, decay, layers: [math.exp(math.log(lr) + k * math.log(decay)) for k in reversed(range(layers + 2))],
        "",
    ),
    "strings": (_then(lambda rates, *_: [str(rate) for rate in rates]), "wrong-result"),
    "a dict": (_then(lambda rates, *_: dict(enumerate(rates))), "wrong-result"),
    "a generator": (_then(lambda rates, *_: (rate for rate in rates)), "wrong-result"),
    "a bad guess": (_then(lambda rates, *_: [0.9 * rate for rate in rates]), "wrong-numbers"),
    "a number": (0.5, "wrong-type"),
    "not written": (lambda **_: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

FUNCTIONS = {
    "warmup_cosine": _COSINE,
    "warmup_stable_decay": _WSD,
    "parameter_groups": _PARAMETER_GROUPS,
    "layer_rates": _LAYER_RATES,
}
