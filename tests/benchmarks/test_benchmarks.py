"""The benchmarks run at a small size, and their claims about arithmetic are true."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, memory

pytestmark = pytest.mark.long


SIZES = [
    "--blocks",
    "2",
    "--hidden",
    "32",
    "--intermediate",
    "64",
    "--heads",
    "4",
    "--samples",
    "3",
    "--length",
    "16",
    "--dtype",
    "float32",
    "--device",
    "cpu",
]


def test_the_gpu_benchmark_dry_runs_on_a_cpu(tmp_path, capsys):
    gpu.main([*SIZES, "--out", str(tmp_path / "gpu.json")])
    record = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["run"]: row for row in record["rows"]}
    assert list(rows) == [*gpu.RUNS, "wanda, streamed", "sparsegpt, streamed", "admm, streamed"]
    assert all(row["seconds"] > 0 for row in rows.values())
    for run in gpu.RUNS:
        assert rows[run]["sparsity"] == 0.5
        assert {"capture", "statistics", "select", "recompute"} <= rows[run].keys()
    same = {"cpu": 1.0, "visiting": 1.0, "streamed": 1.0}
    assert record["agreement"] == dict.fromkeys(("magnitude", "wanda", "sparsegpt", "admm"), same)
    assert {"capture", "read", "statistics", "select", "write", "recompute"} <= rows["wanda, streamed"].keys()
    assert record["data_sha256"]["calibration"]
    assert record["left"] == []
    assert "sparsegpt 2:4" in capsys.readouterr().out
    dtypes = [(row["factor"], row["repair"]) for row in record["precisions"]]
    assert dtypes == [("float64", "float64"), ("float64", "float32"), ("float32", "float32")]
    assert record["precisions"][0]["mask_as_float64"] == 1
    assert all(row["mask_as_float64"] > 0.9 for row in record["precisions"])


def test_the_gpu_benchmark_starts_no_step_when_its_minutes_are_over(tmp_path, capsys):
    gpu.main([*SIZES, "--minutes", "0", "--out", str(tmp_path / "gpu.json")])
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["rows"] == []
    assert record["left"][:3] == ["agreement", "precisions", "wanda"]
    assert "no time left for: agreement" in capsys.readouterr().out


@pytest.mark.skipif(not memory.CLEAR.is_file(), reason="only Linux reports a process's peak memory")
def test_the_memory_benchmark_runs_at_a_small_size(tmp_path, capsys):
    """At this size the libraries take more than the model, and the benchmark says so; the model's own memory is within
    the formula and less than the model's size."""
    sizes = ["--blocks", "12", "--hidden", "256", "--vocabulary", "97", "--samples", "2", "--length", "16"]
    assert memory.main([*sizes, "--out", str(tmp_path / "memory.json")]) == 1
    assert "wanda: over 0.35 of the model's size" in capsys.readouterr().err
    record = json.loads((tmp_path / "memory.json").read_text())
    (row,) = record["rows"]
    assert row["tensors_that_differ"] == 0
    assert 0.49 < row["fraction_zero"] < 0.5  # norms are not pruned
    own = row["stream"]["peak"] - row["stream"]["libraries"]
    assert own < row["formula"]["total"] + 6e6 < record["bytes"] < row["whole"]["peak"]
    assert record["data_sha256"]["calibration"]
    within = row | {"share_of_model": 0.34}
    assert memory.report(within, 0.35) == []
    assert "2 tensors are not" in memory.report(within | {"tensors_that_differ": 2}, 0.35)[0]


def test_without_a_gpu_the_benchmark_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cuda"])
    assert "finds no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "number"), [("cuda", 3), ("cuda:1", 1)])
def test_the_memory_of_a_gpu_is_limited_by_its_number(monkeypatch, device, number):
    set_to = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(total_memory=64 * gpu.GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: set_to.append(given))
    with gpu.limited(device, 16):
        assert set_to == [(0.25, number)]
    assert set_to[1:] == [(1.0, number)]


def test_the_gpu_benchmark_keeps_its_measurements_when_it_fails_later(monkeypatch, tmp_path):
    def no_room(*given):
        raise OSError("no space left")

    monkeypatch.setattr(gpu, "time_streamed", no_room)
    with pytest.raises(OSError, match="no space left"):
        gpu.main([*SIZES, "--blocks", "1", "--out", str(tmp_path / "gpu.json")])
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["run"] for row in record["rows"]] == list(gpu.RUNS)
    assert record["agreement"]


def test_rounding_to_tf32():
    one = torch.tensor(1.0)
    last = 2.0**-10  # the last place that TF32 keeps
    cases = {1 + 0.49 * last: 1, 1 + 0.51 * last: 1 + last, 1 + 0.5 * last: 1, 1 + 1.5 * last: 1 + 2 * last}
    cases |= {-key: -value for key, value in cases.items()} | {0.0: 0.0, 2 - 2.0**-23: 2.0}
    for value, expected in cases.items():
        assert gpu.round_to_tf32(one * value) == expected, value


def test_tf32_is_exact_for_half_precision_inputs():
    """TF32 keeps 10 bits: all of float16's, more than bfloat16's 7, not float32's 23."""
    errors = gpu.tf32_errors()
    for dtype in ("float16", "bfloat16"):
        assert errors[dtype] == {"operand": 0, "diagonal": 0}
    assert 0.9 * 2**-11 < errors["float32"]["operand"] <= 2**-11
    assert 0 < errors["float32"]["diagonal"] < 2**-11
