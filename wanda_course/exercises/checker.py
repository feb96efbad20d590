"""The exercises of the notebooks: check an answer, get a hint, see a solution.

`check` runs a learner's function on prepared and random cases. A wrong answer is compared with known misconceptions, so
that the reply can name the idea behind it and not only the number that is off.
"""

import copy
import importlib
import inspect
import pkgutil
import textwrap
from dataclasses import dataclass

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


def check(key, function):
    """Run a learner's function on the cases of an exercise and print the verdict.

    Args:
        key: of the exercise, such as "03.1".
        function: the learner's function itself, not its result. A stub that raises NotImplementedError, or returns
            nothing, counts as not attempted.

    Raises: ValueError: there is no such exercise. TypeError: `function` is none.
    """
    exercise = _exercise(key)
    if not callable(function):
        raise TypeError(f"pass the function itself, without brackets: check({key!r}, my_function)")
    print(_verdict(exercise, function))


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
    first = got[0]
    if isinstance(first.error, NotImplementedError) or (
        first.error is None and (first.value is None or first.value is ...)
    ):
        return f"{exercise.key} not attempted yet"
    expected = [_run(exercise.solution, case) for case in cases]
    names = list(inspect.signature(exercise.solution).parameters)
    tolerance = exercise.tolerance
    changed = [index for outcome in got for index in outcome.changed]
    if changed:
        if isinstance(cases[0][changed[0]], torch.nn.Module):
            return f"✘ {exercise.key}: your function leaves hooks behind in {names[changed[0]]!r}. Remove each handle."
        return _wrapped(
            f"✘ {exercise.key}: your function changes its argument {names[changed[0]]!r} in place; whoever called it "
            "still needs the old values. Make a new tensor."
        )
    if all(_same(*pair, tolerance) for pair in zip(got, expected, strict=True)):
        return f"✔ {exercise.key} {exercise.title}: right on all {len(cases)} cases"
    for misconception in exercise.misconceptions:
        wrong = [_run(misconception.function, case) for case in cases]
        if all(_same(*pair, tolerance) for pair in zip(got, wrong, strict=True)):
            return _wrapped(f"✘ {exercise.key}: {misconception.diagnosis}")
    for number, (one, other) in enumerate(zip(got, expected, strict=True), start=1):
        if one.error is not None:
            problem = f"raises {type(one.error).__name__}: {one.error}"
        else:
            problem = _difference(one.value, other.value, tolerance)
        if problem:
            given = "\n".join(
                f"  {name} = {_brief(value)}" for name, value in zip(names, cases[number - 1], strict=False)
            )
            return f"✘ {exercise.key}: on case {number} of {len(cases)} your function {problem}\nThe case was\n{given}"
    raise AssertionError("a wrong answer without a difference")


@dataclass(frozen=True)
class _Outcome:
    """What a function did on a case: its value or its error, and the arguments that it changed."""

    value: object
    error: Exception | None
    changed: tuple


def _run(function, case):
    arguments = [_clone(argument) for argument in case]
    value = error = None
    try:
        value = _normal(function(*arguments))
    except Exception as problem:
        error = problem
    pairs = enumerate(zip(arguments, case, strict=True))
    return _Outcome(value, error, tuple(index for index, pair in pairs if not _unchanged(*pair)))


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
    """Numbers as tensors without dimensions, lists as tuples: a float and a tensor that holds it are the same answer."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):
        return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None)
    return tuple(map(_normal, value)) if isinstance(value, (tuple, list)) else value


def _same(one, other, tolerance):
    if one.error is not None or other.error is not None:
        return type(one.error) is type(other.error) and str(one.error) == str(other.error)
    return not _difference(one.value, other.value, tolerance)


def _difference(got, expected, tolerance):
    """What is wrong with a value, to go after "your function"; an empty string if nothing is."""
    if isinstance(expected, tuple):
        if not isinstance(got, tuple) or len(got) != len(expected):
            return f"returns {_kind(got)}; {_kind(expected)} is wanted"
        found = (_difference(*pair, tolerance) for pair in zip(got, expected, strict=True))
        return next((f"{text} (item {place} of the tuple)" for place, text in enumerate(found) if text), "")
    if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
        return f"returns {_kind(got)}; {_kind(expected)} is wanted"
    if _sort(got) != _sort(expected) and (_sort(got), _sort(expected)) != ("int", "float"):
        return f"returns values of dtype {_dtype(got)}; {_dtype(expected)} is wanted"
    apart = ~torch.isclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if not apart.any():
        return ""
    if got.numel() <= SHOWN:
        return f"returns\n  {_brief(got)}\nbut this is right:\n  {_brief(expected)}"
    place = tuple(apart.nonzero()[0].tolist())
    return (
        f"returns {float(got[place]):.4g} at {list(place)}, where {float(expected[place]):.4g} is right; "
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
