"""The exercises of the notebooks: check an answer, get a hint, see a solution.

`check` runs a learner's function on prepared and random cases. A wrong answer is compared with known misconceptions, so
that the reply can name the idea behind it and not only the number that is off.
"""

import copy
import importlib
import inspect
import pkgutil
import textwrap
import traceback
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from . import __name__ as package
from . import __path__ as folder
from .types import Exercise

SETS = [
    importlib.import_module(f"{package}.{found.name}")
    for found in pkgutil.iter_modules(folder)
    if found.name.startswith("set_")
]
FOUND = [value for module in SETS for value in vars(module).values() if isinstance(value, Exercise)]
EXERCISES = {exercise.key: exercise for exercise in FOUND}
SHOWN = 24  # entries of a tensor that are still printed in full
_hints_given = {}


class Verdict(NamedTuple):
    """What `check` found; true if the answer is right. `check` prints it, so a notebook does not show it again.

    Attributes:
        status: "right", "wrong" or "not attempted". text: as printed. passed, cases: numbers of cases.
    """

    status: str
    text: str
    passed: int
    cases: int

    def __bool__(self):
        return self.status == "right"

    def __str__(self):
        return self.text

    def _ipython_display_(self):
        pass


def check(key, function):
    """Run a learner's function on the cases of an exercise, print the verdict and return it.

    Args:
        key: of the exercise, such as "03.1".
        function: the learner's function itself, not its result. A stub that raises NotImplementedError counts as not
            attempted.

    Returns: `Verdict`.

    Raises: ValueError: there is no such exercise.
    """
    exercise = _exercise(key)
    if callable(function):
        verdict = _verdict(exercise, function)
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
        return function
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
    print(_wrapped(f"{key} hint {level} of {count}: {exercise.hints[level - 1]}"))


def solution(key):
    """Print the source of the reference solution."""
    print(textwrap.dedent(inspect.getsource(_exercise(key).solution)).rstrip())


def _exercise(key):
    if key not in EXERCISES:
        raise ValueError(f"there is no exercise {key!r}; there are {', '.join(sorted(EXERCISES))}")
    return EXERCISES[key]


def _verdict(exercise, function):
    cases = exercise.cases(torch.Generator().manual_seed(0))
    got = [_run(function, case) for case in cases]
    if isinstance(got[0].error, NotImplementedError):
        return Verdict("not attempted", f"{exercise.key} not attempted yet", 0, len(cases))
    expected = [_run(exercise.solution, case) for case in cases]
    pairs = zip(got, expected, strict=True)
    right = [_same(one, other, exercise.tolerance) and not one.changed for one, other in pairs]
    if all(right) and exercise.is_piece and any(map(_tensors_for_numbers, got, expected)):
        text = (
            f"✘ {exercise.key}: your values are right, but one is a tensor where the docstring asks for a number, and "
            "the cells below need that: take it out with `.item()`."
        )
        return Verdict("wrong", _wrapped(text), 0, len(cases))
    if all(right):
        text = f"✔ {exercise.key} {exercise.title}: right on all {len(cases)} cases"
        return Verdict("right", text, len(cases), len(cases))
    first, *more = _diagnosis(exercise, cases, got, expected, right).split("\n")
    text = "\n".join([_wrapped(f"✘ {exercise.key}: {first}"), *more])
    return Verdict("wrong", text, sum(right), len(cases))


def _diagnosis(exercise, cases, got, expected, right):
    """What to tell a learner whose results are not all right: the idea behind them if it is known, else the first fault.

    Args:
        got, expected: lists of `_Outcome`, one per case. right: list of bool.
    """
    if got[0].error is None and (got[0].value is None or got[0].value is ...):
        return "your function returns nothing. Is a `return` missing?"
    names = list(inspect.signature(exercise.solution).parameters)
    changed = next(((outcome, index) for outcome in got for index in outcome.changed), None)
    if changed is not None:
        return _change(*changed, names, cases[0])
    alike = []  # for each misconception, on which cases it gives the learner's results
    for misconception in exercise.misconceptions:
        with warnings.catch_warnings(action="ignore"):  # of the misconception, not of the learner's function
            wrong = [_run(misconception.function, case) for case in cases]
        alike.append([_same(*pair, exercise.tolerance) for pair in zip(got, wrong, strict=True)])
        if all(alike[-1]):
            return misconception.diagnosis
    number = right.index(False)
    values = zip(names, cases[number], strict=False)
    given = "\n".join(f"  {name} = {_brief(value)}" for name, value in values)
    where = f"on case {number + 1} of {len(cases)} your function {_problem(got[number], expected[number], exercise)}"
    text = f"{where}\nThe case was\n{given}"
    closest = max(alike, key=sum, default=[])
    if got[number].error is None and closest and closest[number]:
        diagnosis = exercise.misconceptions[alike.index(closest)].diagnosis
        text += "\n" + _wrapped(f"On that case it does what this mistake would: {diagnosis}")
    return text


def _change(outcome, index, names, case):
    """What to say of an argument that a learner's function has changed."""
    if not isinstance(case[index], torch.nn.Module):
        return (
            f"your function changes its argument {names[index]!r} in place; whoever called it still needs the old "
            "values. Work on a copy."
        )
    text = f"your function leaves hooks behind in {names[index]!r}. Remove each handle"
    return f"{text}." if outcome.error is None else f"{text}, in a `finally`: here it {_raised(outcome)}"


def _raised(outcome):
    line = f" (in `{outcome.line}`)" if outcome.line else ""
    return f"raises {type(outcome.error).__name__}: {outcome.error}{line}"


