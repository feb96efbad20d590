"""The comparison with a peer, without the peer: the worker does its job, and the figures are computed correctly."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import wanda
from benchmarks import peer_worker, peers
from wanda.tools.compare import restoring

pytestmark = pytest.mark.long


@pytest.fixture
def job(model, calibration, tmp_path):
    model.save_pretrained(tmp_path / "model")
    save_file({"windows": calibration}, tmp_path / "windows.safetensors")
    return {"model": str(tmp_path / "model"), "windows": str(tmp_path / "windows.safetensors")}


@pytest.mark.parametrize("way", peers.WAYS)
def test_the_worker_prunes_like_the_module_and_its_weights_are_judged_alike(way, model, calibration, job, tmp_path):
    tokens = calibration.flatten()[:100]
    about = peer_worker.main("ours", {**job, **peers.WAYS[way], "out": str(tmp_path / "pruned.safetensors")})
    assert about["seconds"] > 0
    assert about["cpu_seconds"] > 0
    assert about["versions"].keys() == {"torch", "transformers"}
    assert json.loads((tmp_path / "pruned.json").read_text()) == about
    before = model.lm_head.weight.clone()
    found = peers.judge(model, tmp_path / "pruned.safetensors", tokens, 24)
    with restoring(model):
        wanda.prune(model, calibration, progress=False, **peers.WAYS[way])
        assert found["perplexity"] == pytest.approx(wanda.perplexity(model, tokens, 24), rel=1e-6)
        assert found["zeros"] == wanda.sparsity(model)
    assert wanda.sparsity(model) < 0.01  # judging restores the model
    assert torch.equal(model.lm_head.weight, before)


def test_a_worker_that_fails_says_why(job, tmp_path):
    bad = {**job, **peers.WAYS["wanda 50%"], "sparsity": 1.5}
    with pytest.raises(RuntimeError, match=r"(?s)ours failed at .*sparsity must be in"):
        peers.run("ours", sys.executable, bad, tmp_path)


def test_weights_of_another_model_are_refused(model, job, tmp_path):
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.something"] = torch.ones(2)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match="does not hold the model's weights"):
        peers.judge(model, tmp_path / "other.safetensors", torch.arange(50), 24)


def test_weights_pruned_outside_the_blocks_are_refused(model, job, tmp_path):
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.embed_tokens.weight"][:, ::2] = 0
    save_file(weights, tmp_path / "head.safetensors")
    with pytest.raises(RuntimeError, match=r"head\.safetensors: model\.embed_tokens\.weight differs from the dense"):
        peers.judge(model, tmp_path / "head.safetensors", torch.arange(50), 24)


def test_several_turns_give_the_median_time_and_the_mean_perplexity():
    turns = [
        {"seconds": s, "cpu_seconds": 2 * s, "threads": 2, "perplexity": p}
        for s, p in ((50.0, 30.0), (90.0, 33.0), (60.0, 36.0))
    ]
    expected = {"seconds": 60, "cpu_seconds": 120, "threads": 2, "perplexity": 33}
    assert peers.typical(turns) == expected | {"turns": [50, 90, 60], "perplexities": [30, 33, 36]}


def test_programs_take_turns_and_finished_ways_are_not_rerun(monkeypatch, tmp_path, four_blocks):
    """The dense model stands in for the pruned one: only the order of the runs is tested."""
    runs, drawn, seconds = [], [], iter((5.0, 50.0, 6.0, 60.0, 9.0, 90.0))

    def run(program, python, job, folder):
        runs.append((program, python))
        drawn.append(load_file(job["windows"])["windows"].clone())  # the file is overwritten, and older releases map it
        file = shutil.copy(folder / "model" / "model.safetensors", folder / "pruned.safetensors")
        return {"seconds": next(seconds), "cpu_seconds": 1.0, "threads": 1}, Path(file)

    monkeypatch.setattr(peers, "run", run)
    monkeypatch.setattr(peers, "environment", lambda folder: "its own python")
    sizes = ["--samples", "1", "--length", "8", "--windows", "1", "--window-length", "16", "--only", "wanda 2:4"]
    where = ["--model", str(four_blocks), "--folder", str(tmp_path), "--out", str(tmp_path / "peers.json")]
    peers.main(sizes + where)
    assert runs == [("ours", sys.executable), ("llmcompressor", "its own python")] * 3
    (row,) = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert (row["ours"]["seconds"], row["llmcompressor"]["seconds"]) == (6, 60)
    assert row["ours"]["perplexity"] > 1
    assert all(torch.equal(*drawn[turn : turn + 2]) for turn in (0, 2, 4))  # both programs get the same windows
    assert not torch.equal(drawn[0], drawn[2])  # and each turn has new ones
    assert not torch.equal(drawn[2], drawn[4])
    monkeypatch.setattr(peers, "environment", lambda folder: pytest.fail("nothing is missing"))
    peers.main(sizes + where)
    assert len(runs) == 6


def test_ratios_say_how_far_ours_is_ahead():
    ours = {"perplexity": 50.0, "seconds": 20.0, "cpu_seconds": 15.0}
    peer = {"perplexity": 55.0, "seconds": 60.0, "cpu_seconds": 30.0}
    row = peers.compared([{"way": "wanda 50%", "ours": ours, "llmcompressor": peer}]).loc["wanda 50%"]
    assert (row["ratio"], row["faster"], row["less work"]) == pytest.approx((1.1, 3, 2))
