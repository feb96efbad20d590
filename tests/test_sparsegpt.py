"""SparseGPT against a float64 version of the published algorithm."""

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wanda.masks import prune_mask
from wanda.scores import magnitude, wanda
from wanda.sparsegpt import inverse_factor, repair, sparsegpt
from wanda.statistics import Hessian, InputNorm


def problem(outputs=6, width=24, tokens=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, width, generator=generator, dtype=torch.float64) @ mixing  # correlated features
    weight = torch.randn(outputs, width, generator=generator)
    return weight, (inputs.T @ inputs), inputs


@pytest.mark.parametrize("block", [128, 8, 7])
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.8])
def test_unstructured(sparsity, block):
    weight, hessian, _ = problem()
    got, mask = sparsegpt(weight, hessian.float(), sparsity, block=block)
    expected, chosen = reference.sparsegpt(weight, hessian, sparsity, block=block)
    assert torch.equal(mask, chosen)
    assert mask.sum() == round(sparsity * weight.numel())
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-3)
    assert (got[mask] == 0).all()


@pytest.mark.parametrize(
    ("pattern", "width"), [("2:4", 24), ("4:8", 24), ("1:4", 24), ("2:3", 24), ("5:12", 24), ("2:6", 24)]
)
def test_patterns(pattern, width):
    weight, hessian, _ = problem(width=width)
    got, mask = sparsegpt(weight, hessian.float(), pattern=pattern, block=8)
    expected, chosen = reference.sparsegpt(weight, hessian, pattern=pattern)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**31))
def test_any_shape_and_amount(data, outputs, groups, block, seed):
    size = data.draw(st.integers(1, 6), "M")
    pattern = data.draw(st.none() | st.integers(1, size).map(lambda keep: f"{keep}:{size}"), "pattern")
    sparsity = 0.5 if pattern else data.draw(st.floats(0, 1, exclude_max=True), "sparsity")
    weight, hessian, _ = problem(outputs, size * groups, seed=seed)
    got, mask = sparsegpt(weight, hessian, sparsity, pattern, block=block)
    expected, chosen = reference.sparsegpt(weight, hessian, sparsity, pattern=pattern, block=block)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    assert got[mask].count_nonzero() == 0


@pytest.mark.parametrize("panel", [1, 5])
@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_panel_size_changes_only_rounding(pattern, panel, precision, monkeypatch):
    weight, hessian, _ = problem(width=60)
    monkeypatch.setattr("wanda.sparsegpt.PRECISION", {"other": precision})
    expected, chosen = sparsegpt(weight, hessian.float(), pattern=pattern, block=32)
    monkeypatch.setattr("wanda.sparsegpt.PANEL", {"other": panel})
    got, mask = sparsegpt(weight, hessian.float(), pattern=pattern, block=32)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    # Another order of sums: it shows in float32; computed in float64, the float32 result is bit-identical.
    assert torch.equal(got, expected) == (precision == torch.float64)


def test_a_cpu_repairs_in_float64_and_returns_float32():
    weight, hessian, _ = problem(width=60)
    factor, dead = inverse_factor(hessian.float())
    assert factor.dtype == torch.float64
    assert repair(weight.bfloat16(), factor, dead)[0].dtype == torch.float32
    # The float64 version of the paper, to float32's last digit.
    got, mask = sparsegpt(weight, hessian, block=8)
    expected, chosen = reference.sparsegpt(weight, hessian, block=8)
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got, expected.float(), rtol=1e-6, atol=1e-7)


def test_repair_of_a_given_mask():
    weight, hessian, inputs = problem()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    got, same = sparsegpt(weight, hessian.float(), mask=mask)
    expected, _ = reference.sparsegpt(weight, hessian, mask=mask)
    assert torch.equal(same, mask)
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-3)
    error = torch.linalg.norm(inputs @ (weight.double() - got.double()).T)
    unrepaired = torch.linalg.norm(inputs @ (weight * mask).double().T)
    assert error < unrepaired


@pytest.mark.parametrize("block", [128, 8, 7])
@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({"sparsity": 0.5, "group": "output"}, wanda),
        ({"sparsity": 0.3, "group": "output"}, wanda),
        ({"sparsity": 0.5, "group": "layer"}, magnitude),
        ({"sparsity": 0.5, "group": "input"}, wanda),
        ({"pattern": "2:4"}, wanda),
        ({"pattern": "4:8"}, magnitude),
    ],
)
def test_a_mask_chosen_during_the_update_by_another_score(options, score, block):
    weight, hessian, inputs = problem()
    norm = inputs.norm(dim=0)  # [in]
    factor = inverse_factor(hessian.float())
    got, mask = repair(
        weight, *factor, **options, price=lambda part, columns: score(part, norm[columns].float()), block=block
    )
    expected, chosen = reference.sparsegpt(
        weight, hessian, **options, score=lambda value, j: score(value, norm[j]), block=block
    )
    assert torch.equal(mask, chosen)
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-3)
    first = slice(0, int(options["pattern"][-1]) if "pattern" in options else min(block, 24))
    dense_mask = prune_mask(score(weight, norm.float())[:, first], **options)
    assert torch.equal(mask[:, first], dense_mask)  # no update comes before the first columns
    if "pattern" in options or block < 24:
        assert not torch.equal(mask, prune_mask(score(weight, norm.float()), **options))  # updates change later scores


