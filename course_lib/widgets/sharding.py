"""What each stage of ZeRO leaves on a GPU and sends in a step, under one's hands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from course_lib.memory.arguments import choice, whole
from course_lib.memory.cards import CARDS
from course_lib.memory.models import MODELS, find
from course_lib.memory.predict import predict
from course_lib.parallel.price import CLUSTERS, STAGES, communication_seconds, traffic_per_step
from course_lib.plots.stacks import looks
from course_lib.plots.style import INK, LEGEND, MUTED, SMALL_PT, TEXT_PT, figure
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head
from course_lib.widgets.memory import axis_top, gigabytes, named

if TYPE_CHECKING:
    import ipywidgets

PARTS = ("weights", "gradients", "optimizer")
RANKS = tuple(2**power for power in range(11))
GB = 1e9
WIDTH = 2  # bytes of a weight and of a gradient
FAINT = 0.45  # the opacity of the stages that are not chosen
SEEN = (
    "Left, four stacked bars of the model states on one GPU under DP, ZeRO-1, ZeRO-2 and ZeRO-3: weights, gradients "
    "and optimizer, beside a line at the memory of the card; the chosen stage is in full colour, and a bar that is "
    "higher than the axis is cut, its total written. Right, a table: for each stage GB held, GB sent in a step, and "
    "the time to send it."
)
ASSUMED = "bf16 weights and gradients, float32 AdamW; activations aside. Times without overlap and startups."


def explore_sharding(
    *, stage: int = 1, ranks: int = 64, model: str = "llama-3-8b", card: str = "h100", network: str = "hgx-h100",
) -> None:
    """Show the model states on one GPU and the traffic of a step under each stage, with controls.

    States: 16 bytes a parameter under mixed precision with AdamW (Rajbhandari et al. 2020, 1910.02054, section 3.1), as
    :func:`course_lib.memory.predict.predict` counts them. Traffic: one micro-batch, numbers of two bytes.

    Args:
        stage: 0 (data parallel, replicated) to 3, at first.
        ranks: GPUs at first, a power of two from 1 to 1024.
        model: a key of ``course_lib.memory.models.MODELS``, at first.
        card: a key of ``course_lib.memory.cards.CARDS``, at first; its memory alone counts.
        network: a key of ``course_lib.parallel.price.CLUSTERS``, at first.

    Raises:
        ValueError: a value is unknown or out of range.
    """
    if ranks not in RANKS or isinstance(ranks, bool):
        raise ValueError(f"Invalid ranks: {ranks!r}. Allowed: a power of two from {RANKS[0]} to {RANKS[-1]}.")
    find(model)
    values = {"stage": whole("stage", stage, 0, 3, "(0 is data parallel)"), "ranks": int(ranks),
              "model": model.strip().lower(), "card": choice("card", card, CARDS),
              "network": choice("network", network, CLUSTERS)}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "stage": make.choice("stage", [(name, stage) for stage, name in enumerate(STAGES)], values["stage"]),
        "ranks": make.slider("GPUs", RANKS, values["ranks"], "{:,}".format),
        "model": make.choice("model", [(find(key).name, key) for key in MODELS], values["model"]),
        "card": make.choice("card", [(named(key), key) for key in CARDS], values["card"]),
        "network": make.choice("network", [(cluster.name, key) for key, cluster in CLUSTERS.items()],
                               values["network"]),
    }


@lru_cache(maxsize=1024)
def held(model: str, stage: int, ranks: int) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer on one GPU; one rank alone holds the same under every stage."""
    found = predict(find(model).parameters, zero=stage if ranks > 1 else 0, gpus=ranks)
    return dict(zip(PARTS, (found.parameters, found.gradients, found.optimizer)))


def sent(model: str, stage: int, ranks: int, network: str) -> tuple[float, float]:
    """Bytes that a GPU sends in a step, and the seconds that the step communicates."""
    elements = find(model).parameters
    traffic = traffic_per_step(stage, elements, WIDTH, ranks).total
    return traffic, communication_seconds(stage, elements, ranks, CLUSTERS[network], width=WIDTH)


