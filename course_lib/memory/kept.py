"""What the forward pass leaves for the backward pass, tensor by tensor: sizes from shapes alone.

The symbols are those of Korthikanti et al. 2022 (2205.05198): s sequence, b batch, h width, a heads, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from course_lib.memory.architecture import Architecture
from course_lib.memory.arguments import choice, whole

ATTENTION = ("flash", "eager")
RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class Run:
    """How a model is run: all that decides the size of its activations.

    Attributes:
        architecture: the model.
        batch, sequence: sequences of a micro-batch and tokens of each, per GPU.
        compute: bytes of an activation: 4, or 2 where weights have 16 bits or autocast is on.
        attention: "flash" (``scaled_dot_product_attention``) or "eager" (softmax(QK') V written out).
        recompute: "none", "selective" (the core of attention) or "full" (every block).
        autocast: float32 weights under ``torch.autocast``: the residual stream keeps 32 bits, each linear layer makes
            its own 16-bit copy of its input, and 16-bit copies of all matrices are kept for the backward pass. As
            measured on the CPU; on CUDA autocast also takes an eager softmax to 32 bits (4 a s^2 b more).
        dropout: masks of one byte on the probabilities and on the outputs of attention and MLP, as in Korthikanti et
            al.; not in the models of :mod:`course_lib.memory.build`, so not measured.
    """

    architecture: Architecture
    batch: int
    sequence: int
    compute: int = 2
    attention: str = "flash"
    recompute: str = "none"
    autocast: bool = False
    dropout: bool = False

    def __post_init__(self) -> None:
        whole("batch", self.batch, 1, 10**6, "sequences")
        whole("sequence", self.sequence, 1, 10**9, "tokens")
        choice("attention", self.attention, ATTENTION)
        choice("recompute", self.recompute, RECOMPUTE)
        if self.compute not in (2, 4) or (self.autocast and self.compute == 4):
            raise ValueError(f"Invalid compute: {self.compute!r}. Allowed: 2 or 4 bytes, and 2 under autocast.")

    @property
    def tokens(self) -> int:
        """s b."""
        return self.batch * self.sequence

    @property
    def residual(self) -> int:
        """Bytes of an element of the residual stream."""
        return 4 if self.autocast else self.compute

    @property
    def scores(self) -> int:
        """Elements of the attention scores of one layer: a s^2 b."""
        return self.architecture.heads * self.sequence * self.tokens

    @property
    def rows(self) -> tuple[int, int, int]:
        """Elements of a token's queries, keys and values, over all their heads."""
        a = self.architecture
        if a.latent:
            wide = a.heads * (a.latent.nope_width + a.latent.rope_width)
            return wide, wide, a.heads * a.latent.value_width
        return a.heads * a.head_width, a.kv_heads * a.head_width, a.kv_heads * a.head_width

    @property
    def mixed(self) -> int:
        """Elements of a token's attention output, over all heads."""
        return self.rows[2] if self.architecture.latent else self.rows[0]

    def is_dense(self, layer: int) -> bool:
        """Whether a layer (negative: from the end) has one MLP and no experts."""
        experts = self.architecture.experts
        return experts is None or layer % self.architecture.layers < experts.dense_layers


def of_layer(run: Run, layer: int = -1) -> dict[str, int]:
    """Bytes that one block keeps for its backward pass, by tensor.

    With "full" recomputation that is its input alone. Without dropout, flash attention and a GELU four times the width
    come to 32 s b h bytes in 16 bits, and eager attention adds 2 a s^2 b; with dropout these are Korthikanti's
    s b h (34 + 5 a s / h), equation 2, who leave the norms' statistics out.
    """
    full = {"attention norm input": run.tokens * run.architecture.width * run.residual}
    if run.recompute == "full":
        return full
    return full | _attention(run) | (_mlp(run) if run.is_dense(layer) else _experts(run)) | _masks(run)


def of_model(run: Run) -> dict[str, int]:
    """Bytes that are kept outside the blocks, by tensor: once for the whole model."""
    a, n, c = run.architecture, run.tokens, run.compute
    kept = {"tokens and targets": 2 * 8 * n}
    if a.positions == "rotary":
        width = a.latent.rope_width if a.latent else a.head_width
        kept["rotary tables"] = 2 * run.sequence * width * run.residual
    if run.attention == "eager":
        kept["causal mask"] = run.sequence**2
    if run.autocast:
        head = 2 * a.vocab * a.width
        kept["16-bit weights"] = head + (all_casts(run) if run.recompute != "full" else 0)
    return kept | {
        "last norm input": n * a.width * run.residual,
        "last norm statistics": n * _statistics(a),
        "head input": n * a.width * c,
        "log-softmax": 4 * n * a.vocab,
        "loss": 8,
    }


def all_casts(run: Run) -> int:
    """As :func:`block_casts`, of all blocks together."""
    return sum(block_casts(run, layer) for layer in range(run.architecture.layers))


def block_casts(run: Run, layer: int) -> int:
    """Bytes of the 16-bit copies that autocast makes of one block's matrices, those of its linear layers."""
    a, dense = run.architecture, run.is_dense(layer)
    alike = sum(run.is_dense(number) == dense for number in range(a.layers))
    elements = 0
    for weight in a.weights():
        if weight.role == "attention":
            elements += weight.total // a.layers
        elif weight.role in ("mlp", "expert", "router") and weight.name.startswith("layers.mlp.") == dense:
            elements += weight.total // alike
    return 2 * elements


def _statistics(a: Architecture) -> int:
    """Bytes a norm keeps of each row: mean and reciprocal deviation, or the latter alone, in float32."""
    return 8 if a.norm == "layer" else 4


def _attention(run: Run) -> dict[str, int]:
    a, n, c = run.architecture, run.tokens, run.compute
    query, key, value = run.rows
    # Under autocast each of the separate linear layers makes a 16-bit copy of the same input.
    copies = 3 if run.autocast and a.positions == "rotary" and not a.latent else 1
    kept = {"attention input": copies * n * a.width * c}
    statistics = n * _statistics(a)
    if a.latent:
        low, rope = a.latent.query_rank, a.latent.rope_width
        kept["latents"] = n * (2 * low + 2 * a.latent.kv_rank + rope) * c
        statistics += 4 * n * (2 if low else 1)
    if a.qk_norm:
        kept["query norm input"], kept["key norm input"] = n * query * c, n * key * c
        statistics += 4 * n * (a.heads + a.kv_heads)
    kept["attention norm statistics"] = statistics
    if run.attention == "flash" or run.recompute == "selective":
        # The values of latent attention are a view of a matrix that also has the keys' first part.
        view = a.heads * a.latent.nope_width if a.latent else 0
        kept["queries"], kept["keys"], kept["values"] = n * query * c, n * key * c, n * (value + view) * c
    else:
        # Heads are brought side by side for the matrix product, keys and values repeated for all heads. One sequence
        # of a fused matrix needs no copies: its keys and values stay views of the whole, queries included.
        view = query if run.batch == 1 and a.positions == "learned" else 0
        kept["queries"], kept["keys"], kept["values"] = n * query * c, n * query * c, n * (run.mixed + view) * c
        kept["probabilities"] = run.scores * c
    kept["attention output"] = n * run.mixed * c
    if run.attention == "flash" and run.recompute == "none":
        kept["logsumexp"] = 4 * a.heads * n
    return kept


def core_again(run: Run) -> dict[str, int]:
    """Bytes that the core of attention keeps when selective recomputation runs it a second time, by tensor."""
    if run.attention == "flash":
        return {
            "attention output": run.tokens * run.mixed * run.compute,
            "logsumexp": 4 * run.architecture.heads * run.tokens,
        }
    kept = _attention(replace(run, recompute="none"))
    # The scaled queries are new. Keys and values of one sequence are views of what was given, unless repeated.
    copied = run.batch > 1 or run.architecture.kv_heads < run.architecture.heads
    return {name: kept[name] for name in ("queries", *(("keys", "values") if copied else ()), "probabilities")}


def _mlp(run: Run) -> dict[str, int]:
    a, n, c = run.architecture, run.tokens, run.compute
    copies = 2 if run.autocast and a.gated else 1
    inner = n * a.mlp_width * c
    kept = {
        "MLP norm input": n * a.width * run.residual,
        "MLP norm statistics": n * _statistics(a),
        "MLP input": copies * n * a.width * c,
    }
    if a.gated:
        return kept | {"gate": inner, "up": inner, "activation": inner, "product": inner}
    return kept | {"up": inner, "activation": inner}


def _experts(run: Run) -> dict[str, int]:
    """Of experts that each get the rows of their tokens in one batch: a token's row is there once for each expert."""
    a, n, c = run.architecture, run.tokens, run.compute
    experts = a.experts
    visits = n * experts.active
    inner = (visits * experts.width + n * experts.shared * experts.width) * c
    return {
        "MLP norm input": n * a.width * run.residual,
        "MLP norm statistics": n * _statistics(a),
        "MLP input": n * a.width * c,
        "router": n * experts.count * (c + 4) + visits * (8 + 4),
        "experts' input": visits * a.width * c,
        "gate": inner,
        "up": inner,
        "activation": inner,
        "product": inner,
        "experts' output": visits * a.width * c,
    }


def _masks(run: Run) -> dict[str, int]:
    if not run.dropout:
        return {}
    output = run.tokens * run.architecture.width
    masks = {"attention dropout mask": output, "MLP dropout mask": output}
    if run.attention == "eager" and run.recompute == "none":
        masks |= {"probabilities' dropout mask": run.scores, "probabilities after dropout": run.scores * run.compute}
    return masks
