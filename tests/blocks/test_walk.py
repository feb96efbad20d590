"""Blocks are run one at a time as the whole model runs them, or the model is refused before any weight changes."""

import copy

import pytest
import reference
import torch
import transformers
from conftest import VOCABULARY
from torch import nn
from watching import Products, reference_walk, zeros

import wanda
from wanda import find_blocks

IDS = torch.randint(3, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
ANSWERS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))


class Toy(nn.Module):
    """A decoder of blocks `hidden -> hidden + tanh(linear(hidden))`, and a forward to be replaced."""

    def __init__(self, forward, stacks=1):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.stacks = nn.ModuleDict({f"stack{number}": self.blocks(forward) for number in range(stacks)})
        self.config = transformers.PretrainedConfig()

    @staticmethod
    def blocks(forward):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(16, 16)

        Block.forward = forward
        return nn.ModuleList(Block() for _ in range(3))

    def get_input_embeddings(self):
        return self.embedding


def plain(self, hidden):
    return hidden + torch.tanh(self.linear(hidden))


def with_state(self, hidden, state=None):
    hidden = hidden + torch.tanh(self.linear(hidden))
    return hidden, hidden.mean(dim=1, keepdim=True) + (0 if state is None else state)


def run_twice(model, input_ids, use_cache=False):
    hidden = model.embedding(input_ids)
    for block in [*model.stacks["stack0"][:-1], *model.stacks["stack0"]]:
        hidden = block(hidden)
    return hidden


def run_with_state(model, input_ids, use_cache=False):
    hidden, state = model.embedding(input_ids), None
    for block in model.stacks["stack0"]:
        hidden, state = block(hidden, state)
    return hidden


def run_with_memory(model, input_ids, use_cache=False):
    """The last block reads what the first one returned, besides what the second did."""
    first, second, last = model.stacks["stack0"]
    hidden = first(model.embedding(input_ids))
    return last(second(hidden) + hidden)


def leave_one_out(model, input_ids, use_cache=False):
    first, _, last = model.stacks["stack0"]
    return last(first(model.embedding(input_ids)))


@pytest.mark.parametrize(
    ("model", "forward", "message"),
    [
        (Toy(plain), run_twice, r"calls stacks\.stack0\.0 2 times in a forward pass"),
        (Toy(plain), leave_one_out, r"calls stacks\.stack0\.1 0 times in a forward pass"),
        (Toy(plain), run_with_memory, "run one by one, do not give what the whole model gives"),
        (Toy(plain, stacks=2), run_twice, r"two stacks of blocks, 'stacks\.stack\d' and 'stacks\.stack\d'"),
    ],
)
def test_blocks_that_cannot_be_run_one_at_a_time_are_refused(model, forward, message):
    model.forward = lambda **inputs: forward(model, **inputs)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        wanda.prune(model, IDS, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def changed_between(model, input_ids, use_cache=False):
    hidden = model.embedding(input_ids)
    for index, block in enumerate(model.stacks["stack0"]):
        hidden = block(hidden * (index + 1))
    return hidden


def changed_in_place(model, input_ids, use_cache=False, more=None):
    hidden = model.embedding(input_ids)
    for block in model.stacks["stack0"]:
        hidden = block(hidden)
        if more is not None:
            hidden += more
    return hidden


def test_states_that_are_changed_in_place_in_a_later_batch_are_noticed():
    model = Toy(plain)
    model.forward = lambda input_ids, use_cache=False, more=None: changed_in_place(model, input_ids, more=more)
    expected = copy.deepcopy(model)
    expected.forward = lambda **inputs: changed_in_place(expected, **inputs)
    batches = [{"input_ids": IDS[:1]}, {"input_ids": IDS[1:], "more": torch.linspace(0, 3, 16)}]
    wanda.prune(model, batches, progress=False)
    reference_walk(expected, batches)
    for name, mask in zeros(expected).items():
        assert torch.equal(zeros(model)[name], mask), name


@pytest.mark.parametrize(("block", "forward"), [(with_state, run_with_state), (plain, changed_between)])
@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_blocks_between_which_more_happens_are_pruned_stepwise(block, forward, propagate):
    """With windows of two lengths, and against whole forward passes."""
    model = Toy(block)
    model.forward = lambda **inputs: forward(model, **inputs)
    expected = copy.deepcopy(model)
    expected.forward = lambda **inputs: forward(expected, **inputs)
    batches = [{"input_ids": IDS[:1]}, {"input_ids": IDS[1:, :9]}]
    wanda.prune(model, batches, propagate=propagate, progress=False)
    (reference_walk if propagate == "pruned" else reference_of_the_dense_model)(expected, batches)
    for name, mask in zeros(expected).items():
        assert torch.equal(zeros(model)[name], mask), name


def reference_of_the_dense_model(model, batches):
    weights = {layer.name: layer.weight for block in find_blocks(model) for layer in block.layers}
    with torch.no_grad(), Products(weights) as products:
        for batch in batches:
            model(**batch)
    for name, weight in weights.items():
        weight.masked_fill_(reference.prune_mask(weight.abs() * products.squares[name].sqrt(), 0.5), 0)


# Models of transformers -------------------------------------------------------------------------------------------------


def seeded(build, config):
    torch.manual_seed(0)
    return build(config).eval()


def t5():
    return transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )


