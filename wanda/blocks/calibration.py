"""Calibration data, checked and cut into batches."""

import inspect
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..devices.distributed import size
from .stacks import has_encoder, reads_tokens

TOKENS = 16_384  # per forward pass on a GPU: enough to keep a large one busy, with small activations
IMAGE_TOKENS = 256  # assumed for an image or a piece of sound


def calibration_batches(model, calibration, batch_size=1, device=None):
    """Check calibration data against a model and cut it into batches.

    Args:
        calibration: LongTensor [samples, length], or a mapping with `input_ids` [batch, length] and, where there is
            padding, `attention_mask` (1 = token, 0 = padding), or an iterable of such tensors or mappings. A model of images or
            sound takes its own first input instead, such as `pixel_values`. Other tensors in a mapping, such as
            `decoder_input_ids`, go to the model's forward.
        batch_size: windows per forward pass, for a tensor; "auto": see `windows_per_batch`. Mappings are not divided.
        device: where the blocks will run; None: where the model is.

    Returns: list of dicts for the model's forward, on the device of the model's inputs. Batches with padding have an
        `attention_mask`, and positions that count tokens only.

    Raises:
        TypeError, ValueError: no data, not integers, not a matrix, ids outside the vocabulary, windows longer than
            the model's context, a mask of another shape or without tokens, a key that the model does not take, or one
            that only some batches have.
    """
    if isinstance(calibration, Mapping):
        calibration = [calibration]
    if isinstance(calibration, str) or not isinstance(calibration, Iterable):
        raise TypeError(
            "calibration must be a LongTensor [samples, length] or an iterable of batches, "
            f"got {type(calibration).__name__}; wanda.calibration_set(tokenizer) makes one"
        )
    if batch_size != "auto" and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be 'auto' or a whole number of at least 1, got {batch_size!r}")
    parts = calibration
    input_name = "input_ids" if reads_tokens(model) else model.main_input_name
    if isinstance(calibration, torch.Tensor) and calibration.ndim >= 2 and len(calibration):
        if batch_size == "auto":
            length = calibration.shape[1] if input_name == "input_ids" else IMAGE_TOKENS
            batch_size = windows_per_batch(len(calibration), length, device or next(model.parameters()).device)
        parts = calibration.split(batch_size)
    elif isinstance(calibration, torch.Tensor) and len(calibration):
        parts = [calibration]  # invalid; the error names its shape
    takes = inspect.signature(model.forward).parameters
    read = _text_batch if input_name == "input_ids" else _other_batch
    batches = [read(model, takes, part if isinstance(part, Mapping) else {input_name: part}) for part in parts]
    if not batches:
        raise ValueError("calibration is empty; it needs at least one window of tokens")
    if has_encoder(model):
        first, *others = ({*batch} - {"attention_mask", "decoder_attention_mask"} for batch in batches)
        for number, keys in enumerate(others, 1):
            if keys != first:
                raise ValueError(
                    f"calibration batch {number + 1} holds {', '.join(sorted(keys))}, the first {', '.join(sorted(first))}"
                )
    return batches


def windows_per_batch(samples, length, device):
    """How many windows of `length` tokens make a batch: one on a CPU, where more are no faster; `TOKENS` tokens on a GPU,
    but few enough that each of several processes gets a batch."""
    if torch.device(device).type != "cuda":
        return 1
    return max(1, min(TOKENS // max(length, 1), samples // size()))


def _check_keys(model, takes, part, input_name):
    if input_name not in part:
        raise ValueError(f"a calibration batch needs {input_name}; it has {', '.join(map(repr, part)) or 'nothing'}")
    for name, value in part.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"a calibration batch holds {name!r} as {type(value).__name__}; it must be a tensor, as tokenizers and "
                "processors return with return_tensors='pt'"
            )
        if name not in takes and input_name in takes:  # a wrapper's forward names no arguments
            raise ValueError(
                f"a calibration batch holds {name!r}, which {type(model).__name__} does not take; remove it"
            )


def _other_batch(model, takes, part):
    """A batch of images or sound."""
    _check_keys(model, takes, part, model.main_input_name)
    if not part[model.main_input_name].numel():
        raise ValueError(f"a calibration batch holds {model.main_input_name} without values")
    for name in {"attention_mask", "pixel_mask", "pixel_attention_mask"} & part.keys():
        if not part[name].all():
            raise ValueError(
                f"the {name} of {model.main_input_name} has padding, which cannot be identified in the layers' inputs; "
                "use calibration data without padding"
            )
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in part.items() if name != "attention_mask"}  # it has no padding
    return batch | _decoder_mask(takes, part, device)


