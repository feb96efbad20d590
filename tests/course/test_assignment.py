"""The student and the solution edition: every exercise is asked for, can be answered, and earns its points."""

import functools
import inspect
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from wanda_course import editions, exercises
from wanda_course.editions.assignment import solution, student, tasks
from wanda_course.exercises import EXERCISES

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))
STUB = 'def pair_costs(row, inputs):\n    """-> Tensor [in, in]."""\n    raise NotImplementedError'
CHECK = 'exercises.check("03.1", pair_costs)'
HINT = '# exercises.hint("03.1")'
MORE = f"if {CHECK}:\n    print(measured)"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
both_flavours = pytest.mark.parametrize("build", [False, True], ids=["read", "build"])


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def roles(notebook):
    """The nbgrader metadata of a notebook's cells, by grade_id."""
    found = [cell.metadata["nbgrader"] for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert len({role["grade_id"] for role in found}) == len(found)
    return {role["grade_id"]: role for role in found}


@pytest.mark.parametrize("cells", [[STUB, CHECK, HINT], [f"{STUB}\n\n\n{CHECK}\n{HINT}"]], ids=["three", "one"])
def test_answer_check_and_hints_have_cells_of_their_own(cells):
    notebook = new_notebook(cells=[new_code_cell(cell, outputs=[new_output("stream", text="1")]) for cell in cells])
    edition = student(notebook)
    assert notebook.cells[0].outputs  # the notebook itself stays as it is
    assert sources(edition) == [STUB, CHECK, HINT]
    assert [cell.outputs for cell in edition.cells] == [[], [], []]
    role = {"schema_version": 3, "grade": False, "solution": True, "locked": False, "task": False}
    assert roles(edition) == {"answer-03-1": {**role, "grade_id": "answer-03-1"}}

    answer, check, hint = solution(notebook).cells
    head, mark, *body, end = answer.source.splitlines()[1:]
    assert (head, mark, end) == ('    """-> Tensor [in, in]."""', "    ### BEGIN SOLUTION", "    ### END SOLUTION")
    assert "\n".join(body) in inspect.getsource(EXERCISES["03.1"].solution)
    assert check.source == 'exercises.grade("03.1", pair_costs)  # 2 points'
    role |= {"grade": True, "solution": False, "locked": True, "points": 2, "grade_id": "check-03-1"}
    assert check.metadata["nbgrader"] == role
    assert hint.source == HINT


def test_a_check_that_goes_on_with_results_stays_below_the_graded_one():
    notebook = new_notebook(cells=[new_code_cell(STUB), new_code_cell(f"{MORE}\n{HINT}")])
    assert sources(student(notebook)) == [STUB, MORE, HINT]
    assert sources(solution(notebook))[1:] == ['exercises.grade("03.1", pair_costs)  # 2 points', MORE, HINT]


def test_other_functions_that_are_checked_are_no_exercises():
    shown = f"def pair_costs(row, inputs):\n    return row\n\n\n{CHECK}"
    assert roles(solution(new_notebook(cells=[new_code_cell(shown)]))) == {}


def test_exercises_that_are_not_chosen_are_practice():
    notebook = read(NOTEBOOKS[3])
    edition = solution(notebook, graded=["03.2"])
    assert [role["grade_id"] for role in roles(edition).values() if role["grade"]] == ["check-03-2"]
    assert CHECK in sources(edition)
    assert set(roles(student(notebook, graded=["03.2"]))) == {
        "practice-03-1",
        "answer-03-2",
        "practice-03-3",
        "practice-03-4",
        "practice-03-5",
    }


@both_flavours
@every_notebook
def test_every_exercise_is_asked_for_once_and_has_its_points(path, build):
    expected = [e for key, e in EXERCISES.items() if key[:2] == path.stem[:2] and (build or not e.is_piece)]
    edition = student(read(path), build=build)
    nbformat.validate(edition)
    assert sorted(task.exercise.key for task in tasks(edition)) == sorted(exercise.key for exercise in expected)
    assert not [cell for cell in edition.cells if cell.get("outputs")]
    assert "BEGIN SOLUTION" not in "".join(sources(edition))
    edition = solution(read(path), build=build)
    nbformat.validate(edition)
    points = {name: role["points"] for name, role in roles(edition).items() if role["grade"]}
    assert points == {f"check-{e.key.replace('.', '-')}": e.importance for e in expected}
    assert edition == solution(read(path), build=build)  # cell ids included


@both_flavours
@every_notebook
def test_the_short_form_solved_runs_and_is_right(path, build, capsys):
    edition = solution(read(path), build=build, short=True)
    namespace = {}
    for cell in edition.cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:  # those two lines do nothing where it is installed
            exec(cell.source, namespace)
    said = capsys.readouterr().out
    keys = [role.removeprefix("answer-").replace("-", ".") for role in roles(edition) if role.startswith("answer-")]
    assert keys
    assert [key for key in keys if f"✔ {key} " not in said] == []
    assert {"NotImplementedError", "claim(", "wanda.load("} & set("\n".join(sources(edition)).split()) == set()


def test_the_short_form_leaves_out_what_the_exercises_do_not_need():
    setup = new_code_cell("from wanda_course import environment, exercises\n\nenvironment.prepare()")
    other = "import functools\n\n\n@functools.cache\ndef other(row):\n    return row"
    needed = "def helper(row):\n    return other(row)"
    cells = [
        setup,
        new_markdown_cell("An experiment."),
        new_code_cell(f"{other}\n\n\nprint(1)"),
        new_code_cell(f"{needed}\n\n\ndef unneeded():\n    pass"),
        new_markdown_cell("What we saw.\n\n### Exercise 03.1 · What a pair costs"),
        new_code_cell(STUB.replace("    raise", "    helper(row)\n    raise")),
        new_code_cell(f"{MORE}\n{HINT}"),
        new_code_cell("%matplotlib inline"),
        new_markdown_cell("The end."),
    ]
    edition = student(new_notebook(cells=cells), short=True)
    assert sources(edition)[:4] == [
        setup.source,
        other,
        needed,
        "### Exercise 03.1 · What a pair costs",
    ]
    assert sources(edition)[5:] == [CHECK, HINT]


def test_grade_raises_unless_the_answer_is_right_and_keeps_stderr_clean(capsys):
    def loud(row, inputs):
        print("loud", file=sys.stderr)
        return EXERCISES["03.1"].solution(row, inputs)

    def stub(row, inputs):
        raise NotImplementedError

    exercises.grade("03.1", loud)
    said = capsys.readouterr()
    assert "✔ 03.1 " in said.out
    assert said.err == ""
    with pytest.raises(AssertionError, match=r"03\.1: wrong"):
        exercises.grade("03.1", lambda row, inputs: row)
    with pytest.raises(AssertionError, match=r"03\.1: not attempted"):
        exercises.grade("03.1", stub)


def test_with_a_secret_answers_learnt_by_heart_are_wrong(monkeypatch):
    exercise = EXERCISES["03.1"]
    known = exercise.draw()

    def by_heart(*case):
        is_known = any(all(map(torch.equal, case, other)) for other in known)
        return exercise.solution(*case) if is_known else case[0]

    monkeypatch.delenv("WANDA_SECRET", raising=False)
    exercises.grade("03.1", by_heart)
    monkeypatch.setenv("WANDA_SECRET", "of this term")
    exercises.grade("03.1", exercise.solution)
    with pytest.raises(AssertionError, match=r"03\.1: wrong"):
        exercises.grade("03.1", by_heart)


def test_the_command_writes_the_chosen_points(tmp_path, capsys):
    editions.main(["solution", "03", "--build", "--short", "--exercises", "03.1", "03.b1", "--out", str(tmp_path)])
    (written,) = tmp_path.iterdir()
    graded = [name for name, role in roles(nbformat.read(written, as_version=4)).items() if role["grade"]]
    assert graded == ["check-03-b1", "check-03-1"]
    for wrong, message in (
        (["solution", "03", "--exercises", "03.b1"], "no exercise 03.b1; there are 03.1"),
        (["solution", "03", "--exercises", "04.1"], "no exercise 04.1; there are 03.1"),
        (["read", "03", "--short"], "the edition 'read' takes no --build"),
    ):
        with pytest.raises(SystemExit):
            editions.main([*wrong, "--out", str(tmp_path)])
        assert message in capsys.readouterr().err
