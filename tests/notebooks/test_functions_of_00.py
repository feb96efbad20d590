"""The functions in notebook 00's cells give the same results as the package's."""

import pytest
import torch
from cells import cell_function

import wanda
from wanda_course.exercises import set_01


def test_the_perplexity_of_notebook_00_is_the_packages():
    perplexity_of = cell_function("00_start_here", "perplexity_of")
    generator = torch.Generator().manual_seed(0)
    model = set_01.small_model(generator)
    for length in (2, 7, 32):
        ids = torch.randint(32, (length,), generator=generator)
        with torch.no_grad():
            logits = model(ids[None], use_cache=False).logits[0]
        assert float(perplexity_of(logits, ids)) == pytest.approx(wanda.perplexity(model, ids, length), rel=1e-4)
