"""What notebook 12 builds is what the package computes: Hessians, swaps and ADMM without its rising sparsity."""

import reference
import torch
from cells import cell_definition, cell_function, scores
from conftest import VOCABULARY, tiny

import wanda
from wanda import find_blocks
from wanda.admm import admm
from wanda_course.swaps import swap

NAME = "12_after_wanda"


def problem(outputs=6, width=10):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, width, generator=generator, dtype=torch.float64)
    x = x @ (torch.eye(width) + torch.rand(width, width, generator=generator, dtype=torch.float64))
    return torch.randn(outputs, width, generator=generator, dtype=torch.float64), x.T @ x


def test_the_hessians_are_those_of_the_dense_model():
    model, windows = tiny(), scores(4, 12, levels=VOCABULARY).long()
    block = find_blocks(model)[1]
    found = cell_definition(NAME, "hessians")(model, block, windows)
    for layer in block.layers:
        x = reference.layer_inputs(model, block, windows)[layer.name].detach().double()
        torch.testing.assert_close(found[layer.name.rpartition(".")[2]], x.T @ x, rtol=1e-5, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_swaps_of_one_row_are_those_of_the_package():
    weight, hessian = problem()
    mask = wanda.prune_mask(weight.abs())
    swapped = cell_function(NAME, "swapped", swap_changes=cell_function(NAME, "swap_changes"))
    rows = [swapped(*pair, hessian) for pair in zip(weight, mask, strict=True)]
    assert torch.equal(torch.stack([row for row, _ in rows]), swap(weight, hessian, mask, candidates=10) == 0)
    assert sum(count for _, count in rows) > 0


def test_one_round_is_admms_first():
    weight, hessian = problem()
    norm = hessian.diagonal().sqrt()
    alternate = cell_function(NAME, "alternate", wanda=wanda)
    ours = alternate(weight * norm, hessian / norm / norm[:, None], 5, 1) / norm
    torch.testing.assert_close(ours.float(), admm(weight, hessian, iterations=1, damping=0)[0])


def test_the_relative_error_is_that_of_the_outputs():
    weight, hessian = problem()
    found = cell_definition(NAME, "relative_error")
    found.__globals__["squared_error"] = cell_function(NAME, "squared_error")
    x = torch.linalg.cholesky(hessian).T  # as good as the tokens
    new = weight.masked_fill(weight.abs() < 0.5, 0)
    assert abs(found(weight, new, hessian) - float((x @ (weight - new).T).norm() / (x @ weight.T).norm())) < 1e-9
