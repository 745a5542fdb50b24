"""The explorers: their numbers against torch.optim, what they say and show, and nothing that only ipywidgets 8 has."""

from __future__ import annotations

import ast
import html
import io
import math
import sys
import warnings
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from course_lib import widgets
from course_lib.optim import REGISTRY
from course_lib.plots.style import TITLE_PT, text_width
from course_lib.widgets import canvas, controls, first_steps, panel, valley

VIEW = "application/vnd.jupyter.widget-view+json"
KEYS = [key for key in REGISTRY if key in valley.KNOBS]
DEFAULTS = {"momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "alpha": 0.99, "rho": 0.9, "condition": 100.0}
RATES = st.sampled_from(controls.RATES)

# What Colab's ipywidgets 7.7.1 has, of the classes used here: class -> arguments, those of every widget apart.
OF_7 = {
    "SelectionSlider": {"value", "options"},
    "IntSlider": {"value", "min", "max"},
    "Dropdown": {"options", "value"},
    "Image": {"value", "format", "layout"},
    "HTML": {"value"},
    "Box": {"children", "layout"},
    "VBox": {"children"},
    "Layout": {"width", "height", "max_width", "flex_flow", "display"},
    "BoundedIntText": {"value", "min", "max"},
    "Button": {"description", "tooltip", "button_style", "layout"},
    "Checkbox": {"value", "description", "indent"},
    "Output": set(),
    "RadioButtons": {"value", "options"},
    "SelectMultiple": {"value", "options", "rows"},
    "Text": {"placeholder", "layout"},
    "Textarea": {"placeholder", "rows", "layout"},
}
TYPES = {"DOMWidget", "ValueWidget", "Widget"}


# Only what Colab has


def test_nothing_is_used_that_came_with_ipywidgets_8():
    used = set()
    for path in Path(widgets.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ipywidgets":
                used.add(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ipywidgets."):
                name = node.func.attr
                assert {keyword.arg for keyword in node.keywords} <= OF_7[name], f"line {node.lineno} of {path.name}"
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ipywidgets")), path.name
    assert used <= OF_7.keys() | TYPES
    assert used >= {"SelectionSlider", "Image", "HTML"}  # the search above does find what is used


# The path


def independent_path(values: dict, steps: int) -> np.ndarray:
    """The same path by torch.optim and autograd."""
    key = values["optimizer"]
    knobs = {knob: values[knob] for knob in valley.KNOBS[key]}
    if "beta1" in knobs:
        knobs["betas"] = knobs.pop("beta1"), knobs.pop("beta2")
    point = torch.tensor([-10.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = REGISTRY[key].production([point], lr=values["lr"], **knobs)
    path = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * point[0] ** 2 + 0.5 * values["condition"] * point[1] ** 2).backward()
        optimizer.step()
        path.append(point.detach().clone())
    return torch.stack(path).numpy()


@pytest.mark.parametrize("key", KEYS)
def test_the_path_is_that_of_production_with_every_knob_turned(key):
    values = {"momentum": 0.7, "beta1": 0.6, "beta2": 0.95, "alpha": 0.8, "rho": 0.7, "condition": 30.0,
              "optimizer": key, "lr": 0.02}
    path = valley.trajectory(values, 40)
    assert path.shape == (41, 2)
    np.testing.assert_allclose(path, independent_path(values, 40), rtol=1e-9, atol=1e-12)
    for knob in valley.KNOBS[key]:
        assert not np.array_equal(path, valley.trajectory(values | {knob: 0.5}, 40)), knob


@pytest.mark.parametrize("key", ["momentum", "nesterov"])
def test_without_momentum_the_path_is_that_of_sgd(key):
    values = DEFAULTS | {"optimizer": key, "lr": 0.015, "momentum": 0.0}
    np.testing.assert_array_equal(valley.trajectory(values, 20), valley.trajectory(values | {"optimizer": "sgd"}, 20))


def test_every_knob_of_the_optimizers_has_a_value_at_first():
    assert {knob for knobs in valley.KNOBS.values() for knob in knobs} <= DEFAULTS.keys()


@pytest.mark.parametrize(("lr", "condition", "start"), [
    (0.01, 100.0, "SGD: 54% of the distance is left"),    # 10 * 0.99^60 of sqrt(101), the steep direction gone
    (0.5, 1.0, "SGD reaches the minimum: within 1% from step 7 on."),    # 0.5^7 < 0.01 < 0.5^6
    # |y| grows by 1.24 a step while x shrinks by 0.9776: 1.24^(2 t) + 100 0.9776^(2 t) passes 101 at t = 9
    (0.0224, 100.0, "SGD diverges: from step 9 on"),
    (10.0, 1000.0, "SGD diverges: from step 1 on"),
])
def test_the_finding_is_what_theory_says(lr, condition, start):
    path = valley.trajectory({"optimizer": "sgd", "lr": lr, "condition": condition}, 60)
    assert valley.finding("SGD", path).startswith(start)


@pytest.mark.parametrize("end", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_any_more_counts_as_diverging(end):
    path = np.array([[-10.0, 1.0], [-9.0, 8.0], [end, 0.0], [end, end]])
    assert valley.finding("SGD", path) == "SGD diverges: from step 1 on it is farther away than at the start."
    assert valley.distances(path)[-1] == math.inf


# Adam's first steps


@given(beta1=RATES, beta2=RATES, eps=st.floats(1e-12, 10), shock=st.floats(1, 1000), shock_at=st.integers(1, 100))
def test_the_first_steps_are_those_of_torch(beta1, beta2, eps, shock, shock_at):
    corrected, raw = first_steps.adam_steps(beta1, beta2, eps, shock, shock_at)
    gradients = torch.ones(100, dtype=torch.float64)
    gradients[shock_at - 1] = shock
    param = torch.zeros(1, dtype=torch.float64)
    adam = torch.optim.Adam([param], lr=1.0, betas=(beta1, beta2), eps=eps)
    seen = [0.0]
    for gradient in gradients:
        param.grad = gradient[None]
        adam.step()
        seen.append(-param.item())
    np.testing.assert_allclose(np.diff(seen), corrected, rtol=1e-7, atol=1e-9)

    weights = np.arange(100)[:, None] - np.arange(100)    # row t, column i: how long ago gradient i was at step t
    m, v = (np.where(weights >= 0, (1 - beta) * np.power(beta, np.maximum(weights, 0)), 0) @ gradients.numpy()**power
            for beta, power in ((beta1, 1), (beta2, 2)))
    np.testing.assert_allclose(raw, m / (np.sqrt(v) + eps), rtol=1e-10)


def test_without_a_shock_the_known_numbers_of_section_3_4_come_out():
    said = first_steps.finding(*first_steps.adam_steps(0.9, 0.999, 1e-8, 1.0, 50), 1.0, 50)
    assert said == "Adam's steps are 1 lr; without bias correction 3.2 to 6.6 lr."


# The picture


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


@pytest.fixture(scope="module")
def valley_picture() -> valley._Picture:
    return valley._Picture(DEFAULTS | {"optimizer": "sgd", "lr": 0.01}, 60)


@pytest.fixture(scope="module")
def steps_picture() -> first_steps._Picture:
    return first_steps._Picture({"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "shock": 1.0, "shock_at": 50})


def whole(picture) -> np.ndarray:
    """The figure as matplotlib draws it in one go, at the density of the quick picture."""
    file = io.BytesIO()
    picture.canvas.fig.savefig(file, format="png", dpi=canvas.DPI * canvas.DENSITY, facecolor="white")
    return pixels(file.getvalue())


def test_a_picture_drawn_in_layers_is_the_one_drawn_in_one_go(valley_picture, steps_picture):
    quick, _ = valley_picture.draw(DEFAULTS | {"optimizer": "adam", "lr": 0.3, "condition": 7.0})
    # The frame is drawn twice where contours lie above it, which darkens its edges.
    assert (abs(pixels(quick) - whole(valley_picture)).max(axis=2) > 8).mean() < 2e-3
    quick, _ = steps_picture.draw({"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "shock": 30.0, "shock_at": 20})
    assert (abs(pixels(quick) - whole(steps_picture)).max(axis=2) > 8).mean() < 2e-3


def test_a_picture_depends_on_the_values_alone_and_not_on_those_before(valley_picture):
    values = DEFAULTS | {"optimizer": "momentum", "lr": 0.02}
    before = valley_picture.draw(values)
    others = [valley_picture.draw(values | {"condition": condition})[0] for condition in (1.0, 3.0, 10.0, 30.0, 1000.0)]
    assert len({before[0], *others}) == 6
    assert valley_picture.draw(values | {"optimizer": "sgd", "lr": 10.0})[0] != before[0]
    assert valley_picture.draw(values) == before


def test_the_picture_is_opaque_white(valley_picture):
    data, _ = valley_picture.draw(DEFAULTS | {"optimizer": "sgd", "lr": 0.01})
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert image.getpixel((0, 0)) == image.getpixel((image.width - 1, image.height - 1)) == (255, 255, 255)
        assert image.size == pytest.approx([canvas.DENSITY * side for side in valley_picture.canvas.size], abs=1)


ENDS = st.sampled_from([0.0, 0.5, 0.999])


@settings(max_examples=60)
@given(st.sampled_from(KEYS), st.sampled_from([1e-300, 1e-4, 1e-2, 1.0, 10.0, 1e200]), st.sampled_from([1.0, 1000.0]),
       ENDS, ENDS)
def test_sliders_at_their_ends_draw_and_say_what_happened(valley_picture, key, lr, condition, one, other):
    values = {"optimizer": key, "lr": lr, "momentum": one, "beta1": one, "beta2": other, "alpha": other, "rho": other,
              "condition": condition}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = valley_picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(valley_picture.title.get_text(), TITLE_PT, "bold") < 7.8
    assert text_width(valley_picture.settings.get_text()) < 7.8
    path = valley.trajectory(values, 60)
    ended = math.hypot(*path[-1])
    assert ("diverges" in said or "overshoots" in said) == (not ended <= math.hypot(-10, 1))
    outside = not (abs(path[-1][0] + 2) <= 10 and abs(path[-1][1]) <= 3)
    marks = valley_picture.leaves.get_xydata()
    assert len(marks) == outside
    assert all(-12 - 1e-9 <= x <= 8 + 1e-9 and -3 - 1e-9 <= y <= 3 + 1e-9 for x, y in marks)
    assert len(valley_picture.beyond.get_xydata()) == (not ended <= 1000)


@settings(max_examples=60)
@given(RATES, RATES, st.sampled_from([1e-12, 1e-8, 10.0]), st.sampled_from([1.0, 100.0, 1000.0]),
       st.sampled_from([1, 2, 50, 100]))
def test_the_first_steps_fit_their_axes_at_the_ends(steps_picture, beta1, beta2, eps, shock, shock_at):
    values = {"beta1": beta1, "beta2": beta2, "eps": eps, "shock": shock, "shock_at": shock_at}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, said = steps_picture.draw(values)
    assert data.startswith(b"\x89PNG")
    assert text_width(steps_picture.title.get_text(), TITLE_PT, "bold") < 7.8
    corrected, _ = first_steps.adam_steps(**values)
    low, high = steps_picture.ax.get_ylim()
    assert low <= corrected.min() and corrected.max() <= high
    assert steps_picture.shock.get_visible() == (shock != 1)
    assert f"{corrected[0 if shock == 1 else shock_at - 1:].max():.2g}" in said


# The controls


def parts(box: ipywidgets.VBox) -> tuple[dict[str, ipywidgets.ValueWidget], ipywidgets.Image, ipywidgets.HTML]:
    rows, image, sentence = box.children
    return {control.description: control for control in rows.children}, image, sentence


@pytest.fixture
def shown(monkeypatch) -> list[tuple[dict, dict]]:
    """What is displayed, as pairs of data and metadata."""
    outputs: list[tuple[dict, dict]] = []
    monkeypatch.setattr(panel, "display", lambda data, metadata=None, raw=False: outputs.append((data, metadata)))
    return outputs


@pytest.fixture
def boxes(monkeypatch) -> list[ipywidgets.VBox]:
    """The boxes that are made."""
    made: list[ipywidgets.VBox] = []
    tie = controls.tie
    monkeypatch.setattr(controls, "tie", lambda *arguments: made.append(tie(*arguments)) or made[-1])
    return made


def test_a_slider_changes_the_picture_and_the_sentence(shown, boxes):
    widgets.explore_valley(["sgd", "momentum", "adam"], condition=50.0)
    knobs, image, sentence = parts(boxes[0])
    before = image.value, sentence.value
    knobs["learning rate"].value = 0.1
    assert image.value != before[0]
    assert sentence.value.startswith("SGD diverges: from step ") and "lr 0.1," in sentence.value
    knobs["learning rate"].value = 0.01
    assert (image.value, sentence.value) == before


def test_an_optimizer_shows_its_own_knobs_and_keeps_its_learning_rate(shown, boxes):
    widgets.explore_valley(["sgd", "momentum", "adam"], lr={"sgd": 0.015, "adam": 0.5}, momentum=0.85)
    knobs, _, sentence = parts(boxes[0])

    def visible() -> set[str]:
        return {name for name, knob in knobs.items() if knob.layout.display != "none"}

    always = {"optimizer", "learning rate", "condition number"}
    assert visible() == always
    knobs["optimizer"].value = "momentum"
    assert visible() == always | {"momentum"}
    assert "momentum 0.85" in sentence.value
    knobs["learning rate"].value = 0.002
    knobs["optimizer"].value = "adam"
    assert visible() == always | {"beta1", "beta2"}
    assert knobs["learning rate"].value == 0.5 and sentence.value.startswith("Adam")
    knobs["optimizer"].value = "momentum"
    assert knobs["learning rate"].value == 0.002 and "lr 0.002," in sentence.value


def test_one_change_draws_one_picture(shown, boxes, monkeypatch):
    drawn = []
    draw = valley._Picture.draw
    monkeypatch.setattr(valley._Picture, "draw", lambda self, values: drawn.append(dict(values)) or draw(self, values))
    widgets.explore_valley(["sgd", "adam"])
    knobs, _, _ = parts(boxes[0])
    drawn.clear()
    knobs["optimizer"].value = "adam"
    assert [(values["optimizer"], values["lr"]) for values in drawn] == [("adam", valley.LR_ELSE)]


def test_every_control_says_what_it_is_and_shows_its_value(shown, boxes):
    widgets.explore_valley(KEYS)
    widgets.explore_first_steps()
    found = [control for box in boxes for control in box.children[0].children]
    assert len(found) == 2 + 5 + 1 + 5
    for control in found:
        assert control.description == control.tooltip != ""
        assert isinstance(control, ipywidgets.Dropdown) or (control.readout and control.continuous_update)


@pytest.mark.parametrize("explore", [
    lambda: widgets.explore_valley(["adam", "sgd"]), lambda: widgets.explore_first_steps(shock=100.0)])
def test_one_output_holds_the_controls_and_the_picture(shown, boxes, explore):
    explore()
    (data, metadata), (words, _) = shown
    assert set(data) == {VIEW, "image/png", "text/plain"}
    assert data[VIEW] == {"version_major": 2, "version_minor": 0, "model_id": boxes[0].model_id}
    alt = data["text/plain"]
    assert metadata["image/png"]["alt"] == alt and alt.startswith(html.unescape(parts(boxes[0])[2].value))
    assert "\n" not in alt and len(data["image/png"]) < 100_000
    assert set(words) == {"text/html", "text/plain"} and words["text/plain"].endswith(alt)
    with Image.open(io.BytesIO(data["image/png"])) as still:
        assert still.size == (2 * metadata["image/png"]["width"], 2 * metadata["image/png"]["height"])
    assert parts(boxes[0])[1].layout.width == f"{metadata['image/png']['width']}px"


def test_colab_gets_the_controls_alone(shown, boxes, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    widgets.explore_first_steps()
    assert set(shown[0][0]) == {VIEW, "text/plain"}
    assert shown[0][1] == {}


def test_without_ipywidgets_there_is_the_picture_and_a_sentence(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delitem(sys.modules, "course_lib.widgets.controls")
    widgets.explore_valley(["sgd"])
    data, metadata = shown[0]
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"]
    assert "ipywidgets" in data["text/plain"] and "pip install" in shown[1][0]["text/html"]


@pytest.mark.parametrize(("call", "said"), [
    (lambda: widgets.explore_valley("sgd"), "Allowed: a list"),
    (lambda: widgets.explore_valley([]), "Allowed: a list"),
    (lambda: widgets.explore_valley(["sdg"]), "sgd, momentum"),
    (lambda: widgets.explore_valley(["sgd"], lr=0.0), "Invalid lr: 0.0 for 'sgd'"),
    (lambda: widgets.explore_valley(["sgd"], lr=math.nan), "Invalid lr: nan"),
    (lambda: widgets.explore_valley(["sgd"], lr={"adam": 0.1}), "Invalid lr: no optimizer 'adam'"),
    (lambda: widgets.explore_valley(["sgd"], momentum=1.0), "Allowed: 0 <= momentum < 1"),
    (lambda: widgets.explore_valley(["sgd"], betas=(0.9, 1.1)), "Invalid betas"),
    (lambda: widgets.explore_valley(["sgd"], condition=0.5), "1 <= condition <= 1000"),
    (lambda: widgets.explore_valley(["sgd"], steps=1), "2 <= steps <= 200"),
    (lambda: widgets.explore_first_steps(betas=(1.0, 0.999)), "0 <= beta1 < 1"),
    (lambda: widgets.explore_first_steps(eps=0.0), "1e-12 <= eps <= 10"),
    (lambda: widgets.explore_first_steps(shock=0.5), "1 <= shock <= 1000"),
    (lambda: widgets.explore_first_steps(shock_at=101), "1 <= shock_at <= 100"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(shown, call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)
    assert not shown
