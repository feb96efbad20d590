"""The functions in notebook 13's cells give the same results as the module's."""

import json

import pytest
import torch
from cells import cell_definition, cell_function
from conftest import tiny
from safetensors import safe_open

from wanda import find_blocks
from wanda.statistics import InputNorm

LARGER = "13_larger_than_memory"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of twelve blocks, in one file."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny(num_hidden_layers=12).save_pretrained(folder)
    return folder


def test_the_header_read_in_notebook_13_is_the_files(folder):
    path = folder / "model.safetensors"
    header = cell_definition(LARGER, "header")
    header.__globals__["json"] = json
    found = {name: entry for name, entry in header(path).items() if name != "__metadata__"}
    with safe_open(path, "pt") as file:
        assert set(found) == set(file.keys())
        for name, entry in found.items():
            tensor = file.get_tensor(name)
            begin, end = entry["data_offsets"]
            assert tuple(entry["shape"]) == tuple(tensor.shape)
            assert end - begin == tensor.numel() * tensor.element_size()


def test_the_block_numbers_of_notebook_13_are_the_modules():
    model = tiny(num_hidden_layers=12)
    names = list(model.state_dict())
    numbers = cell_function(LARGER, "block_numbers")(names, "model.layers")
    blocks = find_blocks(model)
    for name, number in zip(names, numbers, strict=True):
        inside = [place for place, block in enumerate(blocks) if name.startswith(f"{block.name}.")]
        assert [number] == (inside or [-1]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_parts_of_notebook_13_add_up_to_the_modules_norm(size, dtype):
    generator = torch.Generator().manual_seed(size)
    batches = [torch.randn(tokens, 6, generator=generator).to(dtype) for tokens in (3, 8, 5, 2, 6)]
    partial_squares = cell_function(LARGER, "partial_squares")
    total = sum(partial_squares(batches, rank, size) for rank in range(size))
    norm = InputNorm(6)
    for batch in batches:
        norm.add(batch)
    assert torch.allclose(total.sqrt().float(), norm.norm())
