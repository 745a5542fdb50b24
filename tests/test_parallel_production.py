"""The production engines on two real ranks, against one process and against arithmetic by hand."""

from __future__ import annotations

import importlib.util
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.parallel.comm import Comm
from course_lib.parallel.launch import launch
from course_lib.parallel.production import FSDP2, DeepSpeedEngine, TorchDDP, TorchZero
from course_lib.parallel.threads import run_threads
from course_lib.parallel.traffic import Traffic, sent_bytes

RANKS, STEPS, MAX_NORM = 2, 5, 0.5
HYPER = {"lr": 1e-3, "weight_decay": 0.1}
TORCH = {
    "ddp": partial(TorchDDP, unit_bytes=300),
    "zero": TorchZero,
    "fsdp2": FSDP2,
    "fsdp2, resharded": partial(FSDP2, reshard_after_forward=True),
    "fsdp2, kept": partial(FSDP2, reshard_after_forward=False),
    "fsdp2, mixed": partial(FSDP2, precision="mixed-bf16"),
}
DEEPSPEED = {f"stage {stage}": partial(DeepSpeedEngine, stage=stage) for stage in (1, 2, 3)}


class Model(nn.Module):
    """Odd sizes, a tied head and a frozen tensor. Weights depend on ``seed`` alone."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(7), requires_grad=False)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for param in filter(lambda param: param.requires_grad, self.parameters()):
                param.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(param.shape))))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x) * self.scale[0]


# By hand: 11 x 6 embedding, three blocks of 6 x 6 and 6, a bias of 11; frozen, 7.
BLOCK, ROOT, FROZEN = [(6, 6), (6,)], [(11, 6), (11,)], [(7,)]
TRAINED = 3 * 42 + 66 + 11
TENSORS = 8


def padded(shapes, ranks=RANKS):
    """Bytes of one rank's rows, each tensor cut along its first dimension and padded."""
    return sum(4 * math.ceil(shape[0] / ranks) * math.prod(shape[1:]) for shape in shapes)


def batch(step):
    rng = np.random.default_rng(100 + step)
    return torch.from_numpy(rng.integers(0, 11, 8)), torch.from_numpy(rng.integers(0, 11, 8))


def loss_of(model, tokens, targets):
    return nn.functional.cross_entropy(model(tokens).float(), targets)


def train(comm, engines, seed_of_rank):
    """Train each engine on this rank's half of the batches; what it came to, as plain numbers and arrays."""
    found = {}
    for name, make in engines.items():
        engine = make(Model(seed_of_rank * comm.rank), comm, **HYPER)
        part = slice(8 // comm.ranks * comm.rank, 8 // comm.ranks * (comm.rank + 1))
        norms = []
        for step in range(STEPS):
            tokens, targets = batch(step)
            with Traffic() as traffic:
                loss_of(engine.model, tokens[part], targets[part]).backward()
                if step == STEPS - 1:
                    held = engine.held_bytes()
            with Traffic() as clipping:
                norms.append(float(engine.clip_grad_norm_(MAX_NORM)))
            with traffic:
                engine.step()
            engine.zero_grad()
        found[name] = {
            "weights": {key: weight.float().numpy() for key, weight in engine.full_weights().items()},
            "norms": norms,
            "held": held,
            "summary": traffic.summary(),
            "sent": sent_bytes(traffic.data),
            "clipping": clipping.summary(),
        }
    return found


@pytest.fixture(scope="module")
def alone():
    """The same steps in one process, on whole batches, with torch's AdamW: weights and norms."""
    model = Model()
    optimizer = torch.optim.AdamW([param for param in model.parameters() if param.requires_grad], **HYPER)
    norms = []
    for step in range(STEPS):
        loss_of(model, *batch(step)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)))
        optimizer.step()
        optimizer.zero_grad()
    assert min(norms) > MAX_NORM  # the clipping did something
    return {name: param.detach().numpy() for name, param in model.named_parameters()}, norms


@pytest.fixture(scope="module")
def trained():
    # Each rank begins with weights of its own: those of rank 0 must win.
    return launch(train, RANKS, TORCH, 1, timeout=180.0)


