"""The backward pass in sizes: what is made and what is let go, in the order in which autograd does it.

Autograd walks the forward pass backwards. An operation makes the gradients of its inputs and then lets go of what was
kept for it and of the gradient that it was given; a weight's gradient is added to ``.grad`` at once. So memory goes up
and down within a block, and its highest moment cannot be read off the sum of activations. Here each of these moments
is a line, and the tape remembers the highest. Gradients of biases and norms count with their matrix or not at all.
"""

from __future__ import annotations

from dataclasses import replace

from course_lib.memory import kept
from course_lib.memory.backward_attention import back_through_attention
from course_lib.memory.kept import Run
from course_lib.memory.tape import Tape


def replay(run: Run, keep_gradients: bool = True) -> Tape:
    """One forward and backward pass on a tape, whose ``peak`` is its highest moment.

    Within the forward pass only its end is looked at: a block holds on its way back what it held and more.

    Args:
        run: sizes and choices.
        keep_gradients: ``.grad`` exists already, from an earlier micro-batch or because it is zeroed in place. Else
            gradients appear one by one, as after ``zero_grad()``, and are counted here.
    """
    tape = Tape(run, keep_gradients)
    _head(tape, run)
    for number in reversed(range(run.architecture.layers)):
        _block(tape, run, number)
    _embedding(tape, run)
    return tape


def _head(t: Tape, s: Run) -> None:
    a, n, c = s.architecture, s.tokens, s.compute
    t.moment = "end of the forward pass"
    if s.autocast and s.recompute == "full":
        t.make("16-bit weights in autocast's cache", kept.all_casts(s))
    t.make("logits", 4 * n * a.vocab)
    t.drop(*t.working)
    t.moment = "cross-entropy"
    t.make("gradient of the log-softmax", 4 * n * a.vocab)
    t.make("gradient of the logits", 4 * n * a.vocab)
    t.drop("gradient of the log-softmax")
    t.free(t.outside, "log-softmax")
    t.moment = "head"
    if c == 2:
        t.make("gradient of the 16-bit logits", 2 * n * a.vocab)
        t.drop("gradient of the logits")
        t.rename("gradient of the 16-bit logits", "gradient of the logits")
    if a.tied:
        # The embedding is the other use of this matrix: its first half waits here for the end of the backward pass.
        t.make("gradient of the norm output", n * a.width * c)
        t.make("gradient of the head", a.vocab * a.width * c)
        t.drop("gradient of the logits")
        t.free(t.outside, "head input")
        if s.autocast:
            t.free_cast(2 * a.vocab * a.width)
            t.make("gradient of the head, 32 bits", 4 * a.vocab * a.width)
            t.drop("gradient of the head")
    else:
        t.linear(
            t.outside,
            a.vocab * a.width,
            0,
            "gradient of the logits",
            "gradient of the norm output",
            n * a.width * c,
            "head input",
            wide=True,
        )
        t.add()
    t.make("gradient", n * a.width * s.residual)
    t.weight(_norm_weights(s))
    t.add()
    t.drop("gradient of the norm output")
    t.free(t.outside, "last norm input", "last norm statistics")


def _block(t: Tape, s: Run, number: int) -> None:
    layer = t.layers[number]
    # What all blocks share goes with its last use, in the first block; recomputation of the whole block holds on to it.
    shared = t.outside if number == 0 and s.recompute != "full" else {}
    place = f"block {number + 1} of {s.architecture.layers}"
    if s.recompute == "full":
        t.moment = f"{place}: again"
        everything = kept.of_layer(replace(s, recompute="none"), number)
        for name, nbytes in everything.items():
            if name not in layer:
                t.make(f"{name}, again", nbytes)
        if s.autocast:
            t.make("16-bit weights, again", kept.block_casts(s, number))
    t.moment = f"{place}: MLP"
    t.free(layer, "MLP dropout mask")
    if s.is_dense(number):
        _mlp(t, s, layer)
    else:
        _experts(t, s, layer)
    _norm(t, s, layer, "MLP")
    t.moment = f"{place}: attention"
    back_through_attention(t, s, layer, shared)
    _norm(t, s, layer, "attention")
    if s.autocast and s.recompute == "full":
        t.drop("16-bit weights, again")


