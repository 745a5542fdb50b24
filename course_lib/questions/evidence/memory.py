"""Evidence for ``bank/memory.yaml``: model states, what the remedies buy, real models."""

from __future__ import annotations

import functools

import torch
from torch import nn

from course_lib.precision import quantise
from course_lib.questions.evidence._alive import (
    SIDE,
    held_by_torch,
    held_with_masters,
    nbytes,
    state_of,
    with_masters,
)
from course_lib.questions.evidence._feed import ADAMW, SGD, both_versions

GB = 1e9
MOMENTUM = functools.partial(SGD, lr=0.1, momentum=0.9)


def seven_answers() -> None:
    """8, 10, 12, 14, 16, 18 and 20 bytes per parameter, each counted on real tensors after a step."""
    assert held_by_torch(ADAMW, torch.bfloat16) == 8
    assert held_with_masters(MOMENTUM) == 12
    assert held_with_masters(gradients="fp32", state_dtype=torch.bfloat16) == 14
    assert held_with_masters() == 16 == held_by_torch(ADAMW, torch.float32)
    assert held_with_masters(gradients="fp32") == 18
    assert held_with_masters(gradients="both") == 20
    assert round(_with_8_bit_moments()) == 10


def _with_8_bit_moments() -> float:
    """Bytes per parameter: bf16 weight and gradient, float32 master, two moments in blocks of 256 8-bit codes."""
    moments = [quantise(torch.rand(SIDE, SIDE), signed=signed) for signed in (True, False)]
    return 2 + 2 + 4 + nbytes(part for moment in moments for part in moment) / SIDE**2


def training_over_inference() -> None:
    """Adam in mixed precision holds 8 times the bf16 weights, pure bf16 4 times; Llama 2 7B: 13.5 and 107.8 GB."""
    weights = held_with_masters() / 2, held_by_torch(ADAMW, torch.bfloat16) / 2
    assert weights == (8, 4)
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    parameters = 2 * 32000 * 4096 + 32 * layer + 4096
    assert parameters == 6_738_415_616
    assert (round(2 * parameters / GB, 1), round(16 * parameters / GB, 1)) == (13.5, 107.8)


def autocast_keeps_float32() -> None:
    """Under autocast weights, gradients and moments stay in float32: 16 bytes; what a layer computes has 16 bits."""
    model = nn.Linear(SIDE, SIDE, bias=False)
    stepper = ADAMW(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.ones(8, SIDE))
    out.float().sum().backward()
    stepper.step()
    assert out.dtype is torch.bfloat16 and model.weight.grad.dtype is torch.float32
    assert nbytes([model.weight, model.weight.grad, *state_of(stepper)]) == 16 * model.weight.numel()
    assert held_with_masters() == 16


def gigabytes_of(gib: float = 74.5) -> float:
    """GB of 1e9 bytes in so many GiB of 2^30."""
    return gib * 2**30 / GB


def bf16_optimizer() -> None:
    """The bank's code leaves AdamW with 4 bytes of state and weights of 1.0 that never move; the fix with 8 and 0.9."""
    ends = {}
    for name, prepare in both_versions("memory-bf16-optimizer", "prepare").items():
        model = nn.Linear(4, 4, bias=False)
        nn.init.ones_(model.weight)
        model, optimizer = prepare(model, 1e-3)
        for _ in range(100):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
        ends[name] = nbytes(state_of(optimizer)) / 16, model.weight.flatten()[0].item()
    assert ends["code"] == (4, 1.0)
    assert ends["fixed"][0] == 8 and 0.89 < ends["fixed"][1] < 0.91


def eight_bit_moments() -> None:
    """8-bit moments take 12 bytes of optimizer to 6.03, and 16 bytes of model state to 10.03: 70 GB for 7e9, not 56."""
    total = _with_8_bit_moments()
    assert total - 4 == 6 + 2 * 4 / 256 and total == 10 + 2 * 4 / 256
    assert round(7 * total, 1) == 70.2 and 7 * 8 == 56


