"""Evidence for ``bank/sharding.yaml``. The ranks are simulated in one process: a list entry is a rank."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAMW, both_versions, normal, path_of

WEIGHTS, GRADIENTS, OPTIMIZER = 2, 2, 12
"""Bytes per parameter: bf16, bf16, and float32 master copy with two moments."""


class _Shard:
    """Adam, bias-corrected, on a part of the parameters: what one rank owns."""

    def __init__(self, weight: np.ndarray, m: np.ndarray | None = None, v: np.ndarray | None = None, t: int = 0):
        self.weight, self.t = weight.copy(), t
        self.m = np.zeros_like(weight) if m is None else m.copy()
        self.v = np.zeros_like(weight) if v is None else v.copy()

    def step(self, grad: np.ndarray, lr: float = 0.01) -> None:
        self.t += 1
        self.m += 0.1 * (grad - self.m)
        self.v += 0.05 * (grad**2 - self.v)
        self.weight -= lr * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.95**self.t)) + 1e-8)


class _Layers:
    """Layers x -> tanh(w * x), elementwise, and the loss sum(x**2) / 2 at the end; weights come from ``fetch``."""

    def __init__(self, count: int, fetch):
        self.count, self.fetch = count, fetch

    def gradients(self, data: np.ndarray) -> list[np.ndarray]:
        inputs = [data]
        for layer in range(self.count):
            inputs.append(np.tanh(self.fetch(layer) * inputs[-1]))
        upstream, grads = inputs[-1], [None] * self.count
        for layer in reversed(range(self.count)):
            upstream = upstream * (1 - inputs[layer + 1] ** 2)
            grads[layer] = (upstream * inputs[layer]).sum(0)
            upstream = upstream * self.fetch(layer)
        return grads


def one_parameter_under_fsdp() -> None:
    """Four ranks, three layers, five steps: fully sharded training takes the steps of plain data parallelism.

    Each layer is gathered twice a step and reduced once; a rank never holds more than one whole layer.
    """
    ranks, layers, width = 4, 3, 8
    start = 1 + 0.1 * normal(layers, width)
    data = normal(5 * ranks * 6, width, seed=1).reshape(5, ranks, 6, width)
    whole = [_Shard(row) for row in start]
    shards = [[_Shard(part) for part in np.split(row, ranks)] for row in start]
    gathered = []

    def fetch(layer: int) -> np.ndarray:
        gathered.append(layer)
        return np.concatenate([shard.weight for shard in shards[layer]])

    for batches in data:
        plain = [_Layers(layers, lambda layer: whole[layer].weight).gradients(batch) for batch in batches]
        gathered.clear()
        sharded = [_Layers(layers, fetch).gradients(batch) for batch in batches]
        assert all(gathered.count(layer) == 2 * ranks for layer in range(layers))
        for layer in range(layers):
            whole[layer].step(np.mean([grads[layer] for grads in plain], axis=0))
            mean = np.mean([grads[layer] for grads in sharded], axis=0)
            for shard, grad in zip(shards[layer], np.split(mean, ranks), strict=True):
                shard.step(grad)
    for layer in range(layers):
        np.testing.assert_allclose(fetch(layer), whole[layer].weight, rtol=0, atol=1e-14)
    assert np.abs(fetch(0) - start[0]).max() > 0.01


def _stage_bytes(order: str, stage: int, ranks: int) -> float:
    """Bytes per parameter and rank if stages divide, one after the other, the parts that ``order`` names."""
    sizes = {"o": OPTIMIZER, "g": GRADIENTS, "w": WEIGHTS}
    return sum(size / (ranks if part in order[:stage] else 1) for part, size in sizes.items())


def order_of_the_stages() -> None:
    """7B on 64 ranks: 29.3, 15.5, 1.75 GB; in the order of the list it would be 98.2, 84.4, 1.75 GB."""
    right, listed = ([round(7 * _stage_bytes(order, stage, 64), 2) for stage in (1, 2, 3)] for order in ("ogw", "wgo"))
    assert right == [29.31, 15.53, 1.75] and listed == [98.22, 84.44, 1.75]
    assert all(_stage_bytes("ogw", stage, 10**9) > limit for stage, limit in ((1, 4), (2, 2), (3, 0)))


def choice_of_a_stage() -> None:
    """13B on 8 GPUs: 208, 71.5, 48.75 and 26 GB in the stages 0 to 3; 7B in stage 1 38.5.

    A simulated rank that accumulates whole gradients and reduces them at the end has held all of them.
    """
    assert [13 * _stage_bytes("ogw", stage, 8) for stage in range(4)] == [208, 71.5, 48.75, 26]
    assert 7 * _stage_bytes("ogw", 1, 8) == 38.5
    ranks, held = 8, {}
    micro_batches = normal(4 * ranks, 64).reshape(4, ranks, 64)
    late = micro_batches.sum(0)
    held["at the end"] = late[0].size
    shares = np.zeros((ranks, 64 // ranks))
    for grads in micro_batches:
        shares += np.stack(np.split(grads.sum(0), ranks))
    held["every micro-batch"] = shares[0].size
    np.testing.assert_allclose(shares.ravel(), late.sum(0), rtol=0, atol=1e-12)
    assert held == {"at the end": 64, "every micro-batch": 8}


def largest_in_stage_one(card: int = 80, reserve: int = 20, ranks: int = 8) -> float:
    """Billions of parameters whose model states fit beside ``reserve`` GB on cards of ``card`` GB, in stage 1."""
    low, high = 0.0, 1e12
    for _ in range(80):
        middle = (low + high) / 2
        states = middle * (WEIGHTS + GRADIENTS) + middle / ranks * OPTIMIZER
        low, high = (middle, high) if states <= (card - reserve) * 1e9 else (low, middle)
    return low / 1e9


def _llama_tensors(vocabulary: int) -> list[int]:
    """Sizes of the tensors of Llama 3 8B, with another vocabulary if asked for."""
    block = [4096 * 4096, 1024 * 4096, 1024 * 4096, 4096 * 4096] + 3 * [14336 * 4096] + 2 * [4096]
    return 2 * [vocabulary * 4096] + 32 * block + [4096]


def busiest_owner(vocabulary: int = 128_256, ranks: int = 64) -> float:
    """GB of optimizer states on the busiest rank if tensors stay whole: the largest goes to the emptiest, in turn."""
    assert sum(_llama_tensors(128_256)) == 8_030_261_248
    loads = np.zeros(ranks)
    for size in sorted(_llama_tensors(vocabulary), reverse=True):
        loads[loads.argmin()] += size
    assert loads.max() >= max(vocabulary * 4096, sum(_llama_tensors(vocabulary)) / ranks)
    return float(loads.max() * OPTIMIZER / 1e9)


def grid_gigabytes(parameters: float = 70e9, tensor: int = 8, pipeline: int = 4, replicas: int = 2) -> float:
    """GB of model states on a GPU of a grid, with stage 1 over the replicas."""
    here = parameters / tensor / pipeline
    return float((here * (WEIGHTS + GRADIENTS) + here / replicas * OPTIMIZER) / 1e9)


def sent_between_nodes(parameters: float = 8e9, inside: int = 8, nodes: int = 16) -> float:
    """GB that a GPU sends to other nodes per step: a ring over the nodes adds up its share of the bf16 gradients."""
    share = parameters * GRADIENTS / inside
    assert np.isclose(3 * 2 * 8 * 15 / 16 / 8, 5.625) and round(8 * 5.625) == 45  # over all 128, per micro-batch
    reduce_scatter = sum(share / nodes for _ in range(nodes - 1))
    return float((reduce_scatter + reduce_scatter) / 1e9)


def tail_left_behind() -> None:
    """Equal shares rounded down miss up to ranks - 1 elements at the end; with 8 ranks and 4,096 elements none."""
    for ranks, length, lost in ((8, 4096, 0), (6, 4096, 4), (6, 4097, 5)):
        for name, shares in both_versions("sharding-last-elements", "shares").items():
            flat = torch.zeros(length)
            for share in shares(flat, ranks):
                share += 1
            assert (flat == 0).sum() == (lost if name == "code" else 0)
            assert name == "code" or len(shares(flat, ranks)) == ranks


def replicas_counted_again() -> None:
    """A sharded part of norm 3 and a replicated one of norm 4: 5 is right; counted on 8 ranks it is 11.7."""
    sharded, replicated = [torch.full((2,), 0.75, dtype=torch.float64)] * 8, [torch.full((4,), 2.0)] * 8
    ranks = [[(part, True), (copy.double(), False)] for part, copy in zip(sharded, replicated, strict=True)]
    norms = {name: norm(ranks).item() for name, norm in both_versions("sharding-counted-twice", "norm").items()}
    assert np.isclose(norms["fixed"], 5) and np.isclose(norms["code"], np.sqrt(9 + 8 * 16))
    assert round(norms["code"], 1) == 11.7


def _longest_step(stored: float, gradient: float, beta2: float, steps: int = 2000) -> float:
    """Longest step, in units of lr, of a tensor with steady gradients that got moments of another size."""
    m, v, longest = stored, stored**2, 0.0
    for _ in range(steps):
        m = 0.9 * m + 0.1 * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        longest = max(longest, m / v**0.5)
    return longest


def moments_of_other_tensors() -> None:
    """Six equal tensors, owned in turn by two ranks: resumed on three, four of them get the moments of another.

    Moments a hundred times too small: steps up to 6.6 lr with beta2 0.999; too large: 0.02 lr after 200 steps.
    """
    names = [f"blocks.{number}" for number in range(6)]
    files = [{"names": names[old::2], "states": [f"moments of {name}" for name in names[old::2]]} for old in range(2)]
    for kind, resume in both_versions("sharding-resumed-elsewhere", "resume").items():
        given = {name: state for rank in range(3) for name, state in resume(files, names, rank, 3).items()}
        assert sorted(given) == names and len(set(given.values())) == 6
        assert sum(state != f"moments of {name}" for name, state in given.items()) == (4 if kind == "code" else 0)
    assert round(_longest_step(0.01, 1.0, 0.999), 1) == 6.6 and round(_longest_step(0.01, 1.0, 0.95), 1) == 1.1
    m, v = 1.0, 1.0
    for step in range(200):
        m, v = 0.9 * m + 0.1 * 0.01, 0.999 * v + 0.001 * 0.01**2
        assert step or m / v**0.5 > 0.89
    assert 0.01 < m / v**0.5 < 0.02


def _lamb_direction(weight: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """The first step of LAMB, without decay: Adam's direction, at the length of the weight."""
    direction = np.sign(grad)
    return direction * np.sqrt(np.sum(weight**2) / np.sum(direction**2))


