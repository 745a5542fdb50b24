"""What each optimizer remembers, in bytes: computed from shapes alone, nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, prod

from course_lib.memory.architecture import Weight
from course_lib.memory.arguments import choice
from course_lib.optim import REGISTRY

SMALLEST_QUANTISED = 4096  # elements; smaller tensors keep 32-bit state (bitsandbytes' min_8bit_size, torchao too)
SHAMPOO_BLOCK = 1024  # side of the blocks that a large matrix is cut into
SOAP_LARGEST = 10_000  # a side longer than this gets no preconditioner

Tensors = Callable[[Weight, int], int]
"""Bytes of state of one tensor of a weight, when an ordinary number of the state has so many bytes."""


@dataclass(frozen=True)
class State:
    """What an optimizer keeps, and what its step needs beside that for a moment.

    Attributes:
        key: its name, as ``--optimizer`` takes it.
        name: as one writes it in prose.
        bytes_of: bytes of state of one tensor.
        source: where that is from.
        scalars: float32 scalars that torch.optim's implementation keeps for each parameter tensor.
        foreach: tensors as large as all parameters together that torch's foreach step allocates, by default settings;
            None where torch has no such step.
        loop: tensors as large as the parameter at hand that the for-loop step allocates. (A variable of torch's loop
            may hold one more, of the tensor before it, which is not counted.)
        fused: there is a fused kernel: in torch.optim, or for those it lacks in bitsandbytes or torchao.
        by_shape: the bytes depend on a tensor's shape or size, not on the number of parameters alone.
    """

    key: str
    name: str
    bytes_of: Tensors
    source: str
    scalars: int = 0
    foreach: int | None = None
    loop: int = 2
    fused: bool = False
    by_shape: bool = False


def like_parameter(count: int) -> Tensors:
    """State of ``count`` tensors of the parameter's shape."""
    return lambda weight, state: count * weight.size * state


def factored(full: int, pairs: int) -> Tensors:
    """``full`` tensors of the parameter's shape, and ``pairs`` of a row and a column vector over its last two sides.

    A vector is not factored: one tensor stands in for the pairs.
    """

    def bytes_of(weight: Weight, state: int) -> int:
        if len(weight.shape) < 2:
            return (full + 1) * weight.size * state
        rows, columns = weight.size // weight.shape[-1], weight.size // weight.shape[-2]
        return (full * weight.size + pairs * (rows + columns)) * state

    return bytes_of


def quantised(count: int, bits: int, block: int, whole_blocks: bool) -> Tensors:
    """``count`` tensors of ``bits``-bit codes and a float32 for every block of so many elements.

    Tensors under 4096 elements stay as they are; with ``whole_blocks`` also those that blocks do not divide.
    bitsandbytes keeps them in float32 whatever the weight's dtype, torchao in the weight's.
    """

    def bytes_of(weight: Weight, state: int) -> int:
        if weight.size < SMALLEST_QUANTISED or (whole_blocks and weight.size % block):
            return count * weight.size * (state if whole_blocks else 4)
        return count * (ceil(weight.size * bits / 8) + 4 * ceil(weight.size / block))

    return bytes_of


def is_hidden_matrix(weight: Weight) -> bool:
    """True for what Muon updates: a matrix that is no embedding, no position table and no output head."""
    return len(weight.shape) >= 2 and weight.role not in ("embedding", "position", "head")


def _muon(weight: Weight, state: int) -> int:
    return (1 if is_hidden_matrix(weight) else 2) * weight.size * state


def _adam_mini(weight: Weight, state: int) -> int:
    blocks = prod(weight.shape[:-1])  # a row each; one for a vector, whose shape[:-1] is empty
    return (weight.size + blocks) * state


