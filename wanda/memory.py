"""How much memory `prune_checkpoint` needs: a formula, to be held against measurements (`benchmarks/memory.py`)."""

import ctypes
import sys
from contextlib import contextmanager

from .skeleton import Skeleton, find_folder

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
WORKING_COPIES = 4  # of a layer in float32, at most, while its mask is chosen: weight, score, sorted score, result


def memory_needed(source, tokens=0, *, hessians=False, skip=(), revision=None):
    """Bytes that `prune_checkpoint` takes at its peak, over what the imports take.

    Three moments compete: the first block with the embeddings below it, when the calibration data is taken in; a block
    with the working copies of its largest layer, while masks are chosen; a block and the next one, which is read
    meanwhile. So a model of S bytes in B blocks asks for less than 3 S/B, embeddings and activations, whatever B is.

    Args:
        source, skip, revision: as in `prune_checkpoint`. Only headers are read.
        tokens: positions per batch: batch_size times the length of a window; 0 without calibration data. Padded
            batches keep their attention masks besides, which are not counted here.
        hessians: True for SparseGPT and update="obs", which keep a matrix [in, in] for each layer's inputs.

    Returns: dict of bytes: "block" (weights of the largest block), "layer" (working copies), "embeddings" (all before
        the blocks), "activations" (of one batch in a block), "hessians", and "total", the peak.
    """
    skeleton = Skeleton(find_folder(source, revision))
    blocks = skeleton.blocks(skip)
    shapes = [[tuple(layer.weight.shape) for layer in block.layers] for block in blocks]
    itemsize, hidden = skeleton.model.dtype.itemsize, skeleton.model.get_input_embeddings().embedding_dim
    block = max(_bytes(skeleton, skeleton.inside(block)) for block in blocks)
    layer = WORKING_COPIES * 4 * max(outputs * inputs for layers in shapes for outputs, inputs in layers)
    embeddings = _bytes(skeleton, skeleton.outside(blocks))
    # A block's forward: what each layer reads and gives, and the residual stream; its widest input in float32, twice,
    # and the norm's two float32 copies of the stream.
    widths = max(sum(outputs + inputs for outputs, inputs in layers) for layers in shapes)
    widest = max(inputs for layers in shapes for _, inputs in layers)
    activations = tokens * (itemsize * (widths + 4 * hidden) + 8 * widest + 8 * hidden)
    # Sums in float64 and factors in float32, as if no two layers shared their input; then the factorisation's copies.
    squares = max(sum(inputs**2 for _, inputs in layers) for layers in shapes)
    matrices = 12 * squares + 28 * widest**2 if hessians else 0
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
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 18)  # blocks from this size on are mappings of their own
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


def _bytes(skeleton, names):
    """What tensors take in memory: as they are stored, and once more where the model's dtype is another."""
    own, sizes = skeleton.model.state_dict(), {}
    for name in names:
        key, size = skeleton.keys[name], own[name].numel() * own[name].element_size()
        stored = skeleton.stored[key].size
        sizes[key] = stored if stored == size else stored + size  # tied tensors are one
    return sum(sizes.values())
