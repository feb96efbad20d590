"""`prune_checkpoint`: the walk of `prune` over a checkpoint on disk, with one block in memory at a time.

The calibration activations are in a file too: each block reads its predecessor's outputs and writes its successor's
inputs. A journal records the progress after each block, so that an interrupted run can resume.
"""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..blocks.collect import collect
from ..blocks.replay import NeedsSteps, capture, replay
from ..blocks.stacks import reads_tokens
from ..devices.cpu_threads import each, threads_for
from ..devices.offload import check_device
from ..devices.timing import Clock
from ..options import make_options
from ..pruning import check_weights, make_plan, prune_layers
from ..report import PruneReport
from ..sources.checkpoints import copy_companions, find_folder
from .activation_file import Appender, Stream
from .empty_model import Skeleton
from .memory import keeping_freed_memory, returning_freed_memory, trim
from .resume import FOLDER, check_target, describe_run, journal_in
from .safetensors_files import copy_file, replacing, write_index, write_shard


@returning_freed_memory()
def prune_checkpoint(
    source,
    target,
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
    revision=None,
):
    """Prune a safetensors checkpoint of any size into a new one, a block at a time.

    The result is bit for bit that of `wanda.prune` on the model from `wanda.load(source)`. Memory holds the weights of
    one block, and of the next one while it is read: for a model of S bytes in B blocks, it stays under 3 S/B, plus the
    embeddings and the activations of the batches computed at once (with Hessians, if a method needs them), plus what
    the libraries take in any run. `wanda.memory_needed` is the formula, results/memory.json the measurement.

    An interrupted run resumes when it is called again with the same arguments, and ends with the same bits; until then
    the target has no index and cannot be opened as a model.

    Args:
        source: a folder with safetensors, "smollm2", or a Hub id. It is only read.
        target: a new or empty folder, or one with an unfinished run of the same arguments.
        calibration, method, sparsity, pattern, group, update, propagate, skip, batch_size, progress: as in `prune`. On
            resuming, a function as `method` counts as the same if its module and name match.
        device: where to compute, such as "cuda", which holds one block at a time. None: the CPU.
        revision: branch, tag or commit, for a Hub id.

    Returns: `PruneReport`, including interrupted parts; its phases include "read" (waiting for weights) and "write".

    Raises:
        ValueError, TypeError: an invalid argument, or a checkpoint that cannot be streamed; raised before anything is
            written, except for NaN or infinite weights and for blocks that cannot be run one at a time, which are found
            when they are reached.
        RuntimeError: a file (named) could not be read or written; the disk is too small; or as in `prune`. Finished
            blocks are kept, so that the run can resume.
    """
    options = make_options(method, sparsity, pattern, group, update, propagate)
    _check_alone()
    check_device(device)
    target = Path(target).expanduser()
    folder = find_folder(source, revision)
    if target.resolve() == folder.resolve() or folder.resolve() in target.resolve().parents:
        raise ValueError(f"target {str(target)!r} lies in the source {str(folder)!r}, which is never written to")
    check_target(target)
    skeleton = Skeleton(folder)
    if not reads_tokens(skeleton.model):
        raise ValueError(
            f"{type(skeleton.model).__name__} reads no text, so it cannot be streamed; use wanda.load and wanda.prune"
        )
    plan = make_plan(skeleton.model, skeleton.blocks(skip), options, calibration, batch_size, device)
    given = {"method": method, "pattern": pattern, "group": group, "update": update, "propagate": propagate}
    given["skip"] = [skip] if isinstance(skip, str) else list(skip)
    run = describe_run(folder, skeleton.stored, plan.batches, plan.options.sparsity, device, **given)
    _check_space(target, skeleton, plan.batches)

    count = sum(parameter.numel() for parameter in skeleton.model.parameters())
    report = PruneReport(options.description, parameters=count)
    with journal_in(target, run) as journal, torch.no_grad():
        work = _Run(skeleton, plan, target, journal, device)
        done = len(journal.blocks)
        with tqdm(total=len(plan.blocks), initial=done, desc=options.name, unit="block", disable=not progress) as bar:
            work.complete(bar)
    report.layers = [layer for reports in journal.blocks for layer in reports]
    report.phases, report.seconds = journal.phases, journal.seconds
    report.warn_of_unreached()
    return report


