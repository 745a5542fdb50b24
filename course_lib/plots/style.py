"""Colours, line styles and markers, and the frame that every chart shares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

from matplotlib import cbook
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation

PALETTE: dict[str, str] = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
"""The eight colours of Okabe & Ito (2002), which readers with any colour vision can tell apart."""

INK = "#222222"
MUTED = "#666666"
GRID = "#E3E3E3"

TITLE_PT = 11.0
TEXT_PT = 10.5
SMALL_PT = 10.0

REFERENCE = dict(color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
LEGEND = dict(frameon=False, fontsize=SMALL_PT, labelcolor=INK, handlelength=3.0, handletextpad=0.6, columnspacing=1.6)
KEY_INCHES, GAP_INCHES = 3.6 * SMALL_PT / 72, 1.6 * SMALL_PT / 72


@dataclass(frozen=True)
class Style:
    """How one series is drawn. Any two optimizers differ in at least two of colour, line style and marker."""

    color: str
    linestyle: str | tuple[int, tuple[float, ...]]
    marker: str

    @property
    def text_color(self) -> str:
        """The colour, dark enough to be read as text on white."""
        return to_hex([0.65 * channel for channel in to_rgb(self.color)])


_KEYS: dict[str, Style] = {
    "sgd": Style(PALETTE["vermillion"], (0, (5, 1.5)), "v"),
    "momentum": Style(PALETTE["orange"], (0, (6, 1.5, 1.5, 1.5)), "^"),
    "nesterov": Style(PALETTE["purple"], (0, (1.5, 1)), "<"),
    "rmsprop": Style(PALETTE["sky blue"], (0, (4, 1, 1, 1, 1, 1)), "D"),
    "adam": Style(PALETTE["green"], (0, (8, 1.5)), "o"),
    "amsgrad": Style(PALETTE["black"], (0, (3, 1)), "P"),
    "adamw": Style(PALETTE["blue"], "solid", "s"),
    # There are fewer colours than optimizers: these share one with an optimizer that they are seldom drawn beside.
    "adagrad": Style(PALETTE["black"], (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5)), ">"),
    "adadelta": Style(PALETTE["purple"], (0, (10, 3)), "X"),
    "adamax": Style(PALETTE["vermillion"], (0, (1, 1.5)), "p"),
    "nadam": Style(PALETTE["orange"], (0, (2, 1)), "d"),
    "radam": Style(PALETTE["sky blue"], (0, (10, 1.5, 3, 1.5)), "h"),
    # Large batches.
    "lars": Style(PALETTE["purple"], "solid", "p"),
    "lamb": Style(PALETTE["sky blue"], "solid", "H"),
    # Small state.
    "adafactor": Style(PALETTE["orange"], "solid", "o"),
    "came": Style(PALETTE["purple"], (0, (6, 1.5, 1.5, 1.5)), "d"),
    "adamw8bit": Style(PALETTE["sky blue"], (0, (8, 1.5)), "8"),
    "adam_mini": Style(PALETTE["green"], (0, (3, 1)), "v"),
    "lion": Style(PALETTE["black"], "solid", "X"),
    # Beyond Adam.
    "sophia": Style(PALETTE["sky blue"], (0, (3, 1)), "^"),
    "muon": Style(PALETTE["vermillion"], "solid", "D"),
    "shampoo": Style(PALETTE["purple"], (0, (8, 1.5)), "h"),
    "soap": Style(PALETTE["orange"], (0, (8, 1.5)), "P"),
    "schedule_free": Style(PALETTE["green"], (0, (6, 1.5, 1.5, 1.5)), ">"),
    "stable_adamw": Style(PALETTE["vermillion"], (0, (10, 1.5, 3, 1.5)), "H"),
    "ademamix": Style(PALETTE["black"], (0, (10, 3)), "<"),
}
_NAMES = {
    "sgd with momentum": "momentum", "nesterov momentum": "nesterov", "8-bit adamw": "adamw8bit",
    "adam-mini": "adam_mini", "schedule-free adamw": "schedule_free", "stableadamw": "stable_adamw",
}  # fmt: skip
_OTHERS: tuple[Style, ...] = tuple(
    _KEYS[key] for key in ("adamw", "sgd", "adam", "nesterov", "momentum", "rmsprop", "amsgrad")
)


def optimizer_style(name: str) -> Style | None:
    """The style of an optimizer, by its key or its name in the registry, in any case; None for another name."""
    name = name.lower()
    return _KEYS.get(_NAMES.get(name, name))


def color(name: str) -> str:
    """The colour of an optimizer, by its key or name in any case; for another name one that is always the same."""
    return (optimizer_style(name) or _OTHERS[crc32(name.encode()) % len(_OTHERS)]).color


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name of one figure: an optimizer's own, and for other names one whose colour is still free.

    Raises:
        ValueError: more names than there are styles.
    """
    names = list(dict.fromkeys(names))
    if len(names) > len(_OTHERS):
        most = len(_OTHERS)
        raise ValueError(f"{len(names)} series in one figure are too many to tell apart. Allowed: at most {most}.")
    chosen = {name: look for name in names if (look := optimizer_style(name))}
    taken = {look.color for look in chosen.values()}
    free = [one for one in _OTHERS if one.color not in taken]
    chosen |= {name: free.pop(0) for name in names if name not in chosen}
    return {name: chosen[name] for name in names}


