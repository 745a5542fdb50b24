"""How much memory training takes on one GPU, in closed form: nothing is allocated."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from course_lib.memory import activations, working
from course_lib.memory.architecture import Architecture
from course_lib.memory.model_states import SQUARE, ModelStates
from course_lib.memory.setup import Setup
from course_lib.memory.states import find_state

CUDA_CONTEXT = 500_000_000
"""Bytes that the CUDA context and the libraries' kernels take before the first tensor: a round figure, not measured.
It depends on driver, card and libraries, and shows in nvidia-smi but not in torch.cuda.memory_allocated. Only
the comparison with a card adds it."""

_peak = lru_cache(maxsize=512)(activations.at_peak)  # advice and widgets ask for the same ones again and again
CHUNKED_LOSS = "a loss computed in chunks of tokens never holds them whole (2411.09009)"


@dataclass(frozen=True)
class Prediction:
    """Bytes on the GPU that holds most, at the moment when it holds most.

    Attributes:
        parameters: the weights that the forward pass reads.
        gradients: with a second buffer, both. They are counted as kept throughout the step, as they are where
            micro-batches are summed, and in the buffers of DDP and Megatron.
        optimizer: master weights and state.
        activations: what the forward pass left for the backward pass.
        other: working memory: gradients of activations, the logits' copies, gathered layers, temporaries, buffers.
        details: for each of these five what it is made of: bytes by name, which add up to it.
        checkpoint: bytes of a checkpoint that resumes exactly, of all ranks together: weights, master weights, state.
        moment: when the peak is: "at all times", "step", or a part of the backward pass, as ``activations.at_peak``
            names it.
        notes: what the numbers leave out or assume, in sentences.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    other: int
    details: dict[str, dict[str, int]] = field(repr=False)
    checkpoint: int
    moment: str
    notes: tuple[str, ...] = field(repr=False)

    @property
    def total(self) -> int:
        """All five together."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.other

    def to_dict(self) -> dict[str, int]:
        """The five parts and their total, as ``course memory --json`` prints them."""
        keys = ("parameters", "gradients", "optimizer", "activations", "other", "total")
        return {key: getattr(self, key) for key in keys}


def predict(
    model: Architecture | float,
    *,
    optimizer: str = "adamw",
    precision: str = "mixed-bf16",
    grads: str | None = None,
    accumulate: str | None = None,
    zero: int = 0,
    gpus: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    batch: int = 1,
    sequence: int | None = None,
    recompute: str = "none",
    attention: str = "flash",
    step: str = "fused",
    buckets: int = 0,
) -> Prediction:
    """Predict the peak of memory on one GPU.

    Under tensor and pipeline parallelism everything is divided evenly, norms too, and the largest rank under ZeRO
    holds ceil(elements / ranks). Activations are divided by ``tensor`` (with sequence parallelism), not by
    ``pipeline``: the first stage keeps as many micro-batches as there are stages (Korthikanti et al. 2022, 2205.05198,
    section 4.2.3).

    Args:
        model: an architecture, or a number of parameters: then there are model states alone.
        optimizer, precision, grads, accumulate, zero, gpus, tensor, pipeline, batch, sequence, recompute, attention,
            step, buckets: see :class:`course_lib.memory.setup.Setup`.

    Raises:
        ValueError: a value out of range or unknown, or two that do not go together; the message says what is allowed.
    """
    setup = Setup(optimizer, precision, grads, accumulate, zero, gpus, tensor, pipeline, batch, sequence, recompute,
                  attention, step, buckets)
    return predict_setup(model, setup)


def predict_setup(model: Architecture | float, setup: Setup) -> Prediction:
    """As :func:`predict`, for choices that are already checked."""
    states = ModelStates.of(model, setup)
    notes = _assumptions(model, setup)
    saved, busy, moment = {}, {}, "at all times"
    if isinstance(model, Architecture):
        sequence = setup.tokens(model)
        peak = _peak(model, setup.batch, sequence, compute=setup.recipe.compute, attention=setup.attention,
                     recompute=setup.recompute, autocast=setup.recipe.autocast)
        saved = {line: -(-size // setup.tensor) for line, size in peak.saved.items()}
        busy = {line: -(-size // setup.tensor) for line, size in peak.working.items()} | _held_weights(model, setup)
        moment = peak.moment
        notes += _about_logits(saved | busy)
    if isinstance(model, Architecture) or setup.step != "fused":
        stepping = working.step_temporaries(states.weights, setup, states.updated, states.state)
        if sum(stepping.values()) > sum(saved.values()) + sum(busy.values()):
            if saved:
                notes.append(f"The peak is in the optimizer's step. The activations, {sum(saved.values()) / 1e9:.2f} "
                             "GB at their peak, are gone by then.")
            saved, busy, moment = {}, stepping, "step"
    if setup.buckets:
        busy = busy | {"communication buffers": setup.buckets}
    lines = {"parameters": states.parameters(), "gradients": states.gradients(), "optimizer": states.optimizer(),
             "activations": saved, "other": busy}
    return Prediction(
        **{part: sum(found.values()) for part, found in lines.items()},
        details={part: {line: size for line, size in found.items() if size} for part, found in lines.items()},
        checkpoint=states.checkpoint,
        moment=moment,
        notes=tuple(notes),
    )


def _held_weights(model: Architecture, setup: Setup) -> dict[str, int]:
    """Weights and gradients that a GPU holds beside its own share while it computes."""
    unit = -(-working.largest_unit(model) // setup.tensor)
    lines = {}
    if setup.zero == 3:
        lines["weights of the largest block, gathered"] = setup.recipe.weights * unit
    if setup.zero >= 2:
        lines["gradients of the largest block, not yet scattered"] = setup.gradient * unit
    return lines


def _about_logits(lines: dict[str, int]) -> list[str]:
    """A sentence if the loss takes most of what is alive beside the model's states."""
    loss = sum(size for line, size in lines.items()
               if line.removeprefix("gradient of the ") in ("log-softmax", "logits"))
    if 2 * loss < sum(lines.values()):
        return []
    return [f"{loss / 1e9:.1f} GB of it are logits, log-softmax and their gradients: {CHUNKED_LOSS}."]


def _assumptions(model: Architecture | float, setup: Setup) -> list[str]:
    """What the numbers leave out or assume, in sentences."""
    rule = find_state(setup.optimizer)
    notes = []
    if not isinstance(model, Architecture):
        notes.append("Model states alone: activations and working memory need a model's shapes.")
        if rule.by_shape:
            notes.append(f"What {rule.name} keeps depends on shapes; square matrices of {SQUARE} are assumed.")
        return notes
    if model.experts or model.latent:
        notes.append("Activations of experts and of latent attention are derived from shapes, not measured.")
    if setup.zero and rule.by_shape:
        notes.append(f"The state of {rule.name} depends on shapes; it is counted as if ranks could share it evenly.")
    if setup.step == "foreach" and rule.foreach is None:
        notes.append(f"torch has no foreach step of {rule.name}; it is counted tensor by tensor.")
    if setup.step == "fused" and not rule.fused:
        notes.append(f"There is no fused kernel of {rule.name}; its step is counted tensor by tensor.")
    if setup.zero == 3 and model.experts:
        notes.append("ZeRO-3 gathers a block with all its experts; expert parallelism, left out here, avoids that.")
    return notes