def lacks_decoder_inputs(takes, batch):
    """Whether a batch leaves a decoder's inputs to the model. takes: the parameters of the model's forward."""
    return "decoder_input_ids" in takes and not {"decoder_input_ids", "labels"} & batch.keys()


def _decoder_mask(takes, part, device):
    """The mask of a decoder whose inputs are the labels, shifted: positions whose label is -100 are padding. A mask that is
    given is checked."""
    given, inputs = part.get("decoder_attention_mask"), part.get("decoder_input_ids")
    if given is not None:
        _check_mask("decoder_attention_mask", given)
        if inputs is not None and given.shape != inputs.shape:
            raise ValueError(
                f"decoder_attention_mask has shape {tuple(given.shape)}, decoder_input_ids {tuple(inputs.shape)}; they must agree"
            )
    labels = part.get("labels")
    known = "decoder_attention_mask" not in takes or "decoder_attention_mask" in part
    if known or labels is None or labels.ndim != 2 or bool((labels != -100).all()):
        return {}
    return {"decoder_attention_mask": (labels != -100).long().to(device)}


def _text_batch(model, takes, part):
    _check_keys(model, takes, part, "input_ids")
    ids, mask = part["input_ids"], part.get("attention_mask")
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"calibration must hold token ids (int64 tensors), got {ids.dtype}")
    if ids.ndim != 2 or not ids.numel():
        raise ValueError(f"calibration batches must be [samples, length] and not empty, got shape {tuple(ids.shape)}")
    embedding = model.get_input_embeddings()
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= embedding.num_embeddings:
        raise ValueError(
            f"calibration holds token ids from {low} to {high}, but the model's vocabulary is 0 to "
            f"{embedding.num_embeddings - 1}; was it made with another model's tokenizer?"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context and ids.shape[1] > context:
        raise ValueError(f"calibration windows are {ids.shape[1]} tokens long; the model's context is {context}")
    device = "cpu" if embedding.weight.is_meta else embedding.weight.device  # not loaded yet
    batch = {name: value.to(device) for name, value in part.items() if name != "attention_mask"}
    batch |= _decoder_mask(takes, part, device)
    if mask is None:
        return batch
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}, input_ids {tuple(ids.shape)}; they must agree")
    _check_mask("attention_mask", mask)
    if not mask.all() and has_encoder(model) and lacks_decoder_inputs(takes, part):
        raise ValueError("input_ids has padding, and the decoder would read it; add decoder_input_ids, or labels")
    if not mask.all():
        batch["attention_mask"] = mask.to(device)
        at_the_end = bool((mask[:, 1:] <= mask[:, :-1]).all())  # then the model counts right by itself
        if "position_ids" in takes and "position_ids" not in part and not at_the_end and not _skips_padding(model):
            batch["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0).to(device)
    return batch


def _check_mask(name, mask):
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} must hold 1 for tokens and 0 for padding")
    if not mask.any():
        raise ValueError(f"a calibration batch holds only padding: its {name} has no 1")


def _skips_padding(model):
    """Whether a model's own positions count tokens only, from an offset, as RoBERTa's do."""
    return any(
        isinstance(module, nn.Embedding) and module.padding_idx is not None and "position" in name
        for name, module in model.named_modules()
    )
