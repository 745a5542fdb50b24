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
from course_lib import blanks
from course_lib.checks import EXERCISES, UnknownExercise, check, hint, sandbox
from course_lib.checks.judges import judge
from course_lib.checks.mistakes.engine import APART, Feed
from course_lib.checks.reference import follow
from course_lib.checks.report import REMARK, Finding, Report
from course_lib.checks.specs import SPECS

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = {
    "adam": 60,
    "adamw": 60,
    "momentum": 40,
    "nesterov": 40,
    "adagrad": 40,
    "rmsprop": 40,
    "adadelta": 40,
    "lion": 60,
}


@pytest.mark.parametrize("exercise", PROVED)
def test_every_known_answer_gets_its_verdict(exercise):
    outcomes = proof(exercise)
    assert not [o for o in outcomes if o.expected and o.passed], "wrong answers that pass"
    assert not [o for o in outcomes if not o.expected and not o.passed], "correct answers that are rejected"
    wrong = [o for o in outcomes if o.expected]
    assert not [o for o in wrong if o.codes[0] != o.expected and not o.named], "mistakes that are not named"
    if exercise in ENOUGH:
        assert len(wrong) >= ENOUGH[exercise]
        assert len(outcomes) - len(wrong) >= 12


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
        "nesterov": ("heavy-ball", "decay-sign"),
        "adagrad": ("v-starts-at-tenth", "lr-twice"),
        "rmsprop": ("eps-inside-root", "decay-missing"),
        "adadelta": ("u-of-scaled-update", "numerator-root-missing"),
        "lion": ("decay-without-lr", "m-before-sign"),
    }
    first, second = pairs[key]
    codes = [f.code for f in judge(key, candidate(key, mistakes[first], mistakes[second]), lambda _: None)]
    assert {first, second} <= set(codes[:2])


@pytest.mark.parametrize(
    "key, code, named",
    [
        ("adam", "eps-before-correction", "TensorFlow"),
        ("nesterov", "lr-inside-buffer", "Sutskever"),
        ("nesterov", "averages-both", "Muon"),
        ("adagrad", "as-in-keras", "Keras"),
        ("adagrad", "dual-averaging", "Duchi"),
        ("adagrad", "row-wise", "recommender"),
        ("adadelta", "lr-missing", "Zeiler"),
        ("lion", "sign-of-new-m", "Signum"),
    ],
)
def test_other_specifications_are_explained_and_not_called_mistakes(key, code, named):
    mistake = next(m for m in SPECS[key].family.mistakes if m.code == code)
    finding = judge(key, candidate(key, mistake), lambda _: None)[0]
    assert (finding.code, finding.kind) == (code, "other specification")
    assert named in finding.what


def test_a_candidate_that_ends_in_not_a_number_is_told_its_mistake_and_nothing_that_follows_from_it():
    mistake = next(m for m in SPECS["rmsprop"].family.mistakes if m.code == "v-not-squared")
    findings = judge("rmsprop", candidate("rmsprop", mistake), lambda _: None)
    assert findings[0].code == "v-not-squared"
    assert not {"instances-share-state", "generator", "gradient-kept"} & {finding.code for finding in findings}


