"""The teaching pages say what the notebooks and the exercises say."""

import re
from collections import defaultdict

import nbformat
import pytest

from wanda.sources.download import CHECKOUT
from wanda_course.exercises import EXERCISES

FOLDER = CHECKOUT / "docs" / "teaching"
SYLLABUS = (FOLDER / "syllabus.md").read_text(encoding="utf-8")
PAGES = (FOLDER / "notebooks.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.stem[:2]: path for path in sorted((CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))}


def stated(number):
    """Minutes of reading and running that a notebook's first cell states."""
    head = nbformat.read(NOTEBOOKS[number], as_version=4).cells[0].source
    reading = re.search(r"^Reading: about (\d+) minutes", head, re.MULTILINE)
    running = re.search(r"^Measured on \d cores? without a GPU: ([\d.]+) minutes", head, re.MULTILINE)
    return int(reading[1]), float(running[1])


def minutes():
    """By notebook: minutes of reading, running, exercises and pieces."""
    found = {number: [*stated(number), 0, 0] for number in NOTEBOOKS}
    for exercise in EXERCISES.values():
        found[exercise.key[:2]][3 if exercise.is_piece else 2] += exercise.minutes
    return found


def test_the_minutes_are_those_of_notebooks_and_exercises():
    rows = re.findall(r"^\| (\d\d )?\|.*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", SYLLABUS, re.MULTILINE)
    shown = {number.strip(): [float(value) for value in values] for number, *values in rows}
    expected = minutes()
    total = [sum(column) for column in zip(*expected.values(), strict=True)]
    assert shown.pop("") == pytest.approx(total)
    assert shown == expected


@pytest.mark.parametrize(("heading", "parts"), [("One week", 3), ("Three weeks", 4)])
def test_the_minutes_of_a_plan_add_up(heading, parts):
    section = SYLLABUS.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \d \| ([\d, ]+) \|.*\| (\d+) \|$", section, re.MULTILINE)
    assert rows
    by_notebook = minutes()
    for numbers, total in rows:
        spent = sum(sum(by_notebook[number][:parts]) for number in numbers.split(", "))
        assert abs(int(total) - spent) <= 0.5, numbers


def test_what_the_pages_name_exists():
    """Exercises, predictions and questions that the pages mention."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    asked = (FOLDER / "questions.gift").read_text(encoding="utf-8")
    for page, text in texts.items():
        for key in re.findall(r"[Ee]xercises? (\d\d\.\d)", text):
            assert key in EXERCISES, (page, key)
        for key in re.findall(r"\b(\d\d\.p\d)\b", text):
            assert f'predict(\\"{key}\\"' in NOTEBOOKS[key[:2]].read_text(encoding="utf-8"), (page, key)
        for key in re.findall(r"question (\d\d\.n?\d)\b", text):
            assert f"[id:{key}]" in asked, (page, key)


def test_each_notebook_has_its_section_with_all_parts():
    sections = dict(re.findall(r"^## (\d\d) · .*?\n(.*?)(?=^## |\Z)", PAGES, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(NOTEBOOKS)
    for number, text in sections.items():
        parts = dict(re.findall(r"^\*\*(.+?)\.\*\*(.*?)(?=^\*\*|\Z)", text, re.MULTILINE | re.DOTALL))
        assert list(parts) == [
            "Objectives",
            "What learners get wrong",
            "Discussion prompts",
            "The open question",
            "Rubric",
        ]
        assert 3 <= parts["Objectives"].count("\n- ") <= 5, number
        assert parts["Discussion prompts"].count("\n- ") == 2, number
        assert re.findall(r"^\| (\d) \|", parts["Rubric"], re.MULTILINE) == list("4321"), number


def test_the_exercises_that_a_page_blames_have_the_misconception():
    """What learners get wrong is quoted with the exercise whose checker says it."""
    blamed = defaultdict(set)
    for number, text in re.findall(r"^## (\d\d) · .*?\n(.*?)(?=^## |\Z)", PAGES, re.MULTILINE | re.DOTALL):
        wrong = text.split("**What learners get wrong.**")[1].split("**Discussion prompts.**")[0]
        for key in re.findall(r"\b(\d\d\.b?\d)\b", wrong):
            assert EXERCISES[key].misconceptions, key
            blamed[number].add(key)
    assert set(blamed) == set(NOTEBOOKS)
