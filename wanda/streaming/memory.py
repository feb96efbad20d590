"""How much memory `prune_checkpoint` needs, as a formula, and how freed memory goes back to the system at once.

`benchmarks/memory.py` holds the formula against measurements.
"""

import ctypes
import sys
from contextlib import contextmanager

import torch

from ..devices.cpu_threads import threads_on_cpu
from ..devices.selection import PANEL
from .empty_model import Skeleton, find_folder

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
OWN_MAPPING = 1 << 18  # bytes from which on an allocation is a mapping of its own, which goes back when it is freed
KEPT = 4 << 20  # the same during a pass over the batches


def memory_needed(source, tokens=0, *, hessians=False, skip=(), revision=None, threads=None):
    """Bytes that `prune_checkpoint` takes at its peak, over what the libraries take.

    Three moments compete: the first block with the embeddings below it, when the calibration data is taken in; a block
    with the working copies of its largest layer, while masks are chosen; a block and the next one, which is read
    meanwhile. The activations of the batches that are computed at once come on top, so that a model of S bytes in B
    blocks asks for less than 3 S/B, embeddings and activations, however many blocks there are.

    Args:
        source, skip, revision: as in `prune_checkpoint`. Only headers are read.
        tokens: positions per batch: batch_size times the length of a window; 0 without calibration data. Where batches
            are padded, or attention has no fused kernel, its masks and scores [batch, heads, length, length] come besides.
        threads: batches computed at once. None: what this machine does with one window per batch; with more windows
            per batch it is 1.
        hessians: True for SparseGPT and update="obs", which keep a matrix [in, in] for each layer's inputs.

    Returns: dict of bytes: "block" (weights of the largest block), "layer" (working copies), "embeddings" (all before
        the blocks), "activations" (of the batches in a block at once), "hessians", and "total", the peak.

    What the libraries take once in the life of a process (their code, modules that transformers imports when they are
    needed, thread pools) is not in it: results/memory.json has what was measured. The formula is for a CPU. A GPU's
    memory also holds what sorting scores takes, and was not measured.
    """
    skeleton = Skeleton(find_folder(source, revision))
    blocks = skeleton.blocks(skip)
    shapes = [[tuple(layer.weight.shape) for layer in block.layers] for block in blocks]
    itemsize, hidden = skeleton.model.dtype.itemsize, skeleton.model.get_input_embeddings().embedding_dim
    block = max(_bytes(skeleton, skeleton.inside(block)) for block in blocks)
    # In float32: the weight, if it is not that already, and two of: score, score without the norms, sorted score; or
    # new weight and difference. Besides, the mask, and what its choice needs for a panel of the score on each core.
    # A repair takes a copy in float64, and one in float32 of what it leaves, twice, and two masks.
    largest = max(outputs * inputs for layers in shapes for outputs, inputs in layers)
    copies = 8 + 2 * 4 + 2 if hessians else 2 * 4 + 1
    panels = torch.get_num_threads() * PANEL["cpu"]
    layer = largest * (copies + 4 * (itemsize < 4)) + 20 * min(largest, panels)
    embeddings = _bytes(skeleton, skeleton.outside(blocks))
    # A block's forward: what each layer reads and gives, and the residual stream; its widest input in float32, twice,
    # and the norm's two float32 copies of the stream.
    runs = (
        shapes if not skip else [[tuple(layer.weight.shape) for layer in block.layers] for block in skeleton.blocks()]
    )
    widths = max(sum(outputs + inputs for outputs, inputs in layers) for layers in runs)
    widest = max(inputs for layers in runs for _, inputs in layers)
    threads = threads_on_cpu() if threads is None else threads
    activations = threads * tokens * (itemsize * (widths + 4 * hidden) + 8 * widest + 8 * hidden)
    if tokens * itemsize * hidden < KEPT:
        activations *= 2  # freed and kept in pieces of many sizes, see `keeping_freed_memory`
    # Sums and factors in float64, as if no two layers shared their input; then the factorisation's copies. While sums are
    # taken there are no factors, and the batches' products in float32 (half of a matrix each) take less than those would.
    squares = max(sum(inputs**2 for _, inputs in layers) for layers in shapes)
    matrices = 16 * squares + 40 * widest**2 if hessians else 0
    total = max(embeddings + block, block + layer + matrices, 2 * block) + activations
    return {
        "block": block,
        "layer": layer,
        "embeddings": embeddings,
        "activations": activations,
        "hessians": matrices,
        "total": total,
    }


@contextmanager
def returning_freed_memory():
    """For the time of a `with`, have the C library hand a freed tensor back to the system at once.

    glibc keeps freed blocks for later, up to 64 MB at the end of a heap and any number between others, and gets greedier
    with each large block that it sees. Afterwards it is left at what that would have ended at.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


@contextmanager
def keeping_freed_memory():
    """For the time of a `with` inside `returning_freed_memory`, keep small freed blocks for reuse; then hand them back.

    Each batch asks for the same sizes as the one before it. From the system they would come page by page, and several
    threads would wait for each other's page faults. Large blocks take long to fill anyway, and too much room to keep.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, KEPT)
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)
        mallopt(M_TRIM_THRESHOLD, 128 << 10)  # glibc's own
        trim()


def trim():
    """Have the C library hand back what is free within its heaps.

    Large blocks too are taken from there, as long as something that large is free; their pages would stay afterwards.
    """
    malloc_trim = getattr(_libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _libc():
    """The C library, on Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _bytes(skeleton, names):
    """What tensors take in memory: as they are stored, and once more where the model's dtype is another."""
    own, sizes = skeleton.model.state_dict(), {}
    for name in names:
        key, size = skeleton.keys[name], own[name].numel() * own[name].element_size()
        stored = skeleton.stored[key].size
        sizes[key] = stored if stored == size else stored + size  # tied tensors are one
    return sum(sizes.values())
