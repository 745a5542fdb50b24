"""The curves of read-run questions: recorded as they are made, drawn, told in words, and read without torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from course_lib.questions import bank, runs
from course_lib.questions.picture import in_words
from course_lib.questions.proof import evidence_function

RUNS = [name for name, question in bank().items() if question.run]


def names(curves: runs.Curves) -> list:
    return [curves.x_label, [(panel.y, list(panel.series), panel.log) for panel in curves.panels]]


@pytest.mark.parametrize("name", RUNS)
def test_what_is_recorded_is_what_the_experiment_gives(name):
    recorded, made = runs.load(name), evidence_function(bank()[name].run.curves)()
    assert names(recorded) == names(made) and recorded.exact == made.exact
    np.testing.assert_allclose(recorded.x, made.x, rtol=1e-5)
    for old, new in zip(recorded.panels, made.panels, strict=True):
        for line in old.series:
            if made.exact:
                np.testing.assert_allclose(old.series[line], new.series[line], rtol=1e-4, atol=1e-9)
            else:
                assert len(old.series[line]) == len(new.series[line])


@pytest.mark.parametrize("name", RUNS)
def test_curves_can_be_read(name):
    curves = runs.load(name)
    assert runs.RUNS.joinpath(f"{name}.json").stat().st_size < 60_000
    for panel in curves.panels:
        for line, values in panel.series.items():
            there = [value for value in values if math.isfinite(value)]
            assert len(there) >= 2, (panel.y, line)
            assert not panel.log or max(there) > 0
    words = in_words(curves)
    assert all(panel.y in words for panel in curves.panels) and "nan" not in words
    labels = " ".join([curves.x_label, *(f"{panel.y} {' '.join(panel.series)}" for panel in curves.panels)]).lower()
    assert bank()[name].run.causes[0].en.lower() not in labels


def test_no_recording_is_left_over_and_each_says_what_made_it():
    assert {path.stem for path in runs.RUNS.glob("*.json")} == set(RUNS)
    for name in RUNS:
        data = json.loads((runs.RUNS / f"{name}.json").read_text(encoding="utf-8"))
        assert data["made_by"] == bank()[name].run.curves and data["torch"] and data["date"]


def test_not_a_number_and_infinity_survive_the_file(tmp_path, monkeypatch):
    curves = runs.Curves("step", [0.0, 1.0, 2.0], [runs.Panel("loss", {"a": [1.0, math.nan, math.inf]}, log=True)], exact=False)
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    (tmp_path / "x.json").write_text(runs.to_json(curves, "f", {"torch": "2", "date": "2026-01-01"}))
    back = runs.load("x")
    assert back.panels[0].series["a"][0] == 1 and math.isnan(back.panels[0].series["a"][1])
    assert back.panels[0].series["a"][2] == math.inf and not back.exact
    with pytest.raises(FileNotFoundError, match="python -m tools.runs"):
        runs.load("y")


@pytest.mark.parametrize(("x", "values"), [([0.0], [1.0]), ([0.0, 1.0], [1.0]), ([0.0] * 401, [1.0] * 401)])
def test_curves_that_do_not_fit_are_refused(x, values):
    with pytest.raises(ValueError, match="Allowed: the same number everywhere, 2 to 400"):
        runs.Curves("step", x, [runs.Panel("loss", {"a": values})])


def test_a_run_is_read_without_torch():
    code = f"import sys; from course_lib.questions import runs; runs.load({RUNS[0]!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
