"""The functions in notebook 04's cells give the same results as the module's."""

from contextlib import suppress

import pytest
import torch
from cells import cell_definition, cell_function
from conftest import tiny

import wanda
from wanda import find_blocks
from wanda.blocks.collect import collect
from wanda.blocks.replay import capture
from wanda.statistics import InputNorm

WALK = "04_the_walk"


@pytest.fixture(scope="module")
def walking():
    """The functions of the walk, each from its own cell."""
    known = {"wanda": wanda, "suppress": suppress}
    for name in ("linears", "blocks_of"):
        known[name] = cell_definition(WALK, name)
    for name in ("inputs_of_first_block", "norms_of", "visit", "walk"):
        known[name] = cell_function(WALK, name, **known)
    return known


def weights(model):
    return {layer.name: layer.weight.clone() for block in find_blocks(model) for layer in block.layers}


def test_the_blocks_of_notebook_04_are_the_modules(walking, model):
    assert walking["blocks_of"](model) is model.model.layers
    ours = [
        f"model.layers.{index}.{name}"
        for index, block in enumerate(walking["blocks_of"](model))
        for name in walking["linears"](block)
    ]
    assert ours == [layer.name for block in find_blocks(model) for layer in block.layers]


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("options", [{}, {"num_hidden_layers": 1}, {"num_key_value_heads": 4, "seed": 3}])
def test_the_walk_of_notebook_04_is_the_modules(walking, calibration, options, sparsity):
    ours, theirs = tiny(**options), tiny(**options)
    walking["walk"](ours, calibration, sparsity)
    wanda.prune(theirs, calibration, sparsity=sparsity, progress=False)
    expected = weights(theirs)
    assert weights(ours).keys() == expected.keys()
    for name, weight in weights(ours).items():
        assert torch.equal(weight, expected[name]), name


def test_the_inputs_captured_by_notebook_04_are_the_modules(walking, model, calibration):
    hidden, arguments = walking["inputs_of_first_block"](model, calibration)
    batches = [{"input_ids": window[None]} for window in calibration]
    with torch.no_grad():
        expected, calls = capture(model, find_blocks(model), batches)
    assert all(map(torch.equal, hidden, expected))
    assert len(hidden) == len(calibration)
    for name, value in calls[0][0].kwargs.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(arguments[name], value), name
        elif isinstance(value, tuple):
            assert all(map(torch.equal, arguments[name], value)), name
    assert arguments.keys() == calls[0][0].kwargs.keys()
    assert not model.model.layers[0]._forward_pre_hooks  # the hook is removed


def test_the_norms_of_notebook_04_are_the_modules(walking, model, calibration):
    hidden, arguments = walking["inputs_of_first_block"](model, calibration)
    blocks = find_blocks(model)
    with torch.no_grad():
        _, calls = capture(model, blocks, [{"input_ids": window[None]} for window in calibration])
        norms = walking["norms_of"](model.model.layers[0], hidden, arguments)
        seen = collect(blocks[0], hidden, calls[0], [(None,)] * len(hidden), InputNorm)
    assert len(norms) == len(seen) == len(blocks[0].layers)
    for layer, norm in zip(blocks[0].layers, norms, strict=True):
        assert torch.equal(norm, seen[layer.name].statistic.norm()), layer.name
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_walk_of_notebook_04_feeds_pruned_outputs_forward(walking, calibration):
    """Otherwise the comparison above could not distinguish the walk from one forward pass of the dense model."""
    walked, dense = tiny(), tiny()
    walking["walk"](walked, calibration, 0.5)
    wanda.prune(dense, calibration, propagate="dense", progress=False)
    expected = weights(dense)
    apart = [name for name, weight in weights(walked).items() if not torch.equal(weight, expected[name])]
    assert apart
    assert all(".layers.0." not in name for name in apart)


def test_the_distance_of_notebook_04_is_relative_to_the_dense_state():
    distance = cell_function(WALK, "distance")
    dense = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(dense, dense), torch.zeros(3))
    assert torch.allclose(distance(1.25 * dense, dense), torch.full((3,), 0.25))
