"""The functions in notebook 05's cells give the same results as the module's."""

import pytest
import reference
import torch
from cells import cell_function

import wanda
from wanda.sparsegpt import inverse_factor, repair, sparsegpt
from wanda_course import results
from wanda_course.exercises import set_05

SPARSEGPT = "05_sparsegpt"


def known_problem(outputs, width, seed=0):
    """A weight [out, in] and a Hessian [in, in] of correlated features, both float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    inputs = torch.randn(8 * width, width, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
    return weight, inputs.T @ inputs, torch.rand(outputs, width, generator=generator) < 0.5


def refit(row, hessian, removed):
    """The row [in] with zeros at these places and the others refitted."""
    kept = [place for place in range(len(row)) if place not in removed]
    new = torch.zeros_like(row)
    new[kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ row)
    return new


@pytest.fixture(scope="module")
def damped():
    return cell_function(SPARSEGPT, "damped")


def upper_factor(hessian):
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("outputs", "width"), [(1, 1), (3, 4), (5, 20), (8, 33)])
def test_the_repairs_of_notebook_05_match_the_published_algorithm(damped, outputs, width, seed):
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
    torch.testing.assert_close(repaired.float(), module, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("q", range(5))
def test_removing_one_weight_in_notebook_05_is_a_least_squares_fit_of_the_others(q):
    weight, hessian, _ = known_problem(1, 5)
    root = torch.linalg.cholesky(hessian, upper=True)  # inputs with this Hessian
    row = cell_function(SPARSEGPT, "remove_one")(weight[0], hessian, q)
    kept = torch.arange(5) != q
    fit = torch.linalg.lstsq(root[:, kept], root @ weight[0, :, None]).solution[:, 0]
    assert row[q] == 0
    torch.testing.assert_close(row[kept], fit, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_solution_of_exercise_05_1_removes_the_cheapest_in_each_round(count):
    """Against brute force: each round tries every removal and refits all that are left."""
    weight, hessian, _ = known_problem(1, 5, seed=3)
    row, removed = weight[0], []
    for _ in range(count):
        tries = {q: refit(row, hessian, [*removed, q]) for q in range(5) if q not in removed}
        error = {q: (row - new) @ hessian @ (row - new) for q, new in tries.items()}
        removed.append(min(error, key=error.get))
        row = tries[removed[-1]]
    solution = set_05.remove_cheapest(weight[0], hessian, count)
    assert (solution == 0).nonzero()[:, 0].tolist() == sorted(removed)
    torch.testing.assert_close(solution, row, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("block", [4, 8, 128])
def test_sparsegpt_of_notebook_05_matches_the_published_algorithm_and_the_module(damped, sparsity, block):
    weight, hessian, _ = known_problem(6, 24)
    repair_block = cell_function(SPARSEGPT, "repair_block")
    known = {"damped": damped, "prune_mask": wanda.prune_mask, "repair_block": repair_block}
    got, mask = cell_function(SPARSEGPT, "sparsegpt", **known)(weight, hessian, sparsity, block=block)
    expected, chosen = reference.sparsegpt(weight, hessian, sparsity, block=block)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)
    module, same = sparsegpt(weight, hessian, sparsity, block=block)
    assert torch.equal(same, mask)
    torch.testing.assert_close(got.float(), module, rtol=1e-5, atol=1e-6)


def test_the_best_repair_of_notebook_05_is_a_least_squares_fit(damped):
    weight, hessian, mask = known_problem(4, 10)
    root = torch.linalg.cholesky(hessian, upper=True)  # inputs with this Hessian
    best = cell_function(SPARSEGPT, "best_repair")(weight, hessian, mask)
    assert (best[mask] == 0).all()
    for i in range(4):
        kept = ~mask[i]
        fit = torch.linalg.lstsq(root[:, kept], root @ weight[i, :, None]).solution[:, 0]
        torch.testing.assert_close(best[i, kept], fit, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("width", "block"), [(24, 8), (24, 128), (32, 16)])
def test_the_solution_of_exercise_05_3_is_the_iterative_update_of_the_module(width, block):
    weight, hessian, _ = known_problem(6, width)
    norm = hessian.diagonal().sqrt()  # [in]
    factor, dead = inverse_factor(hessian, damping=0)
    module, mask = repair(
        weight, factor, dead, price=lambda part, here: part.abs() * norm[here], group="output", block=block
    )
    solution = set_05.iterative_wanda(weight, hessian, 0.5, block)
    assert torch.equal(solution == 0, mask)
    torch.testing.assert_close(solution.float(), module, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dead", [[], [0, 5, 6]])
def test_the_solution_of_exercise_05_4_is_the_matrix_that_the_module_factorises(dead):
    _, hessian, _ = known_problem(1, 12)
    hessian[dead] = 0
    hessian[:, dead] = 0
    factor, found = inverse_factor(hessian, damping=0.05)
    assert found.nonzero()[:, 0].tolist() == dead
    inverse = torch.linalg.inv(set_05.with_damping(hessian, 0.05))
    torch.testing.assert_close(factor.T @ factor, inverse, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("text", "low", "high"), [("wikitext2", 0.85, 1), ("wikipedia", 1, 1.15)])
def test_the_text_decides_between_sparsegpt_and_wanda_as_notebook_05_says(text, low, high):
    cells = results.quality(text=text, amount="50%", method=("sparsegpt", "wanda"), usual=True)
    half = {cell["method"]: cell["perplexity"] for cell in cells if cell["seed"] == 0}
    assert low < half["sparsegpt"] / half["wanda"] < high
