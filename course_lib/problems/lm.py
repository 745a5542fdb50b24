"""A small transformer language model over bytes, and its loss taken apart by byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 256


@dataclass(frozen=True)
class LMConfig:
    """Size of a :class:`ByteLM`.

    Attributes:
        layers: transformer blocks.
        width: features of a position; divisible by ``heads``.
        heads: attention heads.
        context: longest sequence in bytes.

    Raises:
        ValueError: a size is not a whole number >= 1, or ``width`` is not divisible by ``heads``.
    """

    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number >= 1.")
        if self.width % self.heads:
            raise ValueError(
                f"Invalid width: {self.width} is not divisible by heads={self.heads}. "
                f"Allowed: a multiple of {self.heads}."
            )


class Block(nn.Module):
    """One pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). Input and output (batch, time, width)."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.attention_in(self.attention_norm(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))


class ByteLM(nn.Module):
    """A decoder-only transformer that predicts the next byte, in the arrangement of GPT-2.

    Learned position embeddings, pre-norm blocks, a final norm, biases everywhere but in the head. The head is
    **not** tied to the byte embedding, so that the two matrices can be studied apart. No dropout.

    Weights are drawn with ``numpy.random.default_rng(seed)``, so that a seed means the same model on every machine:
    N(0, 0.02) for matrices, divided by sqrt(2 * layers) for the two that write into the residual stream, as in GPT-2
    (Radford et al. 2019, section 2.3); zeros for biases, ones for norms.

    Parameters: 12 * layers * width^2 in the blocks' matrices and 13 * layers * width in their biases and norms;
    (2 * 256 + context) * width in the embeddings and the head; 2 * width in the last norm. All float32, 4 bytes each.

    Args:
        config: the size.
        seed: of the weights.
    """

    def __init__(self, config: LMConfig = LMConfig(), seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.byte_embedding = nn.Embedding(VOCAB, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, VOCAB, bias=False)
        self._draw_weights(np.random.default_rng(seed))

    @torch.no_grad()
    def _draw_weights(self, rng: np.random.Generator) -> None:
        residual = (2 * self.config.layers) ** -0.5
        for name, param in self.named_parameters():
            if param.ndim == 2:
                scale = 0.02 * (residual if name.endswith("_out.weight") else 1.0)
                param.copy_(torch.from_numpy(rng.normal(0.0, scale, size=tuple(param.shape))))
            else:
                param.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next byte.

        Args:
            tokens: int64 (batch, time) with values 0 to 255 and time <= context.

        Returns:
            float32 (batch, time, 256); position t has seen tokens 0 to t only.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        time = tokens.shape[1]
        if time > self.config.context:
            raise ValueError(
                f"Invalid tokens: {time} positions are more than the model's context of {self.config.context}. "
                "Allowed: shorter sequences, or a model with a larger LMConfig(context=...)."
            )
        x = self.byte_embedding(tokens) + self.position_embedding.weight[:time]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def next_byte_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the next byte in nats: a ``loss_fn`` for :func:`course_lib.train.train`.

    Args:
        model: maps int64 (batch, time) to logits (batch, time, 256).
        batch: ``(inputs, targets)``, int64 (batch, time) each.
    """
    inputs, targets = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def loss_by_byte(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Take the loss apart by the byte that was to be predicted.

    Args:
        model: maps int64 (batch, time) to logits (batch, time, 256); evaluated on the device where it is.
        batches: ``(inputs, targets)`` pairs.

    Returns:
        ``(total, count)``: float64 (256,), the summed loss in nats over the places where each byte was the target, and
        int64 (256,), how many such places there were. ``total.sum() / count.sum()`` is the mean loss.
    """
    device = next(model.parameters()).device
    total, count = np.zeros(VOCAB), np.zeros(VOCAB, dtype=np.int64)
    for inputs, targets in batches:
        logits = model(inputs.to(device)).flatten(0, 1)
        losses = F.cross_entropy(logits, targets.to(device).flatten(), reduction="none")
        seen = targets.flatten().cpu().numpy()
        total += np.bincount(seen, weights=losses.double().cpu().numpy(), minlength=VOCAB)
        count += np.bincount(seen, minlength=VOCAB)
    return total, count


def loss_by_group(total: np.ndarray, count: np.ndarray, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean loss in nats over the places where the target belongs to each group of byte values.

    Args:
        total, count: what :func:`loss_by_byte` returned.
        groups: byte values by name, such as :func:`course_lib.problems.text.frequency_groups` returns.

    Raises:
        ValueError: a group never was the target, so that it has no mean.
    """
    means = {}
    for name, values in groups.items():
        members = list(values)
        places = int(count[members].sum())
        if places == 0:
            raise ValueError(
                f"Group {name!r} has no mean loss: none of its {len(members)} byte values was a target. "
                "Evaluate on more text, or leave the group out."
            )
        means[name] = float(total[members].sum() / places)
    return means


@torch.no_grad()
def generate(model: ByteLM, prompt: bytes, length: int, *, temperature: float = 1.0, seed: int = 0) -> bytes:
    """Continue ``prompt`` by ``length`` bytes, each drawn from the model's distribution.

    Args:
        model: evaluated on the device where it is; sees the last ``context`` bytes.
        prompt: at least one byte.
        length: bytes to add, >= 0.
        temperature: divides the logits, > 0; below 1 the likely bytes become likelier.
        seed: of the draw, with ``numpy.random.default_rng``.

    Returns:
        The prompt and what follows it. It need not be valid UTF-8: decode with ``errors="replace"``.

    Raises:
        ValueError: the prompt is empty or the temperature is not positive.
    """
    if not prompt:
        raise ValueError("Invalid prompt: it is empty. Allowed: at least one byte to continue from.")
    if not temperature > 0:
        raise ValueError(f"Invalid temperature: {temperature!r}. Allowed: temperature > 0.")
    device = next(model.parameters()).device
    rng = np.random.default_rng(seed)
    text = list(prompt)
    for _ in range(length):
        tokens = torch.tensor([text[-model.config.context :]], device=device)
        logits = model(tokens)[0, -1].double() / temperature
        edges = logits.softmax(-1).cumsum(-1).cpu().numpy()
        # The last edge can fall short of 1 by rounding; scaling by it keeps the index below 256.
        text.append(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")))
    return bytes(text)
