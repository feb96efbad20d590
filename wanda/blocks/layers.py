"""Find the linear layers of a transformers model: a decoder is a stack of blocks, and each block holds some.

No model family is known by name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .experts import expert_layers, is_experts


@dataclass(frozen=True)
class Linear:
    """A prunable layer: `y = x WT`. GPT-2's `Conv1D` stores W transposed; here it is always [out, in]."""

    name: str
    module: nn.Module

    @property
    def parameter(self):
        """The parameter that holds the weight."""
        return self.module.weight

    @property
    def parameter_name(self):
        """The name of that parameter in the model."""
        return f"{self.name}.weight"

    @property
    def weight(self):
        """The weight as a view [out, in] of the module's own storage."""
        return self.view(self.parameter.detach())

    def view(self, tensor):
        """This layer's part, as [out, in], of a tensor of the parameter's shape."""
        return tensor.T if isinstance(self.module, Conv1D) else tensor

    def replace(self, weight):
        """Write new values [out, in] into the module, in its own dtype."""
        self.weight.copy_(weight)


@dataclass(frozen=True)
class Block:
    """One of a model's repeated blocks, with its linear layers to prune: `Linear`s and `ExpertLinear`s."""

    name: str
    module: nn.Module
    layers: tuple


def find_blocks(model, skip=()):
    """The repeated blocks of a model, in order, each with its prunable linear layers.

    The blocks are those of the decoder's outermost `nn.ModuleList` with the most linear weights. Each expert of a mixture is a
    layer of its own. Embeddings, the output head, layers tied to them, routers of experts and layers whose name matches
    `skip` are not listed, nor are adapters; an adapted layer's base weight is.

    Args:
        model: a transformers causal language model.
        skip: names or patterns, see `matches`.

    Returns: list of `Block`.

    Raises:
        ValueError, naming the layer: nothing to prune, a skip pattern that matches nothing, or weights in a form that
            cannot be pruned (quantized, or fused in one tensor in a way that transformers' experts interface does not
            describe).
    """
    skip = tuple(skip) if isinstance(skip, Iterable) and not isinstance(skip, str) else (skip,)
    if not all(isinstance(pattern, str) for pattern in skip):
        raise TypeError(f"skip must hold names or patterns, got {skip!r}")
    everything, blocks = list_blocks(model), []
    width = model.get_input_embeddings().weight.shape[-1]
    for block in everything:
        _refuse_fused_weights(block.name, block.module, skip, width)
        layers = tuple(layer for layer in block.layers if not any(matches(layer.name, pattern) for pattern in skip))
        for layer in layers:
            _check_layer(layer)
        blocks.append(Block(block.name, block.module, layers))
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
    stack, modules = _find_stack(model)
    tied = {id(parameter) for parameter in _embedding_parameters(model)}
    blocks = []
    for index, module in enumerate(modules):
        name = f"{stack}.{index}"
        layers = tuple(layer for layer in _layers(name, module) if id(layer.parameter) not in tied)
        blocks.append(Block(name, module, layers))
    return blocks


def matches(name, pattern):
    """Whether a pattern matches a layer's dotted name: the whole name, consecutive components of it ("down_proj",
    "layers.0"), or a wildcard for the whole name ("*.mlp.*")."""
    return fnmatchcase(name, pattern) or f".{pattern}." in f".{name}."


def sparsity(model):
    """Fraction of exact zeros among the weights of the prunable layers, a float in [0, 1]."""
    layers = [layer for block in list_blocks(model) for layer in block.layers]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(layer.weight.numel() for layer in layers)


