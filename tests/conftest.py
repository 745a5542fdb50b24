"""Settings for all tests."""

from hypothesis import settings

# The same examples in every run, and no deadline: how long an example takes says nothing about its being right.
settings.register_profile("course", derandomize=True, deadline=None)
settings.load_profile("course")
