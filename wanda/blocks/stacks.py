"""Find the blocks of a transformers model: stacks of repeated blocks, which hold its linear layers.

No model family is known by name.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .experts import is_experts
from .layers import check_layer, linear_layers, matches


@dataclass(frozen=True)
class Block:
    """One of a model's repeated blocks, with its linear layers to prune: `Linear`s and `ExpertLinear`s."""

    name: str
    module: nn.Module
    layers: tuple

    @property
    def stack(self):
        """The name of the `nn.ModuleList` that holds it."""
        return self.name.rpartition(".")[0]


def find_blocks(model, skip=()):
    """The repeated blocks of a model, in the order in which they run, each with its prunable linear layers.

    The blocks are those of the outermost `nn.ModuleList` with the most linear weights: of the decoder in a language model,
    of the encoder and then of the decoder where there are both, and of the whole model where no text goes in. A stage of
    ConvNeXt or Swin is one block. Each expert of a mixture is a layer of its own. Embeddings, the output head, layers
    tied to them, routers of experts and layers whose name matches `skip` are not listed, nor are adapters; an adapted
    layer's base weight is.

    Args:
        model: a transformers model.
        skip: names or patterns, see `matches`.

    Returns: list of `Block`.

    Raises:
        ValueError, naming the layer: nothing to prune, a skip pattern that matches nothing, weights that two layers share, or
            weights in a form that cannot be pruned (quantized, or fused in one tensor in a way that transformers' experts
            interface does not describe).
    """
    skip = tuple(skip) if isinstance(skip, Iterable) and not isinstance(skip, str) else (skip,)
    if not all(isinstance(pattern, str) for pattern in skip):
        raise TypeError(f"skip must hold names or patterns, got {skip!r}")
    everything, blocks = list_blocks(model), []
    embedding = token_embedding(model)
    width = getattr(model.config, "hidden_size", None) if embedding is None else embedding.weight.shape[-1]
    for block in everything:
        _refuse_fused_weights(block.name, block.module, skip, width)
        layers = tuple(layer for layer in block.layers if not any(matches(layer.name, pattern) for pattern in skip))
        for layer in layers:
            check_layer(layer)
        blocks.append(Block(block.name, block.module, layers))
    _refuse_shared_weights(blocks)
    names = [layer.name for block in everything for layer in block.layers]
    for pattern in skip:
        if not any(matches(name, pattern) for name in names) and not any(
            matches(name, pattern) for name, _ in model.named_parameters()
        ):
            raise ValueError(f"skip={pattern!r} matches no layer; layer names look like {names[0]!r}")
    if not any(block.layers for block in blocks):
        raise ValueError(f"skip={skip!r} leaves no linear layer to prune")
    return blocks


def list_blocks(model):
    """What `find_blocks` lists, unchecked: also of models that can be pruned only with some layers skipped."""
    tied = {id(parameter) for parameter in _embedding_parameters(model)}
    blocks = []
    for stack, modules in _find_stacks(model):
        for index, module in enumerate(modules):
            name = f"{stack}.{index}"
            layers = tuple(layer for layer in linear_layers(name, module) if id(layer.parameter) not in tied)
            blocks.append(Block(name, module, layers))
    return blocks


def sparsity(model):
    """Fraction of exact zeros among the weights of the prunable layers, a float in [0, 1]."""
    layers = [layer for block in list_blocks(model) for layer in block.layers]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(layer.weight.numel() for layer in layers)


def reads_tokens(model):
    """Whether a model takes the ids of tokens, and not only pixels or samples of sound."""
    if getattr(model, "main_input_name", "input_ids") == "input_ids":
        return True
    return "input_ids" in inspect.signature(model.forward).parameters


def has_encoder(model):
    """Whether a model is an encoder and a decoder, and not one of them by itself, whose configuration says so too."""
    both = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return both and model.get_decoder() is not model


def token_embedding(model):
    """The embedding of the tokens that a model reads, or None."""
    if not (reads_tokens(model) and hasattr(model, "get_input_embeddings")):
        return None
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:  # CLIP has one in its text model only
        return None
    return embedding if isinstance(embedding, nn.Module) else None  # Perceiver gives its latent states


