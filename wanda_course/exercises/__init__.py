"""The exercises of the notebooks: check an answer, get a hint, see a solution."""

from .checker import EXERCISES, check, hint, solution

__all__ = ["EXERCISES", "check", "hint", "solution"]
