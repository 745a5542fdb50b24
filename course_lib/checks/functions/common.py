"""What the judges of functions share: call the candidate on several cases, and recognise its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.candidate import RIGHT, Stopped, watched
from course_lib.checks.guards import Guards
from course_lib.checks.report import MISTAKE, Finding

Progress = Callable[[str], None]
Judge = Callable[[Any, Progress], list[Finding]]
Parts = tuple[np.ndarray | None, ...]

ROUNDING = 1e-12  # of the largest number of a result: what cancels to nothing may differ by that much
ALIKE = 1e-7  # the same for a mistake, under whose root everything may cancel
SINGLE = 1e-2  # right, but for float32: of a number, and its square of the largest, since much may cancel


class Known(NamedTuple):
    """A mistake that people make, as a function of the exercise's own arguments.

    ``what`` completes "Your numbers are exactly those of ...". ``wrong`` returns what the exercise returns; where that
    has several parts, None stands for a part of which the mistake says nothing. ``kind`` is as in a finding.
    """

    code: str
    what: str
    hint: str
    wrong: Callable[..., Any]
    kind: str = MISTAKE


class Edge(NamedTuple):
    """A call that is judged by itself, and only when the numbers of all cases are right.

    ``told(case, got, want)`` names what is wrong with it, or returns None; then the numbers are compared, and what
    cancels to nothing may differ by ``rounding`` of the largest.
    """

    case: dict[str, Any]
    told: Callable[[dict[str, Any], Parts, Parts], Finding | None] = lambda case, got, want: None
    rounding: float = ROUNDING


@dataclass(frozen=True)
class Numeric:
    """The judge of a function that returns numbers.

    Attributes:
        right: the reference, in NumPy.
        cases: the arguments of each call, by name; arrays, and those in lists, are NumPy's.
        known: the mistakes that are recognised by their numbers, over all cases.
        returns: what the function is to return, in words.
        parts: the names of the things it returns, if it returns several.
        tensors: the candidate is given torch tensors for the arrays.
        edges: calls that are judged after the cases, in this order, up to the first that goes wrong.
        drawn: makes further cases, anew at each check, so that a table of the right answers does not pass. The verdict
            must not depend on what is drawn: ``cases`` alone tell all mistakes apart.
        cells: the cases are the cells of a table, each of which can be wrong by itself. Where no mistake explains them
            all, those are named that explain at least half of the cells that they touch. For one part only.
        pattern: names a wrong result by its shape or its rows, from it and the right one, where its numbers are no
            known mistake's; or returns None.
        few_bits: the right numbers have no more bits than a float32, so that it is no mistake to have no more.
    """

    right: Callable[..., Any]
    cases: Sequence[dict[str, Any]]
    known: Sequence[Known]
    returns: str
    parts: tuple[str, ...] = ()
    tensors: bool = False
    edges: Sequence[Edge] = ()
    drawn: Callable[[np.random.Generator], Sequence[dict[str, Any]]] = lambda rng: ()
    cells: bool = False
    pattern: Callable[[np.ndarray, np.ndarray], Finding | None] = lambda got, want: None
    few_bits: bool = False

    def __call__(self, candidate: Any, progress: Progress) -> list[Finding]:
        progress("calling the function")
        return list(dict.fromkeys(guarded(candidate, lambda: self._judged(candidate))))

    def _judged(self, candidate: Callable[..., Any]) -> list[Finding]:
        written: list[Finding] = []
        cases = [*self.cases, *self.drawn(np.random.default_rng())]
        results = [self._called(candidate, case, written) for case in cases]
        if findings := self._compared(cases, results):
            return findings + written
        for edge in self.edges:
            got, want = self._called(candidate, edge.case, written), self.evaluate(self.right, edge.case)
            if finding := edge.told(edge.case, got, want):
                return [finding, *written]
            wrong = [i for i, part in enumerate(want) if not close(got[i], part, edge.rounding)]
            if wrong:
                return [self._unnamed([edge.case], [got], [want], i, edge.rounding) for i in wrong] + written
        return written

    def _called(self, candidate: Callable[..., Any], case: dict[str, Any], written: list[Finding]) -> Parts:
        """What the candidate returns. Adds to ``written`` what it did to its arguments."""
        arguments = {name: self._given(value) for name, value in case.items()}
        with watched(f"it is called with {said(case)}"):
            result = candidate(**arguments)
        parts = self._parts_of(result, case)
        written += _written(arguments, case)
        return parts

    def evaluate(self, function: Callable[..., Any], case: dict[str, Any]) -> Parts:
        """What the reference, or a known mistake, gives in a case. Divisions by zero give inf or NaN."""
        arguments = {name: np.float64(value) if isinstance(value, float) else value for name, value in case.items()}
        with np.errstate(all="ignore"):
            result = function(**arguments)
            return tuple(
                None if part is None else np.asarray(part, dtype=np.float64)
                for part in (result if self.parts else [result])
            )

    def _given(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._given(item) for item in value]
        if not isinstance(value, np.ndarray):
            return value
        return torch.tensor(value) if self.tensors else value.copy()

    def _parts_of(self, result: Any, case: dict[str, Any]) -> Parts:
        if not self.parts:
            return (self._array(result, "", case),)
        try:
            values = None if isinstance(result, (str, dict, set)) else list(result)
        except TypeError:
            values = None
        if values is None or len(values) != len(self.parts):
            what = _kind_of(result) if values is None else f"{len(values)} things"
            raise Stopped(
                Finding(
                    "wrong-result",
                    f"With {said(case)}, the function returns {what} instead of {self.returns}.",
                    "Does every path through the function end in a return?"
                    if result is None
                    else f"Return {len(self.parts)} things: {', '.join(self.parts)}, in this order.",
                )
            )
        return tuple(self._array(value, name, case) for value, name in zip(values, self.parts, strict=True))

    def _array(self, value: Any, name: str, case: dict[str, Any]) -> np.ndarray:
        try:
            return as_array(value)
        except (TypeError, ValueError, RuntimeError):
            where = f"`{name}` is {_kind_of(value)} instead of numbers"
            where = where if name else f"the function returns {_kind_of(value)} instead of {self.returns}"
            raise Stopped(
                Finding(
                    "wrong-result",
                    f"With {said(case)}, {where}.",
                    "Does every path through the function end in a return?" if value is None else "What is asked for?",
                )
            ) from None

    def _compared(self, cases: Sequence[dict[str, Any]], results: list[Parts]) -> list[Finding]:
        """Findings about the numbers: known mistakes first, for each part that is wrong."""
        expected = [self.evaluate(self.right, case) for case in cases]
        count = range(len(self.parts) or 1)
        left = {i for i in count if any(not close(g[i], e[i]) for g, e in zip(results, expected, strict=True))}
        if not left:
            return []
        if not self.few_bits and all(
            _single(g[i], e[i]) for g, e in zip(results, expected, strict=True) for i in count
        ):
            return [
                Finding(
                    "single-precision",
                    "Your numbers are right to single precision only: something on the way is float32.",
                    "The arguments are float64. Which of your arrays has another dtype?",
                )
            ]
        findings = []
        told = [(known, *self._explained(known, cases, results)) for known in self.known]
        while left:
            known, explained, _ = max(told, key=lambda row: (len(row[1] & left), row[2]))
            if not explained & left:
                break
            what = f"Your numbers are exactly those of {known.what}."
            if self.parts:
                which = " and ".join(f"`{self.parts[i]}`" for i in sorted(explained & left))
                what = f"{which}: your numbers are exactly those of {known.what}."
            findings.append(Finding(known.code, what, known.hint, known.kind))
            left -= explained
        if left and self.cells and (findings := self._some_of(cases, results, expected)):
            return findings
        return findings + [self._unnamed(cases, results, expected, i) for i in sorted(left)]

    def _explained(self, known: Known, cases: Sequence[dict[str, Any]], results: list[Parts]) -> tuple[set[int], bool]:
        """The parts that are what this mistake gives in every case, and whether that is all it says something of."""
        claimed = same = None
        for case, got in zip(cases, results, strict=True):
            value = self.evaluate(known.wrong, case)
            if claimed is None:
                claimed = same = {i for i, part in enumerate(value) if part is not None}
            same = {i for i in same if close(got[i], value[i], ALIKE)}
            if not same:
                break
        return same, same == claimed

    def _some_of(self, cases: Sequence[dict[str, Any]], results: list[Parts], expected: list[Parts]) -> list[Finding]:
        """At most three findings: the mistakes that explain at least half of the cases they touch, the widest first.

        None at all where most of what is wrong is left over: what they explain then is a coincidence.
        """
        told = []
        for known in self.known:
            values = [self.evaluate(known.wrong, case)[0] for case in cases]
            touched = [k for k, value in enumerate(values) if not close(value, expected[k][0])]
            explained = {k for k in touched if close(results[k][0], values[k], ALIKE)}
            if 2 * len(explained) >= len(touched):
                told.append((known, explained))
        wrong = sum(not close(got[0], want[0]) for got, want in zip(results, expected, strict=True))
        named: set[int] = set()
        findings: list[Finding] = []
        while told and len(findings) < 3:
            known, explained = max(told, key=lambda row: len(row[1]))
            told = [(other, rest) for other, more in told if (rest := more - explained)]
            what = f"In {len(explained)} of {len(cases)} calls, your numbers are exactly those of {known.what}."
            findings.append(Finding(known.code, what, known.hint, known.kind))
            named |= explained
        return findings if 2 * len(named) >= wrong else []

    def _unnamed(
        self,
        cases: Sequence[dict[str, Any]],
        results: list[Parts],
        expected: list[Parts],
        i: int,
        rounding: float = ROUNDING,
    ) -> Finding:
        name = f" `{self.parts[i]}`" if self.parts else " the result"
        for case, gots, wants in zip(cases, results, expected, strict=True):
            got, want = gots[i], wants[i]
            if close(got, want, rounding):
                continue
            if finding := self.pattern(got, want):
                return finding
            if want.shape == () and got.size == 1:
                got = got.reshape(())
            if got.shape != want.shape:
                return Finding(
                    "wrong-shape",
                    f"With {said(case)},{name} has shape {got.shape} instead of {want.shape}.",
                    _shape_hint(got.shape, want.shape),
                )
            index = tuple(int(k) for k in np.argwhere(~_near(got, want, rounding))[0])
            at = f", element {index}" if index else ""
            finite = np.isfinite(got[index]) or not np.isfinite(want[index])
            return Finding(
                "wrong-numbers" if finite else "not-finite",
                f"With {said(case)},{name}{at}: expected {want[index]:.9g}, got {got[index]:.9g}.",
                "Work this case by hand for one number." if finite else "Which step divides by zero, or overflows?",
            )
        raise AssertionError("nothing is wrong")


def guarded(candidate: Any, judge: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``judge`` finds, or what stopped it, and what the candidate changed around it; of no function only that."""
    if findings := not_a_function(candidate):
        return findings
    with Guards(watch_production=False) as guards:
        try:
            findings = judge()
        except Stopped as stop:
            findings = [stop.finding]
        return findings + guards.changes()


