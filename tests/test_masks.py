"""`prune_mask` against a brute-force definition."""

import pytest
import reference
import torch
from conftest import on_cores
from hypothesis import given
from hypothesis import strategies as st

import wanda
from wanda.devices import selection
from wanda.masks import GROUPS

# Few distinct values, so ties, zeros and equal rows are common; infinities are allowed.
VALUES = st.sampled_from([0.0, -0.0, 1.0, 1.0, 2.5, -3.0, 1e-30, float("inf"), float("-inf")]) | st.floats(
    -4, 4, width=32
)


@st.composite
def scores(draw, multiple=1):
    outputs, width = draw(st.integers(1, 6)), multiple * draw(st.integers(1, 12 // multiple + 1))
    values = draw(st.lists(VALUES, min_size=outputs * width, max_size=outputs * width))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    return torch.tensor(values).reshape(outputs, width).to(dtype)


@given(scores(), st.floats(0, 1, exclude_max=True), st.sampled_from(GROUPS))
def test_unstructured_masks_match_brute_force(score, sparsity, group):
    mask = wanda.prune_mask(score, sparsity, group=group)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, reference.prune_mask(score, sparsity, group=group))


@given(st.data(), st.integers(1, 9))
def test_pattern_masks_match_brute_force(data, size):
    keep = data.draw(st.integers(1, size))
    score = data.draw(scores(multiple=size))
    mask = wanda.prune_mask(score, pattern=f"{keep}:{size}")
    assert torch.equal(mask, reference.prune_mask(score, pattern=f"{keep}:{size}"))
    assert ((~mask).reshape(-1, size).sum(dim=1) == keep).all()


@given(scores(), st.floats(0, 1, exclude_max=True))
def test_counts_are_exact(score, sparsity):
    outputs, width = score.shape
    assert (wanda.prune_mask(score, sparsity).sum(dim=1) == round(sparsity * width)).all()
    assert wanda.prune_mask(score, sparsity, group="layer").sum() == round(sparsity * score.numel())
    assert (wanda.prune_mask(score, sparsity, group="input").sum(dim=0) == round(sparsity * outputs)).all()


def test_zero_columns_do_not_push_the_count_over_the_target():
    score = torch.rand(5, 10)
    score[:, :7] = 0  # more dead inputs than the target
    assert (wanda.prune_mask(score, 0.5).sum(dim=1) == 5).all()


def test_ties_are_broken_by_position():
    assert wanda.prune_mask(torch.ones(2, 4), 0.5).tolist() == [[True, True, False, False]] * 2
    assert wanda.prune_mask(torch.ones(2, 4), pattern="1:4").tolist() == [[True, True, True, False]] * 2
    assert wanda.prune_mask(torch.ones(2, 4), 0.5, group="layer").tolist() == [[True] * 4, [False] * 4]


WAYS = ("_mark_by_selecting", "_mark_by_comparing", "_mark_by_sorting")  # the last is the one of other devices


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", [None, "2:4", "1:4", "3:4", "1:2", "4:8", "10:16"])
def test_every_way_to_select_gives_the_same_mask(monkeypatch, way, pattern):
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(5, (40, 96), generator=generator).float()  # ties everywhere
    score[torch.rand(score.shape, generator=generator) < 0.1] = torch.inf
    for name in WAYS:
        monkeypatch.setattr(selection, name, getattr(selection, way))
    expected = reference.prune_mask(score, 0.37, pattern)
    assert torch.equal(wanda.prune_mask(score, 0.37, pattern), expected)


@pytest.mark.parametrize("panel", [1, 7, 40])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cores", [1, 3])
def test_panels_give_the_same_mask(monkeypatch, panel, way, cores):
    score = torch.randint(5, (6, 12), generator=torch.Generator().manual_seed(0)).float()  # ties everywhere
    expected = [reference.prune_mask(score, 0.37, group=group) for group in GROUPS]
    for name in WAYS:
        monkeypatch.setattr(selection, name, getattr(selection, way))
    monkeypatch.setattr(selection, "PANEL", {"cpu": panel, "other": panel})
    with on_cores(cores):
        for group, mask in zip(GROUPS, expected, strict=True):
            assert torch.equal(wanda.prune_mask(score, 0.37, group=group), mask), group
    assert wanda.prune_mask(torch.ones(2, 8), pattern="2:4").tolist() == [[True, True, False, False] * 2] * 2