def _find_stacks(model):
    """The stacks of a model, in the order in which they run: list of (name, `nn.ModuleList`)."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}; wanda.load opens one")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TypeError(f"{type(model).__name__} wraps the model; pass its .module")
    if has_encoder(model):
        return _largest_stack(model, model.get_encoder()) + _largest_stack(model, model.get_decoder())
    if not reads_tokens(model):
        return _largest_stack(model, model)
    if hasattr(model, "get_text_features") and model.get_output_embeddings() is None:  # CLIP, but not BLIP-2
        raise ValueError(
            f"{type(model).__name__} encodes texts and images (or sound) apart; prune its parts, such as model.text_model "
            "and model.vision_model, one after the other"
        )
    if not isinstance(getattr(token_embedding(model), "weight", None), torch.Tensor):
        raise ValueError(f"{type(model).__name__} has no single embedding of tokens, so it cannot be pruned as a whole")
    # The decoder is the model without its towers of images or sound.
    return _largest_stack(model, model.get_decoder() if hasattr(model, "get_decoder") else model)


def _largest_stack(model, part):
    """Of the outermost lists of modules in a part of a model, without towers, the one with the most linear weights.

    Returns: list of (name, `nn.ModuleList`): one, or several if it is a list of lists.
    """
    towers = ()
    if reads_tokens(model):
        others = {name: module for name, module in model.named_modules() if name and not reads_tokens(module)}
        towers = tuple(f"{name}." for name, module in others.items() if part not in module.modules())
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    lists = {name: module for name, module in lists.items() if not name.startswith(towers)}
    stacks = {
        name: module for name, module in lists.items() if not any(name.startswith(f"{other}.") for other in lists)
    }
    inside = set(map(id, part.modules()))  # for some models, `part` is only the head
    stacks = {name: module for name, module in stacks.items() if id(module) in inside} or stacks
    sizes = {name: sum(layer.weight.numel() for layer in linear_layers(name, stack)) for name, stack in stacks.items()}
    if not any(sizes.values()):
        raise ValueError(
            f"{type(model).__name__} has no repeated blocks (an nn.ModuleList) with linear layers to prune"
        )
    largest, *others = sorted(sizes, key=sizes.get, reverse=True)
    if others and 2 * sizes[others[0]] >= sizes[largest]:
        raise ValueError(
            f"{type(model).__name__} has two stacks of blocks, {largest!r} and {others[0]!r}; models with one are supported"
        )
    if all(isinstance(entry, nn.ModuleList) for entry in stacks[largest]):
        return [(f"{largest}.{index}", entry) for index, entry in enumerate(stacks[largest])]
    return [(largest, stacks[largest])]


def _embedding_parameters(model):
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for embedding in (token_embedding(model), head):
        if embedding is not None:
            yield from embedding.parameters()


def _refuse_shared_weights(blocks):
    """One layer's mask would be set before it is known what the other reads."""
    owners = {}
    for block in blocks:
        for layer in block.layers:
            owner = owners.setdefault((id(layer.parameter), getattr(layer, "expert", None)), layer)
            if owner is not layer:
                part = layer.name.removeprefix(f"{block.name}.").partition(".")[0]
                raise ValueError(
                    f"{owner.name} and {layer.name} share one weight; pass skip=({part!r},) to leave such layers dense "
                    "and prune the rest"
                )


def _refuse_fused_weights(prefix, block, skip, width):
    for owner, module in block.named_modules():
        if isinstance(module, (nn.Linear, Conv1D, nn.Embedding, nn.modules.conv._ConvNd)) or is_experts(module):
            continue  # short convolutions are not linear layers, and stay dense
        for name, parameter in module.named_parameters(recurse=False):
            full = ".".join(filter(None, (prefix, owner, name)))
            # A router is a matrix too, but with fewer rows than the model is wide.
            is_matrix = parameter.ndim == 2 and width in parameter.shape and min(parameter.shape) >= width
            is_fused = (parameter.ndim >= 3 and sorted(parameter.shape)[-2] > 1) or is_matrix
            if is_fused and not any(matches(full, pattern) for pattern in skip):
                raise ValueError(
                    f"{full} fuses several weight matrices in one tensor of shape {tuple(parameter.shape)} "
                    "(mixture-of-experts?) in a way that is not supported; "
                    f"pass skip=('*.{full.removeprefix(f'{prefix}.')}',) to leave them dense and prune the rest"
                )
