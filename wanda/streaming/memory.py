"""How much memory `prune_checkpoint` needs, as a formula, and how to return freed memory to the system at once.

`benchmarks/memory.py` checks the formula against measurements.
"""

import ctypes
import sys
from contextlib import contextmanager

import torch

from ..devices.cpu_threads import threads_on_cpu
from ..devices.selection import PANEL
from ..sources.checkpoints import find_folder
from .empty_model import Skeleton

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
OWN_MAPPING = 1 << 18  # bytes; an allocation of this size or more gets its own mapping, which is returned when freed
KEPT = 4 << 20  # the same during a pass over the batches


def memory_needed(source, tokens=0, *, hessians=False, admm=False, skip=(), revision=None, threads=None):
    """The peak memory of `prune_checkpoint` in bytes, on top of what the libraries take.

    The peak is the largest of three: the first block with the embeddings, during the capture; a block with the working
    copies of its largest layer, while masks are chosen; a block and the next one, which is read in the background. Each
    includes the activations of the batches that are computed at once. A model of S bytes in B blocks needs less than
    3 S/B plus embeddings and activations, however many blocks it has.

    Args:
        source, skip, revision: as in `prune_checkpoint`. Only headers are read.
        tokens: positions per batch: batch_size times the length of a window; 0 without calibration data. If batches
            are padded, or attention has no fused kernel, add its masks and scores [batch, heads, length, length].
        threads: batches computed at once. None: as many as this machine computes with one window per batch; with
            more windows per batch, it is 1.
        hessians: True for SparseGPT, ADMM and any `update`, which keep a matrix [in, in] for each layer's inputs.
        admm: True for ADMM, which takes four copies of a layer in float64.

    Returns: dict of bytes: "block" (weights of the largest block), "layer" (working copies), "embeddings" (all before
        the blocks), "activations" (of the batches in a block at once), "hessians", and "total", the peak.

    The formula excludes what the libraries take once per process (their code, modules that transformers imports lazily,
    thread pools), which is measured in results/memory.json. It is for a CPU. On a GPU, sorting scores takes additional
    memory, which was not measured.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"tokens must be a whole number of positions per batch, 0 without data; got {tokens!r}")
    skeleton = Skeleton(find_folder(source, revision))
    blocks = skeleton.blocks(skip)
    shapes = [[tuple(layer.weight.shape) for layer in block.layers] for block in blocks]
    itemsize, hidden = skeleton.model.dtype.itemsize, skeleton.model.get_input_embeddings().embedding_dim
    block = max(_bytes(skeleton, skeleton.inside(block)) for block in blocks)
    # In float32: the weight, unless it already is, and two of: score, score without the norms, sorted score; or new
    # weight and difference. In addition: the mask, and the scratch space to select it in one panel of the score per
    # core. An update takes a float64 copy, two float32 copies of its result, and two masks;
    # ADMM four float64 copies, its result and a mask.
    largest = max(outputs * inputs for layers in shapes for outputs, inputs in layers)
    copies = 4 * 8 + 4 + 1 if admm else 8 + 2 * 4 + 2 if hessians else 2 * 4 + 1
    panels = torch.get_num_threads() * PANEL["cpu"]
    layer = largest * (copies + 4 * (itemsize < 4)) + 20 * min(largest, panels)
    embeddings = _bytes(skeleton, skeleton.outside(blocks))
    # A block's forward: the input and output of each layer, and the residual stream; two float32 copies of its widest
    # input, and the norm's two float32 copies of the stream.
    runs = (
        shapes if not skip else [[tuple(layer.weight.shape) for layer in block.layers] for block in skeleton.blocks()]
    )
    widths = max(sum(outputs + inputs for outputs, inputs in layers) for layers in runs)
    widest = max(inputs for layers in runs for _, inputs in layers)
    threads = threads_on_cpu() if threads is None else threads
    activations = threads * tokens * (itemsize * (widths + 4 * hidden) + 8 * widest + 8 * hidden)
    if tokens * itemsize * hidden < KEPT:
        activations *= 2  # freed blocks of many sizes are kept, see `keeping_freed_memory`
    # Sums and factors in float64, as if no two layers shared their input; then the factorisation's copies. While sums are
    # accumulated, there are no factors, and the batches' float32 products (half a matrix each) take less than those.
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
    """Inside a `with`, make the C library return freed tensors to the system at once.

    glibc keeps freed blocks for reuse, up to 64 MB at the end of a heap and any number between others, and raises its
    thresholds with each large block that is freed. On exit, they are set to the maxima that it would have reached.
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
    """Inside a `with` within `returning_freed_memory`, keep small freed blocks for reuse; return them on exit.

    Each batch allocates the same sizes as the one before. Memory from the system comes page by page, and threads
    contend for page faults. Large blocks are not kept: they take long to fill anyway, and too much memory to keep.
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
    """Make the C library return the free memory within its heaps.

    Large blocks also come from the heaps while a free block is large enough; without this, their pages would stay.
    """
    malloc_trim = getattr(_libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _libc():
    """The C library, on Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _bytes(skeleton, names):
    """The bytes that tensors take in memory: as stored, plus a converted copy if the model's dtype differs."""
    own, sizes = skeleton.model.state_dict(), {}
    for name in names:
        keys, size = skeleton.keys[name], own[name].numel() * own[name].element_size()
        stored = sum(skeleton.stored[key].size for key in keys)
        sizes[keys] = stored if stored == size else stored + size  # tied tensors count once
    return sum(sizes.values())
