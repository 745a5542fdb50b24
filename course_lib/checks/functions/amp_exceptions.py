"""What an exception says about the order of the calls, in the exercise `amp_step`."""

from __future__ import annotations

from course_lib.checks.functions.amp_gradients import ORDER, Call
from course_lib.checks.report import Finding

NO_BACKWARD = Finding(
    "no-backward", "No backward pass reaches a loss.", "`scaler.scale(loss)` is a tensor: call `.backward()` on it."
)


def from_exception(call: Call, raised: Finding) -> Finding:
    """What an exception says about the order of the calls; itself, if it says nothing."""
    notes, pending = call.notes, set(range(len(call.micro))) - set(call.notes.losses)
    known = {
        "outputs must be a Tensor": Finding(
            "loss-not-a-tensor",
            "The scaler is given a number: `.item()` and `float` leave the graph behind.",
            "`loss_fn` returns a tensor; scale that, and call `.backward()` on the result.",
        ),
        "One of the differentiated Tensors": Finding(
            "frozen-parameter",
            "`torch.autograd.grad` is asked for the gradient of a frozen parameter: one layer of this model has "
            "`requires_grad` False.",
            "Those of the optimizer are trained: `[p for g in optimizer.param_groups for p in g['params']]`.",
        ),
        "does not require grad": Finding(
            "loss-detached",
            "The loss has no graph to go back through.",
            "No `.detach()`, no `.data` and no `torch.no_grad()` between `loss_fn` and `.backward()`.",
        ),
        "_scale is None": Finding(
            "not-scaled",
            "Nothing has been scaled when the scaler is asked to unscale, step or update.",
            "`scaler.scale(loss).backward()`",
        )
        if notes.factors
        else Finding(
            "unscale-too-early",
            "The scaler is asked to unscale, step or update before the first backward.",
            ORDER,
        ),
        "prior to update": Finding(
            "update-per-micro-batch",
            "`scaler.update` is called before all micro-batches have added to the gradients.",
            "Once per step, at its end.",
        )
        if pending
        else Finding(
            "update-before-step",
            "`scaler.update` is called before `unscale_` or `step` has looked for overflows.",
            ORDER,
        ),
        "recorded for this optimizer": Finding(
            "zero-grad-before-step",
            "There are no gradients when `scaler.step` is called.",
            "Set them to zero before the first backward, or after the step.",
        )
        if notes.factors
        else NO_BACKWARD,
        "a second time": Finding(
            "backward-twice",
            "Backward goes through one loss twice.",
            "One backward for each loss: what is in the loop, and what behind it?",
        ),
        "Closure use": Finding("closure", "`scaler.step` takes no closure.", "`scaler.step(optimizer)`"),
        "NoneType": Finding(
            "gradient-none",
            "A parameter without a gradient is asked for it: one layer of this model is frozen, its `.grad` is None.",
            "`if p.grad is not None`, or `torch.nn.utils.clip_grad_norm_`, which leaves such parameters out.",
        ),
    }
    for part, finding in known.items():
        if part in raised.what:
            return finding
    return raised
