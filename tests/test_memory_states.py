"""Bytes of optimizer state: against torch.optim to the byte, and against arithmetic by hand for what torch lacks."""

from __future__ import annotations

import weakref
from functools import partial
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.memory.architecture import Weight
from course_lib.memory.models import find
from course_lib.memory.setup import Setup
from course_lib.memory.states import STATES, is_hidden_matrix, state_bytes
from course_lib.memory.working import step_temporaries
from course_lib.optim import REGISTRY, TORCH_KEYS
from course_lib.precision.master import MasterWeights

WEIGHTS = (
    Weight("embedding.weight", (50, 12), 1, "embedding"),
    Weight("layers.attention.query.weight", (12, 12), 2, "attention"),
    Weight("layers.mlp.up.weight", (40, 12), 2, "mlp"),
    Weight("layers.mlp.up.bias", (40,), 2, "bias"),
    Weight("norm.weight", (12,), 1, "norm"),
    Weight("head.weight", (50, 12), 1, "head"),
)
MATRIX = (Weight("layers.mlp.up.weight", (1024, 4096), 1, "mlp"),)
ELEMENTS = 1024 * 4096


def parameters(weights=WEIGHTS, dtype=torch.float32) -> list[tuple[Weight, torch.nn.Parameter]]:
    """Each tensor with a gradient."""
    found = []
    for weight in weights:
        for _ in range(weight.copies):
            param = torch.nn.Parameter(torch.ones(weight.shape, dtype=dtype))
            param.grad = torch.full_like(param, 0.5)
            found.append((weight, param))
    return found


