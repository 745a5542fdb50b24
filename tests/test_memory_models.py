"""Architectures: counts against those published, shapes against torch's modules, reading a config.json; cards."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.memory.architecture import ROLES
from course_lib.memory.cards import CARDS, card_bytes
from course_lib.memory.models import MODELS, Architecture, Experts, Latent, find, from_config

# Counts of the published weights (safetensors headers of the repositories in Published.source), the tied head once.
EXACT = {
    "gpt2-124m": 124_439_808, "gpt2-355m": 354_823_168, "gpt2-774m": 774_030_080, "gpt2-1.5b": 1_557_611_200,
    "llama-2-7b": 6_738_415_616, "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800, "mixtral-8x7b": 46_702_792_704, "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360, "qwen3-32b": 32_762_123_264, "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
}
# Counts that were only published rounded, and to what.
ROUNDED = {"gpt3-175b": (174_600e6, 1e8), "deepseek-v3": (671e9, 1e9)}


@pytest.mark.parametrize("key", EXACT)
def test_the_shapes_come_to_the_published_count(key):
    assert MODELS[key].architecture.parameters == MODELS[key].parameters == EXACT[key]


@pytest.mark.parametrize("key", ROUNDED)
def test_the_shapes_round_to_the_published_count(key):
    published, unit = ROUNDED[key]
    assert MODELS[key].parameters == published
    assert round(MODELS[key].architecture.parameters / unit) * unit == published


def test_every_model_is_compared_and_says_where_it_is_from():
    assert {*EXACT, *ROUNDED, "kimi-k2"} == set(MODELS)
    assert all("20" in model.source for model in MODELS.values())
    off = {key: model.architecture.parameters / model.parameters - 1 for key, model in MODELS.items()}
    assert -0.014 < off.pop("kimi-k2") < -0.013  # the report's 1.04T; its weights have 1.026T
    assert max(map(abs, off.values())) < 5e-5


def test_deepseek_by_hand():
    """671B from the numbers in section 4.2 of 2412.19437."""
    latent = 7168 * 1536 + 1536 * 128 * 192 + 7168 * (512 + 64) + 512 * 128 * 256 + 128 * 128 * 7168 + 1536 + 512
    layer = latent + 2 * 7168
    sparse = layer + 256 * 7168 + 256 + 257 * 3 * 7168 * 2048
    dense = layer + 3 * 7168 * 18432
    embedding = 129280 * 7168
    model = find("deepseek-v3")
    assert model.parameters == 2 * embedding + 7168 + 3 * dense + 58 * sparse == 671_026_419_200


@pytest.mark.parametrize(
    ("key", "published"),
    [("mixtral-8x7b", 12.9e9), ("qwen3-30b-a3b", 3.3e9), ("qwen3-235b-a22b", 22e9), ("deepseek-v3", 37e9),
     ("kimi-k2", 32.6e9)],
)
def test_what_works_on_one_token(key, published):
    assert find(key).active_parameters == pytest.approx(published, rel=0.02)


def test_deepseek_counts_the_active_ones_without_the_embedding():
    """36.6B, says README_WEIGHTS.md of the repository: with the head, and without the embedding."""
    model = find("deepseek-v3")
    assert round((model.active_parameters - model.vocab * model.width) / 1e9, 1) == 36.6


def test_a_dense_model_works_whole():
    assert find("llama-3-8b").active_parameters == 8_030_261_248


# The shapes themselves.


@pytest.mark.parametrize("key", ["gpt2-124m", "gpt2-1.5b", "gpt3-175b"])
def test_a_block_of_gpt2_has_the_tensors_of_torch_s_layer(key):
    model = find(key)
    with torch.device("meta"):
        layer = torch.nn.TransformerEncoderLayer(model.width, model.heads, 4 * model.width)
    block = [weight.shape for weight in model.weights() if weight.name.startswith("layers.")]
    assert sorted(block) == sorted(tuple(parameter.shape) for parameter in layer.parameters())
    assert all(weight.copies == model.layers for weight in model.weights() if weight.name.startswith("layers."))


def test_a_block_of_llama_3_by_name():
    shapes = {weight.name: (weight.shape, weight.copies) for weight in find("llama-3-8b").weights()}
    assert shapes == {
        "embedding.weight": ((128256, 4096), 1),
        "layers.attention_norm.weight": ((4096,), 32),
        "layers.attention.query.weight": ((4096, 4096), 32),
        "layers.attention.key.weight": ((1024, 4096), 32),
        "layers.attention.value.weight": ((1024, 4096), 32),
        "layers.attention.output.weight": ((4096, 4096), 32),
        "layers.mlp_norm.weight": ((4096,), 32),
        "layers.mlp.gate.weight": ((14336, 4096), 32),
        "layers.mlp.up.weight": ((14336, 4096), 32),
        "layers.mlp.down.weight": ((4096, 14336), 32),
        "norm.weight": ((4096,), 1),
        "head.weight": ((128256, 4096), 1),
    }


@pytest.mark.parametrize("key", MODELS)
def test_weights_are_listed_once_each_under_a_known_role(key):
    weights = find(key).weights()
    names = [weight.name for weight in weights]
    assert len(set(names)) == len(names)
    assert {weight.role for weight in weights} <= set(ROLES)
    assert all(len(weight.shape) == 2 for weight in weights if weight.role not in ("norm", "bias"))


sizes = st.integers(1, 200)


@given(st.integers(1, 64), st.integers(1, 16), sizes, sizes, sizes)
def test_gpt2_is_12_layers_width_squared_and_some(head_width, heads, layers, vocab, context):
    width = head_width * heads
    model = Architecture("", vocab, context, width, layers, heads, heads, head_width, 4 * width, False, "layer", True,
                         True, False, "learned", True)
    assert model.parameters == 12 * layers * width**2 + 13 * layers * width + (vocab + context) * width + 2 * width


@given(head_width=sizes, kv_heads=st.integers(1, 8), groups=st.integers(1, 8), layers=sizes, vocab=sizes, width=sizes,
       mlp=sizes, tied=st.booleans(), qkv_bias=st.booleans(), qk_norm=st.booleans())
def test_llama_by_its_formula(head_width, kv_heads, groups, layers, vocab, width, mlp, tied, qkv_bias, qk_norm):
    heads = kv_heads * groups
    model = Architecture("", vocab, 1, width, layers, heads, kv_heads, head_width, mlp, True, "rms", False, qkv_bias,
                         qk_norm, "rotary", tied)
    attention = 2 * width * head_width * (heads + kv_heads)
    extras = head_width * (heads + 2 * kv_heads) * qkv_bias + 2 * head_width * qk_norm
    layer = attention + 3 * width * mlp + 2 * width + extras
    assert model.parameters == layers * layer + width + vocab * width * (2 - tied)


@given(count=st.integers(1, 64), data=st.data())
def test_experts_in_place_of_mlps(count, data):
    dense = find("llama-2-7b")
    active = data.draw(st.integers(1, count))
    first, shared = data.draw(st.integers(0, dense.layers)), data.draw(st.integers(0, 3))
    mixture = replace(dense, experts=Experts(count, active, 100, shared=shared, dense_layers=first))
    one, sparse = 3 * 4096 * 100, dense.layers - first
    change = sparse * ((count + shared) * one + count * 4096 - 3 * 4096 * 11008)
    assert mixture.parameters - dense.parameters == change
    assert mixture.parameters - mixture.active_parameters == sparse * (count - active) * one


@pytest.mark.parametrize(
    ("change", "says"),
    [({"width": 0}, "Invalid width: 0"), ({"layers": -1}, "Invalid layers: -1"),
     ({"vocab": True}, "Invalid vocab: True"), ({"heads": 2.0}, "Invalid heads: 2.0"),
     ({"context": float("nan")}, "Invalid context: nan"),
     ({"mlp_width": 10**10}, "from 1 to 1,000,000,000"), ({"kv_heads": 5}, "32 heads cannot share 5"),
     ({"norm": "batch"}, "Allowed: layer or rms"), ({"positions": "alibi"}, "Allowed: learned or rotary"),
     ({"experts": Experts(8, 2, 10, dense_layers=33)}, "33 dense layers are more than the model's 32")],
)
def test_an_architecture_that_cannot_be(change, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        replace(find("llama-3-8b"), **change)


def test_parts_that_cannot_be():
    with pytest.raises(ValueError, match="cannot visit 9 of 8 experts"):
        Experts(8, 9, 10)
    with pytest.raises(ValueError, match="Invalid shared: -1"):
        Experts(8, 2, 10, shared=-1)
    with pytest.raises(ValueError, match="Invalid kv_rank: 0"):
        Latent(0, 0, 64, 128, 128)


def test_a_model_is_found_by_its_key_and_else_the_nearest_named():
    assert find(" Llama-3-8B ").width == 4096
    with pytest.raises(ValueError, match="no model 'llama-3-9b'. Did you mean llama-3-8b"):
        find("llama-3-9b")
    with pytest.raises(ValueError, match="There are: gpt2-124m, .* config.json"):
        find("resnet50")


# config.json: the fields that the published files hold, those that decide no shape left out.

LLAMA = {"model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 8192, "hidden_size": 4096,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
         "tie_word_embeddings": False, "attention_bias": False, "rms_norm_eps": 1e-05, "rope_scaling": None}
GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_ctx": 1024, "n_embd": 768, "n_layer": 12,
        "n_head": 12, "n_inner": None}
MIXTRAL = LLAMA | {"model_type": "mixtral", "vocab_size": 32000, "max_position_embeddings": 32768,
                   "num_local_experts": 8, "num_experts_per_tok": 2}
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "max_position_embeddings": 40960, "hidden_size": 1024,
         "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
         "intermediate_size": 3072, "tie_word_embeddings": True, "attention_bias": False}
QWEN3_MOE = QWEN3 | {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
                     "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 6144,
                     "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
                     "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False}
DEEPSEEK = {"model_type": "deepseek_v3", "vocab_size": 129280, "max_position_embeddings": 163840, "hidden_size": 7168,
            "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
            "intermediate_size": 18432, "n_routed_experts": 256, "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048, "n_shared_experts": 1, "first_k_dense_replace": 3, "moe_layer_freq": 1,
            "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
            "v_head_dim": 128, "attention_bias": False, "num_nextn_predict_layers": 1}
KIMI = DEEPSEEK | {"model_type": "kimi_k2", "vocab_size": 163840, "max_position_embeddings": 131072,
                   "num_attention_heads": 64, "num_key_value_heads": 64, "n_routed_experts": 384,
                   "first_k_dense_replace": 1, "num_nextn_predict_layers": 0}
MISTRAL = LLAMA | {"model_type": "mistral", "vocab_size": 32000, "max_position_embeddings": 32768}
QWEN2 = {"model_type": "qwen2", "vocab_size": 152064, "max_position_embeddings": 131072, "hidden_size": 3584,
         "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
         "tie_word_embeddings": False}
QWEN2_MOE = {"model_type": "qwen2_moe", "vocab_size": 151936, "max_position_embeddings": 8192, "hidden_size": 2048,
             "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5632,
             "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
             "shared_expert_intermediate_size": 5632, "decoder_sparse_step": 1}
DEEPSEEK_V2_LITE = DEEPSEEK | {"model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048,
                               "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
                               "intermediate_size": 10944, "n_routed_experts": 64, "num_experts_per_tok": 6,
                               "moe_intermediate_size": 1408, "n_shared_experts": 2, "first_k_dense_replace": 1,
                               "q_lora_rank": None}


@pytest.mark.parametrize(
    ("key", "config"),
    [("gpt2-124m", GPT2), ("llama-3-8b", LLAMA), ("mixtral-8x7b", MIXTRAL), ("qwen3-0.6b", QWEN3),
     ("qwen3-30b-a3b", QWEN3_MOE), ("deepseek-v3", DEEPSEEK), ("kimi-k2", KIMI)],
)
def test_a_published_config_gives_the_model_known_here(key, config):
    assert replace(from_config(config), name=find(key).name) == find(key)


@pytest.mark.parametrize(
    ("config", "published"),
    [(MISTRAL, 7_241_732_096), (QWEN2, 7_615_616_512), (QWEN2_MOE, 14_315_784_192), (DEEPSEEK_V2_LITE, 15_706_484_224)],
    ids=["Mistral-7B-v0.1", "Qwen2.5-7B", "Qwen1.5-MoE-A2.7B", "DeepSeek-V2-Lite"],
)
def test_a_published_config_of_another_model_gives_its_published_count(config, published):
    assert from_config(config).parameters == published


def test_what_a_config_may_leave_out():
    first = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "tie_word_embeddings")}
    assert from_config(first).kv_heads == 32  # the first Llama's files
    assert from_config(GPT2 | {"n_inner": 1000}).mlp_width == 1000
    assert from_config(GPT2 | {"tie_word_embeddings": False}).parameters == 124_439_808 + 50257 * 768
    assert from_config(LLAMA | {"head_dim": 64}).head_width == 64
    biased = from_config(LLAMA | {"attention_bias": True, "mlp_bias": True})
    assert biased.parameters - 8_030_261_248 == 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)
    assert from_config(LLAMA | {"_name_or_path": "meta-llama/Meta-Llama-3-8B"}).name == "Meta-Llama-3-8B"
    assert from_config(LLAMA).name == "llama"


def test_a_config_is_read_from_a_file_or_its_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert from_config(tmp_path / "config.json") == from_config(str(tmp_path)) == from_config(LLAMA)


MAY_BE_MISSING = {
    "attention_bias", "decoder_sparse_step", "first_k_dense_replace", "mlp_only_layers", "moe_layer_freq", "n_ctx",
    "n_inner", "n_shared_experts", "num_nextn_predict_layers", "q_lora_rank", "rms_norm_eps", "rope_scaling",
    "tie_word_embeddings",
}


@pytest.mark.parametrize("config", [GPT2, LLAMA, MIXTRAL, MISTRAL, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE, DEEPSEEK],
                         ids=lambda config: config["model_type"])
def test_each_missing_field_is_named(config):
    """Whatever is taken away: the file is read as before the field was there, or the sentence names the field."""
    for field in config:
        rest = {key: value for key, value in config.items() if key != field}
        try:
            from_config(rest)
        except ValueError as error:
            assert field in str(error)
        else:
            assert field in MAY_BE_MISSING or (field == "num_key_value_heads" and config in (LLAMA, DEEPSEEK))
    with pytest.raises(ValueError, match=r"lacks .*, .*, .*"):
        from_config({"model_type": config["model_type"]})


@pytest.mark.parametrize(
    ("config", "says"),
    [({}, "no model_type"), ({"model_type": 7}, "no model_type"),
     ({"model_type": "resnet", "num_channels": 3}, "model_type 'resnet' is no transformer known here. Known: gpt2,"),
     ({"model_type": "lama"}, "The nearest is llama."),
     (LLAMA | {"hidden_size": -4096}, "Invalid hidden_size: -4096. Allowed: a whole number from 1"),
     (LLAMA | {"hidden_size": "4096"}, "Invalid hidden_size: '4096'"),
     (LLAMA | {"hidden_size": float("nan")}, "Invalid hidden_size: nan"),
     (LLAMA | {"num_hidden_layers": True}, "Invalid num_hidden_layers: True"),
     (LLAMA | {"vocab_size": 10**12}, "Invalid vocab_size"),
     (LLAMA | {"hidden_size": 4100}, "4100 is no multiple of the 32 heads"),
     (LLAMA | {"num_key_value_heads": 5}, "32 heads cannot share 5"),
     (LLAMA | {"tie_word_embeddings": "no"}, "Invalid tie_word_embeddings: 'no'. Allowed: true or false"),
     (LLAMA | {"attention_bias": True, "mlp_bias": False}, "mlp_bias = False is not supported"),
     (QWEN3_MOE | {"decoder_sparse_step": 2}, "decoder_sparse_step = 2 is not supported: only 1 is"),
     (QWEN3_MOE | {"mlp_only_layers": [0, 5]}, "mlp_only_layers"),
     (QWEN2_MOE | {"shared_expert_intermediate_size": 5000}, "5000 is no multiple of moe_intermediate_size = 1408"),
     (MIXTRAL | {"num_experts_per_tok": 9}, "cannot visit 9 of 8 experts"),
     (DEEPSEEK | {"kv_lora_rank": 0}, "Invalid kv_lora_rank: 0"),
     (DEEPSEEK | {"first_k_dense_replace": 62}, "62 dense layers are more")],
)
def test_a_config_that_no_model_can_have(config, says):
    with pytest.raises(ValueError) as error:
        from_config(config)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_config(tmp_path):
    def said(content: bytes | None) -> str:
        path = tmp_path / "config.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            from_config(path)
        assert str(path) in str(error.value)
        return str(error.value)

    assert "There is no file" in said(None)
    assert "is not JSON: line 2, column 1" in said(b'{"model_type":\n')
    assert "holds no JSON object, but a list" in said(b"[1]")
    assert "is not JSON" in said(b"\xff\xfe\x00")
    assert "is not JSON" in said(b"[" * 200_000)
    assert "is no config.json: it has 10,000,001 bytes" in said(b" " * 10_000_001)


# Cards.


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80GB", 80_000_000_000), ("80 gb", 80_000_000_000), ("80GiB", 85_899_345_920), ("1.5TB", 1_500_000_000_000),
     ("40960MiB", 42_949_672_960), ("h100", 80_000_000_000), ("H100 80GB", 80_000_000_000),
     ("NVIDIA A100 80GB", 80_000_000_000), ("a100-40", 40_000_000_000), ("RTX4090", 24_000_000_000),
     ("NVIDIA GeForce RTX 4090", 24_000_000_000), ("Tesla T4", 16_000_000_000), ("MI300X", 192_000_000_000)],
)
def test_a_card_as_people_write_it(text, expected):
    assert card_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [("80", "80GB (1e9 bytes each) or 80GiB (2^30 bytes each, 7% more)"), ("80G", "Write 80GB"), ("80XB", "Write 80GB"),
     ("0GB", "No GPU has 0GB"), ("-80GB", "No GPU has -80GB"), ("1e400GB", "Allowed: 1GB to 10,000GB"),
     ("100TB", "No GPU has"), ("nanGB", "There is no card 'nanGB'"), ("", "There are: t4,"),
     ("a100", "Did you mean a100-40 or a100-80?"), ("h10", "Did you mean h100"), ("H100 40GB", "or h100 or")],
)
def test_a_card_that_is_not_clear(text, says):
    with pytest.raises(ValueError) as error:
        card_bytes(text)
    assert says in str(error.value)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_found_by_its_name(name):
    assert card_bytes(name) == card_bytes(name.upper().replace("-", " ")) == CARDS[name]
