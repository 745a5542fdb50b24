"""A model's shapes from the config.json that a Hugging Face checkpoint carries."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from course_lib.memory.architecture import Architecture, Experts, Latent, require_size

MOST_BYTES = 10_000_000  # of a config.json; a larger file is something else, perhaps the weights


def from_config(config: Mapping[str, Any] | str | Path) -> Architecture:
    """The architecture that a Hugging Face ``config.json`` describes.

    Args:
        config: what the file holds, or the path of the file or of its folder. Known are the kinds in ``KINDS``.

    Raises:
        ValueError: there is no such file, it is no JSON, it lacks a field (all of them are named), a field has a
            value that no model can have, or it describes something else than a transformer known here.
    """
    if not isinstance(config, Mapping):
        config = _read(Path(config))
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ValueError("The configuration has no model_type. Is it the config.json of a Hugging Face checkpoint?")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" The nearest is {near[0]}." if near else ""
        raise ValueError(f"model_type {kind!r} is no transformer known here. Known: {', '.join(KINDS)}.{hint}")
    required, build = KINDS[kind]
    missing = [field for field in required if config.get(field) is None]
    if missing:
        raise ValueError(f"The configuration ({kind}) lacks {', '.join(missing)}.")
    return build(config)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.is_dir():
            path = path / "config.json"
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is no config.json: it has {path.stat().st_size:,} bytes.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except (UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is not JSON.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object, but a {type(found).__name__}.")
    return found


def _name(config: Mapping[str, Any]) -> str:
    """The checkpoint's name where the file tells it, else the kind of model."""
    given = config.get("_name_or_path")
    return (Path(given).name if isinstance(given, str) else "") or config["model_type"]


def _size(config: Mapping[str, Any], field: str, default: int | None = None, least: int = 1) -> int:
    value = config.get(field)
    return require_size(field, default if value is None else value, least)


def _flag(config: Mapping[str, Any], field: str, default: bool) -> bool:
    value = config.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"Invalid {field}: {value!r}. Allowed: true or false.")
    return value


def _refuse(config: Mapping[str, Any], **usual: Any) -> None:
    """Say so where a field has a value that would change the shapes in a way not described here."""
    for field, value in usual.items():
        if config.get(field, value) not in (value, None):
            raise ValueError(f"{field} = {config[field]!r} is not supported: only {json.dumps(value)} is.")


def _gpt2(config: Mapping[str, Any]) -> Architecture:
    _refuse(config, add_cross_attention=False)
    width, heads = _size(config, "n_embd"), _size(config, "n_head")
    return Architecture(
        name=_name(config), vocab=_size(config, "vocab_size"), context=_size(config, "n_positions"), width=width,
        layers=_size(config, "n_layer"), heads=heads, kv_heads=heads, head_width=_split("n_embd", width, heads),
        mlp_width=_size(config, "n_inner", 4 * width), gated=False, norm="layer", biases=True, qkv_bias=True,
        qk_norm=False, positions="learned", tied=_flag(config, "tie_word_embeddings", True),
    )


def _llama(config: Mapping[str, Any], *, biases: bool = False, qkv_bias: bool = False, qk_norm: bool = False,
           experts: Experts | None = None, latent: Latent | None = None) -> Architecture:
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    if latent:
        head_width = latent.nope_width + latent.rope_width
    elif config.get("head_dim") is None:
        head_width = _split("hidden_size", width, heads)
    else:
        head_width = _size(config, "head_dim")
    return Architecture(
        name=_name(config), vocab=_size(config, "vocab_size"), context=_size(config, "max_position_embeddings"),
        width=width, layers=_size(config, "num_hidden_layers"), heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads), head_width=head_width,
        mlp_width=_size(config, "intermediate_size"), gated=True, norm="rms", biases=biases,
        qkv_bias=qkv_bias or biases, qk_norm=qk_norm, positions="rotary",
        tied=_flag(config, "tie_word_embeddings", False), experts=experts, latent=latent,
    )


