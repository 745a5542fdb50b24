"""Memory that a training step needs for a moment, beside model states and activations."""

from __future__ import annotations

from course_lib.memory.architecture import Architecture, Weight
from course_lib.memory.setup import Setup
from course_lib.memory.states import State, find_state, is_hidden_matrix

TEMPORARIES = "temporaries of the optimizer's step"


def largest_unit(model: Architecture) -> int:
    """Elements of the largest part whose weights are gathered at once under ZeRO-3: a block, the embedding or the head.

    As FSDP wraps a model: each block by itself. A block of a mixture brings all its experts.
    """
    mixed = model.layers - model.experts.dense_layers if model.experts else 0
    dense = mixture = other = 0
    for weight in model.weights():
        if not weight.name.startswith("layers."):
            other = max(other, weight.total)
        elif weight.name.startswith("layers.mlp."):
            dense += weight.size
        elif weight.copies % model.layers == 0 and weight.role not in ("expert", "router"):
            dense, mixture = dense + weight.size, mixture + weight.size
        else:
            mixture += weight.total // mixed
    return max(other, dense if mixed < model.layers else 0, mixture if mixed else 0)


def step_temporaries(weights: tuple[Weight, ...], setup: Setup, elements: int, state: int) -> dict[str, int]:
    """Bytes that the optimizer's step allocates for a moment on one rank, line by line.

    Args:
        weights: the model's tensors.
        setup: how it is trained. A fused kernel computes in registers and allocates nothing; where there is none, the
            step is counted tensor by tensor. Without master weights its numbers have the weights' format. With them,
            "foreach" and "for-loop" are torch.optim's over the masters, as ``course_lib.precision.MasterWeights``
            runs them: gradients are first cast to float32, and 16-bit moments widened, for all parameters together.
        elements: parameters that this rank updates.
        state: bytes of optimizer state on this rank.
    """
    rule, recipe = find_state(setup.optimizer), setup.recipe
    width = 4 if recipe.master else recipe.weights
    if setup.step == "fused" and rule.fused:
        return {}
    if setup.step == "foreach" and rule.foreach is not None:
        lines = {TEMPORARIES: rule.foreach * width * elements}
    else:
        lines = {TEMPORARIES: _one_at_a_time(rule, weights, width, elements)}
    if setup.step == "fused":  # there is no such kernel, and one that casts tensor by tensor is assumed
        return lines
    if recipe.master and setup.gradient < 4 and not setup.buffer:
        lines["gradients cast to float32 for the step"] = 4 * elements
    if recipe.master and recipe.state < 4:
        lines["moments widened to float32 for the step"] = state
    return lines


def _one_at_a_time(rule: State, weights: tuple[Weight, ...], width: int, elements: int) -> int:
    """Bytes that a step needs which takes one tensor after the other, of ``width`` bytes a number."""
    if rule.key == "muon":
        return max(_newton_schulz(weight, width) if is_hidden_matrix(weight) else 2 * width * weight.size
                   for weight in weights)
    largest = max(weight.size for weight in weights)
    return rule.loop * width * min(largest, elements)


def _newton_schulz(weight: Weight, width: int) -> int:
    """torch.optim.Muon's for a matrix: its update, two bf16 matrices of its size, two of the short side squared."""
    return (width + 4) * weight.size + 4 * min(weight.shape) ** 2
