"""Memory of LoRA, the other training that is left where a model does not fit."""

from __future__ import annotations

from dataclasses import replace

from course_lib.memory.architecture import Architecture, Weight
from course_lib.memory.predict import Prediction, predict_setup
from course_lib.memory.setup import Setup

RANK = 16
ADAPTER_BYTES = 16  # per parameter of an adapter: float32 weight, gradient and AdamW's moments


def adapters(model: Architecture, rank: int = RANK) -> int:
    """Parameters of LoRA's two thin matrices beside every matrix of the blocks (Hu et al. 2021, 2106.09685, eq. 3)."""
    return sum(weight.copies * rank * sum(weight.shape) for weight in model.weights() if _adapted(weight))


def frozen_bytes(model: Architecture, bits: int) -> int:
    """Bytes of the frozen weights: 2 each, or with ``bits`` 4 QLoRA's for the adapted matrices.

    QLoRA (Dettmers et al. 2023, 2305.14314, section 3) keeps 4-bit codes and for every 64 of them a scale of 8 bits,
    which have a float32 for every 256 of their own: 0.516 bytes. Embedding, head and norms stay in 16 bits.
    """
    if bits == 16:
        return 2 * model.parameters
    found = 0
    for weight in model.weights():
        scales = -(-weight.size // 64)
        packed = -(-weight.size // 2) + scales + 4 * -(-scales // 256)
        found += weight.copies * (packed if _adapted(weight) else 2 * weight.size)
    return found


def lora(model: Architecture, setup: Setup, bits: int = 16) -> Prediction:
    """Predicted memory of LoRA on one GPU, over frozen weights of ``bits`` bits, with the batch of ``setup``.

    Activations and working memory are those of full training, which is a little more than LoRA's.
    """
    full = predict_setup(model, replace(setup, optimizer="adamw", precision="mixed-bf16", grads=None, accumulate=None,
                                        zero=0, gpus=1, tensor=1, pipeline=1, step="fused"))
    trained = adapters(model)
    frozen, extra = frozen_bytes(model, bits), ADAPTER_BYTES // 4 * trained
    states = {"parameters": {"frozen weights": frozen, "adapters": extra},
              "gradients": {"gradients of the adapters": extra},
              "optimizer": {"state of AdamW for the adapters": 2 * extra}}
    return replace(full, parameters=frozen + extra, gradients=extra, optimizer=2 * extra, details=full.details | states,
                   checkpoint=3 * extra, notes=(*full.notes, "Of LoRA only the adapters are saved."))


def _adapted(weight: Weight) -> bool:
    return len(weight.shape) == 2 and weight.role in ("attention", "mlp", "expert")
