"""The gradient that the optimizer was given in the exercise `amp_step`: which mistake makes one like it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from course_lib.checks.functions.amp_notes import UNSCALE, Notes
from course_lib.checks.report import Finding

Gradients = list[Tensor]
ORDER = "The order is: scale, backward, unscale_, clip, step, update."


@dataclass
class Call:
    """One call of the candidate.

    Attributes:
        notes: what was noted during the call.
        said: the call in words.
        micro: the gradient of each micro-batch's mean loss.
        scale: the scale when the call began.
        max_norm: the bound that was given.
        groups: how many tensors each parameter group has.
        overflows: the scaled gradient is not finite.
        left: the gradients after the call.
        sizes: how many examples each micro-batch has.
        rates: the learning rate that was set, and the groups' after the call.
    """

    notes: Notes
    said: str
    micro: list[Gradients]
    scale: float
    max_norm: float
    groups: tuple[int, ...]
    sizes: list[int]
    overflows: bool = False
    left: Gradients = field(default_factory=list)
    rates: tuple[float, list[float]] = (0.0, [])

    @property
    def mean(self) -> Gradients:
        """The mean of the micro-batches' gradients."""
        return times(plus(*self.micro), 1 / len(self.micro))

    @property
    def right(self) -> Gradients:
        """The gradient that the optimizer is to be given."""
        return clip(self.mean, self.max_norm)


def from_gradient(call: Call) -> list[Finding]:
    """A finding that names the mistake, if the gradient is wrong and a known mistake makes it; else none."""
    (got,) = call.notes.stepped
    if same(got, call.right):
        return []
    for known in (*_clips(call), *_factors(call)):
        code, what, hint, value = known
        if not same(value, call.right) and same(got, value):
            return [Finding(code, what, hint)]
    return []


Known = tuple[str, str, str, Gradients]


def _factors(call: Call) -> Iterator[Known]:
    """The loss, and so the gradient, is off by a factor before anything is clipped."""
    n, s, g = len(call.micro), call.scale, call.mean
    scaled = "What reaches backward is the loss, not the scaled one, and still it is divided by the scale afterwards."
    factors = {
        "not-scaled": (1 / s, scaled, "`scaler.scale(loss).backward()`"),
        "not-divided": (
            n,
            f"The losses are summed: the gradient is {n} times that of their mean.",
            "Each micro-batch counts for 1 / len(batches).",
        ),
        "not-scaled-not-divided": (n / s, f"{scaled} Nor is it divided by {n}.", "`scaler.scale(loss / n).backward()`"),
        "divided-twice": (
            1 / n,
            f"The gradient is the mean over {n} micro-batches, divided by {n} once more.",
            "Divide the losses or the gradients, not both.",
        ),
        "still-scaled": (
            s,
            "The optimizer is given the gradient times the scale.",
            "`scaler.scale` once per loss; and who unscales?",
        ),
        "still-scaled-not-divided": (
            s * n,
            "The optimizer is given the gradient times the scale, summed over the micro-batches.",
            "`scaler.scale` once per loss; and who unscales?",
        ),
        "ascends": (
            -1.0,
            "The gradient has its sign turned: the loss goes up.",
            "Backward starts from the loss itself.",
        ),
    }
    unscaled_twice = "The gradients are divided by the scale twice: `unscale_`, or `step` without it, does it for you."
    wrong_end = "Does something divide by the scale beside the scaler?"
    scaled_once = bool(call.notes.factors) and math.isclose(call.notes.factors[0] * n, s, rel_tol=1e-3)
    for code, (factor, what, hint) in factors.items():
        if code.startswith("not-scaled") and scaled_once:
            code, what, hint = "unscaled-by-hand", unscaled_twice, wrong_end
        for value in (clip(times(g, factor), call.max_norm), times(call.right, factor)):
            yield code, what, hint, value
    yield from _by_examples(call)
    for i in (0, -1):
        for factor in (1.0, 1 / n):
            yield (
                "one-micro-batch",
                f"The gradient is that of the {'first' if i == 0 else 'last'} micro-batch alone.",
                "Each micro-batch adds its share to `.grad`.",
                clip(times(call.micro[i], factor), call.max_norm),
            )


def _by_examples(call: Call) -> Iterator[Known]:
    """The number of examples comes in, where each micro-batch's loss is a mean already."""
    examples = sum(call.sizes)
    hint = "`loss_fn` is a mean over the examples already; each micro-batch counts for 1 / len(batches)."
    weighted = plus(*(times(micro, size / examples) for micro, size in zip(call.micro, call.sizes, strict=True)))
    by_size = (
        f"Each micro-batch counts by the number of its examples, {', '.join(map(str, call.sizes))}: that is the mean over "
        "all examples. What is asked for is the mean of the micro-batches' gradients; the two differ where sizes do."
    )
    yield (
        "weighted-by-examples",
        by_size,
        hint,
        clip(weighted, call.max_norm),
    )
    divided = {
        "the number of its examples": plus(
            *(times(micro, 1 / size) for micro, size in zip(call.micro, call.sizes, strict=True))
        ),
        "the number of the first one's examples": times(plus(*call.micro), 1 / call.sizes[0]),
        "the number of all examples": times(plus(*call.micro), 1 / examples),
    }
    for by, value in divided.items():
        what = f"The loss of each micro-batch is divided by {by}, not by the number of micro-batches."
        yield "divided-by-examples", what, hint, clip(value, call.max_norm)


