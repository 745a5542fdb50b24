"""The stages of ZeRO against training in one process, on ranks that are threads."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from course_lib.memory.predict import predict
from course_lib.optim import REGISTRY
from course_lib.parallel.base import elementwise
from course_lib.parallel.clip import clip_shares_
from course_lib.parallel.data_parallel import DataParallel
from course_lib.parallel.layout import Unit, blocks_of, by_size
from course_lib.parallel.threads import run_threads
from course_lib.parallel.zero1 import Zero1
from course_lib.parallel.zero2 import Zero2
from course_lib.parallel.zero3 import Zero3
from course_lib.precision.master import MasterWeights
from course_lib.problems.lm import ByteLM, LMConfig, next_byte_loss

STAGES = (DataParallel, Zero1, Zero2, Zero3)
ODD = 12  # sequences in a batch: 1, 2, 3 and 4 ranks share them evenly


def draw(model):
    """Set all weights, alike on every thread: torch's own generator is shared by them."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(param.shape))))


class Odd(nn.Module):
    """Sizes that no number of ranks divides, a tied weight, a frozen one and a scalar; two blocks."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.embed = nn.Linear(5, 7, bias=False)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 7)) for _ in range(2))
        self.frozen = nn.Linear(7, 7)
        self.head = nn.Linear(7, 5, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))
        self.to(dtype)
        draw(self)
        self.head.weight = nn.Parameter(self.embed.weight.detach().T.clone())
        self.tied = nn.Linear(7, 5, bias=False)
        self.tied.weight = self.head.weight
        self.frozen.requires_grad_(False)
        self.recompute = False

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.recompute else block(x))
        x = self.frozen(x)
        return self.scale.exp() * self.head(x) + self.tied(x.tanh())


def batches(steps, dtype=torch.float64, seed=1):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(2, ODD, 5))).to(dtype) for _ in range(steps)]


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def part_of(batch, comm):
    size = ODD // comm.ranks
    return batch[:, comm.rank * size : (comm.rank + 1) * size]


def alone(make, steps, clip=None, dtype=torch.float64, **hyper):
    """Weights after training in one process on whole batches."""
    model = Odd(dtype)
    optimizer = make([param for param in model.parameters() if param.requires_grad], **hyper)
    for batch in batches(steps, dtype):
        optimizer.zero_grad()
        squared(model, batch).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if hasattr(optimizer, "update_hessian"):
            optimizer.update_hessian(batch_size=ODD)
        optimizer.step()
    return dict(model.named_parameters())


def sharded(comm, stage, key, steps, clip=None, dtype=torch.float64, unit_bytes=400, **hyper):
    """The same on this rank's part of each batch: weights, and what the rank held before the last step."""
    engine = stage(Odd(dtype), comm, key, unit_bytes=unit_bytes, **hyper)
    for batch in batches(steps, dtype):
        engine.zero_grad()
        squared(engine.model, part_of(batch, comm)).backward()
        held = engine.held_bytes()
        if clip:
            engine.clip_grad_norm_(clip)
        if hasattr(engine.optimizer, "update_hessian"):
            engine.assign_gradients()
            engine.optimizer.update_hessian(batch_size=ODD)
        engine.step()
    return engine.full_weights(), held


def farthest(found, wanted):
    return max(float((found[name] - wanted[name].detach()).abs().max()) for name in wanted)


# --- Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("stage", STAGES)
def test_fifty_steps_end_where_one_process_ends(stage, ranks):
    wanted = alone(REGISTRY["adamw"].make, 50, clip=0.3, lr=1e-2, weight_decay=0.1)
    settings = {"clip": 0.3, "lr": 1e-2, "weight_decay": 0.1}
    for weights, _ in run_threads(lambda comm: sharded(comm, stage, "adamw", 50, **settings), ranks):
        assert farthest(weights, wanted) < 1e-10


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("stage", STAGES)
def test_fifty_steps_in_float32_end_within_a_millionth(stage, ranks):
    # eps far above the rounding of gradients: else an element whose gradient cancels moves by the sign of the rounding.
    settings = {"dtype": torch.float32, "lr": 1e-2, "eps": 1e-3}
    wanted = alone(torch.optim.AdamW, 50, **settings)
    for weights, _ in run_threads(lambda comm: sharded(comm, stage, "adamw", 50, **settings), ranks):
        assert farthest(weights, wanted) < 1e-6


