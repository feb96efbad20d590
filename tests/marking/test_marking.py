"""A class is marked: right answers, misconceptions, stubs, and notebooks that somebody has tampered with."""

import os
import shutil
import tempfile

import made_up
import nbformat
import pandas
import psutil
import pytest
from nbformat.v4 import new_code_cell

from wanda_course.exercises import EXERCISES
from wanda_course.exercises.checker import outcomes
from wanda_course.exercises.running import Outcome, unchanged
from wanda_course.exercises.values import same
from wanda_course.marking import cli, reports, submissions
from wanda_course.marking.grading import Examiner, Mark, mark

ALL, FEW = sorted(made_up.NOTEBOOKS), ["02", "12"]


def tampered(number, change, **answers):
    """A notebook of right answers, with some replaced, then changed."""
    right = {key: made_up.right(key) for key in made_up.keys(number)}
    notebook = made_up.submission(number, right | {key.replace("_", "."): code for key, code in answers.items()})
    change(notebook)
    return notebook


def renamed(notebook):
    """The function of 02.1 has another name, in its cell and its check."""
    for cell in notebook.cells:
        cell.source = cell.source.replace("zeros_per_output", "my_zeros")


def hostile(notebook):
    """The first and the last cell raise, and one replaces the checker and prints a verdict."""
    fake = "exercises.check = lambda *_: True\nprint('✔ 02.2 right on all 6 cases')"
    for place in (0, 40, len(notebook.cells)):
        notebook.cells.insert(place, new_code_cell("1 / 0\nimport os\nos._exit(0)"))
    notebook.cells.append(new_code_cell(fake))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A class in a folder, marked: (the folder of what was written, what is true of each answer)."""
    folder = tmp_path_factory.mktemp("class")
    submitted, out = folder / "submitted", folder / "marks"
    truth = made_up.make_class(submitted, 2, FEW, seed=3)
    for number in ALL:
        notebook = tampered(number, lambda notebook: None)
        nbformat.write(notebook, submitted / f"ada_{number}.ipynb")
        truth |= {("ada", key): "right" for key in made_up.keys(number)}
    exits = "def output_error(weight, inputs, mask):\n    import os\n    os._exit(0)"
    mallory = submitted / "mallory" / "course"
    mallory.mkdir(parents=True)
    nbformat.write(tampered("02", hostile, **{"02_3": exits}), mallory / "02_magnitude_pruning.ipynb")
    (mallory / "12_after_wanda.ipynb").write_text('{"cells": [', encoding="utf-8")
    (submitted / "renée").mkdir()
    nbformat.write(tampered("02", renamed), submitted / "renée" / "02_mine.ipynb")
    shutil.copy(made_up.NOTEBOOKS["12"], submitted / "renée" / "12_after_wanda.ipynb")  # as committed, no build edition
    children = psutil.Process().children(recursive=True)
    (folder / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        cli.main([str(submitted), "--seed", "secret", "--out", str(out), "--jobs", "1", "--limit", "60", "--build"])
    assert not list((folder / "temporary").iterdir())
    assert psutil.Process().children(recursive=True) == children
    return out, truth


@pytest.fixture(scope="module")
def sheet(marked):
    return pandas.read_csv(marked[0] / "scores.csv", index_col="student")


def test_each_answer_scores_what_it_earns(marked, sheet):
    assert list(sheet.columns) == [*EXERCISES, "total"]
    for (student, key), kind in marked[1].items():
        assert sheet.loc[student, key] == (EXERCISES[key].points if kind == "right" else 0), (student, key, kind)
    assert sheet.loc["ada", "total"] == sum(exercise.points for exercise in EXERCISES.values())


def test_a_hostile_cell_harms_only_its_own_answer(sheet):
    lost = [key for key in made_up.keys("02") if sheet.loc["mallory", key] == 0]
    assert lost == ["02.3"]
    assert sheet.loc["renée", made_up.keys("02")].all()  # a renamed function that the notebook checks is found


def test_the_feedback_names_status_points_cases_and_idea_and_no_solution(marked):
    out, truth = marked
    for student in ("student01", "student02"):
        text = (out / "feedback" / f"{student}.md").read_text(encoding="utf-8")
        words = " ".join(text.split())
        for key in made_up.keys("02") + made_up.keys("12"):
            kind = truth[student, key]
            status = kind if kind in ("right", "not attempted") else "wrong"
            assert (
                f"| {status} | {EXERCISES[key].points if kind == 'right' else 0} of {EXERCISES[key].points} |" in text
            )
            if status == "wrong":
                assert " ".join(kind.split()) in words
            assert made_up.right(key).splitlines()[-1].strip() not in text
    assert "| 01.1 | how far the peak stands out | missing | 0 of 2 | 0 of " in text
    assert "the notebook was not handed in" in words


def test_what_went_wrong_with_a_notebook_is_told(marked):
    text = (marked[0] / "feedback" / "mallory.md").read_text(encoding="utf-8")
    assert "    it gave no readable result" in text
    assert "    no cell defines `best_mask`" in text
    summary = (marked[0] / "summary.md").read_text(encoding="utf-8")
    assert "12\\_after\\_wanda.ipynb: the notebook cannot be read" in summary
    assert "not the build edition" in (marked[0] / "feedback" / "renée.md").read_text(encoding="utf-8")


def test_the_summary_counts_who_is_right_and_which_ideas_there_were(marked):
    out, truth = marked
    text = (out / "summary.md").read_text(encoding="utf-8")
    assert text.startswith("# The class\n\n5 students; mean ")
    right = sum(kind == "right" for (_, key), kind in truth.items() if key == "02.b1") + 2  # of mallory and renée
    assert f"| 02.b1 | the smallest of each row | {right / 5:.0%} | {right} |" in text
    ideas = [(key, kind) for (_, key), kind in truth.items() if kind not in ("right", "not attempted")]
    told = text.partition("## Misconceptions")[2].strip().splitlines()[4:]
    assert len(told) == len(set(ideas))
    counts = [int(line.split("|")[1]) for line in told]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == len(ideas)


def test_the_summary_names_the_misconception_that_an_answer_shares_in_part():
    """Eve's answer is wrong like Bob's on the first case that tells, and right on those after it."""
    examiner = Examiner("s")
    idea = EXERCISES["02.1"].misconceptions[0]
    cases, _ = examiner.cases("02.1")
    wrong, right = (outcomes(function, cases) for function in (idea.function, EXERCISES["02.1"].solution))
    first = next(place for place, pair in enumerate(zip(wrong, right, strict=True)) if not same(*pair, 0))
    partly = [*wrong[: first + 1], *right[first + 1 :]]
    marks = [Mark(name, "02.1", examiner.verdict("02.1", got)) for name, got in (("eve", partly), ("bob", wrong))]
    assert [(m.verdict.misconception, m.verdict.nearest) for m in marks] == [("", idea.diagnosis), (idea.diagnosis, "")]
    assert f"| 2 | 1 | 02.1 | {reports._inline(idea.diagnosis)} |" in reports.summary(marks, [], [])


def test_a_page_is_written_for_each_student_and_shows_no_markup_of_theirs(marked):
    page = (marked[0] / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<td>02.b1</td>" in page
    evil = "<script>alert(1)</script> | `x` **y**\n</code></pre><b>"
    examiner = Examiner("s")
    outcomes = [Outcome(error="ValueError", message=evil)] * len(examiner.cases("02.1")[0])
    verdict = examiner.verdict("02.1", outcomes)
    html = reports._markdown(reports.feedback([Mark("<b>Eve", "02.1", verdict)]))
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html


def test_the_cases_depend_on_the_secret_and_begin_with_the_notebooks_own():
    one, again, other = (Examiner(secret).cases("02.3")[0] for secret in ("a", "a", "b"))
    own = len(EXERCISES["02.3"].draw())
    assert len(one) == len(other) == 2 * own
    assert unchanged(one, again)
    assert unchanged(one[:own], other[:own])
    assert not unchanged(one[own:], other[own:])


def test_both_layouts_are_found_the_newest_counts_and_nothing_else(tmp_path):
    for name in (
        "a/x/05_one.ipynb",
        "a/y/05_two.ipynb",
        "b_c_05.ipynb",
        "d_06_b.ipynb",
        "a/notes.ipynb",
        "a/77_x.ipynb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a/.ipynb_checkpoints").mkdir()
    (tmp_path / "a/.ipynb_checkpoints/06_x.ipynb").write_text("")

    os.utime(tmp_path / "a/x/05_one.ipynb", (2e9, 2e9))
    found = [(one.student, one.number, one.path.name) for one in submissions.find(tmp_path)]
    assert found == [("a", "05", "05_one.ipynb"), ("b_c", "05", "b_c_05.ipynb"), ("d", "06", "d_06_b.ipynb")]


def test_what_cannot_be_marked_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main([str(tmp_path), "--seed", "s"])
    assert "no notebooks in" in capsys.readouterr().err
    (tmp_path / "a_02.ipynb").write_text("")
    with pytest.raises(SystemExit):
        cli.main([str(tmp_path), "--seed", "s", "--exercises", "02.1", "02.77"])
    assert "there is no exercise 02.77" in capsys.readouterr().err


def test_one_students_build_edition_does_not_change_what_counts(tmp_path):
    nbformat.write(tampered("00", lambda notebook: None), tmp_path / "ada_00.ipynb")
    shutil.copy(made_up.NOTEBOOKS["00"], tmp_path / "eve_00.ipynb")
    exercises, everything = (
        [one.key for one in mark(submissions.find(tmp_path), "secret", build=build)[0] if one.student == "eve"]
        for build in (False, True)
    )
    assert exercises == [key for key in everything if not EXERCISES[key].is_piece]
    assert set(everything) - set(exercises) == {"00.b1"}


def test_only_the_exercises_asked_for_count(tmp_path):
    (tmp_path / "eve_02.ipynb").write_text("")
    marks, problems = mark(submissions.find(tmp_path), "secret", ["02.1", "12.1"])
    assert [(one.key, one.verdict.status, one.points) for one in marks] == [
        ("02.1", "missing", 0),
        ("12.1", "missing", 0),
    ]
    assert len(problems) == 1
