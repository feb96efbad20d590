"""Perplexity against a token-by-token definition."""

import math

import pytest
import torch
from conftest import VOCABULARY

import wanda


@pytest.fixture
def tokens():
    return torch.randint(VOCABULARY, (61,), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def obvious(model, tokens, length, stride):
    """Perplexity and number of scored tokens: each token in the first window that holds it and a token before it."""
    losses = {}
    for start in range(0, len(tokens), stride):
        window = tokens[start : start + length]
        logs = model(window[None]).logits[0].double().log_softmax(dim=-1)
        for place in range(1, len(window)):
            losses.setdefault(start + place, -logs[place - 1, window[place]].item())
    return math.exp(sum(losses.values()) / len(losses)), len(losses)


@pytest.mark.parametrize(
    ("length", "stride"), [(16, None), (16, 16), (16, 5), (16, 1), (61, None), (100, None), (60, None), (2, 1)]
)
def test_perplexity_equals_the_token_by_token_definition(model, tokens, length, stride):
    expected, _ = obvious(model, tokens, length, stride or length)
    assert wanda.perplexity(model, tokens, length, stride) == pytest.approx(expected, rel=1e-5)
    assert wanda.perplexity(model, tokens[None], length, stride) == pytest.approx(expected, rel=1e-5)


def test_the_tail_counts(model, tokens):
    with_tail, without = (wanda.perplexity(model, part, 16) for part in (tokens, tokens[:48]))
    assert with_tail != without
    assert obvious(model, tokens, 16, 16)[1] == 61 - 4
    assert obvious(model, tokens, 16, 5)[1] == 60


def test_a_uniform_prediction_has_the_perplexity_of_the_vocabulary_size(model, tokens):
    model.lm_head.weight.data.zero_()
    assert wanda.perplexity(model, tokens, 16) == pytest.approx(VOCABULARY, rel=1e-5)


def test_training_mode_is_restored(model, tokens):
    model.train()
    wanda.perplexity(model, tokens, 16)
    assert model.training


def test_training_mode_is_restored_after_an_error(model, tokens):
    model.train()
    model.lm_head.weight.data = model.lm_head.weight.data[:, :5]
    with pytest.raises(RuntimeError):
        wanda.perplexity(model, tokens, 16)
    assert model.training