@pytest.mark.parametrize("key", elementwise())
def test_every_elementwise_optimizer_can_be_sharded(key):
    """3 ranks and slices that end inside tensors."""
    wanted = alone(REGISTRY[key].make, 12, lr=1e-2)
    for stage in (Zero1, Zero3):
        for weights, _ in run_threads(lambda comm, stage=stage: sharded(comm, stage, key, 12, lr=1e-2), 3):
            assert farthest(weights, wanted) < 1e-10


def test_mixed_precision_is_bit_for_bit_that_of_whole_master_weights():
    """The mean of two ranks' bf16 gradients, rounded as the collective rounds it, given to MasterWeights."""
    model = Odd(torch.float32).to(torch.bfloat16)
    trained = [param for param in model.parameters() if param.requires_grad]
    whole = MasterWeights(trained, lambda masters: REGISTRY["adamw"].make(masters, lr=1e-2))
    originals = [p for p in Odd(torch.float32).parameters() if p.requires_grad]
    for master, original in zip(whole.masters, originals, strict=True):
        master.data.copy_(original)
    for batch in batches(6, torch.bfloat16):
        halves = []
        for half in batch.chunk(2, dim=1):
            model.zero_grad()
            squared(model, half).backward()
            halves.append([p.grad for p in whole.weights])
        for weight, first, second in zip(whole.weights, *halves, strict=True):
            weight.grad = (first + second) / 2
        whole.step()
    wanted = dict(model.named_parameters())

    def mixed(comm, stage):
        engine = stage(Odd(torch.float32), comm, "adamw", precision="mixed-bf16", lr=1e-2)
        for batch in batches(6, torch.bfloat16):
            engine.zero_grad()
            squared(engine.model, part_of(batch, comm)).backward()
            engine.step()
        return engine.full_weights()

    for stage in STAGES:
        for weights in run_threads(mixed, 2, stage):
            assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_groups_keep_their_settings_wherever_slices_cut():
    def of(model):
        return [{"params": list(model.blocks.parameters()), "weight_decay": 0.5},
                {"params": [model.embed.weight, model.head.weight, model.scale], "lr": 1e-3}]

    model = Odd()
    optimizer = torch.optim.AdamW(of(model), lr=1e-2, weight_decay=0.0)
    for batch in batches(5):
        optimizer.zero_grad()
        squared(model, batch).backward()
        optimizer.step()

    def grouped(comm, stage):
        mine = Odd()
        engine = stage(mine, comm, "adamw", groups=of(mine), lr=1e-2, weight_decay=0.0)
        for batch in batches(5):
            engine.zero_grad()
            squared(engine.model, part_of(batch, comm)).backward()
            engine.step()
        return engine.full_weights()

    for stage in STAGES:
        for weights in run_threads(grouped, 4, stage):
            assert farthest(weights, dict(model.named_parameters())) < 1e-10


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_add_up(stage):
    """Three micro-batches a step; data parallelism reduces once."""

    def accumulated(comm):
        engine = stage(Odd(), comm, "momentum", lr=1e-2)
        for batch in batches(4):
            engine.zero_grad()
            for index, micro in enumerate(part_of(batch, comm).chunk(3, dim=1)):
                loss = squared(engine.model, micro) / 3
                if stage is DataParallel and index < 2:
                    with engine.no_sync():
                        loss.backward()
                else:
                    loss.backward()
            engine.step()
        return engine.full_weights(), Counter(name for name, _ in comm.calls)

    wanted = alone(REGISTRY["momentum"].make, 4, lr=1e-2)
    for weights, calls in run_threads(accumulated, 2):
        assert farthest(weights, wanted) < 1e-12
        assert calls["reduce_scatter"] == {DataParallel: 0, Zero1: 4, Zero2: 12, Zero3: 3 * 4 * 3}[stage]
        assert calls["all_reduce"] == (4 if stage is DataParallel else 0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_missing_on_one_rank_counts_as_zero(stage):
    """Rank 1 has a gradient for one scalar alone, and everybody's steps agree."""

    def one_short(comm):
        model = Odd()
        engine = stage(model, comm, "sgd", lr=0.1, unit_bytes=400)
        for batch in batches(3):
            engine.zero_grad()
            loss = squared(engine.model, part_of(batch, comm))
            if comm.rank == 1:
                loss = 0 * loss if stage is Zero3 else model.scale.square()  # Zero3's ranks must run the same blocks
            loss.backward()
            engine.step()
        return engine.full_weights()

    first, second = run_threads(one_short, 2)
    assert farthest(first, second) == 0
    model = Odd()
    for batch in batches(3):
        model.zero_grad()
        loss = squared(model, batch[:, :6]) / 2
        if stage is not Zero3:
            loss = loss + model.scale.square() / 2
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                if param.grad is not None:
                    param -= 0.1 * param.grad
    assert farthest(first, dict(model.named_parameters())) < 1e-12


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_add_up_until_they_are_forgotten_and_are_used_once(stage):
    """As in torch: a second backward pass adds, a step without one repeats the update, after zero_grad none is made."""

    def wander(comm):
        engine = stage(Odd(), comm, "sgd", lr=0.1)
        first, second = (part_of(batch, comm) for batch in batches(2))
        engine.step()  # there is no gradient yet
        squared(engine.model, first).backward()
        engine.clip_grad_norm_(float("inf"))
        squared(engine.model, second).backward()
        engine.step()
        engine.step()
        engine.zero_grad()
        engine.step()
        return engine.full_weights()

    model = Odd()
    optimizer = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.1)
    for batch in batches(2):
        squared(model, batch).backward()
    optimizer.step()
    optimizer.step()
    for weights in run_threads(wander, 2):
        assert farthest(weights, dict(model.named_parameters())) < 1e-12


