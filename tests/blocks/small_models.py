"""A small random model of each family of transformers, and batches for it."""

import inspect

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LARGEST = 3_000_000  # parameters; what a config cannot make smaller is listed as such
KINDS = {  # the heads that the families are built with, and the mapping of transformers that lists them
    "causal": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "encoder": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    "encoder-decoder": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "image and text": ("AutoModelForImageTextToText", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
    "images": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "sound": ("AutoModelForAudioClassification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
}
FAMILIES = [(kind, name) for kind, (_, mapping) in KINDS.items() for name in sorted(getattr(modeling_auto, mapping))]
SIZES = {
    "use_cache": False,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "type_vocab_size": 2,
    "rotary_dim": 4,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embed_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 3),
    **dict.fromkeys(("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "depth"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 8,
    "global_head_dim": 8,
    **dict.fromkeys(("out_hidden_size", "text_hidden_size", "audio_hidden_size"), 32),
    "image_size": 64,
    "patch_size": 8,
    "num_channels": 3,
    "window_size": 2,
    "embedding_dim": 32,
}
ENTRIES = {  # of lists, such as the sizes of a vision model's stages
    **dict.fromkeys(("hidden_sizes", "embed_dims", "embed_dim", "encoder_hidden_sizes", "decoder_hidden_sizes"), 32),
    "depths": 1,
    "layer_depths": 1,
    "num_attention_heads": 2,
    "num_heads": 2,
    "conv_dim": 32,
    "image_size": 64,
    "patch_size": 8,
    "depth": 1,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SETTINGS = {  # what a class of configurations needs besides, where no rule covers it
    "ASTConfig": {"max_length": 32, "num_mel_bins": 16},
    "BambaConfig": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8},
    "BitConfig": {"num_groups": 1},
    "Blip2Config": {"num_query_tokens": 4, "image_token_index": 2},
    "BltConfig": {"encoder_hash_byte_group_vocab": 128},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 2}},
    "ChameleonVQVAEConfig": {
        "base_channels": 32,
        "latent_channels": 32,
        "num_embeddings": 128,
        "channel_multiplier": [1, 1],
    },
    "Cohere2VisionConfig": {"alignment_intermediate_size": 64},
    "CohereCompassTextConfig": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "CpmAntConfig": {"dim_ff": 64, "dim_head": 8},
    "CvtConfig": {"depth": [1, 2, 3]},
    "DbrxAttentionConfig": {"clip_qkv": 8.0, "rope_theta": 10000.0},
    "DbrxFFNConfig": {"ffn_hidden_size": 64},
    "DeepseekOcr2SamVisionConfig": {"mlp_dim": 64, "output_channels": 32, "downsample_channels": [32, 32]},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", "sparse", "sparse"], "num_experts_per_tok": 2},
    "DiffusionGemmaTextConfig": {"num_experts": 4, "top_k_experts": 2},
    "DonutSwinConfig": {"patch_size": 4},
    "Dots1Config": {"n_shared_experts": 1},
    "EfficientNetConfig": {"width_coefficient": 0.1, "depth_coefficient": 0.1},
    "Emu3Config": {"vocabulary_map": {"<image>": 2, "<|extra_200|>": 2, "<|extra_201|>": 2}},
    "Emu3VQVAEConfig": {"base_channels": 32, "latent_channels": 32, "channel_multiplier": [1, 1]},
    "Ernie4_5_VLMoeTextConfig": {"moe_intermediate_size": [24, 24], "moe_num_experts": 4, "moe_k": 2},
    "FunnelConfig": {"block_sizes": [1, 1], "d_head": 8, "d_inner": 64},
    "Gemma3nTextConfig": {
        "intermediate_size": 64,
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 1,
        "activation_sparsity_pattern": None,
    },
    "GPTNeoConfig": {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "GraniteMoeHybridConfig": {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
    },
    "InstructBlipConfig": {"num_query_tokens": 4, "image_token_index": 2},
    "InstructBlipVideoConfig": {"num_query_tokens": 4, "video_token_index": 2},
    "JanusVisionConfig": {"projection_dim": 32},
    "JanusVQVAEConfig": {
        "num_embeddings": 128,
        "channel_multiplier": [1, 1],
        "base_channels": 32,
        "latent_channels": 32,
        "projection_dim": 32,
        "image_token_embed_dim": 32,
    },
    "KimiLinearConfig": {"linear_head_dim": 8, "linear_num_heads": 4},
    "Kosmos2Config": {"latent_query_num": 4},
    "Kosmos2TextConfig": {"layers": 2, "attention_heads": 4},
    "LEDConfig": {"attention_window": 8},
    "LevitConfig": {"image_size": 64, "patch_size": 16, "key_dim": [8, 8, 8]},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "Llama4VisionConfig": {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
    "LongformerConfig": {"attention_window": 8},
    "LukeConfig": {"entity_vocab_size": 128, "entity_emb_size": 32},
    "Mamba2Config": {"head_dim": 16, "n_groups": 2},
    "Mistral4Config": {"head_dim": 16},
    "MobileNetV1Config": {"depth_multiplier": 0.25},
    "MobileViTV2Config": {"width_multiplier": 0.25, "patch_size": 2},
    "Molmo2AdapterConfig": {"vision_feature_layer": [2, 1]},
    "NeoMMEConfig": {"head_dim": 16},
    "PaddleOCRTextConfig": {"rope_parameters": ROPE | {"mrope_section": [1, 1, 2]}},
    "PerceiverConfig": {"num_latents": 8, "d_latents": 32, "d_model": 32, "num_self_attends_per_block": 2},
    "Phi4MultimodalAudioConfig": {
        "num_blocks": 2,
        "ext_pw_out_channel": 32,
        "depthwise_separable_out_channel": 32,
        "nemo_conv_channels": 32,
    },
    "ProphetNetConfig": {
        "num_encoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
    },
    "Qwen3ASREncoderConfig": {"downsample_hidden_size": 32, "output_dim": 32},
    "Qwen3OmniMoeAudioEncoderConfig": {"downsample_hidden_size": 32, "output_dim": 32},
    "Qwen3OmniMoeVisionEncoderConfig": {"deepstack_visual_indexes": [0, 1]},
    "ReformerConfig": {"axial_pos_embds": False, "attention_head_size": 8},
    "RoCBertConfig": {"pronunciation_vocab_size": 128, "shape_vocab_size": 128},
    "Step3p7TextConfig": {"sliding_window": 8},
    "SwinConfig": {"patch_size": 4},
    "Wav2Vec2BertConfig": {"feature_projection_input_dim": 16},
    "WhisperConfig": {"max_source_positions": 32, "num_mel_bins": 16},
    "XLNetConfig": {"d_head": 8, "d_inner": 64},
    "XmodConfig": {"default_language": "en_XX"},
    "Zamba2Config": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "ZambaConfig": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "ZayaConfig": {"num_experts_per_tok": 1},
}
MISSING = object()
TOKENS = torch.randint(3, 128, (4, 24), generator=torch.Generator().manual_seed(1))
ANSWERS = torch.randint(3, 128, (4, 10), generator=torch.Generator().manual_seed(2))


class TooLarge(Exception):
    """The sizes above do not make this family small."""


def small(config):
    """A configuration of the same class with small sizes, and so the configurations inside it."""

    def value(name):
        try:
            return getattr(config, name, MISSING)
        except Exception:  # a property that this configuration cannot compute
            return MISSING

    sizes = {
        name: size
        for name, size in SIZES.items()
        if value(name) is not MISSING
        and not isinstance(value(name), (list, tuple))
        and not isinstance(getattr(type(config), name, None), property)  # computed from others
    }
    for name, entry in ENTRIES.items():
        if isinstance(value(name), (list, tuple)) and all(isinstance(other, int) for other in value(name)):
            sizes[name] = [entry] * len(value(name))
    if MISSING is not value("num_attention_heads") == value("num_key_value_heads"):
        sizes["num_key_value_heads"] = 4
    for name in getattr(config, "sub_configs", {}):
        if isinstance(value(name), transformers.PretrainedConfig):
            sizes[name] = small(value(name))
    rope = value("rope_parameters")
    if "mrope_section" in getattr(config, "ignore_keys_at_rope_validation", ()) and "rope_type" in rope:
        # Its sections fill the half of a head that is rotated.
        half = int(SIZES["head_dim"] * rope.get("partial_rotary_factor", 1)) // 2
        sizes["rope_parameters"] = rope | {"mrope_section": [half // 3, half // 3, half - 2 * (half // 3)]}
    return type(config)(**sizes | SETTINGS.get(type(config).__name__, {}))


def build(kind, name):
    """A small random model of a family, in evaluation mode. Raises whatever its configuration does not accept."""
    config = small(CONFIG_MAPPING[name]())
    config.architectures = []  # take the first of several heads
    auto = getattr(transformers, KINDS[kind][0])
    with torch.device("meta"):
        count = sum(weight.numel() for weight in auto.from_config(config).parameters())
    if count > LARGEST:
        raise TooLarge(f"{count:,} parameters")
    torch.manual_seed(0)
    return auto.from_config(config, dtype=torch.float32).eval()


def _random(*shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))


IMAGE_AND_TEXT = torch.cat([torch.full((1, 4), 2), TOKENS[:1]], dim=1)  # the first four positions stand for the image
INPUTS = {  # what families need besides, or instead, by `model_type`
    "audio-spectrogram-transformer": {"input_values": _random(32, 16)},
    "blip-2": {"input_ids": IMAGE_AND_TEXT},
    "instructblip": {"input_ids": IMAGE_AND_TEXT, "qformer_input_ids": TOKENS[:1, :6]},
    "instructblipvideo": {
        "input_ids": IMAGE_AND_TEXT,
        "qformer_input_ids": TOKENS[:1, :6],
        "pixel_values": _random(1, 3, 64, 64),
    },
    "kosmos-2": {"input_ids": IMAGE_AND_TEXT, "image_embeds_position_mask": IMAGE_AND_TEXT == 2},
    "pix2struct": {"flattened_patches": _random(12, 2 + 3 * 16 * 16).abs()},
    "siglip2": {
        "pixel_values": _random(16, 3 * 8 * 8),
        "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]]),
    },
    "udop": {"bbox": _random(24, 4).sigmoid()},
    "wav2vec2-bert": {"input_features": _random(30, 16)},
    "whisper": {"input_features": _random(16, 64)},
}


def batches_for(kind, model):
    """Calibration batches for a model: dicts for its forward."""
    generator = torch.Generator().manual_seed(3)
    if kind == "images":
        size = getattr(getattr(model.config, "vision_config", model.config), "image_size", 64) or 64
        size = size if isinstance(size, int) else size[0]
        batches = [{model.main_input_name: torch.randn(1, 3, size, size, generator=generator)} for _ in range(4)]
    elif kind == "sound":
        batches = [{model.main_input_name: torch.randn(1, 4000, generator=generator)} for _ in range(4)]
    else:
        batches = [{"input_ids": ids[None]} for ids in TOKENS]
    if kind == "image and text" and model.main_input_name == "pixel_values":
        pixels = torch.randn(4, 1, 3, 64, 64, generator=generator)
        batches = [batch | {"pixel_values": picture} for batch, picture in zip(batches, pixels, strict=True)]
    if kind not in ("images", "sound") and model.config.is_encoder_decoder:
        batches = [batch | {"decoder_input_ids": ids[None]} for batch, ids in zip(batches, ANSWERS, strict=True)]
    takes = inspect.signature(model.forward).parameters
    batches = [batch | INPUTS.get(model.config.model_type, {}) for batch in batches]
    return [{name: value for name, value in batch.items() if name in takes} for batch in batches]
