"""Experts fused into one tensor are pruned one by one, by the tokens that were routed to each; routers stay dense.

The reference uses no hook of ours: it runs the whole model and watches its matrix products.
"""

import copy
import re

import pytest
import reference
import torch
import transformers
from conftest import tiny
from packaging.version import Version
from safetensors.torch import load_file, save_file
from watching import reference_walk, zeros

import wanda
from wanda import find_blocks

ROUTED = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
FAMILIES = {
    "mixtral": (transformers.MixtralConfig, {"num_local_experts": 4}),
    "qwen2 moe with a shared expert": (
        transformers.Qwen2MoeConfig,
        ROUTED | {"shared_expert_intermediate_size": 40, "decoder_sparse_step": 1},
    ),
    "qwen3 moe": (transformers.Qwen3MoeConfig, ROUTED | {"head_dim": 8}),
    "olmoe": (transformers.OlmoeConfig, ROUTED),
    "phimoe with linear routers": (transformers.PhimoeConfig, {"num_local_experts": 4}),
    "deepseek v3 with a dense first block": (
        transformers.DeepseekV3Config,
        LATENT
        | {"moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 2}
        | {"first_k_dense_replace": 1, "num_key_value_heads": 4},
    ),
    "gpt-oss, transposed, interleaved and biased": (
        transformers.GptOssConfig,
        {"num_local_experts": 4, "head_dim": 8, "layer_types": ["full_attention"] * 3},
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    config, options = FAMILIES[request.param]
    return tiny(config, **options)


def test_every_expert_is_pruned_by_its_own_tokens(family, calibration):
    expected = copy.deepcopy(family)
    reference_walk(expected, [{"input_ids": window[None]} for window in calibration])
    report = wanda.prune(family, calibration, progress=False)
    found = zeros(family)
    for name, mask in zeros(expected).items():
        assert (found[name] == mask).double().mean() > 0.995, name
    assert {layer.name for layer in report.layers} == found.keys()
    assert sum(".experts." in name for name in found) >= 2 * 4 * 2  # two projections of four experts in two blocks
    assert not any("router" in name or name.endswith("gate") for name in found)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert wanda.sparsity(family) == pytest.approx(report.sparsity)


def test_padding_never_reaches_an_expert(family, calibration):
    padded = copy.deepcopy(family)
    wanda.prune(family, calibration[:1, :20], progress=False)
    ids = torch.cat([calibration[:1, :20], torch.full((1, 6), 7)], dim=1)
    mask = torch.tensor([[1] * 20 + [0] * 6])
    wanda.prune(padded, [{"input_ids": ids, "attention_mask": mask}], progress=False)
    for name, expected in zeros(family).items():
        assert (zeros(padded)[name] == expected).double().mean() > 0.99, name


@pytest.mark.parametrize(
    "options",
    [{"method": "sparsegpt"}, {"method": "sparsegpt", "pattern": "2:4"}, {"pattern": "2:4"}, {"method": "admm"}],
)
def test_updates_and_patterns_are_saved_as_they_are_in_memory(family, calibration, options, tmp_path):
    wanda.prune(family, calibration, **options, progress=False)
    wanda.save(family, None, tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for (name, weight), other in zip(family.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    assert wanda.sparsity(again) == pytest.approx(0.5, abs=0.02)


def test_experts_without_tokens_are_counted_in_one_warning(calibration):
    model = tiny(transformers.MixtralConfig, num_local_experts=4, num_experts_per_tok=1)
    before = copy.deepcopy(model)
    for block in model.model.layers:
        block.mlp.gate.weight.data.zero_()  # every token goes to the first expert
    with pytest.warns(UserWarning, match="received no calibration tokens") as caught:
        report = wanda.prune(model, calibration, progress=False)
    unreached = [layer.name for layer in report.layers if not layer.reached]
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"{len(unreached)} of {len(report.layers)} layers")
    assert len(unreached) == 3 * 3 * 2
    for layer, old in zip(find_blocks(model)[0].layers, find_blocks(before)[0].layers, strict=True):
        if layer.name in unreached:
            assert torch.equal(layer.weight == 0, reference.prune_mask(old.weight.abs(), 0.5))
    assert not report.to_frame()["reached"].all()


def test_skip_names_experts_and_projections(calibration):
    model = tiny(transformers.MixtralConfig, num_local_experts=4)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = wanda.prune(model, calibration, skip=("experts.1", "layers.0.mlp"), progress=False)
    names = {layer.name for layer in report.layers}
    assert "model.layers.1.mlp.experts.0.down_proj" in names
    assert not any("experts.1." in name or "layers.0.mlp" in name for name in names)
    after = model.state_dict()
    fused = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(after[fused][1], before[fused][1])
    assert not torch.equal(after[fused][0], before[fused][0])


def test_masks_of_experts_are_kept_in_training(calibration):
    model = tiny(transformers.MixtralConfig, num_local_experts=4)
    wanda.prune(model, calibration, progress=False)
    pruned = zeros(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with wanda.keep_masks(model):
        for window in calibration[:2]:
            model(window[None], labels=window[None]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all((zeros(model)[name] & mask).sum() == mask.sum() for name, mask in pruned.items())


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        pytest.param(
            transformers.DbrxConfig,
            {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}
            | {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}}
            | {"ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}},
            r"experts\.mlp\.w1 fuses",
            marks=pytest.mark.skipif(
                Version(transformers.__version__) < Version("5.18"),
                reason="older releases of transformers cannot run DBRX themselves (5.14 cannot, 5.18 can)",
            ),
        ),
        (
            transformers.Llama4TextConfig,
            {"num_local_experts": 4, "interleave_moe_layer_step": 1},
            "experts.gate_up_proj fuses",
        ),
    ],
)
def test_other_forms_of_experts_are_refused_by_name_and_can_be_skipped(config, options, message, calibration):
    model = tiny(config, **options)
    skip = ()
    with pytest.raises(ValueError, match=message) as caught:
        wanda.prune(model, calibration, progress=False)
    while caught is not None:  # follow the advice, one tensor after the other
        (advice,) = re.findall(r"skip=\('(.*?)',\)", str(caught.value))
        assert advice not in skip
        skip, caught = (*skip, advice), None
        try:
            report = wanda.prune(model, calibration, skip=skip, progress=False)
        except ValueError as error:
            caught = pytest.ExceptionInfo.from_exception(error)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert wanda.sparsity(model) == pytest.approx(0.5, abs=0.02)  # of the layers that can be pruned
    with wanda.restoring(model):
        model.get_submodule(report.layers[0].name).weight.data.zero_()
    assert wanda.sparsity(model) == pytest.approx(0.5, abs=0.02)
    assert report.model_sparsity < 0.4


@pytest.mark.parametrize("options", [{}, {"method": "sparsegpt", "pattern": "2:4"}, {"method": "magnitude"}])
def test_a_checkpoint_with_experts_is_streamed(family, calibration, options, tmp_path):
    """Checkpoints hold the experts' matrices apart; the streamed one equals the one pruned in memory, tensor by tensor."""
    family.save_pretrained(tmp_path / "source", max_shard_size="50KB")
    report = wanda.prune_checkpoint(tmp_path / "source", tmp_path / "target", calibration, **options, progress=False)
    source = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "source").eval()
    expected = wanda.prune(source, calibration, **options, progress=False)
    assert [layer.name for layer in report.layers] == [layer.name for layer in expected.layers]
    assert report.model_sparsity == expected.model_sparsity
    streamed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    for name, weight in source.state_dict().items():
        assert torch.equal(weight, streamed.state_dict()[name]), name


def test_an_expert_that_the_checkpoint_lacks_is_named(calibration, tmp_path):
    model = tiny(transformers.MixtralConfig, num_local_experts=3)
    model.save_pretrained(tmp_path / "source")
    tensors = load_file(tmp_path / "source" / "model.safetensors")
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    save_file(tensors, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.experts\.gate_up_proj' is .*\(64, 32\) for expert 2"):
        wanda.prune_checkpoint(tmp_path / "source", tmp_path / "target", calibration, progress=False)
    assert not (tmp_path / "target").exists()
