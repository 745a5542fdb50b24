"""course_lib.plots: what a reader must be able to see, and what a notebook stores."""

import io
import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from course_lib import plots
from course_lib.optim import REGISTRY
from course_lib.plots.display import DPI, _reduced, png
from course_lib.plots.labels import spread
from course_lib.plots.style import optimizer_style, styles, text_width, wrap
from course_lib.problems.valleys import Valley, beale, quadratic, rosenbrock, saddle

pytestmark = pytest.mark.filterwarnings("error")  # a warning would end up in the notebook

TEXT = dict(title="AdamW needs a third of the steps", xlabel="step", ylabel="loss (nats)")
LONG = "A finding that takes more words than one line of the figure can hold, so that it has to be wrapped " * 2
STEPS = np.arange(200)
SEVEN = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "amsgrad", "adamw")      # as many as one figure may hold
CURVES = {name: np.exp(-STEPS / (20 + 10 * index)) + 0.1 for index, name in enumerate(SEVEN)}


def boxes(fig):
    """What is where, in pixels: the figure, the axes' data areas, the legends, what is written above the axes."""
    fig.draw_without_rendering()
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
    titles = [text for text in (fig._suptitle, *(ax._left_title for ax in fig.axes)) if text and text.get_text()]
    titles += [text for ax in fig.axes for text in ax.texts if text.get_window_extent().y0 > ax.bbox.y1]
    return (
        fig.bbox, [ax.get_window_extent() for ax in fig.axes],
        [legend.get_window_extent() for legend in legends], [text.get_window_extent() for text in titles],
    )


def overlap(a, b) -> bool:
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def within(a, b) -> bool:
    return a.x0 >= b.x0 - 1 and a.x1 <= b.x1 + 1 and a.y0 >= b.y0 - 1 and a.y1 <= b.y1 + 1


# show


@pytest.fixture
def displayed(monkeypatch) -> list[tuple[dict, dict]]:
    """What show hands to the notebook: one pair of data and metadata per output."""
    outputs = []

    def record(data, *, raw, metadata=None):
        assert raw
        outputs.append((data, metadata or {}))

    monkeypatch.setattr("course_lib.plots.display.display", record)
    return outputs


def test_show_displays_an_opaque_png_with_its_text_and_a_folded_line(displayed):
    alt = "Loss falls for a < b & \n  both curves."
    assert plots.show(plots.lines({"loss": [3.0, 2.0, 1.0]}, **TEXT), alt) is None
    (figure, metadata), (words, _) = displayed
    one_line = "Loss falls for a < b & both curves."
    assert set(figure) == {"image/png", "text/plain"}
    assert figure["text/plain"] == one_line
    meta = metadata["image/png"]
    with Image.open(io.BytesIO(figure["image/png"])) as image:
        assert image.format == "PNG" and "transparency" not in image.info
        assert (meta["alt"], meta["width"], meta["height"]) == (one_line, 7 * DPI, round(3.6 * DPI))
        assert image.size == (2 * meta["width"], 2 * meta["height"])
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert words["text/html"].startswith("<details><summary>")
    assert "Figure in words" in words["text/html"]
    assert "a &lt; b &amp; both curves" in words["text/html"]
    assert one_line in words["text/plain"]


@pytest.mark.parametrize("alt", ["", " \n"])
def test_a_figure_without_words_is_refused(alt):
    with pytest.raises(ValueError, match="Invalid alt: it is empty"):
        plots.show(plots.lines({"a": [1, 2]}, **TEXT), alt)


def test_a_figure_too_large_for_a_notebook_is_refused():
    fig = plots.lines({"a": [1, 2]}, **TEXT)
    fig.axes[0].imshow(np.random.default_rng(0).random((900, 900, 3)), aspect="auto")
    with pytest.raises(ValueError, match=r"The figure takes \d+ kB as PNG. Allowed: less than 100 kB"):
        plots.show(fig, "noise")


def test_show_closes_what_pyplot_opened(displayed):
    fig, ax = plt.subplots(figsize=(2, 2))
    ax.plot([1, 2])
    plots.show(fig, "a line")
    assert not plt.fignum_exists(fig.number)


