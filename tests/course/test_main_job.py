"""`make run`: every row is kept as soon as it is measured, and what differs is told after everything is written."""

import json

import pytest
import torch
from conftest import VOCABULARY, tiny
from transformers import BatchEncoding

import wanda
from wanda_course import main_job, results

ROWS = 7


class Tokenizer:
    """Its words are the numbers of the tiny model's vocabulary."""

    eos_token_id = 2

    def __call__(self, text, return_tensors):
        return BatchEncoding({"input_ids": torch.tensor([[1, 5, 7]])})

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids.tolist()))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder; the model is a tiny one, and the windows are random."""
    tokens = torch.randint(VOCABULARY, (200,), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(wanda, "load", lambda name: (tiny(), Tokenizer()))
    monkeypatch.setattr(main_job.protocol, "calibration", lambda tokenizer, samples: tokens[:96].view(4, 24))
    monkeypatch.setattr(main_job.protocol, "evaluation", lambda tokenizer, windows: tokens[96:])
    monkeypatch.setitem(main_job.protocol.EVALUATION, "length", 48)
    monkeypatch.setenv(results.STRICT, "1")
    return tmp_path / "build"


def run(folder):
    return main_job.main(["--new-tokens", "2", "--out", str(folder)])


def record(folder):
    return json.loads((folder / "benchmark.json").read_text())


def recorded(folder, path, change=1.0):
    """Results as if the run in a folder had been recorded, with a change to one row's perplexity."""
    content = record(folder)
    for row in content["rows"]:
        value = row["perplexity"] * (change if row["row"] == "wanda 2:4" else 1)
        row |= {"perplexity": value, "low": 0.99 * value, "high": 1.01 * value}
        row["fingerprint"] = main_job.fingerprint.of(row["method"])
    path.write_text(json.dumps(content))


@pytest.fixture
def results_file(tmp_path, monkeypatch):
    original, path = results.file, tmp_path / "main_job.json"
    monkeypatch.setattr(results, "file", lambda name: path if name == "main_job" else original(name))
    return path


def test_a_run_leaves_everything_and_agrees_with_itself(folder, results_file, capsys):
    assert run(folder) == 0
    content = record(folder)
    assert content["finished"]
    assert [row["row"] for row in content["rows"]] == [str(row) for row in main_job.settings()]
    assert {path.name for path in folder.iterdir()} == set(main_job.FILES)
    page = (folder / "benchmark.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in ("dense", "magnitude 50 %", "Wanda 2:4", "SparseGPT 50 %"))
    assert page.count("<dt>") == ROWS
    assert 'alt="Dots of perplexity' in page
    assert "{" not in page.partition("</style>")[2]
    recorded(folder, results_file)
    capsys.readouterr()
    assert run(folder) == 0  # a finished run is begun anew
    assert "Every row is within its recorded band" in capsys.readouterr().out


def test_a_row_that_differs_is_listed_after_everything_is_written(folder, results_file, capsys, monkeypatch):
    run(folder)
    recorded(folder, results_file, change=1.2)
    for path in folder.iterdir():
        path.unlink()
    capsys.readouterr()
    assert run(folder) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("- ")]
    assert line.startswith("- wanda 2:4: perplexity")
    assert "-16.7%" in line
    assert "expected between" in line
    assert {path.name for path in folder.iterdir()} == set(main_job.FILES)
    monkeypatch.setenv(results.STRICT, "0")
    assert run(folder) == 0


def test_other_windows_are_told_and_not_compared(folder, results_file, capsys):
    run(folder)
    recorded(folder, results_file, change=1.2)
    content = json.loads(results_file.read_text())
    content["data_sha256"]["calibration"] = "0" * 64
    results_file.write_text(json.dumps(content))
    assert run(folder) == 1
    assert "no row can be compared" in capsys.readouterr().out


def interrupted(folder, monkeypatch, after):
    """A run that ends in an error behind so many rows."""
    original = main_job.compare

    def failing(model, calibration, tokens, rows, **options):
        for number, row in enumerate(original(model, calibration, tokens, rows, **options)):
            if number == after:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "compare", failing)
        assert run(folder) == 130


def test_an_interrupted_run_goes_on_with_the_rows_it_has(folder, results_file, monkeypatch, capsys):
    interrupted(folder, monkeypatch, after=3)
    kept = record(folder)
    assert (len(kept["rows"]), kept["finished"]) == (3, False)
    capsys.readouterr()
    assert run(folder) == 0
    out = capsys.readouterr().out
    assert "3 rows are measured already" in out
    assert f"row 4 of {ROWS}: sparsegpt 50%" in out
    assert "row 1 of" not in out
    content = record(folder)
    assert [row["seconds_in_all"] for row in content["rows"][:3]] == [row["seconds_in_all"] for row in kept["rows"]]
    assert len(content["window_seconds"]) == 1 + ROWS // 2  # of the unit: at the start and with every second row
    assert len(content["rows"]) == ROWS


@pytest.mark.parametrize("what", ["data", "numerics", "torch"])
def test_rows_of_other_data_or_code_are_measured_again(folder, results_file, monkeypatch, capsys, what):
    interrupted(folder, monkeypatch, after=2)
    content = record(folder)
    if what == "data":
        content["data_sha256"]["evaluation"] = "0" * 64
    elif what == "numerics":
        content["fingerprint"]["sparsegpt"]["sparsegpt"]["layer 50%"] *= 1.001
    else:
        content["versions"]["torch"] = "1.0"
    (folder / "benchmark.json").write_text(json.dumps(content))
    run(folder)
    assert f"row 1 of {ROWS}" in capsys.readouterr().out


def test_rows_survive_a_fault_in_the_drawing(folder, results_file, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(main_job.main_job_page, "draw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder)
    capsys.readouterr()
    run(folder)
    assert f"{ROWS} rows are measured already" in capsys.readouterr().out
    assert (folder / "benchmark.html").exists()


def test_an_interruption_says_how_to_resume(folder, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_job, "run", interrupted)
    assert main_job.main(["--out", str(folder)]) == 130
    assert "the same command resumes" in capsys.readouterr().err
