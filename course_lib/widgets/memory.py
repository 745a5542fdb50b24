"""What fills a GPU in training, and whether it fits, under one's hands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from course_lib.memory.arguments import choice
from course_lib.memory.cards import CARDS
from course_lib.memory.kept import RECOMPUTE
from course_lib.memory.models import MODELS, find
from course_lib.memory.predict import CUDA_CONTEXT, Prediction, predict
from course_lib.memory.recipes import RECIPES
from course_lib.memory.setup import Setup
from course_lib.memory.states import STATES
from course_lib.plots.stacks import looks
from course_lib.plots.style import INK, MUTED, REFERENCE, SMALL_PT, TEXT_PT, figure, text_width
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

PARTS = ("parameters", "gradients", "optimizer", "activations", "other")
BESIDE = ("t4", "rtx-4090", "a100-40", "h100", "h200", "b200")  # cards that the bar is compared with
ZERO = {"none": 0, "1: optimizer": 1, "2: and gradients": 2, "3: and weights": 3}
CONTROLLED = ("precision", "optimizer", "zero", "gpus", "batch", "sequence", "recompute")
GB = 1e9
APART = 0.06  # of the axis: of two cards closer than that, the chosen or else the larger one is drawn
WIDTH = 7.7  # inches for a line of text
SEEN = (
    "A stacked bar of the bytes on one GPU: parameters, gradients, optimizer (master weights and state), activations, "
    "and other (working memory), beside lines at the memory of cards. To its right, the same as a table in GB."
)


def explore_memory(
    *,
    model: str = "llama-3-8b",
    optimizer: str = "adamw",
    precision: str = "mixed-bf16",
    zero: int = 0,
    gpus: int = 1,
    batch: int = 1,
    sequence: int | None = None,
    recompute: str = "none",
    card: str = "h100",
) -> None:
    """Show what training holds on one GPU beside the memory of cards, with controls for all that it depends on.

    Args:
        model: a key of ``course_lib.memory.models.MODELS``, at first.
        optimizer, precision, zero, gpus, batch, recompute: at first; see :func:`course_lib.memory.predict.predict`.
        sequence: tokens at first; None for the model's context. Longer than learned positions reach, it is cut to them.
        card: a key of ``course_lib.memory.cards.CARDS``, at first.

    Raises:
        ValueError: a value is unknown or out of range, or two do not go together.
    """
    architecture = find(model)
    setup = Setup(optimizer=optimizer, precision=precision, zero=zero, gpus=gpus, batch=batch, recompute=recompute,
                  sequence=architecture.context if sequence is None else sequence)
    values = {name: getattr(setup, name) for name in CONTROLLED}
    values |= {"model": model.strip().lower(), "card": choice("card", card, CARDS)}
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    def powers(name: str, key: str, last: int) -> ipywidgets.SelectionSlider:
        return make.slider(name, [2**power for power in range(last + 1)], values[key], "{:,}".format)

    return {
        "model": make.choice("model", [(find(key).name, key) for key in MODELS], values["model"]),
        "precision": make.choice("precision", [(key, key) for key in RECIPES], values["precision"]),
        "optimizer": make.choice("optimizer", [(rule.name, key) for key, rule in STATES.items()], values["optimizer"]),
        "zero": make.choice("ZeRO", list(ZERO.items()), values["zero"]),
        "gpus": powers("GPUs", "gpus", 12),
        "batch": powers("micro-batch", "batch", 6),
        "sequence": powers("sequence", "sequence", 17),
        "recompute": make.choice("recomputation", [(key, key) for key in RECOMPUTE], values["recompute"]),
        "card": make.choice("card", [(named(key), key) for key in CARDS], values["card"]),
    }


@lru_cache(maxsize=1024)
def predicted(model: str, sequence: int, **setup: Any) -> Prediction:
    """The prediction for a model of ``MODELS``; a sequence longer than its learned positions is cut to them."""
    return predict(find(model), sequence=tokens(model, sequence), **setup)


def tokens(model: str, sequence: int) -> int:
    """The length of a sequence that the model can take."""
    architecture = find(model)
    return min(sequence, architecture.context) if architecture.positions == "learned" else sequence


def named(card: str) -> str:
    """A card's key as one writes its name, with its memory, which is part of some keys: A100 (40 GB)."""
    size = f"{CARDS[card] / GB:.0f}"
    return f"{card.removesuffix(f'-{size}').upper().replace('-', ' ')} ({size} GB)"


def gigabytes(size: float) -> str:
    """Bytes in GB with three digits at least: 0.498, 16.1, 112.0, 6,494."""
    size = size / GB
    return f"{size:,.0f}" if size >= 1000 else f"{size:.1f}" if size >= 10 else f"{size:.2f}"


def finding(model: str, card: str, prediction: Prediction) -> str:
    """Whether it fits, in a sentence that fits above a picture."""
    left = CARDS[card] - prediction.total - CUDA_CONTEXT
    needs = f"{find(model).name} needs {gigabytes(prediction.total)} GB a GPU"
    one = f"{'a' if card[0] in 'bt' else 'an'} {named(card)}"
    if left < 0:
        return f"{needs}, {gigabytes(-left)} GB more than {one} has."
    return f"{needs} and leaves {gigabytes(left)} GB of {one}."


