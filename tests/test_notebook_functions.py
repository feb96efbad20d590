"""What a notebook builds in a cell, the module owns: the two give the same results."""

import json
from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, tiny

import wanda
from wanda.blocks import find_blocks
from wanda.scores import wanda as module_score

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def cell_function(notebook, name, **known):
    """The function `name` as the one cell of a notebook defines it, run with `torch` and `known` in sight."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (source,) = [source for source in sources if f"def {name}(" in source]
    namespace = {"torch": torch, **known}
    exec(source, namespace)
    return namespace[name]


@pytest.fixture(scope="module")
def wanda_score():
    return cell_function("03_weights_times_activations", "wanda_score")


@pytest.fixture(scope="module")
def row_mask():
    return cell_function("03_weights_times_activations", "row_mask")


@pytest.fixture(scope="module")
def group_mask(row_mask):
    return cell_function("03_weights_times_activations", "group_mask", row_mask=row_mask)


def scores(outputs, width, levels=None):
    """A random score; with few levels, most of its entries are tied."""
    generator = torch.Generator().manual_seed(outputs * width)
    if levels is None:
        return torch.randn(outputs, width, generator=generator)
    return torch.randint(levels, (outputs, width), generator=generator).float()


SHAPES = [(1, 1), (3, 4), (8, 5), (16, 33), (40, 64)]
SPARSITIES = [0.0, 0.3, 0.5, 0.625, 0.9]


@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_score_of_notebook_03_is_that_of_the_module(wanda_score, outputs, width):
    weight, norm = scores(outputs, width), scores(width, 1)[:, 0].abs()
    assert torch.equal(wanda_score(weight, norm), module_score(weight, norm))


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_mask_of_notebook_03_is_that_of_the_module(row_mask, outputs, width, sparsity, levels):
    score = scores(outputs, width, levels)
    assert torch.equal(row_mask(score, sparsity), wanda.prune_mask(score, sparsity))


@pytest.mark.parametrize("group", ["output", "layer", "input"])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_groups_of_notebook_03_are_those_of_the_module(group_mask, outputs, width, sparsity, levels, group):
    score = scores(outputs, width, levels)
    assert torch.equal(group_mask(score, sparsity, group), wanda.prune_mask(score, sparsity, group=group))


# Notebook 08: norms window by window, any choice of which gives the masks of the module ---------------------------------


@pytest.fixture(scope="module")
def window_squares():
    return cell_function("08_calibration", "window_squares")


@pytest.fixture(scope="module")
def norms():
    return cell_function("08_calibration", "norms")


@pytest.mark.parametrize("chosen", [slice(None), slice(1), [0, 2]])
def test_the_norms_of_notebook_08_give_the_masks_of_the_module(window_squares, norms, chosen):
    model, windows = tiny(), scores(5, 12, levels=VOCABULARY).long()
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    norm = norms(window_squares(model, layers, windows), chosen)
    expected = {layer.name: wanda.prune_mask(module_score(layer.weight, norm[layer.name])) for layer in layers}
    wanda.prune(model, windows[chosen], propagate="dense", progress=False)
    assert all(torch.equal(layer.weight == 0, expected[layer.name]) for layer in layers)


def test_the_norms_of_notebook_08_leave_padding_out(window_squares, norms):
    model, windows = tiny(), scores(3, 12, levels=VOCABULARY).long()
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    mask = (torch.arange(12) < torch.tensor([[12], [5], [1]])).long()
    padded = norms(window_squares(model, layers, windows, mask))
    parts = [
        norms(window_squares(model, layers, row[None, :length]))
        for row, length in zip(windows, (12, 5, 1), strict=True)
    ]
    for layer in layers:
        squares = sum(part[layer.name].square() for part in parts)
        torch.testing.assert_close(padded[layer.name], squares.sqrt())
    unmasked = norms(window_squares(model, layers, windows))
    assert not torch.allclose(unmasked[layers[0].name], padded[layers[0].name])
