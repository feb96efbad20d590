"""Notebook 13 shows the GPU measurements in results/gpu.json, or says that there are none."""

import json

import nbformat
import pytest
from cells import NOTEBOOKS

from benchmarks import gpu
from wanda_course import gpu_results, results

SIZES = {"blocks": 2, "hidden": 32, "intermediate": 64, "heads": 4, "samples": 3, "length": 16}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A gpu.json as the benchmark writes it: a dry run, labelled as a GPU's."""
    file = tmp_path_factory.mktemp("results") / "gpu.json"
    sizes = [text for name, size in SIZES.items() for text in (f"--{name}", str(size))]
    gpu.main([*sizes, "--dtype", "float32", "--device", "cpu", "--out", str(file)])
    content = json.loads(file.read_text())
    content["machine"]["gpu"] = "NVIDIA Imaginary"
    for index, row in enumerate(content["rows"]):
        row["peak_gib"] = 1.5 + index
    file.write_text(json.dumps(content))
    return file


def shown(monkeypatch, file):
    """The output of the notebook's cell with this file: what it prints and displays."""
    notebook = nbformat.read(NOTEBOOKS / "13_larger_than_memory.ipynb", as_version=4)
    (source,) = [c.source for c in notebook.cells if c.cell_type == "code" and "gpu_results.record()" in c.source]
    monkeypatch.setattr(results, "file", lambda name: file)
    said = []
    exec(source, {"gpu_results": gpu_results, "print": said.append, "display": said.append})
    return said


def test_without_measurements_the_notebook_says_so(monkeypatch, tmp_path):
    said = shown(monkeypatch, tmp_path / "gpu.json")
    assert said[0].startswith("Not measured")
    assert "benchmarks.gpu" in " ".join(said)


def test_with_measurements_the_notebook_shows_them(monkeypatch, file):
    caption, table, *agreement = shown(monkeypatch, file)
    assert "NVIDIA Imaginary" in caption
    assert "2 blocks of width 32 and 64" in caption
    assert list(table.index) == [*gpu.RUNS, *(f"{method}, streamed" for method in gpu.STREAMED)]
    assert table["peak memory (GiB)"].tolist() == [1.5 + index for index in range(len(table))]
    assert {"seconds", "capture", "statistics", "select", "recompute", "read", "write"} <= set(table)
    assert [line.split(":")[0] for line in agreement] == ["magnitude", "wanda", "sparsegpt", "admm"]
    assert all("100.0%" in line for line in agreement)  # the dry run compares a CPU with itself


def test_cpu_measurements_are_not_shown_as_a_gpus(monkeypatch, file, tmp_path):
    content = json.loads(file.read_text())
    content["machine"]["gpu"] = None
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not on a GPU; measure it again"):
        shown(monkeypatch, tmp_path / "gpu.json")


def test_the_committed_measurements_are_from_a_gpu_and_meet_the_targets():
    content = gpu_results.record()
    assert content["machine"]["gpu"] in gpu_results.caption(content)
    assert gpu_results.seconds(content, "magnitude") < 3
    assert gpu_results.seconds(content, "wanda") < 25
    assert gpu_results.seconds(content, "sparsegpt") < 90
    assert gpu_results.agreement(content)["wanda"] == 1
    with pytest.raises(KeyError):
        gpu_results.seconds(content, "wander")


def test_without_the_agreement_the_notebook_shows_the_rest(monkeypatch, file, tmp_path):
    content = json.loads(file.read_text())
    del content["agreement"]  # the benchmark writes its file part by part
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    assert len(shown(monkeypatch, tmp_path / "gpu.json")) == 2