def _shampoo(weight: Weight, state: int) -> int:
    blocks = [_cut(side) for side in weight.shape]
    count = prod(len(pieces) for pieces in blocks)
    squares = sum(count // len(pieces) * sum(piece**2 for piece in pieces) for pieces in blocks)
    return (2 * squares + 2 * weight.size) * state


def _soap(weight: Weight, state: int) -> int:
    sides = [side for side in weight.shape if side <= SOAP_LARGEST] if len(weight.shape) > 1 else []
    return (2 * sum(side**2 for side in sides) + 2 * weight.size) * state


def _cut(side: int) -> list[int]:
    """``side`` in pieces of at most ``SHAMPOO_BLOCK``."""
    return [min(SHAMPOO_BLOCK, side - start) for start in range(0, side, SHAMPOO_BLOCK)]


# Counted in torch 2.13 by a tensor that passes through each step under a TorchDispatchMode; tests repeat the count.
# (foreach: multiples of all parameters, loop: multiples of the parameter at hand, fused)
_STEPS = {
    "sgd": (0, 0, True), "momentum": (0, 0, True), "nesterov": (0, 1, True), "adagrad": (2, 1, True),
    "rmsprop": (1, 1, False), "adadelta": (2, 2, False), "adam": (1, 2, True), "amsgrad": (1, 2, True),
    "adamw": (1, 2, True), "adamax": (1, 1, False), "nadam": (1, 2, False), "radam": (1, 2, False),
    # Not in torch.optim; bitsandbytes has fused kernels of these.
    "lars": (None, 2, True), "lamb": (None, 2, True), "lion": (None, 2, True), "ademamix": (None, 2, True),
}

_FROM_REGISTRY = (
    State(entry.key, entry.name, like_parameter(entry.state_tensors), f"{entry.paper.title}, {entry.paper.year}",
          entry.production_scalars, *_STEPS.get(entry.key, (None, 2, False)))
    for entry in REGISTRY.values() if entry.size is None
)

_BY_SHAPE = (
    State("adafactor", "Adafactor", factored(0, 1),
          "Shazeer & Stern 2018, 1804.04235, Algorithm 4, without momentum, as torch.optim.Adafactor",
          scalars=1, foreach=1, loop=1, by_shape=True),
    State("came", "CAME", factored(1, 2), "Luo et al. 2023, 2307.02047, Algorithm 2: momentum, two factored moments",
          by_shape=True),
    State("adam_mini", "Adam-mini", _adam_mini,
          "Zhang et al. 2024, 2406.16793: a second moment for each row. By heads, as queries and keys "
          "have it there, there are fewer still", by_shape=True),
    State("adamw8bit", "8-bit AdamW", quantised(2, 8, 256, whole_blocks=False),
          "Dettmers et al. 2022, 2110.02861, section 2; blocks of 256 as in bitsandbytes 0.50 (2048 in the paper)",
          fused=True, by_shape=True),
    State("adamw4bit", "4-bit AdamW", quantised(2, 4, 128, whole_blocks=True),
          "Li et al. 2023, 2309.01507; blocks of 128 for both moments as in torchao 0.18", fused=True,
          by_shape=True),
    State("muon", "Muon", _muon,
          "Jordan et al. 2024, kellerjordan.github.io/posts/muon; embeddings, head, norms and biases on AdamW",
          by_shape=True),
    State("shampoo", "Shampoo", _shampoo,
          "Gupta et al. 2018, 1802.09568; as Shi et al. 2023, 2309.06497, have it: blocks of 1024, a factor and its "
          "inverse root for each side, a filtered gradient and Adam's second moment for grafting", by_shape=True),
    State("soap", "SOAP", _soap,
          "Vyas et al. 2024, 2409.11321, Algorithm 3: Adam's moments, and for each side of a matrix a factor and its "
          "eigenvectors; none for a side over 10,000 or a vector", by_shape=True),
)

STATES: dict[str, State] = {state.key: state for state in (*_FROM_REGISTRY, *_BY_SHAPE)}
"""What each optimizer keeps, by key: whole copies by the registry's own count, the others by their shapes."""


def find_state(optimizer: str) -> State:
    """The optimizer with this key.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    return STATES[choice("optimizer", optimizer, STATES)]


def state_bytes(optimizer: str, weights: Iterable[Weight], *, state: int = 4, production: bool = False) -> int:
    """Bytes that an optimizer remembers about these weights, the weights themselves and any master copy left out.

    Args:
        optimizer: a key of ``STATES``.
        weights: the tensors, as ``Architecture.weights()`` lists them.
        state: bytes of an ordinary number of the state. 4, or 2 for 16-bit weights without master copy: torch.optim
            keeps state in the weight's dtype.
        production: add the float32 scalars that torch.optim keeps for each tensor (step counts). Then the result is
            to the byte what its state dict holds, for the registry, Adafactor, and Muon with AdamW for the
            rest. On CUDA these scalars stay in the CPU's memory unless the step is fused or capturable.

    Raises:
        ValueError: an unknown optimizer (the nearest are named), or ``state`` is neither 4 nor 2.
    """
    rule = find_state(optimizer)
    if state not in (2, 4):
        raise ValueError(f"Invalid state: {state!r} bytes. Allowed: 4 (float32) or 2 (bf16).")
    found = 0
    for weight in weights:
        scalars = rule.scalars
        if rule.key == "muon":
            scalars = 0 if is_hidden_matrix(weight) else STATES["adamw"].scalars
        found += weight.copies * (rule.bytes_of(weight, state) + (4 * scalars if production else 0))
    return found
