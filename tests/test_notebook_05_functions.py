"""What notebook 05 builds in cells, the module owns: the two give the same results."""

import pytest
import reference
import torch
from cells import cell_function

import wanda
from wanda.sparsegpt import sparsegpt

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