def _clips(call: Call) -> Iterator[Known]:
    """The mean gradient is right, and clipped in a wrong way."""
    s, g, bound, n = call.scale, call.mean, call.max_norm, len(call.micro)
    size = norm(g)
    late = call.left and math.isclose(norm(call.left), bound, rel_tol=1e-3)
    yield (
        "clip-after-step" if late else "not-clipped",
        f"The optimizer is given a gradient of norm {size:.3g}, and max_norm is {bound:g}"
        + (": it is clipped after the step." if late else ": it is not clipped."),
        ORDER,
        g,
    )
    clipped_scaled = (
        f"The gradients are clipped while they are multiplied by the scale, {s:g}: after that they are divided by it, and "
        f"their norm is {bound / s:.2g} instead of {bound:g}. The loss hardly falls, and how fast depends on the scale."
    )
    explicit = call.notes.count(UNSCALE)
    code = "clip-before-unscale" if explicit else "unscale-missing"
    hint = "`unscale_` first, then clip." if explicit else "`scaler.unscale_(optimizer)` before you clip."
    if call.notes.altered:
        yield code, clipped_scaled, hint, times(clip(times(g, s), bound), 1 / s)
    running: Gradients = [0 * t for t in g]
    for micro in call.micro:
        running = clip(plus(running, times(micro, s / n)), bound)
    per_batch = "The gradients are clipped after every micro-batch, while they are scaled."
    once = "Once per step, after all micro-batches and after `unscale_`."
    yield "clip-per-micro-batch", per_batch, once, times(running, 1 / s)
    yield "clip-per-micro-batch", per_batch, once, clip(times(running, 1 / s), bound)
    yield (
        "clip-per-micro-batch",
        "The gradient of each micro-batch is clipped by itself, and then their mean is taken.",
        once,
        times(plus(*(clip(micro, bound) for micro in call.micro)), 1 / n),
    )
    summed = bool(call.notes.factors) and math.isclose(call.notes.factors[0], s, rel_tol=1e-3)
    yield (
        "clip-before-division" if summed else "bound-divided-by-count",
        f"The gradient has a norm of {bound / n:.3g}, max_norm / {n}: "
        + ("the sum is clipped, and then divided." if summed else f"the bound is divided by {n}."),
        "Clip the mean over the micro-batches, to max_norm as it is.",
        clip(g, bound / n),
    )
    yield from _norms(g, bound, s, call.groups)


def _norms(g: Gradients, bound: float, scale: float, groups: tuple[int, ...]) -> Iterator[Known]:
    """Clipped after unscale_, but by something other than the norm of all gradients together, or to another bound."""
    size, first = norm(g), groups[0]
    together = "The global norm is that of all gradients as one vector."
    yield "clip-by-value", "Each element is clipped by itself.", together, [t.clamp(-bound, bound) for t in g]
    yield "clip-per-tensor", "Each tensor is clipped by its own norm.", together, [clip([t], bound)[0] for t in g]
    yield (
        "clip-per-group",
        "Each parameter group is clipped by its own norm.",
        together,
        [*clip(g[:first], bound), *clip(g[first:], bound)],
    )
    only = "Only one of the parameter groups is clipped."
    yield "clip-one-group", only, together, [*clip(g[:first], bound), *g[first:]]
    yield "clip-one-group", only, together, [*g[:first], *clip(g[first:], bound)]
    sizes = {
        "clip-largest": ("the largest element", max(float(t.abs().max()) for t in g)),
        "clip-sum-of-sizes": ("the sum of the elements' sizes", sum(float(t.abs().sum()) for t in g)),
        "clip-squared-norm": ("the square of the norm", size**2),
        "clip-sum-of-norms": ("the sum of the tensors' norms", sum(norm([t]) for t in g)),
        "clip-largest-norm": ("the largest norm of a tensor", max(norm([t]) for t in g)),
        "clip-mean-norm": ("the mean of the tensors' norms", sum(norm([t]) for t in g) / len(g)),
        "clip-one-group": ("the norm of the first group", norm(g[:first])),
    }
    for code, (what, value) in sizes.items():
        yield code, f"max_norm is held against {what}.", together, times(g, min(1.0, bound / value))
    yield (
        "clip-always",
        "The gradient is given the norm max_norm also where it is smaller.",
        "Clipping never makes a gradient larger: a factor of at most 1.",
        times(g, bound / size),
    )
    yield (
        "clip-upside-down",
        "The factor of the clipping is upside down.",
        "max_norm over the norm, and at most 1.",
        times(g, min(1.0, size / bound)),
    )
    yield (
        "clip-upside-down",
        "The factor of the clipping is upside down.",
        "max_norm over the norm.",
        times(g, size / bound),
    )
    yield (
        "clip-to-one",
        "The gradient is clipped to a norm of 1.",
        "max_norm is an argument.",
        clip(g, 1.0),
    )
    yield (
        "bound-divided",
        "The gradients are unscaled, and max_norm is divided by the scale beside.",
        "After `unscale_`, gradients have their own size: max_norm is what it is.",
        clip(g, bound / scale),
    )


def norm(gradients: Gradients) -> float:
    """The norm of all gradients as one vector."""
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


def times(gradients: Gradients, factor: float) -> Gradients:
    """All gradients times a factor."""
    return [g * factor for g in gradients]


def plus(*several: Gradients) -> Gradients:
    """The sum, tensor by tensor."""
    return [sum(parts[1:], parts[0]) for parts in zip(*several, strict=True)]


def clip(gradients: Gradients, bound: float) -> Gradients:
    """The gradients, shortened to this norm if they are longer."""
    size = norm(gradients)
    return times(gradients, min(1.0, bound / size)) if size else gradients


def same(got: Gradients, want: Gradients, tolerance: float = 1e-3) -> bool:
    """Whether two gradients are the same, up to a thousandth of their size: mistakes lie further apart."""
    if [g.shape for g in got] != [w.shape for w in want]:
        return False
    apart = norm(plus(got, times(want, -1.0)))
    return apart <= tolerance * norm(want)  # false where anything is NaN
