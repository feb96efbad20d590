"""Several processes come to what one comes to; an error in one of them ends all. Real processes, over gloo.

One launch of torchrun does it all, see ranks.py: the tests read what it left.
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
PATIENCE = 240  # seconds, generous: a hang would last until the limit of the collectives, an hour


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model_and_text(tmp_path_factory.mktemp("ranks"))


def prune_arguments(folder, *options):
    """Arguments of `wanda prune` for the small model, but for --out."""
    calibration = [folder / part if part == "text.txt" else part for part in CALIBRATION]
    return [str(part) for part in ("prune", folder / "model", *options, *calibration, "--device", "cpu")]


SPARSEGPT = ("--method", "sparsegpt", "--pattern", "2:4")  # for `several`, the other methods are compared


@pytest.fixture(scope="module")
def launch(folder):
    """The one launch, of two processes. It ends with an error: all goes wrong on purpose at the end."""
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
    """What each of two processes found."""
    for rank in range(2):
        assert (folder / f"rank{rank}.pt").exists(), launch.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """What one process finds, with the threads that torchrun gives each of several."""
    with on_cores(1):
        return ranks.results()


@pytest.mark.parametrize("case", [*ranks.METHODS, "padding", "bfloat16", "experts", "experts, sparsegpt"])
def test_every_process_ends_with_what_one_alone_would_have(alone, several, case):
    for rank, found in enumerate(several):
        assert found[case]["rows"] == alone[case]["rows"], rank
        for name, weight in alone[case]["weights"].items():
            assert torch.equal(found[case]["weights"][name], weight), (rank, name)


def test_the_cases_are_what_they_are_meant_to_be(alone):
    """Expert 2 is reached through rank 1 only, expert 3 not at all; the pruned experts would be others otherwise."""
    reached = {name: error is not None for name, _, _, error in alone["experts"]["rows"]}
    assert reached["blocks.0.up.2"]
    assert not reached["blocks.0.gate.3"]
    assert [int(ids[0, 0]) % 4 for ids in ranks.expert_batches()] == [0, 2, 0, 2]
    assert alone["wanda"]["rows"] != alone["dense propagation"]["rows"]


def test_an_infinite_activation_of_one_process_is_the_same_error_in_all(alone, several):
    """Only rank 1 has the window with the infinite embedding."""
    assert "NaN or infinite inputs" in alone["infinite"]
    assert [found["infinite"] for found in several] == [alone["infinite"]] * 2


def test_what_only_several_processes_can_get_wrong_is_refused_by_all(several):
    for found in several:
        assert found["few"].startswith("ValueError: calibration makes 1 batches, too few for 2 processes")
        assert found["untouched"]
        assert "different calibration data (rank 1 not those of rank 0)" in found["data"]
        assert "different weights after pruning model.layers.0 (rank 1 not those of rank 0)" in found["model"]


def test_torchrun_saves_what_one_process_saves(folder, launch):
    assert launch.stdout.count("saved to") == 1, launch.stderr
    with on_cores(1):
        assert cli.main([*prune_arguments(folder, *SPARSEGPT), "--out", str(folder / "alone")]) == 0
    several, alone = (load_file(folder / name / "model.safetensors") for name in ("several", "alone"))
    assert several.keys() == alone.keys()
    assert all(torch.equal(several[name], weight) for name, weight in alone.items())


@pytest.mark.parametrize(
    ("how", "words"), [("raises", "rank 1: failed: no luck with model.layers.1"), ("killed", "Signal 9")]
)
def test_a_process_that_fails_ends_the_run(folder, launch, how, words):
    """Of all of them: else the launch would not have come to its second attempt, nor to its end."""
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


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ValueError, match="WORLD_SIZE is 2.*LOCAL_RANK, LOCAL_WORLD_SIZE not set.*torchrun"),
        distributed.process_group(),
    ):
        pass


def test_one_process_is_not_touched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group("cuda:3") as device:
        assert device == "cuda:3"
    assert (distributed.size(), distributed.rank()) == (1, 0)
    assert distributed.share([1, 2]) == [1, 2]
    assert distributed.leave(2) == 2
