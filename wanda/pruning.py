"""`prune`: the walk over the blocks of a model.

A block's statistics are taken while it is still dense, on what its pruned predecessors produce; then it is pruned, and
its outputs are computed anew for the next block (Wanda, section 3).
"""

import time
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from . import distributed
from .batches import calibration_batches
from .blocks import capture, find_blocks, replay
from .collecting import collect
from .masks import check_width
from .report import LayerReport, PruneReport
from .rules import make_rule, resolve_sparsity


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
        update: None, or "obs": repair the kept weights with SparseGPT's update, whatever chose the mask.
        propagate: "pruned": a block sees what its pruned predecessors produce (the paper). "dense": it sees what the
            dense model produces; one forward pass instead of nearly two. For score methods without an update.
        skip: names of layers to leave alone: whole names, parts ("down_proj", "layers.0") or wildcards ("*.mlp.*").
        batch_size: calibration windows per forward pass.
        device: where to compute; each block visits it and goes back. None: wherever the block is.
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
    batches = []
    if rule.needs_data or calibration is not None:
        batches = calibration_batches(model, calibration, batch_size)
        if distributed.size() > 1:
            distributed.check_same("calibration data", distributed.digest(batches))
        # Without a need for data, one batch is enough to measure the layers' errors.
        batches = distributed.share(batches) if rule.needs_data else batches[:1]
    masks = [batch["attention_mask"].bool() if "attention_mask" in batch else None for batch in batches]

    report = PruneReport(rule.describe(sparsity))
    clock = Clock(report.phases)
    began = time.perf_counter()
    with _evaluating(model), torch.no_grad():
        with clock("capture"):
            hidden, calls = capture(model, blocks, batches)
        for index, block in enumerate(tqdm(blocks, desc=rule.name, unit="block", disable=not progress)):
            outputs, dense = [], propagate == "dense"
            with _visiting(block.module, device):
                report.layers += prune_block(
                    block, hidden, calls[index], masks, rule, sparsities, clock, outputs if dense else None
                )
                if distributed.size() > 1:
                    sums = [distributed.checksum(layer.weight) for layer in block.layers]
                    distributed.check_same(f"weights after pruning {block.name}", sums)
                with clock("recompute"):
                    if not dense and block is not blocks[-1]:
                        outputs = [replay(block, *pair) for pair in zip(hidden, calls[index], strict=True)]
            hidden, calls[index] = outputs, None
    report.seconds = time.perf_counter() - began
    return report


def check_weights(layers, pattern):
    """What can be known to go wrong with the weights, before any is changed."""
    for layer in layers:
        if layer.weight.is_meta:
            raise ValueError(f"{layer.name} has no weights in memory (meta device); load the model without offloading")
        if pattern is not None:
            check_width(layer.weight.shape[1], pattern, layer.name)
        if not torch.isfinite(layer.weight).all():
            raise ValueError(f"{layer.name} has NaN or infinite weights")


def prune_block(block, hidden, calls, masks, rule, sparsities, clock, outputs=None):
    """Take the statistics of a dense block and prune its layers in place.

    Args:
        hidden, calls, masks, outputs: as in `collect`.
        rule: a `Rule`. sparsities: dict from layer names to floats. clock: a `Clock`.

    Returns: list of `LayerReport`.
    """
    with clock("statistics"):
        inputs = collect(block, hidden, calls, masks, rule.statistic, outputs)
    with clock("select"):
        return [_prune_layer(layer, inputs.get(layer.name), rule, sparsities[layer.name]) for layer in block.layers]


def _prune_layer(layer, inputs, rule, sparsity):
    """Prune one `Linear` in place by a `Rule`. Returns its `LayerReport`."""
    began = time.perf_counter()
    before = layer.weight.float()  # [out, in]
    after = rule.apply(layer, inputs, sparsity)
    error = None
    if inputs is not None:
        sample = inputs.sample.float()  # [tokens, in]
        size = torch.linalg.vector_norm(sample @ before.T)
        error = float(torch.linalg.vector_norm(sample @ (before - after).T) / size) if size > 0 else 0.0
    if after.data_ptr() != before.data_ptr():
        layer.replace(after)
    zeros = float((layer.weight == 0).float().mean())
    return LayerReport(layer.name, tuple(before.shape), zeros, error, time.perf_counter() - began)


class Clock:
    """Adds up the seconds spent in named phases."""

    def __init__(self, phases):
        self.phases = phases

    @contextmanager
    def __call__(self, phase):
        """Charge the time of a `with` to a phase."""
        began = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else the work of one phase would be charged to the next
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - began


@contextmanager
def _evaluating(model):
    """Dropout off for the time of a `with`."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _visiting(module, device):
    """Have a module on a device for the time of a `with`."""
    home = next(module.parameters()).device
    if device is not None:
        module.to(device)
    try:
        yield
    finally:
        if device is not None:
            module.to(home)