@pytest.mark.parametrize("name", [name for name in TORCH if "mixed" not in name])
def test_weights_are_those_of_one_process(trained, alone, name):
    weights, norms = alone
    for mine in trained:
        assert mine[name]["weights"].keys() == weights.keys()
        for key, weight in weights.items():
            np.testing.assert_allclose(mine[name]["weights"][key], weight, rtol=0, atol=1e-6, err_msg=key)
        np.testing.assert_allclose(mine[name]["norms"], norms, rtol=1e-5)


def test_mixed_precision_is_near_and_alike_on_all_ranks(trained, alone):
    weights, _ = alone
    first, second = (mine["fsdp2, mixed"] for mine in trained)
    assert first["norms"] == second["norms"]
    for key, weight in weights.items():
        np.testing.assert_array_equal(first["weights"][key], second["weights"][key])
        # No step of AdamW is longer than lr by much.
        np.testing.assert_allclose(first["weights"][key], weight, rtol=0, atol=2 * STEPS * 1e-3)


def test_ddp_holds_everything(trained):
    for mine in trained:
        assert mine["ddp"]["held"] == {
            "parameters": 4 * (TRAINED + 7),
            "gradients": 4 * TRAINED,
            "optimizer": 8 * TRAINED + 4 * TENSORS,
        }


def test_zero_redundancy_shares_whole_tensors(trained):
    """Largest first, each to the rank that has least: 66 and 36 | 36, 36 and 11, then 6, 6 and 6."""
    loads, counts = [0, 0], [0, 0]
    for size in sorted([66, 36, 36, 36, 11, 6, 6, 6], reverse=True):
        owner = loads.index(min(loads))
        loads[owner] += size
        counts[owner] += 1
    assert sorted(loads) == [101, 102]
    for rank, mine in enumerate(trained):
        assert mine["zero"]["held"] == {
            "parameters": 4 * (TRAINED + 7),
            "gradients": 4 * TRAINED,
            "optimizer": 8 * loads[rank] + 4 * counts[rank],
        }
        assert mine["zero"]["sent"] == 4 * TRAINED + 4 * loads[rank]
        assert mine["zero"]["summary"]["broadcast"] == (TENSORS, 4 * TRAINED)


@pytest.mark.parametrize("name", [name for name in TORCH if "fsdp2" in name])
def test_fsdp2_holds_rows(trained, name):
    rows = [6, 5]  # of the 11: the second rank has a row less to update, and a row of padding
    for rank, mine in enumerate(trained):
        sharded = padded(3 * BLOCK + ROOT)
        own = 3 * (3 * 6 + 3) + rows[rank] * 6 + rows[rank]
        assert mine[name]["held"] == {
            "parameters": sharded + padded(FROZEN),
            "gradients": sharded,
            "optimizer": 8 * own + 4 * TENSORS,
        }


def test_ddp_sends_twice_the_gradient(trained):
    for mine in trained:
        assert mine["ddp"]["summary"]["all_reduce"][1] == 4 * TRAINED
        assert mine["ddp"]["summary"]["all_reduce"][0] > 1  # buckets
        assert mine["ddp"]["sent"] == 2 * 4 * TRAINED / 2
        assert mine["ddp"]["clipping"] == {}


@pytest.mark.parametrize("name, gathers_of_blocks, gathers_of_root", [
    ("fsdp2", 2, 1),
    ("fsdp2, resharded", 2, 2),
    ("fsdp2, kept", 1, 1),
])
def test_fsdp2_gathers_again_what_it_has_freed(trained, name, gathers_of_blocks, gathers_of_root):
    blocks, root = RANKS * padded(3 * BLOCK), RANKS * padded(ROOT)
    frozen = RANKS * padded(FROZEN)  # gathered with the root, and without a gradient
    gathered = gathers_of_blocks * blocks + gathers_of_root * (root + frozen)
    for mine in trained:
        assert mine[name]["summary"] == {
            "all_gather": (3 * gathers_of_blocks + gathers_of_root, gathered),
            "reduce_scatter": (4, blocks + root),
        }
        assert mine[name]["sent"] == (gathered + blocks + root) / 2
        assert mine[name]["clipping"] == {"all_reduce": (1, 4 * TENSORS)}  # a norm for each tensor, in one call


