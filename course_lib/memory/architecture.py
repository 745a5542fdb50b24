"""What a decoder-only transformer is made of: the shape of every tensor that an optimizer sees."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

LARGEST = 10**9  # no model's width, vocabulary or context comes near
ROLES = ("embedding", "position", "attention", "mlp", "expert", "router", "norm", "bias", "head")


@dataclass(frozen=True)
class Weight:
    """All tensors of one kind: the same shape, once in each layer that has it (or for each expert of it).

    Attributes:
        name: one name for the same thing in every model, a layer's and an expert's number left out:
            ``layers.attention.query.weight``. The checkpoints' own names differ.
        shape: as torch's modules keep it, (out, in) for a linear layer. GPT-2's published files hold the transpose.
        copies: how many such tensors the model has.
        role: one of ``ROLES``. "norm" includes a LayerNorm's bias; "bias" is that of a linear layer or of a router.
    """

    name: str
    shape: tuple[int, ...]
    copies: int
    role: str

    @property
    def size(self) -> int:
        """Elements of one of these tensors."""
        return prod(self.shape)

    @property
    def total(self) -> int:
        """Elements of all of them."""
        return self.copies * self.size


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the MLP (Shazeer et al. 2017, arXiv 1701.06538).

    Attributes:
        count: routed experts of a layer.
        active: routed experts that a token visits.
        width: inner width of one expert.
        shared: experts that every token visits, beside the routed ones (DeepSeekMoE, 2401.06066). They are kept as
            one MLP of ``shared * width``.
        dense_layers: how many of the first layers have an ordinary MLP.
        router_bias: a number for each expert that only the choice of experts sees (DeepSeek-V3, 2412.19437, eq. 16).
            A rule moves it, no gradient does; it is a tensor of the checkpoint and counted as one.
        shared_gate: a learned gate on the shared experts' output (Qwen2's mixtures).
    """

    count: int
    active: int
    width: int
    shared: int = 0
    dense_layers: int = 0
    router_bias: bool = False
    shared_gate: bool = False

    def __post_init__(self) -> None:
        _require_sizes(self, ("count", "active", "width"), ("shared", "dense_layers"))
        if self.active > self.count:
            raise ValueError(f"A token cannot visit {self.active} of {self.count} experts: active is at most count.")


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, 2405.04434, section 2.1): keys and values from one short vector.

    Attributes:
        query_rank: length of the compressed query; 0 for a query that is not compressed.
        kv_rank: length of the compressed key and value.
        rope_width: elements of a head's query and of the one shared key that are rotated.
        nope_width: elements of a head's query and key that are not.
        value_width: elements of a head's value.
    """

    query_rank: int
    kv_rank: int
    rope_width: int
    nope_width: int
    value_width: int

    def __post_init__(self) -> None:
        _require_sizes(self, ("kv_rank", "rope_width", "nope_width", "value_width"), ("query_rank",))


@dataclass(frozen=True)
class Architecture:
    """A decoder-only transformer.

    Attributes:
        name: as one writes it in prose.
        vocab: rows of the embedding.
        context: longest sequence; the rows of learned positions.
        width: of the residual stream.
        layers: number of blocks.
        heads, kv_heads: heads of the queries, and of the keys and values (fewer: grouped-query attention, 2305.13245).
        head_width: of a query's head; with latent attention rope_width + nope_width.
        mlp_width: inner width of a dense MLP; not used where every layer has experts.
        gated: three matrices to an MLP (SwiGLU, 2002.05202) and not two.
        norm: "layer" (weight and bias) or "rms" (weight alone).
        biases: of all linear layers but the head.
        qkv_bias: of queries, keys and values alone.
        qk_norm: an RMSNorm over each head's query and key.
        positions: "learned" (one more embedding) or "rotary" (no weights). Models with learned positions are of
            GPT-2's kind and keep queries, keys and values as one matrix.
        tied: the output head is the embedding.
        experts: or None for dense MLPs.
        latent: or None for ordinary attention.

    Raises:
        ValueError: a size is no whole number from 1 to 10^9, or two of them do not fit together.
    """

    name: str
    vocab: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    gated: bool
    norm: str
    biases: bool
    qkv_bias: bool
    qk_norm: bool
    positions: str
    tied: bool
    experts: Experts | None = None
    latent: Latent | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab", "context", "width", "layers", "heads", "kv_heads", "head_width", "mlp_width")
        _require_sizes(self, sizes)
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key and value heads evenly.")
        for field, allowed in (("norm", ("layer", "rms")), ("positions", ("learned", "rotary"))):
            if getattr(self, field) not in allowed:
                raise ValueError(f"Invalid {field}: {getattr(self, field)!r}. Allowed: {' or '.join(allowed)}.")
        if self.experts and self.experts.dense_layers > self.layers:
            raise ValueError(f"{self.experts.dense_layers} dense layers are more than the model's {self.layers}.")

    @property
    def parameters(self) -> int:
        """How many numbers the model consists of. A tied head counts once."""
        return sum(weight.total for weight in self.weights())

    @property
    def active_parameters(self) -> int:
        """Those that work on one token: all but the experts that it does not visit. The whole embedding counts."""
        if self.experts is None:
            return self.parameters
        routed = sum(weight.total for weight in self.weights() if weight.role == "expert")
        return self.parameters - routed * (self.experts.count - self.experts.active) // self.experts.count

    def weights(self) -> tuple[Weight, ...]:
        """Every tensor of the model, those of one kind together. A tied head is not listed twice."""
        found = [Weight("embedding.weight", (self.vocab, self.width), 1, "embedding")]
        if self.positions == "learned":
            found.append(Weight("positions.weight", (self.context, self.width), 1, "position"))
        found += self._norm("layers.attention_norm", self.width, self.layers)
        found += self._latent_attention(self.latent) if self.latent else self._attention()
        found += self._norm("layers.mlp_norm", self.width, self.layers)
        dense = self.experts.dense_layers if self.experts else self.layers
        if dense:
            found += self._mlp("layers.mlp", self.mlp_width, dense)
        if self.experts and dense < self.layers:
            found += self._experts(self.experts, self.layers - dense)
        found += self._norm("norm", self.width, 1)
        if not self.tied:
            found.append(Weight("head.weight", (self.vocab, self.width), 1, "head"))
        return tuple(found)

    def _attention(self) -> list[Weight]:
        query, key = self.heads * self.head_width, self.kv_heads * self.head_width
        if self.positions == "learned":
            inputs = {"qkv": query + 2 * key}
        else:
            inputs = {"query": query, "key": key, "value": key}
        found = []
        for name, rows in inputs.items():
            bias = self.biases or self.qkv_bias
            found += self._linear(f"layers.attention.{name}", rows, self.width, self.layers, "attention", bias)
        if self.qk_norm:
            found += [Weight(f"layers.attention.{name}_norm.weight", (self.head_width,), self.layers, "norm")
                      for name in ("query", "key")]
        return found + self._linear("layers.attention.output", self.width, query, self.layers, "attention", self.biases)

    def _latent_attention(self, latent: Latent) -> list[Weight]:
        query = self.heads * (latent.nope_width + latent.rope_width)
        value = self.heads * latent.value_width
        shapes = {
            "key_value_down": (latent.kv_rank + latent.rope_width, self.width),
            "key_value_up": (self.heads * latent.nope_width + value, latent.kv_rank),
            "output": (self.width, value),
        }
        norms = {"key_value_norm": latent.kv_rank}
        if latent.query_rank:
            shapes = {"query_down": (latent.query_rank, self.width), "query_up": (query, latent.query_rank)} | shapes
            norms = {"query_norm": latent.query_rank} | norms
        else:
            shapes = {"query": (query, self.width)} | shapes
        found = [Weight(f"layers.attention.{name}.weight", shape, self.layers, "attention")
                 for name, shape in shapes.items()]
        return found + [Weight(f"layers.attention.{name}.weight", (width,), self.layers, "norm")
                        for name, width in norms.items()]

    def _mlp(self, name: str, width: int, copies: int, role: str = "mlp") -> list[Weight]:
        found = []
        for matrix in ("gate", "up") if self.gated else ("up",):
            found += self._linear(f"{name}.{matrix}", width, self.width, copies, role, self.biases)
        return found + self._linear(f"{name}.down", self.width, width, copies, role, self.biases)

    def _experts(self, experts: Experts, layers: int) -> list[Weight]:
        found = [Weight("layers.router.weight", (experts.count, self.width), layers, "router")]
        if experts.router_bias:
            found.append(Weight("layers.router.bias", (experts.count,), layers, "bias"))
        found += self._mlp("layers.experts", experts.width, layers * experts.count, "expert")
        if experts.shared:
            found += self._mlp("layers.shared_expert", experts.shared * experts.width, layers)
        if experts.shared_gate:
            found.append(Weight("layers.shared_expert_gate.weight", (1, self.width), layers, "router"))
        return found

    def _norm(self, name: str, width: int, copies: int) -> list[Weight]:
        parts = ("weight", "bias") if self.norm == "layer" else ("weight",)
        return [Weight(f"{name}.{part}", (width,), copies, "norm") for part in parts]

    @staticmethod
    def _linear(name: str, rows: int, columns: int, copies: int, role: str, bias: bool) -> list[Weight]:
        found = [Weight(f"{name}.weight", (rows, columns), copies, role)]
        return found + [Weight(f"{name}.bias", (rows,), copies, "bias")] if bias else found


def require_size(name: str, value: object, least: int = 1) -> int:
    """``value``, if it can be a size. Raises ValueError with ``name`` in the sentence where it cannot."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a whole number from {least} to {LARGEST:,}.")
    return value


def _require_sizes(what: object, positive: tuple[str, ...], or_zero: tuple[str, ...] = ()) -> None:
    for field in positive + or_zero:
        require_size(field, getattr(what, field), 0 if field in or_zero else 1)
