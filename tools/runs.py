"""Record the curves of the read-run questions: ``python -m tools.runs`` for all, with ids for some of them."""

from __future__ import annotations

import datetime
import sys

import torch

from course_lib.questions import get, load, runs
from course_lib.questions.proof import evidence_function


def main(ids: list[str]) -> int:
    """Write ``recorded/ID.json`` for each question, and leave alone what comes out as it was."""
    chosen = [get(name) for name in ids] or [question for question in load().values() if question.run]
    for question in chosen:
        if question.run is None:
            print(f"{question.id} is of kind {question.kind}. Allowed: read-run.", file=sys.stderr)
            return 2
        curves = evidence_function(question.run.curves)()
        file = runs.RUNS / f"{question.id}.json"
        if file.is_file() and curves.exact and _same(runs.load(question.id), curves):
            continue
        versions = {"torch": torch.__version__.split("+")[0], "date": datetime.date.today().isoformat()}
        file.write_text(runs.to_json(curves, question.run.curves, versions), encoding="utf-8")
        print(f"wrote {file.name}")
    for file in runs.RUNS.glob("*.json"):
        if file.stem not in {name for name, question in load().items() if question.run}:
            print(f"{file.name} belongs to no question; delete it.", file=sys.stderr)
    return 0


def _same(old: runs.Curves, new: runs.Curves) -> bool:
    def values(curves: runs.Curves) -> torch.Tensor:
        rows = [curves.x, *(series for panel in curves.panels for series in panel.series.values())]
        return torch.tensor(rows, dtype=torch.float64)

    def names(curves: runs.Curves) -> list:
        return [curves.x_label, [(panel.y, list(panel.series), panel.log) for panel in curves.panels]]

    return names(old) == names(new) and values(old).shape == values(new).shape and torch.allclose(
        values(old), values(new), rtol=1e-5, atol=0, equal_nan=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