def _problem(got, expected, exercise):
    """What a learner's function did on a case, to go after "your function"."""
    if got.error is None:
        value = _difference(got.value, expected.value, exercise.tolerance)
        return value or "leaves other weights in the module that it was given. Does it work on a copy?"
    return _raised(got)


@dataclass(frozen=True)
class _Outcome:
    """What a function did on a case: its value, or its error and the line it came from; and its arguments afterwards.

    Attributes:
        plain: whether the value is a number and no tensor; of a tuple, whether each item is.
        changed: places of the arguments that it changed and should not have.
        weights: for each argument that is a module, its parameters.
    """

    value: object
    plain: object
    error: BaseException | None
    line: str
    changed: tuple
    weights: tuple


def _run(function, case):
    arguments = [_clone(argument) for argument in case]
    value, plain, error, line = None, None, None, ""
    try:
        result = function(*arguments)
        value, plain = _normal(result), _plain(result)
    except (Exception, SystemExit) as problem:
        error, line = problem, _line(problem, function)
    pairs = enumerate(zip(arguments, case, strict=True))
    changed = tuple(index for index, pair in pairs if not _unchanged(*pair))
    modules = [argument for argument in arguments if isinstance(argument, torch.nn.Module)]
    weights = tuple(_normal(tuple(module.parameters())) for module in modules)
    return _Outcome(value, plain, error, line, changed, weights)


def _line(error, function):
    """The line of the learner's own code that an error came from; empty if it cannot be told."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else ""


def _clone(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_clone, value))
    return copy.deepcopy(value)


def _unchanged(now, before):
    if isinstance(before, torch.Tensor):
        return now.shape == before.shape and torch.equal(torch.nan_to_num(now), torch.nan_to_num(before))
    if type(before) in (list, tuple):
        return len(now) == len(before) and all(map(_unchanged, now, before))
    if isinstance(before, torch.nn.Module):
        return not any(module._forward_pre_hooks or module._forward_hooks for module in now.modules())
    return not isinstance(before, (bool, int, float, str, dict)) or now == before


def _normal(value):
    """Numbers as tensors without dimensions, lists as tuples: a float and a tensor that holds it are equal."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):
        return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None)
    return tuple(map(_normal, value)) if isinstance(value, (tuple, list)) else value


def _plain(value):
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else not isinstance(value, torch.Tensor)


def _tensors_for_numbers(one, other):
    """Whether a right outcome holds a tensor where the reference gives a number."""

    def some(got, wanted):
        return any(map(some, got, wanted)) if isinstance(wanted, tuple) else wanted and not got

    return some(one.plain, other.plain)


def _same(one, other, tolerance):
    if one.error is not None or other.error is not None:
        return type(one.error) is type(other.error) and str(one.error) == str(other.error)
    return not _difference((one.value, one.weights), (other.value, other.weights), tolerance)


def _difference(got, expected, tolerance):
    """What is wrong with a value, to go after "your function"; an empty string if nothing is."""
    if isinstance(expected, tuple):
        if not isinstance(got, tuple) or len(got) != len(expected):
            return f"returns {_kind(got)}; {_kind(expected)} is wanted"
        found = (_difference(*pair, tolerance) for pair in zip(got, expected, strict=True))
        return next((f"{text} (item {place})" for place, text in enumerate(found) if text), "")
    if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
        return f"returns {_kind(got)}; {_kind(expected)} is wanted"
    if _sort(got) != _sort(expected) and (_sort(got), _sort(expected)) != ("int", "float"):
        return f"returns values of dtype {_dtype(got)}; {_dtype(expected)} is wanted"
    if _sort(expected) == "int":
        tolerance = 0  # counts are exact, however large
    apart = ~torch.isclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if not apart.any():
        return ""
    place = tuple(apart.nonzero()[0].tolist())
    one, right = float(got[place]), float(expected[place])
    alike = f"{one:.4g}" == f"{right:.4g}"
    if alike and _sort(expected) == "float":
        return f"returns {one:.10g} where {right:.10g} is right. Is a part of it computed with fewer digits?"
    if got.numel() <= SHOWN:
        return f"returns\n  {_brief(got)}\nbut this is right:\n  {_brief(expected)}"
    digits = 10 if alike else 4
    return (
        f"returns {one:.{digits}g} at {list(place)}, where {right:.{digits}g} is right; "
        f"{int(apart.sum())} of {apart.numel()} entries differ"
    )


def _sort(tensor):
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "int"


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _kind(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}" if value.ndim else f"a single {_sort(value)}"
    if isinstance(value, tuple):  # or a list: _normal made it a tuple
        return f"a list or tuple of {len(value)}"
    return f"{value!r:.40} ({type(value).__name__})"


def _brief(value):
    """An argument or a result in a line or a few."""
    if isinstance(value, torch.Tensor):
        if value.numel() > SHOWN:
            return f"a tensor of shape {list(value.shape)}"
        numbers = np.asarray(value.tolist())
        tiny = bool(((numbers != 0) & (np.abs(numbers) < 1e-3)).any())  # must not be printed as if it were zero
        style = {"formatter": {"float_kind": "{:.4g}".format}} if tiny else {"precision": 4, "suppress_small": True}
        return np.array2string(numbers, separator=", ", **style).replace("\n", "\n    ")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_brief, value)).join("()" if isinstance(value, tuple) else "[]")
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    return f"{value!r:.60}"


def _wrapped(text):
    return textwrap.fill(text, 88)  # what a notebook shows without breaking the line again
