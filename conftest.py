"""Settings for every run of pytest, of notebooks alone as well: nothing that is run counts as anybody's progress."""

import os
import shutil
import tempfile

import pytest

home = pytest.StashKey[str]()


def pytest_configure(config):
    config.stash[home] = tempfile.mkdtemp(prefix="course-home-")
    os.environ["COURSE_HOME"] = config.stash[home]  # the kernels that nbval starts inherit it


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[home], ignore_errors=True)