@pytest.mark.parametrize(("group", "dim"), [("output", 1), ("input", 0), ("layer", None)])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.77])
def test_each_group_loses_its_exact_share_during_the_update(group, dim, sparsity):
    weight, hessian, _ = problem(outputs=5)
    _, mask = repair(
        weight, *inverse_factor(hessian.float()), sparsity, price=lambda part, _: part.abs(), group=group, block=7
    )
    size = mask.numel() if dim is None else mask.shape[dim]
    counts = mask.sum() if dim is None else mask.sum(dim=dim)
    assert (counts == round(sparsity * size)).all()


def test_the_references_update_is_a_least_squares_fit():
    """Check the reference itself, without an inverse: against the least-squares fit by the columns on the right."""
    weight, hessian, inputs = problem(outputs=3, width=8)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    expected, _ = reference.sparsegpt(weight, hessian, mask=mask, damping=0)
    fitted = weight.double()
    for j in range(8):
        fitted[mask[:, j], j] = 0
        missing = inputs @ weight.double().T - inputs[:, : j + 1] @ fitted[:, : j + 1].T  # [tokens, out]
        if j < 7:
            fitted[:, j + 1 :] = torch.linalg.lstsq(inputs[:, j + 1 :], missing).solution.T
    torch.testing.assert_close(fitted, expected, rtol=1e-8, atol=1e-8)


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    _, hessian, _ = problem()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(24)
    factor, dead = inverse_factor(hessian.float())
    torch.testing.assert_close(
        factor.double(), torch.linalg.cholesky(torch.linalg.inv(damped), upper=True), rtol=1e-2, atol=1e-5
    )
    assert not dead.any()


def test_with_a_diagonal_hessian_it_ranks_by_the_wanda_score_and_updates_nothing():
    weight, hessian, inputs = problem()
    got, mask = sparsegpt(weight, torch.diag(hessian.diagonal()).float(), 0.5, block=8, damping=0)
    score = weight * inputs.norm(dim=0)
    for start in range(0, 24, 8):
        here = slice(start, start + 8)
        assert torch.equal(mask[:, here], prune_mask(score[:, here].abs(), 0.5, group="layer"))
    assert torch.equal(got, weight.masked_fill(mask, 0))


def test_dead_features_are_pruned_first_and_handled_separately():
    weight, hessian, _ = problem()
    dead = torch.tensor([0, 5, 6])
    hessian[dead] = 0
    hessian[:, dead] = 0
    got, mask = sparsegpt(weight, hessian.float(), 0.5)
    assert mask[:, dead].all()  # pruning them costs nothing, so they are pruned first
    assert mask.sum() == round(0.5 * weight.numel())
    live = [j for j in range(24) if j not in dead.tolist()]
    # The rest is the problem without the dead columns, at a sparsity reduced by their zeros.
    few = (mask.sum() - mask[:, dead].sum()).item() / (len(weight) * len(live))
    alone, alone_mask = sparsegpt(weight[:, live], hessian[live][:, live].float(), few)
    assert torch.equal(mask[:, live], alone_mask)
    torch.testing.assert_close(got[:, live], alone, rtol=1e-4, atol=1e-5)


def test_more_dead_features_than_the_target_do_not_push_the_count_over_it():
    weight, hessian, _ = problem()
    hessian[:20] = 0
    hessian[:, :20] = 0
    _, mask = sparsegpt(weight, hessian.float(), 0.5)
    assert mask.sum() == round(0.5 * weight.numel())


def test_a_hessian_that_is_not_positive_definite_is_damped_more_and_named():
    weight = torch.randn(3, 4)
    hessian = torch.eye(4)
    hessian[0, 1] = hessian[1, 0] = 1.05  # eigenvalue -0.05
    with pytest.warns(UserWarning, match="model.layer.7.*damping 0.1"):
        _, mask = sparsegpt(weight, hessian, 0.5, layer="model.layer.7")
    assert mask.sum() == 6
    with pytest.warns(UserWarning, match="damping"), pytest.raises(RuntimeError, match=r"model\.layer\.7.*calibration"):
        sparsegpt(weight, -torch.eye(4), 0.5, layer="model.layer.7")


def test_a_width_that_the_pattern_does_not_divide_is_refused():
    weight, hessian, _ = problem()
    with pytest.raises(ValueError, match="divisible by 5.*q_proj has 24"):
        sparsegpt(weight, hessian, pattern="2:5", layer="q_proj")


@pytest.mark.parametrize("statistic", [InputNorm, Hessian])
def test_statistics_add_up_and_merge(statistic):
    inputs = torch.randn(50, 1100, generator=torch.Generator().manual_seed(0))  # more than two panels
    whole, first, second = (statistic(1100) for _ in range(3))
    whole.add(inputs)
    first.add(inputs[:20].to(torch.float64))
    second.add(inputs[20:])
    first.merge(second)
    torch.testing.assert_close(first.norm(), inputs.norm(dim=0))
    torch.testing.assert_close(whole.norm(), first.norm())
    assert whole.tokens == first.tokens == 50
    if statistic is Hessian:
        torch.testing.assert_close(first.matrix(), inputs.T @ inputs, rtol=1e-4, atol=1e-4)
        assert torch.equal(first.matrix(), first.matrix().T)


def test_statistics_are_float32_for_half_precision_inputs():
    inputs = torch.full((1000, 3), 200.0, dtype=torch.float16)  # 200 squared times 1000 overflows float16
    norm = InputNorm(3)
    norm.add(inputs)
    assert norm.norm().tolist() == pytest.approx([200 * 1000**0.5] * 3)
