"""The way back through attention, in sizes. One half of :mod:`course_lib.memory.backward`."""

from __future__ import annotations

from course_lib.memory import kept
from course_lib.memory.kept import Run
from course_lib.memory.tape import Tape


def back_through_attention(t: Tape, s: Run, layer: dict[str, int], shared: dict[str, int]) -> None:
    """From the gradient of the residual stream, which the tape has as "gradient", to that of the norm's output.

    Args:
        t: the tape.
        s: sizes and choices.
        layer: what the block kept, by tensor.
        shared: what all blocks share and this one is the last to use.
    """
    a, n, c = s.architecture, s.tokens, s.compute
    query, key, value = s.rows
    t.free(layer, "attention dropout mask")
    own = s.attention == "eager" or s.recompute == "selective"  # flash attention itself needs its output
    t.linear(
        layer,
        s.mixed * a.width,
        a.width if a.biases else 0,
        t.narrow(),
        "gradient of the attention output",
        n * s.mixed * c,
        *(("attention output",) if own else ()),
    )
    t.add()
    if s.recompute == "selective":
        for name, nbytes in kept.core_again(s).items():
            t.make(f"{name}, again", nbytes)
    if s.attention == "flash":
        t.make("gradient of the queries", n * query * c)
        t.make("gradient of the keys", n * key * c)
        t.make("gradient of the values", n * value * c)
        t.drop("gradient of the attention output")
        t.free(layer, "queries", "keys", "values", "attention output", "logsumexp")
    else:
        _eager(t, s, layer)
        t.free(shared, "causal mask")
    if a.latent:
        _latents(t, s, layer)
    elif a.positions == "learned":
        rows = query + key + value
        t.make("gradient of all three", n * rows * c)
        t.drop("gradient of the queries", "gradient of the keys", "gradient of the values")
        bias = rows if a.biases or a.qkv_bias else 0
        t.linear(
            layer,
            rows * a.width,
            bias,
            "gradient of all three",
            "gradient of the norm output",
            n * a.width * c,
            "attention input",
            wide=True,
        )
        t.add()
    else:
        _separate(t, s, layer, shared)


def _eager(t: Tape, s: Run, layer: dict[str, int]) -> None:
    """softmax(QK') V: three matrices of a s^2 b are alive at once."""
    a, n, c = s.architecture, s.tokens, s.compute
    query, key, value = s.rows
    again = s.recompute == "selective"
    # Values that are a view of what was given, or of one matrix with queries and keys, stay until the end.
    view = "values, again" not in t.working if again else s.batch == 1 and a.positions == "learned"
    t.make("gradient of the values", n * s.mixed * c)
    t.make("gradient of the probabilities", s.scores * c)
    t.drop("gradient of the attention output")
    t.free(layer, *(() if view else ("values",)))
    t.make("gradient of the masked scores", s.scores * c)
    t.drop("gradient of the probabilities")
    t.free(layer, "probabilities", "probabilities' dropout mask", "probabilities after dropout")
    t.make("gradient of the scores", s.scores * c)
    t.drop("gradient of the masked scores")
    t.make("gradient of the keys", n * query * c)
    t.make("gradient of the queries", n * query * c)
    t.drop("gradient of the scores")
    if again:
        t.drop(*(name for name in ("queries, again", "keys, again") if name in t.working))
    t.free(layer, "queries", "keys", *(("values",) if view or again else ()))
    if key != query:
        for name, rows in (("keys", key), ("values", value)):
            t.make("sum over a group of heads", n * rows * c)
            t.drop(f"gradient of the {name}")
            t.rename("sum over a group of heads", f"gradient of the {name}")


def _separate(t: Tape, s: Run, layer: dict[str, int], shared: dict[str, int]) -> None:
    """Rotary positions, norms of queries and keys, and three linear layers of the same input."""
    a, n, c = s.architecture, s.tokens, s.compute
    query, key, value = s.rows
    if a.positions == "rotary":
        for name, rows in (("keys", key), ("queries", query)):
            # Two products, and half of one with its sign turned; then both products and their sum.
            t.make("rotation", 5 * n * rows * s.residual // 2)
            t.drop("rotation")
        t.free(shared, "rotary tables")
    if a.qk_norm:
        for name, rows in (("key", key), ("query", query)):
            t.make("gradient before the norm", n * rows * c)
            t.weight(a.head_width)
            t.add()
            t.drop("gradient before the norm")
            t.free(layer, f"{name} norm input")
    bias = a.biases or a.qkv_bias
    outer = n * a.width * c
    for name, rows in (("values", value), ("keys", key), ("queries", query)):
        by = "gradient of the norm output" if name == "values" else f"gradient by the {name}"
        t.linear(
            layer,
            rows * a.width,
            rows if bias else 0,
            f"gradient of the {name}",
            by,
            outer,
            *(("attention input",) if name == "queries" else ()),
            wide=True,
        )
        if name != "values":
            t.make("sum of two", t.working[by])
            t.drop("gradient of the norm output", by)
            t.rename("sum of two", "gradient of the norm output")
        t.add()


def _latents(t: Tape, s: Run, layer: dict[str, int]) -> None:
    """Latent attention's way down: from queries, keys and values over the short vectors to the input."""
    a, n, c = s.architecture, s.tokens, s.compute
    latent, query = a.latent, s.rows[0]
    t.make("gradient of keys and values", n * a.heads * (latent.nope_width + latent.value_width) * c)
    t.drop("gradient of the keys", "gradient of the values")
    t.linear(
        layer,
        latent.kv_rank * a.heads * (latent.nope_width + latent.value_width),
        0,
        "gradient of keys and values",
        "gradient of their latent",
        n * (latent.kv_rank + latent.rope_width) * c,
    )
    t.add()
    if latent.query_rank:
        t.linear(
            layer,
            latent.query_rank * query,
            0,
            "gradient of the queries",
            "gradient of the queries' latent",
            n * latent.query_rank * c,
        )
        t.rename("gradient of the queries' latent", "gradient of the queries")
        t.add()
    t.weight(latent.kv_rank + latent.query_rank)  # of the norms of both
    t.add()
    t.free(layer, "latents")
    outer = n * a.width * c
    t.linear(
        layer,
        a.width * (latent.query_rank or query),
        0,
        "gradient of the queries",
        "gradient by the queries",
        outer,
        wide=True,
    )
    t.add()
    t.linear(
        layer,
        a.width * (latent.kv_rank + latent.rope_width),
        0,
        "gradient of their latent",
        "gradient by the latent",
        outer,
        "attention input",
        wide=True,
    )
    t.make("gradient of the norm output", t.working["gradient by the latent"])
    t.drop("gradient by the latent", "gradient by the queries")
    t.add()