def only_elementwise_survives() -> None:
    """AdamW on two flat halves is AdamW on the whole. LAMB takes a step of another length in each half.

    torch's Adafactor stops factoring: a flat share has one dimension.
    """
    grads, start = normal(50, 12), normal(1, 12, seed=1)[0]
    whole = path_of(ADAMW, start, grads, lr=0.01)
    halves = [path_of(ADAMW, start[half], grads[:, half], lr=0.01) for half in (slice(0, 6), slice(6, 12))]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))
    weight, grad = np.r_[np.full(6, 1.0), np.full(6, 0.1)], grads[0]
    together = np.abs(_lamb_direction(weight, grad))
    apart = np.abs(np.r_[_lamb_direction(weight[:6], grad[:6]), _lamb_direction(weight[6:], grad[6:])])
    assert np.allclose(together, np.sqrt(0.505)) and np.allclose(apart, weight)
    state = {}
    for shape in ((64, 32), (2048,)):
        parameter = torch.nn.Parameter(torch.ones(shape))
        parameter.grad = torch.ones(shape)
        stepper = torch.optim.Adafactor([parameter])
        stepper.step()
        state[shape] = sum(t.numel() for t in stepper.state[parameter].values() if torch.is_tensor(t) and t.numel() > 1)
    assert state == {(64, 32): 96, (2048,): 2048}