def axis_top(most: float) -> float:
    """The end of an axis that holds ``most``, of few, so that it seldom moves while a slider does."""
    steps = (mantissa * 10.0**power for power in range(-3, 9) for mantissa in (1, 1.5, 2, 3, 5))
    return next(step for step in steps if step >= most)


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.ax, right) = figure((8.0, 4.3), 1, 2)
        self.title, self.settings = head(fig)
        self.ax.set(xlim=(0, 1), ylim=(0, 500_000))  # the widest numbers that the axis may have
        self.ax.set_xticks([])
        self.ax.set_ylabel("memory of a GPU (GB)", fontsize=TEXT_PT, color=INK)
        self.ax.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        self.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        self.bars = []
        for colour, hatch in looks(PARTS).values():
            bar = Rectangle((0.1, 0), 0.4, 0, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0.8, zorder=2)
            self.bars.append(self.ax.add_patch(bar))
        self.total = self.ax.text(0.3, 0, "", ha="center", va="bottom", fontsize=TEXT_PT, fontweight="bold", color=INK,
                                  zorder=5, bbox=dict(facecolor="white", edgecolor="none", pad=0.6))
        self.lines = {key: self.ax.axhline(CARDS[key] / GB, **REFERENCE | dict(zorder=3)) for key in CARDS}
        self.names = {
            key: self.ax.text(0.99, CARDS[key] / GB, named(key), ha="right", va="bottom",
                              fontsize=SMALL_PT, color=MUTED, zorder=4, in_layout=False)
            for key in CARDS
        }
        self.rows = self._table(right)
        self.canvas = Canvas(fig, (
            self.title, self.settings, self.ax.yaxis, *self.bars, *self.lines.values(), *self.names.values(),
            self.total, *self.rows.values(),
        ))

    @staticmethod
    def _table(ax: Any) -> dict[str, Any]:
        """Draw the names of the rows; return the texts of their values."""
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(9.2, -0.7))
        rows = {}
        written = (*PARTS, "total", "card", "CUDA context", "left")
        for height, (name, look) in enumerate(zip(written, [*looks(PARTS).values(), None, None, None, None])):
            if look:
                colour, hatch = look
                key = Rectangle((0.02, height - 0.3), 0.1, 0.6, facecolor=colour, edgecolor="white", hatch=hatch)
                ax.add_patch(key)
            weight = "bold" if name in ("total", "left") else "normal"
            line = dict(va="center", fontsize=TEXT_PT, fontweight=weight, color=INK)
            ax.text(0.17, height, name, **line)
            rows[name] = ax.text(0.85, height, "", ha="right", **line)
        for height in (4.5, 7.5):
            ax.plot([0.02, 0.85], [height, height], color=MUTED, linewidth=0.8)
        return rows

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        card = values["card"]
        setup = {name: value for name, value in values.items() if name != "card"}
        try:
            prediction = predicted(**setup)
        except ValueError as error:  # two controls that do not go together
            self._follow(None, card)
            self.title.set_text("These settings do not go together.")
            self.settings.set_text(_shortened(str(error)))
            return self.canvas.picture(), str(error)
        found = finding(values["model"], card, prediction)
        length = tokens(values["model"], values["sequence"])
        zero = f"ZeRO-{values['zero']}" if values["zero"] else "no ZeRO"
        settings = (f"{values['precision']}, {STATES[values['optimizer']].name}, {zero}, {values['gpus']:,} GPU"
                    f"{'s' * (values['gpus'] > 1)}, {values['batch']} x {length:,} tokens a GPU, "
                    f"recomputation {values['recompute']}")
        self._follow(prediction, card)
        self.title.set_text(found)
        self.settings.set_text(settings)
        return self.canvas.picture(), f"{found} With {settings}."

    def _follow(self, prediction: Prediction | None, card: str) -> None:
        """Bring a prediction into the figure; None empties it."""
        sizes = {part: getattr(prediction, part) if prediction else 0 for part in PARTS}
        total = sum(sizes.values())
        top = axis_top(max(1.1 * total, 1.12 * CARDS[card]) / GB)
        self.ax.set_ylim(0, top)
        below = 0.0
        for bar, size in zip(self.bars, sizes.values()):
            bar.set(y=below, height=size / GB)
            below += size / GB
        self.total.set(y=below + 0.008 * top, text=f"{gigabytes(total)} GB" if prediction else "")
        self._choose_cards(card, top)
        left = CARDS[card] - total - CUDA_CONTEXT
        told = {**sizes, "total": total, "card": CARDS[card], "CUDA context": -CUDA_CONTEXT, "left": left}
        for name, text in self.rows.items():
            size = told[name]
            sign = "\N{MINUS SIGN}" if size < 0 else ""
            text.set_text(f"{sign}{gigabytes(abs(size))} GB" if prediction else "")

    def _choose_cards(self, card: str, top: float) -> None:
        """Show the chosen card, and of the others those that the axis reaches and that stand apart."""
        shown = [CARDS[card] / GB]
        for key in sorted(CARDS, key=lambda key: (key != card, -CARDS[key])):
            height = CARDS[key] / GB
            apart = min(abs(height - other) for other in shown) >= APART * top
            visible = key == card or (key in BESIDE and height <= 0.95 * top and apart)
            shown += [height] * visible
            for artist in (self.lines[key], self.names[key]):
                artist.set(visible=visible, color=INK if key == card else MUTED)
            self.lines[key].set(linestyle="solid" if key == card else REFERENCE["linestyle"])
            self.names[key].set(fontweight="bold" if key == card else "normal")


def _shortened(text: str) -> str:
    """As many words as one line of the figure holds."""
    if text_width(text) <= WIDTH:
        return text
    words = text.split()
    while text_width(" ".join(words) + " ...") > WIDTH:
        words.pop()
    return " ".join(words) + " ..."
