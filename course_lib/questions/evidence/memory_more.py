"""Evidence for ``bank/memory.yaml``: a timeline to read, where to put checkpoints, the code of two exercises."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from course_lib.memory.build import build, next_token_loss
from course_lib.memory.measure import Timeline, fake, measure
from course_lib.memory.models import find
from course_lib.questions.evidence._alive import held_by_torch, held_with_masters
from course_lib.questions.evidence._feed import ADAMW, SGD
from course_lib.questions.runs import Curves, Panel

GB = 1e9
PHASES = ("forward", "backward", "step", "zero_grad")
POINTS = 20
"""Points for a phase of a training step, and for the pause after it."""


@functools.cache
def _three_steps(sequences: int) -> Timeline:
    """Three steps of AdamW on a GPT of 82 million parameters, sequences of 512 tokens, everything in float32."""
    shape = {"vocab": 16_000, "context": 512, "width": 1536, "layers": 2, "heads": 24, "kv_heads": 24}
    with fake():
        model = build(replace(find("gpt2-124m"), head_width=64, mlp_width=6144, **shape))
        tokens = torch.zeros(sequences, 512, dtype=torch.long)
        optimizer = ADAMW(model.parameters(), foreach=True)
        return measure(model, optimizer, next_token_loss, [(tokens, tokens)] * 3)


def _drawn(timeline: Timeline) -> list[float]:
    """GB in use: a pause, then each phase of each step and a pause after it, POINTS wide; of a point, the highest."""
    total = timeline.total() / GB
    ends = [event for _, _, event in timeline.phases[1:]] + [len(total)]
    drawn = [total[0]] * POINTS
    for (_, phase, start), end in zip(timeline.phases, ends, strict=True):
        edges = np.linspace(start, end, POINTS + 1).astype(int)
        drawn += [total[first : max(last, first + 1)].max() for first, last in itertools.pairwise(edges)]
        if phase == PHASES[-1]:
            drawn += [total[end - 1]] * POINTS
    return [float(value) for value in drawn]


def memory_of_three_steps() -> Curves:
    """Memory in tensors over three training steps of a fresh job, at two batch sizes."""
    series = {f"{sequences} sequences": _drawn(_three_steps(sequences)) for sequences in (8, 4)}
    x = [round(number / (5 * POINTS) - 0.2, 4) for number in range(16 * POINTS)]
    return Curves("step, from 0", x, [Panel("memory in tensors (GB)", series)])


def plateau_is_two_moments() -> None:
    """After the first step() two tensors for each parameter stay: 0.66 GB, whatever the batch, from AdamW's state.

    What only passes: activations in proportion to the batch, gradients, the foreach step's temporaries.
    """
    for sequences in (8, 4):
        line = _three_steps(sequences)
        weights = line.after(0, "forward")["parameters"]
        floors = [int(line.total()[0]), *(sum(line.after(step, "zero_grad").values()) for step in range(3))]
        assert floors[0] == weights and abs(floors[1] - floors[0] - 2 * weights) < 1000
        assert floors[1:] == [floors[1]] * 3
        assert line.after(0, "backward")["optimizer"] == 0
        assert floors[1] == sum(line.after(0, "zero_grad")[name] for name in ("parameters", "optimizer"))
        assert round(weights / GB, 2) == 0.33 and round((floors[1] - floors[0]) / GB, 2) == 0.66
        peaks = [sum(line.after(step, "forward").values()) for step in range(3)]
        assert peaks[1] - peaks[0] == floors[1] - floors[0] and peaks[2] == peaks[1]
        start, end = (event for step, phase, event in line.phases if step == 1 and phase in ("step", "zero_grad"))
        assert line.series()["temporaries"][start:end].max() == weights
    shown = [np.array(values) for values in memory_of_three_steps().panels[0].series.values()]
    assert np.array_equal(shown[0][5 * POINTS : 6 * POINTS], shown[1][5 * POINTS : 6 * POINTS])


class _Keeps(nn.Module):
    """A block whose backward pass needs its input and three inner results of the same size."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = x.sin()
        return x


