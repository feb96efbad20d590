"""nbgrader hands out the solution edition, takes it back, and gives each answer its points."""

import csv
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from wanda_course import editions
from wanda_course.exercises import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("nbgrader") is None, reason="nbgrader is not installed: pip install '.[teaching]'"),
]
GRADED = {"03.b1": 3, "03.2": 3, "03.4": 2}  # with their points
CONFIG = "c = get_config()\nc.ExecutePreprocessor.timeout = 600\nc.ExecutePreprocessor.iopub_timeout = 60\n"
POWER, SCORE = "return weight.abs() * input_norm**power", "return weight.abs() * input_norm  #"
ANSWERS = {  # of each student: a line of the solved notebook, what stands there instead, the points
    "right": (POWER, f"import warnings; warnings.warn('not a mistake'); {POWER}", 8),
    "wrong": (POWER, "return weight * input_norm**power", 6),
    "wrong_piece": (SCORE, "raise SystemExit  #", 5),  # 03.2 calls it
}


def nbgrader(course, *arguments):
    environment = dict(os.environ, WANDA_SECRET="a secret of this term")
    for name, folder in {"PYTHONPATH": ROOT, "PATH": Path(sys.executable).parent}.items():  # it calls `alembic`
        environment[name] = os.pathsep.join([str(folder), *filter(None, [os.environ.get(name)])])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    run = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def test_each_answer_gets_its_points(tmp_path):
    """In the short form of notebook 03: the experiments around the exercises would take minutes a student."""
    (tmp_path / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    options = ["--build", "--short", "--exercises", *GRADED]
    editions.main(["solution", "03", *options, "--out", str(tmp_path / "source" / "pruning")])
    (solved,) = (tmp_path / "source" / "pruning").iterdir()
    nbgrader(tmp_path, "generate_assignment", "pruning", "--create")
    handed_out = tmp_path / "release" / "pruning" / solved.name
    stubs = nbformat.read(handed_out, as_version=4)
    assert "BEGIN SOLUTION" not in handed_out.read_text(encoding="utf-8")
    assert sum("raise NotImplementedError()" in cell.source for cell in stubs.cells) == 8  # practice included

    folders = {student: tmp_path / "submitted" / student / "pruning" for student in ("untouched", *ANSWERS)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    shutil.copy(handed_out, folders["untouched"])
    text = solved.read_text(encoding="utf-8")
    for student, (line, instead, _) in ANSWERS.items():
        assert text.count(line) == 1
        (folders[student] / solved.name).write_text(text.replace(line, instead), encoding="utf-8")

    nbgrader(tmp_path, "autograde", "pruning", "--create")
    text = (tmp_path / "autograded" / "right" / "pruning" / solved.name).read_text(encoding="utf-8")
    for key in GRADED:  # the kernel has the secret: as many cases again
        assert f"✔ {key} {EXERCISES[key].title}: right on all {2 * len(EXERCISES[key].draw())} cases" in text
    nbgrader(tmp_path, "export")
    with (tmp_path / "grades.csv").open(encoding="utf-8") as file:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    points = {student: points for student, (_, _, points) in ANSWERS.items()}
    assert scores == {student: (score, sum(GRADED.values())) for student, score in {"untouched": 0, **points}.items()}
