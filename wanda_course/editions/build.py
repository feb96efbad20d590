"""The build edition: a notebook with stubs for its core pieces.

In a notebook, a cell tagged `build-NN.bK` defines the function that exercise NN.bK asks for. In the build edition it is
a stub with a check and hints; a piece that is skipped or wrong is replaced by the reference, so that the cells below run.
"""

import ast
import copy
import inspect
import textwrap

from nbformat.v4 import new_code_cell, new_markdown_cell

from ..exercises import EXERCISES

TAG = "build-"


def piece(cell):
    """The exercise whose function a cell defines; None for any other cell."""
    keys = [tag.removeprefix(TAG) for tag in cell.metadata.get("tags", []) if tag.startswith(TAG)]
    return EXERCISES[keys[0]] if keys else None


def cleared(notebook):
    """A copy of a notebook without outputs."""
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return edition


def build_edition(notebook):
    """A notebook without outputs, with a stub, a check and hints for each of its pieces.

    Args:
        notebook: as nbformat reads it; it stays as it is.
    """
    edition = cleared(notebook)
    edition.cells = [new for cell in edition.cells for new in _rebuilt(cell)]
    return edition


def _rebuilt(cell):
    """The cells of the build edition that stand for one of the notebook's."""
    exercise = piece(cell)
    if exercise is None:
        return [cell]
    name = exercise.solution.__name__
    task = (
        f"**Build it: {exercise.title}.** {exercise.effort} Replace `raise NotImplementedError`, run the cell, then the "
        "check below it. For a hint, remove a `#` in the cell after that. The cells further down use the reference until "
        "yours is right."
    )
    cell.source = with_function(cell.source, name)
    check = f'{name} = exercises.build("{exercise.key}", {name})'
    help_ = f'# exercises.hint("{exercise.key}")\n# exercises.solution("{exercise.key}")'
    return [new_markdown_cell(task), cell, new_code_cell(check), new_code_cell(help_)]


def with_function(source, name, function=None):
    """A cell's source with another function `name`: a stub with the same signature and docstring, or the one given.

    Raises: ValueError: the cell defines no such function.
    """
    if function is None:
        function = f"{signature(source, name)}\n    raise NotImplementedError"
    node, lines = _definition(source, name), source.splitlines()
    return "\n".join([*lines[: node.lineno - 1], *function.splitlines(), *lines[node.end_lineno :]])


def signature(source, name):
    """The first lines of function `name` in a cell's source: its signature and its docstring, if it has one."""
    node = _definition(source, name)
    body = node.body[0]
    end = body.end_lineno if ast.get_docstring(node) is not None else body.lineno - 1
    return "\n".join(source.splitlines()[node.lineno - 1 : end])


def solution_source(exercise):
    """The source of an exercise's reference."""
    return textwrap.dedent(inspect.getsource(exercise.solution)).rstrip()


def _definition(source, name):
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(found) != 1:
        raise ValueError(f"the cell defines {len(found)} functions {name!r}; one is expected")
    return found[0]
