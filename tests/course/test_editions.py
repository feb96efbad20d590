"""The build edition: stubs for the pieces of a notebook's code, and nothing else is different."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from wanda_course import controls, editions
from wanda_course.exercises import EXERCISES

PIECES = [exercise for exercise in EXERCISES.values() if exercise.is_piece]
SOURCE = '''import torch


def score(weight, norm):  # one line
    """weight [out, in], norm [in] -> [out, in]."""
    return weight.abs() * norm


print(score)'''


def test_a_stub_keeps_signature_and_docstring_and_what_else_is_in_the_cell():
    stub = SOURCE.replace("    return weight.abs() * norm", "    raise NotImplementedError")
    assert editions.with_function(SOURCE, "score") == stub
    mine = "def score(weight, norm):\n    return weight"
    assert editions.with_function(SOURCE, "score", mine) == f"import torch\n\n\n{mine}\n\n\nprint(score)"


def test_a_cell_without_the_function_is_refused():
    with pytest.raises(ValueError, match="defines 0 functions 'norm'"):
        editions.with_function(SOURCE, "norm")


@pytest.mark.parametrize("exercise", PIECES, ids=lambda exercise: exercise.key)
def test_a_piece_is_asked_for_and_checked(exercise):
    name = exercise.solution.__name__
    given = f'def {name}(x):\n    """x -> y."""\n    return x'
    tags = {"tags": [f"build-{exercise.key}"]}
    cells = [new_markdown_cell("Text."), new_code_cell(given, metadata=tags, outputs=[new_output("stream", text="1")])]
    notebook = new_notebook(cells=cells)
    edition = editions.build_edition(notebook)
    nbformat.validate(edition)
    assert notebook.cells[1].outputs  # the notebook itself stays as it is
    text, task, stub, check, helps = edition.cells
    assert text.source == "Text."
    assert exercise.title in task.source
    assert exercise.effort in task.source
    assert stub.source == given.replace("return x", "raise NotImplementedError")
    assert stub.outputs == []
    assert check.source == f'{name} = exercises.build("{exercise.key}", {name})'
    assert f'exercises.hint("{exercise.key}")' in helps.source


@pytest.mark.parametrize("edition", ["read", "build"])
def test_the_command_writes_the_notebooks_asked_for_and_keeps_a_readers_own(edition, tmp_path, capsys):
    editions.main([edition, "03", "--out", str(tmp_path)])
    (written,) = tmp_path.iterdir()
    assert written.name.startswith("03_")
    notebook = nbformat.read(written, as_version=4)
    assert any("exercises.build(" in cell.source for cell in notebook.cells) == (edition == "build")
    assert any(cell.get("outputs") for cell in notebook.cells) == (edition == "read")
    notebook.cells[-1].source = "mine"
    nbformat.write(notebook, written)
    editions.main([edition, "03", "--out", str(tmp_path)])
    assert nbformat.read(written, as_version=4).cells[-1].source == "mine"
    assert "is there already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        editions.main([edition, "77", "--out", str(tmp_path)])
    assert "no notebook 77; there are 00, 01" in capsys.readouterr().err


def test_without_a_reader_a_control_draws_its_starting_values(monkeypatch):
    monkeypatch.setenv(controls.STATIC, "1")
    drawn = []
    controls.explore(lambda layer, token: drawn.append((layer, token)), layer=(range(5), 3), token=("ab", "b"))
    assert drawn == [(3, "b")]


def test_a_reader_gets_sliders(monkeypatch):
    monkeypatch.delenv(controls.STATIC, raising=False)
    shown = []
    monkeypatch.setattr(controls.ipywidgets, "interact", lambda draw, **sliders: shown.append(sliders))
    controls.explore(print, layer=(range(5), 3))
    (sliders,) = shown
    assert sliders["layer"].options == (0, 1, 2, 3, 4)
    assert sliders["layer"].value == 3