def test_the_same_picture_gives_the_same_bytes_without_date_or_version():
    first, second = (png(plots.lines(CURVES, **TEXT))[0] for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert not {"Software", "Creation Time", "date"} & set(image.info)


def test_reducing_the_colours_moves_none_visibly():
    rays = {key: [(-1.2, 1.0), (0.9, 0.1 * index)] for index, key in enumerate(SEVEN)}
    fig = plots.paths(rosenbrock(), rays, title="t")
    raw = io.BytesIO()
    fig.savefig(raw, dpi=DPI)
    with Image.open(raw) as image:
        before = image.convert("RGB")
    moved = np.asarray(before).astype(int) - np.asarray(_reduced(before).convert("RGB"))
    assert np.abs(moved).max() <= 32, "of 255 in any pixel and channel"


def test_reducing_the_colours_keeps_every_line_in_its_own():
    data = png(plots.lines(CURVES, **TEXT))[0]
    with Image.open(io.BytesIO(data)) as image:
        present = {rgb for _, rgb in image.convert("RGB").getcolors(maxcolors=2**24)}
    for name in CURVES:
        assert tuple(round(255 * channel) for channel in to_rgb(plots.color(name))) in present, name


# style


def test_optimizers_differ_in_colour_line_and_marker():
    """In two of them at least: who does not see one cue, or sees a line where it has no marker, has another."""
    looks = {key: optimizer_style(key) for key in REGISTRY}
    for (one, look), (other, its) in itertools.combinations(looks.items(), 2):
        same = [cue for cue in ("color", "linestyle", "marker") if getattr(look, cue) == getattr(its, cue)]
        assert len(same) <= 1, f"{one} and {other} share {' and '.join(same)}"
    assert {look.color for look in looks.values()} <= set(plots.PALETTE.values())
    assert len(plots.PALETTE) == 8


@pytest.mark.parametrize("company", [
    SEVEN,
    ("sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam"),
    ("adam", "adamax", "nadam", "radam", "adamw"),
    ("sgd", "momentum", "lars", "adam", "adamw", "lamb"),
    ("adamw", "adafactor", "came", "adamw8bit", "adam_mini", "lion"),
    ("adamw", "lion", "sophia", "shampoo", "soap", "muon", "schedule_free"),
], ids=["one per colour", "adaptive rates", "relatives of Adam", "large batches", "small state", "beyond Adam"])
def test_optimizers_that_are_drawn_together_differ_in_every_cue(company):
    looks = styles(company).values()
    assert len({look.color for look in looks}) == len({look.marker for look in looks}) == len(company)


def test_an_optimizer_looks_the_same_by_key_and_by_name_and_in_any_company():
    for key, entry in REGISTRY.items():
        assert plots.color(key) == plots.color(entry.name) == plots.color(key.upper())
        assert styles(["mine", key, "theirs"])[key].color == plots.color(key)
    assert plots.color("mine") == plots.color("mine")


@settings(max_examples=30)
@given(st.lists(st.text(max_size=8) | st.sampled_from(list(REGISTRY)), max_size=7, unique_by=str.lower))
def test_no_two_series_of_a_figure_look_alike(names):
    looks = styles(names)
    assert list(looks) == names
    assert len(set(looks.values())) == len(names)


def test_too_many_series_are_refused():
    with pytest.raises(ValueError, match="8 series in one figure are too many .* at most 7"):
        plots.lines({str(index): [1, 2] for index in range(8)}, **TEXT)


def test_text_in_a_series_colour_is_dark_enough_to_read():
    def luminance(hexcolour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(hexcolour)]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    for look in map(optimizer_style, REGISTRY):
        assert 1.05 / (luminance(look.text_color) + 0.05) >= 4.5, "WCAG 2.1 asks 4.5 of normal text"


@settings(max_examples=50)
@given(st.lists(st.text("abcdefgh WM", min_size=1, max_size=9), max_size=20), st.floats(1.5, 6))
def test_wrapped_text_fits_and_loses_nothing(words, inches):
    text = " ".join(words)
    lines = wrap(text, inches).split("\n")
    assert " ".join(lines).split() == text.split()
    assert all(text_width(line) <= inches for line in lines if " " in line)


def test_mathematics_is_not_broken():
    assert wrap(r"bias $1 - \beta_2^t$ fades", 0.5).split("\n") == ["bias", r"$1 - \beta_2^t$", "fades"]


# lines


def drawn(fig, index=0):
    return {line.get_label(): line.get_xydata() for line in fig.axes[index].get_lines()}


def test_values_alone_count_from_zero_and_on_a_log_axis_from_one():
    assert drawn(plots.lines({"a": [5, 6]}, **TEXT))["a"].tolist() == [[0, 5], [1, 6]]
    assert drawn(plots.lines({"a": [5, 6]}, logx=True, **TEXT))["a"].tolist() == [[1, 5], [2, 6]]


def test_pairs_lists_and_tensors_are_drawn_as_given():
    fig = plots.lines({"pair": ([10, 20], [1, 2]), "list": [3, 4], "tensor": torch.tensor([5.0, 6.0])}, **TEXT)
    got = drawn(fig)
    assert got["pair"].tolist() == [[10, 1], [20, 2]]
    assert got["list"].tolist() == [[0, 3], [1, 4]]
    assert got["tensor"].tolist() == [[0, 5], [1, 6]]


def test_a_diverged_curve_keeps_its_finite_part_and_its_scale():
    fig = plots.lines({"a": [1.0, 2.0, np.inf, np.nan]}, **TEXT)
    assert np.isnan(drawn(fig)["a"][2:, 1]).all()
    assert fig.axes[0].get_ylim()[1] < 3


@pytest.mark.parametrize("options", [
    dict(), dict(title=LONG), dict(vlines={"warmup ends": 50.0}), dict(hlines={"entropy": 0.4}, logy=True),
    dict(labels_at_end=True, title=LONG), dict(size=(5.0, 3.0)),
])
def test_nothing_covers_the_data_or_leaves_the_figure(options):
    page, axes, legends, titles = boxes(plots.lines(CURVES, **{**TEXT, **options}))
    assert len(legends) == (not options.get("labels_at_end")) and len(titles) == 1 + len(options.get("vlines", []))
    for box in legends + titles:
        assert within(box, page)
        assert not overlap(box, axes[0])
    assert not any(overlap(title, legend) for title in titles for legend in legends)
    assert axes[0].height > 0.35 * page.height


def test_names_at_the_ends_stand_apart_and_right_of_the_axes():
    series = {name: np.full(5, 1 + 0.001 * index) for index, name in enumerate(SEVEN)}
    fig = plots.lines(series, labels_at_end=True, hlines={"limit": 1.002}, ylim=(0, 2), **TEXT)
    fig.draw_without_rendering()
    (ax,) = fig.axes
    texts = [text for text in ax.texts if text.get_text()]
    assert {text.get_text() for text in texts} == {*SEVEN, "limit"}
    extents = [text.get_window_extent() for text in texts]
    assert all(box.x0 > ax.bbox.x1 and box.x1 <= fig.bbox.x1 for box in extents)
    assert not any(overlap(a, b) for index, a in enumerate(extents) for b in extents[:index])
    bottom_up = [text.get_text() for text in sorted(texts, key=lambda text: text.get_window_extent().y0)]
    assert [name for name in bottom_up if name != "limit"] == list(SEVEN), "in the order of the curves"


@settings(max_examples=100)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(1, 20))
def test_labels_move_apart_by_the_gap_and_no_more_than_needed(heights, gap):
    heights = np.array(heights)
    placed = spread(heights, gap)
    order = np.argsort(heights, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-9).all()
    assert placed.mean() == pytest.approx(heights.mean(), abs=1e-9)
    if (np.diff(heights[order]) >= gap).all():
        assert placed == pytest.approx(heights, abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(1.1, 6), (2, 40), (1e-3, 1), (1e-12, 1e3), (3e5, 8e5), (1e-200, 1e200)])
