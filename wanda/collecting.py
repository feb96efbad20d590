"""One pass of the calibration data through one block, gathering statistics of what its linear layers read."""

import torch

from .activations import LayerInputs
from .blocks import Stop, device_of, replay
from .distributed import add_up


def collect(block, hidden, calls, masks, statistic, outputs=None):
    """Replay a block on every batch and accumulate a statistic of each layer's input over all non-padding tokens.

    Layers that are handed the same tensor (q, k and v; gate and up) share one `LayerInputs`: it is computed once.
    Where several processes work together, each brings its own batches and all get what the batches of all say.
    The pass ends as soon as the last layer has been reached, unless the outputs are wanted.

    Args:
        block: a `Block`. hidden, calls: as `capture` returns them for this block, one per batch; any iterables will do.
        masks: per batch, None or a bool tensor [batch, length], True for tokens.
        statistic: `InputNorm` or `Hessian`.
        outputs: a list, or what has `append` like one, for the block's outputs [batch, length, hidden]; None: not wanted.

    Returns: dict from layer name to `LayerInputs`.

    Raises: RuntimeError naming the layer if it saw NaN or infinity, or if padding cannot be told from tokens.
    """
    inputs, fired = {}, {layer.name: 0 for layer in block.layers}
    current = (None, None)  # the last tensor seen in this pass, and where it went
    once_each = False  # known after the first batch: then the rest of a pass can be left out
    number, positions, kept, remaining = 0, None, None, 0

    def hook(name):
        def pre_forward(module, args):
            nonlocal current, remaining
            fired[name] += 1
            tensor = args[0]
            if tensor is current[0] and inputs.setdefault(name, current[1]) is current[1]:
                pass  # counted already, for another layer
            else:
                tokens = _tokens(tensor, positions, kept, name)  # [tokens, in]
                if name not in inputs:
                    sample = tokens[: tensor.shape[-2]].clone()  # a view would keep the whole batch in memory
                    inputs[name] = LayerInputs(statistic(tokens.shape[1], tokens.device), sample, number)
                inputs[name].statistic.add(tokens)
                current = (tensor, inputs[name])
            remaining -= 1
            if once_each and remaining == 0 and outputs is None:
                raise Stop

        return pre_forward

    handles = [layer.module.register_forward_pre_hook(hook(layer.name)) for layer in block.layers]
    try:
        batches = zip(hidden, calls, masks, strict=True)
        for number, (states, call, mask) in enumerate(batches):  # noqa: B007 (the hooks read it)
            current, remaining = (None, None), len(block.layers)
            positions, kept = 0, None
            if mask is not None:  # where the tokens are: found once per batch, since a GPU is waited for
                positions = mask.numel()
                kept = mask.reshape(-1).nonzero().squeeze(1).to(device_of(block))
            try:
                output = replay(block, states, call)
            except Stop:
                continue
            if outputs is not None:
                outputs.append(output)
            del output
            once_each = all(count == 1 for count in fired.values())
    finally:
        for handle in handles:
            handle.remove()
    inputs = add_up(block.layers, inputs, statistic)  # before the check, so that every process raises or none
    finite = [torch.isfinite(seen.statistic.norm()).all() for seen in inputs.values()]
    for name, is_finite in zip(inputs, read_together(finite), strict=True):
        if not is_finite:
            raise RuntimeError(
                f"{name} was given NaN or infinite inputs by the calibration data; its statistics are void"
            )
    return inputs


def read_together(numbers):
    """The values of some tensors of no dimension, wherever they are: one wait for a GPU, where each alone would be one."""
    return torch.stack([number.to(numbers[0].device) for number in numbers]).tolist() if numbers else []


def _tokens(tensor, positions, kept, name):
    """The non-padding rows [tokens, in] of a layer's input [batch, length, in] or [batch * length, in]."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    if kept is None:
        return rows
    if len(rows) != positions:
        raise RuntimeError(
            f"{name} read {len(rows)} rows of a batch of {positions} positions: padding cannot be told from tokens; "
            "use calibration windows without padding"
        )
    return rows.index_select(0, kept.to(rows.device))