def figure(size: tuple[float, float], nrows: int = 1, ncols: int = 1) -> tuple[Figure, list[Axes]]:
    """A white figure of ``size`` inches, laid out without overlaps, and its axes in reading order."""
    # A Figure without pyplot: nothing global is left behind, and no backend shows it a second time.
    fig = Figure(figsize=size, layout="constrained", facecolor="white")
    fig.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.04, hspace=0.06)
    axes = list(fig.subplots(nrows, ncols, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(MUTED)
        ax.tick_params(colors=INK, labelsize=SMALL_PT, color=MUTED)
        ax.grid(True, color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
    return fig, axes


def text_width(text: str, points: float = SMALL_PT, weight: str = "normal") -> float:
    """The width of one line of text in inches; parts between dollar signs are mathematics."""
    font = FontProperties(size=points, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=cbook.is_math_text(text))[0] / 72


def wrap(text: str, inches: float, points: float = SMALL_PT, weight: str = "normal") -> str:
    """``text`` broken into lines of at most ``inches``; line breaks of its own are kept, mathematics is not broken."""
    lines = []
    for paragraph in text.splitlines():
        lines.append("")
        for word in re.findall(r"(?:\$[^$]*\$|\S)+", paragraph):
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, points, weight) > inches:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def title(ax: Axes, text: str, inches: float) -> None:
    """The finding, over the whole figure."""
    ax.figure.suptitle(
        wrap(text, inches - 0.25, TITLE_PT, "bold"),
        x=0.012, ha="left", fontsize=TITLE_PT, fontweight="bold", color=INK,
    )


def legend_columns(labels: Sequence[str], inches: float) -> int:
    """How many columns of a legend fit ``inches``; the last row is then filled as well as it can be."""
    for rows in range(1, len(labels) + 1):
        columns = math.ceil(len(labels) / rows)
        widths = [max(map(text_width, labels[start : start + rows])) for start in range(0, len(labels), rows)]
        if sum(widths) + columns * KEY_INCHES + (columns - 1) * GAP_INCHES <= inches:
            return columns
    return 1


def legend(ax: Axes, handles: Sequence[Artist], inches: float, lift: float = 0) -> None:
    """A legend in rows above the axes, ``lift`` points higher, where it cannot cover data."""
    place = ax.transAxes + ScaledTranslation(0, lift / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1), bbox_transform=place, borderaxespad=0.2,
        ncols=legend_columns([handle.get_label() for handle in handles], inches - 0.8), **LEGEND,
    )
