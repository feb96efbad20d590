"""One pass of the calibration data through one block, gathering statistics of what its linear layers read."""

import copy
import threading

import torch

from .activations import LayerInputs
from .blocks import Stop, device_of, replay
from .distributed import add_up
from .threads import each


def collect(block, hidden, calls, masks, statistic, outputs=None, threads=1):
    """Replay a block on every batch and accumulate a statistic of each layer's input over all non-padding tokens.

    Layers that are handed the same tensor (q, k and v; gate and up) share one `LayerInputs`: it is computed once.
    Where several processes work together, each brings its own batches and all get what the batches of all say.
    The pass ends as soon as the last layer has been reached, unless the outputs are wanted.

    Args:
        block: a `Block`. hidden, calls: as `capture` returns them for this block, one per batch; any iterables will do.
        masks: per batch, None or a bool tensor [batch, length], True for tokens.
        statistic: `InputNorm` or `Hessian`.
        outputs: a list, or what has `append` like one, for the block's outputs [batch, length, hidden]; None: not wanted.
        threads: how many batches to replay at once. Each thread has sums of its own; with several, all batches are taken
            out of the iterables at the beginning.

    Returns: dict from layer name to `LayerInputs`.

    Raises: RuntimeError naming the layer if it saw NaN or infinity, or if padding cannot be told from tokens.
    """
    readers = []
    here = threading.local()  # each thread has a reader; a hook is called in the thread whose batch it is

    def replay_one(numbered_batch):
        number, (states, call, mask) = numbered_batch
        if not hasattr(here, "reader"):
            here.reader = _Reader(block, statistic, to_the_end=outputs is not None)
            readers.append(here.reader)
        return here.reader.replay(number, states, call, mask)

    def hook(name):
        return lambda module, args: here.reader.read(name, args[0])

    handles = [layer.module.register_forward_pre_hook(hook(layer.name)) for layer in block.layers]
    try:
        for output in each(replay_one, enumerate(zip(hidden, calls, masks, strict=True)), threads):
            if outputs is not None:
                outputs.append(output)
            del output
    finally:
        for handle in handles:
            handle.remove()
    inputs = _merged(block.layers, [reader.inputs for reader in readers])
    inputs = add_up(block.layers, inputs, statistic)  # before the check, so that every process raises or none
    finite = [torch.isfinite(seen.statistic.norm()).all() for seen in inputs.values()]
    for name, is_finite in zip(inputs, read_together(finite), strict=True):
        if not is_finite:
            raise RuntimeError(
                f"{name} was given NaN or infinite inputs by the calibration data; its statistics are void"
            )
    return inputs


class _Reader:
    """Accumulates what the layers of a block read, over the batches that one thread replays.

    Attributes:
        inputs: dict from layer name to `LayerInputs`.
    """

    def __init__(self, block, statistic, to_the_end):
        self.block, self.statistic, self.to_the_end = block, statistic, to_the_end
        self.inputs, self.fired = {}, {layer.name: 0 for layer in block.layers}
        self.once_each = False  # known after the first batch: then the rest of a pass can be left out

    def replay(self, number, states, call, mask):
        """Run the block on a batch. Returns its outputs; None where the pass was ended early."""
        self.number, self.remaining = number, len(self.block.layers)
        self.current = (None, None)  # the last tensor seen in this pass, and where it went
        self.positions, self.kept = 0, None
        if mask is not None:  # where the tokens are: found once per batch, since a GPU is waited for
            self.positions = mask.numel()
            self.kept = mask.reshape(-1).nonzero().squeeze(1).to(device_of(self.block))
        try:
            output = replay(self.block, states, call)
        except Stop:
            return None
        finally:
            self.current = (None, None)  # or it would be in memory as long as this reader
        self.once_each = all(count == 1 for count in self.fired.values())
        return output

    def read(self, name, tensor):
        """Take in what a layer is about to read."""
        self.fired[name] += 1
        if tensor is self.current[0] and self.inputs.setdefault(name, self.current[1]) is self.current[1]:
            pass  # counted already, for another layer
        else:
            tokens = _tokens(tensor, self.positions, self.kept, name)  # [tokens, in]
            if name not in self.inputs:
                sample = tokens[: tensor.shape[-2]].clone()  # a view would keep the whole batch in memory
                self.inputs[name] = LayerInputs(self.statistic(tokens.shape[1], tokens.device), sample, self.number)
            self.inputs[name].statistic.add(tokens)
            self.current = (tensor, self.inputs[name])
        self.remaining -= 1
        if self.once_each and self.remaining == 0 and not self.to_the_end:
            raise Stop


def _merged(layers, parts):
    """What several threads accumulated, as one would have: layers share one `LayerInputs` where they do in every thread.

    Args: parts: per thread, a dict from layer name to `LayerInputs`; a layer may be missing where no token reached it.
    """
    if len(parts) == 1:
        return parts[0]
    totals, merged = {}, {}
    for layer in layers:
        found = [part.get(layer.name) for part in parts]
        if not any(found):
            continue
        shared = tuple(map(id, found))
        if shared not in totals:
            earliest, *others = sorted(filter(None, found), key=lambda inputs: inputs.first)
            total = copy.deepcopy(earliest.statistic)  # a copy: other layers may need it too
            for other in others:
                total.merge(other.statistic)
            totals[shared] = LayerInputs(total, earliest.sample, earliest.first)
        merged[layer.name] = totals[shared]
    return merged


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
