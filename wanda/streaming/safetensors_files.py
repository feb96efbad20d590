"""Read and write safetensors checkpoints tensor by tensor, with plain reads and writes.

The usual `safe_open` maps a whole file, and the pages that are touched count as memory. Here a tensor is read into a
buffer of its own size, or copied from file to file without ever being in memory as a whole. Files are written
atomically.
"""

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 64  # bytes; tensors begin at its multiples in a buffer
CHUNK = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: `size` bytes from offset `start`; `dtype` is safetensors' name for it."""

    file: Path
    start: int
    size: int
    dtype: str
    shape: tuple


def stored_tensors(folder):
    """Locate each tensor of a checkpoint. Reads headers only.

    Args:
        folder: with `model.safetensors`, or with shards and their index.

    Returns: dict from key to `Stored`.

    Raises: ValueError naming the file: no safetensors found, a shard that is missing, damaged or truncated, a tensor
        missing from the shard that the index names.
    """
    folder = Path(folder)
    if (folder / WHOLE).is_file():
        return _header(folder / WHOLE)
    index = folder / INDEX
    if not index.is_file():
        others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".gguf", ".pt", ".pth"))
        hint = f"; its weights are in {others[0]!r}" if others else ""
        raise ValueError(
            f"{str(folder)!r} holds neither {WHOLE} nor {INDEX}{hint}. Only safetensors can be streamed: open the model "
            "with wanda.load on a machine where it fits in memory, and save it with wanda.save"
        )
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        places = {key: Path(name).as_posix() for key, name in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(index)!r} is not an index of safetensors shards ({error!r})") from error
    shards = {}
    for name in sorted(set(places.values())):
        if not (folder / name).is_file():
            raise ValueError(f"{str(index)!r} names the shard {name!r}, which does not exist")
        shards[name] = _header(folder / name)
    for key, name in places.items():
        if key not in shards[name]:
            raise ValueError(f"{str(folder / name)!r} does not hold {key!r}, although {INDEX} says so")
    return {key: shards[name][key] for key, name in places.items()}


def _header(path):
    """The tensors of one file: dict from key to `Stored`."""
    try:
        with safe_open(path, framework="pt"):
            pass  # the library checks that the header is valid and matches the length of the file
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as safetensors; is it truncated? ({error})") from error
    entries.pop("__metadata__", None)
    stored = {}
    for key, entry in entries.items():
        first, last = entry["data_offsets"]
        stored[key] = Stored(path, 8 + length + first, last - first, entry["dtype"], tuple(entry["shape"]))
    return stored


def read(tensors, pin=False):
    """Read tensors into one new buffer.

    Args:
        tensors: dict from any name to a list of `Stored` of one dtype, which are read one after the other.
        pin: whether the buffer is in pinned memory, for asynchronous copies to a GPU.

    Returns: dict from the same names to tensors [elements], views of the buffer.

    Raises: RuntimeError naming the file that cannot be read.
    """
    starts, total = {}, 0
    for name, parts in tensors.items():
        starts[name] = total
        total += -(-sum(stored.size for stored in parts) // ALIGNMENT) * ALIGNMENT
    buffer = torch.empty(total, dtype=torch.uint8, pin_memory=pin)
    found = {}
    for name, parts in tensors.items():
        stop = start = starts[name]
        for stored in parts:
            try:
                with open(stored.file, "rb", buffering=0) as file:
                    file.seek(stored.start)
                    fill(as_bytes(buffer[stop : stop + stored.size]), file)
            except (OSError, EOFError) as error:
                raise unreadable(stored.file, error) from error
            stop += stored.size
        found[name] = buffer[start:stop].view(DTYPES[parts[0].dtype])
    return found


def as_bytes(tensor):
    """The bytes of a tensor on any device, as a buffer: its own memory if it is contiguous and on the CPU."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def fill(place, file):
    """Read from a file until a buffer is full. Raises: EOFError."""
    while place:
        count = file.readinto(place)  # at most 2 GiB at a time on Linux
        if not count:
            raise EOFError
        place = place[count:]


def _chunks(stored):
    """Yield the bytes of a tensor in chunks, each in the same buffer."""
    buffer = memoryview(bytearray(min(CHUNK, stored.size)))
    try:
        with open(stored.file, "rb", buffering=0) as file:
            file.seek(stored.start)
            for begin in range(0, stored.size, CHUNK):
                chunk = buffer[: stored.size - begin]
                fill(chunk, file)
                yield chunk
    except (OSError, EOFError) as error:
        raise unreadable(stored.file, error) from error


def unreadable(path, error):
    """The error to raise for a file that could not be read, or that ended too early (EOFError)."""
    reason = "it ends before its tensors do; was it changed during the run?" if isinstance(error, EOFError) else error
    return RuntimeError(f"could not read {str(path)!r}: {reason}")


def write_shard(path, tensors):
    """Write a safetensors file, one tensor at a time.

    Args:
        tensors: dict from key to a tensor (on any device), or to a `Stored`, whose bytes are copied unchanged.

    Raises: RuntimeError naming the file that could not be written or read.
    """
    entries, start = {"__metadata__": {"format": "pt"}}, 0
    for key, tensor in tensors.items():
        is_stored = isinstance(tensor, Stored)
        size = tensor.size if is_stored else tensor.numel() * tensor.element_size()
        dtype = tensor.dtype if is_stored else NAMES[tensor.dtype]
        entries[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, start + size]}
        start += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of 8 bytes
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            if isinstance(tensor, Stored):
                file.writelines(_chunks(tensor))
            else:
                file.write(as_bytes(tensor))


def write_index(folder, shards):
    """Write the index that lets `from_pretrained` find each tensor. Written last, it makes the folder a checkpoint.

    Args:
        shards: names of the files in the folder that hold the tensors.
    """
    places, size = {}, 0
    for name in shards:
        tensors = _header(folder / name)
        places |= dict.fromkeys(tensors, name)
        size += sum(tensor.size for tensor in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def write_json(path, content):
    """Write a JSON file atomically."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


@contextmanager
def replacing(path):
    """Yield a binary file, which replaces `path` atomically once it is synced to the disk."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RuntimeError(f"could not write {str(path)!r}: {error.strerror or error}") from error
        raise


def _sync_folder(folder):
    """Sync a folder, so that a rename survives a power failure. Windows has no such call."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_file(source, target):
    """Copy a small file, byte for byte."""
    content = source.read_bytes()
    with replacing(target) as file:
        file.write(content)
