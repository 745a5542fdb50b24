"""How a figure gets into a notebook."""

from __future__ import annotations

import html
import io
import sys

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

DPI = 110
LIMIT = 100_000


def png(fig: Figure) -> tuple[bytes, int, int]:
    """The figure as an opaque PNG, and the width and height in pixels at which it should be shown.

    The picture holds twice as many pixels each way, so that text is sharp on dense screens, unless it would
    reach 100 kB; then as many as are shown. Its colours are reduced to 128, which makes it about four
    times smaller and changes no colour visibly. The same figure gives the same bytes.
    """
    for density in (2, 1):
        raw, small = io.BytesIO(), io.BytesIO()
        fig.savefig(raw, format="png", dpi=DPI * density, facecolor="white", metadata={"Software": None})
        with Image.open(raw) as image:
            width, height = (pixels // density for pixels in image.size)
            _reduced(image.convert("RGB")).save(small, "png", optimize=True)
        if small.tell() < LIMIT:
            break
    return small.getvalue(), width, height


def _reduced(image: Image.Image) -> Image.Image:
    """The image in 128 colours: those of its areas and lines exactly, those of smoothed edges nearly.

    An image of more than 32,768 colours is returned as it is.
    """
    packed = np.asarray(image).astype(np.int64) @ (65536, 256, 1)
    colours, where, counts = np.unique(packed, return_inverse=True, return_counts=True)
    if len(colours) > 2**15:
        return image  # a photograph or noise, no chart: the search below would take too much memory
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    exact = rgb[np.argsort(-counts, kind="stable")][:24]
    # Pillow's default, median cut, moves the colours of thin lines' edges visibly.
    edges = image.quantize(128 - len(exact), method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette()
    palette = np.concatenate([exact, np.reshape(edges, (-1, 3))])
    # |a - b|^2 less |a|^2, which is the same for every candidate b. Pillow's own search is not exact.
    nearest = np.argmin((palette**2).sum(axis=1) - 2 * rgb @ palette.T, axis=1)
    reduced = Image.fromarray(nearest[where].reshape(packed.shape).astype(np.uint8), mode="P")
    reduced.putpalette(palette.astype(np.uint8).tobytes())
    return reduced


def show(fig: Figure, alt: str) -> None:
    """Display ``fig`` as a PNG with the text alternative ``alt``, and a folded line below that tells it in words.

    ``alt`` says what one sees and what it means. It is in the output's metadata and in its plain text; JupyterLab
    hands neither to a screen reader, hence the folded line. The figure is closed afterwards.

    Raises:
        ValueError: ``alt`` is empty, or the PNG would have 100 kB (1 kB = 1000 bytes) or more.
    """
    if not alt.strip():
        raise ValueError("Invalid alt: it is empty. Say in a sentence or two what the figure shows and what it means.")
    alt = " ".join(alt.split())
    data, width, height = png(fig)
    if len(data) >= LIMIT:
        raise ValueError(
            f"The figure takes {len(data) / 1e3:.0f} kB as PNG. Allowed: less than {LIMIT / 1e3:.0f} kB. "
            "Draw fewer points, smooth noisy curves, or make it smaller."
        )
    display(
        {"image/png": data, "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width, "height": height}},
        raw=True,
    )
    words = f"<details><summary><small>Figure in words</small></summary><small>{html.escape(alt)}</small></details>"
    display({"text/html": words, "text/plain": f"Figure in words: {alt}"}, raw=True)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)
    fig.clear()
