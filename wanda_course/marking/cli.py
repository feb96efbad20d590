"""Mark submitted notebooks: a score sheet, feedback for each student, a summary of the class.

    wanda-mark submitted --seed "a secret of this term" --out marks

The solutions and the checks in the notebooks are public: `exercises.check` is formative, and a right verdict there, or a
notebook that prints one, is worth no mark. Marks come from cases that are drawn from your secret seed, from the written
answers, and from the leaderboard. A student who hands in the published solution gets its points: only an oral or the
written answers tell. Take another secret for each round, as feedback shows cases.

The notebooks are never run. Only the function that each exercise asks for is, with what it uses of the notebook, each in a
process of its own without the solutions. On every POSIX system that process can open no file and no socket, has a limit of
processor time and of wall clock, and what it returns is never unpickled. On Linux its memory is limited and, where
`unshare` works or the marker runs as root, no file can be removed or created either and no other process be reached. As a
user other than root, and as root where the system lets it become `nobody`, it can start no process or thread. What your
system does not contain is printed. This is no fortress against a fault in the kernel or in torch: for work of strangers,
use a virtual machine.
"""

import argparse
import os
import sys
from pathlib import Path

from ..exercises import EXERCISES
from . import reports, submissions
from .grading import mark
from .sandbox import not_contained


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, help="STUDENT/.../NN_name.ipynb, as nbgrader collects, or STUDENT_NN.ipynb"
    )
    parser.add_argument(
        "--seed", required=True, metavar="SECRET", help="any text; keep it, to mark again with the same cases"
    )
    counted = parser.add_mutually_exclusive_group()
    counted.add_argument("--exercises", nargs="+", metavar="NN.k", help="those that count (default: all but pieces)")
    counted.add_argument("--build", action="store_true", help="count the pieces of the build edition as well")
    parser.add_argument("--out", type=Path, default=Path("marks"), help="folder for what is written (default: marks)")
    parser.add_argument(
        "--limit", type=float, default=10, metavar="SECONDS", help="wall clock for each answer (default: 10)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="answers at once (default: one per processor)")
    options = parser.parse_args(arguments)
    try:
        found = submissions.find(options.folder)
    except ValueError as error:
        parser.error(str(error))
    if unknown := set(options.exercises or ()) - set(EXERCISES):
        parser.error(f"there is no exercise {', '.join(sorted(unknown))}")
    open_doors = not_contained()
    for door in open_doors:
        print(f"Not contained on this system: {door}", file=sys.stderr)
    marks, problems = mark(found, options.seed, options.exercises, options.build, options.limit, options.jobs)
    reports.write(marks, problems, open_doors, options.out)
    for problem in problems:
        print(problem, file=sys.stderr)
    students = len({submission.student for submission in found})
    print(f"{len(marks)} answers of {students} students marked: see {options.out / 'summary.md'}")


if __name__ == "__main__":
    main()