def duration(seconds: float) -> str:
    """Two digits at least, in seconds or milliseconds: 4.7 s, 120 ms, 0 s."""
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms" if seconds >= 1e-2 else f"{1e3 * seconds:.2g} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def finding(values: Mapping[str, Any]) -> str:
    """What the stage leaves on a GPU and whether it fits, in a sentence that fits above a picture."""
    total = sum(held(values["model"], values["stage"], values["ranks"]).values())
    ranks = f"{values['ranks']:,} GPU{'s' * (values['ranks'] > 1)}"
    left = CARDS[values["card"]] - total
    one = f"{'a' if values['card'][0] in 'bt' else 'an'} {named(values['card'])}"
    fits = f"{gigabytes(abs(left))} {'under' if left >= 0 else 'over'} {one}"
    return f"{STAGES[values['stage']]}, {ranks}, {find(values['model']).name}: {gigabytes(total)} GB each, {fits}."


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.ax, right) = figure((8.0, 4.3), 1, 2)
        self.ax.get_gridspec().set_width_ratios((1.2, 1))
        self.title, self.settings = head(fig)
        self.ax.set(xlim=(-0.5, 4.75), ylim=(0, 500_000))  # the widest numbers that the axis may have
        self.ax.set_xticks(range(len(STAGES)), STAGES)
        self.ax.tick_params(axis="x", length=0)
        self.ax.grid(False, axis="x")
        self.ax.set_ylabel("model states of a GPU (GB)", fontsize=TEXT_PT, color=INK)
        self.ax.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        self.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        self.bars = [[self._bar(index, part) for part in PARTS] for index in range(len(STAGES))]
        self.ax.legend(handles=self.bars[0], loc="lower left", bbox_to_anchor=(-0.01, 1), borderaxespad=0.2, ncols=3,
                       **LEGEND | dict(handlelength=1.8, columnspacing=1.2))
        bold = dict(ha="center", va="bottom", fontsize=SMALL_PT, color=INK, zorder=5, in_layout=False,
                    bbox=dict(facecolor="white", edgecolor="none", pad=0.6))
        self.totals = [self.ax.text(index, 0, "", **bold) for index in range(len(STAGES))]
        self.line = self.ax.axhline(0, color=INK, linewidth=1.4, zorder=3)
        # Beside the bars, where it covers none of their totals.
        self.card = self.ax.text(4.72, 0, "", ha="right", va="bottom", fontsize=SMALL_PT, color=INK, zorder=4,
                                 in_layout=False)
        self.rows, self.mark = self._table(right)
        self.canvas = Canvas(fig, (
            self.title, self.settings, self.ax.yaxis, *(bar for bars in self.bars for bar in bars), self.line,
            self.card, *self.totals, self.mark, *(text for row in self.rows for text in row),
        ))

    def _bar(self, index: int, part: str) -> Rectangle:
        colour, hatch = looks(PARTS)[part]
        bar = Rectangle((index - 0.32, 0), 0.64, 0, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0.8,
                        zorder=2, label=part)
        return self.ax.add_patch(bar)

    @staticmethod
    def _table(ax: Any) -> tuple[list[tuple[Any, ...]], Rectangle]:
        """Draw the heads; return the texts of each row, and what marks the chosen one."""
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(6.6, -1.4))
        at = (0.03, 0.44, 0.71, 0.98)
        for x, name in zip(at[1:], ("GB held", "GB sent\nin a step", "time to\nsend")):
            ax.text(x, -0.35, name, ha="right", va="bottom", fontsize=SMALL_PT, color=MUTED)
        ax.plot([0.03, 0.98], [-0.25, -0.25], color=MUTED, linewidth=0.8)
        mark = Rectangle((0, 0), 1, 0.9, facecolor="#E3E3E3", edgecolor="none", zorder=0)
        ax.add_patch(mark)
        rows = []
        for height, stage in enumerate(STAGES):
            line = dict(va="center", fontsize=TEXT_PT, color=INK)
            name = ax.text(at[0], height + 0.3, stage, ha="left", **line)
            rows.append((name, *(ax.text(x, height + 0.3, "", ha="right", **line) for x in at[1:])))
        ax.text(0.03, 4.6, "Sent: numbers of two bytes, once around\na ring: 2P, 2P, 2P and 3P, times (N-1)/N.\n"
                           "Held: bf16 weights and gradients, float32\nAdamW; activations come on top.\n"
                           "Time: nominal bandwidth, no overlap.",
                va="top", fontsize=9.0, color=MUTED)
        return rows, mark

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        model, ranks, chosen = values["model"], values["ranks"], values["stage"]
        states = [held(model, stage, ranks) for stage in range(len(STAGES))]
        card = CARDS[values["card"]] / GB
        top = axis_top(max(1.12 * card, 1.15 * sum(states[chosen].values()) / GB))
        self.ax.set_ylim(0, top)
        for stage, sizes in enumerate(states):
            self._follow(stage, sizes, top, stage == chosen)
            traffic, seconds = sent(model, stage, ranks, values["network"])
            told = (gigabytes(sum(sizes.values())), gigabytes(traffic), duration(seconds))
            for text, word in zip(self.rows[stage], (STAGES[stage], *told)):
                text.set(text=word, fontweight="bold" if stage == chosen else "normal")
        self.mark.set_y(chosen - 0.15)
        self.line.set_ydata([card, card])
        self.card.set(y=card + 0.006 * top, text=named(values["card"]).replace(" (", "\n("))
        found = finding(values)
        traffic, seconds = sent(model, chosen, ranks, values["network"])
        network = CLUSTERS[values["network"]].name
        settings = f"Each GPU sends {gigabytes(traffic)} GB in a step, {duration(seconds)}: {network}"
        self.title.set_text(found)
        self.settings.set_text(settings)
        return self.canvas.picture(), f"{found} {settings}. {ASSUMED}"

    def _follow(self, stage: int, sizes: Mapping[str, int], top: float, chosen: bool) -> None:
        below = 0.0
        for bar, size in zip(self.bars[stage], sizes.values()):
            bar.set(y=below, height=size / GB, alpha=1.0 if chosen else FAINT)
            below += size / GB
        cut = below > 0.93 * top
        total = gigabytes(GB * below) + " \N{BLACK UP-POINTING TRIANGLE}" * cut
        height = 0.93 * top if cut else below + 0.008 * top
        self.totals[stage].set(y=height, text=total, fontweight="bold" if chosen else "normal")