def bart():
    sizes = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    sizes |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    sizes |= {f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")}
    return transformers.BartConfig(vocab_size=VOCABULARY, d_model=32, max_position_embeddings=64, **sizes)


ENCODER_DECODERS = {
    "t5": (transformers.T5ForConditionalGeneration, t5),
    "bart": (transformers.BartForConditionalGeneration, bart),
}


@pytest.fixture(params=ENCODER_DECODERS)
def encoder_decoder(request):
    build, config = ENCODER_DECODERS[request.param]
    return seeded(build, config())


def test_an_encoder_and_its_decoder_are_pruned_in_turn(encoder_decoder):
    expected = copy.deepcopy(encoder_decoder)
    batches = [
        {"input_ids": ids[None], "decoder_input_ids": answer[None]} for ids, answer in zip(IDS, ANSWERS, strict=True)
    ]
    report = wanda.prune(encoder_decoder, batches, progress=False)
    reference_walk(expected, batches)
    for name, mask in zeros(expected).items():
        assert (zeros(encoder_decoder)[name] == mask).double().mean() > 0.999, name
    parts = ["encoder" if "encoder." in layer.name.replace("decoder.", "") else "decoder" for layer in report.layers]
    assert parts == sorted(parts, reverse=True)  # the encoder first
    assert set(parts) == {"encoder", "decoder"}


def test_padding_counts_neither_in_the_encoder_nor_in_the_decoder_nor_between(encoder_decoder):
    """The decoder's cross-attention reads the encoder's states, whose padding is another than its own."""
    padded = copy.deepcopy(encoder_decoder)
    wanda.prune(encoder_decoder, [{"input_ids": IDS[:1], "decoder_input_ids": ANSWERS[:1]}], progress=False)
    batch = {}
    for name, ids, more in (
        ("", IDS[:1], 3),
        ("decoder_", ANSWERS[:1], 10),
    ):  # both 19 long, so that shapes do not tell
        batch[f"{name}input_ids"] = torch.cat([ids, torch.full((1, more), 7)], dim=1)
        batch[f"{name}attention_mask"] = torch.tensor([[1] * ids.shape[1] + [0] * more])
    wanda.prune(padded, [batch], progress=False)
    for name, mask in zeros(encoder_decoder).items():
        assert (zeros(padded)[name] == mask).double().mean() > 0.999, name


def test_padding_of_the_decoder_is_not_looked_for_in_the_encoder(encoder_decoder):
    """An encoder without padding, whose states are as many as the decoder's."""
    padded = copy.deepcopy(encoder_decoder)
    wanda.prune(encoder_decoder, {"input_ids": IDS[:1], "decoder_input_ids": ANSWERS[:1]}, progress=False)
    batch = {"input_ids": IDS[:1], "decoder_input_ids": torch.cat([ANSWERS[:1], torch.full((1, 7), 7)], dim=1)}
    batch["decoder_attention_mask"] = torch.tensor([[1] * 9 + [0] * 7])
    wanda.prune(padded, batch, progress=False)
    for name, mask in zeros(encoder_decoder).items():
        assert (zeros(padded)[name] == mask).double().mean() > 0.999, name


def test_a_decoder_without_its_inputs_is_named(encoder_decoder):
    before = copy.deepcopy(encoder_decoder.state_dict())
    batches = [{"input_ids": IDS[:1], "decoder_input_ids": ANSWERS[:1]}, {"input_ids": IDS[1:]}]
    with pytest.raises(ValueError, match="calibration batch 2 holds input_ids, the first decoder_input_ids, input_ids"):
        wanda.prune(encoder_decoder, batches, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in encoder_decoder.state_dict().items())


PIXELS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}
IMAGE_MODELS = {
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig(**VISION)),
    "deit": (transformers.DeiTForImageClassification, transformers.DeiTConfig(**VISION)),
    "convnext": (
        transformers.ConvNextForImageClassification,
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 3, 1]),
    ),
    "swin, whose sizes change between blocks": (
        transformers.SwinForImageClassification,
        transformers.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4
        ),
    ),
}


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_models_of_images_take_a_tensor_of_pixels(name, method):
    model = seeded(*IMAGE_MODELS[name])
    expected, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    report = wanda.prune(model, PIXELS, method=method, batch_size=2, progress=False)
    pruned = {f"{layer.name}.weight" for layer in report.layers}
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items() if key not in pruned)
    assert wanda.sparsity(model) == pytest.approx(0.5, abs=0.01)
    if method == "wanda":
        reference_walk(expected, [{"pixel_values": PIXELS}])
        for layer, mask in zeros(expected).items():
            assert (zeros(model)[layer] == mask).double().mean() > 0.999, layer


