"""The minutes in docs/teaching/syllabus.md, from the notebooks' first cells and the exercises.

`python -m wanda_course.syllabus` writes them again, after a notebook has been executed or an exercise has changed.
"""

import re

import nbformat

from wanda.sources.download import CHECKOUT

from .execute import NOTEBOOKS
from .exercises import EXERCISES

ROW = re.compile(r"^(\| (\d\d) \|.*) \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", re.MULTILINE)
ALL = re.compile(r"^(\| \| all \| \|) .*$", re.MULTILINE)
PLAN = re.compile(r"^(\| \d \| ([\d, ]+) \|.*\|) \d+ \|$", re.MULTILINE)
PARTS = {"One week": 3, "Three weeks": 4}  # the plans, and how many of a notebook's columns learners spend there


def minutes():
    """By notebook: minutes of reading, running, exercises and pieces."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        head = nbformat.read(path, as_version=4).cells[0].source
        reading = re.search(r"^Reading: about (\d+) minutes", head, re.MULTILINE)
        running = re.search(r"^Measured on \d cores? without a GPU: ([\d.]+) minutes", head, re.MULTILINE)
        found[path.stem[:2]] = [int(reading[1]), float(running[1]), 0, 0]
    for exercise in EXERCISES.values():
        found[exercise.key[:2]][3 if exercise.is_piece else 2] += exercise.minutes
    return found


def filled(text):
    """The syllabus with its minutes written anew."""
    known = minutes()
    totals = [sum(column) for column in zip(*known.values(), strict=True)]
    text = ROW.sub(lambda row: f"{row[1]} | {_cells(known[row[2]])} |", text)
    text = ALL.sub(lambda row: f"{row[1]} {_cells(totals)} |", text)
    for heading, parts in PARTS.items():
        before, after = text.split(f"## {heading}\n")
        plan, *rest = after.split("\n## ")

        def spent(row, parts=parts):
            return f"{row[1]} {sum(sum(known[number][:parts]) for number in row[2].split(', ')):.0f} |"

        text = f"{before}## {heading}\n" + "\n## ".join([PLAN.sub(spent, plan), *rest])
    return text


def _cells(values):
    return " | ".join(f"{round(value, 1):g}" for value in values)


def main():
    """Write the page."""
    page = CHECKOUT / "docs" / "teaching" / "syllabus.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