def test_mixed_precision_sends_half(trained):
    for mine in trained:
        assert 2 * mine["fsdp2, mixed"]["sent"] == mine["fsdp2"]["sent"]


# --- Bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [TorchDDP, TorchZero, FSDP2])
def test_ranks_with_different_models_are_told(engine):
    def build(comm):
        engine(nn.Sequential(nn.Linear(3, 3 + comm.rank)), comm, lr=1e-3)

    told = r"parameter 0.weight is \(3, 3\) float32 on rank 0 and \(4, 3\) float32 on rank 1"
    with pytest.raises(RuntimeError, match=told):
        run_threads(build, 2)


@pytest.mark.parametrize("engine", [TorchDDP, TorchZero, FSDP2])
def test_a_frozen_model_is_refused(engine):
    with pytest.raises(ValueError, match="nothing to train"):
        engine(nn.Linear(2, 2).requires_grad_(False), Comm(0, 1), lr=1e-3)


def test_more_ranks_than_tensors():
    with pytest.raises(ValueError, match="3 ranks cannot share 2"):
        TorchZero(nn.Linear(2, 2), Comm(0, 3), lr=1e-3)


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="'fp16'. Allowed: fp32, mixed-bf16"):
        FSDP2(nn.Linear(2, 2), Comm(0, 1), precision="fp16", lr=1e-3)


@pytest.mark.parametrize("setting, stage, precision", [("stage: 0", 0, "fp32"), ("precision: 'x'", 1, "x")])
def test_settings_that_deepspeed_does_not_have(setting, stage, precision):
    with pytest.raises(ValueError, match=f"Invalid {setting}"):
        DeepSpeedEngine(nn.Linear(2, 2), Comm(0, 1), stage=stage, precision=precision)


# --- DeepSpeed, where it is installed ------------------------------------------------------------------------------

INSTALLED = importlib.util.find_spec("deepspeed") is not None


@pytest.mark.skipif(INSTALLED, reason="DeepSpeed is installed")
def test_without_deepspeed_one_is_told_how_to_get_it():
    def build(comm):
        DeepSpeedEngine(nn.Linear(2, 2), comm, stage=1)

    with pytest.raises(ImportError, match=r"pip install -c constraints.txt -e '.\[deepspeed\]'"):
        run_threads(build, 1)


@pytest.mark.skipif(not INSTALLED, reason="needs the extra deepspeed")
def test_deepspeed_trains_the_same_weights(alone):
    weights, norms = alone
    for mine in launch(train, RANKS, DEEPSPEED, 1, timeout=180.0):
        for name, found in mine.items():
            for key, weight in weights.items():
                np.testing.assert_allclose(found["weights"][key], weight, rtol=0, atol=1e-6, err_msg=f"{name}, {key}")
            np.testing.assert_allclose(found["norms"], norms, rtol=1e-5)
            # Its own copy of the weights, and two moments, of at least half of the elements.
            assert 12 * TRAINED / 2 <= found["held"]["optimizer"] < 12 * TRAINED / 2 + 64
        # The step takes the norm anew: one number of 4 bytes, or 8 in stage 3. 203 elements are padded to 204.
        for stage in ("stage 1", "stage 2"):
            assert mine[stage]["summary"] == {"all_reduce": (2, 4 * TRAINED + 4), "all_gather": (1, 4 * 204)}
        # The blocks, the bias of 11 and the frozen 7, padded, and the tied matrix where it begins and where it ends.
        gathered = 2 * 4 * (3 * 42 + 12 + 8 + 2 * 66)
        assert mine["stage 3"]["summary"] == {
            "all_gather": (2 * (3 + 3), gathered), "reduce_scatter": (1, 4 * 204), "all_reduce": (1, 8),
        }
