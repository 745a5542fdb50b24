"""How controls and their picture get into a notebook, and the picture alone where there can be no controls."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from IPython.display import display

from course_lib.plots.display import png
from course_lib.widgets.canvas import Canvas

if TYPE_CHECKING:
    import ipywidgets

VIEW = "application/vnd.jupyter.widget-view+json"
MISSING = "The controls need ipywidgets, which is not installed: pip install ipywidgets"


def show(
    canvas: Canvas,
    draw: Callable[[Mapping[str, Any]], tuple[bytes, str]],
    values: Mapping[str, Any],
    make_controls: Callable[[], Mapping[str, ipywidgets.ValueWidget]],
    seen: str,
) -> None:
    """Display one output that holds the controls and, for where they do not run, the first picture.

    Below it stands, folded, the first picture in words. A picture that is not run has those words as its
    alternative text too; the controls write the finding under theirs.

    Args:
        canvas: on which ``draw`` draws.
        draw: name -> value to a PNG and the finding in a sentence; called at each change of a control.
        values: what the first picture shows.
        make_controls: name -> control with that value; called where ipywidgets is installed.
        seen: what one sees in the picture, whatever the values.
    """
    _, finding = draw(values)
    alt = f"{finding} {seen}"
    data, width, height = png(canvas.fig)
    bundle: dict[str, Any] = {"image/png": data, "text/plain": alt}
    if find_spec("ipywidgets") is None:
        bundle["text/plain"] = alt = f"{alt} {MISSING}"
    else:
        from course_lib.widgets.controls import tie

        model = tie(make_controls(), draw, values, canvas.size).model_id
        bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": model}
        if "google.colab" in sys.modules:
            del bundle["image/png"]  # nothing says that Colab prefers controls to a picture
    metadata = {"image/png": {"alt": alt, "width": width, "height": height}} if "image/png" in bundle else {}
    display(bundle, metadata=metadata, raw=True)
    words = html.escape(alt)
    folded = f"<details><summary><small>First picture in words</small></summary><small>{words}</small></details>"
    display({"text/html": folded, "text/plain": f"First picture in words: {alt}"}, raw=True)


def number(value: float) -> str:
    """Three digits, as one would write them: 1000, 0.0224, 1e-08."""
    return f"{float(f'{value:.3g}'):g}"


def present(make: Callable[[], ipywidgets.DOMWidget], words: str) -> None:
    """Display one output: controls that are made here, and for where they do not run, what they are in words."""
    bundle: dict[str, Any] = {"text/plain": words}
    if find_spec("ipywidgets") is None:
        bundle["text/plain"] = f"{words} {MISSING}"
    else:
        bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": make().model_id}
    display(bundle, raw=True)