def test_a_log_axis_has_a_few_labelled_ticks(low, high):
    fig = plots.lines({"a": np.geomspace(low, high, 50)}, logy=True, **TEXT)
    fig.draw_without_rendering()
    axis = fig.axes[0].yaxis
    bottom, top = fig.axes[0].get_ylim()
    labels = [tick.label1 for tick in axis.get_major_ticks() if bottom <= tick.get_loc() <= top]
    labels = [label for label in labels if label.get_text()]
    assert 2 <= len(labels) <= 9
    extents = [label.get_window_extent() for label in labels]
    assert not any(overlap(a, b) for a, b in zip(extents, extents[1:]))


def test_noisy_curves_are_solid_and_smooth_ones_dashed():
    noise = np.random.default_rng(0).normal(size=200)
    fig = plots.lines({"sgd": 5 - STEPS / 50 + noise, "adam": np.sin(STEPS / 10)}, **TEXT)
    by_name = {line.get_label(): line for line in fig.axes[0].get_lines()}
    assert not by_name["sgd"].is_dashed() and by_name["adam"].is_dashed()
    assert by_name["sgd"].get_marker() != by_name["adam"].get_marker()
    assert 5 <= len(by_name["sgd"].get_markevery()) <= 8


@pytest.mark.parametrize(("series", "options", "message"), [
    ({}, {}, "nothing to draw"),
    ({"a": []}, {}, "Invalid series 'a'"),
    ({"a": [[1, 2], [3, 4]]}, {}, "equal shapes"),
    ({"a": ([1, 2, 3], [1, 2])}, {}, r"x of shape \(3,\) and y of shape \(2,\)"),
    ({"a": (1, 2, 3)}, {}, "a tuple of 3"),
    ({"a": [0.0, -1.0]}, dict(logy=True), "no positive y"),
    ({"a": ([0.0, -1.0], [1, 2])}, dict(logx=True), "no positive x"),
])
def test_series_that_cannot_be_drawn_are_refused_by_name(series, options, message):
    with pytest.raises(ValueError, match=message):
        plots.lines(series, **options, **TEXT)


