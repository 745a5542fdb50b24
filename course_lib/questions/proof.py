"""Running what proves a question."""

from __future__ import annotations

from collections.abc import Callable

from course_lib.questions.loader import get
from course_lib.questions.schema import Question


def evidence_function(name: str) -> Callable[..., float | None]:
    """Return the public function ``name`` of ``course_lib.questions.evidence``.

    Raises:
        ValueError: there is none of that name.
    """
    from course_lib.questions.evidence import FUNCTIONS

    if name not in FUNCTIONS:
        raise ValueError(f"There is no evidence function {name!r}. Allowed: {', '.join(sorted(FUNCTIONS))}.")
    return FUNCTIONS[name]


def prove(question: Question | str) -> float | None:
    """Run every evidence function of a question; return the number of a compute question, else None.

    Notebook evidence is proved where it stands, by running the notebook.

    Raises:
        AssertionError: the evidence does not bear the answer out; for a compute question also when the number
            it returns is not the bank's, within the bank's tolerance.
        ValueError: the question or the function does not exist.
    """
    question = get(question) if isinstance(question, str) else question
    result = None
    for proof in question.evidence:
        if proof.function is None:
            continue
        result = evidence_function(proof.function)()
        if question.number is None:
            assert result is None, (
                f"{proof.function} returned {result!r}; only evidence for kind compute returns a number"
            )
        else:
            value, tolerance = question.number.value, question.number.tolerance
            assert isinstance(result, float) and abs(result - value) <= tolerance * abs(value), (
                f"{proof.function} returned {result!r}, but the bank says {value:g} {question.number.unit}, "
                f"accepted within {100 * tolerance:g}%"
            )
    return result