def test_an_adadelta_without_eps_above_does_not_move_and_is_asked_about_its_first_update():
    class WithoutEpsAbove(variants("adadelta")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            g = g + h["weight_decay"] * p
            v = h["rho"] * s.get("v", 0) + (1 - h["rho"]) * g**2
            u = s.get("u", torch.zeros_like(p))
            update = u.sqrt() / (v + h["eps"]).sqrt() * g
            return p - h["lr"] * update, {"v": v, "u": h["rho"] * u + (1 - h["rho"]) * update**2}

    finding = check("adadelta", WithoutEpsAbove).findings[0]
    assert finding.code == "does-not-move"
    assert "first update" in finding.hint


@pytest.mark.parametrize(
    "key, form, code",
    [
        ("adam", "adam_running_products", "betas-schedule"),
        ("nesterov", "nesterov_buffer_multiplied", "momentum-schedule"),
        ("adadelta", "adadelta_sums_kept", "rho-schedule"),
        ("adadelta", "adadelta_eps_kept", "eps-schedule"),
        ("adagrad", "adagrad_mean_kept", None),
    ],
)
def test_a_form_that_is_right_only_for_constant_hyper_parameters_passes_and_is_told_so(key, form, code):
    report = check(key, variants(key)[form])
    assert report.passed
    assert {f.code for f in report.findings} == {"no-maximize"} | ({code} if code else set())


def test_a_parameter_that_decays_as_it_did_at_first_is_a_mistake():
    """Nothing that is remembered holds weight_decay, so no correct form differs from torch when it changes."""

    class MeansDecay(variants("nesterov")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            mean = s.get("mean", h["weight_decay"]) * 0.5 + h["weight_decay"] * 0.5
            new, kept = variants("nesterov")["LoopOverState"].RULE(p, g, s, t, {**h, "weight_decay": mean})
            return new, {**kept, "mean": mean}

    assert check("nesterov", MeansDecay).findings[0].code == "weight-decay-schedule"


def test_few_digits_are_only_spoken_of_where_few_are_kept():
    class LastTen(variants("adagrad")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            g = g + h["weight_decay"] * p
            squares = [*s.get("squares", []), g * g][-10:]
            return p - h["lr"] * g / (sum(squares).sqrt() + h["eps"]), {"squares": squares}

    finding = check("adagrad", LastTen).findings[0]
    assert finding.code == "rule"
    assert "first 10 steps are right" in finding.what and "within 2%" in finding.what


def test_a_gradient_that_is_overwritten_is_told_before_the_numbers_that_it_spoils():
    class Squares(variants("adadelta")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            v = h["rho"] * s.get("v", 0) + (1 - h["rho"]) * g.pow_(2)
            u = s.get("u", torch.zeros_like(p))
            update = ((u + h["eps"]) / (v + h["eps"])).sqrt() * g
            return p - h["lr"] * update, {"v": v, "u": h["rho"] * u + (1 - h["rho"]) * update**2}

    codes = [finding.code for finding in check("adadelta", Squares).findings]
    assert codes[:2] == ["gradient-written", "rule"]


def test_a_tensor_that_all_parameters_share_is_spoken_of_where_shapes_clash():
    class OneBuffer(variants("nesterov")["LoopOverState"]):
        buffer = None

        @torch.no_grad()
        def step(self, closure=None):
            for group, p, _ in self.each():
                old = 0 if self.buffer is None else group["momentum"] * self.buffer
                self.buffer = old + p.grad + group["weight_decay"] * p
                p.sub_(group["lr"] * self.buffer)

    finding = check("nesterov", OneBuffer).findings[0]
    assert finding.code == "state-shared"
    assert "one tensor that all parameters share" in finding.what and "RuntimeError" in finding.what


def test_the_bug_to_find_in_an_sgd_is_named_and_its_repair_is_accepted():
    bug = conduct("momentum")["KeepsGradient"][0]
    report = check("momentum_bug", bug)
    assert not report.passed
    assert report.findings[0].code == "gradient-kept"
    assert "zero_grad(set_to_none=False)" in report.findings[0].what

    class Repaired(bug):
        @staticmethod
        def new(group, p, s, grad):
            return bug.new(group, p, s, grad.clone())

    assert check("momentum_bug", Repaired).passed


def test_an_adagrad_may_take_its_arguments_in_torchs_order_or_in_the_exercises_and_in_no_other():
    class Torchs(variants("adagrad")["LoopOverState"]):
        def __init__(self, params, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10):
            super().__init__(params, lr=lr, weight_decay=weight_decay, eps=eps)

    class Mixed(variants("adagrad")["LoopOverState"]):
        def __init__(self, params, lr=1e-2, weight_decay=0.0, eps=1e-10):
            super().__init__(params, lr=lr, weight_decay=weight_decay, eps=eps)

    report = check("adagrad", Torchs)
    assert report.passed
    assert {"lr_decay", "initial_accumulator_value"} <= {finding.code for finding in report.findings}
    assert check("adagrad", Mixed).findings[0].code == "argument-order"


def test_a_remark_silences_no_later_probe():
    class FrozenAtFirst(variants("adamw")["LoopOverState"]):
        """Takes only the parameters that require gradients when it is made, and has a default of its own."""

        def __init__(self, params, lr=0.5, **hyper):
            params = list(params)
            if params and not isinstance(params[0], dict):
                params = [p for p in params if p.requires_grad] or [torch.zeros(1, requires_grad=True)]
            super().__init__(params, lr=lr, **hyper)

    codes = [finding.code for finding in check("adamw", FrozenAtFirst).findings]
    assert {"unfrozen", "defaults"} <= set(codes)


def test_a_judgement_leaves_torchs_optimizers_as_they_were():
    before = torch.optim.SGD.__init__
    judge("momentum", variants("momentum")["LoopOverState"], lambda _: None)
    assert torch.optim.SGD.__init__ is before


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


def test_hints_come_in_tiers_and_the_solution_after_a_try(capsys, home):
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
