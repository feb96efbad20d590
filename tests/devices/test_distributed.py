"""Several processes give the result of one; an error in one of them ends all. Real processes, over gloo.

A single launch of torchrun runs everything (see ranks.py); the tests read its files.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from conftest import on_cores
from safetensors.torch import load_file
from test_cli import CALIBRATION, write_model_and_text

from wanda import cli
from wanda.devices import distributed

pytestmark = pytest.mark.long
TESTS = Path(__file__).resolve().parents[1]
PATIENCE = 240  # seconds, generous: a hang would last until the collectives time out, after an hour


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model_and_text(tmp_path_factory.mktemp("ranks"))


def prune_arguments(folder, *options):
    """Arguments of `wanda prune` for the small model, except --out."""
    calibration = [folder / part if part == "text.txt" else part for part in CALIBRATION]
    return [str(part) for part in ("prune", folder / "model", *options, *calibration, "--device", "cpu")]


SPARSEGPT = ("--method", "sparsegpt", "--pattern", "2:4")  # the methods are compared in `several`


@pytest.fixture(scope="module")
def launch(folder):
    """The single launch, of two processes. It fails on purpose at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "--max-restarts",
        "1",
        Path(__file__).with_name("ranks.py"),
        folder,
        *prune_arguments(folder, *SPARSEGPT),
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)


@pytest.fixture(scope="module")
def several(folder, launch):
    """The results of each of two processes."""
    for rank in range(2):
        assert (folder / f"rank{rank}.pt").exists(), launch.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """The results of one process, with the threads that torchrun gives each of several."""
    with on_cores(1):
        return ranks.results()


@pytest.mark.parametrize("case", [*ranks.METHODS, "padding", "bfloat16", "experts", "experts, sparsegpt"])
def test_every_process_gets_the_result_of_one_alone(alone, several, case):
    for rank, found in enumerate(several):
        assert found[case]["rows"] == alone[case]["rows"], rank
        for name, weight in alone[case]["weights"].items():
            assert torch.equal(found[case]["weights"][name], weight), (rank, name)


def test_the_cases_are_as_intended(alone):
    """Only rank 1 reaches expert 2, and neither reaches expert 3; otherwise other experts would be pruned."""
    reached = {name: error is not None for name, _, _, error in alone["experts"]["rows"]}
    assert reached["blocks.0.up.2"]
    assert not reached["blocks.0.gate.3"]
    assert [int(ids[0, 0]) % 4 for ids in ranks.expert_batches()] == [0, 2, 0, 2]
    assert alone["wanda"]["rows"] != alone["dense propagation"]["rows"]


def test_an_infinite_activation_in_one_process_raises_the_same_error_in_all(alone, several):
    """Only rank 1 has the window with the infinite embedding."""
    assert "NaN or infinite inputs" in alone["infinite"]
    assert [found["infinite"] for found in several] == [alone["infinite"]] * 2


def test_errors_that_only_several_processes_can_make_are_raised_in_all(several):
    for found in several:
        assert found["few"].startswith("ValueError: calibration has 1 batches, too few for 2 processes")
        assert found["untouched"]
        assert "different calibration data (rank 1 not those of rank 0)" in found["data"]
        # Without the check, these hang or end in a broken connection.
        for case in ("skip", "propagate", "method", "shape"):
            assert "different options or layers (rank 1 not those of rank 0)" in found[case], case
        assert "different weights after pruning model.layers.0 (rank 1 not those of rank 0)" in found["model"]


def test_torchrun_saves_what_one_process_saves(folder, launch):
    assert launch.stdout.count("saved to") == 1, launch.stderr
    with on_cores(1):
        assert cli.main([*prune_arguments(folder, *SPARSEGPT), "--out", str(folder / "alone")]) == 0
    several, alone = (load_file(folder / name / "model.safetensors") for name in ("several", "alone"))
    assert several.keys() == alone.keys()
    assert all(torch.equal(several[name], weight) for name, weight in alone.items())


@pytest.mark.parametrize(
    ("how", "words"), [("raises", "rank 1: failed: deliberate failure in model.layers.1"), ("killed", "Signal 9")]
)
def test_a_process_that_fails_ends_the_run(folder, launch, how, words):
    """In every process: otherwise the launch would not have reached its second attempt, nor ended."""
    assert launch.returncode != 0
    assert words in launch.stderr
    assert (folder / f"{how}.begun").exists()
    assert not (folder / how).exists()


@pytest.mark.parametrize("device", ["auto", "cuda:0", "mps"])
def test_a_device_that_processes_cannot_share_is_refused(monkeypatch, device):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ValueError, match=f"--device {device} cannot be shared by 2 processes"),
        distributed.process_group(device),
    ):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes.*there are 1"), distributed.process_group("cuda"):
        pass


def test_an_incomplete_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ValueError, match="WORLD_SIZE is 2.*without LOCAL_RANK, LOCAL_WORLD_SIZE;.*torchrun"),
        distributed.process_group(),
    ):
        pass


def test_a_single_process_is_unaffected(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group("cuda:3") as device:
        assert device == "cuda:3"
    assert (distributed.size(), distributed.rank()) == (1, 0)
    assert distributed.share([1, 2]) == [1, 2]
    assert distributed.leave(2) == 2
