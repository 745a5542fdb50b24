"""Which numbers a recipe of mixed precision keeps for a parameter, and in how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.memory.arguments import choice

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
"""Bytes of one number in each format."""


@dataclass(frozen=True)
class Recipe:
    """What training keeps for one parameter. Sizes are bytes of one number.

    Attributes:
        key: the name in ``RECIPES``, as ``--precision`` takes it.
        name: as one writes it in prose.
        weights: of a weight that the forward pass reads.
        grads: the formats that a gradient may have, the usual one first.
        master: of a further copy of each weight that the optimizer updates; 0 where it updates the weights themselves.
        state: of a number of the optimizer's state.
        compute: of an activation.
        source: who trains like this.
        autocast: weights are float32 and ``torch.autocast`` copies them to 16 bits for matrix products. The copies
            are counted with the activations: autograd holds them until the backward pass has read them.
        moments: where Adam's two moments have different sizes, both; then no other optimizer is defined.
        scale_block: side of the square blocks of 8-bit weights that share a float32 scale. Where it is not 0, only
            matrices of attention, MLPs and experts have ``weights`` bytes, all others 2.
    """

    key: str
    name: str
    weights: int
    grads: tuple[str, ...]
    master: int
    state: int
    compute: int
    source: str
    autocast: bool = False
    moments: tuple[int, int] | None = None
    scale_block: int = 0

    @property
    def gradients(self) -> int:
        """Bytes of a gradient in the usual format."""
        return BYTES[self.grads[0]]

    @property
    def per_parameter(self) -> int:
        """Bytes for one parameter under AdamW: weight, gradient, master copy, two moments. Scales are left out."""
        moments = sum(self.moments) if self.moments else 2 * self.state
        return self.weights + self.gradients + self.master + moments


_MIXED = "Micikevicius et al. 2018, 1710.03740, section 3.1; Rajbhandari et al. 2020, 1910.02054, section 3.1"
_AUTOCAST = "torch.autocast over float32 weights; its cache of casts is torch's"
_DEEPSEEK = "DeepSeek-AI 2024, 2412.19437, section 3.3.3 (moments in bf16, float32 master weights and gradients)"

RECIPES: dict[str, Recipe] = {
    recipe.key: recipe
    for recipe in (
        Recipe("fp32", "float32", 4, ("fp32",), 0, 4, 4, "torch's default"),
        Recipe("autocast-bf16", "float32 weights, bf16 autocast", 4, ("fp32",), 0, 4, 2, _AUTOCAST, autocast=True),
        Recipe("autocast-fp16", "float32 weights, fp16 autocast", 4, ("fp32",), 0, 4, 2, _AUTOCAST, autocast=True),
        Recipe("mixed-bf16", "bf16 with float32 master weights", 2, ("bf16", "fp32"), 4, 4, 2, _MIXED),
        Recipe("mixed-fp16", "fp16 with float32 master weights", 2, ("fp16", "fp32"), 4, 4, 2, _MIXED),
        Recipe("bf16", "bf16 alone", 2, ("bf16", "fp32"), 0, 2, 2,
               "what torch.optim keeps for bf16 parameters; the rounding it needs: Zamirai et al. 2020, 2010.06192"),
        Recipe("bf16-moments", "bf16 with float32 master weights and gradients, moments in bf16",
               2, ("fp32", "bf16"), 4, 2, 2, _DEEPSEEK + "; the bf16 copy of the weights is assumed here"),
        Recipe("fp8-lm", "FP8-LM: fp16 master weights with scales, fp8 gradients and first moment, fp16 second moment",
               2, ("fp8",), 0, 2, 2, "Peng et al. 2023, 2310.18313, section 2.2", moments=(1, 2)),
        Recipe("fp8-deepseek", "DeepSeek-V3's: fp8 matrices, float32 master weights and gradients, moments in bf16",
               1, ("fp32", "bf16"), 4, 2, 2,
               _DEEPSEEK + ", figure 6 and section 3.3.2 (blocks of 128 x 128); the fp8 copy is assumed to stay",
               scale_block=128),
    )
}


def find_recipe(key: str) -> Recipe:
    """The recipe with this key.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    return RECIPES[choice("precision", key, RECIPES)]


def gradient_bytes(recipe: Recipe, grads: str | None, accumulate: str | None) -> tuple[int, int]:
    """Bytes of a gradient, and of its element of a second buffer that micro-batches are summed in (0: none).

    Args:
        recipe: the recipe whose gradients they are.
        grads: "fp32", "bf16" or "fp16"; None for the recipe's usual format. float32 gradients of 16-bit weights are
            Megatron's main gradients: the 16-bit ones live for a moment only (18 bytes a parameter).
        accumulate: "fp32" for a float32 buffer that stays beside the 16-bit gradients (20 bytes), or None.

    Raises:
        ValueError: the recipe has no such gradients, or the buffer would be a copy of float32 gradients.
    """
    chosen = recipe.grads[0] if grads is None else choice("grads", grads, BYTES)
    if chosen not in recipe.grads:
        raise ValueError(f"Under {recipe.key}, gradients are {' or '.join(recipe.grads)}, not {chosen}.")
    if accumulate is None:
        return BYTES[chosen], 0
    choice("accumulate", accumulate, ("fp32",))
    if BYTES[chosen] == 4:
        raise ValueError("float32 gradients are summed where they are: a second float32 buffer (accumulate) is only "
                         "of use beside 16-bit or 8-bit gradients.")
    return BYTES[chosen], 4
