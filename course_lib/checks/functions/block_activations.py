"""The exercise of notebook 10 that asks what a block of a transformer keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Known, Numeric
from course_lib.checks.report import OTHER_SPECIFICATION


def _kept(
    rows: float = 32,
    matrix: float = 2,
    statistics: float = 4,
    eager: Callable[..., float] | None = None,
    fused: Callable[..., float] | None = None,
) -> Callable[..., float]:
    """``activation_bytes``: bytes kept per element of (b, s, h), of (b, a, s, s) and of (b, a, s).

    ``eager`` and ``fused`` replace what attention adds; they are given b, s, h and a.
    """

    def run(batch: int, sequence: int, width: int, heads: int, flash: bool) -> float:
        size = (batch, sequence, width, heads)
        if flash:
            added = fused(*size) if fused else statistics * batch * heads * sequence
        else:
            added = eager(*size) if eager else matrix * batch * heads * sequence**2
        return rows * batch * sequence * width + added

    return run


_right_kept = _kept()


def _kept_of(change: Callable[..., float]) -> Callable[..., float]:
    def run(batch: int, sequence: int, width: int, heads: int, flash: bool) -> float:
        return change(_right_kept(batch, sequence, width, heads, flash), batch, sequence, width, heads, flash)

    return run


_KEPT_MISTAKES = tuple(
    Known(code, what, hint, wrong, *kind)
    for code, what, hint, wrong, *kind in (
        (
            "with-dropout",
            "Korthikanti et al. (2022, arXiv 2205.05198): s b h (34 + 5 a s / h), with the masks of three dropouts and "
            "the output of one",
            "This block has no dropout: which of their tensors does it not have?",
            _kept(34, 5),
            OTHER_SPECIFICATION,
        ),
        (
            "with-dropout-masks-of-rows",
            "34 s b h: one tensor of (b, s, h) too many, or the masks of two dropouts, which this block does not have",
            "Go through the list: which tensor of yours is not in it? Is one counted under two names?",
            _kept(34),
        ),
        (
            "one-too-many-in-flash",
            "the attention's output counted twice where flash is true",
            "The attention's output is what the projection multiplies: one tensor.",
            _kept(fused=lambda b, s, h, a: 2 * b * s * h + 4 * a * b * s),
        ),
        (
            "two-too-many",
            "36 s b h: two tensors of (b, s, h) too many",
            "Go through the list: is one tensor counted under two names, as output of one layer and input of the next?",
            _kept(36),
        ),
        (
            "one-missing",
            "30 s b h: one tensor of (b, s, h) is missing",
            "Go through the list: the inputs of two norms, their outputs, Q, K, V, the attention's output.",
            _kept(30),
        ),
        (
            "two-missing",
            "28 s b h: two tensors of (b, s, h) are missing",
            "Norms have an input and an output, and there are two norms. Q, K and V are three tensors.",
            _kept(28),
        ),
        (
            "three-missing",
            "26 s b h: three tensors of (b, s, h) are missing, as many as Q, K and V are",
            "Q, K and V are three tensors, and the norm's output that they are made of is another.",
            _kept(26),
        ),
        (
            "hidden-once",
            "24 s b h: the MLP's hidden layer is counted once, or four tensors of (b, s, h) are missing",
            "GELU needs its input, the layer after it needs GELU's output: both are 4 h wide.",
            _kept(24),
        ),
        (
            "hidden-three-times",
            "40 s b h: three tensors of the MLP's hidden width, as a gated MLP has",
            "GPT-2's MLP is not gated: GELU's input and its output.",
            _kept(40),
        ),
        (
            "hidden-not-wider",
            "20 s b h: the MLP's hidden layer is counted as wide as the block",
            "How wide is the MLP inside?",
            _kept(20),
        ),
        (
            "hidden-missing",
            "16 s b h: the MLP's hidden layer is missing",
            "GELU needs its input, the layer after it needs GELU's output: both are 4 h wide.",
            _kept(16),
        ),
        (
            "mlp-only",
            "the MLP alone: 18 s b h",
            "The norms and the attention keep something too.",
            _kept(18),
        ),
        (
            "float32",
            "four bytes for each element",
            "The activations are 16-bit. Only the logsumexp is float32.",
            _kept(64, 4),
        ),
        (
            "elements",
            "elements instead of bytes",
            "How many bytes has a 16-bit number?",
            _kept(16, 1, 1),
        ),
        (
            "elements-of-16-bits",
            "16 bytes for each element: bits, but for the logsumexp's four bytes",
            "Asked for are bytes.",
            _kept(256, 16),
        ),
        (
            "bits",
            "bits instead of bytes: the sum is right",
            "Eight bits make a byte.",
            _kept(256, 16, 32),
        ),
        (
            "one-byte",
            "one byte for each element, and four for the logsumexp",
            "How many bytes has a 16-bit number?",
            _kept(16, 1),
        ),
        (
            "scores-too",
            "the scores kept beside the softmax's output, or the softmax's output in float32",
            "softmax's backward needs its output only. In which dtype is it?",
            _kept(matrix=4),
        ),
        (
            "scores-and-softmax-in-float32",
            "eight bytes for each score: scores and softmax's output, both in float32",
            "softmax's backward needs its output only. In which dtype is it?",
            _kept(matrix=8),
        ),
        (
            "masks-of-attention",
            "a mask of one byte for each score",
            "This block has no dropout, and the causal mask is one for all layers: it is not in the list.",
            _kept(matrix=3),
        ),
        (
            "causal-half",
            "half of the softmax's output, as a causal mask leaves the other half at zero",
            "Are the zeros stored?",
            _kept(matrix=1),
        ),
        (
            "causal-triangle",
            "the lower triangle of the softmax's output, diagonal included",
            "Are the zeros above it stored?",
            _kept(eager=lambda b, s, h, a: a * b * s * (s + 1)),
        ),
        (
            "one-mask",
            "one causal mask of a byte for each score besides",
            "The mask is one for all layers: it is not in the list.",
            _kept(eager=lambda b, s, h, a: 2 * a * b * s**2 + s**2),
        ),
        (
            "heads-missing",
            "one (s, s) matrix for all heads",
            "Has each head a softmax of its own?",
            _kept(eager=lambda b, s, h, a: 2 * b * s**2),
        ),
        (
            "head-width-for-heads",
            "an (s, s) matrix for each channel of a head, h / a of them",
            "How many softmaxes are there: as many as heads, or as a head is wide?",
            _kept(eager=lambda b, s, h, a: 2 * b * h / a * s**2),
        ),
        (
            "softmax-of-width",
            "an (s, s) matrix for each channel: h in the place of a",
            "Has each head a softmax of its own, or each channel?",
            _kept(eager=lambda b, s, h, a: 2 * b * h * s**2),
        ),
        (
            "softmax-without-batch",
            "a softmax's output without its batch",
            "Each sequence has a softmax of its own.",
            _kept(eager=lambda b, s, h, a: 2 * a * s**2),
        ),
        (
            "softmax-linear",
            "a softmax's output of one row: s in the place of s^2",
            "Which shape has the softmax's output?",
            _kept(eager=lambda b, s, h, a: 2 * a * b * s),
        ),
        (
            "softmax-missing",
            "an eager attention that keeps no softmax",
            "softmax's backward needs its output.",
            _kept(matrix=0),
        ),
        (
            "flash-ignored",
            "eager attention, whatever `flash` says",
            "FlashAttention never stores an (s, s) matrix. What does it keep instead?",
            _kept(fused=lambda b, s, h, a: 2 * a * b * s**2),
        ),
        (
            "eager-ignored",
            "FlashAttention, whatever `flash` says",
            "Without it, what does the softmax's backward need?",
            _kept(eager=lambda b, s, h, a: 4 * a * b * s),
        ),
        (
            "flash-reversed",
            "`flash` read the wrong way round",
            "Which of the two stores an (s, s) matrix?",
            _kept(eager=lambda b, s, h, a: 4 * a * b * s, fused=lambda b, s, h, a: 2 * a * b * s**2),
        ),
        (
            "flash-besides",
            "FlashAttention's logsumexp and the softmax's output, both where flash is true",
            "FlashAttention never stores an (s, s) matrix.",
            _kept(fused=lambda b, s, h, a: 2 * a * b * s**2 + 4 * a * b * s),
        ),
        (
            "logsumexp-always",
            "a logsumexp that eager attention keeps as well",
            "What does softmax's backward need, if it has the output?",
            _kept(eager=lambda b, s, h, a: 2 * a * b * s**2 + 4 * a * b * s),
        ),
        (
            "logsumexp-missing",
            "FlashAttention without its logsumexp",
            "Backward makes the softmax anew, block by block. Which number of each row does it need?",
            _kept(statistics=0),
        ),
        (
            "logsumexp-in-16-bits",
            "a logsumexp of two bytes",
            "It is a float32.",
            _kept(statistics=2),
        ),
        (
            "two-statistics",
            "two float32 numbers for each head and position, maximum and sum, as in the first FlashAttention "
            "(Dao et al. 2022, arXiv 2205.14135)",
            "FlashAttention-2 (Dao 2023, arXiv 2307.08691) and torch keep one: the logsumexp.",
            _kept(statistics=8),
            OTHER_SPECIFICATION,
        ),
        (
            "logsumexp-without-heads",
            "one logsumexp for all heads",
            "Has each head a softmax of its own?",
            _kept(fused=lambda b, s, h, a: 4 * b * s),
        ),
        (
            "logsumexp-without-batch",
            "one logsumexp for all sequences of the batch",
            "Has each sequence a softmax of its own?",
            _kept(fused=lambda b, s, h, a: 4 * a * s),
        ),
        (
            "logsumexp-without-rows",
            "one logsumexp for each head, whatever the length",
            "Over what does a softmax run, and how many rows are there?",
            _kept(fused=lambda b, s, h, a: 4 * a * b),
        ),
        (
            "logsumexp-and-8-bytes",
            "FlashAttention's logsumexp and 8 bytes more",
            "What is kept besides the logsumexp? The list has nothing more.",
            _kept(fused=lambda b, s, h, a: 4 * a * b * s + 8),
        ),
        (
            "logsumexp-of-width",
            "one logsumexp for each channel",
            "How many softmaxes are there in a row?",
            _kept(fused=lambda b, s, h, a: 4 * b * s * h),
        ),
        (
            "rows-only",
            "32 s b h: attention adds nothing",
            "What does attention keep beside Q, K, V and its output, with flash and without?",
            _kept(matrix=0, statistics=0),
        ),
        (
            "attention-only",
            "what attention adds, without the rest of the block",
            "The list has more.",
            _kept(rows=0),
        ),
        (
            "batch-missing",
            "one sequence: the batch is missing",
            "Each sequence of the batch has activations of its own.",
            _kept_of(lambda right, b, s, h, a, flash: right / b),
        ),
        (
            "weights-too",
            "the block's weights besides, 24 h^2 bytes",
            "Asked for are activations. Backward needs the weights too, but they are there anyway.",
            _kept_of(lambda right, b, s, h, a, flash: right + 24 * h**2),
        ),
        (
            "twice",
            "twice as much: the gradients of the activations besides",
            "A gradient of an activation lives shortly. Asked for is what forward keeps.",
            _kept_of(lambda right, b, s, h, a, flash: 2 * right),
        ),
        (
            "heads-times-width",
            "Q, K, V and the attention's output as wide as the block for every head: a h in the place of h",
            "The heads share the width: each has h / a of it.",
            _kept_of(lambda right, b, s, h, a, flash: right + 8 * b * s * h * (a - 1)),
        ),
        (
            "heads-times-width-of-three",
            "Q, K and V as wide as the block for every head: a h in the place of h",
            "The heads share the width: each has h / a of it.",
            _kept_of(lambda right, b, s, h, a, flash: right + 6 * b * s * h * (a - 1)),
        ),
        (
            "one-head-of-three",
            "Q, K and V of one head only: h / a in the place of h",
            "How many heads have a Q, a K and a V?",
            _kept_of(lambda right, b, s, h, a, flash: right + 6 * b * s * (h / a - h)),
        ),
        (
            "norm-statistics",
            "a float32 mean and a float32 rstd for each position and norm besides",
            "They are small, and this list leaves them out.",
            _kept_of(lambda right, b, s, h, a, flash: right + 16 * b * s),
            OTHER_SPECIFICATION,
        ),
        (
            "heads-of-64",
            "heads 64 wide: h / 64 of them, whatever is given",
            "heads is an argument.",
            _kept_of(lambda right, b, s, h, a, flash: _right_kept(b, s, h, h // 64, flash)),
        ),
        (
            "twelve-heads",
            "12 heads, whatever is given",
            "heads is an argument.",
            _kept_of(lambda right, b, s, h, a, flash: _right_kept(b, s, h, 12, flash)),
        ),
        (
            "gigabytes",
            "GB instead of bytes: the sum is right",
            "1 GB is 1e9 bytes.",
            _kept_of(lambda right, b, s, h, a, flash: right / 1e9),
        ),
        (
            "gibibytes",
            "GiB instead of bytes: the sum is right",
            "1 GiB is 2^30 bytes.",
            _kept_of(lambda right, b, s, h, a, flash: right / 2**30),
        ),
        (
            "mebibytes",
            "MiB instead of bytes: the sum is right",
            "1 MiB is 2^20 bytes.",
            _kept_of(lambda right, b, s, h, a, flash: right / 2**20),
        ),
    )
)


def _block(batch: int, sequence: int, heads: int, head_width: int, flash: bool) -> dict[str, Any]:
    return {"batch": batch, "sequence": sequence, "width": heads * head_width, "heads": heads, "flash": flash}


def _drawn_blocks(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        _block(*map(int, rng.integers(1, (17, 8193, 97))), int(rng.choice((64, 80, 128))), flash)
        for flash in (True, False, True, False)
    ]


ACTIVATIONS = Numeric(
    _right_kept,
    [
        _block(batch, sequence, heads, head_width, flash)
        for batch, sequence, heads, head_width in (
            (8, 1024, 12, 64),
            (1, 8192, 32, 128),
            (7, 1023, 25, 80),
            (2, 3, 2, 5),  # tiny: there a few bytes too many show
        )
        for flash in (True, False)
    ],
    _KEPT_MISTAKES,
    "a number of bytes",
    cells=True,
    drawn=_drawn_blocks,
)
