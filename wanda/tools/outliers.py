"""Outlier features and massive activations: the few hidden values that are far larger than all others.

Hidden states pass from block to block: `states[i]` is the input of block i, and the last entry is the output of the
last block, before the model's final norm. A model of 30 blocks has 31 of them.

- Outlier features (LLM.int8(), arXiv 2208.07339, section 4) are columns: large at nearly every token.
- Massive activations (arXiv 2402.17762, section 2) are single values: huge, at one or a few tokens only.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..blocks.stacks import find_blocks


@dataclass(frozen=True)
class Massive:
    """One massive activation: its position, its value, and the ratio of its magnitude to the layer's median."""

    layer: int
    token: int
    feature: int
    value: float
    ratio: float


def hidden_states(model, tokens):
    """The hidden states between the blocks of a model for one window of text.

    Args:
        model: a transformers causal language model.
        tokens: LongTensor [tokens] or [1, tokens].

    Returns: float32 Tensor [blocks + 1, tokens, hidden] on the CPU: the input of each block, then the output of the
        last one. (`output_hidden_states=True` gives the same except for the last entry, which it normalises.)
    """
    tokens = tokens.reshape(1, -1)
    modules = [block.module for block in find_blocks(model)]
    states = [None] * (len(modules) + 1)

    def keep(index):
        def look(state):
            states[index] = state[0].detach().to("cpu", torch.float32, copy=True)

        return look

    with _at_state(modules, {index: keep(index) for index in range(len(states))}), torch.no_grad():
        model(tokens.to(model.get_input_embeddings().weight.device), use_cache=False)
    return torch.stack(states)


def inputs_of(module, model, tokens):
    """The inputs of one layer for one window of text: float32 Tensor [tokens, in] on the CPU.

    Args:
        module: the layer, part of the model. model, tokens: as for `hidden_states`.
    """
    read = []
    hook = module.register_forward_pre_hook(lambda _, args: read.append(args[0][0].detach().float().cpu()))
    try:
        with torch.no_grad():
            model(tokens.reshape(1, -1).to(model.get_input_embeddings().weight.device), use_cache=False)
    finally:
        hook.remove()
    return read[0]


def feature_ratios(states):
    """The size of each feature relative to the typical feature of its layer, at the typical token.

    A feature's size is the median of its magnitude over the tokens, which ignores a huge value at a single token. It is
    divided by the median size of the layer's features.

    Args:
        states: Tensor [layers, tokens, hidden].

    Returns: Tensor [layers, hidden].
    """
    size = states.abs().median(dim=1).values  # [layers, hidden]
    return size / size.median(dim=1, keepdim=True).values.clamp_min(torch.finfo(size.dtype).tiny)


def outlier_features(states, factor=20.0, share=0.25):
    """The features that are far larger than the others at most tokens of many layers.

    In the spirit of LLM.int8(), which requires a magnitude of at least 6 in a quarter of the layers; the bound here is
    relative, because hidden states grow from block to block.

    Args:
        states: Tensor [layers, tokens, hidden].
        factor: least ratio to the layer's typical feature (see `feature_ratios`).
        share: least fraction of the layers.

    Returns: list of features, the largest first.
    """
    ratios = feature_ratios(states)  # [layers, hidden]
    often = (ratios >= factor).float().mean(dim=0) >= share  # [hidden]
    largest = ratios.amax(dim=0)
    return sorted(often.nonzero().flatten().tolist(), key=lambda feature: -float(largest[feature]))


def massive_activations(states, magnitude=100.0, ratio=1000.0):
    """The values that are massive by the definition of arXiv 2402.17762: above 100 and above 1,000 times the median.

    Args:
        states: Tensor [layers, tokens, hidden].
        magnitude: least magnitude. ratio: least multiple of the median magnitude of the same layer.

    Returns: list of `Massive`, by layer, largest first within each.
    """
    sizes = states.abs()  # [layers, tokens, hidden]
    medians = sizes.flatten(1).median(dim=1).values  # [layers]
    bound = (medians * ratio).clamp_min(magnitude)[:, None, None]
    found = []
    for layer, token, feature in (sizes >= bound).nonzero().tolist():
        value = float(states[layer, token, feature])
        multiple = abs(value) / float(medians[layer]) if medians[layer] > 0 else float("inf")
        found.append(Massive(layer, token, feature, value, multiple))
    return sorted(found, key=lambda item: (item.layer, -abs(item.value)))


@contextmanager
def replaced(model, layer, token, feature, value=0.0):
    """Set values of one hidden state during every forward pass inside a `with`.

    The hidden state is overwritten during the pass; the blocks after it read the new value. No weight changes.

    Args:
        layer: which hidden state, from 0 (the first block's input) to the number of blocks (the last one's output).
        token, feature: indices, or lists or slices of them, into [tokens, hidden]. `slice(None)` means all.
        value: the new value: a number, or a tensor that broadcasts to the selected entries.

    Raises: ValueError: there is no such layer.
    """
    modules = [block.module for block in find_blocks(model)]
    if not 0 <= layer <= len(modules):
        raise ValueError(f"layer must be from 0 to {len(modules)}, got {layer!r}")

    def write(state):
        state = state.clone()
        state[:, token, feature] = torch.as_tensor(value, dtype=state.dtype, device=state.device)
        return state

    with _at_state(modules, {layer: write}):
        yield model


@contextmanager
def _at_state(modules, functions):
    """Inside a `with`, call functions[i] on hidden state i, and replace the state with the result unless it is None."""

    def before(function):
        def hook(module, args, kwargs):
            state = args[0] if args else kwargs["hidden_states"]
            new = function(state)
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return hook

    def after(function):
        def hook(module, args, output):
            new = function(output[0] if isinstance(output, tuple) else output)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return hook

    hooks = []
    try:
        for index, function in functions.items():
            if index == 0:
                hooks.append(modules[0].register_forward_pre_hook(before(function), with_kwargs=True))
            else:
                hooks.append(modules[index - 1].register_forward_hook(after(function)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