@pytest.mark.parametrize("stage", STAGES)
def test_a_graph_from_before_the_step_is_refused(stage):
    def late(comm):
        engine = stage(Odd(), comm, "sgd", lr=0.1)
        loss = squared(engine.model, part_of(batches(1)[0], comm))
        loss.backward(retain_graph=True)
        engine.step()
        loss.backward()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        run_threads(late, 1)


# --- Bytes -------------------------------------------------------------------------------------------------------------

EVEN = LMConfig(layers=2, width=16, heads=2, context=16)  # 4 divides the elements of every unit


def one_step(comm, stage, key, precision, config=EVEN):
    model = ByteLM(config)
    engine = stage(model, comm, key, precision=precision, unit_bytes=20_000, lr=1e-3)
    tokens = torch.from_numpy(np.random.default_rng(comm.rank).integers(0, 256, (2, 17)))
    for _ in range(2):
        engine.zero_grad()
        next_byte_loss(engine.model, (tokens[:, :-1], tokens[:, 1:])).backward()
        held = engine.held_bytes()
        engine.step()
    return held


@pytest.mark.parametrize("precision", ["fp32", "mixed-bf16"])
@pytest.mark.parametrize("key", ["adamw", "momentum", "sgd", "ademamix"])
def test_bytes_per_rank_are_those_predicted(precision, key):
    elements = sum(param.numel() for param in ByteLM(EVEN).parameters())
    for ranks in (1, 2, 4):
        for stage in STAGES:
            sharded_by = {"zero": stage.stage, "gpus": ranks} if ranks > 1 else {}
            if precision == "fp32" or key == "adamw":
                wanted = predict(elements, optimizer=key, precision=precision, **sharded_by)
                wanted = {"parameters": wanted.parameters, "gradients": wanted.gradients, "optimizer": wanted.optimizer}
            else:  # 2 bytes, 2 bytes, and a float32 master beside the float32 state
                state = REGISTRY[key].state_tensors
                sizes = {"parameters": (2, 3), "gradients": (2, 2), "optimizer": (4 + 4 * state, 1)}
                wanted = {part: size * elements // (ranks if stage.stage >= first else 1)
                          for part, (size, first) in sizes.items()}
            for held in run_threads(one_step, ranks, stage, key, precision):
                assert held == wanted, (stage.__name__, ranks)


