"""The command line as a user runs it: exit codes, messages, files."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import WORDS, tiny, word_tokenizer

import wanda
from wanda import cli
from wanda.streaming import run as streaming


def write_model_and_text(folder):
    """Write a small model with a tokenizer of 97 words, and a text in those words."""
    wanda.save(tiny(), word_tokenizer(), folder / "model")
    (folder / "text.txt").write_text(" ".join(WORDS[1 + (7 * number) % 96] for number in range(300)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_model_and_text(tmp_path)


def run(folder, *arguments):
    return cli.main([str(folder / a) if a in ("model", "out", "text.txt") else a for a in arguments])


CALIBRATION = ("--calibration", "text.txt", "--samples", "4", "--length", "16")


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_prune_writes_a_model_that_opens(folder, capsys, method):
    assert run(folder, "prune", "model", "--method", method, "--sparsity", "0.25", *CALIBRATION, "--out", "out") == 0
    model, tokenizer = wanda.load(str(folder / "out"))
    assert wanda.sparsity(model) == 0.25
    assert tokenizer("w5").input_ids == [5]
    printed = capsys.readouterr().out
    assert f"{method} 25%" in printed
    assert "saved to" in printed


@pytest.mark.parametrize("way", [(), ("--stream",)])
def test_licences_templates_and_processors_are_kept(folder, way):
    kept = ["LICENSE", "NOTICE.txt", "preprocessor_config.json", "additional_chat_templates/tools.jinja"]
    for name in kept:
        (folder / "model" / name).parent.mkdir(exist_ok=True)
        (folder / "model" / name).write_text(f"{{}} {name}")
    (folder / "model" / "training.log").write_text("no part of the model")
    assert run(folder, "prune", "model", *CALIBRATION, *way, "--out", "out") == 0
    for name in kept:
        assert (folder / "out" / name).read_text() == f"{{}} {name}"
    assert not (folder / "out" / "training.log").exists()


def test_prune_with_every_option(folder):
    options = (
        "--pattern",
        "2:4",
        "--update",
        "obs-iterative",
        "--skip",
        "o_proj",
        "layers.0",
        "--batch-size",
        "2",
        "--seed",
        "3",
    )
    assert run(folder, "prune", "model", *CALIBRATION, *options, "--out", "out") == 0
    model, _ = wanda.load(str(folder / "out"))
    assert (model.model.layers[0].mlp.up_proj.weight != 0).all()
    assert (model.model.layers[1].mlp.up_proj.weight == 0).float().mean() == 0.5


def test_prune_from_file_to_file_resumes_after_an_interruption(folder, capsys, monkeypatch):
    options = ("prune", "model", *CALIBRATION, "--pattern", "2:4")
    assert run(folder, *options, "--out", "out") == 0
    whole = capsys.readouterr().out
    original, calls = streaming.collect, []

    def interrupted(block, *arguments):
        calls.append(block.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(block, *arguments)

    monkeypatch.setattr(streaming, "collect", interrupted)
    streamed = folder / "streamed"
    assert run(folder, *options, "--stream", "--out", str(streamed)) == 130
    assert run(folder, *options, "--stream", "--method", "magnitude", "--out", str(streamed)) == 2
    assert "differs from this one: " in capsys.readouterr().err
    assert run(folder, *options, "--stream", "--out", str(streamed)) == 0
    assert len(calls) == 4  # the first block was finished
    assert capsys.readouterr().out.split("(")[0] == whole.split("(")[0]
    (model, tokenizer), (expected, _) = wanda.load(streamed), wanda.load(folder / "out")
    assert tokenizer("w5").input_ids == [5]
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_perplexity_matches_the_function(folder, capsys):
    assert (
        run(folder, "perplexity", "model", "--text", "text.txt", "--length", "32", "--stride", "8", "--windows", "5")
        == 0
    )
    model, tokenizer = wanda.load(str(folder / "model"))
    expected = wanda.perplexity(model, wanda.eval_tokens(tokenizer, folder / "text.txt")[:160], 32, 8)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{expected:.3f} ")
    assert "160 tokens in windows of 32, stride 8, no BOS added" in printed


def test_compare_prints_the_table_of_methods(folder, capsys):
    options = ("--pattern", "2:4", "--text", "text.txt", "--eval-length", "32")
    assert run(folder, "compare", "model", *CALIBRATION, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2:4; perplexity on" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["method", "dense", "magnitude", "wanda", "sparsegpt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune", "model", "--sparsity", "1.5", "--out", "out"), r"[0, 1)"),
        (("prune", "model", "--pattern", "4:2", "--out", "out"), "4:2"),
        (("prune", "nowhere/at/all", "--out", "out"), "nowhere/at/all"),
        (("prune", "model", "--calibration", "nonsense", "--out", "out"), "nonsense"),
        (("prune", "model", "--out", "model"), "not an empty folder"),
        (("prune", "model", "--stream", "--out", "model"), "exists already"),
        (("prune", "model", "--stream", "--dtype", "bfloat16", "--out", "out"), "omit --dtype"),
        (("prune", "nowhere/at/all", "--stream", "--out", "out"), "nowhere/at/all"),
        (("compare", "model", "--sparsity", "2"), "[0, 1)"),
        (("perplexity", "model", "--text", "text.txt", "--windows", "0"), "--windows"),
        (("fetch", "nonsense"), "no asset 'nonsense'"),
    ],
)
def test_invalid_arguments_exit_with_2_and_a_message(folder, capsys, arguments, message):
    assert run(folder, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "error" in printed.err
    assert "Traceback" not in printed.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments", [(), ("prune", "model"), ("prune", "model", "--method", "wander", "--out", "x"), ("dance",)]
)
def test_usage_errors_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_a_failure_exits_with_1_and_an_interruption_with_130(folder, capsys, monkeypatch):
    def fail(error):
        def raising(*arguments, **options):
            raise error

        return raising

    for error, status in ((RuntimeError("the disk is full"), 1), (OSError("gone"), 1), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(cli, "prune", fail(error))
        assert run(folder, "prune", "model", *CALIBRATION, "--out", "out") == status
        assert str(error) in capsys.readouterr().err


def test_fetch_prints_paths(capsys):
    assert cli.main(["fetch", "news"]) == 0
    assert capsys.readouterr().out.startswith("news: ")


def test_help_teaches(capsys):
    for arguments in (
        ["--help"],
        ["prune", "--help"],
        ["perplexity", "--help"],
        ["compare", "--help"],
        ["fetch", "--help"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        assert "usage: wanda" in capsys.readouterr().out
    shown = subprocess.run([sys.executable, "-m", "wanda", "--help"], capture_output=True, text=True, check=True).stdout
    assert "wanda prune smollm2 --sparsity 0.5 --out pruned" in shown


def test_provenance_names_machine_versions_command_and_data():
    from wanda.tools.provenance import provenance

    first, again, other = (provenance(data=torch.tensor(ids)) for ids in ([1, 2], [1, 2], [2, 1]))
    assert first["data_sha256"] == again["data_sha256"] != other["data_sha256"]
    assert {"date", "command", "machine", "versions"} <= set(json.loads(json.dumps(first)))


def test_a_target_that_cannot_work_is_told_before_the_model_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr(cli, "load", None)
    assert run(folder, "prune", "model", *CALIBRATION, "--out", str(folder / "model" / "inside")) == 2
    assert "lies in the model's folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(folder, "prune", "model", *CALIBRATION, "--out", str(folder / "deep" / "out")) == 2
    assert "out' cannot be written" in capsys.readouterr().err
