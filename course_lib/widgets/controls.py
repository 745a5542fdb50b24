"""The controls, of classes that ipywidgets 7.7.1 has too: Colab has no later one. This alone needs ipywidgets."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import ipywidgets

from course_lib.widgets.panel import number

Control = TypeVar("Control", bound=ipywidgets.ValueWidget)

RATES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def log_slider(name: str, values: Sequence[float], low: int, high: int) -> ipywidgets.SelectionSlider:
    """A slider from 10^low to 10^high in steps of a twentieth of a decade, to which ``values`` are added.

    The first of them is chosen. (A FloatLogSlider would not do: as soon as it is shown, it moves its value to the
    nearest of its own steps.)
    """
    steps = (float(f"{10 ** (tick / 20):.3g}") for tick in range(20 * low, 20 * high + 1))
    return slider(name, {*steps, *values}, values[0])


def rate_slider(name: str, value: float) -> ipywidgets.SelectionSlider:
    """A slider over rates of decay, finer towards 1, where they matter; ``value`` is one of them."""
    return slider(name, {*RATES, value}, value)


def slider(
    name: str, values: Iterable[float], chosen: float, text: Callable[[float], str] = number,
) -> ipywidgets.SelectionSlider:
    """A slider over ``values`` and ``chosen``, each of which is shown as its ``text``."""
    options = [(text(value), value) for value in sorted({*values, chosen})]
    return _labelled(name, ipywidgets.SelectionSlider(value=chosen, options=options))


def step_slider(name: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    """A slider over whole numbers."""
    return _labelled(name, ipywidgets.IntSlider(value=value, min=low, max=high))


def choice(name: str, options: Sequence[tuple[str, Any]], chosen: Any = None) -> ipywidgets.Dropdown:
    """A list to choose from: pairs of what is read and what it stands for; without ``chosen``, the first is chosen."""
    value = options[0][1] if chosen is None else chosen
    return _labelled(name, ipywidgets.Dropdown(options=list(options), value=value))


def show_or_hide(control: ipywidgets.DOMWidget, shown: bool) -> None:
    """Put a control into the page, or take it out, so that the keyboard does not reach it either."""
    control.layout.display = None if shown else "none"


def tie(
    controls: Mapping[str, ipywidgets.ValueWidget],
    draw: Callable[[Mapping[str, Any]], tuple[bytes, str]],
    values: Mapping[str, Any],
    size: tuple[int, int],
) -> ipywidgets.VBox:
    """Controls above a picture and a sentence that follow them.

    Front ends send the next value of a slider when the last has been worked off, so none pile up.

    Args:
        controls: by the names in ``values``, whose values they have.
        draw: name -> value to a PNG and a sentence.
        values: of the controls, and what else ``draw`` needs.
        size: of the picture, width and height in pixels; narrower where there is less room.
    """
    drawn = dict(values)
    data, said = draw(drawn)
    picture = ipywidgets.Image(
        value=data, format="png", layout=ipywidgets.Layout(width=f"{size[0]}px", height="auto", max_width="100%"),
    )
    sentence = ipywidgets.HTML(html.escape(said))

    def redraw(change: Mapping[str, Any]) -> None:
        now = {**drawn, **{name: control.value for name, control in controls.items()}}
        if now != drawn:  # one control may have set another, which was drawn already
            drawn.update(now)
            picture.value, said = draw(now)
            sentence.value = html.escape(said)

    for control in controls.values():
        control.observe(redraw, "value")
    rows = ipywidgets.Box(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([rows, picture, sentence])


def _labelled(name: str, control: Control) -> Control:
    control.description = name
    control.style.description_width = "9em"
    control.layout.width, control.layout.max_width = "26em", "100%"
    control.tooltip = name  # without it, ipywidgets 8 shows the word null; 7 has no such trait and does not mind
    return control
