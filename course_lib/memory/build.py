"""GPT-2-style and Llama-style models in plain PyTorch, from an :class:`Architecture`, as objects of measurement.

Nothing is fused that torch does not fuse by itself, with one exception: an RMSNorm keeps its input and one number a
row, as torch's kernel on CUDA does since 2.9. (Its formula written out, as in Llama's and Hugging Face's code, keeps a
float32 copy of the input as well.) There is no dropout, as in the pretraining of Llama and its like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from course_lib.memory.architecture import Architecture
from course_lib.memory.arguments import choice
from course_lib.memory.kept import ATTENTION, RECOMPUTE

_EPS = 1e-5


def build(
    architecture: Architecture,
    *,
    attention: str = "flash",
    recompute: str = "none",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A model whose named parameters are ``architecture.weights()``: same names (a layer's number left out) and shapes.

    Args:
        architecture: dense, with ordinary attention.
        attention: "flash" calls ``scaled_dot_product_attention``; "eager" writes out softmax(QK') V.
        recompute: what runs a second time in the backward pass. "selective": the core of attention, from queries, keys
            and values to its output (Korthikanti et al. 2022, 2205.05198, section 5); "full": every block.
        dtype: of the parameters.

    Raises:
        ValueError: an argument is unknown, or the architecture has experts or latent attention, which are predicted
            from shapes alone.
    """
    attention, recompute = choice("attention", attention, ATTENTION), choice("recompute", recompute, RECOMPUTE)
    if architecture.experts or architecture.latent:
        what = "a mixture of experts" if architecture.experts else "latent attention"
        raise ValueError(
            f"{architecture.name} has {what}, which is not built here. Its memory is predicted from shapes alone; "
            "measure a dense model such as 'llama-3-8b'."
        )
    return Transformer(architecture, attention, recompute, dtype)


def next_token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy in nats, of float32 logits: a ``loss_fn`` for ``measure`` and ``train``.

    Args:
        model: maps int64 (batch, sequence) to logits (batch, sequence, vocab).
        batch: ``(inputs, targets)``, int64 (batch, sequence) each.
    """
    inputs, targets = batch
    # 16-bit logits are let go here, before the cross-entropy: no name is bound to them.
    logits = model(inputs).flatten(0, 1).float()
    return F.cross_entropy(logits, targets.flatten())


class Transformer(nn.Module):
    """A decoder-only transformer, pre-norm. Made by :func:`build`; weights are drawn by torch's defaults."""

    def __init__(self, architecture: Architecture, attention: str, recompute: str, dtype: torch.dtype) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.attention, self.recompute = attention, recompute
        self.embedding = nn.Embedding(a.vocab, a.width, dtype=dtype)
        if a.positions == "learned":
            self.positions = nn.Embedding(a.context, a.width, dtype=dtype)
        self.layers = nn.ModuleList(Block(a, attention, recompute == "selective", dtype) for _ in range(a.layers))
        self.norm = _norm(a.norm, a.width, dtype)
        self.head = nn.Linear(a.width, a.vocab, bias=False, dtype=dtype)
        if a.tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, sequence, vocab) in the parameters' dtype, for int64 tokens (batch, sequence).

        Raises:
            ValueError: the sequence is longer than the table of learned positions.
        """
        sequence, tables, future = tokens.shape[1], None, None
        if self.architecture.positions == "learned" and sequence > self.architecture.context:
            raise ValueError(
                f"{self.architecture.name} has learned positions up to {self.architecture.context}; {sequence} tokens "
                "do not fit. Use a shorter sequence, or an architecture with a larger context."
            )
        x = self.embedding(tokens)
        # What all blocks share is made once.
        if self.architecture.positions == "learned":
            x = x + self.positions.weight[:sequence]
        else:
            tables = _rotary_tables(sequence, self.architecture.head_width, x)
        if self.attention == "eager":
            future = torch.ones(sequence, sequence, dtype=torch.bool, device=x.device).triu(1)
        for block in self.layers:
            x = _again(block, x, tables, future) if self.recompute == "full" else block(x, tables, future)
        return self.head(self.norm(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). Input and output (batch, sequence, width)."""

    def __init__(self, a: Architecture, attention: str, recompute: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention_norm = _norm(a.norm, a.width, dtype)
        self.attention = Attention(a, attention, recompute, dtype)
        self.mlp_norm = _norm(a.norm, a.width, dtype)
        self.mlp = MLP(a, dtype)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor] | None, future: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), tables, future)
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal attention over heads, with grouped keys and values where the architecture has fewer of them."""

    def __init__(self, a: Architecture, kind: str, recompute: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = a.heads, a.kv_heads, a.head_width
        self.core = _flash if kind == "flash" else _eager
        self.recompute = recompute
        query, key, bias = a.heads * a.head_width, a.kv_heads * a.head_width, a.biases or a.qkv_bias
        self.fused = a.positions == "learned"
        if self.fused:
            self.qkv = nn.Linear(a.width, query + 2 * key, bias=bias, dtype=dtype)
        else:
            self.query = nn.Linear(a.width, query, bias=bias, dtype=dtype)
            self.key = nn.Linear(a.width, key, bias=bias, dtype=dtype)
            self.value = nn.Linear(a.width, key, bias=bias, dtype=dtype)
        self.query_norm = _norm("rms", a.head_width, dtype) if a.qk_norm else nn.Identity()
        self.key_norm = _norm("rms", a.head_width, dtype) if a.qk_norm else nn.Identity()
        self.output = nn.Linear(query, a.width, bias=a.biases, dtype=dtype)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor] | None, future: Tensor | None) -> Tensor:
        batch, sequence, _ = x.shape
        if self.fused:
            parts = [heads * self.head_width for heads in (self.heads, self.kv_heads, self.kv_heads)]
            query, key, value = self.qkv(x).split(parts, dim=-1)
        else:
            query, key, value = self.query(x), self.key(x), self.value(x)
        query = self.query_norm(query.unflatten(-1, (self.heads, self.head_width))).transpose(1, 2)
        key = self.key_norm(key.unflatten(-1, (self.kv_heads, self.head_width))).transpose(1, 2)
        value = value.unflatten(-1, (self.kv_heads, self.head_width)).transpose(1, 2)
        if tables is not None:
            query, key = _rotate(query, tables), _rotate(key, tables)
        mixed = (_again if self.recompute else _once)(self.core, query, key, value, future)
        return self.output(mixed.transpose(1, 2).reshape(batch, sequence, self.heads * self.head_width))


class MLP(nn.Module):
    """GELU (tanh) between two matrices, or SwiGLU with three (Shazeer 2020, 2002.05202)."""

    def __init__(self, a: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.gate = nn.Linear(a.width, a.mlp_width, bias=a.biases, dtype=dtype) if a.gated else None
        self.up = nn.Linear(a.width, a.mlp_width, bias=a.biases, dtype=dtype)
        self.down = nn.Linear(a.mlp_width, a.width, bias=a.biases, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(F.gelu(self.up(x), approximate="tanh"))
        return self.down(F.silu(self.gate(x)) * self.up(x))


def _again(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Keep the inputs alone, and run the function a second time when its backward pass comes (1604.06174)."""
    # Nothing here draws random numbers, so there is no state of a generator to keep.
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def _once(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    return function(*inputs)


def _flash(query: Tensor, key: Tensor, value: Tensor, future: None) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)


