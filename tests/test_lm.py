"""The text, the batches drawn from it, and the byte-level language model."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.problems import lm, text

SMALL = lm.LMConfig(layers=2, width=8, heads=2, context=6)


# -- text ---------------------------------------------------------------------------------------------------------------


def test_the_corpus_is_the_interpreters_language_reference():
    data = text.corpus()
    words = data.decode("utf-8")
    assert 300_000 < len(data) < 1_500_000
    for phrase in ("The \"while\" statement", "The \"try\" statement", "list comprehension"):
        assert phrase.lower() in words.lower()
    # Topics in the order of their names, whatever the order of the dictionary.
    assert words.index('The "assert" statement') < words.index('The "yield" statement')


@given(st.binary(min_size=2, max_size=200), st.floats(0.01, 0.99))
@settings(derandomize=True, max_examples=50)
def test_split_keeps_every_byte_in_order(data, share):
    train, held_out = text.split(data, share)
    assert train + held_out == data
    assert abs(len(held_out) - share * len(data)) <= 0.5


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_split_refuses_a_share_out_of_range(share):
    with pytest.raises(ValueError, match="held_out"):
        text.split(b"abc", share)


@given(st.binary(min_size=9, max_size=60), st.integers(1, 4), st.integers(1, 8), st.integers(0, 5))
@settings(derandomize=True, max_examples=50)
def test_a_batch_holds_windows_of_the_text_and_targets_are_one_byte_on(data, batch, length, seed):
    drawn = list(text.batches(data, batch, length, steps=3, seed=seed))
    assert len(drawn) == 3
    for inputs, targets in drawn:
        assert inputs.shape == targets.shape == (batch, length)
        assert inputs.dtype == targets.dtype == torch.int64
        for before, after in zip(inputs.tolist(), targets.tolist(), strict=True):
            window = bytes(before) + bytes(after[-1:])
            assert before[1:] == after[:-1]
            assert window in data


def test_windows_reach_the_first_and_the_last_byte():
    data = bytes(range(6))
    inputs, targets = next(text.batches(data, batch=400, length=4, steps=1, seed=0))
    assert set(inputs[:, 0].tolist()) == {0, 1}
    assert targets.max() == 5


def test_batches_repeat_with_the_seed_and_only_with_it():
    data = bytes(range(256))
    first, again, other = (
        torch.stack([inputs for inputs, _ in text.batches(data, 4, 8, 5, seed)]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_text_too_short_is_refused_at_once_with_what_is_needed():
    with pytest.raises(ValueError, match="at least 9 bytes"):
        text.batches(b"12345678", batch=1, length=8, steps=1, seed=0)
    with pytest.raises(ValueError, match="at least 9 bytes"):
        text.pages(b"12345678", batch=1, length=8)


@pytest.mark.parametrize("name", ["batch", "length", "steps"])
def test_batches_refuse_sizes_below_one(name):
    sizes = dict(batch=1, length=1, steps=1) | {name: 0}
    with pytest.raises(ValueError, match=f"Invalid {name}: 0"):
        text.batches(b"some text", seed=0, **sizes)


@given(st.binary(min_size=6, max_size=80), st.integers(1, 3), st.integers(1, 5))
@settings(derandomize=True, max_examples=50)
def test_pages_visit_every_target_once_in_order(data, batch, length):
    seen = b"".join(bytes(targets.flatten().tolist()) for _, targets in text.pages(data, batch, length))
    assert data[1:].startswith(seen)
    assert len(data) - 1 - len(seen) < length


def test_frequency_groups_of_a_text_worked_by_hand():
    # Counts 50, 30, 12, 5, 3 of 100. "a" alone is half; "d" and "e" are the last 8 per cent, "e" alone the last 3.
    data = b"a" * 50 + b"b" * 30 + b"c" * 12 + b"d" * 5 + b"e" * 3
    assert text.frequency_groups(data, 0.5, 0.05) == {"frequent": [97], "middle": [98, 99, 100], "rare": [101]}
    assert text.frequency_groups(data, 0.51, 0.08) == {"frequent": [97, 98], "middle": [99], "rare": [100, 101]}


@given(st.binary(min_size=1, max_size=300), st.floats(0.05, 0.9), st.floats(0.01, 0.09))
@settings(derandomize=True, max_examples=100)
def test_frequency_groups_part_the_bytes_by_count(data, frequent, rare):
    groups = text.frequency_groups(data, frequent, rare)
    counts = Counter(data)
    assert sorted(groups["frequent"] + groups["middle"] + groups["rare"]) == sorted(counts)
    ordered = [counts[value] for name in ("frequent", "middle", "rare") for value in groups[name]]
    assert ordered == sorted(ordered, reverse=True)
    share = {name: sum(counts[value] for value in values) / len(data) for name, values in groups.items()}
    assert share["frequent"] >= frequent - 1e-9
    assert share["frequent"] - counts[groups["frequent"][-1]] / len(data) < frequent
    assert share["rare"] <= rare + 1e-9


@pytest.mark.parametrize(("frequent", "rare"), [(0.0, 0.05), (0.5, 1.0), (0.6, 0.4), (-1, 0.5)])
def test_frequency_groups_refuse_shares_out_of_range(frequent, rare):
    with pytest.raises(ValueError, match="shares"):
        text.frequency_groups(b"abc", frequent, rare)


def test_frequency_groups_refuse_an_empty_text():
    with pytest.raises(ValueError, match="empty"):
        text.frequency_groups(b"")


# -- model --------------------------------------------------------------------------------------------------------------


def test_parameter_count_by_hand():
    # width 8, context 6, 2 layers. Embeddings 256*8 + 6*8 = 2096; head 256*8 = 2048; last norm 16.
    # A block: norms 2*16 = 32; attention 8*24 + 24 + 8*8 + 8 = 288; MLP 8*32 + 32 + 32*8 + 8 = 552; 872 in all.
    assert sum(p.numel() for p in lm.ByteLM(SMALL).parameters()) == 2096 + 2048 + 16 + 2 * 872 == 5904


@pytest.mark.parametrize("config", [lm.LMConfig(), lm.LMConfig(layers=3, width=12, heads=3, context=5)])
def test_parameter_count_follows_the_documented_formula(config):
    layers, width = config.layers, config.width
    expected = 12 * layers * width**2 + 13 * layers * width + (2 * 256 + config.context) * width + 2 * width
    assert sum(p.numel() for p in lm.ByteLM(config).parameters()) == expected


def test_the_head_is_not_tied():
    model = lm.ByteLM(SMALL)
    assert model.head.weight is not model.byte_embedding.weight
    assert not torch.equal(model.head.weight, model.byte_embedding.weight)


def test_initial_weights_are_those_of_gpt2():
    model = lm.ByteLM(lm.LMConfig(layers=8, width=64, heads=4, context=64))
    for name, param in model.named_parameters():
        if param.ndim == 1:
            assert torch.equal(param, torch.ones_like(param) if "norm.weight" in name else torch.zeros_like(param)), name
            continue
        expected = 0.02 / math.sqrt(16) if name.endswith(("attention_out.weight", "mlp_out.weight")) else 0.02
        # Standard error of a standard deviation over n draws is std / sqrt(2 n); six of them.
        assert abs(param.std().item() - expected) < 6 * expected / math.sqrt(2 * param.numel()), name
        assert abs(param.mean().item()) < 6 * expected / math.sqrt(param.numel()), name


def test_a_seed_means_the_same_weights_whatever_torchs_own_state():
    torch.manual_seed(1)
    first = lm.ByteLM(SMALL, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = lm.ByteLM(SMALL, seed=3).state_dict(), lm.ByteLM(SMALL, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    drawn = np.random.default_rng(3).normal(0.0, 0.02, size=(256, 8)).astype(np.float32)
    np.testing.assert_array_equal(first["byte_embedding.weight"].numpy(), drawn)


def test_forward_equals_a_transformer_written_out_by_hand():
    model = lm.ByteLM(SMALL).double()
    with torch.no_grad():  # away from zero biases and unit norms, so that each one matters
        for index, param in enumerate(model.parameters()):
            param.add_(0.3 * torch.sin(torch.arange(param.numel(), dtype=torch.float64) + index).view_as(param))
    tokens = torch.tensor([[7, 200, 31, 7, 0], [255, 1, 1, 2, 90]])
    w = {name: value.numpy() for name, value in model.state_dict().items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x, name):
        q, k, v = np.split(linear(x, f"{name}.attention_in"), 3, axis=-1)
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            scores = q[:, part] @ k[:, part].T / 2.0
            scores[np.triu_indices(len(x), 1)] = -np.inf
            share = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(share / share.sum(-1, keepdims=True) @ v[:, part])
        return linear(np.concatenate(heads, -1), f"{name}.attention_out")

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    for row in range(2):
        x = w["byte_embedding.weight"][tokens[row]] + w["position_embedding.weight"][:5]
        for layer in range(2):
            name = f"blocks.{layer}"
            x = x + attention(norm(x, f"{name}.attention_norm"), name)
            x = x + linear(gelu(linear(norm(x, f"{name}.mlp_norm"), f"{name}.mlp_in")), f"{name}.mlp_out")
        expected = norm(x, "norm") @ w["head.weight"].T
        np.testing.assert_allclose(model(tokens)[row].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_position_does_not_see_what_comes_after_it():
    model = lm.ByteLM(SMALL)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    changed = tokens.clone()
    changed[0, 3] = 99
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=1e-6)
    assert (before[:, 3:] - after[:, 3:]).abs().amax() > 1e-4


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="7 positions are more than the model's context of 6"):
        lm.ByteLM(SMALL)(torch.zeros(1, 7, dtype=torch.int64))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(layers=0), "layers"),
        (dict(width=10, heads=4), "not divisible"),
        (dict(heads=2.0), "heads"),
        (dict(context=-1), "context"),
    ],
)
def test_config_refuses_impossible_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        lm.LMConfig(**sizes)


# -- loss, taken apart --------------------------------------------------------------------------------------------------


def test_an_untrained_model_is_about_as_wrong_as_a_guess():
    loss = lm.next_byte_loss(lm.ByteLM(), next(text.batches(text.corpus(), 4, 64, 1, 0)))
    assert abs(loss.item() - math.log(256)) < 0.1


def test_loss_by_byte_adds_up_to_the_mean_loss_and_to_a_count_by_hand():
    model = lm.ByteLM(SMALL)
    data = list(text.batches(b"abracadabra, abracadabra", 3, 6, 4, seed=0))
    total, count = lm.loss_by_byte(model, data)
    assert total.dtype == np.float64 and count.dtype == np.int64 and total.shape == count.shape == (256,)
    mean = np.mean([lm.next_byte_loss(model, batch).item() for batch in data])
    assert total.sum() / count.sum() == pytest.approx(mean, rel=1e-5)
    expected = Counter(value for _, targets in data for value in targets.flatten().tolist())
    assert {int(value): int(count[value]) for value in np.flatnonzero(count)} == expected
    by_hand = sum(
        -F.log_softmax(model(inputs), -1)[row, place, 98].item()
        for inputs, targets in data for row, place in (targets == 98).nonzero().tolist()
    )
    assert total[98] == pytest.approx(by_hand, rel=1e-5)


def test_loss_by_group_weighs_each_place_once():
    total, count = np.zeros(256), np.zeros(256, dtype=np.int64)
    total[:3], count[:3] = [10.0, 2.0, 9.0], [10, 1, 3]
    assert lm.loss_by_group(total, count, {"both": [0, 1], "third": [2]}) == {"both": 12 / 11, "third": 3.0}
    with pytest.raises(ValueError, match="'absent' has no mean loss"):
        lm.loss_by_group(total, count, {"absent": [7, 8]})


# -- generation ---------------------------------------------------------------------------------------------------------


class Cycle(torch.nn.Module):
    """Knows that after byte b comes byte b + 1."""

    config = lm.LMConfig(context=4)

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = torch.nn.Parameter(torch.tensor(certainty))
        self.longest = 0

    def forward(self, tokens):
        self.longest = max(self.longest, tokens.shape[1])
        return self.certainty * F.one_hot((tokens + 1) % 256, 256).float()


def test_generate_continues_the_prompt_within_the_context():
    model = Cycle(1000.0)
    assert lm.generate(model, b"ab", 7) == b"abcdefghi"
    assert model.longest == 4
    assert lm.generate(model, b"\xfe", 3) == b"\xfe\xff\x00\x01"
    assert lm.generate(model, b"ab", 0) == b"ab"


def test_generate_draws_from_the_distribution():
    model = Cycle(math.log(255.0))  # the next letter with probability 1/2, each other byte with 1/510
    out = lm.generate(model, b"a", 600, seed=1)
    hits = sum(after == (before + 1) % 256 for before, after in zip(out, out[1:]))
    assert abs(hits / 600 - 0.5) < 0.1  # five standard errors
    assert out == lm.generate(model, b"a", 600, seed=1) != lm.generate(model, b"a", 600, seed=2)
    cold = lm.generate(model, b"a", 100, temperature=0.1)
    assert cold == bytes((97 + i) % 256 for i in range(101))


def test_generate_refuses_an_empty_prompt_and_a_temperature_of_zero():
    with pytest.raises(ValueError, match="prompt"):
        lm.generate(lm.ByteLM(SMALL), b"", 1)
    with pytest.raises(ValueError, match="temperature"):
        lm.generate(lm.ByteLM(SMALL), b"a", 1, temperature=0.0)
