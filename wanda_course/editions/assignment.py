"""A notebook as an assignment: the student edition, and the solution edition, which is nbgrader's source version.

Both have each answer in a cell of its own. The metadata are nbgrader's (schema 3); Jupyter without nbgrader ignores them.
"""

import ast
from typing import NamedTuple

import nbformat
from nbformat.v4 import new_code_cell

from ..exercises import EXERCISES
from ..exercises.types import Exercise
from .build import build_edition, cleared, signature, solution_source, with_function
from .short import shortened


class Task(NamedTuple):
    """An exercise in a notebook.

    Attributes:
        name: the learner's function. answer: the cell with its stub. check: the cell that checks it.
        plain: whether that cell does nothing else.
    """

    exercise: Exercise
    name: str
    answer: nbformat.NotebookNode
    check: nbformat.NotebookNode
    plain: bool


def student(notebook, build=False, graded=None, short=False):
    """A notebook without outputs and solutions, its answer cells marked.

    Args:
        notebook: as nbformat reads it; it stays as it is.
        build: whether the pieces of its own code are exercises too.
        graded: keys of the exercises that earn points; None: all. The others stay, as practice.
        short: whether to keep only the exercises and what they need, which runs in seconds.
    """
    edition = build_edition(notebook) if build else cleared(notebook)
    edition.cells = [part for cell in edition.cells for part in _split(cell)]
    found = tasks(edition)
    for task in found:
        kind = "answer" if _is_graded(task, graded) else "practice"
        task.answer.metadata["nbgrader"] = _metadata(kind, task, solution=True)
    if short:
        edition.cells = shortened(edition.cells, found)
    for number, cell in enumerate(edition.cells):
        cell.id = f"cell-{number:03}"  # the same in every run, also for new cells
    return edition


def solution(notebook, build=False, graded=None, short=False):
    """The student edition with every exercise solved, between nbgrader's marks, and a locked, graded check for each.

    Args: as of `student`.
    """
    edition = student(notebook, build, graded, short)
    for task in tasks(edition):
        task.answer.source = _solved(task)
        if _is_graded(task, graded):
            place = next(place for place, cell in enumerate(edition.cells) if cell is task.check)
            edition.cells[place : place + task.plain] = [_graded_check(task)]
    return edition


def tasks(edition):
    """The exercises of a notebook, in order: its stubs that are checked further down, or in the same cell."""
    stubs, found = {}, []
    for cell in edition.cells:
        if cell.cell_type == "code" and "NotImplementedError" in cell.source:
            names = [node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
            stubs |= dict.fromkeys(names, cell)
        if call := _check(cell):
            statement, key, name = call
            if name in stubs:
                found.append(Task(EXERCISES[key], name, stubs[name], cell, isinstance(statement, ast.Expr)))
    return found


def _check(cell):
    """The statement of a cell that checks an exercise, the exercise's key and the function's name; None if none does."""
    if cell.cell_type == "code" and "exercises." in cell.source:
        for statement in ast.parse(cell.source).body:
            for node in ast.walk(statement):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="exercises"), attr="check" | "build"),
                        args=[ast.Constant(value=key), ast.Name(id=name)],
                    ):
                        return statement, key, name
    return None


def _split(cell):
    """The cells that stand for one: what comes before its check, the check, and what follows. A locked cell holds no more."""
    if (call := _check(cell)) is None:
        return [cell]
    lines, (statement, *_) = cell.source.splitlines(), call
    start, end = statement.lineno - 1, statement.end_lineno
    parts = ["\n".join(part).strip() for part in (lines[:start], lines[start:end], lines[end:])]
    return [new_code_cell(part) for part in parts if part]


def _is_graded(task, graded):
    return graded is None or task.exercise.key in graded


def _solved(task):
    """The answer cell with the reference's body between nbgrader's marks, under the signature that the notebook gives."""
    solution = solution_source(task.exercise)
    head = signature(solution, task.exercise.solution.__name__)
    body = solution.removeprefix(head).strip("\n")
    head = signature(task.answer.source, task.name)
    function = "\n".join([head, "    ### BEGIN SOLUTION", body, "    ### END SOLUTION"])
    return with_function(task.answer.source, task.name, function)


def _graded_check(task):
    key, points = task.exercise.key, task.exercise.points
    source = f'exercises.grade("{key}", {task.name})  # {points} point{"s" * (points > 1)}'
    metadata = _metadata("check", task, grade=True, locked=True, points=points)
    # By the tag, "Run all" goes on past an exercise that is not solved yet.
    return new_code_cell(
        source, id=f"{task.check.id}-graded", metadata={"nbgrader": metadata, "tags": ["raises-exception"]}
    )


def _metadata(kind, task, **others):
    role = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return role | {"grade_id": f"{kind}-{task.exercise.key.replace('.', '-')}"} | others
