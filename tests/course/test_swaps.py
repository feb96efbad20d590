"""Exact swaps against brute force: every pair is tried by computing the error of the whole row again."""

import functools
import itertools

import pytest
import torch

import wanda
from wanda.masks import lowest
from wanda_course.swaps import swap


def problem(outputs=5, width=12, tokens=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(width, dtype=torch.float64) + torch.rand(width, width, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64) @ mixing  # [tokens, in], correlated
    return torch.randn(outputs, width, generator=generator), x.T @ x


def row_error(row, pruned, hessian):
    removed = row.double() * pruned
    return float(removed @ hessian @ removed)


def by_brute_force(row, pruned, hessian, size):
    """Take the best swap of each group of `size` in turn, until none helps. Returns the mask of a row."""
    pruned, before = pruned.clone(), None
    while before is None or not torch.equal(before, pruned):
        before = pruned.clone()
        for start in range(0, len(row), size):
            tried = [pruned]
            places = range(start, start + size)
            for k, u in itertools.product(places, places):
                if pruned[u] and not pruned[k]:
                    tried.append(pruned.clone())
                    tried[-1][k], tried[-1][u] = True, False
            pruned = min(tried, key=lambda mask: row_error(row, mask, hessian))
    return pruned


@pytest.mark.parametrize(("pattern", "size"), [(None, 12), ("2:4", 4), ("1:3", 3)])
@pytest.mark.parametrize("seed", range(3))
def test_with_every_pair_it_is_brute_force(pattern, size, seed):
    weight, hessian = problem(seed=seed)
    mask = lowest(weight.abs(), 0.5, pattern, "output")
    got = swap(weight, hessian, mask, pattern, candidates=12)
    expected = torch.stack([by_brute_force(*pair, hessian, size) for pair in zip(weight, mask, strict=True)])
    assert not torch.equal(expected, mask)
    assert torch.equal(got == 0, expected)
    assert torch.equal(got[~expected], weight[~expected])


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_few_candidates_lower_the_error_and_keep_the_counts(pattern):
    weight, hessian = problem(width=64, tokens=200)
    mask = lowest(weight.abs() * hessian.diagonal().sqrt(), 0.5, pattern, "output")
    after = swap(weight, hessian, mask, pattern, candidates=2)
    pairs = list(zip(weight, mask, after == 0, strict=True))
    assert all(row_error(row, new, hessian) <= row_error(row, old, hessian) + 1e-9 for row, old, new in pairs)
    assert any(row_error(row, new, hessian) < 0.95 * row_error(row, old, hessian) for row, old, new in pairs)
    size = 64 if pattern is None else 4
    assert torch.equal((after == 0).reshape(-1, size).sum(1), mask.reshape(-1, size).sum(1))


def test_features_that_were_always_zero_go_first():
    weight, hessian = problem()
    hessian[3], hessian[:, 3] = 0, 0
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[:, 0] = True
    assert torch.equal(swap(weight, hessian, mask) == 0, torch.arange(12).expand(5, 12) == 3)


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_it_refines_the_masks_of_a_model(model, calibration, pattern):
    def mean_error(update):
        with wanda.restoring(model):
            report = wanda.prune(model, calibration, pattern=pattern, update=update, progress=False)
        assert report.sparsity == pytest.approx(0.5, abs=0.01)
        first = [layer for layer in report.layers if "layers.0." in layer.name]
        return sum(layer.relative_error for layer in first)

    assert mean_error(functools.partial(swap, pattern=pattern)) < mean_error(None)
