"""`prune`: the walk over the blocks of a model.

A block's statistics are taken while it is still dense, on what its pruned predecessors produce; then it is pruned, and
its outputs are computed anew for the next block (Wanda, section 3).
"""

import time

import torch
from tqdm.auto import tqdm

from . import distributed
from .batches import calibration_batches
from .blocks import capture, evaluating, find_blocks, replay, threads_for
from .clocks import Clock, Watch
from .collecting import collect, read_together
from .masks import check_width
from .report import LayerReport, PruneReport
from .rules import make_rule, resolve_sparsity
from .threads import each
from .visiting import Homecoming, check_free, visiting


def prune(
    model,
    calibration=None,
    *,
    method="wanda",
    sparsity=0.5,
    pattern=None,
    group=None,
    update=None,
    propagate="pruned",
    skip=(),
    batch_size=1,
    device=None,
    progress=True,
):
    """Prune the linear layers inside a language model's blocks, in place.

    Args:
        model: a transformers causal language model.
        calibration: LongTensor [samples, length] (see `wanda.calibration_set`), or an iterable of batches: dicts with
            `input_ids` and `attention_mask`; padding never counts. Magnitude can do without; given it all the same,
            it measures the layers' errors on the first batch.
        method: "magnitude", "wanda", "sparsegpt", or a function (weight [out, in], input_norm [in]) -> score [out, in]
            whose smallest scores are pruned.
        sparsity: fraction to remove, in [0, 1); or a dict or function from a layer's name to one. A dict's keys may be
            patterns like those of `skip`; the first that matches counts.
        pattern: None, or "N:M": at most N non-zeros are kept in each M consecutive inputs. Then it sets the sparsity.
        group: what a weight competes with: "output", "layer" or "input" (see `prune_mask`). By default "layer" for
            magnitude and "output" for every other score; SparseGPT has groups of its own (blocks of columns).
        update: None; "obs": repair the kept weights with SparseGPT's update, whatever chose the mask; "obs-iterative": do
            so, and choose the mask of each 128 columns (each M of a pattern) when they are reached, by the score of the
            weights as repaired by then. The Wanda paper calls the two the sequential and the iterative update.
        propagate: "pruned": a block sees what its pruned predecessors produce (the paper). "dense": it sees what the
            dense model produces; one forward pass instead of nearly two. For score methods without an update.
        skip: names of layers to leave alone: whole names, parts ("down_proj", "layers.0") or wildcards ("*.mlp.*").
        batch_size: calibration windows per forward pass; "auto": one on a CPU, about 16,000 tokens of them on a GPU. With
            one, a CPU computes up to four batches at once, each on its share of the cores.
        device: where to compute, such as "cuda" for a model in main memory: each block visits it and goes back, and so
            do the hidden states, batch by batch, so that it need not hold more than a block and a batch at a time.
            None: wherever the block is; quicker, where the whole model has room on the GPU.
        progress: whether to show a bar over the blocks.

    Returns: `PruneReport`.

    Where `torch.distributed` is initialised (under `torchrun`), every process must make the same call with the same
    model and data: each takes its share of the batches, and all end with the weights that a single process would have.

    Raises:
        ValueError, TypeError: something given is not allowed; nothing has been changed.
        RuntimeError: NaN or infinite activations, or a Hessian without factor, naming the layer. Blocks before it are
            pruned already: load the model again.
    """
    rule = make_rule(method, pattern, group, update, propagate)
    blocks = find_blocks(model, skip)
    layers = [layer for block in blocks for layer in block.layers]
    sparsities = resolve_sparsity([layer.name for layer in layers], sparsity, pattern)
    check_weights(layers, pattern)
    if device is not None:
        check_free(blocks, device)
    batches = []
    if rule.needs_data or calibration is not None:
        batches = calibration_batches(model, calibration, batch_size, device)
        if distributed.size() > 1:
            distributed.check_same("calibration data", distributed.digest(batches))
        # Without a need for data, one batch is enough to measure the layers' errors.
        batches = distributed.share(batches) if rule.needs_data else batches[:1]
    masks = [batch["attention_mask"].bool() if "attention_mask" in batch else None for batch in batches]

    report = PruneReport(rule.describe(sparsity))
    clock = Clock(report.phases, {layer.weight.device for layer in layers} | {torch.device(device or "cpu")})
    began = time.perf_counter()
    with evaluating(model), torch.no_grad():
        with clock("capture"):
            hidden, calls = capture(model, blocks, batches)
        for index, block in enumerate(tqdm(blocks, desc=rule.name, unit="block", disable=not progress)):
            dense = propagate == "dense"
            with visiting(block.module, device) as home:
                outputs, threads = Homecoming(home), threads_for(block.module, batches)
                report.layers += prune_block(
                    block, hidden, calls[index], masks, rule, sparsities, clock, outputs if dense else None, threads
                )
                if distributed.size() > 1:
                    sums = read_together([distributed.checksum(layer.weight) for layer in block.layers])
                    distributed.check_same(f"weights after pruning {block.name}", sums)
                with clock("recompute"):
                    if not dense and block is not blocks[-1]:
                        outputs.extend(_renewed(block, hidden, calls[index], threads))
            hidden, calls[index] = outputs, None
    report.seconds = time.perf_counter() - began
    return report