def test_the_blocks_of_convnext_are_its_stages():
    report = wanda.prune(seeded(*IMAGE_MODELS["convnext"]), PIXELS, progress=False)
    assert sum("stages.2." in layer.name for layer in report.layers) == 6  # two pointwise layers in each of three
    assert all("pwconv" in layer.name for layer in report.layers)


def test_images_that_are_padded_to_a_number_of_patches_are_refused():
    model = seeded(transformers.Siglip2VisionModel, transformers.Siglip2VisionConfig(**VISION | {"num_patches": 16}))
    patches = torch.randn(1, 16, 3 * model.config.patch_size**2, generator=torch.Generator().manual_seed(0))
    batch = {"pixel_values": patches, "spatial_shapes": torch.tensor([[3, 4]])}
    batch["pixel_attention_mask"] = (torch.arange(16)[None] < 12).long()
    with pytest.raises(ValueError, match="the pixel_attention_mask of pixel_values has padding"):
        wanda.prune(model, [batch], progress=False)
    whole = batch | {"spatial_shapes": torch.tensor([[4, 4]]), "pixel_attention_mask": torch.ones(1, 16).long()}
    assert wanda.prune(model, [whole], progress=False).sparsity == 0.5


def test_padded_sound_is_refused():
    small = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
    small |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "vocab_size": 32}
    small |= {
        key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    model = seeded(transformers.Wav2Vec2Model, transformers.Wav2Vec2Config(**small))
    sound = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 300 + [0] * 100])
    with pytest.raises(ValueError, match="the attention_mask of input_values has padding"):
        wanda.prune(model, [{"input_values": sound, "attention_mask": mask}], progress=False)
    whole = {"input_values": sound, "attention_mask": torch.ones(1, 400, dtype=torch.long)}  # as processors return it
    assert wanda.prune(model, whole, progress=False).sparsity == 0.5


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_that_count_from_an_offset_are_left_to_the_model(side):
    """RoBERTa's first position is 2; counted from 0, every token would get another embedding."""
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=1, **{k: VISION[k] for k in list(VISION)[:4]}
    )
    plain = seeded(transformers.RobertaForMaskedLM, config)
    padded = copy.deepcopy(plain)
    wanda.prune(plain, IDS[:1], progress=False)
    parts = [(IDS[:1], 1), (torch.full((1, 6), 1), 0)]
    parts = parts if side == "right" else parts[::-1]
    batch = {"input_ids": torch.cat([ids for ids, _ in parts], dim=1)}
    batch["attention_mask"] = torch.cat([torch.full_like(ids, keep) for ids, keep in parts], dim=1)
    wanda.prune(padded, [batch], progress=False)
    for name, mask in zeros(plain).items():
        assert (zeros(padded)[name] == mask).double().mean() > 0.999, name


