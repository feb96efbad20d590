"""What an exercise is: data. `checker` reads it; the files set_NN.py hold it."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import torch


class Misconception(NamedTuple):
    """A wrong idea that many have, and what to say to a learner whose results equal its own.

    Attributes:
        function: an implementation of the wrong idea, with the exercise's signature. It may raise on some cases.
        diagnosis: names the wrong idea and points at the right one, without giving the code away.
    """

    function: Callable
    diagnosis: str


@dataclass(frozen=True)
class Exercise:
    """One exercise. `checker` finds it under any name in a set_NN.py.

    Attributes:
        key: "NN.n", the notebook and the place in it; "NN.bn" for a piece of the notebook's own code, which readers write
            in the build edition.
        title: in a few words.
        solution: the reference function. Its source is what `exercises.solution` shows.
        cases: function(torch.Generator) -> list of argument tuples; hand-made ones first, then random ones. `draw` calls it.
        hints: (first, second): a nudge, then nearly the answer.
        wrong: list of (function, diagnosis), each told apart by the cases of seed 0 from the solution and from the others.
        tolerance: relative and absolute difference that still counts as equal.
        difficulty, importance: from 1 to 3. minutes: that most learners need.
    """

    key: str
    title: str
    solution: Callable
    cases: Callable
    _: KW_ONLY
    hints: tuple
    difficulty: int
    importance: int
    minutes: int
    wrong: list = field(default_factory=list)
    tolerance: float = 1e-5

    @property
    def misconceptions(self):
        """The wrong ideas, as a list of `Misconception`."""
        return [Misconception(*pair) for pair in self.wrong]

    def draw(self, seed=0):
        """The cases of seed 0 and, if another is given, its own after them.

        The random cases of a few seeds happen to hide a misconception. Those of seed 0 do not: the tests check it.
        """
        seeds = (0, seed) if seed else (0,)
        return [case for number in seeds for case in self.cases(torch.Generator().manual_seed(number))]

    @property
    def is_piece(self):
        """Whether it is a piece of a notebook's own code."""
        return ".b" in self.key

    @property
    def points(self):
        """What a right answer earns in a graded course: its importance."""
        return self.importance

    @property
    def effort(self):
        """The line that stands below the exercise's heading in its notebook."""
        return f"*Difficulty {self.difficulty} of 3 · importance {self.importance} of 3 · about {self.minutes} minutes*"

    def misconception(self, diagnosis):
        """Decorator that adds a function to the wrong ideas: for one of several statements, or one used elsewhere."""

        def add(function):
            self.wrong.append((function, diagnosis))
            return function

        return add
