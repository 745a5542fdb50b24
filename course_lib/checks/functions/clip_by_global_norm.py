"""The exercise `clip_by_global_norm`: all gradients shortened together, and what is no gradient left alone.

The candidate gets parameters of torch; what it returns and leaves in `.grad` is judged as two arrays, by `Numeric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts, Progress, guarded
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Gradients = list[np.ndarray | None]
Clipped = tuple[Any, np.ndarray | None]  # the norm, and all gradients one after the other

SIXTEEN_BITS = 1e-4  # relative: float16 and bfloat16 round a norm to 5e-4 and 4e-3


def _weight(i: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 0.5 + i)


def _given(gradients: Gradients) -> list[np.ndarray]:
    return [g for g in gradients if g is not None]


def _flat(gradients: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(g) for g in gradients]) if gradients else np.zeros(0)


def _size(gradients: list[np.ndarray]) -> np.floating[Any]:
    return np.sqrt(np.sum(_flat(gradients) ** 2))


def _shorter(norm: Any, bound: float) -> Any:
    return bound / norm if bound < norm < math.inf else 1.0


def _clip(
    size: Callable[[list[np.ndarray]], Any] = _size,
    factor: Callable[[Any, float], Any] = _shorter,
    said: Callable[[Any, Any, float], Any] = lambda norm, factor, bound: norm,
) -> Callable[..., Clipped]:
    """Each argument is one line: the size held against the bound, the factor, and what is returned."""

    def run(gradients: Gradients, max_norm: float, dtypes: tuple[str, ...] = ()) -> Clipped:
        given = _given(gradients)
        norm = size(given)
        by = factor(norm, max_norm)
        return said(norm, by, max_norm), by * _flat(given)

    return run


def _left(change: Callable[[list[np.ndarray], float], list[np.ndarray]]) -> Callable[..., Clipped]:
    """The right norm, and gradients changed in another way."""

    def run(gradients: Gradients, max_norm: float, dtypes: tuple[str, ...] = ()) -> Clipped:
        given = _given(gradients)
        return None, _flat(change(given, max_norm))

    return run


def _each(given: list[np.ndarray], bound: float) -> list[np.ndarray]:
    return [g * _shorter(_size([g]), bound) for g in given]


def _as_it_goes(given: list[np.ndarray], bound: float) -> list[np.ndarray]:
    """The norm of the tensors so far, each clipped in the loop that adds them up."""
    return [g * _shorter(_size(given[: i + 1]), bound) for i, g in enumerate(given)]


def _of_weights(gradients: Gradients, max_norm: float, dtypes: tuple[str, ...] = ()) -> Clipped:
    norm = _size([_weight(i, g.shape) for i, g in enumerate(gradients) if g is not None])
    return norm, _shorter(norm, max_norm) * _flat(_given(gradients))


_right = _clip()
_ONE = "One factor for all gradients together: what is the length of all of them as one vector?"
_FACTOR = "The factor is max_norm / norm, and never more than 1."
_RETURN = "The norm before clipping is asked for: it is what one logs."
MISTAKES = (
    Known("each-by-its-own", "gradients of which each is clipped by its own norm", _ONE, _left(_each)),
    Known("by-value", "elements that are cut off at max_norm, as clip_grad_value_ does", "Only the length may change, not the direction.",
          _left(lambda given, bound: [np.clip(g, -bound, bound) for g in given])),
    Known("as-it-goes", "gradients that are clipped in the loop that adds the norm up", "When is the norm of all known?", _left(_as_it_goes)),
    Known("last-only", "a clip of the last gradient only", "Which lines stand inside the loop?",
          _left(lambda given, bound: [*given[:-1], given[-1] * _shorter(_size(given), bound)])),
    Known("not-clipped", "gradients that are left as they are", "Multiply them in place: `g.mul_(factor)`.", _left(lambda given, bound: given)),
    Known("clipped-twice", "a factor that is applied twice", "Is the norm taken anew after the first time?",
          _left(lambda given, bound: [g * _shorter(_size(given), bound) ** 2 for g in given])),
    Known("always", "a norm of max_norm for short gradients as well", _FACTOR, _left(lambda given, bound: [g * (bound / _size(given)) for g in given])),
    Known("only-lengthens", "a factor of at least 1: short gradients are lengthened, long ones left", _FACTOR,
          _left(lambda given, bound: [g * max(1.0, bound / _size(given)) for g in given])),
    Known("upside-down", "a factor of norm / max_norm", _FACTOR,
          _left(lambda given, bound: [g * (1 / _shorter(_size(given), bound)) for g in given])),
    Known("upside-down-bounded", "a factor of min(1, norm / max_norm): short gradients are made shorter", _FACTOR,
          _left(lambda given, bound: [g * min(1.0, _size(given) / bound) for g in given])),
    Known("to-one", "a norm of 1 in the place of max_norm", "Is the argument read?", _left(lambda given, bound: [g * _shorter(_size(given), 1.0) for g in given])),
    Known("divided-by-norm", "a factor of 1 / norm where the norm is too long", _FACTOR,
          _left(lambda given, bound: [g / _size(given) if _size(given) > bound else g for g in given])),
    Known("subtracted", "elements made shorter by what the norm exceeds max_norm", "Clipping multiplies.",
          _left(lambda given, bound: [g - np.sign(g) * max(_size(given) - bound, 0.0) for g in given])),
    Known("zeroed", "gradients of zero where the norm is too long", "A wild batch is shortened here, not thrown away.",
          _left(lambda given, bound: [g * (_size(given) <= bound) for g in given])),
    Known("root-missing", "a norm without its root: the sum of the squares", _ONE, _clip(lambda given: _size(given) ** 2)),
    Known("sum-of-norms", "the sum of the tensors' norms", _ONE, _clip(lambda given: sum(_size([g]) for g in given))),
    Known("largest-norm", "the largest norm of a tensor", _ONE, _clip(lambda given: max(_size([g]) for g in given))),
    Known("mean-norm", "the mean of the tensors' norms", _ONE, _clip(lambda given: np.mean([_size([g]) for g in given]))),
    Known("root-mean-square", "a root mean square: the squares are averaged, not added", _ONE, _clip(lambda given: np.sqrt(np.mean(_flat(given) ** 2)))),
    Known("mean-of-squared-norms", "the root of the mean squared norm of a tensor", _ONE,
          _clip(lambda given: np.sqrt(np.mean([_size([g]) ** 2 for g in given])))),
    Known("largest-element", "the largest element's size", _ONE, _clip(lambda given: np.abs(_flat(given)).max())),
    Known("sum-of-sizes", "the sum of the elements' sizes", _ONE, _clip(lambda given: np.abs(_flat(given)).sum())),
    Known("sum-of-elements", "the size of the sum of all elements", "Square first, then add.", _clip(lambda given: abs(_flat(given).sum()))),
    Known("first-only", "the norm of the first gradient", _ONE, _clip(lambda given: _size(given[:1]))),
    Known("last-norm", "the norm of the last gradient", "Is the sum carried from tensor to tensor?", _clip(lambda given: _size(given[-1:]))),
    Known("weights", "the norm of the weights", "`p.grad`, not `p`.", _of_weights),
    Known("returns-after", "the norm after clipping", _RETURN, lambda gradients, max_norm, dtypes=(): (min(_size(_given(gradients)), max_norm), None)),
    Known("returns-factor", "the factor", _RETURN, lambda gradients, max_norm, dtypes=(): (_shorter(_size(_given(gradients)), max_norm), None)),
    Known("returns-unbounded-factor", "max_norm / norm", _RETURN, lambda gradients, max_norm, dtypes=(): (max_norm / _size(_given(gradients)), None)),
    Known("returns-square", "the squared norm, the gradients themselves being right", "The root is missing in what you return.",
          lambda gradients, max_norm, dtypes=(): (_size(_given(gradients)) ** 2, None)),
)  # fmt: skip
_RNG = np.random.default_rng(61)


def _case(
    shapes: list[tuple[int, ...]], bound: float, rng: np.random.Generator = _RNG, size: float = 3.0
) -> dict[str, Any]:
    return {"gradients": [size * rng.normal(size=shape) for shape in shapes], "max_norm": bound}


def _exactly(*gradients: list[float] | None, bound: float, dtypes: tuple[str, ...] = ()) -> dict[str, Any]:
    case = {"gradients": [None if g is None else np.array(g, dtype=np.float64) for g in gradients], "max_norm": bound}
    return {**case, "dtypes": dtypes} if dtypes else case


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    shapes = [tuple(map(int, rng.integers(2, 5, rng.integers(1, 3)))) for _ in range(rng.integers(2, 5))]
    return [_case(shapes, float(rng.uniform(0.5, 4)), rng, 4.0)]


def _same(got: Parts, want: Parts, i: int, tolerance: float = 1e-6) -> bool:
    return got[i].shape == want[i].shape and np.allclose(
        got[i], want[i], rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _missing(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if _same(got, want, 0) and _same(got, want, 1):
        return None
    return Finding(
        "missing-gradient",
        f"Where a parameter has no gradient (`.grad` is None), the norm comes out as {float(got[0]):g} instead of "
        f"{float(want[0]):g}, or a gradient is clipped wrongly.",
        "Leave parameters without a gradient out, and go on with the next.",
    )


def _zero(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if np.isfinite(got[0]).all() and np.isfinite(got[1]).all():
        return None
    return Finding("zero-norm", "Gradients of zero become NaN: 0 / 0.", "Divide only where the norm exceeds max_norm.")


_LEAVE = "A norm that is not finite clips nothing: the caller skips the step, and looks at the gradients."


def _infinite(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[1].shape != want[1].shape or _same(got, want, 1):
        return None
    finite = np.isfinite(want[1])
    if (got[1] == 0).all():
        what = f"Where the norm is infinite, all gradients are set to 0: {want[1]} becomes {got[1]}."
        return Finding("infinite-norm", what, _LEAVE)
    if (got[1][finite] == 0).all():
        return Finding(
            "infinite-norm",
            "The norm is infinite, so the factor is 0: finite gradients become 0, and inf * 0 is NaN. That is what torch does.",
            "Here they stay as they are: test the norm first. (torch's `error_if_nonfinite=True` refuses at least.)",
            OTHER_SPECIFICATION,
        )
    return Finding(
        "infinite-norm",
        f"Gradients {want[1]} of an infinite norm become {got[1]}.",
        _LEAVE,
    )


def _not_a_number(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[1].shape != want[1].shape or _same(got, want, 1):
        return None
    if not np.isnan(got[1]).all():
        norm = f"the norm that is returned is {float(got[0].ravel()[0]):g}"
        what = f"With a NaN among the gradients, {want[1]} becomes {got[1]}, and {norm}."
        return Finding("clipped-beside-nan", what, f"The norm is NaN there, and returned. {_LEAVE}")
    return Finding(
        "nan-spreads",
        f"The NaN of one gradient reaches the others: {want[1]} becomes {got[1]}. torch does that, too.",
        "Here gradients stay as they are where the norm is not finite. Which comparison is false for NaN?",
        OTHER_SPECIFICATION,
    )


def _few_bits(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if math.isclose(float(got[0]), float(want[0]), rel_tol=SIXTEEN_BITS):
        return None
    types = " and ".join(dict.fromkeys(case["dtypes"]))
    return Finding(
        "norm-in-16-bits",
        f"Gradients in {types}: the norm is {float(want[0]):.6g}, and you return {float(got[0]):.6g}. Squares above 65504 are "
        "infinite in float16, those below 3e-8 zero, and bfloat16 has three digits.",
        "Convert each gradient to float32 before it is squared: `g.float()`.",
    )


class _Once:
    """An iterator over parameters that, like `model.parameters()`, can be gone over once; counts how often it ended."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self._rest = iter(parameters)
        self.ended = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        try:
            return next(self._rest)
        except StopIteration:
            self.ended += 1
            raise


