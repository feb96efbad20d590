"""The published scores in notebook 11's cells match their formulas, entry by entry."""

from functools import partial

import pytest
import torch
from cells import SHAPES, cell_function, scores

import wanda
from wanda import find_blocks
from wanda.scores import wanda as module_score
from wanda.tools.compare import restoring
from wanda_course.exercises.checker import EXERCISES
from wanda_course.exercises.set_11 import weighed_sparsities

ELEVEN = "11_your_own_metric"


def listening(name, model):
    """A cell's function that hooks the layers of a model."""
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    listen = cell_function(ELEVEN, "listen", layers=layers, partial=partial)
    return cell_function(ELEVEN, name, layers=layers, listen=listen)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_relative_importance_matches_its_formula(outputs, width, power):
    weight, norm = scores(outputs, width), scores(width, 1)[:, 0].abs()
    found = cell_function(ELEVEN, "ria_score")(weight, norm, power)
    for i in range(outputs):
        for j in range(width):
            size = abs(float(weight[i, j]))
            shares = size / float(weight[i].abs().sum()) + size / float(weight[:, j].abs().sum())
            assert float(found[i, j]) == pytest.approx(shares * float(norm[j]) ** power, rel=1e-4)


@pytest.mark.parametrize(("outputs", "width"), SHAPES)
def test_the_blended_score_matches_its_formula(outputs, width):
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
    assert torch.allclose(found, weighed_sparsities(shares, torch.full((7,), 30.0), 0.6, 0.05))
    assert float(found.mean()) == pytest.approx(0.6)


def test_equal_blocks_get_equal_sparsities():
    found = cell_function(ELEVEN, "owl_sparsities")(torch.full((4,), 0.02), 0.6)
    assert torch.equal(found, torch.full((4,), 0.6))


def recorded_norms(model, calibration):
    """The norms that `wanda.prune` passes to a score function, layer by layer, without those of its trial calls."""
    norms = []
    with restoring(model):

        def record(weight, norm):
            norms.append(norm)
            return weight.abs()

        report = wanda.prune(model, calibration, method=record, propagate="dense", progress=False)
    return norms[-len(report.layers) :]


def test_outliers_are_counted_in_each_block_over_all_its_layers(model, calibration):
    known = {"find_blocks": find_blocks, "input_norms": listening("input_norms", model), "wanda_score": module_score}
    known["outlier_share"] = cell_function(ELEVEN, "outlier_share")
    before = [parameter.clone() for parameter in model.parameters()]
    found = cell_function(ELEVEN, "outlier_shares", **known)(model, calibration, factor=2)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    names = [layer.name for block in find_blocks(model) for layer in block.layers]
    norms = dict(zip(names, recorded_norms(model, calibration), strict=True))
    for share, block in zip(found, find_blocks(model), strict=True):
        score = torch.cat([(layer.weight.abs() * norms[layer.name]).flatten() for layer in block.layers])
        assert float(share) == pytest.approx(float((score > 2 * score.mean()).double().mean()))
    assert 0 < float(found.min()) < float(found.max()) < 1


def test_moments_are_those_of_the_inputs_themselves(model, calibration):
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    seen = []
    handle = layers[-1].module.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found = listening("input_moments", model)(model, calibration)
    handle.remove()
    tokens = torch.cat(seen).flatten(0, -2)
    assert list(found) == [layer.name for layer in layers]
    mean, variance = found[layers[-1].name]
    assert torch.allclose(mean, tokens.mean(dim=0), atol=1e-6)
    assert torch.allclose(variance, tokens.var(dim=0, correction=0), atol=1e-6)


def test_norms_are_those_that_pruning_passes_to_a_score(model, calibration):
    found = listening("input_norms", model)(model, calibration)
    assert not any(module._forward_pre_hooks for module in model.modules())
    norms = recorded_norms(model, calibration)
    assert all(torch.allclose(*pair) for pair in zip(found.values(), norms, strict=True))


def test_the_project_runs_with_the_step_of_exercise_4(model, calibration):
    known = {"layers": [layer for block in find_blocks(model) for layer in block.layers], "wanda": wanda}
    known |= {"input_moments": listening("input_moments", model), "wanda_score": module_score, "sparsity": 0.5}
    known["refine"] = EXERCISES["11.4"].solution
    known["place_of"] = cell_function(ELEVEN, "place_of", layers=known["layers"])
    options = cell_function(ELEVEN, "dsnot", **known)(model, calibration)
    wanda.prune(model, calibration, propagate="dense", progress=False, **options)
    assert wanda.sparsity(model) == 0.5
