"""Rooflines, regimes and traces: lines and bars stand where the numbers are, and nothing covers anything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color

from course_lib import plots
from course_lib.plots import Limits, Point, Roof
from course_lib.plots.display import png
from course_lib.plots.roofline import _count
from course_lib.plots.traces import IDLE, KINDS, duration

pytestmark = pytest.mark.filterwarnings("error")

HERE = Roof("this processor", 20e9, 140e9)
H100 = Roof("H100 SXM, bf16", 3.35e12, 989e12, "data sheet")
FLOAT = Roof("H100 SXM, float32", 3.35e12, 67e12, "data sheet")
POINTS = [Point("SGD", 1 / 6), Point("Lion", 0.5), Point("AdamW", 0.5), Point("Muon", 256 / 3, note="256"),
          Point("AdamW", 0.5, 9e9), Point("AdamW", 0.5, 1.5e12, "recorded")]
LOOP = {"for-loop": Limits(1000 * 8 * 5e-6, 1000 * 80 / 3.35e12)}


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def nothing_is_covered(fig) -> None:
    """Title, legend, axes and what is written right of them lie apart, inside the figure."""
    fig.draw_without_rendering()
    (ax,) = fig.axes
    boxes = [fig._suptitle.get_window_extent(), ax.get_legend().get_window_extent(), ax.bbox]
    beside = [text.get_window_extent() for text in ax.texts
              if text.get_text() and text.get_window_extent().x0 > ax.bbox.x1]
    for one, other in itertools.combinations([*boxes, *beside], 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 1
    for box in (*boxes, *beside, ax.xaxis.get_tightbbox(), ax.yaxis.get_tightbbox()):
        assert box.x0 > -1 and box.x1 < fig.bbox.x1 + 1 and box.y0 > -1 and box.y1 < fig.bbox.y1 + 1


# The roofline


def test_a_roof_bends_where_arithmetic_and_memory_take_equally_long():
    fig = plots.roofline([HERE, H100, FLOAT], title="Three roofs")
    (ax,) = fig.axes
    assert ax.get_ylabel() == "TFLOP/s" and ax.get_xscale() == ax.get_yscale() == "log"
    for line, roof, knee in zip(ax.get_lines(), (HERE, H100, FLOAT), (7, 989e12 / 3.35e12, 20), strict=True):
        x, y = line.get_data()
        assert x[1] == pytest.approx(knee, rel=1e-9)
        assert y == pytest.approx(np.minimum(roof.flops, roof.bandwidth * np.array(x)) / 1e12)
    solid, *dashed = ax.get_lines()
    assert solid.get_linestyle() == "-" and {line.get_linestyle() for line in dashed} == {"--"}
    assert dashed[0]._unscaled_dash_pattern != dashed[1]._unscaled_dash_pattern
    assert {text.get_text() for text in ax.texts} >= {"this processor (measured)", "H100 SXM, bf16 (data sheet)"}


def test_hollow_markers_lie_on_the_roofs_and_filled_ones_where_they_came():
    (ax,) = plots.roofline([HERE, H100], POINTS, title="AdamW waits for memory").axes
    marks = [line for line in ax.get_lines() if line.get_marker() != "None"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([point.intensity for point in POINTS])
    adamw, muon, measured, recorded = marks[2:]
    assert adamw.get_ydata() == pytest.approx([0.5 * 20e-3, 0.5 * 3.35])
    assert muon.get_ydata() == pytest.approx([0.14, 256 / 3 * 3.35])  # the first knee is at 7, the other at 295
    assert list(measured.get_ydata()) == [9e-3] and list(recorded.get_ydata()) == [1.5]
    assert adamw.get_markerfacecolor() == "white" and same_color(measured.get_markerfacecolor(), plots.color("adamw"))
    assert (measured.get_fillstyle(), recorded.get_fillstyle()) == ("full", "left")
    assert labels(ax) == ["SGD", "Lion", "AdamW", "Muon", "AdamW, measured", "AdamW, recorded",
                          "hollow: what the roof allows"]
    assert "256" in [text.get_text() for text in ax.texts]


def test_a_processor_alone_is_drawn_in_gigaflops():
    (ax,) = plots.roofline([HERE], [Point("AdamW", 0.5, 9e9)], title="t").axes
    assert ax.get_ylabel() == "GFLOP/s" and labels(ax) == ["AdamW, measured"]
    assert ax.get_ylim()[0] < 9 < ax.get_ylim()[1]


# The regimes


def test_the_limits_cross_at_a_million_and_two_thirds():
    """40 microseconds of launches for each tensor against n * 80 / 3.35e12."""
    assert LOOP["for-loop"].crossing == pytest.approx(40e-6 * 3.35e12 / 80) == pytest.approx(1.675e6)
    (ax,) = plots.regimes(LOOP, title="Launches first").axes
    line, *_, ring = ax.get_lines()
    assert line.get_xdata() == pytest.approx([1e2, 1.675e6, 1e8])
    assert line.get_ydata() == pytest.approx([40, 40, 1e8 * 80 / 3.35e12 * 1e6])
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((1.675e6, 40))
    assert labels(ax) == ["for-loop: equal at 1.7 million", "the limit that hides", "both limits equal"]


def test_a_crossing_out_of_sight_is_not_marked():
    (ax,) = plots.regimes({"flat": (5e-6, 28e-3)}, title="Bytes everywhere").axes
    assert labels(ax)[0] == "flat" and len(ax.get_lines()) == 1
    assert ax.get_lines()[0].get_ydata() == pytest.approx([2800, 2.8e9])


def test_measured_points_are_filled_and_simulated_ones_hollow():
    points = {"for-loop": [(4096, 0.041, "measured"), (1e7, 0.3, "simulated")]}
    (ax,) = plots.regimes(LOOP, points, title="Both").axes
    measured, simulated = ax.get_lines()[-2:]
    assert (measured.get_xdata()[0], measured.get_ydata()[0]) == pytest.approx((4096, 41))
    assert same_color(measured.get_markerfacecolor(), ax.get_lines()[0].get_color())
    assert simulated.get_markerfacecolor() == "white" and labels(ax)[-2:] == ["measured", "simulated"]


@pytest.mark.parametrize(("value", "text"), [(416.0, "420"), (26_900.0, "27,000"), (1.675e6, "1.7 million"),
                                             (999_999.0, "1 million")])
def test_a_crossing_is_written_with_two_digits(value, text):
    assert _count(value) == text


# The trace


def rows(count: int, kind: str = "add") -> list[tuple[str, float, float, str]]:
    return [("add_", 10.0 * index, 6.0, kind) for index in range(count)]


def bars(ax, lane: int) -> list[PolyCollection]:
    return [drawn for drawn in ax.collections if drawn.get_label().startswith(f"{lane} ")]


@settings(max_examples=8, deadline=None)
@given(count=st.sampled_from([1, 2, 37, 300]), scaled=st.booleans())
def test_a_bar_stands_where_its_row_runs(count, scaled):
    (ax,) = plots.trace({"a": rows(count), "b": rows(40)}, title="t", scaled=scaled).axes
    for lane, length in enumerate((count, 40)):
        (drawn,) = bars(ax, lane)
        spans = np.array([path.get_extents().intervalx for path in drawn.get_paths()])
        end, last = 10.0 * length - 4, 10.0 * max(count, 40) - 4
        scale = 100 / end if scaled else 1e-3 if last >= 1e3 else 1.0
        assert spans[:, 0] == pytest.approx([10 * scale * index for index in range(length)])
        assert (spans[:, 1] - spans[:, 0]).min() >= 6 * scale * 0.999
        (idle,) = [patch for patch in ax.patches if round(patch.get_y() + patch.get_height() / 2) == lane]
        assert idle.get_width() == pytest.approx(end * scale) and same_color(idle.get_facecolor(), IDLE)


def test_beside_a_lane_stand_its_count_its_time_and_its_idle_share():
    ways = {"loop": rows(100), "fused": [("_fused_adamw_", 0.0, 250.0, "whole rule")], "nothing": []}
    (ax,) = plots.trace(ways, title="t", noun="kernels").axes
    texts = [text.get_text() for text in ax.texts]
    # Nine of ten microseconds' pauses of four: 99 * 4 of 996.
    assert texts[:3] == ["100 kernels, 996 µs\nidle 40%", "1 kernel, 250 µs\nidle 0%", "no kernels"]
    assert texts[3:] == ["_fused_adamw_"]  # the other bars have no room for theirs
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ways)
    assert labels(ax) == ["add", "whole rule", "nothing runs"] and ax.get_xlabel() == "time (µs)"


def test_a_kernels_name_is_written_short_and_an_unknown_kind_is_hatched():
    kernel = "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::A<4>, B>(A, B)"
    (ax,) = plots.trace({"foreach": [(kernel, 0.0, 9.0, "strange")]}, title="t").axes
    assert ax.texts[-1].get_text() == "multi_tensor_apply_kernel"
    assert labels(ax) == ["other", "nothing runs"] and bars(ax, 0)[0].get_hatch()


def test_rows_that_overlap_are_not_idle_twice():
    (ax,) = plots.trace({"two streams": [("a", 0.0, 8.0, "add"), ("b", 2.0, 2.0, "add"), ("c", 9.0, 1.0, "add")]},
                        title="t").axes
    assert ax.texts[0].get_text() == "3 operations, 10 µs\nidle 10%"


def test_kinds_differ_in_colour():
    assert len(set(KINDS.values()) | {IDLE}) == len(KINDS) + 1


@pytest.mark.parametrize(("seconds", "text"), [
    (8.36e-10, "0.836 ns"), (1.35e-5, "13.5 µs"), (9.999e-4, "1 ms"), (0.25, "250 ms"), (1280.0, "1,280 s"),
    (0, "0 ns"),
])
def test_durations_are_read_easily(seconds, text):
    assert duration(seconds) == text


# All of them


DRAWN = {
    "roofline": lambda: plots.roofline([HERE, H100, FLOAT], POINTS, title="Every step waits for memory " * 4),
    "regimes": lambda: plots.regimes(
        LOOP | {"foreach": Limits(6e-4, 2.4e-8), "fused": Limits(1.4e-4, 8.4e-9)},
        {"fused": [(1e3, 2e-4, "measured"), (1e5, 1e-3, "simulated")]}, title="Small tensors wait for launches " * 4),
    "trace": lambda: plots.trace({"the naive loop over all parameters": rows(300), "fused": rows(1, "whole rule")},
                                 title="Three hundred calls, or one " * 4),
    "kinds": lambda: plots.trace({"all": [(kind, 9.0 * at, 8.0, kind) for at, kind in enumerate([*KINDS, "other"])]},
                                 title="Every kind", scaled=True),
}


@pytest.mark.parametrize("name", list(DRAWN))
def test_a_picture_is_small_always_the_same_and_covers_nothing(name):
    nothing_is_covered(DRAWN[name]())
    data, *_ = png(DRAWN[name]())
    assert len(data) < 100_000 and png(DRAWN[name]())[0] == data


@pytest.mark.parametrize(("call", "said"), [
    (lambda: plots.roofline([], title="t"), "nothing to draw"),
    (lambda: plots.roofline([Roof("a", 0.0, 1.0)], title="t"), "Invalid machine"),
    (lambda: plots.roofline([HERE], [Point("a", math.inf)], title="t"), "Invalid point"),
    (lambda: plots.roofline([HERE], [Point("a", 1.0, -1.0)], title="t"), "finite numbers > 0"),
    (lambda: plots.roofline([H100] * 7, title="t"), "7 roofs that were not measured"),
    (lambda: plots.regimes({}, title="t"), "nothing to draw"),
    (lambda: plots.regimes({"a": (0.0, 1.0)}, title="t"), "Invalid way 'a'"),
    (lambda: plots.regimes(LOOP, {"loop": []}, title="t"), "Invalid points of 'loop'. Allowed: 'for-loop'"),
    (lambda: plots.regimes(LOOP, {"for-loop": [(1.0, math.nan, "measured")]}, title="t"), "Invalid point of"),
    (lambda: plots.regimes(LOOP, title="t", elements=(0.0, 1.0)), "Invalid elements"),
    (lambda: plots.trace({}, title="t"), "nothing to draw"),
    (lambda: plots.trace({"a": [("b", -1.0, 1.0, "add")]}, title="t"), "Invalid row of 'a'"),
    (lambda: plots.trace({"a": [("b", 0.0, math.nan, "add")]}, title="t"), "finite microseconds"),
])
def test_what_cannot_be_drawn_is_told(call, said):
    with pytest.raises(ValueError, match=said):
        call()
