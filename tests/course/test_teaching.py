"""The teaching pages say what the notebooks and the exercises say."""

import re
from collections import defaultdict

from wanda.sources.download import CHECKOUT
from wanda_course import syllabus
from wanda_course.exercises import EXERCISES

FOLDER = CHECKOUT / "docs" / "teaching"
SYLLABUS = (FOLDER / "syllabus.md").read_text(encoding="utf-8")
PAGES = (FOLDER / "notebooks.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.stem[:2]: path for path in sorted((CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))}


def test_the_minutes_of_the_syllabus_are_those_of_notebooks_and_exercises():
    assert syllabus.filled(SYLLABUS) == SYLLABUS, "run python -m wanda_course.syllabus"
    known = syllabus.minutes()
    assert list(known) == list(NOTEBOOKS)
    spent = sum(known["00"][:3]) + sum(known["01"][:3])
    assert f"| 1 | 00, 01 | predictions aloud; exercises 01.2 and 01.3 | {spent:.0f} |" in SYLLABUS
    wrong = SYLLABUS.replace(f" {spent:.0f} |", " 1 |")
    assert syllabus.filled(wrong) == SYLLABUS
    assert len(syllabus.ROW.findall(SYLLABUS)) == len(NOTEBOOKS)
    assert len(syllabus.PLAN.findall(SYLLABUS)) == 14


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
