"""Least times by hand arithmetic: bytes over bandwidth, FLOP over the peak, and what launches add."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.kernels import roofline
from course_lib.kernels.roofline import DATASHEETS, FLOPS, REGIMES, Machine, Work, bound, crossing, product, work
from course_lib.memory.cards import CARDS

ROUND = Machine("round", 1e12, {"float32": 10e12, "bfloat16": 100e12}, "made up")
SIDES = st.integers(1, 5000)


# Elementwise optimizers.


def test_seven_billion_parameters_in_mixed_precision_on_an_h100():
    """gradient 2, master, m, v read and written 3 x 8, weight written 2: 28 bytes; 7e9 * 28 / 3.35e12 = 58.5 ms."""
    step = work("adamw", [(7_000_000_000,)], param=2, grad=2, master=4)
    assert step == work("adamw", [(7_000_000_000,)], param=2, state=8, master=4)
    assert step.bytes == 7e9 * 28
    least = bound(step, DATASHEETS["h100"], 5e-6)
    assert round(least.seconds * 1e3, 1) == 58.5 and least.regime == "bandwidth"


@pytest.mark.parametrize(
    ("optimizer", "bytes_each", "flops"),
    # p read and written, g read, every state read and written.
    [("sgd", 12, 2), ("momentum", 20, 4), ("adagrad", 20, 7), ("lion", 20, 10), ("adam", 28, 13), ("adamw", 28, 14),
     ("amsgrad", 36, 14)],
)
def test_float32_steps(optimizer, bytes_each, flops):
    step = work(optimizer, [(3, 5), (7,), ()])
    assert (step.bytes, step.flops, step.launches) == (23 * bytes_each, 23 * flops, 1)
    assert step.intensity == flops / bytes_each < 1


def test_flops_of_adamw_counted_by_torch_operations():
    """Each arithmetic operator of AdamW's lines on Python numbers counts itself."""

    class Counting(float):
        made = 0

    for name in ("add", "sub", "mul", "truediv", "radd", "rsub", "rmul", "rtruediv"):
        def run(self, other, plain=getattr(float, f"__{name}__")):
            Counting.made += 1
            return Counting(plain(self, other))

        setattr(Counting, f"__{name}__", run)

    def root(x):
        Counting.made += 1
        return Counting(math.sqrt(x))

    p, g, m, v = map(Counting, (1.0, 2.0, 3.0, 4.0))
    # What depends on the step alone is computed once for all parameters: plain numbers.
    keep, step_size, root_correction, beta2, keep2, eps, take = 0.999, 1e-3, 0.03, 0.999, 0.001, 1e-8, 0.1
    p = p * keep
    m = m + take * (g - m)
    v = beta2 * v + keep2 * (g * g)
    p = p - step_size * (m / (root(v) / root_correction + eps))
    assert Counting.made == sum(FLOPS["adamw"].values()) == 14


