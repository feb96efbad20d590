"""Small models and data for the tests. Nothing here waits for a network."""

import os
from contextlib import contextmanager

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

VOCABULARY = 97


def tiny(config_class=LlamaConfig, seed=0, **options):
    """A random model of two or more small blocks, in evaluation mode."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    torch.manual_seed(seed)
    config = config_class(**(sizes | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | options))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@contextmanager
def on_cores(number):
    """For the time of a `with`, compute as on a machine with so many cores, whatever this one has."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def model():
    return tiny()


@pytest.fixture
def calibration():
    return torch.randint(VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def smollm2():
    """The real default model and its tokenizer, loaded once. Tests give the weights back (`restoring`)."""
    import wanda

    return wanda.load("smollm2")
