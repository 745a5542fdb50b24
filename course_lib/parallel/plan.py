"""Predictions for 7B to 405B parameters on 8 to 16,384 GPUs: what fits, what is sent, where pure data parallel ends."""

from __future__ import annotations

from typing import NamedTuple

from course_lib.memory.cards import CARDS
from course_lib.memory.predict import CUDA_CONTEXT, predict
from course_lib.parallel.price import CLUSTERS, communication_seconds, compute_seconds, traffic_per_step

SIZES = {"7B": 7 * 10**9, "13B": 13 * 10**9, "70B": 70 * 10**9, "405B": 405 * 10**9}
"""Parameters; round numbers."""
GPUS = (8, 64, 512, 2048, 16384)
CARD, CLUSTER = "h100", "hgx-h100"
SEQUENCE = 8192
"""Tokens on each GPU: one sequence."""
BATCH = 16 * 2**20
"""Tokens of a step: 2,048 sequences, Llama 3 405B's batch of 16M (Grattafiori et al. 2024, 2407.21783, table 4)."""
GB = 1e9


class Plan(NamedTuple):
    """One model on a number of GPUs.

    Attributes:
        model, gpus: which.
        states: bytes of model states on a GPU under ZeRO-1, 2 and 3, in mixed precision with AdamW.
        sent: bytes that a GPU sends in a step with one micro-batch: DP, ZeRO-1 and 2; and ZeRO-3.
        seconds: the time of that, without overlap and startups, in the same order.
        compute: seconds of forward and backward for ``SEQUENCE`` tokens on each GPU.
        batch_compute: the same for a step of ``BATCH`` tokens divided among the GPUs.
    """

    model: str
    gpus: int
    states: tuple[int, int, int]
    sent: tuple[float, float]
    seconds: tuple[float, float]
    compute: float
    batch_compute: float

    @property
    def fits(self) -> tuple[bool, bool, bool]:
        """Whether the model states leave the card room for the CUDA context; activations are not counted."""
        return tuple(size + CUDA_CONTEXT <= CARDS[CARD] for size in self.states)


def plan(model: str, gpus: int) -> Plan:
    """The predictions for a key of ``SIZES`` on full nodes of ``CLUSTER``."""
    elements = SIZES[model]
    found = [predict(elements, zero=stage, gpus=gpus) for stage in (1, 2, 3)]
    return Plan(
        model, gpus, tuple(one.parameters + one.gradients + one.optimizer for one in found),
        tuple(traffic_per_step(stage, elements, 2, gpus).total for stage in (1, 3)),
        tuple(communication_seconds(stage, elements, gpus, CLUSTERS[CLUSTER]) for stage in (1, 3)),
        compute_seconds(elements, SEQUENCE), compute_seconds(elements, BATCH / gpus),
    )


def plans() -> list[Plan]:
    """All of them: each model on each number of GPUs."""
    return [plan(model, gpus) for model in SIZES for gpus in GPUS]


def table() -> str:
    """The predictions as Markdown, for docs/past_one_machine.md; what does not fit is struck through."""
    lines = [
        "| | GPUs | ZeRO-1 | ZeRO-2 | ZeRO-3 | sends, 1 and 2 | | sends, 3 | | 8,192 tokens a GPU | | 16.8M tokens |",
        "|---|" + "---:|" * 11,
        "| | | GB | GB | GB | GB | s | GB | s | s | tokens a step | s |",
    ]
    for one in plans():
        cells = [one.model, f"{one.gpus:,}"]
        held = [_digits(size / GB) for size in one.states]
        cells += [size if fits else f"~~{size}~~" for size, fits in zip(held, one.fits)]
        for size, seconds in zip(one.sent, one.seconds):
            cells += [_digits(size / GB), _digits(seconds)]
        short = one.batch_compute < one.seconds[1]  # nothing can hide ZeRO-3's communication
        cells += [_digits(one.compute), f"{_digits(one.gpus * SEQUENCE / 1e6)}M",
                  f"**{_digits(one.batch_compute)}**" if short else _digits(one.batch_compute)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    """Three digits: 6,480; 82.3; 0.0121."""
    return f"{value:,.0f}" if value >= 1000 else f"{float(f'{value:.3g}'):g}"
