"""The curves of a read-run question as a figure. Imports matplotlib."""

from __future__ import annotations

from matplotlib.figure import Figure

from course_lib import plots
from course_lib.questions.runs import Curves


def figure(curves: Curves) -> Figure:
    """A chart for each panel, one above the other. Its titles only say what is drawn: the reader finds the cause."""
    panels = [
        dict(series={name: (curves.x, values) for name, values in panel.series.items()}, title=panel.y,
             xlabel=curves.x_label, ylabel="", logy=panel.log)
        for panel in curves.panels
    ]
    return plots.lines_grid(panels, ncols=1, size=(7.0, 2.6 * len(panels) + 0.4))


def in_words(curves: Curves) -> str:
    """What is drawn, for those who do not see it: the axes, and each line's first, lowest, highest and last value."""
    sentences = []
    for panel in curves.panels:
        for name, values in panel.series.items():
            there = [value for value in values if value - value == 0]
            gaps = "" if len(there) == len(values) else f"; {len(values) - len(there)} values are missing or not finite"
            ends = (f"starts at {there[0]:.3g}, ends at {there[-1]:.3g}, between {min(there):.3g} and {max(there):.3g}"
                    if there else "has no finite value")
            sentences.append(f"{panel.y}, {name}, against {curves.x_label}: {ends}{gaps}.")
    return " ".join(sentences)
