"""What notebook 04 shows of measurements on a GPU: plainly that there are none, or those of results/gpu.json."""

import json

import nbformat
import pytest
from cells import NOTEBOOKS

from benchmarks import gpu
from wanda.course import gpu_results

SIZES = {"blocks": 2, "hidden": 32, "intermediate": 64, "heads": 4, "samples": 3, "length": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository with a results/gpu.json as the benchmark writes it: a dry run, said to be of a GPU."""
    folder = tmp_path_factory.mktemp("repository")
    file = folder / "results" / "gpu.json"
    file.parent.mkdir()
    sizes = [text for name, size in SIZES.items() for text in (f"--{name}", str(size))]
    gpu.main([*sizes, "--dtype", "float32", "--device", "cpu", "--out", str(file)])
    content = json.loads(file.read_text())
    content["machine"]["gpu"] = "NVIDIA Imaginary"
    for index, row in enumerate(content["rows"]):
        row["peak_gib"] = 1.5 + index
    file.write_text(json.dumps(content))
    return folder


def shown(monkeypatch, folder):
    """What the notebook's cell prints and displays, with the file of this folder."""
    notebook = nbformat.read(NOTEBOOKS / "04_prune_llama.ipynb", as_version=4)
    (source,) = [c.source for c in notebook.cells if c.cell_type == "code" and "gpu_results.record()" in c.source]
    monkeypatch.setattr(gpu_results.record, "__defaults__", (folder,))
    said = []
    exec(source, {"gpu_results": gpu_results, "print": said.append, "display": said.append})
    return said


@pytest.mark.parametrize("installed", [False, True])
def test_without_measurements_the_notebook_says_so(monkeypatch, tmp_path, installed):
    said = shown(monkeypatch, None if installed else tmp_path)
    assert said[0].startswith("Not measured")
    assert "benchmarks.gpu" in " ".join(said)


def test_with_measurements_the_notebook_shows_them(monkeypatch, folder):
    caption, table = shown(monkeypatch, folder)
    assert "NVIDIA Imaginary" in caption
    assert "2 blocks of width 32 and 64" in caption
    assert list(table.index) == [*gpu.RUNS, "wanda, streamed", "sparsegpt, streamed"]
    assert table["peak memory (GiB)"].tolist() == [1.5 + index for index in range(len(table))]
    assert {"seconds", "capture", "statistics", "select", "recompute", "read", "write"} <= set(table)


def test_what_was_measured_on_a_cpu_is_not_shown_as_a_gpus(monkeypatch, folder, tmp_path):
    content = gpu_results.record(folder)
    content["machine"]["gpu"] = None
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "gpu.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="which is no GPU"):
        shown(monkeypatch, tmp_path)
