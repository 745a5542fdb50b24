"""The notebooks for Colab run in an empty folder, without this checkout, under Colab's versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from notebook_guards import is_ignored
from packaging.requirements import Requirement
from tools import colab as build
from tools.notebooks import ROOT

from course_lib import blanks, colab, sources

HERE = Path(__file__).resolve().parent
PINS = HERE / "colab-pins.txt"
INSTALLED = Path(sys.prefix, "colab")      # where `make test` puts them
FOLDERS = {"notebooks": "notebooks", "solutions": "solutions", "exercises": "solutions"}
ALL = [f"{folder}/{source.stem}.ipynb"
       for folder, of in FOLDERS.items() for source in sorted((ROOT / of / "source").glob("[0-9]*.py"))]


def pins() -> list[Requirement]:
    lines = [line for line in PINS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate()]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make colab` writes."""
    out = tmp_path_factory.mktemp("dist") / "colab"
    assert build.main(["--out", str(out)]) == 0
    return out


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """An interpreter that has Colab's versions and google.colab, and everything else but the course from this one."""
    if not INSTALLED.is_dir():
        assert "CI" not in os.environ, f"{INSTALLED} is missing"
        pytest.skip("Colab's versions are not installed; make test installs them")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=os.name == "posix")
    links = tmp_path / "links"
    links.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "course_lib" not in entry.name and entry.suffix != ".pth":
            (links / entry.name).symlink_to(entry)
    scheme = sysconfig.get_preferred_scheme("prefix")
    where = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", scheme, vars=where))
    lines = [INSTALLED, links, HERE / "colab_standin", "import google.colab"]
    (packages / "colab.pth").write_text("\n".join(map(str, lines)) + "\n", encoding="utf-8")
    return Path(sysconfig.get_path("scripts", scheme, vars=where), "python")


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COURSE_"))}
    return kept | {"COURSE_HOME": str(home)}


