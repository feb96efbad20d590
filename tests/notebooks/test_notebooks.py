"""The notebooks run, reproduce their committed outputs, and have the anatomy that readers rely on.

Every check of `anatomy.py` is also run on a notebook that is broken in exactly that way.
"""

import ast
import base64
import copy
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import anatomy
import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from wanda_course import editions, execute
from wanda_course.editions.assignment import solution
from wanda_course.exercises import checker
from wanda_course.exercises.types import Exercise

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@functools.cache
def read(path):
    """A validated notebook, cached: do not modify it."""
    return nbformat.read(path, as_version=4)


def stem(path):
    return path.stem


QUICKEST = min(NOTEBOOKS, key=lambda path: anatomy.core_minutes(read(path)) or float("inf"))  # by their headers
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)


def test_there_are_notebooks():
    assert {f"{number:02}" for number in range(14)} <= {path.stem[:2] for path in NOTEBOOKS}
    assert len({path.stem[:2] for path in NOTEBOOKS}) == len(NOTEBOOKS)


def test_what_a_notebook_installs_has_the_minimum_of_the_package():
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked = re.findall(
        r'%pip install -q \\"([a-z-]+>=[^"\\]+)', "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    )
    assert len(asked) >= 2
    assert [package for package in asked if f'"{package}"' not in declared] == []


# Running ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=stem(path), marks=() if path == QUICKEST else pytest.mark.slow) for path in NOTEBOOKS],
)
@pytest.mark.long
def test_its_committed_outputs_are_what_it_computes(path):
    run = compare_outputs(path)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]


def compare_outputs(*notebooks):
    """Execute notebooks and compare their outputs with the committed ones."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-v"]
    command += ["--nbval-sanitize-with", str(Path(__file__).with_name("nbval.cfg"))]
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search}
    return subprocess.run([*command, *notebooks], cwd=ROOT, env=environment, capture_output=True, text=True)


EDITIONS = {
    "build": editions.build_edition,  # untouched: each check says so, and the notebook goes on with the reference
    "solution": functools.partial(solution, build=True),
    "read": lambda notebook: notebook,
}


@pytest.mark.parametrize(
    "edition", [pytest.param(name, marks=() if name == "build" else pytest.mark.slow) for name in EDITIONS]
)
@every_notebook
@pytest.mark.long
def test_it_runs_to_the_end_under_the_ci_profile(path, edition, tmp_path, four_blocks):
    """On a random model of four blocks, with temporary output folders."""
    source, out = tmp_path / path.name, tmp_path / "out" / path.name
    nbformat.write(EDITIONS[edition](nbformat.read(path, as_version=4)), source)
    names = papermill.inspect_notebook(str(path))
    models = {name: str(four_blocks) for name in names if name in ("model_name", "walk_model")}
    folders = {name: str(tmp_path / name) for name in names if name.endswith("_folder")}
    execute.execute(source, out, profile="ci", **models, **folders)
    notebook = read(out)
    assert not list(anatomy.executed_in_order(notebook))
    assert not [text for text in anatomy.no_errors(notebook) if "ended in" in text]
    injected = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1, f"notebooks/profiles/ci.yaml has nothing for {path.stem}"
    said = "\n".join(str(output.get("text", "")) for _, output in anatomy.outputs(notebook))
    keys = [key for key in checker.EXERCISES if key.startswith(path.stem[:2])]
    expected = {"build": [f"{piece.key} not attempted yet" for piece in pieces(path)], "read": []}
    expected["solution"] = [f"✔ {key} " for key in keys]
    assert [text for text in expected[edition] if text not in said] == []


def pieces(path):
    """The exercises that are pieces of a notebook's own code."""
    return [e for key, e in checker.EXERCISES.items() if key.partition(".")[0] == path.stem[:2] and e.is_piece]


