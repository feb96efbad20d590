"""What an exercise is: data. `checker` reads it; the files set_NN.py hold it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Misconception:
    """A wrong idea that many have: a function that follows it, and what to say to a learner whose results equal its own.

    Attributes:
        function: an implementation of the wrong idea, with the exercise's signature. It may raise on some cases.
        diagnosis: names the wrong idea and points at the right one, without giving the code away.
    """

    function: Callable
    diagnosis: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        key: "NN.n", the notebook and the place in it.
        title: in a few words.
        cases: function(torch.Generator) -> list of argument tuples; hand-made ones first, then random ones.
        solution: the reference function. Its source is what `exercises.solution` shows.
        misconceptions: list of `Misconception`, each told apart by the cases from the solution and from the others.
        hints: (first, second): a nudge, then nearly the answer.
        tolerance: relative and absolute difference that still counts as equal.
    """

    key: str
    title: str
    cases: Callable
    solution: Callable
    misconceptions: list
    hints: tuple
    tolerance: float = 1e-5
