"""What the judges of kernels share: what a run on the stub of Triton did beside the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Numeric, Parts, first_difference
from course_lib.checks.functions.on_ranks import first_of_each
from course_lib.checks.report import Finding
from course_lib.kernels.stub import OutOfBounds, Race, Record

_MASK = "The last block reaches beyond the end. Which lanes may take part? `mask=offsets < n`."
_BLOCKS = "Program k begins at element k * BLOCK: `tl.program_id(0) * BLOCK`, plus the lanes."
_UNNAMED = {"wrong-numbers", "not-finite", "single-precision"}
_POSITION = re.compile(r"element \((\d+), (\d+)\)")


class Walked(Numeric):
    """A judge of results with a row for each step, which says so where numbers differ."""

    def place(self, case: dict[str, Any], element: int) -> str:
        """An element of a row, in words."""
        return f"element {element}"

    def _unnamed(
        self, cases: Any, results: list[Parts], expected: list[Parts], i: int, rounding: float = 0.0
    ) -> Finding:
        finding = super()._unnamed(cases, results, expected, i, rounding)
        case, *_ = first_difference(cases, results, expected, i)

        def said(match: re.Match[str]) -> str:
            return f"step {int(match[1]) + 1}, {self.place(case, int(match[2]))}"

        return replace(finding, what=_POSITION.sub(said, finding.what))


def outside(error: OutOfBounds, where: str, block: int) -> Finding:
    """About an access outside an array; ``where`` says in which case, "With 5 elements in blocks of 4"."""
    what = f"{where}: {str(error).split('. Mask')[0]}."
    if (error.elements < 0).any():
        hint = "An index below 0 is no element: a pointer does not count from the end. Which program begins there?"
        return Finding("starts-before", what, hint)
    if error.elements.tolist() == [error.size] and (error.size + 1) % block:
        return Finding("mask-one-too-far", what, "The first element is 0. Which is the last? `<` or `<=`?")
    return Finding(f"{error.kind}-unmasked", what, _MASK)


def elements(record: Record, kind: str, argument: str, size: int) -> np.ndarray:
    """In how many loads, or stores, of a program each element of an array is; several lanes of one count once."""
    places = [np.unique(access.elements) for access in record.of(kind, argument)]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *places]), minlength=size)


def about_blocks(record: Record, where: str, size: int, block: int, touched: Iterable[str]) -> Finding | None:
    """Whether the programs share the elements out as they should; ``touched`` names the arrays to look at."""
    names = set(touched)
    of_program: list[set[int]] = [set() for _ in range(record.programs)]
    for access in record.accesses:
        if access.argument in names:
            of_program[access.program].update(access.elements.tolist())
    shared = sum(map(len, of_program)) > len(set().union(*of_program))
    missed = sorted(set(range(size)).difference(*of_program))
    busy = [program for program, places in enumerate(of_program) if places]
    if not busy:
        return None
    if record.programs > 1 and all(places == of_program[0] for places in of_program):
        what = f"{where}: every program works on the same elements, from 0 to {max(of_program[0])}."
        return Finding("program-id-missing", what, f"{_BLOCKS} Does the program's number come in?")
    if record.programs > 1 and [min(places, default=-1) for places in of_program] == [*range(record.programs)]:
        if block > 1 and shared:
            what = f"{where}: program 0 begins at element 0, program 1 at element 1: they overlap."
            return Finding("block-length-missing", what, _BLOCKS)
    if record.programs > 1 and busy == [0]:
        what = f"{where}: program 0 does all the work, and the others nothing."
        return Finding("first-program-only", what, f"{_BLOCKS} All programs run at once: give each its own.")
    if shift := _shifted(record, where, size, block, names):
        return shift
    if missed == [0] and size > 1:
        what = f"{where}: element 0 is left out."
        return Finding("first-element-missed", what, "Lanes are counted from 0: `tl.arange(0, BLOCK)`.")
    if missed == [size - 1] and size > 1:
        what = f"{where}: the last element, {size - 1}, is left out."
        return Finding("last-element-missed", what, "`offsets < n` includes it.")
    if missed:
        tail = size // block * block
        if missed == [*range(tail, size)]:
            what = f"{where}: the elements from {tail} on are left out, which do not fill a block."
            return Finding("tail-left", what, "The last block is shorter: mask its lanes alone.")
        left = f"{len(missed)} elements are left out, the first is" if len(missed) > 1 else "an element is left out:"
        what = f"{where}: {left} {missed[0]}."
        return Finding("elements-missed", what, _BLOCKS)
    return None


def _shifted(record: Record, where: str, size: int, block: int, names: set[str]) -> Finding | None:
    """About a last block that is shifted back, so that it is full and reaches into the one before."""
    start, last = size - block, record.programs - 1
    stored = [access for access in record.of("store") if access.argument in names and access.program == last]
    if size % block == 0 or last != size // block or start < 0 or not stored:
        return None
    if any(access.elements.tolist() != [*range(start, size)] for access in stored):
        return None
    what = (
        f"{where}: the last block is shifted back. Program {last} begins at element {start}, not at {last * block}, "
        f"and updates elements that program {last - 1} updates as well."
    )
    return Finding("block-shifted", what, "Let the last block begin in its place: mask the lanes beyond the end.")


def race(found: Race, where: str) -> Finding:
    """About two programs, or two lanes, that meet."""
    if found.programs[0] == found.programs[1]:
        what = f"{where}: {found} One of them may load what another has stored already."
        return Finding("lanes-share", what, "Mask the lanes beyond the end; do not send them to the last one.")
    return Finding("race", f"{where}: {found}", "Each element belongs to one program, which alone touches it.")


def sorted_out(findings: list[Finding], notes: Sequence[Finding]) -> list[Finding]:
    """Numbers and notes, one finding a code: numbers that nobody knows are left out where a note tells of a cause."""
    if any(note.code == "block-shifted" for note in notes):  # which begins before the array if that is short
        findings = [finding for finding in findings if finding.code != "starts-before"]
    if notes:
        findings = [finding for finding in findings if finding.code not in _UNNAMED | {note.code for note in notes}]
    return first_of_each([*findings, *notes])
