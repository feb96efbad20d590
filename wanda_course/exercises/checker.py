"""The exercises of the notebooks: check an answer, get a hint, see a solution.

`check` runs a learner's function on prepared and random cases. A wrong answer is compared with known misconceptions, so
that the reply can name the idea behind it and not only the number that is off.
"""

import importlib
import inspect
import pkgutil
import textwrap

import torch

from . import __name__ as package
from . import __path__ as folder
from .running import clone, run, run_all
from .types import Exercise
from .verdicts import Verdict, judge, wrapped

SETS = [
    importlib.import_module(f"{package}.{found.name}")
    for found in pkgutil.iter_modules(folder)
    if found.name.startswith("set_")
]
FOUND = [value for module in SETS for value in vars(module).values() if isinstance(value, Exercise)]
EXERCISES = {exercise.key: exercise for exercise in FOUND}
SECONDS = 60  # that a learner's function may take for all cases of an exercise
_hints_given = {}


def check(key, function, seed=0, *, seconds=SECONDS):
    """Run a learner's function on the cases of an exercise, print the verdict and return it.

    Args:
        key: of the exercise, such as "03.1".
        function: the learner's function itself, not its result. A stub that raises NotImplementedError counts as not
            attempted.
        seed: of further random cases, as in `Exercise.draw`.
        seconds: after which the function is stopped, all cases together. There is a limit only on POSIX systems and in
            the main thread, where a notebook's cells run.

    Returns: `Verdict`.

    Raises: ValueError: there is no such exercise.
    """
    exercise = _exercise(key)
    if callable(function):
        cases = exercise.draw(seed)
        verdict = judge(exercise, cases, run_all(function, cases, seconds), lambda known: outcomes(known, cases))
    else:
        text = f"✘ {key}: pass the function itself, without brackets: exercises.check({key!r}, my_function)"
        verdict = Verdict("wrong", text, 0, 0)
    print(verdict)
    return verdict


def build(key, function):
    """`check` a piece of a notebook's own code. Returns: the learner's function if it is right, else the reference.

    The build edition of a notebook calls it after each piece, so that the cells below can run.
    """
    if function is _exercise(key).solution:  # what this returned before takes the place of the learner's function
        print(f"{key}: this is the reference. Run the cell with your own function first.")
        return function
    if check(key, function):
        other = _other_type(_exercise(key), function)
        if not other:
            return function
        print(wrapped(f"Your function returns {other}, and the cells below need that."))
    print("The cells below use the reference meanwhile.")
    return _exercise(key).solution


def hint(key, level=None):
    """Print a hint: the first one, and the second when asked again. level: 1 or 2, to choose."""
    exercise = _exercise(key)
    count = len(exercise.hints)
    if level is None:
        level = _hints_given[key] = min(_hints_given.get(key, 0) + 1, count)
    if level not in range(1, count + 1):
        raise ValueError(f"exercise {key} has hints 1 to {count}, got level {level!r}")
    print(wrapped(f"{key} hint {level} of {count}: {exercise.hints[level - 1]}"))


def solution(key):
    """Print the source of the reference solution."""
    print(textwrap.dedent(inspect.getsource(_exercise(key).solution)).rstrip())


def outcomes(function, cases):
    """What a function of ours, a solution or a misconception, does on some cases: list of `Outcome`."""
    return [run(function, case) for case in cases]


def _other_type(exercise, function):
    """How the type of a right result differs from the reference's, where the cells below would fail; else empty."""
    case = exercise.draw(0)[0]
    results = [each(*map(clone, case)) for each in (function, exercise.solution)]
    got, wanted = (result if isinstance(result, (tuple, list)) else (result,) for result in results)
    for one, other in zip(got, wanted, strict=True):
        if isinstance(one, torch.Tensor) and not isinstance(other, torch.Tensor):
            return "a tensor where the docstring asks for a number: take it out with `.item()`"
        if isinstance(one, torch.Tensor) and one.dtype != other.dtype:
            return f"a tensor of {one.dtype} where the reference's is of {other.dtype}"
    return ""


def _exercise(key):
    if key not in EXERCISES:
        raise ValueError(f"there is no exercise {key!r}; there are {', '.join(sorted(EXERCISES))}")
    return EXERCISES[key]
