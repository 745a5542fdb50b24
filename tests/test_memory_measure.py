"""What the measurement sees: against hand arithmetic, against the profiler's allocator, and fake against real tensors."""

import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from course_lib.memory.build import RMSNorm, build, next_token_loss
from course_lib.memory.measure import CATEGORIES, fake, measure, model_state
from course_lib.memory.models import MODELS, find
from course_lib.precision.master import MasterWeights

GPT = replace(
    find("gpt2-124m"), vocab=300, context=32, width=32, layers=2, heads=4, kv_heads=4, head_width=8, mlp_width=96
)
LLAMA = replace(
    find("qwen3-0.6b"), vocab=300, width=32, layers=2, heads=4, kv_heads=2, head_width=8, mlp_width=80, tied=False
)
BOTH = pytest.mark.parametrize("architecture", [GPT, LLAMA], ids=["gpt", "llama"])


def tokens(batch=3, sequence=16, vocab=300):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(vocab, (batch, sequence), generator=generator) for _ in range(2))


def squares(model, x):
    return model(x).square().mean()


# -- the timeline -------------------------------------------------------------------------------------------------------


def test_a_linear_layer_worked_by_hand():
    # 5 rows of 100 in, 30 out, float32, no bias: weight 12,000 bytes, batch 2,000, output 600.
    model = nn.Linear(100, 30, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    timeline = measure(model, optimizer, squares, [torch.ones(5, 100)] * 2)
    weight = 12_000
    # The backward pass needs the batch and the output, which square() kept; the loss is 4 bytes.
    assert timeline.after(0, "forward") == dict(
        parameters=weight, gradients=0, optimizer=0, activations=2_000 + 600 + 4, temporaries=0
    )
    assert timeline.after(0, "backward") == dict(
        parameters=weight, gradients=weight, optimizer=0, activations=0, temporaries=0
    )
    # Two moments and a count of steps. They stay: the second step begins on a plateau.
    assert timeline.after(0, "step")["optimizer"] == 2 * weight + 4
    assert timeline.after(0, "zero_grad") == dict(
        parameters=weight, gradients=0, optimizer=2 * weight + 4, activations=0, temporaries=0
    )
    assert timeline.after(1, "forward")["optimizer"] == 2 * weight + 4
    assert timeline.peak_phase == (0, "step")
    assert [entry[:2] for entry in timeline.phases] == [
        (step, phase) for step in (0, 1) for phase in ("forward", "backward", "step", "zero_grad")
    ]


@BOTH
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_series_peak_and_holdings_tell_the_same(architecture, recompute):
    model = build(architecture, recompute=recompute)
    timeline = measure(model, torch.optim.SGD(model.parameters()), next_token_loss, [tokens()] * 2)
    series = timeline.series()
    assert list(series) == list(CATEGORIES)
    assert all((values >= 0).all() for values in series.values())
    assert sum(timeline.peak.values()) == timeline.peak_total == timeline.total().max()
    for event in (0, 10, timeline.peak_event, len(timeline.total()) - 1):
        held = Counter()
        for holding in timeline.live(event):
            held[holding.category] += holding.nbytes
        assert {name: held[name] for name in CATEGORIES} == {name: values[event] for name, values in series.items()}
    assert timeline.live(-1) == timeline.live(len(timeline.total()) - 1)


@BOTH
@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_fake_tensors_hold_what_real_ones_hold(architecture, attention, recompute):
    def run():
        model = build(architecture, attention=attention, recompute=recompute, dtype=torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        inputs = tuple(torch.zeros(3, 16, dtype=torch.long) for _ in range(2))
        return measure(model, optimizer, next_token_loss, [inputs] * 2)

    real = run()
    with fake():
        unreal = run()
    assert unreal.peak == real.peak
    assert unreal.phases == real.phases
    for name, values in real.series().items():
        assert (unreal.series()[name] == values).all(), name


@BOTH
def test_the_peak_is_the_allocators(architecture):
    """torch.profiler adds up what the CPU allocator was asked for, kernels' own memory included."""

    def train():
        model = build(architecture)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        return model, optimizer

    model, optimizer = train()
    batch = tokens()
    timeline = measure(model, optimizer, next_token_loss, [batch] * 2)
    before = timeline.total()[0] + sum(tensor.nbytes for tensor in batch)

    model, optimizer = train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):
            next_token_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    assert highest == timeline.peak_total - before


@BOTH
@pytest.mark.parametrize("fake_tensors", [False, True])
def test_nothing_is_left_over(architecture, fake_tensors):
    with fake() if fake_tensors else torch.enable_grad():
        model = build(architecture)
        timeline = measure(
            model, torch.optim.SGD(model.parameters()), next_token_loss, [tuple(torch.zeros(2, 2, 8).long())] * 3
        )
    for step in range(3):
        assert timeline.after(step, "zero_grad") == timeline.after(0, "zero_grad")
    assert timeline.after(2, "zero_grad") == dict(
        parameters=4 * architecture.parameters, gradients=0, optimizer=0, activations=0, temporaries=0
    )


def test_accumulation_and_gradients_that_are_kept():
    model = nn.Linear(100, 30, bias=False)
    batches = [torch.ones(5, 100)] * 4
    optimizer = torch.optim.SGD(model.parameters())
    timeline = measure(model, optimizer, squares, batches, accumulate=2, keep_gradients=True)
    assert [phase for _, phase, _ in timeline.phases] == 2 * (2 * ["forward", "backward"] + ["step", "zero_grad"])
    assert timeline.after(0, "zero_grad")["gradients"] == timeline.after(1, "forward")["gradients"] == 12_000
    # The second micro-batch's gradient lives until it is added.
    gradients, temporaries = timeline.series()["gradients"], timeline.series()["temporaries"]
    assert gradients.max() == 12_000 and temporaries.max() >= 12_000


def test_the_last_group_of_batches_may_be_short():
    model = nn.Linear(4, 4)
    timeline = measure(model, torch.optim.SGD(model.parameters()), squares, [torch.ones(1, 4)] * 3, accumulate=2)
    assert [entry[:2] for entry in timeline.phases].count((1, "forward")) == 1


def test_bad_arguments_are_refused():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters())
    for accumulate in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="accumulate"):
            measure(model, optimizer, squares, [torch.ones(1, 4)], accumulate=accumulate)
    with pytest.raises(ValueError, match="there is none"):
        measure(model, optimizer, squares, [])
    timeline = measure(model, optimizer, squares, [torch.ones(1, 4)])
    with pytest.raises(ValueError, match=re.escape("no phase 'forwards' of step 0. Steps are 0 to 0")):
        timeline.after(0, "forwards")
    assert timeline.cuda_peak is None and timeline.cuda_allocated is None


