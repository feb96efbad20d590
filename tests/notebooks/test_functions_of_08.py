"""The norms per window in notebook 08's cells give the module's masks for any choice of windows."""

import pytest
import torch
from cells import cell_function, scores
from conftest import VOCABULARY, tiny

import wanda
from wanda import find_blocks
from wanda.scores import wanda as module_score


@pytest.fixture(scope="module")
def window_squares():
    return cell_function("08_calibration", "window_squares")


@pytest.fixture(scope="module")
def norms():
    norm_over = cell_function("08_calibration", "norm_over")
    return cell_function("08_calibration", "norms", norm_over=norm_over, wanda_score=module_score, wanda=wanda)


@pytest.mark.parametrize("chosen", [slice(None), slice(1), [0, 2]])
def test_the_norms_of_notebook_08_give_the_masks_of_the_module(window_squares, norms, chosen):
    model, windows = tiny(), scores(5, 12, levels=VOCABULARY).long()
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    norm = norms(window_squares(model, layers, windows), chosen)
    expected = {layer.name: wanda.prune_mask(module_score(layer.weight, norm[layer.name])) for layer in layers}
    wanda.prune(model, windows[chosen], propagate="dense", progress=False)
    assert all(torch.equal(layer.weight == 0, expected[layer.name]) for layer in layers)


def test_the_norms_of_notebook_08_exclude_padding(window_squares, norms):
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
