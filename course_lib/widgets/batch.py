"""What a batch costs and buys, under one's hands: steps, examples, time and the best rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from course_lib.plots.style import INK, MUTED, PALETTE, REFERENCE, TEXT_PT, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

LOW, HIGH = 0, 20  # of the batch axis, in powers of two
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SEEN = (
    "Two log-log charts over batch sizes from 1 to a million examples. Left, steps and examples to the target as "
    "multiples of their smallest possible numbers: steps fall and level off, examples are level and then rise; they "
    "cross at the noise scale. Right, the time to the target: a valley, and the same valley for four times the GPUs. "
    "A line marks the chosen batch."
)


class Cost(NamedTuple):
    """What a batch costs; floats, or arrays like the batch.

    Attributes:
        steps: as a multiple of the fewest possible, >= 1.
        examples: as a multiple of the fewest possible, >= 1.
        rate: SGD's best rate, as a share of the largest useful one, in (0, 1).
        time: to the target, in units in which one GPU goes through the fewest possible examples in 1.
    """

    steps: Any
    examples: Any
    rate: Any
    time: Any


def cost(batch: Any, noise_scale: float, gpus: float, pause: float) -> Cost:
    """Steps, examples, best rate and time to a target, with batch B, noise scale N, n GPUs and a pause p.

    steps = 1 + N / B, examples = 1 + B / N, rate = 1 / (1 + N / B), time = steps (B / n + p) / N.

    Args:
        batch: examples, a number or an array, > 0.
        noise_scale: examples, > 0, constant over the run.
        gpus: over which the examples of a step are divided.
        pause: the part of a step that the batch does not shorten, as the examples that one GPU could do meanwhile.

    Source: McCandlish et al. 2018 (arXiv 1812.06162), equations 2.5, 2.7 and 5.1; the time is the course's own.
    """
    steps = 1 + noise_scale / batch
    return Cost(steps, 1 + batch / noise_scale, 1 / steps, steps * (batch / gpus + pause) / noise_scale)


def fastest(noise_scale: float, gpus: float, pause: float) -> float:
    """The batch of the shortest time, the square root of n p N; 0 without a pause, where smaller is always faster."""
    return math.sqrt(gpus * pause * noise_scale)


def explore_batch_size(
    *, batch: int = 256, noise_scale: float = 1000.0, gpus: int = 16, pause: float = 10.0,
) -> None:
    """Show steps, examples and time to a target against the batch size, with controls.

    Args:
        batch: examples, at first; a power of two from 1 to 2^20.
        noise_scale: examples, at first; 10 to 1e6.
        gpus: at first; a power of two from 1 to 1024.
        pause: the part of a step that no batch shortens, as the examples that one GPU could do meanwhile, at first; 0
            to 1000.

    Raises:
        ValueError: a value is out of range.
    """
    for name, value, allowed in (("batch", batch, [2**power for power in range(LOW, HIGH + 1)]), ("gpus", gpus, GPUS)):
        if value not in allowed:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: a power of two from {allowed[0]} to {allowed[-1]}.")
    for name, value, low, high in (("noise_scale", noise_scale, 10, 1e6), ("pause", pause, 0, 1000)):
        if not low <= value <= high:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: {low:g} <= {name} <= {high:g}.")
    values = {"batch": int(batch), "noise_scale": float(noise_scale), "gpus": int(gpus), "pause": float(pause)}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "batch": make.slider("batch size", [2**power for power in range(LOW, HIGH + 1)], values["batch"],
                             lambda batch: f"{batch:,}"),
        "noise_scale": make.log_slider("noise scale", [values["noise_scale"]], 1, 6),
        "gpus": make.slider("GPUs", GPUS, values["gpus"], str),
        "pause": make.slider("pause per step (examples)", sorted({0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0,
                                                                  values["pause"]}), values["pause"]),
    }


def finding(values: Mapping[str, Any]) -> str:
    """What the batch costs, in a sentence that fits above a picture."""
    here = cost(**values)
    best = fastest(values["noise_scale"], values["gpus"], values["pause"])
    where = f"fastest at {best:,.0f}" if best >= 1 else "smaller is faster"
    return (f"Batch {values['batch']:,}: {_times(here.steps)} the fewest steps, {_times(here.examples)} the fewest "
            f"examples; {where}.")


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{float(f'{ratio:.3g}'):g}x"


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.left, self.right) = figure((8.0, 3.9), 1, 2)
        self.title, self.settings = head(fig)
        self.batches = 2.0 ** np.linspace(LOW, HIGH, 241)
        blank = np.ones_like(self.batches)
        self.steps, = self.left.plot(self.batches, blank, color=PALETTE["blue"], linewidth=2.2, label="steps")
        self.examples, = self.left.plot(self.batches, blank, color=PALETTE["vermillion"], linewidth=2.2,
                                        linestyle=(0, (5, 1.5)), label="examples")
        self.now, = self.right.plot(self.batches, blank, color=PALETTE["blue"], linewidth=2.2, label="these GPUs")
        self.more, = self.right.plot(self.batches, blank, color=PALETTE["green"], linewidth=2.2,
                                     linestyle=(0, (5, 1.5)), label="four times as many")
        self.left.axhline(1, **REFERENCE)
        self.marks = [ax.axvline(1, color=MUTED, linewidth=1.4) for ax in (self.left, self.right)]
        self.marks[0].set_label("this batch")
        self.left.set(xscale="log", yscale="log", xlim=(2.0**LOW, 2.0**HIGH), ylim=(0.5, 1e5))
        self.right.set(xscale="log", yscale="log", xlim=(2.0**LOW, 2.0**HIGH), ylim=(1e-4, 1e4))
        self.left.set_ylabel("multiple of the fewest", fontsize=TEXT_PT, color=INK)
        self.right.set_ylabel("time (1 GPU, fewest examples = 1)", fontsize=TEXT_PT, color=INK)
        for ax, drawn in ((self.left, [self.steps, self.examples, self.marks[0]]), (self.right, [self.now, self.more])):
            ax.set_xlabel("batch size (examples)", fontsize=TEXT_PT, color=INK)
            legend(ax, drawn, 4.0)
        moving = (self.title, self.settings, *self.marks, self.steps, self.examples, self.now, self.more)
        self.canvas = Canvas(fig, moving)

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        here = cost(**values)
        found = finding(values)
        settings = (f"noise scale {panel.number(values['noise_scale'])}, {values['gpus']} GPUs, pause "
                    f"{panel.number(values['pause'])}; best SGD rate {100 * here.rate:.3g}% of the largest")
        self.title.set_text(found)
        self.settings.set_text(settings)
        curves = cost(self.batches, *(values[name] for name in ("noise_scale", "gpus", "pause")))
        self.steps.set_ydata(curves.steps)
        self.examples.set_ydata(curves.examples)
        self.now.set_ydata(curves.time)
        self.more.set_ydata(cost(self.batches, values["noise_scale"], 4 * values["gpus"], values["pause"]).time)
        for mark in self.marks:
            mark.set_xdata([values["batch"]] * 2)
        return self.canvas.picture(), f"{found} With {settings}."
