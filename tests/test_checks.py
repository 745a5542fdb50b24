"""The proof of the checks: blanks fail, solutions pass, known mistakes are rejected and named, correct variants accepted."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from candidates.catalogued import candidate
from candidates.proof import PROVED, proof, table
from candidates.right import variants
from candidates.wrong import conduct
from course_lib import blanks, checks
from course_lib.checks import EXERCISES, UnknownExercise, check, hint, sandbox
from course_lib.checks.judges import judge
from course_lib.checks.mistakes.engine import APART, Feed
from course_lib.checks.reference import follow
from course_lib.checks.report import REMARK, Finding, Report
from course_lib.checks.specs import SPECS

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = {"adam": 60, "adamw": 60, "momentum": 15, "rmsprop": 15}


@pytest.mark.parametrize("exercise", PROVED)
def test_every_known_answer_gets_its_verdict(exercise):
    outcomes = proof(exercise)
    assert not [o for o in outcomes if o.expected and o.passed], "wrong answers that pass"
    assert not [o for o in outcomes if not o.expected and not o.passed], "correct answers that are rejected"
    wrong = [o for o in outcomes if o.expected]
    assert not [o for o in wrong if o.codes[0] != o.expected and not o.named], "mistakes that are not named"
    if exercise in ENOUGH:
        assert len(wrong) >= ENOUGH[exercise]
        assert len(outcomes) - len(wrong) >= 10


def test_table_in_the_readme_is_this_one():
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run `python -m tools.kills` to bring the README up to date"
    )


@pytest.mark.parametrize("key", SPECS)
def test_catalogue_without_mistakes_is_the_reference(key):
    spec = SPECS[key]
    feed = Feed(spec.walk)
    right = [np.concatenate([np.ravel(v) for v in values]) for values in follow(spec.walk, spec.rule)]
    assert np.allclose(list(spec.family.trajectory(feed)), right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("key", SPECS)
def test_mistakes_are_far_from_the_answer_and_from_each_other(key):
    spec = SPECS[key]
    feed = Feed(spec.walk)
    codes = [mistake.code for mistake in spec.family.mistakes]
    assert len(set(codes)) == len(codes)
    paths = {"the answer": list(spec.family.trajectory(feed))}
    paths |= {mistake.code: list(spec.family.trajectory(feed, mistake)) for mistake in spec.family.mistakes}
    close = [(a, b) for a, b in combinations(paths, 2) if _distance(paths[a], paths[b], feed.layout.start) < APART]
    assert not close


def _distance(one, other, start):
    """Largest difference, relative to how far the second path has gone; infinite if they differ in what is finite."""
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)):
            return np.inf
        gone = np.max(np.abs(b - start), initial=1e-300, where=finite)
        with np.errstate(invalid="ignore"):
            largest = max(largest, np.max(np.abs(a - b), initial=0.0, where=finite) / gone)
    return largest


@pytest.mark.parametrize("key", SPECS)
def test_pairs_of_mistakes_are_named(key):
    mistakes = {mistake.code: mistake for mistake in SPECS[key].family.mistakes}
    pairs = {
        "adam": ("eps-inside-root", "decay-decoupled"),
        "adamw": ("decay-in-gradient", "v-not-corrected"),
        "momentum": ("dampening-ignored", "decay-decoupled"),
        "rmsprop": ("eps-inside-root", "decay-missing"),
    }
    first, second = pairs[key]
    codes = [f.code for f in judge(key, candidate(key, mistakes[first], mistakes[second]), lambda _: None)]
    assert {first, second} <= set(codes[:2])


def test_other_specifications_are_explained_and_not_called_mistakes():
    mistake = next(m for m in SPECS["adam"].family.mistakes if m.code == "eps-before-correction")
    finding = judge("adam", candidate("adam", mistake), lambda _: None)[0]
    assert (finding.code, finding.kind) == ("eps-before-correction", "other specification")
    assert "TensorFlow" in finding.what


def test_an_unknown_mistake_is_located():
    """Wrong only where a gradient is missing, in a way that no catalogue knows."""

    class Loses(variants("adamw")["LoopOverState"]):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None and "m" in self.state[p]:
                        self.state[p]["m"] *= 0.5
            return super().step(closure)

    finding = judge("adamw", Loses, lambda _: None)[0]
    assert finding.code == "missing-gradient"
    assert re.search(r"step \d+, parameter \d", finding.what)


# ------------------------------------------------------------------------------ guided and blank-page versions


def test_what_the_guided_version_does_not_ask_for_is_a_remark_there_and_required_on_the_blank_page():
    plain = variants("adamw")["PlainDict"]
    guided, blank_page = check("adamw", plain), check("adamw_blank", plain)
    remarks = {finding.code for finding in guided.findings if finding.kind == REMARK}
    assert guided.passed and {"no-maximize", "no-load-state-dict"} <= remarks
    assert not blank_page.passed and remarks <= {finding.code for finding in blank_page.findings}
    assert check("adamw_blank", variants("adamw")["WithMaximize"]).passed
    assert check("adam_blank", variants("adam")["WithMaximize"]).passed


@pytest.mark.parametrize("path", sorted((ROOT / "exercises").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_blank_fails_and_every_solution_passes(path):
    """The blank, cut from the solution's text, is not passed; the executed solution's stored reports are."""
    from course_lib.sources import exercise_form

    blank = exercise_form(ROOT / "solutions" / "source" / f"{path.stem}.py")
    namespace: dict = {}
    failed = set()
    for cell in blank.cells:
        if cell.cell_type != "code":
            continue
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("check:"):
                report = eval(cell.source, namespace)
                assert not report.passed, f"the blank of {tag} passes"
                failed.add(tag.removeprefix("check:"))
                break
        else:
            try:
                exec(cell.source, namespace)
            except NotImplementedError:
                pass
    assert failed == {exercise.id for exercise in EXERCISES.values() if exercise.notebook == path.stem}
    solution = nbformat.read(ROOT / "solutions" / f"{path.stem}.ipynb", 4)
    for cell in solution.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("check:"):
                assert cell.outputs[0].data["text/plain"].startswith(f"{tag.removeprefix('check:')}: passed")


def test_every_answer_has_the_name_that_its_exercise_declares():
    for exercise in EXERCISES.values():
        notebook = nbformat.read(ROOT / "solutions" / f"{exercise.notebook}.ipynb", 4)
        source = "\n".join(answer.source for answer in blanks.answers(notebook)[exercise.id])
        assert re.search(rf"^(class|def) {exercise.answer}\b|^{exercise.answer} = ", source, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ safety


def test_an_endless_candidate_is_stopped_and_the_probe_named():
    class Endless(variants("adamw")["LoopOverState"]):
        def step(self, closure=None):
            while True:
                pass

    findings = sandbox.run("adamw", Endless, seconds=1.0)
    assert [finding.code for finding in findings] == ["endless"]
    assert "walk" in findings[0].what
    assert sandbox.SECONDS < 10


def test_nothing_a_candidate_does_reaches_this_process(capfd):
    """The hostile candidates all ran in a process of their own: this one is as it was, and so are torch's functions."""
    torch.manual_seed(3)
    random.seed(3)
    before = (
        torch.random.get_rng_state(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.clip,
        torch.get_num_threads(),
    )
    known = conduct("adamw")
    for name in ("Seeds", "SetsDefaultDtype", "PatchesTorch", "SwitchesGradOff", "EndsProcess", "Exits", "FillsMemory"):
        assert not check("adamw", known[name][0]).passed
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1:] == (random.getstate(), torch.get_default_dtype(), torch.clip, torch.get_num_threads())
    assert torch.is_grad_enabled()
    assert capfd.readouterr() == ("", "")


