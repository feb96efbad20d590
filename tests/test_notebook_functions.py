"""What a notebook builds in a cell, the module owns: the two give the same results."""

import json
from pathlib import Path

import pytest
import reference
import torch

import wanda
from wanda.scores import wanda as module_score
from wanda.sparsegpt import sparsegpt

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


# Notebook 05 -------------------------------------------------------------------------------------------------------------

SPARSEGPT = "05_sparsegpt"


def known_problem(outputs, width, seed=0):
    """A weight [out, in] and a Hessian [in, in] of correlated features, both float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    inputs = torch.randn(8 * width, width, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
    return weight, inputs.T @ inputs, torch.rand(outputs, width, generator=generator) < 0.5


@pytest.fixture(scope="module")
def damped():
    return cell_function(SPARSEGPT, "damped")


def upper_factor(hessian):
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("outputs", "width"), [(1, 1), (3, 4), (5, 20), (8, 33)])
def test_the_repairs_of_notebook_05_are_that_of_the_published_algorithm(damped, outputs, width, seed):
    weight, hessian, mask = known_problem(outputs, width, seed)
    expected, _ = reference.sparsegpt(weight, hessian, mask=mask)
    matrix = damped(hessian)
    for name in ("refit", "by_columns"):
        repaired = cell_function(SPARSEGPT, name)(weight, matrix, mask)
        torch.testing.assert_close(repaired, expected, rtol=1e-7, atol=1e-8)
    for name, options in (("with_factor", {}), ("in_blocks", {}), ("in_blocks", {"block": 7})):
        repaired = cell_function(SPARSEGPT, name)(weight, upper_factor(matrix), mask, **options)
        torch.testing.assert_close(repaired, expected, rtol=1e-7, atol=1e-8)
    module, _ = sparsegpt(weight, hessian, mask=mask)
    torch.testing.assert_close(repaired.float(), module, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("block", [4, 8, 128])
def test_sparsegpt_of_notebook_05_is_that_of_the_published_algorithm_and_of_the_module(damped, sparsity, block):
    weight, hessian, _ = known_problem(6, 24)
    repair_block = cell_function(SPARSEGPT, "repair_block")
    known = {"damped": damped, "prune_mask": wanda.prune_mask, "repair_block": repair_block}
    got, mask = cell_function(SPARSEGPT, "sparsegpt", **known)(weight, hessian, sparsity, block=block)
    expected, chosen = reference.sparsegpt(weight, hessian, sparsity, block=block)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)
    module, same = sparsegpt(weight, hessian, sparsity, block=block)
    assert torch.equal(same, mask)
    torch.testing.assert_close(got.float(), module, rtol=2e-3, atol=2e-3)


def test_the_best_repair_of_notebook_05_is_a_least_squares_fit(damped):
    weight, hessian, mask = known_problem(4, 10)
    root = torch.linalg.cholesky(hessian, upper=True)  # inputs with this Hessian
    best = cell_function(SPARSEGPT, "best_repair")(weight, hessian, mask)
    assert (best[mask] == 0).all()
    for i in range(4):
        kept = ~mask[i]
        fit = torch.linalg.lstsq(root[:, kept], root @ weight[i, :, None]).solution[:, 0]
        torch.testing.assert_close(best[i, kept], fit, rtol=1e-7, atol=1e-8)
