"""Hidden states in a file, batch by batch: `prune_checkpoint` uses it where `prune` has a list in memory.

A batch is a line of JSON with its dtype, shape and checksum, followed by its bytes. Between a GPU and the file it is in pinned
memory, so that the GPU and the disk work at the same time.
"""

import json
import math
import os

import torch

from ..devices.distributed import checksum
from .safetensors_files import DTYPES, NAMES, as_bytes, fill, unreadable

LONGEST_HEADER = 1000  # bytes


class Appender:
    """Appends hidden states [batch, length, hidden], on any device, to a file; discards them if `file` is None.

    Use it as a context manager: the last batch from a GPU is written on exit.
    """

    def __init__(self, file):
        self.file, self.coming = file, None

    def append(self, states):
        """Write a batch. From a GPU, start an asynchronous copy, and write the batch before, copied in the meantime."""
        if self.file is None:
            return
        if not states.is_cuda:
            self._write(states)
            return
        arriving = states.detach().to("cpu", non_blocking=True), torch.cuda.current_stream(states.device).record_event()
        self._finish()
        self.coming = arriving

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self._finish()

    def _finish(self):
        if self.coming is not None:
            states, arrival = self.coming
            self.coming = None
            arrival.synchronize()
            self._write(states)

    def _write(self, states):
        about = {"dtype": NAMES[states.dtype], "shape": list(states.shape), "checksum": int(checksum(states))}
        self.file.write(json.dumps(about).encode() + b"\n")
        self.file.write(as_bytes(states))


class Stream:
    """Reads an activation file, one batch at a time; each iteration starts from its beginning.

    Args:
        pin: whether batches are in pinned memory, so that one can be copied to a GPU while the next is read.

    Raises: RuntimeError naming a file that cannot be read or is damaged.
    """

    def __init__(self, path, batches, pin=False):
        self.path, self.batches, self.pin = path, batches, pin

    def __iter__(self):
        if not self.batches:
            return
        try:
            with open(self.path, "rb") as file:
                for _ in range(self.batches):
                    yield self._next(file)
        except (OSError, EOFError) as error:
            raise unreadable(self.path, error) from error

    def _next(self, file):
        line = file.readline(LONGEST_HEADER)
        if not line.endswith(b"\n") and len(line) < LONGEST_HEADER:
            raise EOFError
        try:
            about = json.loads(line)
            dtype, shape, expected = DTYPES[about["dtype"]], about["shape"], about["checksum"]
            is_shape = all(type(length) is int and length >= 0 for length in shape)
            if not is_shape or math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
                raise ValueError(f"shape {shape}")  # found before so much memory is allocated
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged() from error
        states = torch.empty(shape, dtype=dtype, pin_memory=self.pin)
        fill(as_bytes(states), file)
        if int(checksum(states)) != expected:
            raise self._damaged()
        return states

    def _damaged(self):
        target = self.path.parent.parent
        return RuntimeError(f"{str(self.path)!r} is damaged; remove {str(target)!r} and start again")
