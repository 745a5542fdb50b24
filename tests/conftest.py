"""Settings for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from course_lib import journal

# The same examples in every run, and no deadline: how long an example takes says nothing about its being right.
settings.register_profile("course", derandomize=True, deadline=None)
settings.load_profile("course")


@pytest.fixture
def new_session(monkeypatch) -> Callable[[], None]:
    """Forget what this process has done, as if the kernel had been restarted."""

    def start() -> None:
        monkeypatch.setattr(journal, "_session", journal._Session())

    start()
    return start


@pytest.fixture
def home(tmp_path_factory, monkeypatch, new_session) -> Path:
    """A folder of the test's own for progress, where none is kept yet, and a session that has done nothing."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("COURSE_HOME", str(folder))
    return folder
