"""Write editions of the notebooks.

    python -m wanda_course.editions build 03      # or several numbers, or none for all; writes to build-notebooks/

read      as committed, to work in
build     with stubs for the core pieces of a notebook's code, to work in
student   to hand out: no outputs; with --build, the core pieces are exercises as well
solution  the student edition solved, with nbgrader's marks and points: what belongs in nbgrader's source/
"""

import argparse
from pathlib import Path

import nbformat

from ..execute import NOTEBOOKS
from ..exercises import EXERCISES
from .assignment import solution, student
from .build import build_edition

EDITIONS = {"read": lambda notebook: notebook, "build": build_edition, "student": student, "solution": solution}


def write(edition, folder, numbers=(), **options):
    """Write an edition of some notebooks to a folder; a notebook that is there already stays, with the reader's answers.

    Args:
        edition: one of `EDITIONS`. numbers: such as "03"; none: all. options: of `student` and `solution`.

    Returns: list of (path, whether it was written).

    Raises: ValueError: there is no such notebook, or none of those has such an exercise.
    """
    found = {path.stem.partition("_")[0]: path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
    if unknown := [number for number in numbers if number not in found]:
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(found)}")
    _require(options.get("graded") or (), numbers or found, options.get("build", False))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in numbers or found:
        target = folder / found[number].name
        written.append((target, not target.exists()))
        if not target.exists():
            nbformat.write(EDITIONS[edition](nbformat.read(found[number], as_version=4), **options), target)
    return written


def _require(keys, numbers, build):
    """Raise ValueError unless the notebooks have these exercises."""
    known = [key for key, exercise in EXERCISES.items() if key[:2] in numbers and (build or not exercise.is_piece)]
    if unknown := [key for key in keys if key not in known]:
        hint = "" if build else " (and pieces to build, with --build)"
        raise ValueError(f"no exercise {', '.join(unknown)}; there are {', '.join(known)}{hint}")


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edition", choices=EDITIONS)
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks; none: all")
    parser.add_argument("--out", type=Path, help="folder (default: EDITION-notebooks, where links work)")
    course = parser.add_argument_group("of the student and the solution edition")
    course.add_argument("--build", action="store_true", help="the core pieces of the code are exercises as well")
    course.add_argument("--short", action="store_true", help="only the exercises and what they need: runs in seconds")
    course.add_argument("--exercises", nargs="+", metavar="NN.n", help="those that earn points (default: all)")
    given = parser.parse_args(arguments)
    options = {"build": given.build, "short": given.short, "graded": given.exercises}
    options = {name: value for name, value in options.items() if value}
    if options and given.edition not in ("student", "solution"):
        parser.error(f"the edition {given.edition!r} takes no --build, --short or --exercises")
    try:
        written = write(given.edition, given.out or Path(f"{given.edition}-notebooks"), given.notebooks, **options)
    except ValueError as error:
        parser.error(str(error))
    for path, is_new in written:
        print(path if is_new else f"{path} is there already: left as it is")