def kept(*optimizers: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in their state dicts."""
    return sum(leaf.nbytes for optimizer in optimizers for leaf in tree_leaves(optimizer.state_dict()["state"])
               if isinstance(leaf, torch.Tensor))


# --- Against torch --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("key", TORCH_KEYS)
def test_the_registry_keeps_what_torch_keeps_to_the_byte(key, dtype):
    production = REGISTRY[key].production([param for _, param in parameters(dtype=dtype)])
    production.step()
    assert state_bytes(key, WEIGHTS, state=dtype.itemsize, production=True) == kept(production)


@pytest.mark.parametrize("key", TORCH_KEYS)
def test_the_registry_itself_counts_the_same_and_production_adds_only_scalars(key):
    by_registry = sum(weight.copies * REGISTRY[key].state_bytes(weight.shape) for weight in WEIGHTS)
    assert state_bytes(key, WEIGHTS) == by_registry
    tensors = sum(weight.copies for weight in WEIGHTS)
    assert state_bytes(key, WEIGHTS, production=True) - by_registry == 4 * tensors * REGISTRY[key].production_scalars


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("key", [key for key in REGISTRY if key not in TORCH_KEYS])
def test_the_others_of_the_registry_are_counted_as_the_registry_counts(key, dtype):
    """By shape too: what both say about a matrix, a tall and a wide one, a vector, and blocks that do not fit."""
    weights = [
        Weight(f"layers.{name}.weight", shape, 2, "mlp") for name, shape in
        {"square": (64, 64), "tall": (1030, 5), "wide": (6, 1100), "row": (1, 7)}.items()
    ]  # fmt: skip
    weights += [Weight("norm.weight", (5000,), 3, "norm"), Weight("bias", (12,), 1, "bias")]
    expected = sum(weight.copies * REGISTRY[key].state_bytes(weight.shape, dtype) for weight in weights)
    assert state_bytes(key, weights, state=dtype.itemsize) == expected


@given(
    st.sampled_from(["adafactor", "came", "adam_mini", "adamw8bit"]),
    st.lists(st.integers(1, 90), max_size=4).map(tuple),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_small_state_of_any_shape_is_counted_as_the_registry_counts(key, shape, dtype):
    counted = state_bytes(key, [Weight("w", shape, 1, "mlp")], state=dtype.itemsize)
    assert counted == REGISTRY[key].state_bytes(shape, dtype)


def test_whole_copies_are_counted_by_the_registry_alone():
    by_shape = {key for key, state in STATES.items() if state.by_shape}
    assert by_shape - set(REGISTRY) == {"adamw4bit"}
    assert by_shape == {key for key, entry in REGISTRY.items() if entry.size is not None} | {"adamw4bit"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_adafactor_keeps_what_torch_keeps_to_the_byte(dtype):
    weights = (*WEIGHTS, Weight("layers.experts.up.weight", (3, 8, 5), 1, "expert"), Weight("row", (1, 7), 1, "mlp"))
    production = torch.optim.Adafactor([param for _, param in parameters(weights, dtype)])
    production.step()
    assert state_bytes("adafactor", weights, state=dtype.itemsize, production=True) == kept(production)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_muon_with_adamw_for_the_rest_keeps_what_torch_keeps_to_the_byte(dtype):
    pairs = parameters(dtype=dtype)
    muon = torch.optim.Muon([param for weight, param in pairs if is_hidden_matrix(weight)])
    rest = torch.optim.AdamW([param for weight, param in pairs if not is_hidden_matrix(weight)])
    muon.step()
    rest.step()
    assert len(muon.param_groups[0]["params"]) == 4
    assert state_bytes("muon", WEIGHTS, state=dtype.itemsize, production=True) == kept(muon, rest)


# --- By hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "expected"), [
    ("lion", 4 * ELEMENTS),
    ("lars", 4 * ELEMENTS),
    ("lamb", 8 * ELEMENTS),
    ("sophia", 8 * ELEMENTS),
    ("stable_adamw", 8 * ELEMENTS),
    ("schedule_free", 8 * ELEMENTS),
    ("ademamix", 12 * ELEMENTS),
    ("muon", 4 * ELEMENTS),
    ("adafactor", 4 * (1024 + 4096)),
    ("came", 4 * ELEMENTS + 2 * 4 * (1024 + 4096)),
    ("adam_mini", 4 * ELEMENTS + 4 * 1024),
    ("adamw8bit", 2 * 4_194_304 + 2 * 4 * 16_384),  # 8,519,680: a byte each, a float32 for each block of 256
    ("adamw4bit", 2 * 2_097_152 + 2 * 4 * 32_768),
    ("soap", 8 * ELEMENTS + 4 * 2 * (1024**2 + 4096**2)),  # 42 bytes a parameter
    ("shampoo", 8 * ELEMENTS + 4 * 2 * 4 * 2 * 1024**2),  # four blocks of 1024 x 1024: 24 bytes a parameter
])
def test_one_matrix_of_1024_by_4096(key, expected):
    assert state_bytes(key, MATRIX) == expected


@pytest.mark.parametrize(("key", "expected"), [
    ("adamw8bit", 2 * 1000 * 4),  # under 4096 elements: 32 bits, whatever the weights have
    ("adamw4bit", 2 * 1000 * 2),  # torchao leaves such tensors in the weight's format
    ("adafactor", 1000 * 2),  # a vector is not factored
    ("came", 2 * 1000 * 2),
    ("adam_mini", (1000 + 1) * 2),
    ("muon", 2 * 1000 * 2),  # AdamW's
    ("soap", 2 * 1000 * 2),
    ("shampoo", (2 * 1000 + 2 * 1000**2) * 2),
])
def test_one_vector_of_1000_beside_bf16_weights(key, expected):
    assert state_bytes(key, [Weight("norm.weight", (1000,), 1, "norm")], state=2) == expected


@pytest.mark.parametrize(("elements", "expected"), [
    (4095, 2 * 4 * 4095),
    (4096, 2 * (4096 + 4 * 16)),
    (4097, 2 * (4097 + 4 * 17)),
])
def test_8_bit_state_begins_at_4096_elements_and_the_last_block_may_be_short(elements, expected):
    assert state_bytes("adamw8bit", [Weight("w", (elements,), 1, "bias")]) == expected


def test_a_side_too_long_for_soap_has_no_preconditioner():
    weight = Weight("embedding.weight", (10_001, 8), 1, "embedding")
    assert state_bytes("soap", [weight]) == 4 * (2 * 10_001 * 8 + 2 * 8**2)


def test_shampoo_cuts_a_side_that_blocks_do_not_divide():
    squares = (1024**2 + 5**2) + (5**2 + 5**2)  # a block of 1024 x 5 and one of 5 x 5
    assert state_bytes("shampoo", [Weight("w", (1029, 5), 1, "mlp")]) == 4 * (2 * squares + 2 * 1029 * 5)


def test_muon_saves_less_than_half_of_adamws_state_on_a_real_model():
    model = find("gpt2-124m")
    hidden = 12 * (4 * 768**2 + 8 * 768**2)
    assert state_bytes("muon", model.weights()) == 4 * hidden + 8 * (model.parameters - hidden)


@given(st.sampled_from(sorted(STATES)), st.integers(1, 20), st.sampled_from((2, 4)), st.booleans())
def test_copies_count_as_often_as_they_are_there(key, copies, state, production):
    one = [Weight("w", (70, 90), 1, "mlp")]
    many = [Weight("w", (70, 90), copies, "mlp")]
    single = state_bytes(key, one, state=state, production=production)
    assert state_bytes(key, many, state=state, production=production) == copies * single


def test_unknown_optimizers_and_widths_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"Invalid optimizer: 'adafctor'. Did you mean adafactor"):
        state_bytes("adafctor", WEIGHTS)
    with pytest.raises(ValueError, match="Allowed: 4"):
        state_bytes("adamw", WEIGHTS, state=8)


# --- Temporaries of the step ----------------------------------------------------------------------


class Tally(TorchDispatchMode):
    """The highest number of bytes that operations in it had alive at once."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.known | set(self.alive):
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def temporaries(make, shapes, dtype=torch.float32) -> int:
    """Bytes that the second step allocates for a moment."""
    params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.full_like(param, 0.5)
    optimizer = make(params)
    optimizer.step()
    state = [leaf for leaf in tree_leaves(optimizer.state_dict()["state"]) if isinstance(leaf, torch.Tensor)]
    with Tally(params + [param.grad for param in params] + state) as tally:
        optimizer.step()
    return tally.peak


SHAPES = [(64, 50), (64, 64), (7, 5), (64, 100)]
SCALARS = 16 * len(SHAPES)  # bytes; some steps make a few scalars for each tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("key", [*TORCH_KEYS, "adafactor"])
def test_foreach_takes_as_many_copies_of_all_parameters_as_stated(key, dtype):
    make = torch.optim.Adafactor if key == "adafactor" else REGISTRY[key].production
    found = temporaries(partial(make, foreach=True), SHAPES, dtype)
    stated = STATES[key].foreach * sum(map(prod, SHAPES)) * dtype.itemsize
    assert stated <= found <= stated + SCALARS


@pytest.mark.parametrize("key", [*TORCH_KEYS, "adafactor"])
def test_a_for_loop_takes_as_many_copies_of_one_parameter_as_stated(key):
    make = torch.optim.Adafactor if key == "adafactor" else REGISTRY[key].production
    found = temporaries(partial(make, foreach=False), [(300, 200)])
    stated = STATES[key].loop * 300 * 200 * 4
    assert stated <= found <= stated + 4 * (300 + 200) + SCALARS


@pytest.mark.parametrize("key", [key for key in TORCH_KEYS if STATES[key].fused])
def test_a_fused_step_takes_nothing(key):
    assert temporaries(partial(REGISTRY[key].production, fused=True), SHAPES) <= SCALARS


@pytest.mark.parametrize("key", [key for key in TORCH_KEYS if not STATES[key].fused])
def test_torch_has_no_fused_step_of_the_others(key):
    with pytest.raises(TypeError, match="fused"):
        REGISTRY[key].production([torch.nn.Parameter(torch.ones(2))], fused=True)


@pytest.mark.parametrize("shape", [(96, 96), (64, 256), (256, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_muon_takes_as_much_for_a_matrix_as_stated(shape, dtype):
    setup = Setup(optimizer="muon", precision="fp32" if dtype is torch.float32 else "bf16")
    lines = step_temporaries((Weight("w", shape, 1, "mlp"),), setup, prod(shape), 0)
    stated = sum(lines.values())
    assert stated <= temporaries(torch.optim.Muon, [shape], dtype) <= stated + 64


@pytest.mark.parametrize("gradients", ["native", "fp32"])
def test_a_foreach_step_over_master_weights_takes_as_much_as_stated(gradients):
    params = [torch.nn.Parameter(torch.ones(shape, dtype=torch.bfloat16)) for shape in SHAPES]
    weights = MasterWeights(params, partial(torch.optim.AdamW, foreach=True), gradients=gradients)

    def backward() -> None:
        sum(param.sum() for param in params).backward()

    backward()
    weights.step()
    backward()
    state = [leaf for leaf in tree_leaves(weights.optimizer.state_dict()["state"]) if isinstance(leaf, torch.Tensor)]
    grads = [param.grad for param in params if param.grad is not None]
    with Tally(params + grads + weights.masters + weights.main_grads + state) as tally:
        weights.step()
    setup = Setup(step="foreach", grads="fp32" if gradients == "fp32" else None)
    stated = sum(step_temporaries((), setup, sum(map(prod, SHAPES)), 0).values())
    assert stated <= tally.peak <= stated + SCALARS
