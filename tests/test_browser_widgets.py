"""In a real browser: a learner reads a notebook that was not run, runs a cell with controls, and turns the knobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page
from test_browser import CHROMIUM, browser

from tools import jupyter_browser, notebooks

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")

TEXT = """\
# %% tags=["valley"]
from course_lib import widgets

widgets.explore_valley(["sgd", "adam"], lr={"sgd": 0.0103, "adam": 0.33}, condition=100.0)

# %% tags=["first"]
widgets.explore_first_steps(shock=100.0)

# %% tags=["memory"]
widgets.explore_memory(sequence=8192)

# %% tags=["scaling"]
widgets.explore_loss_scaling()

# %% tags=["batch"]
widgets.explore_batch_size()

# %% tags=["shock"]
widgets.explore_gradient_shock(cap=True)

# %% tags=["newton"]
widgets.explore_newton_schulz()

# %% tags=["rare"]
widgets.explore_rare_tokens()

# %% tags=["schedule"]
widgets.explore_schedule()

# %% tags=["state"]
widgets.explore_small_state()

# %% tags=["step"]
widgets.explore_step_time()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A JupyterLab that serves one notebook, with the outputs that the build stores."""
    root = tmp_path_factory.mktemp("course")
    source = root / "notebooks" / "source" / "01_controls.py"
    source.parent.mkdir(parents=True)
    source.write_text(TEXT)
    notebooks.build(source)
    notebook = json.loads(notebooks.target_of(source).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["execution_count"] = None  # what tells, when it is there, that a cell has run
    (root / "01_controls.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with jupyter_browser.running_lab(root, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


def slider(cell: Locator, name: str) -> Locator:
    """The handle of a slider, which takes the keys."""
    return cell.locator(f".widget-slider:has(.widget-label:text-is('{name}')) .noUi-handle")


def change_of(page: Page, cell: Locator) -> Callable[[str], str]:
    """A function that waits until sentence and picture differ from what they are now, and returns the sentence.

    Its argument is what the sentence must hold by then.
    """
    picture, sentence = cell.locator("img.widget-image"), cell.locator(".widget-html-content")
    before = [picture.get_attribute("src"), sentence.inner_text()]

    def changed(part: str) -> str:
        page.wait_for_function(
            "([image, text, before, part]) => image.src !== before[0] && image.complete && image.naturalWidth > 0"
            " && text.innerText !== before[1] && text.innerText.includes(part)",
            arg=[picture.element_handle(), sentence.element_handle(), before, part],
        )
        return sentence.inner_text()

    return changed


def running(lab, tag):
    """The cell with this tag, whose controls are shown; the cell with the imports has run before it."""
    lab.open("01_controls.ipynb")
    lab.run(lab.cell("valley"))
    cell = lab.cell(tag)
    lab.run(cell)
    cell.locator("img.widget-image").wait_for()
    return cell


def test_a_learner_turns_the_knobs(address, tmp_path):
    with browser(address, tmp_path) as lab:
        lab.open("01_controls.ipynb")
        cell = lab.cell("valley")

        # Not run yet: the picture of the build, and no word of a missing model.
        lab.wait_until_drawn()
        assert lab.cells().locator("img").count() == TEXT.count("# %%")
        assert "widget" not in " ".join(lab.cells().locator(".jp-OutputArea-output").all_inner_texts()).lower()

        lab.run(cell)
        picture, sentence = cell.locator("img.widget-image"), cell.locator(".widget-html-content")
        picture.wait_for()
        assert cell.locator("img").count() == 1  # the controls stand instead of the picture, not beside it
        assert sentence.inner_text().startswith("SGD: 53% of the distance is left after 60 steps. With lr 0.0103,")

        rate = slider(cell, "learning rate")
        changed = change_of(lab.page, cell)
        rate.press("ArrowRight")
        assert changed("lr 0.0112,").startswith("SGD: ")
        changed = change_of(lab.page, cell)
        rate.press("End")
        assert changed("lr 10,").startswith("SGD diverges: from step 1 on")
        changed = change_of(lab.page, cell)
        rate.press("Home")
        assert changed("lr 0.0001,").startswith("SGD: 99% of the distance")

        assert not slider(cell, "beta1").is_visible()
        changed = change_of(lab.page, cell)
        cell.get_by_label("optimizer").select_option("Adam")
        assert changed("lr 0.33,").startswith("Adam: ")
        changed = change_of(lab.page, cell)
        slider(cell, "beta1").press("Home")
        changed("lr 0.33, beta1 0,")    # the values between two steps of a slider were left alone
        changed = change_of(lab.page, cell)
        slider(cell, "condition number").press("End")
        changed("condition number 1000")

        # Keys pressed faster than pictures are drawn: the last one counts.
        changed = change_of(lab.page, cell)
        for _ in range(30):
            slider(cell, "condition number").press("ArrowLeft", no_wait_after=True)
        changed("condition number 31.6")
        assert lab.errors() == []


def test_a_learner_shocks_adam(address, tmp_path):
    with browser(address, tmp_path) as lab:
        cell = running(lab, "first")
        assert "100 times larger at step 50" in cell.locator(".widget-html-content").inner_text()

        changed = change_of(lab.page, cell)
        slider(cell, "size of the shock").press("Home")
        assert changed("Adam's steps are 1 lr; without bias correction 3.2 to 6.6 lr.")
        for name, key, part in (
            ("beta2", "Home", "beta2 0,"), ("beta1", "Home", "beta1 0,"), ("epsilon", "End", "eps 10"),
            ("size of the shock", "End", "1000 times larger"), ("step of the shock", "End", "step 100"),
        ):
            changed = change_of(lab.page, cell)
            slider(cell, name).press(key)
            changed(part)
        assert lab.errors() == []


def test_a_learner_makes_a_model_fit(address, tmp_path):
    with browser(address, tmp_path) as lab:
        cell = running(lab, "memory")
        assert "more than an H100 (80 GB) has" in cell.locator(".widget-html-content").inner_text()

        changed = change_of(lab.page, cell)
        cell.get_by_label("ZeRO").select_option("3: and weights")
        assert changed("there is only one").startswith("ZeRO-3 shards over data-parallel ranks")
        changed = change_of(lab.page, cell)
        slider(cell, "GPUs").press("End")
        changed("ZeRO-3, 4,096 GPUs")
        changed = change_of(lab.page, cell)
        cell.get_by_label("recomputation").select_option("full")
        assert "and leaves" in changed("recomputation full")
        changed = change_of(lab.page, cell)
        cell.get_by_label("model").select_option("GPT-2 124M")
        changed("1 x 1,024 tokens a GPU")
        assert lab.errors() == []


def test_a_learner_turns_the_scaler(address, tmp_path):
    with browser(address, tmp_path) as lab:
        cell = running(lab, "scaling")
        for name, key, part in (
            ("init_scale", "Home", "init_scale 2^0,"), ("growth_interval", "End", "growth_interval 2000,"),
            ("backoff_factor", "End", "backoff_factor 0.9,"), ("median gradient", "Home", "|g| 1e-08 at"),
            ("init_scale", "End", "init_scale 2^32,"),
        ):
            changed = change_of(lab.page, cell)
            slider(cell, name).press(key)
            changed(part)
        assert lab.errors() == []


def test_a_learner_turns_the_other_knobs(address, tmp_path):
    with browser(address, tmp_path) as lab:
        for tag, turns in {
            "batch": [("batch size", "End"), ("noise scale", "End")],
            "shock": [("size of the shock", "Home"), ("beta2", "Home")],
            "newton": [("steps", "Home"), ("condition", "End")],
            "rare": [("exponent", "Home"), ("tokens", "End")],
            "schedule": [("floor", "End"), ("weight_decay", "Home")],
            "state": [("spread (decades)", "End"), ("block", "End")],
            "step": [("elements of each", "End"), ("µs per launch", "Home")],
        }.items():
            cell = running(lab, tag)
            for name, key in turns:
                changed = change_of(lab.page, cell)
                slider(cell, name).press(key)
                assert changed("")
        assert lab.errors() == []
