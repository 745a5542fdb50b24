"""WatchedLM: the same function as ByteLM, logits that are those of the softmax, and the bound of QK-norm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from course_lib.problems.lm import ByteLM, LMConfig
from course_lib.problems.watched_lm import WatchedLM

CONFIG = LMConfig(layers=2, width=16, heads=2, context=8)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.arange(24).reshape(3, 8) * 7 % 256


def test_without_qk_norm_it_is_the_language_model(tokens):
    plain, watched = ByteLM(CONFIG, seed=3), WatchedLM(CONFIG, seed=3)
    assert torch.equal(plain(tokens), watched(tokens))
    assert plain.state_dict().keys() == watched.state_dict().keys()
    assert not torch.equal(WatchedLM(CONFIG, seed=4)(tokens), watched(tokens))


def test_the_largest_logit_is_that_of_the_masked_scores(tokens):
    model = WatchedLM(CONFIG)
    with torch.no_grad():
        for block in model.blocks:
            block.attention_in.weight.mul_(40)
        model(tokens)
        x, largest = model.byte_embedding(tokens) + model.position_embedding.weight, []
        for block in model.blocks:
            query, key, _ = block.attention_in(block.attention_norm(x)).chunk(3, dim=-1)
            for head in range(2):
                part = slice(8 * head, 8 * head + 8)
                for row in range(3):
                    for t in range(8):
                        for s in range(t + 1):
                            product = (query[row, t, part] * key[row, s, part]).sum()
                            largest.append(abs(product.item()) / math.sqrt(8))
            x = block(x)
    assert model.largest_logit == pytest.approx(max(largest), rel=1e-5)
    assert model.largest_logit > 1


def test_qk_norm_bounds_the_logits_whatever_the_weights(tokens):
    model, plain = WatchedLM(CONFIG, qk_norm=True), WatchedLM(CONFIG)
    extra = model.state_dict().keys() - plain.state_dict().keys()
    assert len(extra) == 4 and sum(model.state_dict()[name].numel() for name in extra) == 2 * 2 * 16 // 2
    with torch.no_grad():
        for net in (model, plain):
            for block in net.blocks:
                block.attention_in.weight.mul_(1000)
            net(tokens)
        assert model.largest_logit <= math.sqrt(8) * 1.001 and plain.largest_logit > 1000
        model.blocks[0].query_norm.weight.fill_(10.0)  # gains can undo it
        model(tokens)
        assert model.largest_logit > 10


def test_the_watch_leaves_no_trace_in_the_gradients(tokens):
    grads = []
    for model in (ByteLM(CONFIG), WatchedLM(CONFIG)):
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        grads.append([param.grad for param in model.parameters()])
    assert all(map(torch.equal, *grads))


def test_a_nan_in_any_block_is_told(tokens):
    model = WatchedLM(CONFIG)
    with torch.no_grad():
        model.blocks[1].attention_in.bias[0] = math.nan
        model(tokens)
    assert math.isnan(model.largest_logit) and not math.isnan(model.blocks[0].largest_logit)
