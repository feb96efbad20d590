"""Where the linear layers are in a transformers model, and how to run its blocks one at a time.

A decoder is a stack of blocks. `capture` records what each of them is called with; `replay` runs one of them again on
hidden states of our choosing, with exactly those arguments. Nothing here knows any model family by name.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
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
    """One of the repeated blocks of a model, with the linear layers to prune in it."""

    name: str
    module: nn.Module
    layers: tuple


def find_blocks(model, skip=()):
    """The repeated blocks of a model, in order, each with its prunable linear layers.

    The blocks are the outermost `nn.ModuleList` that holds the most linear weights. Embeddings, the output head and
    whatever is tied to them are never listed; neither is a layer whose name matches `skip`.

    Args:
        model: a transformers causal language model.
        skip: names or patterns, see `matches`.

    Returns: list of `Block`.

    Raises:
        ValueError: nothing to prune, a skip pattern that matches nothing, weights stored in a form that cannot be
            pruned (quantized, or experts fused in one tensor): all named.
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
            raise ValueError(f"skip={pattern!r} matches no layer; layers are named like {names[0]!r}")
    if not any(block.layers for block in blocks):
        raise ValueError(f"skip={skip!r} leaves no linear layer to prune in {stack!r}")
    return blocks


def matches(name, pattern):
    """Whether a layer's dotted name is meant by a pattern: the whole name, some whole components of it in a row
    ("down_proj", "layers.0"), or a wildcard over the whole name ("*.mlp.*")."""
    return fnmatchcase(name, pattern) or f".{pattern}." in f".{name}."


def sparsity(model):
    """Fraction of exact zeros among the weights of the prunable layers. float in [0, 1]"""
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
            continue  # short convolutions are no linear layers; they stay dense
        for name, parameter in module.named_parameters(recurse=False):
            full = ".".join(filter(None, (prefix, owner, name)))
            if parameter.ndim >= 3 and not any(matches(full, pattern) for pattern in skip):
                raise ValueError(
                    f"{full} fuses several weight matrices in one tensor of shape {tuple(parameter.shape)} "
                    "(mixture-of-experts?), which is not supported; "
                    f"pass skip=({name!r},) to leave such weights dense and prune the rest"
                )


# Running blocks one at a time ------------------------------------------------------------------------------------------


MOST_THREADS = 4  # batches at once: each takes memory for its activations, and large products keep several cores busy


class Stop(Exception):
    """Raised by a hook to end a forward pass whose rest is of no use."""


@dataclass(frozen=True)
class Call:
    """The arguments of one block for one batch, but for the hidden states that come first."""

    args: tuple
    kwargs: dict


def capture(model, blocks, batches, hidden=None):
    """Record what each block is called with, at the cost of an embedding look-up and one block's forward.

    The blocks are passed over: each records its own arguments (a sliding-window model gives different masks to
    different layers) and hands its input on.

    Args:
        batches: list of dicts of what the model's forward takes: `input_ids` [batch, length], `attention_mask`, ...
        hidden: what the first block's inputs are appended to; None: a new list.

    Returns:
        (hidden, calls): hidden[b] is the first block's input for batch b, [batch, length, hidden];
        calls[i][b] is the `Call` of block i for batch b.
    """
    hidden, calls = [] if hidden is None else hidden, [[] for _ in blocks]
    extras = []  # what a block returns besides the hidden states, for models whose blocks return a tuple

    def recorder(index, original):
        def forward(*args, **kwargs):
            if index == 0 and not extras:
                output = original(*args, **kwargs)
                extras.append(output[1:] if isinstance(output, tuple) else None)
            states, *args = args or (kwargs.pop("hidden_states"),)
            call = Call(tuple(args), kwargs)
            # Batches of one shape get equal masks and positions: keep one copy, not one per batch.
            calls[index].append(_share(call, calls[index][-1]) if calls[index] else call)
            if index == 0:
                hidden.append(states)
            if index == len(blocks) - 1:
                raise Stop
            return states if extras[0] is None else (states, *extras[0])

        return forward

    with _forwards_replaced([block.module for block in blocks], recorder):
        for batch in batches:
            try:
                model(**batch, use_cache=False)
            except Stop:
                continue
            raise RuntimeError(f"{type(model).__name__} never called its block {blocks[-1].name!r}")
    return hidden, calls


def replay(block, hidden, call):
    """Run a block on hidden states [batch, length, hidden], on its own device, with the arguments it once received.

    Returns the hidden states [batch, length, hidden] for the next block.
    """
    device = device_of(block)
    args, kwargs = _move(call.args, device), _move(call.kwargs, device)
    # From page-locked memory a GPU fetches for itself, and in its turn, while the program goes on.
    hidden = hidden.to(device, non_blocking=device.type == "cuda")
    output = block.module(hidden, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def device_of(block):
    """The device that a block computes on."""
    return next(block.module.parameters()).device


def is_hooked(module):
    """Whether accelerate's hooks move parts of a module to devices of their own."""
    return any(hasattr(part, "_hf_hook") for part in module.modules())


def threads_for(module, batches):
    """How many batches to run a module on at once: several on a CPU with several cores, else one.

    One as well where a batch holds several windows, since its size says how much memory there is; and where something
    that threads do not inherit would change the result: autocast, inference mode, weights that accelerate moves.

    Args:
        module: a block's module, or a whole model.
        batches: list of dicts with `input_ids` [batch, length].
    """
    several_windows = any(len(batch["input_ids"]) > 1 for batch in batches)
    not_inherited = torch.is_autocast_enabled("cpu") or torch.is_inference_mode_enabled()
    device = next(module.parameters()).device
    if device.type != "cpu" or is_hooked(module) or several_windows or not_inherited:
        return 1
    return threads_on_cpu(len(batches))


def threads_on_cpu(batches=MOST_THREADS):
    """How many of so many batches a CPU computes at once: only divisors of its cores, so that none idles."""
    cores, most = torch.get_num_threads(), max(1, min(MOST_THREADS, batches))
    return max(number for number in range(1, most + 1) if cores % number == 0)


@contextmanager
def evaluating(model):
    """Switch dropout off for the time of a `with`."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _forwards_replaced(modules, replacement):
    """For the time of a `with`, give module i the forward `replacement(i, its own forward)`."""
    own = [module.__dict__.get("forward") for module in modules]  # set where a library wrapped it (accelerate)
    try:
        for index, module in enumerate(modules):
            module.forward = replacement(index, module.forward)
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


def _share(new, old):
    """`new`, with each tensor that equals its counterpart in `old` replaced by that very tensor."""
    if isinstance(new, torch.Tensor):
        same = isinstance(old, torch.Tensor) and new.shape == old.shape and new.dtype == old.dtype
        return old if same and torch.equal(new, old) else new
    if isinstance(new, Call):
        return Call(_share(new.args, old.args), _share(new.kwargs, old.kwargs))
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _share(value, old.get(key)) for key, value in new.items()}
    if type(new) in (tuple, list) and type(old) is type(new) and len(new) == len(old):
        return type(new)(map(_share, new, old))
    return new


def _move(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_move(item, device) for item in value)
    return value
