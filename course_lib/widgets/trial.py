"""Claims to be called right, wrong or "it depends" before they are run, and the score by theme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from course_lib import journal
from course_lib.practice import trial as practice
from course_lib.questions.grading import BadAnswer
from course_lib.widgets import panel


def trial(ids: Iterable[str], language: str = "en") -> None:
    """Show claims with three buttons each: right, wrong, it depends.

    A guess is graded at once, with the bank's answer, remembered as an answer to that question, and stands.

    Args:
        ids: of verdict questions of the bank.
        language: "en" or "zh".

    Raises:
        ValueError: there is no such question or language, or a question is no verdict.
    """
    asked = practice.claims(ids, language)

    def make():
        from course_lib.widgets.trial_panel import Trial

        return Trial(asked).frame.box

    panel.present(make, practice.words_of(asked))


def guess(question_id: str, verdict: str, language: str = "en") -> None:
    """Guess a claim without buttons: print what the guess is worth and the bank's answer, and remember it.

    Args:
        question_id: of a verdict question of the bank.
        verdict: "right", "wrong" or "depends"; Chinese words will do as well.
        language: "en" or "zh".

    Raises:
        ValueError: there is no such question or language, or the verdict is none of these.
    """
    (asked,) = practice.claims([question_id], language)
    try:
        grade = practice.judge(asked, verdict)
    except BadAnswer as error:
        raise ValueError(asked.say(error.text)) from None
    print(
        "\n\n".join(
            [practice.verdict_of(asked, grade, verdict), asked.say(asked.question.answer).strip(), *journal.news()]
        )
    )


def scorecard(rounds: Mapping[str, Sequence[str]], language: str = "en") -> None:
    """Show by theme how many claims were guessed, and how many of them right, by the first guess at each.

    Args:
        rounds: theme -> ids of its claims.
        language: "en" or "zh".

    Raises:
        ValueError: there is no such question or language, a question is no verdict, or ``rounds`` is no such map.
    """
    rounds = practice.checked(rounds, language)

    def make():
        from course_lib.widgets.trial_panel import Scorecard

        return Scorecard(rounds, language).frame.box

    panel.present(make, practice.score_text(rounds, practice.first_guesses(journal.recall()), language))