def _norm(t: Tape, s: Run, layer: dict[str, int], which: str) -> None:
    """Of the norm before a branch, and the sum of the branch's gradient and the one that passed it by."""
    size = s.tokens * s.architecture.width * s.residual
    t.make("gradient of the norm input", size)
    t.weight(_norm_weights(s))
    t.drop("gradient of the norm output")
    t.free(layer, f"{which} norm input", f"{which} norm statistics")
    t.make("sum", size)
    t.drop("gradient of the norm input", "gradient")
    t.rename("sum", "gradient")
    t.add()


def _norm_weights(s: Run) -> int:
    return s.architecture.width * (2 if s.architecture.norm == "layer" else 1)


def _mlp(t: Tape, s: Run, layer: dict[str, int]) -> None:
    a, n, c = s.architecture, s.tokens, s.compute
    inner, matrix = n * a.mlp_width * c, a.width * a.mlp_width
    wide, narrow = (a.mlp_width, a.width) if a.biases else (0, 0)
    t.linear(
        layer, matrix, narrow, t.narrow(), "gradient inside the MLP", inner, "product" if a.gated else "activation"
    )
    t.add()
    _inside(t, layer, inner, matrix, wide, n * a.width * c)


def _experts(t: Tape, s: Run, layer: dict[str, int]) -> None:
    a, n, c = s.architecture, s.tokens, s.compute
    experts = a.experts
    visits = n * experts.active
    inner = (visits + n * experts.shared) * experts.width * c
    matrix = a.width * experts.width * (experts.count + experts.shared)
    t.make("gradient of the experts' output", visits * a.width * c)
    t.free(layer, "experts' output", "router")
    t.linear(layer, matrix, 0, "gradient of the experts' output", "gradient inside the MLP", inner, "product")
    t.add()
    _inside(t, layer, inner, matrix, 0, visits * a.width * c)
    t.free(layer, "experts' input")
    t.make("gradient of the experts' sum", n * a.width * s.residual)
    t.drop("gradient of the norm output")
    t.rename("gradient of the experts' sum", "gradient of the norm output")
    router = a.width * (experts.count + experts.shared_gate)
    if s.autocast:
        t.free_cast(2 * router)
    t.weight(router)
    t.add()


def _inside(t: Tape, layer: dict[str, int], inner: int, matrix: int, bias: int, outer: int) -> None:
    """From the input of an MLP's last matrix back to the MLP's input."""
    if not t.run.architecture.gated:
        t.make("gradient of up", inner)
        t.drop("gradient inside the MLP")
        t.free(layer, "up")
        t.linear(layer, matrix, bias, "gradient of up", "gradient of the norm output", outer, "MLP input", wide=True)
        t.add()
        return
    t.make("gradient of the activation", inner)
    t.make("gradient of up", inner)
    t.drop("gradient inside the MLP")
    t.free(layer, "up", "activation")
    t.linear(layer, matrix, bias, "gradient of up", "gradient by up", outer, wide=True)
    t.add()
    t.make("gradient of gate", inner)
    t.drop("gradient of the activation")
    t.free(layer, "gate")
    t.linear(layer, matrix, bias, "gradient of gate", "gradient by gate", outer, "MLP input", wide=True)
    t.make("gradient of the norm output", t.working["gradient by gate"])
    t.drop("gradient by up", "gradient by gate")
    t.add()


def _embedding(t: Tape, s: Run) -> None:
    a = s.architecture
    t.moment = "embedding"
    t.free(t.outside, "rotary tables", "causal mask")
    if a.positions == "learned":
        t.weight(a.context * a.width)
        t.add()
    if not a.tied:
        t.weight(a.vocab * a.width)
        t.drop("gradient")
    else:
        t.make("gradient of the embedding", a.vocab * a.width * s.residual)
        t.drop("gradient")
        # The sum of both uses is a third tensor.
        t.weight(a.vocab * a.width)
        t.drop("gradient of the embedding", "gradient of the head, 32 bits" if s.autocast else "gradient of the head")
    t.add()