def not_a_function(candidate: Any) -> list[Finding]:
    """A finding if the candidate is no function; the empty list, to which more is added, if it is one."""
    if callable(candidate) and not isinstance(candidate, type):
        return []
    if candidate is None or candidate is Ellipsis:
        return [Finding("blank", "There is no answer here yet.", "Write the function, and pass it.")]
    what = f"check needs your function itself; this is of type {type(candidate).__name__}."
    return [Finding("wrong-type", what, "Pass the function, without parentheses.")]


def as_array(value: Any) -> np.ndarray:
    """``value`` as a float64 array: a number, an array, a tensor, or lists of them. Raises TypeError or ValueError."""
    if isinstance(value, (Decimal, Fraction)):
        value = float(value)
    elif isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # NumPy has no bfloat16
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Tensor, list, tuple)) for item in value):
        value = np.stack([as_array(item) for item in value])
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"these are no real numbers, but {array.dtype}")
    return array.astype(np.float64)


def close(got: np.ndarray, want: np.ndarray, rounding: float = ROUNDING) -> bool:
    """Whether a result has this shape and, up to rounding, these numbers. One number may come in an array of one."""
    if want.shape == () and got.size == 1:
        got = got.reshape(())
    return got.shape == want.shape and bool(_near(got, want, rounding).all())


