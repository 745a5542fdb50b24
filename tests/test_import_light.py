"""Arrows point down only, and importing one part of the library never pays for another."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import course_lib

LIBRARY = Path(course_lib.__file__).parent

# A part imports itself and parts of lower levels. A new part is written down here.
LEVELS = (
    {"precision"},
    {"averaging", "blanks", "colab", "compare", "groups", "journal", "optim", "schedules"},
    {"carry", "problems", "sources", "train"},
    {"memory"},
    {"benchmark", "kernels"},
    {"parallel"},
    {"checks", "questions"},
    {"practice"},
    {"live", "progress", "reset", "run_answers", "widgets"},
    {"cli", "run_answers_child"},
)
# It takes plain numbers and arrays: it imports no other part, and only the parts named here import it.
PICTURES = {"plots"}
MAY_DRAW = {"live", "practice", "questions", "widgets"}

# What the extras of pyproject.toml install, and which parts may load it. Without this, only torch and NumPy.
EXTRAS = {
    "plots": {"IPython", "matplotlib"},
    "questions": {"cn2an", "fsrs", "genanki", "markdown_it", "plotext", "pydantic", "yaml"},
    "cli": {"nbclient", "nbformat", "rich", "typer"},
    "lab": {"ipykernel", "ipywidgets", "jupyter_client", "jupyterlab", "jupytext"},
    "deepspeed": {"deepspeed"},
    "references": {"bitsandbytes", "pytorch_optimizer"},
    "test": {"hypothesis", "nbval", "playwright", "pytest"},
}
USES = {
    "plots": {"plots"},
    "widgets": {"plots", "lab", "questions"},
    "live": {"plots"},
    "questions": {"plots", "questions"},
    "practice": {"plots", "questions"},
    "cli": {"cli", "questions"},
    "reset": {"cli", "lab", "questions"},
    "sources": {"cli", "lab", "questions"},  # jupytext brings yaml
}
# One waits for torch only where one computes with it: not to read a question, see the help or draw a picture.
WITHOUT_NUMPY = {
    "course_lib",
    "course_lib.benchmark",
    "course_lib.benchmark.settings",
    "course_lib.checks",
    "course_lib.cli",
    "course_lib.cli.__main__",
    "course_lib.cli.compare",
    "course_lib.cli.bank",
    "course_lib.cli.bench",
    "course_lib.cli.launch",
    "course_lib.cli.practice",
    "course_lib.cli.memory",
    "course_lib.journal",
    "course_lib.journal.event",
    "course_lib.journal.exchange",
    "course_lib.journal.store",
    "course_lib.kernels",
    "course_lib.kernels.records",
    "course_lib.kernels.roofline",
    "course_lib.memory",
    "course_lib.memory.architecture",
    "course_lib.memory.cards",
    "course_lib.memory.configs",
    "course_lib.memory.models",
    "course_lib.parallel",
    "course_lib.parallel.alpha_beta",
    "course_lib.parallel.child",
    "course_lib.parallel.failures",
    "course_lib.parallel.launch",
    "course_lib.parallel.overlap",
    "course_lib.parallel.price",
    "course_lib.parallel.processes",
    "course_lib.practice",
    "course_lib.practice.asking",
    "course_lib.practice.choose",
    "course_lib.practice.interview",
    "course_lib.practice.pages",
    "course_lib.practice.report",
    "course_lib.practice.schedule",
    "course_lib.progress",
    "course_lib.questions",
}
WITHOUT_TORCH = WITHOUT_NUMPY | {
    "course_lib.blanks",
    "course_lib.compare",
    "course_lib.kernels.stub",
    "course_lib.plots",
    "course_lib.run_answers",
    "course_lib.schedules",
}


def modules() -> list[str]:
    """The dotted name of every module of the library."""
    relative = (path.relative_to(LIBRARY.parent).with_suffix("") for path in sorted(LIBRARY.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in relative]


def part(module: str) -> str:
    """``problems`` of ``course_lib.problems.text``; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def path_of(module: str) -> Path:
    path = LIBRARY.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: what stands under ``if TYPE_CHECKING:`` is for type checkers alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield from statements(child)


def imported_parts(source: str) -> set[str]:
    """The parts of the course that ``source`` imports, at its top or inside a function."""
    names = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write imports of the course as absolute ones"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {part(name) for name in names if name.startswith("course_lib.")} - {"__version__"}


def below(name: str) -> set[str]:
    """The parts that the part ``name`` may import, itself included."""
    if name in PICTURES:
        return {name} | (PICTURES if name in MAY_DRAW else set())
    height = next(index for index, level in enumerate(LEVELS) if name in level)
    return {name}.union(*LEVELS[:height], PICTURES if name in MAY_DRAW else set())


def test_every_part_has_its_level():
    parts = {part(module) for module in modules()} - {""}
    unknown = parts - PICTURES.union(*LEVELS)
    assert not unknown, f"say in LEVELS where {sorted(unknown)} stand"


@pytest.mark.parametrize("module", [name for name in modules() if name != "course_lib"])
def test_arrows_point_down(module):
    upwards = imported_parts(path_of(module).read_text(encoding="utf-8")) - below(part(module))
    assert not upwards, f"{module} imports {sorted(upwards)}; it may import {sorted(below(part(module)))}"


def test_the_package_itself_imports_nothing():
    tree = ast.parse((LIBRARY / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_reader_of_imports_sees_them_all():
    source = """
import course_lib.train
import course_lib.kernels.bench as bench, os
from course_lib import checks, __version__
from course_lib.problems.text import corpus
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from course_lib.live import LiveLoss
def later():
    if later:
        from course_lib.plots import show
"""
    assert imported_parts(source) == {"train", "kernels", "checks", "problems", "plots"}


def forbidden(module: str) -> frozenset[str]:
    allowed = USES.get(part(module), set())
    packages = set().union(*(packages for extra, packages in EXTRAS.items() if extra not in allowed))
    if module in WITHOUT_TORCH:
        packages.add("torch")
    if module in WITHOUT_NUMPY:
        packages.add("numpy")
    return frozenset(packages)


def alike() -> list[list[str]]:
    """Modules that may load the same packages: one interpreter can import them one after the other."""
    groups: dict[frozenset[str], list[str]] = {}
    for module in modules():
        groups.setdefault(forbidden(module), []).append(module)
    return list(groups.values())


def loaded_by_importing(names: list[str]) -> dict[str, list[str]]:
    """The top-level packages in a fresh interpreter after each of the imports."""
    script = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = sorted({key.partition('.')[0] for key in sys.modules})\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(names)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("group", alike(), ids=lambda group: f"{group[0]} and {len(group) - 1} more")
def test_an_import_loads_only_what_the_part_needs(group):
    for module, loaded in loaded_by_importing(group).items():
        heavy = forbidden(module) & set(loaded)
        assert not heavy, f"import {module} also loads {sorted(heavy)}"


def test_an_exercise_is_checked_without_pictures():
    script = (
        "import sys\n"
        "from course_lib.checks import check\n"
        "from course_lib.optim import AdamW\n"
        "report = check('adamw', AdamW)\n"
        "str(report), report._repr_html_()\n"
        "print(sorted({'IPython', 'matplotlib', 'pydantic', 'rich', 'yaml'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
