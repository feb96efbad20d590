"""A made-up class: notebooks with right answers, misconceptions and untouched stubs, drawn from a seed."""

import ast
import copy
import functools
import inspect
import random
import textwrap
from pathlib import Path

import nbformat

from wanda_course.editions import build_edition, with_function
from wanda_course.execute import NOTEBOOKS as FOLDER
from wanda_course.exercises import EXERCISES

NOTEBOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("[0-9]*.ipynb"))}


@functools.cache
def own_edition(number):
    """The build edition of a notebook, with the outputs that a student's has."""
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    edition = build_edition(notebook)
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs.get(cell.get("id"), [])
    return edition


def keys(number):
    return [key for key in EXERCISES if key.startswith(f"{number}.")]


def submission(number, answers):
    """A student's notebook. answers: dict from a key to the code that takes the stub's place."""
    notebook = copy.deepcopy(own_edition(number))
    for key, code in answers.items():
        name = EXERCISES[key].solution.__name__
        (cell,) = [c for c in notebook.cells if f"def {name}(" in c.source and "raise NotImplementedError" in c.source]
        cell.source = with_function(cell.source, name, code)
    return notebook


def right(key):
    return textwrap.dedent(inspect.getsource(EXERCISES[key].solution)).rstrip()


def wrong(key, diagnosis):
    """Code with one misconception of an exercise, as a student might have written it: nothing of the set is imported."""
    exercise = EXERCISES[key]
    definitions, ideas = _set(inspect.getmodule(exercise.cases))
    idea = ideas[key, diagnosis]
    needed, names = {}, _names(idea)
    while names:
        name = names.pop()
        if name in definitions and name not in needed:
            needed[name] = definitions[name]
            names += _names(definitions[name])
    own = {id(node): ast.unparse(node) for name, node in definitions.items() if name in needed}
    body = textwrap.indent("\n".join([*own.values(), f"return {ast.unparse(idea)}"]), "    ")
    return f"def make():\n{body}\n\n\n{exercise.solution.__name__} = make()"


@functools.cache
def _set(module):
    """The definitions in a file of exercises by name, and the expression for each (key, diagnosis)."""
    definitions, ideas, variables = {}, {}, {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Assign) and getattr(getattr(node.value, "func", None), "id", "") == "Exercise":
            key = variables[node.targets[0].id] = ast.literal_eval(node.value.args[0])
            for keyword in node.value.keywords:
                if keyword.arg == "wrong":
                    ideas |= {(key, ast.literal_eval(pair.elts[1])): pair.elts[0] for pair in keyword.value.elts}
            continue
        for decorator in getattr(node, "decorator_list", []):
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "attr", "") == "misconception":
                key = variables[decorator.func.value.id]
                ideas[key, ast.literal_eval(decorator.args[0])] = ast.Name(node.name)
                node.decorator_list = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if not getattr(node, "level", 0):
                definitions |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign):
            definitions |= {name: node for target in node.targets for name in _names(target)}
        elif hasattr(node, "name"):
            definitions[node.name] = node
    return definitions, ideas


def _names(node):
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def make_class(folder, students, numbers, seed=0):
    """Write a class's submissions to `folder`, as nbgrader collects them.

    Returns: dict from (student, key) to "right", "not attempted", or the diagnosis of the misconception.
    """
    draw, truth = random.Random(seed), {}
    for index in range(1, students + 1):
        student, ability = f"student{index:02}", draw.uniform(0.3, 0.9)
        for number in numbers:
            answers = {}
            for key in keys(number):
                kind = "right" if draw.random() < ability else draw.choice(["wrong", "wrong", "stub"])
                if kind == "wrong":
                    diagnosis = draw.choice(EXERCISES[key].misconceptions).diagnosis
                    answers[key], truth[student, key] = wrong(key, diagnosis), diagnosis
                elif kind == "right":
                    answers[key], truth[student, key] = right(key), kind
                else:
                    truth[student, key] = "not attempted"
            path = Path(folder) / student / "course" / NOTEBOOKS[number].name
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(submission(number, answers), path)
    return truth
