"""A figure that is redrawn many times."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from course_lib.plots.display import DPI
from course_lib.plots.style import INK, SMALL_PT, TITLE_PT

DENSITY = 1.5  # pixels drawn for each that is shown, each way: text stays sharp on dense screens
GROUNDS = 4  # kept; one takes 3 MB


def head(fig: Figure) -> tuple[Text, Text]:
    """Room for two lines over the whole figure: the finding, and the values that led to it."""
    left, below = 0.012, 1 - 0.28 / fig.get_figheight()
    # The second line only holds the place of the other text, which differs in size and weight.
    finding = fig.suptitle("\n", x=left, ha="left", fontsize=TITLE_PT, fontweight="bold", color=INK)
    return finding, fig.text(left, below, "", va="top", fontsize=SMALL_PT, color=INK)


class Canvas:
    """Draws what never changes once, what changes seldom once for each of its states, and the rest each time.

    Attributes:
        fig: the figure.
        size: width and height in pixels at which a picture is shown.

    Args:
        fig: the figure; its layout is fixed here, from what it holds now.
        moving: what changes from picture to picture, in the order in which it is drawn.
    """

    def __init__(self, fig: Figure, moving: Sequence[Artist]) -> None:
        self.fig, self._moving = fig, moving
        self.size: tuple[int, int] = tuple((fig.get_size_inches() * DPI).round().astype(int).tolist())
        self._agg = FigureCanvasAgg(fig)
        fig.set_dpi(DPI * DENSITY)
        fig.draw_without_rendering()
        fig.set_layout_engine("none")
        for artist in moving:
            artist.set_visible(False)
        self._agg.draw()
        for artist in moving:
            artist.set_visible(True)
        self._base = self._agg.copy_from_bbox(fig.bbox)
        self._grounds: dict[Hashable, Any] = {}

    def picture(self, ground: Hashable = None, lay: Callable[[], Sequence[Artist]] = tuple) -> bytes:
        """The figure as it stands, as an opaque PNG made quickly rather than small.

        Args:
            ground: names what lies beneath the moving artists; equal names, equal pixels.
            lay: puts that into the figure and returns it; called only where its pixels were not kept.
        """
        if ground not in self._grounds:
            self._agg.restore_region(self._base)
            self._draw(lay())
            while len(self._grounds) >= GROUNDS:
                del self._grounds[next(iter(self._grounds))]
            self._grounds[ground] = self._agg.copy_from_bbox(self.fig.bbox)
        self._agg.restore_region(self._grounds[ground])
        self._draw(self._moving)
        file = io.BytesIO()
        # Few colours in wide areas: the fastest compression makes it small enough.
        Image.fromarray(np.asarray(self._agg.buffer_rgba())[..., :3].copy()).save(file, "png", compress_level=1)
        return file.getvalue()

    def _draw(self, artists: Sequence[Artist]) -> None:
        for artist in artists:
            artist.draw(self._agg.get_renderer())
