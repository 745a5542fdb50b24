"""What must hold of an exercise's catalogue of mistakes."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from course_lib.checks.functions.common import ALIKE, Numeric, close


def drawn(judge: Numeric, count: int) -> list[dict]:
    """What the judge draws with the seeds 0 to ``count`` - 1."""
    return [case for seed in range(count) for case in judge.drawn(np.random.default_rng(seed))]


def not_told_apart(judge: Numeric) -> list[tuple[str, str]]:
    """Pairs of mistakes, or of a mistake and the answer, whose values on the judge's own cases are alike."""
    values = {known.code: [judge.evaluate(known.wrong, case) for case in judge.cases] for known in judge.known}
    assert len(values) == len(judge.known)
    values["the answer"] = [judge.evaluate(judge.right, case) for case in judge.cases]
    claims = {code: [part is not None for part in value[0]] for code, value in values.items()}
    pairs = [(a, b) for a, b in combinations(values, 2) if claims[a] == claims[b] or "the answer" in (a, b)]
    return [(a, b) for a, b in pairs if _alike(values[a], values[b])]


def _alike(one: list, other: list) -> bool:
    return all(
        close(a, b, ALIKE)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
        if a is not None and b is not None
    )


def misnamed(judge: Numeric) -> dict[str, str]:
    """Mistakes that are found under another code than their own, with that code.

    Each is handed in as a learner would have it: what the mistake does not claim is right.
    """
    found = {}
    for known in judge.known:

        def handed_in(known=known, **case):
            arrays = {
                name: value.numpy() if judge.tensors and hasattr(value, "numpy") else value
                for name, value in case.items()
            }
            wrong, right = judge.evaluate(known.wrong, arrays), judge.evaluate(judge.right, arrays)
            parts = tuple(r if w is None else w for w, r in zip(wrong, right, strict=True))
            return parts if judge.parts else parts[0]

        found[known.code] = judge(handed_in, lambda _: None)[0].code
    return {code: named for code, named in found.items() if named != code}
