"""Weights, gradients, master weights and optimizer state on the GPU that holds most of them."""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.memory.architecture import Architecture, Weight
from course_lib.memory.arguments import whole
from course_lib.memory.setup import Setup
from course_lib.memory.states import find_state, state_bytes

LARGEST_MODEL = 10**15  # parameters; the largest models published have about 10^12
SQUARE = 4096  # a bare number of parameters is counted as square matrices of this side
_ONE_SQUARE = Weight("layers.matrix.weight", (SQUARE, SQUARE), 1, "mlp")
_BLOCK_FORMATS = ("attention", "mlp", "expert")  # roles whose matrices fp8 recipes keep in 8 bits


@dataclass(frozen=True)
class ModelStates:
    """Model states of one training setup; every size is in bytes.

    Attributes:
        setup: how the model is trained.
        weights: its tensors; of a bare number, one square matrix that stands for all.
        elements: parameters of the model.
        weight_bytes, state_bytes: of all weights, and of the optimizer's state, before anything is divided.
    """

    setup: Setup
    weights: tuple[Weight, ...]
    elements: int
    weight_bytes: int
    state_bytes: int

    @classmethod
    def of(cls, model: Architecture | float, setup: Setup) -> ModelStates:
        """Those of an architecture, or of a number of parameters.

        Raises:
            ValueError: the number is negative, zero, NaN, not whole or absurd.
        """
        if isinstance(model, Architecture):
            weights, elements, scale = model.weights(), model.parameters, 1
        else:
            hint = "parameters, or an Architecture, as models.find returns it"
            elements = whole("model", model, 1, LARGEST_MODEL, hint)
            weights, scale = (_ONE_SQUARE,), SQUARE**2
        counted = [_weight_bytes(weights, setup), _state_bytes(weights, setup)]
        if scale > 1:
            counted = [-(-found * elements // scale) for found in counted]
        return cls(setup, weights, elements, *counted)

    @property
    def updated(self) -> int:
        """Parameters that the optimizer updates on this GPU."""
        return self._share(1, self.elements, stage=1)

    def parameters(self) -> dict[str, int]:
        """The weights that the forward pass reads."""
        return {"weights": self._divided(self.weight_bytes, stage=3)}

    def gradients(self) -> dict[str, int]:
        """The gradients, and the buffer that micro-batches are summed in."""
        return {
            "gradients": self._share(self.setup.gradient, self.elements, stage=2),
            "float32 buffer of gradients": self._share(self.setup.buffer, self.elements, stage=2),
        }

    def optimizer(self) -> dict[str, int]:
        """Master weights and state."""
        name = find_state(self.setup.optimizer).name
        return {"float32 master weights": self.masters, f"state of {name}": self.state}

    @property
    def masters(self) -> int:
        """Master weights on this GPU."""
        return self._share(self.setup.recipe.master, self.elements, stage=1)

    @property
    def state(self) -> int:
        """The optimizer's state on this GPU."""
        return self._divided(self.state_bytes, stage=1)

    @property
    def checkpoint(self) -> int:
        """A checkpoint that resumes exactly: weights, master weights and state of all ranks; no gradients."""
        return self.weight_bytes + self.setup.recipe.master * self.elements + self.state_bytes

    def _share(self, width: int, elements: int, stage: int) -> int:
        """Bytes of ``elements`` numbers of ``width`` bytes on this GPU, if ZeRO shards them from ``stage`` on."""
        return width * self._elements_here(elements, stage)

    def _divided(self, size: int, stage: int) -> int:
        """The same for ``size`` bytes that are spread evenly over the parameters."""
        return -(-size * self._elements_here(self.elements, stage) // self.elements)

    def _elements_here(self, elements: int, stage: int) -> int:
        replica = -(-elements // (self.setup.tensor * self.setup.pipeline))
        return -(-replica // self.setup.ranks) if self.setup.zero >= stage else replica


def _weight_bytes(weights: tuple[Weight, ...], setup: Setup) -> int:
    recipe = setup.recipe
    if not recipe.scale_block:
        return sum(recipe.weights * weight.total for weight in weights)
    found = 0
    for weight in weights:
        if weight.role in _BLOCK_FORMATS and len(weight.shape) > 1:
            blocks = -(-weight.shape[-2] // recipe.scale_block) * -(-weight.shape[-1] // recipe.scale_block)
            found += weight.copies * (recipe.weights * weight.size + 4 * blocks)
        else:
            found += 2 * weight.total
    return found


def _state_bytes(weights: tuple[Weight, ...], setup: Setup) -> int:
    if setup.recipe.moments:
        return sum(setup.recipe.moments) * sum(weight.total for weight in weights)
    return state_bytes(setup.optimizer, weights, state=setup.recipe.state)
