"""Every family of models that the installed transformers knows, built small and pruned; `docs/models.md` is the table.

PYTHONPATH=tests python tests/blocks/families.py        # measures all families (5 minutes on two idle cores) and writes the table
"""

import copy
import importlib.metadata
import inspect
import os
import re
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from watching import reference_walk, zeros

import wanda

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
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
        if value(name) is not MISSING and not isinstance(value(name), (list, tuple))
    }
    for name, entry in ENTRIES.items():
        if isinstance(value(name), (list, tuple)) and all(isinstance(other, int) for other in value(name)):
            sizes[name] = [entry] * len(value(name))
    if MISSING is not value("num_attention_heads") == value("num_key_value_heads"):
        sizes["num_key_value_heads"] = 4
    for name in getattr(config, "sub_configs", {}):
        if isinstance(value(name), transformers.PretrainedConfig):
            sizes[name] = small(value(name))
    return type(config)(**sizes)


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


def batches_for(kind, model):
    """Calibration batches for a model: dicts for its forward."""
    if kind == "images":
        config, generator = model.config, torch.Generator().manual_seed(3)
        size = getattr(getattr(config, "vision_config", config), "image_size", 64) or 64
        size = size if isinstance(size, int) else size[0]
        return [{model.main_input_name: torch.randn(1, 3, size, size, generator=generator)} for _ in range(4)]
    if kind == "sound":
        generator = torch.Generator().manual_seed(3)
        return [{model.main_input_name: torch.randn(1, 4000, generator=generator)} for _ in range(4)]
    batches = [{"input_ids": ids[None]} for ids in TOKENS]
    if kind == "image and text" and model.main_input_name == "pixel_values":
        pixels = torch.randn(4, 1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        batches = [batch | {"pixel_values": picture} for batch, picture in zip(batches, pixels, strict=True)]
    if model.config.is_encoder_decoder:
        batches = [batch | {"decoder_input_ids": ids[None]} for batch, ids in zip(batches, ANSWERS, strict=True)]
    return batches


def outcome(kind, model, batches):
    """What becomes of a model, which is pruned: (outcome, detail).

    The outcome is "as the reference"; "by magnitude in part": so are some layers that the reference prunes by their
    inputs; "refused"; "not tested": the model itself fails on the batches; or "WRONG".
    """
    expected, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    try:
        report = wanda.prune(model, batches, progress=False)
    except (ValueError, TypeError) as error:
        same = all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
        lacks = "fails on the first calibration batch" in str(error) or "a calibration batch needs" in str(error)
        return (("not tested" if lacks else "refused") if same else "WRONG"), _cell(error)
    except Exception as error:
        return "WRONG", f"{type(error).__name__}: {_cell(error)}"
    layers = {layer.parameter_name for block in wanda.find_blocks(model) for layer in block.layers}
    if any(not torch.equal(weight, before[key]) for key, weight in model.state_dict().items() if key not in layers):
        return "WRONG", "weights outside the layers changed"
    read = reference_walk(expected, batches)
    unreached = {layer.name for layer in report.layers if not layer.reached}
    found, wanted = zeros(model), zeros(expected)
    worst = min(float((found[layer] == wanted[layer]).double().mean()) for layer in found.keys() - (unreached & read))
    detail = f"{len(report.layers)} layers, {report.model_sparsity:.0%} of the model"
    # The reference prunes some layers otherwise, and what follows reads their outputs.
    if worst <= (0.99 if unreached & read else 0.999):
        return f"WRONG: {worst:.3f}", detail
    if unreached & read:  # weights that a block uses without calling their layer, such as Mamba's dt_proj
        names = ", ".join(sorted({layer.rpartition(".")[2] for layer in unreached & read}))
        return "by magnitude in part", f"{detail}: {names}, with a warning"
    if unreached:
        detail += f"; {len(unreached)} layers without calibration tokens, by magnitude, with a warning"
    return "as the reference", detail


def padded(kind, dense, batches):
    """Whether padding, on the left of a decoder and on the right of others, leaves the masks as they are."""
    if kind in ("images", "sound"):
        return ""
    ids, more = batches[0]["input_ids"], torch.full((1, 6), SIZES["pad_token_id"])
    parts = [more, ids] if kind == "causal" else [ids, more]
    mask = torch.cat([torch.zeros_like(more) if part is more else torch.ones_like(ids) for part in parts], dim=1)
    longer = batches[0] | {"input_ids": torch.cat(parts, dim=1), "attention_mask": mask}
    models = [copy.deepcopy(dense), copy.deepcopy(dense)]
    try:
        for model, batch in zip(models, (batches[0], longer), strict=True):
            wanda.prune(model, [batch], progress=False)
    except (ValueError, RuntimeError) as error:
        return f"refused: {_cell(error)}"
    plain, other = map(zeros, models)
    if min(float((plain[layer] == other[layer]).double().mean()) for layer in plain) > 0.99:
        return "same masks"
    with torch.no_grad():
        plain, other = (dense(**batch).logits.double() for batch in (batches[0], longer))
    if other.shape[1] == mask.shape[1]:
        other = other[:, mask[0].bool()]
    differs = plain.shape != other.shape or (plain - other).norm() > 1e-3 * plain.norm()
    return "the model reads it" if differs else "WRONG"


def saved(kind, model):
    """Whether a pruned model comes back from the disk as it was."""
    auto = getattr(transformers, KINDS[kind][0])
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            transformers_can = _equal(auto.from_pretrained(folder), model)
        except Exception:
            transformers_can = False
    if not transformers_can:
        return "not by transformers either"
    with tempfile.TemporaryDirectory() as folder:
        wanda.save(model, None, folder)
        return "same" if _equal(auto.from_pretrained(folder), model) else "WRONG"


def streamed(kind, dense, pruned, batches):
    """Whether `prune_checkpoint` gives the same bits."""
    if kind not in ("causal", "image and text"):
        return ""
    auto = getattr(transformers, KINDS[kind][0])
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/source", f"{folder}/target"
        dense.save_pretrained(source)
        try:
            wanda.prune_checkpoint(source, target, batches, progress=False)
        except (ValueError, RuntimeError) as error:
            return f"refused: {_cell(error)}"
        return "same bits" if _equal(auto.from_pretrained(target), pruned) else "WRONG"


def row(kind, name, whole=True):
    """The line of the table for a family; if not `whole`, without what is measured on the disk and with padding."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = build(kind, name)
        except Exception as error:  # whatever a configuration class raises
            return f"| {name} | {kind} | not built small | {type(error).__name__} |"
        batches, dense = batches_for(kind, model), copy.deepcopy(model)
        cells = [name, kind, *outcome(kind, model, batches)]
        if whole and cells[2] in ("as the reference", "by magnitude in part"):
            cells += [padded(kind, dense, batches), saved(kind, model), streamed(kind, dense, model, batches)]
    return f"| {' | '.join(cells)} |"


def version():
    """Of transformers, as the page names it."""
    return importlib.metadata.version("transformers")


def _cell(error):
    """An error's message up to its first semicolon, short enough for a table."""
    text = re.sub(r"'[^']*/source", "'source", " ".join(str(error).partition(";")[0].replace("|", "").split()))
    return text if len(text) <= 160 else text[:157] + "..."


def _equal(one, other):
    weights = other.state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in one.state_dict().items())


