"""The check of an autograder: an exception for every answer that is not right."""

import contextlib
import sys

from .checker import check


def grade(key, function):
    """`check` a learner's function, and fail if it is not right: nbgrader takes the points off for an exception.

    It also takes them off for anything on stderr, a warning included, so that what is written there goes to stdout.

    Raises: AssertionError: the answer is wrong or missing. ValueError: there is no such exercise.
    """
    with contextlib.redirect_stderr(sys.stdout):
        verdict = check(key, function)
    if not verdict:
        raise AssertionError(f"{key}: {verdict.status}")
