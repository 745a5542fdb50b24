"""The exercise `step_bytes`: the bytes that one optimizer step must at least move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Bytes = Callable[..., float]


def _each(
    params: Callable[[float, float], float] = lambda param, master: param if master else 2 * param,
    grads: float = 1,
    kept: float = 2,
    copies: float = 2,
    unit: float = 1,
) -> Bytes:
    """How often gradients, states and master copies are moved; ``params`` gives the parameter's bytes."""

    def run(n: int, param: float, grad: float, states: list[float], master: float) -> float:
        return n * (params(param, master) + grads * grad + kept * sum(states) + copies * master) / unit

    return run


def _with(change: Callable[..., tuple[Any, ...]]) -> Bytes:
    """The right count of other arguments."""
    return lambda n, param, grad, states, master: _right(*change(n, param, grad, states, master))


def _more(change: Callable[..., float]) -> Bytes:
    """The right count, and something for each parameter besides."""
    return lambda n, param, grad, states, master: (
        _right(n, param, grad, states, master) + n * change(param, grad, states, master)
    )


_right = _each()
_BOTH = "A step reads p, g and every state, and writes p and every state. Does it write g?"
_CAST = "With a master copy the new weight is worked out from the master: what would the old weight be read for?"
_STATES = "Each state is read, and its new value written."
_BYTES = "Bytes of one step over all n parameters are asked for."
MISTAKES = (
    Known("param-read-with-master", "a parameter that is read although there is a master copy", _CAST,
          _each(params=lambda param, master: 2 * param)),
    Known("param-only-written", "a parameter that is written and never read, also where there is no master copy",
          "Without a master copy, where does the step find the old weight?",
          _each(params=lambda param, master: param)),
    Known("param-not-written", "a parameter that a step with a master copy leaves alone",
          "Which weights does the next forward pass take?",
          _each(params=lambda param, master: 0 if master else 2 * param)),
    Known("cases-exchanged", "the two cases exchanged: read with a master copy, not read without one", _CAST,
          _each(params=lambda param, master: 2 * param if master else param)),
    Known("param-missing", "everything but the parameters", _BOTH, _each(params=lambda param, master: 0)),
    Known("master-missing", "a step that ignores the master copy", "The step reads the master copy, and writes it.",
          lambda n, param, grad, states, master: _right(n, param, grad, states, 0)),
    Known("master-not-moved", "a parameter that is only written, from a master copy that nobody reads or writes",
          "The master copy is the weight that is updated: read and written.", _each(copies=0)),
    Known("master-once", "a master copy that is moved once", "It is read, and its new value is written.",
          _each(copies=1)),
    Known("master-of-four-only", "a master copy that counts only if it has four bytes",
          "`master` is 0 if there is none: any other number is a master copy.",
          lambda n, param, grad, states, master: _right(n, param, grad, states, master if master == 4 else 0)),
    Known("master-if-wider", "a master copy that counts only if it is wider than the parameter",
          "`master` is 0 if there is none: any other number is a master copy.",
          lambda n, param, grad, states, master: _right(n, param, grad, states, master if master > param else 0)),
    Known("gradient-missing", "everything but the gradients", _BOTH, _each(grads=0)),
    Known("gradient-written", "a gradient that is written, too: zeroed, or as a copy",
          "A step leaves gradients alone: `zero_grad` is no part of it, and sets them to None.", _each(grads=2)),
    Known("gradient-cast", "a gradient that is first cast into a copy: read, written, and read again",
          "A fused step casts in registers.", _each(grads=3)),
    Known("gradient-like-param", "a gradient with as many bytes as a parameter", "`grad` says how many it has.",
          _with(lambda n, param, grad, states, master: (n, param, param, states, master))),
    Known("gradient-like-master", "a gradient with as many bytes as the master copy", "`grad` says how many it has.",
          _with(lambda n, param, grad, states, master: (n, param, master or grad, states, master))),
    Known("states-once", "states that are moved once", _STATES, _each(kept=1)),
    Known("states-missing", "everything but the states", _STATES, _each(kept=0)),
    Known("first-state-only", "the first state alone", "`states` has an entry for each.",
          _with(lambda n, param, grad, states, master: (n, param, grad, states[:1], master))),
    Known("last-state-only", "the last state alone", "Is the sum added to, or replaced?",
          _with(lambda n, param, grad, states, master: (n, param, grad, states[-1:], master))),
    Known("states-counted", "states that have as many bytes as a parameter: they were counted, not added up",
          "`states` holds bytes: sum them.",
          _with(lambda n, param, grad, states, master: (n, param, grad, [param] * len(states), master))),
    Known("states-in-float32", "states of four bytes each", "`states` holds their bytes: sum them.",
          _with(lambda n, param, grad, states, master: (n, param, grad, [4] * len(states), master))),
    Known("always-two-states", "twice the first state, as in an AdamW", "`states` has an entry for each.",
          _with(lambda n, param, grad, states, master: (n, param, grad, states[:1] * 2, master))),
    Known("all-float32", "numbers that all have four bytes", "Each kind of tensor comes with its own bytes.",
          _with(lambda n, param, grad, states, master: (n, 4, 4, [4] * len(states), 4 if master else 0))),
    Known("held", "what the tensors hold, each counted once: memory, not traffic",
          "What is updated is read and then written: it crosses the memory's bus twice.",
          _each(params=lambda param, master: param, kept=1, copies=1)),
    Known("all-twice", "everything read and written", _BOTH,
          _each(params=lambda param, master: 2 * param, grads=2)),
    Known("reads-only", "what is read alone", "Writing counts as well.",
          _each(params=lambda param, master: 0 if master else param, kept=1, copies=1)),
    Known("writes-only", "what is written alone", "Reading counts as well.",
          _each(params=lambda param, master: param, grads=0, kept=1, copies=1)),
    Known("next-forward", "a weight that is read once more, as by the next forward pass",
          "The step alone is asked for.", _more(lambda param, grad, states, master: param)),
    Known("n-missing", "the bytes of one parameter", _BYTES,
          lambda n, param, grad, states, master: _right(1, param, grad, states, master)),
    Known("gigabytes", "GB", _BYTES, _each(unit=1e9), OTHER_SPECIFICATION),
    Known("gibibytes", "GiB", _BYTES, _each(unit=2**30), OTHER_SPECIFICATION),
    Known("megabytes", "MB", _BYTES, _each(unit=1e6), OTHER_SPECIFICATION),
    Known("bits", "bits", "Eight bits make a byte.", _each(unit=1 / 8)),
)  # fmt: skip


