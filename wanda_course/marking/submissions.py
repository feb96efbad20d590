"""Find the submitted notebooks in a folder, and read them without running anything."""

import re
from pathlib import Path
from typing import NamedTuple

import nbformat

from ..exercises import EXERCISES

MAX_BYTES = 50_000_000  # of a notebook: ours have at most a tenth
NESTED = re.compile(r"(?P<number>\d\d)(_.*)?")  # 05_sparsegpt.ipynb, in a folder named for the student
FLAT = re.compile(r"(?P<student>.+?)_(?P<number>\d\d)(_.*)?")  # ada_05.ipynb, ada_05_sparsegpt.ipynb


class Submission(NamedTuple):
    """One notebook of one student. number: of the notebook, such as "05"."""

    student: str
    number: str
    path: Path


def find(folder):
    """The submissions in a folder; of several with the same student and number, the newest.

    Two layouts are known, and may be mixed: `STUDENT/…/NN_name.ipynb`, as nbgrader collects them, and `STUDENT_NN.ipynb`.

    Returns: list of `Submission`, sorted by student and number.

    Raises: ValueError: there are none.
    """
    newest = {}
    for path in sorted(folder.rglob("*.ipynb"), key=lambda path: (path.lstat().st_mtime, path)):
        inside = path.relative_to(folder)
        if ".ipynb_checkpoints" in inside.parts:
            continue
        nested = len(inside.parts) > 1
        name = (NESTED if nested else FLAT).fullmatch(path.stem)
        if name and any(key.startswith(f"{name['number']}.") for key in EXERCISES):
            student = inside.parts[0] if nested else name["student"]
            newest[student, name["number"]] = Submission(student, name["number"], path)
    if not newest:
        raise ValueError(f"no notebooks in {folder}: expected STUDENT/…/NN_name.ipynb or STUDENT_NN.ipynb")
    return [newest[key] for key in sorted(newest)]


def code_of(path):
    """The sources of a notebook's code cells: list of str.

    Raises: ValueError: the file cannot be read as a notebook.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        cells = nbformat.read(path, as_version=4).cells
        sources = [cell.source for cell in cells if cell.cell_type == "code"]
        if not all(isinstance(source, str) for source in sources):
            raise ValueError("a cell's source is not text")
    except Exception as error:  # nbformat lets through whatever a damaged file makes it raise
        raise ValueError(f"the notebook cannot be read ({type(error).__name__}: {error!s:.200})") from error
    return sources
