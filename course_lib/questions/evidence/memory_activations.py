"""Evidence for ``bank/memory.yaml``: what graphs hold, and the peaks of a training step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.memory.build import Block, build, next_token_loss
from course_lib.memory.measure import Timeline, fake, measure
from course_lib.memory.models import find
from course_lib.questions.evidence._alive import Graphs, mlp, nbytes
from course_lib.questions.evidence._feed import ADAMW, SGD, both_versions

GB = 1e9
SMALL = replace(
    find("gpt2-124m"), vocab=64, context=32, width=64, layers=2, heads=4, kv_heads=4, head_width=16, mlp_width=256
)


def _square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def _watched(rows: int, steps: int = 2, keep_gradients: bool = False, **adamw: bool) -> Timeline:
    model = mlp()
    return measure(
        model,
        ADAMW(model.parameters(), **adamw),
        _square,
        [torch.ones(rows, 32)] * steps,
        keep_gradients=keep_gradients,
    )


def first_step_plateau() -> None:
    """The first step() adds 8 bytes a parameter whatever the batch; the second forward pass starts from there."""
    states = {}
    for rows in (4, 8):
        timeline = _watched(rows, foreach=False)
        before, after = timeline.after(0, "backward"), timeline.after(0, "step")
        parameters = after["parameters"] // 4
        assert before["optimizer"] == 0 and 8 * parameters <= after["optimizer"] <= 8 * parameters + 64
        assert before["activations"] == after["activations"] == 0
        states[rows] = sum(after.values())
        peaks = [timeline.after(step, "forward") for step in (0, 1)]
        assert sum(peaks[1].values()) - sum(peaks[0].values()) == after["optimizer"]
    assert states[4] == states[8]


def list_of_losses() -> None:
    """A loss in a list holds nothing of its graph after backward(), and all of it before: ten losses, ten graphs."""
    torch.manual_seed(0)
    model, batch = mlp(), torch.randn(8, 32)
    with Graphs(model) as graphs:
        trained = []
        for _ in range(10):
            loss = _square(model, batch)
            one = graphs.alive()
            loss.backward()
            trained.append(loss)
        assert one > 0 and graphs.alive() == 0
        evaluated = [_square(model, batch)]
        one = graphs.alive()
        evaluated += [_square(model, batch) for _ in range(9)]
        assert graphs.alive() == 10 * one - 9 * batch.nbytes
        del evaluated
        numbers = [_square(model, batch).item() for _ in range(10)]
        assert len(numbers) == 10 and graphs.alive() == 0


def evaluation_graphs() -> None:
    """The bank's code holds the graphs of all batches when it has seen the last, the repaired one that of one."""
    alive = {}
    for name, evaluate in both_versions("memory-evaluation-graph", "evaluate").items():
        model, seen = mlp(), []
        with Graphs(model) as graphs:

            def loss_fn(model: nn.Module, batch: Tensor, graphs: Graphs = graphs, seen: list[int] = seen) -> Tensor:
                loss = _square(model, batch)
                seen.append(graphs.alive())
                return loss

            evaluate(model, loss_fn, [torch.full((8, 32), float(number)) for number in range(10)])
        alive[name] = seen
    assert alive["code"][-1] == 10 * alive["code"][0]
    assert set(alive["fixed"]) == {alive["code"][0]}


def block_keeps() -> None:
    """A GPT-2 block in bf16 keeps 32 s b h bytes and small change; eager attention keeps 2 a s^2 b more."""
    batch, sequence, width, heads = 2, 32, 64, 4
    sbh = sequence * batch * width
    kept = {}
    for attention in ("flash", "eager"):
        block = Block(SMALL, attention, False, torch.bfloat16)
        x = torch.randn(batch, sequence, width, dtype=torch.bfloat16, requires_grad=True)
        future = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
        with Graphs(block) as graphs:
            out = block(x, None, future if attention == "eager" else None)
            kept[attention] = graphs.alive()
        assert out.requires_grad
    statistics = kept["flash"] - 32 * sbh - 4 * heads * sequence * batch
    assert 0 < statistics <= 2 * 8 * sequence * batch  # two numbers a row for each of two norms, in 16 or 32 bits
    assert kept["eager"] - statistics - sequence**2 == 32 * sbh + 2 * heads * sequence**2 * batch
    masks = sbh + sbh + heads * sequence**2 * batch  # a byte each: outputs of attention and MLP, probabilities
    dropped = 2 * heads * sequence**2 * batch  # probabilities after dropout
    paper = sbh * (34 + 5 * heads * sequence / width)
    assert 32 * sbh + 2 * heads * sequence**2 * batch + masks + dropped == paper


