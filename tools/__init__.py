"""What builds and proves the course, run from the repository's root: `python -m tools.NAME`."""
