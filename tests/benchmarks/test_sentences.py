"""The benchmark of an encoder, on a small random one."""

import copy

import numpy
import pytest
import torch
import transformers
from conftest import VOCABULARY, WORDS, word_tokenizer

from benchmarks import sentences


@pytest.fixture
def stories():
    generator = numpy.random.default_rng(0)
    return [" ".join(generator.choice(WORDS[1:], size)) for size in generator.integers(5, 20, 30)]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.BertModel(transformers.BertConfig(vocab_size=VOCABULARY, **sizes)).eval()


@pytest.fixture
def tokenizer():
    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def test_padding_does_not_change_the_cosines(encoder, tokenizer, stories, monkeypatch):
    together = sentences.cosines(encoder, sentences.batches(tokenizer, stories))
    monkeypatch.setattr(sentences, "BATCH", 1)  # no padding
    assert numpy.allclose(together, sentences.cosines(encoder, sentences.batches(tokenizer, stories)), atol=1e-5)


def test_every_method_is_measured_on_the_same_pairs_and_undone(encoder, tokenizer, stories, monkeypatch):
    monkeypatch.setattr(sentences, "STORIES", 6)
    before = copy.deepcopy(encoder.state_dict())
    ratings = numpy.random.default_rng(1).random(10 * 9 // 2)
    rows = sentences.measure(encoder, tokenizer, ratings, stories[:10], stories[10:])
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())
    assert [row["run"] for row in rows] == [
        "dense",
        *(f"{m} {a}" for a in sentences.AMOUNTS for m in sentences.METHODS),
    ]
    dense, *pruned = rows
    assert (dense["zeros"], dense["dense"]) == (0, [1.0])
    assert all(row["zeros"] == pytest.approx(0.5, abs=0.01) and max(row["dense"]) < 1 for row in pruned)
    draws = [1 if row["run"].startswith("magnitude") else sentences.DRAWS for row in pruned]
    assert [len(row["people"]) for row in pruned] == [len(row["dense"]) for row in pruned] == draws


def test_pairs_are_above_the_diagonal():
    assert list(sentences.pairs([[1, 2, 3], [4, 5, 6], [7, 8, 9]])) == [2, 3, 6]