# -- model states -------------------------------------------------------------------------------------------------------


def test_each_storage_counts_once():
    model = build(GPT)  # its head is its embedding
    model.register_buffer("table", torch.zeros(10))
    model.register_buffer("part of it", model.table[:3])
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    assert model_state(model, optimizer) == dict(parameters=4 * GPT.parameters + 40, gradients=0, optimizer=0)
    next_token_loss(model, tokens()).backward()
    optimizer.step()
    assert model_state(model, optimizer)["gradients"] == model_state(model, optimizer)["optimizer"]
    assert model_state(model, optimizer)["gradients"] == 4 * GPT.parameters


@pytest.mark.parametrize(
    ("gradients", "state_dtype", "expected"),
    [
        ("native", None, (2, 2, 12)),
        ("fp32", None, (2, 4, 12)),
        ("both", None, (2, 6, 12)),
        ("fp32", torch.bfloat16, (2, 4, 8)),
    ],
)
def test_master_weights_in_bytes_per_parameter(gradients, state_dtype, expected):
    model = build(LLAMA, dtype=torch.bfloat16)
    optimizer = MasterWeights(model.parameters(), torch.optim.AdamW, gradients=gradients, state_dtype=state_dtype)
    timeline = measure(model, optimizer, next_token_loss, [tokens()] * 2)
    counts = 4 * len(list(model.parameters()))
    held = timeline.after(1, "backward")
    size = LLAMA.parameters
    assert (held["parameters"], held["gradients"]) == (expected[0] * size, expected[1] * size)
    assert held["optimizer"] == expected[2] * size + counts


# -- the models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in MODELS if not (find(key).experts or find(key).latent)])
def test_a_built_model_has_the_architectures_tensors(key):
    architecture = find(key)
    with fake():
        model = build(architecture, dtype=torch.bfloat16)
    found = Counter((re.sub(r"\.\d+\.", ".", name), tuple(p.shape)) for name, p in model.named_parameters())
    assert found == {(weight.name, weight.shape): weight.copies for weight in architecture.weights()}


@BOTH
def test_attention_and_recomputation_change_no_number(architecture):
    batch = tokens()
    reference = build(architecture, dtype=torch.float64)
    expected = next_token_loss(reference, batch)
    expected.backward()
    for attention in ("flash", "eager"):
        for recompute in ("none", "selective", "full"):
            model = build(architecture, attention=attention, recompute=recompute, dtype=torch.float64)
            model.load_state_dict(reference.state_dict())
            loss = next_token_loss(model, batch)
            loss.backward()
            torch.testing.assert_close(loss, expected)
            for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-8)


@BOTH
def test_a_token_sees_only_those_before_it(architecture):
    inputs, _ = tokens()
    changed = inputs.clone()
    changed[:, 9:] = 0
    for attention in ("flash", "eager"):
        model = build(architecture, attention=attention)
        torch.testing.assert_close(model(inputs)[:, :9], model(changed)[:, :9])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_rms_norm_is_torchs(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 5, 16), (16,), (2, 5, 16)))
    norm = RMSNorm(16, dtype)
    norm.weight.data.copy_(weight)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight.requires_grad_()
    mine, reference = norm(ours), F.rms_norm(theirs, (16,), weight, 1e-5)
    mine.backward(grad)
    reference.backward(grad)
    for got, expected in ((mine, reference), (ours.grad, theirs.grad), (norm.weight.grad, weight.grad)):
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="mixture of experts"):
        build(find("mixtral-8x7b"))
    with pytest.raises(ValueError, match="Invalid attention: 'flesh'. Did you mean flash"):
        build(GPT, attention="flesh")
    with pytest.raises(ValueError, match="Invalid recompute"):
        build(GPT, recompute="some")
    with pytest.raises(ValueError, match="learned positions up to 32; 33 tokens"):
        build(GPT)(torch.zeros(1, 33, dtype=torch.long))
