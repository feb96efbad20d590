"""The functions in notebook 02's cells give the same results as the module's."""

import pytest
import torch
from cells import SHAPES, cell_function, scores

import wanda

NOTEBOOK = "02_magnitude_pruning"


@pytest.fixture(scope="module")
def magnitude_mask():
    return cell_function(NOTEBOOK, "magnitude_mask", smallest=cell_function(NOTEBOOK, "smallest"))


@pytest.fixture(scope="module")
def prune_by_loop():
    return cell_function(NOTEBOOK, "prune_by_loop")


@pytest.mark.parametrize(("row_wise", "group"), [(False, "layer"), (True, "output")])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.625, 0.9])
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_masks_of_notebook_02_are_the_modules(magnitude_mask, outputs, width, sparsity, levels, row_wise, group):
    weight = scores(outputs, width, levels) * (-1) ** torch.arange(width)
    assert torch.equal(
        magnitude_mask(weight, sparsity, row_wise), wanda.prune_mask(weight.abs(), sparsity, group=group)
    )


@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize(("outputs", "width"), SHAPES[:3])
def test_the_loop_of_notebook_02_chooses_the_same(magnitude_mask, prune_by_loop, outputs, width, row_wise):
    weight = scores(outputs, width, 3)
    assert torch.equal(prune_by_loop(weight, 0.5, row_wise), magnitude_mask(weight, 0.5, row_wise))