_REPLACED = Finding(
    "gradient-replaced",
    "`.grad` is another tensor than before: gradients are to be changed in place.",
    "`p.grad.mul_(factor)`. Whoever else holds the gradient (a bucket that is sent to other GPUs) must see the change.",
)
_CHANGED = Finding("weights-changed", "The function changes the parameters themselves.", "Only `.grad` may change.")
_MADE = Finding(
    "gradient-made", "A parameter that had no gradient has one now.", "Leave it at None: an optimizer would decay it."
)


def _through(candidate: Callable[..., Any], notes: list[Finding], walked_twice: list[bool]) -> Callable[..., Clipped]:
    """``candidate`` as a function of arrays; ``notes`` gets what it did beside the numbers."""

    def clip_by_global_norm(gradients: Gradients, max_norm: float, dtypes: tuple[str, ...] = ()) -> Clipped:
        parameters = []
        for i, gradient in enumerate(gradients):
            dtype = getattr(torch, dtypes[i]) if dtypes else torch.float32
            shape = (2,) if gradient is None else gradient.shape
            parameters.append(nn.Parameter(torch.tensor(_weight(i, shape), dtype=dtype)))
            parameters[-1].grad = None if gradient is None else torch.tensor(gradient, dtype=dtype)
        held = [(p.grad, None if p.grad is None else p.grad.data_ptr()) for p in parameters]
        before = [p.detach().clone() for p in parameters]
        walk = _Once(parameters)
        norm = candidate(walk, max_norm)
        walked_twice.append(walk.ended > 1)
        for p, (grad, place), value in zip(parameters, held, before, strict=True):
            if grad is None:
                notes.extend([_MADE] * (p.grad is not None))
            elif p.grad is not grad or grad.data_ptr() != place:
                notes.append(_REPLACED)
            notes.extend([_CHANGED] * (not torch.equal(p.detach(), value)))
        left = [p.grad for p, (grad, _) in zip(parameters, held, strict=True) if grad is not None]
        left = [torch.zeros(0) if grad is None else grad.detach() for grad in left]
        return norm, _flat([grad.double().numpy() for grad in left])

    return clip_by_global_norm


