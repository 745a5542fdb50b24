"""The curves that read-run questions show: made by an evidence function, kept in ``recorded/``, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RUNS = Path(__file__).parent / "recorded"
"""The folder of the recorded curves, one JSON file a question."""
MOST_POINTS = 400


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        y: what is on the y axis, with its unit, as "loss (nats)".
        series: values by the name of the line, one for each x; NaN where there is none.
        log: whether the y axis is logarithmic.
    """

    y: str
    series: dict[str, list[float]]
    log: bool = False


@dataclass(frozen=True)
class Curves:
    """What a learner gets to read.

    Attributes:
        x_label: what is on the x axis, as "step".
        x: the same for all panels; at most MOST_POINTS.
        panels: one above the other, the most telling first. None of the labels gives the cause away.
        exact: whether the values are the same on every processor (float64, element by element); else a new run has
            the same shape and other digits.
    """

    x_label: str
    x: list[float]
    panels: list[Panel]
    exact: bool = True

    def __post_init__(self) -> None:
        lengths = {len(values) for panel in self.panels for values in panel.series.values()}
        if lengths != {len(self.x)} or not 2 <= len(self.x) <= MOST_POINTS:
            raise ValueError(f"x has {len(self.x)} values and the series {sorted(lengths)}. "
                             f"Allowed: the same number everywhere, 2 to {MOST_POINTS}.")


def thinned(values: Sequence[float], count: int = 200) -> list[float]:
    """Every so-manieth of ``values``, so that at most ``count`` are left, the first among them."""
    return [float(value) for value in values[:: -(-len(values) // count)]]


def to_json(curves: Curves, made_by: str, versions: dict[str, str]) -> str:
    """The curves with six digits, what made them and with which versions."""
    def rounded(value):
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None if math.isnan(value) else repr(value)
        if isinstance(value, dict):
            return {key: rounded(inner) for key, inner in value.items()}
        return [rounded(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps({"made_by": made_by, **versions, **rounded(asdict(curves))}, allow_nan=False) + "\n"


def load(question_id: str) -> Curves:
    """The recorded curves of a question.

    Raises:
        FileNotFoundError: there are none.
    """
    file = RUNS / f"{question_id}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{question_id} has no curves in {RUNS}. Record them with: python -m tools.runs")
    data = json.loads(file.read_text(encoding="utf-8"))
    panels = [
        Panel(panel["y"], {name: [math.nan if value is None else float(value) for value in values]
                           for name, values in panel["series"].items()}, panel["log"])
        for panel in data["panels"]
    ]
    return Curves(data["x_label"], data["x"], panels, data["exact"])
