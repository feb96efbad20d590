"""The functions in notebook 01's cells give the same results as PyTorch's and the package's."""

import torch
from cells import SHAPES, cell_function, scores
from torch.nn import functional

from wanda import find_blocks
from wanda.tools.outliers import replaced
from wanda_course.exercises import set_01

NOTEBOOK = "01_outlier_features"


def test_a_value_is_replaced_as_the_package_does_it_and_no_hook_is_left():
    logits_with = cell_function(NOTEBOOK, "logits_with", find_blocks=find_blocks)
    generator = torch.Generator().manual_seed(0)
    model = set_01.small_model(generator)
    window = torch.randint(32, (9,), generator=generator)
    for place, token, feature, value in ((0, 0, 3, 0.0), (1, 4, 5, 30.0), (2, 8, 15, -2.0)):
        with replaced(model, place, token, feature, value), torch.no_grad():
            expected = model(window[None], use_cache=False).logits[0]
        assert torch.equal(logits_with(model, window, place, token, feature, value), expected)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_norms_of_notebook_01_are_pytorchs():
    rms_norm = cell_function(NOTEBOOK, "rms_norm")
    input_norms = cell_function(NOTEBOOK, "input_norms")
    for tokens, width in SHAPES:
        state, gain = scores(tokens, width), scores(width, 1)[:, 0]
        torch.testing.assert_close(rms_norm(state, gain, 1e-5), functional.rms_norm(state, (width,), gain, 1e-5))
        torch.testing.assert_close(input_norms(state), state.norm(dim=0))
