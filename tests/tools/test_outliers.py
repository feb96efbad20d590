"""Hidden states, outlier features, massive activations and replaced values, on a tiny LLaMA with random weights."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from wanda import find_blocks
from wanda.tools.outliers import (
    feature_ratios,
    hidden_states,
    inputs_of,
    massive_activations,
    outlier_features,
    replaced,
)

BLOCKS, HIDDEN = 3, 16


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tokens():
    return torch.randint(40, (9,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def states():
    """Five layers, nine tokens, twelve features of ordinary size."""
    return 1 + torch.rand(5, 9, 12, generator=torch.Generator().manual_seed(2))


def hooks(model):
    """The number of hooks. Not zero: transformers leaves some of its own after returning hidden states."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


# hidden_states ----------------------------------------------------------------------------------------------------------


def test_hidden_states_are_those_of_transformers_except_the_last_which_is_not_normalised(model, tokens):
    states = hidden_states(model, tokens)
    assert states.shape == (BLOCKS + 1, 9, HIDDEN)
    assert states.dtype == torch.float32
    assert not states.requires_grad
    with torch.no_grad():
        theirs = model(tokens[None], output_hidden_states=True, use_cache=False).hidden_states
        assert torch.equal(states[:-1], torch.cat(theirs[:-1]))
        assert torch.allclose(model.model.norm(states[-1]), theirs[-1][0], atol=1e-6)


def test_hidden_states_take_one_window_with_or_without_a_batch_dimension_and_leave_no_hook(model, tokens):
    before = hooks(model)
    assert torch.equal(hidden_states(model, tokens), hidden_states(model, tokens[None]))
    assert hooks(model) == before


def test_hidden_states_are_float32_whatever_the_model(model, tokens):
    half = LlamaForCausalLM(model.config).to(torch.bfloat16).eval()
    assert hidden_states(half, tokens).dtype == torch.float32


def test_inputs_of_a_layer_are_what_it_multiplies(model, tokens):
    before = hooks(model)
    block = find_blocks(model)[1].module
    states = hidden_states(model, tokens)
    read = inputs_of(block.self_attn.q_proj, model, tokens)
    assert torch.allclose(read, block.input_layernorm(states[1]), atol=1e-6)  # the norm is in between
    assert inputs_of(block.mlp.down_proj, model, tokens[None]).shape == (9, 24)
    assert hooks(model) == before


# Outlier features -------------------------------------------------------------------------------------------------------


def test_ordinary_states_have_no_outliers(states):
    assert feature_ratios(states).shape == (5, 12)
    assert outlier_features(states, 5.0) == []
    assert massive_activations(states) == []


def test_features_that_are_large_at_most_tokens_are_found_largest_first_whatever_their_sign(states):
    states[:, :, 3] *= -40
    states[1:3, :, 7] *= 90  # in two of five layers
    assert outlier_features(states, 20.0) == [7, 3]
    assert outlier_features(states, 20.0, share=0.5) == [3]
    assert outlier_features(states, 1000.0) == []


def test_a_single_massive_value_is_not_an_outlier_feature(states):
    states[:, 0, 3] = 1e6
    assert outlier_features(states, 5.0) == []


def test_feature_ratios_are_relative_to_their_layer(states):
    grown = states * torch.tensor([1.0, 10, 100, 1000, 10000])[:, None, None]
    assert torch.allclose(feature_ratios(grown), feature_ratios(states))
    assert torch.isfinite(feature_ratios(torch.zeros(1, 2, 3))).all()


# Massive activations ----------------------------------------------------------------------------------------------------


def test_massive_activations_are_found_with_position_value_and_ratio(states):
    states[2, 4, 6] = -5000.0
    states[2, 0, 1] = 9000.0
    states[1, 3, 3] = 50000.0
    found = massive_activations(states)
    assert [(item.layer, item.token, item.feature, item.value) for item in found] == [
        (1, 3, 3, 50000.0),
        (2, 0, 1, 9000.0),
        (2, 4, 6, -5000.0),
    ]
    assert found[1].ratio == pytest.approx(9000 / float(states[2].abs().median()))


def test_massive_means_above_both_a_magnitude_and_a_ratio(states):
    states[0, 0, 0] = 900.0  # below 1,000 medians of about 1.5
    assert massive_activations(states) == []
    assert len(massive_activations(states, ratio=100.0)) == 1
    small = states / 100
    small[1, 0, 0] = 90.0  # 6,000 medians, but below 100
    assert massive_activations(small) == []
    assert len(massive_activations(small, magnitude=50.0)) == 1


# Replaced values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", range(BLOCKS + 1))
def test_the_next_block_reads_a_replaced_value_and_nothing_before_it_changes(model, tokens, layer):
    before = hidden_states(model, tokens)
    with replaced(model, layer, 2, 5, 7.5) as same:
        assert same is model
        during = hidden_states(model, tokens)
    expected = before[layer].clone()
    expected[2, 5] = 7.5
    assert torch.equal(during[:layer], before[:layer])
    assert torch.equal(during[layer], expected)
    assert torch.equal(during[layer + 1 :, :2], before[layer + 1 :, :2])  # causal: earlier tokens do not see it
    assert not any(torch.equal(*pair) for pair in zip(during[layer + 1 :], before[layer + 1 :], strict=True))
    assert torch.equal(hidden_states(model, tokens), before)


def test_several_values_can_be_replaced_and_contexts_nested(model, tokens):
    with replaced(model, 1, slice(1, None), [0, 3]), replaced(model, 2, 0, slice(None), torch.arange(float(HIDDEN))):
        states = hidden_states(model, tokens)
    assert (states[1, 1:, [0, 3]] == 0).all()
    assert (states[1, 0] != 0).all()
    assert torch.equal(states[2, 0], torch.arange(float(HIDDEN)))


def test_replacing_changes_the_logits_and_an_error_inside_leaves_no_hook(model, tokens):
    before = hooks(model)
    with torch.no_grad():
        logits = model(tokens[None]).logits
        with replaced(model, BLOCKS, 8, 5, 50.0):
            assert not torch.allclose(model(tokens[None]).logits[0, 8], logits[0, 8])
    with pytest.raises(KeyError), replaced(model, 1, 0, 0):
        raise KeyError
    assert hooks(model) == before


@pytest.mark.parametrize("layer", [-1, BLOCKS + 1])
def test_a_layer_that_does_not_exist_is_refused(model, layer):
    with pytest.raises(ValueError, match="layer must be from 0 to 3"), replaced(model, layer, 0, 0):
        pass