def _case(n: int, param: float, grad: float, states: tuple[float, ...], master: float = 0) -> dict[str, Any]:
    return {"n": n, "param": param, "grad": grad, "states": list(states), "master": master}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    def some() -> int:
        return int(rng.choice((1, 2, 4, 8)))

    states = tuple(some() for _ in range(int(rng.integers(0, 4))))
    return [_case(int(rng.integers(10**3, 10**9)), some(), some(), states, some() * int(rng.integers(2)))]


def _exactly(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    if got[0].size != 1 or float(got[0].reshape(())) == float(want[0]):
        return None
    what = f"With n={case['n']}: {float(got[0].reshape(())):,.0f} bytes, and it is {float(want[0]):,.0f} to the byte."
    return Finding("not-to-the-byte", what, "Whole numbers of bytes: add and multiply ints, and round nowhere.")


def _fraction(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    n, states = case["n"], case["states"]
    for cut in (int, round):
        for less in (sum(map(cut, states)), cut(sum(states))):
            if got[0].size == 1 and float(got[0].reshape(())) == float(want[0]) + 2 * n * (less - sum(states)):
                what = f"With states={states}: the fraction of a byte in the states is lost."
                return Finding("fraction-lost", what, "An 8-bit state takes 1 + 4/256 bytes: no `int`, no `//`.")
    return None


class _OneNumber(Numeric):
    """Tells of a tuple or a list of one number as well, where its number is right."""

    def _judged(self, candidate: Callable[..., Any]) -> list[Finding]:
        notes = []

        def called(**case: Any) -> Any:
            result = candidate(**case)
            if isinstance(result, (tuple, list)) and len(result) == 1:
                what = f"The function returns a {type(result).__name__} of one number: {result!r}."
                hint = "Return a number, not a tuple: is there a comma behind it?"
                hint = hint if isinstance(result, tuple) else "Return a number, not a list."
                notes.append(Finding("wrong-result", what, hint))
            return result

        return super()._judged(called) or notes[:1]


STEP_BYTES = _OneNumber(
    _right,
    [
        _case(1_000_000, 4, 4, (4, 4)),  # AdamW in float32
        _case(124_439_808, 2, 2, (4, 4), 4),  # mixed precision
        _case(6_738_415_616, 2, 4, (4, 4), 4),  # its gradients in float32
        _case(3000, 4, 4, ()),
        _case(3000, 2, 2, ()),
        _case(5000, 4, 2, (4,)),
        _case(4096, 4, 4, (1, 1)),
        _case(4096, 2, 2, (1, 2, 8), 4),
        _case(7, 2, 8, (2,), 4),
        _case(3000, 2, 4, (4,), 2),
        _case(2048, 4, 2, (4, 4), 8),
        _case(1000, 8, 4, (2,), 4),
    ],
    MISTAKES,
    "a number of bytes",
    edges=[
        Edge(_case(0, 4, 4, (4, 4))),
        Edge(_case(1, 2, 2, (), 4)),
        Edge(_case(256, 4, 4, (1.015625, 1.015625)), _fraction),  # a byte, and a float32 for each block of 256
        Edge(_case(123_456_789_013, 2, 2, (4, 4), 4), _exactly),
    ],
    drawn=_drawn,
)
