"""Mark a class: each answer of each student, on cases that nobody has seen."""

import pickle
import queue
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock
from typing import NamedTuple

from ..exercises import EXERCISES
from ..exercises.checker import outcomes
from ..exercises.graded import seed_of
from ..exercises.running import TimeLimit
from ..exercises.verdicts import Verdict, judge, wrapped
from .answers import Notebook
from .sandbox import Sandbox, Unanswered
from .submissions import code_of


class Mark(NamedTuple):
    """What one student gets for one exercise. verdict: its status may also be "missing": there is no such answer."""

    student: str
    key: str
    verdict: Verdict

    @property
    def points(self):
        """All the points of the exercise, or none."""
        return EXERCISES[self.key].points if self.verdict else 0


class Examiner:
    """The cases of each exercise and what solutions and misconceptions do on them, computed once for a class.

    Args:
        secret: str that the random cases depend on.
    """

    def __init__(self, secret):
        self.secret, self.lock = secret, Lock()
        self._cases, self._outcomes = {}, {}

    def cases(self, key):
        """The cases of an exercise, as (list of argument tuples, the same pickled)."""
        with self.lock:
            if key not in self._cases:
                cases = EXERCISES[key].draw(seed_of(self.secret, key))
                self._cases[key] = cases, pickle.dumps(cases)
            return self._cases[key]

    def verdict(self, key, got):
        """The verdict on a list of `Outcome`, which a child reports. Raises: Unanswered: they do not fit the cases."""
        cases, _ = self.cases(key)
        is_stopped = 0 < len(got) < len(cases) and got[-1].error == TimeLimit.__name__
        places = (index in range(len(case)) for one, case in zip(got, cases, strict=False) for index in one.changed)
        if not (len(got) == len(cases) or is_stopped) or not all(places):
            raise Unanswered("it gave no readable result")
        return judge(EXERCISES[key], cases, got, lambda function: self._known(key, function))

    def _known(self, key, function):
        cases, _ = self.cases(key)
        with self.lock:  # one at a time: some of ours set global state of torch for a moment
            if function not in self._outcomes:
                self._outcomes[function] = outcomes(function, cases)
            return self._outcomes[function]


def mark(submissions, secret, keys=None, build=False, seconds=10.0, jobs=2):
    """Mark all answers.

    Args:
        submissions: list of `Submission`. keys: of the exercises that count; None: those of every notebook that came in.
        build: whether the pieces of these notebooks count then, too.
        seconds: wall clock for each answer. jobs: how many answers run at once.

    Returns: (list of `Mark`, by student and exercise; list of str, the notebooks that could not be read and why).

    Raises: RuntimeError: answers cannot be run on this system.
    """
    notebooks, problems = {}, []
    for submission in submissions:
        sources = []
        try:
            sources = code_of(submission.path)
        except ValueError as error:
            problems.append(f"{submission.path}: {error}")
        notebooks[submission.student, submission.number] = Notebook(sources, submission.number)
    students = sorted({student for student, _ in notebooks})
    tasks = [(student, key) for student in students for key in keys or _asked(notebooks, build)]
    examiner, sandboxes = Examiner(secret), queue.SimpleQueue()

    def marked(task):
        student, key = task
        notebook = notebooks.get((student, key[:2]))
        sandbox = sandboxes.get()
        try:
            return Mark(student, key, _verdict(examiner, sandbox, notebook, key))
        finally:
            sandboxes.put(sandbox)

    with ExitStack() as stack:
        for _ in range(jobs):
            sandboxes.put(stack.enter_context(Sandbox(seconds)))
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(marked, tasks)), problems


def _asked(notebooks, build):
    """The keys that a class is marked on, the same for all students whatever one of them hands in."""
    numbers = {number for _, number in notebooks}
    return [key for key, e in EXERCISES.items() if key[:2] in numbers and (build or not e.is_piece)]


def _verdict(examiner, sandbox, notebook, key):
    cases, pickled = examiner.cases(key)
    try:
        if notebook is None:
            raise LookupError("the notebook was not handed in")
        if EXERCISES[key].is_piece and key not in notebook.checked:
            raise LookupError("this is not the build edition, where this piece is a stub")
        return examiner.verdict(key, sandbox.run(notebook.answer(key), pickled))
    except (LookupError, RecursionError) as error:
        return Verdict("missing", wrapped(f"✘ {key}: {error}"), 0, len(cases))
    except Unanswered as error:
        return Verdict("wrong", wrapped(f"✘ {key}: {error}"), 0, len(cases))
