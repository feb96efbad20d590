"""What a notebook builds in a cell, the module owns: the two give the same results."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

import wanda
from wanda.blocks import find_blocks
from wanda.comparison import restoring
from wanda.course.exercise_set_11 import owl_sparsities as owl_for_any_sizes
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


# Notebook 11: published scores, held against the formulas entry by entry ------------------------------------------------

ELEVEN = "11_your_own_metric"


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_relative_importance_is_its_formula(outputs, width, power):
    weight, norm = scores(outputs, width), scores(width, 1)[:, 0].abs()
    found = cell_function(ELEVEN, "ria_score")(weight, norm, power)
    for i in range(outputs):
        for j in range(width):
            size = abs(float(weight[i, j]))
            shares = size / float(weight[i].abs().sum()) + size / float(weight[:, j].abs().sum())
            assert float(found[i, j]) == pytest.approx(shares * float(norm[j]) ** power, rel=1e-4)


@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_blended_score_is_its_formula(outputs, width):
    weight, norm, size = scores(outputs, width), scores(width, 1)[:, 0].abs(), scores(outputs, width + 1)[:, 1:].abs()
    found = cell_function(ELEVEN, "gradient_score")(weight, norm, size, 3.0)
    assert torch.allclose(found, weight.abs() * (norm + 3 * size))


def test_gradient_sizes_are_those_of_one_backward_pass_per_window(model, calibration):
    found = cell_function(ELEVEN, "gradient_sizes", find_blocks=find_blocks)(model, calibration)
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    gradients = []
    for window in calibration:
        model.zero_grad()
        model(window[None], labels=window[None]).loss.backward()
        gradients.append([layer.module.weight.grad.clone() for layer in layers])
    for size, *windows in zip(found, *gradients, strict=True):
        assert torch.allclose(size, torch.stack(windows).norm(dim=0), rtol=1e-4, atol=1e-9)


def test_blocks_of_one_size_get_the_sparsities_of_the_exercise():
    shares = scores(7, 1)[:, 0].abs()
    found = cell_function(ELEVEN, "owl_sparsities")(shares, 0.6, 0.05)
    assert torch.allclose(found, owl_for_any_sizes(shares, torch.full((7,), 30.0), 0.6, 0.05))
    assert float(found.mean()) == pytest.approx(0.6)


def test_outliers_are_counted_in_each_block_over_all_its_layers(model, calibration):
    known = {"wanda": wanda, "find_blocks": find_blocks, "restoring": restoring, "wanda_score": module_score}
    before = [parameter.clone() for parameter in model.parameters()]
    found = cell_function(ELEVEN, "outlier_shares", **known)(model, calibration, factor=2)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    norms = {}
    with restoring(model):
        recorded = iter([layer.name for block in find_blocks(model) for layer in block.layers])

        def record(weight, norm):
            norms[next(recorded)] = norm
            return weight.abs()

        wanda.prune(model, calibration, method=record, propagate="dense", progress=False)
    for share, block in zip(found, find_blocks(model), strict=True):
        score = torch.cat([(layer.weight.abs() * norms[layer.name]).flatten() for layer in block.layers])
        assert float(share) == pytest.approx(float((score > 2 * score.mean()).double().mean()))
    assert 0 < float(found.min()) < float(found.max()) < 1


def test_moments_are_those_of_the_inputs_themselves(model, calibration):
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    seen = []
    handle = layers[-1].module.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found = cell_function(ELEVEN, "input_moments", layers=layers, partial=partial)(model, calibration)
    handle.remove()
    tokens = torch.cat(seen).flatten(0, -2)
    assert list(found) == [layer.name for layer in layers]
    mean, variance = found[layers[-1].name]
    assert torch.allclose(mean.float(), tokens.mean(dim=0), atol=1e-6)
    assert torch.allclose(variance.float(), tokens.var(dim=0, correction=0), atol=1e-6)
