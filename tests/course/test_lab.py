"""The lab: its points, its bar, what students get, and that every cell of its solution runs."""

import json
import re

import nbformat
import pytest

from wanda.sources.download import CHECKOUT
from wanda_course import judging, lab

PAGE = (CHECKOUT / "docs" / "teaching" / "lab.md").read_text(encoding="utf-8")
SMALL = "model_name, samples, length, windows, window = {!r}, 2, 32, 3, 32"


def questions(notebook):
    return [cell.source for cell in notebook.cells if re.match(r"## \d", cell.source)]


def test_nine_questions_make_100_points_in_notebook_and_page():
    found = []
    for number, text in enumerate(questions(lab.notebook(solved=False)), start=1):
        head, points = re.match(r"## (\d) · .*?\((\d+) points", text).groups()
        assert int(head) == number
        found.append(int(points))
        parts = [int(part) for part in re.findall(r"\((\d+)\)", text)]
        assert sum(parts) == found[-1] or number == 8  # the bar is all or nothing
    assert len(found) == 9
    assert sum(found) == 100
    assert [int(points) for points in re.findall(r"^\| \d \|.*\| (\d+) \|$", PAGE, re.MULTILINE)] == found


def test_the_bar_lies_between_the_best_of_wanda_and_the_worst_of_admm():
    (bar,) = {float(found) for found in re.findall(r"\*\*(\d\.\d+) times\*\*", PAGE)}
    assert f"**{bar} times**" in lab.notebook(solved=False).cells[0].source
    cells = json.loads((CHECKOUT / "results" / "quality.json").read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["text"] == "wikipedia"]
    (dense,) = (cell["perplexity"] for cell in cells if cell["method"] == "dense")
    half = [cell for cell in cells if cell["sparsity"] == 0.5 and cell["group"] in ("output", None)]
    ratios = {}
    for method in ("wanda", "sparsegpt", "admm"):
        found = [cell["perplexity"] for cell in half if cell["method"] == method]
        assert f"| {', '.join(f'{value:.2f}' for value in found)} |" in PAGE
        ratios[method] = [value / dense for value in found]
    assert f"perplexity of {dense:.2f}." in PAGE
    assert max(ratios["admm"]) < bar < min(ratios["wanda"] + ratios["sparsegpt"])
    assert judged("ADMM") < bar < judged("Wanda")


def judged(name):
    """The ratio that counts for the bar: mean perplexity on the held-out text over the dense one."""
    entry = judging.recorded("smollm2-50-update", name)
    values = entry["perplexity"]["held_out"]
    return sum(values) / len(values) / entry["dense"]["held_out"]


def test_students_get_stubs_and_no_solution():
    student, solution = (lab.notebook(solved=solved) for solved in (False, True))
    for notebook in (student, solution):
        nbformat.validate(notebook)
    assert len(student.cells) == len(solution.cells)
    text = "\n".join(cell.source for cell in student.cells)
    assert "SOLUTION" not in text
    assert text.count("raise NotImplementedError") == 8
    assert text.count("*Your written answer:*") == 9
    solved = "\n".join(cell.source for cell in solution.cells)
    assert "NotImplementedError" not in solved
    assert "BEGIN SOLUTION" not in solved
    for kind, source in lab.cells():
        if kind == "[markdown] solution":
            sentence = re.sub(r"^# ?", "", source.splitlines()[0])
            assert sentence in solved
            assert sentence not in text


def run(notebook, model):
    """Run the code cells, with small parameters, in one namespace."""
    names = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            source = SMALL.format(str(model)) if cell.metadata.get("tags") == ["parameters"] else cell.source
            exec(source, names)
    return names


@pytest.mark.long
def test_every_code_cell_of_the_solution_runs(four_blocks):
    names = run(lab.notebook(solved=True), four_blocks)
    assert set(names["prices"]) == set(names["KINDS"])
    assert names["uneven_report"].sparsity == pytest.approx(0.5, abs=0.01)  # rounding in rows of 64
    assert names["zeros"] == pytest.approx(0.5, abs=1e-3)


def test_the_first_unanswered_question_stops_a_students_run(four_blocks):
    with pytest.raises(NotImplementedError):
        run(lab.notebook(solved=False), four_blocks)


def test_the_command_writes_either(tmp_path, capsys):
    for edition in ("student", "solution"):
        lab.main([edition, "--out", str(tmp_path / f"{edition}.ipynb")])
        written = nbformat.read(tmp_path / f"{edition}.ipynb", as_version=4)
        assert [cell.source for cell in written.cells] == [
            cell.source for cell in lab.notebook(edition == "solution").cells
        ]
    assert "student.ipynb" in capsys.readouterr().out
