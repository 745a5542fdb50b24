"""Answers to the exercise `amp_step`."""

from __future__ import annotations

import contextlib

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_


def _step(
    first=lambda model, optimizer: optimizer.zero_grad(),
    each=lambda loss, count, scaler: scaler.scale(loss / count).backward(),
    after_each=lambda model, optimizer, scaler, bound: None,
    unscale=lambda optimizer, scaler: scaler.unscale_(optimizer),
    clip=lambda model, optimizer, scaler, bound: clip_grad_norm_(model.parameters(), bound),
    step=lambda optimizer, scaler: scaler.step(optimizer),
    update=lambda scaler: scaler.update(),
    last=lambda model, optimizer: None,
    chosen=lambda batches: batches,
):
    """The usual loop, with one line of it exchanged."""

    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        first(model, optimizer)
        for batch in chosen(batches):
            each(loss_fn(model, batch), len(batches), scaler)
            after_each(model, optimizer, scaler, max_norm)
        unscale(optimizer, scaler)
        clip(model, optimizer, scaler, max_norm)
        step(optimizer, scaler)
        update(scaler)
        last(model, optimizer)

    return amp_step


def _nothing(*_):
    pass


def _parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


# ------------------------------------------------------------------------------------------------------- right


def _by_hand(model, loss_fn, batches, optimizer, scaler, max_norm):
    for micro in batches:
        loss = loss_fn(model, micro)
        scaler.scale(loss).div(len(batches)).backward()
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    total = torch.stack([g.pow(2).sum() for g in gradients]).sum().sqrt()
    if total > max_norm:
        for g in gradients:
            g *= max_norm / total
    scaler.step(optimizer)
    scaler.update()
    for p in model.parameters():
        p.grad = None


def _foreach(model, loss_fn, batches, optimizer, scaler, max_norm):
    model.zero_grad(set_to_none=False)
    n = len(batches)
    for i in range(n):
        scaler.scale(loss_fn(model, batches[i]) * (1 / n)).backward()
    scaler.unscale_(optimizer)
    grads = [p.grad for p in _parameters(optimizer)]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, torch.clamp(max_norm / (norm + 1e-6), max=1.0).item())
    scaler.step(optimizer)
    scaler.update()


