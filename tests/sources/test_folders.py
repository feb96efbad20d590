"""What a model's folder may hold: other kinds of models, adapters, tensors that the model does not use."""

import copy

import pytest
import torch
import transformers
from conftest import VOCABULARY, tiny, tiny_llava, word_tokenizer
from safetensors.torch import load_file, save_file

import wanda

IDS = torch.randint(6, VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def seeing(tmp_path):
    """The folder of an image-text model."""
    folder = tmp_path / "seeing"
    wanda.save(tiny_llava(), word_tokenizer(), folder)
    return folder


def test_the_folder_of_an_image_text_model_opens(seeing, tmp_path):
    model, tokenizer = wanda.load(seeing)
    assert type(model) is transformers.LlavaForConditionalGeneration
    assert tokenizer("w7").input_ids == [7]
    before = copy.deepcopy(model.state_dict())
    report = wanda.prune(model, IDS, progress=False)
    assert report.sparsity == 0.5
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {f"{layer.name}.weight" for layer in report.layers}
    wanda.save(model, tokenizer, tmp_path / "pruned")
    again, _ = wanda.load(tmp_path / "pruned")
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_an_image_text_model_is_streamed(seeing, tmp_path):
    expected, _ = wanda.load(seeing)
    wanda.prune(expected, IDS, progress=False)
    wanda.prune_checkpoint(seeing, tmp_path / "pruned", IDS, progress=False)
    streamed, _ = wanda.load(tmp_path / "pruned")
    assert all(torch.equal(weight, streamed.state_dict()[name]) for name, weight in expected.state_dict().items())


@pytest.mark.parametrize("way", ["load", "prune_checkpoint"])
def test_another_kind_of_model_is_refused_by_its_type(tmp_path, way):
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    arguments = {"load": (), "prune_checkpoint": (tmp_path / "pruned", IDS)}[way]
    with pytest.raises(ValueError, match="vit' holds a model of type 'vit', which is not a generative language model"):
        getattr(wanda, way)(tmp_path / "vit", *arguments)


def test_tensors_that_the_model_does_not_use_are_named(tmp_path):
    wanda.save(tiny(), word_tokenizer(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"mtp.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"holds 1 tensors that LlamaForCausalLM does not use, such as 'mtp\.weight'"):
        wanda.load(tmp_path)


def test_the_folder_of_an_adapter_opens_with_its_base_model(tmp_path):
    peft = pytest.importorskip("peft")
    wanda.save(tiny(), word_tokenizer(), tmp_path / "base")
    base, tokenizer = wanda.load(tmp_path / "base")
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    model, _ = wanda.load(tmp_path / "adapter")
    assert len(wanda.prune(model, IDS, progress=False).layers) == 3 * 7
