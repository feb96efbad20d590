"""Find the linear layers of a transformers model: a decoder is a stack of blocks, and each block holds some.

No model family is known by name.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Linear:
    """A prunable layer: `y = x WT`. GPT-2's `Conv1D` stores W transposed; here it is always [out, in]."""

    name: str
    module: nn.Module

    @property
    def weight(self):
        """The weight as a view [out, in] of the module's own storage."""
        weight = self.module.weight.detach()
        return weight.T if isinstance(self.module, Conv1D) else weight

    def replace(self, weight):
        """Write new values [out, in] into the module, in its own dtype."""
        self.weight.copy_(weight)


@dataclass(frozen=True)
class Block:
    """One of a model's repeated blocks, with its linear layers to prune."""

    name: str
    module: nn.Module
    layers: tuple


def find_blocks(model, skip=()):
    """The repeated blocks of a model, in order, each with its prunable linear layers.

    The blocks are those of the outermost `nn.ModuleList` with the most linear weights. Embeddings, the output head,
    layers tied to them and layers whose name matches `skip` are not listed.

    Args:
        model: a transformers causal language model.
        skip: names or patterns, see `matches`.

    Returns: list of `Block`.

    Raises:
        ValueError, naming the layer: nothing to prune, a skip pattern that matches nothing, or weights in a form that
            cannot be pruned (quantized, or experts fused in one tensor).
    """
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder; only decoder-only language models are supported"
        )
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = {
        name: module for name, module in stacks.items() if not any(name.startswith(f"{other}.") for other in stacks)
    }
    sizes = {name: sum(m.weight.numel() for _, m in _linears(module)) for name, module in outermost.items()}
    if not any(sizes.values()):
        raise ValueError(
            f"{type(model).__name__} has no repeated blocks (an nn.ModuleList) with linear layers to prune"
        )
    stack = max(sizes, key=sizes.get)
    tied = {id(parameter) for parameter in _embedding_parameters(model)}
    blocks, names = [], []
    for index, module in enumerate(stacks[stack]):
        prefix = f"{stack}.{index}"
        _refuse_fused_weights(prefix, module, skip)
        found = [Linear(f"{prefix}.{name}" if name else prefix, linear) for name, linear in _linears(module)]
        found = [layer for layer in found if id(layer.module.weight) not in tied]
        names += [layer.name for layer in found]
        layers = tuple(layer for layer in found if not any(matches(layer.name, pattern) for pattern in skip))
        for layer in layers:
            if not layer.module.weight.is_floating_point():
                raise ValueError(
                    f"{layer.name} holds {layer.module.weight.dtype} (quantized?) weights; load the model unquantized"
                )
        blocks.append(Block(prefix, module, layers))
    for pattern in skip:
        if not any(matches(name, pattern) for name in names) and not any(
            matches(name, pattern) for name, _ in model.named_parameters()
        ):
            raise ValueError(f"skip={pattern!r} matches no layer; layer names look like {names[0]!r}")
    if not any(block.layers for block in blocks):
        raise ValueError(f"skip={skip!r} leaves no linear layer to prune in {stack!r}")
    return blocks


def matches(name, pattern):
    """Whether a pattern matches a layer's dotted name: the whole name, consecutive components of it ("down_proj",
    "layers.0"), or a wildcard for the whole name ("*.mlp.*")."""
    return fnmatchcase(name, pattern) or f".{pattern}." in f".{name}."


def sparsity(model):
    """Fraction of exact zeros among the weights of the prunable layers, a float in [0, 1]."""
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(layer.weight.numel() for layer in layers)


def _linears(module):
    return [(name, m) for name, m in module.named_modules() if isinstance(m, (nn.Linear, Conv1D))]


def _embedding_parameters(model):
    for get in ("get_input_embeddings", "get_output_embeddings"):
        embedding = getattr(model, get)() if hasattr(model, get) else None
        if embedding is not None:
            yield from embedding.parameters()


def _refuse_fused_weights(prefix, block, skip):
    for owner, module in block.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            continue  # not a linear layer: short convolutions stay dense
        for name, parameter in module.named_parameters(recurse=False):
            full = ".".join(filter(None, (prefix, owner, name)))
            if parameter.ndim >= 3 and not any(matches(full, pattern) for pattern in skip):
                raise ValueError(
                    f"{full} fuses several weight matrices in one tensor of shape {tuple(parameter.shape)} "
                    "(mixture-of-experts?), which is not supported; "
                    f"pass skip=({name!r},) to leave such weights dense and prune the rest"
                )
