"""Architectures of well-known models as data, each beside the parameter count that its makers published."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from course_lib.memory.architecture import Architecture, Experts, Latent, Weight
from course_lib.memory.configs import from_config

__all__ = ["MODELS", "Architecture", "Experts", "Latent", "Published", "Weight", "find", "from_config"]


@dataclass(frozen=True)
class Published:
    """A model as it was published.

    Attributes:
        architecture: its shapes.
        parameters: the published count, in the precision in which it was published.
        source: where sizes and count are from.
        note: where the count of ``architecture`` and the published one, or the model's name, differ, and why.
    """

    architecture: Architecture
    parameters: int
    source: str
    note: str = ""


def _gpt(name: str, width: int, layers: int, heads: int, context: int = 1024) -> Architecture:
    return Architecture(
        name, vocab=50257, context=context, width=width, layers=layers, heads=heads, kv_heads=heads,
        head_width=width // heads, mlp_width=4 * width, gated=False, norm="layer", biases=True, qkv_bias=True,
        qk_norm=False, positions="learned", tied=True,
    )


def _llama(name: str, width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, *, vocab: int,
           context: int, head_width: int = 128, qk_norm: bool = False, tied: bool = False,
           experts: Experts | None = None, latent: Latent | None = None) -> Architecture:
    return Architecture(
        name, vocab=vocab, context=context, width=width, layers=layers, heads=heads, kv_heads=kv_heads,
        head_width=head_width, mlp_width=mlp_width, gated=True, norm="rms", biases=False, qkv_bias=False,
        qk_norm=qk_norm, positions="rotary", tied=tied, experts=experts, latent=latent,
    )


def _deepseek(name: str, heads: int, experts: int, dense_layers: int, vocab: int, context: int) -> Architecture:
    return _llama(
        name, 7168, 61, heads, heads, 18432, vocab=vocab, context=context, head_width=192,
        experts=Experts(experts, active=8, width=2048, shared=1, dense_layers=dense_layers, router_bias=True),
        latent=Latent(query_rank=1536, kv_rank=512, rope_width=64, nope_width=128, value_width=128),
    )


_GPT2 = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners, Table 2; openai-community/{}"
_GPT2_NOTE = "Table 2 of the paper says {}; the published weights have the number here, the tied head counted once."
_LLAMA3 = "Grattafiori et al. 2024, 2407.21783, Table 3; meta-llama/{}"
_LLAMA3_NOTE = "The paper rounds the vocabulary to 128,000; the published weights have 128,256 rows."
_QWEN3 = "Yang et al. 2025, 2505.09388, Tables 1 and 2; Qwen/{}"
_QWEN = {"vocab": 151936, "context": 40960, "qk_norm": True}

MODELS: dict[str, Published] = {
    "gpt2-124m": Published(_gpt("GPT-2 124M", 768, 12, 12), 124_439_808,
                           _GPT2.format("gpt2"), _GPT2_NOTE.format("117M")),
    "gpt2-355m": Published(_gpt("GPT-2 355M", 1024, 24, 16), 354_823_168,
                           _GPT2.format("gpt2-medium"), _GPT2_NOTE.format("345M")),
    "gpt2-774m": Published(_gpt("GPT-2 774M", 1280, 36, 20), 774_030_080,
                           _GPT2.format("gpt2-large"), _GPT2_NOTE.format("762M")),
    "gpt2-1.5b": Published(_gpt("GPT-2 1.5B", 1600, 48, 25), 1_557_611_200,
                           _GPT2.format("gpt2-xl"), _GPT2_NOTE.format("1542M")),
    "gpt3-175b": Published(
        _gpt("GPT-3 175B", 12288, 96, 96, context=2048), 174_600_000_000,
        "Brown et al. 2020, 2005.14165, Table 2.1 (sizes) and Table D.1 (count)",
        "Table D.1 gives 174,600 million, the name 175 billion. The weights are not published."),
    "llama-2-7b": Published(
        _llama("Llama 2 7B", 4096, 32, 32, 32, 11008, vocab=32000, context=4096), 6_738_415_616,
        "Touvron et al. 2023, 2307.09288; meta-llama/Llama-2-7b-hf", "7B is rounded up."),
    "llama-3-8b": Published(
        _llama("Llama 3 8B", 4096, 32, 32, 8, 14336, vocab=128256, context=8192), 8_030_261_248,
        _LLAMA3.format("Meta-Llama-3-8B"), _LLAMA3_NOTE),
    "llama-3-70b": Published(
        _llama("Llama 3 70B", 8192, 80, 64, 8, 28672, vocab=128256, context=8192), 70_553_706_496,
        _LLAMA3.format("Meta-Llama-3-70B"), _LLAMA3_NOTE),
    "llama-3-405b": Published(
        _llama("Llama 3.1 405B", 16384, 126, 128, 8, 53248, vocab=128256, context=131072), 405_853_388_800,
        _LLAMA3.format("Llama-3.1-405B"), _LLAMA3_NOTE),
    "mixtral-8x7b": Published(
        _llama("Mixtral 8x7B", 4096, 32, 32, 8, 14336, vocab=32000, context=32768, experts=Experts(8, 2, 14336)),
        46_702_792_704, "Jiang et al. 2024, 2401.04088, Table 1; mistralai/Mixtral-8x7B-v0.1",
        "Not 8 x 7B: only the experts exist eight times. The paper says 47B, of which 13B work on a token."),
    "qwen3-0.6b": Published(
        _llama("Qwen3 0.6B", 1024, 28, 16, 8, 3072, **_QWEN, tied=True), 596_049_920, _QWEN3.format("Qwen3-0.6B"),
        "The file stores the tied head a second time: 751,632,384 numbers."),
    "qwen3-8b": Published(_llama("Qwen3 8B", 4096, 36, 32, 8, 12288, **_QWEN), 8_190_735_360,
                          _QWEN3.format("Qwen3-8B"), "The makers write 8.2B."),
    "qwen3-32b": Published(_llama("Qwen3 32B", 5120, 64, 64, 8, 25600, **_QWEN), 32_762_123_264,
                           _QWEN3.format("Qwen3-32B"), "The makers write 32.8B."),
    "qwen3-30b-a3b": Published(
        _llama("Qwen3 30B-A3B", 2048, 48, 32, 4, 6144, **_QWEN, experts=Experts(128, 8, 768)), 30_532_122_624,
        _QWEN3.format("Qwen3-30B-A3B"), "The makers write 30.5B, of which 3.3B work on a token."),
    "qwen3-235b-a22b": Published(
        _llama("Qwen3 235B-A22B", 4096, 94, 64, 4, 12288, **_QWEN, experts=Experts(128, 8, 1536)), 235_093_634_560,
        _QWEN3.format("Qwen3-235B-A22B"), "The makers write 235B, of which 22B work on a token."),
    "deepseek-v3": Published(
        _deepseek("DeepSeek-V3", 128, 256, 3, vocab=129280, context=163840), 671_000_000_000,
        "DeepSeek-AI 2024, 2412.19437, section 4.2; deepseek-ai/DeepSeek-V3",
        "671B, of which 37B work on a token, leave out the module that predicts one token further (its own block of "
        "11.5B, and copies of embedding and head): 685B with it."),
    "kimi-k2": Published(
        _deepseek("Kimi K2", 64, 384, 1, vocab=163840, context=131072), 1_040_000_000_000,
        "Kimi Team 2025, 2507.20534, Table 2; moonshotai/Kimi-K2-Base",
        "The report says 1.04T, of which 32.6B work on a token; the shapes of the published weights come to 1.026T."),
}


def find(name: str) -> Architecture:
    """The architecture of the model with this key of ``MODELS``, whatever the case of its letters.

    Raises:
        ValueError: there is no such model; the message names the nearest ones.
    """
    key = str(name).strip().lower()
    if key not in MODELS:
        near = difflib.get_close_matches(key, MODELS, cutoff=0.5)
        advice = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(MODELS)}."
        raise ValueError(f"There is no model {str(name)!r}. {advice} Any other can be read from its config.json.")
    return MODELS[key].architecture
