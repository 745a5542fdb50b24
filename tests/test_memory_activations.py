"""The closed form of activations: against the papers' formulas, hand arithmetic and a real backward pass."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.memory.activations import at_peak, layer_saved, saved
from course_lib.memory.backward import replay
from course_lib.memory.build import build, next_token_loss
from course_lib.memory.kept import Run
from course_lib.memory.measure import fake, measure
from course_lib.memory.models import MODELS, find

GPT = replace(find("gpt2-124m"), layers=2)
LLAMA = replace(find("qwen3-0.6b"), layers=2)  # grouped heads and norms of queries and keys, tied
RECOMPUTE = ("none", "selective", "full")


def without_statistics(kept):
    return sum(nbytes for name, nbytes in kept.items() if "statistics" not in name)


# -- a layer ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["gpt2-124m", "gpt3-175b"])
@pytest.mark.parametrize(("batch", "sequence"), [(2, 128), (4, 1024)])
def test_korthikantis_formula_with_dropout(key, batch, sequence):
    """Equation 2 of 2205.05198, s b h (34 + 5 a s / h), and 34 s b h with the attention core recomputed."""
    model = find(key)
    sbh, scores = sequence * batch * model.width, model.heads * sequence**2 * batch
    kept = layer_saved(model, batch, sequence, attention="eager", dropout=True)
    assert without_statistics(kept) == 34 * sbh + 5 * scores
    again = layer_saved(model, batch, sequence, attention="eager", dropout=True, recompute="selective")
    assert without_statistics(again) == 34 * sbh
    full = layer_saved(model, batch, sequence, attention="eager", dropout=True, recompute="full")
    assert full == {"attention norm input": 2 * sbh}


def test_a_gpt2_block_without_dropout_by_hand():
    # s b h = 4 * 1024 * 768 = 3,145,728; a s b = 49,152; a s^2 b = 50,331,648; two LayerNorms keep 8 bytes a row each.
    model = find("gpt2-124m")
    statistics = 2 * 8 * 4096
    assert sum(layer_saved(model, 4, 1024).values()) == 32 * 3_145_728 + 4 * 49_152 + statistics
    assert sum(layer_saved(model, 4, 1024, attention="eager").values()) == (
        32 * 3_145_728 + 2 * 50_331_648 + statistics
    )
    assert sum(layer_saved(model, 4, 1024, compute=4).values()) == 64 * 3_145_728 + 4 * 49_152 + statistics


def test_a_llama_block_by_hand():
    # Llama 3 8B, one sequence of 8192, bf16. Rows of 4096: norm inputs 2, their outputs 2, queries, output: 6.
    # Rows of 1024: keys, values. Rows of 14336: gate, up, silu(gate), product.
    rows = 8192 * 2
    expected = rows * (6 * 4096 + 2 * 1024 + 4 * 14336) + 4 * 32 * 8192 + 2 * 4 * 8192
    assert sum(layer_saved(find("llama-3-8b"), 1, 8192).values()) == expected


def test_a_mixture_by_hand():
    # Mixtral 8x7B, 100 tokens, 2 of 8 experts each, bf16: 200 rows visit experts of 14336.
    kept = layer_saved(find("mixtral-8x7b"), 1, 100)
    assert kept["experts' input"] == kept["experts' output"] == 200 * 4096 * 2
    assert kept["gate"] == kept["up"] == kept["activation"] == kept["product"] == 200 * 14336 * 2
    # The router: logits in 16 bits, probabilities in 32; a choice and a weight for each visit.
    assert kept["router"] == 100 * 8 * (2 + 4) + 200 * (8 + 4)


def test_latent_attention_by_hand():
    # DeepSeek-V3, 100 tokens, bf16: 128 heads of 192 for queries and keys, 128 for values.
    model = find("deepseek-v3")
    kept = layer_saved(model, 1, 100, layer=0)
    assert kept["queries"] == kept["keys"] == 100 * 128 * 192 * 2
    assert kept["values"] == 100 * 128 * (128 + 128) * 2  # a view of the matrix that has the keys' first part too
    assert kept["attention output"] == 100 * 128 * 128 * 2
    assert kept["latents"] == 100 * (2 * 1536 + 2 * 512 + 64) * 2
    # The first three layers are dense, the fourth has experts.
    assert kept["up"] == 100 * 18432 * 2
    assert "router" not in layer_saved(model, 1, 100, layer=2) and "router" in layer_saved(model, 1, 100, layer=3)


# -- the whole model ----------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(MODELS)), st.integers(2, 8), st.integers(1, 4096), st.sampled_from((2, 4)),
    st.sampled_from(("flash", "eager")),
)  # fmt: skip
@settings(max_examples=60)
def test_order_and_growth(key, batch, sequence, compute, attention):
    model = find(key)
    sizes = {
        recompute: sum(
            saved(model, batch, sequence, compute=compute, attention=attention, recompute=recompute).values()
        )
        for recompute in RECOMPUTE
    }
    assert sizes["full"] < sizes["selective"]
    # Latent attention's values are a view of a larger matrix, which selective recomputation has to keep instead.
    assert sizes["selective"] <= sizes["none"] or (model.latent and sequence < 1024)
    # What is kept grows with the batch and by nothing else but it, tables and loss aside.
    doubled = saved(model, 2 * batch, sequence, compute=compute, attention=attention)
    for name, nbytes in saved(model, batch, sequence, compute=compute, attention=attention).items():
        assert doubled[name] == (nbytes if name in ("rotary tables", "causal mask", "loss") else 2 * nbytes)
    peak = at_peak(model, batch, sequence, compute=compute, attention=attention)
    assert peak.total >= sizes["none"] and peak.gradients == 0


@pytest.mark.parametrize("key", sorted(MODELS))
def test_the_tape_ends_as_a_backward_pass_does(key):
    """Everything made is let go of once, but for the batch and the loss; and every weight got its gradient."""
    model = find(key)
    ungraded = sum(weight.total for weight in model.weights() if weight.name == "layers.router.bias")
    choices = itertools.product((1, 3), ("flash", "eager"), RECOMPUTE, (False, True), (False, True))
    for batch, attention, recompute, autocast, keep in choices:
        tape = replay(Run(model, batch, 64, 2, attention, recompute, autocast), keep_gradients=keep)
        assert {name for name, nbytes in tape.saved.items() if nbytes} == {"tokens and targets", "loss"}
        assert not any(tape.working.values())
        width = 4 if autocast else 2
        assert tape.gradients == (0 if keep else width * (model.parameters - ungraded))
        assert tape.now == 2 * 8 * batch * 64 + 8 + tape.gradients


def measured(architecture, batch, sequence, attention, recompute, keep):
    """Bytes kept after the forward pass, and the peak of a later forward and backward pass beside model states."""
    with fake():
        model = build(architecture, attention=attention, recompute=recompute)
        inputs = tuple(torch.zeros(batch, sequence, dtype=torch.long) for _ in range(2))
        if keep:
            for param in model.parameters():
                param.grad = torch.zeros_like(param)
        timeline = measure(model, torch.optim.SGD(model.parameters()), next_token_loss, [inputs], keep_gradients=keep)
    series = timeline.series()
    states = series["parameters"] + (series["gradients"] if keep else 0)
    end = next(first for _, phase, first in timeline.phases if phase == "step")
    return timeline.after(0, "forward")["activations"], int((timeline.total() - states)[:end].max())


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "fresh"])
@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize("architecture", [GPT, LLAMA], ids=["gpt", "llama"])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1024), (2, 128)])
def test_measured_to_the_byte(architecture, attention, recompute, keep, batch, sequence):
    """With a small vocabulary, which puts the peak into a block; agreement.CASES have it at the cross-entropy."""
    model = replace(architecture, vocab=64)
    choice = dict(compute=4, attention=attention, recompute=recompute)
    kept, highest = measured(model, batch, sequence, attention, recompute, keep)
    assert sum(saved(model, batch, sequence, **choice).values()) == kept
    # The gradient of a bias may be alive a moment later or earlier: a few rows in a thousand.
    assert at_peak(model, batch, sequence, keep_gradients=keep, **choice).total == pytest.approx(highest, rel=5e-4)


def test_the_highest_moment_moves():
    gpt = find("gpt2-124m")
    assert at_peak(gpt, 8, 1024).moment == "cross-entropy"
    # 4 x 50257 x 768 bytes, three times: both uses of the tied matrix and their sum.
    assert at_peak(gpt, 1, 8, compute=4).moment == "embedding"
    assert at_peak(find("llama-3-8b"), 1, 8).moment == "head"
    small = replace(gpt, vocab=64)
    assert at_peak(small, 8, 128).moment == "block 12 of 12: MLP"
    assert at_peak(small, 8, 1024, attention="eager").moment == "block 12 of 12: attention"
    # Gradients that appear one by one are all there at the end only.
    assert at_peak(small, 8, 128, keep_gradients=False).moment == "block 12 of 12: MLP"
    assert at_peak(small, 1, 128, keep_gradients=False).moment == "embedding"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batch=0), "Invalid batch"), (dict(batch=-1), "Invalid batch"), (dict(batch=True), "Invalid batch"),
        (dict(batch=float("nan")), "Invalid batch"), (dict(sequence=0), "Invalid sequence"),
        (dict(sequence=10**12), "Invalid sequence"), (dict(compute=3), "Invalid compute"),
        (dict(compute=4, autocast=True), "Invalid compute"), (dict(attention="flsh"), "Did you mean flash"),
        (dict(recompute="selectiv"), "Did you mean selective"),
    ],
)  # fmt: skip
def test_bad_sizes_and_choices_are_refused(change, message):
    for function in (layer_saved, saved, at_peak):
        with pytest.raises(ValueError, match=message):
            function(find("gpt2-124m"), **(dict(batch=1, sequence=8) | change))