def _split(field: str, width: int, heads: int) -> int:
    if width % heads:
        raise ValueError(f"{field} = {width} is no multiple of the {heads} heads, and no head_dim is given.")
    return width // heads


def _plain(config: Mapping[str, Any]) -> Architecture:
    biases = _flag(config, "attention_bias", False)
    _refuse(config, mlp_bias=biases)
    return _llama(config, biases=biases)


def _mixtral(config: Mapping[str, Any]) -> Architecture:
    experts = Experts(_size(config, "num_local_experts"), _size(config, "num_experts_per_tok"),
                      _size(config, "intermediate_size"))
    return _llama(config, experts=experts)


def _qwen2(config: Mapping[str, Any]) -> Architecture:
    return _llama(config, qkv_bias=True)


def _qwen3(config: Mapping[str, Any]) -> Architecture:
    _refuse(config, attention_bias=False)
    return _llama(config, qk_norm=True)


def _qwen_experts(config: Mapping[str, Any]) -> tuple[int, int, int]:
    _refuse(config, decoder_sparse_step=1, mlp_only_layers=[])
    fields = "num_experts", "num_experts_per_tok", "moe_intermediate_size"
    count, active, width = (_size(config, field) for field in fields)
    return count, active, width


def _qwen2_moe(config: Mapping[str, Any]) -> Architecture:
    count, active, width = _qwen_experts(config)
    together = _size(config, "shared_expert_intermediate_size")
    if together % width:
        raise ValueError(f"shared_expert_intermediate_size = {together} is no multiple of moe_intermediate_size = "
                         f"{width}.")
    _refuse(config, qkv_bias=True)
    return _llama(config, qkv_bias=True,
                  experts=Experts(count, active, width, shared=together // width, shared_gate=True))


def _qwen3_moe(config: Mapping[str, Any]) -> Architecture:
    _refuse(config, attention_bias=False)
    return _llama(config, qk_norm=True, experts=Experts(*_qwen_experts(config)))


def _deepseek(config: Mapping[str, Any]) -> Architecture:
    _refuse(config, attention_bias=False, moe_layer_freq=1)
    experts = Experts(
        _size(config, "n_routed_experts"), _size(config, "num_experts_per_tok"),
        _size(config, "moe_intermediate_size"), _size(config, "n_shared_experts", 0, least=0),
        _size(config, "first_k_dense_replace", 0, least=0), router_bias=config["model_type"] != "deepseek_v2",
    )
    latent = Latent(
        _size(config, "q_lora_rank", 0, least=0), _size(config, "kv_lora_rank"), _size(config, "qk_rope_head_dim"),
        _size(config, "qk_nope_head_dim"), _size(config, "v_head_dim"),
    )
    return _llama(config, experts=experts, latent=latent)


_COMMON = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads",
           "intermediate_size")
_GROUPED = (*_COMMON, "num_key_value_heads")  # whose classes have defaults other than the number of heads
_QWEN_MOE = (*_GROUPED, "num_experts", "num_experts_per_tok", "moe_intermediate_size")
_DEEPSEEK = (*_COMMON, "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "kv_lora_rank",
             "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")

# model_type: the fields without which the shapes are not known, and what reads them.
KINDS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Architecture]]] = {
    "gpt2": (("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"), _gpt2),
    "llama": (_COMMON, _plain),
    "mistral": (_GROUPED, _llama),
    "mixtral": ((*_GROUPED, "num_local_experts", "num_experts_per_tok"), _mixtral),
    "qwen2": (_GROUPED, _qwen2),
    "qwen2_moe": ((*_QWEN_MOE, "shared_expert_intermediate_size"), _qwen2_moe),
    "qwen3": ((*_GROUPED, "head_dim"), _qwen3),
    "qwen3_moe": ((*_QWEN_MOE, "head_dim"), _qwen3_moe),
    "deepseek_v2": (_DEEPSEEK, _deepseek),
    "deepseek_v3": (_DEEPSEEK, _deepseek),
    "kimi_k2": (_DEEPSEEK, _deepseek),
}