def test_padding_costs_less_than_a_rank_for_each_unit():
    """Of the odd model in float64: weights and gradients come in equal padded slices, the state without padding."""
    trained = 2 * (7 * 11 + 11 + 11 * 7 + 7) + 35 + 35 + 1
    frozen = 56
    for ranks in (1, 2, 3, 4):
        results = run_threads(lambda comm: sharded(comm, Zero3, "adamw", 2, lr=1e-2)[1], ranks)
        assert sum(held["optimizer"] for held in results) == 2 * 8 * trained
        units = [2 * (7 * 11) + 11 + 7, 2 * (7 * 11) + 11 + 7, 71, frozen]
        shares = [-(-unit // ranks) for unit in units]
        for held in results:
            assert held["parameters"] == 8 * sum(shares)
            assert held["gradients"] == 8 * sum(shares[:3])


def test_zero3_never_holds_two_blocks():
    """Whole weights are there for one block and for what is outside the blocks, in both passes."""

    def seen(comm):
        model = ByteLM(LMConfig(layers=4, width=16, heads=2, context=16))
        engine = Zero3(model, comm, "adamw", lr=1e-3)
        whole = []

        def look(*_):
            whole.append(sorted(unit.elements for unit in engine.units if unit.flat.untyped_storage().nbytes()))

        for block in model.blocks:
            block.mlp_in.register_forward_hook(look)
            block.mlp_in.weight.register_hook(look)
        tokens = torch.zeros(1, 8, dtype=torch.int64)
        engine.model(tokens).sum().backward()
        look()
        return whole

    block, rest = 12 * 16**2 + 13 * 16, (2 * 256 + 16) * 16 + 2 * 16
    for whole in run_threads(seen, 2):
        assert whole == [[block, rest]] * 8 + [[]]


class Adapted(nn.Module):
    """A frozen base of blocks, each with a small trained part; blocks run in the reverse of their order."""

    def __init__(self):
        super().__init__()
        frozen = [nn.Linear(32, 32).requires_grad_(False) for _ in range(6)]
        self.blocks = nn.ModuleList(nn.Sequential(one, nn.Linear(32, 32, bias=False)) for one in frozen)

    def forward(self, x):
        for block in reversed(self.blocks):
            x = x + block(x)
        return x


def test_zero3_frees_frozen_blocks_and_blocks_in_another_order():
    def most(comm):
        engine = Zero3(Adapted(), comm, "adamw", lr=1e-3)
        whole = []
        for block in engine.model.blocks:
            block[1].weight.register_hook(lambda _: whole.append(
                sum(unit.flat.untyped_storage().nbytes() > 0 for unit in engine.units)))
        engine.model(torch.ones(2, 32, requires_grad=True)).sum().backward()
        return max(whole), sum(unit.flat.untyped_storage().nbytes() for unit in engine.units)

    assert run_threads(most, 2) == [(2, 0)] * 2  # of a block, the frozen unit and the trained one


class Skipping(nn.Module):
    """The second block returns its input as it is, the model the output of the third."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))
        draw(self)
        self.blocks[1].forward = lambda x: x

    def forward(self, x):
        for block in self.blocks:
            x = block(x.tanh()) if block is not self.blocks[1] else block(x)
        return x


def test_zero3_keeps_what_blocks_with_one_output_need():
    def gradients(comm):
        engine = Zero3(Skipping(), comm, "sgd", lr=1.0)
        engine.model(torch.ones(2, 4)).square().sum().backward()
        before = engine.full_weights()
        engine.step()
        after = engine.full_weights()
        return [before[name] - after[name] for name in before]

    model = Skipping()
    model(torch.ones(2, 4)).square().sum().backward()
    for moved in run_threads(gradients, 2):
        for way, param in zip(moved, model.parameters(), strict=True):
            torch.testing.assert_close(way, torch.zeros(4, 4) if param.grad is None else param.grad)


class Shared(nn.Module):
    """Lists within lists, and a weight that two blocks share."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]) for _ in range(2))
        draw(self)
        self.layers[1][1].weight = self.layers[0][0].weight

    def forward(self, x):
        for first, second in self.layers:
            x = second(first(x).tanh())
        return x


def test_zero3_gathers_nested_lists_and_weights_that_blocks_share():
    def trained(comm):
        engine = Zero3(Shared().double(), comm, "sgd", lr=0.1)
        for _ in range(2):
            engine.zero_grad()
            engine.model(torch.ones(1, 4, dtype=torch.float64)).square().sum().backward()
            engine.step()
        return engine.full_weights()

    model = Shared().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    for weights in run_threads(trained, 2):
        assert farthest(weights, dict(model.named_parameters())) < 1e-12


def test_zero3_after_a_forward_pass_that_failed_uses_the_new_weights():
    def run(comm):
        engine = Zero3(Odd(), comm, "sgd", lr=0.1)
        batch = part_of(batches(1)[0], comm)
        squared(engine.model, batch).backward()
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            engine.model(torch.ones(2, 3, dtype=torch.float64))
        engine.step()
        return squared(engine.model, batch).item()

    model = Odd()
    optimizer = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.1)
    squared(model, batches(1)[0]).backward()
    optimizer.step()
    losses = run_threads(run, 2)
    assert abs(sum(losses) / 2 - squared(model, batches(1)[0]).item()) < 1e-12


def test_weights_that_are_not_gathered_read_as_nan():
    def look(comm):
        engine = Zero3(Odd(), comm, "sgd", lr=0.1)
        assert all(param.isnan().all() for param in engine.model.parameters())
        return not any(weight.isnan().any() for weight in engine.full_weights().values())

    assert run_threads(look, 2) == [True, True]


@pytest.mark.parametrize("recompute", [False, True])
def test_zero3_survives_recomputation_evaluation_and_a_failed_step(recompute):
    def run(comm):
        model = Odd()
        model.recompute = recompute
        engine = Zero3(model, comm, "adamw", lr=1e-2)
        for index, batch in enumerate(batches(3)):
            with torch.no_grad():
                squared(engine.model, part_of(batch, comm))
            if index == 1:
                loss = squared(engine.model, part_of(batch, comm))
                loss.register_hook(lambda _: (_ for _ in ()).throw(ValueError("half-way")))
                with pytest.raises(ValueError, match="half-way"):
                    loss.backward()
            engine.zero_grad()
            squared(engine.model, part_of(batch, comm)).backward()
            engine.step()
        return engine.full_weights()

    wanted = alone(REGISTRY["adamw"].make, 3, lr=1e-2)
    for weights in run_threads(run, 2):
        assert farthest(weights, wanted) < 1e-12


# --- Traffic -----------------------------------------------------------------------------------------------------------


def test_calls_add_up_to_two_two_two_and_three_times_the_parameters():
    elements = sum(param.numel() for param in ByteLM(EVEN).parameters())

    def calls(comm, stage):
        model = ByteLM(EVEN)
        engine = stage(model, comm, "adamw", unit_bytes=20_000, lr=1e-3)
        tokens = torch.zeros(2, 8, dtype=torch.int64)
        comm.calls.clear()
        next_byte_loss(engine.model, (tokens, tokens)).backward()
        engine.step()
        found = Counter()
        for name, size in comm.calls:
            found[name] += size
        return found

    whole = 4 * elements
    wanted = {
        DataParallel: {"all_reduce": whole},
        Zero1: {"reduce_scatter": whole, "all_gather": whole},
        Zero2: {"reduce_scatter": whole, "all_gather": whole},
        Zero3: {"reduce_scatter": whole, "all_gather": 2 * whole},
    }
    for stage in STAGES:
        assert run_threads(calls, 2, stage) == [wanted[stage]] * 2


def test_clipping_a_sharded_gradient_sends_one_number():
    def clip(comm):
        shares = [torch.full((3,), float(comm.rank + 1)), torch.ones(2)][: 2 - comm.rank]
        norm = clip_shares_(shares, 2.0, comm)
        return norm, shares, comm.calls

    (norm, first, calls), (other, second, _) = run_threads(clip, 2)
    assert norm == other == 17**0.5  # 3 + 2 + 3 * 4
    assert calls == [("all_reduce", 8)]
    torch.testing.assert_close(torch.cat([*first, *second]).norm(), torch.tensor(2.0))


# --- Layout ------------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(shapes=SHAPES, ranks=st.integers(1, 9), data=st.randoms())
def test_pieces_of_all_ranks_are_each_element_once(shapes, ranks, data):
    params = [nn.Parameter(torch.arange(float(np.prod(shape))).reshape(shape) + 100 * index)
              for index, shape in enumerate(shapes)]
    before = [param.detach().clone() for param in params]
    unit = Unit(params, ranks)
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    assert unit.flat.numel() == unit.share * ranks and 0 <= unit.flat.numel() - unit.elements < ranks
    seen = Counter()
    for rank in range(ranks):
        share = unit.slice_of(unit.flat, rank)
        for piece in unit.pieces(rank):
            assert torch.equal(piece.of(share), piece.param.flatten()[piece.start : piece.stop])
            seen.update((id(piece.param), element) for element in range(piece.start, piece.stop))
    assert set(seen.values()) <= {1} and len(seen) == unit.elements


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20), limit=st.integers(4, 200))
def test_units_by_size_keep_all_in_reverse_order_and_below_the_limit(sizes, limit):
    params = [nn.Parameter(torch.zeros(size)) for size in sizes]
    groups = by_size(params, limit)
    assert [id(param) for group in groups for param in group] == [id(param) for param in reversed(params)]
    assert all(len(group) == 1 or sum(param.nbytes for param in group) <= limit for group in groups)