def _find_stack(model):
    """The blocks of a model: of the outermost lists of modules in its decoder, the one with the most linear weights.

    Returns: (name, `nn.ModuleList`).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a transformers language model, got {type(model).__name__}; wanda.load opens one"
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TypeError(f"{type(model).__name__} wraps the model; pass its .module")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder; only decoder-only language models are supported"
        )
    if not isinstance(getattr(_embedding(model), "weight", None), torch.Tensor):
        raise ValueError(f"{type(model).__name__} has no embedding of tokens; only language models are supported")
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    stacks = {
        name: module for name, module in lists.items() if not any(name.startswith(f"{other}.") for other in lists)
    }
    if hasattr(model, "get_decoder"):  # without the towers of images or sounds; for some models it is only the head
        inside = set(map(id, model.get_decoder().modules()))
        stacks = {name: module for name, module in stacks.items() if id(module) in inside} or stacks
    sizes = {name: sum(layer.weight.numel() for layer in _layers(name, stack)) for name, stack in stacks.items()}
    if not any(sizes.values()):
        raise ValueError(
            f"{type(model).__name__} has no repeated blocks (an nn.ModuleList) with linear layers to prune"
        )
    largest, *others = sorted(sizes, key=sizes.get, reverse=True)
    if others and 2 * sizes[others[0]] >= sizes[largest]:
        raise ValueError(
            f"{type(model).__name__} has two stacks of blocks, {largest!r} and {others[0]!r}; models with one are supported"
        )
    return largest, stacks[largest]


def _check_layer(layer):
    """Raise ValueError unless a layer's weight is a plain matrix of floats."""
    if not isinstance(layer.parameter, nn.Parameter):
        raise ValueError(
            f"{layer.name} computes its weight from other parameters (torch.nn.utils.prune, a parametrization?); "
            "make it a plain weight first, for example with torch.nn.utils.prune.remove"
        )
    if not _is_plain(layer.module):
        raise ValueError(
            f"{layer.name} is a {type(layer.module).__name__}, which is not applied to each token as a whole; "
            f"pass skip=({layer.name.rpartition('.')[2]!r},) to leave such layers dense and prune the rest"
        )
    if not layer.parameter.is_floating_point():
        raise ValueError(f"{layer.name} holds {layer.parameter.dtype} (quantized?) weights; load the model unquantized")


def _layers(prefix, module):
    """The linear layers of a module, in its order, without routers: list of `Linear` and `ExpertLinear`."""
    counts = {len(part) for part in module.modules() if isinstance(part, nn.ModuleList)}
    counts |= {len(parameter) for parameter in module.parameters() if parameter.ndim == 3}  # fused experts
    adapted = [name for name, part in module.named_modules() if hasattr(part, "base_layer")]  # by PEFT
    found = []
    for name, part in module.named_modules():
        full = f"{prefix}.{name}" if name else prefix
        if any(name.startswith(f"{other}.") and name != f"{other}.base_layer" for other in adapted):
            continue  # an adapter
        if is_experts(part):
            found += expert_layers(full, part)
        elif isinstance(part, (nn.Linear, Conv1D)) and not _is_router(full, part, counts):
            found.append(Linear(full, part))
    return found


def _is_plain(module):
    """Whether a linear layer maps each row of its input to a row of outputs; grouped ones apply parts of their weight."""
    if not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward:
        return True
    probe = module.weight.new_zeros(2, module.in_features)
    try:
        outputs = module(probe)
        return isinstance(outputs, torch.Tensor) and outputs.shape == (2, module.out_features)
    except (RuntimeError, ValueError, IndexError):
        return False


def _is_router(name, linear, counts):
    """Whether a linear layer chooses among experts, or gates a shared one. counts: possible numbers of experts."""
    outputs = linear.weight.shape[0]
    return bool(counts) and outputs in {1, *counts} and re.search(r"(^|[._])(gate|router)(\.|$)", name) is not None


def _embedding(model):
    return model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None


def _embedding_parameters(model):
    for get in ("get_input_embeddings", "get_output_embeddings"):
        embedding = getattr(model, get)() if hasattr(model, get) else None
        if embedding is not None:
            yield from embedding.parameters()


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
