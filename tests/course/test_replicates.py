"""results/claims.json holds the notebooks' parameters, and their claims' values and replicates, all in their bands."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import processors
from wanda_course import execute, replicates, results

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))


# What is committed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_claims_of_a_notebook_are_recorded_with_its_parameters(path):
    record = results.load("claims")[replicates.number(path)]
    assert record["parameters"] == replicates.parameters(path)
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    written = set(re.findall(rf'claim\(\s*"({replicates.number(path)}\.\w+)"', "\n".join(sources)))
    assert written <= set(record["claims"])


def test_every_value_and_replicate_is_within_its_band():
    assert list(replicates.outside(results.load("claims"))) == []


def test_the_rows_of_the_main_job_have_replicates_within_their_bands():
    for row in results.load("main_job")["rows"]:
        assert len(row["replicates"]) >= 5, row["row"]
        assert all(row["low"] <= value <= row["high"] for value in row["replicates"].values()), row["row"]


# How it gets there -------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook that claims twice its parameter, and results in an empty folder."""
    monkeypatch.setattr(results, "file", lambda name: tmp_path / f"{name}.json")
    path = tmp_path / "42_answer.ipynb"

    def write(seed=1):
        setup = "import os, json\nfrom wanda_course import claims\nclaim = claims.under('42', globals())"
        cells = [
            new_code_cell(f"seed = {seed}", metadata={"tags": ["parameters"]}),
            new_code_cell(
                f"{setup}\nvalue = 2 * seed + (os.environ.get('MORE') == '1') + 4 * int(os.environ['WANDA_STRICT'])\n"
                "claim('42.1', value, 1, 9, 'twice')"
            ),
        ]
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def claimed(value, low=1):
    """The claims of a run, as `execute.executed` returns them."""
    return [{"key": "42.1", "value": value, "low": low, "high": 9, "text": "twice", "compared": False}]


@pytest.mark.parametrize(("strict", "environment", "value"), [(False, None, 2.0), (True, {"MORE": "1"}, 7.0)])
def test_a_run_returns_its_claims(notebook, strict, environment, value):
    """Its kernel sees WANDA_STRICT and the environment."""
    path = notebook()
    replicates.announce(path)
    assert execute.executed(path, strict, environment)[2] == claimed(value)


def test_announce_keep_and_add(notebook):
    path = notebook()
    replicates.announce(path)
    replicates.keep(path, claimed(2.0))
    replicates.add(path, "avx2", claimed(3.0))
    claim = results.load("claims")["42"]["claims"]["42.1"]
    assert claim == {"text": "twice", "low": 1, "high": 9, "value": 2.0, "replicates": {"avx2": 3.0}}
    replicates.keep(path, claimed(2.0))  # again, with the same numerics
    assert results.load("claims")["42"]["claims"]["42.1"]["replicates"] == {"avx2": 3.0}
    replicates.announce(notebook(seed=3))  # other parameters
    assert results.load("claims")["42"] == {"parameters": {"seed": 3}}


def test_replicates_of_other_numerics_are_dropped(notebook, tmp_path):
    path = notebook()
    replicates.announce(path)
    replicates.keep(path, claimed(2.0))
    replicates.add(path, "avx2", claimed(2.0))
    content = results.load("claims")
    content["42"]["fingerprint"]["wanda"] = {}
    (tmp_path / "claims.json").write_text(json.dumps(content))
    replicates.keep(path, claimed(2.0))
    assert results.load("claims")["42"]["claims"]["42.1"]["replicates"] == {}


def test_values_outside_their_band_are_found(notebook):
    path = notebook()
    replicates.announce(path)
    replicates.keep(path, claimed(2.0, low=2.5))
    assert replicates.outside(results.load("claims")) == [("42.1", "in the text", 2.0)]


# The rows ----------------------------------------------------------------------------------------------------------------


def rows_of(perplexity, calibration="a"):
    kept = dict.fromkeys(processors.KEPT, 0) | {"data_sha256": {"calibration": calibration}}
    row = {"row": "wanda 50%", "method": "wanda", "pattern": None, "sparsity": 0.5}
    row |= {"forwards": 1.0, "forwards_in_all": 2.0, "perplexity": perplexity}
    return kept | {"rows": [row]}


def test_a_band_extends_the_range_of_the_replicates_by_its_width():
    assert processors.band([50.0]) == (49.85, 50.15)
    assert processors.band([50.0, 51.0, 50.5]) == (49.0, 52.0)


def test_rows_of_several_settings_are_merged():
    content = processors.merged(None, "avx2, 1 thread", rows_of(50.0))
    content = processors.merged(content, "native, 2 threads", rows_of(50.2))
    (row,) = content["rows"]
    assert row["replicates"] == {"avx2, 1 thread": 50.0, "native, 2 threads": 50.2}
    assert row["perplexity"] == pytest.approx(50.1)
    assert row["low"] < 50.0 < 50.2 < row["high"]
    (row,) = processors.merged(content, "avx2, 2 threads", rows_of(60.0, calibration="b"))["rows"]
    assert row["replicates"] == {"avx2, 2 threads": 60.0}
