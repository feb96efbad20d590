"""The functions in notebook 03's cells give the same results as the module's."""

import pytest
import torch
from cells import SHAPES, cell_function, scores

import wanda
from wanda.scores import wanda as module_score

SPARSITIES = [0.0, 0.3, 0.5, 0.625, 0.9]


@pytest.fixture(scope="module")
def wanda_score():
    return cell_function("03_weights_times_activations", "wanda_score")


@pytest.fixture(scope="module")
def row_mask():
    return cell_function("03_weights_times_activations", "row_mask")


@pytest.fixture(scope="module")
def group_mask(row_mask):
    return cell_function("03_weights_times_activations", "group_mask", row_mask=row_mask)


@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_score_of_notebook_03_is_the_modules(wanda_score, outputs, width):
    weight, norm = scores(outputs, width), scores(width, 1)[:, 0].abs()
    assert torch.equal(wanda_score(weight, norm), module_score(weight, norm))


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_mask_of_notebook_03_is_the_modules(row_mask, outputs, width, sparsity, levels):
    score = scores(outputs, width, levels)
    assert torch.equal(row_mask(score, sparsity), wanda.prune_mask(score, sparsity))


@pytest.mark.parametrize("group", ["output", "layer", "input"])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_groups_of_notebook_03_are_the_modules(group_mask, outputs, width, sparsity, levels, group):
    score = scores(outputs, width, levels)
    assert torch.equal(group_mask(score, sparsity, group), wanda.prune_mask(score, sparsity, group=group))
