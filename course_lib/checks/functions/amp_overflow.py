"""What a step of the exercise `amp_step` does with an overflow, where it does more or less than to leave it to the scaler."""

from __future__ import annotations

from course_lib.checks.functions.amp_gradients import Call
from course_lib.checks.functions.amp_notes import BARE_STEP, STEP, UPDATE, finite
from course_lib.checks.report import Finding

_SCALERS = "An overflow is the scaler's business: `step` leaves the update out, `update` lowers the scale."
# What the scaler itself says when it is not given what it needs: these exceptions are not the candidate's answer.
_FROM_SCALER = ("No inf checks were recorded", "_scale is None", "since the last update")


def mishandled(call: Call, raised: Finding | None) -> Finding | None:
    """A finding about a call whose gradients overflow, if the candidate has an answer of its own to that; else None."""
    notes, losses = call.notes, call.notes.losses
    left_out = len(notes.factors) < len(call.micro)
    if raised and not any(part in raised.what for part in _FROM_SCALER):
        return Finding(
            "overflow-raises",
            "A gradient or a loss overflows, as happens from time to time under a loss scaler, and the run ends.",
            f"Let the scaler handle it. {_SCALERS}",
        )
    if left_out and notes.stepped and losses:
        return Finding(
            "overflow-left-out",
            "The micro-batch that overflows is left out, and the step is made with the others: its gradient is not the "
            "mean over the micro-batches, and the scale does not fall.",
            f"Every loss goes through backward, an infinite one too. {_SCALERS}",
        )
    if notes.stepped and finite(notes.stepped[0]):
        return Finding(
            "overflow-stepped",
            "A gradient overflowed, and the step is made all the same, with a gradient in which nothing is infinite.",
            "Leave inf and NaN where they are until `unscale_` or `step` has seen them, and let `step` decide.",
        )
    if notes.count(STEP) or notes.count(BARE_STEP):
        return None
    told = "" if notes.count(UPDATE) and not left_out else ", nor is `scaler.update` told of the overflow"
    where = "The function stops at an infinite loss: " if left_out and losses else ""
    return Finding("overflow-by-hand", f"{where}`scaler.step` is not called{told}.", _SCALERS)
