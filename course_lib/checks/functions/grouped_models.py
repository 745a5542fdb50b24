"""Models whose parameters are to be grouped: small, and with everything in them that a rule by habit gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


class _Rows(nn.LayerNorm):
    """A norm by inheritance."""


class _Words(nn.Embedding):
    """An embedding by inheritance."""


class EmbeddingProjection(nn.Module):
    """No embedding, but for its class's name and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = 3, 4, None
        self.weight = nn.Parameter(torch.ones(3, 4))


class LayerNormProjection(nn.Module):
    """No norm, but for its class's name and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = (3, 4), 1e-5, True
        self.weight = nn.Parameter(torch.ones(3, 4))


class _Tied(nn.Module):
    """A head that comes before the embedding it is tied to, norms with matrices, and names that mislead."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.weights = nn.Parameter(torch.ones(4))
        self.bias_table = nn.Parameter(torch.zeros(3, 4))
        self.head = nn.Linear(4, 7)
        self.table = nn.Embedding(7, 4)
        self.head.weight = self.table.weight
        self.positions = _Words(5, 4)
        self.norm_in = nn.Linear(4, 4)
        self.norm_in.weight.grad = torch.ones(4, 4)  # as after a backward pass that reached no other tensor
        self.embed_out = nn.Linear(4, 4, bias=False)
        self.position_mixer = nn.Linear(4, 4, bias=False)
        self.relative_bias = nn.Parameter(torch.zeros(3, 3))
        self.score = nn.Linear(4, 1)  # a matrix of one row
        self.patches = EmbeddingProjection()
        self.gate = LayerNormProjection()
        self.attention = nn.MultiheadAttention(4, 2)
        self.middle = nn.LayerNorm((3, 4))
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.RMSNorm((2, 8)), nn.Linear(8, 4, bias=False), _Rows((2, 4)))
        self.again = self.mlp  # a block that is used twice
        self.conv = nn.Conv1d(4, 4, 3)
        self.batch = nn.BatchNorm1d(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.half_frozen = nn.LayerNorm(4)
        self.half_frozen.weight.requires_grad_(False)
        self.frozen_table = nn.Embedding(3, 4)
        self.frozen_table.weight.requires_grad_(False)


class _Bare(nn.Module):
    """An embedding that is tied to a parameter without a layer of its own, and one of bags to a head before it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.GroupNorm(1, 2)])
        self.tokens = nn.Embedding(6, 2)
        self.out = self.tokens.weight
        self.classes = nn.Linear(2, 3)
        self.bags = nn.EmbeddingBag(3, 2)
        self.free_bags = nn.EmbeddingBag(2, 2)
        self.classes.weight = self.bags.weight


class _Drawn(nn.Module):
    """The same kinds of layers, shuffled, and called what they are not."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        table = nn.Embedding(5, 3)
        head = nn.Linear(3, 5)
        head.weight = table.weight
        frozen = nn.Linear(3, 2).requires_grad_(False)
        layers = [table, head, frozen, nn.Linear(3, 3), nn.LayerNorm((2, 3)), nn.RMSNorm((3, 3)), nn.Bilinear(2, 3, 4)]
        names = ["norm", "embedding", "bias", "weight", "layer", "head", "ln"]
        for name, at in zip(rng.permutation(names), rng.permutation(len(layers)), strict=True):
            self.add_module(str(name), layers[at])
        self.register_parameter("gain", nn.Parameter(torch.ones(3)))
        self.register_parameter("scale", nn.Parameter(torch.ones(3, 3)))


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what it is in words, and the weight decay that is asked for."""

    model: nn.Module
    said: str
    weight_decay: float


def cases() -> Iterator[Case]:
    """The models of one check; the last is drawn anew each time. torch's generator stays as it is."""
    made: list[tuple[Callable[[], nn.Module], str, float]] = [
        (_Tied, "a small language model with a tied head", 0.1),
        (_Bare, "a model whose embedding is tied to a bare parameter", 0.03),
        (lambda: nn.Sequential(nn.Linear(2, 3, bias=False)), "a single matrix", 0.1),
        (lambda: nn.Sequential(nn.Linear(2, 3)), "a single layer and a weight decay of 0", 0.0),
        (lambda: nn.Embedding(4, 3), "an embedding that is the whole model", 0.1),
        (lambda: nn.Sequential(nn.LayerNorm(3)), "a single norm", 0.1),
        (lambda: _Drawn(np.random.default_rng()), "a model drawn at random", 0.07),
    ]
    for make, said, weight_decay in made:
        with torch.random.fork_rng(devices=[]):
            model = make()
        yield Case(model, said, weight_decay)


@dataclass(frozen=True, eq=False)
class Parameters:
    """What a check has to know of a model's parameters.

    Attributes:
        names: every name of each tensor, the first being that of ``named_parameters()``, by id, in its order.
        trained: the tensors with ``requires_grad``, in the order of ``named_parameters()``.
        why_not: why a trained tensor is not decayed, by id: ``embedding``, ``norm`` (of two or more dimensions) or
            ``vector``; those missing here are decayed.
    """

    names: dict[int, list[str]]
    trained: list[Tensor]
    why_not: dict[int, str]


def parameters(model: nn.Module) -> Parameters:
    """Read a model's parameters."""
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    trained = [p for p in model.parameters() if p.requires_grad]
    why_not = {id(p): "vector" for p in trained if p.dim() < 2}
    for kind, layers in (("embedding", (nn.Embedding, nn.EmbeddingBag)), ("norm", (nn.LayerNorm, nn.RMSNorm))):
        for module in model.modules():
            if isinstance(module, layers):
                why_not |= {id(p): kind for p in module.parameters() if p.requires_grad and p.dim() > 1}
    return Parameters(names, trained, why_not)
