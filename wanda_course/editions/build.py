"""Editions of the notebooks, to work in: as committed ("read"), or with stubs for their core pieces ("build").

    python -m wanda_course.editions build 03      # or several numbers, or none for all; writes to build-notebooks/

In a notebook, a cell tagged `build-NN.bK` defines the function that exercise NN.bK asks for. In the build edition it is
a stub with a check and hints; a piece that is skipped or wrong is replaced by the reference, so that the cells below run.
"""

import argparse
import ast
import copy
import inspect
import textwrap
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from .execute import NOTEBOOKS
from .exercises import EXERCISES

TAG = "build-"


def piece(cell):
    """The exercise whose function a cell defines; None for any other cell."""
    keys = [tag.removeprefix(TAG) for tag in cell.metadata.get("tags", []) if tag.startswith(TAG)]
    return EXERCISES[keys[0]] if keys else None


def build_edition(notebook, solved=False):
    """A notebook without outputs, with a stub, a check and hints for each of its pieces.

    Args:
        notebook: as nbformat reads it; it stays as it is.
        solved: whether to paste the solutions in place of the stubs.
    """
    edition = copy.deepcopy(notebook)
    edition.cells = [new for cell in edition.cells for new in _rebuilt(cell, solved)]
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return edition


def _rebuilt(cell, solved):
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
    cell.source = with_function(cell.source, name, _solution(exercise) if solved else None)
    check = f'{name} = exercises.build("{exercise.key}", {name})'
    help_ = f'# exercises.hint("{exercise.key}")\n# exercises.solution("{exercise.key}")'
    return [new_markdown_cell(task), cell, new_code_cell(check), new_code_cell(help_)]


def with_function(source, name, function=None):
    """A cell's source with another function `name`: a stub with the same signature and docstring, or the one given.

    Raises: ValueError: the cell defines no such function.
    """
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(found) != 1:
        raise ValueError(f"the cell defines {len(found)} functions {name!r}; one is expected")
    (node,), lines = found, source.splitlines()
    if function is None:
        body = node.body[0]
        has_docstring = ast.get_docstring(node) is not None
        kept = lines[node.lineno - 1 : body.end_lineno if has_docstring else body.lineno - 1]
        function = "\n".join([*kept, "    raise NotImplementedError"])
    return "\n".join([*lines[: node.lineno - 1], *function.splitlines(), *lines[node.end_lineno :]])


def _solution(exercise):
    return textwrap.dedent(inspect.getsource(exercise.solution)).rstrip()


def write(edition, folder, numbers=()):
    """Write an edition of some notebooks to a folder; a notebook that is there already stays, with the reader's answers.

    Args:
        edition: "read" or "build". numbers: such as "03"; none: all.

    Returns: list of (path, whether it was written).

    Raises: ValueError: there is no such notebook.
    """
    found = {path.stem.partition("_")[0]: path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
    if unknown := [number for number in numbers if number not in found]:
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(found)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in numbers or found:
        target = folder / found[number].name
        written.append((target, not target.exists()))
        if not target.exists():
            notebook = nbformat.read(found[number], as_version=4)
            notebook = build_edition(notebook) if edition == "build" else notebook
            nbformat.write(notebook, target)
    return written


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edition", choices=("read", "build"))
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks; none: all")
    parser.add_argument("--out", type=Path, help="folder (default: EDITION-notebooks, where links work)")
    options = parser.parse_args(arguments)
    try:
        written = write(options.edition, options.out or Path(f"{options.edition}-notebooks"), options.notebooks)
    except ValueError as error:
        parser.error(str(error))
    for path, is_new in written:
        print(path if is_new else f"{path} is there already: left as it is")


if __name__ == "__main__":
    main()