def test_blocks_are_the_elements_of_the_outermost_lists():
    model = Odd()
    assert blocks_of(model) == [model.blocks[0], model.blocks[1]]
    sequence = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert blocks_of(sequence) == [sequence[0], sequence[2]]


# --- Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["muon", "lamb", "adafactor", "adamw8bit", "shampoo"])
def test_optimizers_that_need_more_than_a_slice_are_refused(key):
    with pytest.raises(ValueError, match=r"cannot run on ZeRO's slices.*Two ways out"):
        run_threads(lambda comm: Zero1(Odd(), comm, key), 2)


@pytest.mark.parametrize("key", ["lamb", "adafactor", "came"])
def test_data_parallelism_takes_them(key):
    """They see matrices there, and not rows of a flat unit."""
    wanted = alone(REGISTRY[key].make, 4, lr=1e-2)
    for weights, _ in run_threads(lambda comm: sharded(comm, DataParallel, key, 4, lr=1e-2), 2):
        assert farthest(weights, wanted) < 1e-9


def test_ranks_that_disagree_are_told_what_about():
    def models(comm):
        return Zero2(nn.Linear(3, 4 + comm.rank), comm, "adamw")

    with pytest.raises(RuntimeError, match=r"weight is \(4, 3\) float32 on rank 0 and \(5, 3\) float32 on rank 1"):
        run_threads(models, 2)
    with pytest.raises(RuntimeError, match="settings is .*0.1.* on rank 0 and .*0.2"):
        run_threads(lambda comm: Zero2(nn.Linear(3, 4), comm, "adamw", lr=0.1 * (comm.rank + 1)), 2)
    with pytest.raises(RuntimeError, match="engine is Zero1 on rank 0 and Zero2 on rank 1"):
        run_threads(lambda comm: (Zero1, Zero2)[comm.rank](nn.Linear(3, 4), comm, "adamw"), 2)


