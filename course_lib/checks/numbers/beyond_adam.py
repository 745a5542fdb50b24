"""The number asked for in the exercises of notebook 14."""

from __future__ import annotations

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import Finding


def _no_speedup(number: float) -> Finding | None:
    """About a number that no slip leads to, as the answer to ``fair_speedup``."""
    if number <= 0:
        return Finding(
            "no-ratio", f"{number:g}: a ratio of steps lies above 0.", "How many steps take both to the same loss?"
        )
    if number > 100:
        return Finding(
            "no-ratio-but-steps",
            f"{number:g} is of the size of a number of steps.",
            "A ratio is asked for: steps of the one over steps of the other.",
        )
    return None


ANSWERS: dict[str, Answer] = {
    "fair_speedup": Answer(
        7500 / 6000,
        1e-3,
        "",
        (
            Slip(
                12_000 / 6000,
                "untuned-baseline",
                "That is the claim: AdamW with a learning rate that was tuned for another model.",
                "Take AdamW at its best learning rate from the sweep.",
            ),
            Slip(
                12_000 / 7500,
                "tuning-alone",
                "That is what tuning gave AdamW: 12,000 steps over 7,500. N is not in it.",
                "Which two runs are to be compared?",
            ),
            Slip(
                9000 / 6000,
                "not-the-best-rate",
                "That compares with AdamW after 9,000 steps, at a rate that is not its best.",
                "Go through the whole sweep: which rate has the loss of the claim first?",
            ),
            Slip(
                12_000 / 9000,
                "tuning-of-another-rate",
                "12,000 steps over 9,000 compares two AdamWs, and not even the better one.",
                "Which two runs are to be compared?",
            ),
            Slip(
                6000 / 7500,
                "upside-down",
                "That is the share of the steps that N needs.",
                "A speedup is above 1 if the new one is faster: what stands above?",
            ),
            Slip(0.25, "gain", "That is how much more, 25% more steps for AdamW.", "The ratio itself is asked for."),
            Slip(25, "percent", "That is the gain in per cent.", "The ratio itself is asked for."),
            Slip(0.2, "saved", "That is the share of the steps that N saves.", "The ratio itself is asked for."),
            Slip(
                3.34 / 3.30,
                "ratio-of-losses",
                "That is the ratio of the losses after 6,000 steps.",
                "A loss is no speed: which steps have the same loss?",
            ),
            Slip(
                0.04,
                "difference-of-losses",
                "That is the difference of the losses after 6,000 steps.",
                "A loss is no speed: which steps have the same loss?",
            ),
            Slip(
                1,
                "nothing-left",
                "A ratio of 1 would mean that nothing is left.",
                "Does the tuned AdamW have the loss of the claim after N's 6,000 steps?",
            ),
            Slip(
                9000 / 7500,
                "two-adamws",
                "That compares two learning rates of AdamW.",
                "Which two runs are to be compared?",
            ),
            Slip(1500, "steps-saved", "That is how many steps are saved.", "A ratio is asked for."),
            Slip(7500, "steps-of-adamw", "That is how many steps the tuned AdamW needs.", "Over how many of N's?"),
        ),
        _no_speedup,
    ),
}
