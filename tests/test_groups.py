"""Parameter groups: every tensor once, under the kind a reader would give it, with the rate and decay asked for."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_lib.groups import KINDS, describe, muon_groups, parameter_groups
from course_lib.problems.lm import ByteLM, LMConfig


@pytest.fixture
def model():
    return ByteLM(LMConfig(layers=3, width=8, heads=2, context=4))


def names(groups) -> dict[str, list[str]]:
    return {group["name"]: group["param_names"] for group in groups}


def settings(groups) -> dict[str, tuple[float, float]]:
    """(lr, weight decay) of every tensor by its name."""
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}


def test_the_kinds_of_a_language_model(model):
    found = names(parameter_groups(model, lr=1e-3, weight_decay=0.1))
    assert list(found) == ["embedding", "attention", "mlp", "norm_and_bias", "head"]
    assert found["embedding"] == ["byte_embedding.weight", "position_embedding.weight"]
    assert found["attention"] == [f"blocks.{i}.attention_{end}.weight" for i in range(3) for end in ("in", "out")]
    assert found["mlp"] == [f"blocks.{i}.mlp_{end}.weight" for i in range(3) for end in ("in", "out")]
    assert found["head"] == ["head.weight"]
    assert {"norm.weight", "norm.bias", "blocks.0.attention_norm.weight", "blocks.2.mlp_in.bias"} <= set(
        found["norm_and_bias"]
    )


def test_params_and_names_belong_together(model):
    by_name = dict(model.named_parameters())
    for groups in (
        parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5),
        muon_groups(model, lr=1.0, adamw_lr=1.0, weight_decay=0.1),
    ):
        listed = [name for group in groups for name in group["param_names"]]
        assert sorted(listed) == sorted(by_name)
        for group in groups:
            assert group["params"]
            assert all(
                param is by_name[name] for param, name in zip(group["params"], group["param_names"], strict=True)
            )


def test_matrices_decay_and_the_rest_does_not(model):
    for name, (lr, decay) in settings(parameter_groups(model, lr=0.25, weight_decay=0.1)).items():
        assert lr == 0.25
        assert decay == (0.1 if "embedding" not in name and dict(model.named_parameters())[name].ndim == 2 else 0.0), (
            name
        )


def test_rates_by_kind(model):
    found = settings(parameter_groups(model, lr=0.5, weight_decay=0.0, rates={"embedding": 0.125, "head": 2}))
    assert found["byte_embedding.weight"][0] == 0.0625
    assert found["head.weight"][0] == 1.0
    assert found["blocks.0.mlp_in.weight"][0] == found["norm.bias"][0] == 0.5


def test_rates_by_layer(model):
    found = settings(parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, rates={"mlp": 3.0}))
    expected = {
        "byte_embedding.weight": 1 / 16,
        "position_embedding.weight": 1 / 16,
        "blocks.0.attention_in.weight": 1 / 8,
        "blocks.0.mlp_in.weight": 3 / 8,
        "blocks.1.mlp_norm.bias": 1 / 4,
        "blocks.2.mlp_out.bias": 1 / 2,
        "norm.weight": 1.0,
        "head.weight": 1.0,
    }
    assert {name: found[name][0] for name in expected} == expected
    assert found["blocks.0.mlp_in.weight"][1] == 0.1 and found["blocks.0.mlp_in.bias"][1] == 0.0
    by_group = names(parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5))
    assert list(by_group)[:3] == ["before the blocks, embedding", "block 0, attention", "block 0, mlp"]
    assert list(by_group)[-2:] == ["after the blocks, norm_and_bias", "after the blocks, head"]


def test_a_tied_head_is_an_embedding_and_comes_once(model):
    model.head.weight = model.byte_embedding.weight
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    ids = [id(param) for group in groups for param in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    assert settings(groups)["byte_embedding.weight"] == (1 / 16, 0.0)
    assert "head.weight" not in settings(groups)
    torch.optim.AdamW(groups)  # torch refuses a tensor that stands in two groups


def test_frozen_tensors_are_left_out(model):
    for param in model.blocks[0].parameters():
        param.requires_grad_(False)
    assert not any(name.startswith("blocks.0.") for name in settings(parameter_groups(model, lr=1.0, weight_decay=0.1)))
    found = settings(parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5))
    assert found["blocks.1.mlp_in.weight"][0] == 1 / 4  # a frozen layer is still a layer
    assert not any("blocks.0." in name for name in settings(muon_groups(model, lr=1.0, adamw_lr=1.0, weight_decay=0.1)))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model, lr=1.0, weight_decay=0.1)


def test_a_model_of_other_names():
    """Names as in nanoGPT and in Hugging Face's models; a convolution; a position table that is a bare parameter."""
    model = nn.Module()
    model.wte = nn.Embedding(10, 4)
    model.pos_embed = nn.Parameter(torch.zeros(6, 4))
    model.patch = nn.Conv2d(3, 4, 2)
    block = nn.Module()
    block.self_attn = nn.MultiheadAttention(4, 2)
    block.ln_1 = nn.LayerNorm(4)
    block.rms = nn.RMSNorm(4)
    block.feed_forward = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    block.c_fc = nn.Linear(4, 8)
    block.gate = nn.Linear(4, 4)
    block.scale = nn.Parameter(torch.ones(4))
    model.h = nn.ModuleList([block])
    model.lm_head = nn.Linear(4, 10)
    kinds = {
        name: group["name"]
        for group in parameter_groups(model, lr=1.0, weight_decay=0.1)
        for name in group["param_names"]
    }
    assert kinds == {
        "wte.weight": "embedding",
        "pos_embed": "embedding",
        "patch.weight": "other",
        "patch.bias": "norm_and_bias",
        "h.0.self_attn.in_proj_weight": "attention",
        "h.0.self_attn.in_proj_bias": "norm_and_bias",
        "h.0.self_attn.out_proj.weight": "attention",
        "h.0.self_attn.out_proj.bias": "norm_and_bias",
        "h.0.ln_1.weight": "norm_and_bias",
        "h.0.ln_1.bias": "norm_and_bias",
        "h.0.rms.weight": "norm_and_bias",
        "h.0.feed_forward.0.weight": "mlp",
        "h.0.feed_forward.0.bias": "norm_and_bias",
        "h.0.feed_forward.2.weight": "mlp",
        "h.0.feed_forward.2.bias": "norm_and_bias",
        "h.0.c_fc.weight": "mlp",
        "h.0.c_fc.bias": "norm_and_bias",
        "h.0.gate.weight": "other",
        "h.0.gate.bias": "norm_and_bias",
        "h.0.scale": "norm_and_bias",
        "lm_head.weight": "head",
        "lm_head.bias": "norm_and_bias",
    }
    hidden = names(muon_groups(model, lr=1.0, adamw_lr=0.1, weight_decay=0.1))["hidden matrices"]
    assert hidden == [
        "h.0.self_attn.in_proj_weight",
        "h.0.self_attn.out_proj.weight",
        "h.0.feed_forward.0.weight",
        "h.0.feed_forward.2.weight",
        "h.0.c_fc.weight",
        "h.0.gate.weight",
    ]


