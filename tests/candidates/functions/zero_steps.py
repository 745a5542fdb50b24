"""Answers to the exercises of notebook 15 that get a `comm`: a clip of shards, and steps under ZeRO-1 and ZeRO-2."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch

# ---------------------------------------------------------------------------------------------------- clip_sharded


@torch.no_grad()
def _clip_plain(shards, max_norm, comm):
    total = torch.zeros(1, dtype=torch.float64)
    for shard in shards:
        total += shard.double().pow(2).sum()
    comm.all_reduce(total)
    norm = math.sqrt(total.item())
    if norm > max_norm:
        for shard in shards:
            shard *= max_norm / norm
    return norm


def _clip_norms(shards, max_norm, comm):
    """Through vector_norm and a stack, with a zero for a rank without shards."""
    norms = [torch.zeros(())] + [torch.linalg.vector_norm(shard.float()) for shard in shards]
    square = torch.linalg.vector_norm(torch.stack(norms)) ** 2
    norm = comm.all_reduce(square) ** 0.5
    torch._foreach_mul_(shards, float(min(1.0, max_norm / (norm + 1e-6)))) if shards else None
    return norm


def _clip_cat(shards, max_norm, comm):
    flat = torch.cat([torch.zeros(0), *[shard.float() for shard in shards]])
    square = (flat @ flat).reshape(1)
    comm.all_reduce(square)
    norm = float(square) ** 0.5
    for i in range(len(shards)):
        shards[i].copy_(shards[i] * min(1.0, max_norm / (norm + 1e-6)))
    return np.float64(norm)


def _clip_gathered(shards, max_norm, comm):
    mine = torch.tensor([sum(float(shard.float().square().sum()) for shard in shards)], dtype=torch.float32)
    norm = comm.all_gather(mine).sum().sqrt()
    for shard in shards:
        shard.mul_((max_norm / (norm + 1e-6)).clamp(max=1))
    return norm


def _an_int_of_nothing(shards, max_norm, comm):
    """Without shards the sum is the int 0, and the tensor int64."""
    norm = comm.all_reduce(torch.tensor(sum(float(shard.float().square().sum()) for shard in shards))).sqrt()
    for shard in shards:
        shard.mul_((max_norm / (norm + 1e-6)).clamp(max=1))
    return norm


def _clip_objects(shards, max_norm, comm):
    squares = comm.gather_objects(sum(shard.double().square().sum().item() for shard in shards))
    norm = sum(squares) ** 0.5
    for shard in shards:
        shard.mul_(min(1.0, max_norm / (norm + 1e-6)))
    return norm


def _two_numbers(shards, comm):
    """The count of elements comes along."""
    pair = torch.tensor([_squares(shards), sum(map(len, shards))], dtype=torch.float64)
    return math.sqrt(comm.all_reduce(pair)[0].item())


def _a_buffer(shards, comm):
    """One number in the first of 64 elements."""
    buffer = torch.zeros(64)
    buffer[0] = _squares(shards)
    return comm.all_reduce(buffer)[0].sqrt().item()


def _summed(squares, comm, op="sum"):
    return comm.all_reduce(torch.tensor([squares], dtype=torch.float64), op).item()


def _squares(shards):
    return sum(shard.double().square().sum().item() for shard in shards)


def _global(shards, comm):
    return math.sqrt(_summed(_squares(shards), comm))


def _clip_by(
    norm=_global,
    factor=lambda norm, bound, shards, comm: bound / norm if norm > bound else 1.0,
    chosen=lambda shards, comm: shards,
    gives=lambda norm, bound, shards, comm: norm,
):
    def clip_sharded(shards, max_norm, comm):
        size = norm(shards, comm)
        told = gives(size, max_norm, shards, comm)
        by = factor(size, max_norm, shards, comm)
        for shard in chosen(shards, comm):
            shard.mul_(by)
        return told

    return clip_sharded


def _own(shards, comm):
    return math.sqrt(_squares(shards))


def _bounded(norm, bound):
    return min(1.0, bound / norm)


def _reduces_each(shards, comm):
    return math.sqrt(sum(_summed(_squares([shard]), comm) for shard in shards))


def _gathers_all(shards, comm):
    longest = int(_summed(sum(map(len, shards)), comm, "max"))
    row = torch.zeros(longest, dtype=torch.float64)
    flat = torch.cat([torch.zeros(0), *shards])
    row[: len(flat)] = flat
    return comm.all_gather(row).norm().item()


def _returns_early(shards, max_norm, comm):
    if not shards:
        return 0.0
    return _clip_plain(shards, max_norm, comm)


def _reduces_if_long(shards, comm):
    """A rank whose own norm is short enough spares itself the reduce."""
    return _global(shards, comm) if _own(shards, comm) > 2.5 else _own(shards, comm)


def _makes_new(shards, max_norm, comm):
    norm = _global(shards, comm)
    for shard in shards:
        shard = shard * _bounded(norm, max_norm)
    return norm


def _replaces(shards, max_norm, comm):
    norm = _global(shards, comm)
    shards[:] = [shard * _bounded(norm, max_norm) for shard in shards]
    return norm


def _each_by_its_own(shards, max_norm, comm):
    for shard in shards:
        shard.mul_(min(1.0, max_norm / float(shard.norm() + 1e-6)))


def _each_and_norm(shards, max_norm, comm):
    norm = _global(shards, comm)
    _each_by_its_own(shards, max_norm, comm)
    return norm


def _in_few_bits(shards, comm):
    total = torch.zeros((), dtype=shards[0].dtype if shards else torch.float32)
    for shard in shards:
        total += shard.square().sum()
    return comm.all_reduce(total.float()).sqrt().item()


def _in_first_dtype(shards, comm):
    total = torch.stack([torch.zeros(()), *[shard.float().square().sum() for shard in shards]]).sum()
    return comm.all_reduce(total.to(shards[0].dtype if shards else torch.float32)).sqrt().item()


def _through_dist(shards, max_norm, comm):
    total = torch.tensor([_squares(shards)])
    torch.distributed.all_reduce(total)
    return total.sqrt()


def _no_empty(shards, comm):
    return comm.all_reduce(torch.stack([shard.float().square().sum() for shard in shards]).sum()).sqrt().item()


def _as_a_number(shards, max_norm, comm):
    return math.sqrt(comm.all_reduce(_squares(shards)))


def _nan_is_zero(shards, comm):
    return math.sqrt(_summed(float(np.nan_to_num(_squares(shards))), comm))


def _rank_zero_returns(shards, max_norm, comm):
    norm = _clip_plain(shards, max_norm, comm)
    return norm if comm.rank == 0 else None


def _waits_for_ever(shards, max_norm, comm):
    while comm.rank == 1:
        pass
    return _clip_plain(shards, max_norm, comm)


_CLIP = {
    "plain": (_clip_plain, ""),
    "norms": (_clip_norms, ""),
    "one flat row": (_clip_cat, ""),
    "by parts": (_clip_by(), ""),
    "factor of one": (_clip_by(factor=lambda norm, b, s, c: min(1.0, b / (norm + 1e-6))), ""),
    "gathers one number": (_clip_gathered, ""),
    "two numbers": (_clip_by(_two_numbers), "sends-shards"),
    "gathers objects": (_clip_objects, "gathers-objects"),
    "a buffer of 64": (_clip_by(_a_buffer), "sends-shards"),
    "own norm": (_clip_by(_own), "own-norm"),
    "clips by its own": (_clip_by(factor=lambda norm, b, s, c: _bounded(_own(s, c), b)), "clips-by-own-norm"),
    "returns its own": (_clip_by(gives=lambda norm, b, s, c: _own(s, c)), "returns-own-norm"),
    "root before reduce": (_clip_by(lambda s, c: _summed(_own(s, c), c)), "sum-of-norms"),
    "norms of shards": (
        _clip_by(lambda s, c: _summed(sum(float(x.double().norm()) for x in s), c)),
        "sum-of-shard-norms",
    ),
    "sums squared": (
        _clip_by(lambda s, c: math.sqrt(_summed(sum(float(x.double().norm()) for x in s) ** 2, c))),
        "squares-of-sums",
    ),
    "root twice": (_clip_by(lambda s, c: math.sqrt(_summed(_own(s, c), c))), "root-twice"),
    "no root": (_clip_by(lambda s, c: _summed(_squares(s), c)), "root-missing"),
    "mean of norms": (_clip_by(lambda s, c: _summed(_own(s, c), c) / c.ranks), "mean-of-norms"),
    "mean of squares": (_clip_by(lambda s, c: math.sqrt(_summed(_squares(s), c) / c.ranks)), "mean-of-squares"),
    "norm over ranks": (_clip_by(lambda s, c: _global(s, c) / c.ranks), "divided-by-ranks"),
    "max": (_clip_by(lambda s, c: _summed(_own(s, c), c, "max")), "largest-norm"),
    "largest element": (
        _clip_by(lambda s, c: _summed(max(float(x.abs().max()) for x in s), c, "max")),
        "largest-element",
    ),
    "L1": (_clip_by(lambda s, c: _summed(sum(float(x.double().abs().sum()) for x in s), c)), "sum-of-sizes"),
    "sum of elements": (
        _clip_by(lambda s, c: abs(_summed(sum(float(x.double().sum()) for x in s), c))),
        "sum-of-elements",
    ),
    "rank 0's norm": (
        _clip_by(lambda s, c: c.broadcast(torch.tensor([_own(s, c)], dtype=torch.float64)).item()),
        "rank-zero-norm",
    ),
    "first shards": (_clip_by(lambda s, c: _global(s[:1], c)), "first-shards"),
    "last shards": (_clip_by(lambda s, c: _global(s[-1:], c)), "last-shards"),
    "each by its own": (_each_and_norm, "each-by-its-own"),
    "by value": (
        lambda s, b, c: (_global(s, c), [x.clamp_(-b, b) for x in s])[0],
        "by-value",
    ),
    "new tensors": (_makes_new, "not-clipped"),
    "list replaced": (_replaces, "shard-replaced"),
    "twice": (_clip_by(factor=lambda norm, b, s, c: _bounded(norm, b) ** 2), "clipped-twice"),
    "always": (_clip_by(factor=lambda norm, b, s, c: b / norm), "always"),
    "upside down": (_clip_by(factor=lambda norm, b, s, c: max(1.0, norm / b)), "upside-down"),
    "to one": (_clip_by(factor=lambda norm, b, s, c: _bounded(norm, 1.0)), "to-one"),
    "bound over ranks": (_clip_by(factor=lambda norm, b, s, c: _bounded(norm, b / c.ranks)), "bound-divided"),
    "bound over root": (
        _clip_by(factor=lambda norm, b, s, c: _bounded(norm, b / c.ranks**0.5)),
        "bound-divided-by-root",
    ),
    "zeroed": (_clip_by(factor=lambda norm, b, s, c: float(norm <= b)), "zeroed"),
    "rank 0 clips": (_clip_by(chosen=lambda s, c: s if c.rank == 0 else []), "rank-zero-clips"),
    "the others clip": (_clip_by(chosen=lambda s, c: s if c.rank else []), "rank-zero-does-not-clip"),
    "first shard": (_clip_by(chosen=lambda s, c: s[:1]), "first-shard-clipped"),
    "last shard": (_clip_by(chosen=lambda s, c: s[-1:]), "last-shard-clipped"),
    "returns after": (_clip_by(gives=lambda norm, b, s, c: min(norm, b)), "returns-after"),
    "returns factor": (_clip_by(gives=lambda norm, b, s, c: _bounded(norm, b)), "returns-factor"),
    "returns square": (_clip_by(gives=lambda norm, b, s, c: norm**2), "returns-square"),
    "reduces each": (_clip_by(_reduces_each), "several-reduces"),
    "gathers all": (_clip_by(_gathers_all), "sends-shards"),
    "returns early": (_returns_early, "not-joined"),
    "reduces if long": (_clip_by(_reduces_if_long), "not-joined"),
    "only rank 0 reduces": (_clip_by(lambda s, c: _global(s, c) if c.rank == 0 else _own(s, c)), "not-joined"),
    "divides by zero": (_clip_by(factor=lambda norm, b, s, c: (b / torch.tensor(norm)).clamp(max=1.0)), ""),
    "0 / 0": (
        _clip_by(factor=lambda norm, b, s, c: float(np.minimum(np.float64(norm), b) / np.float64(norm))),
        "zero-norm",
    ),
    "NaN is zero": (_clip_by(_nan_is_zero), "not-finite-unseen"),
    "16 bits": (_clip_by(_in_few_bits), "norm-in-16-bits"),
    "reduced in 16 bits": (_clip_by(_in_first_dtype), "norm-in-16-bits"),
    "an int of nothing": (_an_int_of_nothing, "ranks-disagree"),
    "stack of nothing": (_clip_by(_no_empty), "raises"),
    "a number": (_as_a_number, "raises"),
    "torch.distributed": (_through_dist, "not-comm"),
    "returns nothing": (lambda s, b, c: (_clip_plain(s, b, c), None)[1], "wrong-result"),
    "rank 0 returns": (_rank_zero_returns, "wrong-result"),
    "without a comm": (lambda shards, max_norm: 0.0, "signature"),
    "waits for ever": (_waits_for_ever, "endless"),
    "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError), "blank"),
    "blank": (None, "blank"),
}

# ------------------------------------------------------------------------------------------------------ zero1_step


def _padded(row, ranks):
    return torch.cat([row, row.new_zeros(-len(row) % ranks)])


def _adamw(p, g, m, v, t, lr, betas, eps, weight_decay):
    p.mul_(1 - lr * weight_decay)
    m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    denom = (v.sqrt() / math.sqrt(1 - betas[1] ** t)).add_(eps)
    p.addcdiv_(m, denom, value=-lr / (1 - betas[0] ** t))


@torch.no_grad()
def _by_tensor(params, grads, state, comm, lr, betas, eps, weight_decay):
    """Every tensor is cut by itself, and gathered into a row of its own."""
    state["t"] = state.get("t", 0) + 1
    for i, (p, g) in enumerate(zip(params, grads)):
        g = comm.reduce_scatter(_padded(g.reshape(-1), comm.ranks)).div_(comm.ranks)
        m, v = state.setdefault(i, (torch.zeros_like(g), torch.zeros_like(g)))
        row = _padded(p.detach().reshape(-1).clone(), comm.ranks)
        part = row.view(comm.ranks, -1)[comm.rank]
        _adamw(part, g, m, v, state["t"], lr, betas, eps, weight_decay)
        comm.all_gather(part, out=row)
        p.copy_(row[: p.numel()].view(p.shape))


class _Zero1:
    """ZeRO-1 in pieces; each wrong answer replaces one of them."""

    each = False  # cut each tensor by itself

    @torch.no_grad()
    def __call__(self, params, grads, state, comm, lr, betas, eps, weight_decay):
        self.t(state, params)
        groups = [[i] for i in range(len(params))] if self.each else [list(range(len(params)))]
        for k, group in enumerate(groups):
            some = [params[i] for i in group]
            row = self.pad(torch.cat([p.detach().flatten() for p in some]), comm)
            flat = self.pad(torch.cat([grads[i].flatten() for i in group]), comm)
            size = len(row) // comm.ranks
            g = self.reduce(flat, comm)
            m, v = self.moments(state, k, g, len(row))
            part = self.part(row, comm, size)
            self.update(part, g, m, v, state["t"], lr, betas, eps, weight_decay)
            new = self.gather(row, part, g, comm)
            start = 0
            for p in some:
                self.write(p, new[start : start + p.numel()].view_as(p), params)
                start += p.numel()

    def t(self, state, params):
        state["t"] = state.get("t", 0) + 1

    def pad(self, row, comm):
        return _padded(row, comm.ranks)

    def reduce(self, flat, comm):
        return comm.reduce_scatter(flat) / comm.ranks

    def moments(self, state, k, g, total):
        if k not in state:
            state[k] = [torch.zeros_like(g), torch.zeros_like(g)]
        return state[k]

    def part(self, row, comm, size):
        return row[comm.rank * size : (comm.rank + 1) * size].clone()

    def update(self, p, g, m, v, t, lr, betas, eps, weight_decay):
        m.lerp_(g, 1 - betas[0])
        v.lerp_(self.square(g), 1 - betas[1])
        self.decay(p, lr, weight_decay)
        p -= lr * self.direction(m, v, betas[0], betas[1], t, eps)

    def square(self, g):
        return g * g

    def decay(self, p, lr, weight_decay):
        p *= 1 - lr * weight_decay

    def direction(self, m, v, b1, b2, t, eps):
        return (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)

    def gather(self, row, part, g, comm):
        return comm.all_gather(part)

    def write(self, p, new, params):
        p.copy_(new)


def _zero1(**pieces):
    return type("_Changed", (_Zero1,), pieces)()


def _all_reduced(self, flat, comm):
    size = len(flat) // comm.ranks
    return comm.all_reduce(flat)[comm.rank * size : (comm.rank + 1) * size] / comm.ranks


def _slice(flat, comm):
    size = len(flat) // comm.ranks
    return flat[comm.rank * size : (comm.rank + 1) * size].clone()


def _broadcasts(self, row, part, g, comm):
    return torch.cat([comm.broadcast(part.clone(), source) for source in range(comm.ranks)])


def _reduces_whole(self, row, part, g, comm):
    whole, size = torch.zeros_like(row), len(part)
    whole[comm.rank * size : (comm.rank + 1) * size] = part
    return comm.all_reduce(whole)


def _gathers_whole(self, row, part, g, comm):
    size = len(part)
    row[comm.rank * size : (comm.rank + 1) * size] = part
    rows = comm.all_gather(row).view(comm.ranks, -1)
    return torch.cat([rows[r, r * size : (r + 1) * size] for r in range(comm.ranks)])


def _gathers_gradients(self, flat, comm):
    return _slice(comm.all_gather(flat).view(comm.ranks, -1).mean(0), comm)


def _own_slice(self, row, part, g, comm):
    row[comm.rank * len(part) : (comm.rank + 1) * len(part)] = part
    return row


def _namespaces(self, state, k, g, total):
    mine = state.setdefault(k, SimpleNamespace(m=torch.zeros_like(g), v=torch.zeros_like(g)))
    return mine.m, mine.v


def _arrays(self, state, k, g, total):
    """NumPy arrays, of which torch makes views."""
    if k not in state:
        state[k] = [np.zeros(len(g), dtype=g.numpy().dtype) for _ in range(2)]
    return [torch.from_numpy(x) for x in state[k]]


def _tensor_t(self, state, params):
    state.setdefault("t", torch.tensor(0.0)).add_(1)


def _whole_then_slice(self, state, k, g, total):
    if k not in state:
        state[k] = [torch.zeros(total, dtype=g.dtype)[: len(g)] for _ in range(2)]
    return state[k]


def _chunks(self, state, k, g, total):
    """A chunk is a view of the whole."""
    if k not in state:
        state[k] = [torch.zeros(total, dtype=g.dtype).chunk(total // len(g))[0].contiguous() for _ in range(2)]
    return state[k]


def _wider(self, state, k, g, total):
    if k not in state:
        state[k] = [torch.zeros_like(g) for _ in range(3)]
    return state[k][:2]


_GLOBAL = {}


def _global_moments(self, state, k, g, total):
    key = (id(state), k)
    if key not in _GLOBAL:
        _GLOBAL[key] = (torch.zeros_like(g), torch.zeros_like(g), state)  # alive, so that no other has its id
    return _GLOBAL[key][:2]


def _one_tensor(self, state, k, g, total):
    zeros = torch.zeros_like(g)
    return state.setdefault(k, (zeros, zeros))


@torch.no_grad()
def _as_lists(params, grads, state, *rest):
    """Between two steps m and v are lists of floats."""
    held = {k: [torch.tensor(x, dtype=grads[0].dtype) for x in v] if k != "t" else v for k, v in state.items()}
    _zero1()(params, grads, held, *rest)
    state.update({k: [x.tolist() for x in v] if k != "t" else v for k, v in held.items()})


def _keeps_gradients(params, grads, state, *rest):
    """m and v are sharded, and the local gradients stay in the state."""
    _zero1()(params, grads, state, *rest)
    state["g"] = [g.clone() for g in grads]


def _lets_go(change):
    def zero1_step(params, grads, *rest):
        _zero1()(params, grads, *rest)
        change(grads)

    return zero1_step


def _none_left(grads):
    grads[:] = [None] * len(grads)


def _broadcasts_too(params, grads, state, comm, *rest):
    _zero1()(params, grads, state, comm, *rest)
    for p in params:
        comm.broadcast(p.detach(), 0)


def _growing(self, state, k, g, total):
    state.setdefault("seen", []).append(g)
    return _Zero1.moments(self, state, k, g, total)


@torch.no_grad()
def _unsharded(params, grads, state, comm, lr, betas, eps, weight_decay):
    """AdamW on all elements on every rank: right, and nothing is saved."""
    state["t"] = state.get("t", 0) + 1
    for i, (p, g) in enumerate(zip(params, grads)):
        g = comm.all_reduce(g.clone()) / comm.ranks
        m, v = state.setdefault(i, (torch.zeros_like(g), torch.zeros_like(g)))
        _adamw(p, g, m, v, state["t"], lr, betas, eps, weight_decay)


@torch.no_grad()
def _masked(params, grads, state, comm, lr, betas, eps, weight_decay):
    """Whole moments, of which a rank uses its slice."""
    total = sum(p.numel() for p in params)
    row = _padded(torch.cat([p.detach().flatten() for p in params]), comm.ranks)
    size = len(row) // comm.ranks
    mine = slice(comm.rank * size, (comm.rank + 1) * size)
    g = comm.reduce_scatter(_padded(torch.cat([g.flatten() for g in grads]), comm.ranks)) / comm.ranks
    if not state:
        state.update(t=0, m=torch.zeros_like(row), v=torch.zeros_like(row))
    state["t"] += 1
    part = row[mine].clone()
    _adamw(part, g, state["m"][mine], state["v"][mine], state["t"], lr, betas, eps, weight_decay)
    new = comm.all_gather(part)[:total]
    for p, x in zip(params, new.split([p.numel() for p in params])):
        p.copy_(x.view_as(p))


@torch.no_grad()
def _by_owner(params, grads, state, comm, lr, betas, eps, weight_decay):
    """Whole tensors are dealt out in turns."""
    state["t"] = state.get("t", 0) + 1
    for i, (p, g) in enumerate(zip(params, grads)):
        g = comm.all_reduce(g.clone()) / comm.ranks
        if i % comm.ranks == comm.rank:
            m, v = state.setdefault(i, (torch.zeros_like(g), torch.zeros_like(g)))
            _adamw(p, g, m, v, state["t"], lr, betas, eps, weight_decay)
        comm.broadcast(p, i % comm.ranks)


@torch.no_grad()
def _reduces_in_place(params, grads, state, comm, lr, betas, eps, weight_decay):
    for g in grads:
        comm.all_reduce(g).div_(comm.ranks)
    size = -(-sum(p.numel() for p in params) // comm.ranks)
    return _zero1(reduce=lambda self, flat, comm: flat[comm.rank * size : (comm.rank + 1) * size].clone())(
        params, grads, state, comm, lr, betas, eps, weight_decay
    )


@torch.no_grad()
def _reduces_late(params, grads, state, comm, lr, betas, eps, weight_decay):
    """Each rank makes AdamW's step of its own gradient; then the parameters are averaged."""
    state["t"] = state.get("t", 0) + 1
    for i, (p, g) in enumerate(zip(params, grads)):
        m, v = state.setdefault(i, (torch.zeros_like(g), torch.zeros_like(g)))
        _adamw(p, g, m, v, state["t"], lr, betas, eps, weight_decay)
        comm.all_reduce(p).div_(comm.ranks)


