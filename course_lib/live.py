"""A chart in a notebook that is redrawn while a model trains."""

from __future__ import annotations

import html
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from course_lib import plots
from course_lib.plots.display import DPI, png
from course_lib.train import History

SECONDS_BETWEEN_FRAMES = 0.5
SHARE_OF_TIME = 0.2


class LiveLoss:
    """The loss curves of several runs in one chart, redrawn while the latest of them grows.

    Args:
        alt: what one sees and what it means, for those who cannot see it.
        chart: passed on to :func:`course_lib.plots.lines`, such as ``title`` and ``ylim``.

    Raises:
        ValueError: ``alt`` is empty.
    """

    def __init__(self, alt: str, **chart: Any) -> None:
        if not alt.strip():
            raise ValueError("Invalid alt: it is empty. Say in a sentence or two what the chart shows and what it means.")
        self.alt = " ".join(alt.split())
        self.chart = chart
        self.curves: dict[str, np.ndarray] = {}

    @contextmanager
    def follow(self, name: str) -> Iterator[Callable[[int, History], None]]:
        """Add or replace the curve ``name`` in a chart below the cell; yield a callback for ``train``.

        The chart is redrawn twice a second at most, on a slow machine so rarely that drawing takes a fifth of the
        time, and once more at the end. What the cell holds then is the last frame: an ordinary picture that stays
        when the file is closed.
        """
        self.curves.pop(name, None)
        frame, latest = None, None
        next_frame = time.monotonic() + SECONDS_BETWEEN_FRAMES

        def callback(step: int, history: History) -> None:
            nonlocal frame, latest, next_frame
            latest, start = history, time.monotonic()
            if start >= next_frame:
                self.curves[name] = history.loss
                frame = self._draw(frame, _quick_png)
                end = time.monotonic()
                next_frame = end + max(SECONDS_BETWEEN_FRAMES, (end - start) * (1 / SHARE_OF_TIME - 1))

        try:
            yield callback
        finally:
            if latest is not None:
                self.curves[name] = latest.loss
                self._draw(frame, png)
                alt = html.escape(self.alt)
                words = f"<details><summary><small>Figure in words</small></summary><small>{alt}</small></details>"
                display({"text/html": words, "text/plain": f"Figure in words: {self.alt}"}, raw=True)

    def _draw(self, frame: Any, render: Callable[[Figure], tuple[bytes, int, int]]) -> Any:
        data, width, height = render(plots.lines(self.curves, **self.chart))
        bundle = {"image/png": data, "text/plain": self.alt}
        metadata = {"image/png": {"alt": self.alt, "width": width, "height": height}}
        if frame is None:
            return display(bundle, metadata=metadata, raw=True, display_id=True)
        frame.update(bundle, metadata=metadata, raw=True)
        return frame


def _quick_png(fig: Figure) -> tuple[bytes, int, int]:
    """A frame that is seen for half a second: quick to make rather than small."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    width, height = (fig.get_size_inches() * DPI).round().astype(int).tolist()
    return buffer.getvalue(), width, height
