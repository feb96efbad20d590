"""`prune`: the walk over the blocks of a model.

A block's statistics are taken while it is dense, on the outputs of its pruned predecessors. Then it is pruned, and its
outputs are recomputed for the next block (Wanda, section 3).
"""

import time
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from .blocks.calibration import calibration_batches
from .blocks.collect import collect, read_together
from .blocks.replay import evaluating, replay
from .blocks.stacks import find_blocks, has_encoder
from .blocks.walk import Walk, needs_steps
from .devices import distributed
from .devices.cpu_threads import each, threads_for
from .devices.offload import StatesOn, check_device, check_free, visiting
from .devices.timing import Clock, Watch
from .options import Options, make_options
from .report import LayerReport, PruneReport


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
    """Prune the linear layers inside a model's blocks, in place.

    Args:
        model: a transformers model: a language model, or an encoder, an encoder-decoder, a model of images or sound.
        calibration: LongTensor [samples, length] (see `wanda.calibration_set`), or an iterable of batches: dicts of
            what the model's forward takes, such as `input_ids` and `attention_mask`; padding never counts. For a model of
            images, a tensor of its pixels. Magnitude needs none, and uses the first batch to measure the layers' errors.
        method: "magnitude", "wanda", "sparsegpt", "admm", or a function (weight [out, in], input_norm [in]) -> score
            [out, in] whose smallest scores are pruned. It is first tried on one layer of each shape, with random norms.
        sparsity: fraction to remove, in [0, 1); or a dict or function from a layer's name to one. A dict's keys may be
            patterns like those of `skip`; the first match counts.
        pattern: None, or "N:M": keep at most N of each M consecutive inputs. It sets the sparsity.
        group: the weights that compete: "output", "layer" or "input" (see `prune_mask`). The default is "layer" for
            magnitude and "output" for other scores; SparseGPT has its own groups (blocks of columns).
        update: None; "obs": choose the mask by `method`, then repair the kept weights with SparseGPT's update;
            "obs-iterative": also choose the mask of each 128 columns (each M of a pattern) on reaching them, by the
            score of the weights as repaired so far. The Wanda paper calls these the sequential and iterative update.
            Or a function (weight [out, in], hessian [in, in], mask [out, in]) -> weight [out, in] of your own, with at
            least as many zeros as the mask has; it is first tried on a small random layer.
        propagate: "pruned": a block reads the outputs of its pruned predecessors (the paper). "dense": it reads the
            dense model's; one forward pass instead of nearly two, for score methods without an update.
        skip: layers to leave dense: names, parts of names ("down_proj", "layers.0") or wildcards ("*.mlp.*").
        batch_size: calibration windows per forward pass; "auto": one on a CPU, about 16,000 tokens on a GPU. With one
            window, a CPU computes up to four batches at once, each on its share of the cores.
        device: where to compute, such as "cuda" for a model in main memory: blocks and batches of hidden states move
            there one at a time and back. None: on each block's own device, which is faster if the model fits there.
        progress: whether to show a bar over the blocks.

    Returns: `PruneReport`.

    If `torch.distributed` is initialised (under `torchrun`), every process must make the same call with the same model
    and data. Each takes a share of the batches, and all get the weights that a single process would.

    Raises:
        ValueError, TypeError: an invalid argument, or a model that cannot be run block by block; no weight has changed.
        RuntimeError naming the layer: NaN or infinite activations, NaN scores, or a Hessian that cannot be factorised.
            Earlier blocks are pruned already: load the model again.
    """
    options = make_options(method, sparsity, pattern, group, update, propagate)
    blocks = find_blocks(model, skip)
    check_weights([layer for block in blocks for layer in block.layers])
    if device is not None:
        check_device(device)
        check_free(blocks, device)
    plan = make_plan(model, blocks, options, calibration, batch_size, device)

    report = PruneReport(options.description, parameters=sum(weight.numel() for weight in model.parameters()))
    clock = Clock(report.phases, {layer.weight.device for layer in plan.layers} | {torch.device(device or "cpu")})
    began = time.perf_counter()
    with evaluating(model), torch.no_grad():
        with clock("capture"):
            walk = Walk(model, blocks, plan.batches, bool(plan.probe) and needs_steps(model, blocks, plan.probe))
        for block in tqdm(blocks, desc=options.name, unit="block", disable=not progress):
            with clock("capture"):
                hidden, calls = walk.inputs(block)
            if block is blocks[0]:
                _check_padding(block, hidden, plan.masks(block))
            dense = propagate == "dense"
            with visiting(block.module, device) as home, walk.recording_extras(block):
                outputs, threads = StatesOn(home), 1 if walk.stepwise else threads_for(block.module, plan.batches)
                with clock("statistics"):
                    kept = outputs if dense else None
                    inputs = collect(block, hidden, calls, plan.masks(block), options.statistic, kept, threads)
                with clock("select"):
                    report.layers += prune_layers(block.layers, inputs, plan.options)
                del inputs  # free the statistics before the next pass
                if distributed.size() > 1:
                    sums = read_together([distributed.checksum(layer.weight) for layer in block.layers])
                    distributed.check_same(f"weights after pruning {block.name}", sums)
                with clock("recompute"):
                    if not dense and block is not blocks[-1]:
                        outputs.extend(_renewed(block, hidden, calls, threads))
            del hidden, calls  # else they would outlive the block
            walk.finish(block, outputs)
    report.seconds = time.perf_counter() - began
    report.warn_of_unreached()
    return report