# lines_grid


def test_a_name_looks_the_same_in_every_panel_and_is_explained_once():
    panels = [
        dict(series={"mine": [1, 2], "SGD": [2, 3]}, **TEXT),
        dict(series={"theirs": [1, 2], "mine": [2, 1]}, **{**TEXT, "title": LONG}),
        dict(series={"SGD": [1, 2]}, hlines={"limit": 1.5}, **TEXT),
    ]
    fig = plots.lines_grid(panels)
    assert len(fig.axes) == 3
    colours = [{line.get_label(): line.get_color() for line in ax.get_lines()} for ax in fig.axes]
    assert colours[0]["mine"] == colours[1]["mine"] and colours[0]["SGD"] == colours[2]["SGD"]
    (legend,) = fig.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["SGD", "mine", "theirs"]
    page, axes, legends, titles = boxes(fig)
    everything = [*axes, *legends, *titles]
    assert all(within(box, page) for box in everything)
    assert not any(overlap(a, b) for index, a in enumerate(everything) for b in everything[:index])


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.lines_grid([])


# bars


def heights(fig):
    return [[bar.get_height() for bar in container] for container in fig.axes[0].containers]


def test_bars_stand_as_high_as_their_values_and_say_so():
    times = {"for-loop": 1.25, "fused": 0.5}
    fig = plots.bars(times, title="Fused is faster", ylabel="ms", fmt=".2f", hlines={"copy": 0.3})
    assert heights(fig) == [[1.25, 0.5]]
    assert {text.get_text() for text in fig.axes[0].texts} == {"1.25", "0.50", "copy"}
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["for-loop", "fused"]
    assert fig.axes[0].get_legend() is None


def test_nested_values_are_groups_with_a_legend_and_gaps():
    fig = plots.bars(
        {"float32": {"weights": 4, "m": 4}, "mixed": {"weights": 2, "m": 4, "master": 4}},
        title=LONG, ylabel="bytes per parameter",
    )
    np.testing.assert_equal(heights(fig), [[4, 2], [4, 4], [np.nan, 4]])
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["weights", "m", "master"]
    bars = [container[1] for container in fig.axes[0].containers]
    assert len({bar.get_hatch() for bar in bars}) == 3
    assert bars[0].get_x() + bars[0].get_width() <= bars[1].get_x()
    page, axes, legends, titles = boxes(fig)
    assert not overlap(legends[0], axes[0]) and not overlap(legends[0], titles[0]) and within(titles[0], page)


