"""Loading and saving; the default model is an ordinary dense one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

import wanda
from wanda.sources import models
from wanda.sources.download import fetch
from wanda.tools.compare import restoring


def test_the_default_model(smollm2):
    model, tokenizer = smollm2
    assert model.dtype == torch.float32
    assert not model.training
    assert len(model.model.layers) == 30
    assert tokenizer.decode(tokenizer("Wanda prunes models.").input_ids) == "Wanda prunes models."
    assert wanda.sparsity(model) < 1e-3


def test_a_gguf_file_loads_as_an_ordinary_dense_model(smollm2, tmp_path):
    bundled, _ = smollm2
    model, tokenizer = wanda.load(str(fetch("smollm2")))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), bundled.parameters(), strict=True))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("The cat sat on the mat.", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(again(ids).logits, bundled(ids).logits)


def test_a_pruned_model_that_is_saved_and_reloaded_gives_the_same_logits(smollm2, tmp_path):
    model, tokenizer = smollm2
    ids = tokenizer("Pruning removes weights.", return_tensors="pt").input_ids
    with restoring(model):
        wanda.prune(model, method="magnitude", sparsity=0.3, progress=False)
        wanda.save(model, tokenizer, tmp_path / "new" / "folder")
        with torch.no_grad():
            expected = model(ids).logits
    again, tokenizer_again = wanda.load(str(tmp_path / "new" / "folder"))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, expected)
    assert wanda.sparsity(again) == pytest.approx(0.3, abs=1e-4)
    assert tokenizer_again("Pruning").input_ids == tokenizer("Pruning").input_ids
    half, _ = wanda.load(str(tmp_path / "new" / "folder"), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", Path("/nowhere"), "folder/of/mine", "missing.gguf"])
def test_a_missing_file_or_folder_is_refused(name):
    with pytest.raises(ValueError, match="there is no f"):
        wanda.load(name)


def test_an_unreachable_hub_repository_is_refused():
    with pytest.raises(ValueError, match="could not load 'someone/no-such-model'.*Hub"):
        wanda.load("someone/no-such-model")  # the tests run with the hub client offline


def test_hub_ids_go_to_the_hub_client_with_their_revision(monkeypatch, model):
    asked = []
    answer = (model, dict.fromkeys(("missing_keys", "mismatched_keys", "unexpected_keys"), ()))
    monkeypatch.setattr(models, "_config", lambda *given: asked.append(given) or model.config)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: (asked.append((a, k)), answer)[1])
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: asked.append((a, k)))
    wanda.load("someone/something", revision="abc", dtype=torch.float16, device="auto")
    options = {
        "dtype": torch.float16,
        "device_map": "auto",
        "revision": "abc",
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    assert asked == [
        ("someone/something", "abc"),
        (("someone/something",), options),
        (("someone/something",), {"revision": "abc"}),
    ]


def test_saving_to_a_file_is_refused(tmp_path, model):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        wanda.save(model, None, tmp_path / "file")


def test_a_damaged_prepared_model_is_prepared_again(tmp_path, monkeypatch, model):
    """A flipped bit does not change a file's size; damaged weights must not load in silence."""
    prepared = []
    monkeypatch.setattr(models, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(models, "fetch", lambda name: tmp_path / "file.gguf")
    monkeypatch.setattr(models, "load_gguf", lambda path, dtype: (prepared.append(path), (model, None))[1])
    folder = models.prepare()
    assert models.prepare() == folder
    assert len(prepared) == 1
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    damages = (
        lambda: weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1])),
        lambda: weights.write_bytes(before[:-10]),
        weights.unlink,
        lambda: shutil.rmtree(folder),
    )
    for damage in damages:
        damage()
        models.prepare()
        assert weights.read_bytes() == before
    for content in ("", "[]", "{"):
        (folder / models.MANIFEST).write_text(content)
        models.prepare()
        assert json.loads((folder / models.MANIFEST).read_text())
    assert len(prepared) == 1 + len(damages) + 3


def test_a_truncated_gguf_file_is_named(tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(fetch("smollm2").read_bytes()[:5_000_000])
    with pytest.raises(ValueError, match=r"could not read '.*cut\.gguf'; is it damaged\?"):
        wanda.load(path)


def test_a_model_saved_for_another_task_is_not_opened_as_a_generative_one(tmp_path):
    """transformers has a BertLMHeadModel, which would open it and answer as an encoder does."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(vocab_size=100, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="holds a BertForMaskedLM, which is not a generative language model; open it with"
    ):
        wanda.load(tmp_path)