class Kernels(AsyncKernelManager):
    """Starts the interpreter that `interpreter_path` names."""

    interpreter_path = ""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=[self.interpreter_path, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def run(notebook: nbformat.NotebookNode, interpreter: Path, folder: Path) -> nbformat.NotebookNode:
    folder.mkdir()
    manager = type("Here", (Kernels,), {"interpreter_path": str(interpreter)})
    client = NotebookClient(notebook, kernel_manager_class=manager, timeout=600, coalesce_streams=True,
                            allow_errors=True, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=environment(folder.parent / "home"))


def printed(cell: nbformat.NotebookNode) -> list[str]:
    return [output.text for output in cell.outputs if output.get("name") == "stdout"]


@pytest.mark.parametrize("name", ALL)
def test_it_runs_in_an_empty_folder_and_says_the_same(dist, interpreter, tmp_path, name):
    notebook = nbformat.read(dist / name, as_version=4)
    stored = {cell.id: cell for cell in nbformat.read(ROOT / name, as_version=4).cells}
    done = run(notebook, interpreter, tmp_path / "empty")
    for cell in done.cells:
        if cell.cell_type == "code" and cell.id in stored and not is_ignored(cell) and "exercises" not in name:
            assert printed(cell) == printed(stored[cell.id]), cell.source
        for output in cell.get("outputs", []):
            blank = any(tag.startswith("exercise:") for tag in blanks.cell_tags(cell)) and "exercises" in name
            assert output.output_type != "error" or (blank and output.ename == "NotImplementedError"), output
            assert output.get("name") != "stderr" or is_ignored(cell), output


def test_it_is_colabs_environment_and_the_course_comes_from_the_notebook(dist, interpreter, tmp_path):
    notebook = nbformat.read(dist / "exercises" / "05_adamw.ipynb", as_version=4)
    names = [pin.name for pin in pins()]
    asks = "\n".join([
        "import json, sys, importlib.metadata, os, course_lib",
        f"print(json.dumps([{{n: importlib.metadata.version(n) for n in {names}}}, course_lib.__file__, os.listdir()]))"])
    notebook.cells = [*notebook.cells[:2], nbformat.v4.new_code_cell(asks)]
    done = run(notebook, interpreter, tmp_path / "empty")
    versions, where, files = json.loads(printed(done.cells[-1])[0])
    assert {name: f"=={version}" for name, version in versions.items()} == {
        pin.name: str(pin.specifier) for pin in pins()}
    assert Path(where).is_relative_to(tmp_path / "venv")
    assert files == []
    assert versions["ipywidgets"] != importlib.metadata.version("ipywidgets")


def first_cell_of(notebook: Path) -> str:
    return nbformat.read(notebook, as_version=4).cells[1].source


def test_a_second_run_installs_nothing(dist, interpreter, tmp_path):
    script = tmp_path / "twice.py"
    code = first_cell_of(dist / "exercises" / "05_adamw.ipynb")
    script.write_text(f"{code}\nimport course_lib\nsubprocess.run = None\n{code}\nprint(course_lib.__version__)\n")
    done = subprocess.run([interpreter, script], env=environment(tmp_path), cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_outside_colab_it_does_nothing(dist):
    code = first_cell_of(dist / "exercises" / "05_adamw.ipynb")
    check = "import sys\nbefore = set(sys.modules)\nCODE\nprint(sorted(set(sys.modules) - before))\n"
    done = subprocess.run([sys.executable, "-I", "-"], input=check.replace("CODE", code), capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_progress_can_live_on_google_drive(dist, interpreter, tmp_path):
    code = first_cell_of(dist / "exercises" / "05_adamw.ipynb").replace("DRIVE = False", "DRIVE = True")
    script = tmp_path / "drive.py"
    script.write_text(f"{code}\nfrom google.colab import drive\nprint(drive.mounted, os.environ['COURSE_HOME'])\n")
    done = subprocess.run([interpreter, script], env=environment(tmp_path), cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert done.stdout == "['/content/drive'] /content/drive/MyDrive/course\n", done.stderr


def test_a_copy_with_work_in_it_is_kept(dist, capsys):
    path = dist / "exercises" / "05_adamw.ipynb"
    before = path.read_bytes()
    notebook = nbformat.reads(before.decode(), as_version=4)
    notebook.cells[-1].source += "\n# mine"
    path.write_text(sources.as_text(notebook), encoding="utf-8")
    mine = path.read_bytes()
    try:
        assert build.main(["--out", str(dist)]) == 0
        assert path.read_bytes() == mine and "holds your work" in capsys.readouterr().err
    finally:
        path.write_bytes(before)


# Once the course has an address


@pytest.fixture
def with_address(tmp_path: Path) -> Path:
    """The source of a solution in a course whose pyproject.toml names its repository."""
    source = tmp_path / "solutions" / "source" / "05_adamw.py"
    source.parent.mkdir(parents=True)
    source.write_text((ROOT / "solutions" / "source" / "05_adamw.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/owner/name.git"\n')
    return source


def test_with_an_address_every_notebook_gets_a_badge_and_a_first_cell(with_address):
    for notebook, folder in ((sources.executed_form(with_address), "solutions"),
                             (sources.exercise_form(with_address), "exercises")):
        badge, title, first = notebook.cells[:3]
        assert f"(https://colab.research.google.com/github/owner/name/blob/HEAD/{folder}/05_adamw.ipynb)" in badge.source
        assert title.source.startswith("# ")
        assert "https://github.com/owner/name/archive/HEAD.zip" in first.source and len(first.source) < 1500
        assert blanks.is_as_generated(notebook)
        nbformat.validate(notebook)


def test_the_first_cell_asks_pip_for_the_address_alone(with_address, interpreter, tmp_path):
    code = sources.exercise_form(with_address).cells[2].source
    script = tmp_path / "address.py"
    script.write_text("import subprocess\nsubprocess.run = lambda command, check: print(command[1:], check)\n" + code)
    done = subprocess.run([interpreter, script], env=environment(tmp_path), cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert done.stdout == ("['-m', 'pip', 'install', '--quiet', '--no-deps', "
                           "'course_lib @ https://github.com/owner/name/archive/HEAD.zip'] True\n"), done.stderr


def test_the_first_cell_brings_what_the_quiz_needs_and_colab_has_not(with_address, interpreter, tmp_path):
    code = sources.exercise_form(with_address).cells[2].source
    script = tmp_path / "bare.py"
    script.write_text("import importlib.util, subprocess\nimportlib.util.find_spec = lambda name: None\n"
                      "subprocess.run = lambda command, check: print(command[6:], check)\n" + code)
    done = subprocess.run([interpreter, script], env=environment(tmp_path), cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    extra = done.stdout.splitlines()[1]
    assert extra.startswith("['fsrs', 'genanki', ") and extra.endswith(" False"), done.stderr


def test_for_colab_itself_the_library_takes_the_place_of_the_address(with_address):
    notebook = build.for_colab(sources.exercise_form(with_address), "pass  # the library")
    assert [cell.source for cell in notebook.cells if colab.TAG in blanks.cell_tags(cell)] == ["pass  # the library"]


@pytest.mark.parametrize("address", ["github.com/owner/name", "https://example.org/owner/name", "https://github.com/x"])
def test_another_address_is_refused(with_address, address):
    path = with_address.parents[2] / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\n[project.urls]\nRepository = "{address}"\n')
    with pytest.raises(ValueError, match="https://github.com/OWNER/NAME"):
        sources.exercise_form(with_address)


def test_without_an_address_there_is_neither():
    assert colab.repository(ROOT) is None or "colab-setup" in str(sources.exercise_form(
        ROOT / "solutions" / "source" / "05_adamw.py"))