class _Run:
    """The state of a run: its files, its weights and its progress."""

    def __init__(self, skeleton, plan, target, journal, device):
        self.skeleton, self.plan, self.blocks = skeleton, plan, plan.blocks
        self.target, self.journal, self.device = target, journal, device
        self.pin = torch.device(device or "cpu").type == "cuda"  # copies from pinned memory are asynchronous
        self.clock = Clock(dict(journal.phases), (device or "cpu",))
        self.began = time.perf_counter() - journal.seconds
        self.in_blocks = [
            {key for name in skeleton.inside(block) for key in skeleton.keys[name]} for block in plan.blocks
        ]
        self.reader = ThreadPoolExecutor(max_workers=1)
        self.upcoming = None  # the next block's weights, being read

    def complete(self, bar):
        """Do what is not done yet."""
        done = len(self.journal.blocks)
        if self.device is not None:
            self.skeleton.move_buffers(self.device)
        with self.clock("write"):
            self._copy_outside()
        if done < len(self.blocks):
            with self.clock("capture"):
                calls = self._capture(store=done == 0) if self.plan.batches else [[] for _ in self.blocks]
            with self.reader:
                self._read(done)
                for index in range(done, len(self.blocks)):
                    self._prune(index, calls[index])
                    calls[index] = None
                    bar.update()
        write_index(self.target, [self._shard(number).name for number in range(len(self.blocks) + 1)])

    def _shard(self, number):
        """The path of a shard: 0 holds the tensors outside the blocks, i + 1 holds block i."""
        return self.target / f"model-{number + 1:05d}-of-{len(self.blocks) + 1:05d}.safetensors"

    def _keys(self, number):
        """The checkpoint's keys in a shard, in the order of the source."""
        if number > 0:
            return [key for key in self.skeleton.stored if key in self.in_blocks[number - 1]]
        return [key for key in self.skeleton.stored if not any(key in keys for keys in self.in_blocks)]

    def _activations(self, index):
        return self.journal.folder / f"activations-{index:05d}"

    def _copy_outside(self):
        """Copy everything outside the blocks. A file that exists is complete."""
        copy_companions(self.skeleton.folder, self.target, copy_file)
        if not self._shard(0).exists():
            write_shard(self._shard(0), {key: self.skeleton.stored[key] for key in self._keys(0)})

    def _capture(self, store):
        """Record what each block is called with; if `store`, write the first one's inputs to a file."""
        names = [*self.skeleton.outside(self.blocks), *self.skeleton.inside(self.blocks[0])]
        self.skeleton.place(self.skeleton.read(names, self.pin), self.device)
        batches = [{name: ids.to(self.device) for name, ids in batch.items()} for batch in self.plan.batches]
        with replacing(self._activations(0)) if store else nullcontext() as file, Appender(file) as inputs:
            try:
                _, calls = capture(self.skeleton.model, self.blocks, batches, inputs)
            except NeedsSteps as error:
                raise ValueError(
                    f"{error}; use wanda.load and wanda.prune if the whole model fits in memory"
                ) from error
        self.skeleton.clear(names)
        trim()
        return calls

    def _read(self, index):
        """Start to read a block's weights in the background."""
        self.upcoming = self.reader.submit(self.skeleton.read, self.skeleton.inside(self.blocks[index]), self.pin)

    def _prune(self, index, calls):
        """Prune one block, from its weights to its journal entry."""
        block, is_last = self.blocks[index], index == len(self.blocks) - 1
        with self.clock("read"):
            self.skeleton.place(self.upcoming.result(), self.device)
            self.upcoming = None
        check_weights(block.layers)
        options, batches, masks = self.plan.options, self.plan.batches, self.plan.masks(block)
        hidden = Stream(self._activations(index), len(batches), self.pin)
        threads, dense = threads_for(block.module, batches), options.propagate == "dense"
        following = self._activations(index + 1)
        has_next = batches and not is_last
        with replacing(following) if has_next else nullcontext() as file, Appender(file) as outputs:
            with self.clock("statistics"), keeping_freed_memory():
                inputs = collect(block, hidden, calls, masks, options.statistic, outputs if dense else None, threads)
            with self.clock("select"):
                reports = prune_layers(block.layers, inputs, options)
            del inputs
            # Only now: with scores and Hessians freed, there is room for a second block.
            if not is_last:
                self._read(index + 1)
            if file is not None and not dense:
                with self.clock("recompute"), keeping_freed_memory():
                    for states in each(lambda batch: replay(block, *batch), zip(hidden, calls, strict=True), threads):
                        outputs.append(states)
        with self.clock("write"):
            pruned = {}
            for name, parameter in {layer.parameter_name: layer.parameter for layer in block.layers}.items():
                pruned |= self.skeleton.as_stored(name, parameter.detach())
            stored = self.skeleton.stored
            write_shard(self._shard(index + 1), {key: pruned.get(key, stored[key]) for key in self._keys(index + 1)})
        self.skeleton.clear(self.skeleton.inside(block))
        trim()
        self.journal.add(reports, self.clock.phases, time.perf_counter() - self.began)
        self._activations(index).unlink(missing_ok=True)


def _check_alone():
    initialized = torch.distributed.is_available() and torch.distributed.is_initialized()
    if initialized or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("prune_checkpoint runs in one process; start it without torchrun, or use wanda.prune")


def _check_space(target, skeleton, batches):
    """Raise RuntimeError if the disk cannot hold the new checkpoint and the activations of two blocks."""
    hidden = skeleton.model.get_input_embeddings()
    width, itemsize = hidden.embedding_dim, hidden.weight.element_size()
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    needed = sum(tensor.size for tensor in skeleton.stored.values()) + 2 * tokens * width * itemsize
    present = (*target.glob("*.safetensors"), *(target / FOLDER).glob("activations-*"))
    needed -= sum(path.stat().st_size for path in present)
    existing = next(path for path in (target, *target.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise RuntimeError(
            f"{str(target)!r} needs {needed / 1e9:.1f} GB more, but its disk has {free / 1e9:.1f} GB left; "
            "free some space, or choose a target on another disk"
        )