def zero_one(parameters: float = 7e9, ranks: int = 64) -> float:
    """GB on each GPU: 16-bit weights and gradients whole, master weights and moments shared by all ranks."""
    largest = -(-int(parameters) // ranks)  # elements on the rank that holds most
    return (4 * parameters + 12 * largest) / GB


def checkpoint_bytes(parameters: float = 70e9) -> float:
    """GB of a checkpoint that resumes exactly: bf16 weights, masters and moments; the weights follow from the masters."""
    held = with_masters()
    saved = nbytes([*held.weights, *held.masters, *state_of(held.optimizer)]) / SIDE**2
    assert all(torch.equal(w, master.bfloat16()) for w, master in zip(held.weights, held.masters, strict=True))
    return parameters * saved / GB


def lora_shares() -> None:
    """LoRA of rank 16 on Llama 2 7B: 0.6% of the parameters, 13% of the bytes, and no fewer activations."""
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    full = 6_738_415_616
    assert adapters == 39_976_960 and round(100 * adapters / full, 1) == 0.6
    held = 2 * full + 16 * adapters
    assert round(held / GB, 1) == 14.1 and round(100 * held / (16 * full)) == 13


def mixture_bytes(layers: int = 32, experts: int = 8, inner: int = 14336) -> float:
    """GB of model states of a mixture of the width of Mixtral 8x7B at 16 bytes per parameter, from its shapes."""
    width = 4096
    attention = 2 * width * width + 2 * width * 1024
    layer = attention + experts * 3 * width * inner + experts * width + 2 * width
    parameters = 2 * 32000 * width + layers * layer + width
    active = parameters - layers * (experts - 2) * 3 * width * inner
    if (layers, experts, inner) == (32, 8, 14336):
        assert (round(parameters / 1e9, 1), round(active / 1e9, 1)) == (46.7, 12.9)
    return 16 * parameters / GB


def factored_bytes(rows: int = 4096, columns: int = 14336) -> float:
    """Bytes of torch.optim.Adafactor's state for a float32 matrix, its step count left out."""
    weight = nn.Parameter(torch.zeros(rows // 64, columns // 64))
    weight.grad = torch.ones_like(weight)
    stepper = torch.optim.Adafactor([weight])
    stepper.step()
    assert nbytes(state_of(stepper)) == 4 * sum(weight.shape)
    return float(64 * nbytes(state_of(stepper)))


def muon_state() -> None:
    """torch.optim.Muon keeps 4 bytes for a matrix.

    With AdamW for embedding and head a model keeps 5.3 (GPT-2 124M) or 4.5 (Llama 3 8B) on average, not 4.
    """
    weight = nn.Parameter(torch.eye(SIDE))
    weight.grad = torch.eye(SIDE)
    stepper = torch.optim.Muon([weight])
    stepper.step()
    assert nbytes(state_of(stepper)) == 4 * weight.numel()
    gpt2 = 12 * 12 * 768**2, 124_439_808
    llama = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336), 8_030_261_248
    kept = [4 + 4 * (1 - matrices / parameters) for matrices, parameters in (gpt2, llama)]
    assert [round(bytes_, 1) for bytes_ in kept] == [5.3, 4.5]


def one_card_plans() -> None:
    """6.5e9 parameters on 40 GB: 16 bytes need 104 GB, 6.15 bytes is what there is, and five ways below that."""
    parameters, card = 6.5e9, 40e9
    assert 16 * parameters == 104e9 and round(card / parameters, 2) == 6.15
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    plans = {
        "bf16 with 8-bit moments": 2 + 2 + 2,
        "offload of master weights and moments": 2 + 2,
        "bf16 with Adafactor": 2 + 2,
        "bf16, 8-bit moments, step in the backward pass": 2 + 2,
        "LoRA": 2 + 16 * adapters / parameters,
    }
    sizes = {name: round(parameters * held / GB, 1) for name, held in plans.items()}
    assert list(sizes.values()) == [39.0, 26.0, 26.0, 26.0, 13.6]
    assert held_by_torch(functools.partial(torch.optim.Adafactor, lr=1e-2), torch.bfloat16) < 4.1


def fewest_for_seventy_billion() -> None:
    """Llama 3 70B at 8,192 tokens: beside its states a GPU of 80 GB needs 19.2 GB and a reserve of 6, so 21 will do.

    ZeRO-1 and 2 leave too much on each; 8-bit moments take 16 GPUs, masters and moments in the host one node.
    """
    parameters = 2 * 128256 * 8192 + 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192) + 8192
    assert round(parameters / 1e9, 2) == 70.55 and round(16 * parameters / 1e12, 2) == 1.13
    assert [round(whole * parameters / GB) for whole in (4, 2)] == [282, 141]
    tokens = 8192
    block = (2 * (6 * 8192 + 2 * 1024 + 4 * 28672) + 4 * 64 + 8) * tokens
    besides = {
        "inputs of the blocks": 80 * 2 * tokens * 8192,
        "one block filled again": block,
        "loss, 1,024 tokens at a time": 12 * 1024 * 128256,
        "embedding gathered, and its gradient": 2 * 2 * 128256 * 8192,
    }
    assert [round(size / GB, 1) for size in besides.values()] == [10.7, 2.7, 1.6, 4.2]
    assert round(sum(besides.values()) / GB, 1) == 19.2
    room = 80e9 - 6e9 - sum(besides.values())

    def fit(held: float, ranks: int) -> bool:
        return held * parameters / ranks <= room

    assert round(room / GB) == 55 and fit(16, 21) and not fit(16, 20)
    assert round(16 * parameters / 24 / GB) == 47 and round((80e9 - room + 16 * parameters / 24) / GB) == 72
    small = 10 + 8 / 256
    assert fit(small, 16) and not fit(small, 8) and round(small * parameters / 16 / GB) == 44
    assert fit(4, 8) and round(4 * parameters / 8 / GB) == 35 and round(12 * parameters / GB) == 847
    assert round((80 * block + (2 * 2 * 8192 + 4 * 128256) * tokens) / GB) == 222
    years = 6 * parameters * 15e12 * 4 / 3 / (24 * 400e12) / (365 * 86400)
    assert round(years) == 28


def states_of_405b() -> None:
    """Llama 3.1 405B: 396 MB of states on each of 16,384 GPUs.

    A sequence of 8,192 tokens on each would be 134 million tokens a batch, where 16 million were wanted.
    """
    layer = 2 * 16384**2 + 2 * 16384 * 1024 + 3 * 16384 * 53248 + 2 * 16384
    parameters = 2 * 128256 * 16384 + 126 * layer + 16384
    assert round(parameters / 1e9, 1) == 405.9 and round(16 * parameters / 1e12, 2) == 6.49
    assert round(16 * parameters / 16384 / 1e6) == 396
    assert round(16384 * 8192 / 1e6) == 134 and round(16e6 / 8192, -2) == 2000
    assert round(126 * 2 * 8192 * 16384 / GB, 1) == 33.8 and round(2 * parameters / GB) == 812
    assert 128 * 16 * 8192 < 17e6