def _rounded(values: np.ndarray, dtype: torch.dtype) -> list[float]:
    """What a 16-bit gradient holds of these values."""
    return torch.tensor(values).to(dtype).tolist()


CLIP = Numeric(
    _right,
    [
        _case([(2, 3), (4,), (3, 2)], 0.7),
        _case([(3,), (2, 2)], 2.5),
        _case([(5,), (2,), (), (1, 3)], 40.0, size=2.0),  # nothing to clip
        _case([(2,), (3,)], 6.5, size=9.0),
    ],
    MISTAKES,
    "the norm",
    ("norm", "gradients"),
    edges=[
        Edge(_exactly([3.0, 4.0], bound=5.0)),
        Edge(_exactly([3.0, 4.0], [12.0], bound=math.inf)),
        Edge(_exactly([6.0, -2.0], None, [3.0], None, bound=1.0), _missing),
        Edge(_exactly(None, None, bound=1.0), _missing),
        Edge(_exactly([0.0, 0.0], [0.0], bound=1.0), _zero),
        Edge(_exactly([], [3.0, 4.0], bound=1.0)),
        Edge(_exactly([1.0, math.inf], [2.0, -3.0], bound=1.0), _infinite),
        Edge(_exactly([1.0, math.nan], [2.0, -3.0], bound=1.0), _not_a_number),
        Edge(_exactly([300.0, -512.0], [3.0], bound=1.0, dtypes=("float16", "float32")), _few_bits, 4e-3),
        Edge(_exactly(_rounded(np.full(50, 1e-4), torch.float16), bound=1e-4, dtypes=("float16",)), _few_bits, 4e-3),
        Edge(_exactly(_rounded(np.linspace(1, 2, 77), torch.bfloat16), [5.0], bound=1.0, dtypes=("bfloat16", "bfloat16")), _few_bits, 4e-3),
        Edge(_exactly(_rounded(np.linspace(1, 2, 30), torch.float16), [50.0], bound=9.0, dtypes=("float16", "float16")), _few_bits, 4e-3),
    ],
    drawn=_drawn,
    few_bits=True,
)  # fmt: skip


def judge_clip_by_global_norm(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: what it returns and leaves in `.grad`, over parameters that can be walked once."""
    return guarded(candidate, lambda: _judged(candidate, progress))


def _judged(candidate: Any, progress: Progress) -> list[Finding]:
    notes: list[Finding] = []
    walked_twice: list[bool] = []
    findings = CLIP(_through(candidate, notes, walked_twice), progress)
    if any(walked_twice):
        findings = [_twice(finding) for finding in findings]
    return list(dict.fromkeys([*findings, *notes]))


def _twice(finding: Finding) -> Finding:
    if finding.code != "not-clipped":
        return finding
    return Finding(
        "walked-twice",
        "The norm is right, and no gradient is clipped: `parameters` is gone over twice, and is empty the second time.",
        "`model.parameters()` is a generator. Make a list first.",
    )