def check_weights(layers, pattern):
    """What can be known to go wrong with the weights, before any is changed."""
    finite = []
    for layer in layers:
        if layer.weight.is_meta:
            raise ValueError(
                f"{layer.name} has no weights in memory (meta device, offloaded?); load the model without offloading, "
                "or use wanda.prune_checkpoint, which needs room for one block only"
            )
        if pattern is not None:
            check_width(layer.weight.shape[1], pattern, layer.name)
        finite.append(torch.isfinite(layer.weight).all())
    for layer, is_finite in zip(layers, read_together(finite), strict=True):
        if not is_finite:
            raise ValueError(f"{layer.name} has NaN or infinite weights")


def prune_block(block, hidden, calls, masks, rule, sparsities, clock, outputs=None, threads=1):
    """Take the statistics of a dense block and prune its layers in place.

    Args:
        hidden, calls, masks, outputs, threads: as in `collect`.
        rule: a `Rule`. sparsities: dict from layer names to floats. clock: a `Clock`.

    Returns: list of `LayerReport`.
    """
    with clock("statistics"):
        inputs = collect(block, hidden, calls, masks, rule.statistic, outputs, threads)
    with clock("select"):
        return _prune_layers(block.layers, inputs, rule, sparsities) if block.layers else []


def _prune_layers(layers, inputs, rule, sparsities):
    """Prune the layers of a block in place. Returns their `LayerReport`s."""
    watch, numbers = Watch(layers[0].weight.device), []
    for layer in layers:
        numbers += _prune_layer(layer, inputs.get(layer.name), rule, sparsities[layer.name])
        watch.lap()
    numbers = read_together(numbers)
    reports = []
    for layer, zeros, error, seconds in zip(layers, numbers[::2], numbers[1::2], watch.laps(), strict=True):
        error = error if layer.name in inputs else None
        reports.append(LayerReport(layer.name, tuple(layer.weight.shape), zeros, error, seconds))
    return reports


def _prune_layer(layer, inputs, rule, sparsity):
    """Prune one `Linear` in place by a `Rule`. Returns its fraction of zeros and its relative error (0 without inputs),
    as float32 tensors, which a GPU may still have to compute."""
    before = layer.weight.float()  # [out, in]
    after = rule.apply(layer.name, before, inputs, sparsity)
    error = before.new_zeros(())
    if inputs is not None:
        sample = inputs.sample.float()  # [tokens, in]
        size = torch.linalg.vector_norm(sample @ before.T)
        change = torch.linalg.vector_norm(sample @ (before - after).T)
        error = torch.where(size > 0, change / size, 0.0)
    if after.data_ptr() != before.data_ptr():
        layer.replace(after)
    entries = layer.weight.numel()
    zeros = (entries - torch.count_nonzero(layer.weight)) / entries  # counted in integers
    return zeros, error


def _renewed(block, hidden, calls, threads):
    """Yield the hidden states for the next block, batch by batch, and take those of this block out of the list `hidden`."""

    def renew(batch):
        states = replay(block, hidden[batch], calls[batch])
        hidden[batch] = None  # the states of two blocks would take twice the memory
        return states

    return each(renew, range(len(hidden)), threads)