def test_a_candidate_that_prints_megabytes_is_told_and_nothing_is_shown(capfd):
    class Chatty(variants("adamw")["LoopOverState"]):
        def step(self, closure=None):
            print("x" * 10_000)
            return super().step(closure)

    report = check("adamw", Chatty)
    assert report.passed
    assert "prints" in [finding.code for finding in report.findings]
    assert capfd.readouterr().out == ""


def test_a_fresh_interpreter_judges_like_a_fork():
    class Late(variants("adamw")["LoopOverState"]):
        def step(self, closure=None):
            super().step()
            return None if closure is None else closure()

    for cls in (variants("adamw")["LoopOverState"], Late):
        forked, spawned = (sandbox.run("adamw", cls, method=method) for method in ("fork", "spawn"))
        assert forked == spawned


@pytest.mark.parametrize(
    "value",
    [3, "AdamW", None, ..., lambda params: None, torch, variants("adamw")["PlainDict"]([torch.zeros(1)])],
    ids=["int", "str", "None", "Ellipsis", "function", "module", "instance"],
)
def test_a_candidate_of_the_wrong_type_is_told_so(value):
    report = check("adamw", value)
    assert not report.passed
    assert report.findings[0].code in ("wrong-type", "blank")


# ------------------------------------------------------------------------------------- reports, hints, ids


def test_an_unknown_exercise_suggests_the_nearest():
    with pytest.raises(UnknownExercise, match="Did you mean 'adamw'"):
        check("adamww", None)


def test_a_report_reads_well_as_text_and_html_and_is_plain_data():
    report = Report("adamw", (Finding("a-code", "uses `x < y`", "Look."), Finding("b", "minor", kind=REMARK)))
    assert not report.passed and not report
    assert str(report).splitlines() == [
        "adamw: not yet",
        "1. [a-code] uses `x < y`",
        "   Hint: Look.",
        "2. [b (remark)] minor",
    ]
    assert "<code>x &lt; y</code>" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["code"] == "a-code"
    assert Report("adamw", report.findings[1:]).passed


def test_reports_are_appended_where_the_environment_says(tmp_path, monkeypatch):
    path = tmp_path / "reports.jsonl"
    monkeypatch.setenv("COURSE_REPORTS", str(path))
    check("adam_state_bytes", 56e9)
    check("adam_state_bytes", 56)
    assert [json.loads(line)["passed"] for line in path.read_text().splitlines()] == [True, False]


def test_hints_come_in_tiers_and_the_solution_after_a_try(capsys, monkeypatch):
    monkeypatch.setattr(checks, "_failed", {})
    monkeypatch.setattr(checks, "_hinted", {})
    exercise = EXERCISES["decay_steps"]
    for tier in exercise.hints:
        hint("decay_steps")
        assert tier in capsys.readouterr().out
    hint("decay_steps")
    assert "solutions/" not in capsys.readouterr().out
    check("decay_steps", 10)
    hint("decay_steps")
    assert "solutions/05_adamw.ipynb" in capsys.readouterr().out


def test_every_exercise_has_three_tiers_of_hints():
    assert all(len(exercise.hints) >= 3 for exercise in EXERCISES.values())
    assert len(EXERCISES) >= 8


def test_an_optimizer_that_knows_no_groups_is_told_so():
    class ListOnly(variants("adamw")["PlainLists"]):
        def __init__(self, params, **hyper):
            params = list(params)
            self.shapes = [p.shape for p in params]  # a dict has none
            super().__init__(params, **hyper)

    codes = [finding.code for finding in check("adamw", ListOnly).findings]
    assert codes[0] == "no-groups"
