"""The check of an autograder: an exception for every answer that is not right, on cases that only the instructor knows."""

import contextlib
import hashlib
import os
import sys

from .checker import check

SECRET = "WANDA_SECRET"  # environment variable: the secret of an instructor; without it, the notebook's own cases count


def grade(key, function):
    """`check` a learner's function, and fail if it is not right: nbgrader takes the points off for an exception.

    It also takes them off for anything on stderr, a warning included, so that what is written there goes to stdout.

    Raises: AssertionError: the answer is wrong or missing. ValueError: there is no such exercise.
    """
    secret = os.environ.get(SECRET)
    with contextlib.redirect_stderr(sys.stdout):
        verdict = check(key, function, seed_of(secret, key) if secret else 0)
    if not verdict:
        raise AssertionError(f"{key}: {verdict.status}")


def seed_of(secret, key):
    """The seed of the cases that a secret, any text, adds to those of an exercise's own check: positive int."""
    digest = hashlib.sha256(f"{secret} {key}".encode()).digest()
    return int.from_bytes(digest[:7], "big") + 1
