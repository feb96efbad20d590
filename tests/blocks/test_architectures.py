"""Pruning works on every decoder, whatever arguments its blocks take; what cannot be pruned is refused by name."""

import copy

import pytest
import reference
import torch
import transformers
from conftest import VOCABULARY, tiny
from torch import nn
from torch.nn import functional

import wanda
from wanda import find_blocks

HEADS = {"num_attention_heads": 4}
ARCHITECTURES = {
    "llama": (transformers.LlamaConfig, {}),
    "mistral with a sliding window": (transformers.MistralConfig, {"sliding_window": 8}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 8}),
    "gemma3 with local and global layers": (
        transformers.Gemma3TextConfig,
        {
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "phi": (transformers.PhiConfig, {"num_key_value_heads": 4}),
    "opt": (transformers.OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 32, "do_layer_norm_before": True}),
    "gpt2 with Conv1D": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    "gpt, whose blocks return lists": (transformers.OpenAIGPTConfig, {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "gpt neox": (transformers.GPTNeoXConfig, {}),
    "bloom": (transformers.BloomConfig, {"n_layer": 3, "n_head": 4}),
    "falcon": (transformers.FalconConfig, {"new_decoder_architecture": False, "multi_query": True}),
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    config, options = ARCHITECTURES[request.param]
    return tiny(config, **options)


def wanda_reference(weight, inputs):
    return weight.masked_fill(reference.prune_mask(weight.abs() * inputs.pow(2).sum(dim=0).sqrt(), 0.5), 0)


def zeros(model):
    return {layer.name: layer.weight == 0 for block in find_blocks(model) for layer in block.layers}


def test_the_walk_matches_whole_forward_passes(architecture, calibration):
    """Each block is replayed with its own arguments: masks, positions, whatever the family uses."""
    expected = copy.deepcopy(architecture)
    reference.walk(expected, calibration, wanda_reference)
    wanda.prune(architecture, calibration, progress=False)
    for name, mask in zeros(expected).items():
        assert (zeros(architecture)[name] == mask).double().mean() > 0.998, name
    assert wanda.sparsity(architecture) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_counts(architecture, calibration, side):
    padded = copy.deepcopy(architecture)
    wanda.prune(architecture, calibration[:1, :20], progress=False)
    extra = torch.full((1, 6), 7), torch.zeros(1, 6, dtype=torch.long)
    ids, mask = calibration[:1, :20], torch.ones(1, 20, dtype=torch.long)
    order = (lambda a, b: (b, a)) if side == "left" else (lambda a, b: (a, b))
    batch = {"input_ids": torch.cat(order(ids, extra[0]), 1), "attention_mask": torch.cat(order(mask, extra[1]), 1)}
    wanda.prune(padded, [batch], progress=False)
    for name, expected in zeros(architecture).items():
        assert (zeros(padded)[name] == expected).double().mean() > 0.995, name


def test_sparsegpt_and_saving(architecture, calibration, tmp_path):
    wanda.prune(architecture, calibration, method="sparsegpt", pattern="2:4", progress=False)
    wanda.save(architecture, None, tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(calibration).logits, architecture(calibration).logits)
    assert wanda.sparsity(again) == 0.5


class TupleBlock(nn.Module):
    """An older kind of block: its output is a tuple, and its input is passed by keyword."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, hidden_states, scale=1.0):
        return hidden_states + scale * torch.tanh(self.linear(hidden_states)), None


class TupleModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.blocks = nn.Embedding(VOCABULARY, 16), nn.ModuleList(TupleBlock() for _ in range(3))
        self.config = transformers.PretrainedConfig()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache=False):
        hidden = self.embedding(input_ids)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden_states=hidden, scale=index + 1.0)[0]
        return hidden


def test_blocks_that_return_tuples_and_take_keywords(calibration):
    torch.manual_seed(0)
    model = TupleModel()
    expected = copy.deepcopy(model)
    reference.walk(expected, calibration, wanda_reference)
    wanda.prune(model, calibration, progress=False)
    assert all(torch.equal(zeros(model)[name], mask) for name, mask in zeros(expected).items())


class Experts(nn.Module):
    """Experts as separate linear layers: each token goes to the first or the second, none to the third."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, hidden_states):
        rows = hidden_states.reshape(-1, 16)
        first = torch.arange(len(rows)) % 2 == 0
        output = torch.zeros_like(rows)
        output[first], output[~first] = self.experts[0](rows[first]), self.experts[1](rows[~first])
        return hidden_states + output.reshape(hidden_states.shape)


def test_an_expert_without_tokens_is_pruned_by_magnitude_with_a_warning(calibration):
    torch.manual_seed(0)
    model = TupleModel()
    model.blocks = nn.ModuleList([Experts()])
    model.forward = lambda input_ids, use_cache=False: model.blocks[0](model.embedding(input_ids))
    before = model.blocks[0].experts[2].weight.detach().clone()
    with pytest.warns(UserWarning, match=r"^1 of 3 layers received no calibration tokens.*: blocks\.0\.experts\.2$"):
        wanda.prune(model, calibration, progress=False)
    expected = before.masked_fill(reference.prune_mask(before.abs(), 0.5), 0)
    assert torch.equal(model.blocks[0].experts[2].weight, expected)


def test_models_without_blocks_are_refused(calibration):
    model = TupleModel()
    model.blocks = nn.ModuleList()
    with pytest.raises(ValueError, match="no repeated blocks"):
        wanda.prune(model, calibration)


def test_weights_that_are_missing_or_not_floats_are_refused(calibration):
    model = tiny()
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj holds torch\.int8"):
        wanda.prune(model, calibration)
    with torch.device("meta"):
        empty = tiny()
    with pytest.raises(ValueError, match="meta"):
        wanda.prune(empty, calibration)


def test_a_reached_layer_that_is_not_called_as_a_module_is_named(calibration):
    """A weight used through `functional.linear` fires no hook: pruning it without statistics needs a warning."""
    model = TupleModel()
    for block in model.blocks:
        block.forward = lambda hidden_states, scale=1.0, b=block: (
            functional.linear(hidden_states, b.linear.weight),
            None,
        )
    with pytest.warns(UserWarning, match=r"^3 of 3 layers received no calibration tokens.*: blocks\.0\.linear, blocks"):
        wanda.prune(model, calibration, progress=False)
