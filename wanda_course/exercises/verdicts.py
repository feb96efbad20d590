"""The verdict on an answer: whether its results are right and, if they are not, the idea behind them."""

import inspect
import textwrap
import warnings
from typing import NamedTuple

import torch

from .running import TimeLimit, normal
from .values import brief, difference, same

NOTHING = (normal(None), normal(...))


class Verdict(NamedTuple):
    """What `check` found; true if the answer is right. `check` prints it, so a notebook does not show it again.

    Attributes:
        status: "right", "wrong" or "not attempted". text: as printed. passed, cases: numbers of cases.
        misconception: the diagnosis of the known one whose results these are, on all cases; empty if there is none.
        nearest: if there is none, the diagnosis of one that gives these results on the first case that is not right.
    """

    status: str
    text: str
    passed: int
    cases: int
    misconception: str = ""
    nearest: str = ""

    def __bool__(self):
        return self.status == "right"

    def __str__(self):
        return self.text

    def _ipython_display_(self):
        pass


def judge(exercise, cases, got, outcomes_of):
    """The verdict on what a function did on the cases of an exercise.

    Args:
        cases: list of argument tuples. got: list of `Outcome`, as `run_all` gives it.
        outcomes_of: function that gives the list of outcomes of the solution, or of a misconception, on these cases.
    """
    if got[0].error == "NotImplementedError":
        return Verdict("not attempted", f"{exercise.key} not attempted yet", 0, len(cases))
    pairs = zip(got, outcomes_of(exercise.solution), strict=False)  # fewer in `got` if time was up
    right = [same(one, other, exercise.tolerance) and not one.changed for one, other in pairs]
    if all(right):
        text = f"✔ {exercise.key} {exercise.title}: right on all {len(cases)} cases"
        return Verdict("right", text, len(cases), len(cases))
    told, ideas = _diagnosis(exercise, cases, got, outcomes_of, right)
    first, *more = told.split("\n")
    text = "\n".join([wrapped(f"✘ {exercise.key}: {first}"), *more])
    return Verdict("wrong", text, sum(right), len(cases), **ideas)


def _diagnosis(exercise, cases, got, outcomes_of, right):
    """What to tell a learner whose results are not all right: the idea behind them if it is known, else the first fault.

    Args:
        right: list of bool, one per outcome in `got`.

    Returns: (text, `misconception` or `nearest` of the verdict as a dict, empty if there is neither).
    """
    if got[-1].error == TimeLimit.__name__:
        where = f"on case {len(got)} of {len(cases)}{_at(got[-1])}"
        return f"your function was stopped after {got[-1].message}, {where}. Does a loop never end?", {}
    if isinstance(got[0].value, str) and got[0].value in NOTHING:
        return "your function returns nothing. Is a `return` missing?", {}
    names = list(inspect.signature(exercise.solution).parameters)
    changed = next(((outcome, index) for outcome in got for index in outcome.changed), None)
    if changed is not None:
        return _change(*changed, names, cases[0]), {}
    alike = []  # for each misconception, on which cases it gives the learner's results
    for misconception in exercise.misconceptions:
        with warnings.catch_warnings(action="ignore"):  # of the misconception, not of the learner's function
            wrong = outcomes_of(misconception.function)
        alike.append([same(*pair, exercise.tolerance) for pair in zip(got, wrong, strict=True)])
        if all(alike[-1]):
            return misconception.diagnosis, {"misconception": misconception.diagnosis}
    number = right.index(False)
    values = zip(names, cases[number], strict=False)
    given = "\n".join(f"  {name} = {brief(value)}" for name, value in values)
    expected = outcomes_of(exercise.solution)[number]
    where = f"on case {number + 1} of {len(cases)} your function {_problem(got[number], expected, exercise)}"
    text = f"{where}\nThe case was\n{given}"
    near = [cases for cases in alike if cases[number]]
    if got[number].error is None and near:
        diagnosis = exercise.misconceptions[alike.index(max(near, key=sum))].diagnosis
        text += "\n" + wrapped(f"On that case it does what this mistake would: {diagnosis}")
        return text, {"nearest": diagnosis}
    return text, {}


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
    return f"raises {outcome.error}: {outcome.message}{_at(outcome)}"


def _at(outcome):
    return f" (in `{outcome.line}`)" if outcome.line else ""


def _problem(got, expected, exercise):
    """What a learner's function did on a case, to go after "your function"."""
    if got.error is None:
        value = difference(got.value, expected.value, exercise.tolerance)
        return value or "leaves other weights in the module that it was given. Does it work on a copy?"
    return _raised(got)


def wrapped(text):
    """Text as lines that a notebook shows without breaking them again."""
    return textwrap.fill(text, 88)