def muon_needs_the_whole_matrix() -> None:
    """Orthogonalised in two halves of its rows, a matrix has singular values up to 1.4 instead of 1.

    The two ways out give the same update as one device; gathering costs 10 bytes where AdamW sends 8.
    """

    def orthogonal(matrix: np.ndarray) -> np.ndarray:
        u, _, vt = np.linalg.svd(matrix, full_matrices=False)
        return u @ vt

    matrix = normal(16, 16) + 3 * np.outer(np.ones(16), np.ones(16))
    apart = np.concatenate([orthogonal(half) for half in np.split(matrix, 2)])
    values = np.linalg.svd(apart, compute_uv=False)
    assert np.allclose(np.linalg.svd(orthogonal(matrix), compute_uv=False), 1)
    assert 1.35 < values.max() <= np.sqrt(2) + 1e-9 and values.min() < 0.5
    flat = np.split(matrix.ravel(), 4)
    gathered = orthogonal(np.concatenate(flat).reshape(16, 16))
    np.testing.assert_allclose(np.concatenate(np.split(gathered.ravel(), 4)), orthogonal(matrix).ravel(), atol=1e-12)
    assert (4 + 2 + 4) / (4 + 4) == 1.25


def seventy_billion_in_seconds() -> None:
    """70B on 64 GPUs, derived from 400 TFLOP/s, 450 GB/s within a node and 100 GB/s between nodes.

    A sequence of 8,192 tokens a GPU: ZeRO-3 sends for 4.2 s and computes for 8.7 s. Tensor parallelism over 8 GPUs
    sends for 0.17 s and computes for 1.1 s; its gradients and weights take 2.5 s a step.
    """
    parameters, tokens, speed, between, within = 70.6e9, 8192, 400e12, 100e9, 450e9
    compute = 6 * parameters * tokens / speed
    gathers = 3 * 2 * parameters * 63 / 64 / between  # each link of the ring carries it, also those between nodes
    assert round(compute, 1) == 8.7 and round(compute * 8 / 6, 1) == 11.6 and round(gathers, 1) == 4.2
    assert speed / between == 4000 and 4e6 / 8192 < 512
    activations = 4 * 80 * (2 * 7 / 8) * 8192 * tokens * 2 / within
    assert round(compute / 8, 1) == 1.1 and round(activations, 2) == 0.17
    assert 0.14 < activations / (compute / 8) < 0.17
    once = 2 * 7 / 8 * 2 * parameters / 8  # eight GPUs of a node share its network
    assert round(once / 1e9) == 31 and round(once / (between / 8), 1) == 2.5 and round(64 * compute / 8) == 69
    states = {"zero-3": 16 * parameters / 64, "tensor": parameters / 8 * (4 + 12 / 8)}
    assert round(states["zero-3"] / 1e9, 1) == 17.6 and 48 < states["tensor"] / 1e9 < 49
    assert round(3 / (64 + 3), 2) == 0.04  # bubble of 4 stages with 64 micro-batches