@dataclass(frozen=True)
class Plan:
    """A pruning run, checked before any weight changes.

    Attributes:
        blocks: list of `Block`.
        options: `Options` with a sparsity for each layer.
        batches: this process's share of the calibration data, a list of dicts for the model's forward; may be empty.
        probe: the first batch of all processes, to try the model on; None without data.
        decoder: the modules of an encoder-decoder's decoder; of other models, none.
    """

    blocks: list
    options: Options
    batches: list
    probe: dict | None
    decoder: frozenset

    @property
    def layers(self):
        """All layers to prune, in order."""
        return [layer for block in self.blocks for layer in block.layers]

    def masks(self, block):
        """Which positions of each batch hold tokens, for `collect`: a list of tuples."""
        if block.module not in self.decoder:
            return [(_mask(batch, "attention_mask"),) for batch in self.batches]
        return [(_mask(batch, "decoder_attention_mask"), _mask(batch, "attention_mask")) for batch in self.batches]


def _mask(batch, name):
    return batch[name].bool() if name in batch else None


def _check_padding(block, hidden, masks):
    """Raise ValueError if the first block reads other positions than a mask tells of: Longformer pads a padded batch further."""
    for states, (mask, *_) in zip(hidden, masks, strict=True):
        shape = states.shape  # [batch, length, hidden], with the streams of hyper-connections after these or before all
        if mask is not None and mask.shape not in (shape[:2], shape[-3:-1]) and (mask.numel(),) != shape[:-1]:
            raise ValueError(
                f"{block.name} reads hidden states of shape {tuple(shape)} for an attention_mask of shape "
                f"{tuple(mask.shape)}, so padding cannot be told from tokens; use calibration windows without padding"
            )


def make_plan(model, blocks, options, calibration, batch_size, device):
    """Check options and calibration data against a model, whose weights may be on the meta device. Returns a `Plan`.

    Raises: ValueError or TypeError: an invalid argument.
    """
    layers = [layer for block in blocks for layer in block.layers]
    options = options.for_layers(layers)
    if distributed.size() > 1:
        given = (options.description, options.sparsity, options.group, options.propagate, str(batch_size))
        shapes = [(layer.name, tuple(layer.weight.shape)) for layer in layers]
        distributed.check_same("options or layers", (given, shapes))
    batches, probe = [], None
    if options.needs_data or calibration is not None:
        batches = calibration_batches(model, calibration, batch_size, device)
        if distributed.size() > 1:
            distributed.check_same("calibration data", distributed.digest(batches))
        probe = batches[0]
        # If only the layers' errors need data, one batch is enough.
        batches = distributed.share(batches) if options.needs_data else batches[:1]
    decoder = frozenset(model.get_decoder().modules() if has_encoder(model) else ())
    return Plan(blocks, options, batches, probe, decoder)


def check_weights(layers):
    """Raise ValueError naming a layer whose weights are not in memory or not finite."""
    finite = []
    for layer in layers:
        if layer.weight.is_meta:
            raise ValueError(
                f"{layer.name} has no weights in memory (meta device, offloaded?); load the model without offloading, "
                "or use wanda.prune_checkpoint, which needs memory for one block only"
            )
        finite.append(torch.isfinite(layer.weight).all())
    for layer, is_finite in zip(layers, read_together(finite), strict=True):
        if not is_finite:
            raise ValueError(f"{layer.name} has NaN or infinite weights")


def prune_layers(layers, inputs, options):
    """Prune the layers of a block in place.

    Args:
        layers: list of `Linear`. inputs: dict from layer names to `LayerInputs`, as `collect` returns it.
        options: `Options` with a sparsity for each layer.

    Returns: list of `LayerReport`.
    """
    if not layers:
        return []
    watch, zeros, errors = Watch(layers[0].weight.device), [], []
    for layer in layers:
        before = layer.weight.float()  # [out, in]
        after = options.apply(layer.name, before, inputs.get(layer.name))
        errors.append(_relative_error(before, after, inputs.get(layer.name)))
        if after is not before:
            layer.replace(after)
        entries = layer.weight.numel()
        zeros.append((entries - torch.count_nonzero(layer.weight)) / entries)  # an exact integer count
        watch.lap()
    numbers = read_together(zeros + errors)  # one GPU sync for all
    reports = []
    for layer, zero, error, seconds in zip(
        layers, numbers[: len(layers)], numbers[len(layers) :], watch.laps(), strict=True
    ):
        seen = inputs.get(layer.name)
        error = error if seen is not None and len(seen.sample) else None
        reached = seen is not None or not options.needs_data
        reports.append(LayerReport(layer.name, tuple(layer.weight.shape), zero, error, seconds, reached))
    return reports


def _relative_error(before, after, inputs):
    """||X (W - W')T|| / ||X WT|| over the sample of `LayerInputs`, a 0-d tensor; 0 without inputs."""
    if inputs is None:
        return before.new_zeros(())
    sample = inputs.sample.float()  # [tokens, in]
    size = torch.linalg.vector_norm(sample @ before.T)
    change = torch.linalg.vector_norm(sample @ (before - after).T)
    return torch.where(size > 0, change / size, 0.0)


def _renewed(block, hidden, calls, threads):
    """Yield the hidden states for the next block, batch by batch, and remove this block's from the list `hidden`."""

    def renew(batch):
        states = replay(block, hidden[batch], calls[batch])
        hidden[batch] = None  # free it: the states of two blocks would take twice the memory
        return states

    return each(renew, range(len(hidden)), threads)
