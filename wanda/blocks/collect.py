"""One pass of the calibration data through one block, accumulating statistics of its layers' inputs."""

import copy
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from ..devices.cpu_threads import each
from ..devices.distributed import add_up
from ..statistics import LayerInputs
from .experts import ExpertLinear, expert_inputs
from .replay import Stop, device_of, replay, tensors


def collect(block, hidden, calls, masks, statistic, outputs=None, threads=1):
    """Replay a block on every batch and accumulate a statistic of each layer's input over all non-padding tokens.

    Layers that read the same tensors (q, k and v; gate and up) share one `LayerInputs`, computed once. Batches are summed in
    order, however many are replayed at once, so the sums are reproducible to the last bit. With several processes, each
    takes its own batches, and all receive the sums over all batches. Without `outputs`, a pass ends at the last layer.

    Args:
        block: a `Block`. hidden, calls: iterables with an item per batch, as `capture` returns them for this block.
        masks: per batch, which positions hold tokens: a tuple of None or a bool tensor [batch, length] for the hidden
            states and, in the decoder of an encoder-decoder, one for the encoder's.
        statistic: `InputNorm` or `Hessian`.
        outputs: list, or object with `append`, for the block's outputs [batch, length, hidden]; None: discard them.
        threads: how many batches to replay at once.

    Returns: dict from layer name to `LayerInputs`.

    Raises: RuntimeError naming a layer whose inputs are NaN or infinite, or whose rows cannot be matched to tokens.
    """
    inputs = {}
    reader = _Reader(block, statistic, inputs, to_the_end=outputs is not None)
    with reader.hooks():
        batches = enumerate(zip(hidden, calls, masks, strict=True))
        for number, (readings, output) in enumerate(each(reader, batches, threads)):
            _add(inputs, number, readings, statistic)
            if outputs is not None:
                outputs.append(output)
            del readings, output  # free them before the next batch is computed
    inputs = add_up(block.layers, inputs, statistic)  # before the check, so that every process raises or none
    inputs = {name: seen for name, seen in inputs.items() if seen.statistic.tokens}  # called, but without tokens
    finite = [torch.isfinite(seen.statistic.norm()).all() for seen in inputs.values()]
    for name, is_finite in zip(inputs, read_together(finite), strict=True):
        if not is_finite:
            raise RuntimeError(f"{name} has NaN or infinite inputs on the calibration data")
    return inputs


@dataclass(frozen=True)
class _Reading:
    """What one layer read in one call.

    Attributes:
        layer: its name.
        contribution: list of tensors, see `InputNorm.contribution`; one object for layers that read the same tensor.
        tokens: the number of non-padding tokens.
        sample: those of the first window [tokens, in]; None if an earlier batch gave one.
    """

    layer: str
    contribution: list
    tokens: int
    sample: torch.Tensor | None


class _Padding:
    """Which rows of a layer's input are tokens: those of a mask [batch, length], or all for None."""

    def __init__(self, mask, device):
        self.positions, self.kept = 0, None
        if mask is not None:  # found once per batch: it forces a GPU sync
            self.positions = mask.numel()
            self.kept = mask.reshape(-1).nonzero().squeeze(1).to(device)

    def fits(self, tensor):
        """Whether a tensor [..., in] has a row for each position."""
        return self.kept is None or tensor.numel() == self.positions * tensor.shape[-1]

    def tokens(self, tensor, name):
        """The non-padding rows [tokens, in] of a layer's input [batch, length, in] or [batch * length, in]."""
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self.kept is None:
            return rows
        if not self.fits(tensor):
            raise RuntimeError(
                f"{name} read {len(rows)} rows of a batch of {self.positions} positions, so padding cannot be told from "
                "tokens; use calibration windows without padding"
            )
        return rows.index_select(0, self.kept.to(rows.device))


class _Batch:
    """The state of one replay: the readings so far, and which positions hold tokens."""

    def __init__(self, masks, length, call, device):
        self.readings = []
        self.mask, self.length = masks[0], length
        self.tensor = None  # input of the last layer read
        self.own, *self.encoder = (_Padding(mask, device) for mask in masks)  # the encoder's: one or none
        self.arguments = set(map(id, tensors((call.args, call.kwargs))))

    def tokens(self, tensor, name):
        """The non-padding rows [tokens, in] of what a layer reads; an argument of the block may come from an encoder."""
        padding = self.own
        if id(tensor) in self.arguments and (self.encoder or not self.own.fits(tensor)):
            padding = self.encoder[0] if self.encoder else _Padding(None, tensor.device)
        return padding.tokens(tensor, name)

    @cached_property
    def in_first_window(self):
        """How many tokens the first window has; forces a GPU sync."""
        return self.length if self.mask is None else int(self.mask[0].sum())


