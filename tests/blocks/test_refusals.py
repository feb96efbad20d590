"""What cannot be pruned as asked raises before any weight changes, and the message names the culprit."""

import copy

import peft
import pytest
import torch
import transformers
from conftest import VOCABULARY, tiny, tiny_llava
from torch import nn
from torch.nn.utils import prune as torch_prune

import wanda
from wanda import find_blocks

IDS = torch.randint(VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
Q = "model.layers.0.self_attn.q_proj"


def under_torch_prune(model):
    torch_prune.l1_unstructured(model.get_submodule(Q), "weight", amount=0.3)
    return model


def test_a_pattern_takes_the_sparsity_that_it_sets():
    assert wanda.prune(tiny(), IDS, pattern="1:4", sparsity=0.75, progress=False).sparsity == 0.75


def test_weights_computed_from_others_are_refused():
    with pytest.raises(ValueError, match=f"{Q} computes its weight from other parameters"):
        wanda.prune(under_torch_prune(tiny()), IDS, progress=False)
    model = under_torch_prune(tiny())
    torch_prune.remove(model.get_submodule(Q), "weight")
    wanda.prune(model, IDS, progress=False)
    assert wanda.sparsity(model) == 0.5


def test_own_positions_are_used():
    """Every token at position 0: without rotation the statistics differ, and some masks with them."""
    plain, at_zero = tiny(), tiny()
    wanda.prune(plain, IDS, method="sparsegpt", progress=False)
    wanda.prune(
        at_zero, [{"input_ids": IDS, "position_ids": torch.zeros_like(IDS)}], method="sparsegpt", progress=False
    )
    weights = [model.state_dict()["model.layers.2.self_attn.o_proj.weight"] for model in (plain, at_zero)]
    assert not torch.equal(*weights)


@pytest.fixture
def adapted():
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(tiny(), config)


def test_adapters_are_never_pruned(adapted):
    adapters = {name: w.clone() for name, w in adapted.state_dict().items() if "lora_" in name}
    expected = tiny()
    wanda.prune(expected, IDS, progress=False)
    report = wanda.prune(adapted, IDS, progress=False)
    assert all(torch.equal(weight, adapted.state_dict()[name]) for name, weight in adapters.items())
    assert wanda.sparsity(adapted) == report.sparsity == 0.5
    base = adapted.state_dict()[f"base_model.model.{Q}.base_layer.weight"]
    assert torch.equal(base, expected.state_dict()[f"{Q}.weight"])
    assert len(report.layers) == 7 * 3


def test_adapters_train_while_masks_are_kept(adapted):
    wanda.prune(adapted, IDS, progress=False)
    optimizer = torch.optim.AdamW([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.01)
    losses = []
    with wanda.keep_masks(adapted):
        for _ in range(5):
            loss = adapted(IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    merged, _ = wanda.merge_lora(adapted)
    assert wanda.sparsity(merged) == 0.5


def test_an_adapter_that_is_merged_already_is_named(adapted):
    wanda.prune(adapted, IDS, progress=False)
    adapted.merge_adapter()
    with pytest.raises(ValueError, match=r"adapter of .*q_proj is merged into the pruned weight"):
        wanda.merge_lora(adapted)


def test_the_sparsity_of_the_whole_model_is_told():
    model = tiny()
    report = wanda.prune(model, IDS, progress=False)
    zeros = sum(int((weight == 0).sum()) for block in find_blocks(model) for weight in (x.weight for x in block.layers))
    assert report.model_sparsity == pytest.approx(zeros / sum(weight.numel() for weight in model.parameters()))
    assert f"{report.model_sparsity:.2%} of the model" in str(report)


def test_the_whole_model_counts_tied_weights_once():
    model = tiny(transformers.LlamaConfig, tie_word_embeddings=True)
    report = wanda.prune(model, IDS, progress=False)
    assert report.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_told_before_anything_changes():
    with pytest.raises(ValueError, match="finds no CUDA"):
        wanda.prune(tiny(), IDS, device="cuda", progress=False)
    with pytest.raises(ValueError, match="finds no CUDA"):
        wanda.load("smollm2", device="cuda")


def test_a_text_given_as_a_source_is_named_in_short():
    with pytest.raises(ValueError, match="path of an existing text file") as caught:
        wanda.eval_tokens(None, source="A whole sentence. " * 1000)
    assert len(str(caught.value)) < 300


def test_a_wrapped_model_is_named():
    with pytest.raises(TypeError, match=r"DataParallel wraps the model; pass its \.module"):
        wanda.prune(nn.DataParallel(tiny()), IDS, progress=False)


@pytest.fixture
def seeing():
    return tiny_llava()


def test_the_blocks_that_read_the_text_are_pruned_and_the_tower_is_not(seeing):
    before = copy.deepcopy(seeing.state_dict())
    report = wanda.prune(seeing, IDS, progress=False)
    assert all("language_model" in layer.name for layer in report.layers)
    assert len(report.layers) == 2 * 7
    after = seeing.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if "language_model" not in name)


def test_pictures_in_a_batch_are_seen(seeing):
    ids = torch.randint(6, VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(0))
    ids[0, 2:7] = 5  # four patches and the class token
    pictures = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = []
    for picture in pictures:
        model = copy.deepcopy(seeing)
        wanda.prune(model, [{"input_ids": ids, "pixel_values": picture}], progress=False)
        masks.append(torch.cat([(layer.weight == 0).flatten() for b in find_blocks(model) for layer in b.layers]))
    assert not torch.equal(*masks)


def test_layers_that_share_a_weight_are_refused_and_the_others_pruned():
    """As in Zamba2: the first of the blocks would be pruned before it is known what the other reads."""
    model = tiny()
    first, *_, last = model.model.layers
    last.mlp = first.mlp
    last.self_attn.q_proj.weight = first.self_attn.q_proj.weight
    for skip, part in (((), "self_attn"), ("q_proj", "mlp")):
        with pytest.raises(ValueError, match=rf"layers\.2\.{part}.* share one weight; pass skip=\('{part}',\)"):
            wanda.prune(model, IDS, skip=skip, progress=False)
    report = wanda.prune(model, IDS, skip=("q_proj", "mlp"), progress=False)
    assert report.sparsity == 0.5
    assert len(report.layers) == 3 * 3


class Grouped(nn.Linear):
    """A linear layer of two groups: each half of the outputs reads its own half of the inputs, [..., 2, in]."""

    def forward(self, inputs):
        halves = self.weight.view(2, -1, self.in_features)
        return torch.einsum("...gi,goi->...go", inputs, halves).flatten(-2)


def test_a_linear_layer_that_applies_parts_of_its_weight_is_refused():
    model = tiny()
    model.model.layers[1].mlp.extra = Grouped(16, 32)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.extra is a Grouped.*pass skip=\('extra',\)"):
        wanda.prune(model, IDS, progress=False)
    wanda.prune(model, IDS, skip="extra", progress=False)


class AttendingWithFusedWeights(nn.Module):
    """Stands in for a ViT's attention; `nn.MultiheadAttention` holds queries, keys and values in one parameter."""

    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, hidden, *args, **kwargs):
        return self.attention(hidden, hidden, hidden)


def test_a_fused_matrix_in_a_model_of_images_is_refused_and_not_left_dense():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=8, patch_size=4)).eval()
    pixels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanda.prune(model, pixels, progress=False)
    for block in find_blocks(model):
        block.module.attention = AttendingWithFusedWeights(32)
    with pytest.raises(ValueError, match=r"attention\.in_proj_weight fuses several weight matrices .*\(96, 32\)"):
        wanda.prune(model, pixels, progress=False)
