"""ADMM against a literal float64 version of the published algorithm, and against the exact answer for a fixed mask."""

import copy

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sparsegpt import problem

import wanda
from wanda.admm import RAMP, admm, normal_equations, solve
from wanda.masks import prune_mask
from wanda.scores import wanda as wanda_score
from wanda.sparsegpt import sparsegpt


@pytest.mark.parametrize("group", ["output", "layer", "input"])
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.8])
def test_unstructured(sparsity, group):
    weight, hessian, _ = problem()
    got, mask = admm(weight, hessian, sparsity, group=group)
    expected, chosen = reference.admm(weight, hessian, sparsity, group=group)
    assert torch.equal(mask, chosen)
    assert torch.equal(mask.sum(), prune_mask(weight, sparsity, group=group).sum())
    torch.testing.assert_close(got, expected.float())
    assert (got[mask] == 0).all()


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "2:3", "5:12", "4:4"])
def test_patterns(pattern):
    weight, hessian, _ = problem()
    got, mask = admm(weight, hessian, pattern=pattern)
    expected, chosen = reference.admm(weight, hessian, pattern=pattern)
    assert torch.equal(mask, chosen)
    keep, size = map(int, pattern.split(":"))
    assert (mask.reshape(-1, size).sum(dim=1) == size - keep).all()
    torch.testing.assert_close(got, expected.float())


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**31))
def test_any_shape_amount_and_number_of_iterations(data, outputs, groups, iterations, seed):
    size = data.draw(st.integers(1, 6), "M")
    pattern = data.draw(st.none() | st.integers(1, size).map(lambda keep: f"{keep}:{size}"), "pattern")
    sparsity = 0.5 if pattern else data.draw(st.floats(0, 1, exclude_max=True), "sparsity")
    weight, hessian, _ = problem(outputs, size * groups, seed=seed)
    got, mask = admm(weight, hessian, sparsity, pattern, iterations=iterations)
    expected, chosen = reference.admm(
        weight, hessian, sparsity, pattern, iterations=iterations, ramp=min(RAMP, iterations)
    )
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_with_a_fixed_mask_it_converges_to_the_exact_least_squares_answer():
    """The kept weights of each row, fitted by the normal equations of the damped problem."""
    weight, hessian, _ = problem()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    damped = hessian + 0.1 * torch.diag(hessian.diagonal())
    exact = torch.zeros_like(weight, dtype=torch.float64)
    for row, kept, answer in zip(weight.double(), ~mask, exact, strict=True):
        answer[kept] = torch.linalg.solve(damped[kept][:, kept], damped[kept] @ row)
    errors = []
    for iterations in (20, 200):
        got, same = admm(weight, hessian, mask=mask, iterations=iterations)
        assert torch.equal(same, mask)
        errors.append(float((got - exact).norm() / exact.norm()))
    assert errors[0] < 0.01
    assert errors[1] < 1e-6


def test_it_leaves_a_smaller_error_than_sparsegpt_and_a_mask_alone():
    weight, hessian, inputs = problem(outputs=32, width=48, tokens=400)

    def error(pruned):
        return torch.linalg.norm(inputs @ (weight - pruned).double().T)

    mask = prune_mask(wanda_score(weight, hessian.diagonal().sqrt().float()))
    pruned_by_wanda = weight.masked_fill(mask, 0)
    solved = error(admm(weight, hessian)[0])
    assert solved < 0.8 * error(sparsegpt(weight, hessian)[0])
    assert solved < 0.8 * error(pruned_by_wanda)


def test_features_that_were_always_zero_lose_their_weights_first_and_keep_them_unchanged_otherwise():
    weight, hessian, _ = problem(width=24)
    hessian[:, 3] = hessian[3] = 0
    got, mask = admm(weight, hessian, 0.5)
    assert torch.isfinite(got).all()
    assert mask[:, 3].all()
    got, mask = admm(weight, hessian, 0.02)  # none of 24 is pruned
    assert not mask.any()
    assert torch.equal(got[:, 3], weight[:, 3])
    torch.testing.assert_close(got, weight)


def test_more_features_than_tokens_need_no_special_care():
    weight, hessian, _ = problem(width=24, tokens=5)
    assert torch.isfinite(admm(weight, hessian, 0.7)[0]).all()


def test_a_cpu_computes_in_float64_and_returns_float32():
    weight, hessian, _ = problem()
    norm, inverse = normal_equations(hessian.float())
    assert norm.dtype == inverse.dtype == torch.float64
    assert solve(weight.bfloat16(), norm, inverse)[0].dtype == torch.float32


def test_invalid_arguments_are_refused():
    weight, hessian, _ = problem()
    with pytest.raises(ValueError, match="fraction of weights to remove; got 1"):
        admm(weight, hessian, 1)
    with pytest.raises(ValueError, match="divisible by 5"):
        admm(weight, hessian, pattern="1:5")
    with pytest.raises(ValueError, match="cannot be combined with group='layer'"):
        admm(weight, hessian, pattern="2:4", group="layer")


@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}, {"group": "layer"}, {"sparsity": {"*": 0.3}}])
def test_a_model_is_pruned_as_the_layers_alone_would_be(options, model, calibration):
    """Layers that read the same input share what is computed from it."""
    amount = {"sparsity": 0.3 if "sparsity" in options else 0.5}
    amount |= {name: options[name] for name in ("pattern", "group") if name in options}
    expected = copy.deepcopy(model)
    reference.walk(expected, calibration, lambda weight, inputs: reference.admm(weight, inputs.T @ inputs, **amount)[0])
    report = wanda.prune(model, calibration, method="admm", progress=False, **options)
    assert report.method.startswith("admm")
    layers = [[layer for block in wanda.find_blocks(one) for layer in block.layers] for one in (model, expected)]
    for got, wanted in zip(*layers, strict=True):
        assert ((got.weight == 0) == (wanted.weight == 0)).double().mean() > 0.999, got.name
        torch.testing.assert_close(got.weight, wanted.weight, rtol=1e-3, atol=1e-4)


def test_an_update_beside_it_is_refused(model, calibration):
    with pytest.raises(ValueError, match="update='obs' does not apply"):
        wanda.prune(model, calibration, method="admm", update="obs", progress=False)