class _Reader:
    """Replays a block on a batch and records its layers' inputs. Safe to call from several threads at once."""

    def __init__(self, block, statistic, known, to_the_end):
        self.block, self.statistic, self.to_the_end = block, statistic, to_the_end
        self.known = known  # layers that have a sample already
        self.once_each = False  # whether the first batch read each layer once: then a pass can stop at the last one
        self.here = threading.local()  # hooks run in the thread of their batch

    @contextmanager
    def hooks(self):
        """Record the input of each layer of the block inside a `with`."""
        handles, experts = [], {}
        for layer in self.block.layers:
            if isinstance(layer, ExpertLinear):
                experts.setdefault(layer.module, {})[layer.expert, layer.projection] = layer.name
            else:
                handles.append(layer.module.register_forward_pre_hook(self._hook(layer.name)))
        for module, names in experts.items():
            handles.append(module.register_forward_pre_hook(self._experts_hook(names), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, numbered_batch):
        """Replay a batch. Returns: (list of `_Reading`, outputs or None)."""
        number, (states, call, masks) = numbered_batch
        device = device_of(self.block)
        call = call.to(device)
        batch, output = _Batch(masks, states.shape[-2], call, device), None
        self.here.batch = batch
        try:
            output = replay(self.block, states, call)
        except Stop:
            pass
        finally:
            self.here.batch = None
        if number == 0:
            read = sorted(reading.layer for reading in batch.readings)
            self.once_each = read == sorted(layer.name for layer in self.block.layers)
        return batch.readings, output if self.to_the_end else None

    def _hook(self, name):
        return lambda module, args: self._read(name, args[0])

    def _experts_hook(self, names):
        return lambda module, args, kwargs: self._read_experts(names, module, *[*args, *kwargs.values()][:2])

    def _read_experts(self, names, module, hidden, routes):
        """Record what the experts read: hidden [..., hidden], routes [..., k]. names: dict from (expert, projection)."""
        batch = self.here.batch
        first = next(iter(names.values()))
        hidden = batch.own.tokens(hidden, first)  # [tokens, hidden]
        routes = batch.own.tokens(routes, first)  # [tokens, k]
        for expert, projection, inputs, positions in expert_inputs(module, hidden, routes):
            name = names.get((expert, projection))
            if name is not None:
                sample = None
                if name not in self.known:
                    sample = inputs[: int((positions < batch.in_first_window).sum())].clone()
                contribution = list(self.statistic.contribution(inputs))
                batch.readings.append(_Reading(name, contribution, len(inputs), sample))
        batch.tensor = None  # the last reading is not of this tensor

    def _read(self, name, tensor):
        batch = self.here.batch
        last = batch.readings[-1] if tensor is batch.tensor else None
        tokens = batch.tokens(tensor, name) if last is None else None  # [tokens, in]
        sample = last.sample if last is not None else None
        if sample is None and name not in self.known:
            tokens = batch.tokens(tensor, name) if tokens is None else tokens
            sample = tokens[: tensor.shape[-2]].clone()  # a view would keep the batch alive
        if last is not None:
            reading = _Reading(name, last.contribution, last.tokens, sample)
        else:
            reading = _Reading(name, list(self.statistic.contribution(tokens)), len(tokens), sample)
            batch.tensor = tensor
        batch.readings.append(reading)
        if self.once_each and len(batch.readings) == len(self.block.layers) and not self.to_the_end:
            raise Stop


def _add(inputs, number, readings, statistic):
    """Add the readings of batch `number` to `inputs`, a dict from layer name to `LayerInputs`.

    Layers share one as long as they have read the same tensors, in this batch and in those before.
    """
    by_layer, alike = {}, {}
    for reading in readings:
        by_layer.setdefault(reading.layer, []).append(reading)
    for layer, read in by_layer.items():
        key = (*(id(reading.contribution) for reading in read), id(inputs.get(layer)))
        alike.setdefault(key, []).append(layer)
    sharing = Counter(map(id, inputs.values()))
    for layers in alike.values():
        read, present = by_layer[layers[0]], inputs.get(layers[0])
        if present is None:
            sample = read[0].sample
            present = LayerInputs(statistic(sample.shape[1], sample.device), sample, number)
        elif sharing[id(present)] > len(layers):  # others have shared it so far, but did not read this
            sharing[id(present)] -= len(layers)
            present = copy.deepcopy(present)
        for reading in read:
            present.statistic.take(reading.contribution, reading.tokens)
        inputs.update(dict.fromkeys(layers, present))


def read_together(numbers):
    """The values of 0-d tensors on any devices, with a single GPU sync."""
    return torch.stack([number.to(numbers[0].device) for number in numbers]).tolist() if numbers else []
