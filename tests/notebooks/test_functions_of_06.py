"""The functions in notebook 06's cells do what its text says of them."""

import math

import pytest
import torch
from cells import cell_function, scores

BENCHMARK = "06_benchmark"


def test_a_text_has_one_perplexity_however_it_is_cut():
    losses = scores(1, 50)[0].abs()
    perplexity = cell_function(BENCHMARK, "text_perplexity")
    whole = math.exp(float(losses.mean()))
    for length in (7, 25, 50):
        assert perplexity(losses.split(length)) == pytest.approx(whole)


def test_bits_per_byte_count_the_bytes_of_utf_8():
    bits = cell_function(BENCHMARK, "bits_per_byte")
    assert bits(math.log(2), 6, "abc") == pytest.approx(2)
    assert bits(math.log(2), 6, "äöü") == pytest.approx(1)


def test_the_interval_of_a_constant_ratio_is_a_point_and_holds_the_ratio_otherwise():
    interval = cell_function(BENCHMARK, "ratio_interval")
    draws = torch.randint(12, (500, 12), generator=torch.Generator().manual_seed(0))
    losses = scores(1, 12)[0]
    assert interval(losses + math.log(2), losses, draws) == pytest.approx((2, 2), rel=1e-5)
    other = losses + 0.1 * scores(1, 24)[0, :12]
    low, high = interval(other, losses, draws)
    assert low < math.exp(float((other - losses).mean())) < high