def resharding_is_exact() -> None:
    """Adam over 8 ranks, saved after 20 steps, goes on over 6 ranks and ends bit by bit where one device does.

    With the moments left out, the first step after the resume is sign descent; rounded masters move the weights.
    """
    length, grads = 50, normal(40, 50) * 0.1
    start = normal(1, length, seed=1)[0]
    alone = _Shard(start)
    for grad in grads:
        alone.step(grad)

    def parts(values: np.ndarray, ranks: int) -> list[np.ndarray]:
        size = -(-length // ranks)
        return [values[rank * size : (rank + 1) * size] for rank in range(ranks)]

    ranks = [_Shard(part) for part in parts(start, 8)]
    for grad in grads[:20]:
        for rank, part in zip(ranks, parts(grad, 8), strict=True):
            rank.step(part)
    weight, m, v = (np.concatenate([getattr(rank, name) for rank in ranks]) for name in ("weight", "m", "v"))
    resumed = [_Shard(*saved, t=20) for saved in zip(parts(weight, 6), parts(m, 6), parts(v, 6), strict=True)]
    for grad in grads[20:]:
        for rank, part in zip(resumed, parts(grad, 6), strict=True):
            rank.step(part)
    np.testing.assert_array_equal(np.concatenate([rank.weight for rank in resumed]), alone.weight)
    forgotten = _Shard(weight)
    forgotten.step(grads[20])
    assert np.allclose(np.abs(forgotten.weight - weight), 0.01, rtol=1e-4)
    kept = _Shard(weight, m, v, t=20)
    kept.step(grads[20])
    assert np.sqrt(np.mean((kept.weight - weight) ** 2)) < 0.005
    rounded = torch.tensor(weight).bfloat16().double().numpy()
    assert 1e-3 < np.max(np.abs(rounded / weight - 1)) < 2**-8


def tokens_that_hide_the_gathers() -> None:
    """Layer by layer, with the next layer's gather under this layer's compute: exposed below 8,000 tokens, not above.

    400 TFLOP/s over 50 GB/s; for 7 and for 70 billion parameters alike. Over 400 GB/s it is 1,000 tokens.
    """
    assert 400e12 / 50e9 == 8000 and 400e12 / 400e9 == 1000
    for parameters in (7e9, 70e9):
        for tokens, hidden in ((2000, False), (4000, False), (6000, False), (9000, True), (16000, True)):
            layers, speed, bandwidth = 100, 400e12, 50e9
            share = parameters / layers
            network = device = 0.0
            passes = [(2, 2)] * layers + [(2 + 2, 4)] * layers  # bytes to move, FLOPs per parameter and token
            for moved, flops in passes:
                network += share * moved / bandwidth
                device = max(device, network) + share * flops * tokens / speed
            compute = 6 * parameters * tokens / speed
            assert (device / compute < 1.02) == hidden
            assert np.isclose(max(1, 8000 / tokens), device / compute, rtol=0.03)


def slice_keeps_the_whole() -> None:
    """State of 4,096 weights on 8 ranks: elements and nbytes of an eighth, storage of all; a clone has an eighth."""
    flat = torch.zeros(4096)
    for name, make_state in both_versions("sharding-view-of-whole", "make_state").items():
        for tensor in make_state(flat, 3, 8).values():
            assert tensor.numel() == 512 and tensor.nbytes == 2048
            held = tensor.untyped_storage().nbytes()
            assert held == (4 * 4096 if name == "code" else 4 * 512)
            assert tensor.contiguous().untyped_storage().nbytes() == held
            assert tensor.clone().untyped_storage().nbytes() == 2048


def when_stage_two_is_free() -> None:
    """In numbers per parameter: 2 and 2; 8 and 6 bytes with float32 gradients; 2 and 9 with 8 micro-batches.

    DDP with broadcasts, and an all-reduce with a gather, are 3: counted for torch and DeepSpeed in notebook 15. Here the
    engines of the course are counted on two ranks.
    """
    from course_lib.parallel.data_parallel import DataParallel
    from course_lib.parallel.price import traffic_per_step
    from course_lib.parallel.threads import run_threads
    from course_lib.parallel.zero2 import Zero2

    def sent(stage: int, micro_batches: int = 1, gradient_width: int = 1) -> float:
        traffic = traffic_per_step(stage, 1024, 1, 1024, micro_batches, gradient_width=gradient_width)
        return round(traffic.total / 1023, 6)

    assert [sent(stage) for stage in (0, 1, 2)] == [2, 2, 2]
    assert [sent(stage, 8) for stage in (0, 1, 2)] == [2, 2, 9]
    traffic = [traffic_per_step(stage, 1024, 2, 1024, gradient_width=4).total / 1023 for stage in (0, 1, 2)]
    assert np.allclose(traffic, [8, 6, 6])
    units = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}

    def count(comm, engine):
        trained = engine(torch.nn.Linear(8, 8, bias=False), comm, "adamw", lr=1e-3)
        comm.calls.clear()
        for _ in range(8):
            trained.model(torch.ones(1, 8)).sum().backward()
        trained.step()
        return sum(units[name] * size for name, size in comm.calls) / 256

    assert run_threads(count, 2, Zero2) == [9, 9]
    assert run_threads(count, 2, DataParallel) == [16, 16]  # without no_sync it reduces every micro-batch, too


def who_is_missing() -> None:
    """Rank 2 of 4 leaves a reduction out: three wait, and the first call that differs in their logs is its own."""
    from course_lib.parallel.threads import RanksDisagree, run_threads

    logs: dict[int, list[str]] = {rank: [] for rank in range(4)}

    def train(comm) -> None:
        for step in range(3):
            calls = ["all_reduce", "all_gather"]
            if comm.rank == 2 and step == 1:
                calls.remove("all_reduce")  # a branch that one rank does not take
            for name in calls:
                logs[comm.rank].append(name)
                getattr(comm, name)(torch.ones(4))

    try:
        run_threads(train, 4)
    except RanksDisagree as error:
        said = str(error)
    assert "rank 2 calls all_gather" in said and "rank 0 calls all_reduce" in said
    at = next(k for k, names in enumerate(zip(*logs.values(), strict=False)) if len(set(names)) > 1)
    names = [log[at] for log in logs.values()]
    assert at == 2 and [rank for rank, name in enumerate(names) if names.count(name) == 1] == [2]