def checkpointing_flops() -> None:
    """Matrix work: backward is twice forward, so running a block again adds a third at most.

    torch's checkpoint stops where nothing more is needed, before the last product: a GPT-2 block adds 2/9.
    """
    counts = {}
    for recompute in ("none", "full"):
        with fake():
            model = build(replace(SMALL, vocab=2), recompute=recompute)
            tokens = torch.zeros(2, 32, dtype=torch.long)
            with FlopCounterMode(display=False) as counter:
                loss = next_token_loss(model, (tokens, tokens))
                forward = counter.get_total_flops()
                loss.backward()
        counts[recompute] = counter.get_total_flops(), forward
    whole, forward = counts["none"]
    assert abs(whole / forward - 3) < 0.01 and abs(counts["full"][0] / whole - 11 / 9) < 0.01


def cross_entropy_peak(tokens: int = 8192, vocab: int = 128_256) -> float:
    """GB alive at the peak of forward and backward of a cross-entropy over float32 logits, beside the model's states."""
    with fake():
        head = nn.Linear(1, vocab, bias=False, dtype=torch.bfloat16)
        head.weight.grad = torch.zeros_like(head.weight)
        targets = torch.zeros(1, tokens, dtype=torch.long)
        hidden = torch.zeros(1, tokens, 1, dtype=torch.bfloat16)
        batch = (hidden, targets)
        timeline = measure(head, SGD(head.parameters(), lr=0.1), next_token_loss, [batch], keep_gradients=True)
    states = timeline.peak["parameters"] + timeline.peak["gradients"]
    return (timeline.peak_total - states) / GB


def accumulation_holds() -> None:
    """Four micro-batches of 8 rows hold a quarter of 32 rows' activations, and exactly the same model states.

    From the second micro-batch on a forward pass ends beside whole gradients; alone it ends beside none. That raises
    the peak by one copy of them where activations set it, and not at all where the optimizer's step does.
    """
    forward, states, peaks = {}, {}, {}
    for rows, accumulate in ((32, 1), (8, 4), (8, 1), (1024, 1), (1024, 4)):
        model = mlp()
        batches = [torch.ones(rows, 32)] * (2 * accumulate)
        timeline = measure(model, ADAMW(model.parameters(), foreach=False), _square, batches, accumulate=accumulate)
        forward[rows, accumulate] = timeline.after(1, "forward")
        after = timeline.after(1, "step")
        states[rows, accumulate] = [after[name] for name in ("parameters", "gradients", "optimizer")]
        peaks[rows, accumulate] = timeline.peak_total
    assert 3.9 < forward[32, 1]["activations"] / forward[8, 4]["activations"] < 4.1
    assert states[32, 1] == states[8, 4] and states[8, 4][0] == states[8, 4][1]
    copy = states[8, 4][1]
    assert (forward[8, 1]["gradients"], forward[8, 4]["gradients"]) == (0, copy)
    assert peaks[8, 4] == peaks[8, 1] and peaks[1024, 4] - peaks[1024, 1] == copy


def when_zero_grad_helps() -> None:
    """set_to_none lowers the peak where activations set it, not where the optimizer's step does."""
    saved = {}
    for rows in (4, 2048):
        kept, freed = (_watched(rows, keep_gradients=keep, foreach=False) for keep in (True, False))
        saved[rows] = (kept.peak_total - freed.peak_total) / nbytes(mlp().parameters()), freed.peak_phase[1]
    assert saved[4] == (0.0, "step")
    assert saved[2048][0] > 0.7 and saved[2048][1] in ("forward", "backward")