def _with_optimizer(params, grads, state, comm, lr, betas, eps, weight_decay):
    """torch's AdamW over a copy of the slice, which is kept along with its gradient."""
    with torch.no_grad():
        row = _padded(torch.cat([p.detach().flatten() for p in params]), comm.ranks)
        g = comm.reduce_scatter(_padded(torch.cat([g.flatten() for g in grads]), comm.ranks)) / comm.ranks
    if not state:
        state["mine"] = _slice(row, comm).requires_grad_()
        state["adamw"] = torch.optim.AdamW([state["mine"]], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    state["adamw"].param_groups[0]["lr"] = lr
    state["mine"].grad = g
    state["adamw"].step()
    with torch.no_grad():
        start, new = 0, comm.all_gather(state["mine"].detach())
        for p in params:
            p.copy_(new[start : start + p.numel()].view_as(p))
            start += p.numel()


def _first_rate(params, grads, state, comm, lr, *rest):
    """The rate is kept beside the moments, as a group of torch.optim keeps it."""
    rate = state.pop("lr", lr)
    _zero1()(params, grads, state, comm, rate, *rest)
    state["lr"] = rate


def _backward_order(params, grads, *rest):
    """The gradients' row is built as a backward pass makes them."""
    row = torch.cat([g.flatten() for g in reversed(grads)])
    parts = row.split([p.numel() for p in params])
    _zero1()(params, [x.view_as(p) for p, x in zip(params, parts)], *rest)


def _l2(params, grads, state, comm, lr, betas, eps, weight_decay):
    grads = [g + weight_decay * p.detach() for p, g in zip(params, grads)]
    return _zero1()(params, grads, state, comm, lr, betas, eps, 0.0)


def _whole_decay_too(params, grads, state, comm, lr, betas, eps, weight_decay):
    for p in params:
        p.data.mul_(1 - lr * weight_decay)
    return _zero1()(params, grads, state, comm, lr, betas, eps, weight_decay)


def _from_rank_zero(self, flat, comm):
    return _slice(comm.broadcast(flat.clone(), 0), comm)


def _t_per_tensor(params, grads, state, comm, lr, betas, eps, weight_decay):
    for p, g in zip(params, grads):
        _by_tensor([p], [g], state, comm, lr, betas, eps, weight_decay)


def _leaf_without_no_grad(params, grads, state, comm, lr, betas, eps, weight_decay):
    for p, g in zip(params, grads):
        p -= lr * comm.all_reduce(g.clone())


def _rank_zero_alone(params, grads, state, comm, *hyper):
    if comm.rank == 0:
        _by_tensor(params, grads, state, comm, *hyper)


def _other_order(params, grads, state, comm, *hyper):
    order = slice(None, None, 1 if comm.rank == 0 else -1)
    _by_tensor(params[order], grads[order], state, comm, *hyper)


def _leaves_early(params, grads, state, comm, *hyper):
    """A rank whose slice is padding alone returns."""
    total = sum(p.numel() for p in params)
    if comm.rank * -(-total // comm.ranks) >= total:
        return
    _zero1()(params, grads, state, comm, *hyper)


@torch.no_grad()
def _drops_tail(params, grads, state, comm, lr, betas, eps, weight_decay):
    total = sum(p.numel() for p in params)
    even = total // comm.ranks * comm.ranks
    row = torch.cat([p.detach().flatten() for p in params])
    flat = torch.cat([g.flatten() for g in grads])
    size = even // comm.ranks
    g = comm.reduce_scatter(flat[:even]) / comm.ranks
    if not state:
        state.update(t=0, m=torch.zeros_like(g), v=torch.zeros_like(g))
    state["t"] += 1
    part = row[comm.rank * size : (comm.rank + 1) * size].clone()
    _adamw(part, g, state["m"], state["v"], state["t"], lr, betas, eps, weight_decay)
    row[:even] = comm.all_gather(part)
    for p, x in zip(params, row.split([p.numel() for p in params])):
        p.copy_(x.view_as(p))


@torch.no_grad()
def _no_padding_in_parts(params, grads, state, comm, lr, betas, eps, weight_decay):
    """The last rank has a shorter slice."""
    row = torch.cat([p.detach().flatten() for p in params])
    g = comm.all_reduce(torch.cat([g.flatten() for g in grads])) / comm.ranks
    part, g = row.chunk(comm.ranks)[comm.rank].clone(), g.chunk(comm.ranks)[comm.rank].clone()
    if not state:
        state.update(t=0, m=torch.zeros_like(g), v=torch.zeros_like(g))
    state["t"] += 1
    _adamw(part, g, state["m"], state["v"], state["t"], lr, betas, eps, weight_decay)
    for p, x in zip(params, comm.all_gather(part).split([p.numel() for p in params])):
        p.copy_(x.view_as(p))


def _float_moments(self, state, k, g, total):
    return state.setdefault(k, [torch.zeros(len(g)) for _ in range(2)])


def _float_update(self, p, g, m, v, *hyper):
    _Zero1.update(self, p, g.float(), m, v, *hyper)


def _sets_data(self, p, new, params):
    p.data = new.clone()


def _sets_entry(self, p, new, params):
    params[next(i for i, other in enumerate(params) if other is p)] = new.clone()


def _squares_reduced(self, flat, comm):
    """v is given the mean of the squares."""
    self.of_squares = comm.reduce_scatter(flat * flat) / comm.ranks
    return comm.reduce_scatter(flat) / comm.ranks


class _MeanOfSquares(_Zero1):
    def __call__(self, *arguments):
        one = _Zero1()
        one.reduce = lambda flat, comm: _squares_reduced(one, flat, comm)
        one.square = lambda g: one.of_squares
        return one(*arguments)


_ZERO1 = {
    "by tensor": (_by_tensor, ""),
    "one flat row": (_zero1(), ""),
    "each by itself": (_zero1(each=True), ""),
    "all_reduce": (_zero1(reduce=_all_reduced), ""),
    "broadcasts": (_zero1(gather=_broadcasts), ""),
    "zeros and a sum": (_zero1(gather=_reduces_whole), ""),
    "broadcasts too": (_broadcasts_too, ""),
    "namespaces": (_zero1(moments=_namespaces), ""),
    "arrays": (_zero1(moments=_arrays), ""),
    "t is a tensor": (_zero1(t=_tensor_t), ""),
    "sum": (_zero1(reduce=lambda self, flat, comm: comm.reduce_scatter(flat)), "sum"),
    "mean twice": (
        _zero1(reduce=lambda self, flat, comm: comm.reduce_scatter(flat / comm.ranks) / comm.ranks),
        "mean-twice",
    ),
    "nothing reduced": (_zero1(reduce=lambda self, flat, comm: _slice(flat, comm)), "local"),
    "own over ranks": (_zero1(reduce=lambda self, flat, comm: _slice(flat, comm) / comm.ranks), "local-divided"),
    "rank 0's gradient": (_zero1(reduce=_from_rank_zero), "rank-zero"),
    "max": (_zero1(reduce=lambda self, flat, comm: _slice(comm.all_reduce(flat, "max"), comm)), "largest"),
    "reduces late": (_reduces_late, "reduces-late"),
    "mean of squares": (_MeanOfSquares(), "mean-of-squares"),
    "not gathered": (_zero1(gather=_own_slice), "not-gathered"),
    "not gathered, each": (_zero1(gather=_own_slice, each=True), "not-gathered-tensors"),
    "neither reduced nor gathered": (
        _zero1(gather=_own_slice, reduce=lambda self, flat, comm: _slice(flat, comm)),
        "not-gathered-local",
    ),
    "gathers the old": (
        _zero1(gather=lambda self, row, part, g, comm: comm.all_gather(_slice(row, comm))),
        "does-not-move",
    ),
    "reversed": (
        _zero1(gather=lambda self, row, part, g, comm: comm.all_gather(part).view(comm.ranks, -1).flip(0).flatten()),
        "reversed",
    ),
    "reversed, each": (
        _zero1(
            gather=lambda self, row, part, g, comm: comm.all_gather(part).view(comm.ranks, -1).flip(0).flatten(),
            each=True,
        ),
        "reversed-tensors",
    ),
    "rotated": (_zero1(gather=lambda self, row, part, g, comm: comm.all_gather(part).roll(len(part))), "rotated"),
    "rotated back": (
        _zero1(gather=lambda self, row, part, g, comm: comm.all_gather(part).roll(-len(part))),
        "rotated-back",
    ),
    "interleaved": (
        _zero1(gather=lambda self, row, part, g, comm: comm.all_gather(part).view(comm.ranks, -1).T.flatten()),
        "interleaved",
    ),
    "first slice": (_zero1(part=lambda self, row, comm, size: row[:size].clone()), "first-slice"),
    "first slice, each": (
        _zero1(part=lambda self, row, comm, size: row[:size].clone(), each=True),
        "first-slice-tensors",
    ),
    "rank 0's slice": (
        _zero1(gather=lambda self, row, part, g, comm: comm.broadcast(part.clone(), 0).repeat(comm.ranks)),
        "rank-zero-slice",
    ),
    "gathers gradient": (_zero1(gather=lambda self, row, part, g, comm: comm.all_gather(g)), "gathers-gradient"),
    "tail behind": (_drops_tail, "tail-left"),
    "added": (_zero1(write=lambda self, p, new, params: p.add_(new)), "added"),
    "averaged": (
        _zero1(
            gather=lambda self, row, part, g, comm: comm.all_reduce(_own_slice(self, row, part, g, comm)) / comm.ranks
        ),
        "averaged",
    ),
    "summed": (
        _zero1(gather=lambda self, row, part, g, comm: comm.all_reduce(_own_slice(self, row, part, g, comm))),
        "summed",
    ),
    "t stays": (_zero1(t=lambda self, state, params: state.update(t=1)), "t-stays"),
    "t from 2": (_zero1(t=lambda self, state, params: state.update(t=state.get("t", 1) + 1)), "t-one-late"),
    "t in twos": (_zero1(t=lambda self, state, params: state.update(t=state.get("t", 0) + 2)), "t-in-twos"),
    "t from 0": (_zero1(t=lambda self, state, params: state.update(t=state.get("t", -1) + 1)), "not-finite"),
    "t for each tensor": (_t_per_tensor, "raises"),
    "moments anew": (
        _zero1(moments=lambda self, state, k, g, total: (torch.zeros_like(g), torch.zeros_like(g))),
        "moments-forgotten",
    ),
    "state anew": (
        lambda params, grads, state, *rest: _zero1()(params, grads, {}, *rest),
        "t-forgotten",
    ),
    "no correction": (_zero1(direction=lambda self, m, v, b1, b2, t, eps: m / (v.sqrt() + eps)), "not-corrected"),
    "m not corrected": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: m / ((v / (1 - b2**t)).sqrt() + eps)),
        "m-not-corrected",
    ),
    "v not corrected": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: m / (1 - b1**t) / (v.sqrt() + eps)),
        "v-not-corrected",
    ),
    "eps inside": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: m / (1 - b1**t) / (v / (1 - b2**t) + eps).sqrt()),
        "eps-inside-root",
    ),
    "eps before": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: m / (1 - b1**t) * (1 - b2**t) ** 0.5 / (v.sqrt() + eps)),
        "eps-before-correction",
    ),
    "no eps": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: (m / (1 - b1**t) / (v / (1 - b2**t)).sqrt()).nan_to_num()),
        "eps-missing",
    ),
    "no root": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: m / (1 - b1**t) / (v / (1 - b2**t) + eps)),
        "root-missing",
    ),
    "uphill": (
        _zero1(direction=lambda self, m, v, b1, b2, t, eps: -_Zero1.direction(self, m, v, b1, b2, t, eps)),
        "ascends",
    ),
    "first rate": (_first_rate, "rate-remembered"),
    "backward order": (_backward_order, "gradients-reversed"),
    "betas exchanged": (
        lambda p, g, s, c, lr, betas, eps, decay: _zero1()(p, g, s, c, lr, betas[::-1], eps, decay),
        "betas-exchanged",
    ),
    "not squared": (_zero1(square=lambda self, g: g.abs()), "squares-missing"),
    "L2": (_l2, "decay-in-gradient"),
    "decays whole and slice": (_whole_decay_too, "decay-twice"),
    "no decay": (_zero1(decay=lambda self, p, lr, decay: None), "decay-missing"),
    "decay without lr": (_zero1(decay=lambda self, p, lr, decay: p.mul_(1 - decay)), "decay-without-lr"),
    "unsharded": (_unsharded, "state-whole"),
    "whole moments, one slice used": (_masked, "state-whole"),
    "whole, then a slice": (_zero1(moments=_whole_then_slice), "state-sliced"),
    "chunk, contiguous": (_zero1(moments=_chunks), "state-sliced"),
    "one more": (_zero1(moments=_wider), "state-over-share"),
    "torch's AdamW kept": (_with_optimizer, "state-over-share"),
    "whole tensors": (_by_owner, "state-uneven"),
    "a global": (_zero1(moments=_global_moments), "state-elsewhere"),
    "lists of floats": (_as_lists, "state-elsewhere"),
    "one tensor for m and v": (_zero1(moments=_one_tensor), "moments-shared"),
    "keeps the gradients": (_keeps_gradients, "state-over-share"),
    "empties grads": (_lets_go(list.clear), "gradients-replaced"),
    "grads to None": (_lets_go(_none_left), "gradients-replaced"),
    "grows": (_zero1(moments=_growing), "state-grows"),
    "gathers whole rows": (_zero1(gather=_gathers_whole), "sends-too-much"),
    "gathers gradients": (_zero1(reduce=_gathers_gradients), "sends-too-much"),
    "reduces in place": (_reduces_in_place, "gradient-written"),
    "sets data": (_zero1(write=_sets_data), "not-in-place"),
    "sets the list": (_zero1(write=_sets_entry), "not-in-place"),
    "no padding": (_zero1(pad=lambda self, row, comm: row), "padding"),
    "shorter last slice": (_no_padding_in_parts, "ranks-disagree"),
    "rank 0 alone": (_rank_zero_alone, "not-joined"),
    "another order": (_other_order, "ranks-disagree"),
    "padding goes home": (_leaves_early, "not-joined"),
    "float32": (
        _zero1(moments=lambda self, s, k, g, n: s.setdefault(k, [torch.zeros(len(g)) for _ in "mv"])),
        "raises",
    ),
    "float32 moments": (_zero1(moments=_float_moments, update=_float_update), "state-narrow"),
    "no no_grad": (_leaf_without_no_grad, "needs-no-grad"),
    "other arguments": (lambda params, grads, comm: None, "signature"),
    "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError), "blank"),
    "a class": (_Zero1, "wrong-type"),
    "blank": (None, "blank"),
}

