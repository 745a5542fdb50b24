"""Pictures of a notebook as JupyterLab shows it.

`python -m tools.screenshot NOTEBOOK OUT.png [--heading TEXT] [--full] [--dark]`. The notebook is shown as it is
stored; nothing is run and nothing is saved. Needs Chromium and the [test] environment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.jupyter_browser import Lab, find_chromium, page_of, running_lab

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, FULL_HEIGHT = 1400, 900, 2000  # pixels
OVERLAP = 40  # pixels that two pictures of a whole notebook share, so that no line is lost between them


def scroll_to(lab: Lab, heading: str) -> None:
    """Bring the first heading that contains ``heading`` to the top. Raises ValueError if there is none."""
    found = lab.page.locator(".jp-RenderedMarkdown").locator("h1, h2, h3, h4, h5, h6").filter(has_text=heading)
    if found.count() == 0:
        raise ValueError(f"No heading contains {heading!r}.")
    found.first.evaluate("element => element.scrollIntoView({block: 'start'})")


def whole(lab: Lab, out: Path) -> list[Path]:
    """Write the notebook from top to bottom as OUT-1.png, OUT-2.png, ... and return these paths."""
    box = lab.page.locator(".jp-WindowedPanel-outer")
    total, seen = box.evaluate("element => [element.scrollHeight, element.clientHeight]")
    frame = box.bounding_box()
    written: list[Path] = []
    top = 0
    while not written or top + OVERLAP < total:
        at = box.evaluate("(element, top) => { element.scrollTop = top; return element.scrollTop; }", top)
        hidden = top - at  # the last picture cannot be scrolled to its top
        height = min(seen - hidden, total - top)
        clip = {"x": frame["x"], "y": frame["y"] + hidden, "width": frame["width"], "height": height}
        path = out.with_name(f"{out.stem}-{len(written) + 1}{out.suffix}")
        lab.page.screenshot(path=path, clip=clip)
        written.append(path)
        top += seen - OVERLAP
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.screenshot", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="a .png; with --full its name gets -1, -2, ...")
    parser.add_argument("--heading", help="scroll to the first heading that contains this text")
    parser.add_argument("--full", action="store_true", help="the whole notebook, in pictures of at most 1400 x 2000")
    parser.add_argument("--dark", action="store_true", help="JupyterLab's dark theme")
    arguments = parser.parse_args()
    notebook = arguments.notebook.resolve()
    chromium = find_chromium()
    if not notebook.is_file() or notebook.suffix != ".ipynb":
        parser.error(f"{arguments.notebook} is not a notebook.")
    if arguments.out.suffix != ".png" or not arguments.out.resolve().parent.is_dir():
        parser.error(f"{arguments.out} is not the name of a .png in an existing folder.")
    if chromium is None:
        sys.exit("No Chromium was found. Install chromium or google-chrome and try again.")
    root = ROOT if notebook.is_relative_to(ROOT) else notebook.parent
    height = FULL_HEIGHT if arguments.full else HEIGHT
    with (
        tempfile.TemporaryDirectory(prefix="screenshot-") as work,
        running_lab(root, Path(work), dark=arguments.dark) as address,
        page_of(address, chromium, WIDTH, height) as lab,
    ):
        lab.open(notebook.relative_to(root).as_posix(), alone=arguments.full)
        lab.wait_until_drawn()
        if arguments.heading:
            try:
                scroll_to(lab, arguments.heading)
            except ValueError as error:
                sys.exit(str(error))
        if arguments.full:
            print(*whole(lab, arguments.out), sep="\n")
        else:
            lab.page.screenshot(path=arguments.out)
            print(arguments.out)


if __name__ == "__main__":
    main()