def foreach_temporaries(parameters: float = 7e9) -> float:
    """GB that AdamW's foreach step allocates for a moment over float32 parameters, from a measured ratio.

    The for-loop needs two or three tensors of the largest parameter, the fused step none.
    """
    extra = {}
    for name, choice in (("foreach", {"foreach": True}), ("loop", {"foreach": False}), ("fused", {"fused": True})):
        timeline = _watched(1, **choice)
        start, end = (event for step, phase, event in timeline.phases if step == 1 and phase in ("step", "zero_grad"))
        extra[name] = int(timeline.series()["temporaries"][start:end].max(initial=0))
    one = 4 * 32 * 32
    assert extra["loop"] in (2 * one, 3 * one) and extra["fused"] == 0
    return extra["foreach"] / (4 * one) * 4 * parameters / GB


def where_activations_win() -> None:
    """Llama 3 8B: 5.9 MB a token without recomputation, so 21,700 tokens weigh as much as 128.5 GB of states.

    With every block computed again a token takes less than a seventh of that.
    """
    width, keys, inner, heads, layers, vocab = 4096, 1024, 14336, 32, 32, 128256
    # Inputs and outputs of two norms, queries, attention's output; keys, values; gate, up, their activation, product.
    block = 2 * (6 * width + 2 * keys + 4 * inner) + 4 * heads + 2 * 4
    token = layers * block + 2 * 2 * width + 4 * vocab
    states = 16 * 8_030_261_248
    assert round(token / 1e6, 1) == 5.9 and round(states / GB, 1) == 128.5
    assert 21_500 < states / token < 21_900
    again = layers * 2 * width + 2 * 2 * width + 4 * vocab
    assert again < token / 7 and states / again > 160_000
    assert round(states / 64 / GB) == 2 and round(8192 * token / GB) == 48


def largest_batch(card: float = 80e9, sequence_length: int = 1024) -> float:
    """Sequences of GPT-2 XL in float32 with AdamW and eager attention that fit a card."""
    s, h, a, layers, vocab = sequence_length, 1600, 25, 48, 50257
    states = 16 * 1_557_611_200
    sequence = layers * (64 * s * h + 4 * a * s * s) + 4 * s * vocab
    working = 8 * s * vocab
    eager = int((card - states) // (sequence + working))
    flash = int((card - states) // (layers * (64 * s * h + 4 * a * s) + 4 * s * vocab + working))
    small = int((card - (8 + 2 + 8 / 256) * states / 16) // (sequence + working))  # moments in 8 bits
    assert flash > eager and ((flash, small) == (9, 6) or (card, s) != (80e9, 1024))
    return float(eager)


def _trained(fused: bool) -> tuple[int, Tensor]:
    """Most bytes of gradients alive, and the weights after three AdamW steps of one optimizer per parameter."""
    torch.manual_seed(0)
    model, alive = mlp(), []
    steppers = {param: ADAMW([param], foreach=False) for param in model.parameters()}

    def update(param: Tensor) -> None:
        steppers[param].step()
        param.grad = None

    def hook(param: Tensor) -> None:
        alive.append(nbytes(other.grad for other in model.parameters()))
        if fused:
            update(param)

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(hook)
    for _ in range(3):
        _square(model, torch.randn(8, 32)).backward()
        if not fused:
            for param in model.parameters():
                update(param)
    return max(alive), torch.cat([param.detach().flatten() for param in model.parameters()])


def step_in_backward() -> None:
    """Each weight updated as soon as its gradient is there: one gradient alive at a time, the same result."""
    (all_four, weights), (one, same) = (_trained(fused) for fused in (False, True))
    assert all_four == 4 * one == 4 * 4 * 32 * 32
    assert torch.equal(weights, same)


class _Adapted(nn.Module):
    """A frozen linear layer and LoRA's two thin ones beside it."""

    def __init__(self, linear: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))


def lora_activations() -> None:
    """LoRA on every linear layer of the blocks keeps as many activations as full training, within 10%."""
    kept = []
    for adapted in (False, True):
        model = build(SMALL).requires_grad_(not adapted)
        for block in model.layers if adapted else ():
            for part, names in ((block.attention, ("qkv", "output")), (block.mlp, ("up", "down"))):
                for name in names:
                    setattr(part, name, _Adapted(getattr(part, name)))
        tokens = torch.zeros(2, 32, dtype=torch.long)
        with Graphs(model) as graphs:
            loss = next_token_loss(model, (tokens, tokens))
            kept.append(graphs.alive())
        assert loss.requires_grad
    assert 0.9 < kept[1] / kept[0] < 1.1