def test_bars_of_optimizers_have_their_colours():
    fig = plots.bars({"SGD": 1, "AdamW": 2}, title="t", ylabel="y")
    fills = [bar.get_facecolor()[:3] for bar in fig.axes[0].containers[0]]
    assert fills == [to_rgb(plots.color("sgd")), to_rgb(plots.color("adamw"))]


def test_no_bars_are_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.bars({}, title="t", ylabel="y")


# paths

BOWL = Valley("bowl", lambda p: (p**2).sum(-1), (0.5, 0.5), (0.0, 0.0), ((-1.0, 1.0), (-2.0, 2.0)), "none")


def test_a_path_that_leaves_is_cut_at_the_edge_and_says_so():
    away = np.array([[0.5, 0.5], [0.75, 0.5], [1.25, 1.5], [-1e200, 0.0], [np.nan, np.inf]])
    home = np.array([[0.5, 0.5], [0.0, 3.0], [0.1, 0.1]])
    fig = plots.paths(BOWL, {"away": away, "home": home}, title="One leaves")
    (ax,) = fig.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["away (leaves the picture)", "home", "start", "minimum"]
    lines = [line.get_xydata().tolist() for line in ax.get_lines()]
    assert away[:2].tolist() in lines and home.tolist() in lines
    # From (0.75, 0.5) along (0.5, 1) the edge x = 1 is met half way.
    (arrow,) = [text for text in ax.texts if text.arrow_patch]
    assert tuple(arrow.xy) == (1.0, 1.0)
    assert (ax.get_xlim(), ax.get_ylim()) == BOWL.bounds
    assert len(png(fig)[0]) < 100_000


@pytest.mark.parametrize("after", [[np.inf, 0.0], [np.nan, np.nan], [1e308, -1e308]])
def test_a_path_may_jump_to_infinity_at_once(after):
    fig = plots.paths(BOWL, {"sgd": np.array([[0.5, 0.5], after])}, title="Gone")
    assert fig.axes[0].get_legend().get_texts()[0].get_text() == "sgd (leaves the picture)"
    png(fig)


def test_a_path_along_the_edge_has_an_arrow_of_no_length():
    png(plots.paths(BOWL, {"sgd": np.array([[1.0, 0.0], [2.0, 0.0]])}, title="Over the edge"))


@pytest.mark.parametrize("valley", [quadratic(), rosenbrock(), beale(), saddle()], ids=lambda valley: valley.name)
def test_every_valley_is_drawn_small_with_start_and_minimum_marked(valley):
    fig = plots.paths(valley, {"adam": [valley.start, valley.start]}, title=valley.name)
    points = [line.get_xydata().tolist() for line in fig.axes[0].get_lines()]
    assert [list(valley.start)] in points
    assert ([list(valley.minimum or ())] in points) == (valley.minimum is not None)
    page, axes, legends, titles = boxes(fig)
    assert not overlap(legends[0], axes[0]) and within(legends[0], page)
    assert len(png(fig)[0]) < 100_000


@pytest.mark.parametrize(("path", "message"), [
    (np.zeros((3, 3)), r"shape \(3, 3\)"), (np.zeros((0, 2)), r"T >= 1"), ([[np.nan, 0.0]], "finite start"),
    ([[5.0, 0.0]], "it starts at .* Allowed: inside"),
])
def test_trajectories_that_cannot_be_drawn_are_refused(path, message):
    with pytest.raises(ValueError, match=f"Invalid trajectory 'a': .*{message}"):
        plots.paths(BOWL, {"a": path}, title="t")


def test_no_trajectories_are_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.paths(BOWL, {}, title="t")


def test_pictures_need_neither_torch_nor_pyplot():
    code = "import sys, course_lib.plots; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