def test_layers_with_names_of_their_own():
    model = nn.Sequential(OrderedDict(stem=nn.Linear(2, 2), body=nn.Linear(2, 2)))
    found = settings(parameter_groups(model, lr=1.0, weight_decay=0.0, layer_decay=0.5))
    assert found["stem.weight"][0] == 0.25 and found["body.weight"][0] == 0.5
    with pytest.raises(ValueError, match=r"layer_decay for this model: it has no nn\.ModuleList"):
        parameter_groups(nn.Linear(2, 2), lr=1.0, weight_decay=0.0, layer_decay=0.5)


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest(model):
    groups = muon_groups(model, lr=0.02, adamw_lr=0.001, weight_decay=0.1)
    assert [(g["name"], g["adamw"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("hidden matrices", False, 0.02, 0.1, 12),
        ("other matrices", True, 0.001, 0.1, 1),
        ("embeddings, norms and biases", True, 0.001, 0.0, 28),
    ]
    assert all(param.ndim == 2 for param in groups[0]["params"])
    torch.optim.Muon(groups[0]["params"])
    with pytest.raises(ValueError, match="Muon has nothing to do"):
        muon_groups(nn.Embedding(3, 2), lr=0.1, adamw_lr=0.1, weight_decay=0.0)
    assert [
        group["name"] for group in muon_groups(nn.Linear(2, 2, bias=False), lr=1.0, adamw_lr=1.0, weight_decay=0.0)
    ] == ["hidden matrices"]


def test_an_optimizer_takes_the_groups_and_keeps_the_names(model):
    groups = parameter_groups(model, lr=0.1, weight_decay=0.5, rates={"embedding": 0.0})
    optimizer = torch.optim.AdamW(groups)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()  # no gradient: only the decay moves anything, by a factor of 1 - 0.1 * 0.5
    for name, param in model.named_parameters():
        factor = 0.95 if param.ndim == 2 and "embedding" not in name else 1.0
        torch.testing.assert_close(param.detach(), before[name] * factor, rtol=1e-6, atol=0)
    assert describe(optimizer.param_groups) == describe(groups)


def test_the_table_adds_up(model):
    text = describe(parameter_groups(model, lr=3e-4, weight_decay=0.1))
    lines = text.splitlines()
    assert lines[0].split() == ["group", "lr", "weight", "decay", "tensors", "parameters", "first", "of", "them"]
    assert lines[1].split()[:5] == ["embedding", "0.0003", "0", "2", f"{(256 + 4) * 8:,}"]
    assert lines[2].endswith("blocks.0.attention_in.weight, blocks.0.attention_out.weight and 4 more")
    total = sum(param.numel() for param in model.parameters())
    assert lines[-1].split() == ["together", str(len(list(model.parameters()))), f"{total:,}"]
    assert all(line == line.rstrip() for line in lines)
    assert describe(torch.optim.SGD(model.parameters(), lr=0.1).param_groups).splitlines()[1].split()[:3] == [
        "0",
        "0.1",
        "0",
    ]


@given(
    lr=st.floats(0, 10),
    decay=st.floats(0, 1),
    layer_decay=st.floats(0.01, 1),
    tie=st.booleans(),
    frozen=st.sets(st.sampled_from([name for name, _ in ByteLM(LMConfig(2, 4, 2, 4)).named_parameters()]), max_size=8),
    rates=st.dictionaries(st.sampled_from(KINDS), st.floats(0, 5)),
)
def test_every_trained_tensor_is_in_one_group(lr, decay, layer_decay, tie, frozen, rates):
    model = ByteLM(LMConfig(2, 4, 2, 4))
    for name, param in model.named_parameters():
        param.requires_grad_(name not in frozen)
    if tie:
        model.head.weight = model.byte_embedding.weight
    expected = {id(param) for param in model.parameters() if param.requires_grad}
    for groups in (
        parameter_groups(model, lr=lr, weight_decay=decay, rates=rates, layer_decay=layer_decay),
        muon_groups(model, lr=lr, adamw_lr=lr, weight_decay=decay),
    ):
        found = [id(param) for group in groups for param in group["params"]]
        assert len(found) == len(set(found)) and set(found) == expected
        assert all(group["weight_decay"] in (0.0, decay) for group in groups)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, True, "0.1", None])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "layer_decay"])
def test_numbers_out_of_range(model, name, bad):
    with pytest.raises((TypeError, ValueError), match=rf"Invalid {name}: .* Allowed: "):
        parameter_groups(model, **({"lr": 0.1, "weight_decay": 0.1} | {name: bad}))


def test_bad_rates_and_decays(model):
    with pytest.raises(
        ValueError, match=r"there is no kind 'embeddings'. Did you mean 'embedding'\? Allowed: embedding, "
    ):
        parameter_groups(model, lr=0.1, weight_decay=0.1, rates={"embeddings": 0.1})
    with pytest.raises(ValueError, match=r"Invalid rates\['head'\]: nan"):
        parameter_groups(model, lr=0.1, weight_decay=0.1, rates={"head": math.nan})
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"Invalid layer_decay: .* 0 < layer_decay <= 1"):
            parameter_groups(model, lr=0.1, weight_decay=0.1, layer_decay=bad)
    for name in ("lr", "adamw_lr", "weight_decay"):
        with pytest.raises(ValueError, match=f"Invalid {name}: -1"):
            muon_groups(model, **({"lr": 0.1, "adamw_lr": 0.1, "weight_decay": 0.1} | {name: -1}))
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(nn.ReLU(), lr=0.1, weight_decay=0.1)
