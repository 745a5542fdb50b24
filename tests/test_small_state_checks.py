"""The references behind the exercises of notebooks 13 and 14, held against torch, other packages and brute force."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from candidates.functions import FUNCTIONS
from candidates.right import variants
from course_lib.checks import check
from course_lib.checks.functions import JUDGES
from course_lib.checks.guards import production_class
from course_lib.checks.muon_bug import judge_muon_bug
from course_lib.checks.numbers import ANSWERS, judge_number
from course_lib.optim import REGISTRY
from course_lib.precision.blockwise import dequantise, dynamic_map, quantise


SOURCE = Path(__file__).resolve().parent.parent / "solutions" / "source" / "14_beyond_adam.py"


def right(exercise, **case):
    judge = JUDGES[exercise]
    parts = judge.evaluate(judge.right, case)
    return parts if judge.parts else parts[0]


# ------------------------------------------------------------------------------------------------------------ lion


def test_the_packages_lion_is_the_one_that_is_asked_for():
    lion = pytest.importorskip("pytorch_optimizer").Lion
    assert check("lion", lion, allow_production=True).passed
    report = check("lion", lion)
    assert report.findings[0].code == "production-optimizer"
    assert production_class(lion) == "pytorch_optimizer's own Lion"


def test_an_optimizer_of_the_course_inside_a_class_is_found():
    inner = REGISTRY["lion"].make

    class Wraps(variants("lion")["LoopOverState"]):
        def __init__(self, params, **hyper):
            super().__init__(params, **hyper)
            self.inner = inner(self.param_groups)

        def step(self, closure=None):
            return self.inner.step(closure)

    finding = next(f for f in check("lion", Wraps).findings if f.code == "production-optimizer")
    assert "course_lib.optim.Lion" in finding.what
    assert inner.__init__.__qualname__ == "Lion.__init__", "the watch has been taken off"


def test_a_lion_that_keeps_few_digits_is_told_though_its_signs_are_nearly_all_right():
    class Rounds(variants("lion")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            new, kept = variants("lion")["LoopOverState"].RULE(p, g, s, t, h)
            return new, {"m": kept["m"].bfloat16().to(p.dtype)}

    assert check("lion", Rounds).findings[0].code == "low-precision"


def test_a_nan_in_a_gradient_may_show_in_a_lion_or_not():
    class Shows(variants("lion")["LoopOverState"]):
        @staticmethod
        def RULE(p, g, s, t, h):
            new, kept = variants("lion")["LoopOverState"].RULE(p, g, s, t, h)
            return torch.where(kept["m"].isnan(), torch.nan, new), kept

    assert check("lion", Shows).passed


# ----------------------------------------------------------------------------------------------------- small state


def test_factored_moment_has_the_row_and_column_means_of_adams_and_equals_it_at_rank_one():
    for case in JUDGES["factored_moment"].cases:
        gradients, beta2 = case["gradients"], case["beta2"]
        v = np.zeros(gradients.shape[1:])
        for g in gradients:
            v = beta2 * v + (1 - beta2) * g**2
        v /= 1 - beta2 ** len(gradients)
        factored = right("factored_moment", **case)
        assert np.allclose(factored.mean(axis=0), v.mean(axis=0)) and np.allclose(factored.mean(axis=1), v.mean(axis=1))
        assert np.linalg.matrix_rank(factored) == 1
    rank_one = np.outer([1.0, 2.0, 0.5], [3.0, 0.1])[None].repeat(4, axis=0)
    assert np.allclose(right("factored_moment", gradients=rank_one, beta2=0.9), rank_one[0] ** 2)


def test_factored_moment_is_what_torchs_adafactor_keeps_after_one_step():
    gradient = np.random.default_rng(3).normal(size=(4, 5))
    p = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adafactor([p])
    p.grad = torch.tensor(gradient)
    optimizer.step()
    row, column = (optimizer.state[p][name].numpy() for name in ("row_var", "col_var"))
    assert np.allclose(right("factored_moment", gradients=gradient[None], beta2=0.999), row * column / row.mean())


@pytest.mark.parametrize("signed", [True, False])
def test_quantise_blocks_is_the_librarys(signed):
    table = dynamic_map(signed=signed)
    x = torch.tensor(np.random.default_rng(1).normal(size=1000), dtype=torch.float32)
    x = x if signed else x.square()
    codes, absmax = quantise(x, signed=signed)
    back = dequantise(codes, absmax, signed=signed)
    mine = right("quantise_blocks", x=x.double().numpy(), table=table.double().numpy(), block=256)
    assert np.array_equal(mine[0], codes) and np.allclose(mine[1], absmax) and np.allclose(mine[2], back, rtol=1e-6)


def held(optimizer, shapes):
    """Bytes of state in a real optimizer after one step, without counts."""
    params = [torch.ones(shape, requires_grad=True) for shape in shapes]
    made = REGISTRY[optimizer].make
    if optimizer == "muon":
        matrices, others = ([p for p in params if (p.ndim == 2) == flag] for flag in (True, False))
        stepper = made([{"params": matrices}, {"params": others, "adamw": True}])
    else:
        stepper = made(params)
    for p in params:
        p.grad = torch.ones_like(p)
    stepper.step()
    return sum(
        value.nbytes
        for state in stepper.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name != "step"
    )


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon", "adafactor", "came", "adam_mini", "adamw8bit"])
def test_small_state_is_what_the_librarys_optimizers_hold(optimizer):
    shapes = ((64, 64), (63, 65), (4096,), (4095,), (300, 17), (10,), (1, 7))
    assert round(right("small_state_gb", shapes=shapes, optimizer=optimizer) * 1e9) == held(optimizer, shapes)


# ----------------------------------------------------------------------------------------------------- beyond Adam


def test_newton_schulz_is_a_polynomial_of_the_singular_values_whichever_side_is_multiplied():
    for case in JUDGES["newton_schulz"].cases:
        u, s, vt = np.linalg.svd(case["g"], full_matrices=False)
        s = s / max(np.linalg.norm(case["g"]), 1e-7)
        for _ in range(case["steps"]):
            s = sum(c * s**power for c, power in zip(case["coefficients"], (1, 3, 5), strict=True))
        assert np.allclose(right("newton_schulz", **case), u * s @ vt, rtol=1e-9, atol=1e-12)


def test_muon_scale_brings_an_orthogonal_matrix_to_a_fifth_and_the_original_is_torchs():
    adjust = torch.optim._muon._adjust_lr
    for rows, columns in ((5, 5), (7, 3), (3, 7)):
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(max(rows, columns), min(rows, columns))))[0]
        factor = float(right("muon_scale", rows=rows, columns=columns, mode="match_rms_adamw"))
        assert math.isclose(np.sqrt(np.mean((factor * q) ** 2)), 0.2)
        for mode in ("original", "match_rms_adamw"):
            mine = float(right("muon_scale", rows=rows, columns=columns, mode=mode))
            assert math.isclose(mine, adjust(1.0, mode, torch.Size((rows, columns))))


def test_schedule_free_walk_averages_z_and_takes_its_gradients_between():
    for case in JUDGES["schedule_free_walk"].cases:
        y, z, x = right("schedule_free_walk", **case)
        assert np.allclose(x[1:], np.cumsum(z[1:], axis=0) / np.arange(1, len(z))[:, None])
        assert np.allclose(y, (1 - case["beta"]) * z[:-1] + case["beta"] * x[:-1])
        assert np.allclose(np.diff(z, axis=0), [-case["lr"] * case["gradient"](point) for point in y])


def test_the_bug_in_the_muon_is_torchs():
    """torch.optim.Muon of 2.13 and before normalises its momentum buffer in place, for bfloat16 without Nesterov."""
    findings = judge_muon_bug(torch.optim.Muon, lambda _: None, allow_production=True)
    codes = [finding.code for finding in findings]
    if torch.__version__.startswith("2.13"):
        assert codes == ["buffer-normalised"]
        assert "bfloat16 weights, nesterov=False" in findings[0].what
    else:
        assert codes in ([], ["buffer-normalised"])


def test_the_courses_muon_has_not_that_bug():
    assert not judge_muon_bug(REGISTRY["muon"].make, lambda _: None, allow_production=True)


@pytest.mark.parametrize(
    ("name", "remark"),
    [("buffer in float32", "state-wider"), ("copy kept", "more-state"), ("update kept", "more-state")],
)
def test_repairs_that_cost_bytes_pass_and_are_told_so(name, remark):
    report = check("muon_bug", FUNCTIONS["muon_bug"][name][0])
    assert report.passed
    assert [finding.code for finding in report.findings] == [remark]


def test_the_speedup_is_read_off_the_tables_of_the_exercise():
    steps = (4000, 5000, 6000, 7500, 9000, 12_000)
    n = dict(zip(steps, (3.38, 3.34, 3.30, 3.27, 3.25, 3.20), strict=True))
    adamw = {
        3e-4: (3.62, 3.54, 3.48, 3.41, 3.36, 3.30),
        6e-4: (3.50, 3.43, 3.38, 3.33, 3.30, 3.25),
        1.2e-3: (3.43, 3.38, 3.34, 3.30, 3.27, 3.23),
        2.4e-3: (3.45, 3.40, 3.36, 3.32, 3.30, 3.26),
        4.8e-3: (3.71, 3.66, 3.60, 3.55, 3.50, 3.44),
    }
    best = {step: min(row[k] for row in adamw.values()) for k, step in enumerate(steps)}
    loss = adamw[3e-4][-1]
    speedup = min(s for s in steps if best[s] <= loss) / min(s for s in steps if n[s] <= loss)
    assert ANSWERS["fair_speedup"].value == speedup
    source = SOURCE.read_text(encoding="utf-8")
    for row in [n.values(), *adamw.values()]:
        assert " | ".join(f"{value:.2f}" for value in row) in source


@pytest.mark.parametrize(
    ("number", "code"), [(12_345, "no-ratio-but-steps"), (-3, "no-ratio"), (1.3, "not-exact"), (3, "wrong-number")]
)
def test_other_speedups_are_told_what_they_are(number, code):
    assert judge_number("fair_speedup", number)[0].code == code