def main():
    """Measure all families and write the page."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        lines = []
        for line in pool.map(row, *zip(*FAMILIES, strict=True)):
            lines.append(line)
            print(line, flush=True)
    write(lines)


def write(lines):
    """Write the page. lines: of the table, one for each family."""
    kinds = [line.split(" | ")[2] for line in lines]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    text = inspect.cleandoc(
        f"""
        # Models

        Every family that transformers {version()} lists under six of its auto classes, built small with random weights, pruned by
        Wanda at 50 %, and compared mask by mask with a slow reference: whole forward passes, and a watch on the
        matrix products instead of hooks. {counts}.

        `PYTHONPATH=tests python tests/blocks/families.py` writes this page; `tests/blocks/test_families.py` holds each line of it.

        - "By magnitude in part": a block uses the weights of some layers without calling them, so that their inputs are not seen.
        - "Not built small": the sizes that the test sets do not suit the family's configuration.
        - "Not tested": the small model fails on the test's batches, for lack of an input or because of its sizes.
        - Padded: whether a padded window gives the masks of the window without padding. Saved: whether `save` and
          `from_pretrained` give the pruned model back. Streamed: whether `prune_checkpoint` gives the same bits.

        | family | kind | outcome | detail | padded | saved | streamed |
        |---|---|---|---|---|---|---|
        """
    )
    PAGE.write_text("\n".join([text, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
