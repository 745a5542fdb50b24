"""Closed form of what a training step holds beside the model's states: activations, and working memory at the peak.

Every entry is the size of a tensor that PyTorch makes, so it can be put beside what :mod:`course_lib.memory.measure`
finds. Dense models with ordinary attention agree with it (:mod:`course_lib.memory.agreement`); a mixture of experts and
latent attention are derived from shapes in the same way and are **not measured**. Not counted is memory that a kernel
takes and gives back inside one operation.
"""

from __future__ import annotations

from course_lib.memory import kept
from course_lib.memory.architecture import Architecture
from course_lib.memory.backward import replay
from course_lib.memory.kept import Run
from course_lib.memory.tape import Peak

__all__ = ["Peak", "at_peak", "layer_saved", "saved"]


def layer_saved(
    architecture: Architecture,
    batch: int,
    sequence: int,
    *,
    compute: int = 2,
    attention: str = "flash",
    recompute: str = "none",
    autocast: bool = False,
    dropout: bool = False,
    layer: int = -1,
) -> dict[str, int]:
    """Bytes that one block keeps for its backward pass, by tensor.

    With full recomputation that is its input alone. In 16 bits, with flash attention, an MLP four times the width and
    no dropout they come to 32 s b h (and small change: norm statistics, logsumexp); eager attention adds 2 a s^2 b; with
    ``dropout`` it is s b h (34 + 5 a s / h), equation 2 of Korthikanti et al. 2022 (2205.05198).

    Args:
        architecture: the model.
        batch, sequence: sequences of a micro-batch and tokens of each, per GPU.
        compute: bytes of an activation: 4, or 2 where weights have 16 bits or autocast is on.
        attention: "flash" (``scaled_dot_product_attention``) or "eager" (softmax(QK') V written out).
        recompute: "none", "selective" (the core of attention) or "full" (every block).
        autocast: float32 weights under ``torch.autocast``.
        dropout: with masks of a byte on the probabilities and the outputs of attention and MLP; not measured.
        layer: which one, in models whose first layers are dense and others have experts; by default the last.

    Raises:
        ValueError: an argument is unknown or out of range.
    """
    return kept.of_layer(Run(architecture, batch, sequence, compute, attention, recompute, autocast, dropout), layer)


def saved(
    architecture: Architecture,
    batch: int,
    sequence: int,
    *,
    compute: int = 2,
    attention: str = "flash",
    recompute: str = "none",
    autocast: bool = False,
) -> dict[str, int]:
    """Bytes alive between forward and backward pass, by tensor, all layers together. As :func:`layer_saved`."""
    run = Run(architecture, batch, sequence, compute, attention, recompute, autocast)
    total = kept.of_model(run)
    for layer in range(architecture.layers):
        for name, nbytes in kept.of_layer(run, layer).items():
            total[name] = total.get(name, 0) + nbytes
    return total


def at_peak(
    architecture: Architecture,
    batch: int,
    sequence: int,
    *,
    compute: int = 2,
    attention: str = "flash",
    recompute: str = "none",
    autocast: bool = False,
    keep_gradients: bool = True,
) -> Peak:
    """What is alive, model states left out, at the highest moment of a forward and backward pass.

    Args:
        architecture, batch, sequence, compute, attention, recompute, autocast: as in :func:`layer_saved`.
        keep_gradients: ``.grad`` exists before the backward pass, as with accumulation, with ``set_to_none=False`` and
            in the buffers of Megatron or DDP, and belongs to the model's states. Else it appears weight by weight, and
            ``Peak.gradients`` says how much of it there is at the peak.

    Raises:
        ValueError: an argument is unknown or out of range.
    """
    return replay(Run(architecture, batch, sequence, compute, attention, recompute, autocast), keep_gradients).peak
