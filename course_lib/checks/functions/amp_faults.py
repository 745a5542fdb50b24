"""What is wrong with a step that was made in the exercise `amp_step`, from the notes that were taken and its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from course_lib.checks.functions.amp_exceptions import NO_BACKWARD, from_exception
from course_lib.checks.functions.amp_gradients import ORDER, Call, from_gradient, norm, same, times
from course_lib.checks.functions.amp_notes import BACKWARD, BARE_STEP, SCALE, STEP, UNSCALE, UPDATE, Notes
from course_lib.checks.functions.amp_overflow import mishandled
from course_lib.checks.report import Finding

DIGITS = 2e-5  # of a gradient's size: float32 in any order stays below, rounding to 16 bits does not


def faults(call: Call, raised: Finding | None = None) -> list[Finding]:
    """Findings about a call that ended in wrong numbers, or raised; never empty."""
    found = list(_misplaced(call))
    if call.overflows and (finding := mishandled(call, raised)):
        found = [finding]
        if raised:
            found = [replace(finding, what=f"{finding.what} It ends in {raised.what.split(': ', 1)[-1]}")]
    elif raised:
        found = [finding for finding in found if finding.code not in _CONSEQUENCES] or [from_exception(call, raised)]
        if found[0] is raised:
            return found
        message = raised.what.split(": ", 1)[-1]
        found[0] = replace(found[0], what=f"{found[0].what} It ends in {message}")
    elif not found and not call.overflows and len(call.notes.stepped) == 1:
        found = from_gradient(call)
    if not found:
        found = [_unnamed(call)]
    return [replace(found[0], what=f"{found[0].what} (In a step of {call.said}.)"), *found[1:]]


# What is missing after an exception is missing for the exception.
_CONSEQUENCES = {
    *("no-loss", "no-backward", "micro-batches-missing", "backward-missing", "scaler-unused"),
    *("step-missing", "update-missing"),
}


# ------------------------------------------------------------------------------------------------ what was called


def _misplaced(call: Call) -> Iterator[Finding]:
    """What the notes show to be missing, in excess or in the wrong place."""
    notes, count = call.notes, len(call.micro)
    if not notes.losses:
        yield Finding(
            "no-loss", "`loss_fn` is never called with a micro-batch.", "`loss_fn(model, batch)` for each batch."
        )
        return
    if notes.autocast:
        yield Finding(
            "autocast",
            "The loss is computed under autocast, so the gradients have the digits of bf16.",
            "No autocast here: in a real loop it belongs around the forward pass, in `loss_fn`.",
        )
        return
    if not any(notes.count(event) for event in (SCALE, UNSCALE, STEP, UPDATE)):
        yield Finding(
            "scaler-unused",
            "Nothing is asked of the scaler that was passed in: the loss is not scaled, an overflow would go into the "
            "weights, and the scale never changes.",
            ORDER,
        )
        return
    if not call.overflows and notes.factors and not all(map(math.isfinite, notes.factors)):
        yield Finding(
            "loss-in-half",
            f"What backward brings to a loss is infinite, and the scale is {call.scale:g}: float16 ends at 65504. The loss "
            "is float16 when it is scaled, so every step is skipped until the scale has come down.",
            "Scale the loss in float32, as `loss_fn` returns it.",
        )
        return
    if any(rate != call.rates[0] for rate in call.rates[1]):
        yield Finding(
            "rate-changed",
            f"The optimizer's learning rate is {call.rates[1][0]:.4g} after the call, and was {call.rates[0]:g} before it.",
            "The mean is made of losses or gradients; the learning rate stays what it is.",
        )
        return
    yield from _wrong_losses(notes, count)
    first = min((at for event in (STEP, BARE_STEP) if (at := notes.first(event)) >= 0), default=math.inf)
    if first < notes.last(BACKWARD):
        yield Finding(
            "step-per-micro-batch",
            "A step is made before all micro-batches have added to the gradients.",
            "One step for all of them: outside the loop.",
        )
        return
    yield from _wrong_zeroing(notes)
    yield from _wrong_unscaling(call)
    yield from _wrong_steps(call)


def _wrong_losses(notes: Notes, count: int) -> Iterator[Finding]:
    missing = sorted(set(range(count)) - set(notes.losses))
    if missing:
        which = ", ".join(str(i + 1) for i in missing)
        yield Finding(
            "micro-batches-missing",
            f"The loss of micro-batch {which} of {count} is never computed.",
            "One optimizer step over all of them: does your loop end too early?",
        )
    elif len(notes.losses) > count:
        yield Finding(
            "micro-batches-twice",
            f"The loss is computed {len(notes.losses)} times for {count} micro-batches.",
            "One forward and one backward for each.",
        )
    if not notes.factors:
        yield NO_BACKWARD
    elif len(notes.factors) < len(notes.losses) and not missing:
        yield Finding(
            "backward-missing",
            f"{len(notes.losses)} losses are computed, and backward goes through {len(notes.factors)} of them.",
            "Is backward inside the loop? Each micro-batch adds its share to `.grad`.",
        )


def _wrong_zeroing(notes: Notes) -> Iterator[Finding]:
    if notes.stale:
        yield Finding(
            "zero-grad-missing",
            "When the first backward begins, the gradients of the step before are still there, and this step's are added. "
            "The old ones are unscaled already, so they count for 1 / scale only, which no loss curve shows. But an "
            "overflow leaves inf and NaN there: from then on every step is skipped, and the scale falls for ever.",
            "`optimizer.zero_grad()` once per step, before the first backward or after everything.",
        )
    if notes.wiped:
        yield Finding(
            "zero-grad-per-micro-batch",
            "The gradients are set to zero between two micro-batches: only the last one counts.",
            "Once per step, outside the loop.",
        )
    if notes.empty:
        yield Finding(
            "zero-grad-before-step",
            "The gradients are set to zero after backward and before the step: nothing is left to step on.",
            "Before the first backward, or after the step.",
        )


def _wrong_unscaling(call: Call) -> Iterator[Finding]:
    notes = call.notes
    if notes.first(UNSCALE) >= 0 and notes.first(UNSCALE) < notes.last(BACKWARD):
        when = "before the first backward" if notes.first(UNSCALE) < notes.first(BACKWARD) else "between two backwards"
        yield Finding(
            "unscale-too-early",
            f"`unscale_` is called {when}: what is added later is still scaled.",
            "Once, after all micro-batches have added to the gradients.",
        )
    elif 0 <= notes.first(STEP) < notes.first(UNSCALE):
        yield Finding(
            "unscale-after-step",
            "`unscale_` is called after `scaler.step`, which has unscaled the gradients and used them.",
            ORDER,
        )
    elif notes.count(UNSCALE) > 1:
        yield Finding(
            "unscale-twice",
            f"`unscale_` is called {notes.count(UNSCALE)} times.",
            "Once per step; `scaler.step` sees that it was done, and leaves it.",
        )


def _wrong_steps(call: Call) -> Iterator[Finding]:
    notes = call.notes
    if notes.count(BARE_STEP) and notes.count(STEP):
        yield Finding(
            "stepped-twice",
            "The weights are updated twice: by `optimizer.step` and by `scaler.step`.",
            "`scaler.step(optimizer)` calls `optimizer.step` where the gradients are finite.",
        )
    elif notes.count(BARE_STEP):
        yield Finding(
            "optimizer-step",
            "`optimizer.step` is called, not `scaler.step`: where a gradient is infinite, it goes into the weights, and "
            "the loss is NaN from then on.",
            "`scaler.step(optimizer)` leaves the step out where the gradients overflowed.",
        )
    elif not notes.count(STEP):
        yield Finding(
            "step-missing",
            "`scaler.step` is not called.",
            ORDER,
        )
    elif notes.count(STEP) > 1:
        yield Finding("step-repeated", f"`scaler.step` is called {notes.count(STEP)} times.", "Once per step.")
    if not notes.count(UPDATE):
        if notes.count(STEP) or notes.count(BARE_STEP):
            yield Finding(
                "update-missing",
                "`scaler.update` is not called: the scale stays what it is, and the next step raises.",
                ORDER,
            )
    elif notes.first(UPDATE) < notes.last(BACKWARD):
        yield Finding(
            "update-per-micro-batch",
            "`scaler.update` is called before all micro-batches have added to the gradients: they are scaled by different "
            "scales.",
            "Once per step, at its end.",
        )
    elif notes.first(UPDATE) < notes.last(STEP):
        yield Finding(
            "update-before-step",
            "`scaler.update` is called before `scaler.step`: it forgets that the gradients are unscaled and whether they "
            "overflowed, so that `step` unscales them again.",
            ORDER,
        )
    elif notes.count(UPDATE) > 1:
        yield Finding("update-repeated", f"`scaler.update` is called {notes.count(UPDATE)} times.", "Once per step.")


def _divisor(by: float) -> str:
    """By what the losses seem to be divided, if it is a whole number."""
    return f" (as if their sum were divided by {by:.0f})" if math.isclose(by, round(by), rel_tol=1e-3) else ""


def _unnamed(call: Call) -> Finding:
    notes = call.notes
    calls = f"Calls in order: {', '.join(notes.events) or 'none'}."
    if notes.changed:
        return Finding(
            "changed-between-backwards",
            f"The gradients are changed between two backwards. {calls}",
            "Within the loop gradients only add up. Unscale and clip once, behind it.",
        )
    if notes.stepped and not call.overflows:
        got, size = notes.stepped[0], norm(notes.stepped[0])
        if same(got, call.right) and not same(got, call.right, DIGITS):
            return Finding(
                "rounded",
                "The optimizer is given the right gradient up to its fourth digit: something on the way has 16 bits.",
                "Losses and gradients are float32 here, and stay so. The scaler is what makes them fit elsewhere.",
            )
        if same(got, call.right):
            return Finding(
                "wrong-weights",
                f"The optimizer is given the right gradient, and yet weights or scale are not what they should be. {calls}",
                "Nothing but `scaler.step` and `scaler.update` changes them.",
            )
        ratio = size / norm(call.mean)
        times_mean = ""
        if same(got, times(call.mean, ratio)):
            times_mean = f", {ratio:.4g} times the mean over the micro-batches{_divisor(len(call.micro) / ratio)}"
        return Finding(
            "wrong-gradient",
            f"The optimizer is given a gradient of norm {size:.4g}{times_mean}; right is {norm(call.right):.4g}. {calls}",
            "Take `scaler.scale(loss)` and its backward, the division and the clipping one by one.",
        )
    return Finding(
        "wrong-step",
        f"Weights or scale are not what they should be afterwards. {calls}",
        f"{ORDER} Nothing else changes gradients, weights or scale.",
    )
