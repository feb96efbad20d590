"""The functions in notebook 07's cells give the same results as the module's."""

import pytest
import torch
from cells import cell_definition, cell_function, scores

import wanda
from wanda.tools.sparse24 import pack
from wanda_course.exercises.set_07 import bits_per_weight, expected_speedup, rounded

REAL_SPEED = "07_real_speed"


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize(("outputs", "width"), [(1, 4), (3, 8), (5, 20)])
def test_packing_by_hand_in_notebook_07_matches_the_module(outputs, width, zeros):
    weight = scores(outputs, width)
    weight = weight.masked_fill(wanda.prune_mask(weight.abs(), pattern="2:4"), 0)
    weight[:, torch.rand(width, generator=torch.Generator().manual_seed(0)) < zeros] = 0
    known = {"sparse": weight, "pack": pack}
    values, places = cell_function(REAL_SPEED, "pack_by_hand", **known)(weight)
    packed, bits = pack(weight)
    assert torch.equal(values, packed)
    halves = (places[:, ::2] | places[:, 1::2] << 2).tolist()  # four bits for each group
    assert [row[0] & 15 for row in bits.tolist()] == [row[0] for row in halves]
    assert [row[0] >> 4 for row in bits.tolist()] == [row[1] if width > 4 else 0 for row in halves]


@pytest.mark.parametrize(("keep", "size"), [(2, 4), (4, 8), (1, 4)])
@pytest.mark.parametrize("levels", [None, 3])
def test_the_mask_of_notebook_07_matches_the_module(keep, size, levels):
    score = scores(6, 16, levels)
    mask = cell_function(REAL_SPEED, "n_m_mask")(score, keep, size)
    assert torch.equal(mask, wanda.prune_mask(score, pattern=f"{keep}:{size}"))


def test_unpacking_in_notebook_07_gives_what_was_packed():
    weight = scores(5, 20)
    weight = weight.masked_fill(wanda.prune_mask(weight.abs(), pattern="2:4"), 0)
    packed = cell_function(REAL_SPEED, "pack_by_hand")(weight)
    assert torch.equal(cell_function(REAL_SPEED, "unpack_by_hand")(*packed), weight)


def test_rounding_in_notebook_07_moves_no_weight_that_lies_on_a_grid_with_more_bits():
    weight = rounded(scores(4, 64), 3)
    again = cell_function(REAL_SPEED, "rounded")
    assert torch.allclose(again(weight, 3), weight, atol=1e-6)
    assert (again(scores(4, 64), 3) - weight).abs().max() < 1e-6
    assert (again(scores(4, 64), 8) - scores(4, 64)).abs().max() < 0.02


@pytest.mark.parametrize(("keep", "size", "value"), [(2, 4, 16), (4, 8, 16), (2, 4, 8), (1, 4, 16), (16, 32, 16)])
def test_the_bits_of_notebook_07_match_its_exercise(keep, size, value):
    assert cell_definition(REAL_SPEED, "n_m_bits")(keep, size, value) == bits_per_weight(keep, size, value)


@pytest.mark.parametrize("count", [1, 20, 160, 4096])
def test_the_estimate_of_notebook_07_matches_its_exercise(count):
    dense, sparse = cell_function(REAL_SPEED, "estimate")(count)
    assert dense / sparse == pytest.approx(expected_speedup(count, 4096 * 4096, 4.8e12, 9.89e14))


def test_a_bitmap_of_notebook_07_holds_the_weight():
    weight = scores(6, 16).half()
    weight[weight.abs() < 0.7] = 0
    stored = cell_function(REAL_SPEED, "bitmap", pack=pack)(weight)
    marked = (stored["bits"][:, None] >> torch.arange(8)) & 1
    restored = torch.zeros(96, dtype=weight.dtype)
    restored[marked.flatten().bool()] = stored["values"]
    assert torch.equal(restored.reshape(6, 16), weight)


def test_the_rows_of_notebook_07_hold_the_weight():
    weight = scores(6, 16).half()
    weight[weight.abs() < 0.7] = 0
    stored = cell_function(REAL_SPEED, "csr", pack=pack)(weight)
    found = torch.zeros_like(weight)
    for row, (begin, end) in enumerate(zip(stored["rows"][:-1], stored["rows"][1:], strict=True)):
        found[row, stored["columns"][begin:end].long()] = stored["values"][begin:end]
    assert torch.equal(found, weight)
