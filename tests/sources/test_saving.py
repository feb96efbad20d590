"""What is saved is what is in memory, whatever the model was loaded from and whatever the folder held."""

import json
from importlib.util import find_spec

import pytest
import torch
import transformers
from conftest import tiny
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import wanda

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def codes(tmp_path):
    """A checkpoint with one layer in 8-bit floats and their scales, as block-wise quantisation stores it."""
    folder = tmp_path / "codes"
    tiny().save_pretrained(folder)
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors[UP] = (tensors[UP] * 1000).to(torch.float8_e4m3fn)
    tensors[f"{UP}_scale_inv"] = torch.full((4, 2), 0.001)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.8") and find_spec("triton") is None,
    reason="such a release of transformers needs triton to dequantise on loading",
)
def test_weights_dequantised_on_loading_are_saved_as_floats(codes, calibration, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(codes)
    assert model.state_dict()[UP].abs().max() < 1
    wanda.prune(model, calibration, progress=False)
    wanda.save(model, None, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_a_stale_index_does_not_outlive_a_save(tmp_path):
    tiny().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    model = tiny(transformers.LlamaConfig, seed=1)
    wanda.save(model, None, tmp_path)
    assert not (tmp_path / "model.safetensors.index.json").exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
