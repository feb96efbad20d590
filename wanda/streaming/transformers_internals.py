"""How transformers turns a checkpoint's tensors into a model's: its private API for loading, in one place.

Tested with transformers 5.7.0 and 5.24.0, the oldest and the newest version supported. What is expected of both:

- `conversion_mapping.get_model_conversion_mapping(model)` lists the `WeightRenaming`s and `WeightConverter`s of a model;
  a converter has `source_patterns` and `operations`; `MergeModulelist(dim=0)` stacks the tensors of several experts, and
  `Concatenate(dim=1)` joins those of several projections;
- `core_model_loading.rename_source_key(key, renamings, converters, prefix, tensors)` returns the name and the
  source pattern that matched, or None;
- a model's `_keys_to_ignore_on_load_unexpected`, `_keep_in_fp32_modules` and `_keep_in_fp32_modules_strict` are None or
  collections of patterns.
"""

import importlib
import re

import torch
import transformers

SUPPORTED = ("5.7.0", "5.24.0")
CONVERTED = "converted"
COMPUTED_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")


def renaming(model, tensors):
    """The function from a checkpoint's key to (the model's name for it, its place in that tensor).

    Some families are saved under older names, some with an expert's matrices apart. The place is None if the tensor is
    stored as a whole, (expert, projection) if it is a part [out, in] of a fused tensor [experts, sum of out, in], and
    CONVERTED if loading changes the values in another way.

    Args:
        model: a transformers model. tensors: its state dict.

    Raises: RuntimeError: this version of transformers has no such API.
    """
    get_mapping = _private("conversion_mapping", "get_model_conversion_mapping")
    loading = [
        _private("core_model_loading", name) for name in ("WeightRenaming", "WeightConverter", "rename_source_key")
    ]
    renaming_class, converter_class, rename_key = loading
    mapping = get_mapping(model) or []
    renamings = [entry for entry in mapping if isinstance(entry, renaming_class)]
    converters = [entry for entry in mapping if isinstance(entry, converter_class)]

    def rename(key):
        name, pattern = rename_key(key, renamings, converters, model.base_model_prefix, tensors)
        if pattern is None or (name not in tensors and key in tensors):
            return name if name in tensors else key, None
        return name, _place(key, pattern, converters)

    return rename


def _place(key, pattern, converters):
    converter = next(entry for entry in converters if pattern in entry.source_patterns)
    operations = [(type(operation).__name__, getattr(operation, "dim", None)) for operation in converter.operations]
    if operations == [("Force16BytesAlignment", None)]:
        return None
    expert = re.search(rf"\.(\d+){re.escape(pattern.rpartition('*')[2].rstrip('$'))}$", key)
    fusing = ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)])
    if operations not in fusing or expert is None:
        return CONVERTED
    return int(expert[1]), converter.source_patterns.index(pattern)


def is_ignored(model, key):
    """Whether loading skips a checkpoint's key that is none of the model's saved tensors.

    Old checkpoints hold buffers that the model now computes itself: causal masks, rotary frequencies, position ids.
    """
    patterns = [*(_attribute(model, "_keys_to_ignore_on_load_unexpected") or ()), *COMPUTED_BUFFERS]
    buffers = {name.removeprefix(f"{model.base_model_prefix}.") for name, _ in model.named_buffers()}
    is_buffer = key.removeprefix(f"{model.base_model_prefix}.") in buffers
    return is_buffer or any(re.search(pattern, key) for pattern in patterns)


def stays_float32(model, name, dtype):
    """Whether a parameter is kept in float32 when the model is loaded in `dtype`, as a few small ones of some families are."""
    patterns = set()
    if dtype in (torch.float16, torch.bfloat16):
        patterns |= set(_attribute(model, "_keep_in_fp32_modules_strict") or ())
    if dtype == torch.float16:
        patterns |= set(_attribute(model, "_keep_in_fp32_modules") or ())
    return any(re.search(pattern.replace(".", r"\."), name) for pattern in patterns)


def _private(module, name):
    try:
        return getattr(importlib.import_module(f"transformers.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise _unsupported(f"transformers.{module}.{name}") from error


def _attribute(model, name):
    if not hasattr(model, name):
        raise _unsupported(f"PreTrainedModel.{name}")
    return getattr(model, name)


def _unsupported(missing):
    oldest, newest = SUPPORTED
    return RuntimeError(
        f"transformers {transformers.__version__} has no {missing}, which streaming a checkpoint needs; "
        f"install a version from {oldest} to {newest}, or use wanda.load and wanda.prune"
    )