@pytest.mark.parametrize("first", ["image", "text"])
def test_images_that_are_added_between_blocks_are_seen(first, tmp_path):
    """Qwen3-VL adds an image's deeper features to the hidden states after its first blocks."""
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 4}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 1, "out_hidden_size": 32, "num_position_embeddings": 16}
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    text |= {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "head_dim": 8}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    special = {f"{name}_id": 90 + index for index, name in enumerate(("image_token", "video_token"))}
    special |= {f"vision_{name}_token_id": 92 + index for index, name in enumerate(("start", "end"))}
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision | {"deepstack_visual_indexes": [0, 1]}, **special
    )
    model = seeded(transformers.Qwen3VLForConditionalGeneration, config)
    expected = copy.deepcopy(model)
    ids = torch.randint(3, 80, (1, 24), generator=torch.Generator().manual_seed(0))
    ids[0, 4:10] = torch.tensor([92, 90, 90, 90, 90, 93])  # a picture of 4 x 4 patches, four of which are merged to one
    batch = {"input_ids": ids, "mm_token_type_ids": (ids == 90).long(), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    batch["pixel_values"] = 3 * torch.randn(16, 3 * 4 * 4, generator=torch.Generator().manual_seed(0))
    batches = [batch] if first == "image" else [{"input_ids": ids % 80}, batch]
    model.save_pretrained(tmp_path / "source")
    with pytest.raises(ValueError, match="changes the hidden states between model.language_model.layers.0 and"):
        wanda.prune_checkpoint(tmp_path / "source", tmp_path / "target", batches, progress=False)
    seen = []
    model.model.visual.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    wanda.prune(model, batches, progress=False)
    assert (
        len(seen) == {"image": 3 + 1, "text": 1 + 1}[first]
    )  # three ways are tried on the first batch; then not once a block
    reference_walk(expected, batches)
    for name, mask in zeros(expected).items():
        assert (zeros(model)[name] == mask).double().mean() > 0.999, name


@pytest.mark.skipif(not hasattr(transformers, "ZayaForCausalLM"), reason="this version of transformers has no Zaya")
def test_a_state_is_handed_on_by_each_block_for_each_batch():
    """Zaya's blocks hand on a residual and the router's state; windows of two lengths."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {
        "vocab_size": VOCABULARY,
        "moe_intermediate_size": 24,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 1,
    }
    model = seeded(transformers.ZayaForCausalLM, transformers.ZayaConfig(**sizes, pad_token_id=0, use_cache=False))
    expected = copy.deepcopy(model)
    batches = [{"input_ids": IDS[:1]}, {"input_ids": IDS[1:, :9]}]
    wanda.prune(model, batches, progress=False)
    reference_walk(expected, batches)
    for name, mask in zeros(expected).items():
        assert (zeros(model)[name] == mask).double().mean() > 0.999, name


def test_padded_labels_do_not_count(encoder_decoder):
    """Without decoder_input_ids the decoder reads the labels, shifted."""
    padded = copy.deepcopy(encoder_decoder)
    wanda.prune(encoder_decoder, [{"input_ids": IDS, "labels": ANSWERS[:, :6].contiguous()}], progress=False)
    labels = torch.cat([ANSWERS[:, :6], torch.full((2, 3), -100)], dim=1)
    wanda.prune(padded, {"input_ids": IDS, "labels": labels}, progress=False)
    for name, mask in zeros(encoder_decoder).items():
        assert (zeros(padded)[name] == mask).double().mean() > 0.999, name


def test_an_encoder_by_itself_is_one_stack(encoder_decoder):
    encoder = encoder_decoder.get_encoder()
    expected = copy.deepcopy(encoder)
    report = wanda.prune(encoder, IDS, progress=False)
    assert len({layer.name for layer in report.layers}) == len(report.layers)
    reference_walk(expected, [{"input_ids": IDS}])
    for name, mask in zeros(expected).items():
        assert (zeros(encoder)[name] == mask).double().mean() > 0.999, name


def test_a_model_that_answers_at_random_is_named():
    model = seeded(transformers.ViTMAEModel, transformers.ViTMAEConfig(**VISION))
    with pytest.raises(ValueError, match="ViTMAEModel gives another result in every forward pass"):
        wanda.prune(model, PIXELS, progress=False)


@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
def test_a_model_of_two_parts_says_to_prune_each(family):
    small = {
        key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    text = small | {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=VISION)
    model = seeded(getattr(transformers, f"{family}Model"), config)
    with pytest.raises(ValueError, match=r"prune its parts, such as model\.text_model and model\.vision_model"):
        wanda.prune(model, [{"input_ids": IDS, "pixel_values": PIXELS[:2]}], progress=False)
    reports = [
        wanda.prune(model.text_model, IDS, progress=False),
        wanda.prune(model.vision_model, PIXELS, progress=False),
    ]
    assert all(report.sparsity == 0.5 for report in reports)


def test_a_model_that_pads_a_padded_batch_further_is_refused_before_any_weight_changes():
    config = transformers.LongformerConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_window=16,
        pad_token_id=0,
    )
    model = seeded(transformers.LongformerModel, config)
    before, ids = copy.deepcopy(model.state_dict()), IDS[:, :16]
    padded = {"input_ids": ids[:, :12], "attention_mask": (torch.arange(12) < 9).long().expand(len(ids), -1)}
    with pytest.raises(ValueError, match=r"layer\.0 reads hidden states .* padding cannot be told from tokens"):
        wanda.prune(model, [ids, padded], progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