@every_notebook
def test_its_own_pieces_are_right_by_their_checkers(path):
    sources = [cell.source for cell in anatomy.code_cells(read(path)) if "%pip" not in cell.source]
    nodes = [node for source in sources for node in ast.parse(source).body]
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    needed = [piece.solution.__name__ for piece in pieces(path)]
    for name in needed:  # and what they call
        called = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        needed += sorted((called & functions.keys()) - set(needed))
    namespace = {}
    for node in [*imports, *map(functions.get, needed)]:
        exec(ast.unparse(node), namespace)
    for piece in pieces(path):
        verdict = checker.check(piece.key, namespace[piece.solution.__name__])
        assert verdict, verdict.text


def test_a_misspelt_parameter_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no parameter evaluation_window; it has .*evaluation_windows"):
        execute.execute(NOTEBOOKS[-1], tmp_path / "out.ipynb", profile="ci", evaluation_window=1)
    assert not (tmp_path / "out.ipynb").exists()


def test_parameters_of_the_command_line_keep_the_notebooks_types():
    (benchmark,) = (ROOT / "notebooks").glob("06_*.ipynb")
    given = execute.given(["patterns=2:4", "evaluation_source=2024", "seed=3"], benchmark)
    assert given == {"patterns": "2:4", "evaluation_source": "2024", "seed": 3}
    with pytest.raises(ValueError, match="NAME=VALUE; got 'patterns'"):
        execute.given(["patterns"], benchmark)


@pytest.mark.parametrize("profile", ["cj", ""])
def test_an_unknown_profile_is_refused(profile, tmp_path):
    with pytest.raises(ValueError, match=r"no profile .*; the profiles are .*ci.*cpu"):
        execute.execute(NOTEBOOKS[0], tmp_path / "out.ipynb", profile=profile)


def test_every_profile_names_existing_notebooks_and_parameters():
    by_name = {path.stem: path for path in NOTEBOOKS}
    for profile in (ROOT / "notebooks" / "profiles").glob("*.yaml"):
        chosen = execute.yaml.safe_load(profile.read_text(encoding="utf-8")) or {}
        assert set(chosen) <= set(by_name), profile.name
        for name in chosen:
            execute.parameters(by_name[name], profile.stem)


# Anatomy ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", anatomy.CHECKS, ids=lambda check: check.__name__)
@every_notebook
def test_anatomy(path, check):
    assert list(check(read(path))) == []


@every_notebook
def test_the_first_cell_has_all_its_parts(path):
    place = NOTEBOOKS.index(path)
    before = NOTEBOOKS[place - 1].stem if place > 0 else None
    after = NOTEBOOKS[place + 1].stem if place + 1 < len(NOTEBOOKS) else None
    assert list(anatomy.first_cell(read(path), path.stem, before, after)) == []


@every_notebook
def test_links_lead_somewhere(path):
    assert list(anatomy.links_resolve(read(path), path.parent)) == []


@every_notebook
def test_the_file_is_small(path):
    assert list(anatomy.small(path.stat().st_size)) == []


@every_notebook
def test_its_exercises_are_offered_untouched(path):
    own = [exercise for key, exercise in checker.EXERCISES.items() if key.partition(".")[0] == path.stem[:2]]
    assert own, "no exercise set for this notebook"
    assert list(anatomy.exercises_offered(read(path), [exercise for exercise in own if not exercise.is_piece])) == []
    assert list(anatomy.pieces_given(read(path), [exercise for exercise in own if exercise.is_piece])) == []


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem[:2] in ("00", "01", "02", "03")], ids=stem)
def test_the_first_four_are_for_a_laptop(path):
    notebook = read(path)
    _, _, memory, _ = anatomy.measured(notebook)
    assert anatomy.core_minutes(notebook) < 5 * 2  # five minutes on two cores
    assert memory < 4


def test_the_bootstrap_cell_is_the_same_in_all():
    assert len({anatomy.bootstrap(read(path)) for path in NOTEBOOKS}) == 1