def _peak_of(blocks: int, together: int) -> float:
    """Most that a step keeps for its backward pass, in units of a block's input, measured.

    The blocks are recomputed in groups of ``together``. The output, the last gradient and the input are left out.
    """

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.blocks = nn.ModuleList(_Keeps() for _ in range(blocks))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.weight
            for first in range(0, blocks, together):
                x = checkpoint(nn.Sequential(*self.blocks[first : first + together]), x, use_reentrant=False)
            return x

    with fake():
        model = Stack()
        stepper = SGD(model.parameters(), lr=0.1)
        timeline = measure(model, stepper, lambda model, x: model(x).sum(), [torch.zeros(1000)])
    return timeline.peak_total / 4000


def groups_of_blocks() -> None:
    """k blocks a group: `c L / k + a k` is least at the root of c L / a, measured and in numbers.

    For 48 GPT-2 blocks with c = 2 and a = 32 bytes that is 1.7 blocks a group: 112 s b h in groups of two, 128 in
    groups of one, 238 in groups of seven, about the root of 48; 1,536 without.
    """
    measured = {k: _peak_of(16, k) for k in (1, 2, 4, 8, 16)}
    assert min(measured, key=measured.get) == 2 == (16 / 4) ** 0.5
    for k, peak in measured.items():
        assert 0 < peak - (16 / k + 4 * k) <= 5, "beside what is kept: input, output, gradients, a result on its way"
    kept = {k: 2 * -(-48 // k) + 32 * k for k in (1, 2, 7, 48)}
    assert min(kept, key=kept.get) == 2 and (kept[1], kept[2], kept[7]) == (128, 112, 238)
    assert abs((2 * 48 / 32) ** 0.5 - 1.73) < 0.01 and 2 * (2 * 48 * 32) ** 0.5 < 112 and 32 * 48 == 1536


def _state_gb(parameters: int, recipe: str, optimizer: str) -> float:
    """The function that is asked for, as a table."""
    weight, gradient, master, element = {"fp32": (4, 4, 0, 4), "mixed": (2, 2, 4, 4), "bf16": (2, 2, 0, 2)}[recipe]
    state = {"sgd": 0, "momentum": element, "adamw": 2 * element, "adamw8bit": 2 * (1 + 4 / 256)}[optimizer]
    return parameters * (weight + gradient + master + state) / GB


def states_as_a_table() -> None:
    """The table agrees with what torch holds after a step, and what the usual slips come to for 7e9 and AdamW."""
    made = {
        "sgd": functools.partial(SGD, lr=0.1),
        "momentum": functools.partial(SGD, lr=0.1, momentum=0.9),
        "adamw": ADAMW,
    }
    for name, optimizer in made.items():
        for recipe, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            assert held_by_torch(optimizer, dtype) == _state_gb(10**9, recipe, name)
        assert held_with_masters(optimizer) == _state_gb(10**9, "mixed", name)
    assert _state_gb(7 * 10**9, "mixed", "adamw") == 112 == _state_gb(7 * 10**9, "fp32", "adamw")
    assert round(_state_gb(7 * 10**9, "mixed", "adamw8bit"), 1) == 70.2
    assert 7 * (2 + 2 + 8) == 84 and 7 * (2 + 8) == 70 and round(7 * 16 / 1.024**3, 1) == 104.3
    assert _state_gb(10**9, "mixed", "sgd") == 8, "plain SGD keeps a master copy too"


def zero_by_hand() -> None:
    """Slices that a rank really holds, in each stage, against `2 + 2 + 12` with the shared terms over N."""
    elements, ranks = 4096, 8
    formula = {0: 16, 1: 4 + 12 / ranks, 2: 2 + 14 / ranks, 3: 16 / ranks}
    for stage, expected in formula.items():
        tensors = {
            "weights": (torch.zeros(elements, dtype=torch.bfloat16), stage >= 3),
            "gradients": (torch.zeros(elements, dtype=torch.bfloat16), stage >= 2),
            **{name: (torch.zeros(elements), stage >= 1) for name in ("master", "m", "v")},
        }
        held = [
            sum((tensor.chunk(ranks)[rank] if shared else tensor).nbytes for tensor, shared in tensors.values())
            for rank in range(ranks)
        ]
        assert set(held) == {expected * elements}
        assert sum(held) >= 16 * elements
    sizes = {stage: round(7 * held, 2) for stage, held in formula.items()}
    assert sizes == {0: 112.0, 1: 38.5, 2: 26.25, 3: 14.0}
    assert formula[1] / (16 / ranks) == 2.75, "what a card would be promised if stage 1 divided everything"