def _eager(query: Tensor, key: Tensor, value: Tensor, future: Tensor) -> Tensor:
    """Scores and probabilities as tensors (batch, heads, s, s); ``future`` bool (s, s) is True where to mask."""
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    scores = scores.masked_fill_(future, float("-inf")).softmax(-1)
    return scores @ value


def _rotary_tables(sequence: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (sequence, width) of rotary positions (Su et al. 2021, 2104.09864), halves side by side."""
    rates = 10000.0 ** -(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(sequence, device=like.device, dtype=torch.float32), rates).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the pairs (i, i + width / 2) of each head's vector; x (batch, heads, sequence, width)."""
    cos, sin = tables
    left, right = x.chunk(2, dim=-1)
    # Under autocast x has 16 bits and the tables have 32.
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


def _norm(kind: str, width: int, dtype: torch.dtype) -> nn.Module:
    return nn.LayerNorm(width, eps=_EPS, dtype=dtype) if kind == "layer" else RMSNorm(width, dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019, 1910.07467), in float32."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return F.rms_norm(x, self.weight.shape, self.weight, _EPS)
        return _rms_norm(x, self.weight, _EPS)[0]


# One operation, as torch has on CUDA: what happens inside is seen by no one, and the backward pass gets x and the
# reciprocal norms. Elsewhere torch takes rms_norm apart into a dozen operations that keep four times as much.
@torch.library.custom_op("course_lib::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.float()
    rstd = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * rstd * weight.float()).to(x.dtype), rstd


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


@torch.library.custom_op("course_lib::rms_norm_backward", mutates_args=())
def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    unit = x.float() * rstd
    along = grad.float() * weight.float()
    grad_x = rstd * (along - unit * (along * unit).mean(-1, keepdim=True))
    grad_weight = (grad.float() * unit).flatten(0, -2).sum(0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


@_rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _keep(ctx, inputs: tuple, output: tuple) -> None:
    x, weight, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, output[1])


def _back(ctx, grad: Tensor, grad_rstd: Tensor | None) -> tuple[Tensor, Tensor, None]:
    return (*_rms_norm_backward(grad, *ctx.saved_tensors), None)


_rms_norm.register_autograd(_back, setup_context=_keep)