# -------------------------------------------------------------------------------------------------------- zero_bug


class _Zero2:
    """The step of the exercise, repaired, in pieces; each other answer replaces one of them."""

    @torch.no_grad()
    def __call__(self, params, grads, state, comm, lr, betas, eps, weight_decay, max_norm):
        sizes = [-(-p.numel() // comm.ranks) for p in params]
        local = [g.clone() for g in grads]
        slices = [None] * len(params)
        for i in reversed(range(len(params))):
            slices[i] = self.reduced(self.before(grads, i, max_norm), comm)
            self.release(grads, i)
        norm = self.norm(slices, comm, local)
        by = self.factor(norm, max_norm, slices, comm)
        told = self.gives(norm, by, slices, comm, max_norm)
        slices = self.clip(slices, by, max_norm, comm)
        if not state:
            state["t"] = 0
            state["m"], state["v"] = ([self.zeros(g, comm) for g in slices] for _ in range(2))
        state["t"] = self.count(state["t"])
        for p, g, m, v, size in zip(params, slices, state["m"], state["v"], sizes):
            row = _padded(p.detach().flatten(), comm.ranks)
            part = row[comm.rank * size : (comm.rank + 1) * size].clone()
            _adamw(part, g, *self.keeps(m, v), state["t"], lr, betas, eps, self.decay(weight_decay))
            self.write(p, comm.all_gather(part)[: p.numel()].view_as(p))
        return told

    def before(self, grads, i, max_norm):
        return grads[i]

    def reduced(self, g, comm):
        return comm.reduce_scatter(_padded(g.flatten(), comm.ranks)) / comm.ranks

    def release(self, grads, i):
        grads[i] = None

    def norm(self, slices, comm, local):
        return comm.all_reduce(torch.cat(slices).square().sum()).sqrt()

    def factor(self, norm, bound, slices, comm):
        return (bound / (norm + 1e-6)).clamp(max=1.0)

    def gives(self, norm, by, slices, comm, bound):
        return norm

    def clip(self, slices, by, bound, comm):
        return [g * by for g in slices]

    def zeros(self, g, comm):
        return torch.zeros_like(g)

    def count(self, t):
        return t + 1

    def keeps(self, m, v):
        return m, v

    def decay(self, weight_decay):
        return weight_decay

    def write(self, p, new):
        p.copy_(new)


def _zero2(**pieces):
    return type("_Repaired", (_Zero2,), pieces)()


def _own2(self, slices, comm, local=None):
    return torch.cat(slices).norm()


def _reduced2(number):
    """A norm from one number of each rank, and what is done with their sum."""

    def norm(self, slices, comm, local):
        return number(torch.cat(slices).norm(), comm)

    return norm


def _whole_slices(self, g, comm):
    return torch.zeros(len(g) * comm.ranks, dtype=g.dtype)[comm.rank * len(g) : (comm.rank + 1) * len(g)]


def _local2(self, slices, comm, local):
    return torch.cat([g.flatten() for g in local]).norm()


def _all_local2(self, slices, comm, local):
    return comm.all_reduce(torch.cat([g.flatten() for g in local]).square().sum()).sqrt()


def _by_gather(self, slices, comm, local):
    return comm.all_gather(torch.cat(slices)).norm()


def _pieces_gathered(self, slices, comm, local):
    return comm.all_gather(torch.cat(slices).square().sum().reshape(1)).sum().sqrt()


def _clip_each(self, slices, by, bound, comm):
    norms = [comm.all_reduce(g.square().sum()).sqrt() for g in slices]
    return [g * (bound / (norm + 1e-6)).clamp(max=1.0) for g, norm in zip(slices, norms)]


class _ClipsFirst(_Zero2):
    """Each rank clips its gradient before the reduce."""

    @torch.no_grad()
    def __call__(self, params, grads, state, comm, lr, betas, eps, weight_decay, max_norm):
        norm = torch.cat([g.flatten() for g in grads]).norm()
        clipped = [g * (max_norm / (norm + 1e-6)).clamp(max=1.0) for g in grads]
        _zero2(clip=lambda self, slices, by, bound, comm: slices)(
            params, clipped, state, comm, lr, betas, eps, weight_decay, max_norm
        )
        grads[:] = [None] * len(grads)
        return norm


@torch.no_grad()
def _one_row2(params, grads, state, comm, *rest):
    """All gradients go through one reduce-scatter, and are let go of after it."""
    rows = torch.cat([_padded(g.flatten(), comm.ranks).view(comm.ranks, -1) for g in grads], 1)
    part = comm.reduce_scatter(rows.flatten()) / comm.ranks
    slices = part.split([-(-p.numel() // comm.ranks) for p in params])
    taken = _zero2(before=lambda self, grads, i, bound: i, reduced=lambda self, i, comm: slices[i].clone())
    return taken(params, grads, state, comm, *rest)


class _ClipsStep(_Zero2):
    """lr is made smaller, and the decay is not."""

    @torch.no_grad()
    def __call__(self, params, grads, state, comm, lr, betas, eps, weight_decay, max_norm):
        one = _Zero2()
        one.clip = lambda slices, by, bound, comm: slices
        before = [p.detach() * (1 - lr * weight_decay) for p in params]
        norm = one(params, grads, state, comm, lr, betas, eps, weight_decay, max_norm)
        for p, old in zip(params, before):
            p.copy_(old + (p - old) * (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm


def _both_left(self, slices, comm, local):
    return torch.linalg.vector_norm(torch.cat(slices))


_ZERO2 = {
    "repaired": (_zero2(), ""),
    "clone": (_zero2(zeros=lambda self, g, comm: _whole_slices(self, g, comm).clone()), ""),
    "a copy": (_zero2(zeros=lambda self, g, comm: torch.empty(len(g), dtype=g.dtype).zero_()), ""),
    "norms squared": (
        _zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm**2) ** 0.5)),
        "",
    ),
    "numbers gathered": (_zero2(norm=_pieces_gathered), ""),
    "a number": (_zero2(gives=lambda self, norm, by, s, c, b: norm.item()), ""),
    "max(1, norm / bound)": (_zero2(factor=lambda self, norm, b, s, c: 1 / torch.clamp(norm / b, min=1)), ""),
    "unrepaired": (_zero2(norm=_both_left, zeros=_whole_slices), "own-norm"),
    "unrepaired state": (_zero2(zeros=_whole_slices), "state-sliced"),
    "unrepaired norm": (_zero2(norm=_own2), "own-norm"),
    "contiguous": (_zero2(zeros=lambda self, g, comm: _whole_slices(self, g, comm).contiguous()), "state-sliced"),
    "detach": (_zero2(zeros=lambda self, g, comm: _whole_slices(self, g, comm).detach()), "state-sliced"),
    "narrow": (
        _zero2(zeros=lambda self, g, comm: torch.zeros(len(g) * comm.ranks, dtype=g.dtype).narrow(0, 0, len(g))),
        "state-sliced",
    ),
    "clips by its own": (
        _zero2(factor=lambda self, norm, b, s, c: (b / _own2(self, s, c)).clamp(max=1)),
        "clips-by-own-norm",
    ),
    "returns its own": (_zero2(gives=lambda self, norm, by, s, c, b: _own2(self, s, c)), "returns-own-norm"),
    "sum of norms": (_zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm))), "sum-of-norms"),
    "max": (_zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm, "max"))), "largest-norm"),
    "mean of norms": (_zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm) / comm.ranks)), "mean-of-norms"),
    "mean of squares": (
        _zero2(norm=_reduced2(lambda norm, comm: (comm.all_reduce(norm**2) / comm.ranks).sqrt())),
        "mean-of-squares",
    ),
    "over ranks": (
        _zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm**2).sqrt() / comm.ranks)),
        "divided-by-ranks",
    ),
    "no root": (_zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm**2))), "root-missing"),
    "root twice": (_zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce(norm).sqrt())), "root-twice"),
    "norm of the sum": (
        _zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce((norm * comm.ranks) ** 2).sqrt())),
        "norm-of-sum",
    ),
    "norm before reduce": (_zero2(norm=_local2), "norm-of-local"),
    "norms before reduce": (_zero2(norm=_all_local2), "norm-of-all-local"),
    "clips first": (_ClipsFirst().__call__, "clip-before-reduce"),
    "each by its own": (_zero2(clip=_clip_each), "each-by-its-own"),
    "not clipped": (_zero2(clip=lambda self, slices, by, b, c: slices), "not-clipped"),
    "always clipped": (_zero2(factor=lambda self, norm, b, s, c: b / norm), "always-clipped"),
    "clipped twice": (_zero2(clip=lambda self, slices, by, b, c: [g * by * by for g in slices]), "clipped-twice"),
    "clips the step": (_ClipsStep().__call__, "clips-the-step"),
    "returns after": (_zero2(gives=lambda self, norm, by, s, c, b: norm.clamp(max=b)), "returns-after"),
    "returns square": (_zero2(gives=lambda self, norm, by, s, c, b: norm**2), "returns-square"),
    "returns factor": (_zero2(gives=lambda self, norm, by, s, c, b: by), "returns-factor"),
    "sum": (_zero2(reduced=lambda self, g, comm: comm.reduce_scatter(_padded(g.flatten(), comm.ranks))), "sum"),
    "moments anew": (_zero2(keeps=lambda self, m, v: (m.zero_(), v.zero_())), "moments-forgotten"),
    "t stays": (_zero2(count=lambda self, t: 1), "t-stays"),
    "no decay": (_zero2(decay=lambda self, decay: 0.0), "decay-missing"),
    "does not move": (_zero2(write=lambda self, p, new: None), "does-not-move"),
    "gathers all": (_zero2(norm=_by_gather), "sends-more"),
    "keeps gradients": (_zero2(release=lambda self, grads, i: None), "gradients-kept"),
    "one flat row": (_one_row2, "gradients-twice"),
    "zeroes gradients": (_zero2(release=lambda self, grads, i: grads[i].zero_()), "gradients-kept"),
    "sets data": (_zero2(write=lambda self, p, new: setattr(p, "data", new.clone())), "not-in-place"),
    "reduces if long": (
        _zero2(norm=lambda self, s, c, l: _own2(self, s, c) if c.rank else _Zero2.norm(self, s, c, l)),
        "ranks-disagree",
    ),
    "NaN is zero": (
        _zero2(norm=_reduced2(lambda norm, comm: comm.all_reduce((norm**2).nan_to_num()).sqrt())),
        "not-finite-unseen",
    ),
    "returns nothing": (_zero2(gives=lambda self, *_: None), "wrong-result"),
    "zero1's arguments": (lambda params, grads, state, comm, lr, betas, eps, weight_decay: None, "signature"),
    "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError), "blank"),
    "blank": (None, "blank"),
}

FUNCTIONS = {
    "clip_sharded": _CLIP,
    "zero1_step": _ZERO1,
    "zero_bug": _ZERO2,
}