def test_separate_passes_and_their_launches():
    """80 bytes a parameter instead of 28, 8 kernels for each of 400 tensors: 31 ms of bytes, 16 ms of launches."""
    shapes = [(1_300_000_000 // 400,)] * 400
    step = work("adamw", shapes, moved=80, launches=8 * len(shapes))
    least = bound(step, DATASHEETS["h100"], 5e-6)
    assert round(least.seconds * 1e3) == 31 and least.regime == "bandwidth"
    small = work("adamw", [(4096,)] * 400, moved=80, launches=3200)
    least = bound(small, DATASHEETS["h100"], 5e-6)
    assert (least.seconds, least.regime) == (pytest.approx(16e-3), "launch")


def test_no_parameters():
    assert work("adamw", []) == Work(0, 0)
    assert bound(work("adamw", [(0, 5)]), ROUND).seconds == 0
    assert math.isnan(Work(0, 0).intensity) and Work(0, 1).intensity == math.inf


# Muon.


def test_a_product_of_width_m_does_a_third_of_m_flops_a_byte():
    assert product(300, 300, 300).intensity == 100
    h100 = DATASHEETS["h100"]
    assert round(h100.ridge("bfloat16")) == 295 and h100.ridge() == 20
    assert bound(product(880, 880, 880), h100).regime == "bandwidth"
    assert bound(product(890, 890, 890), h100).regime == "compute"


def test_newton_schulz_of_a_square_is_thirty_cubes():
    step = roofline.newton_schulz(4096, 4096)
    assert step.flops == 30 * 4096**3 and step.bytes == 15 * 6 * 4096**2 and step.launches == 15
    assert step.intensity == pytest.approx(4096 / 3)
    assert bound(step, DATASHEETS["h100"]).regime == "compute"
    assert bound(roofline.newton_schulz(256, 256), DATASHEETS["h100"]).regime == "bandwidth"


@given(SIDES, SIDES, st.integers(0, 10))
def test_newton_schulz_by_the_formula(rows, columns, steps):
    s, l = min(rows, columns), max(rows, columns)  # noqa: E741
    step = roofline.newton_schulz(rows, columns, steps)
    assert step.flops == steps * (4 * s * s * l + 2 * s**3)
    assert step.bytes == steps * 2 * (4 * s * l + 5 * s * s)
    assert step == roofline.newton_schulz(columns, rows, steps)
    assert steps == 0 or 2 * step.intensity <= s  # the widest product of a step does at most s FLOP a 2-byte element


def test_newton_schulz_flops_counted_by_torch():
    """torch counts the products of the course's own implementation."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from course_lib.optim.muon import newton_schulz

    for shape in ((8, 24), (24, 8), (16, 16)):
        with FlopCounterMode(display=False) as counter:
            newton_schulz(torch.ones(shape))
        assert counter.get_total_flops() == roofline.newton_schulz(*shape).flops


def test_muons_step_is_bound_by_arithmetic_where_adamws_waits_for_memory():
    shapes = [(4096, 4096)]
    muon, adamw = work("muon", shapes), work("adamw", shapes)
    inside = 4096**2
    # p and B read and written, g read; what goes in and comes out of Newton-Schulz once more, in 2 bytes each.
    assert muon.bytes == inside * (20 + 4 + 90)
    assert muon.flops == inside * 12 + 30 * 4096**3
    h200 = DATASHEETS["h200"]
    assert bound(muon, h200).regime == "compute" and bound(adamw, h200).regime == "bandwidth"
    assert bound(muon, h200).seconds > 10 * bound(adamw, h200).seconds


def test_muon_leaves_vectors_to_adamw():
    both = work("muon", [(64, 32), (64,)])
    alone = work("muon", [(64, 32)])
    assert both.bytes - alone.bytes == 64 * 28 and both.flops - alone.flops == 64 * 14
    assert both.launches - alone.launches == 1 and alone.launches == 17


# Bounds.


@given(st.floats(0, 1e15), st.floats(0, 1e18), st.integers(0, 10**6), st.floats(0, 1e-3))
def test_a_bound_is_the_longest_of_the_three(moved, flops, launches, launch):
    found = bound(Work(moved, flops, launches), ROUND, launch)
    times = dict(zip(REGIMES, (launches * launch, moved / 1e12, flops / 10e12), strict=True))
    assert found.seconds == max(times.values()) == times[found.regime]


@given(st.floats(1, 100), st.floats(0, 1e-4), st.integers(0, 50))
def test_at_the_crossing_both_cost_the_same(each, launch, launches):
    elements = crossing(each, ROUND, launch, launches)
    assert elements * each / ROUND.bandwidth == pytest.approx(launch * launches)
    if elements > 0:
        assert bound(Work(each * elements * 1.01, 0, launches), ROUND, launch).regime == "bandwidth"
        assert bound(Work(each * elements * 0.99, 0, launches), ROUND, launch).regime == "launch"


def test_the_crossing_of_adamw_on_an_h100():
    """5 microseconds at 3.35 TB/s are 16.75 MB; at 28 bytes each 598,214 elements."""
    assert round(crossing(28, DATASHEETS["h100"], 5e-6)) == 598_214
    assert round(crossing(80, DATASHEETS["h100"], 5e-6, launches=8)) == 1_675_000


def test_the_ridge_is_where_both_cost_the_same():
    for machine in DATASHEETS.values():
        for dtype in machine.flops:
            at = Work(1e9, machine.ridge(dtype) * 1e9, 0, dtype)
            assert bound(at, machine).seconds == pytest.approx(1e9 / machine.bandwidth)


# Machines.


def test_datasheets_agree_with_each_other():
    assert set(DATASHEETS) <= set(CARDS)
    for machine in DATASHEETS.values():
        assert not machine.measured and machine.source.startswith("https://")
        assert "nvidia.com" in machine.source
        assert machine.flops["float32"] < machine.flops["float16"]
        assert machine.flops.get("bfloat16", machine.flops["float16"]) == machine.flops["float16"]
    assert DATASHEETS["h200"].flops == DATASHEETS["h100"].flops
    order = ["l4", "t4", "a100-80", "h100", "h200", "b200"]
    assert sorted(DATASHEETS, key=lambda key: DATASHEETS[key].bandwidth) == order


def test_a_t4_has_no_bfloat16():
    with pytest.raises(ValueError, match="Invalid dtype: 'bfloat16'. Allowed for T4: float32, float16."):
        bound(product(8, 8, 8), DATASHEETS["t4"])


def test_a_machine_is_measured(monkeypatch):
    from course_lib.kernels import bench

    def step_times(variants, repeats, warmup, device):
        for function in variants.values():
            function()
        return dict.fromkeys(variants, 0.5)

    monkeypatch.setattr(bench, "step_times", step_times)
    machine = roofline.measure_machine("cpu")
    assert machine.bandwidth == 2 * 2**28 / 0.5 and machine.measured and machine.name
    assert machine.flops == {"float32": 2 * 1024**3 / 0.5, "bfloat16": 2 * 1024**3 / 0.5}


@pytest.mark.parametrize(
    ("call", "says"),
    [(lambda: work("adamm", [(2,)]), "Invalid optimizer: 'adamm'. Allowed: sgd, .*, muon"),
     (lambda: work("muon", [(2, 2)], moved=80), "Invalid moved: 80. Allowed for muon: None"),
     (lambda: Work(-1, 0), "Invalid bytes: -1. Allowed: a finite number >= 0"),
     (lambda: Work(0, math.nan), "Invalid flops: nan"),
     (lambda: Work(1, 1) + product(1, 1, 1), "Invalid dtypes: float32 and bfloat16"),
     (lambda: Machine("x", 0, {"float32": 1}, "y"), "Invalid bandwidth: 0"),
     (lambda: Machine("x", 1, {}, "y"), "Invalid flops: no peak"),
     (lambda: Machine("x", 1, {"float32": math.inf}, "y"), "Invalid flops.*: inf"),
     (lambda: bound(Work(1, 1), ROUND, -1e-6), "Invalid launch_seconds: -1e-06"),
     (lambda: crossing(0, ROUND, 5e-6), "Invalid bytes_per_element: 0. Allowed: a finite number > 0")],
)
def test_bad_values(call, says):
    with pytest.raises(ValueError, match=says):
        call()