def test_more_ranks_than_parameters_are_told():
    with pytest.raises(ValueError, match="Rank 3 of 4 would own nothing: the model has 3 parameters"):
        run_threads(lambda comm: Zero1(nn.Linear(2, 1), comm, "adamw"), 4)


def weights_twice(comm):
    model = nn.Linear(2, 2)
    return Zero1(model, comm, "adamw", groups=[{"params": model.weight}, {"params": model.parameters()}])


def weight_left_out(comm):
    model = nn.Linear(2, 2)
    return Zero1(model, comm, "adamw", groups=[{"params": [model.bias]}])


def parameter_from_elsewhere(comm):
    return Zero1(nn.Linear(2, 2), comm, "adamw", groups=[{"params": [nn.Parameter(torch.ones(3))]}])


def model_with_two_engines(comm):
    return [Zero1(model, comm, "adamw") for model in [nn.Linear(2, 2)] * 2]


def zero1(model, comm, key="adamw", **settings):
    return Zero1(model, comm, key, **settings)


@pytest.mark.parametrize(("build", "message"), [
    (lambda comm: zero1(nn.Linear(2, 2), comm, "adamv"), "Unknown optimizer: 'adamv'. Allowed: sgd, momentum"),
    (lambda comm: zero1(nn.Linear(2, 2), comm, precision="fp16"), "Invalid precision: 'fp16'"),
    (lambda comm: zero1(nn.Linear(2, 2), comm, unit_bytes=float("nan")), "Invalid unit_bytes: nan"),
    (lambda comm: zero1(nn.Linear(2, 2).requires_grad_(False), comm), "nothing to train"),
    (lambda comm: zero1(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), comm), "Allowed: one dtype"),
    (lambda comm: zero1(nn.ParameterList([torch.zeros(2, dtype=torch.complex64)]), comm), "real floating-point"),
    (lambda comm: zero1(nn.Linear(2, 2, device="meta"), comm), "weight is not on cpu"),
    (lambda comm: zero1(nn.Linear(2, 2), comm).clip_grad_norm_(0), "Invalid max_norm: 0"),
    (lambda comm: Zero3(nn.Linear(2, 2), comm, "adamw", blocks=[nn.Linear(2, 2)]), "no module of the model"),
    (parameter_from_elsewhere, "not the model's"),
    (weight_left_out, "weight requires a gradient and is in no group"),
    (weights_twice, "weight is in a group twice, or in two"),
    (model_with_two_engines, "belongs to an engine already"),
])
def test_wrong_settings_are_told(build, message):
    with pytest.raises(ValueError, match=message):
        run_threads(build, 1)


@pytest.mark.parametrize("stage", STAGES)
def test_nan_on_one_rank_is_seen_by_all_before_the_step(stage):
    def poisoned(comm):
        engine = stage(Odd(), comm, "adamw", lr=1e-2)
        batch = part_of(batches(1)[0], comm)
        if comm.rank == 1:
            batch = batch * float("nan")
        squared(engine.model, batch).backward()
        return engine.clip_grad_norm_(1.0)

    assert all(norm.isnan() for norm in run_threads(poisoned, 2))


def test_weights_are_rank_zeros_whatever_the_others_began_with():
    def begin(comm):
        model = Odd()
        if comm.rank:
            with torch.no_grad():
                for param in model.parameters():
                    param.add_(comm.rank)
        return Zero3(model, comm, "adamw").full_weights()

    wanted = dict(Odd().named_parameters())
    for weights in run_threads(begin, 3):
        assert farthest(weights, wanted) == 0
