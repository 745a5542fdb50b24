"""JupyterLab in a headless Chromium, for the browser test and for screenshots.

`running_lab` starts a JupyterLab server whose settings, workspaces and kernels' files live in a folder of its own, so
that nobody's JupyterLab is read or changed; `Lab` drives one page of it. What a learner does is done with the mouse and
the keyboard; what is only looked up (which cell bears a tag, is the kernel idle) is asked of the page's own model.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)
SECONDS = 240.0  # the most that any single thing may take

_NOTEBOOK = "window.jupyterapp.shell.currentWidget"
_CODE = f"Array.from({_NOTEBOOK}.content.model.cells).filter(cell => cell.type === 'code')"


def find_chromium() -> str | None:
    """Path of the system's Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextlib.contextmanager
def running_lab(root: Path, work: Path, dark: bool = False) -> Iterator[str]:
    """A JupyterLab server that serves ``root`` and keeps everything of its own in ``work``; yields its address.

    The address has the path ``/`` and holds the token.

    Raises RuntimeError with the server's log if it does not start.
    """
    folders = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(work / folder) for name, folder in folders.items()}
    _write_settings(work / "settings", dark)
    token = secrets.token_hex(16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}",
        "--ip=127.0.0.1", f"--port={port}", "--port-retries=0", f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
        "--LanguageServerManager.autodetect=False", f"--FileCheckpoints.checkpoint_dir={work / 'checkpoints'}",
    ]
    log = work / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=root, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}/?token={token}"
    try:
        _wait_for(address, process, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)  # JupyterLab ends its kernels first
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()  # its kernels notice and end themselves
            process.wait()


def _write_settings(folder: Path, dark: bool) -> None:
    """Cells outside the window stay in the page, nothing asks about news, nothing is saved behind one's back."""
    settings: dict[str, dict[str, Any]] = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
        "apputils-extension/themes": {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"},
        "docmanager-extension/plugin": {"autosave": False},
    }
    for name, values in settings.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    status = address.replace("/?", "/api/status?")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            directly.open(status, timeout=SECONDS).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start. Its log:\n{log.read_text()[-4000:]}")


class Lab:
    """One page of JupyterLab with one notebook open in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address

    def open(self, path: str, alone: bool = False) -> None:
        """Open a notebook and wait until it is drawn and its kernel idle.

        Args:
            path: relative to the server's root, with forward slashes.
            alone: without file browser and side bars.
        """
        where = f"/{'doc' if alone else 'lab'}/tree/{urllib.parse.quote(path)}?reset&"
        self.page.goto(self.address.replace("/?", where))
        self.page.wait_for_function(
            f"path => window.jupyterapp && {_NOTEBOOK}?.context?.path === path && {_NOTEBOOK}.context.isReady", arg=path
        )
        self.wait_until_idle()

    def dialogs(self) -> list[str]:
        """The text of each dialog that blocks the page."""
        return self.page.locator(".jp-Dialog-content").all_inner_texts()

    def wait_until_idle(self) -> None:
        """Wait until the kernel is idle and no cell is running or queued."""
        self.page.wait_for_function(
            f"() => document.querySelector('.jp-Dialog') !== null || "
            f"({_NOTEBOOK}.sessionContext?.session?.kernel?.status === 'idle' && "
            f"{_CODE}.every(cell => cell.executionState === 'idle'))"
        )
        if dialogs := self.dialogs():
            raise AssertionError(f"A dialog blocks the page: {dialogs[0]!r}")

    def menu(self, *labels: str) -> None:
        """Choose an entry of the menu bar: ``menu("Run", "Run All Cells")``."""
        self.page.locator("#jp-MainMenu").get_by_text(labels[0], exact=True).click()
        for label in labels[1:]:
            self.page.locator(".lm-Menu-itemLabel").get_by_text(label, exact=True).click()

    def run_all(self) -> None:
        """Run all cells by the menu and wait until every code cell with a text has run, or one has failed.

        Cells that have run before must have been cleared: an execution count is what tells that a cell has run.
        """
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(
            f"() => {_CODE}.every(cell => cell.executionCount !== null || !cell.sharedModel.source.trim())"
            f" || {_CODE}.some(cell => cell.sharedModel.outputs.some(output => output.output_type === 'error'))"
        )
        self.wait_until_idle()

    def cell(self, tag: str) -> Locator:
        """The first cell that bears a tag. Raises AssertionError if there is none."""
        return self.cells().nth(self._index(tag))

    def run_before(self, tag: str) -> None:
        """Run, one by one, the code cells above the first that bears ``tag``, but for answers and checks."""
        tagged = self._tags()
        for index in range(self._index(tag)):
            exercise = any(name.startswith(("exercise:", "check:")) for name in tagged[index])
            if not exercise and self.cells().nth(index).locator(".jp-InputPrompt").inner_text().strip():
                self.run(self.cells().nth(index))

    def _tags(self) -> list[list[str]]:
        return self.page.evaluate(
            f"() => Array.from({_NOTEBOOK}.content.model.cells, cell => cell.getMetadata('tags') || [])"
        )

    def _index(self, tag: str) -> int:
        found = [index for index, tags in enumerate(self._tags()) if tag in tags]
        if not found:
            raise AssertionError(f"No cell of the notebook bears the tag {tag!r}.")
        return found[0]

    def cells(self) -> Locator:
        """All cells, in order."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")

    def write(self, cell: Locator, text: str) -> None:
        """Replace the text of a code cell, by the keyboard; as one insertion, so that nothing is indented or closed."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)

    def run(self, cell: Locator) -> None:
        """Run one cell by the keyboard and wait until the kernel is idle again."""
        cell.locator(".cm-content").click()
        before = cell.locator(".jp-InputPrompt").inner_text()
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            "([prompt, before]) => /\\d/.test(prompt.innerText) && prompt.innerText !== before",
            arg=[cell.locator(".jp-InputPrompt").element_handle(), before],
        )
        self.wait_until_idle()

    def wait_until_drawn(self) -> None:
        """Wait until all pictures are loaded and the height of the notebook, which formulas change, has settled."""
        self.page.wait_for_function(
            """() => {
                const height = document.querySelector('.jp-WindowedPanel-viewport').scrollHeight;
                const loaded = Array.from(document.images).every(image => image.complete);
                const seen = window.drawn || {height: -1, times: 0};
                window.drawn = {height, times: loaded && height === seen.height ? seen.times + 1 : 0};
                return window.drawn.times >= 4;
            }""",
            polling=500,
        )

    def errors(self) -> list[str]:
        """Each error that an output of the notebook holds."""
        return self.page.evaluate(
            f"() => {_CODE}.flatMap(cell => cell.sharedModel.outputs)"
            ".filter(output => output.output_type === 'error').map(output => `${output.ename}: ${output.evalue}`)"
        )


@contextlib.contextmanager
def page_of(address: str, chromium: str, width: int = 1400, height: int = 900) -> Iterator[Lab]:
    """A page in a headless Chromium of its own, closed at the end; ``width`` and ``height`` in pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(SECONDS * 1000)
            expect.set_options(timeout=SECONDS * 1000)  # it has a limit of its own, of 5 s
            yield Lab(page, address)
        finally:
            browser.close()