# The checks can fail ----------------------------------------------------------------------------------------------------

PIXEL = base64.b64encode(b"\x89PNG no real picture").decode()
ALT = "A line plot of something against something else."
HEADER = f"""# 42 · A title

*A promise.*

[![Open in Colab]({anatomy.BADGE})](https://colab.research.google.com/github/o/r/blob/main/notebooks/42_name.ipynb)

**You will** learn. **You need** little.

Reading: about 10 minutes, exercises not counted.

<!-- measured -->
Measured on 2 cores without a GPU: 1.3 minutes, 2.1 GiB of memory; 121 MB fetched once.

← [before](41_before.ipynb) · [after](43_after.ipynb) →
"""
ANSWER = "<details><summary>Answer</summary>\n\nBecause.\n\n</details>"
LAST = f"## Takeaways\n\n**Ask yourself**\n\n1. Why?\n\n{ANSWER}\n\n**Discuss.** {'What if? ' * 10}\n\n**References.** Somebody (arXiv 2306.11695).\n"
LAST += "A word more. " * 20


def picture(alt=ALT):
    text = "" if alt is None else f'alt="{alt}" '
    return new_output("display_data", data={"text/html": f'<img {text}src="data:image/png;base64,{PIXEL}">'})


FOLDED = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}, "cellView": "form"}
EFFORT = {"difficulty": 1, "importance": 2, "minutes": 5}
TOY = Exercise("42.1", "a toy", lambda x: x, lambda g: [(1,), (2,)], hints=("a", "b"), **EFFORT)


def triple(numbers):
    return 3 * numbers


PIECE = Exercise("42.b1", "three times", triple, lambda g: [(1,), (2,)], hints=("a", "b"), **EFFORT)


def sound():
    """A small notebook that passes every check."""
    cells = [
        new_markdown_cell(HEADER),
        new_code_cell('from importlib.util import find_spec\n\nif find_spec("wanda_course") is None:\n    install()'),
        new_code_cell("seed = 0  # @param {}", metadata={"tags": ["parameters"]}),
        new_code_cell(
            'environment.prepare()\nclaim = claims.under("42", globals())\npredict = predictions.under("42")',
            metadata={"tags": ["nbval-ignore-output"]},
        ),
        new_code_cell("plots.show(draw())", outputs=[picture()], metadata=copy.deepcopy(FOLDED)),
        new_markdown_cell(
            "**What you should see.** Read [this](https://example.org/home/page), [that](there.txt) and [below](#takeaways)."
        ),
        new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text="1\n")]),
        new_code_cell("claim.summary()\npredict.summary()", outputs=stream("stdout", "all 3 claims as in the text\n")),
        new_markdown_cell(LAST),
        new_markdown_cell(
            "**Predict** the next number. **Another protocol.** For the sake of time.\n\n"
            f"### Exercise 42.1 · A toy\n\n{TOY.effort}\n\nWrite it."
        ),
        new_code_cell(
            'predict("42.p1", ...)\npredict.compare("42.p1", 2)\n'
            "protocol.show(one)\nclaim('42.1', 1)\nclaim('42.2', 2)\nclaim('42.3', 3)",
            outputs=stream("stdout", "Not the course's protocol: compare within this notebook only.\n"),
        ),
        new_code_cell(
            'exercises.check("42.1", answer)',
            outputs=[new_output("stream", name="stdout", text="42.1 not attempted yet\n")],
        ),
        new_code_cell('# exercises.hint("42.1")\n# exercises.solution("42.1")'),
        new_code_cell('def triple(numbers):\n    """A number -> a number."""\n    return 3 * numbers'),
    ]
    cells[-1].metadata["tags"] = ["build-42.b1"]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(cells=cells)


