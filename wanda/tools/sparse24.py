"""2:4 sparsity at inference: its storage format, and layers that a GPU multiplies with half the work.

Of every four consecutive inputs of an output, at most two weights are not zero. A row can be stored as half of its
values and two bits for the position of each, and the tensor cores of NVIDIA GPUs since Ampere (compute capability 8.0)
multiply with that format directly. `pack` and `unpack` implement the format in plain tensors, on any device, to count
bytes and to show how it works; `convert` converts a model's layers to PyTorch's own format, which needs such a GPU.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..blocks.experts import ExpertLinear
from ..blocks.stacks import find_blocks

HALF_TYPES = (torch.float16, torch.bfloat16)
DEVICE, CAPABILITY = "cuda", (8, 0)


def violations(weight):
    """Count the groups of four consecutive inputs with more than two non-zeros. weight: Tensor [out, in].

    Raises: ValueError: the width is not a multiple of 4.
    """
    return int((_groups(weight) != 0).sum(dim=-1).gt(2).sum())


def pack(weight):
    """Pack a 2:4 weight into its values and their positions.

    Args:
        weight: Tensor [out, in] with at most two non-zeros in every four consecutive inputs.

    Returns: (values, places). values: Tensor [out, in / 2], the two values kept in each group, in order. places: uint8
        Tensor [out, ceil(in / 8)], two bits for the position, 0 to 3, of each value: a group takes four bits, the first
        of a pair of groups the lower four. A group with fewer than two non-zeros is padded with its first zeros.

    Raises: ValueError: a width not divisible by 4, or a group with more than two non-zeros.
    """
    if count := violations(weight):
        raise ValueError(f"{count} groups of four hold more than two non-zeros: the weight is not 2:4")
    groups = _groups(weight)  # [out, in / 4, 4]
    # Sorted by "is zero", the two to keep come first; a stable sort keeps them, and the zeros, in order.
    kept = (groups == 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., :2].sort(dim=-1).values  # [out, in / 4, 2]
    values = groups.gather(-1, kept).flatten(1)  # [out, in / 2]
    halves = (kept[..., 0] | kept[..., 1] << 2).to(torch.uint8)  # [out, in / 4]: four bits each
    if halves.shape[1] % 2:
        halves = nn.functional.pad(halves, (0, 1))
    return values, halves[:, ::2] | halves[:, 1::2] << 4


def unpack(values, places):
    """Restore the weight [out, in] from the output of `pack`."""
    outputs, width = values.shape[0], 2 * values.shape[1]
    halves = torch.stack([places & 15, places >> 4], dim=-1).flatten(1)[:, : width // 4]  # [out, in / 4]
    kept = torch.stack([halves & 3, halves >> 2], dim=-1).long()  # [out, in / 4, 2]
    groups = values.new_zeros(outputs, width // 4, 4)
    return groups.scatter_(-1, kept, values.reshape(outputs, -1, 2)).flatten(1)


def _groups(weight):
    if weight.ndim != 2 or weight.shape[1] % 4:
        raise ValueError(f"2:4 needs a matrix [out, in] with a width divisible by 4, got shape {tuple(weight.shape)}")
    return weight.detach().unflatten(1, (-1, 4))


@dataclass(frozen=True)
class Conversion:
    """The result for one layer: `sparse` says whether it is stored and multiplied as 2:4; if not, `reason` says why."""

    name: str
    shape: tuple
    sparse: bool
    reason: str = ""


def convert(model, skip=()):
    """Convert a model's 2:4-pruned layers to PyTorch's semi-structured weights, in place, for inference on a GPU.

    Layers whose shape the kernel does not support stay dense; the result says which and why. The embeddings and the
    output head, which are not pruned, stay unchanged. Afterwards the weights cannot be trained, pruned or saved: save
    the dense model first.

    Args:
        model: pruned with `pattern="2:4"`, in float16 or bfloat16, on a CUDA device of compute capability 8.0 or more.
        skip: layers that stay unchanged, as in `prune`.

    Returns: list of `Conversion`, one for each prunable layer.

    Raises: ValueError: a layer is not 2:4, is on another device or has another dtype; raised before the model is
        modified. RuntimeError: the GPU does not support 2:4.
    """
    layers = [layer for block in find_blocks(model, skip) for layer in block.layers]
    for layer in layers:
        _check(layer)
    for device in {layer.weight.device for layer in layers}:
        if torch.cuda.get_device_capability(device) < CAPABILITY:
            raise RuntimeError(
                f"{torch.cuda.get_device_name(device)} does not support 2:4; compute capability 8.0 (Ampere) is needed"
            )
    result = []
    for layer in layers:
        reason = obstacle(layer)
        if not reason:
            weight = torch.sparse.to_sparse_semi_structured(layer.module.weight.detach().contiguous())
            layer.module.weight = nn.Parameter(weight, requires_grad=False)
            layer.module.forward = partial(_multiply_rows, layer.module)
        result.append(Conversion(layer.name, _shape(layer), not reason, reason))
    return result


def _multiply_rows(module, inputs):
    """Compute a converted layer on inputs [..., in] as one matrix [tokens, in], the only form that the kernels support.

    Plain `Linear` decides by the strides; those of [batch, 1, in] can make it call a batched product.
    """
    rows = nn.functional.linear(inputs.reshape(-1, inputs.shape[-1]), module.weight, module.bias)
    return rows.reshape(*inputs.shape[:-1], rows.shape[-1])


def _check(layer):
    weight = layer.weight
    if weight.device.type != DEVICE:
        raise ValueError(
            f"{layer.name} is on {weight.device.type!r}; 2:4 products run on CUDA devices only: "
            "call model.to('cuda') first. On a CPU, leave the model dense: zeros do not make it faster"
        )
    if weight.dtype not in HALF_TYPES:
        raise ValueError(f"{layer.name} has {weight.dtype} weights; float16 or bfloat16 is required: model.half()")
    if weight.shape[1] % 4 == 0 and (count := violations(weight)):
        raise ValueError(
            f"{layer.name} is not 2:4: {count:,} of its {weight.numel() // 4:,} groups of four hold more than two non-zeros; "
            "prune with pattern='2:4', or name the layer in skip to leave it dense"
        )


def obstacle(layer):
    """Why the kernel does not support a layer, or an empty string if it does. layer: a `Linear` of `find_blocks`."""
    if isinstance(layer, ExpertLinear):
        return "its weight is fused with those of other experts"
    if not isinstance(layer.module, nn.Linear):
        return f"{type(layer.module).__name__} stores its weight transposed"
    rows, columns = least_sizes(layer.weight.dtype)
    outputs, width = layer.weight.shape
    if outputs % rows or width % columns:
        return f"shape {outputs} x {width} is not in multiples of {rows} x {columns}"
    return ""


def least_sizes(dtype):
    """The numbers (rows, columns) that must divide a weight's shape, as set by this PyTorch's kernel."""
    forced = torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS  # which of PyTorch's two kernels is in use
    kernel = (
        torch.sparse.SparseSemiStructuredTensorCUTLASS if forced else torch.sparse.SparseSemiStructuredTensorCUSPARSELT
    )
    sizes = kernel._DTYPE_SHAPE_CONSTRAINTS[dtype]
    return sizes.sparse_min_rows, sizes.sparse_min_cols


def _shape(layer):
    return tuple(layer.weight.shape)


def time_products(products, seconds=0.2):
    """Time functions: the median over repeated calls, for about `seconds` in total each, after a warm-up.

    Args:
        products: dict from name to a function without arguments. GPU work is synchronised.

    Returns: dict from name to seconds.
    """
    from torch.utils.benchmark import Timer

    threads = torch.get_num_threads()
    timers = {
        name: Timer("product()", globals={"product": product}, num_threads=threads)
        for name, product in products.items()
    }
    return {name: timer.blocked_autorange(min_run_time=seconds).median for name, timer in timers.items()}