def first_difference(
    cases: Sequence[Any], results: Sequence[Parts], expected: Sequence[Parts], i: int
) -> tuple[Any, Any, Any]:
    """The first case in which part ``i`` of the result is another than expected: the case, and both parts."""
    return next(
        (case, got[i], want[i])
        for case, got, want in zip(cases, results, expected, strict=True)
        if not close(got[i], want[i])
    )


def _near(got: np.ndarray, want: np.ndarray, rounding: float = ROUNDING) -> np.ndarray:
    size = np.max(np.abs(want), initial=0.0, where=np.isfinite(want)) or 1.0
    return np.isclose(got, want, rtol=RIGHT, atol=rounding * size, equal_nan=True)


def _single(got: np.ndarray, want: np.ndarray) -> bool:
    if got.size != want.size:
        return False
    got, want = got.ravel(), want.ravel()
    size = np.max(np.abs(want), initial=0.0, where=np.isfinite(want))
    with np.errstate(over="ignore"):
        exact = np.array_equal(got, got.astype(np.float32).astype(np.float64), equal_nan=True)
    return exact and np.allclose(got, want, rtol=SINGLE, atol=SINGLE * SINGLE * size, equal_nan=True)


def said(case: dict[str, Any]) -> str:
    """The arguments of a call in words: short vectors in full, functions by their docstring."""
    return ", ".join(f"{name}{_value(value)}" for name, value in case.items())


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        if value.ndim == 1 and 0 < value.size <= 5:
            return f"={np.array2string(value, precision=4, separator=', ')}"
        return f" of shape {value.shape}"
    if isinstance(value, list) and any(isinstance(item, np.ndarray) for item in value):
        return f": a list of arrays of shapes {', '.join('None' if item is None else str(np.shape(item)) for item in value)}"
    return f" = {value.__doc__}" if callable(value) else f"={value}"


