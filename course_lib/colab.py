"""What a notebook needs to run in Colab: one first cell that brings the library, and a badge that opens it there.

Colab has its own versions of torch, NumPy and ipywidgets, so the library is installed without its dependencies.
Standard library only.
"""

from __future__ import annotations

import base64
import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
TAG = "colab"  # of the cells made here

_CELL = '''\
# @title Set up the course in Colab {{ display-mode: "form" }}
# Run this first. Outside Colab it does nothing, and a second run does no harm.
KEEP_PROGRESS_ON_DRIVE = False  # @param {{type:"boolean"}}

import sys

if "google.colab" in sys.modules:
    import base64
    import importlib.util
    import os
    import subprocess
    import tempfile

    if importlib.util.find_spec("course_lib") is None:
{source}
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", source], check=True)
    if importlib.util.find_spec("fsrs") is None:  # what the quiz needs, and Colab has not
        extra = ["fsrs", "genanki", "cached-property", "chevron", "frozendict", "cn2an", "proces"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *extra], check=False)
    importlib.invalidate_caches()
    if KEEP_PROGRESS_ON_DRIVE:
        from google.colab import drive

        drive.mount("/content/drive")
        os.environ["COURSE_HOME"] = "/content/drive/MyDrive/course"'''
_ADDRESS = '''\
        source = "course_lib @ {address}/archive/HEAD.zip"'''
_WHEEL = '''\
        source = os.path.join(tempfile.mkdtemp(), "{name}")
        with open(source, "wb") as wheel:
            wheel.write(base64.b64decode("""
{data}
"""))'''


def repository(root: Path) -> str | None:
    """The course's address on GitHub, such as ``https://github.com/owner/name``, from ``root``'s pyproject.toml.

    It is what ``[project.urls]`` gives as ``Repository``; None where it gives none.

    Raises:
        ValueError: the address is not one on GitHub, from where alone Colab opens notebooks.
    """
    path = root / "pyproject.toml"
    if not path.is_file():
        return None
    address = tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository")
    if address is None:
        return None
    parts = address.rstrip("/").removesuffix(".git").split("/")
    if parts[:3] != ["https:", "", "github.com"] or len(parts) != 5 or not all(parts[3:]):
        raise ValueError(f"Invalid Repository in [project.urls] of pyproject.toml: {address!r}. Allowed: "
                         "https://github.com/OWNER/NAME.")
    return "/".join(parts)


def badge(address: str, path: str) -> str:
    """Markdown of a badge that opens the notebook at ``path`` of the repository in Colab."""
    owner_and_name = address.removeprefix("https://github.com/")
    return f"[![Open in Colab]({BADGE})](https://colab.research.google.com/github/{owner_and_name}/blob/HEAD/{path})"


def cell_for_address(address: str) -> str:
    """The code of a first cell that installs the library from its repository."""
    return _CELL.format(source=_ADDRESS.format(address=address)).replace("    import base64\n", "").replace(
        "    import tempfile\n", "")


def cell_for_wheel(wheel: Path) -> str:
    """The code of a first cell that carries the library in itself, as a wheel."""
    data = base64.encodebytes(wheel.read_bytes()).decode("ascii").strip()  # in lines: editors are slow with a long one
    return _CELL.format(source=_WHEEL.format(name=wheel.name, data=data))


def with_first_cell(notebook: Mapping[str, Any], code: str, above: str | None = None) -> dict[str, Any]:
    """A copy of a notebook with the cell ``code`` behind its title, and the Markdown ``above`` before it, if any."""
    copied = copy.deepcopy(dict(notebook))
    cell = {"cell_type": "code", "id": "colab-setup", "source": code, "outputs": [], "execution_count": None,
            "metadata": {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": [TAG]}}
    copied["cells"].insert(1, cell)
    if above:
        copied["cells"].insert(
            0, {"cell_type": "markdown", "id": "colab-badge", "source": above, "metadata": {"tags": [TAG]}})
    return copied
