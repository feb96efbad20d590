"""Several processes: each takes statistics on its share of the calibration data, and the sums are reduced over all.

`torchrun --nproc-per-node N` starts N processes of one program. Each calls `prune` with the same model and the same
data, computes every N-th batch, and prunes its own copy of the model from the sums over all processes, so all copies
stay equal. In a single process, nothing here has any effect.
"""

import copy
import hashlib
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ..statistics import LayerInputs

PATIENCE = timedelta(hours=1)  # to wait for other ranks, which may be saving a large model
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


def size():
    """The number of processes; 1 if `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """The rank of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def share(batches):
    """This process's part of the batches: every N-th one.

    Raises: ValueError: fewer batches than processes.
    """
    if len(batches) < size():
        raise ValueError(
            f"calibration has {len(batches)} batches, too few for {size()} processes: each needs one; "
            "use more windows, a smaller batch_size or fewer processes"
        )
    return batches[rank() :: size()]


def check_same(what, value):
    """Raise RuntimeError, in every process, unless all hold the same value. `what` names it, in the plural."""
    values = _gather(value)
    odd = [str(other) for other, theirs in enumerate(values) if theirs != values[0]]
    if odd:
        raise RuntimeError(
            f"the processes have different {what} (rank {', '.join(odd)} not those of rank 0); "
            "every process must call wanda.prune with the same model, calibration and options"
        )


def digest(batches):
    """A hash of batches, dicts of tensors."""
    found = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            value = batch[name].cpu().contiguous()
            found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def checksum(weight):
    """A checksum of a weight, as a tensor: the sum of its bits, read as integers. Almost any change alters it."""
    return weight.view(INTEGERS[weight.element_size()]).sum(dtype=torch.int64)


@dataclass(frozen=True)
class _Seen:
    """What a process tells the others about its inputs of one layer."""

    owner: str  # the first layer that shares this statistic
    first: int  # index of its first batch that reached the layer
    tokens: int
    sample_shape: tuple
    dtype: torch.dtype


def add_up(layers, inputs, statistic):
    """The inputs of a block's layers, as a single process with all batches would have collected them.

    The processes may hold inputs of different layers: tokens can reach an expert in one and not in another. They first
    tell each other what they hold; then all reduce the same sums in the same order, with zeros where one has none.

    Args:
        layers: the `Linear`s of the block. inputs: dict from layer name to `LayerInputs`, of this process.
        statistic: `InputNorm` or `Hessian`.

    Returns: dict from layer name to `LayerInputs`, equal in every process. Layers share one if all processes do.
    """
    if size() == 1:
        return inputs
    owners = {}
    for name, found in inputs.items():
        owners.setdefault(id(found), name)
    seen = _gather(
        {
            name: _Seen(
                owners[id(found)], found.first, found.statistic.tokens, tuple(found.sample.shape), found.sample.dtype
            )
            for name, found in inputs.items()
        }
    )
    totals, result = {}, {}
    for layer in layers:
        told = [process.get(layer.name) for process in seen]
        if not any(told):
            continue
        shared = tuple(entry and entry.owner for entry in told)
        if shared not in totals:
            totals[shared] = _add_up(told, inputs.get(layer.name), statistic, layer.weight.device)
        result[layer.name] = totals[shared]
    return result


def _add_up(told, own, statistic, device):
    """One `LayerInputs` from the reports of all processes (`_Seen` or None) and this one's own (or None)."""
    # Batches are assigned round-robin: the earliest window has the lowest (turn, rank).
    first, source = min((entry.first, process) for process, entry in enumerate(told) if entry)
    width = told[source].sample_shape[1]
    total = copy.deepcopy(own.statistic) if own else statistic(width, device)  # a copy: other layers may need it too
    dist.all_reduce(total.sums)
    total.tokens = sum(entry.tokens for entry in told if entry)
    sample = torch.empty(told[source].sample_shape, dtype=told[source].dtype, device=device)
    if source == rank():
        sample.copy_(own.sample)
    if sample.numel():  # an expert can be called with no tokens
        dist.broadcast(sample.view(torch.uint8), src=source)  # bytes, since not every backend supports every dtype
    return LayerInputs(total, sample, first)


def _gather(value):
    values = [None] * size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def process_group(device=None):
    """Join torchrun's process group inside a `with`. Without torchrun, do nothing.

    Args:
        device: the user's choice: None (this process's GPU if there is one, else the CPU), "cuda" or "cpu".

    Yields: the device of this process; without torchrun, `device` unchanged.

    Raises: ValueError: a device that processes cannot share, fewer GPUs than processes, an incomplete environment.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device not in (None, "cpu", "cuda"):
        raise ValueError(
            f"--device {device} cannot be shared by {os.environ['WORLD_SIZE']} processes; "
            "'cuda' gives each its own GPU, 'cpu' uses none"
        )
    missing = [name for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE") if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} in the environment, without {', '.join(missing)}; "
            "start several processes with torchrun, or unset WORLD_SIZE"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on this machine need as many GPUs, "
                f"but there are {torch.cuda.device_count()}; start fewer, or add --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
    yield device  # after an error, do not wait for the others: see `leave`
    dist.barrier()
    dist.destroy_process_group()


def leave(status):
    """Exit a failed rank at once, since a clean shutdown would deadlock; torchrun then ends the others.

    In a single process, only return the exit status."""
    if size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
