"""In a real browser: a learner reads notebook 04, then writes AdamW, first wrong and then right."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed_answers import EPS_INSIDE_ROOT, RIGHT

from tools import jupyter_browser

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "04_adam.ipynb"
EXERCISE = ROOT / "exercises" / "05_adamw.ipynb"
CHROMIUM = jupyter_browser.find_chromium()

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
    pytest.mark.skipif(not (NOTEBOOK.exists() and EXERCISE.exists()), reason="not built yet: make notebooks"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A JupyterLab that serves copies of both files, the notebook without its stored outputs."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(EXERCISE, root)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    (root / NOTEBOOK.name).write_text(json.dumps(notebook), encoding="utf-8")
    with jupyter_browser.running_lab(root, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@contextlib.contextmanager
def browser(address: str, folder: Path) -> Iterator[jupyter_browser.Lab]:
    """A fresh browser; where the test fails in it, a picture of its window is kept and named in the message."""
    with jupyter_browser.page_of(address, CHROMIUM) as lab:
        try:
            yield lab
        except Exception as error:
            lab.page.screenshot(path=folder / "window.png")
            error.add_note(f"The window at that time: {folder / 'window.png'}")
            raise


def stored_figures() -> int:
    """How many pictures the notebook holds as it is stored."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_notebook_04_runs_whole_and_shows_its_figures(address, tmp_path):
    with browser(address, tmp_path) as lab:
        lab.open(NOTEBOOK.name)
        assert lab.dialogs() == []
        lab.run_all()
        assert lab.errors() == []

        lab.wait_until_drawn()
        figures = lab.page.locator(".jp-OutputArea-output img")
        assert figures.count() == stored_figures() > 0
        for figure in figures.all():
            figure.scroll_into_view_if_needed()
            assert figure.is_visible()
            assert figure.evaluate("image => image.naturalWidth") > 0


def test_a_wrong_adamw_is_named_and_the_right_one_passes(address, tmp_path):
    with browser(address, tmp_path) as lab:
        lab.open(EXERCISE.name)
        lab.run_before("exercise:adamw")
        answer, check = lab.cell("exercise:adamw"), lab.cell("check:adamw")
        report = check.locator(".jp-OutputArea-output")

        lab.write(answer, EPS_INSIDE_ROOT)
        lab.run(answer)
        lab.run(check)
        said = report.first.inner_text()
        assert "adamw: not yet" in said
        assert "eps-inside-root" in said
        assert re.search("inside the (square )?root", said)

        lab.write(answer, RIGHT)
        lab.run(answer)
        lab.run(check)
        assert "adamw: passed" in report.first.inner_text()