def problems(notebook, folder):
    """The complaints of all checks about a notebook, with the check's name before each."""
    found = [(check.__name__, text) for check in anatomy.CHECKS for text in check(notebook)]
    found += [("first_cell", text) for text in anatomy.first_cell(notebook, "42_name", "41_before", "43_after")]
    found += [("exercises_offered", text) for text in anatomy.exercises_offered(notebook, [TOY])]
    found += [("pieces_given", text) for text in anatomy.pieces_given(notebook, [PIECE])]
    return found + [("links_resolve", text) for text in anatomy.links_resolve(notebook, folder)]


@pytest.fixture
def folder(tmp_path):
    for name in ("41_before.ipynb", "43_after.ipynb", "there.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_sound_notebook_passes_every_check(folder):
    nbformat.validate(sound())
    assert problems(sound(), folder) == []


def change(cell, **fields):
    """Break a notebook: give a cell other fields."""
    return lambda notebook: notebook.cells[cell].update(fields)


def replace(cell, old, new=""):
    """Break a notebook: replace text in a cell's source."""

    def breaking(notebook):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return breaking


def tag(cell, *tags):
    return lambda notebook: notebook.cells[cell].metadata.update(tags=list(tags))


def stream(name, text):
    return [new_output("stream", name=name, text=text)]


def error():
    return [new_output("error", ename="KeyError", evalue="'x'", traceback=["no"])]


BROKEN = {
    "not run": ("executed_in_order", change(6, execution_count=None)),
    "run twice": ("executed_in_order", change(6, execution_count=7)),
    "run in another order": (
        "executed_in_order",
        lambda n: (change(4, execution_count=5)(n), change(6, execution_count=4)(n)),
    ),
    "an error": ("no_errors", change(6, outputs=error())),
    "a warning": ("no_errors", change(6, outputs=stream("stderr", "UserWarning: beware"))),
    "no alt text": ("alt_text", change(4, outputs=[picture(None)])),
    "an alt text that says nothing": ("alt_text", change(4, outputs=[picture("A plot.")])),
    "an alt text of blanks": ("alt_text", change(4, outputs=[picture(" " * 40)])),
    "one picture of two without": ("alt_text", change(4, outputs=[picture(), picture("")])),
    "a picture in the text without": ("alt_text", replace(5, "Read", "![](there.txt) Read")),
    "no parameters": ("one_parameters_cell", tag(2)),
    "two parameters cells": ("one_parameters_cell", tag(6, "parameters")),
    "a parameter without a form": ("one_parameters_cell", replace(2, "# @param", "#")),
    "a long bootstrap cell": ("short_bootstrap", replace(1, "\n\n", "\n" + "import a\n" * 6)),
    "a bootstrap cell that always installs": ("short_bootstrap", change(1, source="install()")),
    "a bootstrap cell that brings torch": ("short_bootstrap", replace(1, "install()", "%pip install wanda torch")),
    "a bootstrap cell that upgrades": ("short_bootstrap", replace(1, "install()", "%pip install --upgrade wanda")),
    "a bootstrap cell with an extra": ("short_bootstrap", replace(1, "install()", "%pip install wanda-pruning[x]")),
    "a profile's parameters": ("own_parameters", tag(6, "injected-parameters")),
    "a figure and no word on it": ("figures_explained", replace(5, "What you should see", "This is a figure")),
    "two figures and one word": (
        "figures_explained",
        lambda n: n.cells.insert(4, new_code_cell("draw()", execution_count=4, outputs=[picture()])),
    ),
    "no guess": ("predictions", replace(9, "**Predict**", "Compute")),
    "no way to record a guess": ("predictions", replace(3, 'predictions.under("42")', "None")),
    "a guess without a place": ("predictions", replace(10, 'predict("42.p1", ...)\n')),
    "a guess out of order": ("predictions", replace(10, "42.p1", "42.p2")),
    "a guess never compared": ("predictions", replace(10, 'predict.compare("42.p1", 2)\n')),
    "a guess filled in": ("predictions", replace(10, 'predict("42.p1", ...)', 'predict("42.p1", 3)')),
    "an exercise without its effort": ("exercises_offered", replace(9, TOY.effort, "Easy.")),
    "a piece without its tag": ("pieces_given", tag(13)),
    "a piece that nobody knows": ("pieces_given", tag(13, "build-42.b1", "build-42.b2")),
    "a piece of another name": ("pieces_given", replace(13, "triple", "thrice")),
    "a piece without a docstring": ("pieces_given", replace(13, '    """A number -> a number."""\n')),
    "a plot that is not folded": ("folded", change(4, metadata={})),
    "code that is folded": ("folded", change(6, metadata=FOLDED)),
    "wide code": ("narrow_code", change(6, source="x = 1" + " + 1" * 25)),
    "no claim": ("claims_made", replace(10, "claim('42.1', 1)\n", "")),
    "claims of another notebook": ("claims_made", replace(3, '"42"', '"41"')),
    "no summary": ("claims_made", replace(7, "claim.summary()", "pass")),
    "no summary of the guesses": ("claims_made", replace(7, "predict.summary()", "pass")),
    "a claim that differs": ("claims_made", change(10, outputs=stream("stdout", "42.1  differs here: 1"))),
    "claims not compared": ("claims_made", change(7, outputs=stream("stdout", "3 claims not compared: seed"))),
    "no protocol": ("protocol_named", change(10, outputs=[])),
    "another protocol in silence": ("protocol_named", replace(9, "**Another protocol.**", "")),
    "an exercise left out": ("exercises_offered", change(11, source="pass")),
    "an exercise that was done": ("exercises_offered", change(11, outputs=stream("stdout", "✔ 42.1 a title"))),
    "an exercise that nobody knows": ("exercises_offered", replace(11, '"42.1"', '"42.2"')),
    "no hint": ("exercises_offered", replace(12, "hint", "help")),
    "no solution": ("exercises_offered", replace(12, "solution", "answer")),
    "a question without an answer": ("last_parts", replace(8, "1. Why?", "1. Why?\n2. Why not?")),
    "an answer that is not folded": ("last_parts", replace(8, "</details>")),
    "a long cell": ("short_cells", change(6, source="x = 0\n" * 31)),
    "cells long on the whole": (
        "short_cells",
        lambda n: [change(i, source="x\n" * 9)(n) for i in (3, 4, 6, 10, 11, 12)],
    ),
    "much code, little prose": ("more_prose_than_code", change(6, source="word " * 200)),
    "addresses for prose": (
        "more_prose_than_code",
        lambda n: (change(6, source="word\n" * 140)(n), replace(5, "page", "page/" * 90)(n)),
    ),
    "formulas for prose": (
        "more_prose_than_code",
        lambda n: (change(6, source="word\n" * 140)(n), replace(5, "Read", "$" + "x y z " * 60 + "$ Read")(n)),
    ),
    "a path in the code": ("no_machine_paths", replace(6, "print(1)", 'open("/home/ada/text")')),
    "a path in the text": ("no_machine_paths", replace(5, "Read", "Read `/root/notes`,")),
    "a path in a stream": ("no_machine_paths", change(6, outputs=stream("stdout", "saved to /tmp/x/model\n"))),
    "a Windows path": ("no_machine_paths", change(6, outputs=stream("stdout", "saved to C:\\Users\\ada\n"))),
    "a path in a table": (
        "no_machine_paths",
        change(6, outputs=[new_output("display_data", data={"text/html": "<td>/home/ada</td>"})]),
    ),
    "no takeaways": ("last_parts", replace(8, "## Takeaways", "## Summary")),
    "no questions": ("last_parts", replace(8, "**Ask yourself**")),
    "no open question": ("last_parts", replace(8, "**Discuss.**", "**Note.**")),
    "no references": ("last_parts", replace(8, "**References.**")),
    "a machine's name compared": ("portable_outputs", tag(3)),
    "a random id compared": (
        "portable_outputs",
        change(6, outputs=[new_output("display_data", {"text/html": '<table id="T_4d96c">'})]),
    ),
    "a link to nowhere": ("links_resolve", replace(5, "there.txt", "elsewhere.txt")),
    "a link to no heading": ("links_resolve", replace(5, "#takeaways", "#give-aways")),
    "no title": ("first_cell", replace(0, "# 42 · A title", "# A title")),
    "another notebook's title": ("first_cell", replace(0, "# 42", "# 43")),
    "no promise": ("first_cell", replace(0, "*A promise.*", "A promise.")),
    "no badge": ("first_cell", replace(0, anatomy.BADGE, "badge.svg")),
    "another notebook's badge": ("first_cell", replace(0, "notebooks/42_name", "notebooks/41_name")),
    "no objectives": ("first_cell", replace(0, "**You will**")),
    "no prerequisites": ("first_cell", replace(0, "**You need**")),
    "no time to read": ("first_cell", replace(0, "Reading: about", "Reading:")),
    "not measured": ("first_cell", replace(0, "Measured on")),
    "memory not measured": ("first_cell", replace(0, ", 2.1 GiB of memory")),
    "download not measured": ("first_cell", replace(0, "; 121 MB fetched once")),
    "no way back": ("first_cell", replace(0, "(41_before.ipynb)", "(there.txt)")),
    "no way on": ("first_cell", replace(0, "→")),
    "code first": ("first_cell", lambda n: n.cells.insert(0, new_code_cell(""))),
}


@pytest.mark.parametrize(("check", "breaking"), BROKEN.values(), ids=BROKEN)
def test_a_broken_notebook_is_found_by_the_check_for_it(check, breaking, folder):
    notebook = sound()
    breaking(notebook)
    assert check in {name for name, _ in problems(notebook, folder)}


def test_every_check_can_fail():
    assert {check for check, _ in BROKEN.values()} == {
        *(c.__name__ for c in anatomy.CHECKS),
        "first_cell",
        "links_resolve",
        "exercises_offered",
        "pieces_given",
    }
    assert list(anatomy.small(anatomy.MAX_BYTES + 1)) != []
    assert list(anatomy.small(anatomy.MAX_BYTES)) == []


@pytest.mark.parametrize(("cores", "said"), [({3}, "on 1 core without"), ({0, 1}, "on 2 cores without")])
def test_a_run_on_one_core_is_measured_in_cpu_time(monkeypatch, cores, said):
    """6,000 seconds of wall time; the CPU time of this process's finished children is far below that."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    line = execute._measured(6000)
    assert said in line
    assert ("100.0 minutes" in line) == (len(cores) > 1)


def test_the_measured_cost_is_read_from_the_header_or_is_none():
    notebook = sound()
    assert anatomy.measured(notebook) == (2, 1.3, 2.1, 121.0)
    assert anatomy.core_minutes(notebook) == 2.6
    replace(0, "Measured on", "Estimated on")(notebook)
    assert anatomy.core_minutes(notebook) is None


def test_wrong_committed_outputs_are_found(tmp_path):
    """The comparison itself: the same run passes a true output and fails a false one."""
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for name, text in (("right", "42\n"), ("wrong", "41\n")):
        cell = new_code_cell("print(6 * 7)", execution_count=1, outputs=stream("stdout", text))
        nbformat.write(new_notebook(cells=[cell], metadata=kernel), tmp_path / f"{name}.ipynb")
    right, wrong = (compare_outputs(tmp_path / f"{name}.ipynb") for name in ("right", "wrong"))
    assert right.returncode == 0
    assert "::Cell 0 PASSED" in right.stdout
    assert "1 passed" in right.stdout
    assert wrong.returncode == 1
    assert "::Cell 0 FAILED" in wrong.stdout
    assert "1 failed" in wrong.stdout
