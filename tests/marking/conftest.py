"""One sandbox for the tests that run answers in it: it takes seconds to start."""

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("resource") else ["test_*.py"]  # the marker needs a POSIX system


@pytest.fixture(scope="package")
def sandbox():
    from wanda_course.marking.sandbox import Sandbox

    with Sandbox() as box:
        yield box
