"""The exercises of the notebooks: check an answer, get a hint, see a solution."""

from .checker import EXERCISES, build, check, hint, solution
from .graded import grade

__all__ = ["EXERCISES", "build", "check", "grade", "hint", "solution"]