def _kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, (list, tuple)) and value and len({type(item) for item in value}) == 1:
        return f"a {type(value).__name__} of things of type {type(value[0]).__name__}"
    return f"something of type {type(value).__name__}"


def _written(arguments: dict[str, Any], case: dict[str, Any]) -> list[Finding]:
    changed = [name for name, value in case.items() if not _untouched(arguments[name], value)]
    if not changed:
        return []
    what = f"The function changes its arguments in place: {', '.join(f'`{name}`' for name in changed)}."
    return [Finding("input-written", what, "Work on a copy, and return new arrays.")]


def _untouched(now: Any, before: Any) -> bool:
    if isinstance(before, list):
        return len(now) == len(before) and all(map(_untouched, now, before))
    if isinstance(before, (bool, int, float, str)):
        return type(now) is type(before) and (now == before or now != now)
    return not isinstance(before, np.ndarray) or np.array_equal(np.asarray(now), before, equal_nan=True)


def _shape_hint(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    if [n for n in got if n != 1] == [n for n in want if n != 1]:
        return "An axis of length 1 too many or too few."
    if got == want[::-1]:
        return "Rows and columns are exchanged."
    if len(got) == len(want) and got[1:] == want[1:]:
        return "Count the rows: which is the first, which the last?"
    return "Which shape does the exercise ask for?"
