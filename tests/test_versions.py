"""pyproject.toml is the one source of versions; constraints.txt and environment.yml agree with it."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")]
# For those who have it or want it: nothing that the README tells one to run installs it.
UNPINNED = {"deepspeed"}
PINNED = [texts for extra, texts in EXTRAS.items() if extra not in UNPINNED]
DECLARED = [Requirement(text) for group in (PROJECT["dependencies"], *PINNED) for text in group]
# torch brings CUDA packages on some systems only, and prescribes their versions itself.
PRESCRIBED_BY_TORCH = re.compile(r"nvidia-|cuda-|triton$")


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def pins_here() -> set[str]:
    return {canonicalize_name(pin.name) for pin in PINS if applies(pin)}


def required(name: str, extras: frozenset[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    """The names of all that an installed distribution needs on this machine, directly or not."""
    for extra in ["", *extras]:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            below = canonicalize_name(requirement.name)
            if applies(requirement, extra) and not (name == "torch" and PRESCRIBED_BY_TORCH.match(below)):
                yield below
                yield from required(below, frozenset(requirement.extras), seen)


def test_pins_are_exact_and_none_is_given_twice():
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in PINS)
    here = [canonicalize_name(pin.name) for pin in PINS if applies(pin)]
    assert sorted(here) == sorted(set(here))


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_each_declared_requirement_has_a_pin_that_satisfies_it(requirement):
    if canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"]):
        assert requirement.extras <= EXTRAS.keys()
        return
    versions = [next(iter(pin.specifier)).version for pin in PINS
                if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert versions, f"constraints.txt has no pin for {requirement}"
    assert all(requirement.specifier.contains(version) for version in versions)


def test_pins_are_what_the_installed_environment_needs():
    """Nothing that is installed is unpinned, and nothing is pinned that nothing needs."""
    needed = set(required("course_lib", frozenset({"test"}), set())) - {canonicalize_name(PROJECT["name"])}
    assert {"torch", "jupyterlab", "pytest"} <= needed
    assert needed == pins_here()


def test_conda_environment_repeats_nothing():
    """Conda brings the interpreter and pip; the rest is the `lab` extra under the same pins."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] and "defaults" not in environment["channels"]
    *packages, by_pip = environment["dependencies"]
    python = re.fullmatch(r"python=(\d+\.\d+)", packages[0])
    assert python and SpecifierSet(PROJECT["requires-python"]).contains(f"{python[1]}.0")
    assert packages[1:] == ["pip"]
    assert by_pip == {"pip": ["-c constraints.txt", "-e .[lab]"]} and "lab" in EXTRAS