def _mean_afterwards(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Sums of gradients, divided before they are clipped; returns what a logger wants."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = loss_fn(model, batch)
        total += loss.item()
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    for p in _parameters(optimizer):
        p.grad.div_(len(batches))
    norm = clip_grad_norm_(_parameters(optimizer), max_norm, foreach=False)
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return total / len(batches), float(norm), scaler.get_scale() < before


def _one_backward(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    loss = torch.stack([loss_fn(model, batch) for batch in batches]).mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _scaled_bound(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Clipped while scaled, to a bound that is scaled too."""
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    clip_grad_norm_(model.parameters(), max_norm * scaler.get_scale())
    scaler.step(optimizer)
    scaler.update()


def _only_if_finite(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Does by hand what the scaler does anyway, and tells it."""
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    norm = clip_grad_norm_(model.parameters(), max_norm)
    if torch.isfinite(norm):
        scaler.step(optimizer)
    scaler.update()


def _own_check(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Steps past the scaler, after a look of its own."""
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    if all(p.grad.isfinite().all() for p in _parameters(optimizer)):
        optimizer.step()
    scaler.update()


def _from_a_stack(model, loss_fn, batches, optimizer, scaler, max_norm):
    """The calls after backward from a stack, last in first out; each gradient kept by itself and added up at the end."""
    added = {}
    with contextlib.ExitStack() as stack:
        stack.callback(optimizer.zero_grad)
        stack.callback(scaler.update)
        stack.callback(scaler.step, optimizer)
        stack.callback(clip_grad_norm_, list(model.parameters()), max_norm)
        stack.callback(scaler.unscale_, optimizer)
        for batch in batches:
            optimizer.zero_grad()
            torch.autograd.backward(scaler.scale(loss_fn(model, batch) / len(batches)))
            for p in _parameters(optimizer):
                added[p] = added.get(p, 0) + p.grad
        for p, gradient in added.items():
            p.grad = gradient


class _Logging:
    """An object that is called, and flattens the gradients into one vector."""

    def __init__(self):
        self.norms = []

    def __call__(self, model, loss_fn, batches, optimizer, scaler, max_norm):
        for share in (loss_fn(model, batch).mul(1 / len(batches)) for batch in batches):
            scaler.scale(share).backward()
        scaler.unscale_(optimizer)
        trained = [p for p in model.parameters() if p.requires_grad]
        flat = torch.nn.utils.parameters_to_vector(p.grad for p in trained)
        self.norms.append(flat.norm().item())
        flat *= min(1.0, max_norm / self.norms[-1])
        for p, piece in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            p.grad = piece.view_as(p)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def _with_grad(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Gradients from torch.autograd.grad, added up by hand."""
    params = _parameters(optimizer)
    total = [torch.zeros_like(p) for p in params]
    for batch in batches:
        grads = torch.autograd.grad(scaler.scale(loss_fn(model, batch)) / len(batches), params)
        total = [t + g for t, g in zip(total, grads, strict=True)]
    for p, t in zip(params, total, strict=True):
        p.grad = t
    scaler.unscale_(optimizer)
    norm = sum((p.grad**2).sum() for p in params) ** 0.5
    for p in params:
        p.grad = p.grad * torch.minimum(max_norm / norm, torch.ones(()))
    scaler.step(optimizer)
    scaler.update()


def _get_total_norm(model, loss_fn, batches, optimizer, scaler, max_norm):
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, torch.nn.utils.get_total_norm(grads))
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=False)


def _over_all_twice(model, loss_fn, batches, optimizer, scaler, max_norm):
    losses = [loss_fn(model, batch).item() for batch in batches]
    _step()(model, loss_fn, batches, optimizer, scaler, max_norm)
    return sum(losses) / len(losses)


def _zeroed_after_overflow(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Clears inf and NaN out of the gradients, after `unscale_` has seen them."""
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    if not torch.isfinite(clip_grad_norm_(model.parameters(), max_norm)):
        optimizer.zero_grad(set_to_none=False)
    scaler.step(optimizer)
    scaler.update()


def _warns_of_infinite_losses(model, loss_fn, batches, optimizer, scaler, max_norm):
    """Counts what is infinite, and leaves it to the scaler."""
    infinite = 0
    for batch in batches:
        loss = loss_fn(model, batch)
        infinite += not torch.isfinite(loss)
        scaler.scale(loss / len(batches)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return infinite


def _sum_under_a_larger_bound(model, loss_fn, batches, optimizer, scaler, max_norm):
    """The sum is clipped to the bound times the count, and divided afterwards: the same in exact arithmetic."""
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm * len(batches))
    for p in _parameters(optimizer):
        p.grad /= len(batches)
    scaler.step(optimizer)
    scaler.update()


_RIGHT = {
    "the usual": _step(),
    "zeroed after an overflow": _zeroed_after_overflow,
    "warns of infinite losses": _warns_of_infinite_losses,
    "the sum, clipped to as much more": _sum_under_a_larger_bound,
    "zeroed last": _step(first=_nothing, last=lambda model, optimizer: optimizer.zero_grad()),
    "zeroed on both ends": _step(last=lambda model, optimizer: model.zero_grad()),
    "scaled, then divided": _step(each=lambda loss, n, scaler: (scaler.scale(loss) / n).backward()),
    "by hand, zeroed last": _by_hand,
    "foreach": _foreach,
    "mean afterwards": _mean_afterwards,
    "one backward": _one_backward,
    "bound scaled": _scaled_bound,
    "only if finite": _only_if_finite,
    "autograd.grad": _with_grad,
    "its own check": _own_check,
    "from a stack": _from_a_stack,
    "an object, flattened": _Logging(),
    "total norm": _get_total_norm,
    "losses for the log first": _over_all_twice,
}

# ------------------------------------------------------------------------------------------------------- wrong


def _clipped_before(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


def _updated_before(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.update()
    scaler.step(optimizer)


def _unscaled_after(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.unscale_(optimizer)
    scaler.update()


def _clipped_after(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.update()


def _without_scaler(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        (loss_fn(model, batch) / len(batches)).backward()
    clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()


def _own_scaler(model, loss_fn, batches, optimizer, scaler, max_norm):
    _step()(model, loss_fn, batches, optimizer, torch.amp.GradScaler("cpu"), max_norm)


def _returns_early(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    if not torch.isfinite(clip_grad_norm_(model.parameters(), max_norm)):
        return
    scaler.step(optimizer)
    scaler.update()


def _last_loss_only(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        loss = loss_fn(model, batch) / len(batches)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _unscales_by_hand(model, optimizer, scaler, bound):
    for p in _parameters(optimizer):
        p.grad /= scaler.get_scale()
    clip_grad_norm_(model.parameters(), bound)


def _forgives(model, optimizer, scaler, bound):
    for p in _parameters(optimizer):
        p.grad.nan_to_num_(0.0, 0.0, 0.0)


def _value(model, optimizer, scaler, bound):
    clip_grad_value_(model.parameters(), bound)


def _clip(factor):
    """Clip by hand: every gradient times ``factor(gradients, bound)``, at most 1."""

    def clip(model, optimizer, scaler, bound):
        grads = [p.grad for p in _parameters(optimizer)]
        times = factor(grads, bound)
        for g in grads:
            g.mul_(times)

    return clip


def _each_tensor(model, optimizer, scaler, bound):
    for p in _parameters(optimizer):
        clip_grad_norm_(p, bound)


def _each_group(model, optimizer, scaler, bound):
    for group in optimizer.param_groups:
        clip_grad_norm_(group["params"], bound)


def _first_group(model, optimizer, scaler, bound):
    clip_grad_norm_(optimizer.param_groups[0]["params"], bound)


def _frozen_too(model, optimizer, scaler, bound):
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    if norm > bound:
        for p in model.parameters():
            p.grad.mul_(bound / norm)


def _raises_on_overflow(model, optimizer, scaler, bound):
    clip_grad_norm_(model.parameters(), bound, error_if_nonfinite=True)


def _under_autocast(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_fn(model, batch) / len(batches)
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _zeroed_each_time(model, loss_fn, batches, optimizer, scaler, max_norm):
    for batch in batches:
        optimizer.zero_grad()
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _unscaled_first(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.unscale_(optimizer)
    for batch in batches:
        scaler.scale(loss_fn(model, batch) / len(batches)).backward()
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _reads_the_scale(model, optimizer, scaler, bound):
    scale = scaler._scale.item()
    clip_grad_norm_(model.parameters(), bound * scale)


def _halves_the_rate(optimizer, scaler):
    for group in optimizer.param_groups:
        group["lr"] /= 2
    scaler.step(optimizer)


def _weighted(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    examples = sum(len(batch[0]) for batch in batches)
    for batch in batches:
        scaler.scale(loss_fn(model, batch) * len(batch[0]) / examples).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _divided_by(divisor):
    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        optimizer.zero_grad()
        for batch in batches:
            scaler.scale(loss_fn(model, batch) / divisor(batch, batches)).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()

    return amp_step


def _at_an_infinite_loss(answer):
    """Calls ``answer(optimizer, scaler)`` at an infinite loss; returns if that is true, else goes on with the next."""

    def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
        optimizer.zero_grad()
        for batch in batches:
            loss = loss_fn(model, batch) / len(batches)
            if not torch.isfinite(loss):
                if answer(optimizer, scaler):
                    return
                continue
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()

    return amp_step


def _asserts(optimizer, scaler):
    raise AssertionError("the loss is infinite")


def _large_losses_left_out(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        loss = loss_fn(model, batch) / len(batches)
        if loss < 1e4:
            scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _unscales_several_only(model, loss_fn, batches, optimizer, scaler, max_norm):
    unscale = _nothing if len(batches) == 1 else lambda o, s: s.unscale_(o)
    _step(unscale=unscale)(model, loss_fn, batches, optimizer, scaler, max_norm)


def _divides_afterwards(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        scaler.scale(loss_fn(model, batch)).backward()
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    for p in _parameters(optimizer):
        p.grad /= len(batches)
    scaler.step(optimizer)
    scaler.update()


def _divides_the_bound(model, loss_fn, batches, optimizer, scaler, max_norm):
    _step()(model, loss_fn, batches, optimizer, scaler, max_norm / len(batches))


def _divides_the_rate(model, loss_fn, batches, optimizer, scaler, max_norm):
    for group in optimizer.param_groups:
        group["lr"] /= len(batches)
    each = lambda loss, n, scaler: scaler.scale(loss).backward()
    _step(each=each)(model, loss_fn, batches, optimizer, scaler, max_norm * len(batches))


def _cleans_after(optimizer, scaler):
    scaler.unscale_(optimizer)
    _forgives(None, optimizer, scaler, 0)


def _grad_of_all(model, loss_fn, batches, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    for batch in batches:
        loss = scaler.scale(loss_fn(model, batch) / len(batches))
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
            p.grad = g if p.grad is None else p.grad + g
    scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _in_half(model, optimizer, scaler, bound):
    for p in _parameters(optimizer):
        p.grad = p.grad.half().float()
    clip_grad_norm_(model.parameters(), bound)


_WRONG = {
    "weighted by examples": (_weighted, "weighted-by-examples"),
    "divided by its examples": (_divided_by(lambda batch, batches: len(batch[0])), "divided-by-examples"),
    "divided by the first's examples": (_divided_by(lambda batch, batches: len(batches[0][0])), "divided-by-examples"),
    "divided by all examples": (
        _divided_by(lambda batch, batches: sum(len(b[0]) for b in batches)),
        "divided-by-examples",
    ),
    "divided by the tuple's length": (_divided_by(lambda batch, batches: len(batch)), "wrong-gradient"),
    "infinite loss left out": (_at_an_infinite_loss(lambda o, s: False), "overflow-left-out"),
    "returns at an infinite loss": (_at_an_infinite_loss(lambda o, s: True), "overflow-by-hand"),
    "returns at an infinite loss, gradients zeroed": (
        _at_an_infinite_loss(lambda o, s: o.zero_grad() is None),
        "overflow-by-hand",
    ),
    "update alone at an infinite loss": (_at_an_infinite_loss(lambda o, s: s.update() is None), "overflow-by-hand"),
    "asserts a finite loss": (_at_an_infinite_loss(_asserts), "overflow-raises"),
    "large losses left out": (_large_losses_left_out, "overflow-left-out"),
    "loss in half": (_step(each=lambda loss, n, s: s.scale((loss / n).half()).backward()), "loss-in-half"),
    "loss in half, then divided": (_step(each=lambda loss, n, s: s.scale(loss.half() / n).backward()), "rounded"),
    "gradients in half": (_step(clip=_in_half), "rounded"),
    "unscale_ of several only": (_unscales_several_only, "unscale-missing"),
    "clipped, then divided": (_divides_afterwards, "clip-before-division"),
    "bound divided by the count": (_divides_the_bound, "bound-divided-by-count"),
    "lr divided for the mean": (_divides_the_rate, "rate-changed"),
    "unscale_, clip, optimizer.step, update": (_step(step=lambda o, s: o.step()), "optimizer-step"),
    "inf to zero after unscale_, optimizer.step": (
        _step(unscale=_cleans_after, step=lambda o, s: o.step()),
        "overflow-stepped",
    ),
    "autograd.grad of all": (_grad_of_all, "frozen-parameter"),
    "not written": (lambda *a: (_ for _ in ()).throw(NotImplementedError), "blank"),
    "does nothing": (_nothing, "no-loss"),
    "clip before unscale_": (_clipped_before, "clip-before-unscale"),
    "no unscale_": (_step(unscale=_nothing), "unscale-missing"),
    "no clip": (_step(clip=_nothing), "not-clipped"),
    "clip after the step": (_clipped_after, "clip-after-step"),
    "backward on the loss": (_step(each=lambda loss, n, scaler: (loss / n).backward()), "not-scaled"),
    "scaled for show": (
        _step(each=lambda loss, n, scaler: (scaler.scale(loss), (loss / n).backward())),
        "not-scaled",
    ),
    "neither scaled nor divided": (
        _step(each=lambda loss, n, scaler: (scaler.scale(loss), loss.backward())),
        "not-scaled-not-divided",
    ),
    "optimizer.step": (_step(step=lambda optimizer, scaler: optimizer.step()), "optimizer-step"),
    "both steps": (_step(step=lambda optimizer, scaler: (optimizer.step(), scaler.step(optimizer))), "stepped-twice"),
    "no step": (_step(step=_nothing), "step-missing"),
    "no update": (_step(update=_nothing), "update-missing"),
    "update before step": (_updated_before, "update-before-step"),
    "update per micro-batch": (_step(after_each=lambda m, o, scaler, b: scaler.update()), "update-per-micro-batch"),
    "update twice": (_step(update=lambda scaler: (scaler.update(), scaler.update())), "update-repeated"),
    "no zero_grad": (_step(first=_nothing), "zero-grad-missing"),
    "zero_grad before the step": (
        _step(clip=lambda m, optimizer, s, b: (clip_grad_norm_(m.parameters(), b), optimizer.zero_grad())),
        "zero-grad-before-step",
    ),
    "zero_grad after backward": (
        _step(first=_nothing, unscale=lambda o, s: (o.zero_grad(), s.unscale_(o))),
        "zero-grad-before-step",
    ),
    "zero_grad after backward, to zeros": (
        _step(first=_nothing, unscale=lambda o, s: (o.zero_grad(set_to_none=False), s.unscale_(o))),
        "zero-grad-before-step",
    ),
    "zero_grad per micro-batch": (_zeroed_each_time, "zero-grad-per-micro-batch"),
    "not divided": (_step(each=lambda loss, n, scaler: scaler.scale(loss).backward()), "not-divided"),
    "divided twice": (_step(each=lambda loss, n, scaler: scaler.scale(loss / n / n).backward()), "divided-twice"),
    "divided by the batch size": (
        _step(each=lambda loss, n, scaler: scaler.scale(loss / 4).backward()),
        "wrong-gradient",
    ),
    "unscale_ twice": (_step(unscale=lambda o, s: (s.unscale_(o), s.unscale_(o))), "unscale-twice"),
    "unscale_ per micro-batch": (
        _step(after_each=lambda m, o, scaler, b: scaler.unscale_(o), unscale=_nothing),
        "unscale-too-early",
    ),
    "unscale_ first": (_unscaled_first, "unscale-too-early"),
    "unscale_ after step": (_unscaled_after, "unscale-after-step"),
    "unscaled by hand": (_step(unscale=_nothing, clip=_unscales_by_hand), "unscaled-by-hand"),
    "clip per micro-batch": (
        _step(
            after_each=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), bound), unscale=_nothing, clip=_nothing
        ),
        "clip-per-micro-batch",
    ),
    "clip per micro-batch, then unscale_": (
        _step(after_each=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), bound), clip=_nothing),
        "clip-per-micro-batch",
    ),
    "clip by value": (_step(clip=_value), "clip-by-value"),
    "clip each tensor": (_step(clip=_each_tensor), "clip-per-tensor"),
    "clip each group": (_step(clip=_each_group), "clip-per-group"),
    "clip the first group": (_step(clip=_first_group), "clip-one-group"),
    "clip to 1": (_step(clip=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), 1.0)), "clip-to-one"),
    "clip to the bound over the scale": (
        _step(clip=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), bound / s.get_scale())),
        "bound-divided",
    ),
    "largest element": (
        _step(clip=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), bound, norm_type=float("inf"))),
        "clip-largest",
    ),
    "norm of order 1": (
        _step(clip=lambda m, o, s, bound: clip_grad_norm_(m.parameters(), bound, norm_type=1)),
        "clip-sum-of-sizes",
    ),
    "always normalised": (
        _step(clip=_clip(lambda grads, bound: bound / torch.cat([g.flatten() for g in grads]).norm())),
        "clip-always",
    ),
    "root forgotten": (
        _step(clip=_clip(lambda grads, bound: min(1.0, bound / sum(float((g * g).sum()) for g in grads)))),
        "clip-squared-norm",
    ),
    "sum of norms": (
        _step(clip=_clip(lambda grads, bound: min(1.0, bound / sum(float(g.norm()) for g in grads)))),
        "clip-sum-of-norms",
    ),
    "upside down": (
        _step(clip=_clip(lambda grads, bound: min(1.0, float(torch.cat([g.flatten() for g in grads]).norm()) / bound))),
        "clip-upside-down",
    ),
    "step per micro-batch": (
        _step(
            after_each=lambda m, o, scaler, b: (scaler.unscale_(o), scaler.step(o), scaler.update()),
            unscale=_nothing,
            clip=_nothing,
            step=_nothing,
            update=_nothing,
        ),
        "step-per-micro-batch",
    ),
    "step twice": (_step(step=lambda o, s: (s.step(o), s.step(o))), "step-repeated"),
    "no scaler": (_without_scaler, "scaler-unused"),
    "its own scaler": (_own_scaler, "scaler-unused"),
    "returns on overflow": (_returns_early, "overflow-by-hand"),
    "raises on overflow": (_step(clip=_raises_on_overflow), "overflow-raises"),
    "inf to zero before unscale_": (
        _step(unscale=lambda o, s: (_forgives(None, o, s, 0), s.unscale_(o))),
        "overflow-stepped",
    ),
    "backward on the last loss": (_last_loss_only, "backward-missing"),
    "first micro-batch only": (_step(chosen=lambda batches: batches[:1]), "micro-batches-missing"),
    "last micro-batch left out": (_step(chosen=lambda batches: batches[:-1] or batches), "micro-batches-missing"),
    "item": (_step(each=lambda loss, n, scaler: scaler.scale(loss.item() / n).backward()), "loss-not-a-tensor"),
    "detached": (_step(each=lambda loss, n, scaler: scaler.scale(loss.detach() / n).backward()), "loss-detached"),
    "no backward": (_step(each=lambda loss, n, scaler: scaler.scale(loss / n)), "no-backward"),
    "autocast": (_under_autocast, "autocast"),
    "uphill": (_step(each=lambda loss, n, scaler: scaler.scale(-loss / n).backward()), "ascends"),
    "weights shrunk beside": (
        _step(last=lambda model, o: [p.data.mul_(0.999) for p in _parameters(o)]),
        "wrong-weights",
    ),
    "frozen too": (_step(clip=_frozen_too), "gradient-none"),
    "scaler's private scale": (_step(unscale=_nothing, clip=_reads_the_scale), "needs-enabled"),
    "lr halved": (_step(step=_halves_the_rate), "rate-changed"),
    "three arguments": (lambda model, optimizer, scaler: None, "signature"),
    "a class": (type("Step", (), {}), "wrong-type"),
}

FUNCTIONS = {"amp_step": {**{name: (answer, "") for name, answer in _RIGHT.items()}, **_WRONG}}
