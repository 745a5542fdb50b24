"""In a real browser: notebook 19, a question of the quiz, and a mock interview in Chinese up to its report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from test_browser import CHROMIUM, browser

from course_lib import journal
from course_lib.practice import interview
from course_lib.practice.words import word
from tools import jupyter_browser

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "19_mock_interview.ipynb"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
    pytest.mark.skipif(not NOTEBOOK.exists(), reason="not built yet: make notebooks"),
]


@pytest.fixture
def address(tmp_path_factory, home) -> Iterator[str]:
    """A JupyterLab that serves copies of the notebooks, 19 as it is stored but for its counts."""
    root = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("source", ".*"))
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"] = None  # what tells, when it is there, that a cell has run
    (root / "notebooks" / NOTEBOOK.name).write_text(json.dumps(notebook), encoding="utf-8")
    with jupyter_browser.running_lab(root, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


def test_a_learner_is_quizzed_and_interviewed(address, tmp_path):
    with browser(address, tmp_path) as lab:
        faults: list[str] = []
        lab.page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        lab.page.on("pageerror", lambda error: faults.append(str(error)))
        lab.open(f"notebooks/{NOTEBOOK.name}")
        quiz, mock = (lab.cells().filter(has_text=f"widgets.{name}(").first for name in ("quiz", "interview"))
        for cell in (quiz, mock):  # not run yet: what it is, in words
            expect(cell.locator(".jp-OutputArea-output")).to_contain_text("Run this cell")
        lab.run(lab.cells().filter(has_text="from course_lib import journal").first)

        lab.run(quiz)
        quiz.get_by_label("kinds").select_option("verdict")
        quiz.get_by_role("button", name="Begin").press("Enter")
        expect(quiz).to_contain_text("question 1 of 10")
        quiz.get_by_role("button", name="it depends").press("Space")
        expect(quiz).to_contain_text("Just run: ")
        quiz.get_by_role("button", name="again", exact=True).dblclick()
        expect(quiz).to_contain_text("Comes again: today")
        assert [event.kind for event in journal.load()] == [journal.ANSWERED]

        lab.run(mock)
        mock.get_by_label("language").select_option("中文")
        mock.get_by_label(word("length", "zh")).fill("5")
        mock.get_by_role("button", name=word("begin", "zh"), exact=True).dblclick()
        expect(mock).to_contain_text("还剩 4:5")
        expect(mock).to_contain_text("本题 0:02")  # it ticks
        lab.run(quiz)  # and the kernel is free meanwhile
        mock.get_by_role("button", name=word("pause", "zh"), exact=True).click()
        expect(mock).to_contain_text(word("paused", "zh"))
        lab.run(mock)  # the cell is run again: the interview was cut short, and goes on
        mock.get_by_role("button", name="Go on with the one cut short").click()
        (one,) = interview.interviews(journal.load())
        for place in range(len(one.items)):
            last = place == len(one.items) - 1
            expect(mock).to_contain_text(f"第 {place + 1} 题")
            mock.get_by_role("button", name=word("unknown", "zh"), exact=True).dblclick()
            expect(mock).to_contain_text(word("given_up", "zh"))
            mock.get_by_role("button", name=word("to_report" if last else "next", "zh"), exact=True).click()
        expect(mock.get_by_role("heading", name=word("report", "zh"))).to_be_visible()
        expect(mock).to_contain_text(f"总分 0%，答了 {len(one.items)} 题中的 {len(one.items)} 题")
        (kept,) = interview.interviews(journal.load())
        assert kept.ended and kept.language == "zh" and len(kept.answers) == len(one.items)

        link = mock.locator("a[href*='.ipynb']").first
        name, heading = link.inner_text().split(" · ")
        link.click()
        lab.page.locator(f".jp-NotebookPanel:not(.lm-mod-hidden) h2:has-text('{heading}')").wait_for()
        assert f"{name}.ipynb" in lab.page.url
        assert lab.errors() == [] and faults == []
